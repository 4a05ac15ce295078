//! Looking before and after: whether there still is what the plan saw, and how what stands there now looks.

use super::Failed;
use crate::base::Seen;
use crate::fs::{Clock, FileSystem, Kind, Stat};
use crate::path::RelPath;
use crate::plan::Was;
use crate::scan::{Keeping, Progress, hash_file};
use crate::state::State;
use std::io;

#[derive(Clone, Copy)]
pub(super) struct Look<'a> {
    pub(super) fs: &'a dyn FileSystem,
    pub(super) clock: &'a dyn Clock,
}

impl Look<'_> {
    pub(super) fn is_absent(&self, path: &RelPath) -> io::Result<bool> {
        match self.fs.lstat(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            stat => stat.map(|_| false),
        }
    }

    /// Refuses to go on unless at `path` there is what the plan saw.
    pub(super) fn check(&self, path: &RelPath, was: Option<&Was>) -> Result<(), Failed> {
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
    pub(super) fn is_still(&self, was: &Was, path: &RelPath) -> Result<bool, Failed> {
        let Was { state, seen, .. } = was;
        let stat = self.fs.lstat(path)?;
        let kind = match state {
            State::File { .. } => Kind::File,
            State::Dir { .. } => Kind::Dir,
            State::Symlink { .. } => Kind::Symlink,
        };
        let now = Seen { ctime_ns: seen.ctime_ns, ..self.seen(&stat) };
        if stat.kind != kind || !seen.looks_like(&now) {
            return Ok(false);
        }
        // Looking the same means little when it was written just before it was looked at.
        match state {
            State::Symlink { target } if !seen.settled => Ok(self.fs.read_link(path)? == *target),
            State::File { content, .. } if !seen.settled => {
                let mut progress = Progress::default();
                let read =
                    hash_file(self.fs, self.clock, path, Keeping::Open, &mut (), &mut progress);
                Ok(read.is_ok_and(|(now, _)| now.content == *content))
            }
            _ => Ok(true),
        }
    }

    pub(super) fn seen(&self, stat: &Stat) -> Seen {
        Seen::new(stat, self.clock.now_ns())
    }

    /// How something at `path` looks that looked as `expected` and was renamed. If it looks different it was written to, and if
    /// it cannot be looked at it may be gone: then the base says how it should look, so that the next scan finds out.
    pub(super) fn after_rename(&self, expected: &Seen, path: &RelPath) -> Seen {
        let unsure = Seen { settled: false, ..*expected };
        let Ok(stat) = self.fs.lstat(path) else { return unsure };
        let now = self.seen(&stat);
        let same = Seen { ctime_ns: expected.ctime_ns, ..now }.looks_like(expected);
        if same { Seen { settled: expected.settled, ..now } } else { unsure }
    }

    /// How something looks whose mode or time we set. Had it been written to just before, that would not show. What is
    /// something else by now is the next scan's: what we set says nothing about it.
    pub(super) fn after_touch(&self, expected: &Seen, path: &RelPath) -> Result<Seen, Failed> {
        let stat = self.fs.lstat(path)?;
        let now = self.seen(&stat);
        if now.inode != expected.inode {
            return Err(Failed::ChangedMeanwhile);
        }
        Ok(Seen { settled: stat.kind == Kind::Dir, ..now })
    }
}
