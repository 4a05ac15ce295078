//! Databases of which some or all stores are sealed: what a device shows that has no key, and what of it lies on its disk.

use anabranch::engine::core::error::Error as CoreError;
use anabranch::engine::core::storage::{Order, StorageError, Table};
use anabranch::{Database, Error, NewDatabase, Node, NodeError, Role, Sealed, Serving};
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;

#[derive(Serialize, Deserialize, Debug, PartialEq, Clone)]
struct Row {
    markfield: String,
    n: u32,
}

fn row(text: &str) -> Row {
    Row { markfield: text.into(), n: 7 }
}

/// A database, and a relay's replica of it.
struct Relayed {
    db: Database,
    relay: Database,
    serving: Serving,
    nodes: [Node; 2],
}

async fn relayed(sealed: Sealed) -> Relayed {
    let nodes = [(); 2].map(|()| Node::in_memory().unwrap());
    let db = nodes[0].create_with("db", NewDatabase { recovery: None, sealed }).unwrap();
    db.table::<Row>("s").put("a", &row("MARKVALUE")).await.unwrap();
    db.table::<Row>("open").put("a", &row("OPENVALUE")).await.unwrap();
    let serving = nodes[0].serve("0", &[&db]).await.unwrap();
    let ticket = db.ticket(Role::Relay, &serving.address()).await.unwrap();
    let relay = nodes[1].join(&ticket, "db").await.unwrap();
    Relayed { db, relay, serving, nodes }
}

fn some() -> Sealed {
    Sealed::Stores(vec!["s".into()])
}

#[track_caller]
fn no_key<T: std::fmt::Debug>(done: Result<T, Error>) {
    let no_key = CoreError::Storage(StorageError::NoKey).to_string();
    let error = done.expect_err("an empty store is shown");
    let core =
        matches!(&error, Error::Node(NodeError::Core(CoreError::Storage(StorageError::NoKey))));
    assert!(core || error.to_string().contains(&no_key), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_nothing_is_shown_and_nothing_is_done() {
    for sealed in [Sealed::Everything, some()] {
        let Relayed { relay, .. } = relayed(sealed).await;
        let table = relay.table::<Row>("s");
        relay.index("s", "n").await.unwrap();
        no_key(table.get("a"));
        no_key(table.rows("", None, 10));
        no_key(table.find("n", &7));
        no_key(relay.doc("s").get::<u32>(&["x"]));
        no_key(relay.counter("s").get(&["x"]));
        no_key(relay.set::<String>("s").contains(&"x".to_owned()));
        no_key(relay.set::<String>("s").each(&mut |_| ControlFlow::Continue(())));
        no_key(relay.blobs("s").get("x"));
        no_key(relay.blobs("s").each(&mut |_| ControlFlow::Continue(())));
        no_key(relay.conflicts());
        let mut tx = relay.transaction();
        no_key(tx.get(&table, "a"));
        // Nobody can tell whether there is anything to be deleted.
        no_key(table.delete("a").await);
        no_key(relay.blobs("s").remove("x").await);
        no_key(relay.counter("s").reset(&["x"]).await);
    }
    let Relayed { relay, .. } = relayed(some()).await;
    assert_eq!(relay.table::<Row>("open").get("a").unwrap().unwrap(), row("OPENVALUE"));
}

fn occurs(db: &Database, text: &[u8]) -> usize {
    let mut count = 0;
    let looked = db.replica().read_tables(|tx| {
        for table in Table::ALL {
            tx.scan(table, &[], None, Order::Ascending, &mut |key, row| {
                for bytes in [key, row] {
                    count += bytes.windows(text.len()).filter(|w| *w == text).count();
                }
                ControlFlow::Continue(())
            })?;
        }
        Ok::<_, StorageError>(())
    });
    looked.unwrap();
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_sealed_store_lies_in_the_clear_however_it_was_written() {
    let Relayed { db, relay, serving, nodes } = relayed(some()).await;
    let (table, open) = (db.table::<Row>("s"), db.table::<Row>("open"));
    db.index("s", "markfield").await.unwrap();
    let mut bulk = table.bulk();
    for n in 0..500 {
        bulk.put(&format!("MARKBULK{n}"), &row("MARKVALUE")).await.unwrap();
    }
    bulk.finish().await.unwrap();
    db.doc("s").set(&["MARKDOC"], &row("MARKVALUE")).await.unwrap();
    db.counter("s").add(&["MARKCOUNT"], 5).await.unwrap();
    db.set::<String>("s").add(&"MARKELEMENT".to_owned()).await.unwrap();
    db.doc("s").list(&["MARKLIST"]).unwrap().push(&"MARKITEM").await.unwrap();
    let large: Vec<u8> =
        (0..60_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
    for (name, content) in [("MARKBLOB", &large[..]), ("MARKTINY", b"MARKTINYCONTENT")] {
        let mut content = content;
        db.blobs("s").put_blocking(name, "MARK/type", &mut content, &mut |_| Ok(())).unwrap();
    }
    // Some of it beside what is not sealed, in one entry.
    let mut tx = db.transaction();
    tx.put(&table, "MARKTX", &row("MARKVALUE")).unwrap();
    tx.put(&open, "OPENTX", &row("OPENVALUE")).unwrap();
    tx.set(&db.doc("s"), &["MARKTXDOC"], &row("MARKVALUE")).unwrap();
    tx.count(&db.counter("s"), &["MARKTXCOUNT"], 2).unwrap();
    tx.count(&db.counter("open"), &["OPENCOUNT"], 2).unwrap();
    tx.commit().await.unwrap();
    table.delete("MARKBULK3").await.unwrap();
    relay.sync_with(&serving.address()).await.unwrap();
    assert_eq!(occurs(&relay, b"MARK"), 0);
    assert_eq!(occurs(&relay, &large[..24]) + occurs(&relay, &large[120_000..120_024]), 0);
    assert_eq!(relay.table::<Row>("open").get("OPENTX").unwrap().unwrap(), row("OPENVALUE"));
    assert_eq!(relay.counter("open").get(&["OPENCOUNT"]).unwrap(), 2);
    // A third device has all of it by way of the relay.
    let by_relay = nodes[1].serve("0", &[&relay]).await.unwrap();
    let ticket = db.ticket(Role::Write, &serving.address()).await.unwrap();
    let third = Node::in_memory().unwrap();
    let third = third.join(&ticket, "db").await.unwrap();
    third.sync_with(&by_relay.address()).await.unwrap();
    assert_eq!(third.digest().unwrap(), db.digest().unwrap());
    assert!(third.digest().unwrap().is_some());
    assert_eq!(third.table::<Row>("s").rows("", None, 10_000).unwrap().len(), 501);
}
