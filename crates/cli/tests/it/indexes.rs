//! Indexes on the command line.

use crate::world::Home;
use serde_json::json;
use std::time::Instant;

fn with_rows() -> Home {
    let home = Home::new();
    home.ok(&["db", "new", "shop"]);
    let rows: String = (0..300)
        .map(|n| format!("{{\"sku\":\"s{n:03}\",\"price\":{},\"kind\":\"k{}\"}}\n", n % 50, n % 7))
        .collect();
    let done = home.fed(rows.as_bytes(), &["db", "import", "shop", "p", "-", "--key", "sku"]);
    assert_eq!(done.code, 0, "{done:?}");
    home
}

#[test]
fn rows_are_found_by_an_indexed_field() {
    let home = with_rows();
    let find = |args: &[&str]| home.run(&[&["db", "find", "shop", "p"], args].concat());
    find(&["price", "3"]).fails(1, "add one with 'anabranch db index add'");
    assert_eq!(
        home.ok(&["db", "index", "add", "shop", "p", "price"]),
        "indexed field 'price' of table 'p'\n"
    );
    assert!(home.ok(&["db", "index", "add", "shop", "p", "price"]).contains("already"));
    home.ok(&["db", "index", "add", "shop", "p", "kind", "--json"]);
    assert_eq!(home.ok(&["db", "index", "ls", "shop"]), "p  kind   ready\np  price  ready\n");
    let rows = home.ok(&["db", "find", "shop", "p", "price", "49"]);
    assert_eq!(rows.lines().count(), 6);
    assert!(rows.starts_with("s049\t{\"kind\":\"k0\",\"price\":49,\"sku\":\"s049\"}\n"), "{rows}");
    let range = ["db", "find", "shop", "p", "price", "--from", "10", "--to", "11.5"];
    assert_eq!(home.ok(&range).lines().count(), 12);
    let last = ["db", "find", "shop", "p", "price", "--to=-1", "--descending", "--limit", "1"];
    assert_eq!(home.ok(&last), "");
    let last = ["db", "find", "shop", "p", "price", "--from", "0", "--descending", "--limit", "1"];
    assert_eq!(
        home.json(&last),
        json!({"key": "s299", "row": {"sku": "s299", "price": 49, "kind": "k5"}})
    );
    assert_eq!(home.ok(&["db", "find", "shop", "p", "kind", "\"k6\""]).lines().count(), 42);
    home.ok(&["db", "rm", "shop", "p", "s006"]);
    assert_eq!(home.ok(&["db", "find", "shop", "p", "kind", "\"k6\""]).lines().count(), 41);
    home.ok(&["db", "verify", "shop"]);
    home.ok(&["db", "index", "rm", "shop", "p", "kind"]);
    find(&["kind", "\"k6\""]).fails(1, "has no index on this device");
    home.run(&["db", "index", "rm", "shop", "p", "kind"]).fails(1, "'anabranch db index ls shop'");
}

#[test]
fn wrong_usage_is_told() {
    let home = with_rows();
    let find = |args: &[&str]| home.run(&[&["db", "find", "shop", "p", "kind"], args].concat());
    find(&["k6"]).fails(2, "text stands in quotes");
    find(&[]).fails(2, "");
    find(&["1", "--from", "2"]).fails(2, "");
    let long = "f".repeat(9_000);
    home.run(&["db", "index", "add", "shop", "p", &long]).fails(1, "make the key shorter");
    home.run(&["db", "index"]).fails(2, "");
    // A table that is not there yet may be indexed.
    home.ok(&["db", "index", "add", "shop", "later", "n"]);
    assert_eq!(home.ok(&["db", "find", "shop", "later", "n", "1"]), "");
    home.ok(&["db", "put", "shop", "later", "x", "{\"n\": 1}"]);
    assert_eq!(home.ok(&["db", "find", "shop", "later", "n", "1.0"]), "x\t{\"n\":1}\n");
}

/// `kill -9` at any moment of building: what was declared is built by the next look-up, and finds everything.
#[test]
fn an_index_survives_kills_while_it_is_built() {
    let home = Home::new();
    home.ok(&["db", "new", "big"]);
    let filler = "x".repeat(2_000);
    let row = |n: u32| format!("{{\"id\":\"{n:05}\",\"a\":\"{filler}\",\"n\":{}}}\n", n % 100);
    let rows: String = (0..9_000).map(row).collect();
    let done = home.fed(rows.as_bytes(), &["db", "import", "big", "t", "-", "--key", "id"]);
    assert_eq!(done.code, 0, "{done:?}");
    let started = Instant::now();
    home.ok(&["db", "index", "add", "big", "t", "n"]);
    let whole = started.elapsed();
    home.ok(&["db", "index", "rm", "big", "t", "n"]);
    let mut halves = 0;
    for tenths in 0..10 {
        let mut adding = home.start(&["db", "index", "add", "big", "t", "n"]);
        std::thread::sleep(whole * tenths / 10);
        adding.kill();
        let indexes = home.json(&["db", "index", "ls", "big"])["indexes"].clone();
        if indexes == json!([]) {
            continue;
        }
        halves += u32::from(indexes[0]["ready"] == false);
        home.ok(&["db", "put", "big", "t", "00042", "{\"n\": 7}"]);
        let found = home.ok(&["db", "find", "big", "t", "n", "7"]);
        assert_eq!(found.lines().count(), 91, "after {tenths} tenths");
        assert_eq!(home.json(&["db", "index", "ls", "big"])["indexes"][0]["ready"], true);
        home.ok(&["db", "put", "big", "t", "00042", "{\"n\": 42}"]);
        home.ok(&["db", "index", "rm", "big", "t", "n"]);
    }
    assert!(halves > 0, "no kill struck in the middle");
    home.ok(&["db", "index", "add", "big", "t", "n"]);
    home.ok(&["db", "verify", "big"]);
}
