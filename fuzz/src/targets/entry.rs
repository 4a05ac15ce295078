//! Entries: headers, payloads, cell paths, runs. Whatever is read has one spelling and lies within the limits (I2, I4).

use crate::input::Input;
use anabranch_core::codec::{Reader, Writer};
use anabranch_core::counters::{decode_counts, encode_counts};
use anabranch_core::entry::{Header, StoreId};
use anabranch_core::equivocation::Proof;
use anabranch_core::id::{DatabaseId, EntryId, LogId, NodeId};
use anabranch_core::limits;
use anabranch_core::ops::{decode_cells, decode_members, encode_cells, encode_members};
use anabranch_core::path::Path;
use anabranch_core::person::Evidence;
use anabranch_core::run::Run;
use anabranch_core::seal::{Bound, Key, contents, decode_keys, encode_keys};

/// One header.
pub(crate) fn header(data: &[u8]) {
    let Ok(header) = Header::decode(data) else { return };
    assert_eq!(header.encode(), data, "a header has one spelling");
    assert!(header.check_shape().is_ok());
    assert_eq!(header.id().0, *blake3::hash(data).as_bytes());
    assert!(header.parents.len() <= limits::PARENTS && header.payloads.len() <= limits::PAYLOADS);
}

/// A byte that says which, and a payload or path.
pub(crate) fn payload(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() {
        4 => counts(input.rest()),
        6 => keys(input.rest()),
        7 => sealed(input.rest()),
        9 => people(input.rest()),
        n if n % 4 == 0 => cells(input.rest()),
        n if n % 4 == 1 => members(input.rest()),
        n if n % 4 == 2 => path(input.rest()),
        _ => item(input.rest()),
    }
}

fn cells(data: &[u8]) {
    let own = LogId { device: NodeId([0xaa; 32]), epoch: 7 };
    let decoded = decode_cells(&own, data);
    assert!(decoded.ops.len() <= data.len(), "an operation takes a byte");
    let ops: Vec<_> = decoded.ops.into_iter().flatten().collect();
    for op in &ops {
        // An element to be made may stand where otherwise none does; with its entry's id it may be too long.
        match op.path.has_new() {
            false => assert_path(&op.path),
            true => _ = op.path.fill(&EntryId([0; 32])).map(|path| assert_path(&path)),
        }
        assert!(op.value.as_ref().is_none_or(|value| value.len() <= limits::ENTRY_BYTES));
    }
    let again = decode_cells(&own, &encode_cells(&own, &ops));
    assert!(!again.unknown);
    assert_eq!(
        again.ops.into_iter().flatten().collect::<Vec<_>>(),
        ops,
        "what has an effect keeps it"
    );
}

fn members(data: &[u8]) {
    let decoded = decode_members(data);
    assert!(decoded.ops.len() <= limits::GRANT_OPS);
    let ops: Vec<_> = decoded.ops.into_iter().flatten().collect();
    let again = decode_members(&encode_members(&ops));
    assert!(!again.unknown);
    assert_eq!(again.ops.into_iter().flatten().collect::<Vec<_>>(), ops);
}

/// The id of a person's database, and evidence.
fn people(data: &[u8]) {
    let Some((person, evidence)) = data.split_first_chunk() else { return };
    let Ok(shown) = Evidence::decode(DatabaseId(*person), evidence) else { return };
    assert!(evidence.len() <= limits::EVIDENCE_BYTES);
    let again = Evidence::decode(shown.person(), &shown.encode());
    assert!(again.is_ok_and(|again| again.devices() == shown.devices()));
}

fn keys(data: &[u8]) {
    let decoded = decode_keys(data);
    assert!(decoded.ops.len() <= limits::KEY_OPS);
    let ops: Vec<_> = decoded.ops.into_iter().flatten().collect();
    let again = decode_keys(&encode_keys(&ops));
    assert!(!again.unknown);
    assert_eq!(again.ops.into_iter().flatten().collect::<Vec<_>>(), ops);
}

/// What opens was sealed by who has the key; anything else is nothing.
fn sealed(data: &[u8]) {
    let log = LogId { device: NodeId([1; 32]), epoch: 1 };
    let store = StoreId::table("t");
    let bound = Bound { database: DatabaseId([2; 32]), log: &log, store: &store };
    let key = Key::from_bytes([3; 32]);
    let text = key.seal_payload(&bound, &EntryId([4; 32]), data, &[]);
    assert_eq!(key.open_payload(&bound, &text).as_deref(), Some(data));
    assert_eq!(Key::from_bytes([5; 32]).open_payload(&bound, &text), None);
    assert_eq!(key.open_payload(&bound, data), None);
    for content in contents(data) {
        assert!(content.size() > 0 && content.padded() == content);
        let again = key.seal_payload(&bound, &EntryId([4; 32]), b"", &[content]);
        assert_eq!(contents(&again), [content], "a list of contents comes back");
    }
}

fn counts(data: &[u8]) {
    let decoded = decode_counts(data);
    assert!(decoded.ops.len() <= data.len(), "an operation takes a byte");
    let whole = !decoded.ops.is_empty() && decoded.ops.iter().all(Option::is_some);
    let ops: Vec<_> = decoded.ops.into_iter().flatten().collect();
    ops.iter().for_each(|op| assert_path(&op.path));
    let encoded = encode_counts(&ops);
    assert!(!whole || encoded == data, "what is sensible has one spelling");
    let again = decode_counts(&encoded);
    assert!(!again.unknown);
    assert_eq!(again.ops.into_iter().flatten().collect::<Vec<_>>(), ops);
}

fn path(data: &[u8]) {
    if let Ok(path) = Path::from_encoded_new(data) {
        assert_eq!(path.as_bytes(), data);
        assert!(path.has_new());
    }
    if let Ok(path) = Path::from_encoded(data) {
        assert_eq!(path.as_bytes(), data);
        assert_path(&path);
    }
}

fn assert_path(path: &Path) {
    assert!(path.as_bytes().len() <= limits::PATH_BYTES);
    assert!((1..=limits::PATH_SEGMENTS).contains(&path.len()));
    assert_eq!(path.segments().len(), path.len());
    assert_eq!(path.ancestors().count() + 1, path.len());
    assert!(path.ancestors().all(|above| above.is_prefix_of(path)));
    let _ = path.to_string();
}

/// Passing over items of the encoding, of whatever kind.
fn item(data: &[u8]) {
    let mut reader = Reader::new(data);
    while !reader.rest().is_empty() {
        let start = reader.position();
        if reader.skip("item").is_err() {
            return;
        }
        let item = reader.since(start);
        assert!(!item.is_empty(), "an item takes a byte");
        let mut alone = Reader::new(item);
        assert!(
            alone.skip("item").is_ok() && alone.rest().is_empty(),
            "an item ends where it ends"
        );
    }
}

/// The database, and a run.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let database = DatabaseId(input.array());
    let bytes = input.rest();
    if let Ok(proof) = Proof::decode(bytes) {
        assert_eq!(Proof::decode(&proof.encode()).as_ref(), Ok(&proof), "a proof comes back");
        let _ = proof.verify();
    }
    let mut reader = Reader::new(bytes);
    let Ok(run) = Run::decode(&mut reader, database) else { return };
    assert_run(&run, database);
    let mut writer = Writer::new();
    run.encode(&mut writer);
    let again = writer.finish();
    let mut reader = Reader::new(&again);
    assert_eq!(Run::decode(&mut reader, database).as_ref(), Ok(&run), "a run comes back");
    assert!(reader.rest().is_empty());
    if let Ok(verified) = run.verify() {
        assert!(verified.head().verify(&database));
    }
}

/// A run is a chain within its limits.
pub(crate) fn assert_run(run: &Run, database: DatabaseId) {
    let entries = run.entries();
    assert!((1..=limits::RUN_ENTRIES).contains(&entries.len()));
    assert!(run.bytes() <= limits::RUN_BYTES);
    for entry in entries {
        assert_eq!(entry.database(), database);
        assert!(entry.bytes() <= limits::ENTRY_BYTES);
        assert_eq!(Header::decode(&entry.header().encode()).as_ref(), Ok(entry.header()));
    }
    for pair in entries.windows(2) {
        assert_eq!(pair[1].header().prev, Some(pair[0].id()));
        assert_eq!(pair[1].header().seq, pair[0].header().seq + 1);
        assert_eq!(pair[1].header().log, pair[0].header().log);
    }
}
