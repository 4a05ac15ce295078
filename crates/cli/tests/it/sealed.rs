//! Sealed databases between real processes: two devices that never meet, a relay between them that can read nothing, and a
//! device that is put out.

use crate::world::{Home, eventually, tree};
use anabranch_core::blob::{Builder, Piece};
use std::path::Path;

const PLAIN: &str = "the plain text of a row";

fn id(home: &Home) -> String {
    home.ok(&["id"]).trim().to_owned()
}

fn put(home: &Home, key: &str, text: &str) {
    let row = format!(r#"{{"said": "{text}"}}"#);
    home.ok(&["db", "put", "notes", "talk", key, &row]);
}

fn said(home: &Home, key: &str) -> Option<String> {
    let done = home.run(&["db", "get", "notes", "talk", key]);
    (done.code == 0).then_some(done.out)
}

/// Files below `dir` in which one of the texts occurs.
fn containing(dir: &Path, texts: &[&[u8]]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(containing(&path, texts));
        } else {
            let bytes = std::fs::read(&path).unwrap_or_default();
            // Many texts in much: most places are passed over by their first two bytes.
            let mut begins = vec![false; 1 << 16];
            let pair = |bytes: &[u8]| usize::from(bytes[0]) << 8 | usize::from(bytes[1]);
            texts.iter().for_each(|text| begins[pair(text)] = true);
            let mut places = bytes.windows(2).enumerate().filter(|(_, two)| begins[pair(two)]);
            if places.any(|(at, _)| texts.iter().any(|text| bytes[at..].starts_with(text))) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

/// A founder, and a relay that serves what the founder brings it.
fn relayed(terms: &[&str]) -> (Home, Home, crate::world::Running, String) {
    let (a, relay) = (Home::new(), Home::new());
    let made = a.ok(&[&["db", "new", "notes", "--sealed"], terms].concat());
    assert!(made.contains("made sealed database notes"), "{made}");
    put(&a, "first", PLAIN);
    let (mut serving, url) = a.serve("0");
    let ticket = a.ok(&["ticket", "notes", "--address", &url, "--role", "relay"]);
    let file = relay.write("ticket", &ticket);
    let joined = relay.ok(&["join", &format!("@{file}")]);
    assert!(joined.contains("joined notes to relay"), "{joined}");
    serving.kill();
    a.run(&["peers", "rm", "notes", &url]);
    relay.ok(&["peers", "rm", "notes", &url]);
    let (serving, url) = relay.serve("0");
    a.ok(&["sync", "notes", &format!("{url}/notes")]);
    (a, relay, serving, url)
}

#[test]
fn two_devices_that_never_meet_share_what_the_relay_between_them_cannot_read() {
    let (a, relay, _serving, url) = relayed(&[]);
    let there = format!("{url}/notes");
    let ticket = a.ok(&["ticket", "notes", "--address", &url]);
    a.ok(&["sync", "notes", &there]);

    // The founder is offline. A stranger to the relay joins by it, and reads what came before its ticket.
    let b = Home::new();
    let file = b.write("ticket", &ticket);
    b.ok(&["join", &format!("@{file}")]);
    assert!(said(&b, "first").unwrap().contains(PLAIN));
    put(&b, "second", "and an answer to it");
    b.ok(&["sync", "notes"]);
    a.ok(&["sync", "notes", &there]);
    assert!(said(&a, "second").unwrap().contains("an answer"));
    assert_eq!(a.digest("notes"), b.digest("notes"));

    // Neither text nor key nor hash of what was written is anywhere in the relay's home; of a member's it is.
    let row = format!(r#"{{"said": "{PLAIN}"}}"#);
    let hashes = [blake3::hash(PLAIN.as_bytes()), blake3::hash(row.as_bytes())];
    let hex = hashes.map(|hash| hash.to_hex().to_string());
    let mut texts: Vec<&[u8]> = vec![PLAIN.as_bytes(), b"second", b"an answer"];
    texts.extend(hashes.iter().map(|hash| &hash.as_bytes()[..]));
    texts.extend(hex.iter().map(|hash| hash.as_bytes()));
    assert_eq!(containing(relay.dir(), &texts), [""; 0]);
    assert!(!containing(b.dir(), &[PLAIN.as_bytes()]).is_empty());

    // It says so, and shows no empty tables.
    assert_eq!(relay.json(&["db", "info", "notes"])["opened"], false);
    assert!(relay.ok(&["db", "info", "notes"]).contains("this device relays what it cannot read"));
    relay.run(&["db", "rows", "notes", "talk"]).fails(1, "the database is sealed");
    relay.run(&["db", "export", "notes", "talk"]).fails(1, "the database is sealed");
    relay.run(&["db", "digest", "notes"]).fails(1, "is sealed with a key that is not here");
    let log = relay.ok(&["db", "log", "notes"]);
    assert!(log.contains("sealed with a key that is not here") && log.contains("members"), "{log}");
    relay.run(&["db", "put", "notes", "talk", "x", "{}"]).fails(1, "");
    assert!(relay.ok(&["db", "verify", "notes"]).contains("notes is sound"));
    assert!(b.ok(&["db", "verify", "notes"]).contains("notes is sound"));
    assert_eq!(b.json(&["db", "info", "notes"])["sealed"], true);
}

/// Gives a device the database file of another.
fn put_in_place_of(from: &Home, to: &Home) {
    let (from, to) = (from.database_file(), to.database_file());
    for more in ["", "-wal", "-shm"] {
        let file = |path: &Path| format!("{}{more}", path.display());
        std::fs::remove_file(file(&to)).unwrap_or(());
        _ = std::fs::copy(file(&from), file(&to));
    }
}

/// Text in which no two stretches are alike.
fn story(about: &str, len: usize) -> Vec<u8> {
    let lines = (0..).flat_map(|n| format!("{about}, line {n}\n").into_bytes());
    lines.take(len).collect()
}

/// What might give content away: pieces of it, its hash and those of the pieces that an open database would store, in hex as well.
fn traces(content: &[u8]) -> Vec<Vec<u8>> {
    let mut names = vec![*blake3::hash(content).as_bytes()];
    let mut keep = |piece: Piece<'_>| {
        names.push(match piece {
            Piece::Chunk { span, .. } => span.hash.0,
            Piece::Node { hash, .. } => hash.0,
        });
        Ok::<_, std::convert::Infallible>(())
    };
    let mut builder = Builder::new();
    builder.push(content, &mut keep).unwrap();
    builder.finish(&mut keep).unwrap();
    let hex = names.iter().map(|name| blake3::Hash::from_bytes(*name).to_hex().as_bytes().to_vec());
    let pieces = content.chunks(content.len().div_ceil(16).max(16));
    let pieces =
        pieces.filter(|piece| piece.len() >= 8).map(|piece| piece[..piece.len().min(16)].to_vec());
    hex.chain(pieces).chain(names.iter().map(|name| name.to_vec())).collect()
}

#[test]
fn blobs_pass_a_relay_that_sees_neither_content_nor_names_of_it() {
    let (a, relay, _serving, url) = relayed(&[]);
    let there = format!("{url}/notes");
    let blob = |home: &Home, args: &[&str]| home.ok(&[&["db", "blob"], args].concat());
    let (before, mut after) = (story("how it was", 3_000_000), story("how it was", 3_000_000));
    after.splice(1_500_000..1_500_000, *b"an insertion");
    let ticket = |role| a.ok(&["ticket", "notes", "--address", &url, "--role", role]);
    let (to_b, to_c) = (ticket("write"), ticket("read"));
    blob(&a, &["put", "notes", "files", "story", &a.write("story", &before)]);
    a.ok(&["sync", "notes", &there]);

    let join = |ticket: &str| {
        let home = Home::new();
        let file = home.write("ticket", ticket);
        home.ok(&["join", &format!("@{file}")]);
        home
    };
    let (b, c) = (join(&to_b), join(&to_c));
    let got = |home: &Home, name: &str| {
        let out = home.dir().join("out");
        blob(home, &["get", "notes", "files", name, out.to_str().unwrap()]);
        std::fs::read(out).unwrap()
    };
    assert!(got(&b, "story") == before && got(&c, "story") == before);
    std::fs::remove_file(c.dir().join("out")).unwrap();

    // Little of a changed version travels, and the relay has both.
    let stored = |home: &Home| std::fs::metadata(home.database_file()).unwrap().len();
    let held = stored(&relay);
    blob(&b, &["put", "notes", "files", "story", &b.write("story", &after)]);
    blob(&b, &["put", "notes", "files", "little", &b.write("little", "a little secret")]);
    b.ok(&["sync", "notes"]);
    assert!(stored(&relay) - held < 1_000_000, "{} {held}", stored(&relay));
    a.ok(&["sync", "notes", &there]);
    assert!(got(&a, "story") == after);

    // Nothing of it is in the relay's home.
    let mut traces: Vec<Vec<u8>> = [&before, &after].into_iter().flat_map(|c| traces(c)).collect();
    traces.extend([
        b"a little secret".to_vec(),
        blake3::hash(b"a little secret").as_bytes().to_vec(),
    ]);
    let traces: Vec<&[u8]> = traces.iter().map(|trace| &trace[..]).collect();
    assert_eq!(containing(relay.dir(), &traces), [""; 0]);
    assert!(!containing(b.dir(), &traces).is_empty());
    relay.run(&["db", "blob", "ls", "notes", "files"]).fails(1, "the database is sealed");
    relay.run(&["db", "gc", "notes"]).fails(1, "which content is still named");
    relay.run(&["db", "blob", "put", "notes", "files", "x", &relay.write("x", "x")]).fails(1, "");
    assert!(relay.ok(&["db", "verify", "notes"]).contains("notes is sound"));

    // Who is put out reads nothing that is put in afterwards, with all that the relay has.
    a.ok(&["members", "notes", "revoke", &id(&c)]);
    a.ok(&["sync", "notes", &there]);
    b.ok(&["sync", "notes"]);
    let secret = story("nothing for c", 500_000);
    blob(&b, &["put", "notes", "files", "later", &b.write("later", &secret)]);
    b.ok(&["sync", "notes"]);
    a.ok(&["sync", "notes", &there]);
    assert!(got(&a, "later") == secret);
    put_in_place_of(&relay, &c);
    c.run(&["db", "blob", "get", "notes", "files", "later"]).fails(1, "");
    assert_eq!(containing(c.dir(), &[b"nothing for c"]), [""; 0]);
}

#[test]
fn a_sealed_folder_passes_a_relay_that_sees_neither_files_nor_their_names() {
    let (a, relay, b, c) = (Home::new(), Home::new(), Home::new(), Home::new());
    let here = a.dir().join("here");
    let (story, secret) = (story("a long story", 3_000_000), b"a little secret".to_vec());
    std::fs::create_dir_all(here.join("hidden-directory")).unwrap();
    std::fs::write(here.join("story-of-it.txt"), &story).unwrap();
    std::fs::write(here.join("hidden-directory/little.txt"), &secret).unwrap();
    std::fs::write(here.join("hidden-directory/nothing"), b"").unwrap();
    let mut sharing = a.start(&["share", "here", "--sealed", "--role", "relay", "--listen", "0"]);
    let ticket = relay.write("ticket", sharing.line());
    let joined = relay.ok(&["join", &format!("@{ticket}"), "--name", "backup"]);
    assert!(joined.contains("joined backup to relay"), "{joined}");
    sharing.kill();
    let (mut serving, url) = relay.serve("0");
    let ticket = |url: &str| a.ok(&["ticket", "here", "--address", url]);
    let (by_relay, first) = (ticket(&url), tree(&here));
    a.ok(&["sync", "here", &url]);

    // The founder is offline; a stranger to the relay gets all of it.
    let join = |home: &Home, ticket: &str| {
        let ticket = home.write("ticket", ticket);
        home.ok(&["join", &format!("@{ticket}"), "there"]);
    };
    join(&b, &by_relay);
    let there = b.dir().join("there");
    assert!(tree(&there) == first);
    let mut changed = story.clone();
    changed.splice(1_500_000..1_500_000, *b"an insertion");
    std::fs::write(there.join("story-of-it.txt"), &changed).unwrap();
    std::fs::rename(there.join("hidden-directory"), there.join("renamed-directory")).unwrap();
    let told = b.json(&["sync", "there"]);
    assert!(told["bytes_sent"].as_u64() < Some(1_000_000), "{told}");
    let told = a.json(&["sync", "here", &url]);
    assert!(told["bytes_received"].as_u64() < Some(1_000_000), "{told}");
    assert!(tree(&here) == tree(&there));
    assert_eq!(a.ok(&["folder", "digest", "here"]), b.ok(&["folder", "digest", "there"]));

    let mut traces: Vec<Vec<u8>> =
        [&story, &changed, &secret].into_iter().flat_map(|content| traces(content)).collect();
    traces.extend(
        [&b"story-of-it"[..], b"hidden-directory", b"renamed-directory", b"little.txt"]
            .map(<[u8]>::to_vec),
    );
    let traces: Vec<&[u8]> = traces.iter().map(|trace| &trace[..]).collect();
    assert_eq!(containing(relay.dir(), &traces), [""; 0]);
    assert!(relay.ok(&["db", "verify", "backup"]).contains("backup is sound"));

    // Without the relay its pieces come out of a member's plain files.
    serving.kill();
    drop(relay);
    let (_serving, url) = b.serve("0");
    a.ok(&["sync", "here", &url]);
    let by_b = ticket(&url);
    a.ok(&["sync", "here", &url]);
    join(&c, &by_b);
    assert!(tree(&c.dir().join("there")) == tree(&there));
}

#[test]
fn a_folder_is_sealed_from_its_beginning_or_never() {
    let a = Home::new();
    std::fs::create_dir(a.dir().join("here")).unwrap();
    std::fs::write(a.dir().join("here/file"), "text").unwrap();
    let ticket = a.ok(&["ticket", "here"]);
    a.run(&["ticket", "here", "--sealed"]).fails(2, "not sealed");
    a.run(&["share", "here", "--sealed", "--listen", "0"]).fails(2, "not sealed");
    a.ok(&["db", "new", "notes"]);
    a.run(&["ticket", "notes", "--sealed"]).fails(2, "not sealed");
    drop(ticket);
}

#[test]
fn a_folder_that_is_not_sealed_is_kept_without_a_place_as_well() {
    let (a, b, c) = (Home::new(), Home::new(), Home::new());
    let here = a.dir().join("here");
    std::fs::create_dir(&here).unwrap();
    std::fs::write(here.join("large"), story("in the open", 1_000_000)).unwrap();
    std::fs::write(here.join("small"), "text").unwrap();
    let mut sharing = a.start(&["share", "here", "--listen", "0"]);
    let ticket = b.write("ticket", sharing.line());
    b.ok(&["join", &format!("@{ticket}"), "--name", "copy"]);
    sharing.kill();
    let (_serving, url) = b.serve("0");
    let ticket = c.write("ticket", a.ok(&["ticket", "here", "--address", &url]));
    a.ok(&["sync", "here", &url]);
    c.ok(&["join", &format!("@{ticket}"), "there"]);
    assert!(tree(&c.dir().join("there")) == tree(&here));
}

#[test]
fn who_is_put_out_of_a_sealed_database_reads_nothing_new() {
    let (a, relay, _serving, url) = relayed(&[]);
    let there = format!("{url}/notes");
    let join = |name: &str, role: &str| {
        let home = Home::new();
        let ticket = a.ok(&["ticket", "notes", "--address", &url, "--role", role]);
        a.ok(&["sync", "notes", &there]);
        let file = home.write("ticket", &ticket);
        home.ok(&["join", &format!("@{file}")]);
        a.ok(&["sync", "notes", &there]);
        assert!(said(&home, "first").is_some(), "{name}");
        home
    };
    let (b, c) = (join("b", "write"), join("c", "read"));
    a.ok(&["members", "notes", "revoke", &id(&c)]);
    a.ok(&["sync", "notes", &there]);
    b.ok(&["sync", "notes"]);
    put(&b, "after", "nothing for c");
    b.ok(&["sync", "notes"]);
    a.ok(&["sync", "notes", &there]);
    assert!(said(&a, "after").unwrap().contains("nothing for c"));
    assert_eq!(a.digest("notes"), b.digest("notes"));
    c.run(&["sync", "notes"]).fails(1, "revoked");

    // With the relay's files instead of its own, its key opens nothing of what came after.
    put_in_place_of(&relay, &c);
    c.run(&["db", "get", "notes", "talk", "after"]).fails(1, "");
    assert_eq!(containing(c.dir(), &[b"nothing for c"]), [""; 0]);
}

#[test]
fn who_asks_to_be_let_in_gets_the_key_as_well() {
    let a = Home::new();
    a.ok(&["db", "new", "notes", "--sealed"]);
    put(&a, "first", PLAIN);
    let (_serving, url) = a.serve("0");
    let database = a.json(&["db", "info", "notes"])["database"].as_str().unwrap().to_owned();
    let b = Home::new();
    let ask = ["join", &format!("{url}/{database}"), "--name", "notes", "--ask", "b"];
    assert_eq!(b.json(&ask)["waiting"], true);
    a.ok(&["requests", "approve", "notes", &id(&b)]);
    b.ok(&ask);
    assert!(said(&b, "first").unwrap().contains(PLAIN));
    // Everyone may relay it; that everyone reads it, it cannot have.
    a.run(&["members", "notes", "grant", "anyone", "read"]).fails(1, "one by one");
    a.ok(&["members", "notes", "grant", "anyone", "relay"]);
    // That keeps nobody from asking to read.
    let c = Home::new();
    let ask = ["join", &format!("{url}/{database}"), "--name", "notes", "--ask", "c"];
    c.json(&ask);
    assert_eq!(a.json(&["requests", "ls"])["requests"].as_array().unwrap().len(), 1);
    a.ok(&["requests", "approve", "notes", &id(&c)]);
    c.ok(&["sync", "notes"]);
    assert!(said(&c, "first").unwrap().contains(PLAIN));
}

#[test]
fn a_reader_gets_a_later_key_from_an_admin_that_comes_online() {
    let (a, _relay, _serving, url) = relayed(&[]);
    let there = format!("{url}/notes");
    let ticket = a.ok(&["ticket", "notes", "--address", &url, "--role", "read", "--once"]);
    a.ok(&["sync", "notes", &there]);
    let b = Home::new();
    let file = b.write("ticket", &ticket);
    b.ok(&["join", &format!("@{file}")]);
    // The admin does not know of b yet, and makes a key that b is not handed.
    let other = id(&Home::new());
    a.ok(&["members", "notes", "grant", &other, "read"]);
    a.ok(&["members", "notes", "revoke", &other]);
    put(&a, "second", "under another key");
    a.ok(&["sync", "notes", &there]);
    b.run(&["sync", "notes"]);
    eventually("a hands it on", || {
        a.run(&["sync", "notes", &there]);
        b.run(&["sync", "notes"]);
        said(&b, "second").is_some()
    });
    assert_eq!(a.digest("notes"), b.digest("notes"));
}

#[test]
fn the_recovery_key_opens_a_sealed_database() {
    let file = tempfile::tempdir().unwrap();
    let key = file.path().join("notes.key");
    let (a, relay, _serving, _url) = relayed(&["--recovery", key.to_str().unwrap()]);
    drop(a);
    relay.ok(&["members", "notes", "recover", key.to_str().unwrap()]);
    assert!(said(&relay, "first").unwrap().contains(PLAIN));
    put(&relay, "second", "by what was the relay");
    assert_eq!(relay.json(&["db", "info", "notes"])["opened"], true);
}

/// A helper that reads some stores of a database and relays others.
#[test]
fn some_stores_are_sealed_and_others_are_not() {
    let (a, relay) = (Home::new(), Home::new());
    let refused = a.run(&["db", "new", "notes", "--sealed=pins,,diary"]);
    assert!(refused.code != 0, "{}", refused.out);
    let made = a.ok(&["db", "new", "notes", "--sealed=pins,diary"]);
    assert!(made.contains("sealed in it: pins, diary"), "{made}");
    a.ok(&["db", "put", "notes", "pins", "bank", r#"{"pin": "the secret one"}"#]);
    a.ok(&["db", "put", "notes", "tasks", "milk", r#"{"done": false}"#]);
    a.ok(&["db", "counter", "add", "notes", "diary", "pages", "7"]);
    let (mut serving, url) = a.serve("0");
    let ticket = a.ok(&["ticket", "notes", "--address", &url, "--role", "relay"]);
    let file = relay.write("ticket", &ticket);
    relay.ok(&["join", &format!("@{file}")]);
    serving.kill();
    assert_eq!(relay.ok(&["db", "get", "notes", "tasks", "milk"]).trim(), r#"{"done":false}"#);
    for secret in [
        &["db", "get", "notes", "pins", "bank"][..],
        &["db", "counter", "get", "notes", "diary", "pages"],
    ] {
        let refused = relay.run(secret);
        assert!(refused.code != 0 && refused.err.contains("no key"), "{}", refused.err);
    }
    assert!(containing(&relay.state(), &[b"the secret one", b"bank", b"pages"]).is_empty());
    for (home, opened) in [(&a, true), (&relay, false)] {
        let info = home.json(&["db", "info", "notes"]);
        assert_eq!((&info["sealed"], &info["opened"]), (&true.into(), &opened.into()), "{info}");
        assert_eq!(info["sealed_stores"], serde_json::json!(["diary", "pins"]));
        assert_eq!(info["digest"].is_string(), opened);
    }
    let text = relay.ok(&["db", "info", "notes"]);
    assert!(text.contains("diary, pins; this device relays what it cannot read"), "{text}");
    // What is asked to be sealed as a whole is not taken for that.
    let refused = a.run(&["ticket", "notes", "--sealed"]);
    assert!(refused.code != 0 && refused.err.contains("not sealed as a whole"), "{}", refused.err);
}
