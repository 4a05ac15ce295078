//! Runs that arrived before what they build on (I3). A bounded cache: dropping from it is always safe, because the
//! frontier tells peers what is still missing.

use anabranch_core::id::{LogId, Position, Seq};
use anabranch_core::run::VerifiedRun;
use anabranch_core::sabotage::{self, Bug};
use std::collections::{BTreeMap, BTreeSet};

/// Default for the bytes that wait for one database.
pub const PENDING_BYTES: usize = 4 * 1024 * 1024;

/// Verified runs that wait, each under the place that it misses.
#[derive(Debug)]
pub struct Pending {
    /// By the order in which they came.
    runs: BTreeMap<u64, (VerifiedRun, Place)>,
    by_place: BTreeSet<(Place, u64)>,
    by_head: BTreeMap<Position, u64>,
    next: u64,
    bytes: usize,
    limit: usize,
}

type Place = (LogId, Seq);

impl Default for Pending {
    fn default() -> Self {
        Self::new(PENDING_BYTES)
    }
}

impl Pending {
    /// Keeps at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            runs: BTreeMap::new(),
            by_place: BTreeSet::new(),
            by_head: BTreeMap::new(),
            next: 0,
            bytes: 0,
            limit,
        }
    }

    /// Adds a run that waits for a place of a log, dropping the oldest if there is no room. One that waits already is not
    /// added again.
    pub fn push(&mut self, run: VerifiedRun, log: LogId, seq: Seq) {
        let head = run.head().position;
        if self.by_head.contains_key(&head) {
            return;
        }
        let (number, place) = (self.next, (log, seq));
        self.next += 1;
        self.bytes += run.bytes();
        self.by_head.insert(head, number);
        self.by_place.insert((place, number));
        self.runs.insert(number, (run, place));
        while self.bytes > self.limit && !sabotage::is(Bug::PendingUnbounded) {
            let Some(oldest) = self.runs.keys().next().copied() else { break };
            self.remove(oldest);
        }
    }

    fn remove(&mut self, number: u64) -> Option<VerifiedRun> {
        let (run, place) = self.runs.remove(&number)?;
        self.by_place.remove(&(place, number));
        self.by_head.remove(&run.head().position);
        self.bytes -= run.bytes();
        Some(run)
    }

    /// Takes the runs that wait for a place of `log` up to `seq`, to be tried again. Cost: those runs.
    pub fn take_ready(&mut self, log: &LogId, seq: Seq) -> Vec<VerifiedRun> {
        let range = ((*log, 0), 0)..=((*log, seq), u64::MAX);
        let ready: Vec<u64> = self.by_place.range(range).map(|(_, number)| *number).collect();
        ready.into_iter().filter_map(|number| self.remove(number)).collect()
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
