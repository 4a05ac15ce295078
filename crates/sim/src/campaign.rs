//! Many seeds: on as many threads as there are, each simulation in one, until one fails or all are done.

use crate::check::Violation;
use crate::plan::{FaultKind, Options, Plan};
use crate::world::{Stats, simulate};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A seed whose simulation did not end well.
#[derive(Debug)]
pub struct Failure {
    /// Which.
    pub seed: u64,
    /// How.
    pub violation: Violation,
}

/// Sums over simulations.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Simulations.
    pub seeds: u64,
    /// Transactions acknowledged, by simulation.
    pub operations: Vec<u64>,
    /// Faults, by simulation.
    pub faults: Vec<u64>,
    /// Faults by kind.
    pub kinds: BTreeMap<FaultKind, u64>,
    /// Nodes, the most of one simulation.
    pub most_nodes: usize,
    /// Entries.
    pub entries: u64,
    /// Sessions.
    pub sessions: u64,
    /// Frames.
    pub frames: u64,
    /// Virtual time.
    pub simulated: Duration,
    /// Real time.
    pub took: Duration,
}

impl Summary {
    fn add(&mut self, stats: &Stats) {
        self.seeds += 1;
        self.operations.push(stats.operations);
        self.faults.push(stats.faults.values().sum());
        for (kind, count) in &stats.faults {
            *self.kinds.entry(*kind).or_default() += count;
        }
        self.most_nodes = self.most_nodes.max(stats.nodes);
        self.entries += stats.entries;
        self.sessions += stats.sessions;
        self.frames += stats.frames;
        self.simulated += Duration::from_micros(stats.time);
    }
}

/// The middle one; 0 of none.
#[must_use]
pub fn median(values: &[u64]) -> u64 {
    let mut values = values.to_vec();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

/// Simulates `seeds` seeds from `first` on `threads` threads, stopping after the first failure. `progress` is told after
/// each one.
pub fn run(
    first: u64,
    seeds: u64,
    options: &Options,
    threads: usize,
    progress: &(dyn Fn(&Summary) + Sync),
) -> (Summary, Option<Failure>) {
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let results = Mutex::new((Summary::default(), None::<Failure>));
    let begin = Instant::now();
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= seeds {
                return;
            }
            let seed = first.wrapping_add(number);
            let outcome = simulate(&Plan::generate(seed, options), false);
            let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
            let (summary, failure) = &mut *results;
            summary.add(&outcome.stats);
            summary.took = begin.elapsed();
            if let Some(violation) = outcome.violation {
                stop.store(true, Ordering::Relaxed);
                if failure.as_ref().is_none_or(|failure| failure.seed > seed) {
                    *failure = Some(Failure { seed, violation });
                }
            }
            progress(summary);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.max(1) {
            scope.spawn(work);
        }
        work();
    });
    let (mut summary, failure) = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    summary.took = begin.elapsed();
    (summary, failure)
}
