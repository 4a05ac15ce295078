//! A folder that is a directory. Every path is resolved below the root's descriptor without following symbolic links, so
//! that neither a peer nor a link swapped in at the wrong moment makes us read or write outside (I4).

use super::{Clock, DirEntry, FileSystem, Kind, NewFile, OpenFile, Stat};
use crate::path::RelPath;
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, ResolveFlags, Timespec, Timestamps,
};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// How often a resolution is tried again that something renamed under it disturbed.
const RESOLVE_TRIES: usize = 16;
const PERMISSIONS: u32 = 0o777;

/// The folder below one directory of the machine.
#[derive(Debug)]
pub struct RealFs {
    root: OwnedFd,
    /// Whether the kernel resolves paths for us (`openat2`, Linux 5.6); otherwise it is done step by step.
    openat2: AtomicBool,
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ns(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
    }
}

impl RealFs {
    /// The folder at `root`, which must be a directory. Only here are symbolic links followed.
    ///
    /// # Errors
    /// What the operating system reports.
    pub fn open_root(root: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(root, flags, Mode::empty())?;
        Ok(Self { root, openat2: AtomicBool::new(cfg!(target_os = "linux")) })
    }

    /// Opens `path` without following any link.
    fn resolve(&self, path: &RelPath, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if self.openat2.load(Ordering::Relaxed) {
            let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            for _ in 0..RESOLVE_TRIES {
                match rustix::fs::openat2(&self.root, path.as_os(), flags, mode, how) {
                    Err(Errno::AGAIN | Errno::INTR) => {}
                    // No such call, or a sandbox that does not know it.
                    Err(Errno::NOSYS | Errno::TOOBIG | Errno::PERM) => {
                        self.openat2.store(false, Ordering::Relaxed);
                        break;
                    }
                    result => return result,
                }
            }
        }
        self.step_by_step(path, flags, mode)
    }

    fn step_by_step(&self, path: &RelPath, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let mut dir: Option<OwnedFd> = None;
        let mut segments = path.as_bytes().split(|byte| *byte == b'/').peekable();
        while let Some(segment) = segments.next() {
            let at = dir.as_ref().unwrap_or(&self.root);
            if segments.peek().is_none() {
                return rustix::fs::openat(at, segment, flags, mode);
            }
            dir = Some(rustix::fs::openat(at, segment, DIRECTORY, Mode::empty())?);
        }
        Err(Errno::NOENT)
    }

    /// Does something to the last segment of `path` in the directory that contains it.
    fn at<T>(
        &self,
        path: &RelPath,
        act: impl FnOnce(BorrowedFd<'_>, &[u8]) -> Result<T, Errno>,
    ) -> io::Result<T> {
        let done = match path.parent() {
            None => act(self.root.as_fd(), path.name()),
            Some(parent) => {
                let dir = self.resolve(&parent, DIRECTORY, Mode::empty())?;
                act(dir.as_fd(), path.name())
            }
        };
        Ok(done?)
    }

    /// A descriptor of a directory (`None`: the root) that serves to name it.
    pub(crate) fn open_path(&self, dir: Option<&RelPath>) -> Result<OwnedFd, Errno> {
        match dir {
            None => rustix::fs::openat(&self.root, ".", DIRECTORY, Mode::empty()),
            Some(dir) => self.resolve(dir, DIRECTORY, Mode::empty()),
        }
    }

    /// Opens a directory for reading or syncing.
    fn open_dir(&self, dir: Option<&RelPath>) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match dir {
            None => rustix::fs::openat(&self.root, ".", flags, Mode::empty()),
            Some(dir) => self.resolve(dir, flags, Mode::empty()),
        }
    }
}

/// A directory on the way to something: no permission to list it is needed.
const DIRECTORY: OFlags =
    OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn stat_of(raw: &rustix::fs::Stat) -> Stat {
    let kind = match FileType::from_raw_mode(raw.st_mode) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Dir,
        FileType::Symlink => Kind::Symlink,
        _ => Kind::Other,
    };
    Stat {
        kind,
        mode: raw.st_mode & PERMISSIONS,
        inode: raw.st_ino,
        size: u64::try_from(raw.st_size).unwrap_or(0),
        mtime_ns: nanoseconds(raw.st_mtime, raw.st_mtime_nsec as i64),
        ctime_ns: nanoseconds(raw.st_ctime, raw.st_ctime_nsec as i64),
    }
}

fn nanoseconds(seconds: i64, nanos: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

fn only_mtime(mtime_ns: i64) -> Timestamps {
    let omit = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
    let (tv_sec, tv_nsec) =
        (mtime_ns.div_euclid(1_000_000_000), mtime_ns.rem_euclid(1_000_000_000));
    Timestamps { last_access: omit, last_modification: Timespec { tv_sec, tv_nsec: tv_nsec as _ } }
}

impl OpenFile for File {
    fn stat(&self) -> io::Result<Stat> {
        Ok(stat_of(&rustix::fs::fstat(self)?))
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }
}

impl NewFile for File {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        Write::write_all(self, bytes)
    }

    fn set_meta(&mut self, mode: u32, mtime_ns: i64) -> io::Result<()> {
        rustix::fs::fchmod(&*self, Mode::from_raw_mode(mode & PERMISSIONS))?;
        Ok(rustix::fs::futimens(&*self, &only_mtime(mtime_ns))?)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

impl FileSystem for RealFs {
    fn lstat(&self, path: &RelPath) -> io::Result<Stat> {
        self.at(path, |dir, name| {
            Ok(stat_of(&rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?))
        })
    }

    fn read_dir(&self, dir: Option<&RelPath>) -> io::Result<Vec<DirEntry>> {
        let mut dir = Dir::new(self.open_dir(dir)?)?;
        let mut entries = Vec::new();
        while let Some(entry) = dir.read() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            match rustix::fs::statat(dir.fd()?, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => {}
                stat => entries.push(DirEntry {
                    name: name.to_vec(),
                    stat: stat.map(|raw| stat_of(&raw)).map_err(Into::into),
                }),
            }
        }
        Ok(entries)
    }

    fn open(&self, path: &RelPath) -> io::Result<Box<dyn OpenFile + '_>> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        Ok(Box::new(File::from(self.resolve(path, flags, Mode::empty())?)))
    }

    fn read_link(&self, path: &RelPath) -> io::Result<Vec<u8>> {
        self.at(path, |dir, name| Ok(rustix::fs::readlinkat(dir, name, Vec::new())?.into_bytes()))
    }

    fn create_new(&self, path: &RelPath) -> io::Result<Box<dyn NewFile + '_>> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let file = self.resolve(path, flags, Mode::RUSR | Mode::WUSR)?;
        Ok(Box::new(File::from(file)))
    }

    fn rename(&self, from: &RelPath, to: &RelPath, replace: bool) -> io::Result<()> {
        self.at(from, |from_dir, from_name| {
            Ok(self.at(to, |to_dir, to_name| {
                if replace {
                    return rustix::fs::renameat(from_dir, from_name, to_dir, to_name);
                }
                let flags = RenameFlags::NOREPLACE;
                match rustix::fs::renameat_with(from_dir, from_name, to_dir, to_name, flags) {
                    // A file system that cannot check and rename in one step.
                    Err(Errno::INVAL | Errno::NOSYS) => {
                        match rustix::fs::statat(to_dir, to_name, AtFlags::SYMLINK_NOFOLLOW) {
                            Err(Errno::NOENT) => {
                                rustix::fs::renameat(from_dir, from_name, to_dir, to_name)
                            }
                            Ok(_) => Err(Errno::EXIST),
                            Err(error) => Err(error),
                        }
                    }
                    result => result,
                }
            }))
        })?
    }

    fn exchange(&self, a: &RelPath, b: &RelPath) -> io::Result<()> {
        self.at(a, |a_dir, a_name| {
            Ok(self.at(b, |b_dir, b_name| {
                let flags = RenameFlags::EXCHANGE;
                match rustix::fs::renameat_with(a_dir, a_name, b_dir, b_name, flags) {
                    Err(Errno::INVAL | Errno::NOSYS) => Err(Errno::OPNOTSUPP),
                    result => result,
                }
            }))
        })?
    }

    fn remove_file(&self, path: &RelPath) -> io::Result<()> {
        self.at(path, |dir, name| rustix::fs::unlinkat(dir, name, AtFlags::empty()))
    }

    fn make_dir(&self, path: &RelPath) -> io::Result<()> {
        self.at(path, |dir, name| rustix::fs::mkdirat(dir, name, Mode::RWXU))
    }

    fn remove_dir(&self, path: &RelPath) -> io::Result<()> {
        self.at(path, |dir, name| rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR))
    }

    fn symlink(&self, target: &[u8], path: &RelPath) -> io::Result<()> {
        self.at(path, |dir, name| rustix::fs::symlinkat(target, dir, name))
    }

    /// Bits of a directory beyond the permissions (a shared directory's set-group-id) stay as they are.
    fn set_mode(&self, path: &RelPath, mode: u32) -> io::Result<()> {
        // A descriptor made without asking for access can be taken of a file that may not be read; `/proc` turns it into
        // a path that names this very file, so that no link swapped in can be followed.
        let file = self.resolve(path, OFlags::PATH, Mode::empty())?;
        let raw = rustix::fs::fstat(&file)?;
        let kept = match FileType::from_raw_mode(raw.st_mode) {
            FileType::Directory => raw.st_mode & 0o7000,
            FileType::RegularFile => 0,
            _ => return Err(Errno::OPNOTSUPP.into()),
        };
        let mode = Mode::from_raw_mode(kept | mode & PERMISSIONS);
        let name = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        match rustix::fs::chmod(name.as_str(), mode) {
            Err(Errno::NOENT) => {
                let file = self.resolve(path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?;
                Ok(rustix::fs::fchmod(file, mode)?)
            }
            result => Ok(result?),
        }
    }

    fn set_mtime(&self, path: &RelPath, mtime_ns: i64) -> io::Result<()> {
        self.at(path, |dir, name| {
            rustix::fs::utimensat(dir, name, &only_mtime(mtime_ns), AtFlags::SYMLINK_NOFOLLOW)
        })
    }

    fn sync_dir(&self, dir: Option<&RelPath>) -> io::Result<()> {
        Ok(rustix::fs::fsync(self.open_dir(dir)?)?)
    }

    /// The root's descriptor is open for as long as the folder, and hears of every failed write since.
    fn sync_all(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.root)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A folder on a kernel that does not resolve paths for us.
    fn step_by_step(root: &Path) -> RealFs {
        let fs = RealFs::open_root(root).unwrap();
        fs.openat2.store(false, Ordering::Relaxed);
        fs
    }

    fn path(text: &str) -> RelPath {
        RelPath::new(text).unwrap()
    }

    #[test]
    fn without_help_of_the_kernel_paths_are_resolved_alike() {
        let dir = tempfile::tempdir().unwrap();
        let fs = step_by_step(dir.path());
        fs.make_dir(&path("a")).unwrap();
        fs.make_dir(&path("a/b")).unwrap();
        fs.create_new(&path("a/b/f")).unwrap().write_all(b"x").unwrap();
        assert_eq!(fs.lstat(&path("a/b/f")).unwrap().size, 1);
        assert_eq!(fs.open(&path("a/b/f")).unwrap().read_at(0, &mut [0; 2]).unwrap(), 1);
        assert_eq!(fs.read_dir(Some(&path("a/b"))).unwrap().len(), 1);
        assert!(fs.open(&path("a/b/f/x")).is_err());
    }

    #[test]
    fn without_help_of_the_kernel_no_link_is_followed_either() {
        let (outside, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir(outside.path().join("deep")).unwrap();
        std::fs::write(outside.path().join("deep/f"), "x").unwrap();
        symlink(outside.path(), dir.path().join("out")).unwrap();
        symlink(outside.path().join("deep/f"), dir.path().join("file")).unwrap();
        let fs = step_by_step(dir.path());
        for at in ["out/deep/f", "out/deep", "file"] {
            assert!(fs.open(&path(at)).is_err(), "{at}");
            assert!(fs.set_mode(&path(at), 0o600).is_err(), "{at}");
        }
        assert!(fs.create_new(&path("out/deep/g")).is_err());
        assert!(fs.read_dir(Some(&path("out"))).is_err());
        assert!(fs.read_dir(Some(&path("out/deep"))).is_err());
    }
}
