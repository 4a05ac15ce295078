//! Requests of other devices to be let in: kept in the replica's local table, bounded, until an admin approves or rejects
//! them; and the policy by which this device approves some by itself. Only an admin's device takes any, since nobody else
//! could do something about them. Nothing here is synced but the grant that an approval commits.

use crate::error::NodeError;
use crate::replica::Replica;
use anabranch_core::author::Draft;
use anabranch_core::codec::{DecodeError, Reader, Writer};
use anabranch_core::entry::Timestamp;
use anabranch_core::id::NodeId;
use anabranch_core::ops::{MemberOp, Role, Subject, TicketTerms};
use anabranch_core::storage::{Durability, Order, ReadTx, StorageError, Table, WriteTx};
use anabranch_core::view::View;
use anabranch_sync::frame::Request;
use anabranch_sync::rights::{Asked, Requests};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::PoisonError;

const WAITING: &[u8] = b"request/waiting/";
const REJECTED: &[u8] = b"request/rejected/";
const POLICY: &[u8] = b"request/policy";
/// Devices that a policy may list.
pub const POLICY_DEVICES: usize = 1_024;

/// How many requests are kept for one database.
#[derive(Debug, Clone, Copy)]
pub struct RequestLimits {
    /// That wait; 0: none are taken, and who asks hears what any stranger hears.
    pub waiting: usize,
    /// That were rejected; beyond that the oldest is forgotten, and its device may ask again.
    pub rejected: usize,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self { waiting: 64, rejected: 256 }
    }
}

/// A device that asked to be let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asking {
    /// Which one.
    pub device: NodeId,
    /// What it asks for. The text is the stranger's: anything may stand in it.
    pub request: Request,
    /// When it asked, or was rejected.
    pub at: Timestamp,
    /// Whether it was rejected.
    pub rejected: bool,
}

/// By which this device lets others in without asking anybody. Never as admins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// These devices.
    pub devices: BTreeSet<NodeId>,
    /// And so many others, whoever they are.
    pub anyone: u32,
    /// What they may ask for at most.
    pub role: Role,
    /// Until when; `None`: for ever.
    pub until: Option<Timestamp>,
}

/// What of a policy applies to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clause {
    /// It is listed.
    Device,
    /// It is one of so many.
    Anyone,
}

impl Policy {
    fn clause(&self, device: &NodeId, role: Role, now: Timestamp) -> Option<Clause> {
        if role > self.role || role == Role::Admin || self.until.is_some_and(|until| now >= until) {
            return None;
        }
        match self.devices.contains(device) {
            true => Some(Clause::Device),
            false => (self.anyone > 0).then_some(Clause::Anyone),
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.array(4).array(self.devices.len());
        self.devices.iter().for_each(|device| _ = w.bytes(&device.0));
        w.u64(u64::from(self.anyone)).bool(self.role == Role::Write);
        w.u64(self.until.map_or(0, |until| until.0));
        w.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        r.tuple("policy", 4)?;
        let devices = (0..r.array("devices", POLICY_DEVICES)?)
            .map(|_| Ok(NodeId(r.array_of("device")?)))
            .collect::<Result<_, DecodeError>>()?;
        let anyone = r.u32("anyone")?;
        let role = if r.bool("role")? { Role::Write } else { Role::Read };
        let until = Some(r.u64("until")?).filter(|until| *until > 0).map(Timestamp);
        r.finish()?;
        Ok(Self { devices, anyone, role, until })
    }
}

fn damaged(error: DecodeError) -> StorageError {
    StorageError::Corrupt(format!("requests to be let in: {error}"))
}

fn key(prefix: &[u8], device: &NodeId) -> Vec<u8> {
    [prefix, &device.0].concat()
}

fn encode(request: &Request, at: Timestamp) -> Vec<u8> {
    let mut w = Writer::new();
    w.array(2);
    request.encode(&mut w);
    w.u64(at.0);
    w.finish()
}

fn decode(row: &[u8]) -> Result<(Request, Timestamp), StorageError> {
    let read = || {
        let mut r = Reader::new(row);
        r.tuple("kept request", 2)?;
        let kept = (Request::decode(&mut r)?, Timestamp(r.u64("time")?));
        r.finish()?;
        Ok(kept)
    };
    read().map_err(damaged)
}

fn list(tx: &dyn ReadTx, prefix: &[u8], rejected: bool) -> Result<Vec<Asking>, StorageError> {
    let mut rows = Vec::new();
    tx.scan(Table::Local, prefix, None, Order::Ascending, &mut |key, row| {
        match key.strip_prefix(prefix) {
            None => return ControlFlow::Break(()),
            Some(device) => rows.push((device.to_vec(), row.to_vec())),
        }
        ControlFlow::Continue(())
    })?;
    let asking = |(device, row): (Vec<u8>, Vec<u8>)| {
        let bytes = device.try_into();
        let device = bytes.map_err(|_| StorageError::Corrupt("a request's device".into()))?;
        let (request, at) = decode(&row)?;
        Ok(Asking { device: NodeId(device), request, at, rejected })
    };
    rows.into_iter().map(asking).collect()
}

/// As [`list`], without those that came in otherwise meanwhile.
fn outside(tx: &dyn ReadTx, prefix: &[u8], rejected: bool) -> Result<Vec<Asking>, StorageError> {
    let mut all = list(tx, prefix, rejected)?;
    let mut members = BTreeSet::new();
    for Asking { device, request, .. } in &all {
        if request.is_met_by(View::new(tx).role_of(device)?) {
            members.insert(*device);
        }
    }
    all.retain(|asking| !members.contains(&asking.device));
    Ok(all)
}

fn policy(tx: &dyn ReadTx) -> Result<Option<Policy>, StorageError> {
    tx.get(Table::Local, POLICY)?.map(|row| Policy::decode(&row).map_err(damaged)).transpose()
}

fn forget(tx: &mut dyn WriteTx, device: &NodeId) -> Result<bool, StorageError> {
    let waited = tx.delete(Table::Local, &key(WAITING, device))?;
    Ok(tx.delete(Table::Local, &key(REJECTED, device))? || waited)
}

fn grant(replica: &Replica, device: &NodeId, role: Role) -> Result<Draft, StorageError> {
    let (subject, terms) = (Subject::Device(*device), TicketTerms::default());
    let op = MemberOp::Grant { subject, role, priority: replica.own_priority()?, terms };
    Ok(Draft { members: vec![op], ..Draft::default() })
}

impl Requests for Replica {
    fn ask(&self, peer: &NodeId, request: Request) -> Result<Option<Asked>, StorageError> {
        if self.request_limits.waiting == 0 {
            return Ok(None);
        }
        // One at a time: who comes twice at once is let in once.
        let _one = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        let (admin, member) = self.look(|view| {
            let (mine, theirs) = (view.role_of(&self.device().id())?, view.role_of(peer)?);
            Ok::<_, StorageError>((mine == Some(Role::Admin), request.is_met_by(theirs)))
        })?;
        if member {
            return Ok(Some(Asked::Granted));
        }
        if !admin {
            return Ok(Some(Asked::NotAdmin));
        }
        if self.approve_by_policy(peer, &request)? {
            return Ok(Some(Asked::Granted));
        }
        self.note_request(peer, &request).map(Some)
    }
}

impl Replica {
    /// Notes a request, in place of an earlier one of the same device. One that is noted already costs no write.
    fn note_request(&self, peer: &NodeId, request: &Request) -> Result<Asked, StorageError> {
        let noted = |tx: &dyn ReadTx| {
            if tx.has(Table::Local, &key(REJECTED, peer))? {
                return Ok(Some(Asked::Rejected));
            }
            match tx.get(Table::Local, &key(WAITING, peer))? {
                Some(row) if decode(&row)?.0 == *request => Ok(Some(Asked::Waiting)),
                Some(_) => Ok(None),
                None => {
                    let waiting = outside(tx, WAITING, false)?.len();
                    Ok((waiting >= self.request_limits.waiting).then_some(Asked::Full))
                }
            }
        };
        if let Some(asked) = self.read_tables(noted)? {
            return Ok(asked);
        }
        let mut tx = self.storage().write(Durability::Full)?;
        // Another process may have noted some since.
        if let Some(asked) = noted(&*tx)? {
            return Ok(asked);
        }
        tx.put(Table::Local, &key(WAITING, peer), &encode(request, self.device().now()))?;
        tx.commit()?;
        let (database, device) = (self.database().short(), peer.short());
        tracing::info!(database, device, role = request.role.name(), "a device asks to be let in");
        Ok(Asked::Waiting)
    }

    /// Lets a device in if the policy says so.
    fn approve_by_policy(&self, peer: &NodeId, request: &Request) -> Result<bool, StorageError> {
        // Who was let in before and put out again is for an admin to decide about.
        if self.look(|view| view.was_member(peer))? {
            return Ok(false);
        }
        let now = self.device().now();
        let applies = |tx: &dyn ReadTx| {
            let Some(policy) = policy(tx)? else { return Ok(None) };
            let clause = policy.clause(peer, request.role, now);
            // Who was rejected by name is let in by name only.
            let rejected = tx.has(Table::Local, &key(REJECTED, peer))?;
            let clause = clause.filter(|clause| *clause == Clause::Device || !rejected);
            Ok::<_, StorageError>(clause.map(|clause| (clause, policy)))
        };
        let Some((clause, _)) = self.read_tables(applies)? else { return Ok(false) };
        let approved = self.commit_with_local(&grant(self, peer, request.role)?, |tx, _| {
            // As it is now: a user may have taken it back, and each place is given once.
            let Some((now, mut policy)) = applies(tx)?.filter(|(now, _)| *now == clause) else {
                return Err(StorageError::Io("the policy was changed meanwhile".into()));
            };
            if now == Clause::Anyone {
                policy.anyone -= 1;
                tx.put(Table::Local, POLICY, &policy.encode())?;
            }
            forget(tx, peer).map(|_| ())
        });
        let (database, device) = (self.database().short(), peer.short());
        let by = match clause {
            Clause::Device => "a policy for this device",
            Clause::Anyone => "a policy for anyone",
        };
        match approved {
            Ok(_) => {
                let role = request.role.name();
                tracing::info!(database, device, role, by, "a request to be let in was approved");
                Ok(true)
            }
            Err(e) => {
                tracing::warn!(database, device, by, "a request could not be approved: {e}");
                Ok(false)
            }
        }
    }

    /// Devices that ask to be let in, in the order in which they asked, then those that were rejected. Blocking.
    ///
    /// # Errors
    /// [`NodeError::Core`].
    pub fn requests(&self) -> Result<Vec<Asking>, NodeError> {
        let both = |tx: &dyn ReadTx| {
            let (mut waiting, mut rejected) =
                (outside(tx, WAITING, false)?, outside(tx, REJECTED, true)?);
            waiting.sort_by_key(|asking| asking.at);
            rejected.sort_by_key(|asking| asking.at);
            waiting.append(&mut rejected);
            Ok::<_, StorageError>(waiting)
        };
        Ok(self.read_tables(both)?)
    }

    /// Lets in a device that asked, with this role or the one it asked for, and forgets the request. Blocking.
    ///
    /// # Errors
    /// [`NodeError::NoRequest`]; [`NodeError::AsksForAdmin`] when no role is given and it asks to be an admin;
    /// [`NodeError::Core`] when this device is no admin.
    pub fn approve(&self, device: &NodeId, role: Option<Role>) -> Result<Role, NodeError> {
        let asked = self.requests()?.into_iter().find(|asking| asking.device == *device);
        let asked = asked.ok_or(NodeError::NoRequest(*device))?;
        let role = match (role, asked.request.role) {
            (Some(role), _) => role,
            (None, Role::Admin) => return Err(NodeError::AsksForAdmin(*device)),
            (None, role) => role,
        };
        let draft = grant(self, device, role)?;
        self.commit_with_local(&draft, |tx, _| forget(tx, device).map(|_| ()))?;
        let (database, device) = (self.database().short(), device.short());
        tracing::info!(database, device, role = role.name(), "a request to be let in was approved");
        Ok(role)
    }

    /// Rejects a device that asked: it is told so, and nothing more is taken of it. Blocking.
    ///
    /// # Errors
    /// [`NodeError::NoRequest`], [`NodeError::Core`].
    pub fn reject(&self, device: &NodeId) -> Result<(), NodeError> {
        let mut tx = self.storage().write(Durability::Full)?;
        let Some(row) = tx.get(Table::Local, &key(WAITING, device))? else {
            return Err(NodeError::NoRequest(*device));
        };
        let (request, _) = decode(&row)?;
        tx.delete(Table::Local, &key(WAITING, device))?;
        let mut rejected = list(&*tx, REJECTED, true)?;
        rejected.sort_by_key(|asking| asking.at);
        let beyond = (rejected.len() + 1).saturating_sub(self.request_limits.rejected.max(1));
        for oldest in &rejected[..beyond.min(rejected.len())] {
            tx.delete(Table::Local, &key(REJECTED, &oldest.device))?;
        }
        let row = encode(&request, self.device().now());
        tx.put(Table::Local, &key(REJECTED, device), &row)?;
        Ok(tx.commit()?)
    }

    /// Forgets a device that asked or was rejected: it may ask again. Blocking.
    ///
    /// # Errors
    /// [`NodeError::NoRequest`], [`NodeError::Core`].
    pub fn forget_request(&self, device: &NodeId) -> Result<(), NodeError> {
        let mut tx = self.storage().write(Durability::Full)?;
        if !forget(&mut *tx, device)? {
            return Err(NodeError::NoRequest(*device));
        }
        Ok(tx.commit()?)
    }

    /// The policy by which requests are approved here. Blocking.
    ///
    /// # Errors
    /// [`NodeError::Core`].
    pub fn policy(&self) -> Result<Option<Policy>, NodeError> {
        Ok(self.read_tables(policy)?)
    }

    /// Sets that policy, or removes it. Requests that wait already are looked at when their devices come again. Blocking.
    ///
    /// # Errors
    /// [`NodeError::Setting`] for one that could let nobody in or lists too many, [`NodeError::Core`].
    pub fn set_policy(&self, policy: Option<&Policy>) -> Result<(), NodeError> {
        if let Some(policy) = policy {
            self.check_policy(policy)?;
        }
        let mut tx = self.storage().write(Durability::Full)?;
        match policy {
            Some(policy) => tx.put(Table::Local, POLICY, &policy.encode())?,
            None => _ = tx.delete(Table::Local, POLICY)?,
        }
        Ok(tx.commit()?)
    }

    fn check_policy(&self, policy: &Policy) -> Result<(), NodeError> {
        let mine = self.look(|view: View<'_>| view.role_of(&self.device().id()))?;
        let wrong = if policy.role == Role::Admin {
            "nobody becomes an admin by a policy; approve the request by itself".into()
        } else if policy.role == Role::Relay {
            "a policy is for reading at least; who asks to relay is then let in as well".into()
        } else if policy.devices.is_empty() && policy.anyone == 0 {
            "the policy is for nobody; list devices, or say how many others are let in".into()
        } else if policy.devices.len() > POLICY_DEVICES {
            format!("a policy lists at most {POLICY_DEVICES} devices")
        } else if mine != Some(Role::Admin) {
            "this device is no admin of the database, so nobody is let in by it".into()
        } else {
            return Ok(());
        };
        Err(NodeError::Setting(wrong))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_policy_comes_back() {
        let mut policy = Policy {
            devices: BTreeSet::from([NodeId([1; 32]), NodeId([2; 32])]),
            anyone: 3,
            role: Role::Write,
            until: Some(Timestamp(9)),
        };
        assert_eq!(Policy::decode(&policy.encode()), Ok(policy.clone()));
        (policy.devices, policy.role, policy.until) = (BTreeSet::new(), Role::Read, None);
        assert_eq!(Policy::decode(&policy.encode()), Ok(policy));
    }

    #[test]
    fn a_policy_applies_up_to_its_role_and_its_time() {
        let (listed, other) = (NodeId([1; 32]), NodeId([2; 32]));
        let policy = Policy {
            devices: BTreeSet::from([listed]),
            anyone: 1,
            role: Role::Read,
            until: Some(Timestamp(9)),
        };
        let of = |device, role, now| policy.clause(device, role, Timestamp(now));
        assert_eq!(of(&listed, Role::Read, 8), Some(Clause::Device));
        assert_eq!(of(&other, Role::Read, 8), Some(Clause::Anyone));
        assert_eq!(of(&listed, Role::Write, 8), None);
        assert_eq!(of(&listed, Role::Read, 9), None);
        let spent = Policy { anyone: 0, role: Role::Admin, ..policy.clone() };
        assert_eq!(spent.clause(&other, Role::Read, Timestamp(8)), None);
        assert_eq!(spent.clause(&listed, Role::Admin, Timestamp(8)), None);
    }

    proptest! {
        #[test]
        fn arbitrary_rows_never_panic(bytes: Vec<u8>) {
            let _ = (Policy::decode(&bytes), decode(&bytes));
        }
    }
}
