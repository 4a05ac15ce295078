//! `serve`: keeps every replica in step with its remembered addresses, for ever, and lets peers connect if told to; or one
//! session on standard input and output, as ssh starts it.

use super::share::{listen_address, reachable};
use crate::args::ServeArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::hosting::{Hosting, Say};
use crate::output::Output;
use crate::signals;
use crate::units;
use anabranch::engine::node::{Kept, Replicas, Standing, Tell};
use anabranch::engine::transport::pipe;
use anabranch::{DatabaseId, Node};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

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
    let api = match &args.api {
        Some(text) => Some(api_listener(&node, text).await?),
        None => None,
    };
    let hosting = Arc::new(Hosting::new(&node, None, context.output, Say::Trouble));
    let served = hosting.start().await as u64;
    let place = api.as_ref().map(anabranch_api::Listener::place);
    let address = listener.as_ref().map(|l| reachable(l.local_addr()).to_string());
    let replicas = units::counted(served, "replica", "replicas");
    let text = match &address {
        Some(address) => format!("serving {replicas} at {address}"),
        None => format!("keeping {replicas} in step; nothing listens"),
    };
    let object = json!({
        "device": node.id().to_string(),
        "address": address,
        "api": place,
        "replicas": served,
    });
    context.output.answer(&text, &object)?;
    if let Some(place) = &place {
        context.output.note(&format!("programs on this machine are answered at {place}"));
    }
    let keeping = hosting.node().carry_out(&*hosting, stop.clone(), teller(context.output));
    let listening = async {
        if let Some(listener) = listener {
            Arc::clone(&hosting).listen(listener, stop.clone()).await;
        }
    };
    let answering = async {
        if let Some(listener) = api {
            let replicas = Arc::clone(&hosting) as Arc<dyn Replicas>;
            let api = anabranch_api::Api::new(node.clone(), replicas);
            anabranch_api::serve(api, listener, stop.clone()).await;
        }
    };
    tokio::join!(keeping, listening, answering);
    hosting.end().await;
    Ok(())
}

/// Where programs are answered: the socket in the home, or a port of this machine.
async fn api_listener(node: &Node, text: &str) -> Result<anabranch_api::Listener, Failure> {
    let home = node.inner().home().ok_or_else(|| Failure::failed("there is no home"))?;
    if text.is_empty() {
        return Ok(anabranch_api::Listener::unix(home.dir())?);
    }
    let token = anabranch_api::token(home.dir(), || node.inner().device().random())?;
    let address = listen_address(text)?.socket_addr();
    Ok(anabranch_api::Listener::tcp(address, token).await?)
}

async fn stdio(context: &Context, replica: Option<&str>) -> Result<(), Failure> {
    let node = context.node()?;
    let stop = signals::stopping()?;
    if let Some(text) = replica {
        return crate::introduce::serve(&node, text, stop).await;
    }
    let hosting = Hosting::new(&node, None, context.output, Say::Trouble);
    hosting.start().await;
    let served = hosting.node().serve_link(pipe::stdio()?, hosting.replicas(), stop).await;
    hosting.end().await;
    served?;
    Ok(())
}

/// Says what happens to connections: once each time it changes; the attempts in between are for the log.
pub(super) fn teller(output: Output) -> Tell {
    let lost: Mutex<BTreeSet<(DatabaseId, String)>> = Mutex::default();
    Arc::new(move |standing: &Standing, kept: &Kept| {
        let address = standing.addresses.first().cloned().unwrap_or_default();
        let (name, key) = (&standing.name, (standing.database, address.clone()));
        let mut lost = lost.lock().unwrap_or_else(PoisonError::into_inner);
        match kept {
            Kept::InStep => {
                lost.remove(&key);
                output.note(&format!("{name}: in step with {address}"));
            }
            Kept::Lost { why, again_in } => {
                tracing::info!(name, address, ?again_in, "lost: {why}");
                if lost.insert(key) {
                    output.note(&format!("{name}: not in step with {address}: {why}"));
                }
            }
        }
    })
}
