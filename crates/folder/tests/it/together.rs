//! Two replicas, one story each.

use crate::replica::{Replica, path, sync};
use anabranch_folder::fs::{FileSystem, ManualClock};
use std::sync::Arc;

struct Pair {
    a: Replica,
    b: Replica,
    clock: Arc<ManualClock>,
}

impl Pair {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::at(1_785_759_296_000_000_000));
        Self { a: Replica::new("ann", &clock), b: Replica::new("bob", &clock), clock }
    }

    fn with(files: &[(&str, &str)]) -> Self {
        let mut pair = Self::new();
        for (at, text) in files {
            for dir in path(at).ancestors().collect::<Vec<_>>().into_iter().rev() {
                let _ = pair.a.fs.make_dir(&dir);
            }
            pair.a.fs.write(&path(at), text.as_bytes()).unwrap();
        }
        pair.sync();
        pair
    }

    fn sync(&mut self) {
        self.clock.advance(10_000_000_000);
        sync(&mut self.a, &mut self.b);
        assert_eq!(self.a.names(), self.b.names());
        self.clock.advance(10_000_000_000);
    }

    fn names(&self) -> Vec<String> {
        self.a.names()
    }

    fn both(&self, at: &str) -> String {
        let text = self.a.text(at).unwrap();
        assert_eq!(self.b.text(at).as_ref(), Some(&text));
        text
    }
}

fn write(replica: &Replica, at: &str, text: &str) {
    replica.fs.write(&path(at), text.as_bytes()).unwrap();
}

fn remove(replica: &Replica, at: &str) {
    replica.fs.remove_file(&path(at)).unwrap();
}

fn rename(replica: &Replica, from: &str, to: &str) {
    replica.fs.rename(&path(from), &path(to), true).unwrap();
}

#[test]
fn a_first_sync_of_two_folders_merges_them() {
    let mut pair = Pair::new();
    write(&pair.a, "a", "from ann");
    write(&pair.b, "b", "from bob");
    write(&pair.a, "same", "same");
    pair.clock.advance(1_000_000_000);
    write(&pair.b, "same", "same");
    write(&pair.a, "both", "ann's");
    write(&pair.b, "both", "bob's");
    pair.sync();
    let names = pair.names();
    assert_eq!(names.len(), 5, "{names:?}");
    assert!(names.iter().any(|name| name.starts_with("both (conflict 2026-08-03 12-")));
    assert_eq!(pair.both("same"), "same");
}

#[test]
fn changes_cross_both_ways() {
    let mut pair = Pair::with(&[("d/a", "1"), ("d/b", "2"), ("c", "3")]);
    write(&pair.a, "d/a", "1 again");
    remove(&pair.b, "d/b");
    pair.b.fs.symlink(b"d/a", &path("link")).unwrap();
    pair.b.fs.set_mode(&path("c"), 0o755).unwrap();
    pair.sync();
    assert_eq!(pair.names(), ["c", "d", "d/a", "link"]);
    assert_eq!(pair.both("d/a"), "1 again");
    assert_eq!(pair.a.fs.lstat(&path("c")).unwrap().mode, 0o755);
    assert_eq!(pair.a.fs.read_link(&path("link")).unwrap(), b"d/a");
}

#[test]
fn both_contents_of_a_conflict_stay_under_the_same_names() {
    let mut pair = Pair::with(&[("d/report.txt", "first")]);
    write(&pair.a, "d/report.txt", "ann's");
    pair.clock.advance(2_000_000_000);
    write(&pair.b, "d/report.txt", "bob's");
    pair.sync();
    let names = pair.names();
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(
        names[1].starts_with("d/report (conflict 2026-08-03 12-15-") && names[1].ends_with(").txt")
    );
    let mut texts = [pair.both(&names[1]), pair.both("d/report.txt")];
    texts.sort();
    assert_eq!(texts, ["ann's", "bob's"]);
}

/// A file in conflict on both sides; returns the name of the copy.
fn in_conflict() -> (Pair, String) {
    let mut pair = Pair::with(&[("f", "0")]);
    write(&pair.a, "f", "ann's");
    write(&pair.b, "f", "bob's");
    pair.sync();
    let copy = pair.names().into_iter().find(|name| name.contains("conflict")).unwrap();
    (pair, copy)
}

#[test]
fn deleting_the_copy_resolves_the_conflict() {
    let (mut pair, copy) = in_conflict();
    let kept = pair.both("f");
    remove(&pair.b, &copy);
    pair.sync();
    assert_eq!(pair.names(), ["f"]);
    assert_eq!(pair.both("f"), kept);
}

#[test]
fn moving_the_copy_over_the_original_takes_the_other_side() {
    let (mut pair, copy) = in_conflict();
    let taken = pair.both(&copy);
    rename(&pair.b, &copy, "f");
    pair.sync();
    assert_eq!(pair.names(), ["f"]);
    assert_eq!(pair.both("f"), taken);
}

#[test]
fn moving_the_copy_over_an_original_that_was_deleted_elsewhere_takes_it_too() {
    let (mut pair, copy) = in_conflict();
    let taken = pair.both(&copy);
    remove(&pair.a, "f");
    rename(&pair.b, &copy, "f");
    pair.sync();
    assert_eq!(pair.names(), ["f"]);
    assert_eq!(pair.both("f"), taken);
}

/// Where the other side's folder still has the two as they were, the copy's content has to take a place that is wanted for
/// what stands there, and may not be parked meanwhile.
#[test]
fn a_file_and_its_conflict_copy_may_change_places() {
    for at_once in [true, false] {
        let (mut pair, copy) = in_conflict();
        let (at_f, at_copy) = (pair.both("f"), pair.both(&copy));
        rename(&pair.a, "f", "t");
        if at_once {
            rename(&pair.a, &copy, "f");
        } else {
            pair.a.run(&[]);
        }
        rename(&pair.a, "t", &copy);
        pair.sync();
        let texts = [pair.both("f"), pair.both(&copy)];
        assert_eq!(texts, [at_copy, at_f], "at once: {at_once}");
        assert_eq!(pair.names().len(), 2);
    }
}

#[test]
fn editing_the_copy_makes_it_an_ordinary_file() {
    let (mut pair, copy) = in_conflict();
    let kept = pair.both("f");
    write(&pair.b, &copy, "both merged");
    pair.sync();
    assert_eq!(pair.both(&copy), "both merged");
    remove(&pair.a, "f");
    pair.sync();
    assert_eq!(pair.names(), std::slice::from_ref(&copy), "{kept} does not come back");
    rename(&pair.a, &copy, "g");
    pair.sync();
    assert_eq!(pair.names(), ["g"]);
}

#[test]
fn deleting_the_original_lets_the_copy_take_its_place() {
    let (mut pair, copy) = in_conflict();
    let left = pair.both(&copy);
    remove(&pair.a, "f");
    pair.sync();
    assert_eq!(pair.names(), ["f"]);
    assert_eq!(pair.both("f"), left);
}

#[test]
fn editing_the_original_leaves_the_copy() {
    let (mut pair, copy) = in_conflict();
    let other = pair.both(&copy);
    write(&pair.a, "f", "third");
    pair.sync();
    assert_eq!(pair.both("f"), "third");
    assert_eq!(pair.both(&copy), other);
}

#[test]
fn touching_a_copy_does_not_make_it_more_than_a_copy() {
    let (mut pair, copy) = in_conflict();
    pair.a.fs.set_mode(&path(&copy), 0o600).unwrap();
    pair.sync();
    assert_eq!(pair.a.fs.lstat(&path(&copy)).unwrap().mode, 0o644);
    remove(&pair.a, &copy);
    pair.sync();
    assert_eq!(pair.names(), ["f"]);
}

#[test]
fn an_edit_survives_a_deletion() {
    let mut pair = Pair::with(&[("d/f", "0"), ("d/g", "0")]);
    write(&pair.a, "d/f", "edited");
    for gone in ["d/f", "d/g"] {
        remove(&pair.b, gone);
    }
    pair.b.fs.remove_dir(&path("d")).unwrap();
    pair.sync();
    assert_eq!(pair.names(), ["d", "d/f"]);
    assert_eq!(pair.both("d/f"), "edited");
}

#[test]
fn a_changed_mode_neither_survives_a_deletion_nor_fights_an_edit() {
    let mut pair = Pair::with(&[("f", "0"), ("g", "0")]);
    for touched in ["f", "g"] {
        pair.a.fs.set_mode(&path(touched), 0o600).unwrap();
    }
    remove(&pair.b, "f");
    write(&pair.b, "g", "edited");
    // Bob's changes are known to Ann before she records hers.
    let fs = pair.a.fs.clone();
    pair.b.run(&[fs]);
    crate::replica::exchange(&mut pair.a, &mut pair.b);
    pair.sync();
    assert_eq!(pair.names(), ["g"]);
    assert_eq!(pair.both("g"), "edited");
}

#[test]
fn the_same_edit_on_both_sides_is_no_conflict() {
    let mut pair = Pair::with(&[("f", "0")]);
    write(&pair.a, "f", "same");
    pair.clock.advance(5_000_000_000);
    write(&pair.b, "f", "same");
    pair.sync();
    assert_eq!(pair.names(), ["f"]);
}

#[test]
fn a_file_against_a_directory_becomes_a_copy() {
    let mut pair = Pair::with(&[("x", "0")]);
    write(&pair.a, "x", "still a file");
    remove(&pair.b, "x");
    pair.b.fs.make_dir(&path("x")).unwrap();
    write(&pair.b, "x/inside", "1");
    pair.sync();
    let names = pair.names();
    assert_eq!(names.len(), 3, "{names:?}");
    assert_eq!((&names[0][..], &names[2][..]), ("x", "x/inside"));
    assert!(names[1].starts_with("x (conflict"));
    assert_eq!(pair.both(&names[1]), "still a file");
    // When the directory goes, the file comes back.
    remove(&pair.a, "x/inside");
    pair.a.fs.remove_dir(&path("x")).unwrap();
    pair.sync();
    assert_eq!(pair.names(), ["x"]);
    assert_eq!(pair.both("x"), "still a file");
}

#[test]
fn a_directory_becomes_a_file_and_back() {
    let mut pair = Pair::with(&[("x/y/z", "deep"), ("x/w", "1")]);
    rename(&pair.a, "x/y/z", "z");
    remove(&pair.a, "x/w");
    pair.a.fs.remove_dir(&path("x/y")).unwrap();
    pair.a.fs.remove_dir(&path("x")).unwrap();
    rename(&pair.a, "z", "x");
    pair.sync();
    assert_eq!(pair.names(), ["x"]);
    assert_eq!(pair.both("x"), "deep");
    rename(&pair.b, "x", "t");
    pair.b.fs.make_dir(&path("x")).unwrap();
    rename(&pair.b, "t", "x/t");
    pair.sync();
    assert_eq!(pair.names(), ["x", "x/t"]);
    assert_eq!(pair.both("x/t"), "deep");
}

#[test]
fn names_may_be_swapped_and_rotated() {
    let mut pair =
        Pair::with(&[("a", "A"), ("b", "B"), ("1", "one"), ("2", "two"), ("3", "three")]);
    rename(&pair.a, "a", "t");
    rename(&pair.a, "b", "a");
    rename(&pair.a, "t", "b");
    rename(&pair.a, "3", "4");
    rename(&pair.a, "2", "3");
    rename(&pair.a, "1", "2");
    pair.sync();
    assert_eq!(pair.names(), ["2", "3", "4", "a", "b"]);
    let texts = ["2", "3", "4", "a", "b"].map(|name| pair.both(name));
    assert_eq!(texts, ["one", "two", "three", "B", "A"]);
}

#[test]
fn an_ignored_socket_keeps_its_directory() {
    let mut pair = Pair::with(&[("d/f", "0")]);
    pair.b.fs.make_special(&path("d/socket")).unwrap();
    remove(&pair.a, "d/f");
    pair.a.fs.remove_dir(&path("d")).unwrap();
    let run = pair.a.run(&[]);
    assert_eq!(run.recorded, 2);
    let (a, b) = (&mut pair.a, &mut pair.b);
    crate::replica::exchange(a, b);
    let run = b.run(&[]);
    assert_eq!(b.names(), ["d", "d/socket"]);
    assert_eq!(run.applied.failed.len(), 1);
    let run = b.run(&[]);
    assert_eq!(run.recorded, 0, "the directory is not taken for a new one");
}

#[test]
fn what_a_user_deletes_inside_an_implied_directory_takes_it_along() {
    let mut pair = Pair::with(&[("d/f", "0")]);
    write(&pair.a, "d/f", "edited");
    remove(&pair.b, "d/f");
    pair.b.fs.remove_dir(&path("d")).unwrap();
    pair.sync();
    assert_eq!(pair.names(), ["d", "d/f"]);
    remove(&pair.b, "d/f");
    pair.sync();
    assert!(pair.names().is_empty(), "{:?}", pair.names());
}
