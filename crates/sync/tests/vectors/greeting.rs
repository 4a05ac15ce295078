//! greeting.json: what two devices sign and how they name a database, given the hash of their link's handshake.

use crate::file::{golden, hex, unhex};
use anabranch_core::codec::{Writer, keyed_hash};
use anabranch_core::id::{DatabaseId, NodeId};
use anabranch_core::key::{Context, DeviceKey, Signature, verify};
use anabranch_sync::channel::Direction;
use anabranch_sync::frame::{Code, Frame};
use anabranch_sync::session::{Config, Output, Session};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const BINDING: [u8; 32] = [0xb1; 32];
const DATABASE: DatabaseId = DatabaseId([0xdb; 32]);

fn session(seed: u8, initiator: bool) -> Session {
    Session::new(Config {
        key: DeviceKey::from_seed(&[seed; 32]),
        binding: BINDING,
        initiator,
        clock: 1_700_000_000_000_000,
        served: BTreeMap::from([(DATABASE, Direction::BOTH)]),
    })
}

/// The frames that a session wants to send now.
fn frames(session: &mut Session) -> Vec<Vec<u8>> {
    let mut sent = Vec::new();
    while let Some(output) = session.poll() {
        if let Output::Send(frame) = output {
            sent.push(frame);
        }
    }
    sent
}

fn greeting(initiator: bool, signer: &NodeId, other: &NodeId) -> Vec<u8> {
    let mut w = Writer::new();
    w.array(4).bytes(&BINDING).bool(initiator).bytes(&signer.0).bytes(&other.0);
    w.finish()
}

fn made() -> Vec<Value> {
    let (mut one, mut two) = (session(1, true), session(2, false));
    let hellos = [frames(&mut one).remove(0), frames(&mut two).remove(0)];
    one.receive(&hellos[1]);
    two.receive(&hellos[0]);
    let auths = [frames(&mut one).remove(0), frames(&mut two).remove(0)];
    let nodes = [1, 2].map(|seed| DeviceKey::from_seed(&[seed; 32]).node_id());
    let mut cases: Vec<Value> = [(0, "initiator"), (1, "responder")]
        .iter()
        .map(|&(side, name)| {
            json!({
                "name": name,
                "binding": hex(BINDING),
                "device": hex(nodes[side].0),
                "other": hex(nodes[1 - side].0),
                "hello": hex(&hellos[side]),
                "signed": hex(greeting(side == 0, &nodes[side], &nodes[1 - side])),
                "auth": hex(&auths[side]),
            })
        })
        .collect();
    let ticket = DeviceKey::from_seed(&[9; 32]);
    let mut signed = Writer::new();
    signed.array(3).bytes(&BINDING).bytes(&DATABASE.0).bytes(&nodes[0].0);
    let signed = signed.finish();
    cases.push(json!({
        "name": "the initiator shows a ticket",
        "binding": hex(BINDING),
        "database": hex(DATABASE.0),
        "ticket_key": hex(ticket.node_id().0),
        "signed": hex(&signed),
        "signature": hex(ticket.sign(Context::TicketProof, &signed).0),
    }));
    cases.push(json!({
        "name": "blinding",
        "binding": hex(BINDING),
        "database": hex(DATABASE.0),
        "blinded": hex(keyed_hash(&BINDING, &DATABASE.0)),
    }));
    cases
}

#[test]
fn greeting_vectors() {
    let cases = golden("greeting", "What is signed and blinded on a session", made());
    let array = |value: &Value| -> [u8; 32] { unhex(value).try_into().unwrap() };
    for case in &cases[..2] {
        let Ok(Frame::Auth(signature)) = Frame::decode(&unhex(&case["auth"])) else {
            unreachable!("an auth frame")
        };
        let signer = NodeId(array(&case["device"]));
        assert!(verify(&signer, Context::Greeting, &unhex(&case["signed"]), &signature));
    }
    let ticket = &cases[2];
    let signature = Signature(unhex(&ticket["signature"]).try_into().unwrap());
    let key = NodeId(array(&ticket["ticket_key"]));
    assert!(verify(&key, Context::TicketProof, &unhex(&ticket["signed"]), &signature));
    let blinding = &cases[3];
    let name = blake3_keyed(&array(&blinding["binding"]), &unhex(&blinding["database"]));
    assert_eq!(hex(name), blinding["blinded"]);
}

fn blake3_keyed(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    keyed_hash(key, message)
}

/// Both sides accept each other, and the opened database goes by its blinded name.
#[test]
fn a_session_uses_them() {
    let (mut one, mut two) = (session(1, true), session(2, false));
    for _ in 0..2 {
        for frame in frames(&mut one) {
            two.receive(&frame);
        }
        for frame in frames(&mut two) {
            one.receive(&frame);
        }
    }
    let nodes = [1, 2].map(|seed| DeviceKey::from_seed(&[seed; 32]).node_id());
    assert_eq!((one.peer(), two.peer()), (Some(nodes[1]), Some(nodes[0])));
}

/// A proof made on another link, or by the other role, convinces nobody.
#[test]
fn a_reflected_proof_is_refused() {
    let (mut one, mut two) = (session(1, true), session(2, false));
    let hello = frames(&mut two).remove(0);
    one.receive(&hello);
    let own = frames(&mut one).remove(1);
    one.receive(&own);
    let closed = std::iter::from_fn(|| one.poll())
        .any(|output| matches!(output, Output::Closed { code: Code::Protocol, .. }));
    assert!(closed);
}
