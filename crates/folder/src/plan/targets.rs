//! The tree that a set of live values asks for, path by path: the same on every replica that holds the same values (I2).

use super::shape::{ConflictCopy, Shape, shown};
use crate::base::{Source, Value, ValueId};
use crate::path::RelPath;
use crate::sorted::{InputError, Sorted, first};
use crate::state::{IMPLIED_DIR_MODE, State};

/// Live values of one path that agree in kind and content. They are no conflict with each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The winner's state among them.
    pub state: State,
    /// All of them, the winner first.
    pub values: Vec<ValueId>,
    pub(super) author: String,
    pub(super) at_ms: u64,
}

/// What is to be at one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// The path.
    pub path: RelPath,
    /// What it is to be.
    pub state: State,
    /// Which values say so.
    pub source: Source,
    /// All groups of live values of this path itself, the winner's first, those that show elsewhere included.
    pub groups: Vec<Group>,
}

/// The values in groups, each where its first value stands.
pub(super) fn groups(values: Vec<Value>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for Value { id, state, author, at_ms } in values {
        match groups.iter_mut().find(|group| group.state.same_content(&state)) {
            Some(group) => group.values.push(id),
            None => groups.push(Group { state, values: vec![id], author, at_ms }),
        }
    }
    groups
}

/// Iterates over the [`Slot`]s of a tree in the order of their paths.
pub struct Targets<I> {
    there: Sorted<I, Vec<Value>>,
    shape: Shape,
    over: bool,
}

impl<E, I: Iterator<Item = Result<(RelPath, Vec<Value>), E>>> Targets<I> {
    /// The tree of the live values `there` (the winner of each path first), in the order of the paths. `shape` was
    /// gathered from the same.
    pub fn new(shape: Shape, there: I) -> Self {
        Self { there: Sorted::new(there), shape, over: false }
    }

    fn step(&mut self) -> Result<Option<Slot>, InputError<E>> {
        loop {
            let implied = first(self.shape.implied.first(), self.shape.copies.keys().next());
            let Some(path) = first(self.there.peek()?, implied).cloned() else { return Ok(None) };
            let values = self.there.take(&path)?.unwrap_or_default();
            let implied = self.shape.implied.remove(&path);
            if !values.is_empty() || implied {
                // A file of the user's own has the name.
                self.shape.displace(&path);
                return Ok(Some(self.regular(path, groups(values))));
            }
            if let Some(copy) = self.shape.copies.remove(&path) {
                return Ok(Some(slot_of(path, copy)));
            }
        }
    }

    fn regular(&mut self, path: RelPath, groups: Vec<Group>) -> Slot {
        let is_parent = groups.is_empty() || self.shape.displaced.remove(&path);
        let shown = shown(&groups, is_parent);
        let state = match shown {
            Some(i) => groups[i].state.clone(),
            None => State::Dir { mode: IMPLIED_DIR_MODE },
        };
        // A directory that lost to a file has nothing to show; whoever changes the file has seen all there was to see.
        let speaks = |i: usize, group: &Group| Some(i) == shown || group.state.is_dir();
        let groups_speaking = groups.iter().enumerate().filter(|(i, group)| speaks(*i, group));
        let values = groups_speaking.flat_map(|(_, group)| group.values.clone()).collect();
        Slot { path, state, source: Source::Path { values }, groups }
    }
}

fn slot_of(path: RelPath, ConflictCopy { of, state, values, .. }: ConflictCopy) -> Slot {
    Slot { path, state, source: Source::Copy { of, values }, groups: Vec::new() }
}

impl<E, I: Iterator<Item = Result<(RelPath, Vec<Value>), E>>> Iterator for Targets<I> {
    type Item = Result<Slot, InputError<E>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let step = self.step().transpose();
        self.over = !matches!(step, Some(Ok(_)));
        step
    }
}

impl Slot {
    /// Whether this is a directory only because something in it is. Its mode on the disk is nobody's concern.
    #[must_use]
    pub fn is_implied(&self) -> bool {
        self.state.is_dir() && self.source.values().is_empty()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use anabranch_core::blob::{ChunkHash, ContentRef};
    use std::convert::Infallible;

    fn value(n: u8, state: State) -> Value {
        Value { id: ValueId(vec![n]), state, author: "ann".into(), at_ms: 1000 * u64::from(n) }
    }

    pub(in crate::plan) fn file(n: u8) -> Value {
        let content = ContentRef::new(n.into(), 0, ChunkHash([n; 32])).unwrap();
        value(n, State::File { content, kept: None, mode: 0o644, mtime_ns: n.into() })
    }

    pub(in crate::plan) fn dir(n: u8) -> Value {
        value(n, State::Dir { mode: 0o700 })
    }

    pub(in crate::plan) fn link(n: u8) -> Value {
        value(n, State::Symlink { target: vec![n] })
    }

    pub(in crate::plan) fn there(
        values: &[(&str, &[Value])],
    ) -> impl Iterator<Item = Result<(RelPath, Vec<Value>), Infallible>> + Clone + use<> {
        let values: Vec<_> =
            values.iter().map(|(path, v)| Ok((RelPath::new(*path).unwrap(), v.to_vec()))).collect();
        values.into_iter()
    }

    fn slots(values: &[(&str, &[Value])]) -> Vec<Slot> {
        let there = there(values);
        let shape = Shape::gather(there.clone()).unwrap();
        Targets::new(shape, there).map(Result::unwrap).collect()
    }

    fn paths(slots: &[Slot]) -> Vec<String> {
        slots.iter().map(|slot| slot.path.to_string()).collect()
    }

    #[test]
    fn slots_come_in_order_copies_and_implied_directories_included() {
        let slots = slots(&[("a.txt", &[file(1), file(2)]), ("b/c/d", &[link(3)])]);
        let copy = "a (conflict 1970-01-01 00-00-02 ann ab13bedf).txt";
        assert_eq!(paths(&slots), [copy, "a.txt", "b", "b/c", "b/c/d"]);
        assert!(slots[2].is_implied() && slots[3].is_implied() && !slots[4].is_implied());
        assert_eq!(slots[0].source.values(), [ValueId(vec![2])]);
        assert_eq!(slots[1].source.values(), [ValueId(vec![1])]);
    }

    #[test]
    fn a_copy_gives_way_to_the_users_own_file() {
        let own = "a (conflict 1970-01-01 00-00-02 ann ab13bedf).txt";
        let slots = slots(&[(own, &[file(9)]), ("a.txt", &[file(1), file(2)])]);
        assert_eq!(slots.len(), 3);
        assert_eq!(slots[0].state, file(9).state);
        assert!(paths(&slots)[1].starts_with("a (conflict 1970-01-01 00-00-02 ann ab13bedf"));
        assert_eq!(slots[1].state, file(2).state);
    }

    #[test]
    fn a_copy_gives_way_as_often_as_it_must() {
        let of = RelPath::new("a").unwrap();
        let name = |i| super::super::copy_name(&of, &ValueId(vec![2]), "ann", 2000, i).unwrap();
        for taken in [1, 4, 5, 40] {
            let names: Vec<String> = (0..taken).map(|i| name(i).to_string()).collect();
            let nine = [file(9)];
            let two = [file(1), file(2)];
            let mut tree: Vec<(&str, &[Value])> = vec![("a", &two)];
            tree.extend(names.iter().map(|name| (name.as_str(), &nine[..])));
            let slots = slots(&tree);
            let copy = slots.iter().find(|slot| slot.source.is_copy());
            assert_eq!(copy.map(|slot| &slot.path), Some(&name(taken)), "{taken} names are taken");
            assert_eq!(slots.len(), taken + 2);
        }
    }

    #[test]
    fn whoever_changes_a_file_has_seen_the_directory_that_lost_to_it() {
        let slots = slots(&[("a", &[file(1), dir(2)])]);
        assert_eq!(slots.len(), 1);
        assert_eq!(slots[0].source.values(), [ValueId(vec![1]), ValueId(vec![2])]);
    }
}
