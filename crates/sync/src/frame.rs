//! The frames of a session: one canonical encoding each, bounded before anything is allocated (I4). docs/protocol.md
//! gives them in prose.

use anabranch_core::blob::ChunkHash;
use anabranch_core::codec::{DecodeError, Reader, Writer};
use anabranch_core::frontier::{Frontier, FrontierTip};
use anabranch_core::id::{DatabaseId, EntryId, LogId, NodeId, Position};
use anabranch_core::key::Signature;
use anabranch_core::limits::EVIDENCE_BYTES;
use anabranch_core::ops::Role;
use anabranch_core::riblt::{SYMBOL_BYTES, SYMBOLS, Symbol};

/// The version of the protocol.
pub const PROTOCOL_VERSION: u64 = 1;
/// Feature: this side can be told to withhold entries, and then offers them.
pub const WITHHOLDS: u64 = 1;
/// Feature: this side takes requests to be let in.
pub const TAKES_REQUESTS: u64 = 2;
/// It knows people: a request may show that a device is one of somebody's.
pub const KNOWS_PEOPLE: u64 = 4;
const HELLO: u64 = 0;
/// Tips in one frame; a larger frontier takes several.
pub const TIPS_PER_FRAME: usize = 2_000;
/// Places of a log in one frame: enough for 2⁶⁴ entries at doubling distances.
pub const SAMPLES: usize = 70;
/// Hashes in one frame.
pub const HASHES: usize = 1_024;
/// Devices named by one [`Frame::Hold`] or [`Frame::Resume`], and places by one [`Frame::Offer`] or [`Frame::Held`].
pub const OFFERS: usize = 256;
/// Bytes of a batch or blob as sent.
pub const DATA_BYTES: usize = 400 * 1024;
/// Bytes of a batch of runs before compression: one run of the largest size always fits.
pub const BATCH_BYTES: usize = 384 * 1024;
/// Bytes of a sentence sent along with a refusal, or with a request to be let in.
pub const TEXT_BYTES: usize = 512;

/// A database on a session; whoever opens it picks the number.
pub type ChannelNo = u32;

/// What one side wants and allows on a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Terms {
    /// It will send entries that the other lacks.
    pub sends: bool,
    /// It takes entries.
    pub receives: bool,
    /// It found that the other side may read.
    pub you_may_read: bool,
}

/// Proof of holding a ticket's key, bound to the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TicketProof {
    /// The public half.
    pub key: NodeId,
    /// Over the channel binding, the database and the presenter's device.
    pub signature: Signature,
}

/// A device's request to be let in, for an admin to approve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What it asks to be allowed.
    pub role: Role,
    /// What it says to the admin: at most [`TEXT_BYTES`], and anything may stand in it.
    pub text: String,
    /// The person whose device it says it is: that one's database of devices.
    pub person: Option<DatabaseId>,
}

impl Request {
    /// Whether who has this role has nothing to ask for: who may read what it asks to read, or relay what it asks to relay.
    #[must_use]
    pub fn is_met_by(&self, role: Option<Role>) -> bool {
        role >= Some(self.role.min(Role::Read))
    }

    /// Its encoding, in frames and where it is kept.
    pub fn encode(&self, w: &mut Writer) {
        let role = match self.role {
            Role::Read => 1,
            Role::Write => 2,
            Role::Admin => 3,
            Role::Relay => 4,
        };
        w.array(2 + usize::from(self.person.is_some())).u64(role).text(clip(&self.text));
        if let Some(person) = &self.person {
            w.bytes(&person.0);
        }
    }

    /// Reads one.
    ///
    /// # Errors
    /// [`DecodeError`] for anything that is not exactly one.
    pub fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let at = r.position();
        let fields = r.array("request", 3)?;
        if fields < 2 {
            return Err(DecodeError::Malformed { what: "request", at });
        }
        let at = r.position();
        let role = match r.u64("role")? {
            1 => Role::Read,
            2 => Role::Write,
            3 => Role::Admin,
            4 => Role::Relay,
            _ => return Err(DecodeError::Malformed { what: "role", at }),
        };
        let text = r.text("text", TEXT_BYTES)?.to_owned();
        let person = (fields == 3).then(|| r.array_of("person")).transpose()?;
        Ok(Self { role, text, person: person.map(DatabaseId) })
    }
}

/// Why a channel or session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// An orderly end.
    Done,
    /// The database is not served here or the device may not read it; which one is not said.
    NotServed,
    /// The ticket's time is over.
    TicketExpired,
    /// The ticket admits no more devices.
    TicketSpent,
    /// The ticket is not known here.
    TicketUnknown,
    /// Something sent was wrong.
    Protocol,
    /// A limit was exceeded.
    Limit,
    /// The sender's own storage failed.
    Internal,
    /// No common version.
    Version,
    /// Neither side knows the other as a member.
    Strangers,
    /// The sender's disk is full.
    Full,
    /// The request to be let in waits for an admin's approval.
    Waiting,
    /// An admin rejected the request to be let in.
    Rejected,
    /// The sender is no admin of the database, so it takes no request to be let in.
    NotAdmin,
    /// The device had a right here once, and it was revoked.
    Revoked,
}

impl Code {
    const ALL: [Self; 15] = [
        Self::Done,
        Self::NotServed,
        Self::TicketExpired,
        Self::TicketSpent,
        Self::TicketUnknown,
        Self::Protocol,
        Self::Limit,
        Self::Internal,
        Self::Version,
        Self::Strangers,
        Self::Full,
        Self::Waiting,
        Self::Rejected,
        Self::NotAdmin,
        Self::Revoked,
    ];
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// First of all, from both sides. Read whatever follows what is known, so that versions can be compared at all.
    Hello {
        /// Oldest and newest version spoken.
        versions: (u64, u64),
        /// Who speaks; proved by [`Frame::Auth`].
        node: NodeId,
        /// The wall clock, in microseconds; compared, never followed.
        clock: u64,
        /// A bit for each thing that a version leaves open and the speaker can do: [`WITHHOLDS`].
        features: u64,
    },
    /// A signature over the channel binding, the role and both devices.
    Auth(Signature),
    /// Names a database, blinded by the channel, and opens it.
    Open {
        /// Picked by the sender.
        channel: ChannelNo,
        /// Blinded database id.
        name: [u8; 32],
        /// What the sender wants.
        terms: Terms,
        /// Blinded frontier digest, if the other side may read.
        digest: Option<[u8; 32]>,
        /// Possession of a ticket.
        ticket: Option<TicketProof>,
        /// A request to be let in. Only to who said that it takes them.
        request: Option<Request>,
        /// What shows that the device is one of the person's that the request names ([`anabranch_core::person::Evidence`]). Only to
        /// who said that it knows people.
        evidence: Option<Vec<u8>>,
    },
    /// The answer to [`Frame::Open`].
    Opened {
        /// The channel.
        channel: ChannelNo,
        /// What the sender wants.
        terms: Terms,
        /// Blinded frontier digest, if the other side may read.
        digest: Option<[u8; 32]>,
        /// Possession of a ticket.
        ticket: Option<TicketProof>,
    },
    /// Ends a channel, or refuses to open it.
    Refused {
        /// The channel.
        channel: ChannelNo,
        /// Why.
        code: Code,
        /// For people.
        text: String,
    },
    /// A part of the sender's frontier, as far as the other side may know it.
    Tips {
        /// The channel.
        channel: ChannelNo,
        /// In any order.
        tips: Vec<FrontierTip>,
        /// Whether this is the last part.
        last: bool,
    },
    /// The sender holds another branch of a log: ids along it.
    Fork {
        /// The channel.
        channel: ChannelNo,
        /// From its tip downwards.
        samples: Vec<Position>,
    },
    /// The answer to [`Frame::Fork`]: the highest of these that is held.
    ForkPoint {
        /// The channel.
        channel: ChannelNo,
        /// The log.
        log: LogId,
        /// `None` when none is held.
        held: Option<Position>,
    },
    /// Runs, compressed.
    Batch {
        /// The channel.
        channel: ChannelNo,
        /// Bytes before compression.
        raw: u32,
        /// zstd.
        bytes: Vec<u8>,
    },
    /// Data of this many bytes was taken and applied; as much more may be sent.
    Credit {
        /// The channel.
        channel: ChannelNo,
        /// Bytes.
        bytes: u32,
    },
    /// The sender has nothing more to send.
    Level {
        /// The channel.
        channel: ChannelNo,
        /// Blinded frontier digest, if the other side may read.
        digest: Option<[u8; 32]>,
        /// Whether the sender still works on what it received (fetches blobs, writes files).
        busy: bool,
    },
    /// Asks for blobs.
    Want {
        /// The channel.
        channel: ChannelNo,
        /// Their names.
        hashes: Vec<ChunkHash>,
    },
    /// A blob.
    Blob {
        /// The channel.
        channel: ChannelNo,
        /// Its name.
        hash: ChunkHash,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// Blobs that are not held.
    NoBlob {
        /// The channel.
        channel: ChannelNo,
        /// Their names.
        hashes: Vec<ChunkHash>,
    },
    /// Blobs that the other side asked for in vain and that have come since.
    Have {
        /// The channel.
        channel: ChannelNo,
        /// Their names.
        hashes: Vec<ChunkHash>,
    },
    /// The sender's frontier summed up, in place of [`Frame::Tips`]: the symbols of its row ([`anabranch_core::riblt`]) from
    /// one on.
    Symbols {
        /// The channel.
        channel: ChannelNo,
        /// How many were sent before.
        from: u32,
        /// Tips of the frontier.
        tips: u32,
        /// Its blinded digest.
        digest: [u8; 32],
        /// The next ones.
        symbols: Vec<Symbol>,
    },
    /// Asks for more of a frontier that was summed up.
    Ask {
        /// The channel.
        channel: ChannelNo,
        /// What.
        what: Ask,
    },
    /// The answer to [`Ask::Named`].
    Named {
        /// The channel.
        channel: ChannelNo,
        /// Those tips that the frontier has.
        tips: Vec<FrontierTip>,
    },
    /// Asks the other side to send no entries that these devices wrote, but to offer them: they come from somebody else.
    Hold {
        /// The channel.
        channel: ChannelNo,
        /// They; none stands for everybody, and then nothing is offered either.
        devices: Vec<NodeId>,
    },
    /// With the sender's next frontier, what [`Frame::Hold`] said of these is over.
    Resume {
        /// The channel.
        channel: ChannelNo,
        /// They; none stands for all that was ever said.
        devices: Vec<NodeId>,
    },
    /// The sender has entries up to these places that it withholds.
    Offer {
        /// The channel.
        channel: ChannelNo,
        /// Tips of logs.
        places: Vec<Position>,
    },
    /// The answer to [`Frame::Offer`], now or later: the sender holds everything up to these.
    Held {
        /// The channel.
        channel: ChannelNo,
        /// Some of those that were offered.
        places: Vec<Position>,
    },
    /// Ends the session.
    Bye {
        /// Why.
        code: Code,
        /// For people.
        text: String,
    },
}

/// What of a frontier is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// All symbols there are.
    Symbols,
    /// The frontier itself.
    Whole,
    /// The tips behind these elements.
    Named(Vec<u64>),
}

impl Frame {
    /// The encoding.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        match self {
            Self::Hello { versions, node, clock, features } => {
                w.array(6).u64(0).u64(versions.0).u64(versions.1);
                w.bytes(&node.0).u64(*clock).u64(*features);
            }
            Self::Auth(signature) => {
                w.array(2).u64(1).bytes(&signature.0);
            }
            Self::Open { channel, name, terms, digest, ticket, request, evidence } => {
                let evidence = evidence.as_ref().filter(|_| request.is_some());
                let more = usize::from(request.is_some()) + usize::from(evidence.is_some());
                w.array(6 + more).u64(2);
                w.u64(u64::from(*channel)).bytes(name);
                terms.encode(&mut w);
                opening(&mut w, digest, ticket);
                if let Some(request) = request {
                    request.encode(&mut w);
                }
                if let Some(evidence) = evidence {
                    w.bytes(evidence);
                }
            }
            Self::Opened { channel, terms, digest, ticket } => {
                w.array(5).u64(3).u64(u64::from(*channel));
                terms.encode(&mut w);
                opening(&mut w, digest, ticket);
            }
            Self::Refused { channel, code, text } => {
                w.array(4).u64(4).u64(u64::from(*channel)).u64(*code as u64).text(clip(text));
            }
            Self::Tips { channel, tips, last } => {
                w.array(4).u64(5).u64(u64::from(*channel));
                Frontier::encode_tips(tips, &mut w);
                w.bool(*last);
            }
            Self::Fork { channel, samples } => put_positions(&mut w, 6, *channel, samples),
            Self::ForkPoint { channel, log, held } => {
                w.array(4).u64(7).u64(u64::from(*channel));
                w.array(2).bytes(&log.device.0).u64(log.epoch);
                match held {
                    Some(p) => put_position(&mut w, p),
                    None => _ = w.null(),
                }
            }
            Self::Batch { channel, raw, bytes } => {
                w.array(4).u64(8).u64(u64::from(*channel)).u64(u64::from(*raw)).bytes(bytes);
            }
            Self::Credit { channel, bytes } => {
                w.array(3).u64(9).u64(u64::from(*channel)).u64(u64::from(*bytes));
            }
            Self::Level { channel, digest, busy } => {
                w.array(4).u64(10).u64(u64::from(*channel));
                w.bytes(digest.as_ref().map_or(&[][..], |d| d)).bool(*busy);
            }
            Self::Want { channel, hashes } => put_hashes(&mut w, 11, *channel, hashes),
            Self::Blob { channel, hash, bytes } => {
                w.array(4).u64(12).u64(u64::from(*channel)).bytes(&hash.0).bytes(bytes);
            }
            Self::NoBlob { channel, hashes } => put_hashes(&mut w, 13, *channel, hashes),
            Self::Have { channel, hashes } => put_hashes(&mut w, 15, *channel, hashes),
            Self::Symbols { channel, from, tips, digest, symbols } => {
                w.array(6).u64(16).u64(u64::from(*channel)).u64(u64::from(*from));
                w.u64(u64::from(*tips)).bytes(digest);
                w.bytes(&symbols.iter().flat_map(Symbol::to_bytes).collect::<Vec<u8>>());
            }
            Self::Ask { channel, what } => {
                w.array(4).u64(17).u64(u64::from(*channel));
                let (kind, named) = match what {
                    Ask::Symbols => (0, &[][..]),
                    Ask::Whole => (1, &[][..]),
                    Ask::Named(named) => (2, &named[..]),
                };
                w.u64(kind).array(named.len());
                named.iter().for_each(|element| _ = w.u64(*element));
            }
            Self::Named { channel, tips } => {
                w.array(3).u64(18).u64(u64::from(*channel));
                Frontier::encode_tips(tips, &mut w);
            }
            Self::Hold { channel, devices } => put_devices(&mut w, 19, *channel, devices),
            Self::Resume { channel, devices } => put_devices(&mut w, 20, *channel, devices),
            Self::Offer { channel, places } => put_positions(&mut w, 21, *channel, places),
            Self::Held { channel, places } => put_positions(&mut w, 22, *channel, places),
            Self::Bye { code, text } => {
                w.array(3).u64(14).u64(*code as u64).text(clip(text));
            }
        }
        w.finish()
    }

    /// Reads one frame.
    ///
    /// # Errors
    /// [`DecodeError`] for anything that is not exactly one frame within the limits.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        let fields = r.array("frame", 16)?;
        let kind = r.u64("frame kind")?;
        if kind == HELLO {
            return Self::hello(r, fields);
        }
        let expected = match kind {
            1 => 2,
            6 | 9 | 11 | 13..=15 | 18..=22 => 3,
            4 | 5 | 7 | 8 | 10 | 12 | 17 => 4,
            3 => 5,
            // Without a request, with one, and with what shows whose device asks.
            2 if fields == 7 || fields == 8 => fields,
            2 | 16 => 6,
            _ => 0,
        };
        if fields != expected {
            return Err(DecodeError::Malformed { what: "frame", at: 0 });
        }
        let frame = Self::body(&mut r, kind, fields)?;
        r.finish()?;
        Ok(frame)
    }

    fn hello(mut r: Reader<'_>, fields: usize) -> Result<Self, DecodeError> {
        let versions = (r.u64("version")?, r.u64("version")?);
        let node = NodeId(r.array_of("device")?);
        let (clock, features) = (r.u64("clock")?, r.u64("features")?);
        (6..fields).try_for_each(|_| r.skip("a field from later"))?;
        r.finish()?;
        Ok(Self::Hello { versions, node, clock, features })
    }

    fn body(r: &mut Reader<'_>, kind: u64, fields: usize) -> Result<Self, DecodeError> {
        if kind == 1 {
            return Ok(Self::Auth(Signature(r.array_of("signature")?)));
        }
        if kind == 14 {
            return Ok(Self::Bye { code: code(r)?, text: r.text("text", TEXT_BYTES)?.to_owned() });
        }
        let channel = r.u32("channel")?;
        Ok(match kind {
            2 => Self::Open {
                channel,
                name: r.array_of("database name")?,
                terms: Terms::decode(r)?,
                digest: digest(r)?,
                ticket: ticket(r)?,
                request: (fields >= 7).then(|| Request::decode(r)).transpose()?,
                evidence: match fields {
                    8 => Some(r.bytes("evidence", EVIDENCE_BYTES)?.to_vec()),
                    _ => None,
                },
            },
            3 => Self::Opened {
                channel,
                terms: Terms::decode(r)?,
                digest: digest(r)?,
                ticket: ticket(r)?,
            },
            4 => Self::Refused {
                channel,
                code: code(r)?,
                text: r.text("text", TEXT_BYTES)?.to_owned(),
            },
            5 => Self::Tips {
                channel,
                tips: Frontier::decode_tips(r, TIPS_PER_FRAME)?,
                last: r.bool("last")?,
            },
            6 => Self::Fork { channel, samples: take_list(r, SAMPLES, take_position)? },
            7 => {
                r.tuple("log", 2)?;
                let device = NodeId(r.array_of("device")?);
                let log = LogId { device, epoch: r.u64("epoch")? };
                let held = if r.null() { None } else { Some(take_position(r)?) };
                Self::ForkPoint { channel, log, held }
            }
            8 => Self::Batch {
                channel,
                raw: r.number("batch size", BATCH_BYTES as u64)? as u32,
                bytes: r.bytes("batch", DATA_BYTES)?.to_vec(),
            },
            9 => Self::Credit { channel, bytes: r.u32("credit")? },
            10 => Self::Level { channel, digest: digest(r)?, busy: r.bool("busy")? },
            11 => Self::Want { channel, hashes: take_list(r, HASHES, take_hash)? },
            12 => Self::Blob {
                channel,
                hash: take_hash(r)?,
                bytes: r.bytes("blob", DATA_BYTES)?.to_vec(),
            },
            13 => Self::NoBlob { channel, hashes: take_list(r, HASHES, take_hash)? },
            15 => Self::Have { channel, hashes: take_list(r, HASHES, take_hash)? },
            16 => Self::Symbols {
                channel,
                from: r.number("symbols", SYMBOLS as u64)? as u32,
                tips: r.u32("tips")?,
                digest: r.array_of("digest")?,
                symbols: take_symbols(r)?,
            },
            17 => Self::Ask { channel, what: take_ask(r)? },
            18 => Self::Named { channel, tips: Frontier::decode_tips(r, SYMBOLS)? },
            19 => Self::Hold { channel, devices: take_list(r, OFFERS, take_device)? },
            20 => Self::Resume { channel, devices: take_list(r, OFFERS, take_device)? },
            21 => Self::Offer { channel, places: take_list(r, OFFERS, take_position)? },
            22 => Self::Held { channel, places: take_list(r, OFFERS, take_position)? },
            _ => return Err(DecodeError::Malformed { what: "frame kind", at: 1 }),
        })
    }
}

impl Terms {
    fn encode(self, w: &mut Writer) {
        let bits = u64::from(self.sends)
            | u64::from(self.receives) << 1
            | u64::from(self.you_may_read) << 2;
        w.u64(bits);
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let bits = r.number("terms", 7)?;
        Ok(Self { sends: bits & 1 != 0, receives: bits & 2 != 0, you_may_read: bits & 4 != 0 })
    }
}

fn clip(text: &str) -> &str {
    let mut end = text.len().min(TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn opening(w: &mut Writer, digest: &Option<[u8; 32]>, ticket: &Option<TicketProof>) {
    w.bytes(digest.as_ref().map_or(&[][..], |d| d));
    match ticket {
        Some(proof) => w.array(2).bytes(&proof.key.0).bytes(&proof.signature.0),
        None => w.null(),
    };
}

fn digest(r: &mut Reader<'_>) -> Result<Option<[u8; 32]>, DecodeError> {
    let at = r.position();
    match r.bytes("digest", 32)? {
        [] => Ok(None),
        bytes => {
            bytes.try_into().map(Some).map_err(|_| DecodeError::Malformed { what: "digest", at })
        }
    }
}

fn ticket(r: &mut Reader<'_>) -> Result<Option<TicketProof>, DecodeError> {
    if r.null() {
        return Ok(None);
    }
    r.tuple("ticket", 2)?;
    let key = NodeId(r.array_of("ticket key")?);
    Ok(Some(TicketProof { key, signature: Signature(r.array_of("signature")?) }))
}

fn code(r: &mut Reader<'_>) -> Result<Code, DecodeError> {
    let n = r.u64("code")?;
    let known = usize::try_from(n).ok().and_then(|n| Code::ALL.get(n).copied());
    // One from a later version ends things all the same; the text says why.
    Ok(known.unwrap_or(Code::Internal))
}

fn put_position(w: &mut Writer, p: &Position) {
    w.array(4).bytes(&p.log.device.0).u64(p.log.epoch).u64(p.seq).bytes(&p.id.0);
}

fn put_positions(w: &mut Writer, kind: u64, channel: ChannelNo, places: &[Position]) {
    w.array(3).u64(kind).u64(u64::from(channel)).array(places.len());
    places.iter().for_each(|place| put_position(w, place));
}

fn put_devices(w: &mut Writer, kind: u64, channel: ChannelNo, devices: &[NodeId]) {
    w.array(3).u64(kind).u64(u64::from(channel)).array(devices.len());
    devices.iter().for_each(|device| _ = w.bytes(&device.0));
}

fn take_device(r: &mut Reader<'_>) -> Result<NodeId, DecodeError> {
    Ok(NodeId(r.array_of("device")?))
}

fn take_position(r: &mut Reader<'_>) -> Result<Position, DecodeError> {
    r.tuple("position", 4)?;
    let device = NodeId(r.array_of("device")?);
    let log = LogId { device, epoch: r.u64("epoch")? };
    Ok(Position { log, seq: r.u64("sequence")?, id: EntryId(r.array_of("entry id")?) })
}

fn put_hashes(w: &mut Writer, kind: u64, channel: ChannelNo, hashes: &[ChunkHash]) {
    w.array(3).u64(kind).u64(u64::from(channel)).array(hashes.len());
    for hash in hashes {
        w.bytes(&hash.0);
    }
}

fn take_hash(r: &mut Reader<'_>) -> Result<ChunkHash, DecodeError> {
    Ok(ChunkHash(r.array_of("hash")?))
}

fn take_symbols(r: &mut Reader<'_>) -> Result<Vec<Symbol>, DecodeError> {
    let at = r.position();
    let bytes = r.bytes("symbols", SYMBOLS * SYMBOL_BYTES)?;
    let (symbols, rest) = bytes.as_chunks();
    if !rest.is_empty() {
        return Err(DecodeError::Malformed { what: "symbols", at });
    }
    Ok(symbols.iter().map(Symbol::from_bytes).collect())
}

fn take_ask(r: &mut Reader<'_>) -> Result<Ask, DecodeError> {
    let at = r.position();
    let kind = r.u64("what is asked for")?;
    let named = take_list(r, SYMBOLS, |r| r.u64("an element"))?;
    match (kind, named.is_empty()) {
        (0, true) => Ok(Ask::Symbols),
        (1, true) => Ok(Ask::Whole),
        (2, _) => Ok(Ask::Named(named)),
        _ => Err(DecodeError::Malformed { what: "what is asked for", at }),
    }
}

fn take_list<T>(
    r: &mut Reader<'_>,
    limit: usize,
    take: impl Fn(&mut Reader<'_>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    (0..r.array("list", limit)?).map(|_| take(r)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use anabranch_core::head::Head;
    use proptest::prelude::*;

    fn position(n: u8) -> Position {
        let log = LogId { device: NodeId([n; 32]), epoch: u64::from(n) };
        Position { log, seq: 7, id: EntryId([n; 32]) }
    }

    fn samples() -> Vec<Frame> {
        let terms = Terms { sends: true, receives: false, you_may_read: true };
        let proof = TicketProof { key: NodeId([4; 32]), signature: Signature([5; 64]) };
        let tip =
            FrontierTip { head: Head { position: position(3), signature: Signature([6; 64]) } };
        let (channel, digest) = (9, Some([1; 32]));
        let hashes = vec![ChunkHash([8; 32])];
        let symbol = Symbol::from_bytes(&[9; SYMBOL_BYTES]);
        vec![
            Frame::Hello { versions: (1, 2), node: NodeId([2; 32]), clock: 3, features: 0 },
            Frame::Auth(Signature([1; 64])),
            Frame::Open {
                channel,
                name: [2; 32],
                terms,
                digest,
                ticket: Some(proof),
                request: None,
                evidence: None,
            },
            Frame::Open {
                channel,
                name: [2; 32],
                terms,
                digest: None,
                ticket: None,
                request: Some(Request {
                    role: Role::Read,
                    text: "I am Ana's laptop".into(),
                    person: None,
                }),
                evidence: None,
            },
            Frame::Opened { channel, terms, digest: None, ticket: None },
            Frame::Refused { channel, code: Code::TicketSpent, text: "spent".into() },
            Frame::Tips { channel, tips: vec![tip], last: true },
            Frame::Fork { channel, samples: vec![position(1), position(2)] },
            Frame::ForkPoint { channel, log: position(1).log, held: Some(position(1)) },
            Frame::ForkPoint { channel, log: position(1).log, held: None },
            Frame::Batch { channel, raw: 10, bytes: vec![1, 2] },
            Frame::Credit { channel, bytes: 5 },
            Frame::Level { channel, digest, busy: true },
            Frame::Want { channel, hashes: hashes.clone() },
            Frame::Blob { channel, hash: hashes[0], bytes: vec![3] },
            Frame::NoBlob { channel, hashes },
            Frame::Symbols { channel, from: 3, tips: 4, digest: [5; 32], symbols: vec![symbol; 2] },
            Frame::Ask { channel, what: Ask::Symbols },
            Frame::Ask { channel, what: Ask::Whole },
            Frame::Ask { channel, what: Ask::Named(vec![1, u64::MAX]) },
            Frame::Named { channel, tips: vec![tip] },
            Frame::Hold { channel, devices: vec![NodeId([2; 32])] },
            Frame::Resume { channel, devices: Vec::new() },
            Frame::Offer { channel, places: vec![position(1), position(2)] },
            Frame::Held { channel, places: vec![position(3)] },
            Frame::Bye { code: Code::Done, text: String::new() },
        ]
    }

    #[test]
    fn frames_round_trip() {
        for frame in samples() {
            assert_eq!(Frame::decode(&frame.encode()).unwrap(), frame);
        }
    }

    #[test]
    fn every_frame_has_one_encoding() {
        for frame in samples() {
            let bytes = frame.encode();
            for at in 0..bytes.len() {
                let mut other = bytes.clone();
                other[at] ^= 0x20;
                if let Ok(read) = Frame::decode(&other) {
                    assert_eq!(read.encode(), other);
                }
                assert!(Frame::decode(&bytes[..at]).is_err(), "cut at {at}");
            }
        }
    }

    #[test]
    fn long_sentences_are_cut_at_a_character() {
        let text = "ü".repeat(TEXT_BYTES);
        let frame = Frame::Bye { code: Code::Done, text };
        assert!(matches!(Frame::decode(&frame.encode()), Ok(Frame::Bye { .. })));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Frame::decode(&bytes);
        }
    }
}
