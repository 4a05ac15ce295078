//! `db export`: a table as JSON lines by key, one row in memory.

use super::rows::open;
use crate::args::ExportArgs;
use crate::context::Context;
use crate::failure::Failure;
use anabranch_api::json::Json;
use serde_json::Value;
use std::ops::ControlFlow;

/// Prints every row.
pub(super) fn run(context: &Context, args: &ExportArgs) -> Result<(), Failure> {
    let node = context.node()?;
    let table = open(context, &node, &args.table)?;
    let mut lines = context.output.lines();
    let mut result = Ok(());
    table.each("", None, &mut |key, mut row| {
        result = match &args.key {
            Some(field) => keyed(&mut row, field, &key),
            None => Ok(()),
        }
        .and_then(|()| lines.object(&row.0));
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    result?;
    lines.end()
}

/// Puts the key into `field`, unless it is there.
fn keyed(row: &mut Json, field: &str, key: &str) -> Result<(), Failure> {
    let Value::Object(columns) = &mut row.0 else { return Ok(()) };
    match columns.get(field) {
        None => _ = columns.insert(field.to_owned(), key.into()),
        Some(Value::String(text)) if text == key => {}
        Some(Value::Number(number)) if number.to_string() == key => {}
        Some(_) => {
            return Err(Failure::failed(format!(
                "row '{key}' has a field '{field}' with something else than its key"
            ))
            .hint("name a field with --key that no row has"));
        }
    }
    Ok(())
}
