//! Payloads: what the operations of a cell store and of the members store look like in bytes. Decoding is total: an
//! operation that makes no sense has no effect (`None`) but keeps its index, a payload that is not even well-formed has
//! no operations, and kinds from the future are counted so that their store can say that it needs a newer program.

use crate::codec::{DecodeError, Reader, Writer};
use crate::entry::{Entry, GrantRef, StoreKind, Timestamp};
use crate::head::Head;
use crate::id::{DatabaseId, EntryId, LogId, NodeId, Position, Seq};
use crate::key::{Context, DeviceKey, Signature, verify};
use crate::limits;
use crate::path::Path;
use crate::sabotage::{self, Bug};

/// The name of a value that a write replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueName {
    /// The log of the entry that wrote it.
    pub log: LogId,
    /// The place of that entry.
    pub seq: Seq,
    /// Which operation of that entry's payload.
    pub index: u32,
    /// The first 16 bytes of that entry's id, so that branches of a forked log are told apart.
    pub id16: [u8; 16],
}

impl ValueName {
    /// The value that operation `index` of the entry at `position` wrote.
    #[must_use]
    pub fn of(position: &Position, index: u32) -> Self {
        Self { log: position.log, seq: position.seq, index, id16: position.id.first16() }
    }
}

/// A write to one cell: replaces what its writer saw there, and adds a value or, as a delete, nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellOp {
    /// The cell.
    pub path: Path,
    /// The new value; `None` deletes.
    pub value: Option<Vec<u8>>,
    /// The values replaced: ascending as written here, in any order as read.
    pub replaces: Vec<ValueName>,
}

const PUT: u64 = 0;
const DELETE: u64 = 1;
/// A value below an element that the same entry makes: nothing can be there to be replaced. A kind of its own, so that who
/// does not know such paths says so.
const PUT_NEW: u64 = 3;

/// Encodes the operations of one cell store for an entry of `own`.
#[must_use]
pub fn encode_cells(own: &LogId, ops: &[CellOp]) -> Vec<u8> {
    let mut logs: Vec<LogId> =
        ops.iter().flat_map(|op| &op.replaces).map(|n| n.log).filter(|log| log != own).collect();
    logs.sort_unstable();
    logs.dedup();
    let mut w = Writer::new();
    w.array(2).array(logs.len());
    for log in &logs {
        w.array(2).bytes(&log.device.0).u64(log.epoch);
    }
    w.array(ops.len());
    for op in ops {
        if let (Some(value), true) = (&op.value, op.path.has_new()) {
            w.array(3).u64(PUT_NEW).bytes(op.path.as_bytes()).bytes(value);
            continue;
        }
        let tail = usize::from(!op.replaces.is_empty());
        match &op.value {
            Some(value) => w.array(3 + tail).u64(PUT).bytes(op.path.as_bytes()).bytes(value),
            None => w.array(2 + tail).u64(DELETE).bytes(op.path.as_bytes()),
        };
        if op.replaces.is_empty() {
            continue;
        }
        w.array(op.replaces.len());
        for name in &op.replaces {
            let number = logs.binary_search(&name.log).map_or(0, |i| i as u64 + 1);
            w.array(4).u64(number).u64(name.seq).u64(u64::from(name.index)).bytes(&name.id16);
        }
    }
    w.finish()
}

/// What a payload holds after decoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded<T> {
    /// One for each operation, by index; `None` where it has no effect.
    pub ops: Vec<Option<T>>,
    /// Whether operations of an unknown kind are among them.
    pub unknown: bool,
}

impl<T> Default for Decoded<T> {
    fn default() -> Self {
        Self { ops: Vec::new(), unknown: false }
    }
}

pub(crate) enum Op<T> {
    Known(T),
    Senseless,
    Unknown,
}

/// Reads an array of operations one by one, so that a bad one does not hide those after it.
pub(crate) fn decode_ops<T>(
    r: &mut Reader<'_>,
    limit: usize,
    mut one: impl FnMut(&mut Reader<'_>, u64, usize) -> Result<Op<T>, DecodeError>,
) -> Result<Decoded<T>, DecodeError> {
    let mut decoded = Decoded::default();
    for _ in 0..r.array("operations", limit)? {
        let start = r.position();
        let mut ahead = r.clone();
        r.skip("operation")?;
        let op = (|| {
            let fields = ahead.array("operation", 16)?;
            let kind = ahead.u64("operation kind")?;
            let op = one(&mut ahead, kind, fields)?;
            if matches!(op, Op::Known(_)) && ahead.position() != r.position() {
                return Err(DecodeError::Malformed { what: "operation", at: start });
            }
            Ok(op)
        })();
        decoded.unknown |= matches!(op, Ok(Op::Unknown));
        decoded.ops.push(match op {
            Ok(Op::Known(op)) => Some(op),
            Ok(Op::Senseless | Op::Unknown) | Err(_) => None,
        });
    }
    Ok(decoded)
}

/// Reads the payload of a cell store in the entry `id` of `own`, with elements that it makes under their ids.
#[must_use]
pub fn decode_cells_of(id: &EntryId, own: &LogId, payload: &[u8]) -> Decoded<CellOp> {
    let mut decoded = decode_cells(own, payload);
    let id = if sabotage::is(Bug::ElementUnnamed) { &EntryId([0; 32]) } else { id };
    for slot in &mut decoded.ops {
        if let Some(op) = slot.take_if(|op| op.path.has_new()) {
            // Too long a path is none.
            *slot = op.path.fill(id).ok().map(|path| CellOp { path, ..op });
        }
    }
    decoded
}

/// Reads the payload of a cell store in an entry of `own`. Elements that the entry makes have no id yet.
#[must_use]
pub fn decode_cells(own: &LogId, payload: &[u8]) -> Decoded<CellOp> {
    let mut r = Reader::new(payload);
    (|| {
        r.tuple("payload", 2)?;
        let mut logs = vec![*own];
        for _ in 0..r.array("logs", limits::ENTRY_BYTES / 42)? {
            r.tuple("log", 2)?;
            let device = NodeId(r.array_of("device")?);
            logs.push(LogId { device, epoch: r.u64("epoch")? });
        }
        let decoded = decode_ops(&mut r, limits::ENTRY_BYTES / 4, |r, kind, fields| {
            decode_cell_op(r, kind, fields, &logs)
        })?;
        r.finish()?;
        Ok::<_, DecodeError>(decoded)
    })()
    .unwrap_or_default()
}

fn decode_cell_op(
    r: &mut Reader<'_>,
    kind: u64,
    fields: usize,
    logs: &[LogId],
) -> Result<Op<CellOp>, DecodeError> {
    if !matches!(kind, PUT | DELETE | PUT_NEW) {
        return Ok(Op::Unknown);
    }
    let path = r.bytes("path", limits::PATH_BYTES)?;
    let path =
        if kind == PUT_NEW { Path::from_encoded_new(path) } else { Path::from_encoded(path) };
    let Ok(path) = path else {
        return Ok(Op::Senseless);
    };
    let value = match kind {
        PUT | PUT_NEW => Some(r.bytes("value", limits::ENTRY_BYTES)?.to_vec()),
        _ => None,
    };
    let without = if kind == DELETE { 2 } else { 3 };
    let mut replaces = Vec::new();
    if kind != PUT_NEW && fields == without + 1 {
        for _ in 0..r.array("replaced values", limits::ENTRY_BYTES / 12)? {
            r.tuple("value name", 4)?;
            let Some(&log) = logs.get(r.u32("log number")? as usize) else {
                return Ok(Op::Senseless);
            };
            let (seq, index) = (r.u64("sequence")?, r.u32("index")?);
            replaces.push(ValueName { log, seq, index, id16: r.array_of("entry id")? });
        }
    }
    let most = if kind == PUT_NEW { without } else { without + 1 };
    Ok(if fields > most { Op::Senseless } else { Op::Known(CellOp { path, value, replaces }) })
}

/// What a device may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Receive everything and pass it on, without the keys of a sealed database.
    Relay,
    /// Receive everything.
    Read,
    /// And write to every store but that of the members.
    Write,
    /// And grant.
    Admin,
}

impl Role {
    pub(crate) fn number(self) -> u64 {
        match self {
            Self::Read => 1,
            Self::Write => 2,
            Self::Admin => 3,
            Self::Relay => 4,
        }
    }

    pub(crate) fn from_number(n: u64) -> Option<Self> {
        match n {
            1 => Some(Self::Read),
            2 => Some(Self::Write),
            3 => Some(Self::Admin),
            4 => Some(Self::Relay),
            _ => None,
        }
    }

    /// All of them, from the one that may least.
    pub const ALL: [Self; 4] = [Self::Relay, Self::Read, Self::Write, Self::Admin];

    /// The role with this [name](Self::name).
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    /// Lower-case name: `relay`, `read`, `write`, `admin`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

/// Whom a grant is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// One device.
    Device(NodeId),
    /// Every device.
    Anyone,
    /// Whoever holds the secret half of this key, to redeem it.
    Ticket(NodeId),
    /// The devices that are members of this database ([`crate::person`]).
    Person(DatabaseId),
}

impl Subject {
    pub(crate) fn encode(self, w: &mut Writer) {
        match self {
            Self::Device(key) => w.array(2).u64(0).bytes(&key.0),
            Self::Anyone => w.array(1).u64(1),
            Self::Ticket(key) => w.array(2).u64(2).bytes(&key.0),
            Self::Person(person) => w.array(2).u64(3).bytes(&person.0),
        };
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Option<Self>, DecodeError> {
        let fields = r.array("subject", 2)?;
        Ok(match (r.u64("subject kind")?, fields) {
            (0, 2) => Some(Self::Device(NodeId(r.array_of("key")?))),
            (1, 1) => Some(Self::Anyone),
            (2, 2) => Some(Self::Ticket(NodeId(r.array_of("key")?))),
            (3, 2) => Some(Self::Person(DatabaseId(r.array_of("database")?))),
            _ => None,
        })
    }
}

/// What serving nodes hold against a ticket when it is presented. Not a rule of admission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TicketTerms {
    /// How many devices may redeem it; `None`: any number.
    pub limit: Option<u32>,
    /// Until when.
    pub expires: Option<Timestamp>,
}

/// An operation of the members store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberOp {
    /// Gives `subject` a role.
    Grant {
        /// Whom.
        subject: Subject,
        /// What it may do.
        role: Role,
        /// Rank; 0 is the highest. Never higher than that of the grant used.
        priority: u32,
        /// For tickets.
        terms: TicketTerms,
    },
    /// Grants the author's device the role of the ticket whose grant this entry uses. The signature is made with the
    /// ticket's key over [`redemption_message`].
    Redeem {
        /// By the ticket's key.
        signature: Signature,
    },
    /// Tells which devices a person has, whose grant this entry uses: [`crate::person::Evidence`], encoded.
    Embed {
        /// At most [`limits::EVIDENCE_BYTES`].
        evidence: Vec<u8>,
    },
    /// Ends a grant: of the entries that use it only those at or below the cut count.
    Revoke {
        /// Which.
        grant: GrantRef,
        /// What of its use still counts.
        cut: Cut,
    },
}

/// How far a revoked grant's use counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cut {
    /// What the revoking entry has in its past, and that entry itself.
    Past,
    /// What these places, signed by their devices, lead down to in their own logs. At most [`limits::CUT_TIPS`]. Of all other
    /// logs nothing counts.
    Tips(Vec<Head>),
}

const GRANT: u64 = 0;
const REVOKE: u64 = 1;
const EMBED: u64 = 2;
const REDEEM: u64 = 3;

/// Encodes the operations of a members payload.
#[must_use]
pub fn encode_members(ops: &[MemberOp]) -> Vec<u8> {
    let mut w = Writer::new();
    w.array(ops.len());
    for op in ops {
        match op {
            MemberOp::Grant { subject, role, priority, terms } => {
                w.array(6).u64(GRANT);
                subject.encode(&mut w);
                w.u64(role.number()).u64(u64::from(*priority));
                w.u64(terms.limit.map_or(0, u64::from)).u64(terms.expires.map_or(0, |t| t.0));
            }
            MemberOp::Redeem { signature } => {
                w.array(2).u64(REDEEM).bytes(&signature.0);
            }
            MemberOp::Embed { evidence } => {
                w.array(2).u64(EMBED).bytes(evidence);
            }
            MemberOp::Revoke { grant, cut } => {
                w.array(if *cut == Cut::Past { 3 } else { 4 }).u64(REVOKE);
                w.bytes(&grant.entry.0).u64(u64::from(grant.index));
                if let Cut::Tips(tips) = cut {
                    w.array(tips.len());
                    tips.iter().for_each(|tip| encode_tip(&mut w, tip));
                }
            }
        }
    }
    w.finish()
}

/// Reads a members payload.
#[must_use]
pub fn decode_members(payload: &[u8]) -> Decoded<MemberOp> {
    let mut r = Reader::new(payload);
    (|| {
        let decoded = decode_ops(&mut r, limits::GRANT_OPS, decode_member_op)?;
        r.finish()?;
        Ok::<_, DecodeError>(decoded)
    })()
    .unwrap_or_default()
}

fn decode_member_op(
    r: &mut Reader<'_>,
    kind: u64,
    fields: usize,
) -> Result<Op<MemberOp>, DecodeError> {
    match (kind, fields) {
        (GRANT, 6) => {
            // Passed over as a whole, so that a later kind of subject may be of any form.
            let mut ahead = r.clone();
            r.skip("subject")?;
            let subject = Subject::decode(&mut ahead)?;
            let role = Role::from_number(r.u64("role")?);
            let priority = r.u32("priority")?;
            let (limit, expires) = (r.u32("limit")?, r.u64("expiry")?);
            let terms = TicketTerms {
                limit: (limit > 0).then_some(limit),
                expires: (expires > 0).then_some(Timestamp(expires)),
            };
            Ok(match (subject, role) {
                (Some(subject), Some(role)) => {
                    Op::Known(MemberOp::Grant { subject, role, priority, terms })
                }
                _ => Op::Unknown,
            })
        }
        (REDEEM, 2) => {
            Ok(Op::Known(MemberOp::Redeem { signature: Signature(r.array_of("signature")?) }))
        }
        (EMBED, 2) => {
            let evidence = r.bytes("evidence", limits::EVIDENCE_BYTES)?.to_vec();
            Ok(Op::Known(MemberOp::Embed { evidence }))
        }
        (REVOKE, 3 | 4) => {
            let entry = EntryId(r.array_of("entry id")?);
            let grant = GrantRef { entry, index: r.u32("grant index")? };
            let cut = match fields {
                3 => Cut::Past,
                _ => Cut::Tips(
                    (0..r.array("tips", limits::CUT_TIPS)?)
                        .map(|_| decode_tip(r))
                        .collect::<Result<_, _>>()?,
                ),
            };
            Ok(Op::Known(MemberOp::Revoke { grant, cut }))
        }
        (GRANT | REDEEM | REVOKE | EMBED, _) => Ok(Op::Senseless),
        _ => Ok(Op::Unknown),
    }
}

fn encode_tip(w: &mut Writer, Head { position, signature }: &Head) {
    w.array(5).bytes(&position.log.device.0).u64(position.log.epoch).u64(position.seq);
    w.bytes(&position.id.0).bytes(&signature.0);
}

fn decode_tip(r: &mut Reader<'_>) -> Result<Head, DecodeError> {
    r.tuple("tip", 5)?;
    let device = NodeId(r.array_of("device")?);
    let log = LogId { device, epoch: r.u64("epoch")? };
    let (seq, id) = (r.u64("sequence")?, EntryId(r.array_of("entry id")?));
    let signature = Signature(r.array_of("signature")?);
    Ok(Head { position: Position { log, seq, id }, signature })
}

/// What a ticket's key signs to admit a device: database, the ticket's grant, device and log of the redeeming entry.
#[must_use]
pub fn redemption_message(database: &DatabaseId, grant: &GrantRef, log: &LogId) -> Vec<u8> {
    let mut w = Writer::new();
    w.array(5).bytes(&database.0).bytes(&grant.entry.0).u64(u64::from(grant.index));
    w.bytes(&log.device.0).u64(log.epoch);
    w.finish()
}

impl MemberOp {
    /// The operation by which `log`'s device redeems the ticket behind `grant`.
    #[must_use]
    pub fn redeem(
        ticket: &DeviceKey,
        database: &DatabaseId,
        grant: &GrantRef,
        log: &LogId,
    ) -> Self {
        let message = redemption_message(database, grant, log);
        Self::Redeem { signature: ticket.sign(Context::Redemption, &message) }
    }
}

/// Whether `signature` admits the author of `entry` by the ticket `key`.
#[must_use]
pub fn redemption_holds(entry: &Entry, key: &NodeId, signature: &Signature) -> bool {
    let header = entry.header();
    let message = redemption_message(&entry.database(), &header.grant, &header.log);
    verify(key, Context::Redemption, &message, signature)
}

/// The members payload of an entry, decoded, if it has one whose bytes are present.
#[must_use]
pub fn members_of(entry: &Entry) -> Option<Decoded<MemberOp>> {
    entry
        .payloads()
        .find(|(store, _)| store.kind == StoreKind::MEMBERS)
        .and_then(|(_, payload)| payload.bytes())
        .map(decode_members)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn log(n: u8) -> LogId {
        LogId { device: NodeId([n; 32]), epoch: u64::from(n) }
    }

    fn arb_op() -> impl Strategy<Value = CellOp> {
        let name = (0u8..4, any::<u64>(), any::<u32>(), any::<[u8; 16]>())
            .prop_map(|(l, seq, index, id16)| ValueName { log: log(l), seq, index, id16 });
        let path = proptest::collection::vec(".*", 1..4).prop_map(|s| Path::text(s).unwrap());
        let old = (path.clone(), any::<Option<Vec<u8>>>(), proptest::collection::vec(name, 0..4))
            .prop_map(|(path, value, replaces)| CellOp { path, value, replaces });
        let new = (path, any::<u32>(), any::<Vec<u8>>()).prop_map(|(path, number, value)| {
            let path = path.join_new(number).unwrap().join("x").unwrap();
            CellOp { path, value: Some(value), replaces: Vec::new() }
        });
        prop_oneof![3 => old, 1 => new]
    }

    proptest! {
        #[test]
        fn cell_ops_round_trip(ops in proptest::collection::vec(arb_op(), 0..8)) {
            let bytes = encode_cells(&log(1), &ops);
            let decoded = decode_cells(&log(1), &bytes);
            prop_assert!(!decoded.unknown);
            prop_assert_eq!(decoded.ops.into_iter().collect::<Option<Vec<_>>>().unwrap(), ops);
        }

        #[test]
        fn arbitrary_payloads_never_panic(bytes: Vec<u8>) {
            let _ = decode_cells(&log(1), &bytes);
            let _ = decode_members(&bytes);
        }

        #[test]
        fn a_flipped_byte_never_panics(
            ops in proptest::collection::vec(arb_op(), 1..4), at: usize, by in 1u8..
        ) {
            let mut bytes = encode_cells(&log(1), &ops);
            let at = at % bytes.len();
            bytes[at] ^= by;
            let _ = decode_cells(&log(1), &bytes);
        }
    }

    #[test]
    fn elements_get_the_id_of_the_entry_that_makes_them() {
        let (id, base) = (EntryId([7; 32]), Path::text(["list"]).unwrap());
        let op = |path| CellOp { path, value: Some(b"v".to_vec()), replaces: Vec::new() };
        let bytes = encode_cells(&log(1), &[op(base.join_new(5).unwrap()), op(base.clone())]);
        let element = crate::path::ElementId { entry: [7; 16], number: 5 };
        let filled = op(base.join_element(&element).unwrap());
        let decoded = decode_cells_of(&id, &log(1), &bytes);
        assert_eq!(decoded.ops, [Some(filled), Some(op(base.clone()))]);
        // 20 bytes are too many for a path that is nearly as long as it may be.
        let long = base.join(&"x".repeat(limits::PATH_BYTES - 15)).unwrap();
        let bytes = encode_cells(&log(1), &[op(long.join_new(5).unwrap()), op(base.clone())]);
        let decoded = decode_cells_of(&id, &log(1), &bytes);
        assert_eq!(decoded.ops, [None, Some(op(base.clone()))]);
        let mut w = Writer::new();
        w.array(2).array(0).array(3);
        w.array(3).u64(PUT_NEW).bytes(base.as_bytes()).bytes(b"nothing new");
        w.array(3).u64(PUT).bytes(base.join_new(5).unwrap().as_bytes()).bytes(b"v");
        w.array(4).u64(PUT_NEW).bytes(base.join_new(5).unwrap().as_bytes()).bytes(b"v").array(0);
        let decoded = decode_cells_of(&id, &log(1), &w.finish());
        assert_eq!((decoded.ops, decoded.unknown), (vec![None, None, None], false));
    }

    #[test]
    fn a_senseless_operation_keeps_its_index_and_hides_nothing() {
        let good =
            CellOp { path: Path::text(["a"]).unwrap(), value: Some(vec![1]), replaces: vec![] };
        let mut w = Writer::new();
        w.array(2).array(0).array(3);
        w.array(3).u64(PUT).bytes(b"not a path").bytes(b"v");
        w.array(3).u64(PUT).bytes(good.path.as_bytes()).bytes(&[1]);
        w.array(2).u64(77).text("from the future");
        let decoded = decode_cells(&log(1), &w.finish());
        assert_eq!(decoded.ops, vec![None, Some(good), None]);
        assert!(decoded.unknown);
    }

    #[test]
    fn member_ops_round_trip() {
        let grant = |subject| MemberOp::Grant {
            subject,
            role: Role::Write,
            priority: 7,
            terms: TicketTerms { limit: Some(1), expires: Some(Timestamp(99)) },
        };
        let ops = vec![
            grant(Subject::Device(NodeId([1; 32]))),
            grant(Subject::Anyone),
            grant(Subject::Ticket(NodeId([2; 32]))),
            MemberOp::Redeem { signature: Signature([3; 64]) },
        ];
        let decoded = decode_members(&encode_members(&ops));
        assert_eq!(decoded.ops.into_iter().collect::<Option<Vec<_>>>().unwrap(), ops);
    }
}
