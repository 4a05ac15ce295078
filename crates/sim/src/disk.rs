//! A disk that fails: it loses what was not synced when the power goes, fills up, breaks in the middle of a transaction,
//! and is replaced by an older copy or a copy of another one. Transactions are atomic here, as SQLite makes them; what a
//! disk does to SQLite's own files is tried elsewhere, on those files.

use anabranch_core::sabotage::{self, Bug};
use anabranch_core::storage::{
    Durability, Order, ReadTx, Storage, StorageError, Table, Visit, WriteTx,
};
use anabranch_store::MemoryStorage;
use fastrand::Rng;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Older contents that are kept for [`Disk::restore`].
const HISTORY: usize = 32;

/// What survives the processes that use it.
#[derive(Debug)]
pub struct Disk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    /// Contents after the last synced commit and after each later one, the oldest first. Never empty.
    contents: Vec<MemoryStorage>,
    /// Which of them another disk is a copy of.
    copied: usize,
    instance: [u8; 32],
    /// Older contents, thinned out as they become many.
    history: Vec<MemoryStorage>,
    commits: u64,
    /// How many more operations there are until the power goes.
    fuse: Option<u64>,
    /// Bytes that may still be written.
    room: Option<u64>,
    /// Counts openings: what an earlier one opened is dead.
    opening: u64,
    dead: bool,
    /// Says that everything is synced and syncs nothing.
    lies: bool,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    fn newest(&self) -> MemoryStorage {
        // There is always one.
        self.contents.last().map_or_else(MemoryStorage::new, |last| last.fork(self.instance))
    }

    fn note(&mut self, durability: Durability, content: MemoryStorage) {
        self.commits += 1;
        if self.commits.is_power_of_two() || self.commits.is_multiple_of(8) {
            if self.history.len() == HISTORY {
                let all = std::mem::take(&mut self.history).into_iter();
                self.history = all.step_by(2).collect();
            }
            self.history.push(content.fork(self.instance));
        }
        if durability == Durability::Full && !self.lies {
            self.contents.clear();
            self.copied = 0;
        }
        self.contents.push(content);
    }
}

impl Disk {
    /// An empty disk, marked as the place `instance`.
    #[must_use]
    pub fn new(instance: [u8; 32]) -> Self {
        Self::holding(MemoryStorage::with_instance(instance), instance)
    }

    fn holding(content: MemoryStorage, instance: [u8; 32]) -> Self {
        let state = State {
            contents: vec![content],
            copied: 0,
            instance,
            history: Vec::new(),
            commits: 0,
            fuse: None,
            room: None,
            opening: 0,
            dead: false,
            lies: false,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Opens what is there; whatever was opened before is dead from now on.
    #[must_use]
    pub fn open(&self) -> Arc<OpenDisk> {
        let mut state = lock(&self.state);
        state.opening += 1;
        state.dead = false;
        let live = state.newest();
        Arc::new(OpenDisk { state: Arc::clone(&self.state), live, opening: state.opening })
    }

    /// The process that uses it dies: what was committed stays.
    pub fn kill(&self) {
        let mut state = lock(&self.state);
        state.dead = true;
        state.fuse = None;
        let newest = state.newest();
        // Nobody synced it, but the system will before it fails for another reason.
        state.contents = vec![newest];
        state.copied = 0;
    }

    /// Lets somebody stop it from outside while it is in use.
    #[must_use]
    pub fn switch(&self) -> Switch {
        Switch(Arc::clone(&self.state))
    }

    /// Whether only so much more can be written.
    #[must_use]
    pub fn is_limited(&self) -> bool {
        lock(&self.state).room.is_some()
    }

    /// The power goes: of the commits that were not synced a random number, the latest first, is lost. Whether a copy has
    /// some of them.
    pub fn lose_power(&self, random: &mut Rng) -> bool {
        let mut state = lock(&self.state);
        state.dead = true;
        state.fuse = None;
        let at = random.usize(..state.contents.len());
        let copied = std::mem::take(&mut state.copied) > at;
        let kept = state.contents.swap_remove(at);
        state.contents = vec![kept];
        copied
    }

    /// The power goes at the `n`-th operation from now.
    pub fn light_fuse(&self, n: u64) {
        lock(&self.state).fuse = Some(n);
    }

    /// Whether it stopped working under the process that uses it.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        lock(&self.state).dead
    }

    /// Lets only `bytes` more be written; `None`: there is room again.
    pub fn limit(&self, bytes: Option<u64>) {
        lock(&self.state).room = bytes;
    }

    /// Puts an older content back, under the same mark or as another place. False when there is none. Only while nobody
    /// uses it.
    pub fn restore(&self, random: &mut Rng, instance: Option<[u8; 32]>) -> bool {
        let mut state = lock(&self.state);
        if state.history.is_empty() {
            return false;
        }
        let at = random.usize(..state.history.len());
        state.instance = instance.unwrap_or(state.instance);
        let content = state.history[at].fork(state.instance);
        state.contents = vec![content];
        state.copied = 0;
        true
    }

    /// A bit of what is stored, in a random row of a random table that has any, is another now. Only while nobody uses it.
    ///
    /// # Errors
    /// None that memory can cause.
    pub fn flip_bit(&self, random: &mut Rng) -> Result<(), StorageError> {
        let content = self.content();
        let mut rows = Vec::new();
        // Every table alike, so that the small ones that much depends on have their share.
        let mut tables = Table::ALL.to_vec();
        random.shuffle(&mut tables);
        let read = content.read()?;
        while let Some(table) = tables.pop().filter(|_| rows.is_empty()) {
            read.scan(table, &[], None, Order::Ascending, &mut |key, value| {
                if !value.is_empty() {
                    rows.push((table, key.to_vec(), value.to_vec()));
                }
                ControlFlow::Continue(())
            })?;
        }
        drop(read);
        if rows.is_empty() {
            return Ok(());
        }
        let (table, key, mut value) = rows.swap_remove(random.usize(..rows.len()));
        let at = random.usize(..value.len());
        value[at] ^= 1 << random.u32(..8);
        let mut tx = content.write(Durability::Full)?;
        tx.put(table, &key, &value)?;
        tx.commit()?;
        lock(&self.state).contents = vec![content];
        Ok(())
    }

    /// No copy made so far is ever put back.
    pub fn forget_history(&self) {
        lock(&self.state).history.clear();
    }

    /// Another disk with what is on this one now, synced or not.
    #[must_use]
    pub fn copy(&self, instance: [u8; 32]) -> Self {
        let mut state = lock(&self.state);
        state.copied = state.contents.len() - 1;
        Self::holding(state.newest().fork(instance), instance)
    }

    /// The mark of the place it is in.
    #[must_use]
    pub fn instance(&self) -> [u8; 32] {
        lock(&self.state).instance
    }

    /// What is on it now, to be looked at.
    #[must_use]
    pub fn content(&self) -> MemoryStorage {
        lock(&self.state).newest()
    }

    /// From now on it says that it syncs and does not: to show that the checks notice.
    pub fn lie(&self) {
        lock(&self.state).lies = true;
    }
}

/// Stops a disk.
#[derive(Debug, Clone)]
pub struct Switch(Arc<Mutex<State>>);

impl Switch {
    /// From now on nothing can be done with it until it is opened anew.
    pub fn off(&self) {
        lock(&self.0).dead = true;
    }
}

/// A disk in use by one process.
#[derive(Debug)]
pub struct OpenDisk {
    state: Arc<Mutex<State>>,
    live: MemoryStorage,
    opening: u64,
}

impl OpenDisk {
    fn check(&self) -> Result<(), StorageError> {
        let state = lock(&self.state);
        if state.dead || state.opening != self.opening { Err(gone()) } else { Ok(()) }
    }

    /// One operation more; `bytes` of it go to the disk.
    fn operate(&self, bytes: usize) -> Result<(), StorageError> {
        let mut state = lock(&self.state);
        if state.dead || state.opening != self.opening {
            return Err(gone());
        }
        if let Some(left) = &mut state.fuse {
            *left = left.saturating_sub(1);
            if *left == 0 {
                state.dead = true;
                return Err(gone());
            }
        }
        if let Some(room) = &mut state.room {
            *room = room.checked_sub(bytes as u64).ok_or(StorageError::Full)?;
        }
        Ok(())
    }
}

impl OpenDisk {
    /// What [`Bug::FrontierFirst`] does: the power may go between the frontier and the entries it covers.
    fn commit_entries_last(&self, durability: Durability) -> Result<(), StorageError> {
        let before = last_entry(&lock(&self.state).newest())?;
        let half = self.live.fork([0; 32]);
        let mut tx = half.write(Durability::Full)?;
        let mut new = Vec::new();
        tx.scan(Table::Entry, &before, None, Order::Ascending, &mut |key, _| {
            new.push(key.to_vec());
            ControlFlow::Continue(())
        })?;
        for key in new.iter().filter(|key| **key != before) {
            tx.delete(Table::Entry, key)?;
        }
        tx.commit()?;
        lock(&self.state).note(durability, half);
        self.operate(0)?;
        lock(&self.state).note(durability, self.live.fork([0; 32]));
        self.operate(0)
    }
}

fn last_entry(content: &MemoryStorage) -> Result<Vec<u8>, StorageError> {
    let mut last = Vec::new();
    content.read()?.scan(Table::Entry, &[], None, Order::Descending, &mut |key, _| {
        last = key.to_vec();
        ControlFlow::Break(())
    })?;
    Ok(last)
}

fn gone() -> StorageError {
    StorageError::Io("the disk is gone".into())
}

impl Storage for OpenDisk {
    fn read(&self) -> Result<Box<dyn ReadTx + '_>, StorageError> {
        self.check()?;
        self.live.read()
    }

    fn write(&self, durability: Durability) -> Result<Box<dyn WriteTx + '_>, StorageError> {
        self.operate(0)?;
        let inner = self.live.write(durability)?;
        Ok(Box::new(Writing { inner, disk: self, durability }))
    }

    fn instance(&self) -> [u8; 32] {
        self.live.instance()
    }

    fn size(&self) -> Result<u64, StorageError> {
        self.live.size()
    }
}

struct Writing<'d> {
    inner: Box<dyn WriteTx + 'd>,
    disk: &'d OpenDisk,
    durability: Durability,
}

impl ReadTx for Writing<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StorageError> {
        self.inner.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        from: &[u8],
        to: Option<&[u8]>,
        order: Order,
        visit: &mut Visit<'_>,
    ) -> Result<(), StorageError> {
        self.inner.scan(table, from, to, order, visit)
    }
}

impl WriteTx for Writing<'_> {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StorageError> {
        self.disk.operate(key.len() + value.len())?;
        self.inner.put(table, key, value)
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Result<bool, StorageError> {
        self.disk.operate(0)?;
        self.inner.delete(table, key)
    }

    fn state(&self) -> Option<u64> {
        self.inner.state()
    }

    fn commit(self: Box<Self>) -> Result<(), StorageError> {
        let Self { inner, disk, durability } = *self;
        disk.operate(0)?;
        inner.commit()?;
        if sabotage::is(Bug::FrontierFirst) {
            return disk.commit_entries_last(durability);
        }
        {
            let mut state = lock(&disk.state);
            let content = disk.live.fork(state.instance);
            state.note(durability, content);
        }
        // The power may go after the commit and before anybody hears of it.
        disk.operate(0)
    }
}
