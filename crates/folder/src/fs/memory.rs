//! A folder in memory, for tests and the simulator: inodes, times from a clock of its own, and a hook before every
//! operation that can make it fail or change something behind its back. It can lose its power: see [`MemFs::lose_power`].

mod journal;

use super::{Clock, DirEntry, FileSystem, Kind, NewFile, OpenFile, Stat};
use crate::dirty::Dirty;
use crate::path::RelPath;
use journal::{Change, Journal, rename};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Bound;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A clock that only moves when told to.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that shows `now_ns`.
    #[must_use]
    pub fn at(now_ns: i64) -> Self {
        Self(AtomicI64::new(now_ns))
    }

    /// Moves the clock, backwards if `by_ns` is negative.
    pub fn advance(&self, by_ns: i64) {
        self.0.fetch_add(by_ns, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now_ns(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// An operation on a [`MemFs`], as its hook sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Asking what a path is, also for each name that a directory is read.
    Lstat,
    /// Reading a directory (the root shows up as no path).
    ReadDir,
    /// Opening a file.
    Open,
    /// Reading from an open file.
    Read,
    /// Reading a link.
    ReadLink,
    /// Creating a file.
    Create,
    /// Writing to a new file.
    Write,
    /// Bringing a new file to the disk.
    Sync,
    /// Renaming; the path is the one renamed from.
    Rename,
    /// Swapping two names; the path is the first.
    Exchange,
    /// Removing a file or directory.
    Remove,
    /// Making a directory.
    MakeDir,
    /// Making a link.
    Symlink,
    /// Setting mode or time.
    SetMeta,
    /// Bringing a directory to the disk.
    SyncDir,
    /// Bringing everything to the disk.
    SyncAll,
}

type Hook = Box<dyn FnMut(&MemFs, Op, Option<&RelPath>) -> io::Result<()> + Send>;

/// A folder in memory. Clones share it.
#[derive(Clone)]
pub struct MemFs {
    shared: Arc<Shared>,
}

struct Shared {
    clock: Arc<dyn Clock>,
    next_inode: AtomicU64,
    /// Every path but the root, by its bytes.
    names: Mutex<Names>,
    hook: Mutex<Option<Hook>>,
    /// What a loss of power leaves, if that is kept.
    journal: Mutex<Option<Journal>>,
    /// What changed since somebody asked.
    changed: Mutex<Dirty>,
}

type Names = BTreeMap<RelPath, Arc<Mutex<Inode>>>;

struct Inode {
    stat: Stat,
    /// Content of a file, target of a link.
    bytes: Vec<u8>,
    /// Whether a loss of power may take some of the content.
    unsynced: bool,
}

impl fmt::Debug for MemFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(lock(&self.shared.names).keys()).finish()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn error<T>(kind: io::ErrorKind) -> io::Result<T> {
    Err(kind.into())
}

impl MemFs {
    /// An empty folder whose times come from `clock`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let (names, hook, journal) = (Mutex::default(), Mutex::default(), Mutex::default());
        let next_inode = AtomicU64::new(1);
        let changed = Mutex::new(Dirty::Everything);
        Self { shared: Arc::new(Shared { clock, next_inode, names, hook, journal, changed }) }
    }

    /// What changed since this was called last, by whoever's hand; everything, when that is not known.
    #[must_use]
    pub fn take_changed(&self) -> Dirty {
        std::mem::take(&mut *lock(&self.shared.changed))
    }

    /// Says that something changed at `path`.
    fn mark(&self, path: &RelPath) {
        if !path.is_reserved() {
            lock(&self.shared.changed).add(path.clone());
        }
    }

    /// Calls `hook` before every operation. An error it returns is the operation's; what it does to the folder has
    /// happened before, without the hook seeing it.
    pub fn set_hook(
        &self,
        hook: impl FnMut(&Self, Op, Option<&RelPath>) -> io::Result<()> + Send + 'static,
    ) {
        *lock(&self.shared.hook) = Some(Box::new(hook));
    }

    /// Calls no hook any more.
    pub fn clear_hook(&self) {
        *lock(&self.shared.hook) = None;
    }

    /// Writes a file as a user's program does that opens it and writes: the inode stays if there is one.
    ///
    /// # Errors
    /// As a file system reports it: no parent, or a directory at `path`.
    pub fn write(&self, path: &RelPath, bytes: &[u8]) -> io::Result<()> {
        match self.inode(path) {
            Err(gone) if gone.kind() == io::ErrorKind::NotFound => {
                self.insert(path, Kind::File, 0o644, bytes)
            }
            Err(error) => Err(error),
            Ok(inode) => {
                let mut inode = lock(&inode);
                if inode.stat.kind != Kind::File {
                    return error(io::ErrorKind::IsADirectory);
                }
                inode.bytes = bytes.to_vec();
                inode.unsynced = true;
                inode.written(self.now());
                self.mark(path);
                Ok(())
            }
        }
    }

    /// The content of a file.
    ///
    /// # Errors
    /// As a file system reports it.
    pub fn read(&self, path: &RelPath) -> io::Result<Vec<u8>> {
        let inode = self.inode(path)?;
        let inode = lock(&inode);
        Ok(inode.bytes.clone())
    }

    /// Everything in the folder, sorted by path, with content or link target.
    #[must_use]
    pub fn tree(&self) -> BTreeMap<RelPath, (Stat, Vec<u8>)> {
        let copy = |(path, inode): (&RelPath, &Arc<Mutex<Inode>>)| {
            let inode = lock(inode);
            (path.clone(), (inode.stat, inode.bytes.clone()))
        };
        lock(&self.shared.names).iter().map(copy).collect()
    }

    /// Puts something that is neither file, directory nor link at `path`.
    ///
    /// # Errors
    /// As a file system reports it.
    pub fn make_special(&self, path: &RelPath) -> io::Result<()> {
        self.insert(path, Kind::Other, 0o644, &[])
    }

    fn now(&self) -> i64 {
        self.shared.clock.now_ns()
    }

    fn before(&self, op: Op, path: Option<&RelPath>) -> io::Result<()> {
        let hook = lock(&self.shared.hook).take();
        let Some(mut hook) = hook else { return Ok(()) };
        let result = hook(self, op, path);
        lock(&self.shared.hook).get_or_insert(hook);
        result
    }

    fn inode(&self, path: &RelPath) -> io::Result<Arc<Mutex<Inode>>> {
        self.check_parent(path)?;
        let names = lock(&self.shared.names);
        names.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn stat(&self, path: &RelPath) -> io::Result<Stat> {
        let inode = self.inode(path)?;
        let inode = lock(&inode);
        Ok(inode.stat)
    }

    fn check_parent(&self, path: &RelPath) -> io::Result<()> {
        match path.parent().map(|parent| lock(&self.shared.names).get(&parent).cloned()) {
            None => Ok(()),
            Some(None) => error(io::ErrorKind::NotFound),
            Some(Some(parent)) if lock(&parent).stat.kind == Kind::Dir => Ok(()),
            Some(Some(_)) => error(io::ErrorKind::NotADirectory),
        }
    }

    fn insert(&self, path: &RelPath, kind: Kind, mode: u32, bytes: &[u8]) -> io::Result<()> {
        self.check_parent(path)?;
        let now = self.now();
        let inode = self.shared.next_inode.fetch_add(1, Ordering::Relaxed);
        let size = bytes.len() as u64;
        let stat = Stat { kind, mode, inode, size, mtime_ns: now, ctime_ns: now };
        let mut names = lock(&self.shared.names);
        if names.contains_key(path) {
            return error(io::ErrorKind::AlreadyExists);
        }
        let unsynced = kind == Kind::File;
        let inode = Arc::new(Mutex::new(Inode { stat, bytes: bytes.to_vec(), unsynced }));
        names.insert(path.clone(), Arc::clone(&inode));
        drop(names);
        self.log(Change::Insert(path.clone(), inode));
        self.mark(path);
        self.touch_parent(path);
        Ok(())
    }

    fn touch_parent(&self, path: &RelPath) {
        if let Some(parent) = path.parent().and_then(|parent| self.inode(&parent).ok()) {
            let now = self.now();
            let mut parent = lock(&parent);
            (parent.stat.mtime_ns, parent.stat.ctime_ns) = (now, now);
        }
    }

    fn below(&self, dir: &RelPath) -> Vec<RelPath> {
        below(&lock(&self.shared.names), dir)
    }

    /// Whether something of `kind` may be renamed onto what is at `to`.
    fn check_replaced(&self, kind: Kind, to: &RelPath, replace: bool) -> io::Result<()> {
        let Ok(old) = self.inode(to) else { return Ok(()) };
        let old = lock(&old).stat.kind;
        match (kind, old) {
            _ if !replace => error(io::ErrorKind::AlreadyExists),
            (Kind::Dir, Kind::Dir) if self.below(to).is_empty() => Ok(()),
            (Kind::Dir, Kind::Dir) => error(io::ErrorKind::DirectoryNotEmpty),
            (Kind::Dir, _) => error(io::ErrorKind::NotADirectory),
            (_, Kind::Dir) => error(io::ErrorKind::IsADirectory),
            _ => Ok(()),
        }
    }

    fn remove(&self, path: &RelPath, dir: bool) -> io::Result<()> {
        self.before(Op::Remove, Some(path))?;
        let is_dir = self.stat(path)?.kind == Kind::Dir;
        match (dir, is_dir) {
            (true, false) => return error(io::ErrorKind::NotADirectory),
            (false, true) => return error(io::ErrorKind::IsADirectory),
            (true, true) if !self.below(path).is_empty() => {
                return error(io::ErrorKind::DirectoryNotEmpty);
            }
            _ => {}
        }
        lock(&self.shared.names).remove(path);
        self.log(Change::Remove(path.clone()));
        self.mark(path);
        self.touch_parent(path);
        Ok(())
    }
}

/// The names inside a directory, at any depth.
fn below(names: &Names, dir: &RelPath) -> Vec<RelPath> {
    names
        .range::<RelPath, _>((Bound::Excluded(dir), Bound::Unbounded))
        .map(|(path, _)| path)
        .take_while(|path| path.as_bytes().starts_with(dir.as_bytes()))
        .filter(|path| path.is_below(dir))
        .cloned()
        .collect()
}

impl Inode {
    fn written(&mut self, now: i64) {
        self.stat.size = self.bytes.len() as u64;
        (self.stat.mtime_ns, self.stat.ctime_ns) = (now, now);
    }
}

/// A file of a [`MemFs`] that is open.
struct Handle {
    fs: MemFs,
    path: RelPath,
    inode: Arc<Mutex<Inode>>,
}

impl OpenFile for Handle {
    fn stat(&self) -> io::Result<Stat> {
        Ok(lock(&self.inode).stat)
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.fs.before(Op::Read, Some(&self.path))?;
        let inode = lock(&self.inode);
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(inode.bytes.len());
        let len = buffer.len().min(inode.bytes.len() - start);
        buffer[..len].copy_from_slice(&inode.bytes[start..start + len]);
        Ok(len)
    }
}

impl NewFile for Handle {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.fs.before(Op::Write, Some(&self.path))?;
        let mut inode = lock(&self.inode);
        inode.bytes.extend_from_slice(bytes);
        inode.unsynced = true;
        inode.written(self.fs.now());
        Ok(())
    }

    fn set_meta(&mut self, mode: u32, mtime_ns: i64) -> io::Result<()> {
        self.fs.before(Op::SetMeta, Some(&self.path))?;
        let now = self.fs.now();
        let mut inode = lock(&self.inode);
        (inode.stat.mode, inode.stat.mtime_ns, inode.stat.ctime_ns) = (mode, mtime_ns, now);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.fs.before(Op::Sync, Some(&self.path))?;
        lock(&self.inode).unsynced = false;
        Ok(())
    }
}

impl FileSystem for MemFs {
    fn lstat(&self, path: &RelPath) -> io::Result<Stat> {
        self.before(Op::Lstat, Some(path))?;
        self.stat(path)
    }

    fn read_dir(&self, dir: Option<&RelPath>) -> io::Result<Vec<DirEntry>> {
        self.before(Op::ReadDir, dir)?;
        let paths = match dir {
            None => lock(&self.shared.names).keys().cloned().collect(),
            Some(dir) if self.stat(dir)?.kind == Kind::Dir => self.below(dir),
            Some(_) => return error(io::ErrorKind::NotADirectory),
        };
        let children = paths.into_iter().filter(|path| path.parent().as_ref() == dir);
        Ok(children
            .map(|path| DirEntry { name: path.name().to_vec(), stat: self.lstat(&path) })
            .collect())
    }

    fn open(&self, path: &RelPath) -> io::Result<Box<dyn OpenFile + '_>> {
        self.before(Op::Open, Some(path))?;
        Ok(Box::new(Handle { fs: self.clone(), path: path.clone(), inode: self.inode(path)? }))
    }

    fn read_link(&self, path: &RelPath) -> io::Result<Vec<u8>> {
        self.before(Op::ReadLink, Some(path))?;
        let inode = self.inode(path)?;
        let inode = lock(&inode);
        if inode.stat.kind == Kind::Symlink {
            Ok(inode.bytes.clone())
        } else {
            error(io::ErrorKind::InvalidInput)
        }
    }

    fn create_new(&self, path: &RelPath) -> io::Result<Box<dyn NewFile + '_>> {
        self.before(Op::Create, Some(path))?;
        self.insert(path, Kind::File, 0o600, &[])?;
        Ok(Box::new(Handle { fs: self.clone(), path: path.clone(), inode: self.inode(path)? }))
    }

    fn rename(&self, from: &RelPath, to: &RelPath, replace: bool) -> io::Result<()> {
        self.before(Op::Rename, Some(from))?;
        let inode = self.inode(from)?;
        let kind = lock(&inode).stat.kind;
        self.check_parent(to)?;
        if to.is_below(from) {
            return error(io::ErrorKind::InvalidInput);
        }
        self.check_replaced(kind, to, replace)?;
        rename(&mut lock(&self.shared.names), from, to)?;
        self.log(Change::Rename(from.clone(), to.clone()));
        self.mark(from);
        self.mark(to);
        lock(&inode).stat.ctime_ns = self.now();
        self.touch_parent(from);
        self.touch_parent(to);
        Ok(())
    }

    /// Swaps files and links; no directories.
    fn exchange(&self, a: &RelPath, b: &RelPath) -> io::Result<()> {
        self.before(Op::Exchange, Some(a))?;
        let (first, second) = (self.inode(a)?, self.inode(b)?);
        let now = self.now();
        let mut names = lock(&self.shared.names);
        for (path, inode) in [(a, second), (b, first)] {
            let mut stat = lock(&inode);
            if stat.stat.kind == Kind::Dir {
                return error(io::ErrorKind::IsADirectory);
            }
            stat.stat.ctime_ns = now;
            drop(stat);
            names.insert(path.clone(), inode);
        }
        drop(names);
        self.log(Change::Exchange(a.clone(), b.clone()));
        self.mark(a);
        self.mark(b);
        self.touch_parent(a);
        self.touch_parent(b);
        Ok(())
    }

    fn remove_file(&self, path: &RelPath) -> io::Result<()> {
        self.remove(path, false)
    }

    fn make_dir(&self, path: &RelPath) -> io::Result<()> {
        self.before(Op::MakeDir, Some(path))?;
        self.insert(path, Kind::Dir, 0o700, &[])
    }

    fn remove_dir(&self, path: &RelPath) -> io::Result<()> {
        self.remove(path, true)
    }

    fn symlink(&self, target: &[u8], path: &RelPath) -> io::Result<()> {
        self.before(Op::Symlink, Some(path))?;
        self.insert(path, Kind::Symlink, 0o777, target)
    }

    fn set_mode(&self, path: &RelPath, mode: u32) -> io::Result<()> {
        self.before(Op::SetMeta, Some(path))?;
        let (inode, now) = (self.inode(path)?, self.now());
        let mut inode = lock(&inode);
        (inode.stat.mode, inode.stat.ctime_ns) = (mode, now);
        self.mark(path);
        Ok(())
    }

    fn set_mtime(&self, path: &RelPath, mtime_ns: i64) -> io::Result<()> {
        self.before(Op::SetMeta, Some(path))?;
        let (inode, now) = (self.inode(path)?, self.now());
        let mut inode = lock(&inode);
        (inode.stat.mtime_ns, inode.stat.ctime_ns) = (mtime_ns, now);
        self.mark(path);
        Ok(())
    }

    fn sync_dir(&self, dir: Option<&RelPath>) -> io::Result<()> {
        self.before(Op::SyncDir, dir)?;
        if let Some(dir) = dir
            && self.stat(dir)?.kind != Kind::Dir
        {
            return error(io::ErrorKind::NotADirectory);
        }
        if let Some(journal) = &mut *lock(&self.shared.journal) {
            journal.sync(dir);
        }
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.before(Op::SyncAll, None)?;
        self.rest();
        Ok(())
    }
}
