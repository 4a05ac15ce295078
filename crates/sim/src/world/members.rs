//! Rights that change while the simulation runs, and what is asked of those who have none any more.

use super::{SECOND, World, setup_failed};
use crate::check::{Check, Violation};
use crate::node::Node;
use crate::plan::Ruling;
use anabranch_core::author::{Draft, Seen, Write};
use anabranch_core::entry::{Payload, StoreId};
use anabranch_core::id::{NodeId, Position};
use anabranch_core::ledger::Ledger;
use anabranch_core::membership::{Grant, TicketState};
use anabranch_core::ops::{Cut, MemberOp, Role, Subject, TicketTerms};
use anabranch_core::path::Path;
use anabranch_core::seal::Ring;
use anabranch_core::storage::{Durability, Order, Storage, StorageError, Table};
use anabranch_core::view::View;
use std::collections::BTreeSet;
use std::ops::ControlFlow;

/// How often who has no right any more is still tried by others, or tries others, once everything has healed.
const TRIES: u32 = 3;

impl World<'_> {
    pub(super) fn rule(&mut self, node: usize, ruling: &Ruling) -> Result<(), Violation> {
        let Some(replica) = self.nodes[node].replica.clone() else {
            self.stats.refused += 1;
            return Ok(());
        };
        let own = self.nodes[node].device.id();
        let seen =
            replica.look(|view| Ok::<_, StorageError>((view.grants()?, view.grant_of(&own)?)));
        let Ok((grants, own)) = seen else {
            return Ok(());
        };
        let last = |subject: Subject| {
            grants.iter().rfind(|grant| grant.subject == subject && grant.holds).map(|g| g.id)
        };
        let device = |whom: usize| Subject::Device(self.nodes[whom].device.id());
        let revoke = |grant, cut| MemberOp::Revoke { grant, cut };
        let priority = own.as_ref().map_or(0, |grant: &Grant| grant.priority);
        let grant = |subject, role, below: u8| {
            let (priority, terms) = (priority + u32::from(below), TicketTerms::default());
            MemberOp::Grant { subject, role, priority, terms }
        };
        let op = match *ruling {
            Ruling::Grant { whom, role, below } => Some(grant(device(whom), role, below)),
            Ruling::Revoke { whom, all } => {
                let cut = if all { Cut::Tips(Vec::new()) } else { Cut::Past };
                last(device(whom)).map(|id| revoke(id, cut))
            }
            Ruling::Resign => own.map(|grant| revoke(grant.id, Cut::Past)),
            Ruling::Open => Some(grant(Subject::Anyone, Role::Write, 1)),
            Ruling::Close => last(Subject::Anyone).map(|id| revoke(id, Cut::Past)),
        };
        let Some(op) = op else { return Ok(()) };
        let draft = Draft { members: vec![op], ..Draft::default() };
        if let Ok(committed) = replica.commit_group(&[vec![draft]]) {
            self.acknowledge(node, committed)?;
        }
        self.settle_node(node)
    }

    /// Everybody is reached by the founder, whatever became of those between them.
    pub(super) fn heal_members(&mut self) {
        if !self.plan.rules() {
            return;
        }
        for node in 1..self.nodes.len() {
            if !self.nodes[node].stranger {
                self.add_line(node, 0, SECOND);
            }
        }
    }

    /// Who has no right any more, as far as the founder knows.
    pub(super) fn note_outsiders(&mut self) -> Result<(), Violation> {
        if !self.plan.rules() || !self.healed {
            return Ok(());
        }
        let found = self.nodes[0].look(|view| {
            let mut outside = BTreeSet::new();
            for (number, node) in self.nodes.iter().enumerate() {
                if !node.stranger && view.role_of(&node.device.id())?.is_none() {
                    outside.insert(number);
                }
            }
            Ok(outside)
        });
        let outside = found.map_err(setup_failed)?;
        if outside == self.outside {
            return Ok(());
        }
        self.outside = outside;
        self.tries.clear();
        for line in 0..self.edges.len() {
            if self.edges[line].declared() && self.edges[line].idle() {
                self.try_soon(line, SECOND);
            }
        }
        Ok(())
    }

    /// Whether a line leads to or from somebody without a right, and has been tried often enough.
    pub(super) fn is_in_vain(&mut self, line: usize) -> bool {
        let [from, to] = self.edges[line].ends();
        if !self.healed || !(self.outside.contains(&from) || self.outside.contains(&to)) {
            return false;
        }
        let tries = self.tries.entry(line).or_default();
        *tries += 1;
        *tries > TRIES
    }

    /// Nobody was told of what ended its right, if it had one grant and never another, and nothing about that is in doubt.
    pub(super) fn judge_outsiders(&self) -> Result<(), Violation> {
        for number in &self.outside {
            let Some(ended) = self.nodes[0].undisputed_end(&self.nodes[*number].device.id())?
            else {
                continue;
            };
            if self.has_a_ticket(*number)? {
                continue;
            }
            if self.told(*number, &ended)? && self.all_agree(*number, &ended)? {
                let text = format!("node {number} was told that its right is revoked, and more");
                return Err(Check::Secret.failed(text));
            }
        }
        Ok(())
    }

    /// What is written next to a sealed database is sealed with a key that nobody knows whose right has ended: with all that the
    /// founder holds, and the keys that it had.
    pub(super) fn judge_sealed(&self) -> Result<(), Violation> {
        let founder = &self.nodes[0];
        let Some(replica) = founder.replica.as_ref().filter(|_| self.plan.sealed) else {
            return Ok(());
        };
        let write = Write {
            store: StoreId::table("after"),
            path: Path::text(["all", "this"]).map_err(|e| Check::Secret.failed(e.to_string()))?,
            value: Some(b"for members".to_vec()),
            seen: Seen::AtCommit,
            below: false,
            above: false,
        };
        let draft = Draft { writes: vec![write], ..Draft::default() };
        let committed = replica.commit_group(&[vec![draft]]).ok();
        let entry = committed.and_then(|mut group| group.pop()).and_then(Result::ok);
        let Some(Some(entry)) = entry.and_then(|mut entries| entries.pop()) else { return Ok(()) };
        for number in &self.outside {
            let node = &self.nodes[*number];
            if founder.undisputed_end(&node.device.id())?.is_none() {
                continue;
            }
            let ring = keys_of(founder, node).map_err(setup_failed)?;
            let opens = |(store, payload): (&StoreId, &Payload)| {
                let bytes = payload.bytes().unwrap_or_default();
                ring.open(&entry.header().log, store, bytes).is_ok()
            };
            if entry.payloads().any(opens) {
                let text =
                    format!("node {number} could read what was written after it was put out");
                return Err(Check::Secret.failed(text));
            }
        }
        Ok(())
    }

    /// Whether a node has a ticket that lets it in whatever became of its grant: it had one before it came to use that.
    fn has_a_ticket(&self, number: usize) -> Result<bool, Violation> {
        let Some(ticket) = self.tickets.get(&number) else { return Ok(false) };
        let device = self.nodes[number].device.id();
        let now = self.nodes[0].device.now();
        let state = self.nodes[0].look(|view| view.ticket_state(&ticket.node_id(), &device, now));
        state.map(TicketState::admits).map_err(setup_failed)
    }

    fn told(&self, number: usize, ended: &[Position]) -> Result<bool, Violation> {
        let held = self.nodes[number].look(|view| {
            ended.iter().try_fold(false, |held, position| Ok(held || view.holds(position)?))
        });
        held.map_err(setup_failed)
    }

    /// Whether nobody who knew how the right of node `number` ended saw any other: what somebody put out wrote afterwards, the
    /// founder does not take, while others told the device by it without knowing better.
    fn all_agree(&self, number: usize, ended: &[Position]) -> Result<bool, Violation> {
        let device = self.nodes[number].device.id();
        for (other, node) in self.nodes.iter().enumerate() {
            if self.told(other, ended)? && node.undisputed_end(&device)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The keys that a device has with its own storage and with another one's.
fn keys_of(storage: &Node, device: &Node) -> Result<Ring, StorageError> {
    const HELD: &[u8] = b"seal/key/";
    let rows = |node: &Node| {
        let content = node.disk.content();
        let tx = content.read()?;
        let mut rows = Vec::new();
        tx.scan(Table::Local, HELD, None, Order::Ascending, &mut |key, row| {
            if !key.starts_with(HELD) {
                return ControlFlow::Break(());
            }
            rows.push((key.to_vec(), row.to_vec()));
            ControlFlow::Continue(())
        })?;
        Ok::<_, StorageError>(rows)
    };
    let content = storage.disk.content();
    let mut tx = content.write(Durability::Normal)?;
    for (key, _) in rows(storage)? {
        tx.delete(Table::Local, &key)?;
    }
    for (key, row) in rows(device)? {
        tx.put(Table::Local, &key, &row)?;
    }
    let mut ledger = Ledger::open(&mut *tx)?;
    ledger.unlock(device.device.key())?;
    ledger.finish()?;
    View::new(&*tx).ring()
}

impl Node {
    /// What ended the right of a device, as this node sees it, if there was one grant, and neither another nor a revocation
    /// that does not count.
    fn undisputed_end(&self, device: &NodeId) -> Result<Option<Vec<Position>>, Violation> {
        let seen = self.look(|view| Ok((view.grants()?, view.revocations()?)));
        let (grants, revocations) = seen.map_err(setup_failed)?;
        let open = grants.iter().any(|grant| grant.subject == Subject::Anyone);
        if open || revocations.iter().any(|revocation| !revocation.counts) {
            return Ok(None);
        }
        let own: Vec<_> =
            grants.iter().filter(|grant| grant.subject == Subject::Device(*device)).collect();
        let [grant] = own[..] else { return Ok(None) };
        let ended = revocations.iter().filter(|r| r.grant == grant.id && r.by != *device);
        Ok(Some(ended.map(|revocation| revocation.position).collect()))
    }
}
