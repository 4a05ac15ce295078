//! Two or three replicas, users who do anything to their folders, meetings in any order, crashes, full disks, unreadable
//! files, edits in the middle of a run.

use crate::world::{Act, Step, World};
use proptest::prelude::*;

fn act() -> impl Strategy<Value = Act> {
    let n = any::<u8>;
    prop_oneof![
        3 => n().prop_map(Act::Write),
        3 => n().prop_map(Act::Overwrite),
        1 => n().prop_map(Act::ReplaceByRename),
        3 => n().prop_map(Act::Remove),
        3 => (n(), n()).prop_map(|(a, b)| Act::Rename(a, b)),
        1 => (n(), n()).prop_map(|(a, b)| Act::Swap(a, b)),
        2 => n().prop_map(Act::MakeDir),
        1 => n().prop_map(Act::Link),
        1 => n().prop_map(Act::Chmod),
        1 => n().prop_map(Act::Touch),
    ]
}

fn step(trouble: u32) -> impl Strategy<Value = Step> {
    let n = any::<u8>;
    let quiet = prop_oneof![
        5 => (n(), act()).prop_map(|(who, act)| Step::User(who, act)),
        1 => (0..3000u16).prop_map(Step::Wait),
        2 => (n(), n()).prop_map(|(a, b)| Step::Meet(a, b)),
        2 => n().prop_map(Step::Run),
    ];
    let noisy = prop_oneof![
        (n(), n()).prop_map(|(who, ops)| Step::Crash(who, ops)),
        n().prop_map(Step::Full),
        (n(), n()).prop_map(|(who, at)| Step::Unreadable(who, at)),
        (n(), n(), act()).prop_map(|(who, ops, act)| Step::During(who, ops, act)),
    ];
    prop_oneof![10 => quiet, trouble => noisy]
}

fn check(count: usize, steps: &[Step]) {
    let mut world = World::new(count);
    for step in steps {
        world.step(step);
        world.nothing_is_lost();
    }
    world.rest();
    world.all_agree();
}

/// Found by the properties below, and so not to be found again.
#[test]
fn a_copy_that_stands_is_not_lost_when_its_original_went_in_a_crash() {
    for ops in 0..60 {
        check(
            3,
            &[
                Step::User(0, Act::Write(6)),
                Step::User(2, Act::MakeDir(7)),
                Step::Run(2),
                Step::Meet(2, 0),
                Step::During(2, 0, Act::Remove(0)),
                Step::User(0, Act::Write(0)),
                Step::Full(0),
                Step::Unreadable(0, 2),
                Step::Crash(0, ops),
            ],
        );
    }
}

/// Likewise.
#[test]
fn nothing_takes_the_place_of_what_was_not_moved_away() {
    for ops in 0..60 {
        check(
            3,
            &[
                Step::User(1, Act::MakeDir(0)),
                Step::User(0, Act::Write(0)),
                Step::User(1, Act::Write(4)),
                Step::Crash(1, 3),
                Step::Meet(1, 0),
                Step::During(0, ops, Act::Remove(0)),
                Step::User(0, Act::Write(0)),
            ],
        );
    }
}

/// Likewise.
#[test]
fn what_may_stand_where_nobody_can_look_is_not_taken_for_deleted() {
    for (first, ops) in [0, 7].into_iter().flat_map(|first| (0..60).map(move |ops| (first, ops))) {
        check(
            3,
            &[
                Step::User(0, Act::Write(3)),
                Step::User(1, Act::MakeDir(3)),
                Step::Crash(1, 2),
                Step::During(0, first, Act::Write(0)),
                Step::Meet(0, 1),
                Step::Unreadable(0, 0),
                Step::Crash(0, ops),
                Step::Unreadable(0, 0),
            ],
        );
    }
}

/// Likewise.
#[test]
fn a_file_in_the_place_of_a_directory_just_made_keeps_its_own_mode() {
    for ops in 0..60 {
        check(
            3,
            &[
                Step::User(1, Act::Write(0)),
                Step::User(1, Act::MakeDir(8)),
                Step::User(2, Act::Write(0)),
                Step::Run(1),
                Step::Meet(0, 1),
                Step::During(0, ops, Act::Rename(0, 3)),
            ],
        );
    }
}

/// Likewise.
#[test]
fn a_mode_that_the_user_sets_while_ours_is_being_set_is_the_users() {
    for ops in 0..60 {
        let made = [
            Step::User(1, Act::MakeDir(2)),
            Step::User(1, Act::Write(0)),
            Step::Run(1),
            Step::Meet(0, 1),
        ];
        let told = [Step::Wait(3000), Step::Run(1), Step::Meet(0, 1)];
        for (theirs, mine) in [(2, 1), (2, 0), (0, 1), (1, 0)] {
            // While it is made, and while it is changed.
            check(2, &[&made[..], &[Step::During(0, ops, Act::Chmod(mine))]].concat());
            let (first, second) = (Step::User(1, Act::Chmod(theirs)), Act::Chmod(mine));
            let run = [Step::Run(0), first];
            let last = [Step::During(0, ops, second)];
            check(2, &[&made[..], &run, &told, &last].concat());
        }
    }
}

/// Likewise.
#[test]
fn a_copy_stands_even_if_another_value_says_the_same_by_now() {
    for ops in 0..60 {
        check(
            3,
            &[
                Step::User(0, Act::Write(0)),
                Step::User(0, Act::Write(4)),
                Step::User(2, Act::Write(3)),
                Step::Run(2),
                Step::Meet(1, 2),
                Step::Crash(1, 10),
                Step::User(2, Act::Chmod(0)),
                Step::Run(0),
                Step::Meet(1, 0),
                Step::Run(2),
                Step::Unreadable(1, 0),
                Step::Crash(1, ops),
                Step::Meet(2, 1),
                Step::User(0, Act::Write(0)),
                Step::Full(0),
            ],
        );
    }
}

/// Likewise.
#[test]
fn a_former_copy_that_went_is_not_dropped_while_its_original_stands() {
    for ops in 0..60 {
        check(
            3,
            &[
                Step::User(2, Act::Write(3)),
                Step::User(1, Act::MakeDir(7)),
                Step::Run(1),
                Step::Meet(2, 1),
                Step::User(0, Act::Write(0)),
                Step::During(2, 0, Act::Rename(0, 23)),
                Step::User(0, Act::Rename(0, 6)),
                Step::User(2, Act::Remove(144)),
                Step::Unreadable(2, 0),
                Step::Wait(1),
                Step::Crash(2, ops),
            ],
        );
    }
}

/// Likewise.
#[test]
fn what_an_apply_that_died_put_somewhere_is_not_taken_for_the_users_choice() {
    for ops in 0..60 {
        check(
            3,
            &[
                Step::User(2, Act::Write(0)),
                Step::User(1, Act::Write(3)),
                Step::User(2, Act::Write(3)),
                Step::Crash(2, 9),
                Step::Crash(1, 5),
                Step::Meet(2, 1),
                Step::Unreadable(1, 0),
                Step::Run(2),
                Step::Crash(1, ops),
                Step::User(2, Act::Swap(46, 29)),
                Step::Crash(2, 14),
            ],
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn two_replicas_always_agree_and_lose_nothing(steps in prop::collection::vec(step(0), 0..40)) {
        check(2, &steps);
    }

    #[test]
    fn three_replicas_always_agree_and_lose_nothing(steps in prop::collection::vec(step(0), 0..50)) {
        check(3, &steps);
    }

    #[test]
    fn trouble_does_not_change_that(steps in prop::collection::vec(step(4), 0..50)) {
        check(3, &steps);
    }
}
