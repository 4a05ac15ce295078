//! Carrying out one action at a time.

use super::content::fill;
use super::temp::TempNames;
use super::{Applied, ContentSource, Failed, Failure};
use crate::base::{Base, Seen};
use crate::fs::{Clock, FileSystem, Kind, Stat};
use crate::path::RelPath;
use crate::plan::{Action, Goal, Keep, Was};
use crate::scan::{Progress, hash_file};
use crate::state::State;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

pub(super) struct Applier<'a> {
    fs: &'a dyn FileSystem,
    clock: &'a dyn Clock,
    source: &'a mut dyn ContentSource,
    progress: &'a mut dyn FnMut(u64, u64),
    temp: TempNames,
    /// Files that wait, by number: where they are and where they were.
    parked: BTreeMap<usize, (RelPath, RelPath)>,
    /// Directories made by us, whose mode is set when everything is in them.
    made: Vec<Goal>,
    /// Directories in which names changed that are not on the disk yet.
    dirty: BTreeSet<Option<RelPath>>,
    /// Whether something new is among these names.
    fresh: bool,
    /// Temporary files that could not be removed at once.
    trash: Vec<RelPath>,
    applied: Applied,
}

type Done = Result<(), Failed>;

impl<'a> Applier<'a> {
    pub(super) fn new(
        fs: &'a dyn FileSystem,
        clock: &'a dyn Clock,
        source: &'a mut dyn ContentSource,
        progress: &'a mut dyn FnMut(u64, u64),
    ) -> Self {
        Self {
            fs,
            clock,
            source,
            progress,
            temp: TempNames::default(),
            parked: BTreeMap::new(),
            made: Vec::new(),
            dirty: BTreeSet::new(),
            fresh: false,
            trash: Vec::new(),
            applied: Applied::default(),
        }
    }

    pub(super) fn act(&mut self, action: &Action) {
        if self.fresh && matches!(action, Action::RemoveFile { .. } | Action::RemoveDir { .. }) {
            // What is new must be on the disk before what is old goes.
            self.sync_dirs();
        }
        match self.carry_out(action) {
            Ok(()) => self.applied.done += 1,
            Err(why) => self.fail(path_of(action), why),
        }
        (self.progress)(self.applied.done, self.applied.bytes);
    }

    /// Sets what had to wait, puts back what found no place, and brings all names to the disk.
    pub(super) fn finish(mut self) -> Applied {
        for goal in std::mem::take(&mut self.made).into_iter().rev() {
            if let Err(why) = self.set_dir_mode(&goal) {
                self.fail(&goal.path, why);
            }
        }
        for (temp, from) in std::mem::take(&mut self.parked).into_values() {
            self.put_back(&temp, &from);
        }
        for temp in std::mem::take(&mut self.trash) {
            if let Err(error) = self.fs.remove_file(&temp) {
                self.fail(&temp, error.into());
            }
        }
        self.sync_dirs();
        self.applied
    }

    fn carry_out(&mut self, action: &Action) -> Done {
        match action {
            Action::MakeDir { goal } => self.make_dir(goal),
            Action::WriteFile { goal, over, keep } => {
                self.write_file(goal, over.as_ref(), keep.as_deref())
            }
            Action::Symlink { goal, over } => self.symlink(goal, over.as_ref()),
            Action::Rename { from, goal, over } => self.rename(from, goal, over.as_ref()),
            Action::Park { from, slot } => self.park(from, *slot),
            Action::Unpark { slot, from, goal, over } => {
                self.unpark(*slot, from, goal, over.as_ref())
            }
            Action::SetMeta { goal, was } => self.set_meta(goal, was),
            Action::RemoveFile { was } => self.remove_file(was),
            Action::RemoveDir { path } => self.remove_dir(path),
            Action::Adopt { path, base } => {
                self.applied.base.push((path.clone(), Some(base.clone())));
                Ok(())
            }
        }
    }

    fn fail(&mut self, path: &RelPath, why: Failed) {
        self.applied.failed.push(Failure { path: path.clone(), why });
    }

    fn make_dir(&mut self, goal: &Goal) -> Done {
        match self.fs.make_dir(&goal.path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if self.fs.lstat(&goal.path)?.kind != Kind::Dir {
                    return Err(Failed::ChangedMeanwhile);
                }
            }
            result => result?,
        }
        self.dirty.insert(goal.path.parent());
        self.made.push(goal.clone());
        Ok(())
    }

    fn set_dir_mode(&mut self, goal: &Goal) -> Done {
        if let State::Dir { mode } = goal.state {
            self.fs.set_mode(&goal.path, mode)?;
        }
        let seen = self.seen_after_touch(&goal.path)?;
        self.stands(goal, seen);
        Ok(())
    }

    fn write_file(&mut self, goal: &Goal, over: Option<&Was>, keep: Option<&Keep>) -> Done {
        let State::File { content, mode, mtime_ns } = &goal.state else { return Ok(()) };
        let fs = self.fs;
        let (temp, mut file) = self.temp.create(|path| fs.create_new(path))?;
        let mut written = || {
            let bytes = fill(&mut *file, content, self.source)?;
            file.set_meta(*mode, *mtime_ns)?;
            file.sync()?;
            Ok(bytes)
        };
        let placed = written().and_then(|bytes| {
            drop(file);
            self.applied.bytes += bytes;
            self.place(&temp, goal, over, keep)
        });
        self.or_remove(temp, placed)
    }

    fn symlink(&mut self, goal: &Goal, over: Option<&Was>) -> Done {
        let State::Symlink { target } = &goal.state else { return Ok(()) };
        let fs = self.fs;
        let (temp, ()) = self.temp.create(|path| fs.symlink(target, path))?;
        let placed = self.place(&temp, goal, over, None);
        self.or_remove(temp, placed)
    }

    fn or_remove(&mut self, temp: RelPath, done: Done) -> Done {
        if done.is_err() && !matches!(self.is_absent(&temp), Ok(true)) {
            self.discard(temp);
        }
        done
    }

    /// Gives the finished file `temp` its name.
    fn place(
        &mut self,
        temp: &RelPath,
        goal: &Goal,
        over: Option<&Was>,
        keep: Option<&Keep>,
    ) -> Done {
        let before = self.fs.lstat(temp)?;
        self.check(&goal.path, over)?;
        match (over, keep) {
            (Some(over), Some(keep)) => self.place_and_keep(temp, over, keep)?,
            (Some(over), None) => self.replace(temp, over)?,
            (None, _) => self.fs.rename(temp, &goal.path, false)?,
        }
        self.dirty.insert(goal.path.parent());
        let stat = self.fs.lstat(&goal.path)?;
        let expected = Seen::new(&before, self.clock.now_ns());
        self.stands(goal, self.seen_after_rename(&expected, &stat));
        Ok(())
    }

    fn place_and_keep(&mut self, temp: &RelPath, over: &Was, keep: &Keep) -> Done {
        let kept = &keep.goal.path;
        let aside = self.make_way(kept, keep.over.as_ref())?;
        let moved = self.fs.rename(&over.path, kept, false).map_err(Failed::from);
        self.settle(aside, kept, moved)?;
        if let Err(error) = self.fs.rename(temp, &over.path, false) {
            // Back to how it was. If even that fails, nothing is lost: it is kept.
            let _ = self.fs.rename(kept, &over.path, false);
            return Err(error.into());
        }
        self.source.moved(&over.path, kept);
        self.dirty.insert(kept.parent());
        self.follow(over, &keep.goal)
    }

    /// Puts `temp` in the place of what the plan saw there. The two swap, so that the path always names something and what
    /// was replaced can still be looked at: were it written to since the check, they swap back.
    fn replace(&mut self, temp: &RelPath, over: &Was) -> Done {
        match self.fs.exchange(temp, &over.path) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                return Ok(self.fs.rename(temp, &over.path, true)?);
            }
            result => result?,
        }
        let is_still = self.is_still(over, temp);
        if matches!(is_still, Ok(true)) {
            self.discard(temp.clone());
            return Ok(());
        }
        self.fs.exchange(temp, &over.path)?;
        is_still.and(Err(Failed::ChangedMeanwhile))
    }

    /// Moves what the plan saw at `path` aside, if there was something, and looks at it again there.
    fn make_way(&mut self, path: &RelPath, was: Option<&Was>) -> Result<Option<RelPath>, Failed> {
        self.check(path, was)?;
        let Some(was) = was else { return Ok(None) };
        let fs = self.fs;
        let (aside, ()) = self.temp.create(|aside| fs.rename(path, aside, false))?;
        match self.is_still(was, &aside) {
            Ok(true) => return Ok(Some(aside)),
            Ok(false) => self.settle(Some(aside), path, Err(Failed::ChangedMeanwhile))?,
            Err(why) => self.settle(Some(aside), path, Err(why))?,
        }
        Ok(None)
    }

    /// After [`Self::make_way`]: if what made it necessary is `done`, what is aside goes, otherwise it goes back.
    fn settle(&mut self, aside: Option<RelPath>, path: &RelPath, done: Done) -> Done {
        if let Some(aside) = aside
            && (done.is_ok() || self.fs.rename(&aside, path, false).is_err())
        {
            self.discard(aside);
        }
        done
    }

    /// Removes a temporary file, now or at the end.
    fn discard(&mut self, temp: RelPath) {
        if self.fs.remove_file(&temp).is_err() {
            self.trash.push(temp);
        }
    }

    fn rename(&mut self, from: &Was, goal: &Goal, over: Option<&Was>) -> Done {
        self.check(&from.path, Some(from))?;
        let aside = self.make_way(&goal.path, over)?;
        let moved = self.fs.rename(&from.path, &goal.path, false).map_err(Failed::from);
        self.settle(aside, &goal.path, moved)?;
        self.dirty.extend([from.path.parent(), goal.path.parent()]);
        self.source.moved(&from.path, &goal.path);
        self.applied.base.push((from.path.clone(), None));
        self.follow(from, goal)
    }

    /// After a rename: gives the file that was `from` the mode and time of `goal`.
    fn follow(&mut self, from: &Was, goal: &Goal) -> Done {
        let stat = self.fs.lstat(&goal.path)?;
        let seen = self.seen_after_rename(&from.seen, &stat);
        if from.state == goal.state {
            self.stands(goal, seen);
            return Ok(());
        }
        let done = self.change_meta(goal, &from.state);
        if done.is_ok() {
            let seen = self.seen_after_touch(&goal.path)?;
            self.stands(goal, seen);
        } else {
            // It has its name; mode and time are the next run's.
            self.stands(&Goal { state: from.state.clone(), ..goal.clone() }, seen);
        }
        done
    }

    /// How something looks that looked as `expected` and was renamed. If it looks different it was written to, and the base
    /// must not say that this is how the agreed content looks.
    fn seen_after_rename(&self, expected: &Seen, stat: &Stat) -> Seen {
        let now = Seen::new(stat, self.clock.now_ns());
        let same = Seen { ctime_ns: expected.ctime_ns, ..now }.looks_like(expected);
        if same {
            Seen { settled: expected.settled, ..now }
        } else {
            Seen { settled: false, ..*expected }
        }
    }

    /// How something looks whose mode or time we set. Had it been written to just before, that would not show.
    fn seen_after_touch(&self, path: &RelPath) -> io::Result<Seen> {
        let stat = self.fs.lstat(path)?;
        let seen = Seen::new(&stat, self.clock.now_ns());
        Ok(Seen { settled: stat.kind == Kind::Dir, ..seen })
    }

    fn park(&mut self, from: &Was, slot: usize) -> Done {
        self.check(&from.path, Some(from))?;
        let fs = self.fs;
        let (temp, ()) = self.temp.create(|temp| fs.rename(&from.path, temp, false))?;
        self.dirty.insert(from.path.parent());
        self.applied.base.push((from.path.clone(), None));
        self.parked.insert(slot, (temp, from.path.clone()));
        Ok(())
    }

    fn unpark(&mut self, slot: usize, from: &RelPath, goal: &Goal, over: Option<&Was>) -> Done {
        let Some((temp, _)) = self.parked.get(&slot).cloned() else { return Err(Failed::Blocked) };
        let before = self.fs.lstat(&temp)?;
        let aside = self.make_way(&goal.path, over)?;
        let moved = self.fs.rename(&temp, &goal.path, false).map_err(Failed::from);
        self.settle(aside, &goal.path, moved)?;
        self.parked.remove(&slot);
        self.dirty.insert(goal.path.parent());
        self.source.moved(from, &goal.path);
        let done = self.set_file_meta(goal, &before);
        let seen = self.seen_after_touch(&goal.path)?;
        self.stands(goal, seen);
        done
    }

    /// A parked file whose place was not to be had goes back where it was. If that is taken by now, it goes: nothing that
    /// lives is ever parked.
    fn put_back(&mut self, temp: &RelPath, from: &RelPath) {
        match self.fs.rename(temp, from, false) {
            Ok(()) => {
                self.dirty.insert(from.parent());
                self.applied.base.retain(|(path, base)| path != from || base.is_some());
            }
            Err(_) => self.discard(temp.clone()),
        }
    }

    fn set_meta(&mut self, goal: &Goal, was: &Was) -> Done {
        self.check(&was.path, Some(was))?;
        self.change_meta(goal, &was.state)?;
        let seen = self.seen_after_touch(&goal.path)?;
        self.stands(goal, seen);
        Ok(())
    }

    fn change_meta(&self, goal: &Goal, was: &State) -> Done {
        match (&goal.state, was) {
            (State::Dir { mode }, _) => self.fs.set_mode(&goal.path, *mode)?,
            (
                State::File { mode, mtime_ns, .. },
                State::File { mode: old_mode, mtime_ns: old_mtime, .. },
            ) => {
                if mode != old_mode {
                    self.fs.set_mode(&goal.path, *mode)?;
                }
                if mtime_ns != old_mtime {
                    self.fs.set_mtime(&goal.path, *mtime_ns)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn set_file_meta(&self, goal: &Goal, now: &Stat) -> Done {
        if let State::File { mode, mtime_ns, .. } = goal.state {
            if mode != now.mode {
                self.fs.set_mode(&goal.path, mode)?;
            }
            if mtime_ns != now.mtime_ns {
                self.fs.set_mtime(&goal.path, mtime_ns)?;
            }
        }
        Ok(())
    }

    fn remove_file(&mut self, was: &Was) -> Done {
        if !self.is_absent(&was.path)? {
            let aside = self.make_way(&was.path, Some(was))?;
            self.settle(aside, &was.path, Ok(()))?;
        }
        self.is_gone(&was.path);
        Ok(())
    }

    fn remove_dir(&mut self, path: &RelPath) -> Done {
        match self.fs.remove_dir(path) {
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound => {}
                io::ErrorKind::DirectoryNotEmpty => return Err(Failed::NotEmpty),
                io::ErrorKind::NotADirectory => return Err(Failed::ChangedMeanwhile),
                _ => return Err(error.into()),
            },
            Ok(()) => {}
        }
        self.is_gone(path);
        Ok(())
    }

    fn is_gone(&mut self, path: &RelPath) {
        self.dirty.insert(path.parent());
        self.applied.base.push((path.clone(), None));
    }

    fn is_absent(&self, path: &RelPath) -> io::Result<bool> {
        match self.fs.lstat(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            stat => stat.map(|_| false),
        }
    }

    /// Whether at `path` there still is what the plan saw.
    fn check(&self, path: &RelPath, was: Option<&Was>) -> Done {
        let absent = self.is_absent(path)?;
        match was {
            None if absent => Ok(()),
            Some(was) if !absent && self.is_unchanged(was)? => Ok(()),
            _ => Err(Failed::ChangedMeanwhile),
        }
    }

    /// Whether nothing at all changed about what the plan saw.
    fn is_unchanged(&self, was: &Was) -> Result<bool, Failed> {
        let stat = self.fs.lstat(&was.path)?;
        let same_time = stat.kind == Kind::Dir || stat.ctime_ns == was.seen.ctime_ns;
        Ok(same_time && self.is_still(was, &was.path)?)
    }

    /// Whether what the plan saw is at `path` now. Having been renamed, it has another change time.
    fn is_still(&self, was: &Was, path: &RelPath) -> Result<bool, Failed> {
        let Was { state, seen, .. } = was;
        let stat = self.fs.lstat(path)?;
        let kind = match state {
            State::File { .. } => Kind::File,
            State::Dir { .. } => Kind::Dir,
            State::Symlink { .. } => Kind::Symlink,
        };
        let now = Seen { ctime_ns: seen.ctime_ns, ..Seen::new(&stat, self.clock.now_ns()) };
        if stat.kind != kind || !seen.looks_like(&now) {
            return Ok(false);
        }
        // Looking the same means little when it was written just before it was looked at.
        match state {
            State::Symlink { target } if !seen.settled => Ok(self.fs.read_link(path)? == *target),
            State::File { content, .. } if !seen.settled => {
                let mut progress = Progress::default();
                let read = hash_file(self.fs, self.clock, path, &mut (), &mut progress);
                Ok(read.is_ok_and(|(now, _)| now == *content))
            }
            _ => Ok(true),
        }
    }

    /// Notes that `goal` is reached.
    fn stands(&mut self, goal: &Goal, seen: Seen) {
        let Goal { path, state, source } = goal.clone();
        self.applied.base.push((path, Some(Base { state, source, seen })));
        self.fresh = true;
    }

    /// Brings the names that changed to the disk. Where that fails, nothing is said to have happened.
    fn sync_dirs(&mut self) {
        self.fresh = false;
        for dir in std::mem::take(&mut self.dirty) {
            match self.fs.sync_dir(dir.as_ref()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => self.unsure(dir, &error),
                _ => {}
            }
        }
    }

    fn unsure(&mut self, dir: Option<RelPath>, error: &io::Error) {
        let base = std::mem::take(&mut self.applied.base);
        let (inside, outside) = base.into_iter().partition(|(path, _)| path.parent() == dir);
        self.applied.base = outside;
        for (path, _) in inside {
            self.fail(&path, io::Error::new(error.kind(), error.to_string()).into());
        }
    }
}

fn path_of(action: &Action) -> &RelPath {
    match action {
        Action::MakeDir { goal }
        | Action::WriteFile { goal, .. }
        | Action::Symlink { goal, .. }
        | Action::Rename { goal, .. }
        | Action::Unpark { goal, .. }
        | Action::SetMeta { goal, .. } => &goal.path,
        Action::Park { from, .. } => &from.path,
        Action::RemoveFile { was } => &was.path,
        Action::RemoveDir { path } | Action::Adopt { path, .. } => path,
    }
}
