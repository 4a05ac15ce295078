//! The node: one device's home, its open replicas, and what is declared of them.

mod sessions;

pub use sessions::Control;

use crate::config::Settings;
use crate::device::{Device, random};
use crate::engine::Engine;
use crate::error::NodeError;
use crate::home::{Home, INTENTS, Record};
use crate::intent::Intent;
use crate::key_file::new_key;
use crate::locked::Passphrase;
use crate::notice::Notice;
use crate::pace::Pace;
use crate::replica::Replica;
use crate::runner::Bounds;
use anabranch_core::author::Draft;
use anabranch_core::entry::Timestamp;
use anabranch_core::founding::Founding;
use anabranch_core::id::{DatabaseId, NodeId};
use anabranch_core::key::DeviceKey;
use anabranch_core::ops::{MemberOp, Role, Subject, TicketTerms};
use anabranch_core::seal::Scope;
use anabranch_core::storage::Storage;
use anabranch_core::ticket::Ticket;
use anabranch_store::{MemoryStorage, SqliteStorage};
use anabranch_sync::frame::Request;
use anabranch_transport::TransportManager;
use anabranch_transport::secure::StaticKey;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

/// What a new database is made with.
#[derive(Debug, Clone, Default)]
pub struct NewDatabase<'f> {
    /// A new key, by which another device can become admin should this one be lost ([`Replica::recover`]), is written to this
    /// file.
    pub recovery: Option<&'f Path>,
    /// What of it is sealed: relays pass that on without being able to read it.
    pub sealed: Scope,
}

/// One device: its key, its replicas, its way to others. Cheap to share.
pub struct Node {
    this: Weak<Self>,
    home: Option<Home>,
    device: Device,
    settings: Settings,
    transport: TransportManager,
    /// Fresh in every process, so that nothing on the network names the device.
    channel_key: StaticKey,
    open: Mutex<BTreeMap<DatabaseId, Open>>,
    /// Replicas that others opened, such as folders.
    adopted: Mutex<Vec<Weak<Replica>>>,
    /// Names of databases that live in memory only.
    volatile: Mutex<BTreeMap<String, Arc<Replica>>>,
    /// By which a node in memory asks to be let in.
    asking: Mutex<BTreeMap<DatabaseId, Request>>,
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
        Self::open_with(dir, || Ok(None))
    }

    /// As [`Self::open`]; `passphrase` is called if the key is locked, and gives what unlocks it.
    ///
    /// # Errors
    /// As [`Self::open`] and [`Home::open_with`].
    pub fn open_with(
        dir: impl AsRef<Path>,
        passphrase: impl FnOnce() -> Result<Option<Passphrase>, NodeError>,
    ) -> Result<Arc<Self>, NodeError> {
        let home = Home::open_with(dir.as_ref(), passphrase)?;
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
        let channel_key = StaticKey::generate()?;
        Ok(Arc::new_cyclic(|this| Self {
            this: Weak::clone(this),
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
            channel_key,
            open: Mutex::default(),
            adopted: Mutex::default(),
            volatile: Mutex::default(),
            asking: Mutex::default(),
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
        self.add(name, &[], None, |storage| Replica::found(storage, &self.device))
    }

    /// As [`Self::create`], with `terms`.
    ///
    /// # Errors
    /// As [`Self::create`]; [`NodeError::KeyTaken`] when there is the file for a key already.
    pub fn create_with(
        &self,
        name: &str,
        terms: NewDatabase<'_>,
    ) -> Result<Arc<Replica>, NodeError> {
        self.check_name(name)?;
        self.add(name, &[], None, |storage| {
            let recovery = terms.recovery.map(new_key).transpose()?.map(|key| key.node_id());
            let founding = Founding { recovery, sealed: terms.sealed };
            Replica::found_with(storage, &self.device, founding)
        })
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
        self.add(name, &ticket.addresses, Some(seed), |storage| {
            Replica::prepare(storage, database)?;
            Ok(database)
        })
    }

    /// Sets up an empty replica of `database`, called `name`, to be filled by whoever is at `address` once this device was
    /// let in there ([`Self::ask`]). One that is there already is opened.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub fn prepare_asking(
        &self,
        database: DatabaseId,
        address: &str,
        name: &str,
    ) -> Result<Arc<Replica>, NodeError> {
        if let Some(record) = self.record_of(database)?.filter(|r| !r.folder) {
            self.remember_address(&record, address)?;
            return self.open_record(&record);
        }
        self.check_name(name)?;
        self.add(name, &[address.to_owned()], None, |storage| {
            Replica::prepare(storage, database)?;
            Ok(database)
        })
    }

    fn add(
        &self,
        name: &str,
        addresses: &[String],
        ticket: Option<[u8; 32]>,
        set_up: impl FnOnce(&dyn Storage) -> Result<DatabaseId, NodeError>,
    ) -> Result<Arc<Replica>, NodeError> {
        let Some(home) = &self.home else {
            let storage = Arc::new(MemoryStorage::with_instance(self.device.random()?));
            set_up(&*storage)?;
            let replica = Replica::open(storage, None, self.device.clone(), self.settings.replica)?;
            replica.belongs_to(Weak::clone(&self.this));
            let mut volatile = self.volatile.lock().unwrap_or_else(PoisonError::into_inner);
            volatile.insert(name.to_owned(), Arc::clone(&replica));
            return Ok(replica);
        };
        let path = home.new_file(name)?;
        let storage = SqliteStorage::create(&path, self.settings.store.clone())?;
        let database = set_up(&storage)?;
        drop(storage);
        let record = Record {
            database,
            name: name.to_owned(),
            folder: false,
            path,
            intents: addresses.iter().map(Intent::new).collect(),
            ticket,
            request: None,
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
        replica.belongs_to(Weak::clone(&self.this));
        let shared = Arc::clone(&replica);
        open.insert(record.database, Open { replica, storage, notice: None });
        Ok(shared)
    }

    /// A replica that was opened elsewhere, with this node's device, is one of this node's.
    pub fn adopt(&self, replica: &Arc<Replica>) {
        replica.belongs_to(Weak::clone(&self.this));
        let mut adopted = self.adopted.lock().unwrap_or_else(PoisonError::into_inner);
        adopted.retain(|held| held.strong_count() > 0);
        adopted.push(Arc::downgrade(replica));
    }

    /// The replica of that database, if it is in use in this process.
    pub(crate) fn used(&self, database: DatabaseId) -> Option<Arc<Replica>> {
        let is = |replica: &Arc<Replica>| replica.database() == database;
        let volatile = self.volatile.lock().unwrap_or_else(PoisonError::into_inner);
        let found = volatile.values().find(|replica| is(replica)).cloned();
        drop(volatile);
        let adopted = self.adopted.lock().unwrap_or_else(PoisonError::into_inner);
        found.or_else(|| adopted.iter().filter_map(Weak::upgrade).find(is))
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
            priority: replica.own_priority()?,
            terms: TicketTerms { limit: offer.limit, expires: Some(Timestamp(expires)) },
        };
        replica.commit(vec![Draft { members: vec![op], ..Draft::default() }]).await?;
        // Whoever gets the ticket may be here before the next signature would be.
        replica.sign_soon().await?;
        Ok(Ticket {
            addresses: offer.addresses.clone(),
            database: replica.database(),
            key,
            folder: offer.folder,
            name: offer.name.clone(),
        })
    }

    /// Declares with whom a replica is to be kept in step; what was declared of the same address before is replaced.
    ///
    /// # Errors
    /// [`NodeError::Setting`] for an intent that makes no sense or is one too many, [`NodeError::Core`].
    pub fn declare(&self, record: &Record, intent: Intent) -> Result<(), NodeError> {
        intent.check()?;
        let Some(home) = &self.home else { return Ok(()) };
        home.change_record(record, |record| {
            match record.intents.iter_mut().find(|other| other.address == intent.address) {
                Some(other) => *other = intent,
                None => record.intents.insert(0, intent),
            }
            if record.intents.len() > INTENTS {
                let text = format!("a replica has at most {INTENTS} addresses; remove one first");
                return Err(NodeError::Setting(text));
            }
            Ok(())
        })
        .map(Option::unwrap_or_default)
    }

    /// Takes a declaration back. False when there was none for this address.
    ///
    /// # Errors
    /// [`NodeError::Core`].
    pub fn withdraw(&self, record: &Record, address: &str) -> Result<bool, NodeError> {
        let Some(home) = &self.home else { return Ok(false) };
        let withdrawn = home.change_record(record, |record| {
            let before = record.intents.len();
            record.intents.retain(|intent| intent.address != address);
            Ok(record.intents.len() < before)
        })?;
        Ok(withdrawn.unwrap_or_default())
    }

    /// Remembers an address at which a replica can be synced, the latest first.
    ///
    /// # Errors
    /// [`NodeError::Core`].
    pub fn remember_address(&self, record: &Record, address: &str) -> Result<(), NodeError> {
        let Some(home) = &self.home else { return Ok(()) };
        home.change_record(record, |record| {
            let known = record.intents.iter().position(|intent| intent.address == address);
            let intent = known.map_or_else(|| Intent::new(address), |at| record.intents.remove(at));
            record.intents.insert(0, intent);
            record.intents.truncate(INTENTS);
            Ok(())
        })
        .map(Option::unwrap_or_default)
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
