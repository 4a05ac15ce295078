//! Sealed databases: who may read opens what others wrote, in whatever order keys and entries come, and nobody else does.

use crate::cases;
use crate::replica::{Device, Replica, sound, write};
use crate::world::grant;
use anabranch_core::author::{Draft, Step, Tally};
use anabranch_core::awaited::AwaitKey;
use anabranch_core::blob::{BlobRef, ChunkHash, ContentRef};
use anabranch_core::build;
use anabranch_core::entry::{Entry, GrantRef, Header, Payload, StoreId, StoreKind, Timestamp};
use anabranch_core::error::Error;
use anabranch_core::founding::Founding;
use anabranch_core::head::Head;
use anabranch_core::id::{EntryId, LogId, NodeId, Position};
use anabranch_core::key::DeviceKey;
use anabranch_core::ledger::Ledger;
use anabranch_core::ops::{CellOp, Cut, MemberOp, Role, Subject, encode_cells};
use anabranch_core::path::Path;
use anabranch_core::run::{Run, VerifiedRun};
use anabranch_core::seal::{Bound, Key, KeyOp, Scope, decode_keys, encode_keys};
use anabranch_core::storage::{Durability, ReadTx, Storage, StorageError, Table, WriteTx};
use anabranch_core::verify::verify;
use anabranch_reference::fold_with;
use anabranch_store::MemoryStorage;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

fn founder() -> Device {
    Device::found_with(Founding { sealed: Scope::Everything, recovery: None })
}

/// Two admins who know of each other, and of a reader.
fn two_admins_and_a_reader() -> [Device; 3] {
    let mut ana = founder();
    let bob = let_in(&mut ana, 2, Role::Admin);
    let eve = let_in(&mut ana, 3, Role::Read);
    ana.meet(&bob);
    [ana, bob, eve]
}

/// Both hand out what is lacking, and sign.
fn hand_out(devices: [&mut Device; 2]) {
    for device in devices {
        device.act(|ledger, author| ledger.hand_out(author)).unwrap();
        device.seal();
    }
}

fn put(device: &mut Device, path: &str, value: &str) {
    device.put(vec![write(&[path], Some(value))]);
}

/// Commits and signs.
fn change(device: &mut Device, members: Vec<MemberOp>) {
    device.grant(&members).unwrap();
    device.seal();
}

fn let_in(device: &mut Device, seed: u8, role: Role) -> Device {
    let other = Device::found_like(device, seed);
    change(device, vec![grant(Subject::Device(other.key.node_id()), role, 0)]);
    device.meet(&other);
    other
}

fn revoke(device: &mut Device, other: &DeviceKey) {
    let subject = Subject::Device(other.node_id());
    let grants = device.replica.view(|v| v.grants().unwrap());
    let held = grants.iter().filter(|grant| grant.subject == subject && grant.holds);
    let ends = held.map(|grant| MemberOp::Revoke { grant: grant.id, cut: Cut::Past }).collect();
    change(device, ends);
}

/// Opens what has come for this device and builds what that reveals.
fn unlock(replica: &Replica, reader: &DeviceKey) -> usize {
    let mut tx = replica.storage.write(anabranch_core::storage::Durability::Full).unwrap();
    let mut ledger = anabranch_core::ledger::Ledger::open(&mut *tx).unwrap();
    let opened = ledger.unlock(reader).unwrap();
    ledger.finish().unwrap();
    tx.commit().unwrap();
    build::finish(&*replica.storage, build::Budget::default()).unwrap();
    opened
}

fn built(device: &Device) {
    build::finish(&*device.replica.storage, build::Budget::default()).unwrap();
}

fn digest(device: &Device) -> Option<[u8; 32]> {
    built(device);
    device.replica.view(|v| v.state_digest().unwrap())
}

/// An entry of a new log of `by`, on top of all it holds, that writes these bytes to a store.
fn hand_made(by: &Device, epoch: u64, store: StoreId, bytes: Vec<u8>) -> VerifiedRun {
    let frontier = by.replica.view(|v| v.frontier().unwrap());
    let mut parents: Vec<Position> = frontier.positions().copied().collect();
    parents.sort();
    let entries = by.replica.entries();
    let below = entries.iter().filter(|entry| parents.contains(&entry.position()));
    let generation = 1 + below.map(|entry| entry.header().generation).max().unwrap();
    let subject = Subject::Device(by.key.node_id());
    let grants = by.replica.view(|v| v.grants().unwrap());
    let header = Header {
        database: Some(by.replica.database),
        log: LogId { device: by.key.node_id(), epoch },
        seq: 1,
        prev: None,
        parents: parents.clone(),
        generation,
        timestamp: Timestamp(1),
        grant: grants.iter().find(|g| g.subject == subject && g.holds).unwrap().id,
        payloads: vec![],
        salt: None,
    };
    let entry = Entry::new(header, vec![(store, Payload::Present(bytes))]).unwrap();
    let head = Head::sign(&by.key, &by.replica.database, entry.position());
    let heads = by.replica.view(|v| v.frontier().unwrap());
    let signatures = parents
        .iter()
        .map(|parent| {
            heads.tips().iter().find(|tip| tip.head.position == *parent).unwrap().head.signature
        })
        .collect();
    sound(Run::new(by.replica.database, vec![entry], head.signature, signatures))
}

/// How often `text` occurs anywhere in what a replica keeps.
fn occurs(replica: &Replica, text: &[u8]) -> usize {
    let tx = replica.storage.read().unwrap();
    let mut count = 0;
    for table in Table::ALL {
        let order = anabranch_core::storage::Order::Ascending;
        tx.scan(table, &[], None, order, &mut |key, row| {
            for bytes in [key, row] {
                count += bytes.windows(text.len()).filter(|window| *window == text).count();
            }
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    }
    count
}

fn keys_made(device: &Device) -> usize {
    let ops = device.replica.entries().iter().flat_map(key_ops).collect::<Vec<_>>();
    ops.iter().filter(|op| matches!(op, KeyOp::New { .. })).count()
}

#[test]
fn members_read_what_a_relay_passes_on_and_cannot() {
    let mut ana = founder();
    put(&mut ana, "before", "the plain text");
    let relay = let_in(&mut ana, 2, Role::Relay);
    let bob = Device::found_like(&ana, 3);
    change(&mut ana, vec![grant(Subject::Device(bob.key.node_id()), Role::Write, 0)]);
    put(&mut ana, "after", "the plain text");
    ana.meet(&relay);
    relay.meet(&bob);
    assert_eq!(digest(&bob), digest(&ana));
    assert_eq!(bob.values(&["before"]), ["the plain text"]);
    assert_eq!(bob.values(&["after"]), ["the plain text"]);
    assert_eq!(occurs(&relay.replica, b"the plain text"), 0);
    assert_eq!(occurs(&relay.replica, blake3::hash(b"the plain text").as_bytes()), 0);
    assert!(occurs(&bob.replica, b"the plain text") > 0);
    // And says so, instead of showing an empty store.
    assert!(relay.replica.view(|v| v.is_closed().unwrap()));
    assert_eq!(digest(&relay), None);
    assert!(!bob.replica.view(|v| v.is_closed().unwrap()));
}

/// A database of which `pins` is sealed and `t` is not.
fn partly_sealed() -> Device {
    let sealed = Scope::Stores(vec!["pins".into()]);
    Device::found_with(Founding { sealed, recovery: None })
}

fn pin(key: &str, value: &str) -> anabranch_core::author::Write {
    let mut write = write(&[key], Some(value));
    write.store = StoreId::table("pins");
    write
}

fn pins(device: &Device, key: &str) -> usize {
    let path = Path::text([key]).unwrap();
    device.replica.view(|v| v.cell(&StoreId::table("pins"), &path).unwrap().len())
}

#[test]
fn of_a_partly_sealed_database_a_relay_reads_what_is_not() {
    let mut ana = partly_sealed();
    let relay = let_in(&mut ana, 2, Role::Relay);
    // Both in one entry.
    ana.put(vec![pin("bank", "the plain pin"), write(&["note"], Some("for everybody"))]);
    ana.seal();
    ana.meet(&relay);
    assert_eq!(relay.values(&["note"]), ["for everybody"]);
    assert_eq!((pins(&relay, "bank"), pins(&ana, "bank")), (0, 1));
    assert_eq!(occurs(&relay.replica, b"the plain pin"), 0);
    assert_eq!(occurs(&relay.replica, b"bank"), 0);
    let stores = |device: &Device| {
        let stores = device.replica.view(|v| v.stores().unwrap()).into_iter();
        stores.map(|store| (store.id.to_string(), (store.closed, store.digest))).collect()
    };
    let (hers, its): (BTreeMap<_, _>, BTreeMap<_, _>) = (stores(&ana), stores(&relay));
    assert_eq!(its["table t"], hers["table t"]);
    assert_eq!(its["table pins"], (true, None));
    assert_eq!(digest(&relay), None);
    // Who comes in later by way of the relay has both.
    let late = Device::found_like(&ana, 3);
    change(&mut ana, vec![grant(Subject::Device(late.key.node_id()), Role::Read, 0)]);
    ana.meet(&relay);
    relay.meet(&late);
    assert_eq!(digest(&late), digest(&ana));
    assert_eq!((late.values(&["note"]).len(), pins(&late, "bank")), (1, 1));
    // Who is put out reads what is not sealed, if somebody gives it to him, and of the rest nothing that is new.
    revoke(&mut ana, &late.key);
    ana.put(vec![pin("safe", "another pin"), write(&["news"], Some("for everybody"))]);
    ana.seal();
    ana.meet(&late);
    unlock(&late.replica, &late.key);
    assert_eq!((late.values(&["news"]).len(), pins(&late, "safe"), pins(&ana, "safe")), (1, 0, 1));
    assert_eq!(occurs(&late.replica, b"another pin"), 0);
    let tx = ana.replica.storage.read().unwrap();
    verify(&*tx, &MemoryStorage::new(), &mut |_| {}).unwrap();
}

#[test]
fn without_a_key_a_writer_writes_what_is_not_sealed() {
    let mut ana = partly_sealed();
    let mut bob = Device::found_like(&ana, 2);
    // Let in by somebody who handed no key on: a redemption, say.
    let op = grant(Subject::Device(bob.key.node_id()), Role::Write, 0);
    let draft = Draft { members: vec![op], ..Draft::default() };
    let wraps = |op: &KeyOp| matches!(op, KeyOp::Wrap { .. });
    ana.act(|ledger, author| ledger.commit(author, &draft)).unwrap();
    ana.seal();
    let entries = ana.replica.entries();
    let handed = entries.iter().filter(|entry| key_ops(entry).iter().any(wraps)).count();
    assert!(handed >= 1);
    ana.meet(&bob);
    let mut tx = bob.replica.storage.write(Durability::Full).unwrap();
    for key in held(&*tx) {
        tx.delete(Table::Local, &key).unwrap();
    }
    tx.commit().unwrap();
    bob.put(vec![write(&["note"], Some("clear"))]);
    let refused = bob.commit(&Draft { writes: vec![pin("bank", "1234")], ..Draft::default() });
    assert!(matches!(refused, Err(Error::Storage(StorageError::NoKey))), "{refused:?}");
    bob.seal();
    bob.meet(&ana);
    assert_eq!(ana.values(&["note"]), ["clear"]);
    assert_eq!(pins(&ana, "bank"), 0);
}

/// Rows of the keys that a replica holds.
fn held(tx: &dyn ReadTx) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    let order = anabranch_core::storage::Order::Ascending;
    tx.scan(Table::Local, b"seal/", None, order, &mut |key, _| {
        if key.starts_with(b"seal/") {
            keys.push(key.to_vec());
        }
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    keys
}

#[test]
fn what_cannot_be_sealed_founds_nothing() {
    let names = (0..65).map(|n| n.to_string()).collect();
    for stores in [vec![], vec!["x".repeat(129)], names] {
        let storage = MemoryStorage::new();
        let mut tx = storage.write(Durability::Full).unwrap();
        let key = DeviceKey::from_seed(&[1; 32]);
        let (wall, fresh_epoch, instance) = (Timestamp(1), 1, [1; 32]);
        let author = anabranch_core::author::Author { key: &key, wall, fresh_epoch, instance };
        let founding = Founding { sealed: Scope::Stores(stores), recovery: None };
        let made = anabranch_core::founding::create(&mut *tx, &author, [7; 16], founding);
        assert!(matches!(made, Err(Error::SealedStores)), "{made:?}");
    }
    // In any order, and twice, is no mistake.
    let sealed = Scope::Stores(vec!["b".into(), "a".into(), "b".into()]);
    let ana = Device::found_with(Founding { sealed, recovery: None });
    let stores = Scope::Stores(vec!["a".into(), "b".into()]);
    assert_eq!(ana.replica.view(|v| v.sealed().unwrap()), stores);
}

#[test]
fn counters_and_documents_are_sealed_too() {
    let mut ana = founder();
    let bob = let_in(&mut ana, 2, Role::Write);
    let path = Path::text(["visits"]).unwrap();
    let tally = Tally::new(StoreId::counter("c"), path.clone(), Step::Add(41));
    ana.commit(&Draft { tallies: vec![tally.clone(), tally], ..Draft::default() }).unwrap();
    ana.seal();
    ana.meet(&bob);
    assert_eq!(bob.replica.view(|v| v.sum(&StoreId::counter("c"), &path).unwrap()), 82);
    let relay = let_in(&mut ana, 3, Role::Relay);
    assert_eq!(occurs(&relay.replica, b"visits"), 0);
    ana.meet(&bob);
    assert_eq!(digest(&bob), digest(&ana));
}

#[test]
fn who_is_put_out_cannot_read_what_is_written_next() {
    let mut ana = founder();
    let mut bob = let_in(&mut ana, 2, Role::Write);
    let eve = let_in(&mut ana, 3, Role::Read);
    put(&mut bob, "old", "seen by eve");
    bob.meet(&ana);
    ana.meet(&eve);
    assert_eq!(eve.values(&["old"]), ["seen by eve"]);
    revoke(&mut ana, &eve.key);
    assert_eq!(keys_made(&ana), 2, "the founder's, and one that eve does not know");
    ana.meet(&bob);
    put(&mut bob, "new", "not for eve");
    assert_eq!(keys_made(&bob), 2, "the one that the admin made is used");
    bob.meet(&ana);
    assert_eq!(ana.values(&["new"]), ["not for eve"]);
    // With everything that others hold, say from the files of a relay, and the keys that she had.
    ana.meet(&eve);
    unlock(&eve.replica, &eve.key);
    assert_eq!(eve.values(&["old"]), ["seen by eve"]);
    assert!(eve.values(&["new"]).is_empty());
    assert_eq!(occurs(&eve.replica, b"not for eve"), 0);
    assert!(eve.replica.view(|v| v.is_closed().unwrap()));
}

#[test]
fn rights_ended_at_the_same_time_leave_no_key_that_either_knows() {
    let [mut ana, mut bob, eve] = two_admins_and_a_reader();
    let mallory = let_in(&mut bob, 4, Role::Read);
    ana.meet(&bob);
    // Neither knows of the other's, so the new keys are each known to one who has to go.
    revoke(&mut ana, &eve.key);
    revoke(&mut bob, &mallory.key);
    ana.meet(&bob);
    put(&mut ana, "new", "for two");
    ana.meet(&bob);
    assert_eq!(bob.values(&["new"]), ["for two"]);
    assert_eq!(keys_made(&ana), 4);
    for out in [&eve, &mallory] {
        ana.meet(out);
        unlock(&out.replica, &out.key);
        assert!(out.values(&["new"]).is_empty());
    }
    assert_eq!(digest(&ana), digest(&bob));
}

#[test]
fn who_hears_of_a_change_makes_no_key() {
    let [mut ana, mut bob, eve] = two_admins_and_a_reader();
    revoke(&mut ana, &eve.key);
    // As if bob had a reader less in its books than ana: every key of hers has one that he takes for a stranger.
    let stranger = DeviceKey::from_seed(&[77; 32]);
    change(&mut ana, vec![grant(Subject::Device(stranger.node_id()), Role::Read, 0)]);
    ana.meet(&bob);
    revoke(&mut bob, &stranger);
    let before = keys_made(&bob);
    for _ in 0..3 {
        hand_out([&mut ana, &mut bob]);
    }
    assert_eq!(keys_made(&bob), before);
    let entries = ana.replica.entries().len();
    ana.act(|ledger, author| ledger.hand_out(author)).unwrap();
    assert_eq!(ana.replica.entries().len(), entries, "what is done stays done");
}

#[test]
fn a_key_that_somebody_knows_who_was_put_out_leads_to_no_other() {
    let [mut ana, mut bob, eve] = two_admins_and_a_reader();
    let mallory = let_in(&mut bob, 4, Role::Read);
    ana.meet(&bob);
    revoke(&mut ana, &eve.key);
    revoke(&mut bob, &mallory.key);
    put(&mut ana, "a", "not for eve");
    put(&mut bob, "b", "not for mallory");
    ana.meet(&bob);
    // Nobody has written since, so both keys are each known to one who is out.
    hand_out([&mut ana, &mut bob]);
    ana.meet(&bob);
    let late = let_in(&mut ana, 5, Role::Read);
    for (out, text) in [(&eve, "not for eve"), (&mallory, "not for mallory")] {
        ana.meet(out);
        unlock(&out.replica, &out.key);
        assert_eq!(occurs(&out.replica, text.as_bytes()), 0);
    }
    assert_eq!(digest(&ana), digest(&late));
    assert_eq!(late.values(&["a"]), ["not for eve"]);
    assert_eq!(late.values(&["b"]), ["not for mallory"]);
}

#[test]
fn who_came_to_know_a_key_by_another_one_knows_it() {
    let [mut ana, mut bob, eve] = two_admins_and_a_reader();
    // Both put her out at the same time, so there are two keys that nobody else knows.
    revoke(&mut ana, &eve.key);
    revoke(&mut bob, &eve.key);
    ana.meet(&bob);
    put(&mut ana, "a", "under the newer one, with the other under it");
    ana.meet(&bob);
    let late = let_in(&mut ana, 4, Role::Read);
    revoke(&mut ana, &late.key);
    put(&mut ana, "b", "not for whom was let in and put out");
    ana.meet(&bob);
    ana.meet(&late);
    unlock(&late.replica, &late.key);
    assert!(late.values(&["b"]).is_empty());
    assert_eq!(bob.values(&["b"]), ["not for whom was let in and put out"]);
}

#[test]
fn what_nobody_has_the_secret_of_is_handed_nothing() {
    let mut ana = founder();
    let mut bob = let_in(&mut ana, 2, Role::Admin);
    // A mistyped id: no key at all, or one of small order.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let wrong = [neutral, [2; 32]].map(|id| grant(Subject::Device(NodeId(id)), Role::Read, 0));
    change(&mut ana, wrong.to_vec());
    put(&mut ana, "x", "text");
    ana.meet(&bob);
    let eve = let_in(&mut bob, 3, Role::Read);
    ana.meet(&bob);
    let entries = ana.replica.entries().len();
    // Each hears of what the other hands out.
    for _ in 0..3 {
        hand_out([&mut ana, &mut bob]);
        ana.meet(&bob);
    }
    assert_eq!(ana.replica.entries().len(), entries);
    bob.meet(&eve);
    built(&eve);
    assert_eq!(eve.values(&["x"]), ["text"]);
}

#[test]
fn a_key_operation_of_a_later_version_marks_the_store_if_it_counts() {
    let mut ana = founder();
    let bob = let_in(&mut ana, 2, Role::Write);
    let mut w = anabranch_core::codec::Writer::new();
    w.array(1).array(2).u64(9).u64(0);
    bob.replica.view(|v| assert!(v.state_digest().unwrap().is_some()));
    let marked = |device: &Device| {
        let stores = device.replica.view(|v| v.stores().unwrap());
        stores.iter().any(|store| store.id.kind == StoreKind::KEYS && store.digest.is_none())
    };
    let entry = hand_made(&bob, 4_711, StoreId::keys(), w.finish());
    ana.replica.admit_one(&entry).unwrap();
    assert!(marked(&ana));
    // Of what he wrote nothing is to count.
    let subject = Subject::Device(bob.key.node_id());
    let grants = ana.replica.view(|v| v.grants().unwrap());
    let held = grants.iter().find(|g| g.subject == subject).unwrap().id;
    change(&mut ana, vec![MemberOp::Revoke { grant: held, cut: Cut::Tips(Vec::new()) }]);
    assert!(!marked(&ana));
    let late = let_in(&mut ana, 3, Role::Read);
    assert_eq!(digest(&late), digest(&ana));
}

/// The operations on keys in an entry.
fn key_ops(entry: &Entry) -> Vec<KeyOp> {
    let keys = entry.payloads().filter(|(store, _)| store.kind == StoreKind::KEYS);
    keys.flat_map(|(_, payload)| decode_keys(payload.bytes().unwrap()).ops).flatten().collect()
}

/// A key that `by` makes and wraps for `to`.
fn made(by: &Device, secret: u8, to: &[NodeId]) -> (Key, [KeyOp; 2]) {
    let key = Key::from_bytes([secret; 32]);
    let to = to.iter().map(|who| (*who, key.wrapped(&by.key, who).unwrap())).collect();
    let ops = [KeyOp::New { id: key.id() }, KeyOp::Wrap { id: key.id(), to }];
    (key, ops)
}

#[test]
fn however_many_keys_there_are_what_hands_them_out_can_be_read() {
    let mut ana = founder();
    let bob = let_in(&mut ana, 2, Role::Write);
    let to = [ana.key.node_id(), DeviceKey::from_seed(&[77; 32]).node_id()];
    // Each is known to somebody who may not read, the founder's as well, so that each is handed out by itself.
    let founders = ana.replica.entries().iter().flat_map(key_ops).find_map(|op| match op {
        KeyOp::New { id } => Some(id),
        _ => None,
    });
    let told = KeyOp::Wrap { id: founders.unwrap(), to: vec![(to[1], [0; 48])] };
    let mut ops = vec![told];
    ops.extend((1..=90).flat_map(|secret| made(&bob, secret, &to).1));
    for (epoch, ops) in (1_000..).zip(ops.chunks(60)) {
        let run = hand_made(&bob, epoch, StoreId::keys(), encode_keys(ops));
        ana.replica.admit(&[run]).unwrap();
    }
    let before = ana.replica.entries().len();
    ana.act(|ledger, author| ledger.hand_out(author)).unwrap();
    let entries = ana.replica.entries();
    let ours: Vec<_> = entries[before..].iter().filter(|e| e.payloads().count() > 0).collect();
    assert!(ours.len() > 1 && ours.iter().all(|entry| !key_ops(entry).is_empty()));
    assert_eq!(ours.iter().map(|entry| key_ops(entry).len()).sum::<usize>(), 90);
    // And nothing is left to hand out.
    ana.act(|ledger, author| ledger.hand_out(author)).unwrap();
    assert_eq!(ana.replica.entries().len(), entries.len());
}

#[test]
fn what_is_of_a_later_kind_is_noted_also_where_its_key_comes_after_it() {
    let mut ana = founder();
    let bob = let_in(&mut ana, 2, Role::Write);
    let (key, ops) = made(&bob, 9, &[ana.key.node_id()]);
    let (epoch, store) = (1_000, StoreId { kind: StoreKind(6), name: "later".to_owned() });
    let log = LogId { device: bob.key.node_id(), epoch };
    let bound = Bound { database: ana.replica.database, log: &log, store: &store };
    let sealed = key.seal_payload(&bound, &EntryId([0; 32]), b"whatever", &[]);
    let runs = [
        hand_made(&bob, epoch, store.clone(), sealed),
        hand_made(&bob, epoch + 1, StoreId::keys(), encode_keys(&ops)),
    ];
    for run in runs {
        ana.replica.admit(&[run]).unwrap();
    }
    built(&ana);
    let ring = ana.replica.view(|v| v.ring().unwrap());
    let state = fold_with(&ana.replica.entries(), &ring);
    assert_eq!(ana.replica.state(), state);
    assert!(state.unknown.contains(&store));
    put(&mut ana, "x", "text");
    assert_eq!(digest(&ana), None);
}

/// The contents that are awaited, and whether a value names each.
fn awaited(device: &Device) -> Vec<(u64, bool)> {
    device.replica.view(|view| {
        let (mut found, mut at) = (Vec::new(), AwaitKey::default());
        while let Some(row) = view.awaited(&at).unwrap() {
            found.push((row.content.unwrap().size(), row.value.is_some()));
            at = row.key.next();
        }
        found
    })
}

#[test]
fn what_is_named_under_a_key_that_is_still_lacking_stays_awaited() {
    let mut ana = founder();
    let bob = let_in(&mut ana, 2, Role::Write);
    let store = StoreId::blobs("b");
    let blob = |size| {
        let content = ContentRef::new(size, 0, ChunkHash([size as u8; 32])).unwrap();
        (content, BlobRef { content, media_type: String::new() }.encode())
    };
    let keys = [7, 8].map(|n| made(&bob, n, &[ana.key.node_id()]));
    for (epoch, size, (key, _)) in [(1_000, 100, &keys[0]), (1_001, 200, &keys[1])] {
        let log = LogId { device: bob.key.node_id(), epoch };
        let (content, value) = blob(size);
        let path = Path::text(["x"]).unwrap();
        let ops = [CellOp { path, value: Some(value), replaces: Vec::new() }];
        let bound = Bound { database: ana.replica.database, log: &log, store: &store };
        let plain = encode_cells(&log, &ops);
        let bytes = key.seal_payload(&bound, &EntryId([0; 32]), &plain, &[content.padded()]);
        ana.replica.admit(&[hand_made(&bob, epoch, store.clone(), bytes)]).unwrap();
    }
    let padded = |size| blob(size).0.padded().size();
    assert_eq!(awaited(&ana), [(padded(100), false), (padded(200), false)]);
    for (n, (_, ops)) in keys.iter().enumerate() {
        let run = hand_made(&bob, 2_000 + n as u64, StoreId::keys(), encode_keys(ops));
        ana.replica.admit(&[run]).unwrap();
        built(&ana);
        assert_eq!(awaited(&ana), [(padded(100), true), (padded(200), n == 1)]);
    }
}

/// A founder who wrote something, a ticket, and a device that has the entries and did not redeem it.
fn with_a_ticket() -> (Device, DeviceKey, Device) {
    let mut ana = founder();
    put(&mut ana, "old", "text");
    let ticket = DeviceKey::from_seed(&[99; 32]);
    change(&mut ana, vec![grant(Subject::Ticket(ticket.node_id()), Role::Write, 0)]);
    let bob = Device::found_like(&ana, 2);
    ana.meet(&bob);
    (ana, ticket, bob)
}

#[test]
fn whoever_watches_is_told_that_a_ticket_opened_what_was_there() {
    let (_, ticket, mut bob) = with_a_ticket();
    let held = bob.replica.entries().len() as u64;
    bob.act(|ledger, author| ledger.redeem(author, &ticket)).unwrap();
    // All that was held was seen already.
    assert!(bob.replica.view(|v| v.recounted(held + 1).unwrap()));
}

#[test]
fn a_key_that_comes_while_cells_are_being_built_is_not_missed() {
    let mut ana = founder();
    put(&mut ana, "old", "text");
    let mut bob = Device::found_like(&ana, 2);
    bob.replica.reader = None;
    bob.replica.load = anabranch_core::admit::Load::Bulk;
    change(&mut ana, vec![grant(Subject::Device(bob.key.node_id()), Role::Read, 0)]);
    ana.meet(&bob);
    let inner = &bob.replica.storage;
    let overtaken = Overtaken { inner, by: (&bob.replica, &bob.key), yet: AtomicBool::new(false) };
    build::finish(&overtaken, build::Budget::default()).unwrap();
    assert_eq!(bob.values(&["old"]), ["text"]);
    assert_eq!(digest(&bob), digest(&ana));
}

/// Storage in which the keys of a device are opened right before the first one writes that comes by this way.
struct Overtaken<'r> {
    inner: &'r MemoryStorage,
    by: (&'r Replica, &'r DeviceKey),
    yet: AtomicBool,
}

impl Storage for Overtaken<'_> {
    fn read(&self) -> Result<Box<dyn ReadTx + '_>, StorageError> {
        self.inner.read()
    }

    fn write(&self, durability: Durability) -> Result<Box<dyn WriteTx + '_>, StorageError> {
        if !self.yet.swap(true, Ordering::SeqCst) {
            let mut tx = self.by.0.storage.write(Durability::Full)?;
            let mut ledger = Ledger::open(&mut *tx)?;
            assert_eq!(ledger.unlock(self.by.1)?, 1);
            ledger.finish()?;
            tx.commit()?;
        }
        self.inner.write(durability)
    }

    fn instance(&self) -> [u8; 32] {
        self.inner.instance()
    }

    fn size(&self) -> Result<u64, StorageError> {
        self.inner.size()
    }
}

#[test]
fn who_is_let_in_again_reads_all() {
    let mut ana = founder();
    let bob = let_in(&mut ana, 2, Role::Write);
    revoke(&mut ana, &bob.key);
    put(&mut ana, "meanwhile", "text");
    change(&mut ana, vec![grant(Subject::Device(bob.key.node_id()), Role::Read, 0)]);
    ana.meet(&bob);
    assert_eq!(digest(&bob), digest(&ana));
    assert_eq!(bob.values(&["meanwhile"]), ["text"]);
}

#[test]
fn a_ticket_opens_what_was_written_before_it() {
    let (ana, ticket, mut bob) = with_a_ticket();
    assert!(bob.values(&["old"]).is_empty());
    assert_eq!(unlock(&bob.replica, &ticket), 1);
    assert_eq!(bob.values(&["old"]), ["text"]);
    bob.act(|ledger, author| {
        ledger.redeem(author, &ticket)?;
        Ok(ledger.seal(author)?)
    })
    .unwrap();
    put(&mut bob, "new", "by bob");
    ana.meet(&bob);
    assert_eq!(ana.values(&["new"]), ["by bob"]);
    assert_eq!(digest(&bob), digest(&ana));
}

#[test]
fn who_has_no_key_writes_nothing_in_the_clear() {
    let mut ana = founder();
    let mut bob = Device::found_like(&ana, 2);
    bob.replica.reader = None;
    change(&mut ana, vec![grant(Subject::Device(bob.key.node_id()), Role::Write, 0)]);
    ana.meet(&bob);
    let draft = Draft { writes: vec![write(&["x"], Some("text"))], ..Draft::default() };
    assert!(matches!(bob.commit(&draft), Err(Error::Storage(StorageError::NoKey))));
    assert_eq!(unlock(&bob.replica, &bob.key), 1);
    assert!(bob.commit(&draft).unwrap().is_some());
}

#[test]
fn it_cannot_be_opened_to_everyone_but_relayed_by_everyone() {
    let mut ana = founder();
    let to_all = |role| vec![grant(Subject::Anyone, role, 0)];
    assert!(matches!(ana.grant(&to_all(Role::Read)), Err(Error::SealedToAll)));
    assert!(matches!(ana.grant(&to_all(Role::Write)), Err(Error::SealedToAll)));
    assert!(ana.grant(&to_all(Role::Relay)).unwrap().is_some());
}

#[test]
fn a_relay_may_write_nothing() {
    let mut ana = founder();
    let mut relay = let_in(&mut ana, 2, Role::Relay);
    let draft = Draft { writes: vec![write(&["x"], Some("text"))], ..Draft::default() };
    assert!(matches!(
        relay.commit(&draft),
        Err(Error::Storage(StorageError::NoKey) | Error::NotPermitted { .. })
    ));
}

#[test]
fn a_sealed_replica_is_verified() {
    let mut ana = founder();
    let relay = let_in(&mut ana, 2, Role::Relay);
    let eve = let_in(&mut ana, 3, Role::Write);
    put(&mut ana, "a", "text");
    revoke(&mut ana, &eve.key);
    put(&mut ana, "b", "text");
    ana.meet(&relay);
    for device in [&ana, &relay] {
        let tx = device.replica.storage.read().unwrap();
        let done = verify(&*tx, &MemoryStorage::new(), &mut |_| {}).unwrap();
        assert_eq!(done.entries, device.replica.entries().len() as u64);
    }
}

#[test]
fn thousands_of_readers_get_a_key_in_several_entries() {
    let mut ana = founder();
    let readers: Vec<_> = (0..2_500_u32)
        .map(|n| {
            let mut seed = [0xaa; 32];
            seed[..4].copy_from_slice(&n.to_be_bytes());
            DeviceKey::from_seed(&seed)
        })
        .collect();
    for some in readers.chunks(500) {
        let grants = some.iter().map(|key| grant(Subject::Device(key.node_id()), Role::Read, 0));
        change(&mut ana, grants.collect());
    }
    let bob = let_in(&mut ana, 2, Role::Read);
    revoke(&mut ana, &readers[7]);
    put(&mut ana, "new", "for all the others");
    ana.meet(&bob);
    assert_eq!(bob.values(&["new"]), ["for all the others"]);
    let last = Device::found_like(&ana, 9);
    ana.meet(&last);
    assert_eq!(unlock(&last.replica, &readers[7]), 1);
    assert!(last.values(&["new"]).is_empty());
    assert!(unlock(&last.replica, &readers[2_499]) >= 1);
    assert_eq!(last.values(&["new"]), ["for all the others"]);
}

#[derive(Debug, Clone)]
enum Turn {
    Grant { by: usize, whom: usize, role: Role },
    Revoke { by: usize, whom: usize },
    Write { by: usize },
    Meet { a: usize, b: usize },
}

fn arb_turn() -> impl Strategy<Value = Turn> {
    let who = || 0..6_usize;
    let role = prop_oneof![
        1 => Just(Role::Relay), 3 => Just(Role::Read), 3 => Just(Role::Write), 2 => Just(Role::Admin)
    ];
    prop_oneof![
        2 => (who(), who(), role).prop_map(|(by, whom, role)| Turn::Grant { by, whom, role }),
        2 => (who(), who()).prop_map(|(by, whom)| Turn::Revoke { by, whom }),
        4 => who().prop_map(|by| Turn::Write { by }),
        6 => (who(), who()).prop_map(|(a, b)| Turn::Meet { a, b }),
    ]
}

/// What somebody wrote, and who was let in how often as far as its writer knew, with those that could read at the time.
struct Told {
    text: String,
    grants: BTreeMap<NodeId, usize>,
    readers: BTreeSet<NodeId>,
}

struct Churn {
    devices: Vec<Device>,
    told: Vec<Told>,
}

impl Churn {
    /// `partly`: `t` alone is sealed.
    fn new(partly: bool) -> Self {
        let some = Scope::Stores(vec!["t".into()]);
        let sealed = if partly { some } else { Scope::Everything };
        let mut ana = Device::found_with(Founding { sealed, recovery: None });
        let mut devices = vec![let_in(&mut ana, 2, Role::Admin)];
        devices.push(let_in(&mut ana, 3, Role::Write));
        devices.push(let_in(&mut ana, 4, Role::Write));
        devices.push(let_in(&mut ana, 5, Role::Read));
        devices.push(let_in(&mut ana, 6, Role::Relay));
        devices.insert(0, ana);
        Self { devices, told: Vec::new() }
    }

    fn take(&mut self, turn: &Turn) {
        match *turn {
            Turn::Grant { by, whom, role } => {
                let subject = Subject::Device(self.devices[whom].key.node_id());
                let done = self.devices[by].grant(&[grant(subject, role, 0)]);
                if done.is_ok() {
                    self.devices[by].seal();
                }
            }
            Turn::Revoke { by, whom } => {
                let subject = Subject::Device(self.devices[whom].key.node_id());
                let grants = self.devices[by].replica.view(|v| v.grants().unwrap());
                let held = grants.iter().filter(|g| g.subject == subject && g.holds);
                let ends = held.map(|g| MemberOp::Revoke { grant: g.id, cut: Cut::Past });
                let done = self.devices[by].grant(&ends.collect::<Vec<_>>());
                if done.is_ok() {
                    self.devices[by].seal();
                }
            }
            Turn::Write { by } => {
                let text = format!("<told {}>", self.told.len());
                built(&self.devices[by]);
                let mut clear = write(&[&format!("row {}", self.told.len() % 3)], Some("for all"));
                clear.store = StoreId::table("open");
                let writes = vec![write(&[&text], Some(&text)), clear];
                let done = self.devices[by].commit(&Draft { writes, ..Draft::default() });
                if done.is_err() {
                    return;
                }
                self.devices[by].seal();
                let mut told = Told { text, grants: BTreeMap::new(), readers: BTreeSet::new() };
                for grant in self.devices[by].replica.view(|v| v.grants().unwrap()) {
                    let Subject::Device(device) = grant.subject else { continue };
                    *told.grants.entry(device).or_default() += 1;
                    if grant.holds && grant.role >= Role::Read {
                        told.readers.insert(device);
                    }
                }
                self.told.push(told);
            }
            Turn::Meet { a, b } if a != b => self.meet(a, b),
            Turn::Meet { .. } => {}
        }
    }

    /// What lies past a cut is offered again by whoever has it, so this ends after a while.
    fn meet(&self, a: usize, b: usize) {
        let (a, b) = (&self.devices[a].replica, &self.devices[b].replica);
        for _ in 0..4 {
            if a.update(b, usize::MAX) + b.update(a, usize::MAX) == 0 {
                break;
            }
        }
    }

    /// Everybody meets everybody, also those whose right has ended, and admins hand out what is lacking.
    fn settle(&mut self) {
        for _ in 0..3 {
            for a in 0..self.devices.len() {
                for b in a + 1..self.devices.len() {
                    self.meet(a, b);
                }
            }
            for device in &mut self.devices {
                built(device);
                device.act(|ledger, author| ledger.hand_out(author)).unwrap();
                device.seal();
            }
        }
    }
}

proptest! {
    #![proptest_config(cases(60))]

    #[test]
    fn who_may_read_reads_all_and_who_may_not_reads_nothing_new(
        turns in prop::collection::vec(arb_turn(), 1..40),
        partly: bool,
    ) {
        let mut churn = Churn::new(partly);
        for turn in &turns {
            churn.take(turn);
        }
        churn.settle();
        let mut grants: BTreeMap<NodeId, BTreeSet<GrantRef>> = BTreeMap::new();
        for grant in churn.devices.iter().flat_map(|d| d.replica.view(|v| v.grants().unwrap())) {
            if let Subject::Device(device) = grant.subject {
                grants.entry(device).or_default().insert(grant.id);
            }
        }
        // Who was put out by somebody who had no right to any more never was.
        let revocations = |d: &Device| d.replica.view(|v| v.revocations().unwrap());
        let doubts = churn.devices.iter().any(|d| revocations(d).iter().any(|r| !r.counts));
        let (mut digests, mut open) = (BTreeSet::new(), BTreeMap::new());
        for device in &churn.devices {
            built(device);
            if partly {
                let stores = device.replica.view(|v| v.stores().unwrap());
                let store = stores.into_iter().find(|store| store.id == StoreId::table("open"));
                let digest = store.map(|store| (store.closed, store.digest));
                let frontier = device.replica.view(|v| v.frontier_digest().unwrap());
                prop_assert_eq!(*open.entry(frontier).or_insert(digest), digest);
                prop_assert!(digest.is_none_or(|(closed, digest)| !closed && digest.is_some()));
            }
            let me = device.key.node_id();
            let role = device.replica.view(|v| v.role_of(&me).unwrap());
            let ring = device.replica.view(|v| v.ring().unwrap());
            prop_assert!(device.replica.state().cells == fold_with(&device.replica.entries(), &ring).cells);
            // Who could not know that it was put out itself may have gone on alone.
            if role >= Some(Role::Read) {
                prop_assert!(!device.replica.view(|v| v.is_closed().unwrap()));
                digests.insert((device.replica.view(|v| v.frontier_digest().unwrap()), digest(device)));
            }
            let known = grants.get(&me).map_or(0, BTreeSet::len);
            for told in &churn.told {
                let then = told.grants.get(&me).copied().unwrap_or(0);
                if !told.readers.contains(&me) && then == known && !doubts {
                    prop_assert_eq!(occurs(&device.replica, told.text.as_bytes()), 0);
                }
            }
        }
        prop_assert_eq!(digests.len(), 1);
    }
}
