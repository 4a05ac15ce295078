//! What a sync would do, found out by doing it on copies: the folder's database is copied aside, the folder is looked at
//! but never touched, and nothing is sent to a peer.

use crate::dirty::Dirty;
use crate::error::FolderError;
use crate::folder::Folder;
use crate::fs::SystemClock;
use crate::path::RelPath;
use crate::record::record;
use crate::update::{Site, describe, plan};
use anabranch_node::{Control, Node, NodeError, Opening, Until};
use anabranch_sync::channel::Direction;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

/// What would happen to one folder.
#[derive(Debug, Default)]
pub struct Preview {
    /// Paths whose changes here would be committed, and so sent.
    pub recorded: Vec<RelPath>,
    /// What would be done to this folder.
    pub actions: Vec<(&'static str, RelPath)>,
    /// Bytes that would be written.
    pub bytes: u64,
}

/// Whom a preview is made with.
#[derive(Debug)]
pub enum PreviewWith<'a> {
    /// Another folder on this machine, which need not be there.
    Local(&'a Path),
    /// A peer at one of these addresses, from which entries are fetched into the copy.
    Addresses(Vec<String>),
}

impl Folder {
    /// What syncing `root` would do to it and, on this machine, to the other folder. `scratch` is an empty directory for
    /// the copies.
    ///
    /// # Errors
    /// As a sync.
    pub async fn preview(
        node: &Node,
        root: &Path,
        with: PreviewWith<'_>,
        direction: Direction,
        scratch: &Path,
    ) -> Result<(Preview, Option<Preview>), FolderError> {
        let control = Control::default();
        match with {
            PreviewWith::Addresses(list) => {
                let here = Self::copied(node, root, &scratch.join("here"), None)?;
                let recorded = here.record_aside().await?;
                let pull = Opening {
                    replica: Arc::clone(here.replica()),
                    direction: Direction::PULL,
                    ticket: None,
                };
                if direction.receive {
                    node.sync(pull, &list, Until::Settled, &control).await?;
                }
                Ok((here.outcome(recorded)?, None))
            }
            PreviewWith::Local(other) => {
                let there_first =
                    !root.exists() || Self::is_adopted(other) && !Self::is_adopted(root);
                let (first, second) = if there_first { (other, root) } else { (root, other) };
                let a = Self::copied(node, first, &scratch.join("a"), None)?;
                let b =
                    Self::copied(node, second, &scratch.join("b"), Some(a.replica().database()))?;
                let (here, there) = if first == root { (a, b) } else { (b, a) };
                let mut recorded = [Vec::new(), Vec::new()];
                for round in 0..2 {
                    for (folder, list) in [&here, &there].into_iter().zip(&mut recorded) {
                        // A new one hears from the other before it looks at its own files.
                        if round == 1 || !folder.is_new()? {
                            list.extend(folder.record_aside().await?);
                        }
                    }
                    let replica = Arc::clone(here.replica());
                    let opening = Opening { replica, direction, ticket: None };
                    node.sync_local(opening, Arc::clone(there.replica()), Until::Settled, &control)
                        .await?;
                }
                let [mine, theirs] = recorded;
                Ok((here.outcome(mine)?, Some(there.outcome(theirs)?)))
            }
        }
    }

    async fn record_aside(self: &Arc<Self>) -> Result<Vec<RelPath>, FolderError> {
        let folder = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            folder.replica().build()?;
            let site = Site {
                replica: folder.replica(),
                fs: &**folder.disk(),
                clock: &SystemClock,
                tell: &|_| (),
                entering: &|_| (),
            };
            let recorded = record(&site, &Dirty::Everything)?;
            Ok(recorded.paths)
        })
        .await
        .map_err(|_| NodeError::Closed)?
    }

    fn outcome(&self, recorded: Vec<RelPath>) -> Result<Preview, FolderError> {
        self.replica().build()?;
        let (plan, _) = plan(self.replica(), &crate::hold::Hold::new())?;
        let bytes = plan.bytes();
        let unique: BTreeSet<RelPath> = recorded.into_iter().collect();
        let actions = plan.actions.iter().filter_map(describe).collect();
        Ok(Preview { recorded: unique.into_iter().collect(), actions, bytes })
    }
}
