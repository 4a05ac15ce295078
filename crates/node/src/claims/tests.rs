use super::*;
use anabranch_core::id::{EntryId, LogId};
use std::slice::from_ref;

const PATIENCE: Duration = Duration::from_secs(10);

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn device(n: u8) -> NodeId {
    NodeId([n; 32])
}

/// The channel to device `n`.
fn source(n: u8) -> Source {
    (u64::from(n), 0)
}

fn stand(n: u8, fed: bool) -> Stand {
    Stand { peer: device(n), able: true, reads: true, proves: false, fed, taking: false }
}

fn new(devices: &[u8]) -> Authors {
    Authors { new: devices.iter().map(|n| device(*n)).collect(), ..Authors::default() }
}

fn again(devices: &[u8]) -> Authors {
    Authors { again: devices.iter().map(|n| device(*n)).collect(), ..Authors::default() }
}

/// Claims with these channels, which bring nothing at the moment.
fn level(peers: &[u8]) -> Claims {
    let mut claims = Claims::new(PATIENCE);
    peers.iter().for_each(|n| claims.stands(source(*n), stand(*n, true), at(0)));
    assert!(!claims.has_orders());
    claims
}

/// Place `seq` of the log of device `n`.
fn place(n: u8, seq: u64) -> Position {
    Position { log: LogId { device: device(n), epoch: 1 }, seq, id: EntryId([n; 32]) }
}

fn hold(devices: &[u8]) -> Order {
    Order::Hold(devices.iter().map(|n| device(*n)).collect())
}

fn resume(devices: &[u8]) -> Order {
    Order::Resume(devices.iter().map(|n| device(*n)).collect())
}

#[test]
fn one_after_the_other_catches_up() {
    let mut claims = Claims::new(PATIENCE);
    (1..=3).for_each(|n| claims.stands(source(n), stand(n, false), at(0)));
    assert_eq!(claims.orders(source(1)), []);
    assert_eq!(claims.orders(source(2)), [hold(&[])]);
    assert_eq!(claims.orders(source(3)), [hold(&[])]);
    claims.stands(source(1), stand(1, true), at(1));
    assert_eq!(claims.orders(source(2)), [resume(&[])]);
    assert_eq!(claims.orders(source(3)), []);
    claims.leave(source(2), at(2));
    assert_eq!(claims.orders(source(3)), [resume(&[])]);
}

#[test]
fn who_brings_nothing_gives_way() {
    let mut claims = Claims::new(PATIENCE);
    (1..=2).for_each(|n| claims.stands(source(n), stand(n, false), at(0)));
    claims.orders(source(2));
    claims.brought(source(1), &new(&[1]), at(9));
    assert_eq!(claims.wakes(source(2), at(9)), Some(at(19)));
    claims.check(at(18));
    assert!(!claims.has_orders());
    claims.check(at(19));
    assert_eq!(claims.orders(source(1)), [hold(&[])]);
    assert_eq!(claims.orders(source(2)), [resume(&[])]);
    // If that does not help either, it is the first one's turn again.
    claims.check(at(29));
    assert_eq!(claims.orders(source(1)), [resume(&[])]);
}

#[test]
fn what_is_still_being_applied_is_nobodys_delay() {
    let mut claims = Claims::new(PATIENCE);
    (1..=2).for_each(|n| claims.stands(source(n), stand(n, false), at(0)));
    claims.orders(source(2));
    claims.stands(source(1), Stand { taking: true, ..stand(1, false) }, at(1));
    claims.check(at(30));
    assert!(!claims.has_orders());
    claims.stands(source(1), stand(1, false), at(31));
    claims.check(at(40));
    assert!(!claims.has_orders());
    claims.check(at(41));
    assert_eq!(claims.orders(source(2)), [resume(&[])]);
}

#[test]
fn who_sends_little_for_ever_keeps_nobody_waiting_for_ever() {
    let mut claims = Claims::new(PATIENCE);
    (1..=2).for_each(|n| claims.stands(source(n), stand(n, false), at(0)));
    claims.orders(source(2));
    let waited = (1..1_000).find(|second| {
        claims.brought(source(1), &new(&[1]), at(*second));
        claims.check(at(*second));
        claims.has_orders()
    });
    assert_eq!(waited, Some(u64::from(TURN) * 10));
    assert_eq!(claims.orders(source(2)), [resume(&[])]);
}

#[test]
fn who_cannot_be_told_is_told_nothing() {
    let mut claims = Claims::new(PATIENCE);
    claims.stands(source(1), stand(1, false), at(0));
    claims.stands(source(2), Stand { able: false, ..stand(2, false) }, at(0));
    claims.brought(source(1), &new(&[9]), at(1));
    claims.brought(source(2), &again(&[9]), at(1));
    assert!(!claims.has_orders());
}

#[test]
fn what_a_device_writes_is_taken_from_itself() {
    let mut claims = level(&[1, 2, 3]);
    // The second was faster once.
    claims.brought(source(2), &new(&[1]), at(1));
    claims.brought(source(1), &again(&[1]), at(1));
    assert_eq!(claims.orders(source(2)), [hold(&[1])]);
    assert_eq!(claims.orders(source(1)), []);
    claims.brought(source(3), &again(&[1]), at(1));
    assert_eq!(claims.orders(source(3)), [hold(&[1])]);
    // What was under way when it heard.
    claims.brought(source(3), &again(&[1]), at(1));
    assert!(!claims.has_orders());
    claims.leave(source(1), at(2));
    assert_eq!(claims.orders(source(2)), [resume(&[1])]);
    assert_eq!(claims.orders(source(3)), [resume(&[1])]);
}

#[test]
fn of_two_who_pass_something_on_the_first_goes_on() {
    let mut claims = level(&[1, 2]);
    claims.brought(source(1), &new(&[9]), at(1));
    claims.brought(source(2), &again(&[9]), at(1));
    assert_eq!(claims.orders(source(2)), [hold(&[9])]);
    // It was ahead with what it had sent before it heard; the claim stays where it is, or both would be told to stop.
    claims.brought(source(2), &new(&[9]), at(1));
    claims.brought(source(1), &again(&[9]), at(1));
    assert!(!claims.has_orders());
}

#[test]
fn an_offer_is_taken_when_it_is_not_made_good() {
    let mut claims = level(&[1, 2]);
    claims.brought(source(1), &new(&[9]), at(1));
    claims.brought(source(2), &again(&[9]), at(1));
    claims.orders(source(2));
    let nine = BTreeSet::from([place(9, 1)]);
    claims.offered(source(2), &nine, at(5));
    assert_eq!(claims.wakes(source(2), at(5)), Some(at(15)));
    // Whoever claims it is at it.
    claims.brought(source(1), &new(&[9]), at(8));
    claims.check(at(17));
    assert!(!claims.has_orders());
    claims.check(at(18));
    assert_eq!(claims.orders(source(2)), [resume(&[9])]);
    assert_eq!(claims.wakes(source(2), at(18)), None);
    // From now on the second brings it.
    claims.brought(source(1), &again(&[9]), at(19));
    assert_eq!(claims.orders(source(1)), [hold(&[9])]);
}

#[test]
fn an_offer_that_nobody_claims_is_taken_at_once() {
    let mut claims = level(&[1, 2]);
    claims.brought(source(1), &new(&[9]), at(1));
    claims.brought(source(2), &again(&[9]), at(1));
    claims.orders(source(2));
    claims.leave(source(1), at(2));
    assert_eq!(claims.orders(source(2)), [resume(&[9])]);
    // It had said so before it heard.
    claims.offered(source(2), &BTreeSet::from([place(9, 1)]), at(2));
    assert!(!claims.has_orders(), "nothing is withheld any more");
}

#[test]
fn claims_are_bounded() {
    let mut claims = level(&[1, 2]);
    let many = |n: usize| {
        let mut id = [7; 32];
        id[..8].copy_from_slice(&(n as u64).to_be_bytes());
        NodeId(id)
    };
    for n in 0..2 * CLAIMS {
        let author = BTreeSet::from([many(n)]);
        claims.brought(source(1), &Authors { new: author.clone(), ..Authors::default() }, at(1));
        claims.brought(source(2), &Authors { again: author, ..Authors::default() }, at(1));
    }
    assert_eq!(claims.claims.len(), CLAIMS);
    let told: usize = claims
        .orders(source(2))
        .iter()
        .map(|order| match order {
            Order::Hold(devices) => devices.len(),
            Order::Resume(_) => 0,
        })
        .sum();
    assert_eq!(told, CLAIMS);
    let one = many(3);
    claims.want(source(2), &from_ref(&one).iter().copied().collect());
    assert_eq!(claims.orders(source(2)), [Order::Resume(vec![one])]);
}

#[test]
fn who_offers_without_end_keeps_nobody_waiting_for_ever() {
    let mut claims = Claims::new(PATIENCE);
    (1..=2).for_each(|n| claims.stands(source(n), stand(n, false), at(0)));
    claims.orders(source(2));
    let waited = (1..1_000).find(|second| {
        claims.overflowed(source(1), at(*second));
        claims.orders(source(1));
        claims.stands(source(1), stand(1, false), at(*second));
        claims.check(at(*second));
        claims.has_orders()
    });
    assert_eq!(waited, Some(PATIENCE.as_secs()));
    assert_eq!(claims.orders(source(2)), [resume(&[])]);
}

#[test]
fn who_is_to_be_told_more_than_before_is_rung_for() {
    let mut claims = level(&[1, 2, 3]);
    claims.brought(source(1), &new(&[9]), at(1));
    claims.brought(source(2), &again(&[9]), at(1));
    assert!(claims.rings());
    assert!(!claims.rings(), "once");
    // Another one while the second has not looked yet.
    claims.brought(source(3), &again(&[9]), at(1));
    assert!(claims.rings());
    claims.brought(source(3), &again(&[9]), at(1));
    assert!(!claims.rings());
    claims.leave(source(1), at(2));
    claims.orders(source(2));
    claims.orders(source(3));
    assert!(!claims.rings(), "nobody else");
}

#[test]
fn who_has_to_prove_its_right_first_neither_waits_nor_is_waited_for() {
    let newcomer = Stand { reads: false, proves: true, ..stand(2, false) };
    let mut claims = Claims::new(PATIENCE);
    claims.stands(source(1), stand(1, false), at(0));
    claims.stands(source(2), newcomer, at(0));
    claims.check(at(10));
    assert!(!claims.has_orders());
    // The right shown, it waits as all do.
    claims.stands(source(1), Stand { taking: true, ..stand(1, false) }, at(11));
    claims.stands(source(2), stand(2, false), at(12));
    assert_eq!(claims.orders(source(2)), [hold(&[])]);
    let mut claims = Claims::new(PATIENCE);
    claims.stands(source(2), newcomer, at(0));
    claims.stands(source(1), stand(1, false), at(0));
    assert!(!claims.has_orders());
    claims.stands(source(3), stand(3, false), at(0));
    assert_eq!(claims.orders(source(3)), [hold(&[])]);
    claims.stands(source(1), stand(1, true), at(1));
    assert_eq!(claims.orders(source(2)), []);
    assert_eq!(claims.orders(source(3)), [resume(&[])]);
}

#[test]
fn a_claim_is_not_kept_alive_by_bringing_other_entries() {
    let claimed = || {
        let mut claims = level(&[1, 2]);
        claims.brought(source(1), &new(&[9]), at(0));
        claims.brought(source(2), &again(&[9]), at(0));
        claims.orders(source(2));
        claims
    };
    // The first drips, and what the second has never comes.
    let mut claims = claimed();
    let taken = (1..1_000).find(|second| {
        claims.brought(source(1), &new(&[9]), at(*second));
        claims.offered(
            source(2),
            &BTreeSet::from([place(9, 70), place(9, 70 + second)]),
            at(*second),
        );
        claims.has_orders()
    });
    assert_eq!(taken, Some(1 + u64::from(TURN) * PATIENCE.as_secs()));
    assert_eq!(claims.orders(source(2)), [resume(&[9])]);
    // The first keeps up with a second that is always a little ahead.
    let mut claims = claimed();
    for second in 1..1_000 {
        claims.brought(source(1), &new(&[9]), at(second));
        claims.offered(source(2), &BTreeSet::from([place(9, second)]), at(second));
        assert!(!claims.has_orders(), "{second}");
    }
}

#[test]
fn who_comes_on_many_channels_has_one_turn() {
    let mut claims = Claims::new(PATIENCE);
    (11..=14).for_each(|n| claims.stands(source(n), stand(1, false), at(0)));
    claims.stands(source(2), stand(2, false), at(0));
    (11..=14).for_each(|n| _ = claims.orders(source(n)));
    assert_eq!(claims.orders(source(2)), [hold(&[])]);
    claims.check(at(10));
    // Another of them, since it was in the queue first, and one only.
    assert_eq!(claims.orders(source(11)), [hold(&[])]);
    let told: Vec<Order> = (12..=14).flat_map(|n| claims.orders(source(n))).collect();
    assert_eq!(told, [resume(&[])]);
    claims.check(at(20));
    assert_eq!(claims.orders(source(2)), [resume(&[])]);
    claims.stands(source(2), stand(2, true), at(21));
    let told: Vec<Order> = (11..=14).flat_map(|n| claims.orders(source(n))).collect();
    assert_eq!(told, [hold(&[]), resume(&[])], "the one after the other");
}

#[test]
fn who_comes_anew_over_and_over_keeps_nobody_waiting_for_ever() {
    let unable = Stand { able: false, ..stand(1, false) };
    let mut claims = Claims::new(PATIENCE);
    claims.stands(source(10), unable, at(0));
    claims.stands(source(2), stand(2, false), at(0));
    assert_eq!(claims.orders(source(2)), [hold(&[])]);
    let mut last = 10;
    let waited = (1..1_000).find(|second| {
        if second % 50 == 0 {
            claims.stands(source(last + 1), unable, at(*second));
            claims.leave(source(last), at(*second));
            last += 1;
        }
        claims.brought(source(last), &new(&[1]), at(*second));
        assert!(claims.wakes(source(2), at(*second)).is_some_and(|wakes| wakes <= at(60)));
        claims.check(at(*second));
        claims.has_orders()
    });
    assert_eq!(waited, Some(u64::from(TURN) * PATIENCE.as_secs()));
    assert_eq!(claims.orders(source(2)), [resume(&[])]);
}

#[test]
fn whoever_waits_and_leaves_takes_no_turn() {
    let mut claims = Claims::new(PATIENCE);
    (1..=3).for_each(|n| claims.stands(source(n), stand(n, false), at(0)));
    claims.stands(source(12), stand(2, false), at(0));
    (1..=3).for_each(|n| _ = claims.orders(source(n)));
    claims.orders(source(12));
    claims.leave(source(2), at(1));
    claims.leave(source(12), at(1));
    claims.stands(source(1), stand(1, true), at(2));
    assert_eq!(claims.orders(source(3)), [resume(&[])]);
}

#[test]
fn an_empty_replica_that_cannot_tell_who_may_read_lets_one_after_the_other_catch_it_up() {
    let unknown = |n| Stand { reads: false, ..stand(n, false) };
    let mut claims = Claims::new(PATIENCE);
    (1..=2).for_each(|n| claims.stands(source(n), unknown(n), at(0)));
    assert_eq!(claims.orders(source(2)), [hold(&[])]);
    // It holds something by now that does not name them yet.
    (1..=2).for_each(|n| claims.stands(source(n), Stand { proves: true, ..unknown(n) }, at(1)));
    claims.check(at(1));
    assert!(!claims.has_orders());
}
