//! Why something is not in step, in a sentence that says what to do.

use crate::error::NodeError;
use anabranch_core::error::Error;
use anabranch_core::storage::StorageError;
use anabranch_sync::frame::Code;
use anabranch_transport::ConnectError;
use std::fmt;

/// Why a replica is not in step with a peer, or will not be for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// The peer was reached before and does not answer now.
    Offline(String),
    /// Nobody ever answered at any of the addresses.
    NoAddress(String),
    /// The peer does not know this device as a member, or does not serve the database.
    NotMember,
    /// An admin has to let this device in.
    Approval,
    /// An admin rejected this device's request to be let in.
    Rejected,
    /// The node that was asked is no admin, so it can let nobody in.
    NotAdmin,
    /// The right that this device had was revoked.
    Revoked,
    /// The ticket by which this device joins is not good any more.
    Ticket(String),
    /// The clocks are apart, by so many microseconds; positive when the peer's is ahead.
    ClocksApart(i64),
    /// The disk is full: of this device, or of the peer.
    DiskFull {
        /// Whether it is this device's.
        here: bool,
    },
    /// The two programs have no version in common.
    Version(String),
    /// So many entries that arrived are being put in place.
    Building(u64),
    /// A limit is reached, here or there.
    Limit(String),
    /// The replica here cannot be read or written.
    Storage(String),
    /// Anything else that ended a session.
    Failed(String),
}

impl Why {
    /// A word for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Offline(_) => "offline",
            Self::NoAddress(_) => "no-address",
            Self::NotMember => "not-a-member",
            Self::Approval => "waiting-for-approval",
            Self::Rejected => "rejected",
            Self::NotAdmin => "not-an-admin",
            Self::Revoked => "revoked",
            Self::Ticket(_) => "ticket",
            Self::ClocksApart(_) => "clocks-apart",
            Self::DiskFull { .. } => "disk-full",
            Self::Version(_) => "version",
            Self::Building(_) => "building",
            Self::Limit(_) => "limit",
            Self::Storage(_) => "storage",
            Self::Failed(_) => "failed",
        }
    }

    /// What `error` of a session means. `reached`: whether the peer was ever reached.
    #[must_use]
    pub fn of(error: &NodeError, reached: bool) -> Self {
        match error {
            NodeError::Unreachable { attempts, .. } => unreachable(error, attempts, reached),
            NodeError::Connect(_) | NodeError::Handshake(_) if reached => {
                Self::Offline(error.chain())
            }
            NodeError::Link(_) => Self::Offline(error.chain()),
            NodeError::Connect(_) | NodeError::Handshake(_) | NodeError::Address(_) => {
                Self::NoAddress(error.chain())
            }
            NodeError::Session { code, text, by_peer } => match code {
                Code::NotServed | Code::Strangers => Self::NotMember,
                Code::TicketExpired | Code::TicketSpent | Code::TicketUnknown => {
                    Self::Ticket(text.clone())
                }
                Code::Waiting => Self::Approval,
                Code::Rejected => Self::Rejected,
                Code::NotAdmin => Self::NotAdmin,
                Code::Revoked => Self::Revoked,
                Code::Version => Self::Version(text.clone()),
                Code::Limit => Self::Limit(text.clone()),
                Code::Full => Self::DiskFull { here: !by_peer },
                Code::Internal if !by_peer => Self::Storage(text.clone()),
                Code::Done => Self::Offline(text.clone()),
                Code::Internal | Code::Protocol => Self::Failed(text.clone()),
            },
            NodeError::Core(Error::Storage(StorageError::Full)) => Self::DiskFull { here: true },
            NodeError::Core(_) | NodeError::File { .. } => Self::Storage(error.chain()),
            _ => Self::Failed(error.chain()),
        }
    }
}

fn unreachable(error: &NodeError, attempts: &[(String, NodeError)], reached: bool) -> Why {
    // HTTP's words for too many.
    let busy = |error: &NodeError| {
        matches!(error, NodeError::Connect(ConnectError::Refused { status: 429 | 503, .. }))
    };
    if attempts.iter().any(|(_, error)| busy(error)) {
        return Why::Limit("the peer serves as many connections as it allows".into());
    }
    let detail = match attempts {
        [] => "none is known".to_owned(),
        [(address, error)] if error.to_string().contains(address) => error.chain(),
        [_, ..] => error.chain().replace('\n', " "),
    };
    if reached { Why::Offline(detail) } else { Why::NoAddress(detail) }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whose = |here: bool| if here { "this device" } else { "the peer" };
        match self {
            Self::Offline(detail) => {
                write!(f, "the peer is offline ({detail}); it is tried again by itself")
            }
            Self::NoAddress(detail) => write!(
                f,
                "no address works ({detail}); check it, or name another one with 'anabranch peers add'"
            ),
            Self::NotMember => f.write_str(
                "the peer does not serve the database, or this device is not a member; \
                 ask one of its admins for a ticket",
            ),
            Self::Approval => f.write_str(
                "waiting for approval: an admin has to let this device in ('anabranch requests approve' there); \
                 it goes on by itself then",
            ),
            Self::Rejected => f.write_str(
                "an admin rejected the request to be let in; ask one for a ticket, or to forget the request \
                 ('anabranch requests forget' there)",
            ),
            Self::NotAdmin => f.write_str(
                "the node that was asked is no admin of the database, so it can let nobody in; \
                 ask at the address of one that is, with 'anabranch join'",
            ),
            Self::Revoked => f.write_str(
                "this device's right to the database was revoked; ask one of its admins for a new ticket",
            ),
            Self::Ticket(text) => write!(f, "the ticket does not let this device in: {text}"),
            Self::ClocksApart(us) => {
                // To the nearest one: each side looks at its clock when it greets, not at the same moment.
                let minutes = us.unsigned_abs().saturating_add(30_000_000) / 60_000_000;
                let way = if *us > 0 { "ahead of" } else { "behind" };
                write!(
                    f,
                    "the peer's clock is {minutes} minutes {way} this one; set the one that is wrong, \
                     edits are ordered by it"
                )
            }
            Self::DiskFull { here } => write!(
                f,
                "the disk of {} is full; free some space there, nothing was lost and it goes on by itself",
                whose(*here)
            ),
            Self::Version(text) => f.write_str(text),
            Self::Building(entries) => write!(
                f,
                "{entries} entries that arrived are being put in place; wait, nothing is to be done"
            ),
            Self::Limit(text) => {
                write!(f, "a limit is reached: {text}; it is tried again by itself")
            }
            Self::Storage(text) => write!(f, "the replica here cannot be used: {text}"),
            Self::Failed(text) => write!(f, "the session failed: {text}"),
        }
    }
}
