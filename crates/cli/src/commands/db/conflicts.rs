//! `db conflicts` and `db resolve`.

use super::info::kind_name;
use crate::args::{DbArgs, RowArgs};
use crate::context::Context;
use crate::failure::Failure;
use crate::json::Json;
use crate::output::plain;
use crate::units;
use anabranch::engine::core::path::Path;
use anabranch::engine::core::path::Segment;
use anabranch::{Conflict, Version};
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

/// The parts of a path as people see them.
pub(super) fn parts(path: &Path) -> Vec<String> {
    let part = |segment: Segment| match segment {
        Segment::Text(text) => text,
        Segment::Bytes(bytes) | Segment::Other(_, bytes) => {
            bytes.iter().map(|b| format!("{b:02x}")).collect()
        }
    };
    path.segments().into_iter().map(part).collect()
}

fn value(version: &Version) -> Option<Value> {
    // A value that cannot be shown does not keep the others from being shown.
    version.value.as_ref().map(|raw| match raw.get::<Json>() {
        Ok(json) => json.0,
        Err(e) => json!({ "$unreadable": e.to_string() }),
    })
}

fn conflict_text(conflict: &Conflict) -> String {
    let place = [kind_name(conflict.store.kind), conflict.store.name.clone()];
    let place = [&place[..], &parts(&conflict.path)].concat();
    let mut text = plain(&place.join(" "));
    for (i, version) in conflict.versions.iter().enumerate() {
        let shown = value(version).map_or_else(|| "deleted".to_owned(), |v| v.to_string());
        let mark = if i == 0 { "  (shown)" } else { "" };
        let (device, when) = (version.device.short(), units::date(version.timestamp));
        text.push_str(&format!("\n  {}  {device}  {when}  {shown}{mark}", i + 1));
    }
    text
}

fn conflict_object(conflict: &Conflict) -> Value {
    let versions: Vec<Value> = conflict
        .versions
        .iter()
        .map(|version| {
            json!({
                "device": version.device.to_string(),
                "time": units::date(version.timestamp),
                "deleted": version.value.is_none(),
                "value": value(version),
            })
        })
        .collect();
    json!({
        "kind": kind_name(conflict.store.kind),
        "store": conflict.store.name,
        "path": parts(&conflict.path),
        "versions": versions,
    })
}

/// Settles the conflicts of one row.
pub(super) async fn resolve(context: &Context, args: &RowArgs, take: u32) -> Result<(), Failure> {
    let node = context.node()?;
    let db = context.database(&node, &args.table.db)?;
    let count = db.resolve_row(&args.table.table, &args.key, take as usize).await? as u64;
    let text = format!("settled {}", units::counted(count, "conflict", "conflicts"));
    context.output.summary(&text, &json!({ "settled": count }))
}
