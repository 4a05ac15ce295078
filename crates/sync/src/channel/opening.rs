//! How a channel begins: each side says what it wants and whether it lets the other read, and who may not read is told
//! why. Then both compare.

use super::{Channel, Direction, Event, Plan, blinded_name};
use crate::frame::{Code, Frame, Request, Terms, TicketProof};
use crate::rights::{Reason, Right};
use crate::work::Work;

/// What is said at the opening, to be let in.
#[derive(Debug, Default)]
pub(crate) struct Asks {
    /// Possession of a ticket.
    pub(crate) proof: Option<TicketProof>,
    /// A request.
    pub(crate) request: Option<Request>,
    /// What shows that the person whom the request names has this device.
    pub(crate) evidence: Option<Vec<u8>>,
}

impl Channel {
    /// Takes in what the peer said when it opened or answered.
    pub(crate) fn opened(&mut self, terms: Terms, digest: Option<[u8; 32]>) {
        if self.theirs.is_some() {
            return self.refuse(Code::Protocol, "the channel was opened twice");
        }
        self.theirs = Some(terms);
        self.their_digest = digest;
        if self.opener {
            self.start();
        }
    }

    pub(super) fn on_open(&mut self, digest: [u8; 32], right: Right) {
        self.digest = digest;
        self.peer_may_read = right.is_ok();
        self.revoked = right == Err(Reason::Revoked);
        if let Err(reason) = right
            && !self.opener
            && !self.may_prove(reason)
        {
            let (code, text) = reason.refusal();
            return self.refuse(code, text);
        }
        let (channel, terms, digest, ticket) =
            (self.number, self.terms(), self.told_digest(), self.proof);
        if self.opener {
            let name = blinded_name(&self.binding, &self.database);
            let (request, evidence) = (self.request.clone(), self.evidence.take());
            self.frame(Frame::Open { channel, name, terms, digest, ticket, request, evidence });
        } else {
            self.frame(Frame::Opened { channel, terms, digest, ticket });
            self.start();
        }
    }

    /// Whether an opener that may not read is let in to prove its right: it says that this side may read there.
    fn may_prove(&self, reason: Reason) -> bool {
        matches!(reason, Reason::Stranger | Reason::Revoked)
            && self.theirs.is_some_and(|t| t.you_may_read)
    }

    /// What a refusal means. The peer does not say whether it has the database, but this side knows what it showed.
    pub(super) fn explained(&self, code: Code, text: String) -> (Code, String) {
        if code != Code::NotServed || !self.opener || self.theirs.is_some() {
            return (code, text);
        }
        if self.proof.is_some() {
            let text =
                "the ticket is not known there, or the database is not served; ask for a new one";
            return (Code::TicketUnknown, text.to_owned());
        }
        if self.request.is_some() {
            let text = "the database is not served there, or no requests are taken; check the address, or ask an admin for a ticket";
            return (code, text.to_owned());
        }
        if !self.peer_may_read {
            let text = "the database is not served there, or neither device knows the other as a member yet; sync both with one that knows them";
            return (Code::Strangers, text.to_owned());
        }
        (code, text)
    }

    /// Why nothing can come of this: entries go one way only, and that one is closed for as long as nothing comes by the
    /// other that proves a right.
    fn vain(&self, readable: bool) -> Option<&'static str> {
        match self.mine {
            Direction::PULL if !readable => Some(
                "the other side does not know this device as a member yet; sync with it both ways once",
            ),
            Direction::PUSH if !self.peer_may_read => Some(
                "this device does not know the other one as a member yet; sync with it both ways once",
            ),
            _ => None,
        }
    }

    /// Both sides have said what they want: compare.
    fn start(&mut self) {
        self.started = true;
        let readable = self.theirs.is_some_and(|t| t.you_may_read);
        if let Some(text) = self.vain(readable).filter(|_| self.opener) {
            return self.refuse(Code::NotServed, text);
        }
        self.event(Event::Opened { readable });
        if self.peer_may_read && self.their_digest == Some(self.blind(self.digest)) {
            self.plan = Plan::Away;
            self.their_level = true;
            self.work(Work::Level { digest: self.digest });
        } else if self.peer_may_read {
            self.ask_frontier(None);
        }
        // Else the peer shows its frontier first, and is told as much as it has shown that it knows.
    }
}
