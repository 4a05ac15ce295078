//! Finding the command that README.md tells a newcomer to type first, so that what is tried is what is
//! promised.

/// Under this heading is the block of shell commands that counts.
const HEADING: &str = "Quick start";

/// The command starts no shell, so that it means the same to every reader and to us.
const SHELL_CHARACTERS: &[char] =
    &['|', '&', ';', '<', '>', '$', '`', '"', '\'', '*', '?', '(', ')'];

/// Why README.md has no first command that can be tried.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReadmeError {
    #[error("there is no heading \"{HEADING}\"")]
    NoHeading,
    #[error("there is no ```sh block under \"{HEADING}\"")]
    NoBlock,
    #[error("the first ```sh block under \"{HEADING}\" holds no command")]
    NoCommand,
    #[error("the first command must be one plain command, without {0:?}: {1}")]
    NotPlain(char, String),
    #[error("the first command must be a `sync HERE THERE`: {0}")]
    NotSync(String),
}

/// The first command of the README, and the two folders it brings together.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FirstCommand {
    pub(crate) words: Vec<String>,
    pub(crate) here: String,
    pub(crate) there: String,
}

/// Reads the first command out of the text of README.md.
pub(crate) fn first_command(readme: &str) -> Result<FirstCommand, ReadmeError> {
    let line = first_line(&block(readme)?).ok_or(ReadmeError::NoCommand)?;
    if let Some(character) = line.chars().find(|character| SHELL_CHARACTERS.contains(character)) {
        return Err(ReadmeError::NotPlain(character, line));
    }
    let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    let mut operands = words
        .iter()
        .skip_while(|word| *word != "sync")
        .skip(1)
        .filter(|word| !word.starts_with('-'));
    match (operands.next().cloned(), operands.next().cloned()) {
        (Some(here), Some(there)) => Ok(FirstCommand { words, here, there }),
        _ => Err(ReadmeError::NotSync(line)),
    }
}

/// The lines of the first ```sh block under the heading, up to the next heading.
fn block(readme: &str) -> Result<Vec<&str>, ReadmeError> {
    let mut lines = readme.lines();
    if !lines.any(|line| title(line).is_some_and(|title| title.eq_ignore_ascii_case(HEADING))) {
        return Err(ReadmeError::NoHeading);
    }
    while let Some(line) = lines.next() {
        match line.trim().strip_prefix("```") {
            Some(language) => {
                let body: Vec<&str> =
                    lines.by_ref().take_while(|line| line.trim() != "```").collect();
                if language.split_whitespace().next() == Some("sh") {
                    return Ok(body);
                }
            }
            None if title(line).is_some() => break,
            None => {}
        }
    }
    Err(ReadmeError::NoBlock)
}

/// The text of a heading line.
fn title(line: &str) -> Option<&str> {
    let text = line.trim_start_matches('#');
    (text.len() < line.len()).then_some(text).and_then(|text| text.strip_prefix(' ')).map(str::trim)
}

/// The first command, with continued lines joined and comments left out.
fn first_line(block: &[&str]) -> Option<String> {
    let mut command = String::new();
    for line in block.iter().map(|line| line.trim()) {
        if command.is_empty() && (line.is_empty() || line.starts_with('#')) {
            continue;
        }
        let code = line.split(" #").next().unwrap_or(line).trim_end();
        match code.strip_suffix('\\') {
            Some(part) => command.push_str(part),
            None => return Some(command + code),
        }
    }
    (!command.is_empty()).then_some(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    const README: &str = "\
# Anabranch

```sh
not this one
```

## Quick start

Some words, and a picture of a file:

```toml
# Quick start
```

```sh
# Two folders become one.

cargo run --release -- \\
    sync --json crates ../copy   # builds first
cargo xtask test
```

## Then

```sh
nor this one
```
";

    #[test]
    fn the_first_command_is_found() {
        let command = first_command(README).unwrap();
        assert_eq!(command.words.join(" "), "cargo run --release -- sync --json crates ../copy");
        assert_eq!((command.here.as_str(), command.there.as_str()), ("crates", "../copy"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let under = |block: &str| first_command(&format!("# A\n## Quick start\n{block}"));
        assert_eq!(first_command("# Anabranch\n"), Err(ReadmeError::NoHeading));
        assert_eq!(first_command("#Quick start\n"), Err(ReadmeError::NoHeading));
        assert_eq!(under("words\n"), Err(ReadmeError::NoBlock));
        assert_eq!(under("```toml\nx\n```\n"), Err(ReadmeError::NoBlock));
        assert_eq!(under("### Next\n```sh\na sync b c\n```\n"), Err(ReadmeError::NoBlock));
        assert_eq!(under("```sh\n\n# nothing\n```\n"), Err(ReadmeError::NoCommand));
        assert_eq!(
            under("```sh\na sync b\n```\n"),
            Err(ReadmeError::NotSync("a sync b".to_owned()))
        );
        assert_eq!(
            under("```sh\nmake b c\n```\n"),
            Err(ReadmeError::NotSync("make b c".to_owned()))
        );
    }

    #[test]
    fn a_command_for_a_shell_is_refused() {
        for character in ['|', '$', ';', '"'] {
            let readme = format!("# Quick start\n```sh\na sync b c {character} d\n```\n");
            assert!(
                matches!(first_command(&readme), Err(ReadmeError::NotPlain(found, _)) if found == character)
            );
        }
    }

    #[test]
    fn a_block_without_an_end_ends_with_the_file() {
        assert!(first_command("# Quick start\n```sh\na sync b c \\").is_ok());
        assert_eq!(first_command("# Quick start\n```sh\n\\"), Err(ReadmeError::NoCommand));
    }
}
