//! symbols.json: frontiers, what stands for their tips, and the first symbols of their rows.

use crate::file::{golden, hex, unhex};
use anabranch_core::frontier::{Frontier, FrontierTip};
use anabranch_core::head::Head;
use anabranch_core::id::{DatabaseId, EntryId, LogId, NodeId, Position};
use anabranch_core::key::Signature;
use serde_json::{Value, json};

/// Symbols that are told of each row.
const TOLD: usize = 12;

fn frontier(tips: u8) -> Frontier {
    let tip = |n: u8| {
        let log = LogId { device: NodeId([n; 32]), epoch: u64::from(n) << 40 };
        let position = Position { log, seq: u64::from(n) * 300, id: EntryId([n ^ 0x55; 32]) };
        FrontierTip { head: Head { position, signature: Signature([0; 64]) } }
    };
    Frontier::new((1..=tips).map(tip).collect())
}

fn case(tips: u8) -> Value {
    let database = DatabaseId([0xd0 + tips; 32]);
    let frontier = frontier(tips);
    let told: Vec<Value> = frontier
        .positions()
        .zip(frontier.elements(&database))
        .map(|(p, element)| {
            json!({
                "device": hex(p.log.device.0), "epoch": p.log.epoch, "sequence": p.seq,
                "entry": hex(p.id.0), "element": hex(element.to_be_bytes()),
            })
        })
        .collect();
    let row = frontier.row(&database);
    let symbols: Vec<String> = row.symbols()[..TOLD].iter().map(|s| hex(s.to_bytes())).collect();
    json!({
        "name": format!("{tips} tips"), "database": hex(database.0), "tips": told,
        "digest": hex(frontier.digest()), "symbols": symbols,
    })
}

#[test]
fn symbol_vectors() {
    let about =
        "frontiers: for each tip the element that stands for it, the digest, the first symbols";
    let kept = golden("symbols", about, [0, 1, 2, 40].map(case).to_vec());
    // As another implementation would: the exclusive or of all elements is the first symbol's.
    for case in kept {
        let tips = case["tips"].as_array().unwrap();
        let all = tips.iter().fold(0, |sum, tip| {
            sum ^ u64::from_be_bytes(unhex(&tip["element"]).try_into().unwrap())
        });
        let first = unhex(&case["symbols"][0]);
        assert_eq!(first[..8], all.to_be_bytes());
        assert_eq!(first[16..], (tips.len() as u32).to_be_bytes());
    }
}
