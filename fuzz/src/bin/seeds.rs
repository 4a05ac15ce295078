//! Writes first inputs for the targets into a directory, a subdirectory each: `seeds DIRECTORY`. Most are the golden vectors
//! of docs/vectors in the form that the target takes.

use anabranch_core::codec::Writer;
use anabranch_fuzz::world::world;
use anabranch_sync::frame::Frame;
use data_encoding::HEXLOWER;
use serde_json::Value;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> Outcome {
    let target = std::env::args_os().nth(1).ok_or("give the directory to write to")?;
    let seeds = Seeds { into: PathBuf::from(target) };
    seeds.entries()?;
    seeds.frames()?;
    seeds.blobs()?;
    seeds.texts()?;
    seeds.sessions()?;
    seeds.by_hand()
}

struct Seeds {
    into: PathBuf,
}

impl Seeds {
    fn put(&self, target: &str, bytes: &[u8]) -> Outcome {
        let dir = self.into.join(target);
        fs::create_dir_all(&dir)?;
        let name = blake3::hash(bytes).to_hex();
        Ok(fs::write(dir.join(&name[..16]), bytes)?)
    }

    fn entries(&self) -> Outcome {
        for case in cases("entries")? {
            self.put("header", &hex(&case, "header")?)?;
        }
        for case in cases("payloads")? {
            let kind = match text(&case, "store")? {
                "cells" => 0,
                "members" => 1,
                _ => 4,
            };
            self.put("payload", &[&[kind], &hex(&case, "payload")?[..]].concat())?;
        }
        for case in cases("people")? {
            let (person, evidence) = (hex(&case, "database")?, hex(&case, "evidence")?);
            self.put("payload", &[&[9], &person[..], &evidence[..]].concat())?;
        }
        for case in cases("paths")? {
            let path = hex(&case, "encoded")?;
            if path.len() < 1_000 {
                self.put("payload", &[&[2], &path[..]].concat())?;
            }
        }
        for case in cases("encoding")? {
            self.put("payload", &[&[3], &hex(&case, "input")?[..]].concat())?;
        }
        for case in cases("runs")? {
            let database = text(&case, "database")?.parse::<anabranch::DatabaseId>()?;
            self.put("run", &[&database.0, &hex(&case, "run")?[..]].concat())?;
        }
        Ok(())
    }

    fn frames(&self) -> Outcome {
        for case in cases("frames")?.iter().chain(&cases("session")?) {
            self.put("frame", &hex(case, "frame")?)?;
        }
        Ok(())
    }

    fn blobs(&self) -> Outcome {
        for case in cases("nodes")? {
            let node = hex(&case, "node")?;
            self.put("blob", &[&[3], &node[..]].concat())?;
        }
        for case in cases("blobs")? {
            for node in case["nodes"].as_array().into_iter().flatten() {
                let node = hex(node, "bytes")?;
                if node.len() < 4_000 {
                    self.put("blob", &[&[3], &node[..]].concat())?;
                }
            }
        }
        Ok(())
    }

    fn texts(&self) -> Outcome {
        let put = |kind: u8, text: &str| self.put("text", &[&[kind], text.as_bytes()].concat());
        for case in cases("tickets")? {
            let ticket = text(&case, "text")?;
            put(0, ticket)?;
            // Handed over on a pipe.
            let mut w = Writer::new();
            w.array(2).u64(101).text(ticket);
            self.put("link", &[&[4, 1], &w.finish()[..]].concat())?;
        }
        for case in cases("keys")? {
            for id in ["node", "entry", "database"] {
                if let Some(id) = case[id].as_str() {
                    put(1, id)?;
                }
            }
        }
        let addresses = [
            "me@host:~/x",
            "host:some/path",
            "http://127.0.0.1:7700",
            "https://example.org/notes",
            "ws://[::1]:80/a%20b",
            "WSS://Example.org:443",
            "iroh:abc",
        ];
        addresses.iter().try_for_each(|address| put(2, address))?;
        ["7700", "0", "0.0.0.0:1", "[::1]:7700", "localhost:80"]
            .iter()
            .try_for_each(|a| put(3, a))?;
        ["ssh", "ssh -p 22 -i 'my key'", "\"a b\" c\\ d"]
            .iter()
            .try_for_each(|line| put(4, line))?;
        let all = anabranch::engine::node::config::SETTINGS;
        let lines: Vec<String> = all.iter().map(|s| format!("{}={}", s.key, s.default)).collect();
        put(5, &lines.join("\n"))?;
        put(5, "store.readers=1\nnet.ping_interval=20s\nnet.idle_timeout=5s")?;
        ["500ms", "7d", "64KiB", "1GiB", "100"].iter().try_for_each(|unit| put(6, unit))?;
        put(7, "mzxw6ytb")
    }

    fn sessions(&self) -> Outcome {
        let put = |flags: u8, steps: &[(u8, &[u8])]| {
            let mut bytes = vec![flags];
            for (kind, part) in steps {
                let Ok(len) = u16::try_from(part.len()) else { continue };
                bytes.push(*kind);
                bytes.extend_from_slice(&len.to_le_bytes());
                bytes.extend_from_slice(part);
            }
            self.put("session", &bytes)
        };
        let frames = cases("session")?;
        let frames: Vec<Vec<u8>> =
            frames.iter().map(|f| hex(f, "frame")).collect::<Outcome<_>>()?;
        let all: Vec<(u8, &[u8])> = frames.iter().map(|frame| (0, &frame[..])).collect();
        (0..64).step_by(8).try_for_each(|flags| put(flags, &all))?;
        for case in cases("frames")? {
            let frame = hex(&case, "frame")?;
            put(0, &[(0, &frame)])?;
            put(2, &[(0, &frame)])?;
        }
        let mut news = Vec::new();
        for run in &world().news {
            let mut w = Writer::new();
            run.encode(&mut w);
            news.push(w.finish());
        }
        let mut batch = Writer::new();
        batch.array(news.len()).raw(&news.concat());
        put(0, &[(3, &batch.finish()), (6, b"a blob"), (7, b"a blob")])?;
        put(0, &[(4, &news.concat())])?;
        put(16, &[(4, &news.concat())])?;
        for run in &news {
            put(0, &[(4, run), (0, &Frame::Credit { channel: 0, bytes: 9 }.encode())])?;
        }
        Ok(())
    }

    /// What no vector has: records of links, rows, files, values.
    fn by_hand(&self) -> Outcome {
        // The passphrase is the one that the target tries.
        self.put("home", b"\x03locked_key_raaqqaibkaeqscijbeeqscijbeeqscijbeevqgajbeeqscijbeeqscijbeeqscijbeeqscijbeeqswba5jfgyy7ctrjavpxvkb5rglwf7gkuo5vox27hxescd3vgsfcg2iwfqmgmslu6rzdecqte35lm7gcmmkn7kk662afqhf66uaqnc7ckkpbwx6vqg5tsoz7bgk737dqvj2uggg2a")?;
        let mut introduction = Writer::new();
        introduction.array(6).u64(100).u64(1).bytes(&[5; 32]).bool(true).bool(false).text("");
        self.put("link", &[&[4, 0], &introduction.finish()[..]].concat())?;
        let stream = b"\x05\0anabr\x61nch/1\n\0\0\0\x02hi\0\0\0\0\xff\xff\xff\xff";
        self.put("link", &[&[0], &stream[..]].concat())?;
        self.put("link", &[&[1, 32, 0], &[9; 32][..], &[64, 0], &[1; 64][..]].concat())?;
        self.put("link", &[&[2, 96, 0], &[9; 96][..]].concat())?;
        self.put("link", b"\x03\0\0\x03\0\0hi\x01\x02\x01\0\x01\0\0\x04\0\0end\0\0\x01\0\x02")?;
        for number in 0..56u8 {
            self.put("rows", &[0, number, 3, 0, 0x83, 1, 2])?;
            self.put(
                "rows",
                &[1, number, 2, 0, 9, 0, 0x1b, 255, 255, 255, 255, 255, 255, 255, 255],
            )?;
            self.put("rows", &[2, number])?;
        }
        self.put("rows", &[3, 4, 1, 0, 7, 4, 3, 2, 0, 0, 1, 1, 0, 5])?;
        let long = [&[0x78, 200][..], &[b'x'; 200]].concat();
        let sorted: [(&[u8], &[u8]); 5] = [
            (&[0x01], &[0xfb, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0]),
            (&[0x3b, 255, 255, 255, 255, 255, 255, 255, 255], &[0xf6]),
            (&[0x7f, 0x61, 0x61, 0xff], &[0x62, 0x61, 0x00]),
            (&long, &long[..150]),
            (&[0x41, 0x01], &[0xff]),
        ];
        for (one, other) in sorted {
            self.put("value", &[&[4, one.len() as u8, 0], one, other].concat())?;
        }
        for page in 0..40u8 {
            self.put("file", &[6, 0, 0, page.wrapping_mul(16), page / 16, 4, 0, 255, 1, 2])?;
        }
        self.put("file", &[6, 1, 40, 0, 0, 1, 7])?;
        self.put("file", &[6, 0x80, 0, 64, 0])?;
        self.put("file", b"\x09\0\0SQLite format 3\0")?;
        let row = |prefix: u8, key: &[u8], value: &[u8]| {
            let [a, b] = (key.len() as u16).to_le_bytes();
            let [c, d] = (value.len() as u16).to_le_bytes();
            [&[0, prefix, a, b], key, &[c, d], value].concat()
        };
        let mut record = Writer::new();
        record
            .array(6)
            .bytes(&[5; 32])
            .text("notes")
            .bool(true)
            .bytes(b"/x")
            .array(1)
            .array(5)
            .text("h:x")
            .bool(true)
            .bool(true)
            .u64(900_000)
            .u64(1)
            .bytes(&[]);
        self.put("home", &row(1, b"/x", &record.finish()))?;
        let mut peer = Writer::new();
        peer.array(2).u64(5).text("pipe");
        self.put("home", &row(3, &[7; 32], &peer.finish()))?;
        let mut fate = Writer::new();
        fate.array(5).bytes(&[7; 32]).u64(5).u64(6).text("offline").text("the peer is offline");
        self.put("home", &row(4, &[], &fate.finish()))?;
        self.put("home", &row(2, b"store.readers", b"4"))?;
        let key = anabranch_core::id::to_base32(&[7; 32]);
        self.put("home", format!("\x03device_key_{key}\n").as_bytes())?;
        let mut path = vec![0];
        path.extend_from_slice(b"a/b.txt");
        self.put("folder", &path)?;
        self.put("folder", b"\0.anabranch/x")?;
        self.put("folder", b"\x03\x03\0a/bname")?;
        self.put("folder", &[1, 0x82, 1, 0x19, 1, 0xed])?;
        self.put("folder", &[1, 0x82, 2, 0x41, b'x'])?;
        let empty = ["860000005820", &"00".repeat(32), "1901a401"].concat();
        self.put("folder", &[&[1], &HEXLOWER.decode(empty.as_bytes())?[..]].concat())?;
        let base = "840182011901ed8181420102861901ed05060708f5";
        self.put("folder", &[&[2], &HEXLOWER.decode(base.as_bytes())?[..]].concat())?;
        let (note, moved) = (["8155", base].concat(), ["8255", base, "4161"].concat());
        self.put("folder", &[&[4], &HEXLOWER.decode(note.as_bytes())?[..]].concat())?;
        self.put("folder", &[&[4], &HEXLOWER.decode(moved.as_bytes())?[..]].concat())?;
        for json in [
            r#"{"a":[1,-2.5,{"b":null}],"$bytes":"AP8="}"#,
            r#"{"$int":"-170"}"#,
            "[true,\"\\u0000\"]",
        ] {
            self.put("value", &[&[0], json.as_bytes()].concat())?;
        }
        for value in [
            "a2616101616282f5f6",
            "fb7ff8000000000000",
            "43000102",
            "3bffffffffffffffff",
            "a1636c697374820120",
        ] {
            let value = HEXLOWER.decode(value.as_bytes())?;
            self.put("value", &[&[1], &value[..]].concat())?;
            self.put("value", &[&[2], &value[..]].concat())?;
        }
        for (one, other) in [("8100", "8110"), ("82001851", "8100"), ("82f600", "8100")] {
            let [one, other] = [one, other].map(|hex| HEXLOWER.decode(hex.as_bytes()));
            let (one, other) = (one?, other?);
            let len = (one.len() as u16).to_le_bytes();
            self.put("value", &[&[3], &len[..], &one, &other].concat())?;
        }
        Ok(())
    }
}

fn cases(file: &str) -> Outcome<Vec<Value>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/vectors").join(file);
    let text = fs::read_to_string(path.with_extension("json"))?;
    let value: Value = serde_json::from_str(&text)?;
    Ok(value["cases"].as_array().cloned().unwrap_or_default())
}

fn text<'c>(case: &'c Value, field: &str) -> Outcome<&'c str> {
    case[field].as_str().ok_or_else(|| format!("no {field} in {case}").into())
}

/// Bytes of a field; none when the case lacks it.
fn hex(case: &Value, field: &str) -> Outcome<Vec<u8>> {
    let text = case[field].as_str().unwrap_or_default();
    Ok(HEXLOWER.decode(text.as_bytes())?)
}
