//! The mark of the place a database file is in (I6): machine, inode and path.
//!
//! A copy has another inode, a move another path, a disk put into another machine another machine id. Never the number of
//! the device: that changes with the order in which disks are found.

use std::fs;
use std::io;
use std::path::Path;

/// Separates this use of BLAKE3 from every other.
const CONTEXT: &str = "anabranch 2026 storage instance mark v1";

/// The mark for the file at `path`, which is canonical.
pub(super) fn mark(path: &Path) -> io::Result<[u8; 32]> {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    for part in
        [&machine_id()[..], &inode(path)?.to_be_bytes(), path.as_os_str().as_encoded_bytes()]
    {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    Ok(hasher.finalize().into())
}

/// Empty where the system has none.
fn machine_id() -> Vec<u8> {
    ["/etc/machine-id", "/var/lib/dbus/machine-id"]
        .into_iter()
        .find_map(|file| fs::read(file).ok())
        .map(|id| id.trim_ascii().to_vec())
        .unwrap_or_default()
}

#[cfg(unix)]
fn inode(path: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    Ok(fs::metadata(path)?.ino())
}

#[cfg(not(unix))]
fn inode(_path: &Path) -> io::Result<u64> {
    Ok(0)
}
