//! Real data that most test machines have: every path that a Debian package owns, with the packages that own it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufWriter, Write};
use std::path::Path;

use serde_json::json;

use crate::error::{Error, Result};

const LISTS: &str = "/var/lib/dpkg/info";
/// Fewer rows would prove too little.
const ENOUGH: usize = 100_000;

/// Paths and the packages they belong to, as `dpkg -S` names them.
pub(crate) fn owned_paths() -> Result<Vec<(String, String)>> {
    let missing = |source| Error::File { path: LISTS.into(), source };
    let mut owners: BTreeMap<String, String> = BTreeMap::new();
    for entry in fs::read_dir(LISTS).map_err(missing)? {
        let path = entry.map_err(missing)?.path();
        if path.extension().is_none_or(|extension| extension != "list") {
            continue;
        }
        let package = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let list = fs::read(&path).map_err(|source| Error::File { path, source })?;
        for line in String::from_utf8_lossy(&list).lines().filter(|line| !line.is_empty()) {
            let owner = owners.entry(line.to_owned()).or_default();
            if !owner.is_empty() {
                owner.push_str(", ");
            }
            owner.push_str(&package);
        }
    }
    if owners.len() < ENOUGH {
        return Err(Error::NotAccepted(format!(
            "the packages of this machine own at least {ENOUGH} paths ({LISTS}/*.list): {}",
            owners.len()
        )));
    }
    Ok(owners.into_iter().collect())
}

/// Writes rows `{path, package}`, one a line.
pub(crate) fn write_rows(rows: &[(String, String)], to: &Path) -> Result<()> {
    let failed = |source| Error::File { path: to.to_path_buf(), source };
    let mut file = BufWriter::new(fs::File::create(to).map_err(failed)?);
    for (path, package) in rows {
        writeln!(file, "{}", json!({ "path": path, "package": package })).map_err(failed)?;
    }
    file.flush().map_err(failed)
}
