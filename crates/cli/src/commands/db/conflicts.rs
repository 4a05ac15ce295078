//! `db conflicts` and `db resolve`.

use crate::args::{DbArgs, RowArgs};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::plain;
use crate::units;
use anabranch::Conflict;
use anabranch_api::{conflict_object, kind_name, parts, written_object};
use serde_json::{Value, json};

/// Lists every conflict, the version shown first.
pub(super) fn list(context: &Context, args: &DbArgs) -> Result<(), Failure> {
    let node = context.node()?;
    let conflicts = context.database(&node, &args.db)?.conflicts()?;
    let text: Vec<String> = conflicts.iter().map(conflict_text).collect();
    let objects: Vec<Value> = conflicts.iter().map(conflict_object).collect();
    if conflicts.is_empty() {
        context.output.note("no conflicts");
    }
    context.output.answer(&text.join("\n"), &json!({ "conflicts": objects }))
}

fn conflict_text(conflict: &Conflict) -> String {
    let place = [kind_name(conflict.store.kind), conflict.store.name.clone()];
    let place = [&place[..], &parts(&conflict.path)].concat();
    let mut text = plain(&place.join(" "));
    for (i, version) in conflict.versions.iter().enumerate() {
        let shown = version
            .value
            .as_ref()
            .map(|raw| written_object(conflict.store.kind, raw))
            .map_or_else(|| "deleted".to_owned(), |v| v.to_string());
        let mark = if i == 0 { "  (shown)" } else { "" };
        let (device, when) = (version.device.short(), anabranch_api::date(version.timestamp));
        text.push_str(&format!("\n  {}  {device}  {when}  {shown}{mark}", i + 1));
    }
    text
}

/// Settles the conflicts of one row.
pub(super) async fn resolve(context: &Context, args: &RowArgs, take: u32) -> Result<(), Failure> {
    let node = context.node()?;
    let db = context.database(&node, &args.table.db)?;
    let count = db.resolve_row(&args.table.table, &args.key, take as usize).await? as u64;
    let text = format!("settled {}", units::counted(count, "conflict", "conflicts"));
    context.output.summary(&text, &json!({ "settled": count }))
}
