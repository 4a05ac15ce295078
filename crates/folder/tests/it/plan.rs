//! Both halves of the planner as functions: what goes in, what comes out.

use crate::replica::path;
use anabranch_core::blob::{ChunkHash, ChunkSpan, ContentRef};
use anabranch_folder::InputError;
use anabranch_folder::apply::{ContentSource, apply};
use anabranch_folder::base::{Base, Seen, Source, Value, ValueId};
use anabranch_folder::fs::{Clock, FileSystem, Kind, ManualClock, MemFs};
use anabranch_folder::hold::Hold;
use anabranch_folder::path::RelPath;
use anabranch_folder::plan::{
    Action, Change, LocalStep, Plan, Record, SeenCopies, Shape, Targets, plan_actions, plan_records,
};
use anabranch_folder::scan::{Here, Local};
use anabranch_folder::state::State;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;

type Tree = BTreeMap<RelPath, State>;
type Sure<T> = Result<T, Infallible>;

fn file(text: &str) -> State {
    let content = ContentRef::new(text.len() as u64, 0, ChunkHash::of(text.as_bytes())).unwrap();
    State::File { content, kept: None, mode: 0o644, mtime_ns: 7 }
}

fn dir() -> State {
    State::Dir { mode: 0o755 }
}

fn link(target: &str) -> State {
    State::Symlink { target: target.as_bytes().to_vec() }
}

fn tree(entries: &[(&str, State)]) -> Tree {
    entries.iter().map(|(at, state)| (path(at), state.clone())).collect()
}

/// A value of its own for every state of a tree; `who` tells the trees apart.
fn id(who: u8, at: &RelPath) -> ValueId {
    ValueId([&[who], at.as_bytes()].concat())
}

fn values(tree: &Tree, who: u8) -> Vec<Sure<(RelPath, Vec<Value>)>> {
    let value = |at: &RelPath, state: &State| Value {
        id: id(who, at),
        state: state.clone(),
        author: "ann".into(),
        at_ms: 1,
    };
    tree.iter().map(|(at, state)| Ok((at.clone(), vec![value(at, state)]))).collect()
}

fn seen(n: u64) -> Seen {
    Seen { mode: 0o644, inode: n, size: 1, mtime_ns: 7, ctime_ns: 7, settled: true }
}

fn rows(tree: &Tree, who: u8) -> Vec<Sure<(RelPath, Base)>> {
    let row = |at: &RelPath, state: &State| Base {
        state: state.clone(),
        source: Source::Path { values: vec![id(who, at)] },
        seen: seen(1),
    };
    tree.iter().map(|(at, state)| Ok((at.clone(), row(at, state)))).collect()
}

fn plan(
    base: Vec<Sure<(RelPath, Base)>>,
    there: Vec<Sure<(RelPath, Vec<Value>)>>,
    hold: &Hold,
) -> Plan {
    let copies = SeenCopies::gather(base.clone().into_iter()).unwrap();
    let shape = Shape::gather(there.clone().into_iter()).unwrap();
    plan_actions(base.into_iter(), Targets::new(shape, there.into_iter()), &copies, hold).unwrap()
}

fn told(plan: &Plan) -> Vec<String> {
    let tell = |action: &Action| match action {
        Action::MakeDir { goal } => format!("make {}", goal.path),
        Action::WriteFile { goal, keep: None, .. } => format!("write {}", goal.path),
        Action::WriteFile { goal, keep: Some(_), .. } => format!("write {} and keep", goal.path),
        Action::Symlink { goal, .. } => format!("link {}", goal.path),
        Action::Rename { from, goal, .. } => format!("rename {} {}", from.path, goal.path),
        Action::Park { from, .. } => format!("park {}", from.path),
        Action::Unpark { from, goal, .. } => format!("unpark {} {}", from, goal.path),
        Action::SetMeta { goal, .. } => format!("touch {}", goal.path),
        Action::RemoveFile { was } => format!("remove {}", was.path),
        Action::RemoveDir { path } => format!("rmdir {path}"),
        Action::Adopt { path, .. } => format!("adopt {path}"),
    };
    plan.actions.iter().map(tell).collect()
}

fn from_to(base: &[(&str, State)], there: &[(&str, State)]) -> Vec<String> {
    told(&plan(rows(&tree(base), 1), values(&tree(there), 2), &Hold::new()))
}

#[test]
fn parents_are_made_first_and_removed_last() {
    let deep = [("a", dir()), ("a/b", dir()), ("a/b/c", file("x")), ("a/l", link("t"))];
    assert_eq!(from_to(&[], &deep), ["make a", "make a/b", "write a/b/c", "link a/l"]);
    assert_eq!(from_to(&deep, &[]), ["remove a/l", "remove a/b/c", "rmdir a/b", "rmdir a"]);
}

#[test]
fn what_is_right_is_only_noted_and_what_is_nearly_right_touched() {
    let State::File { content, .. } = file("x") else { panic!("a file") };
    let executable = State::File { content, kept: None, mode: 0o755, mtime_ns: 7 };
    let base = [("a", file("x")), ("b", file("x")), ("d", dir()), ("l", link("t"))];
    let there =
        [("a", file("x")), ("b", executable), ("d", State::Dir { mode: 0o700 }), ("l", link("t"))];
    assert_eq!(from_to(&base, &there), ["adopt a", "touch b", "touch d", "adopt l"]);
    let same = plan(rows(&tree(&base), 1), values(&tree(&base), 1), &Hold::new());
    assert!(same.actions.is_empty());
}

#[test]
fn a_rename_is_recognised_by_content() {
    let (x, y) = (file("x"), file("y"));
    assert_eq!(from_to(&[("a", x.clone())], &[("b", x.clone())]), ["rename a b"]);
    // The same name in another directory is the likelier source.
    let base = [("a", x.clone()), ("d", dir()), ("d/f", x.clone())];
    let there = [("d", dir()), ("e", dir()), ("e/f", x.clone())];
    assert_eq!(from_to(&base, &there), ["make e", "rename d/f e/f", "remove a", "adopt d"]);
    assert_eq!(
        from_to(&[("a", file(""))], &[("b", file(""))]),
        ["write b", "remove a"],
        "nothing to save"
    );
    // What is to be written anew is not moved away before that.
    let there = [("a", y), ("b", x.clone())];
    assert_eq!(from_to(&[("a", x)], &there), ["write a", "write b"]);
}

#[test]
fn chains_begin_at_their_end_and_cycles_with_a_parked_file() {
    let [x, y, z] = ["x", "y", "z"].map(file);
    let base = [("1", x.clone()), ("2", y.clone()), ("3", z.clone())];
    let chain = [("2", x.clone()), ("3", y.clone()), ("4", z.clone())];
    assert_eq!(from_to(&base, &chain), ["rename 3 4", "rename 2 3", "rename 1 2"]);
    let cycle = [("1", z), ("2", x), ("3", y)];
    assert_eq!(from_to(&base, &cycle), ["park 1", "rename 3 1", "rename 2 3", "unpark 1 2"]);
}

#[test]
fn files_and_directories_may_change_places() {
    let x = file("x");
    let file_at = [("a", x.clone())];
    let dir_at = [("a", dir()), ("a/a", x.clone())];
    assert_eq!(from_to(&file_at, &dir_at), ["park a", "make a", "unpark a a/a"]);
    assert_eq!(from_to(&dir_at, &file_at), ["park a/a", "rmdir a", "unpark a/a a"]);
    assert_eq!(from_to(&file_at, &[("a", link("t"))]), ["link a"]);
    assert_eq!(from_to(&[("a", dir())], &[("a", link("t"))]), ["rmdir a", "link a"]);
    let out = [("a", dir()), ("b", x.clone())];
    let moved = [("b", dir()), ("b/c", x)];
    assert_eq!(from_to(&out, &moved), ["park b", "rmdir a", "make b", "unpark b b/c"]);
}

#[test]
fn what_is_hidden_is_left_alone() {
    let base = tree(&[("a", dir()), ("a/b", file("x")), ("c", file("y"))]);
    let hold: Hold = [path("a"), path("z")].into_iter().collect();
    let there = tree(&[("z", file("z"))]);
    let plan = plan(rows(&base, 1), values(&there, 2), &hold);
    assert_eq!(told(&plan), ["remove c"]);
    let put_off: Vec<String> = plan.put_off.iter().map(|off| off.path.to_string()).collect();
    assert_eq!(put_off, ["a", "a/b", "z"]);
    assert!(plan.put_off.iter().all(|off| off.hidden));
}

#[test]
fn content_whose_copy_cannot_be_made_stays() {
    // Two values live at `f`; the loser is what the disk has, and its copy's name is taken by something hidden.
    let both = |at: &RelPath| {
        let winner = Value { id: id(2, at), state: file("theirs"), author: "bob".into(), at_ms: 2 };
        let loser = Value { id: id(1, at), state: file("mine"), author: "ann".into(), at_ms: 1 };
        vec![Ok((at.clone(), vec![winner, loser]))]
    };
    let at = path("f");
    let base = tree(&[("f", file("mine"))]);
    let free = plan(rows(&base, 1), both(&at), &Hold::new());
    assert_eq!(told(&free), ["write f and keep"]);
    let copy = anabranch_folder::plan::copy_name(&at, &id(1, &at), "ann", 1, 0).unwrap();
    let hidden = plan(rows(&base, 1), both(&at), &[copy.clone()].into_iter().collect());
    assert!(hidden.actions.is_empty(), "{:?}", hidden.actions);
    let put_off: Vec<_> = hidden.put_off.iter().map(|off| (off.path.clone(), off.hidden)).collect();
    assert_eq!(put_off, [(copy, true), (at, false)]);
}

/// A change of mode makes another value of the same content, under which the copy has another name.
#[test]
fn a_copy_whose_value_was_replaced_by_one_of_the_same_content_stays_until_it_has_its_new_name() {
    let at = path("f");
    let value = |who: u8, text: &str, at_ms| Value {
        id: id(who, &at),
        state: file(text),
        author: "ann".into(),
        at_ms,
    };
    let there = vec![Ok((at.clone(), vec![value(2, "theirs", 9), value(3, "mine", 5)]))];
    let name = |who| anabranch_folder::plan::copy_name(&at, &id(who, &at), "ann", 5, 0).unwrap();
    let (old, new) = (name(1), name(3));
    let mut base = rows(&tree(&[("f", file("theirs"))]), 2);
    let source = Source::Copy { of: at.clone(), values: vec![id(1, &at)] };
    base.push(Ok((old.clone(), Base { state: file("mine"), source, seen: seen(1) })));
    base.sort_by_key(|row| row.clone().unwrap().0);
    let free = plan(base.clone(), there.clone(), &Hold::new());
    assert_eq!(told(&free), [format!("rename {old} {new}")]);
    let hidden = plan(base, there, &[new.clone()].into_iter().collect());
    assert!(hidden.actions.is_empty(), "{:?}", told(&hidden));
    let put_off: Vec<_> = hidden.put_off.iter().map(|off| (off.path.clone(), off.hidden)).collect();
    assert_eq!(put_off, [(new, true), (old, false)]);
}

#[test]
fn input_out_of_order_is_refused() {
    let base = tree(&[("a", file("x")), ("b", file("y"))]);
    let mut backwards = rows(&base, 1);
    backwards.reverse();
    let none = Vec::<Sure<(RelPath, Vec<Value>)>>::new();
    let targets = Targets::new(Shape::default(), none.into_iter());
    let result = plan_actions(backwards.into_iter(), targets, &SeenCopies::default(), &Hold::new());
    assert!(matches!(result, Err(InputError::Unsorted(at)) if at == path("a")));
    let mut backwards = values(&base, 1);
    backwards.reverse();
    assert!(matches!(Shape::gather(backwards.clone().into_iter()), Err(InputError::Unsorted(_))));
    let targets = Targets::new(Shape::default(), backwards.into_iter());
    let result =
        plan_actions(rows(&base, 1).into_iter(), targets, &SeenCopies::default(), &Hold::new());
    assert!(matches!(result, Err(InputError::Unsorted(_))));
}

fn records(base: &Tree, here: &Tree, there: &Tree) -> Vec<LocalStep> {
    let mut all: BTreeMap<RelPath, Local> = BTreeMap::new();
    for (at, base) in rows(base, 1).into_iter().map(Result::unwrap) {
        all.insert(at.clone(), Local { path: at, base: Some(base), here: Here::Gone });
    }
    for (at, state) in here {
        let empty = Local { path: at.clone(), base: None, here: Here::Gone };
        let same = base.get(at) == Some(state);
        let here = Here::Present { state: state.clone(), seen: seen(if same { 1 } else { 2 }) };
        all.entry(at.clone()).or_insert(empty).here = here;
    }
    let there = values(there, 2);
    let shape = Shape::gather(there.clone().into_iter()).unwrap();
    let rows = all.into_values().map(Ok::<_, Infallible>);
    let copies = SeenCopies::default();
    let targets = Targets::new(shape, there.into_iter());
    let mut records = plan_records(rows, targets, &copies);
    let mut steps: Vec<LocalStep> = records.by_ref().map(Result::unwrap).collect();
    steps.extend(records.undecided().decide(&Hold::new()));
    steps
}

#[test]
fn with_an_empty_base_nothing_is_deleted_and_what_agrees_is_adopted() {
    let here = tree(&[("a", file("x")), ("b", file("mine")), ("d", dir()), ("e", file("e"))]);
    let there = tree(&[("a", file("x")), ("b", file("theirs")), ("c", file("c")), ("d", dir())]);
    let steps = records(&Tree::new(), &here, &there);
    let tell = |step: &LocalStep| match step {
        LocalStep::Adopt { path, base } => {
            format!("adopt {path} {:?}", base.source.values()[0].0[0])
        }
        LocalStep::Record(Record { path, change: Change::Put { .. }, replaces }) => {
            format!("put {path} {}", replaces.len())
        }
        other => format!("{other:?}"),
    };
    let told: Vec<String> = steps.iter().map(tell).collect();
    assert_eq!(told, ["adopt a 2", "put b 0", "adopt d 2", "put e 0"]);
}

#[test]
fn a_change_replaces_what_the_base_came_from() {
    let base = tree(&[("a", file("x")), ("b", file("y")), ("c", file("z"))]);
    let here = tree(&[("a", file("changed")), ("c", file("z"))]);
    // The database still has what the base came from at `a` and `b`.
    let there = base.clone();
    let steps = {
        let mut there = values(&there, 1);
        there.truncate(3);
        let shape = Shape::gather(there.clone().into_iter()).unwrap();
        let rows = rows(&base, 1).into_iter().map(|row| {
            let (at, base) = row.unwrap();
            let here = match here.get(&at) {
                Some(state) => Here::Present { state: state.clone(), seen: seen(1) },
                None => Here::Gone,
            };
            Ok::<_, Infallible>(Local { path: at, base: Some(base), here })
        });
        let copies = SeenCopies::default();
        let targets = Targets::new(shape, there.into_iter());
        plan_records(rows, targets, &copies).map(Result::unwrap).collect::<Vec<_>>()
    };
    let [LocalStep::Record(put), LocalStep::Record(delete)] = &steps[..] else {
        panic!("{steps:?}")
    };
    assert!(matches!(put.change, Change::Put { .. }));
    assert_eq!((&put.path, &put.replaces), (&path("a"), &vec![id(1, &path("a"))]));
    assert_eq!(delete.change, Change::Delete);
    assert_eq!((&delete.path, &delete.replaces), (&path("b"), &vec![id(1, &path("b"))]));
    assert!(
        put.change.base(ValueId(vec![9])).is_some()
            && delete.change.base(ValueId(vec![9])).is_none()
    );
}

#[test]
fn what_is_deleted_on_both_sides_is_only_forgotten() {
    let base = tree(&[("a", file("x"))]);
    let steps = records(&base, &Tree::new(), &Tree::new());
    assert_eq!(steps, [LocalStep::Forget { path: path("a") }]);
}

/// Somebody resolved the conflict by editing its copy, and the update that put the edit in the copy's place here was
/// interrupted. Who may only read could never record it as theirs, and it would stay for ever.
#[test]
fn what_was_put_in_the_place_of_a_copy_whose_value_is_gone_is_as_it_should_be() {
    let at = path("f");
    let copy = anabranch_folder::plan::copy_name(&at, &id(1, &at), "ann", 5, 0).unwrap();
    let source = Source::Copy { of: at.clone(), values: vec![id(1, &at)] };
    let base = Base { state: file("mine"), source, seen: seen(1) };
    let there = tree(&[("f", file("theirs")), (&copy.to_string(), file("edited"))]);
    let there = values(&there, 2);
    let steps = |here: Here| {
        let rows = [(at.clone(), Here::Gone), (copy.clone(), here)].map(|(path, here)| {
            let base = (path == copy).then(|| base.clone());
            Ok::<_, Infallible>(Local { path, base, here })
        });
        let mut rows = rows.to_vec();
        rows.sort_by_key(|row| row.clone().unwrap().path);
        let copies =
            SeenCopies::gather([Ok::<_, Infallible>((copy.clone(), base.clone()))].into_iter());
        let copies = copies.unwrap();
        let shape = Shape::gather(there.clone().into_iter()).unwrap();
        let targets = Targets::new(shape, there.clone().into_iter());
        let mut records = plan_records(rows.into_iter(), targets, &copies);
        let mut steps: Vec<LocalStep> = records.by_ref().map(Result::unwrap).collect();
        steps.extend(records.undecided().decide(&Hold::new()));
        steps
    };
    let present = |text: &str| Here::Present { state: file(text), seen: seen(2) };
    let adopted = steps(present("edited"));
    assert!(
        matches!(&adopted[..], [LocalStep::Adopt { base, .. }] if base.state == file("edited")),
        "{adopted:?}"
    );
    assert_eq!(steps(Here::Gone), [LocalStep::Forget { path: copy.clone() }]);
    // What the user wrote there is the user's all the same.
    let user = steps(present("else"));
    let [LocalStep::Record(put)] = &user[..] else { panic!("{user:?}") };
    assert_eq!((&put.path, put.replaces.len()), (&copy, 0));
}

/// A directory that loses a conflict has no copy: what stands in its place stands for it as well.
#[test]
fn what_an_update_put_in_the_place_of_a_directory_that_lost_is_as_it_should_be() {
    let at = path("f");
    let (dir, link) = (dir(), link("x"));
    let lives = |state: &State, n| values(&tree(&[("f", state.clone())]), n).remove(0).unwrap().1;
    let living = [lives(&link, 2), lives(&dir, 1)].concat();
    let there = [Ok::<_, Infallible>((at.clone(), living))];
    let targets = || {
        let shape = Shape::gather(there.clone().into_iter()).unwrap();
        Targets::new(shape, there.clone().into_iter())
    };
    let slot = targets().next().unwrap().unwrap();
    assert_eq!((&slot.state, slot.source.values().len()), (&link, 2), "{slot:?}");
    let base = |state: &State, source| Base { state: state.clone(), source, seen: seen(1) };
    let before = base(&dir, Source::Path { values: vec![id(1, &at)] });
    let here = Here::Present { state: link.clone(), seen: seen(1) };
    let row = Local { path: at.clone(), base: Some(before), here };
    let done = base(&link, slot.source);
    let copies = SeenCopies::default();
    let records = plan_records([Ok::<_, Infallible>(row)].into_iter(), targets(), &copies);
    let mut records = records.knowing([(at.clone(), done.clone())].into());
    let mut steps: Vec<LocalStep> = records.by_ref().map(Result::unwrap).collect();
    steps.extend(records.undecided().decide(&Hold::new()));
    assert_eq!(steps, [LocalStep::Adopt { path: at, base: done }]);
}

/// The copy was to take its place, and did; by then something else is wanted there, and the copy is one again.
#[test]
fn what_an_update_moved_from_a_copys_name_is_not_deleted_by_the_user() {
    let at = path("f");
    let mine = file("mine");
    let copy = anabranch_folder::plan::copy_name(&at, &id(2, &at), "ann", 1, 0).unwrap();
    let lives = |state: &State, n| values(&tree(&[("f", state.clone())]), n).remove(0).unwrap().1;
    let living = [lives(&dir(), 3), lives(&mine, 2)].concat();
    let there = [Ok::<_, Infallible>((at.clone(), living))];
    let base = |state: State, source| Base { state, source, seen: seen(1) };
    let old = base(file("old"), Source::Path { values: vec![id(1, &at)] });
    let source = Source::Copy { of: at.clone(), values: vec![id(2, &at)] };
    let copied = base(mine.clone(), source);
    let done = base(mine.clone(), Source::Path { values: vec![id(2, &at)] });
    let here = Here::Present { state: mine, seen: seen(1) };
    let mut rows = vec![
        Local { path: at.clone(), base: Some(old), here },
        Local { path: copy.clone(), base: Some(copied.clone()), here: Here::Gone },
    ];
    rows.sort_by(|a, b| a.path.cmp(&b.path));
    let copies = SeenCopies::gather([Ok::<_, Infallible>((copy.clone(), copied))].into_iter());
    let (copies, shape) = (copies.unwrap(), Shape::gather(there.clone().into_iter()).unwrap());
    let targets = Targets::new(shape, there.into_iter());
    let rows = rows.into_iter().map(Ok::<_, Infallible>);
    let records = plan_records(rows, targets, &copies);
    let mut records = records.knowing([(at.clone(), done.clone())].into());
    let mut steps: Vec<LocalStep> = records.by_ref().map(Result::unwrap).collect();
    steps.extend(records.undecided().decide(&Hold::new()));
    assert_eq!(
        steps,
        [LocalStep::Adopt { path: at, base: done }, LocalStep::Forget { path: copy }]
    );
}

/// Whole files by their text.
struct Texts(Vec<String>);

impl ContentSource for Texts {
    fn node(&mut self, _: &ChunkHash) -> io::Result<Option<Vec<u8>>> {
        Ok(None)
    }

    fn chunk(&mut self, span: &ChunkSpan) -> io::Result<Option<Vec<u8>>> {
        let text = self.0.iter().find(|text| ChunkHash::of(text.as_bytes()) == span.hash);
        Ok(text.map(|text| text.clone().into_bytes()))
    }
}

const TEXTS: [&str; 5] = ["", "one", "two", "three", "four"];

/// Any tree of a few names, with few contents so that many agree.
fn any_tree() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        4 => (0..TEXTS.len()).prop_map(|n| file(TEXTS[n])),
        1 => Just(link("t")),
        1 => Just(dir()),
    ];
    let name = prop::sample::select(vec!["a", "b", "a.b", "c"]);
    let at = prop::collection::vec(name, 1..4).prop_map(|names| names.join("/"));
    prop::collection::vec((at, leaf), 0..14).prop_map(|entries| {
        let mut tree = Tree::new();
        for (at, state) in entries {
            let at = path(&at);
            if at.ancestors().all(|dir| tree.get(&dir).is_none_or(State::is_dir)) {
                at.ancestors().for_each(|above| drop(tree.insert(above, dir())));
                if !tree.keys().any(|other| other.is_below(&at)) {
                    tree.insert(at, state);
                }
            }
        }
        tree
    })
}

fn build(fs: &MemFs, tree: &Tree) {
    for (at, state) in tree {
        match state {
            State::Dir { mode } => {
                fs.make_dir(at).unwrap();
                fs.set_mode(at, *mode).unwrap();
            }
            State::Symlink { target } => fs.symlink(target, at).unwrap(),
            State::File { content, .. } => {
                let text = TEXTS.iter().find(|t| ChunkHash::of(t.as_bytes()) == content.root());
                fs.write(at, text.unwrap().as_bytes()).unwrap();
                fs.set_mtime(at, 7).unwrap();
            }
        }
    }
}

proptest! {
    /// From any tree to any other in one run without a single failure.
    #[test]
    fn any_tree_becomes_any_other(old in any_tree(), new in any_tree()) {
        let clock = Arc::new(ManualClock::at(1_000_000_000_000_000_000));
        let fs = MemFs::new(clock.clone());
        build(&fs, &old);
        clock.advance(10_000_000_000);
        let base: Vec<Sure<(RelPath, Base)>> = rows(&old, 1)
            .into_iter()
            .map(Result::unwrap)
            .map(|(at, row)| {
                let seen = Seen::new(&fs.lstat(&at).unwrap(), clock.now_ns());
                Ok((at, Base { seen, ..row }))
            })
            .collect();
        let plan = plan(base, values(&new, 2), &Hold::new());
        prop_assert!(plan.put_off.is_empty());
        let mut texts = Texts(TEXTS.map(String::from).to_vec());
        let applied = apply(&fs, &*clock, &plan.actions, &mut texts, &mut |_, _| {}).unwrap();
        prop_assert!(applied.failed.is_empty(), "{:?} in {:?}", applied.failed, told(&plan));
        let found: Tree = fs
            .tree()
            .into_iter()
            .filter(|(at, _)| !at.is_reserved())
            .map(|(at, (stat, bytes))| {
                let state = match stat.kind {
                    Kind::Dir => State::Dir { mode: stat.mode },
                    Kind::Symlink => State::Symlink { target: bytes },
                    _ => file(std::str::from_utf8(&bytes).unwrap()),
                };
                (at, state)
            })
            .collect();
        prop_assert_eq!(&found, &new);
        // The base that follows is that tree, and there is nothing left to do.
        let mut after: BTreeMap<RelPath, Base> = rows(&old, 1).into_iter().map(Result::unwrap).collect();
        for (at, base) in applied.base {
            match base {
                Some(base) => after.insert(at, base),
                None => after.remove(&at),
            };
        }
        let again = plan_again(&after, &new);
        prop_assert!(again.actions.is_empty(), "{:?}", told(&again));
    }

    /// A tree whose files only changed names is not written again.
    #[test]
    fn renamed_files_are_not_written(old in any_tree(), seed: u64) {
        let files: Vec<&RelPath> = old.iter().filter(|(_, s)| s.content().is_some_and(|c| c.size() > 0)).map(|(at, _)| at).collect();
        let mut texts: Vec<&State> = files.iter().map(|at| &old[*at]).collect();
        let turn = usize::try_from(seed % 7).unwrap() % texts.len().max(1);
        texts.rotate_left(turn);
        let mut new = old.clone();
        for (at, state) in files.iter().zip(texts) {
            new.insert((*at).clone(), state.clone());
        }
        let plan = plan(rows(&old, 1), values(&new, 2), &Hold::new());
        let writes = plan.actions.iter().any(|action| matches!(action, Action::WriteFile { .. }));
        prop_assert!(!writes, "{:?}", told(&plan));
    }
}

fn plan_again(base: &BTreeMap<RelPath, Base>, new: &Tree) -> Plan {
    let base = base.iter().map(|(at, base)| Ok((at.clone(), base.clone()))).collect();
    plan(base, values(new, 2), &Hold::new())
}
