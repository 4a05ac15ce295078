//! What `--help` says, as snapshots: a change to the command line shows in review. Run with `INSTA_UPDATE=always` to
//! accept new ones.

use crate::world::Home;

const COMMANDS: &[&[&str]] = &[
    &[],
    &["sync"],
    &["share"],
    &["ticket"],
    &["join"],
    &["requests"],
    &["requests", "ls"],
    &["requests", "approve"],
    &["requests", "reject"],
    &["requests", "forget"],
    &["requests", "policy"],
    &["serve"],
    &["status"],
    &["peers"],
    &["peers", "add"],
    &["peers", "rm"],
    &["id"],
    &["key"],
    &["key", "passphrase"],
    &["key", "export"],
    &["key", "import"],
    &["init"],
    &["config"],
    &["completions"],
    &["db"],
    &["db", "new"],
    &["db", "ls"],
    &["db", "info"],
    &["db", "import"],
    &["db", "export"],
    &["db", "get"],
    &["db", "put"],
    &["db", "rm"],
    &["db", "rows"],
    &["db", "counter"],
    &["db", "counter", "add"],
    &["db", "counter", "get"],
    &["db", "counter", "reset"],
    &["db", "counter", "ls"],
    &["db", "set"],
    &["db", "set", "add"],
    &["db", "set", "rm"],
    &["db", "set", "has"],
    &["db", "set", "ls"],
    &["db", "list"],
    &["db", "list", "push"],
    &["db", "list", "insert"],
    &["db", "list", "set"],
    &["db", "list", "mv"],
    &["db", "list", "rm"],
    &["db", "list", "ls"],
    &["db", "watch"],
    &["db", "log"],
    &["db", "conflicts"],
    &["db", "resolve"],
    &["db", "digest"],
    &["db", "verify"],
    &["db", "forget"],
    &["folder"],
    &["folder", "log"],
    &["folder", "conflicts"],
    &["folder", "resolve"],
    &["folder", "digest"],
    &["folder", "verify"],
    &["folder", "forget"],
];

#[test]
fn help_of_every_command() {
    let home = Home::new();
    let mut all = String::new();
    for command in COMMANDS {
        let help = home.ok(&[command, &["-h"][..]].concat());
        let group = command.is_empty()
            || [&["db"][..], &["folder"], &["requests"], &["key"]].contains(command);
        assert!(group || help.contains("Example"), "{command:?} has no example:\n{help}");
        all.push_str(&format!("$ anabranch {} -h\n{help}\n", command.join(" ")));
    }
    insta::assert_snapshot!(all);
    assert!(!home.state().exists(), "asking for help makes nothing");
}

#[test]
fn the_long_help_explains_places_and_exit_codes() {
    let home = Home::new();
    let help = home.ok(&["--help"]);
    for text in ["db:NAME", "@FILE", "Exit codes: 0 done"] {
        assert!(help.contains(text), "{text}");
    }
}

#[test]
fn completions_name_the_commands() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(home.ok(&["completions", shell]).contains("resolve"), "{shell}");
    }
}
