//! What can be wrong with a request to a disk. What goes wrong on the disk itself, SQLite is told.

use std::io;
use std::path::{Path, PathBuf};

/// Why a disk could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// Connections have files of the disk open.
    #[error("{0} files of the disk are open; drop every connection to them first")]
    Open(usize),
    /// The power is off.
    #[error("the power of the disk is off; recover it first")]
    Off,
    /// A directory is one disk and not part of another.
    #[error("{0} is, holds, or lies in the directory of another disk")]
    Overlaps(PathBuf),
    /// SQLite did not take the file layer.
    #[error("SQLite refused the file layer of the disk (code {0})")]
    Unregistered(i32),
    /// The real file system failed.
    #[error("{path}: {source}")]
    Io {
        /// The real file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl DiskError {
    /// For `map_err`: the error of a request about `path`.
    pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}
