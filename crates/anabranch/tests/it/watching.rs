use crate::pair;
use anabranch::Control;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

type Row = BTreeMap<String, u32>;

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_seen_once_in_order_wherever_it_was_made() {
    let (a, b, serving) = pair().await;
    let mut watch = a.watch().unwrap();
    let table = a.table::<Row>("t");
    for n in 0..300 {
        table.put(&format!("{n:03}"), &BTreeMap::from([("n".into(), n)])).await.unwrap();
    }
    b.table::<Row>("t").put("remote", &BTreeMap::new()).await.unwrap();
    b.sync_with(&serving.address()).await.unwrap();
    for n in 0..300 {
        let change = watch.next().await.unwrap();
        assert!(change.local);
        assert!(change.writes[0].path.to_string().starts_with(&format!("{n:03}")));
    }
    let change =
        tokio::time::timeout(Duration::from_secs(10), watch.next()).await.unwrap().unwrap();
    assert!(!change.local);
    assert_eq!(change.writes[0].path.to_string(), "remote");
    let nothing = tokio::time::timeout(Duration::from_millis(50), watch.next()).await;
    assert!(nothing.is_err(), "{nothing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_arrive_live_in_both_directions() {
    let (a, b, serving) = pair().await;
    let control = Control::default();
    let following = {
        let (b, address, control) = (b.clone(), serving.address(), control.clone());
        tokio::spawn(async move { b.follow(&address, &control).await })
    };
    let mut level = control.progress.subscribe();
    level.wait_for(|p| p.settled).await.unwrap();
    let (mut at_a, mut at_b) = (a.watch().unwrap(), b.watch().unwrap());
    let limit = Duration::from_secs(10);
    for n in 0..5 {
        a.table::<Row>("t").put("from a", &BTreeMap::from([("n".into(), n)])).await.unwrap();
        let change = tokio::time::timeout(limit, at_b.next()).await.unwrap().unwrap();
        assert_eq!(change.device, a.replica().device().id());
        at_a.next().await.unwrap();
        b.table::<Row>("t").put("from b", &BTreeMap::from([("n".into(), n)])).await.unwrap();
        let change = tokio::time::timeout(limit, at_a.next()).await.unwrap().unwrap();
        assert_eq!(change.device, b.replica().device().id());
        at_b.next().await.unwrap();
    }
    control.stop.send_replace(true);
    following.await.unwrap().unwrap();
    assert_eq!(a.digest().unwrap(), b.digest().unwrap());
}

/// Another process on the same home is another replica value on the same file.
#[tokio::test(flavor = "multi_thread")]
async fn what_another_process_commits_is_noticed_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let one = anabranch::Node::open(dir.path()).unwrap();
    let db = one.create("db").unwrap();
    one.inner().notice_others(db.replica()).unwrap();
    let mut watch = db.watch().unwrap();
    let other = anabranch::Node::open(dir.path()).unwrap().database("db").unwrap();
    assert!(!Arc::ptr_eq(db.replica(), other.replica()));
    other.table::<Row>("t").put("k", &BTreeMap::from([("n".into(), 1)])).await.unwrap();
    let change =
        tokio::time::timeout(Duration::from_secs(10), watch.next()).await.unwrap().unwrap();
    assert_eq!(change.writes.len(), 2);
    // Both wrote to one log: nothing forked.
    db.table::<Row>("t").put("k", &BTreeMap::from([("n".into(), 2)])).await.unwrap();
    assert_eq!(other.table::<Row>("t").get("k").unwrap().unwrap()["n"], 2);
    assert_eq!(db.replica().read(|v| v.totals()).unwrap().branches, 1);
    assert!(db.conflicts().unwrap().is_empty());
}
