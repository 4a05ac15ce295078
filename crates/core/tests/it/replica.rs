//! A replica as tests see it: storage, and what may be asked of it.

use crate::world::grant;
use anabranch_core::admit::{Load, admit_all};
use anabranch_core::author::{Author, Draft, Seen, Write};
use anabranch_core::entry::{Entry, StoreId, Timestamp};
use anabranch_core::error::{Error, Refusal};
use anabranch_core::founding::{Founding, create};
use anabranch_core::frontier::Frontier;
use anabranch_core::id::{DatabaseId, LogId, Position};
use anabranch_core::key::DeviceKey;
use anabranch_core::ledger::{Ledger, found};
use anabranch_core::ops::{MemberOp, Role, Subject};
use anabranch_core::outgoing::Outgoing;
use anabranch_core::path::Path;
use anabranch_core::run::{Run, VerifiedRun};
use anabranch_core::storage::{Durability, Storage};
use anabranch_core::view::View;
use anabranch_reference::State;
use anabranch_store::MemoryStorage;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

#[derive(Clone)]
pub(crate) struct Replica {
    pub(crate) database: DatabaseId,
    pub(crate) storage: Arc<MemoryStorage>,
    pub(crate) load: Load,
    /// Whose keys are used as they arrive.
    pub(crate) reader: Option<DeviceKey>,
}

impl Replica {
    /// Set up for `database`, holding nothing.
    pub(crate) fn empty(database: DatabaseId) -> Self {
        let storage = Arc::new(MemoryStorage::new());
        let mut tx = storage.write(Durability::Full).unwrap();
        found(&mut *tx, database).unwrap();
        tx.commit().unwrap();
        Self { database, storage, load: Load::AtOnce, reader: None }
    }

    /// What is held now, as a replica of its own.
    pub(crate) fn copy(&self) -> Self {
        Self { storage: Arc::new(self.storage.fork([0; 32])), ..self.clone() }
    }

    pub(crate) fn view<T>(&self, look: impl FnOnce(View<'_>) -> T) -> T {
        let tx = self.storage.read().unwrap();
        look(View::new(&*tx))
    }

    /// Applies a batch in one transaction: the number of new entries, and the runs that wait. On an error nothing was
    /// changed.
    pub(crate) fn admit(&self, runs: &[VerifiedRun]) -> Result<(u64, Vec<VerifiedRun>), Error> {
        let mut tx = self.storage.write(Durability::Full)?;
        let batch = admit_all(&mut *tx, runs, self.load, self.reader.as_ref())?;
        let waiting = batch.waiting.iter().map(|(run, ..)| (*run).clone()).collect();
        let done = (batch.entries, waiting);
        tx.commit()?;
        Ok(done)
    }

    /// Why `run` may not be applied.
    pub(crate) fn refusal(&self, run: Run) -> Refusal {
        let run = run.verify().expect("signed as it should be");
        match self.admit_one(&run) {
            Err(Error::Refused(refusal)) => refusal,
            other => panic!("{other:?}"),
        }
    }

    /// As [`Self::admit`] for one run, with a gap told as the error it is.
    pub(crate) fn admit_one(&self, run: &VerifiedRun) -> Result<(), Error> {
        let mut tx = self.storage.write(Durability::Full)?;
        let mut ledger = Ledger::open(&mut *tx)?;
        ledger.admit(run)?;
        ledger.finish()?;
        tx.commit()?;
        Ok(())
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        let mut list = Vec::new();
        self.view(|v| {
            v.entries(1, &mut |_, entry| {
                list.push(entry);
                Ok(ControlFlow::Continue(()))
            })
        })
        .unwrap();
        list
    }

    pub(crate) fn state(&self) -> State {
        self.view(|v| {
            let mut state = State::default();
            for info in v.stores().unwrap() {
                if info.digest.is_none() {
                    state.unknown.insert(info.id.clone());
                }
                let mut live = 0;
                v.scan_cells(&info.id, &Path::default(), None, &mut |cell| {
                    live += cell.values.len() as u64;
                    let old = state.cells.insert((info.id.clone(), cell.path), cell.values);
                    assert_eq!(old, None, "a cell is visited once");
                    ControlFlow::Continue(())
                })
                .unwrap();
                v.scan_sums(&info.id, &Path::default(), None, &mut |path, sum| {
                    live += 1;
                    assert_eq!(v.sum(&info.id, &path).unwrap(), sum);
                    let old = state.sums.insert((info.id.clone(), path), sum);
                    assert_eq!(old, None, "a sum is visited once");
                    ControlFlow::Continue(())
                })
                .unwrap();
                let kind = info.id.kind;
                assert!(!(kind.has_cells() || kind.has_sums()) || live == info.live, "{info:?}");
            }
            state
        })
    }

    pub(crate) fn frontier(&self) -> Vec<Position> {
        self.view(|v| v.frontier().unwrap().positions().copied().collect())
    }

    /// Everything that two replicas of one set of entries must agree on.
    pub(crate) fn digests(&self) -> ([u8; 32], Option<[u8; 32]>) {
        self.view(|v| (v.frontier_digest().unwrap(), v.state_digest().unwrap()))
    }

    /// The runs that `peer` lacks. Where logs are forked, both are told what they have in common, as sessions do.
    pub(crate) fn outgoing(&self, peer: &Self) -> Vec<VerifiedRun> {
        let theirs = peer.view(|v| v.frontier().unwrap());
        self.view(|v| {
            let mut out = Outgoing::new(v, &theirs).unwrap();
            let forked: BTreeSet<LogId> =
                theirs.positions().filter(|p| !v.holds(p).unwrap()).map(|p| p.log).collect();
            let ours = if forked.is_empty() { Vec::new() } else { self.entries() };
            for log in forked {
                for entry in ours.iter().filter(|e| e.header().log == log) {
                    if peer.view(|v| v.holds(&entry.position()).unwrap()) {
                        out.note_held(v, &entry.position()).unwrap();
                    }
                }
                out.forked(v, &log, None).unwrap();
            }
            std::iter::from_fn(|| out.next(v, anabranch_core::outgoing::Withhold::NOTHING).unwrap())
                .map(sound)
                .collect()
        })
    }

    /// Brings `peer` as far as its frontier shows what it lacks, in at most `limit` runs. Nothing may be sent before what
    /// it builds on, nor what is held, unless it is not signed there yet.
    pub(crate) fn update(&self, peer: &Self, limit: usize) -> usize {
        let runs = self.outgoing(peer);
        let signed = peer.view(|v| {
            let all = Outgoing::new(v, &Frontier::default()).unwrap();
            all.count(v).unwrap() == v.totals().unwrap().entries
        });
        for run in runs.iter().take(limit) {
            let (new, waiting) = peer.admit(std::slice::from_ref(run)).unwrap();
            assert_eq!(waiting, [], "a run came before what it builds on");
            assert!(!signed || new == run.entries().len() as u64, "a run was held already");
        }
        runs.len()
    }
}

/// Every run ever sent is one that every receiver takes.
pub(crate) fn sound(run: Run) -> VerifiedRun {
    run.verify().expect("within the limits and signed")
}

/// A device with a replica: it writes.
pub(crate) struct Device {
    pub(crate) key: DeviceKey,
    pub(crate) replica: Replica,
    pub(crate) clock: u64,
    pub(crate) epoch: u64,
    pub(crate) instance: [u8; 32],
}

impl Device {
    fn new(seed: u8, mut replica: Replica) -> Self {
        let (key, instance) = (DeviceKey::from_seed(&[seed; 32]), [seed; 32]);
        replica.reader = Some(key.clone());
        Self { key, replica, clock: 1_000_000, epoch: u64::from(seed) << 32, instance }
    }

    /// Founds a database.
    pub(crate) fn found() -> Self {
        Self::found_with(Founding::default())
    }

    pub(crate) fn found_with(founding: Founding) -> Self {
        Self::found_as(1, founding)
    }

    pub(crate) fn found_as(seed: u8, founding: Founding) -> Self {
        let storage = Arc::new(MemoryStorage::new());
        let load = Load::AtOnce;
        let mut device =
            Self::new(seed, Replica { database: DatabaseId([0; 32]), storage, load, reader: None });
        let storage = device.replica.storage.clone();
        let mut tx = storage.write(Durability::Full).unwrap();
        device.replica.database = create(&mut *tx, &device.author(), [7; 16], founding).unwrap();
        tx.commit().unwrap();
        device
    }

    /// A device with an empty replica of the database of `other`, granted nothing.
    pub(crate) fn found_like(other: &Self, seed: u8) -> Self {
        Self::new(seed, Replica::empty(other.replica.database))
    }

    /// Another device with what this one holds, granted `role`.
    pub(crate) fn admit(&mut self, seed: u8, role: Role) -> Self {
        let device = Self::found_like(self, seed);
        self.grant(&[grant(Subject::Device(device.key.node_id()), role, 0)]).unwrap();
        self.seal();
        self.replica.update(&device.replica, usize::MAX);
        device
    }

    pub(crate) fn grant(&mut self, ops: &[MemberOp]) -> Result<Option<Entry>, Error> {
        self.commit(&Draft { members: ops.to_vec(), ..Draft::default() })
    }

    /// The same state directory at another place, or at the same one as far as can be told.
    pub(crate) fn clone_to(&self, instance: [u8; 32]) -> Self {
        let (key, replica) = (self.key.clone(), self.replica.copy());
        let (clock, epoch) = (self.clock, self.epoch + 1_000_000);
        Self { key, replica, clock, epoch, instance }
    }

    pub(crate) fn author(&mut self) -> Author<'_> {
        self.clock += 1;
        self.epoch += 1;
        Author {
            key: &self.key,
            wall: Timestamp(self.clock),
            fresh_epoch: self.epoch,
            instance: self.instance,
        }
    }

    /// Acts in one transaction, which is kept if it succeeds.
    pub(crate) fn act<T>(
        &mut self,
        act: impl FnOnce(&mut Ledger<'_>, &Author<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let storage = self.replica.storage.clone();
        let mut tx = storage.write(Durability::Full)?;
        let mut ledger = Ledger::open(&mut *tx)?;
        let result = act(&mut ledger, &self.author())?;
        ledger.finish()?;
        tx.commit()?;
        Ok(result)
    }

    /// Commits without signing.
    pub(crate) fn commit(&mut self, draft: &Draft) -> Result<Option<Entry>, Error> {
        self.act(|ledger, author| ledger.commit(author, draft))
    }

    /// Commits these writes and signs.
    pub(crate) fn put(&mut self, writes: Vec<Write>) -> Entry {
        let draft = Draft { writes, ..Draft::default() };
        let entry = self.act(|ledger, author| {
            let entry = ledger.commit(author, &draft)?;
            ledger.seal(author)?;
            Ok(entry)
        });
        entry.unwrap().unwrap()
    }

    pub(crate) fn seal(&mut self) {
        self.act(|ledger, author| Ok(ledger.seal(author)?)).unwrap();
    }

    /// Both ways, until nothing is due.
    pub(crate) fn meet(&self, other: &Self) {
        // Each in turn, since what one brings may be why the other has nothing to say any more.
        while (self.replica.update(&other.replica, usize::MAX) > 0)
            | (other.replica.update(&self.replica, usize::MAX) > 0)
        {}
    }

    pub(crate) fn log(&self) -> LogId {
        self.replica.view(|v| v.own_log().unwrap().unwrap())
    }

    /// The values of a cell, the winner first.
    pub(crate) fn values(&self, path: &[&str]) -> Vec<String> {
        let path = Path::text(path).unwrap();
        let cell = self.replica.view(|v| v.cell(&StoreId::table("t"), &path).unwrap());
        cell.into_iter().map(|v| String::from_utf8(v.value).unwrap()).collect()
    }
}

/// A write to the store that [`Device::values`] reads.
pub(crate) fn write(path: &[&str], value: Option<&str>) -> Write {
    Write {
        store: StoreId::table("t"),
        path: Path::text(path).unwrap(),
        value: value.map(|v| v.as_bytes().to_vec()),
        seen: Seen::AtCommit,
        below: false,
        above: false,
    }
}
