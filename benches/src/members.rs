//! What members and revocations cost: commits and admission beside many of both, and a revocation that comes late.

use crate::data::Keys;
use crate::spread::Spread;
use crate::{Error, Result};
use anabranch_core::admit::{Load, admit_all};
use anabranch_core::author::{Author, Draft};
use anabranch_core::entry::Timestamp;
use anabranch_core::founding::{Founding, create};
use anabranch_core::frontier::Frontier;
use anabranch_core::id::{DatabaseId, NodeId};
use anabranch_core::key::DeviceKey;
use anabranch_core::ledger::{Ledger, found};
use anabranch_core::limits;
use anabranch_core::ops::{Cut, MemberOp, Role, Subject, TicketTerms};
use anabranch_core::outgoing::{Outgoing, Withhold};
use anabranch_core::path::Path as CellPath;
use anabranch_core::run::VerifiedRun;
use anabranch_core::storage::{Durability, Storage};
use anabranch_core::view::View;
use anabranch_core::{build, entry::StoreId};
use anabranch_store::{Options, SqliteStorage};
use serde::Serialize;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How much is measured.
pub(crate) struct Plan {
    pub(crate) members: u32,
    pub(crate) revocations: u32,
    /// Entries of the database in which a revocation comes late.
    pub(crate) entries: u64,
    /// Of these, how many cease to count.
    pub(crate) late: u64,
    pub(crate) runs: usize,
    pub(crate) json: bool,
}

/// Commits of each measurement.
const COMMITS: u64 = 4_000;

#[derive(Debug, Serialize)]
struct Outcome {
    members: u32,
    revocations: u32,
    /// Microseconds a commit, with three members and with many.
    commit: [Spread; 2],
    /// Microseconds an entry that is admitted.
    admission: [Spread; 2],
    entries: u64,
    late: u64,
    /// Milliseconds until a late revocation is settled.
    settled: f64,
    /// Milliseconds of the slowest read meanwhile.
    read: f64,
}

/// A device with a replica in a file.
struct Writer {
    key: DeviceKey,
    storage: SqliteStorage,
    clock: u64,
}

impl Writer {
    fn new(path: &Path, seed: u8) -> Result<Self> {
        let storage = SqliteStorage::create(path, Options::default())?;
        Ok(Self { key: DeviceKey::from_seed(&[seed; 32]), storage, clock: 1_000 })
    }

    fn author(&mut self) -> Author<'_> {
        self.clock += 1;
        Author {
            key: &self.key,
            wall: Timestamp(self.clock),
            fresh_epoch: u64::from(self.key.node_id().0[0]),
            instance: self.storage.instance(),
        }
    }

    fn found(&mut self) -> Result<DatabaseId> {
        let author = self.author();
        let (wall, fresh_epoch, instance) = (author.wall, author.fresh_epoch, author.instance);
        let mut tx = self.storage.write(Durability::Full)?;
        let author = Author { key: &self.key, wall, fresh_epoch, instance };
        let database = create(&mut *tx, &author, [3; 16], Founding::default())?;
        tx.commit()?;
        Ok(database)
    }

    /// Commits these in one transaction and signs.
    fn commit(&mut self, drafts: impl IntoIterator<Item = Draft>) -> Result<()> {
        let (wall, fresh_epoch, instance) = {
            let author = self.author();
            (author.wall, author.fresh_epoch, author.instance)
        };
        let author = Author { key: &self.key, wall, fresh_epoch, instance };
        let mut tx = self.storage.write(Durability::Normal)?;
        let mut ledger = Ledger::open(&mut *tx)?;
        for draft in drafts {
            ledger.commit(&author, &draft)?;
        }
        ledger.seal(&author)?;
        ledger.finish()?;
        tx.commit()?;
        Ok(())
    }

    fn members(&mut self, members: Vec<MemberOp>) -> Result<()> {
        self.commit([Draft { members, ..Draft::default() }])
    }

    /// Everything that this one has and the other lacks.
    fn runs_for(&self, other: &Self) -> Result<Vec<VerifiedRun>> {
        let theirs = {
            let tx = other.storage.read()?;
            View::new(&*tx).frontier()?
        };
        self.runs(&theirs)
    }

    fn runs(&self, theirs: &Frontier) -> Result<Vec<VerifiedRun>> {
        let tx = self.storage.read()?;
        let view = View::new(&*tx);
        let mut out = Outgoing::new(view, theirs)?;
        let mut runs = Vec::new();
        while let Some(run) = out.next(view, Withhold::NOTHING)? {
            runs.push(run.verify()?);
        }
        Ok(runs)
    }

    fn admit(&self, runs: &[VerifiedRun], load: Load) -> Result<()> {
        for batch in runs.chunks(4) {
            let mut tx = self.storage.write(Durability::Normal)?;
            admit_all(&mut *tx, batch, load, None)?;
            tx.commit()?;
        }
        Ok(())
    }
}

fn device(n: u32) -> NodeId {
    let mut seed = [9; 32];
    seed[..4].copy_from_slice(&n.to_be_bytes());
    DeviceKey::from_seed(&seed).node_id()
}

fn grant(subject: Subject, role: Role) -> MemberOp {
    MemberOp::Grant { subject, role, priority: 0, terms: TicketTerms::default() }
}

/// Measures and prints.
pub(crate) fn run(dir: &Path, plan: &Plan) -> Result<()> {
    let dir = tempfile::Builder::new().prefix("anabranch-members").tempdir_in(dir)?;
    let mut commit = [Vec::new(), Vec::new()];
    let mut admission = [Vec::new(), Vec::new()];
    for run in 0..plan.runs {
        for (which, (members, revocations)) in
            [(3, 0), (plan.members, plan.revocations)].into_iter().enumerate()
        {
            let name = |side| dir.path().join(format!("{run}-{which}-{side}"));
            let (wrote, admitted) = beside(&name("a"), &name("b"), members, revocations)?;
            commit[which].push(wrote);
            admission[which].push(admitted);
        }
    }
    let (settled, read) = late(dir.path(), plan)?;
    let outcome = Outcome {
        members: plan.members,
        revocations: plan.revocations,
        commit: commit.map(Spread::of),
        admission: admission.map(Spread::of),
        entries: plan.entries,
        late: plan.late,
        settled,
        read,
    };
    if plan.json {
        println!("{}", serde_json::to_string(&outcome)?);
    } else {
        print(&outcome);
    }
    Ok(())
}

/// Microseconds a commit and an admitted entry, by a member among others.
fn beside(a: &Path, b: &Path, members: u32, revocations: u32) -> Result<(f64, f64)> {
    let mut admin = Writer::new(a, 1)?;
    let database = admin.found()?;
    let mut writer = Writer::new(b, 2)?;
    let mut tx = writer.storage.write(Durability::Full)?;
    found(&mut *tx, database)?;
    tx.commit()?;
    let own = Subject::Device(writer.key.node_id());
    let others = (0..members.saturating_sub(2)).map(|n| Subject::Device(device(n)));
    let ops: Vec<MemberOp> =
        std::iter::once(own).chain(others).map(|subject| grant(subject, Role::Write)).collect();
    for part in ops.chunks(limits::GRANT_OPS) {
        admin.members(part.to_vec())?;
    }
    let grants = {
        let tx = admin.storage.read()?;
        View::new(&*tx).grants()?
    };
    // Not of the writer.
    let ended = grants.iter().skip(2).take(revocations as usize);
    for grant in ended {
        admin.members(vec![MemberOp::Revoke { grant: grant.id, cut: Cut::Past }])?;
    }
    writer.admit(&admin.runs_for(&writer)?, Load::AtOnce)?;
    let start = Instant::now();
    for n in 0..COMMITS / 20 {
        let drafts = (n * 20..n * 20 + 20).map(|n| Keys::Ordered.draft(n));
        writer.commit(drafts.collect::<Result<Vec<_>>>()?)?;
    }
    let wrote = start.elapsed();
    let runs = writer.runs_for(&admin)?;
    let start = Instant::now();
    admin.admit(&runs, Load::AtOnce)?;
    let each = |time: Duration| time.as_secs_f64() * 1e6 / COMMITS as f64;
    Ok((each(wrote), each(start.elapsed())))
}

/// Milliseconds until a revocation is settled by which many entries cease to count, and of the slowest read meanwhile.
fn late(dir: &Path, plan: &Plan) -> Result<(f64, f64)> {
    let mut admin = Writer::new(&dir.join("late-a"), 1)?;
    let database = admin.found()?;
    let mut writer = Writer::new(&dir.join("late-b"), 2)?;
    admin.members(vec![grant(Subject::Device(writer.key.node_id()), Role::Write)])?;
    let mut tx = writer.storage.write(Durability::Full)?;
    found(&mut *tx, database)?;
    tx.commit()?;
    writer.admit(&admin.runs_for(&writer)?, Load::AtOnce)?;
    let fill = |who: &mut Writer, from: u64, to: u64| {
        let mut from = from;
        while from < to {
            let end = to.min(from + 1_000);
            let drafts = (from..end).map(|n| Keys::Random.draft(n)).collect::<Result<Vec<_>>>()?;
            who.commit(drafts)?;
            from = end;
        }
        Ok::<_, Error>(())
    };
    let rest = plan.entries - plan.late;
    eprintln!("making a database of {} entries", plan.entries);
    fill(&mut admin, 0, rest / 2)?;
    // Half of what the other device writes replaces what the first one wrote.
    fill(&mut writer, rest / 2 - plan.late / 2, rest / 2 + plan.late / 2)?;
    admin.admit(&writer.runs_for(&admin)?, Load::Bulk)?;
    build::finish(&admin.storage, build::Budget::default())?;
    fill(&mut admin, rest / 2 + plan.late / 2, rest + plan.late / 2)?;
    let ended = {
        let tx = admin.storage.read()?;
        View::new(&*tx).grants()?[1].id
    };
    let done = AtomicBool::new(false);
    let path = dir.join("late-a");
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let storage = SqliteStorage::open(&path, Options::default())?;
            let (store, mut slowest, mut n) = (StoreId::doc("cells"), Duration::ZERO, 0);
            while !done.load(Ordering::Relaxed) {
                let start = Instant::now();
                let tx = storage.read()?;
                View::new(&*tx).cell(&store, &CellPath::text([Keys::Random.key(n)])?)?;
                slowest = slowest.max(start.elapsed());
                n += 1;
            }
            Ok::<_, Error>(slowest)
        });
        let start = Instant::now();
        let revoke = MemberOp::Revoke { grant: ended, cut: Cut::Tips(Vec::new()) };
        let revoked = admin.members(vec![revoke]);
        let settled = start.elapsed();
        done.store(true, Ordering::Relaxed);
        let read = reading.join().map_err(|_| "the reader died")??;
        revoked?;
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        Ok((milliseconds(settled), milliseconds(read)))
    })
}

fn print(outcome: &Outcome) {
    let [few, many] = outcome.commit;
    let [few_in, many_in] = outcome.admission;
    println!(
        "with {} members and {} revocations, next to three members and none:",
        outcome.members, outcome.revocations
    );
    let ratio = |many: Spread, few: Spread| many.median / few.median;
    println!("  a commit      {:.2}   {many} us to {few}", ratio(many, few));
    println!("  an admission  {:.2}   {many_in} us to {few_in}", ratio(many_in, few_in));
    println!(
        "a revocation by which {} of {} entries cease to count is settled after {:.0} ms, the slowest read meanwhile took {:.2} ms",
        outcome.late, outcome.entries, outcome.settled, outcome.read
    );
}
