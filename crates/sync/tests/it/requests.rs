//! Requests to be let in: what becomes of them is told to who asked and to nobody else, and until one is approved it gives
//! nothing. Also who is told that its right was revoked.

use crate::harness::{Asks, Node, Outcome, Run, join, sync};
use crate::rogue::{OPEN, Rogue};
use anabranch_core::author::Draft;
use anabranch_core::id::{DatabaseId, NodeId};
use anabranch_core::key::DeviceKey;
use anabranch_core::ops::{MemberOp, Role, Subject, TicketTerms};
use anabranch_sync::channel::Direction;
use anabranch_sync::frame::{Code, Frame, Request, TAKES_REQUESTS, Terms};
use anabranch_sync::rights::{Asked, Reason};
use anabranch_sync::session::Credentials;
use anabranch_sync::work::{Answer, Work};
use std::sync::{Arc, Mutex};

/// Of one who knows of nobody who may read here.
const STRANGE: Terms = Terms { sends: true, receives: true, you_may_read: false };

fn request() -> Request {
    Request { role: Role::Write, text: "I am Ana's laptop".into(), person: None }
}

fn newcomer(seed: u8, database: DatabaseId) -> Node {
    let node = Node::new(seed);
    node.prepare(database);
    node
}

/// Who asked, and how.
type Heard = Arc<Mutex<Vec<(NodeId, Request)>>>;

/// A host that says this to whoever asks, and writes down who did.
fn host(says: Option<Asked>) -> (Node, DatabaseId, Heard) {
    let mut host = Node::new(1);
    let database = host.create();
    host.put("a", "1");
    let heard = Heard::default();
    let hears = Arc::clone(&heard);
    host.asks = Asks(Some(Box::new(move |peer, request| {
        hears.lock().unwrap().push((*peer, request.clone()));
        says
    })));
    (host, database, heard)
}

fn grant(host: &mut Node, device: NodeId, role: Role) {
    let (subject, terms) = (Subject::Device(device), TicketTerms::default());
    let op = MemberOp::Grant { subject, role, priority: 0, terms };
    let draft = Draft { members: vec![op], ..Draft::default() };
    host.with(|ledger, author| ledger.commit(author, &draft).unwrap());
}

/// What the host sent beyond the greeting.
fn answers(outcome: &Outcome) -> Vec<Frame> {
    let greeting = |frame: &Frame| matches!(frame, Frame::Hello { .. } | Frame::Auth(_));
    let theirs = outcome.log.iter().filter(|(side, frame)| *side == 1 && !greeting(frame));
    theirs.map(|(_, frame)| frame.clone()).collect()
}

#[test]
fn who_asks_is_told_what_became_of_it_and_nothing_else() {
    let outcomes = [
        (Some(Asked::Waiting), Code::Waiting),
        (Some(Asked::Rejected), Code::Rejected),
        (Some(Asked::Full), Code::Limit),
        (Some(Asked::NotAdmin), Code::NotAdmin),
        (None, Code::NotServed),
    ];
    for (says, expected) in outcomes {
        let (host, database, heard) = host(says);
        let asker = newcomer(2, database);
        let outcome = Run::asking(&asker, &host, database, request()).outcome;
        assert_eq!(*heard.lock().unwrap(), [(asker.key.node_id(), request())]);
        let answers = answers(&outcome);
        let [Frame::Refused { code, .. }] = &answers[..] else { panic!("{answers:?}") };
        assert_eq!(*code, expected);
        assert_eq!(asker.view(|v| v.totals().unwrap().entries), 0);
    }
}

#[test]
fn a_request_that_is_not_taken_is_answered_as_if_the_database_were_not_here() {
    let (host, database, _) = host(None);
    let asker = newcomer(2, database);
    let taken = answers(&Run::asking(&asker, &host, database, request()).outcome);
    let mut elsewhere = Node::new(3);
    elsewhere.create();
    let mut rogue = Rogue::greet(&elsewhere, DeviceKey::from_seed(&[2; 32]), DatabaseId([9; 32]));
    rogue.request = Some(request());
    rogue.open(STRANGE, None);
    let (here, not_here) = (taken[0].encode(), rogue.got[rogue.got.len() - 1].encode());
    assert_eq!(here, not_here);
    assert_eq!(answers(&sync(&asker, &host, database)), taken, "nor is one who does not ask");
}

#[test]
fn who_is_approved_at_once_goes_on_on_the_same_channel() {
    let (mut host, database, _) = host(None);
    let writer = Mutex::new(host.same());
    host.asks = Asks(Some(Box::new(move |peer, request| {
        grant(&mut writer.lock().unwrap(), *peer, request.role);
        Some(Asked::Granted)
    })));
    let mut asker = newcomer(2, database);
    let outcome = Run::asking(&asker, &host, database, request()).outcome;
    assert!(outcome.settled, "{outcome:?}");
    assert_eq!(asker.values("a"), ["1"]);
    asker.put("b", "2");
    assert!(sync(&asker, &host, database).settled);
    assert_eq!(host.values("b"), ["2"]);
}

#[test]
fn an_admins_approval_counts_from_the_next_attempt_on() {
    let (mut host, database, heard) = host(Some(Asked::Waiting));
    let asker = newcomer(2, database);
    assert!(!Run::asking(&asker, &host, database, request()).outcome.settled);
    grant(&mut host, asker.key.node_id(), Role::Read);
    let outcome = Run::asking(&asker, &host, database, request()).outcome;
    assert!(outcome.settled, "{outcome:?}");
    assert_eq!(heard.lock().unwrap().len(), 1, "a member has nothing to ask for");
}

#[test]
fn a_program_that_takes_no_requests_is_sent_none() {
    let (host, database, _) = host(None);
    for (features, sent) in [(0, None), (TAKES_REQUESTS, Some(request()))] {
        let key = DeviceKey::from_seed(&[2; 32]);
        let mut peer = Rogue::greet_with(&host, key, database, features);
        let credentials = Credentials { request: Some(request()), ..Credentials::default() };
        peer.session.open(database, Direction::BOTH, credentials);
        peer.pump();
        let Some(Frame::Open { request, .. }) = peer.got.last() else { panic!("{:?}", peer.got) };
        assert_eq!(*request, sent);
    }
}

/// Answers what was put aside as if the peer's right had been revoked.
fn revoked(peer: &mut Rogue<'_>) {
    let (channel, work) = peer.held.remove(0);
    assert!(matches!(work, Work::Open { .. }), "{work:?}");
    let Answer::Open { digest, right: Err(_) } = peer.outcome(channel, work) else {
        panic!("a stranger may read")
    };
    let right = Err(Reason::Revoked);
    peer.session.answer(channel, Answer::Open { digest, right });
    peer.hold = false;
    peer.pump();
}

#[test]
fn who_lost_its_right_is_told_so() {
    let (host, database, _) = host(None);
    let mut peer = Rogue::greet(&host, DeviceKey::from_seed(&[2; 32]), database);
    peer.hold = true;
    peer.open(STRANGE, None);
    revoked(&mut peer);
    let Some(Frame::Refused { code: Code::Revoked, text, .. }) = peer.got.last() else {
        panic!("{:?}", peer.got)
    };
    assert!(text.contains("was revoked"), "{text}");
}

#[test]
fn who_lost_its_right_may_still_bring_what_gives_it_a_new_one() {
    let (mut host, database, _) = host(None);
    let member = join(&mut host, 2, database, Role::Write);
    let key = DeviceKey::from_seed(&[3; 32]);
    // It says that the host may read there, so it may have more to show.
    let mut peer = Rogue::greet(&host, key.clone(), database);
    peer.hold = true;
    peer.open(OPEN, None);
    revoked(&mut peer);
    assert!(matches!(peer.got.last(), Some(Frame::Opened { .. })), "{:?}", peer.got);
    peer.tips(&[]);
    peer.send(&Frame::Level { channel: 0, digest: None, busy: false });
    assert!(matches!(peer.closed[..], [(Code::Revoked, _)]), "{:?}", peer.closed);
    assert_eq!(peer.data(), 0);
    // Somebody else brings it first.
    let mut peer = Rogue::greet(&host, key.clone(), database);
    peer.hold = true;
    peer.open(OPEN, None);
    revoked(&mut peer);
    drop(member);
    grant(&mut host.same(), key.node_id(), Role::Read);
    peer.committed();
    peer.tips(&[]);
    peer.send(&Frame::Level { channel: 0, digest: None, busy: false });
    assert!(peer.closed.is_empty(), "{:?}", peer.closed);
    assert!(peer.data() > 0);
}
