//! Links over a WebSocket, for the client and the listener of [`crate::http`] alike.
//!
//! One binary message is one frame. The text message `end` is the close of a direction; when both directions have
//! ended the WebSocket itself is closed. A WebSocket that closes earlier was cut off. Each link has a task that owns
//! the socket: it goes on sending pings and answering them while the link's user is busy, and gives the peer up when
//! nothing at all comes from it. Queues between task and user hold [`Limits::link_queue`] frames (I7).

mod pulse;
mod task;

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

pub(crate) use pulse::Pulse;
pub(crate) use task::Hold;

use crate::{BoxFuture, FrameSink, FrameStream, Limits, Link, LinkError, MAX_FRAME, Trust};

/// The WebSocket over a stream that counts what is heard.
pub(crate) type Socket<S> = tokio_tungstenite::WebSocketStream<Pulse<S>>;

const READ_BUFFER: usize = 32 * 1024;
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
    let failure = Failure::default();
    tokio::spawn(task::run(socket, outbound, inbound, failure.clone(), limits.clone(), hold));
    let sink = WebSocketSink { commands, failure: failure.clone() };
    Link::new(peer, Trust::Untrusted, sink, WebSocketStream { frames, failure })
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

/// Why the task gave up, for both halves to report.
#[derive(Clone, Default)]
struct Failure(Arc<OnceLock<LinkError>>);

impl Failure {
    fn set(&self, error: LinkError) {
        // The first reason is the cause, later ones its consequences.
        let _ = self.0.set(error);
    }

    fn get(&self) -> LinkError {
        self.0.get().cloned().unwrap_or(LinkError::Closed)
    }
}

struct WebSocketSink {
    commands: mpsc::Sender<Command>,
    failure: Failure,
}

impl WebSocketSink {
    async fn command(&self, command: Command) -> Result<(), LinkError> {
        self.commands.send(command).await.map_err(|_| self.failure.get())
    }

    async fn confirmed(
        &self,
        command: impl FnOnce(oneshot::Sender<()>) -> Command,
    ) -> Result<(), LinkError> {
        let (confirm, confirmed) = oneshot::channel();
        self.command(command(confirm)).await?;
        confirmed.await.map_err(|_| self.failure.get())
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
                None => Err(self.failure.get()),
            }
        })
    }
}
