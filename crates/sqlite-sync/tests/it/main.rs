//! On a disk that tells what no sync has made safe.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

use anabranch_faultdisk::Disk;
use rusqlite::{Connection, OpenFlags};

fn open(disk: &Disk) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let path = disk.path().join("file");
    let connection =
        Connection::open_with_flags_and_vfs(path, flags, anabranch_faultdisk::NAME).unwrap();
    connection.execute_batch("PRAGMA synchronous = OFF; PRAGMA journal_mode = MEMORY").unwrap();
    connection
}

fn disk() -> (tempfile::TempDir, Disk) {
    let directory = tempfile::tempdir().unwrap();
    let disk = Disk::new(directory.path().join("disk"), 1).unwrap();
    (directory, disk)
}

#[test]
fn what_other_connections_wrote_is_on_the_disk_afterwards() {
    let (_directory, disk) = disk();
    let writer = open(&disk);
    let syncing = open(&disk);
    writer.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (zeroblob(100000))").unwrap();
    assert!(disk.statistics().bytes_unsynced > 100_000);
    anabranch_sqlite_sync::sync(&syncing).unwrap();
    assert_eq!(disk.statistics().bytes_unsynced, 0);
    disk.crash();
    drop((writer, syncing));
    disk.recover().unwrap();
    let length: u32 =
        open(&disk).query_row("SELECT length(x) FROM t", [], |row| row.get(0)).unwrap();
    assert_eq!(length, 100_000);
}

#[test]
fn a_sync_that_fails_is_an_error() {
    let (_directory, disk) = disk();
    let connection = open(&disk);
    connection.execute_batch("CREATE TABLE t (x)").unwrap();
    disk.fail_io(1);
    let error = anabranch_sqlite_sync::sync(&connection).unwrap_err();
    assert_eq!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::SystemIoFailure), "{error}");
    assert!(disk.statistics().bytes_unsynced > 0);
}

/// It has no file, or none yet.
#[test]
fn a_database_in_memory_is_passed_over() {
    anabranch_sqlite_sync::sync(&Connection::open_in_memory().unwrap()).unwrap();
    anabranch_sqlite_sync::sync(&Connection::open("").unwrap()).unwrap();
}
