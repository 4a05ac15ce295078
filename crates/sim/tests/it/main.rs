//! Simulations as every test run has them.

#![allow(clippy::unwrap_used, clippy::panic)]

mod campaigns;
mod plans;
