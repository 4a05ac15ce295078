//! People: their devices get in by what their own database says, and out again.

use crate::cases;
use crate::replica::{Device, write};
use crate::world::{grant, members};
use anabranch_core::author::Draft;
use anabranch_core::codec::Writer;
use anabranch_core::entry::{Entry, GrantRef, Header, Payload, StoreId, Timestamp};
use anabranch_core::error::{Error, Refusal};
use anabranch_core::founding::Founding;
use anabranch_core::head::Head;
use anabranch_core::id::LogId;
use anabranch_core::key::DeviceKey;
use anabranch_core::ops::{Cut, MemberOp, Role, Subject};
use anabranch_core::person::Evidence;
use anabranch_core::run::{Run, VerifiedRun};
use anabranch_core::seal::Scope;
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
    let sealed = Founding { sealed: Scope::Everything, recovery: None };
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

/// Entries in a new log of that device, with that grant, on top of all there is `at`, signed as they should be.
fn made_log(
    at: &Device,
    key: &DeviceKey,
    (epoch, grant): (u64, GrantRef),
    payloads: &[Vec<(StoreId, Payload)>],
) -> Vec<VerifiedRun> {
    let database = at.replica.database;
    let tip = at.replica.entries().pop().unwrap();
    let log = LogId { device: key.node_id(), epoch };
    let (mut runs, mut prev) = (Vec::new(), None);
    for (n, payloads) in payloads.iter().enumerate() {
        let parents = if n == 0 { vec![tip.position()] } else { vec![] };
        let signed = at.replica.view(|v| v.frontier().unwrap());
        let signed = signed.tips().iter().filter(|t| parents.contains(&t.head.position));
        let signatures = signed.map(|tip| tip.head.signature).collect();
        let header = Header {
            database: Some(database),
            log,
            seq: n as u64 + 1,
            prev,
            parents,
            generation: tip.header().generation + n as u64 + 1,
            timestamp: Timestamp(5_000_000 + n as u64),
            grant,
            payloads: vec![],
            salt: None,
        };
        let entry = Entry::new(header, payloads.clone()).unwrap();
        prev = Some(entry.id());
        let head = Head::sign(key, &database, entry.position()).signature;
        runs.push(Run::new(database, vec![entry], head, signatures).verify().unwrap());
    }
    runs
}

fn holding(at: &Device, subject: Subject) -> GrantRef {
    let grants = at.replica.view(|v| v.grants().unwrap());
    grants.iter().find(|g| g.subject == subject && g.holds).unwrap().id
}

fn of(device: &Device) -> Subject {
    Subject::Device(device.key.node_id())
}

/// A signature over a parent that nobody would look at, since a run ends there, would let one replica take what another refuses.
#[test]
fn a_forged_parent_in_evidence_is_refused_whatever_else_is_in_it() {
    let ana = Person::new();
    let home = &ana.phone;
    let grant = (5, holding(home, of(home)));
    let [last] = &made_log(home, &ana.phone.key, grant, &[vec![]])[..] else { panic!() };
    let forged = anabranch_core::key::Signature([7; 64]);
    let head = last.head().signature;
    let forged = Run::new(home.replica.database, last.entries().to_vec(), head, vec![forged]);
    let mut w = Writer::new();
    let runs = home.replica.outgoing(&Device::found_like(home, 99).replica);
    w.array(runs.len() + 1);
    runs.iter().for_each(|run| run.encode(&mut w));
    let mut right = w.finish();
    let mut wrong = right.clone();
    for (bytes, run) in [(&mut right, last.clone()), (&mut wrong, forged.verify().unwrap())] {
        let mut w = Writer::new();
        run.encode(&mut w);
        bytes.extend(w.finish());
    }
    assert!(Evidence::decode(home.replica.database, &right).is_ok());
    let refused = Evidence::decode(home.replica.database, &wrong);
    assert!(matches!(refused, Err(Error::Refused(Refusal::ParentNotHead(_)))), "{refused:?}");
}

/// What a device wrote before it was put out stays, whatever her other devices say of what they had heard.
#[test]
fn a_device_that_has_heard_little_takes_nothing_away() {
    for role in [Role::Relay, Role::Write] {
        let mut ana = Person::new();
        let tablet = ana.laptop.admit(3, role);
        ana.laptop.meet(&ana.phone);
        let mut ben = granted(&ana.laptop, Role::Write);
        let start = join(&ben, 9);
        let person = holding(&ben, Subject::Person(ana.laptop.replica.database));
        let mut phone = join(&ben, 2);
        embed(&mut phone, &evidence(&ana.phone));
        phone.put(vec![write(&["a"], Some("years of work"))]);
        phone.meet(&ben);
        ana.put_out(&ana.phone.key.clone());
        let mut laptop = join(&ben, 1);
        embed(&mut laptop, &evidence(&ana.laptop));
        laptop.meet(&ben);
        let told = MemberOp::Embed { evidence: evidence(&ana.laptop).encode() };
        let runs = made_log(&start, &tablet.key, (5, person), &[vec![members(&[told])]]);
        runs.iter().for_each(|run| ben.replica.admit_one(run).unwrap());
        assert_eq!(ben.values(&["a"]), ["years of work"]);
        // Nor is more left by one that may not write at hers.
        let mut phone = phone.clone_to([8; 32]);
        phone.put(vec![write(&["a"], Some("theft"))]);
        let stolen = phone.replica.copy();
        let at = Device { replica: stolen, ..phone };
        let told = MemberOp::Embed { evidence: evidence(&ana.laptop).encode() };
        let after = made_log(&at, &tablet.key, (6, person), &[vec![members(&[told])]]);
        at.replica.update(&ben.replica, usize::MAX);
        after.iter().for_each(|run| ben.replica.admit_one(run).unwrap());
        let left = if role == Role::Relay { "years of work" } else { "theft" };
        assert_eq!(ben.values(&["a"]), [left]);
        ben.put(vec![write(&["b"], Some("on"))]);
    }
}

/// A device fills up what could be told, in a log that it shows nobody at home, and is put out all the same.
#[test]
fn who_tells_too_much_is_put_out_too() {
    let mut ana = Person::new();
    let ben = granted(&ana.laptop, Role::Write);
    let grant = (77, holding(&ana.laptop, of(&ana.phone)));
    let hidden = Device::found_like(&ana.laptop, 2);
    ana.phone.replica.update(&hidden.replica, usize::MAX);
    let held = hidden.replica.entries().len();
    let runs = made_log(&hidden, &ana.phone.key, grant, &vec![vec![]; 512 - held]);
    // In few runs, as it would.
    for run in &runs {
        hidden.replica.admit_one(run).unwrap();
    }
    let mut phone = join(&ben, 2);
    let full = evidence(&hidden);
    assert_eq!(embed(&mut phone, &full), 1);
    phone.meet(&ben);
    ana.put_out(&ana.phone.key.clone());
    let mut laptop = join(&ben, 1);
    assert_eq!(embed(&mut laptop, &evidence(&ana.laptop)), 1);
    assert_eq!((role(&laptop, &phone), role(&laptop, &laptop)), (None, Some(Role::Write)));
    assert_eq!(embed(&mut laptop, &evidence(&ana.laptop)), 0);
}

/// One that may only read at hers says it first, which ends nothing; so it is said again by one that may.
#[test]
fn what_a_reader_told_is_told_again_by_who_may_put_out() {
    let mut ana = Person::new();
    let tablet = ana.laptop.admit(3, Role::Read);
    ana.laptop.meet(&ana.phone);
    let ben = granted(&ana.laptop, Role::Write);
    let mut phone = join(&ben, 2);
    embed(&mut phone, &evidence(&ana.phone));
    phone.meet(&ben);
    ana.put_out(&ana.phone.key.clone());
    let mut reader = join(&ben, 3);
    assert_eq!(embed(&mut reader, &evidence(&ana.laptop)), 0, "it has nothing to grant");
    let person = holding(&ben, Subject::Person(ana.laptop.replica.database));
    let told = MemberOp::Embed { evidence: evidence(&ana.laptop).encode() };
    let runs = made_log(&ben, &tablet.key, (5, person), &[vec![members(&[told])]]);
    runs.iter().for_each(|run| ben.replica.admit_one(run).unwrap());
    assert_eq!(role(&ben, &phone), Some(Role::Write));
    let mut laptop = join(&ben, 1);
    assert_eq!(embed(&mut laptop, &evidence(&ana.laptop)), 1);
    assert_eq!(role(&laptop, &phone), None);
    assert_eq!(embed(&mut laptop, &evidence(&ana.laptop)), 0);
}

#[test]
fn who_is_put_out_by_hand_or_leaves_is_not_let_in_by_being_a_device_of_hers() {
    let ana = Person::new();
    let mut ben = granted(&ana.laptop, Role::Write);
    let mut phone = join(&ben, 2);
    embed(&mut phone, &evidence(&ana.phone));
    phone.meet(&ben);
    let grant = holding(&ben, of(&phone));
    ben.grant(&[MemberOp::Revoke { grant, cut: Cut::Past }]).unwrap();
    ben.seal();
    let mut laptop = join(&ben, 1);
    assert_eq!(embed(&mut laptop, &evidence(&ana.laptop)), 0);
    assert_eq!(role(&laptop, &phone), None);
    let grant = holding(&laptop, of(&laptop));
    laptop.grant(&[MemberOp::Revoke { grant, cut: Cut::Past }]).unwrap();
    laptop.seal();
    assert_eq!(embed(&mut laptop, &evidence(&ana.laptop)), 0);
    assert_eq!(role(&laptop, &laptop), None);
}

/// What was told with a grant that ended is known all the same.
#[test]
fn a_grant_made_anew_does_not_forget_who_was_put_out() {
    let mut ana = Person::new();
    let mut ben = granted(&ana.laptop, Role::Write);
    let (old, thief) = (evidence(&ana.phone), ana.phone.key.node_id());
    ana.put_out(&ana.phone.key.clone());
    let mut laptop = join(&ben, 1);
    embed(&mut laptop, &evidence(&ana.laptop));
    laptop.meet(&ben);
    let person = Subject::Person(ana.laptop.replica.database);
    let revoke = MemberOp::Revoke { grant: holding(&ben, person), cut: Cut::Tips(vec![]) };
    ben.grant(&[revoke]).unwrap();
    ben.grant(&[grant(person, Role::Write, 1)]).unwrap();
    ben.seal();
    assert_eq!(ben.replica.view(|v| v.role_by(&thief, &old).unwrap()), None);
    ben.meet(&laptop);
    assert_eq!(embed(&mut laptop, &evidence(&ana.laptop)), 1);
    assert_eq!(role(&laptop, &laptop), Some(Role::Write));
}

/// The last admin does not leave because a person has devices that are admins here: they may go without anybody's saying so here.
#[test]
fn a_device_of_a_person_is_not_the_last_admin() {
    let ana = Person::new();
    let mut ben = granted(&ana.laptop, Role::Admin);
    let mut laptop = join(&ben, 1);
    embed(&mut laptop, &evidence(&ana.laptop));
    laptop.meet(&ben);
    assert_eq!(role(&ben, &laptop), Some(Role::Admin));
    let grant = holding(&ben, of(&ben));
    let left = ben.grant(&[MemberOp::Revoke { grant, cut: Cut::Past }]);
    assert!(matches!(left, Err(Error::LastAdmin)), "{left:?}");
}

/// More open tips than an entry may name do not keep a device, or a ticket's holder, out.
#[test]
fn many_open_tips_keep_nobody_out() {
    let ana = Person::new();
    let mut ben = granted(&ana.laptop, Role::Write);
    let (writer, ticket) = (DeviceKey::from_seed(&[50; 32]), DeviceKey::from_seed(&[51; 32]));
    ben.grant(&[grant(Subject::Device(writer.node_id()), Role::Write, 1)]).unwrap();
    ben.grant(&[grant(Subject::Ticket(ticket.node_id()), Role::Write, 1)]).unwrap();
    ben.seal();
    let used = holding(&ben, Subject::Device(writer.node_id()));
    let logs: Vec<_> =
        (0..300).flat_map(|n| made_log(&ben, &writer, (1_000 + n, used), &[vec![]])).collect();
    logs.iter().for_each(|run| ben.replica.admit_one(run).unwrap());
    let (mut phone, mut guest) = (join(&ben, 2), join(&ben, 6));
    assert_eq!(embed(&mut phone, &evidence(&ana.phone)), 1);
    guest.act(|ledger, author| ledger.redeem(author, &ticket).map(drop)).unwrap();
    guest.seal();
    phone.meet(&guest);
    assert_eq!(
        (role(&guest, &phone), role(&phone, &guest)),
        (Some(Role::Write), Some(Role::Write))
    );
}

/// What is known here and what was told before have most in common, and are written once.
#[test]
fn what_is_in_both_is_told_once() {
    let mut ana = Person::new();
    ana.laptop.grant(&[grant(Subject::Device(ana.phone.key.node_id()), Role::Admin, 0)]).unwrap();
    ana.laptop.seal();
    ana.laptop.meet(&ana.phone);
    let ben = granted(&ana.laptop, Role::Write);
    let give = |device: &mut Device, n: u8, rank: u32| {
        let key = DeviceKey::from_seed(&[n; 32]).node_id();
        device.grant(&[grant(Subject::Device(key), Role::Read, rank)]).unwrap();
        device.seal();
    };
    (0..180).for_each(|n| give(&mut ana.phone, 20 + n % 100, u32::from(n)));
    ana.laptop.meet(&ana.phone);
    give(&mut ana.phone, 200, 1);
    (0..160).for_each(|n| give(&mut ana.laptop, 130 + n % 50, u32::from(n)));
    let (mut laptop, mut phone) = (join(&ben, 1), join(&ben, 2));
    assert_eq!(embed(&mut phone, &evidence(&ana.phone)), 1);
    phone.meet(&laptop);
    assert_eq!(embed(&mut laptop, &evidence(&ana.laptop)), 1);
    assert_eq!(embed(&mut laptop, &evidence(&ana.laptop)), 0);
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
