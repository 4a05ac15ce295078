//! Whole nodes on a virtual clock, network and disk, in one thread, from one seed: the code of `core`, `sync` and `node`
//! as it ships, attacked by everything that goes wrong in the field, and judged by checks that know nothing of that code.
//!
//! A seed makes a [`Plan`](plan::Plan): who there is, who talks to whom, what is written and what breaks, and when.
//! [`world::simulate`] plays it, lets everything heal and judges. The same plan gives the same trace, so a failure is
//! replayed by its seed, and [`shrink`] takes steps out of the plan for as long as it still fails.

pub mod blobs;
pub mod campaign;
pub mod check;
pub mod clock;
pub mod disk;
pub mod file;
pub mod files;
pub mod folder;
pub mod network;
pub mod node;
pub mod plan;
pub mod shrink;
pub mod trace;
pub mod tree;
pub mod workload;
pub mod world;
