//! The one registry of settings: every limit and default has a name, a meaning, a default and a range here (I10). Shown
//! and set by `anabranch config`, kept in the home.

use crate::error::NodeError;
use crate::replica::{Bulk, ReplicaOptions};
use crate::requests::RequestLimits;
use anabranch_core::build;
use anabranch_core::storage::Durability;
use anabranch_store::Options;
use anabranch_transport::http::TlsRoots;
use anabranch_transport::ssh::SshCommand;
use anabranch_transport::{Limits, TransportConfig};
use std::time::Duration;

/// What kind of value a setting takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One of these words.
    Word(&'static [&'static str]),
    /// A count within a range.
    Count(u64, u64),
    /// Bytes within a range, such as `32MiB`.
    Bytes(u64, u64),
    /// A duration within a range, such as `500ms`, `30s`, `7d`.
    Duration(Duration, Duration),
    /// Any text.
    Text,
}

/// A setting.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Its name.
    pub key: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// The value when none is set.
    pub default: &'static str,
    /// What it does, in a sentence.
    pub about: &'static str,
}

const MS: Duration = Duration::from_millis(1);
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

/// All settings, by name.
pub const SETTINGS: &[Setting] = &[
    Setting {
        key: "bulk.entries",
        kind: Kind::Count(1, 1 << 30),
        default: "250000",
        about: "entries of a bulk load that are stored before what they say is put in place",
    },
    Setting {
        key: "bulk.from",
        kind: Kind::Count(1, 1 << 30),
        default: "20000",
        about: "entries that arrive at once and are loaded in bulk, if they are also a quarter of those held",
    },
    Setting {
        key: "bulk.memory",
        kind: Kind::Bytes(64 * KIB, GIB),
        default: "48MiB",
        about: "memory for putting in place what was loaded in bulk",
    },
    Setting {
        key: "durability",
        kind: Kind::Word(&["full", "normal"]),
        default: "full",
        about: "when a commit counts as done: 'full' survives power loss, 'normal' the death of the process",
    },
    Setting {
        key: "net.claim_timeout",
        kind: Kind::Duration(MS, WEEK),
        default: "10s",
        about: "how long a peer may bring nothing of what it is to bring before it is taken from another one",
    },
    Setting {
        key: "net.close_timeout",
        kind: Kind::Duration(MS, WEEK),
        default: "5s",
        about: "how long a closed connection waits for the other side's end",
    },
    Setting {
        key: "net.connect_timeout",
        kind: Kind::Duration(MS, WEEK),
        default: "10s",
        about: "how long connecting may take",
    },
    Setting {
        key: "net.download",
        kind: Kind::Bytes(0, 1 << 40),
        default: "0",
        about: "bytes a second that all sessions together may receive; 0: no limit",
    },
    Setting {
        key: "net.handshake_timeout",
        kind: Kind::Duration(MS, WEEK),
        default: "10s",
        about: "how long agreeing on encryption may take",
    },
    Setting {
        key: "net.http_accept_queue",
        kind: Kind::Count(1, 1 << 20),
        default: "64",
        about: "accepted connections that may wait to be looked at",
    },
    Setting {
        key: "net.http_header_timeout",
        kind: Kind::Duration(MS, WEEK),
        default: "10s",
        about: "how long a client may take to send a request's header",
    },
    Setting {
        key: "net.http_max_connections",
        kind: Kind::Count(1, 1 << 20),
        default: "1024",
        about: "connections served at once; further ones are told to come back",
    },
    Setting {
        key: "net.idle_timeout",
        kind: Kind::Duration(MS, WEEK),
        default: "60s",
        about: "how long a connection may be silent before its peer is given up",
    },
    Setting {
        key: "net.link_queue",
        kind: Kind::Count(1, 1 << 20),
        default: "2",
        about: "frames held between a session and its socket in each direction",
    },
    Setting {
        key: "net.open_timeout",
        kind: Kind::Duration(MS, WEEK),
        default: "30s",
        about: "how long a peer that connects may take to open a database that it may read",
    },
    Setting {
        key: "net.ping_interval",
        kind: Kind::Duration(MS, WEEK),
        default: "20s",
        about: "how often a quiet connection is kept alive",
    },
    Setting {
        key: "net.retry_max",
        kind: Kind::Duration(MS, WEEK),
        default: "1m",
        about: "the longest wait before a peer that cannot be reached is tried again",
    },
    Setting {
        key: "net.retry_min",
        kind: Kind::Duration(MS, WEEK),
        default: "1s",
        about: "the wait before a lost peer is tried again; doubles each time it fails",
    },
    Setting {
        key: "net.send_queue",
        kind: Kind::Bytes(64 * KIB, GIB),
        default: "8MiB",
        about: "bytes that may wait to be sent on a connection before nothing more is read from its peer",
    },
    Setting {
        key: "net.stall_timeout",
        kind: Kind::Duration(MS, WEEK),
        default: "5m",
        about: "how long a peer that connects may take nothing of what waits to be sent to it",
    },
    Setting {
        key: "net.upload",
        kind: Kind::Bytes(0, 1 << 40),
        default: "0",
        about: "bytes a second that all sessions together may send; 0: no limit",
    },
    Setting {
        key: "requests.max",
        kind: Kind::Count(0, 1 << 16),
        default: "64",
        about: "devices that may wait to be let in, per database; 0: none may ask",
    },
    Setting {
        key: "requests.rejected",
        kind: Kind::Count(1, 1 << 16),
        default: "256",
        about: "rejected devices that are remembered, per database; the oldest is forgotten and may ask again",
    },
    Setting {
        key: "share.listen",
        kind: Kind::Text,
        default: "7700",
        about: "where 'share' listens unless --listen says otherwise",
    },
    Setting {
        key: "ssh.command",
        kind: Kind::Text,
        default: "ssh",
        about: "what runs a command on another machine, for host:path",
    },
    Setting {
        key: "ssh.remote_program",
        kind: Kind::Text,
        default: "anabranch",
        about: "how anabranch is started on the other machine",
    },
    Setting {
        key: "store.busy_timeout",
        kind: Kind::Duration(MS, WEEK),
        default: "30s",
        about: "how long to wait for a database that another process is writing",
    },
    Setting {
        key: "store.checkpoint_pages",
        kind: Kind::Count(1, 1 << 20),
        default: "8000",
        about: "pages in the write-ahead log before it is moved into the file",
    },
    Setting {
        key: "store.reader_cache",
        kind: Kind::Bytes(64 * KIB, GIB),
        default: "4MiB",
        about: "memory that each reader of a database keeps pages in",
    },
    Setting {
        key: "store.readers",
        kind: Kind::Count(1, 1024),
        default: "8",
        about: "reads of one database at once",
    },
    Setting {
        key: "store.wal_keep",
        kind: Kind::Bytes(64 * KIB, 16 * GIB),
        default: "64MiB",
        about: "size to which the write-ahead log is cut when it starts anew",
    },
    Setting {
        key: "store.writer_cache",
        kind: Kind::Bytes(64 * KIB, 2 * GIB),
        default: "32MiB",
        about: "memory that a database's writer keeps pages in at the most",
    },
    Setting {
        key: "sync.catching_up",
        kind: Kind::Count(1, 1 << 20),
        default: "16",
        about: "replicas that 'serve' brings in step at once; others wait, for ten seconds each at most",
    },
    Setting {
        key: "sync.pending_bytes",
        kind: Kind::Bytes(256 * KIB, GIB),
        default: "4MiB",
        about: "entries that may wait for what they build on, per database",
    },
    Setting {
        key: "sync.sum_from",
        kind: Kind::Count(1, 1 << 30),
        default: "100",
        about: "logs from which on peers are told a summary of which there are, not each of them",
    },
    Setting {
        key: "ticket.address",
        kind: Kind::Text,
        default: "http://127.0.0.1:7700",
        about: "the address that 'ticket' puts in a ticket unless --address says otherwise",
    },
    Setting {
        key: "ticket.expires",
        kind: Kind::Duration(MS, Duration::from_secs(3650 * 24 * 3600)),
        default: "7d",
        about: "how long a new ticket can be used",
    },
];

/// The setting named `key`.
///
/// # Errors
/// [`NodeError::Setting`] when there is none.
pub fn setting(key: &str) -> Result<&'static Setting, NodeError> {
    SETTINGS.iter().find(|s| s.key == key).ok_or_else(|| {
        NodeError::Setting(format!(
            "there is no setting '{key}'; 'anabranch config' lists them all"
        ))
    })
}

impl Setting {
    /// Checks a value.
    ///
    /// # Errors
    /// [`NodeError::Setting`] saying what it takes.
    pub fn check(&self, value: &str) -> Result<(), NodeError> {
        let bad = |takes: String| {
            Err(NodeError::Setting(format!(
                "'{value}' does not fit {}: it takes {takes}",
                self.key
            )))
        };
        match self.kind {
            Kind::Word(words) if words.contains(&value) => Ok(()),
            Kind::Word(words) => bad(format!("one of {}", words.join(", "))),
            Kind::Count(low, high) => match value.parse::<u64>() {
                Ok(n) if (low..=high).contains(&n) => Ok(()),
                _ => bad(format!("a number from {low} to {high}")),
            },
            Kind::Bytes(low, high) => match parse_bytes(value) {
                Some(n) if (low..=high).contains(&n) => Ok(()),
                _ => bad(format!("a size from {low} to {high} bytes, such as 32MiB")),
            },
            Kind::Duration(low, high) => match parse_duration(value) {
                Some(d) if (low..=high).contains(&d) => Ok(()),
                _ => bad(format!(
                    "a duration of at most {} days, such as 500ms, 30s or 7d",
                    high.as_secs() / 86_400
                )),
            },
            Kind::Text if value.trim().is_empty() => bad("some text".into()),
            Kind::Text => Ok(()),
        }
    }
}

/// Reads `500ms`, `30s`, `10m`, `12h`, `7d`.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text)?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.checked_mul(millis)?))
}

/// Reads `100`, `64KiB`, `32MiB`, `1GiB`.
#[must_use]
pub fn parse_bytes(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text)?;
    number.checked_mul(match unit {
        "" | "B" => 1,
        "KiB" => KIB,
        "MiB" => MIB,
        "GiB" => GIB,
        _ => return None,
    })
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

/// The settings in force.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How replicas are opened.
    pub replica: ReplicaOptions,
    /// How database files are used.
    pub store: Options,
    /// How links are made.
    pub transport: TransportConfig,
    /// How long a new ticket can be used.
    pub ticket_expires: Duration,
    /// The address that a new ticket names.
    pub ticket_address: String,
    /// Where sharing listens.
    pub share_listen: String,
    /// Waits between attempts to reach a peer: the first and the longest.
    pub retry: (Duration, Duration),
    /// Replicas that are brought in step at once.
    pub catching_up: usize,
    /// How long a peer that came may take to open something.
    pub open_timeout: Duration,
    /// How long a peer that came may take nothing of what is sent to it.
    pub stall_timeout: Duration,
    /// Bytes that may wait to be sent on a connection.
    pub send_queue: usize,
    /// Bytes a second that may be sent and received; 0: no limit.
    pub bandwidth: (u64, u64),
}

impl Settings {
    /// The settings that `lookup` gives, with defaults for the rest.
    ///
    /// # Errors
    /// [`NodeError::Setting`] when values do not go together.
    pub fn load(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, NodeError> {
        let values = Values { lookup: &lookup };
        let limits = Limits {
            connect_timeout: values.duration("net.connect_timeout")?,
            handshake_timeout: values.duration("net.handshake_timeout")?,
            http_header_timeout: values.duration("net.http_header_timeout")?,
            http_max_connections: values.count("net.http_max_connections")?,
            http_accept_queue: values.count("net.http_accept_queue")?,
            idle_timeout: values.duration("net.idle_timeout")?,
            ping_interval: values.duration("net.ping_interval")?,
            close_timeout: values.duration("net.close_timeout")?,
            link_queue: values.count("net.link_queue")?,
        };
        limits.validate().map_err(|e| NodeError::Setting(e.to_string()))?;
        let roots = TlsRoots::new(None).map_err(|e| NodeError::Setting(e.to_string()))?;
        let ssh = SshCommand::parse(&values.text("ssh.command")?)
            .map_err(|e| NodeError::Setting(e.to_string()))?;
        let transport = TransportConfig {
            limits,
            ssh,
            remote_program: values.text("ssh.remote_program")?,
            ..TransportConfig::new(roots)
        };
        let durability = match values.text("durability")?.as_str() {
            "normal" => Durability::Normal,
            _ => Durability::Full,
        };
        Ok(Self {
            replica: ReplicaOptions {
                durability,
                pending_bytes: values.bytes("sync.pending_bytes")? as usize,
                sum_from: values.count("sync.sum_from")?,
                claim_timeout: values.duration("net.claim_timeout")?,
                bulk: Bulk {
                    from: values.count("bulk.from")? as u64,
                    entries: values.count("bulk.entries")? as u64,
                    stretch: build::Budget {
                        bytes: values.bytes("bulk.memory")? as usize,
                        ..build::Budget::default()
                    },
                },
                requests: RequestLimits {
                    waiting: values.count("requests.max")?,
                    rejected: values.count("requests.rejected")?,
                },
                ..ReplicaOptions::default()
            },
            store: Options {
                readers: values.count("store.readers")?,
                busy_timeout: values.duration("store.busy_timeout")?,
                writer_cache: values.bytes("store.writer_cache")? as u32,
                reader_cache: values.bytes("store.reader_cache")? as u32,
                checkpoint_pages: values.count("store.checkpoint_pages")? as u32,
                wal_keep: u32::try_from(values.bytes("store.wal_keep")?).unwrap_or(u32::MAX),
                ..Options::default()
            },
            transport,
            ticket_expires: values.duration("ticket.expires")?,
            ticket_address: values.text("ticket.address")?,
            share_listen: values.text("share.listen")?,
            retry: (values.duration("net.retry_min")?, values.duration("net.retry_max")?),
            catching_up: values.count("sync.catching_up")?,
            open_timeout: values.duration("net.open_timeout")?,
            stall_timeout: values.duration("net.stall_timeout")?,
            send_queue: values.bytes("net.send_queue")? as usize,
            bandwidth: (values.bytes("net.upload")?, values.bytes("net.download")?),
        })
    }
}

struct Values<'l> {
    lookup: &'l dyn Fn(&str) -> Option<String>,
}

impl Values<'_> {
    fn text(&self, key: &str) -> Result<String, NodeError> {
        let setting = setting(key)?;
        let value = (self.lookup)(key).unwrap_or_else(|| setting.default.to_owned());
        setting.check(&value)?;
        Ok(value)
    }

    fn duration(&self, key: &str) -> Result<Duration, NodeError> {
        Ok(parse_duration(&self.text(key)?).unwrap_or_default())
    }

    fn count(&self, key: &str) -> Result<usize, NodeError> {
        Ok(self.text(key)?.parse().unwrap_or_default())
    }

    fn bytes(&self, key: &str) -> Result<u64, NodeError> {
        Ok(parse_bytes(&self.text(key)?).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_allowed_and_the_list_is_sorted() {
        for setting in SETTINGS {
            setting.check(setting.default).unwrap();
        }
        assert!(SETTINGS.windows(2).all(|s| s[0].key < s[1].key));
        Settings::load(|_| None).unwrap();
    }

    #[test]
    fn wrong_values_say_what_is_taken() {
        let error = setting("store.readers").unwrap().check("many").unwrap_err().to_string();
        assert!(error.contains("a number from 1 to 1024"), "{error}");
        assert!(setting("durability").unwrap().check("Full").is_err());
        assert!(setting("net.idle_timeout").unwrap().check("5").is_err());
        assert!(setting("no.such").is_err());
    }

    #[test]
    fn units_are_read() {
        assert_eq!(parse_duration("90s"), Some(Duration::from_secs(90)));
        assert_eq!(parse_duration("7d"), Some(Duration::from_secs(7 * 86_400)));
        assert_eq!(parse_bytes("3MiB"), Some(3 * MIB));
        assert_eq!(parse_bytes("99999999999999999999"), None);
        assert_eq!(parse_duration("99999999999999999d"), None);
    }
}
