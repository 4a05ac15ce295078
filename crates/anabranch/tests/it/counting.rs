use crate::pair;
use anabranch::{Effect, Node};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

#[tokio::test(flavor = "multi_thread")]
async fn what_two_devices_count_is_added_up() {
    let (a, b, serving) = pair().await;
    let (here, there) = (a.counter("visits"), b.counter("visits"));
    here.add(&["pages", "home"], 3).await.unwrap();
    there.add(&["pages", "home"], 4).await.unwrap();
    there.add(&["pages", "about"], -1).await.unwrap();
    b.sync_with(&serving.address()).await.unwrap();
    assert_eq!(here.get(&["pages", "home"]).unwrap(), 7);
    assert_eq!(there.get(&["pages", "home"]).unwrap(), 7);
    assert_eq!(here.get(&["nobody", "was", "here"]).unwrap(), 0);
    let mut all = Vec::new();
    here.each(&["pages"], &mut |path, sum| {
        all.push((path.join("/"), sum));
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(all, [("pages/about".into(), -1), ("pages/home".into(), 7)]);
    assert_eq!(a.digest().unwrap(), b.digest().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_added_while_somebody_resets_stays() {
    let (a, b, serving) = pair().await;
    let (here, there) = (a.counter("c"), b.counter("c"));
    here.add(&["n"], 10).await.unwrap();
    b.sync_with(&serving.address()).await.unwrap();
    here.reset(&["n"]).await.unwrap();
    there.add(&["n"], 2).await.unwrap();
    b.sync_with(&serving.address()).await.unwrap();
    assert_eq!((here.get(&["n"]).unwrap(), there.get(&["n"]).unwrap()), (2, 2));
    here.reset_from(&["n"], 1).await.unwrap();
    assert_eq!(here.get(&["n"]).unwrap(), 1);
}

#[tokio::test]
async fn a_transaction_counts_along_with_what_it_writes_and_a_watch_tells() {
    let db = Node::in_memory().unwrap().create("db").unwrap();
    let mut watch = db.watch().unwrap();
    let (table, counter) = (db.table::<BTreeMap<String, u32>>("t"), db.counter("c"));
    let mut tx = db.transaction();
    tx.put(&table, "k", &BTreeMap::new()).unwrap();
    tx.count(&counter, &["rows"], 1).unwrap().count(&counter, &["rows"], 1).unwrap();
    tx.commit().await.unwrap();
    let mut tx = db.transaction();
    tx.reset(&counter, &["rows"]).unwrap().count(&counter, &["rows"], -5).unwrap();
    tx.commit().await.unwrap();
    assert_eq!(counter.get(&["rows"]).unwrap(), -5);
    let effects = watch.next().await.unwrap().writes;
    assert!(matches!(effects[..], [ref put, ref add]
        if matches!(put.effect, Effect::Put(_)) && matches!(add.effect, Effect::Add(2))));
    let effects = watch.next().await.unwrap().writes;
    assert!(matches!(effects[..], [ref reset, ref add]
        if matches!(reset.effect, Effect::Reset(-2)) && matches!(add.effect, Effect::Add(-5))));
}
