//! The limits of one open database file, by name (I7, I10), and the file layer that it lives on.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

/// How a [`SqliteStorage`](super::SqliteStorage) uses its file. None of it is part of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Read transactions that may be open at once in this process; further ones wait. At least one. Default 8.
    pub readers: usize,
    /// How long to wait for a lock that another thread or process holds, and for a free read transaction. Default 30 s.
    pub busy_timeout: Duration,
    /// Bytes of pages that the writer keeps in memory for large transactions, which may be larger than that; for small ones no
    /// more than 2 MiB. Default 32 MiB.
    pub writer_cache: u32,
    /// Bytes of pages that each reader keeps in memory. Default 2 MiB.
    pub reader_cache: u32,
    /// Pages (4 KiB each) in the write-ahead log from which on it is moved into the file, beside further commits. At eight
    /// times as many these wait. Default 8,000.
    pub checkpoint_pages: u32,
    /// Whether that is done by a thread beside those who commit, or by the commit that made the log so long, as where what
    /// happens must be the same each time. Default: beside.
    pub checkpoint_beside: bool,
    /// Bytes to which the write-ahead log is cut when it starts anew; it grows beyond while a transaction needs it.
    /// Default 64 MiB.
    pub wal_keep: u32,
    /// The file layer between SQLite and the disk. Default: SQLite's own for the system.
    pub vfs: Option<Vfs>,
}

/// A file layer (SQLite calls it a VFS) in the place of the system's own, for tests on disks that fail.
#[derive(Debug, Clone, Copy)]
pub struct Vfs {
    /// What it is registered as with SQLite. Every connection is opened through it.
    pub name: &'static str,
    /// Makes a file, or the entries of a directory, durable where SQLite is not asked to.
    pub sync: fn(&Path) -> io::Result<()>,
}

/// Names are unique in a process.
impl PartialEq for Vfs {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Vfs {}

impl Default for Options {
    fn default() -> Self {
        Self {
            readers: 8,
            busy_timeout: Duration::from_secs(30),
            writer_cache: 32 << 20,
            reader_cache: 2 << 20,
            checkpoint_pages: 8_000,
            checkpoint_beside: true,
            wal_keep: 64 << 20,
            vfs: None,
        }
    }
}

impl Options {
    /// The only way in which connections come into being.
    pub(super) fn connect(
        &self,
        path: impl AsRef<Path>,
        flags: OpenFlags,
    ) -> rusqlite::Result<Connection> {
        match self.vfs {
            Some(vfs) => Connection::open_with_flags_and_vfs(path, flags, vfs.name),
            None => Connection::open_with_flags(path, flags),
        }
    }

    /// Makes a file, or the entries of a directory, durable.
    pub(super) fn sync(&self, path: &Path) -> io::Result<()> {
        match self.vfs {
            Some(vfs) => (vfs.sync)(path),
            None => File::open(path)?.sync_all(),
        }
    }
}
