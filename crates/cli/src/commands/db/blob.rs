//! `db blob …` and `db gc`.

mod peers;

use crate::args::{BlobArgs, BlobCommand, BlobsArgs, ByteRange, DbArgs, KeepArg};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{plain, table};
use crate::progress::Meter;
use crate::units;
use anabranch::{Blob, BlobVersion, Blobs, Collected, Keep, Node, NodeError};
use peers::Peers;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

fn open(context: &Context, node: &Node, args: &BlobsArgs) -> Result<Blobs, Failure> {
    Ok(context.database(node, &args.db)?.blobs(&args.store))
}

fn find(blobs: &Blobs, args: &BlobArgs) -> Result<Blob, Failure> {
    blobs.get(&args.name)?.ok_or_else(|| {
        Failure::failed(format!("there is no blob '{}' in '{}'", args.name, args.blobs.store)).hint(
            format!("'anabranch db blob ls {} {}' lists them", args.blobs.db, args.blobs.store),
        )
    })
}

/// Carries out a command.
pub(super) async fn run(context: &Context, command: BlobCommand) -> Result<(), Failure> {
    let node = context.node()?;
    match command {
        BlobCommand::Put { at, file, media_type } => {
            put(context, &node, &at, &file, &media_type).await
        }
        BlobCommand::Get { at, to, range, version, wait } => {
            let wait = Duration::from_secs(wait.wait);
            let blobs = open(context, &node, &at.blobs)?.waiting(wait);
            let blob = find(&blobs, &at)?;
            let version = blob.version(version as usize)?.clone();
            get(context, &node, &at, &blobs, (version, range), &to).await
        }
        BlobCommand::Ls(args) => list(context, &open(context, &node, &args)?),
        BlobCommand::Rm(at) => {
            let blobs = open(context, &node, &at.blobs)?;
            find(&blobs, &at)?;
            blobs.remove(&at.name).await?;
            context.output.summary("", &json!({ "store": at.blobs.store, "name": at.name }))
        }
        BlobCommand::Fetch { blobs, name, wait } => {
            let wait = Duration::from_secs(wait.wait);
            let store = open(context, &node, &blobs)?.waiting(wait);
            fetch(context, &node, &blobs, &store, name).await
        }
        BlobCommand::Evict { blobs: args, name } => {
            let blobs = open(context, &node, &args)?;
            if let Some(name) = &name {
                find(&blobs, &BlobArgs { blobs: args, name: name.clone() })?;
            }
            let work = move || blobs.evict_blocking(name.as_deref());
            let done = tokio::task::spawn_blocking(work).await??;
            freed(context, done)
        }
        BlobCommand::Keep { blobs: args, when } => {
            keep(context, &open(context, &node, &args)?, &args, when)
        }
        BlobCommand::Resolve { at, take } => {
            open(context, &node, &at.blobs)?.resolve(&at.name, take as usize).await?;
            context.output.summary("settled 1 conflict", &json!({ "settled": 1 }))
        }
    }
}

/// Takes away what nothing names.
pub(super) async fn gc(context: &Context, args: &DbArgs) -> Result<(), Failure> {
    let node = context.node()?;
    let db = context.database(&node, &args.db)?;
    let taken = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&taken);
    let work =
        move || db.collect_blocking(&mut |done| counter.store(done.bytes, Ordering::Relaxed));
    let done = drawn(context, "freeing", None, &taken, work).await?;
    freed(context, done)
}

fn freed(context: &Context, done: Collected) -> Result<(), Failure> {
    let text = format!(
        "freed {} in {}",
        units::bytes(done.bytes),
        units::counted(done.blobs, "piece", "pieces")
    );
    context.output.summary(&text, &json!({ "pieces": done.blobs, "bytes": done.bytes }))
}

/// Does `work` on a thread of its own and shows how far it is, which it tells by `done`.
async fn drawn<T: Send + 'static, E: Into<Failure> + Send + 'static>(
    context: &Context,
    label: &str,
    total: Option<u64>,
    done: &AtomicU64,
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, Failure> {
    let mut work = tokio::task::spawn_blocking(work);
    let mut meter = Meter::new(context.output, label);
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    let mut stop = crate::signals::stopping()?;
    loop {
        tokio::select! {
            result = &mut work => return result?.map_err(Into::into),
            _ = ticks.tick() => {
                let done = done.load(Ordering::Relaxed);
                meter.set(done, total, units::bytes(done));
            }
            // What is under way leaves nothing that anybody sees, and the process ends.
            () = crate::signals::stopped(&mut stop) => return Err(Failure::failed("interrupted")),
        }
    }
}

async fn put(
    context: &Context,
    node: &Node,
    at: &BlobArgs,
    file: &str,
    media_type: &str,
) -> Result<(), Failure> {
    let started = Instant::now();
    let blobs = open(context, node, &at.blobs)?;
    let (mut from, total): (Box<dyn Read + Send>, Option<u64>) = match file {
        "-" => (Box::new(io::stdin()), None),
        file => {
            let failed =
                |e: io::Error| Failure::failed(format!("{file} cannot be read")).because(&e);
            let opened = File::open(file).map_err(failed)?;
            let meta = opened.metadata().map_err(failed)?;
            if meta.is_dir() {
                return Err(Failure::usage(format!("{file} is a directory"))
                    .hint("put its files in one by one, or a tar of it; a folder is synced by 'anabranch sync'"));
            }
            (Box::new(opened), Some(meta.len()).filter(|_| meta.is_file()))
        }
    };
    let done = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&done);
    let (name, media_type) = (at.name.clone(), media_type.to_owned());
    let work = move || {
        blobs.put_blocking(&name, &media_type, &mut from, &mut |count| {
            counter.store(count, Ordering::Relaxed);
            Ok(())
        })
    };
    let blob = drawn(context, &at.name, total, &done, work).await?;
    let text = format!(
        "put {} under {} in {}",
        units::bytes(blob.content.size()),
        plain(&at.name),
        units::duration(started.elapsed())
    );
    let object = json!({
        "store": at.blobs.store,
        "name": at.name,
        "size": blob.content.size(),
        "type": blob.media_type,
        "root": anabranch::engine::core::id::to_base32(&blob.content.root().0),
        "seconds": started.elapsed().as_secs_f64(),
    });
    context.output.summary(&text, &object)
}

async fn get(
    context: &Context,
    node: &Node,
    at: &BlobArgs,
    blobs: &Blobs,
    (version, range): (BlobVersion, Option<ByteRange>),
    to: &str,
) -> Result<(), Failure> {
    if to == "-" && context.output.json {
        return Err(Failure::usage("standard output cannot be the content and a JSON object")
            .hint("name a file to write the content to"));
    }
    let started = Instant::now();
    let size = version.reference()?.content.size();
    let range = range.map_or(0..u64::MAX, |range| range.0);
    let range = range.start.min(size)..range.end.min(size);
    let here = blobs.is_here(&at.name, &version)?;
    let peers = if here { Peers::none() } else { Peers::dial(context, node, &at.blobs.db)? };
    let bytes = range.end - range.start;
    if to == "-" {
        let mut out = io::stdout();
        copy(context, blobs, &at.name, &version, range, move |part| out.write_all(part)).await?;
    } else {
        let path = Path::new(to);
        let failed = |e: io::Error| Failure::failed(format!("{to} cannot be written")).because(&e);
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let scratch =
            tempfile::Builder::new().prefix(".anabranch-").tempfile_in(dir).map_err(failed)?;
        let mut file = scratch.as_file().try_clone().map_err(failed)?;
        copy(context, blobs, &at.name, &version, range, move |part| file.write_all(part)).await?;
        scratch.as_file().sync_all().map_err(failed)?;
        // As a file that was written in place would have.
        permit(scratch.as_file()).map_err(failed)?;
        scratch.persist(path).map_err(|e| failed(e.error))?;
        let text = format!("wrote {} to {}", units::bytes(bytes), plain(to));
        let object = json!({
            "store": at.blobs.store,
            "name": at.name,
            "file": to,
            "size": size,
            "written": bytes,
            "seconds": started.elapsed().as_secs_f64(),
        });
        context.output.summary(&text, &object)?;
    }
    peers.end().await;
    Ok(())
}

/// Temporary files are closed to others.
fn permit(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o644))
}

/// Reads a part of a version's content.
async fn copy(
    context: &Context,
    blobs: &Blobs,
    name: &str,
    version: &BlobVersion,
    range: Range<u64>,
    mut sink: impl FnMut(&[u8]) -> io::Result<()> + Send + 'static,
) -> Result<(), Failure> {
    let reader = blobs.reader(version)?;
    let done = Arc::new(AtomicU64::new(0));
    let (counter, total) = (Arc::clone(&done), range.end - range.start);
    let work = move || {
        reader.read(range, &mut |part| {
            counter.fetch_add(part.len() as u64, Ordering::Relaxed);
            sink(part)
        })
    };
    drawn(context, name, Some(total), &done, move || work().map_err(Unread)).await
}

/// Why content could not be handed on.
struct Unread(NodeError);

impl From<Unread> for Failure {
    fn from(Unread(error): Unread) -> Self {
        match error {
            NodeError::Sink(e) if e.kind() == io::ErrorKind::BrokenPipe => Self::unheard(),
            NodeError::Sink(e) => Self::failed("the content cannot be written").because(&e),
            e => e.into(),
        }
    }
}

async fn fetch(
    context: &Context,
    node: &Node,
    args: &BlobsArgs,
    blobs: &Blobs,
    name: Option<String>,
) -> Result<(), Failure> {
    let mut wanted = Vec::new();
    match name {
        Some(name) => {
            let at = BlobArgs {
                blobs: BlobsArgs { db: args.db.clone(), store: args.store.clone() },
                name,
            };
            wanted.push(find(blobs, &at)?);
        }
        None => blobs.each(&mut |blob| {
            wanted.push(blob);
            ControlFlow::Continue(())
        })?,
    }
    let mut peers = Peers::none();
    let (mut fetched, mut bytes) = (0, 0);
    for blob in &wanted {
        for version in blob.versions() {
            let Ok(reference) = version.reference() else { continue };
            if blobs.is_here(&blob.name, version)? {
                continue;
            }
            if peers.is_none() {
                peers = Peers::dial(context, node, &args.db)?;
            }
            let size = reference.content.size();
            copy(context, blobs, &blob.name, version, 0..size, |_| Ok(())).await?;
            (fetched, bytes) = (fetched + 1, bytes + size);
        }
    }
    peers.end().await;
    let text = format!(
        "{} here now: {}",
        units::counted(fetched, "blob is", "blobs are"),
        units::bytes(bytes)
    );
    context.output.summary(&text, &json!({ "blobs": fetched, "bytes": bytes }))
}

fn list(context: &Context, blobs: &Blobs) -> Result<(), Failure> {
    let mut lines = context.output.lines();
    let mut result = Ok(());
    blobs.each(&mut |blob| {
        result = line(blobs, &blob).and_then(|(row, object)| match context.output.json {
            true => lines.object(&object),
            false => lines.text(&table(&[row])),
        });
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    result?;
    lines.end()
}

fn line(blobs: &Blobs, blob: &Blob) -> Result<(Vec<String>, Value), Failure> {
    let here = blobs.is_here(&blob.name, &blob.shown)?;
    let when = anabranch_api::date(blob.shown.timestamp);
    let mut object = json!({
        "name": blob.name,
        "here": here,
        "time": when,
        "device": blob.shown.device.to_string(),
        "versions": 1 + blob.others.len(),
    });
    let mut row = match &blob.shown.content {
        Ok(reference) => {
            object["size"] = reference.content.size().into();
            object["type"] = reference.media_type.clone().into();
            vec![
                format!("{:>10}", units::bytes(reference.content.size())),
                reference.media_type.clone(),
            ]
        }
        Err(why) => {
            object["broken"] = why.clone().into();
            vec![format!("{:>10}", "?"), why.clone()]
        }
    };
    row.push(if here { "here" } else { "not here" }.into());
    if !blob.others.is_empty() {
        row.push("conflict".into());
    }
    row.insert(0, when);
    row.push(blob.name.clone());
    Ok((row, object))
}

fn keep(
    context: &Context,
    blobs: &Blobs,
    args: &BlobsArgs,
    when: Option<KeepArg>,
) -> Result<(), Failure> {
    let set = when.map(|when| match when {
        KeepArg::Eager => Keep::Eager,
        KeepArg::Lazy => Keep::Lazy,
    });
    if let Some(keep) = set {
        blobs.set_keep(keep)?;
    }
    let now = blobs.keep()?.name();
    let object = json!({ "store": args.store, "keep": now });
    match set {
        Some(_) => context.output.summary("", &object),
        None => context.output.answer(now, &object),
    }
}
