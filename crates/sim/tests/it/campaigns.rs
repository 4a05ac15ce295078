//! The simulations of every test run: a slice of seeds, and the same seed twice.

use anabranch_sim::campaign::Campaign;
use anabranch_sim::plan::{Options, Plan};
use anabranch_sim::world::simulate;
use std::env;
use std::time::{SystemTime, UNIX_EPOCH};

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// Seeds that nobody has seen, unless told otherwise.
fn any() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a date after 1970");
    // Short enough to be typed.
    now.as_micros() as u64 % 1_000_000_000_000
}

/// `ANABRANCH_SIM_SEED` and `ANABRANCH_SIM_SEEDS` choose the seeds.
#[test]
fn a_slice_of_seeds() {
    let first = number("ANABRANCH_SIM_SEED").unwrap_or_else(any);
    let seeds = number("ANABRANCH_SIM_SEEDS").unwrap_or(10);
    println!("ANABRANCH_SIM_SEED={first} repeats this");
    let options = Options::default();
    let campaign = Campaign { first, seeds, options, threads: 2, go_on: true };
    let (_, failures) = campaign.run(&|_| ());
    for failure in &failures {
        println!("'anabranch sim --seed {} --story': {}", failure.seed, failure.violation);
    }
    assert!(failures.is_empty(), "{} seeds failed", failures.len());
}

/// Threads, addresses and hash tables have no say.
#[test]
fn one_seed_gives_one_trace() {
    let trace = |seed| simulate(&Plan::generate(seed, &Options::default()), false).trace;
    let seeds: Vec<u64> = (500..512).collect();
    let alone: Vec<[u8; 32]> = seeds.iter().map(|seed| trace(*seed)).collect();
    let together: Vec<[u8; 32]> = std::thread::scope(|scope| {
        let threads: Vec<_> = seeds.iter().map(|seed| scope.spawn(|| trace(*seed))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(alone, together);
    let distinct: std::collections::BTreeSet<_> = alone.iter().collect();
    assert_eq!(distinct.len(), alone.len(), "a trace says which seed it was");
}
