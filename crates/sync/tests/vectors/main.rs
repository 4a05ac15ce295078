//! The golden vectors of docs/protocol.md, as files in docs/vectors: frames, what is signed and blinded on a session, and
//! a whole session frame by frame.
//!
//! Each module makes its file's content from fixed inputs, compares it with the file, and reads the file again from its
//! bytes alone. `ANABRANCH_WRITE_VECTORS=1` rewrites the files; a change in them is a change of the protocol.

#![allow(clippy::unwrap_used, clippy::panic)]

mod example;
mod file;
mod frames;
mod greeting;
mod symbols;
