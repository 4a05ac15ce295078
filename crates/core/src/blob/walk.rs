//! Walking a manifest tree: the chunks of some content in order, and the nodes that are not here yet. Memory is one node
//! a level (I7); every node is checked against its place before anything in it is believed (I4).

use super::{ChunkHash, ContentRef, Node, NodeError};
use std::ops::Range;

/// Where a chunk lies in its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChunkSpan {
    /// Its name.
    pub hash: ChunkHash,
    /// Bytes of content before it.
    pub offset: u64,
    /// Its length in bytes.
    pub len: u64,
}

/// A manifest node and the place it has in a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeSpan {
    /// Its name.
    pub hash: ChunkHash,
    /// Its level; the items of a node of level 1 are chunks.
    pub level: u8,
    /// Bytes of content before it.
    pub offset: u64,
    /// Bytes of content below it.
    pub len: u64,
    /// Whether it is the last of its level.
    pub is_last: bool,
    /// Whether it is the root of its tree.
    pub is_root: bool,
}

impl NodeSpan {
    /// All that decides whether the node belongs there: everything but where its content begins. The name alone does not,
    /// since whoever names a node in the wrong place lies about that place only.
    #[must_use]
    pub fn anywhere(self) -> Self {
        Self { offset: 0, ..self }
    }
}

/// One step of a [`Walker`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The next chunk.
    Chunk(ChunkSpan),
    /// The look-up does not have this node: what lies below it is passed over. When it is here, [`Walker::below`] walks
    /// just that part.
    Missing(NodeSpan),
}

/// Why a part of a tree cannot be walked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WalkError<E> {
    /// A node that does not belong at its place.
    #[error("manifest node {:?} is refused", .place.hash)]
    Node {
        /// The place.
        place: NodeSpan,
        /// What is wrong.
        #[source]
        source: NodeError,
    },
    /// The look-up failed.
    #[error("a manifest node could not be read")]
    Lookup(#[source] E),
}

/// Yields the chunks of some content in order. `lookup` hands over the bytes of the node that belongs at a place, or `None` if
/// they are not here.
///
/// A walk goes as far as the size that the [`ContentRef`] states, which its author chose: whoever stores what it yields
/// compares that size with the room there is first.
#[derive(Debug)]
pub struct Walker<L> {
    lookup: L,
    first: Option<First>,
    stack: Vec<Frame>,
    range: Range<u64>,
}

#[derive(Debug)]
enum First {
    Chunk(ChunkSpan),
    Node(NodeSpan),
}

/// A node being walked: `next` is the index of the item that comes next, `offset` where that item begins.
#[derive(Debug)]
struct Frame {
    node: Node,
    next: usize,
    offset: u64,
    is_last: bool,
}

impl<E, L: FnMut(&NodeSpan) -> Result<Option<Vec<u8>>, E>> Walker<L> {
    /// A walk over all of `content`.
    pub fn new(content: &ContentRef, lookup: L) -> Self {
        Self::within(content, 0..u64::MAX, lookup)
    }

    /// A walk over what of `content` lies in `range` at least in part: nodes and chunks outside are neither looked up nor
    /// yielded.
    pub fn within(content: &ContentRef, range: Range<u64>, lookup: L) -> Self {
        let (hash, offset, len) = (content.root(), 0, content.size());
        let first = match (content.size(), content.depth()) {
            (0, _) => None,
            (size, _) if range.is_empty() || range.start >= size => None,
            (_, 0) => Some(First::Chunk(ChunkSpan { hash, offset, len })),
            (_, level) => {
                let (is_last, is_root) = (true, true);
                Some(First::Node(NodeSpan { hash, level, offset, len, is_last, is_root }))
            }
        };
        Self { lookup, first, stack: Vec::new(), range }
    }

    /// A walk over what lies below `node`, which an earlier walk reported as missing.
    pub fn below(node: NodeSpan, lookup: L) -> Self {
        Self { lookup, first: Some(First::Node(node)), stack: Vec::new(), range: 0..u64::MAX }
    }

    /// Enters a node, or says that it is missing.
    fn enter(&mut self, place: NodeSpan) -> Option<Result<Step, WalkError<E>>> {
        let bytes = match (self.lookup)(&place) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Some(Ok(Step::Missing(place))),
            Err(source) => return Some(Err(WalkError::Lookup(source))),
        };
        match Node::decode(&bytes, &place) {
            Ok(node) => {
                let NodeSpan { offset, is_last, .. } = place;
                self.stack.push(Frame { node, next: 0, offset, is_last });
                None
            }
            Err(source) => Some(Err(WalkError::Node { place, source })),
        }
    }
}

impl Frame {
    /// The next item, as the place it has in the tree.
    fn advance(&mut self) -> Option<NodeSpan> {
        let item = self.node.items.get(self.next)?;
        self.next += 1;
        let place = NodeSpan {
            hash: item.hash,
            level: self.node.level - 1,
            offset: self.offset,
            len: item.len,
            is_last: self.is_last && self.next == self.node.items.len(),
            is_root: false,
        };
        // Saturates only where a caller made up the place: content ends at MAX_CONTENT.
        self.offset = self.offset.saturating_add(item.len);
        Some(place)
    }
}

impl<E, L: FnMut(&NodeSpan) -> Result<Option<Vec<u8>>, E>> Iterator for Walker<L> {
    type Item = Result<Step, WalkError<E>>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.first.take() {
            Some(First::Chunk(chunk)) => return Some(Ok(Step::Chunk(chunk))),
            Some(First::Node(place)) => {
                if let Some(step) = self.enter(place) {
                    return Some(step);
                }
            }
            None => {}
        }
        while let Some(frame) = self.stack.last_mut() {
            match frame.advance() {
                None => drop(self.stack.pop()),
                Some(place) if place.offset.saturating_add(place.len) <= self.range.start => {}
                Some(place) if place.offset >= self.range.end => self.stack.clear(),
                Some(NodeSpan { hash, level: 0, offset, len, .. }) => {
                    return Some(Ok(Step::Chunk(ChunkSpan { hash, offset, len })));
                }
                Some(place) => {
                    if let Some(step) = self.enter(place) {
                        return Some(step);
                    }
                }
            }
        }
        None
    }
}
