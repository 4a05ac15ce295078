//! What scanner and applier need of a file system and a clock, and no more, so that a simulator can be one (I8's idea,
//! for a crate that does touch the disk). [`RealFs`] is a directory, [`MemFs`] is memory.
//!
//! All paths are inside the folder, and no implementation follows a symbolic link anywhere on the way or at the end.

mod memory;
mod real;

pub use memory::{ManualClock, MemFs, Op};
pub use real::{RealFs, SystemClock};

use crate::path::RelPath;
use std::collections::BTreeSet;
use std::io;

/// What kind of thing a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// Anything else: a socket, a pipe, a device. Never synced.
    Other,
}

/// What the file system says about a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Its kind.
    pub kind: Kind,
    /// Permission bits (`& 0o777`).
    pub mode: u32,
    /// The inode number.
    pub inode: u64,
    /// Bytes of content.
    pub size: u64,
    /// When the content last changed, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// When anything last changed, in nanoseconds since 1970.
    pub ctime_ns: i64,
}

/// One name in a directory.
#[derive(Debug)]
pub struct DirEntry {
    /// The name, never `.` or `..`.
    pub name: Vec<u8>,
    /// What it is, if the file system says.
    pub stat: io::Result<Stat>,
}

/// A file open for reading. It stays the same file whatever happens to its path.
pub trait OpenFile: Send {
    /// What the file is now.
    ///
    /// # Errors
    /// What the file system reports.
    fn stat(&self) -> io::Result<Stat>;

    /// Reads some bytes at `offset`; 0 at the end.
    ///
    /// # Errors
    /// What the file system reports.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
}

/// A file that was just created, open for writing.
pub trait NewFile: Send {
    /// Appends bytes.
    ///
    /// # Errors
    /// What the file system reports, a full disk above all.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Sets permission bits and modification time.
    ///
    /// # Errors
    /// What the file system reports.
    fn set_meta(&mut self, mode: u32, mtime_ns: i64) -> io::Result<()>;

    /// Brings content and metadata to the disk.
    ///
    /// # Errors
    /// What the file system reports.
    fn sync(&mut self) -> io::Result<()>;
}

/// A folder on some file system. A directory given as `None` is the folder's root.
pub trait FileSystem: Send + Sync {
    /// What `path` is.
    ///
    /// # Errors
    /// What the file system reports; [`io::ErrorKind::NotFound`] when there is nothing.
    fn lstat(&self, path: &RelPath) -> io::Result<Stat>;

    /// The names in a directory, in any order.
    ///
    /// # Errors
    /// What the file system reports.
    fn read_dir(&self, dir: Option<&RelPath>) -> io::Result<Vec<DirEntry>>;

    /// Opens a regular file for reading, without waiting for anybody.
    ///
    /// # Errors
    /// What the file system reports.
    fn open(&self, path: &RelPath) -> io::Result<Box<dyn OpenFile + '_>>;

    /// Where a symbolic link points.
    ///
    /// # Errors
    /// What the file system reports.
    fn read_link(&self, path: &RelPath) -> io::Result<Vec<u8>>;

    /// Creates a file that only its owner can read, where there is nothing.
    ///
    /// # Errors
    /// What the file system reports; [`io::ErrorKind::AlreadyExists`] when there is something.
    fn create_new(&self, path: &RelPath) -> io::Result<Box<dyn NewFile + '_>>;

    /// Renames. What is at `to` is replaced if `replace`, otherwise an error.
    ///
    /// # Errors
    /// What the file system reports; [`io::ErrorKind::AlreadyExists`] when `to` is taken and not to be replaced.
    fn rename(&self, from: &RelPath, to: &RelPath, replace: bool) -> io::Result<()>;

    /// Lets two names swap what they name, in one step.
    ///
    /// # Errors
    /// What the file system reports; [`io::ErrorKind::Unsupported`] when it cannot do that at all.
    fn exchange(&self, a: &RelPath, b: &RelPath) -> io::Result<()>;

    /// Removes a file, symbolic link or special file.
    ///
    /// # Errors
    /// What the file system reports.
    fn remove_file(&self, path: &RelPath) -> io::Result<()>;

    /// Creates a directory that only its owner can use.
    ///
    /// # Errors
    /// What the file system reports.
    fn make_dir(&self, path: &RelPath) -> io::Result<()>;

    /// Removes an empty directory.
    ///
    /// # Errors
    /// What the file system reports; [`io::ErrorKind::DirectoryNotEmpty`] when something is in it.
    fn remove_dir(&self, path: &RelPath) -> io::Result<()>;

    /// Creates a symbolic link where there is nothing.
    ///
    /// # Errors
    /// What the file system reports.
    fn symlink(&self, target: &[u8], path: &RelPath) -> io::Result<()>;

    /// Sets the permission bits of a file or directory.
    ///
    /// # Errors
    /// What the file system reports.
    fn set_mode(&self, path: &RelPath, mode: u32) -> io::Result<()>;

    /// Sets the modification time of a file.
    ///
    /// # Errors
    /// What the file system reports.
    fn set_mtime(&self, path: &RelPath, mtime_ns: i64) -> io::Result<()>;

    /// Brings the names in a directory to the disk.
    ///
    /// # Errors
    /// What the file system reports.
    fn sync_dir(&self, dir: Option<&RelPath>) -> io::Result<()>;

    /// Brings everything to the disk that was written to the folder until now: contents, modes, times and names.
    ///
    /// # Errors
    /// What the file system reports; then nothing is known to be there.
    fn sync_all(&self) -> io::Result<()>;
}

/// Tells the time.
pub trait Clock: Send + Sync {
    /// Nanoseconds since 1970, UTC.
    fn now_ns(&self) -> i64;
}

/// So many things are brought to the disk one by one; more at once, together with whatever else is under way there.
pub(crate) const FEW: usize = 64;

/// Whether there is certainly nothing at `path`: no such name, or something above it that is no directory. Links are not
/// followed, so one of these may be such a thing.
pub(crate) fn is_absent(fs: &dyn FileSystem, path: &RelPath) -> bool {
    let is_other = |dir: RelPath| fs.lstat(&dir).is_ok_and(|stat| stat.kind != Kind::Dir);
    match fs.lstat(path) {
        Ok(_) => false,
        Err(e) => e.kind() == io::ErrorKind::NotFound || path.ancestors().any(is_other),
    }
}

/// Brings the names in directories to the disk. Returns those where that failed.
pub(crate) fn sync_all_names(
    fs: &dyn FileSystem,
    dirs: BTreeSet<Option<RelPath>>,
) -> Vec<(Option<RelPath>, io::Error)> {
    if dirs.len() > FEW && fs.sync_all().is_ok() {
        return Vec::new();
    }
    let one = |dir: Option<RelPath>| Some((sync_names(fs, dir.as_ref()).err()?, dir));
    dirs.into_iter().filter_map(one).map(|(error, dir)| (dir, error)).collect()
}

/// Brings the names in a directory to the disk, if it is there and a directory still.
pub(crate) fn sync_names(fs: &dyn FileSystem, dir: Option<&RelPath>) -> io::Result<()> {
    let is_gone = |dir: &RelPath| match fs.lstat(dir) {
        Ok(stat) => stat.kind != Kind::Dir,
        Err(_) => is_absent(fs, dir),
    };
    let was_gone =
        |e: &io::Error| matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
    match (fs.sync_dir(dir), dir) {
        // Whatever stands there by now.
        (Err(e), Some(_)) if was_gone(&e) => Ok(()),
        (Err(_), Some(dir)) if is_gone(dir) => Ok(()),
        (result, _) => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// Between the two looks anything may happen.
    #[test]
    fn a_directory_that_comes_back_while_it_is_synced_is_no_error() {
        let fs = MemFs::new(Arc::new(ManualClock::at(1_000_000_000_000)));
        let dir = RelPath::new("d").unwrap();
        fs.set_hook(|fs, op, path| match (op, path) {
            (Op::Lstat, Some(dir)) => fs.make_dir(dir),
            _ => Ok(()),
        });
        sync_names(&fs, Some(&dir)).unwrap();
        fs.clear_hook();
        let _ = fs.make_dir(&dir);
        fs.set_hook(|_, op, _| match op {
            Op::SyncDir => Err(io::Error::other("broken")),
            _ => Ok(()),
        });
        assert!(sync_names(&fs, Some(&dir)).is_err(), "it may not be on the disk");
    }
}
