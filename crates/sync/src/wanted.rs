//! Blobs that this side wants from the peer: any number at once, asked for in portions that the peer accepts.

use crate::frame::HASHES;
use anabranch_core::blob::ChunkHash;
use std::collections::{BTreeSet, VecDeque};

/// Blobs that may be asked for and not answered yet. Part of the protocol.
pub(crate) const OPEN: usize = 4 * HASHES;

/// Wanted blobs, asked for or not yet.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    all: BTreeSet<ChunkHash>,
    unasked: VecDeque<ChunkHash>,
}

impl Wanted {
    /// Adds what is not wanted already.
    pub(crate) fn add(&mut self, hashes: &[ChunkHash]) {
        for hash in hashes {
            if self.all.insert(*hash) {
                self.unasked.push_back(*hash);
            }
        }
    }

    /// What to ask for now, one frame's worth.
    pub(crate) fn next(&mut self) -> Option<Vec<ChunkHash>> {
        let room = OPEN.saturating_sub(self.all.len() - self.unasked.len());
        let portion = self.unasked.len().min(HASHES);
        // Whole portions, so that a long list does not end in a frame for every blob that comes.
        (portion > 0 && portion <= room).then(|| self.unasked.drain(..portion).collect())
    }

    /// It came, or will not come; whether it was asked for.
    pub(crate) fn done(&mut self, hash: &ChunkHash) -> bool {
        self.all.remove(hash)
    }

    /// Whether nothing is wanted.
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}
