//! The background engine: it keeps replicas in step with peers as was declared, for ever, and says how each stands and why.
//!
//! Each replica and peer has a keeper of its own, with a link of its own: a fault, a slow peer or a huge database keeps
//! nobody else waiting (I5). What is shared is counted: how many catch up at once, and how fast bytes pass.

mod attempts;
mod declared;
mod fate;
mod keeper;
mod slots;
mod standing;
mod visitors;
mod why;

pub use attempts::{Attempts, Ending};
pub use declared::Replicas;
pub use fate::Fate;
pub use standing::{Standing, State};
pub use visitors::{Trouble, Visitor};
pub use why::Why;

use crate::drive::Progress;
use crate::error::NodeError;
use crate::intent::{Intent, Priority};
use crate::node::Node;
use crate::replica::Replica;
use anabranch_core::id::NodeId;
use anabranch_sync::channel::Direction;
use keeper::Keeper;
use slots::Slots;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, broadcast, watch};
use tokio::task::JoinHandle;
use visitors::Visitors;

/// Told of each change: how it stands, and what happened.
pub type Tell = Arc<dyn Fn(&Standing, &Kept) + Send + Sync>;

/// What happened to a connection.
#[derive(Debug, Clone)]
pub enum Kept {
    /// Everything that either side had is on both.
    InStep,
    /// The peer was lost, or not reached.
    Lost {
        /// Why.
        why: Why,
        /// When it is tried again.
        again_in: Duration,
    },
}

/// A replica, and the peer with which it is to be kept in step.
#[derive(Clone)]
pub struct Target {
    /// The replica here.
    pub replica: Arc<Replica>,
    /// What it is called here.
    pub name: String,
    /// Where the peer may be, in the order in which it is tried.
    pub addresses: Vec<String>,
    /// Which ways entries go.
    pub direction: Direction,
    /// How often; `None`: it stays connected.
    pub every: Option<Duration>,
    /// Who goes first.
    pub priority: Priority,
    /// Seed of a ticket by which this device still has to join.
    pub ticket: Option<[u8; 32]>,
    /// Who is told of changes.
    pub tell: Tell,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Target({:?}, {:?})", self.replica, self.addresses)
    }
}

impl Target {
    /// `replica`, called `name`, as `intent` says.
    #[must_use]
    pub fn new(replica: Arc<Replica>, name: &str, intent: &Intent) -> Self {
        Self {
            replica,
            name: name.to_owned(),
            addresses: vec![intent.address.clone()],
            direction: intent.direction,
            every: intent.every,
            priority: intent.priority,
            ticket: None,
            tell: Arc::new(|_, _| ()),
        }
    }
}

/// What all keepers of a node share.
#[derive(Debug)]
pub(crate) struct Engine {
    slots: Slots,
    /// Peers that were just reached.
    back: broadcast::Sender<NodeId>,
    visitors: Visitors,
    standings: Mutex<Vec<Weak<watch::Sender<Standing>>>>,
}

impl Engine {
    pub(crate) fn new(catching_up: usize) -> Self {
        let (back, _) = broadcast::channel(64);
        Self {
            slots: Slots::new(catching_up),
            back,
            visitors: Visitors::default(),
            standings: Mutex::default(),
        }
    }

    /// A peer was reached, or came: who waits for it tries at once.
    pub(crate) fn is_back(&self, peer: NodeId) {
        // Nobody may be waiting.
        let _ = self.back.send(peer);
    }
}

/// Work in the background on one replica and peer. Dropping it ends the work.
#[derive(Debug)]
pub struct SyncHandle {
    standing: watch::Receiver<Standing>,
    stop: watch::Sender<bool>,
    nudge: Arc<Notify>,
    task: JoinHandle<()>,
}

impl SyncHandle {
    /// How it stands now.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// Waits until it stands otherwise than when this or [`Self::standing`] was called last.
    pub async fn changed(&mut self) {
        if self.standing.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until everything that either side has is on both.
    ///
    /// # Errors
    /// [`NodeError::Closed`] when the work ended before.
    pub async fn in_step(&mut self) -> Result<Standing, NodeError> {
        let there = |s: &Standing| {
            matches!(s.state, State::InStep | State::Resting { .. } | State::Stopped)
        };
        let standing = self.standing.wait_for(there).await.map_err(|_| NodeError::Closed)?.clone();
        match standing.state {
            State::Stopped => Err(NodeError::Closed),
            _ => Ok(standing),
        }
    }

    /// Tries now what would be tried later.
    pub fn try_now(&self) {
        self.nudge.notify_one();
    }

    /// Ends the work in good order.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        // A task that failed has nothing left to stop.
        let _ = (&mut self.task).await;
    }
}

impl Drop for SyncHandle {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

impl Node {
    /// Keeps `target` in step in the background until the result is dropped or stopped. An error is told and never ends it.
    #[must_use]
    pub fn keep(self: &Arc<Self>, mut target: Target) -> SyncHandle {
        let database = target.replica.database();
        let known = |address: &String| {
            self.home().and_then(|home| home.fate(database, address).ok().flatten())
        };
        let fates: Vec<Fate> = target.addresses.iter().filter_map(known).collect();
        let standing = Standing {
            database,
            name: target.name.clone(),
            addresses: target.addresses.clone(),
            device: fates.iter().find_map(|fate| fate.device),
            state: State::Connecting,
            since: Instant::now(),
            progress: Progress::default(),
            last_success: fates.iter().filter_map(|fate| fate.success).max(),
            last_error: None,
            building: target.replica.unbuilt(),
        };
        let (sender, receiver) = watch::channel(standing);
        let sender = Arc::new(sender);
        let mut all = self.engine().standings.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(&sender));
        drop(all);
        let (stop, stopped) = watch::channel(false);
        let nudge = Arc::new(Notify::new());
        let keeper = Keeper {
            attempts: Attempts::new(
                std::mem::take(&mut target.addresses),
                target.every,
                self.settings().retry,
            ),
            node: Arc::clone(self),
            target,
            standing: sender,
            stop: stopped,
            nudge: Arc::clone(&nudge),
            said: None,
            asks: false,
        };
        let task = tokio::spawn(keeper.run());
        SyncHandle { standing: receiver, stop, nudge, task }
    }

    /// How everything stands that is kept in step in this process, by name.
    #[must_use]
    pub fn standings(&self) -> Vec<Standing> {
        let all = self.engine().standings.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found: Vec<Standing> =
            all.iter().filter_map(Weak::upgrade).map(|sender| sender.borrow().clone()).collect();
        drop(all);
        found.sort_by(|a, b| (&a.name, &a.addresses).cmp(&(&b.name, &b.addresses)));
        found
    }
}
