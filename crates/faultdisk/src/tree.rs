//! Real files under a directory: read all, and put back in place. Only for files that nobody has open: on POSIX systems
//! closing a descriptor gives up the locks that the process holds on the file.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::error::DiskError;

/// The bytes of files, by path.
pub(crate) type Files = BTreeMap<PathBuf, Vec<u8>>;

/// Every regular file under `root`, in order. Not those with the index of a log, which are memory.
pub(crate) fn list(root: &Path) -> Result<Vec<PathBuf>, DiskError> {
    let mut found = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).map_err(DiskError::at(&directory))? {
            let entry = entry.map_err(DiskError::at(&directory))?;
            let kind = entry.file_type().map_err(DiskError::at(&directory))?;
            if kind.is_dir() {
                directories.push(entry.path());
            } else if kind.is_file() && !is_index(&entry.path()) {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, DiskError> {
    fs::read(path).map_err(DiskError::at(path))
}

/// Makes the file hold these bytes; one that is there stays the same file.
pub(crate) fn put(path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
    let write = || {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options.open(path)?.write_all(bytes)
    };
    write().map_err(DiskError::at(path))
}

/// Removes the file if it is there.
pub(crate) fn remove(path: &Path) -> Result<(), DiskError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(DiskError::at(path)(error)),
        _ => Ok(()),
    }
}

/// Removes the index of the log of this database; it is stale when the machine starts again.
pub(crate) fn remove_index(database: &Path) -> Result<(), DiskError> {
    remove(&index_of(database))
}

/// Where the index of the log of this database is.
pub(crate) fn index_of(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push("-shm");
    name.into()
}

fn is_index(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(b"-shm")
}
