//! What a disk has counted.

/// Counts since the disk was made. Operations that were refused because the power was off or the process dead do not
/// count; those that a fault made fail do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
    /// Changes of a file's length other than by writing.
    pub resizes: u64,
    /// Syncs of files and directories.
    pub syncs: u64,
    /// Files made by SQLite.
    pub creations: u64,
    /// Files removed by SQLite.
    pub deletions: u64,
    /// Bytes asked for by reads.
    pub bytes_read: u64,
    /// Bytes handed in by writes.
    pub bytes_written: u64,
    /// Bytes of writes that no sync has made safe at this moment.
    pub bytes_unsynced: u64,
    /// Operations that failed for want of room, or because they were told to.
    pub faults: u64,
    /// How often the power went.
    pub crashes: u64,
    /// How often the process died.
    pub kills: u64,
}

impl Statistics {
    /// Operations that change the disk, or make a change safe: what [`Disk::crash_at`](crate::Disk::crash_at) counts.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.writes + self.resizes + self.syncs + self.creations + self.deletions
    }

    /// All operations: what [`Disk::fail_io`](crate::Disk::fail_io) counts.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.changes() + self.reads
    }
}
