//! When to try whom next: which address first, and how long to wait. Pure, so that a simulator plays what the engine does:
//! it is told how each attempt ended, and is handed randomness. It never gives up and forgets no address.

use anabranch_core::sabotage::{self, Bug};
use std::time::Duration;

/// How an attempt to bring a replica in step with a peer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Well: all that either side had is on both, and nobody stays connected.
    Synced,
    /// The peer was lost, or not reached.
    Lost {
        /// Whether both were in step before.
        in_step: bool,
        /// Whether somebody answered and did not go on: the address may lead to somebody else.
        answered: bool,
    },
}

/// The attempts at one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempts {
    addresses: Vec<String>,
    every: Option<Duration>,
    first: Duration,
    longest: Duration,
    wait: Duration,
}

impl Attempts {
    /// At a peer that may be at these `addresses`. `every`: the time between two syncs; none: it is to stay connected.
    /// `retry`: the first and the longest wait after a failure.
    #[must_use]
    pub fn new(
        addresses: Vec<String>,
        every: Option<Duration>,
        retry: (Duration, Duration),
    ) -> Self {
        let (first, longest) = retry;
        Self { addresses, every, first, longest, wait: first }
    }

    /// Where to try, in this order.
    #[must_use]
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// The peer was at `address`: it is tried first from now on.
    pub fn answered(&mut self, address: &str) {
        if let Some(place) = self.addresses.iter().position(|other| other == address) {
            self.addresses[..=place].rotate_right(1);
        }
        if sabotage::is(Bug::AddressForgotten) {
            self.addresses.truncate(1);
        }
    }

    /// An attempt ended. Returns the wait before the next one: between half of what it would be and all of it, as `spread`
    /// says, so that many who lost one peer do not all come back at once.
    pub fn ended(&mut self, ending: Ending, spread: u8) -> Duration {
        let wait = match (ending, self.every) {
            (Ending::Synced, Some(every)) => {
                self.wait = self.first;
                every
            }
            (Ending::Synced, None) => self.back_off(true),
            (Ending::Lost { in_step, answered }, _) => {
                if answered && self.addresses.len() > 1 {
                    self.addresses.rotate_left(1);
                }
                self.back_off(in_step)
            }
        };
        wait / 2 + wait / 2 * u32::from(spread) / 255
    }

    /// Whoever was there a moment ago is probably back soon.
    fn back_off(&mut self, in_step: bool) -> Duration {
        if in_step {
            self.wait = self.first;
        }
        let wait = self.wait;
        self.wait = (wait * 2).min(self.longest);
        if sabotage::is(Bug::GivesUp) && self.wait == self.longest {
            return Duration::from_secs(1 << 30);
        }
        wait
    }

    /// Somebody wants it at once, or the peer showed up: the next waits are short again.
    pub fn nudged(&mut self) {
        self.wait = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(8));
    const FAILED: Ending = Ending::Lost { in_step: false, answered: false };

    fn attempts(every: Option<Duration>) -> Attempts {
        let addresses = ["a", "b", "c"].map(str::to_owned).to_vec();
        Attempts::new(addresses, every, RETRY)
    }

    fn seconds(attempts: &mut Attempts, ending: Ending) -> u64 {
        attempts.ended(ending, 255).as_secs()
    }

    #[test]
    fn waits_double_up_to_the_longest_and_go_on_for_ever() {
        let mut attempts = attempts(None);
        let waits: Vec<u64> = (0..6).map(|_| seconds(&mut attempts, FAILED)).collect();
        assert_eq!(waits, [1, 2, 4, 8, 8, 8]);
        (0..10_000).for_each(|_| assert_eq!(seconds(&mut attempts, FAILED), 8));
    }

    #[test]
    fn a_peer_that_was_there_is_tried_soon() {
        for how in [Ending::Lost { in_step: true, answered: true }, Ending::Synced] {
            let mut attempts = attempts(None);
            (0..5).for_each(|_| _ = attempts.ended(FAILED, 0));
            assert_eq!(seconds(&mut attempts, how), 1, "{how:?}");
            assert_eq!(seconds(&mut attempts, FAILED), 2, "{how:?}");
        }
        let mut attempts = attempts(None);
        (0..5).for_each(|_| _ = attempts.ended(FAILED, 0));
        attempts.nudged();
        assert_eq!(seconds(&mut attempts, FAILED), 1);
    }

    #[test]
    fn between_two_syncs_it_rests_as_declared() {
        let mut attempts = attempts(Some(Duration::from_secs(60)));
        (0..5).for_each(|_| _ = attempts.ended(FAILED, 0));
        assert_eq!(seconds(&mut attempts, Ending::Synced), 60);
        assert_eq!(seconds(&mut attempts, FAILED), 1);
    }

    #[test]
    fn waits_are_spread_and_never_longer() {
        let waits: Vec<Duration> =
            (0..=255).map(|spread| attempts(None).ended(FAILED, spread)).collect();
        assert_eq!(waits[0], Duration::from_millis(500));
        assert_eq!(waits[255], Duration::from_secs(1));
        assert!(waits.is_sorted());
    }

    #[test]
    fn what_worked_goes_first_and_what_led_astray_last() {
        let mut attempts = attempts(None);
        attempts.answered("c");
        assert_eq!(attempts.addresses(), ["c", "a", "b"]);
        attempts.answered("not one of them");
        assert_eq!(attempts.addresses(), ["c", "a", "b"]);
        attempts.ended(Ending::Lost { in_step: false, answered: true }, 0);
        assert_eq!(attempts.addresses(), ["a", "b", "c"]);
        attempts.ended(FAILED, 0);
        assert_eq!(attempts.addresses(), ["a", "b", "c"]);
    }
}
