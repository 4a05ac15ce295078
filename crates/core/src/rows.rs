//! The records behind [`crate::storage::Table`]: how each row's key and value look in bytes. Nothing here is signed or
//! sent; docs/format.md describes it for those who open a database file with other tools.

use crate::body::Body;
use crate::codec::{DecodeError, Reader, Writer, put_varint, take_varint};
use crate::entry::{StoreId, Timestamp};
use crate::error::corrupt;
use crate::id::{EntryId, LogId, NodeId, Seq};
use crate::key::Signature;
use crate::lthash::LtHash;
use crate::ops::{Role, Subject, TicketTerms};
use crate::storage::{ReadTx, StorageError, Table, WriteTx};

/// A branch of a log, numbered by this replica. Nearly every log has one; a forked log has one for each side, each
/// owning the places after the one where it left its base.
pub(crate) type BranchNo = u32;
pub(crate) type StoreNo = u32;
pub(crate) type GrantNo = u32;
pub(crate) type RevocationNo = u32;

/// The most that a row may state of anything that is counted on. Nothing gets near it, and two of them can be added: what
/// states more is damaged, and must not become an overflow.
pub(crate) const MOST: u64 = u64::MAX >> 1;
/// As [`MOST`], where the number has 32 bits.
const MOST_32: u64 = (u32::MAX >> 1) as u64;

/// A record that has a key and a table of its own.
pub(crate) trait Row: Sized {
    const TABLE: Table;
    const WHAT: &'static str;
    fn encode(&self, w: &mut Writer);
    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError>;

    fn get(tx: &dyn ReadTx, key: &[u8]) -> Result<Option<Self>, StorageError> {
        tx.get(Self::TABLE, key)?.map(|bytes| Self::from_bytes(&bytes)).transpose()
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, StorageError> {
        let mut r = Reader::new(bytes);
        Self::decode(&mut r)
            .and_then(|row| r.finish().map(|()| row))
            .map_err(|e| StorageError::Corrupt(format!("{}: {e}", Self::WHAT)))
    }

    fn put(&self, tx: &mut dyn WriteTx, key: &[u8]) -> Result<(), StorageError> {
        let mut w = Writer::new();
        self.encode(&mut w);
        tx.put(Self::TABLE, key, &w.finish())
    }
}

/// A place in a log that an entry can have.
fn place(r: &mut Reader<'_>) -> Result<Seq, DecodeError> {
    let at = r.position();
    match r.number("sequence", MOST)? {
        0 => Err(DecodeError::Malformed { what: "sequence", at }),
        seq => Ok(seq),
    }
}

pub(crate) fn key32(n: u32) -> [u8; 4] {
    n.to_be_bytes()
}

pub(crate) fn branch_key(branch: BranchNo, seq: Seq) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&branch.to_be_bytes());
    key[4..].copy_from_slice(&seq.to_be_bytes());
    key
}

pub(crate) fn split_branch_key(key: &[u8]) -> Result<(BranchNo, Seq), StorageError> {
    let (branch, seq) = key.split_at_checked(4).ok_or_else(|| corrupt("a key"))?;
    match (branch.try_into(), seq.try_into()) {
        (Ok(branch), Ok(seq)) => Ok((u32::from_be_bytes(branch), u64::from_be_bytes(seq))),
        _ => Err(corrupt("a key")),
    }
}

pub(crate) fn last4(key: &[u8]) -> Result<u32, StorageError> {
    let last = key.last_chunk::<4>().ok_or_else(|| corrupt("a key"))?;
    Ok(u32::from_be_bytes(*last))
}

pub(crate) fn log_key(log: &LogId) -> [u8; 40] {
    let mut key = [0; 40];
    key[..32].copy_from_slice(&log.device.0);
    key[32..].copy_from_slice(&log.epoch.to_be_bytes());
    key
}

/// What keys of grants to tickets begin with.
pub(crate) const TICKETS: [u8; 1] = [2];
/// What keys of grants to people begin with. (3 is for what a grant was made with.)
pub(crate) const PEOPLE: [u8; 1] = [4];

pub(crate) fn subject_key(subject: &Subject) -> Vec<u8> {
    match subject {
        Subject::Device(key) => [&[0][..], &key.0].concat(),
        Subject::Anyone => vec![1],
        Subject::Ticket(key) => [&TICKETS[..], &key.0].concat(),
        Subject::Person(person) => [&PEOPLE[..], &person.0].concat(),
    }
}

/// Counters of the whole database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Arrival number of the next entry.
    pub(crate) next_arrival: u64,
    /// Where the newest entry went, to extend its segment.
    pub(crate) last: (BranchNo, Seq),
    pub(crate) branches: u32,
    pub(crate) stores: u32,
    pub(crate) grants: u32,
    /// Remembered names of values not held.
    pub(crate) names: u64,
    /// Arrival number of the last entry that digests of stores are summed up to, as far as their cells are there; those
    /// after it only add values ([`crate::unsummed`]).
    pub(crate) summed: u64,
    pub(crate) revocations: u32,
}

impl Counters {
    /// Of a replica that holds nothing.
    pub(crate) const NONE: Self = Self {
        next_arrival: 1,
        last: (0, 0),
        branches: 0,
        stores: 0,
        grants: 0,
        names: 0,
        summed: 0,
        revocations: 0,
    };

    /// Entries that digests lack.
    pub(crate) fn unsummed(&self) -> u64 {
        (self.next_arrival - 1).saturating_sub(self.summed)
    }
}

pub(crate) const META_DATABASE: &[u8] = b"database";
pub(crate) const META_COUNTERS: &[u8] = b"counters";
pub(crate) const META_FRONTIER: &[u8] = b"frontier";
pub(crate) const META_OWN: &[u8] = b"own";
/// Arrival number up to which cells are what the entries say; no row: all of them are.
pub(crate) const META_BUILT: &[u8] = b"built";
/// There if content that values name is kept elsewhere: in the files of a folder.
pub(crate) const META_ELSEWHERE: &[u8] = b"elsewhere";
/// There if the database is sealed.
pub(crate) const META_SEALED: &[u8] = b"sealed";

impl Row for Counters {
    const TABLE: Table = Table::Meta;
    const WHAT: &'static str = "counters";

    fn encode(&self, w: &mut Writer) {
        w.array(9).u64(self.next_arrival).u64(u64::from(self.last.0)).u64(self.last.1);
        w.u64(u64::from(self.branches)).u64(u64::from(self.stores));
        w.u64(u64::from(self.grants)).u64(self.names).u64(self.summed);
        w.u64(u64::from(self.revocations));
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.tuple("counters", 9)?;
        let at = r.position();
        let next_arrival = r.number("arrival", MOST)?;
        if next_arrival == 0 {
            return Err(DecodeError::Malformed { what: "arrival", at });
        }
        Ok(Self {
            next_arrival,
            last: (r.u32("branch")?, r.number("sequence", MOST)?),
            branches: r.number("branches", MOST_32)? as u32,
            stores: r.number("stores", MOST_32)? as u32,
            grants: r.number("grants", MOST_32)? as u32,
            names: r.number("names", MOST)?,
            summed: r.number("summed", next_arrival - 1)?,
            revocations: r.number("revocations", MOST_32)? as u32,
        })
    }
}

/// What this replica knows of the log it writes itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Own {
    pub(crate) log: LogId,
    /// The last entry it wrote there; 0 before the first.
    pub(crate) seq: Seq,
    pub(crate) id: EntryId,
    /// Mark of the storage it was written on.
    pub(crate) instance: [u8; 32],
}

impl Row for Own {
    const TABLE: Table = Table::Meta;
    const WHAT: &'static str = "the own log's record";

    fn encode(&self, w: &mut Writer) {
        w.array(5).bytes(&self.log.device.0).u64(self.log.epoch).u64(self.seq);
        w.bytes(&self.id.0).bytes(&self.instance);
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.tuple("own log", 5)?;
        let device = NodeId(r.array_of("device")?);
        Ok(Self {
            log: LogId { device, epoch: r.u64("epoch")? },
            seq: r.number("sequence", MOST)?,
            id: EntryId(r.array_of("entry id")?),
            instance: r.array_of("instance")?,
        })
    }
}

/// Where a branch stands at one of its places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tip {
    pub(crate) seq: Seq,
    pub(crate) id: EntryId,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Branch {
    pub(crate) log: LogId,
    /// The branch and place it continues; `None` at the start of a log.
    pub(crate) base: Option<(BranchNo, Seq)>,
    /// The last entry.
    pub(crate) tip: Tip,
    pub(crate) generation: u64,
    pub(crate) timestamp: Timestamp,
    /// The last kept head: what peers are told. Below `tip` only in a log of our own between a commit and its signing.
    pub(crate) head: Option<Tip>,
    /// Entries and run bytes above `head`.
    pub(crate) unsigned: (u32, u32),
    /// The grant that the last entry uses; 0 for genesis.
    pub(crate) grant: GrantNo,
    /// The last place that peers compare, where it is not `head`: what is above does not count and nothing that is needed
    /// builds on it. At the base or below: nothing of the branch is compared.
    pub(crate) cut: Option<Tip>,
}

impl Branch {
    pub(crate) fn base_seq(&self) -> Seq {
        self.base.map_or(0, |(_, seq)| seq)
    }

    /// The last place of its own that peers compare, if there is one and it is signed.
    pub(crate) fn told(&self) -> Option<Tip> {
        let base = self.base_seq();
        let signed = self.head?;
        let told = self.cut.filter(|cut| cut.seq < signed.seq).unwrap_or(signed);
        Some(told).filter(|told| told.seq > base)
    }

    /// The last place that counts or that something builds on which does.
    pub(crate) fn needed(&self) -> Tip {
        self.cut.unwrap_or(self.tip)
    }

    /// Whether the entry at `seq` belongs to this branch itself.
    pub(crate) fn owns(&self, seq: Seq) -> bool {
        self.base_seq() < seq && seq <= self.tip.seq
    }
}

impl Row for Branch {
    const TABLE: Table = Table::Branch;
    const WHAT: &'static str = "a branch";

    fn encode(&self, w: &mut Writer) {
        w.array(14).bytes(&self.log.device.0).u64(self.log.epoch);
        let base = self.base.map_or((0, 0), |(b, s)| (u64::from(b) + 1, s));
        w.u64(base.0).u64(base.1);
        w.u64(self.tip.seq).bytes(&self.tip.id.0).u64(self.generation).u64(self.timestamp.0);
        let head = self.head.unwrap_or(Tip { seq: 0, id: EntryId([0; 32]) });
        w.u64(head.seq).bytes(&head.id.0);
        w.u64(u64::from(self.unsigned.0)).u64(u64::from(self.unsigned.1));
        w.u64(u64::from(self.grant));
        match &self.cut {
            None => w.null(),
            Some(cut) => w.array(2).u64(cut.seq).bytes(&cut.id.0),
        };
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.tuple("branch", 14)?;
        let device = NodeId(r.array_of("device")?);
        let log = LogId { device, epoch: r.u64("epoch")? };
        let (base, base_seq) = (r.u32("base")?, r.u64("base")?);
        let tip = Tip { seq: r.number("tip", MOST)?, id: EntryId(r.array_of("tip")?) };
        let generation = r.number("generation", MOST)?;
        let timestamp = Timestamp(r.u64("timestamp")?);
        let head = Tip { seq: r.u64("head")?, id: EntryId(r.array_of("head")?) };
        if base_seq > tip.seq || head.seq > tip.seq {
            return Err(DecodeError::Malformed { what: "branch", at: r.position() });
        }
        Ok(Self {
            log,
            base: base.checked_sub(1).map(|b| (b, base_seq)),
            tip,
            generation,
            timestamp,
            head: (head.seq > 0).then_some(head),
            unsigned: (r.number("unsigned", MOST_32)? as u32, r.u32("unsigned")?),
            grant: r.u32("grant")?,
            cut: if r.null() { None } else { Some(decode_cut(r, tip.seq)?) },
        })
    }
}

fn decode_cut(r: &mut Reader<'_>, tip: Seq) -> Result<Tip, DecodeError> {
    r.tuple("cut", 2)?;
    Ok(Tip { seq: r.number("cut", tip)?, id: EntryId(r.array_of("cut")?) })
}

/// A kept head, under its (branch, sequence).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeadRow {
    pub(crate) signature: Signature,
    /// Arrival number of the entry it signs; runs are sent in this order.
    pub(crate) arrival: u64,
    /// Never dropped: an entry names it as a parent, or a branch leaves its log below it.
    pub(crate) pinned: bool,
    /// Entries and run bytes since the kept head before it (bytes: at most).
    pub(crate) span: (u32, u32),
}

impl Row for HeadRow {
    const TABLE: Table = Table::Head;
    const WHAT: &'static str = "a head";

    fn encode(&self, w: &mut Writer) {
        w.array(5).bytes(&self.signature.0).u64(self.arrival).bool(self.pinned);
        w.u64(u64::from(self.span.0)).u64(u64::from(self.span.1));
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.tuple("head", 5)?;
        Ok(Self {
            signature: Signature(r.array_of("signature")?),
            arrival: r.number("arrival", MOST)?,
            pinned: r.bool("pinned")?,
            span: (r.number("span", MOST_32)? as u32, r.u32("span")?),
        })
    }
}

/// An entry as stored, under its arrival number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EntryRow<'p> {
    pub(crate) id: EntryId,
    pub(crate) branch: BranchNo,
    pub(crate) seq: Seq,
    /// Logs are branch numbers, stores and grants as in their tables; the genesis entry's grant is its own, number 0.
    pub(crate) body: Body<'p>,
}

impl Row for EntryRow<'_> {
    const TABLE: Table = Table::Entry;
    const WHAT: &'static str = "an entry";

    fn encode(&self, w: &mut Writer) {
        w.bytes(&self.id.0).u64(u64::from(self.branch)).u64(self.seq);
        self.body.encode(w);
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let id = EntryId(r.array_of("entry id")?);
        let (branch, seq) = (r.u32("branch")?, place(r)?);
        Ok(Self { id, branch, seq, body: Body::decode(r)? })
    }
}

/// What an entry's row says without its payloads.
pub(crate) struct Outline {
    pub(crate) branch: BranchNo,
    pub(crate) seq: Seq,
    pub(crate) grant: GrantNo,
    pub(crate) parents: Vec<(BranchNo, Seq)>,
    pub(crate) stores: Vec<StoreNo>,
}

impl EntryRow<'_> {
    /// Without the payloads, which are most of it.
    pub(crate) fn outline(bytes: &[u8]) -> Result<Outline, StorageError> {
        let mut r = Reader::new(bytes);
        let outline = (|| {
            r.skip("entry id")?;
            let (branch, seq) = (r.u32("branch")?, place(&mut r)?);
            let (grant, parents, stores) = Body::outline(&mut r)?;
            Ok::<_, DecodeError>(Outline { branch, seq, grant, parents, stores })
        })();
        outline.map_err(|_| corrupt("an entry"))
    }

    /// Only the id: the cheap part.
    pub(crate) fn id_of(bytes: &[u8]) -> Result<EntryId, StorageError> {
        Reader::new(bytes).array_of("entry id").map(EntryId).map_err(|_| corrupt("an entry"))
    }

    /// Only branch and place.
    pub(crate) fn place_of(bytes: &[u8]) -> Result<(BranchNo, Seq), StorageError> {
        let mut r = Reader::new(bytes);
        let place = r.skip("entry id").and_then(|()| Ok((r.u32("branch")?, place(&mut r)?)));
        place.map_err(|_| corrupt("an entry"))
    }
}

/// A store and what has been summed up of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoreRow {
    pub(crate) id: StoreId,
    /// Sum over the live values.
    pub(crate) sum: LtHash,
    /// Live values.
    pub(crate) live: u64,
    /// Holds operations that this program does not understand.
    pub(crate) needs_newer: bool,
}

impl Row for StoreRow {
    const TABLE: Table = Table::Store;
    const WHAT: &'static str = "a store";

    fn encode(&self, w: &mut Writer) {
        w.array(4);
        self.id.encode(w);
        w.bytes(&self.sum.to_bytes()).u64(self.live).bool(self.needs_newer);
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.tuple("store", 4)?;
        let id = StoreId::decode(r)?;
        let at = r.position();
        let sum = LtHash::from_bytes(r.bytes("digest state", LtHash::STATE_BYTES)?)
            .ok_or(DecodeError::Malformed { what: "digest state", at })?;
        Ok(Self {
            id,
            sum,
            live: r.number("live values", MOST)?,
            needs_newer: r.bool("needs newer")?,
        })
    }
}

/// A grant, as its entry made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GrantRow {
    pub(crate) entry: EntryId,
    pub(crate) index: u32,
    pub(crate) branch: BranchNo,
    pub(crate) seq: Seq,
    pub(crate) generation: u64,
    pub(crate) subject: Subject,
    pub(crate) role: Role,
    pub(crate) priority: u32,
    pub(crate) depth: u32,
    /// The grant it was made with; of a redemption: the ticket.
    pub(crate) used: GrantNo,
    pub(crate) terms: TicketTerms,
    /// Whether the entry that made it counts.
    pub(crate) counts: bool,
    /// Revocations that name it.
    pub(crate) revocations: u32,
    /// Those of them that count.
    pub(crate) ended: u32,
}

impl GrantRow {
    /// Lower is higher.
    pub(crate) fn rank(&self) -> Rank {
        (self.priority, self.depth, self.entry, self.index)
    }

    /// Whether it may be used now.
    pub(crate) fn holds(&self) -> bool {
        self.counts && self.ended == 0
    }
}

/// Priority, depth, and what the grant is named by.
pub(crate) type Rank = (u32, u32, EntryId, u32);

/// A revocation, as its entry made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RevocationRow {
    pub(crate) entry: EntryId,
    pub(crate) index: u32,
    pub(crate) branch: BranchNo,
    pub(crate) seq: Seq,
    pub(crate) generation: u64,
    /// The grant it was made with.
    pub(crate) used: GrantNo,
    /// The grant it ends.
    pub(crate) target: GrantNo,
    /// Whether it counts.
    pub(crate) counts: bool,
}

impl RevocationRow {
    /// In the place of an index: it follows from what its entry embeds.
    pub(crate) const TOLD: u32 = u32::MAX;

    pub(crate) fn is_told(&self) -> bool {
        self.index == Self::TOLD
    }

    /// Whether the holder gave the grant up.
    pub(crate) fn resigns(&self) -> bool {
        self.used == self.target
    }
}

impl Row for RevocationRow {
    const TABLE: Table = Table::Membership;
    const WHAT: &'static str = "a revocation";

    fn encode(&self, w: &mut Writer) {
        w.array(8).bytes(&self.entry.0).u64(u64::from(self.index));
        w.u64(u64::from(self.branch)).u64(self.seq).u64(self.generation);
        w.u64(u64::from(self.used)).u64(u64::from(self.target)).bool(self.counts);
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.tuple("revocation", 8)?;
        Ok(Self {
            entry: EntryId(r.array_of("entry id")?),
            index: r.u32("index")?,
            branch: r.u32("branch")?,
            seq: place(r)?,
            generation: r.number("generation", MOST)?,
            used: r.u32("grant")?,
            target: r.u32("grant")?,
            counts: r.bool("counts")?,
        })
    }
}

/// Keys of [`Table::Membership`].
pub(crate) mod membership_key {
    use super::{BranchNo, GrantNo, RevocationNo, branch_key, key32};
    use crate::id::{NodeId, Seq};

    /// → [`super::RevocationRow`].
    pub(crate) fn revocation(number: RevocationNo) -> Vec<u8> {
        [&[0][..], &key32(number)].concat()
    }

    /// → the last place of the branch that the revocation leaves, as 8 bytes.
    pub(crate) fn left(number: RevocationNo, branch: BranchNo) -> Vec<u8> {
        [&[1][..], &key32(number), &key32(branch)].concat()
    }

    /// Revocations that name a grant: this, then the number of each.
    pub(crate) fn against(grant: GrantNo) -> Vec<u8> {
        [&[2][..], &key32(grant)].concat()
    }

    /// Revocations made with a grant: this, then the number of each.
    pub(crate) fn made_with(grant: GrantNo) -> Vec<u8> {
        [&[3][..], &key32(grant)].concat()
    }

    /// Revocations that the entry at a place made: this, then the number of each.
    pub(crate) fn made_at(branch: BranchNo, seq: Seq) -> Vec<u8> {
        [&[8][..], &branch_key(branch, seq)].concat()
    }

    /// The entry that arrived under that number changed what counts of those before it.
    pub(crate) fn recounted(arrival: u64) -> Vec<u8> {
        [&[9][..], &arrival.to_be_bytes()].concat()
    }

    /// Where a key of a sealed database was made: this, then branch and place → generation (8 bytes), grant (4), entry id.
    pub(crate) fn key_made(id: &[u8; 32]) -> Vec<u8> {
        [&[10][..], id].concat()
    }

    /// Keys handed to a reader: this, then the key's id and who did it → the wrapped key.
    pub(crate) fn wrapped(reader: &NodeId) -> Vec<u8> {
        [&[11][..], &reader.0].concat()
    }

    /// Who knows a key: this, then each → 1 if it was handed the key, 0 if it made it or handed it on.
    pub(crate) fn key_known(id: &[u8; 32]) -> Vec<u8> {
        [&[12][..], id].concat()
    }

    /// What all rows of keys under others begin with.
    pub(crate) const KEYS_UNDER: &[u8] = &[13];

    /// Keys under a key: this, then the id of each, and branch and place of who says so → that key under this one.
    pub(crate) fn key_under(id: &[u8; 32]) -> Vec<u8> {
        [KEYS_UNDER, id].concat()
    }

    /// What is embedded with the grant of a person: this, then the hash of each piece of evidence → what it shows.
    pub(crate) fn evidence(grant: GrantNo) -> Vec<u8> {
        [&[14][..], &key32(grant)].concat()
    }

    /// Where a piece of evidence is embedded: this, then branch and place of each.
    pub(crate) fn told_at(grant: GrantNo, evidence: &[u8; 32]) -> Vec<u8> {
        [&[15][..], &key32(grant), evidence].concat()
    }

    /// Where entries begin to use a grant: this, then branch and place of each.
    pub(crate) fn used(grant: GrantNo) -> Vec<u8> {
        [&[4][..], &key32(grant)].concat()
    }

    /// → the grant that entries of the branch use from there on.
    pub(crate) fn stint(branch: BranchNo, from: Seq) -> Vec<u8> {
        [&[5][..], &branch_key(branch, from)].concat()
    }

    /// → the last place of the branch known not to have the revocation in its past, and the first known to have it.
    pub(crate) fn seen(number: RevocationNo, branch: BranchNo) -> Vec<u8> {
        [&[6][..], &key32(number), &key32(branch)].concat()
    }

    /// As [`seen`], of a grant.
    pub(crate) fn seen_grant(number: GrantNo, branch: BranchNo) -> Vec<u8> {
        [&[7][..], &key32(number), &key32(branch)].concat()
    }
}

impl Row for GrantRow {
    const TABLE: Table = Table::Grant;
    const WHAT: &'static str = "a grant";

    fn encode(&self, w: &mut Writer) {
        w.array(15).bytes(&self.entry.0).u64(u64::from(self.index));
        w.u64(u64::from(self.branch)).u64(self.seq).u64(self.generation);
        self.subject.encode(w);
        w.u64(self.role.number()).u64(u64::from(self.priority)).u64(u64::from(self.depth));
        w.u64(u64::from(self.used)).u64(self.terms.limit.map_or(0, u64::from));
        w.u64(self.terms.expires.map_or(0, |t| t.0));
        w.bool(self.counts).u64(u64::from(self.revocations)).u64(u64::from(self.ended));
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.tuple("grant", 15)?;
        let entry = EntryId(r.array_of("entry id")?);
        let (index, branch) = (r.u32("index")?, r.u32("branch")?);
        let (seq, generation) = (place(r)?, r.number("generation", MOST)?);
        let bad = DecodeError::Malformed { what: "grant", at: r.position() };
        let subject = Subject::decode(r)?.ok_or_else(|| bad.clone())?;
        let role = Role::from_number(r.u64("role")?).ok_or(bad)?;
        let (priority, depth, used) = (r.u32("priority")?, r.u32("depth")?, r.u32("grant")?);
        let (limit, expires) = (r.u32("limit")?, r.u64("expiry")?);
        let terms = TicketTerms {
            limit: (limit > 0).then_some(limit),
            expires: (expires > 0).then_some(Timestamp(expires)),
        };
        Ok(Self {
            entry,
            index,
            branch,
            seq,
            generation,
            subject,
            role,
            priority,
            depth,
            used,
            terms,
            counts: r.bool("counts")?,
            revocations: r.number("revocations", MOST_32)? as u32,
            ended: r.number("revocations", MOST_32)? as u32,
        })
    }
}

pub(crate) fn grant_id_key(entry: &EntryId, index: u32) -> [u8; 36] {
    let mut key = [0; 36];
    key[..32].copy_from_slice(&entry.0);
    key[32..].copy_from_slice(&index.to_be_bytes());
    key
}

/// A live value, under [`cell_key`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CellRow {
    pub(crate) timestamp: Timestamp,
    pub(crate) entry: EntryId,
    pub(crate) value: Vec<u8>,
}

impl CellRow {
    pub(crate) fn encode(timestamp: Timestamp, entry: &EntryId, value: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(42 + value.len());
        put_varint(&mut out, timestamp.0);
        out.extend_from_slice(&entry.0);
        out.extend_from_slice(value);
        out
    }

    pub(crate) fn decode(mut bytes: &[u8]) -> Result<Self, StorageError> {
        let timestamp = take_varint(&mut bytes).ok_or_else(|| corrupt("a value"))?;
        let (entry, value) = bytes.split_first_chunk::<32>().ok_or_else(|| corrupt("a value"))?;
        Ok(Self { timestamp: Timestamp(timestamp), entry: EntryId(*entry), value: value.to_vec() })
    }
}

/// Where a value was written: branch, place, index of the operation.
pub(crate) type Place = (BranchNo, Seq, u32);

pub(crate) fn cell_prefix(store: StoreNo, path: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(path.len() + 16);
    key.extend_from_slice(&store.to_be_bytes());
    key.extend_from_slice(path);
    key
}

pub(crate) fn cell_key(store: StoreNo, path: &[u8], place: Place) -> Vec<u8> {
    let mut key = cell_prefix(store, path);
    put_place(&mut key, place);
    key
}

/// What follows a path in a key: where its value was written.
pub(crate) fn put_place(key: &mut Vec<u8>, (branch, seq, index): Place) {
    key.push(0);
    put_varint(key, u64::from(branch));
    put_varint(key, seq);
    put_varint(key, u64::from(index));
}

/// Takes a cell key apart: path and place.
pub(crate) fn split_cell_key(key: &[u8]) -> Result<(&[u8], Place), StorageError> {
    split_place(key.get(4..).ok_or_else(|| corrupt("a cell's key"))?)
}

/// Takes a path and the place after it apart.
pub(crate) fn split_place(rest: &[u8]) -> Result<(&[u8], Place), StorageError> {
    let bad = || corrupt("a cell's key");
    let mut end = 0;
    while *rest.get(end).ok_or_else(bad)? != 0 {
        end += 1 + rest[end..].iter().position(|&b| b == 0).ok_or_else(bad)?;
    }
    let mut place = &rest[end + 1..];
    let mut number = || take_varint(&mut place).ok_or_else(bad);
    let (branch, seq, index) = (number()?, number()?, number()?);
    let branch = u32::try_from(branch).map_err(|_| bad())?;
    Ok((&rest[..end], (branch, seq, u32::try_from(index).map_err(|_| bad())?)))
}
