//! Runs and heads: whatever was merged, dropped or signed late, no run exceeds the limits, everything is sent before what
//! builds on it, and whoever stands at any earlier frontier can be brought up to date.

use crate::cases;
use crate::replica::{Device, Replica, sound, write};
use anabranch_core::author::Draft;
use anabranch_core::entry::Entry;
use anabranch_core::frontier::Frontier;
use anabranch_core::limits;
use anabranch_core::ops::{Cut, MemberOp, Role};
use anabranch_core::outgoing::{Outgoing, Withhold};
use anabranch_core::run::VerifiedRun;
use anabranch_core::storage::Storage;
use anabranch_core::verify::verify;
use anabranch_reference::fold;
use anabranch_store::MemoryStorage;
use proptest::prelude::*;

fn three() -> Vec<Device> {
    let mut admin = Device::found();
    let others = [admin.admit(2, Role::Write), admin.admit(3, Role::Write)];
    let mut devices = vec![admin];
    devices.extend(others);
    devices[0].meet(&devices[1]);
    devices
}

fn commit(device: &mut Device, key: &str, size: usize) {
    let draft = Draft { writes: vec![write(&[key], Some(&"x".repeat(size)))], ..Draft::default() };
    device.commit(&draft).unwrap();
}

#[derive(Debug, Clone)]
enum Step {
    /// A device writes entries of a size, one by one or as a group, and signs.
    Write { who: usize, size: usize, count: usize, group: bool },
    /// A device writes and signs only later.
    Unsigned { who: usize, size: usize },
    /// One takes so many runs from another.
    Send { from: usize, to: usize, runs: usize },
}

fn arb_size() -> impl Strategy<Value = usize> {
    prop_oneof![
        6 => 0usize..200,
        1 => 0usize..limits::ENTRY_BYTES - 512,
        1 => Just(limits::ENTRY_BYTES - 512),
    ]
}

fn arb_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0usize..3, arb_size(), prop_oneof![4 => 1usize..4, 1 => 60usize..100], any::<bool>())
            .prop_map(|(who, size, count, group)| {
                let count = if size > 1000 { count.min(3) } else { count };
                Step::Write { who, size, count, group }
            }),
        1 => (0usize..3, arb_size()).prop_map(|(who, size)| Step::Unsigned { who, size }),
        4 => (0usize..3, 0usize..3, prop_oneof![1usize..3, Just(usize::MAX)])
            .prop_map(|(from, to, runs)| Step::Send { from, to, runs }),
    ]
}

fn take(devices: &mut [Device], step: &Step) {
    match *step {
        Step::Write { who, size, count, group } => {
            for n in 0..count {
                commit(&mut devices[who], &format!("{}", n % 7), size);
                if !group {
                    devices[who].seal();
                }
            }
            devices[who].seal();
        }
        Step::Unsigned { who, size } => commit(&mut devices[who], "u", size),
        Step::Send { from, to, .. } if from == to => {}
        Step::Send { from, to, runs } => {
            devices[from].replica.update(&devices[to].replica, runs);
        }
    }
}

proptest! {
    #![proptest_config(cases(10))]

    #[test]
    fn anybody_at_any_earlier_frontier_is_brought_up_to_date(
        steps in prop::collection::vec(arb_step(), 1..20),
    ) {
        let mut devices = three();
        let mut stages = vec![Replica::empty(devices[0].replica.database)];
        for step in &steps {
            take(&mut devices, step);
            stages.extend(devices.iter().map(|d| d.replica.copy()));
        }
        devices.iter_mut().for_each(Device::seal);
        for (a, b) in [(0, 1), (1, 2), (2, 0), (0, 1)] {
            devices[a].meet(&devices[b]);
        }
        let digests = devices[0].replica.digests();
        let expected = fold(&devices[0].replica.entries());
        for device in &devices {
            prop_assert_eq!(device.replica.digests(), digests);
            prop_assert!(device.replica.state() == expected);
        }
        // Each has pruned heads of its own; all of them can serve anybody.
        let some = stages.len().div_ceil(12);
        for (n, stage) in stages.iter().step_by(some).enumerate() {
            devices[n % 3].replica.update(stage, usize::MAX);
            prop_assert_eq!(stage.digests(), digests);
        }
    }

    #[test]
    fn a_peer_followed_live_gets_everything_in_order(
        steps in prop::collection::vec(
            prop_oneof![2 => arb_step().prop_map(Some), 1 => Just(None)], 1..30),
    ) {
        let mut devices = three();
        let follower = Replica::empty(devices[0].replica.database);
        let mut out = devices[0].replica.view(|v| Outgoing::new(v, &Frontier::default())).unwrap();
        for step in &steps {
            match step {
                // Heads come and go between two runs.
                None => follow(&devices[0], &mut out, &follower, 1),
                Some(step) => take(&mut devices, step),
            }
        }
        follow(&devices[0], &mut out, &follower, usize::MAX);
        // Signing alone brings no new entry, and yet something to send.
        devices[0].seal();
        follow(&devices[0], &mut out, &follower, usize::MAX);
        prop_assert_eq!(follower.digests(), devices[0].replica.digests());
    }
}

fn follow(device: &Device, out: &mut Outgoing, follower: &Replica, runs: usize) {
    for _ in 0..runs {
        let run: Option<VerifiedRun> = device.replica.view(|v| {
            out.refresh(v).unwrap();
            out.next(v, Withhold::NOTHING).unwrap().map(sound)
        });
        let Some(run) = run else { break };
        let (new, waiting) = follower.admit(std::slice::from_ref(&run)).unwrap();
        assert_eq!(waiting, [], "a run came before what it builds on");
        assert_eq!(new, run.entries().len() as u64, "a run was sent twice");
    }
}

#[test]
fn a_peer_that_is_level_hears_of_what_was_signed_late() {
    let mut device = Device::found();
    let peer = Replica::empty(device.replica.database);
    device.replica.update(&peer, usize::MAX);
    commit(&mut device, "k", 1);
    // It was there when the two were compared, and nobody could be told of it.
    let mut out = device.replica.view(Outgoing::level).unwrap();
    let mut other =
        device.replica.view(|v| Outgoing::new(v, &peer.view(|v| v.frontier().unwrap())).unwrap());
    follow(&device, &mut out, &peer.copy(), usize::MAX);
    device.seal();
    for out in [&mut out, &mut other] {
        let peer = peer.copy();
        follow(&device, out, &peer, usize::MAX);
        assert_eq!(peer.digests(), device.replica.digests());
    }
}

#[test]
fn a_long_log_of_single_commits_travels_in_few_runs() {
    let mut device = Device::found();
    for n in 0..600 {
        commit(&mut device, &format!("{n}"), 10);
        device.seal();
    }
    let runs = device.replica.outgoing(&Replica::empty(device.replica.database));
    assert!(runs.len() <= 4, "{}", runs.len());
    assert!(runs.iter().all(|run| run.entries().len() <= limits::RUN_ENTRIES));
    // A replica that got them one by one keeps no more heads.
    let follower = Replica::empty(device.replica.database);
    device.replica.update(&follower, usize::MAX);
    for n in 0..300 {
        commit(&mut device, &format!("{n}"), 10);
        device.seal();
        device.replica.update(&follower, usize::MAX);
    }
    let runs = follower.outgoing(&Replica::empty(device.replica.database));
    assert!(runs.len() <= 6, "{}", runs.len());
}

#[test]
fn a_run_that_was_split_for_a_parent_grows_no_longer_than_runs_may() {
    let mut device = Device::found();
    let mut other = device.admit(2, Role::Write);
    commit(&mut device, "first", 1);
    device.meet(&other);
    let grow = |device: &mut Device, count: usize| {
        for n in 0..count {
            commit(device, &format!("{n}"), 1);
            device.seal();
        }
    };
    grow(&mut device, limits::RUN_ENTRIES - 10);
    // Of this place the head is gone here, and somebody builds on it.
    commit(&mut other, "other", 1);
    other.seal();
    other.replica.update(&device.replica, usize::MAX);
    grow(&mut device, limits::RUN_ENTRIES);
    let fresh = Replica::empty(device.replica.database);
    let runs = device.replica.outgoing(&fresh);
    assert!(runs.iter().all(|run| run.entries().len() <= limits::RUN_ENTRIES));
    device.replica.update(&fresh, usize::MAX);
    assert_eq!(fresh.digests(), device.replica.digests());
}

#[test]
fn a_fork_in_the_middle_of_an_unsigned_tail_is_sent_after_its_base() {
    let mut device = Device::found();
    for _ in 0..3 {
        commit(&mut device, "common", 1);
    }
    let mut clone = device.clone_to(device.instance);
    for _ in 0..3 {
        commit(&mut clone, "clone", 1);
    }
    let mut second = clone.clone_to(clone.instance);
    commit(&mut second, "second", 1);
    second.seal();
    commit(&mut device, "original", 1);
    device.seal();
    // The original's branch leaves below places that the clone has not signed; then its line grows by the second clone's.
    device.replica.update(&clone.replica, usize::MAX);
    clone.seal();
    second.replica.update(&clone.replica, usize::MAX);
    let fresh = Replica::empty(clone.replica.database);
    clone.replica.update(&fresh, usize::MAX);
    assert_eq!(fresh.digests(), clone.replica.digests());
    assert_eq!(fresh.state(), fold(&clone.replica.entries()));
}

#[test]
fn a_fork_that_left_an_unsigned_tail_waits_until_that_is_signed() {
    let mut device = Device::found();
    let fresh = Replica::empty(device.replica.database);
    device.instance = [8; 32];
    commit(&mut device, "common", 1);
    let mut clone = device.clone_to(device.instance);
    commit(&mut device, "here", 1);
    commit(&mut clone, "there", 1);
    clone.seal();
    clone.replica.update(&device.replica, usize::MAX);
    let mut out = device.replica.view(|v| Outgoing::new(v, &Frontier::default())).unwrap();
    follow(&device, &mut out, &fresh, usize::MAX);
    let storage = device.replica.storage.clone();
    let tx = storage.read().unwrap();
    let verified = verify(&*tx, &MemoryStorage::new(), &mut |_| {}).unwrap();
    assert_eq!(verified.unsigned, 3, "the tail and what left it");
    device.seal();
    follow(&device, &mut out, &fresh, usize::MAX);
    assert_eq!(fresh.digests(), device.replica.digests());
}

/// A log that forks at its second place, and one that begins twice: each is proven by headers alone.
#[test]
fn two_histories_of_a_log_are_proven() {
    use anabranch_core::equivocation::{Proof, ProofError};
    for begins_twice in [false, true] {
        let mut world = crate::world::World::new(2);
        let first = world.add(world.spec(1, 2, None));
        let prev = (!begins_twice).then_some(first);
        let mut tips = vec![first];
        for timestamp in [5, 6] {
            let mut spec = world.spec(1, 2, prev);
            spec.timestamp = timestamp;
            tips.push(world.add(spec));
        }
        let replica = crate::replica::Replica::empty(world.database);
        for tip in std::iter::once(0).chain(tips.clone()) {
            replica.admit_one(&world.run(tip, 1).verify().unwrap()).unwrap();
        }
        let log = world.entries[first].header().log;
        assert_eq!(replica.view(|v| v.forked_logs().unwrap()), [log].into());
        let proof = replica.view(|v| v.equivocation(&log).unwrap().unwrap());
        let bytes = proof.encode();
        let found = Proof::decode(&bytes).unwrap().verify().unwrap();
        assert_eq!((found.log, found.database), (log, world.database));
        assert_eq!(found.seq, if begins_twice { 1 } else { 2 });
        assert!(found.entries.iter().all(|id| world.entries.iter().any(|e| e.id() == *id)));
        // Nothing of it can be changed, and one history alone proves nothing.
        for at in 0..bytes.len() {
            let mut bent = bytes.clone();
            bent[at] ^= 1;
            let proven = Proof::decode(&bent).and_then(Proof::verify);
            assert!(proven.is_err() || proven == Ok(found), "byte {at}");
        }
        let honest = world.entries[0].header().log;
        assert!(replica.view(|v| v.equivocation(&honest).unwrap()).is_none());
        let none = Proof::decode(b"").and_then(Proof::verify);
        assert!(matches!(none, Err(ProofError::Decode(_))));
    }
}

/// Revokes what `device` may do, as of what `admin` holds.
fn revoke(admin: &mut Device, device: &Device) {
    let grant = admin.replica.view(|v| v.grant_of(&device.key.node_id()).unwrap()).unwrap();
    admin.grant(&[MemberOp::Revoke { grant: grant.id, cut: Cut::Past }]).unwrap();
    admin.seal();
}

fn withholding(devices: &[&Device]) -> Withhold {
    let devices = devices.iter().map(|device| device.key.node_id()).collect();
    Withhold { all: false, devices }
}

#[test]
fn what_is_above_a_cut_is_not_withheld_from_who_holds_what_is_below() {
    let [mut admin, mut writer, _] = <[Device; 3]>::try_from(three()).ok().unwrap();
    let peer = admin.replica.copy();
    let entries: Vec<Entry> =
        (0..2).map(|n| writer.put(vec![write(&[&n.to_string()], Some("v"))])).collect();
    admin.meet(&writer);
    revoke(&mut admin, &writer);
    writer.put(vec![write(&["late"], Some("v"))]);
    writer.replica.update(&admin.replica, usize::MAX);

    let frontier = peer.view(|v| v.frontier().unwrap());
    let mut out = admin.replica.view(|v| Outgoing::new(v, &frontier)).unwrap();
    let withhold = withholding(&[&writer]);
    let next = |out: &mut Outgoing| admin.replica.view(|v| out.next(v, &withhold)).unwrap();
    while next(&mut out).is_some() {}
    assert!(out.withholds(), "the first two entries count and are withheld");
    assert!(admin.replica.view(|v| out.note_held(v, &entries[1].position())).unwrap());
    assert!(!out.withholds(), "nobody needs the third one, so nobody brings it");
    assert!(!out.has_offers());
}

#[test]
fn what_was_withheld_and_cut_is_sent_when_something_that_counts_builds_on_it() {
    let [admin, mut writer, mut other] = <[Device; 3]>::try_from(three()).ok().unwrap();
    let peer = admin.replica.copy();
    admin.meet(&writer);
    admin.meet(&other);
    let frontier = peer.view(|v| v.frontier().unwrap());
    let first = writer.put(vec![write(&["first"], Some("v"))]);
    admin.meet(&writer);
    let before = admin.replica.copy();
    writer.put(vec![write(&["second"], Some("v"))]);
    other.meet(&writer);
    other.put(vec![write(&["third"], Some("v"))]);

    // The admin holds both entries of the writer when it hears that they were cut after the first.
    let mut elsewhere = Device { replica: before, ..admin.clone_to([9; 32]) };
    revoke(&mut elsewhere, &writer);
    writer.replica.update(&admin.replica, usize::MAX);
    let mut out = admin.replica.view(|v| Outgoing::new(v, &frontier)).unwrap();
    let withhold = withholding(&[&writer]);
    let follow_but = |admin: &Device, out: &mut Outgoing, withhold: &Withhold| {
        while let Some(run) = admin.replica.view(|v| {
            out.refresh(v).unwrap();
            out.next(v, withhold).unwrap().map(sound)
        }) {
            assert_eq!(peer.admit(&[run]).unwrap().1, [], "a run came before what it builds on");
        }
    };
    follow_but(&admin, &mut out, &withhold);
    assert!(out.withholds());
    // Somebody else brings the peer what counts.
    elsewhere.replica.update(&peer, usize::MAX);
    assert!(admin.replica.view(|v| out.note_held(v, &first.position())).unwrap());
    elsewhere.replica.update(&admin.replica, usize::MAX);
    follow_but(&admin, &mut out, &withhold);
    assert!(!out.withholds(), "nobody needs the second one");

    other.replica.update(&admin.replica, usize::MAX);
    follow_but(&admin, &mut out, Withhold::NOTHING);
    assert_eq!(peer.digests(), admin.replica.digests());
}
