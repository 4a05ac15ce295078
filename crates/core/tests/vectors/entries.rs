//! entries.json: canonical headers, their ids, heads over them; and headers that are refused.

use crate::file::{golden, hex, number, text, unhex, unhex_of};
use crate::world::{Scribe, Spec, World};
use anabranch_core::entry::{Entry, Header, PayloadSummary, StoreId, StoreKind};
use anabranch_core::head::{Head, message};
use anabranch_core::id::{DatabaseId, Position};
use anabranch_core::key::Signature;
use anabranch_core::limits;
use serde_json::{Value, json};

fn position(p: &Position) -> Value {
    json!({ "device": hex(p.log.device.0), "epoch": p.log.epoch, "sequence": p.seq, "entry": hex(p.id.0) })
}

fn payload(p: &PayloadSummary) -> Value {
    json!({ "kind": p.store.kind.0, "name": p.store.name, "length": p.len, "hash": hex(p.hash) })
}

fn fields(header: &Header) -> Value {
    json!({
        "database": header.database.map(|d| hex(d.0)),
        "device": hex(header.log.device.0),
        "epoch": header.log.epoch,
        "sequence": header.seq,
        "prev": header.prev.map(|p| hex(p.0)),
        "parents": header.parents.iter().map(position).collect::<Vec<_>>(),
        "generation": header.generation,
        "timestamp": header.timestamp.0,
        "grant": { "entry": hex(header.grant.entry.0), "index": header.grant.index },
        "payloads": header.payloads.iter().map(payload).collect::<Vec<_>>(),
        "salt": header.salt.map(hex),
    })
}

fn entry_case(name: &str, world: &World, entry: &Entry) -> Value {
    let position = entry.position();
    json!({
        "name": name,
        "header": hex(entry.header().encode()),
        "fields": fields(entry.header()),
        "entry_bytes": entry.bytes(),
        "run_bytes": entry.run_bytes(),
        "id": entry.id().to_string(),
        "database": world.database.to_string(),
        "head_message": hex(message(&world.database, &position)),
        "head_signature": hex(world.signature(&position).0),
    })
}

/// Three entries that together use every field.
pub(crate) fn three() -> (World, Vec<Entry>, [Scribe; 2]) {
    let (mut ann, mut bob) = (Scribe::new(1), Scribe::new(2));
    let (mut world, genesis) = World::founded(&mut ann, &[&bob]);
    let grant = world.admin;
    let payloads = vec![
        (StoreId::table("notes"), b"not looked at here".to_vec()),
        (StoreId { kind: StoreKind(6), name: "from later".into() }, Vec::new()),
    ];
    let spec = Spec { parents: vec![], timestamp: 1_000_001, grant, payloads, lie: 0 };
    let second = world.write(&mut ann, spec);
    let spec = Spec {
        parents: vec![second.position()],
        timestamp: 1 << 52,
        grant: world.granted(1),
        payloads: vec![(StoreId::doc("ä"), vec![7; 300])],
        lie: 0,
    };
    let merged = world.write(&mut bob, spec);
    (world, vec![genesis, second, merged], [ann, bob])
}

type Change = fn(&mut Header);

/// Headers that are well-formed and still refused. Each changes the second entry.
const REFUSED: [(&str, Change); 13] = [
    ("sequence 0", |h| h.seq = 0),
    ("sequence 2^63 - 1", |h| h.seq = (1 << 63) - 1),
    ("sequence 1 with a prev", |h| h.seq = 1),
    ("sequence 2 without a prev", |h| h.prev = None),
    ("a salt outside genesis", |h| h.salt = Some([0; 16])),
    ("no database and no salt", |h| h.database = None),
    ("the genesis entry's grant", |h| h.grant = anabranch_core::entry::GrantRef::OWN),
    ("payloads not ascending", |h| h.payloads.reverse()),
    ("two payloads of one store", |h| h.payloads[1] = h.payloads[0].clone()),
    ("a store without a name", |h| h.payloads[0].store.name = String::new()),
    ("a members store with a name", |h| {
        h.payloads[0].store.kind = StoreKind::MEMBERS;
    }),
    ("a store name of 129 bytes", |h| h.payloads[0].store.name = "n".repeat(129)),
    ("a payload above the limit", |h| h.payloads[0].len = limits::ENTRY_BYTES as u32 + 1),
];

fn refused_cases(entries: &[Entry]) -> Vec<Value> {
    let mut cases: Vec<Value> = REFUSED
        .iter()
        .map(|(name, change)| {
            let mut header = entries[1].header().clone();
            change(&mut header);
            json!({ "name": format!("refused: {name}"), "header": hex(header.encode()), "id": null })
        })
        .collect();
    let mut push = |name: &str, header: Vec<u8>| {
        cases
            .push(json!({ "name": format!("refused: {name}"), "header": hex(header), "id": null }));
    };
    let merged = entries[2].header();
    let parent = merged.parents[0];
    let mut twice = merged.clone();
    twice.parents = vec![parent, parent];
    push("one parent twice", twice.encode());
    let mut zero = merged.clone();
    zero.parents[0].seq = 0;
    push("a parent at sequence 0", zero.encode());
    let mut genesis = entries[0].header().clone();
    genesis.parents = vec![parent];
    push("genesis with a parent", genesis.encode());
    let good = merged.encode();
    push("one byte at the end", [&good[..], &[0]].concat());
    push("one byte missing", good[..good.len() - 1].to_vec());
    push("a later version", [&good[..1], &[2], &good[2..]].concat());
    push("a longer spelling of the version", [&good[..1], &[0x18, 1], &good[2..]].concat());
    cases
}

#[test]
fn entries() {
    let (world, entries, _) = three();
    let names = ["genesis", "second in its log", "first of another log"];
    let mut made: Vec<Value> =
        names.iter().zip(&entries).map(|(name, e)| entry_case(name, &world, e)).collect();
    made.extend(refused_cases(&entries));
    for case in golden("entries", "Headers, ids and heads; a refused header has no id", made) {
        let decoded = Header::decode(&unhex(&case["header"]));
        if case["id"].is_null() {
            assert!(decoded.is_err(), "{}", case["name"]);
            continue;
        }
        let header = decoded.unwrap();
        assert_eq!(fields(&header), case["fields"]);
        assert_eq!(header.id().to_string(), text(&case["id"]));
        assert_eq!(header.entry_bytes(header.encode().len()) as u64, number(&case["entry_bytes"]));
        let database: DatabaseId = text(&case["database"]).parse().unwrap();
        let position = Position { log: header.log, seq: header.seq, id: header.id() };
        assert_eq!(message(&database, &position), unhex(&case["head_message"]));
        let head = Head { position, signature: Signature(unhex_of(&case["head_signature"])) };
        assert!(head.verify(&database));
    }
}
