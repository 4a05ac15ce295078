//! A small world of fixed keys, clocks and salts: entries made by hand, each signed, so that the vectors depend on no
//! writer's policy; and a replica that takes them in any order.

use crate::file::hex;
use anabranch_core::admit::{Load, admit_all};
use anabranch_core::codec::{Reader, Writer};
use anabranch_core::entry::{Entry, GrantRef, Header, Payload, StoreId, Timestamp};
use anabranch_core::error::Error;
use anabranch_core::head::Head;
use anabranch_core::id::{DatabaseId, LogId, Position};
use anabranch_core::key::{DeviceKey, Signature};
use anabranch_core::ledger::found;
use anabranch_core::ops::{MemberOp, Role, Subject, TicketTerms, encode_members};
use anabranch_core::run::{Run, VerifiedRun};
use anabranch_core::storage::{Durability, Storage};
use anabranch_store::MemoryStorage;
use std::collections::BTreeMap;

/// A device's log and the last place written there. A clone of one forks the log.
#[derive(Clone)]
pub(crate) struct Scribe {
    pub(crate) key: DeviceKey,
    pub(crate) log: LogId,
    pub(crate) tip: Option<Position>,
}

impl Scribe {
    pub(crate) fn new(seed: u8) -> Self {
        let key = DeviceKey::from_seed(&[seed; 32]);
        let log = LogId { device: key.node_id(), epoch: 1000 + u64::from(seed) };
        Self { key, log, tip: None }
    }
}

/// What an entry is to say.
#[derive(Clone)]
pub(crate) struct Spec {
    pub(crate) parents: Vec<Position>,
    pub(crate) timestamp: u64,
    pub(crate) grant: GrantRef,
    pub(crate) payloads: Vec<(StoreId, Vec<u8>)>,
    /// Added to the right generation.
    pub(crate) lie: u64,
}

/// Everything written so far, with its heads.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) database: DatabaseId,
    /// The grant that made the first admin.
    pub(crate) admin: GrantRef,
    known: BTreeMap<Position, (u64, Signature)>,
}

pub(crate) fn grant(subject: Subject, role: Role, priority: u32) -> MemberOp {
    MemberOp::Grant { subject, role, priority, terms: TicketTerms::default() }
}

pub(crate) fn members(ops: &[MemberOp]) -> (StoreId, Vec<u8>) {
    (StoreId::members(), encode_members(ops))
}

impl World {
    /// A database founded by `scribe`, whose genesis entry has these operations.
    pub(crate) fn founded_with(scribe: &mut Scribe, ops: &[MemberOp]) -> (Self, Entry) {
        let header = Header {
            database: None,
            log: scribe.log,
            seq: 1,
            prev: None,
            parents: Vec::new(),
            generation: 1,
            timestamp: Timestamp(1_000_000),
            grant: GrantRef::OWN,
            payloads: Vec::new(),
            salt: Some([0x5a; 16]),
        };
        let (store, bytes) = members(ops);
        let entry = Entry::new(header, vec![(store, Payload::Present(bytes))]).unwrap();
        let admin = GrantRef { entry: entry.id(), index: 0 };
        let mut world = Self { database: entry.database(), admin, known: BTreeMap::new() };
        world.note(&entry, &scribe.key);
        scribe.tip = Some(entry.position());
        (world, entry)
    }

    /// A database founded by `scribe`, who may do everything, and where `others` may write.
    pub(crate) fn founded(scribe: &mut Scribe, others: &[&Scribe]) -> (Self, Entry) {
        let mut ops = vec![grant(Subject::Device(scribe.log.device), Role::Admin, 0)];
        ops.extend(others.iter().map(|o| grant(Subject::Device(o.log.device), Role::Write, 0)));
        Self::founded_with(scribe, &ops)
    }

    /// The grant with this index in the genesis entry.
    pub(crate) fn granted(&self, index: u32) -> GrantRef {
        GrantRef { index, ..self.admin }
    }

    fn note(&mut self, entry: &Entry, key: &DeviceKey) {
        let head = Head::sign(key, &self.database, entry.position());
        self.known.insert(entry.position(), (entry.header().generation, head.signature));
    }

    /// The next entry of `scribe`, signed.
    pub(crate) fn write(&mut self, scribe: &mut Scribe, spec: Spec) -> Entry {
        let below = scribe.tip.iter().chain(&spec.parents);
        let generation = below.map(|p| self.known[p].0).max().unwrap_or(0) + 1 + spec.lie;
        let mut parents = spec.parents;
        parents.sort_unstable();
        let header = Header {
            database: Some(self.database),
            log: scribe.log,
            seq: scribe.tip.map_or(1, |p| p.seq + 1),
            prev: scribe.tip.map(|p| p.id),
            parents,
            generation,
            timestamp: Timestamp(spec.timestamp),
            grant: spec.grant,
            payloads: Vec::new(),
            salt: None,
        };
        let payloads = spec.payloads.into_iter().map(|(s, p)| (s, Payload::Present(p))).collect();
        let entry = Entry::new(header, payloads).unwrap();
        self.note(&entry, &scribe.key);
        scribe.tip = Some(entry.position());
        entry
    }

    pub(crate) fn signature(&self, position: &Position) -> Signature {
        self.known[position].1
    }

    /// The run of these entries of one log.
    pub(crate) fn run(&self, entries: &[&Entry]) -> Run {
        let entries: Vec<Entry> = entries.iter().copied().cloned().collect();
        let signature = self.signature(&entries.last().unwrap().position());
        let parents = entries.iter().flat_map(|e| &e.header().parents);
        let signatures = parents.map(|p| self.signature(p)).collect();
        Run::new(self.database, entries, signature, signatures)
    }

    /// Each entry as a run of its own, on the wire.
    pub(crate) fn runs(&self, entries: &[&Entry]) -> Vec<String> {
        entries.iter().map(|e| hex(encoded(&self.run(&[e])))).collect()
    }
}

pub(crate) fn encoded(run: &Run) -> Vec<u8> {
    let mut w = Writer::new();
    run.encode(&mut w);
    w.finish()
}

/// Reads and verifies one run.
pub(crate) fn verified(bytes: &[u8], database: DatabaseId) -> Result<VerifiedRun, Error> {
    let mut r = Reader::new(bytes);
    let run = Run::decode(&mut r, database)?;
    r.finish()?;
    Ok(run.verify()?)
}

/// An empty replica of `database`.
pub(crate) fn replica(database: DatabaseId) -> MemoryStorage {
    let storage = MemoryStorage::new();
    let mut tx = storage.write(Durability::Full).unwrap();
    found(&mut *tx, database).unwrap();
    tx.commit().unwrap();
    storage
}

/// Admits one run in a transaction of its own. `Ok(false)`: it waits for something.
pub(crate) fn admit(storage: &MemoryStorage, run: &VerifiedRun) -> Result<bool, Error> {
    let mut tx = storage.write(Durability::Full).unwrap();
    let waits = !admit_all(&mut *tx, [run], Load::AtOnce, None)?.waiting.is_empty();
    tx.commit().unwrap();
    Ok(!waits)
}

/// Admits all of them, those that wait again after the others.
pub(crate) fn admit_in_turn(storage: &MemoryStorage, runs: &[VerifiedRun]) {
    let mut open: Vec<&VerifiedRun> = runs.iter().collect();
    while !open.is_empty() {
        let before = open.len();
        open.retain(|run| !admit(storage, run).unwrap());
        assert!(open.len() < before, "something is missing");
    }
}
