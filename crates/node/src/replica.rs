//! An open replica of one database: its storage, the thread that commits for it, and everybody who wants to hear of a
//! change. Reads go straight to storage; writes are gathered into groups (see [`crate::writer`]).

use crate::claims::{Claims, Order, Source, Stand};
use crate::committer::{Committed, Committer, LastKnown};
use crate::contents::Gather;
use crate::device::Device;
use crate::error::NodeError;
use crate::node::Node;
use crate::requests::RequestLimits;
use crate::sealing::Sealing;
use crate::signal::Signal;
use crate::wants::{ClaimId, GATHER, READERS, SessionId, WORKER, Wants};
use crate::writer::{Commit, Writer};
use anabranch_core::author::{Author, Draft};
use anabranch_core::awaited::keep_elsewhere;
use anabranch_core::blob::ChunkHash;
use anabranch_core::build;
use anabranch_core::entry::{Entry, StoreId};
use anabranch_core::founding::{Founding, create};
use anabranch_core::id::{DatabaseId, Position};
use anabranch_core::key::DeviceKey;
use anabranch_core::ledger::{Ledger, found};
use anabranch_core::sabotage::{self, Bug};
use anabranch_core::seal::Scope;
use anabranch_core::storage::{Durability, ReadTx, Storage, StorageError, Table, WriteTx};
use anabranch_core::view::View;
use anabranch_sync::pending::Pending;
use anabranch_sync::summed::LastSummed;
use anabranch_sync::work::{Authors, Blobs};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};

/// Blobs kept in the database file itself.
struct TableBlobs(Arc<dyn Storage>);

impl Blobs for TableBlobs {
    fn get(&self, hash: &ChunkHash) -> Result<Option<Vec<u8>>, StorageError> {
        self.0.read()?.get(Table::Blob, &hash.0)
    }

    fn put(&self, blobs: &[(ChunkHash, Vec<u8>)]) -> Result<(), StorageError> {
        // A blob lost to a power failure is fetched again, so it need not be on disk at once.
        let mut tx = self.0.write(Durability::Normal)?;
        for (hash, bytes) in blobs {
            tx.put(Table::Blob, &hash.0, bytes)?;
        }
        tx.commit()
    }
}

/// An open replica. Cheap to share; closed when the last handle is gone.
pub struct Replica {
    database: DatabaseId,
    this: Weak<Self>,
    /// Whose it is; nobody's in tests and simulations of a single replica.
    node: OnceLock<Weak<Node>>,
    /// How often the membership had changed when another process last committed something.
    members_seen: AtomicU64,
    committer: Committer,
    blobs: Arc<dyn Blobs>,
    /// Whether blobs are in the storage and nowhere else.
    stores_blobs: bool,
    pub(crate) gather: Gather,
    /// How many readers there were.
    readers: AtomicU64,
    pub(crate) pending: Mutex<Pending>,
    pub(crate) summed: LastSummed,
    pub(crate) bulk: Bulk,
    pub(crate) sum_from: usize,
    pub(crate) request_limits: RequestLimits,
    /// Held while a device asks to be let in.
    pub(crate) asking: Mutex<()>,
    pub(crate) put_bytes: usize,
    /// Entries whose cells are still to be built, as far as this process knows.
    unbuilt: AtomicU64,
    pub(crate) sealing: Sealing,
    /// Whether a session has a stretch of them built.
    building: AtomicBool,
    /// Started by the first commit that needs it.
    writer: OnceLock<Writer>,
    /// What an earlier process left unsigned could not be signed when this was opened.
    unsigned: bool,
    version: watch::Sender<u64>,
    /// Counts blobs that came and refusals.
    blobs_moved: Mutex<u64>,
    blob_bell: Condvar,
    signals: Mutex<Vec<Weak<Signal>>>,
    wants: Mutex<Wants>,
    claims: Mutex<Claims>,
    /// Whether something in this process works on what arrives, and up to which version it has.
    worker: AtomicBool,
    worked: AtomicU64,
    holds: AtomicUsize,
    /// Storage work of sessions that may go on at once.
    pub(crate) turns: Arc<Semaphore>,
    /// Sessions whose entries are still under way.
    unsettled: watch::Sender<BTreeSet<SessionId>>,
}

/// Storage work of sessions with one replica that goes on at once: as much as there are cores, within these bounds. The rest
/// waits in order, without a thread. As many as the upper one may read a database file.
const AT_ONCE: std::ops::RangeInclusive<usize> = 4..=8;

fn at_once() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    cores.clamp(*AT_ONCE.start(), *AT_ONCE.end())
}

/// How a replica is opened.
#[derive(Debug, Clone, Copy)]
pub struct ReplicaOptions {
    /// How safe commits are before they are acknowledged. What comes from peers is always fully durable.
    pub durability: Durability,
    /// Bytes of runs that may wait for what they build on.
    pub pending_bytes: usize,
    /// How much that arrives at once is loaded.
    pub bulk: Bulk,
    /// From how many tips on a frontier is summed up for peers instead of told.
    pub sum_from: usize,
    /// How long a peer may bring nothing of what it is to bring, entries or blobs, before that is taken from another one.
    pub claim_timeout: Duration,
    /// Bytes of content that are put in with one transaction.
    pub put_bytes: usize,
    /// How many requests to be let in are kept.
    pub requests: RequestLimits,
}

/// When and how entries are loaded in bulk: stored first, and what they do to cells carried out later, in sorted stretches.
#[derive(Debug, Clone, Copy)]
pub struct Bulk {
    /// From how many entries on, if that is also a quarter of those held.
    pub from: u64,
    /// How many entries may be stored before a stretch of cells is built.
    pub entries: u64,
    /// What building one stretch may take.
    pub stretch: build::Budget,
}

impl Default for Bulk {
    fn default() -> Self {
        Self { from: 20_000, entries: 250_000, stretch: build::Budget::default() }
    }
}

impl Default for ReplicaOptions {
    fn default() -> Self {
        Self {
            durability: Durability::Full,
            pending_bytes: anabranch_sync::pending::PENDING_BYTES,
            bulk: Bulk::default(),
            sum_from: 100,
            claim_timeout: Duration::from_secs(10),
            put_bytes: 1024 * 1024,
            requests: RequestLimits::default(),
        }
    }
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Replica({:?})", self.database)
    }
}

impl Replica {
    /// Founds a new database on empty `storage`, with this device as its admin.
    ///
    /// # Errors
    /// [`NodeError::Core`].
    pub fn found(storage: &dyn Storage, device: &Device) -> Result<DatabaseId, NodeError> {
        Self::found_with(storage, device, Founding::default())
    }

    /// As [`Self::found`], sealed or with a key for recovery, which ranks above this device; see [`Self::recover`].
    ///
    /// # Errors
    /// As [`Self::found`].
    pub fn found_with(
        storage: &dyn Storage,
        device: &Device,
        founding: Founding,
    ) -> Result<DatabaseId, NodeError> {
        let author = device.author(storage)?;
        let mut tx = storage.write(Durability::Full)?;
        let database = create(&mut *tx, &author, device.random()?, founding)?;
        tx.commit()?;
        Ok(database)
    }

    /// Marks empty `storage` as a replica of `database`, to be filled by a peer.
    ///
    /// # Errors
    /// [`NodeError::Core`], also when it is a replica of another one.
    pub fn prepare(storage: &dyn Storage, database: DatabaseId) -> Result<(), NodeError> {
        let mut tx = storage.write(Durability::Full)?;
        found(&mut *tx, database)?;
        Ok(tx.commit()?)
    }

    /// Opens the replica on `storage`. `blobs`: where its blobs are, if not in the storage itself.
    ///
    /// # Errors
    /// [`NodeError::Core`] when the storage holds no replica.
    pub fn open(
        storage: Arc<dyn Storage>,
        blobs: Option<Arc<dyn Blobs>>,
        device: Device,
        options: ReplicaOptions,
    ) -> Result<Arc<Self>, NodeError> {
        let (database, unsigned, unbuilt) = {
            let tx = storage.read()?;
            let view = View::new(&*tx);
            let database = view.database()?.ok_or(anabranch_core::error::Error::Empty)?;
            (database, view.unsigned()?, view.building()?.unwrap_or(0))
        };
        let stores_blobs = blobs.is_none();
        if !stores_blobs && !View::new(&*storage.read()?).keeps_elsewhere()? {
            let kept = storage.write(Durability::Full).and_then(|mut tx| {
                keep_elsewhere(&mut *tx)?;
                tx.commit()
            });
            if let Err(e) = kept {
                // Until it can be, more is noted than is needed.
                tracing::warn!(
                    "that content lies in the files of a folder could not be noted yet: {e}"
                );
            }
        }
        let blobs = blobs.unwrap_or_else(|| Arc::new(TableBlobs(Arc::clone(&storage))));
        let ReplicaOptions { durability, bulk, .. } = options;
        let (stretch, memory) = (bulk.stretch, LastKnown::default());
        let committer = Committer { database, storage, device, durability, stretch, memory };
        // An earlier process ended between a commit under normal durability and its signature. Reading works without.
        let signed = if unsigned > 0 { committer.sign() } else { Ok(()) };
        if let Err(e) = &signed {
            tracing::warn!("commits could not be signed for peers yet: {e}");
        }
        Ok(Arc::new_cyclic(|this| Self {
            database,
            this: Weak::clone(this),
            node: OnceLock::new(),
            members_seen: AtomicU64::new(0),
            committer,
            blobs,
            stores_blobs,
            gather: Gather::default(),
            readers: AtomicU64::new(READERS),
            pending: Mutex::new(Pending::new(options.pending_bytes)),
            summed: LastSummed::default(),
            bulk,
            sum_from: options.sum_from,
            request_limits: options.requests,
            asking: Mutex::default(),
            put_bytes: options.put_bytes,
            unbuilt: AtomicU64::new(unbuilt),
            sealing: Sealing::default(),
            building: AtomicBool::new(false),
            writer: OnceLock::new(),
            unsigned: signed.is_err(),
            version: watch::Sender::new(0),
            blobs_moved: Mutex::new(0),
            blob_bell: Condvar::new(),
            signals: Mutex::default(),
            wants: Mutex::new(Wants::new(options.claim_timeout)),
            claims: Mutex::new(Claims::new(options.claim_timeout)),
            worker: AtomicBool::new(false),
            worked: AtomicU64::new(0),
            holds: AtomicUsize::new(0),
            turns: Arc::new(Semaphore::new(at_once())),
            unsettled: watch::Sender::new(BTreeSet::new()),
        }))
    }

    /// Which database it is.
    #[must_use]
    pub fn database(&self) -> DatabaseId {
        self.database
    }

    /// This device.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.committer.device
    }

    /// Its storage.
    #[must_use]
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.committer.storage
    }

    /// Its blobs.
    #[must_use]
    pub fn blobs(&self) -> &Arc<dyn Blobs> {
        &self.blobs
    }

    /// Bytes of runs that came before what they build on and wait for it. At most
    /// [`ReplicaOptions::pending_bytes`].
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).bytes()
    }

    /// Looks at the newest committed state. While a bulk load is under way, its cells are built first, as far as it has come.
    ///
    /// # Errors
    /// Whatever `look` returns, or the storage reports; [`StorageError::NoKey`] where all is sealed and nothing can be opened.
    pub fn read<T, E: From<StorageError>>(
        &self,
        look: impl FnOnce(View<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.require_key(|sealed| *sealed == Scope::Everything)?;
        self.read_any(look)
    }

    /// As [`Self::read`], to look at one store: where that is sealed, there has to be a key.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_store<T, E: From<StorageError>>(
        &self,
        store: &StoreId,
        look: impl FnOnce(View<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.require_key(|sealed| sealed.covers(store))?;
        self.read_any(look)
    }

    /// Where a key is needed there has to be one: an empty store would be shown in its place.
    pub(crate) fn require_key(
        &self,
        is_needed: impl FnOnce(&Scope) -> bool,
    ) -> Result<(), StorageError> {
        match self.sealed()?.is_some_and(is_needed) && self.look(|view| view.is_keyless())? {
            true => Err(StorageError::NoKey),
            false => Ok(()),
        }
    }

    /// As [`Self::read`], also where nothing can be opened: then stores are empty and have no digest.
    ///
    /// # Errors
    /// Whatever `look` returns, or the storage reports.
    pub fn read_any<T, E: From<StorageError>>(
        &self,
        look: impl FnOnce(View<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        loop {
            self.build()?;
            let tx = self.storage().read()?;
            let view = View::new(&*tx);
            // More may have come in between.
            if view.building()?.is_none() {
                return look(view);
            }
        }
    }

    /// As [`Self::read`] for entries, logs and members alone: does not wait for the cells of a bulk load.
    ///
    /// # Errors
    /// Whatever `look` returns, [`StorageError::Building`] when it is about cells all the same.
    pub fn look<T, E: From<StorageError>>(
        &self,
        look: impl FnOnce(View<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let tx = self.storage().read()?;
        look(View::new(&*tx))
    }

    /// As [`Self::look`], with the tables themselves.
    ///
    /// # Errors
    /// Whatever `look` returns, or the storage reports.
    pub fn read_tables<T, E: From<StorageError>>(
        &self,
        look: impl FnOnce(&dyn ReadTx) -> Result<T, E>,
    ) -> Result<T, E> {
        let tx = self.storage().read()?;
        look(&*tx)
    }

    /// Builds the cells of a bulk load, as far as it has come. Blocking; nothing to do is done at once.
    ///
    /// # Errors
    /// What the storage reports; the entries stay.
    pub fn build(&self) -> Result<(), StorageError> {
        if self.look(|view| view.building())?.is_some() {
            self.committer.build()?;
            self.unbuilt.store(0, Ordering::SeqCst);
            self.look_for_content();
            self.ring();
        }
        self.hand_out_if_due();
        Ok(())
    }

    /// Entries were applied; some of them may have been loaded in bulk, some may name content.
    pub(crate) fn loaded(&self) {
        let looked = self.look(|view| Ok::<_, StorageError>((view.building()?, view.awaits()?)));
        let (left, awaits) = looked.unwrap_or((None, false));
        if awaits {
            self.gather.look();
        }
        self.unbuilt.store(left.unwrap_or(0), Ordering::SeqCst);
    }

    /// Another process committed something.
    pub(crate) fn changed_elsewhere(&self) {
        self.loaded();
        self.changed();
        let now = self.look(|view| view.membership_changes()).unwrap_or(u64::MAX);
        if self.members_seen.swap(now, Ordering::SeqCst) != now {
            self.members_changed();
        }
    }

    pub(crate) fn belongs_to(&self, node: Weak<Node>) {
        // The first one stays.
        _ = self.node.set(node);
    }

    pub(crate) fn node(&self) -> Option<Arc<Node>> {
        self.node.get().and_then(Weak::upgrade)
    }

    /// Somebody may have content that was asked for in vain, or more is wanted than before.
    pub(crate) fn gather_anew(&self) {
        if self.look(|view| view.awaits()).unwrap_or(false) {
            self.gather.look_again();
            self.ring();
        }
    }

    /// Values came to count that are older than what was looked at.
    pub(crate) fn gather_recounted(&self) {
        self.gather.look_again();
    }

    pub(crate) fn gather_wants(&self, hashes: impl IntoIterator<Item = ChunkHash>) {
        self.want_as(GATHER, hashes);
    }

    pub(crate) fn gather_in_vain(&self) -> BTreeSet<ChunkHash> {
        self.wants().in_vain(GATHER).copied().collect()
    }

    pub(crate) fn gather_moved(&self) {
        let lacking = self.wants().lacking(GATHER);
        self.gather.moved(lacking);
    }

    /// Looks at the tables, as of a moment at which all cells are built.
    pub(crate) fn read_built<T>(
        &self,
        look: impl FnOnce(&dyn ReadTx) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        self.read(|view| look(view.tables()))
    }

    pub(crate) fn require_blobs(&self) -> Result<(), NodeError> {
        match self.stores_blobs {
            true => Ok(()),
            false => Err(NodeError::Setting("a folder keeps its content in its files".into())),
        }
    }

    /// Whether this blob is in the storage.
    pub(crate) fn has_blob(&self, hash: &ChunkHash) -> Result<bool, StorageError> {
        self.storage().read()?.has(Table::Blob, &hash.0)
    }

    pub(crate) fn new_claim(&self) -> ClaimId {
        self.readers.fetch_add(1, Ordering::Relaxed)
    }

    /// Peers that are connected in this process.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.wants().sessions()
    }

    /// Entries that arrived and whose cells are still to be built, as far as this process knows.
    #[must_use]
    pub fn unbuilt(&self) -> u64 {
        self.unbuilt.load(Ordering::SeqCst)
    }

    /// Whether a stretch of cells is to be built now; nobody else does while the result lives.
    pub(crate) fn start_building(self: &Arc<Self>) -> Option<Building> {
        let unbuilt = self.unbuilt.load(Ordering::SeqCst);
        let due = unbuilt >= self.bulk.entries || self.unsettled.borrow().is_empty();
        let starts = unbuilt > 0 && due && !self.building.swap(true, Ordering::SeqCst);
        starts.then(|| Building(Arc::clone(self)))
    }

    fn build_stretch(&self) {
        let _within = tracing::debug_span!("build", database = %self.database.short()).entered();
        let left = match build::step(&**self.storage(), self.bulk.stretch) {
            Ok(left) => left.unwrap_or(0),
            Err(e) => {
                // Whoever reads or writes next tries again and is told.
                tracing::warn!("what arrived in bulk could not be put in place yet: {e}");
                0
            }
        };
        tracing::debug!(left, "a stretch of cells was built");
        self.unbuilt.store(left, Ordering::SeqCst);
        self.look_for_content();
    }

    /// Values that name content may have become live.
    fn look_for_content(&self) {
        if self.look(|view| view.awaits()).unwrap_or(false) {
            self.gather.look();
        }
    }

    fn writer(&self) -> &Writer {
        self.writer.get_or_init(|| {
            Writer::start(self.committer.clone(), Weak::clone(&self.this), self.unsigned)
        })
    }

    /// Sees to it that what could not be signed when the replica was opened is signed as soon as that can be done.
    pub(crate) fn sign_left(&self) {
        if self.unsigned {
            self.writer();
        }
    }

    /// Commits drafts, each as one entry or, if it comes to nothing, as `None`; durable when it returns. Others that
    /// commit at the same time share the cost.
    ///
    /// # Errors
    /// [`NodeError::Core`]; then none of these drafts was committed, unless an earlier one of them failed alone.
    pub async fn commit(&self, drafts: Vec<Draft>) -> Result<Vec<Option<Entry>>, NodeError> {
        match self.writer().commit(drafts)? {
            Commit::Done(reply) => reply,
            Commit::Queued(answer) => answer.await.map_err(|_| NodeError::Closed)?,
        }
    }

    /// As [`Self::commit`], for threads outside the runtime.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub fn commit_blocking(&self, drafts: Vec<Draft>) -> Result<Vec<Option<Entry>>, NodeError> {
        match self.writer().commit(drafts)? {
            Commit::Done(reply) => reply,
            Commit::Queued(answer) => answer.blocking_recv().map_err(|_| NodeError::Closed)?,
        }
    }

    /// Commits `draft` together with changes to the replica's local table, in one transaction. Blocking.
    ///
    /// # Errors
    /// [`NodeError::Core`]; then nothing was changed.
    pub fn commit_with_local(
        &self,
        draft: &Draft,
        local: impl Fn(&mut dyn WriteTx, Option<&Entry>) -> Result<(), StorageError>,
    ) -> Result<Option<Entry>, NodeError> {
        // It is signed in the same transaction, so peers may be told as soon as it is committed (I1).
        let entry = self.committer.when_built(|| {
            let author = self.device().author(&**self.storage())?;
            let mut tx = self.storage().write(Durability::Full)?;
            let mut ledger = Ledger::open(&mut *tx)?;
            let entry = ledger.commit(&author, draft)?;
            ledger.seal(&author)?;
            ledger.finish()?;
            local(&mut *tx, entry.as_ref())?;
            tx.commit()?;
            Ok(entry)
        })?;
        if entry.is_some() {
            self.changed();
        }
        if !draft.members.is_empty() {
            self.members_changed();
        }
        Ok(entry)
    }

    /// Commits `draft` with another key than this device's, in a log of that key, and signs it. Blocking.
    pub(crate) fn commit_as(&self, key: &DeviceKey, draft: &Draft) -> Result<(), NodeError> {
        self.committer.when_built(|| {
            let own = self.device().author(&**self.storage())?;
            let mut tx = self.storage().write(Durability::Full)?;
            let mut ledger = Ledger::open(&mut *tx)?;
            // What this device has not signed yet nobody else could.
            ledger.seal(&own)?;
            ledger.commit_apart(&Author { key, ..own }, draft)?;
            ledger.finish()?;
            tx.commit()?;
            Ok(())
        })?;
        self.changed();
        self.members_changed();
        Ok(())
    }

    /// Commits what each of several callers drafted, as one group, on this thread. For whoever has no threads to spare;
    /// under normal durability it calls [`Self::sign`] soon after. Blocking.
    ///
    /// # Errors
    /// [`NodeError::Core`] when nothing was committed. An error inside concerns one caller: his drafts before the one that
    /// failed are committed.
    pub fn commit_group(&self, group: &[Vec<Draft>]) -> Result<Vec<Committed>, NodeError> {
        let committed = self.committer.commit(group)?;
        if self.committer.durability == Durability::Full {
            self.changed();
        }
        Ok(committed)
    }

    /// Signs for peers what [`Self::commit_group`] left unsigned under normal durability. Blocking.
    ///
    /// # Errors
    /// [`NodeError::Core`]; the entries stay, and it can be tried again.
    pub fn sign(&self) -> Result<(), NodeError> {
        self.committer.sign()?;
        self.changed();
        Ok(())
    }

    /// As [`Self::sign`], off the runtime's threads.
    pub(crate) async fn sign_soon(&self) -> Result<(), NodeError> {
        let this = self.this.upgrade().ok_or(NodeError::Closed)?;
        tokio::task::spawn_blocking(move || this.sign()).await.map_err(|_| NodeError::Closed)?
    }

    /// Redeems a ticket for this device. Blocking.
    ///
    /// # Errors
    /// [`NodeError::Core`].
    pub fn redeem(&self, ticket: &DeviceKey) -> Result<(), NodeError> {
        self.committer.sealed(|ledger, author| ledger.redeem(author, ticket))?;
        self.loaded();
        self.gather_recounted();
        self.changed();
        self.members_changed();
        Ok(())
    }

    /// Runs `act` as the author of entries, in one durable transaction that also signs them. Blocking.
    pub(crate) fn as_author<T>(
        &self,
        act: impl Fn(&mut Ledger<'_>, &Author<'_>) -> Result<T, anabranch_core::error::Error>,
    ) -> Result<T, NodeError> {
        self.committer.sealed(act)
    }

    /// Tells everybody that something was committed, by this process or another.
    pub fn changed(&self) {
        self.version.send_modify(|v| *v += 1);
        self.ring();
    }

    pub(crate) fn ring(&self) {
        let mut signals = self.signals.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rung = false;
        signals.retain(|signal| match signal.upgrade() {
            Some(signal) => {
                if !std::mem::replace(&mut rung, sabotage::is(Bug::LostWakeUp)) {
                    signal.ring(self.database);
                }
                true
            }
            None => false,
        });
    }

    pub(crate) fn subscribe(&self, signal: &Arc<Signal>) {
        self.signals.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(signal));
    }

    /// Counts changes; wakes with each.
    #[must_use]
    pub fn versions(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Counts blobs that came and refusals of peers to send one.
    #[must_use]
    pub fn blobs_moved(&self) -> u64 {
        *self.blobs_moved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Blocks until [`Self::blobs_moved`] is no longer `seen`, or `limit` has passed.
    pub fn wait_for_blobs(&self, seen: u64, limit: Duration) {
        let count = self.blobs_moved.lock().unwrap_or_else(PoisonError::into_inner);
        // Poisoned or not, the caller looks again.
        let _ = self.blob_bell.wait_timeout_while(count, limit, |count| *count == seen);
    }

    fn blob_moved(&self) {
        *self.blobs_moved.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.blob_bell.notify_all();
    }

    fn wants(&self) -> MutexGuard<'_, Wants> {
        self.wants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// States which blobs are lacking now; connected peers are asked for them, as are peers that connect later.
    pub fn want(&self, hashes: impl IntoIterator<Item = ChunkHash>) {
        self.want_as(WORKER, hashes);
    }

    pub(crate) fn want_as(&self, claim: ClaimId, hashes: impl IntoIterator<Item = ChunkHash>) {
        self.wants().set(claim, hashes);
        self.ring();
    }

    /// How many wanted blobs are lacking, and how many of these no connected peer has.
    #[must_use]
    pub fn lacking(&self) -> (usize, usize) {
        self.wants().lacking(WORKER)
    }

    /// Something in this process works on every version of this replica (writes files, say). Until it says with
    /// [`Self::worked`] that it is done, peers are told to wait, and an opening counts as a new version.
    pub fn attach_worker(&self) {
        self.worked.store(*self.version.borrow(), Ordering::SeqCst);
        self.worker.store(true, Ordering::SeqCst);
    }

    /// Nobody works on this replica any more, so nobody needs to wait.
    pub fn detach_worker(&self) {
        self.worker.store(false, Ordering::SeqCst);
        self.ring();
    }

    /// The worker has done what there was to do up to `version`.
    pub fn worked(&self, version: u64) {
        self.worked.fetch_max(version, Ordering::SeqCst);
        self.ring();
    }

    /// Peers are told to wait until the result is dropped.
    #[must_use]
    pub fn hold(self: &Arc<Self>) -> Hold {
        self.holds.fetch_add(1, Ordering::SeqCst);
        self.ring();
        Hold(Arc::clone(self))
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.holds.load(Ordering::SeqCst) > 0
            || self.unbuilt.load(Ordering::SeqCst) > 0
            || self.is_working()
            || self.is_gathering()
    }

    fn is_gathering(&self) -> bool {
        let lacking = self.wants().lacking(GATHER);
        self.gather.is_busy(lacking)
    }

    fn is_working(&self) -> bool {
        self.worker.load(Ordering::SeqCst)
            && self.worked.load(Ordering::SeqCst) < *self.version.borrow()
    }

    /// Whether entries are still under way on some session; wakes when that changes.
    #[must_use]
    pub fn unsettled(&self) -> watch::Receiver<BTreeSet<u64>> {
        self.unsettled.subscribe()
    }

    pub(crate) fn set_settled(&self, session: SessionId, settled: bool) {
        self.unsettled.send_if_modified(|sessions| {
            if settled { sessions.remove(&session) } else { sessions.insert(session) }
        });
    }

    pub(crate) fn session_joined(&self, session: SessionId) {
        self.wants().join(session);
        // Building may have failed before.
        self.loaded();
        self.gather_anew();
        self.set_settled(session, false);
        if self.worker.load(Ordering::SeqCst) {
            self.changed();
        }
    }

    pub(crate) fn session_left(&self, session: SessionId) {
        self.wants().leave(session);
        self.gather_moved();
        self.set_settled(session, true);
        self.blob_moved();
        self.ring();
    }

    /// Does something to the claims, and lets the sessions know that are to tell their peers something.
    fn claims<T>(&self, act: impl FnOnce(&mut Claims, Duration) -> T) -> T {
        let now = self.device().steady();
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        let result = act(&mut claims, now);
        let rings = claims.rings();
        drop(claims);
        if rings {
            self.ring();
        }
        result
    }

    /// A channel on which entries come stands like this; returns what its peer is to be told.
    pub(crate) fn source_stands(&self, source: Source, stand: Stand) -> Vec<Order> {
        self.claims(|claims, now| {
            claims.stands(source, stand, now);
            claims.check(now);
            claims.orders(source)
        })
    }

    /// When it is to be looked at again, if nothing else happens.
    pub(crate) fn source_wakes(&self, source: Source) -> Option<Duration> {
        self.claims(|claims, now| Some(claims.wakes(source, now)?.saturating_sub(now)))
    }

    pub(crate) fn source_brought(&self, source: Source, authors: &Authors) {
        self.claims(|claims, now| claims.brought(source, authors, now));
    }

    pub(crate) fn source_offers(&self, source: Source, places: &BTreeSet<Position>, more: bool) {
        self.claims(|claims, now| match more {
            true => claims.overflowed(source, now),
            false => claims.offered(source, places, now),
        });
    }

    pub(crate) fn source_left(&self, source: Source) {
        self.claims(|claims, now| claims.leave(source, now));
    }

    pub(crate) fn wants_of(&self, session: SessionId) -> Vec<ChunkHash> {
        let now = self.device().steady();
        self.wants().ask(session, now)
    }

    /// When a session is to be asked for what others were asked for in vain, if nothing else happens.
    pub(crate) fn wants_wake(&self, session: SessionId) -> Option<Duration> {
        let now = self.device().steady();
        Some(self.wants().wakes(session)?.saturating_sub(now))
    }

    /// A session brought a blob.
    pub(crate) fn blob_brought(&self, session: SessionId) {
        let now = self.device().steady();
        self.wants().answered(session, now);
    }

    /// Says that blobs were stored here, for peers that asked for them in vain. Whatever sessions bring is noticed without.
    pub fn blobs_arrived(&self, hashes: &[ChunkHash]) {
        if hashes.is_empty() {
            return;
        }
        let mut wants = self.wants();
        hashes.iter().for_each(|hash| wants.arrived(hash));
        drop(wants);
        self.gather_moved();
        self.blob_moved();
        self.ring();
    }

    pub(crate) fn blobs_asked(&self, session: SessionId, hashes: &[ChunkHash]) {
        self.wants().asked(session, hashes);
    }

    pub(crate) fn blobs_readable(&self, session: SessionId) {
        self.wants().readable(session);
    }

    pub(crate) fn blob_sent(&self, session: SessionId, hash: &ChunkHash) {
        self.wants().sent(session, hash);
    }

    pub(crate) fn blobs_offered(&self, session: SessionId, hashes: &[ChunkHash]) {
        let wanted = self.wants().offered(session, hashes);
        // Who works here gave up waiting for some of them, and looks again.
        if !wanted {
            self.gather_anew();
            if self.worker.load(Ordering::SeqCst) {
                self.changed();
            }
        }
    }

    pub(crate) fn offers_to(&self, session: SessionId) -> Vec<ChunkHash> {
        self.wants().offers(session)
    }

    pub(crate) fn blobs_refused(&self, session: SessionId, hashes: &[ChunkHash]) {
        let now = self.device().steady();
        let mut wants = self.wants();
        wants.refused(session, hashes);
        wants.answered(session, now);
        drop(wants);
        self.gather_moved();
        self.blob_moved();
        self.ring();
    }
}

/// A stretch of cells that is to be built.
#[derive(Debug)]
pub(crate) struct Building(Arc<Replica>);

impl Building {
    /// Builds it. Blocking.
    pub(crate) fn perform(self) {
        self.0.build_stretch();
    }
}

impl Drop for Building {
    fn drop(&mut self) {
        self.0.building.store(false, Ordering::SeqCst);
        self.0.ring();
    }
}

/// Keeps peers waiting while it lives.
#[derive(Debug)]
pub struct Hold(Arc<Replica>);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.holds.fetch_sub(1, Ordering::SeqCst);
        self.0.ring();
    }
}
