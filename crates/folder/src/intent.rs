//! What is about to be done to the disk, noted before it is: if the program dies in the middle, the next update knows what
//! is there of its own doing and what its user's, even if the tree asks for something else by then (I6).
//!
//! A row is `[base row]` or `[base row, from]` in the canonical encoding: what the path is to become, with nothing in place of
//! how it looks, and from where it is to be moved there. Of what is only to go nothing is noted: that it is gone does not say
//! by whose hand, and to record it once too often does no harm.

use crate::base::{Base, BaseError, Seen};
use crate::error::FolderError;
use crate::fs::{Clock, FileSystem, Kind, is_absent};
use crate::hold::Hold;
use crate::nodes::Nodes;
use crate::path::{MAX_PATH, RelPath};
use crate::plan::{Action, Goal, Was};
use crate::record::sync_dir;
use crate::scan::{Keeping, Problem, Progress, hash_file};
use crate::state::{MODE_BITS, State};
use crate::tables::{base_row, set_base, set_in_step, store};
use anabranch_core::codec::{DecodeError, Reader, Writer};
use anabranch_core::storage::{Durability, Order, ReadTx, Storage, StorageError, Table, WriteTx};
use anabranch_core::view::View;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::ControlFlow;

const INTENT: &[u8] = b"intent/";
/// No row of the base is longer: it names values, a path and a link's target.
const ROW_BYTES: usize = 1 << 26;
/// How a thing looks that is not there yet.
const UNSEEN: Seen = Seen { mode: 0, inode: 0, size: 0, mtime_ns: 0, ctime_ns: 0, settled: false };

/// What one path is to go through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// What it is to become, with nothing in place of how that looks.
    pub goal: Base,
    /// From where that is to be moved.
    pub from: Option<RelPath>,
}

impl Intent {
    /// The row.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.array(1 + usize::from(self.from.is_some())).bytes(&self.goal.encode());
        if let Some(from) = &self.from {
            w.bytes(from.as_bytes());
        }
        w.finish()
    }

    /// Reads a row. Bounds are those of [`Base`] and [`RelPath`].
    ///
    /// # Errors
    /// [`BaseError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, BaseError> {
        let mut r = Reader::new(bytes);
        let parts = r.array("intent", 2)?;
        let goal = Base::decode(r.bytes("base row", ROW_BYTES)?)?;
        let from = match parts {
            1 => None,
            2 => Some(RelPath::new(r.bytes("path", MAX_PATH)?)?),
            _ => return Err(DecodeError::Malformed { what: "intent", at: 0 }.into()),
        };
        r.finish()?;
        Ok(Self { goal, from })
    }
}

fn key(path: &RelPath) -> Vec<u8> {
    [INTENT, path.as_bytes()].concat()
}

/// What `actions` amount to, path by path.
fn intents<'a>(actions: &'a [Action]) -> BTreeMap<&'a RelPath, Intent> {
    let mut goals: Vec<&Goal> = Vec::new();
    let mut moved: Vec<(&Goal, &RelPath)> = Vec::new();
    for action in actions {
        match action {
            Action::MakeDir { goal } | Action::Symlink { goal, .. } => goals.push(goal),
            Action::WriteFile { goal, keep, .. } => {
                goals.push(goal);
                moved.extend(keep.iter().map(|keep| (&keep.goal, &goal.path)));
            }
            Action::Rename { from: Was { path, .. }, goal, .. }
            | Action::Unpark { from: path, goal, .. } => {
                moved.push((goal, path));
            }
            // A mode that is only half set is planned anew, or is the user's by now.
            Action::SetMeta { .. } | Action::Adopt { .. } | Action::Park { .. } => {}
            Action::RemoveFile { .. } | Action::RemoveDir { .. } => {}
        }
    }
    let goals = goals.into_iter().map(|goal| (goal, None));
    let moved = moved.into_iter().map(|(goal, from)| (goal, Some(from.clone())));
    let intent = |(goal, from): (&'a Goal, _)| {
        let (state, source) = (goal.state.clone(), goal.source.clone());
        (&goal.path, Intent { goal: Base { state, source, seen: UNSEEN }, from })
    };
    goals.chain(moved).map(intent).collect()
}

/// Notes durably what `actions` are going to do. To be called before they are carried out.
pub(crate) fn note(storage: &dyn Storage, actions: &[Action]) -> Result<(), StorageError> {
    let intents = intents(actions);
    if intents.is_empty() {
        return Ok(());
    }
    let mut tx = storage.write(Durability::Full)?;
    for (path, intent) in intents {
        tx.put(Table::Local, &key(path), &intent.encode())?;
    }
    tx.commit()
}

/// Forgets what was noted of `actions`: the base says now what came of them.
pub(crate) fn clear(tx: &mut dyn WriteTx, actions: &[Action]) -> Result<(), StorageError> {
    for path in intents(actions).into_keys() {
        tx.delete(Table::Local, &key(path))?;
    }
    Ok(())
}

/// What an interrupted update left that the scan has to know of.
#[derive(Debug, Default)]
pub(crate) struct Left {
    /// What stands where the base says something else, and was put there by the update or by the user: see
    /// [`crate::plan::Records::knowing`]. The notes stay until [`settled`].
    pub(crate) done: BTreeMap<RelPath, Base>,
    /// Paths that nobody can look at now, and why not.
    pub(crate) problems: Vec<Problem>,
    /// These paths, and those from where something was to be moved there: it may be what the user seems to have deleted or
    /// replaced.
    pub(crate) hold: Hold,
}

/// Takes into the base what an update did that was interrupted before it could say so. Cost: nothing where none was; else
/// a look at each path that was noted, and reading those files again.
pub(crate) fn recover(
    storage: &dyn Storage,
    fs: &dyn FileSystem,
    clock: &dyn Clock,
) -> Result<Left, FolderError> {
    let mut open = Left::default();
    let before = storage.read()?;
    let left = left(&*before)?;
    if left.is_empty() {
        return Ok(open);
    }
    let ring = View::new(&*before).ring()?;
    let (mut found, mut moved, mut dirs) = (Vec::new(), Vec::new(), BTreeSet::new());
    // An older copy of the database may have come back, that has not heard of the content yet.
    let nodes = Nodes::new(storage);
    for (path, intent) in left {
        let key = intent.goal.state.kept().and_then(|kept| ring.key(&kept.key));
        let keeping = if ring.seals(&store()) { Keeping::Sealed(key) } else { Keeping::Open };
        let ours = match ours(fs, clock, &path, &intent, keeping, &nodes) {
            Ok(ours) => ours,
            Err(error) => {
                // It is looked at when it can be.
                open.hold.add(path.clone());
                intent.from.into_iter().for_each(|from| open.hold.add(from));
                open.problems.push(Problem { path, what: error.into() });
                continue;
            }
        };
        // A row that is there says what stood here before, and what became of that is for the scan to find out.
        let ours = match base_row(&*before, &path)? {
            None => ours,
            Some(old) => {
                if let Some(base) = ours.filter(|new| !new.state.same_content(&old.state)) {
                    open.done.insert(path, base);
                    continue;
                }
                None
            }
        };
        if ours.is_some() {
            dirs.insert(path.parent());
        }
        // Only if it is where it was to be moved it did not go by the user's hand.
        if let (Some(_), Some(from)) = (&ours, intent.from)
            && is_absent(fs, &from)
        {
            dirs.insert(from.parent());
            moved.push(from);
        }
        found.push((path, ours));
    }
    // The program died before it could see to that, and a base that says more than the disk holds after a loss of power
    // would make what is gone then the user's doing.
    for dir in dirs {
        sync_dir(fs, dir.as_ref())?;
    }
    drop(before);
    let mut tx = storage.write(Durability::Full)?;
    set_in_step(&mut *tx, None)?;
    nodes.store(&mut *tx)?;
    for from in moved {
        if base_row(&*tx, &from)?.is_some() {
            set_base(&mut *tx, &from, None)?;
        }
    }
    for (path, ours) in found {
        if let Some(base) = ours {
            set_base(&mut *tx, &path, Some(&base))?;
        }
        tx.delete(Table::Local, &key(&path))?;
    }
    tx.commit()?;
    Ok(open)
}

/// Forgets what was noted of `paths`: the base says now what stands there.
pub(crate) fn settled(storage: &dyn Storage, paths: &[RelPath]) -> Result<(), StorageError> {
    if paths.is_empty() {
        return Ok(());
    }
    let mut tx = storage.write(Durability::Full)?;
    for path in paths {
        tx.delete(Table::Local, &key(path))?;
    }
    tx.commit()
}

fn left(tx: &dyn ReadTx) -> Result<Vec<(RelPath, Intent)>, StorageError> {
    let mut rows = Vec::new();
    tx.scan(Table::Local, INTENT, None, Order::Ascending, &mut |key, value| {
        let Some(path) = key.strip_prefix(INTENT) else { return ControlFlow::Break(()) };
        rows.push((RelPath::new(path.to_vec()).ok(), Intent::decode(value).ok()));
        ControlFlow::Continue(())
    })?;
    rows.into_iter()
        .map(|(path, intent)| {
            let damaged = || StorageError::Corrupt("what a folder's update noted".into());
            Ok((path.ok_or_else(damaged)?, intent.ok_or_else(damaged)?))
        })
        .collect()
}

/// What is at `path`, as a row of the base, if it is what was to come there.
fn ours(
    fs: &dyn FileSystem,
    clock: &dyn Clock,
    path: &RelPath,
    intent: &Intent,
    keeping: Keeping<'_>,
    mut nodes: &Nodes<'_>,
) -> io::Result<Option<Base>> {
    let now = clock.now_ns();
    let stat = match fs.lstat(path) {
        Err(_) if is_absent(fs, path) => return Ok(None),
        stat => stat?,
    };
    let goal = &intent.goal;
    let (state, seen) = match (&goal.state, stat.kind) {
        (State::Dir { .. }, Kind::Dir) => {
            (State::Dir { mode: stat.mode & MODE_BITS }, Seen::new(&stat, now))
        }
        (State::Symlink { target }, Kind::Symlink) if fs.read_link(path)? == *target => {
            (goal.state.clone(), Seen::new(&stat, now))
        }
        (State::File { content, kept, .. }, Kind::File) if content.size() == stat.size => {
            let read = hash_file(fs, clock, path, keeping, &mut nodes, &mut Progress::default());
            let (found, seen) = read.map_err(io::Error::other)?;
            if found.content != *content {
                return Ok(None);
            }
            // With its mode and time as they are: what is still to be set is planned anew.
            let (mode, mtime_ns) = (seen.mode & MODE_BITS, seen.mtime_ns);
            // What somebody only says is kept of it, others could not have from here.
            let kept = kept.filter(|kept| found.kept == Some(*kept));
            (State::File { content: *content, kept, mode, mtime_ns }, seen)
        }
        _ => return Ok(None),
    };
    Ok(Some(Base { state, source: goal.source.clone(), seen }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Source;
    use crate::fs::{ManualClock, MemFs};
    use anabranch_core::blob::{ChunkHash, ContentRef, Piece};
    use anabranch_store::MemoryStorage;
    use anabranch_sync::work::Blobs;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn path(name: &str) -> RelPath {
        RelPath::new(name).unwrap()
    }

    fn dir(name: &str, mode: u32) -> Goal {
        let source = Source::Path { values: Vec::new() };
        Goal { path: path(name), state: State::Dir { mode }, source }
    }

    fn file(bytes: &[u8]) -> State {
        let content = ContentRef::new(bytes.len() as u64, 0, ChunkHash::of(bytes)).unwrap();
        State::File { content, kept: None, mode: 0o644, mtime_ns: 5 }
    }

    #[test]
    fn what_was_done_and_what_was_not_are_told_apart() {
        let clock = Arc::new(ManualClock::at(1_000_000_000_000));
        let (fs, storage) = (MemFs::new(clock.clone()), MemoryStorage::new());
        let seen = UNSEEN;
        let was = |name: &str, state: State| Was { path: path(name), state, seen };
        let source = Source::Path { values: Vec::new() };
        let goal =
            |name: &str, state: State| Goal { path: path(name), state, source: source.clone() };
        let actions = [
            Action::MakeDir { goal: dir("made", 0o755) },
            Action::MakeDir { goal: dir("not made", 0o755) },
            Action::WriteFile { goal: goal("written", file(b"text")), over: None, keep: None },
            Action::WriteFile { goal: goal("other", file(b"text")), over: None, keep: None },
            Action::RemoveFile { was: was("removed", file(b"old")) },
            Action::RemoveFile { was: was("still there", file(b"old")) },
        ];
        let old = |state: State| Base { state, source: source.clone(), seen };
        let mut tx = storage.write(Durability::Full).unwrap();
        for name in ["removed", "still there"] {
            set_base(&mut *tx, &path(name), Some(&old(file(b"old")))).unwrap();
        }
        tx.commit().unwrap();
        note(&storage, &actions).unwrap();
        // The program dies after half of it, and the user writes something else.
        fs.make_dir(&path("made")).unwrap();
        fs.write(&path("written"), b"text").unwrap();
        fs.write(&path("other"), b"user").unwrap();
        fs.write(&path("still there"), b"old").unwrap();
        recover(&storage, &fs, &*clock).unwrap();
        let tx = storage.read().unwrap();
        let has = |name: &str| base_row(&*tx, &path(name)).unwrap().map(|base| base.state);
        assert!(matches!(has("made"), Some(State::Dir { .. })));
        assert!(matches!(has("written"), Some(State::File { .. })));
        for name in ["not made", "other"] {
            assert_eq!(has(name), None, "{name}");
        }
        // The next scan says what went.
        assert!(has("removed").is_some() && has("still there").is_some());
        assert!(left(&*tx).unwrap().is_empty(), "it is done once");
    }

    /// The program was killed before it could see to that, and what the base says must outlive the power.
    #[test]
    fn what_is_taken_into_the_base_is_on_the_disk() {
        let clock = Arc::new(ManualClock::at(1_000_000_000_000));
        let (fs, storage) = (MemFs::new(clock.clone()), MemoryStorage::new());
        fs.make_dir(&path("d")).unwrap();
        fs.keep_journal();
        let source = Source::Path { values: Vec::new() };
        let state = State::Symlink { target: b"t".to_vec() };
        let goal = Goal { path: path("d/new"), state, source };
        note(&storage, &[Action::Symlink { goal, over: None }]).unwrap();
        fs.symlink(b"t", &path("d/new")).unwrap();
        recover(&storage, &fs, &*clock).unwrap();
        fs.lose_power(&mut |_| 0);
        let tx = storage.read().unwrap();
        assert!(base_row(&*tx, &path("d/new")).unwrap().is_some());
        assert!(fs.lstat(&path("d/new")).is_ok(), "the base would take it for deleted by the user");
    }

    /// What was to be moved and is nowhere was deleted by the user, before or after it was moved.
    #[test]
    fn what_was_moved_is_told_from_what_the_user_deleted() {
        for is_moved in [false, true] {
            let clock = Arc::new(ManualClock::at(1_000_000_000_000));
            let (fs, storage) = (MemFs::new(clock.clone()), MemoryStorage::new());
            let source = Source::Path { values: Vec::new() };
            let state = file(b"text");
            let base = Base { state: state.clone(), source: source.clone(), seen: UNSEEN };
            let mut tx = storage.write(Durability::Full).unwrap();
            set_base(&mut *tx, &path("from"), Some(&base)).unwrap();
            tx.commit().unwrap();
            let from = Was { path: path("from"), state: state.clone(), seen: UNSEEN };
            let goal = Goal { path: path("to"), state, source };
            note(&storage, &[Action::Rename { from, goal, over: None }]).unwrap();
            if is_moved {
                fs.write(&path("to"), b"text").unwrap();
            }
            recover(&storage, &fs, &*clock).unwrap();
            let tx = storage.read().unwrap();
            let has = |name: &str| base_row(&*tx, &path(name)).unwrap().is_some();
            assert_eq!((has("from"), has("to")), (!is_moved, is_moved));
        }
    }

    /// The database was put back to an older copy that knows of a file only that it was to be written.
    #[test]
    fn what_was_written_can_be_handed_to_peers() {
        let clock = Arc::new(ManualClock::at(1_000_000_000_000));
        let mut state = 1u32;
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .take(500_000)
        .collect();
        let mut names = Vec::new();
        let mut builder = anabranch_core::blob::Builder::new();
        let mut tell = |piece: Piece<'_>| {
            names.push(match piece {
                Piece::Chunk { span, .. } => span.hash,
                Piece::Node { hash, .. } => hash,
            });
            Ok::<_, io::Error>(())
        };
        builder.push(&bytes, &mut tell).unwrap();
        let content = builder.finish(&mut tell).unwrap();
        assert!(content.depth() > 0 && names.len() > 2);
        for before in [None, Some(b"what stood there")] {
            let fs = MemFs::new(clock.clone());
            let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
            let name = path(if before.is_some() { "replaced" } else { "new" });
            let source = Source::Path { values: Vec::new() };
            if let Some(before) = before {
                let base = Base { state: file(before), source: source.clone(), seen: UNSEEN };
                let mut tx = storage.write(Durability::Full).unwrap();
                set_base(&mut *tx, &name, Some(&base)).unwrap();
                tx.commit().unwrap();
            }
            let state = State::File { content, kept: None, mode: 0o644, mtime_ns: 5 };
            let goal = Goal { path: name.clone(), state, source };
            note(&*storage, &[Action::WriteFile { goal, over: None, keep: None }]).unwrap();
            fs.write(&name, &bytes).unwrap();
            let left = recover(&*storage, &fs, &*clock).unwrap();
            // What the records do that are planned from it.
            let mut tx = storage.write(Durability::Full).unwrap();
            for (path, base) in left.done {
                set_base(&mut *tx, &path, Some(&base)).unwrap();
            }
            tx.commit().unwrap();
            let blobs = crate::FolderBlobs::new(Arc::clone(&storage), Arc::new(fs.clone()));
            for hash in &names {
                assert!(blobs.get(hash).unwrap().is_some(), "{name} was written and is not served");
            }
        }
    }

    #[test]
    fn what_an_update_could_finish_is_forgotten() {
        let storage = MemoryStorage::new();
        let actions = [Action::MakeDir { goal: dir("d", 0o755) }];
        note(&storage, &actions).unwrap();
        assert_eq!(left(&*storage.read().unwrap()).unwrap().len(), 1);
        let mut tx = storage.write(Durability::Full).unwrap();
        clear(&mut *tx, &actions).unwrap();
        tx.commit().unwrap();
        assert!(left(&*storage.read().unwrap()).unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn rows_come_back_and_others_are_refused(
            moved: bool,
            state in crate::state::tests::state(),
            at in 0..99usize,
            byte: u8,
        ) {
            let source = Source::Path { values: Vec::new() };
            let goal = Base { state, source, seen: UNSEEN };
            let intent = Intent { goal, from: moved.then(|| path("from/here")) };
            let mut bytes = intent.encode();
            prop_assert_eq!(Intent::decode(&bytes), Ok(intent));
            if let Some(changed) = bytes.get_mut(at) {
                *changed = byte;
            }
            if let Ok(intent) = Intent::decode(&bytes) {
                prop_assert_eq!(intent.encode(), bytes);
            }
        }
    }
}
