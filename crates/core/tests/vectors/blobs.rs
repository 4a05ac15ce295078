//! blobs.json: where content is cut, the manifest nodes above the chunks, and the reference to the whole. Content is
//! given by a rule: the first bytes of BLAKE3's extended output for a seed, repeated or changed as said.

use crate::file::{golden, hex, list, number, text, unhex_of};
use anabranch_core::blob::{Builder, ChunkHash, ContentRef, MAX_CHUNK, MIN_CHUNK, Node, Piece};
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
