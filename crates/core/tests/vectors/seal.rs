//! seal.json: payloads of sealed databases, content of blobs, keys wrapped for readers and under one another, and the store of
//! keys.

use crate::file::{golden, hex, list, number, text, unhex, unhex_of};
use anabranch_core::blob::{Builder, ChunkHash, ContentRef, Piece};
use anabranch_core::codec::Writer;
use anabranch_core::entry::{StoreId, StoreKind};
use anabranch_core::id::{DatabaseId, EntryId, LogId, NodeId};
use anabranch_core::key::DeviceKey;
use anabranch_core::seal::{Bound, Key, KeyId, KeyOp, contents, decode_keys, encode_keys};
use serde_json::{Value, json};
use std::convert::Infallible;

const DATABASE: DatabaseId = DatabaseId([0xdb; 32]);
const LOG: LogId = LogId { device: NodeId([0xaa; 32]), epoch: 7 };

fn key(n: u8) -> Key {
    Key::from_bytes([n; 32])
}

fn payload(name: &str, store: &StoreId, plain: &[u8], named: &[ContentRef]) -> Value {
    let bound = Bound { database: DATABASE, log: &LOG, store };
    let sealed = key(1).seal_payload(&bound, &EntryId([0xee; 32]), plain, named);
    let named: Vec<Value> = named
        .iter()
        .map(|content| {
            json!({
                "size": content.size(), "depth": content.depth(), "root": hex(content.root().0),
            })
        })
        .collect();
    json!({
        "name": name, "key": hex([1; 32]), "key_id": hex(key(1).id().0), "database": hex(DATABASE.0),
        "device": hex(LOG.device.0), "epoch": LOG.epoch, "kind": store.kind.0, "store": store.name, "tip": hex([0xee; 32]), "plain": hex(plain),
        "contents": named, "sealed": hex(sealed),
    })
}

/// Content of so many bytes: the extended output of BLAKE3 of the seed. Pieces are named by what is kept.
fn content(name: &str, seed: &str, size: usize) -> Value {
    let (whole, pieces) = built(&key(1), seed, size);
    let chunks: Vec<Value> = pieces
        .iter()
        .map(|(len, bytes)| match len {
            Some(len) => json!({ "length": len, "hash": hex(ChunkHash::of(bytes).0) }),
            None => json!({ "node": hex(bytes) }),
        })
        .collect();
    let first = pieces.first().filter(|_| size < 100).map(|(_, bytes)| hex(bytes));
    json!({
        "name": name, "key": hex([1; 32]), "seed": seed, "size": size, "depth": whole.depth(),
        "root": hex(whole.root().0), "padded": whole.padded().size(), "pieces": chunks, "first": first,
    })
}

/// A piece as it is kept, and of a chunk the length of what is in it.
type Made = (Option<u64>, Vec<u8>);

/// The reference, and the pieces in the order in which they are made: chunks with the length of what is in them, and nodes.
fn built(key: &Key, seed: &str, size: usize) -> (ContentRef, Vec<Made>) {
    let mut plain = vec![0; size];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut plain);
    let mut pieces = Vec::new();
    let mut sink = |piece: Piece<'_>| {
        pieces.push(match piece {
            Piece::Chunk { span, bytes } => (Some(span.len), bytes.to_vec()),
            Piece::Node { bytes, .. } => (None, bytes.to_vec()),
        });
        Ok::<_, Infallible>(())
    };
    let mut builder = Builder::sealed(key);
    let Ok(()) = builder.push(&plain, &mut sink);
    let Ok(whole) = builder.finish(&mut sink);
    (whole, pieces)
}

fn wrapped() -> Value {
    let [author, reader] = [2, 3].map(|n| DeviceKey::from_seed(&[n; 32]));
    let sealed = key(1).wrapped(&author, &reader.node_id()).unwrap();
    json!({
        "name": "a key wrapped for a reader", "key": hex([1; 32]), "key_id": hex(key(1).id().0),
        "author_seed": hex([2; 32]), "reader_seed": hex([3; 32]), "wrapped": hex(sealed),
    })
}

fn under() -> Value {
    let sealed = key(1).under(&key(4)).unwrap();
    json!({
        "name": "a key under another", "key": hex([1; 32]), "key_id": hex(key(1).id().0),
        "other": hex([4; 32]), "under": hex(sealed),
    })
}

fn read(payload: &[u8]) -> Value {
    let pairs = |pairs: Vec<([u8; 32], [u8; 48])>| {
        pairs.iter().map(|(whose, sealed)| json!([hex(whose), hex(sealed)])).collect::<Vec<_>>()
    };
    let decoded = decode_keys(payload);
    let op = |op: Option<KeyOp>| match op {
        None => Value::Null,
        Some(KeyOp::New { id }) => json!({ "new": hex(id.0) }),
        Some(KeyOp::Only { stores }) => json!({ "only": stores }),
        Some(KeyOp::Under { id, others }) => json!({
            "under": hex(id.0),
            "others": pairs(others.into_iter().map(|(id, sealed)| (id.0, sealed)).collect()),
        }),
        Some(KeyOp::Wrap { id, to }) => json!({
            "wrap": hex(id.0),
            "to": pairs(to.into_iter().map(|(reader, sealed)| (reader.0, sealed)).collect()),
        }),
    };
    let ops: Vec<Value> = decoded.ops.into_iter().map(op).collect();
    json!({ "needs_newer": decoded.unknown, "operations": ops })
}

fn store(name: &str, payload: &[u8]) -> Value {
    json!({ "name": name, "payload": hex(payload), "read": read(payload) })
}

fn odd(name: &str, write: fn(&mut Writer)) -> Value {
    let mut w = Writer::new();
    w.array(2);
    write(&mut w);
    w.array(2).u64(0).bytes(&[9; 32]);
    store(name, &w.finish())
}

fn stores() -> Vec<Value> {
    let all = [
        KeyOp::New { id: key(1).id() },
        KeyOp::Under {
            id: key(1).id(),
            others: vec![(key(4).id(), [5; 48]), (KeyId([6; 32]), [7; 48])],
        },
        KeyOp::Wrap { id: key(1).id(), to: vec![(NodeId([8; 32]), [9; 48])] },
    ];
    vec![
        store("a new key with another under it, wrapped for a reader", &encode_keys(&all)),
        store("no operations on keys", &encode_keys(&[])),
        store(
            "a new key, and what alone is sealed",
            &encode_keys(&[
                KeyOp::New { id: key(1).id() },
                KeyOp::Only { stores: vec!["diary".into(), "pins".into()] },
            ]),
        ),
        odd("sealed stores out of order", |w| {
            w.array(2).u64(3).array(2).text("pins").text("diary");
        }),
        odd("no sealed store", |w| _ = w.array(2).u64(3).array(0)),
        odd("an operation on keys from later", |w| _ = w.array(2).u64(4).bytes(&[1; 32])),
        odd("a new key with an argument too many", |w| {
            w.array(3).u64(0).bytes(&[1; 32]).u64(0);
        }),
        odd("a wrapped key of 47 bytes", |w| {
            w.array(3).u64(1).bytes(&[1; 32]).array(1).array(2).bytes(&[2; 32]).bytes(&[3; 47]);
        }),
        odd("more readers than one operation may name", |w| {
            w.array(3).u64(1).bytes(&[1; 32]).array(1_025);
            for _ in 0..1_025 {
                w.u64(0);
            }
        }),
    ]
}

#[test]
fn seal() {
    let mut made = vec![
        payload("a payload", &StoreId::table("tasks"), b"what a table holds", &[]),
        payload("a payload of no bytes", &StoreId::counter("visits"), b"", &[]),
        payload("a payload that is padded further", &StoreId::doc("settings"), &[b'x'; 100], &[]),
        payload(
            "a payload that names content",
            &StoreId::blobs("pictures"),
            b"what a store of blobs holds",
            &[ContentRef::new(70_000, 1, ChunkHash([5; 32])).unwrap().padded()],
        ),
        content("content of no bytes", "", 0),
        content("content of one byte", "anabranch", 1),
        content("content of one chunk", "anabranch", 70_000),
        content("content with padding after its last whole chunk", "anabranch", (1 << 20) + 1),
        wrapped(),
        under(),
    ];
    made.extend(stores());
    let about = "Sealed databases: payloads, wrapped keys, and the payloads of the store of keys.";
    for case in golden("seal", about, made) {
        let name = text(&case["name"]).to_owned();
        let key_of = |field: &str| Key::from_bytes(unhex_of(&case[field]));
        if case.get("sealed").is_some() {
            let log =
                LogId { device: NodeId(unhex_of(&case["device"])), epoch: number(&case["epoch"]) };
            let kind = StoreKind(u32::try_from(number(&case["kind"])).unwrap());
            let store = StoreId { kind, name: text(&case["store"]).to_owned() };
            let bound = Bound {
                database: DatabaseId(unhex_of(&case["database"])),
                log: &log,
                store: &store,
            };
            let tip = EntryId(unhex_of(&case["tip"]));
            let named: Vec<ContentRef> = list(&case["contents"])
                .iter()
                .map(|content| {
                    let root = ChunkHash(unhex_of(&content["root"]));
                    ContentRef::new(number(&content["size"]), number(&content["depth"]) as u8, root)
                        .unwrap()
                })
                .collect();
            let plain = unhex(&case["plain"]);
            let sealed = key_of("key").seal_payload(&bound, &tip, &plain, &named);
            assert_eq!(sealed, unhex(&case["sealed"]), "{name}");
            assert_eq!(contents(&sealed), named, "{name}");
            let opened = key_of("key").open_payload(&bound, &unhex(&case["sealed"]));
            assert_eq!(opened, Some(unhex(&case["plain"])), "{name}");
        } else if case.get("pieces").is_some() {
            let (seed, size) = (text(&case["seed"]), number(&case["size"]));
            let (whole, pieces) = built(&key_of("key"), seed, size as usize);
            assert_eq!(whole.root().0, unhex_of(&case["root"]), "{name}");
            assert_eq!(whole.padded().size(), number(&case["padded"]), "{name}");
            assert_eq!(pieces.len(), list(&case["pieces"]).len(), "{name}");
        } else if case.get("wrapped").is_some() {
            let [author, reader] =
                ["author_seed", "reader_seed"].map(|f| DeviceKey::from_seed(&unhex_of(&case[f])));
            let (id, sealed) = (KeyId(unhex_of(&case["key_id"])), unhex_of(&case["wrapped"]));
            let opened = Key::unwrapped(&reader, &author.node_id(), &id, &sealed);
            assert_eq!(opened, Some(key_of("key")), "{name}");
        } else if let Some(under) = case.get("under").filter(|_| case.get("other").is_some()) {
            let id = KeyId(unhex_of(&case["key_id"]));
            let opened = Key::from_under(&key_of("other"), &id, &unhex_of(under));
            assert_eq!(opened, Some(key_of("key")), "{name}");
        } else {
            assert_eq!(read(&unhex(&case["payload"])), case["read"], "{name}");
            list(&case["read"]["operations"]);
        }
    }
}
