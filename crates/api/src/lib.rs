//! The local API of a node: programs in other languages read, write, watch and sync its databases as JSON over a Unix
//! socket or loopback HTTP. [`OPENAPI`] says how; the node serves it at `/v1/openapi.json`.
//!
//! Over the socket, which only its owner may open, no token is needed; over HTTP every request but `/health` and the
//! document carries the token of the home ([`token`]). Nothing listens beyond this machine.

mod change;
mod databases;
mod docs;
mod error;
mod events;
pub mod json;
mod listen;
mod metrics;
mod requests;
mod routes;
mod rows;
mod status;
mod syncs;
mod token;

pub use change::{
    change_object, conflict_object, date, integer, kind_name, parts, place, value_object,
    written_object,
};
pub use databases::sealed_stores;
pub use listen::{Listener, SOCKET, serve};
pub use status::{intent_object, standing_object};
pub use token::token;

use anabranch::Node;
use anabranch::engine::node::Replicas;
use std::sync::Arc;

/// The description of the API for programs, as OpenAPI 3.1.
pub const OPENAPI: &str = include_str!("openapi.json");

/// What requests are answered with.
#[derive(Clone)]
pub struct Api {
    node: Node,
    replicas: Arc<dyn Replicas>,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Api({:?})", self.node)
    }
}

impl Api {
    /// The API of `node`, whose replicas are opened by `replicas`.
    #[must_use]
    pub fn new(node: Node, replicas: Arc<dyn Replicas>) -> Self {
        Self { node, replicas }
    }
}
