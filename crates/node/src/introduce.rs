//! Introductions: on a link to a process that the user started over there (`host:path`, a pipe), both ends say what they
//! have before the session starts, and one hands the other a ticket if that one is new. The link is as trusted as the
//! account behind it; nothing of this happens on a link from a stranger.

use crate::error::NodeError;
use crate::replica::Replica;
use anabranch_core::codec::{DecodeError, Reader, Writer};
use anabranch_core::id::DatabaseId;
use anabranch_core::ticket::Ticket;
use anabranch_sync::frame::Code;
use anabranch_transport::secure::{Role, SecureLink};
use anabranch_transport::{LinkReceiver, LinkSender};

/// An encrypted link in its two halves.
#[derive(Debug)]
pub struct Wire {
    pub(crate) sender: LinkSender,
    pub(crate) receiver: LinkReceiver,
    pub(crate) binding: [u8; 32],
    pub(crate) initiator: bool,
}

impl From<SecureLink> for Wire {
    fn from(secure: SecureLink) -> Self {
        let (binding, initiator) = (secure.binding, secure.role == Role::Initiator);
        let (sender, receiver) = secure.link.split();
        Self { sender, receiver, binding, initiator }
    }
}

/// What one end has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Introduction {
    /// The database, if there is one already.
    pub database: Option<DatabaseId>,
    /// Whether this device is a member of it and needs no ticket.
    pub member: bool,
    /// Whether it is a folder, or is to be one.
    pub folder: bool,
    /// Why this end cannot go on; empty when it can.
    pub refusal: String,
}

const VERSION: u64 = 1;
const INTRODUCTION: u64 = 100;
const TICKET: u64 = 101;
const TEXT_BYTES: usize = 4096;

impl Wire {
    /// Says what is here.
    ///
    /// # Errors
    /// [`NodeError::Link`].
    pub async fn introduce(&mut self, mine: &Introduction) -> Result<(), NodeError> {
        let mut w = Writer::new();
        w.array(6)
            .u64(INTRODUCTION)
            .u64(VERSION)
            .bytes(mine.database.as_ref().map_or(&[][..], |d| &d.0));
        w.bool(mine.member).bool(mine.folder);
        let mut refusal = mine.refusal.clone();
        refusal.truncate(refusal.floor_char_boundary(TEXT_BYTES));
        w.text(&refusal);
        self.say(w.finish()).await
    }

    /// Hears what is there.
    ///
    /// # Errors
    /// [`NodeError::Link`], or [`NodeError::Session`] with what the other end says is wrong.
    pub async fn introduced(&mut self) -> Result<Introduction, NodeError> {
        let frame = self.hear().await?;
        let read = || {
            let mut r = Reader::new(&frame);
            let fields = r.array("introduction", 64)?;
            expect_kind(&mut r, INTRODUCTION)?;
            let version = r.u64("version")?;
            if version != VERSION || fields != 6 {
                let what = "an introduction";
                return Err(DecodeError::Version { what, found: version, supported: VERSION });
            }
            let at = r.position();
            let database = match r.bytes("database", 32)? {
                [] => None,
                bytes => Some(DatabaseId(
                    bytes
                        .try_into()
                        .map_err(|_| DecodeError::Malformed { what: "database", at })?,
                )),
            };
            let (member, folder) = (r.bool("member")?, r.bool("folder")?);
            let refusal = r.text("refusal", TEXT_BYTES)?.to_owned();
            r.finish()?;
            Ok::<_, DecodeError>(Introduction { database, member, folder, refusal })
        };
        let theirs = read().map_err(bad)?;
        if theirs.refusal.is_empty() {
            Ok(theirs)
        } else {
            let text = format!("the other side says: {}", theirs.refusal);
            Err(NodeError::Session { code: Code::NotServed, text, by_peer: true })
        }
    }

    /// Both ends introduce themselves as members of one database, as they are after their first sync.
    ///
    /// # Errors
    /// [`NodeError::Session`] when one of them is not.
    pub async fn introduce_member(&mut self, replica: &Replica) -> Result<(), NodeError> {
        let theirs = self.introduced().await?;
        let device = replica.device().id();
        let member = replica.look(|view| view.role_of(&device))?.is_some();
        let mut mine = Introduction {
            database: Some(replica.database()),
            member,
            folder: theirs.folder,
            refusal: String::new(),
        };
        if theirs.database != mine.database || !theirs.member || !member {
            mine.refusal = "the two sides are not members of one database yet".into();
        }
        self.introduce(&mine).await?;
        if mine.refusal.is_empty() {
            return Ok(());
        }
        let text = format!("{}; sync them once with 'anabranch sync HERE THERE'", mine.refusal);
        Err(NodeError::Session { code: Code::NotServed, text, by_peer: false })
    }

    /// Hands over a ticket.
    ///
    /// # Errors
    /// [`NodeError::Link`].
    pub async fn hand_over(&mut self, ticket: &Ticket) -> Result<(), NodeError> {
        let mut w = Writer::new();
        w.array(2).u64(TICKET).text(&ticket.to_string());
        self.say(w.finish()).await
    }

    /// Takes the ticket that the other end hands over.
    ///
    /// # Errors
    /// [`NodeError::Link`], [`NodeError::Ticket`].
    pub async fn take_over(&mut self) -> Result<Ticket, NodeError> {
        let frame = self.hear().await?;
        let read = || {
            let mut r = Reader::new(&frame);
            r.tuple("ticket", 2)?;
            expect_kind(&mut r, TICKET)?;
            let text = r.text("ticket", 65_536)?.to_owned();
            r.finish()?;
            Ok::<_, DecodeError>(text)
        };
        Ok(read().map_err(bad)?.parse()?)
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// [`NodeError::Link`].
    pub async fn say(&mut self, frame: Vec<u8>) -> Result<(), NodeError> {
        Ok(self.sender.send(frame).await?)
    }

    async fn hear(&mut self) -> Result<Vec<u8>, NodeError> {
        match self.receiver.recv().await? {
            Some(frame) => Ok(frame.to_vec()),
            None => Err(NodeError::Session {
                code: Code::Done,
                text: "the other side ended the connection without a word".into(),
                by_peer: true,
            }),
        }
    }
}

fn expect_kind(r: &mut Reader<'_>, kind: u64) -> Result<(), DecodeError> {
    let at = r.position();
    if r.u64("kind")? == kind { Ok(()) } else { Err(DecodeError::Malformed { what: "kind", at }) }
}

fn bad(error: DecodeError) -> NodeError {
    let text = format!("the other side introduced itself in a way that makes no sense: {error}");
    NodeError::Session { code: Code::Protocol, text, by_peer: false }
}
