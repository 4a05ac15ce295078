//! Links over HTTP with a WebSocket upgrade: the listener, the client, and TLS for the client.
//!
//! A node answers at two paths: [`LINK_PATH`] becomes a link, [`HEALTH_PATH`] tells a load balancer that the node is
//! up. The listener speaks plain HTTP: links are encrypted by [`crate::secure`], and a certificate, where one is
//! wanted, is the business of a proxy in front. Clients speak `http`, `ws`, `https` and `wss`.

mod client;
mod routes;
mod server;
mod tls;

pub(crate) use client::connect;
pub use server::{HttpListener, TurnedAway};
pub use tls::{TlsError, TlsRoots};

/// Where a WebSocket upgrade becomes a link.
pub const LINK_PATH: &str = "/anabranch/v1";
/// Answers `{"status":"ok"}` while the node is up.
pub const HEALTH_PATH: &str = "/health";
