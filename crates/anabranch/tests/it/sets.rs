use crate::pair;
use anabranch::{Effect, Error, Node, Path, StoreKind};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Seat {
    row: String,
    number: u32,
}

#[tokio::test]
async fn elements_are_in_or_not() {
    let db = Node::in_memory().unwrap().create("db").unwrap();
    let seats = db.set::<Seat>("seats");
    let seat = |number| Seat { row: "A".into(), number };
    seats.add(&seat(1)).await.unwrap();
    seats.add(&seat(1)).await.unwrap();
    seats.add(&seat(0)).await.unwrap();
    assert!(seats.contains(&seat(1)).unwrap() && !seats.contains(&seat(2)).unwrap());
    assert_eq!(seats.elements().unwrap(), [seat(0), seat(1)]);
    seats.remove(&seat(1)).await.unwrap();
    seats.remove(&seat(9)).await.unwrap();
    assert_eq!(seats.elements().unwrap(), [seat(0)]);
    let mut tx = db.transaction();
    tx.include(&seats, &seat(5)).unwrap().exclude(&seats, &seat(0)).unwrap();
    tx.commit().await.unwrap();
    assert_eq!(seats.elements().unwrap(), [seat(5)]);
    let long = db.set::<String>("long").add(&"x".repeat(9_000)).await;
    assert!(matches!(long, Err(Error::Value { .. })), "{long:?}");
}

#[tokio::test]
async fn one_value_is_one_element_whatever_the_order_of_its_keys() {
    let db = Node::in_memory().unwrap().create("db").unwrap();
    let set = db.set::<HashMap<String, u32>>("s");
    for round in 0..8 {
        let keys = (0..6).map(|n| (format!("{}", (n + round) % 6), (n + round) % 6));
        set.add(&keys.collect()).await.unwrap();
    }
    assert_eq!(set.elements().unwrap().len(), 1);
    let sorted = db.set::<BTreeMap<String, u32>>("s");
    assert!(sorted.contains(&(0..6).map(|n| (n.to_string(), n)).collect()).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_element_added_while_another_device_removes_it_stays() {
    let (a, b, serving) = pair().await;
    let (here, there) = (a.set::<String>("tags"), b.set::<String>("tags"));
    let tags = ["kept".to_owned(), "gone".to_owned()];
    for tag in &tags {
        here.add(tag).await.unwrap();
    }
    b.sync_with(&serving.address()).await.unwrap();
    for tag in &tags {
        here.remove(tag).await.unwrap();
    }
    there.add(&tags[0]).await.unwrap();
    b.sync_with(&serving.address()).await.unwrap();
    assert_eq!(here.elements().unwrap(), tags[..1]);
    assert_eq!(there.elements().unwrap(), tags[..1]);
    there.add(&tags[1]).await.unwrap();
    here.add(&tags[1]).await.unwrap();
    b.sync_with(&serving.address()).await.unwrap();
    assert!(a.conflicts().unwrap().is_empty(), "added twice is no conflict");
    assert_eq!(a.digest().unwrap(), b.digest().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_has_cells_of_its_own_kind() {
    let (a, b, serving) = pair().await;
    let mut watch = a.watch().unwrap();
    let (here, there) = (a.cells(7, "board"), b.cells(7, "board"));
    let path = Path::text(["a", "b"]).unwrap().join_bytes(&[0, 255]).unwrap();
    here.put(&path, Some(b"\xff no CBOR")).await.unwrap();
    there.put(&path, Some(b"theirs")).await.unwrap();
    b.sync_with(&serving.address()).await.unwrap();
    let cell = here.get(&path).unwrap().unwrap();
    assert_eq!(cell.values.len(), 2);
    assert_eq!(a.conflicts().unwrap().len(), 1);
    let write = watch.next().await.unwrap().writes.remove(0);
    assert_eq!((write.store.kind, write.path), (StoreKind::user(7), path.clone()));
    assert!(matches!(write.effect, Effect::Put(raw) if raw.as_bytes() == b"\xff no CBOR"));
    // Who decided on one of two replaces that one.
    here.replace(&path, vec![cell.values[0].name], Some(b"decided")).await.unwrap();
    assert_eq!(here.get(&path).unwrap().unwrap().values.len(), 2);
    let mut tx = a.transaction();
    tx.put_cell(&here, &path, None).put_cell(&here, &Path::text(["z"]).unwrap(), Some(b"z"));
    tx.commit().await.unwrap();
    let mut all = Vec::new();
    here.each(&Path::default(), None, &mut |cell| {
        all.push(cell.winner().value.clone());
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(all, [b"z".to_vec()]);
    assert_eq!(a.cells(8, "board").get(&Path::text(["z"]).unwrap()).unwrap(), None);
    b.sync_with(&serving.address()).await.unwrap();
    assert_eq!(a.digest().unwrap(), b.digest().unwrap());
    assert!(a.digest().unwrap().is_some());
}
