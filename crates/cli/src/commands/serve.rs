//! `serve`: keeps every replica in step with its remembered addresses, for ever, and lets peers connect if told to; or one
//! session on standard input and output, as ssh starts it.

use super::share::{listen_address, reachable};
use crate::args::ServeArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::hosting::Hosting;
use crate::output::Output;
use crate::signals;
use crate::units;
use anabranch::DatabaseId;
use anabranch::engine::node::{Kept, Record, Target};
use anabranch::engine::transport::pipe;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How often the home is looked at for replicas and addresses that other commands added.
const RESCAN: Duration = Duration::from_secs(5);

/// Serves until interrupted, or until the peer on standard input leaves.
pub(crate) async fn run(context: &Context, args: &ServeArgs) -> Result<(), Failure> {
    if args.stdio {
        return stdio(context, args.replica.as_deref()).await;
    }
    let node = context.node()?;
    let stop = signals::stopping()?;
    let listener = match &args.listen {
        Some(text) => Some(node.inner().listen(listen_address(text)?).await?),
        None => None,
    };
    let hosting = Arc::new(Hosting::new(&node, None, context.output));
    let served = hosting.start().await as u64;
    let address = listener.as_ref().map(|l| reachable(l.local_addr()).to_string());
    let replicas = units::counted(served, "replica", "replicas");
    let text = match &address {
        Some(address) => format!("serving {replicas} at {address}"),
        None => format!("keeping {replicas} in step; nothing listens"),
    };
    let object = json!({ "device": node.id().to_string(), "address": address, "replicas": served });
    context.output.answer(&text, &object)?;
    let keeping = tokio::spawn(keep_all(Arc::clone(&hosting), stop.clone(), context.output));
    if let Some(listener) = listener {
        Arc::clone(&hosting).listen(listener, stop).await;
    }
    keeping.await?;
    hosting.end().await;
    Ok(())
}

async fn stdio(context: &Context, replica: Option<&str>) -> Result<(), Failure> {
    let node = context.node()?;
    let stop = signals::stopping()?;
    if let Some(text) = replica {
        return crate::introduce::serve(&node, text, stop).await;
    }
    let hosting = Hosting::new(&node, None, context.output);
    hosting.start().await;
    let served = hosting.node().serve_link(pipe::stdio()?, hosting.replicas(), stop).await;
    hosting.end().await;
    served?;
    Ok(())
}

struct Keeping {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// Keeps every replica in step with each of its addresses, those that are added later included.
async fn keep_all(hosting: Arc<Hosting>, mut stop: watch::Receiver<bool>, output: Output) {
    let mut kept: BTreeMap<(DatabaseId, String), Keeping> = BTreeMap::new();
    let mut ticks = tokio::time::interval(RESCAN);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = signals::stopped(&mut stop) => break,
        }
        let records = hosting.records();
        let named = |(database, address): &(DatabaseId, String)| {
            records.iter().any(|r| r.database == *database && r.addresses.contains(address))
        };
        kept.retain(|key, keeping| {
            let stays = named(key);
            if !stays {
                keeping.stop.send_replace(true);
            }
            stays
        });
        for record in &records {
            for address in &record.addresses {
                let key = (record.database, address.clone());
                if !kept.contains_key(&key)
                    && let Some(keeping) = keep(&hosting, record, address, output)
                {
                    kept.insert(key, keeping);
                }
            }
        }
    }
    for keeping in kept.values() {
        keeping.stop.send_replace(true);
    }
    for (_, keeping) in kept {
        // A task that failed has nothing left to stop.
        let _ = keeping.task.await;
    }
}

fn keep(hosting: &Arc<Hosting>, record: &Record, address: &str, output: Output) -> Option<Keeping> {
    let replica = hosting.open(record)?;
    let target = Target { replica, address: address.to_owned(), ticket: record.ticket };
    let (stop, stopped) = watch::channel(false);
    let node = Arc::clone(hosting.node());
    let (name, address) = (record.name.clone(), address.to_owned());
    let task = tokio::spawn(async move {
        // Said once each time it changes; the attempts in between are for the log.
        let lost = AtomicBool::new(false);
        let tell = |event: Kept| match event {
            Kept::InStep => {
                lost.store(false, Ordering::Relaxed);
                output.note(&format!("{name}: in step with {address}"));
            }
            Kept::Lost { error, again_in } => {
                let why = error.map_or_else(|| "it left".to_owned(), |e| e.chain());
                tracing::info!(name, address, ?again_in, "lost: {why}");
                if !lost.swap(true, Ordering::Relaxed) {
                    output
                        .note(&format!("{name}: {address} is lost and will be tried again: {why}"));
                }
            }
        };
        node.keep(target, stopped, &tell).await;
    });
    Some(Keeping { stop, task })
}
