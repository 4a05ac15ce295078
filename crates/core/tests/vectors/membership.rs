//! membership.json: which entries are admissible on which ground, and who may do what after it.

use crate::file::{golden, hex, list, text, unhex, unhex_of};
use crate::world::{Scribe, Spec, World, admit, encoded, grant, members, replica, verified};
use anabranch_core::codec::Writer;
use anabranch_core::entry::{Entry, GrantRef, Payload, PayloadSummary, StoreId};
use anabranch_core::error::{Error, Refusal};
use anabranch_core::head::Head;
use anabranch_core::id::{DatabaseId, NodeId, Position};
use anabranch_core::key::DeviceKey;
use anabranch_core::ops::{
    Cut, MemberOp, Role, Subject, TicketTerms, encode_cells, redemption_message,
};
use anabranch_core::run::Run;
use anabranch_core::storage::Storage;
use anabranch_core::view::View;
use serde_json::{Value, json};

/// What comes of the last run after all before it were admitted.
fn outcome(database: DatabaseId, runs: &[Vec<u8>]) -> (&'static str, Vec<Value>) {
    let storage = replica(database);
    let (last, ground) = runs.split_last().unwrap();
    for run in ground {
        assert!(admit(&storage, &verified(run, database).unwrap()).unwrap(), "the ground");
    }
    let result = match admit(&storage, &verified(last, database).unwrap()) {
        Ok(true) => "admitted",
        Ok(false) => "waits",
        Err(Error::Refused(refusal)) => match refusal {
            Refusal::ParentNotHead(_) => "refused: a parent is no head",
            Refusal::Generation { .. } => "refused: generation",
            Refusal::NotPermitted { .. } => "refused: role",
            Refusal::Grant { .. } => "refused: grant",
            Refusal::Priority { .. } => "refused: priority",
            Refusal::Depth { .. } => "refused: depth",
            Refusal::Target { .. } => "refused: target",
            Refusal::Rank { .. } => "refused: rank",
            Refusal::Revoked { .. } => "refused: revoked",
            Refusal::CutNotHead(_) => "refused: a cut is no head",
            Refusal::OwnParent { .. } => "refused: own log as parent",
            Refusal::Genesis => "refused: genesis",
            Refusal::MembersAbsent { .. } | Refusal::PayloadAbsent { .. } => {
                "refused: payload absent"
            }
            other => unreachable!("{other}"),
        },
        Err(other) => unreachable!("{other}"),
    };
    let tx = storage.read().unwrap();
    let view = View::new(&*tx);
    let roles = (1..=4).map(|seed| role(view, DeviceKey::from_seed(&[seed; 32]).node_id()));
    (result, roles.collect())
}

fn role(view: View<'_>, device: NodeId) -> Value {
    let role = view.role_of(&device).unwrap();
    json!({ "device": hex(device.0), "role": role.map(Role::name) })
}

fn case(name: &str, database: DatabaseId, runs: Vec<Vec<u8>>) -> Value {
    let (result, roles) = outcome(database, &runs);
    json!({
        "name": name,
        "database": database.to_string(),
        "runs": runs.iter().map(hex).collect::<Vec<_>>(),
        "last": result,
        "roles": roles,
    })
}

/// Founded by `ann`, where `bob` may write and `cid` read.
#[derive(Clone)]
struct Ground {
    world: World,
    ann: Scribe,
    bob: Scribe,
    cid: Scribe,
    dan: Scribe,
    runs: Vec<Vec<u8>>,
    genesis: Position,
}

const BOB_MAY: u32 = 1;
const CID_MAY: u32 = 2;

impl Ground {
    fn new() -> Self {
        let [mut ann, bob, cid, dan] = [1, 2, 3, 4].map(Scribe::new);
        let ops = [
            grant(Subject::Device(ann.log.device), Role::Admin, 0),
            grant(Subject::Device(bob.log.device), Role::Write, 0),
            grant(Subject::Device(cid.log.device), Role::Read, 0),
        ];
        let (world, genesis) = World::founded_with(&mut ann, &ops);
        let runs = vec![encoded(&world.run(&[&genesis]))];
        Self { world, ann, bob, cid, dan, runs, genesis: genesis.position() }
    }

    fn data(&self, who: &Scribe) -> Vec<(StoreId, Vec<u8>)> {
        vec![(StoreId::table("t"), encode_cells(&who.log, &[]))]
    }

    fn keep(&mut self, entry: &Entry) -> Position {
        self.runs.push(encoded(&self.world.run(&[entry])));
        entry.position()
    }

    fn case(&self, name: &str) -> Value {
        case(name, self.world.database, self.runs.clone())
    }
}

fn spec(parents: &[Position], grant: GrantRef, payloads: Vec<(StoreId, Vec<u8>)>) -> Spec {
    Spec { parents: parents.to_vec(), timestamp: 5, grant, payloads, lie: 0 }
}

fn genesis_cases() -> Vec<Value> {
    let founded = |ops: &[MemberOp]| {
        let mut ann = Scribe::new(1);
        let (world, genesis) = World::founded_with(&mut ann, ops);
        (world.database, vec![encoded(&world.run(&[&genesis]))])
    };
    let [ann, bob] = [1, 2].map(|seed| Subject::Device(Scribe::new(seed).log.device));
    let of = |name, ops: &[MemberOp]| {
        let (database, runs) = founded(ops);
        case(name, database, runs)
    };
    vec![
        of("genesis that names its device as admin", &[grant(ann, Role::Admin, 0)]),
        of(
            "genesis with a second admin",
            &[grant(ann, Role::Admin, 0), grant(bob, Role::Admin, 9)],
        ),
        of("genesis that names another device", &[grant(bob, Role::Admin, 0)]),
        of("genesis that makes a writer", &[grant(ann, Role::Write, 0)]),
        of("genesis at priority 1", &[grant(ann, Role::Admin, 1)]),
        of("genesis without a grant", &[]),
    ]
}

fn data_cases() -> Vec<Value> {
    let mut cases = Vec::new();
    // Who writes with which grant of genesis.
    for (name, who, index) in [
        ("a writer writes", "bob", BOB_MAY),
        ("a reader writes", "cid", CID_MAY),
        ("with the grant of another device", "dan", BOB_MAY),
        ("with a grant that nobody made", "bob", 7),
    ] {
        let mut g = Ground::new();
        let grant = g.world.granted(index);
        let mut scribe = match who {
            "bob" => g.bob.clone(),
            "cid" => g.cid.clone(),
            _ => g.dan.clone(),
        };
        let data = g.data(&scribe);
        let entry = g.world.write(&mut scribe, spec(&[g.genesis], grant, data));
        g.keep(&entry);
        cases.push(g.case(name));
    }
    let mut lies = Ground::new();
    let (grant, data) = (lies.world.granted(BOB_MAY), lies.data(&lies.bob));
    let lying = Spec { lie: 1, ..spec(&[lies.genesis], grant, data) };
    let entry = lies.world.write(&mut lies.bob, lying);
    lies.keep(&entry);
    cases.push(lies.case("a generation too high"));
    cases.extend(past_cases());
    cases.extend(stripped_cases());
    cases
}

/// Entries whose payloads somebody took out on the way.
fn stripped_cases() -> Vec<Value> {
    let case_of = |name, payload: fn(&Ground) -> (StoreId, Vec<u8>)| {
        let mut g = Ground::new();
        let spec = spec(&[], g.world.admin, vec![payload(&g)]);
        let entry = g.world.write(&mut g.ann, spec);
        let whole = g.world.run(&[&entry]);
        g.runs.push(encoded(&without_payloads(&g.world, &whole)));
        g.case(name)
    };
    vec![
        case_of("a payload is absent", |g| g.data(&g.ann).remove(0)),
        case_of("the members payload is absent", |_| members(&[])),
    ]
}

fn without_payloads(world: &World, run: &Run) -> Run {
    let strip = |(store, payload): (&StoreId, &Payload)| {
        let PayloadSummary { len, hash, .. } = payload.summary(store.clone());
        (store.clone(), Payload::Absent { len, hash })
    };
    let stripped = |entry: &Entry| {
        Entry::new(entry.header().clone(), entry.payloads().map(strip).collect()).unwrap()
    };
    let entries: Vec<Entry> = run.entries().iter().map(stripped).collect();
    let signature = world.signature(&entries[entries.len() - 1].position());
    Run::new(world.database, entries, signature, vec![])
}

/// What must lie in an entry's past.
fn past_cases() -> Vec<Value> {
    let mut alone = Ground::new();
    let (grant, data) = (alone.world.granted(BOB_MAY), alone.data(&alone.bob));
    let entry = alone.world.write(&mut alone.bob, spec(&[], grant, data));
    alone.keep(&entry);
    let mut waits = Ground::new();
    let (grant, data) = (waits.world.admin, waits.data(&waits.ann));
    let unheard = waits.world.write(&mut waits.ann, spec(&[], grant, data));
    let (grant, data) = (waits.world.granted(BOB_MAY), waits.data(&waits.bob));
    let entry = waits.world.write(&mut waits.bob, spec(&[unheard.position()], grant, data));
    waits.keep(&entry);
    let mut unsigned = Ground::new();
    let admin = unsigned.world.admin;
    let first = unsigned.world.write(&mut unsigned.ann, spec(&[], admin, vec![]));
    let second = unsigned.world.write(&mut unsigned.ann, spec(&[], admin, vec![]));
    unsigned.runs.push(encoded(&unsigned.world.run(&[&first, &second])));
    let grant = unsigned.world.granted(BOB_MAY);
    let entry = unsigned.world.write(&mut unsigned.bob, spec(&[first.position()], grant, vec![]));
    let mut forged = unsigned.runs.clone();
    unsigned.keep(&entry);
    let head = unsigned.world.signature(&entry.position());
    let wrong = unsigned.world.signature(&second.position());
    let run = Run::new(unsigned.world.database, vec![entry], head, vec![wrong]);
    forged.push(encoded(&run));
    let mut own = Ground::new();
    let spec = spec(&[own.genesis], own.world.admin, vec![]);
    let entry = own.world.write(&mut own.ann, spec);
    own.keep(&entry);
    vec![
        own.case("its own log as a parent"),
        alone.case("the grant is not in the past"),
        waits.case("a parent has not arrived"),
        unsigned.case("a parent inside a run, its head travels along"),
        case("a parent inside a run, with a wrong head", unsigned.world.database, forged),
    ]
}

fn grant_cases() -> Vec<Value> {
    let by = |name, who: fn(&Ground) -> (Scribe, u32), ops: Vec<MemberOp>| {
        let mut g = Ground::new();
        let (mut scribe, index) = who(&g);
        let parents = if scribe.tip.is_some() { vec![] } else { vec![g.genesis] };
        let used = g.world.granted(index);
        let entry = g.world.write(&mut scribe, spec(&parents, used, vec![members(&ops)]));
        g.keep(&entry);
        g.case(name)
    };
    let dan = Subject::Device(Scribe::new(4).log.device);
    let admin = |g: &Ground| (g.ann.clone(), 0);
    let writer = |g: &Ground| (g.bob.clone(), BOB_MAY);
    let mut lower = Ground::new();
    let second = [grant(dan, Role::Admin, 5)];
    let entry =
        lower.world.write(&mut lower.ann, spec(&[], lower.world.admin, vec![members(&second)]));
    let made = lower.keep(&entry);
    let used = GrantRef { entry: made.id, index: 0 };
    let above = [grant(Subject::Anyone, Role::Read, 4)];
    let entry = lower.world.write(&mut lower.dan, spec(&[made], used, vec![members(&above)]));
    lower.keep(&entry);
    let mut later = Ground::new();
    let entry = later.world.write(
        &mut later.ann,
        spec(&[], later.world.admin, vec![members(&[grant(dan, Role::Write, 0)])]),
    );
    later.keep(&entry);
    let used = GrantRef { entry: entry.id(), index: 0 };
    let data = later.data(&later.dan);
    let entry = later.world.write(&mut later.dan, spec(&[later.genesis], used, data));
    later.keep(&entry);
    vec![
        by("an admin grants", admin, vec![grant(dan, Role::Write, 0)]),
        by("a writer grants", writer, vec![grant(dan, Role::Write, 0)]),
        by("a writer's empty members payload", writer, vec![]),
        by("an admin grants to everyone", admin, vec![grant(Subject::Anyone, Role::Read, 0)]),
        lower.case("an admin grants a higher priority than its own"),
        later.case("a grant that is held and not in the entry's past"),
    ]
}

/// A ticket's grant by `ann`, and what `dan` makes of it.
fn redeemed(
    name: &str,
    signer: &DeviceKey,
    change: impl FnOnce(&mut Vec<(StoreId, Vec<u8>)>, &Scribe),
) -> Value {
    let mut g = Ground::new();
    let ticket = DeviceKey::from_seed(&[9; 32]);
    let terms = TicketTerms { limit: Some(1), expires: Some(anabranch_core::entry::Timestamp(1)) };
    let subject = Subject::Ticket(ticket.node_id());
    let op = MemberOp::Grant { subject, role: Role::Write, priority: 2, terms };
    let entry = g.world.write(&mut g.ann, spec(&[], g.world.admin, vec![members(&[op])]));
    let made = g.keep(&entry);
    let used = GrantRef { entry: made.id, index: 0 };
    let op = MemberOp::redeem(signer, &g.world.database, &used, &g.dan.log);
    let mut payloads = vec![members(&[op])];
    change(&mut payloads, &g.dan);
    let entry = g.world.write(&mut g.dan, spec(&[made], used, payloads));
    g.keep(&entry);
    let mut case = g.case(name);
    case["redemption_message"] =
        json!(hex(redemption_message(&g.world.database, &used, &g.dan.log)));
    case["ticket_key"] = json!(hex(ticket.node_id().0));
    case
}

fn ticket_cases() -> Vec<Value> {
    let right = DeviceKey::from_seed(&[9; 32]);
    let wrong = DeviceKey::from_seed(&[8; 32]);
    vec![
        redeemed("a redemption, long after the ticket expired", &right, |_, _| {}),
        redeemed("a redemption signed by another key", &wrong, |_, _| {}),
        redeemed("a redemption along with data", &right, |payloads, dan| {
            payloads.push((StoreId::table("t"), encode_cells(&dan.log, &[])));
        }),
        redeemed("data with a ticket's grant", &right, |payloads, dan| {
            *payloads = vec![(StoreId::table("t"), encode_cells(&dan.log, &[]))];
        }),
        redeemed("two redemptions in one entry", &right, |payloads, _| {
            let op = payloads[0].1[1..].to_vec();
            let mut w = Writer::new();
            w.array(2).raw(&op).raw(&op);
            payloads[0].1 = w.finish();
        }),
    ]
}

/// Picks a scribe.
type Who = fn(&mut Ground) -> &mut Scribe;

/// For those who put others out.
impl Ground {
    /// The next entry of `who` on top of `parents`; kept, so that everybody has it.
    fn written(
        &mut self,
        who: Who,
        parents: &[Position],
        used: GrantRef,
        payloads: Vec<(StoreId, Vec<u8>)>,
    ) -> Position {
        let mut scribe = who(self).clone();
        let entry = self.world.write(&mut scribe, spec(parents, used, payloads));
        *who(self) = scribe;
        self.keep(&entry)
    }

    /// As [`Self::written`], where data is written.
    fn data_by(&mut self, who: Who, parents: &[Position], used: GrantRef) -> Position {
        let scribe = who(self).clone();
        let data = self.data(&scribe);
        self.written(who, parents, used, data)
    }

    /// The founder ends a grant.
    fn revoked(&mut self, parents: &[Position], grant: GrantRef, cut: Cut) -> Position {
        let admin = self.world.admin;
        let op = MemberOp::Revoke { grant, cut };
        self.written(|g| &mut g.ann, parents, admin, vec![members(&[op])])
    }

    /// The founder makes a grant.
    fn granted(&mut self, subject: Subject, role: Role, priority: u32) -> (Position, GrantRef) {
        let admin = self.world.admin;
        let op = grant(subject, role, priority);
        let made = self.written(|g| &mut g.ann, &[], admin, vec![members(&[op])]);
        (made, GrantRef { entry: made.id, index: 0 })
    }

    fn head(&self, position: Position) -> Head {
        Head { position, signature: self.world.signature(&position) }
    }
}

/// Bob wrote once, then the founder put him out, with that in its past.
fn put_out(cut: fn(&Ground, Position) -> Cut) -> (Ground, GrantRef, Position) {
    let mut g = Ground::new();
    let grant = g.world.granted(BOB_MAY);
    let wrote = g.data_by(|g| &mut g.bob, &[g.genesis], grant);
    let cut = cut(&g, wrote);
    let revoked = g.revoked(&[wrote], grant, cut);
    (g, grant, revoked)
}

fn revocation_cases() -> Vec<Value> {
    let (past, _, _) = put_out(|_, _| Cut::Past);
    let (listed, _, _) = put_out(|g, wrote| Cut::Tips(vec![g.head(wrote)]));
    let (nothing, _, _) = put_out(|_, _| Cut::Tips(vec![]));
    let (mut on_top, grant, revoked) = put_out(|_, _| Cut::Past);
    on_top.data_by(|g| &mut g.bob, &[revoked], grant);
    let (mut aside, grant, _) = put_out(|_, _| Cut::Past);
    aside.data_by(|g| &mut g.bob, &[], grant);
    let (mut unlisted, grant, _) = put_out(|g, wrote| Cut::Tips(vec![g.head(wrote)]));
    unlisted.data_by(|g| &mut g.bob, &[], grant);
    let (mut anew, _, _) = put_out(|_, _| Cut::Past);
    let (made, grant) = anew.granted(Subject::Device(anew.bob.log.device), Role::Read, 0);
    let again = anew.case("a grant after a revocation");
    let (mut old, before, _) = put_out(|_, _| Cut::Past);
    let (told, _) = old.granted(Subject::Device(old.bob.log.device), Role::Write, 0);
    old.data_by(|g| &mut g.bob, &[told], before);
    let mut cases = vec![
        past.case("a revocation that leaves its past"),
        listed.case("a revocation that leaves a place it lists"),
        nothing.case("a revocation that leaves nothing"),
        on_top.case("a revoked device writes on top of the revocation"),
        aside.case("a revoked device writes beside the revocation"),
        unlisted.case("a revoked device writes beside a revocation that lists a place below"),
        again,
        old.case("with the old grant after a new one"),
    ];
    anew.data_by(|g| &mut g.bob, &[made], grant);
    cases.push(anew.case("a writer that may only read after a new grant writes"));
    cases.extend(unfit_revocations());
    cases.extend(handed_on());
    cases.extend(tickets_closed());
    cases
}

/// What becomes of who came in by a ticket, and of the ticket.
fn tickets_closed() -> Vec<Value> {
    let key = DeviceKey::from_seed(&[9; 32]);
    let redeem = |g: &mut Ground, parents: &[Position], ticket: &GrantRef, who: Who| {
        let log = who(g).log;
        let op = MemberOp::redeem(&key, &g.world.database, ticket, &log);
        g.written(who, parents, *ticket, vec![members(&[op])])
    };
    let dan: Who = |g| &mut g.dan;
    let joined = || {
        let mut g = Ground::new();
        let (made, ticket) = g.granted(Subject::Ticket(key.node_id()), Role::Write, 0);
        let came = redeem(&mut g, &[made], &ticket, dan);
        (g, made, ticket, came)
    };
    let (mut again, _, ticket, came) = joined();
    let own = GrantRef { entry: came.id, index: 0 };
    let put_out = again.revoked(&[came], own, Cut::Past);
    redeem(&mut again, &[put_out], &ticket, dan);
    let (mut kept, made, ticket, came) = joined();
    let head = kept.head(came);
    let closed = kept.revoked(&[came], ticket, Cut::Tips(vec![head]));
    let mut late = kept.clone();
    redeem(&mut late, &[closed], &ticket, dan);
    let mut meanwhile = kept.clone();
    meanwhile.cid = Scribe::new(4);
    meanwhile.cid.log.epoch += 1;
    redeem(&mut meanwhile, &[made], &ticket, |g| &mut g.cid);
    let (mut shut, _, ticket, came) = joined();
    shut.revoked(&[came], ticket, Cut::Tips(vec![]));
    vec![
        again.case("a revoked device redeems its ticket, which holds, again"),
        kept.case("a ticket is revoked, and a redemption left"),
        late.case("a redemption on top of the ticket's revocation"),
        meanwhile.case("a redemption beside the ticket's revocation"),
        shut.case("a ticket is revoked, and no redemption left"),
    ]
}

/// Revocations that are refused or wait.
fn unfit_revocations() -> Vec<Value> {
    let mut rank = Ground::new();
    let (made, lower) = rank.granted(Subject::Device(rank.dan.log.device), Role::Admin, 0);
    let founder = rank.world.admin;
    let op = MemberOp::Revoke { grant: founder, cut: Cut::Past };
    rank.written(|g| &mut g.dan, &[made], lower, vec![members(&[op])]);
    let mut founder = Ground::new();
    let admin = founder.world.admin;
    founder.revoked(&[], admin, Cut::Tips(vec![]));
    let mut unknown = Ground::new();
    let never = GrantRef { entry: unknown.genesis.id, index: 9 };
    unknown.revoked(&[], never, Cut::Past);
    let mut unseen = Ground::new();
    let (made, lower) = unseen.granted(Subject::Device(unseen.dan.log.device), Role::Admin, 0);
    let (_, later) = unseen.granted(Subject::Anyone, Role::Read, 5);
    let op = MemberOp::Revoke { grant: later, cut: Cut::Past };
    unseen.written(|g| &mut g.dan, &[made], lower, vec![members(&[op])]);
    // Inside a run, so that no other head over the place is known.
    let mut inside = Ground::new();
    let (grant, data) = (inside.world.granted(BOB_MAY), inside.data(&inside.bob));
    let first = inside.world.write(&mut inside.bob, spec(&[inside.genesis], grant, data.clone()));
    let second = inside.world.write(&mut inside.bob, spec(&[], grant, data));
    inside.runs.push(encoded(&inside.world.run(&[&first, &second])));
    let mut forged = inside.clone();
    let head = inside.head(first.position());
    inside.revoked(&[], grant, Cut::Tips(vec![head]));
    let signature = forged.world.signature(&second.position());
    forged.revoked(&[], grant, Cut::Tips(vec![Head { signature, ..head }]));
    let mut missing = Ground::new();
    let grant = missing.world.granted(BOB_MAY);
    let wrote = missing.data_by(|g| &mut g.bob, &[missing.genesis], grant);
    missing.runs.pop();
    let head = missing.head(wrote);
    missing.revoked(&[], grant, Cut::Tips(vec![head]));
    let mut writer = Ground::new();
    let (own, other) = (writer.world.granted(BOB_MAY), writer.world.granted(CID_MAY));
    let op = MemberOp::Revoke { grant: other, cut: Cut::Past };
    writer.written(|g| &mut g.bob, &[writer.genesis], own, vec![members(&[op])]);
    vec![
        rank.case("a lower admin revokes the founder"),
        founder.case("the founder revokes its own grant and leaves nothing"),
        unknown.case("a grant that nobody made is revoked"),
        unseen.case("a grant is revoked that is held and not in the entry's past"),
        inside.case("a cut lists a place inside a run, with its head"),
        forged.case("a cut lists a place inside a run, with a wrong head"),
        missing.case("a cut lists a place that has not arrived"),
        writer.case("a writer revokes"),
    ]
}

/// Grants given up, for everyone, and made with others.
fn handed_on() -> Vec<Value> {
    let gives_up = |cut, data: bool| {
        let mut g = Ground::new();
        let own = g.world.granted(CID_MAY);
        let mut payloads = vec![members(&[MemberOp::Revoke { grant: own, cut }])];
        payloads.extend(data.then(|| g.data(&g.cid)).into_iter().flatten());
        let resigned = g.written(|g| &mut g.cid, &[g.genesis], own, payloads);
        (g, own, resigned)
    };
    let (resigned, _, _) = gives_up(Cut::Past, false);
    let (nothing, _, _) = gives_up(Cut::Tips(vec![]), false);
    let (along, _, _) = gives_up(Cut::Past, true);
    let (mut twice, own, _) = gives_up(Cut::Past, false);
    let op = MemberOp::Revoke { grant: own, cut: Cut::Past };
    twice.written(|g| &mut g.cid, &[], own, vec![members(&[op])]);
    let mut open = Ground::new();
    let (made, all) = open.granted(Subject::Anyone, Role::Write, 0);
    let wrote = open.data_by(|g| &mut g.dan, &[made], all);
    let opened = open.case("everybody may write");
    let closed = open.revoked(&[wrote], all, Cut::Past);
    let shut = open.case("a grant to everyone is revoked");
    open.data_by(|g| &mut g.dan, &[closed], all);
    let after = open.case("with the revoked grant to everyone");
    let mut everyone = Ground::new();
    let (made, all) = everyone.granted(Subject::Anyone, Role::Admin, 0);
    let op = MemberOp::Revoke { grant: all, cut: Cut::Past };
    everyone.written(|g| &mut g.dan, &[made], all, vec![members(&[op])]);
    let mut below = Ground::new();
    let (made, lower) = below.granted(Subject::Device(below.dan.log.device), Role::Admin, 0);
    let op = grant(Subject::Device(below.cid.log.device), Role::Admin, 0);
    below.written(|g| &mut g.dan, &[made], lower, vec![members(&[op])]);
    below.revoked(&[], lower, Cut::Tips(vec![]));
    vec![
        resigned.case("a reader gives its grant up"),
        nothing.case("a reader gives its grant up and leaves nothing"),
        along.case("a reader gives its grant up along with data"),
        twice.case("a grant is given up twice"),
        opened,
        shut,
        after,
        everyone.case("the grant to everyone is given up by one of them"),
        below.case("a grant goes with the one it was made with"),
    ]
}

#[test]
fn membership() {
    let made =
        [genesis_cases(), data_cases(), grant_cases(), ticket_cases(), revocation_cases()].concat();
    let about =
        "Runs of which all but the last are admitted, what comes of the last, and roles after it";
    for case in golden("membership", about, made) {
        let database: DatabaseId = text(&case["database"]).parse().unwrap();
        let runs: Vec<Vec<u8>> = list(&case["runs"]).iter().map(unhex).collect();
        let (result, roles) = outcome(database, &runs);
        assert_eq!(result, case["last"], "{}", case["name"]);
        assert_eq!(Value::from(roles), case["roles"], "{}", case["name"]);
        if let Some(key) = case.get("ticket_key") {
            assert_ne!(unhex_of::<32>(key), [0; 32]);
        }
    }
}
