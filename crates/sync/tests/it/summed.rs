//! Large frontiers: what is found out costs what differs, whatever a peer says.

use crate::harness::{Node, Outcome, draft, sync};
use crate::rogue::{OPEN, Rogue};
use anabranch_core::author::{Author, Draft};
use anabranch_core::entry::Timestamp;
use anabranch_core::id::DatabaseId;
use anabranch_core::key::DeviceKey;
use anabranch_core::ledger::Ledger;
use anabranch_core::ops::{MemberOp, Role, Subject, TicketTerms};
use anabranch_core::riblt::Symbol;
use anabranch_core::storage::{Durability, Storage};
use anabranch_sync::frame::{Ask, Code, Frame};
use anabranch_sync::work::{Answer, Work};
use std::sync::Arc;

/// Two devices that hold the same logs of many others, and sum them up.
fn crowd(logs: u64) -> (Node, Node, DatabaseId) {
    let mut host = Node::new(1);
    let database = host.create();
    let (role, terms) = (Role::Write, TicketTerms::default());
    let anyone = MemberOp::Grant { subject: Subject::Anyone, role, priority: 0, terms };
    let draft = Draft { members: vec![anyone], ..Draft::default() };
    host.with(|ledger, author| ledger.commit(author, &draft).unwrap());
    (0..logs).for_each(|who| write(&host, who));
    let host = Node { sum_from: 3, ..host };
    let other = Node { storage: host.storage.fork([2; 32]).into(), sum_from: 3, ..Node::new(2) };
    (host, other, database)
}

/// Device `who` of the crowd writes one entry more at `node`.
fn write(node: &Node, who: u64) {
    let mut seed = [9; 32];
    seed[..8].copy_from_slice(&who.to_be_bytes());
    let key = DeviceKey::from_seed(&seed);
    let wall = Timestamp(5_000_000 + who);
    let author = Author { key: &key, wall, fresh_epoch: who, instance: [9; 32] };
    let mut tx = node.storage.write(Durability::Full).unwrap();
    let mut ledger = Ledger::open(&mut *tx).unwrap();
    ledger.commit(&author, &draft(&[(&format!("{who}"), "v")])).unwrap();
    ledger.seal(&author).unwrap();
    ledger.finish().unwrap();
    tx.commit().unwrap();
}

/// Bytes of all frames that carry neither entries nor what follows from them.
fn finding_out(outcome: &Outcome) -> usize {
    let tells = |frame: &Frame| {
        matches!(
            frame,
            Frame::Tips { .. } | Frame::Symbols { .. } | Frame::Ask { .. } | Frame::Named { .. }
        )
    };
    let frames = outcome.log.iter().map(|(_, frame)| frame).filter(|frame| tells(frame));
    frames.map(|frame| frame.encode().len()).sum()
}

fn agree(a: &Node, b: &Node, database: DatabaseId) -> Outcome {
    let outcome = sync(a, b, database);
    assert!(outcome.settled, "{:?}", outcome.closed);
    assert_eq!((a.frontier(), a.digest()), (b.frontier(), b.digest()));
    outcome
}

#[test]
fn few_changes_in_many_logs_are_found_out_cheaply() {
    let (a, b, database) = crowd(10_000);
    (0..10).for_each(|who| write(&a, who * 31));
    let outcome = agree(&a, &b, database);
    let bytes = finding_out(&outcome);
    assert!(bytes < 6_000, "{bytes} bytes");
    assert_eq!((outcome.sent, outcome.new), (10, [0, 10]), "nothing is sent that was there");
    // On both sides, and new logs among them.
    write(&a, 1_000);
    (0..4).for_each(|who| write(&b, who * 50 + 7));
    let outcome = agree(&a, &b, database);
    assert!(finding_out(&outcome) < 6_000);
    assert_eq!((outcome.sent, outcome.new), (5, [4, 1]));
}

#[test]
fn what_is_too_much_for_the_first_symbols_takes_more_and_then_all() {
    for (changed, most) in [(60, 120_000), (1_500, usize::MAX)] {
        let (a, b, database) = crowd(changed + 20);
        (0..changed).for_each(|who| write(&a, who));
        let outcome = agree(&a, &b, database);
        assert_eq!(outcome.new, [0, changed]);
        let bytes = finding_out(&outcome);
        assert!(bytes < most, "{changed}: {bytes} bytes");
    }
}

/// Symbols that say nothing, tips that are not those asked for: what comes out has another digest, and all is asked for.
#[test]
fn made_up_symbols_and_tips_lead_to_the_frontier_itself() {
    let (mut node, _, database) = crowd(10);
    let key = DeviceKey::from_seed(&[77; 32]);
    node.put("more", "v");
    let mut rogue = Rogue::greet(&node, key, database);
    rogue.open(OPEN, None);
    let symbols = |n: usize| vec![Symbol::default(); n];
    let told =
        |from, symbols| Frame::Symbols { channel: 0, from, tips: 9, digest: [1; 32], symbols };
    rogue.send(&told(0, symbols(1)));
    let asked = |rogue: &Rogue<'_>| match rogue.got.last() {
        Some(Frame::Ask { what, .. }) => what.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(asked(&rogue), Ask::Symbols, "one symbol is not enough");
    // All of ours seem to be missing there, and nothing else.
    rogue.send(&told(1, symbols(2_047)));
    assert_eq!(asked(&rogue), Ask::Whole, "it is not what was told");
    assert!(rogue.closed.is_empty(), "{:?}", rogue.closed);
    // An answer to what is not asked any more.
    rogue.send(&Frame::Named { channel: 0, tips: vec![] });
    assert!(rogue.closed.is_empty(), "{:?}", rogue.closed);
}

#[test]
fn what_was_not_told_is_not_answered_and_nothing_for_ever() {
    let (node, _, database) = crowd(10);
    let few = Node { sum_from: usize::MAX, ..node.same() };
    let mut rogue = Rogue::greet(&few, DeviceKey::from_seed(&[77; 32]), database);
    rogue.open(OPEN, None);
    rogue.send(&Frame::Ask { channel: 0, what: Ask::Whole });
    assert_eq!(rogue.closed.last().map(|c| c.0), Some(Code::Protocol), "nothing was summed up");

    let mut rogue = Rogue::greet(&node, DeviceKey::from_seed(&[77; 32]), database);
    rogue.open_with(OPEN, [5; 32]);
    for _ in 0..20 {
        rogue.send(&Frame::Ask { channel: 0, what: Ask::Named(vec![1, 2, 3]) });
    }
    assert_eq!(rogue.closed.last().map(|c| c.0), Some(Code::Limit));
    let mut rogue = Rogue::greet(&node, DeviceKey::from_seed(&[77; 32]), database);
    rogue.open_with(OPEN, [5; 32]);
    let symbols = vec![Symbol::default(); 3];
    rogue.send(&Frame::Symbols { channel: 0, from: 5, tips: 1, digest: [1; 32], symbols });
    assert_eq!(rogue.closed.last().map(|c| c.0), Some(Code::Protocol));
}

/// What was summed up for a peer takes as much memory as all tips, so it is not kept once the peer knows enough (I7).
#[test]
fn a_summary_is_not_kept_for_a_peer_that_has_found_out() {
    let (node, _, database) = crowd(400);
    let mut rogue = Rogue::greet(&node, DeviceKey::from_seed(&[77; 32]), database);
    rogue.open_with(OPEN, [5; 32]);
    let size = |rogue: &Rogue<'_>| format!("{:?}", rogue.session).len();
    let before = size(&rogue);
    assert!(before > 50_000, "{before}");
    rogue.send(&Frame::Level { channel: 0, digest: Some([5; 32]), busy: false });
    assert!(size(&rogue) < before / 10, "{} of {before}", size(&rogue));
    // Who asks all the same is answered, as often as before.
    rogue.got.clear();
    rogue.send(&Frame::Ask { channel: 0, what: Ask::Named(vec![1, 2, 3]) });
    let told = |frame: &Frame| match frame {
        Frame::Tips { tips, .. } => tips.len(),
        _ => 0,
    };
    assert_eq!(rogue.got.iter().map(told).sum::<usize>(), 401);
    for _ in 0..20 {
        rogue.send(&Frame::Ask { channel: 0, what: Ask::Symbols });
    }
    assert_eq!(rogue.closed.last().map(|c| c.0), Some(Code::Limit));
}

/// Many peers of one replica share a summary (I7), each of what is held then.
#[test]
fn a_summary_is_made_once_and_anew_when_something_changed() {
    let (node, _, database) = crowd(10);
    let rogue = Rogue::greet(&node, DeviceKey::from_seed(&[77; 32]), database);
    let summed = || match rogue.outcome(0, Work::Frontier { within: None, summed: true }) {
        Answer::Summed(summed) => summed,
        other => panic!("{other:?}"),
    };
    let (first, second) = (summed(), summed());
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!(first.digest, node.frontier());
    write(&node, 3);
    let third = summed();
    assert_eq!(third.digest, node.frontier());
    assert_ne!(third.frontier, first.frontier);
    assert_eq!(third.digest, third.frontier.digest());
    assert_eq!(*third.row(), third.frontier.row(&database));
    // Few tips are not worth it, even if they were summed up to be compared.
    let few = Node { sum_from: 100, ..node.same() };
    let other = Rogue::greet(&few, DeviceKey::from_seed(&[77; 32]), database);
    let theirs = vec![Symbol::default(); 3];
    assert!(matches!(other.outcome(0, Work::Differ { round: 0, theirs }), Answer::Differ { .. }));
    let told = other.outcome(0, Work::Frontier { within: None, summed: true });
    assert!(matches!(told, Answer::Frontier { whole: true, .. }), "{told:?}");
}

/// Who may not read is told what it has shown that it knows, and a summary shows nothing.
#[test]
fn a_stranger_learns_nothing_by_summing_up() {
    let mut node = Node { sum_from: 3, ..Node::new(1) };
    let database = node.create();
    node.put("k", "v");
    let mut rogue = Rogue::greet(&node, DeviceKey::from_seed(&[77; 32]), database);
    rogue.open(OPEN, None);
    let symbols = vec![Symbol::default(); 64];
    rogue.send(&Frame::Symbols { channel: 0, from: 0, tips: 0, digest: [1; 32], symbols });
    let told = |frame: &Frame| {
        matches!(
            frame,
            Frame::Tips { .. } | Frame::Symbols { .. } | Frame::Ask { .. } | Frame::Named { .. }
        )
    };
    assert!(!rogue.got.iter().any(told), "{:?}", rogue.got);
    assert_eq!(rogue.closed.last().map(|c| c.0), Some(Code::Protocol));
}

#[test]
fn summaries_without_end_are_looked_at_one_at_a_time() {
    let (node, _, database) = crowd(10);
    let mut rogue = Rogue::greet(&node, DeviceKey::from_seed(&[77; 32]), database);
    rogue.open_with(OPEN, [5; 32]);
    rogue.hold = true;
    let symbols = vec![Symbol::default(); 64];
    let told = Frame::Symbols { channel: 0, from: 0, tips: 1, digest: [1; 32], symbols };
    (0..50).for_each(|_| rogue.send(&told));
    assert!(rogue.held.len() < 4, "{} pieces of work wait", rogue.held.len());
    while rogue.release() {}
    assert!(matches!(rogue.got.last(), Some(Frame::Ask { .. })), "the last one is looked at");
}
