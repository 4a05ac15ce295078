//! Anabranch storage: the [`Storage`](anabranch_core::storage::Storage) trait on SQLite and in memory.
//!
//! Both back ends keep ordered tables of bytes and know nothing of entries or cells; what the bytes mean is decided in
//! `anabranch-core`. [`SqliteStorage`] is one file on disk, shared by threads and processes; [`MemoryStorage`] lives as
//! long as the process, for tests and the simulator. One suite, `conformance` (behind the feature of that name), holds
//! both to the same behaviour. Guards I1 and I6: a commit that was acknowledged is as durable as it was asked to be, and
//! I7: neither reading nor writing needs memory in proportion to the database.

#[cfg(feature = "conformance")]
pub mod conformance;
mod integer_key;
mod memory;
mod pool;
mod sqlite;

pub use memory::MemoryStorage;
pub use sqlite::{FORMAT_VERSION, Options, SqliteStorage, Vfs};
