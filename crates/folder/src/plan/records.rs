//! The first half of the planner: what the user did since the base, as records for the database and changes to the base.

use super::targets::{Slot, Targets};
use crate::base::{Base, Seen, Source, Value, ValueId};
use crate::hold::Hold;
use crate::path::RelPath;
use crate::scan::{Here, Local};
use crate::sorted::{InputError, Sorted};
use crate::state::{Kept, State};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

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
                Some(Base { state: state.clone(), source, seen: *seen })
            }
            Self::Delete | Self::DropValues { .. } => None,
        }
    }
}

/// The values that the base knows as conflict copies: with them the planner follows where a copy went.
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

    fn among<'v>(
        &self,
        values: impl Iterator<Item = &'v ValueId>,
    ) -> impl Iterator<Item = ValueId> {
        values.filter(|value| self.0.contains(value)).cloned()
    }

    pub(super) fn any(&self, values: &[ValueId]) -> bool {
        !self.0.is_empty() && values.iter().any(|value| self.0.contains(value))
    }
}

/// What the user did since the base: `rows` from a [`crate::scan::Scan`] against the tree of the values that live now. The
/// steps of one path are to be committed together; between paths the caller may stop and commit.
///
/// The same disk can come about in two ways: by the user's hands, or by an apply that was interrupted before it reached the
/// base. What is as the tree wants it is therefore taken as done and not recorded. And content that is missing at one path,
/// or replaced there, while its value shows elsewhere, counts as moved, not as deleted, if it is found there. That is known
/// when everything was looked at: see [`Records::undecided`].
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
    let rows = Sorted::new(rows.map(keyed));
    let (done, steps, undecided) = Default::default();
    Records { rows, targets, slot: None, copies, done, steps, undecided }
}

type Keyed<E> = fn(Result<Local, E>) -> Result<(RelPath, Local), E>;

/// The steps of [`plan_records`] that need no look elsewhere, in the order of the paths. Ends with the first error.
pub struct Records<'a, E, R, T> {
    rows: Sorted<std::iter::Map<R, Keyed<E>>, Local>,
    targets: Targets<T>,
    slot: Option<Slot>,
    copies: &'a SeenCopies,
    done: BTreeMap<RelPath, Base>,
    steps: VecDeque<LocalStep>,
    undecided: Undecided,
}

/// What went from its path and may stand elsewhere.
#[derive(Debug, Default)]
#[must_use = "what is not decided is never recorded"]
pub struct Undecided {
    waiting: Vec<Waiting>,
    /// What conflict copies, present and former, were found to hold where they show or showed.
    standing: Held,
    /// Where they show or showed without anything having been seen there: the place, of what it is a copy, and what it holds.
    unseen: Vec<(RelPath, RelPath, State)>,
    /// The values that the base knows as copies and that live.
    living: BTreeSet<ValueId>,
}

/// Contents of paths: by the path whose value they are. Which value says so does not count: another one says the same
/// when somebody changed the mode.
#[derive(Debug, Default)]
struct Held(BTreeMap<RelPath, Vec<State>>);

impl Held {
    fn add(&mut self, of: RelPath, state: State) {
        self.0.entry(of).or_default().push(state);
    }

    fn has(&self, of: &RelPath, state: &State) -> bool {
        self.0.get(of).is_some_and(|states| states.iter().any(|held| held.same_content(state)))
    }
}

/// Something that went from a path, to be judged when it is known whether it stands elsewhere.
#[derive(Debug)]
struct Waiting {
    /// The path whose value it was.
    of: RelPath,
    state: State,
    /// The values whose copy it was, if it was one. If none of them lives any more nobody need be told that it is gone.
    copy: Vec<ValueId>,
    /// If it does.
    moved: Vec<LocalStep>,
    /// If it does not.
    lost: Vec<LocalStep>,
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
            match self.row() {
                Err(error) => return Some(Err(error)),
                Ok(true) => {}
                Ok(false) => return None,
            }
        }
    }
}

impl<E, R, T> Records<'_, E, R, T>
where
    R: Iterator<Item = Result<Local, E>>,
    T: Iterator<Item = Result<(RelPath, Vec<Value>), E>>,
{
    /// Rows that an interrupted apply was to bring about in the place of others. Such a thing is the apply's work and not the
    /// user's, even if the tree asks for something else by now, unless what it replaced lives and stands nowhere.
    #[must_use]
    pub fn knowing(mut self, done: BTreeMap<RelPath, Base>) -> Self {
        self.done = done;
        self
    }

    /// What is left to be decided when all other steps were taken.
    pub fn undecided(self) -> Undecided {
        self.undecided
    }

    /// Takes in one row; `false` when there are no more.
    fn row(&mut self) -> Result<bool, InputError<E>> {
        let path = self.rows.peek()?.cloned();
        let slot = self.slot_at(path.as_ref())?;
        let Some(path) = path else { return Ok(false) };
        let Some(Local { base, here, .. }) = self.rows.take(&path)? else { return Ok(false) };
        self.note_base(&path, base.as_ref(), &here);
        self.note_slot(slot.as_ref(), &here);
        let done = self.done.remove(&path);
        if let Some(done) = &done {
            self.note_done(&path, done, &here);
        }
        match (Row { path, slot, copies: self.copies, done }).compare(base, here) {
            Judged::Now(steps) => self.steps.extend(steps),
            Judged::Later(waiting) => self.undecided.waiting.push(*waiting),
        }
        Ok(true)
    }

    fn note_base(&mut self, path: &RelPath, base: Option<&Base>, here: &Here) {
        match base {
            Some(Base { state, source: Source::Copy { of, .. }, .. }) => {
                self.undecided.note(path, of, state, here);
            }
            // Its copy is on its way out, or in.
            Some(Base { state, source, .. }) if self.copies.any(source.values()) => {
                self.undecided.note(path, path, state, here);
            }
            _ => {}
        }
    }

    /// What an interrupted apply put at `path` showed or shows there, whatever the tree has there by now.
    fn note_done(&mut self, path: &RelPath, done: &Base, here: &Here) {
        let of = match &done.source {
            Source::Copy { of, .. } => of,
            Source::Path { .. } => path,
        };
        self.undecided.note(path, of, &done.state, here);
    }

    fn note_slot(&mut self, slot: Option<&Slot>, here: &Here) {
        let values = slot.into_iter().flat_map(|slot| &slot.groups).flat_map(|group| &group.values);
        self.undecided.living.extend(self.copies.among(values));
        match slot {
            Some(Slot { path, state, source: Source::Copy { of, .. }, .. }) => {
                self.undecided.note(path, of, state, here);
            }
            Some(Slot { path, state, source, .. }) if self.copies.any(source.values()) => {
                self.undecided.note(path, path, state, here);
            }
            _ => {}
        }
    }

    /// What the tree has at `path`; at no path, all that is left of the tree is passed by.
    fn slot_at(&mut self, path: Option<&RelPath>) -> Result<Option<Slot>, InputError<E>> {
        while self.slot.as_ref().is_none_or(|slot| path.is_none_or(|path| slot.path < *path)) {
            if let Some(passed) = self.slot.take() {
                self.note_slot(Some(&passed), &Here::Hidden);
            }
            match self.targets.next() {
                Some(slot) => self.slot = Some(slot?),
                None => return Ok(None),
            }
        }
        Ok(self.slot.take_if(|slot| Some(&slot.path) == path))
    }
}

impl Undecided {
    /// Notes what is at a place where a value of `of` shows or showed as `state`.
    fn note(&mut self, place: &RelPath, of: &RelPath, state: &State, here: &Here) {
        match here {
            Here::Present { state: now, .. } if state.same_content(now) => {
                self.standing.add(of.clone(), state.clone());
            }
            Here::Hidden => self.unseen.push((place.clone(), of.clone(), state.clone())),
            Here::Present { .. } | Here::Gone => {}
        }
    }

    /// The steps that are left, now that it is known what could not be looked at. What may stand where it is `hidden` is
    /// neither moved nor lost, and the base goes on to say where it was (I6).
    pub fn decide(self, hidden: &Hold) -> impl Iterator<Item = LocalStep> + use<> {
        let Self { waiting, standing, unseen, living } = self;
        let mut perhaps = Held::default();
        for (place, of, state) in unseen {
            if hidden.covers(&place) {
                perhaps.add(of, state);
            }
        }
        waiting.into_iter().flat_map(move |Waiting { of, state, copy, moved, lost }| {
            let is_over = !copy.is_empty() && !copy.iter().any(|value| living.contains(value));
            if is_over || standing.has(&of, &state) {
                moved
            } else if perhaps.has(&of, &state) {
                Vec::new()
            } else {
                lost
            }
        })
    }
}

/// One path, being compared.
struct Row<'a> {
    path: RelPath,
    slot: Option<Slot>,
    copies: &'a SeenCopies,
    /// What an interrupted apply was to put here.
    done: Option<Base>,
}

enum Judged {
    Now(Vec<LocalStep>),
    Later(Box<Waiting>),
}

impl Row<'_> {
    fn compare(self, base: Option<Base>, here: Here) -> Judged {
        match (base, here) {
            (_, Here::Hidden) | (None, Here::Gone) => Judged::Now(Vec::new()),
            (Some(base), Here::Gone) => self.gone(base),
            (None, Here::Present { state, seen }) => Judged::Now(vec![self.found(state, seen)]),
            (Some(base), Here::Present { state, seen }) => {
                if base.state.same_content(&state) {
                    Judged::Now(self.same(base, state, seen))
                } else {
                    self.changed(base, state, seen)
                }
            }
        }
    }

    fn gone(self, base: Base) -> Judged {
        let forget = vec![LocalStep::Forget { path: self.path.clone() }];
        let replaces = self.seen_values(&base);
        let lost = match &base.source {
            Source::Copy { of, .. } => dropped(of.clone(), self.path.clone(), replaces),
            // Deleted elsewhere too, or by an apply that was interrupted.
            Source::Path { values } if !self.any_lives(values) => return Judged::Now(forget),
            Source::Path { .. } => {
                let path = self.path.clone();
                LocalStep::Record(Record { path, change: Change::Delete, replaces })
            }
        };
        self.judge(base, vec![lost], forget)
    }

    /// Something with the content of the base.
    fn same(self, base: Base, state: State, seen: Seen) -> Vec<LocalStep> {
        if base.state == state {
            let same = base.seen.looks_like(&seen) && base.seen.settled == seen.settled;
            return if same { Vec::new() } else { vec![self.adopt(state, base.source, seen)] };
        }
        // Mode or time changed. That is recorded where the content still is the one that lives; it does not bring back
        // what was deleted or replaced elsewhere, and it does not make a copy more than a copy.
        let done_already = self.slot.as_ref().is_some_and(|slot| slot.state == state);
        let implied = base.source.values().is_empty();
        let lives = implied || self.any_lives(base.source.values());
        if done_already || base.source.is_copy() || !lives {
            return vec![self.adopt(state, base.source, seen)];
        }
        let replaces = self.seen_values(&base);
        vec![self.put(state, seen, replaces)]
    }

    /// Something else than the base says.
    fn changed(self, base: Base, state: State, seen: Seen) -> Judged {
        let replaces = self.seen_values(&base);
        let mut lost = Vec::new();
        let done = || self.done_source(&state).map(|source| (source, state.kept().copied()));
        let arrived = self.arrived(Some(&base), &state).or_else(done);
        let moved = match arrived {
            Some((source, kept)) => self.adopt(state.clone().kept_as(kept), source, seen),
            None => self.put(state.clone(), seen, Vec::new()),
        };
        match &base.source {
            _ if matches!(moved, LocalStep::Adopt { .. }) && self.is_over(&base, &state) => {
                return Judged::Now(vec![moved]);
            }
            Source::Path { .. } => lost.push(self.put(state, seen, replaces)),
            Source::Copy { of, .. } => {
                lost.push(dropped(of.clone(), self.path.clone(), replaces));
                lost.push(self.put(state, seen, Vec::new()));
            }
        }
        self.judge(base, lost, vec![moved])
    }

    /// Something that the base does not know.
    fn found(self, state: State, seen: Seen) -> LocalStep {
        match self.arrived(None, &state) {
            Some((source, kept)) => self.adopt(state.kept_as(kept), source, seen),
            None => self.put(state, seen, Vec::new()),
        }
    }

    /// What became of the content of `base`, which is not here any more: if it stands elsewhere, at a place where its values
    /// show or showed, it was `moved`; otherwise, or if no value says it any more, it is `lost`.
    fn judge(self, base: Base, lost: Vec<LocalStep>, moved: Vec<LocalStep>) -> Judged {
        let values = self.living(&base);
        let shows_here =
            self.slot.as_ref().is_some_and(|slot| share(slot.source.values(), &values));
        if values.is_empty() || (shows_here && !self.copies.any(&values)) {
            return Judged::Now(lost);
        }
        let (of, copy) = match base.source {
            Source::Copy { of, values } => (of, values),
            Source::Path { .. } => (self.path, Vec::new()),
        };
        Judged::Later(Box::new(Waiting { of, state: base.state, copy, moved, lost }))
    }

    /// Where `state` comes from, if an interrupted apply was to put it here.
    fn done_source(&self, state: &State) -> Option<Source> {
        let done = self.done.as_ref().filter(|done| done.state.same_content(state))?;
        Some(done.source.clone())
    }

    /// Whether what the base has lives no more, so that nobody need be told that `state` stands in its place. Another value
    /// of the same content came after an apply put `state` there, and does not count then. Nor does a directory that lost a
    /// conflict, for which what the apply put there stands as well.
    fn is_over(&self, base: &Base, state: &State) -> bool {
        let living = self.living(base);
        let done = self.done_source(state).filter(|_| !base.source.is_copy());
        living.is_empty()
            || done.is_some_and(|source| {
                !self.any_lives(base.source.values())
                    || living.iter().all(|value| source.values().contains(value))
            })
    }

    /// The values that may still say what the base has.
    fn living(&self, base: &Base) -> Vec<ValueId> {
        if base.source.is_copy() {
            return base.source.values().to_vec();
        }
        let mut groups = self.slot.iter().flat_map(|slot| &slot.groups);
        let same = groups.find(|group| group.state.same_content(&base.state));
        same.map(|group| group.values.clone()).unwrap_or_default()
    }

    /// The values that `state` already is, and how they are kept: both sides had it before they met, or an apply was interrupted between the disk
    /// and the base. A losing value does not count if the user can have taken it from the base or from a copy: then it is a
    /// choice, to be recorded.
    fn arrived(&self, base: Option<&Base>, state: &State) -> Option<(Source, Option<Kept>)> {
        let slot = self.slot.as_ref()?;
        if slot.state.same_content(state) {
            return Some((slot.source.clone(), slot.state.kept().copied()));
        }
        let group = slot.groups.iter().find(|group| group.state.same_content(state))?;
        let values = &group.values;
        let at_hand = base.is_some_and(|base| share(base.source.values(), values));
        let known = at_hand || self.copies.any(values);
        let source = Source::Path { values: values.clone() };
        (!known).then(|| (source, group.state.kept().copied()))
    }

    /// The live values whose content the user saw at this path: those of the base, and those that came since and differ
    /// from them in mode or time only.
    fn seen_values(&self, base: &Base) -> Vec<ValueId> {
        let mut values = base.source.values().to_vec();
        let slot = self.slot.as_ref().filter(|_| !base.source.is_copy());
        let groups = slot.into_iter().flat_map(|slot| &slot.groups);
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
        LocalStep::Adopt { path: self.path.clone(), base: Base { state, source, seen } }
    }

    fn put(&self, state: State, seen: Seen, replaces: Vec<ValueId>) -> LocalStep {
        let (path, change) = (self.path.clone(), Change::Put { state, seen });
        LocalStep::Record(Record { path, change, replaces })
    }
}

fn dropped(of: RelPath, copy: RelPath, values: Vec<ValueId>) -> LocalStep {
    LocalStep::Record(Record { path: of, change: Change::DropValues { copy }, replaces: values })
}

fn share(a: &[ValueId], b: &[ValueId]) -> bool {
    a.iter().any(|value| b.contains(value))
}
