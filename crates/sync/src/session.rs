//! The session on one link: both sides say who they are and prove it, then open databases on it. What happens inside one
//! database is [`crate::channel`]. A peer's fault ends its session or channel and nothing else (I5).

use crate::channel::{Asks, Channel, Direction, Emit, Event, NOT_SERVED, blinded_name};
use crate::frame::{
    ChannelNo, Code, Frame, KNOWS_PEOPLE, PROTOCOL_VERSION, Request, TAKES_REQUESTS, Terms,
    TicketProof, WITHHOLDS,
};
use crate::rights::Shown;
use crate::work::{Answer, Work};
use anabranch_core::blob::ChunkHash;
use anabranch_core::codec::Writer;
use anabranch_core::id::{DatabaseId, NodeId};
use anabranch_core::key::{Context, DeviceKey, Signature, verify};
use std::collections::{BTreeMap, VecDeque};

/// Databases that one session may have open.
pub const CHANNELS: usize = 1_024;

/// What a session is made with.
#[derive(Debug)]
pub struct Config {
    /// This device.
    pub key: DeviceKey,
    /// Names the link, known to both ends and nobody else: the hash of its handshake.
    pub binding: [u8; 32],
    /// Whether this side started the link.
    pub initiator: bool,
    /// The wall clock, in microseconds, to be compared.
    pub clock: u64,
    /// Databases that the peer may open.
    pub served: BTreeMap<DatabaseId, Direction>,
}

/// What a device has to show for being let in to a database.
#[derive(Debug, Default)]
pub struct Credentials<'k> {
    /// The key of a ticket.
    pub ticket: Option<&'k DeviceKey>,
    /// A request for an admin to approve, if the peer takes any.
    pub request: Option<Request>,
    /// What shows that the person whom the request names has this device: encoded [`anabranch_core::person::Evidence`].
    pub evidence: Option<Vec<u8>>,
}

/// What the caller must do or know.
#[derive(Debug)]
pub enum Output {
    /// Send this frame.
    Send(Vec<u8>),
    /// Do this work on the database of `channel` and hand the answer to [`Session::answer`].
    Work(ChannelNo, Work),
    /// The peer proved who it is.
    Greeted {
        /// Its device.
        peer: NodeId,
        /// How far its clock is ahead of ours, in microseconds.
        clock_ahead: i64,
    },
    /// Something happened on a channel.
    Event(ChannelNo, Event),
    /// The session is over; no output follows.
    Closed {
        /// Why.
        code: Code,
        /// For people.
        text: String,
        /// Whether the peer said so.
        by_peer: bool,
    },
}

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    AwaitHello,
    AwaitAuth,
    Open,
    Closed,
}

/// The state machine of one link.
#[derive(Debug)]
pub struct Session {
    config: Config,
    stage: Stage,
    peer: Option<NodeId>,
    clock_ahead: i64,
    /// What the peer can do.
    features: u64,
    channels: BTreeMap<ChannelNo, Channel>,
    next_channel: ChannelNo,
    out: VecDeque<Output>,
}

impl Session {
    /// Starts greeting.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let hello = Frame::Hello {
            versions: (PROTOCOL_VERSION, PROTOCOL_VERSION),
            node: config.key.node_id(),
            clock: config.clock,
            features: WITHHOLDS | TAKES_REQUESTS | KNOWS_PEOPLE,
        };
        // Each side picks numbers of its own, so that both may open at once.
        let next_channel = if config.initiator { 0 } else { 1 };
        Self {
            stage: Stage::AwaitHello,
            peer: None,
            clock_ahead: 0,
            features: 0,
            channels: BTreeMap::new(),
            next_channel,
            out: VecDeque::from([Output::Send(hello.encode())]),
            config,
        }
    }

    /// What is to be done next.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// The device at the other end, once it proved itself.
    #[must_use]
    pub fn peer(&self) -> Option<NodeId> {
        self.peer.filter(|_| self.stage == Stage::Open)
    }

    /// Whether the session is over.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.stage == Stage::Closed
    }

    /// The channel with this number.
    #[must_use]
    pub fn channel(&self, number: ChannelNo) -> Option<&Channel> {
        self.channels.get(&number)
    }

    /// Open channels on `database`.
    pub fn channels_of(&self, database: DatabaseId) -> impl Iterator<Item = ChannelNo> + '_ {
        self.channels.iter().filter(move |(_, c)| c.database == database).map(|(n, _)| *n)
    }

    /// What the peer showed on this channel.
    #[must_use]
    pub fn shown_on(&self, number: ChannelNo) -> Shown {
        self.channels.get(&number).map(|c| c.credentials.clone()).unwrap_or_default()
    }

    /// Lets the peer open `database` from now on.
    pub fn serve(&mut self, database: DatabaseId, direction: Direction) {
        self.config.served.insert(database, direction);
    }

    /// Opens `database`, showing what there is to show for this device. Only after [`Output::Greeted`].
    pub fn open(
        &mut self,
        database: DatabaseId,
        direction: Direction,
        credentials: Credentials<'_>,
    ) -> ChannelNo {
        let number = self.next_channel;
        self.next_channel += 2;
        let Credentials { ticket, request, evidence } = credentials;
        let mut asks = Asks {
            proof: ticket.map(|key| self.prove(&database, key)),
            request: request.filter(|_| self.features & TAKES_REQUESTS != 0),
            evidence: None,
        };
        match &mut asks.request {
            Some(request) if self.features & KNOWS_PEOPLE == 0 => request.person = None,
            Some(_) => asks.evidence = evidence,
            None => {}
        }
        self.add(
            Channel::new(number, database, self.config.binding, true, direction, asks),
            number,
        );
        number
    }

    fn prove(&self, database: &DatabaseId, ticket: &DeviceKey) -> TicketProof {
        let message = self.ticket_message(database, &self.config.key.node_id());
        TicketProof {
            key: ticket.node_id(),
            signature: ticket.sign(Context::TicketProof, &message),
        }
    }

    fn ticket_message(&self, database: &DatabaseId, presenter: &NodeId) -> Vec<u8> {
        let mut w = Writer::new();
        w.array(3).bytes(&self.config.binding).bytes(&database.0).bytes(&presenter.0);
        w.finish()
    }

    fn add(&mut self, mut channel: Channel, number: ChannelNo) {
        channel.set_able(self.features & WITHHOLDS != 0);
        self.channels.insert(number, channel);
        self.flush(number);
    }

    /// Hands in a frame from the link.
    pub fn receive(&mut self, bytes: &[u8]) {
        if self.is_closed() {
            return;
        }
        match Frame::decode(bytes) {
            Ok(frame) => self.on_frame(frame),
            Err(e) => self.close(Code::Protocol, &format!("the peer sent a bad frame: {e}")),
        }
    }

    fn on_frame(&mut self, frame: Frame) {
        match (&self.stage, frame) {
            (_, Frame::Bye { code, text }) => self.end(code, text, true),
            (Stage::AwaitHello, Frame::Hello { versions, node, clock, features }) => {
                self.features = features;
                self.on_hello(versions, node, clock);
            }
            (Stage::AwaitAuth, Frame::Auth(signature)) => self.on_auth(&signature),
            (Stage::Open, frame) => self.on_open_frame(frame),
            _ => self.close(Code::Protocol, "the peer did not greet as it should"),
        }
    }

    fn on_hello(&mut self, versions: (u64, u64), node: NodeId, clock: u64) {
        if versions.0 > PROTOCOL_VERSION || versions.1 < PROTOCOL_VERSION {
            let text = format!(
                "one side speaks protocol versions {} to {}, the other {PROTOCOL_VERSION}; update the program that is behind",
                versions.0, versions.1
            );
            return self.close(Code::Version, &text);
        }
        self.peer = Some(node);
        self.clock_ahead = (clock.cast_signed()).saturating_sub(self.config.clock.cast_signed());
        self.stage = Stage::AwaitAuth;
        let message = self.greeting(self.config.initiator, &self.config.key.node_id(), &node);
        let signature = self.config.key.sign(Context::Greeting, &message);
        self.send(&Frame::Auth(signature));
    }

    /// What a greeting's signature covers: the link, the signer's role, signer, other side.
    fn greeting(&self, initiator: bool, signer: &NodeId, other: &NodeId) -> Vec<u8> {
        let mut w = Writer::new();
        w.array(4).bytes(&self.config.binding).bool(initiator).bytes(&signer.0).bytes(&other.0);
        w.finish()
    }

    fn on_auth(&mut self, signature: &Signature) {
        let Some(peer) = self.peer else { return };
        let message = self.greeting(!self.config.initiator, &peer, &self.config.key.node_id());
        if !verify(&peer, Context::Greeting, &message, signature) {
            return self.close(Code::Protocol, "the peer is not the device it claims to be");
        }
        self.stage = Stage::Open;
        self.out.push_back(Output::Greeted { peer, clock_ahead: self.clock_ahead });
    }

    fn on_open_frame(&mut self, frame: Frame) {
        match frame {
            Frame::Open { channel, name, terms, digest, ticket, request, evidence } => {
                self.on_open(channel, name, (terms, digest), ticket, (request, evidence));
            }
            Frame::Opened { channel, terms, digest, ticket } => {
                let ticket = self.checked_ticket(channel, ticket);
                if let Some(open) = self.channels.get_mut(&channel) {
                    open.credentials.ticket = ticket;
                    open.opened(terms, digest);
                }
                self.flush(channel);
            }
            Frame::Refused { channel, code, text } => {
                if let Some(open) = self.channels.get_mut(&channel) {
                    open.refused(code, text);
                }
                self.flush(channel);
            }
            Frame::Hello { .. } | Frame::Auth(_) | Frame::Bye { .. } => {
                self.close(Code::Protocol, "the peer greeted twice");
            }
            Frame::Tips { channel, .. }
            | Frame::Fork { channel, .. }
            | Frame::ForkPoint { channel, .. }
            | Frame::Batch { channel, .. }
            | Frame::Credit { channel, .. }
            | Frame::Level { channel, .. }
            | Frame::Want { channel, .. }
            | Frame::Blob { channel, .. }
            | Frame::NoBlob { channel, .. }
            | Frame::Have { channel, .. }
            | Frame::Symbols { channel, .. }
            | Frame::Ask { channel, .. }
            | Frame::Named { channel, .. }
            | Frame::Hold { channel, .. }
            | Frame::Resume { channel, .. }
            | Frame::Offer { channel, .. }
            | Frame::Held { channel, .. } => {
                // A channel that was just closed here may still get what was under way.
                if let Some(open) = self.channels.get_mut(&channel) {
                    open.receive(frame);
                    self.flush(channel);
                }
            }
        }
    }

    /// Refuses to open a channel at all.
    fn turn_away(&mut self, channel: ChannelNo, code: Code, text: &str) {
        self.send(&Frame::Refused { channel, code, text: text.to_owned() });
        let closed = Event::Closed { code, text: text.to_owned(), by_peer: false };
        self.out.push_back(Output::Event(channel, closed));
    }

    fn on_open(
        &mut self,
        number: ChannelNo,
        name: [u8; 32],
        (terms, digest): (Terms, Option<[u8; 32]>),
        ticket: Option<TicketProof>,
        (request, evidence): (Option<Request>, Option<Vec<u8>>),
    ) {
        let ours = u32::from(!self.config.initiator);
        if number % 2 == ours || self.channels.contains_key(&number) {
            return self.close(Code::Protocol, "the peer opened a channel that is not its own");
        }
        let known = self
            .config
            .served
            .iter()
            .find(|(database, _)| blinded_name(&self.config.binding, database) == name);
        let Some((&database, &direction)) = known else {
            return self.turn_away(number, Code::NotServed, NOT_SERVED);
        };
        if self.channels.len() >= CHANNELS {
            let text = "too many databases are open on this session";
            return self.turn_away(number, Code::Limit, text);
        }
        if self.channels.values().any(|open| open.database == database && !open.is_opener()) {
            let text = "the database is open on this session already";
            return self.turn_away(number, Code::Limit, text);
        }
        let asks = Asks { proof: None, request, evidence };
        let mut channel =
            Channel::new(number, database, self.config.binding, false, direction, asks);
        channel.credentials.ticket = self.valid_ticket(&database, ticket);
        channel.opened(terms, digest);
        self.add(channel, number);
    }

    fn checked_ticket(&self, channel: ChannelNo, ticket: Option<TicketProof>) -> Option<NodeId> {
        let database = self.channels.get(&channel)?.database;
        self.valid_ticket(&database, ticket)
    }

    fn valid_ticket(&self, database: &DatabaseId, ticket: Option<TicketProof>) -> Option<NodeId> {
        let (proof, peer) = (ticket?, self.peer?);
        let message = self.ticket_message(database, &peer);
        verify(&proof.key, Context::TicketProof, &message, &proof.signature).then_some(proof.key)
    }

    /// Hands in the answer to [`Output::Work`].
    pub fn answer(&mut self, channel: ChannelNo, answer: Answer) {
        self.on_channel(channel, |c| c.answer(answer));
    }

    /// `database` changed here: connected peers hear of it at once.
    pub fn committed(&mut self, database: DatabaseId) {
        let numbers: Vec<ChannelNo> = self.channels_of(database).collect();
        for number in numbers {
            self.on_channel(number, Channel::committed);
        }
    }

    /// Says whether this side still works on what it received.
    pub fn set_busy(&mut self, channel: ChannelNo, busy: bool) {
        self.on_channel(channel, |c| c.set_busy(busy));
    }

    /// Tells the peer that blobs have come for which it asked in vain.
    pub fn have(&mut self, channel: ChannelNo, hashes: &[ChunkHash]) {
        self.on_channel(channel, |c| c.have(hashes));
    }

    /// Tells the peer to withhold what these devices wrote, or everything if none is named: it comes from somebody else.
    /// Nothing happens if the peer cannot ([`Channel::can_hold`]).
    pub fn hold(&mut self, channel: ChannelNo, devices: &[NodeId]) {
        self.on_channel(channel, |c| c.hold(devices));
    }

    /// Takes [`Self::hold`] back for these devices, or for everything if none is named, and compares anew.
    pub fn resume(&mut self, channel: ChannelNo, devices: &[NodeId]) {
        self.on_channel(channel, |c| c.resume(devices));
    }

    /// Asks the peer for blobs.
    pub fn want(&mut self, channel: ChannelNo, hashes: &[ChunkHash]) {
        self.on_channel(channel, |c| c.want(hashes));
    }

    fn on_channel(&mut self, number: ChannelNo, act: impl FnOnce(&mut Channel)) {
        if self.is_closed() {
            return;
        }
        if let Some(channel) = self.channels.get_mut(&number) {
            act(channel);
            self.flush(number);
        }
    }

    fn flush(&mut self, number: ChannelNo) {
        let Some(channel) = self.channels.get_mut(&number) else { return };
        let (emitted, closed) = (channel.drain(), channel.closed);
        for emit in emitted {
            self.out.push_back(match emit {
                Emit::Frame(frame) => Output::Send(frame.encode()),
                Emit::Work(work) => Output::Work(number, work),
                Emit::Event(event) => Output::Event(number, event),
            });
        }
        if closed {
            self.channels.remove(&number);
        }
    }

    fn send(&mut self, frame: &Frame) {
        self.out.push_back(Output::Send(frame.encode()));
    }

    /// Ends the session and tells the peer why.
    pub fn close(&mut self, code: Code, text: &str) {
        if !self.is_closed() {
            self.send(&Frame::Bye { code, text: text.to_owned() });
            self.end(code, text.to_owned(), false);
        }
    }

    fn end(&mut self, code: Code, text: String, by_peer: bool) {
        self.stage = Stage::Closed;
        self.channels.clear();
        self.out.push_back(Output::Closed { code, text, by_peer });
    }
}
