//! Storage on SQLite: one file a database, in WAL mode, shared by threads and processes.
//!
//! Here is what a user of the storage calls; [`open`] makes and vets files, [`connection`] sets connections up,
//! [`transaction`] reads and writes, [`schema`] holds the SQL. Guards I1 and I6: a commit with [`Durability::Full`] has
//! synced the write-ahead log, and with it every commit before it, when it returns.
//!
//! What is noticed of damage: whatever breaks the structure of the file (SQLite checks it page by page as it reads) and
//! whatever changes the schema. What is not: SQLite has no checksums in the main file, so a bit flipped inside a key or a
//! value is returned as if it had been written; the hashes of entries and blobs tell those. A damaged write-ahead log
//! ends, without a word, at the last commit that is whole.
//!
//! A commit that fails because the log could not be synced is undone, but should the machine or the process die before the
//! next commit, it may be found in the log after all: an answer that never came is not a no.
//!
//! The process must not open the database file by other means while a [`SqliteStorage`] has it: on POSIX systems closing
//! any descriptor of a file gives up all locks that the process holds on it. The `-wal` file may be opened.

mod backup;
mod checkpoint;
mod connection;
mod explain;
mod instance;
mod open;
mod options;
mod schema;
#[cfg(test)]
mod tests;
mod transaction;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anabranch_core::storage::{Durability, ReadTx, Storage, StorageError, WriteTx};
use rusqlite::Connection;

use self::checkpoint::Checkpointer;
use self::connection::Writer;
use self::explain::Explain;
pub use self::open::FORMAT_VERSION;
pub use self::options::{Options, Vfs};
use self::transaction::{Reading, Writing};
use crate::pool::{Lease, Pool};

/// How many findings [`SqliteStorage::check`] returns at most.
const MAX_FINDINGS: u32 = 100;

/// How often the log is synced ahead of a commit that has to wait for it. Each time leaves what was committed meanwhile.
const AHEAD: u32 = 2;

/// A database in a SQLite file.
///
/// Dropping it moves what the write-ahead log holds into the file, as far as no other process is using it; committed
/// transactions are safe with or without that.
pub struct SqliteStorage {
    /// Canonical, so that it stays right when the process changes its directory.
    path: PathBuf,
    wal_path: PathBuf,
    options: Options,
    explain: Explain,
    instance: [u8; 32],
    /// How often a commit that was not made through this value was noticed.
    foreign_commits: AtomicU64,
    /// See [`WriteTx::state`]: one more for each own commit, two more for whatever else may have changed something.
    state: AtomicU64,
    readers: Pool<Connection>,
    writer: Arc<Pool<Writer>>,
    /// There until it is dropped.
    checkpointer: Option<Checkpointer>,
}

impl SqliteStorage {
    /// Opens the database in the file `path`.
    ///
    /// A file that turns out not to be a database of this program is left exactly as it is.
    ///
    /// # Errors
    /// [`StorageError::Io`] when there is no such file or it cannot be read and written, [`StorageError::Foreign`],
    /// [`StorageError::NewerVersion`], [`StorageError::OlderVersion`] and [`StorageError::Corrupt`] for what the file
    /// is instead, [`StorageError::Busy`] when another process keeps it locked.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Self, StorageError> {
        let explain = Explain::new(path.as_ref(), options.busy_timeout);
        let path = open::vet(path.as_ref(), &options, &explain)?;
        let writer = connection::open_writer(&path, &options, &explain)?;
        open::admit(&writer.connection, &path, &explain)?;
        let writer = Arc::new(Pool::of_one(writer));
        let checkpointer = Checkpointer::new(path.clone(), options.clone(), Arc::clone(&writer));
        Ok(Self {
            wal_path: with_suffix(&path, "-wal"),
            instance: instance::mark(&path).map_err(|error| explain.io("looked up", &error))?,
            foreign_commits: AtomicU64::new(0),
            state: AtomicU64::new(0),
            readers: Pool::new(options.readers),
            writer,
            checkpointer: Some(checkpointer),
            path,
            options,
            explain,
        })
    }

    /// Makes a new, empty database in the file `path` and opens it. On Unix only its owner may read and write it.
    ///
    /// What a crash in the middle of making one leaves in its place is taken over: an empty file, or one whose journal says
    /// that it was empty.
    ///
    /// # Errors
    /// [`StorageError::Io`] when there is something in the file already or it cannot be made, otherwise as
    /// [`SqliteStorage::open`].
    pub fn create(path: impl AsRef<Path>, options: Options) -> Result<Self, StorageError> {
        let explain = Explain::new(path.as_ref(), options.busy_timeout);
        open::make(path.as_ref(), &options, &explain)?;
        Self::open(path, options)
    }

    /// The database file; absolute, symbolic links resolved.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The write-ahead log beside it. It changes with every commit of any process and exists while one has the database
    /// open.
    #[must_use]
    pub fn wal_path(&self) -> &Path {
        &self.wal_path
    }

    /// A number that grows when somebody else commits: another process, or another value for the same file here. Nothing
    /// when it cannot be told now, because a transaction writes through this value or the log is being moved: ask again.
    ///
    /// Own commits never count. It may grow without a reason, and several commits may count as one. Cost: a few
    /// microseconds, no disk access; never waits for a writer.
    ///
    /// # Errors
    /// Whatever SQLite reports.
    pub fn commits_by_others(&self) -> Result<Option<u64>, StorageError> {
        let Some(mut writer) = self.writer.lend_idle() else {
            return Ok(None);
        };
        self.note_foreign_commits(&mut writer)?;
        Ok(Some(self.foreign_commits.load(Ordering::Acquire)))
    }

    /// Looks for structural damage in the whole file and returns what it found, at most a hundred findings.
    ///
    /// Cost: reads every page. Flipped bits inside keys and values are not noticed here.
    ///
    /// # Errors
    /// When the file cannot be read at all for a reason other than damage.
    pub fn check(&self) -> Result<Vec<String>, StorageError> {
        let connection = self.reader()?;
        match findings(&connection) {
            Ok(lines) if lines == ["ok"] => Ok(Vec::new()),
            Ok(lines) => Ok(lines),
            Err(error) => match self.explain.sqlite(error) {
                StorageError::Corrupt(finding) => Ok(vec![finding]),
                other => Err(other),
            },
        }
    }

    /// Writes the newest committed state into the new file `target`, compacted: a database of its own, which may be
    /// opened once this returned. Writers are not held up; the write-ahead log cannot shrink meanwhile.
    ///
    /// # Errors
    /// [`StorageError::Io`] when the target exists, and whatever reading and writing report; then the target is gone
    /// again.
    pub fn backup_to(&self, target: impl AsRef<Path>) -> Result<(), StorageError> {
        let connection = self.reader()?;
        backup::write(&connection, target.as_ref(), &self.options, &self.explain)
    }

    fn reader(&self) -> Result<Lease<'_, Connection>, StorageError> {
        self.readers
            .lend(self.options.busy_timeout, || {
                connection::open_reader(&self.path, &self.options, &self.explain)
            })?
            .ok_or_else(|| self.too_many_readers())
    }

    fn writer(&self) -> Result<Lease<'_, Writer>, StorageError> {
        self.writer
            .lend(self.options.busy_timeout, || {
                // Nobody knows what happened since the last one was closed.
                self.state.fetch_add(2, Ordering::AcqRel);
                connection::open_writer(&self.path, &self.options, &self.explain)
            })?
            .ok_or(StorageError::Busy(self.options.busy_timeout.as_secs()))
    }

    fn begin<'s>(
        &'s self,
        mut writer: Lease<'s, Writer>,
        durability: Durability,
        patient: bool,
    ) -> Result<Writing<'s>, StorageError> {
        writer.set_patient(patient, &self.options).map_err(|error| self.explain.sqlite(error))?;
        let mut transaction =
            Writing::begin(writer, durability, &self.wal_path, &self.options, &self.explain)?;
        self.note_foreign_commits(transaction.writer())?;
        if !transaction.writer().vetted {
            transaction.require_version()?;
            transaction.writer().vetted = true;
        }
        transaction.count_in(&self.state, self.checkpointer.as_ref());
        Ok(transaction)
    }

    fn too_many_readers(&self) -> StorageError {
        StorageError::Io(format!(
            "all {} read transactions that may be open at once were in use for {} seconds; end some or raise the number of readers",
            self.options.readers.max(1),
            self.options.busy_timeout.as_secs()
        ))
    }

    fn note_foreign_commits(&self, writer: &mut Writer) -> Result<(), StorageError> {
        let changed = writer.changed_by_others().map_err(|error| self.explain.sqlite(error))?;
        if changed {
            self.foreign_commits.fetch_add(1, Ordering::AcqRel);
            self.state.fetch_add(2, Ordering::AcqRel);
            writer.vetted = false;
        }
        Ok(())
    }

    /// Moves the write-ahead log into the file and empties it, without waiting for anybody.
    fn tidy(&mut self) -> rusqlite::Result<()> {
        drop(self.readers.drain());
        drop(self.checkpointer.take());
        for writer in self.writer.drain() {
            writer.connection.busy_timeout(Duration::ZERO)?;
            writer.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        }
        Ok(())
    }
}

impl Storage for SqliteStorage {
    fn read(&self) -> Result<Box<dyn ReadTx + '_>, StorageError> {
        Ok(Box::new(Reading::begin(self.reader()?, &self.explain)?))
    }

    fn write(&self, durability: Durability) -> Result<Box<dyn WriteTx + '_>, StorageError> {
        self.checkpointer.iter().for_each(Checkpointer::catch_up);
        Ok(Box::new(self.begin(self.writer()?, durability, true)?))
    }

    fn try_write(&self) -> Result<Option<Box<dyn WriteTx + '_>>, StorageError> {
        if self.checkpointer.as_ref().is_some_and(Checkpointer::is_behind) {
            return Ok(None);
        }
        let Some(writer) = self.writer.lend_idle() else {
            return Ok(None);
        };
        match self.begin(writer, Durability::Normal, false) {
            Ok(transaction) => Ok(Some(Box::new(transaction))),
            Err(StorageError::Busy(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn sync_ahead(&self) {
        let Some(checkpointer) = &self.checkpointer else { return };
        for _ in 0..AHEAD {
            if !checkpointer.begin_sync() || self.options.sync(&self.wal_path).is_err() {
                // Whoever has to be sure syncs as well, and is told.
                return;
            }
        }
    }

    fn instance(&self) -> [u8; 32] {
        self.instance
    }

    fn size(&self) -> Result<u64, StorageError> {
        let length = |path: &Path| match fs::metadata(path) {
            Ok(metadata) => Ok(metadata.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(self.explain.io("looked up", &error)),
        };
        Ok(length(&self.path)? + length(&self.wal_path)?)
    }
}

impl Drop for SqliteStorage {
    fn drop(&mut self) {
        // Nothing is lost when it fails: whoever opens the file next reads the log.
        let _ = self.tidy();
    }
}

impl fmt::Debug for SqliteStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStorage")
            .field("path", &self.path)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

fn findings(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare(&format!("PRAGMA integrity_check({MAX_FINDINGS})"))?;
    statement.query_map([], |row| row.get(0))?.collect()
}

/// The path of a file that SQLite keeps beside `path`.
fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
