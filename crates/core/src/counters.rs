//! Counters: a path of a counter store counts up and down, and what it shows is the sum of all deltas that any held entry
//! added there. Not cells: nothing is replaced and nothing conflicts. Sums are taken modulo 2¹²⁸ (a reset may carry any
//! number), so that they form a group: whatever the order, and whatever comes and goes on the way, equal sets of entries
//! have equal sums (I2). A path whose sum is 0 has no row and no part in the digest, as if nobody had ever counted there.

use crate::cells::store_number;
use crate::codec::{DecodeError, Reader, Writer};
use crate::entry::{StoreId, StoreKind};
use crate::error::corrupt;
use crate::ledger::Ledger;
use crate::limits;
use crate::lthash::LtHash;
use crate::ops::{Decoded, Op, decode_ops};
use crate::path::Path;
use crate::rows::{StoreNo, cell_prefix};
use crate::sabotage::{self, Bug};
use crate::storage::{Order, StorageError, Table};
use crate::view::View;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// What an operation does to a path's sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// Adds a number.
    Add(i64),
    /// Adds minus the sum that its writer saw: what others add meanwhile stays.
    Reset(i128),
}

impl Count {
    /// What it adds, either way.
    #[must_use]
    pub fn delta(self) -> i128 {
        match self {
            Self::Add(delta) => i128::from(delta),
            Self::Reset(_) if sabotage::is(Bug::ResetByNone) => 0,
            Self::Reset(delta) => delta,
        }
    }
}

/// An operation of a counter store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountOp {
    /// What is counted.
    pub path: Path,
    /// What is done to it.
    pub count: Count,
}

const ADD: u64 = 0;
const RESET: u64 = 1;

/// Encodes the operations of one counter store.
#[must_use]
pub fn encode_counts(ops: &[CountOp]) -> Vec<u8> {
    let mut w = Writer::new();
    w.array(ops.len());
    for op in ops {
        w.array(3);
        match op.count {
            // Small numbers are short, whatever their sign: 0, −1, 1, −2 are 0, 1, 2, 3.
            Count::Add(n) => {
                w.u64(ADD).bytes(op.path.as_bytes()).u64(((n << 1) ^ (n >> 63)).cast_unsigned())
            }
            Count::Reset(n) => w.u64(RESET).bytes(op.path.as_bytes()).bytes(&n.to_be_bytes()),
        };
    }
    w.finish()
}

/// Reads the payload of a counter store.
#[must_use]
pub fn decode_counts(payload: &[u8]) -> Decoded<CountOp> {
    let mut r = Reader::new(payload);
    (|| {
        let decoded = decode_ops(&mut r, limits::ENTRY_BYTES / 4, decode_count)?;
        r.finish()?;
        Ok::<_, DecodeError>(decoded)
    })()
    .unwrap_or_default()
}

fn decode_count(r: &mut Reader<'_>, kind: u64, fields: usize) -> Result<Op<CountOp>, DecodeError> {
    if kind > RESET {
        return Ok(Op::Unknown);
    }
    let Ok(path) = Path::from_encoded(r.bytes("path", limits::PATH_BYTES)?) else {
        return Ok(Op::Senseless);
    };
    let count = match kind {
        ADD => {
            let n = r.u64("number")?;
            Count::Add((n >> 1).cast_signed() ^ -((n & 1).cast_signed()))
        }
        _ => Count::Reset(i128::from_be_bytes(r.array_of("number")?)),
    };
    Ok(if fields == 3 { Op::Known(CountOp { path, count }) } else { Op::Senseless })
}

/// What one path's sum adds to its store's digest.
fn element(kind: StoreKind, path: &[u8], sum: i128) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new_derive_key("anabranch 1 sum");
    hasher.update(&kind.0.to_be_bytes());
    hasher.update(&(path.len() as u32).to_be_bytes());
    hasher.update(path);
    hasher.update(&sum.to_be_bytes());
    hasher
}

/// Carries out the operations of one payload.
pub(crate) fn apply(
    ledger: &mut Ledger<'_>,
    store: StoreNo,
    payload: &[u8],
) -> Result<(), StorageError> {
    let (deltas, unknown) = deltas(payload);
    if unknown {
        ledger.store(store)?.needs_newer = true;
    }
    deltas.into_iter().try_for_each(|(path, delta)| add(ledger, store, path.as_bytes(), delta))
}

/// What one payload adds, by path, and whether there are operations of an unknown kind in it.
pub(crate) fn deltas(payload: &[u8]) -> (BTreeMap<Path, i128>, bool) {
    let decoded = decode_counts(payload);
    let mut deltas = BTreeMap::new();
    for op in decoded.ops.into_iter().flatten() {
        let sum: &mut i128 = deltas.entry(op.path).or_default();
        *sum = sum.wrapping_add(op.count.delta());
    }
    (deltas, decoded.unknown)
}

/// Adds `delta` to the sum of a path. Whoever takes operations back adds the opposite.
pub(crate) fn add(
    ledger: &mut Ledger<'_>,
    store: StoreNo,
    path: &[u8],
    delta: i128,
) -> Result<(), StorageError> {
    let key = row_key(store, path);
    let before = match ledger.tx.get(Table::Cell, &key)? {
        Some(row) => decode_sum(&row)?,
        None => 0,
    };
    let sum = match sabotage::is(Bug::SumSaturates) {
        true => before.saturating_add(delta).clamp(i64::MIN.into(), i64::MAX.into()),
        false => before.wrapping_add(delta),
    };
    if sum == before {
        return Ok(());
    }
    if sum == 0 && !sabotage::is(Bug::ZeroKept) {
        ledger.tx.delete(Table::Cell, &key)?;
    } else {
        ledger.tx.put(Table::Cell, &key, &sum.to_be_bytes())?;
    }
    let store = ledger.store(store)?;
    let kind = store.id.kind;
    if before != 0 {
        store.sum.remove(&element(kind, path, before));
        store.live = store.live.saturating_sub(1);
    }
    if sum != 0 || sabotage::is(Bug::ZeroKept) {
        store.sum.add(&element(kind, path, sum));
        store.live += 1;
    }
    Ok(())
}

/// As the key of a cell, without a place: one row a path.
fn row_key(store: StoreNo, path: &[u8]) -> Vec<u8> {
    let mut key = cell_prefix(store, path);
    key.push(0);
    key
}

fn decode_sum(row: &[u8]) -> Result<i128, StorageError> {
    let sum = row.try_into().map(i128::from_be_bytes).map_err(|_| corrupt("a sum"))?;
    if sum == 0 && !sabotage::is(Bug::ZeroKept) { Err(corrupt("a sum")) } else { Ok(sum) }
}

impl View<'_> {
    /// The sum at `path` of a counter store; 0 where nothing was counted. Cost: one look-up.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn sum(&self, store: &StoreId, path: &Path) -> Result<i128, StorageError> {
        self.require_built()?;
        let Some(number) = store_number(self.tx, store)?.filter(|_| store.kind.has_sums()) else {
            return Ok(0);
        };
        self.sum_in(number, path)
    }

    /// As [`Self::sum`], in the store of this number.
    pub(crate) fn sum_in(&self, store: StoreNo, path: &Path) -> Result<i128, StorageError> {
        let row = self.tx.get(Table::Cell, &row_key(store, path.as_bytes()))?;
        row.map_or(Ok(0), |row| decode_sum(&row))
    }

    /// Calls `visit` with each path of a counter store at or below `prefix` whose sum is not 0, ascending, starting after
    /// `after` if given, until it breaks. The empty prefix is the whole store. Cost: one step a path.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn scan_sums(
        &self,
        store: &StoreId,
        prefix: &Path,
        after: Option<&Path>,
        visit: &mut dyn FnMut(Path, i128) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        self.require_built()?;
        let Some(number) = store_number(self.tx, store)?.filter(|_| store.kind.has_sums()) else {
            return Ok(());
        };
        let start = cell_prefix(number, prefix.as_bytes());
        let from = match after {
            Some(path) => [&row_key(number, path.as_bytes())[..], &[0]].concat(),
            None => start.clone(),
        };
        let mut failed = None;
        self.tx.scan(Table::Cell, &from, None, Order::Ascending, &mut |key, row| {
            if !key.starts_with(&start) {
                return ControlFlow::Break(());
            }
            let path = key.get(4..).and_then(|rest| rest.strip_suffix(&[0]));
            match (path.ok_or_else(|| corrupt("a sum's key")), decode_sum(row)) {
                (Ok(path), Ok(sum)) => visit(Path::trusted(path), sum),
                (Err(e), _) | (_, Err(e)) => {
                    failed = Some(e);
                    ControlFlow::Break(())
                }
            }
        })?;
        failed.map_or(Ok(()), Err)
    }

    /// The digest of a counter store summed up again from its rows.
    pub(crate) fn resum_counts(&self, store: &StoreId) -> Result<[u8; 32], StorageError> {
        let mut digest = LtHash::default();
        self.scan_sums(store, &Path::default(), None, &mut |path, sum| {
            digest.add(&element(store.kind, path.as_bytes(), sum));
            ControlFlow::Continue(())
        })?;
        Ok(digest.digest())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn arb_op() -> impl Strategy<Value = CountOp> {
        let path = proptest::collection::vec(".*", 1..4).prop_map(|s| Path::text(s).unwrap());
        let count = prop_oneof![
            any::<i64>().prop_map(Count::Add),
            (-70i64..70).prop_map(Count::Add),
            any::<i128>().prop_map(Count::Reset),
        ];
        (path, count).prop_map(|(path, count)| CountOp { path, count })
    }

    proptest! {
        #[test]
        fn operations_round_trip(ops in proptest::collection::vec(arb_op(), 0..8)) {
            let decoded = decode_counts(&encode_counts(&ops));
            prop_assert!(!decoded.unknown);
            prop_assert_eq!(decoded.ops.into_iter().collect::<Option<Vec<_>>>().unwrap(), ops);
        }

        #[test]
        fn whatever_is_read_whole_has_one_spelling(
            ops in proptest::collection::vec(arb_op(), 1..4), at: usize, by in 1u8..
        ) {
            let mut bytes = encode_counts(&ops);
            let at = at % bytes.len();
            bytes[at] ^= by;
            let decoded = decode_counts(&bytes);
            let all: Option<Vec<CountOp>> = decoded.ops.into_iter().collect();
            if let Some(all) = all.filter(|all| !all.is_empty()) {
                prop_assert_eq!(encode_counts(&all), bytes);
            }
        }

        #[test]
        fn arbitrary_payloads_never_panic(bytes: Vec<u8>) {
            let _ = decode_counts(&bytes);
        }
    }

    #[test]
    fn numbers_are_short_whatever_their_sign() {
        let path = Path::text(["a"]).unwrap();
        let len = |n| encode_counts(&[CountOp { path: path.clone(), count: Count::Add(n) }]).len();
        assert_eq!(len(11), len(0));
        assert_eq!(len(-12), len(0));
        for n in [i64::MIN, i64::MAX, -1, 0, 1] {
            let op = CountOp { path: path.clone(), count: Count::Add(n) };
            assert_eq!(decode_counts(&encode_counts(std::slice::from_ref(&op))).ops, [Some(op)]);
        }
    }

    #[test]
    fn a_senseless_operation_hides_nothing() {
        let good = CountOp { path: Path::text(["a"]).unwrap(), count: Count::Add(3) };
        let mut w = Writer::new();
        w.array(5);
        w.array(3).u64(ADD).bytes(b"no path").u64(2);
        w.array(4).u64(ADD).bytes(good.path.as_bytes()).u64(2).u64(0);
        w.array(3).u64(RESET).bytes(good.path.as_bytes()).bytes(&[1; 15]);
        w.array(3).u64(ADD).bytes(good.path.as_bytes()).u64(6);
        w.array(2).u64(2).text("from the future");
        let decoded = decode_counts(&w.finish());
        assert_eq!(decoded.ops, vec![None, None, None, Some(good), None]);
        assert!(decoded.unknown);
    }
}
