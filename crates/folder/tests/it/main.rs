//! Tests of the folder crate from outside: file systems, scanner, applier, and whole replicas meeting each other.

mod replica;
mod together;
