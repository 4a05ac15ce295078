//! The real binary in homes of its own: every command, wrong usage, two homes that sync, and homes whose processes are
//! killed on the way.

#![allow(clippy::unwrap_used, clippy::panic)]

mod api;
mod blobs;
mod commands;
mod damage;
mod documents;
mod folders;
mod follow;
mod full;
mod help;
mod import;
mod indexes;
mod keys;
mod kill;
mod logging;
mod members;
#[cfg(feature = "otlp")]
mod otlp;
mod people;
mod requests;
mod sealed;
mod sharing;
mod sim;
mod ssh;
mod storm;
mod world;
