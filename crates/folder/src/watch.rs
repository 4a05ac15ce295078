//! What changes in a folder, as the kernel tells it (`inotify`). It says where to look and never what is there: that is for the
//! scan to find out. Whatever is lost or cannot be watched is looked at as a whole.
//!
//! A directory is watched just before it is listed, so nothing happens in it that is neither seen nor told. One that was moved
//! is listed again under its new name, and its watch gets that name.

use crate::dirty::Dirty;
use crate::fs::RealFs;
use crate::path::RelPath;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, HashMap};
use std::io::{self, PipeReader, PipeWriter};
use std::mem::MaybeUninit;
use std::ops::Bound;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Bytes of events read at once.
const BUFFER: usize = 64 * 1024;

const MASK: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::EXCL_UNLINK)
    .union(WatchFlags::ONLYDIR);

/// Watches the directories of a folder, with a thread that waits for what the kernel tells.
pub(crate) struct Watcher {
    shared: Arc<Shared>,
    /// The thread ends when this is closed.
    _end: PipeWriter,
}

struct Shared {
    events: OwnedFd,
    fs: Arc<RealFs>,
    state: Mutex<State>,
    told: Notify,
}

#[derive(Default)]
struct State {
    /// The directory behind each watch; `None`: the root.
    dirs: HashMap<i32, Option<RelPath>>,
    /// The same by path; the root's is empty.
    watches: BTreeMap<Box<[u8]>, i32>,
    dirty: Dirty,
    /// Why something is not watched.
    blind: Option<Errno>,
}

fn bytes(dir: Option<&RelPath>) -> &[u8] {
    dir.map_or(&[], RelPath::as_bytes)
}

impl Watcher {
    /// Watches the root.
    ///
    /// # Errors
    /// What the system reports, above all that it has no more instances to give.
    pub(crate) fn new(fs: Arc<RealFs>) -> io::Result<Self> {
        let events = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let (ends, end) = io::pipe()?;
        let shared = Shared { events, fs, state: Mutex::default(), told: Notify::new() };
        let shared = Arc::new(shared);
        shared.watch(None)?;
        let waits = Arc::clone(&shared);
        std::thread::Builder::new().name("folder-watch".into()).spawn(move || waits.wait(&ends))?;
        Ok(Self { shared, _end: end })
    }

    /// Watches `dir` (`None`: the root), which is going to be listed. Where that is not possible, the listing tells why, or
    /// [`Self::blind`] does.
    pub(crate) fn enter(&self, dir: Option<&RelPath>) {
        match self.shared.watch(dir) {
            // It is no directory any more, or not to be read: the listing fails as well.
            Ok(()) | Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS | Errno::LOOP) => {}
            Err(error) => self.shared.state().blind = Some(error),
        }
    }

    /// Why some directory is not watched, if one is not.
    pub(crate) fn blind(&self) -> Option<io::Error> {
        self.shared.state().blind.map(Into::into)
    }

    /// What changed until now, since this was called last.
    pub(crate) fn take(&self) -> Dirty {
        self.shared.drain();
        let mut state = self.shared.state();
        let dirty = std::mem::take(&mut state.dirty);
        if state.blind.is_some() { Dirty::Everything } else { dirty }
    }

    /// Whether something has changed that was not taken yet.
    pub(crate) fn stirs(&self) -> bool {
        !self.shared.state().dirty.is_empty()
    }

    /// Waits until something has changed that was not taken yet. Nothing is lost if that is not waited for to the end.
    pub(crate) async fn changed(&self) {
        while self.shared.state().dirty.is_empty() {
            self.told().await;
        }
    }

    /// Waits until something is told.
    pub(crate) async fn told(&self) {
        self.shared.told.notified().await;
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self, dir: Option<&RelPath>) -> Result<(), Errno> {
        let open = self.fs.open_path(dir)?;
        // By way of the descriptor no link swapped in is followed.
        let name = format!("/proc/self/fd/{}", open.as_raw_fd());
        let watch = inotify::add_watch(&self.events, name.as_str(), MASK)?;
        self.state().watched(watch, dir);
        Ok(())
    }

    /// Reads what is told until the other end of `ends` is closed.
    fn wait(&self, ends: &PipeReader) {
        loop {
            let mut ready =
                [PollFd::new(&self.events, PollFlags::IN), PollFd::new(ends, PollFlags::IN)];
            match poll(&mut ready, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    self.state().blind = Some(error);
                    return;
                }
            }
            if !ready[1].revents().is_empty() {
                return;
            }
            self.drain();
            self.told.notify_one();
        }
    }

    /// Takes in all that was told.
    fn drain(&self) {
        let mut buffer = vec![MaybeUninit::uninit(); BUFFER];
        let mut reader = Reader::new(&self.events, &mut buffer);
        let mut state = self.state();
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().map(std::ffi::CStr::to_bytes);
                    state.happened(event.wd(), event.events(), name, |watch| {
                        // One that is gone by itself need not be taken away.
                        let _ = inotify::remove_watch(&self.events, watch);
                    });
                }
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Err(error) => {
                    (state.dirty, state.blind) = (Dirty::Everything, Some(error));
                    return;
                }
            }
        }
    }
}

impl State {
    fn watched(&mut self, watch: i32, dir: Option<&RelPath>) {
        let before = self.dirs.insert(watch, dir.cloned());
        if let Some(before) = before
            && before.as_ref() != dir
        {
            self.watches.remove(bytes(before.as_ref()));
        }
        if let Some(other) = self.watches.insert(bytes(dir).into(), watch)
            && other != watch
        {
            self.dirs.remove(&other);
        }
    }

    fn happened(
        &mut self,
        watch: i32,
        what: ReadFlags,
        name: Option<&[u8]>,
        unwatch: impl FnMut(i32),
    ) {
        if what.contains(ReadFlags::QUEUE_OVERFLOW) {
            self.dirty = Dirty::Everything;
            return;
        }
        let Some(dir) = self.dirs.get(&watch).cloned() else { return };
        if what.contains(ReadFlags::IGNORED) {
            self.dirs.remove(&watch);
            if self.watches.get(bytes(dir.as_ref())) == Some(&watch) {
                self.watches.remove(bytes(dir.as_ref()));
            }
            return;
        }
        let Some(name) = name else {
            // What happens to a directory its parent tells; the root has none.
            match dir {
                Some(dir) if what.contains(ReadFlags::UNMOUNT) => self.dirty.add(dir),
                Some(_) => {}
                None => self.dirty = Dirty::Everything,
            }
            return;
        };
        match RelPath::in_dir(dir.as_ref(), name) {
            Ok(path) if path.is_reserved() => {}
            Ok(path) => {
                if what.contains(ReadFlags::MOVED_FROM | ReadFlags::ISDIR) {
                    self.forget(&path, unwatch);
                }
                self.dirty.add(path);
            }
            // Too long a name: the scan will say so.
            Err(_) => match dir {
                Some(dir) => self.dirty.add(dir),
                None => self.dirty = Dirty::Everything,
            },
        }
    }

    /// A directory was moved away. If it went elsewhere in the folder, it is watched again when it is listed there.
    fn forget(&mut self, dir: &RelPath, mut unwatch: impl FnMut(i32)) {
        let below = [dir.as_bytes(), b"/"].concat();
        let inside = (Bound::Included(&below[..]), Bound::Unbounded);
        let inside = self.watches.range::<[u8], _>(inside);
        let mut gone: Vec<i32> = inside
            .take_while(|(path, _)| path.starts_with(&below))
            .map(|(_, watch)| *watch)
            .collect();
        gone.extend(self.watches.get(dir.as_bytes()));
        for watch in gone {
            if let Some(dir) = self.dirs.remove(&watch) {
                self.watches.remove(bytes(dir.as_ref()));
            }
            unwatch(watch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn path(text: &str) -> RelPath {
        RelPath::new(text).unwrap()
    }

    fn dirty(paths: &[&str]) -> Dirty {
        paths.iter().map(|at| path(at)).collect()
    }

    fn watching(dirs: &[&str]) -> (tempfile::TempDir, Watcher) {
        let root = tempfile::tempdir().unwrap();
        let fs = Arc::new(RealFs::open_root(root.path()).unwrap());
        let watcher = Watcher::new(fs).unwrap();
        for dir in dirs {
            fs::create_dir(root.path().join(dir)).unwrap();
            watcher.enter(Some(&path(dir)));
        }
        let _ = watcher.take();
        (root, watcher)
    }

    #[test]
    fn what_changes_is_told_by_its_path_and_once() {
        let (root, watcher) = watching(&["d", "d/e", ".anabranch"]);
        fs::write(root.path().join("d/e/f"), "x").unwrap();
        fs::write(root.path().join("top"), "x").unwrap();
        fs::create_dir(root.path().join(".anabranch/tmp")).unwrap();
        assert_eq!(watcher.take(), dirty(&["d/e/f", "top"]));
        assert!(watcher.take().is_empty());
        fs::remove_dir_all(root.path().join("d")).unwrap();
        assert!(watcher.take().covers(&path("d/e/f")));
        assert!(watcher.blind().is_none());
    }

    #[test]
    fn a_directory_that_moved_is_known_by_its_new_name_once_it_is_entered() {
        let (root, watcher) = watching(&["d", "d/e"]);
        fs::rename(root.path().join("d"), root.path().join("g")).unwrap();
        assert_eq!(watcher.take(), dirty(&["d", "g"]));
        for dir in ["g", "g/e"] {
            watcher.enter(Some(&path(dir)));
        }
        fs::write(root.path().join("g/e/f"), "x").unwrap();
        assert_eq!(watcher.take(), dirty(&["g/e/f"]));
        // Elsewhere it is nobody's concern.
        let elsewhere = tempfile::tempdir().unwrap();
        fs::rename(root.path().join("g"), elsewhere.path().join("g")).unwrap();
        assert_eq!(watcher.take(), dirty(&["g"]));
        fs::write(elsewhere.path().join("g/e/f"), "y").unwrap();
        assert!(watcher.take().is_empty());
    }

    #[test]
    fn where_word_of_changes_was_lost_or_is_not_to_be_had_everything_is_looked_at() {
        let (_root, watcher) = watching(&[]);
        watcher.shared.state().happened(-1, ReadFlags::QUEUE_OVERFLOW, None, |_| ());
        assert_eq!((watcher.take(), watcher.take()), (Dirty::Everything, Dirty::default()));
        watcher.enter(Some(&path("gone")));
        assert!(watcher.take().is_empty(), "the listing says that");
        watcher.shared.state().blind = Some(Errno::NOSPC);
        assert_eq!((watcher.take(), watcher.take()), (Dirty::Everything, Dirty::Everything));
    }
}
