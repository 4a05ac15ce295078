//! Who has which key: what the store of keys says, opening what is wrapped for this device, and making sure before something is
//! written that every reader has the key it is sealed with and nobody else does.
//!
//! The key of the moment is the newest that nobody knows who may not read any more; if there is none, whoever writes next makes
//! one. So nobody has to be there when a right ends, and two devices that end different rights at the same time need not agree.

use super::{Key, KeyId, KeyOp, Ring, Scope, Wrapped, decode_keys, encode_keys, ring};
use crate::author::Author;
use crate::awaited;
use crate::codec::Writer;
use crate::entry::{Entry, Payload, StoreId};
use crate::error::{Error, corrupt};
use crate::id::{EntryId, NodeId};
use crate::index;
use crate::key::DeviceKey;
use crate::ledger::Ledger;
use crate::limits;
use crate::lthash::LtHash;
use crate::membership;
use crate::ops::{Role, Subject};
use crate::rows::{
    BranchNo, GrantNo, GrantRow, META_BUILT, META_SEALED, branch_key, membership_key,
    split_branch_key,
};
use crate::sabotage::{self, Bug};
use crate::storage::{Order, ReadTx, StorageError, Table, WriteTx};
use crate::view::View;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

/// Keys of [`Table::Local`]: this, then the id of a key that is not held → how many payloads are that count and are sealed with it.
const CLOSED: &[u8] = b"seal/closed/";
/// → grants, revocations (4 bytes each) and the key of the moment as of then.
const TENDED: &[u8] = b"seal/tended";

/// Bytes of operations on keys in one entry, unless one takes more.
const KEY_BYTES: usize = 96 * 1024;

/// Later keys are greater: how many entries lie below the one that made it, and that entry.
type Age = (u64, EntryId);

impl View<'_> {
    /// The keys that this replica opens payloads with.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn ring(&self) -> Result<Ring, StorageError> {
        Ring::load(self.tx)
    }

    /// Whether any of the database is sealed.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn is_sealed(&self) -> Result<bool, StorageError> {
        self.tx.has(Table::Meta, META_SEALED)
    }

    /// What of the database is sealed.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn sealed(&self) -> Result<Scope, StorageError> {
        let row = self.tx.get(Table::Meta, META_SEALED)?;
        let scope = row.map_or(Ok(Scope::Nothing), |row| Scope::from_row(&row));
        scope.map_err(|_| corrupt("what of the database is sealed"))
    }

    /// The key of that name, if it is held.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn key(&self, id: &KeyId) -> Result<Option<Key>, StorageError> {
        let row = self.tx.get(Table::Local, &[ring::HELD, &id.0].concat())?;
        let damaged = || corrupt("a key of the sealed database");
        let Some(row) = row else { return Ok(None) };
        let key = Key::from_bytes(row.try_into().map_err(|_| damaged())?);
        if key.id() == *id { Ok(Some(key)) } else { Err(damaged()) }
    }

    /// Whether nothing can be read, for want of a key.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn is_keyless(&self) -> Result<bool, StorageError> {
        Ok(self.is_sealed()? && starting_with(self.tx, Table::Local, ring::HELD, 1)?.is_empty())
    }

    /// Whether payloads that count are held and this replica has no key for: then stores are not what the entries say, and have
    /// no digest.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn is_closed(&self) -> Result<bool, StorageError> {
        Ok(!starting_with(self.tx, Table::Local, CLOSED, 1)?.is_empty())
    }

    /// Names the key that the device's last entry was sealed with, if no key came since.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn sealing_key(&self) -> Result<Option<KeyId>, StorageError> {
        let row = self.tx.get(Table::Local, TENDED)?;
        Ok(row.and_then(|row| row.last_chunk().copied()).map(KeyId))
    }
}

impl Ledger<'_> {
    /// Keys that arrive for this device, or for the ticket that it holds, are used from now on.
    pub fn read_as(&mut self, reader: &DeviceKey) {
        self.reader = Some(reader.clone());
    }

    pub(crate) fn ring(&mut self) -> Result<Arc<Ring>, StorageError> {
        if let Some(known) = &self.ring {
            return Ok(Arc::clone(known));
        }
        let ring = Arc::new(Ring::load(&*self.tx)?);
        Ok(Arc::clone(self.ring.insert(ring)))
    }

    /// A genesis entry that makes a key seals the database.
    pub(crate) fn note_sealed(&mut self, entry: &Entry) -> Result<(), StorageError> {
        let Some(row) = entry.header().salt.and_then(|_| Scope::of(entry).row()) else {
            return Ok(());
        };
        self.tx.put(Table::Meta, META_SEALED, &row)?;
        self.ring = None;
        Ok(())
    }

    /// A payload that there is no key for counts, or no longer does.
    pub(crate) fn note_closed(&mut self, id: &KeyId, counts: bool) -> Result<(), StorageError> {
        self.sum_up();
        let key = [CLOSED, &id.0].concat();
        let before = self.tx.get(Table::Local, &key)?.map_or(Ok(0), |row| {
            let number = row.try_into().map(u64::from_be_bytes);
            number.map_err(|_| corrupt("how much is sealed"))
        })?;
        match if counts { before.saturating_add(1) } else { before.saturating_sub(1) } {
            0 => self.tx.delete(Table::Local, &key).map(drop),
            now => self.tx.put(Table::Local, &key, &now.to_be_bytes()),
        }
    }

    pub(crate) fn hold(&mut self, key: Key) -> Result<(), StorageError> {
        let mut ring = self.ring()?;
        self.ring = None;
        let (row, bytes) = Arc::make_mut(&mut ring).insert(key);
        self.ring = Some(ring);
        self.tx.put(Table::Local, &row, &bytes)
    }

    /// Opens every key that is wrapped for `reader`, and those before them. What is held of what they seal is carried out by
    /// [`crate::build`], from the first entry on. Returns how many keys were new.
    ///
    /// Cost: a look-up a key; where entries came before the key that they are sealed with, all cells are built again.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn unlock(&mut self, reader: &DeviceKey) -> Result<usize, StorageError> {
        let ring = self.ring()?;
        if !ring.is_sealed() {
            return Ok(0);
        }
        let mut found = self.wrapped_for(reader, &ring)?;
        for id in ring.ids() {
            found.extend(self.under(&ring, id)?);
        }
        drop(ring);
        // No entry is at hand, so the next one tells those who watch.
        self.use_keys(found, self.counters.next_arrival)
    }

    /// The key that what is written next is sealed with, renewed if need be; `None` where nothing is sealed. For content, which is
    /// sealed before the entry that names it: [`View::sealing_key`] tells in that entry's transaction whether it still is.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub fn content_key(&mut self, author: &Author<'_>) -> Result<Option<Key>, Error> {
        self.tend(author, true)
    }

    /// The key that what was written next would be sealed with, if that is one that is there. The transaction is to be dropped.
    ///
    /// # Errors
    /// What the storage reports.
    pub fn likely_content_key(&mut self, author: &Author<'_>) -> Result<Option<Key>, Error> {
        match self.tend(author, false) {
            Err(Error::Storage(StorageError::NoKey) | Error::NotPermitted { .. }) => Ok(None),
            key => key,
        }
    }

    /// Uses keys that came to be known, and those that they lead to. `arrival`: of the entry that tells those who watch.
    fn use_keys(&mut self, mut found: Vec<Key>, arrival: u64) -> Result<usize, StorageError> {
        let (mut opened, mut reveals) = (0, false);
        while let Some(key) = found.pop() {
            let id = key.id();
            if self.ring()?.key(&id).is_some() {
                continue;
            }
            self.hold(key)?;
            opened += 1;
            reveals |= self.tx.delete(Table::Local, &[CLOSED, &id.0].concat())?;
            let ring = self.ring()?;
            found.extend(self.under(&ring, &id)?);
        }
        if opened > 0 {
            self.tx.delete(Table::Local, TENDED)?;
        }
        if reveals && !sabotage::is(Bug::ClosedStays) {
            self.build_anew(arrival)?;
        }
        Ok(opened)
    }

    /// The keys in operations of `author` that are for `reader`, or under one that is held.
    fn brought(
        &mut self,
        reader: &DeviceKey,
        author: &NodeId,
        ops: &[Option<KeyOp>],
    ) -> Result<Vec<Key>, StorageError> {
        let (ring, own) = (self.ring()?, reader.node_id());
        let mut found = Vec::new();
        for op in ops.iter().flatten() {
            match op {
                KeyOp::New { .. } | KeyOp::Only { .. } => {}
                KeyOp::Wrap { id, to } => {
                    let ours = to.iter().filter(|(reader, _)| *reader == own);
                    found.extend(
                        ours.filter_map(|(_, key)| Key::unwrapped(reader, author, id, key)),
                    );
                }
                KeyOp::Under { id, others } => {
                    let Some(key) = ring.key(id) else { continue };
                    found.extend(others.iter().filter_map(|(id, at)| Key::from_under(key, id, at)));
                }
            }
        }
        Ok(found)
    }

    fn wrapped_for(&self, reader: &DeviceKey, ring: &Ring) -> Result<Vec<Key>, StorageError> {
        let prefix = membership_key::wrapped(&reader.node_id());
        let mut found = Vec::new();
        for (rest, sealed) in starting_with(&*self.tx, Table::Membership, &prefix, usize::MAX)? {
            let (id, author) = split(&rest)?;
            let id = KeyId(id);
            if ring.key(&id).is_none() {
                let sealed = wrapped(&sealed)?;
                let author = NodeId(author);
                found.extend(Key::unwrapped(reader, &author, &id, &sealed));
            }
        }
        Ok(found)
    }

    /// Keys that whoever has this one, which is held, has with it at once.
    fn under(&self, ring: &Ring, id: &KeyId) -> Result<Vec<Key>, StorageError> {
        let Some(key) = ring.key(id) else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        let prefix = membership_key::key_under(&id.0);
        for (rest, sealed) in starting_with(&*self.tx, Table::Membership, &prefix, usize::MAX)? {
            let other = rest.first_chunk().ok_or_else(|| corrupt("a key under another"))?;
            found.extend(Key::from_under(key, &KeyId(*other), &wrapped(&sealed)?));
        }
        Ok(found)
    }

    /// Adds to `reached` every key that whoever has this one has with it.
    fn reach(
        &self,
        ring: &Ring,
        id: KeyId,
        reached: &mut BTreeSet<KeyId>,
    ) -> Result<(), StorageError> {
        let mut open = vec![id];
        while let Some(id) = open.pop() {
            if reached.insert(id) {
                open.extend(self.under(ring, &id)?.iter().map(Key::id));
            }
        }
        Ok(())
    }

    /// Takes all cells and sums away and has them built again, with what can be opened now.
    fn build_anew(&mut self, arrival: u64) -> Result<(), StorageError> {
        self.sum_up();
        for number in 1..=self.counters.stores {
            let store = self.store(number)?;
            if store.id.kind.has_cells() || store.id.kind.has_sums() {
                store.sum = LtHash::default();
                store.live = 0;
                store.needs_newer = false;
            }
        }
        self.delete_all(Table::Cell)?;
        self.delete_all(Table::Name)?;
        let ring = self.ring()?;
        awaited::forget_opened(self.tx, &ring)?;
        index::forget_values(self.tx)?;
        self.counters.names = 0;
        self.set_built(Some(0));
        self.tx.put(Table::Meta, META_BUILT, &0_u64.to_be_bytes())?;
        self.note_recount();
        self.tx.put(Table::Membership, &membership_key::recounted(arrival), &[])
    }

    fn delete_all(&mut self, table: Table) -> Result<(), StorageError> {
        const AT_ONCE: usize = 4_096;
        loop {
            let rows = starting_with(&*self.tx, table, &[], AT_ONCE)?;
            for (key, _) in &rows {
                self.tx.delete(table, key)?;
            }
            if rows.len() < AT_ONCE {
                return Ok(());
            }
        }
    }

    /// The key that what is written next is sealed with. Where the membership changed since the last time, readers that lack it
    /// get it first, and where somebody knows it who may not read, there is a new one if `may_renew`, in entries of their own. Without
    /// that all there are are handed out all the same: what is sealed with them already is for readers.
    ///
    /// Cost: a look-up; after a change of the membership, one for each grant and each key's reader.
    ///
    /// # Errors
    /// [`Error::NotPermitted`], or what the storage reports; [`StorageError::NoKey`] without any key.
    pub(crate) fn tend(
        &mut self,
        author: &Author<'_>,
        may_renew: bool,
    ) -> Result<Option<Key>, Error> {
        let ring = self.ring()?;
        if !ring.is_sealed() {
            return Ok(None);
        }
        let stamp =
            [self.counters.grants.to_be_bytes(), self.counters.revocations.to_be_bytes()].concat();
        if let Some(row) = self.tx.get(Table::Local, TENDED)?
            && let Some(id) = row.strip_prefix(&stamp[..])
            && let Ok(id) = id.try_into()
            && let Some(key) = ring.key(&KeyId(id))
        {
            return Ok(Some(key.clone()));
        }
        if ring.ids().next().is_none() {
            return Err(StorageError::NoKey.into());
        }
        let readers = self.readers()?;
        let newest = self.newest_known_to(&ring, &readers)?;
        let mut ops = Vec::new();
        let key = match newest.and_then(|id| ring.key(&id).cloned()) {
            Some(key) => key,
            None if may_renew => {
                // First, or the new key would stay although nothing is written.
                self.keys_grant(author)?;
                self.renew(author, &readers, &mut ops)?
            }
            None => {
                // Each by itself: who was put out knows one of them, and must not come to know the others by it.
                for key in self.heads(&ring)? {
                    ops.extend(self.handed_to_all(&key, author, &readers)?);
                }
                self.write_keys(author, ops)?;
                return Ok(None);
            }
        };
        ops.extend(self.brought_together(&key)?);
        ops.extend(self.handed_to_all(&key, author, &readers)?);
        self.write_keys(author, ops)?;
        self.tx.put(Table::Local, TENDED, &[&stamp[..], &key.id().0].concat())?;
        Ok(Some(key))
    }

    /// The newest key that counts and that only `readers` know, by itself or by another one that it is under.
    fn newest_known_to(
        &mut self,
        ring: &Ring,
        readers: &BTreeSet<NodeId>,
    ) -> Result<Option<KeyId>, StorageError> {
        let mut aged = Vec::new();
        for id in ring.ids() {
            aged.extend(self.made(id)?.map(|age| (age, *id)));
        }
        aged.sort_unstable();
        let leading = self.leading()?;
        // Whether only readers know a key, as far as it was looked at.
        let mut only: BTreeMap<KeyId, bool> = BTreeMap::new();
        while let Some((_, id)) = aged.pop() {
            let (mut open, mut seen) = (vec![id], BTreeSet::new());
            let mut safe = true;
            while let Some(id) = open.pop().filter(|_| safe) {
                if !seen.insert(id) {
                    continue;
                }
                safe = match only.get(&id) {
                    Some(known) => *known,
                    None => {
                        let known = self.who_knows(&id)?;
                        let known = known.keys().all(|who| readers.contains(who));
                        only.insert(id, known);
                        known
                    }
                };
                open.extend(leading.get(&id).into_iter().flatten());
            }
            if safe || sabotage::is(Bug::KeyNotRenewed) {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// For each key those that it is under, as anybody says: who knows one of them knows it as well.
    fn leading(&self) -> Result<BTreeMap<KeyId, Vec<KeyId>>, StorageError> {
        let mut leading: BTreeMap<KeyId, Vec<KeyId>> = BTreeMap::new();
        let prefix = membership_key::KEYS_UNDER;
        for (rest, _) in starting_with(&*self.tx, Table::Membership, prefix, usize::MAX)? {
            let (id, rest) = rest.split_first_chunk().ok_or_else(|| corrupt("a key"))?;
            let other = rest.first_chunk().ok_or_else(|| corrupt("a key under another"))?;
            leading.entry(KeyId(*other)).or_default().push(KeyId(*id));
        }
        Ok(leading)
    }

    /// Keys that lead to all others, newest first.
    fn heads(&mut self, ring: &Ring) -> Result<Vec<Key>, StorageError> {
        let mut aged = Vec::new();
        for id in ring.ids() {
            aged.push((self.made(id)?, *id));
        }
        aged.sort_unstable();
        let (mut heads, mut reached) = (Vec::new(), BTreeSet::new());
        while let Some((_, id)) = aged.pop() {
            if !reached.contains(&id) {
                self.reach(ring, id, &mut reached)?;
                heads.extend(ring.key(&id).cloned());
            }
        }
        Ok(heads)
    }

    /// The operations that hand a key to those readers that were not.
    fn handed_to_all(
        &self,
        key: &Key,
        author: &Author<'_>,
        readers: &BTreeSet<NodeId>,
    ) -> Result<Vec<KeyOp>, StorageError> {
        let known = self.who_knows(&key.id())?;
        // The device itself among them: its storage may be put back to how it was before.
        let lacks = |reader: &&NodeId| known.get(reader) != Some(&true);
        let lacking: Vec<NodeId> = readers.iter().filter(lacks).copied().collect();
        Ok(handed_out(key, author.key, &lacking))
    }

    /// Hands the newest key to readers that were let in, if this device may and has one. It makes no new one: two devices that
    /// never agreed on who may read, since one is damaged, would otherwise make keys for each other without end.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub fn hand_out(&mut self, author: &Author<'_>) -> Result<(), Error> {
        self.tend_if_possible(author, false)
    }

    /// As [`Self::tend`], for a device that may not or cannot.
    pub(crate) fn tend_if_possible(
        &mut self,
        author: &Author<'_>,
        may_renew: bool,
    ) -> Result<(), Error> {
        match self.tend(author, may_renew) {
            Ok(_) | Err(Error::Storage(StorageError::NoKey) | Error::NotPermitted { .. }) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// A new key, with all that no other one has under it yet.
    fn renew(
        &mut self,
        author: &Author<'_>,
        readers: &BTreeSet<NodeId>,
        ops: &mut Vec<KeyOp>,
    ) -> Result<Key, Error> {
        let log = self.own_log(author)?;
        let tip = self.tip_of(&log)?;
        let mut place = Writer::new();
        place.bytes(&self.database.0).u64(log.epoch).u64(author.fresh_epoch).u64(author.wall.0);
        place.bytes(&tip.0);
        for reader in readers {
            place.bytes(&reader.0);
        }
        let key = Key::new(author.key, &place.finish());
        ops.push(KeyOp::New { id: key.id() });
        self.hold(key.clone())?;
        Ok(key)
    }

    /// The operations that give whoever has `key` all others: of those that it does not lead to, the newest, and so on.
    fn brought_together(&mut self, key: &Key) -> Result<Vec<KeyOp>, StorageError> {
        let ring = self.ring()?;
        let mut reached = BTreeSet::new();
        self.reach(&ring, key.id(), &mut reached)?;
        let mut apart = Vec::new();
        for id in ring.ids().filter(|id| !reached.contains(id)) {
            apart.push((self.made(id)?, *id));
        }
        apart.sort_unstable();
        let mut others = Vec::new();
        if sabotage::is(Bug::KeysApart) {
            apart.clear();
        }
        while let Some((_, id)) = apart.pop() {
            if reached.contains(&id) {
                continue;
            }
            self.reach(&ring, id, &mut reached)?;
            others.extend(ring.key(&id).and_then(|other| Some((id, other.under(key)?))));
        }
        let under = |others: &[_]| KeyOp::Under { id: key.id(), others: others.to_vec() };
        Ok(others.chunks(limits::KEYS_UNDER).map(under).collect())
    }

    /// The grant by which the device writes to the store of keys.
    fn keys_grant(&mut self, author: &Author<'_>) -> Result<GrantRow, Error> {
        let device = author.key.node_id();
        let grant = self.writing_grant(&device, Role::Write)?;
        grant
            .ok_or_else(|| Error::NotPermitted { device: device.short(), role: Role::Write.name() })
    }

    /// Writes operations on keys, as many entries as they take.
    fn write_keys(&mut self, author: &Author<'_>, ops: Vec<KeyOp>) -> Result<(), Error> {
        if ops.is_empty() {
            return Ok(());
        }
        let grant = self.keys_grant(author)?;
        let log = self.own_log(author)?;
        self.sign_before(author, &log, &grant)?;
        let reference = membership::reference(&grant);
        let mut batch: Vec<KeyOp> = Vec::new();
        let mut bytes = 0;
        for op in ops {
            let size = encode_keys(std::slice::from_ref(&op)).len();
            let full = bytes + size > KEY_BYTES || batch.len() >= limits::KEY_OPS;
            if full && !batch.is_empty() {
                let payload = Payload::Present(encode_keys(&std::mem::take(&mut batch)));
                self.write(author, log, reference, vec![(StoreId::keys(), payload)])?;
                bytes = 0;
            }
            bytes += size;
            batch.push(op);
        }
        let payload = Payload::Present(encode_keys(&batch));
        self.write(author, log, reference, vec![(StoreId::keys(), payload)])?;
        Ok(())
    }

    /// Devices and open tickets that may read.
    fn readers(&self) -> Result<BTreeSet<NodeId>, StorageError> {
        let mut readers = BTreeSet::new();
        for number in 1..=self.counters.grants {
            let grant = self.view().grant(number)?;
            if let Subject::Device(reader) | Subject::Ticket(reader) = grant.subject
                && grant.holds()
                && grant.role >= Role::Read
                // Nobody has the secret half of what is no key, and nothing can be wrapped for it.
                && DeviceKey::can_agree(&reader)
            {
                readers.insert(reader);
            }
        }
        Ok(readers)
    }

    /// How new a key is; `None` if nothing that counts made it.
    fn made(&mut self, id: &KeyId) -> Result<Option<Age>, StorageError> {
        let mut newest = None;
        let prefix = membership_key::key_made(&id.0);
        for (place, row) in starting_with(&*self.tx, Table::Membership, &prefix, usize::MAX)? {
            let place = split_branch_key(&place)?;
            let (generation, rest) = row.split_first_chunk().ok_or_else(|| corrupt("a key"))?;
            let (grant, entry) = rest.split_first_chunk::<4>().ok_or_else(|| corrupt("a key"))?;
            let entry = EntryId(entry.try_into().map_err(|_| corrupt("a key"))?);
            if self.counts(GrantNo::from_be_bytes(*grant), place, false)? {
                newest = newest.max(Some((u64::from_be_bytes(*generation), entry)));
            }
        }
        Ok(newest)
    }

    /// Whom a key was handed to (`true`), and who else handed it on or made it.
    fn who_knows(&self, id: &KeyId) -> Result<BTreeMap<NodeId, bool>, StorageError> {
        let prefix = membership_key::key_known(&id.0);
        let rows = starting_with(&*self.tx, Table::Membership, &prefix, usize::MAX)?;
        let who = |(rest, row): (Vec<u8>, Vec<u8>)| match (rest.try_into(), &row[..]) {
            (Ok(who), [handed @ (0 | 1)]) => Ok((NodeId(who), *handed == 1)),
            _ => Err(corrupt("whom a key was handed to")),
        };
        rows.into_iter().map(who).collect()
    }
}

/// Gives another replica the keys of this one.
pub(crate) fn copy(from: &dyn ReadTx, to: &mut dyn WriteTx) -> Result<(), StorageError> {
    for (id, key) in starting_with(from, Table::Local, ring::HELD, usize::MAX)? {
        to.put(Table::Local, &[ring::HELD, &id].concat(), &key)?;
    }
    Ok(())
}

/// The operations that hand a key to `readers`.
pub(crate) fn handed_out(key: &Key, author: &DeviceKey, readers: &[NodeId]) -> Vec<KeyOp> {
    let wrap = |reader: &NodeId| Some((*reader, key.wrapped(author, reader)?));
    let ops = readers
        .chunks(limits::KEY_WRAPS)
        .map(|readers| KeyOp::Wrap { id: key.id(), to: readers.iter().filter_map(wrap).collect() });
    ops.collect()
}

/// Records what an entry does to the store of keys, and opens what is for this device.
pub(crate) fn apply(
    ledger: &mut Ledger<'_>,
    entry: &Entry,
    branch: BranchNo,
    payload: &[u8],
) -> Result<(), StorageError> {
    let decoded = decode_keys(payload);
    let header = entry.header();
    let place = branch_key(branch, header.seq);
    let grant = ledger.branch(branch)?.grant;
    for op in decoded.ops.iter().flatten() {
        let (KeyOp::New { id } | KeyOp::Under { id, .. } | KeyOp::Wrap { id, .. }) = op else {
            continue;
        };
        let author = [&membership_key::key_known(&id.0)[..], &header.log.device.0].concat();
        if !ledger.tx.has(Table::Membership, &author)? {
            ledger.tx.put(Table::Membership, &author, &[0])?;
        }
        let mut put = |key: Vec<u8>, row: &[u8]| ledger.tx.put(Table::Membership, &key, row);
        match op {
            KeyOp::Only { .. } => {}
            KeyOp::New { id } => {
                let row =
                    [&header.generation.to_be_bytes()[..], &grant.to_be_bytes(), &entry.id().0];
                put([&membership_key::key_made(&id.0)[..], &place].concat(), &row.concat())?;
            }
            KeyOp::Under { id, others } => {
                for (other, sealed) in others {
                    let key = membership_key::key_under(&id.0);
                    put([&key[..], &other.0, &place].concat(), sealed)?;
                }
            }
            KeyOp::Wrap { id, to } => {
                for (reader, sealed) in to {
                    let key = membership_key::wrapped(reader);
                    put([&key[..], &id.0, &header.log.device.0].concat(), sealed)?;
                    put([&membership_key::key_known(&id.0)[..], &reader.0].concat(), &[1])?;
                }
            }
        }
    }
    ledger.tx.delete(Table::Local, TENDED)?;
    let Some(reader) = ledger.reader.clone() else { return Ok(()) };
    let found = ledger.brought(&reader, &header.log.device, &decoded.ops)?;
    ledger.use_keys(found, ledger.counters.next_arrival - 1).map(drop)
}

/// What follows a prefix of a key, and the value.
type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// Rows of `table` whose keys begin with `prefix`: what follows that, and the value.
fn starting_with(
    tx: &dyn ReadTx,
    table: Table,
    prefix: &[u8],
    most: usize,
) -> Result<Rows, StorageError> {
    let mut rows = Rows::new();
    tx.scan(table, prefix, None, Order::Ascending, &mut |key, row| {
        match key.strip_prefix(prefix) {
            Some(rest) if rows.len() < most => rows.push((rest.to_vec(), row.to_vec())),
            _ => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    })?;
    Ok(rows)
}

fn split(key: &[u8]) -> Result<([u8; 32], [u8; 32]), StorageError> {
    let (first, second) = key.split_first_chunk().ok_or_else(|| corrupt("a wrapped key"))?;
    Ok((*first, second.try_into().map_err(|_| corrupt("a wrapped key"))?))
}

fn wrapped(row: &[u8]) -> Result<Wrapped, StorageError> {
    row.try_into().map_err(|_| corrupt("a wrapped key"))
}
