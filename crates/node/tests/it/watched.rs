//! Storage that notes how durable each transaction was and whether it changed what peers may be told.

use anabranch_core::storage::{
    Durability, Order, ReadTx, Storage, StorageError, Table, Visit, WriteTx,
};
use anabranch_core::view::View;
use anabranch_store::MemoryStorage;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

/// One committed transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Commit {
    pub(crate) durability: Durability,
    pub(crate) told_more: bool,
    /// Which thread made it.
    pub(crate) here: std::thread::ThreadId,
}

#[derive(Default)]
pub(crate) struct Watched {
    inner: MemoryStorage,
    commits: Arc<Mutex<Vec<Commit>>>,
    /// How many of the next fully durable transactions find the disk full.
    pub(crate) full: AtomicU32,
    /// The same for transactions that are not.
    pub(crate) full_later: AtomicU32,
}

impl Watched {
    pub(crate) fn commits(&self) -> Vec<Commit> {
        self.commits.lock().unwrap().clone()
    }
}

struct Tx<'a> {
    inner: Box<dyn WriteTx + 'a>,
    durability: Durability,
    before: [u8; 32],
    commits: Arc<Mutex<Vec<Commit>>>,
}

impl ReadTx for Tx<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        self.inner.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<(), StorageError> {
        self.inner.scan(table, from, to, order, visit)
    }
}

impl WriteTx for Tx<'_> {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        self.inner.put(table, key, value)
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<bool, StorageError> {
        self.inner.delete(table, key)
    }

    fn state(&self) -> Option<u64> {
        self.inner.state()
    }

    fn commit(self: Box<Self>) -> Result<(), StorageError> {
        let after = View::new(&*self).frontier_digest()?;
        let told_more = after != self.before;
        let here = std::thread::current().id();
        let commit = Commit { durability: self.durability, told_more, here };
        self.commits.lock().unwrap().push(commit);
        self.inner.commit()
    }
}

impl Storage for Watched {
    fn read(&self) -> Result<Box<dyn ReadTx + '_>, StorageError> {
        self.inner.read()
    }

    fn write(&self, durability: Durability) -> Result<Box<dyn WriteTx + '_>, StorageError> {
        let less = |left: u32| left.checked_sub(1);
        let full = match durability {
            Durability::Full => &self.full,
            Durability::Normal => &self.full_later,
        };
        if full.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok() {
            return Err(StorageError::Full);
        }
        let inner = self.inner.write(durability)?;
        let tx = Tx { inner, durability, before: [0; 32], commits: Arc::clone(&self.commits) };
        let before = View::new(&tx).frontier_digest()?;
        Ok(Box::new(Tx { before, ..tx }))
    }

    fn try_write(&self) -> Result<Option<Box<dyn WriteTx + '_>>, StorageError> {
        self.write(Durability::Normal).map(Some)
    }

    fn instance(&self) -> [u8; 32] {
        self.inner.instance()
    }

    fn size(&self) -> Result<u64, StorageError> {
        self.inner.size()
    }
}
