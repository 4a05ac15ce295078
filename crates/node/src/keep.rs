//! Keeping a replica in step with one address for ever: connect, follow live, and when the peer is lost, wait and connect
//! again. Nothing is queued for a peer that is away: what it lacks is what its frontier does not cover.

use crate::device::random;
use crate::drive::{Opening, Progress, Until};
use crate::error::NodeError;
use crate::node::{Control, Node};
use crate::replica::Replica;
use crate::runner::stopped;
use anabranch_core::key::DeviceKey;
use anabranch_core::ticket::Ticket;
use anabranch_sync::channel::Direction;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// What is kept in step with what.
#[derive(Debug, Clone)]
pub struct Target {
    /// The replica here.
    pub replica: Arc<Replica>,
    /// Where the other one is.
    pub address: String,
    /// Seed of a ticket by which this device still has to join.
    pub ticket: Option<[u8; 32]>,
}

/// What happened to the connection.
#[derive(Debug)]
pub enum Kept {
    /// Everything that either side had is on both.
    InStep,
    /// The peer was lost, or not reached.
    Lost {
        /// Why; `None` when it left in good order.
        error: Option<NodeError>,
        /// When it is tried again.
        again_in: Duration,
    },
}

impl Node {
    /// Keeps `target` in step until told to stop, and tells of each change. An error is told and never ends it.
    pub async fn keep(
        &self,
        mut target: Target,
        mut stop: watch::Receiver<bool>,
        tell: &(dyn Fn(Kept) + Send + Sync),
    ) {
        let (first, longest) = self.settings().retry;
        let mut wait = first;
        loop {
            let control = Control::default();
            let mut progress = control.progress.subscribe();
            let mut was_level = false;
            let error = {
                let session = self.follow(&mut target, &control);
                tokio::pin!(session);
                loop {
                    tokio::select! {
                        result = &mut session => break result.err(),
                        () = stopped(&mut stop) => {
                            control.stop.send_replace(true);
                            let leaving = self.settings().transport.limits.close_timeout;
                            // A link that does not end by then is dropped.
                            let _ = tokio::time::timeout(leaving, session).await;
                            return;
                        }
                        () = settled(&mut progress), if !was_level => {
                            was_level = true;
                            tell(Kept::InStep);
                        }
                    }
                }
            };
            // Whoever was there a moment ago is probably back soon.
            wait = if was_level { first } else { wait };
            let again_in = spread(wait);
            wait = (wait * 2).min(longest);
            tell(Kept::Lost { error, again_in });
            tokio::select! {
                () = tokio::time::sleep(again_in) => {}
                () = stopped(&mut stop) => return,
            }
        }
    }

    async fn follow(&self, target: &mut Target, control: &Control) -> Result<(), NodeError> {
        let addresses = [target.address.clone()];
        if let Some(seed) = &target.ticket {
            let ticket = Ticket {
                addresses: addresses.to_vec(),
                database: target.replica.database(),
                key: DeviceKey::from_seed(seed),
                folder: false,
                name: String::new(),
            };
            self.join(&target.replica, &ticket, control).await?;
            target.ticket = None;
        }
        let replica = Arc::clone(&target.replica);
        let opening = Opening { replica, direction: Direction::BOTH, ticket: None };
        self.sync(opening, &addresses, Until::Closed, control).await?;
        Ok(())
    }
}

async fn settled(progress: &mut watch::Receiver<Progress>) {
    if progress.wait_for(|progress| progress.settled).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Between half of `wait` and all of it, so that many who lost one peer do not all come back at once.
fn spread(wait: Duration) -> Duration {
    let part = random::<1>().map_or(255, |[byte]| u32::from(byte));
    wait / 2 + wait / 2 * part / 255
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_spread_and_never_longer() {
        let wait = Duration::from_secs(8);
        let spreads: Vec<Duration> = (0..64).map(|_| spread(wait)).collect();
        assert!(spreads.iter().all(|s| *s >= wait / 2 && *s <= wait));
        assert!(spreads.iter().any(|s| *s != spreads[0]));
    }
}
