//! Tickets as serving nodes see them: open, spent, expired, unknown, and for ever good for who redeemed them.

use crate::harness::{Node, Outcome, Run, join, sync};
use anabranch_core::entry::Timestamp;
use anabranch_core::id::DatabaseId;
use anabranch_core::key::DeviceKey;
use anabranch_core::ops::{Role, TicketTerms};
use anabranch_sync::channel::Direction;
use anabranch_sync::frame::Code;

const ONCE: TicketTerms = TicketTerms { limit: Some(1), expires: None };

fn newcomer(seed: u8, database: DatabaseId) -> Node {
    let node = Node::new(seed);
    node.prepare(database);
    node
}

fn show(node: &Node, host: &Node, database: DatabaseId, ticket: &DeviceKey) -> Outcome {
    Run::new(node, host, database, Direction::BOTH, Some(ticket)).outcome
}

fn refused(outcome: &Outcome, code: Code) {
    let [(1, found, text)] = &outcome.closed[..] else { panic!("{outcome:?}") };
    assert_eq!(*found, code, "{text}");
    assert!(text.contains("ask for a new one"), "{text}");
    assert_eq!(outcome.new, [0, 0]);
    assert_eq!(outcome.sent, 0);
}

#[test]
fn a_single_use_ticket_serves_one_device_and_that_one_again() {
    let mut host = Node::new(1);
    let database = host.create();
    (0..5).for_each(|i| _ = host.put(&format!("k{i}"), "v"));
    let ticket = host.ticket(Role::Write, ONCE);
    let mut first = newcomer(2, database);
    assert!(show(&first, &host, database, &ticket).settled);
    // Not redeemed yet, so the first to do it has it: two may read on it until then.
    let second = newcomer(3, database);
    assert!(show(&second, &host, database, &ticket).settled);
    first.redeem(&ticket);
    assert!(show(&first, &host, database, &ticket).settled, "redeemed, and told to the host");
    refused(&show(&newcomer(4, database), &host, database, &ticket), Code::TicketSpent);
    // The device that redeemed it lost everything but its key and comes back.
    let again = newcomer(2, database);
    let outcome = show(&again, &host, database, &ticket);
    assert!(outcome.settled, "{outcome:?}");
    assert_eq!(again.digest(), host.digest());
}

#[test]
fn an_expired_ticket_says_so_but_still_serves_who_redeemed_it() {
    let mut host = Node::new(1);
    let database = host.create();
    let end = host.clock + 1_000;
    let terms = TicketTerms { limit: None, expires: Some(Timestamp(end)) };
    let ticket = host.ticket(Role::Read, terms);
    let mut first = newcomer(2, database);
    assert!(show(&first, &host, database, &ticket).settled);
    first.redeem(&ticket);
    assert!(sync(&first, &host, database).settled);
    host.clock = end;
    refused(&show(&newcomer(3, database), &host, database, &ticket), Code::TicketExpired);
    assert!(show(&newcomer(2, database), &host, database, &ticket).settled);
    host.clock = end - 1;
    assert!(show(&newcomer(3, database), &host, database, &ticket).settled);
}

#[test]
fn an_unknown_ticket_says_so() {
    let mut host = Node::new(1);
    let database = host.create();
    let ticket = DeviceKey::from_seed(&[77; 32]);
    refused(&show(&newcomer(2, database), &host, database, &ticket), Code::TicketUnknown);
}

#[test]
fn a_member_may_show_any_ticket() {
    let mut host = Node::new(1);
    let database = host.create();
    let member = join(&mut host, 2, database, Role::Write);
    let ticket = DeviceKey::from_seed(&[77; 32]);
    assert!(show(&member, &host, database, &ticket).settled);
}

#[test]
fn a_ticket_is_shown_by_whoever_opens() {
    // The serving side may be the newcomer: it shows nothing, so neither knows the other.
    let mut host = Node::new(1);
    let database = host.create();
    let other = newcomer(2, database);
    let outcome = sync(&host, &other, database);
    assert!(!outcome.settled);
    assert!(matches!(&outcome.closed[..], [(_, Code::Strangers, _)]), "{outcome:?}");
}

#[test]
fn a_ticket_runs_out_in_the_middle_of_a_bootstrap() {
    let mut host = Node::new(1);
    let database = host.create();
    for i in 0..40 {
        host.put(&format!("k{i}"), &crate::harness::noise(i, 90_000));
    }
    let end = host.clock + 100;
    let terms = TicketTerms { limit: None, expires: Some(Timestamp(end)) };
    let ticket = host.ticket(Role::Read, terms);
    let newcomer = newcomer(2, database);
    let mut late = host.copy();
    late.clock = end + 1;
    // The right is looked up anew for each batch.
    let mut run = Run::cut(&newcomer, &host, database, Direction::BOTH, Some(&ticket), 12);
    assert!(run.outcome.sent > 0);
    run.nodes[1] = &late;
    run.pump();
    assert!(!run.outcome.settled);
    let [(_, Code::TicketExpired, text)] = &run.outcome.closed[..] else {
        panic!("{:?}", run.outcome)
    };
    assert!(text.contains("ask for a new one"), "{text}");
    assert!(newcomer.view(|v| v.totals().unwrap().entries) < 41);
}
