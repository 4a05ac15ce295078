//! Asking to be let in without a ticket.

use crate::pair;
use anabranch::{Node, Request, Role};
use std::collections::BTreeMap;

fn row() -> BTreeMap<String, u32> {
    BTreeMap::from([("n".into(), 7)])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_asks_is_let_in_once_it_is_approved() {
    let (a, _, serving) = pair().await;
    a.table("t").put("k", &row()).await.unwrap();
    let asker = Node::in_memory().unwrap();
    let request = Request { role: Role::Read, text: "I am Ana's laptop".into(), person: None };
    let copy = asker.ask(a.id(), &serving.address(), "db", request.clone()).unwrap();
    let error = copy.sync_with(&serving.address()).await.unwrap_err().to_string();
    assert!(error.contains("an admin of the database has to approve it"), "{error}");
    let asking = a.requests().unwrap();
    assert_eq!((asking[0].device, &asking[0].request), (asker.id(), &request));
    assert_eq!(a.approve(&asker.id(), None).unwrap(), Role::Read);
    copy.sync_with(&serving.address()).await.unwrap();
    assert_eq!(copy.table("t").get("k").unwrap(), Some(row()));
    let long = Request { role: Role::Read, text: "x".repeat(513), person: None };
    assert!(asker.ask(a.id(), &serving.address(), "db", long).is_err());
}
