//! Whole sessions between real replicas, in one thread: frame by frame, cut anywhere, in any order of storage work, and
//! with peers that do not keep to the rules.

#![allow(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod harness;
mod net;
mod rogue;

mod blobs;
mod credit;
mod forks;
mod garbage;
mod live;
mod people;
mod put_out;
mod random;
mod requests;
mod resume;
mod rights;
mod sessions;
mod summed;
mod tickets;
mod withhold;

use proptest::test_runner::{Config, RngSeed};

/// Every run of the tests tries the same cases. `PROPTEST_CASES` asks for another number, `PROPTEST_RNG_SEED` for others.
fn cases(usual: u32) -> Config {
    let read = |name| std::env::var(name).ok();
    Config {
        cases: read("PROPTEST_CASES").and_then(|n| n.parse().ok()).unwrap_or(usual),
        rng_seed: RngSeed::Fixed(
            read("PROPTEST_RNG_SEED").and_then(|n| n.parse().ok()).unwrap_or(7),
        ),
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..Config::default()
    }
}
