//! The pure heart of Anabranch: what an entry is, what a set of entries means, and how both are checked.
//!
//! This crate does no I/O, spawns nothing, reads no clock, no random source and no environment (I8): callers hand it
//! time, randomness and a [`storage::Storage`].
//!
//! Start reading at [`entry`], then [`run`] and [`admit`] for what arrives from peers, [`author`] for what is written
//! here, and [`cells`] for what a set of entries means.

pub mod admit;
pub mod author;
pub mod awaited;
pub mod blob;
mod body;
pub mod build;
pub mod cells;
pub mod codec;
mod compared;
pub mod counters;
pub mod entry;
pub mod equivocation;
pub mod error;
pub mod founding;
pub mod frontier;
pub mod head;
pub mod id;
pub mod index;
pub mod key;
mod known;
pub mod ledger;
pub mod limits;
pub mod lthash;
pub mod membership;
mod names;
pub mod ops;
pub mod outgoing;
mod past;
pub mod path;
pub mod person;
mod recount;
pub mod rewritten;
pub mod riblt;
mod rows;
pub mod run;
pub mod sabotage;
mod scratch;
pub mod seal;
pub mod sortkey;
pub mod storage;
pub mod ticket;
mod unsummed;
pub mod verify;
pub mod view;
