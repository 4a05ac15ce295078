//! Every refusal, brought about by a run made by hand: nothing is left of it, and a good run goes in afterwards (I4, I5).

use crate::replica::Replica;
use crate::world::{RawOp, Spec, World, genesis, grant, members, payload};
use anabranch_core::entry::{Entry, GrantRef, Payload, StoreId, Timestamp};
use anabranch_core::error::{Error, Refusal};
use anabranch_core::id::{DatabaseId, EntryId, LogId, NodeId, Position};
use anabranch_core::key::{DeviceKey, Signature};
use anabranch_core::limits;
use anabranch_core::ops::{MemberOp, Role, Subject, encode_members};
use anabranch_core::path::Path;
use anabranch_core::run::{Run, RunError};

/// A database of three devices (an admin and two writers), a ticket, and a replica that holds it.
struct Case {
    world: World,
    replica: Replica,
    ticket: DeviceKey,
    /// The entry that grants: writing to the ticket (0), reading to device 3 (1), admin of rank 5 to device 1 (2).
    grants: usize,
    /// The last entry of writer 1's log, and one in the middle of it that is no head.
    tip: usize,
    middle: usize,
}

const READER: usize = 3;

impl Case {
    fn new() -> Self {
        let mut world = World::new(3);
        world.keys.push(DeviceKey::from_seed(&[44; 32]));
        let ticket = DeviceKey::from_seed(&[55; 32]);
        let mut spec = world.spec(0, 1, None);
        spec.payloads = vec![members(&[
            grant(Subject::Ticket(ticket.node_id()), Role::Write, 0),
            grant(Subject::Device(world.keys[READER].node_id()), Role::Read, 0),
            grant(Subject::Device(world.keys[1].node_id()), Role::Admin, 5),
        ])];
        let grants = world.add(spec);
        let middle = world.add(put(&world, 1, None));
        let tip = world.add(put(&world, 1, Some(middle)));
        let replica = Replica::empty(world.database);
        for (tip, count) in [(0, 1), (grants, 1), (tip, 2)] {
            replica.admit(&[world.run(tip, count).verify().unwrap()]).unwrap();
        }
        Self { world, replica, ticket, grants, tip, middle }
    }

    /// The next entry of writer 1.
    fn next(&self) -> Spec {
        put(&self.world, 1, Some(self.tip))
    }

    fn granted(&self, index: u32) -> GrantRef {
        GrantRef { entry: self.world.entries[self.grants].id(), index }
    }

    /// The refusal of a run of these entries of one log.
    fn refused(&self, specs: Vec<Spec>) -> Refusal {
        let mut world = self.world.clone();
        let list: Vec<Entry> = specs
            .into_iter()
            .map(|mut spec| {
                // Chained to the one before it.
                let last = world.entries.last().filter(|e| e.header().log == spec.log);
                spec.prev = last.map(|_| world.entries.len() - 1).or(spec.prev);
                let at = world.add(spec);
                world.entries[at].clone()
            })
            .collect();
        self.refused_run(world.run_of(list))
    }

    fn refused_run(&self, run: Run) -> Refusal {
        let before = (self.replica.digests(), self.replica.entries());
        let refusal = self.replica.refusal(run.clone());
        // As a batch of a peer it changes nothing either, whether it waits or ends the work.
        match self.replica.admit(&[run.verify().unwrap()]) {
            Ok((0, waiting)) => assert!(refusal.is_gap() && waiting.len() == 1, "{refusal}"),
            Err(Error::Refused(again)) => assert_eq!(again, refusal),
            other => panic!("{other:?}"),
        }
        assert!(
            (self.replica.digests(), self.replica.entries()) == before,
            "{refusal} left a trace"
        );
        self.still_works();
        refusal
    }

    /// A good run goes in, and the replica can be read by a new one.
    fn still_works(&self) {
        let copy = self.replica.copy();
        let mut good = self.next();
        good.timestamp = 77;
        let run = self.world.run_of(vec![self.world.make(good)]);
        assert_eq!(copy.admit(&[run.verify().unwrap()]).unwrap().0, 1);
        let other = Replica::empty(self.world.database);
        copy.update(&other, usize::MAX);
        assert_eq!(other.digests(), copy.digests());
    }
}

fn put(world: &World, device: usize, prev: Option<usize>) -> Spec {
    let mut spec = world.spec(device, 2, prev);
    spec.payloads = vec![cell(&spec.log, "value")];
    spec
}

fn cell(log: &LogId, value: &str) -> (StoreId, Payload) {
    let path = Path::text(["cell"]).unwrap().as_bytes().to_vec();
    let value = Some(value.as_bytes().to_vec());
    let op = RawOp { kind: 0, path, value, names: vec![], extra: false };
    (StoreId::table("t"), payload(log, &[op]))
}

#[test]
fn a_gap_waits_and_changes_nothing() {
    let case = Case::new();
    let mut world = case.world.clone();
    let missing = world.add(put(&world, 2, None));
    let mut spec = case.next();
    spec.parents.push(missing);
    let refusal = case.refused_run(world.run_of(vec![world.make(spec)]));
    assert_eq!(refusal, Refusal::Gap(world.log(2, 2), 1));
    let next = world.add(put(&world, 2, Some(missing)));
    let refusal = case.refused_run(world.run(next, 1));
    assert_eq!(refusal, Refusal::Gap(world.log(2, 2), 1), "prev is missing");
}

#[test]
fn a_gap_in_the_second_entry_leaves_nothing_of_the_first() {
    let case = Case::new();
    let mut world = case.world.clone();
    let missing = world.add(put(&world, 2, None));
    let first = world.add(case.next());
    let mut second = put(&world, 1, Some(first));
    second.parents.push(missing);
    let second = world.add(second);
    assert!(case.refused_run(world.run(second, 2)).is_gap());
}

#[test]
fn a_lying_generation() {
    let case = Case::new();
    for lie in [1, 100, -1, i64::MAX] {
        let refusal = case.refused(vec![Spec { lie, ..case.next() }]);
        assert!(matches!(refusal, Refusal::Generation { right: 4, .. }), "{lie}: {refusal}");
        // Further up in a run as well.
        let refusal = case.refused(vec![case.next(), Spec { lie, ..case.next() }]);
        assert!(matches!(refusal, Refusal::Generation { right: 5, .. }), "{lie}: {refusal}");
    }
    // It must count the parents: the admin's second entry is higher than the log's own start.
    let mut spec = put(&case.world, 2, None);
    (spec.parents, spec.lie) = (vec![case.grants], -1);
    assert!(matches!(case.refused(vec![spec]), Refusal::Generation { right: 3, .. }));
}

#[test]
fn a_parent_that_was_never_signed() {
    let case = Case::new();
    let mut spec = put(&case.world, 2, None);
    spec.parents.push(case.middle);
    let entry = case.world.make(spec);
    let parent = case.world.entries[case.middle].position();
    let signed = case.world.run_of(vec![entry.clone()]);
    let head = case.world.sign(&entry.position());
    let genesis = case.world.sign(&case.world.entries[0].position());
    // Any other signature of the right device will not do.
    for wrong in [Signature([0; 64]), case.world.sign(&case.world.entries[case.tip].position())] {
        let mut signatures = vec![genesis, wrong];
        if entry.header().parents[0] == parent {
            signatures.reverse();
        }
        let run = Run::new(case.world.database, vec![entry.clone()], head, signatures);
        assert_eq!(case.refused_run(run), Refusal::ParentNotHead(parent));
    }
    let run = Run::new(case.world.database, vec![entry], head, vec![]);
    assert!(matches!(case.refused_run(run), Refusal::ParentNotHead(_)), "none stated");
    // With the head it is as good as any: splitting the run above it.
    let copy = case.replica.copy();
    assert_eq!(copy.admit(&[signed.verify().unwrap()]).unwrap().0, 1);
    let other = Replica::empty(case.world.database);
    copy.update(&other, usize::MAX);
    assert_eq!(other.digests(), copy.digests());
}

#[test]
fn a_parent_in_its_own_log() {
    let case = Case::new();
    let log = case.world.log(1, 2);
    let own = |at: usize| {
        let mut spec = case.next();
        spec.parents.push(at);
        case.refused(vec![spec])
    };
    assert_eq!(own(case.tip), Refusal::OwnParent { log, seq: 3 });
    assert_eq!(own(case.middle), Refusal::OwnParent { log, seq: 3 });
}

#[test]
fn a_parent_ahead_in_its_own_log() {
    // The first entry is good; the second names a place of its own log that nobody can hold yet.
    let case = Case::new();
    let log = case.world.log(1, 2);
    for seq in [4, 5, 99] {
        let first = case.world.make(case.next());
        let mut header = first.header().clone();
        (header.seq, header.prev) = (4, Some(first.id()));
        header.generation += 1;
        header.parents.push(Position { log, seq, id: EntryId([7; 32]) });
        let second = Entry::new(header, vec![]).unwrap();
        let run = case.world.run_of(vec![first, second]);
        assert_eq!(case.refused_run(run), Refusal::OwnParent { log, seq: 4 });
    }
}

#[test]
fn a_grant_that_is_not_its_own() {
    let case = Case::new();
    let log = case.world.log(1, 2);
    let refusal = |grant| case.refused(vec![Spec { grant, ..case.next() }]);
    let expected = Refusal::Grant { log, seq: 3 };
    assert_eq!(refusal(case.world.grant(0)), expected, "the admin's");
    assert_eq!(refusal(GrantRef { entry: EntryId([1; 32]), index: 0 }), expected, "nobody's");
    assert_eq!(refusal(GrantRef { index: 9, ..case.world.grant(0) }), expected, "no such");
    assert_eq!(refusal(case.granted(2)), expected, "held, but not in its past");
    // With the granting entry in its past it serves.
    let mut spec = case.next();
    (spec.grant, spec.parents) = (case.granted(2), vec![case.grants]);
    let run = case.world.run_of(vec![case.world.make(spec)]);
    assert_eq!(case.replica.copy().admit(&[run.verify().unwrap()]).unwrap().0, 1);
}

#[test]
fn a_new_log_without_a_past() {
    let case = Case::new();
    let mut spec = put(&case.world, 1, None);
    (spec.log.epoch, spec.parents) = (9, vec![]);
    let log = spec.log;
    assert_eq!(case.refused(vec![spec]), Refusal::Grant { log, seq: 1 });
}

#[test]
fn a_reader_writes() {
    let case = Case::new();
    let mut spec = put(&case.world, READER, None);
    (spec.grant, spec.parents) = (case.granted(1), vec![case.grants]);
    let (log, role) = (spec.log, Role::Write);
    let expected = Refusal::NotPermitted { log, seq: 1, role };
    assert_eq!(case.refused(vec![spec.clone()]), expected);
    spec.payloads = vec![];
    assert_eq!(case.refused(vec![spec]), expected, "not even an empty entry");
}

#[test]
fn a_writer_grants() {
    let case = Case::new();
    let role = Role::Admin;
    let me = Subject::Device(case.world.keys[1].node_id());
    for ops in [vec![grant(me, Role::Admin, 9)], vec![]] {
        let mut spec = case.next();
        let log = spec.log;
        spec.payloads = vec![members(&ops)];
        assert_eq!(case.refused(vec![spec]), Refusal::NotPermitted { log, seq: 3, role });
    }
}

#[test]
fn an_admin_grants_above_its_rank() {
    let case = Case::new();
    let mut spec = case.next();
    let log = spec.log;
    (spec.grant, spec.parents) = (case.granted(2), vec![case.grants]);
    let low = |priority| grant(Subject::Anyone, Role::Read, priority);
    spec.payloads = vec![members(&[low(5), low(4)])];
    assert_eq!(case.refused(vec![spec.clone()]), Refusal::Priority { log, seq: 3 });
    spec.payloads = vec![members(&[low(5), low(6)])];
    let run = case.world.run_of(vec![case.world.make(spec)]);
    assert_eq!(case.replica.copy().admit(&[run.verify().unwrap()]).unwrap().0, 1);
}

/// A device that nobody knows redeems the ticket.
fn redemption(case: &Case, op: MemberOp, log: LogId) -> Spec {
    Spec {
        log,
        prev: None,
        parents: vec![case.grants],
        grant: case.granted(0),
        timestamp: 5,
        payloads: vec![members(&[op])],
        lie: 0,
    }
}

#[test]
fn a_redemption_needs_the_tickets_signature_for_this_very_log() {
    let mut case = Case::new();
    case.world.keys.push(DeviceKey::from_seed(&[66; 32]));
    let joiner = case.world.log(4, 1);
    let refused = Refusal::Grant { log: joiner, seq: 1 };
    let (database, grant) = (case.world.database, case.granted(0));
    let other = case.world.log(READER, 1);
    let later = LogId { epoch: 2, ..joiner };
    for wrong in [
        MemberOp::redeem(&case.world.keys[0], &database, &grant, &joiner),
        MemberOp::redeem(&case.ticket, &DatabaseId([0; 32]), &grant, &joiner),
        MemberOp::redeem(&case.ticket, &database, &case.granted(1), &joiner),
        MemberOp::redeem(&case.ticket, &database, &grant, &other),
        MemberOp::redeem(&case.ticket, &database, &grant, &later),
    ] {
        assert_eq!(case.refused(vec![redemption(&case, wrong, joiner)]), refused);
    }
    let good = MemberOp::redeem(&case.ticket, &database, &grant, &joiner);
    // Nothing else rides along, be it another operation, another store or a write without one.
    let mut more = redemption(&case, good.clone(), joiner);
    more.payloads = vec![members(&[good.clone(), good.clone()])];
    assert_eq!(case.refused(vec![more.clone()]), refused);
    more.payloads =
        vec![members(&[good.clone(), crate::world::grant(Subject::Anyone, Role::Admin, 0)])];
    assert_eq!(case.refused(vec![more.clone()]), refused);
    more.payloads = vec![members(std::slice::from_ref(&good)), cell(&joiner, "stowaway")];
    assert_eq!(case.refused(vec![more.clone()]), refused);
    more.payloads = vec![cell(&joiner, "ticket as a pass")];
    assert_eq!(case.refused(vec![more.clone()]), refused);
    more.payloads = vec![];
    assert_eq!(case.refused(vec![more]), refused);
    // The redemption, then a write on the strength of it; and no second one by its log's grant.
    let copy = case.replica.copy();
    let mut world = case.world;
    let first = world.add(Spec {
        log: joiner,
        prev: None,
        parents: vec![case.grants],
        grant,
        timestamp: 5,
        payloads: vec![members(std::slice::from_ref(&good))],
        lie: 0,
    });
    let own = GrantRef { entry: world.entries[first].id(), index: 0 };
    let write = Spec {
        log: joiner,
        prev: Some(first),
        parents: vec![],
        grant: own,
        timestamp: 6,
        payloads: vec![cell(&joiner, "written by a joiner")],
        lie: 0,
    };
    let again = Spec { payloads: vec![members(&[good])], ..write.clone() };
    let again = world.make(again);
    let write = world.add(write);
    for tip in [first, write] {
        assert_eq!(copy.admit(&[world.run(tip, 1).verify().unwrap()]).unwrap().0, 1);
    }
    let before = copy.digests();
    let again = world.run_of(vec![again]).verify().unwrap();
    let refusal = copy.admit_one(&again).unwrap_err();
    let role = Role::Admin;
    assert!(
        matches!(refusal, Error::Refused(Refusal::NotPermitted { role: r, .. }) if r == role),
        "{refusal}"
    );
    assert_eq!(copy.digests(), before);
}

#[test]
fn an_admin_cannot_redeem_without_a_ticket() {
    let case = Case::new();
    let mut spec = case.world.spec(0, 1, Some(case.grants));
    let op = MemberOp::redeem(&case.ticket, &case.world.database, &spec.grant, &spec.log);
    let log = spec.log;
    spec.payloads = vec![members(&[op])];
    assert_eq!(case.refused(vec![spec]), Refusal::Grant { log, seq: 3 });
}

#[test]
fn a_genesis_entry_without_an_admin_of_its_own() {
    let key = DeviceKey::from_seed(&[1; 32]);
    let me = Subject::Device(key.node_id());
    let other = Subject::Device(NodeId([3; 32]));
    for ops in [
        vec![],
        vec![grant(me, Role::Write, 0)],
        vec![grant(other, Role::Admin, 0)],
        vec![grant(other, Role::Admin, 0), grant(me, Role::Admin, 0)],
        vec![grant(Subject::Anyone, Role::Admin, 0)],
    ] {
        let entry = genesis(&key, &ops);
        let mut world = World::new(1);
        world.database = DatabaseId::of_genesis(entry.id());
        let replica = Replica::empty(world.database);
        assert_eq!(replica.refusal(world.run_of(vec![entry])), Refusal::Genesis);
        assert!(replica.entries().is_empty());
    }
}

#[test]
fn a_payload_that_was_taken_out_on_the_way() {
    // The id covers the header alone, so the entry still is what its author signed. Without its operations the state
    // would differ from everybody else's for ever, with equal frontiers.
    let case = Case::new();
    let whole = case.world.make(case.next());
    let bytes = |p: &Payload| p.bytes().unwrap().to_vec();
    let stripped = whole.payloads().map(|(store, p)| {
        let (len, hash) = (bytes(p).len() as u32, *blake3_of(&bytes(p)));
        (store.clone(), Payload::Absent { len, hash })
    });
    let stripped = Entry::new(whole.header().clone(), stripped.collect()).unwrap();
    assert_eq!(stripped.id(), whole.id());
    let log = whole.header().log;
    let refusal = case.refused_run(case.world.run_of(vec![stripped]));
    assert_eq!(refusal, Refusal::PayloadAbsent { log, seq: 3 });
    // The same of what decides who may write.
    let mut spec = case.world.spec(0, 1, Some(case.grants));
    let ops = encode_members(&[grant(Subject::Anyone, Role::Read, 0)]);
    let absent = Payload::Absent { len: ops.len() as u32, hash: *blake3_of(&ops) };
    let log = spec.log;
    spec.payloads = vec![(StoreId::members(), absent)];
    assert_eq!(case.refused(vec![spec]), Refusal::MembersAbsent { log, seq: 3 });
}

fn blake3_of(bytes: &[u8]) -> Box<[u8; 32]> {
    let summary = Payload::Present(bytes.to_vec()).summary(StoreId::table("t"));
    Box::new(summary.hash)
}

#[test]
fn a_run_must_be_signed_for_exactly_these_entries() {
    let case = Case::new();
    let entry = case.world.make(case.next());
    let position = entry.position();
    let other = case.world.entries[case.tip].position();
    let stranger = DeviceKey::from_seed(&[99; 32]);
    let forged = anabranch_core::head::Head::sign(&stranger, &case.world.database, position);
    for signature in [Signature([0; 64]), case.world.sign(&other), forged.signature] {
        let run = Run::new(case.world.database, vec![entry.clone()], signature, vec![]);
        let expected = RunError::Signature { log: position.log, seq: position.seq };
        assert_eq!(run.verify().unwrap_err(), expected);
    }
    let run = Run::new(case.world.database, vec![], Signature([0; 64]), vec![]);
    assert!(matches!(run.verify(), Err(RunError::Size { entries: 0, .. })));
}

#[test]
fn any_flipped_byte_of_a_run_is_noticed() {
    let case = Case::new();
    let mut second = put(&case.world, 1, Some(case.tip));
    second.timestamp += 1;
    let entries = vec![
        case.world.entries[case.middle].clone(),
        case.world.entries[case.tip].clone(),
        case.world.make(second),
    ];
    let mut w = anabranch_core::codec::Writer::new();
    case.world.run_of(entries).encode(&mut w);
    let bytes = w.finish();
    let read = |bytes: &[u8]| -> Result<_, RunError> {
        let mut r = anabranch_core::codec::Reader::new(bytes);
        let run = Run::decode(&mut r, case.world.database)?;
        r.finish()?;
        run.verify()
    };
    let good = read(&bytes).unwrap();
    let before = case.replica.digests();
    for at in 0..bytes.len() {
        for bit in [1, 0x80] {
            let mut wrong = bytes.clone();
            wrong[at] ^= bit;
            // A parent's head is looked at when the run is applied; and only if it is not known.
            if let Ok(run) = read(&wrong) {
                assert_eq!(run.entries(), good.entries(), "byte {at}");
            }
        }
        assert!(read(&bytes[..at]).is_err());
    }
    assert_eq!(case.replica.digests(), before);
}

#[test]
fn entries_of_another_database() {
    let case = Case::new();
    let mut w = anabranch_core::codec::Writer::new();
    case.world.run(case.tip, 1).encode(&mut w);
    let bytes = w.finish();
    let mut r = anabranch_core::codec::Reader::new(&bytes);
    // Read as entries of another database they hash to other ids, which nobody signed.
    let run = Run::decode(&mut r, DatabaseId([5; 32])).unwrap();
    assert!(matches!(run.verify(), Err(RunError::Signature { .. })));
    // A second genesis entry is the first of another database.
    let other = genesis(&case.world.keys[1], &[grant(Subject::Anyone, Role::Admin, 0)]);
    let mut w = anabranch_core::codec::Writer::new();
    case.world.run_of(vec![other]).encode(&mut w);
    let bytes = w.finish();
    let mut r = anabranch_core::codec::Reader::new(&bytes);
    assert!(matches!(Run::decode(&mut r, case.world.database), Err(RunError::Database)));
}

#[test]
fn entries_and_runs_beyond_the_limits() {
    let case = Case::new();
    let big = |len: usize| {
        let mut spec = case.next();
        let log = spec.log;
        let text = "x".repeat(len);
        spec.payloads = vec![cell(&log, &text)];
        spec
    };
    let header = case.world.make(big(1000)).bytes() - 1000 + 4;
    let largest = case.world.make(big(limits::ENTRY_BYTES - header));
    assert!(largest.bytes() <= limits::ENTRY_BYTES);
    assert!(largest.bytes() > limits::ENTRY_BYTES - 16);
    let run = case.world.run_of(vec![largest.clone()]);
    assert_eq!(case.replica.copy().admit(&[run.verify().unwrap()]).unwrap().0, 1);
    let mut shape = largest.header().clone();
    shape.payloads.clear();
    let log = shape.log;
    let value = "x".repeat(limits::ENTRY_BYTES);
    assert!(Entry::new(shape.clone(), vec![cell(&log, &value)]).is_err());
    shape.parents = (0..=limits::PARENTS as u64)
        .map(|n| {
            let log = LogId { device: NodeId([1; 32]), epoch: n };
            Position { log, seq: 1, id: EntryId([1; 32]) }
        })
        .collect();
    assert!(Entry::new(shape.clone(), vec![]).is_err(), "too many parents");
    shape.parents.pop();
    assert!(Entry::new(shape, vec![]).is_ok());
    // A run of two entries that are large together, and one of too many.
    let mut second = largest.header().clone();
    (second.seq, second.prev, second.timestamp) = (4, Some(largest.id()), Timestamp(1));
    second.generation += 1;
    let second = Entry::new(second, vec![cell(&log, &"y".repeat(limits::RUN_BYTES / 2))]).unwrap();
    let run = case.world.run_of(vec![largest, second]);
    assert!(matches!(run.clone().verify(), Err(RunError::Size { entries: 2, .. })));
    let mut w = anabranch_core::codec::Writer::new();
    run.encode(&mut w);
    let bytes = w.finish();
    let mut r = anabranch_core::codec::Reader::new(&bytes);
    let read = Run::decode(&mut r, case.world.database);
    assert!(matches!(read, Err(RunError::Size { .. })), "refused while it is read");
    let mut world = case.world;
    let mut tip = case.tip;
    for _ in 0..=limits::RUN_ENTRIES {
        tip = world.add(world.spec(1, 2, Some(tip)));
    }
    let run = world.run(tip, limits::RUN_ENTRIES + 1);
    assert!(matches!(run.verify(), Err(RunError::Size { .. })));
    assert!(world.run(tip, limits::RUN_ENTRIES).verify().is_ok());
}
