//! People between real processes: a database grants to somebody whose devices come and go, and hears of that from them.

use crate::world::{Home, Running, eventually};

fn id(home: &Home) -> String {
    home.ok(&["id"]).trim().to_owned()
}

fn database(home: &Home, name: &str) -> String {
    home.json(&["db", "info", name])["database"].as_str().unwrap().to_owned()
}

fn put(home: &Home, key: &str) {
    home.ok(&["db", "put", "todo", "tasks", key, r#"{"done": false}"#]);
}

fn has(home: &Home, key: &str) -> bool {
    home.run(&["db", "get", "todo", "tasks", key]).code == 0
}

/// Ana's laptop and phone, whose database of devices is `ana` on both.
fn ana() -> (Home, Home) {
    let (laptop, phone) = (Home::new(), Home::new());
    laptop.ok(&["db", "new", "ana"]);
    let (mut serving, url) = laptop.serve("0");
    let ticket = laptop.ok(&["ticket", "ana", "--address", &url, "--once"]);
    let file = phone.write("ticket", &ticket);
    phone.ok(&["join", &format!("@{file}"), "--name", "ana"]);
    serving.kill();
    (laptop, phone)
}

/// Ben, who serves a database that grants to the person.
fn ben(person: &str, terms: &[&str]) -> (Home, Running, String) {
    let ben = Home::new();
    ben.ok(&[&["db", "new", "todo"], terms].concat());
    put(&ben, "milk");
    let granted = ben.ok(&["members", "todo", "grant", person, "write"]);
    assert!(granted.contains(&format!("the devices of {person} may write to todo")), "{granted}");
    let (serving, url) = ben.serve("0");
    let url = format!("{url}/{}", database(&ben, "todo"));
    (ben, serving, url)
}

/// The roles of devices, as a database lists them.
fn roles(home: &Home, name: &str) -> Vec<(String, String)> {
    let members = home.json(&["members", name]);
    let list = members["members"].as_array().unwrap().iter().filter(|m| m["kind"] == "device");
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    list.map(|member| (text(&member["who"]), text(&member["role"]))).collect()
}

fn a_person_comes_and_goes(terms: &[&str]) {
    let (laptop, phone) = ana();
    let person = database(&laptop, "ana");
    let (ben, _serving, url) = ben(&person, terms);
    // Her phone needs no ticket and nobody's approval, and her laptop is in as well.
    let joined = phone.ok(&["join", &url, "--name", "todo", "--as", "ana"]);
    assert!(joined.contains("joined todo to write"), "{joined}");
    assert_eq!(roles(&ben, "todo").len(), 3);
    // Of what is sealed it gets the key from Ben, who has heard of it by now.
    eventually("the phone reads", || {
        phone.ok(&["sync", "todo"]);
        has(&phone, "milk")
    });
    put(&phone, "bread");
    phone.ok(&["sync", "todo"]);
    assert!(has(&ben, "bread"));
    let shown = ben.ok(&["members", "todo"]);
    assert!(
        shown.contains(&format!("the devices of {person}")) && shown.contains("2 devices so far"),
        "{shown}"
    );
    laptop.ok(&["join", &url, "--name", "todo", "--as", "ana"]);
    // The phone is stolen. Its owner says so at home, and nothing else.
    let device = id(&phone);
    let (_following, _) = laptop.serve("0");
    laptop.ok(&["members", "ana", "revoke", &device]);
    eventually("Ben hears of it", || roles(&ben, "todo").len() == 2);
    put(&phone, "theft");
    phone.run(&["sync", "todo"]).fails(1, "this device's right to the database was revoked");
    assert!(has(&ben, "bread") && !has(&ben, "theft"));
    let why = ben.ok(&["members", "todo", "why", &device]);
    assert!(why.contains("revoked by") && why.contains(&person), "{why}");
}

#[test]
fn a_device_is_in_as_long_as_it_is_one_of_the_persons() {
    a_person_comes_and_goes(&[]);
}

#[test]
fn what_is_sealed_is_read_by_the_devices_of_a_person() {
    a_person_comes_and_goes(&["--sealed"]);
}

#[test]
fn what_cannot_be_is_said() {
    let (_, phone) = ana();
    let person = database(&phone, "ana");
    let (ben, _serving, url) = ben(&person, &[]);
    let stranger = Home::new();
    stranger.run(&["join", &url, "--as", "ana"]).fails(1, "there is no database 'ana' here");
    // A database of its own does not make it one of hers.
    stranger.ok(&["db", "new", "ana"]);
    let asked = stranger.ok(&["join", &url, "--name", "todo", "--as", "ana"]);
    assert!(asked.contains("asked to be let in to todo"), "{asked}");
    let waiting = ben.json(&["requests", "ls"]);
    let other = database(&stranger, "ana");
    assert_eq!(waiting["requests"][0]["message"], format!("a device of {other}"));
    assert_eq!(roles(&ben, "todo").len(), 1);
    // One that is used for something else shows it to nobody.
    stranger.ok(&["db", "put", "ana", "diary", "today", "{}"]);
    stranger.run(&["join", &url, "--as", "ana"]).fails(1, "holds more than who its members are");
    stranger.run(&["join", &url, "--wait"]).fails(2, "");
    ben.run(&["members", "todo", "grant", "db_nonsense", "write"]).fails(2, "");
}

#[test]
fn a_folder_is_shared_with_a_person() {
    let (laptop, phone) = ana();
    let person = database(&laptop, "ana");
    let ben = Home::new();
    let photos = ben.dir().join("photos");
    std::fs::create_dir(&photos).unwrap();
    std::fs::write(photos.join("cat"), "a cat").unwrap();
    let photos = photos.to_str().unwrap();
    ben.ok(&["ticket", photos, "--address", "http://127.0.0.1:9"]);
    ben.ok(&["members", photos, "grant", &person, "write"]);
    let (_serving, url) = ben.serve("0");
    let shown = ben.json(&["members", photos]);
    let url = format!("{url}/{}", shown["database"].as_str().unwrap());
    let there = phone.dir().join("photos");
    phone.ok(&["join", &url, there.to_str().unwrap(), "--as", "ana"]);
    assert_eq!(std::fs::read_to_string(there.join("cat")).unwrap(), "a cat");
    std::fs::write(there.join("dog"), "a dog").unwrap();
    phone.ok(&["sync", there.to_str().unwrap()]);
    let dog = std::path::Path::new(photos).join("dog");
    eventually("the dog is there", || std::fs::read_to_string(&dog).is_ok_and(|is| is == "a dog"));
}
