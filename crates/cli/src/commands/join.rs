//! `join`: a replica of what a ticket is for, or of what an admin lets this device in to. Repeating it goes on where it
//! stopped.

use super::sync::interruptible;
use crate::args::JoinArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::place::{no_database, ticket};
use crate::progress;
use crate::signals;
use crate::units;
use anabranch::engine::node::{Attempts, Ending, Opening, Replica, Until};
use anabranch::engine::sync::channel::Direction;
use anabranch::engine::sync::frame::{Code, Request, TEXT_BYTES};
use anabranch::engine::transport::Address;
use anabranch::{Control, DatabaseId, Keep, Node, NodeError, Report, Role, Ticket};
use serde_json::json;
use std::sync::Arc;
use std::time::Instant;

/// Joins, or asks to.
pub(crate) async fn run(context: &Context, args: &JoinArgs) -> Result<(), Failure> {
    if args.ask.is_some() || args.person.is_some() {
        return ask(context, args).await;
    }
    if args.place.contains("://") {
        return Err(Failure::usage("an address is for members; to get in, use a ticket, or ask")
            .hint("ask with --ask and a few words that say who you are, or with --as if something is granted to you there"));
    }
    let ticket = ticket(&args.place)?;
    let node = context.node()?;
    if ticket.folder {
        if args.lazy {
            return Err(Failure::usage("the ticket is for a folder, whose files are all fetched")
                .hint("leave --lazy out"));
        }
        if let Some(name) = &args.name {
            return without_a_place(context, &node, &ticket, name).await;
        }
        let path = super::folders::place_for(&ticket, args.path.as_ref())?;
        return super::folders::with_ticket(
            context,
            &node,
            &path,
            ticket,
            super::sync::Wish::both(),
        )
        .await;
    }
    if let Some(path) = &args.path {
        return Err(Failure::usage(format!(
            "the ticket is for a database, which has no place of its own to put at {}",
            path.display()
        ))
        .hint("use --name to choose what it is called here"));
    }
    database(context, &node, &ticket, args.name.as_deref(), args.lazy).await
}

/// Joins a folder without a place for its files: what is kept of it is for others to fetch.
async fn without_a_place(
    context: &Context,
    node: &Node,
    ticket: &Ticket,
    name: &str,
) -> Result<(), Failure> {
    if let Some(record) = node.inner().record_of(ticket.database)?.filter(|record| record.folder) {
        let path = record.path.display();
        return Err(Failure::usage(format!("the folder is here already, at {path}")));
    }
    database(context, node, ticket, Some(name), false).await
}

/// Joins a database, to be called `name` here if it is given; if `lazy`, without the content of blobs.
pub(crate) async fn database(
    context: &Context,
    node: &Node,
    ticket: &Ticket,
    name: Option<&str>,
    lazy: bool,
) -> Result<(), Failure> {
    let started = Instant::now();
    let suggested = Some(ticket.name.as_str()).filter(|name| !name.is_empty());
    let name = name_for(node, ticket.database, name, suggested)?;
    let replica = node.inner().prepare(ticket, &name).map_err(misnamed)?;
    if lazy {
        replica.set_keep(None, Keep::Lazy)?;
    }
    let control = Control::default();
    let mut stop = signals::stopping()?;
    let drawing = progress::session(context.output, &name, &control);
    let joining = node.inner().join(&replica, ticket, &control);
    let report = interruptible(joining, &control, &mut stop).await?;
    drop(drawing);
    joined(context, node, &name, &replica, &report, started)
}

/// What a database is called here: what it is called already, what the user says, or what is suggested.
fn name_for(
    node: &Node,
    database: DatabaseId,
    wished: Option<&str>,
    suggested: Option<&str>,
) -> Result<String, Failure> {
    match (node.inner().record_of(database)?, wished) {
        (Some(record), Some(name)) if record.name != name => {
            Err(Failure::usage(format!("the database is here already, as {}", record.name)))
        }
        (Some(record), _) => Ok(record.name),
        (None, wished) => match wished.or(suggested) {
            Some(name) => Ok(name.to_owned()),
            None => Err(Failure::usage("nothing suggests a name").hint("give one with --name")),
        },
    }
}

fn misnamed(error: NodeError) -> Failure {
    let name = matches!(error, NodeError::NameTaken(_) | NodeError::BadName(_));
    let failure = Failure::from(error);
    if name { failure.hint("choose a name with --name") } else { failure }
}

fn joined(
    context: &Context,
    node: &Node,
    name: &str,
    replica: &Replica,
    report: &Report,
    started: Instant,
) -> Result<(), Failure> {
    let role = replica.look(|view| view.role_of(&node.id()))?.map(Role::name);
    let moved = report.progress;
    let text = format!(
        "joined {name} to {}: received {} ({}) in {}",
        role.unwrap_or("look"),
        units::counted(moved.entries_received, "entry", "entries"),
        units::bytes(moved.bytes_received),
        units::duration(started.elapsed()),
    );
    let object = json!({
        "name": name,
        "kind": "database",
        "database": replica.database().to_string(),
        "peer": report.peer.to_string(),
        "role": role,
        "received": { "entries": moved.entries_received, "bytes": moved.bytes_received },
        "seconds": started.elapsed().as_secs_f64(),
    });
    context.output.summary(&text, &object)
}

/// What is asked for, and how.
pub(crate) struct Ask {
    /// Which database.
    pub(crate) database: DatabaseId,
    request: Request,
    /// Whether to wait until it was decided about.
    wait: bool,
}

impl Ask {
    /// Tries until this device is let in, or once if nobody is to wait; nothing comes back then. The failure of `attempt` is
    /// that it was interrupted.
    pub(crate) async fn until_let_in<T>(
        &self,
        context: &Context,
        node: &Node,
        replica: &Replica,
        mut attempt: impl AsyncFnMut() -> Result<Result<T, NodeError>, Failure>,
    ) -> Result<Option<T>, Failure> {
        if !self.request.is_met_by(replica.look(|view| view.role_of(&node.id()))?) {
            node.inner().ask(self.database, self.request.clone())?;
        }
        let mut attempts = Attempts::new(Vec::new(), None, node.inner().settings().retry);
        let mut stop = signals::stopping()?;
        let mut waits = false;
        loop {
            match attempt().await? {
                Ok(done) => return Ok(Some(done)),
                Err(NodeError::Session { code: Code::Waiting, .. }) if !self.wait => {
                    return Ok(None);
                }
                Err(NodeError::Session { code: Code::Waiting, .. }) => {
                    if !std::mem::replace(&mut waits, true) {
                        context.output.note("asked to be let in; waiting for an admin's approval");
                    }
                }
                // It was there before; an admin's device need not stay on.
                Err(NodeError::Unreachable { .. } | NodeError::Link(_)) if waits => {}
                Err(e) => return Err(refused(e)),
            }
            let lost = Ending::Lost { in_step: false, answered: true };
            tokio::select! {
                () = tokio::time::sleep(attempts.ended(lost, 255)) => {}
                () = signals::stopped(&mut stop) => {
                    return Err(Failure::failed("interrupted while waiting for approval")
                        .hint("the request stays; run the command again, or 'anabranch serve'"));
                }
            }
        }
    }
}

fn refused(error: NodeError) -> Failure {
    let hint = match &error {
        NodeError::Session { code: Code::Rejected, .. } => "ask an admin for a ticket",
        NodeError::Session { code: Code::NotAdmin, .. } => {
            "ask at the address of a device that is one, or use a ticket"
        }
        _ => return error.into(),
    };
    Failure::from(error).hint(hint)
}

/// Asks to be let in to what an address names.
async fn ask(context: &Context, args: &JoinArgs) -> Result<(), Failure> {
    let address = Address::parse(&args.place).map_err(|e| {
        Failure::usage(e.to_string()).hint("to ask to be let in, name http://HOST:PORT/DB_ID")
    })?;
    let node = context.node()?;
    let person = args.person.as_deref().map(|name| person(&node, name)).transpose()?;
    let text = match (&args.ask, person) {
        (Some(text), _) => text.clone(),
        (None, Some(person)) => format!("a device of {person}"),
        (None, None) => String::new(),
    };
    let Address::Http(url) = &address else {
        return Err(Failure::usage("through ssh nobody has to ask")
            .hint(format!("'anabranch sync HERE {address}' lets in the device on either side")));
    };
    let database = url.replica().and_then(|id| id.parse::<DatabaseId>().ok());
    let Some(database) = database else {
        return Err(Failure::usage(format!("{address} does not say which database, by its id"))
            .hint("write http://HOST:PORT/DB_ID; 'anabranch db info' there prints the id"));
    };
    if text.trim().is_empty() || text.len() > TEXT_BYTES {
        let takes = format!("--ask takes a few words, at most {TEXT_BYTES} bytes");
        return Err(Failure::usage(takes).hint("say who you are, so that an admin knows"));
    }
    let role = args.role.map_or(Role::Write, Role::from);
    let request = Request { role, text, person };
    let ask = Ask { database, request, wait: args.wait };
    let (address, done) = (address.to_string(), args.path.as_deref());
    let (name, done) = match done {
        Some(path) => {
            let done = super::folders::asking(context, &node, path, &address, ask).await?;
            (path.display().to_string(), done)
        }
        None => {
            let name = name_for(&node, database, args.name.as_deref(), None)?;
            (name.clone(), ask_for_database(context, &node, &name, &address, args.lazy, ask).await?)
        }
    };
    if done.is_some() {
        return Ok(());
    }
    let text = format!(
        "asked to be let in to {name} to {}; an admin has to approve it there: 'anabranch requests approve'\n\
         'anabranch serve' goes on by itself then, or run this again",
        role.name()
    );
    let object = json!({
        "name": name,
        "kind": if args.path.is_some() { "folder" } else { "database" },
        "database": database.to_string(),
        "waiting": true,
        "role": role.name(),
    });
    context.output.summary(&text, &object)
}

/// The person whose devices are the members of a database here.
fn person(node: &Node, name: &str) -> Result<DatabaseId, Failure> {
    let Some(record) = node
        .inner()
        .records()?
        .into_iter()
        .find(|r| !r.folder && (r.name == name || r.database.to_string() == name))
    else {
        return Err(no_database(name).hint(
            "'anabranch db new NAME' makes a database of your devices, and 'anabranch ticket NAME' lets the others in",
        ));
    };
    // What is wrong with it is said before anybody is asked.
    node.inner().evidence_of(record.database)?;
    Ok(record.database)
}

async fn ask_for_database(
    context: &Context,
    node: &Node,
    name: &str,
    address: &str,
    lazy: bool,
    ask: Ask,
) -> Result<Option<()>, Failure> {
    let started = Instant::now();
    let inner = node.inner();
    let replica = inner.prepare_asking(ask.database, address, name).map_err(misnamed)?;
    if lazy {
        replica.set_keep(None, Keep::Lazy)?;
    }
    let mut stop = signals::stopping()?;
    let attempt = async || {
        let control = Control::default();
        let _drawing = progress::session(context.output, name, &control);
        let (replica, addresses) = (Arc::clone(&replica), [address.to_owned()]);
        let opening = Opening { replica, direction: Direction::BOTH, ticket: None };
        let session = inner.sync(opening, &addresses, Until::Settled, &control);
        let session = async { Ok::<_, Failure>(session.await) };
        interruptible(session, &control, &mut stop).await
    };
    match ask.until_let_in(context, node, &replica, attempt).await? {
        Some(report) => joined(context, node, name, &replica, &report, started).map(Some),
        None => Ok(None),
    }
}
