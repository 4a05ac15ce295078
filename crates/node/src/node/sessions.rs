//! The ways a node gets in touch with others: it dials, listens, serves and syncs, one session a link.

use super::Node;
use crate::drive::{Asks, Opening, Progress, Refusal, Report, Task, Until};
use crate::engine::{Fate, Why};
use crate::error::NodeError;
use crate::home::PeerRecord;
use crate::introduce::Wire;
use crate::replica::Replica;
use crate::runner::{Hears, run};
use anabranch_core::id::DatabaseId;
use anabranch_core::ticket::Ticket;
use anabranch_sync::channel::Direction;
use anabranch_sync::frame::{Code, Request, TEXT_BYTES};
use anabranch_transport::secure::{accept, connect};
use anabranch_transport::{Address, HttpListener, Link, ListenAddr};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use tokio::sync::watch;

/// A handle for watching and stopping a session; dropping it stops nothing.
#[derive(Debug, Clone)]
pub struct Control {
    /// Set to what moved, step by step.
    pub progress: watch::Sender<Progress>,
    /// Ends the session when it becomes true.
    pub stop: watch::Sender<bool>,
    /// Becomes true when the session is over.
    pub over: watch::Sender<bool>,
}

impl Control {
    async fn ended(&self) {
        // The sender is right here.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }
}

impl Default for Control {
    fn default() -> Self {
        Self {
            progress: watch::Sender::new(Progress::default()),
            stop: watch::Sender::new(false),
            over: watch::Sender::new(false),
        }
    }
}

impl Node {
    /// Connects to `address` and encrypts the link.
    ///
    /// # Errors
    /// [`NodeError::Connect`], [`NodeError::Handshake`].
    pub async fn dial(&self, address: &Address) -> Result<Wire, NodeError> {
        let link = self.transport.connect(address).await?;
        self.secure(link, true).await
    }

    /// Encrypts a link that is there already; `started` says whether this side started it.
    ///
    /// # Errors
    /// [`NodeError::Handshake`].
    pub async fn secure(&self, link: Link, started: bool) -> Result<Wire, NodeError> {
        let within = self.transport.limits().handshake_timeout;
        let secure = if started {
            connect(link, &self.channel_key, within).await?
        } else {
            accept(link, &self.channel_key, within).await?
        };
        Ok(secure.into())
    }

    /// Listens for links over HTTP. Only ever called because a user asked for it (I9).
    ///
    /// # Errors
    /// [`NodeError::Listen`].
    pub async fn listen(&self, address: ListenAddr) -> Result<HttpListener, NodeError> {
        let listener = self.transport.listen(address).await?;
        tracing::info!(address = %listener.local_addr(), "listening");
        Ok(listener)
    }

    /// Serves `replicas` to whoever comes to `listener`, until stopped. A peer's fault ends its own session only (I5).
    pub async fn serve(
        self: &Arc<Self>,
        mut listener: HttpListener,
        replicas: Vec<Arc<Replica>>,
        stop: watch::Receiver<bool>,
    ) {
        let mut stopping = stop.clone();
        let mut sessions = tokio::task::JoinSet::new();
        loop {
            let link = tokio::select! {
                link = self.next_link(&mut listener) => link,
                _ = stopping.wait_for(|stop| *stop) => None,
            };
            let Some(link) = link else { break };
            let (node, replicas, stop) = (Arc::clone(self), replicas.clone(), stop.clone());
            sessions.spawn(async move {
                let peer = link.peer().to_owned();
                if let Err(e) = node.serve_link(link, replicas, stop).await {
                    tracing::info!(peer, "a session ended: {e}");
                }
            });
            while sessions.try_join_next().is_some() {}
        }
        while sessions.join_next().await.is_some() {}
        listener.stop().await;
    }

    /// The next link that a peer opened, as [`HttpListener::accept`] gives it; that there was no place for others is noted
    /// meanwhile. May be cancelled.
    pub async fn next_link(&self, listener: &mut HttpListener) -> Option<Link> {
        let mut turns_away = listener.turns_away();
        loop {
            self.note_turned_away(listener.take_turned_away());
            tokio::select! {
                link = listener.accept() => {
                    if let Some(link) = &link {
                        tracing::debug!(address = link.peer(), "a peer connected");
                    }
                    return link;
                }
                Ok(()) = turns_away.changed() => {}
            }
        }
    }

    /// Serves `replicas` on one link that a peer started, to its end.
    ///
    /// # Errors
    /// [`NodeError`]; the link is gone then.
    pub async fn serve_link(
        &self,
        link: Link,
        replicas: Vec<Arc<Replica>>,
        stop: watch::Receiver<bool>,
    ) -> Result<Report, NodeError> {
        let address = link.peer().to_owned();
        let (progress, seen) = watch::channel(Progress::default());
        let mut greets = seen.clone();
        let _visit = self.visit(&address, seen.clone());
        let serving = async {
            let wire = self.secure(link, false).await?;
            // At once: who is refused may stay on the link for as long as it likes.
            let who = seen.clone();
            let refusal = |refusal: &Refusal| {
                let Refusal { code, text, by_peer } = refusal.clone();
                let refused = NodeError::Session { code, text, by_peer };
                self.note_trouble(&address, who.borrow().peer, &refused);
            };
            self.serve_noted(wire, replicas, Hears { progress, refusal: &refusal }, stop).await
        };
        let greeted = async {
            if let Ok(now) = greets.wait_for(|now| now.peer.is_some()).await
                && let Some(peer) = now.peer
            {
                self.engine.is_back(peer);
            }
        };
        let (served, ()) = tokio::join!(serving, greeted);
        let device = seen.borrow().peer;
        match &served {
            Ok(report) => self.remember(report, &address),
            Err(e) => self.note_trouble(&address, device, e),
        }
        served
    }

    /// As [`Self::serve_link`], on a link that is encrypted already.
    ///
    /// # Errors
    /// [`NodeError::Session`] when either side ended it for a reason, [`NodeError::Link`] when the link broke.
    pub async fn serve_on(
        &self,
        wire: Wire,
        replicas: Vec<Arc<Replica>>,
        stop: watch::Receiver<bool>,
    ) -> Result<Report, NodeError> {
        let progress = watch::Sender::new(Progress::default());
        self.serve_noted(wire, replicas, Hears { progress, refusal: &|_| () }, stop).await
    }

    async fn serve_noted(
        &self,
        wire: Wire,
        replicas: Vec<Arc<Replica>>,
        hears: Hears<'_>,
        stop: watch::Receiver<bool>,
    ) -> Result<Report, NodeError> {
        let task = Task {
            device: self.device.clone(),
            served: replicas,
            openings: Vec::new(),
            requests: BTreeMap::new(),
            until: Until::Closed,
        };
        run(task, wire, hears, stop, &self.bounds).await
    }

    /// Remembers that a peer was talked to at `address`.
    pub fn remember(&self, report: &Report, address: &str) {
        let peer = PeerRecord {
            device: report.peer,
            seen: self.device.now().0,
            address: address.to_owned(),
        };
        self.engine.is_back(report.peer);
        if let Some(home) = &self.home
            && let Err(e) = home.put_peer(&peer)
        {
            tracing::warn!("a peer could not be remembered: {e}");
        }
    }

    /// Syncs on a link that this side started.
    ///
    /// # Errors
    /// [`NodeError`].
    pub async fn sync_on(
        &self,
        link: Wire,
        openings: Vec<Opening>,
        until: Until,
        control: &Control,
    ) -> Result<Report, NodeError> {
        self.tell_again(openings.iter().map(|o| Arc::clone(&o.replica)).collect()).await;
        let mut requests = BTreeMap::new();
        for opening in openings.iter().filter(|o| o.direction != Direction::COMPARE) {
            let database = opening.replica.database();
            if let Some(request) = self.asking(database) {
                let evidence = match self.shown_with(&request).await {
                    Ok(evidence) => evidence,
                    Err(e) => {
                        // An admin may still let it in.
                        tracing::warn!("this device cannot show whose it is: {e}");
                        None
                    }
                };
                requests.insert(database, Asks { request, evidence });
            }
        }
        let task = Task {
            device: self.device.clone(),
            served: openings.iter().map(|o| Arc::clone(&o.replica)).collect(),
            openings,
            requests,
            until,
        };
        let hears = Hears { progress: control.progress.clone(), refusal: &|_| () };
        run(task, link, hears, control.stop.subscribe(), &self.bounds).await
    }

    /// Syncs one replica with the first of `addresses` that can be reached.
    ///
    /// # Errors
    /// [`NodeError::Unreachable`] when none can, else as [`Self::serve_on`].
    pub async fn sync(
        &self,
        opening: Opening,
        addresses: &[String],
        until: Until,
        control: &Control,
    ) -> Result<Report, NodeError> {
        let database = opening.replica.database();
        let (wire, address) = match self.reach(&opening.replica, addresses).await {
            Ok(reached) => reached,
            Err(e) => {
                addresses.iter().for_each(|address| self.note_fate(database, address, &Err(&e)));
                return Err(e);
            }
        };
        let replica = Arc::clone(&opening.replica);
        let result = self.sync_on(wire, vec![opening], until, control).await;
        self.note_fate(database, &address, &result.as_ref());
        if let Ok(report) = &result {
            self.remember(report, &address);
            self.let_in(&replica)?;
        }
        result
    }

    /// Writes down how it went with whoever is at `address`.
    fn note_fate(&self, database: DatabaseId, address: &str, result: &Result<&Report, &NodeError>) {
        let Some(home) = &self.home else { return };
        let now = self.device.now().0;
        let noted = home.fate(database, address).and_then(|fate| {
            let mut fate = fate.unwrap_or_default();
            match result {
                Ok(report) => {
                    fate = Fate { device: Some(report.peer), success: Some(now), failure: None };
                }
                Err(error) => {
                    fate.failed(now, &Why::of(error, fate.device.is_some()));
                }
            }
            home.put_fate(database, address, &fate)
        });
        if let Err(e) = noted {
            tracing::warn!("how it went with {address} could not be written down: {e}");
        }
    }

    /// A link to the first of `addresses` that can be reached, and which one that is.
    pub(crate) async fn reach(
        &self,
        replica: &Replica,
        addresses: &[String],
    ) -> Result<(Wire, String), NodeError> {
        let mut attempts = Vec::new();
        for text in addresses {
            let attempt = async {
                let address = Address::parse(text)?;
                let mut wire = self.dial(&address).await?;
                if let Address::Ssh(_) = address {
                    wire.introduce_member(replica).await?;
                }
                Ok::<_, NodeError>(wire)
            };
            match attempt.await {
                Ok(wire) => return Ok((wire, text.clone())),
                Err(e) => attempts.push((text.clone(), e)),
            }
        }
        Err(NodeError::Unreachable { database: replica.database(), attempts })
    }

    /// Syncs two replicas of one database that are both open here, over a link in memory.
    ///
    /// # Errors
    /// [`NodeError::Session`] when either side ended it for a reason, [`NodeError::Link`] when the link broke.
    pub async fn sync_local(
        &self,
        here: Opening,
        there: Arc<Replica>,
        until: Until,
        control: &Control,
    ) -> Result<Report, NodeError> {
        let (a, b) = anabranch_transport::memory::pair(16);
        let (stop, stopped) = watch::channel(false);
        let serve = self.serve_link(b, vec![there], stopped);
        let sync = async {
            let result = match self.secure(a, true).await {
                Ok(link) => self.sync_on(link, vec![here], until, control).await,
                Err(e) => Err(e),
            };
            stop.send_replace(true);
            result
        };
        let (served, synced) = tokio::join!(serve, sync);
        match (synced, served) {
            (Ok(report), _) => Ok(report),
            // The side that noticed first says why.
            (Err(NodeError::Link(_)), Err(e)) => Err(e),
            (
                Err(NodeError::Session { code: Code::Internal | Code::Full, .. }),
                Ok(Report { failed: Some(why), .. }),
            ) => {
                let text = format!("the other replica could not go on: {why}");
                Err(NodeError::Session { code: Code::Internal, text, by_peer: true })
            }
            (Err(e), _) => Err(e),
        }
    }

    /// Joins with `ticket`: fills `replica` and makes this device a member. Repeating it goes on where it stopped.
    ///
    /// # Errors
    /// [`NodeError::Unreachable`], [`NodeError::Session`] with the reason when the ticket is refused.
    pub async fn join(
        &self,
        replica: &Arc<Replica>,
        ticket: &Ticket,
        control: &Control,
    ) -> Result<Report, NodeError> {
        let (wire, address) = self.reach(replica, &ticket.addresses).await?;
        let result = self.join_on(wire, replica, ticket, control).await;
        self.note_fate(replica.database(), &address, &result.as_ref());
        if let Ok(report) = &result {
            self.remember(report, &address);
        }
        result
    }

    /// As [`Self::join`], on a link that this side started.
    ///
    /// # Errors
    /// As [`Self::join`].
    pub async fn join_on(
        &self,
        wire: Wire,
        replica: &Arc<Replica>,
        ticket: &Ticket,
        control: &Control,
    ) -> Result<Report, NodeError> {
        let opening = Opening {
            replica: Arc::clone(replica),
            direction: Direction::BOTH,
            ticket: Some(ticket.key.clone()),
        };
        let sync = async {
            let result = self.sync_on(wire, vec![opening], Until::Settled, control).await;
            control.over.send_replace(true);
            result
        };
        let (report, redeemed) = tokio::join!(sync, self.redeem(replica, ticket, control));
        let report = report?;
        redeemed?;
        if report.progress.told {
            self.joined(replica.database())?;
        }
        self.let_in(replica)?;
        Ok(report)
    }

    /// Syncs one replica on a link on which the other end asks for it, until both are settled.
    ///
    /// # Errors
    /// [`NodeError::Session`] when either side ended it for a reason, [`NodeError::Link`] when the link broke.
    pub async fn answer_on(
        &self,
        wire: Wire,
        replica: &Arc<Replica>,
        control: &Control,
    ) -> Result<Report, NodeError> {
        let task = Task {
            device: self.device.clone(),
            served: vec![Arc::clone(replica)],
            openings: Vec::new(),
            requests: BTreeMap::new(),
            until: Until::Settled,
        };
        let hears = Hears { progress: control.progress.clone(), refusal: &|_| () };
        run(task, wire, hears, control.stop.subscribe(), &self.bounds).await
    }

    /// Waits until the session that `control` watches has brought everything, then redeems `ticket`; peers wait for it and
    /// hear of it on the same session. Ends without a result when the session does.
    ///
    /// # Errors
    /// [`NodeError::Core`].
    pub async fn redeem(
        &self,
        replica: &Arc<Replica>,
        ticket: &Ticket,
        control: &Control,
    ) -> Result<(), NodeError> {
        let hold = replica.hold();
        let mut progress = control.progress.subscribe();
        tokio::select! {
            settled = progress.wait_for(|p| p.settled) => if settled.is_err() { return Ok(()) },
            () = control.ended() => return Ok(()),
        }
        let (key, joining) = (ticket.key.clone(), Arc::clone(replica));
        tokio::task::spawn_blocking(move || joining.redeem(&key))
            .await
            .map_err(|_| NodeError::Closed)??;
        drop(hold);
        Ok(())
    }

    /// Asks to be let in to `database` whenever it is synced from now on, until that happened.
    ///
    /// # Errors
    /// [`NodeError::Setting`] when the request says too much, [`NodeError::Core`].
    pub fn ask(&self, database: DatabaseId, request: Request) -> Result<(), NodeError> {
        if request.text.len() > TEXT_BYTES {
            let text = format!("a request says at most {TEXT_BYTES} bytes");
            return Err(NodeError::Setting(text));
        }
        match &self.home {
            Some(_) => self.set_request(database, Some(&request)),
            None => {
                let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
                asking.insert(database, request);
                Ok(())
            }
        }
    }

    /// By which this device asks to be let in to `database`, if it does.
    #[must_use]
    pub fn asking(&self, database: DatabaseId) -> Option<Request> {
        if self.home.is_none() {
            let asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
            return asking.get(&database).cloned();
        }
        // Records that cannot be read are complained of where it matters.
        let records = self.records().unwrap_or_default();
        records.into_iter().find_map(|r| r.request.filter(|_| r.database == database))
    }

    /// What shows that this device is one of the person's that the request names.
    async fn shown_with(&self, request: &Request) -> Result<Option<Vec<u8>>, NodeError> {
        let (Some(person), Some(this)) = (request.person, self.this.upgrade()) else {
            return Ok(None);
        };
        let evidence = tokio::task::spawn_blocking(move || this.evidence_of(person));
        Ok(Some(evidence.await.map_err(|_| NodeError::Closed)??.encode()))
    }

    fn set_request(&self, database: DatabaseId, to: Option<&Request>) -> Result<(), NodeError> {
        let Some(home) = &self.home else { return Ok(()) };
        for record in home.records()?.iter().filter(|r| r.database == database) {
            if record.request.as_ref() != to {
                home.change_record(record, |record| {
                    record.request = to.cloned();
                    Ok(())
                })?;
            }
        }
        Ok(())
    }

    /// Asks no more if this device is a member by now, as its own replica says.
    pub(crate) fn let_in(&self, replica: &Replica) -> Result<(), NodeError> {
        let database = replica.database();
        let Some(request) = self.asking(database) else { return Ok(()) };
        if request.is_met_by(replica.look(|view| view.role_of(&self.id()))?) {
            self.asking.lock().unwrap_or_else(PoisonError::into_inner).remove(&database);
            self.set_request(database, None)?;
        }
        Ok(())
    }

    /// Forgets the ticket by which a replica joined. Not before a peer knows that it did: to one that does not, and is not
    /// known as a member here either, the ticket is all there is to show.
    fn joined(&self, database: DatabaseId) -> Result<(), NodeError> {
        let Some(home) = &self.home else { return Ok(()) };
        for record in home.records()?.iter().filter(|r| r.database == database) {
            if record.ticket.is_some() {
                home.change_record(record, |record| {
                    record.ticket = None;
                    Ok(())
                })?;
            }
        }
        Ok(())
    }
}
