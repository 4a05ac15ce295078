//! Links between nodes: ordered and reliable as a transport promises, over a network that delays, loses and reorders
//! packets (which costs time, since they are sent again), that parts into pieces, in one direction only if it likes, and
//! whose links break in the middle of frames. A bad link breaks the promise itself: frames are lost, doubled, exchanged,
//! cut short and altered, as no transport may deliver them.

use crate::clock::{MS, SECOND, Time};
use fastrand::Rng;
use std::collections::BTreeSet;

/// Which pairs of nodes cannot hear each other, and how long things take.
#[derive(Debug)]
pub struct Network {
    /// (from, to): nothing gets through.
    deaf: BTreeSet<(usize, usize)>,
    /// Unordered pairs whose links deliver what no link may.
    bad: BTreeSet<(usize, usize)>,
    /// Typical time under way.
    pub latency: Time,
    /// Of a thousand packets, how many are lost and sent again.
    pub loss: u32,
}

/// What a bad link does to a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mishap {
    /// It arrives as it was sent.
    None,
    /// It never arrives.
    Lost,
    /// It arrives twice.
    Doubled,
    /// It arrives before the one sent before it.
    Early,
    /// Its end is missing.
    Short,
    /// One bit of it is wrong.
    Altered,
}

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

impl Network {
    /// One where everybody hears everybody.
    #[must_use]
    pub fn new(latency: Time, loss: u32) -> Self {
        Self { deaf: BTreeSet::new(), bad: BTreeSet::new(), latency, loss }
    }

    /// How long a frame takes now.
    pub fn delay(&self, random: &mut Rng) -> Time {
        let mut delay = 50 + random.u64(..=self.latency * 2);
        // A lost packet is noticed and sent again, each time later.
        let mut again = 200 * MS;
        while random.u32(..1_000) < self.loss && again < 5 * SECOND {
            delay += again;
            again *= 2;
        }
        delay
    }

    /// Whether what `from` sends reaches `to`.
    #[must_use]
    pub fn hears(&self, from: usize, to: usize) -> bool {
        !self.deaf.contains(&(from, to))
    }

    /// Nothing from `from` reaches `to` any more.
    pub fn deafen(&mut self, from: usize, to: usize) {
        self.deaf.insert((from, to));
    }

    /// Links between the two are bad from now on.
    pub fn spoil(&mut self, a: usize, b: usize) {
        self.bad.insert(pair(a, b));
    }

    /// Whether links between the two are bad.
    #[must_use]
    pub fn is_bad(&self, a: usize, b: usize) -> bool {
        self.bad.contains(&pair(a, b))
    }

    /// What becomes of a frame between the two.
    pub fn mishap(&self, random: &mut Rng, a: usize, b: usize) -> Mishap {
        if !self.is_bad(a, b) {
            return Mishap::None;
        }
        match random.u32(..60) {
            0 => Mishap::Lost,
            1 => Mishap::Doubled,
            2 => Mishap::Early,
            3 => Mishap::Short,
            4 => Mishap::Altered,
            _ => Mishap::None,
        }
    }

    /// Everybody hears everybody again, over good links.
    pub fn heal(&mut self) {
        self.deaf.clear();
        self.bad.clear();
        self.loss = 0;
    }

    /// Everybody in the two groups hears the other again.
    pub fn mend(&mut self, from: usize, to: usize) {
        self.deaf.remove(&(from, to));
        self.bad.remove(&pair(from, to));
    }
}
