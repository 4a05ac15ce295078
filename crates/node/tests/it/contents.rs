//! Content put in, collected and fetched at the same time, by processes that die in between.

use crate::watched::Watched;
use anabranch_core::author::{Draft, Seen, Write};
use anabranch_core::blob::{BlobRef, ChunkHash, ContentRef, Node as Manifest, NodeItem};
use anabranch_core::entry::{StoreId, Timestamp};
use anabranch_core::key::DeviceKey;
use anabranch_core::ops::{MemberOp, Role, Subject, TicketTerms};
use anabranch_core::path::Path;
use anabranch_core::storage::{Durability, Storage, Table};
use anabranch_node::{
    Collection, Control, Device, Environment, Keep, Node, NodeError, Opening, Replica,
    ReplicaOptions, System, Until,
};
use anabranch_store::{MemoryStorage, Options, SqliteStorage};
use anabranch_sync::channel::Direction;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

mod sealed;

const HOUR: u64 = 3_600_000_000;

/// A clock that is set by hand.
#[derive(Default)]
struct Set(AtomicU64);

impl Environment for Set {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst) + 100 * 24 * HOUR)
    }

    fn steady(&self) -> Duration {
        System.steady()
    }

    fn fill(&self, bytes: &mut [u8]) -> Result<(), NodeError> {
        System.fill(bytes)
    }
}

fn open(storage: Arc<dyn Storage>, device: &Device) -> Arc<Replica> {
    // So little that most content takes several transactions.
    let options = ReplicaOptions { put_bytes: 50_000, ..ReplicaOptions::default() };
    Replica::open(storage, None, device.clone(), options).unwrap()
}

fn found() -> (Arc<Set>, Device, Arc<Replica>) {
    let clock = Arc::new(Set::default());
    let environment = Arc::clone(&clock) as Arc<dyn Environment>;
    let device = Device::within(DeviceKey::from_seed(&[1; 32]), environment);
    let storage = Arc::new(MemoryStorage::new());
    Replica::found(&*storage, &device).unwrap();
    let replica = open(storage, &device);
    (clock, device, replica)
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fill(seed, &mut bytes);
    bytes
}

/// Numbers of a simple generator, each seed another sequence.
fn fill(seed: u64, bytes: &mut [u8]) {
    let mut state = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for byte in bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = state as u8;
    }
}

fn store() -> StoreId {
    StoreId::blobs("b")
}

fn name(name: &str) -> Path {
    Path::text([name]).unwrap()
}

fn put(replica: &Arc<Replica>, path: &str, content: &[u8]) {
    let mut put = replica.put_content(&store()).unwrap();
    put.write(content).unwrap();
    put.finish(&name(path), Seen::AtCommit, "").unwrap();
}

fn read(replica: &Arc<Replica>, path: &str) -> Option<Vec<u8>> {
    let cell = replica.read(|view| view.cell(&store(), &name(path))).unwrap();
    let content = anabranch_core::blob::content_of(&cell.first()?.value).unwrap();
    let mut bytes = Vec::new();
    let sink = &mut |part: &[u8]| {
        bytes.extend_from_slice(part);
        Ok(())
    };
    replica.reader(&store(), content, Duration::ZERO).read(0..u64::MAX, sink).unwrap();
    Some(bytes)
}

fn names(replica: &Replica, table: Table, prefix: &[u8]) -> usize {
    let mut count = 0;
    let tx = replica.storage().read().unwrap();
    tx.keys(table, prefix, None, &mut |key| {
        count += usize::from(key.starts_with(prefix));
        ControlFlow::Continue(())
    })
    .unwrap();
    count
}

fn blobs(replica: &Replica) -> usize {
    names(replica, Table::Blob, b"")
}

fn rows(replica: &Replica) -> [usize; 4] {
    [&b"await/"[..], b"put/", b"pin/", b"collect"]
        .map(|prefix| names(replica, Table::Local, prefix))
}

fn collect(replica: &Arc<Replica>, marks: usize) -> u64 {
    replica.collect(marks).unwrap().run(&mut |_| ()).unwrap().blobs
}

fn step(collection: &mut Collection) -> bool {
    while collection.sweep().unwrap() {}
    collection.mark().unwrap()
}

#[test]
fn a_put_leaves_no_rows_and_a_collection_takes_what_nothing_names() {
    let (_, _, replica) = found();
    for n in 0..6 {
        put(&replica, &(n % 3).to_string(), &noise(n, 200_000));
    }
    put(&replica, "empty", b"");
    assert_eq!(rows(&replica), [0; 4]);
    let all = blobs(&replica);
    // However few names are marked at once, the outcome is the same.
    let taken = collect(&replica, 1);
    assert!(taken > 6 && (taken as usize) < all, "{taken} of {all}");
    assert_eq!((blobs(&replica), collect(&replica, 1_000)), (all - taken as usize, 0));
    for n in 0..3 {
        assert!(read(&replica, &n.to_string()) == Some(noise(n + 3, 200_000)));
    }
    assert_eq!(read(&replica, "empty"), Some(Vec::new()));
    assert_eq!(rows(&replica), [0; 4]);
}

#[test]
fn a_collection_spares_what_a_put_is_about_to_name() {
    let (_, _, replica) = found();
    let content = noise(1, 300_000);
    // What is there already and named by nothing is named again in the middle of a collection.
    put(&replica, "old", &content);
    put(&replica, "old", b"new");
    let mut collection = replica.collect(1_000).unwrap();
    assert!(collection.mark().unwrap());
    let mut slow = replica.put_content(&store()).unwrap();
    slow.write(&content).unwrap();
    while collection.sweep().unwrap() {}
    assert!(replica.collect(1).is_err(), "one at a time");
    slow.finish(&name("again"), Seen::AtCommit, "").unwrap();
    assert_eq!(rows(&replica), [1, 0, 0, 1], "awaited while a collection may take it for unnamed");
    while step(&mut collection) {}
    collection.end().unwrap();
    assert!(read(&replica, "again") == Some(content));
    assert_eq!(collect(&replica, 3), 0);
}

#[test]
fn a_put_that_ends_between_mark_and_sweep_keeps_its_content() {
    let (_, _, replica) = found();
    let content = noise(2, 300_000);
    put(&replica, "old", &content);
    put(&replica, "old", b"new");
    let mut collection = replica.collect(1_000).unwrap();
    assert!(collection.mark().unwrap());
    put(&replica, "again", &content);
    while step(&mut collection) {}
    collection.end().unwrap();
    assert!(read(&replica, "again") == Some(content));
}

#[test]
fn what_a_killed_put_left_is_taken_away_after_a_day() {
    let (clock, device, replica) = found();
    let mut put = replica.put_content(&store()).unwrap();
    put.write(&noise(3, 400_000)).unwrap();
    std::mem::forget(put);
    let storage = Arc::clone(replica.storage());
    drop(replica);
    let replica = open(storage, &device);
    assert!(blobs(&replica) > 0);
    assert_eq!(collect(&replica, 100), 0, "it may still be at work");
    clock.0.store(25 * HOUR, Ordering::SeqCst);
    assert!(collect(&replica, 100) > 0);
    assert_eq!((blobs(&replica), rows(&replica)), (0, [0; 4]));
}

#[test]
fn a_put_that_seemed_dead_fails_and_names_nothing() {
    let (clock, _, replica) = found();
    let mut slow = replica.put_content(&store()).unwrap();
    slow.write(&noise(4, 400_000)).unwrap();
    clock.0.store(25 * HOUR, Ordering::SeqCst);
    assert!(collect(&replica, 100) > 0);
    let failed = slow.finish(&name("x"), Seen::AtCommit, "");
    assert!(failed.is_err_and(|e| e.to_string().contains("try again")));
    assert_eq!(read(&replica, "x"), None);
}

#[test]
fn a_collection_that_seemed_dead_takes_nothing_more() {
    let (clock, _, replica) = found();
    let content = noise(5, 300_000);
    put(&replica, "old", &content);
    put(&replica, "old", b"new");
    let mut collection = replica.collect(1_000).unwrap();
    assert!(collection.mark().unwrap());
    clock.0.store(25 * HOUR, Ordering::SeqCst);
    put(&replica, "again", &content);
    assert!(collection.sweep().is_err());
    drop(collection);
    assert!(read(&replica, "again") == Some(content));
}

#[test]
fn puts_and_collections_of_many_threads_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let device = Device::new(DeviceKey::from_seed(&[7; 32]));
    let file = dir.path().join("x.db");
    Replica::found(&SqliteStorage::create(&file, Options::default()).unwrap(), &device).unwrap();
    // Each as a process of its own would have it.
    let again = || open(Arc::new(SqliteStorage::open(&file, Options::default()).unwrap()), &device);
    let rounds = Arc::new(AtomicU64::new(0));
    let putting = |who: u64| {
        let (replica, rounds) = (again(), Arc::clone(&rounds));
        std::thread::spawn(move || {
            let mut n = 0;
            // However the threads are scheduled, some are collected in between.
            while n < 25 || rounds.load(Ordering::SeqCst) < 3 {
                // Contents come again and again, under names that are overwritten.
                put(&replica, &format!("{who}/{}", n % 2), &noise((n * who) % 4, 150_000));
                n += 1;
            }
            n
        })
    };
    let threads = [putting(1), putting(2), putting(3)];
    let replica = again();
    while threads.iter().any(|thread| !thread.is_finished()) {
        collect(&replica, 7);
        rounds.fetch_add(1, Ordering::SeqCst);
    }
    let counts = threads.map(|thread| thread.join().unwrap());
    collect(&replica, 7);
    for (who, count) in (1..4u64).zip(counts) {
        for n in [count - 2, count - 1] {
            let found = read(&replica, &format!("{who}/{}", n % 2));
            assert!(found == Some(noise((n * who) % 4, 150_000)), "{who} {n}");
        }
    }
    let left = blobs(&replica);
    assert_eq!((collect(&replica, 1_000), blobs(&replica)), (0, left));
}

async fn synced(one: &Arc<Replica>, other: &Arc<Replica>) {
    let node = Node::in_memory_as(
        one.device().clone(),
        anabranch_node::config::Settings::load(|_| None).unwrap(),
    )
    .unwrap();
    let opening = Opening { replica: Arc::clone(one), direction: Direction::BOTH, ticket: None };
    node.sync_local(opening, Arc::clone(other), Until::Settled, &Control::default()).await.unwrap();
}

/// What one stretch of the fetching asks for is bounded; the rest is fetched all the same, and what nobody has keeps nobody
/// waiting.
#[tokio::test(flavor = "multi_thread")]
async fn content_that_nobody_has_keeps_nothing_else_from_coming() {
    let (_, device, one) = found();
    let other = {
        let storage = Arc::new(MemoryStorage::new());
        Replica::prepare(&*storage, one.database()).unwrap();
        open(storage, &device)
    };
    for n in 0..40 {
        put(&one, &format!("{n}"), &noise(n, 40_000 + n as usize * 100));
    }
    let gone: Vec<Vec<u8>> = (0..20).map(|n| noise(n, 40_000 + n as usize * 100)).collect();
    let mut tx = one.storage().write(Durability::Full).unwrap();
    for content in &gone {
        // Its only chunk, or the root above two.
        let mut builder = anabranch_core::blob::Builder::new();
        let none = |_: anabranch_core::blob::Piece<'_>| Ok::<_, std::convert::Infallible>(());
        builder.push(content, none).unwrap();
        let root: ChunkHash = builder.finish(none).unwrap().root();
        assert!(tx.delete(Table::Blob, &root.0).unwrap());
    }
    tx.commit().unwrap();
    tokio::time::timeout(Duration::from_secs(20), synced(&other, &one)).await.unwrap();
    assert_eq!(rows(&other)[0], 20, "what is lacking is known");
    for n in 20..40 {
        let content = noise(n, 40_000 + n as usize * 100);
        assert!(read(&other, &n.to_string()) == Some(content), "{n}");
    }
    // It turns up again.
    for (n, content) in gone.iter().enumerate() {
        put(&one, &format!("{n}"), content);
    }
    synced(&other, &one).await;
    assert_eq!(rows(&other)[0], 0);
}

#[test]
fn what_a_store_keeps_is_remembered() {
    let (_, device, replica) = found();
    assert_eq!(replica.keep(Some("b")).unwrap(), Keep::Eager);
    replica.set_keep(None, Keep::Lazy).unwrap();
    replica.set_keep(Some("b"), Keep::Eager).unwrap();
    let storage = Arc::clone(replica.storage());
    drop(replica);
    let replica = open(storage, &device);
    let kept = [None, Some("a"), Some("b")].map(|name| replica.keep(name).unwrap());
    assert_eq!(kept, [Keep::Lazy, Keep::Lazy, Keep::Eager]);
}

/// Commits a value that names `content`, whatever it is.
fn claim(replica: &Replica, path: &str, content: ContentRef) {
    let value = Some(BlobRef { content, media_type: String::new() }.encode());
    let (store, path, seen) = (store(), name(path), Seen::AtCommit);
    let write = Write { store, path, value, seen, below: false, above: false };
    replica.commit_group(&[vec![Draft { writes: vec![write], ..Draft::default() }]]).unwrap();
}

fn content_at(replica: &Replica, path: &str) -> ContentRef {
    let cell = replica.read(|view| view.cell(&store(), &name(path))).unwrap();
    anabranch_core::blob::content_of(&cell.first().unwrap().value).unwrap()
}

#[test]
fn values_that_lie_about_content_take_nothing_away_from_those_that_do_not() {
    let (_, _, replica) = found();
    let content = noise(1, 300_000);
    put(&replica, "honest", &content);
    let honest = content_at(&replica, "honest");
    let (size, depth, root) = (honest.size(), honest.depth(), honest.root());
    assert_eq!(depth, 1);
    claim(&replica, "a size", ContentRef::new(size + 1, depth, root).unwrap());
    claim(&replica, "a depth", ContentRef::new(size, depth + 1, root).unwrap());
    let items = [(root, size - 9), (ChunkHash([7; 32]), 9)];
    let items = items.map(|(hash, len)| NodeItem { hash, len }).to_vec();
    let bytes = Manifest { level: depth + 1, items }.encode();
    let above = ChunkHash::of(&bytes);
    let mut tx = replica.storage().write(Durability::Full).unwrap();
    tx.put(Table::Blob, &above.0, &bytes).unwrap();
    tx.commit().unwrap();
    for path in ["a child", "z child"] {
        claim(&replica, path, ContentRef::new(size, depth + 1, above).unwrap());
    }
    assert_eq!(collect(&replica, 1_000), 0);
    assert!(read(&replica, "honest") == Some(content));
}

/// Removes the `n`th chunk of the content at `path`.
fn lose(replica: &Replica, path: &str, n: usize) {
    let content = content_at(replica, path);
    let mut tx = replica.storage().write(Durability::Full).unwrap();
    let bytes = tx.get(Table::Blob, &content.root().0).unwrap().unwrap();
    let (offset, len, is_last, is_root) = (0, content.size(), true, true);
    let (hash, level) = (content.root(), content.depth());
    let place = anabranch_core::blob::NodeSpan { hash, level, offset, len, is_last, is_root };
    let node = Manifest::decode(&bytes, &place).unwrap();
    assert!(tx.delete(Table::Blob, &node.items[n].hash.0).unwrap());
    tx.commit().unwrap();
}

/// A replica with nothing in it yet, of the same database.
fn empty(device: &Device, of: &Replica) -> Arc<Replica> {
    let storage = Arc::new(MemoryStorage::new());
    Replica::prepare(&*storage, of.database()).unwrap();
    open(storage, device)
}

#[tokio::test(flavor = "multi_thread")]
async fn content_of_two_names_is_lacking_under_both() {
    let (_, device, one) = found();
    let content = noise(3, 400_000);
    put(&one, "a", &content);
    let honest = content_at(&one, "a");
    let lie = ContentRef::new(honest.size() + 1, honest.depth(), honest.root()).unwrap();
    claim(&one, "a lie", lie);
    put(&one, "b", &content);
    let again = StoreId::blobs("c");
    let mut other_store = one.put_content(&again).unwrap();
    other_store.write(&content).unwrap();
    other_store.finish(&name("c"), Seen::AtCommit, "").unwrap();
    lose(&one, "a", 2);
    let other = empty(&device, &one);
    tokio::time::timeout(Duration::from_secs(20), synced(&other, &one)).await.unwrap();
    assert_eq!(rows(&other)[0], 3, "each value whose content is lacking is known");
    // It turns up again.
    put(&one, "d", &content);
    claim(&one, "a", lie);
    tokio::time::timeout(Duration::from_secs(20), synced(&other, &one)).await.unwrap();
    assert_eq!(rows(&other)[0], 0);
    assert!(read(&other, "b") == Some(content));
}

#[tokio::test(flavor = "multi_thread")]
async fn content_put_in_here_is_not_evicted_when_somebody_else_settles_for_it() {
    let storage = MemoryStorage::new();
    let [one, two] = [1, 2].map(|seed| Device::new(DeviceKey::from_seed(&[seed; 32])));
    Replica::found(&storage, &one).unwrap();
    let storage = Arc::new(storage);
    let mine = open(Arc::clone(&storage) as Arc<dyn Storage>, &one);
    let grant = MemberOp::Grant {
        subject: Subject::Device(two.id()),
        role: Role::Write,
        priority: 0,
        terms: TicketTerms::default(),
    };
    mine.commit_group(&[vec![Draft { members: vec![grant], ..Draft::default() }]]).unwrap();
    let theirs = open(Arc::new(storage.fork([2; 32])), &two);
    let (kept, fetched) = (noise(1, 300_000), noise(2, 300_000));
    put(&mine, "x", &kept);
    put(&theirs, "x", &fetched);
    put(&theirs, "y", &fetched);
    synced(&mine, &theirs).await;
    let content = mine.read(|view| view.cell(&store(), &name("x"))).unwrap();
    let own = content.iter().find(|value| value.name.log.device == one.id()).unwrap();
    claim(&theirs, "x", anabranch_core::blob::content_of(&own.value).unwrap());
    synced(&mine, &theirs).await;
    mine.set_keep(None, Keep::Lazy).unwrap();
    let evict = || mine.evict("b", None, 1_000).unwrap().run(&mut |_| ()).unwrap().blobs;
    assert!(evict() > 2, "what was fetched");
    assert!(read(&mine, "x") == Some(kept));
    assert_eq!((names(&mine, Table::Local, b"own/"), evict()), (1, 0));
    // It is forgotten with the content.
    claim(&theirs, "x", ContentRef::empty());
    synced(&mine, &theirs).await;
    assert!(collect(&mine, 1_000) > 2);
    assert_eq!((blobs(&mine), names(&mine, Table::Local, b"own/")), (0, 0));
}

#[test]
fn what_was_committed_does_not_fail_for_what_could_not_be_tidied_up() {
    let device = Device::new(DeviceKey::from_seed(&[1; 32]));
    let storage = Arc::new(Watched::default());
    Replica::found(&*storage, &device).unwrap();
    let replica = open(Arc::clone(&storage) as Arc<dyn Storage>, &device);
    let content = noise(1, 300_000);
    let mut put = replica.put_content(&store()).unwrap();
    put.write(&content).unwrap();
    storage.full_later.store(u32::MAX, Ordering::SeqCst);
    put.finish(&name("x"), Seen::AtCommit, "").unwrap();
    storage.full_later.store(0, Ordering::SeqCst);
    assert!(rows(&replica)[2] > 0);
    assert_eq!((collect(&replica, 100), rows(&replica)), (0, [0; 4]));
    assert!(read(&replica, "x") == Some(content));
}

#[test]
fn a_reader_may_wait_for_ever() {
    let (_, _, replica) = found();
    put(&replica, "x", b"here");
    let reader = replica.reader(&store(), content_at(&replica, "x"), Duration::MAX);
    let mut bytes = Vec::new();
    let sink = &mut |part: &[u8]| {
        bytes.extend_from_slice(part);
        Ok(())
    };
    reader.read(0..u64::MAX, sink).unwrap();
    assert_eq!(bytes, b"here");
}
