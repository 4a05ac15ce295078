//! Blobs while a plan is played: deeds in steps, and what must hold of content in the end.

use super::intents::Line;
use super::{Event, World};
use crate::blobs::{BlobDeed, Doing, READS, content, store};
use crate::check::{Check, Violation};
use crate::clock::{SECOND, Time};
use crate::node::Node;
use anabranch_core::author::{Draft, Seen, Write};
use anabranch_core::blob::{ChunkHash, ContentRef, Step, WalkError, Walker, content_of};
use anabranch_core::path::Path;
use anabranch_core::seal;
use anabranch_core::storage::{Order, ReadTx, Storage, StorageError, Table};
use anabranch_core::view::View;
use anabranch_node::{Keep, NodeError, Replica};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Names that a collection marks at once: mostly so few that it takes several passes.
fn marks(takes: Time) -> usize {
    if takes.is_multiple_of(3) { 1_000 } else { 5 }
}

fn path(name: u8) -> Result<Path, NodeError> {
    Path::text([name.to_string().as_str()])
        .map_err(|e| anabranch_core::error::Error::from(e).into())
}

impl World<'_> {
    /// Begins what a user does.
    pub(super) fn begin_blob(&mut self, node: usize, deed: &BlobDeed) -> Result<(), Violation> {
        let Some(replica) = self.nodes[node].replica.clone() else {
            self.stats.refused += 1;
            return Ok(());
        };
        match self.try_begin(node, &replica, deed) {
            Ok(Some((doing, takes))) => {
                let site = &mut self.nodes[node];
                site.deeds += 1;
                let (deed, generation) = (site.deeds, site.generation);
                site.doing.insert(deed, doing);
                self.after(takes, Event::Blob { node, generation, deed });
            }
            Ok(None) => {}
            Err(e) => self.refuse_blob(node, &e)?,
        }
        self.settle_node(node)
    }

    /// Disks that are full or dead refuse, and so does whoever finds another at work; nothing else may.
    fn refuse_blob(&mut self, node: usize, error: &NodeError) -> Result<(), Violation> {
        use anabranch_core::error::Error;
        self.stats.refused += 1;
        let line = error.to_string();
        self.note("refused", node, &[], || line.clone());
        let allowed = match error {
            NodeError::Core(
                Error::NotPermitted { .. } | Error::Empty | Error::Storage(StorageError::Full),
            ) => true,
            NodeError::Setting(_) => true,
            // A put that a clock's jump made seem dead.
            NodeError::Core(Error::Storage(StorageError::Io(_))) => true,
            NodeError::Core(Error::Storage(StorageError::NoKey)) => self.plan.sealed,
            _ => false,
        };
        if allowed || self.nodes[node].rotten || self.nodes[node].disk.is_dead() {
            return Ok(());
        }
        Err(Check::Blamed.failed(format!("node {node} could not work on blobs: {line}")))
    }

    fn try_begin(
        &mut self,
        node: usize,
        replica: &Arc<Replica>,
        deed: &BlobDeed,
    ) -> Result<Option<(Doing, Time)>, NodeError> {
        let name = store().name;
        Ok(match deed {
            BlobDeed::Put { name, content: number, takes } => {
                let mut put = Box::new(replica.put_content(&store())?);
                put.write(&content(*number))?;
                Some((Doing::Put { put, name: *name }, *takes))
            }
            BlobDeed::Remove { name } => {
                let write = Write {
                    store: store(),
                    path: path(*name)?,
                    value: None,
                    seen: Seen::AtCommit,
                    below: false,
                    above: false,
                };
                let draft = Draft { writes: vec![write], ..Draft::default() };
                let committed = replica.commit_group(&[vec![draft]])?;
                // What a rotten node cannot do is not looked at here.
                let _ = self.acknowledge(node, committed);
                None
            }
            BlobDeed::Collect { takes } => {
                let collection = replica.collect(marks(*takes))?;
                Some((Doing::Collection { collection, marked: false, takes: *takes }, *takes))
            }
            BlobDeed::Evict { name: one, takes } => {
                let path = one.map(path).transpose()?;
                let collection = replica.evict(&name, path.as_ref(), marks(*takes))?;
                Some((Doing::Collection { collection, marked: false, takes: *takes }, *takes))
            }
            BlobDeed::Read { name, from } => {
                let path = path(*name)?;
                let cell = replica.read(|view| view.cell(&store(), &path))?;
                let content = cell.first().and_then(|value| content_of(&value.value));
                content.map(|content| {
                    let reader = replica.reader(&store(), content, std::time::Duration::ZERO);
                    let from = content.size() / 16 * u64::from(*from);
                    (Doing::Read { reader, from, left: READS }, 0)
                })
            }
            BlobDeed::Keep { lazy } => {
                replica.set_keep(None, if *lazy { Keep::Lazy } else { Keep::Eager })?;
                None
            }
        })
    }

    /// The next step of a deed.
    pub(super) fn go_on_blob(
        &mut self,
        node: usize,
        generation: u64,
        deed: u64,
    ) -> Result<(), Violation> {
        let site = &mut self.nodes[node];
        if site.generation != generation || site.replica.is_none() {
            return Ok(());
        }
        let Some(doing) = site.doing.remove(&deed) else { return Ok(()) };
        let named = match &doing {
            Doing::Put { name, .. } => Some(*name),
            _ => None,
        };
        match self.try_go_on(node, doing) {
            Ok(Some((doing, takes))) => {
                self.nodes[node].doing.insert(deed, doing);
                self.after(takes, Event::Blob { node, generation, deed });
            }
            Ok(None) => named.map_or(Ok(()), |name| self.judge_put(node, name))?,
            Err(e) => self.refuse_blob(node, &e)?,
        }
        self.settle_node(node)
    }

    /// What was just put in is here, and all of it.
    fn judge_put(&self, node: usize, name: u8) -> Result<(), Violation> {
        let failed = |e: &dyn std::fmt::Display| Check::Sound.failed(e.to_string());
        if self.nodes[node].rotten || self.nodes[node].disk.is_dead() {
            return Ok(());
        }
        let content = self.nodes[node].content().map_err(|e| failed(&e))?;
        let tx = content.read().map_err(|e| failed(&e))?;
        let path = path(name).map_err(|e| failed(&e))?;
        let values = View::new(&*tx).cell(&store(), &path).map_err(|e| failed(&e))?;
        let own = values.iter().find(|v| v.name.log.device == self.nodes[node].device.id());
        let put = own.and_then(|value| content_of(&value.value));
        let lacking = kept(&*tx, put).and_then(|put| lacking_of(&*tx, put));
        let lacking = lacking.map_err(|e| failed(&e))?;
        match lacking.first() {
            None => Ok(()),
            Some(hash) => {
                let text = format!("node {node} put in what it has not: {hash:?}");
                Err(Check::Contents.failed(text))
            }
        }
    }

    fn try_go_on(&mut self, node: usize, doing: Doing) -> Result<Option<(Doing, Time)>, NodeError> {
        match doing {
            Doing::Put { put, name } => {
                let (entry, _) = put.finish(&path(name)?, Seen::AtCommit, "")?;
                let _ = self.acknowledge(node, vec![Ok(vec![entry])]);
                Ok(None)
            }
            Doing::Collection { mut collection, marked, takes } => {
                let marked = if marked { collection.sweep()? } else { collection.mark()? };
                let more = marked || !collection.is_done();
                if more {
                    return Ok(Some((Doing::Collection { collection, marked, takes }, takes)));
                }
                let done = collection.end()?;
                self.note("collected", node, &done.blobs.to_le_bytes(), || format!("{done:?}"));
                Ok(None)
            }
            Doing::Read { reader, from, left } => {
                let here = reader.ask(from..u64::MAX)?;
                let more = !here && left > 0;
                Ok(more.then_some((
                    Doing::Read { reader, from, left: left.saturating_sub(1) },
                    SECOND,
                )))
            }
        }
    }

    /// All content is where it should be, and what it should be.
    pub(super) fn judge_contents(&self) -> Result<(), Violation> {
        if !self.plan.steps.iter().any(|step| matches!(step.act, crate::plan::Act::Blob { .. })) {
            return Ok(());
        }
        let failed = |e: &dyn std::fmt::Display| Check::Sound.failed(e.to_string());
        let mut contents = Vec::new();
        for node in &self.nodes {
            contents.push(node.content().map_err(|e| failed(&e))?);
        }
        let holds = |number: usize, hash: &ChunkHash| {
            contents[number].read().and_then(|tx| tx.has(Table::Blob, &hash.0)).unwrap_or(false)
        };
        let neighbours = |number: usize| {
            let ends = self.edges.iter().filter(|line| line.is_declared()).map(Line::ends);
            let others = ends.flat_map(move |[a, b]| match (a == number, b == number) {
                (true, _) => Some(b),
                (_, true) => Some(a),
                _ => None,
            });
            others.filter(|other| !self.nodes[*other].stranger).collect::<BTreeSet<usize>>()
        };
        for (number, node) in self.nodes.iter().enumerate().filter(|(_, node)| !node.stranger) {
            let tx = contents[number].read().map_err(|e| failed(&e))?;
            judge_names(number, &*tx).map_err(|e| failed(&e))??;
            let live = live(&*tx).and_then(|named| lacking_of(&*tx, named));
            let closed = closed(&*tx).and_then(|named| lacking_of(&*tx, named));
            let (live, closed) = (live.map_err(|e| failed(&e))?, closed.map_err(|e| failed(&e))?);
            judge_sealed(number, node.relay, &*tx).map_err(|e| failed(&e))??;
            let eager = is_eager(node).map_err(|e| failed(&e))?;
            for hash in live.union(&closed) {
                let holders: Vec<usize> = (0..contents.len()).filter(|n| holds(*n, hash)).collect();
                let restored = self.nodes.iter().any(|node| node.copied);
                if holders.is_empty() && !restored && live.contains(hash) {
                    let text = format!("{hash:?} of a live value is nowhere any more");
                    return Err(Check::Contents.failed(text));
                }
                let near = neighbours(number).into_iter().find(|other| holders.contains(other));
                if let Some(other) = near.filter(|_| eager) {
                    let text =
                        format!("{hash:?} is on node {other} and never came to node {number}");
                    return Err(Check::Contents.failed(text));
                }
            }
        }
        Ok(())
    }
}

fn is_eager(node: &Node) -> Result<bool, StorageError> {
    match &node.replica {
        Some(replica) => Ok(replica.keep(Some(&store().name))? == Keep::Eager),
        None => Ok(false),
    }
}

/// Every blob is what its name says.
fn judge_names(number: usize, tx: &dyn ReadTx) -> Result<Result<(), Violation>, StorageError> {
    let mut wrong = None;
    tx.scan(Table::Blob, &[], None, Order::Ascending, &mut |key, bytes| {
        if ChunkHash::of(bytes).0[..] == *key {
            return ControlFlow::Continue(());
        }
        wrong = Some(format!("something else is stored under a name on node {number}"));
        ControlFlow::Break(())
    })?;
    Ok(wrong.map_or(Ok(()), |text| Err(Check::Blobs.failed(text))))
}

/// What live values name, those in conflict as well.
fn live(tx: &dyn ReadTx) -> Result<Vec<ContentRef>, StorageError> {
    let mut contents = Vec::new();
    View::new(tx).scan_cells(&store(), &Path::default(), None, &mut |cell| {
        contents.extend(cell.values.iter().filter_map(|value| content_of(&value.value)));
        ControlFlow::Continue(())
    })?;
    kept(tx, contents)
}

/// What entries name that cannot be opened. Nobody takes rights away where there are blobs, so all of them count.
fn closed(tx: &dyn ReadTx) -> Result<Vec<ContentRef>, StorageError> {
    let (view, mut named) = (View::new(tx), Vec::new());
    let ring = view.ring()?;
    let entries = view.newest(usize::MAX).map_err(|e| StorageError::Corrupt(e.to_string()))?;
    for (_, entry) in entries.iter().filter(|_| ring.seals(&store())) {
        for (id, payload) in entry.payloads().filter(|(id, _)| **id == store()) {
            let bytes = payload.bytes().unwrap_or_default();
            if ring.open(&entry.header().log, id, bytes).is_err() {
                named.extend(seal::contents(bytes));
            }
        }
    }
    Ok(named)
}

/// Content as the database keeps it.
fn kept(
    tx: &dyn ReadTx,
    contents: impl IntoIterator<Item = ContentRef>,
) -> Result<Vec<ContentRef>, StorageError> {
    contents.into_iter().map(|content| View::new(tx).kept(&store(), content)).collect()
}

/// Whoever may read can open all that is here of what is live, and a relay has no keys.
fn judge_sealed(
    number: usize,
    relay: bool,
    tx: &dyn ReadTx,
) -> Result<Result<(), Violation>, StorageError> {
    let ring = View::new(tx).ring()?;
    let failed = |text| Ok(Err(Check::Contents.failed(text)));
    if relay && !View::new(tx).is_keyless()? {
        return failed(format!("node {number} has a key of what it relays"));
    }
    for content in live(tx)? {
        let walker = Walker::new(&content, |place| tx.get(Table::Blob, &place.hash.0));
        for step in walker.filter_map(Result::ok) {
            let Step::Chunk(span) = step else { continue };
            let Some(bytes) = tx.get(Table::Blob, &span.hash.0)? else { continue };
            let plain = ring.open_chunk(&store(), &bytes).ok();
            if plain.is_none_or(|plain| plain.len() as u64 != span.len) {
                return failed(format!("node {number} cannot open {:?}", span.hash));
            }
        }
    }
    Ok(Ok(()))
}

/// What of these contents is not here, as far as what is here tells.
fn lacking_of(
    tx: &dyn ReadTx,
    contents: impl IntoIterator<Item = ContentRef>,
) -> Result<BTreeSet<ChunkHash>, StorageError> {
    let mut lacking = BTreeSet::new();
    for content in contents {
        for step in Walker::new(&content, |place| tx.get(Table::Blob, &place.hash.0)) {
            match step {
                Ok(Step::Missing(node)) => _ = lacking.insert(node.hash),
                Ok(Step::Chunk(span)) if !tx.has(Table::Blob, &span.hash.0)? => {
                    lacking.insert(span.hash);
                }
                Ok(Step::Chunk(_)) => {}
                Err(WalkError::Lookup(e)) => return Err(e),
                Err(e) => return Err(StorageError::Corrupt(e.to_string())),
            }
        }
    }
    Ok(lacking)
}
