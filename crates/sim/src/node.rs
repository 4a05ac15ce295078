//! A simulated node: a device, its disk, and the replica while its process runs.

use crate::blobs::Doing;
use crate::clock::Surroundings;
use crate::disk::Disk;
use crate::folder::FolderSite;
use crate::workload::Memory;
use anabranch_core::build;
use anabranch_core::id::Position;
use anabranch_core::storage::{Durability, Storage, StorageError};
use anabranch_core::view::View;
use anabranch_folder::FolderBlobs;
use anabranch_node::{Device, NodeError, Replica, ReplicaOptions};
use anabranch_store::MemoryStorage;
use anabranch_sync::work::Blobs;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A write that a user was told is kept.
#[derive(Debug, Clone, Copy)]
pub struct Acknowledged {
    /// The entry.
    pub position: Position,
    /// Whether a loss of power may not take it.
    pub safe: bool,
}

/// A node, running or not.
#[derive(Debug)]
pub struct Node {
    /// Who it is.
    pub device: Device,
    /// Its clock.
    pub surroundings: Arc<Surroundings>,
    /// What survives its process.
    pub disk: Disk,
    /// How safe its commits are, and what it keeps of early runs.
    pub options: ReplicaOptions,
    /// The process.
    pub replica: Option<Arc<Replica>>,
    /// Counts processes.
    pub generation: u64,
    /// What its users rely on.
    pub acknowledged: Vec<Acknowledged>,
    /// Whether it has a ticket that it has not redeemed.
    pub joining: bool,
    /// Whether its state was copied or restored, so that its device may have written what it does not know.
    pub copied: bool,
    /// Whether that happened without anything it could notice, so that it may sign two entries at one place.
    pub unnoticed: bool,
    /// Whether bits of what it stores changed: what it says and does from then on means nothing.
    pub rotten: bool,
    /// Whether nobody ever let it in.
    pub stranger: bool,
    /// Whether it may forward a sealed database and not read it.
    pub relay: bool,
    /// How many entries it held when it last looked for blobs it lacks.
    pub looked: u64,
    /// Entries that came and were held already.
    pub again: u64,
    /// What its users are doing with blobs.
    pub doing: BTreeMap<u64, Doing>,
    /// How many deeds of that kind there were.
    pub deeds: u64,
    /// A signature is due.
    pub signing: bool,
    /// What its users read.
    pub memory: Memory,
    /// Its folder, if it holds one.
    pub folder: Option<FolderSite>,
}

impl Node {
    /// Starts its process. Returns whether everything there is signed.
    ///
    /// # Errors
    /// What the replica reports.
    pub fn start(&mut self) -> Result<bool, NodeError> {
        let storage: Arc<dyn Storage> = self.disk.open();
        let blobs = self.folder.as_ref().map(|folder| {
            let files = Arc::new(folder.fs.clone());
            Arc::new(FolderBlobs::new(Arc::clone(&storage), files)) as Arc<dyn Blobs>
        });
        let replica = Replica::open(storage, blobs, self.device.clone(), self.options)?;
        let signed = replica.look(|view| view.unsigned())? == 0;
        if let Some(folder) = &mut self.folder {
            folder.start(&replica, anabranch_folder::is_new(&replica)?);
        }
        self.replica = Some(replica);
        self.generation += 1;
        self.signing = false;
        self.looked = 0;
        if signed {
            self.mark_safe();
        }
        Ok(signed)
    }

    /// Everything acknowledged so far is signed in a synced transaction now.
    pub fn mark_safe(&mut self) {
        self.acknowledged.iter_mut().for_each(|write| write.safe = true);
    }

    /// Whether its commits are safe as soon as they are acknowledged.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.options.durability == Durability::Full
    }

    /// A copy of what its disk holds, with all cells that a bulk load left to be built by whoever comes.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn content(&self) -> Result<MemoryStorage, StorageError> {
        let content = self.disk.content();
        build::finish(&content, build::Budget { bytes: usize::MAX, threads: 1 })?;
        Ok(content)
    }

    /// Looks at what its disk holds and means, whether its process runs or not.
    ///
    /// # Errors
    /// What `look` returns.
    pub fn look<T>(
        &self,
        look: impl FnOnce(View<'_>) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let content = self.content()?;
        let tx = content.read()?;
        look(View::new(&*tx))
    }
}
