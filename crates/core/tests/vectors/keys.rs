//! keys.json: keys, text forms, signatures and what strict verification refuses.

use crate::file::{golden, hex, text, unhex, unhex_of};
use anabranch_core::id::{DatabaseId, EntryId, NodeId};
use anabranch_core::key::{Context, DeviceKey, Signature, verify};
use serde_json::{Value, json};

const CONTEXTS: [(Context, &str); 4] = [
    (Context::Head, "head"),
    (Context::Greeting, "greeting"),
    (Context::Redemption, "redemption"),
    (Context::TicketProof, "ticket proof"),
];

fn context(name: &str) -> Context {
    CONTEXTS.iter().find(|(_, n)| *n == name).unwrap().0
}

fn key_case(name: &str, seed: [u8; 32]) -> Value {
    let key = DeviceKey::from_seed(&seed);
    let id = key.node_id();
    json!({
        "name": name,
        "seed": hex(seed),
        "public": hex(id.0),
        "node": id.to_string(),
        "entry": EntryId(id.0).to_string(),
        "database": DatabaseId(id.0).to_string(),
    })
}

fn signature_case(name: &str, purpose: &str, public: [u8; 32], signature: [u8; 64]) -> Value {
    let message = b"anabranch";
    let valid = verify(&NodeId(public), context(purpose), message, &Signature(signature));
    json!({
        "name": name,
        "context": purpose,
        "public": hex(public),
        "message": hex(message),
        "signature": hex(signature),
        "valid": valid,
    })
}

/// Adds the order of the group to the second half of a signature, which the bare equation does not notice.
fn with_larger_s(mut signature: [u8; 64]) -> [u8; 64] {
    let order = data_encoding::HEXLOWER
        .decode(b"edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010")
        .unwrap();
    let mut carry = 0u16;
    for (s, o) in signature[32..].iter_mut().zip(order) {
        let sum = u16::from(*s) + u16::from(o) + carry;
        *s = sum as u8;
        carry = sum >> 8;
    }
    signature
}

fn made() -> Vec<Value> {
    let key = DeviceKey::from_seed(&[1; 32]);
    let public = key.node_id().0;
    let sign = |purpose| key.sign(context(purpose), b"anabranch").0;
    let mut cases = vec![
        key_case("a key", [1; 32]),
        key_case("the first key of RFC 8032", {
            let mut seed = [0; 32];
            let bytes = b"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
            data_encoding::HEXLOWER.decode_mut(bytes, &mut seed).unwrap();
            seed
        }),
    ];
    for (_, name) in CONTEXTS {
        cases.push(signature_case(&format!("signature for: {name}"), name, public, sign(name)));
    }
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let mut of_neutral = [0; 64];
    of_neutral[0] = 1;
    let other = DeviceKey::from_seed(&[2; 32]).node_id().0;
    cases.extend([
        signature_case("another purpose", "greeting", public, sign("head")),
        signature_case("another key", "head", other, sign("head")),
        signature_case("s not reduced", "head", public, with_larger_s(sign("head"))),
        signature_case("key of small order", "head", neutral, of_neutral),
        signature_case("not a point", "head", [2; 32], sign("head")),
    ]);
    cases
}

#[test]
fn keys() {
    for case in golden("keys", "Device keys, text forms, signatures", made()) {
        if let Some(seed) = case.get("seed") {
            let key = DeviceKey::from_seed(&unhex_of(seed));
            assert_eq!(hex(key.node_id().0), text(&case["public"]));
            assert_eq!(text(&case["node"]).parse(), Ok(key.node_id()));
            assert_eq!(text(&case["database"]).parse(), Ok(DatabaseId(key.node_id().0)));
            assert_eq!(text(&case["entry"]).parse(), Ok(EntryId(key.node_id().0)));
            continue;
        }
        let signature = Signature(unhex_of(&case["signature"]));
        let public = NodeId(unhex_of(&case["public"]));
        let purpose = context(text(&case["context"]));
        let valid = verify(&public, purpose, &unhex(&case["message"]), &signature);
        assert_eq!(valid, case["valid"], "{}", case["name"]);
        assert_eq!(valid, text(&case["name"]).starts_with("signature for"), "{}", case["name"]);
    }
}
