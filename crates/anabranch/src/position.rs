//! Where an element of a list stands: a place between two others that is found without moving any. A position is a list of
//! steps, numbers for the most part. Elements are ordered by their **keys**, which are their positions with their ids at the
//! end; so two elements that two devices put at one place have different keys, and there is room between them too.
//!
//! Growth: the first element is at 0, what is appended or put in front goes 16 further, so n of them take a few bytes each
//! (3 up to 2,048 elements, 5 up to 100 million). The same holds for elements that are put one after the other at one place in
//! the middle, in either direction, after the handful that used up the gap. Only where each goes between the last two, to
//! and fro, does a position grow with each, by a byte every four.

use anabranch_core::path::ElementId;
use minicbor::data::Type;
use minicbor::decode::Decoder;
use minicbor::encode::Encoder;

/// One step of a position. Ids come before numbers, so that what stands between two elements of one position stands
/// before whatever was put behind both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    Id(ElementId),
    Number(i64),
}

/// What is left free between neighbours: what is put between them later takes a byte more only after four halvings.
const STRIDE: i64 = 16;
/// Bytes of a position as it is stored. A longer one comes from a liar, or makes its writer space the list anew.
pub(crate) const POSITION_BYTES: usize = 1024;

/// A position; at least one step, the last a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Position(Vec<Step>);

/// How an element's position came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    /// Somebody edited it and wrote down where it was, so that it keeps its place if it is deleted at the same time.
    Edited,
    /// Somebody put it there.
    Placed,
}

impl Position {
    /// The `n`th of a list that is spaced anew.
    pub(crate) fn spaced(n: usize) -> Self {
        let n = i64::try_from(n).unwrap_or(i64::MAX);
        Self(vec![Step::Number(n.saturating_mul(STRIDE))])
    }

    /// Where elements stand that have no position: behind all others.
    pub(crate) fn last() -> Self {
        Self(vec![Step::Number(i64::MAX)])
    }

    /// The key of the element `id` at this position.
    pub(crate) fn key(&self, id: ElementId) -> Vec<Step> {
        let mut key = self.0.clone();
        key.push(Step::Id(id));
        key
    }

    /// A position whose keys lie between these two, whatever the id; `None` is an end of the list.
    pub(crate) fn between(left: Option<&[Step]>, right: Option<&[Step]>) -> Self {
        Self(match (left, right) {
            (None, None) => vec![Step::Number(0)],
            (Some(left), None) => after(left),
            (None, Some(right)) => before(right),
            (Some(left), Some(right)) => inside(left, right),
        })
    }

    /// As it is stored: an array of its steps, after a `null` if an edit wrote it.
    pub(crate) fn encode(&self, reason: Reason) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::new());
        // Writing to a vector cannot fail.
        let _ = encoder.array(self.0.len() as u64 + u64::from(reason == Reason::Edited));
        if reason == Reason::Edited {
            let _ = encoder.null();
        }
        for step in &self.0 {
            let _ = match step {
                Step::Number(n) => encoder.i64(*n),
                Step::Id(id) => {
                    let id = [&id.entry[..], &id.number.to_be_bytes()].concat();
                    encoder.bytes(&id)
                }
            };
        }
        encoder.into_writer()
    }

    /// Reads what [`Self::encode`] wrote; `None` for anything that is no position.
    pub(crate) fn decode(bytes: &[u8]) -> Option<(Self, Reason)> {
        if bytes.len() > POSITION_BYTES {
            return None;
        }
        let mut decoder = Decoder::new(bytes);
        let mut count = decoder.array().ok()??;
        let mut reason = Reason::Placed;
        if matches!(decoder.datatype(), Ok(Type::Null)) {
            decoder.null().ok()?;
            (count, reason) = (count.checked_sub(1)?, Reason::Edited);
        }
        let mut steps = Vec::new();
        for _ in 0..count {
            steps.push(match decoder.datatype().ok()? {
                Type::Bytes => {
                    let (entry, number) = decoder.bytes().ok()?.split_first_chunk::<16>()?;
                    let number = u32::from_be_bytes(number.try_into().ok()?);
                    Step::Id(ElementId { entry: *entry, number })
                }
                _ => Step::Number(decoder.i64().ok()?),
            });
        }
        let whole = decoder.position() == bytes.len();
        (whole && sound(&steps)).then_some((Self(steps), reason))
    }
}

/// Whether there is room before and behind: numbers at both ends and between ids, and after the smallest number another.
fn sound(steps: &[Step]) -> bool {
    let number = |step: Option<&Step>| matches!(step, Some(Step::Number(_)));
    number(steps.first())
        && number(steps.last())
        && steps.last() != Some(&Step::Number(i64::MIN))
        && steps.windows(2).all(|pair| {
            number(pair.get(1)) || !matches!(pair[0], Step::Id(_) | Step::Number(i64::MIN))
        })
}

/// Behind a key or the rest of one, with nothing else in the way.
fn after(steps: &[Step]) -> Vec<Step> {
    match steps.split_first() {
        Some((Step::Number(n), rest)) => match n.checked_add(STRIDE) {
            Some(n) => vec![Step::Number(n)],
            None => [&[Step::Number(*n)], &after(rest)[..]].concat(),
        },
        // Numbers come behind all ids.
        Some((Step::Id(_), _)) | None => vec![Step::Number(0)],
    }
}

/// Before a key or the rest of one, with nothing else in the way.
fn before(steps: &[Step]) -> Vec<Step> {
    const LEAST: i64 = i64::MIN + 1;
    match steps.split_first() {
        Some((Step::Number(n), _)) if *n > LEAST => {
            vec![Step::Number(n.saturating_sub(STRIDE).max(LEAST))]
        }
        Some((Step::Number(i64::MIN), rest)) => {
            [&[Step::Number(i64::MIN)], &before(rest)[..]].concat()
        }
        _ => vec![Step::Number(i64::MIN), Step::Number(0)],
    }
}

fn inside(left: &[Step], right: &[Step]) -> Vec<Step> {
    let common = left.iter().zip(right).take_while(|(l, r)| l == r).count();
    let (shared, left) = left.split_at(common);
    let right = right.get(common..).unwrap_or_default();
    let rest = match (left.split_first(), right.first()) {
        // The right one was put behind the left one, in its gap.
        (None, _) => before(right),
        (Some((Step::Number(l), _)), Some(Step::Number(r))) if r.abs_diff(*l) > 1 => {
            let half = i64::try_from(r.abs_diff(*l) / 2).unwrap_or(STRIDE);
            vec![Step::Number(l + half.min(STRIDE))]
        }
        (Some((Step::Id(_), _)), Some(Step::Number(_))) => match before(right)[..] {
            [number] => vec![number],
            _ => [&left[..1], &after(&left[1..])[..]].concat(),
        },
        (Some((first, rest)), _) => [&[*first], &after(rest)[..]].concat(),
    };
    [shared, &rest[..]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::sample::Index;

    fn id(n: u8) -> ElementId {
        ElementId { entry: [n; 16], number: u32::from(n) }
    }

    fn len(position: &Position) -> usize {
        position.encode(Reason::Placed).len()
    }

    fn arb_steps() -> impl Strategy<Value = Vec<Step>> {
        let near = |n: i64| (-2i64..3).prop_map(move |d| n.saturating_add(d));
        let number = prop_oneof![
            4 => near(0), 1 => near(i64::MAX), 1 => near(i64::MIN), 1 => any::<i64>()
        ];
        let step = prop_oneof![3 => number.prop_map(Step::Number), 1 => (0u8..3).prop_map(|n| Step::Id(id(n)))];
        proptest::collection::vec(step, 1..6)
    }

    /// A list of keys, filled by whatever `choose` says where the next one goes; returns the longest position.
    fn fill(rounds: usize, mut choose: impl FnMut(usize, usize) -> usize) -> usize {
        let mut keys: Vec<Vec<Step>> = Vec::new();
        let mut longest = 0;
        for round in 0..rounds {
            let at = choose(round, keys.len());
            let left = at.checked_sub(1).map(|left| &keys[left][..]);
            let position = Position::between(left, keys.get(at).map(Vec::as_slice));
            longest = longest.max(len(&position));
            keys.insert(at, position.key(id((round % 251) as u8)));
        }
        assert!(keys.is_sorted());
        longest
    }

    #[test]
    fn positions_stay_short() {
        assert!(fill(2_000, |_, len| len) <= 4, "appended");
        assert!(fill(2_000, |_, _| 0) <= 4, "put in front");
        assert!(fill(2_000, |_, len| len.min(1)) <= 7, "put behind the first");
        assert!(fill(2_000, |_, len| len.saturating_sub(1)) <= 7, "put before the last");
        let mut at = 0;
        let typed = fill(2_000, |round, len| {
            at = if round == 2 {
                1
            } else if round < 2 {
                len
            } else {
                at + 1
            };
            at
        });
        assert!(typed <= 7, "written one after the other in the middle: {typed}");
        let halved = fill(500, |_, len| len / 2);
        assert!(halved <= 500 / 3, "to and fro: {halved}");
    }

    proptest! {
        #[test]
        fn there_is_always_room(a in arb_steps(), b in arb_steps(), ids: [u8; 3]) {
            let valid = |steps: Vec<Step>| Position::decode(&Position(steps).encode(Reason::Placed));
            prop_assume!(valid(a.clone()).is_some() && valid(b.clone()).is_some());
            let (a, b) = (Position(a).key(id(ids[0])), Position(b).key(id(ids[1])));
            prop_assume!(a != b);
            let (left, right) = if a < b { (a, b) } else { (b, a) };
            for (l, r) in [(Some(&left), Some(&right)), (None, Some(&left)), (Some(&left), None)] {
                let between = Position::between(l.map(Vec::as_slice), r.map(Vec::as_slice));
                prop_assert!(sound(&between.0), "{:?}", between);
                let key = between.key(id(ids[2]));
                prop_assert!(l.is_none_or(|l| *l < key), "{:?} < {:?}", l, key);
                prop_assert!(r.is_none_or(|r| key < *r), "{:?} < {:?}", key, r);
            }
        }

        #[test]
        fn any_order_of_insertion_works(order in proptest::collection::vec(any::<Index>(), 1..200)) {
            let longest = fill(order.len(), |round, len| order[round].index(len + 1));
            prop_assert!(longest < 64, "{}", longest);
        }

        /// Where several devices put an element at one place at the same time.
        #[test]
        fn there_is_room_between_elements_at_one_position(
            several in 2u8..6, order in proptest::collection::vec(any::<Index>(), 1..60)
        ) {
            let mut keys: Vec<_> = (0..several).map(|n| Position::spaced(0).key(id(n))).collect();
            for (n, at) in order.iter().enumerate() {
                let at = at.index(keys.len() + 1);
                let left = at.checked_sub(1).map(|left| &keys[left][..]);
                let position = Position::between(left, keys.get(at).map(Vec::as_slice));
                // Ids on both sides of those there.
                keys.insert(at, position.key(id(n as u8 % 7)));
                prop_assert!(keys.is_sorted_by(|a, b| a < b), "{:?}", keys);
            }
        }

        #[test]
        fn positions_come_back(steps in arb_steps(), edited: bool) {
            let reason = if edited { Reason::Edited } else { Reason::Placed };
            let sound = sound(&steps);
            let position = Position(steps);
            let read = Position::decode(&position.encode(reason));
            prop_assert_eq!(read, sound.then_some((position, reason)));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            if let Some((position, reason)) = Position::decode(&bytes) {
                prop_assert_eq!(Position::decode(&position.encode(reason)), Some((position, reason)));
            }
        }
    }
}
