//! The folder of a simulated node: its files, and what goes wrong with them. What brings them in step with the database is
//! the product's own code.

use crate::clock::{Surroundings, Time};
use crate::disk::Switch;
use crate::files::{Contents, Deed};
use anabranch_core::blob::ChunkHash;
use anabranch_folder::dirty::Dirty;
use anabranch_folder::fs::{Clock, MemFs, Op};
use anabranch_folder::path::RelPath;
use anabranch_folder::{Fetch, Fetched, FolderError, Site, Updated};
use anabranch_node::{Environment, Replica};
use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

/// The clock of files: a node's clock as it ticks in its file system.
#[derive(Debug)]
struct FileClock {
    surroundings: Arc<Surroundings>,
    tick_ns: i64,
}

impl Clock for FileClock {
    fn now_ns(&self) -> i64 {
        let now = i64::try_from(self.surroundings.now().0).unwrap_or(i64::MAX);
        let now = now.saturating_mul(1_000);
        now - now % self.tick_ns
    }
}

/// What happens in the middle of the next update.
#[derive(Debug, Clone)]
pub enum Amid {
    /// It dies.
    Halt {
        /// Changes to the files until then.
        changes: u32,
        /// Whether what was not synced is lost.
        power: bool,
        /// How long it is away.
        down: Time,
    },
    /// The user acts.
    User {
        /// Operations on the files until then.
        ops: u32,
        /// What they do.
        deed: Deed,
    },
}

/// A peer's blobs are waited for.
#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    /// The version that the update began with.
    pub version: u64,
}

/// A folder.
#[derive(Debug)]
pub struct FolderSite {
    /// Its files.
    pub fs: MemFs,
    clock: FileClock,
    /// Whether no more fits on its disk.
    pub full: bool,
    /// What its process has to look at beside what changes.
    dirty: Dirty,
    /// A path that cannot be looked at.
    pub unreadable: Option<RelPath>,
    /// What is to go wrong next.
    pub amid: Option<Amid>,
    /// The version of the replica that was last looked at.
    pub seen: u64,
    /// Whether it is to be looked at though nothing arrived.
    pub due: bool,
    /// Whether somebody will look soon.
    pub scheduled: bool,
    /// Whether its first update since it was started is to come before it hears of anybody.
    pub first: bool,
    /// Set while an update waits for content.
    pub waiting: Option<Waiting>,
    /// What it waits for.
    pub wants: BTreeSet<ChunkHash>,
}

/// How an update went.
#[derive(Debug)]
pub struct Run {
    /// What it says of itself.
    pub result: Result<Updated, FolderError>,
    /// Content that it lacks.
    pub wants: BTreeSet<ChunkHash>,
    /// If it was halted: whether by a loss of power, and how long the node is away.
    pub halted: Option<(bool, Time)>,
    /// Whether anything was made to go wrong.
    pub troubled: bool,
}

/// Asks and does not wait: the update is repeated when something has come.
struct Asked(BTreeSet<ChunkHash>);

impl Fetch for Asked {
    fn fetch(&mut self, hashes: BTreeSet<ChunkHash>) -> Fetched {
        self.0.extend(hashes);
        Fetched::Nothing
    }
}

fn ticking(surroundings: &Arc<Surroundings>, tick_ns: i64) -> FileClock {
    FileClock { surroundings: Arc::clone(surroundings), tick_ns }
}

impl FolderSite {
    /// An empty folder on a file system whose times have gaps of `tick_ns`.
    #[must_use]
    pub fn new(surroundings: &Arc<Surroundings>, tick_ns: i64) -> Self {
        let fs = MemFs::new(Arc::new(ticking(surroundings, tick_ns)));
        fs.keep_journal();
        Self::holding(fs, surroundings)
    }

    fn holding(fs: MemFs, surroundings: &Arc<Surroundings>) -> Self {
        Self {
            fs,
            clock: ticking(surroundings, 1_000),
            full: false,
            dirty: Dirty::Everything,
            unreadable: None,
            amid: None,
            seen: 0,
            due: false,
            scheduled: false,
            first: false,
            waiting: None,
            wants: BTreeSet::new(),
        }
    }

    /// Another folder with the same files.
    #[must_use]
    pub fn copy(&self, surroundings: &Arc<Surroundings>) -> Self {
        Self::holding(self.fs.copy(), surroundings)
    }

    /// Its process starts.
    pub fn start(&mut self, replica: &Replica, new: bool) {
        replica.attach_worker();
        self.seen = *replica.versions().borrow();
        (self.first, self.due, self.scheduled) = (!new, !new, false);
        self.dirty = Dirty::Everything;
        self.waiting = None;
        self.wants.clear();
    }

    /// One update by the product's code, with whatever is to go wrong.
    pub fn update(
        &mut self,
        replica: &Arc<Replica>,
        contents: &Arc<Mutex<Contents>>,
        switch: Switch,
    ) -> Run {
        let halted = Arc::new(Mutex::new(None));
        let amid = Arc::new(Mutex::new(self.amid.take()));
        let troubled = self.full || self.unreadable.is_some();
        if troubled || lock(&amid).is_some() {
            let (full, unreadable) = (self.full, self.unreadable.clone());
            let (halted, amid) = (Arc::clone(&halted), Arc::clone(&amid));
            let contents = Arc::clone(contents);
            self.fs.set_hook(move |fs, op, path| {
                if path.is_some() && path == unreadable.as_ref() {
                    return Err(io::ErrorKind::PermissionDenied.into());
                }
                if full && grows(op) {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                let mut amid = lock(&amid);
                match &mut *amid {
                    Some(Amid::Halt { changes: 0, power, down }) => {
                        *lock(&halted) = Some((*power, *down));
                        switch.off();
                        return Err(io::Error::other("the machine is off"));
                    }
                    Some(Amid::Halt { changes, .. }) if changes_disk(op) => *changes -= 1,
                    Some(Amid::User { ops: 0, deed }) => {
                        // What a user cannot do now is not done.
                        let _ = lock(&contents).act(fs, deed);
                        *amid = None;
                    }
                    Some(Amid::User { ops, .. }) => *ops -= 1,
                    Some(Amid::Halt { .. }) | None => {}
                }
                Ok(())
            });
        }
        let mut asked = Asked(BTreeSet::new());
        self.dirty.join(self.fs.take_changed());
        let dirty = std::mem::take(&mut self.dirty);
        let site =
            Site { replica, fs: &self.fs, clock: &self.clock, tell: &|_| (), entering: &|_| () };
        let result = site.update(&dirty, &mut asked);
        self.dirty = match &result {
            Ok(updated) => updated.dirty.clone(),
            Err(_) => Dirty::Everything,
        };
        self.fs.clear_hook();
        let halted = *lock(&halted);
        let left = lock(&amid).take();
        self.amid = left.filter(|_| halted.is_none());
        Run { result, wants: asked.0, halted, troubled }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn grows(op: Op) -> bool {
    matches!(op, Op::Create | Op::Write | Op::MakeDir | Op::Symlink)
}

fn changes_disk(op: Op) -> bool {
    !matches!(op, Op::Lstat | Op::ReadDir | Op::Open | Op::Read | Op::ReadLink)
}
