//! Runs on trial: from a peer that has lost its right, and of no use so far. What it brings next may build on them; until then
//! they are not stored, or it could fill the disk. Bounded (I7); dropping them is always safe.

use anabranch_core::run::VerifiedRun;

/// Bytes that are tried in vain for one peer before it is turned away. What is on trial is tried again with each batch.
pub const TRIAL_BYTES: usize = 4 * 1024 * 1024;

/// Runs in the order in which they came.
#[derive(Debug, Default)]
pub struct Trial {
    runs: Vec<VerifiedRun>,
    tried: usize,
}

impl Trial {
    /// Whether nothing is on trial.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Takes out what is to be tried together with a batch, and adds that.
    pub(crate) fn with(&mut self, batch: Vec<VerifiedRun>) -> Vec<VerifiedRun> {
        let mut runs = std::mem::take(&mut self.runs);
        runs.extend(batch);
        runs
    }

    /// These were of no use. `None`: too much was.
    pub(crate) fn go_on(self, runs: Vec<VerifiedRun>) -> Option<Self> {
        let bytes: usize = runs.iter().map(VerifiedRun::bytes).sum();
        let tried = self.tried + bytes;
        (tried <= TRIAL_BYTES).then_some(Self { runs, tried })
    }
}
