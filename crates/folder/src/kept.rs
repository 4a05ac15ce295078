//! How a sealed database keeps files that are where they should be without having been written here. Others ask for just these
//! pieces, and whoever says how a file is kept may lie, so it is worked out.

use crate::base::Base;
use crate::fs::{Clock, FileSystem};
use crate::nodes::Nodes;
use crate::path::RelPath;
use crate::scan::{Keeping, Problem, Progress, ScanWatch, hash_file};
use crate::state::Kept;
use anabranch_core::blob::{ChunkHash, ChunkSpan};
use anabranch_core::storage::{Storage, StorageError};
use anabranch_core::view::View;
use std::io;

/// Pieces of files that can be had from here now.
pub(crate) struct Found<'a> {
    /// Manifest nodes, to be stored with the rows of the base.
    pub(crate) nodes: Nodes<'a>,
    /// The names of all pieces.
    pub(crate) names: Vec<ChunkHash>,
}

impl ScanWatch for Found<'_> {
    fn chunk(&mut self, _: &RelPath, span: &ChunkSpan) -> io::Result<()> {
        self.names.push(span.hash);
        Ok(())
    }

    fn node(&mut self, hash: &ChunkHash, bytes: &[u8]) -> io::Result<()> {
        self.names.push(*hash);
        self.nodes.keep(hash, bytes)
    }

    fn problem(&mut self, _: Problem) {}
}

impl<'a> Found<'a> {
    pub(crate) fn new(storage: &'a dyn Storage) -> Self {
        Self { nodes: Nodes::new(storage), names: Vec::new() }
    }

    /// The row of the base for a file, with how it is kept if that is `known` here, or true. If it is not, the next update tries
    /// again.
    pub(crate) fn worked_out(
        &mut self,
        view: View<'_>,
        (fs, clock): (&dyn FileSystem, &dyn Clock),
        path: &RelPath,
        base: Base,
        known: &[Kept],
    ) -> Result<Base, StorageError> {
        let Some(kept) = base.state.kept().filter(|kept| !known.contains(kept)) else {
            return Ok(base);
        };
        if let Some(key) = view.key(&kept.key)? {
            let (keeping, mut progress) = (Keeping::Sealed(Some(&key)), Progress::default());
            let read = hash_file(fs, clock, path, keeping, self, &mut progress);
            if read.is_ok_and(|(hashed, _)| hashed.kept == Some(*kept)) {
                return Ok(base);
            }
        }
        Ok(base.without_kept())
    }
}
