//! Folders of nodes: their users, and updates as the product has them: when something arrived and no more is under way,
//! with peers waiting meanwhile, and once more when content has come.

use super::intents::Line;
use super::{Event, World};
use crate::check::{Check, Violation};
use crate::clock::{MS, Time};
use crate::files::{Deed, pick, seen};
use crate::folder::{Amid, FolderSite, Run, Waiting};
use crate::tree::{judge_contents, judge_folders};
use anabranch_core::blob::ChunkHash;
use anabranch_core::storage::Table;
use anabranch_node::Replica;
use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};

/// How often everything may have to be looked at again in the end.
const ROUNDS: u32 = 4;

impl World<'_> {
    pub(super) fn act(&mut self, node: usize, deed: &Deed) -> Result<(), Violation> {
        let Some(folder) = &mut self.nodes[node].folder else { return Ok(()) };
        let done = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
        let mut contents = done;
        let done = contents.act(&folder.fs, deed);
        drop(contents);
        done.map_err(|e| {
            Check::Blamed.failed(format!("a user of node {node} could not act: {e}"))
        })?;
        folder.due = true;
        self.note("user", node, deed.to_string().as_bytes(), || deed.to_string());
        self.notice_folder(node);
        Ok(())
    }

    /// Sees to it that the folder of `node` is updated if something changed.
    pub(super) fn notice_folder(&mut self, node: usize) {
        let site = &mut self.nodes[node];
        let (Some(folder), Some(replica)) = (&mut site.folder, &site.replica) else { return };
        let changed = folder.due || *replica.versions().borrow() != folder.seen;
        if !changed || folder.scheduled {
            return;
        }
        folder.scheduled = true;
        let delay = self.random.u64(MS..300 * MS);
        self.update_after(node, delay);
    }

    fn update_after(&mut self, node: usize, delay: Time) {
        let generation = self.nodes[node].generation;
        self.after(delay, Event::Update { node, generation });
    }

    /// Looks whether the time for an update has come.
    pub(super) fn try_update(&mut self, node: usize, generation: u64) -> Result<(), Violation> {
        let site = &mut self.nodes[node];
        let Some(replica) = site.replica.clone().filter(|_| site.generation == generation) else {
            return Ok(());
        };
        let Some(folder) = &mut site.folder else { return Ok(()) };
        let mut version = *replica.versions().borrow();
        let mut again = None;
        if let Some(waiting) = folder.waiting {
            let (lacking, unobtainable) = replica.lacking();
            if lacking != unobtainable {
                again = Some(self.random.u64(20 * MS..100 * MS));
            } else if came(&replica, &folder.wants) {
                version = waiting.version;
            } else {
                // Nobody has the rest: whatever arrives next, it is tried again.
                folder.waiting = None;
                folder.wants.clear();
                folder.scheduled = false;
                replica.worked(waiting.version);
                self.restate_wants(node);
                self.notice_folder(node);
                return Ok(());
            }
        } else if !folder.first && !replica.unsettled().borrow().is_empty() {
            again = Some(self.random.u64(20 * MS..200 * MS));
        }
        if let Some(delay) = again {
            self.update_after(node, delay);
            return Ok(());
        }
        folder.scheduled = false;
        folder.first = false;
        let device = replica.device().id();
        let member = matches!(replica.look(|view| view.role_of(&device)), Ok(Some(_)));
        // What has begun is gone on with.
        let hears_first = folder.waiting.is_none()
            && version == folder.seen
            && anabranch_folder::is_new(&replica).unwrap_or(true);
        folder.seen = version;
        if !member || hears_first {
            folder.due = false;
            return Ok(());
        }
        folder.due = false;
        self.update(node, &replica, version)
    }

    fn update(
        &mut self,
        node: usize,
        replica: &Arc<Replica>,
        version: u64,
    ) -> Result<(), Violation> {
        let contents = Arc::clone(&self.contents);
        let site = &mut self.nodes[node];
        let switch = site.disk.switch();
        let Some(folder) = &mut site.folder else { return Ok(()) };
        let run = folder.update(replica, &contents, switch);
        folder.waiting = None;
        folder.wants.clone_from(&run.wants);
        self.stats.updates += 1;
        let text = format!("{:?}", run.result);
        self.note("updated", node, text.as_bytes(), || text.clone());
        if let Some((power, down)) = run.halted {
            if power {
                self.lose_power(node);
            } else {
                self.nodes[node].disk.kill();
            }
            self.judge_files(node)?;
            return self.go_down(node, down, super::Return::AsItWas);
        }
        if self.nodes[node].disk.is_dead() {
            return self.settle_node(node);
        }
        self.judge_run(node, &run)?;
        if run.wants.is_empty() || run.result.is_err() {
            replica.worked(version);
        } else if let Some(folder) = &mut self.nodes[node].folder {
            folder.waiting = Some(Waiting { version });
            folder.scheduled = true;
            let delay = self.random.u64(20 * MS..100 * MS);
            self.update_after(node, delay);
        }
        self.restate_wants(node);
        self.judge_files(node)?;
        self.settle_node(node)
    }

    /// An update may fail only where something was made to go wrong.
    fn judge_run(&self, node: usize, run: &Run) -> Result<(), Violation> {
        let Err(e) = &run.result else { return Ok(()) };
        if run.troubled || self.nodes[node].disk.is_limited() {
            return Ok(());
        }
        Err(Check::Blamed.failed(format!("node {node} could not update its folder: {e}")))
    }

    /// What was asked for is forgotten by the update that asked.
    fn restate_wants(&mut self, node: usize) {
        self.nodes[node].looked = 0;
        self.want_blobs(node);
    }

    /// No file is torn, and nothing is gone that nobody did away with.
    fn judge_files(&self, node: usize) -> Result<(), Violation> {
        let contents = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
        judge_contents(&self.nodes, node, &contents)
    }

    /// The power of `node` goes.
    pub(super) fn lose_power(&mut self, node: usize) {
        let site = &mut self.nodes[node];
        // A copy signs what it took, and here the same places are written again.
        site.unnoticed |= site.disk.lose_power(&mut self.random);
        if let Some(folder) = &site.folder {
            let random = &mut self.random;
            folder.fs.lose_power(&mut |most| random.usize(..=most));
        }
    }

    pub(super) fn arrange(&mut self, node: usize, amid: Amid) {
        if let Some(folder) = &mut self.nodes[node].folder {
            folder.amid = Some(amid);
            folder.due = true;
            self.notice_folder(node);
        }
    }

    pub(super) fn hide_path(&mut self, node: usize, n: u8) {
        if let Some(folder) = &mut self.nodes[node].folder {
            folder.unreadable = pick(&seen(&folder.fs), n).cloned();
        }
    }

    pub(super) fn show_paths(&mut self, node: usize) {
        if let Some(folder) = &mut self.nodes[node].folder {
            folder.unreadable = None;
            folder.due = true;
            self.notice_folder(node);
        }
    }

    pub(super) fn fill_folder(&mut self, node: usize, full: bool) {
        if let Some(folder) = &mut self.nodes[node].folder {
            folder.full = full;
        }
    }

    /// Nothing goes wrong with folders any more.
    pub(super) fn heal_folders(&mut self) {
        for node in 0..self.nodes.len() {
            if let Some(folder) = &mut self.nodes[node].folder {
                (folder.full, folder.unreadable, folder.amid) = (false, None, None);
                folder.due = true;
                self.notice_folder(node);
            }
        }
    }

    /// When all is quiet: every folder is looked at once more, as with the next sync. False when that changes nothing.
    pub(super) fn look_again(&mut self) -> Result<bool, Violation> {
        let mut changed = false;
        for node in 0..self.nodes.len() {
            let Some(replica) = self.nodes[node].replica.clone() else { continue };
            let contents = Arc::clone(&self.contents);
            let site = &mut self.nodes[node];
            let switch = site.disk.switch();
            let Some(folder) = &mut site.folder else { continue };
            let before = *replica.versions().borrow();
            let run = folder.update(&replica, &contents, switch);
            let moved = run.result.as_ref().is_ok_and(|updated| !updated.applied.is_empty());
            let recorded = *replica.versions().borrow() != before;
            let asks = !run.wants.is_empty();
            self.judge_run(node, &run)?;
            // What is asked for is waited for as with any update; what nobody has is not asked for for ever.
            if moved || recorded || (asks && self.rounds < 2) {
                let text = format!("{:?}", run.result);
                self.note("not done", node, text.as_bytes(), || text.clone());
                changed = true;
                if let Some(folder) = &mut self.nodes[node].folder {
                    folder.due = true;
                }
            }
            self.judge_files(node)?;
            self.settle_node(node)?;
        }
        self.rounds += 1;
        if changed && self.rounds > ROUNDS {
            return Err(Check::Folders.failed("the folders do not come to rest"));
        }
        Ok(changed)
    }

    pub(super) fn judge_trees(&self) -> Result<(), Violation> {
        let contents = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
        let links: Vec<[usize; 2]> = self.edges.iter().map(Line::ends).collect();
        judge_folders(&self.nodes, &links, &contents)
    }
}

/// Whether any of these blobs is here.
fn came(replica: &Replica, wants: &BTreeSet<ChunkHash>) -> bool {
    let any = replica.read_tables(|tx| {
        for hash in wants {
            if tx.get(Table::Blob, &hash.0)?.is_some() {
                return Ok::<_, anabranch_core::storage::StorageError>(true);
            }
        }
        Ok(false)
    });
    any.unwrap_or(true)
}

/// The folder of a node that is set up: file systems differ in how fine their times are.
pub(super) fn folder_of(
    setup: &crate::plan::Setup,
    number: usize,
    seed: u64,
    surroundings: &Arc<crate::clock::Surroundings>,
) -> Option<FolderSite> {
    let ticks = [1_000, 4_000_000, 1_000_000_000];
    let tick = ticks[(seed >> (number % 16)) as usize % ticks.len()];
    setup.folder.then(|| FolderSite::new(surroundings, tick))
}
