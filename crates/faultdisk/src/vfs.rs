//! The file layer as SQLite knows it: registration, and the calls that are not about an open file.
//!
//! Two layers are registered. The one called [`NAME`] opens files that lie on a disk through [`file`], and hands everything
//! else to the system's. The other becomes the default: it is the system's own, but for its randomness, because that of
//! the default is what SQLite starts its generator from, whatever layer a connection uses. One of the two modules that call
//! C; what is decided about an operation, [`crate::drive`] decides.
#![allow(unsafe_code, reason = "SQLite's file layers are tables of C functions")]

mod file;

use std::cell::Cell;
use std::ffi::{CStr, OsStr, c_char, c_int};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::ptr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rusqlite::ffi;

use crate::drive::{Drive, Opening};
use crate::error::DiskError;
use crate::{random, registry};

/// What the file layer is called: SQLite finds it by this name once there is a [`Disk`](crate::Disk).
pub const NAME: &str = "anabranch-faultdisk";

const C_NAME: &CStr = c"anabranch-faultdisk";

const C_DEFAULT: &CStr = c"anabranch-faultdisk-default";

/// The clock's start: 1 January 2026, in milliseconds since noon on 24 November 4714 BC.
const EPOCH: i64 = 210_866_760_000_000 + 1_767_225_600_000;

/// What SQLite waits is shortened to: nobody who is alone in a process gets a lock by waiting.
const HASTE: u32 = 100;

/// The file layer of the system, which is never unregistered.
#[derive(Clone, Copy)]
struct System(*mut ffi::sqlite3_vfs);

// SAFETY: SQLite's file layers are called from any thread, and nobody writes to this one.
unsafe impl Send for System {}
// SAFETY: as above.
unsafe impl Sync for System {}

static SYSTEM: OnceLock<Result<System, c_int>> = OnceLock::new();

thread_local! {
    /// Microseconds that SQLite has waited on this thread.
    static WAITED: Cell<i64> = const { Cell::new(0) };
}

/// Registers the layers; more than once does no harm.
pub(crate) fn register() -> Result<(), DiskError> {
    match SYSTEM.get_or_init(register_once) {
        Ok(_) => Ok(()),
        Err(code) => Err(DiskError::Unregistered(*code)),
    }
}

fn register_once() -> Result<System, c_int> {
    // SAFETY: finding the default layer has no preconditions; it initialises SQLite.
    let system = unsafe { ffi::sqlite3_vfs_find(ptr::null()) };
    if system.is_null() {
        return Err(ffi::SQLITE_ERROR);
    }
    // SAFETY: a registered layer is a valid structure for ever. What is not replaced below does not look at the layer it
    // is called with (or, in the second, finds what it looks for there), so the copies are as good as the original.
    let original = unsafe { ptr::read(system) };
    let disk = ffi::sqlite3_vfs {
        szOsFile: original.szOsFile + file::PREFIX,
        zName: C_NAME.as_ptr(),
        pNext: ptr::null_mut(),
        xOpen: Some(open),
        xDelete: Some(delete),
        xAccess: Some(access),
        xSleep: Some(sleep),
        xCurrentTime: Some(current_time),
        xCurrentTimeInt64: Some(current_time_int64),
        ..original
    };
    let default = ffi::sqlite3_vfs {
        zName: C_DEFAULT.as_ptr(),
        pNext: ptr::null_mut(),
        xRandomness: Some(randomness),
        ..original
    };
    for (layer, is_default) in [(disk, 0), (default, 1)] {
        // SAFETY: the structure lives for ever, as SQLite asks.
        let code = unsafe { ffi::sqlite3_vfs_register(Box::into_raw(Box::new(layer)), is_default) };
        if code != ffi::SQLITE_OK {
            return Err(code);
        }
    }
    Ok(System(system))
}

/// The system's layer. The functions below run only when it was found.
fn system() -> *mut ffi::sqlite3_vfs {
    match SYSTEM.get() {
        Some(Ok(System(system))) => *system,
        _ => ptr::null_mut(),
    }
}

/// Calls a function of the system's layer with that layer as its first argument.
macro_rules! system {
    ($method:ident, $missing:expr $(, $argument:expr)*) => {{
        let system = system();
        // SAFETY: the system's layer is valid for ever, and the arguments are those of a caller that keeps to SQLite's
        // contract for this function.
        unsafe {
            match system.as_ref().and_then(|system| system.$method) {
                Some(function) => function(system $(, $argument)*),
                None => $missing,
            }
        }
    }};
}

/// Gives SQLite other randomness from its next use on.
fn reseed(drive: &Drive) {
    random::offer(drive.next_randomness());
    // SAFETY: no bytes are asked for, which makes SQLite start its generator anew.
    unsafe { ffi::sqlite3_randomness(0, ptr::null_mut()) };
}

/// The disk that the file called `name` lies on, and its path.
///
/// # Safety
/// `name` is null, or ends with a zero and outlives the result.
unsafe fn on_a_disk<'p>(name: *const c_char) -> Option<(Arc<Drive>, &'p Path)> {
    if name.is_null() {
        return None;
    }
    // SAFETY: the caller promises it.
    let name = unsafe { CStr::from_ptr(name) };
    let path = Path::new(OsStr::from_bytes(name.to_bytes()));
    let drive = registry::find(path)?;
    reseed(&drive);
    Some((drive, path))
}

/// # Safety
/// As SQLite's `xOpen`.
unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite passes null or a path that ends with a zero and outlives the file.
    let Some((drive, path)) = (unsafe { on_a_disk(name) }) else {
        return system!(xOpen, ffi::SQLITE_CANTOPEN, name, file, flags, out_flags);
    };
    let journals =
        ffi::SQLITE_OPEN_MAIN_JOURNAL | ffi::SQLITE_OPEN_SUPER_JOURNAL | ffi::SQLITE_OPEN_WAL;
    let opening =
        Opening { creates: flags & ffi::SQLITE_OPEN_CREATE != 0, journal: flags & journals != 0 };
    let open_inner = |inner| {
        drive.open(path, opening, || {
            system!(xOpen, ffi::SQLITE_CANTOPEN, name, inner, flags, out_flags)
        })
    };
    // SAFETY: SQLite passes memory of `szOsFile` bytes, which is the prefix and a file of the system's.
    unsafe { file::open(file, open_inner) }
}

/// # Safety
/// As SQLite's `xDelete`.
unsafe extern "C" fn delete(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    sync_directory: c_int,
) -> c_int {
    let real = |sync: c_int| system!(xDelete, ffi::SQLITE_IOERR_DELETE, name, sync);
    // SAFETY: SQLite passes a path that ends with a zero.
    match unsafe { on_a_disk(name) } {
        Some((drive, path)) => drive.delete(path, sync_directory != 0, || real(0)),
        None => real(sync_directory),
    }
}

/// # Safety
/// As SQLite's `xAccess`.
unsafe extern "C" fn access(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    let real = || system!(xAccess, ffi::SQLITE_IOERR_ACCESS, name, flags, out);
    // SAFETY: SQLite passes a path that ends with a zero.
    match unsafe { on_a_disk(name) } {
        Some((drive, _)) => drive.access(real),
        None => real(),
    }
}

/// # Safety
/// As SQLite's `xRandomness`.
unsafe extern "C" fn randomness(
    _: *mut ffi::sqlite3_vfs,
    length: c_int,
    out: *mut c_char,
) -> c_int {
    let Ok(bytes) = usize::try_from(length) else {
        return 0;
    };
    // SAFETY: SQLite passes room for so many bytes, which it has initialised.
    let filled = random::fill_offered(unsafe { std::slice::from_raw_parts_mut(out.cast(), bytes) });
    if filled { length } else { system!(xRandomness, 0, length, out) }
}

extern "C" fn sleep(_: *mut ffi::sqlite3_vfs, microseconds: c_int) -> c_int {
    WAITED.set(WAITED.get() + i64::from(microseconds));
    let wanted = Duration::from_micros(u64::try_from(microseconds).unwrap_or(0));
    std::thread::sleep(wanted / HASTE);
    microseconds
}

/// # Safety
/// As SQLite's `xCurrentTimeInt64`.
unsafe extern "C" fn current_time_int64(_: *mut ffi::sqlite3_vfs, out: *mut i64) -> c_int {
    // SAFETY: SQLite passes room for the answer.
    unsafe { out.write(now()) };
    ffi::SQLITE_OK
}

/// # Safety
/// As SQLite's `xCurrentTime`.
unsafe extern "C" fn current_time(_: *mut ffi::sqlite3_vfs, out: *mut f64) -> c_int {
    // SAFETY: SQLite passes room for the answer, which is in days.
    unsafe { out.write(now() as f64 / 86_400_000.0) };
    ffi::SQLITE_OK
}

/// Only waiting makes time pass. In milliseconds, as SQLite counts them.
fn now() -> i64 {
    EPOCH + WAITED.get() / 1_000
}
