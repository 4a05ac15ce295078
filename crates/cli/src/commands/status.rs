//! `status`: every replica of this device, where it is synced with, and what is wrong with it.

use crate::args::StatusArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{plain, table};
use crate::replicas::{Opened, named};
use crate::units;
use anabranch::engine::core::storage::StorageError;
use anabranch::engine::node::{Fate, Intent, Priority, Record};
use anabranch::{Node, NodeId, Role, Timestamp};
use serde_json::{Value, json};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// The longest answer of a serving process that is read.
const LIVE_BYTES: u64 = 16 * 1024 * 1024;

struct Standing {
    record: Record,
    /// How it stands with each address, as far as that is known.
    fates: Vec<Option<Fate>>,
    state: Result<State, Failure>,
}

struct State {
    entries: u64,
    bytes: u64,
    role: Option<Role>,
    /// Devices that ask to be let in.
    asking: u64,
    /// Entries of this device that do not count.
    uncounted: u64,
    /// Devices with very many logs, and how many.
    crowds: Vec<(NodeId, u64)>,
}

/// Prints how replicas stand.
pub(crate) fn run(context: &Context, args: &StatusArgs) -> Result<(), Failure> {
    let node = context.node()?;
    let home = context.home()?;
    let records = match &args.replica {
        None => home.records()?,
        Some(text) => vec![named(&node, text)?],
    };
    let live = live(home.dir());
    let standings = records
        .into_iter()
        .map(|record| {
            let fate = |intent: &Intent| home.fate(record.database, &intent.address);
            let fates = record.intents.iter().map(fate).collect::<Result<_, _>>()?;
            Ok(Standing { state: look(&node, &record), fates, record })
        })
        .collect::<Result<Vec<Standing>, Failure>>()?;
    if standings.is_empty() {
        context.output.note("there is no replica here yet; 'anabranch db new NAME' makes one");
    }
    let heads: Vec<Vec<String>> = standings.iter().map(head).collect();
    let mut text = Vec::new();
    for (line, standing) in table(&heads).lines().zip(&standings) {
        text.push(line.to_owned());
        text.extend(
            details(standing, live.as_ref()).iter().map(|line| plain(&format!("    {line}"))),
        );
    }
    let objects: Vec<Value> = standings.iter().map(|s| object(s, live.as_ref())).collect();
    let document = json!({
        "device": node.id().to_string(),
        "replicas": objects,
        "visitors": live.as_ref().map(|live| live["visitors"].clone()),
        "troubles": live.as_ref().map(|live| live["troubles"].clone()),
    });
    context.output.answer(&text.join("\n"), &document)?;
    let broken = standings.iter().filter(|s| s.state.is_err()).count() as u64;
    if broken > 0 {
        let which = units::counted(broken, "replica", "replicas");
        return Err(Failure::partly(format!("{which} cannot be opened")));
    }
    Ok(())
}

fn look(node: &Node, record: &Record) -> Result<State, Failure> {
    let opened = Opened::new(node, record)?;
    let replica = opened.replica();
    let bytes = replica.storage().size()?;
    let asking = replica.requests()?.iter().filter(|asking| !asking.rejected).count() as u64;
    let state = replica.look(|view| {
        Ok::<_, StorageError>(State {
            entries: view.totals()?.entries,
            bytes,
            role: view.role_of(&node.id())?,
            asking,
            uncounted: view.uncounted_by(&node.id())?,
            crowds: view.crowds()?,
        })
    })?;
    Ok(state)
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

/// What a process that serves this home says, if one does and answers programs.
fn live(home: &std::path::Path) -> Option<Value> {
    use std::io::{Read, Write};
    let mut socket = UnixStream::connect(home.join(anabranch_api::SOCKET)).ok()?;
    let patience = Some(Duration::from_secs(5));
    socket.set_read_timeout(patience).ok()?;
    socket.set_write_timeout(patience).ok()?;
    socket.write_all(b"GET /v1/status HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    socket.take(LIVE_BYTES).read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    serde_json::from_str(body).ok().filter(|_| head.contains(" 200 "))
}

/// How a sync stands at this moment.
fn moment<'l>(live: Option<&'l Value>, record: &Record, intent: &Intent) -> Option<&'l Value> {
    let database = record.database.to_string();
    live?["syncs"].as_array()?.iter().find(|sync| {
        let addresses = sync["addresses"].as_array();
        let here = addresses.is_some_and(|list| list.iter().any(|a| *a == *intent.address));
        sync["database"] == *database && here
    })
}

fn details(standing: &Standing, live: Option<&Value>) -> Vec<String> {
    let record = &standing.record;
    let mut lines = vec![record.path.display().to_string()];
    for (intent, fate) in record.intents.iter().zip(&standing.fates) {
        let fate = fate.clone().unwrap_or_default();
        let device = fate.device.map_or_else(String::new, |d| format!(" ({})", d.short()));
        let seen = match fate.success {
            Some(at) => format!("in step {}{device}", units::ago(Timestamp(at))),
            None => format!("never in step{device}"),
        };
        let now = moment(live, record, intent);
        let state = now.and_then(|now| now["state"].as_str());
        let state = state.map_or_else(String::new, |state| format!("{state}, "));
        lines.push(format!("{}  {}{state}{seen}", intent.address, declared(intent)));
        let reasons = now.and_then(|now| now["reasons"].as_array());
        if let Some(reasons) = reasons {
            let sentences = reasons.iter().filter_map(|why| why["text"].as_str());
            lines.extend(sentences.map(|text| format!("  {text}")));
        } else if let Some((at, _, text)) = fate.failure {
            lines.push(format!("  {}: {text}", units::ago(Timestamp(at))));
        }
    }
    if record.ticket.is_some() {
        lines.push(format!("joining is not finished: 'anabranch sync {}' goes on", record.name));
    }
    if record.request.is_some() {
        lines.push(format!(
            "not let in yet: 'anabranch sync {}' or 'anabranch serve' goes on once an admin has approved it",
            record.name
        ));
    }
    if let Ok(State { uncounted: n @ 1.., .. }) = standing.state {
        let entries = units::counted(n, "entry", "entries");
        lines.push(format!(
            "{entries} of this device do not count, since its right was revoked: see 'anabranch db log {0}'; once it is let in again, 'anabranch members {0} rewrite' writes them anew",
            record.name
        ));
    }
    for (device, logs) in standing.state.as_ref().map_or(&[][..], |state| &state.crowds) {
        lines.push(format!(
            "{device} has {logs} logs: it is copied or restored over and over, or attacks; 'anabranch members {} revoke {device}' puts it out",
            record.name
        ));
    }
    match &standing.state {
        Ok(State { asking: 0, .. }) => {}
        Ok(State { asking, .. }) => {
            let devices = units::counted(*asking, "device asks", "devices ask");
            lines.push(format!("{devices} to be let in: see 'anabranch requests ls'"));
        }
        Err(failure) => lines.push(failure.line()),
    }
    lines
}

/// What differs from the usual.
fn declared(intent: &Intent) -> String {
    let mut words = Vec::new();
    match (intent.direction.send, intent.direction.receive) {
        (true, false) => words.push("push only".to_owned()),
        (false, true) => words.push("pull only".to_owned()),
        _ => {}
    }
    words.extend(intent.every.map(|every| format!("every {}", units::duration(every))));
    if intent.priority != Priority::Normal {
        words.push(format!("{} priority", intent.priority.name()));
    }
    words.iter().map(|word| format!("{word}, ")).collect()
}

fn object(standing: &Standing, live: Option<&Value>) -> Value {
    let record = &standing.record;
    let addresses: Vec<Value> = record
        .intents
        .iter()
        .zip(&standing.fates)
        .map(|(intent, fate)| {
            let fate = fate.clone().unwrap_or_default();
            let failure = fate.failure.map(|(at, code, text)| {
                json!({ "at": anabranch_api::date(Timestamp(at)), "code": code, "text": text })
            });
            let mut object = anabranch_api::intent_object(intent);
            object["device"] = fate.device.map(|device| device.to_string()).into();
            object["in_step"] = fate.success.map(|at| anabranch_api::date(Timestamp(at))).into();
            object["why"] = failure.into();
            object["standing"] = moment(live, record, intent).cloned().into();
            object
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
        "joining": record.ticket.is_some() || record.request.is_some(),
        "requests": state.map(|s| s.asking),
        "uncounted": state.map(|s| s.uncounted),
        "crowds": state.map(|s| {
            let crowd = |(device, logs): &(NodeId, u64)| {
                json!({ "device": device.to_string(), "logs": logs })
            };
            s.crowds.iter().map(crowd).collect::<Vec<Value>>()
        }),
        "error": standing.state.as_ref().err().map(Failure::line),
    })
}
