//! Looking one row of many up by a field: through an index of a replica, and through a secondary index of SQLite alone over
//! a table of the same rows. And what commits cost with an index and without.

use crate::Result;
use crate::data::mix;
use crate::spread::Spread;
use anabranch::{Database, Node};
use anabranch_store::Options;
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::{Duration, Instant};

/// Look-ups, and commits, of one run.
const LOOK_UPS: u64 = 20_000;
const COMMITS: u64 = 5_000;

#[derive(Serialize, Deserialize)]
struct Item {
    number: u64,
    text: String,
}

fn key(n: u64) -> String {
    format!("{:016x}", mix(n))
}

fn item(n: u64) -> Item {
    Item { number: number(n), text: key(!n) }
}

/// Each has another one, none is near that of the next.
fn number(n: u64) -> u64 {
    mix(n) >> 1
}

/// Measures over `rows` rows and prints rates a second.
pub(crate) fn run(dir: &Path, rows: u64, runs: usize) -> Result<()> {
    let dir = tempfile::tempdir_in(dir)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let home = dir.path().join("home");
    let node = Node::open(&home)?;
    if let Some(home) = node.inner().home() {
        home.configure("durability", Some("normal"))?;
    }
    drop(node);
    let db = Node::open(&home)?.create("bench")?;
    runtime.block_on(fill(&db, rows))?;
    let plain = runtime.block_on(commits(&db, rows))?;
    let building = timed(|| {
        runtime.block_on(db.index("items", "number"))?;
        Ok(())
    })?;
    let indexed = runtime.block_on(commits(&db, rows + COMMITS))?;
    let raw = raw(&dir.path().join("raw"), rows)?;
    let (mut own, mut theirs) = (Vec::new(), Vec::new());
    for run in 0..runs as u64 {
        let picks: Vec<u64> = (0..LOOK_UPS).map(|n| mix(n ^ run << 32) % rows).collect();
        let took = timed(|| picks.iter().try_for_each(|n| find(&db, *n)))?;
        own.push(LOOK_UPS as f64 / took.as_secs_f64());
        let took = timed(|| picks.iter().try_for_each(|n| find_raw(&raw, *n)))?;
        theirs.push(LOOK_UPS as f64 / took.as_secs_f64());
    }
    let (own, theirs) = (Spread::of(own), Spread::of(theirs));
    let show = |s: Spread| format!("{:.0} ({:.0}..{:.0})", s.median, s.low, s.high);
    println!("finds of one of {rows} rows by a field, a second: {}", show(own));
    println!("  SQLite alone: {}, ratio {:.2}", show(theirs), own.median / theirs.median);
    println!("building the index: {:.1} s", building.as_secs_f64());
    println!("commits, NORMAL, one by one: {plain:.0} without, {indexed:.0} with the index");
    Ok(())
}

fn timed(act: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let start = Instant::now();
    act()?;
    Ok(start.elapsed())
}

async fn fill(db: &Database, rows: u64) -> Result<()> {
    let mut bulk = db.table::<Item>("items").bulk();
    for n in 0..rows {
        bulk.put(&key(n), &item(n)).await?;
    }
    bulk.finish().await?;
    Ok(())
}

async fn commits(db: &Database, from: u64) -> Result<f64> {
    let table = db.table::<Item>("items");
    let start = Instant::now();
    for n in from..from + COMMITS {
        table.put(&key(n), &item(n)).await?;
    }
    Ok(COMMITS as f64 / start.elapsed().as_secs_f64())
}

fn find(db: &Database, n: u64) -> Result<()> {
    match &db.table::<Item>("items").find("number", &number(n))?[..] {
        [(found, row)] if *found == key(n) && row.text == key(!n) => Ok(()),
        other => Err(format!("{} rows were found", other.len()).into()),
    }
}

fn raw(path: &Path, rows: u64) -> Result<Connection> {
    let connection = Connection::open(path)?;
    let options = Options::default();
    connection.execute_batch(&format!(
        "PRAGMA page_size = 4096; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
         PRAGMA cache_size = -{};
         CREATE TABLE items (k TEXT NOT NULL PRIMARY KEY, number INTEGER, text TEXT) STRICT, WITHOUT ROWID;
         BEGIN",
        options.reader_cache / 1024
    ))?;
    let mut insert = connection.prepare("INSERT INTO items VALUES (?1, ?2, ?3)")?;
    for n in 0..rows {
        insert.execute((key(n), number(n).cast_signed(), key(!n)))?;
    }
    drop(insert);
    connection.execute_batch("CREATE INDEX by_number ON items (number); COMMIT")?;
    Ok(connection)
}

fn find_raw(connection: &Connection, n: u64) -> Result<()> {
    let sql = "SELECT k, text FROM items WHERE number = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let found = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?));
    let rows = statement.query_map([number(n).cast_signed()], found)?;
    match &rows.collect::<rusqlite::Result<Vec<_>>>()?[..] {
        [(found, text)] if *found == key(n) && *text == key(!n) => Ok(()),
        other => Err(format!("{} rows were found", other.len()).into()),
    }
}
