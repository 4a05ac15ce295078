//! Fuzz targets for every decoder of bytes that this program did not make itself: from peers, from files that may be
//! damaged, from people. The fuzzer (`src/bin/fuzz.rs`, run by `cargo xtask ci fuzz`) looks for new inputs; the tests replay
//! those that are kept, so that what was found once stays found.
//!
//! A target asserts what comes of an input, not only that nothing panics: what is read is written again as the same
//! bytes, stays within its limits, and is no more than its signatures vouch for. docs/testing.md lists them.

mod examine;
mod input;
// Private to its library, as nobody else needs it.
#[path = "../../crates/anabranch/src/position.rs"]
mod position;
mod targets;
pub mod world;

use targets::{blob, entry, file, folder, frame, home, link, rows, session, text, value};

/// A decoder, or a few that belong together, and what must hold of whatever it is given.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// What it is called; also the directory of its corpus.
    pub name: &'static str,
    /// What is decoded.
    pub about: &'static str,
    /// Panics where something does not hold.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "blob", about: "manifest nodes, and walks through them", run: blob::run },
    Target { name: "file", about: "damaged database files", run: file::run },
    Target { name: "folder", about: "paths, states and base rows of folders", run: folder::run },
    Target { name: "frame", about: "frames of a session", run: frame::run },
    Target { name: "header", about: "headers of entries", run: entry::header },
    Target { name: "home", about: "rows and key of a home", run: home::run },
    Target { name: "link", about: "pipes, handshakes, records, introductions", run: link::run },
    Target {
        name: "payload",
        about: "operations on cells, counters and members, cell paths",
        run: entry::payload,
    },
    Target {
        name: "rows",
        about: "rows of a database that are not what was written",
        run: rows::run,
    },
    Target { name: "run", about: "runs of entries", run: entry::run },
    Target {
        name: "session",
        about: "what a peer, member or stranger, may send",
        run: session::run,
    },
    Target { name: "text", about: "tickets, ids, addresses, settings", run: text::run },
    Target {
        name: "value",
        about: "JSON and CBOR values, positions in lists, keys of indexes",
        run: value::run,
    },
];

/// The target called `name`.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
