//! The golden vectors of docs/format.md, as files in docs/vectors: bytes in; ids, digests and state out.
//!
//! Each module makes its file's content from fixed inputs, compares it with the file, and then reads the file as another
//! implementation would: from its bytes alone. `ANABRANCH_WRITE_VECTORS=1` rewrites the files; a change in them is a
//! change of the format.

#![allow(clippy::unwrap_used, clippy::panic)]

mod blobs;
mod cells;
mod encoding;
mod entries;
mod file;
mod keys;
mod lthash;
mod membership;
mod payloads;
mod people;
mod runs;
mod seal;
mod tickets;
mod world;
