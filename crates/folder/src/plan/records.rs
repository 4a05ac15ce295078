//! The first half of the planner: what the user did since the base, as records for the database and changes to the base.

use super::targets::{Group, Slot, Targets};
use crate::base::{Base, Seen, Source, Value, ValueId};
use crate::path::RelPath;
use crate::scan::{Here, Local};
use crate::sorted::{InputError, Sorted, first};
use crate::state::State;
use std::collections::{BTreeSet, VecDeque};

/// Something to commit to the database: one operation on the cell of `path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The path.
    pub path: RelPath,
    /// What the user did.
    pub change: Change,
    /// The values it replaces: exactly those that the user saw.
    pub replaces: Vec<ValueId>,
}

/// What the user did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Created or changed something: `state` is the new value. Once it is committed, the base has a row of it with
    /// [`Change::base`].
    Put {
        /// What is there now.
        state: State,
        /// How it looks.
        seen: Seen,
    },
    /// Deleted it: no new value; the path's row of the base goes.
    Delete,
    /// Deleted or edited the conflict copy of values of the path: no new value; the row of the base for `copy` goes, unless
    /// a later step brings a new one.
    DropValues {
        /// The conflict copy.
        copy: RelPath,
    },
}

/// One step of the first half.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalStep {
    /// To commit.
    Record(Record),
    /// The disk already is as some values say, or looks different without having changed: the path's row of the base
    /// becomes `base`.
    Adopt {
        /// The path.
        path: RelPath,
        /// Its new row.
        base: Base,
    },
    /// The path is gone, and nobody needs to be told: its row of the base goes.
    Forget {
        /// The path.
        path: RelPath,
    },
}

impl Change {
    /// The row of the base that follows from a [`Change::Put`] committed as the value `id`.
    #[must_use]
    pub fn base(&self, id: ValueId) -> Option<Base> {
        match self {
            Self::Put { state, seen } => {
                let source = Source::Path { values: vec![id] };
                Some(Base { state: state.clone(), source, seen: *seen, leaving: false })
            }
            Self::Delete | Self::DropValues { .. } => None,
        }
    }
}

/// The values that the base knows as conflict copies, so that a copy which the user moved over its original is told from
/// an original that an interrupted apply had already brought up to date.
#[derive(Debug, Clone, Default)]
pub struct SeenCopies(BTreeSet<ValueId>);

impl SeenCopies {
    /// Gathers them from rows of the base; rows that are no copies may be left out.
    ///
    /// # Errors
    /// What the input failed with.
    pub fn gather<E>(rows: impl Iterator<Item = Result<(RelPath, Base), E>>) -> Result<Self, E> {
        let mut seen = Self::default();
        for row in rows {
            let (_, base) = row?;
            if let Source::Copy { values, .. } = base.source {
                seen.0.extend(values);
            }
        }
        Ok(seen)
    }

    pub(super) fn any(&self, values: &[ValueId]) -> bool {
        !self.0.is_empty() && values.iter().any(|value| self.0.contains(value))
    }
}

/// What the user did since the base: `rows` from a [`crate::scan::Scan`] against the tree of the values that live now. All
/// steps of one path are to be committed together; between paths the caller may stop and commit.
pub fn plan_records<E, R, T>(
    rows: R,
    targets: Targets<T>,
    copies: &SeenCopies,
) -> Records<'_, E, R, T>
where
    R: Iterator<Item = Result<Local, E>>,
    T: Iterator<Item = Result<(RelPath, Vec<Value>), E>>,
{
    let keyed: Keyed<E> = |row| row.map(|local| (local.path.clone(), local));
    Records {
        rows: Sorted::new(rows.map(keyed)),
        targets,
        slot: None,
        copies,
        steps: VecDeque::new(),
    }
}

type Keyed<E> = fn(Result<Local, E>) -> Result<(RelPath, Local), E>;

/// The steps of [`plan_records`], in the order of the paths. Ends with the first error.
pub struct Records<'a, E, R, T> {
    rows: Sorted<std::iter::Map<R, Keyed<E>>, Local>,
    targets: Targets<T>,
    slot: Option<Slot>,
    copies: &'a SeenCopies,
    steps: VecDeque<LocalStep>,
}

impl<E, R, T> Iterator for Records<'_, E, R, T>
where
    R: Iterator<Item = Result<Local, E>>,
    T: Iterator<Item = Result<(RelPath, Vec<Value>), E>>,
{
    type Item = Result<LocalStep, InputError<E>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(step) = self.steps.pop_front() {
                return Some(Ok(step));
            }
            match self.next_row() {
                Err(error) => return Some(Err(error)),
                Ok(None) => return None,
                Ok(Some(local)) => match self.slot_at(&local.path) {
                    Err(error) => return Some(Err(error)),
                    Ok(slot) => {
                        let copies = self.copies;
                        self.steps.extend(
                            Row { path: local.path, slot, copies }.compare(local.base, local.here),
                        );
                    }
                },
            }
        }
    }
}

impl<E, R, T> Records<'_, E, R, T>
where
    R: Iterator<Item = Result<Local, E>>,
    T: Iterator<Item = Result<(RelPath, Vec<Value>), E>>,
{
    fn next_row(&mut self) -> Result<Option<Local>, InputError<E>> {
        let Some(path) = first(self.rows.peek()?, None).cloned() else { return Ok(None) };
        self.rows.take(&path)
    }

    /// What the tree has at `path`.
    fn slot_at(&mut self, path: &RelPath) -> Result<Option<Slot>, InputError<E>> {
        while self.slot.as_ref().is_none_or(|slot| slot.path < *path) {
            match self.targets.next() {
                Some(slot) => self.slot = Some(slot?),
                None => return Ok(None),
            }
        }
        Ok(self.slot.take_if(|slot| slot.path == *path))
    }
}

/// One path, being compared.
struct Row<'a> {
    path: RelPath,
    slot: Option<Slot>,
    copies: &'a SeenCopies,
}

impl Row<'_> {
    fn compare(self, base: Option<Base>, here: Here) -> Vec<LocalStep> {
        match (base, here) {
            (_, Here::Hidden) | (None, Here::Gone) => Vec::new(),
            (Some(base), Here::Gone) => vec![self.gone(base)],
            (None, Here::Present { state, seen }) => vec![self.found(state, seen)],
            (Some(base), Here::Present { state, seen }) => {
                if base.state.same_content(&state) {
                    self.same(base, state, seen)
                } else {
                    self.changed(base, state, seen)
                }
            }
        }
    }

    fn gone(self, base: Base) -> LocalStep {
        let path = self.path.clone();
        match &base.source {
            _ if base.leaving => LocalStep::Forget { path },
            Source::Copy { of, values } => {
                LocalStep::Record(dropped(of.clone(), path, values.clone()))
            }
            // Deleted elsewhere too, or by an apply that was interrupted.
            Source::Path { values } if !self.any_lives(values) => LocalStep::Forget { path },
            Source::Path { .. } => {
                let replaces = self.seen_values(&base);
                LocalStep::Record(Record { path, change: Change::Delete, replaces })
            }
        }
    }

    /// Something with the content of the base.
    fn same(self, base: Base, state: State, seen: Seen) -> Vec<LocalStep> {
        if base.state == state {
            let same = base.seen.looks_like(&seen) && base.seen.settled == seen.settled;
            let path = self.path;
            let base = Base { seen, ..base };
            return if same { Vec::new() } else { vec![LocalStep::Adopt { path, base }] };
        }
        // Mode or time changed. That is recorded where the content still is the one that lives; it does not bring back
        // what was deleted or replaced elsewhere, and it does not make a copy more than a copy.
        let done_already = self.slot.as_ref().is_some_and(|slot| slot.state == state);
        let implied = base.source.values().is_empty();
        if done_already
            || base.source.is_copy()
            || !(implied || self.any_lives(base.source.values()))
        {
            return vec![self.adopt(state, base.source, seen)];
        }
        let replaces = self.seen_values(&base);
        vec![self.put(state, seen, replaces)]
    }

    /// Something else than the base says.
    fn changed(self, base: Base, state: State, seen: Seen) -> Vec<LocalStep> {
        if let Some(source) = self.arrived(Some(&base), &state) {
            return vec![self.adopt(state, source, seen)];
        }
        match &base.source {
            _ if base.leaving => vec![self.put(state, seen, Vec::new())],
            Source::Path { .. } => {
                let replaces = self.seen_values(&base);
                vec![self.put(state, seen, replaces)]
            }
            Source::Copy { of, values } => {
                let dropped = dropped(of.clone(), self.path.clone(), values.clone());
                vec![LocalStep::Record(dropped), self.put(state, seen, Vec::new())]
            }
        }
    }

    /// Something that the base does not know.
    fn found(self, state: State, seen: Seen) -> LocalStep {
        match self.arrived(None, &state) {
            Some(source) => self.adopt(state, source, seen),
            None => self.put(state, seen, Vec::new()),
        }
    }

    /// The values that `state` already is: both sides had it before they met, or an apply was interrupted between the disk
    /// and the base. Not where the user can have made it so from what the base knows: that is a choice, to be recorded.
    fn arrived(&self, base: Option<&Base>, state: &State) -> Option<Source> {
        let slot = self.slot.as_ref()?;
        let known = |values: &[ValueId]| {
            let at_hand = base.is_some_and(|base| share(base.source.values(), values));
            at_hand || self.copies.any(values)
        };
        if slot.state.same_content(state) {
            let is_copy = slot.source.is_copy();
            return (is_copy || !known(slot.source.values())).then(|| slot.source.clone());
        }
        let group = slot.groups.iter().find(|group| group.state.same_content(state))?;
        let Group { values, .. } = group;
        (!known(values)).then(|| Source::Path { values: values.clone() })
    }

    /// The live values whose content the user saw at this path: those of the base, and those that came since and differ
    /// from them in mode or time only.
    fn seen_values(&self, base: &Base) -> Vec<ValueId> {
        let mut values = base.source.values().to_vec();
        let groups = self.slot.iter().flat_map(|slot| &slot.groups);
        for group in groups.filter(|group| group.state.same_content(&base.state)) {
            let more = group.values.iter().filter(|value| !values.contains(value)).cloned();
            values.extend(more.collect::<Vec<_>>());
        }
        values
    }

    fn any_lives(&self, values: &[ValueId]) -> bool {
        let groups = self.slot.iter().flat_map(|slot| &slot.groups);
        groups.into_iter().any(|group| share(&group.values, values))
    }

    fn adopt(&self, state: State, source: Source, seen: Seen) -> LocalStep {
        let base = Base { state, source, seen, leaving: false };
        LocalStep::Adopt { path: self.path.clone(), base }
    }

    fn put(&self, state: State, seen: Seen, replaces: Vec<ValueId>) -> LocalStep {
        let (path, change) = (self.path.clone(), Change::Put { state, seen });
        LocalStep::Record(Record { path, change, replaces })
    }
}

fn dropped(of: RelPath, copy: RelPath, values: Vec<ValueId>) -> Record {
    Record { path: of, change: Change::DropValues { copy }, replaces: values }
}

fn share(a: &[ValueId], b: &[ValueId]) -> bool {
    a.iter().any(|value| b.contains(value))
}
