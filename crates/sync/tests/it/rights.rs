//! The right to read governs what is sent: strangers get no tips, no ids, no entries, no blobs, whatever they try; and
//! who has it gets everything, even from a node that has not heard of it yet.

use crate::harness::{Node, Run, join, sync};
use crate::net::Net;
use crate::rogue::{BINDING, OPEN, Rogue};
use anabranch_core::blob::ChunkHash;
use anabranch_core::entry::{Entry, GrantRef, Header, StoreId, Timestamp};
use anabranch_core::error::Error;
use anabranch_core::frontier::{Frontier, FrontierTip};
use anabranch_core::head::Head;
use anabranch_core::id::{DatabaseId, EntryId, LogId, Position};
use anabranch_core::key::{DeviceKey, Signature};
use anabranch_core::ops::{Role, Subject, TicketTerms};
use anabranch_core::run::Run as Entries;
use anabranch_core::storage::{Durability, Storage, Table};
use anabranch_sync::channel::{Channel, Direction};
use anabranch_sync::frame::{Code, Frame, Terms};

/// An entry in a log of `key`, signed, on top of whatever.
fn entry(
    key: &DeviceKey,
    database: DatabaseId,
    seq: u64,
    prev: Option<EntryId>,
    parents: Vec<Position>,
    generation: u64,
) -> Entry {
    let header = Header {
        database: Some(database),
        log: LogId { device: key.node_id(), epoch: 5 },
        seq,
        prev,
        parents,
        generation,
        timestamp: Timestamp(1),
        grant: GrantRef { entry: database.genesis(), index: 0 },
        payloads: vec![],
        salt: None,
    };
    Entry::new(header, vec![]).unwrap()
}

fn signed(key: &DeviceKey, database: DatabaseId, entry: Entry) -> Entries {
    let signature = Head::sign(key, &database, entry.position()).signature;
    let parents = entry.header().parents.iter().map(|_| Signature([0; 64])).collect();
    Entries::new(database, vec![entry], signature, parents)
}

/// Nothing of what the session said tells anything about the database.
fn learnt_nothing(rogue: &Rogue<'_>) {
    for frame in &rogue.got {
        match frame {
            Frame::Hello { .. } | Frame::Auth(_) | Frame::Credit { .. } | Frame::Bye { .. } => {}
            Frame::Refused { .. } | Frame::NoBlob { .. } => {}
            Frame::Opened { digest: None, terms: Terms { you_may_read: false, .. }, .. } => {}
            Frame::Level { digest: None, .. } => {}
            Frame::Tips { tips, .. } if tips.is_empty() => {}
            Frame::ForkPoint { held: None, .. } => {}
            frame => panic!("a stranger got {frame:?}"),
        }
    }
}

fn host() -> (Node, DatabaseId) {
    let mut host = Node::new(1);
    let database = host.create();
    (0..20).for_each(|i| _ = host.put(&format!("k{i}"), "secret"));
    (host, database)
}

fn stranger() -> DeviceKey {
    DeviceKey::from_seed(&[99; 32])
}

#[test]
fn a_stranger_is_turned_away() {
    let (host, database) = host();
    let other = Node::new(9);
    other.prepare(database);
    let outcome = sync(&other, &host, database);
    assert!(!outcome.settled);
    assert!(matches!(&outcome.closed[..], [(1, Code::Strangers, _)]), "{outcome:?}");
    assert_eq!(outcome.new, [0, 0]);
    assert!(other.view(|v| v.frontier().unwrap().is_empty()));
    // One that does not know the database's id cannot even ask.
    let mut rogue = Rogue::greet(&host, stranger(), DatabaseId([1; 32]));
    rogue.open(OPEN, None);
    learnt_nothing(&rogue);
    // A database that is not served is refused in the words for one that may not be read.
    let mut rogue = Rogue::greet(&host, stranger(), database);
    rogue.database = DatabaseId([1; 32]);
    rogue.open(OPEN, None);
    assert!(matches!(rogue.got.last(), Some(Frame::Refused { code: Code::NotServed, .. })));
}

#[test]
fn a_stranger_that_asks_for_everything_learns_nothing() {
    let (host, database) = host();
    let hash = ChunkHash::of(b"a blob");
    let mut tx = host.storage.write(Durability::Full).unwrap();
    tx.put(Table::Blob, &hash.0, b"a blob").unwrap();
    tx.commit().unwrap();
    let key = stranger();
    let mut rogue = Rogue::greet(&host, key.clone(), database);
    rogue.open(OPEN, None);
    rogue.tips(&[]);
    rogue.send(&Frame::Want { channel: 0, hashes: vec![hash] });
    rogue.send(&Frame::Level { channel: 0, digest: Some([1; 32]), busy: false });
    let log = LogId { device: key.node_id(), epoch: 1 };
    let position = Position { log, seq: 3, id: EntryId([1; 32]) };
    rogue.send(&Frame::Fork { channel: 0, samples: vec![position] });
    rogue.committed();
    learnt_nothing(&rogue);
    assert!(rogue.got.iter().any(|f| matches!(f, Frame::NoBlob { .. })));
    assert_eq!(rogue.closed, []);
}

#[test]
fn a_stranger_with_a_run_that_waits_learns_nothing() {
    let (host, database) = host();
    let key = stranger();
    // Whether it says first what it knows or not.
    for shows in [true, false] {
        let mut rogue = Rogue::greet(&host, key.clone(), database);
        rogue.open(OPEN, None);
        if shows {
            rogue.tips(&[]);
        }
        let entry = entry(&key, database, 7, Some(EntryId([7; 32])), vec![], 9);
        rogue.batch(&[signed(&key, database, entry)]);
        assert_eq!(rogue.closed, []);
        rogue.committed();
        learnt_nothing(&rogue);
    }
}

#[test]
fn a_stranger_that_knows_a_log_learns_nothing_of_it() {
    let (host, database) = host();
    let log = host.view(|v| v.own_log().unwrap().unwrap());
    let key = stranger();
    for seq in [1, 5, 1_000] {
        let position = Position { log, seq, id: EntryId([1; 32]) };
        let head = Head { position, signature: Signature([2; 64]) };
        let mut rogue = Rogue::greet(&host, key.clone(), database);
        rogue.open(OPEN, None);
        rogue.tips(&[FrontierTip { head }]);
        rogue.send(&Frame::Fork { channel: 0, samples: vec![position] });
        rogue.send(&Frame::ForkPoint { channel: 0, log, held: None });
        rogue.committed();
        learnt_nothing(&rogue);
    }
}

#[test]
fn a_ticket_of_somebody_else_opens_nothing() {
    let (mut host, database) = host();
    let ticket = host.ticket(Role::Read, TicketTerms::default());
    let thief = stranger();
    // A proof seen on another link, for another device.
    let mut honest = Rogue::greet(&host, DeviceKey::from_seed(&[98; 32]), database);
    honest.open(OPEN, Some(&ticket));
    assert!(matches!(
        honest.got.last(),
        Some(Frame::Level { .. } | Frame::Tips { .. } | Frame::Opened { .. })
    ));
    let mut w = anabranch_core::codec::Writer::new();
    w.array(3).bytes(&BINDING).bytes(&database.0).bytes(&honest.key.node_id().0);
    let context = anabranch_core::key::Context::TicketProof;
    let signature = ticket.sign(context, &w.finish());
    let stolen = anabranch_sync::frame::TicketProof { key: ticket.node_id(), signature };
    let mut rogue = Rogue::greet(&host, thief, database);
    let name = anabranch_core::codec::keyed_hash(&BINDING, &database.0);
    let (terms, digest, ticket) = (OPEN, None, Some(stolen));
    rogue.send(&Frame::Open {
        channel: 0,
        name,
        terms,
        digest,
        ticket,
        request: None,
        evidence: None,
    });
    rogue.tips(&[]);
    learnt_nothing(&rogue);
}

#[test]
fn a_device_must_prove_who_it_is() {
    let (host, database) = host();
    let member = host.key.node_id();
    // Under the name of a member, without its key.
    let mut rogue = Rogue::link(&host, stranger(), database);
    let Frame::Hello { versions, clock, features, .. } = rogue.hello() else { panic!() };
    rogue.send(&Frame::Hello { versions, node: member, clock, features });
    let message = rogue.greeting(true);
    rogue.send(&Frame::Auth(rogue.key.sign(anabranch_core::key::Context::Greeting, &message)));
    assert!(matches!(&rogue.closed[..], [(Code::Protocol, _)]), "{:?}", rogue.closed);
    // The session's own proof sent back to it.
    let mut rogue = Rogue::link(&host, stranger(), database);
    rogue.send(&Frame::Hello { versions, node: member, clock, features });
    let Some(Frame::Auth(own)) = rogue.got.last().cloned() else { panic!("{:?}", rogue.got) };
    rogue.send(&Frame::Auth(own));
    assert!(matches!(&rogue.closed[..], [(Code::Protocol, _)]), "{:?}", rogue.closed);
}

/// An entry of `key` on top of everything that `node` holds, with the first grant there is: not its own.
pub(crate) fn forged(node: &Node, key: &DeviceKey, database: DatabaseId) -> Entries {
    let tips = node.view(|v| v.frontier().unwrap());
    let grants = node.view(|v| v.grants().unwrap());
    let own = grants.iter().rfind(|g| g.subject == Subject::Device(key.node_id()));
    let parents: Vec<Position> = tips.positions().copied().collect();
    let generation = |p: &Position| node.view(|v| v.entry(p).unwrap().unwrap().header().generation);
    let generation = 1 + parents.iter().map(generation).max().unwrap();
    let mut header = entry(key, database, 1, None, parents, generation).header().clone();
    header.log.epoch = 666;
    // A reader's own grant does not let it write; a writer takes the admin's.
    header.grant = own.filter(|g| g.role == Role::Read).unwrap_or(&grants[0]).id;
    let forged = Entry::new(header, vec![]).unwrap();
    let signature = Head::sign(key, &database, forged.position()).signature;
    let heads = tips.tips().iter().map(|t| t.head.signature).collect();
    Entries::new(database, vec![forged], signature, heads)
}

#[test]
fn a_reader_gets_everything_and_changes_nothing() {
    let (mut host, database) = host();
    let mut reader = join(&mut host, 2, database, Role::Read);
    assert_eq!(reader.digest(), host.digest());
    let refused = reader
        .with(|ledger, author| ledger.commit(author, &crate::harness::draft(&[("k1", "mine")])));
    assert!(matches!(refused, Err(Error::NotPermitted { .. })));
    // Even if its program lets it: the node refuses, says why, and goes on with others.
    let tips = reader.view(|v| v.frontier().unwrap());
    let forged = forged(&host, &reader.key, database);
    let key = reader.key.clone();
    let before = (host.digest(), host.frontier());
    let mut rogue = Rogue::greet(&host, key, database);
    rogue.open(OPEN, None);
    rogue.frontier(&tips);
    rogue.batch(&[forged]);
    let [(Code::Protocol, text)] = &rogue.closed[..] else { panic!("{:?}", rogue.closed) };
    assert!(text.contains("right to write"), "{text}");
    assert_eq!((host.digest(), host.frontier()), before);
    assert!(sync(&reader, &host, database).settled);
}

#[test]
fn a_device_that_was_let_in_elsewhere_proves_it_to_a_third_node() {
    let (mut host, database) = host();
    let third = join(&mut host, 2, database, Role::Write);
    (0..600).for_each(|i| _ = host.put(&format!("later {i}"), "v"));
    let mut joiner = join(&mut host, 3, database, Role::Write);
    joiner.put("mine", "v");
    // The third node has never heard of the joiner; either may start.
    for opener in [true, false] {
        let mut third = third.copy();
        let joiner = joiner.copy();
        third.clock += 1;
        let outcome =
            if opener { sync(&joiner, &third, database) } else { sync(&third, &joiner, database) };
        assert!(outcome.settled, "{outcome:?}");
        assert_eq!(joiner.digest(), third.digest());
        assert_eq!(joiner.frontier(), third.frontier());
        assert_eq!(third.values("mine"), ["v"]);
        let duplicates = outcome.sent - outcome.new.iter().sum::<u64>();
        assert!(duplicates <= 300, "{outcome:?}");
    }
}

#[test]
fn a_device_let_in_elsewhere_gets_what_the_third_node_has_of_its_own() {
    let (mut host, database) = host();
    let mut third = join(&mut host, 2, database, Role::Write);
    let joiner = join(&mut host, 3, database, Role::Read);
    (0..50).for_each(|i| _ = third.put(&format!("third {i}"), "v"));
    let outcome = sync(&joiner, &third, database);
    assert!(outcome.settled, "{outcome:?}");
    assert_eq!(joiner.values("third 49"), ["v"]);
    assert_eq!(joiner.frontier(), third.frontier());
}

#[test]
fn word_of_a_membership_may_come_from_somebody_else_meanwhile() {
    for frames in 0..20 {
        let (mut host, database) = host();
        let mut third = join(&mut host, 2, database, Role::Write);
        let member = join(&mut host, 3, database, Role::Write);
        third.put("news", "of the third");
        let mut run = Run::cut(&member, &third, database, Direction::BOTH, None, frames);
        let outcome = sync(&host, &third, database);
        assert!(outcome.settled, "{outcome:?}");
        run.sessions[1].committed(database);
        run.pump();
        assert!(run.outcome.settled, "after {frames} frames: {:?}", run.outcome);
        assert_eq!(member.digest(), third.digest(), "after {frames} frames");
    }
}

#[test]
fn a_device_let_in_on_one_branch_of_a_fork_meets_a_node_on_the_other() {
    // The admin's log is forked, and the joiner's grant is on a branch that the third node does not have.
    let (mut host, database) = host();
    let third = join(&mut host, 2, database, Role::Write);
    let mut clone = host.copy();
    clone.epoch += 1 << 40;
    (0..40).for_each(|i| _ = clone.put(&format!("clone {i}"), "v"));
    assert!(sync(&clone, &third, database).settled);
    let joiner = join(&mut host, 3, database, Role::Write);
    for opener in [true, false] {
        let (third, joiner) = (third.copy(), joiner.copy());
        let outcome =
            if opener { sync(&joiner, &third, database) } else { sync(&third, &joiner, database) };
        assert!(outcome.settled, "{outcome:?}");
        assert_eq!(joiner.frontier(), third.frontier());
        assert_eq!(joiner.digest(), third.digest());
    }
}

#[test]
fn a_joiner_redeems_on_the_session_it_came_by() {
    let (mut host, database) = host();
    let ticket = host.ticket(Role::Write, TicketTerms::default());
    let joiner = Node::new(2);
    joiner.prepare(database);
    let mut writer = joiner.same();
    let mut run = Run::new(&joiner, &host, database, Direction::BOTH, Some(&ticket));
    assert!(run.outcome.settled, "{:?}", run.outcome);
    writer.redeem(&ticket);
    writer.put("mine", "v");
    run.sessions[0].committed(database);
    run.pump();
    assert!(run.outcome.settled, "{:?}", run.outcome);
    assert_eq!(host.values("mine"), ["v"]);
    assert_eq!(host.frontier(), joiner.frontier());
}

#[test]
fn one_way_with_who_is_not_known_yet_is_no_success() {
    let (mut host, database) = host();
    let mut third = join(&mut host, 2, database, Role::Write);
    third.put("news", "of the third");
    let member = join(&mut host, 3, database, Role::Write);
    let ways = [(&member, &third, Direction::PULL), (&third, &member, Direction::PUSH)];
    for (from, to, direction) in ways {
        let outcome = Run::new(from, to, database, direction, None).outcome;
        let [(0, Code::NotServed, text)] = &outcome.closed[..] else { panic!("{outcome:?}") };
        assert!(text.contains("both ways"), "{text}");
        assert_eq!(outcome.done, None);
    }
    assert!(sync(&member, &third, database).settled);
    for (from, to, direction) in ways {
        let outcome = Run::new(from, to, database, direction, None).outcome;
        assert!(outcome.settled, "{outcome:?}");
    }
}

#[test]
fn pushing_and_pulling_go_one_way() {
    let (mut host, database) = host();
    let mut other = join(&mut host, 2, database, Role::Write);
    host.put("from host", "v");
    other.put("from other", "v");
    let one_way = |direction| {
        let mut net = Net::new(database, vec![host.copy(), other.copy()]);
        net.link(0, 1, direction);
        net.settle();
        for end in &net.lines[0].ends {
            assert!(end.channel().is_some_and(Channel::is_settled), "{:#?}", end.channel());
        }
        let has = |n: usize, key| net.nodes[n].values(key).len() == 1;
        (has(1, "from host"), has(0, "from other"))
    };
    assert_eq!(one_way(Direction::PUSH), (true, false));
    assert_eq!(one_way(Direction::PULL), (false, true));
    assert_eq!(one_way(Direction::COMPARE), (false, false));
    assert_eq!(one_way(Direction::BOTH), (true, true));
    // What was not asked for is refused.
    let frontier = Frontier::default();
    let run = other.view(|v| {
        let mut out = anabranch_core::outgoing::Outgoing::new(v, &frontier).unwrap();
        out.next(v, anabranch_core::outgoing::Withhold::NOTHING).unwrap().unwrap()
    });
    let mut rogue = Rogue::greet(&host, other.key.clone(), database);
    rogue.session.serve(database, Direction::PUSH);
    rogue.open(OPEN, None);
    rogue.frontier(&frontier);
    rogue.batch(&[run]);
    assert!(matches!(&rogue.closed[..], [(Code::Protocol, _)]), "{:?}", rogue.closed);
    assert!(host.view(|v| v.stores().unwrap()).iter().any(|s| s.id == StoreId::table("t")));
}
