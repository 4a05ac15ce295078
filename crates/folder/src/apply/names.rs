//! Changing names: where they change, what has to reach the disk, and what is temporary.

use super::temp::TempNames;
use crate::fs::{FileSystem, Kind, NewFile, Stat, sync_all_names};
use crate::path::RelPath;
use crate::state::State;
use anabranch_core::sabotage::{self, Bug};
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// What the owner of a directory needs to change names in it.
const WRITABLE: u32 = 0o300;
/// What the owner of a directory needs to fill it.
const FILLABLE: u32 = 0o700;

/// Names of a folder, being changed.
pub(super) struct Names<'a> {
    fs: &'a dyn FileSystem,
    temp: TempNames,
    /// Directories that nobody may write to and that we opened up for as long as it takes, with their mode.
    opened: BTreeMap<RelPath, u32>,
    /// Directories in which names changed that are not on the disk yet.
    dirty: BTreeSet<Option<RelPath>>,
    /// Whether something new is among these names.
    fresh: bool,
    /// Temporary files that could not be removed at once.
    trash: Vec<RelPath>,
}

impl<'a> Names<'a> {
    pub(super) fn new(fs: &'a dyn FileSystem) -> Self {
        Self {
            fs,
            temp: TempNames::default(),
            opened: BTreeMap::new(),
            dirty: BTreeSet::new(),
            fresh: false,
            trash: Vec::new(),
        }
    }

    /// Whether something new is not on the disk yet.
    pub(super) fn is_fresh(&self) -> bool {
        self.fresh
    }

    pub(super) fn rename(&mut self, from: &RelPath, to: &RelPath, replace: bool) -> io::Result<()> {
        self.change(&[from, to], |fs| fs.rename(from, to, replace))?;
        self.fresh = true;
        Ok(())
    }

    pub(super) fn exchange(&mut self, a: &RelPath, b: &RelPath) -> io::Result<()> {
        self.change(&[a, b], |fs| fs.exchange(a, b))?;
        self.fresh = true;
        Ok(())
    }

    /// Makes a directory that has `mode` when it gets its name, and that its owner may fill besides: if the program dies
    /// then, nobody may ever look at the mode again.
    pub(super) fn make_dir(&mut self, path: &RelPath, mode: u32) -> io::Result<()> {
        let fs = self.fs;
        let (temp, ()) = self.temp.create(|temp| fs.make_dir(temp))?;
        // A file system that keeps no modes may refuse. Where that matters it shows when the mode is set for good.
        let _ = fs.set_mode(&temp, mode | FILLABLE);
        let made = self.change(&[path, &temp], |fs| fs.rename(&temp, path, false));
        if made.is_err() {
            // What is left over goes with the next run.
            let _ = fs.remove_dir(&temp);
        }
        self.fresh |= made.is_ok();
        made
    }

    pub(super) fn remove_dir(&mut self, path: &RelPath) -> io::Result<()> {
        self.change(&[path], |fs| fs.remove_dir(path))
    }

    /// Changes names in the directories that contain `paths`, and opens these up if that is what it takes.
    fn change(
        &mut self,
        paths: &[&RelPath],
        act: impl Fn(&dyn FileSystem) -> io::Result<()>,
    ) -> io::Result<()> {
        match act(self.fs) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let mut opened = false;
                for dir in paths.iter().filter_map(|path| path.parent()) {
                    opened |= self.open_up(dir);
                }
                if !opened {
                    return Err(error);
                }
                act(self.fs)?;
            }
            result => result?,
        }
        // A name that is temporary need not be on the disk.
        let lasting = paths.iter().filter(|path| !path.is_reserved());
        self.dirty.extend(lasting.map(|path| path.parent()));
        Ok(())
    }

    fn open_up(&mut self, dir: RelPath) -> bool {
        let Ok(stat) = self.fs.lstat(&dir) else { return false };
        let shut = stat.kind == Kind::Dir && stat.mode & WRITABLE != WRITABLE;
        let opened = shut && self.fs.set_mode(&dir, stat.mode | WRITABLE).is_ok();
        if opened {
            self.opened.entry(dir).or_insert(stat.mode);
        }
        opened
    }

    /// Gives `dir` back the mode it had, if it was opened up.
    pub(super) fn close_up(&mut self, dir: &RelPath) -> io::Result<()> {
        match self.opened.remove(dir) {
            Some(mode) => self.fs.set_mode(dir, mode),
            None => Ok(()),
        }
    }

    /// A new file under a temporary name.
    pub(super) fn new_file(&mut self) -> io::Result<(RelPath, Box<dyn NewFile + 'a>)> {
        let fs = self.fs;
        self.temp.create(|temp| fs.create_new(temp))
    }

    /// How something of the kind of `state` looks on this file system that has its mode and time: where nobody else gets
    /// at it.
    pub(super) fn probe(&mut self, state: &State) -> io::Result<Stat> {
        let fs = self.fs;
        let (temp, ()) = match state {
            State::Dir { .. } => self.temp.create(|temp| fs.make_dir(temp))?,
            _ => self.temp.create(|temp| fs.create_new(temp).map(drop))?,
        };
        let shown = set_meta(fs, &temp, state).and_then(|()| fs.lstat(&temp));
        if state.is_dir() {
            // What is left over goes with the next run.
            let _ = fs.remove_dir(&temp);
        } else {
            self.discard(temp);
        }
        shown
    }

    /// A symbolic link under a temporary name.
    pub(super) fn new_link(&mut self, target: &[u8]) -> io::Result<RelPath> {
        let fs = self.fs;
        Ok(self.temp.create(|temp| fs.symlink(target, temp))?.0)
    }

    /// Moves what is at `path` to a temporary name.
    pub(super) fn aside(&mut self, path: &RelPath) -> io::Result<RelPath> {
        loop {
            let temp = self.temp.fresh()?;
            match self.change(&[path, &temp], |fs| fs.rename(path, &temp, false)) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                result => return result.map(|()| temp),
            }
        }
    }

    /// Removes a temporary file, now or at the end.
    pub(super) fn discard(&mut self, temp: RelPath) {
        match self.fs.remove_file(&temp) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => self.trash.push(temp),
            _ => {}
        }
    }

    /// Brings the names to the disk. Returns the directories where that failed.
    pub(super) fn sync(&mut self) -> Vec<(Option<RelPath>, io::Error)> {
        self.fresh = false;
        let dirty = std::mem::take(&mut self.dirty);
        if sabotage::is(Bug::BaseFirst) { Vec::new() } else { sync_all_names(self.fs, dirty) }
    }

    /// Closes up what was opened and removes what is left over. Returns what could not be.
    pub(super) fn tidy(&mut self) -> Vec<(RelPath, io::Error)> {
        let mut failed = Vec::new();
        for (dir, mode) in std::mem::take(&mut self.opened).into_iter().rev() {
            match self.fs.set_mode(&dir, mode) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => failed.push((dir, error)),
                _ => {}
            }
        }
        for temp in std::mem::take(&mut self.trash) {
            if let Err(error) = self.fs.remove_file(&temp) {
                failed.push((temp, error));
            }
        }
        failed
    }
}

/// Gives what is at `path` the mode and time of `state`.
fn set_meta(fs: &dyn FileSystem, path: &RelPath, state: &State) -> io::Result<()> {
    match state {
        State::Dir { mode } => fs.set_mode(path, *mode),
        State::File { mode, mtime_ns, .. } => {
            fs.set_mode(path, *mode)?;
            fs.set_mtime(path, *mtime_ns)
        }
        State::Symlink { .. } => Ok(()),
    }
}
