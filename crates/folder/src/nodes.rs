//! Manifest nodes on their way from files that are read to the database. They are there before anything that needs them
//! (I1): entries that name the content, and rows of the base, whose chunks can be handed to peers only by their manifest.

use crate::scan::{Problem, ScanWatch};
use anabranch_core::blob::ChunkHash;
use anabranch_core::storage::{Durability, Storage, StorageError, Table, WriteTx};
use std::cell::RefCell;
use std::io;

/// Bytes of them that are kept in memory.
const WAITING_BYTES: usize = 1024 * 1024;

#[derive(Default)]
struct Waiting {
    list: Vec<(ChunkHash, Vec<u8>)>,
    bytes: usize,
}

impl Waiting {
    fn store(&mut self, tx: &mut dyn WriteTx) -> Result<(), StorageError> {
        for (hash, bytes) in &self.list {
            tx.put(Table::Blob, &hash.0, bytes)?;
        }
        *self = Self::default();
        Ok(())
    }
}

/// Gathers them. They are stored when there are many, and whenever [`Self::store`] is called.
pub(crate) struct Nodes<'a> {
    storage: &'a dyn Storage,
    waiting: RefCell<Waiting>,
}

impl<'a> Nodes<'a> {
    pub(crate) fn new(storage: &'a dyn Storage) -> Self {
        Self { storage, waiting: RefCell::default() }
    }

    /// Takes one in.
    pub(crate) fn keep(&self, hash: &ChunkHash, bytes: &[u8]) -> io::Result<()> {
        let mut waiting = self.waiting.borrow_mut();
        waiting.bytes += bytes.len();
        waiting.list.push((*hash, bytes.to_vec()));
        if waiting.bytes < WAITING_BYTES {
            return Ok(());
        }
        let mut tx = self.storage.write(Durability::Normal).map_err(io::Error::other)?;
        waiting.store(&mut *tx).map_err(io::Error::other)?;
        tx.commit().map_err(io::Error::other)
    }

    /// Stores what waits, together with what needs it.
    pub(crate) fn store(&self, tx: &mut dyn WriteTx) -> Result<(), StorageError> {
        self.waiting.borrow_mut().store(tx)
    }
}

impl ScanWatch for &Nodes<'_> {
    fn node(&mut self, hash: &ChunkHash, bytes: &[u8]) -> io::Result<()> {
        self.keep(hash, bytes)
    }

    fn problem(&mut self, _: Problem) {}
}
