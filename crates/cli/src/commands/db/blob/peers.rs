//! Connections to the peers of a database while content is read that is not here.

use crate::context::Context;
use crate::failure::Failure;
use anabranch::engine::core::key::DeviceKey;
use anabranch::engine::node::{Opening, Until};
use anabranch::engine::sync::channel::Direction;
use anabranch::{Control, Node, NodeError, Report};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// How long an orderly end may take.
const ENDING: Duration = Duration::from_secs(2);

/// Links to the peers there are.
pub(super) struct Peers(Vec<(Control, JoinHandle<Result<Report, NodeError>>)>);

impl Peers {
    /// Nobody.
    pub(super) fn none() -> Self {
        Self(Vec::new())
    }

    pub(super) fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    /// Connects to all known peers of `name`, for nothing but content.
    pub(super) fn dial(context: &Context, node: &Node, name: &str) -> Result<Self, Failure> {
        let db = context.database(node, name)?;
        let Some(record) = node.inner().record_of(db.id())? else { return Ok(Self::none()) };
        let dial = |address: &str| {
            let (node, control) = (Arc::clone(node.inner()), Control::default());
            let ticket = record.ticket.as_ref().map(DeviceKey::from_seed);
            let replica = Arc::clone(db.replica());
            let opening = Opening { replica, direction: Direction::COMPARE, ticket };
            let (addresses, told) = ([address.to_owned()], control.clone());
            let task =
                tokio::spawn(
                    async move { node.sync(opening, &addresses, Until::Closed, &told).await },
                );
            (control, task)
        };
        Ok(Self(record.addresses().map(dial).collect()))
    }

    /// Hangs up in good order.
    pub(super) async fn end(self) {
        for (control, _) in &self.0 {
            control.stop.send_replace(true);
        }
        for (_, task) in self.0 {
            // Nothing depends on how it ends.
            let _ = tokio::time::timeout(ENDING, task).await;
        }
    }
}
