//! What folders read: paths and states that peers wrote, and rows of their own database: the base, and what an update is
//! about to do.

use crate::input::Input;
use anabranch_folder::base::Base;
use anabranch_folder::intent::Intent;
use anabranch_folder::path::{MAX_PATH, MAX_SEGMENT, MAX_SHARED_PATH, RelPath};
use anabranch_folder::state::State;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

/// A byte that says which, and the bytes.
pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 5 {
        0 => path(input.rest()),
        1 => {
            let bytes = input.rest();
            if let Ok(state) = State::decode(bytes) {
                assert_eq!(state.encode(), bytes, "a state has one spelling");
            }
        }
        2 => {
            let bytes = input.rest();
            if let Ok(base) = Base::decode(bytes) {
                assert_eq!(base.encode(), bytes, "a row of the base has one spelling");
            }
        }
        3 => name(input),
        _ => {
            let bytes = input.rest();
            if let Ok(intent) = Intent::decode(bytes) {
                assert_eq!(intent.encode(), bytes, "a note of an update has one spelling");
            }
        }
    }
}

/// No path leaves the folder, whatever the system makes of it (I4).
fn path(bytes: &[u8]) {
    let Ok(path) = RelPath::new(bytes) else {
        assert!(RelPath::shared(bytes).is_err());
        return;
    };
    assert_eq!(path.as_bytes(), bytes);
    assert!(bytes.len() <= MAX_PATH && path.name().len() <= MAX_SEGMENT);
    let parts: Vec<_> = path.as_os().components().collect();
    assert!(parts.iter().all(|part| matches!(part, Component::Normal(_))), "{path:?}");
    assert_eq!(path.ancestors().count() + 1, parts.len());
    assert!(path.ancestors().all(|above| path.is_below(&above)));
    assert_eq!(RelPath::from_os(Path::new(OsStr::from_bytes(bytes))).as_ref(), Ok(&path));
    if let Ok(shared) = RelPath::shared(bytes) {
        assert!(!shared.is_reserved() && bytes.len() <= MAX_SHARED_PATH);
        let first = parts.first().map(|part| part.as_os_str().to_ascii_lowercase());
        assert_ne!(first.as_deref(), Some(OsStr::new(".anabranch")));
    }
    assert!(!path.to_string().chars().any(char::is_control), "it may be printed");
}

fn name(mut input: Input<'_>) {
    let parent = RelPath::new(input.part()).ok();
    let name = input.rest();
    if let Ok(path) = RelPath::in_dir(parent.as_ref(), name) {
        assert_eq!(path.name(), name);
        assert_eq!(path.parent(), parent);
    }
}
