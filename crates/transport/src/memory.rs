//! Links within one process, for tests, simulations and replicas in one program.

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};

use crate::{BoxFuture, FrameSink, FrameStream, Link, LinkError, Trust};

/// Two ends of one link. Each direction holds up to `capacity` frames (at least one); then its sender waits.
pub fn pair(capacity: usize) -> (Link, Link) {
    let (left_sink, right_stream) = channel(capacity);
    let (right_sink, left_stream) = channel(capacity);
    let link = |sink, stream| Link::new("memory", Trust::Trusted, sink, stream);
    (link(left_sink, left_stream), link(right_sink, right_stream))
}

/// `None` in the queue is the close, so that a dropped sender is told apart from a closed one.
fn channel(capacity: usize) -> (MemorySink, MemoryStream) {
    let (sender, receiver) = mpsc::channel(capacity.clamp(1, Semaphore::MAX_PERMITS));
    (MemorySink(sender), MemoryStream(receiver))
}

struct MemorySink(mpsc::Sender<Option<Bytes>>);

impl FrameSink for MemorySink {
    fn feed(&mut self, frame: Bytes) -> BoxFuture<'_, Result<(), LinkError>> {
        Box::pin(async { self.0.send(Some(frame)).await.map_err(|_| LinkError::Closed) })
    }

    fn flush(&mut self) -> BoxFuture<'_, Result<(), LinkError>> {
        Box::pin(async { Ok(()) })
    }

    fn close(&mut self) -> BoxFuture<'_, Result<(), LinkError>> {
        // A peer that no longer listens needs no close.
        Box::pin(async {
            let _ = self.0.send(None).await;
            Ok(())
        })
    }
}

struct MemoryStream(mpsc::Receiver<Option<Bytes>>);

impl FrameStream for MemoryStream {
    fn recv(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, LinkError>> {
        Box::pin(async { self.0.recv().await.ok_or(LinkError::Truncated) })
    }
}
