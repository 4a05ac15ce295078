//! SQLite alone, doing what a replica cannot do without: one row for the entry and one for the cell, of the sizes that the
//! replica stores, in a file with the same page size, journal and `synchronous` setting, by prepared statements.

use crate::data::{Keys, bytes};
use crate::{Error, Result};
use anabranch_core::storage::{Durability, Order, ReadTx, Table};
use anabranch_store::Options;
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes of the rows that one entry takes.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Sizes {
    /// The entry; its key is an integer.
    pub(crate) entry: usize,
    /// The cell's key.
    pub(crate) key: usize,
    /// The cell's value.
    pub(crate) value: usize,
}

impl Sizes {
    /// Of the newest entry and the last cell in a replica's tables.
    pub(crate) fn of(tx: &dyn ReadTx) -> Result<Self> {
        let last = |table, bound: &[u8]| {
            let mut found = (0, 0);
            tx.scan(table, &[], Some(bound), Order::Descending, &mut |key, value| {
                found = (key.len(), value.len());
                ControlFlow::Break(())
            })?;
            Ok::<_, Error>(found)
        };
        let entry = last(Table::Entry, &[0x7F; 8])?;
        let cell = last(Table::Cell, &[0xFF; 4])?;
        Ok(Self { entry: entry.1, key: cell.0, value: cell.1 })
    }
}

/// A database of the two tables.
pub(crate) struct Raw {
    connection: Connection,
    sizes: Sizes,
    keys: Keys,
    next: u64,
}

impl Raw {
    pub(crate) fn create(
        path: &Path,
        durability: Durability,
        sizes: Sizes,
        keys: Keys,
    ) -> Result<Self> {
        let connection = Connection::open(path)?;
        let options = Options::default();
        let synchronous = match durability {
            Durability::Full => "FULL",
            Durability::Normal => "NORMAL",
        };
        connection.execute_batch(&format!(
            "PRAGMA page_size = 4096;
             PRAGMA journal_mode = WAL;
             PRAGMA synchronous = {synchronous};
             PRAGMA cache_size = -{};
             PRAGMA wal_autocheckpoint = {};
             PRAGMA journal_size_limit = {};
             CREATE TABLE entry (k INTEGER PRIMARY KEY, v BLOB NOT NULL) STRICT;
             CREATE TABLE cell (k BLOB NOT NULL PRIMARY KEY, v BLOB NOT NULL) STRICT, WITHOUT ROWID;",
            options.writer_cache / 1024,
            options.checkpoint_pages,
            options.wal_keep,
        ))?;
        Ok(Self { connection, sizes, keys, next: 1 })
    }

    /// Inserts `count` entries with their cells, `group` to a transaction, and says how long that took.
    pub(crate) fn insert(&mut self, count: u64, group: u64) -> Result<Duration> {
        let mut took = Duration::ZERO;
        let end = self.next + count;
        while self.next < end {
            let upto = end.min(self.next + group);
            let rows: Vec<Row> = (self.next..upto).map(|n| self.row(n)).collect();
            let start = Instant::now();
            self.transaction(&rows)?;
            took += start.elapsed();
            self.next = upto;
        }
        Ok(took)
    }

    /// Made outside the measured time: a replica gets its rows from somewhere, too.
    fn row(&self, n: u64) -> Row {
        let mut key = self.keys.key(n).into_bytes();
        key.resize(self.sizes.key, 0);
        Row { n, entry: bytes(n, self.sizes.entry), key, value: bytes(!n, self.sizes.value) }
    }

    fn transaction(&self, rows: &[Row]) -> Result<()> {
        let run = |sql| self.connection.prepare_cached(sql)?.execute([]);
        run("BEGIN IMMEDIATE")?;
        {
            let mut entry = self.connection.prepare_cached("INSERT INTO entry VALUES (?1, ?2)")?;
            let mut cell = self.connection.prepare_cached("INSERT INTO cell VALUES (?1, ?2)")?;
            for row in rows {
                entry.execute((row.n.cast_signed(), &row.entry))?;
                cell.execute((&row.key, &row.value))?;
            }
        }
        run("COMMIT")?;
        Ok(())
    }
}

struct Row {
    n: u64,
    entry: Vec<u8>,
    key: Vec<u8>,
    value: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_there_with_its_size() {
        let dir = tempfile::tempdir().unwrap();
        let sizes = Sizes { entry: 120, key: 40, value: 80 };
        let path = dir.path().join("raw");
        let mut raw = Raw::create(&path, Durability::Normal, sizes, Keys::Random).unwrap();
        raw.insert(10, 3).unwrap();
        raw.insert(5, 1).unwrap();
        let sums: (i64, i64, i64) = raw
            .connection
            .query_row(
                "SELECT (SELECT sum(length(v)) FROM entry), sum(length(k)), sum(length(v)) FROM cell",
                [],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
            )
            .unwrap();
        assert_eq!(sums, (15 * 120, 15 * 40, 15 * 80));
    }
}
