//! A whole sync of a folder: look at it, exchange with a peer, apply, until both are settled.

use crate::error::FolderError;
use crate::folder::Folder;
use crate::live::Tell;
use crate::update::Updated;
use anabranch_core::key::DeviceKey;
use anabranch_core::ticket::Ticket;
use anabranch_node::{Control, Node, NodeError, Opening, Report, Until, Wire};
use anabranch_sync::channel::Direction;
use std::sync::Arc;

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

impl Folder {
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

    /// Keeps the folder and `other`, which is open in this process as well, in step until told to stop. Each is told what
    /// its updates did.
    ///
    /// # Errors
    /// [`FolderError`] when the session ends before that.
    pub async fn follow_local(
        self: &Arc<Self>,
        node: &Node,
        other: &Arc<Self>,
        tell: [Tell; 2],
        control: &Control,
    ) -> Result<Report, FolderError> {
        let [mine, theirs] = tell;
        let (here, there) = (self.watch(mine).await?, other.watch(theirs).await?);
        let replica = Arc::clone(self.replica());
        let opening = Opening { replica, direction: Direction::BOTH, ticket: None };
        let there_too = Arc::clone(other.replica());
        let report = node.sync_local(opening, there_too, Until::Closed, control).await;
        here.end().await?;
        there.end().await?;
        Ok(report?)
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
                let there = Arc::clone(other.replica());
                node.sync_local(opening(None), there, Until::Settled, control).await
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
