//! Damaged database files: opened, checked, read, verified, written. SQLite notices some of the damage and we have to
//! notice the rest.

use crate::examine::examine;
use crate::input::Input;
use crate::world::fill;
use anabranch_core::storage::{Durability, Storage, StorageError, Table};
use anabranch_store::{Options, SqliteStorage};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;
use tempfile::TempDir;

/// Changes that one input makes at most.
const CHANGES: usize = 64;

/// A whole database file, and the write-ahead log of one more transaction.
struct Original {
    file: Vec<u8>,
    log: Vec<u8>,
}

/// A byte of flags, then changes: which file, where, which bytes. Or the whole file.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let flags = input.byte();
    let made = place(flags, input);
    assert!(made.is_ok(), "a temporary directory can be written to: {made:?}");
    let path = path();
    let options = Options {
        readers: 2,
        busy_timeout: Duration::from_millis(50),
        writer_cache: 1 << 20,
        reader_cache: 1 << 20,
        ..Options::default()
    };
    let before = fs::read(&path).unwrap_or_default();
    match SqliteStorage::open(&path, options.clone()) {
        Ok(storage) => {
            let _ = storage.check();
            examine(&storage);
            if flags & 4 != 0 {
                let _ = storage.backup_to(path.with_extension("copy"));
            }
        }
        Err(StorageError::Foreign { .. }) => {
            assert_eq!(fs::read(&path).unwrap_or_default(), before, "a foreign file is left alone");
        }
        Err(_) => {}
    }
    if flags & 8 != 0 {
        let _ = SqliteStorage::create(&path, options);
    }
}

fn place(flags: u8, mut input: Input<'_>) -> io::Result<()> {
    let path = path();
    for file in ["db", "db-wal", "db-shm", "db-journal", "copy"] {
        remove(&path.with_extension(file))?;
    }
    if flags & 1 != 0 {
        let (name, bytes) = ("db-journal", input.part());
        if !bytes.is_empty() {
            fs::write(path.with_extension(name), bytes)?;
        }
        return fs::write(&path, input.rest());
    }
    let original = original();
    let (mut file, mut log) = (original.file.clone(), original.log.clone());
    for _ in 0..CHANGES {
        if input.is_empty() {
            break;
        }
        let [which, a, b, c, len] = input.array();
        let target = if which & 1 == 0 || flags & 2 == 0 { &mut file } else { &mut log };
        let at = u32::from_le_bytes([a, b, c, 0]) as usize % (target.len() + 1);
        if which & 0x80 != 0 {
            target.truncate(at);
            continue;
        }
        let patch = input.take(usize::from(len));
        let end = (at + patch.len()).min(target.len());
        target.splice(at..end, patch.iter().copied());
    }
    if flags & 2 != 0 {
        fs::write(path.with_extension("db-wal"), log)?;
    }
    fs::write(&path, file)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// A directory of this process, in memory where there is such a place.
pub(crate) fn scratch() -> &'static Path {
    static DIR: OnceLock<TempDir> = OnceLock::new();
    DIR.get_or_init(|| {
        let memory = Path::new("/dev/shm");
        let made = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
        made.expect("a temporary directory can be made")
    })
    .path()
}

fn path() -> PathBuf {
    scratch().join("x.db")
}

fn original() -> &'static Original {
    static ORIGINAL: OnceLock<Original> = OnceLock::new();
    ORIGINAL.get_or_init(|| make().expect("a new file takes the small database"))
}

fn make() -> Result<Original, anabranch_core::error::Error> {
    let path = scratch().join("original.db");
    fill(&SqliteStorage::create(&path, Options::default())?)?;
    // Closing moved everything into the file.
    let file = read(&path)?;
    let storage = SqliteStorage::open(&path, Options::default())?;
    let mut tx = storage.write(Durability::Normal)?;
    tx.put(Table::Local, b"later", &[7; 300])?;
    tx.commit()?;
    let log = read(storage.wal_path())?;
    Ok(Original { file, log })
}

fn read(path: &Path) -> Result<Vec<u8>, StorageError> {
    fs::read(path).map_err(|e| StorageError::Io(e.to_string()))
}
