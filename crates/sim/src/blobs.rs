//! What users do with blobs. Each deed takes its time, so that others, collections and crashes fall between its steps.

use crate::clock::{MS, SECOND, Time};
use anabranch_core::entry::StoreId;
use anabranch_node::{BlobReader, Collection, Put};
use fastrand::Rng;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Names there are; few, so that there are conflicts.
const NAMES: u8 = 4;
/// Contents there are; few, so that what was taken away comes again.
const CONTENTS: u8 = 12;
/// Stretches that a read asks for.
pub const READS: u32 = 4;

/// Something that a user does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum BlobDeed {
    /// Puts content in, slowly.
    Put {
        /// Under which name.
        name: u8,
        /// Which content.
        content: u8,
        /// How long it takes until all of it is in.
        takes: Time,
    },
    /// Removes a blob.
    Remove {
        /// Which one.
        name: u8,
    },
    /// Takes away what nothing names.
    Collect {
        /// How long each step takes.
        takes: Time,
    },
    /// Takes away what was fetched, where content comes when it is read.
    Evict {
        /// Which one; `None`: all.
        name: Option<u8>,
        /// How long each step takes.
        takes: Time,
    },
    /// Reads a blob from some place on.
    Read {
        /// Which one.
        name: u8,
        /// How much of it is passed over, in sixteenths.
        from: u8,
    },
    /// Says when content comes.
    Keep {
        /// When it is read, or with the entries.
        lazy: bool,
    },
}

impl fmt::Display for BlobDeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put { name, content, takes } => {
                write!(f, "puts content {content} under {name} in {} ms", takes / MS)
            }
            Self::Remove { name } => write!(f, "removes blob {name}"),
            Self::Collect { .. } => f.write_str("collects what nothing names"),
            Self::Evict { name: Some(name), .. } => write!(f, "evicts blob {name}"),
            Self::Evict { name: None, .. } => f.write_str("evicts all blobs"),
            Self::Read { name, from } => write!(f, "reads blob {name} from {from}/16 on"),
            Self::Keep { lazy: true } => f.write_str("wants content when it is read"),
            Self::Keep { lazy: false } => f.write_str("wants all content"),
        }
    }
}

impl BlobDeed {
    /// One of many.
    pub fn choose(random: &mut Rng) -> Self {
        let name = random.u8(..NAMES);
        let takes = if random.bool() { random.u64(..50 * MS) } else { random.u64(..4 * SECOND) };
        match random.u32(..16) {
            0..=6 => Self::Put { name, content: random.u8(..CONTENTS), takes },
            7..=8 => Self::Remove { name },
            9..=11 => Self::Collect { takes },
            12 => Self::Evict { name: random.bool().then_some(name), takes },
            13..=14 => Self::Read { name, from: random.u8(..16) },
            _ => Self::Keep { lazy: random.bool() },
        }
    }

    /// Whether it needs the right to write.
    #[must_use]
    pub fn writes(&self) -> bool {
        matches!(self, Self::Put { .. } | Self::Remove { .. })
    }
}

/// The store.
#[must_use]
pub fn store() -> StoreId {
    StoreId::blobs("b")
}

/// Content number `number`: some are of several chunks, and some begin as others do.
#[must_use]
pub fn content(number: u8) -> Vec<u8> {
    let mut noise = Rng::with_seed(u64::from(number / 3) + 77);
    let len = match number % 4 {
        0 => usize::from(number) * 40,
        1 => 30_000,
        2 => 120_000,
        // More than one chunk can have, or nothing is cut before the end.
        _ => 420_000,
    };
    (0..len).map(|_| noise.u8(..)).collect()
}

/// Something that is being done.
#[derive(Debug)]
pub enum Doing {
    /// A put that has stored what fits.
    Put {
        /// It.
        put: Box<Put>,
        /// Under which name.
        name: u8,
    },
    /// A collection.
    Collection {
        /// It.
        collection: Collection,
        /// Whether it has found what it takes away next.
        marked: bool,
        /// How long each step takes.
        takes: Time,
    },
    /// A read.
    Read {
        /// It.
        reader: BlobReader,
        /// Where it goes on.
        from: u64,
        /// How often it asks yet.
        left: u32,
    },
}
