//! What a side does not want from a peer, since it comes from somebody else: it is offered, not sent, and nobody counts it
//! as held before it is.

use crate::cases;
use crate::harness::{Node, Run, join, sync};
use crate::net::Net;
use crate::rogue::{OPEN, Rogue};
use anabranch_core::frontier::FrontierTip;
use anabranch_core::id::{DatabaseId, EntryId, LogId, NodeId, Position};
use anabranch_core::ops::Role;
use anabranch_core::outgoing::{Outgoing, Withhold};
use anabranch_sync::channel::{Channel, Direction, HOLDS};
use anabranch_sync::frame::{Code, Frame, OFFERS, WITHHOLDS};
use anabranch_sync::work::Work;
use proptest::prelude::*;

/// Three members in a triangle, all level.
fn triangle() -> Net {
    let mut a = Node::new(1);
    let database = a.create();
    let b = join(&mut a, 2, database, Role::Write);
    let c = join(&mut a, 3, database, Role::Write);
    let mut net = Net::new(database, vec![a, b, c]);
    for (from, to) in [(0, 1), (0, 2), (1, 2)] {
        net.link(from, to, Direction::BOTH);
    }
    net.settle();
    level(&net);
    net
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
    }
}

fn write(net: &mut Net, node: usize, value: &str) {
    net.nodes[node].put("k", value);
    net.changed(node);
}

fn device(net: &Net, node: usize) -> NodeId {
    net.nodes[node].key.node_id()
}

fn sent(net: &Net) -> u64 {
    net.lines.iter().flat_map(|line| &line.ends).map(|end| end.entries_sent).sum()
}

#[test]
fn what_is_withheld_is_offered_and_comes_once() {
    let mut net = triangle();
    let first = device(&net, 0);
    // The second and the third get from the first itself what it writes.
    net.hold(2, 0, &[first]);
    net.hold(2, 1, &[first]);
    net.settle();
    level(&net);
    for round in 0..20 {
        let before = sent(&net);
        write(&mut net, 0, &format!("{round}"));
        net.settle();
        level(&net);
        assert_eq!(sent(&net) - before, 2, "once to each");
        let before = sent(&net);
        write(&mut net, 1, &format!("{round} again"));
        net.settle();
        level(&net);
        assert!(sent(&net) - before >= 2, "of another device nothing is withheld");
    }
}

#[test]
fn what_is_withheld_is_lacking_until_it_is_taken() {
    let mut net = triangle();
    let first = device(&net, 0);
    net.hold(0, 1, &[first]);
    net.cut(2);
    net.cut(1);
    net.settle();
    write(&mut net, 0, "withheld");
    net.settle();
    assert!(net.nodes[1].values("k").is_empty(), "nobody else brings it");
    for end in &net.lines[0].ends {
        assert!(
            !end.channel().is_some_and(Channel::is_settled),
            "and nobody says that all is done"
        );
    }
    let offers = net.lines[0].ends[0].frames.iter().filter(|f| matches!(f, Frame::Offer { .. }));
    assert_eq!(offers.count(), 1, "offered once");
    net.resume(0, 1, &[first]);
    net.settle();
    assert_eq!(net.nodes[1].values("k"), ["withheld"]);
    let [a, b] = &net.lines[0].ends;
    assert!([a, b].iter().all(|end| end.channel().is_some_and(Channel::is_settled)));
}

#[test]
fn who_wants_nothing_for_now_gets_all_later() {
    let mut net = triangle();
    net.cut(2);
    net.cut(1);
    net.hold(0, 1, &[]);
    net.settle();
    for round in 0..10 {
        write(&mut net, 0, &format!("{round}"));
        write(&mut net, 1, "the other way it goes on");
        net.settle();
    }
    let here = net.nodes[1].frontier();
    let offers = net.lines[0].ends[0].frames.iter().filter(|f| matches!(f, Frame::Offer { .. }));
    assert_eq!(offers.count(), 0);
    assert_ne!(here, net.nodes[0].frontier());
    net.resume(0, 1, &[]);
    net.settle();
    assert_eq!(net.nodes[1].frontier(), net.nodes[0].frontier());
    assert!(net.lines[0].ends.iter().all(|end| end.channel().is_some_and(Channel::is_settled)));
}

proptest! {
    #![proptest_config(cases(64))]

    /// Whatever is withheld when, in whatever order words and work cross: once nothing is any more, all are equal.
    #[test]
    fn nothing_is_lost_by_withholding(
        acts in prop::collection::vec((0..4_u8, 0..3_usize, 0..2_usize, 0..4_usize), 1..24),
        picks in prop::collection::vec(any::<u16>(), 0..600),
    ) {
        let mut net = triangle();
        let devices: Vec<NodeId> = (0..3).map(|node| device(&net, node)).collect();
        let mut picks = picks.chunks(25);
        for (act, line, side, whose) in acts {
            let named = devices.get(whose).map(std::slice::from_ref).unwrap_or_default();
            match act {
                0 => net.hold(line, side, named),
                1 => net.resume(line, side, named),
                _ => write(&mut net, line, &format!("{act} {whose}")),
            }
            net.play(picks.next().unwrap_or_default());
        }
        for (line, side) in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)] {
            net.resume(line, side, &[]);
        }
        net.settle();
        level(&net);
    }
}

fn host() -> (Node, Node, DatabaseId) {
    let mut host = Node::new(1);
    let database = host.create();
    let member = join(&mut host, 2, database, Role::Write);
    (host, member, database)
}

#[test]
fn an_offer_that_nobody_asked_for_ends_the_channel() {
    let (host, member, database) = host();
    let mut rogue = Rogue::greet(&host, member.key.clone(), database);
    rogue.open(OPEN, None);
    let log = LogId { device: member.key.node_id(), epoch: 1 };
    rogue.send(&Frame::Offer {
        channel: 0,
        places: vec![Position { log, seq: 1, id: EntryId([1; 32]) }],
    });
    assert_eq!(rogue.closed.iter().map(|(code, _)| *code).collect::<Vec<_>>(), [Code::Protocol]);
}

#[test]
fn too_much_to_withhold_ends_the_channel() {
    let (host, member, database) = host();
    let mut rogue = Rogue::greet(&host, member.key.clone(), database);
    rogue.open(OPEN, None);
    let devices: Vec<NodeId> = (0..=HOLDS as u64)
        .map(|n| {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&n.to_be_bytes());
            NodeId(id)
        })
        .collect();
    let (most, rest) = devices.split_at(HOLDS);
    for devices in most.chunks(OFFERS) {
        rogue.send(&Frame::Hold { channel: 0, devices: devices.to_vec() });
    }
    assert_eq!(rogue.closed, []);
    rogue.send(&Frame::Hold { channel: 0, devices: rest.to_vec() });
    assert_eq!(rogue.closed.iter().map(|(code, _)| *code).collect::<Vec<_>>(), [Code::Limit]);
}

/// Programs from before sent no such word and would end the session over one.
#[test]
fn who_cannot_withhold_is_not_told_to() {
    let (host, member, database) = host();
    let run = Run::new(&host, &member, database, Direction::BOTH, None);
    assert!(run.sessions[0].channel(0).is_some_and(Channel::can_hold));
    let mut rogue = Rogue::greet(&host, member.key.clone(), database);
    rogue.open(OPEN, None);
    assert!(rogue.session.channel(0).is_some_and(|channel| !channel.can_hold() && channel.takes()));
    rogue.session.hold(0, &[]);
    rogue.session.resume(0, &[]);
    rogue.pump();
    assert!(!rogue.got.iter().any(|f| matches!(f, Frame::Hold { .. } | Frame::Resume { .. })));
}

/// Places that nobody ever wrote, all different.
fn invented(from: u32, count: usize) -> Vec<Position> {
    let log = LogId { device: NodeId([9; 32]), epoch: 1 };
    let place = |n: u32| {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&n.to_be_bytes());
        Position { log, seq: u64::from(n) + 1, id: EntryId(id) }
    };
    (from..from + count as u32).map(place).collect()
}

fn frontiers(rogue: &Rogue<'_>) -> usize {
    let told = |f: &&Frame| matches!(f, Frame::Tips { last: true, .. } | Frame::Symbols { .. });
    rogue.got.iter().filter(told).count()
}

#[test]
fn offers_without_end_that_bring_nothing_end_the_channel() {
    let (host, member, database) = host();
    let mut rogue = Rogue::greet_with(&host, member.key.clone(), database, WITHHOLDS);
    rogue.open(OPEN, None);
    let mut rounds = 0;
    while rogue.closed.is_empty() && rounds < 100 {
        // Each time it is told anew to withhold something, and each time it offers more than is remembered.
        rogue.session.hold(0, &[NodeId([9; 32])]);
        for frame in 0..6 {
            let places = invented(rounds * 10_000 + frame * 256, OFFERS);
            rogue.send(&Frame::Offer { channel: 0, places });
        }
        rogue.session.resume(0, &[]);
        rogue.pump();
        rounds += 1;
    }
    assert_eq!(rogue.closed.iter().map(|(code, _)| *code).collect::<Vec<_>>(), [Code::Limit]);
    assert!((2..20).contains(&rounds), "{rounds}");
}

#[test]
fn the_same_offer_over_and_over_takes_no_room() {
    let (host, member, database) = host();
    let mut rogue = Rogue::greet_with(&host, member.key.clone(), database, WITHHOLDS);
    rogue.open(OPEN, None);
    rogue.session.hold(0, &[NodeId([9; 32])]);
    rogue.hold = true;
    for _ in 0..20 {
        rogue.send(&Frame::Offer { channel: 0, places: invented(0, OFFERS) });
    }
    while rogue.release() {}
    assert_eq!(rogue.overflows, 0);
    rogue.send(&Frame::Offer { channel: 0, places: invented(0, OFFERS) });
    for part in 1..5 {
        rogue.send(&Frame::Offer { channel: 0, places: invented(part * 256, OFFERS) });
    }
    while rogue.release() {}
    assert_eq!(rogue.overflows, 1);
}

#[test]
fn one_frontier_is_read_at_a_time() {
    let (host, member, database) = host();
    let mut rogue = Rogue::greet_with(&host, member.key.clone(), database, WITHHOLDS);
    rogue.open(OPEN, None);
    rogue.hold = true;
    for _ in 0..50 {
        rogue.session.hold(0, &[]);
        rogue.session.resume(0, &[]);
        rogue.pump();
    }
    let reads = rogue.held.iter().filter(|(_, work)| matches!(work, Work::Frontier { .. }));
    assert_eq!(reads.count(), 1);
    let before = frontiers(&rogue);
    while rogue.release() {}
    // The last word was said after the first was read.
    assert_eq!(frontiers(&rogue) - before, 2);
}

#[test]
fn what_came_while_an_offer_was_looked_up_is_looked_up_again() {
    let (host, mut member, database) = host();
    let before = member.view(|view| view.frontier().unwrap());
    member.put("k", "v");
    let log = |node: &Node| {
        node.view(|view| {
            let frontier = view.frontier().unwrap();
            let mine = |tip: &&FrontierTip| tip.head.position.log.device == member.key.node_id();
            frontier.tips().iter().find(mine).map(|tip| tip.head.position)
        })
    };
    let place = log(&member).unwrap();
    let mut rogue = Rogue::greet_with(&host, member.key.clone(), database, WITHHOLDS);
    rogue.open(OPEN, None);
    rogue.frontier(&before);
    rogue.session.hold(0, &[NodeId([9; 32])]);
    rogue.hold = true;
    rogue.send(&Frame::Offer { channel: 0, places: vec![place] });
    let (channel, judge) = rogue.held.remove(0);
    assert!(matches!(judge, Work::Judge { .. }));
    let answer = rogue.outcome(channel, judge);
    // It comes from elsewhere before the answer does.
    sync(&host, &member, database);
    rogue.committed();
    rogue.session.answer(channel, answer);
    rogue.pump();
    while rogue.release() {}
    let held = |f: &&Frame| matches!(f, Frame::Held { places, .. } if *places == [place]);
    assert_eq!(rogue.got.iter().filter(held).count(), 1);
}

#[test]
fn what_was_taken_back_is_not_counted_among_what_is_withheld() {
    let (host, member, database) = host();
    let mut rogue = Rogue::greet(&host, member.key.clone(), database);
    rogue.open(OPEN, None);
    let devices = |from: usize| -> Vec<NodeId> {
        let places = invented(from as u32, HOLDS);
        places.iter().map(|place| NodeId(place.id.0)).collect()
    };
    let say = |rogue: &mut Rogue<'_>, devices: &[NodeId], resume: bool| {
        for part in devices.chunks(OFFERS) {
            let (channel, devices) = (0, part.to_vec());
            rogue.send(&match resume {
                true => Frame::Resume { channel, devices },
                false => Frame::Hold { channel, devices },
            });
        }
    };
    say(&mut rogue, &devices(0), false);
    say(&mut rogue, &devices(0), true);
    say(&mut rogue, &devices(HOLDS), false);
    assert_eq!(rogue.closed, []);
    // And yet no more is remembered than that.
    say(&mut rogue, &devices(HOLDS), true);
    say(&mut rogue, &devices(2 * HOLDS), false);
    assert_eq!(rogue.closed.iter().map(|(code, _)| *code).collect::<Vec<_>>(), [Code::Limit]);
}

/// What a peer says that it holds takes no room from what came from it.
#[test]
fn what_came_does_not_go_back_however_much_is_said_to_be_held() {
    let (host, member, database) = host();
    let before = host.view(|view| view.frontier().unwrap());
    let mut writer = member.same();
    writer.put("k", "v");
    let run = writer.view(|view| {
        let mut out = Outgoing::new(view, &before).unwrap();
        out.next(view, Withhold::NOTHING).unwrap().unwrap()
    });
    let mut rogue = Rogue::greet(&host, member.key.clone(), database);
    rogue.open(OPEN, None);
    rogue.frontier(&before);
    rogue.hold = true;
    rogue.committed();
    assert!(matches!(rogue.held[..], [(_, Work::Next { .. })]));
    for part in 0..40 {
        rogue.send(&Frame::Held { channel: 0, places: invented(part * 256, OFFERS) });
    }
    rogue.batch(&[run]);
    // It is applied as soon as the batch that was being put together is.
    rogue.held.reverse();
    while rogue.release() {}
    assert_eq!(rogue.closed, []);
    assert_eq!(host.values("k"), ["v"]);
    assert_eq!(rogue.data(), 0);
}
