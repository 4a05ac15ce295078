//! Spans reach a collector.

use crate::logging::serve;
use crate::world::Home;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

/// A collector on loopback: what was posted where, one request after the other.
fn collector() -> (String, Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (posts, received) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            if posts.send(take(stream.unwrap())).is_err() {
                break;
            }
        }
    });
    (address, received)
}

fn take(mut stream: TcpStream) -> (String, Vec<u8>) {
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    let end = loop {
        let read = stream.read(&mut part).unwrap();
        assert!(read > 0, "the request has an end");
        bytes.extend_from_slice(&part[..read]);
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = bytes[end..].to_vec();
    let mut rest = vec![0; length.parse::<usize>().unwrap() - body.len()];
    stream.read_exact(&mut rest).unwrap();
    body.append(&mut rest);
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
    (head, body)
}

fn holds(body: &[u8], text: &str) -> bool {
    body.windows(text.len()).any(|part| part == text.as_bytes())
}

#[test]
fn a_session_is_a_span_at_the_collector() {
    let (endpoint, posts) = collector();
    let (a, b) = (Home::new(), Home::new());
    a.ok(&["db", "new", "notes"]);
    let (serving, address) = serve(&a, &[], &[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)]);
    let ticket = a.ok(&["ticket", "notes", "--address", &address]);
    b.ok(&["join", ticket.trim()]);
    // What waits to be sent leaves before the process does.
    assert_eq!(serving.interrupt(), 0);
    let peer: String = b.ok(&["id"]).chars().take("node_".len() + 8).collect();
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let (head, body) = posts.recv_timeout(left).expect("a session's span");
        assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("content-type: application/x-protobuf"), "{head}");
        assert!(!holds(&body, ticket.trim()));
        if holds(&body, "session") && holds(&body, &peer) {
            assert!(holds(&body, "anabranch"), "it says whose it is");
            break;
        }
    }
}

#[test]
fn a_collector_that_cannot_be_told_is_complained_of() {
    let home = Home::new();
    let run = |endpoint: &str| {
        let mut command = home.command(&["id"]);
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
        crate::world::finish(command)
    };
    run("https://localhost:4318").fails(2, "over HTTP without TLS");
    run("localhost").fails(2, "takes http://HOST:PORT");
    // Nobody is there: the work goes on.
    let done = run("http://127.0.0.1:1");
    assert_eq!(done.code, 0, "{done:?}");
}
