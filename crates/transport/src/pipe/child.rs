//! Links to child processes: started here, watched for what they say on standard error, ended with their link.
//!
//! A child is only ever ended through the handle it was started with, never by a name or a stale id.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;
use tracing::debug;

use super::{PipeSink, PipeStream};
use crate::error::printable;
use crate::{
    BoxFuture, ConnectError, FrameSink, FrameStream, Limits, Link, LinkError, ProcessFailure, Trust,
};

/// How much of the end of standard error is kept for an error message.
const STDERR_TAIL: usize = 2 * 1024;

/// How long standard error may stay open after the child is gone: grandchildren can hold it for ever.
const STDERR_PATIENCE: Duration = Duration::from_millis(500);

/// Starts a program, given as its name and arguments, and makes a link of its standard input and output.
///
/// What it writes to standard error goes to the log (debug), and its end into the error if the program fails. When
/// the link is dropped the program is killed; after the link was closed it first gets `close_timeout` to leave by
/// itself.
pub fn spawn(command: &[String], limits: &Limits) -> Result<Link, ConnectError> {
    let program = command.first().cloned().unwrap_or_default();
    let failed = |source| ConnectError::Spawn { program: program.clone(), source };
    let mut child = Command::new(&program)
        .args(command.iter().skip(1))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let (Some(input), Some(output), Some(errors)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(failed(io::Error::other("its standard streams are missing")));
    };
    let process = Arc::new(Process::watch(program.clone(), child, errors, limits.close_timeout));
    let sink = ChildSink { pipe: PipeSink::new(input), process: Arc::clone(&process) };
    let stream = ChildStream { pipe: PipeStream::new(output), process };
    Ok(Link::new(program, Trust::Trusted, sink, stream))
}

/// A running child. Dropping it, with both halves of the link, tells its watcher to end the child.
struct Process {
    program: String,
    /// Whether our direction was closed, so that the child may leave by itself.
    closed: Arc<AtomicBool>,
    exit: watch::Receiver<Option<Exit>>,
    patience: Duration,
    _dropped: oneshot::Sender<()>,
}

#[derive(Debug, Clone)]
struct Exit {
    status: Option<ExitStatus>,
    stderr: String,
}

type Tail = Arc<Mutex<Vec<u8>>>;

impl Process {
    fn watch(program: String, child: Child, errors: ChildStderr, patience: Duration) -> Process {
        let closed = Arc::new(AtomicBool::new(false));
        let (tell, exit) = watch::channel(None);
        let (dropped, gone) = oneshot::channel();
        let watcher = Watcher { child, closed: Arc::clone(&closed), patience, tell };
        tokio::spawn(watcher.run(errors, program.clone(), gone));
        Process { program, closed, exit, patience, _dropped: dropped }
    }

    /// Replaces "cut off" by what the process had to say about it.
    async fn explain(&self, error: LinkError) -> LinkError {
        if !matches!(error, LinkError::Truncated) {
            return error;
        }
        let mut exit = self.exit.clone();
        let exited = timeout(self.patience, exit.wait_for(Option::is_some)).await;
        let exit = match exited {
            Ok(Ok(exit)) => exit.clone(),
            Ok(Err(_)) | Err(_) => None,
        };
        let status = exit.as_ref().and_then(|exit| exit.status);
        LinkError::Process(ProcessFailure {
            program: self.program.clone(),
            status: status.map(|status| status.to_string()),
            code: status.and_then(|status| status.code()),
            stderr: exit.map(|exit| exit.stderr).unwrap_or_default(),
        })
    }
}

/// Owns the child until it is gone.
struct Watcher {
    child: Child,
    closed: Arc<AtomicBool>,
    patience: Duration,
    tell: watch::Sender<Option<Exit>>,
}

impl Watcher {
    async fn run(
        mut self,
        errors: ChildStderr,
        program: String,
        link_dropped: oneshot::Receiver<()>,
    ) {
        let tail = Tail::default();
        let reader = tokio::spawn(keep_tail(errors, program, Arc::clone(&tail)));
        let status = tokio::select! {
            status = self.child.wait() => status,
            _ = link_dropped => self.end().await,
        };
        let _ = timeout(STDERR_PATIENCE, reader).await;
        let stderr = printable(&tail.lock().unwrap_or_else(PoisonError::into_inner), STDERR_TAIL);
        self.tell.send_replace(Some(Exit { status: status.ok(), stderr }));
    }

    async fn end(&mut self) -> io::Result<ExitStatus> {
        if self.closed.load(Ordering::Acquire)
            && let Ok(status) = timeout(self.patience, self.child.wait()).await
        {
            return status;
        }
        self.child.start_kill()?;
        self.child.wait().await
    }
}

/// Reads standard error to its end, so that the child never blocks on it, and keeps the last part.
async fn keep_tail(mut errors: ChildStderr, program: String, tail: Tail) {
    let mut buffer = vec![0; STDERR_TAIL];
    while let Ok(length @ 1..) = errors.read(&mut buffer).await {
        debug!(%program, "{}", printable(&buffer[..length], STDERR_TAIL));
        let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend_from_slice(&buffer[..length]);
        let excess = tail.len().saturating_sub(STDERR_TAIL);
        tail.drain(..excess);
    }
}

struct ChildSink {
    pipe: PipeSink<ChildStdin>,
    process: Arc<Process>,
}

impl FrameSink for ChildSink {
    fn feed(&mut self, frame: Bytes) -> BoxFuture<'_, Result<(), LinkError>> {
        Box::pin(async {
            match self.pipe.feed_frame(frame).await {
                Ok(()) => Ok(()),
                Err(error) => Err(self.process.explain(error).await),
            }
        })
    }

    fn flush(&mut self) -> BoxFuture<'_, Result<(), LinkError>> {
        Box::pin(async {
            match self.pipe.flush_all().await {
                Ok(()) => Ok(()),
                Err(error) => Err(self.process.explain(error).await),
            }
        })
    }

    fn close(&mut self) -> BoxFuture<'_, Result<(), LinkError>> {
        Box::pin(async {
            if let Err(error) = self.pipe.close_output().await {
                return Err(self.process.explain(error).await);
            }
            self.process.closed.store(true, Ordering::Release);
            Ok(())
        })
    }
}

struct ChildStream {
    pipe: PipeStream<ChildStdout>,
    process: Arc<Process>,
}

impl FrameStream for ChildStream {
    fn recv(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, LinkError>> {
        Box::pin(async {
            match self.pipe.next().await {
                Ok(frame) => Ok(frame),
                Err(error) => Err(self.process.explain(error).await),
            }
        })
    }
}
