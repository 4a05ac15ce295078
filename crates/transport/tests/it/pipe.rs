//! Child processes and standard input and output.

use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anabranch_transport::{ConnectError, Limits, Link, LinkError, Trust, pipe};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use crate::kinds::PATIENCE;

fn shell(script: &str) -> Link {
    let command = ["sh", "-c", script].map(str::to_owned);
    pipe::spawn(&command, &Limits::default()).unwrap()
}

async fn failure(script: &str) -> LinkError {
    let (_sender, mut receiver) = shell(script).split();
    timeout(PATIENCE, receiver.recv()).await.unwrap().unwrap_err()
}

async fn eventually(what: &str, mut happened: impl FnMut() -> bool) {
    let waiting = async {
        while !happened() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{what} did not happen"));
}

fn is_running(pid: &str) -> bool {
    // A zombie has ended; it only waits to be asked for its exit code.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

async fn pid_in(file: &Path) -> String {
    eventually("the child's start", || {
        fs::read_to_string(file).is_ok_and(|pid| pid.ends_with('\n'))
    })
    .await;
    fs::read_to_string(file).unwrap().trim().to_owned()
}

#[tokio::test]
async fn a_child_that_copies_is_an_echo() {
    let link = pipe::spawn(&["cat".to_owned()], &Limits::default()).unwrap();
    assert_eq!((link.peer(), link.trust()), ("cat", Trust::Trusted));
    let (mut sender, mut receiver) = link.split();
    for size in [0, 1, 70_000, 500_000] {
        // Both at once: neither end of a pipe may wait for the other to read first.
        let (sent, got) = tokio::join!(sender.send(vec![7; size]), receiver.recv());
        sent.unwrap();
        assert_eq!(got.unwrap().unwrap(), vec![7; size]);
    }
    sender.close().await.unwrap();
    assert_eq!(receiver.recv().await.unwrap(), None);
}

#[tokio::test]
async fn a_failing_child_is_quoted() {
    let error =
        failure("echo 'ssh: Could not resolve hostname \x1b[31mnowhere' >&2; exit 255").await;
    let LinkError::Process(failure) = &error else { panic!("{error:?}") };
    assert_eq!((failure.code, failure.program.as_str()), (Some(255), "sh"));
    assert_eq!(
        error.to_string(),
        "sh ended early (exit status: 255): ssh: Could not resolve hostname [31mnowhere"
    );
}

#[tokio::test]
async fn only_the_end_of_a_long_complaint_is_kept() {
    let error = failure("for i in $(seq 5000); do echo line $i; done >&2; exit 1").await;
    let LinkError::Process(failure) = error else { panic!("{error:?}") };
    assert!(
        failure.stderr.ends_with("line 4999 line 5000") && failure.stderr.len() <= 2048,
        "{}",
        failure.stderr
    );
}

#[tokio::test]
async fn a_missing_remote_program_gives_a_hint() {
    let error = failure("exec no-such-program serve --stdio").await;
    assert!(error.to_string().contains("is anabranch installed there"), "{error}");
}

#[tokio::test]
async fn a_child_that_ends_without_a_close_was_cut_off() {
    let error = failure("exit 0").await;
    assert!(error.to_string().contains("ended early (exit status: 0)"), "{error}");
    let error = failure("printf 'anabranch/1\\n\\000\\000\\000\\005abc'").await;
    assert!(matches!(error, LinkError::Process(_)), "{error:?}");
}

#[tokio::test]
async fn a_sender_learns_why_as_well() {
    let (mut sender, _receiver) = shell("exec 0<&-; echo no room >&2; exit 3").split();
    let sending = async {
        loop {
            if let Err(error) = sender.send(vec![0; 10_000]).await {
                return error;
            }
        }
    };
    let error = timeout(PATIENCE, sending).await.unwrap();
    assert!(error.to_string().contains("no room"), "{error}");
}

#[tokio::test]
async fn chatter_of_a_shell_is_not_taken_for_frames() {
    let error = failure("echo Welcome to example.org; exec cat").await;
    assert!(
        matches!(&error, LinkError::NotAnabranch { seen } if seen == "Welcome to example.org"),
        "{error:?}"
    );
}

#[tokio::test]
async fn an_oversized_length_is_refused() {
    let error = failure("printf 'anabranch/1\\n\\377\\000\\000\\000'; exec cat").await;
    assert!(matches!(error, LinkError::TooBig { size: 0xff00_0000, .. }), "{error:?}");
}

#[tokio::test]
async fn a_program_that_does_not_exist_is_named() {
    let error = pipe::spawn(&["/no/such/program".to_owned()], &Limits::default()).unwrap_err();
    assert!(
        matches!(&error, ConnectError::Spawn { program, .. } if program == "/no/such/program"),
        "{error}"
    );
    assert!(matches!(pipe::spawn(&[], &Limits::default()), Err(ConnectError::Spawn { .. })));
}

#[tokio::test]
async fn dropping_a_link_ends_its_child() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let link = shell(&format!("echo $$ > '{}'; exec sleep 1000", file.display()));
    let pid = pid_in(&file).await;
    assert!(is_running(&pid));
    drop(link);
    eventually("the child's end", || !is_running(&pid)).await;
}

#[tokio::test]
async fn a_closed_link_lets_its_child_finish() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("finished");
    let (mut sender, receiver) =
        shell(&format!("cat > /dev/null; sleep 0.3; echo > '{}'", file.display())).split();
    sender.close().await.unwrap();
    drop((sender, receiver));
    eventually("the child's work", || file.exists()).await;
}

#[tokio::test]
async fn a_closed_link_does_not_wait_for_its_child_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let command = [
        "sh".to_owned(),
        "-c".to_owned(),
        format!("echo $$ > '{}'; exec sleep 1000", file.display()),
    ];
    let limits = Limits { close_timeout: Duration::from_millis(100), ..Limits::default() };
    let (mut sender, receiver) = pipe::spawn(&command, &limits).unwrap().split();
    let pid = pid_in(&file).await;
    sender.close().await.unwrap();
    drop((sender, receiver));
    eventually("the child's end", || !is_running(&pid)).await;
}

const STDIO_CHILD: &str = "ANABRANCH_TEST_STDIO_CHILD";

/// Not a test by itself: the other end of the next one, run by it as a process of its own. It echoes frames until one
/// says `leave`, closes, and returns although its standard input is still open.
#[test]
fn stdio_child() {
    if std::env::var_os(STDIO_CHILD).is_none() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut sender, mut receiver) = pipe::stdio().unwrap().split();
        while let Some(frame) = receiver.recv().await.unwrap() {
            if frame == "leave" {
                break;
            }
            sender.send(frame).await.unwrap();
        }
        sender.close().await.unwrap();
    });
}

#[tokio::test]
async fn standard_input_and_output_are_a_link_and_do_not_hold_the_process() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "pipe::stdio_child", "--nocapture", "--test-threads=1"])
        .env(STDIO_CHILD, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());

    let exchange = async {
        // The test harness of the child speaks first; what it says ends where the link begins.
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        let (mut sender, first) = {
            let (sender, receiver) =
                pipe::link("child", Trust::Trusted, tokio::io::empty(), input).split();
            (sender, receiver)
        };
        drop(first);
        sender.send(&b"hello"[..]).await.unwrap();
        while !line.ends_with(b"anabranch/1\n") {
            line.clear();
            assert_ne!(output.read_until(b'\n', &mut line).await.unwrap(), 0);
        }
        let output = Cursor::new(b"anabranch/1\n").chain(output);
        let (_unused, mut receiver) =
            pipe::link("child", Trust::Trusted, output, tokio::io::sink()).split();

        assert_eq!(receiver.recv().await.unwrap().unwrap(), "hello");
        sender.send(vec![9; 400_000]).await.unwrap();
        assert_eq!(receiver.recv().await.unwrap().unwrap(), vec![9; 400_000]);
        sender.send(&b"leave"[..]).await.unwrap();
        assert_eq!(receiver.recv().await.unwrap(), None);
        assert!(child.wait().await.unwrap().success());
        drop(sender);
    };
    timeout(PATIENCE, exchange).await.unwrap();
}
