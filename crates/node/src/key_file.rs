//! The file that holds the device's key, as it is or locked by a passphrase: read within bounds, and written so that nobody
//! ever sees half of one or loses one.

use crate::device::random;
use crate::error::NodeError;
use crate::home::fresh_name;
use crate::locked::{KEY_BYTES, LockedKey, Passphrase};
use anabranch_core::id::{from_base32, to_base32};
use anabranch_core::key::DeviceKey;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use zeroize::Zeroizing;

const KEY_PREFIX: &str = "device_key_";

/// What a key's file holds.
enum Kept {
    Plain(DeviceKey),
    Locked(LockedKey),
}

/// A key as it stands in a file that needs no passphrase.
pub(crate) fn plain(key: &DeviceKey) -> Zeroizing<String> {
    let seed = Zeroizing::new(key.seed());
    let text = Zeroizing::new(to_base32(&*seed));
    Zeroizing::new(format!("{KEY_PREFIX}{}", *text))
}

/// Reads the key, or makes one at the first start. Two processes starting at once agree.
pub(crate) fn load_key(
    path: &Path,
    passphrase: impl FnOnce() -> Result<Option<Passphrase>, NodeError>,
) -> Result<DeviceKey, NodeError> {
    let kept = match read_key(path)? {
        Some(kept) => kept,
        None => {
            let seed = Zeroizing::new(random::<32>()?);
            // Another process may have been first.
            put_key(path, &plain(&DeviceKey::from_seed(&seed)))?;
            read_key(path)?.ok_or_else(|| NodeError::Key(path.to_owned()))?
        }
    };
    match kept {
        Kept::Plain(key) => Ok(key),
        Kept::Locked(locked) => {
            let passphrase = passphrase()?.ok_or_else(|| NodeError::Locked(path.to_owned()))?;
            locked.unlock(&passphrase)
        }
    }
}

fn read_key(path: &Path) -> Result<Option<Kept>, NodeError> {
    let damaged = || NodeError::Key(path.to_owned());
    let text = match fs::File::open(path).and_then(read_text) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) if e.kind() == std::io::ErrorKind::InvalidData => return Err(damaged()),
        Err(e) => return Err(NodeError::file(path, e)),
    };
    if let Ok(locked) = text.parse::<LockedKey>() {
        return Ok(Some(Kept::Locked(locked)));
    }
    let seed = text.trim().strip_prefix(KEY_PREFIX).and_then(from_base32).map(Zeroizing::new);
    let seed = seed.as_ref().and_then(|seed| <&[u8; 32]>::try_from(&seed[..]).ok());
    seed.map(|seed| Some(Kept::Plain(DeviceKey::from_seed(seed)))).ok_or_else(damaged)
}

pub(crate) fn read_text(file: fs::File) -> std::io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    file.take(KEY_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

/// Puts `text` into a file of its own beside `path`, durably, and has `place` give it its name: so no half of a key is
/// ever seen.
pub(crate) fn write_key(
    path: &Path,
    text: &str,
    place: impl FnOnce(&Path) -> std::io::Result<()>,
) -> Result<(), NodeError> {
    let fresh = fresh_name(path)?;
    let written = (|| {
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        writeln!(file, "{text}")?;
        file.sync_all()?;
        place(&fresh)
    })();
    let _ = fs::remove_file(&fresh);
    written.map_err(|e| NodeError::file(path, e))?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(dir).and_then(|d| d.sync_all()).map_err(|e| NodeError::file(dir, e))
}

/// Makes a key and writes it to a file that is not there.
pub(crate) fn new_key(path: &Path) -> Result<DeviceKey, NodeError> {
    let key = DeviceKey::from_seed(&Zeroizing::new(random::<32>()?));
    match put_key(path, &plain(&key))? {
        true => Ok(key),
        false => Err(NodeError::KeyTaken(path.to_owned())),
    }
}

/// Reads a key that needs no passphrase.
pub(crate) fn read_plain(path: &Path) -> Result<DeviceKey, NodeError> {
    match read_key(path)? {
        Some(Kept::Plain(key)) => Ok(key),
        Some(Kept::Locked(_)) => Err(NodeError::Locked(path.to_owned())),
        None => {
            let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
            Err(NodeError::file(path, missing))
        }
    }
}

/// Writes a key where there is none. False if there is one.
pub(crate) fn put_key(path: &Path, text: &str) -> Result<bool, NodeError> {
    let mut put = true;
    write_key(path, text, |fresh| match fs::hard_link(fresh, path) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            put = false;
            Ok(())
        }
        linked => linked,
    })?;
    Ok(put)
}
