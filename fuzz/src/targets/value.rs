//! Values in cells: CBOR that any program may have written, and the JSON that the command line makes of it and reads.

use crate::input::Input;
use anabranch::Raw;
use anabranch_api::json::{Json, parse};
use serde::Deserialize;
use std::collections::BTreeMap;

/// A type as programs have them.
#[derive(Debug, PartialEq, Deserialize, serde::Serialize)]
enum Shape {
    Unit,
    Tuple(u8, String),
    Struct { list: Vec<Option<i64>>, inner: Option<Box<Shape>> },
}

/// A byte that says which, and the value.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 3 {
        0 => json(input.rest()),
        1 => shown(input.rest()),
        _ => typed(input.rest()),
    }
}

fn json(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(value) = parse(text) else { return };
    // Some objects look like what stands for a value that JSON does not have, and are none.
    let Ok(raw) = Raw::new(&value) else { return };
    let shown = raw.get::<Json>().ok();
    assert!(shown.is_some(), "what was stored is shown");
    // An integer written as `$int` that JSON can say is shown as JSON says it; from then on nothing changes.
    let again = shown.as_ref().and_then(|shown| Raw::new(shown).ok());
    assert_eq!(again.and_then(|raw| raw.get::<Json>().ok()), shown);
}

fn shown(data: &[u8]) {
    let Ok(value) = Raw::from_bytes(data.to_vec()).get::<Json>() else { return };
    let text = value.0.to_string();
    let again = parse(&text).ok();
    assert!(again.is_some(), "what is shown can be read: {text}");
    let raw = again.and_then(|again| Raw::new(&again).ok());
    assert!(raw.is_some(), "and stored: {text}");
    let once_more = raw.and_then(|raw| raw.get::<Json>().ok());
    assert_eq!(once_more.map(|again| again.0.to_string()), Some(text));
}

fn typed(data: &[u8]) {
    let raw = Raw::from_bytes(data.to_vec());
    let _ = raw.get::<BTreeMap<String, Vec<f64>>>();
    let _ = raw.get::<(bool, char, [u8; 4])>();
    let _ = raw.get::<serde::de::IgnoredAny>();
    if let Ok(shape) = raw.get::<Shape>() {
        let again = Raw::new(&shape).and_then(|raw| raw.get::<Shape>());
        assert_eq!(again.ok(), Some(shape));
    }
}
