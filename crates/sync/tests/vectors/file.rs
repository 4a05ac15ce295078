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
    for (made, kept) in cases(&made).iter().zip(cases(&file)) {
        assert_eq!(made, kept, "{name}.json, case {}", kept["name"]);
    }
    assert_eq!(made, file, "{name}.json");
    cases(&file).clone()
}

fn cases(file: &Value) -> &Vec<Value> {
    file["cases"].as_array().unwrap()
}

pub(crate) fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

/// The bytes of a hexadecimal field.
pub(crate) fn unhex(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap().as_bytes();
    let digit = |d: u8| char::from(d).to_digit(16).unwrap() as u8;
    text.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}
