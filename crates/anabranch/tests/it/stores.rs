use anabranch::{Error, Node};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Row {
    text: String,
    count: i64,
    ratio: f64,
    tags: Vec<String>,
    parent: Option<String>,
}

fn row(n: i64) -> Row {
    let tags = vec!["a".into(), "ü".into()];
    Row { text: format!("row {n}"), count: n, ratio: 0.1, tags, parent: None }
}

#[tokio::test]
async fn rows_come_back_as_they_were() {
    let db = Node::in_memory().unwrap().create("db").unwrap();
    let table = db.table::<Row>("rows");
    assert_eq!(table.get("none").unwrap(), None);
    table.put("one", &row(i64::MIN)).await.unwrap();
    table.put("one", &row(i64::MAX)).await.unwrap();
    assert_eq!(table.get("one").unwrap(), Some(row(i64::MAX)));
    table.delete("one").await.unwrap();
    assert_eq!(table.get("one").unwrap(), None);
    table.delete("one").await.unwrap();
}

#[tokio::test]
async fn rows_are_listed_by_key_with_prefix_start_and_limit() {
    let db = Node::in_memory().unwrap().create("db").unwrap();
    let table = db.table::<BTreeMap<String, u32>>("rows");
    let keys = ["", "a", "a\0b", "ab", "abc", "b", "ba", "ü", "\u{10ffff}"];
    for key in keys.iter().rev() {
        table.put(key, &BTreeMap::from([("n".into(), 1), ("m".into(), 2)])).await.unwrap();
    }
    let list = |prefix: &str, after: Option<&str>, limit| -> Vec<String> {
        table.rows(prefix, after, limit).unwrap().into_iter().map(|(key, _)| key).collect()
    };
    let mut sorted = keys.to_vec();
    sorted.sort_unstable();
    assert_eq!(list("", None, 100), sorted);
    assert_eq!(list("a", None, 100), ["a", "a\0b", "ab", "abc"]);
    assert_eq!(list("ab", None, 100), ["ab", "abc"]);
    assert_eq!(list("a", Some("ab"), 100), ["abc"]);
    assert_eq!(list("a", Some("a"), 2), ["a\0b", "ab"]);
    assert_eq!(list("", Some("b"), 2), ["ba", "ü"]);
    assert_eq!(list("", Some(""), 1), ["a"]);
    assert!(list("zz", None, 100).is_empty());
    for key in keys {
        assert!(table.get(key).unwrap().is_some(), "{key:?}");
    }
}

#[tokio::test]
async fn a_row_that_loses_a_column_loses_it() {
    let db = Node::in_memory().unwrap().create("db").unwrap();
    let table = db.table::<BTreeMap<String, u32>>("t");
    table.put("k", &BTreeMap::from([("a".into(), 1), ("b".into(), 2)])).await.unwrap();
    table.put("k", &BTreeMap::from([("b".into(), 2)])).await.unwrap();
    assert_eq!(table.get("k").unwrap(), Some(BTreeMap::from([("b".into(), 2)])));
    table.put("empty", &BTreeMap::new()).await.unwrap();
    assert_eq!(table.get("empty").unwrap(), Some(BTreeMap::new()));
}

#[tokio::test]
async fn only_what_differs_is_written() {
    let db = Node::in_memory().unwrap().create("db").unwrap();
    let table = db.table::<Row>("t");
    table.put("k", &row(1)).await.unwrap();
    let entries = || db.replica().read(|v| v.totals()).unwrap().entries;
    let before = entries();
    table.put("k", &row(1)).await.unwrap();
    assert_eq!(entries(), before);
}

#[tokio::test]
async fn values_that_do_not_fit_are_refused_in_words() {
    let db = Node::in_memory().unwrap().create("db").unwrap();
    let error = db.table::<u32>("t").put("k", &7).await.unwrap_err();
    assert!(matches!(error, Error::Value { .. }), "{error}");
    let large = "x".repeat(300_000);
    let table = db.table::<BTreeMap<String, String>>("t");
    let error = table.put("k", &BTreeMap::from([("v".into(), large)])).await.unwrap_err();
    assert!(error.to_string().contains("limit"), "{error}");
    assert!(table.put(&"k".repeat(9_000), &BTreeMap::new()).await.is_err());
    assert_eq!(table.get("k").unwrap(), None);
}

#[tokio::test]
async fn documents_nest() {
    let db = Node::in_memory().unwrap().create("db").unwrap();
    let doc = db.doc("settings");
    type Map<T> = BTreeMap<String, T>;
    let value: Map<Map<u32>> = BTreeMap::from([
        ("x".into(), BTreeMap::from([("a".into(), 1), ("b".into(), 2)])),
        ("empty".into(), BTreeMap::new()),
    ]);
    doc.set(&["root"], &value).await.unwrap();
    assert_eq!(doc.get::<Map<Map<u32>>>(&["root"]).unwrap(), Some(value));
    assert_eq!(doc.get::<u32>(&["root", "x", "b"]).unwrap(), Some(2));
    // A leaf makes way for a map and the other way round.
    doc.set(&["root", "x"], &5).await.unwrap();
    assert_eq!(doc.get::<u32>(&["root", "x"]).unwrap(), Some(5));
    assert_eq!(doc.get::<u32>(&["root", "x", "b"]).unwrap(), None);
    doc.set(&["root", "x", "deep", "er"], &6).await.unwrap();
    assert_eq!(doc.get::<u32>(&["root", "x", "deep", "er"]).unwrap(), Some(6));
    assert_eq!(doc.get::<Map<Map<u32>>>(&["root", "x"]).unwrap().unwrap()["deep"]["er"], 6);
    doc.set(&["root", "empty", "no longer"], &1).await.unwrap();
    assert!(!doc.is_empty_map(&["root", "empty"]).unwrap());
    doc.delete(&["root"]).await.unwrap();
    assert_eq!(doc.get::<Map<u32>>(&[]).unwrap(), None);
}

#[tokio::test]
async fn a_transaction_is_one_entry_over_several_stores() {
    let db = Node::in_memory().unwrap().create("db").unwrap();
    let (rows, doc) = (db.table::<Row>("rows"), db.doc("doc"));
    let before = db.replica().read(|v| v.totals()).unwrap().entries;
    let mut tx = db.transaction();
    tx.put(&rows, "a", &row(1)).unwrap();
    tx.put(&rows, "b", &row(2)).unwrap().set(&doc, &["total"], &3).unwrap();
    tx.commit().await.unwrap();
    assert_eq!(db.replica().read(|v| v.totals()).unwrap().entries, before + 1);
    assert_eq!(doc.get::<u32>(&["total"]).unwrap(), Some(3));
    let mut dropped = db.transaction();
    dropped.delete(&rows, "a").unwrap();
    drop(dropped);
    assert!(rows.get("a").unwrap().is_some());
}

#[tokio::test]
async fn a_transaction_that_read_never_overwrites_what_it_did_not_see() {
    let db = Node::in_memory().unwrap().create("db").unwrap();
    let table = db.table::<BTreeMap<String, u32>>("t");
    let value = |n| BTreeMap::from([("n".to_owned(), n)]);
    table.put("k", &value(1)).await.unwrap();
    let mut tx = db.transaction();
    let seen = tx.get(&table, "k").unwrap().unwrap()["n"];
    table.put("k", &value(10)).await.unwrap();
    tx.put(&table, "k", &value(seen + 1)).unwrap();
    tx.commit().await.unwrap();
    let conflicts = db.conflicts().unwrap();
    assert_eq!(conflicts.len(), 1);
    let mut values: Vec<u32> =
        conflicts[0].versions.iter().map(|v| v.value.as_ref().unwrap().get().unwrap()).collect();
    values.sort_unstable();
    assert_eq!(values, [2, 10]);
}

#[tokio::test]
async fn a_database_outlives_its_process() {
    let dir = tempfile::tempdir().unwrap();
    let id = {
        let node = Node::open(dir.path()).unwrap();
        let db = node.create("kept").unwrap();
        db.table::<Row>("t").put("k", &row(1)).await.unwrap();
        db.id()
    };
    let node = Node::open(dir.path()).unwrap();
    let db = node.database("kept").unwrap();
    assert_eq!(db.id(), id);
    assert_eq!(node.database(&id.to_string()).unwrap().id(), id);
    assert_eq!(db.table::<Row>("t").get("k").unwrap(), Some(row(1)));
}
