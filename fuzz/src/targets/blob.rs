//! Manifest nodes, as peers send them: a node fits its place or is refused, and a walk covers all of the content once, or
//! of a part what touches it. References to content, as values say them.

use crate::input::Input;
use anabranch_core::blob::{BlobRef, content_of};
use anabranch_core::blob::{ChunkHash, ContentRef, Node, NodeSpan, Step, Walker};
use std::convert::Infallible;

/// Flags of a place, then a node.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let flags = input.byte();
    let bytes = input.rest();
    let (level, len) = sum(bytes);
    let hash = ChunkHash::of(bytes);
    let place = NodeSpan {
        hash,
        level: if flags & 4 == 0 { level } else { flags >> 3 },
        offset: 0,
        len,
        is_last: flags & 1 != 0,
        is_root: flags & 2 != 0,
    };
    if let Ok(node) = Node::decode(bytes, &place) {
        assert_eq!(node.encode(), bytes, "a node has one spelling");
        assert_eq!(node.items.iter().map(|item| item.len).sum::<u64>(), len);
    }
    if let Ok(content) = ContentRef::new(len, level, hash) {
        walk(&content, hash, bytes);
        walk_part(&content, hash, bytes, u64::from(flags) * 5_000);
    }
    if let Ok(blob) = BlobRef::decode(bytes) {
        assert_eq!(blob.encode(), bytes, "a reference has one spelling");
        assert_eq!(content_of(bytes), Some(blob.content), "and its content is kept");
    }
}

/// The level and the length that a node states, as far as it can be read; the length is what its parent has to know.
fn sum(bytes: &[u8]) -> (u8, u64) {
    let mut input = Input::new(bytes);
    let [_, level] = input.array();
    let mut sum = 0u64;
    while !input.is_empty() {
        input.take(32);
        let mut len = 0u64;
        for shift in (0..63).step_by(7) {
            let byte = input.byte();
            len |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        sum = sum.wrapping_add(len);
    }
    (level, sum)
}

/// Only the root is at hand.
fn walk(content: &ContentRef, root: ChunkHash, bytes: &[u8]) {
    let lookup =
        |place: &NodeSpan| Ok::<_, Infallible>((place.hash == root).then(|| bytes.to_vec()));
    let mut covered = 0u64;
    for step in Walker::new(content, lookup) {
        let Ok(step) = step else { return };
        let (offset, len) = match step {
            Step::Chunk(chunk) => (chunk.offset, chunk.len),
            Step::Missing(node) => (node.offset, node.len),
        };
        assert_eq!(offset, covered, "no gap and no overlap");
        covered += len;
    }
    assert_eq!(covered, content.size(), "all of it");
}

/// What a walk yields from some place on touches what follows that place, without a gap.
fn walk_part(content: &ContentRef, root: ChunkHash, bytes: &[u8], from: u64) {
    let lookup =
        |place: &NodeSpan| Ok::<_, Infallible>((place.hash == root).then(|| bytes.to_vec()));
    let mut covered: Option<u64> = None;
    for step in Walker::within(content, from..u64::MAX, lookup) {
        let Ok(step) = step else { return };
        let (offset, len) = match step {
            Step::Chunk(chunk) => (chunk.offset, chunk.len),
            Step::Missing(node) => (node.offset, node.len),
        };
        assert!(offset + len > from, "nothing before the part");
        assert_eq!(offset, covered.unwrap_or(offset.min(from)), "no gap and no overlap");
        covered = Some(offset + len);
    }
    assert_eq!(covered.unwrap_or(content.size()), content.size(), "to the end");
}
