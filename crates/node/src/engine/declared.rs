//! Carrying out what is declared in the home.

use super::{SyncHandle, Target, Tell};
use crate::home::Record;
use crate::intent::Intent;
use crate::node::Node;
use crate::replica::Replica;
use crate::runner::stopped;
use anabranch_core::id::{DatabaseId, NodeId};
use anabranch_sync::channel::Direction;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How often the home is looked at for replicas and intents that other processes added.
const RESCAN: Duration = Duration::from_secs(5);

/// Opens replicas for the engine, and says of one that cannot be opened why.
pub trait Replicas: Send + Sync {
    /// What is to be kept in step. Of several replicas of one database, one.
    fn records(&self) -> Vec<Record>;

    /// Opens one; `None` if it cannot be now.
    fn open(&self, record: &Record) -> Option<Arc<Replica>>;
}

/// Intents that lead to one peer and are alike.
struct Group {
    device: Option<NodeId>,
    direction: Direction,
    every: Option<Duration>,
    /// When each worked last.
    ways: Vec<(Option<u64>, Intent)>,
}

impl Group {
    /// What worked last first.
    fn in_order(mut self) -> Vec<Intent> {
        self.ways.sort_by_key(|(success, _)| Reverse(*success));
        self.ways.into_iter().map(|(_, intent)| intent).collect()
    }
}

impl Node {
    /// Carries out what is declared in the home until told to stop: every intent of every replica, those included that are
    /// added later, by whatever process.
    pub async fn carry_out(
        self: &Arc<Self>,
        replicas: &dyn Replicas,
        mut stop: watch::Receiver<bool>,
        tell: Tell,
    ) {
        let mut kept: BTreeMap<(DatabaseId, Vec<Intent>), SyncHandle> = BTreeMap::new();
        let mut ticks = tokio::time::interval(RESCAN);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stopped(&mut stop) => break,
            }
            let mut declared = BTreeMap::new();
            for record in replicas.records() {
                for intents in self.by_peer(&record) {
                    let mut key = intents.clone();
                    key.sort_by(|a, b| a.address.cmp(&b.address));
                    declared.insert((record.database, key), (record.clone(), intents));
                }
            }
            kept.retain(|key, _| declared.contains_key(key));
            for (key, (record, intents)) in declared {
                if kept.contains_key(&key) {
                    continue;
                }
                let (Some(replica), Some(first)) = (replicas.open(&record), intents.first()) else {
                    continue;
                };
                let mut target = Target::new(replica, &record.name, first);
                target.addresses = intents.iter().map(|intent| intent.address.clone()).collect();
                target.ticket = record.ticket;
                target.tell = Arc::clone(&tell);
                kept.insert(key, self.keep(target));
            }
        }
        for handle in kept.values() {
            handle.stop.send_replace(true);
        }
        for handle in kept.into_values() {
            handle.stop().await;
        }
    }

    /// The intents of a replica, those together that lead to one peer, as far as that is known: what worked last first.
    fn by_peer(&self, record: &Record) -> Vec<Vec<Intent>> {
        let mut groups: Vec<Group> = Vec::new();
        for intent in &record.intents {
            let fate = self
                .home()
                .and_then(|home| home.fate(record.database, &intent.address).ok().flatten())
                .unwrap_or_default();
            let way = (fate.success, intent.clone());
            let same = groups.iter_mut().find(|group| {
                let alike = (group.direction, group.every) == (intent.direction, intent.every);
                alike && group.device.is_some() && group.device == fate.device
            });
            match same {
                Some(group) => group.ways.push(way),
                None => groups.push(Group {
                    device: fate.device,
                    direction: intent.direction,
                    every: intent.every,
                    ways: vec![way],
                }),
            }
        }
        groups.into_iter().map(Group::in_order).collect()
    }
}
