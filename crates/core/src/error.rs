//! What can go wrong with a replica: its storage, bytes that cannot be read, or entries that may not be admitted.

use crate::codec::DecodeError;
use crate::entry::StoreId;
use crate::id::{LogId, Position, Seq};
use crate::ops::Role;
use crate::path::PathError;
use crate::run::RunError;
use crate::storage::StorageError;

/// Any failure of this crate that depends on what is stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The storage failed or is damaged.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A run was refused before anything held was looked at.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A run was refused because of what is held.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Own input that does not fit the format.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A key that does not fit the format.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A value for a store of a kind that has none.
    #[error(
        "values are written to tables, documents, sets, folders and stores of applications, not to store {0}"
    )]
    NoCells(StoreId),
    /// A number for a store of a kind that does not count.
    #[error("numbers are added to counters, not to store {0}")]
    NoSums(StoreId),
    /// The device may not write what it tried to.
    #[error(
        "this device ({device}) may not {role} here; ask an admin of the database for a ticket that allows it"
    )]
    NotPermitted {
        /// The device.
        device: String,
        /// What would be needed.
        role: &'static str,
    },
    /// A ticket whose grant this replica does not know.
    #[error("this ticket is not known to the database; ask for a new one")]
    UnknownTicket,
    /// A look-up by a field that has no index here.
    #[error(
        "field '{field}' of {store} has no index on this device; add one with 'anabranch db index add', or Database::index"
    )]
    NoIndex {
        /// The store.
        store: StoreId,
        /// The field.
        field: String,
    },
    /// Only the fields of tables are indexed.
    #[error("fields of tables are indexed, {0} has none")]
    NoFields(StoreId),
    /// As many indexes as there may be.
    #[error("a database has at most {} indexes; remove one first", crate::index::MOST_INDEXES)]
    TooManyIndexes,
    /// An index is not what the values are. Nothing else is affected.
    #[error("{0}; remove the index and add it again, nothing else is affected")]
    WrongIndex(String),
    /// A database that is no person's.
    #[error(
        "the database holds more than who its members are; the devices of a person take one that is used for nothing else: 'anabranch db new' makes one"
    )]
    NoPerson,
    /// A person's database that others cannot embed.
    #[error(
        "the membership of the person's database changed more often than others can take in ({entries} entries of {bytes} bytes; at most {} of {}); make a new one and grant to that",
        crate::limits::EVIDENCE_ENTRIES,
        crate::limits::EVIDENCE_BYTES
    )]
    PersonSize {
        /// Entries.
        entries: usize,
        /// Bytes, if these are too many.
        bytes: usize,
    },
    /// Nobody would be left to let others in.
    #[error("this would leave the database without an admin; make somebody else an admin first")]
    LastAdmin,
    /// A key is handed to devices one by one.
    #[error(
        "a sealed database is opened to devices one by one; to everyone it can be given to relay only"
    )]
    SealedToAll,
    /// Too many stores are to be sealed, none, or one whose name no store can have.
    #[error(
        "from 1 to {} stores can be sealed, each with a name of 1 to {} bytes",
        crate::limits::SEALED_STORES,
        crate::limits::STORE_NAME_BYTES
    )]
    SealedStores,
    /// The storage holds no database yet.
    #[error("the database has not received its first entry yet; sync with a peer that has it")]
    Empty,
}

/// Why a run may not be applied. Nothing of it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Something it builds on is not held yet (I3): it may be tried again later.
    #[error("an entry builds on {0:?}, which has not arrived")]
    Gap(LogId, Seq),
    /// A parent that is held was never signed as a head.
    #[error("an entry names {0:?} as a parent, which its device never signed as a head")]
    ParentNotHead(Position),
    /// The generation is not 1 + the largest below it.
    #[error("an entry of log {log} states generation {stated}, it must be {right}")]
    Generation {
        /// The log.
        log: LogId,
        /// What the header says.
        stated: u64,
        /// What it must be.
        right: u64,
    },
    /// The author had no right to it.
    #[error("an entry of log {log} at {seq} needs the right to {}, its grant does not give it", role.name())]
    NotPermitted {
        /// The log.
        log: LogId,
        /// The place.
        seq: Seq,
        /// What would be needed.
        role: Role,
    },
    /// The grant it states is none, not its author's, or not in its past.
    #[error("an entry of log {log} at {seq} uses a grant that is not its own")]
    Grant {
        /// The log.
        log: LogId,
        /// The place.
        seq: Seq,
    },
    /// It grants more than its author may.
    #[error("an entry of log {log} at {seq} grants a higher priority than its author has")]
    Priority {
        /// The log.
        log: LogId,
        /// The place.
        seq: Seq,
    },
    /// It grants what the devices of the person do not have, as far as the evidence that it embeds tells, or that tells nothing.
    #[error(
        "an entry of log {log} at {seq} uses the grant of a person, and what it embeds does not show that it may"
    )]
    Evidence {
        /// The log.
        log: LogId,
        /// The place.
        seq: Seq,
    },
    /// It hands a right on further than that may go.
    #[error(
        "an entry of log {log} at {seq} hands on a grant that {} others lie between already",
        crate::limits::DELEGATION_DEPTH
    )]
    Depth {
        /// The log.
        log: LogId,
        /// The place.
        seq: Seq,
    },
    /// It revokes a grant that is not in its past.
    #[error("an entry of log {log} at {seq} revokes a grant that it cannot know")]
    Target {
        /// The log.
        log: LogId,
        /// The place.
        seq: Seq,
    },
    /// It revokes a grant that does not rank below its own.
    #[error("an entry of log {log} at {seq} revokes a grant that ranks no lower than its author's")]
    Rank {
        /// The log.
        log: LogId,
        /// The place.
        seq: Seq,
    },
    /// Its author had been told that the grant does not hold any more.
    #[error("an entry of log {log} at {seq} uses a grant that was revoked before")]
    Revoked {
        /// The log.
        log: LogId,
        /// The place.
        seq: Seq,
    },
    /// A place that a cut lists was never signed by its device.
    #[error("a revocation lists {0:?}, which its device never signed as a head")]
    CutNotHead(Position),
    /// It names a place of its own log as a parent; only `prev` leads down there.
    #[error("an entry of log {log} at {seq} names its own log as a parent")]
    OwnParent {
        /// The log.
        log: LogId,
        /// The place.
        seq: Seq,
    },
    /// The genesis entry does not found a database.
    #[error("the first entry does not name an admin")]
    Genesis,
    /// A payload that decides who may write is absent.
    #[error("an entry of log {log} at {seq} came without its members payload")]
    MembersAbsent {
        /// The log.
        log: LogId,
        /// The place.
        seq: Seq,
    },
    /// A payload is absent although nothing erased or pruned it: its operations would be missing here alone.
    #[error("an entry of log {log} at {seq} came without one of its payloads")]
    PayloadAbsent {
        /// The log.
        log: LogId,
        /// The place.
        seq: Seq,
    },
}

impl Refusal {
    /// Whether it may be admissible once more has arrived.
    #[must_use]
    pub fn is_gap(&self) -> bool {
        matches!(self, Self::Gap(..))
    }
}

pub(crate) fn corrupt(what: &str) -> StorageError {
    StorageError::Corrupt(format!("{what} cannot be read"))
}
