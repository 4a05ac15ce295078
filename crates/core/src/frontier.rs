//! The frontier: the tips of every log with their heads. What a replica holds is exactly what its frontier covers (I3),
//! so two equal frontiers mean two equal replicas.

use crate::codec::{DecodeError, Reader, Writer};
use crate::entry::decode_position;
use crate::head::Head;
use crate::id::{DatabaseId, Position};
use crate::key::Signature;
use crate::lthash::LtHash;
use crate::riblt::{Row, SYMBOLS};
use std::collections::BTreeSet;

/// A tip as it is told to peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrontierTip {
    /// The signed place.
    pub head: Head,
}

/// The tips of every log, ascending by position. A forked log has several.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frontier {
    tips: Vec<FrontierTip>,
}

impl Frontier {
    /// A frontier of these tips, in any order.
    #[must_use]
    pub fn new(mut tips: Vec<FrontierTip>) -> Self {
        tips.sort_unstable_by_key(|t| t.head.position);
        tips.dedup_by_key(|t| t.head.position);
        Self { tips }
    }

    /// The tips, ascending by position.
    #[must_use]
    pub fn tips(&self) -> &[FrontierTip] {
        &self.tips
    }

    /// The positions alone.
    pub fn positions(&self) -> impl Iterator<Item = &Position> {
        self.tips.iter().map(|t| &t.head.position)
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tips.is_empty()
    }

    /// The wire form of some tips.
    pub fn encode_tips(tips: &[FrontierTip], w: &mut Writer) {
        w.array(tips.len());
        for tip in tips {
            let p = &tip.head.position;
            w.array(2).array(4).bytes(&p.log.device.0).u64(p.log.epoch).u64(p.seq).bytes(&p.id.0);
            w.bytes(&tip.head.signature.0);
        }
    }

    /// Reads at most `limit` tips. Their signatures are not checked: see [`Self::verified`].
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode_tips(r: &mut Reader<'_>, limit: usize) -> Result<Vec<FrontierTip>, DecodeError> {
        (0..r.array("tips", limit)?)
            .map(|_| {
                r.tuple("tip", 2)?;
                let position = decode_position(r)?;
                let signature = Signature(r.array_of("signature")?);
                Ok(FrontierTip { head: Head { position, signature } })
            })
            .collect()
    }

    /// What stands for each tip in a [`Row`]: a keyed hash, so that nobody can choose two that are alike in all databases.
    pub fn elements(&self, database: &DatabaseId) -> impl Iterator<Item = u64> {
        let key = blake3::derive_key("anabranch 1 frontier element", &database.0);
        self.positions().map(move |position| element(&key, position))
    }

    /// The row of its tips.
    #[must_use]
    pub fn row(&self, database: &DatabaseId) -> Row {
        let mut row = Row::new(SYMBOLS);
        self.elements(database).for_each(|element| row.add(element));
        row
    }

    /// Those tips that these elements stand for, and the others.
    #[must_use]
    pub fn split(&self, database: &DatabaseId, elements: &BTreeSet<u64>) -> (Self, Self) {
        let (mut named, mut rest) = (Self::default(), Self::default());
        rest.tips.reserve_exact(self.tips.len());
        for (tip, element) in self.tips.iter().zip(self.elements(database)) {
            let side = if elements.contains(&element) { &mut named } else { &mut rest };
            side.tips.push(*tip);
        }
        (named, rest)
    }

    /// Its digest, as [`crate::view::View::frontier_digest`] gives that of a replica.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut sum = LtHash::default();
        self.positions().for_each(|position| sum.add(&tip_element(position)));
        sum.digest()
    }

    /// The tips whose heads are signed by their devices.
    #[must_use]
    pub fn verified(self, database: &DatabaseId) -> Self {
        Self { tips: self.tips.into_iter().filter(|t| t.head.verify(database)).collect() }
    }
}

fn element(key: &[u8; 32], position: &Position) -> u64 {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(&position.log.device.0);
    hasher.update(&position.log.epoch.to_be_bytes());
    hasher.update(&position.seq.to_be_bytes());
    hasher.update(&position.id.0);
    let hash = hasher.finalize();
    u64::from_be_bytes(*hash.as_bytes().first_chunk().unwrap_or(&[0; 8]))
}

/// What a tip adds to the frontier's digest: log, sequence, id; never a signature's bytes.
pub(crate) fn tip_element(position: &Position) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new_derive_key("anabranch 1 frontier tip");
    hasher.update(&position.log.device.0);
    hasher.update(&position.log.epoch.to_be_bytes());
    hasher.update(&position.seq.to_be_bytes());
    hasher.update(&position.id.0);
    hasher
}
