//! What members do who do not keep to the rules: frames that mean nothing, entries that lie about their past, heads that
//! nobody signed, and writes that name what they never saw. (Two entries at one place come from clones that do not know
//! that they are clones.)

use super::World;
use crate::check::Violation;
use anabranch_core::author::{Draft, Seen, Write};
use anabranch_core::codec::Writer;
use anabranch_core::entry::{Entry, Header, Payload, StoreId, Timestamp};
use anabranch_core::head::Head;
use anabranch_core::id::{EntryId, LogId, Position};
use anabranch_core::key::{DeviceKey, Signature};
use anabranch_core::membership::Grant;
use anabranch_core::ops::{
    CellOp, MemberOp, Role, Subject, TicketTerms, ValueName, encode_cells, encode_members,
};
use anabranch_core::path::Path;
use anabranch_core::run::Run;
use anabranch_sync::frame::Frame;
use fastrand::Rng;
use std::ops::ControlFlow;

/// What is wrong with an entry.
#[derive(Debug, Clone, Copy)]
enum Lie {
    Generation,
    Grant,
    Signature,
    Previous,
    Parent,
    Somebody,
    ForeignGrant,
    NoRight,
}

const LIES: [Lie; 8] = [
    Lie::Generation,
    Lie::Grant,
    Lie::Signature,
    Lie::Previous,
    Lie::Parent,
    Lie::Somebody,
    Lie::ForeignGrant,
    Lie::NoRight,
];

impl World<'_> {
    pub(super) fn play_trick(&mut self, node: usize, trick: u64) -> Result<(), Violation> {
        let mut random = Rng::with_seed(trick);
        if random.u32(..4) == 0 {
            return self.name_the_unseen(node, &mut random);
        }
        for (id, side) in self.sides_of(node) {
            let frame = match random.u32(..4) {
                0 => (0..random.usize(..200)).map(|_| random.u8(..)).collect(),
                _ => match self.lying_batch(node, &mut random) {
                    Some(frame) => frame,
                    None => continue,
                },
            };
            self.spoil(id);
            self.hand_over(id, 1 - side, &frame)?;
        }
        Ok(())
    }

    /// Commits a write that replaces values of logs and places that are anywhere or nowhere. It is admissible, and must
    /// mean the same to everybody.
    fn name_the_unseen(&mut self, node: usize, random: &mut Rng) -> Result<(), Violation> {
        let Some(replica) = self.nodes[node].replica.clone() else { return Ok(()) };
        // What others hold and this node perhaps does not, and what nobody does.
        let other = random.usize(..self.nodes.len());
        let mut names = Vec::new();
        let path = Path::text(["0", "0"]).unwrap_or_default();
        let store = StoreId::table("t0");
        for holder in &self.nodes {
            if let Ok(cell) = holder.look(|view| view.cell(&store, &path)) {
                names.extend(cell.iter().map(|value| value.name));
            }
        }
        let mut id16 = [0; 16];
        random.fill(&mut id16);
        let log = LogId { device: self.nodes[other].device.id(), epoch: random.u64(..) };
        names.push(ValueName { log, seq: random.u64(1..50), index: random.u32(..3), id16 });
        let write = Write {
            store,
            path,
            value: Some(id16.to_vec()),
            seen: Seen::Values(names),
            below: false,
            above: false,
        };
        let draft = Draft { writes: vec![write], ..Draft::default() };
        if let Ok(committed) = replica.commit_group(&[vec![draft]]) {
            self.acknowledge(node, committed)?;
        }
        self.settle_node(node)
    }

    /// A batch with one entry that no honest node would send, and that nobody may take.
    fn lying_batch(&mut self, node: usize, random: &mut Rng) -> Option<Vec<u8>> {
        let key = self.nodes[node].device.key().clone();
        let below = self.some_entry(node, random)?;
        let lie = LIES[random.usize(..LIES.len())];
        let grant = match lie {
            Lie::ForeignGrant => self.grant_of_another(node)?,
            _ => self.own_grant(node)?,
        };
        let (entry, signer) = craft(self, &below, &key, &grant, lie, random)?;
        let position = entry.position();
        self.forbidden.push(position);
        let run = sign(self, entry, &signer, &below);
        let mut body = Writer::new();
        run.encode(&mut body);
        let mut w = Writer::new();
        w.array(1).raw(&body.finish());
        let raw = w.finish();
        let bytes = zstd::bulk::compress(&raw, 1).ok()?;
        self.note("lies", node, &position.id.0, || format!("{lie:?} at {position:?}"));
        Some(Frame::Batch { channel: 0, raw: raw.len() as u32, bytes }.encode())
    }

    fn own_grant(&self, node: usize) -> Option<Grant> {
        let device = self.nodes[node].device.id();
        let grants = self.nodes[node].look(|view| view.grants()).ok()?;
        grants.into_iter().find(|grant| grant.subject == Subject::Device(device))
    }

    fn grant_of_another(&self, node: usize) -> Option<Grant> {
        let device = self.nodes[node].device.id();
        let grants = self.nodes[node].look(|view| view.grants()).ok()?;
        let other = |grant: &Grant| match grant.subject {
            Subject::Device(other) => other != device,
            _ => false,
        };
        grants.into_iter().find(other)
    }

    fn some_entry(&self, node: usize, random: &mut Rng) -> Option<Entry> {
        let replica = self.nodes[node].replica.as_ref()?;
        let skip = random.u64(..40);
        let mut last = None;
        let mut left = skip;
        replica
            .read(|view| {
                view.entries(1, &mut |_, entry| {
                    last = Some(entry);
                    if left == 0 {
                        return Ok(ControlFlow::Break(()));
                    }
                    left -= 1;
                    Ok(ControlFlow::Continue(()))
                })
            })
            .ok()?;
        last
    }
}

/// An entry in a log of its own on top of `below`, right but for one thing; and who signs it.
fn craft(
    world: &World<'_>,
    below: &Entry,
    key: &DeviceKey,
    grant: &Grant,
    lie: Lie,
    random: &mut Rng,
) -> Option<(Entry, DeviceKey)> {
    let mut log = LogId { device: key.node_id(), epoch: random.u64(..) };
    let mut header = Header {
        database: Some(world.database),
        log,
        seq: 1,
        prev: None,
        parents: vec![below.position()],
        generation: below.header().generation + 1,
        timestamp: Timestamp(u64::MAX / 4),
        grant: grant.id,
        payloads: Vec::new(),
        salt: None,
    };
    let mut signer = key.clone();
    let mut id = [0; 32];
    random.fill(&mut id);
    match lie {
        Lie::Generation => header.generation += random.u64(1..9),
        // The grant is wrong, or does not allow it.
        Lie::ForeignGrant | Lie::NoRight => {}
        Lie::Grant => header.grant.entry = EntryId(id),
        Lie::Signature => signer = DeviceKey::from_seed(&id),
        Lie::Previous => {
            header.seq = 2;
            header.prev = Some(EntryId(id));
        }
        Lie::Parent => header.parents[0].id = EntryId(id),
        Lie::Somebody => {
            let other = random.usize(..world.nodes.len());
            if world.nodes[other].device.id() == key.node_id() {
                return None;
            }
            log.device = world.nodes[other].device.id();
            header.log = log;
        }
    }
    if let Lie::NoRight = lie {
        // Nobody may let in somebody who ranks higher than himself, and most may let in nobody.
        let subject = Subject::Device(DeviceKey::from_seed(&id).node_id());
        let mut op = MemberOp::redeem(&signer, &world.database, &grant.id, &log);
        if random.bool() {
            op = MemberOp::Grant {
                subject,
                role: Role::Admin,
                priority: 0,
                terms: TicketTerms::default(),
            };
            if grant.role == Role::Admin {
                return None;
            }
        }
        let payload = Payload::Present(encode_members(&[op]));
        let entry = Entry::new(header, vec![(StoreId::members(), payload)]).ok()?;
        return Some((entry, signer));
    }
    let path = Path::text(["0", "0"]).ok()?;
    let op = CellOp { path, value: Some(b"a lie".to_vec()), replaces: Vec::new() };
    let payload = Payload::Present(encode_cells(&header.log, &[op]));
    let entry = Entry::new(header, vec![(StoreId::table("t0"), payload)]).ok()?;
    Some((entry, signer))
}

/// The run, with the true head of what it builds on where that is to be had.
fn sign(world: &World<'_>, entry: Entry, signer: &DeviceKey, below: &Entry) -> Run {
    let database = world.database;
    let signature = Head::sign(signer, &database, entry.position()).signature;
    let author = below.header().log.device;
    let key = world.nodes.iter().map(|n| n.device.key()).find(|key| key.node_id() == author);
    let head = |position: &Position| {
        key.map_or(Signature([0; 64]), |key| Head::sign(key, &database, *position).signature)
    };
    let parents = entry.header().parents.iter().map(head).collect();
    Run::new(database, vec![entry], signature, parents)
}
