//! What comes over a link before it is a frame of a session: the framing of byte streams, the handshake, the records after
//! it, and introductions.

use crate::input::Input;
use anabranch_node::{Introduction, NodeError, Wire};
use anabranch_transport::secure::{Role, SecureLink, StaticKey, accept, connect};
use anabranch_transport::{
    Link, LinkError, LinkReceiver, LinkSender, MAX_FRAME, Trust, memory, pipe,
};
use bytes::Bytes;
use snow::{Builder, HandshakeState, StatelessTransportState};
use std::future::Future;
use std::io::Cursor;
use std::sync::OnceLock;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::runtime::{Builder as RuntimeBuilder, Runtime};

/// Frames that one input has at most.
const FRAMES: usize = 32;
const QUEUE: usize = 2 * FRAMES;
const PATIENCE: Duration = Duration::from_secs(5);

/// A byte that says which, and what comes.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = input.byte();
    runtime().block_on(async {
        match kind % 5 {
            0 => byte_stream(input).await,
            1 => handshake(input, Role::Responder).await,
            2 => handshake(input, Role::Initiator).await,
            3 => records(input).await,
            _ => introduction(input).await,
        }
    });
}

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let built = RuntimeBuilder::new_current_thread().enable_time().build();
        built.expect("a runtime without threads or sockets can be built")
    })
}

/// Frames out of a byte stream that comes in two pieces. What was taken is what the same frames look like when sent.
async fn byte_stream(mut input: Input<'_>) {
    let first = input.part().to_vec();
    let second = input.rest().to_vec();
    let stream = [&first[..], &second[..]].concat();
    let reader = Cursor::new(first).chain(Cursor::new(second));
    let (_, mut receiver) = pipe::link("fuzz", Trust::Untrusted, reader, tokio::io::sink()).split();
    let mut frames = Vec::new();
    let end = loop {
        match receiver.recv().await {
            Ok(Some(frame)) => frames.push(frame),
            end => break end,
        }
    };
    let mut spelled = b"anabranch/1\n".to_vec();
    for frame in &frames {
        assert!(frame.len() <= MAX_FRAME);
        spelled.extend_from_slice(&u32::try_from(frame.len()).unwrap_or(u32::MAX).to_be_bytes());
        spelled.extend_from_slice(frame);
    }
    if end.is_ok() {
        spelled.extend_from_slice(&[0xff; 4]);
    }
    if end.is_ok() || !frames.is_empty() {
        assert!(stream.starts_with(&spelled), "frames are what came");
    }
    assert!(receiver.recv().await.is_ok() == end.is_ok(), "an end is final");
}

/// Nobody gets through a handshake by what can be said without its keys.
async fn handshake(mut input: Input<'_>, role: Role) {
    let (near, far) = memory::pair(QUEUE);
    let (mut sender, _receiver) = far.split();
    for _ in 0..FRAMES {
        if input.is_empty() {
            break;
        }
        let sent = sender.send(input.part().to_vec()).await;
        assert!(sent.is_ok(), "a part is no larger than a frame");
    }
    let _ = sender.close().await;
    let made = match role {
        Role::Initiator => connect(near, key(), PATIENCE).await,
        Role::Responder => accept(near, key(), PATIENCE).await,
    };
    assert!(made.is_err(), "a handshake with nobody");
}

fn key() -> &'static StaticKey {
    static KEY: OnceLock<StaticKey> = OnceLock::new();
    KEY.get_or_init(|| StaticKey::generate().expect("the system has random bytes"))
}

/// Records with any plaintext, from a peer that knows the keys. A second, simpler reading of them says what must come out.
async fn records(mut input: Input<'_>) {
    let (near, far) = memory::pair(QUEUE);
    let (mut sender, receiver) = far.split();
    let accepting = accept(near, key(), PATIENCE);
    let (secure, noise) = tokio::join!(accepting, initiate(&mut sender, receiver));
    assert!(secure.is_ok() && noise.is_some(), "an honest handshake");
    let (Ok(secure), Some(noise)) = (secure, noise) else { return };
    let mut expected = Expected::default();
    for nonce in 0..FRAMES as u64 {
        if input.is_empty() {
            break;
        }
        let (kind, fill) = (input.byte(), input.byte());
        let mut plaintext = input.part().to_vec();
        if kind & 1 != 0 {
            // A part that fills its record, which no input of this size could spell out.
            plaintext.resize(MAX_PLAINTEXT, fill);
        }
        plaintext.truncate(MAX_PLAINTEXT);
        let mut record = vec![0; plaintext.len() + TAG];
        let written = noise.write_message(nonce, &plaintext, &mut record);
        if kind & 2 != 0
            && let Some(byte) = record.get_mut(usize::from(fill))
        {
            *byte ^= 1;
            // After the close nothing is read any more.
            expected.broken |= !expected.ended;
        }
        if written.is_err() || sender.send(record).await.is_err() {
            break;
        }
        expected.take(&plaintext);
    }
    let _ = sender.close().await;
    let (_, mut receiver) = secure.link.split();
    for frame in &expected.frames {
        assert_eq!(receiver.recv().await.ok().flatten().as_ref(), Some(frame));
    }
    let end = receiver.recv().await;
    assert!(!matches!(end, Ok(Some(_))), "a frame that nobody sent");
    match end {
        Ok(_) => assert!(expected.ended && !expected.broken, "an end that nobody sent"),
        Err(LinkError::Truncated) => assert!(!expected.ended && !expected.broken),
        Err(_) => assert!(expected.broken, "sound records are refused"),
    }
}

/// What the records sent so far mean.
#[derive(Default)]
struct Expected {
    frames: Vec<Bytes>,
    open: Vec<u8>,
    ended: bool,
    broken: bool,
}

const TAG: usize = 16;
/// Bytes of a record without its tag.
const MAX_PLAINTEXT: usize = 65_535 - TAG;

impl Expected {
    fn take(&mut self, plaintext: &[u8]) {
        if self.ended || self.broken {
            return;
        }
        let Some((kind, part)) = plaintext.split_first() else {
            self.broken = true;
            return;
        };
        let too_big = self.open.len() + part.len() > MAX_FRAME;
        match kind {
            _ if too_big => self.broken = true,
            0 => {
                self.open.extend_from_slice(part);
                self.frames.push(std::mem::take(&mut self.open).into());
            }
            1 if plaintext.len() == MAX_PLAINTEXT => self.open.extend_from_slice(part),
            2 if part.is_empty() && self.open.is_empty() => self.ended = true,
            _ => self.broken = true,
        }
    }
}

/// The other side's handshake, written against the page of the protocol.
async fn initiate(
    sender: &mut LinkSender,
    mut receiver: LinkReceiver,
) -> Option<StatelessTransportState> {
    let mut noise = initiator().ok()?;
    let mut buffer = [0; 256];
    let length = noise.write_message(&[], &mut buffer).ok()?;
    sender.send(buffer[..length].to_vec()).await.ok()?;
    let answer = receiver.recv().await.ok().flatten()?;
    noise.read_message(&answer, &mut buffer).ok()?;
    let length = noise.write_message(&[], &mut buffer).ok()?;
    sender.send(buffer[..length].to_vec()).await.ok()?;
    noise.into_stateless_transport_mode().ok()
}

fn initiator() -> Result<HandshakeState, snow::Error> {
    let builder = Builder::new("Noise_XX_25519_ChaChaPoly_BLAKE2s".parse()?);
    builder.local_private_key(&[7; 32])?.prologue(b"anabranch/1")?.build_initiator()
}

/// What the other end of a pipe says it has, or the ticket that it hands over.
async fn introduction(mut input: Input<'_>) {
    let takes = input.byte() & 1 != 0;
    let said = input.rest();
    if said.len() > MAX_FRAME {
        return;
    }
    let (mut wire, mut other) = wires();
    let sent = other.1.send(said.to_vec()).await;
    assert!(sent.is_ok());
    if takes {
        if let Ok(ticket) = within(wire.take_over()).await {
            let (mut again, mut other) = wires();
            assert!(again.hand_over(&ticket).await.is_ok());
            let spelled = other.0.recv().await.ok().flatten().unwrap_or_default();
            assert!(spelled.len() <= said.len());
        }
        return;
    }
    let introduced: Result<Introduction, _> = within(wire.introduced()).await;
    if let Ok(introduced) = introduced {
        assert!(introduced.refusal.is_empty());
        let (mut again, mut other) = wires();
        assert!(again.introduce(&introduced).await.is_ok());
        let spelled = other.0.recv().await.ok().flatten();
        assert_eq!(spelled.as_deref(), Some(said), "an introduction has one spelling");
    }
}

async fn within<T>(what: impl Future<Output = Result<T, NodeError>>) -> Result<T, NodeError> {
    let done = tokio::time::timeout(PATIENCE, what).await;
    done.expect("it was sent and the link is in memory")
}

fn wires() -> (Wire, (LinkReceiver, LinkSender)) {
    let (near, far) = memory::pair(QUEUE);
    let wire =
        |link: Link| Wire::from(SecureLink { link, binding: [0; 32], role: Role::Responder });
    let (sender, receiver) = far.split();
    (wire(near), (receiver, sender))
}
