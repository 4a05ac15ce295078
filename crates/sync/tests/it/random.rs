//! Three nodes that write, fork, and meet over links that break, with everything in any order: no link ends for a
//! reason, none stays undecided, and in the end all hold the same.

use crate::cases;
use crate::harness::{Node, join, put};
use crate::net::Net;
use anabranch_core::author::Draft;
use anabranch_core::ops::Role;
use anabranch_sync::channel::{Channel, Direction};
use proptest::prelude::*;
use std::sync::Arc;

#[derive(Debug, Clone)]
enum Step {
    /// A node writes values of this size, one entry each.
    Write {
        node: usize,
        count: usize,
        size: usize,
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
        4 => (0usize..4, 1usize..6, size)
            .prop_map(|(node, count, size)| Step::Write { node, count, size }),
        2 => (0usize..4, 0usize..4).prop_map(|(a, b)| Step::Link { a, b }),
        1 => (0usize..8).prop_map(Step::Cut),
        4 => prop::collection::vec(any::<u16>(), 1..60).prop_map(Step::Go),
    ]
}

/// Three devices that know each other, and a clone of the last one that nobody noticed.
fn four() -> Net {
    let mut a = Node::new(1);
    let database = a.create();
    let b = join(&mut a, 2, database, Role::Write);
    let mut c = join(&mut a, 3, database, Role::Write);
    c.put("common", "x");
    let mut clone = Node::new(3);
    clone.storage = Arc::new(c.storage.fork(c.instance));
    (clone.instance, clone.epoch) = (c.instance, 1 << 40);
    Net::new(database, vec![a, b, c, clone])
}

fn write(net: &mut Net, node: usize, count: usize, size: usize) {
    for n in 0..count {
        let value = "v".repeat(size);
        let writes = vec![put(&format!("{}", n % 3), &value)];
        let draft = Draft { writes, members: vec![] };
        net.nodes[node].with(|ledger, author| ledger.commit(author, &draft).unwrap());
    }
    net.changed(node);
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn whatever_the_order_all_nodes_become_equal(
        steps in prop::collection::vec(arb_step(), 1..24),
        last in prop::collection::vec(any::<u16>(), 0..200),
    ) {
        let mut net = four();
        for step in &steps {
            match step {
                Step::Write { node, count, size } => write(&mut net, *node, *count, *size),
                Step::Link { a, b } if a != b && net.lines.len() < 6 => {
                    net.link(*a, *b, Direction::BOTH);
                }
                Step::Link { .. } => {}
                Step::Cut(line) if *line < net.lines.len() => net.cut(*line),
                Step::Cut(_) => {}
                Step::Go(picks) => net.play(picks),
            }
        }
        for (a, b) in [(0, 1), (2, 1), (3, 2)] {
            net.link(a, b, Direction::BOTH);
        }
        net.play(&last);
        net.settle();
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
