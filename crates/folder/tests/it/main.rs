//! Tests of the folder crate from outside: file systems, scanner, applier, and whole replicas meeting each other.

mod chaos;
mod replica;
mod together;
