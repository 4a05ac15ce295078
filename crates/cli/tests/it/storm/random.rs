//! Numbers that look random and come again from the same seed. The processes that run meanwhile do not: a seed repeats
//! what is tried, not what the scheduler makes of it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Set to a printed seed, it repeats the choices of a run.
const SEED: &str = "ANABRANCH_ACCEPT_SEED";

/// A generator (splitmix64).
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    /// With the seed in the environment, or one of its own; prints it.
    pub(super) fn from_environment() -> Self {
        let given = std::env::var(SEED).ok().map(|text| text.parse().unwrap());
        let seed = given.unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            u64::from(now.subsec_nanos()) ^ now.as_secs()
        });
        println!("{SEED}={seed} repeats this run's random choices");
        Self(seed)
    }

    /// Another generator, for somebody who works at the same time.
    pub(super) fn fork(&mut self) -> Self {
        Self(self.next())
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(super) fn pick<'a, T>(&mut self, list: &'a [T]) -> Option<&'a T> {
        list.get(self.below(list.len().max(1) as u64) as usize)
    }
}
