//! Values in cells: CBOR that any program may have written, the JSON that the command line makes of it and reads, and the keys
//! by which an index sorts it.

use crate::input::Input;
use crate::position::Position;
use anabranch::{ElementId, Raw};
use anabranch_api::json::{Json, parse};
use anabranch_core::sortkey::{PREFIX_BYTES, STORED_BYTES, stored, whole};
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
    match input.byte() {
        3 => positions(input),
        4 => sort_keys(input),
        n if n % 3 == 0 => json(input.rest()),
        n if n % 3 == 1 => shown(input.rest()),
        _ => typed(input.rest()),
    }
}

/// Two positions in a list: between any two that are read there is room, and before and behind them.
fn positions(mut input: Input<'_>) {
    let len = input.short();
    let (one, other) = (input.take(len), input.rest());
    let key = |bytes: &[u8], n: u8| {
        let (position, reason) = Position::decode(bytes)?;
        let again = Position::decode(&position.encode(reason));
        assert_eq!(again.as_ref(), Some(&(position.clone(), reason)), "a position comes back");
        Some(position.key(element(n)))
    };
    let (Some(one), Some(other)) = (key(one, 1), key(other, 2)) else { return };
    let (left, right) = if one < other { (one, other) } else { (other, one) };
    for (l, r) in [(Some(&left), Some(&right)), (None, Some(&left)), (Some(&right), None)] {
        let between = Position::between(l.map(Vec::as_slice), r.map(Vec::as_slice));
        for id in [0, 1, 2, 3].map(element) {
            let key = between.key(id);
            assert!(l.is_none_or(|l| *l < key) && r.is_none_or(|r| key < *r), "{key:?}");
        }
    }
    assert!(Position::spaced(left.len()).key(element(0)) < Position::last().key(element(0)));
}

/// Two values: an index tells them apart and keeps their order, as far as its keys are long.
fn sort_keys(mut input: Input<'_>) {
    let len = input.short();
    let (one, other) = (input.take(len), input.rest());
    let (a, b) = (stored(one), stored(other));
    assert!(a.len() <= STORED_BYTES && b.len() <= STORED_BYTES);
    let order = whole(one).cmp(&whole(other));
    assert_eq!(a == b, order.is_eq(), "{one:02x?} {other:02x?}");
    // Beyond what is kept of long ones there is a hash.
    let kept = |key: &[u8]| key[..key.len().min(PREFIX_BYTES)].to_vec();
    let by_key = kept(&a).cmp(&kept(&b));
    assert!(by_key.is_eq() || by_key == order, "{one:02x?} {other:02x?}");
}

fn element(n: u8) -> ElementId {
    ElementId { entry: [n; 16], number: u32::from(n) }
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
