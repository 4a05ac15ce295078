//! A TCP proxy for tests: it counts the bytes that pass, and cuts, freezes or calls back at a byte of the test's
//! choice. It runs on threads, so that tests with and without an async runtime can use it.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From whoever connects to the proxy towards the target.
    ToTarget,
    /// Back.
    FromTarget,
}

/// A proxy on a loopback port of its own, in front of one target. Dropping it cuts everything and stops it.
pub struct CuttingProxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    target: SocketAddr,
    stopped: AtomicBool,
    accepted: AtomicU64,
    to_target: Lane,
    from_target: Lane,
    connections: Mutex<Vec<Arc<Connection>>>,
    frozen: Mutex<bool>,
    thawed: Condvar,
}

/// One direction of all connections together.
#[derive(Default)]
struct Lane(Mutex<LaneState>);

#[derive(Default)]
struct LaneState {
    passed: u64,
    marks: BTreeMap<u64, Vec<Mark>>,
}

/// What happens when a byte count is reached.
enum Mark {
    Cut,
    Call(Box<dyn FnOnce() + Send>),
}

struct Connection {
    client: TcpStream,
    target: TcpStream,
    cut: AtomicBool,
}

impl CuttingProxy {
    /// Starts a proxy that forwards every connection to `target`.
    pub fn start(target: SocketAddr) -> io::Result<CuttingProxy> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target,
            stopped: AtomicBool::new(false),
            accepted: AtomicU64::new(0),
            to_target: Lane::default(),
            from_target: Lane::default(),
            connections: Mutex::default(),
            frozen: Mutex::new(false),
            thawed: Condvar::new(),
        });
        let acceptor = thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.accept_all(&listener)
        });
        Ok(CuttingProxy { addr, shared, acceptor: Some(acceptor) })
    }

    /// Where to connect instead of the target.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many connections were made so far.
    pub fn connections(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// How many bytes went this way so far, over all connections.
    pub fn passed(&self, direction: Direction) -> u64 {
        lock(&self.shared.lane(direction).0).passed
    }

    /// Cuts all connections now. New ones are accepted.
    pub fn cut(&self) {
        self.shared.cut();
    }

    /// Cuts all connections when exactly this many more bytes went this way; with 0, now.
    pub fn cut_after(&self, direction: Direction, more: u64) {
        let offset = self.passed(direction).saturating_add(more);
        self.shared.mark(direction, offset, Mark::Cut);
    }

    /// Calls back, once, when exactly this many bytes went this way since the start, and before any more do. An
    /// offset that has been passed calls back now. The callback runs on a thread of the proxy.
    pub fn when_passed(
        &self,
        direction: Direction,
        offset: u64,
        call: impl FnOnce() + Send + 'static,
    ) {
        self.shared.mark(direction, offset, Mark::Call(Box::new(call)));
    }

    /// Stops forwarding without closing anything, as a network that has died does; or goes on.
    pub fn freeze(&self, frozen: bool) {
        *lock(&self.shared.frozen) = frozen;
        self.shared.thawed.notify_all();
    }
}

impl Drop for CuttingProxy {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        self.freeze(false);
        // Wakes the acceptor.
        let _ = TcpStream::connect(self.addr);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        self.shared.cut();
    }
}

impl Shared {
    fn lane(&self, direction: Direction) -> &Lane {
        match direction {
            Direction::ToTarget => &self.to_target,
            Direction::FromTarget => &self.from_target,
        }
    }

    fn accept_all(self: Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming() {
            if self.stopped.load(Ordering::SeqCst) {
                return;
            }
            // A target that is down is seen by the client as a connection that closes at once.
            if let Ok(client) = client
                && let Ok(connection) = self.connect(client)
            {
                Arc::clone(&self).forward(&connection);
            }
        }
    }

    fn connect(&self, client: TcpStream) -> io::Result<Arc<Connection>> {
        let target = TcpStream::connect(self.target)?;
        client.set_nodelay(true)?;
        target.set_nodelay(true)?;
        let connection = Arc::new(Connection { client, target, cut: AtomicBool::new(false) });
        lock(&self.connections).push(Arc::clone(&connection));
        self.accepted.fetch_add(1, Ordering::SeqCst);
        Ok(connection)
    }

    fn forward(self: Arc<Self>, connection: &Arc<Connection>) {
        for direction in [Direction::ToTarget, Direction::FromTarget] {
            let shared = Arc::clone(&self);
            let connection = Arc::clone(connection);
            thread::spawn(move || {
                if shared.pump(&connection, direction).is_err() {
                    connection.cut();
                }
            });
        }
    }

    /// Forwards one direction of one connection until its end.
    fn pump(&self, connection: &Connection, direction: Direction) -> io::Result<()> {
        let (mut from, mut to) = match direction {
            Direction::ToTarget => (&connection.client, &connection.target),
            Direction::FromTarget => (&connection.target, &connection.client),
        };
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let length = from.read(&mut buffer)?;
            self.wait_while_frozen();
            if length == 0 {
                return to.shutdown(Shutdown::Write);
            }
            let mut rest = &buffer[..length];
            while !rest.is_empty() && !connection.cut.load(Ordering::SeqCst) {
                let (now, reached) = self.lane(direction).take(rest.len());
                to.write_all(&rest[..now])?;
                rest = &rest[now..];
                self.act(reached);
            }
        }
    }

    fn wait_while_frozen(&self) {
        let mut frozen = lock(&self.frozen);
        while *frozen {
            frozen = self.thawed.wait(frozen).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn mark(&self, direction: Direction, offset: u64, mark: Mark) {
        let mut lane = lock(&self.lane(direction).0);
        if offset > lane.passed {
            lane.marks.entry(offset).or_default().push(mark);
        } else {
            drop(lane);
            self.act(vec![mark]);
        }
    }

    fn act(&self, marks: Vec<Mark>) {
        for mark in marks {
            match mark {
                Mark::Cut => self.cut(),
                Mark::Call(call) => call(),
            }
        }
    }

    fn cut(&self) {
        for connection in lock(&self.connections).drain(..) {
            connection.cut();
        }
    }
}

impl Lane {
    /// Counts as many of `wanted` bytes as may go before the next mark, and gives the marks that are then reached.
    fn take(&self, wanted: usize) -> (usize, Vec<Mark>) {
        let mut lane = lock(&self.0);
        let before_mark = lane.marks.keys().next().map_or(u64::MAX, |offset| offset - lane.passed);
        let now = wanted.min(usize::try_from(before_mark).unwrap_or(usize::MAX));
        lane.passed += now as u64;
        let passed = lane.passed;
        (now, lane.marks.remove(&passed).unwrap_or_default())
    }
}

impl Connection {
    /// Ends both sides; what was forwarded still arrives.
    fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.target.shutdown(Shutdown::Both);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
