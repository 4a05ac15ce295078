//! Storage in memory, for tests and the simulator: nothing outlives the process.
//!
//! Each table is a persistent search tree, so a snapshot is a handful of shared pointers: readers never hold up a writer,
//! a writer never holds up readers, and a transaction copies only the few nodes it touches.

mod tree;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anabranch_core::storage::{
    Durability, Order, ReadTx, Storage, StorageError, Table, Visit, WriteTx,
};

use self::tree::Tree;
use crate::integer_key;
use crate::pool::{Lease, Pool};

/// How long [`Storage::write`] waits for another writer of the same storage.
const WRITER_PATIENCE: Duration = Duration::from_secs(30);

/// A database in memory. Both durabilities mean the same here.
pub struct MemoryStorage {
    committed: Mutex<Arc<Tables>>,
    writer: Pool<()>,
    /// Decides the shape of the trees, never what they hold: no choice of keys makes them deep.
    hasher: RandomState,
    instance: [u8; 32],
    /// How many were made.
    commits: AtomicU64,
}

/// All tables as they were at one moment.
#[derive(Debug, Clone, Default)]
struct Tables {
    trees: [Tree; Table::ALL.len()],
    /// Of keys and values.
    bytes: u64,
}

impl MemoryStorage {
    /// An empty database whose instance mark is all zeros.
    #[must_use]
    pub fn new() -> Self {
        Self::with_instance([0; 32])
    }

    /// An empty database with this instance mark.
    #[must_use]
    pub fn with_instance(instance: [u8; 32]) -> Self {
        Self {
            committed: Mutex::default(),
            writer: Pool::of_one(()),
            hasher: RandomState::new(),
            instance,
            commits: AtomicU64::new(0),
        }
    }

    /// Another database that starts with what is committed here, as if the medium had been copied. Takes no time.
    #[must_use]
    pub fn fork(&self, instance: [u8; 32]) -> Self {
        Self {
            committed: Mutex::new(self.newest()),
            hasher: self.hasher.clone(),
            ..Self::with_instance(instance)
        }
    }

    fn begin<'s>(&'s self, lease: Lease<'s, ()>) -> Writer<'s> {
        let state = self.commits.load(Ordering::Acquire);
        Writer { tables: Tables::clone(&self.newest()), storage: self, state, _lease: lease }
    }

    fn newest(&self) -> Arc<Tables> {
        Arc::clone(&self.committed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn replace(&self, tables: Tables) {
        *self.committed.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(tables);
    }
}

impl Default for MemoryStorage {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStorage").field("bytes", &self.newest().bytes).finish_non_exhaustive()
    }
}

impl Storage for MemoryStorage {
    fn read(&self) -> Result<Box<dyn ReadTx + '_>, StorageError> {
        Ok(Box::new(Snapshot(self.newest())))
    }

    fn write(&self, _durability: Durability) -> Result<Box<dyn WriteTx + '_>, StorageError> {
        let lease = self
            .writer
            .lend(WRITER_PATIENCE, || Ok::<_, StorageError>(()))?
            .ok_or(StorageError::Busy(WRITER_PATIENCE.as_secs()))?;
        Ok(Box::new(self.begin(lease)))
    }

    fn try_write(&self) -> Result<Option<Box<dyn WriteTx + '_>>, StorageError> {
        Ok(self.writer.lend_idle().map(|lease| Box::new(self.begin(lease)) as Box<dyn WriteTx>))
    }

    fn instance(&self) -> [u8; 32] {
        self.instance
    }

    fn size(&self) -> Result<u64, StorageError> {
        Ok(self.newest().bytes)
    }
}

impl Tables {
    fn tree(&self, table: Table) -> &Tree {
        &self.trees[table as usize]
    }

    fn put(&mut self, table: Table, key: &[u8], value: &[u8], priority: u64) {
        let old = self.trees[table as usize].insert(key, value, priority);
        self.bytes += length(value);
        match old {
            Some(old) => self.bytes -= length(&old),
            None => self.bytes += length(key),
        }
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> bool {
        let Some(old) = self.trees[table as usize].remove(key) else {
            return false;
        };
        self.bytes -= length(key) + length(&old);
        true
    }
}

fn length(bytes: &[u8]) -> u64 {
    bytes.len() as u64
}

impl ReadTx for Tables {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(self.tree(table).get(key).map(<[u8]>::to_vec))
    }

    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<(), StorageError> {
        for (key, value) in self.tree(table).range(from, to, order) {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }
}

struct Snapshot(Arc<Tables>);

impl ReadTx for Snapshot {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        self.0.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<(), StorageError> {
        self.0.scan(table, from, to, order, visit)
    }
}

struct Writer<'s> {
    tables: Tables,
    storage: &'s MemoryStorage,
    state: u64,
    /// Given back after the commit or, undoing everything, when dropped.
    _lease: Lease<'s, ()>,
}

impl ReadTx for Writer<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        self.tables.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<(), StorageError> {
        self.tables.scan(table, from, to, order, visit)
    }
}

impl WriteTx for Writer<'_> {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        if table.integer_keyed() {
            integer_key::number_to_store(key)?;
        }
        let priority = self.storage.hasher.hash_one(key);
        self.tables.put(table, key, value, priority);
        Ok(())
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<bool, StorageError> {
        Ok(self.tables.delete(table, key))
    }

    fn state(&self) -> Option<u64> {
        Some(self.state)
    }

    fn commit(self: Box<Self>) -> Result<(), StorageError> {
        let Self { tables, storage, state, _lease } = *self;
        storage.replace(tables);
        storage.commits.store(state + 1, Ordering::Release);
        Ok(())
    }
}
