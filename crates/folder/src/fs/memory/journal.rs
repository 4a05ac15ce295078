//! What a loss of power leaves of a [`MemFs`]: names change on the disk in the order in which they changed for programs, and
//! how many of the last changes are there is chance until a directory they concern is synced; a file that was not synced
//! has some of its content.

use super::{Inode, MemFs, Names, below, lock};
use crate::dirty::Dirty;
use crate::path::RelPath;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

/// A change of names.
pub(super) enum Change {
    Insert(RelPath, Arc<Mutex<Inode>>),
    Remove(RelPath),
    Rename(RelPath, RelPath),
    Exchange(RelPath, RelPath),
}

/// The names on the disk, and the changes that may not have reached it.
#[derive(Default)]
pub(super) struct Journal {
    names: Names,
    changes: Vec<Change>,
}

impl Change {
    fn concerns(&self, dir: Option<&RelPath>) -> bool {
        let inside = |path: &RelPath| path.parent().as_ref() == dir;
        match self {
            Self::Insert(path, _) | Self::Remove(path) => inside(path),
            Self::Rename(a, b) | Self::Exchange(a, b) => inside(a) || inside(b),
        }
    }

    fn make(self, names: &mut Names) {
        match self {
            Self::Insert(path, inode) => _ = names.insert(path, inode),
            Self::Remove(path) => _ = names.remove(&path),
            // It could be done, so it can be done again.
            Self::Rename(from, to) => _ = rename(names, &from, &to),
            Self::Exchange(a, b) => {
                if let (Some(first), Some(second)) = (names.remove(&a), names.remove(&b)) {
                    names.extend([(a, second), (b, first)]);
                }
            }
        }
    }
}

impl Journal {
    /// Everything up to the last change in `dir` reaches the disk.
    pub(super) fn sync(&mut self, dir: Option<&RelPath>) {
        let last = self.changes.iter().rposition(|change| change.concerns(dir));
        self.write(last.map_or(0, |last| last + 1));
    }

    fn write(&mut self, count: usize) {
        for change in self.changes.drain(..count) {
            change.make(&mut self.names);
        }
    }
}

/// Moves a name, and with a directory all that is in it.
pub(super) fn rename(names: &mut Names, from: &RelPath, to: &RelPath) -> io::Result<()> {
    let mut moved = Vec::new();
    for old in below(names, from) {
        let tail = &old.as_bytes()[from.as_bytes().len()..];
        let new = RelPath::new([to.as_bytes(), tail].concat());
        moved.push((old, new.map_err(|_| io::ErrorKind::InvalidFilename)?));
    }
    moved.push((from.clone(), to.clone()));
    for (old, new) in moved {
        if let Some(inode) = names.remove(&old) {
            names.insert(new, inode);
        }
    }
    Ok(())
}

impl MemFs {
    /// From now on what [`Self::lose_power`] leaves is kept; all that is there is on the disk.
    pub fn keep_journal(&self) {
        *lock(&self.shared.journal) = Some(Journal::default());
        self.rest();
    }

    /// Everything reaches the disk, as it does some seconds after a user's program is done.
    pub fn rest(&self) {
        let names = lock(&self.shared.names);
        for inode in names.values() {
            lock(inode).unsynced = false;
        }
        if let Some(journal) = &mut *lock(&self.shared.journal) {
            *journal = Journal { names: names.clone(), changes: Vec::new() };
        }
    }

    pub(super) fn log(&self, change: Change) {
        if let Some(journal) = &mut *lock(&self.shared.journal) {
            journal.changes.push(change);
        }
    }

    /// The power goes: what was not synced is there or not, as `chance` says, which returns a number below or equal to the
    /// one given. Nothing happens without [`Self::keep_journal`].
    pub fn lose_power(&self, chance: &mut dyn FnMut(usize) -> usize) {
        let mut names = lock(&self.shared.names);
        let mut journal = lock(&self.shared.journal);
        let Some(journal) = &mut *journal else { return };
        let kept = chance(journal.changes.len()).min(journal.changes.len());
        journal.write(kept);
        journal.changes.clear();
        *names = journal.names.clone();
        *lock(&self.shared.changed) = Dirty::Everything;
        for inode in names.values() {
            let mut inode = lock(inode);
            if std::mem::take(&mut inode.unsynced) {
                let len = chance(inode.bytes.len()).min(inode.bytes.len());
                inode.bytes.truncate(len);
                inode.stat.size = len as u64;
            }
        }
    }

    /// Another folder with the same in it now, under the same inode numbers and with the same times. It has no hook.
    #[must_use]
    pub fn copy(&self) -> Self {
        let other = Self::new(Arc::clone(&self.shared.clock));
        let next = self.shared.next_inode.load(std::sync::atomic::Ordering::Relaxed);
        other.shared.next_inode.store(next, std::sync::atomic::Ordering::Relaxed);
        let copy = |(path, inode): (&RelPath, &Arc<Mutex<Inode>>)| {
            let inode = lock(inode);
            let (stat, bytes) = (inode.stat, inode.bytes.clone());
            (path.clone(), Arc::new(Mutex::new(Inode { stat, bytes, unsynced: false })))
        };
        let names: BTreeMap<_, _> = lock(&self.shared.names).iter().map(copy).collect();
        *lock(&other.shared.names) = names;
        if lock(&self.shared.journal).is_some() {
            other.keep_journal();
        }
        other
    }
}
