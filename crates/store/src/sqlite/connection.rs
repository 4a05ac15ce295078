//! Connections to a database file: how they are set up, and the state that the one writer carries.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anabranch_core::storage::{Durability, StorageError};
use rusqlite::hooks::Wal;
use rusqlite::{Connection, OpenFlags};

use super::explain::Explain;
use super::options::Options;
use super::schema::STATEMENTS;

/// Rows changed from which on a transaction is large: it comes back to pages that it had, and what does not fit is written
/// twice.
const LARGE: u32 = 512;
/// Bytes of pages that are kept for transactions that are not. When a page is split, SQLite gives pages other numbers, and by
/// the end of the commit looks at every page that it keeps: some hundred microseconds for 32 MiB.
const SMALL_CACHE: u32 = 2 << 20;
/// After so many of them in a row no more is kept.
const SMALL_ONES: u32 = 8;
/// The page with SQLite's lock bytes, whose number it gives to pages that are being moved. Files that reach it are spared that.
const LOCK_BYTE_PAGE: u32 = (1 << 30) / super::open::PAGE_SIZE;

/// The connection that writes.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) connection: Connection,
    /// The `synchronous` setting in force.
    durability: Durability,
    /// Whether it waits for other processes.
    patient: bool,
    /// Pages in the log after the last commit.
    pages: Arc<AtomicU32>,
    /// Bytes of pages that it keeps now.
    cache: u32,
    /// Bytes of pages that it keeps at the most.
    largest_cache: u32,
    /// Transactions since the last large one.
    small_ones: u32,
    /// Whether the format version was looked at since another connection committed.
    pub(super) vetted: bool,
    /// SQLite's mark of the state of the file; only commits of other connections change it.
    seen: i64,
}

impl Writer {
    /// Sets what the next commit will wait for. Not to be called inside a transaction: SQLite would ignore it.
    pub(super) fn set_durability(&mut self, durability: Durability) -> rusqlite::Result<()> {
        if durability != self.durability {
            self.connection.execute_batch(match durability {
                // Each commit syncs the log up to its own end.
                Durability::Full => "PRAGMA synchronous = FULL",
                // The log is synced only before it is moved into the file, the file only before the log starts anew.
                Durability::Normal => "PRAGMA synchronous = NORMAL",
            })?;
            self.durability = durability;
        }
        Ok(())
    }

    /// Whether the next transaction may wait for another process's write lock.
    pub(super) fn set_patient(&mut self, patient: bool, options: &Options) -> rusqlite::Result<()> {
        if patient != self.patient {
            let timeout = if patient { options.busy_timeout } else { Duration::ZERO };
            self.connection.busy_timeout(timeout)?;
            self.patient = patient;
        }
        Ok(())
    }

    /// The transaction that is under way has changed `rows` so far.
    pub(super) fn wrote(&mut self, rows: u32) -> rusqlite::Result<()> {
        if rows != LARGE {
            return Ok(());
        }
        self.small_ones = 0;
        self.keep(self.largest_cache)
    }

    /// A transaction is over that changed `rows`.
    pub(super) fn ended(&mut self, rows: u32) -> rusqlite::Result<()> {
        if rows >= LARGE || self.cache <= SMALL_CACHE {
            return Ok(());
        }
        self.small_ones += 1;
        if self.small_ones < SMALL_ONES {
            return Ok(());
        }
        self.small_ones = 0;
        let pages = "PRAGMA page_count";
        let pages: u32 = self.connection.prepare_cached(pages)?.query_row([], |row| row.get(0))?;
        if pages < LOCK_BYTE_PAGE { self.keep(SMALL_CACHE) } else { Ok(()) }
    }

    fn keep(&mut self, bytes: u32) -> rusqlite::Result<()> {
        if bytes != self.cache {
            self.connection.execute_batch(&cache_size(bytes))?;
            self.cache = bytes;
        }
        Ok(())
    }

    /// Pages in the log after the last commit that added to it.
    pub(super) fn pages(&self) -> u32 {
        self.pages.load(Ordering::Relaxed)
    }

    /// Whether another connection has committed since the last call.
    pub(super) fn changed_by_others(&mut self) -> rusqlite::Result<bool> {
        let now = data_version(&self.connection)?;
        let changed = now != self.seen;
        self.seen = now;
        Ok(changed)
    }
}

pub(super) fn open_writer(
    path: &Path,
    options: &Options,
    explain: &Explain,
) -> Result<Writer, StorageError> {
    let open = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = options.connect(path, flags)?;
        let (largest_cache, cache) = (options.writer_cache, options.writer_cache.min(SMALL_CACHE));
        set_up(&connection, options, cache)?;
        connection.execute_batch(&format!(
            "PRAGMA synchronous = FULL;
             PRAGMA fullfsync = ON;
             PRAGMA journal_size_limit = {};",
            options.wal_keep
        ))?;
        let pages = Arc::new(AtomicU32::new(0));
        let told = Arc::clone(&pages);
        // In the place of SQLite's own hook, which would move the log into the file in the middle of a commit.
        connection.wal_hook(Some(move |_: &mut Wal, pages| {
            told.store(u32::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        let seen = data_version(&connection)?;
        let durability = Durability::Full;
        Ok(Writer {
            connection,
            durability,
            patient: true,
            pages,
            cache,
            largest_cache,
            small_ones: 0,
            vetted: false,
            seen,
        })
    };
    open().map_err(|error| explain.sqlite(error))
}

pub(super) fn open_reader(
    path: &Path,
    options: &Options,
    explain: &Explain,
) -> Result<Connection, StorageError> {
    let open = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = options.connect(path, flags)?;
        set_up(&connection, options, options.reader_cache)?;
        Ok(connection)
    };
    open().map_err(|error| explain.sqlite(error))
}

/// The connection that moves the log into the file. It waits for nobody unless it is told to.
pub(super) fn open_checkpointer(path: &Path, options: &Options) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = options.connect(path, flags)?;
    connection.busy_timeout(Duration::ZERO)?;
    connection.execute_batch(
        "PRAGMA synchronous = NORMAL;
         PRAGMA checkpoint_fullfsync = ON;
         PRAGMA mmap_size = 0;
         PRAGMA trusted_schema = OFF;",
    )?;
    Ok(connection)
}

/// What readers and the writer have in common.
fn set_up(connection: &Connection, options: &Options, cache: u32) -> rusqlite::Result<()> {
    connection.busy_timeout(options.busy_timeout)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.execute_batch(&format!(
        "{};
         PRAGMA mmap_size = 0;
         PRAGMA temp_store = FILE;
         PRAGMA cell_size_check = ON;
         PRAGMA trusted_schema = OFF;",
        cache_size(cache)
    ))
}

/// A negative one counts KiB instead of pages.
fn cache_size(bytes: u32) -> String {
    format!("PRAGMA cache_size = -{}", (bytes / 1024).max(64))
}

fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))
}
