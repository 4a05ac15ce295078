//! What this device writes: drafts, own mistakes, clocks, and state directories that were copied or rolled back (I6).

use crate::replica::{Device, Replica, write};
use crate::world::grant;
use anabranch_core::author::{Draft, Seen, Step, Tally, Write};
use anabranch_core::counters::{Count, CountOp, decode_counts};
use anabranch_core::entry::{StoreId, StoreKind, Timestamp};
use anabranch_core::error::Error;
use anabranch_core::id::NodeId;
use anabranch_core::key::{DeviceKey, Signature};
use anabranch_core::limits;
use anabranch_core::ops::{Cut, MemberOp, Role, Subject, ValueName};
use anabranch_core::path::Path;
use anabranch_reference::fold;

fn draft(writes: Vec<Write>) -> Draft {
    Draft { writes, ..Draft::default() }
}

/// Everything written so far can be replayed by a new peer and means the same there.
fn replayable(device: &mut Device) {
    device.seal();
    let other = Replica::empty(device.replica.database);
    device.replica.update(&other, usize::MAX);
    assert_eq!(other.digests(), device.replica.digests());
    assert_eq!(other.state(), fold(&device.replica.entries()));
}

#[test]
fn a_group_of_commits_sees_what_its_own_members_wrote() {
    let mut device = Device::found();
    // A copied state directory, so that the group starts a new log.
    device.instance = [9; 32];
    device
        .act(|ledger, author| {
            ledger.commit(author, &draft(vec![write(&["a"], Some("1"))]))?;
            ledger.commit(author, &draft(vec![write(&["a"], Some("2"))]))?;
            let below = Write { below: true, ..write(&["a"], None) };
            ledger.commit(author, &draft(vec![write(&["a", "b"], Some("3"))]))?;
            ledger.commit(author, &draft(vec![below]))?;
            ledger.commit(author, &draft(vec![write(&["c"], Some("4"))]))
        })
        .unwrap();
    assert!(device.values(&["a"]).is_empty() && device.values(&["a", "b"]).is_empty());
    assert_eq!(device.values(&["c"]), ["4"]);
    replayable(&mut device);
}

#[test]
fn a_commit_that_fails_takes_nothing_of_its_group_along() {
    let mut device = Device::found();
    let huge = "x".repeat(limits::ENTRY_BYTES);
    device
        .act(|ledger, author| {
            ledger.commit(author, &draft(vec![write(&["a"], Some("1"))]))?;
            let failed = ledger.commit(author, &draft(vec![write(&["b"], Some(&huge))]));
            assert!(matches!(failed, Err(Error::Decode(_))), "{failed:?}");
            ledger.commit(author, &draft(vec![write(&["c"], Some("2"))]))
        })
        .unwrap();
    assert_eq!((device.values(&["a"]), device.values(&["b"]).len()), (vec!["1".into()], 0));
    assert_eq!(device.values(&["c"]), ["2"]);
    replayable(&mut device);
}

#[test]
fn deleting_what_is_not_there_writes_nothing() {
    let mut device = Device::found();
    let before = device.replica.digests();
    for write in [write(&["a"], None), Write { below: true, ..write(&["a"], None) }] {
        assert_eq!(device.commit(&draft(vec![write])).unwrap(), None);
    }
    assert_eq!(device.commit(&Draft::default()).unwrap(), None);
    assert_eq!(device.replica.digests(), before);
}

#[test]
fn the_last_write_to_a_cell_of_a_draft_counts() {
    let mut device = Device::found();
    let put = |path: &[&str], value: &str| write(path, Some(value));
    device.put(vec![put(&["a"], "1"), put(&["a"], "2")]);
    assert_eq!(device.values(&["a"]), ["2"]);
    device.put(vec![put(&["a"], "3"), write(&["a"], None), put(&["b"], "4")]);
    assert!(device.values(&["a"]).is_empty());
    device.put(vec![write(&["b"], None), put(&["b"], "5")]);
    assert_eq!(device.values(&["b"]), ["5"]);
    // A subtree goes with what the draft itself put there, and what comes after it stays.
    device.put(vec![put(&["b", "x"], "6"), put(&["b", "y"], "7")]);
    let below = Write { below: true, ..put(&["b"], "8") };
    device.put(vec![put(&["b", "x"], "9"), put(&["b", "z"], "9"), below, put(&["b", "w"], "10")]);
    assert_eq!(device.values(&["b"]), ["8"]);
    for gone in ["x", "y", "z"] {
        assert!(device.values(&["b", gone]).is_empty(), "{gone}");
    }
    assert_eq!(device.values(&["b", "w"]), ["10"]);
    replayable(&mut device);
}

#[test]
fn a_write_clears_its_ancestors_even_those_of_its_own_draft() {
    let mut device = Device::found();
    device.put(vec![write(&["a"], Some("leaf")), write(&["c"], Some("other"))]);
    let above = |path: &[&str]| Write { above: true, ..write(path, Some("new")) };
    device.put(vec![above(&["a", "b", "c"])]);
    assert!(device.values(&["a"]).is_empty());
    assert_eq!(device.values(&["a", "b", "c"]), ["new"]);
    device.put(vec![write(&["d"], Some("first")), above(&["d", "e"])]);
    assert!(device.values(&["d"]).is_empty(), "put by the draft itself");
    device.put(vec![write(&["c"], Some("again")), above(&["c", "e"])]);
    assert!(device.values(&["c"]).is_empty(), "put before and by the draft itself");
    assert_eq!(device.values(&["c", "e"]), ["new"]);
    replayable(&mut device);
}

#[test]
fn a_writer_replaces_what_it_read_and_not_what_came_since() {
    let mut a = Device::found();
    let mut b = a.admit(2, Role::Write);
    a.put(vec![write(&["k"], Some("read"))]);
    let seen = a.replica.view(|v| v.cell(&StoreId::table("t"), &Path::text(["k"]).unwrap()));
    let seen: Vec<ValueName> = seen.unwrap().iter().map(|v| v.name).collect();
    a.put(vec![write(&["k"], Some("came since"))]);
    a.put(vec![Write { seen: Seen::Values(seen), ..write(&["k"], Some("decided")) }]);
    assert_eq!(a.values(&["k"]), ["decided", "came since"]);
    a.meet(&b);
    assert_eq!(b.values(&["k"]), ["decided", "came since"]);
    b.put(vec![write(&["k"], Some("settled"))]);
    a.meet(&b);
    assert_eq!(a.values(&["k"]), ["settled"]);
    assert_eq!(a.replica.digests(), b.replica.digests());
}

#[test]
fn what_peers_would_refuse_is_not_written() {
    let mut admin = Device::found();
    let mut second = Device::found_like(&admin, 2);
    let me = second.key.node_id();
    admin.grant(&[grant(Subject::Device(me), Role::Admin, 5)]).unwrap();
    admin.seal();
    admin.replica.update(&second.replica, usize::MAX);
    let before = second.replica.digests();
    let anyone = |priority| grant(Subject::Anyone, Role::Read, priority);
    let redeem = MemberOp::Redeem { signature: Signature([1; 64]) };
    for ops in [vec![anyone(4)], vec![anyone(5), redeem], vec![anyone(5); limits::GRANT_OPS + 1]] {
        let refused = second.grant(&ops);
        assert!(refused.is_err(), "{} {:?}", ops.len(), ops.last());
    }
    let value = Some(b"v".to_vec());
    for store in [
        StoreId::members(),
        StoreId { kind: StoreKind(99), name: "future".into() },
        StoreId { kind: StoreKind::TABLE, name: String::new() },
        StoreId { kind: StoreKind::TABLE, name: "n".repeat(limits::STORE_NAME_BYTES + 1) },
    ] {
        let write = Write { store, value: value.clone(), ..write(&["a"], None) };
        assert!(second.commit(&draft(vec![write.clone()])).is_err(), "{}", write.store);
        let both = Draft { writes: vec![write], members: vec![anyone(5)], ..Draft::default() };
        assert!(second.commit(&both).is_err());
    }
    // The root of a store holds no value; said aloud, since nobody would find it again.
    let root = Write { path: Path::default(), value, ..write(&["a"], None) };
    assert!(second.commit(&draft(vec![root])).is_err());
    assert_eq!(second.replica.digests(), before);
    second.grant(&vec![anyone(5); limits::GRANT_OPS]).unwrap();
    second.put(vec![write(&["a"], Some("fine"))]);
    replayable(&mut second);
}

#[test]
fn the_whole_store_can_be_cleared() {
    let mut device = Device::found();
    device.put(vec![write(&["a"], Some("1")), write(&["b", "c"], Some("2"))]);
    device.put(vec![Write { path: Path::default(), below: true, ..write(&["x"], None) }]);
    assert!(device.values(&["a"]).is_empty() && device.values(&["b", "c"]).is_empty());
    replayable(&mut device);
}

#[test]
fn strangers_and_readers_write_nothing() {
    let mut admin = Device::found();
    let mut reader = admin.admit(2, Role::Read);
    let mut stranger = Device::found_like(&admin, 3);
    admin.replica.update(&stranger.replica, usize::MAX);
    for device in [&mut reader, &mut stranger] {
        let before = device.replica.digests();
        let refused = device.commit(&draft(vec![write(&["a"], Some("1"))]));
        assert!(matches!(refused, Err(Error::NotPermitted { .. })), "{refused:?}");
        let refused = device.grant(&[grant(Subject::Anyone, Role::Admin, 0)]);
        assert!(matches!(refused, Err(Error::NotPermitted { .. })), "{refused:?}");
        assert_eq!(device.replica.digests(), before);
    }
    let ticket = DeviceKey::from_seed(&[8; 32]);
    let unknown = stranger.act(|ledger, author| ledger.redeem(author, &ticket));
    assert!(matches!(unknown, Err(Error::UnknownTicket)));
}

#[test]
fn a_ticket_lets_a_device_in_once_and_keeps_its_role() {
    let mut admin = Device::found();
    let ticket = DeviceKey::from_seed(&[8; 32]);
    admin.grant(&[grant(Subject::Ticket(ticket.node_id()), Role::Write, 0)]).unwrap();
    admin.seal();
    let mut joiner = Device::found_like(&admin, 2);
    admin.meet(&joiner);
    let redeemed = joiner.act(|ledger, author| ledger.redeem(author, &ticket)).unwrap();
    assert!(redeemed.is_some());
    let again = joiner.act(|ledger, author| ledger.redeem(author, &ticket)).unwrap();
    assert_eq!(again, None, "it may do as much already");
    joiner.put(vec![write(&["a"], Some("in"))]);
    admin.meet(&joiner);
    assert_eq!(admin.values(&["a"]), ["in"]);
    assert_eq!(admin.replica.digests(), joiner.replica.digests());
}

#[test]
fn a_moved_state_directory_starts_a_new_log_on_top_of_the_old_one() {
    let mut device = Device::found();
    device.put(vec![write(&["a"], Some("1"))]);
    let old = device.log();
    // Committed and not signed when the directory was copied.
    device.commit(&draft(vec![write(&["b"], Some("2"))])).unwrap();
    let tail = device.replica.entries().pop().unwrap();
    let mut copy = device.clone_to([77; 32]);
    let first = copy.put(vec![write(&["c"], Some("3"))]);
    assert_ne!(copy.log(), old);
    assert_eq!(first.header().seq, 1);
    assert_eq!(first.header().parents, [tail.position()], "signed and built on");
    // Both go on and meet: nothing is forked, nothing lost.
    device.put(vec![write(&["d"], Some("4"))]);
    assert_eq!(device.log(), old);
    device.meet(&copy);
    for (path, value) in [("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")] {
        assert_eq!(
            (device.values(&[path]), copy.values(&[path])),
            (vec![value.into()], vec![value.into()])
        );
    }
    assert_eq!(device.replica.digests(), copy.replica.digests());
    assert_eq!(device.replica.view(|v| v.totals().unwrap().branches), 2);
    assert_eq!(copy.put(vec![write(&["e"], Some("5"))]).header().seq, 2, "and keeps its new log");
}

#[test]
fn a_log_that_somebody_else_advanced_is_left_alone() {
    let mut device = Device::found();
    let other = device.admit(2, Role::Write);
    device.put(vec![write(&["a"], Some("1"))]);
    let backup = device.clone_to(device.instance);
    let lost = device.put(vec![write(&["a"], Some("2"))]);
    device.meet(&other);
    // Restored to the same place: nothing tells but what the peer has.
    let mut restored = backup;
    restored.meet(&other);
    assert_eq!(restored.values(&["a"]), ["2"], "its own entries come back");
    let next = restored.put(vec![write(&["a"], Some("3"))]);
    assert_ne!(next.header().log, lost.header().log);
    assert_eq!(next.header().parents, [lost.position()]);
    restored.meet(&other);
    assert_eq!(restored.replica.digests(), other.replica.digests());
    assert_eq!(other.values(&["a"]), ["3"]);
}

#[test]
fn a_rollback_before_anybody_can_tell_forks_the_log_and_keeps_both_sides() {
    let mut device = Device::found();
    let other = device.admit(2, Role::Write);
    device.put(vec![write(&["a"], Some("1"))]);
    let mut restored = device.clone_to(device.instance);
    device.put(vec![write(&["a"], Some("2"))]);
    device.meet(&other);
    restored.put(vec![write(&["a"], Some("3"))]);
    let log = restored.log();
    restored.meet(&other);
    assert_eq!(restored.replica.digests(), other.replica.digests());
    assert_eq!(other.values(&["a"]).len(), 2, "a conflict, nothing lost");
    let next = restored.put(vec![write(&["a"], Some("4"))]);
    assert_ne!(next.header().log, log, "forked, so left alone");
    assert_eq!(next.header().parents.iter().filter(|p| p.log == log).count(), 2);
    restored.meet(&other);
    assert_eq!(other.values(&["a"]), ["4"]);
    assert_eq!(restored.replica.digests(), other.replica.digests());
}

#[test]
fn an_unsigned_tail_gets_its_head_from_a_peer() {
    let mut device = Device::found();
    let other = device.admit(2, Role::Write);
    for n in 0..3 {
        device.commit(&draft(vec![write(&["a"], Some(&n.to_string()))])).unwrap();
    }
    let mut restored = device.clone_to(device.instance);
    device.seal();
    device.meet(&other);
    other.replica.update(&restored.replica, usize::MAX);
    assert_eq!(restored.replica.digests(), other.replica.digests());
    assert_eq!(restored.replica.update(&other.replica, usize::MAX), 0);
    replayable(&mut restored);
}

#[test]
fn an_unsigned_tail_of_which_a_peer_shows_only_a_part() {
    // A clone went on from a state that was committed and not signed; the original signed less, and others built on it.
    let mut device = Device::found();
    let mut other = device.admit(2, Role::Write);
    device.commit(&draft(vec![write(&["a"], Some("1"))])).unwrap();
    let mut clone = device.clone_to(device.instance);
    for n in 0..3 {
        clone.commit(&draft(vec![write(&["b"], Some(&n.to_string()))])).unwrap();
    }
    device.seal();
    device.meet(&other);
    other.put(vec![write(&["c"], Some("on top of it"))]);
    other.replica.update(&clone.replica, usize::MAX);
    assert_eq!(clone.values(&["c"]), ["on top of it"]);
    // What the peer showed is signed, so the clone and the peer agree on the frontier so far.
    assert_eq!(clone.replica.view(|v| v.frontier_digest().unwrap()), other.replica.digests().0);
    clone.seal();
    clone.meet(&other);
    assert_eq!(clone.replica.digests(), other.replica.digests());
    replayable(&mut clone);
}

#[test]
fn a_large_entry_finds_room_beside_many_tips() {
    let mut device = Device::found();
    let mut others: Vec<Device> = (2..42).map(|n| device.admit(n, Role::Write)).collect();
    let mut room = limits::ENTRY_BYTES - 256 - 300;
    for other in &mut others {
        other.put(vec![write(&["a"], Some("1"))]);
    }
    for other in others {
        other.replica.update(&device.replica, usize::MAX);
    }
    let put = |device: &mut Device, room: usize| {
        let store = StoreId::table("a table");
        device.put(vec![Write { store, ..write(&["large"], Some(&"x".repeat(room))) }])
    };
    let large = put(&mut device, room);
    assert!(large.header().parents.len() < 40, "there is no room for all of them");
    // And none is left out.
    room -= 50 * 96;
    assert_eq!(put(&mut device, room).header().parents, []);
}

#[test]
fn a_tail_that_is_not_signed_makes_no_tip_of_what_others_built_on() {
    // A state that was put back goes on, and hears how it went on elsewhere before it signs: from its last head, or from
    // above that.
    for common in 0..3 {
        let mut device = Device::found();
        let other = device.admit(2, Role::Write);
        device.put(vec![write(&["a"], Some("1"))]);
        for n in 0..common {
            device.commit(&draft(vec![write(&["b"], Some(&n.to_string()))])).unwrap();
        }
        let mut restored = device.clone_to(device.instance);
        let mut again = device.clone_to(device.instance);
        device.put(vec![write(&["a"], Some("2"))]);
        device.meet(&other);
        restored.commit(&draft(vec![write(&["a"], Some("3"))])).unwrap();
        other.replica.update(&restored.replica, usize::MAX);
        let told = |replica: &Replica| {
            (replica.frontier(), replica.view(|v| v.frontier_digest().unwrap()))
        };
        assert_eq!(told(&restored.replica), told(&other.replica), "{common} in common");
        // Somebody else's branch leaves the tail that still is not signed.
        again.put(vec![write(&["a"], Some("4"))]);
        again.meet(&other);
        other.replica.update(&restored.replica, usize::MAX);
        assert_eq!(told(&restored.replica), told(&other.replica), "{common} in common");
        restored.seal();
        restored.meet(&other);
        assert_eq!(restored.replica.digests(), other.replica.digests());
        assert_eq!(told(&restored.replica), told(&other.replica), "{common} in common");
        assert_eq!(other.values(&["a"]).len(), 3);
        replayable(&mut restored);
    }
}

#[test]
fn a_state_directory_under_another_key_starts_a_log_of_its_own() {
    let mut device = Device::found();
    let mut thief = device.clone_to(device.instance);
    thief.key = DeviceKey::from_seed(&[66; 32]);
    device.grant(&[grant(Subject::Device(thief.key.node_id()), Role::Write, 0)]).unwrap();
    device.seal();
    device.replica.update(&thief.replica, usize::MAX);
    let entry = thief.put(vec![write(&["a"], Some("1"))]);
    assert_eq!((entry.header().log.device, entry.header().seq), (thief.key.node_id(), 1));
    device.meet(&thief);
    assert_eq!(device.replica.digests(), thief.replica.digests());
    // The same with entries of the first device at hand that only it could sign.
    device.commit(&draft(vec![write(&["b"], Some("2"))])).unwrap();
    let mut thief = device.clone_to(device.instance);
    thief.key = DeviceKey::from_seed(&[66; 32]);
    thief.epoch += 1;
    thief.put(vec![write(&["c"], Some("3"))]);
    thief.put(vec![write(&["d"], Some("4"))]);
    device.seal();
    device.meet(&thief);
    assert_eq!(device.values(&["d"]), ["4"]);
    assert_eq!(device.replica.digests(), thief.replica.digests());
}

#[test]
fn more_open_logs_than_one_entry_may_name_are_gathered() {
    let mut device = Device::found();
    let mut copies: Vec<Device> = Vec::new();
    for n in 0..=limits::PARENTS as u64 + 1 {
        let mut copy = device.clone_to([0; 32]);
        copy.epoch = n << 40;
        copy.instance[..8].copy_from_slice(&(n + 1000).to_be_bytes());
        copy.put(vec![write(&["k", &n.to_string()], Some("v"))]);
        copies.push(copy);
    }
    for copy in &copies {
        copy.replica.update(&device.replica, usize::MAX);
    }
    let before = device.replica.entries().len();
    let entry = device.put(vec![write(&["after"], Some("all"))]);
    assert_eq!(device.replica.entries().len(), before + 2);
    assert_eq!(entry.header().parents.len(), 2, "the rest hangs on its prev");
    let next = device.put(vec![write(&["after"], Some("that"))]);
    assert!(next.header().parents.is_empty());
    replayable(&mut device);
}

#[test]
fn the_largest_value_fits_whatever_the_entry_builds_on() {
    // With 200 parents in the header less would fit: the size that a user may write must not depend on that.
    let mut device = Device::found();
    let alone = device.clone_to(device.instance);
    for n in 0..200u64 {
        let mut copy = alone.clone_to([0; 32]);
        copy.epoch = n << 40;
        copy.instance[..8].copy_from_slice(&(n + 1000).to_be_bytes());
        copy.put(vec![write(&["k", &n.to_string()], Some("v"))]);
        copy.replica.update(&device.replica, usize::MAX);
    }
    let mut alone = alone;
    let fits = |device: &mut Device, len: usize| {
        device.commit(&draft(vec![write(&["big"], Some(&"x".repeat(len)))])).is_ok()
    };
    let largest = limits::ENTRY_BYTES - 512;
    assert!(fits(&mut alone, largest));
    assert!(fits(&mut device, largest));
    replayable(&mut device);
}

#[test]
fn a_clock_from_the_far_future_drags_nobody_further_than_a_day() {
    const DAY: u64 = 24 * 3600 * 1_000_000;
    let mut a = Device::found();
    let mut b = a.admit(2, Role::Write);
    a.clock += 1_000 * DAY;
    let far = a.put(vec![write(&["k"], Some("from the future"))]);
    a.meet(&b);
    let wall = b.clock;
    let entry = b.put(vec![write(&["k"], Some("from now"))]);
    let dragged = entry.header().timestamp;
    assert!(dragged < far.header().timestamp);
    assert!((wall + DAY..=wall + DAY + 10).contains(&dragged.0), "{dragged:?}");
    assert_eq!(b.values(&["k"]), ["from now"], "it replaces what it saw, whatever the clocks say");
    // A peer slightly ahead is followed closely, one behind not at all.
    assert_eq!(Timestamp::claim(Timestamp(50), Some(Timestamp(60))), Timestamp(61));
    assert_eq!(Timestamp::claim(Timestamp(50), Some(Timestamp(40))), Timestamp(50));
    assert_eq!(Timestamp::claim(Timestamp(50), None), Timestamp(50));
    let end = Timestamp(u64::MAX);
    assert_eq!(Timestamp::claim(Timestamp(50), Some(end)), Timestamp(50 + DAY));
    assert_eq!(Timestamp::claim(end, Some(end)), end);
}

#[test]
fn a_clock_that_jumps_back_still_writes_winning_values() {
    let mut a = Device::found();
    a.clock = 10_000_000;
    let first = a.put(vec![write(&["k"], Some("first"))]);
    a.clock = 5;
    let second = a.put(vec![write(&["k"], Some("second")), write(&["l"], Some("x"))]);
    assert!(second.header().timestamp > first.header().timestamp);
    assert_eq!(a.values(&["k"]), ["second"]);
}

#[test]
fn the_winner_is_the_highest_of_timestamp_id_and_index() {
    let mut a = Device::found();
    let mut b = a.admit(2, Role::Write);
    a.clock = 100;
    b.clock = 200;
    let key = NodeId([0; 32]);
    assert_ne!(key, a.key.node_id());
    a.put(vec![write(&["k"], Some("a"))]);
    b.put(vec![write(&["k"], Some("b"))]);
    a.meet(&b);
    let latest = a.replica.view(|v| v.cell(&StoreId::table("t"), &Path::text(["k"]).unwrap()));
    let ranks: Vec<_> = latest.unwrap().iter().map(|v| (v.timestamp, v.entry)).collect();
    assert!(ranks[0] > ranks[1]);
    assert_eq!(a.values(&["k"]), b.values(&["k"]));
}

fn tally(path: &str, step: Step) -> Tally {
    Tally::new(StoreId::counter("c"), Path::text([path]).unwrap(), step)
}

fn counted(device: &mut Device, tallies: Vec<Tally>) -> Vec<CountOp> {
    let entry = device.commit(&Draft { tallies, ..Draft::default() }).unwrap();
    let payloads = entry.iter().flat_map(|entry| entry.payloads());
    payloads.flat_map(|(_, p)| decode_counts(p.bytes().unwrap()).ops).flatten().collect()
}

fn sum(device: &Device, path: &str) -> i128 {
    let path = Path::text([path]).unwrap();
    device.replica.view(|v| v.sum(&StoreId::counter("c"), &path).unwrap())
}

#[test]
fn what_is_counted_in_one_draft_is_summed_up_by_path() {
    let mut device = Device::found();
    let adds = [("a", 2), ("b", 1), ("a", 3), ("b", -1), ("c", i64::MAX), ("c", i64::MAX)];
    let ops = counted(&mut device, adds.map(|(p, n)| tally(p, Step::Add(n))).to_vec());
    let path = |p| Path::text([p]).unwrap();
    let op = |p, n| CountOp { path: path(p), count: Count::Add(n) };
    assert_eq!(ops, [op("a", 5), op("c", i64::MAX), op("c", i64::MAX)]);
    assert_eq!(sum(&device, "c"), 2 * i128::from(i64::MAX));
    let nothing = [tally("a", Step::Add(0)), tally("d", Step::Reset), tally("e", Step::Add(4))];
    assert_eq!(counted(&mut device, nothing[..2].to_vec()), []);
    let spent = vec![nothing[2].clone(), tally("e", Step::Add(-4))];
    assert_eq!(counted(&mut device, spent), []);
    replayable(&mut device);
}

#[test]
fn a_reset_takes_away_what_its_writer_saw() {
    let mut device = Device::found();
    counted(&mut device, vec![tally("a", Step::Add(5)), tally("b", Step::Add(5))]);
    let steps = [Step::Add(1), Step::Reset, Step::Add(2), Step::Add(3)];
    counted(&mut device, steps.map(|step| tally("a", step)).to_vec());
    assert_eq!(sum(&device, "a"), 5);
    counted(&mut device, vec![tally("a", Step::ResetFrom(2))]);
    assert_eq!(sum(&device, "a"), 3);
    counted(&mut device, vec![tally("b", Step::Reset)]);
    let stores = device.replica.view(|v| v.stores().unwrap());
    let live = stores.iter().find(|s| s.id == StoreId::counter("c")).map(|s| s.live);
    assert_eq!(live, Some(1), "a counter at 0 is as one that never was");
    replayable(&mut device);
}

#[test]
fn numbers_and_values_each_go_to_stores_of_their_kind() {
    let mut device = Device::found();
    let table = Tally::new(StoreId::table("t"), Path::text(["a"]).unwrap(), Step::Add(1));
    let root = Tally::new(StoreId::counter("c"), Path::default(), Step::Add(1));
    let commit = |device: &mut Device, tally| {
        device.commit(&Draft { tallies: vec![tally], ..Draft::default() })
    };
    assert!(matches!(commit(&mut device, table), Err(Error::NoSums(_))));
    assert!(matches!(commit(&mut device, root), Err(Error::Path(_))));
    let value = Write { store: StoreId::counter("c"), ..write(&["a"], Some("x")) };
    assert!(matches!(device.commit(&draft(vec![value])), Err(Error::NoCells(_))));
    counted(&mut device, vec![tally("a", Step::Add(7))]);
    let cells =
        device.replica.view(|v| v.cell(&StoreId::counter("c"), &Path::text(["a"]).unwrap()));
    assert_eq!(cells.unwrap(), []);
    assert_eq!(
        device.replica.view(|v| v.sum(&StoreId::table("t"), &Path::text(["a"]).unwrap())).unwrap(),
        0
    );
}

#[test]
fn a_writer_may_go_where_the_admins_have_gone() {
    let mut first = Device::found();
    let mut second = first.admit(2, Role::Admin);
    let mut writer = first.admit(3, Role::Write);
    let resign = |device: &mut Device| {
        let id = device.key.node_id();
        let grant = device.replica.view(|v| v.grant_of(&id).unwrap()).unwrap().id;
        device.grant(&[MemberOp::Revoke { grant, cut: Cut::Past }]).map(|_| device.seal())
    };
    second.meet(&writer);
    // Neither hears of the other.
    resign(&mut first).unwrap();
    resign(&mut second).unwrap();
    first.meet(&second);
    first.meet(&writer);
    resign(&mut writer).unwrap();
    for device in [&first, &second, &writer] {
        assert_eq!(writer.replica.view(|v| v.role_of(&device.key.node_id()).unwrap()), None);
    }
}
