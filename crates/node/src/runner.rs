//! Runs one session on one link: hands frames to the drive, does its storage work on blocking threads, wakes it when a
//! database changes, and waits until what it said has left.

use crate::drive::{Act, Done, Drive, Progress, Report, Task};
use crate::error::NodeError;
use crate::introduce::Wire;
use crate::pace::Pace;
use anabranch_transport::{LinkError, LinkReceiver, LinkSender};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// How long the last frames may take to leave.
const LEAVING: Duration = Duration::from_secs(5);

/// How fast the sessions of a node may send and receive together.
#[derive(Debug)]
pub(crate) struct Paces {
    pub(crate) up: Pace,
    pub(crate) down: Pace,
}

/// Runs a session to its end. `progress` is told of every step; the session ends in good order when `stop` becomes true.
///
/// # Errors
/// [`NodeError::Session`] when either side ended it for a reason, [`NodeError::Link`] when the link broke.
pub(crate) async fn run(
    task: Task,
    wire: Wire,
    progress: watch::Sender<Progress>,
    stop: watch::Receiver<bool>,
    paces: &Arc<Paces>,
) -> Result<Report, NodeError> {
    let Wire { sender, mut receiver, binding, initiator } = wire;
    let (frames, outbox) = mpsc::unbounded_channel();
    let sending = tokio::spawn(send_all(sender, outbox, Arc::clone(paces)));
    let opened = task.openings.iter().map(|opening| &opening.replica);
    task.served.iter().chain(opened).for_each(|replica| replica.sign_left());
    let drive = Drive::new(task, binding, initiator);
    let result =
        Runner { drive, frames, progress, paces: Arc::clone(paces) }.go(&mut receiver, stop).await;
    // What is queued still leaves, the peer's word or ours that it is over among it; a link that is broken already or a
    // peer that does not listen any more changes nothing about the outcome.
    let leaving = async { tokio::join!(sending, receiver.drain(LEAVING)) };
    let _ = tokio::time::timeout(LEAVING, leaving).await;
    result
}

async fn send_all(
    mut sender: LinkSender,
    mut outbox: mpsc::UnboundedReceiver<Vec<u8>>,
    paces: Arc<Paces>,
) -> Result<(), LinkError> {
    while let Some(frame) = outbox.recv().await {
        paces.up.pass(frame.len()).await;
        sender.feed(frame).await?;
        while let Ok(frame) = outbox.try_recv() {
            paces.up.pass(frame.len()).await;
            sender.feed(frame).await?;
        }
        sender.flush().await?;
    }
    sender.close().await
}

struct Runner {
    drive: Drive,
    frames: mpsc::UnboundedSender<Vec<u8>>,
    progress: watch::Sender<Progress>,
    paces: Arc<Paces>,
}

impl Runner {
    async fn go(
        mut self,
        receiver: &mut LinkReceiver,
        mut stop: watch::Receiver<bool>,
    ) -> Result<Report, NodeError> {
        let signal = self.drive.signal();
        let (done, mut answers) = mpsc::unbounded_channel();
        loop {
            self.act(&done);
            self.tell();
            if let Some(outcome) = self.drive.outcome() {
                return outcome;
            }
            tokio::select! {
                frame = receiver.recv() => match frame? {
                    Some(frame) => {
                        // While this waits nothing more is read, and the sender waits in turn.
                        self.paces.down.pass(frame.len()).await;
                        self.drive.receive(&frame);
                    }
                    None => self.drive.link_ended(),
                },
                Some(answer) = answers.recv() => self.drive.answer(answer),
                databases = signal.wait() => self.drive.changed(&databases),
                () = stopped(&mut stop) => self.drive.stop(),
            }
        }
    }

    fn act(&mut self, done: &mpsc::UnboundedSender<Done>) {
        while let Some(act) = self.drive.poll() {
            match act {
                // A failed link shows at the receiving half.
                Act::Send(frame) => _ = self.frames.send(frame),
                Act::Work(job) => {
                    let done = done.clone();
                    // A session that ended meanwhile does not need the answer.
                    tokio::task::spawn_blocking(move || _ = done.send(job.perform()));
                }
            }
        }
    }

    fn tell(&self) {
        let now = self.drive.progress();
        self.progress.send_if_modified(|told| {
            let news = *told != now;
            *told = now;
            news
        });
    }
}

/// Waits until the session is told to stop; for ever when nobody can tell it any more.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}
