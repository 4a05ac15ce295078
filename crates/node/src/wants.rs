//! Blobs that a replica lacks and who was asked for them. A want is asked of one session at a time and goes on to the next
//! when that one does not have it or ends.

use anabranch_core::blob::ChunkHash;
use std::collections::{BTreeMap, BTreeSet};

/// Names one session of this process.
pub(crate) type SessionId = u64;

/// Blobs one session may be asked for before it answered.
const OUTSTANDING: usize = 64;

#[derive(Debug, Default)]
struct Want {
    asked: Option<SessionId>,
    refused: BTreeSet<SessionId>,
}

/// The blobs one replica lacks.
#[derive(Debug, Default)]
pub(crate) struct Wants {
    wants: BTreeMap<ChunkHash, Want>,
    sessions: BTreeSet<SessionId>,
}

impl Wants {
    /// Adds what is lacking now and forgets what no longer is.
    pub(crate) fn set(&mut self, hashes: impl IntoIterator<Item = ChunkHash>) {
        let mut old = std::mem::take(&mut self.wants);
        for hash in hashes {
            self.wants.insert(hash, old.remove(&hash).unwrap_or_default());
        }
    }

    pub(crate) fn join(&mut self, session: SessionId) {
        self.sessions.insert(session);
    }

    pub(crate) fn leave(&mut self, session: SessionId) {
        self.sessions.remove(&session);
        for want in self.wants.values_mut() {
            want.refused.remove(&session);
            if want.asked == Some(session) {
                want.asked = None;
            }
        }
    }

    /// What `session` should be asked for next.
    pub(crate) fn ask(&mut self, session: SessionId) -> Vec<ChunkHash> {
        let outstanding = self.wants.values().filter(|w| w.asked == Some(session)).count();
        let mut hashes = Vec::new();
        for (hash, want) in &mut self.wants {
            if hashes.len() + outstanding >= OUTSTANDING {
                break;
            }
            if want.asked.is_none() && !want.refused.contains(&session) {
                want.asked = Some(session);
                hashes.push(*hash);
            }
        }
        hashes
    }

    pub(crate) fn arrived(&mut self, hash: &ChunkHash) {
        self.wants.remove(hash);
    }

    pub(crate) fn refused(&mut self, session: SessionId, hashes: &[ChunkHash]) {
        for hash in hashes {
            if let Some(want) = self.wants.get_mut(hash) {
                want.asked = None;
                want.refused.insert(session);
            }
        }
    }

    /// How many blobs are lacking, and how many of these every connected peer was asked for in vain (all, when nobody is
    /// connected).
    pub(crate) fn lacking(&self) -> (usize, usize) {
        let in_vain = |want: &&Want| want.asked.is_none() && self.sessions.is_subset(&want.refused);
        (self.wants.len(), self.wants.values().filter(in_vain).count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_want_goes_from_peer_to_peer() {
        let hash = ChunkHash([1; 32]);
        let mut wants = Wants::default();
        wants.join(1);
        wants.join(2);
        wants.set([hash]);
        assert_eq!(wants.ask(1), [hash]);
        assert!(wants.ask(2).is_empty(), "asked of one at a time");
        wants.refused(1, &[hash]);
        assert!(wants.ask(1).is_empty(), "not asked twice");
        assert_eq!(wants.lacking(), (1, 0));
        assert_eq!(wants.ask(2), [hash]);
        wants.leave(2);
        assert_eq!(wants.lacking(), (1, 1));
        wants.join(3);
        assert_eq!(wants.ask(3), [hash]);
        wants.arrived(&hash);
        assert_eq!(wants.lacking(), (0, 0));
    }
}
