//! Chance from a seed: the generator that decides everything, and what SQLite gets for randomness.

use std::cell::Cell;

/// SplitMix64: small, and good enough to spread faults.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 when there is none.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { (self.next() % bound as u64) as usize }
    }

    /// Whether something happens that does so `times` in `of` cases.
    pub(crate) fn chance(&mut self, times: usize, of: usize) -> bool {
        self.below(of) < times
    }

    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}

thread_local! {
    /// Where this thread's SQLite starts when it next asks for randomness.
    static OFFERED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Lays down the randomness that SQLite gets on this thread from now on.
pub(crate) fn offer(seed: u64) {
    OFFERED.set(Some(seed));
}

/// Fills `bytes` with what was offered; false when nothing was.
pub(crate) fn fill_offered(bytes: &mut [u8]) -> bool {
    let Some(seed) = OFFERED.get() else {
        return false;
    };
    Random::new(seed).fill(bytes);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_sequence() {
        let [first, second] = [7, 7].map(|seed| {
            let mut random = Random::new(seed);
            let mut bytes = [0; 13];
            random.fill(&mut bytes);
            (random.next(), bytes)
        });
        assert_eq!(first, second);
        assert_ne!(first.0, Random::new(8).next());
    }

    #[test]
    fn numbers_stay_below_their_bound() {
        let mut random = Random::new(1);
        let mut seen = [0_u32; 5];
        for _ in 0..500 {
            seen[random.below(5)] += 1;
        }
        assert!(seen.iter().all(|times| *times > 50), "{seen:?}");
        assert_eq!(random.below(0), 0);
    }

    #[test]
    fn what_is_offered_is_given() {
        let mut bytes = [[0; 44]; 2];
        offer(3);
        assert!(bytes.iter_mut().all(|bytes| fill_offered(bytes)));
        assert_eq!(bytes[0], bytes[1]);
        offer(4);
        fill_offered(&mut bytes[1]);
        assert_ne!(bytes[0], bytes[1]);
    }
}
