use crate::pair;
use anabranch::{Doc, Effect, ElementId, Error, List, Node, Segment};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};
use std::ops::ControlFlow;

fn texts(list: &List) -> Vec<String> {
    list.items().unwrap()
}

async fn filled(doc: &Doc, items: &[&str]) -> List {
    let list = doc.list(&["list"]).unwrap();
    for item in items {
        list.push(item).await.unwrap();
    }
    list
}

#[tokio::test]
async fn a_list_is_filled_changed_and_read() {
    let db = Node::in_memory().unwrap().create("db").unwrap();
    let doc = db.doc("d");
    let list = filled(&doc, &["b", "d"]).await;
    list.insert(0, "a").await.unwrap();
    list.insert(2, "c").await.unwrap();
    assert_eq!(texts(&list), ["a", "b", "c", "d"]);
    assert_eq!(doc.get::<Value>(&[]).unwrap(), Some(json!({ "list": ["a", "b", "c", "d"] })));
    list.move_to(0, 3).await.unwrap();
    list.move_to(2, 0).await.unwrap();
    assert_eq!(texts(&list), ["d", "b", "c", "a"]);
    list.set(1, "B").await.unwrap();
    list.remove(2).await.unwrap();
    assert_eq!(texts(&list), ["d", "B", "a"]);
    assert_eq!(
        (list.get::<String>(1).unwrap(), list.get::<String>(3).unwrap()),
        (Some("B".into()), None)
    );
    for failed in [list.insert(4, "x").await, list.remove(3).await, list.move_to(0, 3).await] {
        assert!(matches!(failed, Err(Error::Value { .. })), "{failed:?}");
    }
    let mut seen = Vec::new();
    list.each(&mut |id: ElementId, text: String| {
        seen.push((id, text));
        if seen.len() < 2 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })
    .unwrap();
    assert_eq!(seen.iter().map(|(id, _)| *id).collect::<Vec<_>>(), list.ids().unwrap()[..2]);
    for _ in 0..3 {
        list.remove(0).await.unwrap();
    }
    assert!(list.is_empty().unwrap());
    assert_eq!(doc.get::<Value>(&["list"]).unwrap(), None);
    let stores = db.replica().read(|view| view.stores()).unwrap();
    assert!(stores.iter().all(|s| s.id.name != "d" || s.live == 0), "nothing is left behind");
}

#[tokio::test]
async fn elements_may_be_maps_and_hold_lists() {
    let db = Node::in_memory().unwrap().create("db").unwrap();
    let doc = db.doc("d");
    let list = doc.list(&["tasks"]).unwrap();
    list.push(&json!({ "text": "milk", "tags": {} })).await.unwrap();
    list.push(&json!({ "text": "rent" })).await.unwrap();
    list.set_in(0, &["done"], &true).await.unwrap();
    let sub = list.inside(&list.ids().unwrap()[1], &["steps"]).unwrap();
    sub.push("go").await.unwrap();
    sub.insert(0, "get up").await.unwrap();
    let expected = json!([
        { "done": true, "text": "milk", "tags": {} },
        { "text": "rent", "steps": ["get up", "go"] },
    ]);
    assert_eq!(doc.get::<Value>(&["tasks"]).unwrap(), Some(expected));
    list.set(1, &7).await.unwrap();
    assert_eq!(list.items::<Value>().unwrap()[1], json!(7));
    assert!(sub.is_empty().unwrap());
}

#[tokio::test]
async fn an_array_becomes_a_list_when_it_is_changed_as_one() {
    let db = Node::in_memory().unwrap().create("db").unwrap();
    let doc = db.doc("d");
    doc.set(&["list"], &["a", "b", "c"]).await.unwrap();
    let list = doc.list(&["list"]).unwrap();
    assert_eq!(texts(&list), ["a", "b", "c"]);
    let ids = list.ids().unwrap();
    list.remove(1).await.unwrap();
    list.push("d").await.unwrap();
    assert_eq!(texts(&list), ["a", "c", "d"]);
    assert_eq!(list.ids().unwrap()[..2], [ids[0], ids[2]]);
    doc.set(&["list"], &[1, 2]).await.unwrap();
    assert_eq!(doc.get::<Value>(&["list"]).unwrap(), Some(json!([1, 2])));
    doc.set(&["list"], &Vec::<u8>::new()).await.unwrap();
    list.push("x").await.unwrap();
    assert_eq!(texts(&list), ["x"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_two_devices_do_to_a_list_at_the_same_time_is_all_there() {
    let (a, b, serving) = pair().await;
    let here = filled(&a.doc("d"), &["1", "2", "3", "4"]).await;
    b.sync_with(&serving.address()).await.unwrap();
    let there = b.doc("d").list(&["list"]).unwrap();
    // At one place, what each device put there stands in its order, and neither is lost.
    for item in ["a", "b"] {
        here.insert(texts(&here).len() - 2, item).await.unwrap();
        there.insert(texts(&there).len() - 2, &item.to_uppercase()).await.unwrap();
    }
    // Moved here and changed there: both.
    here.move_to(0, 5).await.unwrap();
    there.set(0, "one").await.unwrap();
    b.sync_with(&serving.address()).await.unwrap();
    let both = texts(&here);
    assert_eq!(both, texts(&there));
    let places = |wanted: &[&str]| -> Vec<usize> {
        wanted.iter().map(|w| both.iter().position(|t| t == w).unwrap()).collect()
    };
    assert!(
        places(&["2", "a", "b", "3"]).is_sorted() && places(&["2", "A", "B", "3"]).is_sorted(),
        "{both:?}"
    );
    assert_eq!((both.len(), both.last().unwrap().as_str()), (8, "one"));
    // And there is room between those that came to stand at one place.
    for at in 0..=both.len() {
        here.insert(2 * at, "x").await.unwrap();
    }
    let now = texts(&here);
    assert_eq!(now.iter().step_by(2).filter(|t| *t == "x").count(), both.len() + 1, "{now:?}");
    b.sync_with(&serving.address()).await.unwrap();
    assert_eq!(a.digest().unwrap(), b.digest().unwrap());
    assert!(a.conflicts().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_changed_while_it_is_removed_stays_in_its_place_and_what_is_only_moved_goes() {
    let (a, b, serving) = pair().await;
    let here = filled(&a.doc("d"), &["1", "2", "3", "4", "5"]).await;
    b.sync_with(&serving.address()).await.unwrap();
    let there = b.doc("d").list(&["list"]).unwrap();
    for _ in 0..3 {
        here.remove(1).await.unwrap();
    }
    there.set(2, "three").await.unwrap();
    there.move_to(3, 0).await.unwrap();
    b.sync_with(&serving.address()).await.unwrap();
    assert_eq!(texts(&here), ["1", "three", "5"]);
    assert_eq!(texts(&there), ["1", "three", "5"]);
    // Two moves of one element: one counts, on both sides, and the element is there once.
    here.move_to(0, 2).await.unwrap();
    there.move_to(0, 1).await.unwrap();
    b.sync_with(&serving.address()).await.unwrap();
    assert_eq!(texts(&here), texts(&there));
    assert_eq!(texts(&here).len(), 3);
    assert!(a.conflicts().unwrap().is_empty(), "{:?}", a.conflicts());
    // Two changes of one element are a conflict as everywhere.
    here.set(0, "mine").await.unwrap();
    there.set(0, "yours").await.unwrap();
    b.sync_with(&serving.address()).await.unwrap();
    assert_eq!(a.conflicts().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_array_that_two_devices_take_apart_is_not_there_twice() {
    let (a, b, serving) = pair().await;
    a.doc("d").set(&["list"], &["1", "2"]).await.unwrap();
    b.sync_with(&serving.address()).await.unwrap();
    let (here, there) = (a.doc("d").list(&["list"]).unwrap(), b.doc("d").list(&["list"]).unwrap());
    here.push("here").await.unwrap();
    there.insert(0, "there").await.unwrap();
    b.sync_with(&serving.address()).await.unwrap();
    assert_eq!(texts(&here), ["there", "1", "2", "here"]);
    assert_eq!(texts(&there), texts(&here));
    assert!(a.conflicts().unwrap().is_empty());
}

#[tokio::test]
async fn a_watch_tells_under_which_name_an_element_was_made() {
    let db = Node::in_memory().unwrap().create("db").unwrap();
    let mut watch = db.watch().unwrap();
    let list = filled(&db.doc("d"), &["x"]).await;
    let change = watch.next().await.unwrap();
    let id = list.ids().unwrap()[0];
    let names = change.writes.iter().map(|w| ElementId::of(&w.path.segments()[1]));
    assert_eq!(names.collect::<Vec<_>>(), [Some(id), Some(id)]);
    assert!(
        matches!(&change.writes[0].effect, Effect::Put(raw) if raw.get::<String>().unwrap() == "x")
    );
    assert!(
        matches!(change.writes[1].path.segments()[2], Segment::Bytes(ref none) if none.is_empty())
    );
}

#[derive(Debug, Clone)]
enum Step {
    Push,
    Insert(Index),
    Move(Index, Index),
    Remove(Index),
    Set(Index),
}

fn arb_step() -> impl Strategy<Value = Step> {
    let at = any::<Index>;
    prop_oneof![
        2 => Just(Step::Push),
        4 => at().prop_map(Step::Insert),
        3 => (at(), at()).prop_map(|(from, to)| Step::Move(from, to)),
        2 => at().prop_map(Step::Remove),
        1 => at().prop_map(Step::Set),
    ]
}

/// What the steps make of a list; those that ask for an element of an empty one are left out.
fn model(list: &mut Vec<u32>, step: &Step, value: u32) -> bool {
    match step {
        Step::Push => list.push(value),
        Step::Insert(at) => list.insert(at.index(list.len() + 1), value),
        _ if list.is_empty() => return false,
        Step::Move(from, to) => {
            let (from, to) = (from.index(list.len()), to.index(list.len()));
            let item = list.remove(from);
            list.insert(to, item);
        }
        Step::Remove(at) => _ = list.remove(at.index(list.len())),
        Step::Set(at) => {
            let at = at.index(list.len());
            list[at] = value;
        }
    }
    true
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    /// Step by step, in transactions of several steps, and from an array as much as from nothing.
    #[test]
    fn a_list_does_what_a_vector_does(
        array in prop::collection::vec(0u32..100, 0..4),
        steps in prop::collection::vec((arb_step(), any::<bool>()), 1..30),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let db = Node::in_memory().unwrap().create("db").unwrap();
            let doc = db.doc("d");
            doc.set(&["list"], &array).await.unwrap();
            let (list, mut expected) = (doc.list(&["list"]).unwrap(), array.clone());
            let mut tx = db.transaction();
            for (n, (step, commit)) in steps.iter().enumerate() {
                let (value, len) = (1000 + n as u32, expected.len());
                if !model(&mut expected, step, value) {
                    continue;
                }
                match step {
                    Step::Push => tx.push(&list, &value),
                    Step::Insert(at) => tx.insert(&list, at.index(len + 1), &value),
                    Step::Move(from, to) => tx.move_to(&list, from.index(len), to.index(len)),
                    Step::Remove(at) => tx.remove(&list, at.index(len)),
                    Step::Set(at) => tx.replace(&list, at.index(len), &value),
                }
                .unwrap();
                if *commit {
                    std::mem::replace(&mut tx, db.transaction()).commit().await.unwrap();
                    assert_eq!(list.items::<u32>().unwrap(), expected);
                    assert_eq!(list.ids().unwrap().len(), expected.len());
                }
            }
            tx.commit().await.unwrap();
            assert_eq!(list.items::<u32>().unwrap(), expected);
        });
    }
}
