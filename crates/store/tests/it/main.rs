//! Tests of the storage as its users see it: one binary, one module a subject.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "all of this is test code, its helpers as well"
)]

mod child;
mod conformance;
mod crash;
mod damage;
mod files;
mod full;
mod ledger;
mod processes;
