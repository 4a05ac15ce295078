//! `folder`: what happened in a folder, its conflicts, and whether all is well with it.

use crate::args::FolderCommand;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{plain, table};
use crate::units;
use anabranch::engine::core::error::Error;
use anabranch::engine::core::id::to_base32;
use anabranch::engine::core::ops::decode_cells;
use anabranch::engine::core::path::Segment;
use anabranch::{Node, NodeId};
use anabranch_folder::path::RelPath;
use anabranch_folder::state::State;
use anabranch_folder::{Folder, store};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

/// Carries out a command.
pub(crate) async fn run(context: &Context, command: FolderCommand) -> Result<(), Failure> {
    let node = context.node()?;
    match command {
        FolderCommand::Log { dir, limit } => log(context, &*open(&node, &dir)?, limit),
        FolderCommand::Conflicts { dir } => conflicts(context, &*open(&node, &dir)?),
        FolderCommand::Resolve { dir, path, take } => {
            resolve(context, open(&node, &dir)?, &path, take as usize).await
        }
        FolderCommand::Digest { dir } => digest(context, &*open(&node, &dir)?),
        FolderCommand::Verify { dir } => {
            let folder = open(&node, &dir)?;
            super::db::verify(context, &dir.display().to_string(), folder.replica(), folder.file())
                .await
        }
        FolderCommand::Forget { dir, yes } => forget(context, &node, &dir, yes),
    }
}

fn open(node: &Node, dir: &Path) -> Result<Arc<Folder>, Failure> {
    Ok(Folder::open(node.inner(), dir)?)
}

/// What an operation on a path did, for people.
fn describe(value: Option<&[u8]>) -> (&'static str, Option<u64>) {
    match value.map(State::decode) {
        None => ("delete", None),
        Some(Ok(State::File { content, .. })) => ("file", Some(content.size())),
        Some(Ok(State::Dir { .. })) => ("directory", None),
        Some(Ok(State::Symlink { .. })) => ("link", None),
        Some(Err(_)) => ("newer", None),
    }
}

fn log(context: &Context, folder: &Folder, limit: usize) -> Result<(), Failure> {
    let (entries, ring) =
        folder.replica().look(|view| Ok::<_, Error>((view.newest(limit)?, view.ring()?)))?;
    let entries: Vec<_> = entries.into_iter().map(|(_, entry)| entry).collect();
    let mut lines = context.output.lines();
    for entry in entries {
        let header = entry.header();
        let ops = entry
            .payloads()
            .filter(|(id, _)| **id == store())
            .filter_map(|(id, payload)| ring.open(&header.log, id, payload.bytes()?).ok())
            .flat_map(|bytes| decode_cells(&header.log, &bytes).ops)
            .flatten();
        for op in ops {
            let Some(path) = path_of(&op.path.segments()) else { continue };
            let (what, size) = describe(op.value.as_deref());
            if context.output.json {
                lines.object(&json!({
                    "time": anabranch_api::date(header.timestamp),
                    "device": header.log.device.to_string(),
                    "entry": entry.id().to_string(),
                    "what": what,
                    "path": path.to_string(),
                    "bytes": size,
                }))?;
            } else {
                let size = size.map(|s| format!("  {}", units::bytes(s))).unwrap_or_default();
                let device = header.log.device.short();
                let time = anabranch_api::date(header.timestamp);
                lines.text(&plain(&format!("{time}  {device}  {what:<9}  {path}{size}")))?;
            }
        }
    }
    lines.end()
}

fn path_of(segments: &[Segment]) -> Option<RelPath> {
    match segments {
        [Segment::Bytes(bytes)] => RelPath::shared(bytes.clone()).ok(),
        _ => None,
    }
}

fn conflicts(context: &Context, folder: &Folder) -> Result<(), Failure> {
    let found = folder.conflicts()?;
    let mut rows = Vec::new();
    let mut objects: Vec<Value> = Vec::new();
    for conflict in &found {
        let mut versions = Vec::new();
        for (i, value) in conflict.values.iter().enumerate() {
            let (what, size) = describe(Some(&value.value));
            let device: NodeId = value.name.log.device;
            rows.push(vec![
                if i == 0 { conflict.path.to_string() } else { String::new() },
                format!("{}", i + 1),
                what.to_owned(),
                size.map(units::bytes).unwrap_or_default(),
                anabranch_api::date(value.timestamp),
                device.short(),
                if i == 0 { "shown".to_owned() } else { String::new() },
            ]);
            versions.push(json!({
                "take": i + 1,
                "what": what,
                "bytes": size,
                "time": anabranch_api::date(value.timestamp),
                "device": device.to_string(),
            }));
        }
        objects.push(json!({ "path": conflict.path.to_string(), "versions": versions }));
    }
    let text = if rows.is_empty() { "no conflicts".to_owned() } else { table(&rows) };
    context.output.answer(&plain(&text), &json!({ "conflicts": objects }))
}

async fn resolve(
    context: &Context,
    folder: Arc<Folder>,
    path: &str,
    take: usize,
) -> Result<(), Failure> {
    let path = RelPath::shared(path.as_bytes().to_vec())?;
    folder.resolve(&path, take).await?;
    let updating = Arc::clone(&folder);
    tokio::task::spawn_blocking(move || updating.update()).await??;
    let text = format!("{path} is settled; the others follow with the next sync");
    context.output.summary(&text, &json!({ "path": path.to_string(), "taken": take }))
}

fn digest(context: &Context, folder: &Folder) -> Result<(), Failure> {
    let digest = folder
        .replica()
        .read_store(&anabranch_folder::store(), |view| view.state_digest())?
        .ok_or_else(|| {
            Failure::failed(
                "the folder holds operations of a later version, so it has no digest here",
            )
            .hint("update anabranch")
        })?;
    let digest = to_base32(&digest);
    context.output.answer(&digest, &json!({ "digest": digest }))
}

fn forget(context: &Context, node: &Node, dir: &Path, yes: bool) -> Result<(), Failure> {
    let record = crate::replicas::folder_record(node, dir)?;
    if !yes {
        let text = format!(
            "{} stops being a replica and forgets its history here; its files stay.",
            dir.display()
        );
        super::db::confirm(&text, &record.name)?;
    }
    node.inner().forget(&record)?;
    let state = record.path.join(".anabranch");
    std::fs::remove_dir_all(&state)?;
    let text = format!("{} is an ordinary folder again", dir.display());
    context.output.summary(&text, &json!({ "forgotten": dir.display().to_string() }))
}
