//! Serving peers that connect: which replicas they may open, and one session for each link. Replicas that other processes
//! add to the home meanwhile are served from the next link on; one that cannot be opened is named once and harms no
//! other (I5).

use crate::failure::Failure;
use crate::output::Output;
use anabranch::Node;
use anabranch::engine::node::{Node as Inner, NodeError, Record, Replica, Replicas};
use anabranch::engine::transport::HttpListener;
use anabranch::engine::transport::Link;
use anabranch_folder::{Folder, Work};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The replicas that are served.
pub(crate) struct Hosting {
    node: Node,
    /// Only this one.
    only: Option<Record>,
    output: Output,
    complained: Mutex<BTreeSet<PathBuf>>,
    /// Folders that are served, and the work on them.
    folders: Mutex<BTreeMap<PathBuf, (Arc<Folder>, Work)>>,
}

impl Hosting {
    /// All replicas, or only one.
    pub(crate) fn new(node: &Node, only: Option<Record>, output: Output) -> Self {
        Self {
            node: node.clone(),
            only,
            output,
            complained: Mutex::default(),
            folders: Mutex::default(),
        }
    }

    /// The node.
    pub(crate) fn node(&self) -> &Arc<Inner> {
        self.node.inner()
    }

    /// Opens everything and starts to work on folders. Returns how many replicas are served.
    pub(crate) async fn start(&self) -> usize {
        for record in self.records().iter().filter(|r| r.folder) {
            let started = match Folder::open(self.node(), &record.path) {
                Ok(folder) => folder.start().await.map(|work| (folder, work)),
                Err(e) => Err(e),
            };
            match started {
                Ok(started) => {
                    let mut folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
                    folders.insert(record.path.clone(), started);
                }
                Err(e) => self.complain(record, &Failure::from(e)),
            }
        }
        self.replicas().len()
    }

    /// Ends the work on folders in good order.
    pub(crate) async fn end(&self) {
        let folders =
            std::mem::take(&mut *self.folders.lock().unwrap_or_else(PoisonError::into_inner));
        for (path, (_, work)) in folders {
            if let Err(e) = work.end().await {
                self.output.warn(&format!("{}: {}", path.display(), Failure::from(e).line()));
            }
        }
    }

    /// The replicas that are served now, open and with an eye on what other processes commit to them.
    pub(crate) fn replicas(&self) -> Vec<Arc<Replica>> {
        self.records().iter().filter_map(|record| self.open(record)).collect()
    }

    fn complain(&self, record: &Record, failure: &Failure) {
        let mut complained = self.complained.lock().unwrap_or_else(PoisonError::into_inner);
        if complained.insert(record.path.clone()) {
            self.output.warn(&format!("{} is not served: {}", record.name, failure.line()));
        }
    }

    fn try_open(&self, record: &Record) -> Result<Arc<Replica>, NodeError> {
        let replica = self.node().open_record(record)?;
        self.node().notice_others(&replica)?;
        Ok(replica)
    }

    /// Serves whoever comes to `listener` until stopped, then ends every session in good order.
    pub(crate) async fn listen(
        self: Arc<Self>,
        mut listener: HttpListener,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut sessions = JoinSet::new();
        let stopped = stop.clone();
        loop {
            let link = tokio::select! {
                link = self.node().next_link(&mut listener) => link,
                () = crate::signals::stopped(&mut stop) => None,
            };
            let Some(link) = link else { break };
            sessions.spawn(Arc::clone(&self).serve(link, stopped.clone()));
            while sessions.try_join_next().is_some() {}
        }
        while sessions.join_next().await.is_some() {}
        listener.stop().await;
    }

    async fn serve(self: Arc<Self>, link: Link, stop: watch::Receiver<bool>) {
        let peer = link.peer().to_owned();
        match self.node().serve_link(link, self.replicas(), stop).await {
            Ok(report) => tracing::info!(peer, device = ?report.peer, "a session ended"),
            Err(e) => tracing::info!(peer, "a session ended: {}", e.chain()),
        }
    }
}

impl Replicas for Hosting {
    /// What is remembered of the replicas that are served now. Of several folders of one database on this device, the
    /// first is: a peer needs only one.
    fn records(&self) -> Vec<Record> {
        let mut records = match self.node().records() {
            Ok(records) => records,
            Err(e) => {
                self.output.warn(&format!("the list of replicas cannot be read: {}", e.chain()));
                return Vec::new();
            }
        };
        let only = self.only.as_ref();
        records.retain(|r| only.is_none_or(|o| (o.database, &o.path) == (r.database, &r.path)));
        let mut seen = BTreeSet::new();
        records.retain(|r| seen.insert(r.database));
        records
    }

    /// Opens a replica; `None` after saying why it cannot be.
    fn open(&self, record: &Record) -> Option<Arc<Replica>> {
        if record.folder {
            let folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
            return folders.get(&record.path).map(|(folder, _)| Arc::clone(folder.replica()));
        }
        let opened = self.try_open(record);
        if let Err(e) = &opened {
            self.complain(record, &Failure::failed(e.chain()));
        }
        opened.ok()
    }
}
