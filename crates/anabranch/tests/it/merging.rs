use crate::pair;
use anabranch::Role;
use std::collections::BTreeMap;

type Row = BTreeMap<String, String>;

fn row(pairs: &[(&str, &str)]) -> Row {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn different_columns_merge_and_one_column_conflicts() {
    let (a, b, serving) = pair().await;
    let (ta, tb) = (a.table::<Row>("t"), b.table::<Row>("t"));
    ta.put("k", &row(&[("x", "0"), ("y", "0"), ("z", "0")])).await.unwrap();
    b.sync_with(&serving.address()).await.unwrap();
    ta.put("k", &row(&[("x", "a"), ("y", "0"), ("z", "a")])).await.unwrap();
    tb.put("k", &row(&[("x", "0"), ("y", "b"), ("z", "b")])).await.unwrap();
    b.sync_with(&serving.address()).await.unwrap();
    assert_eq!(a.digest().unwrap(), b.digest().unwrap());
    let merged = ta.get("k").unwrap().unwrap();
    assert_eq!((merged["x"].as_str(), merged["y"].as_str()), ("a", "b"));
    assert_eq!(tb.get("k").unwrap().unwrap(), merged);
    let (ca, cb) = (a.conflicts().unwrap(), b.conflicts().unwrap());
    assert_eq!((ca.len(), cb.len()), (1, 1));
    assert_eq!(ca[0].path, cb[0].path);
    let text = |c: &anabranch::Conflict| -> Vec<String> {
        c.versions.iter().map(|v| v.value.as_ref().unwrap().get().unwrap()).collect()
    };
    assert_eq!(text(&ca[0]), text(&cb[0]), "the same order everywhere");
    let loser = text(&ca[0])[1].clone();
    assert_eq!(a.resolve_row("t", "k", 2).await.unwrap(), 1);
    assert!(a.resolve_row("t", "k", 1).await.is_err(), "nothing left to resolve");
    b.sync_with(&serving.address()).await.unwrap();
    assert!(b.conflicts().unwrap().is_empty());
    assert_eq!(tb.get("k").unwrap().unwrap()["z"], loser);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_survives_a_deletion_and_either_can_be_taken() {
    for (take, stays) in [(1, true), (2, false)] {
        let (a, b, serving) = pair().await;
        let (ta, tb) = (a.table::<Row>("t"), b.table::<Row>("t"));
        ta.put("k", &row(&[("x", "0"), ("y", "0")])).await.unwrap();
        b.sync_with(&serving.address()).await.unwrap();
        ta.delete("k").await.unwrap();
        tb.put("k", &row(&[("x", "edited"), ("y", "0")])).await.unwrap();
        b.sync_with(&serving.address()).await.unwrap();
        assert_eq!(ta.get("k").unwrap(), Some(row(&[("x", "edited")])));
        assert_eq!(a.conflicts().unwrap().len(), 1);
        b.resolve_row("t", "k", take).await.unwrap();
        b.sync_with(&serving.address()).await.unwrap();
        assert!(a.conflicts().unwrap().is_empty());
        assert_eq!(ta.get("k").unwrap().is_some(), stays);
        assert_eq!(a.digest().unwrap(), b.digest().unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_inserted_on_both_sides_is_no_conflict_by_itself() {
    let (a, b, serving) = pair().await;
    a.table::<Row>("t").put("k", &row(&[("x", "1")])).await.unwrap();
    b.table::<Row>("t").put("k", &row(&[("y", "2")])).await.unwrap();
    b.sync_with(&serving.address()).await.unwrap();
    assert!(a.conflicts().unwrap().is_empty());
    assert_eq!(a.table("t").get("k").unwrap(), Some(row(&[("x", "1"), ("y", "2")])));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_reads_and_is_told_that_it_may_not_write() {
    let (a, _, serving) = pair().await;
    a.table::<Row>("t").put("k", &row(&[("x", "1")])).await.unwrap();
    let ticket = a.ticket(Role::Read, &serving.address()).await.unwrap();
    let reader = anabranch::Node::in_memory().unwrap();
    let copy = reader.join(&ticket, "db").await.unwrap();
    assert_eq!(copy.table("t").get("k").unwrap(), Some(row(&[("x", "1")])));
    let error = copy.table("t").put("k", &row(&[("x", "2")])).await.unwrap_err();
    assert!(error.to_string().contains("may not write"), "{error}");
    assert!(copy.ticket(Role::Read, "http://127.0.0.1:1").await.is_err(), "nor let others in");
    copy.sync_with(&serving.address()).await.unwrap();
    assert_eq!(a.table("t").get("k").unwrap(), Some(row(&[("x", "1")])));
}
