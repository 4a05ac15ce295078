//! A disk as tests see it: the faults to come, and what is done to it while nobody has it open.

use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::drive::Drive;
use crate::error::DiskError;
use crate::state::{Ending, State};
use crate::statistics::Statistics;
use crate::{registry, tree, vfs};

/// A directory whose SQLite files fail as they would on a disk that does. Clones are the same disk.
///
/// The directory is not removed when the disk is dropped; what it holds then is what was written, synced or not.
#[derive(Debug, Clone)]
pub struct Disk(Arc<Drive>);

/// A copy of all files of a disk, from [`Disk::snapshot`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot(tree::Files);

/// A bit that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flip {
    /// The file.
    pub path: PathBuf,
    /// The byte, counted from the start of the file.
    pub offset: usize,
    /// The bit: 0 is the lowest.
    pub bit: u8,
}

impl Disk {
    /// Makes a disk of `directory`, which is created if there is none. Files that are there already are safe on it.
    ///
    /// # Errors
    /// [`DiskError::Overlaps`] when another disk of this process has the directory, and whatever the system reports.
    pub fn new(directory: impl AsRef<Path>, seed: u64) -> Result<Self, DiskError> {
        vfs::register()?;
        let directory = directory.as_ref();
        std::fs::create_dir_all(directory).map_err(DiskError::at(directory))?;
        let root = directory.canonicalize().map_err(DiskError::at(directory))?;
        let drive = Arc::new(Drive::new(root, seed));
        registry::add(&drive)?;
        Ok(Self(drive))
    }

    /// The directory; absolute, symbolic links resolved.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.root()
    }

    /// The power goes. All that open connections ask for fails from now on, so that closing them changes nothing.
    pub fn crash(&self) {
        self.0.state().end(Ending::PowerLoss);
    }

    /// The power goes with the `changes`-th change from now on (1 is the next), while that is under way. Replaces what
    /// was planned by this or by [`Disk::kill_at`].
    pub fn crash_at(&self, changes: u64) {
        self.0.state().ending = Some((changes, Ending::PowerLoss));
    }

    /// Whether the power has gone and [`Disk::recover`] is due.
    #[must_use]
    pub fn is_off(&self) -> bool {
        !self.0.state().powered
    }

    /// Turns the power on: the real files become what the power loss has left of them; the same files, in place. Does
    /// nothing when the power is on.
    ///
    /// # Errors
    /// [`DiskError::Open`] when connections have files open, and whatever the system reports.
    pub fn recover(&self) -> Result<(), DiskError> {
        let mut state = self.0.state();
        if state.powered {
            return Ok(());
        }
        require_closed(&state)?;
        let State { files, random, .. } = &mut *state;
        files.lose_power(random)?;
        state.powered = true;
        Ok(())
    }

    /// The process dies: as [`Disk::crash`], but everything that was written stays, and nothing has to be recovered. Files
    /// can be opened again when all connections were dropped.
    pub fn kill(&self) {
        self.0.state().end(Ending::Death);
    }

    /// The process dies with the `changes`-th change from now on, while that is under way. Replaces what was planned by
    /// this or by [`Disk::crash_at`].
    pub fn kill_at(&self, changes: u64) {
        self.0.state().ending = Some((changes, Ending::Death));
    }

    /// Files can grow by `bytes_left` more, all together; a write that needs more is done in part and fails. What files
    /// shrink by is given back.
    pub fn full(&self, bytes_left: u64) {
        self.0.state().room = Some(bytes_left);
    }

    /// There is room again.
    pub fn not_full(&self) {
        self.0.state().room = None;
    }

    /// The `operations`-th operation from now on (1 is the next) fails with an I/O error, having done any part of what it
    /// was to do. A sync that fails has made nothing safe; a later one does, unless the disk [forgets](Disk::forget).
    pub fn fail_io(&self, operations: u64) {
        self.0.state().failure = Some(operations);
    }

    /// Whether syncs only say that they were done.
    pub fn lie(&self, lies: bool) {
        self.0.state().lying = lies;
    }

    /// Whether a sync that fails takes what it should have written for written, as Linux does: it can be read, no later sync
    /// makes it safe, and a power loss takes all of it.
    pub fn forget(&self, forgets: bool) {
        self.0.state().forgetful = forgets;
    }

    /// Nothing planned happens any more, there is room, and syncs do what they say.
    pub fn calm(&self) {
        let mut state = self.0.state();
        (state.ending, state.failure, state.room) = (None, None, None);
        (state.lying, state.forgetful) = (false, false);
    }

    /// Flips a bit of a file. Nothing when all files are empty.
    ///
    /// # Errors
    /// [`DiskError::Open`], [`DiskError::Off`], and whatever the system reports.
    pub fn flip_bit(&self) -> Result<Option<Flip>, DiskError> {
        let mut state = self.0.state();
        require_at_rest(&state)?;
        let mut files = Vec::new();
        for path in tree::list(self.path())? {
            let bytes = tree::read(&path)?;
            if !bytes.is_empty() {
                files.push((path, bytes));
            }
        }
        if files.is_empty() {
            return Ok(None);
        }
        let (path, mut bytes) = files.swap_remove(state.random.below(files.len()));
        let offset = state.random.below(bytes.len());
        let bit = state.random.below(8) as u8;
        bytes[offset] ^= 1 << bit;
        tree::put(&path, &bytes)?;
        state.files.flip(&path, offset, 1 << bit);
        Ok(Some(Flip { path, offset, bit }))
    }

    /// Copies all files, for [`Disk::restore`].
    ///
    /// # Errors
    /// [`DiskError::Open`], [`DiskError::Off`], and whatever the system reports.
    pub fn snapshot(&self) -> Result<Snapshot, DiskError> {
        let state = self.0.state();
        require_at_rest(&state)?;
        let read = |path: PathBuf| tree::read(&path).map(|bytes| (path, bytes));
        tree::list(self.path())?.into_iter().map(read).collect::<Result<_, _>>().map(Snapshot)
    }

    /// Puts all files back as they were; they stay the same files, in place, and those that came later go.
    ///
    /// # Errors
    /// [`DiskError::Open`], [`DiskError::Off`], and whatever the system reports.
    pub fn restore(&self, snapshot: &Snapshot) -> Result<(), DiskError> {
        let mut state = self.0.state();
        require_at_rest(&state)?;
        for path in tree::list(self.path())? {
            if !snapshot.0.contains_key(&path) {
                tree::remove(&path)?;
            }
            tree::remove_index(&path)?;
        }
        for (path, bytes) in &snapshot.0 {
            tree::put(path, bytes)?;
        }
        state.files.forget_all();
        Ok(())
    }

    /// Copies to `directory` what is safe on this disk, as if every unsynced write had been lost. Connections may be open.
    ///
    /// # Errors
    /// Whatever the system reports.
    pub fn clone_to(&self, directory: impl AsRef<Path>) -> Result<(), DiskError> {
        let state = self.0.state();
        let mut durable = state.files.durable();
        for path in tree::list(self.path())? {
            if let Entry::Vacant(unknown) = durable.entry(path) {
                let bytes = tree::read(unknown.key())?;
                unknown.insert(Some(bytes));
            }
        }
        for (path, bytes) in durable {
            if let (Ok(name), Some(bytes)) = (path.strip_prefix(self.path()), bytes) {
                tree::put(&directory.as_ref().join(name), &bytes)?;
            }
        }
        Ok(())
    }

    /// What was counted so far.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let state = self.0.state();
        Statistics { bytes_unsynced: state.files.unsynced_bytes(), ..state.statistics }
    }
}

fn require_closed(state: &State) -> Result<(), DiskError> {
    match state.open_files() {
        0 => Ok(()),
        open => Err(DiskError::Open(open)),
    }
}

fn require_at_rest(state: &State) -> Result<(), DiskError> {
    if state.powered { require_closed(state) } else { Err(DiskError::Off) }
}
