//! The second half of the planner: what to do to the disk so that it becomes the tree.

use super::moves::Moves;
use super::order::in_order;
use super::records::SeenCopies;
use super::targets::{Slot, Targets};
use crate::base::{Base, Seen, Source, Value};
use crate::hold::Hold;
use crate::path::RelPath;
use crate::sorted::{InputError, Sorted, first};
use crate::state::State;
use std::collections::{BTreeMap, BTreeSet};

/// What an action brings about: what is to be at a path, and which values say so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goal {
    /// The path.
    pub path: RelPath,
    /// What it is to be.
    pub state: State,
    /// Which values say so.
    pub source: Source,
}

/// What an action takes away or changes: if it is not there any more as it was, the action is not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Was {
    /// The path.
    pub path: RelPath,
    /// What it was.
    pub state: State,
    /// How it looked.
    pub seen: Seen,
}

/// Where the content that a [`Action::WriteFile`] replaces goes, in the same breath.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keep {
    /// Its new name.
    pub goal: Goal,
    /// What is there now.
    pub over: Option<Was>,
}

/// One thing to do to the disk. Where `over` is `None` there must be nothing at the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Create a directory.
    MakeDir {
        /// The directory.
        goal: Goal,
    },
    /// Write a file.
    WriteFile {
        /// The file.
        goal: Goal,
        /// What it replaces.
        over: Option<Was>,
        /// Under which name what it replaces is kept.
        keep: Option<Box<Keep>>,
    },
    /// Create a symbolic link.
    Symlink {
        /// The link.
        goal: Goal,
        /// What it replaces.
        over: Option<Was>,
    },
    /// Rename a file whose content is wanted elsewhere; mode and time follow.
    Rename {
        /// The file.
        from: Was,
        /// What it becomes.
        goal: Goal,
        /// What it replaces.
        over: Option<Was>,
    },
    /// Move a file out of the way, where it waits for an [`Action::Unpark`].
    Park {
        /// The file.
        from: Was,
        /// Under which number it waits.
        slot: usize,
    },
    /// Put a file that waits where it is wanted.
    Unpark {
        /// Its number.
        slot: usize,
        /// Where it came from.
        from: RelPath,
        /// What it becomes.
        goal: Goal,
        /// What it replaces.
        over: Option<Was>,
    },
    /// Set mode and time of a file, or the mode of a directory.
    SetMeta {
        /// What they are to be.
        goal: Goal,
        /// What there is.
        was: Was,
    },
    /// Remove a file or link.
    RemoveFile {
        /// What there is.
        was: Was,
    },
    /// Remove a directory, if nothing is in it.
    RemoveDir {
        /// The directory.
        path: RelPath,
    },
    /// Do nothing: the disk is right, and its row of the base becomes `base`.
    Adopt {
        /// The path.
        path: RelPath,
        /// Its row.
        base: Base,
    },
}

/// A path that cannot be brought up to date in this run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutOff {
    /// The path.
    pub path: RelPath,
    /// `true` if what is there is not known; `false` if its content lives and has to be saved first, which a later run does.
    pub hidden: bool,
}

/// What to do to the disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// In an order in which they can be carried out.
    pub actions: Vec<Action>,
    /// What cannot be done now.
    pub put_off: Vec<PutOff>,
}

impl Plan {
    /// Bytes of all files to be written.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let size = |action: &Action| match action {
            Action::WriteFile { goal, .. } => {
                goal.state.content().map_or(0, |content| content.size())
            }
            _ => 0,
        };
        self.actions.iter().map(size).fold(0, u64::saturating_add)
    }
}

/// A path that is not as it is to be: what the base has there, and what the tree wants.
#[derive(Debug)]
pub(super) struct Diff {
    pub(super) was: Option<Base>,
    pub(super) goal: Option<(State, Source)>,
    /// Whose value it is that may live and say what `was` says.
    pub(super) saying: Saying,
}

/// Which path's values may still say what the base has at a path.
#[derive(Debug)]
pub(super) enum Saying {
    /// None.
    Nobody,
    /// Values of this very path do.
    Here,
    /// Values of this one did when the path became their conflict copy.
    Elsewhere(RelPath),
}

/// Where the contents of conflict copies show, those that are copies now and those that were: by the path whose values they
/// are, and by what they say. Which value says so does not count: it is another one when somebody changed the mode.
#[derive(Debug, Default)]
pub(super) struct Homes(BTreeMap<RelPath, Vec<(State, RelPath)>>);

impl Homes {
    fn add(&mut self, of: RelPath, state: State, home: RelPath) {
        self.0.entry(of).or_default().push((state, home));
    }

    pub(super) fn find(&self, of: &RelPath, state: &State) -> Option<&RelPath> {
        let mut homes = self.0.get(of)?.iter();
        homes.find(|(shown, _)| shown.same_content(state)).map(|(_, home)| home)
    }
}

/// Paths that differ in kind or content, in order.
pub(super) type Diffs = BTreeMap<RelPath, Diff>;

/// What comparing the two trees leaves to be done.
#[derive(Default)]
pub(super) struct Compared {
    pub(super) diffs: Diffs,
    /// What differs in less than content.
    pub(super) touches: Vec<Action>,
    pub(super) homes: Homes,
    pub(super) hidden: BTreeSet<RelPath>,
}

/// What to do so that the disk, which is as `base` says except for what is `hidden`, becomes the tree. `copies` are those of
/// the same base.
///
/// # Errors
/// [`InputError`] when an input fails or is out of order.
pub fn plan_actions<E, B, T>(
    base: B,
    targets: Targets<T>,
    copies: &SeenCopies,
    hidden: &Hold,
) -> Result<Plan, InputError<E>>
where
    B: Iterator<Item = Result<(RelPath, Base), E>>,
    T: Iterator<Item = Result<(RelPath, Vec<Value>), E>>,
{
    let compared = compare(base, targets, copies, hidden)?;
    let Compared { mut diffs, touches, homes, hidden: unknown } = compared;
    let moves = Moves::find(&mut diffs, &homes, hidden);
    let mut actions = in_order(&diffs, &moves);
    actions.extend(touches);
    let unknown = unknown.into_iter().map(|path| PutOff { path, hidden: true });
    let unsaved = moves.put_off.into_iter().map(|path| PutOff { path, hidden: false });
    Ok(Plan { actions, put_off: unknown.chain(unsaved).collect() })
}

fn compare<E, B, T>(
    base: B,
    mut targets: Targets<T>,
    copies: &SeenCopies,
    hidden: &Hold,
) -> Result<Compared, InputError<E>>
where
    B: Iterator<Item = Result<(RelPath, Base), E>>,
    T: Iterator<Item = Result<(RelPath, Vec<Value>), E>>,
{
    let mut base = Sorted::new(base);
    let mut compared = Compared::default();
    let mut slot = targets.next().transpose()?;
    while let Some(path) = first(base.peek()?, slot.as_ref().map(|slot| &slot.path)).cloned() {
        let was = base.take(&path)?;
        let here = slot.take_if(|slot| slot.path == path);
        if here.is_some() {
            slot = targets.next().transpose()?;
        }
        compared.note_home(here.as_ref(), copies);
        compared.path(path, was, here, hidden);
    }
    Ok(compared)
}

impl Compared {
    fn note_home(&mut self, slot: Option<&Slot>, copies: &SeenCopies) {
        let Some(Slot { path, state, source, .. }) = slot else { return };
        let of = match source {
            Source::Copy { of, .. } => of,
            Source::Path { values } if copies.any(values) => path,
            Source::Path { .. } => return,
        };
        self.homes.add(of.clone(), state.clone(), path.clone());
    }

    fn path(&mut self, path: RelPath, was: Option<Base>, slot: Option<Slot>, hold: &Hold) {
        match (was, slot) {
            (Some(was), Some(slot)) if was.state.same_content(&slot.state) => {
                if let Some(action) = touch(was, slot) {
                    if hold.covers(&path) {
                        self.hidden.insert(path);
                    } else {
                        self.touches.push(action);
                    }
                }
            }
            (None, None) => {}
            _ if hold.covers(&path) => drop(self.hidden.insert(path)),
            (was, slot) => {
                let saying = was.as_ref().map_or(Saying::Nobody, |was| saying(was, slot.as_ref()));
                let goal = slot.map(|slot| (slot.state, slot.source));
                self.diffs.insert(path, Diff { was, goal, saying });
            }
        }
    }
}

/// What to do to something whose content is right.
fn touch(was: Base, slot: Slot) -> Option<Action> {
    let implied = slot.is_implied();
    let Slot { path, state, source, .. } = slot;
    let meta_is_right = implied || was.state == state || matches!(state, State::Symlink { .. });
    if !meta_is_right {
        let was = Was { path: path.clone(), state: was.state, seen: was.seen };
        return Some(Action::SetMeta { goal: Goal { path, state, source }, was });
    }
    // Of what is kept under several keys everybody has the pieces that others will ask for.
    let right = was.source == source && (implied || was.state.kept() == state.kept());
    let state = if implied { was.state } else { state };
    (!right).then_some(Action::Adopt { path, base: Base { state, source, seen: was.seen } })
}

fn saying(was: &Base, slot: Option<&Slot>) -> Saying {
    if let Source::Copy { of, .. } = &was.source {
        return Saying::Elsewhere(of.clone());
    }
    let mut groups = slot.into_iter().flat_map(|slot| &slot.groups);
    if groups.any(|group| group.state.same_content(&was.state)) {
        Saying::Here
    } else {
        Saying::Nobody
    }
}
