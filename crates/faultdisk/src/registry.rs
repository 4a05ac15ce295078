//! The disks of this process, found by path.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::drive::Drive;
use crate::error::DiskError;

static DRIVES: Mutex<Vec<Weak<Drive>>> = Mutex::new(Vec::new());

/// Adds a disk whose directory has nothing to do with that of another.
pub(crate) fn add(drive: &Arc<Drive>) -> Result<(), DiskError> {
    let mut drives = drives();
    drives.retain(|known| known.strong_count() > 0);
    let root = drive.root();
    let overlaps =
        |known: &Arc<Drive>| known.root().starts_with(root) || root.starts_with(known.root());
    if drives.iter().filter_map(Weak::upgrade).any(|known| overlaps(&known)) {
        return Err(DiskError::Overlaps(root.to_owned()));
    }
    drives.push(Arc::downgrade(drive));
    Ok(())
}

/// The disk that holds `path`, which is absolute and has no symbolic links in it.
pub(crate) fn find(path: &Path) -> Option<Arc<Drive>> {
    drives().iter().filter_map(Weak::upgrade).find(|drive| path.starts_with(drive.root()))
}

/// Makes a file, or the entries of a directory, durable, for programs that sync beside SQLite. Path as for SQLite: absolute,
/// without symbolic links. What lies on no disk is synced for real.
///
/// # Errors
/// Those of the real files, and those that a fault of the disk asks for.
pub fn sync(path: &Path) -> io::Result<()> {
    match find(path) {
        Some(drive) => drive.sync_path(path),
        None => File::open(path)?.sync_all(),
    }
}

fn drives() -> MutexGuard<'static, Vec<Weak<Drive>>> {
    DRIVES.lock().unwrap_or_else(PoisonError::into_inner)
}
