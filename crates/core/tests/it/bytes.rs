//! Bytes that nobody made on purpose: on the wire, in payloads and in the storage. They are read or refused, never fatal,
//! and payloads mean the same to everybody.

use crate::cases;
use crate::replica::{Device, Replica, write};
use crate::world::{World, grant, members};
use anabranch_core::author::{Draft, Step, Tally, Write};
use anabranch_core::codec::{Reader, Writer};
use anabranch_core::entry::{Header, Payload, StoreId, StoreKind};
use anabranch_core::error::Error;
use anabranch_core::frontier::Frontier;
use anabranch_core::ops::{Cut, MemberOp, Role, Subject, TicketTerms};
use anabranch_core::outgoing::{Outgoing, Withhold};
use anabranch_core::path::Path;
use anabranch_core::run::Run;
use anabranch_core::storage::{Durability, Order, Storage, StorageError, Table};
use anabranch_core::verify::verify;
use anabranch_reference::fold;
use anabranch_store::MemoryStorage;
use proptest::prelude::*;
use proptest::sample::Index;
use std::ops::ControlFlow;

/// A change to some bytes.
#[derive(Debug, Clone)]
enum Edit {
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Cut(Index),
}

fn arb_edit() -> impl Strategy<Value = Edit> {
    let at = any::<Index>;
    // The first bytes of large lengths and of other kinds of item.
    let byte = prop_oneof![
        any::<u8>(),
        prop::sample::select(vec![0x1b, 0x5b, 0x7b, 0x9b, 0xbb, 0xff, 0x9f, 0x80, 0xf6, 0xc0]),
    ];
    prop_oneof![
        4 => (at(), byte).prop_map(|(i, b)| Edit::Set(i, b)),
        1 => (at(), prop::collection::vec(any::<u8>(), 1..9)).prop_map(|(i, b)| Edit::Insert(i, b)),
        1 => (at(), 1usize..9).prop_map(|(i, n)| Edit::Remove(i, n)),
        1 => at().prop_map(Edit::Cut),
    ]
}

fn edited(bytes: &[u8], edits: &[Edit]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for edit in edits {
        let at = |i: &Index| i.index(bytes.len() + 1);
        match edit {
            Edit::Set(i, b) => {
                let at = at(i);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = *b;
                }
            }
            Edit::Insert(i, b) => {
                let at = at(i);
                bytes.splice(at..at, b.iter().copied());
            }
            Edit::Remove(i, n) => {
                let at = at(i);
                let end = bytes.len().min(at + n);
                bytes.drain(at..end);
            }
            Edit::Cut(i) => bytes.truncate(at(i)),
        }
    }
    bytes
}

fn example() -> (World, Run) {
    let mut world = World::new(3);
    let first = world.add(world.spec(1, 2, None));
    let mut spec = world.spec(2, 2, None);
    spec.parents = vec![0, first];
    let path = Path::text(["a", "b"]).unwrap().as_bytes().to_vec();
    let names = vec![anabranch_core::ops::ValueName::of(&world.entries[first].position(), 0)];
    let op = crate::world::RawOp { kind: 0, path, value: Some(vec![1, 2]), names, extra: false };
    spec.payloads = vec![(StoreId::table("t"), crate::world::payload(&spec.log, &[op]))];
    let second = world.add(spec);
    let third = world.add(world.spec(2, 2, Some(second)));
    let run = world.run(third, 2);
    (world, run)
}

/// Payloads of no particular sense, some of them close to one.
fn arb_payload() -> impl Strategy<Value = Vec<u8>> {
    let good = {
        let (_, run) = example();
        let entry = &run.entries()[0];
        entry.payloads().next().unwrap().1.bytes().unwrap().to_vec()
    };
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..60),
        prop::collection::vec(arb_edit(), 0..4).prop_map(move |edits| edited(&good, &edits)),
    ]
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn damaged_runs_are_read_or_refused(edits in prop::collection::vec(arb_edit(), 1..4)) {
        let (world, run) = example();
        let mut w = Writer::new();
        run.encode(&mut w);
        let bytes = edited(&w.finish(), &edits);
        let mut r = Reader::new(&bytes);
        if let Ok(read) = Run::decode(&mut r, world.database)
            && let Ok(good) = read.verify()
        {
            // Signed by its device, so the entries are those that were.
            prop_assert_eq!(good.entries(), run.entries());
        }
    }

    #[test]
    fn damaged_headers_are_read_as_they_are_written(
        edits in prop::collection::vec(arb_edit(), 1..4),
    ) {
        let (_, run) = example();
        let bytes = edited(&run.entries()[0].header().encode(), &edits);
        if let Ok(header) = Header::decode(&bytes) {
            prop_assert_eq!(header.encode(), bytes);
        }
    }
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn any_payload_means_the_same_to_everybody(
        payloads in prop::collection::vec((arb_payload(), 0u32..6, any::<bool>()), 1..8),
    ) {
        let mut world = World::new(3);
        let mut tips = [None, None];
        for (n, (bytes, kind, by_admin)) in payloads.iter().enumerate() {
            let device = if *by_admin { 0 } else { 1 + n % 2 };
            let kind = StoreKind(*kind);
            let kind = if kind == StoreKind::MEMBERS && !by_admin { StoreKind::TABLE } else { kind };
            let name = if kind == StoreKind::MEMBERS { "" } else { "s" };
            let tip = if device == 0 { None } else { tips[device - 1] };
            let prev = if device == 0 {
                let log = world.log(0, 1);
                world.entries.iter().rposition(|e| e.header().log == log)
            } else {
                tip
            };
            let mut spec = world.spec(device, if device == 0 { 1 } else { 2 }, prev);
            let store = StoreId { kind, name: name.into() };
            spec.payloads = vec![(store, Payload::Present(bytes.clone()))];
            let at = world.add(spec);
            if device > 0 {
                tips[device - 1] = Some(at);
            }
        }
        let (first, second) = (Replica::empty(world.database), Replica::empty(world.database));
        for n in 0..world.entries.len() {
            // A member operation that asks for too much is refused, and all that builds on it waits.
            let _ = first.admit(&[world.run(n, 1).verify().unwrap()]);
        }
        for run in first.outgoing(&second).into_iter().rev().collect::<Vec<_>>().into_iter().rev() {
            second.admit(&[run]).unwrap();
        }
        prop_assert_eq!(first.digests(), second.digests());
        let state = fold(&first.entries());
        prop_assert!(first.state().cells == state.cells);
        let kinds = |s: &anabranch_reference::State| {
            s.unknown.iter().filter(|s| s.kind != StoreKind::MEMBERS).cloned().collect::<Vec<_>>()
        };
        prop_assert_eq!(kinds(&first.state()), kinds(&state));
    }

    #[test]
    fn damaged_storage_is_told_and_not_fatal(
        table in prop::sample::select(Table::ALL.to_vec()),
        row in any::<Index>(),
        edits in prop::collection::vec(arb_edit(), 1..3),
        key_too in prop::bool::weighted(0.2),
    ) {
        let mut device = busy();
        let storage = device.replica.storage.clone();
        let mut rows = Vec::new();
        storage.read().unwrap().scan(table, &[], None, Order::Ascending, &mut |key, value| {
            rows.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        }).unwrap();
        if rows.is_empty() {
            return Ok(());
        }
        let (key, value) = row.get(&rows).clone();
        let mut tx = storage.write(Durability::Full).unwrap();
        if key_too {
            tx.delete(table, &key).unwrap();
            // Some back ends take only numbers as keys of some tables.
            let _ = tx.put(table, &edited(&key, &edits), &value);
        } else {
            tx.put(table, &key, &edited(&value, &edits)).unwrap();
        }
        tx.commit().unwrap();
        use_all(&mut device);
    }
}

/// A replica with some of everything in it.
fn busy() -> Device {
    let mut device = Device::found();
    let mut other = device.admit(2, Role::Write);
    let ticket = anabranch_core::key::DeviceKey::from_seed(&[5; 32]).node_id();
    device.grant(&[grant(Subject::Ticket(ticket), Role::Read, 0)]).unwrap();
    let mut clone = other.clone_to(other.instance);
    device.put(vec![write(&["a"], Some("1")), write(&["a", "b"], Some("2"))]);
    other.put(vec![write(&["a"], Some("3"))]);
    clone.put(vec![write(&["a"], Some("4"))]);
    device.meet(&other);
    device.meet(&clone);
    device.put(vec![write(&["c"], Some("5"))]);
    let tallies = vec![count(Step::Add(300))];
    let writes = vec![write(&["d"], Some("6"))];
    device.commit(&Draft { writes, tallies, ..Draft::default() }).unwrap();
    device
}

fn count(step: Step) -> Tally {
    Tally::new(StoreId::counter("c"), Path::text(["n"]).unwrap(), step)
}

/// Everything that is read or written; whether it works is another matter.
fn use_all(device: &mut Device) {
    let replica = device.replica.clone();
    replica.view(|v| {
        let _ = v.totals();
        let _ = v.frontier_digest();
        let _ = v.frontier();
        let _ = v.state_digest();
        let _ = v.stores();
        let _ = v.grants();
        let _ = v.newest(5);
        let _ = v.role_of(&device.key.node_id());
        let _ = v.ticket_state(&device.key.node_id(), &device.key.node_id(), Default::default());
        let _ = v.entries(1, &mut |_, _| Ok(ControlFlow::Continue(())));
        let _ = v.scan_cells(&StoreId::table("t"), &Path::default(), None, &mut |_| {
            ControlFlow::Continue(())
        });
        let counters = StoreId::counter("c");
        let _ = v.sum(&counters, &Path::text(["n"]).unwrap());
        let _ =
            v.scan_sums(&counters, &Path::default(), None, &mut |_, _| ControlFlow::Continue(()));
        for peer in [v.frontier().unwrap_or_default(), Frontier::default()] {
            let _ = v.forks(&peer);
            let _ = v.frontier_within(&peer);
            peer.positions().for_each(|p| _ = v.samples(p));
            let sent = |run: Result<Option<Run>, StorageError>| matches!(run, Ok(Some(_)));
            if let Ok(mut out) = Outgoing::new(v, &peer) {
                let _ = out.count(v);
                while sent(out.next(v, Withhold::NOTHING)) {}
                let _ = out.refresh(v);
            }
        }
        let _ = Outgoing::level(v);
    });
    let tx = replica.storage.read().unwrap();
    let _ = verify(&*tx, &MemoryStorage::new(), &mut |_| {});
    drop(tx);
    let below = Write { below: true, ..write(&["a"], None) };
    for draft in [
        Draft { tallies: vec![count(Step::Reset), count(Step::Add(1))], ..Draft::default() },
        Draft { writes: vec![write(&["a"], Some("x")), below], ..Draft::default() },
        Draft { members: vec![grant(Subject::Anyone, Role::Read, 0)], ..Draft::default() },
    ] {
        let _: Result<_, Error> = device.commit(&draft);
    }
    let _ = device.act(|ledger, author| Ok(ledger.seal(author)?));
    let (world, run) = example();
    let _ = Replica { database: world.database, ..replica }.admit(&[run.verify().unwrap()]);
}

/// Rows whose numbers would overflow when something is added to them, or lead round in a circle.
#[test]
fn numbers_that_cannot_be_are_damage() {
    let most = u64::MAX;
    let counters = |next: u64, branches: u64| {
        let mut w = Writer::new();
        w.array(9).u64(next).u64(1).u64(1).u64(branches).u64(1).u64(1).u64(0).u64(0).u64(0);
        (Table::Meta, b"counters".to_vec(), w.finish())
    };
    let branch = |base: u64, base_seq: u64, tip: u64, head: u64, unsigned: u64| {
        let mut w = Writer::new();
        w.array(14).bytes(&[1; 32]).u64(1).u64(base).u64(base_seq).u64(tip).bytes(&[2; 32]);
        w.u64(1).u64(1).u64(head).bytes(&[2; 32]).u64(unsigned).u64(0).u64(1).null();
        (Table::Branch, 1_u32.to_be_bytes().to_vec(), w.finish())
    };
    let segment = |arrival: u64| {
        let key = [&1_u32.to_be_bytes()[..], &1_u64.to_be_bytes()].concat();
        (Table::Segment, key, arrival.to_be_bytes().to_vec())
    };
    for (table, key, row) in [
        counters(0, 1),
        counters(most, 1),
        counters(5, u32::MAX.into()),
        branch(0, 0, most, 1, 0),
        branch(0, 0, 2, 3, 0),
        branch(0, 0, 2, 2, u32::MAX.into()),
        // On itself, on a later one, and on a place above its own tip.
        branch(2, 1, 3, 3, 0),
        branch(9, 1, 3, 3, 0),
        branch(1, 4, 3, 3, 0),
        segment(most),
    ] {
        let mut device = busy();
        let mut tx = device.replica.storage.write(Durability::Full).unwrap();
        tx.put(table, &key, &row).unwrap();
        tx.commit().unwrap();
        let told = device.replica.view(|v| {
            let read = || {
                v.totals()?;
                v.entries(1, &mut |_, _| Ok(ControlFlow::Continue(())))?;
                let mut out = Outgoing::new(v, &Frontier::default())?;
                while out.next(v, Withhold::NOTHING)?.is_some() {}
                Ok::<_, Error>(())
            };
            read()
        });
        assert!(
            matches!(told, Err(Error::Storage(StorageError::Corrupt(_)))),
            "{row:02x?} {told:?}"
        );
        use_all(&mut device);
    }
}

/// An entry whose store is none, where entries cease to count and what they did is looked up.
#[test]
fn an_entry_that_lost_its_store_is_damage() {
    for store in [0, 9] {
        let mut device = Device::found();
        let mut other = device.admit(2, Role::Write);
        other.put(vec![write(&["a"], Some("theirs"))]);
        device.meet(&other);
        let mut tx = device.replica.storage.write(Durability::Full).unwrap();
        let mut rows = Vec::new();
        tx.scan(Table::Entry, &[], None, Order::Ascending, &mut |key, row| {
            if row.windows(6).any(|text| text == b"theirs") {
                rows.push((key.to_vec(), row.to_vec()));
            }
            ControlFlow::Continue(())
        })
        .unwrap();
        let [(key, row)] = &mut rows[..] else { panic!("{rows:?}") };
        let at = row.windows(2).rposition(|item| item == [0x82, 2]).unwrap();
        row[at + 1] = store;
        tx.put(Table::Entry, key, row).unwrap();
        tx.commit().unwrap();
        let grants = device.replica.view(|v| v.grants().unwrap());
        let theirs = Subject::Device(other.key.node_id());
        let held = grants.iter().find(|grant| grant.subject == theirs).unwrap();
        let op = MemberOp::Revoke { grant: held.id, cut: Cut::Tips(Vec::new()) };
        let told = device.act(|ledger, author| {
            ledger.commit(author, &Draft { members: vec![op.clone()], ..Draft::default() })
        });
        let damage = matches!(&told, Err(Error::Storage(StorageError::Corrupt(_))));
        assert!(damage, "store {store}: {told:?}");
    }
}

/// A count that lost a bit gives out a number once more: nothing that has it may be overwritten, nor a branch leave itself, which
/// whoever follows bases would never get out of.
#[test]
fn a_number_is_not_given_out_twice() {
    // Which of the counts, and something that takes the next one.
    type Take = fn(&mut Device, &mut Device) -> Result<(), Error>;
    let entry: Take = |device, _| device.commit(&draft_of(write(&["e"], Some("1")))).map(drop);
    let branch: Take = |device, clone| {
        clone.put(vec![write(&["f"], Some("1"))]);
        let run = clone.replica.outgoing(&device.replica).pop().unwrap();
        device.replica.admit(&[run]).map(drop)
    };
    let store: Take = |device, _| {
        let other = Write { store: StoreId::table("other"), ..write(&["e"], Some("1")) };
        device.commit(&draft_of(other)).map(drop)
    };
    let grants: Take = |device, _| device.grant(&[grant(Subject::Anyone, Role::Read, 0)]).map(drop);
    let revocations: Take = |device, _| {
        let held = device.replica.view(|v| v.grants().unwrap()).pop().unwrap();
        device.grant(&[MemberOp::Revoke { grant: held.id, cut: Cut::Past }]).map(drop)
    };
    for (place, take) in [(0, entry), (3, branch), (4, store), (5, grants), (8, revocations)] {
        let mut device = busy();
        revocations(&mut device, &mut Device::found()).unwrap();
        let mut clone = device.clone_to(device.instance);
        device.put(vec![write(&["mine"], Some("1"))]);
        let mut tx = device.replica.storage.write(Durability::Full).unwrap();
        let row = tx.get(Table::Meta, b"counters").unwrap().unwrap();
        let mut r = Reader::new(&row);
        r.tuple("counters", 9).unwrap();
        let mut counts: Vec<u64> = (0..9).map(|_| r.u64("a count").unwrap()).collect();
        counts[place] -= 1;
        // No more can be summed up than arrived.
        counts[7] = counts[7].min(counts[0] - 1);
        let mut w = Writer::new();
        w.array(9);
        counts.iter().for_each(|count| _ = w.u64(*count));
        tx.put(Table::Meta, b"counters", &w.finish()).unwrap();
        tx.commit().unwrap();
        let told = take(&mut device, &mut clone);
        let damage = matches!(&told, Err(Error::Storage(StorageError::Corrupt(_))));
        assert!(damage, "count {place}: {told:?}");
    }
}

fn draft_of(write: Write) -> Draft {
    Draft { writes: vec![write], ..Draft::default() }
}

#[test]
fn a_value_that_is_not_what_was_written_is_found() {
    let mut device = Device::found();
    device.put(vec![write(&["a"], Some("value"))]);
    change_last_cell(&device);
}

#[test]
fn a_sum_that_is_not_what_was_counted_is_found() {
    let mut device = Device::found();
    device.commit(&Draft { tallies: vec![count(Step::Add(6))], ..Draft::default() }).unwrap();
    device.seal();
    change_last_cell(&device);
}

fn change_last_cell(device: &Device) {
    let storage = device.replica.storage.clone();
    let check = || verify(&*storage.read().unwrap(), &MemoryStorage::new(), &mut |_| {});
    check().unwrap();
    let mut row = None;
    let tx = storage.read().unwrap();
    tx.scan(Table::Cell, &[], None, Order::Ascending, &mut |key, value| {
        row = Some((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    })
    .unwrap();
    drop(tx);
    let (key, mut value) = row.unwrap();
    *value.last_mut().unwrap() ^= 1;
    let mut tx = storage.write(Durability::Full).unwrap();
    tx.put(Table::Cell, &key, &value).unwrap();
    tx.commit().unwrap();
    let found = check().unwrap_err().to_string();
    assert!(found.contains("is not what was written"), "{found}");
}

#[test]
fn members_of_every_length_are_read() {
    let ops = |n: usize| {
        let one = grant(Subject::Anyone, Role::Read, 0);
        let (_, payload) = members(&vec![one; n]);
        anabranch_core::ops::decode_members(payload.bytes().unwrap()).ops.len()
    };
    assert_eq!(ops(anabranch_core::limits::GRANT_OPS), anabranch_core::limits::GRANT_OPS);
    assert_eq!(ops(anabranch_core::limits::GRANT_OPS + 1), 0);
    let terms = TicketTerms::default();
    assert_eq!((terms.limit, terms.expires), (None, None));
}
