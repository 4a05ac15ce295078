//! What cannot be seen from outside: settings of connections, and limits set on them.

use anabranch_core::storage::{Durability, Storage, StorageError, Table};
use tempfile::TempDir;

use super::*;

fn fresh(options: Options) -> (TempDir, SqliteStorage) {
    let directory = tempfile::tempdir().unwrap();
    let storage = SqliteStorage::create(directory.path().join("x.db"), options).unwrap();
    (directory, storage)
}

fn put(storage: &SqliteStorage, key: &[u8], durability: Durability) -> Result<(), StorageError> {
    let mut writer = storage.write(durability)?;
    writer.put(Table::Cell, key, &[5; 1000])?;
    writer.commit()
}

type Operation = fn(&mut dyn WriteTx) -> Result<(), StorageError>;

fn pragma(connection: &Connection, name: &str) -> i64 {
    connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0)).unwrap()
}

#[test]
fn each_transaction_has_the_durability_it_asked_for() {
    let (_directory, storage) = fresh(Options::default());
    let full = (Durability::Full, 2);
    let normal = (Durability::Normal, 1);
    for (durability, synchronous) in [full, normal, normal, full, full, normal] {
        let lease = storage.writer().unwrap();
        let mut transaction = Writing::begin(
            lease,
            durability,
            &storage.wal_path,
            &storage.options,
            &storage.explain,
        )
        .unwrap();
        assert_eq!(pragma(&transaction.writer().connection, "synchronous"), synchronous);
        Box::new(transaction).commit().unwrap();
    }
}

/// When a transaction thinks that it changes nothing it syncs the log itself (I1); otherwise SQLite has to.
#[test]
fn a_transaction_knows_whether_its_commit_adds_to_the_log() {
    let (_directory, storage) = fresh(Options::default());
    let watcher = SqliteStorage::open(storage.path(), Options::default()).unwrap();
    let cases: [(&str, Operation, bool); 10] = [
        ("nothing", |_| Ok(()), false),
        ("new", |tx| tx.put(Table::Cell, b"k", b"v"), true),
        ("same", |tx| tx.put(Table::Cell, b"k", b"v"), false),
        ("other", |tx| tx.put(Table::Cell, b"k", b"w"), true),
        ("empty", |tx| tx.put(Table::Cell, b"k", b""), true),
        ("same empty", |tx| tx.put(Table::Cell, b"k", b""), false),
        ("absent", |tx| tx.delete(Table::Cell, b"l").map(drop), false),
        (
            "there and back",
            |tx| {
                tx.put(Table::Blob, &[1; 32], b"v")?;
                tx.delete(Table::Blob, &[1; 32]).map(drop)
            },
            true,
        ),
        (
            "refused",
            |tx| {
                assert!(tx.put(Table::Entry, b"no number", b"v").is_err());
                Ok(())
            },
            false,
        ),
        ("removed", |tx| tx.delete(Table::Cell, b"k").map(drop), true),
    ];
    for (name, operation, changes) in cases {
        let before = watcher.commits_by_others().unwrap();
        let lease = storage.writer().unwrap();
        let mut transaction = Writing::begin(
            lease,
            Durability::Full,
            &storage.wal_path,
            &storage.options,
            &storage.explain,
        )
        .unwrap();
        operation(&mut transaction).unwrap();
        assert_eq!(transaction.changed(), changes, "{name}");
        Box::new(transaction).commit().unwrap();
        assert_eq!(watcher.commits_by_others().unwrap() > before, changes, "{name}");
    }
}

#[test]
fn files_are_set_up_as_documented() {
    let (_directory, storage) = fresh(Options::default());
    let writer = storage.writer().unwrap();
    let reader = storage.reader().unwrap();
    assert_eq!(pragma(&writer.connection, "page_size"), 4096);
    assert_eq!(pragma(&writer.connection, "application_id"), 0x414E_4142);
    assert_eq!(pragma(&writer.connection, "user_version"), i64::from(FORMAT_VERSION));
    assert_eq!(pragma(&writer.connection, "cache_size"), -(2 << 10));
    assert_eq!(pragma(&reader, "cache_size"), -(2 << 10));
    assert_eq!(pragma(&reader, "mmap_size"), 0);
    let mode: String =
        writer.connection.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
}

/// Small commits would look at every page that is kept, again and again; large ones need them.
#[test]
fn the_writer_keeps_many_pages_while_transactions_are_large() {
    let (_directory, storage) = fresh(Options::default());
    let write = |rows: u32| {
        let mut tx = storage.begin(storage.writer().unwrap(), Durability::Normal, true).unwrap();
        for n in 0..rows {
            tx.put(Table::Cell, &n.to_be_bytes(), &rows.to_be_bytes()).unwrap();
        }
        let kept = pragma(&tx.writer().connection, "cache_size");
        Box::new(tx).commit().unwrap();
        -kept >> 10
    };
    assert_eq!([write(1), write(500), write(600)], [2, 2, 32]);
    let small: Vec<i64> = (1..=10).map(write).collect();
    assert_eq!(small, [32, 32, 32, 32, 32, 32, 32, 32, 2, 2]);
    assert_eq!([write(602), write(1), write(601), write(1)], [32; 4]);
    // What the configuration allows is not exceeded.
    let (_directory, storage) = fresh(Options { writer_cache: 1 << 20, ..Options::default() });
    put(&storage, b"a", Durability::Normal).unwrap();
    assert_eq!(pragma(&storage.writer().unwrap().connection, "cache_size"), -(1 << 10));
    let mut tx = storage.write(Durability::Normal).unwrap();
    for n in 0..600_u32 {
        tx.put(Table::Cell, &n.to_be_bytes(), b"").unwrap();
    }
    tx.commit().unwrap();
    assert_eq!(pragma(&storage.writer().unwrap().connection, "cache_size"), -(1 << 10));
}

#[test]
fn a_database_that_may_not_grow_is_full_and_loses_nothing() {
    let (_directory, storage) = fresh(Options::default());
    let limit = |pages: i64| {
        let writer = storage.writer().unwrap();
        writer
            .connection
            .pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))
            .unwrap();
    };
    limit(100);
    let mut stored = 0_u32;
    let error = loop {
        match put(&storage, &stored.to_be_bytes(), Durability::Normal) {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StorageError::Full), "{error}");
    let reader = storage.read().unwrap();
    assert!((0..stored).all(|n| reader.get(Table::Cell, &n.to_be_bytes()).unwrap().is_some()));
    assert_eq!(reader.get(Table::Cell, &stored.to_be_bytes()).unwrap(), None);
    limit(1_000_000);
    put(&storage, &stored.to_be_bytes(), Durability::Full).unwrap();
    assert_eq!(storage.check().unwrap(), [""; 0]);
}

#[test]
fn a_failed_write_takes_its_whole_transaction_along() {
    let (_directory, storage) = fresh(Options::default());
    let mut transaction = storage.write(Durability::Full).unwrap();
    transaction.put(Table::Cell, b"before", b"v").unwrap();
    transaction.commit().unwrap();
    {
        let writer = storage.writer().unwrap();
        let pages = pragma(&writer.connection, "page_count");
        writer
            .connection
            .pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))
            .unwrap();
    }
    let mut transaction = storage.write(Durability::Full).unwrap();
    transaction.put(Table::Cell, b"small", b"v").unwrap();
    assert!(matches!(
        transaction.put(Table::Blob, &[1; 32], &[0; 100_000]),
        Err(StorageError::Full)
    ));
    assert!(transaction.put(Table::Cell, b"after", b"v").is_err());
    assert!(transaction.delete(Table::Cell, b"before").is_err());
    assert!(transaction.get(Table::Cell, b"before").is_err());
    assert!(transaction.commit().is_err());
    let reader = storage.read().unwrap();
    assert!(reader.get(Table::Cell, b"before").unwrap().is_some());
    assert_eq!(reader.get(Table::Cell, b"small").unwrap(), None);
    assert_eq!(reader.get(Table::Cell, b"after").unwrap(), None);
    drop(reader);
    // The next transaction is as good as any.
    let mut transaction = storage.write(Durability::Full).unwrap();
    assert!(transaction.delete(Table::Cell, b"before").unwrap());
    transaction.commit().unwrap();
    assert_eq!(storage.read().unwrap().get(Table::Cell, b"before").unwrap(), None);
}

#[test]
fn only_commits_of_others_are_counted() {
    let (_directory, ours) = fresh(Options::default());
    let theirs = SqliteStorage::open(ours.path(), Options::default()).unwrap();
    let start = ours.commits_by_others().unwrap();
    for n in 0..10_u8 {
        put(&ours, &[n], Durability::Normal).unwrap();
        drop(ours.write(Durability::Full).unwrap());
        ours.read().unwrap().get(Table::Cell, &[n]).unwrap();
    }
    assert_eq!(ours.commits_by_others().unwrap(), start);
    put(&theirs, b"theirs", Durability::Normal).unwrap();
    let after = ours.commits_by_others().unwrap();
    assert!(after > start);
    assert_eq!(ours.commits_by_others().unwrap(), after);
    // Noticed by a write as well.
    put(&theirs, b"more of theirs", Durability::Full).unwrap();
    let writer = ours.write(Durability::Normal).unwrap();
    assert_eq!(ours.commits_by_others().unwrap(), None);
    drop(writer);
    let noticed = ours.commits_by_others().unwrap();
    assert!(noticed > after);
    // Who moves the log has the writer without a transaction, so that others commit meanwhile.
    let moving = ours.writer().unwrap();
    put(&theirs, b"meanwhile", Durability::Normal).unwrap();
    assert_eq!(ours.commits_by_others().unwrap(), None);
    drop(moving);
    assert!(ours.commits_by_others().unwrap() > noticed);
}

/// What one knows of the tables is worth nothing once another process has written.
#[test]
fn a_commit_of_another_makes_another_state() {
    let (_directory, ours) = fresh(Options::default());
    let theirs = SqliteStorage::open(ours.path(), Options::default()).unwrap();
    let commit = |storage: &SqliteStorage, key: &[u8]| {
        let mut writer = storage.write(Durability::Normal).unwrap();
        let state = writer.state().unwrap();
        writer.put(Table::Cell, key, b"v").unwrap();
        writer.commit().unwrap();
        state
    };
    let first = commit(&ours, b"a");
    assert_eq!(commit(&ours, b"b"), first + 1);
    commit(&theirs, b"c");
    let after = commit(&ours, b"d");
    assert!(after > first + 2, "{after} after {first}");
    assert_eq!(commit(&ours, b"e"), after + 1);
    // Also where it was noticed before the transaction.
    commit(&theirs, b"f");
    ours.commits_by_others().unwrap();
    assert!(commit(&ours, b"g") > after + 2);
}

/// Waits for `done`, which comes by itself.
fn eventually(what: &str, done: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Nor does the thread that commits move the log: that takes syncs.
#[test]
fn who_must_not_wait_waits_for_nobody() {
    let (_directory, ours) = fresh(Options { checkpoint_pages: 20, ..Options::default() });
    let theirs = SqliteStorage::open(ours.path(), Options::default()).unwrap();
    let held = theirs.write(Durability::Normal).unwrap();
    let before = std::time::Instant::now();
    assert!(ours.try_write().unwrap().is_none());
    assert!(before.elapsed() < Duration::from_secs(5), "waited for another process");
    drop(held);
    let length = || fs::metadata(ours.path()).unwrap().len();
    let start = length();
    for n in 0..200_u32 {
        // None while the writer is lent for the last rest.
        let mut tx = loop {
            if let Some(tx) = ours.try_write().unwrap() {
                break tx;
            }
        };
        tx.put(Table::Cell, &n.to_be_bytes(), &[7; 2_000]).unwrap();
        tx.commit().unwrap();
    }
    put(&ours, b"last", Durability::Normal).unwrap();
    eventually("most is in the file", || length() > start + 150 * 2_000);
}

/// However fast somebody commits, the log is moved and starts anew.
#[test]
fn a_log_is_bounded_that_is_written_without_a_pause() {
    let options = Options { checkpoint_pages: 400, wal_keep: 64 << 10, ..Options::default() };
    let (_directory, storage) = fresh(options);
    let (mut longest, mut shrank, mut last) = (0, 0, 0);
    for n in 0..12_000_u32 {
        put(&storage, &n.to_be_bytes(), Durability::Normal).unwrap();
        let now = fs::metadata(&storage.wal_path).unwrap().len();
        longest = longest.max(now);
        shrank += u32::from(now < last);
        last = now;
    }
    // At eight times the pages commits wait.
    assert!(longest < 9 * 400 * 4_200, "{longest}");
    assert!(shrank > 3, "{shrank}");
}

#[test]
fn a_log_that_somebody_reads_is_moved_when_he_is_done() {
    let options = Options { checkpoint_pages: 20, wal_keep: 64 << 10, ..Options::default() };
    let (_directory, storage) = fresh(options);
    let log = || fs::metadata(&storage.wal_path).unwrap().len();
    put(&storage, b"before", Durability::Normal).unwrap();
    let reader = storage.read().unwrap();
    for n in 0..500_u32 {
        put(&storage, &n.to_be_bytes(), Durability::Normal).unwrap();
    }
    assert!(log() > 500 * 4_096, "what it reads is kept");
    assert_eq!(reader.get(Table::Cell, &7_u32.to_be_bytes()).unwrap(), None);
    drop(reader);
    eventually("the log starts anew", || {
        put(&storage, b"after", Durability::Normal).unwrap();
        put(&storage, b"again", Durability::Normal).unwrap();
        log() <= 64 << 10
    });
}

#[test]
fn closing_waits_for_what_is_being_moved_and_leaves_no_log() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.db");
    let options = Options { checkpoint_pages: 2, ..Options::default() };
    drop(SqliteStorage::create(&path, options.clone()).unwrap());
    for n in 0..60_u32 {
        let storage = SqliteStorage::open(&path, options.clone()).unwrap();
        let reader = storage.read().unwrap();
        for earlier in 0..n {
            assert!(
                reader.get(Table::Cell, &earlier.to_be_bytes()).unwrap().is_some(),
                "{earlier}"
            );
        }
        drop(reader);
        put(&storage, &n.to_be_bytes(), Durability::Normal).unwrap();
        let wal = storage.wal_path().to_path_buf();
        drop(storage);
        assert!(!wal.exists(), "{n}");
    }
}

#[test]
fn what_is_held_for_too_long_is_an_error_that_says_so() {
    let (_directory, storage) = fresh(Options {
        readers: 2,
        busy_timeout: Duration::from_millis(20),
        ..Options::default()
    });
    let writer = storage.write(Durability::Full).unwrap();
    assert!(matches!(storage.write(Durability::Full), Err(StorageError::Busy(_))));
    drop(writer);
    let readers = [storage.read().unwrap(), storage.read().unwrap()];
    let error = storage.read().err().unwrap();
    assert!(error.to_string().contains("all 2 read transactions"), "{error}");
    drop(readers);
    storage.read().unwrap();
}

#[test]
fn the_log_stays_bounded_while_readers_come_and_go() {
    let (_directory, storage) =
        fresh(Options { checkpoint_pages: 20, wal_keep: 64 << 10, ..Options::default() });
    let mut longest = 0;
    for n in 0..500_u32 {
        let reader = storage.read().unwrap();
        reader.get(Table::Cell, b"k").unwrap();
        drop(reader);
        put(&storage, &n.to_be_bytes(), Durability::Normal).unwrap();
        longest = longest.max(fs::metadata(&storage.wal_path).unwrap().len());
    }
    assert!(longest < 17 * 20 * 4_200, "{longest}");
}
