//! `db counter add`, `get`, `reset` and `ls`.

use super::path_parts;
use crate::args::{CounterArgs, CounterCommand};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::plain;
use anabranch::{Counter, Node};
use anabranch_api::integer;
use serde_json::json;
use std::ops::ControlFlow;

fn open(context: &Context, node: &Node, db: &str, counter: &str) -> Result<Counter, Failure> {
    Ok(context.database(node, db)?.counter(counter))
}

/// Carries out a command.
pub(super) async fn run(context: &Context, command: &CounterCommand) -> Result<(), Failure> {
    match command {
        CounterCommand::Add { at, by } => change(context, at, Some(*by)).await,
        CounterCommand::Reset(at) => change(context, at, None).await,
        CounterCommand::Get(at) => {
            let node = context.node()?;
            show(context, &open(context, &node, &at.db, &at.counter)?, at)
        }
        CounterCommand::Ls { db, counter } => list(context, db, counter),
    }
}

/// Adds, or resets, and shows what it is now.
async fn change(context: &Context, at: &CounterArgs, by: Option<i64>) -> Result<(), Failure> {
    let node = context.node()?;
    let counter = open(context, &node, &at.db, &at.counter)?;
    let path = path_parts(&at.path)?;
    match by {
        Some(by) => counter.add(&path, by).await?,
        None => counter.reset(&path).await?,
    }
    show(context, &counter, at)
}

fn show(context: &Context, counter: &Counter, at: &CounterArgs) -> Result<(), Failure> {
    let path = path_parts(&at.path)?;
    let sum = counter.get(&path)?;
    context.output.answer(&sum.to_string(), &json!({ "path": path, "sum": integer(sum) }))
}

fn list(context: &Context, db: &str, counter: &str) -> Result<(), Failure> {
    let node = context.node()?;
    let counter = open(context, &node, db, counter)?;
    let mut lines = context.output.lines();
    let mut result = Ok(());
    counter.each(&[], &mut |path, sum| {
        result = match context.output.json {
            true => lines.object(&json!({ "path": path, "sum": integer(sum) })),
            false => lines.text(&format!("{}\t{sum}", plain(&path.join("/")))),
        };
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    result?;
    lines.end()
}
