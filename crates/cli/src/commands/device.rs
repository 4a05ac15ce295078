//! `id`, `init` and `peers`: this device and those it knows.

use crate::context::Context;
use crate::failure::Failure;
use crate::output::table;
use crate::units;
use anabranch::Timestamp;
use serde_json::json;

/// Prints this device's id.
pub(crate) fn id(context: &Context) -> Result<(), Failure> {
    let node = context.home()?.key().node_id().to_string();
    context.output.answer(&node, &json!({ "device": node }))
}

/// Makes the home.
pub(crate) fn init(context: &Context) -> Result<(), Failure> {
    let home = context.home()?;
    let (dir, node) = (home.dir().display().to_string(), home.key().node_id().to_string());
    let text = format!("home    {dir}\ndevice  {node}");
    context.output.summary(&text, &json!({ "home": dir, "device": node }))
}

/// Lists devices that were talked to.
pub(crate) fn peers(context: &Context) -> Result<(), Failure> {
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
                "seen": units::date(Timestamp(p.seen)),
                "address": p.address,
            })
        })
        .collect();
    if peers.is_empty() {
        context.output.note("no other device has been talked to yet");
    }
    context.output.answer(&table(&rows), &json!({ "peers": objects }))
}
