//! Entries: one entry is one transaction, a header and one payload per store touched. The id is the hash of the canonical
//! header alone, so that chains and proofs need headers only and a payload can be absent. An entry carries no signature:
//! a [`crate::head::Head`] at or above it in its log vouches for it.

use crate::codec::{DecodeError, Reader, Writer};
use crate::id::{DatabaseId, EntryId, LogId, NodeId, Position, Seq};
use crate::limits;
use crate::sabotage::{self, Bug};
use std::fmt;

/// The version of the entry format.
pub const ENTRY_VERSION: u64 = 1;

/// What a store is built as; decides how its operations are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreKind(pub u32);

impl StoreKind {
    /// Grants and what else decides who may write. One store, with an empty name.
    pub const MEMBERS: Self = Self(0);
    /// Rows by key, one cell a column.
    pub const TABLE: Self = Self(1);
    /// Nested maps, one cell a leaf.
    pub const DOC: Self = Self(2);
    /// A directory: one cell a path.
    pub const FOLDER: Self = Self(3);
    /// Sums by path.
    pub const COUNTER: Self = Self(4);
    /// Elements that are in or not, one cell each.
    pub const SET: Self = Self(5);
    /// Content of any size by name: one cell each, which says where the content is.
    pub const BLOBS: Self = Self(7);
    /// What a sealed database is sealed with. One store, with an empty name.
    pub const KEYS: Self = Self(8);
    /// The first of the 65,536 kinds that are for applications, all of them cells.
    const FIRST_USER: u32 = 0x1_0000;

    /// The kind that is an application's own number `number`.
    #[must_use]
    pub fn user(number: u16) -> Self {
        Self(Self::FIRST_USER + u32::from(number))
    }

    /// The number of an application's own kind.
    #[must_use]
    pub fn user_number(self) -> Option<u16> {
        self.0.checked_sub(Self::FIRST_USER).and_then(|n| u16::try_from(n).ok())
    }

    /// Whether there is one store of it, with an empty name.
    fn is_nameless(self) -> bool {
        matches!(self, Self::MEMBERS | Self::KEYS)
    }

    /// Whether its operations are cell writes, which this program understands.
    #[must_use]
    pub fn has_cells(self) -> bool {
        matches!(self, Self::TABLE | Self::DOC | Self::FOLDER | Self::SET | Self::BLOBS)
            || self.user_number().is_some()
    }

    /// Whether its values name content.
    #[must_use]
    pub fn names_content(self) -> bool {
        matches!(self, Self::BLOBS | Self::FOLDER)
    }

    /// Whether its operations add to sums.
    #[must_use]
    pub fn has_sums(self) -> bool {
        self == Self::COUNTER
    }
}

impl fmt::Display for StoreKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::MEMBERS => f.write_str("members"),
            Self::TABLE => f.write_str("table"),
            Self::DOC => f.write_str("doc"),
            Self::FOLDER => f.write_str("folder"),
            Self::COUNTER => f.write_str("counter"),
            Self::SET => f.write_str("set"),
            Self::BLOBS => f.write_str("blobs"),
            Self::KEYS => f.write_str("keys"),
            Self(n) => write!(f, "kind-{n}"),
        }
    }
}

/// A store of a database. Two stores of one name but different kinds are different stores.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId {
    /// What it is built as.
    pub kind: StoreKind,
    /// Its name: at most [`limits::STORE_NAME_BYTES`] bytes.
    pub name: String,
}

impl StoreId {
    /// The store of grants.
    #[must_use]
    pub fn members() -> Self {
        Self { kind: StoreKind::MEMBERS, name: String::new() }
    }

    /// The store of keys.
    #[must_use]
    pub fn keys() -> Self {
        Self { kind: StoreKind::KEYS, name: String::new() }
    }

    /// A table.
    #[must_use]
    pub fn table(name: &str) -> Self {
        Self { kind: StoreKind::TABLE, name: name.to_owned() }
    }

    /// A document.
    #[must_use]
    pub fn doc(name: &str) -> Self {
        Self { kind: StoreKind::DOC, name: name.to_owned() }
    }

    /// A set.
    #[must_use]
    pub fn set(name: &str) -> Self {
        Self { kind: StoreKind::SET, name: name.to_owned() }
    }

    /// A store of blobs.
    #[must_use]
    pub fn blobs(name: &str) -> Self {
        Self { kind: StoreKind::BLOBS, name: name.to_owned() }
    }

    /// A store of counters.
    #[must_use]
    pub fn counter(name: &str) -> Self {
        Self { kind: StoreKind::COUNTER, name: name.to_owned() }
    }

    pub(crate) fn encode(&self, w: &mut Writer) {
        w.array(2).u64(u64::from(self.kind.0)).text(&self.name);
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.tuple("store", 2)?;
        let kind = StoreKind(r.u32("store kind")?);
        let name = r.text("store name", limits::STORE_NAME_BYTES)?.to_owned();
        Ok(Self { kind, name })
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// Microseconds since the Unix epoch, as the author claimed them. Only orders concurrent values and is shown to people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub u64);

impl Timestamp {
    const DAY: u64 = 24 * 3600 * 1_000_000;

    /// What a writer claims: its wall clock, or one past the latest of what it builds on if that is later, but never
    /// more than a day ahead of its own clock, so that one peer from the far future drags nobody along.
    #[must_use]
    pub fn claim(wall: Self, latest_parent: Option<Self>) -> Self {
        if sabotage::is(Bug::TimestampAlone) {
            return wall;
        }
        let after = latest_parent.map_or(0, |t| t.0.saturating_add(1));
        Self(wall.0.max(after.min(wall.0.saturating_add(Self::DAY))))
    }
}

/// Names a grant: the entry that made it and its operation's index in the members payload. In the genesis entry, which
/// uses its own first grant, the entry id is all zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrantRef {
    /// The entry that made it.
    pub entry: EntryId,
    /// Which operation of that entry's members payload.
    pub index: u32,
}

impl GrantRef {
    /// How the genesis entry names the grant it makes for itself.
    pub const OWN: Self = Self { entry: EntryId([0; 32]), index: 0 };
}

/// What the header says of a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadSummary {
    /// The store touched.
    pub store: StoreId,
    /// Bytes.
    pub len: u32,
    /// BLAKE3-256 of the bytes.
    pub hash: [u8; 32],
}

/// The part of an entry that is hashed into its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The database; `None` in the genesis entry, whose id becomes the database's.
    pub database: Option<DatabaseId>,
    /// The log.
    pub log: LogId,
    /// The place in the log, from 1.
    pub seq: Seq,
    /// The entry before it in the log; `None` exactly at place 1.
    pub prev: Option<EntryId>,
    /// Tips of other logs that it builds on, ascending, each a kept head, none covered by `prev` or by another.
    pub parents: Vec<Position>,
    /// 1 + the largest of `prev` and `parents`; 1 if there are none.
    pub generation: u64,
    /// The author's clock.
    pub timestamp: Timestamp,
    /// The grant that gives the author the right.
    pub grant: GrantRef,
    /// One for each store touched, ascending by store.
    pub payloads: Vec<PayloadSummary>,
    /// 16 random bytes in the genesis entry, so that two databases never share an id.
    pub salt: Option<[u8; 16]>,
}

impl Header {
    /// The canonical bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::onto(Vec::with_capacity(256));
        w.array(12).u64(ENTRY_VERSION);
        w.bytes(self.database.as_ref().map_or(&[][..], |d| &d.0));
        w.bytes(&self.log.device.0).u64(self.log.epoch).u64(self.seq);
        w.bytes(self.prev.as_ref().map_or(&[][..], |p| &p.0));
        w.array(self.parents.len());
        for p in &self.parents {
            w.array(4).bytes(&p.log.device.0).u64(p.log.epoch).u64(p.seq).bytes(&p.id.0);
        }
        w.u64(self.generation).u64(self.timestamp.0);
        w.array(2).bytes(&self.grant.entry.0).u64(u64::from(self.grant.index));
        w.array(self.payloads.len());
        for p in &self.payloads {
            w.array(4).u64(u64::from(p.store.kind.0)).text(&p.store.name);
            w.u64(u64::from(p.len)).bytes(&p.hash);
        }
        w.bytes(self.salt.as_ref().map_or(&[][..], |s| &s[..]));
        w.finish()
    }

    /// Reads canonical bytes.
    ///
    /// # Errors
    /// [`DecodeError`] for anything that is not exactly one canonical header within the limits.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        r.tuple("entry header", 12)?;
        let version = r.u64("entry version")?;
        if version != ENTRY_VERSION {
            return Err(DecodeError::Version {
                what: "an entry",
                found: version,
                supported: ENTRY_VERSION,
            });
        }
        let database = optional(&mut r, "database")?.map(DatabaseId);
        let device = NodeId(r.array_of("device")?);
        let log = LogId { device, epoch: r.u64("epoch")? };
        let seq = r.u64("sequence")?;
        let prev = optional(&mut r, "prev")?.map(EntryId);
        let parents = (0..r.array("parents", limits::PARENTS)?)
            .map(|_| decode_position(&mut r))
            .collect::<Result<Vec<_>, _>>()?;
        let generation = r.u64("generation")?;
        let timestamp = Timestamp(r.u64("timestamp")?);
        r.tuple("grant", 2)?;
        let grant = GrantRef { entry: EntryId(r.array_of("grant")?), index: r.u32("grant index")? };
        let payloads = (0..r.array("payloads", limits::PAYLOADS)?)
            .map(|_| decode_summary(&mut r))
            .collect::<Result<Vec<_>, _>>()?;
        let salt = optional(&mut r, "salt")?;
        r.finish()?;
        let header = Self {
            database,
            log,
            seq,
            prev,
            parents,
            generation,
            timestamp,
            grant,
            payloads,
            salt,
        };
        header.check_shape()?;
        Ok(header)
    }

    /// The id of the entry with this header.
    #[must_use]
    pub fn id(&self) -> EntryId {
        EntryId(*blake3::hash(&self.encode()).as_bytes())
    }

    /// What must hold of every header whatever else is known: order, uniqueness, and what belongs together.
    ///
    /// # Errors
    /// [`DecodeError::NotCanonical`] or [`DecodeError::TooLarge`], naming the field.
    pub fn check_shape(&self) -> Result<(), DecodeError> {
        let need = |ok: bool, what| {
            if ok { Ok(()) } else { Err(DecodeError::NotCanonical { what, at: 0 }) }
        };
        let genesis = self.database.is_none();
        need(self.seq >= 1 && self.seq < u64::MAX >> 1, "sequence")?;
        need((self.seq == 1) == self.prev.is_none(), "prev")?;
        need(genesis == self.salt.is_some(), "salt")?;
        need(genesis == (self.grant == GrantRef::OWN), "grant")?;
        need(!genesis || (self.seq == 1 && self.parents.is_empty()), "genesis")?;
        need(self.parents.len() <= limits::PARENTS, "parents")?;
        need(self.parents.windows(2).all(|p| p[0] < p[1]), "order of parents")?;
        need(self.parents.iter().all(|p| p.seq >= 1), "parent")?;
        need(self.payloads.len() <= limits::PAYLOADS, "payloads")?;
        need(self.payloads.windows(2).all(|p| p[0].store < p[1].store), "order of payloads")?;
        for p in &self.payloads {
            need(p.store.name.len() <= limits::STORE_NAME_BYTES, "store name")?;
            need(p.store.kind.is_nameless() == p.store.name.is_empty(), "store name")?;
        }
        Ok(())
    }

    /// Bytes the entry counts for: its canonical header (`header_len`) and its payloads.
    #[must_use]
    pub fn entry_bytes(&self, header_len: usize) -> usize {
        self.payloads.iter().fold(header_len, |sum, p| sum.saturating_add(p.len as usize))
    }
}

fn optional<const N: usize>(
    r: &mut Reader<'_>,
    what: &'static str,
) -> Result<Option<[u8; N]>, DecodeError> {
    let at = r.position();
    let bytes = r.bytes(what, N)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    bytes.try_into().map(Some).map_err(|_| DecodeError::Malformed { what, at })
}

pub(crate) fn decode_position(r: &mut Reader<'_>) -> Result<Position, DecodeError> {
    r.tuple("position", 4)?;
    let device = NodeId(r.array_of("device")?);
    let log = LogId { device, epoch: r.u64("epoch")? };
    Ok(Position { log, seq: r.u64("sequence")?, id: EntryId(r.array_of("entry id")?) })
}

fn decode_summary(r: &mut Reader<'_>) -> Result<PayloadSummary, DecodeError> {
    r.tuple("payload", 4)?;
    let kind = StoreKind(r.u32("store kind")?);
    let name = r.text("store name", limits::STORE_NAME_BYTES)?.to_owned();
    let len = r.number("payload length", limits::ENTRY_BYTES as u64)? as u32;
    Ok(PayloadSummary { store: StoreId { kind, name }, len, hash: r.array_of("payload hash")? })
}

/// A payload: its bytes, or only what the header says of it when they are absent (erased or pruned).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// The operations.
    Present(Vec<u8>),
    /// Length and hash of bytes that this replica does not hold.
    Absent {
        /// Bytes.
        len: u32,
        /// BLAKE3-256.
        hash: [u8; 32],
    },
}

impl Payload {
    /// What a header says of this payload in `store`.
    #[must_use]
    pub fn summary(&self, store: StoreId) -> PayloadSummary {
        match self {
            Self::Present(bytes) => PayloadSummary {
                store,
                len: bytes.len() as u32,
                hash: *blake3::hash(bytes).as_bytes(),
            },
            Self::Absent { len, hash } => PayloadSummary { store, len: *len, hash: *hash },
        }
    }

    /// The bytes, if they are here.
    #[must_use]
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Present(bytes) => Some(bytes),
            Self::Absent { .. } => None,
        }
    }
}

/// A whole entry. Its id is computed once, when it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    id: EntryId,
    bytes: usize,
    header: Header,
    payloads: Vec<Payload>,
}

impl Entry {
    /// Puts header and payloads together; what the header says of the payloads is computed from them here.
    ///
    /// # Errors
    /// [`DecodeError`] when the shape is wrong or the entry too large.
    pub fn new(mut header: Header, payloads: Vec<(StoreId, Payload)>) -> Result<Self, DecodeError> {
        let (summaries, payloads): (Vec<_>, Vec<_>) =
            payloads.into_iter().map(|(store, p)| (p.summary(store), p)).unzip();
        header.payloads = summaries;
        header.check_shape()?;
        let encoded = header.encode();
        let bytes = header.entry_bytes(encoded.len());
        if bytes > limits::ENTRY_BYTES {
            return Err(DecodeError::TooLarge {
                what: "an entry's size",
                found: bytes as u64,
                limit: limits::ENTRY_BYTES as u64,
            });
        }
        let id = EntryId(*blake3::hash(&encoded).as_bytes());
        Ok(Self { id, bytes, header, payloads })
    }

    /// Hash of the canonical header.
    #[must_use]
    pub fn id(&self) -> EntryId {
        self.id
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The payloads with their stores, ascending by store.
    pub fn payloads(&self) -> impl Iterator<Item = (&StoreId, &Payload)> {
        self.header.payloads.iter().map(|p| &p.store).zip(&self.payloads)
    }

    /// Where it stands.
    #[must_use]
    pub fn position(&self) -> Position {
        Position { log: self.header.log, seq: self.header.seq, id: self.id }
    }

    /// The database it belongs to.
    #[must_use]
    pub fn database(&self) -> DatabaseId {
        self.header.database.unwrap_or_else(|| DatabaseId::of_genesis(self.id))
    }

    /// What it counts against [`limits::RUN_BYTES`].
    #[must_use]
    pub fn run_bytes(&self) -> usize {
        self.bytes + self.header.parents.len() * limits::RUN_PARENT_BYTES
    }

    /// Canonical bytes of header and payloads together.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
