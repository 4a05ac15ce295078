//! How fast bytes may pass: a token bucket that is shared by all sessions of a node.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How far ahead of the pace may be run.
const BURST: Duration = Duration::from_millis(100);

/// A limit in bytes a second.
#[derive(Debug)]
pub(crate) struct Pace {
    rate: u64,
    passed: AtomicU64,
    /// When everything let through so far would have passed at that pace.
    paid: Mutex<Instant>,
}

impl Pace {
    /// No limit if `rate` is 0.
    pub(crate) fn new(rate: u64) -> Self {
        Self { rate, passed: AtomicU64::new(0), paid: Mutex::new(Instant::now()) }
    }

    /// Bytes that passed so far.
    pub(crate) fn passed(&self) -> u64 {
        self.passed.load(Ordering::Relaxed)
    }

    /// Waits until `bytes` may pass.
    pub(crate) async fn pass(&self, bytes: usize) {
        self.passed.fetch_add(bytes as u64, Ordering::Relaxed);
        if self.rate == 0 {
            return;
        }
        let until = {
            let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
            let cost = Duration::from_secs_f64(bytes as f64 / self.rate as f64);
            *paid = (*paid).max(Instant::now()) + cost;
            paid.checked_sub(BURST).unwrap_or(*paid)
        };
        tokio::time::sleep_until(until).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_pass_at_the_pace_that_is_set() {
        let pace = Pace::new(1_000_000);
        let began = Instant::now();
        for _ in 0..30 {
            pace.pass(100_000).await;
        }
        let took = began.elapsed();
        assert!(
            took >= Duration::from_millis(2_900) && took < Duration::from_millis(3_100),
            "{took:?}"
        );
        let free = Pace::new(0);
        let began = Instant::now();
        free.pass(usize::MAX).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
