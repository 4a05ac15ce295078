//! Devices that were put out: what they bring that counts is taken still, and what they bring for nothing is not kept.

use crate::harness::{Node, Outcome, Run, join, noise, sync};
use anabranch_core::author::Draft;
use anabranch_core::id::{DatabaseId, NodeId};
use anabranch_core::ops::{Cut, MemberOp, Role, Subject};
use anabranch_sync::channel::Direction;
use anabranch_sync::frame::Code;

/// Puts `device` out, with what it wrote that is not held here.
fn put_out(host: &mut Node, device: NodeId) {
    let grants = host.view(|v| v.grants().unwrap());
    let grant = grants.iter().find(|g| g.subject == Subject::Device(device)).unwrap().id;
    let op = MemberOp::Revoke { grant, cut: Cut::Past };
    let draft = Draft { members: vec![op], ..Draft::default() };
    host.with(|ledger, author| ledger.commit(author, &draft).unwrap());
}

/// A host whose database was put back from an older copy without its noticing, and a device that it put out after that, which
/// alone holds what the host had written in between: some of that on top of what the device had written.
fn restored() -> (Node, Node, DatabaseId) {
    let mut host = Node::new(1);
    let database = host.create();
    let mut device = join(&mut host, 2, database, Role::Write);
    let mut restored = host.copy();
    restored.epoch += 1 << 40;
    host.put("lost", "before");
    device.put("theirs", "v");
    assert!(sync(&device, &host, database).settled);
    host.put("lost", "after");
    assert!(sync(&device, &host, database).settled);
    put_out(&mut restored, device.key.node_id());
    (restored, device, database)
}

/// The device is turned away in the end, and was told nothing.
fn meet(host: &Node, device: &Node, database: DatabaseId, direction: Direction) -> Outcome {
    let before = device.frontier();
    let outcome = Run::new(device, host, database, direction, None).outcome;
    assert!(!outcome.settled, "{outcome:?}");
    assert!(matches!(outcome.closed[..], [(1, Code::Revoked, _)]), "{:?}", outcome.closed);
    assert_eq!(device.frontier(), before);
    outcome
}

/// Where the log forks is found out after the device has sent what it wrote, which is of no use until then.
#[test]
fn what_a_host_lost_comes_back_through_one_put_out() {
    for direction in [Direction::BOTH, Direction::PUSH] {
        let (host, device, database) = restored();
        meet(&host, &device, database, direction);
        assert_eq!(host.values("lost"), ["after"], "{direction:?}");
        // It is there, since the host once built on it, and does not count.
        assert_eq!(host.values("theirs"), [""; 0]);
    }
    let (host, device, database) = restored();
    let outcome = sync(&host, &device, database);
    assert!(matches!(outcome.closed[..], [(0, Code::Revoked, _)]), "{:?}", outcome.closed);
    assert_eq!(host.values("lost"), ["after"]);
}

#[test]
fn what_one_put_out_wrote_is_not_kept() {
    for (entries, size) in [(1, 10), (3, 1_000), (100, 100_000)] {
        let mut host = Node::new(1);
        let database = host.create();
        let mut device = join(&mut host, 2, database, Role::Write);
        put_out(&mut host, device.key.node_id());
        (0..entries).for_each(|n| _ = device.put(&format!("{n}"), &noise(n, size)));
        let before = (host.view(|v| v.totals().unwrap().entries), host.frontier());
        let outcome = meet(&host, &device, database, Direction::BOTH);
        let after = (host.view(|v| v.totals().unwrap().entries), host.frontier());
        assert_eq!(after, before);
        // Nor is all of it looked at, were it much.
        assert!(outcome.bytes[0] < 3_000_000, "{} bytes were taken", outcome.bytes[0]);
        assert!(host.pending.lock().unwrap().is_empty());
    }
}
