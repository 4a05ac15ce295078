//! Nodes in one thread: real sessions, real storage work, frames handed over by hand.

use anabranch_core::author::{Author, Draft, Seen, Write};
use anabranch_core::blob::ChunkHash;
use anabranch_core::entry::{Entry, StoreId, Timestamp};
use anabranch_core::founding::{Founding, create};
use anabranch_core::id::{DatabaseId, NodeId};
use anabranch_core::key::DeviceKey;
use anabranch_core::ledger::{Ledger, found};
use anabranch_core::ops::{MemberOp, Role, Subject, TicketTerms};
use anabranch_core::path::Path;
use anabranch_core::storage::{Durability, Storage, StorageError, Table};
use anabranch_core::view::View;
use anabranch_store::MemoryStorage;
use anabranch_sync::channel::{Direction, Event};
use anabranch_sync::frame::{Code, Frame, Request};
use anabranch_sync::pending::Pending;
use anabranch_sync::rights::{Asked, Requests};
use anabranch_sync::session::{Config, Credentials, Output, Session};
use anabranch_sync::summed::LastSummed;
use anabranch_sync::work::{Access, Blobs};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

/// Blobs in the replica's own table.
pub(crate) struct TableBlobs<'a>(pub(crate) &'a dyn Storage);

impl Blobs for TableBlobs<'_> {
    fn get(&self, hash: &ChunkHash) -> Result<Option<Vec<u8>>, StorageError> {
        self.0.read()?.get(Table::Blob, &hash.0)
    }

    fn put(&self, blobs: &[(ChunkHash, Vec<u8>)]) -> Result<(), StorageError> {
        let mut tx = self.0.write(Durability::Normal)?;
        for (hash, bytes) in blobs {
            tx.put(Table::Blob, &hash.0, bytes)?;
        }
        tx.commit()
    }
}

/// What a node says to a request to be let in.
type Says = Box<dyn Fn(&NodeId, &Request) -> Option<Asked> + Send + Sync>;

/// Requests to be let in, answered as a test says; none are taken unless it does.
#[derive(Default)]
pub(crate) struct Asks(pub(crate) Option<Says>);

impl Requests for Asks {
    fn ask(&self, peer: &NodeId, request: Request) -> Result<Option<Asked>, StorageError> {
        Ok(self.0.as_ref().and_then(|says| says(peer, &request)))
    }
}

pub(crate) struct Node {
    pub(crate) key: DeviceKey,
    pub(crate) storage: Arc<MemoryStorage>,
    pub(crate) pending: Mutex<Pending>,
    pub(crate) summed: LastSummed,
    pub(crate) clock: u64,
    pub(crate) epoch: u64,
    pub(crate) instance: [u8; 32],
    /// From how many tips on it sums its frontier up.
    pub(crate) sum_from: usize,
    pub(crate) asks: Asks,
}

impl Node {
    pub(crate) fn new(seed: u8) -> Self {
        Self {
            key: DeviceKey::from_seed(&[seed; 32]),
            storage: Arc::new(MemoryStorage::new()),
            pending: Mutex::default(),
            summed: LastSummed::default(),
            clock: 1_000_000,
            epoch: u64::from(seed) * 1000,
            instance: [seed; 32],
            sum_from: usize::MAX,
            asks: Asks::default(),
        }
    }

    /// The same storage, for writing while a session borrows the node.
    pub(crate) fn same(&self) -> Self {
        let (storage, pending) = (self.storage.clone(), Mutex::default());
        let (key, summed, asks) = (self.key.clone(), LastSummed::default(), Asks::default());
        Self { key, storage, pending, summed, asks, ..*self }
    }

    /// Another node with the same key and a copy of what is held.
    pub(crate) fn copy(&self) -> Self {
        Self { storage: Arc::new(self.storage.fork(self.instance)), ..self.same() }
    }

    fn author(&mut self) -> Author<'_> {
        self.clock += 10;
        self.epoch += 1;
        Author {
            key: &self.key,
            wall: Timestamp(self.clock),
            fresh_epoch: self.epoch,
            instance: self.instance,
        }
    }

    pub(crate) fn create(&mut self) -> DatabaseId {
        let storage = self.storage.clone();
        let mut tx = storage.write(Durability::Full).unwrap();
        let id = create(&mut *tx, &self.author(), [7; 16], Founding::default()).unwrap();
        tx.commit().unwrap();
        id
    }

    pub(crate) fn prepare(&self, database: DatabaseId) {
        let mut tx = self.storage.write(Durability::Full).unwrap();
        found(&mut *tx, database).unwrap();
        tx.commit().unwrap();
    }

    /// Acts in one transaction and signs.
    pub(crate) fn with<T>(&mut self, act: impl FnOnce(&mut Ledger<'_>, &Author<'_>) -> T) -> T {
        let storage = self.storage.clone();
        let mut tx = storage.write(Durability::Full).unwrap();
        let mut ledger = Ledger::open(&mut *tx).unwrap();
        let author = self.author();
        let result = act(&mut ledger, &author);
        ledger.seal(&author).unwrap();
        ledger.finish().unwrap();
        tx.commit().unwrap();
        result
    }

    /// Commits without signing.
    pub(crate) fn unsigned(&mut self, draft: &Draft) {
        let storage = self.storage.clone();
        let mut tx = storage.write(Durability::Full).unwrap();
        let mut ledger = Ledger::open(&mut *tx).unwrap();
        ledger.commit(&self.author(), draft).unwrap();
        ledger.finish().unwrap();
        tx.commit().unwrap();
    }

    pub(crate) fn put(&mut self, key: &str, value: &str) -> Option<Entry> {
        let draft = draft(&[(key, value)]);
        self.with(|ledger, author| ledger.commit(author, &draft).unwrap())
    }

    pub(crate) fn ticket(&mut self, role: Role, terms: TicketTerms) -> DeviceKey {
        let key = DeviceKey::from_seed(&[self.epoch as u8 ^ 0x5a; 32]);
        let op =
            MemberOp::Grant { subject: Subject::Ticket(key.node_id()), role, priority: 0, terms };
        let draft = Draft { members: vec![op], ..Draft::default() };
        self.with(|ledger, author| ledger.commit(author, &draft).unwrap());
        key
    }

    pub(crate) fn redeem(&mut self, ticket: &DeviceKey) {
        self.with(|ledger, author| ledger.redeem(author, ticket).unwrap());
    }

    pub(crate) fn view<T>(&self, look: impl FnOnce(View<'_>) -> T) -> T {
        let tx = self.storage.read().unwrap();
        look(View::new(&*tx))
    }

    pub(crate) fn digest(&self) -> [u8; 32] {
        self.view(|v| v.state_digest().unwrap().unwrap())
    }

    pub(crate) fn frontier(&self) -> [u8; 32] {
        self.view(|v| v.frontier_digest().unwrap())
    }

    pub(crate) fn values(&self, key: &str) -> Vec<String> {
        let path = Path::text(["r", key]).unwrap();
        let cells = self.view(|v| v.cell(&StoreId::table("t"), &path).unwrap());
        cells.into_iter().map(|v| String::from_utf8(v.value).unwrap()).collect()
    }
}

/// Text that does not shrink much when it is packed.
pub(crate) fn noise(seed: u64, len: usize) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'!' + (state >> 33) as u8 % 90)
    };
    (0..len).map(next).collect()
}

pub(crate) fn draft(values: &[(&str, &str)]) -> Draft {
    Draft {
        writes: values.iter().map(|(key, value)| put(key, value)).collect(),
        ..Draft::default()
    }
}

pub(crate) fn put(key: &str, value: &str) -> Write {
    Write {
        store: StoreId::table("t"),
        path: Path::text(["r", key]).unwrap(),
        value: Some(value.into()),
        seen: Seen::AtCommit,
        below: false,
        above: false,
    }
}

/// What a session did, counted.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Bytes of all frames, by side.
    pub(crate) bytes: [u64; 2],
    pub(crate) frames: u64,
    pub(crate) sent: u64,
    pub(crate) applied: u64,
    /// New entries that were applied, by side.
    pub(crate) new: [u64; 2],
    pub(crate) closed: Vec<(usize, Code, String)>,
    pub(crate) settled: bool,
    /// The frontiers of both sides when the first first thought that all is done, so that it could leave.
    pub(crate) done: Option<[[u8; 32]; 2]>,
    pub(crate) largest: usize,
    /// Blobs that were stored, and those that were not to be had.
    pub(crate) blobs: u64,
    pub(crate) missing: Vec<ChunkHash>,
    /// Every frame, with the side that sent it.
    pub(crate) log: Vec<(usize, Frame)>,
}

pub(crate) struct Run<'a> {
    database: DatabaseId,
    pub(crate) nodes: [&'a Node; 2],
    pub(crate) sessions: [Session; 2],
    wires: [VecDeque<Vec<u8>>; 2],
    /// Which side hears first where frames are under way both ways.
    pub(crate) hears_first: usize,
    pub(crate) outcome: Outcome,
    /// What the first side does once it is greeted.
    opening: Option<(Direction, Option<DeviceKey>)>,
    /// By which it asks to be let in.
    pub(crate) request: Option<Request>,
    pub(crate) evidence: Option<Vec<u8>>,
}

impl<'a> Run<'a> {
    /// `a` opens `database` on a link to `b`, and both go on until nothing moves.
    pub(crate) fn new(
        a: &'a Node,
        b: &'a Node,
        database: DatabaseId,
        direction: Direction,
        ticket: Option<&DeviceKey>,
    ) -> Self {
        Self::cut(a, b, database, direction, ticket, usize::MAX)
    }

    /// The same, with no more than this many frames handed over: so the link breaks when it is dropped.
    pub(crate) fn cut(
        a: &'a Node,
        b: &'a Node,
        database: DatabaseId,
        direction: Direction,
        ticket: Option<&DeviceKey>,
        frames: usize,
    ) -> Self {
        let session = |node: &Node, initiator| {
            Session::new(Config {
                key: node.key.clone(),
                binding: [3; 32],
                initiator,
                clock: node.clock,
                served: BTreeMap::from([(database, Direction::BOTH)]),
            })
        };
        let mut run = Self {
            database,
            nodes: [a, b],
            sessions: [session(a, true), session(b, false)],
            wires: Default::default(),
            hears_first: 0,
            outcome: Outcome::default(),
            opening: Some((direction, ticket.cloned())),
            request: None,
            evidence: None,
        };
        run.pump_at_most(frames);
        run
    }

    /// `a` asks `b` to be let in.
    pub(crate) fn asking(a: &'a Node, b: &'a Node, database: DatabaseId, request: Request) -> Self {
        let mut run = Self::cut(a, b, database, Direction::BOTH, None, 0);
        run.request = Some(request);
        run.pump();
        run
    }

    /// The same, showing that `a` is a device of the person that the request names.
    pub(crate) fn showing(
        a: &'a Node,
        b: &'a Node,
        database: DatabaseId,
        (request, evidence): (Request, Vec<u8>),
    ) -> Self {
        let mut run = Self::cut(a, b, database, Direction::BOTH, None, 0);
        (run.request, run.evidence) = (Some(request), Some(evidence));
        run.pump();
        run
    }

    /// Hands frames over until nothing moves.
    pub(crate) fn pump(&mut self) {
        self.pump_at_most(usize::MAX);
    }

    /// Hands over at most `frames` frames; whatever is under way then is lost with the link.
    pub(crate) fn pump_at_most(&mut self, mut frames: usize) {
        loop {
            for side in 0..2 {
                while let Some(output) = self.sessions[side].poll() {
                    self.output(side, output);
                }
            }
            if self.outcome.done.is_none() && self.is_settled() {
                self.outcome.done = Some(self.nodes.map(Node::frontier));
            }
            let order = [self.hears_first, 1 - self.hears_first];
            let Some(side) = order.into_iter().find(|&s| !self.wires[s].is_empty()) else { break };
            if frames == 0 {
                return;
            }
            frames -= 1;
            if let Some(bytes) = self.wires[side].pop_front() {
                self.sessions[side].receive(&bytes);
            }
        }
        self.outcome.settled = self.is_settled();
    }

    fn is_settled(&self) -> bool {
        self.sessions[0].channel(0).is_some_and(anabranch_sync::channel::Channel::is_settled)
    }

    fn output(&mut self, side: usize, output: Output) {
        match output {
            Output::Send(bytes) => {
                self.outcome.bytes[side] += bytes.len() as u64;
                self.outcome.frames += 1;
                self.outcome.largest = self.outcome.largest.max(bytes.len());
                self.outcome.log.push((side, Frame::decode(&bytes).unwrap()));
                self.wires[1 - side].push_back(bytes);
            }
            Output::Work(channel, work) => {
                let node = self.nodes[side];
                let access = Access {
                    storage: &*node.storage,
                    blobs: &TableBlobs(&*node.storage),
                    requests: &node.asks,
                    pending: &node.pending,
                    summed: &node.summed,
                    durability: Durability::Full,
                    sum_from: node.sum_from,
                    bulk_from: u64::MAX,
                    peer: self.sessions[side].peer().unwrap(),
                    shown: self.sessions[side].shown_on(channel),
                    reader: None,
                    now: Timestamp(node.clock),
                };
                let answer = access.perform(work);
                self.sessions[side].answer(channel, answer);
            }
            Output::Greeted { .. } if side == 0 => {
                if let Some((direction, ticket)) = self.opening.take() {
                    let (request, evidence) = (self.request.take(), self.evidence.take());
                    let credentials = Credentials { ticket: ticket.as_ref(), request, evidence };
                    self.sessions[0].open(self.database, direction, credentials);
                }
            }
            Output::Event(_, Event::Sent { entries, .. }) => self.outcome.sent += entries,
            Output::Event(_, Event::Applied { entries, .. }) => {
                self.outcome.applied += 1;
                self.outcome.new[side] += entries;
            }
            Output::Event(_, Event::Blobs { count, .. }) => self.outcome.blobs += count,
            Output::Event(_, Event::NoBlobs(hashes)) => self.outcome.missing.extend(hashes),
            Output::Event(_, Event::Closed { code, text, by_peer: false }) => {
                self.outcome.closed.push((side, code, text));
            }
            Output::Closed { code, text, by_peer: false } => {
                self.outcome.closed.push((side, code, text));
            }
            Output::Event(..) | Output::Greeted { .. } | Output::Closed { .. } => {}
        }
    }
}

/// Lets `a` sync with `b` both ways until nothing moves.
pub(crate) fn sync(a: &Node, b: &Node, database: DatabaseId) -> Outcome {
    Run::new(a, b, database, Direction::BOTH, None).outcome
}

/// A replica of `database` on a new device, let in by a ticket of `host`.
pub(crate) fn join(host: &mut Node, seed: u8, database: DatabaseId, role: Role) -> Node {
    let ticket = host.ticket(role, TicketTerms::default());
    let mut node = Node::new(seed);
    node.prepare(database);
    let outcome = Run::new(&node, host, database, Direction::BOTH, Some(&ticket)).outcome;
    assert!(outcome.settled, "{outcome:?}");
    node.redeem(&ticket);
    let outcome = sync(&node, host, database);
    assert!(outcome.settled, "{outcome:?}");
    node
}
