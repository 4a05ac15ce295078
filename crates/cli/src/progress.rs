//! Progress on standard error: only on a terminal, only for what takes longer than a second, and gone when it is done.

use crate::output::Output;
use crate::units;
use anabranch::{Control, Progress};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(1);
const EACH: Duration = Duration::from_millis(100);

/// One line of progress. Dropping it removes the line.
pub(crate) struct Meter {
    bar: ProgressBar,
    allowed: bool,
    shown: bool,
    since: Instant,
}

impl Meter {
    /// A line that begins with `label`.
    pub(crate) fn new(output: Output, label: &str) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        bar.set_prefix(crate::output::plain(label));
        Self { bar, allowed: output.draws(), shown: false, since: Instant::now() }
    }

    /// Shows how far it is: `done` of `total`, if that is known, and `text`.
    pub(crate) fn set(&mut self, done: u64, total: Option<u64>, text: String) {
        if !self.allowed || self.since.elapsed() < PATIENCE {
            return;
        }
        let template = match total {
            Some(_) => "{prefix}  {bar:20} {percent:>3} %  {msg}",
            None => "{prefix}  {spinner} {msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
        match total {
            Some(total) => self.bar.set_length(total.max(1)),
            None => self.bar.unset_length(),
        }
        self.bar.set_message(text);
        self.bar.set_position(done);
        if !self.shown {
            self.shown = true;
            self.bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if self.shown {
            self.bar.finish_and_clear();
        }
    }
}

/// Shows what a session moves, for as long as the result lives.
pub(crate) fn session(output: Output, label: &str, control: &Control) -> Drawing {
    let mut meter = Meter::new(output, label);
    let progress = control.progress.subscribe();
    Drawing(tokio::spawn(async move {
        let mut ticks = tokio::time::interval(EACH);
        loop {
            ticks.tick().await;
            let now = *progress.borrow();
            meter.set(moved(&now), total(&now), describe(&now));
        }
    }))
}

/// Ends the drawing when it is dropped.
pub(crate) struct Drawing(tokio::task::JoinHandle<()>);

impl Drop for Drawing {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn moved(progress: &Progress) -> u64 {
    progress.entries_sent + progress.entries_received
}

fn total(progress: &Progress) -> Option<u64> {
    let total = progress.due + progress.lacking;
    (total > 0 && !progress.settled).then(|| total.max(moved(progress)))
}

fn describe(progress: &Progress) -> String {
    let entries = units::counted(moved(progress), "entry", "entries");
    let bytes = units::bytes(progress.bytes_sent + progress.bytes_received);
    match progress.blobs_received {
        0 => format!("{entries}, {bytes}"),
        blobs => format!("{entries}, {}, {bytes}", units::counted(blobs, "chunk", "chunks")),
    }
}
