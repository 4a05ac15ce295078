//! Syncing folders: with another folder on this machine, with peers, with a ticket, or through ssh.

use super::join::Ask;
use super::sync::Wish;
use crate::context::Context;
use crate::failure::Failure;
use crate::introduce::{self, Did, Thing};
use crate::output::{Output, plain};
use crate::place::Place;
use crate::progress::Meter;
use crate::report::Syncs;
use crate::signals;
use crate::units;
use anabranch::engine::sync::channel::Direction;
use anabranch::engine::transport::Address;
use anabranch::{Control, Node, Role, Ticket};
use anabranch_folder::path::RelPath;
use anabranch_folder::{Folder, FolderError, Outcome, Preview, PreviewWith, Updated, With};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Paths that are listed one by one; of more only the number is said.
pub(crate) const LISTED: usize = 20;
const EACH: Duration = Duration::from_millis(100);

/// Syncs the folder at `here` with `there`.
pub(crate) async fn sync(
    context: &Context,
    node: &Node,
    here: &Path,
    there: Place,
    wish: Wish,
) -> Result<(), Failure> {
    if here.exists() && !here.is_dir() {
        return Err(Failure::usage(format!("{} is not a folder", here.display()))
            .hint("name the folder that the file is in"));
    }
    match there {
        Place::Folder(other) => local(context, node, here, &other, wish).await,
        Place::New(text) => local(context, node, here, Path::new(&text), wish).await,
        Place::Ticket(ticket) => with_ticket(context, node, here, *ticket, wish).await,
        Place::Remote(Address::Http(url)) => {
            known(here)?;
            let name = url.to_string();
            let addresses = vec![name.clone()];
            with_addresses(context, node, here, &name, addresses, wish).await
        }
        Place::Remote(address) => through_pipe(context, node, here, &address, wish).await,
        Place::Database(record) => Err(Failure::usage(format!(
            "{} is a folder and {} a database",
            here.display(),
            record.name
        ))),
    }
}

fn known(here: &Path) -> Result<(), Failure> {
    if Folder::is_adopted(here) {
        return Ok(());
    }
    Err(Failure::failed(format!("{} is not a replica of anything yet", here.display())).hint(
        "an http address is for members; to get in, use a ticket: 'anabranch sync DIR TICKET'",
    ))
}

/// Syncs the folder at `here` with all its remembered addresses.
pub(crate) async fn remembered(
    context: &Context,
    node: &Node,
    here: &Path,
    wish: Wish,
) -> Result<(), Failure> {
    let record = crate::replicas::folder_record(node, here)?;
    if record.intents.is_empty() {
        return Err(Failure::failed(format!("no address is known to sync {} with", here.display()))
            .hint("name the other side: 'anabranch sync DIR OTHER'; or let others in: 'anabranch share DIR'"));
    }
    if let Some(seed) = record.ticket {
        // Joining was interrupted: it goes on.
        let ticket = Ticket {
            addresses: record.addresses().map(str::to_owned).collect(),
            database: record.database,
            key: anabranch::engine::core::key::DeviceKey::from_seed(&seed),
            folder: true,
            name: record.name.clone(),
        };
        return with_ticket(context, node, here, ticket, wish).await;
    }
    let mut syncs = Syncs::default();
    for address in record.addresses() {
        let synced = match Address::parse(address) {
            Ok(Address::Http(_)) => {
                with_addresses(context, node, here, address, vec![address.to_owned()], wish).await
            }
            Ok(other) => through_pipe(context, node, here, &other, wish).await,
            Err(e) => Err(Failure::from(e)),
        };
        syncs.add(&format!("{} with {address}", here.display()), synced);
    }
    syncs.verdict()
}

async fn local(
    context: &Context,
    node: &Node,
    here: &Path,
    there: &Path,
    wish: Wish,
) -> Result<(), Failure> {
    apart(here, there)?;
    if wish.dry_run {
        let scratch = tempfile::tempdir()?;
        let with = PreviewWith::Local(there);
        let direction = wish.entries;
        let (mine, theirs) =
            Folder::preview(node.inner(), here, with, direction, scratch.path()).await?;
        return preview(context, here, &there.display().to_string(), &mine, theirs.as_ref());
    }
    let (a, b) = open_pair(node, here, there)?;
    let job = Job { here: a, name: there.display().to_string(), other: Some(there) };
    job.run(context, node, With::Local(b), wish.entries).await
}

/// One folder in the other, or both the same, would sync for ever.
fn apart(here: &Path, there: &Path) -> Result<(), Failure> {
    let full = |path: &Path| {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        // What is not there yet is resolved as far as it is.
        path.ancestors()
            .find_map(|part| {
                let rest = path.strip_prefix(part).ok()?;
                part.canonicalize().ok().map(|real| real.join(rest))
            })
            .unwrap_or(path)
    };
    let (a, b) = (full(here), full(there));
    if a.starts_with(&b) || b.starts_with(&a) {
        return Err(Failure::usage(format!(
            "{} and {} are one folder, or one lies in the other",
            here.display(),
            there.display()
        )));
    }
    Ok(())
}

fn open_pair(
    node: &Node,
    here: &Path,
    there: &Path,
) -> Result<(Arc<Folder>, Arc<Folder>), Failure> {
    let node = node.inner();
    if !here.exists() && !there.exists() {
        return Err(Failure::failed(format!(
            "neither {} nor {} is there, so there is nothing to sync",
            here.display(),
            there.display()
        )));
    }
    let there_first = !here.exists() || (Folder::is_adopted(there) && !Folder::is_adopted(here));
    let (first, second) = if there_first { (there, here) } else { (here, there) };
    let a = if Folder::is_adopted(first) {
        Folder::open(node, first)?
    } else {
        Folder::adopt(node, first)?
    };
    let b = Folder::prepare(node, second, a.replica().database(), None)?;
    Ok(if there_first { (b, a) } else { (a, b) })
}

/// Syncs by way of a ticket, joining if this device is no member yet.
pub(crate) async fn with_ticket(
    context: &Context,
    node: &Node,
    here: &Path,
    ticket: Ticket,
    wish: Wish,
) -> Result<(), Failure> {
    if !ticket.folder {
        return Err(Failure::usage("the ticket is for a database, not for a folder")
            .hint("'anabranch join TICKET --name NAME' gets it"));
    }
    if wish.dry_run {
        return Err(Failure::usage("what a ticket brings is only known after joining")
            .hint("join into a new folder and look"));
    }
    let folder = Folder::prepare(node.inner(), here, ticket.database, Some(&ticket))?;
    let device = node.id();
    let member = folder.replica().look(|view| view.role_of(&device))? >= Some(Role::Read);
    let name = ticket.addresses.first().cloned().unwrap_or_default();
    let job = Job { here: folder, name, other: None };
    if member {
        job.run(context, node, With::Addresses(ticket.addresses), wish.entries).await
    } else {
        job.run(context, node, With::Ticket(Box::new(ticket)), Direction::BOTH).await
    }
}

/// Syncs the folder at `here`, which is to become a replica of `database`, with whoever is at `address`, asking to be let in.
/// Nothing comes back while that is not approved.
pub(crate) async fn asking(
    context: &Context,
    node: &Node,
    here: &Path,
    address: &str,
    ask: Ask,
) -> Result<Option<()>, Failure> {
    let folder = Folder::prepare(node.inner(), here, ask.database, None)?;
    remember(node, folder.root(), address)?;
    let started = Instant::now();
    let job = Job { here: folder, name: address.to_owned(), other: None };
    let attempt = async || {
        let with = With::Addresses(vec![address.to_owned()]);
        match job.exchange(context, node, with, Direction::BOTH).await? {
            Ok(outcome) => Ok(Ok(outcome)),
            Err(FolderError::Node(e)) => Ok(Err(e)),
            Err(e) => Err(e.into()),
        }
    };
    match ask.until_let_in(context, node, job.here.replica(), attempt).await? {
        Some(outcome) => job.tell(context, &outcome, started.elapsed()).map(Some),
        None => Ok(None),
    }
}

async fn with_addresses(
    context: &Context,
    node: &Node,
    here: &Path,
    name: &str,
    addresses: Vec<String>,
    wish: Wish,
) -> Result<(), Failure> {
    if wish.dry_run {
        let scratch = tempfile::tempdir()?;
        let with = PreviewWith::Addresses(addresses);
        let direction = wish.entries;
        let (mine, _) =
            Folder::preview(node.inner(), here, with, direction, scratch.path()).await?;
        return preview(context, here, name, &mine, None);
    }
    let folder = Folder::open(node.inner(), here)?;
    let job = Job { here: folder, name: name.to_owned(), other: None };
    job.run(context, node, With::Addresses(addresses.clone()), wish.entries).await?;
    remember(node, here, &addresses[0])
}

fn remember(node: &Node, here: &Path, address: &str) -> Result<(), Failure> {
    let record = crate::replicas::folder_record(node, here)?;
    Ok(node.inner().remember_address(&record, address)?)
}

async fn through_pipe(
    context: &Context,
    node: &Node,
    here: &Path,
    address: &Address,
    wish: Wish,
) -> Result<(), Failure> {
    if wish.dry_run {
        return Err(Failure::usage(
            "through ssh there is no dry run yet that touches nothing over there",
        )
        .hint("share the folder there and use its http address"));
    }
    let thing = if Folder::is_adopted(here) {
        Thing::Folder(Folder::open(node.inner(), here)?)
    } else {
        Thing::NewFolder(here.to_owned())
    };
    let started = Instant::now();
    let control = Control::default();
    let did = introduce::dial(node, thing, address, wish.entries, &control).await?;
    match did {
        Did::Folder(outcome, folder) => {
            node.inner().remember(&outcome.report, &address.to_string());
            remember(node, folder.root(), &address.to_string())?;
            let job = Job { here: folder, name: address.to_string(), other: None };
            job.tell(context, &outcome, started.elapsed())
        }
        // What is over there turned out to be a database, which is called here as was asked.
        Did::Database(report) => {
            let entries = report.progress.entries_received;
            let name = here.display().to_string();
            let text = format!(
                "{name}  {address}  received {} in {}",
                units::counted(entries, "entry", "entries"),
                units::duration(started.elapsed())
            );
            let object = json!({ "kind": "database", "name": name, "entries_received": entries });
            context.output.summary(&plain(&text), &object)
        }
    }
}

/// One folder's sync with one peer.
struct Job<'a> {
    here: Arc<Folder>,
    /// What the peer is called.
    name: String,
    /// The other folder, if it is on this machine.
    other: Option<&'a Path>,
}

impl Job<'_> {
    async fn run(
        &self,
        context: &Context,
        node: &Node,
        with: With,
        direction: Direction,
    ) -> Result<(), Failure> {
        let started = Instant::now();
        let outcome = self.exchange(context, node, with, direction).await??;
        self.tell(context, &outcome, started.elapsed())
    }

    /// The failure is that it was interrupted.
    async fn exchange(
        &self,
        context: &Context,
        node: &Node,
        with: With,
        direction: Direction,
    ) -> Result<Result<Outcome, FolderError>, Failure> {
        let control = Control::default();
        let mut stop = signals::stopping()?;
        let drawing = self.draw(context, &control);
        let session = self.here.sync(node.inner(), with, direction, &control);
        tokio::pin!(session);
        let outcome = tokio::select! {
            result = &mut session => result,
            () = signals::stopped(&mut stop) => {
                control.stop.send_replace(true);
                let _ = tokio::time::timeout(Duration::from_secs(2), session).await;
                drawing.abort();
                return Err(Failure::failed("interrupted")
                    .hint("run the command again, it goes on where it stopped"));
            }
        };
        drawing.abort();
        let _ = drawing.await;
        Ok(outcome)
    }

    fn draw(&self, context: &Context, control: &Control) -> tokio::task::JoinHandle<()> {
        let mut meter = Meter::new(context.output, &self.here.root().display().to_string());
        let (scan, session) = (self.here.progress(), control.progress.subscribe());
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(EACH);
            loop {
                ticks.tick().await;
                let (scan, session) = (*scan.borrow(), *session.borrow());
                let bytes = session.bytes_sent + session.bytes_received;
                let text = format!(
                    "{} looked at, {} read, {} exchanged",
                    units::counted(scan.files, "file", "files"),
                    units::bytes(scan.hashed),
                    units::bytes(bytes)
                );
                meter.set(scan.files, None, text);
            }
        })
    }

    fn tell(&self, context: &Context, outcome: &Outcome, time: Duration) -> Result<(), Failure> {
        let conflicts = self.here.conflicts()?;
        let here = self.here.root().display().to_string();
        let mut lines = Vec::new();
        let sent: Vec<(&'static str, &RelPath)> = match &outcome.there {
            Some(there) => there.applied.iter().map(|(what, path)| (*what, path)).collect(),
            None => unique(&outcome.here.recorded).into_iter().map(|p| ("sent", p)).collect(),
        };
        let received: Vec<(&'static str, &RelPath)> =
            outcome.here.applied.iter().map(|(what, path)| (*what, path)).collect();
        list(&mut lines, "->", &sent);
        list(&mut lines, "<-", &received);
        for conflict in conflicts.iter().take(LISTED) {
            lines.push(format!(
                "conflict  {}  ({} versions; 'anabranch folder conflicts {here}')",
                conflict.path,
                conflict.values.len()
            ));
        }
        let written = outcome.here.bytes_written
            + outcome.there.as_ref().map_or(0, |there| there.bytes_written);
        let moved = &outcome.report.progress;
        let nothing = sent.is_empty()
            && received.is_empty()
            && moved.entries_received + moved.entries_sent == 0;
        lines.push(if nothing {
            format!("{here}  {}  nothing moved in {}", self.name, units::duration(time))
        } else {
            format!(
                "{here}  {}  {} sent ({}), {} received ({}), {} written, {} in {}",
                self.name,
                units::counted(sent.len() as u64, "path", "paths"),
                units::bytes(moved.bytes_sent),
                units::counted(received.len() as u64, "path", "paths"),
                units::bytes(moved.bytes_received),
                units::bytes(written),
                units::counted(conflicts.len() as u64, "conflict", "conflicts"),
                units::duration(time)
            )
        });
        let object = json!({
            "kind": "folder",
            "here": here,
            "there": self.other.map_or(self.name.clone(), |p| p.display().to_string()),
            "sent": object(&sent),
            "received": object(&received),
            "entries_sent": moved.entries_sent,
            "entries_received": moved.entries_received,
            "bytes_sent": moved.bytes_sent,
            "bytes_received": moved.bytes_received,
            "bytes_written": written,
            "conflicts": conflicts.iter().map(|c| c.path.to_string()).collect::<Vec<_>>(),
            "trouble": all_troubles(outcome),
            "seconds": time.as_secs_f64(),
        });
        context.output.summary(&plain(&lines.join("\n")), &object)?;
        verdict(context, outcome)
    }
}

fn unique(paths: &[RelPath]) -> BTreeSet<&RelPath> {
    paths.iter().collect()
}

fn list(lines: &mut Vec<String>, way: &str, paths: &[(&'static str, &RelPath)]) {
    for (what, path) in paths.iter().take(LISTED) {
        lines.push(format!("{way} {what}  {path}"));
    }
    if paths.len() > LISTED {
        lines.push(format!("{way} and {} more", paths.len() - LISTED));
    }
}

fn object(paths: &[(&'static str, &RelPath)]) -> Vec<Value> {
    paths.iter().map(|(what, path)| json!({ "what": what, "path": path.to_string() })).collect()
}

/// What is not as it should be on either side, a line each.
fn all_troubles(outcome: &Outcome) -> Vec<String> {
    let mut list = troubles(&outcome.here);
    list.extend(outcome.there.iter().flat_map(troubles));
    list
}

/// What an update could not do, a line each.
pub(crate) fn troubles(updated: &Updated) -> Vec<String> {
    let problems = updated.problems.iter().map(|p| format!("{}: {}", p.path, p.what));
    let failed = updated.failed.iter().map(|f| format!("{}: {}", f.path, f.why));
    let refused = updated.refused.iter().map(|p| {
        format!("{p}: changed here, but this device may only read; the change stays here")
    });
    let unread = updated
        .unread
        .iter()
        .map(|p| format!("{p}: was written by a later version; update anabranch to get it"));
    let waiting = updated
        .put_off
        .iter()
        .filter(|p| !p.hidden)
        .map(|p| format!("{}: waits for another path; run the command again", p.path));
    problems.chain(failed).chain(refused).chain(unread).chain(waiting).collect()
}

/// Prints what an update of the folder at `root` did, path by path.
pub(crate) fn changes(output: Output, root: &Path, done: &Updated) -> Result<(), Failure> {
    let sent = done.recorded.iter().map(|path| ("sent", "->", path));
    let received = done.applied.iter().map(|(what, path)| (*what, "<-", path));
    let mut lines = output.lines();
    for (what, way, path) in sent.chain(received) {
        if output.json {
            let folder = root.display().to_string();
            lines.object(&json!({ "folder": folder, "what": what, "path": path.to_string() }))?;
        } else if !output.quiet {
            lines.text(&plain(&format!("{way} {what}  {}/{path}", root.display())))?;
        }
    }
    lines.end()
}

fn verdict(context: &Context, outcome: &Outcome) -> Result<(), Failure> {
    let list = all_troubles(outcome);
    for line in list.iter().take(LISTED) {
        context.output.warn(&plain(line));
    }
    if let Some(us) = outcome.report.progress.clock_ahead {
        let by = units::duration(Duration::from_micros(us.unsigned_abs()));
        let way = if us > 0 { "ahead of" } else { "behind" };
        context.output.warn(&format!("the peer's clock is {by} {way} this one"));
    }
    if list.is_empty() {
        return Ok(());
    }
    let paths = units::counted(list.len() as u64, "path is", "paths are");
    Err(Failure::partly(format!("{paths} not in step"))
        .hint("the rest is; run the command again when the cause is gone"))
}

fn preview(
    context: &Context,
    here: &Path,
    name: &str,
    mine: &Preview,
    theirs: Option<&Preview>,
) -> Result<(), Failure> {
    let mut lines = Vec::new();
    let sent: Vec<(&'static str, &RelPath)> = match theirs {
        Some(theirs) => theirs.actions.iter().map(|(what, path)| (*what, path)).collect(),
        None => mine.recorded.iter().map(|p| ("send", p)).collect(),
    };
    let received: Vec<(&'static str, &RelPath)> =
        mine.actions.iter().map(|(what, path)| (*what, path)).collect();
    list(&mut lines, "->", &sent);
    list(&mut lines, "<-", &received);
    let bytes = mine.bytes + theirs.map_or(0, |t| t.bytes);
    lines.push(format!(
        "{}  {name}  would send {}, receive {}, write {}",
        here.display(),
        units::counted(sent.len() as u64, "path", "paths"),
        units::counted(received.len() as u64, "path", "paths"),
        units::bytes(bytes)
    ));
    let object = json!({
        "dry_run": true,
        "kind": "folder",
        "here": here.display().to_string(),
        "there": name,
        "would_send": object(&sent),
        "would_receive": object(&received),
        "bytes_written": bytes,
    });
    context.output.summary(&plain(&lines.join("\n")), &object)
}

/// Where a folder that a ticket is for goes.
pub(crate) fn place_for(ticket: &Ticket, path: Option<&PathBuf>) -> Result<PathBuf, Failure> {
    path.cloned().ok_or_else(|| {
        let name = if ticket.name.is_empty() { "DIR" } else { &ticket.name };
        Failure::usage("the ticket is for a folder, which needs a place")
            .hint(format!("say where to put it: 'anabranch join TICKET {name}'"))
    })
}
