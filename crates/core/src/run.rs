//! Runs: stretches of one log that end at a head, the unit in which entries travel, are verified and are applied. A run
//! starts after any entry the receiver holds. Only [`Run::verify`] makes a [`VerifiedRun`] (I4).

use crate::body::{Body, BodyParent};
use crate::codec::{DecodeError, Reader, Writer};
use crate::entry::{ENTRY_VERSION, Entry, GrantRef, Header, StoreId};
use crate::head::Head;
use crate::id::{DatabaseId, EntryId, LogId, NodeId, Position, Seq};
use crate::key::Signature;
use crate::limits;
use crate::sabotage::{self, Bug};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// A stretch of a log as it was received or is about to be sent: entries chained by hash, a signature over the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    database: DatabaseId,
    entries: Vec<Entry>,
    signature: Signature,
    /// For every parent of every entry, in order.
    parent_signatures: Vec<Signature>,
}

/// Why a run was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// It could not be read.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// It holds no entry, or more than [`limits::RUN_ENTRIES`] or [`limits::RUN_BYTES`].
    #[error("a run of {entries} entries and {bytes} bytes exceeds the limits")]
    Size {
        /// Entries.
        entries: usize,
        /// Bytes.
        bytes: usize,
    },
    /// The signature does not cover the hash chain: a hash is wrong or the head is forged.
    #[error("the head of log {log} at {seq} is not signed by its device for these entries")]
    Signature {
        /// The log.
        log: LogId,
        /// The place.
        seq: Seq,
    },
    /// Its entries use more than one grant: what counts may end between them, where there must be a head.
    #[error("a run of log {log} goes on after a change of grant at {seq}")]
    Grants {
        /// The log.
        log: LogId,
        /// The first place with another grant.
        seq: Seq,
    },
    /// The genesis entry of another database.
    #[error("the entries belong to another database")]
    Database,
}

impl Run {
    /// Puts a run together. `parent_signatures`: one for each parent of each entry, in order.
    #[must_use]
    pub fn new(
        database: DatabaseId,
        entries: Vec<Entry>,
        signature: Signature,
        parent_signatures: Vec<Signature>,
    ) -> Self {
        Self { database, entries, signature, parent_signatures }
    }

    /// The wire form. Logs, grants and stores are listed once and then named by number.
    pub fn encode(&self, w: &mut Writer) {
        let mut dictionary = Dictionary::default();
        let mut signatures = self.parent_signatures.iter();
        let mut bodies = Writer::new();
        for entry in &self.entries {
            dictionary.body(entry, &mut signatures).encode(&mut bodies);
        }
        let (log, first, prev) = self
            .entries
            .first()
            .map_or((LogId { device: NodeId([0; 32]), epoch: 0 }, 0, None), |e| {
                (e.header().log, e.header().seq, e.header().prev)
            });
        w.array(10).u64(ENTRY_VERSION).bytes(&log.device.0).u64(log.epoch).u64(first);
        w.bytes(prev.as_ref().map_or(&[][..], |p| &p.0)).bytes(&self.signature.0);
        dictionary.encode(w);
        w.array(self.entries.len()).raw(&bodies.finish());
    }

    /// Reads the wire form and rebuilds every header, so that ids and payload hashes are computed, never believed.
    ///
    /// # Errors
    /// [`RunError`] for anything malformed or over a limit.
    pub fn decode(r: &mut Reader<'_>, database: DatabaseId) -> Result<Self, RunError> {
        let at = r.position();
        let fields = r.array("run", 64)?;
        let found = r.u64("entry version")?;
        if found != ENTRY_VERSION {
            let (what, supported) = ("an entry from the peer", ENTRY_VERSION);
            return Err(DecodeError::Version { what, found, supported }.into());
        }
        if fields != 10 {
            return Err(DecodeError::Malformed { what: "run", at }.into());
        }
        let device = NodeId(r.array_of("device")?);
        let log = LogId { device, epoch: r.u64("epoch")? };
        let first = r.u64("sequence")?;
        let at = r.position();
        let mut prev = match r.bytes("prev", 32)? {
            [] => None,
            bytes => Some(EntryId(
                bytes.try_into().map_err(|_| DecodeError::Malformed { what: "prev", at })?,
            )),
        };
        let signature = Signature(r.array_of("signature")?);
        let dictionary = Dictionary::decode(r)?;
        let n = r.array("entries", limits::RUN_ENTRIES)?;
        // No more than may be in a run, and no more than the input has room for.
        let mut entries = Vec::with_capacity(n.min(r.rest().len() / Body::LEAST_BYTES));
        let mut parent_signatures = Vec::new();
        let mut bytes = 0;
        for i in 0..n {
            let body = Body::decode(r)?;
            for p in &body.parents {
                let missing = DecodeError::Malformed { what: "parent signature", at: r.position() };
                parent_signatures.push(p.signature.ok_or(missing)?);
            }
            let seq = first.saturating_add(i as u64);
            let entry = dictionary.entry(body, database, log, seq, prev)?;
            if entry.database() != database {
                return Err(RunError::Database);
            }
            prev = Some(entry.id());
            bytes += entry.run_bytes();
            if bytes > limits::RUN_BYTES {
                return Err(RunError::Size { entries: n, bytes });
            }
            entries.push(entry);
        }
        if entries.is_empty() {
            return Err(RunError::Size { entries: 0, bytes: 0 });
        }
        Ok(Self { database, entries, signature, parent_signatures })
    }

    /// Checks the head over the hash chain. Pure and independent of what is held, so runs can be verified in parallel.
    ///
    /// # Errors
    /// [`RunError::Signature`] when the device of the log did not sign exactly these entries.
    pub fn verify(self) -> Result<VerifiedRun, RunError> {
        let bytes = self.entries.iter().map(Entry::run_bytes).sum();
        let Some(last) = self.entries.last() else {
            return Err(RunError::Size { entries: 0, bytes });
        };
        if self.entries.len() > limits::RUN_ENTRIES || bytes > limits::RUN_BYTES {
            return Err(RunError::Size { entries: self.entries.len(), bytes });
        }
        let changes = self.entries.windows(2).find(|w| w[0].header().grant != w[1].header().grant);
        if let Some(Header { log, seq, .. }) = changes.map(|w| w[1].header()) {
            return Err(RunError::Grants { log: *log, seq: *seq });
        }
        let position = last.position();
        let head = Head { position, signature: self.signature };
        if !head.verify(&self.database) && !sabotage::is(Bug::HeadUnchecked) {
            return Err(RunError::Signature { log: position.log, seq: position.seq });
        }
        Ok(VerifiedRun { run: self, head })
    }

    /// The entries, in order of their places.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// What it counts against [`limits::RUN_BYTES`].
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.entries.iter().map(Entry::run_bytes).sum()
    }
}

/// A run whose hash chain and head were checked. Whether it may be applied depends on what is held:
/// [`crate::admit`] decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedRun {
    run: Run,
    head: Head,
}

impl VerifiedRun {
    /// The head it ends at.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The log.
    #[must_use]
    pub fn log(&self) -> LogId {
        self.head.position.log
    }

    /// The entries.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.run.entries
    }

    /// What it counts against [`limits::RUN_BYTES`].
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.run.bytes()
    }

    /// As [`Run::encode`].
    pub fn encode(&self, w: &mut Writer) {
        self.run.encode(w);
    }

    /// Heads of everything the entries name as parents, as the sender stated them: not verified yet.
    pub fn parent_heads(&self) -> impl Iterator<Item = Head> {
        let parents = self.run.entries.iter().flat_map(|e| &e.header().parents);
        parents
            .zip(&self.run.parent_signatures)
            .map(|(&position, &signature)| Head { position, signature })
    }
}

/// The numbers that a run's compact entries use.
#[derive(Default)]
struct Dictionary {
    logs: Numbered<LogId>,
    grants: Numbered<GrantRef>,
    stores: Numbered<StoreId>,
}

struct Numbered<T> {
    list: Vec<T>,
    number: BTreeMap<T, u32>,
}

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self { list: Vec::new(), number: BTreeMap::new() }
    }
}

impl<T: Ord + Clone> Numbered<T> {
    fn number(&mut self, value: &T) -> u32 {
        if let Some(&n) = self.number.get(value) {
            return n;
        }
        let n = self.list.len() as u32;
        self.list.push(value.clone());
        self.number.insert(value.clone(), n);
        n
    }

    fn get(&self, n: u32, what: &'static str) -> Result<&T, DecodeError> {
        self.list.get(n as usize).ok_or(DecodeError::Malformed { what, at: 0 })
    }
}

impl Dictionary {
    fn body<'e, 's>(
        &mut self,
        entry: &'e Entry,
        signatures: &mut impl Iterator<Item = &'s Signature>,
    ) -> Body<'e> {
        let header = entry.header();
        Body {
            generation: header.generation,
            timestamp: header.timestamp,
            grant: self.grants.number(&header.grant),
            parents: header
                .parents
                .iter()
                .map(|p| BodyParent {
                    log: self.logs.number(&p.log),
                    seq: p.seq,
                    id: p.id,
                    signature: signatures.next().copied(),
                })
                .collect(),
            payloads: entry
                .payloads()
                .map(|(store, payload)| (self.stores.number(store), Cow::Borrowed(payload)))
                .collect(),
            salt: header.salt,
        }
    }

    fn entry(
        &self,
        body: Body<'_>,
        database: DatabaseId,
        log: LogId,
        seq: Seq,
        prev: Option<EntryId>,
    ) -> Result<Entry, DecodeError> {
        let parents = body
            .parents
            .iter()
            .map(|p| {
                let log = *self.logs.get(p.log, "log number")?;
                Ok(Position { log, seq: p.seq, id: p.id })
            })
            .collect::<Result<_, DecodeError>>()?;
        let header = Header {
            database: body.salt.is_none().then_some(database),
            log,
            seq,
            prev,
            parents,
            generation: body.generation,
            timestamp: body.timestamp,
            grant: *self.grants.get(body.grant, "grant number")?,
            payloads: Vec::new(),
            salt: body.salt,
        };
        let payloads = body
            .payloads
            .into_iter()
            .map(|(n, payload)| {
                Ok((self.stores.get(n, "store number")?.clone(), payload.into_owned()))
            })
            .collect::<Result<_, DecodeError>>()?;
        Entry::new(header, payloads)
    }

    fn encode(&self, w: &mut Writer) {
        w.array(self.logs.list.len());
        for log in &self.logs.list {
            w.array(2).bytes(&log.device.0).u64(log.epoch);
        }
        w.array(self.grants.list.len());
        for grant in &self.grants.list {
            w.array(2).bytes(&grant.entry.0).u64(u64::from(grant.index));
        }
        w.array(self.stores.list.len());
        for store in &self.stores.list {
            store.encode(w);
        }
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut dictionary = Self::default();
        for _ in 0..r.array("logs", limits::RUN_ENTRIES * limits::PARENTS)? {
            r.tuple("log", 2)?;
            let device = NodeId(r.array_of("device")?);
            dictionary.logs.list.push(LogId { device, epoch: r.u64("epoch")? });
        }
        for _ in 0..r.array("grants", limits::RUN_ENTRIES)? {
            r.tuple("grant", 2)?;
            let entry = EntryId(r.array_of("grant")?);
            dictionary.grants.list.push(GrantRef { entry, index: r.u32("grant index")? });
        }
        for _ in 0..r.array("stores", limits::RUN_ENTRIES * limits::PAYLOADS)? {
            dictionary.stores.list.push(StoreId::decode(r)?);
        }
        Ok(dictionary)
    }
}
