//! Folders on disk: copies of real ones, large files, and whether two are equal in the eyes of `diff`.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};
use crate::process;
use crate::random::Random;

fn at(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::File { path, source }
}

/// Copies the files below `from` into `to`, directory by directory, and returns how many.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<u64> {
    fs::create_dir_all(to).map_err(at(to))?;
    let mut count = 0;
    for entry in fs::read_dir(from).map_err(at(from))? {
        let entry = entry.map_err(at(from))?;
        let (path, copied) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(at(&path))?;
        if entry.file_name() == ".anabranch" {
            continue;
        } else if kind.is_dir() {
            count += copy(&path, &copied)?;
        } else if kind.is_file() {
            fs::copy(&path, &copied).map_err(at(&path))?;
            count += 1;
        }
    }
    Ok(count)
}

/// Writes a file of so many bytes that nothing compresses.
pub(crate) fn write_random(path: &Path, bytes: usize, random: &mut Random) -> Result<()> {
    let mut file = BufWriter::new(File::create(path).map_err(at(path))?);
    for _ in 0..bytes.div_ceil(8) {
        file.write_all(&random.next().to_le_bytes()).map_err(at(path))?;
    }
    file.flush().map_err(at(path))
}

/// Writes a small file.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(at(path))
}

/// Deletes a file.
pub(crate) fn remove(path: &Path) -> Result<()> {
    fs::remove_file(path).map_err(at(path))
}

/// Renames a file.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(at(from))
}

/// The text of a file, if there is one.
pub(crate) fn text(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// The files in a directory whose text is `text`.
pub(crate) fn with_text(directory: &Path, text: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(at(directory))? {
        let path = entry.map_err(at(directory))?.path();
        if fs::read(&path).is_ok_and(|bytes| bytes == text.as_bytes()) {
            found.push(path);
        }
    }
    Ok(found)
}

/// Fails with what `diff` prints unless the two folders are equal.
pub(crate) fn compare(a: &Path, b: &Path) -> Result<()> {
    let mut diff = Command::new("diff");
    diff.args(["-r", "--no-dereference", "-x", ".anabranch"]).args([a, b]);
    let line = process::line(&diff);
    let output = diff.output().map_err(|source| Error::Start { command: line.clone(), source })?;
    if output.status.success() {
        println!("ok  {line}: no difference");
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let first = text.lines().take(10).collect::<Vec<_>>().join("\n  ");
    Err(Error::NotAccepted(format!("{line} finds no difference:\n  {first}")))
}
