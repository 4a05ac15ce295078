//! Who may, judged at random: whatever devices grant, redeem, use and claim, a replica and the reference agree on every
//! entry, in every order, and what was refused leaves nothing behind (I4).

use crate::cases;
use crate::replica::Replica;
use crate::world::{World, grant, members};
use anabranch_core::entry::{Entry, GrantRef};
use anabranch_core::error::{Error, Refusal};
use anabranch_core::id::EntryId;
use anabranch_core::key::DeviceKey;
use anabranch_core::ops::{MemberOp, Role, Subject};
use anabranch_reference::{Fault, judge};
use proptest::prelude::*;
use proptest::sample::Index;
use std::collections::BTreeMap;

/// Who is meant.
#[derive(Debug, Clone, Copy)]
enum Whom {
    Device(usize),
    Anyone,
    Ticket(u8),
}

#[derive(Debug, Clone)]
enum Act {
    Nothing,
    Cells,
    Grants(Vec<(Whom, Role, u32)>),
    /// With this ticket's key, for the right log or for another one.
    Redeem {
        ticket: u8,
        right: bool,
        twice: bool,
    },
}

#[derive(Debug, Clone)]
struct Step {
    device: usize,
    epoch: u64,
    parents: Vec<Index>,
    /// Which of all grants ever made is used; often one that fits.
    grant: Index,
    fits: bool,
    act: Act,
    lie: i64,
}

const DEVICES: usize = 4;

fn arb_act() -> impl Strategy<Value = Act> {
    let whom = prop_oneof![
        3 => (0..DEVICES).prop_map(Whom::Device),
        1 => Just(Whom::Anyone),
        2 => (0u8..2).prop_map(Whom::Ticket),
    ];
    let role = prop_oneof![Just(Role::Read), Just(Role::Write), Just(Role::Admin)];
    let grants = prop::collection::vec((whom, role, 0u32..3), 1..4);
    prop_oneof![
        1 => Just(Act::Nothing),
        2 => Just(Act::Cells),
        4 => grants.prop_map(Act::Grants),
        3 => (0u8..2, prop::bool::weighted(0.8), prop::bool::weighted(0.1))
            .prop_map(|(ticket, right, twice)| Act::Redeem { ticket, right, twice }),
    ]
}

fn arb_step() -> impl Strategy<Value = Step> {
    (
        0..DEVICES,
        0u64..2,
        prop::collection::vec(any::<Index>(), 0..3),
        any::<Index>(),
        prop::bool::weighted(0.8),
        arb_act(),
        prop_oneof![20 => Just(0i64), 1 => -1i64..3],
    )
        .prop_map(|(device, epoch, parents, grant, fits, act, lie)| Step {
            device,
            epoch,
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

/// Every grant that entries of the world make, and for whom.
fn grants(world: &World) -> Vec<(GrantRef, Subject)> {
    let mut list = Vec::new();
    for entry in &world.entries {
        let ops = anabranch_core::ops::members_of(entry).map(|d| d.ops).unwrap_or_default();
        for (index, op) in ops.into_iter().enumerate() {
            let subject = match op {
                Some(MemberOp::Grant { subject, .. }) => subject,
                Some(MemberOp::Redeem { .. }) => Subject::Device(entry.header().log.device),
                None => continue,
            };
            list.push((GrantRef { entry: entry.id(), index: index as u32 }, subject));
        }
    }
    list
}

/// Makes the entry a step asks for, on top of good entries only.
fn entry(world: &World, step: &Step) -> Entry {
    let epoch = step.epoch + 2;
    let log = world.log(step.device, epoch);
    let tip = world.entries.iter().rposition(|e| e.header().log == log);
    let mut spec = world.spec(step.device, epoch, tip);
    let parents = step.parents.iter().map(|p| p.index(world.entries.len()));
    spec.parents.extend(parents.filter(|&p| world.entries[p].header().log != log));
    spec.lie = step.lie;
    let all = grants(world);
    let wanted = match step.act {
        Act::Redeem { ticket: n, .. } => Subject::Ticket(ticket(n).node_id()),
        _ => Subject::Device(log.device),
    };
    let fitting: Vec<_> =
        all.iter().filter(|(_, s)| *s == wanted || *s == Subject::Anyone).collect();
    spec.grant = if step.fits && !fitting.is_empty() {
        step.grant.get(&fitting).0
    } else {
        step.grant.get(&all).0
    };
    let payload = match &step.act {
        Act::Nothing => None,
        Act::Cells => {
            Some((anabranch_core::entry::StoreId::table("t"), crate::world::payload(&log, &[])))
        }
        Act::Grants(list) => {
            let subject = |whom: &Whom| match *whom {
                Whom::Device(n) => Subject::Device(world.keys[n].node_id()),
                Whom::Anyone => Subject::Anyone,
                Whom::Ticket(n) => Subject::Ticket(ticket(n).node_id()),
            };
            let ops = list.iter().map(|(whom, role, rank)| grant(subject(whom), *role, *rank));
            Some(members(&ops.collect::<Vec<_>>()))
        }
        Act::Redeem { ticket: n, right, twice } => {
            let mut signed = log;
            signed.epoch += u64::from(!right);
            let op = MemberOp::redeem(&ticket(*n), &world.database, &spec.grant, &signed);
            Some(members(&vec![op; 1 + usize::from(*twice)]))
        }
    };
    spec.payloads.extend(payload);
    world.make(spec)
}

fn fault(refusal: &Refusal) -> Fault {
    match refusal {
        Refusal::OwnParent { .. } => Fault::OwnParent,
        Refusal::Generation { .. } => Fault::Generation,
        Refusal::Grant { .. } => Fault::Grant,
        Refusal::NotPermitted { .. } => Fault::NotPermitted,
        Refusal::Priority { .. } => Fault::Priority,
        other => panic!("{other}"),
    }
}

proptest! {
    #![proptest_config(cases(128))]

    #[test]
    fn replica_and_reference_agree_on_who_may(
        steps in prop::collection::vec(arb_step(), 1..24),
        order in prop::collection::vec(any::<Index>(), 24),
    ) {
        let mut world = World::new(1);
        world.keys.extend((1..DEVICES as u8).map(|n| DeviceKey::from_seed(&[50 + n; 32])));
        let replica = Replica::empty(world.database);
        replica.admit(&[world.run(0, 1).verify().unwrap()]).unwrap();
        let mut bad = Vec::new();
        for step in &steps {
            let entry = entry(&world, step);
            let mut all: BTreeMap<EntryId, &Entry> = world.by_id();
            all.insert(entry.id(), &entry);
            let expected = judge(&all, &world.database, &entry);
            let before = replica.digests();
            let run = world.run_of(vec![entry.clone()]).verify().unwrap();
            match replica.admit_one(&run) {
                Ok(()) => {
                    prop_assert_eq!(expected, Ok(()));
                    world.insert(entry);
                }
                Err(Error::Refused(refusal)) => {
                    prop_assert_eq!(expected, Err(fault(&refusal)), "{}", refusal);
                    prop_assert_eq!(replica.digests(), before);
                    bad.push(run);
                }
                Err(e) => return Err(TestCaseError::fail(e.to_string())),
            }
        }
        // The verdict is the same for whoever hears of everything in another order, long after.
        let other = Replica::empty(world.database);
        let mut runs: Vec<_> =
            (0..world.entries.len()).map(|n| world.run(n, 2).verify().unwrap()).collect();
        for (n, at) in order.iter().enumerate() {
            let len = runs.len();
            runs.swap(n % len, at.index(len));
        }
        while !runs.is_empty() {
            let (_, waiting) = other.admit(&runs).unwrap();
            prop_assert!(waiting.len() < runs.len());
            runs = waiting;
        }
        prop_assert_eq!(other.digests(), replica.digests());
        for run in &bad {
            let refused = matches!(other.admit_one(run), Err(Error::Refused(r)) if !r.is_gap());
            prop_assert!(refused);
        }
        // And so is what each device may do now.
        for key in &world.keys {
            let role = |r: &Replica| r.view(|v| v.role_of(&key.node_id()).unwrap());
            prop_assert_eq!(role(&other), role(&replica));
        }
    }
}
