//! The HTTP listener against clients of every kind, and the client against servers of every kind.

use std::net::SocketAddr;
use std::time::Duration;

use anabranch_transport::http::{HEALTH_PATH, LINK_PATH};
use anabranch_transport::{
    Address, ConnectError, HttpListener, Limits, LimitsError, LinkError, ListenAddr, ListenError,
    MAX_FRAME, Trust,
};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::kinds::{self, PATIENCE, manager};

async fn listener() -> HttpListener {
    HttpListener::bind(kinds::loopback(), &Limits::default()).await.unwrap()
}

/// Sends bytes and gives everything that comes back until the server closes.
async fn exchange(addr: SocketAddr, request: impl AsRef<[u8]>) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let _ = stream.write_all(request.as_ref()).await;
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the server closes");
    String::from_utf8_lossy(&answer).into_owned()
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
}

/// A WebSocket of somebody else's making.
async fn foreign(addr: SocketAddr) -> WebSocketStream<TcpStream> {
    let stream = TcpStream::connect(addr).await.unwrap();
    client_async(format!("ws://{addr}{LINK_PATH}"), stream).await.unwrap().0
}

async fn connect_error(address: impl AsRef<str>, limits: Limits) -> ConnectError {
    manager(limits).connect(&Address::parse(address.as_ref()).unwrap()).await.unwrap_err()
}

#[tokio::test]
async fn health_is_answered_and_nothing_else() {
    let listener = listener().await;
    let addr = listener.local_addr();
    let health = exchange(addr, get(HEALTH_PATH)).await;
    assert!(health.starts_with("HTTP/1.1 200 OK\r\n"), "{health}");
    assert!(health.contains("content-type: application/json\r\n"), "{health}");
    assert!(health.ends_with("\r\n\r\n{\"status\":\"ok\"}"), "{health}");
    assert!(exchange(addr, get("/")).await.starts_with("HTTP/1.1 404 "));
    assert!(exchange(addr, get("/anabranch/v2")).await.starts_with("HTTP/1.1 404 "));
    let plain = exchange(addr, get(LINK_PATH)).await;
    assert!(plain.starts_with("HTTP/1.1 426 ") && plain.contains("upgrade: websocket"), "{plain}");
    let post = exchange(addr, get(LINK_PATH).replace("GET", "POST")).await;
    assert!(post.starts_with("HTTP/1.1 405 "), "{post}");
}

#[tokio::test]
async fn links_say_who_is_there() {
    let mut listener = listener().await;
    let address = Address::parse(&format!("ws://{}/db_x", listener.local_addr())).unwrap();
    let client = manager(Limits::default()).connect(&address).await.unwrap();
    assert_eq!((client.peer(), client.trust()), (address.to_string().as_str(), Trust::Untrusted));
    let server = listener.accept().await.unwrap();
    assert!(server.peer().starts_with("http client 127.0.0.1:"), "{}", server.peer());
    assert_eq!(server.trust(), Trust::Untrusted);
}

#[tokio::test]
async fn garbage_ends_its_own_connection_only() {
    let mut listener = listener().await;
    let addr = listener.local_addr();
    let garbage: [Vec<u8>; 6] = [
        vec![0; 3000],
        vec![0xff; 100_000],
        b"\x16\x03\x01\x02\x00\x01\x00".repeat(100),
        format!("GET {LINK_PATH} HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n").into(),
        format!("GET {LINK_PATH} HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").into(),
        format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(100_000)).into(),
    ];
    for request in garbage {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let _ = stream.write_all(&request).await;
        stream.shutdown().await.ok();
        let mut answer = Vec::new();
        let _ =
            timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the server closes");
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    manager(Limits::default()).connect(&Address::of_listener(addr)).await.unwrap();
    listener.accept().await.unwrap();
}

#[tokio::test]
async fn foreign_websockets_are_held_to_the_rules() {
    let mut listener = listener().await;
    let addr = listener.local_addr();
    let close = |code, reason: &'static str| {
        Message::Close(Some(CloseFrame { code, reason: reason.into() }))
    };
    type Expected = fn(&LinkError) -> bool;
    let cases: [(Message, Expected); 6] = [
        (Message::Text("hello".into()), |error| matches!(error, LinkError::Protocol(_))),
        (Message::Binary(vec![0; MAX_FRAME + 1].into()), |error| {
            matches!(error, LinkError::TooBig { size: 524_289, .. })
        }),
        (close(CloseCode::Normal, ""), |error| matches!(error, LinkError::Truncated)),
        (
            close(CloseCode::Away, "go\x07ing"),
            |error| matches!(error, LinkError::Aborted { reason } if reason == "1001 going"),
        ),
        (close(CloseCode::Restart, ""), |error| matches!(error, LinkError::Aborted { .. })),
        (Message::Close(None), |error| matches!(error, LinkError::Truncated)),
    ];
    for (message, expected) in cases {
        let mut socket = foreign(addr).await;
        let (_sender, mut receiver) = listener.accept().await.unwrap().split();
        socket.send(Message::Binary(vec![1].into())).await.unwrap();
        assert_eq!(receiver.recv().await.unwrap().unwrap(), &[1][..]);
        let _ = socket.send(message).await;
        let error = receiver.recv().await.unwrap_err();
        assert!(expected(&error), "{error:?}");
    }

    let mut socket = foreign(addr).await;
    let (mut sender, mut receiver) = listener.accept().await.unwrap().split();
    socket.send(Message::Text("end".into())).await.unwrap();
    assert_eq!(receiver.recv().await.unwrap(), None);
    sender.send(&b"bye"[..]).await.unwrap();
    sender.close().await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::Binary(b"bye"[..].into()));
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::Text("end".into()));
    assert!(socket.next().await.unwrap().unwrap().is_close());
}

#[tokio::test]
async fn bytes_that_are_no_websocket_frames_end_the_link() {
    let mut listener = listener().await;
    for garbage in [
        &[0xff; 64][..],
        &[0x82, 0x05, 1, 2, 3, 4, 5],
        &[0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0],
    ] {
        let mut socket = foreign(listener.local_addr()).await;
        let (_sender, mut receiver) = listener.accept().await.unwrap().split();
        socket.get_mut().write_all(garbage).await.unwrap();
        let error = timeout(PATIENCE, receiver.recv()).await.unwrap().unwrap_err();
        assert!(matches!(error, LinkError::Protocol(_) | LinkError::TooBig { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn connections_above_the_limit_are_told_so() {
    let limits = Limits { http_max_connections: 2, ..Limits::default() };
    let mut listener = HttpListener::bind(kinds::loopback(), &limits).await.unwrap();
    let addr = listener.local_addr();
    let held = [foreign(addr).await, foreign(addr).await];
    let links = [listener.accept().await.unwrap(), listener.accept().await.unwrap()];

    let refused = exchange(addr, get(HEALTH_PATH)).await;
    assert!(
        refused.starts_with("HTTP/1.1 503 ") && refused.contains("raise http_max_connections"),
        "{refused}"
    );
    let error = connect_error(format!("http://{addr}"), Limits::default()).await;
    assert!(matches!(&error, ConnectError::Refused { status: 503, .. }), "{error:?}");
    assert!(error.to_string().contains("serves as many connections as it may"), "{error}");

    // A place is free again when a link is gone.
    drop((held, links));
    let freed =
        async { while !exchange(addr, get(HEALTH_PATH)).await.starts_with("HTTP/1.1 200 ") {} };
    timeout(PATIENCE, freed).await.unwrap();
}

#[tokio::test]
async fn a_peer_that_does_not_read_cannot_keep_a_dropped_link() {
    let limits = Limits { http_max_connections: 1, ..Limits::default() };
    let mut listener = HttpListener::bind(kinds::loopback(), &limits).await.unwrap();
    let addr = listener.local_addr();
    let _idle = foreign(addr).await;
    let (mut sender, receiver) = listener.accept().await.unwrap().split();
    let stalled = async { while sender.send(vec![0; MAX_FRAME]).await.is_ok() {} };
    timeout(Duration::from_millis(500), stalled).await.expect_err("the peer read nothing");
    assert!(exchange(addr, get(HEALTH_PATH)).await.starts_with("HTTP/1.1 503 "));
    drop((sender, receiver));
    let freed =
        async { while !exchange(addr, get(HEALTH_PATH)).await.starts_with("HTTP/1.1 200 ") {} };
    timeout(PATIENCE, freed).await.unwrap();
}

#[tokio::test]
async fn links_that_nobody_accepts_do_not_pile_up() {
    let limits = Limits { http_accept_queue: 2, ..Limits::default() };
    let mut listener = HttpListener::bind(kinds::loopback(), &limits).await.unwrap();
    let address = Address::of_listener(listener.local_addr());
    let manager = manager(Limits::default());
    let _waiting =
        [manager.connect(&address).await.unwrap(), manager.connect(&address).await.unwrap()];
    let error = manager.connect(&address).await.unwrap_err();
    assert!(error.to_string().contains("more new links than it can take"), "{error}");
    listener.accept().await.unwrap();
    manager.connect(&address).await.unwrap();
}

#[tokio::test]
async fn slow_and_silent_clients_are_cut_off() {
    let limits = Limits { http_header_timeout: Duration::from_millis(200), ..Limits::default() };
    let listener = HttpListener::bind(kinds::loopback(), &limits).await.unwrap();
    let addr = listener.local_addr();
    for begun in ["", "GET /hea", &format!("GET {HEALTH_PATH} HTTP/1.1\r\nHost: x\r\n\r\n")] {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(begun.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the server closes").ok();
    }
}

#[tokio::test]
async fn stopping_frees_the_port_and_spares_links() {
    let mut listener = listener().await;
    let addr = listener.local_addr();
    let client = manager(Limits::default()).connect(&Address::of_listener(addr)).await.unwrap();
    let server = listener.accept().await.unwrap();
    let mut idle = TcpStream::connect(addr).await.unwrap();
    timeout(PATIENCE, listener.stop()).await.expect("an idle connection does not hold it up");
    assert_eq!(idle.read(&mut [0; 10]).await.unwrap_or(0), 0);

    let error = connect_error(format!("http://{addr}"), Limits::default()).await;
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error:?}");
    HttpListener::bind(addr, &Limits::default()).await.unwrap();

    let ((mut sender, _r), (_s, mut receiver)) = (client.split(), server.split());
    sender.send(&b"still here"[..]).await.unwrap();
    assert_eq!(receiver.recv().await.unwrap().unwrap(), "still here");
}

#[tokio::test]
async fn a_taken_port_and_bad_limits_are_refused() {
    let listener = listener().await;
    let listen: ListenAddr = listener.local_addr().to_string().parse().unwrap();
    let error = manager(Limits::default()).listen(listen).await.unwrap_err();
    assert!(error.to_string().contains("another program has this port"), "{error}");
    let zero = Limits { link_queue: 0, ..Limits::default() };
    let error = HttpListener::bind(kinds::loopback(), &zero).await.unwrap_err();
    assert!(
        matches!(error, ListenError::Limits(LimitsError::Count { name: "link_queue", .. })),
        "{error:?}"
    );
}

/// A server that gives one answer to whatever comes first.
async fn answering(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind(kinds::loopback()).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                assert_ne!(stream.read(&mut [0; 4096]).await.unwrap(), 0);
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
                let _end = stream.read(&mut [0; 10]).await;
            });
        }
    });
    addr
}

#[tokio::test]
async fn servers_that_are_no_nodes_are_named_as_such() {
    let cases = [
        (
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
            "HTTP status 404: there is no Anabranch node there",
        ),
        (
            "HTTP/1.1 301 Moved\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n",
            "redirects are not followed",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<script>alert(1)</script>",
            "answered with HTTP status 200",
        ),
        (
            "HTTP/1.1 502 Bad\r\nContent-Type: text/plain\r\nContent-Length: 11\r\n\r\nno \x1b[31mback",
            "HTTP status 502: no [31mback",
        ),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            "does not speak HTTP",
        ),
        ("SSH-2.0-OpenSSH_9.9\r\n", "does not speak HTTP"),
    ];
    for (answer, expected) in cases {
        let error = connect_error(format!("http://{}", answering(answer).await), Limits::default())
            .await
            .to_string();
        assert!(error.contains(expected) && !error.contains("script"), "{error}");
    }
}

#[tokio::test]
async fn servers_that_do_not_answer_run_into_the_time_limit() {
    let limits = Limits { connect_timeout: Duration::from_millis(200), ..Limits::default() };
    let silent = TcpListener::bind(kinds::loopback()).await.unwrap();
    let addr = silent.local_addr().unwrap();
    for scheme in ["http", "https"] {
        let error = connect_error(format!("{scheme}://{addr}/x"), limits.clone()).await;
        assert!(matches!(error, ConnectError::Timeout { .. }), "{error:?}");
        assert_eq!(error.to_string(), format!("{scheme}://{addr}/x did not answer within 200ms"));
    }
    drop(silent);
    let error = connect_error(format!("http://{addr}"), limits.clone()).await;
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error:?}");
}
