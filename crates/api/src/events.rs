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
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::watch;

/// How often syncs are looked at while nothing changes in a database.
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
    /// What was told of each sync last.
    told: Vec<String>,
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
    let open = Open { shared, watch, told: Vec::new(), stop };
    Ok(Sse::new(unfold(open, next)).keep_alive(KeepAlive::default()))
}

/// The next event; the end when the node stops, or when the database fails.
async fn next(mut open: Open) -> Option<(Result<Event, Infallible>, Open)> {
    loop {
        if let Some(event) = open.sync() {
            return Some((Ok(event), open));
        }
        let Open { watch, stop, .. } = &mut open;
        let change = async {
            match watch {
                Some(watch) => watch.next().await,
                None => std::future::pending().await,
            }
        };
        let change = tokio::select! {
            change = change => Some(change.ok()?),
            () = tokio::time::sleep(LOOK) => None,
            _ = stop.wait_for(|stop| *stop) => return None,
        };
        if let Some(change) = change {
            let text = change_object(&change).to_string();
            return Some((Ok(Event::default().event("change").data(text)), open));
        }
    }
}

impl Open {
    /// A sync that stands otherwise than it did.
    fn sync(&mut self) -> Option<Event> {
        let standings = self.shared.api.node.inner().standings();
        let marks: Vec<String> = standings.iter().map(mark).collect();
        let news = marks.iter().position(|mark| !self.told.contains(mark))?;
        // Of those that are no more nothing is kept.
        self.told.retain(|mark| marks.contains(mark));
        self.told.push(marks[news].clone());
        let standing = standings.get(news)?;
        Some(Event::default().event("sync").data(standing_object(standing).to_string()))
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
