//! Whether a peer may read a database, and what it is told if not.

use crate::frame::{Code, Request};
use crate::work::{Access, Answer};
use anabranch_core::id::{DatabaseId, NodeId, Position};
use anabranch_core::membership::TicketState;
use anabranch_core::ops::Role;
use anabranch_core::person::Evidence;
use anabranch_core::sabotage::{self, Bug};
use anabranch_core::storage::StorageError;
use anabranch_core::view::View;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Where requests to be let in are kept, for an admin to approve.
pub trait Requests: Send + Sync {
    /// Takes a request of a device that may not read and says what has become of it. `None`: none are taken, so the device
    /// is to hear what any stranger hears.
    ///
    /// # Errors
    /// Whatever keeps them reports.
    fn ask(&self, peer: &NodeId, request: Request) -> Result<Option<Asked>, StorageError>;
}

/// What has become of a request to be let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// A policy approved it at once.
    Granted,
    /// It waits for an admin.
    Waiting,
    /// An admin rejected it, or an earlier one of this device.
    Rejected,
    /// As many wait as may.
    Full,
    /// This device is no admin, so it can let nobody in.
    NotAdmin,
}

/// Why a peer may not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It is no member, and showed nothing to become one.
    Stranger,
    /// It showed a ticket that does not admit it.
    Ticket(TicketState),
    /// It asked to be let in.
    Request(Asked),
    /// It had a right here once.
    Revoked,
}

/// Whether a peer may read.
pub type Right = Result<(), Reason>;

impl Reason {
    /// What a peer is told that is not let in.
    pub(crate) fn refusal(self) -> (Code, &'static str) {
        match self {
            Self::Stranger | Self::Request(Asked::Granted) => (
                Code::Strangers,
                "neither device knows the other as a member yet; sync both with one that knows them",
            ),
            Self::Request(Asked::Waiting) => {
                (Code::Waiting, "asked to be let in; an admin of the database has to approve it")
            }
            Self::Request(Asked::Rejected) => {
                (Code::Rejected, "an admin of the database rejected the request")
            }
            Self::Request(Asked::Full) => (
                Code::Limit,
                "as many requests wait for approval there as may (requests.max); ask an admin to look at them",
            ),
            Self::Request(Asked::NotAdmin) => (
                Code::NotAdmin,
                "the node at this address is no admin of the database, so it can let nobody in",
            ),
            Self::Ticket(TicketState::Expired) => {
                (Code::TicketExpired, "the ticket's time is over; ask for a new one")
            }
            Self::Ticket(TicketState::Spent) => (
                Code::TicketSpent,
                "the ticket was used by as many devices as it allows; ask for a new one",
            ),
            Self::Ticket(TicketState::Revoked) => {
                (Code::Revoked, "the ticket was revoked; ask for a new one")
            }
            Self::Ticket(TicketState::Unknown | TicketState::Open | TicketState::Redeemed) => {
                (Code::TicketUnknown, "the ticket is not known here; ask for a new one")
            }
            Self::Revoked => (Code::Revoked, "this device's right to the database was revoked"),
        }
    }

    /// What a peer is told that could read so far.
    pub(crate) fn loss(self) -> (Code, &'static str) {
        match self {
            Self::Stranger => (Code::NotServed, "this device may no longer read the database"),
            reason => reason.refusal(),
        }
    }
}

/// What a peer showed when it opened a database.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    /// The ticket that it proved to hold.
    pub ticket: Option<NodeId>,
    /// The person whose device it says it is.
    pub person: Option<Person>,
}

/// A person, and what is to show which devices that one has.
#[derive(Debug, Clone)]
pub struct Person(Arc<Claimed>);

#[derive(Debug)]
struct Claimed {
    person: DatabaseId,
    bytes: Vec<u8>,
    /// Looked at only where the person has a right at all: it costs a check of its signatures.
    evidence: OnceLock<Option<Evidence>>,
    /// What it was worth, and how many entries there were then.
    worth: Mutex<Option<(u64, Option<Role>)>>,
}

impl Person {
    pub(crate) fn new(person: DatabaseId, bytes: Vec<u8>) -> Self {
        let (evidence, worth) = (OnceLock::new(), Mutex::default());
        Self(Arc::new(Claimed { person, bytes, evidence, worth }))
    }

    /// What the device may do by it.
    fn role(&self, view: View<'_>, device: &NodeId) -> Result<Option<Role>, StorageError> {
        let Claimed { person, bytes, evidence, worth } = &*self.0;
        if !view.knows_person(person)? {
            return Ok(None);
        }
        let evidence = evidence.get_or_init(|| Evidence::decode(*person, bytes).ok());
        let Some(evidence) = evidence else { return Ok(None) };
        let entries = view.totals()?.entries;
        let mut worth = worth.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, role)) = worth.filter(|(then, _)| *then == entries) {
            return Ok(role);
        }
        let role = view.role_by(device, evidence)?;
        *worth = Some((entries, role));
        Ok(role)
    }
}

impl Access<'_> {
    /// The right to read governs what is sent; it is looked up anew each time.
    pub(crate) fn right(&self, view: View<'_>) -> Result<Right, StorageError> {
        if view.role_of(&self.peer)?.is_some() || sabotage::is(Bug::RightUnchecked) {
            return Ok(Ok(()));
        }
        if let Some(person) = &self.shown.person
            && person.role(view, &self.peer)?.is_some()
        {
            return Ok(Ok(()));
        }
        if let Some(key) = &self.shown.ticket {
            let state = view.ticket_state(key, &self.peer, self.now)?;
            return Ok(if state.admits() { Ok(()) } else { Err(Reason::Ticket(state)) });
        }
        let reason = if view.was_member(&self.peer)? { Reason::Revoked } else { Reason::Stranger };
        Ok(Err(reason))
    }

    /// The right of a peer that could read when it was let in.
    pub(crate) fn right_still(&self, view: View<'_>) -> Result<Right, StorageError> {
        if sabotage::is(Bug::RightOnce) { Ok(Ok(())) } else { self.right(view) }
    }

    /// The answer to work that tells the peer something, if it may not be told any more.
    pub(crate) fn refused(&self, view: View<'_>) -> Result<Option<Answer>, StorageError> {
        Ok(self.right_still(view)?.err().map(|reason| {
            let (code, text) = reason.loss();
            Answer::Failed { code, text: text.to_owned() }
        }))
    }

    /// What becomes of a request. Who may read already has nothing to ask for.
    pub(crate) fn asked(&self, request: Option<Request>) -> Result<Option<Asked>, StorageError> {
        let Some(request) = request else { return Ok(None) };
        let tx = self.storage.read()?;
        let view = View::new(&*tx);
        let role = view.role_of(&self.peer)?;
        if self.right(view)?.is_ok() && (role.is_none() || request.is_met_by(role)) {
            return Ok(None);
        }
        drop(tx);
        self.requests.ask(&self.peer, request)
    }

    /// Whether the peer has lost its right and brought nothing that counts or that anything builds on which does.
    pub(crate) fn is_of_no_use(
        &self,
        view: View<'_>,
        heads: &[Position],
    ) -> Result<bool, StorageError> {
        if self.right(view)?.is_ok() || !view.was_member(&self.peer)? {
            return Ok(false);
        }
        for head in heads {
            if view.is_needed(head)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
