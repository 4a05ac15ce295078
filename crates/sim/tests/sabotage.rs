//! The prover proved: each bug put in on purpose is found within the default seeds. Prints a line for the table in
//! docs/testing.md.

#![allow(clippy::unwrap_used, clippy::panic)]

use anabranch_core::sabotage::{Bug, set};
use anabranch_sim::check::Check;
use anabranch_sim::plan::{Options, Plan};
use anabranch_sim::world::simulate;

/// How many seeds may be needed.
const SEEDS: u64 = 300;

fn found(bug: Bug) -> Option<(u64, Check)> {
    set(Some(bug));
    for seed in 0..SEEDS {
        let plan = Plan::generate(seed, &Options::default());
        let outcome = simulate(&plan, false);
        if let Some(violation) = outcome.violation {
            return Some((seed + 1, violation.check));
        }
        // What depends on something outside the simulation shows when it is repeated.
        if seed < 3 && simulate(&plan, false).trace != outcome.trace {
            return Some((seed + 1, Check::Replayed));
        }
    }
    None
}

macro_rules! bugs {
    ($($test:ident: $bug:ident,)*) => {
        $(#[test]
        fn $test() {
            let (seeds, check) = found(Bug::$bug).expect("a bug that the simulator does not find");
            println!("| {:?} | {seeds} | {} |", Bug::$bug, check.name());
        })*

        #[test]
        fn every_bug_has_its_test() {
            assert_eq!([$(Bug::$bug),*].len(), Bug::ALL.len());
        }
    };
}

bugs! {
    tie_by_arrival: TieByArrival,
    applied_twice: AppliedTwice,
    replaced_kept: ReplacedKept,
    digest_not_reduced: DigestNotReduced,
    name_forgotten: NameForgotten,
    parent_unchecked: ParentUnchecked,
    head_unchecked: HeadUnchecked,
    generation_unchecked: GenerationUnchecked,
    grant_unchecked: GrantUnchecked,
    fork_ignored: ForkIgnored,
    half_run: HalfRun,
    sequence_reused: SequenceReused,
    stale_memory: StaleMemory,
    sums_forgotten: SumsForgotten,
    never_signed: NeverSigned,
    told_unsynced: ToldUnsynced,
    timestamp_alone: TimestampAlone,
    clock_read: ClockRead,
    lost_wake_up: LostWakeUp,
    pending_unbounded: PendingUnbounded,
    watermark: Watermark,
    right_unchecked: RightUnchecked,
    work_untold: WorkUntold,
    blob_unverified: BlobUnverified,
    frontier_first: FrontierFirst,
    file_unsynced: FileUnsynced,
    base_first: BaseFirst,
    copy_dropped: CopyDropped,
    unseen_replaced: UnseenReplaced,
    built_too_far: BuiltTooFar,
    stretch_unordered: StretchUnordered,
    never_built: NeverBuilt,
    replaced_as_of_now: ReplacedAsOfNow,
    zero_kept: ZeroKept,
    sum_saturates: SumSaturates,
    reset_by_none: ResetByNone,
    element_unnamed: ElementUnnamed,
    index_kept: IndexKept,
    index_forgotten: IndexForgotten,
    claim_kept: ClaimKept,
    claim_held: ClaimHeld,
    unclaimed: Unclaimed,
    gives_up: GivesUp,
    address_forgotten: AddressForgotten,
    content_unflushed: ContentUnflushed,
    conflict_collected: ConflictCollected,
    pin_ignored: PinIgnored,
    want_stuck: WantStuck,
    rank_ignored: RankIgnored,
    cut_ignored: CutIgnored,
    cut_off_by_one: CutOffByOne,
    regrant_revives: RegrantRevives,
    rights_as_of_now: RightsAsOfNow,
    right_once: RightOnce,
    revoked_still_reads: RevokedStillReads,
    wildcard_outlives: WildcardOutlives,
    grant_outlives_its_own: GrantOutlivesItsOwn,
    not_recounted: NotRecounted,
    not_passed_through: NotPassedThrough,
    uncounted_compared: UncountedCompared,
    key_not_renewed: KeyNotRenewed,
    keys_apart: KeysApart,
    closed_stays: ClosedStays,
    closed_not_awaited: ClosedNotAwaited,
}
