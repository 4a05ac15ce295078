//! `db watch` and `db log`: transactions as they come, and those there were.

use crate::args::{DbArgs, LogArgs};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Lines, Output, plain};
use crate::signals;
use anabranch::{Change, Effect, StoreKind, is_position};
use anabranch_api::{change_object, place, written_object};

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
        return lines.object(&change_object(change));
    }
    let device = if change.local { "this device".to_owned() } else { change.device.short() };
    let mut head =
        format!("{}  {device}  {}", anabranch_api::date(change.timestamp), change.entry.short());
    if !change.counts {
        head.push_str("  does not count: its author's right was revoked");
    }
    if change.recounted {
        head.push_str("  changes what counts of earlier entries");
    }
    if change.closed {
        head.push_str("  sealed with a key that is not here");
    }
    if change.writes.is_empty() {
        let what = if change.closed { "" } else { "  members" };
        return lines.text(&format!("{head}{what}"));
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
            Effect::Put(raw) => format!("= {}", written_object(written.store.kind, raw)),
            Effect::Add(delta) => format!("{delta:+}"),
            Effect::Reset(delta) => format!("reset: {delta:+}"),
        };
        lines.text(&plain(&format!("  {} {shown}", place.join("/"))))?;
    }
    Ok(())
}
