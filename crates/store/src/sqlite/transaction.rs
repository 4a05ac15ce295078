//! Transactions on SQLite connections: snapshots, and the one writer.
//!
//! Guards I1 and I6: a failed write poisons its transaction, because SQLite may have undone it by then and would commit
//! whatever follows statement by statement.

use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use anabranch_core::storage::{Durability, Order, ReadTx, StorageError, Table, Visit, WriteTx};
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension as _, Row, ToSql};

use super::checkpoint::Checkpointer;
use super::connection::Writer;
use super::explain::Explain;
use super::open;
use super::options::Options;
use super::schema::{prefix, statements};
use crate::integer_key;
use crate::pool::Lease;

/// A snapshot, held by a read connection until it is dropped.
pub(super) struct Reading<'s> {
    connection: Lease<'s, Connection>,
    explain: &'s Explain,
}

impl<'s> Reading<'s> {
    pub(super) fn begin(
        connection: Lease<'s, Connection>,
        explain: &'s Explain,
    ) -> Result<Self, StorageError> {
        let transaction = Self { connection, explain };
        execute(&transaction.connection, "BEGIN", explain)?;
        // A transaction has its snapshot from its first read on, which this is.
        open::require_version(&transaction.connection, explain)?;
        Ok(transaction)
    }
}

impl ReadTx for Reading<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        get(&self.connection, self.explain, table, key)
    }

    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<(), StorageError> {
        scan(&self.connection, self.explain, table, Range { from, to, order }, visit)
    }

    fn keys(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        keys(&self.connection, self.explain, table, (from, to), visit)
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        if roll_back(&self.connection).is_err() {
            self.connection.condemn();
        }
    }
}

/// The write transaction; undone when dropped.
pub(super) struct Writing<'s> {
    writer: Lease<'s, Writer>,
    durability: Durability,
    wal_path: &'s Path,
    options: &'s Options,
    explain: &'s Explain,
    /// Rows that were added, removed or got another value: if there are any, the commit will add to the log.
    changed: u32,
    /// Whether a write failed.
    failed: bool,
    /// The storage's state, and what it was when this began.
    state: Option<(&'s AtomicU64, u64)>,
    /// Who is told how long the log is.
    checkpointer: Option<&'s Checkpointer>,
}

impl<'s> Writing<'s> {
    pub(super) fn begin(
        mut writer: Lease<'s, Writer>,
        durability: Durability,
        wal_path: &'s Path,
        options: &'s Options,
        explain: &'s Explain,
    ) -> Result<Self, StorageError> {
        writer.set_durability(durability).map_err(|error| explain.sqlite(error))?;
        execute(&writer.connection, "BEGIN IMMEDIATE", explain)?;
        Ok(Self {
            writer,
            durability,
            wal_path,
            options,
            explain,
            changed: 0,
            failed: false,
            state: None,
            checkpointer: None,
        })
    }

    /// Has the commit counted in `state`, and `checkpointer` told of it.
    pub(super) fn count_in(
        &mut self,
        state: &'s AtomicU64,
        checkpointer: Option<&'s Checkpointer>,
    ) {
        self.state = Some((state, state.load(Ordering::Acquire)));
        self.checkpointer = checkpointer;
    }

    pub(super) fn writer(&mut self) -> &mut Writer {
        &mut self.writer
    }

    /// As [`open::require_version`]: only another process can have raised it.
    pub(super) fn require_version(&self) -> Result<(), StorageError> {
        open::require_version(&self.writer.connection, self.explain)
    }

    #[cfg(test)]
    pub(super) fn changed(&self) -> bool {
        self.changed > 0
    }

    /// The connection, if what this transaction wrote is still there.
    fn connection(&self) -> Result<&Connection, StorageError> {
        if self.failed || self.writer.connection.is_autocommit() {
            return Err(StorageError::Io(
                "the transaction was undone because a write in it failed; start it again".into(),
            ));
        }
        Ok(&self.writer.connection)
    }

    fn write(&mut self, sql: &str, parameters: &[&dyn ToSql]) -> Result<bool, StorageError> {
        let written = self
            .connection()?
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute(parameters));
        match written {
            Ok(0) => Ok(false),
            Ok(_) => {
                self.changed = self.changed.saturating_add(1);
                self.writer.wrote(self.changed).map_err(|error| self.explain.sqlite(error))?;
                Ok(true)
            }
            Err(error) => {
                self.failed = true;
                Err(self.explain.sqlite(error))
            }
        }
    }

    /// SQLite syncs the log only when the commit adds to it; earlier commits may still need it.
    fn sync_log(&self) -> Result<(), StorageError> {
        match self.options.sync(self.wal_path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(self.explain.io("synced", &error))
            }
            _ => Ok(()),
        }
    }
}

impl ReadTx for Writing<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        get(self.connection()?, self.explain, table, key)
    }

    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<(), StorageError> {
        scan(self.connection()?, self.explain, table, Range { from, to, order }, visit)
    }

    fn keys(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        keys(self.connection()?, self.explain, table, (from, to), visit)
    }
}

impl WriteTx for Writing<'_> {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        let key = if table.integer_keyed() {
            Key::Number(integer_key::number_to_store(key)?)
        } else {
            Key::bytes(table, key)
        };
        self.write(&statements(table).put, &[&key, &value]).map(drop)
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<bool, StorageError> {
        match Key::to_find(table, key) {
            Some(key) => self.write(&statements(table).delete, &[&key]),
            None => Ok(false),
        }
    }

    fn state(&self) -> Option<u64> {
        self.state.map(|(_, before)| before)
    }

    fn commit(self: Box<Self>) -> Result<(), StorageError> {
        let connection = self.connection()?;
        if self.durability == Durability::Full && self.changed == 0 {
            self.sync_log()?;
        }
        let done = execute(connection, "COMMIT", self.explain);
        if let Some((state, _)) = self.state {
            // Of one that failed it is not certain what is left.
            state.fetch_add(if done.is_ok() { 1 } else { 2 }, Ordering::AcqRel);
        }
        if let Some(checkpointer) = self.checkpointer {
            checkpointer.committed(
                self.writer.pages(),
                done.is_ok() && self.durability == Durability::Full,
            );
        }
        done
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let changed = self.changed;
        if roll_back(&self.writer.connection).is_err() || self.writer.ended(changed).is_err() {
            self.writer.condemn();
        }
    }
}

/// A key as it is in the file: of the type that its table has, and after the number of the table where several share one.
enum Key<'k> {
    Bytes(&'k [u8]),
    Prefixed(Vec<u8>),
    Number(i64),
}

impl<'k> Key<'k> {
    fn bytes(table: Table, key: &'k [u8]) -> Self {
        match prefix(table) {
            None => Self::Bytes(key),
            Some(prefix) => Self::Prefixed([&[prefix], key].concat()),
        }
    }

    /// Where the keys of a table end that shares one with others.
    fn end(table: Table) -> Option<Self> {
        prefix(table).map(|prefix| Self::Prefixed(vec![prefix + 1]))
    }

    /// Nothing when the table cannot hold such a key.
    fn to_find(table: Table, key: &'k [u8]) -> Option<Self> {
        if table.integer_keyed() {
            integer_key::number(key).map(Self::Number)
        } else {
            Some(Self::bytes(table, key))
        }
    }

    /// Nothing when every key of the table is below the bound.
    fn to_bound(table: Table, bound: &'k [u8]) -> Option<Self> {
        if table.integer_keyed() {
            integer_key::first_at_or_after(bound).map(Self::Number)
        } else {
            Some(Self::bytes(table, bound))
        }
    }
}

impl ToSql for Key<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Bytes(bytes) => ToSqlOutput::Borrowed(ValueRef::Blob(bytes)),
            Self::Prefixed(bytes) => ToSqlOutput::Borrowed(ValueRef::Blob(bytes)),
            Self::Number(number) => (*number).into(),
        })
    }
}

struct Range<'r> {
    from: &'r [u8],
    to: Option<&'r [u8]>,
    order: Order,
}

fn get(
    connection: &Connection,
    explain: &Explain,
    table: Table,
    key: &[u8],
) -> Result<Option<Vec<u8>>, StorageError> {
    let Some(key) = Key::to_find(table, key) else {
        return Ok(None);
    };
    let found = connection
        .prepare_cached(&statements(table).get)
        .and_then(|mut statement| {
            statement.query_row([&key], |row| Ok(blob(row, 0).map(<[u8]>::to_vec))).optional()
        })
        .map_err(|error| explain.sqlite(error))?;
    match found {
        None => Ok(None),
        Some(Some(value)) => Ok(Some(value)),
        Some(None) => Err(wrong_type(explain, table)),
    }
}

fn scan(
    connection: &Connection,
    explain: &Explain,
    table: Table,
    range: Range<'_>,
    visit: &mut Visit<'_>,
) -> Result<(), StorageError> {
    let sql = |bounded| statements(table).scan(range.order, bounded);
    each_row(connection, explain, table, (range.from, range.to), &sql, &mut |row| {
        with_pair(row, table, visit)
    })
}

fn keys(
    connection: &Connection,
    explain: &Explain,
    table: Table,
    range: (&[u8], Option<&[u8]>),
    visit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
) -> Result<(), StorageError> {
    let sql = |bounded| statements(table).keys(bounded);
    each_row(connection, explain, table, range, &sql, &mut |row| with_key(row, table, visit))
}

/// Runs the statement that `sql` gives, with or without an upper bound, and hands its rows on until `visit` breaks; nothing
/// from `visit` means that a row is not of the types that the table has.
fn each_row(
    connection: &Connection,
    explain: &Explain,
    table: Table,
    (from, to): (&[u8], Option<&[u8]>),
    sql: &dyn Fn(bool) -> &'static str,
    visit: &mut dyn FnMut(&Row<'_>) -> Option<ControlFlow<()>>,
) -> Result<(), StorageError> {
    let Some(from) = Key::to_bound(table, from) else {
        return Ok(());
    };
    let to = to.and_then(|to| Key::to_bound(table, to)).or_else(|| Key::end(table));
    let failed = |error| explain.sqlite(error);
    let mut statement = connection.prepare_cached(sql(to.is_some())).map_err(failed)?;
    let mut rows = match &to {
        Some(to) => statement.query([&from, to]),
        None => statement.query([&from]),
    }
    .map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        if visit(row).ok_or_else(|| wrong_type(explain, table))?.is_break() {
            break;
        }
    }
    Ok(())
}

/// Hands the key in `row` on; nothing when it is not of the type that the table has.
fn with_key(
    row: &Row<'_>,
    table: Table,
    visit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
) -> Option<ControlFlow<()>> {
    if table.integer_keyed() {
        let number = row.get_ref(0).ok()?.as_i64().ok()?;
        Some(visit(&integer_key::key(number)?))
    } else {
        Some(visit(own_key(row, table)?))
    }
}

/// Hands the pair in `row` on; nothing when it is not of the types that the table has.
fn with_pair(row: &Row<'_>, table: Table, visit: &mut Visit<'_>) -> Option<ControlFlow<()>> {
    let value = blob(row, 1)?;
    if table.integer_keyed() {
        let number = row.get_ref(0).ok()?.as_i64().ok()?;
        Some(visit(&integer_key::key(number)?, value))
    } else {
        Some(visit(own_key(row, table)?, value))
    }
}

/// A key as the table has it, without the number of the table.
fn own_key<'r>(row: &'r Row<'_>, table: Table) -> Option<&'r [u8]> {
    let key = blob(row, 0)?;
    if prefix(table).is_some() { key.get(1..) } else { Some(key) }
}

fn blob<'r>(row: &'r Row<'_>, column: usize) -> Option<&'r [u8]> {
    row.get_ref(column).ok()?.as_blob().ok()
}

fn wrong_type(explain: &Explain, table: Table) -> StorageError {
    explain
        .corrupt(format!("a row of table {} is not of the types it was stored with", table.name()))
}

fn execute(connection: &Connection, sql: &str, explain: &Explain) -> Result<(), StorageError> {
    connection
        .prepare_cached(sql)
        .and_then(|mut statement| statement.execute([]))
        .map(drop)
        .map_err(|error| explain.sqlite(error))
}

/// Ends the transaction, if one is open, leaving nothing of it.
fn roll_back(connection: &Connection) -> rusqlite::Result<()> {
    if connection.is_autocommit() {
        return Ok(());
    }
    connection.prepare_cached("ROLLBACK")?.execute([]).map(drop)
}
