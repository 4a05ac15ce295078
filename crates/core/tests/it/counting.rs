//! Storage that counts what is asked of it, so that tests can say what must not grow.

use anabranch_core::storage::{
    Durability, Order, ReadTx, Storage, StorageError, Table, Visit, WriteTx,
};
use std::sync::atomic::{AtomicU64, Ordering};

/// Wraps another storage. A step of a scan counts as much as a look-up.
pub(crate) struct Counting<'s> {
    inner: &'s dyn Storage,
    count: AtomicU64,
}

impl<'s> Counting<'s> {
    pub(crate) fn new(inner: &'s dyn Storage) -> Self {
        Self { inner, count: AtomicU64::new(0) }
    }

    /// How much was asked since this was called last.
    pub(crate) fn take(&self) -> u64 {
        self.count.swap(0, Ordering::Relaxed)
    }
}

impl Storage for Counting<'_> {
    fn read(&self) -> Result<Box<dyn ReadTx + '_>, StorageError> {
        Ok(Box::new(Read { inner: self.inner.read()?, count: &self.count }))
    }

    fn write(&self, durability: Durability) -> Result<Box<dyn WriteTx + '_>, StorageError> {
        Ok(Box::new(Write { inner: self.inner.write(durability)?, count: &self.count }))
    }

    fn instance(&self) -> [u8; 32] {
        self.inner.instance()
    }

    fn size(&self) -> Result<u64, StorageError> {
        self.inner.size()
    }
}

struct Read<'t> {
    inner: Box<dyn ReadTx + 't>,
    count: &'t AtomicU64,
}

struct Write<'t> {
    inner: Box<dyn WriteTx + 't>,
    count: &'t AtomicU64,
}

fn counted(
    tx: &dyn ReadTx,
    count: &AtomicU64,
    (table, from, to, order): (Table, &[u8], Option<&[u8]>, Order),
    visit: &mut Visit<'_>,
) -> Result<(), StorageError> {
    count.fetch_add(1, Ordering::Relaxed);
    tx.scan(table, from, to, order, &mut |key, value| {
        count.fetch_add(1, Ordering::Relaxed);
        visit(key, value)
    })
}

impl ReadTx for Read<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        self.count.fetch_add(1, Ordering::Relaxed);
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
        counted(&*self.inner, self.count, (table, from, to, order), visit)
    }
}

impl ReadTx for Write<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        self.count.fetch_add(1, Ordering::Relaxed);
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
        counted(&*self.inner, self.count, (table, from, to, order), visit)
    }
}

impl WriteTx for Write<'_> {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.inner.put(table, key, value)
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<bool, StorageError> {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.inner.delete(table, key)
    }

    fn state(&self) -> Option<u64> {
        self.inner.state()
    }

    fn commit(self: Box<Self>) -> Result<(), StorageError> {
        self.inner.commit()
    }
}
