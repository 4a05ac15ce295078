//! Many seeds: on as many threads as there are, each simulation in one, until one fails (or not even then) or all are done.

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
    /// Those that failed.
    pub failed: u64,
    /// Transactions acknowledged and changes to folders, by simulation.
    pub operations: Vec<u64>,
    /// Faults, by simulation.
    pub faults: Vec<u64>,
    /// Faults by kind.
    pub kinds: BTreeMap<FaultKind, u64>,
    /// Nodes, the most of one simulation.
    pub most_nodes: usize,
    /// Entries.
    pub entries: u64,
    /// Entries that came to nodes that held them already.
    pub again: u64,
    /// Sessions.
    pub sessions: u64,
    /// What users did to their folders.
    pub deeds: u64,
    /// Updates of folders.
    pub updates: u64,
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
        self.operations.push(stats.operations + stats.deeds);
        self.faults.push(stats.faults.values().sum());
        for (kind, count) in &stats.faults {
            *self.kinds.entry(*kind).or_default() += count;
        }
        self.most_nodes = self.most_nodes.max(stats.nodes);
        self.entries += stats.entries;
        self.again += stats.again;
        self.sessions += stats.sessions;
        self.deeds += stats.deeds;
        self.updates += stats.updates;
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

/// Which seeds, and how.
#[derive(Debug, Clone)]
pub struct Campaign {
    /// The first seed.
    pub first: u64,
    /// How many.
    pub seeds: u64,
    /// What their plans may contain.
    pub options: Options,
    /// Threads; each simulation is in one.
    pub threads: usize,
    /// Whether to go on after a failure.
    pub go_on: bool,
}

impl Campaign {
    /// Simulates. `progress` is told after each seed. Failures come back in the order of seeds.
    pub fn run(&self, progress: &(dyn Fn(&Summary) + Sync)) -> (Summary, Vec<Failure>) {
        let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let results = Mutex::new((Summary::default(), Vec::new()));
        let begin = Instant::now();
        let work = || {
            while !stop.load(Ordering::Relaxed) {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= self.seeds {
                    return;
                }
                let seed = self.first.wrapping_add(number);
                let outcome = simulate(&Plan::generate(seed, &self.options), false);
                let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                let (summary, failures) = &mut *results;
                summary.add(&outcome.stats);
                summary.took = begin.elapsed();
                if let Some(violation) = outcome.violation {
                    stop.store(!self.go_on, Ordering::Relaxed);
                    failures.push(Failure { seed, violation });
                    summary.failed += 1;
                }
                progress(summary);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..self.threads.max(1) {
                scope.spawn(work);
            }
            work();
        });
        let (mut summary, mut failures) =
            results.into_inner().unwrap_or_else(PoisonError::into_inner);
        summary.took = begin.elapsed();
        failures.sort_by_key(|failure: &Failure| failure.seed.wrapping_sub(self.first));
        (summary, failures)
    }
}
