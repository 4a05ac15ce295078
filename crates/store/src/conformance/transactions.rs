//! What transactions see of each other, on one thread and on several.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anabranch_core::storage::{Durability, Order, ReadTx, Storage, StorageError, Table};

use super::{Make, collect, keys, store};

pub(super) fn a_snapshot_stays_what_it_is(make: Make<'_>) -> Result<(), StorageError> {
    let storage = make();
    store(&*storage, Table::Cell, &[(b"a", b"1"), (b"b", b"1")])?;
    // Nothing is read from it before the commit: the snapshot is of when it was asked for.
    let before = storage.read()?;
    let mut writer = storage.write(Durability::Full)?;
    writer.put(Table::Cell, b"a", b"2")?;
    writer.delete(Table::Cell, b"b")?;
    writer.put(Table::Cell, b"c", b"2")?;
    writer.commit()?;
    let after = storage.read()?;
    assert_eq!(before.get(Table::Cell, b"a")?.as_deref(), Some(&b"1"[..]));
    assert_eq!(keys(&*before, Table::Cell)?, [b"a", b"b"]);
    assert_eq!(after.get(Table::Cell, b"a")?.as_deref(), Some(&b"2"[..]));
    assert_eq!(keys(&*after, Table::Cell)?, [b"a", b"c"]);
    Ok(())
}

pub(super) fn a_writer_sees_its_own_writes(make: Make<'_>) -> Result<(), StorageError> {
    let storage = make();
    store(&*storage, Table::Cell, &[(b"a", b"1"), (b"c", b"1"), (b"e", b"1")])?;
    let mut writer = storage.write(Durability::Normal)?;
    writer.put(Table::Cell, b"b", b"2")?;
    writer.put(Table::Cell, b"c", b"2")?;
    writer.delete(Table::Cell, b"a")?;
    writer.put(Table::Cell, b"d", b"2")?;
    writer.delete(Table::Cell, b"d")?;
    let expected = [("b", "2"), ("c", "2"), ("e", "1")].map(|(k, v)| (k.into(), v.into()));
    assert_eq!(collect(&*writer, Table::Cell, b"", None, Order::Ascending)?, expected);
    let descending = collect(&*writer, Table::Cell, b"b", Some(b"d"), Order::Descending)?;
    assert_eq!(descending, [expected[1].clone(), expected[0].clone()]);
    assert_eq!(writer.get(Table::Cell, b"a")?, None);
    assert_eq!(writer.get(Table::Cell, b"c")?.as_deref(), Some(&b"2"[..]));
    writer.commit()?;
    let reader = storage.read()?;
    assert_eq!(collect(&*reader, Table::Cell, b"", None, Order::Ascending)?, expected);
    Ok(())
}

pub(super) fn uncommitted_writes_stay_unseen(make: Make<'_>) -> Result<(), StorageError> {
    let storage = make();
    let mut writer = storage.write(Durability::Full)?;
    writer.put(Table::Cell, b"k", b"v")?;
    assert_eq!(storage.read()?.get(Table::Cell, b"k")?, None);
    writer.commit()?;
    assert!(storage.read()?.get(Table::Cell, b"k")?.is_some());
    Ok(())
}

pub(super) fn a_dropped_writer_leaves_nothing(make: Make<'_>) -> Result<(), StorageError> {
    let storage = make();
    store(&*storage, Table::Cell, &[(b"a", b"1")])?;
    let mut writer = storage.write(Durability::Full)?;
    writer.put(Table::Cell, b"a", b"2")?;
    writer.put(Table::Head, b"h", b"2")?;
    writer.put(Table::Blob, &[3; 32], &[0; 256 << 10])?;
    drop(writer);
    let writer = storage.write(Durability::Full)?;
    assert_eq!(writer.get(Table::Cell, b"a")?.as_deref(), Some(&b"1"[..]));
    assert_eq!(writer.get(Table::Head, b"h")?, None);
    assert_eq!(keys(&*writer, Table::Blob)?.len(), 0);
    Ok(())
}

pub(super) fn values_may_be_read_while_visiting(make: Make<'_>) -> Result<(), StorageError> {
    let storage = make();
    store(&*storage, Table::Segment, &[(b"a", b"x"), (b"b", b"y")])?;
    store(&*storage, Table::Cell, &[(b"x", b"1"), (b"y", b"2")])?;
    visit_with_look_ups(&*storage.read()?)?;
    let mut writer = storage.write(Durability::Normal)?;
    writer.put(Table::Cell, b"y", b"2")?;
    visit_with_look_ups(&*writer)
}

/// Follows each value of one table into another, and scans the same table again inside.
fn visit_with_look_ups(reader: &dyn ReadTx) -> Result<(), StorageError> {
    let mut seen = Vec::new();
    reader.scan(Table::Segment, b"", None, Order::Ascending, &mut |_, value| {
        seen.push(reader.get(Table::Cell, value).and_then(|cell| {
            let inner = collect(reader, Table::Segment, b"", None, Order::Ascending)?;
            Ok((cell, inner.len()))
        }));
        ControlFlow::Continue(())
    })?;
    let seen: Vec<_> = seen.into_iter().collect::<Result<_, _>>()?;
    assert_eq!(seen, [(Some(b"1".to_vec()), 2), (Some(b"2".to_vec()), 2)]);
    Ok(())
}

pub(super) fn a_panicking_visitor_does_no_harm(make: Make<'_>) -> Result<(), StorageError> {
    let storage = make();
    store(&*storage, Table::Cell, &[(b"a", b"1")])?;
    let panicked = catch_unwind(AssertUnwindSafe(|| -> Result<(), StorageError> {
        let mut writer = storage.write(Durability::Full)?;
        writer.put(Table::Cell, b"b", b"2")?;
        writer.scan(Table::Cell, b"", None, Order::Ascending, &mut |_, _| {
            // Without the message that a panic prints.
            std::panic::resume_unwind(Box::new("visitor"))
        })
    }));
    assert!(panicked.is_err());
    store(&*storage, Table::Cell, &[(b"c", b"3")])?;
    assert_eq!(keys(&*storage.read()?, Table::Cell)?, [b"a", b"c"]);
    Ok(())
}

pub(super) fn an_empty_transaction_commits(make: Make<'_>) -> Result<(), StorageError> {
    let storage = make();
    for durability in [Durability::Full, Durability::Normal, Durability::Full] {
        storage.write(durability)?.commit()?;
    }
    store(&*storage, Table::Cell, &[(b"a", b"1")])?;
    storage.write(Durability::Full)?.commit()?;
    assert_eq!(keys(&*storage.read()?, Table::Cell)?, [b"a"]);
    Ok(())
}

pub(super) fn writers_take_turns(make: Make<'_>) -> Result<(), StorageError> {
    const THREADS: u64 = 4;
    const TURNS: u64 = 25;
    let storage = make();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|_| scope.spawn(|| (0..TURNS).try_for_each(|_| count(&*storage))))
            .collect();
        workers.into_iter().try_for_each(join)
    })?;
    assert_eq!(counted(&*storage.read()?)?, THREADS * TURNS);
    Ok(())
}

/// Adds one to a number that every writer reads first: a lost turn shows.
fn count(storage: &dyn Storage) -> Result<(), StorageError> {
    let mut writer = storage.write(Durability::Normal)?;
    let next = counted(&*writer)? + 1;
    thread::yield_now();
    writer.put(Table::Meta, b"count", &next.to_be_bytes())?;
    writer.commit()
}

fn counted(reader: &dyn ReadTx) -> Result<u64, StorageError> {
    let bytes = reader.get(Table::Meta, b"count")?.unwrap_or_else(|| vec![0; 8]);
    Ok(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

pub(super) fn readers_see_whole_commits(make: Make<'_>) -> Result<(), StorageError> {
    let storage = make();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0_u32;
            while !done.load(Ordering::Acquire) || reads == 0 {
                let reader = storage.read()?;
                let cell = reader.get(Table::Cell, b"k")?;
                thread::yield_now();
                assert_eq!(reader.get(Table::Head, b"k")?, cell);
                reads += 1;
            }
            Ok(())
        });
        let written = (0..100_u32).try_for_each(|n| {
            let mut writer = storage.write(Durability::Normal)?;
            writer.put(Table::Cell, b"k", &n.to_be_bytes())?;
            writer.put(Table::Head, b"k", &n.to_be_bytes())?;
            writer.commit()
        });
        done.store(true, Ordering::Release);
        join(reader)?;
        written
    })
}

pub(super) fn a_reader_holds_up_no_writer(make: Make<'_>) -> Result<(), StorageError> {
    let storage = make();
    let held: Vec<_> = (0..3_u8)
        .map(|n| {
            store(&*storage, Table::Cell, &[(&[n], b"v")])?;
            storage.read()
        })
        .collect::<Result<_, _>>()?;
    store(&*storage, Table::Cell, &[(&[9], b"v")])?;
    for (n, reader) in held.iter().enumerate() {
        assert_eq!(keys(&**reader, Table::Cell)?.len(), n + 1);
    }
    Ok(())
}

/// A back end that cannot tell says so; then nothing is checked.
pub(super) fn states_are_told_apart(make: Make<'_>) -> Result<(), StorageError> {
    let storage = make();
    let commit = |change: bool| {
        let mut writer = storage.write(Durability::Normal)?;
        let state = writer.state();
        if change {
            writer.put(Table::Cell, b"k", &state.unwrap_or_default().to_be_bytes())?;
        }
        writer.commit()?;
        Ok::<_, StorageError>(state)
    };
    let Some(first) = commit(true)? else { return Ok(()) };
    assert_eq!(commit(true)?, Some(first + 1));
    let undone = storage.write(Durability::Full)?;
    assert_eq!(undone.state(), Some(first + 2));
    drop(undone);
    assert_eq!(commit(false)?, Some(first + 2), "what was undone was no commit");
    let mut tried = match storage.try_write()? {
        Some(tried) => tried,
        None => storage.write(Durability::Normal)?,
    };
    assert_eq!(tried.state(), Some(first + 3));
    tried.put(Table::Cell, b"k", b"tried")?;
    tried.commit()?;
    assert_eq!(commit(true)?, Some(first + 4));
    Ok(())
}

pub(super) fn who_must_not_wait_does_not(make: Make<'_>) -> Result<(), StorageError> {
    let storage = make();
    let held = storage.write(Durability::Normal)?;
    assert!(storage.try_write()?.is_none());
    drop(held);
    let Some(mut tried) = storage.try_write()? else { return Ok(()) };
    tried.put(Table::Cell, b"k", b"v")?;
    tried.commit()?;
    assert_eq!(storage.read()?.get(Table::Cell, b"k")?, Some(b"v".to_vec()));
    // The next one may wait again.
    store(&*storage, Table::Cell, &[(b"l", b"v")])
}

/// The worker's result; its panic goes on here.
fn join(
    worker: thread::ScopedJoinHandle<'_, Result<(), StorageError>>,
) -> Result<(), StorageError> {
    worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
