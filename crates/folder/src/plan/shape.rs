//! What is irregular in a tree of values, gathered in one pass so that the next can stream: conflict copies, files that
//! must make way for a directory, and directories that nobody recorded. On most trees there is nothing of either.

use super::copies::copy_name;
use super::targets::{Group, groups};
use crate::base::{Value, ValueId};
use crate::path::RelPath;
use crate::sorted::{InputError, Sorted};
use crate::state::State;
use anabranch_core::sabotage::{self, Bug};
use std::collections::{BTreeMap, BTreeSet};

/// A losing value that shows as a file or link of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConflictCopy {
    /// The path whose conflict it is.
    pub of: RelPath,
    /// What the copy is.
    pub state: State,
    /// The values that say so.
    pub values: Vec<ValueId>,
    author: String,
    at_ms: u64,
    attempt: usize,
}

/// The irregular part of a tree.
#[derive(Debug, Clone, Default)]
pub struct Shape {
    pub(super) copies: BTreeMap<RelPath, ConflictCopy>,
    /// Directories without a value of their own that contain something.
    pub(super) implied: BTreeSet<RelPath>,
    /// Paths whose values want a file there although something lives below them.
    pub(super) displaced: BTreeSet<RelPath>,
}

/// A path that something may still come below of.
struct Open {
    path: RelPath,
    groups: Vec<Group>,
    is_parent: bool,
}

impl Shape {
    /// Gathers it from the live values of every path (the winner first), in the order of the paths. A path without values
    /// is as good as absent.
    ///
    /// # Errors
    /// [`InputError`] when the input fails or is out of order.
    pub fn gather<E>(
        there: impl Iterator<Item = Result<(RelPath, Vec<Value>), E>>,
    ) -> Result<Self, InputError<E>> {
        let mut shape = Self::default();
        let mut open: Vec<Open> = Vec::new();
        let mut there = Sorted::new(there);
        while let Some(path) = there.peek()?.cloned() {
            let values = there.take(&path)?.unwrap_or_default();
            if !values.is_empty() {
                while let Some(done) = open.pop_if(|open| !open.may_contain(&path)) {
                    shape.finish(done);
                }
                shape.note_parents(&mut open, &path);
                open.push(Open { path, groups: groups(values), is_parent: false });
            }
        }
        open.into_iter().for_each(|done| shape.finish(done));
        Ok(shape)
    }

    /// The conflict copies there are, by name. A file of the user's that has the same name moves a copy to a longer one.
    pub fn copies(&self) -> impl Iterator<Item = (&RelPath, &ConflictCopy)> {
        self.copies.iter()
    }

    /// Makes sure that the directories above `path` are directories.
    fn note_parents(&mut self, open: &mut [Open], path: &RelPath) {
        for dir in path.ancestors() {
            let known = match open.iter_mut().rfind(|open| open.path == dir) {
                Some(open) => std::mem::replace(&mut open.is_parent, true),
                None => !self.implied.insert(dir),
            };
            if known {
                break; // and so are those above it
            }
        }
    }

    fn finish(&mut self, Open { path, groups, is_parent }: Open) {
        let shown = shown(&groups, is_parent);
        if shown != Some(0) {
            self.displaced.insert(path.clone());
        }
        for (i, group) in groups.into_iter().enumerate() {
            if Some(i) != shown && !group.state.is_dir() && !sabotage::is(Bug::CopyDropped) {
                let Group { state, values, author, at_ms } = group;
                let of = path.clone();
                self.place(ConflictCopy { of, state, values, author, at_ms, attempt: 0 });
            }
        }
    }

    /// Puts a copy under the first name that no other copy has.
    fn place(&mut self, mut copy: ConflictCopy) {
        while let Some(name) = copy.name() {
            match self.copies.get(&name) {
                None => {
                    self.copies.insert(name, copy);
                    return;
                }
                Some(_) => copy.attempt += 1,
            }
        }
    }

    /// Moves the copy `name` to its next name, since something else is there.
    pub(super) fn displace(&mut self, name: &RelPath) {
        if let Some(mut copy) = self.copies.remove(name) {
            copy.attempt += 1;
            self.place(copy);
        }
    }
}

impl ConflictCopy {
    fn name(&self) -> Option<RelPath> {
        let id = self.values.first()?;
        copy_name(&self.of, id, &self.author, self.at_ms, self.attempt)
    }
}

/// Which of the groups of a path shows at the path itself; none if it is a directory that none of them is.
pub(super) fn shown(groups: &[Group], is_parent: bool) -> Option<usize> {
    if is_parent {
        groups.iter().position(|group| group.state.is_dir())
    } else {
        (!groups.is_empty()).then_some(0)
    }
}

impl Open {
    /// Whether `next`, or anything that comes after it, can be below this path. What comes between a directory and its
    /// contents (`a`, `a.txt`, `a/b`) begins with its name, so that each open path is a prefix of the one after it.
    fn may_contain(&self, next: &RelPath) -> bool {
        let rest = next.as_bytes().strip_prefix(self.path.as_bytes());
        rest.is_some_and(|rest| rest.first().is_some_and(|byte| *byte <= b'/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::targets::tests::{dir, file, link, there};

    fn names(shape: &Shape) -> Vec<String> {
        shape.copies().map(|(name, copy)| format!("{name} of {}", copy.of)).collect()
    }

    fn shape(values: &[(&str, &[Value])]) -> Shape {
        Shape::gather(there(values)).unwrap()
    }

    #[test]
    fn an_ordinary_tree_has_no_irregularities() {
        let tree = [("a", &[dir(1)][..]), ("a.txt", &[file(2)]), ("a/b", &[file(3)])];
        let Shape { copies, implied, displaced } = shape(&tree);
        assert!(copies.is_empty() && implied.is_empty() && displaced.is_empty());
    }

    #[test]
    fn a_file_with_something_below_it_makes_way() {
        let shape = shape(&[
            ("a", &[file(1)]),
            ("a.b", &[file(2)]),
            ("a.b/x", &[file(3)]),
            ("a/y/z", &[file(4)]),
        ]);
        let paths =
            |set: &BTreeSet<RelPath>| set.iter().map(RelPath::to_string).collect::<Vec<_>>();
        assert_eq!(paths(&shape.displaced), ["a", "a.b"]);
        assert_eq!(paths(&shape.implied), ["a/y"]);
        let names = names(&shape);
        assert_eq!(names.len(), 2, "{names:?}");
        assert!(names[0].starts_with("a (conflict") && names[0].ends_with(" of a"));
        assert!(names[1].starts_with("a (conflict") && names[1].ends_with(".b of a.b"));
    }

    #[test]
    fn a_directory_among_the_values_shows_when_something_is_below() {
        let shape = shape(&[("a", &[file(1), dir(2), link(3)]), ("a/b", &[file(4)])]);
        assert_eq!(names(&shape).len(), 2);
        assert!(shape.displaced.contains(&RelPath::new("a").unwrap()));
    }

    #[test]
    fn values_that_agree_make_one_copy_and_a_lost_directory_none() {
        let same = Value { id: ValueId(vec![9]), ..file(2) };
        let shape = shape(&[("a", &[file(1), file(2), same, dir(3)])]);
        assert_eq!(names(&shape).len(), 1);
        assert_eq!(shape.copies.values().next().unwrap().values.len(), 2);
    }

    #[test]
    fn paths_without_values_are_absent() {
        let shape = shape(&[("a", &[]), ("a/b", &[]), ("c/d", &[])]);
        assert!(shape.implied.is_empty() && shape.displaced.is_empty());
    }
}
