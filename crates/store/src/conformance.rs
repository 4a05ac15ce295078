//! What every back end has to do, as checks that a back end's own tests run.
//!
//! A back end, or a wrapper around one, passes a function that makes a new, empty storage to each of [`CHECKS`]. A check
//! panics when the storage does something else than the trait says and returns the storage's own error when it fails
//! where it must not. Durability is not checked here: that takes killing processes and cutting power.

mod contents;
mod random;
mod transactions;

use std::ops::ControlFlow;

use anabranch_core::storage::{Durability, Order, ReadTx, Storage, StorageError, Table};

/// Makes a new, empty storage.
pub type Make<'m> = &'m dyn Fn() -> Box<dyn Storage>;

/// One check; it makes as many storages as it needs.
pub type Check = fn(Make<'_>) -> Result<(), StorageError>;

/// All checks, by name.
pub const CHECKS: &[(&str, Check)] = &[
    ("keys_are_ordered_as_bytes", contents::keys_are_ordered_as_bytes),
    ("scans_respect_their_bounds", contents::scans_respect_their_bounds),
    ("a_visitor_ends_a_scan", contents::a_visitor_ends_a_scan),
    ("keys_and_values_may_be_empty", contents::keys_and_values_may_be_empty),
    ("large_values_come_back_whole", contents::large_values_come_back_whole),
    ("put_replaces", contents::put_replaces),
    ("delete_says_whether_it_was_there", contents::delete_says_whether_it_was_there),
    ("tables_are_separate", contents::tables_are_separate),
    ("number_keys_are_ordered_as_numbers", contents::number_keys_are_ordered_as_numbers),
    ("number_tables_refuse_other_keys", contents::number_tables_refuse_other_keys),
    ("number_tables_take_any_bound", contents::number_tables_take_any_bound),
    ("size_grows_with_what_is_stored", contents::size_grows_with_what_is_stored),
    ("a_snapshot_stays_what_it_is", transactions::a_snapshot_stays_what_it_is),
    ("a_writer_sees_its_own_writes", transactions::a_writer_sees_its_own_writes),
    ("uncommitted_writes_stay_unseen", transactions::uncommitted_writes_stay_unseen),
    ("a_dropped_writer_leaves_nothing", transactions::a_dropped_writer_leaves_nothing),
    ("values_may_be_read_while_visiting", transactions::values_may_be_read_while_visiting),
    ("a_panicking_visitor_does_no_harm", transactions::a_panicking_visitor_does_no_harm),
    ("an_empty_transaction_commits", transactions::an_empty_transaction_commits),
    ("writers_take_turns", transactions::writers_take_turns),
    ("states_are_told_apart", transactions::states_are_told_apart),
    ("who_must_not_wait_does_not", transactions::who_must_not_wait_does_not),
    ("readers_see_whole_commits", transactions::readers_see_whole_commits),
    ("a_reader_holds_up_no_writer", transactions::a_reader_holds_up_no_writer),
    ("any_sequence_matches_the_model", random::any_sequence_matches_the_model),
];

type Pair = (Vec<u8>, Vec<u8>);

/// Commits these pairs.
fn store(
    storage: &dyn Storage,
    table: Table,
    pairs: &[(&[u8], &[u8])],
) -> Result<(), StorageError> {
    let mut writer = storage.write(Durability::Normal)?;
    for (key, value) in pairs {
        writer.put(table, key, value)?;
    }
    writer.commit()
}

fn collect(
    reader: &dyn ReadTx,
    table: Table,
    from: &[u8],
    to: Option<&[u8]>,
    order: Order,
) -> Result<Vec<Pair>, StorageError> {
    let mut pairs = Vec::new();
    reader.scan(table, from, to, order, &mut |key, value| {
        pairs.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    })?;
    if order == Order::Ascending {
        let mut keys = Vec::new();
        reader.keys(table, from, to, &mut |key| {
            keys.push(key.to_vec());
            ControlFlow::Continue(())
        })?;
        assert!(pairs.iter().map(|(key, _)| key).eq(&keys), "{table:?}: keys alone are others");
        for key in &keys {
            assert!(reader.has(table, key)?, "{table:?} has {key:?}");
        }
    }
    Ok(pairs)
}

/// Every key of the table, smallest first.
fn keys(reader: &dyn ReadTx, table: Table) -> Result<Vec<Vec<u8>>, StorageError> {
    let pairs = collect(reader, table, b"", None, Order::Ascending)?;
    Ok(pairs.into_iter().map(|(key, _)| key).collect())
}
