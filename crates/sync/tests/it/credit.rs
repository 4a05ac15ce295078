//! A slow or hostile receiver bounds the sender, a hostile sender is stopped by the receiver (I7).

use crate::harness::{Node, join, noise};
use crate::rogue::{OPEN, Rogue};
use anabranch_core::blob::ChunkHash;
use anabranch_core::frontier::Frontier;
use anabranch_core::id::DatabaseId;
use anabranch_core::ops::Role;
use anabranch_core::outgoing::{Outgoing, Withhold};
use anabranch_core::run::Run;
use anabranch_core::storage::{Durability, Storage, Table};
use anabranch_sync::channel::{CREDIT, Direction};
use anabranch_sync::frame::{Code, DATA_BYTES, Frame};

const MOST: u64 = CREDIT as u64 + DATA_BYTES as u64;

/// A host with megabytes of entries, and a member.
fn loaded() -> (Node, Node, DatabaseId) {
    let mut host = Node::new(1);
    let database = host.create();
    let member = join(&mut host, 2, database, Role::Write);
    for n in 0..40 {
        let mut write = crate::harness::put(&format!("{n}"), "");
        // Two neighbours do not fit into one run, and both fit into one batch.
        write.value = Some(noise(n, if n % 2 == 0 { 100_000 } else { 180_000 }).into_bytes());
        let draft = anabranch_core::author::Draft { writes: vec![write], ..Default::default() };
        host.with(|ledger, author| ledger.commit(author, &draft).unwrap());
    }
    (host, member, database)
}

fn blobs(node: &Node, count: u64, len: usize) -> Vec<ChunkHash> {
    let mut tx = node.storage.write(Durability::Normal).unwrap();
    let hashes = (0..count).map(|n| {
        let bytes = noise(1_000 + n, len).into_bytes();
        let hash = ChunkHash::of(&bytes);
        tx.put(Table::Blob, &hash.0, &bytes).unwrap();
        hash
    });
    let hashes = hashes.collect();
    tx.commit().unwrap();
    hashes
}

fn runs(node: &Node) -> Vec<Run> {
    node.view(|v| {
        let mut out = Outgoing::new(v, &Frontier::default()).unwrap();
        std::iter::from_fn(|| out.next(v, Withhold::NOTHING).unwrap()).collect()
    })
}

#[test]
fn a_receiver_that_acknowledges_nothing_gets_no_more_than_its_credit() {
    let (host, member, database) = loaded();
    let hashes = blobs(&host, 20, 380_000);
    let mut rogue = Rogue::greet(&host, member.key.clone(), database);
    rogue.open(OPEN, None);
    rogue.frontier(&Frontier::default());
    rogue.send(&Frame::Want { channel: 0, hashes });
    (0..20).for_each(|_| rogue.committed());
    assert!(rogue.data() > u64::from(CREDIT) / 2);
    assert!(rogue.data() <= MOST, "{}", rogue.data());
    // Each acknowledgement lets as much more through.
    for n in 1..=30 {
        rogue.send(&Frame::Credit { channel: 0, bytes: 300_000 });
        assert!(rogue.data() <= n * 300_000 + MOST, "{}", rogue.data());
    }
    assert!(rogue.data() > 5_000_000);
}

#[test]
fn blobs_and_entries_together_keep_to_the_credit() {
    let (host, member, database) = loaded();
    let hashes = blobs(&host, 4, 390_000);
    let mut rogue = Rogue::greet(&host, member.key.clone(), database);
    rogue.open(OPEN, None);
    rogue.hold = true;
    rogue.frontier(&Frontier::default());
    // The wish comes while two batches have left and the next is being put together.
    while rogue.data() < 400_000 {
        assert!(rogue.release());
    }
    rogue.send(&Frame::Want { channel: 0, hashes });
    while rogue.release() {}
    assert!(rogue.data() <= MOST, "{}", rogue.data());
    assert_eq!(rogue.closed, []);
}

#[test]
fn a_sender_that_ignores_the_credit_is_stopped() {
    let (host, member, database) = loaded();
    let mut empty = Node::new(7);
    empty.prepare(database);
    empty.clock += 1;
    let mut rogue = Rogue::greet(&empty, member.key.clone(), database);
    rogue.open(OPEN, None);
    rogue.hold = true;
    for run in runs(&host) {
        rogue.batch(&[run]);
    }
    assert!(matches!(&rogue.closed[..], [(Code::Limit, _)]), "{:?}", rogue.closed);
}

#[test]
fn credit_that_was_never_spent_is_refused() {
    let (host, member, database) = loaded();
    let mut rogue = Rogue::greet(&host, member.key.clone(), database);
    rogue.open(OPEN, None);
    rogue.send(&Frame::Credit { channel: 0, bytes: 1 });
    assert!(matches!(&rogue.closed[..], [(Code::Protocol, _)]), "{:?}", rogue.closed);
}

#[test]
fn empty_data_takes_no_memory() {
    let (host, member, database) = loaded();
    let batch = Frame::Batch { channel: 0, raw: 0, bytes: vec![] };
    let hash = ChunkHash::of(b"");
    let blob = Frame::Blob { channel: 0, hash, bytes: vec![] };
    for frame in [batch, blob] {
        let mut rogue = Rogue::greet(&host, member.key.clone(), database);
        rogue.open(OPEN, None);
        rogue.hold = true;
        rogue.session.want(0, &[hash]);
        for _ in 0..5_000 {
            rogue.session.receive(&frame.encode());
        }
        rogue.pump();
        assert!(matches!(&rogue.closed[..], [(Code::Protocol, _)]), "{:?}", rogue.closed);
    }
}

#[test]
fn a_side_that_only_receives_remembers_nothing_of_it() {
    let (host, member, database) = loaded();
    let empty = Node::new(7);
    empty.prepare(database);
    for direction in [Direction::PULL, Direction::BOTH] {
        let empty = empty.copy();
        let mut rogue = Rogue::greet(&empty, member.key.clone(), database);
        rogue.session.serve(database, direction);
        rogue.open(OPEN, None);
        rogue.frontier(&Frontier::default());
        rogue.hold = true;
        let run = runs(&host).remove(0);
        let mut most = 0;
        for n in 0..20_000 {
            rogue.hold = n % 16 != 0;
            if n % 16 == 0 {
                while rogue.release() {}
            }
            rogue.batch(std::slice::from_ref(&run));
            if n > 40 {
                let len = format!("{:?}", rogue.session.channel(0)).len();
                most = most.max(len);
            }
            if n == 400 {
                break;
            }
        }
        assert_eq!(rogue.closed, []);
        assert!(most < 40_000, "{most}");
    }
}

#[test]
fn one_database_is_open_once_on_a_session() {
    let (host, member, database) = loaded();
    let mut rogue = Rogue::greet(&host, member.key.clone(), database);
    rogue.open_as(0, OPEN, None);
    rogue.open_as(2, OPEN, None);
    let refused =
        rogue.got.iter().any(|f| matches!(f, Frame::Refused { channel: 2, code: Code::Limit, .. }));
    assert!(refused, "{:?}", rogue.got);
    assert!(rogue.session.channel(0).is_some() && rogue.session.channel(2).is_none());
    // Once it is closed it may be opened again.
    rogue.send(&Frame::Refused { channel: 0, code: Code::Done, text: String::new() });
    rogue.open_as(4, OPEN, None);
    assert!(rogue.session.channel(4).is_some());
}
