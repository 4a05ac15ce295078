//! SQLite by itself, with rollback journals: the other way in which it makes, syncs and removes files.

use anabranch_faultdisk::NAME;
use rusqlite::{Connection, OpenFlags, Result};

use crate::world::World;

fn open(world: &World) -> Result<Connection> {
    let connection = Connection::open_with_flags_and_vfs(world.file(), OpenFlags::default(), NAME)?;
    connection.execute_batch(
        // With `EXTRA` the removal of the journal, which is the commit, is synced as well.
        "PRAGMA synchronous = EXTRA; CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY, v BLOB)",
    )?;
    Ok(connection)
}

/// Adds rows up to number `to`, each with a change to all others.
fn add(connection: &Connection, acknowledged: &mut i64, to: i64) -> Result<()> {
    while *acknowledged < to {
        connection.execute_batch(&format!(
            "BEGIN; INSERT INTO t VALUES ({n}, zeroblob(1000)); UPDATE t SET v = zeroblob({n} * 700); COMMIT",
            n = *acknowledged + 1
        ))?;
        *acknowledged += 1;
    }
    Ok(())
}

/// How many rows there are, all of them as the last transaction left them.
fn count(connection: &Connection) -> i64 {
    let sound: String = connection.query_row("PRAGMA integrity_check", [], |r| r.get(0)).unwrap();
    assert_eq!(sound, "ok");
    let counts =
        "SELECT count(*), count(*) FILTER (WHERE length(v) = 700 * (SELECT max(n) FROM t)) FROM t";
    let (all, right): (i64, i64) =
        connection.query_row(counts, [], |r| Ok((r.get(0)?, r.get(1)?))).unwrap();
    assert_eq!(all, right);
    all
}

#[test]
fn what_was_synced_survives_power_loss() {
    for change in 1.. {
        let world = World::new(30_000 + change);
        world.disk.crash_at(change);
        let mut acknowledged = 0;
        let ended = open(&world).and_then(|connection| add(&connection, &mut acknowledged, 6));
        if !world.disk.is_off() {
            ended.unwrap();
            assert!(change > 50, "{change}");
            return;
        }
        world.disk.recover().unwrap();
        let found = count(&open(&world).unwrap());
        assert!((acknowledged..=acknowledged + 1).contains(&found), "{change}: {found}");
    }
}

#[test]
fn room_of_a_removed_journal_can_be_used_again() {
    let world = World::new(31);
    let connection = open(&world).unwrap();
    let mut rows = 0;
    add(&connection, &mut rows, 3).unwrap();
    // Room for the journal of a transaction that makes nothing grow, and not for two.
    world.disk.full(25_000);
    for _ in 0..5 {
        connection.execute_batch("UPDATE t SET v = randomblob(length(v))").unwrap();
    }
    world.disk.full(100);
    connection.execute_batch("UPDATE t SET v = randomblob(length(v))").unwrap_err();
    world.disk.not_full();
    assert_eq!(count(&connection), 3);
}
