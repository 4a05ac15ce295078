//! A peer played by hand, frame by frame, against a real session on a real replica: it may do what no session would.

use crate::harness::{Node, TableBlobs};
use anabranch_core::blob::ChunkHash;
use anabranch_core::codec::Writer;
use anabranch_core::entry::Timestamp;
use anabranch_core::frontier::{Frontier, FrontierTip};
use anabranch_core::id::DatabaseId;
use anabranch_core::key::{Context, DeviceKey};
use anabranch_core::run::Run;
use anabranch_core::storage::Durability;
use anabranch_sync::channel::{Direction, Event};
use anabranch_sync::frame::{
    ChannelNo, Code, Frame, PROTOCOL_VERSION, Request, Terms, TicketProof,
};
use anabranch_sync::session::{Config, Output, Session};
use anabranch_sync::work::{Access, Answer, Work};
use std::collections::BTreeMap;

pub(crate) const BINDING: [u8; 32] = [3; 32];

/// What a session would say when it opens a database both ways and lets the other side read.
pub(crate) const OPEN: Terms = Terms { sends: true, receives: true, you_may_read: true };

pub(crate) struct Rogue<'a> {
    pub(crate) node: &'a Node,
    pub(crate) session: Session,
    pub(crate) key: DeviceKey,
    pub(crate) database: DatabaseId,
    /// Everything the session sent.
    pub(crate) got: Vec<Frame>,
    /// Why the session or its channel ended, as far as it said so itself.
    pub(crate) closed: Vec<(Code, String)>,
    /// Blobs that the session was told are not to be had.
    pub(crate) missing: Vec<ChunkHash>,
    /// Whether work is put aside instead of being done at once.
    pub(crate) hold: bool,
    pub(crate) held: Vec<(ChannelNo, Work)>,
    /// How often the session was offered more than it remembers.
    pub(crate) overflows: usize,
    /// What it says it can do.
    pub(crate) features: u64,
    /// By which it asks to be let in when it opens next.
    pub(crate) request: Option<Request>,
    /// What it shows then.
    pub(crate) evidence: Option<Vec<u8>>,
}

impl<'a> Rogue<'a> {
    /// A link to `node`, before any greeting.
    pub(crate) fn link(node: &'a Node, key: DeviceKey, database: DatabaseId) -> Self {
        let session = Session::new(Config {
            key: node.key.clone(),
            binding: BINDING,
            initiator: false,
            clock: node.clock,
            served: BTreeMap::from([(database, Direction::BOTH)]),
        });
        let mut rogue = Self {
            node,
            session,
            key,
            database,
            got: vec![],
            closed: vec![],
            missing: vec![],
            hold: false,
            held: vec![],
            overflows: 0,
            features: 0,
            request: None,
            evidence: None,
        };
        rogue.pump();
        rogue
    }

    /// A link to `node` after an honest greeting.
    pub(crate) fn greet(node: &'a Node, key: DeviceKey, database: DatabaseId) -> Self {
        Self::greet_with(node, key, database, 0)
    }

    /// The same, as one that can do this.
    pub(crate) fn greet_with(
        node: &'a Node,
        key: DeviceKey,
        database: DatabaseId,
        features: u64,
    ) -> Self {
        let mut rogue = Self::link(node, key, database);
        rogue.features = features;
        rogue.send(&rogue.hello());
        rogue.send(&Frame::Auth(rogue.key.sign(Context::Greeting, &rogue.greeting(true))));
        assert_eq!(rogue.session.peer(), Some(rogue.key.node_id()));
        rogue
    }

    pub(crate) fn hello(&self) -> Frame {
        let versions = (PROTOCOL_VERSION, PROTOCOL_VERSION);
        Frame::Hello { versions, node: self.key.node_id(), clock: 5, features: self.features }
    }

    pub(crate) fn greeting(&self, initiator: bool) -> Vec<u8> {
        let mut w = Writer::new();
        w.array(4).bytes(&BINDING).bool(initiator);
        w.bytes(&self.key.node_id().0).bytes(&self.node.key.node_id().0);
        w.finish()
    }

    /// After the greeting, opens the database as channel 0.
    pub(crate) fn open(&mut self, terms: Terms, ticket: Option<&DeviceKey>) {
        self.open_as(0, terms, ticket);
    }

    /// The same, as one who knows a frontier.
    pub(crate) fn open_with(&mut self, terms: Terms, digest: [u8; 32]) {
        let name = anabranch_core::codec::keyed_hash(&BINDING, &self.database.0);
        let digest = Some(digest);
        self.send(&Frame::Open {
            channel: 0,
            name,
            terms,
            digest,
            ticket: None,
            request: None,
            evidence: None,
        });
    }

    pub(crate) fn open_as(&mut self, channel: u32, terms: Terms, ticket: Option<&DeviceKey>) {
        let name = anabranch_core::codec::keyed_hash(&BINDING, &self.database.0);
        let ticket = ticket.map(|key| {
            let mut w = Writer::new();
            w.array(3).bytes(&BINDING).bytes(&self.database.0).bytes(&self.key.node_id().0);
            let signature = key.sign(Context::TicketProof, &w.finish());
            TicketProof { key: key.node_id(), signature }
        });
        let request = self.request.take();
        let evidence = self.evidence.take();
        self.send(&Frame::Open { channel, name, terms, digest: None, ticket, request, evidence });
    }

    pub(crate) fn send(&mut self, frame: &Frame) {
        self.raw(&frame.encode());
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.session.receive(bytes);
        self.pump();
    }

    pub(crate) fn tips(&mut self, tips: &[FrontierTip]) {
        self.send(&Frame::Tips { channel: 0, tips: tips.to_vec(), last: true });
    }

    pub(crate) fn frontier(&mut self, frontier: &Frontier) {
        self.tips(frontier.tips());
    }

    pub(crate) fn batch(&mut self, runs: &[Run]) {
        let mut w = Writer::new();
        w.array(runs.len());
        runs.iter().for_each(|run| run.encode(&mut w));
        let raw = w.finish();
        let bytes = zstd::bulk::compress(&raw, 1).unwrap();
        self.send(&Frame::Batch { channel: 0, raw: raw.len() as u32, bytes });
    }

    /// Bytes of data that the session sent.
    pub(crate) fn data(&self) -> u64 {
        self.got
            .iter()
            .map(|frame| match frame {
                Frame::Batch { bytes, .. } | Frame::Blob { bytes, .. } => bytes.len() as u64,
                _ => 0,
            })
            .sum()
    }

    /// Word of a change reaches the session.
    pub(crate) fn committed(&mut self) {
        self.session.committed(self.database);
        self.pump();
    }

    /// Does whatever the session asks for.
    pub(crate) fn pump(&mut self) {
        while let Some(output) = self.session.poll() {
            match output {
                Output::Send(bytes) => self.got.push(Frame::decode(&bytes).unwrap()),
                Output::Work(channel, work) if self.hold => self.held.push((channel, work)),
                Output::Work(channel, work) => self.perform(channel, work),
                Output::Event(_, Event::Closed { code, text, by_peer: false })
                | Output::Closed { code, text, by_peer: false } => self.closed.push((code, text)),
                Output::Event(_, Event::Withheld { more: true, .. }) => self.overflows += 1,
                Output::Event(_, Event::NoBlobs(hashes)) => self.missing.extend(hashes),
                _ => {}
            }
        }
    }

    fn perform(&mut self, channel: ChannelNo, work: Work) {
        let answer = self.outcome(channel, work);
        self.session.answer(channel, answer);
    }

    /// What comes of a piece of work, as of now.
    pub(crate) fn outcome(&self, channel: ChannelNo, work: Work) -> Answer {
        let access = Access {
            storage: &*self.node.storage,
            blobs: &TableBlobs(&*self.node.storage),
            requests: &self.node.asks,
            pending: &self.node.pending,
            summed: &self.node.summed,
            durability: Durability::Full,
            sum_from: self.node.sum_from,
            bulk_from: u64::MAX,
            peer: self.key.node_id(),
            shown: self.session.shown_on(channel),
            reader: None,
            now: Timestamp(self.node.clock),
        };
        access.perform(work)
    }

    /// Does the work that was put aside longest.
    pub(crate) fn release(&mut self) -> bool {
        if self.held.is_empty() {
            return false;
        }
        let (channel, work) = self.held.remove(0);
        self.perform(channel, work);
        self.pump();
        true
    }
}
