//! The store on disks that fail: one binary, one module a kind of failure.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "all of this is test code, its helpers as well"
)]

mod bits;
mod copies;
mod errors;
mod plan;
mod power;
mod repeat;
mod rollback;
mod room;
mod world;
