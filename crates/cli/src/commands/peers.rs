//! `peers`: devices that were talked to, and with whom replicas are to be kept in step.

use crate::args::{PeersAddArgs, PeersCommand, PeersRmArgs};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::table;
use crate::replicas;
use crate::units;
use anabranch::engine::node::Intent;
use anabranch::engine::sync::channel::Direction;
use anabranch::engine::transport::Address;
use anabranch::{NodeError, Timestamp};
use serde_json::json;

/// Lists, adds or removes.
pub(crate) fn run(context: &Context, command: Option<PeersCommand>) -> Result<(), Failure> {
    match command {
        None => list(context),
        Some(PeersCommand::Add(args)) => add(context, &args),
        Some(PeersCommand::Rm(args)) => remove(context, &args),
    }
}

/// Devices that were talked to.
fn list(context: &Context) -> Result<(), Failure> {
    let peers = context.home()?.peers()?;
    let rows: Vec<Vec<String>> = peers
        .iter()
        .map(|p| vec![p.device.to_string(), units::ago(Timestamp(p.seen)), p.address.clone()])
        .collect();
    let objects: Vec<_> = peers
        .iter()
        .map(|p| {
            json!({
                "device": p.device.to_string(),
                "seen": anabranch_api::date(Timestamp(p.seen)),
                "address": p.address,
            })
        })
        .collect();
    if peers.is_empty() {
        context.output.note("no other device has been talked to yet");
    }
    context.output.answer(&table(&rows), &json!({ "peers": objects }))
}

fn add(context: &Context, args: &PeersAddArgs) -> Result<(), Failure> {
    let node = context.node()?;
    let record = replicas::named(&node, &args.replica)?;
    let address = Address::parse(&args.address).map_err(NodeError::from)?.to_string();
    let direction = match (args.push, args.pull) {
        (true, _) => Direction::PUSH,
        (_, true) => Direction::PULL,
        _ => Direction::BOTH,
    };
    let priority = args.priority.into();
    let intent = Intent { address: address.clone(), direction, every: args.every, priority };
    node.inner().declare(&record, intent)?;
    let text = format!("'anabranch serve' keeps {} in step with {address}", record.name);
    context.output.summary(&text, &json!({ "name": record.name, "address": address }))
}

fn remove(context: &Context, args: &PeersRmArgs) -> Result<(), Failure> {
    let node = context.node()?;
    let record = replicas::named(&node, &args.replica)?;
    // As it was written, or as it is stored.
    let stored = Address::parse(&args.address).map(|address| address.to_string());
    let mut ways = vec![args.address.clone()];
    ways.extend(stored.ok());
    for address in ways {
        if node.inner().withdraw(&record, &address)? {
            let text = format!("{} is not kept in step with {address} any more", record.name);
            return context
                .output
                .summary(&text, &json!({ "name": record.name, "address": address }));
        }
    }
    Err(Failure::failed(format!("{} is not kept in step with {}", record.name, args.address))
        .hint(format!("'anabranch status {}' lists its addresses", args.replica)))
}
