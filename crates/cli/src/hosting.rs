//! Serving peers that connect: which replicas they may open, and one session for each link. Replicas that other processes
//! add to the home meanwhile are served from the next link on; one that cannot be opened is named once and harms no
//! other (I5).

use crate::commands::folders::{self, LISTED};
use crate::failure::Failure;
use crate::output::{Output, plain};
use anabranch::Node;
use anabranch::engine::node::{Node as Inner, NodeError, Record, Replica, Replicas};
use anabranch::engine::transport::HttpListener;
use anabranch::engine::transport::Link;
use anabranch_folder::{Folder, Tell, Work};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What is said of each folder's updates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Say {
    /// What is not as it should be.
    Trouble,
    /// Each path as well.
    EachPath,
}

impl Say {
    /// Says it of the folder at `root`: what goes on being wrong, once.
    pub(crate) fn teller(self, output: Output, root: &Path) -> Tell {
        let root = root.to_owned();
        let known: Mutex<BTreeSet<String>> = Mutex::default();
        Arc::new(move |done| {
            let troubles = match done {
                Ok(done) => {
                    if self == Self::EachPath {
                        // Whoever reads this no more is told nothing.
                        let _ = folders::changes(output, &root, done);
                    }
                    folders::troubles(done)
                }
                Err(e) => vec![Failure::from(e).line()],
            };
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            for line in troubles.iter().filter(|line| !known.contains(*line)).take(LISTED) {
                output.warn(&plain(&format!("{}: {line}", root.display())));
            }
            *known = troubles.into_iter().collect();
        })
    }
}

/// A folder that is watched, from the moment in which that begins.
enum Watched {
    Begun,
    Works(Arc<Folder>, Work),
}

type Folders = Arc<Mutex<BTreeMap<PathBuf, Watched>>>;

/// The replicas that are served.
pub(crate) struct Hosting {
    node: Node,
    /// Only this one.
    only: Option<Record>,
    output: Output,
    say: Say,
    complained: Arc<Mutex<BTreeSet<PathBuf>>>,
    folders: Folders,
}

impl Hosting {
    /// All replicas, or only one.
    pub(crate) fn new(node: &Node, only: Option<Record>, output: Output, say: Say) -> Self {
        Self {
            node: node.clone(),
            only,
            output,
            say,
            complained: Arc::default(),
            folders: Arc::default(),
        }
    }

    /// The node.
    pub(crate) fn node(&self) -> &Arc<Inner> {
        self.node.inner()
    }

    /// Opens everything and starts to watch folders. Returns how many replicas are served.
    pub(crate) async fn start(&self) -> usize {
        for record in self.records().iter().filter(|r| r.folder) {
            if let Some(begun) = self.begin(record) {
                begun.await;
            }
        }
        self.replicas().len()
    }

    /// Starts to watch a folder, unless that was begun already.
    fn begin(&self, record: &Record) -> Option<impl Future<Output = ()> + Send + 'static> {
        let mut folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        if folders.contains_key(&record.path) {
            return None;
        }
        folders.insert(record.path.clone(), Watched::Begun);
        let (folders, node) = (Arc::clone(&self.folders), Arc::clone(self.node()));
        let (record, tell) = (record.clone(), self.say.teller(self.output, &record.path));
        let (complained, output) = (Arc::clone(&self.complained), self.output);
        Some(async move {
            let watched = match Folder::open(&node, &record.path) {
                Ok(folder) => folder.watch(tell).await.map(|work| Watched::Works(folder, work)),
                Err(e) => Err(e),
            };
            let mut folders = folders.lock().unwrap_or_else(PoisonError::into_inner);
            match watched {
                Ok(watched) => _ = folders.insert(record.path, watched),
                Err(e) => {
                    folders.remove(&record.path);
                    complain(&complained, output, &record, &Failure::from(e));
                }
            }
        })
    }

    /// Ends the work on folders that are no replicas any more.
    fn leave_forgotten(&self, records: &[Record]) {
        let mut folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = |path: &PathBuf| records.iter().any(|r| r.folder && r.path == *path);
        for (_, watched) in folders.extract_if(.., |path, _| !kept(path)) {
            if let Watched::Works(_, work) = watched {
                tokio::spawn(work.end());
            }
        }
    }

    /// Ends the work on folders in good order.
    pub(crate) async fn end(&self) {
        let folders =
            std::mem::take(&mut *self.folders.lock().unwrap_or_else(PoisonError::into_inner));
        for (path, watched) in folders {
            if let Watched::Works(_, work) = watched
                && let Err(e) = work.end().await
            {
                self.output.warn(&format!("{}: {}", path.display(), Failure::from(e).line()));
            }
        }
    }

    /// The replicas that are served now, open and with an eye on what other processes commit to them.
    pub(crate) fn replicas(&self) -> Vec<Arc<Replica>> {
        self.records().iter().filter_map(|record| self.open(record)).collect()
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

/// Says of a replica that it cannot be served, once.
fn complain(
    complained: &Mutex<BTreeSet<PathBuf>>,
    output: Output,
    record: &Record,
    failure: &Failure,
) {
    let mut complained = complained.lock().unwrap_or_else(PoisonError::into_inner);
    if complained.insert(record.path.clone()) {
        output.warn(&format!("{} is not served: {}", record.name, failure.line()));
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
        self.leave_forgotten(&records);
        records
    }

    /// Opens a replica; `None` after saying why it cannot be.
    fn open(&self, record: &Record) -> Option<Arc<Replica>> {
        if record.folder {
            if let Some(begun) = self.begin(record) {
                tokio::spawn(begun);
            }
            let folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
            return match folders.get(&record.path) {
                Some(Watched::Works(folder, _)) => Some(Arc::clone(folder.replica())),
                Some(Watched::Begun) | None => None,
            };
        }
        let opened = self.try_open(record);
        if let Err(e) = &opened {
            complain(&self.complained, self.output, record, &Failure::failed(e.chain()));
        }
        opened.ok()
    }
}
