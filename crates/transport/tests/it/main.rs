//! Integration tests of the transports: one conformance suite for every kind of link, and what can go wrong on each.

#![allow(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod conformance;
mod http;
mod kinds;
mod pipe;
mod proxy;
mod secure;
mod ssh;
mod tls;
