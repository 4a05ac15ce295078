//! Any set of entries, honest or not, in any order: one state (I2, I11; acceptance: names of values that are not in the
//! writer's past).

use crate::cases;
use crate::replica::Replica;
use crate::world::{RawCount, RawOp, World, counts, payload};
use anabranch_core::admit::Load;
use anabranch_core::build;
use anabranch_core::entry::StoreId;
use anabranch_core::id::EntryId;
use anabranch_core::ops::ValueName;
use anabranch_core::path::Path;
use anabranch_core::run::VerifiedRun;
use anabranch_core::storage::StorageError;
use anabranch_reference::{fold, frontier, judge};
use proptest::prelude::*;
use proptest::sample::Index;
use std::collections::BTreeSet;

/// A write of one entry to one of a handful of cells.
#[derive(Debug, Clone)]
pub(crate) struct Op {
    pub(crate) store: bool,
    pub(crate) path: u8,
    pub(crate) what: What,
    pub(crate) names: Vec<Name>,
}

#[derive(Debug, Clone)]
pub(crate) enum What {
    Put,
    Delete,
    /// A value at an element of a list that the entry makes; senseless if it replaces anything.
    New(u32),
    UnknownKind,
    BadPath,
    TooManyFields,
}

/// Which value a write names as replaced.
#[derive(Debug, Clone)]
pub(crate) enum Name {
    /// One written at this very path by an entry made before, in the writer's past or not.
    Here(Index),
    /// One written anywhere.
    Anywhere(Index),
    /// One that an entry could have written but did not.
    Absent(Index, u32),
    /// One of an entry that never was.
    Never(u64),
}

#[derive(Debug, Clone)]
struct Step {
    device: usize,
    epoch: u64,
    /// How far below its log's tip it goes on: anything but 0 forks the log.
    back: usize,
    parents: Vec<Index>,
    ops: Vec<Op>,
    counts: Vec<(u8, Counted)>,
    time: u64,
}

/// What one entry does to one of a handful of counters.
#[derive(Debug, Clone)]
pub(crate) enum Counted {
    Add(i64),
    Reset(i128),
    UnknownKind,
    BadPath,
}

pub(crate) fn arb_counted() -> impl Strategy<Value = Counted> {
    prop_oneof![
        12 => (-3i64..4).prop_map(Counted::Add),
        2 => prop_oneof![Just(i64::MIN), Just(i64::MAX)].prop_map(Counted::Add),
        4 => (-6i128..7).prop_map(Counted::Reset),
        1 => prop_oneof![Just(i128::MIN), Just(i128::MAX)].prop_map(Counted::Reset),
        1 => Just(Counted::UnknownKind),
        1 => Just(Counted::BadPath),
    ]
}

pub(crate) fn arb_op() -> impl Strategy<Value = Op> {
    let what = prop_oneof![
        8 => Just(What::Put),
        4 => Just(What::Delete),
        2 => prop_oneof![0u32..2, any::<u32>()].prop_map(What::New),
        1 => Just(What::UnknownKind),
        1 => Just(What::BadPath),
        1 => Just(What::TooManyFields),
    ];
    let name = prop_oneof![
        8 => any::<Index>().prop_map(Name::Here),
        1 => any::<Index>().prop_map(Name::Anywhere),
        1 => (any::<Index>(), 0u32..3).prop_map(|(e, i)| Name::Absent(e, i)),
        1 => (1u64..4).prop_map(Name::Never),
    ];
    (any::<bool>(), 0u8..4, what, prop::collection::vec(name, 0..4))
        .prop_map(|(store, path, what, names)| Op { store, path, what, names })
}

fn arb_step() -> impl Strategy<Value = Step> {
    (
        0usize..3,
        0u64..2,
        prop_oneof![6 => Just(0usize), 1 => 1usize..4],
        prop::collection::vec(any::<Index>(), 0..3),
        prop::collection::vec(arb_op(), 0..4),
        prop::collection::vec((0u8..4, arb_counted()), 0..4),
        prop_oneof![4 => 0u64..20, 1 => Just(u64::MAX), 1 => any::<u64>()],
    )
        .prop_map(|(device, epoch, back, parents, ops, counts, time)| Step {
            device,
            epoch,
            back,
            parents,
            ops,
            counts,
            time,
        })
}

pub(crate) fn path(n: u8) -> Path {
    let list: [&[&str]; 4] = [&["a"], &["a", "b"], &["a", "c"], &["d"]];
    Path::text(list[usize::from(n)]).unwrap()
}

pub(crate) fn store(n: bool) -> StoreId {
    if n { StoreId::table("t") } else { StoreId::doc("t") }
}

/// Where each value was written.
pub(crate) type Written = Vec<(bool, u8, ValueName)>;

fn name(world: &World, written: &Written, op: &Op, name: &Name) -> Option<ValueName> {
    let of = |e: EntryId, log, seq, index| ValueName { log, seq, index, id16: e.first16() };
    match name {
        Name::Here(at) => {
            let here: Vec<_> =
                written.iter().filter(|w| (w.0, w.1) == (op.store, op.path)).collect();
            (!here.is_empty()).then(|| at.get(&here).2)
        }
        Name::Anywhere(at) => (!written.is_empty()).then(|| at.get(written).2),
        Name::Absent(at, index) => {
            let entry = at.get(&world.entries);
            Some(of(entry.id(), entry.header().log, entry.header().seq, *index))
        }
        Name::Never(seq) => Some(of(EntryId([0xee; 32]), world.log(1, 0), *seq, 0)),
    }
}

/// Plays the steps: whatever they say, the entries are admissible.
fn play(steps: &[Step]) -> World {
    let mut world = World::new(3);
    let mut written = Written::new();
    for step in steps {
        let log = world.log(step.device, step.epoch + 2);
        let tip = world.entries.iter().rposition(|e| e.header().log == log);
        let prev = tip.and_then(|tip| {
            let line = world.line(tip);
            let at = line.len().checked_sub(1 + step.back.min(line.len() - 1))?;
            world.entries.iter().position(|e| e.id() == line[at].id())
        });
        let mut spec = world.spec(step.device, step.epoch + 2, prev);
        let parents = step.parents.iter().map(|p| p.index(world.entries.len()));
        spec.parents.extend(parents.filter(|&p| world.entries[p].header().log != log));
        spec.timestamp = step.time;
        for which in [true, false] {
            let ops: Vec<&Op> = step.ops.iter().filter(|op| op.store == which).collect();
            if !ops.is_empty() {
                let raw: Vec<RawOp> = ops.iter().map(|op| raw(&world, &written, op)).collect();
                spec.payloads.push((store(which), payload(&log, &raw)));
            }
        }
        if !step.counts.is_empty() {
            let raw: Vec<RawCount> = step.counts.iter().map(raw_count).collect();
            spec.payloads.push((StoreId::counter("t"), counts(&raw)));
        }
        spec.payloads.sort_by(|a, b| a.0.cmp(&b.0));
        let at = world.add(spec);
        let entry = &world.entries[at];
        for which in [true, false] {
            for (index, op) in step.ops.iter().filter(|op| op.store == which).enumerate() {
                if let What::Put = op.what {
                    let (seq, id16) = (entry.header().seq, entry.id().first16());
                    let index = index as u32;
                    written.push((which, op.path, ValueName { log, seq, index, id16 }));
                }
            }
        }
    }
    world
}

pub(crate) fn raw_count((at, counted): &(u8, Counted)) -> RawCount {
    let path = path(*at).as_bytes().to_vec();
    match counted {
        Counted::Add(delta) => RawCount::Add(path, *delta),
        Counted::Reset(delta) => RawCount::Reset(path, *delta),
        Counted::UnknownKind => RawCount::Other(2),
        Counted::BadPath => RawCount::Add(b"?".to_vec(), 1),
    }
}

pub(crate) fn raw(world: &World, written: &Written, op: &Op) -> RawOp {
    let value = Some(vec![world.entries.len() as u8]);
    let mut raw = RawOp {
        kind: 0,
        path: path(op.path).as_bytes().to_vec(),
        value,
        names: op.names.iter().filter_map(|n| name(world, written, op, n)).collect(),
        extra: false,
    };
    match op.what {
        What::Put => {}
        What::Delete => (raw.kind, raw.value) = (1, None),
        What::New(number) => {
            raw.kind = 3;
            raw.path = path(op.path).join_new(number).unwrap().as_bytes().to_vec();
        }
        What::UnknownKind => raw.kind = 7,
        What::BadPath => raw.path.push(9),
        What::TooManyFields => raw.extra = true,
    }
    raw
}

/// Hands a replica runs in a random order, some twice, some overlapping, in batches; in the end all of them.
pub(crate) fn deliver(
    world: &World,
    replica: &Replica,
    order: &[(Index, usize, usize)],
    mut after: impl FnMut(&Replica) -> Result<(), TestCaseError>,
) -> Result<(), TestCaseError> {
    let mut batch = Vec::new();
    for (tip, count, size) in order {
        let run = world.run(tip.index(world.entries.len()), *count);
        batch.push(run.verify().unwrap());
        if batch.len() > *size {
            batch = feed(replica, &batch)?;
            after(replica)?;
        }
    }
    // Whatever was left out, the last first: nothing may depend on help from the order.
    for tip in (0..world.entries.len()).rev() {
        batch.push(world.run(tip, 3).verify().unwrap());
    }
    while !batch.is_empty() {
        let before = batch.len();
        batch = feed(replica, &batch)?;
        prop_assert!(batch.len() < before, "what waits for nothing waits for ever");
    }
    after(replica)
}

/// Returns the runs that still wait.
fn feed(replica: &Replica, batch: &[VerifiedRun]) -> Result<Vec<VerifiedRun>, TestCaseError> {
    let (_, waiting) = replica.admit(batch).map_err(|e| TestCaseError::fail(e.to_string()))?;
    Ok(waiting)
}

/// State, frontier and order of arrival follow from the set that is held, at every moment.
pub(crate) fn consistent(replica: &Replica) -> Result<(), TestCaseError> {
    let held = replica.entries();
    prop_assert_eq!(replica.state(), fold(&held));
    prop_assert_eq!(replica.frontier(), frontier(&held));
    let mut seen = BTreeSet::new();
    for entry in &held {
        prop_assert!(anabranch_reference::below(entry).iter().all(|id| seen.contains(id)), "I3");
        seen.insert(entry.id());
    }
    Ok(())
}

pub(crate) fn arb_order() -> impl Strategy<Value = Vec<(Index, usize, usize)>> {
    prop::collection::vec((any::<Index>(), 1usize..6, 0usize..6), 0..24)
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn one_set_of_entries_has_one_meaning(
        steps in prop::collection::vec(arb_step(), 1..20),
        orders in prop::collection::vec(arb_order(), 2..4),
    ) {
        let world = play(&steps);
        let all = world.by_id();
        for entry in &world.entries {
            prop_assert_eq!(judge(&all, &world.database, entry), Ok(()));
        }
        let mut replicas = Vec::new();
        let mut stages = Vec::new();
        for order in &orders {
            let replica = Replica::empty(world.database);
            deliver(&world, &replica, order, |replica| {
                stages.push(replica.copy());
                consistent(replica)
            })?;
            prop_assert_eq!(replica.entries().len(), world.entries.len());
            prop_assert_eq!(replica.state(), fold(&world.entries));
            replicas.push(replica);
        }
        let digests = replicas[0].digests();
        prop_assert_eq!(digests.1.is_none(), !replicas[0].state().unknown.is_empty());
        for replica in &replicas {
            prop_assert_eq!(replica.digests(), digests);
        }
        // Whoever stood anywhere on the way is brought up to date by anybody who has everything.
        for (n, stage) in stages.iter().enumerate() {
            let full = &replicas[n % replicas.len()];
            full.update(stage, usize::MAX);
            prop_assert_eq!(stage.digests(), digests);
            prop_assert_eq!(full.update(stage, usize::MAX), 0);
        }
    }
    /// In stretches of any length, with more arriving in between.
    #[test]
    fn cells_that_are_built_later_are_the_same(
        steps in prop::collection::vec(arb_step(), 1..20),
        order in arb_order(),
        bytes in prop_oneof![Just(1), 200usize..4_000, Just(usize::MAX)],
        threads in 1usize..4,
        pauses in prop::collection::vec(any::<bool>(), 1..6),
    ) {
        let budget = build::Budget { bytes, threads };
        let world = play(&steps);
        let (plain, bulk) = (Replica::empty(world.database), Replica::empty(world.database));
        let bulk = Replica { load: Load::Bulk, ..bulk };
        deliver(&world, &plain, &order, |_| Ok(()))?;
        let mut pauses = pauses.iter().cycle();
        deliver(&world, &bulk, &order, |replica| {
            if pauses.next() == Some(&true) {
                build::step(&*replica.storage, budget).unwrap();
            }
            if replica.view(|v| v.building().unwrap()).is_some() {
                let stores = replica.view(|v| v.stores());
                prop_assert!(matches!(stores, Err(StorageError::Building)), "{:?}", stores);
            } else {
                consistent(replica)?;
            }
            Ok(())
        })?;
        build::finish(&*bulk.storage, budget).unwrap();
        prop_assert_eq!(build::step(&*bulk.storage, budget).unwrap(), None);
        prop_assert_eq!(bulk.digests(), plain.digests());
        prop_assert_eq!(bulk.state(), fold(&world.entries));
    }
}
