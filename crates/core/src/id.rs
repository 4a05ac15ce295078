//! The names of things: small types, so that a device cannot be passed where a database is meant. Their text form is a
//! prefix and lower-case base32 (RFC 4648 alphabet, no padding).

use data_encoding::BASE32_NOPAD_NOCASE as BASE32;
use std::fmt;
use std::str::FromStr;

/// Lower-case base32 of `bytes`.
#[must_use]
pub fn to_base32(bytes: &[u8]) -> String {
    BASE32.encode(bytes).to_ascii_lowercase()
}

/// The bytes that `text` (base32, either case) spells.
#[must_use]
pub fn from_base32(text: &str) -> Option<Vec<u8>> {
    BASE32.decode(text.as_bytes()).ok()
}

/// Text that does not name what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a {kind}; one looks like {prefix}… with 52 letters and digits after it")]
pub struct IdError {
    /// What was expected.
    pub kind: &'static str,
    /// How its text begins.
    pub prefix: &'static str,
    /// What was given, cut to a printable length.
    pub text: String,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// How its text form begins.
            pub const PREFIX: &'static str = $prefix;

            /// The raw bytes.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// Prefix and the first eight letters: enough to tell a handful apart, for people.
            #[must_use]
            pub fn short(&self) -> String {
                let mut text = self.to_string();
                text.truncate($prefix.len() + 8);
                text
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}", $prefix, to_base32(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.short())
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                text.strip_prefix($prefix)
                    .and_then(from_base32)
                    .and_then(|bytes| bytes.try_into().ok())
                    .map(Self)
                    .ok_or_else(|| IdError {
                        kind: $kind,
                        prefix: $prefix,
                        text: text.chars().filter(|c| !c.is_control()).take(80).collect(),
                    })
            }
        }
    };
}

id!(
    /// A device: its Ed25519 public key.
    NodeId, "node_", "device"
);
id!(
    /// An entry: BLAKE3-256 of its canonical header.
    EntryId, "entry_", "entry"
);
id!(
    /// A database: the id of its genesis entry.
    DatabaseId, "db_", "database id"
);

impl EntryId {
    /// The first 16 bytes, as far as a replaced value's entry is named: enough that nobody finds two entries that share
    /// them and so could not be told apart by those who replace their values (I2).
    #[must_use]
    pub fn first16(&self) -> [u8; 16] {
        let mut first = [0; 16];
        first.copy_from_slice(&self.0[..16]);
        first
    }
}

impl DatabaseId {
    /// The database whose genesis entry is `genesis`.
    #[must_use]
    pub fn of_genesis(genesis: EntryId) -> Self {
        Self(genesis.0)
    }

    /// The genesis entry of this database.
    #[must_use]
    pub fn genesis(&self) -> EntryId {
        EntryId(self.0)
    }
}

/// A log: a device and a random epoch. Two replicas on one device are two logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    /// The device that writes it.
    pub device: NodeId,
    /// Random, drawn when the log is started.
    pub epoch: u64,
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:016x}", self.device.short(), self.epoch)
    }
}

/// A place in a log, counted from 1; 0 is the place before the first entry.
pub type Seq = u64;

/// One place in one log *and* what stands there, so that forks are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The log.
    pub log: LogId,
    /// The place.
    pub seq: Seq,
    /// The entry there.
    pub id: EntryId,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_alphabet_is_the_one_documented() {
        assert_eq!(to_base32(b"anabranch"), "mfxgcytsmfxgg2a");
        assert_eq!(from_base32("MFXGCYTSMFXGG2A").as_deref(), Some(&b"anabranch"[..]));
    }

    #[test]
    fn a_device_is_not_a_database() {
        let text = NodeId([7; 32]).to_string();
        assert!(text.parse::<DatabaseId>().is_err());
        assert!(text[..text.len() - 1].parse::<NodeId>().is_err());
    }

    proptest! {
        #[test]
        fn text_round_trips(bytes: [u8; 32]) {
            let id = DatabaseId(bytes);
            prop_assert_eq!(id.to_string().parse::<DatabaseId>().unwrap(), id);
        }

        #[test]
        fn any_text_is_read_or_refused(text: String) {
            let _ = text.parse::<NodeId>();
            let _ = format!("node_{text}").parse::<NodeId>();
        }
    }
}
