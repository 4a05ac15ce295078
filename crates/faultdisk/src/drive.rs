//! What becomes of each operation of SQLite on a disk: in the real file, in what is remembered of it, and for the caller.
//!
//! The callers hand in how the real operation is done. Codes are those of SQLite. The real files are never synced; nobody
//! takes the power from the machine that the tests run on.

use std::ffi::c_int;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::ffi;

use crate::content::{Content, MAX_LENGTH};
use crate::names::FileId;
use crate::random::Random;
use crate::state::{Operation, State, Turn};
use crate::tree;

/// Errno of an I/O error, the same on every Unix.
const EIO: i32 = 5;

/// A disk as its open files see it.
#[derive(Debug)]
pub(crate) struct Drive {
    root: PathBuf,
    seed: u64,
    /// Requests so far, whatever became of them.
    requests: AtomicU64,
    state: Mutex<State>,
}

/// A file that a connection has open. Let go with [`Handle::close`].
#[derive(Debug)]
pub(crate) struct Handle {
    drive: Arc<Drive>,
    path: PathBuf,
    file: FileId,
    life: u64,
    /// Whether the next sync is one of the directory as well.
    syncs_directory: AtomicBool,
}

/// How a file is opened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opening {
    /// Makes the file where there is none.
    pub(crate) creates: bool,
    /// SQLite's file layer syncs the directory with the first sync of a journal.
    pub(crate) journal: bool,
}

impl Drive {
    pub(crate) fn new(root: PathBuf, seed: u64) -> Self {
        let state = Mutex::new(State::new(seed));
        Self { root, seed, requests: AtomicU64::new(0), state }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The state is changed in steps that each leave it whole, so a panic elsewhere does not matter.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Randomness for SQLite, other with every request.
    pub(crate) fn next_randomness(&self) -> u64 {
        let request = self.requests.fetch_add(1, Ordering::Relaxed);
        Random::new(self.seed ^ request.wrapping_mul(0xD134_2543_DE82_EF95)).next()
    }

    pub(crate) fn open(
        self: &Arc<Self>,
        path: &Path,
        opening: Opening,
        real: impl FnOnce() -> c_int,
    ) -> Result<Handle, c_int> {
        let mut state = self.state();
        let life = state.life().ok_or(ffi::SQLITE_CANTOPEN)?;
        let existed = path.symlink_metadata().is_ok();
        if !existed && opening.creates {
            let turn = state.turn(life, Operation::Create);
            if turn == Turn::LosesPower {
                state.files.create(path);
            }
            if turn != Turn::Succeeds {
                return Err(ffi::SQLITE_CANTOPEN);
            }
        }
        match real() {
            ffi::SQLITE_OK => {}
            code => return Err(code),
        }
        let file = state.files.open(path, existed).map_err(|_| ffi::SQLITE_IOERR)?;
        state.opened();
        Ok(Handle {
            drive: Arc::clone(self),
            path: path.to_owned(),
            file,
            life,
            syncs_directory: AtomicBool::new(opening.journal && opening.creates),
        })
    }

    pub(crate) fn delete(
        &self,
        path: &Path,
        sync_directory: bool,
        real: impl FnOnce() -> c_int,
    ) -> c_int {
        let mut state = self.state();
        let Some(life) = state.life() else {
            return ffi::SQLITE_IOERR_DELETE;
        };
        if path.symlink_metadata().is_err() {
            return real();
        }
        let turn = state.turn(life, Operation::Delete);
        let happens = match turn {
            // When the power goes, the real file is put back if it turns out to have survived.
            Turn::Succeeds | Turn::LosesPower => true,
            Turn::Fails | Turn::Dies => state.random.chance(1, 2),
            Turn::Refused => false,
        };
        if happens {
            let Ok(freed) = state.files.unlink(path) else {
                return ffi::SQLITE_IOERR_DELETE;
            };
            let code = real();
            state.give_room(freed);
            if turn == Turn::Succeeds {
                if sync_directory && !state.lying {
                    state.files.sync_names(parent(path));
                }
                return code;
            }
        }
        ffi::SQLITE_IOERR_DELETE
    }

    pub(crate) fn access(&self, real: impl FnOnce() -> c_int) -> c_int {
        if self.state().life().is_none() { ffi::SQLITE_IOERR_ACCESS } else { real() }
    }

    /// A sync beside SQLite, of a file or of the entries of a directory.
    pub(crate) fn sync_path(&self, path: &Path) -> io::Result<()> {
        let is_directory = path.symlink_metadata()?.is_dir();
        let failed = || io::Error::from_raw_os_error(EIO);
        let mut state = self.state();
        let life = state.life().ok_or_else(failed)?;
        let turn = state.turn(life, Operation::Sync);
        let file = state.files.id(path);
        match (turn, file) {
            (Turn::Succeeds, _) if state.lying => {}
            (Turn::Succeeds, _) if is_directory => state.files.sync_names(path),
            (Turn::Succeeds, Some(file)) => state.files.change(file, Content::sync),
            (Turn::Fails, Some(file)) if state.forgetful => {
                state.files.change(file, Content::forget)
            }
            _ => {}
        }
        if turn == Turn::Succeeds { Ok(()) } else { Err(failed()) }
    }
}

impl Handle {
    pub(crate) fn drive(&self) -> &Drive {
        &self.drive
    }

    pub(crate) fn read(&self, bytes: usize, real: impl FnOnce() -> c_int) -> c_int {
        let turn = self.drive.state().turn(self.life, Operation::Read(bytes));
        if turn == Turn::Succeeds { real() } else { ffi::SQLITE_IOERR_READ }
    }

    pub(crate) fn write(
        &self,
        offset: u64,
        bytes: &[u8],
        real: impl FnOnce(&[u8]) -> c_int,
    ) -> c_int {
        let mut state = self.drive.state();
        let state = &mut *state;
        let turn = state.turn(self.life, Operation::Write(bytes.len()));
        let Some(content) = state.files.content(self.file) else {
            return ffi::SQLITE_IOERR_WRITE;
        };
        if offset.saturating_add(bytes.len() as u64) > MAX_LENGTH {
            return ffi::SQLITE_FULL;
        }
        let growth = content.growth(offset, bytes.len());
        let (done, code) = match turn {
            Turn::Refused => return ffi::SQLITE_IOERR_WRITE,
            Turn::LosesPower => {
                content.write(offset, bytes);
                return ffi::SQLITE_IOERR_WRITE;
            }
            Turn::Fails | Turn::Dies => {
                (state.random.below(bytes.len() + 1), ffi::SQLITE_IOERR_WRITE)
            }
            Turn::Succeeds => match state.fit(bytes.len(), growth) {
                all if all == bytes.len() => (all, ffi::SQLITE_OK),
                part => (part, ffi::SQLITE_FULL),
            },
        };
        let bytes = &bytes[..done];
        let written = if bytes.is_empty() { ffi::SQLITE_OK } else { real(bytes) };
        if written != ffi::SQLITE_OK {
            return written;
        }
        if let Some(content) = state.files.content(self.file).filter(|_| !bytes.is_empty()) {
            content.write(offset, bytes);
        }
        code
    }

    pub(crate) fn resize(&self, length: u64, real: impl FnOnce() -> c_int) -> c_int {
        let mut state = self.drive.state();
        let state = &mut *state;
        let turn = state.turn(self.life, Operation::Resize);
        let Some(content) = state.files.content(self.file) else {
            return ffi::SQLITE_IOERR_TRUNCATE;
        };
        match turn {
            Turn::Succeeds => {
                let code = real();
                if code == ffi::SQLITE_OK {
                    let freed = content.length().saturating_sub(length);
                    content.resize(length);
                    state.give_room(freed);
                }
                code
            }
            Turn::LosesPower => {
                content.resize(length);
                ffi::SQLITE_IOERR_TRUNCATE
            }
            Turn::Fails | Turn::Dies | Turn::Refused => ffi::SQLITE_IOERR_TRUNCATE,
        }
    }

    pub(crate) fn sync(&self) -> c_int {
        let mut state = self.drive.state();
        let turn = state.turn(self.life, Operation::Sync);
        match turn {
            Turn::Succeeds if !state.lying => state.files.change(self.file, Content::sync),
            Turn::Fails if state.forgetful => state.files.change(self.file, Content::forget),
            _ => {}
        }
        if turn != Turn::Succeeds {
            return ffi::SQLITE_IOERR_FSYNC;
        }
        if !state.lying && self.syncs_directory.swap(false, Ordering::Relaxed) {
            state.files.sync_names(parent(&self.path));
        }
        ffi::SQLITE_OK
    }

    /// Does `real`, or fails with `refusal` when the process is dead or the power off. For what does not touch the disk.
    pub(crate) fn ask(&self, refusal: c_int, real: impl FnOnce() -> c_int) -> c_int {
        if self.drive.state().serves(self.life) { real() } else { refusal }
    }

    /// Maps a part of the index of the log, `bytes` long, which becomes so much longer for it if it `extends`. `map` does
    /// it, without (0) or with making the index longer (1); `is_missing` then says whether there is no such part.
    pub(crate) fn map_index(
        &self,
        bytes: u64,
        extends: bool,
        map: impl Fn(c_int) -> c_int,
        is_missing: impl Fn() -> bool,
    ) -> c_int {
        let mut state = self.drive.state();
        if !state.serves(self.life) {
            return ffi::SQLITE_IOERR_SHMMAP;
        }
        let code = map(0);
        if code != ffi::SQLITE_OK || !extends || !is_missing() {
            return code;
        }
        // What the system's layer says when the disk is full.
        if state.take_room(bytes) { map(1) } else { ffi::SQLITE_IOERR_SHMSIZE }
    }

    /// Lets go of the index of the log, and removes it if that is asked for by a process that lives.
    pub(crate) fn unmap_index(&self, delete: bool, unmap: impl FnOnce(c_int) -> c_int) -> c_int {
        let mut state = self.drive.state();
        if !delete || !state.serves(self.life) {
            return unmap(0);
        }
        let freed = tree::index_of(&self.path).metadata().map_or(0, |metadata| metadata.len());
        state.give_room(freed);
        unmap(1)
    }

    pub(crate) fn close(self) {
        let mut state = self.drive.state();
        state.files.close(self.file);
        state.closed(self.life);
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}
