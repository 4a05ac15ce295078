//! A whole sync of a folder: look at it, exchange with a peer, apply, until both are settled.

use crate::error::FolderError;
use crate::folder::Folder;
use crate::update::Updated;
use anabranch_core::key::DeviceKey;
use anabranch_core::ticket::Ticket;
use anabranch_node::{Control, Node, NodeError, Opening, Report, Until, Wire};
use anabranch_sync::channel::Direction;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Who is at the other end.
#[derive(Debug)]
pub enum With {
    /// Another folder that is open in this process.
    Local(Arc<Folder>),
    /// Whoever answers at the first of these addresses that can be reached.
    Addresses(Vec<String>),
    /// As before, and this device is to be let in.
    Ticket(Box<Ticket>),
    /// A link that is there already; with a ticket if this device is to be let in.
    Wire(Box<Wire>, Option<Box<Ticket>>),
    /// A link that is there already, on which the other end, which is to be let in, will ask for the folder.
    Asked(Box<Wire>),
}

/// What a sync did.
#[derive(Debug)]
pub struct Outcome {
    /// The session.
    pub report: Report,
    /// What happened to the folder here.
    pub here: Updated,
    /// What happened to the folder there, if it is open in this process.
    pub there: Option<Updated>,
}

/// A folder at work in the background.
#[derive(Debug)]
pub struct Work {
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<(), FolderError>>,
}

impl Work {
    /// Ends the work in good order.
    ///
    /// # Errors
    /// What the work failed with.
    pub async fn end(self) -> Result<(), FolderError> {
        self.stop.send_replace(true);
        self.task.await.map_err(|_| NodeError::Closed)?
    }
}

impl Folder {
    /// Brings the folder up to date with its own database, then goes on to do so in the background with whatever arrives.
    ///
    /// # Errors
    /// What the first update failed with.
    pub async fn start(self: &Arc<Self>) -> Result<Work, FolderError> {
        if !self.is_new()? {
            let folder = Arc::clone(self);
            tokio::task::spawn_blocking(move || folder.update())
                .await
                .map_err(|_| NodeError::Closed)??;
        }
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(Arc::clone(self).work(stopped));
        Ok(Work { stop, task })
    }

    /// Syncs with another replica of the same folder until both are settled.
    ///
    /// # Errors
    /// [`FolderError`]; what was exchanged until then stays, and another sync goes on from there.
    pub async fn sync(
        self: &Arc<Self>,
        node: &Node,
        with: With,
        direction: Direction,
        control: &Control,
    ) -> Result<Outcome, FolderError> {
        let here = self.start().await?;
        let (there, other) = match &with {
            With::Local(other) => (Some(other.start().await?), Some(Arc::clone(other))),
            _ => (None, None),
        };
        let report = self.exchange(node, with, direction, control).await;
        let worked = here.end().await;
        if let Some(there) = there {
            there.end().await?;
        }
        // A worker that failed is why the session did.
        worked?;
        let (here, there) = (self.take_done(), other.map(|other| other.take_done()));
        Ok(Outcome { report: report?, here, there })
    }

    async fn exchange(
        self: &Arc<Self>,
        node: &Node,
        with: With,
        direction: Direction,
        control: &Control,
    ) -> Result<Report, NodeError> {
        let replica = self.replica();
        let opening =
            |ticket: Option<DeviceKey>| Opening { replica: Arc::clone(replica), direction, ticket };
        match with {
            With::Local(other) => {
                node.sync_local(opening(None), Arc::clone(other.replica()), control).await
            }
            With::Addresses(list) => node.sync(opening(None), &list, Until::Settled, control).await,
            With::Ticket(ticket) => node.join(replica, &ticket, control).await,
            With::Wire(wire, None) => {
                node.sync_on(*wire, vec![opening(None)], Until::Settled, control).await
            }
            With::Wire(wire, Some(ticket)) => node.join_on(*wire, replica, &ticket, control).await,
            With::Asked(wire) => node.answer_on(*wire, replica, control).await,
        }
    }
}
