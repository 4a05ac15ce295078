//! Proof that a device wrote two histories of one log: two entries at one place, each under a head that it signed. A copied
//! state directory does that without meaning to, a liar on purpose; both histories are kept, and the proof convinces anybody
//! who has the device's key, without the database and without what the entries say.

use crate::codec::{DecodeError, Reader, Writer};
use crate::entry::{Entry, Payload};
use crate::error::{Error, corrupt};
use crate::id::{DatabaseId, EntryId, LogId, Seq};
use crate::limits;
use crate::rows::BranchNo;
use crate::run::{Run, RunError, VerifiedRun};
use crate::storage::StorageError;
use crate::view::View;
use std::collections::{BTreeMap, BTreeSet};

const MAGIC: &str = "anabranch equivocation";
const VERSION: u64 = 1;

/// Bytes of a proof at most: headers alone, of two runs.
pub const PROOF_BYTES: usize = 2 * limits::RUN_BYTES + 4096;

/// What a proof shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Equivocation {
    /// In which database.
    pub database: DatabaseId,
    /// The log, and with it the device.
    pub log: LogId,
    /// The first place at which the two histories differ, as far as it shows.
    pub seq: Seq,
    /// The two entries there, in the order of their ids.
    pub entries: [EntryId; 2],
}

/// Why something proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// It cannot be read.
    #[error("this is no proof: {0}")]
    Decode(#[from] DecodeError),
    /// One of the two histories is not signed by its device.
    #[error("this proves nothing: {0}")]
    Run(#[from] RunError),
    /// They are of different logs, or one goes on where the other ends.
    #[error("this proves nothing: the two histories do not contradict each other")]
    NoContradiction,
}

/// Two runs of one log, headers alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    database: DatabaseId,
    runs: [Run; 2],
}

impl Proof {
    /// The bytes of a file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.array(5).text(MAGIC).u64(VERSION).bytes(&self.database.0);
        self.runs.iter().for_each(|run| run.encode(&mut w));
        w.finish()
    }

    /// Reads the bytes of a file of at most [`PROOF_BYTES`].
    ///
    /// # Errors
    /// [`ProofError`] for whatever is no proof; that it proves something [`Self::verify`] finds out.
    pub fn decode(bytes: &[u8]) -> Result<Self, ProofError> {
        if bytes.len() > PROOF_BYTES {
            let (what, found, limit) = ("a proof", bytes.len() as u64, PROOF_BYTES as u64);
            return Err(DecodeError::TooLarge { what, found, limit }.into());
        }
        let mut r = Reader::new(bytes);
        r.tuple("proof", 5)?;
        if r.text("proof", MAGIC.len())? != MAGIC {
            return Err(DecodeError::Malformed { what: "proof", at: 0 }.into());
        }
        let found = r.u64("version")?;
        if found != VERSION {
            let (what, supported) = ("the proof", VERSION);
            return Err(DecodeError::Version { what, found, supported }.into());
        }
        let database = DatabaseId(r.array_of("database")?);
        let runs = [Run::decode(&mut r, database)?, Run::decode(&mut r, database)?];
        r.finish()?;
        Ok(Self { database, runs })
    }

    /// Checks both signatures and that one device signed two entries for one place. Cost: two signatures.
    ///
    /// # Errors
    /// [`ProofError`].
    pub fn verify(self) -> Result<Equivocation, ProofError> {
        let [a, b] = self.runs;
        let (a, b) = (a.verify()?, b.verify()?);
        let log = a.log();
        if log != b.log() {
            return Err(ProofError::NoContradiction);
        }
        let places = |run: &VerifiedRun| -> BTreeMap<Seq, EntryId> {
            run.entries().iter().map(|entry| (entry.header().seq, entry.id())).collect()
        };
        let (ours, theirs) = (places(&a), places(&b));
        let differs = ours.iter().find_map(|(&seq, &id)| {
            theirs.get(&seq).filter(|other| **other != id).map(|&other| (seq, [id, other]))
        });
        let (seq, mut entries) = differs.ok_or(ProofError::NoContradiction)?;
        entries.sort_unstable();
        Ok(Equivocation { database: self.database, log, seq, entries })
    }
}

/// A run without what its entries say.
fn headers(run: Run, database: DatabaseId) -> Result<Run, Error> {
    let run = run.verify()?;
    let mut entries = Vec::with_capacity(run.entries().len());
    for entry in run.entries() {
        let payloads = entry.payloads().map(|(store, payload)| {
            let summary = payload.summary(store.clone());
            (store.clone(), Payload::Absent { len: summary.len, hash: summary.hash })
        });
        entries.push(Entry::new(entry.header().clone(), payloads.collect())?);
    }
    let signatures = run.parent_heads().map(|head| head.signature).collect();
    Ok(Run::new(database, entries, run.head().signature, signatures))
}

impl View<'_> {
    /// The logs of which two histories are held, by log. Cost: a step a log.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn forked_logs(&self) -> Result<BTreeSet<LogId>, StorageError> {
        let (mut seen, mut forked) = (BTreeSet::new(), BTreeSet::new());
        self.each_branch(|_, branch| {
            if !seen.insert(branch.log) {
                forked.insert(branch.log);
            }
        })?;
        Ok(forked)
    }

    /// Proof that the device of `log` wrote two histories of it; `None` where only one is held, or one is not signed.
    ///
    /// # Errors
    /// [`Error`].
    pub fn equivocation(&self, log: &LogId) -> Result<Option<Proof>, Error> {
        let database = self.database()?.ok_or_else(|| corrupt("the database id"))?;
        let branches = self.branches_of(log)?;
        for &number in &branches {
            let (below, at) = match self.branch(number)?.base {
                Some(base) => base,
                // At the start of a log: the first that begins there.
                None if number != branches[0] => (branches[0], 0),
                None => continue,
            };
            let sides = [self.first_above(number, at)?, self.first_above(below, at)?];
            if let [Some(a), Some(b)] = sides {
                return Ok(Some(Proof {
                    database,
                    runs: [headers(a, database)?, headers(b, database)?],
                }));
            }
        }
        Ok(None)
    }

    /// The run of a branch above `after`.
    fn first_above(&self, branch: BranchNo, after: Seq) -> Result<Option<Run>, StorageError> {
        let Some((seq, head)) = self.next_head(branch, after)? else { return Ok(None) };
        self.run(branch, after, seq, &head).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_prove_nothing(bytes: Vec<u8>) {
            let proven = Proof::decode(&bytes).and_then(Proof::verify);
            prop_assert!(proven.is_err());
        }
    }

    #[test]
    fn a_proof_from_later_says_so() {
        let mut w = Writer::new();
        w.array(5).text(MAGIC).u64(2).bytes(&[0; 32]).null().null();
        let found = Proof::decode(&w.finish()).unwrap_err();
        assert!(
            matches!(found, ProofError::Decode(DecodeError::Version { found: 2, .. })),
            "{found}"
        );
        assert!(Proof::decode(&vec![0; PROOF_BYTES + 1]).is_err());
    }
}
