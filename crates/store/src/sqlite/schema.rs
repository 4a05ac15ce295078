//! The SQL of each table: how it is made, and the statements that read and write it.
//!
//! Tables of a few small rows that change with every commit share one, `small`, in which a key starts with the number of its
//! table: a commit writes one page for them instead of one each.
//!
//! Keys compare as bytes (SQLite's `BINARY` collation of blobs is `memcmp`, a prefix first). The text of `CREATE TABLE`
//! is part of the file format: a file whose schema reads differently is not opened.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use anabranch_core::storage::{Order, Table};

/// The statements of one table. Keys are `?1` and, as the end of a range, `?2`; values are `?2`.
pub(super) struct Statements {
    pub(super) get: String,
    pub(super) put: String,
    pub(super) delete: String,
    ascending: Ranged,
    descending: Ranged,
    keys: Ranged,
}

/// A scan without and with an upper bound.
struct Ranged {
    open: String,
    bounded: String,
}

static ALL: LazyLock<[Statements; Table::ALL.len()]> =
    LazyLock::new(|| Table::ALL.map(Statements::of));

/// More than all statements of all tables, so that none is ever prepared twice by a connection.
pub(super) const STATEMENTS: usize = Table::ALL.len() * 10 + 16;

impl Statements {
    pub(super) fn scan(&self, order: Order, bounded: bool) -> &str {
        let ranged = match order {
            Order::Ascending => &self.ascending,
            Order::Descending => &self.descending,
        };
        if bounded { &ranged.bounded } else { &ranged.open }
    }

    /// A scan of keys alone, ascending.
    pub(super) fn keys(&self, bounded: bool) -> &str {
        if bounded { &self.keys.bounded } else { &self.keys.open }
    }

    fn of(table: Table) -> Self {
        let name = sql_name(table);
        let select = |range: &str, order: &str| {
            format!("SELECT k, v FROM {name} WHERE {range} ORDER BY k {order}")
        };
        let ranged = |order: &str| Ranged {
            open: select("k >= ?1", order),
            bounded: select("k >= ?1 AND k < ?2", order),
        };
        Self {
            get: format!("SELECT v FROM {name} WHERE k = ?1"),
            // Storing what is there already changes nothing, and says so by the number of rows it changed.
            put: format!(
                "INSERT INTO {name} VALUES (?1, ?2) ON CONFLICT (k) DO UPDATE SET v = excluded.v WHERE v IS NOT excluded.v"
            ),
            delete: format!("DELETE FROM {name} WHERE k = ?1"),
            ascending: ranged("ASC"),
            descending: ranged("DESC"),
            keys: Ranged {
                open: format!("SELECT k FROM {name} WHERE k >= ?1 ORDER BY k"),
                bounded: format!("SELECT k FROM {name} WHERE k >= ?1 AND k < ?2 ORDER BY k"),
            },
        }
    }
}

/// The statements of `table`.
pub(super) fn statements(table: Table) -> &'static Statements {
    &ALL[table as usize]
}

/// What keys of `table` start with in the file; nothing where the table has one of its own.
pub(super) fn prefix(table: Table) -> Option<u8> {
    matches!(table, Table::Meta | Table::Branch | Table::Uncovered | Table::Store)
        .then_some(table as u8)
}

/// The name of the table in the file.
pub(super) fn sql_name(table: Table) -> &'static str {
    if prefix(table).is_some() { "small" } else { table.name() }
}

/// The tables of the file: name and SQL of each.
pub(super) fn tables() -> BTreeMap<&'static str, String> {
    Table::ALL.iter().map(|&table| (sql_name(table), create(table))).collect()
}

/// Brings a file of format 1, in which each table had one of its own and there were no indexes, up to date. To be run in one
/// transaction.
pub(super) fn from_1() -> String {
    let shared = || Table::ALL.into_iter().filter_map(|table| Some((table, prefix(table)?)));
    let mut sql = create(Table::Meta);
    for (table, prefix) in shared() {
        let name = table.name();
        // `||` makes a text of the same bytes.
        let _ = write!(
            sql,
            "; INSERT INTO small SELECT CAST(X'{prefix:02X}' || k AS BLOB), v FROM {name}; DROP TABLE {name}"
        );
    }
    sql.push_str("; ");
    sql.push_str(&create(Table::Index));
    sql
}

/// Rows sit in the key's own tree, except where values are large: there a tree of keys points to them, so that looking
/// a key up touches no value (measured with 40 KiB values: looking up is 70 times as fast, storing twice).
fn create(table: Table) -> String {
    let name = sql_name(table);
    if table.integer_keyed() {
        format!("CREATE TABLE {name} (k INTEGER PRIMARY KEY, v BLOB NOT NULL) STRICT")
    } else if table == Table::Blob {
        format!("CREATE TABLE {name} (k BLOB NOT NULL PRIMARY KEY, v BLOB NOT NULL) STRICT")
    } else {
        format!(
            "CREATE TABLE {name} (k BLOB NOT NULL PRIMARY KEY, v BLOB NOT NULL) STRICT, WITHOUT ROWID"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_table_is_found_by_its_number() {
        for table in Table::ALL {
            assert!(statements(table).get.contains(&format!(" {} ", sql_name(table))));
        }
    }
}
