//! What a disk knows and what is planned for it. Each operation takes its turn here, which says how it ends.

use crate::files::Files;
use crate::random::Random;
use crate::statistics::Statistics;

/// What SQLite asks a disk for, as far as it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Read(usize),
    Write(usize),
    Resize,
    Sync,
    Create,
    Delete,
}

/// How an operation ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    Succeeds,
    /// With an I/O error, having done any part of it.
    Fails,
    /// Not at all: the power goes while it is under way. Any part of it may be found later.
    LosesPower,
    /// Not for the process, which dies while it is under way, having done any part of it.
    Dies,
    /// The power is off, or the process that asks is dead.
    Refused,
}

/// What is planned to happen at the end of a countdown.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ending {
    PowerLoss,
    Death,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) random: Random,
    pub(crate) files: Files,
    pub(crate) statistics: Statistics,
    pub(crate) powered: bool,
    /// Syncs succeed and do nothing.
    pub(crate) lying: bool,
    /// Syncs that fail take what they should have written for written.
    pub(crate) forgetful: bool,
    /// Bytes by which files may still grow, if that is limited.
    pub(crate) room: Option<u64>,
    /// Changes from now to the one at which it ends.
    pub(crate) ending: Option<(u64, Ending)>,
    /// Operations from now to the one that fails.
    pub(crate) failure: Option<u64>,
    /// The number of the process that may use the disk.
    life: u64,
    /// Files open in that process.
    open: usize,
    /// Files that dead processes have not closed.
    stale: usize,
}

impl State {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            files: Files::default(),
            statistics: Statistics::default(),
            powered: true,
            lying: false,
            forgetful: false,
            room: None,
            ending: None,
            failure: None,
            life: 0,
            open: 0,
            stale: 0,
        }
    }

    /// The process whose requests are served: none while the power is off, or before a dead one has let go.
    pub(crate) fn life(&self) -> Option<u64> {
        (self.powered && self.stale == 0).then_some(self.life)
    }

    pub(crate) fn serves(&self, life: u64) -> bool {
        self.powered && life == self.life
    }

    pub(crate) fn open_files(&self) -> usize {
        self.open + self.stale
    }

    pub(crate) fn opened(&mut self) {
        self.open += 1;
    }

    pub(crate) fn closed(&mut self, life: u64) {
        if life == self.life {
            self.open -= 1;
        } else {
            self.stale -= 1;
        }
    }

    /// Counts an operation that the process `life` asks for, and says how it ends.
    pub(crate) fn turn(&mut self, life: u64, operation: Operation) -> Turn {
        if !self.serves(life) {
            return Turn::Refused;
        }
        self.count(operation);
        if !matches!(operation, Operation::Read(_))
            && let Some(ending) = self.ending_now()
        {
            self.end(ending);
            return match ending {
                Ending::PowerLoss => Turn::LosesPower,
                Ending::Death => Turn::Dies,
            };
        }
        match self.failure {
            Some(left) if left <= 1 => {
                self.failure = None;
                self.statistics.faults += 1;
                Turn::Fails
            }
            left => {
                self.failure = left.map(|left| left - 1);
                Turn::Succeeds
            }
        }
    }

    pub(crate) fn end(&mut self, ending: Ending) {
        self.ending = None;
        match ending {
            Ending::PowerLoss if !self.powered => return,
            Ending::PowerLoss => {
                self.powered = false;
                self.statistics.crashes += 1;
            }
            Ending::Death => self.statistics.kills += 1,
        }
        self.life += 1;
        self.stale += std::mem::take(&mut self.open);
    }

    /// How many of the bytes of a write there is room for, when it makes its file grow; takes that room.
    pub(crate) fn fit(&mut self, bytes: usize, growth: u64) -> usize {
        let Some(room) = &mut self.room else {
            return bytes;
        };
        let lacking = growth.saturating_sub(*room);
        *room = room.saturating_sub(growth);
        if lacking > 0 {
            self.statistics.faults += 1;
        }
        bytes.saturating_sub(lacking as usize)
    }

    /// Takes room that is given whole or not at all.
    pub(crate) fn take_room(&mut self, bytes: u64) -> bool {
        let left = self.room.map(|room| room.checked_sub(bytes));
        match left {
            Some(None) => {
                self.statistics.faults += 1;
                false
            }
            Some(left) => {
                self.room = left;
                true
            }
            None => true,
        }
    }

    pub(crate) fn give_room(&mut self, bytes: u64) {
        self.room = self.room.map(|room| room.saturating_add(bytes));
    }

    fn ending_now(&mut self) -> Option<Ending> {
        let (left, ending) = self.ending?;
        if left <= 1 {
            return Some(ending);
        }
        self.ending = Some((left - 1, ending));
        None
    }

    fn count(&mut self, operation: Operation) {
        let counts = &mut self.statistics;
        match operation {
            Operation::Read(bytes) => {
                counts.reads += 1;
                counts.bytes_read += bytes as u64;
            }
            Operation::Write(bytes) => {
                counts.writes += 1;
                counts.bytes_written += bytes as u64;
            }
            Operation::Resize => counts.resizes += 1,
            Operation::Sync => counts.syncs += 1,
            Operation::Create => counts.creations += 1,
            Operation::Delete => counts.deletions += 1,
        }
    }
}
