//! Runs that arrived before what they build on (I3). A bounded cache: dropping from it is always safe, because the
//! frontier tells peers what is still missing.

use anabranch_core::run::VerifiedRun;
use std::collections::VecDeque;

/// Default for the bytes that wait for one database.
pub const PENDING_BYTES: usize = 4 * 1024 * 1024;

/// Verified runs that wait, oldest first.
#[derive(Debug)]
pub struct Pending {
    runs: VecDeque<VerifiedRun>,
    bytes: usize,
    limit: usize,
}

impl Default for Pending {
    fn default() -> Self {
        Self::new(PENDING_BYTES)
    }
}

impl Pending {
    /// Keeps at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { runs: VecDeque::new(), bytes: 0, limit }
    }

    /// Adds a run, dropping the oldest if there is no room. One that waits already is not added again.
    pub fn push(&mut self, run: VerifiedRun) {
        if self.runs.iter().any(|r| r.head().position == run.head().position) {
            return;
        }
        self.bytes += run.bytes();
        self.runs.push_back(run);
        while self.bytes > self.limit {
            let Some(oldest) = self.runs.pop_front() else { break };
            self.bytes -= oldest.bytes();
        }
    }

    /// Takes everything, to be tried again.
    pub fn take(&mut self) -> Vec<VerifiedRun> {
        self.bytes = 0;
        self.runs.drain(..).collect()
    }

    /// Bytes that wait.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }
}
