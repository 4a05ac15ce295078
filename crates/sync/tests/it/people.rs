//! Devices of people to whom something is granted: what they show lets them in, and nothing else does.

use crate::harness::{Node, Run, sync};
use crate::rogue::{OPEN, Rogue};
use anabranch_core::author::Draft;
use anabranch_core::id::DatabaseId;
use anabranch_core::ops::{Cut, MemberOp, Role, Subject, TicketTerms};
use anabranch_core::person::Evidence;
use anabranch_sync::channel::Direction;
use anabranch_sync::frame::{Code, Frame, KNOWS_PEOPLE, Request, TAKES_REQUESTS, Terms};
use anabranch_sync::session::Credentials;

/// Of one who knows of nobody who may read here.
const STRANGE: Terms = Terms { sends: true, receives: true, you_may_read: false };

/// A person whose only device is the one with this key.
fn person(seed: u8) -> (Node, DatabaseId) {
    let mut node = Node::new(seed);
    let database = node.create();
    (node, database)
}

fn evidence(person: &Node) -> Evidence {
    person.view(|view| Evidence::of(view).unwrap())
}

fn request(person: DatabaseId) -> Request {
    Request { role: Role::Read, text: "it is mine".into(), person: Some(person) }
}

fn change(node: &mut Node, op: MemberOp) {
    let draft = Draft { members: vec![op], ..Draft::default() };
    node.with(|ledger, author| ledger.commit(author, &draft).unwrap());
}

fn grant(subject: Subject, role: Role) -> MemberOp {
    MemberOp::Grant { subject, role, priority: 0, terms: TicketTerms::default() }
}

/// A host that grants to the person.
fn host(person: DatabaseId) -> (Node, DatabaseId) {
    let mut host = Node::new(1);
    let database = host.create();
    host.put("a", "1");
    change(&mut host, grant(Subject::Person(person), Role::Write));
    (host, database)
}

/// What a device with that key is told that shows this.
fn answer(host: &Node, database: DatabaseId, seed: u8, shows: (DatabaseId, Vec<u8>)) -> Frame {
    let mut rogue = Rogue::greet(host, Node::new(seed).key, database);
    (rogue.request, rogue.evidence) = (Some(request(shows.0)), Some(shows.1));
    rogue.open(STRANGE, None);
    let answers = |frame: &Frame| matches!(frame, Frame::Opened { .. } | Frame::Refused { .. });
    rogue.got.into_iter().find(answers).unwrap()
}

#[test]
fn a_device_that_shows_whose_it_is_gets_in() {
    let (home, person) = person(2);
    let (host, database) = host(person);
    let mut asker = Node::new(2);
    asker.prepare(database);
    let shown = evidence(&home);
    let shows = (request(person), shown.encode());
    let outcome = Run::showing(&asker, &host, database, shows).outcome;
    assert!(outcome.settled, "{outcome:?}");
    assert_eq!(asker.values("a"), ["1"]);
    // What it writes then is as good as a member's.
    asker.with(|ledger, author| ledger.embed(author, &shown).unwrap());
    asker.put("b", "2");
    assert!(sync(&asker, &host, database).settled);
    assert_eq!(host.values("b"), ["2"]);
}

#[test]
fn what_shows_nothing_is_answered_as_if_the_database_were_not_here() {
    let (home, person) = person(2);
    let (mut host, database) = host(person);
    let good = evidence(&home).encode();
    let opened = answer(&host, database, 2, (person, good.clone()));
    assert!(matches!(opened, Frame::Opened { .. }), "{opened:?}");
    let refused = answer(&host, database, 3, (database, vec![0x80]));
    assert!(matches!(refused, Frame::Refused { code: Code::NotServed, .. }), "{refused:?}");
    let mut spoilt = good.clone();
    *spoilt.last_mut().unwrap() ^= 1;
    let (other, stranger) = self::person(3);
    let cases = [
        ("another device", 3, (person, good.clone())),
        ("a byte is wrong", 2, (person, spoilt)),
        ("nothing", 2, (person, vec![])),
        ("no entries", 2, (person, vec![0x80])),
        ("about somebody else", 3, (person, evidence(&other).encode())),
        ("somebody to whom nothing is granted", 3, (stranger, evidence(&other).encode())),
    ];
    for (name, seed, shows) in cases {
        assert_eq!(answer(&host, database, seed, shows), refused, "{name}");
    }
    // Nor once the grant was revoked.
    let grants = host.view(|view| view.grants().unwrap());
    let grant = grants.iter().find(|g| g.subject == Subject::Person(person)).unwrap().id;
    change(&mut host, MemberOp::Revoke { grant, cut: Cut::Past });
    assert_eq!(answer(&host, database, 2, (person, good)), refused);
}

/// Somebody told what became of it since, so that what it shows is old.
#[test]
fn a_device_that_was_put_out_shows_in_vain_what_was() {
    let (mut home, person) = person(2);
    let (mut host, database) = host(person);
    let lost = Node::new(4).key.node_id();
    change(&mut home, grant(Subject::Device(lost), Role::Write));
    let old = evidence(&home).encode();
    let shows = |host: &Node| answer(host, database, 4, (person, old.clone()));
    assert!(matches!(shows(&host), Frame::Opened { .. }));
    let grants = home.view(|view| view.grants().unwrap());
    let grant = grants.iter().find(|g| g.subject == Subject::Device(lost)).unwrap().id;
    change(&mut home, MemberOp::Revoke { grant, cut: Cut::Past });
    assert!(matches!(shows(&host), Frame::Opened { .. }), "nobody has told yet");
    let mut laptop = Node::new(2);
    laptop.prepare(database);
    let now = evidence(&home);
    let told = (request(person), now.encode());
    assert!(Run::showing(&laptop, &host, database, told).outcome.settled);
    laptop.with(|ledger, author| ledger.embed(author, &now).unwrap());
    assert!(sync(&laptop, &host, database).settled);
    assert!(matches!(shows(&host), Frame::Refused { .. }));
    host.put("c", "3");
    // It says that it was let in before; what it may prove that way is nothing.
    let mut rogue = Rogue::greet(&host, Node::new(4).key, database);
    (rogue.request, rogue.evidence) = (Some(request(person)), Some(old));
    rogue.open(OPEN, None);
    rogue.tips(&[]);
    assert_eq!(rogue.data(), 0);
}

#[test]
fn a_program_that_knows_no_people_is_shown_none() {
    let (home, person) = person(2);
    let (host, database) = host(person);
    let shown = evidence(&home).encode();
    for (features, sent) in [
        (TAKES_REQUESTS, (Some(Request { person: None, ..request(person) }), None)),
        (TAKES_REQUESTS | KNOWS_PEOPLE, (Some(request(person)), Some(shown.clone()))),
        (KNOWS_PEOPLE, (None, None)),
    ] {
        let mut peer = Rogue::greet_with(&host, Node::new(2).key, database, features);
        let (request, evidence) = (Some(request(person)), Some(shown.clone()));
        let credentials = Credentials { request, evidence, ticket: None };
        peer.session.open(database, Direction::BOTH, credentials);
        peer.pump();
        let Some(Frame::Open { request, evidence, .. }) = peer.got.last() else {
            panic!("{:?}", peer.got)
        };
        assert_eq!((request, evidence), (&sent.0, &sent.1));
    }
}
