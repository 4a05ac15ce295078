//! Whole sessions between real replicas, in one thread.

mod harness;
mod sessions;
