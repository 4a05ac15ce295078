//! Indexes against a scan of the cells.

use super::{Check, Violation, broken};
use crate::node::Node;
use anabranch_core::error::Error;
use anabranch_core::index::{self, IndexInfo, Range};
use anabranch_core::path::Path;
use anabranch_core::sortkey::stored;
use anabranch_core::storage::{Order, Storage, StorageError};
use anabranch_core::view::View;
use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

/// What rows show in a field, in the order in which an index has it.
type Shown = BTreeMap<(Vec<u8>, Path), Vec<u8>>;

/// Every index has what the cells have, as far as it is built; and built to its end it finds what a scan finds.
pub(super) fn judge(number: usize, node: &Node) -> Result<(), Violation> {
    let failed = |e: StorageError| broken(number)(e.into());
    let content = node.content().map_err(failed)?;
    agree(number, &content)?;
    index::finish(&content).map_err(failed)?;
    agree(number, &content)?;
    let tx = content.read().map_err(failed)?;
    let view = View::new(&*tx);
    for index in view.indexes().map_err(failed)? {
        compare(view, &index).map_err(broken(number))?.map_err(|text| {
            let IndexInfo { store, field, .. } = &index;
            Check::Indexes.failed(format!("node {number}, {store}, field {field}: {text}"))
        })?;
    }
    Ok(())
}

/// Every index has what the cells have, as far as it is built.
pub(super) fn agree(number: usize, content: &dyn Storage) -> Result<(), Violation> {
    let tx = content.read().map_err(|e| broken(number)(e.into()))?;
    match View::new(&*tx).check_indexes() {
        Err(Error::WrongIndex(text)) => {
            Err(Check::Indexes.failed(format!("node {number}: {text}")))
        }
        other => other.map_err(broken(number)),
    }
}

fn compare(view: View<'_>, index: &IndexInfo) -> Result<Result<(), String>, Error> {
    let shown = scan(view, index)?;
    let all = Range { from: Bound::Unbounded, to: Bound::Unbounded };
    let rows: Vec<&Path> = shown.keys().map(|(_, row)| row).collect();
    let found = find(view, index, all)?;
    if !found.iter().eq(rows.iter().copied()) {
        return Ok(Err(format!("the index finds {found:?}, a scan {rows:?}")));
    }
    let (mut before, mut first) = (None, 0);
    for (at, ((key, _), value)) in shown.iter().enumerate() {
        if before != Some(key) {
            (before, first) = (Some(key), at);
        }
        let last = shown.keys().skip(first).take_while(|(other, _)| other == key).count();
        let found = find(view, index, Range::only(value))?;
        if !found.iter().eq(rows[first..first + last].iter().copied()) {
            return Ok(Err(format!("of one value the index finds {found:?}")));
        }
    }
    Ok(Ok(()))
}

fn scan(view: View<'_>, index: &IndexInfo) -> Result<Shown, Error> {
    let field = Path::text([&index.field])?;
    let mut shown = Shown::new();
    view.scan_cells(&index.store, &Path::default(), None, &mut |cell| {
        let row = cell.path.ancestors().next();
        if let Some(row) = row
            && cell.path.as_bytes() == [row.as_bytes(), field.as_bytes()].concat()
        {
            let value = cell.winner().value.clone();
            shown.insert((stored(&value), row), value);
        }
        ControlFlow::Continue(())
    })?;
    Ok(shown)
}

fn find(view: View<'_>, index: &IndexInfo, range: Range<'_>) -> Result<Vec<Path>, Error> {
    let mut rows = Vec::new();
    view.find_rows(&index.store, &index.field, range, Order::Ascending, &mut |row| {
        rows.push(row);
        ControlFlow::Continue(())
    })?;
    Ok(rows)
}
