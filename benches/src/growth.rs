//! Whether a commit costs the same however much is held: the same commits on replicas of different sizes, and SQLite alone
//! with as many rows, alternating.

use crate::Result;
use crate::commits;
use crate::data::Keys;
use crate::raw::{Raw, Sizes};
use crate::spread::Spread;
use anabranch_core::storage::Durability;
use anabranch_node::Replica;
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;

/// Entries that are committed at once while a replica grows.
const GROUP: u64 = 1_000;

/// Commits one by one at one size.
#[derive(Debug, Serialize)]
pub(crate) struct Growth {
    keys: &'static str,
    held: u64,
    per_second: Spread,
    raw_per_second: Spread,
    ratio: f64,
}

/// Measures commits at NORMAL, `count` at a time, with about `sizes` entries held (ascending), and prints a line for each.
pub(crate) fn run(
    dir: &Path,
    sizes: &[u64],
    count: u64,
    runs: usize,
    keys: &[Keys],
    json: bool,
) -> Result<()> {
    let mut all = Vec::new();
    for &keys in keys {
        all.extend(grow(dir, sizes, count, runs, keys)?);
    }
    if json {
        println!("{}", serde_json::to_string(&all)?);
        return Ok(());
    }
    println!("{:<10}{:>12}{:>28}{:>28}{:>8}", "keys", "held", "commits/s", "SQLite alone", "ratio");
    for g in &all {
        println!(
            "{:<10}{:>12}{:>28}{:>28}{:>8.2}",
            g.keys,
            g.held,
            g.per_second.to_string(),
            g.raw_per_second.to_string(),
            g.ratio
        );
    }
    Ok(())
}

fn grow(dir: &Path, sizes: &[u64], count: u64, runs: usize, keys: Keys) -> Result<Vec<Growth>> {
    let runtime = tokio::runtime::Runtime::new()?;
    let dir = tempfile::Builder::new().prefix("anabranch-growth").tempdir_in(dir)?;
    let replica = commits::replica(&dir.path().join("replica"), Durability::Normal)?;
    fill(&replica, keys, 0..1)?;
    let row = replica.read_tables(Sizes::of)?;
    let mut raw = Raw::create(&dir.path().join("raw"), Durability::Normal, row, keys)?;
    let (mut next, mut all) = (1, Vec::new());
    for &held in sizes {
        if next < held {
            fill(&replica, keys, next..held)?;
            raw.insert(held - next, GROUP)?;
            next = held;
        }
        let (mut own, mut alone) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            own.push(runtime.block_on(commits::one_by_one(&replica, keys, next, count))?);
            alone.push(count as f64 / raw.insert(count, 1)?.as_secs_f64());
            next += count;
        }
        let (per_second, raw_per_second) = (Spread::of(own), Spread::of(alone));
        let ratio = per_second.median / raw_per_second.median;
        all.push(Growth { keys: keys.name(), held, per_second, raw_per_second, ratio });
    }
    Ok(all)
}

fn fill(replica: &Arc<Replica>, keys: Keys, mut rows: std::ops::Range<u64>) -> Result<()> {
    while !rows.is_empty() {
        let upto = rows.end.min(rows.start + GROUP);
        let drafts = (rows.start..upto).map(|n| keys.draft(n)).collect::<Result<Vec<_>>>()?;
        replica.commit_blocking(drafts)?;
        rows.start = upto;
    }
    Ok(())
}
