//! Storage for what is worked out and thrown away: a few hundred entries at most, in memory, for one user.

use crate::storage::{Order, ReadTx, StorageError, Table, Visit, WriteTx};
use std::collections::BTreeMap;
use std::ops::Bound;

/// Tables that start empty. One transaction, which nobody keeps.
#[derive(Default)]
pub(crate) struct Scratch {
    rows: BTreeMap<(Table, Vec<u8>), Vec<u8>>,
}

impl ReadTx for Scratch {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(self.rows.get(&(table, key.to_vec())).cloned())
    }

    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<(), StorageError> {
        if to.is_some_and(|to| to <= from) {
            return Ok(());
        }
        let from = Bound::Included((table, from.to_vec()));
        let next = Table::ALL.get(table as usize + 1).map(|next| (*next, Vec::new()));
        let to = to.map(|to| (table, to.to_vec())).or(next);
        let mut rows = self.rows.range((from, to.map_or(Bound::Unbounded, Bound::Excluded)));
        let visit = |((_, key), value): (&(Table, Vec<u8>), &Vec<u8>)| visit(key, value);
        // Ends early by itself; what it ended with is of no use.
        let _ = match order {
            Order::Ascending => rows.try_for_each(visit),
            Order::Descending => rows.rev().try_for_each(visit),
        };
        Ok(())
    }
}

impl WriteTx for Scratch {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        self.rows.insert((table, key.to_vec()), value.to_vec());
        Ok(())
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<bool, StorageError> {
        Ok(self.rows.remove(&(table, key.to_vec())).is_some())
    }

    fn commit(self: Box<Self>) -> Result<(), StorageError> {
        Ok(())
    }
}
