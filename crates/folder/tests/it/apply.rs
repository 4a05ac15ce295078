//! The applier, action by action.

use crate::file_systems::get;
use crate::replica::{Disks, path};
use anabranch_core::blob::{Builder, ChunkHash, ChunkSpan, ContentRef, MAX_CHUNK, Piece};
use anabranch_folder::apply::{
    Applied, Applier, ChunkIndex, ChunkPlace, ContentSource, Failed, LocalChunks, apply, missing,
};
use anabranch_folder::base::{Seen, Source};
use anabranch_folder::fs::{Clock, FileSystem, ManualClock, MemFs, Op};
use anabranch_folder::path::RelPath;
use anabranch_folder::plan::{Action, Goal, Was};
use anabranch_folder::state::State;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::io;
use std::sync::Arc;

/// Blobs by name; some of them may be lies.
#[derive(Default)]
struct Blobs {
    nodes: BTreeMap<ChunkHash, Vec<u8>>,
    chunks: BTreeMap<ChunkHash, Vec<u8>>,
}

impl Blobs {
    fn add(&mut self, bytes: &[u8]) -> ContentRef {
        let mut builder = Builder::new();
        let mut keep = |piece: Piece<'_>| {
            match piece {
                Piece::Chunk { span, bytes } => self.chunks.insert(span.hash, bytes.to_vec()),
                Piece::Node { hash, bytes } => self.nodes.insert(hash, bytes.to_vec()),
            };
            Ok::<_, Infallible>(())
        };
        builder.push(bytes, &mut keep).unwrap();
        builder.finish(&mut keep).unwrap()
    }
}

impl ContentSource for Blobs {
    fn node(&mut self, hash: &ChunkHash) -> io::Result<Option<Vec<u8>>> {
        Ok(self.nodes.get(hash).cloned())
    }

    fn chunk(&mut self, span: &ChunkSpan) -> io::Result<Option<Vec<u8>>> {
        Ok(self.chunks.get(&span.hash).cloned())
    }
}

struct Folder {
    fs: MemFs,
    clock: Arc<ManualClock>,
    blobs: Blobs,
}

impl Folder {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::at(1_000_000_000_000_000_001));
        Self { fs: MemFs::new(clock.clone()), clock, blobs: Blobs::default() }
    }

    fn apply(&mut self, actions: &[Action]) -> Applied {
        apply(&self.fs, &*self.clock, actions, &mut self.blobs, &mut |_, _| {}).unwrap()
    }

    /// A file that was there when it was scanned, long ago.
    fn was(&self, at: &str, text: &str) -> Was {
        self.fs.write(&path(at), text.as_bytes()).unwrap();
        self.clock.advance(10_000_000_000);
        self.still(at)
    }

    fn still(&self, at: &str) -> Was {
        let stat = self.fs.lstat(&path(at)).unwrap();
        let content = Blobs::default().add(&self.fs.read(&path(at)).unwrap());
        let state = State::File { content, kept: None, mode: stat.mode, mtime_ns: stat.mtime_ns };
        Was { path: path(at), state, seen: Seen::new(&stat, self.clock.now_ns()) }
    }

    fn leftovers(&self) -> usize {
        self.fs.tree().into_keys().filter(|path| path.is_reserved()).count() - 2
    }
}

fn source() -> Source {
    Source::Path { values: Vec::new() }
}

fn goal(at: &str, content: ContentRef) -> Goal {
    let state = State::File { content, kept: None, mode: 0o640, mtime_ns: 5 };
    Goal { path: path(at), state, source: source() }
}

fn write(at: &str, content: ContentRef, over: Option<Was>) -> Action {
    Action::WriteFile { goal: goal(at, content), over, keep: None }
}

fn noise(len: usize) -> Vec<u8> {
    let mut state = 1u64;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .collect()
}

#[test]
fn large_content_is_written_whole_with_mode_and_time() {
    let mut folder = Folder::new();
    let bytes = noise(1_000_000);
    let content = folder.blobs.add(&bytes);
    assert!(content.depth() > 0);
    let applied = folder.apply(&[write("big", content, None)]);
    assert_eq!((applied.done, applied.bytes, applied.failed.len()), (1, 1_000_000, 0));
    assert_eq!(get(&folder.fs, "big"), bytes);
    let stat = folder.fs.lstat(&path("big")).unwrap();
    assert_eq!((stat.mode, stat.mtime_ns), (0o640, 5));
    let [(at, Some(base))] = &applied.base[..] else { panic!("{:?}", applied.base) };
    assert_eq!((at, base.seen.inode, base.seen.settled), (&path("big"), stat.inode, true));
}

/// Whoever kills the program leaves directories behind whose mode nobody sets any more: those that nobody recorded.
#[test]
fn a_directory_has_its_mode_from_the_first_moment() {
    for (mode, shown) in [(0o755, 0o755), (0o750, 0o750), (0o555, 0o755)] {
        let mut folder = Folder::new();
        let at = path("d");
        let goal = Goal { path: at.clone(), state: State::Dir { mode }, source: source() };
        let content = folder.blobs.add(b"x");
        let (send, modes) = std::sync::mpsc::channel();
        folder.fs.set_hook(move |fs, _, _| {
            let shown = fs.tree().get(&at).map(|(stat, _)| stat.mode);
            let _ = send.send(shown);
            Ok(())
        });
        let applied = folder.apply(&[Action::MakeDir { goal }, write("d/f", content, None)]);
        folder.fs.clear_hook();
        assert_eq!(applied.failed.len(), 0);
        let seen: BTreeSet<u32> = modes.try_iter().flatten().collect();
        let expected: BTreeSet<u32> = [shown, mode].into();
        assert_eq!(seen, expected, "{mode:o}");
        assert_eq!(folder.fs.lstat(&path("d")).unwrap().mode, mode);
        assert_eq!(folder.leftovers(), 0);
    }
}

#[test]
fn what_is_missing_is_listed_level_by_level_and_the_path_waits() {
    let mut folder = Folder::new();
    let content = folder.blobs.add(&noise(1_000_000));
    let actions = [write("a", content, None), write("b", content, None)];
    let whole = std::mem::take(&mut folder.blobs);
    let lacking = missing(&actions, &mut folder.blobs, 99).unwrap();
    assert_eq!((lacking.nodes.len(), lacking.chunks.len(), lacking.complete), (1, 0, 0));
    folder.blobs.nodes = whole.nodes;
    let lacking = missing(&actions, &mut folder.blobs, 99).unwrap();
    let names: BTreeSet<ChunkHash> = lacking.chunks.iter().map(|span| span.hash).collect();
    assert_eq!((lacking.nodes.len(), names), (0, whole.chunks.keys().copied().collect()));
    let some = missing(&actions, &mut folder.blobs, 3).unwrap();
    assert_eq!((some.chunks.len(), some.complete), (3, 0));
    let applied = folder.apply(&actions);
    assert!(applied.failed.iter().all(|failure| matches!(failure.why, Failed::Missing)));
    assert_eq!((applied.failed.len(), folder.leftovers()), (2, 0));
    folder.blobs.chunks = whole.chunks;
    let other = folder.blobs.add(b"another");
    let unknown = Blobs::default().add(b"nowhere");
    let more = [&actions[..], &[write("c", other, None), write("d", unknown, None)]].concat();
    assert_eq!(missing(&more, &mut folder.blobs, 9).unwrap().complete, 3);
    assert_eq!(folder.apply(&actions).done, 2);
}

#[test]
fn damaged_content_never_gets_a_name() {
    let mut folder = Folder::new();
    let good = folder.blobs.add(b"good");
    let large = folder.blobs.add(&noise(600_000));
    for bytes in folder.blobs.chunks.values_mut().chain(folder.blobs.nodes.values_mut()) {
        bytes[2] ^= 1;
    }
    let fine = folder.blobs.add(b"fine");
    let actions = [write("a", good, None), write("b", large, None), write("c", fine, None)];
    let applied = folder.apply(&actions);
    assert!(matches!(applied.failed[0].why, Failed::Chunk(_)));
    assert!(matches!(applied.failed[1].why, Failed::Manifest(_)));
    assert_eq!((applied.done, folder.leftovers()), (1, 0));
    assert_eq!(folder.fs.tree().len(), 3);
    assert_eq!(missing(&actions, &mut folder.blobs, 9).unwrap().refused, [path("b")]);
}

#[test]
fn what_changed_since_the_scan_is_left_alone() {
    let mut folder = Folder::new();
    let content = folder.blobs.add(b"new");
    let was = ["a", "b", "c", "d"].map(|at| folder.was(at, "old"));
    for at in ["a", "b", "c", "d", "e"] {
        folder.fs.write(&path(at), b"mine").unwrap();
    }
    let [a, b, c, d] = was;
    let meta = Goal {
        state: State::File { content, kept: None, mode: 0, mtime_ns: 0 },
        ..goal("d", content)
    };
    let applied = folder.apply(&[
        write("a", content, Some(a)),
        Action::RemoveFile { was: b },
        Action::Rename { from: c, goal: goal("x", content), over: None },
        Action::SetMeta { goal: meta, was: d },
        write("e", content, None),
        write("f", content, None),
    ]);
    let changed = |why: &Failed| matches!(why, Failed::ChangedMeanwhile);
    assert_eq!(applied.failed.iter().filter(|failure| changed(&failure.why)).count(), 5);
    assert_eq!(applied.done, 1);
    for at in ["a", "b", "c", "d", "e"] {
        assert_eq!(get(&folder.fs, at), b"mine");
    }
    assert_eq!(folder.leftovers(), 0);
}

#[test]
fn what_was_written_too_close_to_the_scan_is_read_before_it_goes() {
    let mut folder = Folder::new();
    let content = folder.blobs.add(b"new");
    folder.fs.write(&path("a"), b"old").unwrap();
    let was = folder.still("a");
    // In the same instant, of the same length: no stat tells.
    folder.fs.write(&path("a"), b"own").unwrap();
    assert!(was.seen.looks_like(&folder.still("a").seen));
    let applied = folder.apply(&[write("a", content, Some(was))]);
    assert!(matches!(applied.failed[0].why, Failed::ChangedMeanwhile));
    let was = folder.still("a");
    assert_eq!(folder.apply(&[write("a", content, Some(was))]).done, 1);
}

#[test]
fn without_an_exchange_of_names_files_are_replaced_all_the_same() {
    let mut folder = Folder::new();
    let content = folder.blobs.add(b"new");
    let was = folder.was("a", "old");
    folder.fs.set_hook(|_, op, _| match op {
        Op::Exchange => Err(io::ErrorKind::Unsupported.into()),
        _ => Ok(()),
    });
    assert_eq!(folder.apply(&[write("a", content, Some(was))]).done, 1);
    assert_eq!((get(&folder.fs, "a"), folder.leftovers()), (b"new".to_vec(), 0));
}

#[test]
fn a_directory_that_does_not_reach_the_disk_is_not_said_to_have() {
    let mut folder = Folder::new();
    let content = folder.blobs.add(b"new");
    folder.fs.make_dir(&path("d")).unwrap();
    folder.fs.set_hook(|_, op, at| match op {
        Op::SyncDir if at == Some(&path("d")) => Err(io::Error::other("bad disk")),
        _ => Ok(()),
    });
    let applied = folder.apply(&[write("d/a", content, None), write("b", content, None)]);
    let stands: Vec<String> = applied.base.iter().map(|(path, _)| path.to_string()).collect();
    assert_eq!(stands, ["b"]);
    assert_eq!(applied.failed[0].path, path("d/a"));
}

#[test]
fn new_names_reach_the_disk_before_old_ones_go() {
    let mut folder = Folder::new();
    let content = folder.blobs.add(b"new");
    let was = ["a", "b"].map(|at| folder.was(at, "old"));
    let (told, ops) = std::sync::mpsc::channel();
    folder.fs.set_hook(move |_, op, at| {
        if matches!(op, Op::SyncDir | Op::Rename) && at.is_none_or(|at| !at.is_reserved()) {
            told.send(op).unwrap();
        }
        Ok(())
    });
    let [a, b] = was;
    let remove = [a, b].map(|was| Action::RemoveFile { was });
    folder.apply(&[vec![write("c", content, None)], remove.to_vec()].concat());
    let order: Vec<Op> = ops.try_iter().collect();
    assert_eq!(order, [Op::SyncDir, Op::Rename, Op::Rename, Op::SyncDir]);
}

#[test]
fn a_plan_may_be_carried_out_in_parts() {
    let mut folder = Folder::new();
    let (a, b) = (folder.was("a", "A"), folder.was("b", "B"));
    let becomes =
        |at: &str, was: &Was| Goal { path: path(at), state: was.state.clone(), source: source() };
    let swap = [
        Action::Park { from: a.clone(), slot: 0 },
        Action::Rename { from: b.clone(), goal: becomes("a", &b), over: None },
        Action::Unpark { slot: 0, from: a.path.clone(), goal: becomes("b", &a), over: None },
    ];
    let dir = Goal { path: path("d"), state: State::Dir { mode: 0o500 }, source: source() };
    let mut applier = Applier::new(&folder.fs, &*folder.clock).unwrap();
    let mut rows = BTreeMap::new();
    let mut take = |applied: Applied| {
        assert!(applied.failed.is_empty(), "{:?}", applied.failed);
        rows.extend(applied.base);
    };
    let content = folder.blobs.add(b"inside");
    let mut actions = swap.to_vec();
    actions.extend([Action::MakeDir { goal: dir }, write("d/x", content, None)]);
    for action in actions {
        take(applier.apply(&[action], &mut folder.blobs, &mut |_, _| {}));
    }
    take(applier.finish());
    assert_eq!((get(&folder.fs, "a"), get(&folder.fs, "b")), (b"B".to_vec(), b"A".to_vec()));
    assert_eq!(folder.fs.lstat(&path("d")).unwrap().mode, 0o500);
    assert!(rows.values().all(Option::is_some));
    assert_eq!((rows.len(), folder.leftovers()), (4, 0));
}

#[test]
fn a_parked_file_whose_place_is_taken_goes_back() {
    let mut folder = Folder::new();
    let a = folder.was("a", "A");
    folder.fs.write(&path("b"), b"in the way").unwrap();
    let goal = Goal { path: path("b"), state: a.state.clone(), source: source() };
    let applied = folder.apply(&[
        Action::Park { from: a.clone(), slot: 7 },
        Action::Unpark { slot: 7, from: a.path.clone(), goal: goal.clone(), over: None },
        Action::Unpark { slot: 8, from: a.path, goal, over: None },
    ]);
    assert!(matches!(applied.failed[0].why, Failed::ChangedMeanwhile));
    assert!(matches!(applied.failed[1].why, Failed::Blocked));
    assert!(applied.base.is_empty());
    assert_eq!(
        (get(&folder.fs, "a"), get(&folder.fs, "b")),
        (b"A".to_vec(), b"in the way".to_vec())
    );
    assert_eq!(folder.leftovers(), 0);
}

/// Knows where the chunks of one file are.
struct Index(BTreeMap<ChunkHash, ChunkPlace>);

impl ChunkIndex for Index {
    fn places(&self, hash: &ChunkHash) -> io::Result<Vec<ChunkPlace>> {
        Ok(self.0.get(hash).cloned().into_iter().collect())
    }
}

/// Nodes from one place, chunks from the folder's own files.
struct Reuse<'a> {
    nodes: BTreeMap<ChunkHash, Vec<u8>>,
    local: LocalChunks<'a>,
}

impl ContentSource for Reuse<'_> {
    fn node(&mut self, hash: &ChunkHash) -> io::Result<Option<Vec<u8>>> {
        Ok(self.nodes.get(hash).cloned())
    }

    fn chunk(&mut self, span: &ChunkSpan) -> io::Result<Option<Vec<u8>>> {
        self.local.chunk(span)
    }

    fn moved(&mut self, from: &RelPath, to: &RelPath) {
        self.local.moved(from, to);
    }
}

#[test]
fn chunks_of_other_files_are_used_even_after_these_were_renamed() {
    let mut folder = Folder::new();
    let bytes = noise(3 * MAX_CHUNK);
    folder.fs.write(&path("old"), &bytes).unwrap();
    folder.clock.advance(10_000_000_000);
    let was = folder.still("old");
    let mut places = BTreeMap::new();
    let mut builder = Builder::new();
    let mut note = |piece: Piece<'_>| {
        if let Piece::Chunk { span, .. } = piece {
            places.insert(
                span.hash,
                ChunkPlace { path: path("old"), offset: span.offset, sealed: None },
            );
        }
        Ok::<_, Infallible>(())
    };
    builder.push(&bytes, &mut note).unwrap();
    builder.finish(&mut note).unwrap();
    // A place that does not have what it should does no harm.
    places.insert(ChunkHash([0; 32]), ChunkPlace { path: path("gone"), offset: 9, sealed: None });
    let content = folder.blobs.add(&bytes);
    let index = Index(places);
    let local = LocalChunks::new(&folder.fs, &index);
    let mut reuse = Reuse { nodes: folder.blobs.nodes.clone(), local };
    let renamed = Goal { path: path("new"), state: was.state.clone(), source: source() };
    let actions =
        [Action::Rename { from: was, goal: renamed, over: None }, write("copy", content, None)];
    assert!(missing(&actions, &mut reuse, 9).unwrap().chunks.is_empty());
    let applied = apply(&folder.fs, &*folder.clock, &actions, &mut reuse, &mut |_, _| {}).unwrap();
    assert_eq!((applied.done, applied.failed.len()), (2, 0));
    assert_eq!(get(&folder.fs, "copy"), bytes);
    let span = ChunkSpan { hash: ChunkHash([0; 32]), offset: 0, len: 5 };
    assert!(reuse.chunk(&span).unwrap().is_none());
}

#[test]
fn progress_is_told_after_each_action() {
    let mut folder = Folder::new();
    let content = folder.blobs.add(b"12345");
    let actions = ["a", "b"].map(|at| write(at, content, None));
    let mut told = Vec::new();
    let mut tell = |done, bytes| told.push((done, bytes));
    apply(&folder.fs, &*folder.clock, &actions, &mut folder.blobs, &mut tell).unwrap();
    assert_eq!(told, [(1, 5), (2, 10)]);
}

#[test]
fn a_folder_that_takes_no_temporary_files_is_an_error() {
    let folder = Folder::new();
    folder.fs.write(&path(".anabranch"), b"not a directory").unwrap();
    let result = apply(&folder.fs, &*folder.clock, &[], &mut Disks(Vec::new()), &mut |_, _| {});
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::NotADirectory);
}

/// Files at once that are brought to the disk together.
const MANY: usize = 100;

fn many(folder: &mut Folder, over: bool) -> Vec<Action> {
    let mut actions = Vec::new();
    for n in 0..MANY {
        let at = format!("f{n:03}");
        let over = over.then(|| folder.was(&at, "before"));
        let content = folder.blobs.add(at.as_bytes());
        actions.push(write(&at, content, over));
    }
    actions
}

fn ops(folder: &Folder) -> std::sync::mpsc::Receiver<Op> {
    let (tell, told) = std::sync::mpsc::channel();
    folder.fs.set_hook(move |_, op, _| {
        let _ = tell.send(op);
        Ok(())
    });
    told
}

#[test]
fn many_files_reach_the_disk_together_and_before_their_names() {
    for over in [false, true] {
        let mut folder = Folder::new();
        let actions = many(&mut folder, over);
        let told = ops(&folder);
        let applied = folder.apply(&actions);
        assert_eq!((applied.done, applied.failed.len()), (MANY as u64, 0));
        let ops: Vec<Op> = told.try_iter().collect();
        let barrier = ops.iter().position(|op| *op == Op::SyncAll).unwrap();
        let named = |op: &Op| matches!(op, Op::Rename | Op::Exchange);
        assert!(!ops[..barrier].iter().any(named), "a name before its content");
        assert!(!ops[barrier..].contains(&Op::Write), "content after the sync");
        assert!(!ops.contains(&Op::Sync), "one by one");
        folder.fs.clear_hook();
        assert_eq!(get(&folder.fs, "f042"), b"f042");
        assert_eq!(folder.leftovers(), 0);
    }
}

#[test]
fn where_the_disk_cannot_sync_many_files_none_gets_its_name() {
    let mut folder = Folder::new();
    let actions = many(&mut folder, true);
    folder.fs.set_hook(|_, op, _| match op {
        Op::SyncAll => Err(io::Error::other("broken")),
        _ => Ok(()),
    });
    let applied = folder.apply(&actions);
    assert_eq!((applied.done, applied.failed.len(), applied.base.len()), (0, MANY, 0));
    folder.fs.clear_hook();
    assert_eq!(get(&folder.fs, "f042"), b"before");
    assert_eq!(folder.leftovers(), 0);
    assert_eq!(folder.apply(&actions).done, MANY as u64);
}

#[test]
fn where_many_files_do_not_fit_beside_the_old_ones_they_take_turns() {
    let mut folder = Folder::new();
    let actions = many(&mut folder, true);
    // Room for ten temporary files.
    folder.fs.set_hook(|fs, op, path| {
        let is_new = op == Op::Create && path.is_some_and(RelPath::is_reserved);
        let temporary = fs.tree().into_keys().filter(RelPath::is_reserved).count();
        match is_new && temporary >= 12 {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    });
    let applied = folder.apply(&actions);
    folder.fs.clear_hook();
    assert_eq!((applied.done, applied.failed.len()), (MANY as u64, 0));
    assert_eq!((get(&folder.fs, "f099"), folder.leftovers()), (b"f099".to_vec(), 0));
}
