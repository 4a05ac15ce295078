//! Keeping a replica in step with one peer for ever: connect, exchange, follow live or rest, and when the peer is lost,
//! wait and connect again. Nothing is queued for a peer that is away: what it lacks is what its frontier does not cover.

use super::attempts::{Attempts, Ending};
use super::standing::{Standing, State};
use super::why::Why;
use super::{Engine, Fate, Kept, Target};
use crate::device::random;
use crate::drive::{Opening, Report, Until};
use crate::error::NodeError;
use crate::node::{Control, Node};
use crate::runner::stopped;
use anabranch_core::key::DeviceKey;
use anabranch_core::ticket::Ticket;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, broadcast, watch};

/// How long a slot is held by one that is not done yet.
const SLOT: Duration = Duration::from_secs(10);
/// How often the same failure is written down.
const SAID: Duration = Duration::from_secs(60);

/// Works on one target.
pub(super) struct Keeper {
    pub(super) node: Arc<Node>,
    /// Without addresses: these are in the attempts.
    pub(super) target: Target,
    pub(super) attempts: Attempts,
    pub(super) standing: Arc<watch::Sender<Standing>>,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) nudge: Arc<Notify>,
    /// What was written down last, and when.
    pub(super) said: Option<(&'static str, Instant)>,
    /// Whether this device asks to be let in.
    pub(super) asks: bool,
}

/// How a session ended.
enum Ended {
    /// By itself: well, or not.
    With(Option<NodeError>),
    /// Because it is to stop.
    Stopped,
}

impl Keeper {
    pub(super) async fn run(mut self) {
        let mut stop = self.stop.clone();
        loop {
            let ended = self.session().await;
            let was_in_step = matches!(self.standing.borrow().state, State::InStep);
            let error = match ended {
                Ended::Stopped => break,
                Ended::With(error) => error,
            };
            if let (None, Some(every)) = (&error, self.target.every) {
                let again_in = self.attempts.ended(Ending::Synced, spread());
                self.enter(State::Resting { every });
                if !self.rest(again_in, &mut stop).await {
                    break;
                }
                continue;
            }
            if was_in_step {
                let now = self.node.device().now().0;
                self.standing.send_modify(|standing| standing.last_success = Some(now));
            }
            let answered = matches!(error, Some(NodeError::Session { .. }));
            let lost = Ending::Lost { in_step: was_in_step, answered };
            let again_in = self.attempts.ended(lost, spread());
            self.failed(error, again_in);
            let nudged = Instant::now();
            if !self.rest(again_in, &mut stop).await {
                break;
            }
            if nudged.elapsed() < again_in {
                self.attempts.nudged();
            }
        }
        self.enter(State::Stopped);
    }

    fn engine(&self) -> &Engine {
        self.node.engine()
    }

    fn enter(&self, state: State) {
        self.standing.send_modify(|standing| {
            standing.state = state;
            standing.since = Instant::now();
        });
    }

    /// Waits for `time`, until somebody wants it at once, or until the peer shows up elsewhere. False when it is to stop.
    async fn rest(&self, time: Duration, stop: &mut watch::Receiver<bool>) -> bool {
        // Heard from now on only: not of the session that just ended.
        let mut back = self.engine().back.subscribe();
        let Standing { state, device, last_error, .. } = self.standing.borrow().clone();
        let away = matches!(last_error, Some((_, Why::Offline(_) | Why::NoAddress(_))));
        let waiting = away && matches!(state, State::Waiting { .. });
        let shows_up = async {
            loop {
                match back.recv().await {
                    Ok(who) if waiting && Some(who) == device => return,
                    // What was missed does not matter: it is tried again anyway.
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
                }
            }
        };
        tokio::select! {
            () = tokio::time::sleep(time) => true,
            () = self.nudge.notified() => true,
            () = shows_up => true,
            () = stopped(stop) => false,
        }
    }

    /// One session, from the wait for a slot to its end.
    async fn session(&mut self) -> Ended {
        let mut stop = self.stop.clone();
        let engine = self.engine();
        let mut slot = match engine.slots.try_take() {
            Some(slot) => Some(slot),
            None => {
                self.enter(State::Queued);
                tokio::select! {
                    slot = engine.slots.take(self.target.priority) => Some(slot),
                    () = stopped(&mut stop) => return Ended::Stopped,
                }
            }
        };
        self.enter(State::Connecting);
        self.asks = self.node.asking(self.target.replica.database()).is_some();
        let control = Control::default();
        let mut progress = control.progress.subscribe();
        let node = Arc::clone(&self.node);
        let standing = Arc::clone(&self.standing);
        let mine = (self.target.clone(), self.attempts.clone());
        let work = follow(&node, mine, &standing, &control);
        tokio::pin!(work);
        let deadline = tokio::time::sleep(SLOT);
        tokio::pin!(deadline);
        let ended = loop {
            tokio::select! {
                (mine, result) = &mut work => {
                    (self.target, self.attempts) = mine;
                    break result;
                }
                () = &mut deadline, if slot.is_some() => slot = None,
                changed = progress.changed() => {
                    if changed.is_ok() {
                        let now = *progress.borrow_and_update();
                        if self.moved(now) {
                            slot = None;
                        }
                    }
                }
                () = stopped(&mut stop) => {
                    control.stop.send_replace(true);
                    let leaving = node.settings().transport.limits.close_timeout;
                    // A link that does not end by then is dropped.
                    let _ = tokio::time::timeout(leaving, work).await;
                    return Ended::Stopped;
                }
            }
        };
        let last = *progress.borrow_and_update();
        self.moved(last);
        if let Ok(report) = &ended {
            // A session of one exchange ends before anybody sees that it was settled.
            self.in_step(report.peer);
        }
        Ended::With(ended.err())
    }

    /// Takes in what moved. True when all is there.
    fn moved(&mut self, now: crate::drive::Progress) -> bool {
        let building = self.target.replica.unbuilt();
        let before = self.standing.borrow().state;
        self.standing.send_modify(|standing| {
            standing.progress = now;
            standing.building = building;
            standing.device = now.peer.or(standing.device);
        });
        let Some(peer) = now.peer else { return false };
        match (before, now.settled) {
            (State::InStep, true) => true,
            (_, true) => {
                self.in_step(peer);
                true
            }
            (State::Connecting, false) => {
                self.engine().is_back(peer);
                self.enter(State::Syncing);
                false
            }
            (State::InStep, false) => {
                self.enter(State::Syncing);
                false
            }
            (_, false) => false,
        }
    }

    fn in_step(&mut self, peer: anabranch_core::id::NodeId) {
        let now = self.node.device().now().0;
        let news = self.standing.borrow().state != State::InStep;
        let since = self.standing.borrow().last_success;
        self.standing.send_modify(|standing| {
            standing.device = Some(peer);
            standing.last_success = Some(now);
        });
        if !news {
            return;
        }
        self.enter(State::InStep);
        if std::mem::take(&mut self.asks)
            && let Err(e) = self.node.let_in(&self.target.replica)
        {
            tracing::warn!("{} is in, which could not be noted: {e}", self.target.name);
        }
        // Often in and out of step under load: the time need not be written each time.
        let old = since.is_none_or(|at| now.saturating_sub(at) > SAID.as_micros() as u64);
        if self.said.take().is_some() || old {
            self.write_down();
        }
        self.tell(Kept::InStep);
    }

    fn failed(&mut self, error: Option<NodeError>, again_in: Duration) {
        let reached = self.standing.borrow().device.is_some();
        let why = error.as_ref().map(|error| Why::of(error, reached));
        let why = why.unwrap_or_else(|| Why::Offline("it left".into()));
        let now = self.node.device().now().0;
        let addresses = self.attempts.addresses().to_vec();
        self.standing.send_modify(|standing| {
            standing.last_error = Some((now, why.clone()));
            standing.addresses = addresses;
        });
        self.enter(State::Waiting { again_in });
        if self.said.is_none_or(|(code, at)| code != why.code() || at.elapsed() > SAID) {
            self.said = Some((why.code(), Instant::now()));
            self.write_down();
        }
        self.tell(Kept::Lost { why, again_in });
    }

    fn tell(&self, kept: Kept) {
        (self.target.tell)(&self.standing.borrow().clone(), &kept);
    }

    /// For other processes, and for the next start.
    fn write_down(&self) {
        let standing = self.standing.borrow().clone();
        let fate = Fate::of(&standing);
        let (Some(home), Some(address)) = (self.node.home(), standing.addresses.first()) else {
            return;
        };
        if let Err(e) = home.put_fate(standing.database, address, &fate) {
            tracing::warn!("how {} stands could not be written down: {e}", standing.name);
        }
    }
}

/// One session, and what is to be done after it.
async fn follow(
    node: &Node,
    (mut target, mut attempts): (Target, Attempts),
    standing: &watch::Sender<Standing>,
    control: &Control,
) -> ((Target, Attempts), Result<Report, NodeError>) {
    let result = exchange(node, &mut target, &mut attempts, standing, control).await;
    ((target, attempts), result)
}

/// Joins first if that is still to be done.
async fn exchange(
    node: &Node,
    target: &mut Target,
    attempts: &mut Attempts,
    standing: &watch::Sender<Standing>,
    control: &Control,
) -> Result<Report, NodeError> {
    let (mut wire, mut address) = node.reach(&target.replica, attempts.addresses()).await?;
    attempts.answered(&address);
    standing.send_modify(|standing| standing.addresses = attempts.addresses().to_vec());
    if let Some(seed) = &target.ticket {
        let ticket = Ticket {
            addresses: attempts.addresses().to_vec(),
            database: target.replica.database(),
            key: DeviceKey::from_seed(seed),
            folder: false,
            name: String::new(),
        };
        let report = node.join_on(wire, &target.replica, &ticket, control).await?;
        node.remember(&report, &address);
        target.ticket = None;
        (wire, address) = node.reach(&target.replica, attempts.addresses()).await?;
    }
    let replica = Arc::clone(&target.replica);
    let opening = Opening { replica, direction: target.direction, ticket: None };
    let until = if target.every.is_some() { Until::Settled } else { Until::Closed };
    let report = node.sync_on(wire, vec![opening], until, control).await?;
    node.remember(&report, &address);
    Ok(report)
}

/// A random byte of the system's.
fn spread() -> u8 {
    random::<1>().map_or(255, |[byte]| byte)
}
