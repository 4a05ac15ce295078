//! Which files move instead of being written anew, and which must: content that leaves a path while a value that names it
//! lives goes to where that value shows now.
//!
//! A move goes from a path that loses its content to a path that wants it; no path is in two moves at either end. So
//! moves form chains (`a` to `b`, `b` to `c`) and cycles (a swap).

use super::actions::{Diff, Diffs, Homes, Saying};
use crate::base::Base;
use crate::hold::Hold;
use crate::path::RelPath;
use crate::state::State;
use anabranch_core::blob::ContentRef;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// How a file gets to its new name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// Renamed before anything is removed.
    Early,
    /// Renamed after what is in its way was removed.
    Late,
    /// Renamed at the moment in which new content replaces it.
    Keep,
    /// Moved out of the way first and in place last.
    Park,
}

/// A move to some path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Move {
    pub(super) from: RelPath,
    pub(super) how: How,
    /// Whether the content may not be lost: it is moved or stays.
    needed: bool,
}

/// All moves, by where they lead.
#[derive(Debug, Default)]
pub(super) struct Moves {
    pub(super) to: BTreeMap<RelPath, Move>,
    /// Where each move starts: its destination.
    pub(super) from: BTreeMap<RelPath, RelPath>,
    pub(super) put_off: Vec<RelPath>,
}

impl Moves {
    /// Finds the moves among `diffs`, from which it takes out what has to wait for a later run.
    pub(super) fn find(diffs: &mut Diffs, homes: &Homes, hidden: &Hold) -> Self {
        let mut moves = Self::default();
        moves.save_what_lives(diffs, homes, hidden);
        moves.match_content(diffs);
        while moves.settle(diffs) || moves.break_needed_cycle(diffs) {}
        moves
    }

    fn add(&mut self, from: RelPath, to: RelPath, needed: bool) {
        self.from.insert(from.clone(), to.clone());
        self.to.insert(to, Move { from, how: How::Early, needed });
    }

    fn drop_to(&mut self, to: &RelPath) -> Option<Move> {
        let dropped = self.to.remove(to)?;
        self.from.remove(&dropped.from);
        Some(dropped)
    }

    fn save_what_lives(&mut self, diffs: &mut Diffs, homes: &Homes, hidden: &Hold) {
        let mut waiting = Vec::new();
        for (path, diff) in &*diffs {
            let Some(was) = diff.was.as_ref().filter(|was| !was.state.is_dir()) else { continue };
            let home = match &diff.saying {
                Saying::Nobody => continue,
                Saying::Here => homes.find(path, &was.state),
                Saying::Elsewhere(of) => homes.find(of, &was.state),
            };
            if home.is_none() && matches!(diff.saying, Saying::Elsewhere(_)) {
                continue;
            }
            let saved = match home.map(|home| (home, diffs.get(home))) {
                Some((home, None)) => !hidden.covers(home),
                Some((home, Some(there))) => {
                    let goal = there.goal.as_ref().map(|(state, _)| state);
                    let fits = goal.is_some_and(|goal| goal.same_content(&was.state))
                        && !self.to.contains_key(home);
                    if fits {
                        self.add(path.clone(), home.clone(), true);
                    }
                    fits
                }
                None => false,
            };
            if !saved {
                waiting.push(path.clone());
            }
        }
        for path in waiting {
            self.put_off(diffs, &path);
        }
    }

    /// Pairs what is wanted with what becomes free, the same name first, what is removed before what is replaced.
    fn match_content(&mut self, diffs: &Diffs) {
        let mut free: HashMap<ContentRef, Vec<&RelPath>> = HashMap::new();
        for (path, diff) in diffs {
            if let Some(content) = loses(diff)
                && content.size() > 0
                && !self.from.contains_key(path)
            {
                free.entry(*content).or_default().push(path);
            }
        }
        for (to, diff) in diffs {
            if self.to.contains_key(to) {
                continue;
            }
            let Some(sources) = wants(diff).and_then(|content| free.get_mut(content)) else {
                continue;
            };
            let worth = |from: &&&RelPath| {
                let removed = diffs.get(**from).is_some_and(|diff| diff.goal.is_none());
                (removed, from.name() == to.name())
            };
            let best = sources.iter().max_by_key(worth).copied();
            if let Some(from) = best {
                sources.retain(|source| *source != from);
                self.add(from.clone(), to.clone(), false);
            }
        }
    }

    /// Decides how each move is made, and gives up those that cannot be. Returns whether that may change others.
    fn settle(&mut self, diffs: &mut Diffs) -> bool {
        let mut again = false;
        for to in self.to.keys().cloned().collect::<Vec<_>>() {
            let Some(step) = self.to.get(&to) else { continue };
            let (from, needed) = (step.from.clone(), step.needed);
            match self.how(diffs, &from, &to, needed) {
                Some(how) => {
                    if let Some(step) = self.to.get_mut(&to) {
                        step.how = how;
                    }
                }
                None if needed => {
                    self.put_off(diffs, &from);
                    again = true;
                }
                None => {
                    self.drop_to(&to);
                    again = true;
                }
            }
        }
        again
    }

    /// Where `from` is renamed to early, if it is.
    pub(super) fn early(&self, from: &RelPath) -> Option<&RelPath> {
        let to = self.from.get(from)?;
        (self.to.get(to)?.how == How::Early).then_some(to)
    }

    /// One path of each cycle of early moves: the first.
    pub(super) fn cycles(&self) -> Vec<&RelPath> {
        let mut seen = BTreeSet::new();
        let mut cycles = Vec::new();
        for start in self.from.keys() {
            let mut at = start;
            while seen.insert(at)
                && let Some(next) = self.early(at)
            {
                if next == start {
                    cycles.push(start);
                }
                at = next;
            }
        }
        cycles
    }

    /// The paths of the cycle of early moves that `start` is in.
    fn members<'m>(&'m self, start: &'m RelPath) -> impl Iterator<Item = &'m RelPath> {
        let next = move |at: &&'m RelPath| self.early(at).filter(|next| *next != start);
        std::iter::successors(Some(start), next)
    }

    /// A cycle has to park a file, and one that may not be lost is not parked: a crash would leave it where nobody looks.
    /// Where something comes that may be lost, it is written anew instead; if that is nowhere, all of them wait.
    fn break_needed_cycle(&mut self, diffs: &mut Diffs) -> bool {
        let is_needed = |to: &&RelPath| self.to.get(*to).is_some_and(|step| step.needed);
        let cycles = self.cycles();
        let found = cycles.into_iter().find(|start| self.members(start).any(|to| is_needed(&to)));
        let Some(start) = found.cloned() else { return false };
        let given_up = self.members(&start).find(|to| !is_needed(to)).cloned();
        match given_up {
            Some(to) => drop(self.drop_to(&to)),
            None => self.put_off(diffs, &start),
        }
        true
    }

    fn how(&self, diffs: &Diffs, from: &RelPath, to: &RelPath, needed: bool) -> Option<How> {
        let early = is_clear(diffs, to) && diffs.get(to).is_some_and(|diff| !was_dir(diff));
        let rewritten = !self.to.contains_key(from) && diffs.get(from).and_then(wants).is_some();
        if rewritten {
            // Were it moved away before its new content is at hand, the path would be empty for who knows how long.
            return (needed && early).then_some(How::Keep);
        }
        let stays_put = diffs.get(from).is_some_and(|diff| diff.goal.is_none())
            && from.ancestors().all(|dir| diffs.get(&dir).is_none_or(wants_dir));
        match (early, stays_put, needed) {
            (true, _, _) => Some(How::Early),
            (_, true, _) => Some(How::Late),
            (_, _, true) => None,
            _ => Some(How::Park),
        }
    }

    /// Leaves `path` as it is in this run, and with it all that depends on its change.
    fn put_off(&mut self, diffs: &mut Diffs, path: &RelPath) {
        let mut waiting = vec![path.clone()];
        while let Some(path) = waiting.pop() {
            let Some(diff) = diffs.remove(&path) else { continue };
            if let Some(to) = self.from.get(&path).cloned() {
                self.drop_to(&to);
            }
            if let Some(Move { from, needed: true, .. }) = self.drop_to(&path) {
                waiting.push(from);
            }
            if wants_dir(&diff) {
                waiting.extend(diffs.keys().filter(|other| other.is_below(&path)).cloned());
            }
            self.put_off.push(path);
        }
    }
}

/// The content of a file that is to be written, or moved, to a path.
pub(super) fn wants(diff: &Diff) -> Option<&ContentRef> {
    diff.goal.as_ref().and_then(|(state, _)| state.content())
}

/// The content of a file that goes from a path.
fn loses(diff: &Diff) -> Option<&ContentRef> {
    diff.was.as_ref().and_then(|was| was.state.content())
}

pub(super) fn wants_dir(diff: &Diff) -> bool {
    diff.goal.as_ref().is_some_and(|(state, _)| state.is_dir())
}

pub(super) fn was_dir(diff: &Diff) -> bool {
    matches!(&diff.was, Some(Base { state: State::Dir { .. }, .. }))
}

/// Whether everything above `path` is a directory already, or is made one without anything being removed.
pub(super) fn is_clear(diffs: &Diffs, path: &RelPath) -> bool {
    path.ancestors().all(|dir| diffs.get(&dir).is_none_or(|diff| diff.was.is_none()))
}
