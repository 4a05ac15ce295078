//! lthash.json: the digest of small sets.

use crate::file::{golden, hex, list, unhex};
use anabranch_core::lthash::LtHash;
use serde_json::{Value, json};

fn digest(elements: &[Vec<u8>]) -> [u8; 32] {
    let mut sum = LtHash::default();
    for element in elements {
        let mut hasher = blake3::Hasher::new();
        hasher.update(element);
        sum.add(&hasher);
    }
    sum.digest()
}

#[test]
fn lthash() {
    let sets: [(&str, &[&[u8]]); 5] = [
        ("the empty set", &[]),
        ("one element of no bytes", &[b""]),
        ("a", &[b"a"]),
        ("a and b", &[b"a", b"b"]),
        ("a, twice (not a set)", &[b"a", b"a"]),
    ];
    let made = sets
        .iter()
        .map(|(name, set)| {
            let elements: Vec<Vec<u8>> = set.iter().map(|e| e.to_vec()).collect();
            let listed: Vec<Value> = elements.iter().map(|e| json!(hex(e))).collect();
            json!({ "name": name, "elements": listed, "digest": hex(digest(&elements)) })
        })
        .collect();
    let about = "LtHash of elements that are hashed without a context";
    for case in golden("lthash", about, made) {
        let mut elements: Vec<Vec<u8>> = list(&case["elements"]).iter().map(unhex).collect();
        elements.reverse();
        assert_eq!(hex(digest(&elements)), case["digest"]);
    }
}
