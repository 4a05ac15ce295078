//! Admitting what peers send: a verified run is checked against what is held and, if it is admissible, applied (I3, I4).
//! A refusal changes nothing that is not undone by dropping the transaction.

use crate::entry::{Entry, StoreId, StoreKind};
use crate::error::{Error, Refusal};
use crate::head::Head;
use crate::id::{LogId, Position, Seq};
use crate::key::DeviceKey;
use crate::ledger::Ledger;
use crate::membership;
use crate::rows::{BranchNo, Tip};
use crate::run::VerifiedRun;
use crate::sabotage::{self, Bug};
use crate::storage::WriteTx;

/// What became of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admitted {
    /// This many entries were new.
    New(u64),
    /// Everything in it was held already.
    Held,
}

impl Ledger<'_> {
    /// Applies `run` if everything it builds on is held and everything in it is admissible.
    ///
    /// Cost: a hash and a few look-ups an entry; nothing depends on the size of the database.
    ///
    /// # Errors
    /// [`Refusal::Gap`] when something it builds on is missing (nothing was changed: others may follow in the same
    /// transaction). Any other error: drop the transaction.
    pub fn admit(&mut self, run: &VerifiedRun) -> Result<Admitted, Error> {
        let Some(skip) = self.first_new(run)? else {
            return self.adopt_head(run);
        };
        let mut new = &run.entries()[skip..];
        if sabotage::is(Bug::HalfRun) && new.len() > 2 {
            new = &new[..new.len() / 2];
        }
        let prev = prev_position(&new[0]);
        self.require(new, prev.as_ref())?;
        let mut heads = run.parent_heads().skip(parent_count(&run.entries()[..skip]));
        let log = run.log();
        let Some(branch) = self.branch_after(&log, prev.as_ref())? else {
            return Err(Refusal::Gap(log, new[0].header().seq - 1).into());
        };
        let mut state = self.before(branch, prev.as_ref())?;
        if self.lacks_head_below(branch, &new[0])? {
            return Err(Refusal::Gap(log, new[0].header().seq - 1).into());
        }
        for entry in new {
            self.admit_entry(entry, branch, &mut heads, &mut state)?;
        }
        let tip = self.branch(branch)?.tip;
        self.keep_head(branch, tip, run.head().signature)?;
        Ok(Admitted::New(new.len() as u64))
    }

    /// Whether `entry`, the next one of its branch, uses another grant than the one before it, whose head is not known here: it
    /// is ours and was never signed, but somebody else has it, with a head.
    fn lacks_head_below(&mut self, branch: BranchNo, entry: &Entry) -> Result<bool, Error> {
        let row = self.branch(branch)?.clone();
        let Some((number, _)) = self.grant(&entry.header().grant)? else { return Ok(false) };
        let goes_on = row.owns(row.tip.seq) && row.grant != number;
        Ok(goes_on && self.view().head(branch, row.tip.seq)?.is_none())
    }

    /// Index of the first entry that is not held; `None` if all are.
    fn first_new(&mut self, run: &VerifiedRun) -> Result<Option<usize>, Error> {
        let entries = run.entries();
        // All or nothing is the usual case, so look at both ends before searching.
        if let Some(first) = entries.first()
            && self.find(&first.position())?.is_none()
        {
            return Ok(Some(0));
        }
        if self.find(&run.head().position)?.is_some() {
            return Ok(None);
        }
        let (mut held, mut new) = (0, entries.len() - 1);
        while new - held > 1 {
            let middle = held.midpoint(new);
            if self.find(&entries[middle].position())?.is_some() {
                held = middle;
            } else {
                new = middle;
            }
        }
        Ok(Some(new))
    }

    /// A run of which all is held may still bring the head over entries of ours that were never signed here: those a
    /// restored replica gets back from a peer.
    fn adopt_head(&mut self, run: &VerifiedRun) -> Result<Admitted, Error> {
        let position = run.head().position;
        if let Some(number) = self.find(&position)?
            && self.branch(number)?.head.is_none_or(|head| head.seq < position.seq)
        {
            let tip = Tip { seq: position.seq, id: position.id };
            self.keep_head(number, tip, run.head().signature)?;
        }
        if sabotage::is(Bug::AppliedTwice) {
            self.apply_again(run)?;
        }
        Ok(Admitted::Held)
    }

    /// What [`Bug::AppliedTwice`] does.
    fn apply_again(&mut self, run: &VerifiedRun) -> Result<(), Error> {
        for entry in run.entries() {
            let Some(branch) = self.find(&entry.position())? else { continue };
            for (store, payload) in entry.payloads() {
                let number = self.store_number(store)?;
                let bytes = payload.bytes().unwrap_or(&[]);
                let ring = self.ring()?;
                let Ok(bytes) = ring.open(&entry.header().log, store, bytes) else { continue };
                if store.kind.has_cells() {
                    crate::cells::apply(self, entry, branch, number, &bytes)?;
                } else if store.kind.has_sums() {
                    crate::counters::apply(self, number, &bytes)?;
                }
            }
        }
        Ok(())
    }

    /// Checks what needs no look below, then that everything `new` builds on is held, before anything is written: a gap
    /// must not leave half a run behind.
    fn require(&mut self, new: &[Entry], prev: Option<&Position>) -> Result<(), Error> {
        for entry in new {
            check_alone(entry)?;
        }
        let mut below: Vec<&Position> = prev.into_iter().collect();
        if !sabotage::is(Bug::ParentUnchecked) {
            below.extend(new.iter().flat_map(|e| &e.header().parents));
        }
        for position in below {
            if self.find(position)?.is_none() {
                return Err(Refusal::Gap(position.log, position.seq).into());
            }
        }
        for tip in new.iter().flat_map(membership::listed_by) {
            let Position { log, seq, .. } = tip.position;
            // What this very run brings will be there: nothing can name what comes after it.
            if new.iter().any(|entry| entry.position() == tip.position) {
                continue;
            }
            if self.find(&tip.position)?.is_none() {
                return Err(Refusal::Gap(log, seq).into());
            }
        }
        Ok(())
    }

    fn before(&mut self, branch: BranchNo, prev: Option<&Position>) -> Result<Before, Error> {
        let Some(position) = prev else {
            return Ok(Before::default());
        };
        let owner = match self.branch(branch)?.base {
            Some((below, seq)) if seq == position.seq => below,
            _ => branch,
        };
        let row = self.view().entry_row(owner, position.seq)?;
        let grant = if row.body.salt.is_some() {
            None
        } else {
            Some(membership::reference(&self.grant_row(row.body.grant)?))
        };
        let members = self.known_number(&StoreId::members())?;
        let members = row.body.payloads.iter().any(|(store, _)| Some(*store) == members);
        Ok(Before {
            place: Some((owner, position.seq)),
            generation: row.body.generation,
            judged: membership::Before { grant, members },
        })
    }

    fn admit_entry(
        &mut self,
        entry: &Entry,
        branch: BranchNo,
        heads: &mut impl Iterator<Item = Head>,
        before: &mut Before,
    ) -> Result<(), Error> {
        let header = entry.header();
        let mut generation = before.generation;
        let mut parents = Vec::with_capacity(header.parents.len());
        let mut below: Vec<(BranchNo, Seq)> = before.place.into_iter().collect();
        for parent in &header.parents {
            if sabotage::is(Bug::ParentUnchecked) && self.find(parent)?.is_none() {
                parents.push(branch);
                generation = header.generation - 1;
                let _ = heads.next();
                continue;
            }
            let number = self.parent(parent, heads)?;
            generation = generation.max(self.view().entry_row(number, parent.seq)?.body.generation);
            parents.push(number);
            below.push((number, parent.seq));
        }
        let right = generation.saturating_add(1);
        if header.generation != right && !sabotage::is(Bug::GenerationUnchecked) {
            return Err(
                Refusal::Generation { log: header.log, stated: header.generation, right }.into()
            );
        }
        if header.salt.is_some() {
            membership::check_genesis(entry)?;
        } else {
            membership::check(self, entry, &below, &before.judged)?;
        }
        for tip in membership::listed_by(entry) {
            let gap = Refusal::Gap(tip.position.log, tip.position.seq);
            let number = self.find(&tip.position)?.ok_or(gap)?;
            // The signature is in what is signed here, so it has to be right for everybody, also who knows another.
            if !tip.verify(&self.database()) || !self.pin_head(number, &tip)? {
                return Err(Refusal::CutNotHead(tip.position).into());
            }
        }
        self.append(entry, branch, &parents)?;
        *before = Before {
            place: Some((branch, header.seq)),
            generation: right,
            judged: membership::Before {
                grant: header.salt.is_none().then_some(header.grant),
                members: entry.payloads().any(|(store, _)| store.kind == StoreKind::MEMBERS),
            },
        };
        Ok(())
    }

    /// The branch that owns a parent, whose head is from now on kept for ever.
    fn parent(
        &mut self,
        parent: &Position,
        heads: &mut impl Iterator<Item = Head>,
    ) -> Result<BranchNo, Error> {
        let stated = heads.next();
        let gap = Refusal::Gap(parent.log, parent.seq);
        let number = self.find(parent)?.ok_or(gap)?;
        let proven = match stated {
            Some(head) => self.pin_head(number, &head)?,
            None => false,
        };
        if proven { Ok(number) } else { Err(Refusal::ParentNotHead(*parent).into()) }
    }
}

/// What is known of the entry before the one being admitted.
#[derive(Default)]
struct Before {
    place: Option<(BranchNo, Seq)>,
    generation: u64,
    judged: membership::Before,
}

/// Rules that an entry keeps or breaks whatever is held.
fn check_alone(entry: &Entry) -> Result<(), Refusal> {
    let (log, seq) = (entry.header().log, entry.header().seq);
    if entry.header().parents.iter().any(|parent| parent.log == log) {
        return Err(Refusal::OwnParent { log, seq });
    }
    // The id does not cover the bytes of a payload, so a peer could take them out on the way. Nothing erases or prunes
    // payloads yet, so an entry without one would mean something else here than everywhere else (I2).
    for (store, payload) in entry.payloads() {
        if payload.bytes().is_none() {
            return Err(match store.kind {
                StoreKind::MEMBERS => Refusal::MembersAbsent { log, seq },
                _ => Refusal::PayloadAbsent { log, seq },
            });
        }
    }
    Ok(())
}

fn prev_position(entry: &Entry) -> Option<Position> {
    let header = entry.header();
    header.prev.map(|id| Position { log: header.log, seq: header.seq - 1, id })
}

fn parent_count(entries: &[Entry]) -> usize {
    entries.iter().map(|e| e.header().parents.len()).sum()
}

/// What becomes of the cells of admitted entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// They are written at once, unless a bulk load is under way.
    AtOnce,
    /// They are left to [`crate::build`], since much more is to come.
    Bulk,
}

/// Admits runs in order, as one storage transaction that the caller commits. A run that waits for something missing is
/// set aside; the first inadmissible one ends the work (drop the transaction then). Keys of a sealed database that arrive for
/// `reader` are used at once.
///
/// # Errors
/// [`Error`]; never a gap.
pub fn admit_all<'r>(
    tx: &mut dyn WriteTx,
    runs: impl IntoIterator<Item = &'r VerifiedRun>,
    load: Load,
    reader: Option<&DeviceKey>,
) -> Result<Batch<'r>, Error> {
    let mut ledger = Ledger::open(tx)?;
    if let Some(reader) = reader {
        ledger.read_as(reader);
    }
    if load == Load::Bulk {
        ledger.load_in_bulk();
    }
    let (mut waiting, mut held) = (Vec::new(), Vec::new());
    let mut entries = 0;
    for run in runs {
        match ledger.admit(run) {
            Ok(Admitted::New(n)) => entries += n,
            Ok(Admitted::Held) => held.push(run),
            Err(Error::Refused(Refusal::Gap(log, seq))) => waiting.push((run, log, seq)),
            Err(e) => return Err(e),
        }
    }
    Ok(Batch { changes: ledger.finish()?, entries, held, waiting })
}

/// What [`admit_all`] did.
#[derive(Debug)]
pub struct Batch<'r> {
    /// For those who watch.
    pub changes: crate::ledger::Changes,
    /// Entries that were new.
    pub entries: u64,
    /// Runs of which everything was held already.
    pub held: Vec<&'r VerifiedRun>,
    /// Runs whose ground has not arrived, with the first place they miss.
    pub waiting: Vec<(&'r VerifiedRun, LogId, Seq)>,
}
