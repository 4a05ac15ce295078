//! Entries made by hand, as any device could make them, honest or not: every device's key is at hand, every entry is
//! signed, nothing is checked.

use anabranch_core::codec::Writer;
use anabranch_core::entry::{Entry, GrantRef, Header, Payload, StoreId, Timestamp};
use anabranch_core::head::Head;
use anabranch_core::id::{DatabaseId, EntryId, LogId, Position};
use anabranch_core::key::{DeviceKey, Signature};
use anabranch_core::ops::{MemberOp, Role, Subject, TicketTerms, encode_members};
use anabranch_core::run::Run;
use std::cell::RefCell;
use std::collections::BTreeMap;

#[derive(Clone)]
pub(crate) struct World {
    pub(crate) keys: Vec<DeviceKey>,
    pub(crate) database: DatabaseId,
    /// In an order in which everything comes after what it builds on.
    pub(crate) entries: Vec<Entry>,
    index: BTreeMap<EntryId, usize>,
    /// Heads made so far: signing is what takes the time.
    heads: RefCell<BTreeMap<Position, Signature>>,
}

/// What an entry is made of; the rest follows.
#[derive(Clone)]
pub(crate) struct Spec {
    pub(crate) log: LogId,
    /// The entry before it.
    pub(crate) prev: Option<usize>,
    pub(crate) parents: Vec<usize>,
    pub(crate) grant: GrantRef,
    pub(crate) timestamp: u64,
    pub(crate) payloads: Vec<(StoreId, Payload)>,
    /// Added to the right generation.
    pub(crate) lie: i64,
}

impl World {
    /// The genesis entry, by device 0, grants writing to devices 1 and up.
    pub(crate) fn new(devices: u8) -> Self {
        let keys: Vec<DeviceKey> = (1..=devices).map(|n| DeviceKey::from_seed(&[n; 32])).collect();
        let grants = keys.iter().enumerate().map(|(n, key)| {
            let role = if n == 0 { Role::Admin } else { Role::Write };
            grant(Subject::Device(key.node_id()), role, 0)
        });
        let ops: Vec<MemberOp> = grants.collect();
        Self::founded(keys, &ops)
    }

    /// The genesis entry, by device 0, with these operations.
    pub(crate) fn founded(keys: Vec<DeviceKey>, ops: &[MemberOp]) -> Self {
        let genesis = genesis(&keys[0], ops);
        let database = DatabaseId::of_genesis(genesis.id());
        let index = BTreeMap::from([(genesis.id(), 0)]);
        Self { keys, database, entries: vec![genesis], index, heads: RefCell::default() }
    }

    pub(crate) fn log(&self, device: usize, epoch: u64) -> LogId {
        LogId { device: self.keys[device].node_id(), epoch }
    }

    /// The grant made in the genesis entry for `device`.
    pub(crate) fn grant(&self, device: usize) -> GrantRef {
        GrantRef { entry: self.database.genesis(), index: device as u32 }
    }

    /// An empty entry of `device` after `prev` (in its log) or, in a new log, on top of the genesis entry.
    pub(crate) fn spec(&self, device: usize, epoch: u64, prev: Option<usize>) -> Spec {
        let log = self.log(device, epoch);
        let genesis = self.entries[0].header().log == log;
        let parents = if prev.is_some() || genesis { vec![] } else { vec![0] };
        let prev = if genesis { prev.or(Some(0)) } else { prev };
        let timestamp = 1_000 + self.entries.len() as u64;
        let grant = self.grant(device);
        Spec { log, prev, parents, grant, timestamp, payloads: vec![], lie: 0 }
    }

    /// Makes the entry, which then is part of the world.
    pub(crate) fn add(&mut self, spec: Spec) -> usize {
        let entry = self.make(spec);
        self.insert(entry)
    }

    pub(crate) fn insert(&mut self, entry: Entry) -> usize {
        let next = self.entries.len();
        let at = *self.index.entry(entry.id()).or_insert(next);
        if at == next {
            self.entries.push(entry);
        }
        at
    }

    /// Makes the entry.
    pub(crate) fn make(&self, spec: Spec) -> Entry {
        let prev = spec.prev.map(|at| &self.entries[at]);
        let mut parents: Vec<Position> =
            spec.parents.iter().map(|&at| self.entries[at].position()).collect();
        parents.sort();
        parents.dedup();
        let below = spec.parents.iter().map(|&at| &self.entries[at]).chain(prev);
        let generation = 1 + below.map(|e| e.header().generation).max().unwrap_or(0);
        let header = Header {
            database: Some(self.database),
            log: spec.log,
            seq: prev.map_or(1, |e| e.header().seq + 1),
            prev: prev.map(Entry::id),
            parents,
            generation: generation.saturating_add_signed(spec.lie),
            timestamp: Timestamp(spec.timestamp),
            grant: spec.grant,
            payloads: vec![],
            salt: None,
        };
        Entry::new(header, spec.payloads).unwrap()
    }

    /// The log's entries from the first one to `tip`.
    pub(crate) fn line(&self, tip: usize) -> Vec<Entry> {
        let mut line = vec![self.entries[tip].clone()];
        while let Some(prev) = line[line.len() - 1].header().prev {
            line.push(self.entries[self.index[&prev]].clone());
        }
        line.reverse();
        line
    }

    /// The last entries of the log up to `tip`, at most `count` and all with one grant, signed.
    pub(crate) fn run(&self, tip: usize, count: usize) -> Run {
        let line = self.line(tip);
        let grant = line[line.len() - 1].header().grant;
        let same = line.iter().rev().take_while(|e| e.header().grant == grant).count();
        self.run_of(line[line.len() - same.min(count)..].to_vec())
    }

    /// These entries, signed by the device of the last one.
    pub(crate) fn run_of(&self, entries: Vec<Entry>) -> Run {
        let signature = self.sign(&entries[entries.len() - 1].position());
        let parents = entries.iter().flat_map(|e| &e.header().parents).map(|p| self.sign(p));
        let parents = parents.collect();
        Run::new(self.database, entries, signature, parents)
    }

    /// The head over a place of any log; of strangers' logs a meaningless one.
    pub(crate) fn sign(&self, position: &Position) -> Signature {
        let sign = || {
            let key = self.keys.iter().find(|k| k.node_id() == position.log.device);
            Head::sign(key.unwrap_or(&self.keys[0]), &self.database, *position).signature
        };
        *self.heads.borrow_mut().entry(*position).or_insert_with(sign)
    }

    pub(crate) fn by_id(&self) -> BTreeMap<EntryId, &Entry> {
        self.entries.iter().map(|e| (e.id(), e)).collect()
    }
}

pub(crate) fn grant(subject: Subject, role: Role, priority: u32) -> MemberOp {
    MemberOp::Grant { subject, role, priority, terms: TicketTerms::default() }
}

pub(crate) fn members(ops: &[MemberOp]) -> (StoreId, Payload) {
    (StoreId::members(), Payload::Present(encode_members(ops)))
}

pub(crate) fn genesis(key: &DeviceKey, ops: &[MemberOp]) -> Entry {
    let header = Header {
        database: None,
        log: LogId { device: key.node_id(), epoch: 1 },
        seq: 1,
        prev: None,
        parents: vec![],
        generation: 1,
        timestamp: Timestamp(1_000),
        grant: GrantRef::OWN,
        payloads: vec![],
        salt: Some([9; 16]),
    };
    Entry::new(header, vec![members(ops)]).unwrap()
}

/// An operation of a cell store as bytes, sensible or not.
#[derive(Debug, Clone)]
pub(crate) struct RawOp {
    pub(crate) kind: u64,
    pub(crate) path: Vec<u8>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) names: Vec<anabranch_core::ops::ValueName>,
    /// Something that does not belong there.
    pub(crate) extra: bool,
}

/// An operation of a counter store as bytes, sensible or not.
#[derive(Debug, Clone)]
pub(crate) enum RawCount {
    Add(Vec<u8>, i64),
    Reset(Vec<u8>, i128),
    Other(u64),
}

/// Writes a counters payload as docs/format.md says, without the product's encoder.
pub(crate) fn counts(ops: &[RawCount]) -> Payload {
    let mut w = Writer::new();
    w.array(ops.len());
    for op in ops {
        match op {
            RawCount::Add(path, n) if *n < 0 => {
                w.array(3).u64(0).bytes(path).u64(2 * n.unsigned_abs().wrapping_sub(1) + 1)
            }
            RawCount::Add(path, n) => w.array(3).u64(0).bytes(path).u64(2 * n.unsigned_abs()),
            RawCount::Reset(path, n) => w.array(3).u64(1).bytes(path).bytes(&n.to_be_bytes()),
            RawCount::Other(kind) => w.array(2).u64(*kind).text("?"),
        };
    }
    Payload::Present(w.finish())
}

/// Writes a payload as docs/format.md says, without the product's encoder.
pub(crate) fn payload(own: &LogId, ops: &[RawOp]) -> Payload {
    let mut logs: Vec<LogId> = Vec::new();
    let mut body = Writer::new();
    body.array(ops.len());
    for op in ops {
        let fields = 2 + usize::from(op.value.is_some()) + usize::from(!op.names.is_empty());
        body.array(fields + usize::from(op.extra)).u64(op.kind).bytes(&op.path);
        if let Some(value) = &op.value {
            body.bytes(value);
        }
        if !op.names.is_empty() {
            body.array(op.names.len());
        }
        for name in &op.names {
            let number = if name.log == *own {
                0
            } else if let Some(at) = logs.iter().position(|log| *log == name.log) {
                at + 1
            } else {
                logs.push(name.log);
                logs.len()
            };
            body.array(4).u64(number as u64).u64(name.seq).u64(u64::from(name.index));
            body.bytes(&name.id16);
        }
        if op.extra {
            body.null();
        }
    }
    let mut w = Writer::new();
    w.array(2).array(logs.len());
    for log in &logs {
        w.array(2).bytes(&log.device.0).u64(log.epoch);
    }
    w.raw(&body.finish());
    Payload::Present(w.finish())
}
