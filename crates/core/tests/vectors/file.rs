//! Reading and writing the files, and hexadecimal.

use serde_json::Value;
use std::path::PathBuf;

/// Compares `made` with the file `name`, after rewriting it if that was asked for; returns the file's cases.
pub(crate) fn golden(name: &str, about: &str, made: Vec<Value>) -> Vec<Value> {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../../docs/vectors/{name}.json"));
    let made = serde_json::json!({ "about": about, "cases": made });
    if std::env::var_os("ANABRANCH_WRITE_VECTORS").is_some_and(|v| v == "1") {
        let text = serde_json::to_string_pretty(&made).unwrap() + "\n";
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap();
    let file: Value = serde_json::from_str(&text).unwrap();
    for (made, kept) in made["cases"].as_array().unwrap().iter().zip(cases(&file)) {
        assert_eq!(made, kept, "{name}.json, case {}", kept["name"]);
    }
    assert_eq!(made, file, "{name}.json");
    cases(&file).clone()
}

fn cases(file: &Value) -> &Vec<Value> {
    file["cases"].as_array().unwrap()
}

pub(crate) fn hex(bytes: impl AsRef<[u8]>) -> String {
    data_encoding::HEXLOWER.encode(bytes.as_ref())
}

/// The bytes of a hexadecimal field.
pub(crate) fn unhex(value: &Value) -> Vec<u8> {
    data_encoding::HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap()
}

/// As [`unhex`], for a known number of bytes.
pub(crate) fn unhex_of<const N: usize>(value: &Value) -> [u8; N] {
    unhex(value).try_into().unwrap()
}

pub(crate) fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap()
}

pub(crate) fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}
