//! What came of syncing a database with one peer, as text and as an object; and the verdict on several syncs, which
//! becomes the exit code.

use crate::failure::{Failure, Kind};
use crate::output::{Output, plain};
use crate::units;
use anabranch::{Progress, Report};
use serde_json::{Value, json};
use std::time::Duration;

/// A sync that was done.
pub(crate) struct Exchange {
    /// What the database is called here.
    pub(crate) name: String,
    /// Its id.
    pub(crate) database: String,
    /// Where the peer is.
    pub(crate) address: String,
    /// What moved.
    pub(crate) report: Report,
    /// How long it took.
    pub(crate) time: Duration,
    /// Conflicts there are now; `None` when nobody looked, because nothing came.
    pub(crate) conflicts: Option<u64>,
    /// Whether it only compared.
    pub(crate) dry_run: bool,
}

impl Exchange {
    /// Prints it.
    pub(crate) fn tell(&self, output: Output) -> Result<(), Failure> {
        output.summary(&plain(&self.text()), &self.object())?;
        if let Some(ahead) = self.report.progress.clock_ahead {
            let by = units::duration(Duration::from_micros(ahead.unsigned_abs()));
            let way = if ahead > 0 { "ahead of" } else { "behind" };
            output.warn(&plain(&format!(
                "the clock of {} is {by} {way} this one; of two changes made at the same time the older may be shown",
                self.address
            )));
        }
        Ok(())
    }

    fn text(&self) -> String {
        let progress = &self.report.progress;
        let what = if self.dry_run { would_move(progress) } else { moved(progress, self.time) };
        let mut text = format!("{}  {}  {what}", self.name, self.address);
        if let Some(count) = self.conflicts.filter(|count| *count > 0) {
            let name = &self.name;
            let count = units::counted(count, "conflict", "conflicts");
            text.push_str(&format!("\n{name}  {count}: see 'anabranch db conflicts {name}'"));
        }
        text
    }

    fn object(&self) -> Value {
        let progress = &self.report.progress;
        if self.dry_run {
            return json!({
                "dry_run": true,
                "kind": "database",
                "here": self.name,
                "there": self.address,
                "entries_would_send": progress.due,
                "entries_would_receive": progress.lacking,
            });
        }
        let ahead = self.report.progress.clock_ahead.map(|us| us as f64 / 1_000_000.0);
        json!({
            "kind": "database",
            "here": self.name,
            "there": self.address,
            "database": self.database,
            "peer": self.report.peer.to_string(),
            "entries_sent": progress.entries_sent,
            "entries_received": progress.entries_received,
            "bytes_sent": progress.bytes_sent,
            "bytes_received": progress.bytes_received,
            "conflicts": self.conflicts,
            "clock_ahead_seconds": ahead,
            "seconds": self.time.as_secs_f64(),
        })
    }
}

fn would_move(progress: &Progress) -> String {
    let entries = |count| units::counted(count, "entry", "entries");
    format!("would send {}, receive {}", entries(progress.due), entries(progress.lacking))
}

fn moved(progress: &Progress, time: Duration) -> String {
    let mut parts = Vec::new();
    for (verb, entries, bytes) in [
        ("sent", progress.entries_sent, progress.bytes_sent),
        ("received", progress.entries_received, progress.bytes_received),
    ] {
        if entries > 0 || bytes > 0 {
            let entries = units::counted(entries, "entry", "entries");
            parts.push(format!("{verb} {entries} ({})", units::bytes(bytes)));
        }
    }
    if parts.is_empty() {
        parts.push("nothing moved".to_owned());
    }
    format!("{} in {}", parts.join(", "), units::duration(time))
}

/// Several syncs, of which one that fails keeps no other from being done.
#[derive(Default)]
pub(crate) struct Syncs {
    all: usize,
    failed: Vec<(String, Failure)>,
}

impl Syncs {
    /// Notes what came of the sync of `what`.
    pub(crate) fn add(&mut self, what: &str, result: Result<(), Failure>) {
        self.all += 1;
        if let Err(failure) = result {
            self.failed.push((what.to_owned(), failure));
        }
    }

    /// Whether all of it worked; if not, what did not and why.
    pub(crate) fn verdict(mut self) -> Result<(), Failure> {
        if self.all == 1
            && let Some((_, failure)) = self.failed.pop()
        {
            return Err(failure);
        }
        if self.failed.is_empty() {
            return Ok(());
        }
        let none = self.failed.len() == self.all
            && self.failed.iter().all(|(_, failure)| failure.kind != Kind::Partly);
        let kind = if none { Kind::Failed } else { Kind::Partly };
        let text = format!("{} of {} syncs failed", self.failed.len(), self.all);
        let summary = Failure::failed(text).of_kind(kind);
        Err(self.failed.into_iter().fold(summary, |summary, (what, failure)| {
            summary.reason(format!("{what}: {}", failure.line()))
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(kinds: &[Option<Kind>]) -> u8 {
        let mut syncs = Syncs::default();
        for kind in kinds {
            let failed = |kind: &Kind| Failure::failed("it failed").of_kind(*kind);
            syncs.add("x", kind.as_ref().map_or(Ok(()), |kind| Err(failed(kind))));
        }
        syncs.verdict().map_or_else(|failure| failure.exit_code(), |()| 0)
    }

    #[test]
    fn some_of_several_is_partly_done() {
        let failed = Some(Kind::Failed);
        assert_eq!(verdict(&[]), 0);
        assert_eq!(verdict(&[None, None]), 0);
        assert_eq!(verdict(&[failed]), 1);
        assert_eq!(verdict(&[failed, failed]), 1);
        assert_eq!(verdict(&[failed, None]), 3);
        assert_eq!(verdict(&[failed, Some(Kind::Partly)]), 3);
        assert_eq!(verdict(&[Some(Kind::Usage)]), 2);
    }
}
