//! Peers that come by themselves: who is here, and what went wrong with whom.

use super::why::Why;
use crate::drive::Progress;
use crate::error::NodeError;
use crate::node::Node;
use anabranch_core::id::NodeId;
use anabranch_transport::http::TurnedAway;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use tokio::sync::watch;

/// Troubles that are remembered; older ones make room.
const TROUBLES: usize = 64;

/// Who is here, and what went wrong.
#[derive(Debug, Default)]
pub(crate) struct Visitors {
    here: Mutex<BTreeMap<u64, (Visitor, watch::Receiver<Progress>)>>,
    /// The latest last.
    troubles: Mutex<VecDeque<Trouble>>,
    /// All there ever were, by reason.
    counted: Mutex<BTreeMap<&'static str, u64>>,
}

/// A peer that came by itself.
#[derive(Debug, Clone)]
pub struct Visitor {
    /// Where it came from.
    pub address: String,
    /// When it came: microseconds since 1970.
    pub since: u64,
    /// Who it is, once that is proved, and what moved.
    pub progress: Progress,
}

/// What went wrong with a peer that came.
#[derive(Debug, Clone)]
pub struct Trouble {
    /// Where it came from, without the port.
    pub host: String,
    /// Who it was, if that was proved.
    pub device: Option<NodeId>,
    /// What was wrong, in a word for programs.
    pub code: &'static str,
    /// And in a sentence.
    pub text: String,
    /// How often that happened.
    pub times: u64,
    /// When it happened last: microseconds since 1970.
    pub last: u64,
}

/// A visitor while it is here.
pub(crate) struct Visit<'n> {
    node: &'n Node,
    number: u64,
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        let mut visitors =
            self.node.engine().visitors.here.lock().unwrap_or_else(PoisonError::into_inner);
        visitors.remove(&self.number);
    }
}

impl Node {
    /// Notes that a peer came, until the result is dropped.
    pub(crate) fn visit(&self, address: &str, progress: watch::Receiver<Progress>) -> Visit<'_> {
        let mut visitors =
            self.engine().visitors.here.lock().unwrap_or_else(PoisonError::into_inner);
        let number = visitors.last_key_value().map_or(0, |(number, _)| number + 1);
        let (address, since) = (address.to_owned(), self.device().now().0);
        let visitor = Visitor { address, since, progress: Progress::default() };
        visitors.insert(number, (visitor, progress));
        Visit { node: self, number }
    }

    /// Peers that came by themselves and are here now, in the order in which they came.
    #[must_use]
    pub fn visitors(&self) -> Vec<Visitor> {
        let visitors = self.engine().visitors.here.lock().unwrap_or_else(PoisonError::into_inner);
        let now = |(visitor, progress): &(Visitor, watch::Receiver<Progress>)| Visitor {
            progress: *progress.borrow(),
            ..visitor.clone()
        };
        visitors.values().map(now).collect()
    }

    /// Notes what went wrong with a peer that came from `address`.
    pub(crate) fn note_trouble(&self, address: &str, device: Option<NodeId>, error: &NodeError) {
        let code = match error {
            // Nobody was looked for here, so there is no address that does not work.
            NodeError::Handshake(_) => "handshake",
            error => Why::of(error, false).code(),
        };
        self.note(address, device, code, error.chain(), 1);
    }

    /// Notes that there was no place for some connections.
    pub(crate) fn note_turned_away(&self, turned_away: TurnedAway) {
        let TurnedAway { times, last: Some(last) } = turned_away else { return };
        let text = "there was no place for a connection; if these are peers, raise net.http_max_connections";
        self.note(&format!("http client {last}"), None, "connections", text.to_owned(), times);
    }

    fn note(
        &self,
        address: &str,
        device: Option<NodeId>,
        code: &'static str,
        text: String,
        times: u64,
    ) {
        let last = self.device().now().0;
        let mut counted =
            self.engine().visitors.counted.lock().unwrap_or_else(PoisonError::into_inner);
        *counted.entry(code).or_default() += times;
        drop(counted);
        // Ports change with each attempt.
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host).to_owned();
        let mut troubles =
            self.engine().visitors.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |t: &Trouble| t.host == host && t.device == device && t.code == code;
        let known = troubles.iter().position(same).and_then(|at| troubles.remove(at));
        let times = known.map_or(0, |trouble| trouble.times) + times;
        troubles.push_back(Trouble { host, device, code, text, times, last });
        if troubles.len() > TROUBLES {
            troubles.pop_front();
        }
    }

    /// What went wrong with peers that came, the latest first.
    #[must_use]
    pub fn troubles(&self) -> Vec<Trouble> {
        let troubles =
            self.engine().visitors.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        troubles.iter().rev().cloned().collect()
    }

    /// How often something went wrong with peers that came since the node was opened, by reason.
    #[must_use]
    pub fn troubles_counted(&self) -> Vec<(&'static str, u64)> {
        let counted = self.engine().visitors.counted.lock().unwrap_or_else(PoisonError::into_inner);
        counted.iter().map(|(code, times)| (*code, *times)).collect()
    }
}
