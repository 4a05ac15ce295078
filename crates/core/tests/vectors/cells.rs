//! cells.json: sets of entries, and the state that follows from each, in whatever order they arrive.

use crate::file::{golden, hex, list, text, unhex};
use crate::world::{Scribe, Spec, World, admit_in_turn, replica, verified};
use anabranch_core::cells::Cell;
use anabranch_core::codec::Writer;
use anabranch_core::counters::{Count, CountOp, encode_counts};
use anabranch_core::entry::{Entry, GrantRef, StoreId, StoreKind};
use anabranch_core::id::{DatabaseId, Position};
use anabranch_core::ops::{CellOp, ValueName, encode_cells};
use anabranch_core::path::{ElementId, Path};
use anabranch_core::storage::Storage;
use anabranch_core::view::View;
use serde_json::{Value, json};
use std::ops::ControlFlow;

/// A database of three writers, told entry by entry.
struct Story {
    world: World,
    scribes: [Scribe; 3],
    entries: Vec<Entry>,
}

const ANN: usize = 0;
const BOB: usize = 1;
const CID: usize = 2;

impl Story {
    fn new() -> Self {
        let (mut ann, bob, cid) = (Scribe::new(1), Scribe::new(2), Scribe::new(3));
        let (world, genesis) = World::founded(&mut ann, &[&bob, &cid]);
        Self { world, scribes: [ann, bob, cid], entries: vec![genesis] }
    }

    fn grant(&self, who: usize) -> GrantRef {
        self.world.granted(who as u32)
    }

    /// What everybody but the founder starts from.
    fn genesis(&self) -> Position {
        self.entries[0].position()
    }

    fn payload(
        &mut self,
        who: usize,
        parents: &[Position],
        timestamp: u64,
        payload: (StoreId, Vec<u8>),
    ) -> Position {
        let mut parents = parents.to_vec();
        if who != ANN && self.scribes[who].tip.is_none() && parents.is_empty() {
            parents.push(self.genesis());
        }
        let grant = self.grant(who);
        let spec = Spec { parents, timestamp, grant, payloads: vec![payload], lie: 0 };
        let entry = self.world.write(&mut self.scribes[who], spec);
        self.entries.push(entry);
        self.entries[self.entries.len() - 1].position()
    }

    /// Operations on the table `t` as one entry.
    fn write(
        &mut self,
        who: usize,
        parents: &[Position],
        timestamp: u64,
        ops: &[CellOp],
    ) -> Position {
        let payload = (StoreId::table("t"), encode_cells(&self.scribes[who].log, ops));
        self.payload(who, parents, timestamp, payload)
    }

    fn case(self, name: &str) -> Value {
        let entries: Vec<&Entry> = self.entries.iter().collect();
        let runs = self.world.runs(&entries);
        let state = state(self.world.database, &runs);
        json!({ "name": name, "database": self.world.database.to_string(), "runs": runs, "state": state })
    }
}

fn put(path: &str, value: &str, replaces: &[ValueName]) -> CellOp {
    let path = Path::text([path]).unwrap();
    CellOp { path, value: Some(value.into()), replaces: replaces.to_vec() }
}

fn delete(path: &str, replaces: &[ValueName]) -> CellOp {
    CellOp { value: None, ..put(path, "", replaces) }
}

/// The value that operation `index` of the entry at `position` wrote.
fn value(position: &Position, index: u32) -> ValueName {
    ValueName { log: position.log, seq: position.seq, index, id16: position.id.first16() }
}

/// The state that a replica comes to when these runs arrive in this order.
fn state(database: DatabaseId, runs: &[String]) -> Value {
    let runs: Vec<_> =
        runs.iter().map(|run| verified(&unhex(&json!(run)), database).unwrap()).collect();
    let storage = replica(database);
    admit_in_turn(&storage, &runs);
    let tx = storage.read().unwrap();
    let view = View::new(&*tx);
    let stores: Vec<Value> = view
        .stores()
        .unwrap()
        .into_iter()
        .map(|store| {
            let mut cells = Vec::new();
            if store.id.kind.has_cells() {
                view.scan_cells(&store.id, &Path::default(), None, &mut |cell| {
                    cells.push(cell_value(&cell));
                    ControlFlow::Continue(())
                })
                .unwrap();
            }
            let mut object = json!({
                "kind": store.id.kind.0, "name": store.id.name,
                "digest": store.digest.map(hex), "live": store.live, "cells": cells,
            });
            if store.id.kind.has_sums() {
                let mut sums = Vec::new();
                view.scan_sums(&store.id, &Path::default(), None, &mut |path, sum| {
                    sums.push(json!({ "path": hex(path.as_bytes()), "sum": sum.to_string() }));
                    ControlFlow::Continue(())
                })
                .unwrap();
                object["sums"] = sums.into();
            }
            object
        })
        .collect();
    json!({
        "frontier_digest": hex(view.frontier_digest().unwrap()),
        "state_digest": view.state_digest().unwrap().map(hex),
        "stores": stores,
    })
}

/// A cell with its live values, the winner first.
fn cell_value(cell: &Cell) -> Value {
    let values: Vec<Value> = cell
        .values
        .iter()
        .map(|v| {
            json!({
                "entry": v.entry.to_string(), "device": hex(v.name.log.device.0),
                "epoch": v.name.log.epoch, "sequence": v.name.seq, "index": v.name.index,
                "timestamp": v.timestamp.0, "value": hex(&v.value),
            })
        })
        .collect();
    json!({ "path": hex(cell.path.as_bytes()), "values": values })
}

fn plain() -> Vec<Value> {
    let mut one = Story::new();
    let first = one.write(ANN, &[], 10, &[put("a", "1", &[]), put("b", "2", &[])]);
    let mut over = Story::new();
    let seen = over.write(ANN, &[], 10, &[put("a", "1", &[])]);
    assert_eq!(seen.seq, first.seq);
    over.write(BOB, &[seen], 5, &[put("a", "2", &[value(&seen, 0)])]);
    let mut gone = Story::new();
    let seen = gone.write(ANN, &[], 10, &[put("a", "1", &[])]);
    gone.write(ANN, &[], 11, &[delete("a", &[value(&seen, 0)])]);
    vec![
        Story::new().case("only genesis"),
        one.case("two cells"),
        over.case("replaced by an entry with an earlier clock"),
        gone.case("deleted: the store stays, with no live value"),
    ]
}

fn conflicts() -> Vec<Value> {
    let two = |clocks: (u64, u64)| {
        let mut story = Story::new();
        let ann = story.write(ANN, &[], clocks.0, &[put("a", "ann's", &[])]);
        let bob = story.write(BOB, &[], clocks.1, &[put("a", "bob's", &[])]);
        (story, ann, bob)
    };
    let (by_clock, ..) = two((10, 11));
    let (by_id, ..) = two((10, 10));
    let (mut resolved, ann, bob) = two((10, 11));
    let both = [value(&ann, 0), value(&bob, 0)];
    resolved.write(CID, &[ann, bob], 12, &[put("a", "settled", &both)]);
    let mut survives = Story::new();
    let base = survives.write(ANN, &[], 10, &[put("a", "1", &[])]);
    survives.write(ANN, &[], 11, &[delete("a", &[value(&base, 0)])]);
    survives.write(BOB, &[base], 9, &[put("a", "2", &[value(&base, 0)])]);
    let mut within = Story::new();
    within.write(ANN, &[], 10, &[put("a", "index 0", &[]), put("a", "index 1", &[])]);
    let mut branches = Story::new();
    let mut clone = branches.scribes[ANN].clone();
    branches.write(ANN, &[], 10, &[put("a", "one branch", &[])]);
    std::mem::swap(&mut branches.scribes[ANN], &mut clone);
    let other = branches.write(ANN, &[], 11, &[put("a", "the other", &[])]);
    branches.write(ANN, &[], 12, &[put("a", "goes on", &[value(&other, 0)])]);
    vec![
        by_clock.case("conflict: the later clock wins"),
        by_id.case("conflict at one clock: the higher entry id wins"),
        resolved.case("a write that saw both resolves the conflict"),
        survives.case("an edit survives a concurrent delete"),
        within.case("two values of one entry: the higher index wins"),
        branches.case("a forked log: both branches count, names tell them apart"),
    ]
}

/// Names of values that their writer cannot have seen.
fn lies() -> Vec<Value> {
    let mut early = Story::new();
    let ann = early.write(ANN, &[], 10, &[put("a", "1", &[])]);
    early.write(BOB, &[], 20, &[put("a", "2", &[value(&ann, 0)])]);
    let mut wrong = Story::new();
    let ann = wrong.write(ANN, &[], 10, &[put("a", "1", &[]), put("b", "1", &[])]);
    let unlike = ValueName { id16: [0; 16], ..value(&ann, 0) };
    let names = [value(&ann, 1), value(&ann, 9), unlike, value(&wrong.genesis(), 0)];
    wrong.write(BOB, &[ann], 20, &[put("a", "2", &names)]);
    vec![
        early.case("a value named by an entry that cannot know it: gone, whichever came first"),
        wrong.case("names of another cell, index or entry replace nothing"),
    ]
}

fn odd() -> Vec<Value> {
    let table = StoreId::table("t");
    let mut senseless = Story::new();
    let mut w = Writer::new();
    w.array(2).array(0).array(2).array(3).u64(0).bytes(b"?").bytes(b"v");
    w.array(3).u64(0).bytes(b"\x10a\0").bytes(b"index 1");
    senseless.payload(ANN, &[], 10, (table.clone(), w.finish()));
    let mut later = Story::new();
    let mut w = Writer::new();
    w.array(2).array(0).array(2).array(2).u64(9).text("?");
    w.array(3).u64(0).bytes(b"\x10a\0").bytes(b"v");
    later.payload(ANN, &[], 10, (table.clone(), w.finish()));
    let mut broken = Story::new();
    broken.payload(ANN, &[], 10, (table, vec![0xff]));
    let mut kind = Story::new();
    let text = StoreId { kind: StoreKind(6), name: "essay".into() };
    kind.payload(ANN, &[], 10, (text, vec![1]));
    let mut stores = Story::new();
    let log = stores.scribes[ANN].log;
    let ops = encode_cells(&log, &[put("a", "1", &[])]);
    let same = |kind| (StoreId { kind, name: "same".into() }, ops.clone());
    stores.payload(ANN, &[], 10, same(StoreKind::TABLE));
    stores.payload(ANN, &[], 11, same(StoreKind::DOC));
    stores.payload(ANN, &[], 12, same(StoreKind::FOLDER));
    let mut others = Story::new();
    others.payload(ANN, &[], 10, same(StoreKind::SET));
    others.payload(ANN, &[], 11, same(StoreKind::user(0)));
    others.payload(ANN, &[], 12, same(StoreKind::user(u16::MAX)));
    others.payload(ANN, &[], 13, same(StoreKind(StoreKind::user(u16::MAX).0 + 1)));
    let mut blobs = Story::new();
    blobs.payload(ANN, &[], 10, same(StoreKind::BLOBS));
    vec![
        senseless.case("an operation that makes no sense keeps its index"),
        later.case("an operation of a later kind: no digest"),
        broken.case("a payload that is no payload: no operations"),
        kind.case("a store of a later kind: no digest"),
        stores.case("one name, three kinds: three stores"),
        blobs.case("a store of blobs: cells, whatever their values are"),
        others.case("a set, the first and last kind for applications, and the kind after it"),
    ]
}

fn counters() -> Vec<Value> {
    let count = |path, count| CountOp { path: Path::text([path]).unwrap(), count };
    let store = |ops: &[CountOp]| (StoreId::counter("visits"), encode_counts(ops));
    let mut both = Story::new();
    both.payload(ANN, &[], 10, store(&[count("a", Count::Add(5)), count("b", Count::Add(-1))]));
    both.payload(BOB, &[], 10, store(&[count("a", Count::Add(7)), count("b", Count::Add(1))]));
    let mut reset = Story::new();
    let five = reset.payload(ANN, &[], 10, store(&[count("a", Count::Add(5))]));
    reset.payload(ANN, &[], 20, store(&[count("a", Count::Reset(-5))]));
    reset.payload(BOB, &[five], 20, store(&[count("a", Count::Add(2))]));
    let mut round = Story::new();
    round.payload(ANN, &[], 10, store(&[count("a", Count::Reset(i128::MAX))]));
    round.payload(BOB, &[], 10, store(&[count("a", Count::Add(1))]));
    vec![
        both.case("counters: what two add is summed up; a sum of 0 is as nothing"),
        reset.case("counters: a reset takes away what its writer saw"),
        round.case("counters: sums go round"),
    ]
}

fn lists() -> Vec<Value> {
    let mut story = Story::new();
    let base = Path::text(["list"]).unwrap();
    let put = |path, value: &[u8]| CellOp { path, value: Some(value.to_vec()), replaces: vec![] };
    let element = |number| {
        let path = base.join_new(number).unwrap();
        let position = path.join_bytes(&[]).unwrap();
        [put(path, b"\x61a"), put(position, b"\x81\x00")]
    };
    let doc = StoreId::doc("d");
    let ops = [element(0), element(300)].concat();
    let log = story.scribes[ANN].log;
    let made = story.payload(ANN, &[], 10, (doc.clone(), encode_cells(&log, &ops)));
    let bob = story.scribes[BOB].log;
    story.payload(BOB, &[], 10, (doc.clone(), encode_cells(&bob, &element(0))));
    let id = ElementId { entry: made.id.first16(), number: 0 };
    let moved = base.join_element(&id).unwrap().join_bytes(&[]).unwrap();
    let moved = CellOp { replaces: vec![value(&made, 1)], ..put(moved, b"\x81\x10") };
    story.payload(BOB, &[made], 20, (doc, encode_cells(&bob, &[moved])));
    vec![story.case("elements of a list, one of them moved: named by the entries that made them")]
}

#[test]
fn cells() {
    let made = [plain(), conflicts(), lies(), odd(), counters(), lists()].concat();
    for case in golden("cells", "Sets of entries, one run each, and their state", made) {
        let database: DatabaseId = text(&case["database"]).parse().unwrap();
        let runs: Vec<String> = list(&case["runs"]).iter().map(|r| text(r).to_owned()).collect();
        for turn in 0..runs.len() {
            let mut order = runs.clone();
            order.rotate_left(turn);
            assert_eq!(state(database, &order), case["state"], "{}", case["name"]);
            order.reverse();
            assert_eq!(state(database, &order), case["state"], "{} backwards", case["name"]);
        }
    }
}
