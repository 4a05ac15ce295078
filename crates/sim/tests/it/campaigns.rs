//! Seeds.

use anabranch_sim::campaign::{median, run};
use anabranch_sim::plan::Options;

#[test]
fn seeds() {
    let first = std::env::var("SIM_FIRST").map_or(0, |s| s.parse().unwrap());
    let count = std::env::var("SIM_SEEDS").map_or(20, |s| s.parse().unwrap());
    let (summary, failure) = run(first, count, &Options::default(), 2, &|_| ());
    println!(
        "{} seeds in {:?}, ops {} faults {}, {:?}",
        summary.seeds,
        summary.took,
        median(&summary.operations),
        median(&summary.faults),
        summary.kinds
    );
    if let Some(failure) = failure {
        panic!("seed {}: {}", failure.seed, failure.violation);
    }
}
