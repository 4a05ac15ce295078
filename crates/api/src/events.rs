//! Server-sent events: changes of databases as they are committed, here or elsewhere, and how syncs stand whenever that
//! changes. Nothing is lost while a stream is open, however slow its reader is: changes are read on where it was.

use crate::change::change_object;
use crate::error::Failure;
use crate::routes::Shared;
use crate::status::standing_object;
use anabranch::{Standing, Watch};
use axum::extract::{Query, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::Stream;
use futures_util::stream::unfold;
use serde::Deserialize;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Interval;

/// How often syncs are looked at: while much moves, changes of the database must not wait behind them.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wish {
    database: Option<String>,
}

/// What a stream goes on from.
struct Open {
    shared: Shared,
    watch: Option<Watch>,
    looks: Interval,
    /// What was told of each sync last.
    told: Vec<String>,
    /// What was seen of syncs and is not told yet.
    ready: VecDeque<Event>,
    stop: watch::Receiver<bool>,
}

pub(crate) async fn stream(
    State(shared): State<Shared>,
    Query(wish): Query<Wish>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Failure> {
    let watch = match &wish.database {
        Some(name) => Some(shared.database(name)?.watch()?),
        None => None,
    };
    let stop = shared.stop.clone();
    let (looks, ready) = (tokio::time::interval(LOOK), VecDeque::new());
    let open = Open { shared, watch, looks, told: Vec::new(), ready, stop };
    Ok(Sse::new(unfold(open, next)).keep_alive(KeepAlive::default()))
}

/// The next event; the end when the node stops, or when the database fails.
async fn next(mut open: Open) -> Option<(Result<Event, Infallible>, Open)> {
    loop {
        if let Some(event) = open.ready.pop_front() {
            return Some((Ok(event), open));
        }
        let Open { watch, looks, stop, .. } = &mut open;
        let change = async {
            match watch {
                Some(watch) => watch.next().await,
                None => std::future::pending().await,
            }
        };
        let change = tokio::select! {
            change = change => Some(change.ok()?),
            _ = looks.tick() => None,
            _ = stop.wait_for(|stop| *stop) => return None,
        };
        match change {
            Some(change) => {
                let text = change_object(&change).to_string();
                return Some((Ok(Event::default().event("change").data(text)), open));
            }
            None => open.look(),
        }
    }
}

impl Open {
    /// Which syncs stand otherwise than they did.
    fn look(&mut self) {
        let standings = self.shared.api.node.inner().standings();
        let marks: Vec<String> = standings.iter().map(mark).collect();
        let news = standings.iter().zip(&marks).filter(|(_, mark)| !self.told.contains(mark));
        self.ready.extend(news.map(|(standing, _)| {
            Event::default().event("sync").data(standing_object(standing).to_string())
        }));
        self.told = marks;
    }
}

/// What makes a standing worth telling.
fn mark(standing: &Standing) -> String {
    let p = standing.progress;
    let moved = (p.entries_sent, p.entries_received);
    let reasons: Vec<&str> = standing.reasons().iter().map(anabranch::Why::code).collect();
    format!(
        "{:?} {:?} {} {moved:?} {reasons:?}",
        standing.database,
        standing.addresses,
        standing.state.name()
    )
}
