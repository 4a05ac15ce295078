//! Carrying out one action at a time.

use super::content::fill;
use super::look::Look;
use super::names::Names;
use super::temp::make_temp_dir;
use super::{Applied, ContentSource, Failed, Failure};
use crate::base::{Base, Seen};
use crate::fs::{Clock, FEW, FileSystem, Kind};
use crate::path::RelPath;
use crate::plan::{Action, Goal, Keep, Was};
use crate::state::State;
use anabranch_core::sabotage::{self, Bug};
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// Carries out a plan, in one go or in parts. What spans several actions (files that wait, modes of directories that are
/// still being filled) is kept from one part to the next.
pub struct Applier<'a> {
    fs: &'a dyn FileSystem,
    look: Look<'a>,
    names: Names<'a>,
    /// Files that wait, by number: where they are and what they were where.
    parked: BTreeMap<usize, (RelPath, Was)>,
    /// Where they were, as long as nothing else is there. The base forgets them when they have found their place.
    vacated: BTreeSet<RelPath>,
    /// Paths that were to be cleared and could not: nothing is put there in this run, even if nothing is there any more, so
    /// that the next scan finds what became of it.
    stuck: BTreeSet<RelPath>,
    /// Directories made by us, whose mode is set when everything is in them.
    made: Vec<Goal>,
    applied: Applied,
}

/// A file under a temporary name, and where it goes.
type Written<'w> = (RelPath, &'w Goal, &'w Option<Was>, &'w Option<Box<Keep>>);

type Done = Result<(), Failed>;
type Source<'s> = &'s mut dyn ContentSource;

impl<'a> Applier<'a> {
    /// An applier for the folder `fs`.
    ///
    /// # Errors
    /// When the directory for temporary files cannot be made.
    pub fn new(fs: &'a dyn FileSystem, clock: &'a dyn Clock) -> io::Result<Self> {
        make_temp_dir(fs)?;
        Ok(Self {
            fs,
            look: Look { fs, clock },
            names: Names::new(fs),
            parked: BTreeMap::new(),
            vacated: BTreeSet::new(),
            stuck: BTreeSet::new(),
            made: Vec::new(),
            applied: Applied::default(),
        })
    }

    /// Carries out `actions`, the next of a plan, with content from `source`; returns what came of them, which is on the
    /// disk. `progress` is told the actions carried out and the bytes written in this part.
    pub fn apply(
        &mut self,
        actions: &[Action],
        source: &mut dyn ContentSource,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Applied {
        let mut rest = actions;
        while let [action, others @ ..] = rest {
            let writes = rest.iter().take_while(|action| is_write(action)).count();
            if writes > FEW {
                let (files, others) = rest.split_at(writes);
                self.write_many(files, source, progress);
                rest = others;
                continue;
            }
            rest = others;
            let removes = matches!(action, Action::RemoveFile { .. } | Action::RemoveDir { .. });
            if removes && self.names.is_fresh() {
                // What is new must be on the disk before what is old goes.
                self.sync();
            }
            let (clears, fills) = paths_of(action);
            let blocked = fills.is_some_and(|path| self.stuck.contains(path));
            let done = if blocked { Err(Failed::Blocked) } else { self.carry_out(action, source) };
            if done.is_err() {
                self.stuck.extend(clears.cloned());
            }
            self.note(fills.or(clears), done);
            progress(self.applied.done, self.applied.bytes);
        }
        self.sync();
        std::mem::take(&mut self.applied)
    }

    /// Counts what came of an action for `path`.
    fn note(&mut self, path: Option<&RelPath>, done: Done) {
        match (done, path) {
            (Ok(()), _) => self.applied.done += 1,
            (Err(why), Some(path)) => self.fail(path, why),
            (Err(_), None) => {}
        }
    }

    /// Carries out actions that write files, which are brought to the disk together before any of them gets its name.
    fn write_many(
        &mut self,
        actions: &[Action],
        source: &mut dyn ContentSource,
        progress: &mut dyn FnMut(u64, u64),
    ) {
        let mut written = Vec::with_capacity(actions.len());
        for action in actions {
            let Action::WriteFile { goal, over, keep } = action else { continue };
            let temp = match self.stuck.contains(&goal.path) {
                true => Err(Failed::Blocked),
                false => self.write_temp(goal, source, false),
            };
            let full =
                matches!(&temp, Err(Failed::Io(e)) if e.kind() == io::ErrorKind::StorageFull);
            match temp {
                Ok(temp) => written.push((temp, goal, over, keep)),
                // Where others take their places there may be room again.
                Err(_) if full && !written.is_empty() => {
                    self.place_many(&mut written, source, progress);
                    match self.write_temp(goal, source, false) {
                        Ok(temp) => written.push((temp, goal, over, keep)),
                        Err(why) => self.fail(&goal.path, why),
                    }
                }
                Err(why) => self.fail(&goal.path, why),
            }
        }
        self.place_many(&mut written, source, progress);
    }

    fn place_many(
        &mut self,
        written: &mut Vec<Written<'_>>,
        source: &mut dyn ContentSource,
        progress: &mut dyn FnMut(u64, u64),
    ) {
        let synced = match sabotage::is(Bug::FileUnsynced) {
            true => Ok(()),
            false => self.fs.sync_all(),
        };
        for (temp, goal, over, keep) in written.drain(..) {
            let placed = match &synced {
                Ok(()) => self.place(&temp, goal, over.as_ref(), keep.as_deref(), source),
                Err(error) => Err(io::Error::new(error.kind(), error.to_string()).into()),
            };
            if placed.is_err() {
                self.names.discard(temp);
            }
            self.note(Some(&goal.path), placed);
            progress(self.applied.done, self.applied.bytes);
        }
    }

    /// After the last part: sets what had to wait and puts back what found no place.
    #[must_use]
    pub fn finish(mut self) -> Applied {
        for (temp, was) in std::mem::take(&mut self.parked).into_values() {
            self.put_back(temp, &was.path);
        }
        for (path, error) in self.names.tidy() {
            self.fail(&path, error.into());
        }
        for goal in std::mem::take(&mut self.made).into_iter().rev() {
            if let Err(why) = self.set_dir_mode(&goal) {
                self.fail(&goal.path, why);
            }
        }
        self.sync();
        self.applied
    }

    fn carry_out(&mut self, action: &Action, source: Source<'_>) -> Done {
        match action {
            Action::MakeDir { goal } => self.make_dir(goal),
            Action::WriteFile { goal, over, keep } => {
                self.write_file(goal, over.as_ref(), keep.as_deref(), source)
            }
            Action::Symlink { goal, over } => self.symlink(goal, over.as_ref(), source),
            Action::Rename { from, goal, over } => self.rename(from, goal, over.as_ref(), source),
            Action::Park { from, slot } => self.park(from, *slot),
            Action::Unpark { slot, from, goal, over } => {
                self.unpark(*slot, from, goal, over.as_ref(), source)
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

    fn make_dir(&mut self, goal: &Goal) -> Done {
        let State::Dir { mode } = goal.state else { return Ok(()) };
        match self.names.make_dir(&goal.path, mode) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.check_dir(&goal.path)?;
            }
            result => result?,
        }
        self.made.push(goal.clone());
        Ok(())
    }

    /// How a directory looks that may be something else by now.
    fn check_dir(&self, path: &RelPath) -> Result<Seen, Failed> {
        let stat = self.fs.lstat(path)?;
        if stat.kind != Kind::Dir {
            return Err(Failed::ChangedMeanwhile);
        }
        Ok(self.look.seen(&stat))
    }

    fn set_dir_mode(&mut self, goal: &Goal) -> Done {
        self.check_dir(&goal.path)?;
        if let State::Dir { mode } = goal.state {
            self.fs.set_mode(&goal.path, mode)?;
        }
        let seen = self.check_dir(&goal.path)?;
        let seen = self.ours(&goal.state, seen)?;
        self.stands(goal, seen);
        Ok(())
    }

    fn write_file(
        &mut self,
        goal: &Goal,
        over: Option<&Was>,
        keep: Option<&Keep>,
        source: Source<'_>,
    ) -> Done {
        let temp = self.write_temp(goal, source, true)?;
        let placed = self.place(&temp, goal, over, keep, source);
        if placed.is_err() {
            self.names.discard(temp);
        }
        placed
    }

    /// Writes a file under a temporary name; `sync`: and brings it to the disk.
    fn write_temp(
        &mut self,
        goal: &Goal,
        source: Source<'_>,
        sync: bool,
    ) -> Result<RelPath, Failed> {
        let State::File { mode, mtime_ns, .. } = &goal.state else {
            return Err(Failed::ChangedMeanwhile);
        };
        let (temp, mut file) = self.names.new_file()?;
        let mut write = || {
            let bytes = fill(&mut *file, &goal.state, source)?;
            file.set_meta(*mode, *mtime_ns)?;
            if sync && !sabotage::is(Bug::FileUnsynced) {
                file.sync()?;
            }
            Ok(bytes)
        };
        let written = write();
        drop(file);
        match written {
            Ok(bytes) => {
                self.applied.bytes += bytes;
                Ok(temp)
            }
            Err(why) => {
                self.names.discard(temp);
                Err(why)
            }
        }
    }

    fn symlink(&mut self, goal: &Goal, over: Option<&Was>, source: Source<'_>) -> Done {
        let State::Symlink { target } = &goal.state else { return Ok(()) };
        let temp = self.names.new_link(target)?;
        let placed = self.place(&temp, goal, over, None, source);
        if placed.is_err() {
            self.names.discard(temp);
        }
        placed
    }

    /// Gives the finished file `temp` its name.
    fn place(
        &mut self,
        temp: &RelPath,
        goal: &Goal,
        over: Option<&Was>,
        keep: Option<&Keep>,
        source: Source<'_>,
    ) -> Done {
        let expected = self.look.seen(&self.fs.lstat(temp)?);
        self.look.check(&goal.path, over)?;
        match (over, keep) {
            (Some(over), Some(keep)) => self.place_and_keep(temp, over, keep, source)?,
            (Some(over), None) => self.replace(temp, over)?,
            (None, _) => self.names.rename(temp, &goal.path, false)?,
        }
        let seen = self.look.after_rename(&expected, &goal.path);
        self.stands(goal, seen);
        Ok(())
    }

    fn place_and_keep(
        &mut self,
        temp: &RelPath,
        over: &Was,
        keep: &Keep,
        source: Source<'_>,
    ) -> Done {
        let kept = &keep.goal.path;
        self.move_to(&over.path, kept, keep.over.as_ref())?;
        if let Err(error) = self.names.rename(temp, &over.path, false) {
            // Back to how it was. If even that fails, nothing is lost: it is kept.
            let _ = self.names.rename(kept, &over.path, false);
            return Err(error.into());
        }
        source.moved(&over.path, kept);
        self.follow(over, &keep.goal)
    }

    /// Puts `temp` in the place of what the plan saw there. The two swap, so that the path always names something and what
    /// was replaced can still be looked at: were it written to since the check, they swap back.
    fn replace(&mut self, temp: &RelPath, over: &Was) -> Done {
        match self.names.exchange(temp, &over.path) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                return Ok(self.names.rename(temp, &over.path, true)?);
            }
            result => result?,
        }
        let is_still = self.look.is_still(over, temp);
        if matches!(is_still, Ok(true)) {
            self.names.discard(temp.clone());
            return Ok(());
        }
        self.names.exchange(temp, &over.path)?;
        is_still.and(Err(Failed::ChangedMeanwhile))
    }

    /// Renames. What the plan saw at `to` is moved aside first, where it can be looked at again before it goes.
    fn move_to(&mut self, from: &RelPath, to: &RelPath, over: Option<&Was>) -> Done {
        self.look.check(to, over)?;
        let Some(over) = over else { return Ok(self.names.rename(from, to, false)?) };
        let aside = self.names.aside(to)?;
        let moved = match self.look.is_still(over, &aside) {
            Ok(true) => self.names.rename(from, to, false).map_err(Failed::from),
            Ok(false) => Err(Failed::ChangedMeanwhile),
            Err(why) => Err(why),
        };
        self.settle(aside, to, &moved);
        moved
    }

    /// What is aside goes if that was for good, otherwise it goes back.
    fn settle(&mut self, aside: RelPath, path: &RelPath, done: &Done) {
        if done.is_ok() || self.names.rename(&aside, path, false).is_err() {
            self.names.discard(aside);
        }
    }

    fn rename(&mut self, from: &Was, goal: &Goal, over: Option<&Was>, source: Source<'_>) -> Done {
        self.look.check(&from.path, Some(from))?;
        self.move_to(&from.path, &goal.path, over)?;
        source.moved(&from.path, &goal.path);
        self.applied.base.push((from.path.clone(), None));
        self.follow(from, goal)
    }

    /// After a rename: gives the file that was `from` the mode and time of `goal`.
    fn follow(&mut self, from: &Was, goal: &Goal) -> Done {
        let seen = self.look.after_rename(&from.seen, &goal.path);
        if from.state == goal.state {
            self.stands(goal, seen);
            return Ok(());
        }
        match self.touch(goal, from, &seen) {
            Ok(seen) => self.stands(goal, seen),
            Err(why) => {
                // It has its name; mode and time are the next run's.
                self.stands(&Goal { state: from.state.clone(), ..goal.clone() }, seen);
                return Err(why);
            }
        }
        Ok(())
    }

    fn park(&mut self, from: &Was, slot: usize) -> Done {
        self.look.check(&from.path, Some(from))?;
        let temp = self.names.aside(&from.path)?;
        self.vacated.insert(from.path.clone());
        self.parked.insert(slot, (temp, from.clone()));
        Ok(())
    }

    fn unpark(
        &mut self,
        slot: usize,
        from: &RelPath,
        goal: &Goal,
        over: Option<&Was>,
        source: Source<'_>,
    ) -> Done {
        let Some((temp, was)) = self.parked.get(&slot).cloned() else {
            return Err(Failed::Blocked);
        };
        self.move_to(&temp, &goal.path, over)?;
        self.parked.remove(&slot);
        source.moved(from, &goal.path);
        if self.vacated.remove(from) {
            self.applied.base.push((from.clone(), None));
        }
        self.follow(&was, goal)
    }

    /// A parked file whose place was not to be had goes back where it was. If that is taken by now, it goes: nothing that
    /// lives is ever parked.
    fn put_back(&mut self, temp: RelPath, from: &RelPath) {
        if self.names.rename(&temp, from, false).is_err() {
            self.names.discard(temp);
        }
    }

    fn set_meta(&mut self, goal: &Goal, was: &Was) -> Done {
        self.names.close_up(&was.path)?;
        self.look.check(&was.path, Some(was))?;
        let seen = self.touch(goal, was, &was.seen)?;
        self.stands(goal, seen);
        Ok(())
    }

    /// Gives what `was`, and looks as `seen`, the mode and time of `goal`. How it looks then.
    fn touch(&mut self, goal: &Goal, was: &Was, seen: &Seen) -> Result<Seen, Failed> {
        self.change_meta(goal, &was.state)?;
        let seen = self.look.after_touch(seen, &goal.path)?;
        self.ours(&goal.state, seen)
    }

    /// How something looks as far as we made it so. If it looks different than asked for, either the file system shows it
    /// like that, or the user changed it in the meantime, which the next scan is to find.
    fn ours(&mut self, state: &State, seen: Seen) -> Result<Seen, Failed> {
        let as_asked = match *state {
            State::File { mode, mtime_ns, .. } => (seen.mode, seen.mtime_ns) == (mode, mtime_ns),
            State::Dir { mode } => seen.mode == mode,
            State::Symlink { .. } => true,
        };
        if as_asked {
            return Ok(seen);
        }
        let shown = self.look.seen(&self.names.probe(state)?);
        Ok(Seen { mode: shown.mode, mtime_ns: shown.mtime_ns, ..seen })
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

    fn remove_file(&mut self, was: &Was) -> Done {
        if !self.look.is_absent(&was.path)? {
            self.look.check(&was.path, Some(was))?;
            let aside = self.names.aside(&was.path)?;
            let still = match self.look.is_still(was, &aside) {
                Ok(true) => Ok(()),
                Ok(false) => Err(Failed::ChangedMeanwhile),
                Err(why) => Err(why),
            };
            self.settle(aside, &was.path, &still);
            still?;
        }
        self.applied.base.push((was.path.clone(), None));
        Ok(())
    }

    fn remove_dir(&mut self, path: &RelPath) -> Done {
        if let Err(error) = self.names.remove_dir(path) {
            match error.kind() {
                io::ErrorKind::NotFound => {}
                io::ErrorKind::DirectoryNotEmpty => return Err(Failed::NotEmpty),
                io::ErrorKind::NotADirectory => return Err(Failed::ChangedMeanwhile),
                _ => return Err(error.into()),
            }
        }
        self.applied.base.push((path.clone(), None));
        Ok(())
    }

    fn fail(&mut self, path: &RelPath, why: Failed) {
        self.applied.failed.push(Failure { path: path.clone(), why });
    }

    /// Notes that `goal` is reached.
    fn stands(&mut self, goal: &Goal, seen: Seen) {
        let Goal { path, state, source } = goal.clone();
        self.vacated.remove(&path);
        self.applied.base.push((path, Some(Base { state, source, seen })));
    }

    /// Brings the names that changed to the disk. Where that fails, nothing is said to have happened.
    fn sync(&mut self) {
        for (dir, error) in self.names.sync() {
            let base = std::mem::take(&mut self.applied.base);
            let (inside, outside) = base.into_iter().partition(|(path, _)| path.parent() == dir);
            self.applied.base = outside;
            for (path, _) in inside {
                self.fail(&path, io::Error::new(error.kind(), error.to_string()).into());
            }
        }
    }
}

fn is_write(action: &Action) -> bool {
    matches!(action, Action::WriteFile { .. })
}

/// The path that an action clears, and the path that it fills.
fn paths_of(action: &Action) -> (Option<&RelPath>, Option<&RelPath>) {
    match action {
        Action::MakeDir { goal }
        | Action::WriteFile { goal, .. }
        | Action::Symlink { goal, .. }
        | Action::Unpark { goal, .. }
        | Action::SetMeta { goal, .. } => (None, Some(&goal.path)),
        Action::Rename { from, goal, .. } => (Some(&from.path), Some(&goal.path)),
        Action::Park { from, .. } => (Some(&from.path), None),
        Action::RemoveFile { was } => (Some(&was.path), None),
        Action::RemoveDir { path } => (Some(path), None),
        Action::Adopt { path, .. } => (None, Some(path)),
    }
}
