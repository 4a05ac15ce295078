//! Running other programs. Each is printed before it starts, so that a log can be followed by hand.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Error, Result};

/// Runs the command with our own input and output.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    announce(command);
    let status = command.status().map_err(|source| start_error(command, source))?;
    if status.success() { Ok(()) } else { Err(Error::Failed { command: line(command), status }) }
}

/// Runs the command quietly and returns what it wrote to its standard output.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    let output =
        command.stderr(Stdio::inherit()).output().map_err(|source| start_error(command, source))?;
    if !output.status.success() {
        return Err(Error::Failed { command: line(command), status: output.status });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs the command, shows its standard output as it comes, and returns it as well.
pub(crate) fn tee(command: &mut Command) -> Result<String> {
    announce(command);
    let mut child =
        command.stdout(Stdio::piped()).spawn().map_err(|source| start_error(command, source))?;
    let mut seen = String::new();
    if let Some(stdout) = child.stdout.take() {
        let mut reader = BufReader::new(stdout);
        let mut bytes = Vec::new();
        while reader.read_until(b'\n', &mut bytes).map_err(|source| start_error(command, source))?
            > 0
        {
            let text = String::from_utf8_lossy(&bytes);
            print!("{text}");
            seen.push_str(&text);
            bytes.clear();
        }
    }
    let status = child.wait().map_err(|source| start_error(command, source))?;
    if status.success() { Ok(seen) } else { Err(Error::Failed { command: line(command), status }) }
}

/// Where `program` is on the PATH, if it is.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(program))
        .find(|candidate| is_executable(candidate))
}

#[cfg(unix)]
fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_executable(path: &Path) -> bool {
    path.is_file()
}

fn announce(command: &Command) {
    println!("$ {}", line(command));
}

/// The command as one would type it, with the environment it changes.
pub(crate) fn line(command: &Command) -> String {
    let changed = command
        .get_envs()
        .filter_map(|(name, value)| Some(format!("{}={}", show(name), quoted(value?))));
    let program = Path::new(command.get_program());
    // Of cargo we are told the whole path, which says nothing.
    let shown = if program.is_absolute() { program.file_name() } else { None };
    let program = show(shown.unwrap_or(program.as_os_str()));
    let arguments = command.get_args().map(quoted);
    changed.chain(std::iter::once(program)).chain(arguments).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &OsStr) -> String {
    let word = show(word);
    if word.is_empty() || word.contains(char::is_whitespace) { format!("'{word}'") } else { word }
}

fn show(word: &OsStr) -> String {
    word.to_string_lossy().into_owned()
}

fn start_error(command: &Command, source: std::io::Error) -> Error {
    Error::Start { command: line(command), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_can_be_typed_again() {
        let mut command = Command::new("/usr/bin/printf");
        command.args(["%s", "two words", ""]).env("LANG", "C");
        assert_eq!(line(&command), "LANG=C printf %s 'two words' ''");
    }

    #[test]
    fn output_is_returned_and_a_failure_is_an_error() {
        assert_eq!(read(Command::new("sh").args(["-c", "echo out"])).unwrap(), "out\n");
        assert_eq!(tee(Command::new("sh").args(["-c", "printf 'a\\nb'"])).unwrap(), "a\nb");
        for outcome in [
            run(Command::new("sh").args(["-c", "exit 3"])),
            read(Command::new("sh").args(["-c", "exit 3"])).map(drop),
            tee(Command::new("sh").args(["-c", "exit 3"])).map(drop),
        ] {
            assert!(
                matches!(outcome, Err(Error::Failed { status, .. }) if status.code() == Some(3))
            );
        }
        let missing = run(&mut Command::new("no-such-program-anywhere"));
        assert!(matches!(missing, Err(Error::Start { .. })));
    }

    #[test]
    fn programs_are_found_on_the_path() {
        assert!(find("sh").is_some());
        assert_eq!(find("no-such-program-anywhere"), None);
    }
}
