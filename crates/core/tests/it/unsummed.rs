//! Commits that are signed later leave digests behind in the file, and whoever reads them gets what they should be: with or
//! without what the last transaction knew, after a crash, and whoever writes in between (I2, I6).

use crate::cases;
use crate::replica::{Device, Replica, write};
use anabranch_core::author::{Draft, Step, Tally, Write};
use anabranch_core::entry::{StoreId, StoreKind};
use anabranch_core::ledger::{Ledger, Memory};
use anabranch_core::path::Path;
use anabranch_core::storage::{Durability, Storage, Table};
use anabranch_reference::fold;
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Act {
    /// Puts values at these keys, in the store of this number; some are there already.
    Put(u8, Vec<u8>),
    Delete(u8),
    Count,
    Sign,
    /// The process ends and another one goes on, or another process writes.
    Forget,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => (0..3_u8, vec(any::<u8>(), 1..4)).prop_map(|(store, keys)| Act::Put(store, keys)),
        1 => any::<u8>().prop_map(Act::Delete),
        1 => Just(Act::Count),
        1 => Just(Act::Sign),
        2 => Just(Act::Forget),
    ]
}

fn put(store: u8, key: u8) -> Write {
    let store = StoreId { kind: StoreKind::DOC, name: format!("s{store}") };
    Write { store, ..write(&[&key.to_string()], Some("value")) }
}

fn draft(act: &Act) -> Option<Draft> {
    let draft = Draft::default();
    match act {
        Act::Put(store, keys) => {
            Some(Draft { writes: keys.iter().map(|key| put(*store, *key)).collect(), ..draft })
        }
        Act::Delete(key) => {
            let write = Write { value: None, ..put(0, *key) };
            Some(Draft { writes: vec![write], ..draft })
        }
        Act::Count => {
            let store = StoreId { kind: StoreKind::COUNTER, name: "c".into() };
            let tally = Tally::new(store, Path::text(["n"]).unwrap(), Step::Add(1));
            Some(Draft { tallies: vec![tally], ..draft })
        }
        Act::Sign | Act::Forget => None,
    }
}

/// One transaction as under normal durability.
fn transact(device: &mut Device, memory: Option<Memory>, draft: Option<&Draft>) -> Option<Memory> {
    let storage = device.replica.storage.clone();
    let mut tx = storage.write(Durability::Normal).unwrap();
    let mut ledger = Ledger::resume(&mut *tx, memory).unwrap();
    let author = device.author();
    match draft {
        Some(draft) => drop(ledger.commit(&author, draft).unwrap()),
        None => ledger.seal(&author).unwrap(),
    }
    let (_, memory) = ledger.finish_and_keep(draft.is_none()).unwrap();
    tx.commit().unwrap();
    memory
}

/// What is read is what a new peer works out from the entries.
fn sound(device: &Device) {
    let (digest, state) = (device.replica.digests().1, device.replica.state());
    let mut copy = device.clone_to(device.instance);
    transact(&mut copy, None, None);
    let other = Replica::empty(copy.replica.database);
    copy.replica.update(&other, usize::MAX);
    assert_eq!(other.digests().1, digest);
    assert_eq!(copy.replica.digests().1, digest);
    assert_eq!(state, fold(&device.replica.entries()));
}

fn stores(device: &Device) -> Vec<Vec<u8>> {
    let tx = device.replica.storage.read().unwrap();
    let row = |n: u32| tx.get(Table::Store, &n.to_be_bytes()).unwrap();
    (1..).map_while(row).collect()
}

#[test]
fn values_that_are_added_leave_the_digest_alone_until_it_is_signed() {
    let mut device = Device::found();
    let mut memory = transact(&mut device, None, draft(&Act::Put(0, vec![0])).as_ref());
    let (before, digest) = (stores(&device), device.replica.digests().1);
    for key in 1..=255 {
        memory = transact(&mut device, memory, draft(&Act::Put(0, vec![key])).as_ref());
    }
    assert_eq!(stores(&device), before);
    assert_ne!(device.replica.digests().1, digest, "it is read with what is lacking");
    sound(&device);
    // Bounded: a reader makes good for so many.
    let mut written = false;
    for key in 0..100 {
        memory = transact(&mut device, memory, draft(&Act::Put(0, vec![key])).as_ref());
        written |= stores(&device) != before;
    }
    assert!(written);
    transact(&mut device, memory, None);
    sound(&device);
}

proptest! {
    #![proptest_config(cases(128))]

    #[test]
    fn digests_are_read_as_if_they_were_never_behind(acts in vec(act(), 1..24)) {
        let mut device = Device::found();
        let mut memory = None;
        for act in &acts {
            memory = match act {
                Act::Forget => None,
                act => transact(&mut device, memory, draft(act).as_ref()),
            };
            sound(&device);
        }
    }
}
