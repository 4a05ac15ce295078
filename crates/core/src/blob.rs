//! Content too large for an entry: cut into chunks, named by hash, listed in a tree of manifest nodes.
//!
//! Everything here is a pure function of bytes (I8): the caller reads files, stores blobs and asks peers. The same
//! content has one [`ContentRef`] everywhere and for ever, because the cut points, the node boundaries and the node
//! bytes are part of the format (I2). What comes from elsewhere is checked against its name and against the one form it
//! may have before it is believed (I4).
//!
//! # Format
//!
//! **Chunks.** Content is cut by FastCDC (2020 variant, Gear table and masks of Xia et al.) with the parameters
//! [`MIN_CHUNK`], [`AVERAGE_CHUNK`], [`MAX_CHUNK`] and normalisation level 2. A chunk is named by the BLAKE3-256 of its
//! bytes. Empty content has no chunks.
//!
//! **Depth.** Level 0 is the sequence of chunks. While a level has more than one item, its items are grouped into the
//! nodes of the level above: a node ends after an item whose name has its lowest seven bits zero (`name[31] & 0x7f == 0`)
//! if it then has at least [`MIN_FANOUT`] items, after [`MAX_FANOUT`] items, or at the end of the level. The level that
//! has one item is the depth, that item the root. So content of one chunk has depth 0 and its chunk as root; empty
//! content has size 0, depth 0 and the BLAKE3 of no bytes as root.
//!
//! **Node.** One byte version ([`NODE_VERSION`]), one byte level (1 or more), then for each item 32 bytes of name and
//! the length of the content below it in base 128 (least significant group first, no padding). Nothing says how many
//! items there are: the node ends with the last one. A node is named by the BLAKE3-256 of its bytes. The lengths of its
//! items add up to the length that its parent, or the [`ContentRef`], states for it.
//!
//! Since boundaries depend on content alone, an edit in the middle of a large file changes the chunks around it and
//! about one node on each level; all others keep their names and need not travel.

mod build;
mod chunker;
mod hash;
mod node;
mod reference;
mod value;
mod walk;

pub use build::{Builder, Piece};
pub(crate) use chunker::Gear;
pub use chunker::{AVERAGE_CHUNK, Chunker, MAX_CHUNK, MIN_CHUNK};
pub use hash::{ChunkHash, WrongHash};
pub use node::{MAX_FANOUT, MAX_NODE, MIN_FANOUT, NODE_VERSION, Node, NodeError, NodeItem};
pub use reference::{ContentRef, InvalidContentRef, MAX_CONTENT, MAX_DEPTH};
pub use value::{BlobRef, BlobRefError, MEDIA_TYPE_BYTES, content_of};
pub use walk::{ChunkSpan, NodeSpan, Step, WalkError, Walker};

#[cfg(test)]
mod tests;
