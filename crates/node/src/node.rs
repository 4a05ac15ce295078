//! The node: one device's home, its open replicas, and the ways they get in touch with others.

use crate::config::Settings;
use crate::device::{Device, random};
use crate::drive::{Opening, Progress, Refusal, Report, Task, Until};
use crate::engine::{Engine, Fate, Why};
use crate::error::NodeError;
use crate::home::{Home, INTENTS, PeerRecord, Record};
use crate::intent::Intent;
use crate::introduce::Wire;
use crate::notice::Notice;
use crate::pace::Pace;
use crate::replica::Replica;
use crate::runner::{Bounds, Hears, run};
use anabranch_core::author::Draft;
use anabranch_core::entry::Timestamp;
use anabranch_core::id::{DatabaseId, NodeId};
use anabranch_core::key::DeviceKey;
use anabranch_core::ops::{MemberOp, Role, Subject, TicketTerms};
use anabranch_core::storage::Storage;
use anabranch_core::ticket::Ticket;
use anabranch_store::{MemoryStorage, SqliteStorage};
use anabranch_sync::channel::Direction;
use anabranch_sync::frame::Code;
use anabranch_transport::secure::{StaticKey, accept, connect};
use anabranch_transport::{Address, HttpListener, Link, ListenAddr, TransportManager};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// A handle for watching and stopping a session; dropping it stops nothing.
#[derive(Debug, Clone)]
pub struct Control {
    /// Set to what moved, step by step.
    pub progress: watch::Sender<Progress>,
    /// Ends the session when it becomes true.
    pub stop: watch::Sender<bool>,
    /// Becomes true when the session is over.
    pub over: watch::Sender<bool>,
}

impl Control {
    async fn ended(&self) {
        // The sender is right here.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }
}

impl Default for Control {
    fn default() -> Self {
        Self {
            progress: watch::Sender::new(Progress::default()),
            stop: watch::Sender::new(false),
            over: watch::Sender::new(false),
        }
    }
}

/// One device: its key, its replicas, its way to others. Cheap to share.
pub struct Node {
    home: Option<Home>,
    device: Device,
    settings: Settings,
    transport: TransportManager,
    /// Fresh in every process, so that nothing on the network names the device.
    channel_key: StaticKey,
    open: Mutex<BTreeMap<DatabaseId, Open>>,
    /// Names of databases that live in memory only.
    volatile: Mutex<BTreeMap<String, Arc<Replica>>>,
    engine: Engine,
    bounds: Arc<Bounds>,
}

struct Open {
    replica: Arc<Replica>,
    storage: Arc<SqliteStorage>,
    notice: Option<Notice>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Node({:?})", self.id())
    }
}

impl Node {
    /// Opens the node whose home is `dir`, making it at the first start.
    ///
    /// # Errors
    /// [`NodeError`] when the home cannot be read or a setting does not fit.
    pub fn open(dir: impl AsRef<Path>) -> Result<Arc<Self>, NodeError> {
        let home = Home::open(dir.as_ref())?;
        let (settings, device) = (home.settings()?, Device::new(home.key().clone()));
        Self::new(Some(home), device, settings)
    }

    /// A node that keeps everything in memory, under a key of its own: for tests and short-lived programs.
    ///
    /// # Errors
    /// [`NodeError::Random`].
    pub fn in_memory() -> Result<Arc<Self>, NodeError> {
        let device = Device::new(DeviceKey::from_seed(&random()?));
        Self::in_memory_as(device, Settings::load(|_| None)?)
    }

    /// As [`Self::in_memory`], as this device and with these settings.
    ///
    /// # Errors
    /// [`NodeError::Setting`] when they do not go together.
    pub fn in_memory_as(device: Device, settings: Settings) -> Result<Arc<Self>, NodeError> {
        Self::new(None, device, settings)
    }

    fn new(home: Option<Home>, device: Device, settings: Settings) -> Result<Arc<Self>, NodeError> {
        let transport = TransportManager::new(settings.transport.clone())
            .map_err(|e| NodeError::Setting(e.to_string()))?;
        let (up, down) = settings.bandwidth;
        Ok(Arc::new(Self {
            home,
            device,
            engine: Engine::new(settings.catching_up),
            bounds: Arc::new(Bounds {
                up: Pace::new(up),
                down: Pace::new(down),
                opening: settings.open_timeout,
                stall: settings.stall_timeout,
                queue: settings.send_queue,
            }),
            settings,
            transport,
            channel_key: StaticKey::generate()?,
            open: Mutex::default(),
            volatile: Mutex::default(),
        }))
    }

    /// This device.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.device.id()
    }

    /// This device.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The home, unless everything is in memory.
    #[must_use]
    pub fn home(&self) -> Option<&Home> {
        self.home.as_ref()
    }

    /// Bytes of frames that sessions sent and received since the node was opened.
    #[must_use]
    pub fn bytes_passed(&self) -> (u64, u64) {
        (self.bounds.up.passed(), self.bounds.down.passed())
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The settings in force.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Makes a new database called `name`, with this device as its admin.
    ///
    /// # Errors
    /// [`NodeError::NameTaken`], [`NodeError::BadName`], or what storage reports.
    pub fn create(&self, name: &str) -> Result<Arc<Replica>, NodeError> {
        self.check_name(name)?;
        self.add(name, &[], None, None, |storage| Replica::found(storage, &self.device))
    }

    /// Sets up an empty replica of the database that `ticket` is for, called `name`; [`Self::join`] fills it. One that is
    /// there already is opened, so that joining again goes on.
    ///
    /// # Errors
    /// [`NodeError::NameTaken`], [`NodeError::BadName`], or what storage reports.
    pub fn prepare(&self, ticket: &Ticket, name: &str) -> Result<Arc<Replica>, NodeError> {
        if let Some(record) = self.record_of(ticket.database)?.filter(|r| !r.folder) {
            return self.open_record(&record);
        }
        self.check_name(name)?;
        let (database, seed) = (ticket.database, ticket.key.seed());
        self.add(name, &ticket.addresses, Some(seed), Some(database), |storage| {
            Replica::prepare(storage, database)?;
            Ok(database)
        })
    }

    fn add(
        &self,
        name: &str,
        addresses: &[String],
        ticket: Option<[u8; 32]>,
        known: Option<DatabaseId>,
        set_up: impl FnOnce(&dyn Storage) -> Result<DatabaseId, NodeError>,
    ) -> Result<Arc<Replica>, NodeError> {
        let Some(home) = &self.home else {
            let storage = Arc::new(MemoryStorage::with_instance(self.device.random()?));
            set_up(&*storage)?;
            let replica = Replica::open(storage, None, self.device.clone(), self.settings.replica)?;
            let mut volatile = self.volatile.lock().unwrap_or_else(PoisonError::into_inner);
            volatile.insert(name.to_owned(), Arc::clone(&replica));
            return Ok(replica);
        };
        let path = home.new_file(name)?;
        let storage = SqliteStorage::create(&path, self.settings.store.clone())?;
        let database = set_up(&storage)?;
        debug_assert!(known.is_none_or(|id| id == database));
        drop(storage);
        let record = Record {
            database,
            name: name.to_owned(),
            folder: false,
            path,
            intents: addresses.iter().map(Intent::new).collect(),
            ticket,
        };
        home.put_record(&record)?;
        self.open_record(&record)
    }

    fn check_name(&self, name: &str) -> Result<(), NodeError> {
        let good = |c: char| c.is_ascii_alphanumeric();
        let fits = (1..=64).contains(&name.len())
            && name.starts_with(good)
            && name.chars().all(|c| good(c) || "-_.".contains(c));
        if !fits {
            return Err(NodeError::BadName(name.chars().take(80).collect()));
        }
        if self.names()?.iter().any(|n| n == name) {
            return Err(NodeError::NameTaken(name.to_owned()));
        }
        Ok(())
    }

    fn names(&self) -> Result<Vec<String>, NodeError> {
        let volatile = self.volatile.lock().unwrap_or_else(PoisonError::into_inner);
        let mut names: Vec<String> = volatile.keys().cloned().collect();
        names.extend(self.records()?.into_iter().filter(|r| !r.folder).map(|r| r.name));
        Ok(names)
    }

    /// What is remembered of all replicas.
    ///
    /// # Errors
    /// [`NodeError::Core`].
    pub fn records(&self) -> Result<Vec<Record>, NodeError> {
        self.home.as_ref().map_or(Ok(Vec::new()), Home::records)
    }

    /// What is remembered of the replica of `database`.
    ///
    /// # Errors
    /// [`NodeError::Core`].
    pub fn record_of(&self, database: DatabaseId) -> Result<Option<Record>, NodeError> {
        Ok(self.records()?.into_iter().find(|r| r.database == database))
    }

    /// Opens the database with this name or id.
    ///
    /// # Errors
    /// [`NodeError::NoDatabase`], or what storage reports.
    pub fn database(&self, name: &str) -> Result<Arc<Replica>, NodeError> {
        if let Some(replica) =
            self.volatile.lock().unwrap_or_else(PoisonError::into_inner).get(name)
        {
            return Ok(Arc::clone(replica));
        }
        let record = self
            .records()?
            .into_iter()
            .find(|r| !r.folder && (r.name == name || r.database.to_string() == name))
            .ok_or_else(|| NodeError::NoDatabase(name.chars().take(80).collect()))?;
        self.open_record(&record)
    }

    /// Opens the database that `record` is about. All openings in this process share one replica.
    ///
    /// # Errors
    /// What storage reports.
    pub fn open_record(&self, record: &Record) -> Result<Arc<Replica>, NodeError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = open.get(&record.database) {
            return Ok(Arc::clone(&open.replica));
        }
        let storage = Arc::new(SqliteStorage::open(&record.path, self.settings.store.clone())?);
        let replica = Replica::open(
            Arc::clone(&storage) as Arc<dyn Storage>,
            None,
            self.device.clone(),
            self.settings.replica,
        )?;
        let shared = Arc::clone(&replica);
        open.insert(record.database, Open { replica, storage, notice: None });
        Ok(shared)
    }

    /// Notices from now on what other processes commit to `replica`. Without this only own commits are heard of.
    ///
    /// # Errors
    /// [`NodeError::File`] when the system cannot watch the file.
    pub fn notice_others(&self, replica: &Arc<Replica>) -> Result<(), NodeError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = open.get_mut(&replica.database())
            && open.notice.is_none()
        {
            open.notice = Some(Notice::start(replica, Arc::clone(&open.storage))?);
        }
        Ok(())
    }

    /// The file behind an open database.
    #[must_use]
    pub fn file_of(&self, database: DatabaseId) -> Option<Arc<SqliteStorage>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.get(&database).map(|open| Arc::clone(&open.storage))
    }

    /// Closes the replica of `database` here, so that its file can be moved or deleted.
    pub fn close(&self, database: DatabaseId) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&database);
    }

    /// Makes a ticket that lets one or more devices into the database of `replica`.
    ///
    /// # Errors
    /// [`NodeError::Core`] when this device is no admin of it.
    pub async fn ticket(&self, replica: &Replica, offer: &Offer) -> Result<Ticket, NodeError> {
        let key = DeviceKey::from_seed(&self.device.random()?);
        let lifetime = offer.expires.unwrap_or(self.settings.ticket_expires);
        let expires = self
            .device
            .now()
            .0
            .saturating_add(u64::try_from(lifetime.as_micros()).unwrap_or(u64::MAX));
        let op = MemberOp::Grant {
            subject: Subject::Ticket(key.node_id()),
            role: offer.role,
            priority: 0,
            terms: TicketTerms { limit: offer.limit, expires: Some(Timestamp(expires)) },
        };
        replica.commit(vec![Draft { members: vec![op], ..Draft::default() }]).await?;
        Ok(Ticket {
            addresses: offer.addresses.clone(),
            database: replica.database(),
            key,
            folder: offer.folder,
            name: offer.name.clone(),
        })
    }

    /// Connects to `address` and encrypts the link.
    ///
    /// # Errors
    /// [`NodeError::Connect`], [`NodeError::Handshake`].
    pub async fn dial(&self, address: &Address) -> Result<Wire, NodeError> {
        let link = self.transport.connect(address).await?;
        self.secure(link, true).await
    }

    /// Encrypts a link that is there already; `started` says whether this side started it.
    ///
    /// # Errors
    /// [`NodeError::Handshake`].
    pub async fn secure(&self, link: Link, started: bool) -> Result<Wire, NodeError> {
        let within = self.transport.limits().handshake_timeout;
        let secure = if started {
            connect(link, &self.channel_key, within).await?
        } else {
            accept(link, &self.channel_key, within).await?
        };
        Ok(secure.into())
    }

    /// Listens for links over HTTP. Only ever called because a user asked for it (I9).
    ///
    /// # Errors
    /// [`NodeError::Listen`].
    pub async fn listen(&self, address: ListenAddr) -> Result<HttpListener, NodeError> {
        Ok(self.transport.listen(address).await?)
    }

    /// Serves `replicas` to whoever comes to `listener`, until stopped. A peer's fault ends its own session only (I5).
    pub async fn serve(
        self: &Arc<Self>,
        mut listener: HttpListener,
        replicas: Vec<Arc<Replica>>,
        stop: watch::Receiver<bool>,
    ) {
        let mut stopping = stop.clone();
        let mut sessions = tokio::task::JoinSet::new();
        loop {
            let link = tokio::select! {
                link = self.next_link(&mut listener) => link,
                _ = stopping.wait_for(|stop| *stop) => None,
            };
            let Some(link) = link else { break };
            let (node, replicas, stop) = (Arc::clone(self), replicas.clone(), stop.clone());
            sessions.spawn(async move {
                let peer = link.peer().to_owned();
                if let Err(e) = node.serve_link(link, replicas, stop).await {
                    tracing::info!(peer, "a session ended: {e}");
                }
            });
            while sessions.try_join_next().is_some() {}
        }
        while sessions.join_next().await.is_some() {}
        listener.stop().await;
    }

    /// The next link that a peer opened, as [`HttpListener::accept`] gives it; that there was no place for others is noted
    /// meanwhile. May be cancelled.
    pub async fn next_link(&self, listener: &mut HttpListener) -> Option<Link> {
        let mut turns_away = listener.turns_away();
        loop {
            self.note_turned_away(listener.take_turned_away());
            tokio::select! {
                link = listener.accept() => return link,
                Ok(()) = turns_away.changed() => {}
            }
        }
    }

    /// Serves `replicas` on one link that a peer started, to its end.
    ///
    /// # Errors
    /// [`NodeError`]; the link is gone then.
    pub async fn serve_link(
        &self,
        link: Link,
        replicas: Vec<Arc<Replica>>,
        stop: watch::Receiver<bool>,
    ) -> Result<Report, NodeError> {
        let address = link.peer().to_owned();
        let (progress, seen) = watch::channel(Progress::default());
        let mut greets = seen.clone();
        let _visit = self.visit(&address, seen.clone());
        let serving = async {
            let wire = self.secure(link, false).await?;
            // At once: who is refused may stay on the link for as long as it likes.
            let who = seen.clone();
            let refusal = |refusal: &Refusal| {
                let Refusal { code, text, by_peer } = refusal.clone();
                let refused = NodeError::Session { code, text, by_peer };
                self.note_trouble(&address, who.borrow().peer, &refused);
            };
            self.serve_noted(wire, replicas, Hears { progress, refusal: &refusal }, stop).await
        };
        let greeted = async {
            if let Ok(now) = greets.wait_for(|now| now.peer.is_some()).await
                && let Some(peer) = now.peer
            {
                self.engine.is_back(peer);
            }
        };
        let (served, ()) = tokio::join!(serving, greeted);
        let device = seen.borrow().peer;
        match &served {
            Ok(report) => self.remember(report, &address),
            Err(e) => self.note_trouble(&address, device, e),
        }
        served
    }

    /// As [`Self::serve_link`], on a link that is encrypted already.
    ///
    /// # Errors
    /// [`NodeError::Session`] when either side ended it for a reason, [`NodeError::Link`] when the link broke.
    pub async fn serve_on(
        &self,
        wire: Wire,
        replicas: Vec<Arc<Replica>>,
        stop: watch::Receiver<bool>,
    ) -> Result<Report, NodeError> {
        let progress = watch::Sender::new(Progress::default());
        self.serve_noted(wire, replicas, Hears { progress, refusal: &|_| () }, stop).await
    }

    async fn serve_noted(
        &self,
        wire: Wire,
        replicas: Vec<Arc<Replica>>,
        hears: Hears<'_>,
        stop: watch::Receiver<bool>,
    ) -> Result<Report, NodeError> {
        let task = Task {
            device: self.device.clone(),
            served: replicas,
            openings: Vec::new(),
            until: Until::Closed,
        };
        run(task, wire, hears, stop, &self.bounds).await
    }

    /// Remembers that a peer was talked to at `address`.
    pub fn remember(&self, report: &Report, address: &str) {
        let peer = PeerRecord {
            device: report.peer,
            seen: self.device.now().0,
            address: address.to_owned(),
        };
        self.engine.is_back(report.peer);
        if let Some(home) = &self.home
            && let Err(e) = home.put_peer(&peer)
        {
            tracing::warn!("a peer could not be remembered: {e}");
        }
    }

    /// Syncs on a link that this side started.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn sync_on(
        &self,
        link: Wire,
        openings: Vec<Opening>,
        until: Until,
        control: &Control,
    ) -> Result<Report, NodeError> {
        let task = Task {
            device: self.device.clone(),
            served: openings.iter().map(|o| Arc::clone(&o.replica)).collect(),
            openings,
            until,
        };
        let hears = Hears { progress: control.progress.clone(), refusal: &|_| () };
        run(task, link, hears, control.stop.subscribe(), &self.bounds).await
    }

    /// Syncs one replica with the first of `addresses` that can be reached.
    ///
    /// # Errors
    /// [`NodeError::Unreachable`] when none can, else as [`Self::serve_on`].
    pub async fn sync(
        &self,
        opening: Opening,
        addresses: &[String],
        until: Until,
        control: &Control,
    ) -> Result<Report, NodeError> {
        let database = opening.replica.database();
        let (wire, address) = match self.reach(&opening.replica, addresses).await {
            Ok(reached) => reached,
            Err(e) => {
                addresses.iter().for_each(|address| self.note_fate(database, address, &Err(&e)));
                return Err(e);
            }
        };
        let result = self.sync_on(wire, vec![opening], until, control).await;
        self.note_fate(database, &address, &result.as_ref());
        if let Ok(report) = &result {
            self.remember(report, &address);
        }
        result
    }

    /// Writes down how it went with whoever is at `address`.
    fn note_fate(&self, database: DatabaseId, address: &str, result: &Result<&Report, &NodeError>) {
        let Some(home) = &self.home else { return };
        let now = self.device.now().0;
        let noted = home.fate(database, address).and_then(|fate| {
            let mut fate = fate.unwrap_or_default();
            match result {
                Ok(report) => {
                    fate = Fate { device: Some(report.peer), success: Some(now), failure: None };
                }
                Err(error) => {
                    fate.failed(now, &Why::of(error, fate.device.is_some()));
                }
            }
            home.put_fate(database, address, &fate)
        });
        if let Err(e) = noted {
            tracing::warn!("how it went with {address} could not be written down: {e}");
        }
    }

    /// A link to the first of `addresses` that can be reached, and which one that is.
    pub(crate) async fn reach(
        &self,
        replica: &Replica,
        addresses: &[String],
    ) -> Result<(Wire, String), NodeError> {
        let mut attempts = Vec::new();
        for text in addresses {
            let attempt = async {
                let address = Address::parse(text)?;
                let mut wire = self.dial(&address).await?;
                if let Address::Ssh(_) = address {
                    wire.introduce_member(replica).await?;
                }
                Ok::<_, NodeError>(wire)
            };
            match attempt.await {
                Ok(wire) => return Ok((wire, text.clone())),
                Err(e) => attempts.push((text.clone(), e)),
            }
        }
        Err(NodeError::Unreachable { database: replica.database(), attempts })
    }

    /// Syncs two replicas of one database that are both open here, over a link in memory.
    ///
    /// # Errors
    /// [`NodeError::Session`] when either side ended it for a reason, [`NodeError::Link`] when the link broke.
    pub async fn sync_local(
        &self,
        here: Opening,
        there: Arc<Replica>,
        control: &Control,
    ) -> Result<Report, NodeError> {
        let (a, b) = anabranch_transport::memory::pair(16);
        let (stop, stopped) = watch::channel(false);
        let serve = self.serve_link(b, vec![there], stopped);
        let sync = async {
            let result = match self.secure(a, true).await {
                Ok(link) => self.sync_on(link, vec![here], Until::Settled, control).await,
                Err(e) => Err(e),
            };
            stop.send_replace(true);
            result
        };
        let (served, synced) = tokio::join!(serve, sync);
        match (synced, served) {
            (Ok(report), _) => Ok(report),
            // The side that noticed first says why.
            (Err(NodeError::Link(_)), Err(e)) => Err(e),
            (
                Err(NodeError::Session { code: Code::Internal | Code::Full, .. }),
                Ok(Report { failed: Some(why), .. }),
            ) => {
                let text = format!("the other replica could not go on: {why}");
                Err(NodeError::Session { code: Code::Internal, text, by_peer: true })
            }
            (Err(e), _) => Err(e),
        }
    }

    /// Joins with `ticket`: fills `replica` and makes this device a member. Repeating it goes on where it stopped.
    ///
    /// # Errors
    /// [`NodeError::Unreachable`], [`NodeError::Session`] with the reason when the ticket is refused.
    pub async fn join(
        &self,
        replica: &Arc<Replica>,
        ticket: &Ticket,
        control: &Control,
    ) -> Result<Report, NodeError> {
        let (wire, address) = self.reach(replica, &ticket.addresses).await?;
        let result = self.join_on(wire, replica, ticket, control).await;
        self.note_fate(replica.database(), &address, &result.as_ref());
        if let Ok(report) = &result {
            self.remember(report, &address);
        }
        result
    }

    /// As [`Self::join`], on a link that this side started.
    ///
    /// # Errors
    /// As [`Self::join`].
    pub async fn join_on(
        &self,
        wire: Wire,
        replica: &Arc<Replica>,
        ticket: &Ticket,
        control: &Control,
    ) -> Result<Report, NodeError> {
        let opening = Opening {
            replica: Arc::clone(replica),
            direction: Direction::BOTH,
            ticket: Some(ticket.key.clone()),
        };
        let sync = async {
            let result = self.sync_on(wire, vec![opening], Until::Settled, control).await;
            control.over.send_replace(true);
            result
        };
        let (report, redeemed) = tokio::join!(sync, self.redeem(replica, ticket, control));
        let report = report?;
        redeemed?;
        if report.progress.told {
            self.joined(replica.database())?;
        }
        Ok(report)
    }

    /// Syncs one replica on a link on which the other end asks for it, until both are settled.
    ///
    /// # Errors
    /// [`NodeError::Session`] when either side ended it for a reason, [`NodeError::Link`] when the link broke.
    pub async fn answer_on(
        &self,
        wire: Wire,
        replica: &Arc<Replica>,
        control: &Control,
    ) -> Result<Report, NodeError> {
        let task = Task {
            device: self.device.clone(),
            served: vec![Arc::clone(replica)],
            openings: Vec::new(),
            until: Until::Settled,
        };
        let hears = Hears { progress: control.progress.clone(), refusal: &|_| () };
        run(task, wire, hears, control.stop.subscribe(), &self.bounds).await
    }

    /// Waits until the session that `control` watches has brought everything, then redeems `ticket`; peers wait for it and
    /// hear of it on the same session. Ends without a result when the session does.
    ///
    /// # Errors
    /// [`NodeError::Core`].
    pub async fn redeem(
        &self,
        replica: &Arc<Replica>,
        ticket: &Ticket,
        control: &Control,
    ) -> Result<(), NodeError> {
        let hold = replica.hold();
        let mut progress = control.progress.subscribe();
        tokio::select! {
            settled = progress.wait_for(|p| p.settled) => if settled.is_err() { return Ok(()) },
            () = control.ended() => return Ok(()),
        }
        let (key, joining) = (ticket.key.clone(), Arc::clone(replica));
        tokio::task::spawn_blocking(move || joining.redeem(&key))
            .await
            .map_err(|_| NodeError::Closed)??;
        drop(hold);
        Ok(())
    }

    /// Forgets the ticket by which a replica joined. Not before a peer knows that it did: to one that does not, and is not
    /// known as a member here either, the ticket is all there is to show.
    fn joined(&self, database: DatabaseId) -> Result<(), NodeError> {
        let Some(home) = &self.home else { return Ok(()) };
        for mut record in home.records()?.into_iter().filter(|r| r.database == database) {
            if record.ticket.take().is_some() {
                home.put_record(&record)?;
            }
        }
        Ok(())
    }

    /// Declares with whom a replica is to be kept in step; what was declared of the same address before is replaced.
    ///
    /// # Errors
    /// [`NodeError::Setting`] for an intent that makes no sense or is one too many, [`NodeError::Core`].
    pub fn declare(&self, record: &Record, intent: Intent) -> Result<(), NodeError> {
        intent.check()?;
        let Some(home) = &self.home else { return Ok(()) };
        let mut record = record.clone();
        match record.intents.iter_mut().find(|other| other.address == intent.address) {
            Some(other) => *other = intent,
            None => record.intents.insert(0, intent),
        }
        if record.intents.len() > INTENTS {
            let text = format!("a replica has at most {INTENTS} addresses; remove one first");
            return Err(NodeError::Setting(text));
        }
        home.put_record(&record)
    }

    /// Takes a declaration back. False when there was none for this address.
    ///
    /// # Errors
    /// [`NodeError::Core`].
    pub fn withdraw(&self, record: &Record, address: &str) -> Result<bool, NodeError> {
        let Some(home) = &self.home else { return Ok(false) };
        let mut record = record.clone();
        let before = record.intents.len();
        record.intents.retain(|intent| intent.address != address);
        if record.intents.len() == before {
            return Ok(false);
        }
        home.put_record(&record)?;
        Ok(true)
    }

    /// Remembers an address at which a replica can be synced, the latest first.
    ///
    /// # Errors
    /// [`NodeError::Core`].
    pub fn remember_address(&self, record: &Record, address: &str) -> Result<(), NodeError> {
        let Some(home) = &self.home else { return Ok(()) };
        if record.addresses().next().is_some_and(|a| a == address) {
            return Ok(());
        }
        let mut record = record.clone();
        let known = record.intents.iter().position(|intent| intent.address == address);
        let intent = known.map_or_else(|| Intent::new(address), |at| record.intents.remove(at));
        record.intents.insert(0, intent);
        record.intents.truncate(INTENTS);
        home.put_record(&record)
    }

    /// Forgets a replica and, for a database, deletes its file.
    ///
    /// # Errors
    /// [`NodeError::File`] when the file cannot be deleted.
    pub fn forget(&self, record: &Record) -> Result<(), NodeError> {
        let Some(home) = &self.home else { return Ok(()) };
        self.close(record.database);
        home.remove_record(record)?;
        if record.folder {
            return Ok(());
        }
        for suffix in ["", "-wal", "-shm"] {
            let mut file = record.path.clone().into_os_string();
            file.push(suffix);
            match std::fs::remove_file(&file) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(NodeError::file(file, e));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// What a new ticket offers.
#[derive(Debug, Clone)]
pub struct Offer {
    /// The role it gives.
    pub role: Role,
    /// Where the database is served.
    pub addresses: Vec<String>,
    /// How many devices may redeem it; `None`: any number.
    pub limit: Option<u32>,
    /// How long it can be used; `None`: as configured.
    pub expires: Option<Duration>,
    /// Whether a folder is shared.
    pub folder: bool,
    /// What the sharer calls it.
    pub name: String,
}
