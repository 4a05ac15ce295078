//! Standard output and standard error, as every command uses them. What was asked for goes to standard output, notes and
//! warnings to standard error. With `--json` standard output carries documented objects and nothing else. A reader that
//! went away (`| head`) ends the command quietly.

use crate::failure::Failure;
use serde::Serialize;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

/// What the log calls notes, warnings and errors of the command itself.
pub(crate) const NOTES: &str = "notes";

/// How output is wanted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    /// Objects instead of text.
    pub(crate) json: bool,
    /// No summaries, notes and warnings.
    pub(crate) quiet: bool,
    /// Notes, warnings and errors are lines of the log: whoever reads that as objects gets nothing else.
    pub(crate) logs: bool,
}

impl Output {
    /// Prints what was asked for, as text or as one object.
    pub(crate) fn answer(&self, text: &str, object: &impl Serialize) -> Result<(), Failure> {
        let mut lines = self.lines();
        if self.json {
            lines.object(object)?;
        } else if !text.is_empty() {
            lines.text(text)?;
        }
        lines.end()
    }

    /// As [`Self::answer`], for a command that was not asked for anything but to do its work.
    pub(crate) fn summary(&self, text: &str, object: &impl Serialize) -> Result<(), Failure> {
        self.answer(if self.quiet { "" } else { text }, object)
    }

    /// Standard output, for many lines.
    pub(crate) fn lines(&self) -> Lines {
        Lines(BufWriter::with_capacity(64 * 1024, io::stdout().lock()))
    }

    /// Something worth knowing.
    pub(crate) fn note(&self, text: &str) {
        if self.logs && !self.quiet {
            tracing::info!(target: NOTES, "{text}");
        } else if !self.quiet {
            complain("", text);
        }
    }

    /// Something that may not be as it should.
    pub(crate) fn warn(&self, text: &str) {
        if self.logs && !self.quiet {
            tracing::warn!(target: NOTES, "{text}");
        } else if !self.quiet {
            complain(&styled("33", "warning:"), text);
        }
    }

    /// Why the command failed.
    pub(crate) fn fail(&self, failure: &Failure) {
        if self.logs {
            tracing::error!(target: NOTES, "{}", failure.line());
        } else if self.json {
            complain("", &failure.json().to_string());
        } else {
            complain(&styled("1;31", "error:"), &failure.text());
        }
    }

    /// Whether progress may be drawn.
    pub(crate) fn draws(&self) -> bool {
        !self.quiet && !self.json && !self.logs && io::stderr().is_terminal()
    }
}

fn complain(label: &str, text: &str) {
    let space = if label.is_empty() { "" } else { " " };
    // There is nowhere left to complain to when this fails.
    let _ = writeln!(io::stderr().lock(), "{label}{space}{text}");
}

fn styled(style: &str, text: &str) -> String {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())
        || std::env::var_os("TERM").is_some_and(|v| v == "dumb")
        || !io::stderr().is_terminal();
    if plain { text.to_owned() } else { format!("\x1b[{style}m{text}\x1b[0m") }
}

/// Standard output, buffered.
pub(crate) struct Lines(BufWriter<StdoutLock<'static>>);

impl Lines {
    /// Writes a line.
    pub(crate) fn text(&mut self, line: &str) -> Result<(), Failure> {
        written(writeln!(self.0, "{line}"))
    }

    /// Writes an object on a line of its own.
    pub(crate) fn object(&mut self, object: &impl Serialize) -> Result<(), Failure> {
        let line = serde_json::to_string(object)?;
        self.text(&line)
    }

    /// Hands over what was written so far.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        written(self.0.flush())
    }

    /// Hands over everything.
    pub(crate) fn end(mut self) -> Result<(), Failure> {
        self.flush()
    }
}

fn written(result: io::Result<()>) -> Result<(), Failure> {
    result.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::unheard(),
        _ => Failure::failed("standard output cannot be written").because(&error),
    })
}

/// `text` without control characters: names and values come from other devices and must not drive the terminal.
pub(crate) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        // Those that turn the direction of text could make it read as something else.
        let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if (c.is_control() && c != '\n') || turns {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Rows with their columns aligned, two spaces apart.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| {
            let cell = plain(cell).replace('\n', " ");
            format!("{cell:width$}")
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".into(), "bb".into()], vec!["ccc".into(), "d".into()]];
        assert_eq!(table(&rows), "a    bb\nccc  d");
        assert_eq!(table(&[vec!["é".into(), "x\u{7}".into()]]), "é  x\\u{7}");
        assert_eq!(plain("\u{202e}txt"), "\\u{202e}txt");
    }
}
