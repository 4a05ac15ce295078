//! `db list push`, `insert`, `mv`, `rm`, `set` and `ls`.

use super::path_parts;
use crate::args::{ListArgs, ListCommand};
use crate::context::Context;
use crate::failure::Failure;
use anabranch::{List, Node};
use anabranch_api::json::{Json, parse};
use serde_json::json;
use std::ops::ControlFlow;

fn open(context: &Context, node: &Node, args: &ListArgs) -> Result<List, Failure> {
    Ok(context.database(node, &args.db)?.doc(&args.doc).list(&path_parts(&args.path)?)?)
}

fn element(text: &str) -> Result<Json, Failure> {
    parse(text).map_err(|e| {
        let why = Failure::usage("the element is no JSON").because(&e);
        why.hint("text stands in quotes: '\"milk\"'")
    })
}

/// Carries out a command.
pub(super) async fn run(context: &Context, command: &ListCommand) -> Result<(), Failure> {
    let node = context.node()?;
    let list = open(context, &node, command.list())?;
    match command {
        ListCommand::Push { value, .. } => list.push(&element(value)?).await?,
        ListCommand::Insert { at, value, .. } => list.insert(*at, &element(value)?).await?,
        ListCommand::Set { at, value, .. } => list.set(*at, &element(value)?).await?,
        ListCommand::Mv { from, to, .. } => list.move_to(*from, *to).await?,
        ListCommand::Rm { at, .. } => list.remove(*at).await?,
        ListCommand::Ls(_) => return show(context, &list),
    }
    context.output.summary("", &json!({ "length": list.len()? }))
}

fn show(context: &Context, list: &List) -> Result<(), Failure> {
    let mut lines = context.output.lines();
    let (mut at, mut result) = (0, Ok(()));
    list.each(&mut |_, element: Json| {
        result = match context.output.json {
            true => lines.object(&json!({ "at": at, "element": element.0 })),
            false => lines.text(&format!("{at}\t{}", element.0)),
        };
        at += 1;
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    result?;
    lines.end()
}
