//! A database as an application holds it.

use crate::watch::{Change, Watch, change};
use crate::{Blobs, Cells, Counter, Doc, Error, Set, Table, Transaction};
use anabranch_core::author::Draft;
use anabranch_core::id::{DatabaseId, NodeId};
use anabranch_core::ops::{Role, Subject};
use anabranch_core::ticket::Ticket;
use anabranch_node::{
    Asking, Control, Intent, Leave, Member, Node as Inner, Offer, Opening, Replica, Report,
    Revoked, SyncHandle, Target, Until,
};
use anabranch_sync::channel::Direction;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// A replica of a database. Cheap to clone; all clones are the same replica.
#[derive(Debug, Clone)]
pub struct Database {
    node: Arc<Inner>,
    replica: Arc<Replica>,
}

impl Database {
    /// Wraps an open replica.
    #[must_use]
    pub fn new(node: Arc<Inner>, replica: Arc<Replica>) -> Self {
        Self { node, replica }
    }

    /// Which database it is: the same on all devices.
    #[must_use]
    pub fn id(&self) -> DatabaseId {
        self.replica.database()
    }

    /// The replica underneath.
    #[must_use]
    pub fn replica(&self) -> &Arc<Replica> {
        &self.replica
    }

    /// The table called `name`, with rows of type `T`. It comes into being with its first row.
    #[must_use]
    pub fn table<T: Serialize + DeserializeOwned>(&self, name: &str) -> Table<T> {
        Table::new(self.clone(), name)
    }

    /// The document called `name`. It comes into being with its first value.
    #[must_use]
    pub fn doc(&self, name: &str) -> Doc {
        Doc::new(self.clone(), name)
    }

    /// The counters called `name`. They come into being with what is first added.
    #[must_use]
    pub fn counter(&self, name: &str) -> Counter {
        Counter::new(self.clone(), name)
    }

    /// The set called `name`, with elements of type `T`. It comes into being with its first element.
    #[must_use]
    pub fn set<T: Serialize + DeserializeOwned>(&self, name: &str) -> Set<T> {
        Set::new(self.clone(), name)
    }

    /// The blobs called `name`: content of any size. They come into being with the first.
    #[must_use]
    pub fn blobs(&self, name: &str) -> Blobs {
        Blobs::new(self.clone(), name)
    }

    /// The store called `name` of the application's own kind number `kind`. Who picks the same number for something else
    /// reads other people's cells, so a number should be drawn by lot.
    #[must_use]
    pub fn cells(&self, kind: u16, name: &str) -> Cells {
        Cells::new(self.clone(), kind, name)
    }

    /// Starts a transaction.
    #[must_use]
    pub fn transaction(&self) -> Transaction {
        Transaction::new(self.clone())
    }

    pub(crate) async fn commit(&self, draft: Draft) -> Result<(), Error> {
        if draft.writes.is_empty() && draft.tallies.is_empty() {
            return Ok(());
        }
        self.replica.commit(vec![draft]).await?;
        Ok(())
    }

    /// Every change from now on, local or remote.
    ///
    /// # Errors
    /// What storage reports.
    pub fn watch(&self) -> Result<Watch, Error> {
        Watch::new(self.clone())
    }

    /// The newest `limit` transactions, whoever made them, newest first.
    ///
    /// # Errors
    /// What storage reports.
    pub fn log(&self, limit: usize) -> Result<Vec<Change>, Error> {
        let device = self.replica.device().id();
        Ok(self.replica.look(|view| {
            let newest = view.newest(limit)?.into_iter();
            let changes = newest.map(|(arrival, entry)| change(view, arrival, &entry, device));
            changes.collect::<Result<_, _>>().map_err(anabranch_core::error::Error::from)
        })?)
    }

    /// Digest of the whole state: equal on two replicas exactly when their states are. `None` while a store holds
    /// operations of a later version, or something that counts is sealed with a key that is not here.
    ///
    /// # Errors
    /// What storage reports.
    pub fn digest(&self) -> Result<Option<[u8; 32]>, Error> {
        Ok(self.replica.read_any(|view| view.state_digest())?)
    }

    /// Syncs both ways with the node at `address` until both hold the same.
    ///
    /// # Errors
    /// [`Error::Node`].
    pub async fn sync_with(&self, address: &str) -> Result<Report, Error> {
        let opening = Opening {
            replica: Arc::clone(&self.replica),
            direction: Direction::BOTH,
            ticket: None,
        };
        let addresses = [address.to_owned()];
        Ok(self.node.sync(opening, &addresses, Until::Settled, &Control::default()).await?)
    }

    /// Stays connected with the node at `address`: what either side commits reaches the other at once. Returns when the
    /// link ends.
    ///
    /// # Errors
    /// [`Error::Node`].
    pub async fn follow(&self, address: &str, control: &Control) -> Result<Report, Error> {
        let opening = Opening {
            replica: Arc::clone(&self.replica),
            direction: Direction::BOTH,
            ticket: None,
        };
        let addresses = [address.to_owned()];
        Ok(self.node.sync(opening, &addresses, Until::Closed, control).await?)
    }

    /// Keeps this database in step with a peer in the background, until the result is dropped: connects, follows, and when
    /// the peer is lost tries again for ever. In a node that is kept in a directory this is declared for good: see
    /// [`crate::Node::resume`], [`Self::withdraw`].
    ///
    /// # Errors
    /// [`Error::Node`] for an intent that makes no sense, or what storage reports.
    pub fn keep_in_step(&self, intent: &Intent) -> Result<SyncHandle, Error> {
        intent.check()?;
        let record = self.node.record_of(self.id())?;
        if let Some(record) = &record {
            self.node.declare(record, intent.clone())?;
        }
        let name = record.map_or_else(|| self.id().to_string(), |record| record.name);
        Ok(self.node.keep(Target::new(Arc::clone(&self.replica), &name, intent)))
    }

    /// Takes back that this database is kept in step with whoever answers at `address`. False when it was not declared.
    ///
    /// # Errors
    /// [`Error::Node`].
    pub fn withdraw(&self, address: &str) -> Result<bool, Error> {
        match self.node.record_of(self.id())? {
            Some(record) => Ok(self.node.withdraw(&record, address)?),
            None => Ok(false),
        }
    }

    /// Every grant there ever was, with what ended it.
    ///
    /// # Errors
    /// What storage reports.
    pub fn members(&self) -> Result<Vec<Member>, Error> {
        Ok(self.replica.members()?)
    }

    /// Gives a device, or anyone, a role. [`Replica::grant`] has its errors. False when it has just that role.
    ///
    /// # Errors
    /// [`Error::Node`].
    pub fn grant(&self, subject: Subject, role: Role) -> Result<bool, Error> {
        Ok(self.replica.grant(subject, role, None)?)
    }

    /// Ends every right that a device, a ticket or anyone has, and closes the tickets by which a device came in; of this
    /// device itself it gives them up. [`Replica::revoke`] has its errors.
    ///
    /// # Errors
    /// [`Error::Node`].
    pub fn revoke(&self, subject: Subject, leave: Leave) -> Result<Revoked, Error> {
        Ok(self.replica.revoke(subject, leave)?)
    }

    /// Devices that ask to be let in, and those that were rejected. Only an admin's device is asked.
    ///
    /// # Errors
    /// [`Error::Node`].
    pub fn requests(&self) -> Result<Vec<Asking>, Error> {
        Ok(self.replica.requests()?)
    }

    /// Lets in a device that asked, with this role or the one it asked for; [`Replica::reject`] refuses it instead.
    ///
    /// # Errors
    /// [`Error::Node`] when it does not ask, or asks to be an admin and no role is given.
    pub fn approve(&self, device: &NodeId, role: Option<Role>) -> Result<Role, Error> {
        Ok(self.replica.approve(device, role)?)
    }

    /// A ticket that lets other devices in, each with `role`, by way of `address`. Whoever has it is let in.
    ///
    /// # Errors
    /// [`Error::Node`] when this device is no admin.
    pub async fn ticket(&self, role: Role, address: &str) -> Result<Ticket, Error> {
        let offer = Offer {
            role,
            addresses: vec![address.to_owned()],
            limit: None,
            expires: None,
            folder: false,
            name: String::new(),
        };
        Ok(self.node.ticket(&self.replica, &offer).await?)
    }
}
