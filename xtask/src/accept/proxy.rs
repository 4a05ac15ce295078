//! A TCP proxy that shares no code with the product: it counts the bytes that pass, and holds everything back once a
//! given number came from the target, so that a process can be killed at that byte. It runs on threads.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// A proxy on a loopback port of its own, in front of one target. Dropping it cuts everything and stops it.
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    target: SocketAddr,
    stopped: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
    connections: Mutex<Vec<Arc<Connection>>>,
}

#[derive(Default)]
struct State {
    to_target: u64,
    from_target: u64,
    /// Everything is held back when `from_target` gets here.
    hold_at: Option<u64>,
    held: bool,
}

struct Connection {
    client: TcpStream,
    target: TcpStream,
    cut: AtomicBool,
}

impl Proxy {
    /// Starts a proxy that forwards every connection to `target`.
    pub(crate) fn start(target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target,
            stopped: AtomicBool::new(false),
            state: Mutex::default(),
            changed: Condvar::new(),
            connections: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accepting.accept_all(&listener));
        Ok(Self { address, shared })
    }

    /// How a ticket names it.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The bytes that went both ways since the start.
    pub(crate) fn total(&self) -> u64 {
        let state = lock(&self.shared.state);
        state.to_target + state.from_target
    }

    /// The bytes that came from the target since the start.
    pub(crate) fn received(&self) -> u64 {
        lock(&self.shared.state).from_target
    }

    /// Holds everything back when so many bytes came from the target since the start.
    pub(crate) fn hold_at(&self, offset: u64) {
        lock(&self.shared.state).hold_at = Some(offset);
    }

    /// Whether everything is held back.
    pub(crate) fn is_holding(&self) -> bool {
        lock(&self.shared.state).held
    }

    /// Cuts all connections, with what was held back, and lets new ones pass without a hold.
    pub(crate) fn cut_and_go_on(&self) {
        self.shared.cut();
        let mut state = lock(&self.shared.state);
        state.hold_at = None;
        state.held = false;
        self.shared.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        self.cut_and_go_on();
        // Wakes the thread that accepts; if it is gone already, so much the better.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn accept_all(self: Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming() {
            if self.stopped.load(Ordering::SeqCst) {
                return;
            }
            // A target that is down is seen by the client as a connection that closes at once.
            let Ok(client) = client else { continue };
            let Ok(target) = TcpStream::connect(self.target) else { continue };
            for stream in [&client, &target] {
                // Only costs time where it cannot be set.
                let _ = stream.set_nodelay(true);
            }
            let connection = Arc::new(Connection { client, target, cut: AtomicBool::new(false) });
            lock(&self.connections).push(Arc::clone(&connection));
            for from_target in [false, true] {
                let (shared, connection) = (Arc::clone(&self), Arc::clone(&connection));
                thread::spawn(move || {
                    if shared.pump(&connection, from_target).is_err() {
                        connection.cut();
                    }
                });
            }
        }
    }

    fn pump(&self, connection: &Connection, from_target: bool) -> io::Result<()> {
        let (mut from, mut to) = match from_target {
            false => (&connection.client, &connection.target),
            true => (&connection.target, &connection.client),
        };
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let length = from.read(&mut buffer)?;
            if length == 0 {
                return to.shutdown(Shutdown::Write);
            }
            let mut rest = &buffer[..length];
            while !rest.is_empty() {
                let Some(now) = self.count(rest.len(), connection, from_target) else {
                    return Ok(());
                };
                to.write_all(&rest[..now])?;
                rest = &rest[now..];
            }
        }
    }

    /// Waits while everything is held back and counts as many of `wanted` bytes as may pass; `None` after a cut.
    fn count(&self, wanted: usize, connection: &Connection, from_target: bool) -> Option<usize> {
        let mut state = lock(&self.state);
        while state.held && !connection.cut.load(Ordering::SeqCst) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if connection.cut.load(Ordering::SeqCst) {
            return None;
        }
        if !from_target {
            state.to_target += wanted as u64;
            return Some(wanted);
        }
        let left = state.hold_at.map_or(u64::MAX, |at| at.saturating_sub(state.from_target));
        let now = wanted.min(usize::try_from(left).unwrap_or(usize::MAX));
        state.from_target += now as u64;
        state.held = state.hold_at.is_some_and(|at| state.from_target >= at);
        Some(now)
    }

    fn cut(&self) {
        for connection in lock(&self.connections).drain(..) {
            connection.cut();
        }
    }
}

impl Connection {
    /// Ends both sides; what was forwarded still arrives.
    fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
        // Both may have ended already.
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.target.shutdown(Shutdown::Both);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// A target that sends `bytes` to everybody and then closes.
    fn sender(bytes: usize) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that was cut off does not take everything.
                let _ = stream.unwrap().write_all(&vec![7; bytes]);
            }
        });
        address
    }

    #[test]
    fn what_passes_is_counted() {
        let proxy = Proxy::start(sender(100_000)).unwrap();
        let mut got = Vec::new();
        TcpStream::connect(proxy.address).unwrap().read_to_end(&mut got).unwrap();
        assert_eq!((got.len(), proxy.received(), proxy.total()), (100_000, 100_000, 100_000));
    }

    #[test]
    fn nothing_passes_the_hold_and_a_cut_ends_it() {
        let proxy = Proxy::start(sender(1_000_000)).unwrap();
        proxy.hold_at(123_456);
        let mut stream = TcpStream::connect(proxy.address).unwrap();
        let mut got = vec![0; 123_456];
        stream.read_exact(&mut got).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        assert!(stream.read(&mut got).is_err(), "something passed the hold");
        assert!(proxy.is_holding());
        assert_eq!(proxy.received(), 123_456);
        proxy.cut_and_go_on();
        assert!(matches!(stream.read(&mut got), Ok(0) | Err(_)));
        let mut all = Vec::new();
        TcpStream::connect(proxy.address).unwrap().read_to_end(&mut all).unwrap();
        assert_eq!(all.len(), 1_000_000);
    }
}
