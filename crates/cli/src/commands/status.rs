//! `status`: every replica of this device, where it is synced with, and what is wrong with it.

use crate::args::StatusArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{plain, table};
use crate::place::{Place, no_database, resolve};
use crate::replicas::Opened;
use crate::units;
use anabranch::engine::core::storage::StorageError;
use anabranch::engine::node::{PeerRecord, Record};
use anabranch::{Node, Role, Timestamp};
use serde_json::{Value, json};

struct Standing {
    record: Record,
    state: Result<State, Failure>,
}

struct State {
    entries: u64,
    bytes: u64,
    role: Option<Role>,
}

/// Prints how replicas stand.
pub(crate) fn run(context: &Context, args: &StatusArgs) -> Result<(), Failure> {
    let node = context.node()?;
    let home = context.home()?;
    let records = match &args.replica {
        None => home.records()?,
        Some(text) => vec![one(&node, text)?],
    };
    let peers = home.peers()?;
    let standings: Vec<Standing> = records
        .into_iter()
        .map(|record| Standing { state: look(&node, &record), record })
        .collect();
    if standings.is_empty() {
        context.output.note("there is no replica here yet; 'anabranch db new NAME' makes one");
    }
    let heads: Vec<Vec<String>> = standings.iter().map(head).collect();
    let mut text = Vec::new();
    for (line, standing) in table(&heads).lines().zip(&standings) {
        text.push(line.to_owned());
        text.extend(details(standing, &peers).iter().map(|line| plain(&format!("    {line}"))));
    }
    let objects: Vec<Value> = standings.iter().map(|s| object(s, &peers)).collect();
    let document = json!({ "device": node.id().to_string(), "replicas": objects });
    context.output.answer(&text.join("\n"), &document)?;
    let broken = standings.iter().filter(|s| s.state.is_err()).count() as u64;
    if broken > 0 {
        let which = units::counted(broken, "replica", "replicas");
        return Err(Failure::partly(format!("{which} cannot be opened")));
    }
    Ok(())
}

fn one(node: &Node, text: &str) -> Result<Record, Failure> {
    match resolve(node, text)? {
        Place::Database(record) => Ok(record),
        Place::Folder(path) => crate::replicas::folder_record(node, &path),
        Place::New(name) => Err(no_database(&name)),
        Place::Ticket(_) | Place::Remote(_) => {
            Err(Failure::usage("only a replica of this device has a status here"))
        }
    }
}

fn look(node: &Node, record: &Record) -> Result<State, Failure> {
    let opened = Opened::new(node, record)?;
    let replica = opened.replica();
    let (entries, role) = replica
        .look(|view| Ok::<_, StorageError>((view.totals()?.entries, view.role_of(&node.id())?)))?;
    Ok(State { entries, bytes: replica.storage().size()?, role })
}

fn role(standing: &Standing) -> Option<&'static str> {
    standing.state.as_ref().ok().and_then(|state| state.role).map(Role::name)
}

fn head(standing: &Standing) -> Vec<String> {
    let record = &standing.record;
    let mut cells = vec![record.name.clone(), kind(record).to_owned()];
    match &standing.state {
        Ok(state) => cells.extend([
            role(standing).unwrap_or("no member yet").to_owned(),
            units::counted(state.entries, "entry", "entries"),
            units::bytes(state.bytes),
        ]),
        Err(_) => cells.push("cannot be opened".to_owned()),
    }
    cells
}

fn kind(record: &Record) -> &'static str {
    if record.folder { "folder" } else { "database" }
}

fn details(standing: &Standing, peers: &[PeerRecord]) -> Vec<String> {
    let record = &standing.record;
    let mut lines = vec![record.path.display().to_string()];
    for address in &record.addresses {
        let seen = match peers.iter().find(|p| p.address == *address) {
            Some(peer) => format!("{} ({})", units::ago(Timestamp(peer.seen)), peer.device.short()),
            None => "never reached".to_owned(),
        };
        lines.push(format!("{address}  {seen}"));
    }
    if record.ticket.is_some() {
        lines.push(format!("joining is not finished: 'anabranch sync {}' goes on", record.name));
    }
    if let Err(failure) = &standing.state {
        lines.push(failure.line());
    }
    lines
}

fn object(standing: &Standing, peers: &[PeerRecord]) -> Value {
    let record = &standing.record;
    let addresses: Vec<Value> = record
        .addresses
        .iter()
        .map(|address| {
            let peer = peers.iter().find(|p| p.address == *address);
            json!({
                "address": address,
                "device": peer.map(|p| p.device.to_string()),
                "seen": peer.map(|p| units::date(Timestamp(p.seen))),
            })
        })
        .collect();
    let state = standing.state.as_ref().ok();
    json!({
        "name": record.name,
        "kind": kind(record),
        "database": record.database.to_string(),
        "path": record.path.display().to_string(),
        "role": role(standing),
        "entries": state.map(|s| s.entries),
        "bytes": state.map(|s| s.bytes),
        "addresses": addresses,
        "joining": record.ticket.is_some(),
        "error": standing.state.as_ref().err().map(Failure::line),
    })
}
