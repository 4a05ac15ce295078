//! Links that stay open: what is committed reaches every peer, over several nodes, in any order, without going in
//! circles; and runs that came too early are not lost (I3).

use crate::cases;
use crate::harness::{Node, Run, draft, join};
use crate::net::Net;
use crate::rogue::{OPEN, Rogue};
use anabranch_core::frontier::Frontier;
use anabranch_core::id::{DatabaseId, LogId};
use anabranch_core::ops::Role;
use anabranch_core::outgoing::{Outgoing, Withhold};
use anabranch_core::run::{Run as Entries, VerifiedRun};
use anabranch_sync::channel::{Channel, Direction};
use anabranch_sync::pending::Pending;
use proptest::prelude::*;
use std::sync::Mutex;

fn three() -> (Vec<Node>, DatabaseId) {
    let mut a = Node::new(1);
    let database = a.create();
    let b = join(&mut a, 2, database, Role::Write);
    let c = join(&mut a, 3, database, Role::Write);
    assert!(crate::harness::sync(&b, &a, database).settled);
    (vec![a, b, c], database)
}

fn write(net: &mut Net, node: usize, key: &str, value: &str) {
    net.nodes[node].put(key, value);
    net.changed(node);
}

fn level(net: &Net) {
    for line in &net.lines {
        assert_eq!(line.closed, []);
        for end in &line.ends {
            assert!(end.channel().is_some_and(Channel::is_settled), "{:#?}", end.channel());
        }
    }
    for node in &net.nodes {
        assert_eq!(node.frontier(), net.nodes[0].frontier());
        assert_eq!(node.digest(), net.nodes[0].digest());
    }
}

#[test]
fn commits_go_both_ways_at_once_and_stop() {
    let (mut nodes, database) = three();
    nodes.truncate(2);
    let mut net = Net::new(database, nodes);
    net.link(0, 1, Direction::BOTH);
    net.settle();
    for round in 0..20 {
        write(&mut net, 0, "k", &format!("a{round}"));
        write(&mut net, 1, "k", &format!("b{round}"));
        net.settle();
        level(&net);
        assert_eq!(net.nodes[0].values("k").len(), 2);
        write(&mut net, round % 2, "k", "settled");
        net.settle();
        level(&net);
        assert_eq!(net.nodes[0].values("k"), ["settled"]);
    }
    // Each entry went once, and was not sent back.
    let sent: u64 = net.lines[0].ends.iter().map(|e| e.entries_sent).sum();
    let new: u64 = net.lines[0].ends.iter().map(|e| e.entries_new).sum();
    assert!(sent <= new + 5, "{sent} sent, {new} new");
}

#[test]
fn a_chain_of_nodes_passes_on_what_it_hears() {
    let (mut nodes, database) = three();
    let fourth = join(&mut nodes[0], 4, database, Role::Write);
    nodes.push(fourth);
    let mut net = Net::new(database, nodes);
    for (a, b) in [(0, 1), (2, 1), (2, 3)] {
        net.link(a, b, Direction::BOTH);
    }
    net.settle();
    level(&net);
    write(&mut net, 0, "from one end", "x");
    write(&mut net, 3, "from the other", "y");
    net.settle();
    level(&net);
    assert_eq!(net.nodes[3].values("from one end"), ["x"]);
    assert_eq!(net.nodes[0].values("from the other"), ["y"]);
}

#[test]
fn a_ring_of_nodes_does_not_go_in_circles() {
    let (nodes, database) = three();
    let mut net = Net::new(database, nodes);
    for (a, b) in [(0, 1), (1, 2), (2, 0)] {
        net.link(a, b, Direction::BOTH);
    }
    net.settle();
    for round in 0..30 {
        write(&mut net, round % 3, &format!("{round}"), "v");
        if round % 4 == 0 {
            net.settle();
        }
    }
    net.settle();
    level(&net);
    let sent: u64 = net.lines.iter().flat_map(|l| &l.ends).map(|e| e.entries_sent).sum();
    // Three links: nobody needs an entry more often than once over each of two, and a few cross on the way.
    assert!(sent < 30 * 4 + 20, "{sent} sent");
}

#[test]
fn a_commit_between_comparing_and_planning_is_not_lost() {
    // Both were equal when the link came up; each order of the first steps is tried.
    let (nodes, database) = three();
    assert!(crate::harness::sync(&nodes[0], &nodes[1], database).settled);
    for pace in [1, 2, 3, 5, 7, 11, 13] {
        for after in 0..24 {
            let mut net = Net::new(database, nodes[..2].iter().map(Node::copy).collect());
            net.link(0, 1, Direction::BOTH);
            (0..after).for_each(|n| _ = net.step(n * pace));
            write(&mut net, after % 2, "late", "v");
            net.settle();
            level(&net);
        }
    }
}

#[test]
fn a_commit_that_is_signed_later_is_pushed_then() {
    let (mut nodes, database) = three();
    nodes.truncate(2);
    let mut net = Net::new(database, nodes);
    net.link(0, 1, Direction::BOTH);
    net.settle();
    net.nodes[0].unsigned(&draft(&[("k", "v")]));
    net.changed(0);
    net.settle();
    assert!(net.nodes[1].values("k").is_empty(), "nobody is told of what is not signed");
    net.nodes[0].with(|_, _| ());
    net.changed(0);
    net.settle();
    assert_eq!(net.nodes[1].values("k"), ["v"]);
    level(&net);
}

/// The runs of `node`, as they would go to somebody with nothing.
fn runs(node: &Node) -> Vec<Entries> {
    node.view(|v| {
        let mut out = Outgoing::new(v, &Frontier::default()).unwrap();
        std::iter::from_fn(|| out.next(v, Withhold::NOTHING).unwrap()).collect()
    })
}

fn verified(runs: &[Entries]) -> Vec<VerifiedRun> {
    runs.iter().map(|run| run.clone().verify().unwrap()).collect()
}

#[test]
fn runs_from_two_peers_out_of_order_come_together() {
    let (mut nodes, database) = three();
    // Alternately, so that each entry builds on the other's.
    for round in 0..6 {
        nodes[1 + round % 2].put("k", &format!("{round}"));
        let outcome = crate::harness::sync(&nodes[1], &nodes[2], database);
        assert!(outcome.settled);
    }
    let all = runs(&nodes[1]);
    let fresh = Node::new(9);
    fresh.prepare(database);
    let (first, second) = (nodes[1].key.clone(), nodes[2].key.clone());
    let mut from_first = Rogue::greet(&fresh, first, database);
    let mut from_second = Rogue::greet(&fresh, second, database);
    from_first.open(OPEN, None);
    from_second.open(OPEN, None);
    // The last first, by turns from either.
    for (n, run) in all.iter().enumerate().rev() {
        let from = if n % 2 == 0 { &mut from_first } else { &mut from_second };
        from.batch(std::slice::from_ref(run));
    }
    assert_eq!((from_first.closed, from_second.closed), (vec![], vec![]));
    assert_eq!(fresh.frontier(), nodes[1].frontier());
    assert_eq!(fresh.digest(), nodes[1].digest());
    assert!(fresh.pending.lock().unwrap().is_empty());
}

#[test]
fn a_bad_run_that_waited_harms_only_itself() {
    let (nodes, database) = three();
    let fresh = Node::new(9);
    fresh.prepare(database);
    let all = runs(&nodes[0]);
    // A run that is signed as it should be, whose author may not write: it waits for what it names as a parent.
    let forged = crate::rights::forged(&nodes[0], &nodes[1].key, database);
    let mut bad = Rogue::greet(&fresh, nodes[1].key.clone(), database);
    bad.open(OPEN, None);
    bad.batch(&[forged]);
    assert_eq!(bad.closed, [], "it may turn out to be good");
    let mut good = Rogue::greet(&fresh, nodes[0].key.clone(), database);
    good.open(OPEN, None);
    good.batch(&all);
    assert_eq!(good.closed, [], "and that is nobody else's fault");
    assert_eq!(fresh.frontier(), nodes[0].frontier());
    assert!(fresh.pending.lock().unwrap().is_empty(), "nor kept for ever");
}

#[test]
fn what_waits_is_bounded_and_what_was_dropped_comes_again() {
    let (mut nodes, database) = three();
    for n in 0..12 {
        nodes[1].put("k", &crate::harness::noise(n, 100_000));
    }
    let missing = runs(&nodes[0]).remove(0);
    let mut net = Net::new(database, nodes);
    // Little room for what waits at the third node, which knows nothing yet.
    let empty = Node::new(3);
    empty.prepare(database);
    net.nodes[2] = Node { pending: Mutex::new(Pending::new(300_000)), ..empty };
    {
        let mut rogue = Rogue::greet(&net.nodes[2], net.nodes[1].key.clone(), database);
        rogue.open(OPEN, None);
        for run in runs(&net.nodes[1]).iter().skip(1) {
            rogue.batch(std::slice::from_ref(run));
            assert!(net.nodes[2].pending.lock().unwrap().bytes() <= 300_000);
        }
        rogue.batch(&[missing]);
        assert_eq!(rogue.closed, []);
    }
    assert!(net.nodes[2].view(|v| v.totals().unwrap().entries) < 14);
    net.link(2, 1, Direction::BOTH);
    net.settle();
    assert_eq!(net.nodes[2].frontier(), net.nodes[1].frontier());
}

#[test]
fn one_of_two_links_drops_what_the_other_needs() {
    // A node hears from two peers at once; with no room for what waits, each link must compare again.
    let (mut nodes, database) = three();
    for round in 0..8 {
        nodes[round % 2].put(&format!("{round}"), "v");
        assert!(crate::harness::sync(&nodes[0], &nodes[1], database).settled);
    }
    for pace in [1, 2, 3, 5, 7] {
        let fresh = Node { pending: Mutex::new(Pending::new(0)), ..nodes[2].copy() };
        let list = vec![nodes[0].copy(), nodes[1].copy(), fresh];
        let mut net = Net::new(database, list);
        net.link(2, 0, Direction::BOTH);
        net.link(2, 1, Direction::BOTH);
        let mut n = 0;
        while net.step(n) {
            n += pace;
        }
        level(&net);
    }
}

#[test]
fn waiting_runs_are_tried_again_only_when_something_they_need_came() {
    let (mut nodes, _) = three();
    for n in 0..3 {
        nodes[1].put(&format!("{n}"), "v");
    }
    let mut pending = Pending::default();
    let list = verified(&runs(&nodes[1]));
    let log = LogId { device: nodes[1].key.node_id(), epoch: 5 };
    let other = LogId { epoch: 6, ..log };
    for (n, run) in list.iter().enumerate() {
        pending.push(run.clone(), if n == 0 { other } else { log }, 7);
        pending.push(run.clone(), log, 7);
    }
    let bytes: usize = list.iter().map(VerifiedRun::bytes).sum();
    assert_eq!(pending.bytes(), bytes, "each waits once");
    assert_eq!(pending.take_ready(&other, 6), []);
    assert_eq!(pending.take_ready(&other, 9), list[..1]);
    assert_eq!(pending.bytes(), bytes - list[0].bytes());
    assert_eq!(pending.take_ready(&other, 9), []);
    assert_eq!(pending.take_ready(&log, 7), list[1..]);
    assert!(pending.is_empty() && pending.bytes() == 0);
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn any_order_of_arrival_comes_together(
        rounds in prop::collection::vec((0usize..3, 0usize..3), 1..12),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
        split in prop::collection::vec(1usize..4, 30),
    ) {
        let (mut nodes, database) = three();
        for (n, (writer, met)) in rounds.iter().enumerate() {
            nodes[*writer].put(&format!("{}", n % 3), &format!("{n}"));
            if writer != met {
                crate::harness::sync(&nodes[*writer], &nodes[*met], database);
            }
        }
        crate::harness::sync(&nodes[1], &nodes[0], database);
        crate::harness::sync(&nodes[2], &nodes[0], database);
        let all = runs(&nodes[0]);
        let fresh = Node::new(9);
        fresh.prepare(database);
        let mut rogue = Rogue::greet(&fresh, nodes[0].key.clone(), database);
        rogue.open(OPEN, None);
        let mut picked: Vec<Entries> = order.iter().map(|i| i.get(&all).clone()).collect();
        picked.extend(all.iter().rev().cloned());
        let mut rest = &picked[..];
        for size in split.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (now, later) = rest.split_at(rest.len().min(*size));
            rogue.batch(now);
            rest = later;
        }
        prop_assert_eq!(rogue.closed, vec![]);
        prop_assert_eq!(fresh.frontier(), nodes[0].frontier());
        prop_assert_eq!(fresh.digest(), nodes[0].digest());
        prop_assert!(fresh.pending.lock().unwrap().is_empty());
    }
}

#[test]
fn a_session_that_lives_long_compares_again_as_often_as_it_must() {
    let (nodes, database) = three();
    let Ok([mut a, b, mut writer]) = <[Node; 3]>::try_from(nodes) else { panic!() };
    let b = Node { pending: Mutex::new(Pending::new(0)), ..b };
    for round in 0..10 {
        // The third device's entry reaches `b` before the one of `a` that it builds on.
        a.put("k", &format!("a{round}"));
        assert!(crate::harness::sync(&a, &writer, database).settled);
        writer.put("k", &format!("c{round}"));
        let mut net = Net::new(database, vec![a.copy(), b.copy(), writer.copy()]);
        net.link(1, 2, Direction::BOTH);
        net.link(0, 1, Direction::BOTH);
        net.settle();
        level_two(&net, 1, 2);
    }
    let mut run = Run::new(&writer, &b, database, Direction::BOTH, None);
    run.pump();
    assert!(run.outcome.settled);
}

fn level_two(net: &Net, x: usize, y: usize) {
    assert_eq!(net.nodes[x].frontier(), net.nodes[y].frontier());
    assert_eq!(net.nodes[x].digest(), net.nodes[y].digest());
}
