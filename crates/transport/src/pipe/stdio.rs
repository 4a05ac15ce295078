//! The link over this process's own standard input and output, for `anabranch serve --stdio`.

use std::io::{self, Read};
use std::thread;

use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
use tokio::runtime::Handle;

use super::link;
use crate::{Link, Trust};

const BUFFER: usize = 64 * 1024;

/// A link over standard input and output. Whoever started this process is at the other end, so it is trusted.
/// Nothing else may read standard input or write standard output from then on.
///
/// Must be called within a tokio runtime, once.
pub fn stdio() -> io::Result<Link> {
    Ok(link("standard input and output", Trust::Trusted, read_stdin()?, tokio::io::stdout()))
}

/// Reads standard input on a thread of its own. A read there cannot be cancelled, and the runtime would wait for
/// one of its own at shutdown: a process that wants to leave would hang until its peer wrote or closed.
fn read_stdin() -> io::Result<DuplexStream> {
    let (reader, mut writer) = duplex(BUFFER);
    let runtime = Handle::try_current().map_err(io::Error::other)?;
    thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let mut stdin = io::stdin().lock();
        let mut buffer = vec![0; BUFFER];
        loop {
            match stdin.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The reader finds out by the missing close.
                Ok(0) | Err(_) => return,
                Ok(length) => {
                    if runtime.block_on(writer.write_all(&buffer[..length])).is_err() {
                        return;
                    }
                }
            }
        }
    })?;
    Ok(reader)
}
