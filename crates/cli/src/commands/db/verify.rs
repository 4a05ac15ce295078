//! `db verify`: every page of the file, and every entry through the checks that guard the network, into a scratch copy
//! beside the file that is gone when it ends.

use crate::args::DbArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::progress::Meter;
use crate::units;
use anabranch::engine::core::build;
use anabranch::engine::core::error::Error;
use anabranch::engine::core::storage::Storage as _;
use anabranch::engine::core::verify::{Verified, verify};
use anabranch::engine::node::Replica;
use anabranch::engine::store::{Options, SqliteStorage};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Verifies a database.
pub(super) async fn run(context: &Context, args: &DbArgs) -> Result<(), Failure> {
    let node = context.node()?;
    let db = context.database(&node, &args.db)?;
    let Some(storage) = node.inner().file_of(db.id()) else {
        return Err(Failure::failed("the database is in no file"));
    };
    replica(context, &args.db, db.replica(), &storage).await
}

/// Verifies the replica called `name`, which is in the file `storage`.
pub(crate) async fn replica(
    context: &Context,
    name: &str,
    replica: &Replica,
    storage: &Arc<SqliteStorage>,
) -> Result<(), Failure> {
    let started = Instant::now();
    let storage = Arc::clone(storage);
    let beside = storage.path().parent().unwrap_or(Path::new("."));
    // Removed when this function ends, however it does.
    let scratch = tempfile::Builder::new().prefix(".verify-").tempdir_in(beside)?;
    let file = scratch.path().join("scratch.db");
    let total = replica.look(|view| view.totals())?.entries;
    let done = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&done);
    let mut work = tokio::task::spawn_blocking(move || check(&storage, &file, &counter));
    let mut meter = Meter::new(context.output, "verifying");
    let mut stop = crate::signals::stopping()?;
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    let verified = loop {
        tokio::select! {
            result = &mut work => break result??,
            _ = ticks.tick() => {
                let done = done.load(Ordering::Relaxed);
                meter.set(done, Some(total), units::counted(done, "entry", "entries"));
            }
            () = crate::signals::stopped(&mut stop) => return Err(Failure::failed("interrupted")),
        }
    };
    drop(meter);
    let text = format!(
        "{} is sound: {} and {} verified in {}{}",
        name,
        units::counted(verified.entries, "entry", "entries"),
        units::counted(verified.blobs, "chunk", "chunks"),
        units::duration(started.elapsed()),
        match verified.unsigned {
            0 => String::new(),
            count => format!(", {} not signed yet", units::number(count)),
        }
    );
    let object = json!({
        "entries": verified.entries,
        "unsigned": verified.unsigned,
        "chunks": verified.blobs,
        "seconds": started.elapsed().as_secs_f64(),
    });
    context.output.summary(&text, &object)
}

fn check(storage: &SqliteStorage, scratch: &Path, done: &AtomicU64) -> Result<Verified, Failure> {
    let findings = storage.check()?;
    if !findings.is_empty() {
        return Err(damaged(storage.path()).reason(findings.join("; ")));
    }
    let scratch = SqliteStorage::create(scratch, Options::default())?;
    // What a bulk load left is part of what is verified.
    build::finish(storage, build::Budget::default())?;
    let tx = storage.read()?;
    verify(&*tx, &scratch, &mut |entries| done.store(entries, Ordering::Relaxed)).map_err(|e| {
        match e {
            Error::Storage(_) | Error::WrongIndex(_) => e.into(),
            e => damaged(storage.path()).because(&e),
        }
    })
}

fn damaged(file: &Path) -> Failure {
    Failure::failed(format!("{} is damaged", file.display()))
        .hint("restore the file from a copy, or forget the database and join again from a peer")
}
