//! Serving peers that connect: which replicas they may open, and one session for each link. Replicas that other processes
//! add to the home meanwhile are served from the next link on; one that cannot be opened is named once and harms no
//! other (I5).

use crate::output::Output;
use anabranch::engine::node::{Node, NodeError, Record, Replica};
use anabranch::engine::transport::HttpListener;
use anabranch::{DatabaseId, engine::transport::Link};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The replicas that are served.
pub(crate) struct Hosting {
    node: Arc<Node>,
    /// Only this one.
    only: Option<DatabaseId>,
    output: Output,
    complained: Mutex<BTreeSet<DatabaseId>>,
}

impl Hosting {
    /// All replicas, or only one.
    pub(crate) fn new(node: &anabranch::Node, only: Option<DatabaseId>, output: Output) -> Self {
        Self { node: Arc::clone(node.inner()), only, output, complained: Mutex::default() }
    }

    /// The node.
    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// What is remembered of the replicas that are served now.
    pub(crate) fn records(&self) -> Vec<Record> {
        match self.node.records() {
            Ok(mut records) => {
                records.retain(|r| !r.folder && self.only.is_none_or(|only| only == r.database));
                records
            }
            Err(e) => {
                self.output.warn(&format!("the list of replicas cannot be read: {}", e.chain()));
                Vec::new()
            }
        }
    }

    /// The replicas that are served now, open and with an eye on what other processes commit to them.
    pub(crate) fn replicas(&self) -> Vec<Arc<Replica>> {
        self.records().iter().filter_map(|record| self.open(record)).collect()
    }

    /// Opens a replica; `None` after saying why it cannot be.
    pub(crate) fn open(&self, record: &Record) -> Option<Arc<Replica>> {
        let opened = self.try_open(record);
        if let Err(e) = &opened {
            let mut complained = self.complained.lock().unwrap_or_else(PoisonError::into_inner);
            if complained.insert(record.database) {
                self.output.warn(&format!("{} is not served: {}", record.name, e.chain()));
            }
        }
        opened.ok()
    }

    fn try_open(&self, record: &Record) -> Result<Arc<Replica>, NodeError> {
        let replica = self.node.open_record(record)?;
        self.node.notice_others(&replica)?;
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
                link = listener.accept() => link,
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
        match self.node.serve_link(link, self.replicas(), stop).await {
            Ok(report) => tracing::info!(peer, device = ?report.peer, "a session ended"),
            Err(e) => tracing::info!(peer, "a session ended: {}", e.chain()),
        }
    }
}
