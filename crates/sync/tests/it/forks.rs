//! Forked logs: both sides get each other's branches, and little that they have.

use crate::harness::{Node, Run, join, sync};
use crate::rogue::{OPEN, Rogue};
use anabranch_core::id::{DatabaseId, EntryId, LogId, Position};
use anabranch_core::ops::Role;
use anabranch_sync::channel::Direction;
use anabranch_sync::frame::{Code, Frame};
use anabranch_sync::pending::Pending;
use std::sync::Mutex;

/// Writes many entries in one transaction.
fn grow(node: &mut Node, name: &str, count: usize) {
    node.with(|ledger, author| {
        for n in 0..count {
            let draft = crate::harness::draft(&[(&format!("{name} {}", n % 50), "v")]);
            ledger.commit(author, &draft).unwrap();
        }
    });
}

/// A host, and a device whose state directory was copied after `common` entries; the copies then went their own ways.
fn forked(common: usize, first: usize, second: usize) -> (Node, Node, Node, DatabaseId) {
    let mut host = Node::new(1);
    let database = host.create();
    let mut a = join(&mut host, 2, database, Role::Write);
    grow(&mut a, "common", common);
    let mut b = a.copy();
    b.epoch += 1 << 40;
    grow(&mut a, "a", first);
    grow(&mut b, "b", second);
    (host, a, b, database)
}

/// Both get the other's branch; returns how many entries were sent although they were held.
fn meet(a: &Node, b: &Node, database: DatabaseId) -> u64 {
    let outcome = sync(a, b, database);
    assert!(outcome.settled, "{outcome:?}");
    assert_eq!(a.frontier(), b.frontier());
    assert_eq!(a.digest(), b.digest());
    outcome.sent - outcome.new.iter().sum::<u64>()
}

#[test]
fn deep_forks_cost_little_more_than_what_differs() {
    for (common, first, second) in [
        (9_990, 10, 10),
        (1_000, 1_000, 3),
        (1_000, 3, 1_000),
        (10, 300, 300),
        (1, 300, 1),
        (700, 400, 200),
    ] {
        let (_, a, b, database) = forked(common, first, second);
        let duplicates = meet(&a, &b, database);
        let differs = (first + second) as u64;
        assert!(duplicates <= differs, "{common} {first} {second}: {duplicates} sent for nothing");
    }
}

#[test]
fn one_way_is_done_when_the_other_branch_is_there() {
    for (hears_first, here, there) in [(0, 40, 10), (1, 40, 10), (0, 10, 40), (1, 10, 40)] {
        let one_way = |direction| {
            let (_, a, b, database) = forked(20, here, there);
            let mut run = Run::cut(&a, &b, database, direction, None, 0);
            run.hears_first = hears_first;
            run.pump();
            let done = run.outcome.done.unwrap();
            assert_eq!(done, [a.frontier(), b.frontier()], "it left before everything had come");
            run.outcome.new
        };
        assert_eq!(one_way(Direction::PULL), [there as u64, 0]);
        assert_eq!(one_way(Direction::PUSH), [0, here as u64]);
    }
}

/// Two who hold branches of one log, and much that builds on both at the second, with room for nothing that comes early.
fn intertwined() -> ([Node; 2], DatabaseId) {
    let (mut host, a, mut b, database) = forked(20, 40, 0);
    let mut other = join(&mut host, 3, database, Role::Write);
    b.put("b", "1");
    for round in 0..3 {
        b.put("b", &format!("{round}"));
        meet(&other, &b, database);
        other.put("other", &format!("{round}"));
        meet(&other, &b, database);
    }
    meet(&host, &other, database);
    host.put("host", "1");
    meet(&host, &b, database);
    ([a, host].map(|node| Node { pending: Mutex::new(Pending::new(0)), ..node }), database)
}

/// Comparing anew, the peer forgets where our branches part, and does not ask where ours is the longer one.
#[test]
fn one_way_is_done_when_what_was_dropped_has_come_after_all() {
    for (hears_first, direction) in
        [0, 1].into_iter().flat_map(|n| [(n, Direction::PULL), (n, Direction::PUSH)])
    {
        let ([a, host], database) = intertwined();
        let (here, there) = if direction == Direction::PULL { (&a, &host) } else { (&host, &a) };
        let mut run = Run::cut(here, there, database, direction, None, 0);
        run.hears_first = hears_first;
        run.pump();
        let left = [here.frontier(), there.frontier()];
        assert_eq!(run.outcome.done, Some(left), "{direction:?}: {:?}", run.outcome.closed);
        assert_eq!(a.values("host"), ["1"]);
    }
}

#[test]
fn several_branches_of_one_log_find_each_other() {
    let (host, mut a, mut b, database) = forked(1_000, 0, 0);
    let mut copies: Vec<Node> = (0..4u64)
        .map(|n| {
            let mut copy = a.copy();
            copy.epoch += (n + 2) << 40;
            copy
        })
        .collect();
    for (n, copy) in copies.iter_mut().enumerate() {
        grow(copy, &format!("copy {n}"), 20 + 10 * n);
    }
    grow(&mut a, "a", 15);
    grow(&mut b, "b", 5);
    for (x, y) in [(&a, &copies[0]), (&b, &copies[1]), (&copies[2], &copies[3])] {
        meet(x, y, database);
    }
    let mut duplicates = meet(&a, &b, database);
    duplicates += meet(&copies[2], &a, database);
    assert!(duplicates < 600, "{duplicates}");
    meet(&host, &copies[3], database);
    for copy in copies.iter().chain([&b]) {
        meet(copy, &a, database);
        meet(copy, &host, database);
        assert_eq!(copy.frontier(), a.frontier());
    }
    meet(&host, &a, database);
    assert_eq!(host.frontier(), a.frontier());
}

#[test]
fn a_log_forked_at_its_very_first_place() {
    let mut host = Node::new(1);
    let database = host.create();
    let template = join(&mut host, 2, database, Role::Write);
    let (mut a, mut b) = (template.copy(), template.copy());
    // The same new epoch drawn twice: as bad as a random source can be.
    a.instance = [70; 32];
    b.instance = [71; 32];
    a.epoch = 99;
    b.epoch = 99;
    a.put("a", "1");
    b.put("b", "2");
    a.put("a", "3");
    meet(&a, &b, database);
    meet(&host, &a, database);
    assert_eq!(host.frontier(), b.frontier());
    assert_eq!(host.values("a"), ["3"]);
    assert_eq!(host.values("b"), ["2"]);
}

#[test]
fn answers_that_nobody_asked_for_take_no_memory() {
    let (host, a, _, database) = forked(1, 0, 0);
    let mut rogue = Rogue::greet(&host, a.key.clone(), database);
    rogue.open(OPEN, None);
    let frontier = a.view(|v| v.frontier().unwrap());
    rogue.frontier(&frontier);
    // No credit is left, so nothing is taken up.
    let usual = format!("{:?}", rogue.session.channel(0)).len();
    for n in 0..2_000u64 {
        let log = LogId { device: a.key.node_id(), epoch: n };
        let held = Some(Position { log, seq: n, id: EntryId([7; 32]) });
        rogue.session.receive(&Frame::ForkPoint { channel: 0, log, held }.encode());
    }
    let now = format!("{:?}", rogue.session.channel(0)).len();
    assert!(now < usual + 1_000, "{usual} to {now}");
}

#[test]
fn a_peer_that_shows_forks_without_end_is_refused() {
    let (host, a, _, database) = forked(1, 0, 0);
    let mut rogue = Rogue::greet(&host, a.key.clone(), database);
    rogue.open(OPEN, None);
    let log = LogId { device: a.key.node_id(), epoch: 3 };
    let samples = vec![Position { log, seq: 3, id: EntryId([7; 32]) }; 70];
    let frame = Frame::Fork { channel: 0, samples }.encode();
    (0..2_000).for_each(|_| rogue.session.receive(&frame));
    rogue.pump();
    assert!(matches!(&rogue.closed[..], [(Code::Limit, _)]), "{:?}", rogue.closed);
}
