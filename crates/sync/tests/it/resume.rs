//! A link that breaks after any number of frames: the next one goes on, and little is sent again.

use crate::harness::{Node, Run, join, noise, sync};
use anabranch_core::id::DatabaseId;
use anabranch_core::ops::{Role, TicketTerms};
use anabranch_sync::channel::{CREDIT, Direction};
use anabranch_sync::frame::Frame;

fn write(node: &mut Node, from: u64, count: u64, len: usize) {
    for i in from..from + count {
        node.put(&format!("{i}"), &noise(i, len));
    }
}

/// Bytes of batches that `side` sent.
fn batches(run: &Run<'_>, side: usize) -> u64 {
    run.outcome
        .log
        .iter()
        .filter(|(from, _)| *from == side)
        .map(|(_, frame)| match frame {
            Frame::Batch { bytes, .. } => bytes.len() as u64,
            _ => 0,
        })
        .sum()
}

#[test]
fn a_bootstrap_cut_after_every_frame_goes_on() {
    let mut host = Node::new(1);
    let database = host.create();
    write(&mut host, 0, 60, 50_000);
    let ticket = host.ticket(Role::Read, TicketTerms::default());
    let whole = {
        let node = Node::new(2);
        node.prepare(database);
        let run = Run::new(&node, &host, database, Direction::BOTH, Some(&ticket));
        assert!(run.outcome.settled);
        (run.outcome.frames, batches(&run, 1))
    };
    assert!(whole.1 > 2 * u64::from(CREDIT), "long enough to be cut");
    for frames in 1..whole.0 {
        let node = Node::new(2);
        node.prepare(database);
        let first =
            Run::cut(&node, &host, database, Direction::BOTH, Some(&ticket), frames as usize);
        let sent = batches(&first, 1);
        drop(first);
        let second = Run::new(&node, &host, database, Direction::BOTH, Some(&ticket));
        assert!(second.outcome.settled, "after {frames} frames: {:?}", second.outcome);
        assert_eq!(node.frontier(), host.frontier());
        assert_eq!(node.digest(), host.digest());
        let again = (sent + batches(&second, 1)).saturating_sub(whole.1);
        // What a batch packs together differs a little between the two.
        let most = u64::from(CREDIT) + 256 * 1024 + 4_096;
        assert!(again <= most, "after {frames} frames {again} bytes were sent again");
    }
}

#[test]
fn a_link_that_only_ever_lasts_a_few_frames_still_gets_there() {
    let mut host = Node::new(1);
    let database = host.create();
    let mut member = join(&mut host, 2, database, Role::Write);
    write(&mut host, 0, 30, 40_000);
    write(&mut member, 100, 30, 40_000);
    let mut links = 0;
    while host.frontier() != member.frontier() {
        // Greeting and comparing take about a dozen; what is left brings a batch or two.
        drop(Run::cut(&member, &host, database, Direction::BOTH, None, 14));
        links += 1;
        assert!(links < 100, "each link must bring something");
    }
    assert_eq!(host.digest(), member.digest());
}

#[test]
fn both_ways_cut_at_every_frame() {
    let mut host = Node::new(1);
    let database = host.create();
    let member = join(&mut host, 2, database, Role::Write);
    let meet = |frames: usize| {
        let (mut a, mut b) = (host.copy(), member.copy());
        write(&mut a, 0, 6, 5_000);
        write(&mut b, 100, 6, 5_000);
        drop(Run::cut(&a, &b, database, Direction::BOTH, None, frames));
        a.put("while apart", "a");
        b.put("while apart", "b");
        let outcome = sync(&b, &a, database);
        assert!(outcome.settled, "after {frames} frames: {outcome:?}");
        assert_eq!(a.frontier(), b.frontier());
        assert_eq!(a.digest(), b.digest());
        assert_eq!(a.values("while apart").len(), 2);
    };
    (1..24).for_each(meet);
}

/// Entries of a long log and of many short ones arrive through links that break at random places.
#[test]
fn many_logs_through_bad_links() {
    let mut host = Node::new(1);
    let database: DatabaseId = host.create();
    for n in 0..40u64 {
        let mut copy = host.copy();
        (copy.epoch, copy.instance) = ((n + 1) << 32, [n as u8 + 100; 32]);
        copy.put(&format!("{n}"), "x");
        sync(&copy, &host, database);
        if n % 7 == 0 {
            host.put("gather", "y");
        }
    }
    let member = Node::new(2);
    member.prepare(database);
    let ticket = host.ticket(Role::Read, TicketTerms::default());
    for frames in [9, 10, 11, 12, 9, 13] {
        drop(Run::cut(&member, &host, database, Direction::BOTH, Some(&ticket), frames));
    }
    assert!(Run::new(&member, &host, database, Direction::BOTH, Some(&ticket)).outcome.settled);
    assert_eq!(member.frontier(), host.frontier());
    assert_eq!(member.digest(), host.digest());
}
