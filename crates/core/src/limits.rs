//! Every bound that is part of the format: beyond one of these an entry is not admissible, on any replica, for ever (I4).
//! Bounds that only protect one node (memory, connections) are configuration and live with that node (I10).

/// Bytes of one entry: canonical header and payloads. Larger values and manifests are blobs.
pub const ENTRY_BYTES: usize = 192 * 1024;
/// Positions of other logs that one entry may build on.
pub const PARENTS: usize = 256;
/// Stores that one entry may touch.
pub const PAYLOADS: usize = 256;
/// Bytes of a store's name (UTF-8).
pub const STORE_NAME_BYTES: usize = 128;
/// Entries in one run.
pub const RUN_ENTRIES: usize = 256;
/// Bytes in one run: canonical bytes of its entries plus [`RUN_PARENT_BYTES`] for each parent.
pub const RUN_BYTES: usize = 256 * 1024;
/// What one parent counts against [`RUN_BYTES`]: its head travels with it.
pub const RUN_PARENT_BYTES: usize = 160;
/// Bytes of an encoded cell path.
pub const PATH_BYTES: usize = 8 * 1024;
/// Segments of a cell path.
pub const PATH_SEGMENTS: usize = 64;
/// Grants (tickets included) of one entry.
pub const GRANT_OPS: usize = 1024;
/// Places that the cut of one revocation lists.
pub const CUT_TIPS: usize = 1024;
/// Entries of a person's database that one entry embeds.
pub const EVIDENCE_ENTRIES: usize = 512;
/// Bytes that they take.
pub const EVIDENCE_BYTES: usize = 128 * 1024;
/// Grants between a grant and the one that the genesis entry made.
pub const DELEGATION_DEPTH: u32 = 64;

/// Stores that are sealed in a database of which others are not.
pub const SEALED_STORES: usize = 64;
/// Operations in the payload of the store of keys.
pub const KEY_OPS: usize = 64;
/// Readers that one operation hands a key to. More are reached by more entries.
pub const KEY_WRAPS: usize = 1_024;
/// Keys that one operation puts under another one.
pub const KEYS_UNDER: usize = 256;
