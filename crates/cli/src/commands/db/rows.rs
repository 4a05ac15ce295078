//! `db get`, `put`, `rm` and `rows`.

use crate::args::{RowArgs, RowsArgs, TableArgs};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::plain;
use anabranch::{Error, Node, Table};
use anabranch_api::json::{Json, parse};
use serde_json::json;
use std::io::Read;
use std::ops::ControlFlow;

/// Bytes of a row's JSON that are read: escapes may make it several times as long as what is stored.
pub(super) const ROW_BYTES: u64 = 2 * 1024 * 1024;

pub(super) fn open(
    context: &Context,
    node: &Node,
    args: &TableArgs,
) -> Result<Table<Json>, Failure> {
    Ok(context.database(node, &args.db)?.table(&args.table))
}

fn no_row(args: &RowArgs) -> Failure {
    Failure::failed(format!("there is no row '{}' in table '{}'", args.key, args.table.table))
}

/// Prints one row.
pub(super) fn get(context: &Context, args: &RowArgs) -> Result<(), Failure> {
    let node = context.node()?;
    let row = open(context, &node, &args.table)?.get(&args.key)?.ok_or_else(|| no_row(args))?;
    context.output.answer(&row.0.to_string(), &row.0)
}

/// Inserts or replaces one row.
pub(super) async fn put(context: &Context, args: &RowArgs, value: &str) -> Result<(), Failure> {
    let value = if value == "-" { read_stdin()? } else { value.to_owned() };
    let row = parse(&value).map_err(|e| Failure::usage("the row is no JSON").because(&e))?;
    if !row.0.is_object() {
        return Err(Failure::usage("a row must be a JSON object")
            .hint("for example '{\"text\": \"buy milk\"}'"));
    }
    let node = context.node()?;
    open(context, &node, &args.table)?.put(&args.key, &row).await?;
    context.output.summary("", &json!({ "table": args.table.table, "key": args.key }))
}

fn read_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    let read = std::io::stdin().lock().take(ROW_BYTES + 1).read_to_string(&mut text);
    read.map_err(|e| Failure::failed("standard input cannot be read").because(&e))?;
    if text.len() as u64 > ROW_BYTES {
        return Err(Failure::failed(format!("the row has more than {ROW_BYTES} bytes of JSON")));
    }
    Ok(text)
}

/// Deletes one row.
pub(super) async fn rm(context: &Context, args: &RowArgs) -> Result<(), Failure> {
    let node = context.node()?;
    let table = open(context, &node, &args.table)?;
    if table.get(&args.key)?.is_none() {
        return Err(no_row(args));
    }
    table.delete(&args.key).await?;
    context.output.summary("", &json!({ "table": args.table.table, "key": args.key }))
}

/// Prints rows with their keys.
pub(super) fn list(context: &Context, args: &RowsArgs) -> Result<(), Failure> {
    let node = context.node()?;
    let table = open(context, &node, &args.table)?;
    print(context, args.limit, |visit| table.each(&args.prefix, None, visit))
}

/// Prints the rows that `each` visits, with their keys, at most `limit`.
pub(super) fn print(
    context: &Context,
    limit: Option<usize>,
    each: impl FnOnce(&mut dyn FnMut(String, Json) -> ControlFlow<()>) -> Result<(), Error>,
) -> Result<(), Failure> {
    let limit = limit.unwrap_or(usize::MAX);
    let mut lines = context.output.lines();
    let (mut count, mut result) = (0, Ok(()));
    let mut visit = |key: String, row: Json| {
        // With a limit of 0 the command line is checked all the same.
        if count == limit {
            return ControlFlow::Break(());
        }
        result = if context.output.json {
            lines.object(&json!({ "key": key, "row": row.0 }))
        } else {
            lines.text(&format!("{}\t{}", plain(&key), row.0))
        };
        count += 1;
        if result.is_ok() && count < limit {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    };
    each(&mut visit)?;
    result?;
    lines.end()
}
