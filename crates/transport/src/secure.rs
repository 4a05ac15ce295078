//! An encrypted, authenticated session around any link, so that a plain network is as private as a trusted one.
//!
//! Noise XX with X25519, ChaCha20-Poly1305 and BLAKE2s. The static key is made afresh by each process and proves
//! nothing by itself: whoever needs to know the peer signs [`SecureLink::binding`], which is different for every
//! session and the same at both ends of one. `records` has what follows the handshake. Guards I4 for the bytes of
//! a link (what arrives is what was sent, in order, or an error) and I5 (a bad handshake ends only its own link).

mod records;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use snow::{Builder, HandshakeState, StatelessTransportState};
use thiserror::Error;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::{Link, LinkError, LinkReceiver, LinkSender, Trust};

const PATTERN: &str = "Noise_XX_25519_ChaChaPoly_BLAKE2s";
const PROLOGUE: &[u8] = b"anabranch/1";

/// The largest Noise message, and so the largest frame on the link below.
const MAX_RECORD: usize = 65_535;
/// What encryption adds to a message.
const TAG: usize = 16;
const KEY: usize = 32;

/// The longest of the three handshake messages: an ephemeral key, an encrypted static one, an empty payload's tag.
const MAX_HANDSHAKE: usize = KEY + KEY + TAG + TAG;

/// The X25519 key of this process. Never stored.
pub struct StaticKey(Zeroizing<[u8; KEY]>);

impl StaticKey {
    /// Makes a new key from the operating system's random source.
    pub fn generate() -> Result<StaticKey, HandshakeError> {
        let mut key = Zeroizing::new([0; KEY]);
        getrandom::fill(key.as_mut_slice())
            .map_err(|error| HandshakeError::Entropy(error.to_string()))?;
        Ok(StaticKey(key))
    }
}

impl fmt::Debug for StaticKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StaticKey(…)")
    }
}

/// Which end of the handshake this was. Both ends sign it, so that a signature cannot be reflected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Called [`connect`].
    Initiator,
    /// Called [`accept`].
    Responder,
}

/// A link that nobody between its ends can read or change.
#[derive(Debug)]
pub struct SecureLink {
    /// The link to use. It has the peer description and the trust of the link below.
    pub link: Link,
    /// The handshake hash: equal at both ends, unique to this session. A signature over it binds a name to the link.
    pub binding: [u8; 32],
    /// Which end this is.
    pub role: Role,
}

/// Why no encrypted session came about.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The link below failed or ended.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The peer did not finish in time.
    #[error("the peer did not finish the encrypted handshake within {after:?}")]
    Timeout {
        /// The limit.
        after: Duration,
    },
    /// The peer's message is not part of this handshake: another protocol, another version, or tampering.
    #[error("the peer's answer is not an Anabranch handshake, or it was changed on the way ({0})")]
    Rejected(String),
    /// The operating system gave no random bytes.
    #[error("the operating system's random source failed: {0}")]
    Entropy(String),
}

/// Starts an encrypted session over `link`, to a peer that calls [`accept`].
pub async fn connect(
    link: Link,
    key: &StaticKey,
    within: Duration,
) -> Result<SecureLink, HandshakeError> {
    establish(link, key, Role::Initiator, within).await
}

/// Answers a peer that calls [`connect`].
pub async fn accept(
    link: Link,
    key: &StaticKey,
    within: Duration,
) -> Result<SecureLink, HandshakeError> {
    establish(link, key, Role::Responder, within).await
}

async fn establish(
    link: Link,
    key: &StaticKey,
    role: Role,
    within: Duration,
) -> Result<SecureLink, HandshakeError> {
    let peer = link.peer().to_owned();
    let trust = link.trust();
    let (sender, receiver) = link.split();
    let mut handshake = Handshake { noise: start(key, role)?, sender, receiver };
    timeout(within, handshake.run())
        .await
        .map_err(|_| HandshakeError::Timeout { after: within })??;

    let Handshake { noise, sender, receiver } = handshake;
    let mut binding = [0; 32];
    binding.copy_from_slice(
        noise.get_handshake_hash().get(..32).ok_or_else(|| rejected(snow::Error::Input))?,
    );
    let noise = noise.into_stateless_transport_mode().map_err(rejected)?;
    Ok(SecureLink { link: secured(peer, trust, noise, sender, receiver), binding, role })
}

fn secured(
    peer: String,
    trust: Trust,
    noise: StatelessTransportState,
    sender: LinkSender,
    receiver: LinkReceiver,
) -> Link {
    let (sink, stream) = records::pair(noise, sender, receiver);
    Link::new(peer, trust, sink, stream)
}

fn start(key: &StaticKey, role: Role) -> Result<HandshakeState, HandshakeError> {
    let builder = Builder::new(PATTERN.parse().map_err(rejected)?)
        .local_private_key(key.0.as_slice())
        .and_then(|builder| builder.prologue(PROLOGUE))
        .map_err(rejected)?;
    match role {
        Role::Initiator => builder.build_initiator(),
        Role::Responder => builder.build_responder(),
    }
    .map_err(rejected)
}

fn rejected(error: snow::Error) -> HandshakeError {
    HandshakeError::Rejected(error.to_string())
}

struct Handshake {
    noise: HandshakeState,
    sender: LinkSender,
    receiver: LinkReceiver,
}

impl Handshake {
    async fn run(&mut self) -> Result<(), HandshakeError> {
        while !self.noise.is_handshake_finished() {
            if self.noise.is_my_turn() {
                self.write().await?;
            } else {
                self.read().await?;
            }
        }
        Ok(())
    }

    async fn write(&mut self) -> Result<(), HandshakeError> {
        let mut message = [0; MAX_HANDSHAKE];
        let length = self.noise.write_message(&[], &mut message).map_err(rejected)?;
        Ok(self.sender.send(Bytes::copy_from_slice(&message[..length])).await?)
    }

    async fn read(&mut self) -> Result<(), HandshakeError> {
        let message = self.receiver.recv().await?.ok_or(LinkError::Truncated)?;
        if message.len() > MAX_HANDSHAKE {
            return Err(HandshakeError::Rejected(format!("a message of {} bytes", message.len())));
        }
        let mut payload = [0; MAX_HANDSHAKE];
        match self.noise.read_message(&message, &mut payload).map_err(rejected)? {
            0 => Ok(()),
            _ => Err(HandshakeError::Rejected("unexpected payload".to_owned())),
        }
    }
}
