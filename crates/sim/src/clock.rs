//! Virtual time, and what a node sees of it: a clock of its own, which may be off and may jump, and a random source.

use anabranch_core::entry::Timestamp;
use anabranch_node::{Environment, NodeError};
use fastrand::Rng;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Microseconds since the simulation began.
pub type Time = u64;
/// A thousandth of a second.
pub const MS: Time = 1_000;
/// A second.
pub const SECOND: Time = 1_000 * MS;
/// A day.
pub const DAY: Time = 24 * 3_600 * SECOND;

/// What the wall clocks show when the simulation begins: a day in 2026.
const BEGINNING: u64 = 1_790_000_000 * SECOND;

/// The one true time.
#[derive(Debug, Default)]
pub struct Clock(AtomicU64);

impl Clock {
    /// Now.
    #[must_use]
    pub fn now(&self) -> Time {
        self.0.load(Ordering::Relaxed)
    }

    /// Goes on to `time`.
    pub fn set(&self, time: Time) {
        self.0.store(time, Ordering::Relaxed);
    }
}

/// The clock and the random source of one node.
#[derive(Debug)]
pub struct Surroundings {
    clock: Arc<Clock>,
    skew: AtomicI64,
    random: Mutex<Rng>,
}

impl Surroundings {
    /// A clock that is `skew` microseconds ahead of the true time, and a source that gives what `seed` decides.
    #[must_use]
    pub fn new(clock: Arc<Clock>, skew: i64, seed: u64) -> Self {
        Self { clock, skew: AtomicI64::new(skew), random: Mutex::new(Rng::with_seed(seed)) }
    }

    /// The wall clock jumps.
    pub fn jump(&self, by: i64) {
        self.skew.fetch_add(by, Ordering::Relaxed);
    }
}

impl Environment for Surroundings {
    fn now(&self) -> Timestamp {
        let skew = self.skew.load(Ordering::Relaxed);
        Timestamp((BEGINNING + self.clock.now()).saturating_add_signed(skew))
    }

    fn steady(&self) -> Duration {
        Duration::from_micros(self.clock.now())
    }

    fn fill(&self, bytes: &mut [u8]) -> Result<(), NodeError> {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).fill(bytes);
        Ok(())
    }
}
