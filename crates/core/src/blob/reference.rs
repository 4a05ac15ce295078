//! [`ContentRef`]: what a cell carries in place of content.

use super::{ChunkHash, MAX_CHUNK, MAX_FANOUT, MIN_CHUNK, MIN_FANOUT};
use crate::seal;

/// Bytes of the largest content: file offsets are signed everywhere.
pub const MAX_CONTENT: u64 = i64::MAX as u64;
/// The greatest depth: content of [`MAX_CONTENT`] bytes in chunks of [`MIN_CHUNK`], in nodes of [`MIN_FANOUT`] items.
pub const MAX_DEPTH: u8 = 13;

/// Names content of any size: its length, and the root of the tree of its chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentRef {
    size: u64,
    depth: u8,
    root: ChunkHash,
}

/// Three values that no content has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no content has {size} bytes at depth {depth} under blob {root:?}")]
pub struct InvalidContentRef {
    /// The size stated.
    pub size: u64,
    /// The depth stated.
    pub depth: u8,
    /// The root stated.
    pub root: ChunkHash,
}

impl ContentRef {
    /// Content of no bytes.
    #[must_use]
    pub fn empty() -> Self {
        Self { size: 0, depth: 0, root: ChunkHash::of(&[]) }
    }

    /// The reference with these parts, if they can belong together: the depth may be that of the content with padding.
    ///
    /// # Errors
    /// [`InvalidContentRef`] when no content of `size` bytes has a tree of that depth, or when empty content is not
    /// [`Self::empty`].
    pub fn new(size: u64, depth: u8, root: ChunkHash) -> Result<Self, InvalidContentRef> {
        let possible = match size {
            0 => depth == 0 && root == ChunkHash::of(&[]),
            _ => {
                let depths = *depth_range(size).start()..=*depth_range(padded(size)).end();
                size <= MAX_CONTENT && depth <= MAX_DEPTH && depths.contains(&depth)
            }
        };
        if possible {
            Ok(Self { size, depth, root })
        } else {
            Err(InvalidContentRef { size, depth, root })
        }
    }

    /// The content as a sealed database keeps it and names it in the clear: with padding at its end, so that its exact size
    /// does not show. Nothing has no padding.
    #[must_use]
    pub fn padded(&self) -> Self {
        Self { size: padded(self.size), ..*self }
    }

    /// What the builder made; it makes nothing that [`Self::new`] refuses.
    pub(super) fn built(size: u64, depth: u8, root: ChunkHash) -> Self {
        Self { size, depth, root }
    }

    /// The same tree, as that of so many bytes and their padding.
    pub(super) fn of_size(self, size: u64) -> Self {
        Self { size, ..self }
    }

    /// Bytes of the content.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Levels of manifest nodes above the chunks; 0 when [`Self::root`] is the only chunk.
    #[must_use]
    pub fn depth(&self) -> u8 {
        self.depth
    }

    /// The only chunk (depth 0) or the topmost manifest node.
    #[must_use]
    pub fn root(&self) -> ChunkHash {
        self.root
    }
}

/// Bytes of content of `size` bytes with the padding of a sealed database.
pub(super) fn padded(size: u64) -> u64 {
    if size == 0 { 0 } else { seal::padded(size).min(MAX_CONTENT) }
}

/// The depths that content of `size` bytes (not 0) can have, from all nodes full to all nodes as small as may be.
fn depth_range(size: u64) -> std::ops::RangeInclusive<u8> {
    let levels = |mut items: u64, fanout: usize| {
        let mut depth = 0;
        while items > 1 {
            items = items.div_ceil(fanout as u64);
            depth += 1;
        }
        depth
    };
    levels(size.div_ceil(MAX_CHUNK as u64), MAX_FANOUT)
        ..=levels(size.div_ceil(MIN_CHUNK as u64), MIN_FANOUT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_depth_is_that_of_the_largest_content() {
        assert_eq!(*depth_range(MAX_CONTENT).end(), MAX_DEPTH);
    }

    #[test]
    fn empty_content_has_one_reference() {
        let empty = ContentRef::empty();
        assert_eq!(ContentRef::new(0, 0, empty.root()), Ok(empty));
        assert!(ContentRef::new(0, 0, ChunkHash([0; 32])).is_err());
        assert!(ContentRef::new(0, 1, empty.root()).is_err());
    }

    #[test]
    fn impossible_shapes_are_refused() {
        let root = ChunkHash([1; 32]);
        assert!(ContentRef::new(MAX_CHUNK as u64, 0, root).is_ok());
        assert!(ContentRef::new(MAX_CHUNK as u64 + 1, 0, root).is_err(), "more than one chunk");
        assert!(ContentRef::new(MIN_CHUNK as u64, 1, root).is_err(), "a single chunk");
        assert!(ContentRef::new(MIN_CHUNK as u64 + 1, 1, root).is_ok());
        assert!(ContentRef::new(1 << 40, 1, root).is_err(), "too much for one node");
        assert!(ContentRef::new(MAX_CONTENT, MAX_DEPTH, root).is_ok());
        assert!(ContentRef::new(MAX_CONTENT, MAX_DEPTH + 1, root).is_err());
        assert!(ContentRef::new(u64::MAX, MAX_DEPTH, root).is_err());
    }
}
