//! The pure heart of Anabranch: what an entry is, what a set of entries means, and how both are checked.
//!
//! This crate does no I/O, spawns nothing, reads no clock, no random source and no environment (I8): callers hand it
//! time, randomness and a [`storage::Storage`].

pub mod blob;
pub mod storage;
