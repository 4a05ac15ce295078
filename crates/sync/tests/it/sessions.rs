use crate::harness::{Node, Run, join, put, sync};
use anabranch_core::author::Draft;
use anabranch_core::ops::Role;
use anabranch_sync::channel::Direction;

#[test]
fn a_joiner_gets_everything_and_both_stay_equal() {
    let mut a = Node::new(1);
    let db = a.create();
    for i in 0..600 {
        a.put(&format!("k{i}"), "v");
    }
    let mut b = join(&mut a, 2, db, Role::Write);
    assert_eq!(a.digest(), b.digest());
    assert_eq!(a.frontier(), b.frontier());
    a.put("k1", "from a");
    b.put("k1", "from b");
    b.put("only b", "x");
    let outcome = sync(&a, &b, db);
    assert!(outcome.settled, "{outcome:?}");
    assert_eq!(a.digest(), b.digest());
    assert_eq!(a.values("k1").len(), 2);
    assert_eq!(a.values("k1"), b.values("k1"));
    a.put("k1", "settled");
    assert!(sync(&b, &a, db).settled);
    assert_eq!(b.values("k1"), ["settled"]);
    assert_eq!(a.digest(), b.digest());
}

#[test]
fn nothing_new_costs_little() {
    let mut a = Node::new(1);
    let db = a.create();
    (0..50).for_each(|i| _ = a.put(&format!("k{i}"), "v"));
    let b = join(&mut a, 2, db, Role::Write);
    let outcome = sync(&a, &b, db);
    assert!(outcome.settled);
    assert!(outcome.bytes.iter().sum::<u64>() < 1024, "{outcome:?}");
    assert_eq!(outcome.new, [0, 0]);
}

#[test]
fn commits_are_pushed_while_the_link_is_open() {
    let mut a = Node::new(1);
    let db = a.create();
    let b = join(&mut a, 2, db, Role::Write);
    let draft = Draft { writes: vec![put("live", "now")], ..Draft::default() };
    let mut writer = Node::new(1);
    writer.storage = a.storage.clone();
    writer.instance = a.instance;
    writer.clock = a.clock;
    let mut run = Run::new(&a, &b, db, Direction::BOTH, None);
    writer.with(|ledger, author| ledger.commit(author, &draft).unwrap());
    run.sessions[0].committed(db);
    run.pump();
    assert_eq!(b.values("live"), ["now"]);
    assert!(run.outcome.settled);
}

#[test]
fn an_offline_clone_forks_its_log_and_both_branches_survive() {
    let mut a = Node::new(1);
    let db = a.create();
    let mut b = join(&mut a, 2, db, Role::Write);
    for i in 0..20 {
        b.put(&format!("common {i}"), "v");
    }
    sync(&b, &a, db);
    // The same state directory twice, with nothing to tell them apart.
    let mut clone = Node::new(2);
    clone.storage = std::sync::Arc::new(b.storage.fork(b.instance));
    clone.instance = b.instance;
    clone.clock = b.clock;
    for i in 0..30 {
        b.put(&format!("b {i}"), "v");
    }
    for i in 0..3 {
        clone.put(&format!("clone {i}"), "v");
    }
    assert!(sync(&b, &a, db).settled);
    assert!(sync(&clone, &a, db).settled, "a takes the other branch");
    assert!(sync(&a, &b, db).settled, "b gets the clone's");
    assert!(sync(&a, &clone, db).settled);
    assert_eq!(a.digest(), b.digest());
    assert_eq!(a.digest(), clone.digest());
    assert_eq!(a.frontier(), clone.frontier());
    assert_eq!(b.values("clone 2"), ["v"]);
    // Both start logs of their own now.
    b.put("after", "b");
    clone.put("after too", "clone");
    sync(&b, &clone, db);
    assert_eq!(b.digest(), clone.digest());
    let log = |n: &Node| n.view(|v| v.own_log().unwrap().unwrap());
    assert_ne!(log(&b), log(&clone));
}
