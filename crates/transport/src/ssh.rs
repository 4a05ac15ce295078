//! Links to a node on another machine through `ssh`, or whatever the user puts in its place.
//!
//! Nothing from an address ever reaches a shell unquoted, here or there: the host is checked when the address is
//! parsed ([`SshAddress`]), the path is quoted for the remote shell here.

use thiserror::Error;

use crate::{ConnectError, Limits, Link, SshAddress, pipe};

/// The program that runs a command on another machine, with its first arguments.
///
/// It is run as `<words> <[user@]host> <command>`, where the command is one argument, in the syntax of a POSIX shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshCommand {
    words: Vec<String>,
}

impl SshCommand {
    /// Splits a command line into words as a POSIX shell would: spaces separate, quotes and backslashes keep
    /// together. Nothing is expanded.
    pub fn parse(line: &str) -> Result<SshCommand, SshCommandError> {
        let words = shlex::split(line).ok_or(SshCommandError::Unbalanced)?;
        if words.first().is_none_or(String::is_empty) {
            return Err(SshCommandError::Empty);
        }
        Ok(SshCommand { words })
    }

    /// The words to run for a remote command, the program first.
    pub fn words_for(&self, address: &SshAddress, remote_command: &str) -> Vec<String> {
        let mut words = self.words.clone();
        words.push(address.login());
        words.push(remote_command.to_owned());
        words
    }
}

impl Default for SshCommand {
    fn default() -> Self {
        SshCommand { words: vec!["ssh".to_owned()] }
    }
}

/// Why a command line cannot be used to reach other machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SshCommandError {
    /// There is no program in it.
    #[error("the ssh command is empty; give a program, for example: ssh -p 2222")]
    Empty,
    /// A quote is not closed, or a backslash ends the line.
    #[error("the ssh command has a quote that is not closed, or ends with a backslash")]
    Unbalanced,
}

/// Starts `<ssh> <host> <remote program> serve --stdio <path>` and makes a link of it.
///
/// `remote_program` is in the syntax of the remote shell, so that it can hold options or set variables.
pub fn connect(
    ssh: &SshCommand,
    remote_program: &str,
    address: &SshAddress,
    limits: &Limits,
) -> Result<Link, ConnectError> {
    let remote_command = remote_command(remote_program, address.path());
    let link = pipe::spawn(&ssh.words_for(address, &remote_command), limits)?;
    Ok(link.with_peer(address.to_string()))
}

/// The command that the remote shell runs.
pub fn remote_command(remote_program: &str, path: &str) -> String {
    format!("{remote_program} serve --stdio {}", quote_path(path))
}

/// Quotes a path for a POSIX shell. A leading `~` or `~user` still means that home; a leading `-` is made a path.
fn quote_path(path: &str) -> String {
    if path.starts_with('-') {
        return quote(&format!("./{path}"));
    }
    let (first, rest) = match path.split_once('/') {
        Some((first, rest)) => (first, Some(rest)),
        None => (path, None),
    };
    if !is_home(first) {
        return quote(path);
    }
    match rest {
        None => first.to_owned(),
        Some("") => format!("{first}/"),
        Some(rest) => format!("{first}/{}", quote(rest)),
    }
}

/// Whether a path's first part is `~` or `~user` with a name that needs no quoting.
fn is_home(part: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    part.strip_prefix('~').is_some_and(|user| user.chars().all(plain))
}

/// Within single quotes a shell knows no special characters; a single quote itself steps outside of them.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    /// What a real shell makes of a quoted word.
    fn shell_sees(word: &str) -> String {
        let output = Command::new("sh")
            .arg("-c")
            .arg(format!("printf %s {word}"))
            .env("HOME", "/srv/me")
            .output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    }

    #[test]
    fn odd_paths_reach_the_other_side_unchanged() {
        let paths = [
            "plain",
            "with space",
            "it's",
            "a'b'c",
            "'",
            "\"double\"",
            "$HOME",
            "`id`",
            "$(id)",
            "a;b",
            "a&b|c>d",
            "back\\slash",
            "tab\there",
            "line\nbreak",
            "*",
            "?[a]",
            "!x",
            "#c",
            "é ü 日本",
            "a~b",
            "/~/x",
            "",
            "~'; id; '/x",
            "~$USER/x",
            "a=b",
            "%s",
            "\\n",
        ];
        for path in paths {
            assert_eq!(shell_sees(&quote_path(path)), path);
        }
    }

    #[test]
    fn a_home_is_expanded_and_an_option_is_not_one() {
        assert_eq!(shell_sees(&quote_path("~")), "/srv/me");
        assert_eq!(shell_sees(&quote_path("~/")), "/srv/me/");
        assert_eq!(shell_sees(&quote_path("~/my docs/it's")), "/srv/me/my docs/it's");
        assert_eq!(quote_path("~root/x"), "~root/'x'");
        assert_eq!(shell_sees(&quote_path("-rf")), "./-rf");
    }

    #[test]
    fn the_remote_command_is_one_line_of_shell() {
        assert_eq!(remote_command("anabranch", "my db"), "anabranch serve --stdio 'my db'");
    }

    #[test]
    fn the_command_is_split_like_a_shell_would() {
        let command = SshCommand::parse("ssh -p 2222 -i 'my key' -o \"A=b c\" x\\ y").unwrap();
        assert_eq!(command.words, ["ssh", "-p", "2222", "-i", "my key", "-o", "A=b c", "x y"]);
        assert_eq!(SshCommand::parse("ssh 'x"), Err(SshCommandError::Unbalanced));
        assert_eq!(SshCommand::parse("ssh \\"), Err(SshCommandError::Unbalanced));
        assert_eq!(SshCommand::parse("  "), Err(SshCommandError::Empty));
        assert_eq!(SshCommand::parse("'' x"), Err(SshCommandError::Empty));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_text_survives_the_shell(text in "[^\\x00]{0,40}") {
            prop_assert_eq!(shell_sees(&quote(&text)), text);
        }
    }
}
