//! `sync --follow`: replicas that were just synced stay in step, change by change, until the command is interrupted.

use super::serve::teller;
use crate::args::SyncArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::hosting::{Hosting, Say};
use crate::place::{Place, resolve};
use crate::signals;
use crate::units;
use anabranch::Node;
use anabranch::engine::node::Control;
use anabranch_folder::Folder;
use std::path::Path;
use std::sync::Arc;

/// Follows until interrupted.
pub(crate) async fn run(context: &Context, node: &Node, args: &SyncArgs) -> Result<(), Failure> {
    let Some(here) = &args.here else { return peers(context, node, None).await };
    if let (Place::Folder(here), Some(there)) = (resolve(node, here)?, &args.there)
        && let Place::Folder(there) = resolve(node, there)?
    {
        return local(context, node, &here, &there).await;
    }
    peers(context, node, Some(crate::replicas::named(node, here)?)).await
}

/// Replicas with all their addresses.
async fn peers(
    context: &Context,
    node: &Node,
    only: Option<anabranch::engine::node::Record>,
) -> Result<(), Failure> {
    let stop = signals::stopping()?;
    let hosting = Arc::new(Hosting::new(node, only, context.output, Say::EachPath));
    let followed = hosting.start().await as u64;
    let replicas = units::counted(followed, "replica", "replicas");
    context.output.note(&format!("following {replicas}; Ctrl-C ends it"));
    hosting.node().carry_out(&*hosting, stop, teller(context.output)).await;
    hosting.end().await;
    Ok(())
}

/// Two folders of this machine.
async fn local(context: &Context, node: &Node, here: &Path, there: &Path) -> Result<(), Failure> {
    let mut stop = signals::stopping()?;
    let [a, b] = [here, there].map(|path| Folder::open(node.inner(), path));
    let (a, b) = (a?, b?);
    let tell = [&a, &b].map(|folder| Say::EachPath.teller(context.output, folder.root()));
    let control = Control::default();
    let note = format!("following {} and {}; Ctrl-C ends it", here.display(), there.display());
    context.output.note(&note);
    let session = a.follow_local(node.inner(), &b, tell, &control);
    super::sync::until_stopped(session, &control, &mut stop).await
}
