//! A consistent copy of a database in a new file.

use std::fs;
use std::io;
use std::path::Path;

use anabranch_core::storage::StorageError;
use rusqlite::Connection;

use super::explain::Explain;
use super::open::{create_private, sync_directory_of};
use super::options::Options;
use super::with_suffix;

/// Copies the newest state that `connection` can see into `target`, which must not exist.
///
/// The copy is written under another name first, so that the target is empty until it is whole.
pub(super) fn write(
    connection: &Connection,
    target: &Path,
    options: &Options,
    source: &Explain,
) -> Result<(), StorageError> {
    let failed = |error: io::Error| explain(target, &error);
    create_private(target).map_err(failed)?;
    // Absolute, because SQLite takes what starts with `file:` for a URI.
    let target = target.canonicalize().map_err(failed)?;
    let partial = with_suffix(&target, &format!(".partial-{}", std::process::id()));
    let written = create_private(&partial)
        .map_err(failed)
        .and_then(|()| copy(connection, &partial, source))
        .and_then(|()| put_in_place(&partial, &target, options).map_err(failed));
    if written.is_err() {
        for leftover in [&with_suffix(&partial, "-journal"), &partial, &target] {
            // Most of them are not there.
            let _ = fs::remove_file(leftover);
        }
    }
    written
}

fn copy(connection: &Connection, partial: &Path, source: &Explain) -> Result<(), StorageError> {
    let name = partial.to_str().ok_or_else(|| {
        StorageError::Io(format!("{} is not UTF-8; name another file", partial.display()))
    })?;
    connection.execute("VACUUM INTO ?1", [name]).map(drop).map_err(|error| source.sqlite(error))
}

fn put_in_place(partial: &Path, target: &Path, options: &Options) -> io::Result<()> {
    options.sync(partial)?;
    fs::rename(partial, target)?;
    sync_directory_of(target, options)
}

fn explain(target: &Path, error: &io::Error) -> StorageError {
    match error.kind() {
        io::ErrorKind::AlreadyExists => {
            StorageError::Io(format!("{} exists already; name another file", target.display()))
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StorageError::Full,
        _ => StorageError::Io(format!("{} could not be written: {error}", target.display())),
    }
}
