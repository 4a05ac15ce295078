//! The order of actions. Each can be carried out when those before it have been:
//!
//! 1. files that are in the way of others are parked;
//! 2. directories are made, parents first;
//! 3. files are renamed, the end of each chain first, a cycle through a parked file;
//! 4. files and links are written;
//! 5. everything that is not wanted is removed, contents before directories;
//! 6. what had to wait for that: directories, renames, parked files, files and links.
//!
//! So what is new stands before what is old goes, as far as both fit on one disk.

use super::actions::{Action, Diff, Diffs, Goal, Keep, Was};
use super::moves::{How, Move, Moves, is_clear, wants_dir, was_dir};
use crate::path::RelPath;
use crate::state::State;
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn in_order(diffs: &Diffs, moves: &Moves) -> Vec<Action> {
    let mut order = Order { diffs, moves, parked: BTreeMap::new(), actions: Vec::new() };
    let cycles = moves.cycles();
    order.park(&cycles);
    order.make_dirs(true);
    order.rename_early(&cycles);
    order.write(true);
    order.remove();
    order.make_dirs(false);
    order.rename_late(&cycles);
    order.write(false);
    order.actions
}

struct Order<'a> {
    diffs: &'a Diffs,
    moves: &'a Moves,
    /// Files that wait, by where they came from.
    parked: BTreeMap<&'a RelPath, usize>,
    actions: Vec<Action>,
}

impl<'a> Order<'a> {
    fn park(&mut self, cycles: &[&'a RelPath]) {
        let waits = |step: &&'a Move| step.how == How::Park;
        let moves = self.moves;
        let parked = moves.to.values().filter(waits).map(|step| &step.from);
        for (slot, from) in parked.chain(cycles.iter().copied()).enumerate() {
            if let Some(was) = self.was(from) {
                self.parked.insert(from, slot);
                self.actions.push(Action::Park { from: was, slot });
            }
        }
    }

    fn make_dirs(&mut self, clear: bool) {
        for (path, diff) in self.diffs.iter().filter(|(_, diff)| wants_dir(diff)) {
            let early = diff.was.is_none() && is_clear(self.diffs, path);
            if early == clear
                && let Some(goal) = goal(path, diff)
            {
                self.actions.push(Action::MakeDir { goal });
            }
        }
    }

    /// Follows each chain to its end and renames from there.
    fn rename_early(&mut self, cycles: &[&'a RelPath]) {
        let mut done: BTreeSet<&RelPath> = cycles.iter().copied().collect();
        for start in self.moves.from.keys() {
            let mut chain = Vec::new();
            let mut at = start;
            while let Some(to) = self.moves.early(at)
                && done.insert(at)
            {
                chain.push(to);
                at = to;
            }
            chain.into_iter().rev().for_each(|to| self.rename(to));
        }
        for from in cycles {
            if let Some(to) = self.moves.early(from) {
                self.rename(to);
            }
        }
    }

    fn rename_late(&mut self, cycles: &[&'a RelPath]) {
        for (to, step) in &self.moves.to {
            let late = step.how == How::Late || step.how == How::Park;
            if late && !cycles.contains(&&step.from) {
                self.rename(to);
            }
        }
    }

    /// The move that leads to `to`, from where it waits if it was parked.
    fn rename(&mut self, to: &RelPath) {
        let (Some(step), Some(diff)) = (self.moves.to.get(to), self.diffs.get(to)) else { return };
        let (Some(from), Some(goal)) = (self.was(&step.from), goal(to, diff)) else { return };
        let over = self.over(to);
        self.actions.push(match self.parked.get(&step.from) {
            Some(slot) => Action::Unpark { slot: *slot, from: from.path, goal, over },
            None => Action::Rename { from, goal, over },
        });
    }

    fn write(&mut self, clear: bool) {
        for (path, diff) in self.diffs {
            let early = !was_dir(diff) && is_clear(self.diffs, path);
            if early != clear || self.moves.to.contains_key(path) {
                continue;
            }
            let Some(goal) = goal(path, diff) else { continue };
            let over = self.over(path);
            match goal.state {
                State::File { .. } => {
                    let keep = self.keep(path).map(Box::new);
                    self.actions.push(Action::WriteFile { goal, over, keep });
                }
                State::Symlink { .. } => self.actions.push(Action::Symlink { goal, over }),
                State::Dir { .. } => {}
            }
        }
    }

    fn keep(&self, path: &RelPath) -> Option<Keep> {
        let to = self.moves.from.get(path)?;
        let how = self.moves.to.get(to)?.how;
        let goal = goal(to, self.diffs.get(to)?)?;
        (how == How::Keep).then(|| Keep { goal, over: self.over(to) })
    }

    fn remove(&mut self) {
        for (path, diff) in self.diffs.iter().rev() {
            if self.moves.from.contains_key(path) {
                continue;
            }
            let Some(was) = self.was(path) else { continue };
            let replaced = diff.goal.is_some() && !wants_dir(diff);
            match was.state {
                State::Dir { .. } => self.actions.push(Action::RemoveDir { path: was.path }),
                _ if !replaced => self.actions.push(Action::RemoveFile { was }),
                _ => {}
            }
        }
    }

    fn was(&self, path: &RelPath) -> Option<Was> {
        let base = self.diffs.get(path)?.was.as_ref()?;
        Some(Was { path: path.clone(), state: base.state.clone(), seen: base.seen })
    }

    /// What is at `path` when something is put there: nothing if it was moved away or had to be removed.
    fn over(&self, path: &RelPath) -> Option<Was> {
        let kept = |to: &RelPath| self.moves.to.get(to).is_some_and(|step| step.how == How::Keep);
        let moved = self.moves.from.get(path).is_some_and(|to| !kept(to));
        self.was(path).filter(|was| !moved && !was.state.is_dir())
    }
}

fn goal(path: &RelPath, diff: &Diff) -> Option<Goal> {
    let (state, source) = diff.goal.clone()?;
    Some(Goal { path: path.clone(), state, source })
}
