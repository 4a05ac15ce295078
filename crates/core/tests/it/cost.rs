//! What must not grow: the work for one commit, one entry, one comparison or one run, however much is held already.

use crate::counting::Counting;
use crate::replica::{Device, Replica, write};
use crate::world::{Spec, World, grant, members};
use anabranch_core::admit::{Load, admit_all};
use anabranch_core::author::{Draft, Write};
use anabranch_core::entry::GrantRef;
use anabranch_core::frontier::Frontier;
use anabranch_core::ledger::Ledger;
use anabranch_core::ops::{MemberOp, Role, Subject};
use anabranch_core::outgoing::Outgoing;
use anabranch_core::run::VerifiedRun;
use anabranch_core::storage::{Durability, Storage};
use anabranch_core::view::View;

/// What one transaction of these runs asks of the storage.
fn admit(replica: &Replica, runs: &[VerifiedRun]) -> u64 {
    let counting = Counting::new(&*replica.storage);
    let mut tx = counting.write(Durability::Full).unwrap();
    let batch = admit_all(&mut *tx, runs, Load::AtOnce, None).unwrap();
    assert!(batch.waiting.is_empty());
    tx.commit().unwrap();
    counting.take()
}

/// What one commit with its signing asks of the storage.
fn commit(device: &mut Device, writes: Vec<Write>) -> u64 {
    let storage = device.replica.storage.clone();
    let counting = Counting::new(&*storage);
    let mut tx = counting.write(Durability::Full).unwrap();
    let mut ledger = Ledger::open(&mut *tx).unwrap();
    let author = device.author();
    ledger.commit(&author, &Draft { writes, ..Draft::default() }).unwrap();
    ledger.seal(&author).unwrap();
    ledger.finish().unwrap();
    tx.commit().unwrap();
    counting.take()
}

#[test]
fn a_commit_costs_the_same_whatever_is_there() {
    let mut device = Device::found();
    let mut costs = Vec::new();
    for n in 0..1_200 {
        let same = write(&["same"], Some("v"));
        let other = write(&[&format!("{n}")], Some("v"));
        costs.push(commit(&mut device, vec![same, other]));
    }
    let early = costs[50..150].iter().max().unwrap();
    let late = costs[1_000..].iter().max().unwrap();
    assert!(late <= &(early + 4), "{early} to {late}");
    assert!(*late < 50, "{late}");
}

#[test]
fn an_entry_costs_the_same_whatever_is_there() {
    let mut world = World::new(2);
    let replica = Replica::empty(world.database);
    admit(&replica, &[world.run(0, 1).verify().unwrap()]);
    let (mut tip, mut costs) = (None, Vec::new());
    for _ in 0..800 {
        let at = world.add(world.spec(1, 2, tip));
        tip = Some(at);
        costs.push(admit(&replica, &[world.run(at, 1).verify().unwrap()]));
    }
    let (early, late) = (costs[50..150].iter().max(), costs[600..].iter().max());
    assert!(late.unwrap() <= &(early.unwrap() + 4), "{early:?} to {late:?}");
}

/// The first entries of so many logs, one run each.
fn logs(count: u64) -> (World, Vec<VerifiedRun>) {
    let mut world = World::new(2);
    let runs = (0..count).map(|n| {
        let at = world.add(world.spec(1, 10 + n, None));
        world.run(at, 1).verify().unwrap()
    });
    let runs = runs.collect();
    (world, runs)
}

#[test]
fn many_logs_in_one_batch_cost_as_much_each_as_few() {
    let cost = |count: u64| {
        let (world, runs) = logs(count);
        let replica = Replica::empty(world.database);
        admit(&replica, &[world.run(0, 1).verify().unwrap()]);
        admit(&replica, &runs) / count
    };
    let (few, many) = (cost(10), cost(400));
    assert!(many <= few + 4, "{few} to {many} a log");
}

#[test]
fn comparing_with_a_peer_that_has_other_logs_costs_as_much_as_there_are() {
    let cost = |count: u64| {
        let (world, runs) = logs(count);
        let (ours, theirs) = (Replica::empty(world.database), Replica::empty(world.database));
        let genesis = world.run(0, 1).verify().unwrap();
        let (first, second) = runs.split_at(runs.len() / 2);
        for (replica, runs) in [(&ours, first), (&theirs, second)] {
            admit(replica, std::slice::from_ref(&genesis));
            admit(replica, runs);
        }
        let frontier = theirs.view(|v| v.frontier().unwrap());
        let counting = Counting::new(&*ours.storage);
        let tx = counting.read().unwrap();
        let mut out = Outgoing::new(View::new(&*tx), &frontier).unwrap();
        drop(tx);
        counting.take();
        // Nothing arrived: looking again is free, however much the peer has that is not here.
        let tx = counting.read().unwrap();
        (0..10).for_each(|_| out.refresh(View::new(&*tx)).unwrap());
        counting.take()
    };
    assert!(cost(400) <= cost(10), "{}", cost(400));
}

#[test]
fn looking_at_what_arrived_costs_a_few_look_ups_a_stretch() {
    let mut device = Device::found();
    let mut out = device.replica.view(|v| Outgoing::new(v, &Frontier::default())).unwrap();
    for n in 0..1_000 {
        device
            .commit(&Draft {
                writes: vec![write(&["k"], Some(&n.to_string()))],
                ..Draft::default()
            })
            .unwrap();
    }
    device.seal();
    let counting = Counting::new(&*device.replica.storage);
    let tx = counting.read().unwrap();
    out.refresh(View::new(&*tx)).unwrap();
    assert!(counting.take() < 60);
}

/// A device whose entries use two grants by turns, both made far below.
#[test]
fn changing_grants_all_the_time_costs_the_same_whatever_is_there() {
    let mut world = World::new(2);
    let more = grant(Subject::Device(world.keys[1].node_id()), Role::Write, 3);
    let mut spec = world.spec(0, 1, None);
    spec.payloads = vec![members(&[more])];
    let granted = world.add(spec);
    let other = GrantRef { entry: world.entries[granted].id(), index: 0 };
    let replica = Replica::empty(world.database);
    for tip in [0, granted] {
        admit(&replica, &[world.run(tip, 1).verify().unwrap()]);
    }
    let (mut tip, mut costs) = (None, Vec::new());
    for n in 0..400u64 {
        let mut spec = world.spec(1, 2, tip);
        if tip.is_none() {
            spec.parents = vec![granted];
        }
        spec.grant = if n % 2 == 0 { world.grant(1) } else { other };
        let at = world.add(spec);
        tip = Some(at);
        costs.push(admit(&replica, &[world.run(at, 1).verify().unwrap()]));
    }
    let (early, late) = (costs[20..60].iter().max(), costs[300..].iter().max());
    assert!(late.unwrap() <= &(early.unwrap() + 4), "{early:?} to {late:?}");
}

/// A device that joined long ago by a ticket starts one new log after the other.
#[test]
fn new_logs_on_an_old_grant_are_searched_for_once() {
    let mut world = World::new(1);
    let ticket = anabranch_core::key::DeviceKey::from_seed(&[9; 32]);
    world.keys.push(anabranch_core::key::DeviceKey::from_seed(&[8; 32]));
    let mut spec = world.spec(0, 1, None);
    spec.payloads = vec![members(&[grant(Subject::Ticket(ticket.node_id()), Role::Write, 0)])];
    let granted = world.add(spec);
    let ticket_grant = GrantRef { entry: world.entries[granted].id(), index: 0 };
    let log = world.log(1, 2);
    let op = MemberOp::redeem(&ticket, &world.database, &ticket_grant, &log);
    let redeemed = Spec {
        log,
        prev: None,
        parents: vec![granted],
        grant: ticket_grant,
        timestamp: 1,
        payloads: vec![members(&[op])],
        lie: 0,
    };
    let redeemed = world.add(redeemed);
    let own = GrantRef { entry: world.entries[redeemed].id(), index: 0 };
    // The admin takes note of it once and then writes for years.
    let mut spec = world.spec(0, 1, Some(granted));
    spec.parents = vec![redeemed];
    let mut tip = world.add(spec);
    for _ in 0..500 {
        tip = world.add(world.spec(0, 1, Some(tip)));
    }
    let replica = Replica::empty(world.database);
    for (tip, count) in
        [(0, 1), (granted, 1), (redeemed, 1), (tip - 301, 200), (tip - 101, 200), (tip, 101)]
    {
        admit(&replica, &[world.run(tip, count).verify().unwrap()]);
    }
    let mut costs = Vec::new();
    for epoch in 10..14 {
        let mut spec = world.spec(1, epoch, None);
        (spec.parents, spec.grant) = (vec![tip], own);
        let at = world.add(spec);
        costs.push(admit(&replica, &[world.run(at, 1).verify().unwrap()]));
    }
    assert!(costs[1..].iter().all(|cost| *cost < 60), "{costs:?}");
}

#[test]
fn a_stranger_makes_nobody_search() {
    let mut world = World::new(2);
    let mut tip = None;
    for _ in 0..200 {
        tip = Some(world.add(world.spec(1, 2, tip)));
    }
    let last = tip.unwrap();
    let late = world.add({
        let mut spec = world.spec(0, 1, None);
        spec.payloads = vec![members(&[grant(Subject::Anyone, Role::Read, 0)])];
        spec
    });
    let replica = Replica::empty(world.database);
    for (tip, count) in [(0, 1), (late, 1), (last, 200)] {
        admit(&replica, &[world.run(tip, count).verify().unwrap()]);
    }
    // A grant of nobody's, not in its past: told at once.
    world.keys.push(anabranch_core::key::DeviceKey::from_seed(&[99; 32]));
    let mut spec = world.spec(2, 5, None);
    spec.parents = vec![last];
    spec.grant = GrantRef { entry: world.entries[late].id(), index: 0 };
    let run = world.run_of(vec![world.make(spec)]).verify().unwrap();
    let counting = Counting::new(&*replica.storage);
    let mut tx = counting.write(Durability::Full).unwrap();
    assert!(admit_all(&mut *tx, &[run], Load::AtOnce, None).is_err());
    assert!(counting.take() < 40);
}

#[test]
fn clearing_more_than_an_entry_may_name_is_refused_before_it_is_all_read() {
    let mut device = Device::found();
    for n in 0..60 {
        let writes =
            (0..100).map(|m| write(&["d", &format!("{n:04} {m:03} long enough")], Some("")));
        device.put(writes.collect());
    }
    let storage = device.replica.storage.clone();
    let counting = Counting::new(&*storage);
    let mut tx = counting.write(Durability::Full).unwrap();
    let mut ledger = Ledger::open(&mut *tx).unwrap();
    let clear = Write { below: true, ..write(&["d"], None) };
    let refused =
        ledger.commit(&device.author(), &Draft { writes: vec![clear], ..Draft::default() });
    assert!(matches!(refused, Err(anabranch_core::error::Error::Decode(_))), "{refused:?}");
    assert!(counting.take() < 5_000);
}
