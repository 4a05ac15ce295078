//! Tests of the folder crate from outside: file systems, scanner, applier, and whole replicas meeting each other.

#![allow(clippy::unwrap_used, clippy::panic)]

mod apply;
mod chaos;
mod every_step;
mod file_systems;
mod plan;
mod real;
mod replica;
mod scan;
mod sealed;
mod site;
mod together;
mod world;
