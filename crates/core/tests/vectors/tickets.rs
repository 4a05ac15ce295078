//! tickets.json: tickets as text.

use crate::file::{golden, hex, text};
use anabranch_core::id::DatabaseId;
use anabranch_core::key::DeviceKey;
use anabranch_core::ticket::{Ticket, TicketError};
use serde_json::{Value, json};

fn read(text: &str) -> Value {
    match text.parse::<Ticket>() {
        Ok(ticket) => json!({
            "database": ticket.database.to_string(),
            "seed": hex(ticket.key.seed()),
            "folder": ticket.folder,
            "name": ticket.name,
            "addresses": ticket.addresses,
        }),
        Err(TicketError::Prefix) => json!("refused: prefix"),
        Err(TicketError::Version) => json!("refused: version"),
        Err(_) => json!("refused: damaged"),
    }
}

fn case(name: &str, text: String) -> Value {
    let read = read(&text);
    json!({ "name": name, "text": text, "read": read })
}

/// The text of these bytes with a checksum that fits.
fn spelled(body: &[u8]) -> String {
    let sum = blake3::derive_key("anabranch 1 ticket checksum", body);
    let bytes = [body, &sum[..4]].concat();
    format!("ticket_{}", anabranch_core::id::to_base32(&bytes))
}

fn made() -> Vec<Value> {
    let key = DeviceKey::from_seed(&[7; 32]);
    let small = Ticket {
        addresses: vec![],
        database: DatabaseId([1; 32]),
        key: key.clone(),
        folder: false,
        name: String::new(),
    };
    let large = Ticket {
        addresses: vec!["https://example.org".into(), "host:some/path".into()],
        database: DatabaseId([2; 32]),
        key,
        folder: true,
        name: "Photos — Straße".into(),
    };
    let (small, large) = (small.to_string(), large.to_string());
    let mut wrong = small.clone().into_bytes();
    wrong[20] = if wrong[20] == b'a' { b'b' } else { b'a' };
    vec![
        case("a database, no address", small.clone()),
        case("a folder, two addresses", large.clone()),
        case(
            "in capitals after the prefix",
            large.replacen(&large[7..], &large[7..].to_uppercase(), 1),
        ),
        case("with spaces around it", format!(" {small}\n")),
        case("one letter wrong", String::from_utf8(wrong).unwrap()),
        case("one letter missing", small[..small.len() - 1].to_owned()),
        case("another prefix", small.replacen("ticket_", "db_", 1)),
        case("no ticket inside", spelled(&[0x80])),
        case("a later version", spelled(&[0x82, 0x02, 0x00])),
    ]
}

#[test]
fn tickets() {
    for case in golden("tickets", "Tickets as text", made()) {
        assert_eq!(read(text(&case["text"])), case["read"], "{}", case["name"]);
    }
}
