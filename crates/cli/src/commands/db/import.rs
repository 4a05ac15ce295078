//! `db import`: JSON lines into a table. One line and what the library gathers are in memory. A bad line ends it: what is
//! before that line is in the table, nothing after it is.

use super::rows::{ROW_BYTES, open};
use crate::args::ImportArgs;
use crate::context::Context;
use crate::failure::{Failure, Kind};
use crate::progress::Meter;
use crate::units;
use anabranch::engine::core::error::Error as CoreError;
use anabranch::{Bulk, Error, Loaded, NodeError};
use anabranch_api::json::{Json, parse};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::time::Instant;

/// Imports a file.
pub(super) async fn run(context: &Context, args: &ImportArgs) -> Result<(), Failure> {
    let started = Instant::now();
    let mut source = Source::open(&args.file)?;
    let node = context.node()?;
    let mut bulk = open(context, &node, &args.table)?.bulk();
    let mut meter = Meter::new(context.output, &args.table.table);
    let fed = feed(&mut source, &args.key, &mut bulk, &mut meter).await;
    drop(meter);
    let before = bulk.loaded();
    let finished = match &fed {
        // The database itself failed: it would again.
        Err(Stopped::Commit(_)) => Ok(before),
        _ => bulk.finish().await,
    };
    let loaded = *finished.as_ref().unwrap_or(&before);
    report(context, loaded, started)?;
    let failure = match (fed, finished) {
        (Ok(()), Ok(_)) => return Ok(()),
        (Err(Stopped::Line(failure)), Ok(_)) => failure.hint(match loaded.rows {
            0 => "nothing was imported; correct the line and import again".to_owned(),
            rows => format!(
                "{} before it are imported; correct the line and import again",
                units::counted(rows, "row", "rows")
            ),
        }),
        (Err(Stopped::Commit(e)), _) | (_, Err(e)) => {
            Failure::failed("the rows could not be stored").because(&e)
        }
    };
    Err(if loaded.rows > 0 { failure.of_kind(Kind::Partly) } else { failure })
}

enum Stopped {
    /// A line is bad.
    Line(Failure),
    /// What was gathered could not be committed.
    Commit(Error),
}

async fn feed(
    source: &mut Source,
    field: &str,
    bulk: &mut Bulk<Json>,
    meter: &mut Meter,
) -> Result<(), Stopped> {
    let mut text = String::new();
    let mut rows = 0;
    loop {
        let more = source.next(&mut text).map_err(Stopped::Line)?;
        if !more {
            return Ok(());
        }
        let bad = |failure: Failure| {
            Stopped::Line(
                Failure::failed(format!("line {} is bad", source.line)).caused_by(failure),
            )
        };
        let row = parse(&text).map_err(|e| bad(e.into()))?;
        let key = key_of(&row, field).map_err(bad)?;
        match bulk.put(&key, &row).await {
            Ok(()) => {}
            Err(e @ (Error::Value { .. } | Error::Node(NodeError::Core(CoreError::Path(_))))) => {
                return Err(bad(e.into()));
            }
            Err(e) => return Err(Stopped::Commit(e)),
        }
        rows += 1;
        if rows % 256 == 0 {
            meter.set(source.read, source.size, units::counted(rows, "row", "rows"));
        }
    }
}

fn key_of(row: &Json, field: &str) -> Result<String, Failure> {
    let Value::Object(columns) = &row.0 else {
        return Err(Failure::failed("it is no JSON object"));
    };
    match columns.get(field) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Number(number)) => Ok(number.to_string()),
        Some(_) => {
            Err(Failure::failed(format!("its field '{field}' is neither text nor a number")))
        }
        None => Err(Failure::failed(format!("it has no field '{field}' to be its key"))),
    }
}

fn report(context: &Context, loaded: Loaded, started: Instant) -> Result<(), Failure> {
    let time = started.elapsed();
    let text = format!(
        "imported {} in {}: {} changed, {}",
        units::counted(loaded.rows, "row", "rows"),
        units::duration(time),
        units::number(loaded.changed),
        units::counted(loaded.entries, "entry", "entries"),
    );
    let object = json!({
        "rows": loaded.rows,
        "changed": loaded.changed,
        "entries": loaded.entries,
        "seconds": time.as_secs_f64(),
    });
    context.output.summary(&text, &object)
}

/// Lines of a file or of standard input.
struct Source {
    reader: Box<dyn BufRead>,
    size: Option<u64>,
    read: u64,
    line: u64,
}

impl Source {
    fn open(name: &str) -> Result<Self, Failure> {
        let cannot = |e: &io::Error| Failure::failed(format!("{name} cannot be read")).because(e);
        let (reader, size): (Box<dyn BufRead>, _) = if name == "-" {
            (Box::new(io::stdin().lock()), None)
        } else {
            let file = File::open(name).map_err(|e| cannot(&e))?;
            let about = file.metadata().map_err(|e| cannot(&e))?;
            if about.is_dir() {
                return Err(Failure::failed(format!("{name} is a directory")));
            }
            let size = about.is_file().then_some(about.len());
            (Box::new(BufReader::with_capacity(256 * 1024, file)), size)
        };
        Ok(Self { reader, size, read: 0, line: 0 })
    }

    /// Reads the next line that is not blank into `text`; false at the end.
    fn next(&mut self, text: &mut String) -> Result<bool, Failure> {
        loop {
            self.line += 1;
            let line = self.line;
            let bad = |what: String| {
                Failure::failed(format!("line {line} is bad")).caused_by(Failure::failed(what))
            };
            let mut bytes = std::mem::take(text).into_bytes();
            bytes.clear();
            let count = (&mut self.reader).take(ROW_BYTES + 1).read_until(b'\n', &mut bytes);
            let count = count.map_err(|e| bad(format!("it cannot be read: {e}")))? as u64;
            if count == 0 {
                return Ok(false);
            }
            if count > ROW_BYTES {
                return Err(bad(format!("it has more than {ROW_BYTES} bytes")));
            }
            self.read += count;
            *text = String::from_utf8(bytes).map_err(|_| bad("it is no UTF-8 text".to_owned()))?;
            if !text.trim_ascii().is_empty() {
                return Ok(true);
            }
        }
    }
}
