//! `anabranch sim`: one seed, a file, and what is not one.

use crate::world::Home;

const PLAN: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../sim/tests/plans/compared-anew-while-still-moving.json"
);

#[test]
fn a_seed_and_a_plan_say_what_they_were_like() {
    let home = Home::new();
    let seed = home.ok(&["sim", "--seed", "7", "--nodes", "3", "--json"]);
    let again = home.ok(&["sim", "--seed", "7", "--nodes", "3", "--json"]);
    assert_eq!(seed, again, "a seed repeats");
    let text = home.ok(&["sim", "--plan", PLAN, "--story"]);
    assert!(text.contains("link 0: node 1 dials node 0"), "{text}");
    assert!(
        text.contains("is restored from an older copy") && text.contains("all equal"),
        "{text}"
    );
}

#[test]
fn what_is_no_plan_is_said_to_be_none() {
    let home = Home::new();
    let no = home.write("no.json", "{}");
    for file in [&no[..], "/there/is/nothing.json"] {
        home.run(&["sim", "--plan", file]).fails(1, "cannot be read");
    }
    home.run(&["sim", "--plan", &no, "--seed", "1"]).fails(2, "cannot be used with");
}
