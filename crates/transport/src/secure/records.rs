//! The records of an encrypted link.
//!
//! Each record is one Noise message and one frame of the link below. Its plaintext is a kind byte and a part of a
//! frame: `0` the last or only part, `1` a part that fills its record and is followed by more, `2` the close, which
//! carries nothing. Nonces count records from 0 in each direction, so that a record that was changed, dropped,
//! repeated or moved does not decrypt; and since the close is a record too, an attacker who cuts the link cannot
//! pass it off as an orderly end.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use snow::StatelessTransportState;

use super::{MAX_RECORD, TAG};
use crate::{BoxFuture, FrameSink, FrameStream, LinkError, LinkReceiver, LinkSender, MAX_FRAME};

const LAST: u8 = 0;
const MORE: u8 = 1;
const CLOSE: u8 = 2;

/// The most of a frame that fits in one record.
const MAX_PART: usize = MAX_RECORD - TAG - 1;

/// What a buffer may keep between two records: a link that idles holds no more, whatever passed before.
const KEPT: usize = 4 * 1024;

/// Empties a buffer for the next record.
fn clear(buffer: &mut Vec<u8>) {
    if buffer.capacity() > KEPT {
        *buffer = Vec::new();
    } else {
        buffer.clear();
    }
}

/// The two halves of an encrypted link over the halves of another.
pub(super) fn pair(
    noise: StatelessTransportState,
    sender: LinkSender,
    receiver: LinkReceiver,
) -> (impl FrameSink, impl FrameStream) {
    let noise = Arc::new(noise);
    let sink = RecordSink {
        noise: Arc::clone(&noise),
        below: sender,
        next: 0,
        waiting: VecDeque::new(),
        plaintext: Vec::new(),
        closed: false,
    };
    (
        sink,
        RecordStream {
            noise,
            below: receiver,
            next: 0,
            plaintext: Vec::new(),
            frame: BytesMut::new(),
        },
    )
}

/// The number for the next record. The last one is reserved by Noise.
fn take_nonce(next: &mut u64) -> Result<u64, LinkError> {
    if *next == u64::MAX {
        return Err(LinkError::NonceExhausted);
    }
    let nonce = *next;
    *next += 1;
    Ok(nonce)
}

struct RecordSink {
    noise: Arc<StatelessTransportState>,
    below: LinkSender,
    next: u64,
    /// Encrypted, and not yet taken by the link below: the records of one frame at most, and a close.
    waiting: VecDeque<Bytes>,
    plaintext: Vec<u8>,
    closed: bool,
}

impl RecordSink {
    /// Encrypts a whole frame at once, so that a cancelled call has sent it whole or not at all.
    async fn feed_frame(&mut self, frame: Bytes) -> Result<(), LinkError> {
        self.pass_on().await?;
        let mut rest = &frame[..];
        while rest.len() > MAX_PART {
            let (part, after) = rest.split_at(MAX_PART);
            self.encrypt(MORE, part)?;
            rest = after;
        }
        self.encrypt(LAST, rest)
    }

    fn encrypt(&mut self, kind: u8, part: &[u8]) -> Result<(), LinkError> {
        let nonce = take_nonce(&mut self.next)?;
        self.plaintext.reserve(1 + part.len());
        self.plaintext.push(kind);
        self.plaintext.extend_from_slice(part);
        let mut record = vec![0; self.plaintext.len() + TAG];
        let length =
            self.noise.write_message(nonce, &self.plaintext, &mut record).map_err(|error| {
                LinkError::Protocol(format!("a record could not be encrypted: {error}"))
            })?;
        record.truncate(length);
        self.waiting.push_back(record.into());
        clear(&mut self.plaintext);
        Ok(())
    }

    /// Hands waiting records to the link below. One leaves the queue only when it was taken.
    async fn pass_on(&mut self) -> Result<(), LinkError> {
        while let Some(record) = self.waiting.front() {
            self.below.feed(record.clone()).await?;
            self.waiting.pop_front();
        }
        Ok(())
    }

    async fn flush_all(&mut self) -> Result<(), LinkError> {
        self.pass_on().await?;
        self.below.flush().await
    }

    async fn close_below(&mut self) -> Result<(), LinkError> {
        if !self.closed {
            self.encrypt(CLOSE, &[])?;
            self.closed = true;
        }
        self.pass_on().await?;
        self.below.close().await
    }
}

impl FrameSink for RecordSink {
    fn feed(&mut self, frame: Bytes) -> BoxFuture<'_, Result<(), LinkError>> {
        Box::pin(self.feed_frame(frame))
    }

    fn flush(&mut self) -> BoxFuture<'_, Result<(), LinkError>> {
        Box::pin(self.flush_all())
    }

    fn close(&mut self) -> BoxFuture<'_, Result<(), LinkError>> {
        Box::pin(self.close_below())
    }
}

struct RecordStream {
    noise: Arc<StatelessTransportState>,
    below: LinkReceiver,
    next: u64,
    plaintext: Vec<u8>,
    /// The parts of the frame that have come so far.
    frame: BytesMut,
}

impl RecordStream {
    async fn next_frame(&mut self) -> Result<Option<Bytes>, LinkError> {
        loop {
            // The link below may end in good order, but only a close record says that the peer meant it.
            let record = self.below.recv().await?.ok_or(LinkError::Truncated)?;
            clear(&mut self.plaintext);
            let length = self.decrypt(&record)?;
            drop(record);
            let Some((kind, part)) = self.plaintext[..length].split_first() else {
                return Err(LinkError::Protocol("an empty record".to_owned()));
            };
            let size = self.frame.len() + part.len();
            if size > MAX_FRAME {
                return Err(LinkError::TooBig { size: size as u64, limit: MAX_FRAME });
            }
            match *kind {
                LAST if self.frame.is_empty() => {
                    let frame = Bytes::copy_from_slice(part);
                    clear(&mut self.plaintext);
                    return Ok(Some(frame));
                }
                LAST => {
                    self.frame.extend_from_slice(part);
                    clear(&mut self.plaintext);
                    return Ok(Some(std::mem::take(&mut self.frame).freeze()));
                }
                MORE if part.len() == MAX_PART => self.frame.extend_from_slice(part),
                CLOSE if part.is_empty() && self.frame.is_empty() => return Ok(None),
                kind => {
                    return Err(LinkError::Protocol(format!("a misplaced record of kind {kind}")));
                }
            }
        }
    }

    /// Decrypts the next record into `plaintext` and gives its length there.
    fn decrypt(&mut self, record: &[u8]) -> Result<usize, LinkError> {
        if record.len() > MAX_RECORD {
            return Err(LinkError::TooBig { size: record.len() as u64, limit: MAX_RECORD });
        }
        let nonce = take_nonce(&mut self.next)?;
        self.plaintext.resize(record.len(), 0);
        self.noise
            .read_message(nonce, record, &mut self.plaintext)
            .map_err(|_| LinkError::Tampered { record: nonce })
    }
}

impl FrameStream for RecordStream {
    fn recv(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, LinkError>> {
        Box::pin(self.next_frame())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use snow::Builder;

    use super::super::{PATTERN, PROLOGUE, StaticKey};
    use super::*;
    use crate::{Link, Trust, memory};

    /// The two ends of a finished handshake.
    fn noise() -> (StatelessTransportState, StatelessTransportState) {
        let keys = [StaticKey::generate().unwrap(), StaticKey::generate().unwrap()];
        let build = |key: &StaticKey, initiates: bool| {
            let builder = Builder::new(PATTERN.parse().unwrap())
                .local_private_key(key.0.as_slice())
                .and_then(|builder| builder.prologue(PROLOGUE))
                .unwrap();
            if initiates { builder.build_initiator() } else { builder.build_responder() }.unwrap()
        };
        let (mut from, mut to) = (build(&keys[0], true), build(&keys[1], false));
        let (mut message, mut payload) = ([0; 200], [0; 200]);
        while !from.is_handshake_finished() || !to.is_handshake_finished() {
            let length = from.write_message(&[], &mut message).unwrap();
            to.read_message(&message[..length], &mut payload).unwrap();
            std::mem::swap(&mut from, &mut to);
        }
        let stateless =
            |state: snow::HandshakeState| state.into_stateless_transport_mode().unwrap();
        if from.is_initiator() {
            (stateless(from), stateless(to))
        } else {
            (stateless(to), stateless(from))
        }
    }

    /// A peer that knows the key and sends any plaintext it likes, and the honest link that receives it.
    struct Rogue {
        noise: StatelessTransportState,
        sender: LinkSender,
        next: u64,
        victim: Link,
        _receiver: LinkReceiver,
    }

    impl Rogue {
        fn new() -> Rogue {
            let (ours, theirs) = noise();
            let (left, right) = memory::pair(64);
            let (sender, _receiver) = left.split();
            let (below_sender, below_receiver) = right.split();
            let (sink, stream) = pair(theirs, below_sender, below_receiver);
            Rogue {
                noise: ours,
                sender,
                next: 0,
                victim: Link::new("victim", Trust::Untrusted, sink, stream),
                _receiver,
            }
        }

        async fn send(&mut self, plaintext: &[u8]) {
            let mut record = vec![0; plaintext.len() + TAG];
            self.noise.write_message(self.next, plaintext, &mut record).unwrap();
            self.next += 1;
            self.sender.send(record).await.unwrap();
        }

        async fn outcome(self) -> Result<Option<Bytes>, LinkError> {
            self.victim.split().1.recv().await
        }
    }

    fn full(kind: u8) -> Vec<u8> {
        let mut plaintext = vec![7; 1 + MAX_PART];
        plaintext[0] = kind;
        plaintext
    }

    #[tokio::test]
    async fn a_frame_may_not_outgrow_the_limit() {
        let mut rogue = Rogue::new();
        for _ in 0..9 {
            rogue.send(&full(MORE)).await;
        }
        assert!(matches!(rogue.outcome().await, Err(LinkError::TooBig { limit: MAX_FRAME, .. })));
    }

    #[tokio::test]
    async fn misplaced_records_are_refused() {
        let half = [MORE, 1, 2, 3];
        let plaintexts: [&[&[u8]]; 6] = [
            &[&[]],
            &[&half],
            &[&[9]],
            &[&[CLOSE, 0]],
            &[&full(MORE), &[CLOSE]],
            &[&full(MORE), &half],
        ];
        for sent in plaintexts {
            let mut rogue = Rogue::new();
            for plaintext in sent {
                rogue.send(plaintext).await;
            }
            let outcome = rogue.outcome().await;
            assert!(matches!(outcome, Err(LinkError::Protocol(_))), "{outcome:?}");
        }
    }

    #[tokio::test]
    async fn a_link_without_nonces_says_so_and_sends_nothing() {
        let (ours, theirs) = noise();
        let (left, right) = memory::pair(8);
        let (sender, _keep) = left.split();
        let (_other, receiver) = right.split();
        let mut sink = RecordSink {
            noise: Arc::new(ours),
            below: sender,
            next: u64::MAX - 1,
            waiting: VecDeque::new(),
            plaintext: Vec::new(),
            closed: false,
        };
        let mut stream = RecordStream {
            noise: Arc::new(theirs),
            below: receiver,
            next: u64::MAX - 1,
            plaintext: Vec::new(),
            frame: BytesMut::new(),
        };
        sink.feed_frame(Bytes::from_static(b"last")).await.unwrap();
        sink.flush_all().await.unwrap();
        assert_eq!(stream.next_frame().await.unwrap().unwrap(), "last");
        assert!(matches!(sink.feed_frame(Bytes::new()).await, Err(LinkError::NonceExhausted)));
        assert!(sink.waiting.is_empty());
        // A peer that goes on regardless is refused as well.
        sink.below.send(vec![0; 32]).await.unwrap();
        assert!(matches!(stream.next_frame().await, Err(LinkError::NonceExhausted)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn arbitrary_records_never_become_frames(records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..4)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(async {
                let mut rogue = Rogue::new();
                for record in records {
                    rogue.sender.send(record).await.unwrap();
                }
                let outcome = tokio::time::timeout(Duration::from_secs(5), rogue.outcome()).await.unwrap();
                assert!(matches!(outcome, Err(LinkError::Tampered { record: 0 })), "{outcome:?}");
            });
        }
    }
}
