//! Replicas of databases that stay in step between any machines, over any network, with no server required.
//!
//! A [`Node`] is one device. It holds [`Database`]s, whose [`Table`]s and [`Doc`]s are read and written locally and
//! merge with those of other devices whenever the two get in touch. Concurrent edits are never lost: one is shown, the
//! others stay readable as conflicts until somebody resolves them.
//!
//! ```
//! use anabranch::{Intent, Node, Role};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize, PartialEq, Debug)]
//! struct Task { text: String, done: bool }
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), anabranch::Error> {
//! let laptop = Node::in_memory()?; // or Node::open(directory), to keep it
//! let tasks = laptop.create("todo")?;
//! tasks.table("tasks").put("milk", &Task { text: "buy milk".into(), done: false }).await?;
//!
//! let serving = laptop.serve("0", &[&tasks]).await?; // a free port on loopback
//! let ticket = tasks.ticket(Role::Write, &serving.address()).await?;
//!
//! let phone = Node::in_memory()?;
//! let copy = phone.join(&ticket, "todo").await?;
//! copy.table("tasks").put("milk", &Task { text: "buy milk".into(), done: true }).await?;
//! let mut sync = copy.keep_in_step(&Intent::new(serving.address()))?; // until dropped
//! sync.in_step().await?;
//! assert!(tasks.table::<Task>("tasks").get("milk")?.unwrap().done);
//! assert_eq!(tasks.digest()?, copy.digest()?);
//! # Ok(())
//! # }
//! ```

mod blobs;
mod bulk;
mod cells;
mod conflict;
mod counter;
mod database;
mod depth;
mod doc;
mod error;
mod index;
mod list;
mod node;
mod position;
mod set;
mod table;
mod transaction;
mod value;
mod watch;

pub use anabranch_core::blob::{BlobRef, ContentRef};
pub use anabranch_core::cells::{Cell, LiveValue};
pub use anabranch_core::entry::{StoreId, StoreKind, Timestamp};
pub use anabranch_core::id::{DatabaseId, EntryId, NodeId};
pub use anabranch_core::index::IndexInfo;
pub use anabranch_core::membership::{Grant, Revocation};
pub use anabranch_core::ops::{Role, ValueName};
pub use anabranch_core::path::{ElementId, Path, PathError, Segment};
pub use anabranch_core::seal::Scope as Sealed;
pub use anabranch_core::storage::Order;
pub use anabranch_core::ticket::Ticket;
pub use anabranch_node::{
    Asking, BlobReader, Collected, Control, Intent, Keep, Leave, Member, NewDatabase, NodeError,
    Passphrase, Priority, Progress, Report, Revoked, Standing, State, SyncHandle, Why,
};
pub use anabranch_sync::frame::Request;
pub use blobs::{Blob, BlobVersion, Blobs};
pub use bulk::{Bulk, Loaded};
pub use cells::Cells;
pub use conflict::{Conflict, Version};
pub use counter::Counter;
pub use database::Database;
pub use doc::Doc;
pub use error::Error;
pub use list::{List, is_position};
pub use node::{Node, Serving};
pub use set::Set;
pub use table::Table;
pub use transaction::Transaction;
pub use value::Raw;
pub use watch::{Change, Effect, Watch, Written};

/// The parts underneath, for programs that build other kinds of replicas.
pub mod engine {
    pub use anabranch_core as core;
    pub use anabranch_node as node;
    pub use anabranch_store as store;
    pub use anabranch_sync as sync;
    pub use anabranch_transport as transport;
}
