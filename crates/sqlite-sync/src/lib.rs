//! Syncs the file of an open SQLite connection.
//!
//! SQLite syncs a database file only at the end of a checkpoint that moved the whole write-ahead log, while nobody may write.
//! Whoever wants most of that done before has to have the file synced; but on POSIX systems a process that opens the file
//! beside SQLite gives up SQLite's locks when it closes it. So this goes through SQLite's own descriptor.

use std::ptr;

use rusqlite::{Connection, ffi};

/// Has the disk take in what was written into the main database file of `connection`, by whichever connection.
///
/// Blocks for as long as the disk takes. Does nothing for a database that has no file.
///
/// # Errors
/// What the file layer reports. Then the disk may have lost what was written, and a later sync need not say so again.
#[allow(unsafe_code, reason = "SQLite's file methods are only to be had through its C interface")]
pub fn sync(connection: &Connection) -> rusqlite::Result<()> {
    let mut file: *mut ffi::sqlite3_file = ptr::null_mut();
    // SAFETY: the handle is open while `connection` is borrowed. The name ends with a zero byte, and this operation writes one
    // pointer of this type to where its argument points.
    let code = unsafe {
        ffi::sqlite3_file_control(
            connection.handle(),
            c"main".as_ptr(),
            ffi::SQLITE_FCNTL_FILE_POINTER,
            (&raw mut file).cast(),
        )
    };
    check(code)?;
    // SAFETY: the file is the connection's own and closed with it. One that is not open has no methods; those of an open one
    // live as long as the file layer, which outlives the connection.
    let method =
        unsafe { file.as_ref().and_then(|file| file.pMethods.as_ref()) }.and_then(|m| m.xSync);
    let Some(method) = method else { return Ok(()) };
    // SAFETY: as above; and no other thread is in the connection, which only one at a time can borrow.
    check(unsafe { method(file, ffi::SQLITE_SYNC_NORMAL) })
}

fn check(code: std::ffi::c_int) -> rusqlite::Result<()> {
    if code == ffi::SQLITE_OK {
        return Ok(());
    }
    Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None))
}
