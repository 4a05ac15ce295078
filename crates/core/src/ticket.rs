//! Tickets: what one person hands another to let a device in. One line of text: `ticket_` and base32 of the canonical
//! encoding with four bytes of checksum, so that a mistyped letter is told from a refused ticket.

use crate::codec::{DecodeError, Reader, Writer};
use crate::id::{DatabaseId, from_base32, to_base32};
use crate::key::DeviceKey;
use std::fmt;
use std::str::FromStr;

const VERSION: u64 = 1;
const PREFIX: &str = "ticket_";
/// Addresses one ticket may name.
pub const ADDRESSES: usize = 16;
/// Bytes of one address.
pub const ADDRESS_BYTES: usize = 2048;
/// Bytes of the name of what is shared.
pub const NAME_BYTES: usize = 128;

/// Where a database is, which one it is, and the secret that lets a device in. Whoever has it is let in: treat it as a
/// password.
#[derive(Clone)]
pub struct Ticket {
    /// Where it is served, as users write addresses.
    pub addresses: Vec<String>,
    /// The database.
    pub database: DatabaseId,
    /// Its secret; an admin granted the public half.
    pub key: DeviceKey,
    /// Whether a folder is shared; else a database.
    pub folder: bool,
    /// What the sharer calls it; only a suggestion.
    pub name: String,
}

/// Text that is no whole ticket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TicketError {
    /// It does not begin like one.
    #[error("this is not a ticket: one begins with '{PREFIX}'")]
    Prefix,
    /// A letter is wrong or some are missing.
    #[error(
        "the ticket is damaged: a character is wrong or some are missing; copy it again, whole"
    )]
    Damaged,
    /// Made by a later version.
    #[error("the ticket was made by a later version of anabranch; update this one to use it")]
    Version,
}

impl From<DecodeError> for TicketError {
    fn from(_: DecodeError) -> Self {
        Self::Damaged
    }
}

fn checksum(bytes: &[u8]) -> [u8; 4] {
    let hash = blake3::derive_key("anabranch 1 ticket checksum", bytes);
    [hash[0], hash[1], hash[2], hash[3]]
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut w = Writer::new();
        w.array(6).u64(VERSION).bytes(&self.database.0).bytes(&self.key.seed());
        w.u64(u64::from(self.folder)).text(&self.name).array(self.addresses.len());
        for address in &self.addresses {
            w.text(address);
        }
        let mut bytes = w.finish();
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum);
        write!(f, "{PREFIX}{}", to_base32(&bytes))
    }
}

impl fmt::Debug for Ticket {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("database", &self.database)
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        let text = text.trim();
        let limit = (ADDRESSES * ADDRESS_BYTES + 1024) * 2;
        let body = text.strip_prefix(PREFIX).ok_or(TicketError::Prefix)?;
        if body.len() > limit {
            return Err(TicketError::Damaged);
        }
        let bytes = from_base32(body).ok_or(TicketError::Damaged)?;
        let (bytes, sum) = bytes.split_last_chunk::<4>().ok_or(TicketError::Damaged)?;
        if *sum != checksum(bytes) {
            return Err(TicketError::Damaged);
        }
        let mut r = Reader::new(bytes);
        let fields = r.array("ticket", 64)?;
        if r.u64("version")? != VERSION || fields != 6 {
            return Err(TicketError::Version);
        }
        let database = DatabaseId(r.array_of("database")?);
        let key = DeviceKey::from_seed(&r.array_of("key")?);
        // What is shared: 0 a database, 1 a folder; later versions will know more.
        let folder = match r.u64("kind")? {
            0 => false,
            1 => true,
            _ => return Err(TicketError::Version),
        };
        let name = r.text("name", NAME_BYTES)?.to_owned();
        let addresses = (0..r.array("addresses", ADDRESSES)?)
            .map(|_| Ok(r.text("address", ADDRESS_BYTES)?.to_owned()))
            .collect::<Result<_, DecodeError>>()?;
        r.finish()?;
        Ok(Self { addresses, database, key, folder, name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ticket(addresses: Vec<String>, name: String) -> Ticket {
        let key = DeviceKey::from_seed(&[7; 32]);
        Ticket { addresses, database: DatabaseId([1; 32]), key, folder: true, name }
    }

    #[test]
    fn any_wrong_character_is_noticed() {
        let text = ticket(vec!["http://127.0.0.1:7700".into()], "notes".into()).to_string();
        for i in 0..text.len() {
            let mut wrong = text.clone().into_bytes();
            wrong[i] = if wrong[i] == b'a' { b'b' } else { b'a' };
            let wrong = String::from_utf8(wrong).unwrap();
            if wrong != text {
                assert!(wrong.parse::<Ticket>().is_err(), "character {i}");
            }
        }
        assert!(text[..text.len() - 1].parse::<Ticket>().is_err());
    }

    #[test]
    fn the_largest_ticket_comes_back() {
        let largest = ticket(vec!["x".repeat(ADDRESS_BYTES); ADDRESSES], "n".repeat(NAME_BYTES));
        let back: Ticket = largest.to_string().parse().unwrap();
        assert_eq!((back.addresses, back.name), (largest.addresses, largest.name));
    }

    #[test]
    fn the_secret_is_not_printed_by_debug() {
        let ticket = ticket(vec![], String::new());
        assert!(!format!("{ticket:?}").contains("07, 7"));
        assert!(!format!("{ticket:?}").contains(&to_base32(&ticket.key.seed())));
    }

    proptest! {
        #[test]
        fn text_round_trips(list in proptest::collection::vec(".{0,40}", 0..4), name in ".{0,20}") {
            let ticket = ticket(list, name);
            let back: Ticket = ticket.to_string().to_uppercase().to_lowercase().parse().unwrap();
            prop_assert_eq!(back.to_string(), ticket.to_string());
        }

        #[test]
        fn arbitrary_text_never_panics(text: String) {
            let _ = text.parse::<Ticket>();
            let _ = format!("{PREFIX}{text}").parse::<Ticket>();
        }
    }
}
