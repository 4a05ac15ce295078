//! Content of sealed databases: what is kept and sent of it, by whom, and under which key.

use super::*;
use anabranch_core::blob::{Step, Walker};
use anabranch_core::founding::Founding;
use anabranch_core::ops::Cut;
use anabranch_core::seal::{KeyId, Scope};
use std::collections::BTreeSet;

fn device(seed: u8) -> Device {
    Device::new(DeviceKey::from_seed(&[seed; 32]))
}

fn found_sealed() -> Arc<Replica> {
    let (device, storage) = (device(1), Arc::new(MemoryStorage::new()));
    let founding = Founding { sealed: Scope::Everything, recovery: None };
    Replica::found_with(&*storage, &device, founding).unwrap();
    open(storage, &device)
}

fn rule(replica: &Replica, members: Vec<MemberOp>) {
    let done = replica.commit_group(&[vec![Draft { members, ..Draft::default() }]]).unwrap();
    done.into_iter().for_each(|done| drop(done.unwrap()));
}

/// Lets a device in; it has nothing yet.
fn let_in(replica: &Replica, seed: u8, role: Role) -> Arc<Replica> {
    grant(replica, seed, role);
    empty(&device(seed), replica)
}

fn grant(replica: &Replica, seed: u8, role: Role) {
    let subject = Subject::Device(device(seed).id());
    let terms = TicketTerms::default();
    rule(replica, vec![MemberOp::Grant { subject, role, priority: 0, terms }]);
}

fn revoke(replica: &Replica, seed: u8, cut: Cut) {
    let subject = Subject::Device(device(seed).id());
    let grants = replica.look(|view| view.grants()).unwrap();
    let held = grants.iter().filter(|grant| grant.subject == subject && grant.holds);
    let ends = held.map(|grant| MemberOp::Revoke { grant: grant.id, cut: cut.clone() });
    rule(replica, ends.collect());
}

/// The keys that the chunks of what is there are sealed with.
fn keys_of(replica: &Replica, path: &str) -> BTreeSet<KeyId> {
    let blobs = replica.blobs();
    let content = content_at(replica, path).padded();
    let mut keys = BTreeSet::new();
    for step in Walker::new(&content, |place| blobs.get(&place.hash)) {
        let Step::Chunk(span) = step.unwrap() else { panic!("a node is missing") };
        let bytes = blobs.get(&span.hash).unwrap().unwrap();
        keys.insert(KeyId(bytes[..32].try_into().unwrap()));
    }
    keys
}

fn occurs(replica: &Replica, text: &[u8]) -> bool {
    let (mut found, tx) = (false, replica.storage().read().unwrap());
    for table in [Table::Blob, Table::Entry, Table::Cell, Table::Local] {
        tx.scan(table, &[], None, anabranch_core::storage::Order::Ascending, &mut |key, bytes| {
            found |= [key, bytes].iter().any(|b| b.windows(text.len()).any(|w| w == text));
            ControlFlow::Continue(())
        })
        .unwrap();
    }
    found
}

#[test]
fn content_named_after_somebody_was_put_out_is_not_for_him() {
    let one = found_sealed();
    grant(&one, 2, Role::Read);
    put(&one, "before", &noise(1, 300_000));
    let known = keys_of(&one, "before");
    assert_eq!(known.len(), 1);

    // Most of it is stored already when the reader is put out.
    let content = noise(2, 2_000_000);
    let mut late = one.put_content(&store()).unwrap();
    late.write(&content).unwrap();
    revoke(&one, 2, Cut::Past);
    late.finish(&name("late"), Seen::AtCommit, "").unwrap();
    assert!(keys_of(&one, "late").is_disjoint(&known));
    assert!(read(&one, "late") == Some(content));

    // What was encrypted in vain is waste.
    let all = blobs(&one);
    assert!(collect(&one, 100) > 8);
    assert!(read(&one, "before") == Some(noise(1, 300_000)));
    assert!(read(&one, "late") == Some(noise(2, 2_000_000)) && blobs(&one) < all);
    assert_eq!(rows(&one), [0; 4]);
}

/// Of one database a relay reads the content of one store and carries that of another.
#[tokio::test(flavor = "multi_thread")]
async fn content_is_sealed_where_its_store_is() {
    let (device, storage) = (device(1), Arc::new(MemoryStorage::new()));
    let founding = Founding { sealed: Scope::Stores(vec!["secret".into()]), recovery: None };
    Replica::found_with(&*storage, &device, founding).unwrap();
    let one = open(storage, &device);
    let relay = let_in(&one, 2, Role::Relay);
    let secret = StoreId::blobs("secret");
    let put_in = |store: &StoreId, bytes: &[u8]| {
        let mut put = one.put_content(store).unwrap();
        put.write(bytes).unwrap();
        put.finish(&name("x"), Seen::AtCommit, "").unwrap();
    };
    let content_of = |replica: &Arc<Replica>, store: &StoreId| {
        let cell = replica.read(|view| view.cell(store, &name("x"))).unwrap();
        let content = cell.first().and_then(|v| anabranch_core::blob::content_of(&v.value))?;
        let mut bytes = Vec::new();
        let reader = replica.reader(store, content, Duration::ZERO);
        reader
            .read(0..u64::MAX, &mut |part| {
                bytes.extend_from_slice(part);
                Ok(())
            })
            .unwrap();
        Some(bytes)
    };
    // The same bytes in both, so that nothing of one serves the other.
    let bytes = noise(1, 400_000);
    put_in(&secret, &bytes);
    synced(&relay, &one).await;
    assert!(!occurs(&relay, &bytes[..20]) && blobs(&relay) == blobs(&one));
    assert!(content_of(&relay, &secret).is_none());
    put_in(&store(), &bytes);
    synced(&relay, &one).await;
    assert!(content_of(&relay, &store()) == Some(bytes.clone()));
    assert!(content_of(&one, &secret) == Some(bytes.clone()));
    assert!(content_of(&one, &store()) == Some(bytes.clone()));
    assert_eq!((blobs(&relay), rows(&relay)), (blobs(&one), [0; 4]));
    // Nothing that is named goes.
    assert_eq!(collect(&one, 100), 0);
    let three = let_in(&one, 3, Role::Read);
    synced(&relay, &one).await;
    synced(&three, &relay).await;
    for store in [&secret, &store()] {
        assert!(content_of(&three, store) == Some(bytes.clone()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_carries_content_that_it_cannot_open() {
    let one = found_sealed();
    let relay = let_in(&one, 2, Role::Relay);
    let (old, new) = (noise(1, 400_000), noise(2, 700_000));
    put(&one, "x", &old);
    put(&one, "x", &new);
    put(&one, "small", b"little content");
    put(&one, "empty", b"");
    // What an overwritten name had may be gone where one can tell.
    assert!(blobs(&one) > 8);
    synced(&relay, &one).await;
    assert_eq!((blobs(&relay), rows(&relay)), (blobs(&one), [0; 4]));
    for text in [&old[..20], &new[500_000..500_020], b"little content"] {
        assert!(!occurs(&relay, text));
    }
    // It cannot tell what is named still.
    let refused = |e: NodeError| e.to_string().contains("cannot open all of the sealed database");
    assert!(refused(relay.collect(100).unwrap_err()));
    relay.set_keep(None, Keep::Lazy).unwrap();
    assert!(refused(relay.evict("b", None, 100).unwrap_err()));
    relay.set_keep(None, Keep::Eager).unwrap();
    assert!(relay.put_content(&store()).is_err());

    let three = let_in(&one, 3, Role::Read);
    synced(&relay, &one).await;
    synced(&three, &relay).await;
    assert!(read(&three, "x") == Some(new.clone()));
    assert!(read(&three, "small").as_deref() == Some(b"little content"));
    assert!(read(&three, "empty").as_deref() == Some(b""));
    assert!(!occurs(&three, &new[..20]), "it is kept as it came");

    // Once it may read, it reads, and knows what nobody names.
    grant(&one, 2, Role::Read);
    synced(&relay, &one).await;
    assert!(read(&relay, "x") == Some(new));
    assert_eq!(rows(&relay), [0; 4]);
    assert!(collect(&relay, 100) > 2 && collect(&one, 100) > 2);
    assert_eq!(blobs(&relay), blobs(&one));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_does_not_wait_for_content_of_what_does_not_count() {
    let one = found_sealed();
    let (relay, two) = (let_in(&one, 2, Role::Relay), let_in(&one, 3, Role::Write));
    synced(&two, &one).await;
    relay.set_keep(None, Keep::Lazy).unwrap();
    put(&two, "x", &noise(1, 50_000));
    put(&two, "y", &noise(2, 50_000));
    synced(&relay, &two).await;
    assert_eq!((rows(&relay)[0], blobs(&relay)), (2, 0));
    // Cut to nothing, and so it was never there.
    revoke(&one, 3, Cut::Tips(Vec::new()));
    synced(&relay, &one).await;
    assert_eq!(rows(&relay)[0], 0);
}

/// A folder asks at every update that reads a file, and most of them name nothing.
#[test]
fn finding_out_the_key_writes_nothing() {
    let one = found_sealed();
    grant(&one, 2, Role::Read);
    put(&one, "before", b"text");
    revoke(&one, 2, Cut::Past);
    put(&one, "after", b"text");
    let entries = || one.look(|view| view.totals()).unwrap().entries;
    let (count, keys) = (entries(), keys_of(&one, "after"));
    // Also where it has to be found out anew.
    let mut tx = one.storage().write(Durability::Full).unwrap();
    assert!(tx.delete(Table::Local, b"seal/tended").unwrap());
    tx.commit().unwrap();
    let likely = one.likely_content_key(&store()).unwrap().unwrap();
    assert!(keys.contains(&likely.id()) && keys.len() == 1);
    assert_eq!(entries(), count);
    assert_eq!(one.content_key(&store()).unwrap().unwrap().id(), likely.id());
}

#[test]
fn nothing_is_put_where_nobody_knows_yet_whether_it_is_sealed() {
    let one = found_sealed();
    let error = empty(&device(2), &one).put_content(&store()).unwrap_err();
    assert!(error.to_string().contains("has not received its first entry"), "{error}");
}
