//! From what SQLite and the operating system report to a [`StorageError`] that a user understands.

use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use anabranch_core::storage::StorageError;
use rusqlite::{ErrorCode, ffi};

/// What an explanation needs to know of the database concerned.
#[derive(Debug, Clone)]
pub(super) struct Explain {
    /// The path as the user wrote it.
    shown: String,
    busy_timeout: Duration,
}

impl Explain {
    pub(super) fn new(path: &Path, busy_timeout: Duration) -> Self {
        Self { shown: path.display().to_string(), busy_timeout }
    }

    pub(super) fn path(&self) -> String {
        self.shown.clone()
    }

    pub(super) fn sqlite(&self, error: rusqlite::Error) -> StorageError {
        let Some(cause) = error.sqlite_error() else {
            return StorageError::Io(format!("{}: {error}", self.shown));
        };
        match (cause.code, cause.extended_code) {
            // When the index of the log cannot grow, SQLite says so in this way.
            (ErrorCode::DiskFull, _) | (_, ffi::SQLITE_IOERR_SHMSIZE) => StorageError::Full,
            (
                ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::FileLockingProtocolFailed,
                _,
            ) => StorageError::Busy(self.busy_timeout.as_secs()),
            (ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase, _)
            | (
                _,
                // The statements are fixed and fit the tables, so only a file that is not as it was made fails them.
                ffi::SQLITE_ERROR
                | ffi::SQLITE_CONSTRAINT
                | ffi::SQLITE_IOERR_SHORT_READ
                | ffi::SQLITE_IOERR_DATA
                | ffi::SQLITE_IOERR_CORRUPTFS,
            ) => self.corrupt(error),
            (ErrorCode::ReadOnly, _) => self.unwritable(),
            (ErrorCode::CannotOpen | ErrorCode::PermissionDenied, _) => StorageError::Io(format!(
                "{} cannot be opened; check the permissions of the file and its directory ({error})",
                self.shown
            )),
            _ => StorageError::Io(format!("{}: {error}", self.shown)),
        }
    }

    pub(super) fn corrupt(&self, what: impl fmt::Display) -> StorageError {
        StorageError::Corrupt(format!("{}: {what}", self.shown))
    }

    pub(super) fn unwritable(&self) -> StorageError {
        StorageError::Io(format!(
            "{} cannot be written; check the permissions of the file and its directory",
            self.shown
        ))
    }

    /// `done` is what could not be done, as a participle: "looked up".
    pub(super) fn io(&self, done: &str, error: &io::Error) -> StorageError {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StorageError::Full,
            _ => StorageError::Io(format!("{} could not be {done}: {error}", self.shown)),
        }
    }
}
