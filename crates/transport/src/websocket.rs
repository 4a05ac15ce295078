//! Links over a WebSocket, for the client and the listener of [`crate::http`] alike.
//!
//! One binary message is one frame. The text message `end` is the close of a direction; when both directions have
//! ended the WebSocket itself is closed. A WebSocket that closes earlier was cut off. Each link has a task that owns
//! the socket: it goes on sending pings and answering them while the link's user is busy, and gives the peer up when
//! nothing at all comes from it. Queues between task and user hold [`Limits::link_queue`] frames (I7).

mod pulse;
mod task;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

pub(crate) use pulse::Pulse;
pub(crate) use task::Hold;

use crate::{BoxFuture, FrameSink, FrameStream, Limits, Link, LinkError, MAX_FRAME, Trust};

/// The WebSocket over a stream that counts what is heard.
pub(crate) type Socket<S> = tokio_tungstenite::WebSocketStream<Pulse<S>>;

/// Each link keeps one; reading a megabyte in smaller portions costs less than a millisecond more.
const READ_BUFFER: usize = 8 * 1024;
const WRITE_BUFFER: usize = 64 * 1024;

/// The settings of every WebSocket: no message is larger than a frame, none is buffered without bound.
pub(crate) fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(WRITE_BUFFER + 2 * MAX_FRAME)
        .max_message_size(Some(MAX_FRAME))
        .max_frame_size(Some(MAX_FRAME))
}

/// Makes a link of an established WebSocket. `hold` is kept until the socket is closed.
pub(crate) fn link<S>(peer: String, socket: Socket<S>, limits: &Limits, hold: Hold) -> Link
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (commands, outbound) = mpsc::channel(limits.link_queue);
    let (inbound, frames) = mpsc::channel(limits.link_queue);
    let (present, sender_dropped) = oneshot::channel();
    let (failure, reason) = watch::channel(None);
    let user = User { outbound, inbound, sender_dropped, failure };
    tokio::spawn(task::run(socket, user, limits.clone(), hold));
    let sink = WebSocketSink { commands, failure: Failure(reason.clone()), _present: present };
    Link::new(peer, Trust::Untrusted, sink, WebSocketStream { frames, failure: Failure(reason) })
}

/// What a link's user tells its task.
enum Command {
    Frame(Bytes),
    Flush(oneshot::Sender<()>),
    Close(oneshot::Sender<()>),
}

/// What a link's task tells its user.
enum Event {
    Frame(Bytes),
    End,
}

/// The user of a link, as its task sees it.
struct User {
    outbound: mpsc::Receiver<Command>,
    inbound: mpsc::Sender<Event>,
    /// Errs when the sending half is dropped, even while commands still wait.
    sender_dropped: oneshot::Receiver<()>,
    failure: watch::Sender<Option<LinkError>>,
}

/// Why the task gave up, for both halves to report.
struct Failure(watch::Receiver<Option<LinkError>>);

impl Failure {
    /// Waits for the reason: a half can notice that something failed before the task knows what.
    async fn reason(&mut self) -> LinkError {
        match self.0.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or(LinkError::Closed),
            Err(_) => LinkError::Closed,
        }
    }
}

struct WebSocketSink {
    commands: mpsc::Sender<Command>,
    failure: Failure,
    _present: oneshot::Sender<()>,
}

impl WebSocketSink {
    async fn command(&mut self, command: Command) -> Result<(), LinkError> {
        match self.commands.send(command).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.failure.reason().await),
        }
    }

    async fn confirmed(
        &mut self,
        command: impl FnOnce(oneshot::Sender<()>) -> Command,
    ) -> Result<(), LinkError> {
        let (confirm, confirmed) = oneshot::channel();
        self.command(command(confirm)).await?;
        match confirmed.await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.failure.reason().await),
        }
    }
}

impl FrameSink for WebSocketSink {
    fn feed(&mut self, frame: Bytes) -> BoxFuture<'_, Result<(), LinkError>> {
        Box::pin(self.command(Command::Frame(frame)))
    }

    fn flush(&mut self) -> BoxFuture<'_, Result<(), LinkError>> {
        Box::pin(self.confirmed(Command::Flush))
    }

    fn close(&mut self) -> BoxFuture<'_, Result<(), LinkError>> {
        Box::pin(self.confirmed(Command::Close))
    }
}

struct WebSocketStream {
    frames: mpsc::Receiver<Event>,
    failure: Failure,
}

impl FrameStream for WebSocketStream {
    fn recv(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, LinkError>> {
        Box::pin(async {
            match self.frames.recv().await {
                Some(Event::Frame(frame)) => Ok(Some(frame)),
                Some(Event::End) => Ok(None),
                None => Err(self.failure.reason().await),
            }
        })
    }
}
