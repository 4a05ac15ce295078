//! people.json: what a person's database embeds elsewhere, and which devices that shows.

use crate::file::{golden, hex, unhex, unhex_of};
use anabranch_core::author::{Author, Draft};
use anabranch_core::entry::Timestamp;
use anabranch_core::founding::{Founding, create};
use anabranch_core::id::{DatabaseId, NodeId};
use anabranch_core::key::DeviceKey;
use anabranch_core::ledger::Ledger;
use anabranch_core::membership::Grant;
use anabranch_core::ops::{Cut, MemberOp, Role, Subject, TicketTerms};
use anabranch_core::person::Evidence;
use anabranch_core::storage::{Durability, Storage};
use anabranch_core::view::View;
use anabranch_store::MemoryStorage;
use serde_json::{Value, json};

fn key(n: u8) -> DeviceKey {
    DeviceKey::from_seed(&[n; 32])
}

fn author(key: &DeviceKey, wall: u64) -> Author<'_> {
    Author { key, wall: Timestamp(wall), fresh_epoch: 7, instance: [0; 32] }
}

fn grant(device: u8, role: Role) -> MemberOp {
    let subject = Subject::Device(key(device).node_id());
    MemberOp::Grant { subject, role, priority: 0, terms: TicketTerms::default() }
}

fn case(name: &str, steps: &[fn(&[Grant]) -> MemberOp]) -> Value {
    let (storage, founder) = (MemoryStorage::new(), key(1));
    let mut tx = storage.write(Durability::Full).unwrap();
    let database =
        create(&mut *tx, &author(&founder, 1_000), [9; 16], Founding::default()).unwrap();
    for (n, step) in steps.iter().enumerate() {
        let grants = View::new(&*tx).grants().unwrap();
        let draft = Draft { members: vec![step(&grants)], ..Draft::default() };
        let mut ledger = Ledger::open(&mut *tx).unwrap();
        let author = author(&founder, 2_000 + n as u64);
        ledger.commit(&author, &draft).unwrap();
        ledger.seal(&author).unwrap();
        ledger.finish().unwrap();
    }
    let evidence = Evidence::of(View::new(&*tx)).unwrap();
    json!({ "name": name, "database": hex(database.0), "evidence": hex(evidence.encode()), "devices": shown(&evidence) })
}

fn shown(evidence: &Evidence) -> Value {
    let device =
        |(device, role): (&NodeId, &Role)| json!({ "device": hex(device.0), "role": role.name() });
    evidence.devices().iter().map(device).collect()
}

#[test]
fn people() {
    let revoke = |grants: &[Grant]| MemberOp::Revoke { grant: grants[1].id, cut: Cut::Past };
    let cases = vec![
        case("one device", &[]),
        case("two devices", &[|_| grant(2, Role::Write)]),
        case("a device put out", &[|_| grant(2, Role::Write), |_| grant(3, Role::Read), revoke]),
    ];
    for case in golden("people", "Entries of people's databases, as others embed them", cases) {
        let database = DatabaseId(unhex_of(&case["database"]));
        let evidence = Evidence::decode(database, &unhex(&case["evidence"])).unwrap();
        assert_eq!(shown(&evidence), case["devices"], "{}", case["name"]);
    }
}
