use crate::pair;
use anabranch::{Error, Node, NodeError, Order};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Task {
    text: String,
    done: bool,
    cost: f64,
}

fn task(text: &str, done: bool, cost: f64) -> Task {
    Task { text: text.into(), done, cost }
}

fn keys<T>(rows: Vec<(String, T)>) -> Vec<String> {
    rows.into_iter().map(|(key, _)| key).collect()
}

#[tokio::test]
async fn rows_are_found_by_what_they_hold() {
    let db = Node::in_memory().unwrap().create("db").unwrap();
    let table = db.table::<Task>("tasks");
    assert!(matches!(table.find("done", &true), Err(Error::Node(NodeError::Core(_)))));
    table.put("milk", &task("buy milk", false, 2.5)).await.unwrap();
    table.put("rent", &task("pay rent", true, 900.0)).await.unwrap();
    assert!(db.index("tasks", "done").await.unwrap());
    assert!(!db.index("tasks", "done").await.unwrap());
    db.index("tasks", "cost").await.unwrap();
    table.put("bread", &task("buy bread", false, 3.0)).await.unwrap();
    assert_eq!(keys(table.find("done", &false).unwrap()), ["bread", "milk"]);
    assert_eq!(
        table.find("done", &true).unwrap(),
        [("rent".into(), task("pay rent", true, 900.0))]
    );
    table.put("milk", &task("buy milk", true, 2.5)).await.unwrap();
    assert_eq!(keys(table.find("done", &true).unwrap()), ["milk", "rent"]);
    // What is written as 3 is found as 3.0, and the other way round.
    assert_eq!(keys(table.find("cost", &3).unwrap()), ["bread"]);
    assert_eq!(keys(table.between("cost", 2..4, 10).unwrap()), ["milk", "bread"]);
    assert_eq!(keys(table.between("cost", 2.5..3.0, 10).unwrap()), ["milk"]);
    assert_eq!(
        keys(table.between("cost", (Bound::Excluded(2.5), Bound::Unbounded), 1).unwrap()),
        ["bread"]
    );
    let nothing = (Bound::Included(4), Bound::Excluded(2));
    assert!(table.between("cost", nothing, 10).unwrap().is_empty());
    assert!(table.between("cost", 2..4, 0).unwrap().is_empty());
    let mut falling = Vec::new();
    table
        .each_by::<f64>("cost", .., Order::Descending, &mut |key, _| {
            falling.push(key);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(falling, ["rent", "bread", "milk"]);
    table.delete("rent").await.unwrap();
    assert_eq!(keys(table.find("done", &true).unwrap()), ["milk"]);
    let known = db.indexes().unwrap();
    let fields: Vec<&str> = known.iter().map(|index| &index.field[..]).collect();
    assert_eq!(fields, ["cost", "done"]);
    assert!(known.iter().all(|index| index.ready && index.store.name == "tasks"));
    assert!(db.unindex("tasks", "done").await.unwrap());
    assert!(!db.unindex("tasks", "done").await.unwrap());
    assert!(table.find("done", &true).is_err());
}

#[tokio::test]
async fn an_index_may_come_before_the_first_row_and_with_other_stores() {
    let db = Node::in_memory().unwrap().create("db").unwrap();
    let (table, other) = (db.table::<BTreeMap<String, u32>>("t"), db.table("u"));
    db.index("t", "n").await.unwrap();
    let row = BTreeMap::from([("n".to_owned(), 1u32)]);
    other.put("k", &row).await.unwrap();
    table.put("k", &row).await.unwrap();
    assert_eq!(keys(table.find("n", &1).unwrap()), ["k"]);
    let row = BTreeMap::from([("m".to_owned(), 1u32)]);
    table.put("k", &row).await.unwrap();
    assert!(table.find("n", &1).unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_conflict_the_value_shown_is_found_and_peers_hear_nothing_of_indexes() {
    let (a, b, serving) = pair().await;
    let (here, there) =
        (a.table::<BTreeMap<String, u32>>("t"), b.table::<BTreeMap<String, u32>>("t"));
    a.index("t", "n").await.unwrap();
    here.put("k", &BTreeMap::from([("n".into(), 0)])).await.unwrap();
    b.sync_with(&serving.address()).await.unwrap();
    here.put("k", &BTreeMap::from([("n".into(), 1)])).await.unwrap();
    there.put("k", &BTreeMap::from([("n".into(), 2)])).await.unwrap();
    b.sync_with(&serving.address()).await.unwrap();
    let shown = here.get("k").unwrap().unwrap()["n"];
    for n in 0..3 {
        assert_eq!(here.find("n", &n).unwrap().len(), usize::from(n == shown), "{n}");
    }
    // Settled by the other value, that one is found.
    a.resolve_row("t", "k", 2).await.unwrap();
    let settled = 3 - shown;
    assert_eq!(keys(here.find("n", &settled).unwrap()), ["k"]);
    assert!(here.find("n", &shown).unwrap().is_empty());
    b.sync_with(&serving.address()).await.unwrap();
    assert_eq!(a.digest().unwrap(), b.digest().unwrap());
    assert!(b.indexes().unwrap().is_empty());
    assert!(there.find("n", &1).is_err());
    b.index("t", "n").await.unwrap();
    assert_eq!(keys(there.find("n", &settled).unwrap()), ["k"]);
}

/// What a process leaves behind that dies while it builds an index is built by the next look-up.
#[tokio::test]
async fn a_look_up_goes_on_with_building() {
    use anabranch::engine::core::index;
    let db = Node::in_memory().unwrap().create("db").unwrap();
    let table = db.table::<BTreeMap<String, u32>>("t");
    for n in 0..20u32 {
        table.put(&n.to_string(), &BTreeMap::from([("n".into(), n % 3)])).await.unwrap();
    }
    let storage = db.replica().storage();
    let mut tx = storage.write(Default::default()).unwrap();
    index::declare(&mut *tx, &anabranch::StoreId::table("t"), "n").unwrap();
    tx.commit().unwrap();
    assert!(index::step(&**storage, 200).unwrap());
    assert!(!db.indexes().unwrap()[0].ready);
    table.put("0", &BTreeMap::from([("n".into(), 1)])).await.unwrap();
    table.put("9", &BTreeMap::from([("n".into(), 1)])).await.unwrap();
    assert_eq!(table.find("n", &1).unwrap().len(), 9);
    assert!(db.indexes().unwrap()[0].ready);
}
