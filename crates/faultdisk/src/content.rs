//! The bytes of one file: those that are safe, and the changes since. What a power loss makes of them is decided here.

use crate::random::Random;

/// What a disk writes whole or not at all, except for the sector under its head when the power goes. Bytes.
const SECTOR: usize = 512;

/// No file grows beyond this, so that a damaged database cannot ask for all memory. Bytes.
pub(crate) const MAX_LENGTH: u64 = 1 << 32;

#[derive(Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Resize { length: usize },
}

/// The content of a file.
#[derive(Debug, Default)]
pub(crate) struct Content {
    durable: Vec<u8>,
    unsynced: Vec<Change>,
    /// Whether what can be read has parts that are neither durable nor going to be.
    forgetful: bool,
    /// Of what can be read.
    length: u64,
}

impl Content {
    /// A file of which everything is safe.
    pub(crate) fn synced(bytes: Vec<u8>) -> Self {
        Self { length: bytes.len() as u64, durable: bytes, ..Self::default() }
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    pub(crate) fn durable(&self) -> &[u8] {
        &self.durable
    }

    pub(crate) fn durable_mut(&mut self) -> &mut [u8] {
        &mut self.durable
    }

    /// Whether what can be read is what is safe.
    pub(crate) fn is_synced(&self) -> bool {
        self.unsynced.is_empty() && !self.forgetful
    }

    /// Bytes of writes that are not safe yet; what was written twice counts twice.
    pub(crate) fn unsynced_bytes(&self) -> u64 {
        self.unsynced
            .iter()
            .map(|change| match change {
                Change::Write { bytes, .. } => bytes.len() as u64,
                Change::Resize { .. } => 0,
            })
            .sum()
    }

    /// How many bytes longer the file gets by a write.
    pub(crate) fn growth(&self, offset: u64, bytes: usize) -> u64 {
        offset.saturating_add(bytes as u64).saturating_sub(self.length)
    }

    /// The caller has seen to it that the write ends below [`MAX_LENGTH`].
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.length += self.growth(offset, bytes.len());
        self.unsynced.push(Change::Write { offset: offset as usize, bytes: bytes.to_vec() });
    }

    pub(crate) fn resize(&mut self, length: u64) {
        self.length = length;
        self.unsynced.push(Change::Resize { length: length as usize });
    }

    pub(crate) fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            match change {
                Change::Write { offset, bytes } => put(&mut self.durable, offset, &bytes),
                Change::Resize { length } => self.durable.resize(length, 0),
            }
        }
    }

    /// A sync has failed, and the system takes what it could not write for written.
    pub(crate) fn forget(&mut self) {
        self.forgetful |= !self.unsynced.is_empty();
        self.unsynced.clear();
    }

    /// What is found when the power is back.
    pub(crate) fn after_power_loss(&self, random: &mut Random) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        let mut fates = Fates::draw(self.unsynced.iter().map(Change::pieces).sum(), random);
        for change in &self.unsynced {
            match change {
                Change::Resize { length } => {
                    if matches!(fates.next(random), Fate::Kept) {
                        bytes.resize(*length, 0);
                    }
                }
                Change::Write { offset, bytes: written } => {
                    for (offset, piece) in sectors(*offset, written) {
                        match fates.next(random) {
                            Fate::Kept => put(&mut bytes, offset, piece),
                            Fate::Torn => {
                                put(&mut bytes, offset, &piece[..random.below(piece.len())]);
                            }
                            Fate::Lost => fates.leave(&mut bytes, offset, piece.len(), random),
                        }
                    }
                }
            }
        }
        bytes
    }
}

impl Change {
    fn pieces(&self) -> usize {
        match self {
            Self::Write { offset, bytes } => sectors(*offset, bytes).count(),
            Self::Resize { .. } => 1,
        }
    }
}

/// What becomes of one sector of one write.
enum Fate {
    Kept,
    Torn,
    Lost,
}

/// Which sectors of a file survive.
struct Fates {
    rule: Rule,
    /// Whether a file may have got its length without its bytes, and then has what was on the disk before.
    garbage: bool,
    passed: usize,
}

enum Rule {
    /// As many pieces, in the order of writing, and perhaps a part of the next.
    First { kept: usize, torn: bool },
    /// Each piece by itself, so many in eight.
    Scattered(usize),
}

impl Fates {
    fn draw(pieces: usize, random: &mut Random) -> Self {
        let rule = match random.below(6) {
            0 => Rule::First { kept: 0, torn: false },
            1 => Rule::First { kept: pieces, torn: false },
            2 | 3 => Rule::First { kept: random.below(pieces + 1), torn: random.chance(1, 2) },
            _ => Rule::Scattered([1, 4, 7][random.below(3)]),
        };
        Self { rule, garbage: random.chance(1, 4), passed: 0 }
    }

    fn next(&mut self, random: &mut Random) -> Fate {
        let place = self.passed;
        self.passed += 1;
        match self.rule {
            Rule::First { kept, .. } if place < kept => Fate::Kept,
            Rule::First { kept, torn: true } if place == kept => Fate::Torn,
            Rule::Scattered(kept) if random.chance(kept, 8) => Fate::Kept,
            _ => Fate::Lost,
        }
    }

    /// A piece that was lost, where it lies beyond the end of what is safe.
    fn leave(&self, bytes: &mut Vec<u8>, offset: usize, length: usize, random: &mut Random) {
        if self.garbage && offset >= bytes.len() {
            let mut found = vec![0; length];
            random.fill(&mut found);
            put(bytes, offset, &found);
        }
    }
}

/// The parts of a write, cut where sectors meet.
fn sectors(offset: usize, bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = offset + at;
        let end = bytes.len().min(at + SECTOR - start % SECTOR);
        let piece = bytes.get(at..end).filter(|piece| !piece.is_empty())?;
        at = end;
        Some((start, piece))
    })
}

fn put(bytes: &mut Vec<u8>, offset: usize, piece: &[u8]) {
    if bytes.len() < offset {
        bytes.resize(offset, 0);
    }
    let (within, beyond) = piece.split_at(piece.len().min(bytes.len() - offset));
    bytes[offset..offset + within.len()].copy_from_slice(within);
    bytes.extend_from_slice(beyond);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_synced_stays() {
        for seed in 0..200 {
            let mut content = Content::synced(vec![1; 600]);
            content.write(100, &[2; 1000]);
            content.sync();
            content.write(1100, &[3; 2000]);
            let found = content.after_power_loss(&mut Random::new(seed));
            assert_eq!(found[..100], [1; 100]);
            assert_eq!(found[100..1100], [2; 1000]);
        }
    }

    #[test]
    fn what_was_not_synced_goes_stays_or_tears_by_sector() {
        let mut content = Content::synced(vec![0; 4 * SECTOR]);
        content.write(0, &[1; 4 * SECTOR]);
        let (mut none, mut all, mut some, mut torn) = (0, 0, 0, 0);
        for seed in 0..400 {
            let found = content.after_power_loss(&mut Random::new(seed));
            let whole = found.chunks(SECTOR).all(|sector| sector.iter().all(|b| *b == sector[0]));
            match found.iter().filter(|byte| **byte == 1).count() {
                0 => none += 1,
                n if n == found.len() => all += 1,
                _ if whole => some += 1,
                _ => torn += 1,
            }
        }
        assert!(none > 30 && all > 30 && some > 60 && torn > 20, "{none} {all} {some} {torn}");
    }

    #[test]
    fn a_file_may_end_in_garbage_but_not_have_any_within() {
        let mut content = Content::synced(vec![1; SECTOR]);
        content.write(0, &[2; 3 * SECTOR]);
        let mut garbage = 0;
        for seed in 0..400 {
            let found = content.after_power_loss(&mut Random::new(seed));
            assert!(found[..SECTOR].iter().all(|byte| [1, 2].contains(byte)));
            garbage += u32::from(found.iter().any(|byte| *byte > 2));
        }
        assert!(garbage > 20, "{garbage}");
    }

    #[test]
    fn what_was_forgotten_no_sync_makes_safe() {
        let mut content = Content::synced(vec![1; 10]);
        content.write(5, &[2; 10]);
        content.forget();
        content.write(12, &[3; 2]);
        content.sync();
        assert_eq!((content.length(), content.is_synced()), (15, false));
        let found = content.after_power_loss(&mut Random::new(1));
        assert_eq!(found, [[1; 10].as_slice(), &[0; 2], &[3; 2]].concat());
    }

    #[test]
    fn lengths_follow_writes_and_cuts() {
        let mut content = Content::synced(vec![1; 10]);
        assert_eq!((content.growth(4, 6), content.growth(8, 4)), (0, 2));
        content.write(8, &[2; 4]);
        assert_eq!((content.length(), content.unsynced_bytes()), (12, 4));
        content.resize(5);
        assert_eq!(content.length(), 5);
        content.sync();
        assert_eq!((content.durable(), content.unsynced_bytes()), (&[1; 5][..], 0));
    }

    #[test]
    fn writes_are_cut_where_sectors_meet() {
        let bytes = [0; 1100];
        let cuts: Vec<_> = sectors(500, &bytes).map(|(at, piece)| (at, piece.len())).collect();
        assert_eq!(cuts, [(500, 12), (512, 512), (1024, 512), (1536, 64)]);
        assert_eq!(sectors(0, &[]).count(), 0);
    }
}
