//! `db watch` and `db log`: transactions as they come, and those there were.

use super::conflicts::parts;
use super::counter::integer;
use super::info::kind_name;
use crate::args::{DbArgs, LogArgs};
use crate::context::Context;
use crate::failure::Failure;
use crate::json::Json;
use crate::output::{Lines, Output, plain};
use crate::signals;
use crate::units;
use anabranch::{Change, Effect, Raw, Segment, StoreKind, Written, is_position};
use serde_json::{Value, json};

/// Prints every change from now on.
pub(super) async fn watch(context: &Context, args: &DbArgs) -> Result<(), Failure> {
    let node = context.node()?;
    let db = context.database(&node, &args.db)?;
    node.inner().notice_others(db.replica())?;
    let mut watch = db.watch()?;
    let mut stop = signals::stopping()?;
    context.output.note("watching; Ctrl-C ends it");
    loop {
        let change = tokio::select! {
            change = watch.next() => change?,
            () = signals::stopped(&mut stop) => return Ok(()),
        };
        let mut lines = context.output.lines();
        print(context.output, &mut lines, &change)?;
        lines.end()?;
    }
}

/// Prints the newest transactions.
pub(super) fn log(context: &Context, args: &LogArgs) -> Result<(), Failure> {
    let node = context.node()?;
    let changes = context.database(&node, &args.db)?.log(args.limit)?;
    let mut lines = context.output.lines();
    for change in &changes {
        print(context.output, &mut lines, change)?;
    }
    lines.end()
}

fn print(output: Output, lines: &mut Lines, change: &Change) -> Result<(), Failure> {
    if output.json {
        return lines.object(&object(change));
    }
    let device = if change.local { "this device".to_owned() } else { change.device.short() };
    let head = format!("{}  {device}  {}", units::date(change.timestamp), change.entry.short());
    if change.writes.is_empty() {
        return lines.text(&format!("{head}  members"));
    }
    lines.text(&head)?;
    for written in &change.writes {
        let place = [&[written.store.name.clone()][..], &place(written)].concat();
        let element = written.store.kind == StoreKind::SET;
        let row = written.store.kind == StoreKind::TABLE && written.path.len() == 1;
        let shown = match &written.effect {
            Effect::Delete => "deleted".to_owned(),
            Effect::Put(_) if row => "inserted".to_owned(),
            Effect::Put(_) if element => "added".to_owned(),
            Effect::Put(_) if is_position(&written.path) => "placed".to_owned(),
            Effect::Put(raw) => format!("= {}", value(raw)),
            Effect::Add(delta) => format!("{delta:+}"),
            Effect::Reset(delta) => format!("reset: {delta:+}"),
        };
        lines.text(&plain(&format!("  {} {shown}", place.join("/"))))?;
    }
    Ok(())
}

/// The parts of a path; of a set the element as JSON.
fn place(written: &Written) -> Vec<String> {
    match &written.path.segments()[..] {
        [Segment::Bytes(element)] if written.store.kind == StoreKind::SET => {
            vec![value(&Raw::from_bytes(element.clone())).to_string()]
        }
        _ => parts(&written.path),
    }
}

fn value(raw: &Raw) -> Value {
    match raw.get::<Json>() {
        Ok(json) => json.0,
        Err(e) => json!({ "$unreadable": e.to_string() }),
    }
}

fn object(change: &Change) -> Value {
    let writes: Vec<Value> = change
        .writes
        .iter()
        .map(|written| {
            let mut object = json!({
                "kind": kind_name(written.store.kind),
                "store": written.store.name,
                "path": place(written),
            });
            match &written.effect {
                Effect::Put(raw) => {
                    (object["deleted"], object["value"]) = (false.into(), value(raw));
                }
                Effect::Delete => (object["deleted"], object["value"]) = (true.into(), Value::Null),
                Effect::Add(delta) => object["added"] = integer((*delta).into()),
                Effect::Reset(delta) => {
                    (object["added"], object["reset"]) = (integer(*delta), true.into());
                }
            }
            object
        })
        .collect();
    json!({
        "entry": change.entry.to_string(),
        "device": change.device.to_string(),
        "local": change.local,
        "time": units::date(change.timestamp),
        "writes": writes,
    })
}
