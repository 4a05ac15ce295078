//! Making database files, and telling them from everything else before touching it.
//!
//! A file is vetted through a connection that can only read, takes no lock and ignores the write-ahead log, so that a
//! foreign file stays byte for byte what it is and nothing appears beside it. The application id is written in the same
//! transaction as the tables, before the file goes into WAL mode, so it is never in the log alone.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use anabranch_core::storage::StorageError;
use rusqlite::{
    Connection, MAIN_DB, OpenFlags, OptionalExtension as _, Transaction, TransactionBehavior,
};

use super::connection;
use super::explain::Explain;
use super::options::Options;
use super::schema;
use super::with_suffix;

/// The version of the file format that this program writes. Files of earlier versions are brought up to it when they are
/// opened, as far as tables go; whoever reads rows of entries judges those.
pub const FORMAT_VERSION: u32 = 3;

/// "ANAB": what SQLite files of this program carry as application id.
const APPLICATION_ID: u32 = 0x414E_4142;

/// Measured against 8 KiB: loading is the same, commits are a tenth faster and write half as much log.
pub(super) const PAGE_SIZE: u32 = 4096;

/// What SQLite files begin with.
const MAGIC: &[u8] = b"SQLite format 3\0";

const HEADER: usize = 100;

/// Finds out whether `path` is a database of this program without changing anything; returns its canonical path.
pub(super) fn vet(
    path: &Path,
    options: &Options,
    explain: &Explain,
) -> Result<PathBuf, StorageError> {
    let metadata = fs::metadata(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => StorageError::Io(format!("{} does not exist", explain.path())),
        _ => explain.io("looked up", &error),
    })?;
    if !metadata.is_file() {
        return Err(foreign(explain));
    }
    if metadata.len() == 0 {
        return Err(explain.corrupt("the file is empty"));
    }
    if metadata.len() < HEADER as u64 {
        return Err(judge_short(path, explain));
    }
    let path = path.canonicalize().map_err(|error| explain.io("looked up", &error))?;
    let (application, version) =
        peek(&path, options).map_err(|error| match explain.sqlite(error) {
            StorageError::Corrupt(what) => judge_unreadable(&path, what, explain),
            other => other,
        })?;
    if application != APPLICATION_ID {
        return Err(foreign(explain));
    }
    // A lower number is no reason yet: the one in the log counts.
    refuse_newer(version, explain)?;
    Ok(path)
}

/// Admits a file that passed [`vet`], as seen through the log; makes sure that it is in WAL mode.
pub(super) fn admit(
    connection: &Connection,
    path: &Path,
    explain: &Explain,
) -> Result<(), StorageError> {
    let failed = |error| explain.sqlite(error);
    if read_pragma(connection, "application_id").map_err(failed)? == 0 {
        return Err(explain.corrupt("the file is empty"));
    }
    let unwritable = connection.is_readonly(MAIN_DB).map_err(failed)?;
    if !unwritable {
        upgrade(connection).map_err(failed)?;
    } else if matches!(read_pragma(connection, "user_version").map_err(failed)?, 1 | 2) {
        // It would have to be brought up to date.
        return Err(judge_unwritable(path, explain));
    }
    require_version(connection, explain)?;
    require_tables(connection, explain)?;
    if unwritable {
        return Err(judge_unwritable(path, explain));
    }
    let mode: String =
        connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(failed)?;
    if mode != "wal" {
        return Err(StorageError::Io(format!(
            "{} cannot use a write-ahead log; move it to a file system that several processes can share memory on",
            explain.path()
        )));
    }
    Ok(())
}

/// Brings a file of an earlier format up to date, in one transaction; what cannot be is left as it is.
fn upgrade(connection: &Connection) -> rusqlite::Result<()> {
    if !matches!(read_pragma(connection, "user_version")?, 1 | 2) {
        return Ok(());
    }
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    // Somebody else may have been faster.
    let version = read_pragma(&transaction, "user_version")?;
    if version == 1 {
        transaction.execute_batch(&schema::from_1())?;
    }
    if version < FORMAT_VERSION {
        transaction.execute_batch(&format!("PRAGMA user_version = {FORMAT_VERSION}"))?;
    }
    transaction.commit()
}

/// Checks the format version as this transaction sees it: another process may have raised it meanwhile.
pub(super) fn require_version(
    connection: &Connection,
    explain: &Explain,
) -> Result<(), StorageError> {
    let found = read_pragma(connection, "user_version").map_err(|error| explain.sqlite(error))?;
    refuse_newer(found, explain)?;
    if found < FORMAT_VERSION {
        return Err(StorageError::OlderVersion {
            path: explain.path(),
            found,
            supported: FORMAT_VERSION,
        });
    }
    Ok(())
}

/// Makes the file with its tables. A crash leaves an empty file or one that SQLite turns into an empty file; both are
/// taken over.
pub(super) fn make(path: &Path, options: &Options, explain: &Explain) -> Result<(), StorageError> {
    reserve(path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => already_there(explain),
        _ => explain.io("created", &error),
    })?;
    let path = path.canonicalize().map_err(|error| explain.io("looked up", &error))?;
    let mut connection = connection::open_writer(&path, options, explain)?.connection;
    let fresh = fill(&mut connection).map_err(|error| explain.sqlite(error))?;
    if !fresh {
        return Err(already_there(explain));
    }
    sync_directory_of(&path, options).map_err(|error| explain.io("created", &error))
}

/// Creates an empty file that only its owner may use; fails when there is something.
pub(super) fn create_private(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

/// As [`create_private`], and accepts a file that is there if it is empty, or will be once SQLite has opened it.
fn reserve(path: &Path) -> io::Result<()> {
    create_private(path).or_else(|error| match fs::symlink_metadata(path) {
        Ok(there) if there.is_file() && (there.len() == 0 || is_half_made(path)) => Ok(()),
        _ => Err(error),
    })
}

/// Whether the journal beside the file says that it was empty before a transaction that has not been committed.
fn is_half_made(path: &Path) -> bool {
    const JOURNAL_MAGIC: [u8; 8] = [0xD9, 0xD5, 0x05, 0xF9, 0x20, 0xA1, 0x63, 0xD7];
    const PAGES_BEFORE: std::ops::Range<usize> = 16..20;
    header(&with_suffix(path, "-journal")).is_ok_and(|journal| {
        journal.starts_with(&JOURNAL_MAGIC) && journal.get(PAGES_BEFORE) == Some(&[0; 4])
    })
}

/// Makes the entry of a file in its directory durable.
pub(super) fn sync_directory_of(path: &Path, options: &Options) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if cfg!(unix) {
        options.sync(directory.unwrap_or(Path::new(".")))?;
    }
    Ok(())
}

/// Writes tables and marks in one transaction; false when somebody else was faster.
fn fill(connection: &mut Connection) -> rusqlite::Result<bool> {
    connection.execute_batch(&format!("PRAGMA page_size = {PAGE_SIZE}"))?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let unused = |name| read_pragma(&transaction, name).map(|number| number == 0);
    if !(unused("application_id")? && unused("schema_version")?) {
        return Ok(false);
    }
    for create in schema::tables().values() {
        transaction.execute_batch(create)?;
    }
    transaction.execute_batch(&format!(
        "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT_VERSION}"
    ))?;
    transaction.commit()?;
    Ok(true)
}

/// Application id and format version in the main file.
fn peek(path: &Path, options: &Options) -> rusqlite::Result<(u32, u32)> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = options.connect(immutable_uri(path), flags)?;
    // Keeps SQLite from comparing the length of the file with its header: an interrupted checkpoint leaves a file that is
    // too short, and the log, which is ignored here, has the rest.
    connection.execute_batch("PRAGMA writable_schema = ON")?;
    Ok((read_pragma(&connection, "application_id")?, read_pragma(&connection, "user_version")?))
}

/// Going through SQLite instead of reading the bytes keeps the locks that this process may hold on the file.
fn immutable_uri(path: &Path) -> String {
    let mut uri = String::from("file:");
    for &byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                uri.push(char::from(byte));
            }
            _ => {
                let _ = write!(uri, "%{byte:02X}");
            }
        }
    }
    uri.push_str("?immutable=1");
    uri
}

/// The numbers in the header are signed for SQLite and unsigned for us.
fn read_pragma(connection: &Connection, name: &str) -> rusqlite::Result<u32> {
    connection
        .prepare_cached(&format!("PRAGMA {name}"))?
        .query_row([], |row| row.get::<_, i32>(0))
        .map(i32::cast_unsigned)
}

fn require_tables(connection: &Connection, explain: &Explain) -> Result<(), StorageError> {
    for (name, create) in schema::tables() {
        let sql: Option<String> = connection
            .query_row(
                "SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = ?1",
                [name],
                |row| row.get(0),
            )
            .optional()
            .map_err(|error| explain.sqlite(error))?;
        if sql.as_deref() != Some(&create) {
            return Err(explain.corrupt(format!("table {name} is missing or altered")));
        }
    }
    Ok(())
}

fn refuse_newer(found: u32, explain: &Explain) -> Result<(), StorageError> {
    if found > FORMAT_VERSION {
        return Err(StorageError::NewerVersion {
            path: explain.path(),
            found,
            supported: FORMAT_VERSION,
        });
    }
    Ok(())
}

fn foreign(explain: &Explain) -> StorageError {
    StorageError::Foreign { path: explain.path() }
}

fn already_there(explain: &Explain) -> StorageError {
    StorageError::Io(format!("{} exists already; name another file", explain.path()))
}

/// What to say of a file that ends before its header does: the beginning of a database, or something else.
fn judge_short(path: &Path, explain: &Explain) -> StorageError {
    match header(path) {
        Ok(start) if start.starts_with(MAGIC) || MAGIC.starts_with(&start) => {
            explain.corrupt(format!("the file ends after {} bytes", start.len()))
        }
        Ok(_) => foreign(explain),
        Err(error) => explain.io("read", &error),
    }
}

/// What to say of a file that SQLite cannot make sense of: damaged, if enough is left to tell that it was ours.
fn judge_unreadable(path: &Path, what: String, explain: &Explain) -> StorageError {
    const ID: std::ops::Range<usize> = 68..72;
    match header(path) {
        Ok(header) if header.get(ID) == Some(&APPLICATION_ID.to_be_bytes()) => {
            StorageError::Corrupt(what)
        }
        Ok(_) => foreign(explain),
        Err(error) => explain.io("read", &error),
    }
}

/// SQLite opens a file read-only when it may not write it, or when the header asks for a later version of SQLite.
fn judge_unwritable(path: &Path, explain: &Explain) -> StorageError {
    const WRITE_VERSION: usize = 18;
    let asks_for = header(path).ok().and_then(|header| header.get(WRITE_VERSION).copied());
    if asks_for.is_some_and(|version| version > 2) {
        explain.corrupt("its header asks for another version of SQLite")
    } else {
        explain.unwritable()
    }
}

/// The first bytes of the file. Only for files that cannot be used anyway: closing it gives up locks.
fn header(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(HEADER);
    File::open(path)?.take(HEADER as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Between the look at the file and the lock on it, another program may have made it its own.
    #[test]
    fn what_somebody_else_has_filled_meanwhile_is_left_alone() {
        let mut theirs = Connection::open_in_memory().unwrap();
        assert!(fill(&mut theirs).unwrap());
        assert!(!fill(&mut theirs).unwrap());

        let mut theirs = Connection::open_in_memory().unwrap();
        theirs.execute_batch("CREATE TABLE mine (a)").unwrap();
        assert!(!fill(&mut theirs).unwrap());
        assert_eq!(read_pragma(&theirs, "application_id").unwrap(), 0);
    }
}
