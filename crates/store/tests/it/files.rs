//! Creating and opening: what is accepted, what is refused with which words, and what is left alone.

use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anabranch_core::storage::{Durability, Order, Storage, StorageError, Table};
use anabranch_store::{FORMAT_VERSION, Options, SqliteStorage};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::ledger;

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn open(path: &Path) -> Result<SqliteStorage, StorageError> {
    SqliteStorage::open(path, Options::default())
}

fn create(path: &Path) -> Result<SqliteStorage, StorageError> {
    SqliteStorage::create(path, Options::default())
}

/// A closed database with `commits` numbered commits.
fn database(directory: &TempDir, commits: u64) -> PathBuf {
    let path = directory.path().join("x.db");
    let storage = create(&path).unwrap();
    for n in 0..commits {
        ledger::append(&storage, n, Durability::Normal).unwrap();
    }
    path
}

/// Every file of the directory, by name.
fn contents(directory: &TempDir) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

/// Opening the file is refused and changes nothing in its directory.
fn refused(directory: &TempDir, path: &Path) -> StorageError {
    let before = contents(directory);
    let error = open(path).err().unwrap();
    assert!(contents(directory) == before, "changed by a refused open: {error}");
    error
}

#[test]
fn what_was_stored_is_there_when_opened_again() {
    let directory = directory();
    let path = database(&directory, 20);
    assert_eq!(ledger::verify(&open(&path).unwrap()), 20);
}

#[test]
fn closing_empties_the_log() {
    let directory = directory();
    let path = database(&directory, 20);
    assert_eq!(contents(&directory).len(), 1, "only {} is left", path.display());
}

#[test]
fn a_missing_file_is_not_created() {
    let directory = directory();
    let error = refused(&directory, &directory.path().join("none.db"));
    assert!(error.to_string().contains("does not exist"), "{error}");
}

#[test]
fn create_takes_no_file_that_holds_something() {
    let directory = directory();
    let path = database(&directory, 1);
    let notes = directory.path().join("notes.txt");
    fs::write(&notes, "mine").unwrap();
    let before = contents(&directory);
    for taken in [&path, &notes, directory.path()] {
        let error = create(taken).err().unwrap();
        assert!(error.to_string().contains("exists already"), "{error}");
    }
    assert!(contents(&directory) == before);
}

/// Copies a database as it is in the middle of a transaction that no longer fits in memory, with its journal.
fn copy_in_transaction(directory: &TempDir, set_up: &str) -> PathBuf {
    let path = directory.path().join("busy.db");
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch(set_up).unwrap();
    let transaction = "PRAGMA cache_size = 1; BEGIN; CREATE TABLE one (a); CREATE TABLE two (a);
        INSERT INTO one VALUES (zeroblob(100000)); INSERT INTO two VALUES (zeroblob(100000));";
    connection.execute_batch(transaction).unwrap();
    let copy = directory.path().join("copy.db");
    for suffix in ["", "-journal"] {
        let with_suffix = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
        fs::copy(with_suffix(&path), with_suffix(&copy)).unwrap();
    }
    drop(connection);
    for suffix in ["", "-journal"] {
        let _ = fs::remove_file(format!("{}{suffix}", path.display()));
    }
    assert!(fs::metadata(&copy).unwrap().len() > 0);
    copy
}

/// As the loss of power, or a kill, leaves it.
#[test]
fn create_takes_over_a_file_in_the_middle_of_being_made() {
    let directory = directory();
    let path = copy_in_transaction(&directory, "");
    let storage = create(&path).unwrap();
    ledger::append(&storage, 0, Durability::Full).unwrap();
    drop(storage);
    assert_eq!(ledger::verify(&open(&path).unwrap()), 1);
}

#[test]
fn create_leaves_a_file_in_the_middle_of_being_changed() {
    let directory = directory();
    let path = copy_in_transaction(&directory, "CREATE TABLE mine (a)");
    let before = contents(&directory);
    let error = create(&path).err().unwrap();
    assert!(error.to_string().contains("exists already"), "{error}");
    assert!(contents(&directory) == before);
}

#[test]
fn create_says_when_the_directory_is_missing() {
    let directory = directory();
    let error = create(&directory.path().join("no/x.db")).err().unwrap();
    assert!(matches!(error, StorageError::Io(_)), "{error}");
}

#[test]
fn only_the_owner_may_read_the_files() {
    let directory = directory();
    let path = directory.path().join("x.db");
    let storage = create(&path).unwrap();
    ledger::append(&storage, 0, Durability::Full).unwrap();
    let backup = directory.path().join("backup.db");
    storage.backup_to(&backup).unwrap();
    for file in [&path, storage.wal_path(), &directory.path().join("x.db-shm"), &backup] {
        let mode = fs::metadata(file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.display());
    }
}

#[test]
fn any_other_file_is_foreign() {
    let directory = directory();
    let cases: [(&str, &[u8]); 4] = [
        ("text", b"To whom it may concern"),
        ("long text", &[b'x'; 20_000]),
        ("zeros", &[0; 8192]),
        ("one byte", b"x"),
    ];
    for (name, bytes) in cases {
        let path = directory.path().join(name);
        fs::write(&path, bytes).unwrap();
        let error = refused(&directory, &path);
        assert!(matches!(error, StorageError::Foreign { .. }), "{name}: {error}");
    }
    assert!(matches!(
        refused(&tempfile::tempdir().unwrap(), directory.path()),
        StorageError::Foreign { .. }
    ));
}

#[test]
fn another_programs_sqlite_database_is_foreign() {
    for (mode, closed) in [("delete", true), ("wal", true), ("wal", false), ("delete", false)] {
        let directory = directory();
        let path = directory.path().join("theirs.db");
        let theirs = Connection::open(&path).unwrap();
        theirs.pragma_update(None, "journal_mode", mode).unwrap();
        theirs.execute_batch("CREATE TABLE meta (a); INSERT INTO meta VALUES (1)").unwrap();
        if !closed {
            // With a hot journal, or a log that is not in the file yet.
            theirs
                .execute_batch("PRAGMA cache_spill = 1; BEGIN; INSERT INTO meta VALUES (2)")
                .unwrap();
        }
        let theirs = if closed { None } else { Some(theirs) };
        let error = refused(&directory, &path);
        assert!(matches!(error, StorageError::Foreign { .. }), "{mode}: {error}");
        assert!(error.to_string().contains("theirs.db"), "{error}");
        drop(theirs);
    }
}

#[test]
fn an_empty_file_is_damaged() {
    let directory = directory();
    let path = directory.path().join("x.db");
    fs::write(&path, b"").unwrap();
    let error = refused(&directory, &path);
    assert!(matches!(&error, StorageError::Corrupt(what) if what.contains("empty")), "{error}");
}

#[test]
fn a_later_format_is_refused_untouched() {
    let directory = directory();
    let path = database(&directory, 1);
    set_version(&path, FORMAT_VERSION + 1);
    let error = refused(&directory, &path);
    assert!(
        matches!(error, StorageError::NewerVersion { found, supported, .. }
            if found == FORMAT_VERSION + 1 && supported == FORMAT_VERSION),
        "{error}"
    );
}

#[test]
fn an_earlier_format_is_refused() {
    let directory = directory();
    let path = database(&directory, 1);
    set_version(&path, 0);
    let error = open(&path).err().unwrap();
    assert!(matches!(error, StorageError::OlderVersion { found: 0, .. }), "{error}");
}

/// In format 1 each table had one of its own.
#[test]
fn a_file_of_format_1_is_brought_up_to_date() {
    let directory = directory();
    let path = database(&directory, 3);
    let shared = [Table::Meta, Table::Branch, Table::Uncovered, Table::Store];
    let storage = open(&path).unwrap();
    let mut tx = storage.write(Durability::Full).unwrap();
    for (n, table) in shared.into_iter().enumerate() {
        for byte in 0..=255 {
            tx.put(table, &[byte, 0, 255], &[n as u8; 3_000]).unwrap();
            tx.put(table, &[byte], &[]).unwrap();
        }
    }
    tx.commit().unwrap();
    let rows = || {
        let storage = open(&path).unwrap();
        let tx = storage.read().unwrap();
        let mut rows = Vec::new();
        for table in Table::ALL {
            tx.scan(table, &[], None, Order::Ascending, &mut |key, value| {
                rows.push((table, key.to_vec(), value.to_vec()));
                ControlFlow::Continue(())
            })
            .unwrap();
        }
        rows
    };
    drop(storage);
    let before = rows();
    let mut sql = String::new();
    for table in shared {
        let (name, number) = (table.name(), table as u8);
        sql.push_str(&format!(
            "CREATE TABLE {name} (k BLOB NOT NULL PRIMARY KEY, v BLOB NOT NULL) STRICT, WITHOUT ROWID;
             INSERT INTO {name} SELECT substr(k, 2), v FROM small WHERE substr(k, 1, 1) = X'{number:02X}';"
        ));
    }
    sql.push_str("DROP TABLE small; DROP TABLE index_; PRAGMA user_version = 1");
    Connection::open(&path).unwrap().execute_batch(&sql).unwrap();
    assert_eq!(rows(), before);
    assert_eq!(open(&path).unwrap().check().unwrap(), [""; 0]);
}

#[test]
fn a_format_raised_by_another_process_stops_reads_and_writes() {
    let directory = directory();
    let path = database(&directory, 1);
    let storage = open(&path).unwrap();
    set_version(&path, FORMAT_VERSION + 1);
    let read = storage.read().err().unwrap();
    let write = storage.write(Durability::Full).err().unwrap();
    assert!(matches!(read, StorageError::NewerVersion { .. }), "{read}");
    assert!(matches!(write, StorageError::NewerVersion { .. }), "{write}");
}

fn set_version(path: &Path, version: u32) {
    Connection::open(path).unwrap().pragma_update(None, "user_version", version).unwrap();
}

#[test]
fn a_missing_or_altered_table_is_damage() {
    for damage in ["DROP TABLE cell", "ALTER TABLE head ADD COLUMN more BLOB"] {
        let directory = directory();
        let path = database(&directory, 1);
        Connection::open(&path).unwrap().execute_batch(damage).unwrap();
        let error = open(&path).err().unwrap();
        assert!(matches!(error, StorageError::Corrupt(_)), "{damage}: {error}");
    }
}

#[test]
fn odd_names_are_only_names() {
    let directory = directory();
    for name in ["a b.db", "50%.db", "x?immutable=1#y.db", "file:z", "ü.db"] {
        let path = directory.path().join(name);
        let storage = create(&path).unwrap();
        ledger::append(&storage, 0, Durability::Full).unwrap();
        drop(storage);
        let storage = open(&path).unwrap();
        assert_eq!(ledger::verify(&storage), 1, "{name}");
        assert_eq!(storage.path().file_name(), path.file_name());
    }
    assert_eq!(contents(&directory).len(), 5);
}

#[test]
fn paths_are_those_of_the_file_behind_a_link() {
    let directory = directory();
    let path = database(&directory, 1);
    let link = directory.path().join("link.db");
    symlink(&path, &link).unwrap();
    let (by_link, by_name) = (open(&link).unwrap(), open(&path).unwrap());
    assert_eq!(by_link.path(), by_name.path());
    assert_eq!(by_link.instance(), by_name.instance());
    ledger::append(&by_link, 1, Durability::Normal).unwrap();
    assert!(by_link.wal_path().exists());
    assert_eq!(ledger::verify(&by_name), 2);
}

#[test]
fn the_instance_mark_tells_copies_and_moves() {
    let directory = directory();
    let path = database(&directory, 1);
    let mark = |path: &Path| open(path).unwrap().instance();
    let original = mark(&path);
    assert_eq!(mark(&path), original);

    let elsewhere = directory.path().join("moved.db");
    fs::rename(&path, &elsewhere).unwrap();
    assert_ne!(mark(&elsewhere), original);
    // Restored from a copy while the original is still there: the path is the same, the inode is not.
    fs::copy(&elsewhere, &path).unwrap();
    assert_ne!(mark(&path), original);
    fs::remove_file(&path).unwrap();
    fs::rename(&elsewhere, &path).unwrap();
    assert_eq!(mark(&path), original);
}

#[test]
fn a_backup_is_a_database_of_its_own() {
    let directory = directory();
    let storage = create(&directory.path().join("x.db")).unwrap();
    for n in 0..30 {
        ledger::append(&storage, n, Durability::Normal).unwrap();
    }
    let target = directory.path().join("backup.db");
    let mut writer = storage.write(Durability::Normal).unwrap();
    writer.put(Table::Local, b"uncommitted", b"v").unwrap();
    storage.backup_to(&target).unwrap();
    writer.commit().unwrap();

    let backup = open(&target).unwrap();
    assert_eq!(ledger::verify(&backup), 30);
    assert_eq!(backup.read().unwrap().get(Table::Local, b"uncommitted").unwrap(), None);
    assert_ne!(backup.instance(), storage.instance());
    ledger::append(&backup, 30, Durability::Full).unwrap();
    assert_eq!(ledger::verify(&storage), 30);
    assert_eq!(backup.check().unwrap(), [""; 0]);
}

#[test]
fn a_backup_replaces_nothing() {
    let directory = directory();
    let storage = create(&directory.path().join("x.db")).unwrap();
    let target = directory.path().join("there");
    for bytes in [&b"mine"[..], b""] {
        fs::write(&target, bytes).unwrap();
        let error = storage.backup_to(&target).unwrap_err();
        assert!(error.to_string().contains("exists already"), "{error}");
        assert_eq!(fs::read(&target).unwrap(), bytes);
    }
    assert!(storage.backup_to(directory.path().join("no/x.db")).is_err());
}

#[test]
fn size_counts_file_and_log() {
    let directory = directory();
    let storage = create(&directory.path().join("x.db")).unwrap();
    ledger::append(&storage, 0, Durability::Normal).unwrap();
    let parts = [storage.path(), storage.wal_path()].map(|path| fs::metadata(path).unwrap().len());
    assert!(parts[1] > 0);
    assert_eq!(storage.size().unwrap(), parts[0] + parts[1]);
}
