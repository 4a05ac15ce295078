//! Some replicas and their users, and what must hold whatever they do: all disks come to be the one tree that the
//! operations ask for, another run then moves nothing, and no content is gone that no user deleted or overwrote.

use crate::replica::{Replica, exchange, live, path, targets};
use anabranch_folder::fs::{FileSystem, Kind, ManualClock, MemFs, Op};
use anabranch_folder::path::RelPath;
use anabranch_folder::state::State;
use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex};

/// What a user does. Numbers pick among what there is.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    Write(u8),
    Overwrite(u8),
    ReplaceByRename(u8),
    Remove(u8),
    Rename(u8, u8),
    Swap(u8, u8),
    MakeDir(u8),
    Link(u8),
    Chmod(u8),
    Touch(u8),
}

#[derive(Debug, Clone)]
pub(crate) enum Step {
    User(u8, Act),
    Wait(u16),
    Meet(u8, u8),
    Run(u8),
    /// Dies after some operations.
    Crash(u8, u8),
    /// The disk has no room for new files.
    Full(u8),
    /// Some path cannot be looked at.
    Unreadable(u8, u8),
    /// The user acts after some operations of a run.
    During(u8, u8, Act),
}

const NAMES: [&str; 10] = ["a", "a.txt", "b", "d", "d/a", "d/b", "d/e", "d/e/a", "d.x", "d/e/f/g"];

/// Which contents users have written, and which of them a user has done away with.
#[derive(Default)]
pub(crate) struct Contents {
    written: u32,
    alive: BTreeSet<Vec<u8>>,
}

impl Contents {
    /// Content that nobody wrote before, always of one length: only the times tell that it changed.
    pub(crate) fn fresh(&mut self) -> Vec<u8> {
        self.written += 1;
        let text = format!("text {:06}", self.written).into_bytes();
        self.alive.insert(text.clone());
        text
    }
}

/// The tree as the user sees it.
fn seen(fs: &MemFs) -> Vec<RelPath> {
    fs.tree().into_keys().filter(|path| !path.is_reserved()).collect()
}

fn pick(paths: &[RelPath], n: u8) -> Option<&RelPath> {
    paths.get(usize::from(n) % paths.len().max(1))
}

fn fresh_name(n: u8) -> RelPath {
    path(NAMES[usize::from(n) % NAMES.len()])
}

impl Contents {
    /// Notes that the user does away with what is at `path` and below.
    pub(crate) fn forget(&mut self, fs: &MemFs, path: &RelPath) {
        for (other, (stat, bytes)) in fs.tree() {
            if stat.kind == Kind::File && (other == *path || other.is_below(path)) {
                self.alive.remove(&bytes);
            }
        }
    }

    pub(crate) fn remove(&mut self, fs: &MemFs, path: &RelPath) {
        self.forget(fs, path);
        for (other, (stat, _)) in fs.tree().into_iter().rev() {
            if other == *path || other.is_below(path) {
                match stat.kind {
                    Kind::Dir => fs.remove_dir(&other).unwrap(),
                    _ => fs.remove_file(&other).unwrap(),
                }
            }
        }
    }

    fn make_parents(fs: &MemFs, path: &RelPath) -> bool {
        let dirs: Vec<RelPath> = path.ancestors().collect();
        dirs.iter().rev().all(|dir| match fs.lstat(dir) {
            Ok(stat) => stat.kind == Kind::Dir,
            Err(_) => fs.make_dir(dir).is_ok(),
        })
    }

    fn is_file(fs: &MemFs, path: &RelPath) -> bool {
        fs.lstat(path).is_ok_and(|stat| stat.kind == Kind::File)
    }

    /// Carries out what a user does, as far as it makes sense there.
    pub(crate) fn act(&mut self, fs: &MemFs, act: &Act) {
        let all = seen(fs);
        match act {
            Act::Write(n) => {
                let at = fresh_name(*n);
                if Self::make_parents(fs, &at) && !fs.lstat(&at).is_ok_and(|s| s.kind != Kind::File)
                {
                    self.forget(fs, &at);
                    fs.write(&at, &self.fresh()).unwrap();
                }
            }
            Act::Overwrite(n) => {
                if let Some(at) = pick(&all, *n).filter(|at| Self::is_file(fs, at)) {
                    self.forget(fs, at);
                    fs.write(at, &self.fresh()).unwrap();
                }
            }
            Act::ReplaceByRename(n) => {
                if let Some(at) = pick(&all, *n).filter(|at| Self::is_file(fs, at)) {
                    let temp = RelPath::in_dir(at.parent().as_ref(), b".swp").unwrap();
                    if fs.lstat(&temp).is_err() {
                        fs.write(&temp, &self.fresh()).unwrap();
                        self.forget(fs, at);
                        fs.rename(&temp, at, true).unwrap();
                    }
                }
            }
            Act::Remove(n) => {
                if let Some(at) = pick(&all, *n) {
                    self.remove(fs, at);
                }
            }
            Act::Rename(n, to) => {
                let Some(from) = pick(&all, *n) else { return };
                let to = if to % 2 == 0 {
                    Some(fresh_name(to / 2))
                } else {
                    pick(&all, to / 2).cloned()
                };
                let Some(to) =
                    to.filter(|to| to != from && !to.is_below(from) && !from.is_below(to))
                else {
                    return;
                };
                if Self::make_parents(fs, &to) {
                    self.remove(fs, &to);
                    fs.rename(from, &to, true).unwrap();
                }
            }
            Act::Swap(a, b) => {
                let (Some(a), Some(b)) = (pick(&all, *a), pick(&all, *b)) else { return };
                if Self::is_file(fs, a) && Self::is_file(fs, b) && a != b {
                    fs.rename(a, &path(".t"), false).unwrap();
                    fs.rename(b, a, false).unwrap();
                    fs.rename(&path(".t"), b, false).unwrap();
                }
            }
            Act::MakeDir(n) => {
                let at = fresh_name(*n);
                if Self::make_parents(fs, &at) {
                    if Self::is_file(fs, &at) && n % 3 == 0 {
                        self.remove(fs, &at);
                    }
                    let _ = fs.make_dir(&at);
                }
            }
            Act::Link(n) => {
                let at = fresh_name(*n);
                if Self::make_parents(fs, &at) && fs.lstat(&at).is_err() {
                    fs.symlink(&[b'a' + n % 3], &at).unwrap();
                }
            }
            Act::Chmod(n) => {
                if let Some(at) = pick(&all, *n)
                    && fs.lstat(at).unwrap().kind != Kind::Symlink
                {
                    fs.set_mode(at, if n % 2 == 0 { 0o700 } else { 0o755 }).unwrap();
                }
            }
            Act::Touch(n) => {
                if let Some(at) = pick(&all, *n).filter(|at| Self::is_file(fs, at)) {
                    fs.set_mtime(at, i64::from(*n) * 1_000_000_007).unwrap();
                }
            }
        }
    }
}

pub(crate) struct World {
    pub(crate) replicas: Vec<Replica>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) contents: Arc<Mutex<Contents>>,
}

impl World {
    pub(crate) fn new(count: usize) -> Self {
        let clock = Arc::new(ManualClock::at(1_785_759_296_123_456_789));
        let names = ["ann", "bob", "cem"];
        let replicas = names[..count].iter().map(|name| Replica::new(name, &clock)).collect();
        Self { replicas, clock, contents: Arc::default() }
    }

    pub(crate) fn disks(&self) -> Vec<MemFs> {
        self.replicas.iter().map(|replica| replica.fs.clone()).collect()
    }

    pub(crate) fn step(&mut self, step: &Step) {
        let n = self.replicas.len();
        let at = |who: &u8| usize::from(*who) % n;
        let disks = self.disks();
        match step {
            Step::User(who, act) => self.contents.lock().unwrap().act(&disks[at(who)], act),
            Step::Wait(ms) => self.clock.advance(i64::from(*ms) * 1_000_000),
            Step::Meet(a, b) => {
                let (a, b) = (at(a), at(b));
                if a != b {
                    let mut two = self.replicas.get_disjoint_mut([a, b]).unwrap().into_iter();
                    exchange(two.next().unwrap(), two.next().unwrap());
                }
            }
            Step::Run(who) => drop(self.replicas[at(who)].run(&disks)),
            Step::Crash(who, ops) => {
                self.replicas[at(who)].crash(&disks, u32::from(*ops) + 1);
            }
            Step::Full(who) => self.run_with(at(who), |_, op, _| match op {
                Op::Write | Op::MakeDir => Err(io::ErrorKind::StorageFull.into()),
                _ => Ok(()),
            }),
            Step::Unreadable(who, which) => {
                let all = seen(&disks[at(who)]);
                if let Some(bad) = pick(&all, *which).cloned() {
                    self.run_with(at(who), move |_, _, path| match path {
                        Some(path) if *path == bad => Err(io::ErrorKind::PermissionDenied.into()),
                        _ => Ok(()),
                    });
                }
            }
            Step::During(who, ops, act) => {
                let (mut ops, act, contents) = (*ops, act.clone(), self.contents.clone());
                self.run_with(at(who), move |fs, _, _| {
                    if ops == 0 {
                        contents.lock().unwrap().act(fs, &act);
                    }
                    ops = ops.wrapping_sub(1);
                    Ok(())
                });
            }
        }
    }

    pub(crate) fn run_with(
        &mut self,
        who: usize,
        hook: impl FnMut(&MemFs, Op, Option<&RelPath>) -> io::Result<()> + Send + 'static,
    ) {
        let disks = self.disks();
        self.replicas[who].fs.set_hook(hook);
        self.replicas[who].run(&disks);
        self.replicas[who].fs.clear_hook();
    }

    /// Every content that no user did away with is on some disk.
    pub(crate) fn nothing_is_lost(&self) {
        let kept: BTreeSet<Vec<u8>> = self
            .disks()
            .iter()
            .flat_map(|fs| fs.tree().into_values())
            .map(|(_, bytes)| bytes)
            .collect();
        for content in &self.contents.lock().unwrap().alive {
            assert!(kept.contains(content), "lost {:?}", String::from_utf8_lossy(content));
        }
    }

    /// All meet, run, and wait, until nobody has anything to do.
    pub(crate) fn rest(&mut self) {
        let mut last = Vec::new();
        for _ in 0..12 {
            let mut moved = false;
            last.clear();
            for who in 0..self.replicas.len() {
                for other in 1..self.replicas.len() {
                    self.step(&Step::Meet(who as u8, (who + other) as u8));
                }
                let disks = self.disks();
                let run = self.replicas[who].run(&disks);
                moved |= !run.moved_nothing();
                last.push(run);
                self.nothing_is_lost();
                self.clock.advance(3_000_000_000);
            }
            if !moved {
                return;
            }
        }
        panic!("the replicas do not come to rest: {last:#?}");
    }

    /// Every disk is the tree, exactly.
    pub(crate) fn all_agree(&self) {
        for replica in &self.replicas {
            let tree = replica.tree();
            let slots = targets(&replica.ops);
            let wanted: Vec<String> = slots.iter().map(|slot| slot.path.to_string()).collect();
            assert_eq!(replica.names(), wanted, "{}", replica.name);
            for slot in slots {
                let (stat, bytes) = &tree[&slot.path];
                match &slot.state {
                    State::File { content, mode, mtime_ns, .. } => {
                        assert_eq!(
                            (stat.kind, stat.mode, stat.mtime_ns),
                            (Kind::File, *mode, *mtime_ns)
                        );
                        assert_eq!(content.root(), anabranch_core::blob::ChunkHash::of(bytes));
                    }
                    State::Dir { mode } => {
                        assert_eq!(stat.kind, Kind::Dir);
                        assert!(slot.is_implied() || stat.mode == *mode);
                    }
                    State::Symlink { target } => {
                        assert_eq!((stat.kind, target), (Kind::Symlink, bytes))
                    }
                }
            }
            let left = replica.fs.tree().into_keys().filter(|path| path.is_reserved()).count();
            assert!(left <= 2, "temporary files are left behind");
        }
        for pair in self.replicas.windows(2) {
            assert_eq!(live(&pair[0].ops), live(&pair[1].ops));
        }
        let alive = &self.contents.lock().unwrap().alive;
        for fs in self.disks() {
            let kept: BTreeSet<Vec<u8>> = fs.tree().into_values().map(|(_, bytes)| bytes).collect();
            assert!(alive.is_subset(&kept), "some disk lacks content");
        }
    }
}
