//! The bytes of one manifest node, and the strict reader that admits only the one node that may stand at a place of a
//! tree (I4): right name, right level, right lengths, and boundaries where the rule puts them.

use super::walk::NodeSpan;
use super::{ChunkHash, MAX_CHUNK, MIN_CHUNK, WrongHash};

/// The version of the node format.
pub const NODE_VERSION: u8 = 1;
/// No node has fewer items, except the last of its level.
pub const MIN_FANOUT: usize = 16;
/// No node has more items.
pub const MAX_FANOUT: usize = 1024;
/// Bytes of the longest node: header, and items with a name and a length below 2⁶³.
pub const MAX_NODE: usize = HEADER + MAX_FANOUT * (32 + 9);

const HEADER: usize = 2;
/// A name with these bits zero ends its node, on average every 128 items.
const BOUNDARY_BITS: u8 = 0x7f;

/// One item of a manifest node: a chunk (in a node of level 1) or a node of the level below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeItem {
    /// Its name.
    pub hash: ChunkHash,
    /// Bytes of content below it.
    pub len: u64,
}

impl NodeItem {
    fn is_boundary(&self) -> bool {
        self.hash.0[31] & BOUNDARY_BITS == 0
    }
}

/// A manifest node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// 1 when the items are chunks, otherwise one more than the level of the items.
    pub level: u8,
    /// The items, in the order of the content.
    pub items: Vec<NodeItem>,
}

/// Why bytes are not the manifest node that belongs at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// Not the bytes that were asked for.
    #[error(transparent)]
    WrongHash(#[from] WrongHash),
    /// Longer than any node can be.
    #[error("a manifest node of {0} bytes; the limit is {MAX_NODE}")]
    TooLong(usize),
    /// Written by a later version.
    #[error("manifest node version {0}; this program reads {NODE_VERSION}; update anabranch")]
    Version(u8),
    /// A node of another level.
    #[error("a manifest node of level {found} where {expected} belongs")]
    Level {
        /// The level its place asks for.
        expected: u8,
        /// The level it states.
        found: u8,
    },
    /// Cut off, or an item with a malformed length.
    #[error("a malformed manifest node")]
    Malformed,
    /// Too few or too many items, or a boundary where none may be, or none where one must be.
    #[error("a manifest node that ends where no node may end")]
    Boundary,
    /// A chunk shorter or longer than a chunk can be.
    #[error("a manifest that names a chunk of {0} bytes")]
    ChunkLength(u64),
    /// Lengths that do not add up to the length stated above.
    #[error("a manifest node whose items do not add up to {0} bytes")]
    Sum(u64),
}

/// Whether a node that has the items `items` so far ends here.
pub(super) fn ends(items: &[NodeItem]) -> bool {
    let due = items.last().is_some_and(NodeItem::is_boundary) && items.len() >= MIN_FANOUT;
    due || items.len() >= MAX_FANOUT
}

impl Node {
    /// The node's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + self.items.len() * (32 + 4));
        bytes.extend([NODE_VERSION, self.level]);
        for item in &self.items {
            bytes.extend(item.hash.0);
            put_varint(&mut bytes, item.len);
        }
        bytes
    }

    /// Reads the node that belongs at `place`.
    ///
    /// # Errors
    /// [`NodeError`] for any bytes but those that a [`super::Builder`] could have made for that place.
    pub fn decode(bytes: &[u8], place: &NodeSpan) -> Result<Self, NodeError> {
        if bytes.len() > MAX_NODE {
            return Err(NodeError::TooLong(bytes.len()));
        }
        place.hash.verify(bytes)?;
        let node = Self::parse(bytes)?;
        if node.level != place.level || node.level == 0 {
            return Err(NodeError::Level { expected: place.level, found: node.level });
        }
        node.check_boundaries(place)?;
        node.check_lengths(place)?;
        Ok(node)
    }

    fn parse(bytes: &[u8]) -> Result<Self, NodeError> {
        let (&[version, level], mut rest) =
            bytes.split_first_chunk().ok_or(NodeError::Malformed)?;
        if version != NODE_VERSION {
            return Err(NodeError::Version(version));
        }
        let mut items = Vec::with_capacity(rest.len() / (32 + 1));
        while let Some((hash, tail)) = rest.split_first_chunk() {
            rest = tail;
            let len = take_varint(&mut rest).ok_or(NodeError::Malformed)?;
            items.push(NodeItem { hash: ChunkHash(*hash), len });
        }
        if rest.is_empty() { Ok(Self { level, items }) } else { Err(NodeError::Malformed) }
    }

    fn check_boundaries(&self, place: &NodeSpan) -> Result<(), NodeError> {
        let count = self.items.len();
        let enough = count >= if place.is_root { 2 } else { 1 };
        let early = (MIN_FANOUT..count).any(|end| ends(&self.items[..end]));
        let complete = place.is_last || ends(&self.items);
        if enough && count <= MAX_FANOUT && !early && complete {
            Ok(())
        } else {
            Err(NodeError::Boundary)
        }
    }

    fn check_lengths(&self, place: &NodeSpan) -> Result<(), NodeError> {
        let mut sum = 0u64;
        for (i, item) in self.items.iter().enumerate() {
            let is_last = place.is_last && i + 1 == self.items.len();
            let min = if self.level > 1 || is_last { 1 } else { MIN_CHUNK as u64 };
            let max = if self.level > 1 { u64::MAX } else { MAX_CHUNK as u64 };
            if !(min..=max).contains(&item.len) {
                return Err(NodeError::ChunkLength(item.len));
            }
            sum = sum.checked_add(item.len).ok_or(NodeError::Sum(place.len))?;
        }
        if sum == place.len { Ok(()) } else { Err(NodeError::Sum(place.len)) }
    }
}

fn put_varint(bytes: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        bytes.push(n as u8 | 0x80);
        n >>= 7;
    }
    bytes.push(n as u8);
}

/// Reads a length below 2⁶³ in its shortest spelling.
fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut n = 0;
    for shift in (0..63).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        n |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return (byte != 0 || shift == 0).then_some(n);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn item(n: u32, len: u64) -> NodeItem {
        let mut hash = [1; 32];
        hash[..4].copy_from_slice(&n.to_be_bytes());
        NodeItem { hash: ChunkHash(hash), len }
    }

    fn boundary(n: u32, len: u64) -> NodeItem {
        let mut item = item(n, len);
        item.hash.0[31] = 0x80;
        item
    }

    fn items(n: u32) -> Vec<NodeItem> {
        (0..n).map(|i| item(i, MIN_CHUNK as u64)).collect()
    }

    /// Encodes the node and reads it at a place whose name and length fit.
    fn reread(
        level: u8,
        items: Vec<NodeItem>,
        is_root: bool,
        is_last: bool,
    ) -> Result<Node, NodeError> {
        let bytes = Node { level, items: items.clone() }.encode();
        let len = items.iter().fold(0, |sum: u64, item| sum.wrapping_add(item.len));
        let place =
            NodeSpan { hash: ChunkHash::of(&bytes), level, offset: 0, len, is_last, is_root };
        Node::decode(&bytes, &place)
    }

    #[test]
    fn a_node_is_read_as_it_was_written() {
        let node = reread(1, items(3), true, true).unwrap();
        assert_eq!(node, Node { level: 1, items: items(3) });
    }

    #[test]
    fn golden_bytes() {
        let node = Node { level: 2, items: vec![item(1, 300), item(2, 127)] };
        let mut expected = vec![1, 2, 0, 0, 0, 1];
        expected.extend([1; 28]);
        expected.extend([0xac, 2, 0, 0, 0, 2]);
        expected.extend([1; 28]);
        expected.push(127);
        assert_eq!(node.encode(), expected);
    }

    #[test]
    fn a_root_has_two_items_and_a_node_one() {
        assert_eq!(reread(1, items(1), true, true), Err(NodeError::Boundary));
        assert!(reread(1, items(1), false, true).is_ok());
        assert_eq!(reread(1, vec![], false, true), Err(NodeError::Boundary));
    }

    #[test]
    fn only_the_last_node_may_end_without_a_boundary() {
        assert_eq!(reread(1, items(20), false, false), Err(NodeError::Boundary));
        let mut whole = items(20);
        whole.push(boundary(99, MIN_CHUNK as u64));
        assert!(reread(1, whole.clone(), false, false).is_ok());
        whole.push(item(100, MIN_CHUNK as u64));
        assert_eq!(reread(1, whole, false, true), Err(NodeError::Boundary), "ended too late");
        assert!(reread(1, items(MAX_FANOUT as u32), false, false).is_ok());
        assert_eq!(reread(1, items(MAX_FANOUT as u32 + 1), false, true), Err(NodeError::Boundary));
    }

    #[test]
    fn a_boundary_among_the_first_items_does_not_count() {
        let mut early = vec![boundary(7, MIN_CHUNK as u64)];
        early.extend(items(3));
        assert!(reread(1, early, true, true).is_ok());
    }

    #[test]
    fn impossible_lengths_are_refused() {
        let with = |len| vec![item(1, len), item(2, MIN_CHUNK as u64)];
        assert_eq!(reread(1, with(0), true, true), Err(NodeError::ChunkLength(0)));
        let long = MAX_CHUNK as u64 + 1;
        assert_eq!(reread(1, with(long), true, true), Err(NodeError::ChunkLength(long)));
        assert_eq!(reread(1, with(5), true, true), Err(NodeError::ChunkLength(5)));
        assert!(reread(1, vec![item(1, MIN_CHUNK as u64), item(2, 5)], true, true).is_ok());
        let max = i64::MAX as u64;
        assert!(matches!(
            reread(2, vec![item(1, max), item(2, max), item(3, max)], true, true),
            Err(NodeError::Sum(_))
        ));
    }

    #[test]
    fn level_version_and_sum_must_be_those_of_the_place() {
        let bytes = Node { level: 1, items: items(2) }.encode();
        let place = NodeSpan {
            hash: ChunkHash::of(&bytes),
            level: 1,
            offset: 0,
            len: 2 * MIN_CHUNK as u64,
            is_last: true,
            is_root: true,
        };
        assert!(Node::decode(&bytes, &place).is_ok());
        let other = NodeSpan { level: 2, ..place };
        assert!(matches!(Node::decode(&bytes, &other), Err(NodeError::Level { .. })));
        let other = NodeSpan { len: 1, ..place };
        assert_eq!(Node::decode(&bytes, &other), Err(NodeError::Sum(1)));
        assert!(matches!(Node::decode(&bytes[1..], &place), Err(NodeError::WrongHash(_))));
        let refused = |bytes: &[u8]| {
            Node::decode(bytes, &NodeSpan { hash: ChunkHash::of(bytes), ..place }).unwrap_err()
        };
        assert_eq!(refused(&[2, 1]), NodeError::Version(2));
        assert_eq!(refused(&[1]), NodeError::Malformed);
        assert_eq!(refused(&vec![1; MAX_NODE + 1]), NodeError::TooLong(MAX_NODE + 1));
    }

    #[test]
    fn a_length_has_one_spelling() {
        for (bytes, n) in
            [(&[0][..], Some(0)), (&[0x80, 0], None), (&[0x80, 1], Some(128)), (&[0x80], None)]
        {
            assert_eq!(take_varint(&mut &*bytes), n, "{bytes:?}");
        }
        assert_eq!(take_varint(&mut &[0xff; 10][..]), None);
    }

    proptest! {
        #[test]
        fn lengths_round_trip(n in 0..=i64::MAX as u64) {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, n);
            prop_assert!(bytes.len() <= 9);
            prop_assert_eq!(take_varint(&mut &bytes[..]), Some(n));
        }

        /// Whatever is admitted is exactly what would have been written, also when nearly right bytes are presented under
        /// their own name.
        #[test]
        fn nearly_right_bytes_are_refused_or_canonical(
            count in 0..40u32, at in 0..1500usize, byte: u8, tail in proptest::collection::vec(any::<u8>(), 0..3),
            is_last: bool, is_root: bool,
        ) {
            let mut bytes = Node { level: 1, items: items(count) }.encode();
            if let Some(changed) = bytes.get_mut(at) {
                *changed = byte;
            }
            bytes.extend(tail);
            let (hash, len) = (ChunkHash::of(&bytes), u64::from(count) * MIN_CHUNK as u64);
            let place = NodeSpan { hash, level: 1, offset: 0, len, is_last, is_root };
            if let Ok(node) = Node::decode(&bytes, &place) {
                prop_assert_eq!(node.encode(), bytes);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, level: u8, len: u64) {
            let hash = ChunkHash::of(&bytes);
            let place = NodeSpan { hash, level, offset: 0, len, is_last: true, is_root: true };
            let _ = Node::decode(&bytes, &place);
            if let Ok(node) = Node::parse(&bytes) {
                prop_assert_eq!(node.encode(), bytes);
            }
        }
    }
}
