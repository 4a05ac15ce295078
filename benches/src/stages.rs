//! Where the time of a bootstrap goes: each stage alone, on one thread, over the same entries.

use crate::Result;
use crate::commits;
use crate::data::Keys;
use anabranch_core::admit::{Load, admit_all};
use anabranch_core::build;
use anabranch_core::codec::{Reader, Writer};
use anabranch_core::frontier::Frontier;
use anabranch_core::ledger::found;
use anabranch_core::outgoing::{Outgoing, Withhold};
use anabranch_core::run::{Run, VerifiedRun};
use anabranch_core::storage::{Durability, Storage};
use anabranch_core::view::View;
use anabranch_store::{Options, SqliteStorage};
use std::path::Path;
use std::time::{Duration, Instant};

/// Runs that are applied in one transaction, as a session does.
const RUNS: usize = 5;

/// Measures the stages over `entries` entries and prints µs an entry.
pub(crate) fn run(dir: &Path, entries: u64, keys: Keys) -> Result<()> {
    let dir = tempfile::tempdir_in(dir)?;
    let replica = commits::replica(&dir.path().join("here"), Durability::Normal)?;
    let mut from = 0;
    while from < entries {
        let upto = entries.min(from + 1_000);
        replica.commit_blocking((from..upto).map(|n| keys.draft(n)).collect::<Result<_>>()?)?;
        from = upto;
    }
    let database = replica.database();
    let mut encoded: Vec<Vec<u8>> = Vec::new();
    let reading = timed(|| {
        let tx = replica.storage().read()?;
        let view = View::new(&*tx);
        let mut out = Outgoing::new(view, &Frontier::default())?;
        while let Some(run) = out.next(view, Withhold::NOTHING)? {
            let mut w = Writer::new();
            run.encode(&mut w);
            encoded.push(w.finish());
        }
        Ok(())
    })?;
    let mut runs: Vec<Run> = Vec::new();
    let decoding = timed(|| {
        for bytes in &encoded {
            runs.push(Run::decode(&mut Reader::new(bytes), database)?);
        }
        Ok(())
    })?;
    let mut verified: Vec<VerifiedRun> = Vec::new();
    let verifying = timed(|| {
        for run in runs.drain(..) {
            verified.push(run.verify()?);
        }
        Ok(())
    })?;
    let mut told = vec![("read and encode", reading), ("decode", decoding), ("verify", verifying)];
    for (load, storing, building) in
        [(Load::AtOnce, "store, cells at once", ""), (Load::Bulk, "store in bulk", "build cells")]
    {
        let storage = SqliteStorage::create(dir.path().join(storing), Options::default())?;
        let mut tx = storage.write(Durability::Full)?;
        found(&mut *tx, database)?;
        tx.commit()?;
        let stored = timed(|| {
            for batch in verified.chunks(RUNS) {
                let mut tx = storage.write(Durability::Full)?;
                admit_all(&mut *tx, batch, load, None)?;
                tx.commit()?;
            }
            Ok(())
        })?;
        told.push((storing, stored));
        let built = timed(|| Ok(build::finish(&storage, build::Budget::default())?))?;
        if load == Load::Bulk {
            told.push((building, built));
        }
    }
    for (stage, took) in told {
        println!("{stage:20} {:6.2} µs", took.as_secs_f64() * 1e6 / entries as f64);
    }
    Ok(())
}

fn timed(act: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let start = Instant::now();
    act()?;
    Ok(start.elapsed())
}
