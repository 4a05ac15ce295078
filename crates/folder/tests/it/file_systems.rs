//! One suite for both file systems, so that what is proven in memory holds on a disk.

use crate::replica::path;
use anabranch_folder::fs::{FileSystem, Kind, MemFs, RealFs, SystemClock};
use std::io::ErrorKind;
use std::sync::Arc;

fn on_both(test: impl Fn(&dyn FileSystem)) {
    test(&MemFs::new(Arc::new(SystemClock)));
    let dir = tempfile::tempdir().unwrap();
    test(&RealFs::open_root(dir.path()).unwrap());
}

pub(crate) fn put(fs: &dyn FileSystem, at: &str, bytes: &[u8]) {
    let mut file = fs.create_new(&path(at)).unwrap();
    file.write_all(bytes).unwrap();
    file.set_meta(0o644, 1_600_000_000_123_456_789).unwrap();
    file.sync().unwrap();
}

pub(crate) fn get(fs: &dyn FileSystem, at: &str) -> Vec<u8> {
    let mut file = fs.open(&path(at)).unwrap();
    let mut bytes = vec![0; usize::try_from(file.stat().unwrap().size).unwrap()];
    assert_eq!(file.read_at(0, &mut bytes).unwrap(), bytes.len());
    bytes
}

fn kind<T>(result: std::io::Result<T>) -> ErrorKind {
    result.err().unwrap().kind()
}

fn names(fs: &dyn FileSystem, dir: Option<&str>) -> Vec<String> {
    let dir = dir.map(path);
    let mut names: Vec<String> = fs
        .read_dir(dir.as_ref())
        .unwrap()
        .into_iter()
        .map(|entry| String::from_utf8(entry.name).unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn files_are_written_and_read() {
    on_both(|fs| {
        put(fs, "a", b"hello");
        assert_eq!(get(fs, "a"), b"hello");
        let stat = fs.lstat(&path("a")).unwrap();
        assert_eq!((stat.kind, stat.mode, stat.size), (Kind::File, 0o644, 5));
        assert_eq!(stat.mtime_ns, 1_600_000_000_123_456_789);
        assert_eq!(fs.open(&path("a")).unwrap().read_at(3, &mut [0; 9]).unwrap(), 2);
        assert_eq!(fs.open(&path("a")).unwrap().read_at(99, &mut [0; 9]).unwrap(), 0);
        assert_eq!(kind(fs.create_new(&path("a")).map(drop)), ErrorKind::AlreadyExists);
    });
}

#[test]
fn what_is_not_there_is_not_found() {
    on_both(|fs| {
        put(fs, "f", b"");
        for missing in ["x", "x/y"] {
            assert_eq!(kind(fs.lstat(&path(missing))), ErrorKind::NotFound);
            assert_eq!(kind(fs.open(&path(missing)).map(drop)), ErrorKind::NotFound);
            assert_eq!(kind(fs.remove_file(&path(missing))), ErrorKind::NotFound);
            assert_eq!(kind(fs.rename(&path(missing), &path("y"), true)), ErrorKind::NotFound);
        }
        assert_eq!(kind(fs.create_new(&path("x/y")).map(drop)), ErrorKind::NotFound);
        assert_eq!(kind(fs.lstat(&path("f/x"))), ErrorKind::NotADirectory);
        assert_eq!(kind(fs.read_dir(Some(&path("x")))), ErrorKind::NotFound);
    });
}

#[test]
fn directories() {
    on_both(|fs| {
        fs.make_dir(&path("d")).unwrap();
        assert_eq!(kind(fs.make_dir(&path("d"))), ErrorKind::AlreadyExists);
        assert_eq!(fs.lstat(&path("d")).unwrap().mode, 0o700);
        fs.set_mode(&path("d"), 0o755).unwrap();
        assert_eq!(fs.lstat(&path("d")).unwrap().mode, 0o755);
        put(fs, "d/f", b"");
        fs.make_dir(&path("d/e")).unwrap();
        assert_eq!(names(fs, Some("d")), ["e", "f"]);
        assert_eq!(names(fs, None), ["d"]);
        assert_eq!(kind(fs.remove_dir(&path("d"))), ErrorKind::DirectoryNotEmpty);
        assert_eq!(kind(fs.remove_dir(&path("d/f"))), ErrorKind::NotADirectory);
        assert_eq!(kind(fs.remove_file(&path("d/e"))), ErrorKind::IsADirectory);
        fs.sync_dir(Some(&path("d"))).unwrap();
        fs.sync_dir(None).unwrap();
        fs.remove_file(&path("d/f")).unwrap();
        fs.remove_dir(&path("d/e")).unwrap();
        fs.remove_dir(&path("d")).unwrap();
        assert!(names(fs, None).is_empty());
    });
}

#[test]
fn renames() {
    on_both(|fs| {
        put(fs, "a", b"a");
        put(fs, "b", b"b");
        let inode = fs.lstat(&path("a")).unwrap().inode;
        assert_eq!(kind(fs.rename(&path("a"), &path("b"), false)), ErrorKind::AlreadyExists);
        fs.rename(&path("a"), &path("b"), true).unwrap();
        assert_eq!(get(fs, "b"), b"a");
        assert_eq!(fs.lstat(&path("b")).unwrap().inode, inode);
        fs.make_dir(&path("d")).unwrap();
        fs.rename(&path("b"), &path("d/c"), false).unwrap();
        fs.rename(&path("d"), &path("e"), false).unwrap();
        assert_eq!(get(fs, "e/c"), b"a");
        put(fs, "f", b"f");
        assert_eq!(kind(fs.rename(&path("f"), &path("e"), true)), ErrorKind::IsADirectory);
        fs.exchange(&path("f"), &path("e/c")).unwrap();
        assert_eq!((get(fs, "f"), get(fs, "e/c")), (b"a".to_vec(), b"f".to_vec()));
        assert_eq!(kind(fs.exchange(&path("f"), &path("x"))), ErrorKind::NotFound);
    });
}

#[test]
fn an_open_file_stays_itself() {
    on_both(|fs| {
        put(fs, "a", b"old");
        put(fs, "b", b"new");
        let mut open = fs.open(&path("a")).unwrap();
        fs.rename(&path("b"), &path("a"), true).unwrap();
        let mut bytes = [0; 3];
        open.read_at(0, &mut bytes).unwrap();
        assert_eq!(&bytes, b"old");
    });
}

#[test]
fn links_are_things_of_their_own() {
    on_both(|fs| {
        put(fs, "f", b"x");
        fs.symlink(b"nowhere", &path("dangling")).unwrap();
        fs.symlink(b"f", &path("l")).unwrap();
        assert_eq!(fs.lstat(&path("l")).unwrap().kind, Kind::Symlink);
        assert_eq!(fs.read_link(&path("dangling")).unwrap(), b"nowhere");
        assert_eq!(kind(fs.read_link(&path("f"))), ErrorKind::InvalidInput);
        fs.remove_file(&path("l")).unwrap();
        assert_eq!(get(fs, "f"), b"x");
    });
}

#[test]
fn times() {
    on_both(|fs| {
        put(fs, "f", b"x");
        for time in [0, -1_500_000_001, 1_700_000_000_000_000_001] {
            fs.set_mtime(&path("f"), time).unwrap();
            assert_eq!(fs.lstat(&path("f")).unwrap().mtime_ns, time);
        }
    });
}
