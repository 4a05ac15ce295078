//! The storage a replica lives on: ordered tables of bytes, read and written in transactions.
//!
//! What the tables hold is decided in this crate, once ([`crate::ledger`], [`crate::cells`]); a back end only has to keep
//! ordered bytes, which makes it small enough to write twice and to wrap with one that injects faults. Guards I1 and I6:
//! [`WriteTx::commit`] returns only when the transaction has the durability that was asked for.

use std::ops::ControlFlow;

/// The tables of one database. Keys are ordered as bytes.
///
/// The numbers are part of the file format: never reuse one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Table {
    /// Single records: identity of the database, counters, the replica's own log.
    Meta = 0,
    /// Arrival number (8 bytes, big-endian) → entry.
    Entry = 1,
    /// (branch, sequence) of the first entry of a contiguous stretch → its arrival number.
    Segment = 2,
    /// Branch number → the branch: its log, where it forks off, its tip.
    Branch = 3,
    /// (device, epoch, branch number) → nothing.
    BranchByLog = 4,
    /// (branch, sequence) → kept head.
    Head = 5,
    /// Branches whose tip no other held entry builds on.
    Uncovered = 6,
    /// (store, path, branch, sequence, index) → live value.
    Cell = 7,
    /// Names of replaced values whose entry is not held (only a liar causes one).
    Name = 8,
    /// Store number → the store: kind, name, digest state.
    Store = 9,
    /// Grant number → grant.
    Grant = 10,
    /// (entry id, index) → grant number.
    GrantById = 11,
    /// (subject, grant number) → nothing; (grant used, grant number) → nothing.
    GrantBySubject = 12,
    /// Content hash → chunk or manifest node.
    Blob = 13,
    /// Whatever this replica alone needs to remember (a folder's base, watermarks); never synced.
    Local = 14,
    /// Secondary indexes over fields of tables, and what is declared of them; never synced.
    Index = 15,
    /// Revocations, what they leave, and which entries use which grant.
    Membership = 16,
}

impl Table {
    /// Every table, in the order of their numbers.
    pub const ALL: [Self; 17] = [
        Self::Meta,
        Self::Entry,
        Self::Segment,
        Self::Branch,
        Self::BranchByLog,
        Self::Head,
        Self::Uncovered,
        Self::Cell,
        Self::Name,
        Self::Store,
        Self::Grant,
        Self::GrantById,
        Self::GrantBySubject,
        Self::Blob,
        Self::Local,
        Self::Index,
        Self::Membership,
    ];

    /// A stable lower-case name, for back ends that name their tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Entry => "entry",
            Self::Segment => "segment",
            Self::Branch => "branch",
            Self::BranchByLog => "branch_by_log",
            Self::Head => "head",
            Self::Uncovered => "uncovered",
            Self::Cell => "cell",
            Self::Name => "name",
            Self::Store => "store",
            Self::Grant => "grant_",
            Self::GrantById => "grant_by_id",
            Self::GrantBySubject => "grant_by_subject",
            Self::Blob => "blob",
            Self::Local => "local",
            Self::Index => "index_",
            Self::Membership => "membership",
        }
    }

    /// Whether every key is a big-endian `u64` below 2⁶³, so that a back end may key the table by integer.
    #[must_use]
    pub fn integer_keyed(self) -> bool {
        self == Self::Entry
    }
}

/// How safe a commit must be before it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// On stable storage: survives power loss.
    #[default]
    Full,
    /// Survives the death of the process; a power loss may take the last commits, never their order or their atomicity.
    Normal,
}

/// Why storage could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The file exists and is no Anabranch database.
    #[error("{path} is not an Anabranch database; move it away or name another file")]
    Foreign {
        /// The file.
        path: String,
    },
    /// A later version of the program wrote it.
    #[error(
        "{path} has format version {found}, this program reads up to {supported}; update anabranch to open it"
    )]
    NewerVersion {
        /// The file.
        path: String,
        /// The version found.
        found: u32,
        /// The newest version that this program reads.
        supported: u32,
    },
    /// An earlier version of the program wrote it and there is no way to bring it up to date.
    #[error(
        "{path} has format version {found}, which this program no longer reads (it reads {supported}); open it once with the version that wrote it and export it"
    )]
    OlderVersion {
        /// The file.
        path: String,
        /// The version found.
        found: u32,
        /// The oldest version that this program reads.
        supported: u32,
    },
    /// The bytes on disk are not what was written.
    #[error(
        "the database is damaged: {0}; restore the file from a copy, or move it away and join again from a peer"
    )]
    Corrupt(String),
    /// No room left.
    #[error(
        "no space left on the device that holds the database; free some and try again, nothing was lost"
    )]
    Full,
    /// Another process held the write lock for too long.
    #[error(
        "another process kept the database locked for {0} seconds; try again when it has finished"
    )]
    Busy(u64),
    /// Much arrived at once, and what it says is being put in place.
    #[error("the database is being built from what arrived; try again when that is done")]
    Building,
    /// Nobody handed this device a key of the sealed database: it can pass on what is in it and not read it.
    #[error(
        "the database is sealed and this device has no key to it: one that relays gets none, one that may read gets it from the next admin or writer it is in step with"
    )]
    NoKey,
    /// Everything else the back end reports.
    #[error("storage failed: {0}")]
    Io(String),
}

/// What a visitor of [`ReadTx::scan`] is called with: key and value.
pub type Visit<'v> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'v;

/// Which way to walk a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Smallest key first.
    Ascending,
    /// Largest key first.
    Descending,
}

/// A consistent view of all tables.
pub trait ReadTx {
    /// The value under `key`.
    ///
    /// # Errors
    /// Whatever the back end reports; never for an absent key.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError>;

    /// Calls `visit` for each pair with `from <= key` and, if `to` is given, `key < to`, until it breaks.
    ///
    /// Cost: one look-up and one step a pair; nothing is collected.
    ///
    /// # Errors
    /// Whatever the back end reports.
    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<(), StorageError>;

    /// Calls `visit` with each key that [`Self::scan`] would, ascending. Back ends that keep values apart from keys read
    /// no value.
    ///
    /// # Errors
    /// Whatever the back end reports.
    fn keys(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        self.scan(table, from, to, Order::Ascending, &mut |key, _| visit(key))
    }

    /// Whether there is something under `key`, at the cost of [`Self::keys`].
    ///
    /// # Errors
    /// Whatever the back end reports.
    fn has(&self, table: Table, key: &[u8]) -> Result<bool, StorageError> {
        let mut found = false;
        self.keys(table, key, None, &mut |first| {
            found = first == key;
            ControlFlow::Break(())
        })?;
        Ok(found)
    }
}

/// The only writer of a database until it is committed or dropped (which undoes it). It sees its own writes.
pub trait WriteTx: ReadTx {
    /// Stores `value` under `key`, replacing what was there.
    ///
    /// # Errors
    /// Whatever the back end reports.
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StorageError>;

    /// Removes `key`; returns whether it was there.
    ///
    /// # Errors
    /// Whatever the back end reports.
    fn delete(&mut self, table: Table, key: &[u8]) -> Result<bool, StorageError>;

    /// Tells states of the storage apart, if the back end can: whoever commits in a transaction that began with state `n`
    /// finds `n + 1` in the next one exactly if nobody else, in this process or another, has committed in between.
    fn state(&self) -> Option<u64> {
        None
    }

    /// Makes all of it visible and durable at once.
    ///
    /// # Errors
    /// When it fails, nothing of the transaction is there.
    fn commit(self: Box<Self>) -> Result<(), StorageError>;
}

/// One database on some medium. Shared between threads; several processes may hold one each on the same file.
pub trait Storage: Send + Sync {
    /// A view of the newest committed state that stays what it is.
    ///
    /// # Errors
    /// Whatever the back end reports.
    fn read(&self) -> Result<Box<dyn ReadTx + '_>, StorageError>;

    /// Waits for the write lock and starts a transaction on the newest committed state.
    ///
    /// # Errors
    /// [`StorageError::Busy`] when another writer holds the lock too long, or whatever the back end reports.
    fn write(&self, durability: Durability) -> Result<Box<dyn WriteTx + '_>, StorageError>;

    /// As [`Self::write`] with [`Durability::Normal`], for who must not be held up: `None` where that would wait for another
    /// writer, or if the back end syncs more than the head of its log, once in a while, before the commit returns. It may
    /// read.
    ///
    /// # Errors
    /// Whatever the back end reports.
    fn try_write(&self) -> Result<Option<Box<dyn WriteTx + '_>>, StorageError> {
        Ok(None)
    }

    /// Has the disk take in what is committed and not durable yet while others go on writing, so that the next commit with
    /// [`Durability::Full`] keeps them waiting for less. It promises nothing, and does nothing where little would be gained.
    fn sync_ahead(&self) {}

    /// A mark that changes when this storage is copied, moved or restored to another place: the same state directory
    /// then starts a new log (I6).
    fn instance(&self) -> [u8; 32];

    /// Bytes the storage occupies, as far as the back end can tell.
    ///
    /// # Errors
    /// Whatever the back end reports.
    fn size(&self) -> Result<u64, StorageError>;
}
