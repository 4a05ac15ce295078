//! Importing and exporting.

use crate::world::Home;
use serde_json::Value;

fn home() -> Home {
    let home = Home::new();
    home.ok(&["db", "new", "shop"]);
    home
}

fn import(home: &Home, lines: &str) -> crate::world::Done {
    home.fed(lines.as_bytes(), &["db", "import", "shop", "items", "-", "--key", "id", "--json"])
}

#[test]
fn what_is_exported_is_what_was_imported() {
    let home = home();
    let rows = concat!(
        r#"{"id":"b","n":-0.5,"big":18446744073709551615,"nested":{"z":[1,{"y":null}],"a":{}}}"#,
        "\n\n",
        r#"{"id":7,"text":"ü 日本 \u0000 🦀","flag":true}"#,
        "\r\n",
        r#"{"id":"a","bytes":{"$bytes":"AP8="},"f":{"$float":"NaN"},"one":1.0}"#,
    );
    let done = import(&home, rows);
    assert_eq!(done.code, 0, "{done:?}");
    let report: Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!((&report["rows"], &report["changed"]), (&3.into(), &3.into()));
    let exported = home.ok(&["db", "export", "shop", "items"]);
    insta::assert_snapshot!(exported, @r#"
    {"flag":true,"id":7,"text":"ü 日本 \u0000 🦀"}
    {"bytes":{"$bytes":"AP8="},"f":{"$float":"NaN"},"id":"a","one":1.0}
    {"big":18446744073709551615,"id":"b","n":-0.5,"nested":{"a":{},"z":[1,{"y":null}]}}
    "#);

    let digest = home.digest("shop");
    let again = import(&home, &exported);
    let report: Value = serde_json::from_str(&again.out).unwrap();
    assert_eq!((&report["changed"], &report["entries"]), (&0.into(), &0.into()));
    assert_eq!(home.digest("shop"), digest, "what is there already is not written again");
    home.ok(&["db", "new", "copy"]);
    let file = home.write("shop.jsonl", &exported);
    home.ok(&["db", "import", "copy", "items", &file, "--key", "id"]);
    assert_eq!(home.ok(&["db", "export", "copy", "items"]), exported);
}

#[test]
fn a_key_can_be_put_into_what_is_exported() {
    let home = home();
    home.ok(&["db", "put", "shop", "items", "x", r#"{"a":1}"#]);
    assert_eq!(home.ok(&["db", "export", "shop", "items"]), "{\"a\":1}\n");
    assert_eq!(
        home.ok(&["db", "export", "shop", "items", "--key", "id"]),
        "{\"a\":1,\"id\":\"x\"}\n"
    );
    home.run(&["db", "export", "shop", "items", "--key", "a"])
        .fails(1, "something else than its key");
}

#[test]
fn a_changed_row_loses_columns_it_no_longer_has() {
    let home = home();
    import(&home, r#"{"id":"a","old":1,"same":2}"#);
    let done = import(&home, r#"{"id":"a","new":3,"same":2}"#);
    assert!(done.out.contains("\"changed\":1"), "{done:?}");
    assert_eq!(
        home.ok(&["db", "export", "shop", "items"]),
        "{\"id\":\"a\",\"new\":3,\"same\":2}\n"
    );
}

#[test]
fn a_bad_line_is_named_and_nothing_after_it_is_imported() {
    let home = home();
    for (n, (bad, why)) in [
        ("{\"id\": ", "EOF while parsing"),
        ("[]", "it is no JSON object"),
        ("{\"x\": 1}", "it has no field 'id' to be its key"),
        ("{\"id\": null}", "its field 'id' is neither text nor a number"),
        ("{\"id\": 99999999999999999999}", "does not fit into 64 bits"),
        ("{\"id\": \"b\", \"v\": {\"$bytes\": \"?\"}}", "$bytes takes base64"),
    ]
    .into_iter()
    .enumerate()
    {
        let lines = format!("{{\"id\":\"good{n}\"}}\n\n{bad}\n{{\"id\":\"after{n}\"}}\n");
        let done = import(&home, &lines);
        done.fails(3, "line 3 is bad");
        let error: Value = serde_json::from_str(&done.err).unwrap();
        assert!(error["causes"].to_string().contains(why), "{why}: {done:?}");
        assert!(
            error["hint"].as_str().unwrap().starts_with("1 row before it are imported"),
            "{done:?}"
        );
        assert!(done.out.contains("\"rows\":1"), "{done:?}");
    }
    let large = format!("{{\"id\":\"l\",\"v\":\"{}\"}}", "x".repeat(200 * 1024));
    import(&home, &large).fails(1, "line 1 is bad");
    let endless = format!("{{\"id\":\"l\",\"v\":\"{}\"}}", "x".repeat(3 * 1024 * 1024));
    import(&home, &endless).fails(1, "bytes");
    let text = home.ok(&["db", "export", "shop", "items"]);
    assert!(text.lines().count() == 6 && !text.contains("after"), "{text}");
}

#[test]
fn what_cannot_be_read_is_named() {
    let home = home();
    let run = |file: &str| home.run(&["db", "import", "shop", "items", file, "--key", "id"]);
    run("nowhere.jsonl").fails(1, "nowhere.jsonl cannot be read");
    run(".").fails(1, ". is a directory");
    let done = home.fed(b"\xff\xfe\n", &["db", "import", "shop", "items", "-", "--key", "id"]);
    done.fails(1, "it is no UTF-8 text");
}

#[test]
fn many_rows_take_several_groups() {
    let home = home();
    let lines: String = (0..9_000).map(|i| format!("{{\"id\":{i}}}\n")).collect();
    let done = import(&home, &lines);
    let report: Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!((&report["rows"], &report["changed"]), (&9_000.into(), &9_000.into()));
    assert_eq!(home.json(&["db", "info", "shop"])["entries"], 1 + 9_000_u64.div_ceil(256));
    let exported = home.ok(&["db", "export", "shop", "items"]);
    assert!(
        exported.lines().count() == 9_000
            && exported.starts_with("{\"id\":0}\n{\"id\":1}\n{\"id\":10}\n")
    );
}
