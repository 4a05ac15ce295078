//! Content of blob stores in a replica: putting it in before the entry that names it, fetching what others name, reading
//! ranges of it, and taking away what nothing names any more. The content is in the database file (`Table::Blob`); what
//! lives here beside it are a few rows of this replica alone (`Table::Local`), never told to peers.
//!
//! | row | |
//! | --- | --- |
//! | `await/ …` | a live value whose content is not known to be here ([`anabranch_core::awaited`]) |
//! | `keep/ ‖ store` | whether content of that store, or without a name of all others, is fetched before it is asked for |
//! | `put/ ‖ id` | a put under way, and when it was last heard of |
//! | `pin/ ‖ hash ‖ id` | a blob that this put is about to name |
//! | `collect` | a collection under way |
//! | `own/ ‖ hash` | the root of content that was put in here, which is never evicted |

mod collect;
mod gather;
mod put;
mod read;

pub use collect::{Collected, Collection, MARKS};
pub(crate) use gather::{Gather, Gathering};
pub use put::Put;
pub use read::{BlobReader, READ_WAIT};

use crate::error::NodeError;
use crate::replica::Replica;
use anabranch_core::storage::{Durability, Order, ReadTx, StorageError, Table, WriteTx};
use std::collections::BTreeSet;
use std::ops::ControlFlow;

const KEEP: &[u8] = b"keep/";
const PUT: &[u8] = b"put/";
const PIN: &[u8] = b"pin/";
const OWN: &[u8] = b"own/";
const COLLECT: &[u8] = b"collect";

/// Microseconds after which who was not heard of counts as dead.
const DEAD: u64 = 24 * 3600 * 1_000_000;

/// Names a put or a collection.
type WorkId = [u8; 16];

/// When content comes to a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keep {
    /// With the entries that name it.
    #[default]
    Eager,
    /// When somebody reads it, as far as he reads it.
    Lazy,
}

impl Keep {
    /// A word for programs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Eager => "eager",
            Self::Lazy => "lazy",
        }
    }

    fn byte(self) -> u8 {
        match self {
            Self::Eager => 0,
            Self::Lazy => 1,
        }
    }

    fn read(row: &[u8]) -> Result<Self, StorageError> {
        match row {
            [0] => Ok(Self::Eager),
            [1] => Ok(Self::Lazy),
            _ => Err(StorageError::Corrupt("a setting of a blob store makes no sense".into())),
        }
    }
}

/// What was said of each store. A handful of rows.
pub(crate) struct Kept {
    default: Keep,
    /// Stores that are not as the default says.
    others: BTreeSet<String>,
}

impl Kept {
    pub(crate) fn read(tx: &dyn ReadTx) -> Result<Self, StorageError> {
        let default =
            tx.get(Table::Local, KEEP)?.map_or(Ok(Keep::Eager), |row| Keep::read(&row))?;
        let (mut others, mut failed) = (BTreeSet::new(), None);
        tx.scan(Table::Local, KEEP, None, Order::Ascending, &mut |key, row| {
            let Some(name) = key.strip_prefix(KEEP) else { return ControlFlow::Break(()) };
            match (std::str::from_utf8(name), Keep::read(row)) {
                (Ok(name), Ok(keep)) if keep != default && !name.is_empty() => {
                    others.insert(name.to_owned());
                }
                (Ok(_), Ok(_)) => {}
                _ => failed = Some(StorageError::Corrupt("a setting of a blob store".into())),
            }
            ControlFlow::Continue(())
        })?;
        failed.map_or(Ok(Self { default, others }), Err)
    }

    pub(crate) fn of(&self, store: &str) -> Keep {
        match (self.others.contains(store), self.default) {
            (false, default) => default,
            (true, Keep::Eager) => Keep::Lazy,
            (true, Keep::Lazy) => Keep::Eager,
        }
    }
}

pub(crate) fn as_read(tx: &mut dyn WriteTx) -> &dyn ReadTx {
    tx
}

/// Whether who was last heard of then may still be at work. Clocks may jump either way.
fn lives(now: u64, heard: &[u8]) -> bool {
    <[u8; 8]>::try_from(heard).is_ok_and(|t| now.abs_diff(u64::from_be_bytes(t)) < DEAD)
}

/// Whether a collection is under way. One that is taken for dead is forgotten, so that it ends if it is not.
fn collects(tx: &mut dyn WriteTx, now: u64) -> Result<bool, StorageError> {
    let Some(row) = tx.get(Table::Local, COLLECT)? else { return Ok(false) };
    if row.get(16..).is_some_and(|heard| lives(now, heard)) {
        return Ok(true);
    }
    tx.delete(Table::Local, COLLECT)?;
    Ok(false)
}

impl Replica {
    /// When content of the store `name`, or of all that nothing else was said of, comes here.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn keep(&self, name: Option<&str>) -> Result<Keep, StorageError> {
        let kept = Kept::read(&*self.storage().read()?)?;
        Ok(name.map_or(kept.default, |name| kept.of(name)))
    }

    /// Says when content of the store `name` comes to this replica; without a name, of all stores that nothing else was
    /// said of. It is kept in the replica's file, since it says what that file is to hold, whoever it is exchanged with.
    /// Content that is here stays.
    ///
    /// # Errors
    /// [`NodeError::Core`].
    pub fn set_keep(&self, name: Option<&str>, keep: Keep) -> Result<(), NodeError> {
        let mut tx = self.storage().write(Durability::Full)?;
        let key = [KEEP, name.unwrap_or_default().as_bytes()].concat();
        tx.put(Table::Local, &key, &[keep.byte()])?;
        tx.commit()?;
        self.gather_anew();
        Ok(())
    }
}
