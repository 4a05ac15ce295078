//! `sync`: one replica with one peer, one with all its peers, or all with all.

use super::join;
use crate::args::SyncArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::introduce::{self, Did, Thing};
use crate::place::{Place, resolve};
use crate::progress;
use crate::report::{Exchange, Synced, tell};
use crate::signals;
use anabranch::engine::core::key::DeviceKey;
use anabranch::engine::node::{Opening, Record, Replica, Until};
use anabranch::engine::sync::channel::Direction;
use anabranch::engine::transport::Address;
use anabranch::{Control, Database, DatabaseId, Node, NodeError, Report, Ticket};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::watch;

/// Syncs.
pub(crate) async fn run(context: &Context, args: &SyncArgs) -> Result<(), Failure> {
    let node = context.node()?;
    let wish = Wish::new(args);
    let jobs = match (&args.here, &args.there) {
        (None, _) => {
            folders(context, &node, wish).await?;
            remembered(node.inner().records()?)
        }
        (Some(here), None) => match resolve(&node, here)? {
            Place::Database(record) => remembered(vec![record]),
            Place::Folder(path) => {
                return super::folders::remembered(context, &node, &path, wish).await;
            }
            other => return Err(not_here(&other, here)),
        },
        (Some(here), Some(there)) => match (resolve(&node, here)?, resolve(&node, there)?) {
            (Place::Database(record), there) => vec![with(record, there)?],
            (Place::New(name), Place::Ticket(ticket)) if !ticket.folder && !wish.dry_run => {
                return join::database(context, &node, &ticket, Some(&name)).await;
            }
            (Place::Folder(path), there) => {
                return super::folders::sync(context, &node, &path, there, wish).await;
            }
            (
                Place::New(path),
                there @ (Place::Folder(_)
                | Place::New(_)
                | Place::Ticket(_)
                | Place::Remote(Address::Ssh(_))),
            ) => {
                let path = std::path::PathBuf::from(path);
                return super::folders::sync(context, &node, &path, there, wish).await;
            }
            (other, _) => return Err(not_here(&other, here)),
        },
    };
    if let ([job], None) = (&jobs[..], &args.there)
        && job.addresses.is_empty()
        && args.here.is_some()
    {
        return Err(no_address(&job.record.name));
    }
    let mut stop = signals::stopping()?;
    let mut synced = Vec::new();
    for job in &jobs {
        synced.push(database(context, &node, job, wish, &mut stop).await?);
    }
    if jobs.is_empty() && args.here.is_none() {
        if node.inner().records()?.iter().any(|r| r.folder) {
            return Ok(());
        }
        context.output.note("there is no replica here yet; 'anabranch join' gets one");
    }
    tell(context.output, &synced, wish.dry_run)
}

fn no_address(name: &str) -> Failure {
    Failure::failed(format!("no address is known to sync {name} with")).hint(format!(
        "name one: 'anabranch sync {name} http://HOST:PORT'; or let others in: 'anabranch share {name}'"
    ))
}

/// Syncs every folder that has an address to sync with; one that fails keeps no other waiting.
async fn folders(context: &Context, node: &Node, wish: Wish) -> Result<(), Failure> {
    let mut failed = None;
    for record in node.inner().records()? {
        if !record.folder || record.addresses.is_empty() {
            continue;
        }
        if let Err(failure) = super::folders::remembered(context, node, &record.path, wish).await {
            context.output.warn(&format!("{}: {}", record.path.display(), failure.line()));
            failed = Some(failure);
        }
    }
    match failed {
        None => Ok(()),
        Some(_) => Err(Failure::partly("not every folder could be synced")),
    }
}

fn not_here(place: &Place, text: &str) -> Failure {
    match place {
        Place::Ticket(_) | Place::Remote(_) => {
            Failure::usage("what is here comes first: anabranch sync HERE THERE")
                .hint("to get a replica that is not here yet, use 'anabranch join' with a ticket")
        }
        _ => Failure::failed(format!("there is no replica '{text}' here")).hint(
            "'anabranch status' lists those there are; 'anabranch join' gets one with a ticket",
        ),
    }
}

/// How to sync.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish {
    /// Which ways entries go.
    pub(crate) direction: Direction,
    /// Which ways they would go if this were not only a comparison.
    pub(crate) entries: Direction,
    /// Only compare.
    pub(crate) dry_run: bool,
}

impl Wish {
    /// Everything, both ways.
    pub(crate) fn both() -> Self {
        Self { direction: Direction::BOTH, entries: Direction::BOTH, dry_run: false }
    }

    fn new(args: &SyncArgs) -> Self {
        let entries = match (args.push, args.pull) {
            (true, _) => Direction::PUSH,
            (_, true) => Direction::PULL,
            _ => Direction::BOTH,
        };
        let direction = if args.dry_run { Direction::COMPARE } else { entries };
        Self { direction, entries, dry_run: args.dry_run }
    }
}

/// One database to sync.
struct Job {
    record: Record,
    addresses: Vec<String>,
    /// A ticket to show.
    ticket: Option<DeviceKey>,
    /// Whether the first address that can be reached is enough.
    any: bool,
    /// Whether to remember an address that worked.
    remember: bool,
}

fn remembered(records: Vec<Record>) -> Vec<Job> {
    let job = |record: Record| Job {
        addresses: record.addresses.clone(),
        ticket: None,
        any: false,
        remember: false,
        record,
    };
    records.into_iter().filter(|r| !r.folder).map(job).collect()
}

/// `record` with what stands after it on the command line.
fn with(record: Record, there: Place) -> Result<Job, Failure> {
    match there {
        Place::Ticket(ticket) => {
            if ticket.database != record.database {
                return Err(another(&record.name));
            }
            Ok(Job {
                addresses: ticket.addresses.clone(),
                ticket: Some(ticket.key.clone()),
                any: true,
                remember: true,
                record,
            })
        }
        Place::Remote(address) => {
            // A name there may be another than here; an id is the same everywhere.
            if let Address::Http(url) = &address
                && let Some(Ok(id)) = url.replica().map(str::parse::<DatabaseId>)
                && id != record.database
            {
                return Err(another(&record.name));
            }
            let addresses = vec![address.to_string()];
            Ok(Job { addresses, ticket: None, any: false, remember: true, record })
        }
        Place::Database(other) => Err(Failure::usage(format!(
            "{} and {} are different databases of this device",
            record.name, other.name
        ))),
        Place::Folder(path) => Err(Failure::usage(format!(
            "{} is a database and {} a folder",
            record.name,
            path.display()
        ))),
        Place::New(text) => {
            Err(Failure::usage(format!("'{text}' is neither an address nor a ticket"))
                .hint("write http://HOST:PORT, host:NAME for ssh, or a ticket"))
        }
    }
}

fn another(name: &str) -> Failure {
    Failure::usage(format!("what is named there is another database than {name}"))
}

async fn database(
    context: &Context,
    node: &Node,
    job: &Job,
    wish: Wish,
    stop: &mut watch::Receiver<bool>,
) -> Result<Synced, Failure> {
    let record = &job.record;
    let mut exchanges = Vec::new();
    let mut conflicts = None;
    match node.inner().open_record(record) {
        Err(e) => exchanges.push(Exchange {
            address: record.path.display().to_string(),
            time: std::time::Duration::ZERO,
            result: Err(e.into()),
        }),
        Ok(replica) => {
            for address in &job.addresses {
                let exchange = exchange(context, node, job, &replica, address, wish, stop).await;
                let done = exchange.result.is_ok();
                exchanges.push(exchange);
                if done && job.any {
                    exchanges.retain(|e| e.result.is_ok());
                    break;
                }
            }
            let received =
                |e: &Exchange| e.result.as_ref().is_ok_and(|r| r.progress.entries_received > 0);
            if exchanges.iter().any(received) {
                let db = Database::new(Arc::clone(node.inner()), replica);
                conflicts = Some(db.conflicts()?.len() as u64);
            }
        }
    }
    Ok(Synced {
        name: record.name.clone(),
        kind: "database",
        database: record.database.to_string(),
        exchanges,
        conflicts,
    })
}

async fn exchange(
    context: &Context,
    node: &Node,
    job: &Job,
    replica: &Arc<Replica>,
    address: &str,
    wish: Wish,
    stop: &mut watch::Receiver<bool>,
) -> Exchange {
    let started = Instant::now();
    let control = Control::default();
    let drawing = progress::session(context.output, &job.record.name, &control);
    let session = session(node, job, replica, address, wish, &control);
    let result = interruptible(session, &control, stop).await;
    drop(drawing);
    if result.is_ok()
        && job.remember
        && !wish.dry_run
        && let Err(e) = remember(node, job, address)
    {
        context.output.warn(&format!("the address could not be remembered: {}", e.chain()));
    }
    Exchange { address: address.to_owned(), time: started.elapsed(), result }
}

fn remember(node: &Node, job: &Job, address: &str) -> Result<(), NodeError> {
    // Looked up anew: joining changes what is remembered.
    match node.inner().record_of(job.record.database)? {
        Some(record) => node.inner().remember_address(&record, address),
        None => Ok(()),
    }
}

async fn session(
    node: &Node,
    job: &Job,
    replica: &Arc<Replica>,
    address: &str,
    wish: Wish,
    control: &Control,
) -> Result<Report, Failure> {
    if let (Ok(ssh @ Address::Ssh(_)), false) = (Address::parse(address), wish.dry_run) {
        let thing = Thing::Database(Arc::clone(replica));
        return match introduce::dial(node, thing, &ssh, wish.direction, control).await? {
            Did::Database(report) => Ok(report),
            Did::Folder(..) => Err(Failure::failed("there is a folder over there")),
        };
    }
    let seed = job.record.ticket.as_ref();
    let key = job.ticket.clone().or_else(|| seed.map(DeviceKey::from_seed));
    let addresses = [address.to_owned()];
    if let (Some(key), Direction::BOTH) = (&key, wish.direction) {
        let ticket = Ticket {
            addresses: addresses.to_vec(),
            database: replica.database(),
            key: key.clone(),
            folder: false,
            name: String::new(),
        };
        return Ok(node.inner().join(replica, &ticket, control).await?);
    }
    let opening = Opening { replica: Arc::clone(replica), direction: wish.direction, ticket: key };
    Ok(node.inner().sync(opening, &addresses, Until::Settled, control).await?)
}

/// Runs a session; when the process is asked to end, ends it in good order and says that it is not done.
pub(crate) async fn interruptible<E: Into<Failure>>(
    session: impl Future<Output = Result<Report, E>>,
    control: &Control,
    stop: &mut watch::Receiver<bool>,
) -> Result<Report, Failure> {
    tokio::pin!(session);
    tokio::select! {
        result = &mut session => return result.map_err(Into::into),
        () = signals::stopped(stop) => {}
    }
    control.stop.send_replace(true);
    let grace = std::time::Duration::from_secs(2);
    // What does not end by itself is dropped: everything received is safe, and the peer notices.
    let _ = tokio::time::timeout(grace, session).await;
    Err(Failure::failed("interrupted").hint("run the command again, it goes on where it stopped"))
}
