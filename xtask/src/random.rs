//! Numbers that look random and come again from the same seed. Not for secrets.

use std::time::{SystemTime, UNIX_EPOCH};

/// Set to a printed seed, it repeats a run.
const SEED: &str = "ANABRANCH_ACCEPT_SEED";

/// A generator (splitmix64).
pub(crate) struct Random(u64);

impl Random {
    /// With a seed of its own, or the one in the environment; prints it.
    pub(crate) fn from_environment() -> Self {
        let given = std::env::var(SEED).ok().and_then(|text| text.parse().ok());
        let seed = given.unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            now.map_or(1, |since| u64::from(since.subsec_nanos()) ^ since.as_secs())
        });
        println!("{SEED}={seed} repeats this run's random choices");
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}
