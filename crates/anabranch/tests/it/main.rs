//! The library as an application uses it.

#![allow(clippy::unwrap_used, clippy::panic)]

mod asking;
mod blobs;
mod counting;
mod indexing;
mod lists;
mod merging;
mod sealed;
mod sets;
mod stores;
mod watching;

use anabranch::{Database, Node, Role, Serving};

/// A database on one node, served, and a copy of it on another.
pub(crate) async fn pair() -> (Database, Database, Serving) {
    let (one, other) = (Node::in_memory().unwrap(), Node::in_memory().unwrap());
    let db = one.create("db").unwrap();
    let serving = one.serve("0", &[&db]).await.unwrap();
    let ticket = db.ticket(Role::Write, &serving.address()).await.unwrap();
    let copy = other.join(&ticket, "db").await.unwrap();
    (db, copy, serving)
}
