//! `members`: who may do what, and who decided that.

use crate::args::{MembersArgs, MembersCommand, subject};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::table;
use crate::place::ticket;
use crate::replicas::{Opened, named};
use crate::units;
use anabranch::engine::core::entry::GrantRef;
use anabranch::engine::core::equivocation::{Equivocation, PROOF_BYTES, Proof};
use anabranch::engine::core::ops::Subject;
use anabranch::engine::node::{Record, Replica, Revoked, who};
use anabranch::{Leave, Member, NodeId, Role};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often it is said how far a command has come.
const EACH: Duration = Duration::from_secs(1);

/// Lists, grants, revokes, explains.
pub(crate) fn run(context: &Context, args: MembersArgs) -> Result<(), Failure> {
    let node = context.node()?;
    let record = named(&node, &args.replica)?;
    let replica = Arc::clone(Opened::new(&node, &record)?.replica());
    let seen = View { context, record: &record, replica: &replica, own: node.id() };
    match args.command.unwrap_or(MembersCommand::Ls { all: false }) {
        MembersCommand::Ls { all } => seen.list(all),
        MembersCommand::Grant { who, role, priority } => seen.grant(who, role.into(), priority),
        MembersCommand::Revoke { who, all } => seen.revoke(seen.whose(&who)?, all),
        MembersCommand::Rewrite => seen.rewrite(),
        MembersCommand::Recovery { file } => {
            let key = seen.replica.make_recovery(&file)?;
            let shown = file.display();
            let text = format!(
                "{shown} lets whoever has it become an admin of {}: keep it elsewhere",
                seen.record.name
            );
            let document = json!({ "name": seen.record.name, "key": key.to_string() });
            context.output.summary(&text, &document)
        }
        MembersCommand::Recover { file } => {
            seen.replica.recover(&file)?;
            let name = &seen.record.name;
            let text = format!(
                "this device is an admin of {name} now: 'anabranch members {name} revoke' puts a lost one out"
            );
            context.output.summary(&text, &json!({ "name": name, "role": Role::Admin.name() }))
        }
        MembersCommand::Proof { device, file } => seen.prove(&device, &file),
        MembersCommand::Why { device } => seen.why(&device),
    }
}

impl View<'_> {
    fn rewrite(&self) -> Result<(), Failure> {
        let name = &self.record.name;
        let output = self.context.output;
        let mut told = Instant::now();
        let done = self.replica.rewrite(&mut |done| {
            if told.elapsed() >= EACH {
                told = Instant::now();
                output
                    .note(&format!("{} so far", units::counted(done.entries, "entry", "entries")));
            }
        })?;
        let mut text = match done.entries {
            0 => format!("nothing of {name} was written again"),
            n => format!("wrote {} of {name} again", units::counted(n, "entry", "entries")),
        };
        if done.left > 0 {
            let entries = units::counted(done.left, "entry", "entries");
            text.push_str(&format!(
                "; of {entries} not all could be: changes of the membership, files of a folder and content that is gone are left as they are"
            ));
        }
        let document = json!({ "name": name, "entries": done.entries, "left": done.left });
        output.summary(&text, &document)
    }
}

struct View<'c> {
    context: &'c Context,
    record: &'c Record,
    replica: &'c Replica,
    own: NodeId,
}

impl View<'_> {
    fn list(&self, all: bool) -> Result<(), Failure> {
        let members = self.replica.members()?;
        let twice = self.replica.equivocators()?;
        let written = self.replica.look(|view| view.written())?;
        let shown = members.iter().filter(|member| all || member.grant.holds);
        let (mut rows, mut objects) = (Vec::new(), Vec::new());
        for member in shown {
            let mut row = self.row(member);
            let mut object = object(member);
            let forked = matches!(&member.grant.subject, Subject::Device(d) if twice.contains(d));
            if forked {
                row.push("wrote two histories of a log: see 'members proof'".to_owned());
            }
            object["equivocated"] = forked.into();
            if let Subject::Device(device) = &member.grant.subject {
                let written = written.get(device).copied().unwrap_or_default();
                let entries = units::counted(written.entries, "entry", "entries");
                let logs = units::counted(written.logs, "log", "logs");
                row.insert(
                    3,
                    if written.logs > 1 { format!("{entries} in {logs}") } else { entries },
                );
                (object["entries"], object["logs"]) = (written.entries.into(), written.logs.into());
            } else {
                row.insert(3, String::new());
            }
            rows.push(row);
            objects.push(object);
        }
        let document = json!({
            "name": self.record.name,
            "database": self.record.database.to_string(),
            "members": objects,
        });
        self.context.output.answer(&table(&rows), &document)
    }

    fn row(&self, member: &Member) -> Vec<String> {
        let grant = &member.grant;
        let own = grant.subject == Subject::Device(self.own);
        let whom = who(&grant.subject) + if own { " (this device)" } else { "" };
        let state = match (&grant.subject, &member.ended[..]) {
            (_, [ended, ..]) if ended.by == self.own => "revoked by this device".to_owned(),
            (_, [ended, ..]) => format!("revoked by {}", ended.by.short()),
            _ if !grant.holds => "does not count".to_owned(),
            (Subject::Ticket(_), _) => used(member),
            (Subject::Person(_), _) => {
                format!(
                    "{} so far",
                    units::counted(u64::from(member.redeemed), "device", "devices")
                )
            }
            _ if grant.depth == 0 => "founder".to_owned(),
            _ => format!("by {}", grant.by.short()),
        };
        vec![whom, grant.role.name().to_owned(), format!("rank {}", grant.priority), state]
    }

    fn grant(&self, subject: Subject, role: Role, priority: Option<u32>) -> Result<(), Failure> {
        let new = self.replica.grant(subject, role, priority)?;
        let (whom, name) = (who(&subject), &self.record.name);
        let text = match new {
            true => format!("{whom} may {} {name}", may(role)),
            false => format!("{whom} may {} {name} already", may(role)),
        };
        let document = json!({
            "name": name,
            "database": self.record.database.to_string(),
            "who": whom,
            "role": role.name(),
            "changed": new,
        });
        self.context.output.summary(&text, &document)
    }

    fn revoke(&self, subject: Subject, all: bool) -> Result<(), Failure> {
        let leave = if all { Leave::Nothing } else { Leave::Held };
        let Revoked { rights, tickets, made } = self.replica.revoke(subject, leave)?;
        let (whom, name) = (who(&subject), &self.record.name);
        let ended = units::counted(rights as u64, "right", "rights");
        let kept = match (subject, all) {
            (_, true) => "nothing that was written with it counts",
            (Subject::Ticket(_), _) => "who came in by it stays",
            _ => "what it wrote so far stays",
        };
        let mut text = format!("{ended} of {whom} to {name} revoked; {kept}");
        if tickets > 0 {
            let closed = units::counted(tickets as u64, "ticket", "tickets");
            text.push_str(&format!(
                "\n{closed} of it closed: 'anabranch ticket {name}' makes a new one for others"
            ));
        }
        if made > 0 {
            let others = units::counted(made as u64, "grant", "grants");
            text.push_str(&format!(
                "\n{others} that it made to others still hold: 'anabranch members {name}' lists them"
            ));
        }
        let open = self
            .replica
            .members()?
            .iter()
            .any(|member| member.grant.holds && member.grant.subject == Subject::Anyone);
        if open && subject != Subject::Anyone {
            text.push_str(&format!(
                "\nit may still do what anyone may: 'anabranch members {name} revoke anyone' ends that"
            ));
        }
        let document = json!({
            "name": name,
            "database": self.record.database.to_string(),
            "who": whom,
            "revoked": rights,
            "tickets": tickets,
            "made": made,
        });
        self.context.output.summary(&text, &document)
    }

    /// Whose rights are meant: a device, everybody, or a ticket by its text or the name that the list shows.
    fn whose(&self, text: &str) -> Result<Subject, Failure> {
        if text == "-" || text.starts_with(['@']) || text.starts_with("ticket_") {
            return Ok(Subject::Ticket(ticket(text)?.key.node_id()));
        }
        let subject = subject(text).map_err(Failure::usage)?;
        let Subject::Device(key) = subject else { return Ok(subject) };
        let ticket = Subject::Ticket(key);
        let members = self.replica.members()?;
        let is_ticket = members.iter().any(|member| member.grant.subject == ticket);
        Ok(if is_ticket { ticket } else { subject })
    }

    fn prove(&self, device: &NodeId, file: &Path) -> Result<(), Failure> {
        let Some(proof) = self.replica.equivocation(device)? else {
            return Err(Failure::failed(format!(
                "{device} wrote one history of each of its logs, as far as is known here"
            )));
        };
        let written = File::create_new(file).and_then(|mut to| to.write_all(&proof.encode()));
        let shown = file.display();
        written.map_err(|e| {
            Failure::failed(format!("the proof could not be written to {shown}")).because(&e)
        })?;
        let found = proof.verify().map_err(|e| Failure::failed(e.to_string()))?;
        let text =
            format!("{shown} proves it: 'anabranch verify-proof {shown}' checks that anywhere");
        self.context.output.summary(&text, &proven(&found))
    }

    fn why(&self, device: &NodeId) -> Result<(), Failure> {
        let members = self.replica.members()?;
        let own = members.iter().filter(|m| m.grant.subject == Subject::Device(*device));
        let (mut lines, mut chains) = (Vec::new(), Vec::new());
        for member in own {
            let mut chain = vec![member];
            while let Some(last) = chain.last().filter(|last| last.grant.depth > 0)
                && let Some(above) = members.iter().find(|m| m.grant.id == last.grant.used)
                && above.grant.depth < last.grant.depth
            {
                chain.push(above);
            }
            for (depth, member) in chain.iter().enumerate() {
                lines.push(format!("{}{}", "  ".repeat(depth), self.row(member).join("  ")));
            }
            chains.push(chain.into_iter().map(object).collect::<Vec<_>>());
        }
        if chains.is_empty() {
            return Err(Failure::from(anabranch::NodeError::NoMember(device.to_string())));
        }
        let document = json!({
            "name": self.record.name,
            "database": self.record.database.to_string(),
            "device": device.to_string(),
            "grants": chains,
        });
        self.context.output.answer(&lines.join("\n"), &document)
    }
}

/// Checks a proof that needs no database.
pub(crate) fn verify_proof(context: &Context, file: &Path) -> Result<(), Failure> {
    let mut bytes = Vec::new();
    let read =
        File::open(file).and_then(|from| from.take(PROOF_BYTES as u64 + 1).read_to_end(&mut bytes));
    read.map_err(|e| {
        Failure::failed(format!("the proof {} could not be read", file.display())).because(&e)
    })?;
    let found = Proof::decode(&bytes).and_then(Proof::verify);
    let found = found.map_err(|e| Failure::failed(e.to_string()))?;
    let [a, b] = found.entries;
    let text = format!(
        "{} signed two entries for place {} of one log of {}:\n  {a}\n  {b}",
        found.log.device, found.seq, found.database
    );
    context.output.answer(&text, &proven(&found))
}

fn proven(found: &Equivocation) -> Value {
    json!({
        "device": found.log.device.to_string(),
        "database": found.database.to_string(),
        "epoch": found.log.epoch,
        "sequence": found.seq,
        "entries": found.entries.map(|id| id.to_string()),
    })
}

fn may(role: Role) -> &'static str {
    match role {
        Role::Relay => "relay",
        Role::Read => "read",
        Role::Write => "write to",
        Role::Admin => "administer",
    }
}

fn used(member: &Member) -> String {
    let terms = member.grant.terms;
    let limit = terms.limit.map_or_else(String::new, |limit| format!(" of {limit}"));
    let times = format!("used {}{limit} times", member.redeemed);
    match terms.expires {
        Some(end) if end <= units::now() => format!("{times}, over"),
        Some(end) => format!("{times}, until {}", anabranch_api::date(end)),
        None => times,
    }
}

fn object(member: &Member) -> Value {
    let grant = &member.grant;
    let kind = match grant.subject {
        Subject::Device(_) => "device",
        Subject::Anyone => "anyone",
        Subject::Ticket(_) => "ticket",
        Subject::Person(_) => "person",
    };
    let id = |grant: &GrantRef| format!("{}/{}", grant.entry, grant.index);
    json!({
        "kind": kind,
        "who": who(&grant.subject),
        "role": grant.role.name(),
        "priority": grant.priority,
        "depth": grant.depth,
        "grant": id(&grant.id),
        "by": grant.by.to_string(),
        "with": id(&grant.used),
        "holds": grant.holds,
        "revoked": member.ended.iter().map(|ended| json!({
            "by": ended.by.to_string(),
            "entry": ended.position.id.to_string(),
        })).collect::<Vec<_>>(),
        "limit": grant.terms.limit,
        "expires": grant.terms.expires.map(anabranch_api::date),
        "redeemed": member.redeemed,
    })
}
