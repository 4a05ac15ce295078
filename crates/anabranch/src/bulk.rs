//! Putting many rows: several rows an entry, several entries a transaction of the disk, in the order of keys. What is
//! gathered is bounded (I7), and only rows that differ from what is stored are written.

use crate::table::{RowCells, row_cells, row_path, row_writes};
use crate::value::Raw;
use crate::{Error, Table};
use anabranch_core::author::{Draft, Seen, Write};
use anabranch_core::limits::ENTRY_BYTES;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// Rows gathered before they are written.
const GATHERED_ROWS: usize = 8_192;
/// Bytes gathered before they are written.
const GATHERED_BYTES: usize = 4 * 1024 * 1024;
/// Rows of one entry.
const ENTRY_ROWS: usize = 256;
/// Bytes of one entry that are aimed at; a single larger row has one of its own.
const ENTRY_TARGET: usize = 100 * 1024;
/// What an entry has besides its operations, generously.
const HEADER_BYTES: usize = 2 * 1024;

/// Rows on their way into a table. Dropping it loses what was not written yet: see [`Self::finish`].
#[derive(Debug)]
pub struct Bulk<T> {
    table: Table<T>,
    /// The last of several rows under one key counts.
    rows: BTreeMap<String, Raw>,
    bytes: usize,
    loaded: Loaded,
}

/// What was loaded so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Loaded {
    /// Rows that are in the table now, durably.
    pub rows: u64,
    /// Of these, rows that were not there like that before.
    pub changed: u64,
    /// Entries this took.
    pub entries: u64,
}

impl<T: Serialize + DeserializeOwned> Bulk<T> {
    pub(crate) fn new(table: Table<T>) -> Self {
        Self { table, rows: BTreeMap::new(), bytes: 0, loaded: Loaded::default() }
    }

    /// Adds a row. From time to time this writes what was gathered.
    ///
    /// # Errors
    /// [`Error::Value`] for a row that no entry can hold; then it is not among the gathered ones and others can follow.
    /// Else what committing reports.
    pub async fn put(&mut self, key: &str, row: &T) -> Result<(), Error> {
        let raw = Raw::new(row)?;
        let size = check(key, &raw)?;
        self.bytes += size;
        self.rows.insert(key.to_owned(), raw);
        if self.rows.len() >= GATHERED_ROWS || self.bytes >= GATHERED_BYTES {
            self.write().await?;
        }
        Ok(())
    }

    /// What was loaded so far; the rest is gathered.
    #[must_use]
    pub fn loaded(&self) -> Loaded {
        self.loaded
    }

    /// Writes what is gathered.
    ///
    /// # Errors
    /// What committing reports.
    pub async fn finish(mut self) -> Result<Loaded, Error> {
        self.write().await?;
        Ok(self.loaded)
    }

    async fn write(&mut self) -> Result<(), Error> {
        let rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        let (count, mut batch) = (rows.len() as u64, Batch::default());
        let table = &self.table;
        table.db.replica().read_store(&table.store, |view| {
            for (key, raw) in &rows {
                let old = row_cells(view, &table.store, key)?;
                batch.add(seen_writes(table, key, raw, &old)?);
            }
            Ok::<_, Error>(())
        })?;
        let entries = self.table.db.replica().commit(batch.drafts).await?;
        self.loaded.rows += count;
        self.loaded.changed += batch.changed;
        self.loaded.entries += entries.iter().flatten().count() as u64;
        Ok(())
    }
}

/// The writes of one row, each replacing exactly what was looked at: a value that another process writes meanwhile stays,
/// as a conflict (I11).
fn seen_writes<T>(
    table: &Table<T>,
    key: &str,
    raw: &Raw,
    old: &RowCells,
) -> Result<Vec<Write>, Error> {
    let with_seen = |(mut write, cell): (Write, Option<&anabranch_core::cells::Cell>)| {
        let names = cell.map(|c| c.values.iter().map(|v| v.name).collect());
        write.seen = Seen::Values(names.unwrap_or_default());
        write
    };
    Ok(row_writes(&table.store, key, raw, old)?.into_iter().map(with_seen).collect())
}

/// Entries being put together.
#[derive(Default)]
struct Batch {
    drafts: Vec<Draft>,
    /// Rows and bytes in the last draft.
    filled: (usize, usize),
    changed: u64,
}

impl Batch {
    fn add(&mut self, writes: Vec<Write>) {
        if writes.is_empty() {
            return;
        }
        let size = writes.iter().map(weight).sum::<usize>();
        let (rows, bytes) = self.filled;
        if self.drafts.is_empty() || rows >= ENTRY_ROWS || bytes + size > ENTRY_TARGET {
            self.drafts.push(Draft::default());
            self.filled = (0, 0);
        }
        if let Some(draft) = self.drafts.last_mut() {
            draft.writes.extend(writes);
        }
        self.filled.0 += 1;
        self.filled.1 += size;
        self.changed += 1;
    }
}

/// Bytes that a write takes in an entry, not less than it will.
fn weight(write: &Write) -> usize {
    let replaced = match &write.seen {
        Seen::Values(names) => names.len() * 72,
        Seen::AtCommit => 72,
    };
    operation(write.path.as_bytes().len(), write.value.as_ref().map_or(0, Vec::len)) + replaced
}

fn operation(path: usize, value: usize) -> usize {
    path + value + 16
}

/// Refuses a row that does not fit before it is gathered with others; returns its size.
fn check(key: &str, raw: &Raw) -> Result<usize, Error> {
    let refused = |why: String| Error::Value {
        what: format!("row '{}' cannot be stored", key.chars().take(80).collect::<String>()),
        why,
    };
    let fields = raw.fields()?.ok_or_else(|| refused("a row must be a struct or a map".into()))?;
    let path = row_path(key)?;
    let mut size = operation(path.as_bytes().len(), 1);
    for (column, value) in &fields {
        size += operation(path.join(column)?.as_bytes().len(), value.as_bytes().len());
    }
    if size + HEADER_BYTES > ENTRY_BYTES {
        return Err(refused(format!(
            "it takes {size} bytes, a row has room for {}; keep large values in files",
            ENTRY_BYTES - HEADER_BYTES
        )));
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use crate::{Error, Node, Table};
    use std::collections::BTreeMap;

    type Row = BTreeMap<String, u64>;

    fn table() -> Table<Row> {
        Node::in_memory().unwrap().create("data").unwrap().table("numbers")
    }

    fn row(value: u64) -> Row {
        BTreeMap::from([("value".to_owned(), value)])
    }

    #[tokio::test]
    async fn only_what_differs_is_written() {
        let table = table();
        let mut bulk = table.bulk();
        for i in 0..1_000 {
            bulk.put(&format!("{:04}", i % 600), &row(i)).await.unwrap();
        }
        let loaded = bulk.finish().await.unwrap();
        assert_eq!((loaded.rows, loaded.changed, loaded.entries), (600, 600, 3));
        assert_eq!(table.get("0399").unwrap(), Some(row(999)), "the last of two counts");
        assert_eq!(table.get("0400").unwrap(), Some(row(400)));

        let mut again = table.bulk();
        for (key, value) in table.rows("", None, 1_000).unwrap() {
            again.put(&key, &value).await.unwrap();
        }
        again.put("0007", &row(7)).await.unwrap();
        let loaded = again.finish().await.unwrap();
        assert_eq!((loaded.rows, loaded.changed, loaded.entries), (600, 1, 1));
        assert_eq!(table.get("0007").unwrap(), Some(row(7)));
    }

    #[tokio::test]
    async fn a_row_that_no_entry_holds_is_refused_alone() {
        let table: Table<BTreeMap<String, String>> =
            Node::in_memory().unwrap().create("data").unwrap().table("texts");
        let row = |bytes: usize| BTreeMap::from([("text".to_owned(), "x".repeat(bytes))]);
        let mut bulk = table.bulk();
        bulk.put("small", &row(10)).await.unwrap();
        let refused = bulk.put("large", &row(192 * 1024)).await.unwrap_err();
        assert!(matches!(refused, Error::Value { .. }), "{refused}");
        assert!(refused.to_string().contains("row 'large' cannot be stored"), "{refused}");
        bulk.put("largest", &row(188 * 1024)).await.unwrap();
        assert!(bulk.put(&"k".repeat(9_000), &row(1)).await.is_err());
        assert_eq!(bulk.finish().await.unwrap().changed, 2);
    }

    #[tokio::test]
    async fn bytes_and_rows_bound_an_entry() {
        let table = table();
        let wide: Row = (0..2_000).map(|i| (format!("column{i}"), i)).collect();
        let mut bulk = table.bulk();
        for i in 0..5 {
            bulk.put(&format!("row{i}"), &wide).await.unwrap();
        }
        let loaded = bulk.finish().await.unwrap();
        assert_eq!((loaded.changed, loaded.entries), (5, 5));
    }
}
