//! What it costs two replicas to stay in step: finding out that there is nothing new, catching up with a little on top of
//! much, hearing of a commit at once, and being one of many.

use crate::bootstrap::{Part, Said, filled, set_durability};
use crate::data::Keys;
use crate::spread::Spread;
use crate::{Error, Result, peak};
use anabranch_core::ticket::Ticket;
use anabranch_node::{Control, Node, NodeError, Opening, Replica, Until};
use anabranch_sync::channel::Direction;
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// New entries that a replica catches up with.
const NEW: u64 = 100;
/// Commits that the other side is to hear of, one by one.
const LIVE: usize = 200;
/// Entries of the database that many follow.
const SMALL: u64 = 1_000;

/// Before a node that was told to come back does.
const PAUSE: Duration = Duration::from_millis(50);

/// How much is measured.
pub(crate) struct Plan {
    pub(crate) entries: u64,
    pub(crate) runs: usize,
    /// Nodes that follow one.
    pub(crate) peers: usize,
    /// Sessions that they have together.
    pub(crate) sessions: usize,
    pub(crate) json: bool,
}

/// What came of it. Times in milliseconds, bytes as frames.
#[derive(Debug, Serialize)]
struct Outcome {
    entries: u64,
    nothing_new: Spread,
    nothing_new_bytes: u64,
    new: u64,
    catching_up: Spread,
    /// Canonical bytes of the new entries.
    catching_up_own: u64,
    catching_up_bytes: u64,
    heard_after: Spread,
    peers: usize,
    /// What the serving process takes more.
    peers_bytes: u64,
    sessions: usize,
    sessions_bytes: u64,
    /// How long the last of the sessions took to hear of a commit.
    sessions_heard_after: f64,
}

/// Measures and prints.
pub(crate) fn run(dir: &Path, plan: &Plan) -> Result<()> {
    let dir = tempfile::Builder::new().prefix("anabranch-follow").tempdir_in(dir)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let large = dir.path().join("large");
    eprintln!("making a database of {} entries", plan.entries);
    filled(&large, plan.entries, Keys::Random)?;
    let two = runtime.block_on(two(&large, &dir.path().join("there"), plan))?;
    std::fs::remove_dir_all(&large)?;
    let small = dir.path().join("small");
    filled(&small, SMALL, Keys::Random)?;
    let outcome = runtime.block_on(many(&small, plan, two))?;
    runtime.shutdown_timeout(Duration::from_secs(5));
    if plan.json {
        println!("{}", serde_json::to_string(&outcome)?);
    } else {
        print(&outcome);
    }
    Ok(())
}

/// What the two of them cost.
struct Two {
    nothing_new: (Spread, u64),
    catching_up: (Spread, u64, u64),
    heard_after: Spread,
}

async fn two(here: &Path, there: &Path, plan: &Plan) -> Result<Two> {
    set_durability(here, Some("normal"))?;
    let mut serving = Part::serve(here)?;
    let ticket: Ticket = serving.ticket().parse()?;
    let node = Node::open(there)?;
    let replica = node.prepare(&ticket, "bench")?;
    node.join(&replica, &ticket, &Control::default()).await?;
    let addresses = ticket.addresses.clone();
    let passed = || {
        let (up, down) = node.bytes_passed();
        up + down
    };
    let sync = || async {
        let (before, start) = (passed(), Instant::now());
        let control = Control::default();
        let report = node.sync(opening(&replica), &addresses, Until::Settled, &control).await?;
        Ok::<_, Error>((milliseconds(start), passed() - before, report.progress.entries_received))
    };
    let (mut idle, mut idle_bytes) = (Vec::new(), 0);
    let (mut new, mut new_bytes, mut own) = (Vec::new(), 0, 0);
    for run in 0..plan.runs as u64 {
        let (took, bytes, moved) = sync().await?;
        idle.push(took);
        idle_bytes = bytes.max(idle_bytes);
        if moved != 0 {
            return Err("something was new".into());
        }
        own = serving.put(plan.entries + run * NEW, NEW)?.bytes;
        let (took, bytes, moved) = sync().await?;
        new.push(took);
        new_bytes = bytes.max(new_bytes);
        if moved != NEW {
            return Err(format!("{moved} instead of {NEW} entries were new").into());
        }
    }
    let control = Control::default();
    let (following, opened) = (Arc::clone(&node), opening(&replica));
    let session =
        async move { following.sync(opened, &ticket.addresses, Until::Closed, &control).await };
    let session = tokio::spawn(session);
    let mut heard = Vec::new();
    for n in 0..=LIVE as u64 {
        let seen = replica.look(|view| view.next_arrival())?;
        let from = plan.entries + plan.runs as u64 * NEW + n;
        let said = serving.put(from, 1)?;
        arrived(&replica, seen + 1).await?;
        // The first one waits until the link stands.
        if n > 0 {
            heard.push(now().saturating_sub(said.began) as f64 / 1e3);
        }
    }
    session.abort();
    serving.last()?;
    Ok(Two {
        nothing_new: (Spread::of(idle), idle_bytes),
        catching_up: (Spread::of(new), own, new_bytes),
        heard_after: Spread::of(heard),
    })
}

async fn many(home: &Path, plan: &Plan, two: Two) -> Result<Outcome> {
    set_durability(home, Some("normal"))?;
    {
        let node = Node::open(home)?;
        let home = node.home().ok_or("a node in memory has no home")?;
        home.configure("net.http_max_connections", Some("8192"))?;
    }
    let mut serving = Part::serve(home)?;
    let ticket: Ticket = serving.ticket().parse()?;
    let mut followers = Vec::new();
    for _ in 0..plan.peers {
        let node = Node::in_memory()?;
        let replica = node.prepare(&ticket, "bench")?;
        node.join(&replica, &ticket, &Control::default()).await?;
        followers.push((node, replica));
    }
    let mut sessions = JoinSet::new();
    let mut follow = |at: usize| {
        let (node, replica) = &followers[at % followers.len()];
        let (node, opened) = (Arc::clone(node), opening(replica));
        let addresses = ticket.addresses.clone();
        sessions.spawn(async move {
            loop {
                let (opened, control) = (opened.clone(), Control::default());
                match node.sync(opened, &addresses, Until::Closed, &control).await {
                    // Too many at once.
                    Err(NodeError::Unreachable { .. }) => tokio::time::sleep(PAUSE).await,
                    ended => return ended,
                }
            }
        });
    };
    for (node, replica) in &followers {
        let addresses = &ticket.addresses;
        node.sync(opening(replica), addresses, Until::Settled, &Control::default()).await?;
    }
    let before = serving.memory()?;
    (0..plan.peers).for_each(&mut follow);
    let mut from = SMALL;
    hear(&mut serving, &followers, &mut from).await?;
    let with_peers = serving.memory()?;
    (plan.peers..plan.sessions).for_each(&mut follow);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let heard = hear(&mut serving, &followers, &mut from).await?;
    let with_sessions = serving.memory()?;
    if let Some(ended) = sessions.try_join_next() {
        return Err(format!("a session ended: {ended:?}").into());
    }
    sessions.abort_all();
    serving.last()?;
    Ok(Outcome {
        entries: plan.entries,
        nothing_new: two.nothing_new.0,
        nothing_new_bytes: two.nothing_new.1,
        new: NEW,
        catching_up: two.catching_up.0,
        catching_up_own: two.catching_up.1,
        catching_up_bytes: two.catching_up.2,
        heard_after: two.heard_after,
        peers: plan.peers,
        peers_bytes: with_peers.saturating_sub(before),
        sessions: plan.sessions,
        sessions_bytes: with_sessions.saturating_sub(before),
        sessions_heard_after: heard,
    })
}

/// Commits until all followers are connected and hear of it; milliseconds that the last commit took to reach the last one.
async fn hear(
    serving: &mut Part,
    followers: &[(Arc<Node>, Arc<Replica>)],
    from: &mut u64,
) -> Result<f64> {
    let mut took = 0.0;
    for _ in 0..5 {
        let said = serving.put(*from, 1)?;
        *from += 1;
        for (_, replica) in followers {
            while replica.look(|view| view.totals())?.entries < said.held {
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
        }
        took = now().saturating_sub(said.began) as f64 / 1e3;
    }
    Ok(took)
}

async fn arrived(replica: &Replica, next: u64) -> Result<()> {
    let mut versions = replica.versions();
    while replica.look(|view| view.next_arrival())? < next {
        versions.changed().await?;
    }
    Ok(())
}

fn opening(replica: &Arc<Replica>) -> Opening {
    Opening { replica: Arc::clone(replica), direction: Direction::BOTH, ticket: None }
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// The wall clock in microseconds, which the processes share.
pub(crate) fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

/// Answers a line on the standard input of the serving process.
pub(crate) async fn answer(line: &str, replica: &Replica) -> Result<Said> {
    let words = line.split_whitespace().map(|word| Ok(word.parse()?));
    let words = words.collect::<Result<Vec<u64>>>()?;
    let mut said = Said { memory: peak::now()?, ..Said::default() };
    if let [from, count] = words[..] {
        let drafts = (from..from + count).map(|n| Keys::Random.draft(n)).collect::<Result<_>>()?;
        said.began = now();
        let entries = replica.commit(drafts).await?;
        said.bytes = entries.iter().flatten().map(|entry| entry.bytes() as u64).sum();
        said.held = replica.read(|view| view.totals())?.entries;
        // Peers are told what is signed, which follows in a moment.
        while count > 1 && replica.read(|view| view.unsigned())? > 0 {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    }
    Ok(said)
}

fn print(o: &Outcome) {
    println!("{} entries held, medians (lowest to highest)", o.entries);
    let line = |what: &str, s: Spread, bytes: String| {
        println!("{what:<34}{:>8.2} ms ({:.2}..{:.2}){bytes}", s.median, s.low, s.high);
    };
    line("nothing new, with connecting", o.nothing_new, format!(", {} bytes", o.nothing_new_bytes));
    let bytes = format!(", {} bytes for {}", o.catching_up_bytes, o.catching_up_own);
    line(&format!("{} new, with connecting", o.new), o.catching_up, bytes);
    line("a commit is heard of after", o.heard_after, String::new());
    let mb = |bytes: u64| bytes as f64 / 1e6;
    println!("{} live peers take {:.1} MB", o.peers, mb(o.peers_bytes));
    println!(
        "{} live sessions take {:.1} MB, and the last peer hears of a commit after {:.1} ms",
        o.sessions,
        mb(o.sessions_bytes),
        o.sessions_heard_after
    );
}
