//! `config`: every limit and default, from the one registry that the node reads.

use crate::args::ConfigArgs;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::table;
use anabranch::engine::node::Home;
use anabranch::engine::node::config::{SETTINGS, Setting, setting};
use serde_json::{Value, json};

/// Shows or changes settings.
pub(crate) fn run(context: &Context, args: &ConfigArgs) -> Result<(), Failure> {
    let home = context.home()?;
    let Some(key) = &args.key else {
        return list(context, &home);
    };
    let setting = setting(key)?;
    if args.unset {
        home.configure(key, None)?;
    } else if let Some(value) = &args.value {
        home.configure(key, Some(value))?;
    } else {
        let value = shown(&home, setting)?;
        return context.output.answer(&value, &object(setting, &value));
    }
    let value = shown(&home, setting)?;
    context.output.summary(&format!("{key} = {value}"), &object(setting, &value))
}

fn shown(home: &Home, setting: &Setting) -> Result<String, Failure> {
    Ok(home.configured(setting.key)?.unwrap_or_else(|| setting.default.to_owned()))
}

fn object(setting: &Setting, value: &str) -> Value {
    json!({
        "key": setting.key,
        "value": value,
        "default": setting.default,
        "about": setting.about,
    })
}

fn list(context: &Context, home: &Home) -> Result<(), Failure> {
    let mut rows = Vec::new();
    let mut objects = Vec::new();
    for setting in SETTINGS {
        let value = shown(home, setting)?;
        objects.push(object(setting, &value));
        let default = match value == setting.default {
            true => String::new(),
            false => format!(" (default {})", setting.default),
        };
        rows.push(vec![setting.key.to_owned(), value, format!("{}{default}", setting.about)]);
    }
    context.output.answer(&table(&rows), &json!({ "settings": objects }))
}
