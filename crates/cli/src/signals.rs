//! Ctrl-C and SIGTERM: the first asks for an orderly end, a second one does not wait for it.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Becomes true when the process is asked to end.
pub(crate) fn stopping() -> std::io::Result<watch::Receiver<bool>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if stop.send_replace(true) {
                std::process::exit(130);
            }
        }
    });
    Ok(stopped)
}

/// Waits until the process is asked to end.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}
