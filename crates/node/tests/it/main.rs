//! Nodes and replicas with real storage, and storage that watches what is asked of it.

#![allow(clippy::unwrap_used, clippy::panic)]

mod at_once;
mod attacker;
mod attacks;
mod commits;
mod contents;
mod drives;
mod engine;
mod homes;
mod requests;
mod sources;
mod watched;
