//! Indexes of a replica against a scan of its cells: random histories of several writers, conflicts, deleted rows, bulk
//! loads, indexes declared, built by halves and taken back at any moment.

use crate::cases;
use crate::counting::Counting;
use crate::replica::{Device, Replica};
use anabranch_core::admit::Load;
use anabranch_core::author::{Draft, Seen, Write};
use anabranch_core::build::{self, Budget};
use anabranch_core::entry::StoreId;
use anabranch_core::error::Error;
use anabranch_core::index::{self, MOST_INDEXES, Range};
use anabranch_core::ops::Role;
use anabranch_core::path::Path;
use anabranch_core::sortkey::{stored, whole};
use anabranch_core::storage::{Durability, Order, Storage, StorageError, Table, WriteTx};
use proptest::prelude::*;
use std::ops::{Bound, ControlFlow};

const FIELDS: [&str; 3] = ["a", "b", "a\0b"];
const ROWS: u8 = 5;

fn values() -> Vec<Vec<u8>> {
    let text = |text: String| {
        let mut writer = anabranch_core::codec::Writer::new();
        writer.text(&text);
        writer.finish()
    };
    let long = "x".repeat(200);
    vec![
        vec![0xf6],
        vec![0xf4],
        vec![0xf5],
        vec![0x01],
        vec![0x02],
        vec![0x20],
        // 1.0 is 1, 1.5 is not.
        [&[0xfb][..], &1.0f64.to_be_bytes()].concat(),
        [&[0xfb][..], &1.5f64.to_be_bytes()].concat(),
        text("a".into()),
        text("b\0".into()),
        text(long.clone()),
        text(long.clone() + "a"),
        text(long + "b"),
        vec![0x41, 0x00],
        vec![0x80],
        vec![0xff, 0x00],
    ]
}

fn table() -> StoreId {
    StoreId::table("t")
}

#[derive(Debug, Clone)]
enum Step {
    Put { who: usize, row: u8, field: usize, value: usize, stale: bool },
    Delete { who: usize, row: u8 },
    Send { from: usize, to: usize, bulk: bool },
    Declare { who: usize, field: usize },
    Withdraw { who: usize, field: usize },
    Index { who: usize, budget: usize },
    Build { who: usize, budget: usize },
}

fn arb_step() -> impl Strategy<Value = Step> {
    let (who, row, field) = (0usize..3, 0..ROWS, 0..FIELDS.len());
    let budget = prop_oneof![Just(1usize), 100usize..2_000];
    prop_oneof![
        10 => (who.clone(), row.clone(), field.clone(), 0..values().len(), any::<bool>())
            .prop_map(|(who, row, field, value, stale)| Step::Put { who, row, field, value, stale }),
        2 => (who.clone(), row).prop_map(|(who, row)| Step::Delete { who, row }),
        5 => (who.clone(), who.clone(), any::<bool>())
            .prop_map(|(from, to, bulk)| Step::Send { from, to, bulk }),
        3 => (who.clone(), field.clone()).prop_map(|(who, field)| Step::Declare { who, field }),
        1 => (who.clone(), field).prop_map(|(who, field)| Step::Withdraw { who, field }),
        3 => (who.clone(), budget.clone()).prop_map(|(who, budget)| Step::Index { who, budget }),
        3 => (who, budget).prop_map(|(who, budget)| Step::Build { who, budget }),
    ]
}

fn write(row: u8, field: Option<usize>, value: Option<Vec<u8>>) -> Write {
    let row = row.to_string();
    let path = [Some(row.as_str()), field.map(|field| FIELDS[field])];
    Write {
        store: table(),
        path: Path::text(path.into_iter().flatten()).unwrap(),
        value,
        seen: Seen::AtCommit,
        below: field.is_none(),
        above: false,
    }
}

impl Replica {
    fn tables<T>(&self, act: impl FnOnce(&mut dyn WriteTx) -> T) -> T {
        let mut tx = self.storage.write(Durability::Full).unwrap();
        let done = act(&mut *tx);
        tx.commit().unwrap();
        done
    }

    fn declare(&self, field: &str) -> bool {
        self.tables(|tx| index::declare(tx, &table(), field)).unwrap()
    }

    /// The rows that `find_rows` gives.
    fn find(&self, field: &str, range: Range<'_>, order: Order) -> Result<Vec<Path>, Error> {
        let mut rows = Vec::new();
        self.view(|view| {
            view.find_rows(&table(), field, range, order, &mut |row| {
                rows.push(row);
                ControlFlow::Continue(())
            })
        })?;
        Ok(rows)
    }

    /// The same by looking at every cell.
    fn scan(&self, field: &str, range: Range<'_>) -> Vec<Path> {
        let end = Path::text([field]).unwrap();
        let mut found = Vec::new();
        self.view(|view| {
            view.scan_cells(&table(), &Path::default(), None, &mut |cell| {
                let row = cell.path.ancestors().next();
                let value = &cell.winner().value;
                let key = whole(value);
                let fits = match range.from {
                    Bound::Included(from) => key >= whole(from),
                    Bound::Excluded(from) => key > whole(from),
                    Bound::Unbounded => true,
                } && match range.to {
                    Bound::Included(to) => key <= whole(to),
                    Bound::Excluded(to) => key < whole(to),
                    Bound::Unbounded => true,
                };
                if let Some(row) = row
                    && cell.path.as_bytes() == [row.as_bytes(), end.as_bytes()].concat()
                    && fits
                {
                    found.push((stored(value), row));
                }
                ControlFlow::Continue(())
            })
        })
        .unwrap();
        found.sort();
        found.into_iter().map(|(_, row)| row).collect()
    }

    /// Whatever is asked, the index says what a scan does, or that it is not there yet.
    fn judge(&self, bounds: &[(Bound<usize>, Bound<usize>)]) -> Result<(), TestCaseError> {
        self.view(|view| view.check_indexes()).unwrap();
        let building = self.view(|view| view.building().unwrap()).is_some();
        let known = self.view(|view| view.indexes().unwrap());
        let values = values();
        for field in FIELDS {
            let info = known.iter().find(|info| info.field == field);
            for (from, to) in bounds {
                let bound = |b: &Bound<usize>| b.map(|at| &values[at][..]);
                let range = Range { from: bound(from), to: bound(to) };
                let found = self.find(field, range, Order::Ascending);
                match info {
                    _ if building => {
                        prop_assert!(matches!(found, Err(Error::Storage(StorageError::Building))));
                    }
                    None => {
                        let none = matches!(found, Err(Error::NoIndex { .. }));
                        prop_assert!(none);
                    }
                    Some(info) if !info.ready => {
                        prop_assert!(matches!(found, Err(Error::Storage(StorageError::Building))));
                    }
                    Some(_) => {
                        let expected = self.scan(field, range);
                        prop_assert_eq!(&found.unwrap(), &expected);
                        let mut back = self.find(field, range, Order::Descending).unwrap();
                        back.sort_by_key(|row| expected.iter().position(|other| other == row));
                        prop_assert_eq!(back, expected);
                    }
                }
            }
        }
        Ok(())
    }
}

fn arb_bound() -> impl Strategy<Value = Bound<usize>> {
    let value = 0..values().len();
    prop_oneof![
        3 => value.clone().prop_map(Bound::Included),
        1 => value.prop_map(Bound::Excluded),
        1 => Just(Bound::Unbounded),
    ]
}

fn three() -> Vec<Device> {
    let mut admin = Device::found();
    let mut devices = vec![admin.admit(2, Role::Write), admin.admit(3, Role::Write)];
    devices.insert(0, admin);
    devices[0].meet(&devices[1]);
    devices[0].meet(&devices[2]);
    devices
}

fn take(devices: &mut [Device], step: &Step) {
    match step {
        Step::Put { who, row, field, value, stale } => {
            let seen = if *stale { Seen::Values(Vec::new()) } else { Seen::AtCommit };
            let value = Some(values()[*value].clone());
            let put = Write { seen, ..write(*row, Some(*field), value) };
            commit(&mut devices[*who], vec![put]);
        }
        Step::Delete { who, row } => {
            commit(&mut devices[*who], vec![write(*row, None, None)]);
        }
        Step::Send { from, to, bulk } => {
            let load = if *bulk { Load::Bulk } else { Load::AtOnce };
            let to = Replica { load, ..devices[*to].replica.clone() };
            devices[*from].replica.update(&to, usize::MAX);
        }
        Step::Declare { who, field } => {
            devices[*who].replica.declare(FIELDS[*field]);
        }
        Step::Withdraw { who, field } => {
            let field = FIELDS[*field];
            devices[*who].replica.tables(|tx| index::withdraw(tx, &table(), field)).unwrap();
        }
        Step::Index { who, budget } => {
            index::step(&*devices[*who].replica.storage, *budget).unwrap();
        }
        Step::Build { who, budget } => {
            build::step(&*devices[*who].replica.storage, Budget { bytes: *budget, threads: 1 })
                .unwrap();
        }
    }
}

fn commit(device: &mut Device, writes: Vec<Write>) {
    match device.commit(&Draft { writes, ..Draft::default() }) {
        Ok(_) => device.seal(),
        Err(Error::Storage(StorageError::Building)) => {}
        Err(e) => panic!("{e}"),
    }
}

proptest! {
    #![proptest_config(cases(192))]
    #[test]
    fn an_index_says_what_a_scan_does(
        steps in prop::collection::vec(arb_step(), 1..60),
        bounds in prop::collection::vec((arb_bound(), arb_bound()), 1..6),
    ) {
        let mut devices = three();
        for step in &steps {
            take(&mut devices, step);
            for device in &devices {
                device.replica.judge(&bounds)?;
            }
        }
        for device in &devices {
            build::finish(&*device.replica.storage, Budget { bytes: 1_000, threads: 1 }).unwrap();
            index::finish(&*device.replica.storage).unwrap();
            prop_assert!(!device.replica.view(|view| view.indexing().unwrap()));
            device.replica.judge(&bounds)?;
        }
    }
}

fn full(rows: u32) -> Device {
    let mut device = Device::found();
    for first in (0..rows).step_by(100) {
        let puts = (first..rows.min(first + 100)).map(|n| Write {
            store: table(),
            path: Path::text([n.to_string().as_str(), "a"]).unwrap(),
            value: Some(vec![0x19, (n >> 8) as u8 | 0x40, n as u8]),
            seen: Seen::AtCommit,
            below: false,
            above: false,
        });
        device.put(puts.collect());
    }
    device
}

#[test]
fn digests_do_not_know_of_indexes() {
    let (plain, indexed) = (Device::found(), Device::found());
    indexed.replica.declare("a");
    let store = StoreId::table("another");
    indexed.replica.tables(|tx| index::declare(tx, &store, "a")).unwrap();
    index::finish(&*indexed.replica.storage).unwrap();
    assert_eq!(plain.replica.digests(), indexed.replica.digests());
}

/// The table comes into being in a transaction that has looked the indexes up before.
#[test]
fn an_index_may_be_there_before_its_table() {
    let mut device = Device::found();
    device.replica.declare("a");
    let here = write(0, Some(0), Some(vec![1]));
    let elsewhere = Write { store: StoreId::table("another"), ..here.clone() };
    let draft = |write: &Write| Draft { writes: vec![write.clone()], ..Draft::default() };
    device
        .act(|ledger, author| {
            ledger.commit(author, &draft(&elsewhere))?;
            ledger.commit(author, &draft(&here))
        })
        .unwrap();
    device.replica.view(|view| view.check_indexes()).unwrap();
    assert_eq!(device.replica.find("a", Range::only(&[1]), Order::Ascending).unwrap().len(), 1);
}

#[test]
fn an_index_is_over_one_field_of_one_table() {
    let device = full(3);
    let other = StoreId::table("u");
    let both = [(&table(), "a"), (&table(), "b"), (&other, "a"), (&other, "b")];
    device.replica.tables(|tx| {
        for (store, field) in both {
            assert!(index::declare(tx, store, field).unwrap());
            assert!(!index::declare(tx, store, field).unwrap(), "it is there");
        }
        assert!(index::withdraw(tx, &other, "a").unwrap());
        assert!(!index::withdraw(tx, &other, "a").unwrap(), "it is gone");
        for (store, field) in [both[0], both[1], both[3]] {
            assert!(!index::declare(tx, store, field).unwrap(), "{store} {field} stays");
        }
        // While the rows of the old one are still to be removed.
        assert!(index::declare(tx, &other, "a").unwrap());
    });
}

#[test]
fn what_cannot_be_indexed_is_refused() {
    let replica = Device::found().replica;
    let refused = |store: &StoreId, field: &str| {
        replica.tables(|tx| index::declare(tx, store, field)).unwrap_err()
    };
    assert!(matches!(refused(&StoreId::doc("d"), "a"), Error::NoFields(_)));
    assert!(matches!(refused(&table(), &"x".repeat(9_000)), Error::Path(_)));
    for n in 0..MOST_INDEXES {
        assert!(replica.declare(&format!("f{n}")));
        assert!(!replica.declare(&format!("f{n}")));
    }
    assert!(matches!(refused(&table(), "one more"), Error::TooManyIndexes));
    assert!(replica.tables(|tx| index::withdraw(tx, &table(), "f3")).unwrap());
    assert!(!replica.tables(|tx| index::withdraw(tx, &table(), "f3")).unwrap());
    index::finish(&*replica.storage).unwrap();
    assert!(replica.declare("one more"));
}

#[test]
fn a_stretch_costs_what_it_may_and_the_index_is_built_in_many() {
    let device = full(2_000);
    assert!(device.replica.declare("a"));
    let mut stretches = 0;
    while index::step(&*device.replica.storage, 4_000).unwrap() {
        stretches += 1;
        device.replica.view(|view| view.check_indexes()).unwrap();
    }
    assert!((20..60).contains(&stretches), "{stretches}");
    let all = Range { from: Bound::Unbounded, to: Bound::Unbounded };
    assert_eq!(device.replica.find("a", all, Order::Ascending).unwrap().len(), 2_000);
}

#[test]
fn what_an_index_costs_is_what_changes() {
    let cost = |device: &mut Device, indexed: bool| {
        if indexed {
            device.replica.declare("a");
            index::finish(&*device.replica.storage).unwrap();
        }
        let storage = device.replica.storage.clone();
        let counting = Counting::new(&*storage);
        let mut tx = counting.write(Durability::Full).unwrap();
        let mut ledger = anabranch_core::ledger::Ledger::open(&mut *tx).unwrap();
        let author = device.author();
        for n in 0..10 {
            let writes = vec![write(n, Some(0), Some(vec![n]))];
            ledger.commit(&author, &Draft { writes, ..Draft::default() }).unwrap();
        }
        ledger.finish().unwrap();
        tx.commit().unwrap();
        counting.take()
    };
    let (mut small, mut large) = (full(100), full(2_000));
    let plain = cost(&mut full(2_000), false);
    let (few, many) = (cost(&mut small, true), cost(&mut large, true));
    // Each commit replaces a value: a row goes and a row comes; the first look-up is all that the others share.
    assert!(many <= few + 2, "{few} to {many}");
    assert!(many <= plain + 2 * 10 + 2, "{plain} to {many}");
}

#[test]
fn a_find_costs_what_it_finds() {
    let device = full(2_000);
    device.replica.declare("a");
    index::finish(&*device.replica.storage).unwrap();
    let counting = Counting::new(&*device.replica.storage);
    let tx = counting.read().unwrap();
    let value = [0x19, 0x41, 0x07];
    let mut found = Vec::new();
    let view = anabranch_core::view::View::new(&*tx);
    view.find_rows(&table(), "a", Range::only(&value), Order::Ascending, &mut |row| {
        found.push(row);
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(found, [Path::text(["263"]).unwrap()]);
    assert!(counting.take() < 15);
}

#[test]
fn a_wrong_index_is_noticed_both_ways() {
    let device = full(10);
    device.replica.declare("a");
    index::finish(&*device.replica.storage).unwrap();
    let mut keys = Vec::new();
    let tx = device.replica.storage.read().unwrap();
    tx.scan(Table::Index, &[1], None, Order::Ascending, &mut |key, _| {
        keys.push(key.to_vec());
        ControlFlow::Continue(())
    })
    .unwrap();
    drop(tx);
    assert_eq!(keys.len(), 10);
    let wrong = |replica: &Replica| match replica.view(|view| view.check_indexes()) {
        Err(Error::WrongIndex(text)) => text,
        other => panic!("{other:?}"),
    };
    let lacking = device.replica.copy();
    lacking.tables(|tx| tx.delete(Table::Index, &keys[3])).unwrap();
    assert!(wrong(&lacking).contains("lacks row '3'"), "{}", wrong(&lacking));
    let surplus = device.replica.copy();
    let mut key = keys[3].clone();
    // Another value for the same cell.
    key[14] ^= 1;
    surplus.tables(|tx| tx.put(Table::Index, &key, &[])).unwrap();
    assert!(wrong(&surplus).contains("is gone in row '3'"), "{}", wrong(&surplus));
    let stray = device.replica.copy();
    key[4] = 9;
    stray.tables(|tx| tx.put(Table::Index, &key, &[])).unwrap();
    assert!(stray.view(|view| view.check_indexes()).is_err());
    // And a replica that is verified as a whole says the same.
    let tx = lacking.storage.read().unwrap();
    let scratch = anabranch_store::MemoryStorage::new();
    let verified = anabranch_core::verify::verify(&*tx, &scratch, &mut |_| ());
    assert!(matches!(verified, Err(Error::WrongIndex(_))), "{verified:?}");
}
