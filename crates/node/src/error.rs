//! What a node reports to applications and the command line.

use anabranch_core::id::{DatabaseId, NodeId};
use anabranch_core::storage::StorageError;
use anabranch_core::ticket::TicketError;
use anabranch_sync::frame::Code;
use anabranch_transport::secure::HandshakeError;
use anabranch_transport::{AddressError, ConnectError, LinkError, ListenError};
use std::path::PathBuf;
use std::time::Duration;

/// Any failure of a node.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// Storage or entries.
    #[error(transparent)]
    Core(#[from] anabranch_core::error::Error),
    /// A file or directory.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The home's key file holds no key.
    #[error(
        "{0} does not hold a device key; restore it from a copy, or move it away to become a new device"
    )]
    Key(PathBuf),
    /// The home's key is locked, and nobody gave its passphrase.
    #[error(
        "the key in {0} is locked by a passphrase; give it with --passphrase @FILE, name its file in ANABRANCH_PASSPHRASE_FILE, or run this on a terminal"
    )]
    Locked(PathBuf),
    /// A passphrase that does not unlock the key.
    #[error("the passphrase is wrong, or the file of the key was changed")]
    Passphrase,
    /// A key is not replaced.
    #[error("there is a file {0} already, and a key is never replaced; name another place")]
    KeyTaken(PathBuf),
    /// No database of this name or id.
    #[error("there is no database '{0}' here; 'anabranch db ls' lists those there are")]
    NoDatabase(String),
    /// The name is taken.
    #[error("there is a database '{0}' already; pick another name")]
    NameTaken(String),
    /// A name that cannot be used.
    #[error(
        "'{0}' cannot name a database: use 1 to 64 letters, digits, '-', '_' or '.', beginning with a letter or digit"
    )]
    BadName(String),
    /// No request of this device is kept.
    #[error("{0} does not ask to be let in; 'anabranch requests ls' lists those that do")]
    NoRequest(NodeId),
    /// Who is to lose a right has none.
    #[error("{0} has no right that could be revoked; 'anabranch members' lists who has one")]
    NoMember(String),
    /// A request that is not approved as it is.
    #[error("{0} asks to become an admin; say which role it gets with --role")]
    AsksForAdmin(NodeId),
    /// A setting that does not exist or cannot have that value.
    #[error("{0}")]
    Setting(String),
    /// An address that cannot be used.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// A ticket that cannot be read.
    #[error(transparent)]
    Ticket(#[from] TicketError),
    /// The other end could not be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// No link could be encrypted.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// Listening failed.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The link broke.
    #[error("the connection broke: {0}; run the command again, it goes on where it stopped")]
    Link(#[from] LinkError),
    /// The session ended before it was done.
    #[error("{text}")]
    Session {
        /// Why.
        code: Code,
        /// For people.
        text: String,
        /// Whether the peer ended it.
        by_peer: bool,
    },
    /// No address worked.
    #[error("no address of {database:?} could be reached:{}", list(.attempts))]
    Unreachable {
        /// What was to be reached.
        database: DatabaseId,
        /// Each address, and why not.
        attempts: Vec<(String, NodeError)>,
    },
    /// Both sides are done and differ all the same.
    #[error("both sides sent all they have and still differ; run 'anabranch db verify' on both")]
    Differs,
    /// A part of some content is not here, and no peer sent it in time.
    #[error("{}", no_content(*.connected, *.waited))]
    NoContent {
        /// How many peers are connected.
        connected: usize,
        /// How long it was waited for.
        waited: Duration,
    },
    /// Where content was to go does not take it.
    #[error("the content could not be handed on: {0}")]
    Sink(#[source] std::io::Error),
    /// The node is shutting down.
    #[error("the database was closed")]
    Closed,
    /// The random source of the system failed.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
}

fn no_content(connected: usize, waited: Duration) -> String {
    let waited = waited.as_secs_f64();
    match connected {
        0 => format!(
            "a part of the content is not on this device and no peer is connected (waited {waited} s); connect to a device that has it"
        ),
        n => format!(
            "a part of the content is not on this device and none of the {n} connected peers sent it within {waited} s; connect to a device that has it"
        ),
    }
}

/// A line for each attempt.
fn list(attempts: &[(String, NodeError)]) -> String {
    if attempts.is_empty() {
        return " none is known; name one, or use a ticket that has one".into();
    }
    attempts.iter().map(|(address, error)| format!("\n  {address}: {}", error.chain())).collect()
}

impl From<StorageError> for NodeError {
    fn from(error: StorageError) -> Self {
        Self::Core(error.into())
    }
}

impl NodeError {
    /// The error with what caused it, in one line.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let part = error.to_string();
            if !text.contains(&part) {
                text = format!("{text}: {part}");
            }
            cause = error.source();
        }
        text
    }

    pub(crate) fn file(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::File { path: path.into(), source }
    }
}
