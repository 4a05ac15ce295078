//! references.json: values of blob stores, read or refused. blobs.json: where content is cut, the manifest nodes above the
//! chunks, and the reference to the whole. Content is given by a rule: the first bytes of BLAKE3's extended output for a seed, repeated or changed as said.

use crate::file::{golden, hex, list, number, text, unhex, unhex_of};
use anabranch_core::blob::{
    BlobRef, BlobRefError, Builder, ChunkHash, ContentRef, MAX_CHUNK, MIN_CHUNK, Node, Piece,
    content_of,
};
use anabranch_core::codec::Writer;
use serde_json::{Value, json};
use std::convert::Infallible;

/// Content by rule: `noise` is the extended output of BLAKE3 of the seed, `zero` is zeros.
fn content(rule: &str, seed: &str, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    if rule == "noise" {
        blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
    }
    bytes
}

#[derive(Default)]
struct Built {
    chunks: Vec<Value>,
    nodes: Vec<Value>,
}

fn build(bytes: &[u8]) -> (Built, ContentRef) {
    let mut built = Built::default();
    let mut sink = |piece: Piece<'_>| {
        match piece {
            Piece::Chunk { span, .. } => {
                built.chunks.push(json!({ "length": span.len, "hash": hex(span.hash.0) }));
            }
            Piece::Node { hash, bytes } => {
                built.nodes.push(json!({ "hash": hex(hash.0), "bytes": hex(bytes) }));
            }
        }
        Ok::<_, Infallible>(())
    };
    let mut builder = Builder::new();
    let Ok(()) = builder.push(bytes, &mut sink);
    let Ok(whole) = builder.finish(&mut sink);
    (built, whole)
}

fn case(name: &str, rule: &str, seed: &str, len: usize) -> Value {
    let (built, whole) = build(&content(rule, seed, len));
    json!({
        "name": name,
        "rule": rule,
        "seed": seed,
        "size": len,
        "depth": whole.depth(),
        "root": hex(whole.root().0),
        "chunks": built.chunks,
        "nodes": built.nodes,
    })
}

#[test]
fn blobs() {
    let made = vec![
        case("no content", "zero", "", 0),
        case("one byte", "zero", "", 1),
        case("the least that may be cut", "noise", "anabranch", MIN_CHUNK),
        case("one chunk of the largest size", "zero", "", MAX_CHUNK),
        case("no cut point anywhere", "zero", "", 3 * MAX_CHUNK + 5),
        case("a mebibyte", "noise", "anabranch cut points", 1 << 20),
        case("an odd length", "noise", "odd", (1 << 20) + 1),
        case("two levels of nodes", "noise", "levels", 24 << 20),
    ];
    for case in golden("blobs", "Chunks, manifest nodes and references of content", made) {
        let size = number(&case["size"]) as usize;
        let bytes = content(text(&case["rule"]), text(&case["seed"]), size);
        let mut at = 0;
        for chunk in list(&case["chunks"]) {
            let end = at + number(&chunk["length"]) as usize;
            assert_eq!(ChunkHash::of(&bytes[at..end]).0, unhex_of(&chunk["hash"]));
            at = end;
        }
        assert_eq!(at, size);
        let root = ChunkHash(unhex_of(&case["root"]));
        assert!(ContentRef::new(size as u64, number(&case["depth"]) as u8, root).is_ok());
    }
}

/// Nodes by hand: lengths of one, two and nine bytes.
#[test]
fn node_lengths() {
    let item = |n: u8, len| anabranch_core::blob::NodeItem { hash: ChunkHash([n; 32]), len };
    let lens = [1, 127, 128, 16_384, (1 << 63) - 1];
    let made = lens
        .iter()
        .map(|&len| {
            let node = Node { level: 2, items: vec![item(1, len), item(2, 5)] };
            json!({ "name": format!("{len} bytes below"), "length": len.to_string(), "node": hex(node.encode()) })
        })
        .collect();
    for case in golden("nodes", "Manifest nodes of level 2: (01…01, length), (02…02, 5)", made)
    {
        let len: u64 = text(&case["length"]).parse().unwrap();
        let node = Node { level: 2, items: vec![item(1, len), item(2, 5)] };
        assert_eq!(hex(node.encode()), case["node"]);
    }
}

/// A value of a blob store, and what reading it says.
fn reference(name: &str, value: Vec<u8>) -> Value {
    let read = BlobRef::decode(&value);
    json!({
        "name": name,
        "value": hex(&value),
        "media_type": read.as_ref().ok().map(|blob| blob.media_type.clone()),
        "newer": matches!(read, Err(BlobRefError::Newer)),
        "content": content_of(&value).map(|content| json!({
            "size": content.size().to_string(), "depth": content.depth(), "root": hex(content.root().0),
        })),
    })
}

#[test]
fn references() {
    let root = ChunkHash([0xab; 32]);
    let content = ContentRef::new(300_000, 1, root).unwrap();
    let blob =
        |content, media_type: &str| BlobRef { content, media_type: media_type.into() }.encode();
    let with = |kind, items, size, depth| {
        let mut w = Writer::new();
        w.array(items).u64(kind).u64(size).u64(depth).bytes(&root.0).text("text/plain");
        (5..items).for_each(|_| _ = w.u64(0));
        w.finish()
    };
    let mut cut = blob(content, "image/png");
    cut.pop();
    let mut trailing = blob(content, "");
    trailing.push(0);
    let made = vec![
        reference("content of two chunks or more", blob(content, "image/png")),
        reference("no media type", blob(content, "")),
        reference("no content", blob(ContentRef::empty(), "")),
        reference("the longest media type", blob(content, &"x".repeat(255))),
        reference(
            "a media type that is too long: not read, and the content is known",
            blob(content, &"x".repeat(256)),
        ),
        reference("an item more: a later version, whose content is known", with(0, 6, 300_000, 1)),
        reference("another kind: a later version", with(1, 5, 300_000, 1)),
        reference("a depth that this size cannot have", with(0, 5, 300_000, 0)),
        reference("a size beyond the limit", with(0, 5, 1 << 63, 13)),
        reference("cut short", cut),
        reference("a byte more", trailing),
        reference("no array", vec![0x00]),
    ];
    for case in golden(
        "references",
        "Values of blob stores: what is read, and which content they keep",
        made,
    ) {
        let value = unhex(&case["value"]);
        assert_eq!(reference(text(&case["name"]), value), case);
    }
}
