//! What a channel is told to do, and what it says to whoever runs the session.

use crate::frame::{Code, Frame};
use crate::work::{Authors, Work};
use anabranch_core::blob::ChunkHash;
use anabranch_core::id::Position;
use anabranch_core::ledger::Changes;
use std::collections::BTreeSet;

/// Which ways entries may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Direction {
    /// To the peer.
    pub send: bool,
    /// From the peer.
    pub receive: bool,
}

impl Direction {
    /// Both ways.
    pub const BOTH: Self = Self { send: true, receive: true };
    /// Only to the peer.
    pub const PUSH: Self = Self { send: true, receive: false };
    /// Only from the peer.
    pub const PULL: Self = Self { send: false, receive: true };
    /// Neither: only compare.
    pub const COMPARE: Self = Self { send: false, receive: false };
}

/// What happened on a channel, for whoever runs the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Both sides agreed to work on the database. Entries the peer lacks come with [`Event::Planned`].
    Opened {
        /// Whether the peer lets this device read.
        readable: bool,
    },
    /// The peer's frontier was compared with ours.
    Planned {
        /// Entries that the peer lacks.
        due: u64,
        /// Entries that are lacking here.
        lacking: u64,
    },
    /// A batch left.
    Sent {
        /// Entries.
        entries: u64,
        /// Bytes on the link.
        bytes: u64,
    },
    /// A batch was applied and is as durable as was asked for.
    Applied {
        /// Entries that were new.
        entries: u64,
        /// Bytes on the link.
        bytes: u64,
        /// What changed.
        changes: Changes,
        /// Who wrote it.
        authors: Authors,
    },
    /// What the peer was told to withhold, has, and is not held here: all of it.
    Withheld {
        /// The tips of it, as the peer offers them.
        places: BTreeSet<Position>,
        /// There is more than is remembered.
        more: bool,
    },
    /// Blobs were stored.
    Blobs {
        /// How many.
        count: u64,
        /// Bytes on the link.
        bytes: u64,
    },
    /// Blobs that were asked for and that the peer does not have.
    NoBlobs(Vec<ChunkHash>),
    /// The peer asks for blobs.
    Asked(Vec<ChunkHash>),
    /// The peer may read from now on; what it asked for before it was told is not there.
    Readable,
    /// Blobs that the peer did not have have come there.
    Offered(Vec<ChunkHash>),
    /// A blob was sent.
    BlobSent {
        /// Its name.
        hash: ChunkHash,
        /// Bytes on the link.
        bytes: u64,
    },
    /// Something about being level changed: ask [`Channel::is_settled`](super::Channel::is_settled).
    Progress,
    /// The channel ended.
    Closed {
        /// Why.
        code: Code,
        /// For people.
        text: String,
        /// Whether the peer said so.
        by_peer: bool,
    },
}

#[derive(Debug)]
pub(crate) enum Emit {
    Frame(Frame),
    Work(Work),
    Event(Event),
}
