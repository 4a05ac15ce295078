//! The rows that are written: keys of 30 bytes and values of 40, the same ones in every run. No randomness of the machine
//! is used, so that two reports are about the same work.

use crate::Result;
use anabranch_core::author::{Draft, Seen, Write};
use anabranch_core::entry::StoreId;
use anabranch_core::path::Path;
use clap::ValueEnum;

/// The order in which keys come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Keys {
    /// Each where no other is near.
    Random,
    /// Each after the one before it.
    Ordered,
}

impl Keys {
    pub(crate) const BOTH: [Self; 2] = [Self::Random, Self::Ordered];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Ordered => "ordered",
        }
    }

    /// The key of row `n`: 30 characters.
    pub(crate) fn key(self, n: u64) -> String {
        match self {
            Self::Random => format!("{:016x}{:014x}", mix(n), mix(!n) >> 8),
            Self::Ordered => format!("{n:016x}{:014x}", mix(!n) >> 8),
        }
    }

    /// A transaction that puts row `n`, as one cell.
    pub(crate) fn draft(self, n: u64) -> Result<Draft> {
        let write = Write {
            store: StoreId::doc("cells"),
            path: Path::text([self.key(n)])?,
            value: Some(bytes(n, 40)),
            seen: Seen::AtCommit,
            below: false,
            above: false,
        };
        Ok(Draft { writes: vec![write], ..Draft::default() })
    }
}

/// SplitMix64: spreads numbers over all of 64 bits, no two onto one.
pub(crate) fn mix(n: u64) -> u64 {
    let z = n.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// `len` bytes that do not compress, different for each `n`.
pub(crate) fn bytes(n: u64, len: usize) -> Vec<u8> {
    let words = (0..len.div_ceil(8) as u64).flat_map(|i| mix(mix(n) ^ i).to_le_bytes());
    words.take(len).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn keys_are_distinct_and_as_long_as_they_are_said_to_be() {
        for keys in Keys::BOTH {
            let all: BTreeSet<String> = (0..1_000).map(|n| keys.key(n)).collect();
            assert_eq!(all.len(), 1_000);
            assert!(all.iter().all(|key| key.len() == 30));
        }
        assert!((0..1_000).map(|n| Keys::Ordered.key(n)).is_sorted());
        assert_eq!(bytes(7, 43).len(), 43);
    }
}
