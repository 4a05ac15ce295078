//! session.json: a device joins by a ticket, redeems it, and then hears of a commit at once; every frame in order. How
//! zstd spells a batch is its own affair, so batches are given unpacked and credit by the batch it is for.

use crate::file::{golden, hex, unhex};
use crate::frames::described;
use anabranch_core::author::{Author, Draft, Seen, Write};
use anabranch_core::blob::ChunkHash;
use anabranch_core::entry::{StoreId, Timestamp};
use anabranch_core::founding::{Founding, create};
use anabranch_core::id::{DatabaseId, NodeId};
use anabranch_core::key::DeviceKey;
use anabranch_core::ledger::{Ledger, found};
use anabranch_core::ops::{MemberOp, Role, Subject, TicketTerms};
use anabranch_core::path::Path;
use anabranch_core::storage::{Durability, Storage, StorageError};
use anabranch_core::view::View;
use anabranch_store::MemoryStorage;
use anabranch_sync::channel::{Channel, Direction};
use anabranch_sync::frame::{ChannelNo, Frame, Request};
use anabranch_sync::pending::Pending;
use anabranch_sync::rights::{Asked, Requests};
use anabranch_sync::session::{Config, Credentials, Output, Session};
use anabranch_sync::summed::LastSummed;
use anabranch_sync::work::{Access, Blobs, Work};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

const BINDING: [u8; 32] = [0xb1; 32];

struct NoBlobs;

impl Blobs for NoBlobs {
    fn get(&self, _: &ChunkHash) -> Result<Option<Vec<u8>>, StorageError> {
        Ok(None)
    }

    fn put(&self, _: &[(ChunkHash, Vec<u8>)]) -> Result<(), StorageError> {
        Ok(())
    }
}

struct NoRequests;

impl Requests for NoRequests {
    fn ask(&self, _: &NodeId, _: Request) -> Result<Option<Asked>, StorageError> {
        Ok(None)
    }
}

struct Side {
    name: &'static str,
    key: DeviceKey,
    storage: MemoryStorage,
    pending: Mutex<Pending>,
    session: Session,
    incoming: VecDeque<Vec<u8>>,
    /// Packed sizes of batches sent and not acknowledged.
    unacknowledged: VecDeque<usize>,
}

impl Side {
    fn author(&self, wall: u64) -> Author<'_> {
        let instance = self.storage.instance();
        Author { key: &self.key, wall: Timestamp(wall), fresh_epoch: 77, instance }
    }

    fn write(&self, wall: u64, act: impl FnOnce(&mut Ledger<'_>, &Author<'_>)) {
        let mut tx = self.storage.write(Durability::Full).unwrap();
        let mut ledger = Ledger::open(&mut *tx).unwrap();
        act(&mut ledger, &self.author(wall));
        ledger.seal(&self.author(wall)).unwrap();
        ledger.finish().unwrap();
        tx.commit().unwrap();
    }

    fn put(&self, wall: u64, key: &str) {
        let write = Write {
            store: StoreId::table("t"),
            path: Path::text([key]).unwrap(),
            value: Some(b"hello".to_vec()),
            seen: Seen::AtCommit,
            below: false,
            above: false,
        };
        let draft = Draft { writes: vec![write], ..Draft::default() };
        self.write(wall, |ledger, author| _ = ledger.commit(author, &draft).unwrap());
    }

    fn perform(&mut self, channel: ChannelNo, work: Work) {
        let access = Access {
            storage: &self.storage,
            blobs: &NoBlobs,
            requests: &NoRequests,
            pending: &self.pending,
            summed: &LastSummed::default(),
            durability: Durability::Full,
            sum_from: usize::MAX,
            bulk_from: u64::MAX,
            peer: self.session.peer().unwrap(),
            shown: self.session.shown_on(channel),
            reader: None,
            now: Timestamp(1_700_000_000_000_000),
        };
        let answer = access.perform(work);
        self.session.answer(channel, answer);
    }

    fn state(&self) -> [u8; 32] {
        View::new(&*self.storage.read().unwrap()).state_digest().unwrap().unwrap()
    }
}

fn side(name: &'static str, seed: u8, served: BTreeMap<DatabaseId, Direction>) -> Side {
    let key = DeviceKey::from_seed(&[seed; 32]);
    let clock = 1_700_000_000_000_000;
    let initiator = name == "joiner";
    Side {
        name,
        session: Session::new(Config {
            key: key.clone(),
            binding: BINDING,
            initiator,
            clock,
            served,
        }),
        key,
        storage: MemoryStorage::with_instance([seed; 32]),
        pending: Mutex::default(),
        incoming: VecDeque::new(),
        unacknowledged: VecDeque::new(),
    }
}

/// The host has founded a database, written a row and granted a ticket; the joiner knows its id.
fn sides() -> ([Side; 2], DatabaseId, DeviceKey) {
    let ticket = DeviceKey::from_seed(&[9; 32]);
    let mut host = side("host", 1, BTreeMap::new());
    let mut tx = host.storage.write(Durability::Full).unwrap();
    let database =
        create(&mut *tx, &host.author(1_000_000), [0x5a; 16], Founding::default()).unwrap();
    tx.commit().unwrap();
    host.session.serve(database, Direction::BOTH);
    host.put(1_000_001, "first");
    let subject = Subject::Ticket(ticket.node_id());
    let terms = TicketTerms { limit: Some(1), expires: None };
    let grant = MemberOp::Grant { subject, role: Role::Write, priority: 0, terms };
    let draft = Draft { members: vec![grant], ..Draft::default() };
    host.write(1_000_002, |ledger, author| _ = ledger.commit(author, &draft).unwrap());
    let joiner = side("joiner", 2, BTreeMap::new());
    let mut tx = joiner.storage.write(Durability::Full).unwrap();
    found(&mut *tx, database).unwrap();
    tx.commit().unwrap();
    ([joiner, host], database, ticket)
}

/// Hands frames over, then does storage work, one piece at a time, until nothing moves; notes each frame.
fn pump(sides: &mut [Side; 2], notes: &mut Vec<Value>, step: &str) {
    let mut due = VecDeque::new();
    loop {
        for n in 0..2 {
            while let Some(output) = sides[n].session.poll() {
                match output {
                    Output::Send(bytes) => {
                        notes.push(note(sides, n, &bytes, step));
                        sides[1 - n].incoming.push_back(bytes);
                    }
                    Output::Work(channel, work) => due.push_back((n, channel, work)),
                    Output::Closed { text, .. } => assert_eq!(text, "", "closed"),
                    Output::Greeted { .. } | Output::Event(..) => {}
                }
            }
        }
        if let Some(side) = sides.iter_mut().find(|side| !side.incoming.is_empty()) {
            let frame = side.incoming.pop_front().unwrap();
            side.session.receive(&frame);
        } else if let Some((n, channel, work)) = due.pop_front() {
            sides[n].perform(channel, work);
        } else {
            return;
        }
    }
}

fn note(sides: &mut [Side; 2], from: usize, bytes: &[u8], step: &str) -> Value {
    let frame = Frame::decode(bytes).unwrap();
    let name = format!("{step}, from the {}", sides[from].name);
    match &frame {
        Frame::Batch { channel, raw, bytes } => {
            sides[from].unacknowledged.push_back(bytes.len());
            let unpacked = zstd::bulk::decompress(bytes, *raw as usize).unwrap();
            json!({ "name": name, "batch": { "channel": channel, "unpacked": hex(unpacked) } })
        }
        Frame::Credit { channel, bytes } => {
            assert_eq!(sides[1 - from].unacknowledged.pop_front(), Some(*bytes as usize));
            json!({ "name": name, "credit": { "channel": channel, "bytes": "those of the batch" } })
        }
        _ => json!({ "name": name, "frame": hex(bytes), "read": described(&frame) }),
    }
}

fn made() -> Vec<Value> {
    let (mut sides, database, ticket) = sides();
    let mut notes = Vec::new();
    pump(&mut sides, &mut notes, "greet");
    let channel = sides[0].session.open(
        database,
        Direction::BOTH,
        Credentials { ticket: Some(&ticket), ..Credentials::default() },
    );
    pump(&mut sides, &mut notes, "join");
    sides[0].write(1_000_003, |ledger, author| _ = ledger.redeem(author, &ticket).unwrap());
    sides[0].session.committed(database);
    pump(&mut sides, &mut notes, "redeem");
    sides[1].put(1_000_004, "second");
    sides[1].session.committed(database);
    pump(&mut sides, &mut notes, "push");
    assert_eq!(sides[0].state(), sides[1].state());
    for side in &sides {
        assert!(side.session.channel(channel).is_some_and(Channel::is_settled));
    }
    sides[0].session.close(anabranch_sync::frame::Code::Done, "");
    pump(&mut sides, &mut notes, "leave");
    notes
}

#[test]
fn example() {
    let about = "A session from greeting to bye: binding b1…b1, host seed 01…01, joiner seed 02…02, ticket seed 09…09";
    for case in golden("session", about, made()) {
        if let Some(bytes) = case.get("frame") {
            assert_eq!(described(&Frame::decode(&unhex(bytes)).unwrap()), case["read"]);
        }
    }
}
