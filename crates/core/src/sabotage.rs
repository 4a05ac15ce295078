//! Bugs put in on purpose, to see whether the simulator finds them. Without the feature `sabotage` there are none:
//! [`is`] is `false` at compile time and nothing of them is left in the program.

/// A bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bug {
    /// Of several values of a cell the one shown first is the one that arrived first.
    TieByArrival,
    /// A run that is held already has its operations carried out once more.
    AppliedTwice,
    /// A write does not replace what it names.
    ReplacedKept,
    /// A replaced value stays in the digest.
    DigestNotReduced,
    /// A sealed database goes on with a key that somebody knows who may not read any more.
    KeyNotRenewed,
    /// A key does not lead to those that were made before it or beside it.
    KeysApart,
    /// What was sealed with a key that comes later stays as it is.
    ClosedStays,
    /// What a payload names that cannot be opened is not fetched.
    ClosedNotAwaited,
    /// A name whose target is not held is forgotten.
    NameForgotten,
    /// An entry counts as held without its parents.
    ParentUnchecked,
    /// A head is taken for signed.
    HeadUnchecked,
    /// An entry's generation is taken for right.
    GenerationUnchecked,
    /// An entry may use anybody's grant.
    GrantUnchecked,
    /// A second entry at one place of a log counts as the first.
    ForkIgnored,
    /// A run is applied by half.
    HalfRun,
    /// A copied or restored replica goes on in the log it finds.
    SequenceReused,
    /// What one transaction knew of the tables counts in the next, whoever wrote in between.
    StaleMemory,
    /// What only entries say is left out of digests.
    SumsForgotten,
    /// A commit is never signed for peers.
    NeverSigned,
    /// Under normal durability heads are written without a sync.
    ToldUnsynced,
    /// Timestamps do not follow those of the entries below.
    TimestampAlone,
    /// The system's clock is read instead of the one handed in.
    ClockRead,
    /// Only one session hears of a commit.
    LostWakeUp,
    /// Early runs are kept without a bound.
    PendingUnbounded,
    /// A peer that was brought up to date once counts as having everything since.
    Watermark,
    /// Everybody may read.
    RightUnchecked,
    /// What a session brings is told to no other session.
    WorkUntold,
    /// A blob is stored under whatever name it came with.
    BlobUnverified,
    /// The tables are committed one after the other, entries last.
    FrontierFirst,
    /// A file gets its name before its content is on the disk.
    FileUnsynced,
    /// The base of a folder says what is not on the disk yet.
    BaseFirst,
    /// What lost in a folder is not kept as a conflict copy.
    CopyDropped,
    /// What a user does to a file replaces what others did meanwhile.
    UnseenReplaced,
    /// After the first stretch of a bulk load all cells count as built.
    BuiltTooFar,
    /// A stretch carries out the operations of a path in the wrong order.
    StretchUnordered,
    /// Nobody builds the cells of a bulk load, and they are read all the same.
    NeverBuilt,
    /// What arrived later in a bulk load counts as held when a replaced value is looked up.
    ReplacedAsOfNow,
    /// A counter that comes to 0 keeps its place in the state.
    ZeroKept,
    /// Sums of counters stop at the largest number that may be added.
    SumSaturates,
    /// A reset of a counter takes nothing away.
    ResetByNone,
    /// The elements that an entry makes are named by their numbers alone.
    ElementUnnamed,
    /// A replaced value stays in the indexes.
    IndexKept,
    /// What a bulk load brings is left out of the indexes.
    IndexForgotten,
    /// What one peer was to bring is never taken from another.
    ClaimKept,
    /// What a peer offers counts as held because another one is to bring it.
    ClaimHeld,
    /// Nobody is told that what it has comes from somebody else.
    Unclaimed,
    /// A peer that was not reached a few times is not tried any more.
    GivesUp,
    /// Of several addresses of a peer only the one that worked is kept.
    AddressForgotten,
    /// The entry of a blob is committed without the last of its content.
    ContentUnflushed,
    /// Content that only a value which is not shown names is taken away.
    ConflictCollected,
    /// What a put is about to name is taken away.
    PinIgnored,
    /// A blob asked of a session that ended is asked of nobody else.
    WantStuck,
    /// A grant may be revoked by whoever may grant.
    RankIgnored,
    /// What lies past a cut counts.
    CutIgnored,
    /// The last entry that a cut leaves does not count.
    CutOffByOne,
    /// Whoever has a grant again has what it wrote past a cut count.
    RegrantRevives,
    /// Entries are admitted by the rights that their author has now.
    RightsAsOfNow,
    /// The right to read is looked up when a session begins, and not again.
    RightOnce,
    /// A revoked grant still lets its holder read.
    RevokedStillReads,
    /// A grant to everyone holds after it was revoked.
    WildcardOutlives,
    /// Grants made past a cut count.
    GrantOutlivesItsOwn,
    /// What entries did that cease to count is left as it is.
    NotRecounted,
    /// What a value replaced that does not count is back when that is replaced.
    NotPassedThrough,
    /// What does not count is exchanged like what does.
    UncountedCompared,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 64] = [
        Self::TieByArrival,
        Self::AppliedTwice,
        Self::ReplacedKept,
        Self::DigestNotReduced,
        Self::NameForgotten,
        Self::ParentUnchecked,
        Self::HeadUnchecked,
        Self::GenerationUnchecked,
        Self::GrantUnchecked,
        Self::ForkIgnored,
        Self::HalfRun,
        Self::SequenceReused,
        Self::StaleMemory,
        Self::SumsForgotten,
        Self::NeverSigned,
        Self::ToldUnsynced,
        Self::TimestampAlone,
        Self::ClockRead,
        Self::LostWakeUp,
        Self::PendingUnbounded,
        Self::Watermark,
        Self::RightUnchecked,
        Self::WorkUntold,
        Self::BlobUnverified,
        Self::FrontierFirst,
        Self::FileUnsynced,
        Self::BaseFirst,
        Self::CopyDropped,
        Self::UnseenReplaced,
        Self::BuiltTooFar,
        Self::StretchUnordered,
        Self::NeverBuilt,
        Self::ReplacedAsOfNow,
        Self::ZeroKept,
        Self::SumSaturates,
        Self::ResetByNone,
        Self::ElementUnnamed,
        Self::IndexKept,
        Self::IndexForgotten,
        Self::ClaimKept,
        Self::ClaimHeld,
        Self::Unclaimed,
        Self::GivesUp,
        Self::AddressForgotten,
        Self::ContentUnflushed,
        Self::ConflictCollected,
        Self::PinIgnored,
        Self::WantStuck,
        Self::RankIgnored,
        Self::KeyNotRenewed,
        Self::KeysApart,
        Self::ClosedStays,
        Self::ClosedNotAwaited,
        Self::CutIgnored,
        Self::CutOffByOne,
        Self::RegrantRevives,
        Self::RightsAsOfNow,
        Self::RightOnce,
        Self::RevokedStillReads,
        Self::WildcardOutlives,
        Self::GrantOutlivesItsOwn,
        Self::NotRecounted,
        Self::NotPassedThrough,
        Self::UncountedCompared,
    ];
}

#[cfg(feature = "sabotage")]
std::thread_local! {
    static ACTIVE: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Whether this thread is to have this bug.
#[cfg(feature = "sabotage")]
#[must_use]
pub fn is(bug: Bug) -> bool {
    ACTIVE.get() == Some(bug)
}

/// No thread has any bug.
#[cfg(not(feature = "sabotage"))]
#[must_use]
#[inline(always)]
pub const fn is(_: Bug) -> bool {
    false
}

/// Gives this thread a bug, or takes it away.
#[cfg(feature = "sabotage")]
pub fn set(bug: Option<Bug>) {
    ACTIVE.set(bug);
}
