//! The repository stands alone: no tracked file leans on one machine, and none holds what the rules of the
//! house rule out. What the compiler's lints already refuse is looked for here as well where a crate could
//! have switched the lint off.

use std::path::Path;

use crate::error::{Error, Result};
use crate::workspace::Workspace;

/// Roots of paths that exist on somebody's machine only. Written in two parts, so that this file passes.
const MACHINE_PATHS: [&str; 3] =
    [concat!("/", "work/"), concat!("/", "root/"), concat!("/", "home/")];

/// Left-over marks of unfinished work, in any file.
const UNFINISHED: [&str; 1] = [concat!("FIX", "ME")];

/// Macros that stand in for code, in Rust files.
const PLACEHOLDERS: [&str; 2] = [concat!("todo", "!"), concat!("unimplemented", "!")];

/// What may follow the keyword that Rust files must do without; as a word in prose it is allowed.
const AFTER_UNSAFE: [&str; 6] = ["{", "fn", "impl", "extern", "trait", "("];

/// The files that may do with it all the same: what SQLite calls is C.
const MAY_BE_UNSAFE: [&str; 3] = [
    "crates/faultdisk/src/vfs.rs",
    "crates/faultdisk/src/vfs/file.rs",
    "crates/sqlite-sync/src/lib.rs",
];

pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let files = workspace.tracked()?;
    let mut findings = Vec::new();
    for file in &files {
        // A deleted file is still tracked until the deletion is staged; a golden vector need not be text.
        if let Ok(text) = std::fs::read_to_string(workspace.root().join(file)) {
            findings.extend(scan(file, &text));
        }
    }
    println!("{} tracked files looked at", files.len());
    if findings.is_empty() {
        return Ok(());
    }
    Err(Error::Findings { check: "things that must not be in the repository", findings })
}

/// What is wrong with one file, as `FILE:LINE: WHAT`.
fn scan(file: &Path, text: &str) -> Vec<String> {
    let kind = Kind {
        is_rust: file.extension().is_some_and(|extension| extension == "rs"),
        may_be_unsafe: MAY_BE_UNSAFE.iter().any(|path| Path::new(path) == file),
    };
    let lines = text.lines().enumerate();
    lines
        .flat_map(|(index, line)| {
            let place = format!("{}:{}", file.display(), index + 1);
            faults(line, kind).into_iter().map(move |fault| format!("{place}: {fault}"))
        })
        .collect()
}

/// What a file is, as far as that decides what is looked for.
#[derive(Clone, Copy)]
struct Kind {
    is_rust: bool,
    may_be_unsafe: bool,
}

fn faults(line: &str, kind: Kind) -> Vec<String> {
    let mut faults = Vec::new();
    for path in MACHINE_PATHS.iter().filter(|path| has_absolute(line, path)) {
        faults.push(format!("a path on one machine: {path}"));
    }
    for mark in UNFINISHED.iter().filter(|mark| line.contains(**mark)) {
        faults.push(format!("unfinished: {mark}"));
    }
    if kind.is_rust {
        for placeholder in PLACEHOLDERS.iter().filter(|placeholder| has_word(line, placeholder)) {
            faults.push(format!("a placeholder: {placeholder}"));
        }
        if has_unsafe(line) && !kind.may_be_unsafe {
            faults.push("unsafe code".to_owned());
        }
    }
    faults
}

/// Whether the line holds an absolute path with this root, and not a relative one or a URL with such a part.
fn has_absolute(line: &str, root: &str) -> bool {
    line.match_indices(root)
        .any(|(at, _)| !line[..at].ends_with(|before: char| is_path_character(before)))
}

fn is_path_character(character: char) -> bool {
    character.is_alphanumeric() || "_-.~}>".contains(character)
}

fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| !line[..at].ends_with(is_name_character))
}

fn has_unsafe(line: &str) -> bool {
    const KEYWORD: &str = "unsafe";
    let code = line.split("//").next().unwrap_or(line);
    code.match_indices(KEYWORD).any(|(at, _)| {
        let after = &code[at + KEYWORD.len()..];
        let starts =
            !code[..at].ends_with(is_name_character) && !after.starts_with(is_name_character);
        starts && AFTER_UNSAFE.iter().any(|next| after.trim_start().starts_with(next))
    })
}

fn is_name_character(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUST: Kind = Kind { is_rust: true, may_be_unsafe: false };

    fn found(line: &str) -> usize {
        faults(line, RUST).len()
    }

    #[test]
    fn paths_on_one_machine_are_found() {
        for root in MACHINE_PATHS {
            for line in [format!("cd {root}main"), format!("(\"{root}x\")"), format!("{root}x")] {
                assert_eq!(found(&line), 1, "{line}");
            }
            for line in
                [format!("https://example.org{root}x"), format!("a{root}x"), format!("~{root}x")]
            {
                assert_eq!(found(&line), 0, "{line}");
            }
        }
    }

    #[test]
    fn unfinished_work_is_found() {
        for word in PLACEHOLDERS.iter().chain(&UNFINISHED) {
            assert_eq!(found(&format!("    {word}(\"later\")")), 1, "{word}");
        }
        assert_eq!(found(&format!("my_{}()", PLACEHOLDERS[0])), 0);
        let prose = Kind { is_rust: false, ..RUST };
        assert!(faults(PLACEHOLDERS[0], prose).is_empty(), "prose may name a macro");
        assert_eq!(faults(UNFINISHED[0], prose).len(), 1);
    }

    #[test]
    fn code_without_the_compilers_checks_is_found() {
        let keyword = concat!("un", "safe");
        for rest in [" {", "{", " fn f()", " impl Send for X {}", " extern \"C\" {", "(no_mangle)"]
        {
            assert_eq!(found(&format!("{keyword}{rest}")), 1, "{rest}");
        }
        for line in
            ["unsafe_code = \"forbid\"", "// an unsafe { block", "an unsafe name", "not_unsafe {"]
        {
            assert_eq!(found(line), 0, "{line}");
        }
    }

    #[test]
    fn only_the_files_that_need_it_do_without_the_compilers_checks() {
        let line = concat!("un", "safe {}");
        for file in MAY_BE_UNSAFE {
            assert!(scan(Path::new(file), line).is_empty(), "{file}");
        }
        assert_eq!(scan(Path::new("crates/faultdisk/src/drive.rs"), line).len(), 1);
    }

    #[test]
    fn a_finding_names_its_place() {
        let text = format!("fine\ncd {}x\n", MACHINE_PATHS[0]);
        let findings = scan(Path::new("docs/a.md"), &text);
        assert_eq!(findings.len(), 1);
        assert!(findings[0].starts_with("docs/a.md:2: "), "{findings:?}");
    }
}
