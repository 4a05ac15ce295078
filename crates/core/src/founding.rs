//! Founding a database: the genesis entry, which names the first admins and seals the database if it is to be.

use crate::author::Author;
use crate::entry::{Entry, GrantRef, Header, Payload, StoreId};
use crate::error::{Error, corrupt};
use crate::id::{DatabaseId, LogId, NodeId};
use crate::ledger::{Ledger, found};
use crate::ops::{MemberOp, Role, Subject, TicketTerms, encode_members};
use crate::rows::Own;
use crate::seal::keys::handed_out;
use crate::seal::{Key, KeyOp, Scope, encode_keys};
use crate::storage::WriteTx;
use std::collections::BTreeSet;

/// What a database is founded with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Founding {
    /// A key that becomes an admin ranking above the first device, so that who has it can let others in, and put the first one
    /// out, should that be lost.
    pub recovery: Option<NodeId>,
    /// What of it is sealed ([`crate::seal`]).
    pub sealed: Scope,
}

/// Founds a database on empty storage: its genesis entry names the author's device as the first admin.
///
/// # Errors
/// [`Error::Storage`], also when the storage already is a replica; [`Error::SealedStores`].
pub fn create(
    tx: &mut dyn WriteTx,
    author: &Author<'_>,
    salt: [u8; 16],
    founding: Founding,
) -> Result<DatabaseId, Error> {
    let Founding { recovery, sealed } = founding;
    let device = author.key.node_id();
    let admin = |device, priority| MemberOp::Grant {
        subject: Subject::Device(device),
        role: Role::Admin,
        priority,
        terms: TicketTerms::default(),
    };
    let mut admins = vec![admin(device, u32::from(recovery.is_some()))];
    admins.extend(recovery.map(|key| admin(key, 0)));
    let log = LogId { device, epoch: author.fresh_epoch };
    let header = Header {
        database: None,
        log,
        seq: 1,
        prev: None,
        parents: Vec::new(),
        generation: 1,
        timestamp: author.wall,
        grant: GrantRef::OWN,
        payloads: Vec::new(),
        salt: Some(salt),
    };
    let mut payloads = vec![(StoreId::members(), Payload::Present(encode_members(&admins)))];
    let place = [&salt[..], &author.fresh_epoch.to_be_bytes()].concat();
    let key = (sealed != Scope::Nothing).then(|| Key::new(author.key, &place));
    if let Some(key) = &key {
        let readers: Vec<NodeId> = std::iter::once(device).chain(recovery).collect();
        let mut ops = vec![KeyOp::New { id: key.id() }];
        if let Scope::Stores(names) = &sealed {
            let stores: BTreeSet<String> = names.iter().cloned().collect();
            ops.push(KeyOp::Only { stores: stores.into_iter().collect() });
        }
        ops.extend(handed_out(key, author.key, &readers));
        payloads.push((StoreId::keys(), Payload::Present(encode_keys(&ops))));
    }
    let entry = Entry::new(header, payloads)?;
    if Scope::of(&entry).is_of_stores() != sealed.is_of_stores() {
        return Err(Error::SealedStores);
    }
    let database = entry.database();
    found(tx, database)?;
    let mut ledger = Ledger::open(tx)?;
    let branch = ledger.branch_after(&log, None)?.ok_or_else(|| corrupt("a log"))?;
    ledger.append(&entry, branch, &[])?;
    key.map_or(Ok(()), |key| ledger.hold(key))?;
    ledger.set_own(Own { log, seq: 1, id: entry.id(), instance: author.instance });
    ledger.seal(author)?;
    ledger.finish()?;
    Ok(database)
}
