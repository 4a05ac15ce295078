//! encoding.json: which spellings the canonical encoding refuses; paths.json: cell paths.

use crate::file::{golden, hex, list, text, unhex};
use anabranch_core::codec::Reader;
use anabranch_core::path::{Path, Segment};
use serde_json::{Value, json};

/// Reads one item of the kind and nothing after it, with limits of 1,024.
fn outcome(kind: &str, bytes: &[u8]) -> &'static str {
    let mut r = Reader::new(bytes);
    let read = match kind {
        "uint" => r.u64("x").map(drop),
        "bytes" => r.bytes("x", 1024).map(drop),
        "text" => r.text("x", 1024).map(drop),
        "array" => r.array("x", 1024).map(drop),
        _ => r.bool("x").map(drop),
    };
    if read.and_then(|()| r.finish()).is_ok() { "accepted" } else { "refused" }
}

const ITEMS: [(&str, &str, &str); 27] = [
    ("zero", "uint", "00"),
    ("the last in one byte", "uint", "17"),
    ("the first in two", "uint", "1818"),
    ("the largest", "uint", "1bffffffffffffffff"),
    ("23 in two bytes", "uint", "1817"),
    ("200 in three bytes", "uint", "1900c8"),
    ("200 in five bytes", "uint", "1a000000c8"),
    ("200 in nine bytes", "uint", "1b00000000000000c8"),
    ("negative", "uint", "20"),
    ("cut off", "uint", "19ff"),
    ("one more byte", "uint", "0000"),
    ("tagged", "uint", "c100"),
    ("no bytes", "bytes", "40"),
    ("two bytes", "bytes", "420102"),
    ("length in two bytes", "bytes", "580107"),
    ("indefinite bytes", "bytes", "5f4107ff"),
    ("cut off", "bytes", "4301"),
    ("a length of 2^63 - 1", "bytes", "5b7fffffffffffffff"),
    ("text", "text", "6161"),
    ("text that is not UTF-8", "text", "61ff"),
    ("indefinite text", "text", "7f6161ff"),
    ("an empty array", "array", "80"),
    ("indefinite array", "array", "9fff"),
    ("count in two bytes", "array", "9800"),
    ("too many items", "array", "991000"),
    ("true", "bool", "f5"),
    ("true as a simple value", "bool", "f815"),
];

#[test]
fn encoding() {
    let made = ITEMS
        .iter()
        .map(|&(name, kind, input)| {
            let result = outcome(kind, &unhex(&json!(input)));
            json!({ "name": format!("{kind}: {name}"), "kind": kind, "input": input, "result": result })
        })
        .collect();
    for case in golden("encoding", "Single items of the canonical encoding", made) {
        assert_eq!(outcome(text(&case["kind"]), &unhex(&case["input"])), case["result"]);
    }
}

fn segments(path: &Path) -> Vec<Value> {
    path.segments()
        .into_iter()
        .map(|segment| match segment {
            Segment::Text(text) => json!({ "text": text }),
            Segment::Bytes(bytes) => json!({ "bytes": hex(bytes) }),
            Segment::Other(tag, bytes) => json!({ "tag": tag, "bytes": hex(bytes) }),
        })
        .collect()
}

/// Ascending: each sorts before the next.
const PATHS: [(&str, &str); 9] = [
    ("one empty text", "1000"),
    ("an empty text, then a segment of an unknown kind", "10006100"),
    ("a zero in text", "10010100"),
    ("a one in text", "10010200"),
    ("a", "106100"),
    ("a, then no bytes", "1061001100"),
    ("a, then three bytes", "1061001101010102ff00"),
    ("ä", "10c3a400"),
    ("only a segment of an unknown kind", "20ff00"),
];

const NO_PATHS: [(&str, &str); 9] = [
    ("the root", ""),
    ("no end", "1061"),
    ("an unknown escape", "10010300"),
    ("an escape cut off", "100100"),
    ("text that is not UTF-8", "10ff00"),
    ("a tag below 10", "0f6100"),
    ("an empty segment without a tag", "00"),
    ("something after the end", "10610061"),
    ("an escaped byte below 10", "0102"),
];

#[test]
fn paths() {
    let accepted = |(name, input): (&str, &str)| {
        let path = Path::from_encoded(&unhex(&json!(input))).unwrap();
        json!({ "name": name, "encoded": input, "segments": segments(&path) })
    };
    let mut made: Vec<Value> = PATHS.into_iter().map(accepted).collect();
    let refused = NO_PATHS.iter().map(|(name, input)| {
        assert!(Path::from_encoded(&unhex(&json!(input))).is_err(), "{name}");
        json!({ "name": name, "encoded": input, "segments": null })
    });
    made.extend(refused);
    made.push(accepted(("64 segments", &"116100".repeat(64))));
    let too_deep = "116100".repeat(65);
    made.push(json!({ "name": "65 segments", "encoded": too_deep, "segments": null }));
    made.push(accepted(("8,192 bytes", &format!("21{}00", "61".repeat(8190)))));
    let too_long = format!("21{}00", "61".repeat(8191));
    made.push(json!({ "name": "8,193 bytes", "encoded": too_long, "segments": null }));
    let mut sorted = Vec::new();
    for case in golden("paths", "Cell paths; those before the first refused one ascend", made) {
        let path = Path::from_encoded(&unhex(&case["encoded"]));
        if case["segments"].is_null() {
            assert!(path.is_err(), "{}", case["name"]);
            continue;
        }
        let path = path.unwrap();
        assert_eq!(&segments(&path), list(&case["segments"]));
        sorted.push(path);
    }
    sorted.truncate(PATHS.len());
    assert!(sorted.is_sorted_by(|a, b| a < b));
}
