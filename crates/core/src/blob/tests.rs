//! The tree as a whole: what the builder makes, the walker finds; what differs little, shares most of its nodes.

use super::build::TreeBuilder;
use super::chunker::tests::noise;
use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

/// Blobs by name.
#[derive(Default)]
struct Blobs(BTreeMap<ChunkHash, Vec<u8>>);

impl Blobs {
    fn lookup(&self) -> impl FnMut(&NodeSpan) -> Result<Option<Vec<u8>>, Infallible> + '_ {
        |place| Ok(self.0.get(&place.hash).cloned())
    }

    fn keep(&mut self, piece: Piece<'_>) -> Result<(), Infallible> {
        let (hash, bytes) = match piece {
            Piece::Chunk { span, bytes } => (span.hash, bytes),
            Piece::Node { hash, bytes } => (hash, bytes),
        };
        self.0.insert(hash, bytes.to_vec());
        Ok(())
    }

    fn names(&self) -> BTreeSet<ChunkHash> {
        self.0.keys().copied().collect()
    }
}

fn store(content: &[u8]) -> (ContentRef, Blobs) {
    let mut blobs = Blobs::default();
    let mut builder = Builder::new();
    for part in content.chunks(100_000) {
        builder.push(part, |piece| blobs.keep(piece)).unwrap();
    }
    let content = builder.finish(|piece| blobs.keep(piece)).unwrap();
    (content, blobs)
}

/// The tree over chunks that are only names and lengths.
fn tree(items: &[NodeItem]) -> (ContentRef, Blobs) {
    let mut nodes = Blobs::default();
    let mut tree = TreeBuilder::default();
    for item in items {
        tree.size += item.len;
        tree.add(0, *item, &mut |piece| nodes.keep(piece)).unwrap();
    }
    let content = tree.finish(&mut |piece| nodes.keep(piece)).unwrap();
    (content, nodes)
}

fn fake(seed: u64, count: usize) -> Vec<NodeItem> {
    let name = |i: usize| ChunkHash::of(format!("{seed}/{i}").as_bytes());
    (0..count).map(|i| NodeItem { hash: name(i), len: (MIN_CHUNK + i % 1000) as u64 }).collect()
}

fn chunks_of(content: &ContentRef, blobs: &Blobs) -> Vec<ChunkSpan> {
    Walker::new(content, blobs.lookup())
        .map(|step| match step.unwrap() {
            Step::Chunk(span) => span,
            Step::Missing(node) => panic!("{node:?} is missing"),
        })
        .collect()
}

#[test]
fn golden_references() {
    let of = |content: &[u8]| {
        let content = store(content).0;
        (content.size(), content.depth(), format!("{:?}", content.root()))
    };
    assert_eq!(of(b""), (0, 0, "af1349b9…".into()));
    assert_eq!(of(b"abc"), (3, 0, "6437b3ac…".into()));
    assert_eq!(of(&noise("golden reference", 3 << 20)), (3 << 20, 1, "061b971e…".into()));
    let large = tree(&fake(1, 100_000)).0;
    assert_eq!((large.depth(), format!("{:?}", large.root())), (3, "eeed4481…".into()));
}

#[test]
fn content_comes_back_in_order() {
    let bytes = noise("round trip", 3 << 20);
    let (content, blobs) = store(&bytes);
    let mut again = Vec::new();
    for span in chunks_of(&content, &blobs) {
        assert_eq!(span.offset, again.len() as u64);
        again.extend_from_slice(&blobs.0[&span.hash]);
        assert_eq!(span.offset + span.len, again.len() as u64);
    }
    assert_eq!(again, bytes);
    assert!(chunks_of(&ContentRef::empty(), &Blobs::default()).is_empty());
}

#[test]
fn missing_nodes_are_named_level_by_level() {
    let items = fake(2, 50_000);
    let (content, all) = tree(&items);
    assert!(content.depth() >= 2);
    let mut held = Blobs::default();
    let mut rounds = 0;
    loop {
        let missing: Vec<NodeSpan> = Walker::new(&content, held.lookup())
            .filter_map(|step| match step.unwrap() {
                Step::Missing(node) => Some(node),
                Step::Chunk(_) => None,
            })
            .collect();
        if missing.is_empty() {
            break;
        }
        let levels: BTreeSet<u8> = missing.iter().map(|node| node.level).collect();
        assert_eq!(levels, BTreeSet::from([content.depth() - rounds]));
        for node in missing {
            held.0.insert(node.hash, all.0[&node.hash].clone());
        }
        rounds += 1;
    }
    assert_eq!(rounds, content.depth());
    assert_eq!(chunks_of(&content, &held).len(), items.len());
}

#[test]
fn the_walk_goes_on_below_a_node_that_arrived_and_around_one_that_did_not() {
    let items = fake(3, 20_000);
    let (content, mut nodes) = tree(&items);
    let Some(Ok(Step::Missing(root))) = Walker::new(&content, |_| Ok::<_, Infallible>(None)).next()
    else {
        panic!("the root was not asked for");
    };
    let below = Node::decode(&nodes.0[&root.hash], &root).unwrap().items[1];
    let taken = nodes.0.remove(&below.hash).unwrap();
    let mut found = 0;
    let mut hole = None;
    for step in Walker::new(&content, nodes.lookup()) {
        match step.unwrap() {
            Step::Chunk(_) => found += 1,
            Step::Missing(node) => hole = Some(node),
        }
    }
    let hole = hole.unwrap();
    nodes.0.insert(below.hash, taken);
    let rest = Walker::below(hole, nodes.lookup()).count();
    assert_eq!(found + rest, items.len());
}

#[test]
fn a_forged_node_blocks_only_what_is_below_it() {
    let items = fake(4, 20_000);
    let (content, mut nodes) = tree(&items);
    let root = Node { level: content.depth(), items: vec![] };
    let _ = root;
    let victim = *nodes.0.keys().find(|name| **name != content.root()).unwrap();
    nodes.0.get_mut(&victim).unwrap()[40] ^= 1;
    let steps: Vec<_> = Walker::new(&content, nodes.lookup()).collect();
    let errors = steps.iter().filter(|step| step.is_err()).count();
    assert_eq!(errors, 1);
    assert!(steps.len() > items.len() / 2);
    assert!(matches!(
        steps.iter().find(|step| step.is_err()),
        Some(Err(WalkError::Node { source: NodeError::WrongHash(_), .. }))
    ));
}

#[test]
fn a_failing_look_up_is_reported() {
    let (content, _) = tree(&fake(5, 100));
    let mut walk = Walker::new(&content, |_| Err("disk"));
    assert!(matches!(walk.next(), Some(Err(WalkError::Lookup("disk")))));
    assert!(walk.next().is_none());
}

#[test]
fn an_edit_in_the_middle_of_huge_content_changes_a_few_nodes() {
    let mut items = fake(6, 300_000);
    let (before, old) = tree(&items);
    let inserted = fake(7, 3);
    items.splice(150_000..150_001, inserted);
    let (after, new) = tree(&items);
    assert_ne!(before, after);
    let fresh = new.names().difference(&old.names()).count();
    assert!(
        fresh <= 4 * usize::from(after.depth()),
        "{fresh} new nodes at depth {}",
        after.depth()
    );
    items.extend(fake(8, 2));
    let (_, appended) = tree(&items);
    let fresh = appended.names().difference(&new.names()).count();
    assert!(fresh <= 2 * usize::from(after.depth()), "{fresh} new nodes for an append");
}

/// Names that all end a node make the deepest tree; it stays within the bound.
#[test]
fn an_adversarial_tree_stays_within_the_greatest_depth() {
    let mut items = fake(9, 70_000);
    for item in &mut items {
        item.hash.0[31] = 0;
    }
    let (content, nodes) = tree(&items);
    assert_eq!(ContentRef::new(content.size(), content.depth(), content.root()), Ok(content));
    assert_eq!(chunks_of(&content, &nodes).len(), items.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_tree_is_read_back(seed: u64, count in 1..3000usize, flat: bool) {
        let mut items = fake(seed, count);
        if flat {
            items.iter_mut().for_each(|item| item.hash.0[31] |= 1);
        }
        let (content, nodes) = tree(&items);
        let found: Vec<NodeItem> = chunks_of(&content, &nodes)
            .iter()
            .map(|span| NodeItem { hash: span.hash, len: span.len })
            .collect();
        prop_assert_eq!(found, items);
        prop_assert_eq!(ContentRef::new(content.size(), content.depth(), content.root()), Ok(content));
        prop_assert!(nodes.0.values().all(|node| node.len() <= MAX_NODE));
    }
}

/// What a walk within a range yields, and which nodes it looks up.
fn within(
    content: &ContentRef,
    blobs: &Blobs,
    range: std::ops::Range<u64>,
) -> (Vec<ChunkSpan>, Vec<ChunkHash>) {
    let mut looked = Vec::new();
    let chunks = Walker::within(content, range, |place| {
        looked.push(place.hash);
        Ok::<_, Infallible>(blobs.0.get(&place.hash).cloned())
    });
    let chunks = chunks.map(|step| match step.unwrap() {
        Step::Chunk(span) => span,
        Step::Missing(node) => panic!("{node:?} is missing"),
    });
    (chunks.collect(), looked)
}

fn touches(range: &std::ops::Range<u64>, offset: u64, len: u64) -> bool {
    range.start < range.end && offset < range.end && offset + len > range.start
}

proptest! {
    /// A range yields the chunks it touches, in order, and no other node is looked at than those above them.
    #[test]
    fn a_range_touches_only_what_it_covers(
        seed: u64, count in 1..3000usize, from in 0..60_000_000u64, len in 0..3_000_000u64, whole: bool,
    ) {
        let (content, nodes) = tree(&fake(seed, count));
        let all = chunks_of(&content, &nodes);
        let range = if whole { from..u64::MAX } else { from..from + len };
        let (found, looked) = within(&content, &nodes, range.clone());
        let expected: Vec<ChunkSpan> =
            all.iter().filter(|c| touches(&range, c.offset, c.len)).copied().collect();
        prop_assert_eq!(&found, &expected);
        let (mut needed, mut open) = (BTreeSet::new(), vec![(content.root(), content.depth(), 0, content.size())]);
        while let Some((hash, level, offset, len)) = open.pop() {
            if level == 0 || !touches(&range, offset, len) {
                continue;
            }
            needed.insert(hash);
            let place = NodeSpan { hash, level, offset, len, is_last: true, is_root: false };
            let node = Node::decode(&nodes.0[&hash], &place);
            // Whether it is the last of its level does not matter to what it names.
            let node = node.or_else(|_| Node::decode(&nodes.0[&hash], &NodeSpan { is_last: false, ..place })).unwrap();
            let mut at = offset;
            for item in node.items {
                open.push((item.hash, level - 1, at, item.len));
                at += item.len;
            }
        }
        prop_assert_eq!(looked.len(), needed.len());
        prop_assert_eq!(looked.into_iter().collect::<BTreeSet<_>>(), needed);
    }
}
