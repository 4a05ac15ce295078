//! `db index add`, `rm` and `ls`, and `db find`.

use super::rows;
use crate::args::{FindArgs, IndexArgs, IndexCommand};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::table;
use anabranch::Order;
use anabranch_api::json::{Json, parse};
use serde_json::json;
use std::ops::Bound;

/// Carries out a command.
pub(super) async fn run(context: &Context, command: &IndexCommand) -> Result<(), Failure> {
    match command {
        IndexCommand::Add(args) => add(context, args).await,
        IndexCommand::Rm(args) => rm(context, args).await,
        IndexCommand::Ls(args) => list(context, &args.db),
    }
}

async fn add(context: &Context, args: &IndexArgs) -> Result<(), Failure> {
    let node = context.node()?;
    let IndexArgs { table, field } = args;
    let new = context.database(&node, &table.db)?.index(&table.table, field).await?;
    let text = match new {
        true => format!("indexed field '{field}' of table '{}'", table.table),
        false => format!("field '{field}' of table '{}' has an index already", table.table),
    };
    context.output.summary(&text, &json!({ "table": table.table, "field": field, "new": new }))
}

async fn rm(context: &Context, args: &IndexArgs) -> Result<(), Failure> {
    let node = context.node()?;
    let IndexArgs { table, field } = args;
    if !context.database(&node, &table.db)?.unindex(&table.table, field).await? {
        let what = format!("field '{field}' of table '{}' has no index here", table.table);
        let hint = format!("'anabranch db index ls {}' lists those there are", table.db);
        return Err(Failure::failed(what).hint(hint));
    }
    context.output.summary("", &json!({ "table": table.table, "field": field }))
}

fn list(context: &Context, db: &str) -> Result<(), Failure> {
    let node = context.node()?;
    let indexes = context.database(&node, db)?.indexes()?;
    if indexes.is_empty() {
        context.output.note("there is no index here; 'anabranch db index add' makes one");
    }
    let (mut rows, mut objects) = (Vec::new(), Vec::new());
    for index in indexes {
        let state = if index.ready { "ready" } else { "building" };
        objects.push(json!({
            "table": index.store.name, "field": index.field, "ready": index.ready,
        }));
        rows.push(vec![index.store.name, index.field, state.to_owned()]);
    }
    context.output.answer(&table(&rows), &json!({ "indexes": objects }))
}

/// Prints the rows with a value, or with one in a range.
pub(super) fn find(context: &Context, args: &FindArgs) -> Result<(), Failure> {
    let bound = |text: &Option<String>| match text {
        Some(text) => value(text).map(Bound::Included),
        None => Ok(Bound::Unbounded),
    };
    let range = match &args.value {
        Some(only) => (Bound::Included(value(only)?), Bound::Included(value(only)?)),
        None => (bound(&args.from)?, bound(&args.to)?),
    };
    let node = context.node()?;
    let IndexArgs { table, field } = &args.index;
    let order = if args.descending { Order::Descending } else { Order::Ascending };
    let rows = rows::open(context, &node, table)?;
    rows::print(context, args.limit, |visit| rows.each_by(field, range, order, visit))
}

fn value(text: &str) -> Result<Json, Failure> {
    parse(text).map_err(|e| {
        let failure = Failure::usage(format!("'{text}' is no JSON")).because(&e);
        failure.hint("text stands in quotes: '\"milk\"'")
    })
}
