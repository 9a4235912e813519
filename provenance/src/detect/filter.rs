//! A quick no: whether anything registered could begin with what is looked up, and how long it is.
//!
//! Cells of 16 bytes, each a small Bloom filter and the lengths of all that fell into it. What was
//! added is never denied; what was taken away is, once the index builds a new filter.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use siphasher::sip128::SipHasher13;

/// Bytes by which long text is found.
pub(super) const ANCHOR: usize = 8;
/// Lengths are told apart up to this one.
pub(super) const LONGEST: usize = 64;
/// Keys that share a cell when the filter is full: 32 bits each.
const KEYS_PER_CELL: usize = 4;
/// Fewest cells; a power of two.
const CELLS: usize = 1 << 10;
/// Spreads 32 bits over 64.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// What the filter has of a piece of text: the keyed hash of its first bytes, and its length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Anchor {
    pub(super) hash: u32,
    pub(super) length: u32,
    /// Short keys, and ids without separators, are told apart by their beginning first.
    pub(super) begin: u16,
    /// The keyed hash of all of it, where it is longer than the anchor.
    pub(super) whole: u32,
}

/// Beginnings that are told apart: 12 bits.
const BEGINS: usize = 1 << 12;
/// Marks the beginning of an id without separators.
const BARE: u16 = 1 << 12;
/// The bit that stands for them; the others are those of short lengths.
const BARE_BIT: u8 = 0x80;

/// A keyed hash of eight bytes, quick rather than strong: its 32 bits say little, and what passes
/// is looked up by SipHash.
#[derive(Clone, Copy)]
pub(super) struct AnchorKey {
    add: u64,
    multiply: u64,
}

impl AnchorKey {
    pub(super) fn new(key: &[u8; 16]) -> Self {
        // Multiplication alone mixes only as well as its factor is random.
        let key = SipHasher13::new_with_key(key).hash(b"anchors");
        AnchorKey {
            add: key.h1,
            multiply: key.h2 | 1,
        }
    }

    #[inline(always)]
    pub(super) fn hash(self, word: u64) -> u32 {
        let product = u128::from(word ^ self.add) * u128::from(self.multiply);
        let mixed = (product >> 64) as u64 ^ product as u64;
        (mixed >> 32) as u32 ^ mixed as u32
    }

    /// A keyed hash of all bytes of a folded text; that of a text of ASCII in another case is the same.
    #[inline]
    pub(super) fn whole(self, bytes: &[u8]) -> u32 {
        let mut state = self.multiply ^ bytes.len() as u64;
        let (words, rest) = bytes.as_chunks::<8>();
        let mut take = |word: u64| {
            let product = u128::from(lower(word) ^ self.add ^ state) * u128::from(self.multiply);
            state = (product >> 64) as u64 ^ product as u64;
        };
        words.iter().for_each(|word| take(u64::from_le_bytes(*word)));
        if !rest.is_empty() {
            let mut word = [0; 8];
            word.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            take(u64::from_le_bytes(word));
        }
        (state >> 32) as u32 ^ state as u32
    }

    /// A keyed hash of the first two bytes of a key.
    #[inline(always)]
    fn begin(self, word: u64) -> u16 {
        ((word ^ self.add).wrapping_mul(self.multiply) >> 52) as u16
    }

    /// The anchor of an id without separators, of at least eight bytes.
    pub(super) fn of_bare(self, bytes: &[u8]) -> Option<Anchor> {
        let word = u64::from_le_bytes(*bytes.first_chunk()?);
        let begin = self.begin(word & 0xffff) | BARE;
        self.of(bytes).map(|anchor| Anchor { begin, ..anchor })
    }

    /// What the anchor of `bytes` hashes: their first, or all of them with their number.
    #[inline(always)]
    pub(super) fn first(bytes: &[u8]) -> u64 {
        match bytes.first_chunk::<ANCHOR>() {
            Some(first) => u64::from_le_bytes(*first),
            None => {
                let mut first = [0; ANCHOR];
                first.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
                short(u64::from_le_bytes(first), bytes.len())
            }
        }
    }

    /// The anchor of `bytes`; `None` if there are none.
    pub(super) fn of(self, bytes: &[u8]) -> Option<Anchor> {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let word = Self::first(bytes);
        (length > 0).then(|| Anchor {
            hash: self.hash(word),
            length,
            begin: match length {
                2..8 => self.begin(word & 0xffff),
                _ => 0,
            },
            whole: if length < 8 { 0 } else { self.whole(bytes) },
        })
    }
}

/// Small letters for capitals, all eight at once.
#[inline(always)]
pub(super) fn lower(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let low = word & (ONES * 0x7f);
    let from_a = low + ONES * u64::from(0x80 - b'A');
    let after_z = low + ONES * u64::from(0x80 - b'Z' - 1);
    let capital = from_a & !after_z & !word & (ONES * 0x80);
    word | capital >> 2
}

/// The first `length` bytes of a word, at most 7, and their number.
#[inline(always)]
pub(super) fn short(word: u64, length: usize) -> u64 {
    word & !(!0 << (8 * length)) | (length as u64) << 56
}

/// The bit of a length.
#[inline(always)]
pub(super) fn length_bit(length: usize) -> u64 {
    1 << (length.clamp(1, LONGEST) - 1)
}

#[derive(Default)]
struct Cell {
    bloom: AtomicU64,
    lengths: AtomicU64,
}

pub(super) struct Filter {
    cells: Box<[Cell]>,
    shift: u32,
    /// The bits of the lengths of short keys by their first two bytes: small enough to stay near
    /// the processor, and enough for most words.
    begins: Box<[AtomicU8; BEGINS]>,
    /// A Bloom filter of the whole of all long keys, in words: what begins like one is seldom one.
    wholes: Bloom,
    /// The hashes of digests.
    digests: Bloom,
    /// All lengths there are.
    lengths: AtomicU64,
}

/// A filter as the innermost loop holds it.
#[derive(Clone, Copy)]
pub(super) struct Probe<'f> {
    cells: &'f [Cell],
    shift: u32,
    begins: &'f [AtomicU8; BEGINS],
    /// Whether there are keys of one byte.
    ones: u64,
}

impl Probe<'_> {
    /// Whether anything may have been added with this hash.
    #[inline(always)]
    pub(super) fn may(self, hash: u32) -> bool {
        let spread = u64::from(hash).wrapping_mul(SPREAD);
        let bloom = bloom(spread);
        let cell = self.cells.get((spread >> self.shift) as usize);
        cell.is_some_and(|cell| cell.bloom.load(Ordering::Acquire) & bloom == bloom)
    }

    /// The bits of the lengths of short keys that may begin with this word.
    #[inline(always)]
    pub(super) fn begins(self, key: AnchorKey, word: u64) -> u64 {
        let begins = &self.begins[usize::from(key.begin(word & 0xffff)) % BEGINS];
        u64::from(begins.load(Ordering::Acquire)) | self.ones
    }
}

impl Filter {
    pub(super) fn new(keys: usize, digests: usize) -> Self {
        let cells = (keys / KEYS_PER_CELL).next_power_of_two().max(CELLS);
        let words = (digests / KEYS_PER_CELL).next_power_of_two().max(CELLS);
        Filter {
            cells: (0..cells).map(|_| Cell::default()).collect(),
            shift: 64 - cells.trailing_zeros(),
            wholes: Bloom::new(cells),
            digests: Bloom::new(words),
            begins: Box::new([const { AtomicU8::new(0) }; BEGINS]),
            lengths: AtomicU64::new(0),
        }
    }

    pub(super) fn probe(&self) -> Probe<'_> {
        Probe {
            cells: &self.cells,
            shift: self.shift,
            begins: &self.begins,
            ones: self.lengths() & 1,
        }
    }

    /// Whether an id without separators may begin with the first two bytes of this word.
    #[inline(always)]
    pub(super) fn begins_bare(&self, key: AnchorKey, word: u64) -> bool {
        let begins = &self.begins[usize::from(key.begin(word & 0xffff)) % BEGINS];
        begins.load(Ordering::Acquire) & BARE_BIT != 0
    }

    /// Whether anything of at least eight bytes may have been added that has this hash as a whole.
    #[inline(always)]
    pub(super) fn has_whole(&self, whole: u32) -> bool {
        self.wholes.has(u64::from(whole).wrapping_mul(SPREAD))
    }

    pub(super) fn has_digest(&self, hash: u128) -> bool {
        self.digests.has(hash as u64)
    }

    pub(super) fn add_digest(&self, hash: u128) {
        self.digests.add(hash as u64);
    }

    /// Whether there is room for so many keys and digests, for the filter to stay quick.
    pub(super) fn has_room(&self, keys: usize, digests: usize) -> bool {
        let room = |words: usize| words * KEYS_PER_CELL;
        keys <= room(self.cells.len()) && digests <= room(self.digests.words.len())
    }

    /// The bits of the lengths of all that was added in any cell.
    pub(super) fn lengths(&self) -> u64 {
        self.lengths.load(Ordering::Acquire)
    }

    /// The bits of the lengths of what may have been added with this hash; 0 for nothing.
    #[inline(always)]
    pub(super) fn get(&self, hash: u32) -> u64 {
        let spread = u64::from(hash).wrapping_mul(SPREAD);
        let bloom = bloom(spread);
        match self.cells.get((spread >> self.shift) as usize) {
            Some(cell) if cell.bloom.load(Ordering::Acquire) & bloom == bloom => cell.lengths.load(Ordering::Acquire),
            _ => 0,
        }
    }

    pub(super) fn add(&self, anchor: Anchor) {
        let short = (length_bit(anchor.length as usize) & 0x7f) as u8;
        if let Some(begins) = self.begins.get(usize::from(anchor.begin)).filter(|_| short != 0) {
            begins.fetch_or(short, Ordering::AcqRel);
        }
        if anchor.begin & BARE != 0 {
            self.begins[usize::from(anchor.begin) % BEGINS].fetch_or(BARE_BIT, Ordering::AcqRel);
        }
        if anchor.length >= ANCHOR as u32 {
            self.wholes.add(u64::from(anchor.whole).wrapping_mul(SPREAD));
        }
        let spread = u64::from(anchor.hash).wrapping_mul(SPREAD);
        let length = length_bit(anchor.length as usize);
        if let Some(cell) = self.cells.get((spread >> self.shift) as usize) {
            // The lengths first: whoever sees the Bloom bits sees them too.
            cell.lengths.fetch_or(length, Ordering::AcqRel);
            cell.bloom.fetch_or(bloom(spread), Ordering::AcqRel);
        }
        self.lengths.fetch_or(length, Ordering::AcqRel);
    }
}

/// A Bloom filter of spread hashes, each within one word; as many words as a filter has cells: 16 bits a key.
pub(super) struct Bloom {
    words: Box<[AtomicU64]>,
    shift: u32,
}

impl Bloom {
    /// `words` is a power of two, and at least 2.
    pub(super) fn new(words: usize) -> Self {
        Bloom {
            words: (0..words).map(|_| AtomicU64::new(0)).collect(),
            shift: 64 - words.trailing_zeros(),
        }
    }

    #[inline(always)]
    fn word(&self, spread: u64) -> Option<&AtomicU64> {
        self.words.get((spread >> self.shift) as usize)
    }

    #[inline(always)]
    pub(super) fn has(&self, spread: u64) -> bool {
        let bloom = bloom(spread);
        self.word(spread)
            .is_some_and(|word| word.load(Ordering::Acquire) & bloom == bloom)
    }

    pub(super) fn add(&self, spread: u64) {
        if let Some(word) = self.word(spread) {
            word.fetch_or(bloom(spread), Ordering::AcqRel);
        }
    }
}

/// Three bits, of others than those that choose the cell.
#[inline(always)]
fn bloom(spread: u64) -> u64 {
    1 << (spread >> 8 & 63) | 1 << (spread >> 15 & 63) | 1 << (spread >> 22 & 63)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_never_denied() {
        let key = AnchorKey::new(b"0123456789abcdef");
        let filter = Filter::new(10_000, 0);
        let text = |n: u32| format!("{n:x}{}", "-".repeat(n as usize % 80)).into_bytes();
        let anchor = |n: u32| key.of(&text(n));
        let has = |filter: &Filter, anchor: Anchor| {
            filter.get(anchor.hash) & length_bit(anchor.length as usize) != 0
                && (anchor.length < 8 || filter.has_whole(anchor.whole))
        };
        for n in 0..10_000 {
            filter.add(anchor(n).unwrap_or_default());
        }
        assert!((0..10_000).all(|n| anchor(n).is_some_and(|anchor| has(&filter, anchor))));
        let passed = (20_000..40_000).filter(|n| anchor(*n).is_some_and(|anchor| has(&filter, anchor)));
        assert!(passed.count() < 2_000);
        assert_eq!(key.of(b""), None);
        assert_ne!(key.of(b"ab"), key.of(b"ab\0"));
    }
}
