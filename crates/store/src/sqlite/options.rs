//! The limits of one open database file, by name (I7, I10).

use std::time::Duration;

/// How a [`SqliteStorage`](super::SqliteStorage) uses its file. None of it is part of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Read transactions that may be open at once in this process; further ones wait. At least one. Default 8.
    pub readers: usize,
    /// How long to wait for a lock that another thread or process holds, and for a free read transaction. Default 30 s.
    pub busy_timeout: Duration,
    /// Bytes of pages that the writer keeps in memory. A transaction may be larger. Default 32 MiB.
    pub writer_cache: u32,
    /// Bytes of pages that each reader keeps in memory. Default 2 MiB.
    pub reader_cache: u32,
    /// Pages (4 KiB each) in the write-ahead log from which a commit moves it into the file. Default 4,000.
    pub checkpoint_pages: u32,
    /// Bytes to which the write-ahead log is cut when it starts anew; it grows beyond while a transaction needs it.
    /// Default 64 MiB.
    pub wal_keep: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            readers: 8,
            busy_timeout: Duration::from_secs(30),
            writer_cache: 32 << 20,
            reader_cache: 2 << 20,
            checkpoint_pages: 4_000,
            wal_keep: 64 << 20,
        }
    }
}
