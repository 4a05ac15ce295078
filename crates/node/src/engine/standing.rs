//! How a replica stands with a peer, for whoever looks.

use super::why::Why;
use crate::drive::Progress;
use anabranch_core::id::{DatabaseId, NodeId};
use std::time::{Duration, Instant};

/// What is going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Others that catch up go first.
    Queued,
    /// A link is being made.
    Connecting,
    /// Entries are on their way.
    Syncing,
    /// Both sides have everything, and what either commits reaches the other at once.
    InStep,
    /// Both sides had everything a while ago; it is looked again after this time.
    Resting {
        /// How long.
        every: Duration,
    },
    /// It failed, and is tried again after this time.
    Waiting {
        /// How long.
        again_in: Duration,
    },
    /// Nobody works on it any more.
    Stopped,
}

impl State {
    /// A word for programs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Connecting => "connecting",
            Self::Syncing => "syncing",
            Self::InStep => "in-step",
            Self::Resting { .. } => "resting",
            Self::Waiting { .. } => "waiting",
            Self::Stopped => "stopped",
        }
    }
}

/// How a replica stands with a peer.
#[derive(Debug, Clone)]
pub struct Standing {
    /// Which database.
    pub database: DatabaseId,
    /// What it is called here.
    pub name: String,
    /// Where the peer may be, in the order in which it is tried.
    pub addresses: Vec<String>,
    /// The peer, once it was reached.
    pub device: Option<NodeId>,
    /// What is going on.
    pub state: State,
    /// Since when.
    pub since: Instant,
    /// What moved on the present or last session.
    pub progress: Progress,
    /// When the two were in step last: microseconds since 1970.
    pub last_success: Option<u64>,
    /// What failed last and when: microseconds since 1970.
    pub last_error: Option<(u64, Why)>,
    /// Entries that arrived and are not in place yet.
    pub building: u64,
}

impl Standing {
    /// Why it is not in step, and what else is worth a warning.
    #[must_use]
    pub fn reasons(&self) -> Vec<Why> {
        let mut reasons = Vec::new();
        // While it is tried again, why it has to be is still the answer.
        let fails = matches!(self.state, State::Waiting { .. } | State::Connecting | State::Queued);
        reasons.extend(self.failure().filter(|_| fails).map(|(_, why)| why.clone()));
        if self.state == State::Queued {
            let text = "as many replicas catch up as may at once ('sync.catching_up')";
            reasons.push(Why::Limit(text.into()));
        }
        if self.building > 0 {
            reasons.push(Why::Building(self.building));
        }
        reasons.extend(self.progress.clock_ahead.map(Why::ClocksApart));
        reasons
    }

    /// What failed since the two were in step last, and when.
    pub(super) fn failure(&self) -> Option<&(u64, Why)> {
        self.last_error.as_ref().filter(|(at, _)| self.last_success.is_none_or(|last| last <= *at))
    }

    /// How long the rest will take at the pace so far; `None` when that cannot be said.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        let Progress { due, lacking, entries_sent, entries_received, .. } = self.progress;
        let (all, done) = (due + lacking, entries_sent + entries_received);
        if self.state != State::Syncing || done == 0 || done >= all {
            return None;
        }
        Some(self.since.elapsed().mul_f64((all - done) as f64 / done as f64))
    }
}
