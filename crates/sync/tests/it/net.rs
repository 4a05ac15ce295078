//! Several nodes and links between them, where nothing happens in any order but the one that is picked: frames arrive,
//! storage work is done and its answers come back one at a time, as on threads and networks of any speed.

use crate::harness::{Node, TableBlobs};
use anabranch_core::blob::ChunkHash;
use anabranch_core::entry::Timestamp;
use anabranch_core::id::{DatabaseId, NodeId};
use anabranch_core::key::DeviceKey;
use anabranch_core::storage::Durability;
use anabranch_sync::channel::{CREDIT, Channel, Direction, Event};
use anabranch_sync::frame::{ChannelNo, Code, DATA_BYTES, Frame};
use anabranch_sync::session::{Config, Credentials, Output, Session};
use anabranch_sync::work::{Access, Answer, Work};
use std::collections::{BTreeMap, VecDeque};

/// What could happen next on a link, on one side of it.
#[derive(Debug, Clone, Copy)]
enum Move {
    Frame,
    Work(usize),
    Answer(usize),
    /// Word of a change in the database reaches the session.
    Wake,
}

/// One end of a link.
pub(crate) struct End {
    pub(crate) node: usize,
    pub(crate) session: Session,
    inbox: VecDeque<Vec<u8>>,
    works: Vec<(ChannelNo, Work)>,
    answers: Vec<(ChannelNo, Answer)>,
    stale: bool,
    /// Data sent and not acknowledged.
    under_way: u64,
    pub(crate) entries_sent: u64,
    pub(crate) entries_new: u64,
    pub(crate) frames: Vec<Frame>,
}

impl End {
    fn new(node: usize, config: Config) -> Self {
        Self {
            node,
            session: Session::new(config),
            inbox: VecDeque::new(),
            works: Vec::new(),
            answers: Vec::new(),
            stale: false,
            under_way: 0,
            entries_sent: 0,
            entries_new: 0,
            frames: Vec::new(),
        }
    }

    pub(crate) fn channel(&self) -> Option<&Channel> {
        self.session.channel(0)
    }
}

/// A link between two nodes; the first one opens the database.
pub(crate) struct Line {
    pub(crate) ends: [End; 2],
    pub(crate) closed: Vec<(Code, String)>,
    opening: (Direction, Option<DeviceKey>),
}

pub(crate) struct Net {
    pub(crate) database: DatabaseId,
    pub(crate) nodes: Vec<Node>,
    pub(crate) lines: Vec<Line>,
}

impl Net {
    pub(crate) fn new(database: DatabaseId, nodes: Vec<Node>) -> Self {
        Self { database, nodes, lines: Vec::new() }
    }

    pub(crate) fn link(&mut self, a: usize, b: usize, direction: Direction) -> usize {
        self.link_with(a, b, direction, None)
    }

    pub(crate) fn link_with(
        &mut self,
        a: usize,
        b: usize,
        direction: Direction,
        ticket: Option<DeviceKey>,
    ) -> usize {
        let config = |node: &Node, initiator| Config {
            key: node.key.clone(),
            binding: [self.lines.len() as u8; 32],
            initiator,
            clock: node.clock,
            served: BTreeMap::from([(self.database, Direction::BOTH)]),
        };
        let ends =
            [End::new(a, config(&self.nodes[a], true)), End::new(b, config(&self.nodes[b], false))];
        self.lines.push(Line { ends, closed: Vec::new(), opening: (direction, ticket) });
        let line = self.lines.len() - 1;
        self.drain(line);
        line
    }

    /// The link breaks; what was under way is lost.
    pub(crate) fn cut(&mut self, line: usize) {
        self.lines.remove(line);
    }

    /// `node`'s database changed: its sessions hear of it some time.
    pub(crate) fn changed(&mut self, node: usize) {
        for end in self.lines.iter_mut().flat_map(|line| &mut line.ends) {
            end.stale |= end.node == node;
        }
    }

    /// One end of a link asks for blobs.
    pub(crate) fn want(&mut self, line: usize, side: usize, hashes: &[ChunkHash]) {
        self.lines[line].ends[side].session.want(0, hashes);
        self.drain(line);
    }

    /// One end of a link wants entries of these devices withheld, or of all.
    pub(crate) fn hold(&mut self, line: usize, side: usize, devices: &[NodeId]) {
        self.lines[line].ends[side].session.hold(0, devices);
        self.drain(line);
    }

    /// One end of a link wants them after all.
    pub(crate) fn resume(&mut self, line: usize, side: usize, devices: &[NodeId]) {
        self.lines[line].ends[side].session.resume(0, devices);
        self.drain(line);
    }

    fn moves(&self) -> Vec<(usize, usize, Move)> {
        let mut moves = Vec::new();
        for (l, line) in self.lines.iter().enumerate() {
            for (side, end) in line.ends.iter().enumerate() {
                let works = (0..end.works.len()).map(Move::Work);
                let answers = (0..end.answers.len()).map(Move::Answer);
                let wake = end.stale.then_some(Move::Wake);
                let frame = (!end.inbox.is_empty()).then_some(Move::Frame);
                let all = frame.into_iter().chain(works).chain(answers).chain(wake);
                moves.extend(all.map(|m| (l, side, m)));
            }
        }
        moves
    }

    /// Lets one of the things happen that could; `false` when there is none.
    pub(crate) fn step(&mut self, pick: usize) -> bool {
        let moves = self.moves();
        if moves.is_empty() {
            return false;
        }
        let (line, side, act) = moves[pick % moves.len()];
        let database = self.database;
        let end = &mut self.lines[line].ends[side];
        match act {
            Move::Frame => {
                let bytes = end.inbox.pop_front().unwrap();
                if let Ok(Frame::Credit { bytes, .. }) = Frame::decode(&bytes) {
                    end.under_way -= u64::from(bytes);
                }
                end.session.receive(&bytes);
            }
            Move::Work(n) => {
                let (channel, work) = end.works.remove(n);
                let node = &self.nodes[end.node];
                let access = Access {
                    storage: &*node.storage,
                    blobs: &TableBlobs(&*node.storage),
                    requests: &node.asks,
                    pending: &node.pending,
                    summed: &node.summed,
                    durability: Durability::Full,
                    sum_from: 3,
                    bulk_from: u64::MAX,
                    peer: end.session.peer().unwrap(),
                    shown: end.session.shown_on(channel),
                    reader: None,
                    now: Timestamp(node.clock),
                };
                end.answers.push((channel, access.perform(work)));
            }
            Move::Answer(n) => {
                let (channel, answer) = end.answers.remove(n);
                end.session.answer(channel, answer);
            }
            Move::Wake => {
                end.stale = false;
                end.session.committed(database);
            }
        }
        self.drain(line);
        true
    }

    /// Steps as `picks` say until they are used up.
    pub(crate) fn play(&mut self, picks: &[u16]) {
        for pick in picks {
            self.step(usize::from(*pick));
        }
    }

    /// Steps in turn until nothing moves any more.
    pub(crate) fn settle(&mut self) {
        let mut steps = 0;
        while self.step(steps) {
            steps += 1;
            assert!(steps < 200_000, "it never comes to rest");
        }
    }

    fn drain(&mut self, l: usize) {
        for side in 0..2 {
            while let Some(output) = self.lines[l].ends[side].session.poll() {
                self.output(l, side, output);
            }
        }
    }

    fn output(&mut self, l: usize, side: usize, output: Output) {
        let database = self.database;
        let line = &mut self.lines[l];
        match output {
            Output::Send(bytes) => {
                let frame = Frame::decode(&bytes).expect("only good frames are sent");
                let end = &mut line.ends[side];
                if let Frame::Batch { bytes, .. } | Frame::Blob { bytes, .. } = &frame {
                    end.under_way += bytes.len() as u64;
                    let most = u64::from(CREDIT) + DATA_BYTES as u64;
                    assert!(end.under_way <= most, "{} bytes under way", end.under_way);
                }
                end.frames.push(frame);
                line.ends[1 - side].inbox.push_back(bytes);
            }
            Output::Work(channel, work) => line.ends[side].works.push((channel, work)),
            Output::Greeted { .. } if side == 0 => {
                let (direction, ticket) = &line.opening;
                let credentials = Credentials { ticket: ticket.as_ref(), ..Credentials::default() };
                line.ends[0].session.open(database, *direction, credentials);
            }
            Output::Event(_, Event::Sent { entries, .. }) => {
                line.ends[side].entries_sent += entries;
            }
            Output::Event(_, Event::Applied { entries, .. }) => {
                line.ends[side].entries_new += entries;
                let node = line.ends[side].node;
                if entries > 0 {
                    self.changed(node);
                }
            }
            Output::Event(_, Event::Closed { code, text, by_peer: false })
            | Output::Closed { code, text, by_peer: false } => line.closed.push((code, text)),
            Output::Event(..) | Output::Greeted { .. } | Output::Closed { .. } => {}
        }
    }
}
