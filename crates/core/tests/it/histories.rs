//! Random histories of real replicas: writers that act on what they read long ago, copied and restored state directories,
//! wrong clocks, entries signed late, runs that get lost. In the end everybody holds the same, and it is what the
//! reference says (I2, I6, I11).

use crate::cases;
use crate::replica::{Device, Replica, write};
use anabranch_core::author::{Draft, Seen, Write};
use anabranch_core::entry::StoreId;
use anabranch_core::founding::Founding;
use anabranch_core::ops::{Role, ValueName};
use anabranch_core::path::Path;
use anabranch_core::seal::Scope;
use anabranch_core::verify::verify;
use anabranch_reference::{fold_with, frontier, judge};
use anabranch_store::MemoryStorage;
use proptest::prelude::*;
use proptest::sample::Index;
use std::collections::BTreeMap;

const PATHS: [&[&str]; 6] = [&["a"], &["a", "b"], &["a", "b", "c"], &["a", "d"], &["e"], &["f"]];

#[derive(Debug, Clone)]
struct W {
    path: usize,
    put: bool,
    below: bool,
    above: bool,
    /// Replaces what was read there some time ago, not what is there.
    stale: Option<Index>,
}

#[derive(Debug, Clone)]
enum Step {
    Write {
        who: Index,
        writes: Vec<W>,
        sign: bool,
    },
    /// Remembers what is there, for a later write.
    Read {
        who: Index,
        path: usize,
    },
    Send {
        from: Index,
        to: Index,
        runs: usize,
    },
    /// The state directory is copied, and both go on.
    Clone {
        who: Index,
        noticed: bool,
    },
    Backup {
        who: Index,
    },
    Restore {
        who: Index,
        which: Index,
        noticed: bool,
    },
    Clock {
        who: Index,
        to: u64,
    },
}

fn arb_write() -> impl Strategy<Value = W> {
    let often = |n| prop::bool::weighted(n);
    (
        0..PATHS.len(),
        often(0.7),
        often(0.2),
        often(0.2),
        prop::option::weighted(0.3, any::<Index>()),
    )
        .prop_map(|(path, put, below, above, stale)| W { path, put, below, above, stale })
}

fn arb_step() -> impl Strategy<Value = Step> {
    let who = any::<Index>;
    prop_oneof![
        6 => (who(), prop::collection::vec(arb_write(), 1..4), prop::bool::weighted(0.8))
            .prop_map(|(who, writes, sign)| Step::Write { who, writes, sign }),
        3 => (who(), 0..PATHS.len()).prop_map(|(who, path)| Step::Read { who, path }),
        6 => (who(), who(), prop_oneof![1usize..3, Just(usize::MAX)])
            .prop_map(|(from, to, runs)| Step::Send { from, to, runs }),
        1 => (who(), any::<bool>()).prop_map(|(who, noticed)| Step::Clone { who, noticed }),
        1 => who().prop_map(|who| Step::Backup { who }),
        1 => (who(), who(), any::<bool>())
            .prop_map(|(who, which, noticed)| Step::Restore { who, which, noticed }),
        1 => (who(), prop_oneof![Just(0), Just(u64::MAX), any::<u64>()])
            .prop_map(|(who, to)| Step::Clock { who, to }),
    ]
}

#[derive(Default)]
struct History {
    devices: Vec<Device>,
    /// Names of values, by path, as somebody read them some time.
    read: BTreeMap<usize, Vec<Vec<ValueName>>>,
    backups: Vec<Device>,
    copies: u64,
}

impl History {
    fn new(sealed: Scope) -> Self {
        let mut admin = Device::found_with(Founding { sealed, recovery: None });
        let others = [admin.admit(2, Role::Write), admin.admit(3, Role::Write)];
        let mut devices = vec![admin];
        devices.extend(others);
        devices[0].meet(&devices[1]);
        Self { devices, ..Self::default() }
    }

    /// What is drawn at random where the program runs.
    fn fresh(&mut self) -> (u64, [u8; 32]) {
        self.copies += 1;
        let mut instance = [0xcc; 32];
        instance[..8].copy_from_slice(&self.copies.to_be_bytes());
        (self.copies << 48, instance)
    }

    fn take(&mut self, step: &Step) {
        let who = |index: &Index| index.index(self.devices.len());
        match step {
            Step::Write { who: at, writes, sign } => {
                let at = who(at);
                let writes = writes.iter().map(|w| self.draft(w)).collect();
                let draft = Draft { writes, ..Draft::default() };
                self.devices[at].commit(&draft).unwrap();
                if *sign {
                    self.devices[at].seal();
                }
            }
            Step::Read { who: at, path } => {
                let at = Path::text(PATHS[*path]).map(|p| (who(at), p)).unwrap();
                let values = self.devices[at.0]
                    .replica
                    .view(|v| v.cell(&StoreId::table("t"), &at.1).unwrap());
                let names = values.iter().map(|v| v.name).collect();
                self.read.entry(*path).or_default().push(names);
            }
            Step::Send { from, to, runs } => {
                let (from, to) = (&self.devices[who(from)], &self.devices[who(to)]);
                from.replica.update(&to.replica, *runs);
            }
            Step::Clone { who: at, noticed } if self.devices.len() < 6 => {
                let at = who(at);
                let (epoch, instance) = self.fresh();
                let device = &self.devices[at];
                let mut copy = device.clone_to(if *noticed { instance } else { device.instance });
                copy.epoch = epoch;
                self.devices.push(copy);
            }
            Step::Clone { .. } => {}
            Step::Backup { who: at } => {
                let device = &self.devices[who(at)];
                self.backups.push(device.clone_to(device.instance));
            }
            Step::Restore { who: at, which, noticed } => {
                let Some(backup) = self.backups.get(which.index(self.backups.len().max(1))) else {
                    return;
                };
                let mut backup = backup.clone_to(backup.instance);
                let (at, (_, fresh)) = (who(at), self.fresh());
                let device = &mut self.devices[at];
                if backup.key.node_id() != device.key.node_id() {
                    // What only the other device could sign would be lost to all but this replica.
                    backup.seal();
                } else if !noticed {
                    device.replica = backup.replica;
                    device.instance = backup.instance;
                    return;
                }
                device.replica = backup.replica;
                device.instance = fresh;
            }
            Step::Clock { who: at, to } => {
                let at = who(at);
                self.devices[at].clock = *to / 2;
            }
        }
    }

    fn draft(&self, w: &W) -> Write {
        let seen = match (&w.stale, self.read.get(&w.path)) {
            (Some(which), Some(read)) => Seen::Values(which.get(read).clone()),
            _ => Seen::AtCommit,
        };
        let value = w.put.then(|| format!("{}", self.copies));
        let (below, above) = (w.below, w.above);
        Write { seen, below, above, ..write(PATHS[w.path], value.as_deref()) }
    }

    /// Everybody signs and meets everybody.
    fn settle(&mut self) {
        self.devices.iter_mut().for_each(Device::seal);
        for _ in 0..2 {
            for a in 1..self.devices.len() {
                self.devices[a - 1].meet(&self.devices[a]);
            }
            let last = self.devices.len() - 1;
            self.devices[last].meet(&self.devices[0]);
        }
    }
}

proptest! {
    #![proptest_config(cases(40))]

    #[test]
    fn whatever_happened_all_replicas_become_one(
        steps in prop::collection::vec(arb_step(), 1..40),
        sealed in prop::sample::select(vec![
            Scope::Nothing, Scope::Everything, Scope::Stores(vec!["t".into()]),
        ]),
    ) {
        let mut history = History::new(sealed.clone());
        for step in &steps {
            history.take(step);
        }
        history.settle();
        let replicas: Vec<&Replica> = history.devices.iter().map(|d| &d.replica).collect();
        let held = replicas[0].entries();
        let ring = replicas[0].view(|v| v.ring().unwrap());
        prop_assert_eq!(replicas[1].view(|v| v.sealed().unwrap()), sealed);
        let (state, digests) = (fold_with(&held, &ring), replicas[0].digests());
        for replica in &replicas {
            prop_assert_eq!(replica.digests(), digests);
            prop_assert!(replica.state() == state);
        }
        prop_assert_eq!(replicas[0].frontier(), frontier(&held));
        let all = held.iter().map(|e| (e.id(), e)).collect();
        for entry in &held {
            prop_assert_eq!(judge(&all, &replicas[0].database, entry), Ok(()));
        }
        let tx = anabranch_core::storage::Storage::read(&*replicas[1].storage).unwrap();
        let verified = verify(&*tx, &MemoryStorage::new(), &mut |_| {}).unwrap();
        prop_assert_eq!((verified.entries, verified.unsigned), (held.len() as u64, 0));
    }
}
