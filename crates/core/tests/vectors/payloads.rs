//! payloads.json: what the operations of cell stores and of the members store look like, and what makes no sense.

use crate::file::{golden, hex, list, text, unhex, unhex_of};
use anabranch_core::codec::Writer;
use anabranch_core::counters::{Count, CountOp, decode_counts, encode_counts};
use anabranch_core::entry::{GrantRef, Timestamp};
use anabranch_core::head::Head;
use anabranch_core::id::{DatabaseId, EntryId, LogId, NodeId, Position};
use anabranch_core::key::Signature;
use anabranch_core::limits;
use anabranch_core::ops::{
    CellOp, Cut, MemberOp, Role, Subject, TicketTerms, ValueName, decode_cells, decode_members,
    encode_cells, encode_members,
};
use anabranch_core::path::Path;
use serde_json::{Value, json};

const OWN: LogId = LogId { device: NodeId([0xaa; 32]), epoch: 7 };
const OTHER: LogId = LogId { device: NodeId([0xbb; 32]), epoch: 8 };

fn name(n: &ValueName) -> Value {
    json!({
        "device": hex(n.log.device.0), "epoch": n.log.epoch, "sequence": n.seq,
        "index": n.index, "id": hex(n.id16),
    })
}

fn cell_op(op: &Option<CellOp>) -> Value {
    op.as_ref().map_or(Value::Null, |op| {
        json!({
            "path": hex(op.path.as_bytes()),
            "value": op.value.as_ref().map(hex),
            "replaces": op.replaces.iter().map(name).collect::<Vec<_>>(),
        })
    })
}

fn count_op(op: &Option<CountOp>) -> Value {
    op.as_ref().map_or(Value::Null, |op| {
        let path = hex(op.path.as_bytes());
        match op.count {
            Count::Add(n) => json!({ "counter": path, "add": n.to_string() }),
            Count::Reset(n) => json!({ "counter": path, "reset": n.to_string() }),
        }
    })
}

fn member_op(op: &Option<MemberOp>) -> Value {
    let subject = |subject: &Subject| match subject {
        Subject::Device(key) => json!({ "device": hex(key.0) }),
        Subject::Anyone => json!("anyone"),
        Subject::Ticket(key) => json!({ "ticket": hex(key.0) }),
        Subject::Person(person) => json!({ "person": hex(person.0) }),
    };
    match op {
        None => Value::Null,
        Some(MemberOp::Grant { subject: whom, role, priority, terms }) => json!({
            "grant": subject(whom), "role": role.name(), "priority": priority,
            "limit": terms.limit, "expires": terms.expires.map(|t| t.0),
        }),
        Some(MemberOp::Embed { evidence }) => json!({ "embed": hex(evidence) }),
        Some(MemberOp::Redeem { signature }) => json!({ "redeem": hex(signature.0) }),
        Some(MemberOp::Revoke { grant, cut }) => json!({
            "revoke": hex(grant.entry.0), "index": grant.index,
            "cut": match cut {
                Cut::Past => json!("past"),
                Cut::Tips(tips) => tips.iter().map(tip).collect(),
            },
        }),
    }
}

fn tip(head: &Head) -> Value {
    let Position { log, seq, id } = head.position;
    json!({
        "device": hex(log.device.0), "epoch": log.epoch, "sequence": seq, "entry": hex(id.0),
        "signature": hex(head.signature.0),
    })
}

fn read(store: &str, payload: &[u8]) -> Value {
    let (operations, unknown): (Vec<Value>, bool) = match store {
        "cells" => {
            let decoded = decode_cells(&OWN, payload);
            (decoded.ops.iter().map(cell_op).collect(), decoded.unknown)
        }
        "counters" => {
            let decoded = decode_counts(payload);
            (decoded.ops.iter().map(count_op).collect(), decoded.unknown)
        }
        _ => {
            let decoded = decode_members(payload);
            (decoded.ops.iter().map(member_op).collect(), decoded.unknown)
        }
    };
    json!({ "operations": operations, "needs_newer": unknown })
}

fn case(name: &str, store: &str, payload: &[u8]) -> Value {
    json!({ "name": name, "store": store, "payload": hex(payload), "read": read(store, payload) })
}

fn cells(ops: &[CellOp]) -> Vec<u8> {
    encode_cells(&OWN, ops)
}

/// A cell payload of operations written by hand, between two that make sense.
fn around(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut w = Writer::new();
    w.array(2).array(0).array(3);
    w.array(3).u64(0).bytes(b"\x10a\0").bytes(b"first");
    write(&mut w);
    w.array(3).u64(0).bytes(b"\x10b\0").bytes(b"last");
    w.finish()
}

fn members_around(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut w = Writer::new();
    w.array(2);
    write(&mut w);
    w.array(6).u64(0).array(1).u64(1).u64(1).u64(0).u64(0).u64(0);
    w.finish()
}

fn good_cells() -> Vec<Value> {
    let path = Path::text(["row", "column"]).unwrap();
    let names = vec![
        ValueName { log: OWN, seq: 3, index: 0, id16: [1; 16] },
        ValueName { log: OTHER, seq: 300, index: 70_000, id16: [2; 16] },
    ];
    let put = CellOp { path: path.clone(), value: Some(b"value".to_vec()), replaces: vec![] };
    let over = CellOp { replaces: names.clone(), ..put.clone() };
    let delete = CellOp { path, value: None, replaces: names };
    let empty = CellOp { value: Some(vec![]), ..put.clone() };
    vec![
        case("no operations", "cells", &cells(&[])),
        case("a new value", "cells", &cells(std::slice::from_ref(&put))),
        case("a value of no bytes", "cells", &cells(&[empty])),
        case("a value that replaces two", "cells", &cells(&[over])),
        case("a delete and a value", "cells", &cells(&[delete, put])),
    ]
}

fn odd_cells() -> Vec<Value> {
    let p = b"\x10x\0";
    let mut with_logs = Writer::new();
    with_logs.array(2).array(1).array(2).bytes(&OTHER.device.0).u64(OTHER.epoch).array(1);
    with_logs.array(4).u64(0).bytes(p).bytes(b"v").array(1);
    with_logs.array(4).u64(2).u64(1).u64(0).bytes(&[1; 16]);
    let mut too_many = Writer::new();
    let count = limits::ENTRY_BYTES / 4 + 1;
    too_many.array(2).array(0).array(count);
    let too_many = [&too_many.finish()[..], &[0].repeat(count)].concat();
    let new = Path::text(["list"]).unwrap().join_new(300).unwrap().join("done").unwrap();
    let made = CellOp { path: new, value: Some(b"v".to_vec()), replaces: vec![] };
    let mut cases = vec![
        case("an element that the entry makes", "cells", &cells(&[made])),
        case(
            "a new element that replaces",
            "cells",
            &around(|w| {
                w.array(4).u64(3).bytes(b"\x0f\x01\x01\0").bytes(b"v").array(0);
            }),
        ),
        case(
            "a new element without any in its path",
            "cells",
            &around(|w| _ = w.array(3).u64(3).bytes(p).bytes(b"v")),
        ),
        case(
            "a new element in the path of another operation",
            "cells",
            &around(|w| _ = w.array(3).u64(0).bytes(b"\x0f\x01\x01\0").bytes(b"v")),
        ),
        case(
            "a new element whose number is not in its fewest bytes",
            "cells",
            &around(|w| _ = w.array(3).u64(3).bytes(b"\x0f\x02\x01\x01\x05\0").bytes(b"v")),
        ),
        case("no path", "cells", &around(|w| _ = w.array(3).u64(0).bytes(b"x").bytes(b"v"))),
        case("an empty path", "cells", &around(|w| _ = w.array(3).u64(0).bytes(b"").bytes(b"v"))),
        case(
            "a field too many",
            "cells",
            &around(|w| {
                w.array(5).u64(0).bytes(p).bytes(b"v").array(0).u64(0);
            }),
        ),
        case("a field missing", "cells", &around(|w| _ = w.array(2).u64(0).bytes(p))),
        case("text for bytes", "cells", &around(|w| _ = w.array(3).u64(0).bytes(p).text("v"))),
        case(
            "an empty list of replaced values",
            "cells",
            &around(|w| {
                w.array(4).u64(0).bytes(p).bytes(b"v").array(0);
            }),
        ),
        case("a log number that is not listed", "cells", &with_logs.finish()),
        case("no array", "cells", &around(|w| _ = w.u64(0))),
        case("an operation of a later kind", "cells", &around(|w| _ = w.array(2).u64(2).text("?"))),
        case(
            "a later kind with 17 fields",
            "cells",
            &around(|w| {
                w.array(17).u64(2);
                (0..16).for_each(|_| _ = w.null());
            }),
        ),
        case(
            "a longer spelling in an operation",
            "cells",
            &around(|w| {
                w.raw(&[0x83, 0x18, 0x00, 0x41, 0x10, 0x40]);
            }),
        ),
        case("one byte at the end", "cells", &[&around(|w| _ = w.array(0))[..], &[0]].concat()),
        case("cut off", "cells", &around(|w| _ = w.array(0))[..20]),
        case("nothing", "cells", &[]),
    ];
    cases.push(json!({
        "name": "49,153 operations", "store": "cells",
        "payload_rule": "the head 82 80 99 c001, then 49,153 bytes 00",
        "read": read("cells", &too_many),
    }));
    cases
}

fn member_cases() -> Vec<Value> {
    let grant = |subject, role, terms| MemberOp::Grant { subject, role, priority: 3, terms };
    let terms = TicketTerms { limit: Some(1), expires: Some(Timestamp(1_700_000_000_000_000)) };
    let all = [
        grant(Subject::Device(NodeId([1; 32])), Role::Admin, TicketTerms::default()),
        grant(Subject::Anyone, Role::Read, TicketTerms::default()),
        grant(Subject::Ticket(NodeId([2; 32])), Role::Write, terms),
        MemberOp::Redeem { signature: Signature([3; 64]) },
    ];
    let people = [
        grant(Subject::Person(DatabaseId([9; 32])), Role::Write, TicketTerms::default()),
        MemberOp::Embed { evidence: vec![0x80] },
    ];
    let ended = GrantRef { entry: EntryId([4; 32]), index: 5 };
    let position = Position { log: OWN, seq: 6, id: EntryId([7; 32]) };
    let tip = Head { position, signature: Signature([8; 64]) };
    let revoke = |cut| MemberOp::Revoke { grant: ended, cut };
    let revoked = [revoke(Cut::Past), revoke(Cut::Tips(vec![])), revoke(Cut::Tips(vec![tip, tip]))];
    let odd = |name, write: fn(&mut Writer)| case(name, "members", &members_around(write));
    vec![
        case("grants and a redemption", "members", &encode_members(&all)),
        case("a person and its devices", "members", &encode_members(&people)),
        case("revocations", "members", &encode_members(&revoked)),
        case("no operations", "members", &encode_members(&[])),
        odd("a role from later", |w| {
            w.array(6).u64(0).array(1).u64(1).u64(9).u64(0).u64(0).u64(0);
        }),
        odd("a subject from later", |w| {
            w.array(6).u64(0).array(1).u64(4).u64(1).u64(0).u64(0).u64(0);
        }),
        odd("a subject from later with an argument", |w| {
            w.array(6).u64(0).array(2).u64(3).bytes(&[1; 32]).u64(1).u64(0).u64(0).u64(0);
        }),
        odd("a revocation of nothing", |w| _ = w.array(2).u64(1).null()),
        odd("a revocation with a cut that is no list", |w| {
            w.array(4).u64(1).bytes(&[4; 32]).u64(5).u64(0);
        }),
        odd("a revocation with a field too many", |w| {
            w.array(5).u64(1).bytes(&[4; 32]).u64(5).array(0).u64(0);
        }),
        odd("a key of 31 bytes", |w| {
            w.array(6).u64(0).array(2).u64(0).bytes(&[1; 31]).u64(1).u64(0).u64(0).u64(0);
        }),
        odd("a priority of 2^32", |w| {
            w.array(6).u64(0).array(1).u64(1).u64(1).u64(1 << 32).u64(0).u64(0);
        }),
    ]
}

fn count_cases() -> Vec<Value> {
    let path = Path::text(["pages", "home"]).unwrap();
    let op = |count| CountOp { path: path.clone(), count };
    let adds = [0, 1, -1, 11, -12, 12, i64::MAX, i64::MIN].map(|n| op(Count::Add(n)));
    let resets = [0, -1, i128::MAX, i128::MIN].map(|n| op(Count::Reset(n)));
    let odd = |name, write: &dyn Fn(&mut Writer)| {
        let mut w = Writer::new();
        w.array(2);
        write(&mut w);
        w.array(3).u64(0).bytes(b"\x10b\0").u64(2);
        case(name, "counters", &w.finish())
    };
    let p = b"\x10a\0";
    vec![
        case("numbers of either sign", "counters", &encode_counts(&adds)),
        case("resets", "counters", &encode_counts(&resets)),
        case("nothing counted", "counters", &encode_counts(&[])),
        odd("a counter without a path", &|w| _ = w.array(3).u64(0).bytes(b"").u64(2)),
        odd("a number too many", &|w| _ = w.array(4).u64(0).bytes(p).u64(2).u64(2)),
        odd("a number missing", &|w| _ = w.array(2).u64(0).bytes(p)),
        odd("bytes for a number", &|w| _ = w.array(3).u64(0).bytes(p).bytes(&[2])),
        odd("a reset of 15 bytes", &|w| _ = w.array(3).u64(1).bytes(p).bytes(&[0; 15])),
        odd("counting of a later kind", &|w| _ = w.array(3).u64(2).bytes(p).u64(2)),
    ]
}

#[test]
fn payloads() {
    let mut made = good_cells();
    made.extend(odd_cells());
    made.extend(member_cases());
    made.extend(count_cases());
    let about = "Payloads in an entry of the log (aa…aa, 7); an operation without effect is null";
    for case in golden("payloads", about, made) {
        let Some(payload) = case.get("payload") else { continue };
        let payload = unhex(payload);
        assert_eq!(read(text(&case["store"]), &payload), case["read"], "{}", case["name"]);
        let operations = list(&case["read"]["operations"]);
        for op in operations.iter().filter(|op| op.get("path").is_some()) {
            let path = unhex(&op["path"]);
            assert!(Path::from_encoded(&path).or(Path::from_encoded_new(&path)).is_ok());
            for name in list(&op["replaces"]) {
                assert_ne!(unhex_of::<16>(&name["id"]), [0; 16]);
            }
        }
    }
}
