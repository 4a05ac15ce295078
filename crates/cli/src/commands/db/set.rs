//! `db set add`, `rm`, `has` and `ls`.

use crate::args::{SetArgs, SetCommand};
use crate::context::Context;
use crate::failure::Failure;
use anabranch::{Node, Set};
use anabranch_api::json::{Json, parse};
use serde_json::json;
use std::ops::ControlFlow;

fn open(context: &Context, node: &Node, db: &str, set: &str) -> Result<Set<Json>, Failure> {
    Ok(context.database(node, db)?.set(set))
}

fn element(args: &SetArgs) -> Result<Json, Failure> {
    parse(&args.element).map_err(|e| {
        let why = Failure::usage("the element is no JSON").because(&e);
        why.hint("text stands in quotes: '\"milk\"'")
    })
}

/// Carries out a command.
pub(super) async fn run(context: &Context, command: &SetCommand) -> Result<(), Failure> {
    let node = context.node()?;
    let (args, has) = match command {
        SetCommand::Add(args) => {
            open(context, &node, &args.db, &args.set)?.add(&element(args)?).await?;
            (args, true)
        }
        SetCommand::Rm(args) => {
            open(context, &node, &args.db, &args.set)?.remove(&element(args)?).await?;
            (args, false)
        }
        SetCommand::Has(args) => {
            let has = open(context, &node, &args.db, &args.set)?.contains(&element(args)?)?;
            let answer = json!({ "element": element(args)?.0, "in": has });
            return context.output.answer(if has { "yes" } else { "no" }, &answer);
        }
        SetCommand::Ls { db, set } => return list(context, &open(context, &node, db, set)?),
    };
    context.output.summary("", &json!({ "element": element(args)?.0, "in": has }))
}

fn list(context: &Context, set: &Set<Json>) -> Result<(), Failure> {
    let mut lines = context.output.lines();
    let mut result = Ok(());
    set.each(&mut |element| {
        result = match context.output.json {
            true => lines.object(&json!({ "element": element.0 })),
            false => lines.text(&element.0.to_string()),
        };
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    result?;
    lines.end()
}
