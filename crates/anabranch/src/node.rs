//! The node as an application holds it.

use crate::{Database, Error};
use anabranch_core::id::{DatabaseId, NodeId};
use anabranch_core::ticket::Ticket;
use anabranch_node::{
    Control, NewDatabase, Node as Inner, NodeError, Passphrase, SyncHandle, Target,
};
use anabranch_sync::frame::Request;
use anabranch_transport::ListenAddr;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;

/// This device's node: its databases and its way to other devices. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Node(Arc<Inner>);

/// A listener that serves databases. Dropping it stops serving.
#[derive(Debug)]
pub struct Serving {
    address: SocketAddr,
    stop: watch::Sender<bool>,
}

impl Serving {
    /// Where it listens, as others write it.
    #[must_use]
    pub fn address(&self) -> String {
        anabranch_transport::Address::of_listener(self.address).to_string()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

impl From<Arc<Inner>> for Node {
    fn from(inner: Arc<Inner>) -> Self {
        Self(inner)
    }
}

impl Node {
    /// Opens the node whose state is in `dir`, making it at the first start.
    ///
    /// # Errors
    /// [`Error::Node`].
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, Error> {
        Ok(Self(Inner::open(dir)?))
    }

    /// As [`Self::open`], where the device's key is locked by a passphrase.
    ///
    /// # Errors
    /// [`Error::Node`], also when the passphrase is wrong.
    pub fn open_locked(dir: impl AsRef<Path>, passphrase: &Passphrase) -> Result<Self, Error> {
        Ok(Self(Inner::open_with(dir, || Ok(Some(passphrase.clone())))?))
    }

    /// A node that keeps everything in memory.
    ///
    /// # Errors
    /// [`Error::Node`] when the system gives no random numbers.
    pub fn in_memory() -> Result<Self, Error> {
        Ok(Self(Inner::in_memory()?))
    }

    /// This device.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.0.id()
    }

    /// The node underneath.
    #[must_use]
    pub fn inner(&self) -> &Arc<Inner> {
        &self.0
    }

    /// Makes a new database called `name` on this device.
    ///
    /// # Errors
    /// [`Error::Node`] when the name is taken.
    pub fn create(&self, name: &str) -> Result<Database, Error> {
        Ok(Database::new(Arc::clone(&self.0), self.0.create(name)?))
    }

    /// As [`Self::create`], sealed or with a key for recovery.
    ///
    /// ```
    /// # use anabranch::{NewDatabase, Node, Sealed, Table};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let node = Node::in_memory()?;
    /// let terms = NewDatabase { sealed: Sealed::Everything, ..NewDatabase::default() };
    /// let diary = node.create_with("diary", terms)?;
    /// let days: Table<String> = diary.table("days");
    /// # _ = days;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Self::create`]; [`Error::Node`] when there is the file for a key already.
    pub fn create_with(&self, name: &str, terms: NewDatabase<'_>) -> Result<Database, Error> {
        Ok(Database::new(Arc::clone(&self.0), self.0.create_with(name, terms)?))
    }

    /// Opens the database called `name` on this device.
    ///
    /// # Errors
    /// [`Error::Node`] when there is none.
    pub fn database(&self, name: &str) -> Result<Database, Error> {
        Ok(Database::new(Arc::clone(&self.0), self.0.database(name)?))
    }

    /// Joins the database that `ticket` is for and calls it `name` here: fetches everything and becomes a member. After a
    /// failure, joining again goes on where it stopped.
    ///
    /// # Errors
    /// [`Error::Node`] when no address of the ticket works or it is refused.
    pub async fn join(&self, ticket: &Ticket, name: &str) -> Result<Database, Error> {
        let replica = self.0.prepare(ticket, name)?;
        self.0.join(&replica, ticket, &Control::default()).await?;
        Ok(Database::new(Arc::clone(&self.0), replica))
    }

    /// Asks to be let in to `database` at `address` and calls it `name` here. It is empty until an admin there has approved
    /// that: [`Database::sync_with`] tells, and [`Database::keep_in_step`] goes on by itself.
    ///
    /// # Errors
    /// [`Error::Node`] when the name is taken or the request says too much.
    pub fn ask(
        &self,
        database: DatabaseId,
        address: &str,
        name: &str,
        request: Request,
    ) -> Result<Database, Error> {
        let replica = self.0.prepare_asking(database, address, name)?;
        self.0.ask(database, request)?;
        Ok(Database::new(Arc::clone(&self.0), replica))
    }

    /// Keeps every database of this node in step with its peers as was declared, in the background, until the results are
    /// dropped.
    ///
    /// # Errors
    /// [`Error::Node`] when the home or a database cannot be read.
    pub fn resume(&self) -> Result<Vec<SyncHandle>, Error> {
        let mut handles = Vec::new();
        for record in self.0.records()?.iter().filter(|record| !record.folder) {
            let replica = self.0.open_record(record)?;
            for intent in &record.intents {
                let mut target = Target::new(Arc::clone(&replica), &record.name, intent);
                target.ticket = record.ticket;
                handles.push(self.0.keep(target));
            }
        }
        Ok(handles)
    }

    /// Serves `databases` over HTTP at `listen` (a port, which binds loopback, or an address with a port) until the
    /// result is dropped.
    ///
    /// # Errors
    /// [`Error::Node`] when the address cannot be bound.
    pub async fn serve(&self, listen: &str, databases: &[&Database]) -> Result<Serving, Error> {
        let address: ListenAddr =
            listen.parse().map_err(|e| NodeError::Setting(format!("{listen}: {e}")))?;
        let listener = self.0.listen(address).await?;
        let (stop, stopped) = watch::channel(false);
        let serving = Serving { address: listener.local_addr(), stop };
        let (node, replicas) =
            (Arc::clone(&self.0), databases.iter().map(|d| Arc::clone(d.replica())).collect());
        tokio::spawn(async move { node.serve(listener, replicas, stopped).await });
        Ok(serving)
    }
}
