//! The token that requests over HTTP carry. It is in a file of the home that only its owner may read.

use anabranch::NodeError;
use data_encoding::BASE64URL_NOPAD;
use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

const FILE: &str = "api.token";
const BYTES: usize = 32;

/// The token of the home at `home`, made when there is none.
///
/// # Errors
/// [`NodeError::File`] when the file cannot be read or made, or holds no token; [`NodeError::Random`].
pub fn token(
    home: &Path,
    random: impl FnOnce() -> Result<[u8; BYTES], NodeError>,
) -> Result<String, NodeError> {
    let path = home.join(FILE);
    let failed = |source| NodeError::File { path: path.clone(), source };
    if !path.exists() {
        // Under another name first, so that nobody ever reads half of it.
        let fresh = home.join(format!("{FILE}.{}", std::process::id()));
        let _ = fs::remove_file(&fresh);
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&fresh)
            .map_err(failed)?;
        writeln!(file, "{}", BASE64URL_NOPAD.encode(&random()?)).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        // Another process may have been first.
        let linked = fs::hard_link(&fresh, &path);
        let _ = fs::remove_file(&fresh);
        match linked {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => return Err(failed(e)),
            _ => {}
        }
    }
    let text = fs::read_to_string(&path).map_err(failed)?;
    let token = text.trim();
    let whole = BASE64URL_NOPAD.decode(token.as_bytes()).is_ok_and(|bytes| bytes.len() == BYTES);
    if !whole {
        let text = "it holds no token; delete it and a new one is made";
        return Err(failed(std::io::Error::new(std::io::ErrorKind::InvalidData, text)));
    }
    Ok(token.to_owned())
}

/// Whether two tokens are equal, in a time that does not tell how much of them is.
pub(crate) fn same(one: &str, other: &str) -> bool {
    let differ = |(a, b): (u8, u8)| a ^ b;
    one.len() == other.len()
        && one.bytes().zip(other.bytes()).map(differ).fold(0, |d, x| d | x) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_token_is_made_once_and_for_its_owner_alone() {
        let home = tempfile::tempdir().unwrap();
        let first = token(home.path(), || Ok([7; 32])).unwrap();
        assert_eq!(token(home.path(), || Ok([8; 32])).unwrap(), first);
        let file = home.path().join(FILE);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&file, "short").unwrap();
        let error = token(home.path(), || Ok([8; 32])).unwrap_err().chain();
        assert!(error.contains("delete it"), "{error}");
        assert!(same("abc", "abc") && !same("abc", "abd") && !same("abc", "ab"));
    }
}
