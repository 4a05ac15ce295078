//! Several processes on one file.

use std::path::Path;
use std::time::{Duration, Instant};

use anabranch_core::storage::{Durability, ReadTx, Storage, StorageError, Table};
use anabranch_store::{Options, SqliteStorage};

use crate::{child, ledger};

const TURNS: u64 = 50;

fn fresh(directory: &tempfile::TempDir) -> SqliteStorage {
    SqliteStorage::create(directory.path().join("x.db"), ledger::options()).unwrap()
}

pub(crate) fn count(file: &Path) {
    let storage = SqliteStorage::open(file, ledger::options()).unwrap();
    child::say("ready");
    child::wait_for_parent();
    take_turns(&storage);
}

/// Adds one to a number that each reads before: a lost turn shows.
fn take_turns(storage: &SqliteStorage) {
    for _ in 0..TURNS {
        let mut writer = storage.write(Durability::Normal).unwrap();
        let next = counted(&*writer) + 1;
        writer.put(Table::Local, b"count", &next.to_be_bytes()).unwrap();
        writer.commit().unwrap();
    }
}

fn counted(reader: &dyn ReadTx) -> u64 {
    reader.get(Table::Local, b"count").unwrap().map_or(0, |bytes| ledger::number(&bytes))
}

/// Asked again while the log is being moved, as the last turns may have caused.
fn commits_by_others(storage: &SqliteStorage) -> u64 {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(count) = storage.commits_by_others().unwrap() {
            return count;
        }
        assert!(Instant::now() < deadline, "it could never be told");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn writers_of_several_processes_take_turns_and_notice_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let storage = fresh(&directory);
    let mut children: Vec<_> = (0..3).map(|_| child::start_role("count", storage.path())).collect();
    for (_, said) in &mut children {
        assert_eq!(child::hear(said).as_deref(), Some("ready"));
    }
    let before = commits_by_others(&storage);
    // Closing their standard input lets them start.
    for (child, _) in &mut children {
        drop(child.stdin.take());
    }
    take_turns(&storage);
    for (child, _) in &mut children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(counted(&*storage.read().unwrap()), 4 * TURNS);
    assert!(commits_by_others(&storage) > before);
    assert_eq!(storage.check().unwrap(), [""; 0]);
}

pub(crate) fn hold_the_write_lock(file: &Path) {
    let storage = SqliteStorage::open(file, Options::default()).unwrap();
    let mut writer = storage.write(Durability::Full).unwrap();
    writer.put(Table::Local, b"held", b"1").unwrap();
    child::say("holding");
    child::wait_for_parent();
    writer.commit().unwrap();
    child::say("committed");
}

#[test]
fn a_lock_held_elsewhere_for_too_long_is_an_error_and_readers_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let file = fresh(&directory).path().to_owned();
    let (mut child, mut said) = child::start_role("hold", &file);
    assert_eq!(child::hear(&mut said).as_deref(), Some("holding"));

    let impatient = Options { busy_timeout: Duration::from_millis(50), ..Options::default() };
    let storage = SqliteStorage::open(&file, impatient).unwrap();
    let refused = storage.write(Durability::Full).err().unwrap();
    assert!(matches!(refused, StorageError::Busy(0)), "{refused}");
    let before = storage.read().unwrap();
    assert_eq!(before.get(Table::Local, b"held").unwrap(), None);
    let seen = commits_by_others(&storage);

    drop(child.stdin.take());
    assert_eq!(child::hear(&mut said).as_deref(), Some("committed"));
    assert!(child.wait().unwrap().success());
    assert_eq!(before.get(Table::Local, b"held").unwrap(), None);
    assert!(storage.read().unwrap().get(Table::Local, b"held").unwrap().is_some());
    assert!(commits_by_others(&storage) > seen);
    storage.write(Durability::Full).unwrap().commit().unwrap();
}

#[test]
fn a_killed_holder_gives_up_the_lock() {
    let directory = tempfile::tempdir().unwrap();
    let storage = fresh(&directory);
    let (mut child, mut said) = child::start_role("hold", storage.path());
    assert_eq!(child::hear(&mut said).as_deref(), Some("holding"));
    child.kill().unwrap();
    child.wait().unwrap();
    let writer = storage.write(Durability::Full).unwrap();
    assert_eq!(writer.get(Table::Local, b"held").unwrap(), None);
    writer.commit().unwrap();
}

/// Closing any descriptor of a file gives up all locks that a POSIX process holds on it, and SQLite holds one on each
/// file it has open, so that nobody else removes the log.
#[cfg(target_os = "linux")]
#[test]
fn opening_a_file_twice_in_one_process_keeps_its_locks() {
    let directory = tempfile::tempdir().unwrap();
    let storage = fresh(&directory);
    ledger::append(&storage, 0, Durability::Full).unwrap();
    let held = locks_on(storage.path());
    assert_ne!(held, 0);
    drop(SqliteStorage::open(storage.path(), Options::default()).unwrap());
    drop(SqliteStorage::create(storage.path(), Options::default()).unwrap_err());
    storage.size().unwrap();
    storage.check().unwrap();
    assert_eq!(locks_on(storage.path()), held);
}

/// How many locks this process holds on the file.
#[cfg(target_os = "linux")]
fn locks_on(file: &Path) -> usize {
    use std::os::unix::fs::MetadataExt as _;
    let owner = std::process::id().to_string();
    let inode = std::fs::metadata(file).unwrap().ino().to_string();
    let locks = std::fs::read_to_string("/proc/locks").unwrap();
    let mine = |line: &&str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        fields.contains(&owner.as_str())
            && fields.iter().any(|field| field.rsplit_once(':').is_some_and(|(_, at)| at == inode))
    };
    locks.lines().filter(mine).count()
}
