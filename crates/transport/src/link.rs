//! What every transport makes and every session uses: a link and its two halves.
//!
//! Whatever holds for all links is enforced here, once: the size of a frame (I7), that nothing is sent after a
//! close, that an end or a failure stays final. The transports implement [`FrameSink`] and [`FrameStream`].

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use crate::{LinkError, MAX_FRAME};

/// A boxed future, so that links of every kind are one type.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Whether a link can be relied on to end at whom it says, unread and unchanged on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trust {
    /// Within this process, or a pipe to a process that the user started.
    Trusted,
    /// Anything over a network: to be wrapped in [`crate::secure`].
    Untrusted,
}

/// The sending half of a transport. Implementations need not check sizes nor guard against use after a close:
/// [`LinkSender`] does.
pub trait FrameSink: Send + 'static {
    /// Waits for room, then takes the frame. A future dropped before it is done has not taken it.
    fn feed(&mut self, frame: Bytes) -> BoxFuture<'_, Result<(), LinkError>>;

    /// Hands everything taken so far to the operating system or to the peer. May be cancelled and repeated.
    fn flush(&mut self) -> BoxFuture<'_, Result<(), LinkError>>;

    /// Tells the peer that no more frames follow those taken so far.
    fn close(&mut self) -> BoxFuture<'_, Result<(), LinkError>>;
}

/// The receiving half of a transport.
pub trait FrameStream: Send + 'static {
    /// The next frame, or `None` after the peer's close. A future dropped before it is done has lost nothing.
    fn recv(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, LinkError>>;
}

/// An ordered, reliable, framed byte channel to one peer.
///
/// Both directions are independent: after one end's [`LinkSender::close`] the other can still send. Frames are 0 to
/// [`MAX_FRAME`] bytes. An end without a close is an error at the receiver, never mistaken for an orderly one.
#[derive(Debug)]
pub struct Link {
    peer: String,
    trust: Trust,
    sender: LinkSender,
    receiver: LinkReceiver,
}

impl Link {
    /// Makes a link from a transport's two halves. `peer` describes the other end to people; no secrets in it.
    pub fn new(
        peer: impl Into<String>,
        trust: Trust,
        sink: impl FrameSink,
        stream: impl FrameStream,
    ) -> Link {
        Link {
            peer: peer.into(),
            trust,
            sender: LinkSender { sink: Box::new(sink), state: SenderState::Open },
            receiver: LinkReceiver { stream: Box::new(stream), ended: None },
        }
    }

    /// Who is at the other end, for people.
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// The same link under another description of its peer.
    #[must_use]
    pub fn with_peer(self, peer: impl Into<String>) -> Link {
        Link { peer: peer.into(), ..self }
    }

    /// Whether the link authenticates its peer by itself.
    pub fn trust(&self) -> Trust {
        self.trust
    }

    /// The two halves, for use by two tasks.
    ///
    /// A user that sends must receive as well, at the same time: what is on the way is bounded, and two ends that
    /// both only send wait for each other.
    ///
    /// Dropping the sender without a close breaks the link. Dropping the receiver before the peer's close discards
    /// what the peer still sends, or makes the peer's sends fail.
    pub fn split(self) -> (LinkSender, LinkReceiver) {
        (self.sender, self.receiver)
    }
}

/// The sending half of a [`Link`].
///
/// Every method may be cancelled: a frame is then either taken whole or not at all.
pub struct LinkSender {
    sink: Box<dyn FrameSink>,
    state: SenderState,
}

enum SenderState {
    Open,
    Closing,
    Closed,
    Failed(LinkError),
}

impl LinkSender {
    /// Sends one frame and flushes.
    pub async fn send(&mut self, frame: impl Into<Bytes> + Send) -> Result<(), LinkError> {
        self.feed(frame).await?;
        self.flush().await
    }

    /// Queues one frame, waiting while the queue is full. It leaves at the latest with the next
    /// [`flush`](Self::flush); feed many, flush once.
    ///
    /// A frame above [`MAX_FRAME`] is refused and the link stays usable.
    pub async fn feed(&mut self, frame: impl Into<Bytes> + Send) -> Result<(), LinkError> {
        let frame = frame.into();
        if frame.len() > MAX_FRAME {
            return Err(LinkError::TooBig { size: frame.len() as u64, limit: MAX_FRAME });
        }
        self.usable()?;
        let fed = self.sink.feed(frame).await;
        self.note(fed)
    }

    /// Pushes out what was fed.
    pub async fn flush(&mut self) -> Result<(), LinkError> {
        self.usable()?;
        let flushed = self.sink.flush().await;
        self.note(flushed)
    }

    /// Ends this direction in good order, after everything fed before. The peer's receiver then gives `None`. The
    /// other direction stays open; see [`LinkReceiver::drain`]. Closing again does nothing.
    pub async fn close(&mut self) -> Result<(), LinkError> {
        match &self.state {
            SenderState::Closed => return Ok(()),
            SenderState::Failed(error) => return Err(error.clone()),
            SenderState::Open | SenderState::Closing => self.state = SenderState::Closing,
        }
        let closed = self.sink.close().await;
        self.note(closed)?;
        self.state = SenderState::Closed;
        Ok(())
    }

    fn usable(&self) -> Result<(), LinkError> {
        match &self.state {
            SenderState::Open => Ok(()),
            SenderState::Closing | SenderState::Closed => Err(LinkError::Closed),
            SenderState::Failed(error) => Err(error.clone()),
        }
    }

    fn note(&mut self, result: Result<(), LinkError>) -> Result<(), LinkError> {
        if let Err(error) = &result {
            self.state = SenderState::Failed(error.clone());
        }
        result
    }
}

/// The receiving half of a [`Link`].
pub struct LinkReceiver {
    stream: Box<dyn FrameStream>,
    ended: Option<Result<(), LinkError>>,
}

impl LinkReceiver {
    /// The next frame; `None` once the peer has closed its direction in good order. An end or an error is final and
    /// is given again when asked again. May be cancelled without losing a frame.
    pub async fn recv(&mut self) -> Result<Option<Bytes>, LinkError> {
        if let Some(ended) = &self.ended {
            return ended.clone().map(|()| None);
        }
        let received = self.stream.recv().await;
        match &received {
            Ok(Some(_)) => {}
            Ok(None) => self.ended = Some(Ok(())),
            Err(error) => self.ended = Some(Err(error.clone())),
        }
        received
    }

    /// Discards frames until the peer's close. With one's own close, awaited at the same time, this is how to leave in
    /// good order: a process that exits earlier may cut off what its peer has not read yet.
    pub async fn drain(&mut self, within: Duration) -> Result<(), LinkError> {
        let until_end = async {
            while self.recv().await?.is_some() {}
            Ok(())
        };
        timeout(within, until_end).await.unwrap_or(Err(LinkError::Idle { after: within }))
    }
}

impl fmt::Debug for LinkSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkSender").finish_non_exhaustive()
    }
}

impl fmt::Debug for LinkReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkReceiver").finish_non_exhaustive()
    }
}
