//! What a set of entries means, attacked from outside: hand-made entries and real replicas, in every order, against a
//! reference that folds the set by brute force.

#![allow(clippy::panic, clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod counting;
mod replica;
mod world;

mod admission;
mod authoring;
mod bytes;
mod convergence;
mod cost;
mod heads;
mod histories;
mod indexes;
mod membership;
mod people;
mod seal;
mod unsummed;

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
