//! Which elements of two large sets differ, told in space that follows the difference: rateless invertible Bloom look-up
//! tables (Yang, Gilad, Alizadeh, "Practical Rateless Set Reconciliation", SIGCOMM 2024). A set is summed up in an endless
//! row of symbols; the row of one set less that of another is the row of their difference, and some 1.4 to 1.7 symbols for
//! each differing element are enough to read it off.
//!
//! Elements are numbers of 64 bits that stand for something else. Whoever can choose what they stand for can make two alike,
//! and bad symbols can be made up: what is read off is a hint, to be checked by a digest of what it leads to.

/// Bytes of a symbol as it is sent.
pub const SYMBOL_BYTES: usize = 20;
/// The most symbols that are kept or taken.
pub const SYMBOLS: usize = 2_048;

/// The sum over those elements of a set that are mapped to one place of the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Symbol {
    /// All of them by exclusive or.
    sum: u64,
    /// Their checks likewise.
    check: u64,
    /// How many there are; of a difference, those of the first set less those of the other.
    count: i32,
}

impl Symbol {
    fn toggle(&mut self, element: u64, by: i32) {
        self.sum ^= element;
        self.check ^= check(element);
        self.count = self.count.wrapping_add(by);
    }

    /// The one element that is left here, and of which set it is: 1 of the first, -1 of the other.
    fn alone(&self) -> Option<(u64, i32)> {
        let one = self.count == 1 || self.count == -1;
        (one && self.check == check(self.sum)).then_some((self.sum, self.count))
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// As it is sent.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; SYMBOL_BYTES] {
        let mut bytes = [0; SYMBOL_BYTES];
        bytes[..8].copy_from_slice(&self.sum.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.check.to_be_bytes());
        bytes[16..].copy_from_slice(&self.count.to_be_bytes());
        bytes
    }

    /// What [`Self::to_bytes`] gave.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; SYMBOL_BYTES]) -> Self {
        let (sum, rest) = bytes.split_first_chunk().unwrap_or((&[0; 8], &[]));
        let (check, rest) = rest.split_first_chunk().unwrap_or((&[0; 8], &[]));
        let count = rest.first_chunk().unwrap_or(&[0; 4]);
        Self {
            sum: u64::from_be_bytes(*sum),
            check: u64::from_be_bytes(*check),
            count: i32::from_be_bytes(*count),
        }
    }
}

/// Spreads numbers over all of 64 bits, no two onto one (the finalizer of SplitMix64).
fn mix(n: u64) -> u64 {
    let z = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Tells an element that is alone from a sum of several.
fn check(element: u64) -> u64 {
    mix(mix(element ^ 0x6a09_e667_f3bc_c908).wrapping_add(0x9e37_79b9_7f4a_7c15))
}

/// The places of the row to which an element is mapped, ascending, the first one always among them: place `i` with
/// probability 1 / (1 + i / 2).
struct Places {
    state: u64,
    next: u64,
}

impl Places {
    fn of(element: u64) -> Self {
        Self { state: element, next: 0 }
    }
}

impl Iterator for Places {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let place = self.next;
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        // Uniform in (0, 1]; 2^-32 is as fine as it gets.
        let uniform = ((mix(self.state) >> 32) + 1) as f64 / 4_294_967_296.0;
        let gap = ((place as f64 + 1.5) * (1.0 / uniform.sqrt() - 1.0)).ceil();
        self.next = place.saturating_add((gap as u64).max(1));
        usize::try_from(place).ok()
    }
}

/// The first symbols of a set's row. Adding an element costs some 2 ln(length) steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row(Vec<Symbol>);

impl Row {
    /// The first `len` symbols of the empty set, at most [`SYMBOLS`].
    #[must_use]
    pub fn new(len: usize) -> Self {
        Self(vec![Symbol::default(); len.min(SYMBOLS)])
    }

    /// The set has one element more.
    pub fn add(&mut self, element: u64) {
        let len = self.0.len();
        for place in Places::of(element).take_while(|place| *place < len) {
            self.0[place].toggle(element, 1);
        }
    }

    /// The symbols.
    #[must_use]
    pub fn symbols(&self) -> &[Symbol] {
        &self.0
    }

    /// What this set has and the one with these first symbols has not, and the reverse; `None` when there are too few symbols
    /// to tell. Cost: as many steps as symbols, whatever these say.
    #[must_use]
    pub fn difference(&self, theirs: &[Symbol]) -> Option<Difference> {
        let mut left: Vec<Symbol> = self.0.iter().zip(theirs).map(|(a, b)| less(a, b)).collect();
        let (len, mut found) = (left.len(), Difference::default());
        let mut alone: Vec<usize> = (0..len).filter(|at| left[*at].alone().is_some()).collect();
        while let Some(at) = alone.pop() {
            let Some((element, side)) = left[at].alone() else { continue };
            if found.len() >= len {
                return None;
            }
            match side {
                1 => found.mine.push(element),
                _ => found.theirs.push(element),
            }
            for place in Places::of(element).take_while(|place| *place < len) {
                left[place].toggle(element, -side);
                if left[place].alone().is_some() {
                    alone.push(place);
                }
            }
        }
        // Every element is in the first one.
        (len > 0 && left.iter().all(Symbol::is_empty)).then_some(found)
    }
}

fn less(a: &Symbol, b: &Symbol) -> Symbol {
    let count = a.count.wrapping_sub(b.count);
    Symbol { sum: a.sum ^ b.sum, check: a.check ^ b.check, count }
}

/// In what two sets differ.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Difference {
    /// What only this set has.
    pub mine: Vec<u64>,
    /// What only the other has.
    pub theirs: Vec<u64>,
}

impl Difference {
    /// How many elements differ.
    #[must_use]
    pub fn len(&self) -> usize {
        self.mine.len() + self.theirs.len()
    }

    /// Whether none does.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn row(len: usize, set: &BTreeSet<u64>) -> Row {
        let mut row = Row::new(len);
        set.iter().for_each(|element| row.add(*element));
        row
    }

    #[test]
    fn a_difference_of_thirty_fits_64_symbols_and_one_of_a_thousand_2048() {
        for (differing, len) in [(10, 64), (30, 64), (1_000, SYMBOLS)] {
            let failed = (0..40u64).filter(|trial| {
                let element = |n: u64| mix(n + (trial << 32));
                let common: BTreeSet<u64> = (0..5_000).map(element).collect();
                let mut ours = common.clone();
                ours.extend((10_000..10_000 + differing).map(element));
                row(len, &ours).difference(row(len, &common).symbols()).is_none()
            });
            assert!(failed.count() <= 4, "{differing} in {len}");
        }
    }

    #[test]
    fn as_many_places_as_there_should_be() {
        let count = |len: usize| -> usize {
            (0..1_000).map(|n| Places::of(mix(n)).take_while(|place| *place < len).count()).sum()
        };
        // The sum of 1 / (1 + i / 2): 7.5 of 64, 14.2 of 2,048.
        assert!((6_500..8_500).contains(&count(64)), "{}", count(64));
        assert!((13_000..15_500).contains(&count(2_048)), "{}", count(2_048));
    }

    proptest! {
        #[test]
        fn what_is_read_off_is_the_difference(
            common in prop::collection::btree_set(any::<u64>(), 0..300),
            mine in prop::collection::btree_set(any::<u64>(), 0..40),
            theirs in prop::collection::btree_set(any::<u64>(), 0..40),
            len in 0usize..400,
        ) {
            let (a, b) = (&common | &mine, &common | &theirs);
            let (here, there) = (row(len, &a), row(len, &b));
            let found = here.difference(there.symbols());
            if len > 4 * (mine.len() + theirs.len()) + 40 {
                prop_assert!(found.is_some());
            }
            if let Some(found) = found {
                let set = |list: &[u64]| list.iter().copied().collect::<BTreeSet<u64>>();
                prop_assert_eq!(set(&found.mine), &a - &b);
                prop_assert_eq!(set(&found.theirs), &b - &a);
            }
        }

        /// A peer may say anything.
        #[test]
        fn made_up_symbols_come_to_an_end(
            symbols in prop::collection::vec((0u64..4, 0u64..4, -2i32..3, any::<bool>()), 0..60),
        ) {
            let symbols: Vec<Symbol> = symbols
                .into_iter()
                .map(|(sum, wrong, count, right)| {
                    Symbol { sum, check: if right { check(sum) } else { wrong }, count }
                })
                .collect();
            for symbol in &symbols {
                prop_assert_eq!(Symbol::from_bytes(&symbol.to_bytes()), *symbol);
            }
            let found = Row::new(60).difference(&symbols);
            prop_assert!(found.is_none_or(|found| found.len() <= 60));
        }
    }
}
