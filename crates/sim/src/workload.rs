//! What users do: tables, documents, conflicts settled, decisions made on what was read a while ago.

use anabranch_core::author::{Draft, Seen, Step, Tally, Write};
use anabranch_core::blob::ChunkHash;
use anabranch_core::entry::StoreId;
use anabranch_core::error::Error;
use anabranch_core::ops::ValueName;
use anabranch_core::path::{ElementId, Path};
use anabranch_core::storage::StorageError;
use anabranch_core::view::View;
use fastrand::Rng;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::ops::ControlFlow;

/// One transaction of one caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Sets columns of a row.
    Row {
        /// Which table.
        table: u8,
        /// Which row.
        row: u8,
        /// Which columns.
        columns: Vec<u8>,
        /// Bytes of each value.
        size: u32,
    },
    /// Deletes a row.
    Delete {
        /// Which table.
        table: u8,
        /// Which row.
        row: u8,
    },
    /// Sets a leaf of a document; what was at its ancestors goes.
    Leaf {
        /// Where.
        path: Vec<u8>,
        /// Bytes of the value.
        size: u32,
    },
    /// Deletes a part of a document.
    Prune {
        /// Where.
        path: Vec<u8>,
    },
    /// Settles the conflict that comes `pick`-th, if there is one.
    Settle {
        /// Which one.
        pick: u8,
    },
    /// Stores a blob and a row that names it.
    Blob {
        /// Bytes.
        size: u32,
    },
    /// Writes to a cell what follows from values read at this node's last such read, and reads it.
    Stale {
        /// Which row.
        row: u8,
    },
    /// Adds to a counter.
    Count {
        /// Which one.
        counter: u8,
        /// What.
        by: i64,
    },
    /// Adds an element to a set, or removes it.
    Element {
        /// Which one.
        element: u8,
        /// Whether it is added.
        add: bool,
    },
    /// Makes an element of a list: its value and its position.
    Item {
        /// Bytes of the value.
        size: u32,
    },
    /// Changes the element of the list that comes `pick`-th, if there is one.
    Rearrange {
        /// Which one.
        pick: u8,
        /// In which way.
        what: Rearrangement,
    },
    /// Resets a counter.
    Reset {
        /// Which one.
        counter: u8,
        /// From the sum of this node's last such read, and reads it.
        stale: bool,
    },
}

/// What may be done to an element of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rearrangement {
    /// It gets another position.
    Move,
    /// It gets another value, and its position is written down again.
    Edit,
    /// It is removed.
    Remove,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Row { table, row, columns, size } => {
                write!(f, "row t{table}/{row} columns {columns:?} of {size} bytes")
            }
            Self::Delete { table, row } => write!(f, "delete row t{table}/{row}"),
            Self::Leaf { path, size } => write!(f, "set {path:?} to {size} bytes"),
            Self::Prune { path } => write!(f, "delete below {path:?}"),
            Self::Settle { pick } => write!(f, "settle conflict {pick}"),
            Self::Blob { size } => write!(f, "a blob of {size} bytes"),
            Self::Stale { row } => write!(f, "row {row} from what was read before"),
            Self::Count { counter, by } => write!(f, "add {by} to counter {counter}"),
            Self::Element { element, add: true } => write!(f, "add element {element}"),
            Self::Element { element, add: false } => write!(f, "remove element {element}"),
            Self::Item { size } => write!(f, "a list element of {size} bytes"),
            Self::Rearrange { pick, what } => write!(f, "{what:?} list element {pick}"),
            Self::Reset { counter, stale: false } => write!(f, "reset counter {counter}"),
            Self::Reset { counter, stale: true } => {
                write!(f, "reset counter {counter} from what was read before")
            }
        }
    }
}

/// How much of what; fewer keys make more conflicts.
#[derive(Debug, Clone, Copy)]
pub struct Workload {
    rows: u8,
    columns: u8,
    /// Of a hundred values, how many are large.
    large: u32,
}

impl Workload {
    /// One of many.
    pub fn choose(random: &mut Rng) -> Self {
        let few = random.bool();
        Self {
            rows: if few { 3 } else { 40 },
            columns: if few { 2 } else { 4 },
            large: if random.u32(..6) == 0 { 4 } else { 0 },
        }
    }

    fn size(&self, random: &mut Rng) -> u32 {
        if random.u32(..100) < self.large { random.u32(20_000..120_000) } else { random.u32(..60) }
    }

    fn path(&self, random: &mut Rng) -> Vec<u8> {
        let depth = random.usize(1..4);
        (0..depth).map(|_| random.u8(..self.columns)).collect()
    }

    /// One transaction.
    pub fn op(&self, random: &mut Rng) -> Op {
        let (table, row) = (random.u8(..2), random.u8(..self.rows));
        let counter = random.u8(..3);
        match random.u32(..30) {
            0..=8 => {
                let columns = random.usize(1..=usize::from(self.columns));
                let columns: Vec<u8> = (0..columns).map(|_| random.u8(..self.columns)).collect();
                let size = self.size(random) / columns.len() as u32;
                Op::Row { table, row, columns, size }
            }
            9..=10 => Op::Delete { table, row },
            11..=14 => Op::Leaf { path: self.path(random), size: self.size(random) },
            15 => Op::Prune { path: self.path(random) },
            16 => Op::Settle { pick: random.u8(..8) },
            17 => Op::Blob { size: random.u32(..30_000) },
            // Small numbers come to 0 now and then, large ones leave what one delta can be.
            18 if random.u32(..4) == 0 => Op::Count { counter, by: i64::MIN },
            18 => Op::Count { counter, by: i64::MAX - random.i64(0..3) },
            19..=20 => Op::Count { counter, by: random.i64(-2..3) },
            21 => Op::Reset { counter, stale: random.bool() },
            24 => Op::Item { size: self.size(random) },
            25..=26 => {
                let what = match random.u8(..3) {
                    0 => Rearrangement::Move,
                    1 => Rearrangement::Edit,
                    _ => Rearrangement::Remove,
                };
                Op::Rearrange { pick: random.u8(..6), what }
            }
            22..=23 => Op::Element { element: random.u8(..4), add: random.u8(..3) > 0 },
            _ => Op::Stale { row },
        }
    }
}

/// What one caller read last, with the names of the values.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    read: Option<(Path, Vec<ValueName>)>,
    sum: Option<(Path, i128)>,
}

pub(crate) fn table(number: u8) -> StoreId {
    StoreId::table(&format!("t{number}"))
}

fn doc() -> StoreId {
    StoreId::doc("d")
}

fn counters() -> StoreId {
    StoreId::counter("c")
}

fn lists() -> StoreId {
    StoreId::doc("l")
}

fn blobs() -> StoreId {
    StoreId::table("blobs")
}

fn at(parts: impl IntoIterator<Item = u8>) -> Result<Path, Error> {
    let parts: Vec<String> = parts.into_iter().map(|part| part.to_string()).collect();
    Ok(Path::text(parts.iter().map(String::as_str))?)
}

fn put(store: StoreId, path: Path, value: Option<Vec<u8>>) -> Write {
    Write { store, path, value, seen: Seen::AtCommit, below: false, above: false }
}

/// A value that says who wrote it, so that no two are alike.
fn value(mark: u64, size: u32) -> Vec<u8> {
    let mut bytes = mark.to_be_bytes().to_vec();
    // Hardly compressible, so that large values are large under way as well.
    let mut noise = Rng::with_seed(mark);
    bytes.extend((0..size).map(|_| noise.u8(..)));
    bytes
}

/// One of four numbers.
fn few(mark: u64) -> Vec<u8> {
    vec![(mark % 4) as u8]
}

/// The name of a column.
pub(crate) fn column(number: u8) -> String {
    number.to_string()
}

impl Op {
    /// The blob that goes with it.
    #[must_use]
    pub fn blob(&self, mark: u64) -> Option<Vec<u8>> {
        match self {
            Self::Blob { size } => Some(value(mark, *size)),
            _ => None,
        }
    }

    /// The draft that this amounts to on what is held now; empty when there is nothing to do. `mark` is used for nothing
    /// else.
    ///
    /// # Errors
    /// What storage reports.
    pub fn draft(&self, view: View<'_>, memory: &mut Memory, mark: u64) -> Result<Draft, Error> {
        let mut tallies = Vec::new();
        let writes = match self {
            Self::Row { table: t, row, columns, size } => {
                let mut writes = vec![put(table(*t), at([*row])?, Some(vec![0xf6]))];
                for column in columns {
                    let path = at([*row, *column])?;
                    // One column has few values, so that an index finds several rows by one.
                    let value = if *column == 1 { few(mark) } else { value(mark, *size) };
                    writes.push(put(table(*t), path, Some(value)));
                }
                writes
            }
            Self::Delete { table: t, row } => {
                vec![Write { below: true, ..put(table(*t), at([*row])?, None) }]
            }
            Self::Leaf { path, size } => {
                let path = at(path.iter().copied())?;
                let set = put(doc(), path, Some(value(mark, *size)));
                vec![Write { below: true, above: true, ..set }]
            }
            Self::Prune { path } => {
                vec![Write { below: true, ..put(doc(), at(path.iter().copied())?, None) }]
            }
            Self::Settle { pick } => settle(view, *pick)?,
            Self::Blob { .. } => match self.blob(mark) {
                Some(blob) => {
                    let hash = ChunkHash::of(&blob);
                    let name = Path::text([mark.to_string().as_str()])?;
                    vec![put(blobs(), name, Some(hash.0.to_vec()))]
                }
                None => Vec::new(),
            },
            Self::Stale { row } => stale(view, memory, *row, mark)?,
            Self::Count { counter, by } => {
                tallies.push(Tally::new(counters(), at([*counter])?, Step::Add(*by)));
                Vec::new()
            }
            Self::Element { element, add } => {
                let path = Path::default().join_bytes(&[*element])?;
                vec![put(StoreId::set("s"), path, add.then(|| vec![0xf6]))]
            }
            Self::Item { size } => {
                let element = Path::text(["list"])?.join_new(0)?;
                let position = element.join_bytes(&[])?;
                let put = |path, size| put(lists(), path, Some(value(mark, size)));
                vec![put(element, *size), put(position, 0)]
            }
            Self::Rearrange { pick, what } => rearrange(view, *pick, *what, mark)?,
            Self::Reset { counter, stale } => {
                tallies.extend(reset(view, memory, *counter, *stale)?);
                Vec::new()
            }
        };
        Ok(Draft { writes, tallies, ..Draft::default() })
    }
}

/// Every blob that rows name.
///
/// # Errors
/// What storage reports.
pub fn named_blobs(view: View<'_>) -> Result<Vec<ChunkHash>, StorageError> {
    let mut found = Vec::new();
    view.scan_cells(&blobs(), &Path::default(), None, &mut |cell| {
        let hash = <[u8; 32]>::try_from(&cell.winner().value[..]);
        found.extend(hash.map(ChunkHash));
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

fn settle(view: View<'_>, pick: u8) -> Result<Vec<Write>, Error> {
    let mut found = Vec::new();
    for store in [table(0), table(1), doc()] {
        view.scan_cells(&store, &Path::default(), None, &mut |cell| {
            if cell.values.len() > 1 {
                found.push((store.clone(), cell));
            }
            if found.len() > usize::from(pick) {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
    }
    let Some((store, cell)) = found.into_iter().nth(usize::from(pick)) else {
        return Ok(Vec::new());
    };
    let names = cell.values.iter().map(|v| v.name).collect();
    let chosen = Some(cell.winner().value.clone());
    Ok(vec![Write { seen: Seen::Values(names), ..put(store, cell.path, chosen) }])
}

fn stale(view: View<'_>, memory: &mut Memory, row: u8, mark: u64) -> Result<Vec<Write>, Error> {
    let path = at([row, 0])?;
    let names = view.cell(&table(0), &path)?.iter().map(|v| v.name).collect();
    match memory.read.replace((path, names)) {
        Some((path, names)) => {
            let write = put(table(0), path, Some(value(mark, 8)));
            Ok(vec![Write { seen: Seen::Values(names), ..write }])
        }
        None => Ok(Vec::new()),
    }
}

fn reset(
    view: View<'_>,
    memory: &mut Memory,
    counter: u8,
    stale: bool,
) -> Result<Option<Tally>, Error> {
    let path = at([counter])?;
    if !stale {
        return Ok(Some(Tally::new(counters(), path, Step::Reset)));
    }
    let sum = view.sum(&counters(), &path)?;
    let before = memory.sum.replace((path, sum));
    Ok(before.map(|(path, seen)| Tally::new(counters(), path, Step::ResetFrom(seen))))
}

fn rearrange(
    view: View<'_>,
    pick: u8,
    what: Rearrangement,
    mark: u64,
) -> Result<Vec<Write>, Error> {
    let base = Path::text(["list"])?;
    let mut elements = BTreeSet::new();
    view.scan_cells(&lists(), &base, None, &mut |cell| {
        elements.extend(cell.path.segments().get(1).and_then(ElementId::of));
        ControlFlow::Continue(())
    })?;
    let Some(element) = elements.into_iter().nth(usize::from(pick)) else { return Ok(Vec::new()) };
    let element = base.join_element(&element)?;
    let position = put(lists(), element.join_bytes(&[])?, Some(value(mark, 0)));
    Ok(match what {
        Rearrangement::Move => vec![position],
        Rearrangement::Edit => vec![put(lists(), element, Some(value(mark, 8))), position],
        Rearrangement::Remove => vec![Write { below: true, ..put(lists(), element, None) }],
    })
}
