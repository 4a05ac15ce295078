//! Reading a replica's entries and logs: look-ups by place, whole entries put together again, the frontier. Everything
//! here works on one [`ReadTx`] and changes nothing.

use crate::body::Body;
use crate::codec::Reader;
use crate::entry::{Entry, GrantRef, Header};
use crate::error::{Error, corrupt};
use crate::frontier::{Frontier, FrontierTip};
use crate::head::Head;
use crate::id::{DatabaseId, EntryId, LogId, NodeId, Position, Seq};
use crate::lthash::LtHash;
use crate::names::Names;
use crate::rows::{
    Branch, BranchNo, Counters, EntryRow, GrantRow, HeadRow, META_BUILT, META_COUNTERS,
    META_DATABASE, META_FRONTIER, META_OWN, MOST, Own, Row, StoreRow, Tip, branch_key, key32,
    last4, log_key, split_branch_key,
};
use crate::sabotage::{self, Bug};
use crate::storage::{Order, ReadTx, StorageError, Table};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// The state of a replica as one transaction sees it.
#[derive(Clone, Copy)]
pub struct View<'t> {
    pub(crate) tx: &'t dyn ReadTx,
}

/// An entry's place in this replica, with the row.
pub(crate) struct Located {
    pub(crate) branch: BranchNo,
    pub(crate) row: EntryRow<'static>,
}

/// Sums over a database, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Entries held.
    pub entries: u64,
    /// Logs and branches of forked logs.
    pub branches: u64,
    /// Grants, tickets included.
    pub grants: u64,
    /// Revocations.
    pub revocations: u64,
    /// Names of replaced values whose entry is not held.
    pub names: u64,
}

/// What one device wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Written {
    /// Logs and branches of logs.
    pub logs: u64,
    /// Entries in them.
    pub entries: u64,
}

/// Logs and branches of one device beyond which [`View::crowds`] names it. None is refused for that.
pub const LOGS_OF_A_DEVICE: u64 = 64;

impl<'t> View<'t> {
    /// The tables underneath.
    #[must_use]
    pub fn tables(&self) -> &'t dyn ReadTx {
        self.tx
    }

    /// The state that `tx` sees.
    #[must_use]
    pub fn new(tx: &'t dyn ReadTx) -> Self {
        Self { tx }
    }

    /// Which database this is; `None` when the storage has been set up for none.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn database(&self) -> Result<Option<DatabaseId>, StorageError> {
        let bytes = self.tx.get(Table::Meta, META_DATABASE)?;
        bytes
            .map(|b| b.try_into().map(DatabaseId).map_err(|_| corrupt("the database id")))
            .transpose()
    }

    pub(crate) fn counters(&self) -> Result<Counters, StorageError> {
        let Some(bytes) = self.tx.get(Table::Meta, META_COUNTERS)? else {
            return Ok(Counters::NONE);
        };
        Counters::from_bytes(&bytes).map_err(|error| {
            let fields = Reader::new(&bytes).array("counters", 8);
            match fields {
                Ok(7 | 8) => StorageError::OlderVersion {
                    path: "the database".into(),
                    found: 2,
                    supported: 3,
                },
                _ => error,
            }
        })
    }

    /// Sums for `db info`.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn totals(&self) -> Result<Totals, StorageError> {
        let c = self.counters()?;
        Ok(Totals {
            entries: c.next_arrival - 1,
            branches: u64::from(c.branches),
            grants: u64::from(c.grants),
            revocations: u64::from(c.revocations),
            names: c.names,
        })
    }

    /// Arrival number that the next entry will get: grows with every entry, so it tells whether something came.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn next_arrival(&self) -> Result<u64, StorageError> {
        Ok(self.counters()?.next_arrival)
    }

    /// Arrival number of the last entry whose cells are there; `None`: all are.
    pub(crate) fn built(&self) -> Result<Option<u64>, StorageError> {
        if sabotage::is(Bug::NeverBuilt) {
            return Ok(None);
        }
        let bytes = self.tx.get(Table::Meta, META_BUILT)?;
        let number = |bytes: Vec<u8>| bytes.try_into().ok().map(u64::from_be_bytes);
        bytes.map(|b| number(b).ok_or_else(|| corrupt("how far cells are built"))).transpose()
    }

    /// Entries that were stored in a bulk load and whose cells are still to be built ([`crate::build`]); until then cells
    /// cannot be read. `None`: all are.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn building(&self) -> Result<Option<u64>, StorageError> {
        let Some(built) = self.built()? else { return Ok(None) };
        Ok(Some((self.next_arrival()? - 1).saturating_sub(built)))
    }

    pub(crate) fn require_built(&self) -> Result<(), StorageError> {
        match self.built()? {
            None => Ok(()),
            Some(_) => Err(StorageError::Building),
        }
    }

    pub(crate) fn own(&self) -> Result<Option<Own>, StorageError> {
        Own::get(self.tx, META_OWN)
    }

    /// The log this replica writes now, if it has written yet.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn own_log(&self) -> Result<Option<LogId>, StorageError> {
        Ok(self.own()?.filter(|own| own.seq > 0).map(|own| own.log))
    }

    /// Entries of this replica's own log that no signature vouches for yet, so that peers are not told of them.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn unsigned(&self) -> Result<u64, StorageError> {
        let Some(own) = self.own()? else { return Ok(0) };
        let mut unsigned = 0;
        for branch in self.branches_of(&own.log)? {
            let row = self.branch(branch)?;
            if row.tip.id == own.id {
                unsigned += u64::from(row.unsigned.0);
            }
        }
        Ok(unsigned)
    }

    pub(crate) fn branch(&self, branch: BranchNo) -> Result<Branch, StorageError> {
        let row = Branch::get(self.tx, &key32(branch))?.ok_or_else(|| corrupt("a branch"))?;
        sound(branch, row)
    }

    /// Branch numbers of `log`, ascending. Nearly always one.
    pub(crate) fn branches_of(&self, log: &LogId) -> Result<Vec<BranchNo>, StorageError> {
        let prefix = log_key(log);
        let mut found = Vec::new();
        self.tx.scan(Table::BranchByLog, &prefix, None, Order::Ascending, &mut |key, _| {
            if !key.starts_with(&prefix) {
                return ControlFlow::Break(());
            }
            found.push(last4(key));
            ControlFlow::Continue(())
        })?;
        found.into_iter().collect()
    }

    /// Devices with a right of their own that have more logs and branches than [`LOGS_OF_A_DEVICE`], and how many: such a device is
    /// copied or restored over and over, faulty, or an attacker. Cost: a step a log and branch.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn crowds(&self) -> Result<Vec<(NodeId, u64)>, StorageError> {
        let mut crowds = Vec::new();
        for (device, Written { logs, .. }) in self.written()? {
            if logs > LOGS_OF_A_DEVICE && self.is_named(&device)? {
                crowds.push((device, logs));
            }
        }
        Ok(crowds)
    }

    /// How many logs and branches each device has, and how many entries there are in them. Cost: a step a log and branch.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn written(&self) -> Result<BTreeMap<NodeId, Written>, StorageError> {
        let mut written: BTreeMap<NodeId, Written> = BTreeMap::new();
        for number in 1..=self.counters()?.branches {
            let branch = self.branch(number)?;
            let device = written.entry(branch.log.device).or_default();
            device.logs += 1;
            device.entries += branch.tip.seq - branch.base_seq();
        }
        Ok(written)
    }

    /// Branches whose tip nothing builds on, ascending.
    pub(crate) fn uncovered(&self) -> Result<Vec<BranchNo>, StorageError> {
        let mut found = Vec::new();
        self.tx.scan(Table::Uncovered, &[], None, Order::Ascending, &mut |key, _| {
            found.push(last4(key));
            ControlFlow::Continue(())
        })?;
        found.into_iter().collect()
    }

    /// Arrival number of the entry that `branch` itself owns at `seq`.
    pub(crate) fn arrival(&self, branch: BranchNo, seq: Seq) -> Result<u64, StorageError> {
        let (from, to) = (branch_key(branch, 0), branch_key(branch, seq + 1));
        let mut found = None;
        self.tx.scan(Table::Segment, &from, Some(&to), Order::Descending, &mut |key, value| {
            found = Some((split_branch_key(key), <[u8; 8]>::try_from(value)));
            ControlFlow::Break(())
        })?;
        let Some((key, Ok(first))) = found else {
            return Err(corrupt("a segment"));
        };
        let arrival = u64::from_be_bytes(first).checked_add(seq - key?.1);
        arrival.filter(|arrival| *arrival <= MOST).ok_or_else(|| corrupt("a segment"))
    }

    fn entry_bytes(&self, branch: BranchNo, seq: Seq) -> Result<Vec<u8>, StorageError> {
        let arrival = self.arrival(branch, seq)?;
        self.tx.get(Table::Entry, &arrival.to_be_bytes())?.ok_or_else(|| corrupt("an entry"))
    }

    /// Branch and place of the entry that arrived as number `arrival`.
    pub(crate) fn place_of(&self, arrival: u64) -> Result<(BranchNo, Seq), StorageError> {
        let bytes = self.tx.get(Table::Entry, &arrival.to_be_bytes())?;
        EntryRow::place_of(&bytes.ok_or_else(|| corrupt("an entry"))?)
    }

    pub(crate) fn entry_row(
        &self,
        branch: BranchNo,
        seq: Seq,
    ) -> Result<EntryRow<'static>, StorageError> {
        let row = EntryRow::from_bytes(&self.entry_bytes(branch, seq)?)?;
        if (row.branch, row.seq) == (branch, seq) { Ok(row) } else { Err(corrupt("an entry")) }
    }

    /// The entries that `branch` itself owns from `first` to `last`, with one look-up for each stretch that arrived together.
    pub(crate) fn entry_rows(
        &self,
        branch: BranchNo,
        first: Seq,
        last: Seq,
    ) -> Result<Vec<EntryRow<'static>>, StorageError> {
        let mut rows = Vec::new();
        let mut at = first;
        while at <= last {
            let (arrival, start) = (self.arrival(branch, at)?, at);
            let end = arrival + (last - at) + 1;
            let mut failed = None;
            let (from, to) = (arrival.to_be_bytes(), end.to_be_bytes());
            self.tx.scan(Table::Entry, &from, Some(&to), Order::Ascending, &mut |_, value| {
                match EntryRow::place_of(value) {
                    Ok(place) if place == (branch, at) => {}
                    _ => return ControlFlow::Break(()),
                }
                match EntryRow::from_bytes(value) {
                    Ok(row) => rows.push(row),
                    Err(e) => {
                        failed = Some(e);
                        return ControlFlow::Break(());
                    }
                }
                at += 1;
                ControlFlow::Continue(())
            })?;
            if let Some(e) = failed {
                return Err(e);
            }
            if at == start {
                return Err(corrupt("an entry"));
            }
        }
        Ok(rows)
    }

    pub(crate) fn entry_id(&self, branch: BranchNo, seq: Seq) -> Result<EntryId, StorageError> {
        EntryRow::id_of(&self.entry_bytes(branch, seq)?)
    }

    /// The branch that owns place `seq` on the line that leads to the tip of `branch`.
    pub(crate) fn owner(&self, branch: BranchNo, seq: Seq) -> Result<BranchNo, StorageError> {
        let mut number = branch;
        loop {
            match self.branch(number)?.base {
                Some((below, at)) if seq <= at => number = below,
                _ => return Ok(number),
            }
        }
    }

    /// The branch owning the entry at `position`, if it is held.
    pub(crate) fn find(&self, position: &Position) -> Result<Option<BranchNo>, StorageError> {
        for number in self.branches_of(&position.log)? {
            let branch = self.branch(number)?;
            if !branch.owns(position.seq) {
                continue;
            }
            let id = if branch.tip.seq == position.seq {
                branch.tip.id
            } else {
                self.entry_id(number, position.seq)?
            };
            if id == position.id {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }

    /// Whether the entry at `position` is held.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn holds(&self, position: &Position) -> Result<bool, StorageError> {
        Ok(self.find(position)?.is_some())
    }

    /// Whether the entry at `position` is held and peers are told of it: it counts, or something builds on it that does.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn is_needed(&self, position: &Position) -> Result<bool, StorageError> {
        let Some(number) = self.find(position)? else { return Ok(false) };
        Ok(position.seq <= self.branch(number)?.needed().seq)
    }

    pub(crate) fn locate(&self, position: &Position) -> Result<Option<Located>, StorageError> {
        self.find(position)?
            .map(|branch| Ok(Located { branch, row: self.entry_row(branch, position.seq)? }))
            .transpose()
    }

    pub(crate) fn head(&self, branch: BranchNo, seq: Seq) -> Result<Option<HeadRow>, StorageError> {
        HeadRow::get(self.tx, &branch_key(branch, seq))
    }

    /// The first kept head of `branch` above `after`.
    pub(crate) fn next_head(
        &self,
        branch: BranchNo,
        after: Seq,
    ) -> Result<Option<(Seq, HeadRow)>, StorageError> {
        self.first_head(
            branch_key(branch, after + 1),
            branch_key(branch, u64::MAX),
            Order::Ascending,
        )
    }

    /// The last kept head of `branch` below `before`.
    pub(crate) fn previous_head(
        &self,
        branch: BranchNo,
        before: Seq,
    ) -> Result<Option<(Seq, HeadRow)>, StorageError> {
        self.first_head(branch_key(branch, 0), branch_key(branch, before), Order::Descending)
    }

    fn first_head(
        &self,
        from: [u8; 12],
        to: [u8; 12],
        order: Order,
    ) -> Result<Option<(Seq, HeadRow)>, StorageError> {
        let mut found = None;
        self.tx.scan(Table::Head, &from, Some(&to), order, &mut |key, value| {
            found = Some((split_branch_key(key), HeadRow::from_bytes(value)));
            ControlFlow::Break(())
        })?;
        found.map(|(key, row)| Ok((key?.1, row?))).transpose()
    }

    pub(crate) fn grant(&self, number: u32) -> Result<GrantRow, StorageError> {
        GrantRow::get(self.tx, &key32(number))?.ok_or_else(|| corrupt("a grant"))
    }

    pub(crate) fn store_row(&self, number: u32) -> Result<StoreRow, StorageError> {
        StoreRow::get(self.tx, &key32(number))?.ok_or_else(|| corrupt("a store"))
    }

    /// The entry a row stands for, with its whole header.
    pub(crate) fn entry_of(&self, located: Located) -> Result<Entry, StorageError> {
        let Located { branch, row } = located;
        let log = self.branch(branch)?.log;
        let prev = if row.seq == 1 {
            None
        } else {
            let owner = self.owner(branch, row.seq - 1)?;
            Some(self.entry_id(owner, row.seq - 1)?)
        };
        self.rebuild(&mut Names::new(*self)?, row.body, row.id, log, row.seq, prev)
    }

    pub(crate) fn rebuild(
        &self,
        names: &mut Names<'_>,
        body: Body<'_>,
        id: EntryId,
        log: LogId,
        seq: Seq,
        prev: Option<EntryId>,
    ) -> Result<Entry, StorageError> {
        let parents: Vec<Position> = body
            .parents
            .iter()
            .map(|p| Ok(Position { log: names.log(p.log)?, seq: p.seq, id: p.id }))
            .collect::<Result<_, StorageError>>()?;
        let genesis = body.salt.is_some();
        let grant = if genesis { GrantRef::OWN } else { names.grant(body.grant)? };
        let payloads = body
            .payloads
            .into_iter()
            .map(|(store, payload)| Ok((names.store(store)?.clone(), payload.into_owned())))
            .collect::<Result<Vec<_>, StorageError>>()?;
        let header = Header {
            database: (!genesis).then_some(names.database),
            log,
            seq,
            prev,
            parents,
            generation: body.generation,
            timestamp: body.timestamp,
            grant,
            payloads: Vec::new(),
            salt: body.salt,
        };
        let entry = Entry::new(header, payloads)
            .map_err(|e| StorageError::Corrupt(format!("an entry: {e}")))?;
        if entry.id() == id {
            Ok(entry)
        } else {
            Err(StorageError::Corrupt(format!(
                "entry {id:?} of log {log} at {seq} does not match its hash"
            )))
        }
    }

    /// The entry at `position`, if it is held.
    ///
    /// # Errors
    /// [`StorageError`]; damage is noticed by the hash.
    pub fn entry(&self, position: &Position) -> Result<Option<Entry>, StorageError> {
        self.locate(position)?.map(|located| self.entry_of(located)).transpose()
    }

    /// Calls `visit` with each entry in the order of arrival from `from` on, which is topological, until it breaks.
    ///
    /// # Errors
    /// [`StorageError`], or what `visit` returns.
    pub fn entries(
        &self,
        from: u64,
        visit: &mut dyn FnMut(u64, Entry) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        let mut failed = None;
        let mut step = |key: &[u8], value: &[u8]| -> Result<ControlFlow<()>, Error> {
            let row = EntryRow::from_bytes(value)?;
            let arrival = key.try_into().map_err(|_| corrupt("a key"))?;
            let entry = self.entry_of(Located { branch: row.branch, row })?;
            visit(u64::from_be_bytes(arrival), entry)
        };
        self.tx.scan(Table::Entry, &from.to_be_bytes(), None, Order::Ascending, &mut |k, v| {
            step(k, v).unwrap_or_else(|e| {
                failed = Some(e);
                ControlFlow::Break(())
            })
        })?;
        failed.map_or(Ok(()), Err)
    }

    /// The newest `limit` entries with their arrival numbers, newest first.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn newest(&self, limit: usize) -> Result<Vec<(u64, Entry)>, Error> {
        let mut rows = Vec::new();
        self.tx.scan(Table::Entry, &[0; 8], None, Order::Descending, &mut |key, value| {
            if rows.len() == limit {
                return ControlFlow::Break(());
            }
            let arrival = key.try_into().map(u64::from_be_bytes).map_err(|_| corrupt("a key"));
            rows.push(EntryRow::from_bytes(value).and_then(|row| Ok((arrival?, row))));
            ControlFlow::Continue(())
        })?;
        rows.into_iter()
            .map(|row| {
                let (arrival, row) = row?;
                Ok((arrival, self.entry_of(Located { branch: row.branch, row })?))
            })
            .collect()
    }

    /// Calls `visit` with every branch, by number.
    pub(crate) fn each_branch(
        &self,
        mut visit: impl FnMut(BranchNo, Branch),
    ) -> Result<(), StorageError> {
        let mut failed = None;
        self.tx.scan(
            Table::Branch,
            &[],
            None,
            Order::Ascending,
            &mut |key, value| match branch_row(key, value) {
                Ok((number, branch)) => {
                    visit(number, branch);
                    ControlFlow::Continue(())
                }
                Err(e) => {
                    failed = Some(e);
                    ControlFlow::Break(())
                }
            },
        )?;
        failed.map_or(Ok(()), Err)
    }

    pub(crate) fn frontier_sum(&self) -> Result<LtHash, StorageError> {
        match self.tx.get(Table::Meta, META_FRONTIER)? {
            None => Ok(LtHash::default()),
            Some(bytes) => LtHash::from_bytes(&bytes).ok_or_else(|| corrupt("the frontier's sum")),
        }
    }

    /// Digest of the frontier: equal exactly when the frontiers are. Constant cost.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn frontier_digest(&self) -> Result<[u8; 32], StorageError> {
        Ok(self.frontier_sum()?.digest())
    }

    /// Every tip that peers may be told, with its head. Cost: one step a log.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn frontier(&self) -> Result<Frontier, StorageError> {
        let mut branches = BTreeMap::new();
        self.each_branch(|number, branch| {
            branches.insert(number, branch);
        })?;
        // Where branches that have a head left others: what is below is told with that head.
        let mut left: BTreeMap<BranchNo, Seq> = BTreeMap::new();
        for branch in branches.values().filter(|branch| branch.told().is_some()) {
            let mut next = branch.base;
            while let Some((below, at)) = next {
                let highest = left.entry(below).or_insert(at);
                *highest = at.max(*highest);
                let below = branches.get(&below).ok_or_else(|| corrupt("a branch"))?;
                next = below.base.filter(|_| below.told().is_none());
            }
        }
        let mut tips = Vec::with_capacity(branches.len());
        for (number, branch) in branches {
            let covered = |head: &Tip| left.get(&number).is_some_and(|at| *at >= head.seq);
            if let Some(head) = branch.told().filter(|head| !covered(head)) {
                let row = self.head(number, head.seq)?.ok_or_else(|| corrupt("a head"))?;
                let position = Position { log: branch.log, seq: head.seq, id: head.id };
                tips.push(FrontierTip { head: Head { position, signature: row.signature } });
            }
        }
        Ok(Frontier::new(tips))
    }
}

/// What a branch leaves was there before it, so that whoever follows bases comes to an end.
fn sound(number: BranchNo, row: Branch) -> Result<Branch, StorageError> {
    let ends = row.base.is_none_or(|(below, _)| below < number);
    if ends { Ok(row) } else { Err(corrupt("a branch")) }
}

fn branch_row(key: &[u8], value: &[u8]) -> Result<(BranchNo, Branch), StorageError> {
    let number = last4(key)?;
    Ok((number, sound(number, Branch::from_bytes(value)?)?))
}
