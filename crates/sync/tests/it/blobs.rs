//! Blobs by want and have: found, missing, wrong, wanted by the thousand, and never beyond the credit.

use crate::harness::{Node, Run, join};
use crate::net::Net;
use crate::rogue::{OPEN, Rogue};
use anabranch_core::blob::ChunkHash;
use anabranch_core::id::DatabaseId;
use anabranch_core::ops::Role;
use anabranch_core::storage::{Durability, Storage, Table};
use anabranch_sync::channel::{Channel, Direction};
use anabranch_sync::frame::{Code, DATA_BYTES, Frame};

fn blob(n: usize, size: usize) -> Vec<u8> {
    let mut bytes = vec![n as u8; size];
    bytes.extend_from_slice(&n.to_be_bytes());
    bytes
}

/// Puts `count` blobs of a size at a node, and names them.
fn keep(node: &Node, count: usize, size: usize) -> Vec<ChunkHash> {
    let mut tx = node.storage.write(Durability::Normal).unwrap();
    let hashes = (0..count).map(|n| {
        let bytes = blob(n, size);
        let hash = ChunkHash::of(&bytes);
        tx.put(Table::Blob, &hash.0, &bytes).unwrap();
        hash
    });
    let hashes = hashes.collect();
    tx.commit().unwrap();
    hashes
}

fn has(node: &Node, hash: &ChunkHash) -> bool {
    node.storage.read().unwrap().get(Table::Blob, &hash.0).unwrap().is_some()
}

fn two() -> (Node, Node, DatabaseId) {
    let mut a = Node::new(1);
    let database = a.create();
    let b = join(&mut a, 2, database, Role::Write);
    (a, b, database)
}

#[test]
fn what_is_there_comes_and_what_is_not_is_said() {
    let (a, b, database) = two();
    let hashes = keep(&b, 30, 60_000);
    let missing = [ChunkHash([1; 32]), ChunkHash([2; 32])];
    let mut run = Run::new(&a, &b, database, Direction::BOTH, None);
    run.sessions[0].want(0, &[&hashes[..], &missing].concat());
    assert!(!run.sessions[0].channel(0).unwrap().is_settled());
    run.pump();
    assert!(run.outcome.settled);
    assert!(hashes.iter().all(|hash| has(&a, hash)));
    assert_eq!(run.outcome.missing, missing);
    assert!(!has(&a, &missing[0]));
}

#[test]
fn any_number_may_be_wanted_at_once() {
    let (a, b, database) = two();
    let hashes = keep(&b, 10_000, 1);
    let mut run = Run::new(&a, &b, database, Direction::BOTH, None);
    run.sessions[0].want(0, &hashes);
    run.sessions[0].want(0, &hashes[..50]);
    run.pump();
    assert_eq!(run.outcome.closed, []);
    assert!(run.outcome.settled);
    assert!(hashes.iter().all(|hash| has(&a, hash)));
    assert_eq!(run.outcome.blobs, 10_000);
    // The same when the peer hears of all of them before it answers the first.
    let mut net = Net::new(database, vec![two().0, b.copy()]);
    net.link(0, 1, Direction::BOTH);
    net.settle();
    net.want(0, 0, &hashes);
    net.settle();
    assert_eq!(net.lines[0].closed, []);
    assert!(hashes.iter().all(|hash| has(&net.nodes[0], hash)));
}

#[test]
fn both_sides_may_want_while_entries_stream() {
    let (mut a, mut b, database) = two();
    let (of_a, of_b) = (keep(&a, 12, 350_000), keep(&b, 40, 90_000));
    for i in 0..30 {
        a.put(&format!("a{i}"), &"x".repeat(40_000));
        b.put(&format!("b{i}"), &"x".repeat(40_000));
    }
    // In any order of work; the net checks that no more is under way than the credit allows.
    for pace in [1, 2, 3, 5, 7, 11, 13] {
        let mut net = Net::new(database, vec![a.copy(), b.copy()]);
        net.link(0, 1, Direction::BOTH);
        (0..12).for_each(|n| _ = net.step(n));
        net.want(0, 0, &of_b);
        net.want(0, 1, &of_a);
        let mut n = 0;
        while net.step(n) {
            n += pace;
        }
        let line = &net.lines[0];
        assert_eq!(line.closed, [], "pace {pace}");
        assert!(line.ends.iter().all(|e| e.channel().is_some_and(Channel::is_settled)));
        assert!(of_b.iter().all(|hash| has(&net.nodes[0], hash)));
        assert!(of_a.iter().all(|hash| has(&net.nodes[1], hash)));
        assert_eq!(net.nodes[0].digest(), net.nodes[1].digest());
    }
}

#[test]
fn wrong_bytes_end_the_channel_and_are_not_kept() {
    let (a, b, database) = two();
    let hash = ChunkHash::of(b"right");
    let mut rogue = Rogue::greet(&a, b.key.clone(), database);
    rogue.open(OPEN, None);
    rogue.session.want(0, &[hash]);
    rogue.pump();
    assert!(rogue.got.iter().any(|f| matches!(f, Frame::Want { .. })));
    rogue.send(&Frame::Blob { channel: 0, hash, bytes: b"wrong".to_vec() });
    assert!(matches!(&rogue.closed[..], [(Code::Protocol, _)]), "{:?}", rogue.closed);
    assert!(!has(&a, &hash));
}

#[test]
fn a_blob_that_nobody_asked_for_ends_the_channel() {
    let (a, b, database) = two();
    let hash = ChunkHash::of(b"right");
    let frame = Frame::Blob { channel: 0, hash, bytes: b"right".to_vec() };
    let mut rogue = Rogue::greet(&a, b.key.clone(), database);
    rogue.open(OPEN, None);
    rogue.send(&frame);
    assert!(matches!(&rogue.closed[..], [(Code::Protocol, _)]), "{:?}", rogue.closed);
    assert!(!has(&a, &hash));
    // Nor is it taken twice.
    let mut rogue = Rogue::greet(&a, b.key.clone(), database);
    rogue.open(OPEN, None);
    rogue.session.want(0, &[hash]);
    // Before the first one was stored.
    rogue.session.receive(&frame.encode());
    rogue.session.receive(&frame.encode());
    rogue.pump();
    assert!(matches!(&rogue.closed[..], [(Code::Protocol, _)]), "{:?}", rogue.closed);
}

#[test]
fn nobody_is_told_of_blobs_missing_that_were_not_wanted() {
    let (a, b, database) = two();
    let mut rogue = Rogue::greet(&a, b.key.clone(), database);
    rogue.open(OPEN, None);
    rogue.session.want(0, &[ChunkHash([1; 32])]);
    let hashes = vec![ChunkHash([1; 32]), ChunkHash([9; 32])];
    rogue.send(&Frame::NoBlob { channel: 0, hashes });
    assert_eq!(rogue.missing, [ChunkHash([1; 32])]);
}

#[test]
fn a_peer_that_wants_too_much_at_once_is_refused() {
    let (a, b, database) = two();
    let hashes: Vec<ChunkHash> = (0..1024u16).map(|n| ChunkHash([n as u8; 32])).collect();
    let mut rogue = Rogue::greet(&a, b.key.clone(), database);
    rogue.open(OPEN, None);
    let frame = Frame::Want { channel: 0, hashes }.encode();
    // While nothing is read yet.
    (0..5).for_each(|_| rogue.session.receive(&frame));
    rogue.pump();
    assert!(matches!(&rogue.closed[..], [(Code::Limit, _)]), "{:?}", rogue.closed);
}

#[test]
fn a_blob_larger_than_a_frame_is_missing() {
    let (a, b, database) = two();
    let hashes = keep(&b, 1, DATA_BYTES);
    let mut run = Run::new(&a, &b, database, Direction::BOTH, None);
    run.sessions[0].want(0, &hashes);
    run.pump();
    assert!(run.outcome.settled);
    assert_eq!(run.outcome.missing, hashes);
}
