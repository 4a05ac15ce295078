//! A peer that may send anything, after an honest greeting or without one: as a member whose signatures hold, as the bearer
//! of a ticket, or as a stranger. Whatever it does, the replica stays sound, its own storage is never at fault, and the
//! session ends or goes on (I4, I5).

use crate::input::Input;
use crate::targets::entry::assert_run;
use crate::world::{NOW, keys, world};
use anabranch_core::blob::ChunkHash;
use anabranch_core::codec::{Reader, Writer, keyed_hash};
use anabranch_core::entry::Timestamp;
use anabranch_core::head::Head;
use anabranch_core::id::{NodeId, Position};
use anabranch_core::key::{Context, DeviceKey, Signature};
use anabranch_core::ops::Role;
use anabranch_core::run::Run;
use anabranch_core::storage::{Durability, Storage, StorageError, Table};
use anabranch_core::verify::verify;
use anabranch_core::view::View;
use anabranch_store::MemoryStorage;
use anabranch_sync::channel::{Direction, Event};
use anabranch_sync::frame::{
    Code, Frame, PROTOCOL_VERSION, Request, TAKES_REQUESTS, Terms, TicketProof, WITHHOLDS,
};
use anabranch_sync::pending::Pending;
use anabranch_sync::rights::{Asked, Requests};
use anabranch_sync::session::{Config, Credentials, Output, Session};
use anabranch_sync::summed::LastSummed;
use anabranch_sync::work::{Access, Blobs};
use std::collections::BTreeMap;
use std::sync::Mutex;

const BINDING: [u8; 32] = [0xb1; 32];
/// Things that one input does at most.
const STEPS: usize = 48;
/// What one frame may cause: far more than any does, so that beyond it something goes round in circles.
const OUTPUTS: usize = 10_000;
/// Bytes of early runs that are kept.
const PENDING: usize = 64 * 1024;

/// Blobs in a table of the replica.
struct TableBlobs<'s>(&'s MemoryStorage);

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

/// Whoever asks to be let in waits.
struct Waiting;

impl Requests for Waiting {
    fn ask(&self, _: &NodeId, _: Request) -> Result<Option<Asked>, StorageError> {
        Ok(Some(Asked::Waiting))
    }
}

/// The node that is attacked, and who attacks it.
struct Attack {
    session: Session,
    storage: MemoryStorage,
    pending: Mutex<Pending>,
    peer: DeviceKey,
}

/// Flags, then steps: a byte that says which, and its bytes.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut attack = Attack::begin(input.byte());
    for _ in 0..STEPS {
        if input.is_empty() || attack.session.is_closed() {
            break;
        }
        let kind = input.byte();
        attack.step(kind, input.part());
    }
    attack.judge();
}

impl Attack {
    fn begin(flags: u8) -> Self {
        let keys = keys();
        let database = world().database;
        let known = flags & 1 == 0;
        let session = Session::new(Config {
            key: keys.host.clone(),
            binding: BINDING,
            initiator: flags & 2 != 0,
            clock: NOW,
            served: BTreeMap::from([(database, Direction::BOTH)]),
        });
        let mut attack = Self {
            session,
            storage: world().storage.fork([11; 32]),
            pending: Mutex::new(Pending::new(PENDING)),
            peer: if known { keys.member } else { keys.stranger },
        };
        attack.pump();
        if flags & 4 == 0 {
            attack.greet(flags & 2 == 0);
        }
        if flags & 8 == 0 && attack.session.peer().is_some() {
            attack.open(
                if flags & 2 != 0 { 1 } else { 0 },
                (flags & 16 != 0).then_some(&keys.ticket),
                flags & 64 != 0,
            );
        }
        if flags & 32 != 0 && attack.session.peer().is_some() {
            attack.session.open(database, Direction::BOTH, Credentials::default());
            attack.pump();
        }
        attack
    }

    fn greet(&mut self, initiator: bool) {
        let versions = (PROTOCOL_VERSION, PROTOCOL_VERSION);
        let node = self.peer.node_id();
        let features = WITHHOLDS | TAKES_REQUESTS;
        self.receive(&Frame::Hello { versions, node, clock: NOW, features }.encode());
        let mut w = Writer::new();
        w.array(4).bytes(&BINDING).bool(initiator);
        w.bytes(&node.0).bytes(&keys().host.node_id().0);
        let signature = self.peer.sign(Context::Greeting, &w.finish());
        self.receive(&Frame::Auth(signature).encode());
        assert!(self.session.peer().is_some(), "an honest greeting");
    }

    fn open(&mut self, channel: u32, ticket: Option<&DeviceKey>, asks: bool) {
        let database = world().database;
        let name = keyed_hash(&BINDING, &database.0);
        let terms = Terms { sends: true, receives: true, you_may_read: true };
        let ticket = ticket.map(|key| {
            let mut w = Writer::new();
            w.array(3).bytes(&BINDING).bytes(&database.0).bytes(&self.peer.node_id().0);
            let signature = key.sign(Context::TicketProof, &w.finish());
            TicketProof { key: key.node_id(), signature }
        });
        let request = asks.then(|| Request {
            role: Role::Write,
            text: "let me in".into(),
            person: Some(database),
        });
        let evidence = asks.then(|| vec![0x80]);
        let open = Frame::Open { channel, name, terms, digest: None, ticket, request, evidence };
        self.receive(&open.encode());
    }

    fn step(&mut self, kind: u8, bytes: &[u8]) {
        let channel = u32::from(kind >> 3 & 3);
        match kind % 8 {
            0..=2 => self.receive(bytes),
            3 => self.batch(channel, bytes),
            4 | 5 => self.signed(channel, bytes),
            6 => {
                let (hash, bytes) = (ChunkHash::of(bytes), bytes.to_vec());
                self.receive(&Frame::Blob { channel, hash, bytes }.encode());
            }
            _ => {
                self.session.want(channel, &[ChunkHash::of(bytes)]);
                self.session.have(channel, &[ChunkHash::of(b"a chunk")]);
                self.session.set_busy(channel, bytes.first().is_some_and(|byte| byte & 1 != 0));
                // Whoever brings entries is told to withhold some, and that it is over.
                let devices = [self.peer.node_id()];
                match bytes.get(1) {
                    Some(0) => self.session.hold(channel, &[]),
                    Some(1) => self.session.resume(channel, &[]),
                    Some(2) => self.session.hold(channel, &devices),
                    Some(3) => self.session.resume(channel, &devices),
                    _ => {}
                }
                self.session.committed(world().database);
                self.pump();
            }
        }
    }

    /// A batch as it is before it is packed, so that the fuzzer need not know zstd.
    fn batch(&mut self, channel: u32, raw: &[u8]) {
        if let Ok(bytes) = zstd::bulk::compress(raw, 1) {
            let raw = u32::try_from(raw.len()).unwrap_or_default();
            self.receive(&Frame::Batch { channel, raw, bytes }.encode());
        }
    }

    /// Runs, signed anew by whoever wrote them, as far as it is anybody here but the host: what a member may do to itself.
    fn signed(&mut self, channel: u32, bytes: &[u8]) {
        let database = world().database;
        let mut reader = Reader::new(bytes);
        let (mut runs, mut body) = (0, Writer::new());
        while let Ok(run) = Run::decode(&mut reader, database) {
            assert_run(&run, database);
            sign(&run).encode(&mut body);
            runs += 1;
        }
        let mut w = Writer::new();
        w.array(runs).raw(&body.finish());
        self.batch(channel, &w.finish());
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.session.receive(bytes);
        self.pump();
    }

    fn pump(&mut self) {
        let mut outputs = 0;
        while let Some(output) = self.session.poll() {
            outputs += 1;
            assert!(outputs < OUTPUTS, "one frame keeps a session busy for ever");
            match output {
                Output::Work(channel, work) => {
                    let Some(peer) = self.session.peer() else { continue };
                    let access = Access {
                        storage: &self.storage,
                        blobs: &TableBlobs(&self.storage),
                        requests: &Waiting,
                        pending: &self.pending,
                        summed: &LastSummed::default(),
                        durability: Durability::Normal,
                        sum_from: 3,
                        bulk_from: 2,
                        peer,
                        shown: self.session.shown_on(channel),
                        reader: None,
                        now: Timestamp(NOW),
                    };
                    let answer = access.perform(work);
                    self.session.answer(channel, answer);
                }
                Output::Send(frame) => {
                    assert!(Frame::decode(&frame).is_ok(), "what is sent is sound")
                }
                Output::Event(_, Event::Closed { code, text, by_peer: false })
                | Output::Closed { code, text, by_peer: false } => {
                    assert_ne!(code, Code::Internal, "a peer made our storage fail: {text}");
                }
                Output::Event(..) | Output::Greeted { .. } | Output::Closed { .. } => {}
            }
        }
    }

    /// Everything held was admitted as it should be, and follows from its entries.
    fn judge(self) {
        let pending = self.pending.into_inner().unwrap_or_default();
        assert!(pending.bytes() <= PENDING, "early runs beyond their bound");
        let verified = self
            .storage
            .read()
            .map_err(Into::into)
            .and_then(|tx| verify(&*tx, &MemoryStorage::new(), &mut |_| {}));
        assert!(verified.is_ok(), "the replica is damaged: {verified:?}");
    }
}

/// The run with heads that hold, as far as its devices would sign: a member and a stranger whatever they like, the host what
/// it wrote.
fn sign(run: &Run) -> Run {
    let entries = run.entries().to_vec();
    let parents = entries.iter().flat_map(|entry| &entry.header().parents);
    let parents = parents.map(|position| head(*position)).collect();
    let last = entries.last().map_or(Signature([0; 64]), |entry| head(entry.position()));
    Run::new(world().database, entries, last, parents)
}

fn head(position: Position) -> Signature {
    let keys = keys();
    let device = position.log.device;
    let key = if keys.host.node_id() == device {
        wrote(&position).then_some(keys.host)
    } else {
        [keys.member, keys.stranger].into_iter().find(|key| key.node_id() == device)
    };
    key.map_or(Signature([0; 64]), |key| Head::sign(&key, &world().database, position).signature)
}

fn wrote(position: &Position) -> bool {
    world().storage.read().and_then(|tx| View::new(&*tx).holds(position)).unwrap_or(false)
}
