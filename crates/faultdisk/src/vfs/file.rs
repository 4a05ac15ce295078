//! Open files: SQLite's calls, turned into those of a [`Handle`]. The other of the two modules that call C.
//!
//! An open file is a [`Prefix`] and, behind it in the same memory, a file of the system's layer, which has the descriptor,
//! the locks and the shared memory.

use std::ffi::{c_int, c_void};
use std::mem::size_of;
use std::ptr;

use rusqlite::ffi;

use super::reseed;
use crate::drive::Handle;

/// What SQLite knows of a file are its methods; ours needs a handle besides.
#[repr(C)]
struct Prefix {
    methods: *const ffi::sqlite3_io_methods,
    handle: *mut Handle,
}

/// Bytes by which a file is longer than one of the system's. A multiple of what any C type is aligned to here.
pub(super) const PREFIX: c_int = size_of::<Prefix>() as c_int;

const _: () = assert!(size_of::<Prefix>().is_multiple_of(align_of::<u64>()));

/// The second version: shared memory, but no mapping of files, so that every write comes by.
static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// Makes an open file in the memory at `file` with `open`, which opens the system's file in the memory it is handed.
///
/// # Safety
/// `file` is memory of at least [`PREFIX`] bytes and one file of the system's.
pub(super) unsafe fn open(
    file: *mut ffi::sqlite3_file,
    open: impl FnOnce(*mut ffi::sqlite3_file) -> Result<Handle, c_int>,
) -> c_int {
    let prefix = file.cast::<Prefix>();
    // SAFETY: the memory is there; without methods SQLite does not close what was not opened.
    unsafe { prefix.write(Prefix { methods: ptr::null(), handle: ptr::null_mut() }) };
    // SAFETY: as above; the caller's zeroes are not to be relied on.
    let inner = unsafe { inner(file) };
    // SAFETY: a file of the system's begins with its methods.
    unsafe { (*inner).pMethods = ptr::null() };
    match open(inner) {
        Ok(handle) => {
            let handle = Box::into_raw(Box::new(handle));
            // SAFETY: the memory is there.
            unsafe { prefix.write(Prefix { methods: &raw const METHODS, handle }) };
            ffi::SQLITE_OK
        }
        Err(code) => {
            // SAFETY: whether or not it got as far as being open.
            unsafe { close_inner(inner) };
            code
        }
    }
}

/// The system's file behind ours.
///
/// # Safety
/// `file` is memory as for [`open`].
unsafe fn inner(file: *mut ffi::sqlite3_file) -> *mut ffi::sqlite3_file {
    // SAFETY: the memory goes on behind the prefix.
    unsafe { file.cast::<Prefix>().add(1).cast() }
}

/// # Safety
/// `inner` is a file of the system's, open or with no methods.
unsafe fn close_inner(inner: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: the methods are null or those of an open file.
    match unsafe { (*inner).pMethods.as_ref() }.and_then(|methods| methods.xClose) {
        // SAFETY: the file is open.
        Some(close) => unsafe { close(inner) },
        None => ffi::SQLITE_OK,
    }
}

/// Our handle of an open file. Every call of SQLite comes by here, and none at the same time as [`close`].
///
/// # Safety
/// `file` was opened by [`open`] and not closed, and stays so while the result is used.
unsafe fn handle<'f>(file: *mut ffi::sqlite3_file) -> &'f Handle {
    // SAFETY: the caller promises it.
    let handle = unsafe { &*(*file.cast::<Prefix>()).handle };
    reseed(handle.drive());
    handle
}

/// Calls a method of the system's file behind `$file`.
macro_rules! inner {
    ($file:expr, $method:ident, $missing:expr $(, $argument:expr)*) => {{
        // SAFETY: SQLite calls methods of open files only, with arguments that fit the method.
        unsafe {
            let inner = inner($file);
            match (*(*inner).pMethods).$method {
                Some(function) => function(inner $(, $argument)*),
                None => $missing,
            }
        }
    }};
}

// Each function below is called by SQLite with a file that `open` has opened, and keeps to SQLite's contract for the method
// it stands for. That is the condition of all of them, and what their uses of `handle` rest on.

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: the file is open.
    let code = unsafe { close_inner(inner(file)) };
    // SAFETY: the handle came from a box, and SQLite closes a file once.
    let handle = unsafe { Box::from_raw((*file.cast::<Prefix>()).handle) };
    reseed(handle.drive());
    handle.close();
    code
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    out: *mut c_void,
    length: c_int,
    offset: i64,
) -> c_int {
    let Ok(bytes) = usize::try_from(length) else {
        return ffi::SQLITE_IOERR_READ;
    };
    // SAFETY: the file is open.
    let handle = unsafe { handle(file) };
    handle.read(bytes, || inner!(file, xRead, ffi::SQLITE_IOERR_READ, out, length, offset))
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    from: *const c_void,
    length: c_int,
    offset: i64,
) -> c_int {
    let (Ok(length), Ok(place)) = (usize::try_from(length), u64::try_from(offset)) else {
        return ffi::SQLITE_IOERR_WRITE;
    };
    // SAFETY: SQLite passes so many bytes, and they stay during the call.
    let bytes = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), length) };
    // SAFETY: the file is open.
    let handle = unsafe { handle(file) };
    handle.write(place, bytes, |part| {
        // A part is no longer than the whole, whose length came as a C integer.
        let length = part.len() as c_int;
        inner!(file, xWrite, ffi::SQLITE_IOERR_WRITE, part.as_ptr().cast(), length, offset)
    })
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, length: i64) -> c_int {
    let Ok(bytes) = u64::try_from(length) else {
        return ffi::SQLITE_IOERR_TRUNCATE;
    };
    // SAFETY: the file is open.
    let handle = unsafe { handle(file) };
    handle.resize(bytes, || inner!(file, xTruncate, ffi::SQLITE_IOERR_TRUNCATE, length))
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    // SAFETY: the file is open.
    unsafe { handle(file) }.sync()
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, out: *mut i64) -> c_int {
    // SAFETY: the file is open.
    let handle = unsafe { handle(file) };
    let refusal = ffi::SQLITE_IOERR_FSTAT;
    handle.ask(refusal, || inner!(file, xFileSize, refusal, out))
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: the file is open.
    let handle = unsafe { handle(file) };
    let refusal = ffi::SQLITE_IOERR_LOCK;
    handle.ask(refusal, || inner!(file, xLock, refusal, level))
}

/// A dead process gives up its locks as well.
unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    inner!(file, xUnlock, ffi::SQLITE_IOERR_UNLOCK, level)
}

unsafe extern "C" fn check_reserved_lock(file: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    // SAFETY: the file is open.
    let handle = unsafe { handle(file) };
    let refusal = ffi::SQLITE_IOERR_CHECKRESERVEDLOCK;
    handle.ask(refusal, || inner!(file, xCheckReservedLock, refusal, out))
}

unsafe extern "C" fn file_control(
    file: *mut ffi::sqlite3_file,
    operation: c_int,
    argument: *mut c_void,
) -> c_int {
    match operation {
        // The system's layer would make the file longer without a write, or map it.
        ffi::SQLITE_FCNTL_SIZE_HINT
        | ffi::SQLITE_FCNTL_CHUNK_SIZE
        | ffi::SQLITE_FCNTL_MMAP_SIZE => ffi::SQLITE_NOTFOUND,
        _ => inner!(file, xFileControl, ffi::SQLITE_NOTFOUND, operation, argument),
    }
}

unsafe extern "C" fn sector_size(file: *mut ffi::sqlite3_file) -> c_int {
    inner!(file, xSectorSize, 4096)
}

unsafe extern "C" fn device_characteristics(file: *mut ffi::sqlite3_file) -> c_int {
    inner!(file, xDeviceCharacteristics, 0)
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    region: c_int,
    size: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    // SAFETY: the file is open.
    let handle = unsafe { handle(file) };
    let map = |extend| inner!(file, xShmMap, ffi::SQLITE_IOERR_SHMMAP, region, size, extend, out);
    handle.map_index(u64::try_from(size).unwrap_or(0), extend != 0, map, || {
        // SAFETY: SQLite passes room for the answer, which the call before has filled in.
        unsafe { (*out).is_null() }
    })
}

unsafe extern "C" fn shm_lock(
    file: *mut ffi::sqlite3_file,
    offset: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    let real = || inner!(file, xShmLock, ffi::SQLITE_IOERR_SHMLOCK, offset, count, flags);
    if flags & ffi::SQLITE_SHM_UNLOCK != 0 {
        return real();
    }
    // SAFETY: the file is open.
    let handle = unsafe { handle(file) };
    handle.ask(ffi::SQLITE_IOERR_SHMLOCK, real)
}

unsafe extern "C" fn shm_barrier(file: *mut ffi::sqlite3_file) {
    inner!(file, xShmBarrier, ());
}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, delete: c_int) -> c_int {
    // SAFETY: the file is open.
    let handle = unsafe { handle(file) };
    handle.unmap_index(delete != 0, |delete| inner!(file, xShmUnmap, ffi::SQLITE_OK, delete))
}
