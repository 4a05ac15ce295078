//! Who may, judged at random: whatever devices grant, revoke, redeem, use and claim, a replica and the reference agree on
//! every entry and on what all of them amount to, in every order, and what was refused leaves nothing behind (I2, I4).

use crate::cases;
use crate::convergence::{
    self, Counted, Op, Written, arb_counted, arb_op, arb_order, consistent, deliver,
};
use crate::replica::Replica;
use crate::world::{RawOp, World, counts, grant, members, payload};
use anabranch_core::admit::Load;
use anabranch_core::build;
use anabranch_core::codec::Writer;
use anabranch_core::entry::{Entry, GrantRef, StoreId};
use anabranch_core::error::{Error, Refusal};
use anabranch_core::frontier::Frontier;
use anabranch_core::head::Head;
use anabranch_core::id::{EntryId, NodeId};
use anabranch_core::key::DeviceKey;
use anabranch_core::ops::{Cut, MemberOp, Role, Subject, ValueName};
use anabranch_core::outgoing::{Outgoing, Withhold};
use anabranch_core::person::Evidence;
use anabranch_core::run::{Run, VerifiedRun};
use anabranch_core::verify::verify;
use anabranch_reference::{Fault, fold, judge, needed, role};
use anabranch_store::MemoryStorage;
use proptest::prelude::*;
use proptest::sample::Index;
use std::collections::{BTreeMap, BTreeSet};

/// Who is meant.
#[derive(Debug, Clone, Copy)]
enum Whom {
    Device(usize),
    Anyone,
    Ticket(u8),
    Person,
}

#[derive(Debug, Clone)]
enum Act {
    Nothing,
    /// Writes that replace what they replace, in the writer's past or not.
    Cells(Vec<Op>),
    Counts(Vec<(u8, Counted)>),
    Grants(Vec<(Whom, Role, u32)>),
    /// Ends grants: with all that is in the past, or with places of entries that are listed.
    Revokes(Vec<(Index, Option<Vec<Index>>)>),
    /// Gives the own grant up.
    Resigns,
    /// With this ticket's key, for the right log or for another one.
    Redeem {
        ticket: u8,
        right: bool,
        twice: bool,
    },
    /// With what some entries of the person's database and all below them tell, one of them left out, a byte of them changed, or the
    /// signatures of parents.
    Embeds {
        tips: Vec<Index>,
        spoilt: Option<(Index, u8)>,
        /// To each device what may be granted to it.
        right: bool,
        grants: Vec<(usize, Role, u32)>,
    },
}

#[derive(Debug, Clone)]
struct Step {
    device: usize,
    epoch: u64,
    /// How far below its log's tip it goes on: anything but 0 forks the log.
    back: usize,
    parents: Vec<Index>,
    /// Which of all grants ever made is used; often one that fits.
    grant: Index,
    fits: bool,
    act: Act,
    lie: i64,
}

const DEVICES: usize = 4;

/// How often steps do what.
#[derive(Debug, Clone, Copy)]
struct Mix {
    values: u32,
    rights: u32,
    tickets: u32,
    people: u32,
}

const USUAL: Mix = Mix { values: 6, rights: 4, tickets: 3, people: 0 };
/// What becomes of a person's devices.
const DEVICES_OF: Mix = Mix { values: 0, rights: 8, tickets: 1, people: 0 };
const PEOPLE: Mix = Mix { values: 6, rights: 1, tickets: 1, people: 10 };

fn arb_act(mix: Mix) -> impl Strategy<Value = Act> {
    let whom = prop_oneof![
        3 => (0..DEVICES).prop_map(Whom::Device),
        1 => Just(Whom::Anyone),
        mix.tickets.min(2) => (0u8..2).prop_map(Whom::Ticket),
        mix.people / 4 => Just(Whom::Person),
    ];
    let role = prop_oneof![Just(Role::Read), Just(Role::Write), Just(Role::Admin)];
    let grants = prop::collection::vec((whom, role.clone(), 0u32..3), 1..4);
    let cut = prop::option::of(prop::collection::vec(any::<Index>(), 0..4));
    let embeds = (
        prop::collection::vec(any::<Index>(), 0..3),
        prop::option::weighted(0.05, (any::<Index>(), 0u8..10)),
        prop::bool::weighted(0.7),
        prop::collection::vec((0..DEVICES, role, 0u32..3), 0..3),
    );
    prop_oneof![
        1 => Just(Act::Nothing),
        mix.values => prop::collection::vec(arb_op(), 1..4).prop_map(Act::Cells),
        mix.values / 3 => prop::collection::vec((0u8..2, arb_counted()), 1..3).prop_map(Act::Counts),
        mix.rights => grants.prop_map(Act::Grants),
        mix.rights => prop::collection::vec((any::<Index>(), cut), 1..3).prop_map(Act::Revokes),
        mix.rights.min(2) => Just(Act::Resigns),
        mix.tickets => (0u8..2, prop::bool::weighted(0.8), prop::bool::weighted(0.1))
            .prop_map(|(ticket, right, twice)| Act::Redeem { ticket, right, twice }),
        mix.people => embeds
            .prop_map(|(tips, spoilt, right, grants)| Act::Embeds { tips, spoilt, right, grants }),
    ]
}

fn arb_step(mix: Mix) -> impl Strategy<Value = Step> {
    (
        0..DEVICES,
        0u64..2,
        prop_oneof![8 => Just(0usize), 1 => 1usize..4],
        prop::collection::vec(any::<Index>(), 0..3),
        any::<Index>(),
        prop::bool::weighted(0.9),
        arb_act(mix),
        prop_oneof![30 => Just(0i64), 1 => -1i64..3],
    )
        .prop_map(|(device, epoch, back, parents, grant, fits, act, lie)| Step {
            device,
            epoch,
            back,
            parents,
            grant,
            fits,
            act,
            lie,
        })
}

fn ticket(n: u8) -> DeviceKey {
    DeviceKey::from_seed(&[200 + n; 32])
}

fn goes_on(run: &[Entry], entry: &Entry) -> bool {
    let last = &run[run.len() - 1];
    let first = last.header().salt.is_some();
    !first && entry.header().prev == Some(last.id()) && entry.header().grant == last.header().grant
}

/// The evidence that entries of `person` and all below them are.
fn evidence(person: &World, tips: &[Index], spoilt: Option<(Index, u8)>) -> Vec<u8> {
    let all = person.by_id();
    let mut open: Vec<EntryId> = tips.iter().map(|at| at.get(&person.entries).id()).collect();
    open.push(person.entries[0].id());
    let mut held: BTreeSet<EntryId> = BTreeSet::new();
    while let Some(id) = open.pop() {
        if held.insert(id) {
            open.extend(anabranch_reference::below(all[&id]));
            let ops = anabranch_core::ops::members_of(all[&id]).map(|d| d.ops).unwrap_or_default();
            for op in ops.into_iter().flatten() {
                if let MemberOp::Revoke { cut: Cut::Tips(tips), .. } = op {
                    open.extend(tips.iter().map(|tip| tip.position.id));
                }
            }
        }
    }
    let mut runs: Vec<_> = person.entries.iter().filter(|e| held.contains(&e.id())).collect();
    if let Some((at, 0)) = spoilt {
        runs.remove(at.index(runs.len()));
    }
    // Where entries of a log follow each other, they are one run as often as not.
    let long = tips.len() % 2 == 1;
    let mut whole: Vec<Vec<Entry>> = Vec::new();
    for entry in runs {
        match whole.last_mut() {
            Some(run) if long && goes_on(run, entry) => run.push(entry.clone()),
            _ => whole.push(vec![entry.clone()]),
        }
    }
    let mut w = Writer::new();
    w.array(whole.len());
    for entries in whole {
        let parents = entries.iter().flat_map(|e| &e.header().parents);
        let signatures = parents.map(|parent| match spoilt {
            Some((_, 9)) => anabranch_core::key::Signature([5; 64]),
            _ => person.sign(parent),
        });
        let signatures = signatures.collect();
        let head = person.sign(&entries[entries.len() - 1].position());
        Run::new(person.database, entries, head, signatures).encode(&mut w);
    }
    let mut bytes = w.finish();
    if let Some((at, by @ 1..9)) = spoilt {
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << (by - 1);
    }
    bytes
}

/// Every grant that entries of the world make, and for whom.
fn grants(world: &World) -> Vec<(GrantRef, Subject)> {
    let mut list = Vec::new();
    for entry in &world.entries {
        let ops = anabranch_core::ops::members_of(entry).map(|d| d.ops).unwrap_or_default();
        for (index, op) in ops.into_iter().enumerate() {
            let subject = match op {
                Some(MemberOp::Grant { subject, .. }) => subject,
                Some(MemberOp::Redeem { .. }) => Subject::Device(entry.header().log.device),
                Some(MemberOp::Revoke { .. } | MemberOp::Embed { .. }) | None => continue,
            };
            list.push((GrantRef { entry: entry.id(), index: index as u32 }, subject));
        }
    }
    list
}

/// Makes the entry a step asks for, on top of good entries only.
fn entry(world: &World, person: &World, written: &Written, step: &Step) -> Entry {
    let epoch = step.epoch + 2;
    let log = world.log(step.device, epoch);
    let tip = world.entries.iter().rposition(|e| e.header().log == log);
    let prev = tip.and_then(|tip| {
        let line = world.line(tip);
        let at = line.len().checked_sub(1 + step.back.min(line.len() - 1))?;
        world.entries.iter().position(|e| e.id() == line[at].id())
    });
    let mut spec = world.spec(step.device, epoch, prev);
    let parents = step.parents.iter().map(|p| p.index(world.entries.len()));
    spec.parents.extend(parents.filter(|&p| world.entries[p].header().log != log));
    spec.lie = step.lie;
    let all = grants(world);
    let wanted = match step.act {
        Act::Redeem { ticket: n, .. } => Subject::Ticket(ticket(n).node_id()),
        Act::Embeds { .. } => Subject::Person(person.database),
        _ => Subject::Device(log.device),
    };
    let fitting: Vec<_> =
        all.iter().filter(|(_, s)| *s == wanted || *s == Subject::Anyone).collect();
    spec.grant = if step.fits && !fitting.is_empty() {
        step.grant.get(&fitting).0
    } else {
        step.grant.get(&all).0
    };
    match &step.act {
        Act::Nothing => {}
        Act::Cells(ops) => {
            for which in [true, false] {
                let ops: Vec<RawOp> = ops
                    .iter()
                    .filter(|op| op.store == which)
                    .map(|op| convergence::raw(world, written, op))
                    .collect();
                if !ops.is_empty() {
                    spec.payloads.push((convergence::store(which), payload(&log, &ops)));
                }
            }
            spec.payloads.sort_by(|a, b| a.0.cmp(&b.0));
        }
        Act::Counts(list) => {
            let raw: Vec<_> = list.iter().map(convergence::raw_count).collect();
            spec.payloads.push((StoreId::counter("t"), counts(&raw)));
        }
        Act::Grants(list) => {
            let subject = |whom: &Whom| match *whom {
                Whom::Device(n) => Subject::Device(world.keys[n].node_id()),
                Whom::Anyone => Subject::Anyone,
                Whom::Ticket(n) => Subject::Ticket(ticket(n).node_id()),
                Whom::Person => Subject::Person(person.database),
            };
            let ops = list.iter().map(|(whom, role, rank)| grant(subject(whom), *role, *rank));
            spec.payloads.push(members(&ops.collect::<Vec<_>>()));
        }
        Act::Revokes(list) => {
            let head = |at: &Index| {
                let position = at.get(&world.entries).position();
                Head { position, signature: world.sign(&position) }
            };
            let ops = list.iter().map(|(target, cut)| MemberOp::Revoke {
                grant: target.get(&all).0,
                cut: cut
                    .as_ref()
                    .map_or(Cut::Past, |tips| Cut::Tips(tips.iter().map(head).collect())),
            });
            spec.payloads.push(members(&ops.collect::<Vec<_>>()));
        }
        Act::Resigns => {
            let op = MemberOp::Revoke { grant: spec.grant, cut: Cut::Past };
            spec.payloads.push(members(&[op]));
        }
        Act::Redeem { ticket: n, right, twice } => {
            let mut signed = log;
            signed.epoch += u64::from(!right);
            let op = MemberOp::redeem(&ticket(*n), &world.database, &spec.grant, &signed);
            spec.payloads.push(members(&vec![op; 1 + usize::from(*twice)]));
        }
        Act::Embeds { tips, spoilt, right, grants } => {
            let bytes = evidence(person, tips, *spoilt);
            let shown = Evidence::decode(person.database, &bytes);
            let mut ops = vec![MemberOp::Embed { evidence: bytes }];
            let given = all.iter().find(|(grant, _)| *grant == spec.grant);
            let most = world.entries.iter().find(|e| e.id() == spec.grant.entry).and_then(|e| {
                let ops = anabranch_core::ops::members_of(e)?.ops;
                match ops.into_iter().nth(spec.grant.index as usize)?? {
                    MemberOp::Grant { role, priority, .. } => Some((role, priority)),
                    _ => None,
                }
            });
            if let (true, Ok(shown), Some((most, priority)), Some(_)) = (*right, shown, most, given)
            {
                let device = |(device, role): (&NodeId, &Role)| {
                    grant(Subject::Device(*device), (*role).min(most), priority)
                };
                ops.extend(shown.devices().iter().map(device));
            } else {
                ops.extend(grants.iter().map(|(device, role, rank)| {
                    grant(Subject::Device(world.keys[*device].node_id()), *role, *rank)
                }));
            }
            spec.payloads.push(members(&ops));
        }
    }
    world.make(spec)
}

/// Notes the values that a good entry wrote, for later ones to name.
fn note(written: &mut Written, step: &Step, entry: &Entry) {
    let Act::Cells(ops) = &step.act else { return };
    for which in [true, false] {
        for (index, op) in ops.iter().filter(|op| op.store == which).enumerate() {
            if let convergence::What::Put = op.what {
                let name = ValueName::of(&entry.position(), index as u32);
                written.push((which, op.path, name));
            }
        }
    }
}

fn fault(refusal: &Refusal) -> Fault {
    match refusal {
        Refusal::OwnParent { .. } => Fault::OwnParent,
        Refusal::Generation { .. } => Fault::Generation,
        Refusal::Grant { .. } => Fault::Grant,
        Refusal::NotPermitted { .. } => Fault::NotPermitted,
        Refusal::Priority { .. } => Fault::Priority,
        Refusal::Depth { .. } => Fault::Depth,
        Refusal::Evidence { .. } => Fault::Evidence,
        Refusal::Target { .. } => Fault::Target,
        Refusal::Rank { .. } => Fault::Rank,
        Refusal::Revoked { .. } => Fault::Revoked,
        other => panic!("{other}"),
    }
}

/// Hands all of `world` to new replicas in each of these orders; what they must agree on.
fn all_orders(world: &World, orders: &[&[usize]]) -> Vec<([u8; 32], Option<[u8; 32]>)> {
    let held = |order: &&[usize]| {
        let replica = Replica::empty(world.database);
        for tip in *order {
            replica.admit_one(&world.run(*tip, 1).verify().unwrap()).unwrap();
            consistent(&replica).unwrap();
        }
        replica.digests()
    };
    orders.iter().map(held).collect()
}

/// Two logs of a device give the same grant up, neither having seen the other, and then an admin leaves nothing of its use:
/// no value changes, but what is exchanged does.
#[test]
fn resignations_that_cease_to_count_are_not_exchanged() {
    let mut world = World::new(2);
    let resigns = |world: &World| {
        let op = MemberOp::Revoke { grant: world.grant(1), cut: Cut::Past };
        vec![members(&[op])]
    };
    let mut tips = Vec::new();
    for epoch in [2, 3] {
        let first = world.add(world.spec(1, epoch, None));
        let mut spec = world.spec(1, epoch, Some(first));
        spec.payloads = resigns(&world);
        tips.push((first, world.add(spec)));
    }
    let mut spec = world.spec(0, 1, None);
    let op = MemberOp::Revoke { grant: world.grant(1), cut: Cut::Tips(Vec::new()) };
    spec.payloads = vec![members(&[op])];
    let revoked = world.add(spec);
    let [(a1, r1), (b1, r2)] = tips[..] else { panic!() };
    let digests = all_orders(
        &world,
        &[
            &[0, a1, r1, b1, r2, revoked],
            &[0, revoked, a1, r1, b1, r2],
            &[0, b1, r2, revoked, a1, r1],
        ],
    );
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
}

/// The signature in a cut is part of what is signed, so it is right or wrong for everybody, whatever heads he knows.
#[test]
fn a_forged_place_in_a_cut_is_refused_whatever_is_known() {
    let mut world = World::new(2);
    let first = world.add(world.spec(1, 2, None));
    let second = world.add(world.spec(1, 2, Some(first)));
    let position = world.entries[first].position();
    let revoke = |signature| MemberOp::Revoke {
        grant: world.grant(1),
        cut: Cut::Tips(vec![Head { position, signature }]),
    };
    let forged = revoke(anabranch_core::key::Signature([5; 64]));
    let right = revoke(world.sign(&position));
    for (op, admitted) in [(forged, false), (right, true)] {
        let mut spec = world.spec(0, 1, None);
        spec.payloads = vec![members(&[op])];
        let run = world.run_of(vec![world.make(spec)]).verify().unwrap();
        for runs in [[(first, 1), (second, 1)], [(second, 2), (second, 2)]] {
            let replica = Replica::empty(world.database);
            replica.admit_one(&world.run(0, 1).verify().unwrap()).unwrap();
            for (tip, count) in runs {
                replica.admit_one(&world.run(tip, count).verify().unwrap()).unwrap();
            }
            let found = replica.admit_one(&run);
            let refused = matches!(found, Err(Error::Refused(Refusal::CutNotHead(_))));
            assert_eq!((found.is_ok(), refused), (admitted, !admitted));
        }
    }
    // A place of the very run that lists it is a head from then on.
    let own = world.add(world.spec(0, 1, None));
    let mut spec = world.spec(0, 1, Some(own));
    let position = world.entries[own].position();
    let tip = Head { position, signature: world.sign(&position) };
    let op = MemberOp::Revoke { grant: world.grant(1), cut: Cut::Tips(vec![tip]) };
    spec.payloads = vec![members(&[op])];
    let revoked = world.add(spec);
    let (whole, parts) = (Replica::empty(world.database), Replica::empty(world.database));
    for replica in [&whole, &parts] {
        replica.admit_one(&world.run(0, 1).verify().unwrap()).unwrap();
    }
    whole.admit_one(&world.run(revoked, 2).verify().unwrap()).unwrap();
    for tip in [own, revoked] {
        parts.admit_one(&world.run(tip, 1).verify().unwrap()).unwrap();
    }
    assert_eq!(whole.digests(), parts.digests());
    let fresh = Replica::empty(world.database);
    assert_eq!(whole.update(&fresh, usize::MAX), 3, "it is sent in runs that end there");
    assert_eq!(fresh.digests(), parts.digests());
}

/// What one replica holds brings another as far, if that may have it: what does not count stays where it is.
fn brings_level(from: &Replica, to: &Replica) -> Result<(), TestCaseError> {
    // What one has and does not need, it may be sent again, but not for ever.
    for _ in 0..8 {
        from.update(to, usize::MAX);
        to.update(from, usize::MAX);
    }
    prop_assert_eq!(from.digests(), to.digests());
    prop_assert_eq!((from.update(to, usize::MAX), to.update(from, usize::MAX)), (0, 0));
    prop_assert!(from.state() == to.state());
    Ok(())
}

/// Makes an entry of each step that may be made, and hands it to `replica`; what was refused.
fn grow(
    world: &mut World,
    person: &World,
    replica: &Replica,
    steps: &[Step],
) -> Result<Vec<VerifiedRun>, TestCaseError> {
    let (mut bad, mut written) = (Vec::new(), Written::new());
    for step in steps {
        let entry = entry(world, person, &written, step);
        let mut all: BTreeMap<EntryId, &Entry> = world.by_id();
        all.insert(entry.id(), &entry);
        let expected = judge(&all, &world.database, &entry);
        let before = replica.digests();
        let run = world.run_of(vec![entry.clone()]).verify().unwrap();
        match replica.admit_one(&run) {
            Ok(()) => {
                prop_assert_eq!(expected, Ok(()));
                note(&mut written, step, &entry);
                world.insert(entry);
                consistent(replica)?;
            }
            Err(Error::Refused(refusal)) => {
                prop_assert_eq!(expected, Err(fault(&refusal)), "{}", refusal);
                prop_assert_eq!(replica.digests(), before);
                bad.push(run);
            }
            Err(e) => return Err(TestCaseError::fail(e.to_string())),
        }
    }
    Ok(bad)
}

type Delivery = Vec<(Index, usize, usize)>;

/// A world in which nothing happened yet, founded by one of the devices that all worlds have.
fn world_of(founder: usize, more: &[MemberOp]) -> World {
    let mut keys: Vec<DeviceKey> =
        (1..=DEVICES as u8).map(|n| DeviceKey::from_seed(&[n; 32])).collect();
    keys.swap(0, founder);
    let mut ops = vec![grant(Subject::Device(keys[0].node_id()), Role::Admin, 0)];
    ops.extend(more.iter().cloned());
    World::founded(keys, &ops)
}

/// Replica and reference agree on every entry, and on what all of them amount to, in these orders and others.
fn agree(
    (mut world, person): (World, &World),
    steps: &[Step],
    (order, other_order): (&Delivery, &Delivery),
    some: &[Index],
) -> Result<(), TestCaseError> {
    let replica = Replica::empty(world.database);
    replica.admit(&[world.run(0, 1).verify().unwrap()]).unwrap();
    let bad = grow(&mut world, person, &replica, steps)?;
    // The verdict is the same for whoever hears of everything in another order, long after.
    let (other, mut stages) = (Replica::empty(world.database), Vec::new());
    deliver(&world, &other, order, |replica| {
        stages.push(replica.copy());
        consistent(replica)
    })?;
    prop_assert_eq!(other.digests(), replica.digests());
    for run in &bad {
        let refused = matches!(other.admit_one(run), Err(Error::Refused(r)) if !r.is_gap());
        prop_assert!(refused);
    }
    // And so is what each device may do now.
    for key in &world.keys {
        let now = |r: &Replica| r.view(|v| v.role_of(&key.node_id()).unwrap());
        let meant = role(&world.by_id(), &key.node_id());
        prop_assert_eq!((now(&other), now(&replica)), (meant, meant));
    }
    // Cells may come later, in stretches with more arriving in between.
    let bulk = Replica { load: Load::Bulk, ..Replica::empty(world.database) };
    let budget = build::Budget { bytes: 600, threads: 1 };
    deliver(&world, &bulk, other_order, |replica| {
        build::step(&*replica.storage, budget).unwrap();
        if replica.view(|v| v.building().unwrap()).is_none() {
            consistent(replica)?;
        }
        Ok(())
    })?;
    build::finish(&*bulk.storage, budget).unwrap();
    consistent(&bulk)?;
    prop_assert_eq!(bulk.digests(), replica.digests());
    // What is exchanged is what counts and what that builds on; it is enough.
    let all = world.by_id();
    let fresh = Replica::empty(world.database);
    let mut out = replica.view(|v| Outgoing::new(v, &Frontier::default()).unwrap());
    while let Some(run) = replica.view(|v| out.next(v, Withhold::NOTHING).unwrap()) {
        let (_, waiting) = fresh.admit(&[run.verify().unwrap()]).unwrap();
        prop_assert_eq!(waiting, []);
    }
    prop_assert_eq!(fresh.digests(), replica.digests());
    let held: BTreeMap<EntryId, Entry> = fresh.entries().into_iter().map(|e| (e.id(), e)).collect();
    for id in needed(&all).keys() {
        prop_assert!(held.contains_key(id));
    }
    let tx = anabranch_core::storage::Storage::read(&*fresh.storage).unwrap();
    verify(&*tx, &MemoryStorage::new(), &mut |_| {}).unwrap();
    // Whoever stood anywhere on the way is brought up to date by whoever has everything, or something else.
    for (n, stage) in stages.iter().enumerate() {
        if let Some(with) = some.get(n) {
            brings_level(stage, &stages[with.index(stages.len())].copy())?;
        }
        brings_level(&replica, stage)?;
        prop_assert!(stage.state() == fold(&world.entries));
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(128))]

    #[test]
    fn replica_and_reference_agree_on_who_may(
        steps in prop::collection::vec(arb_step(USUAL), 1..32),
        order in arb_order(),
        other_order in arb_order(),
        some in prop::collection::vec(any::<Index>(), 0..3),
    ) {
        let nobody = world_of(1, &[]);
        agree((world_of(0, &[]), &nobody), &steps, (&order, &other_order), &some)?;
    }

    /// The same where rights are a person's, whose devices have a history of their own.
    #[test]
    fn replica_and_reference_agree_on_people(
        devices in prop::collection::vec(arb_step(DEVICES_OF), 1..24),
        steps in prop::collection::vec(arb_step(PEOPLE), 1..32),
        given in prop::collection::vec((prop_oneof![Just(Role::Relay), Just(Role::Write), Just(Role::Admin)], 0u32..2), 1..3),
        order in arb_order(),
        other_order in arb_order(),
        some in prop::collection::vec(any::<Index>(), 0..3),
    ) {
        let mut person = world_of(1, &[]);
        let nobody = person.clone();
        let replica = Replica::empty(person.database);
        replica.admit(&[person.run(0, 1).verify().unwrap()]).unwrap();
        grow(&mut person, &nobody, &replica, &devices)?;
        let given: Vec<MemberOp> = given
            .iter()
            .map(|(role, rank)| grant(Subject::Person(person.database), *role, *rank))
            .collect();
        agree((world_of(0, &given), &person), &steps, (&order, &other_order), &some)?;
    }
}
