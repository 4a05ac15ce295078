//! What a session needs done on storage, and the doing of it. The session itself touches no storage: it asks for work and
//! is given the answer later, so the same code serves a thread pool, a simulator and a browser (I8).

use crate::frame::{BATCH_BYTES, Code, DATA_BYTES, OFFERS, Request};
use crate::pending::Pending;
use crate::rights::{Reason, Requests, Right, Shown};
use crate::summed::{LastSummed, Summed};
use crate::trial::Trial;
use anabranch_core::admit::{Load, admit_all};
use anabranch_core::blob::ChunkHash;
use anabranch_core::codec::{Reader, Writer};
use anabranch_core::entry::Timestamp;
use anabranch_core::error::Error;
use anabranch_core::frontier::{Frontier, FrontierTip};
use anabranch_core::id::{DatabaseId, LogId, NodeId, Position, Seq};
use anabranch_core::key::DeviceKey;
use anabranch_core::ledger::Changes;
use anabranch_core::limits;
use anabranch_core::outgoing::{Outgoing, Withhold};
use anabranch_core::riblt::{Difference, Symbol};
use anabranch_core::run::{Run, RunError, VerifiedRun};
use anabranch_core::sabotage::{self, Bug};
use anabranch_core::storage::{Durability, Storage, StorageError};
use anabranch_core::view::View;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where the blobs of a database are kept.
pub trait Blobs: Send + Sync {
    /// The bytes named `hash`, if they are here.
    ///
    /// # Errors
    /// Whatever keeps them reports.
    fn get(&self, hash: &ChunkHash) -> Result<Option<Vec<u8>>, StorageError>;

    /// Keeps bytes whose names were checked.
    ///
    /// # Errors
    /// Whatever keeps them reports.
    fn put(&self, blobs: &[(ChunkHash, Vec<u8>)]) -> Result<(), StorageError>;
}

/// A database as one session may use it.
#[derive(Clone)]
pub struct Access<'a> {
    /// Its storage.
    pub storage: &'a dyn Storage,
    /// Its blobs.
    pub blobs: &'a dyn Blobs,
    /// Requests to be let in.
    pub requests: &'a dyn Requests,
    /// Runs that wait, shared by all sessions.
    pub pending: &'a Mutex<Pending>,
    /// The frontier that was summed up last, shared by all sessions.
    pub summed: &'a LastSummed,
    /// How safe applied entries must be before they are acknowledged.
    pub durability: Durability,
    /// From how many tips on a frontier is summed up instead of told.
    pub sum_from: usize,
    /// From how many entries on, if that is also a quarter of those held, what arrives is loaded in bulk.
    pub bulk_from: u64,
    /// Who is at the other end.
    pub peer: NodeId,
    /// What it showed on this channel.
    pub shown: Shown,
    /// Whose keys of a sealed database are used as they arrive.
    pub reader: Option<&'a DeviceKey>,
    /// The wall clock, for tickets that expire.
    pub now: Timestamp,
}

/// A batch whose runs were verified.
#[derive(Debug)]
pub struct Batch(Vec<VerifiedRun>);

/// Who wrote what came in a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Authors {
    /// Devices of runs that brought something new.
    pub new: BTreeSet<NodeId>,
    /// Devices of runs that brought nothing, and of none that did.
    pub again: BTreeSet<NodeId>,
    /// Entries that were held already.
    pub doubles: u64,
}

/// Something to be done on storage.
#[derive(Debug)]
pub enum Work {
    /// Find out what the peer may have: at the opening, and again when the database changes while it may have nothing.
    Open {
        /// By which it asks to be let in.
        request: Option<Request>,
    },
    /// Read the frontier: all of it, or as far as the peer has shown that it knows.
    Frontier {
        /// What the peer showed; `None`: it may know everything.
        within: Option<Frontier>,
        /// Whether it may be summed up.
        summed: bool,
    },
    /// Find out in what our frontier and the one with these symbols differ.
    Differ {
        /// Comes back with the answer.
        round: u64,
        /// They.
        theirs: Vec<Symbol>,
    },
    /// Put the peer's frontier together.
    Assemble {
        /// Comes back with the answer.
        round: u64,
        /// What both have.
        common: Frontier,
        /// What only it has.
        named: Vec<FrontierTip>,
    },
    /// Find tips by what stands for them.
    Name {
        /// What was told of it.
        summed: Arc<Summed>,
        /// What stands for the tips.
        elements: Vec<u64>,
    },
    /// Note that the peer holds what we hold, if our frontier still is the one compared.
    Level {
        /// Own frontier digest when it was compared.
        digest: [u8; 32],
    },
    /// Find what the peer lacks.
    Plan {
        /// Its frontier.
        peer: Frontier,
    },
    /// Count what is still lacking of what the peer has told.
    Lacking {
        /// Its frontier.
        peer: Frontier,
    },
    /// Put the next batch together.
    Next {
        /// What the peer holds.
        out: Box<Outgoing>,
        /// What it turned out to hold since.
        held: Vec<Position>,
        /// Where logs fork.
        forks: Vec<(LogId, Option<Position>)>,
        /// Bytes that may be sent.
        budget: usize,
        /// Whose entries the peer does not want for now.
        withhold: Arc<Withhold>,
    },
    /// Find out which of these places are held.
    Judge {
        /// What the peer offered.
        places: Vec<Position>,
    },
    /// Find the highest of these places that is held.
    Fork {
        /// All of one log, from the tip downwards.
        samples: Vec<Position>,
        /// Whether the peer is to be shown our branches of that log.
        show: bool,
    },
    /// Unpack a batch and verify its runs. Needs no storage.
    Check {
        /// Which one.
        number: u64,
        /// What its entries must belong to.
        database: DatabaseId,
        /// Bytes before compression.
        raw: u32,
        /// zstd.
        bytes: Vec<u8>,
    },
    /// Apply a batch.
    Apply {
        /// It.
        batch: Batch,
        /// What came before it and was of no use.
        trial: Trial,
        /// What becomes of the cells.
        load: Load,
    },
    /// Read blobs, as many as fit.
    ReadBlobs {
        /// Their names.
        hashes: Vec<ChunkHash>,
    },
    /// Keep blobs.
    PutBlobs {
        /// Their names and bytes, not checked yet.
        blobs: Vec<(ChunkHash, Vec<u8>)>,
    },
}

impl Work {
    /// What it is, in a word or two for the log.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Open { .. } => "open",
            Self::Frontier { .. } => "read the frontier",
            Self::Differ { .. } => "compare frontiers",
            Self::Assemble { .. } => "assemble a frontier",
            Self::Name { .. } => "name tips",
            Self::Level { .. } => "note that both are level",
            Self::Plan { .. } => "plan",
            Self::Lacking { .. } => "count what is lacking",
            Self::Next { .. } => "put a batch together",
            Self::Judge { .. } => "look what is held",
            Self::Fork { .. } => "find a fork",
            Self::Check { .. } => "check a batch",
            Self::Apply { .. } => "apply a batch",
            Self::ReadBlobs { .. } => "read blobs",
            Self::PutBlobs { .. } => "keep blobs",
        }
    }
}

/// What came of it.
#[derive(Debug)]
pub enum Answer {
    /// To [`Work::Open`].
    Open {
        /// Own frontier digest.
        digest: [u8; 32],
        /// Whether the peer may read.
        right: Right,
    },
    /// To [`Work::Frontier`].
    Frontier {
        /// The tips to tell.
        frontier: Frontier,
        /// Whether that is all of them.
        whole: bool,
    },
    /// To [`Work::Frontier`]: all of them, summed up.
    Summed(Arc<Summed>),
    /// To [`Work::Differ`].
    Differ {
        /// Of the work.
        round: u64,
        /// What both have, and what stands for the tips that only the peer has; `None`: too few symbols.
        found: Option<(Frontier, Vec<u64>)>,
        /// Tips of our frontier.
        tips: usize,
    },
    /// To [`Work::Assemble`].
    Assembled {
        /// Of the work.
        round: u64,
        /// The frontier.
        frontier: Frontier,
        /// Its digest.
        digest: [u8; 32],
    },
    /// To [`Work::Name`].
    Named {
        /// Those of the frontier.
        tips: Vec<FrontierTip>,
    },
    /// To [`Work::Level`]: the frontier is another by now.
    Moved,
    /// To [`Work::Plan`] and [`Work::Level`].
    Plan {
        /// What the peer holds.
        out: Box<Outgoing>,
        /// Entries it lacks.
        due: u64,
        /// Entries it has that are not held here.
        lacking: u64,
        /// For each branch of a forked log: places along it.
        forks: Vec<Vec<Position>>,
        /// How what is lacking is to be applied.
        load: Load,
    },
    /// To [`Work::Lacking`].
    Lacking {
        /// The frontier that was asked about.
        peer: Frontier,
        /// Entries under it that are not held here.
        lacking: u64,
    },
    /// To [`Work::Next`].
    Next {
        /// What the peer holds after this batch.
        out: Box<Outgoing>,
        /// Bytes before compression, compressed bytes, entries; `None` when nothing is to be sent.
        batch: Option<(u32, Vec<u8>, u64)>,
        /// Tips of what is withheld, for the peer to be told of.
        offers: Vec<Position>,
        /// Own frontier digest.
        digest: [u8; 32],
        /// Whether the peer may still read; if not, there is no batch.
        right: Right,
    },
    /// To [`Work::Judge`].
    Judged {
        /// Those that are held.
        held: Vec<Position>,
        /// Those that are not.
        lacking: Vec<Position>,
    },
    /// To [`Work::Fork`].
    Fork {
        /// The log.
        log: LogId,
        /// The highest place held.
        held: Option<Position>,
        /// Places along our branches, if they were asked for.
        ours: Vec<Vec<Position>>,
    },
    /// To [`Work::Check`].
    Checked {
        /// Which one.
        number: u64,
        /// The batch, or why it is none.
        batch: Result<Batch, String>,
    },
    /// To [`Work::Apply`].
    Applied {
        /// Entries that were new.
        entries: u64,
        /// What changed.
        changes: Changes,
        /// Whose runs brought something new and whose did not, of the batch itself.
        authors: Authors,
        /// Heads of the runs in it: the peer holds these.
        heads: Vec<Position>,
        /// Own frontier digest.
        digest: [u8; 32],
        /// Whether the peer may read now.
        right: Right,
        /// Whether runs wait for something that has not come.
        waiting: bool,
        /// What is of no use so far and was not stored.
        trial: Trial,
    },
    /// To [`Work::ReadBlobs`].
    Blobs {
        /// Those that are here.
        found: Vec<(ChunkHash, Vec<u8>)>,
        /// Those that are not.
        missing: Vec<ChunkHash>,
        /// Those that did not fit and must be asked for again.
        later: Vec<ChunkHash>,
    },
    /// To [`Work::PutBlobs`].
    Stored {
        /// Their names.
        hashes: Vec<ChunkHash>,
    },
    /// It could not be done.
    Failed {
        /// Whose fault it is.
        code: Code,
        /// What happened, for people.
        text: String,
    },
}

impl Access<'_> {
    /// Does `work`. Blocking; memory is bounded by the size of a batch.
    #[must_use]
    pub fn perform(&self, work: Work) -> Answer {
        self.try_perform(work).unwrap_or_else(|e| Answer::Failed {
            code: match e {
                Error::Run(_) | Error::Refused(_) | Error::Decode(_) => Code::Protocol,
                Error::Storage(StorageError::Full) => Code::Full,
                _ => Code::Internal,
            },
            text: e.to_string(),
        })
    }

    fn try_perform(&self, work: Work) -> Result<Answer, Error> {
        match work {
            Work::Open { request } => self.open(request),
            Work::Frontier { within, summed } => self.frontier(within, summed),
            Work::Differ { round, theirs } => self.differ(round, &theirs),
            Work::Assemble { round, common, mut named } => {
                named.extend(common.tips());
                let frontier = Frontier::new(named);
                let digest = frontier.digest();
                Ok(Answer::Assembled { round, frontier, digest })
            }
            Work::Name { summed, elements } => self.name(&summed.frontier, &elements),
            Work::Level { digest } => self.level(&digest),
            Work::Plan { peer } => self.plan(&peer),
            Work::Lacking { peer } => {
                let tx = self.storage.read()?;
                let lacking = View::new(&*tx).lacking(&peer)?;
                Ok(Answer::Lacking { peer, lacking })
            }
            Work::Next { out, held, forks, budget, withhold } => {
                self.next(out, &held, &forks, budget, &withhold)
            }
            Work::Judge { places } => self.judge(places),
            Work::Fork { samples, show } => self.fork(&samples, show),
            Work::Check { number, database, raw, bytes } => {
                let batch = check(database, raw, &bytes).map_err(|e| e.to_string());
                Ok(Answer::Checked { number, batch })
            }
            Work::Apply { batch, trial, load } => self.apply(batch.0, trial, load),
            Work::ReadBlobs { hashes } => self.read_blobs(hashes),
            Work::PutBlobs { blobs } => self.put_blobs(&blobs),
        }
    }

    fn open(&self, request: Option<Request>) -> Result<Answer, Error> {
        let asked = self.asked(request)?;
        let tx = self.storage.read()?;
        let view = View::new(&*tx);
        let right = self.right(view)?.map_err(|reason| asked.map_or(reason, Reason::Request));
        Ok(Answer::Open { digest: view.frontier_digest()?, right })
    }

    fn frontier(&self, within: Option<Frontier>, summed: bool) -> Result<Answer, Error> {
        let tx = self.storage.read()?;
        let view = View::new(&*tx);
        let Some(shown) = within else {
            if let Some(refused) = self.refused(view)? {
                return Ok(refused);
            }
            if !summed {
                return Ok(Answer::Frontier { frontier: view.frontier()?, whole: true });
            }
            let ours = self.summed.of(view)?;
            if ours.frontier.tips().len() < self.sum_from {
                return Ok(Answer::Frontier { frontier: ours.frontier.clone(), whole: true });
            }
            // Here, since the session that tells it does not block.
            ours.row();
            return Ok(Answer::Summed(ours));
        };
        let whole = view.frontier()?;
        let database = view.database()?.ok_or(Error::Empty)?;
        // Whether a log is known costs a look-up, its head a signature: strangers do not get to choose.
        let mut known = Vec::new();
        for tip in shown.tips() {
            if !view.tips_of(&tip.head.position.log)?.is_empty() {
                known.push(*tip);
            }
        }
        let frontier = view.frontier_within(&Frontier::new(known).verified(&database))?;
        let whole = frontier.positions().eq(whole.positions());
        Ok(Answer::Frontier { frontier, whole })
    }

    fn differ(&self, round: u64, theirs: &[Symbol]) -> Result<Answer, Error> {
        let tx = self.storage.read()?;
        let view = View::new(&*tx);
        let database = view.database()?.ok_or(Error::Empty)?;
        let ours = self.summed.of(view)?;
        let tips = ours.frontier.tips().len();
        let found = ours.row().difference(theirs).map(|Difference { mine, theirs }| {
            let (_, common) = ours.frontier.split(&database, &mine.into_iter().collect());
            (common, theirs)
        });
        Ok(Answer::Differ { round, found, tips })
    }

    fn name(&self, frontier: &Frontier, elements: &[u64]) -> Result<Answer, Error> {
        let tx = self.storage.read()?;
        let view = View::new(&*tx);
        if let Some(refused) = self.refused(view)? {
            return Ok(refused);
        }
        let database = view.database()?.ok_or(Error::Empty)?;
        let (named, _) = frontier.split(&database, &elements.iter().copied().collect());
        Ok(Answer::Named { tips: named.tips().to_vec() })
    }

    fn level(&self, digest: &[u8; 32]) -> Result<Answer, Error> {
        let tx = self.storage.read()?;
        let view = View::new(&*tx);
        if view.frontier_digest()? != *digest {
            return Ok(Answer::Moved);
        }
        let out = Box::new(Outgoing::level(view)?);
        Ok(Answer::Plan { out, due: 0, lacking: 0, forks: Vec::new(), load: Load::AtOnce })
    }

    fn plan(&self, peer: &Frontier) -> Result<Answer, Error> {
        let tx = self.storage.read()?;
        let view = View::new(&*tx);
        let told = sabotage::is(Bug::Watermark) && peer.tips().len() > 2;
        let out = if told { Outgoing::level(view)? } else { Outgoing::new(view, peer)? };
        let due = out.count(view)?;
        let forks = view
            .forks(peer)?
            .iter()
            .map(|tip| view.samples(tip))
            .collect::<Result<_, StorageError>>()?;
        let lacking = view.lacking(peer)?;
        let much = lacking >= self.bulk_from && lacking >= view.totals()?.entries / 4;
        let load = if much { Load::Bulk } else { Load::AtOnce };
        Ok(Answer::Plan { out: Box::new(out), due, lacking, forks, load })
    }

    fn next(
        &self,
        mut out: Box<Outgoing>,
        held: &[Position],
        forks: &[(LogId, Option<Position>)],
        budget: usize,
        withhold: &Withhold,
    ) -> Result<Answer, Error> {
        let tx = self.storage.read()?;
        let view = View::new(&*tx);
        for position in held {
            out.note_held(view, position)?;
        }
        for (log, common) in forks {
            out.forked(view, log, common.as_ref())?;
        }
        out.refresh(view)?;
        let digest = view.frontier_digest()?;
        let right = self.right_still(view)?;
        if right.is_err() {
            return Ok(Answer::Next { out, batch: None, offers: Vec::new(), digest, right });
        }
        let (mut body, mut runs, mut entries) = (Writer::new(), 0, 0);
        // A run is at most this long, so the batch always fits.
        while body.len() + limits::RUN_BYTES < BATCH_BYTES.min(budget + limits::RUN_BYTES) {
            let Some(run) = out.next(view, withhold)? else { break };
            run.encode(&mut body);
            entries += run.entries().len() as u64;
            runs += 1;
        }
        // Who wants nothing at all for now compares anew when it does.
        let offers = if withhold.all { Vec::new() } else { out.offers(view, OFFERS)? };
        drop(tx);
        let batch = if runs == 0 {
            None
        } else {
            let mut w = Writer::new();
            w.array(runs).raw(&body.finish());
            let raw = w.finish();
            Some((raw.len() as u32, compress(&raw)?, entries))
        };
        Ok(Answer::Next { out, batch, offers, digest, right })
    }

    fn judge(&self, places: Vec<Position>) -> Result<Answer, Error> {
        let tx = self.storage.read()?;
        let view = View::new(&*tx);
        let (mut held, mut lacking) = (Vec::new(), Vec::new());
        for place in places {
            let here = view.holds(&place)? || sabotage::is(Bug::ClaimHeld);
            let side = if here { &mut held } else { &mut lacking };
            side.push(place);
        }
        Ok(Answer::Judged { held, lacking })
    }

    fn fork(&self, samples: &[Position], show: bool) -> Result<Answer, Error> {
        let tx = self.storage.read()?;
        let view = View::new(&*tx);
        let log = samples.first().map(|p| p.log).ok_or(Error::Empty)?;
        let mut held = None;
        for position in samples.iter().filter(|p| p.log == log) {
            if view.holds(position)? {
                held = Some(*position);
                break;
            }
        }
        let tips = if show { view.tips_of(&log)? } else { Vec::new() };
        let ours = tips.iter().filter(|tip| Some(**tip) != held).map(|tip| view.samples(tip));
        let ours = ours.collect::<Result<_, StorageError>>()?;
        Ok(Answer::Fork { log, held, ours })
    }

    fn apply(
        &self,
        batch: Vec<VerifiedRun>,
        mut trial: Trial,
        load: Load,
    ) -> Result<Answer, Error> {
        let runs = trial.with(batch);
        let heads: Vec<Position> = runs.iter().map(|run| run.head().position).collect();
        let mut tx = self.storage.write(self.durability)?;
        let batch = admit_all(&mut *tx, &runs, load, self.reader)?;
        let authors = authors(&runs, &batch);
        let (mut entries, mut changes) = (batch.entries, batch.changes);
        let early = batch.waiting.into_iter().map(|(run, log, seq)| (run.clone(), log, seq));
        let early: Vec<_> = early.collect();
        if entries > 0 && self.is_of_no_use(View::new(&*tx), &heads)? {
            drop(tx);
            return self.keep_on_trial(trial, runs, heads);
        }
        tx.commit()?;
        let mut arrived: Vec<(LogId, Seq)> =
            heads.iter().map(|head| (head.log, head.seq)).collect();
        arrived.extend(self.keep_early(&early)?);
        while !arrived.is_empty() {
            let (more, also) = self.retry(&mut arrived)?;
            entries += more;
            changes.merge(also);
        }
        let tx = self.storage.read()?;
        let view = View::new(&*tx);
        Ok(Answer::Applied {
            entries,
            changes,
            authors,
            heads,
            digest: view.frontier_digest()?,
            right: self.right_still(view)?,
            waiting: !early.is_empty(),
            trial: Trial::default(),
        })
    }

    /// Stores none of `runs`, so that who has lost its right cannot fill this disk.
    fn keep_on_trial(
        &self,
        trial: Trial,
        runs: Vec<VerifiedRun>,
        heads: Vec<Position>,
    ) -> Result<Answer, Error> {
        let Some(trial) = trial.go_on(runs) else {
            let (code, text) = Reason::Revoked.loss();
            return Ok(Answer::Failed { code, text: text.to_owned() });
        };
        let tx = self.storage.read()?;
        let view = View::new(&*tx);
        Ok(Answer::Applied {
            entries: 0,
            changes: Changes::default(),
            authors: Authors::default(),
            heads,
            digest: view.frontier_digest()?,
            right: self.right_still(view)?,
            waiting: false,
            trial,
        })
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps runs that came too early; returns what they wait for as far as another session has brought it meanwhile.
    fn keep_early(
        &self,
        early: &[(VerifiedRun, LogId, Seq)],
    ) -> Result<Vec<(LogId, Seq)>, StorageError> {
        for (run, log, seq) in early {
            self.pending().push(run.clone(), *log, *seq);
        }
        let tx = self.storage.read()?;
        let view = View::new(&*tx);
        let mut here = Vec::new();
        for (_, log, seq) in early {
            if view.tips_of(log)?.iter().any(|tip| tip.seq >= *seq) {
                here.push((*log, *seq));
            }
        }
        Ok(here)
    }

    /// Tries again what waited for the places that arrived, and leaves there what that brought in turn.
    fn retry(&self, arrived: &mut Vec<(LogId, Seq)>) -> Result<(u64, Changes), Error> {
        let ready: Vec<VerifiedRun> = {
            let mut pending = self.pending();
            arrived.drain(..).flat_map(|(log, seq)| pending.take_ready(&log, seq)).collect()
        };
        match self.admit_apart(&ready, arrived) {
            Err(Error::Storage(e)) => Err(e.into()),
            Ok(done) => Ok(done),
            // Other peers sent them, so a bad one is dropped and is nobody's fault here (I5).
            Err(_) => {
                let (mut entries, mut changes) = (0, Changes::default());
                for run in &ready {
                    match self.admit_apart(std::slice::from_ref(run), arrived) {
                        Ok((more, also)) => {
                            entries += more;
                            changes.merge(also);
                        }
                        Err(Error::Storage(e)) => return Err(e.into()),
                        Err(_) => {}
                    }
                }
                Ok((entries, changes))
            }
        }
    }

    fn admit_apart(
        &self,
        runs: &[VerifiedRun],
        arrived: &mut Vec<(LogId, Seq)>,
    ) -> Result<(u64, Changes), Error> {
        if runs.is_empty() {
            return Ok((0, Changes::default()));
        }
        let mut tx = self.storage.write(self.durability)?;
        let batch = admit_all(&mut *tx, runs, Load::AtOnce, self.reader)?;
        let mut pending = self.pending();
        for (run, log, seq) in &batch.waiting {
            pending.push((*run).clone(), *log, *seq);
        }
        drop(pending);
        let waits = |run: &VerifiedRun| batch.waiting.iter().any(|(w, ..)| std::ptr::eq(*w, run));
        let heads = runs.iter().filter(|run| !waits(run)).map(|run| run.head().position);
        arrived.extend(heads.map(|head| (head.log, head.seq)));
        if batch.entries > 0 {
            tx.commit()?;
        }
        Ok((batch.entries, batch.changes))
    }

    fn read_blobs(&self, hashes: Vec<ChunkHash>) -> Result<Answer, Error> {
        {
            let tx = self.storage.read()?;
            if self.right_still(View::new(&*tx))?.is_err() {
                return Ok(Answer::Blobs { found: Vec::new(), missing: hashes, later: Vec::new() });
            }
        }
        let (mut found, mut missing, mut later) = (Vec::new(), Vec::new(), Vec::new());
        let mut bytes = 0;
        for hash in hashes {
            if bytes >= DATA_BYTES {
                later.push(hash);
                continue;
            }
            match self.blobs.get(&hash)? {
                Some(blob) if blob.len() <= DATA_BYTES => {
                    bytes += blob.len();
                    found.push((hash, blob));
                }
                _ => missing.push(hash),
            }
        }
        Ok(Answer::Blobs { found, missing, later })
    }

    fn put_blobs(&self, blobs: &[(ChunkHash, Vec<u8>)]) -> Result<Answer, Error> {
        let verified = blobs.iter().try_for_each(|(hash, bytes)| hash.verify(bytes));
        if let Err(e) = verified
            && !sabotage::is(Bug::BlobUnverified)
        {
            return Ok(Answer::Failed { code: Code::Protocol, text: e.to_string() });
        }
        self.blobs.put(blobs)?;
        Ok(Answer::Stored { hashes: blobs.iter().map(|(hash, _)| *hash).collect() })
    }
}

fn authors(runs: &[VerifiedRun], batch: &anabranch_core::admit::Batch<'_>) -> Authors {
    let waiting = batch.waiting.iter().map(|(run, ..)| *run);
    let others: BTreeSet<*const VerifiedRun> =
        batch.held.iter().copied().chain(waiting).map(std::ptr::from_ref).collect();
    let came = runs.iter().filter(|run| !others.contains(&std::ptr::from_ref(*run)));
    let new: BTreeSet<NodeId> = came.map(|run| run.log().device).collect();
    let again =
        batch.held.iter().map(|run| run.log().device).filter(|device| !new.contains(device));
    let doubles = batch.held.iter().map(|run| run.entries().len() as u64).sum();
    Authors { again: again.collect(), new, doubles }
}

fn check(database: DatabaseId, raw: u32, bytes: &[u8]) -> Result<Batch, Error> {
    let raw = decompress(raw, bytes)?;
    let mut r = Reader::new(&raw);
    let runs: Vec<VerifiedRun> = (0..r.array("batch", limits::RUN_BYTES / 64)?)
        .map(|_| Run::decode(&mut r, database)?.verify())
        .collect::<Result<_, RunError>>()?;
    r.finish()?;
    Ok(Batch(runs))
}

fn compress(raw: &[u8]) -> Result<Vec<u8>, Error> {
    zstd::bulk::compress(raw, 1).map_err(|e| StorageError::Io(e.to_string()).into())
}

/// The stated size is a bound, so that a bomb is refused before it goes off.
fn decompress(raw: u32, bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let malformed =
        anabranch_core::codec::DecodeError::Malformed { what: "compressed batch", at: 0 };
    match zstd::bulk::decompress(bytes, raw as usize) {
        Ok(out) if out.len() == raw as usize => Ok(out),
        _ => Err(malformed.into()),
    }
}
