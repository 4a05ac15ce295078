//! `sync`: one replica with one peer, one with all its peers, or all with all.

use super::join;
use crate::args::SyncArgs;
use crate::context::Context;
use crate::failure::{Failure, Kind};
use crate::introduce::{self, Did, Thing};
use crate::place::{Place, resolve};
use crate::progress;
use crate::replicas::named;
use crate::report::{Exchange, Syncs};
use crate::signals;
use anabranch::engine::core::key::DeviceKey;
use anabranch::engine::node::{Opening, Record, Replica, Until};
use anabranch::engine::sync::channel::Direction;
use anabranch::engine::transport::Address;
use anabranch::{Control, Database, DatabaseId, Node, NodeError, Report, Ticket};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::watch;

/// Syncs, and if asked to goes on with every change.
pub(crate) async fn run(context: &Context, args: &SyncArgs) -> Result<(), Failure> {
    let node = context.node()?;
    let done = once(context, &node, args).await;
    if !args.follow {
        return done;
    }
    let is_here =
        |name: &Option<String>| name.as_ref().is_none_or(|name| named(&node, name).is_ok());
    match done {
        // What does not work now with a peer that is known may work later.
        Err(failure)
            if failure.kind == Kind::Partly || args.there.is_none() && is_here(&args.here) =>
        {
            context.output.warn(&failure.line());
        }
        done => done?,
    }
    super::follow::run(context, &node, args).await
}

async fn once(context: &Context, node: &Node, args: &SyncArgs) -> Result<(), Failure> {
    let wish = Wish::new(args);
    let Some(here) = &args.here else {
        return all(context, node, wish).await;
    };
    let place = resolve(node, here)?;
    let Some(there) = &args.there else {
        return match place {
            Place::Database(record) if record.intents.is_empty() => Err(no_address(&record.name)),
            Place::Database(record) => database(context, node, Job::remembered(record), wish).await,
            Place::Folder(path) => super::folders::remembered(context, node, &path, wish).await,
            other => Err(not_here(&other, here)),
        };
    };
    match (place, resolve(node, there)?) {
        (Place::Database(record), there) => {
            database(context, node, Job::with(record, there)?, wish).await
        }
        (Place::New(name), Place::Ticket(ticket)) if !ticket.folder && !wish.dry_run => {
            join::database(context, node, &ticket, Some(&name), false).await
        }
        (Place::Folder(path), there) => {
            super::folders::sync(context, node, &path, there, wish).await
        }
        (
            Place::New(path),
            there @ (Place::Folder(_)
            | Place::New(_)
            | Place::Ticket(_)
            | Place::Remote(Address::Ssh(_))),
        ) => super::folders::sync(context, node, Path::new(&path), there, wish).await,
        (other, _) => Err(not_here(&other, here)),
    }
}

fn no_address(name: &str) -> Failure {
    Failure::failed(format!("no address is known to sync {name} with")).hint(format!(
        "name one: 'anabranch sync {name} http://HOST:PORT'; or let others in: 'anabranch share {name}'"
    ))
}

/// Syncs every replica that has an address; one that fails keeps no other waiting.
async fn all(context: &Context, node: &Node, wish: Wish) -> Result<(), Failure> {
    let records = node.inner().records()?;
    if records.is_empty() {
        context.output.note("there is no replica here yet; 'anabranch join' gets one");
    }
    let mut syncs = Syncs::default();
    let mut stop = signals::stopping()?;
    for record in records {
        if record.intents.is_empty() {
            context.output.note(&format!("{}  no address is known to sync it with", record.name));
        } else if record.folder {
            let name = record.path.display().to_string();
            let synced = super::folders::remembered(context, node, &record.path, wish).await;
            syncs.add(&name, synced);
        } else {
            Job::remembered(record).run(context, node, wish, &mut syncs, &mut stop).await?;
        }
    }
    syncs.verdict()
}

async fn database(context: &Context, node: &Node, job: Job, wish: Wish) -> Result<(), Failure> {
    let mut syncs = Syncs::default();
    let mut stop = signals::stopping()?;
    job.run(context, node, wish, &mut syncs, &mut stop).await?;
    syncs.verdict()
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

impl Job {
    /// `record` with all its addresses.
    fn remembered(record: Record) -> Self {
        let addresses = record.addresses().map(str::to_owned).collect();
        Self { addresses, ticket: None, any: false, remember: false, record }
    }

    /// `record` with what stands after it on the command line.
    fn with(record: Record, there: Place) -> Result<Self, Failure> {
        match there {
            Place::Ticket(ticket) => {
                if ticket.database != record.database {
                    return Err(another(&record.name));
                }
                Ok(Self {
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
                Ok(Self { addresses, ticket: None, any: false, remember: true, record })
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

    /// Syncs with each address, or with the first that can be reached where one is enough. The error is that it was
    /// interrupted; others are told to `syncs`.
    async fn run(
        &self,
        context: &Context,
        node: &Node,
        wish: Wish,
        syncs: &mut Syncs,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), Failure> {
        let name = &self.record.name;
        let replica = match node.inner().open_record(&self.record) {
            Ok(replica) => replica,
            Err(e) => {
                syncs.add(name, Err(e.into()));
                return Ok(());
            }
        };
        let mut unreached = Syncs::default();
        for address in &self.addresses {
            let done = self.exchange(context, node, &replica, address, wish, stop).await;
            if *stop.borrow() {
                return done;
            }
            let what = format!("{name} with {address}");
            match done {
                Ok(()) if self.any => {
                    syncs.add(&what, Ok(()));
                    return Ok(());
                }
                done if self.any => unreached.add(&what, done),
                done => syncs.add(&what, done),
            }
        }
        if self.any {
            syncs.add(name, unreached.verdict());
        }
        Ok(())
    }

    async fn exchange(
        &self,
        context: &Context,
        node: &Node,
        replica: &Arc<Replica>,
        address: &str,
        wish: Wish,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), Failure> {
        let started = Instant::now();
        let control = Control::default();
        let drawing = progress::session(context.output, &self.record.name, &control);
        let session = session(node, self, replica, address, wish, &control);
        let report = interruptible(session, &control, stop).await?;
        drop(drawing);
        if self.remember && !wish.dry_run {
            self.remember(node, address)?;
        }
        let db = Database::new(Arc::clone(node.inner()), Arc::clone(replica));
        let conflicts = match report.progress.entries_received {
            0 => None,
            _ => Some(db.conflicts()?.len() as u64),
        };
        let exchange = Exchange {
            name: self.record.name.clone(),
            database: self.record.database.to_string(),
            address: address.to_owned(),
            report,
            time: started.elapsed(),
            conflicts,
            dry_run: wish.dry_run,
        };
        exchange.tell(context.output)
    }

    fn remember(&self, node: &Node, address: &str) -> Result<(), NodeError> {
        // Looked up anew: joining changes what is remembered.
        match node.inner().record_of(self.record.database)? {
            Some(record) => node.inner().remember_address(&record, address),
            None => Ok(()),
        }
    }
}

fn another(name: &str) -> Failure {
    Failure::usage(format!("what is named there is another database than {name}"))
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

/// Runs a session that has no end of its own; when the process is asked to end, ends it in good order.
pub(crate) async fn until_stopped<T, E: Into<Failure>>(
    session: impl Future<Output = Result<T, E>>,
    control: &Control,
    stop: &mut watch::Receiver<bool>,
) -> Result<(), Failure> {
    let ended = interruptible(session, control, stop).await;
    if *stop.borrow() { Ok(()) } else { ended.map(drop) }
}

/// Runs a session; when the process is asked to end, ends it in good order and says that it is not done.
pub(crate) async fn interruptible<T, E: Into<Failure>>(
    session: impl Future<Output = Result<T, E>>,
    control: &Control,
    stop: &mut watch::Receiver<bool>,
) -> Result<T, Failure> {
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
