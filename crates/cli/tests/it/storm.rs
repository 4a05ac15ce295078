//! A storm of `kill -9`: three devices, of which one serves, one syncs again and again and one follows, while programs
//! write to their databases and users edit their folders on all of them. Processes are killed at random moments of their
//! lives and at random bytes on the wire, connections are cut; what was acknowledged must survive, and at no moment may
//! anybody see half a file (I1, I6). `cargo xtask accept kill-storm` runs it for longer.

mod crew;
mod desk;
mod random;
mod verdict;

use crate::world::PATIENCE;
use anabranch_transport::testing::{CuttingProxy, Direction};
use crew::{Crew, Device, Slot, WRITERS, Way};
use desk::Contents;
use random::Random;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

/// How many processes are killed, if this does not say another number.
const KILLS: &str = "ANABRANCH_KILLS";
const FEW: usize = 12;
/// After so many, everything may come to rest and is judged; then it goes on. The first time the devices are still joining.
const ROUND: usize = 20;
/// Bytes until a kill or a cut, at most.
const BYTES: u64 = 300_000;

/// Ends the work of the crew when whoever made it returns, or panics.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_storm_of_kills_loses_nothing_and_tears_nothing() {
    let kills: usize = std::env::var(KILLS).map_or(FEW, |text| text.parse().unwrap());
    let mut random = Random::from_environment();
    let (devices, proxy, tickets) = devices();
    let contents = Contents::default();
    let mut left = kills;
    for round in 0.. {
        let now = left.min(ROUND);
        left -= now;
        let over = AtomicBool::new(false);
        let (contents, tickets, complaints) = (&contents, &tickets, Mutex::default());
        let crew = Crew { round, contents, tickets, over: &over, complaints };
        let start = Instant::now();
        let told =
            at_work(&crew, &devices, &mut random, |random| storm(&devices, &proxy, now, random));
        println!("{now} kills in {:.1} s: {told}", start.elapsed().as_secs_f64());
        for (said, times) in &*crew.complaints.lock().unwrap() {
            println!("    said {times} times: {said}");
        }
        verdict::settle(&devices, tickets);
        println!("  {}", verdict::judge(&devices, contents));
        devices.iter().for_each(Device::tidy_up);
        if left == 0 {
            return;
        }
    }
}

/// Does something while everybody is at work.
fn at_work<T>(
    crew: &Crew<'_>,
    devices: &[Device],
    random: &mut Random,
    act: impl FnOnce(&mut Random) -> T,
) -> T {
    thread::scope(|scope| {
        let _ends = Ends(crew.over);
        for device in devices {
            scope.spawn(|| crew.step(device));
            scope.spawn(|| crew.read(device));
            let mine = random.fork();
            scope.spawn(|| crew.edit(device, mine));
            for writer in 0..WRITERS {
                let mine = random.fork();
                scope.spawn(move || crew.put(device, writer, mine));
            }
        }
        act(random)
    })
}

/// The devices: the first has a database and a folder, which the others are about to join through the proxy.
fn devices() -> ([Device; 3], CuttingProxy, [String; 2]) {
    let hub = Device::new("ann", Way::Serving("0".into()));
    hub.home.ok(&["db", "new", "notes"]);
    let mut sharing = hub.home.start(&["share", "files", "--listen", "0"]);
    sharing.line();
    assert_eq!(sharing.interrupt(), 0);
    let (serving, address) = hub.home.serve("0");
    assert_eq!(serving.interrupt(), 0);
    let target = address.trim_start_matches("http://");
    let proxy = CuttingProxy::start(target.parse().unwrap()).unwrap();
    let through = format!("http://{}", proxy.addr());
    let tickets = ["notes", "files"].map(|replica| {
        let ticket = hub.home.ok(&["ticket", replica, "--address", &through]);
        format!("@{}", hub.home.write(&format!("ticket-{replica}"), &ticket))
    });
    let hub = Device { way: Way::Serving(target.to_owned()), ..hub };
    let others = [Device::new("bob", Way::Syncing), Device::new("cem", Way::Following)];
    let [bob, cem] = others;
    ([hub, bob, cem], proxy, tickets)
}

/// Kills so many processes, half of them of the device that serves. What was killed, in words.
fn storm(devices: &[Device; 3], proxy: &CuttingProxy, kills: usize, random: &mut Random) -> String {
    let [hub, bob, cem] = devices;
    let mut killed: BTreeMap<&str, u64> = BTreeMap::new();
    let mut cuts = 0;
    for n in 0..kills {
        thread::sleep(Duration::from_millis(random.below(400)));
        if random.below(2) == 0 {
            proxy.cut_after(direction(random), random.below(BYTES));
            cuts += 1;
        }
        let writer = random.below(WRITERS as u64) as usize;
        let writes = random.below(3) == 0;
        let device = match (n % 2, random.below(2)) {
            (0, _) => hub,
            (_, 0) => bob,
            _ => cem,
        };
        let (slot, what) = match (writes, &device.way) {
            (true, _) if n % 2 == 0 => {
                (&device.writing[writer], "of programs that write where it is served")
            }
            (true, _) => (&device.writing[writer], "of programs that write elsewhere"),
            (_, Way::Serving(_)) => (&device.stepping, "of the serving side"),
            (_, Way::Syncing) => (&device.stepping, "of the syncing side"),
            (_, Way::Following) => (&device.stepping, "of the following side"),
        };
        if writes {
            kill_within(slot, random, 40);
        } else if random.below(3) == 0 {
            kill_at_a_byte(slot, proxy, random);
        } else {
            kill_within(slot, random, 600);
        }
        *killed.entry(what).or_default() += 1;
    }
    let counts: Vec<String> =
        killed.iter().map(|(what, times)| format!("{times} {what}")).collect();
    format!("{}; {cuts} cuts", counts.join(", "))
}

fn direction(random: &mut Random) -> Direction {
    match random.below(2) {
        0 => Direction::ToTarget,
        _ => Direction::FromTarget,
    }
}

/// Kills what runs in `slot` at a moment of its life, at most so many milliseconds from now.
fn kill_within(slot: &Slot, random: &mut Random, milliseconds: u64) {
    let start = Instant::now();
    loop {
        while !slot.is_busy() {
            assert!(start.elapsed() < PATIENCE, "nothing starts there any more");
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_millis(random.below(milliseconds)));
        if slot.kill() {
            return;
        }
    }
}

/// Kills what runs in `slot` when so many more bytes have passed; soon, if they do not.
fn kill_at_a_byte(slot: &Slot, proxy: &CuttingProxy, random: &mut Random) {
    let direction = direction(random);
    let (send, passed) = channel();
    let offset = proxy.passed(direction) + random.below(BYTES);
    proxy.when_passed(direction, offset, move || _ = send.send(()));
    let _ = passed.recv_timeout(Duration::from_millis(700));
    kill_within(slot, random, 20);
}
