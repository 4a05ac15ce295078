//! Building the tree while content streams by: chunks come out as they are cut, manifest nodes as they fill. Memory is
//! the chunker's buffer and one open node a level (I7).

use super::node::ends;
use super::reference::padded;
use super::{ChunkHash, ChunkSpan, Chunker, ContentRef, Node, NodeItem};
use crate::seal::{Key, Sealer};
use std::borrow::Cow;

/// Something a [`Builder`] made that the caller may want to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// The next chunk of the content.
    Chunk {
        /// Its name and place.
        span: ChunkSpan,
        /// Its bytes, as they are kept: in a sealed database they are encrypted.
        bytes: &'a [u8],
    },
    /// A manifest node; everything below it was handed over before.
    Node {
        /// Its name.
        hash: ChunkHash,
        /// Its bytes.
        bytes: &'a [u8],
    },
}

/// Makes the [`ContentRef`] of a stream of bytes, with all chunks and manifest nodes on the way.
#[derive(Debug, Default)]
pub struct Builder {
    chunker: Chunker,
    tree: TreeBuilder,
    /// `None`: what it makes is as it came.
    sealer: Option<Sealer>,
}

impl Builder {
    /// A builder at the start of some content.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A builder at the start of some content of a sealed database: it is cut where only `key` tells, padded, and encrypted. The
    /// same content has one reference for each key.
    #[must_use]
    pub fn sealed(key: &Key) -> Self {
        let sealer = Sealer::new(key);
        let chunker = Chunker::keyed(sealer.gear());
        Self { chunker, tree: TreeBuilder::default(), sealer: Some(sealer) }
    }

    /// Takes the next bytes and hands `sink` the pieces that are complete with them.
    ///
    /// # Errors
    /// What `sink` returned; the builder is then of no further use.
    pub fn push<E>(
        &mut self,
        data: &[u8],
        mut sink: impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let Self { chunker, tree, sealer } = self;
        chunker.push(data, |chunk| tree.chunk(chunk, sealer, &mut sink))
    }

    /// Ends the content: hands `sink` the pieces that are left and names the whole.
    ///
    /// # Errors
    /// What `sink` returned.
    pub fn finish<E>(
        self,
        mut sink: impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<ContentRef, E> {
        let Self { mut chunker, mut tree, mut sealer } = self;
        let size = tree.size + chunker.waiting() as u64;
        if let Some(mut padding) = sealer.as_ref().map(|sealer| sealer.padding(size)) {
            let (mut buffer, mut left) = ([0; 4096], padded(size) - size);
            while left > 0 {
                let part = &mut buffer[..left.min(4096) as usize];
                padding.fill(part);
                left -= part.len() as u64;
                chunker.push(part, |chunk| tree.chunk(chunk, &mut sealer, &mut sink))?;
            }
        }
        chunker.finish(|chunk| tree.chunk(chunk, &mut sealer, &mut sink))?;
        Ok(tree.finish(&mut sink)?.of_size(size))
    }
}

/// The open nodes: `levels[n]` collects items of level `n` for a node of level `n + 1`.
#[derive(Debug, Default)]
pub(super) struct TreeBuilder {
    pub(super) size: u64,
    levels: Vec<Level>,
}

#[derive(Debug, Default)]
struct Level {
    open: Vec<NodeItem>,
    closed: bool,
}

type Sink<'a, E> = dyn FnMut(Piece<'_>) -> Result<(), E> + 'a;

impl TreeBuilder {
    fn chunk<E>(
        &mut self,
        plain: &[u8],
        sealer: &mut Option<Sealer>,
        sink: &mut Sink<'_, E>,
    ) -> Result<(), E> {
        let bytes = match sealer {
            Some(sealer) => Cow::Owned(sealer.seal(plain)),
            None => Cow::Borrowed(plain),
        };
        let bytes = &*bytes;
        let (hash, len) = (ChunkHash::of(bytes), plain.len() as u64);
        sink(Piece::Chunk { span: ChunkSpan { hash, offset: self.size, len }, bytes })?;
        self.size += len;
        self.add(0, NodeItem { hash, len }, sink)
    }

    /// Adds an item of `level`, and so on upwards while that fills a node.
    pub(super) fn add<E>(
        &mut self,
        mut level: usize,
        mut item: NodeItem,
        sink: &mut Sink<'_, E>,
    ) -> Result<(), E> {
        loop {
            if self.levels.len() == level {
                self.levels.push(Level::default());
            }
            let open = &mut self.levels[level].open;
            open.push(item);
            if !ends(open) {
                return Ok(());
            }
            item = self.close(level, sink)?;
            level += 1;
        }
    }

    /// Makes a node of the items collected at `level`; returns it as an item of the level above.
    fn close<E>(&mut self, level: usize, sink: &mut Sink<'_, E>) -> Result<NodeItem, E> {
        let Level { open, closed } = &mut self.levels[level];
        *closed = true;
        let node = Node { level: level as u8 + 1, items: std::mem::take(open) };
        let bytes = node.encode();
        let hash = ChunkHash::of(&bytes);
        sink(Piece::Node { hash, bytes: &bytes })?;
        Ok(NodeItem { hash, len: node.items.iter().map(|item| item.len).sum() })
    }

    pub(super) fn finish<E>(mut self, sink: &mut Sink<'_, E>) -> Result<ContentRef, E> {
        let mut depth = 0;
        while let Some(level) = self.levels.get(depth) {
            if let ([only], false) = (&level.open[..], level.closed) {
                return Ok(ContentRef::built(self.size, depth as u8, only.hash));
            }
            if !level.open.is_empty() {
                let item = self.close(depth, sink)?;
                self.add(depth + 1, item, sink)?;
            }
            depth += 1;
        }
        Ok(ContentRef::empty())
    }
}
