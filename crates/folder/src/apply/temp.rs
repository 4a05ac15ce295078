//! Files and directories that have no name of the user's yet, or none at the moment: all of them in one directory,
//! `.anabranch/tmp`.

use crate::fs::{FileSystem, Kind};
use crate::path::{RelPath, STATE_DIR};
use std::io;

const TEMP_DIR: &[u8] = b"tmp";

fn state_dir() -> io::Result<RelPath> {
    RelPath::new(STATE_DIR).map_err(io::Error::other)
}

fn temp_dir() -> io::Result<RelPath> {
    RelPath::in_dir(Some(&state_dir()?), TEMP_DIR).map_err(io::Error::other)
}

pub(super) fn make_temp_dir(fs: &dyn FileSystem) -> io::Result<()> {
    for dir in [state_dir()?, temp_dir()?] {
        match fs.make_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => result?,
        }
    }
    Ok(())
}

/// Removes what a crash left among the temporary files and directories. To be called while nobody applies anything to this folder.
///
/// # Errors
/// What the file system reports.
pub fn clear_temp(fs: &dyn FileSystem) -> io::Result<()> {
    let dir = temp_dir()?;
    let entries = match fs.read_dir(Some(&dir)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = RelPath::in_dir(Some(&dir), &entry.name).map_err(io::Error::other)?;
        match entry.stat?.kind {
            Kind::Dir => fs.remove_dir(&path)?,
            _ => fs.remove_file(&path)?,
        }
    }
    Ok(())
}

/// Makes names for temporary files. Whoever creates one insists that it is new.
#[derive(Debug, Default)]
pub(super) struct TempNames {
    next: u64,
}

impl TempNames {
    /// A name that was not used in this run. Something of an earlier one may have it.
    pub(super) fn fresh(&mut self) -> io::Result<RelPath> {
        self.next += 1;
        let name = self.next.to_string();
        RelPath::in_dir(Some(&temp_dir()?), name.as_bytes()).map_err(io::Error::other)
    }

    /// Creates something under a new name.
    pub(super) fn create<T>(
        &mut self,
        mut create: impl FnMut(&RelPath) -> io::Result<T>,
    ) -> io::Result<(RelPath, T)> {
        loop {
            let path = self.fresh()?;
            match create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                result => return result.map(|made| (path, made)),
            }
        }
    }
}
