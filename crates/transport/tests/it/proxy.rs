//! Links through a proxy that cuts and freezes.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use anabranch_transport::testing::{CuttingProxy, Direction};
use anabranch_transport::{Address, HttpListener, Limits, Link, LinkError};
use tokio::time::timeout;

use crate::kinds::{self, PATIENCE, manager};

async fn through_proxy(limits: Limits) -> (Link, Link, CuttingProxy) {
    let mut listener = HttpListener::bind(kinds::loopback(), &limits).await.unwrap();
    let proxy = CuttingProxy::start(listener.local_addr()).unwrap();
    let client = manager(limits).connect(&Address::of_listener(proxy.addr())).await.unwrap();
    let server = listener.accept().await.unwrap();
    (client, server, proxy)
}

#[tokio::test]
async fn a_cut_in_the_middle_of_a_frame_is_an_error_at_both_ends() {
    for encrypted in [false, true] {
        let (client, server, proxy) = through_proxy(Limits::default()).await;
        let (client, server) = if encrypted {
            let (client, server) = kinds::secured((client, server)).await;
            (client.link, server.link)
        } else {
            (client, server)
        };
        let ((mut sender, mut client_receiver), (_server_sender, mut receiver)) =
            (client.split(), server.split());
        proxy.cut_after(Direction::ToTarget, 150_000);
        let sending = tokio::spawn(async move {
            let mut sent = 0;
            while sender.send(vec![1; 100_000]).await.is_ok() && sent < 1000 {
                sent += 1;
            }
            sent
        });
        assert_eq!(receiver.recv().await.unwrap().unwrap(), vec![1; 100_000]);
        let end = timeout(PATIENCE, receiver.recv()).await.unwrap();
        assert!(matches!(end, Err(LinkError::Truncated)), "{end:?}");
        assert!(sending.await.unwrap() < 1000);
        let end = timeout(PATIENCE, client_receiver.recv()).await.unwrap();
        assert!(matches!(end, Err(LinkError::Truncated)), "{end:?}");
    }
}

#[tokio::test]
async fn a_dead_network_is_noticed_by_both_ends() {
    let limits = Limits {
        idle_timeout: Duration::from_millis(400),
        ping_interval: Duration::from_millis(100),
        ..Limits::default()
    };
    let (client, server, proxy) = through_proxy(limits).await;
    let ((_s, mut client), (_t, mut server)) = (client.split(), server.split());
    // Pings keep a quiet link: nothing is received, and nothing fails.
    timeout(Duration::from_millis(1200), client.recv()).await.expect_err("a quiet link ended");
    proxy.freeze(true);
    for receiver in [&mut client, &mut server] {
        let end = timeout(PATIENCE, receiver.recv()).await.unwrap();
        assert!(matches!(end, Err(LinkError::Idle { .. })), "{end:?}");
    }
}

#[tokio::test]
async fn a_user_that_does_not_receive_is_not_dead() {
    let limits = Limits {
        idle_timeout: Duration::from_millis(300),
        ping_interval: Duration::from_millis(100),
        ..Limits::default()
    };
    let (client, server) = kinds::http_with(limits).await;
    let ((mut sender, _r), (mut server_sender, mut receiver)) = (client.split(), server.split());
    let sending = tokio::spawn(async move {
        for _ in 0..40 {
            sender.feed(vec![1; 500_000]).await?;
        }
        sender.close().await.map(|()| sender)
    });
    tokio::time::sleep(Duration::from_millis(1500)).await;
    for _ in 0..40 {
        assert_eq!(receiver.recv().await.unwrap().unwrap().len(), 500_000);
    }
    assert_eq!(receiver.recv().await.unwrap(), None);
    sending.await.unwrap().unwrap();
    server_sender.close().await.unwrap();
}

#[tokio::test]
async fn a_frame_that_takes_longer_than_the_idle_timeout_arrives() {
    let limits = Limits {
        idle_timeout: Duration::from_millis(300),
        ping_interval: Duration::from_millis(100),
        ..Limits::default()
    };
    let (client, server, proxy) = through_proxy(limits).await;
    let ((mut sender, _r), (_s, mut receiver)) = (client.split(), server.split());
    // Bytes trickle: each step of the proxy waits a little, for over a second in all.
    let start = proxy.passed(Direction::ToTarget);
    for step in 1..16 {
        proxy.when_passed(Direction::ToTarget, start + step * 30_000, || {
            std::thread::sleep(Duration::from_millis(80))
        });
    }
    sender.send(vec![5; 500_000]).await.unwrap();
    assert_eq!(receiver.recv().await.unwrap().unwrap(), vec![5; 500_000]);
}

/// A server that sends back what comes.
fn echo() -> TcpListener {
    let listener = TcpListener::bind(kinds::loopback()).unwrap();
    let accepting = listener.try_clone().unwrap();
    std::thread::spawn(move || {
        for stream in accepting.incoming().map_while(Result::ok) {
            std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    });
    listener
}

fn client(proxy: &CuttingProxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.addr()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[test]
fn the_proxy_counts_and_cuts_at_the_byte() {
    let listener = echo();
    let proxy = CuttingProxy::start(listener.local_addr().unwrap()).unwrap();
    let mut stream = client(&proxy);
    stream.write_all(&[1; 1000]).unwrap();
    stream.read_exact(&mut [0; 1000]).unwrap();
    assert_eq!(
        (proxy.passed(Direction::ToTarget), proxy.passed(Direction::FromTarget)),
        (1000, 1000)
    );

    proxy.cut_after(Direction::FromTarget, 77);
    stream.write_all(&[2; 500]).unwrap();
    let mut rest = Vec::new();
    // The cut may show as an end or as a reset, but exactly these bytes come before it.
    let _ = stream.read_to_end(&mut rest);
    assert_eq!(rest, [2; 77]);
    assert_eq!(proxy.passed(Direction::FromTarget), 1077);

    let mut again = client(&proxy);
    again.write_all(b"x").unwrap();
    again.read_exact(&mut [0]).unwrap();
    assert_eq!(proxy.connections(), 2);
    proxy.cut();
    assert!(matches!(again.read(&mut [0]), Ok(0) | Err(_)));
}

#[test]
fn the_proxy_calls_back_once_at_an_offset() {
    let listener = echo();
    let proxy = CuttingProxy::start(listener.local_addr().unwrap()).unwrap();
    let mut stream = client(&proxy);
    let (tell, told) = mpsc::channel();
    for offset in [10, 300, 300] {
        let tell = tell.clone();
        proxy.when_passed(Direction::ToTarget, offset, move || tell.send(offset).unwrap());
    }
    stream.write_all(&[0; 299]).unwrap();
    stream.read_exact(&mut [0; 299]).unwrap();
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [10]);
    stream.write_all(&[0; 300]).unwrap();
    stream.read_exact(&mut [0; 300]).unwrap();
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [300, 300]);
    let tell = tell.clone();
    proxy.when_passed(Direction::ToTarget, 5, move || tell.send(5).unwrap());
    assert_eq!(told.recv().unwrap(), 5);
}

#[test]
fn dropping_the_proxy_cuts_everything() {
    let listener = echo();
    let proxy = CuttingProxy::start(listener.local_addr().unwrap()).unwrap();
    let mut stream = client(&proxy);
    stream.write_all(b"x").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    let addr = proxy.addr();
    drop(proxy);
    assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
    assert!(TcpStream::connect(addr).is_err());
}
