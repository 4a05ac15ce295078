//! What of a database is sealed: its first entry says so, and that never changes.

use super::{KeyOp, decode_keys};
use crate::codec::{DecodeError, Reader, Writer};
use crate::entry::{Entry, StoreId, StoreKind};
use crate::limits;

/// What of a database is sealed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Scope {
    /// Nothing.
    #[default]
    Nothing,
    /// Every store but those of members and keys.
    Everything,
    /// The stores of these names, of whatever kind. At most [`limits::SEALED_STORES`].
    Stores(Vec<String>),
}

impl Scope {
    /// Whether payloads of that store are sealed.
    #[must_use]
    pub fn covers(&self, store: &StoreId) -> bool {
        // Those two are for everybody who judges entries.
        let sealable = !matches!(store.kind, StoreKind::MEMBERS | StoreKind::KEYS);
        sealable
            && match self {
                Self::Nothing => false,
                Self::Everything => true,
                Self::Stores(names) => names.contains(&store.name),
            }
    }

    pub(crate) fn is_of_stores(&self) -> bool {
        matches!(self, Self::Stores(_))
    }

    /// What a genesis entry says: one that makes a key seals everything, but if it says which stores.
    pub(crate) fn of(genesis: &Entry) -> Self {
        let keys = genesis.payloads().find(|(store, _)| store.kind == StoreKind::KEYS);
        let Some((_, payload)) = keys else { return Self::Nothing };
        let ops = decode_keys(payload.bytes().unwrap_or_default()).ops;
        let only = ops.into_iter().flatten().find_map(|op| match op {
            KeyOp::Only { stores } => Some(stores),
            _ => None,
        });
        only.map_or(Self::Everything, Self::Stores)
    }

    /// The row that keeps it; of a database of which nothing is sealed there is none.
    pub(super) fn row(&self) -> Option<Vec<u8>> {
        match self {
            Self::Nothing => None,
            Self::Everything => Some(Vec::new()),
            Self::Stores(names) => {
                let mut w = Writer::new();
                put_names(&mut w, names);
                Some(w.finish())
            }
        }
    }

    pub(super) fn from_row(row: &[u8]) -> Result<Self, DecodeError> {
        if row.is_empty() {
            return Ok(Self::Everything);
        }
        let mut r = Reader::new(row);
        let names = take_names(&mut r)?;
        r.finish()?;
        Ok(Self::Stores(names))
    }
}

pub(super) fn put_names(w: &mut Writer, names: &[String]) {
    w.array(names.len());
    for name in names {
        w.text(name);
    }
}

/// At least one, ascending, none empty or twice: what is left out by a slip is not taken for clear.
pub(super) fn take_names(r: &mut Reader<'_>) -> Result<Vec<String>, DecodeError> {
    let at = r.position();
    let names = (0..r.array("sealed stores", limits::SEALED_STORES)?)
        .map(|_| r.text("store name", limits::STORE_NAME_BYTES).map(str::to_owned))
        .collect::<Result<Vec<String>, DecodeError>>()?;
    let nameless = names.first().is_none_or(String::is_empty);
    if nameless || !names.is_sorted_by(|a, b| a < b) {
        return Err(DecodeError::Malformed { what: "sealed stores", at });
    }
    Ok(names)
}
