//! Three nodes that write, fork, and meet over links that break, with everything in any order: no link ends for a
//! reason, none stays undecided, and in the end all hold the same.

use crate::cases;
use crate::harness::{Node, TableBlobs, draft, join, sync};
use crate::net::Net;
use anabranch_core::blob::ChunkHash;
use anabranch_core::key::DeviceKey;
use anabranch_core::ops::{Role, TicketTerms};
use anabranch_sync::channel::{Channel, Direction};
use anabranch_sync::frame::Code;
use anabranch_sync::work::Blobs;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    /// A node writes values of this size, one entry each, and signs them or not yet.
    Write {
        node: usize,
        count: usize,
        size: usize,
        sign: bool,
    },
    /// The newcomer redeems its ticket, if it can already.
    Redeem,
    /// One end of a link asks for blobs that one node or none has.
    Want {
        line: usize,
        side: usize,
        from: usize,
        count: usize,
    },
    Link {
        a: usize,
        b: usize,
    },
    Cut(usize),
    Go(Vec<u16>),
}

fn arb_step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![6 => 0usize..50, 1 => 50_000usize..180_000];
    prop_oneof![
        4 => (0usize..5, 1usize..6, size, prop::bool::weighted(0.8))
            .prop_map(|(node, count, size, sign)| Step::Write { node, count, size, sign }),
        1 => Just(Step::Redeem),
        1 => (0usize..6, 0usize..2, 0usize..BLOBS, 1usize..9)
            .prop_map(|(line, side, from, count)| Step::Want { line, side, from, count }),
        3 => (0usize..5, 0usize..5).prop_map(|(a, b)| Step::Link { a, b }),
        1 => (0usize..8).prop_map(Step::Cut),
        4 => prop::collection::vec(any::<u16>(), 1..60).prop_map(Step::Go),
    ]
}

const BLOBS: usize = 12;

fn blob(n: usize) -> Vec<u8> {
    vec![n as u8; 10 + n * 30_000]
}

struct World {
    net: Net,
    ticket: DeviceKey,
}

impl World {
    /// Three devices that know each other, a clone of the last one that nobody noticed, and a newcomer with a ticket. The
    /// first two have some blobs.
    fn new() -> Self {
        let mut a = Node::new(1);
        let database = a.create();
        let b = join(&mut a, 2, database, Role::Write);
        let mut c = join(&mut a, 3, database, Role::Write);
        c.put("common", "x");
        let ticket = a.ticket(Role::Write, TicketTerms::default());
        assert!(sync(&b, &a, database).settled && sync(&c, &a, database).settled);
        let mut clone = c.copy();
        clone.epoch = 1 << 40;
        let newcomer = Node::new(5);
        newcomer.prepare(database);
        for (n, node) in (0..BLOBS / 2).zip([&a, &b].into_iter().cycle()) {
            let bytes = blob(n);
            TableBlobs(&*node.storage).put(&[(ChunkHash::of(&bytes), bytes)]).unwrap();
        }
        Self { net: Net::new(database, vec![a, b, c, clone, newcomer]), ticket }
    }

    fn link(&mut self, a: usize, b: usize) {
        // Whoever shows a ticket opens.
        let (a, b) = if b == NEWCOMER { (b, a) } else { (a, b) };
        let ticket = (a == NEWCOMER).then(|| self.ticket.clone());
        self.net.link_with(a, b, Direction::BOTH, ticket);
    }

    fn may_write(&self, node: usize) -> bool {
        let device = self.net.nodes[node].key.node_id();
        self.net.nodes[node].view(|v| v.role_of(&device).unwrap()) >= Some(Role::Write)
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Write { node, count, size, sign } if self.may_write(*node) => {
                for n in 0..*count {
                    let value = "v".repeat(*size);
                    self.net.nodes[*node].unsigned(&draft(&[(&format!("{}", n % 3), &value)]));
                }
                if *sign {
                    self.net.nodes[*node].with(|_, _| ());
                }
                self.net.changed(*node);
            }
            Step::Write { .. } => {}
            Step::Redeem => {
                let ticket = self.ticket.clone();
                let newcomer = &mut self.net.nodes[NEWCOMER];
                if newcomer.with(|ledger, author| ledger.redeem(author, &ticket)).is_ok() {
                    self.net.changed(NEWCOMER);
                }
            }
            Step::Want { line, side, from, count } if *line < self.net.lines.len() => {
                let hashes = (*from..BLOBS.min(from + count)).map(|n| ChunkHash::of(&blob(n)));
                self.net.want(*line, *side, &hashes.collect::<Vec<_>>());
            }
            Step::Want { .. } => {}
            Step::Link { a, b } if a != b && self.net.lines.len() < 6 => self.link(*a, *b),
            Step::Link { .. } => {}
            Step::Cut(line) if *line < self.net.lines.len() => self.net.cut(*line),
            Step::Cut(_) => {}
            Step::Go(picks) => self.net.play(picks),
        }
    }
}

const NEWCOMER: usize = 4;

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn whatever_the_order_all_nodes_become_equal(
        steps in prop::collection::vec(arb_step(), 1..24),
        last in prop::collection::vec(any::<u16>(), 0..200),
    ) {
        let mut world = World::new();
        steps.iter().for_each(|step| world.take(step));
        // Everybody signs, and enough links for all to reach all. Those who did not know each other yet part, so they try
        // again once the word is out.
        for node in 0..world.net.nodes.len() {
            world.net.nodes[node].with(|_, _| ());
            world.net.changed(node);
        }
        world.net.play(&last);
        world.net.settle();
        world.net.lines.retain(|line| line.closed.iter().all(|(code, _)| *code != Code::Strangers));
        for (a, b) in [(0, 1), (2, 0), (3, 2), (NEWCOMER, 0)] {
            world.link(a, b);
        }
        world.net.settle();
        let net = world.net;
        for line in &net.lines {
            prop_assert!(line.closed.is_empty(), "{:?}", line.closed);
        }
        let frontier = net.nodes[0].frontier();
        for node in &net.nodes {
            prop_assert_eq!(node.frontier(), frontier);
            prop_assert_eq!(node.digest(), net.nodes[0].digest());
        }
        for line in &net.lines {
            let level = line.ends.iter().all(|e| e.channel().is_some_and(Channel::is_settled));
            prop_assert!(level, "{:#?}", line.ends.each_ref().map(|e| (e.channel(), &e.frames)));
        }
    }
}
