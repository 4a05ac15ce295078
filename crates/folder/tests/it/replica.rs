//! A replica with a toy database: a set of operations, values live until replaced, the winner by (time, id). It runs the
//! scanner, both halves of the planner and the applier the way a real one does.

use anabranch_core::blob::{ChunkHash, ChunkSpan};
use anabranch_folder::apply::{Applied, ContentSource, apply, clear_temp};
use anabranch_folder::base::{Base, Seen, Value, ValueId};
use anabranch_folder::fs::{Clock, FileSystem, Kind, ManualClock, MemFs};
use anabranch_folder::hold::Hold;
use anabranch_folder::path::RelPath;
use anabranch_folder::plan::{
    Action, Change, Goal, LocalStep, Plan, SeenCopies, Shape, Slot, Targets, plan_actions,
    plan_records,
};
use anabranch_folder::scan::{Problem, Scan, ScanWatch};
use anabranch_folder::state::State;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::io;
use std::sync::Arc;

pub(crate) fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

/// One operation on the cell of a path.
#[derive(Debug, Clone)]
pub(crate) struct Op {
    pub(crate) path: RelPath,
    pub(crate) state: Option<State>,
    pub(crate) replaces: Vec<ValueId>,
    pub(crate) at_ms: u64,
    pub(crate) author: String,
}

pub(crate) type Ops = BTreeMap<ValueId, Op>;
pub(crate) type Rows = BTreeMap<RelPath, Base>;

/// The live values of every path, the winner first.
pub(crate) fn live(ops: &Ops) -> BTreeMap<RelPath, Vec<Value>> {
    let replaced: BTreeSet<&ValueId> = ops.values().flat_map(|op| &op.replaces).collect();
    let mut live: BTreeMap<RelPath, Vec<Value>> = BTreeMap::new();
    for (id, op) in ops.iter().filter(|(id, _)| !replaced.contains(id)) {
        if let Some(state) = op.state.clone() {
            let (id, author, at_ms) = (id.clone(), op.author.clone(), op.at_ms);
            live.entry(op.path.clone()).or_default().push(Value { id, state, author, at_ms });
        }
    }
    for values in live.values_mut() {
        values.sort_by(|a, b| (b.at_ms, &b.id).cmp(&(a.at_ms, &a.id)));
    }
    live
}

type Sure<T> = Result<T, Infallible>;

fn sure<T: Clone>(map: &BTreeMap<RelPath, T>) -> impl Iterator<Item = Sure<(RelPath, T)>> + '_ {
    map.iter().map(|(path, what)| Ok((path.clone(), what.clone())))
}

/// The tree that the operations ask for.
pub(crate) fn targets(ops: &Ops) -> Vec<Slot> {
    let there = live(ops);
    let shape = Shape::gather(sure(&there)).unwrap();
    Targets::new(shape, sure(&there)).map(Result::unwrap).collect()
}

pub(crate) struct Replica {
    pub(crate) name: String,
    pub(crate) fs: MemFs,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) base: Rows,
    pub(crate) ops: Ops,
    /// What the applier was about to do, from where if it was a move: left over when it dies.
    notes: BTreeMap<RelPath, (Base, Option<RelPath>)>,
    written: u32,
}

/// What one run did.
#[derive(Debug, Default)]
pub(crate) struct Run {
    pub(crate) recorded: usize,
    pub(crate) plan: Plan,
    pub(crate) applied: Applied,
    pub(crate) problems: Vec<String>,
}

impl Run {
    pub(crate) fn moved_nothing(&self) -> bool {
        self.recorded == 0 && self.plan.actions.is_empty()
    }
}

#[derive(Default)]
struct Watch(Vec<String>);

impl ScanWatch for Watch {
    fn problem(&mut self, problem: Problem) {
        self.0.push(format!("{} {}", problem.path, problem.what));
    }
}

/// Whole files by hash, as they are on some disks at the moment of asking. Files here are single chunks.
pub(crate) struct Disks(pub(crate) Vec<MemFs>);

impl ContentSource for Disks {
    fn node(&mut self, _: &ChunkHash) -> io::Result<Option<Vec<u8>>> {
        Ok(None)
    }

    fn chunk(&mut self, span: &ChunkSpan) -> io::Result<Option<Vec<u8>>> {
        let files = self.0.iter().flat_map(|fs| fs.tree().into_values());
        let mut files = files.filter(|(stat, _)| stat.kind == Kind::File);
        Ok(files.find(|(_, bytes)| ChunkHash::of(bytes) == span.hash).map(|(_, bytes)| bytes))
    }
}

impl Replica {
    pub(crate) fn new(name: &str, clock: &Arc<ManualClock>) -> Self {
        let (fs, clock) = (MemFs::new(clock.clone()), clock.clone());
        let name = name.to_owned();
        let (base, ops, notes) = Default::default();
        Self { name, fs, clock, base, ops, notes, written: 0 }
    }

    /// Records what the user did, then makes the disk the tree. `others` are the disks of peers.
    pub(crate) fn run(&mut self, others: &[MemFs]) -> Run {
        let mut run = Run::default();
        let hidden = self.record(&mut run);
        self.apply(&hidden, others, &mut run);
        for (path, base) in &run.applied.base {
            match base {
                Some(base) => self.base.insert(path.clone(), base.clone()),
                None => self.base.remove(path),
            };
        }
        for action in &run.plan.actions {
            noted(action).into_iter().for_each(|(goal, _)| drop(self.notes.remove(&goal.path)));
        }
        run
    }

    /// Like [`Self::run`], but the program dies after `ops` operations of the file system, before anything that the
    /// applier did reaches the base. Returns whether it came to that.
    pub(crate) fn crash(&mut self, others: &[MemFs], mut ops: u32) -> bool {
        let (sent, died) = std::sync::mpsc::channel();
        self.fs.set_hook(move |_, _, _| {
            ops = ops.saturating_sub(1);
            if ops > 0 {
                return Ok(());
            }
            let _ = sent.send(());
            Err(io::Error::other("crashed"))
        });
        let mut run = Run::default();
        let hidden = self.record(&mut run);
        if run.problems.is_empty() {
            self.apply(&hidden, others, &mut run);
        }
        self.fs.clear_hook();
        clear_temp(&self.fs).unwrap();
        died.try_recv().is_ok()
    }

    /// What is as an apply that died was to make it is in the base, or returned where the base says something else; and what
    /// is not known because it cannot be looked at.
    fn recover(&mut self) -> (Rows, Hold) {
        let (mut done, mut hold) = (Rows::new(), Hold::new());
        for (at, (goal, from)) in std::mem::take(&mut self.notes) {
            let there = match self.there(&at, &goal) {
                Ok(there) => there,
                Err(_) => {
                    hold.add(at.clone());
                    from.iter().for_each(|from| hold.add(from.clone()));
                    self.notes.insert(at, (goal, from));
                    continue;
                }
            };
            match (there, self.base.get(&at)) {
                (Some(base), None) => {
                    let gone = |from: &RelPath| self.fs.lstat(from).is_err();
                    from.filter(gone).map(|from| self.base.remove(&from));
                    self.base.insert(at, base);
                }
                (Some(base), Some(old)) if !base.state.same_content(&old.state) => {
                    done.insert(at, base);
                }
                _ => {}
            }
        }
        (done, hold)
    }

    fn there(&self, at: &RelPath, goal: &Base) -> io::Result<Option<Base>> {
        let not_there = [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory];
        let stat = match self.fs.lstat(at) {
            Err(e) if not_there.contains(&e.kind()) => return Ok(None),
            stat => stat?,
        };
        let mode = stat.mode & 0o777;
        let state = match (&goal.state, stat.kind) {
            (State::Dir { .. }, Kind::Dir) => State::Dir { mode },
            (State::Symlink { target }, Kind::Symlink) if self.fs.read_link(at)? == *target => {
                goal.state.clone()
            }
            (State::File { content, .. }, Kind::File) => {
                drop(self.fs.open(at)?);
                if ChunkHash::of(&self.fs.read(at)?) != content.root() {
                    return Ok(None);
                }
                State::File { content: *content, kept: None, mode, mtime_ns: stat.mtime_ns }
            }
            _ => return Ok(None),
        };
        let seen = Seen::new(&stat, self.clock.now_ns());
        Ok(Some(Base { state, source: goal.source.clone(), seen }))
    }

    fn record(&mut self, run: &mut Run) -> Hold {
        let (done, hold) = self.recover();
        let copies = SeenCopies::gather(sure(&self.base)).unwrap();
        let there = live(&self.ops);
        let shape = Shape::gather(sure(&there)).unwrap();
        let mut watch = Watch::default();
        let mut scan = Scan::new(&self.fs, &*self.clock, &mut watch, sure(&self.base)).hiding(hold);
        let rows = scan.by_ref().map(|row| row.map_err(|error| error.to_string()));
        let there = sure(&there).map(|row| row.map_err(|error| error.to_string()));
        let mut records = plan_records(rows, Targets::new(shape, there), &copies).knowing(done);
        let steps: Result<Vec<LocalStep>, _> = records.by_ref().collect();
        let undecided = records.undecided();
        let hidden = scan.hidden().clone();
        drop(scan);
        let steps = steps.map(|steps| steps.into_iter().chain(undecided.decide(&hidden)));
        run.problems = watch.0;
        match steps {
            Ok(steps) => steps.for_each(|step| self.take(step, run)),
            Err(error) => run.problems.push(error.to_string()),
        }
        hidden
    }

    fn take(&mut self, step: LocalStep, run: &mut Run) {
        let record = match step {
            LocalStep::Adopt { path, base } => return drop(self.base.insert(path, base)),
            LocalStep::Forget { path } => return drop(self.base.remove(&path)),
            LocalStep::Record(record) => record,
        };
        run.recorded += 1;
        self.written += 1;
        let id = ValueId(format!("{}{:05}", self.name, self.written).into_bytes());
        let row = match &record.change {
            Change::DropValues { copy } => copy,
            _ => &record.path,
        };
        match record.change.base(id.clone()) {
            Some(base) => self.base.insert(row.clone(), base),
            None => self.base.remove(row),
        };
        let state = match record.change {
            Change::Put { state, .. } => Some(state),
            _ => None,
        };
        let at_ms = u64::try_from(self.clock.now_ns() / 1_000_000).unwrap();
        let (path, replaces, author) = (record.path, record.replaces, self.name.clone());
        self.ops.insert(id, Op { path, state, replaces, at_ms, author });
    }

    fn apply(&mut self, hidden: &Hold, others: &[MemFs], run: &mut Run) {
        run.plan = self.plan(hidden);
        for (goal, from) in run.plan.actions.iter().flat_map(noted) {
            let (state, source) = (goal.state.clone(), goal.source.clone());
            let seen =
                Seen { mode: 0, inode: 0, size: 0, mtime_ns: 0, ctime_ns: 0, settled: false };
            self.notes.insert(goal.path.clone(), (Base { state, source, seen }, from.cloned()));
        }
        let mut disks = Disks(std::iter::once(&self.fs).chain(others).cloned().collect());
        let applied = apply(&self.fs, &*self.clock, &run.plan.actions, &mut disks, &mut |_, _| {});
        match applied {
            Ok(applied) => run.applied = applied,
            Err(error) => run.problems.push(error.to_string()),
        }
    }

    pub(crate) fn plan(&self, hidden: &Hold) -> Plan {
        let copies = SeenCopies::gather(sure(&self.base)).unwrap();
        let there = live(&self.ops);
        let shape = Shape::gather(sure(&there)).unwrap();
        let targets = Targets::new(shape, sure(&there));
        plan_actions(sure(&self.base), targets, &copies, hidden).unwrap()
    }

    /// What a user sees: everything but the state directory.
    pub(crate) fn tree(&self) -> BTreeMap<RelPath, (anabranch_folder::fs::Stat, Vec<u8>)> {
        let mut tree = self.fs.tree();
        tree.retain(|path, _| !path.is_reserved());
        tree
    }

    pub(crate) fn text(&self, at: &str) -> Option<String> {
        self.fs.read(&path(at)).ok().map(|bytes| String::from_utf8(bytes).unwrap())
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.tree().keys().map(RelPath::to_string).collect()
    }
}

/// What is noted of an action before it is carried out.
fn noted(action: &Action) -> Vec<(&Goal, Option<&RelPath>)> {
    match action {
        Action::MakeDir { goal } | Action::Symlink { goal, .. } => vec![(goal, None)],
        Action::WriteFile { goal, keep, .. } => {
            let kept = keep.iter().map(|keep| (&keep.goal, Some(&goal.path)));
            std::iter::once((goal, None)).chain(kept).collect()
        }
        Action::Rename { from, goal, .. } => vec![(goal, Some(&from.path))],
        Action::Unpark { from, goal, .. } => vec![(goal, Some(from))],
        _ => Vec::new(),
    }
}

/// Both learn all that the other knows.
pub(crate) fn exchange(a: &mut Replica, b: &mut Replica) {
    for (id, op) in &a.ops {
        b.ops.entry(id.clone()).or_insert_with(|| op.clone());
    }
    for (id, op) in &b.ops {
        a.ops.entry(id.clone()).or_insert_with(|| op.clone());
    }
}

/// Both record, exchange and apply until nothing moves any more.
pub(crate) fn sync(a: &mut Replica, b: &mut Replica) {
    for _ in 0..6 {
        let (fs_a, fs_b) = (a.fs.clone(), b.fs.clone());
        let first = a.run(std::slice::from_ref(&fs_b));
        exchange(a, b);
        let second = b.run(std::slice::from_ref(&fs_a));
        exchange(a, b);
        if first.moved_nothing() && second.moved_nothing() {
            return;
        }
    }
    panic!("the replicas do not come to rest:\n{:?}\n{:?}", a.names(), b.names());
}
