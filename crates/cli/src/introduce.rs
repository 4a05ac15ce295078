//! `host:path`: the two ends of a pipe that the user started tell each other what they have, and the one that is a member
//! lets the other in. Both sides of it are here: [`dial`] for the command that was typed, [`serve`] for the one that ssh
//! starts over there.

use crate::failure::Failure;
use crate::place::{self, Place};
use crate::replicas::Opened;
use anabranch::engine::core::ticket::Ticket;
use anabranch::engine::node::{Control, Introduction, Offer, Opening, Replica, Until, Wire};
use anabranch::engine::sync::channel::Direction;
use anabranch::engine::transport::{Address, pipe};
use anabranch::{DatabaseId, Node, Role};
use anabranch_folder::{Folder, Outcome, With};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long a ticket that is handed over on the spot may take to be used.
const EXPIRES: Duration = Duration::from_secs(3600);

/// What one end is about to sync.
pub(crate) enum Thing {
    Folder(Arc<Folder>),
    Database(Arc<Replica>),
    /// Nothing yet: a folder to be made there.
    NewFolder(PathBuf),
    /// Nothing yet: a database to be called so.
    NewDatabase(String),
}

impl Thing {
    fn replica(&self) -> Option<&Arc<Replica>> {
        match self {
            Self::Folder(folder) => Some(folder.replica()),
            Self::Database(replica) => Some(replica),
            Self::NewFolder(_) | Self::NewDatabase(_) => None,
        }
    }

    fn is_folder(&self) -> bool {
        matches!(self, Self::Folder(_) | Self::NewFolder(_))
    }

    fn introduction(&self, node: &Node) -> Result<Introduction, Failure> {
        let role = match self.replica() {
            Some(replica) => replica.look(|view| view.role_of(&node.id()))?,
            None => None,
        };
        Ok(Introduction {
            database: self.replica().map(|r| r.database()),
            member: role.is_some(),
            folder: self.is_folder(),
            refusal: String::new(),
        })
    }

    /// Becomes a replica of what `ticket` is for.
    fn become_replica(self, node: &Node, ticket: &Ticket) -> Result<Self, Failure> {
        Ok(match self {
            Self::NewFolder(path) => {
                Self::Folder(Folder::prepare(node.inner(), &path, ticket.database, Some(ticket))?)
            }
            Self::NewDatabase(name) => Self::Database(node.inner().prepare(ticket, &name)?),
            there => there,
        })
    }

    async fn ticket(&self, node: &Node, address: &str) -> Result<Ticket, Failure> {
        let Some(replica) = self.replica() else {
            return Err(Failure::failed("there is nothing to let anybody into"));
        };
        let offer = Offer {
            role: Role::Write,
            addresses: if address.is_empty() { Vec::new() } else { vec![address.to_owned()] },
            limit: Some(1),
            expires: Some(EXPIRES),
            folder: self.is_folder(),
            name: String::new(),
        };
        Ok(node.inner().ticket(replica, &offer).await?)
    }
}

/// What a sync over a pipe did.
pub(crate) enum Did {
    Folder(Box<Outcome>, Arc<Folder>),
    Database(anabranch::Report),
}

/// Why the two ends cannot sync, in words for the other one; `None` if they can.
fn mismatch(mine: &Introduction, theirs: &Introduction) -> Option<String> {
    match (mine.database, theirs.database) {
        (Some(a), Some(b)) if a != b => Some(format!(
            "the two sides are replicas of different databases ({} and {})",
            a.short(),
            b.short()
        )),
        (None, None) => Some("there is nothing on either side".into()),
        _ if mine.database.is_some()
            && theirs.database.is_some()
            && mine.folder != theirs.folder =>
        {
            Some("one side is a folder, the other a database".into())
        }
        _ if !mine.member && !theirs.member => {
            Some("neither side is a member that could let the other in".into())
        }
        _ => None,
    }
}

/// Syncs `thing` with what is at `address`, through ssh.
pub(crate) async fn dial(
    node: &Node,
    mut thing: Thing,
    address: &Address,
    direction: Direction,
    control: &Control,
) -> Result<Did, Failure> {
    let mut wire = node.inner().dial(address).await?;
    let theirs = wire.introduced().await?;
    if let Thing::NewFolder(path) = &thing
        && theirs.database.is_some()
        && !theirs.folder
        && !path.exists()
    {
        thing = Thing::NewDatabase(database_name(path));
    }
    if theirs.database.is_none()
        && let Thing::NewFolder(path) = &thing
    {
        if !path.is_dir() {
            return Err(Failure::failed("neither side is there yet, so there is nothing to sync")
                .hint("make the folder first"));
        }
        thing = Thing::Folder(Folder::adopt(node.inner(), path)?);
    }
    let mut mine = thing.introduction(node)?;
    if let (Thing::NewFolder(path), Some(database)) = (&thing, theirs.database)
        && is_member(node, database)?
    {
        // This device is known there by another replica it has, so nobody needs to let it in.
        thing = Thing::Folder(Folder::prepare(node.inner(), path, database, None)?);
        mine = Introduction { member: true, ..thing.introduction(node)? };
    }
    if let Some(text) = mismatch(&mine, &theirs) {
        mine.refusal.clone_from(&text);
        wire.introduce(&mine).await?;
        return Err(Failure::failed(text));
    }
    wire.introduce(&mine).await?;
    if !theirs.member {
        let ticket = thing.ticket(node, "").await?;
        wire.hand_over(&ticket).await?;
        return settle(node, thing, Part::Asked(Box::new(wire)), direction, control).await;
    }
    if !mine.member {
        let mut ticket = wire.take_over().await?;
        ticket.addresses = vec![address.to_string()];
        let thing = thing.become_replica(node, &ticket)?;
        return settle(
            node,
            thing,
            Part::Joins(Box::new(wire), Box::new(ticket)),
            direction,
            control,
        )
        .await;
    }
    settle(node, thing, Part::Member(Box::new(wire)), direction, control).await
}

/// Whether this device is a member of `database`, as some replica here knows.
fn is_member(node: &Node, database: DatabaseId) -> Result<bool, Failure> {
    for record in node.inner().records()?.into_iter().filter(|r| r.database == database) {
        let replica = Arc::clone(Opened::new(node, &record)?.replica());
        if replica.look(|view| view.role_of(&node.id()))?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Which part one end plays on the link.
enum Part {
    Member(Box<Wire>),
    Joins(Box<Wire>, Box<Ticket>),
    Asked(Box<Wire>),
}

async fn settle(
    node: &Node,
    thing: Thing,
    role: Part,
    direction: Direction,
    control: &Control,
) -> Result<Did, Failure> {
    let inner = node.inner();
    match thing {
        Thing::Folder(folder) => {
            let with = match role {
                Part::Member(wire) => With::Wire(wire, None),
                Part::Joins(wire, ticket) => With::Wire(wire, Some(ticket)),
                Part::Asked(wire) => With::Asked(wire),
            };
            let outcome = folder.sync(inner, with, direction, control).await?;
            Ok(Did::Folder(Box::new(outcome), folder))
        }
        Thing::Database(replica) => {
            let report = match role {
                Part::Member(wire) => {
                    let opening =
                        Opening { replica: Arc::clone(&replica), direction, ticket: None };
                    inner.sync_on(*wire, vec![opening], Until::Settled, control).await?
                }
                Part::Joins(wire, ticket) => {
                    inner.join_on(*wire, &replica, &ticket, control).await?
                }
                Part::Asked(wire) => inner.answer_on(*wire, &replica, control).await?,
            };
            Ok(Did::Database(report))
        }
        Thing::NewFolder(_) | Thing::NewDatabase(_) => {
            Err(Failure::failed("there is nothing on this side"))
        }
    }
}

/// What `text` names here, for somebody who reached this machine through a pipe.
fn thing_here(node: &Node, text: &str) -> Result<Thing, Failure> {
    Ok(match place::resolve(node, text)? {
        Place::Folder(path) if Folder::is_adopted(&path) => {
            Thing::Folder(Folder::open(node.inner(), &path)?)
        }
        Place::Folder(path) => Thing::NewFolder(path),
        Place::Database(record) => Thing::Database(node.inner().open_record(&record)?),
        Place::New(name) => Thing::NewFolder(PathBuf::from(name)),
        Place::Ticket(_) | Place::Remote(_) => {
            return Err(Failure::usage("name a folder or a database of this machine"));
        }
    })
}

/// Serves what `text` names on standard input and output, to the end of one session.
pub(crate) async fn serve(
    node: &Node,
    text: &str,
    stop: watch::Receiver<bool>,
) -> Result<(), Failure> {
    let mut wire = node.inner().secure(pipe::stdio()?, false).await?;
    let found = match thing_here(node, text) {
        Ok(thing) => thing.introduction(node).map(|mine| (thing, mine)),
        Err(failure) => Err(failure),
    };
    let (mut thing, mine) = match found {
        Ok(found) => found,
        Err(failure) => {
            // Said over the link, where the person who typed the command sees it.
            let refusal = failure.line();
            let none = Introduction { database: None, member: false, folder: true, refusal };
            wire.introduce(&none).await?;
            return Err(failure);
        }
    };
    wire.introduce(&mine).await?;
    let theirs = wire.introduced().await?;
    if let Some(text) = mismatch(&mine, &theirs) {
        return Err(Failure::failed(text));
    }
    if !mine.member {
        if !theirs.folder
            && let Thing::NewFolder(path) = &thing
        {
            thing = Thing::NewDatabase(database_name(path));
        }
        let ticket = wire.take_over().await?;
        let thing = thing.become_replica(node, &ticket)?;
        settle(
            node,
            thing,
            Part::Joins(Box::new(wire), Box::new(ticket)),
            Direction::BOTH,
            &Control::default(),
        )
        .await?;
        return Ok(());
    }
    if !theirs.member {
        let ticket = thing.ticket(node, "").await?;
        wire.hand_over(&ticket).await?;
    }
    let Some(replica) = thing.replica().map(Arc::clone) else { return Ok(()) };
    let work = match &thing {
        Thing::Folder(folder) => Some(folder.watch(Arc::new(|_| ())).await?),
        _ => None,
    };
    let served = node.inner().serve_on(wire, vec![replica], stop).await;
    if let Some(work) = work {
        work.end().await?;
    }
    served?;
    Ok(())
}

fn database_name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}
