//! People: their devices get in by what their own database says, and out again.

use crate::cases;
use crate::replica::{Device, write};
use crate::world::{grant, members};
use anabranch_core::author::Draft;
use anabranch_core::entry::{Entry, GrantRef, Header, Payload, StoreId, Timestamp};
use anabranch_core::error::{Error, Refusal};
use anabranch_core::founding::Founding;
use anabranch_core::head::Head;
use anabranch_core::id::LogId;
use anabranch_core::key::DeviceKey;
use anabranch_core::ops::{Cut, MemberOp, Role, Subject};
use anabranch_core::person::Evidence;
use anabranch_core::run::Run;
use proptest::prelude::*;

/// Ana's database of devices: her laptop founded it, and let her phone in. With a phone that nobody else has heard of.
struct Person {
    laptop: Device,
    phone: Device,
}

impl Person {
    fn new() -> Self {
        let mut laptop = Device::found();
        let phone = laptop.admit(2, Role::Write);
        Self { laptop, phone }
    }

    /// Ends what the laptop granted to a device.
    fn put_out(&mut self, device: &DeviceKey) {
        let device = Subject::Device(device.node_id());
        let grants = self.laptop.replica.view(|v| v.grants().unwrap());
        let grant = grants.iter().find(|g| g.subject == device && g.holds).unwrap().id;
        self.laptop.grant(&[MemberOp::Revoke { grant, cut: Cut::Past }]).unwrap();
        self.laptop.seal();
    }
}

fn evidence(of: &Device) -> Evidence {
    of.replica.view(|v| Evidence::of(v).unwrap())
}

/// Ben, whose database grants to the person.
fn granted(person: &Device, role: Role) -> Device {
    let mut ben = Device::found_as(9, Founding::default());
    ben.grant(&[grant(Subject::Person(person.replica.database), role, 1)]).unwrap();
    ben.seal();
    ben
}

/// A device with what this one has, which lets it do nothing.
fn join(at: &Device, seed: u8) -> Device {
    let device = Device::found_like(at, seed);
    at.replica.update(&device.replica, usize::MAX);
    device
}

fn embed(device: &mut Device, evidence: &Evidence) -> u32 {
    let written = device.act(|ledger, author| {
        let written = ledger.embed(author, evidence)?;
        ledger.seal(author)?;
        Ok(written)
    });
    written.unwrap()
}

fn role(at: &Device, of: &Device) -> Option<Role> {
    at.replica.view(|v| v.role_of(&of.key.node_id()).unwrap())
}

#[test]
fn a_device_of_a_person_is_in_as_long_as_it_is_one() {
    let mut ana = Person::new();
    let mut ben = granted(&ana.laptop, Role::Write);
    // Her phone was never heard of there, and writes.
    let mut phone = join(&ben, 2);
    assert!(
        phone
            .commit(&Draft { writes: vec![write(&["a"], Some("no"))], ..Draft::default() })
            .is_err()
    );
    assert_eq!(embed(&mut phone, &evidence(&ana.phone)), 1);
    assert_eq!(embed(&mut phone, &evidence(&ana.phone)), 0, "it is known");
    phone.put(vec![write(&["a"], Some("phone"))]);
    phone.meet(&ben);
    assert_eq!(ben.values(&["a"]), ["phone"]);
    // All her devices are in, each with no more than it may do at hers.
    assert_eq!(
        (role(&ben, &ana.laptop), role(&ben, &phone)),
        (Some(Role::Write), Some(Role::Write))
    );
    // The phone is stolen. Her laptop, which knows, says so; the phone goes on writing.
    ana.put_out(&ana.phone.key.clone());
    let mut laptop = join(&ben, 1);
    assert_eq!(embed(&mut laptop, &evidence(&ana.laptop)), 1);
    phone.put(vec![write(&["a"], Some("thief"))]);
    laptop.meet(&ben);
    phone.meet(&ben);
    laptop.meet(&ben);
    for device in [&ben, &laptop] {
        assert_eq!(device.values(&["a"]), ["phone"]);
        assert_eq!((role(device, &laptop), role(device, &phone)), (Some(Role::Write), None));
    }
    assert_eq!(ben.replica.digests(), laptop.replica.digests());
    // It is known everywhere, so neither has anything to add; and the phone has no say any more.
    assert_eq!(embed(&mut laptop, &evidence(&ana.laptop)), 0);
    ben.replica.update(&phone.replica, usize::MAX);
    assert_eq!(embed(&mut phone, &evidence(&ana.phone)), 0);
    ben.put(vec![write(&["b"], Some("ben"))]);
    // Taken back in at hers, it is in again, with nothing of what it wrote meanwhile.
    ana.laptop.grant(&[grant(Subject::Device(phone.key.node_id()), Role::Read, 0)]).unwrap();
    ana.laptop.seal();
    assert_eq!(embed(&mut laptop, &evidence(&ana.laptop)), 1);
    laptop.meet(&ben);
    assert_eq!((role(&ben, &phone), ben.values(&["a"])), (Some(Role::Read), vec!["phone".into()]));
}

/// What a device showed before is worth what all that is known says.
#[test]
fn old_evidence_lets_nobody_in_who_was_put_out() {
    let mut ana = Person::new();
    let mut ben = granted(&ana.laptop, Role::Admin);
    let old = evidence(&ana.phone);
    let thief = ana.phone.key.node_id();
    let shown =
        |ben: &Device, what: &Evidence| ben.replica.view(|v| v.role_by(&thief, what).unwrap());
    assert_eq!(shown(&ben, &old), Some(Role::Write));
    ana.put_out(&ana.phone.key.clone());
    // The phone was never seen there; nothing is ended, but it is told.
    let mut laptop = join(&ben, 1);
    assert_eq!(embed(&mut laptop, &evidence(&ana.laptop)), 1);
    laptop.meet(&ben);
    assert_eq!(shown(&ben, &old), None);
    // It had been given everything before, and says that it had not heard.
    let mut phone = Device::found_like(&ben, 2);
    ben.replica.update(&phone.replica, 2);
    assert_eq!(embed(&mut phone, &old), 1);
    assert_eq!(role(&phone, &phone), Some(Role::Write));
    phone.put(vec![write(&["a"], Some("thief"))]);
    phone.meet(&ben);
    assert_eq!((role(&ben, &phone), ben.values(&["a"])), (None, vec![]));
    // Who hears of it first and of her laptop later comes to the same.
    let late = Device::found_like(&ben, 7);
    phone.replica.update(&late.replica, usize::MAX);
    ben.replica.update(&late.replica, usize::MAX);
    assert_eq!((role(&late, &phone), late.values(&["a"])), (None, vec![]));
    assert_eq!(late.replica.digests(), ben.replica.digests());
    // With the grant to the person all of it ends.
    let grants = ben.replica.view(|v| v.grants().unwrap());
    let person = grants.iter().find(|g| matches!(g.subject, Subject::Person(_))).unwrap().id;
    ben.grant(&[MemberOp::Revoke { grant: person, cut: Cut::Tips(vec![]) }]).unwrap();
    assert_eq!((role(&ben, &laptop), shown(&ben, &evidence(&ana.laptop))), (None, None));
}

/// Two of her devices let one in each, and neither has heard of the other: both are in, also while one tells more than it knows
/// from its own replica.
#[test]
fn what_two_devices_tell_adds_up() {
    let mut ana = Person::new();
    ana.laptop.grant(&[grant(Subject::Device(ana.phone.key.node_id()), Role::Admin, 0)]).unwrap();
    ana.laptop.seal();
    ana.laptop.meet(&ana.phone);
    let ben = granted(&ana.laptop, Role::Write);
    let (mut laptop, mut phone) = (join(&ben, 1), join(&ben, 2));
    let tablet = ana.laptop.admit(3, Role::Write);
    let watch = ana.phone.admit(4, Role::Read);
    assert_eq!(embed(&mut laptop, &evidence(&ana.laptop)), 1);
    assert_eq!(embed(&mut phone, &evidence(&ana.phone)), 1);
    laptop.meet(&phone);
    let known = |at: &Device| (role(at, &tablet), role(at, &watch));
    assert_eq!(known(&laptop), (Some(Role::Write), Some(Role::Read)));
    assert_eq!(known(&phone), known(&laptop));
    for _ in 0..2 {
        // Each knows less at home than was told here, and has nothing to tell.
        assert_eq!(embed(&mut laptop, &evidence(&ana.laptop)), 0);
        assert_eq!(embed(&mut phone, &evidence(&ana.phone)), 0);
    }
    // What it tells next holds all of it.
    ana.phone.grant(&[grant(Subject::Device(watch.key.node_id()), Role::Write, 0)]).unwrap();
    ana.phone.seal();
    assert_eq!(embed(&mut phone, &evidence(&ana.phone)), 1);
    laptop.meet(&phone);
    assert_eq!(known(&laptop), (Some(Role::Write), Some(Role::Write)));
}

#[test]
fn a_database_with_anything_else_in_it_is_no_person() {
    let mut laptop = Device::found();
    assert_eq!(evidence(&laptop).devices().len(), 1);
    laptop.put(vec![write(&["a"], Some("1"))]);
    let of = |device: &Device| device.replica.view(Evidence::of);
    assert!(matches!(of(&laptop), Err(Error::NoPerson)));
    let sealed = Founding { sealed: true, recovery: None };
    assert!(matches!(of(&Device::found_with(sealed)), Err(Error::NoPerson)));
    // One that changed too often is not cut short.
    let mut laptop = Device::found();
    for n in 0..=255 {
        for half in [1, 2] {
            let key = DeviceKey::from_seed(&[n; 32]).node_id();
            laptop.grant(&[grant(Subject::Device(key), Role::Read, half)]).unwrap();
        }
    }
    laptop.seal();
    assert!(matches!(of(&laptop), Err(Error::PersonSize { .. })));
}

/// The grant of a person is for nothing but telling what its devices are.
#[test]
fn the_grant_of_a_person_does_nothing_else() {
    let ana = Person::new();
    let ben = granted(&ana.laptop, Role::Admin);
    let embedded = MemberOp::Embed { evidence: evidence(&ana.laptop).encode() };
    let given = |subject, role| grant(subject, role, 1);
    let own = |device: &Device| Subject::Device(device.key.node_id());
    let grants = ben.replica.view(|v| v.grants().unwrap());
    let used = grants.iter().find(|g| matches!(g.subject, Subject::Person(_))).unwrap().id;
    let ticket = Subject::Ticket(DeviceKey::from_seed(&[8; 32]).node_id());
    let text = (StoreId::table("t"), Payload::Present(vec![0x82, 0x80, 0x80]));
    let with = |ops: &[MemberOp]| vec![members(&[std::slice::from_ref(&embedded), ops].concat())];
    let laptop = own(&ana.laptop);
    let cases = [
        ("as it is", with(&[given(laptop, Role::Write)]), 0),
        ("nothing embedded", vec![members(&[given(laptop, Role::Write)])], 1),
        ("embedded last", vec![members(&[given(laptop, Role::Write), embedded.clone()])], 1),
        ("something beside it", [with(&[]), vec![text]].concat(), 1),
        ("for a ticket", with(&[given(ticket, Role::Write)]), 1),
        ("for everybody", with(&[given(Subject::Anyone, Role::Write)]), 1),
        ("a revocation", with(&[MemberOp::Revoke { grant: used, cut: Cut::Past }]), 1),
        ("for who is no device", with(&[given(own(&ben), Role::Write)]), 2),
        ("more than the device has", with(&[given(own(&ana.phone), Role::Admin)]), 2),
        ("a higher rank", with(&[grant(laptop, Role::Write, 0)]), 3),
    ];
    for (name, payloads, expected) in cases {
        let refused = made(&ben, &ana.laptop.key, used, payloads);
        let found = match refused {
            None => 0,
            Some(Refusal::Grant { .. }) => 1,
            Some(Refusal::Evidence { .. }) => 2,
            Some(Refusal::Priority { .. }) => 3,
            Some(other) => panic!("{name}: {other}"),
        };
        assert_eq!(found, expected, "{name}");
    }
    // By who is none of her devices, and with an entry that another grant is used for.
    let stranger = DeviceKey::from_seed(&[77; 32]);
    let told = made(&ben, &stranger, used, with(&[]));
    assert!(matches!(told, Some(Refusal::Evidence { .. })));
    let mut ben = ben;
    let admin = ben.grant(&[embedded]);
    assert!(matches!(admin, Err(Error::Refused(Refusal::Grant { .. }))));
}

/// Why an entry by that device on top of all there is would not be admitted.
fn made(
    at: &Device,
    key: &DeviceKey,
    grant: GrantRef,
    payloads: Vec<(StoreId, Payload)>,
) -> Option<Refusal> {
    let tip = at.replica.entries().pop().unwrap();
    let mut payloads = payloads;
    payloads.sort_by(|a, b| a.0.cmp(&b.0));
    let header = Header {
        database: Some(at.replica.database),
        log: LogId { device: key.node_id(), epoch: 9 },
        seq: 1,
        prev: None,
        parents: vec![tip.position()],
        generation: tip.header().generation + 1,
        timestamp: Timestamp(5_000_000),
        grant,
        payloads: vec![],
        salt: None,
    };
    let entry = Entry::new(header, payloads).unwrap();
    let database = at.replica.database;
    let parent = Head::sign(&at.key, &database, tip.position()).signature;
    let head = Head::sign(key, &database, entry.position()).signature;
    let run = Run::new(database, vec![entry], head, vec![parent]).verify().unwrap();
    match at.replica.copy().admit_one(&run) {
        Ok(()) => None,
        Err(Error::Refused(refusal)) => Some(refusal),
        Err(other) => panic!("{other}"),
    }
}

proptest! {
    #![proptest_config(cases(48))]

    /// Bytes that somebody embeds are evidence or are not; a changed one never shows another device.
    #[test]
    fn spoilt_evidence_shows_nobody_else(
        at in any::<prop::sample::Index>(),
        by in 1u8..,
        cut in any::<prop::sample::Index>(),
        noise in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let ana = Person::new();
        let shown = evidence(&ana.laptop);
        let (person, mut bytes) = (shown.person(), shown.encode());
        prop_assert!(Evidence::decode(person, &bytes[..cut.index(bytes.len())]).is_err());
        prop_assert!(Evidence::decode(person, &noise).is_err() || noise == [0x80]);
        let at = at.index(bytes.len());
        bytes[at] ^= by;
        if let Ok(other) = Evidence::decode(person, &bytes) {
            prop_assert_eq!(other.devices(), shown.devices());
        }
    }
}
