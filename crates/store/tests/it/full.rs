//! A disk without room: an error that says so, nothing lost, and on it goes when there is room.

use std::fs;
use std::path::Path;
use std::process::Command;

use anabranch_core::storage::{Durability, StorageError};
use anabranch_store::{Options, SqliteStorage};

use crate::{child, ledger};

const DISK: &str = "4m";

/// Takes room from the disk until it is given back.
const BALLAST: usize = 1 << 20;

/// Appends until that fails; returns the number that failed and why.
fn append_until_it_fails(storage: &SqliteStorage) -> (u64, StorageError) {
    let mut n = ledger::next(storage);
    loop {
        let durability = if n.is_multiple_of(3) { Durability::Full } else { Durability::Normal };
        if let Err(error) = ledger::append(storage, n, durability) {
            return (n, error);
        }
        n += 1;
    }
}

/// `file` is on a file system of its own, of the size of [`DISK`].
pub(crate) fn fill_a_small_disk(file: &Path) {
    let ballast = file.with_file_name("ballast");
    fs::write(&ballast, vec![1; BALLAST]).unwrap();
    let storage = SqliteStorage::create(file, ledger::options()).unwrap();

    for _ in 0..3 {
        let (failed, error) = append_until_it_fails(&storage);
        assert!(matches!(error, StorageError::Full), "{error}");
        assert_eq!(ledger::verify(&storage), failed);
    }
    let target = file.with_file_name("backup.db");
    let error = storage.backup_to(&target).unwrap_err();
    assert!(matches!(error, StorageError::Full), "{error}");
    let left: Vec<_> = fs::read_dir(file.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(
        !target.exists() && !left.iter().any(|name| name.to_string_lossy().contains("partial"))
    );
    // Closed and opened while full, as after a restart.
    drop(storage);
    let storage = match SqliteStorage::open(file, ledger::options()) {
        Ok(storage) => storage,
        Err(error) => {
            assert!(matches!(error, StorageError::Full), "{error}");
            fs::remove_file(&ballast).unwrap();
            SqliteStorage::open(file, ledger::options()).unwrap()
        }
    };
    let _ = fs::remove_file(&ballast);
    let before = ledger::verify(&storage);
    for n in before..before + 20 {
        ledger::append(&storage, n, Durability::Full).unwrap();
    }
    assert_eq!(ledger::verify(&storage), before + 20);
    assert_eq!(storage.check().unwrap(), [""; 0]);
    child::say("done");
}

/// Needs the right to mount in a namespace of its own; where that is not given, the test below and the one with a
/// limited number of pages say what there is to say.
#[test]
fn a_full_disk_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    let mount =
        format!("mount -t tmpfs -o size={DISK} tmpfs \"$1\" || exit 99; shift; exec \"$@\"");
    command.args(["-rm", "sh", "-c", &mount, "sh"]).arg(directory.path());
    command.arg(std::env::current_exe().unwrap()).args(child::arguments());
    let (mut child, mut said) =
        child::start(command, "fill a small disk", &directory.path().join("x.db"));
    let heard = child::hear(&mut said);
    let ended = child.wait().unwrap();
    if heard.is_none() && matches!(ended.code(), Some(1 | 99)) && may_not_mount() {
        println!("this process may not mount a file system");
        return;
    }
    assert_eq!((heard.as_deref(), ended.success()), (Some("done"), true));
}

fn may_not_mount() -> bool {
    let attempt =
        Command::new("unshare").args(["-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]).status();
    !attempt.is_ok_and(|status| status.success())
}

pub(crate) fn fill_to_the_limit(file: &Path) {
    let storage = SqliteStorage::open(file, ledger::options()).unwrap();
    let (failed, error) = append_until_it_fails(&storage);
    assert_eq!(ledger::verify(&storage), failed);
    child::say(format!("{failed} {error}"));
}

/// Unlike a full disk, a limit on the size of files is a plain error of the write; the rest is the same.
#[test]
fn a_file_that_may_not_grow_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("x.db");
    drop(SqliteStorage::create(&file, Options::default()).unwrap());
    let mut command = Command::new("sh");
    // Blocks of 512 bytes: 1 MiB. Ignored signals stay ignored, so that the write itself fails.
    command.args(["-c", "trap '' XFSZ; ulimit -f 2048; exec \"$@\"", "sh"]);
    command.arg(std::env::current_exe().unwrap()).args(child::arguments());
    let (mut child, mut said) = child::start(command, "fill to the limit", &file);
    let heard = child::hear(&mut said).unwrap();
    assert!(child.wait().unwrap().success());
    let (count, _) = heard.split_once(' ').unwrap();
    let count: u64 = count.parse().unwrap();
    assert!(count > 10, "{heard}");

    let storage = SqliteStorage::open(&file, Options::default()).unwrap();
    assert_eq!(ledger::verify(&storage), count);
    ledger::append(&storage, count, Durability::Full).unwrap();
    assert_eq!(ledger::verify(&storage), count + 1);
}
