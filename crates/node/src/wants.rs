//! Blobs that a replica lacks and who was asked for them. A want is asked of one session at a time and goes on to the next
//! when that one does not have it or ends. One that answers nothing for too long keeps nothing from the others: they are
//! asked as well.

use anabranch_core::blob::ChunkHash;
use anabranch_core::sabotage::{self, Bug};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Names one session of this process.
pub(crate) type SessionId = u64;

/// Names somebody in this process who wants blobs.
pub(crate) type ClaimId = u64;

/// Who writes files.
pub(crate) const WORKER: ClaimId = 0;
/// Who fetches content of eager stores.
pub(crate) const GATHER: ClaimId = 1;
/// The first of those who read and cannot go on before what they want is here.
pub(crate) const READERS: ClaimId = 2;

/// Blobs one session may be asked for before it answered.
const OUTSTANDING: usize = 64;
/// Blobs that peers asked for in vain and that are remembered for them.
const OWED: usize = 65_536;

#[derive(Debug, Default)]
struct Want {
    /// Sessions that have not answered yet, and whether one says that it has come there since it was asked: if it then says
    /// that it has not, that was before. More than one only if the others answer nothing.
    asked: BTreeMap<SessionId, bool>,
    refused: BTreeSet<SessionId>,
}

/// The blobs one replica lacks.
#[derive(Debug)]
pub(crate) struct Wants {
    /// How long who was asked may answer nothing before others are asked as well.
    patience: Duration,
    wants: BTreeMap<ChunkHash, Want>,
    /// Who wants what.
    claims: BTreeMap<ClaimId, BTreeSet<ChunkHash>>,
    /// Who may be asked, and when each answered something last or had nothing to answer.
    sessions: BTreeMap<SessionId, Duration>,
    /// What sessions asked for here and were not sent yet.
    owed: BTreeSet<(ChunkHash, SessionId)>,
    /// What has come here that sessions asked for.
    offers: BTreeMap<SessionId, Vec<ChunkHash>>,
}

impl Wants {
    pub(crate) fn new(patience: Duration) -> Self {
        Self {
            patience,
            wants: BTreeMap::new(),
            claims: BTreeMap::new(),
            sessions: BTreeMap::new(),
            owed: BTreeSet::new(),
            offers: BTreeMap::new(),
        }
    }

    /// Adds what `claim` is lacking now and forgets what it no longer is.
    pub(crate) fn set(&mut self, claim: ClaimId, hashes: impl IntoIterator<Item = ChunkHash>) {
        let hashes: BTreeSet<ChunkHash> = hashes.into_iter().collect();
        for hash in &hashes {
            self.wants.entry(*hash).or_default();
        }
        let old = match hashes.is_empty() {
            true => self.claims.remove(&claim),
            false => self.claims.insert(claim, hashes),
        };
        for hash in old.unwrap_or_default() {
            // What a session was asked for is answered first: the word that it has come there may overtake the answer.
            if self.wants.get(&hash).is_some_and(|want| want.asked.is_empty()) {
                self.forget_unclaimed(&hash);
            }
        }
    }

    fn is_claimed(&self, hash: &ChunkHash) -> bool {
        self.claims.values().any(|claimed| claimed.contains(hash))
    }

    fn forget_unclaimed(&mut self, hash: &ChunkHash) {
        if !self.is_claimed(hash) {
            self.wants.remove(hash);
        }
    }

    /// A session may be asked from now on.
    pub(crate) fn join(&mut self, session: SessionId) {
        self.sessions.entry(session).or_default();
    }

    pub(crate) fn leave(&mut self, session: SessionId) {
        self.sessions.remove(&session);
        self.owed.retain(|(_, other)| *other != session);
        self.offers.remove(&session);
        for want in self.wants.values_mut() {
            want.refused.remove(&session);
            if !sabotage::is(Bug::WantStuck) {
                want.asked.remove(&session);
            }
        }
        let claims = &self.claims;
        self.wants.retain(|hash, want| {
            !want.asked.is_empty() || claims.values().any(|claimed| claimed.contains(hash))
        });
    }

    /// A session answered something.
    pub(crate) fn answered(&mut self, session: SessionId, now: Duration) {
        if let Some(answered) = self.sessions.get_mut(&session) {
            *answered = now;
        }
    }

    /// For how many more blobs `session` may be asked.
    fn room(&self, session: SessionId) -> usize {
        let asked = self.wants.values().filter(|want| want.asked.contains_key(&session));
        OUTSTANDING.saturating_sub(asked.count())
    }

    /// When `session` is to be asked for what others were asked for, unless they answer before.
    pub(crate) fn wakes(&self, session: SessionId) -> Option<Duration> {
        let alone = self.sessions.len() < 2 || !self.sessions.contains_key(&session);
        if alone || self.room(session) == 0 {
            return None;
        }
        let open = |want: &&Want| !want.refused.contains(&session);
        let asked = self.wants.values().filter(open).map(|want| &want.asked);
        let others = asked.filter(|asked| !asked.is_empty() && !asked.contains_key(&session));
        let until = |asked: &BTreeMap<SessionId, bool>| {
            asked.keys().filter_map(|other| self.sessions.get(other)).max().copied()
        };
        Some(others.filter_map(until).min()?.saturating_add(self.patience))
    }

    /// What `session` should be asked for next.
    pub(crate) fn ask(&mut self, session: SessionId, now: Duration) -> Vec<ChunkHash> {
        let mut room = self.room(session);
        if room == OUTSTANDING {
            self.answered(session, now);
        }
        let late = |answered: &Duration| now >= answered.saturating_add(self.patience);
        let is_late = |other: &SessionId| self.sessions.get(other).is_some_and(late);
        let mut hashes = Vec::new();
        // Who waits for what he reads goes first.
        let urgent = self.claims.range(READERS..).flat_map(|(_, claimed)| claimed);
        let urgent: Vec<ChunkHash> = urgent.take(OUTSTANDING).copied().collect();
        let mut ask = |hash: &ChunkHash, want: &mut Want| {
            let open = !want.asked.contains_key(&session) && want.asked.keys().all(is_late);
            if room > 0 && open && !want.refused.contains(&session) {
                room -= 1;
                want.asked.insert(session, false);
                hashes.push(*hash);
            }
            room > 0
        };
        for hash in &urgent {
            self.wants.get_mut(hash).map(|want| ask(hash, want));
        }
        for (hash, want) in &mut self.wants {
            if !ask(hash, want) {
                break;
            }
        }
        hashes
    }

    /// A blob is here: those who asked for it in vain are to hear of it.
    pub(crate) fn arrived(&mut self, hash: &ChunkHash) {
        self.wants.remove(hash);
        for claimed in self.claims.values_mut() {
            claimed.remove(hash);
        }
        let asked = (*hash, SessionId::MIN)..=(*hash, SessionId::MAX);
        let asked: Vec<SessionId> = self.owed.range(asked).map(|(_, session)| *session).collect();
        for session in asked {
            self.owed.remove(&(*hash, session));
            self.offers.entry(session).or_default().push(*hash);
        }
    }

    /// A session asks for blobs; whether they are here is found out later. Beyond a bound nothing is noted, and the peer
    /// asks again when it connects anew.
    pub(crate) fn asked(&mut self, session: SessionId, hashes: &[ChunkHash]) {
        for hash in hashes.iter().take(OWED.saturating_sub(self.owed.len())) {
            self.owed.insert((*hash, session));
        }
    }

    /// A session was sent a blob.
    pub(crate) fn sent(&mut self, session: SessionId, hash: &ChunkHash) {
        self.owed.remove(&(*hash, session));
    }

    /// A session may have now what it asked for in vain: it is to ask again, whether it is here or not.
    pub(crate) fn readable(&mut self, session: SessionId) {
        let hashes: Vec<ChunkHash> = self
            .owed
            .iter()
            .filter(|(_, other)| *other == session)
            .map(|(hash, _)| *hash)
            .collect();
        for hash in hashes {
            self.owed.remove(&(hash, session));
            self.offers.entry(session).or_default().push(hash);
        }
    }

    /// What a session is to be told has come.
    pub(crate) fn offers(&mut self, session: SessionId) -> Vec<ChunkHash> {
        self.offers.remove(&session).unwrap_or_default()
    }

    /// A session says that blobs have come there. Whether all of them are still wanted.
    pub(crate) fn offered(&mut self, session: SessionId, hashes: &[ChunkHash]) -> bool {
        let mut all = true;
        for hash in hashes {
            let Some(want) = self.wants.get_mut(hash) else {
                all = false;
                continue;
            };
            want.refused.remove(&session);
            want.asked.entry(session).and_modify(|come| *come = true);
            all &= self.claims.values().any(|claimed| claimed.contains(hash));
        }
        all
    }

    pub(crate) fn refused(&mut self, session: SessionId, hashes: &[ChunkHash]) {
        for hash in hashes {
            if let Some(want) = self.wants.get_mut(hash) {
                if want.asked.remove(&session) != Some(true) {
                    want.refused.insert(session);
                }
                if want.asked.is_empty() {
                    self.forget_unclaimed(hash);
                }
            }
        }
    }

    /// How many blobs `claim` is lacking, and how many of these every connected peer was asked for in vain (all, when
    /// nobody is connected).
    pub(crate) fn lacking(&self, claim: ClaimId) -> (usize, usize) {
        let claimed = self.claims.get(&claim);
        (claimed.map_or(0, BTreeSet::len), self.in_vain(claim).count())
    }

    /// What `claim` is lacking and every connected peer was asked for in vain.
    pub(crate) fn in_vain(&self, claim: ClaimId) -> impl Iterator<Item = &ChunkHash> {
        let in_vain = |want: &Want| {
            want.asked.is_empty() && self.sessions.keys().all(|s| want.refused.contains(s))
        };
        let claimed = self.claims.get(&claim).into_iter().flatten();
        claimed.filter(move |hash| self.wants.get(hash).is_some_and(in_vain))
    }

    /// How many sessions there are.
    pub(crate) fn sessions(&self) -> usize {
        self.sessions.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);
    const NOW: Duration = Duration::from_secs(100);

    #[test]
    fn a_want_goes_from_peer_to_peer() {
        let hash = ChunkHash([1; 32]);
        let mut wants = Wants::new(PATIENCE);
        wants.join(1);
        wants.join(2);
        wants.set(WORKER, [hash]);
        assert_eq!(wants.ask(1, NOW), [hash]);
        assert!(wants.ask(2, NOW).is_empty(), "asked of one at a time");
        wants.refused(1, &[hash]);
        assert!(wants.ask(1, NOW).is_empty(), "not asked twice");
        assert_eq!(wants.lacking(WORKER), (1, 0));
        assert_eq!(wants.ask(2, NOW), [hash]);
        wants.leave(2);
        assert_eq!(wants.lacking(WORKER), (1, 1));
        wants.join(3);
        assert_eq!(wants.ask(3, NOW), [hash]);
        wants.arrived(&hash);
        assert_eq!(wants.lacking(WORKER), (0, 0));
    }

    #[test]
    fn who_asked_in_vain_hears_when_it_comes() {
        let (hash, other) = (ChunkHash([1; 32]), ChunkHash([2; 32]));
        let mut wants = Wants::new(PATIENCE);
        wants.join(1);
        wants.join(2);
        wants.asked(1, &[hash, other]);
        wants.asked(2, &[hash]);
        wants.sent(2, &hash);
        wants.arrived(&hash);
        assert_eq!((wants.offers(1), wants.offers(2)), (vec![hash], vec![]));
        assert!(wants.offers(1).is_empty(), "told once");
        wants.arrived(&other);
        assert_eq!(wants.offers(1), [other]);
    }

    #[test]
    fn what_is_given_up_and_wanted_again_before_the_answer_hears_that_it_came() {
        let hash = ChunkHash([1; 32]);
        let mut wants = Wants::new(PATIENCE);
        wants.join(1);
        wants.set(READERS, [hash]);
        assert_eq!(wants.ask(1, NOW), [hash]);
        wants.set(READERS, []);
        assert!(!wants.offered(1, &[hash]), "nobody here wants it");
        wants.set(GATHER, [hash]);
        wants.refused(1, &[hash]);
        assert_eq!(wants.ask(1, NOW), [hash], "the word that it came overtook the refusal");
        wants.set(GATHER, []);
        wants.refused(1, &[hash]);
        assert!(wants.wants.is_empty());
        wants.set(GATHER, [hash]);
        assert_eq!(wants.ask(1, NOW), [hash]);
        wants.set(GATHER, []);
        wants.leave(1);
        assert!(wants.wants.is_empty());
    }

    #[test]
    fn a_peer_to_which_it_came_is_asked_again() {
        let hash = ChunkHash([1; 32]);
        let mut wants = Wants::new(PATIENCE);
        wants.join(1);
        wants.set(WORKER, [hash]);
        assert_eq!(wants.ask(1, NOW), [hash]);
        wants.refused(1, &[hash]);
        wants.offered(1, &[hash]);
        assert_eq!(wants.ask(1, NOW), [hash], "after the refusal");
        // The word that it came may overtake the one that it was not there.
        wants.offered(1, &[hash]);
        wants.refused(1, &[hash]);
        assert_eq!(wants.ask(1, NOW), [hash], "before the refusal");
        wants.refused(1, &[hash]);
        assert!(wants.ask(1, NOW).is_empty());
    }

    #[test]
    fn who_never_answers_keeps_nothing_from_the_others() {
        let hashes: Vec<ChunkHash> = (0..64).map(|n| ChunkHash([n; 32])).collect();
        let mut wants = Wants::new(PATIENCE);
        wants.join(1);
        wants.set(WORKER, hashes.clone());
        assert_eq!(wants.ask(1, NOW), hashes);
        assert_eq!(wants.wakes(1), None);
        wants.join(2);
        let due = NOW + PATIENCE;
        assert!(wants.ask(2, due - Duration::from_millis(1)).is_empty());
        assert_eq!((wants.wakes(1), wants.wakes(2)), (None, Some(due)));
        // Whoever answers is slow and no more.
        wants.refused(1, &hashes[..1]);
        wants.answered(1, due);
        assert_eq!(wants.ask(2, due), hashes[..1]);
        assert_eq!(wants.wakes(2), Some(due + PATIENCE));
        assert_eq!(wants.ask(2, due + PATIENCE), hashes[1..]);
        assert_eq!((wants.ask(1, due + PATIENCE), wants.wakes(2)), (vec![], None));
        // One answer is not the other's.
        wants.refused(2, &hashes[1..2]);
        assert_eq!(wants.lacking(WORKER), (64, 0));
        wants.refused(1, &hashes[1..2]);
        assert_eq!(wants.lacking(WORKER), (64, 1));
        wants.arrived(&hashes[2]);
        wants.leave(1);
        assert_eq!(wants.lacking(WORKER), (63, 1));
    }
}
