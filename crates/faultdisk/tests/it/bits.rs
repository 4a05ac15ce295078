//! Flipped bits: an answer or an error, never a panic, and damage of the structure is found by who looks for it.

use std::fs;

use anabranch_core::storage::{Durability, Storage, StorageError, Table};

use crate::plan::{Asking, Contents, Plan, Progress};
use crate::world::{World, contents};

const FLIPS: u64 = 250;

/// What comes of a database with one wrong bit.
#[derive(Debug, Default)]
struct Outcomes {
    refused: u32,
    found_by_check: u32,
    other_contents: u32,
    unnoticed: u32,
}

fn use_all(world: &World) -> Result<(Contents, Vec<String>), StorageError> {
    let storage = world.open()?;
    let found = contents(&storage)?;
    let findings = storage.check()?;
    let mut writer = storage.write(Durability::Full)?;
    writer.put(Table::Local, b"key", &[1; 5_000])?;
    writer.commit()?;
    Ok((found, findings))
}

#[test]
fn a_flipped_bit_is_an_answer_or_an_error() {
    let plan = Plan::new(12, 12, Asking::Full);
    let world = World::new(12);
    world.live(&plan, &mut Progress::default()).unwrap();
    let whole = world.disk.snapshot().unwrap();
    let mut outcomes = Outcomes::default();
    for _ in 0..FLIPS {
        world.disk.restore(&whole).unwrap();
        let before = fs::read(world.file()).unwrap();
        let flip = world.disk.flip_bit().unwrap().unwrap();
        let after = fs::read(&flip.path).unwrap();
        assert_eq!((&flip.path, before.len()), (&world.file(), after.len()));
        assert_eq!(after[flip.offset] ^ before[flip.offset], 1 << flip.bit);
        match use_all(&world) {
            Err(error) => {
                let about_the_file = matches!(
                    error,
                    StorageError::Corrupt(_)
                        | StorageError::Foreign { .. }
                        | StorageError::NewerVersion { .. }
                        | StorageError::OlderVersion { .. }
                );
                assert!(about_the_file, "{flip:?}: {error}");
                outcomes.refused += 1;
            }
            Ok((_, findings)) if !findings.is_empty() => outcomes.found_by_check += 1,
            Ok((found, _)) if !plan.is_whole(&found) => outcomes.other_contents += 1,
            Ok(_) => outcomes.unnoticed += 1,
        }
    }
    let Outcomes { refused, found_by_check, other_contents, unnoticed } = outcomes;
    assert_eq!(u64::from(refused + found_by_check + other_contents + unnoticed), FLIPS);
    assert!(refused > 0 && other_contents > 0, "{outcomes:?}");
}

/// One bit mostly hits a value, whose hash only the layers above know; among many, some hit what holds the values together.
#[test]
fn many_flipped_bits_are_noticed() {
    let plan = Plan::new(24, 12, Asking::Full);
    let world = World::new(24);
    world.live(&plan, &mut Progress::default()).unwrap();
    let whole = world.disk.snapshot().unwrap();
    let (mut refused, mut found_by_check) = (0, 0);
    for _ in 0..40 {
        world.disk.restore(&whole).unwrap();
        for _ in 0..100 {
            world.disk.flip_bit().unwrap();
        }
        match use_all(&world) {
            Err(_) => refused += 1,
            Ok((found, findings)) => {
                assert!(!plan.is_whole(&found));
                found_by_check += u32::from(!findings.is_empty());
            }
        }
    }
    assert!(refused > 0 && found_by_check > 0, "{refused} {found_by_check}");
    assert!(refused + found_by_check > 20, "{refused} {found_by_check}");
}

/// The log has checksums: it ends where it is damaged.
#[test]
fn a_bit_flipped_in_the_log_takes_the_last_commits() {
    let plan = Plan::new(13, 6, Asking::Full);
    let world = World::new(13);
    let mut progress = Progress::default();
    let storage = world.create().unwrap();
    plan.run(&storage, &mut progress, 5).unwrap();
    world.disk.kill();
    drop(storage);
    let whole = world.disk.snapshot().unwrap();
    let mut shorter = 0;
    for _ in 0..100 {
        world.disk.restore(&whole).unwrap();
        let flip = world.disk.flip_bit().unwrap().unwrap();
        if flip.path != world.file() {
            let found = contents(&world.open().unwrap()).unwrap();
            let count = plan.place(&found, 0, 5);
            assert!(count.is_some(), "{flip:?}");
            shorter += u32::from(count < Some(5));
        }
    }
    assert!(shorter > 10, "{shorter}");
}
