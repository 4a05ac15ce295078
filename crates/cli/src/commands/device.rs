//! `id` and `init`: this device.

use crate::context::Context;
use crate::failure::Failure;
use serde_json::json;

/// Prints this device's id.
pub(crate) fn id(context: &Context) -> Result<(), Failure> {
    let node = context.home()?.key().node_id().to_string();
    context.output.answer(&node, &json!({ "device": node }))
}

/// Makes the home.
pub(crate) fn init(context: &Context) -> Result<(), Failure> {
    let home = context.home()?;
    let (dir, node) = (home.dir().display().to_string(), home.key().node_id().to_string());
    let text = format!("home    {dir}\ndevice  {node}");
    context.output.summary(&text, &json!({ "home": dir, "device": node }))
}
