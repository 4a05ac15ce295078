//! Requests to be let in: who asks waits and goes on by itself, what an admin decides lasts, a policy is carried out, and
//! made-up devices without end take no room.

use crate::drives::row;
use crate::engine::{Served, node, reason, rows, target, ticket, until};
use anabranch_core::entry::Timestamp;
use anabranch_core::id::NodeId;
use anabranch_core::ops::Role;
use anabranch_node::{Node, NodeError, Policy, Replica};
use anabranch_sync::frame::Request;
use anabranch_sync::rights::{Asked, Requests};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

fn request(role: Role) -> Request {
    Request { role, text: "I am Ana's laptop".into(), person: None }
}

fn role_of(replica: &Replica, device: &NodeId) -> Option<Role> {
    replica.look(|view| view.role_of(device)).unwrap()
}

/// A node that founded a database and serves it.
async fn admin(settings: &[(&str, &str)]) -> (Arc<Node>, Arc<Replica>, Served) {
    let one = node(1, settings);
    let replica = one.create("notes").unwrap();
    let served = Served::start(&one, &[&replica], "0").await;
    (one, replica, served)
}

/// A replica of `other` that is to be filled from there.
fn asks(other: &Node, replica: &Replica, served: &Served, role: Role) -> Arc<Replica> {
    let database = replica.database();
    let copy = other.prepare_asking(database, &served.address, "notes").unwrap();
    other.ask(database, request(role)).unwrap();
    copy
}

/// What comes of a request by a made-up device.
fn comes(replica: &Replica, seed: u8, role: Role) -> Option<Asked> {
    replica.ask(&NodeId([seed; 32]), request(role)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_waits_and_goes_on_by_itself_once_it_is_approved() {
    let (_one, replica, served) = admin(&[]).await;
    let other = node(2, &[]);
    let copy = asks(&other, &replica, &served, Role::Write);
    let mut handle = other.keep(target(&copy, &served.address));
    let text = reason(&mut handle, "waiting-for-approval").await;
    assert!(text.starts_with("waiting for approval"), "{text}");
    assert!(text.contains("anabranch requests approve") && text.contains("by itself"), "{text}");
    assert_eq!(rows(&copy), 0);
    let asking = replica.requests().unwrap();
    assert_eq!((asking.len(), asking[0].device), (1, other.id()));
    assert_eq!((&asking[0].request, asking[0].rejected), (&request(Role::Write), false));
    assert_eq!(replica.approve(&other.id(), None).unwrap(), Role::Write);
    handle.in_step().await.unwrap();
    assert_eq!(role_of(&copy, &other.id()), Some(Role::Write));
    copy.commit(vec![row("a", "1")]).await.unwrap();
    until("it may write", || rows(&replica) == rows(&copy)).await;
    assert!(replica.requests().unwrap().is_empty());
    until("it asks no more", || other.asking(replica.database()).is_none()).await;
    assert!(handle.standing().reasons().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_rejected_is_told_so_until_that_is_forgotten() {
    let (_one, replica, served) = admin(&[]).await;
    let other = node(2, &[]);
    let copy = asks(&other, &replica, &served, Role::Read);
    let mut handle = other.keep(target(&copy, &served.address));
    reason(&mut handle, "waiting-for-approval").await;
    replica.reject(&other.id()).unwrap();
    let text = reason(&mut handle, "rejected").await;
    assert!(text.contains("ask one for a ticket") && text.contains("requests forget"), "{text}");
    let asking = replica.requests().unwrap();
    assert!(asking.len() == 1 && asking[0].rejected, "{asking:?}");
    assert!(matches!(replica.reject(&other.id()), Err(NodeError::NoRequest(_))));
    replica.forget_request(&other.id()).unwrap();
    reason(&mut handle, "waiting-for-approval").await;
    // Who was rejected may still be approved.
    replica.reject(&other.id()).unwrap();
    assert_eq!(replica.approve(&other.id(), Some(Role::Admin)).unwrap(), Role::Admin);
    handle.in_step().await.unwrap();
    assert!(matches!(replica.forget_request(&other.id()), Err(NodeError::NoRequest(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_no_admin_says_so_and_keeps_nothing() {
    let (_one, replica, served) = admin(&[]).await;
    let writer = node(2, &[]);
    let copy = asks(&writer, &replica, &served, Role::Write);
    let mut handle = writer.keep(target(&copy, &served.address));
    reason(&mut handle, "waiting-for-approval").await;
    replica.approve(&writer.id(), None).unwrap();
    handle.in_step().await.unwrap();
    let theirs = Served::start(&writer, &[&copy], "0").await;
    let third = node(3, &[]);
    let its = asks(&third, &copy, &theirs, Role::Read);
    let text = reason(&mut third.keep(target(&its, &theirs.address)), "not-an-admin").await;
    assert!(text.contains("ask at the address of one that is"), "{text}");
    assert!(copy.requests().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_lets_in_whom_it_names_and_so_many_others() {
    let (_one, replica, served) = admin(&[]).await;
    let other = node(2, &[]);
    let mut policy =
        Policy { devices: BTreeSet::from([other.id()]), anyone: 1, role: Role::Write, until: None };
    replica.set_policy(Some(&policy)).unwrap();
    let copy = asks(&other, &replica, &served, Role::Write);
    other.keep(target(&copy, &served.address)).in_step().await.unwrap();
    assert_eq!(role_of(&copy, &other.id()), Some(Role::Write));
    assert_eq!(
        replica.policy().unwrap().unwrap(),
        policy,
        "a device that is listed takes no place"
    );
    assert_eq!(comes(&replica, 5, Role::Admin), Some(Asked::Waiting), "more than the policy gives");
    assert_eq!(comes(&replica, 6, Role::Read), Some(Asked::Granted));
    assert_eq!(role_of(&replica, &NodeId([6; 32])), Some(Role::Read));
    assert_eq!(comes(&replica, 7, Role::Read), Some(Asked::Waiting), "the place is taken");
    policy.anyone = 0;
    assert_eq!(replica.policy().unwrap().unwrap(), policy);
    // Who was rejected takes no place of anyone's.
    replica.reject(&NodeId([7; 32])).unwrap();
    policy.anyone = 5;
    replica.set_policy(Some(&policy)).unwrap();
    assert_eq!(comes(&replica, 7, Role::Read), Some(Asked::Rejected));
    policy.devices.insert(NodeId([7; 32]));
    replica.set_policy(Some(&policy)).unwrap();
    assert_eq!(comes(&replica, 7, Role::Read), Some(Asked::Granted));
    policy.until = Some(Timestamp(1));
    replica.set_policy(Some(&policy)).unwrap();
    assert_eq!(comes(&replica, 8, Role::Read), Some(Asked::Waiting), "its time is over");
    replica.set_policy(None).unwrap();
    assert_eq!(replica.policy().unwrap(), None);
    assert!(matches!(replica.approve(&NodeId([5; 32]), None), Err(NodeError::AsksForAdmin(_))));
}

#[tokio::test]
async fn policies_that_could_let_nobody_in_are_refused() {
    let (_one, replica, _served) = admin(&[]).await;
    let none = Policy { devices: BTreeSet::new(), anyone: 0, role: Role::Read, until: None };
    let many = (0..=anabranch_node::POLICY_DEVICES as u32).map(|n| {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&n.to_be_bytes());
        NodeId(id)
    });
    let cases = [
        (Policy { role: Role::Admin, anyone: 1, ..none.clone() }, "nobody becomes an admin"),
        (Policy { devices: many.collect(), ..none.clone() }, "at most 1024 devices"),
        (none, "is for nobody"),
    ];
    for (policy, says) in cases {
        let refused = replica.set_policy(Some(&policy)).unwrap_err().to_string();
        assert!(refused.contains(says), "{refused}");
    }
}

#[tokio::test]
async fn made_up_devices_without_end_take_no_room() {
    let (_one, replica, _served) =
        admin(&[("requests.max", "3"), ("requests.rejected", "2")]).await;
    for seed in 1..=100 {
        let asked = comes(&replica, seed, Role::Write);
        assert_eq!(asked, Some(if seed <= 3 { Asked::Waiting } else { Asked::Full }), "{seed}");
    }
    assert_eq!(comes(&replica, 1, Role::Read), Some(Asked::Waiting), "its own place it keeps");
    let asking = replica.requests().unwrap();
    let roles: Vec<Role> = asking.iter().map(|asking| asking.request.role).collect();
    assert_eq!((asking.len(), roles.contains(&Role::Read)), (3, true), "a new one replaces it");
    for seed in 1..=3 {
        replica.reject(&NodeId([seed; 32])).unwrap();
    }
    let rejected: Vec<NodeId> = replica.requests().unwrap().iter().map(|a| a.device).collect();
    assert_eq!(rejected, [NodeId([2; 32]), NodeId([3; 32])], "the oldest is forgotten");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_came_in_by_a_ticket_meanwhile_does_not_wait_any_more() {
    let (one, replica, served) = admin(&[("requests.max", "1")]).await;
    let other = node(2, &[]);
    let copy = asks(&other, &replica, &served, Role::Write);
    let mut handle = other.keep(target(&copy, &served.address));
    reason(&mut handle, "waiting-for-approval").await;
    handle.stop().await;
    let ticket = ticket(&one, &replica, &served.address, Duration::from_secs(60)).await;
    other.join(&copy, &ticket, &Default::default()).await.unwrap();
    assert_eq!(other.asking(replica.database()), None);
    assert!(replica.requests().unwrap().is_empty());
    assert_eq!(comes(&replica, 9, Role::Read), Some(Asked::Waiting), "its place is free");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_that_are_reached_are_named_and_none_are_taken_where_none_may_wait() {
    let (_one, replica, served) = admin(&[("requests.max", "1")]).await;
    assert_eq!(comes(&replica, 9, Role::Read), Some(Asked::Waiting));
    let other = node(2, &[]);
    let copy = asks(&other, &replica, &served, Role::Write);
    let text = reason(&mut other.keep(target(&copy, &served.address)), "limit").await;
    assert!(text.contains("requests.max"), "{text}");
    drop(served);
    let (_one, replica, served) = admin(&[("requests.max", "0")]).await;
    let third = node(3, &[]);
    let copy = asks(&third, &replica, &served, Role::Write);
    reason(&mut third.keep(target(&copy, &served.address)), "not-a-member").await;
    assert!(replica.requests().unwrap().is_empty());
}

#[test]
fn what_was_asked_and_decided_outlives_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let policy =
        Policy { devices: BTreeSet::new(), anyone: 2, role: Role::Read, until: Some(Timestamp(7)) };
    let open = || {
        let node = Node::open(dir.path()).unwrap();
        let replica = node.database("notes").unwrap();
        (node, replica)
    };
    Node::open(dir.path()).unwrap().create("notes").unwrap();
    {
        let (node, replica) = open();
        assert_eq!(comes(&replica, 1, Role::Write), Some(Asked::Waiting));
        assert_eq!(comes(&replica, 2, Role::Write), Some(Asked::Waiting));
        replica.reject(&NodeId([2; 32])).unwrap();
        replica.set_policy(Some(&policy)).unwrap();
        node.ask(replica.database(), request(Role::Read)).unwrap();
    }
    let (node, replica) = open();
    let asking: Vec<_> =
        replica.requests().unwrap().iter().map(|a| (a.device, a.rejected)).collect();
    assert_eq!(asking, [(NodeId([1; 32]), false), (NodeId([2; 32]), true)]);
    assert_eq!(replica.policy().unwrap(), Some(policy));
    assert_eq!(node.asking(replica.database()), Some(request(Role::Read)));
}
