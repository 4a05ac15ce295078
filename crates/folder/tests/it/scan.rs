//! The scanner over a folder in memory: order, files in motion, trouble.

use crate::replica::path;
use anabranch_core::blob::{ChunkHash, ChunkSpan, MAX_CHUNK};
use anabranch_folder::InputError;
use anabranch_folder::base::{Base, Source};
use anabranch_folder::dirty::Dirty;
use anabranch_folder::fs::{FileSystem, ManualClock, MemFs, Op};
use anabranch_folder::path::RelPath;
use anabranch_folder::scan::{Here, Local, Problem, Progress, Scan, ScanError, ScanWatch, look};
use anabranch_folder::state::State;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

type Rows = BTreeMap<RelPath, Base>;

#[derive(Default)]
struct Watch {
    problems: Vec<String>,
    chunks: Vec<(RelPath, ChunkSpan)>,
    nodes: Vec<ChunkHash>,
    progress: Progress,
    full: bool,
}

impl ScanWatch for Watch {
    fn chunk(&mut self, path: &RelPath, span: &ChunkSpan) -> io::Result<()> {
        self.chunks.push((path.clone(), *span));
        if self.full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn node(&mut self, hash: &ChunkHash, bytes: &[u8]) -> io::Result<()> {
        assert_eq!(ChunkHash::of(bytes), *hash);
        self.nodes.push(*hash);
        Ok(())
    }

    fn problem(&mut self, problem: Problem) {
        self.problems.push(format!("{}: {}", problem.path, problem.what));
    }

    fn progress(&mut self, progress: &Progress) {
        self.progress = *progress;
    }
}

struct Folder {
    fs: MemFs,
    clock: Arc<ManualClock>,
    watch: Watch,
}

impl Folder {
    fn with(paths: &[&str]) -> Self {
        let clock = Arc::new(ManualClock::at(1_000_000_000_000_000_001));
        let fs = MemFs::new(clock.clone());
        for at in paths {
            match at.strip_suffix('/') {
                Some(dir) => fs.make_dir(&path(dir)).unwrap(),
                None => fs.write(&path(at), at.as_bytes()).unwrap(),
            }
        }
        Self { fs, clock, watch: Watch::default() }
    }

    fn scan(&mut self, base: &Rows) -> Result<Vec<Local>, ScanError<&'static str>> {
        let rows = base.iter().map(|(path, base)| Ok((path.clone(), base.clone())));
        Scan::new(&self.fs, &*self.clock, &mut self.watch, rows).collect()
    }

    fn base(&mut self) -> Rows {
        let rows = self.scan(&Rows::new()).unwrap().into_iter();
        rows.filter_map(|local| match local.here {
            Here::Present { state, seen } => {
                let source = Source::Path { values: Vec::new() };
                Some((local.path, Base { state, source, seen }))
            }
            _ => None,
        })
        .collect()
    }

    fn told(&mut self, base: &Rows) -> Vec<String> {
        let tell = |local: Local| {
            let here = match local.here {
                Here::Present { .. } => "present",
                Here::Gone => "gone",
                Here::Hidden => "hidden",
            };
            format!("{} {here}", local.path)
        };
        self.scan(base).unwrap().into_iter().map(tell).collect()
    }
}

#[test]
fn paths_come_by_their_bytes_and_the_state_directory_does_not() {
    let mut folder = Folder::with(&[
        ".anabranch/",
        ".anabranch/tmp/",
        "a/",
        "a.txt",
        "a/b",
        "a/b-c",
        "a-b/",
        "a-b/x",
    ]);
    let told = folder.told(&Rows::new());
    let names: Vec<&str> = told.iter().map(|line| line.strip_suffix(" present").unwrap()).collect();
    assert_eq!(names, ["a", "a-b", "a-b/x", "a.txt", "a/b", "a/b-c"]);
    assert_eq!(folder.watch.progress.files, 4);
}

#[test]
fn a_name_that_some_file_systems_take_for_the_state_directory_is_refused() {
    let mut folder = Folder::with(&[".Anabranch/", ".Anabranch/x", "y"]);
    assert_eq!(folder.told(&Rows::new()), ["y present"]);
    assert_eq!(folder.watch.problems, [".Anabranch: has a name that is reserved"]);
}

#[test]
fn what_the_base_has_and_the_disk_has_not_is_gone() {
    let mut folder = Folder::with(&["a/", "a/b", "c"]);
    let base = folder.base();
    folder.fs.remove_file(&path("a/b")).unwrap();
    folder.fs.remove_dir(&path("a")).unwrap();
    assert_eq!(folder.told(&base), ["a gone", "a/b gone", "c present"]);
}

#[test]
fn trouble_never_looks_like_a_deletion() {
    let mut folder = Folder::with(&["a/", "a.b", "a/b", "a/c/", "a/c/d", "e", "z"]);
    let base = folder.base();
    folder.fs.set_hook(|_, op, at| match (op, at) {
        (Op::ReadDir, Some(dir)) if *dir == path("a") => {
            Err(io::ErrorKind::PermissionDenied.into())
        }
        (Op::Lstat, Some(file)) if *file == path("e") => Err(io::Error::other("bad sector")),
        _ => Ok(()),
    });
    let told = folder.told(&base);
    assert_eq!(
        told,
        [
            "a present",
            "a.b present",
            "a/b hidden",
            "a/c hidden",
            "a/c/d hidden",
            "e hidden",
            "z present"
        ]
    );
    assert_eq!(
        folder.watch.problems,
        ["a: cannot be read: permission denied", "e: cannot be read: bad sector"]
    );
}

#[test]
fn a_file_replaced_by_something_unreadable_hides_what_the_base_had_below() {
    let mut folder = Folder::with(&["a/", "a/b"]);
    let base = folder.base();
    folder.fs.remove_file(&path("a/b")).unwrap();
    folder.fs.remove_dir(&path("a")).unwrap();
    folder.fs.make_special(&path("a")).unwrap();
    assert_eq!(folder.told(&base), ["a hidden", "a/b hidden"]);
}

#[test]
fn a_root_that_cannot_be_read_ends_the_scan() {
    let mut folder = Folder::with(&["a"]);
    let base = folder.base();
    folder.fs.set_hook(|_, op, at| match (op, at) {
        (Op::ReadDir, None) => Err(io::Error::other("unmounted")),
        _ => Ok(()),
    });
    assert!(matches!(folder.scan(&base), Err(ScanError::Root(_))));
}

#[test]
fn a_file_in_motion_is_read_again_and_reported_if_it_does_not_rest() {
    for (writes, told) in [(4, "f present"), (5, "f hidden")] {
        let mut folder = Folder::with(&["f"]);
        let base = folder.base();
        folder.clock.advance(1);
        folder.fs.write(&path("f"), b"first").unwrap();
        let (left, clock) = (AtomicUsize::new(writes), folder.clock.clone());
        folder.fs.set_hook(move |fs, op, at| {
            // Each of the three tries reads twice: the content, and its end.
            if op == Op::Read && left.load(Ordering::Relaxed) > 0 {
                left.fetch_sub(1, Ordering::Relaxed);
                clock.advance(1);
                fs.write(at.unwrap(), b"again")?;
            }
            Ok(())
        });
        assert_eq!(folder.told(&base), [told], "{writes} writes");
        assert_eq!(folder.watch.problems.len(), usize::from(told == "f hidden"));
    }
}

#[test]
fn a_file_that_grows_for_ever_is_not_read_for_ever() {
    let mut folder = Folder::with(&["f"]);
    let clock = folder.clock.clone();
    folder.fs.set_hook(move |fs, op, at| {
        if op == Op::Read {
            clock.advance(1);
            let longer = [fs.read(at.unwrap())?, vec![0; 100_000]].concat();
            fs.write(at.unwrap(), &longer)?;
        }
        Ok(())
    });
    assert!(folder.told(&Rows::new()).is_empty());
    assert_eq!(folder.watch.problems, ["f: is being written; it will be taken when it rests"]);
}

#[test]
fn a_file_is_read_when_its_stat_differs_or_was_too_fresh() {
    let mut folder = Folder::with(&["f"]);
    let fresh = folder.base();
    folder.clock.advance(10_000_000_000);
    let hashed = |folder: &mut Folder, base: &Rows| {
        folder.watch.progress = Progress::default();
        folder.scan(base).unwrap();
        folder.watch.progress.hashed
    };
    assert_eq!(hashed(&mut folder, &fresh), 1, "written just before it was looked at");
    let settled = folder.base();
    assert_eq!(hashed(&mut folder, &settled), 0);
    folder.fs.set_mode(&path("f"), 0o600).unwrap();
    assert_eq!(hashed(&mut folder, &settled), 1);
    assert_eq!(folder.watch.progress.bytes, 1);
}

#[test]
fn a_file_system_that_keeps_no_modes_or_nanoseconds_changes_nothing() {
    let mut folder = Folder::with(&["f"]);
    folder.clock.advance(10_000_000_000);
    let mut base = folder.base();
    let row = base.get_mut(&path("f")).unwrap();
    let State::File { content, .. } = row.state else { panic!("a file") };
    // What was asked for, as opposed to what the disk shows.
    row.state = State::File { content, kept: None, mode: 0o755, mtime_ns: 123_456_789 };
    row.seen.settled = false;
    let asked = row.state.clone();
    let state_now = |folder: &mut Folder| match folder.scan(&base).unwrap().remove(0).here {
        Here::Present { state, .. } => state,
        here => panic!("{here:?}"),
    };
    assert_eq!(state_now(&mut folder), asked);
    folder.fs.write(&path("f"), b"other").unwrap();
    let State::File { mtime_ns, mode, .. } = state_now(&mut folder) else { panic!("a file") };
    assert_eq!((mode, mtime_ns), (0o755, 1_000_000_010_000_000_001));
}

#[test]
fn chunks_and_nodes_are_told() {
    let mut folder = Folder::with(&[]);
    folder.fs.write(&path("big"), &vec![0; 2 * MAX_CHUNK + 1]).unwrap();
    folder.fs.write(&path("empty"), b"").unwrap();
    folder.scan(&Rows::new()).unwrap();
    let offsets: Vec<u64> = folder.watch.chunks.iter().map(|(_, span)| span.offset).collect();
    assert_eq!(offsets, [0, MAX_CHUNK as u64, 2 * MAX_CHUNK as u64]);
    assert_eq!(folder.watch.nodes.len(), 1);
}

fn look_at(folder: &mut Folder, base: &Rows) -> Dirty {
    let rows = base.iter().map(|(path, base)| Ok::<_, ()>((path.clone(), base.clone())));
    look(&folder.fs, &*folder.clock, &mut folder.watch, rows).unwrap()
}

#[test]
fn a_look_says_where_something_differs_and_reads_no_file() {
    let mut folder = Folder::with(&["a/", "a/b", "c", "d", "e/", "e/f"]);
    folder.clock.advance(10_000_000_000);
    let mut base = folder.base();
    let reads = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&reads);
    folder.fs.set_hook(move |_, op, _| {
        count.fetch_add(usize::from(op == Op::Open), Ordering::Relaxed);
        Ok(())
    });
    assert!(look_at(&mut folder, &base).is_empty());
    folder.fs.write(&path("c"), b"C").unwrap();
    folder.fs.remove_file(&path("d")).unwrap();
    folder.fs.make_special(&path("pipe")).unwrap();
    folder.fs.rename(&path("e"), &path("g"), false).unwrap();
    base.get_mut(&path("a/b")).unwrap().seen.settled = false;
    let expected: Dirty = ["a/b", "c", "d", "e", "g", "pipe"].map(path).into_iter().collect();
    assert_eq!(look_at(&mut folder, &base), expected);
    assert_eq!(reads.load(Ordering::Relaxed), 0);
    for n in 0..5_000 {
        folder.fs.write(&path(&format!("a/{n}")), b"").unwrap();
    }
    assert_eq!(look_at(&mut folder, &base), Dirty::Everything);
}

#[test]
fn a_watch_that_fails_ends_the_scan() {
    let mut folder = Folder::with(&["a"]);
    folder.watch.full = true;
    assert!(matches!(folder.scan(&Rows::new()), Err(ScanError::Watch(_))));
}

#[test]
fn a_base_that_fails_or_is_out_of_order_ends_the_scan() {
    let folder = Folder::with(&["a"]);
    let mut watch = ();
    let mut scan = Scan::new(&folder.fs, &*folder.clock, &mut watch, [Err("torn")].into_iter());
    assert!(matches!(scan.next(), Some(Err(ScanError::Base(InputError::Failed("torn"))))));
    assert!(scan.next().is_none());
    let row = Folder::with(&["a"]).base().into_values().next().unwrap();
    let rows = ["z", "a"].map(|at| Ok::<_, ()>((path(at), row.clone())));
    let mut watch = ();
    let scan = Scan::new(&folder.fs, &*folder.clock, &mut watch, rows.into_iter());
    let last = scan.last();
    assert!(
        matches!(last, Some(Err(ScanError::Base(InputError::Unsorted(at)))) if at == path("a"))
    );
}

proptest! {
    /// Whatever the tree: everything is told once, in order, and next to the right row.
    #[test]
    fn every_path_is_told_once(
        here in proptest::collection::btree_set("[a-c.]{1,2}(/[a-c.]{1,2}){0,2}", 0..20),
        gone in proptest::collection::btree_set("[a-c.]{1,2}(/[a-c.]{1,2}){0,2}", 0..20),
    ) {
        let mut folder = Folder::with(&[]);
        let make = |fs: &MemFs, at: &String| {
            let Ok(at) = RelPath::new(at.as_str()) else { return };
            for dir in at.ancestors().collect::<Vec<_>>().into_iter().rev() {
                let _ = fs.make_dir(&dir);
            }
            let _ = fs.write(&at, b"x");
        };
        gone.iter().for_each(|at| make(&folder.fs, at));
        let base = folder.base();
        folder.fs = MemFs::new(folder.clock.clone());
        here.iter().for_each(|at| make(&folder.fs, at));
        let found = folder.scan(&base).unwrap();
        prop_assert!(found.windows(2).all(|pair| pair[0].path < pair[1].path));
        let mut union: Vec<RelPath> = folder.fs.tree().into_keys().chain(base.keys().cloned()).collect();
        union.sort();
        union.dedup();
        prop_assert_eq!(found.iter().map(|local| local.path.clone()).collect::<Vec<_>>(), union);
        for local in found {
            prop_assert_eq!(local.base.as_ref(), base.get(&local.path));
            prop_assert_eq!(local.here == Here::Gone, folder.fs.lstat(&local.path).is_err());
        }
    }

    /// Looking only where a look found something, or where it was told that something changed, finds what looking at
    /// everything does.
    #[test]
    fn looking_at_what_is_dirty_is_enough(
        here in proptest::collection::btree_set("[a-c.]{1,2}(/[a-c.]{1,2}){0,2}", 0..20),
        deeds in proptest::collection::vec((0..4u8, "[a-c.]{1,2}(/[a-c.]{1,2}){0,2}", "[a-c.]{1,2}(/[a-c]{1,2}){0,2}"), 0..8),
    ) {
        let mut folder = Folder::with(&[]);
        for at in here.iter().filter_map(|at| RelPath::new(at.as_str()).ok()) {
            for dir in at.ancestors().collect::<Vec<_>>().into_iter().rev() {
                let _ = folder.fs.make_dir(&dir);
            }
            let _ = folder.fs.write(&at, b"x");
        }
        folder.clock.advance(10_000_000_000);
        let base = folder.base();
        let _ = folder.fs.take_changed();
        for (deed, a, b) in &deeds {
            folder.clock.advance(1_000_000_000);
            let (Ok(a), Ok(b)) = (RelPath::new(a.as_str()), RelPath::new(b.as_str())) else { continue };
            // What cannot be done is not done.
            let _ = match deed {
                0 => folder.fs.write(&a, b.as_bytes()),
                1 => folder.fs.make_dir(&a),
                2 => folder.fs.rename(&a, &b, false),
                _ => folder.fs.remove_file(&a).or_else(|_| folder.fs.remove_dir(&a)),
            };
        }
        folder.clock.advance(10_000_000_000);
        let all = folder.scan(&base).unwrap();
        for dirty in [folder.fs.take_changed(), look_at(&mut folder, &base)] {
            let rows = base.iter().map(|(path, base)| Ok::<_, ()>((path.clone(), base.clone())));
            let scan = Scan::new(&folder.fs, &*folder.clock, &mut folder.watch, rows).only(&dirty);
            let found: Vec<Local> = scan.map(Result::unwrap).collect();
            prop_assert_eq!(&found, &all, "{:?}", dirty);
        }
    }
}
