//! SQLite files on a disk that fails: power loss, dead processes, no room, I/O errors, flipped bits, disks that lie about
//! what they have synced. All of it is decided by a seed, so that a run that went wrong can be had again.
//!
//! A [`Disk`] is a directory of real files. Connections that are opened in it through the VFS of this crate ([`NAME`])
//! work on the real files, locks and shared memory included, and the disk remembers of each file what has been synced and
//! what was written since. What a power loss leaves is put together from these two and written into the real files.
//!
//! ```no_run
//! # fn storage(_: &std::path::Path) {}
//! # fn main() -> Result<(), anabranch_faultdisk::DiskError> {
//! let disk = anabranch_faultdisk::Disk::new("/dev/shm/example", 7)?;
//! // The power goes with the tenth change to the disk from now on.
//! disk.crash_at(10);
//! // … work on files under `disk.path()` until that fails, then drop whatever has them open …
//! disk.recover()?;
//! // … open the files again and look …
//! # Ok(()) }
//! ```
//!
//! **What a power loss does.** Of each file, what was written before its last sync stays. Of what was written since, each
//! sector (512 bytes) stays or goes; sometimes all go, all stay, or those up to some point do, the last of them torn. Names
//! made and removed since their directory was synced stay up to some point. Files and directories that are changed without
//! SQLite are taken as durable at once, except for what [`sync`] is asked to do.
//!
//! **What comes from the seed.** Every decision of the disk, SQLite's randomness (the salts of its logs) and its clock;
//! waiting for a lock takes a hundredth of the time. SQLite has one generator of randomness in a process: files come out
//! byte for byte the same only while one thread at a time uses SQLite. What happens does not depend on these bytes.
//!
//! **Where it ends.** Temporary files of SQLite have no name and are on another disk. The index of a log (`-shm`) is
//! memory and never written late; a power loss removes it. One process at a time uses a disk.
#![cfg(unix)]

mod content;
mod disk;
mod drive;
mod error;
mod files;
mod names;
mod random;
mod registry;
mod state;
mod statistics;
mod tree;
mod vfs;

pub use disk::{Disk, Flip, Snapshot};
pub use error::DiskError;
pub use registry::sync;
pub use statistics::Statistics;
pub use vfs::NAME;
