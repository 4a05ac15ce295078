//! Who works on a device while processes are killed: its user, those who read, programs that write to its database, and
//! what keeps it in step. Every process is in a slot, where it can be killed.

use super::desk::{Contents, User, read_all};
use super::random::Random;
use crate::world::{Home, PATIENCE, Running};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

/// Programs that write to the database of a device at once.
pub(super) const WRITERS: usize = 2;
const POLL: Duration = Duration::from_millis(2);

/// How a device is kept in step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    /// `serve` on this port: the others come to it.
    Serving(String),
    /// One `sync` after the other.
    Syncing,
    /// `serve` without a port: it goes to the others and stays.
    Following,
}

/// A device.
pub(super) struct Device {
    pub(super) name: &'static str,
    pub(super) home: Home,
    pub(super) way: Way,
    /// What keeps it in step.
    pub(super) stepping: Slot,
    pub(super) writing: [Slot; WRITERS],
    /// Rows that commands put and said so, by key.
    pub(super) acknowledged: Mutex<BTreeMap<String, u64>>,
    pub(super) reads: AtomicU64,
    pub(super) torn: Mutex<Vec<String>>,
}

impl Device {
    pub(super) fn new(name: &'static str, way: Way) -> Self {
        let home = Home::new();
        for dir in ["files", "desk"] {
            fs::create_dir(home.dir().join(dir)).unwrap();
        }
        Self {
            name,
            home,
            way,
            stepping: Slot::default(),
            writing: Default::default(),
            acknowledged: Mutex::default(),
            reads: AtomicU64::new(0),
            torn: Mutex::default(),
        }
    }

    pub(super) fn files(&self) -> PathBuf {
        self.home.dir().join("files")
    }

    pub(super) fn desk(&self) -> PathBuf {
        self.home.dir().join("desk")
    }

    /// Empties the desk.
    pub(super) fn tidy_up(&self) {
        fs::remove_dir_all(self.desk()).unwrap();
        fs::create_dir(self.desk()).unwrap();
    }
}

/// Where a process runs that may be killed.
#[derive(Default)]
pub(super) struct Slot(Mutex<Option<Running>>);

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.0.lock().unwrap()
    }

    pub(super) fn is_busy(&self) -> bool {
        alive(&mut self.lock()).is_some()
    }

    /// Kills what runs here; whether something did.
    pub(super) fn kill(&self) -> bool {
        let mut place = self.lock();
        alive(&mut place).map(Running::kill).is_some()
    }
}

fn alive(place: &mut Option<Running>) -> Option<&mut Running> {
    let running = place.as_mut()?;
    if running.ended().is_some() { None } else { Some(running) }
}

/// Everybody, at work.
pub(super) struct Crew<'a> {
    /// Which storm this is.
    pub(super) round: usize,
    pub(super) contents: &'a Contents,
    /// Tickets for the database and the folder, in files.
    pub(super) tickets: &'a [String; 2],
    pub(super) over: &'a AtomicBool,
    /// What commands complained of, and how often.
    pub(super) complaints: Mutex<BTreeMap<String, u64>>,
}

impl Crew<'_> {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Runs a command of the device until it ends; its exit code, or `None` if it was killed. What would go on for ever is
    /// told to end when it is time.
    fn run(&self, home: &Home, slot: &Slot, args: &[&str]) -> Option<i32> {
        *slot.lock() = Some(home.start(args));
        let mut told = None;
        loop {
            thread::sleep(POLL);
            let mut place = slot.lock();
            let running = place.as_mut().unwrap();
            if let Some(status) = running.ended() {
                let code = status.code();
                self.complain(args, &running.complaints());
                *place = None;
                return code;
            }
            if self.is_over() {
                let since: &mut Instant = told.get_or_insert_with(|| {
                    running.tell_to_end();
                    Instant::now()
                });
                assert!(since.elapsed() < PATIENCE, "{args:?} does not end");
            }
        }
    }

    fn complain(&self, args: &[&str], lines: &[String]) {
        assert!(!lines.iter().any(|line| line.contains("panicked")), "{args:?}: {lines:#?}");
        let because = lines.iter().filter(|line| line.trim_start().starts_with("because: "));
        for line in lines.iter().filter(|line| line.starts_with("error: ")).chain(because) {
            let said = format!("{}: {}", args[0], line.trim());
            *self.complaints.lock().unwrap().entry(said).or_default() += 1;
        }
    }

    /// Joins, the first time, then keeps the device in step.
    pub(super) fn step(&self, device: &Device) {
        let run = |args: &[&str]| self.run(&device.home, &device.stepping, args);
        let again = |args: &[&str]| {
            while !self.is_over() && run(args) != Some(0) {
                thread::sleep(Duration::from_millis(20));
            }
        };
        if self.round == 0 && !matches!(device.way, Way::Serving(_)) {
            again(&["join", &self.tickets[0]]);
            again(&["join", &self.tickets[1], "files"]);
        }
        while !self.is_over() {
            match &device.way {
                Way::Serving(port) => run(&["serve", "--listen", port]),
                Way::Syncing => run(&["sync"]),
                Way::Following => run(&["serve"]),
            };
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Puts one row after the other and notes those that are acknowledged.
    pub(super) fn put(&self, device: &Device, writer: usize, mut random: Random) {
        for n in 0.. {
            if self.is_over() {
                return;
            }
            // Some rows are written by everybody.
            let key = match random.below(5) {
                0 => format!("shared {}", random.below(9)),
                _ => format!("{} {} {writer} {n}", device.name, self.round),
            };
            let value = random.next() >> 12;
            let row = format!("{{\"value\":{value}}}");
            let slot = &device.writing[writer];
            if self.run(&device.home, slot, &["db", "put", "notes", "rows", &key, &row]) == Some(0)
            {
                device.acknowledged.lock().unwrap().insert(key, value);
            }
            thread::sleep(Duration::from_millis(random.below(120)));
        }
    }

    /// Does what users do.
    pub(super) fn edit(&self, device: &Device, mut random: Random) {
        let mut user = User::new(&device.files(), &device.desk(), self.contents, &mut random);
        while !self.is_over() {
            user.act();
            thread::sleep(Duration::from_millis(random.below(80)));
        }
    }

    /// Reads everything, again and again.
    pub(super) fn read(&self, device: &Device) {
        while !self.is_over() {
            let (read, torn) = read_all(&device.files());
            device.reads.fetch_add(read, Ordering::Relaxed);
            device.torn.lock().unwrap().extend(torn);
            thread::sleep(Duration::from_millis(5));
        }
    }
}
