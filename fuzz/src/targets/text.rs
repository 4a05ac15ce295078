//! What people type or paste, and what a configuration holds: what is understood can be written and is understood again as
//! the same.

use crate::input::Input;
use anabranch_core::id::{DatabaseId, EntryId, NodeId, from_base32, to_base32};
use anabranch_core::ticket::{ADDRESS_BYTES, ADDRESSES, NAME_BYTES, Ticket};
use anabranch_node::config::{SETTINGS, Settings, parse_bytes, parse_duration, setting};
use anabranch_transport::ssh::SshCommand;
use anabranch_transport::{Address, ListenAddr};
use std::collections::BTreeMap;
use std::fmt::{Debug, Display};
use std::str::FromStr;

/// A byte that says which, and the text.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.byte();
    let Ok(text) = std::str::from_utf8(input.rest()) else { return };
    match kind % 8 {
        0 => ticket(text),
        1 => {
            again::<NodeId>(text);
            again::<EntryId>(text);
            again::<DatabaseId>(text);
        }
        2 => again::<Address>(text),
        3 => again::<ListenAddr>(text),
        4 => ssh(text),
        5 => settings(text),
        6 => units(text),
        _ => {
            if let Some(bytes) = from_base32(text) {
                assert_eq!(to_base32(&bytes), text.to_ascii_lowercase(), "bytes have one spelling");
            }
        }
    }
}

fn again<T: FromStr<Err: Debug> + Display + PartialEq + Debug>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        let written = value.to_string();
        let read = written.parse::<T>();
        assert!(read.as_ref().is_ok_and(|read| *read == value), "{written}: {read:?}");
    }
}

fn ticket(text: &str) {
    let Ok(ticket) = text.parse::<Ticket>() else { return };
    assert_eq!(ticket.to_string(), text.trim().to_ascii_lowercase(), "a ticket has one spelling");
    assert!(ticket.addresses.len() <= ADDRESSES && ticket.name.len() <= NAME_BYTES);
    assert!(ticket.addresses.iter().all(|address| address.len() <= ADDRESS_BYTES));
    assert!(!format!("{ticket:?}").contains(&to_base32(&ticket.key.seed())), "no secret in logs");
}

fn ssh(text: &str) {
    let Ok(command) = SshCommand::parse(text) else { return };
    if let Ok(Address::Ssh(address)) = Address::parse("me@host:~/it's here") {
        let words = command.words_for(&address, "anabranch serve");
        assert!(words.len() >= 3, "program, host, command: {words:?}");
    }
}

/// Lines `key=value`.
fn settings(text: &str) {
    let set: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once('=')).collect();
    for (key, value) in &set {
        if let Ok(setting) = setting(key) {
            let _ = setting.check(value);
        }
    }
    let allowed = SETTINGS
        .iter()
        .filter(|setting| set.contains_key(setting.key))
        .all(|setting| setting.check(set[setting.key]).is_ok());
    let loaded = Settings::load(|key| set.get(key).map(|value| (*value).to_owned()));
    assert!(allowed || loaded.is_err(), "what is refused alone is refused with others");
    if let Ok(settings) = loaded {
        assert!(settings.transport.limits.validate().is_ok());
        assert!(settings.store.readers >= 1);
    }
}

fn units(text: &str) {
    if let Some(bytes) = parse_bytes(text) {
        assert_eq!(parse_bytes(&bytes.to_string()), Some(bytes));
    }
    if let Some(duration) = parse_duration(text) {
        assert_eq!(parse_duration(&format!("{}ms", duration.as_millis())), Some(duration));
    }
}
