//! What came of syncing: for each replica and each peer what moved, as text and as objects, and the verdict that becomes
//! the exit code.

use crate::failure::{Failure, Kind};
use crate::units;
use anabranch::{Progress, Report};
use serde_json::{Value, json};
use std::time::Duration;

/// One replica after syncing.
pub(crate) struct Synced {
    /// What it is called here.
    pub(crate) name: String,
    /// `database` or `folder`.
    pub(crate) kind: &'static str,
    /// Its database's id.
    pub(crate) database: String,
    /// One for each peer.
    pub(crate) exchanges: Vec<Exchange>,
    /// Conflicts there are now; `None` when nobody looked, because nothing came.
    pub(crate) conflicts: Option<u64>,
}

/// What happened with one peer.
pub(crate) struct Exchange {
    /// Where it is.
    pub(crate) address: String,
    /// How long it took.
    pub(crate) time: Duration,
    /// What moved, or why nothing more did.
    pub(crate) result: Result<Report, Failure>,
}

/// Prints what came of syncing and says whether all of it worked.
pub(crate) fn tell(
    output: crate::output::Output,
    synced: &[Synced],
    dry_run: bool,
) -> Result<(), Failure> {
    let mut lines: Vec<String> = Vec::new();
    let single = synced.iter().map(|s| s.exchanges.len()).sum::<usize>() == 1;
    for replica in synced {
        lines.extend(replica.lines(dry_run, single));
    }
    let objects: Vec<Value> = synced.iter().map(|s| s.object(dry_run)).collect();
    let document = json!({ "dry_run": dry_run, "replicas": objects });
    output.summary(&crate::output::plain(&lines.join("\n")), &document)?;
    for exchange in synced.iter().flat_map(|s| &s.exchanges) {
        if let Some(warning) = exchange.clock_warning() {
            output.warn(&warning);
        }
    }
    verdict(synced)
}

fn verdict(synced: &[Synced]) -> Result<(), Failure> {
    let all: Vec<&Exchange> = synced.iter().flat_map(|s| &s.exchanges).collect();
    let failed: Vec<&Failure> = all.iter().filter_map(|e| e.result.as_ref().err()).collect();
    match failed.as_slice() {
        [] => Ok(()),
        [only] if all.len() == 1 => Err((*only).clone()),
        some => {
            let text = format!("{} of {} could not be synced with", some.len(), all.len());
            let kind = if some.len() == all.len() { Kind::Failed } else { Kind::Partly };
            Err(Failure::failed(text).of_kind(kind))
        }
    }
}

impl Synced {
    fn lines(&self, dry_run: bool, single: bool) -> Vec<String> {
        let mut lines = Vec::new();
        for exchange in &self.exchanges {
            let what = match &exchange.result {
                Ok(report) if dry_run => would_move(&report.progress),
                Ok(report) => moved(&report.progress, exchange.time),
                // The only one becomes the command's own error.
                Err(_) if single => continue,
                Err(failure) => format!("failed: {}", failure.line()),
            };
            lines.push(format!("{}  {}  {what}", self.name, exchange.address));
        }
        if self.exchanges.is_empty() {
            lines.push(format!("{}  no address is known to sync with", self.name));
        }
        if let Some(count) = self.conflicts.filter(|c| *c > 0) {
            lines.push(format!(
                "{}  {}: see 'anabranch db conflicts {}'",
                self.name,
                units::counted(count, "conflict", "conflicts"),
                self.name
            ));
        }
        lines
    }

    fn object(&self, dry_run: bool) -> Value {
        let peers: Vec<Value> = self.exchanges.iter().map(|e| e.object(dry_run)).collect();
        json!({
            "name": self.name,
            "kind": self.kind,
            "database": self.database,
            "peers": peers,
            "conflicts": self.conflicts,
        })
    }
}

impl Exchange {
    fn clock_warning(&self) -> Option<String> {
        let ahead = self.result.as_ref().ok()?.clock_ahead?;
        let by = units::duration(Duration::from_micros(ahead.unsigned_abs()));
        let way = if ahead > 0 { "ahead of" } else { "behind" };
        Some(format!(
            "the clock of {} is {by} {way} this one; of two changes made at the same time the wrong one may be shown",
            self.address
        ))
    }

    fn object(&self, dry_run: bool) -> Value {
        let report = self.result.as_ref().ok();
        let progress = report.map(|r| r.progress).unwrap_or_default();
        let mut object = json!({
            "address": self.address,
            "node": report.map(|r| r.peer.to_string()),
            "seconds": self.time.as_secs_f64(),
            "clock_ahead_seconds":
                report.and_then(|r| r.clock_ahead).map(|us| us as f64 / 1_000_000.0),
            "error": self.result.as_ref().err().map(Failure::line),
        });
        if let Value::Object(fields) = &mut object {
            if dry_run {
                fields.insert("would_send".into(), progress.due.into());
                fields.insert("would_receive".into(), progress.lacking.into());
            } else {
                let moved =
                    |entries: u64, bytes: u64| json!({ "entries": entries, "bytes": bytes });
                fields.insert("sent".into(), moved(progress.entries_sent, progress.bytes_sent));
                let received = moved(progress.entries_received, progress.bytes_received);
                fields.insert("received".into(), received);
            }
        }
        object
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
