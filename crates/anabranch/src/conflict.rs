//! Conflicts: cells with several live values. One is shown, the others stay readable until somebody resolves them, alike
//! on all replicas (I11).

use crate::list::is_position;
use crate::table::{RowCells, each_row, row_cells, row_path, write};
use crate::value::{NULL, Raw};
use crate::{Database, Error};
use anabranch_core::author::{Draft, Seen, Write};
use anabranch_core::cells::{Cell, LiveValue};
use anabranch_core::entry::{StoreId, StoreKind, Timestamp};
use anabranch_core::id::NodeId;
use anabranch_core::path::{ElementId, Path};
use anabranch_core::storage::StorageError;
use std::ops::ControlFlow;

/// One of the values that a cell has.
#[derive(Debug, Clone)]
pub struct Version {
    /// The device that wrote it.
    pub device: NodeId,
    /// Its clock.
    pub timestamp: Timestamp,
    /// The value; `None` where the row was deleted while somebody edited it.
    pub value: Option<Raw>,
}

/// A cell with several values, or a row that was deleted and edited at the same time.
#[derive(Debug, Clone)]
pub struct Conflict {
    /// The store.
    pub store: StoreId,
    /// The cell, or the row.
    pub path: Path,
    /// The value shown comes first.
    pub versions: Vec<Version>,
}

fn version(value: &LiveValue) -> Version {
    Version {
        device: value.name.log.device,
        timestamp: value.timestamp,
        value: Some(Raw(value.value.clone())),
    }
}

fn of_cell(store: &StoreId, cell: &Cell) -> Option<Conflict> {
    (cell.values.len() > 1).then(|| Conflict {
        store: store.clone(),
        path: cell.path.clone(),
        versions: cell.values.iter().map(version).collect(),
    })
}

/// Conflicts of one row. Several presence values are none: the row was inserted twice.
fn of_row(store: &StoreId, key: &str, row: &RowCells) -> Result<Vec<Conflict>, Error> {
    let mut list: Vec<Conflict> =
        row.columns.values().filter_map(|cell| of_cell(store, cell)).collect();
    if row.present.is_none()
        && let Some(cell) = row.columns.values().max_by_key(|cell| cell.winner().timestamp)
    {
        let edit = version(cell.winner());
        let kept = Version { value: Some(row_raw(row)), ..edit.clone() };
        let deleted = Version { value: None, ..edit };
        list.insert(
            0,
            Conflict { store: store.clone(), path: row_path(key)?, versions: vec![kept, deleted] },
        );
    }
    Ok(list)
}

fn row_raw(row: &RowCells) -> Raw {
    Raw::map(row.columns.iter().map(|(k, cell)| (k.as_str(), &cell.winner().value[..])))
}

/// Positions in lists, of which one counts and nothing is lost; elements of an array that two devices took apart alike, and
/// blobs that two put in alike.
fn is_quiet(kind: StoreKind, cell: &Cell) -> bool {
    let element = || cell.path.segments().iter().any(|s| ElementId::of(s).is_some());
    let alike = cell.values.windows(2).all(|pair| pair[0].value == pair[1].value);
    cell.values.len() > 1
        && (is_position(&cell.path) || (alike && (kind == StoreKind::BLOBS || element())))
}

impl Database {
    /// Every conflict in the tables and documents of this database. Cost: reads every live value.
    ///
    /// # Errors
    /// What storage reports; also where some stores are sealed and there is no key.
    pub fn conflicts(&self) -> Result<Vec<Conflict>, Error> {
        self.replica().read(|view| {
            let mut found = Vec::new();
            let keyless = view.is_keyless()?;
            for store in view.stores()? {
                if store.closed && keyless {
                    return Err(StorageError::NoKey.into());
                }
                match store.id.kind {
                    StoreKind::TABLE => each_row(view, &store.id, "", None, &mut |key, row| {
                        found.extend(of_row(&store.id, &key, &row)?);
                        Ok(ControlFlow::Continue(()))
                    })?,
                    kind if matches!(kind, StoreKind::DOC | StoreKind::BLOBS)
                        || kind.user_number().is_some() =>
                    {
                        view.scan_cells(&store.id, &Path::default(), None, &mut |cell| {
                            if !is_quiet(kind, &cell) {
                                found.extend(of_cell(&store.id, &cell));
                            }
                            ControlFlow::Continue(())
                        })?;
                    }
                    _ => {}
                }
            }
            Ok(found)
        })
    }

    /// Settles every conflict of row `key` in `table` by its version number `take`, counted from 1 as
    /// [`Self::conflicts`] lists them. Returns how many were settled.
    ///
    /// # Errors
    /// [`Error::Resolve`] when the row has no conflict or one with fewer versions.
    pub async fn resolve_row(&self, table: &str, key: &str, take: usize) -> Result<usize, Error> {
        let store = StoreId::table(table);
        let (row, conflicts) = self.replica().read_store(&store, |view| {
            let row = row_cells(view, &store, key)?;
            let conflicts = of_row(&store, key, &row)?;
            Ok::<_, Error>((row, conflicts))
        })?;
        if conflicts.is_empty() {
            return Err(Error::Resolve(format!("row '{key}' of table '{table}' has no conflict")));
        }
        let mut writes = Vec::new();
        for conflict in &conflicts {
            let number = take.checked_sub(1);
            let Some(version) = number.and_then(|n| conflict.versions.get(n)) else {
                return Err(Error::Resolve(format!(
                    "{} has {} versions, there is no number {take}",
                    conflict.path,
                    conflict.versions.len()
                )));
            };
            writes.extend(settle(&store, &row, conflict, version)?);
        }
        self.commit(Draft { writes, ..Draft::default() }).await?;
        Ok(conflicts.len())
    }
}

/// The writes that settle one conflict, replacing exactly what was looked at.
fn settle(
    store: &StoreId,
    row: &RowCells,
    conflict: &Conflict,
    version: &Version,
) -> Result<Vec<Write>, Error> {
    let names = |cell: &Cell| Seen::Values(cell.values.iter().map(|v| v.name).collect());
    Ok(match &version.value {
        // Of a row deleted and edited: deleted for good.
        None => cells_below(row, &conflict.path)
            .map(|cell| Write { seen: names(cell), ..write(store, cell.path.clone(), None) })
            .collect(),
        // Of the same: inserted again.
        Some(_) if conflict.path.len() == 1 => {
            vec![write(store, conflict.path.clone(), Some(NULL.to_vec()))]
        }
        Some(value) => cells_below(row, &conflict.path)
            .map(|cell| Write {
                seen: names(cell),
                ..write(store, cell.path.clone(), Some(value.as_bytes().to_vec()))
            })
            .collect(),
    })
}

fn cells_below<'r>(row: &'r RowCells, path: &'r Path) -> impl Iterator<Item = &'r Cell> {
    row.columns.values().filter(move |cell| path.is_prefix_of(&cell.path))
}
