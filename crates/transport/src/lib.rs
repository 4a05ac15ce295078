//! Links: how bytes get from one node to another.
//!
//! A [`Link`] is an ordered, reliable, framed byte channel to one peer. This crate makes links in memory, over
//! pipes (a child process, `ssh`, standard input and output) and over HTTP with a WebSocket upgrade, wraps any of
//! them in an encrypted session ([`secure`]), and parses the addresses people write ([`Address`]). It moves bytes
//! and has no opinion on what they mean: entries, sessions and permissions live elsewhere.
//!
//! It guards I5 (a bad peer ends its own link and nothing else), I7 (every queue and buffer is bounded, sizes are
//! checked before anything is allocated), I9 (nothing listens unless a caller binds a listener) and I10 (every
//! limit is a field of [`Limits`]).

mod address;
mod error;
pub mod http;
mod limits;
mod link;
mod listen;
mod manager;
pub mod memory;
pub mod pipe;
pub mod secure;
pub mod ssh;
#[cfg(feature = "testing")]
pub mod testing;
mod websocket;

pub use address::{Address, AddressError, Host, HttpAddress, Scheme, SshAddress};
pub use error::{ConnectError, LinkError, ListenError, ProcessFailure};
pub use http::HttpListener;
pub use limits::{Limits, LimitsError};
pub use link::{BoxFuture, FrameSink, FrameStream, Link, LinkReceiver, LinkSender, Trust};
pub use listen::{ListenAddr, ListenAddrError};
pub use manager::{TransportConfig, TransportManager};

/// The largest frame a link carries, in bytes. Both ends must agree on it, so it is part of the protocol and not
/// a setting. A larger frame is refused when it is sent, and when it is received before memory is set aside for it.
pub const MAX_FRAME: usize = 512 * 1024;
