//! Comparing indexes with the cells, both ways.

use super::{Index, Parts, State, VALUE, declared};
use crate::error::{Error, corrupt};
use crate::path::Path;
use crate::rows::{CellRow, cell_key, cell_prefix, split_cell_key};
use crate::sortkey::stored;
use crate::storage::{Order, Table};
use crate::view::View;
use std::ops::ControlFlow;

impl View<'_> {
    /// Checks that each index has a row for every live value of its field (as far as it is built) and no other.
    ///
    /// Cost: reads the indexes, and of each the cells of its table.
    ///
    /// # Errors
    /// [`Error::WrongIndex`] naming the first value that is missing or too many, or what storage reports.
    pub fn check_indexes(&self) -> Result<(), Error> {
        let indexes = declared(self.tx)?;
        for index in indexes.iter().filter(|index| index.declared.state != State::Going) {
            self.find_missing(index)?;
        }
        self.find_surplus(&indexes)
    }

    fn find_missing(&self, index: &Index) -> Result<(), Error> {
        let start = cell_prefix(index.store, &[]);
        let mut result = Ok(());
        self.tx.scan(Table::Cell, &start, None, Order::Ascending, &mut |cell, value| {
            if !cell.starts_with(&start) || !index.follows(cell) {
                return ControlFlow::Break(());
            }
            result = self.look_for(index, cell, value);
            if result.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        result
    }

    fn look_for(&self, index: &Index, cell: &[u8], value: &[u8]) -> Result<(), Error> {
        let Some(key) = index.row_for(cell, value)? else { return Ok(()) };
        if self.tx.get(Table::Index, &key)?.is_some() {
            return Ok(());
        }
        let (path, _) = split_cell_key(cell)?;
        Err(wrong(index, "lacks", index.row_of(path).unwrap_or_default()))
    }

    fn find_surplus(&self, indexes: &[Index]) -> Result<(), Error> {
        let mut result = Ok(());
        self.tx.scan(Table::Index, &[VALUE], None, Order::Ascending, &mut |key, _| {
            result = self.look_at(indexes, key);
            if result.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        result
    }

    fn look_at(&self, indexes: &[Index], key: &[u8]) -> Result<(), Error> {
        let parts = Parts::of(key)?;
        let index = indexes.iter().find(|index| index.number == parts.number);
        let index = index.ok_or_else(|| corrupt("a row of an index that is not there"))?;
        if index.declared.state == State::Going {
            return Ok(());
        }
        let path = [parts.row, &index.suffix].concat();
        let cell = cell_key(index.store, &path, parts.place);
        let live = self.tx.get(Table::Cell, &cell)?;
        let fits = match live.filter(|_| index.follows(&cell)) {
            Some(row) => stored(&CellRow::decode(&row)?.value) == parts.value,
            None => false,
        };
        if fits { Ok(()) } else { Err(wrong(index, "has a value that is gone in", parts.row)) }
    }
}

fn wrong(index: &Index, what: &str, row: &[u8]) -> Error {
    let super::Declared { store, field, .. } = &index.declared;
    let row = Path::trusted(row);
    Error::WrongIndex(format!("the index over field '{field}' of {store} {what} row '{row}'"))
}
