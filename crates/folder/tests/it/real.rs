//! What only a real disk can show: links that lead out, names that are not text, permissions, special files.

use crate::file_systems::{get, put};
use crate::replica::{Disks, path};
use anabranch_folder::apply::apply;
use anabranch_folder::base::Base;
use anabranch_folder::fs::{Clock, FileSystem, Kind, RealFs, SystemClock};
use anabranch_folder::path::RelPath;
use anabranch_folder::plan::{Action, Goal};
use anabranch_folder::scan::{Here, Local, Problem, Scan, ScanWatch};
use anabranch_folder::state::State;
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use tempfile::TempDir;

fn folder() -> (TempDir, RealFs) {
    let dir = tempfile::tempdir().unwrap();
    let fs = RealFs::open_root(dir.path()).unwrap();
    (dir, fs)
}

#[derive(Default)]
struct Watch(Vec<String>);

impl ScanWatch for Watch {
    fn problem(&mut self, problem: Problem) {
        self.0.push(problem.path.to_string());
    }
}

fn scan(fs: &RealFs, base: &BTreeMap<RelPath, Base>) -> (Vec<Local>, Vec<String>) {
    let mut watch = Watch::default();
    let rows = base.iter().map(|(path, base)| Ok::<_, Infallible>((path.clone(), base.clone())));
    let found = Scan::new(fs, &SystemClock, &mut watch, rows).map(Result::unwrap).collect();
    (found, watch.0)
}

fn paths(found: &[Local]) -> Vec<String> {
    found.iter().map(|local| local.path.to_string()).collect()
}

/// Runs `test` without the right to read and search everything that root has.
fn as_nobody_special(test: impl FnOnce() + Send) {
    let plain = move || {
        let mut sets = capabilities(None).unwrap();
        let rights = CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
        sets.effective.remove(rights);
        set_capabilities(None, sets).unwrap();
        test();
    };
    std::thread::scope(|scope| scope.spawn(plain).join().unwrap());
}

#[test]
fn no_link_leads_out_of_the_folder() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "untouched").unwrap();
    fs::set_permissions(outside.path().join("secret"), fs::Permissions::from_mode(0o640)).unwrap();
    let (dir, fs) = folder();
    symlink(outside.path(), dir.path().join("out")).unwrap();
    symlink(outside.path().join("secret"), dir.path().join("file")).unwrap();
    put(&fs, "own", b"x");

    let inside = path("out/secret");
    assert!(fs.lstat(&inside).is_err());
    assert!(fs.open(&inside).is_err());
    assert!(fs.open(&path("file")).is_err());
    assert!(fs.read_dir(Some(&path("out"))).is_err());
    assert!(fs.create_new(&path("out/new")).is_err());
    assert!(fs.make_dir(&path("out/dir")).is_err());
    assert!(fs.symlink(b"x", &path("out/link")).is_err());
    assert!(fs.remove_file(&inside).is_err());
    assert!(fs.rename(&path("own"), &path("out/own"), true).is_err());
    assert!(fs.rename(&inside, &path("stolen"), true).is_err());
    assert!(fs.exchange(&path("own"), &inside).is_err());
    assert!(fs.set_mode(&path("file"), 0o777).is_err());
    assert!(fs.set_mode(&inside, 0o777).is_err());
    assert!(fs.sync_dir(Some(&path("out"))).is_err());
    let _ = fs.set_mtime(&path("file"), 0);

    let secret = fs::metadata(outside.path().join("secret")).unwrap();
    assert_eq!(secret.permissions().mode() & 0o777, 0o640);
    assert!(secret.modified().unwrap().elapsed().unwrap().as_secs() < 3600);
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    assert_eq!(fs::read(outside.path().join("secret")).unwrap(), b"untouched");
}

#[test]
fn an_action_through_a_link_fails_and_the_others_go_on() {
    let outside = tempfile::tempdir().unwrap();
    let (dir, fs) = folder();
    symlink(outside.path(), dir.path().join("d")).unwrap();
    let goal = |at: &str| Goal {
        path: path(at),
        state: State::Symlink { target: b"t".to_vec() },
        source: anabranch_folder::base::Source::Path { values: vec![] },
    };
    let actions = ["d/x", "y"].map(|at| Action::Symlink { goal: goal(at), over: None });
    let mut none = Disks(Vec::new());
    let applied = apply(&fs, &SystemClock, &actions, &mut none, &mut |_, _| {}).unwrap();
    assert_eq!((applied.done, applied.failed.len()), (1, 1));
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    assert_eq!(fs::read_dir(dir.path().join(".anabranch/tmp")).unwrap().count(), 0);
}

#[test]
fn a_scan_follows_no_link_and_is_not_blinded_by_a_dangling_one() {
    let (dir, fs) = folder();
    symlink("/etc", dir.path().join("a")).unwrap();
    symlink("nowhere", dir.path().join("b")).unwrap();
    symlink(".", dir.path().join("c")).unwrap();
    fs::write(dir.path().join("d"), "x").unwrap();
    fs::create_dir_all(dir.path().join(".anabranch/tmp")).unwrap();
    let (found, problems) = scan(&fs, &BTreeMap::new());
    assert_eq!(paths(&found), ["a", "b", "c", "d"]);
    assert!(problems.is_empty());
    let links = found
        .iter()
        .filter(|local| matches!(&local.here, Here::Present { state: State::Symlink { .. }, .. }));
    assert_eq!(links.count(), 3);
}

#[test]
fn names_need_not_be_text() {
    let (dir, fs) = folder();
    let name = OsStr::from_bytes(b"caf\xe9\n\xff");
    fs::write(dir.path().join(name), "x").unwrap();
    let (found, _) = scan(&fs, &BTreeMap::new());
    let found = &found[0].path;
    assert_eq!(found.as_bytes(), b"caf\xe9\n\xff");
    assert_eq!(get_bytes(&fs, found), b"x");
    assert_eq!(found.as_os(), Path::new(name));
}

fn get_bytes(fs: &RealFs, at: &RelPath) -> Vec<u8> {
    let mut bytes = [0; 9];
    let n = fs.open(at).unwrap().read_at(0, &mut bytes).unwrap();
    bytes[..n].to_vec()
}

#[test]
fn what_cannot_be_read_is_reported_and_hides_what_is_below() {
    let (dir, fs) = folder();
    for at in ["a", "d/x", "z"] {
        fs::create_dir_all(dir.path().join(at).parent().unwrap()).unwrap();
        fs::write(dir.path().join(at), at).unwrap();
    }
    let base = base_of(&fs);
    let lock = |at: &str| {
        fs::write(dir.path().join("a"), "changed").unwrap();
        fs::set_permissions(dir.path().join(at), fs::Permissions::from_mode(0o0)).unwrap();
    };
    lock("a");
    lock("d");
    as_nobody_special(|| {
        let (found, problems) = scan(&fs, &base);
        assert_eq!(paths(&found), ["a", "d", "d/x", "z"]);
        assert_eq!(problems, ["a", "d"]);
        let hidden = |local: &&Local| local.here == Here::Hidden;
        assert_eq!(found.iter().filter(hidden).count(), 2);
        assert!(found.iter().all(|local| local.here != Here::Gone));
    });
    fs::set_permissions(dir.path().join("d"), fs::Permissions::from_mode(0o700)).unwrap();
}

/// The base of a folder that is as it is.
fn base_of(fs: &RealFs) -> BTreeMap<RelPath, Base> {
    let source = anabranch_folder::base::Source::Path { values: vec![] };
    let row = |local: Local| match local.here {
        Here::Present { state, seen } => {
            Some((local.path, Base { state, source: source.clone(), seen }))
        }
        _ => None,
    };
    scan(fs, &BTreeMap::new()).0.into_iter().filter_map(row).collect()
}

#[test]
fn special_files_are_reported_and_left_alone() {
    let (dir, fs) = folder();
    std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    let fifo = dir.path().join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    fs::write(dir.path().join("x"), "x").unwrap();
    let (found, problems) = scan(&fs, &BTreeMap::new());
    assert_eq!(paths(&found), ["x"]);
    assert_eq!(problems, ["fifo", "socket"]);
    assert_eq!(fs.lstat(&path("fifo")).unwrap().kind, Kind::Other);
    // Opening one does not wait for somebody at its other end.
    drop(fs.open(&path("fifo")));
}

#[test]
fn bits_beyond_permissions_stay_on_directories_and_go_from_files() {
    let (dir, fs) = folder();
    fs::create_dir(dir.path().join("d")).unwrap();
    fs::write(dir.path().join("f"), "").unwrap();
    for at in ["d", "f"] {
        fs::set_permissions(dir.path().join(at), fs::Permissions::from_mode(0o2755)).unwrap();
        assert_eq!(fs.lstat(&path(at)).unwrap().mode, 0o755, "not synced");
        fs.set_mode(&path(at), 0o7750).unwrap();
    }
    let mode = |at: &str| fs::metadata(dir.path().join(at)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("d"), mode("f")), (0o2750, 0o750));
}

#[test]
fn a_mode_can_be_set_on_what_cannot_be_read() {
    let (dir, fs) = folder();
    put(&fs, "f", b"x");
    fs::set_permissions(dir.path().join("f"), fs::Permissions::from_mode(0o0)).unwrap();
    as_nobody_special(|| fs.set_mode(&path("f"), 0o600).unwrap());
    assert_eq!(get(&fs, "f"), b"x");
}

#[test]
fn an_unchanged_folder_is_not_read_again() {
    let (dir, fs) = folder();
    fs::write(dir.path().join("f"), "0123456789").unwrap();
    fs.set_mtime(&path("f"), SystemClock.now_ns() - 10_000_000_000).unwrap();
    let base = base_of(&fs);
    let hashed = |base: &BTreeMap<RelPath, Base>| {
        let mut watch = Watch::default();
        let rows = base.iter().map(|(p, base)| Ok::<_, Infallible>((p.clone(), base.clone())));
        let mut scan = Scan::new(&fs, &SystemClock, &mut watch, rows);
        assert_eq!(scan.by_ref().count(), 1);
        scan.progress().hashed
    };
    assert_eq!(hashed(&base), 0);
    fs.set_mode(&path("f"), 0o600).unwrap();
    assert_eq!(hashed(&base), 10);
}

#[test]
fn a_directory_that_is_read_only_is_opened_up_for_as_long_as_it_takes() {
    let (dir, fs) = folder();
    fs::create_dir(dir.path().join("d")).unwrap();
    let goal = |at: &str| Goal {
        path: path(at),
        state: State::Symlink { target: b"t".to_vec() },
        source: anabranch_folder::base::Source::Path { values: vec![] },
    };
    let mode = || fs::metadata(dir.path().join("d")).unwrap().permissions().mode() & 0o777;
    fs::set_permissions(dir.path().join("d"), fs::Permissions::from_mode(0o555)).unwrap();
    as_nobody_special(|| {
        assert!(fs.make_dir(&path("d/no")).is_err());
        let actions = ["d/x", "d/y"].map(|at| Action::Symlink { goal: goal(at), over: None });
        let mut none = Disks(Vec::new());
        let applied = apply(&fs, &SystemClock, &actions, &mut none, &mut |_, _| {}).unwrap();
        assert_eq!((applied.done, applied.failed.len()), (2, 0));
    });
    assert_eq!(mode(), 0o555);
    assert_eq!(fs.read_dir(Some(&path("d"))).unwrap().len(), 2);
}
