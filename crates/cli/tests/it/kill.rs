//! `kill -9` of either side while a replica is being filled, at chosen bytes on the wire: every restart goes on where it
//! stopped, and no more is sent again than may be under way at once.

use crate::world::{Home, Running};
use anabranch_transport::testing::{CuttingProxy, Direction};
use std::process::Command;
use std::sync::mpsc::channel;
use std::time::Duration;

/// Compressed bytes that may be under way (the credit of a channel), and the largest batch on top.
const UNDER_WAY: u64 = 1024 * 1024 + 400 * 1024;
/// Greetings, frontiers and the framing of what is sent.
const OVERHEAD: u64 = 64 * 1024;

fn rows() -> String {
    // Hardly compressible, so that there is much to send.
    let mut state = 1_u64;
    let mut word = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 8
    };
    (0..20_000)
        .map(|i| {
            let noise: String = (0..16).map(|_| format!("{:014x}", word())).collect();
            format!("{{\"id\":\"{:06}\",\"noise\":\"{noise}\"}}\n", (i * 7_919) % 20_000)
        })
        .collect()
}

/// Serves on the port of `address` and waits until it does.
fn serve(home: &Home, address: &str) -> Running {
    home.serve(address.trim_start_matches("http://")).0
}

#[test]
fn a_bootstrap_survives_kills_of_either_side() {
    let (a, b) = (Home::new(), Home::new());
    a.ok(&["db", "new", "big"]);
    let done = a.fed(rows().as_bytes(), &["db", "import", "big", "t", "-", "--key", "id"]);
    assert_eq!(done.code, 0, "{done:?}");
    let (mut serving, address) = a.serve("0");
    let target = address.trim_start_matches("http://").parse().unwrap();
    let proxy = CuttingProxy::start(target).unwrap();
    let ticket = a.ok(&["ticket", "big", "--address", &format!("http://{}", proxy.addr())]);
    let ticket = ticket.trim();

    // Once without a hitch, to know how much there is to send.
    let unharmed = Home::new();
    unharmed.ok(&["join", ticket]);
    let whole = proxy.passed(Direction::FromTarget);
    assert!(whole > 3 * UNDER_WAY / 2, "{whole} bytes are too few to be interrupted in the middle");

    let kills = [(whole / 20, true), (whole / 5, false), (whole / 4, true), (whole / 3, false)];
    for &(after, kill_join) in &kills {
        let offset = proxy.passed(Direction::FromTarget) + after;
        let mut joining = b.start(&["join", ticket]);
        let victim = if kill_join { joining.id() } else { serving.id() };
        let (killed, when) = channel();
        proxy.when_passed(Direction::FromTarget, offset, move || {
            let _ = Command::new("kill").args(["-9", &victim.to_string()]).status();
            let _ = killed.send(());
        });
        when.recv_timeout(Duration::from_secs(60)).expect("the bytes never came");
        if kill_join {
            joining.kill();
        } else {
            serving.kill();
            assert_eq!(joining.wait(), 1, "it fails, and says so");
            serving = serve(&a, &address);
        }
    }
    b.ok(&["join", ticket]);
    let sent = proxy.passed(Direction::FromTarget) - whole;
    let most = whole + kills.len() as u64 * (UNDER_WAY + OVERHEAD);
    assert!(sent <= most, "{sent} bytes were sent, at most {most} may be");
    assert_eq!(a.digest("big"), b.digest("big"));
    unharmed.ok(&["sync"]);
    assert_eq!(a.digest("big"), unharmed.digest("big"));
    b.ok(&["db", "verify", "big"]);
    assert_eq!(
        a.json(&["db", "info", "big"])["entries"],
        b.json(&["db", "info", "big"])["entries"]
    );
}
