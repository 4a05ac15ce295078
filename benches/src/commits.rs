//! Commits of one cell each, by one writer and by many at once, on a new replica and on a large one.

use crate::data::Keys;
use crate::raw::{Raw, Sizes};
use crate::{Error, Result};
use anabranch_core::key::DeviceKey;
use anabranch_core::storage::{Durability, Storage};
use anabranch_node::{Device, Replica, ReplicaOptions};
use anabranch_store::{Options, SqliteStorage};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Writers that commit at once.
pub(crate) const WRITERS: u64 = 64;

/// How many commits are measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counts {
    /// One by one, each synced.
    pub(crate) full: u64,
    /// One by one, not synced.
    pub(crate) normal: u64,
    /// By [`WRITERS`] writers together, each synced.
    pub(crate) many: u64,
}

impl Counts {
    pub(crate) fn new(quick: bool) -> Self {
        if quick {
            Self { full: 500, normal: 5_000, many: 6_400 }
        } else {
            Self { full: 4_000, normal: 40_000, many: 40_000 }
        }
    }
}

/// A new replica in the file `path`.
pub(crate) fn replica(path: &Path, durability: Durability) -> Result<Arc<Replica>> {
    let device = Device::new(DeviceKey::from_seed(&[7; 32]));
    let storage = SqliteStorage::create(path, Options::default())?;
    Replica::found(&storage, &device)?;
    let storage: Arc<dyn Storage> = Arc::new(storage);
    let options = ReplicaOptions { durability, ..ReplicaOptions::default() };
    Ok(Replica::open(storage, None, device, options)?)
}

/// Commits a second, by one writer that waits for each. Rows from `from` on.
pub(crate) async fn one_by_one(
    replica: &Replica,
    keys: Keys,
    from: u64,
    count: u64,
) -> Result<f64> {
    let start = Instant::now();
    for n in from..from + count {
        replica.commit(vec![keys.draft(n)?]).await?;
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

/// Commits a second, by [`WRITERS`] writers of which each waits for its own.
pub(crate) async fn at_once(replica: &Arc<Replica>, count: u64) -> Result<f64> {
    let share = count / WRITERS;
    let start = Instant::now();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let replica = Arc::clone(replica);
        writers.spawn(async move {
            for n in writer * share..(writer + 1) * share {
                replica.commit(vec![Keys::Random.draft(n)?]).await?;
            }
            Ok::<_, Error>(())
        });
    }
    while let Some(done) = writers.join_next().await {
        done??;
    }
    Ok((share * WRITERS) as f64 / start.elapsed().as_secs_f64())
}

/// SQLite alone: commits a second, by one writer.
pub(crate) fn raw(path: &Path, durability: Durability, sizes: Sizes, count: u64) -> Result<f64> {
    let took = Raw::create(path, durability, sizes, Keys::Random)?.insert(count, 1)?;
    Ok(count as f64 / took.as_secs_f64())
}
