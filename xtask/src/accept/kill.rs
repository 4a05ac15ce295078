//! Processes killed at random bytes of a bootstrap: each goes on where it was, sends little again, and nothing is
//! damaged (I1, I6).

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::databases::{DATABASE, import, same};
use super::device::{Device, Lab, Running, bytes, check, since};
use super::dpkg;
use super::proxy::Proxy;
use crate::error::{Error, Result};
use crate::random::Random;
use crate::workspace::Workspace;

const KILLS: usize = 10;
/// What may be under way when a side dies: the credit a receiver gives, and one run.
const WINDOW: u64 = 1024 * 1024;
const RUN: u64 = 256 * 1024;
/// Another connection, key exchange, greeting and comparison, and records that wrap what is under way.
const AGAIN: u64 = 64 * 1024;
const PATIENCE: Duration = Duration::from_secs(120);

/// The serving side, which may be killed and started again.
struct Server {
    device: Device,
    running: Running,
    port: String,
}

impl Server {
    fn start(device: Device, port: &str) -> Result<(Self, Proxy)> {
        let (running, address) = device.start_serving(&["serve", "--listen", port])?;
        let proxy = Proxy::start(address)
            .map_err(|source| Error::Start { command: "the proxy".to_owned(), source })?;
        Ok((Self { device, running, port: address.port().to_string() }, proxy))
    }

    fn kill_and_restart(self, between: impl FnOnce() -> Result<()>) -> Result<Self> {
        self.running.kill();
        between()?;
        let (running, _) = self.device.start_serving(&["serve", "--listen", &self.port])?;
        Ok(Self { running, ..self })
    }
}

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let lab = Lab::new(workspace)?;
    let mut random = Random::from_environment();
    let a = lab.device("a");
    import(&lab, &a, &incompressible(dpkg::owned_paths()?, &mut random))?;
    let (server, proxy) = Server::start(a.clone(), "0")?;
    let ticket = a.ticket(&lab, DATABASE, &proxy.url())?;

    let undisturbed = lab.device("undisturbed");
    let start = Instant::now();
    undisturbed.run(&["join", &ticket])?;
    let plain = Plain { total: proxy.total(), down: proxy.received() };
    println!("ok  a bootstrap without a kill: {} in {}", bytes(plain.total), since(start));

    println!("-- the joining side is killed");
    let joining = lab.device("joining");
    let before = proxy.total();
    for offset in plain.offsets(&mut random) {
        let child = join_until(&joining, &ticket, &proxy, offset)?;
        child.kill();
        proxy.cut_and_go_on();
    }
    joining.run(&["join", &ticket])?;
    plain.judge(proxy.total() - before)?;

    println!("-- the serving side is killed");
    let served = lab.device("served");
    let (before, mut server) = (proxy.total(), server);
    for offset in plain.offsets(&mut random) {
        let child = join_until(&served, &ticket, &proxy, offset)?;
        server = server.kill_and_restart(|| {
            proxy.cut_and_go_on();
            end_of(child)
        })?;
    }
    served.run(&["join", &ticket])?;
    plain.judge(proxy.total() - before)?;

    for device in [&undisturbed, &joining, &served] {
        device.run(&["sync", DATABASE])?;
    }
    let all = [&a, &undisturbed, &joining, &served];
    same(&all)?;
    for device in all {
        print!("ok  {}: {}", device.name, device.run(&["db", "verify", DATABASE])?);
        no_leftovers(&device.home)?;
    }
    Ok(())
}

/// Adds 64 random bytes to each row: what compresses well would all fit into the window, and prove nothing.
fn incompressible(mut rows: Vec<(String, String)>, random: &mut Random) -> Vec<(String, String)> {
    for (_, package) in &mut rows {
        for _ in 0..8 {
            package.push_str(&format!(" {:016x}", random.next()));
        }
    }
    rows
}

/// What an undisturbed bootstrap sends.
struct Plain {
    total: u64,
    down: u64,
}

impl Plain {
    /// Where to kill: so many bytes after where the one before went on.
    fn offsets(&self, random: &mut Random) -> Vec<u64> {
        let each = self.down / (KILLS as u64 + 1);
        (0..KILLS).map(|_| 1 + random.below(2 * each)).collect()
    }

    fn judge(&self, total: u64) -> Result<()> {
        let allowed = (WINDOW + RUN + AGAIN) * KILLS as u64;
        let again = total.saturating_sub(self.total);
        check(
            &format!(
                "after {KILLS} kills at most {} is sent again (window {}, run {}, connection {} each)",
                bytes(allowed),
                bytes(WINDOW),
                bytes(RUN),
                bytes(AGAIN)
            ),
            again <= allowed,
            format!("{} again, {} in all", bytes(again), bytes(total)),
        )
    }
}

/// Joins until so many more bytes came; everything is held back then.
fn join_until(device: &Device, ticket: &str, proxy: &Proxy, more: u64) -> Result<Running> {
    let from = proxy.received();
    proxy.hold_at(from + more);
    let start = Instant::now();
    let mut child = device.start(&["join", ticket])?;
    while !proxy.is_holding() {
        if let Some(status) = child.ended()? {
            let got = proxy.received() - from;
            println!("    finished ({status}) after {} of {}", bytes(got), bytes(more));
            if status.success() {
                return Ok(child);
            }
            return Err(Error::NotAccepted(format!("a bootstrap goes on: {}", child.said())));
        }
        if start.elapsed() > PATIENCE {
            return Err(Error::NotAccepted(format!("a bootstrap goes on: {}", child.said())));
        }
        thread::sleep(Duration::from_millis(5));
    }
    println!("    killed after {}", bytes(more));
    Ok(child)
}

/// Waits until a client that lost its server gives up by itself.
fn end_of(mut child: Running) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if child.ended()?.is_some() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Err(Error::NotAccepted("a join that lost its server ends with an error".to_owned()))
}

/// No scratch or temporary file stays behind.
fn no_leftovers(home: &Path) -> Result<()> {
    let directory = home.join("databases");
    let entries = std::fs::read_dir(&directory)
        .map_err(|source| Error::File { path: directory.clone(), source })?;
    let names: Vec<String> = entries
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .filter(|name| name.starts_with('.') || name.contains("scratch"))
        .collect();
    check("nothing is left beside the databases", names.is_empty(), format!("{names:?}"))
}
