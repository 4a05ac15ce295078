//! The task that owns a link's WebSocket: one loop reads, one writes, and the link lives until both directions have
//! ended, one of them fails, or the user has gone and the peer takes too long.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::pulse::Heard;
use super::{Command, Event, Socket, User};
use crate::error::printable;
use crate::{Limits, LinkError};

/// A place among a listener's connections, kept while the link lives.
pub(crate) type Hold = Option<Arc<OwnedSemaphorePermit>>;

/// The text message that closes a direction.
const END: &str = "end";

/// How much of a peer's reason for closing is kept.
const REASON: usize = 160;

/// Which directions have ended in good order.
#[derive(Default)]
struct Ended {
    ours: bool,
    theirs: bool,
}

pub(super) async fn run<S>(socket: Socket<S>, user: User, limits: Limits, _hold: Hold)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let User { outbound, inbound, sender_dropped, failure } = user;
    let heard = socket.get_ref().heard();
    let (mut sink, mut stream) = socket.split();
    let (ended, mut watched) = watch::channel(Ended::default());
    let mut writer = Writer { sink: &mut sink, outbound, ended: &ended, limits: &limits };
    let mut reader =
        Reader { stream: &mut stream, heard, inbound: &inbound, ended: &ended, limits: &limits };

    let both_ended = async { watched.wait_for(|ended| ended.ours && ended.theirs).await.is_ok() };
    let write = async {
        let error = writer.run().await;
        // A peer that has left may have said why. The reader finds its last words, and then the end as well.
        sleep(limits.close_timeout).await;
        error
    };
    let error = tokio::select! {
        biased;
        _ = both_ended => {
            let _ = timeout(limits.close_timeout, farewell(&mut sink, &mut stream)).await;
            LinkError::Closed
        }
        error = reader.run() => error,
        error = write => error,
        () = broken_off(sender_dropped, &ended) => LinkError::Closed,
        () = abandoned(&inbound, &ended, &limits) => LinkError::Closed,
    };
    failure.send_replace(Some(error));
}

/// Done when the user has dropped the sending half without a close: the link is broken at once, even if the peer
/// does not take what waits to be written.
async fn broken_off(sender_dropped: oneshot::Receiver<()>, ended: &watch::Sender<Ended>) {
    let _ = sender_dropped.await;
    if ended.borrow().ours {
        pending::<()>().await;
    }
}

/// Done when the user has closed and dropped the link and the peer was given its time to close as well.
async fn abandoned(inbound: &mpsc::Sender<Event>, ended: &watch::Sender<Ended>, limits: &Limits) {
    inbound.closed().await;
    let _ = ended.subscribe().wait_for(|ended| ended.ours).await;
    sleep(limits.close_timeout).await;
}

/// Closes the WebSocket. Both sides have all they wanted, so nothing that fails here matters.
async fn farewell<S>(sink: &mut SplitSink<Socket<S>, Message>, stream: &mut SplitStream<Socket<S>>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    let _ = sink.send(Message::Close(Some(frame))).await;
    while let Some(Ok(_)) = stream.next().await {}
}

struct Writer<'a, S> {
    sink: &'a mut SplitSink<Socket<S>, Message>,
    outbound: mpsc::Receiver<Command>,
    ended: &'a watch::Sender<Ended>,
    limits: &'a Limits,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Writer<'_, S> {
    /// Writes until it fails, and gives the reason.
    async fn run(&mut self) -> LinkError {
        let mut pings =
            interval_at(Instant::now() + self.limits.ping_interval, self.limits.ping_interval);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let written = tokio::select! {
                Some(command) = self.outbound.recv() => self.obey(command).await,
                _ = pings.tick() => self.sink.send(Message::Ping(Bytes::new())).await,
            };
            if let Err(error) = written {
                return link_error(error);
            }
        }
    }

    async fn obey(&mut self, command: Command) -> Result<(), Error> {
        match command {
            Command::Frame(frame) => {
                self.sink.feed(Message::Binary(frame)).await?;
                // What is fed must not wait for more when there is no more.
                if self.outbound.is_empty() { self.sink.flush().await } else { Ok(()) }
            }
            Command::Flush(confirm) => {
                self.sink.flush().await?;
                // Nobody waits for the confirmation of a cancelled flush.
                let _ = confirm.send(());
                Ok(())
            }
            Command::Close(confirm) => {
                // A close that was cancelled may be asked for twice.
                if !self.ended.borrow().ours {
                    self.sink.send(Message::Text(END.into())).await?;
                }
                let _ = confirm.send(());
                self.ended.send_modify(|ended| ended.ours = true);
                Ok(())
            }
        }
    }
}

struct Reader<'a, S> {
    stream: &'a mut SplitStream<Socket<S>>,
    heard: Heard,
    inbound: &'a mpsc::Sender<Event>,
    ended: &'a watch::Sender<Ended>,
    limits: &'a Limits,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Reader<'_, S> {
    /// Reads until it fails or the peer closes the WebSocket, and gives the reason.
    async fn run(&mut self) -> LinkError {
        loop {
            let message = match self.next().await {
                Ok(message) => message,
                Err(error) => return error,
            };
            let ended = self.ended.borrow().theirs;
            match message {
                Message::Ping(_) | Message::Pong(_) => {}
                Message::Close(frame) => return aborted(frame),
                Message::Binary(frame) if !ended => self.deliver(Event::Frame(frame)).await,
                Message::Text(text) if !ended && text == END => {
                    self.deliver(Event::End).await;
                    self.ended.send_modify(|ended| ended.theirs = true);
                }
                Message::Binary(_) | Message::Text(_) | Message::Frame(_) => {
                    return LinkError::Protocol("an unexpected WebSocket message".to_owned());
                }
            }
        }
    }

    /// The user may have dropped its half: then what still comes is discarded.
    async fn deliver(&self, event: Event) {
        let _ = self.inbound.send(event).await;
    }

    /// The next message. Only time spent waiting here counts as idle: while the user does not take frames, the
    /// peer's pings cannot be heard.
    async fn next(&mut self) -> Result<Message, LinkError> {
        let after = self.limits.idle_timeout;
        loop {
            let before = self.heard.load(Ordering::Relaxed);
            match timeout(after, self.stream.next()).await {
                Ok(Some(message)) => return message.map_err(link_error),
                Ok(None) => return Err(LinkError::Truncated),
                Err(_) if self.heard.load(Ordering::Relaxed) == before => {
                    return Err(LinkError::Idle { after });
                }
                Err(_) => {}
            }
        }
    }
}

/// The peer closed the WebSocket although not both directions had ended.
fn aborted(frame: Option<CloseFrame>) -> LinkError {
    match frame {
        Some(frame) if frame.code != CloseCode::Normal => LinkError::Aborted {
            reason: printable(format!("{} {}", frame.code, frame.reason).as_bytes(), REASON),
        },
        _ => LinkError::Truncated,
    }
}

fn link_error(error: Error) -> LinkError {
    match error {
        Error::Io(error) => error.into(),
        Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Protocol(
            ProtocolError::ResetWithoutClosingHandshake | ProtocolError::SendAfterClosing,
        ) => LinkError::Truncated,
        Error::Capacity(CapacityError::MessageTooLong { size, max_size }) => {
            LinkError::TooBig { size: size as u64, limit: max_size }
        }
        other => LinkError::Protocol(printable(other.to_string().as_bytes(), REASON)),
    }
}
