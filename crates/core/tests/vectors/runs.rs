//! runs.json: runs as they travel, the entries that come out, and runs that are refused before anything held is looked at.

use crate::entries::three;
use crate::file::{golden, hex, list, number, text, unhex};
use crate::world::{Scribe, Spec, World, encoded, verified};
use anabranch_core::entry::{Entry, Payload, StoreId, StoreKind};
use anabranch_core::error::Error;
use anabranch_core::id::DatabaseId;
use anabranch_core::run::{Run, RunError, VerifiedRun};
use serde_json::{Value, json};

fn entry(e: &Entry) -> Value {
    let payloads: Vec<Value> = e
        .payloads()
        .map(|(s, p)| json!({ "store": s.to_string(), "bytes": p.bytes().map(hex) }))
        .collect();
    json!({ "id": e.id().to_string(), "header": hex(e.header().encode()), "payloads": payloads })
}

fn described(run: &VerifiedRun) -> Value {
    json!({
        "head": { "sequence": run.head().position.seq, "entry": run.head().position.id.to_string() },
        "run_bytes": run.bytes(),
        "entries": run.entries().iter().map(entry).collect::<Vec<_>>(),
    })
}

/// What comes of the bytes, in words.
fn outcome(bytes: &[u8], database: DatabaseId) -> (&'static str, Option<VerifiedRun>) {
    match verified(bytes, database) {
        Ok(run) => ("verified", Some(run)),
        Err(Error::Run(RunError::Signature { .. })) => ("refused: head", None),
        Err(Error::Run(RunError::Size { .. })) => ("refused: size", None),
        Err(Error::Run(RunError::Grants { .. })) => ("refused: two grants", None),
        Err(Error::Run(RunError::Database)) => ("refused: another database", None),
        Err(Error::Run(RunError::Decode(_)) | Error::Decode(_)) => ("refused: encoding", None),
        Err(other) => unreachable!("{other}"),
    }
}

fn case(name: &str, database: DatabaseId, bytes: &[u8]) -> Value {
    let (result, run) = outcome(bytes, database);
    json!({
        "name": name,
        "database": database.to_string(),
        "run": hex(bytes),
        "result": result,
        "read": run.as_ref().map(described),
    })
}

/// The entries without the payloads of `kind`.
fn stripped(entries: &[Entry], kind: StoreKind) -> Vec<Entry> {
    let strip = |(store, payload): (&StoreId, &Payload)| {
        let summary = payload.summary(store.clone());
        let absent = Payload::Absent { len: summary.len, hash: summary.hash };
        (store.clone(), if store.kind == kind { absent } else { payload.clone() })
    };
    entries
        .iter()
        .map(|e| Entry::new(e.header().clone(), e.payloads().map(strip).collect()).unwrap())
        .collect()
}

/// The bytes with the last occurrence of `from` replaced.
fn with(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = bytes.windows(from.len()).rposition(|part| part == from).unwrap();
    [&bytes[..at], to, &bytes[at + from.len()..]].concat()
}

/// A run of many small entries, to be cut at the limit.
fn long(world: &mut World, scribe: &mut Scribe, count: usize) -> Vec<Entry> {
    (0..count)
        .map(|_| {
            let payloads = vec![(StoreId::table("t"), vec![0x82, 0x80, 0x80])];
            let grant = world.admin;
            let spec = Spec { parents: vec![], timestamp: 2_000_000, grant, payloads, lie: 0 };
            world.write(scribe, spec)
        })
        .collect()
}

fn made() -> Vec<Value> {
    let (mut world, entries, [mut ann, bob]) = three();
    let db = world.database;
    let refs: Vec<&Entry> = entries.iter().collect();
    let first = encoded(&world.run(&refs[..1]));
    let both = encoded(&world.run(&refs[..2]));
    let second = encoded(&world.run(&refs[1..2]));
    let merged = encoded(&world.run(&refs[2..]));
    let (second_id, signature) = (entries[1].id(), world.signature(&entries[1].position()));
    let parent_signature = signature.0;
    let absent = Run::new(db, stripped(&entries[1..2], StoreKind::TABLE), signature, vec![]);
    let other = DatabaseId([9; 32]);
    let mut cases = vec![
        case("from the start of a log", db, &first),
        case("across a change of grant", db, &both),
        case("after an entry that is held", db, &second),
        case("with a parent and its head", db, &merged),
        case("with an absent payload", db, &encoded(&absent)),
        case("genesis of another database", other, &first),
        case("under another database", other, &second),
        case("one payload byte changed", db, &with(&second, b"not looked", b"Not looked")),
        case("prev changed", db, &with(&second, &entries[0].id().0, &[1; 32])),
        case("head of another device", db, &with(&second, &ann.log.device.0, &bob.log.device.0)),
        case("a parent's id changed", db, &with(&merged, &second_id.0, &[1; 32])),
        case("a parent's head changed", db, &with(&merged, &parent_signature, &[1; 64])),
        case("one byte at the end", db, &[&first[..], &[0]].concat()),
    ];
    let empty = Run::new(db, vec![], signature, vec![]);
    cases.push(case("no entries", db, &encoded(&empty)));
    let many = long(&mut world, &mut ann, 257);
    let many: Vec<&Entry> = many.iter().collect();
    cases.push(case("257 entries", db, &encoded(&world.run(&many))));
    cases
}

#[test]
fn runs() {
    for case in golden("runs", "Runs on the wire, and what is read from them", made()) {
        let database: DatabaseId = text(&case["database"]).parse().unwrap();
        let (result, run) = outcome(&unhex(&case["run"]), database);
        assert_eq!(result, case["result"], "{}", case["name"]);
        let Some(run) = run else { continue };
        assert_eq!(described(&run), case["read"], "{}", case["name"]);
        assert_eq!(run.bytes() as u64, number(&case["read"]["run_bytes"]));
        let ids: Vec<String> = run.entries().iter().map(|e| e.id().to_string()).collect();
        assert!(list(&case["read"]["entries"]).iter().zip(ids).all(|(e, id)| e["id"] == id));
    }
}
