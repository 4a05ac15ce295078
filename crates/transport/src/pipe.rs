//! Links over byte streams: standard input and output, a child process, anything that reads and writes.
//!
//! Here is the framing's use; `codec` has the format itself, `child` the processes. What comes in is bounded
//! before it is stored (I7).

mod child;
mod codec;
mod stdio;

use bytes::Bytes;
use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

pub use child::spawn;
pub use stdio::stdio;

use codec::{Decoded, Decoder};

use crate::{BoxFuture, FrameSink, FrameStream, Link, LinkError, Trust};

/// How much may wait to be written before a sender has to wait as well; a frame may come on top.
const WRITE_BUFFER: usize = 64 * 1024;

/// The least room offered to a read.
const READ_BUFFER: usize = 64 * 1024;

/// A link that reads frames from `input` and writes frames to `output`. The caller says whether it is trusted.
pub fn link<R, W>(peer: impl Into<String>, trust: Trust, input: R, output: W) -> Link
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    Link::new(peer, trust, PipeSink::new(output), PipeStream::new(input))
}

struct PipeSink<W> {
    output: W,
    waiting: BytesMut,
    ended: bool,
}

impl<W: AsyncWrite + Unpin> PipeSink<W> {
    fn new(output: W) -> Self {
        PipeSink { output, waiting: BytesMut::from(codec::PREAMBLE), ended: false }
    }

    /// Writes until at most `rest` bytes wait. `write_buf` takes from the buffer exactly what was written, so that a
    /// cancelled call loses nothing.
    async fn write_down_to(&mut self, rest: usize) -> Result<(), LinkError> {
        while self.waiting.remaining() > rest {
            if self.output.write_buf(&mut self.waiting).await? == 0 {
                return Err(LinkError::Truncated);
            }
        }
        Ok(())
    }

    async fn feed_frame(&mut self, frame: Bytes) -> Result<(), LinkError> {
        self.write_down_to(WRITE_BUFFER).await?;
        codec::encode(&frame, &mut self.waiting);
        Ok(())
    }

    async fn flush_all(&mut self) -> Result<(), LinkError> {
        self.write_down_to(0).await?;
        Ok(self.output.flush().await?)
    }

    async fn close_output(&mut self) -> Result<(), LinkError> {
        if !self.ended {
            codec::encode_end(&mut self.waiting);
            self.ended = true;
        }
        self.flush_all().await?;
        Ok(self.output.shutdown().await?)
    }
}

impl<W: AsyncWrite + Unpin + Send + 'static> FrameSink for PipeSink<W> {
    fn feed(&mut self, frame: Bytes) -> BoxFuture<'_, Result<(), LinkError>> {
        Box::pin(self.feed_frame(frame))
    }

    fn flush(&mut self) -> BoxFuture<'_, Result<(), LinkError>> {
        Box::pin(self.flush_all())
    }

    fn close(&mut self) -> BoxFuture<'_, Result<(), LinkError>> {
        Box::pin(self.close_output())
    }
}

struct PipeStream<R> {
    input: R,
    decoder: Decoder,
}

impl<R: AsyncRead + Unpin> PipeStream<R> {
    fn new(input: R) -> Self {
        PipeStream { input, decoder: Decoder::default() }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, LinkError> {
        loop {
            let missing = match self.decoder.next()? {
                Decoded::Frame(frame) => return Ok(Some(frame)),
                Decoded::End => return Ok(None),
                Decoded::Missing(bytes) => bytes,
            };
            let buffer = self.decoder.buffer();
            buffer.reserve(missing.max(READ_BUFFER));
            if self.input.read_buf(buffer).await? == 0 {
                return Err(LinkError::Truncated);
            }
        }
    }
}

impl<R: AsyncRead + Unpin + Send + 'static> FrameStream for PipeStream<R> {
    fn recv(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, LinkError>> {
        Box::pin(self.next())
    }
}
