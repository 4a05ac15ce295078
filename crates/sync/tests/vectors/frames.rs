//! frames.json: one of each frame, and frames that are refused.

use crate::file::{golden, hex, unhex};
use anabranch_core::blob::ChunkHash;
use anabranch_core::codec::Writer;
use anabranch_core::frontier::FrontierTip;
use anabranch_core::head::Head;
use anabranch_core::id::{DatabaseId, EntryId, LogId, NodeId, Position};
use anabranch_core::key::Signature;
use anabranch_core::ops::Role;
use anabranch_core::riblt::{SYMBOL_BYTES, Symbol};
use anabranch_sync::frame::{
    Ask, BATCH_BYTES, Code, DATA_BYTES, Frame, HASHES, OFFERS, Request, SAMPLES, TAKES_REQUESTS,
    TEXT_BYTES, TIPS_PER_FRAME, Terms, TicketProof, WITHHOLDS,
};
use serde_json::{Value, json};

fn position(n: u8) -> Position {
    let log = LogId { device: NodeId([n; 32]), epoch: u64::from(n) };
    Position { log, seq: 256 * u64::from(n), id: EntryId([n + 1; 32]) }
}

fn tip(n: u8) -> FrontierTip {
    FrontierTip { head: Head { position: position(n), signature: Signature([n + 2; 64]) } }
}

fn described_position(p: &Position) -> Value {
    json!({ "device": hex(p.log.device.0), "epoch": p.log.epoch, "sequence": p.seq, "entry": hex(p.id.0) })
}

fn described_terms(t: Terms) -> Value {
    json!({ "sends": t.sends, "receives": t.receives, "you_may_read": t.you_may_read })
}

fn described_ticket(t: &Option<TicketProof>) -> Value {
    t.map_or(Value::Null, |t| json!({ "key": hex(t.key.0), "signature": hex(t.signature.0) }))
}

/// A frame in words and hexadecimal.
pub(crate) fn described(frame: &Frame) -> Value {
    let hashes = |list: &[ChunkHash]| -> Vec<String> { list.iter().map(|h| hex(h.0)).collect() };
    match frame {
        Frame::Hello { versions, node, clock, features } => json!({ "hello": {
            "oldest": versions.0, "newest": versions.1, "device": hex(node.0),
            "clock": clock, "features": features,
        }}),
        Frame::Auth(signature) => json!({ "auth": { "signature": hex(signature.0) } }),
        Frame::Open { channel, name, terms, digest, ticket, request, evidence } => {
            let mut open = json!({
                "channel": channel, "name": hex(name), "terms": described_terms(*terms),
                "digest": digest.map(hex), "ticket": described_ticket(ticket),
            });
            if let Some(Request { role, text, person }) = request {
                open["request"] = json!({ "role": role.name(), "text": text });
                if let Some(person) = person {
                    open["request"]["person"] = hex(person.0).into();
                }
            }
            if let Some(evidence) = evidence {
                open["evidence"] = hex(evidence).into();
            }
            json!({ "open": open })
        }
        Frame::Opened { channel, terms, digest, ticket } => json!({ "opened": {
            "channel": channel, "terms": described_terms(*terms),
            "digest": digest.map(hex), "ticket": described_ticket(ticket),
        }}),
        Frame::Refused { channel, code, text } => {
            json!({ "refused": { "channel": channel, "code": *code as u64, "text": text } })
        }
        Frame::Tips { channel, tips, last } => {
            let tips: Vec<Value> = tips.iter().map(described_tip).collect();
            json!({ "tips": { "channel": channel, "tips": tips, "last": last } })
        }
        Frame::Fork { channel, samples } => {
            let samples: Vec<Value> = samples.iter().map(described_position).collect();
            json!({ "fork": { "channel": channel, "samples": samples } })
        }
        Frame::ForkPoint { channel, log, held } => json!({ "fork point": {
            "channel": channel, "device": hex(log.device.0), "epoch": log.epoch,
            "held": held.as_ref().map(described_position),
        }}),
        Frame::Batch { channel, raw, bytes } => {
            json!({ "batch": { "channel": channel, "raw": raw, "bytes": hex(bytes) } })
        }
        Frame::Credit { channel, bytes } => {
            json!({ "credit": { "channel": channel, "bytes": bytes } })
        }
        Frame::Level { channel, digest, busy } => {
            json!({ "level": { "channel": channel, "digest": digest.map(hex), "busy": busy } })
        }
        Frame::Want { channel, hashes: list } => {
            json!({ "want": { "channel": channel, "hashes": hashes(list) } })
        }
        Frame::Blob { channel, hash, bytes } => {
            json!({ "blob": { "channel": channel, "hash": hex(hash.0), "bytes": hex(bytes) } })
        }
        Frame::Have { channel, hashes: list } => {
            json!({ "have": { "channel": channel, "hashes": hashes(list) } })
        }
        Frame::NoBlob { channel, hashes: list } => {
            json!({ "no blob": { "channel": channel, "hashes": hashes(list) } })
        }
        Frame::Symbols { channel, from, tips, digest, symbols } => json!({ "symbols": {
            "channel": channel, "from": from, "tips": tips, "digest": hex(digest),
            "symbols": symbols.iter().map(|s| hex(s.to_bytes())).collect::<Vec<_>>(),
        }}),
        Frame::Ask { channel, what } => {
            let what = match what {
                Ask::Symbols => json!("symbols"),
                Ask::Whole => json!("whole"),
                Ask::Named(elements) => {
                    json!({ "named": elements.iter().map(|e| hex(e.to_be_bytes())).collect::<Vec<_>>() })
                }
            };
            json!({ "ask": { "channel": channel, "what": what } })
        }
        Frame::Named { channel, tips } => {
            let tips: Vec<Value> = tips.iter().map(described_tip).collect();
            json!({ "named": { "channel": channel, "tips": tips } })
        }
        Frame::Hold { channel, devices } => {
            json!({ "hold": { "channel": channel, "devices": described_devices(devices) } })
        }
        Frame::Resume { channel, devices } => {
            json!({ "resume": { "channel": channel, "devices": described_devices(devices) } })
        }
        Frame::Offer { channel, places } => {
            let places: Vec<Value> = places.iter().map(described_position).collect();
            json!({ "offer": { "channel": channel, "places": places } })
        }
        Frame::Held { channel, places } => {
            let places: Vec<Value> = places.iter().map(described_position).collect();
            json!({ "held": { "channel": channel, "places": places } })
        }
        Frame::Bye { code, text } => json!({ "bye": { "code": *code as u64, "text": text } }),
    }
}

fn described_devices(devices: &[NodeId]) -> Vec<String> {
    devices.iter().map(|device| hex(device.0)).collect()
}

fn described_tip(tip: &FrontierTip) -> Value {
    let Head { position, signature } = &tip.head;
    json!({ "position": described_position(position), "signature": hex(signature.0) })
}

fn all() -> Vec<(&'static str, Frame)> {
    let terms = Terms { sends: true, receives: true, you_may_read: false };
    let proof = TicketProof { key: NodeId([4; 32]), signature: Signature([5; 64]) };
    let (channel, digest) = (300, Some([7; 32]));
    let hashes = vec![ChunkHash([8; 32]), ChunkHash([9; 32])];
    let log = position(1).log;
    let symbols =
        vec![Symbol::from_bytes(&[3; SYMBOL_BYTES]), Symbol::from_bytes(&[4; SYMBOL_BYTES])];
    vec![
        (
            "hello",
            Frame::Hello {
                versions: (1, 1),
                node: NodeId([2; 32]),
                clock: 1 << 50,
                features: WITHHOLDS | TAKES_REQUESTS,
            },
        ),
        ("auth", Frame::Auth(Signature([1; 64]))),
        (
            "open, with a ticket",
            Frame::Open {
                channel,
                name: [2; 32],
                terms,
                digest: None,
                ticket: Some(proof),
                request: None,
                evidence: None,
            },
        ),
        (
            "open, as a member",
            Frame::Open {
                channel: 0,
                name: [2; 32],
                terms,
                digest,
                ticket: None,
                request: None,
                evidence: None,
            },
        ),
        (
            "open, with a request",
            Frame::Open {
                channel: 0,
                name: [2; 32],
                terms,
                digest: None,
                ticket: None,
                request: Some(Request {
                    role: Role::Write,
                    text: "Ana's laptop".into(),
                    person: None,
                }),
                evidence: None,
            },
        ),
        (
            "open, as a device of a person",
            Frame::Open {
                channel: 0,
                name: [2; 32],
                terms,
                digest: None,
                ticket: None,
                request: Some(Request {
                    role: Role::Read,
                    text: String::new(),
                    person: Some(DatabaseId([9; 32])),
                }),
                evidence: Some(vec![0x80]),
            },
        ),
        ("opened", Frame::Opened { channel, terms, digest, ticket: None }),
        ("refused", Frame::Refused { channel, code: Code::TicketSpent, text: "spent".into() }),
        (
            "refused, for now",
            Frame::Refused { channel, code: Code::Waiting, text: "not approved yet".into() },
        ),
        (
            "refused for good",
            Frame::Refused { channel, code: Code::Revoked, text: "revoked".into() },
        ),
        ("tips", Frame::Tips { channel, tips: vec![tip(1), tip(2)], last: true }),
        ("no tips", Frame::Tips { channel, tips: vec![], last: true }),
        ("fork", Frame::Fork { channel, samples: vec![position(1)] }),
        ("fork point", Frame::ForkPoint { channel, log, held: Some(position(1)) }),
        ("fork point: nothing in common", Frame::ForkPoint { channel, log, held: None }),
        ("batch", Frame::Batch { channel, raw: 10, bytes: vec![1, 2, 3] }),
        ("credit", Frame::Credit { channel, bytes: 70_000 }),
        ("level", Frame::Level { channel, digest, busy: true }),
        ("level, to a stranger", Frame::Level { channel, digest: None, busy: false }),
        ("want", Frame::Want { channel, hashes: hashes.clone() }),
        ("blob", Frame::Blob { channel, hash: hashes[0], bytes: b"chunk".to_vec() }),
        ("no blob", Frame::NoBlob { channel, hashes: hashes.clone() }),
        ("have", Frame::Have { channel, hashes }),
        ("symbols", Frame::Symbols { channel, from: 64, tips: 10_000, digest: [7; 32], symbols }),
        ("ask for symbols", Frame::Ask { channel, what: Ask::Symbols }),
        ("ask for the whole frontier", Frame::Ask { channel, what: Ask::Whole }),
        ("ask for tips", Frame::Ask { channel, what: Ask::Named(vec![1, u64::MAX]) }),
        ("named tips", Frame::Named { channel, tips: vec![tip(1)] }),
        ("hold", Frame::Hold { channel, devices: vec![NodeId([2; 32]), NodeId([3; 32])] }),
        ("hold everything", Frame::Hold { channel, devices: vec![] }),
        ("resume", Frame::Resume { channel, devices: vec![NodeId([2; 32])] }),
        ("resume everything", Frame::Resume { channel, devices: vec![] }),
        ("offer", Frame::Offer { channel, places: vec![position(1), position(2)] }),
        ("held", Frame::Held { channel, places: vec![position(1)] }),
        ("bye", Frame::Bye { code: Code::Done, text: String::new() }),
    ]
}

/// Frames that are one step over a line.
fn refused() -> Vec<(&'static str, Vec<u8>)> {
    let raw = |write: &dyn Fn(&mut Writer)| {
        let mut w = Writer::new();
        write(&mut w);
        w.finish()
    };
    let credit = Frame::Credit { channel: 0, bytes: 5 }.encode();
    vec![
        ("nothing", vec![]),
        ("a kind from later", raw(&|w| _ = w.array(2).u64(15).u64(0))),
        ("a field too many", raw(&|w| _ = w.array(4).u64(9).u64(0).u64(5).u64(0))),
        ("a byte at the end", [&credit[..], &[0]].concat()),
        ("a longer spelling", vec![0x83, 0x18, 9, 0, 5]),
        ("a channel of 2^32", raw(&|w| _ = w.array(3).u64(9).u64(1 << 32).u64(5))),
        (
            "a request for a role that there is not",
            raw(&|w| {
                w.array(7).u64(2).u64(0).bytes(&[2; 32]).u64(3).bytes(&[]).null();
                w.array(2).u64(5).text("let me in");
            }),
        ),
        ("terms above 7", raw(&|w| _ = w.array(5).u64(3).u64(0).u64(8).bytes(&[]).null())),
        (
            "a digest of 31 bytes",
            raw(&|w| _ = w.array(4).u64(10).u64(0).bytes(&[0; 31]).bool(true)),
        ),
    ]
}

/// One above each limit on a count or size, by rule, because they are long.
/// A frame with so many items.
type Make = fn(usize) -> Frame;

#[test]
fn limits() {
    let lists: [(usize, Make); 8] = [
        (TIPS_PER_FRAME, |n| Frame::Tips { channel: 0, tips: vec![tip(1); n], last: true }),
        (SAMPLES, |n| Frame::Fork { channel: 0, samples: vec![position(1); n] }),
        (HASHES, |n| Frame::Want { channel: 0, hashes: vec![ChunkHash([1; 32]); n] }),
        (OFFERS, |n| Frame::Hold { channel: 0, devices: vec![NodeId([1; 32]); n] }),
        (OFFERS, |n| Frame::Resume { channel: 0, devices: vec![NodeId([1; 32]); n] }),
        (OFFERS, |n| Frame::Offer { channel: 0, places: vec![position(1); n] }),
        (OFFERS, |n| Frame::Held { channel: 0, places: vec![position(1); n] }),
        (DATA_BYTES, |n| Frame::Batch { channel: 0, raw: 1, bytes: vec![0; n] }),
    ];
    for (limit, frame) in lists {
        assert!(Frame::decode(&frame(limit).encode()).is_ok(), "{limit}");
        assert!(Frame::decode(&frame(limit + 1).encode()).is_err(), "{limit}");
    }
    let raw = |raw| Frame::Batch { channel: 0, raw, bytes: vec![] }.encode();
    assert!(Frame::decode(&raw(BATCH_BYTES as u32)).is_ok());
    assert!(Frame::decode(&raw(BATCH_BYTES as u32 + 1)).is_err());
    let mut w = Writer::new();
    w.array(3).u64(14).u64(0).text(&"x".repeat(TEXT_BYTES + 1));
    assert!(Frame::decode(&w.finish()).is_err());
    let request = |bytes| {
        let mut w = Writer::new();
        w.array(7).u64(2).u64(0).bytes(&[2; 32]).u64(3).bytes(&[]).null();
        w.array(2).u64(1).text(&"x".repeat(bytes));
        Frame::decode(&w.finish())
    };
    assert!(request(TEXT_BYTES).is_ok() && request(TEXT_BYTES + 1).is_err());
}

/// What a later version may say, and is understood as far as it goes.
#[test]
fn later_versions_are_understood_when_they_say_so() {
    let mut w = Writer::new();
    w.array(8).u64(0).u64(7).u64(9).bytes(&[2; 32]).u64(5).u64(3).text("?").array(1).null();
    let hello = Frame::Hello { versions: (7, 9), node: NodeId([2; 32]), clock: 5, features: 3 };
    assert_eq!(Frame::decode(&w.finish()), Ok(hello));
    let mut w = Writer::new();
    w.array(3).u64(14).u64(99).text("a code from later");
    let bye = Frame::Bye { code: Code::Internal, text: "a code from later".into() };
    assert_eq!(Frame::decode(&w.finish()), Ok(bye));
}

#[test]
fn frames() {
    let mut made: Vec<Value> = all()
        .iter()
        .map(|(name, frame)| json!({ "name": name, "frame": hex(frame.encode()), "read": described(frame) }))
        .collect();
    made.extend(refused().iter().map(|(name, bytes)| {
        json!({ "name": format!("refused: {name}"), "frame": hex(bytes), "read": null })
    }));
    for case in golden("frames", "Frames; one that is refused has nothing read from it", made) {
        let bytes = unhex(&case["frame"]);
        let read = Frame::decode(&bytes);
        if case["read"].is_null() {
            assert!(read.is_err(), "{}", case["name"]);
            continue;
        }
        let frame = read.unwrap();
        assert_eq!(described(&frame), case["read"]);
        assert_eq!(frame.encode(), bytes);
    }
}
