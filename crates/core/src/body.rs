//! The compact form of an entry, on disk and on the wire: the header without what its surroundings tell (database, log,
//! place, `prev`, hashes of payloads that are present), with logs, grants and stores by number. Each surrounding has its
//! own numbers: a run brings its dictionaries along, a database file has its tables.

use crate::codec::{DecodeError, Reader, Writer};
use crate::entry::{Payload, Timestamp};
use crate::id::{EntryId, Seq};
use crate::key::Signature;
use crate::limits;
use std::borrow::Cow;

/// A parent by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BodyParent {
    pub(crate) log: u32,
    pub(crate) seq: Seq,
    pub(crate) id: EntryId,
    /// Only on the wire: the parent's head travels with the entry naming it.
    pub(crate) signature: Option<Signature>,
}

/// An entry in compact form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Body<'p> {
    pub(crate) generation: u64,
    pub(crate) timestamp: Timestamp,
    pub(crate) grant: u32,
    pub(crate) parents: Vec<BodyParent>,
    /// Borrowed where an entry is written, owned where one was read.
    pub(crate) payloads: Vec<(u32, Cow<'p, Payload>)>,
    /// In a genesis entry alone.
    pub(crate) salt: Option<[u8; 16]>,
}

impl Body<'_> {
    /// The shortest encoding: an array of five numbers and empty arrays.
    pub(crate) const LEAST_BYTES: usize = 6;

    pub(crate) fn encode(&self, w: &mut Writer) {
        w.array(if self.salt.is_some() { 6 } else { 5 });
        w.u64(self.generation).u64(self.timestamp.0).u64(u64::from(self.grant));
        w.array(self.parents.len());
        for p in &self.parents {
            w.array(if p.signature.is_some() { 4 } else { 3 });
            w.u64(u64::from(p.log)).u64(p.seq).bytes(&p.id.0);
            if let Some(signature) = &p.signature {
                w.bytes(&signature.0);
            }
        }
        w.array(self.payloads.len());
        for (store, payload) in &self.payloads {
            match &**payload {
                Payload::Present(bytes) => w.array(2).u64(u64::from(*store)).bytes(bytes),
                Payload::Absent { len, hash } => {
                    w.array(3).u64(u64::from(*store)).u64(u64::from(*len)).bytes(hash)
                }
            };
        }
        if let Some(salt) = &self.salt {
            w.bytes(salt);
        }
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let at = r.position();
        let fields = r.array("entry", 6)?;
        if fields < 5 {
            return Err(DecodeError::Malformed { what: "entry", at });
        }
        let generation = r.u64("generation")?;
        let timestamp = Timestamp(r.u64("timestamp")?);
        let grant = r.u32("grant number")?;
        let parents = (0..r.array("parents", limits::PARENTS)?)
            .map(|_| decode_parent(r))
            .collect::<Result<_, _>>()?;
        let payloads = (0..r.array("payloads", limits::PAYLOADS)?)
            .map(|_| decode_payload(r).map(|(store, payload)| (store, Cow::Owned(payload))))
            .collect::<Result<_, _>>()?;
        let salt = (fields == 6).then(|| r.array_of("salt")).transpose()?;
        Ok(Self { generation, timestamp, grant, parents, payloads, salt })
    }
}

/// The grant, the places of the parents, the stores.
type Outlined = (u32, Vec<(u32, Seq)>, Vec<u32>);

impl Body<'_> {
    /// Grant, parents and stores of a body at whose beginning `r` is; what follows the payloads is not looked at.
    pub(crate) fn outline(r: &mut Reader<'_>) -> Result<Outlined, DecodeError> {
        r.array("entry", 6)?;
        r.skip("generation")?;
        r.skip("timestamp")?;
        let grant = r.u32("grant number")?;
        let parents = (0..r.array("parents", limits::PARENTS)?)
            .map(|_| decode_parent(r).map(|parent| (parent.log, parent.seq)))
            .collect::<Result<_, _>>()?;
        let stores = (0..r.array("payloads", limits::PAYLOADS)?)
            .map(|_| {
                let fields = r.array("payload", 3)?;
                let store = r.u32("store number")?;
                (1..fields).try_for_each(|_| r.skip("payload"))?;
                Ok(store)
            })
            .collect::<Result<_, DecodeError>>()?;
        Ok((grant, parents, stores))
    }
}

fn decode_parent(r: &mut Reader<'_>) -> Result<BodyParent, DecodeError> {
    let at = r.position();
    let fields = r.array("parent", 4)?;
    if fields < 3 {
        return Err(DecodeError::Malformed { what: "parent", at });
    }
    let (log, seq) = (r.u32("log number")?, r.u64("sequence")?);
    let id = EntryId(r.array_of("entry id")?);
    let signature = (fields == 4).then(|| r.array_of("signature")).transpose()?.map(Signature);
    Ok(BodyParent { log, seq, id, signature })
}

fn decode_payload(r: &mut Reader<'_>) -> Result<(u32, Payload), DecodeError> {
    let at = r.position();
    let fields = r.array("payload", 3)?;
    let store = r.u32("store number")?;
    let payload = match fields {
        2 => Payload::Present(r.bytes("payload", limits::ENTRY_BYTES)?.to_vec()),
        3 => Payload::Absent {
            len: r.number("payload length", limits::ENTRY_BYTES as u64)? as u32,
            hash: r.array_of("payload hash")?,
        },
        _ => {
            return Err(DecodeError::Malformed { what: "payload", at });
        }
    };
    Ok((store, payload))
}
