//! `join`: a replica of what a ticket is for. Repeating it goes on where it stopped.

use super::sync::interruptible;
use crate::args::JoinArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::place::ticket;
use crate::progress;
use crate::signals;
use crate::units;
use anabranch::{Control, Keep, Node, NodeError, Role, Ticket};
use serde_json::json;
use std::time::Instant;

/// Joins.
pub(crate) async fn run(context: &Context, args: &JoinArgs) -> Result<(), Failure> {
    let ticket = ticket(&args.ticket)?;
    let node = context.node()?;
    if ticket.folder {
        if args.lazy {
            return Err(Failure::usage("the ticket is for a folder, whose files are all fetched")
                .hint("leave --lazy out"));
        }
        if args.name.is_some() {
            return Err(Failure::usage("the ticket is for a folder, whose name is its path")
                .hint("say where to put it: 'anabranch join TICKET DIR'"));
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

/// Joins a database, to be called `name` here if it is given; if `lazy`, without the content of blobs.
pub(crate) async fn database(
    context: &Context,
    node: &Node,
    ticket: &Ticket,
    name: Option<&str>,
    lazy: bool,
) -> Result<(), Failure> {
    let started = Instant::now();
    let known = node.inner().record_of(ticket.database)?;
    let name = match (&known, name) {
        (Some(record), Some(name)) if record.name != name => {
            return Err(Failure::usage(format!(
                "the database is here already, as {}",
                record.name
            )));
        }
        (Some(record), _) => record.name.clone(),
        (None, Some(name)) => name.to_owned(),
        (None, None) if !ticket.name.is_empty() => ticket.name.clone(),
        (None, None) => {
            return Err(Failure::usage("the ticket suggests no name").hint("give one with --name"));
        }
    };
    let replica = node.inner().prepare(ticket, &name).map_err(|e| match e {
        NodeError::NameTaken(_) | NodeError::BadName(_) => {
            Failure::from(e).hint("choose a name with --name")
        }
        e => e.into(),
    })?;
    if lazy {
        replica.set_keep(None, Keep::Lazy)?;
    }
    let control = Control::default();
    let mut stop = signals::stopping()?;
    let drawing = progress::session(context.output, &name, &control);
    let joining = node.inner().join(&replica, ticket, &control);
    let report = interruptible(joining, &control, &mut stop).await?;
    drop(drawing);
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
        "database": ticket.database.to_string(),
        "peer": report.peer.to_string(),
        "role": role,
        "received": { "entries": moved.entries_received, "bytes": moved.bytes_received },
        "seconds": started.elapsed().as_secs_f64(),
    });
    context.output.summary(&text, &object)
}
