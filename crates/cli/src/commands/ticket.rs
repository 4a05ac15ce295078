//! `ticket`: one line that lets other devices in.

use crate::args::{RoleArg, TicketArgs};
use crate::context::Context;
use crate::failure::Failure;
use crate::place::{Place, no_database, resolve};
use crate::replicas::Opened;
use crate::units;
use anabranch::engine::core::founding::Founding;
use anabranch::engine::node::{Offer, Record, Replica};
use anabranch::engine::transport::Address;
use anabranch::{Node, Role, Sealed, Ticket, Timestamp};
use anabranch_folder::Folder;
use serde_json::json;
use std::time::Duration;

/// Prints a ticket.
pub(crate) async fn run(context: &Context, args: &TicketArgs) -> Result<(), Failure> {
    let node = context.node()?;
    let record = shareable(&node, &args.replica, args.sealed)?;
    let mut addresses = Vec::new();
    let given = if args.address.is_empty() {
        std::slice::from_ref(&node.inner().settings().ticket_address)
    } else {
        &args.address[..]
    };
    for text in given {
        addresses.push(Address::parse(text).map_err(|e| Failure::usage(e.to_string()))?);
    }
    let wish = Wish { role: args.role, expires: args.expires, once: args.once };
    let made = make(&node, &record, &addresses, &wish).await?;
    made.caution(context, "use --address with one that the others can reach");
    context.output.answer(&made.ticket.to_string(), &made.object())
}

/// Whether all of it is sealed.
fn is_sealed(replica: &Replica) -> Result<bool, Failure> {
    Ok(replica.sealed()? == Some(&Sealed::Everything))
}

/// The replica that `text` names, to be let in to. A folder that is none yet becomes one, `sealed` or not.
pub(crate) fn shareable(node: &Node, text: &str, sealed: bool) -> Result<Record, Failure> {
    let not_sealed = |what: &str| {
        Failure::usage(format!("{what} is a replica already, and not sealed as a whole"))
            .hint("what is shared is sealed from its beginning or never; make a new one")
    };
    match resolve(node, text)? {
        Place::Database(record) => {
            if sealed && !is_sealed(Opened::new(node, &record)?.replica())? {
                return Err(not_sealed(&record.name));
            }
            Ok(record)
        }
        Place::Folder(path) => {
            if !path.is_dir() {
                return Err(Failure::usage(format!("{} is not a folder", path.display())));
            }
            if !Folder::is_adopted(&path) {
                let sealed = if sealed { Sealed::Everything } else { Sealed::Nothing };
                let founding = Founding { sealed, recovery: None };
                Folder::adopt_with(node.inner(), &path, founding)?;
            } else if sealed && !is_sealed(Folder::open(node.inner(), &path)?.replica())? {
                return Err(not_sealed(&path.display().to_string()));
            }
            crate::replicas::folder_record(node, &path)
        }
        Place::New(name) => Err(no_database(&name)),
        Place::Ticket(_) | Place::Remote(_) => {
            Err(Failure::usage("only a replica of this device can be shared")
                .hint("name a database, as 'anabranch db ls' lists them"))
        }
    }
}

/// What a ticket is to offer.
pub(crate) struct Wish {
    /// What whoever has it may do.
    pub(crate) role: RoleArg,
    /// How long it can be used, if not as configured.
    pub(crate) expires: Option<Duration>,
    /// Whether it is for one device.
    pub(crate) once: bool,
}

/// A ticket that was made.
pub(crate) struct Made {
    /// The ticket.
    pub(crate) ticket: Ticket,
    addresses: Vec<Address>,
    role: Role,
    once: bool,
    expires: Timestamp,
}

/// Makes a ticket for `record`.
pub(crate) async fn make(
    node: &Node,
    record: &Record,
    addresses: &[Address],
    wish: &Wish,
) -> Result<Made, Failure> {
    let opened = Opened::new(node, record)?;
    let lifetime = wish.expires.unwrap_or(node.inner().settings().ticket_expires);
    let offer = Offer {
        role: wish.role.into(),
        addresses: addresses.iter().map(Address::to_string).collect(),
        limit: wish.once.then_some(1),
        expires: Some(lifetime),
        folder: record.folder,
        name: record.name.clone(),
    };
    let ticket = node.inner().ticket(opened.replica(), &offer).await?;
    let micros = u64::try_from(lifetime.as_micros()).unwrap_or(u64::MAX);
    Ok(Made {
        ticket,
        addresses: addresses.to_vec(),
        role: offer.role,
        once: wish.once,
        expires: Timestamp(units::now().0.saturating_add(micros)),
    })
}

impl Made {
    /// Says on standard error what its owner must know.
    pub(crate) fn caution(&self, context: &Context, instead: &str) {
        let who = if self.once { "the first device that has" } else { "whoever has" };
        context.output.note(&format!(
            "{who} this ticket is let in to {} until {}: treat it like a password",
            self.role.name(),
            anabranch_api::date(self.expires),
        ));
        for address in self.addresses.iter().filter(|a| a.is_loopback()) {
            context.output.warn(&format!(
                "the ticket names {address}, which only this machine can reach; {instead}"
            ));
        }
    }

    /// For programs.
    pub(crate) fn object(&self) -> serde_json::Value {
        json!({
            "ticket": self.ticket.to_string(),
            "database": self.ticket.database.to_string(),
            "role": self.role.name(),
            "addresses": self.ticket.addresses,
            "once": self.once,
            "expires": anabranch_api::date(self.expires),
        })
    }
}
