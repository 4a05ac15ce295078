//! A small database of known devices, the same at every start: what sessions talk about, and what damage is done to.

use anabranch_core::author::{Author, Draft, Seen, Write};
use anabranch_core::blob::ChunkHash;
use anabranch_core::entry::{StoreId, Timestamp};
use anabranch_core::error::Error;
use anabranch_core::founding::{Founding, create};
use anabranch_core::frontier::Frontier;
use anabranch_core::id::DatabaseId;
use anabranch_core::index;
use anabranch_core::key::DeviceKey;
use anabranch_core::ledger::{Ledger, found};
use anabranch_core::ops::{MemberOp, Role, Subject, TicketTerms};
use anabranch_core::outgoing::{Outgoing, Withhold};
use anabranch_core::path::Path;
use anabranch_core::run::Run;
use anabranch_core::storage::{Durability, Order, Storage, Table};
use anabranch_core::view::View;
use anabranch_store::MemoryStorage;
use std::ops::ControlFlow;
use std::sync::OnceLock;

/// The wall clock of everybody, in microseconds.
pub const NOW: u64 = 1_700_000_000_000_000;

/// Who there is: the founder, a member that writes, a ticket, and a stranger.
#[derive(Debug, Clone)]
pub struct Keys {
    /// Founded the database.
    pub host: DeviceKey,
    /// May write.
    pub member: DeviceKey,
    /// The secret half of a ticket that lets a device write.
    pub ticket: DeviceKey,
    /// Is not known.
    pub stranger: DeviceKey,
}

/// The devices.
#[must_use]
pub fn keys() -> Keys {
    let key = |n| DeviceKey::from_seed(&[n; 32]);
    Keys { host: key(1), member: key(2), ticket: key(9), stranger: key(4) }
}

/// The database as its founder holds it, and what the member wrote that the founder does not hold.
#[derive(Debug)]
pub struct World {
    /// The founder's.
    pub storage: MemoryStorage,
    /// Its id.
    pub database: DatabaseId,
    /// The member's news.
    pub news: Vec<Run>,
}

/// One row of a table: its table, key and value.
pub type Row = (Table, Vec<u8>, Vec<u8>);

/// The world; made at the first call.
///
/// # Panics
/// When it cannot be made, which would be an error in here.
pub fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let made = make();
        made.expect("the same storage, device and clock always make the same database")
    })
}

fn make() -> Result<World, Error> {
    let storage = MemoryStorage::new();
    let database = fill(&storage)?;
    let theirs = storage.fork([2; 32]);
    let member = keys().member;
    for n in 0..3u8 {
        write(&theirs, &member, 77, &[("m", &[n]), ("shared", b"theirs")], vec![])?;
    }
    let held = View::new(&*storage.read()?).frontier()?;
    let news = runs(&theirs, &held)?;
    Ok(World { storage, database, news })
}

/// Founds the world's database in `storage` and writes what is in it.
///
/// # Errors
/// Whatever the storage reports.
pub fn fill(storage: &dyn Storage) -> Result<DatabaseId, Error> {
    let keys = keys();
    let mut tx = storage.write(Durability::Normal)?;
    let database = create(&mut *tx, &author(&keys.host, 11, 0), [7; 16], Founding::default())?;
    tx.commit()?;
    let grant = |subject, role| MemberOp::Grant {
        subject,
        role,
        priority: 1,
        terms: TicketTerms { limit: Some(3), expires: Some(Timestamp(NOW * 2)) },
    };
    let members = vec![
        grant(Subject::Device(keys.member.node_id()), Role::Write),
        grant(Subject::Ticket(keys.ticket.node_id()), Role::Write),
    ];
    write(storage, &keys.host, 11, &[("a", b"\x01"), ("shared", b"first")], members)?;
    write(storage, &keys.member, 22, &[("b", b"\x02"), ("shared", b"second")], vec![])?;
    write(storage, &keys.host, 11, &[("c", &[0x58; 90])], vec![])?;
    let mut tx = storage.write(Durability::Normal)?;
    tx.put(Table::Blob, &ChunkHash::of(b"a chunk").0, b"a chunk")?;
    tx.put(Table::Local, b"mark", b"of its own")?;
    tx.commit()?;
    fork(storage, &keys.member)?;
    // One index that is complete, and one that is built by half.
    let table = StoreId::table("t");
    for (field, budget) in [("shared", usize::MAX), ("a", 1)] {
        let mut tx = storage.write(Durability::Normal)?;
        index::declare(&mut *tx, &table, field)?;
        tx.commit()?;
        index::step(storage, budget)?;
    }
    Ok(database)
}

/// The member wrote two entries at one place: its state was copied and both copies ran.
fn fork(storage: &dyn Storage, member: &DeviceKey) -> Result<(), Error> {
    let (left, right) = (copy(storage)?, copy(storage)?);
    write(&left, member, 22, &[("fork", b"left")], vec![])?;
    write(&right, member, 22, &[("fork", b"right")], vec![])?;
    for side in [left, right] {
        let held = View::new(&*storage.read()?).frontier()?;
        let news = runs(&side, &held)?;
        let verified: Result<Vec<_>, _> = news.into_iter().map(Run::verify).collect();
        let mut tx = storage.write(Durability::Normal)?;
        anabranch_core::admit::admit_all(
            &mut *tx,
            &verified?,
            anabranch_core::admit::Load::AtOnce,
            None,
        )?;
        tx.commit()?;
    }
    Ok(())
}

fn copy(storage: &dyn Storage) -> Result<MemoryStorage, Error> {
    // The member's own: a log is continued only by the storage that wrote it.
    let copy = MemoryStorage::with_instance([22; 32]);
    let mut tx = copy.write(Durability::Normal)?;
    for (table, key, value) in rows(storage)? {
        tx.put(table, &key, &value)?;
    }
    tx.commit()?;
    Ok(copy)
}

fn author(key: &DeviceKey, epoch: u64, later: u64) -> Author<'_> {
    Author { key, wall: Timestamp(NOW + later), fresh_epoch: epoch, instance: [epoch as u8; 32] }
}

/// Commits and signs one entry.
///
/// # Errors
/// Whatever the storage reports, and what is not permitted.
pub fn write(
    storage: &dyn Storage,
    key: &DeviceKey,
    epoch: u64,
    cells: &[(&str, &[u8])],
    members: Vec<MemberOp>,
) -> Result<(), Error> {
    let put = |(name, value): &(&str, &[u8])| {
        Ok(Write {
            store: StoreId::table("t"),
            path: Path::text(["row", name])?,
            value: Some(value.to_vec()),
            seen: Seen::AtCommit,
            below: false,
            above: false,
        })
    };
    let writes = cells.iter().map(put).collect::<Result<_, anabranch_core::path::PathError>>()?;
    let mut tx = storage.write(Durability::Normal)?;
    let mut ledger = Ledger::open(&mut *tx)?;
    let author = author(key, epoch, 10);
    ledger.commit(&author, &Draft { writes, members, ..Draft::default() })?;
    ledger.seal(&author)?;
    ledger.finish()?;
    Ok(tx.commit()?)
}

/// The runs of `storage` that `held` does not cover.
///
/// # Errors
/// Whatever the storage reports.
pub fn runs(storage: &dyn Storage, held: &Frontier) -> Result<Vec<Run>, Error> {
    let tx = storage.read()?;
    let view = View::new(&*tx);
    let mut out = Outgoing::new(view, held)?;
    let mut runs = Vec::new();
    while let Some(run) = out.next(view, Withhold::NOTHING)? {
        runs.push(run);
    }
    Ok(runs)
}

/// Every row, in order.
///
/// # Errors
/// Whatever the storage reports.
pub fn rows(storage: &dyn Storage) -> Result<Vec<Row>, Error> {
    let tx = storage.read()?;
    let mut rows = Vec::new();
    for table in Table::ALL {
        // Keys by number are read from a number on.
        let from: &[u8] = if table.integer_keyed() { &[0; 8] } else { &[] };
        tx.scan(table, from, None, Order::Ascending, &mut |key, value| {
            rows.push((table, key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })?;
    }
    Ok(rows)
}

/// Empty storage for a replica of `database`.
///
/// # Errors
/// Whatever the storage reports.
pub fn empty(database: DatabaseId) -> Result<MemoryStorage, Error> {
    let storage = MemoryStorage::new();
    let mut tx = storage.write(Durability::Normal)?;
    found(&mut *tx, database)?;
    tx.commit()?;
    Ok(storage)
}
