//! A quick no: whether anything registered could begin with what is looked up, and how long it is.
//!
//! Words of 64 bits, each a small Bloom filter, and beside each the lengths of all that fell into it. What was
//! added is never denied; what was taken away is, once the index builds a new filter.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use super::anchor::{ANCHOR, Anchor, AnchorKey, BARE, BEGINS, bloom, length_bit};
use super::arena;
use super::classify::{in_large_pages, prefetch};

/// Keys that share a word when the filter is full: 16 bits each.
const KEYS_PER_WORD: usize = 4;
/// Fewest words; a power of two.
const WORDS: usize = 1 << 10;
/// The bit that stands for ids without separators; the others are those of short lengths.
pub(super) const BARE_BIT: u8 = 0x80;

pub(super) struct Filter {
    anchors: Bloom,
    /// The bits of the lengths of what is in the words of `anchors`.
    lengths_of: Box<[AtomicU64]>,
    /// The bits of the lengths of short keys by their first two bytes: small enough to stay near
    /// the processor, and enough for most words.
    begins: Arc<[AtomicU8; BEGINS]>,
    /// The whole of all long keys: what begins like one is seldom one.
    wholes: Bloom,
    /// All lengths there are.
    lengths: AtomicU64,
}

/// A filter as the innermost loop holds it.
#[derive(Clone, Copy)]
pub(super) struct Probe<'f> {
    words: &'f [AtomicU64],
    shift: u32,
    begins: &'f [AtomicU8; BEGINS],
    /// Whether there are keys of one byte.
    ones: u8,
}

impl Probe<'_> {
    /// The word in which are all the [`bloom`] bits of this hash, if anything was added that has it. Who goes by the answer
    /// needs a fence.
    #[inline(always)]
    pub(super) fn cell(self, hash: u32) -> u64 {
        let word = self.words.get(place(hash, self.shift));
        word.map_or(0, |word| word.load(Ordering::Relaxed))
    }

    /// The bits of the lengths of short keys that begin so (see [`AnchorKey::begin`]). Who goes by the answer needs a fence.
    #[inline(always)]
    pub(super) fn begins(self, begin: u16) -> u8 {
        self.begins[usize::from(begin) % BEGINS].load(Ordering::Relaxed) | self.ones
    }
}

impl Filter {
    /// With room for so many keys.
    pub(super) fn new(keys: usize, begins: &Begins) -> Self {
        let words = (keys / KEYS_PER_WORD).next_power_of_two().clamp(WORDS, 1 << 31);
        Filter {
            anchors: Bloom::new(words),
            lengths_of: zeros(words),
            wholes: Bloom::new(words),
            begins: begins.bits.clone(),
            lengths: AtomicU64::new(0),
        }
    }

    /// What asks of many keys at once.
    pub(super) fn probe(&self) -> Probe<'_> {
        Probe {
            words: &self.anchors.words,
            shift: self.anchors.shift,
            begins: &self.begins,
            ones: (self.lengths() & 1) as u8,
        }
    }

    /// The bits of the lengths of short keys that begin with the first two bytes of this word, and [`BARE_BIT`] if ids
    /// without separators do.
    #[inline(always)]
    pub(super) fn begins(&self, key: AnchorKey, word: u64) -> u8 {
        let begins = self.begins[usize::from(key.begin(word)) % BEGINS].load(Ordering::Acquire);
        begins | (self.lengths() & 1) as u8
    }

    /// Whether there is room for so many keys, for the filter to stay quick.
    pub(super) fn has_room(&self, keys: usize) -> bool {
        keys <= self.lengths_of.len() * KEYS_PER_WORD
    }

    /// The bits of the lengths of all that was added.
    pub(super) fn lengths(&self) -> u64 {
        self.lengths.load(Ordering::Acquire)
    }

    /// Asks the processor for what [`get`](Self::get) looks at first.
    #[inline(always)]
    pub(super) fn prefetch_anchor(&self, hash: u32) {
        self.anchors.prefetch(hash);
    }

    /// Asks the processor for what [`get`](Self::get) looks at last.
    #[inline(always)]
    pub(super) fn prefetch_lengths(&self, hash: u32) {
        if let Some(lengths) = self.lengths_of.get(place(hash, self.anchors.shift)) {
            prefetch(lengths);
        }
    }

    /// The bits of the lengths of what may have been added with this hash; 0 for nothing.
    #[inline(always)]
    pub(super) fn get(&self, hash: u32) -> u64 {
        let lengths = self.lengths_of.get(place(hash, self.anchors.shift));
        match lengths.filter(|_| self.anchors.has(hash)) {
            Some(lengths) => lengths.load(Ordering::Acquire),
            None => 0,
        }
    }

    /// Asks the processor for what [`has_whole`](Self::has_whole) looks at.
    #[inline(always)]
    pub(super) fn prefetch_whole(&self, whole: u32) {
        self.wholes.prefetch(whole);
    }

    /// Whether anything of at least eight bytes may have been added that has this hash as a whole.
    #[inline(always)]
    pub(super) fn has_whole(&self, whole: u32) -> bool {
        self.wholes.has(whole)
    }

    /// Asks the processor for what [`add`](Self::add) changes.
    pub(super) fn prefetch(&self, anchor: Anchor) {
        self.anchors.prefetch(anchor.hash);
        self.prefetch_lengths(anchor.hash);
        self.wholes.prefetch(anchor.whole);
    }

    /// Only one may be at it. The beginning is counted in [`Begins`].
    pub(super) fn add(&self, anchor: Anchor) {
        let length = length_bit(anchor.length as usize);
        if anchor.length >= ANCHOR as u32 {
            self.wholes.add(anchor.whole);
        }
        // The lengths first: whoever sees the Bloom bits sees them too.
        if let Some(lengths) = self.lengths_of.get(place(anchor.hash, self.anchors.shift)) {
            set(lengths, length);
        }
        self.anchors.add(anchor.hash);
        set(&self.lengths, length);
    }
}

/// How many short keys and ids without separators have a beginning. Filters that follow each other share the bits.
pub(super) struct Begins {
    bits: Arc<[AtomicU8; BEGINS]>,
    /// One for each bit; what is as high as it goes stays.
    counts: Vec<[u8; 8]>,
}

impl Begins {
    pub(super) fn new() -> Self {
        Begins {
            bits: Arc::new([const { AtomicU8::new(0) }; BEGINS]),
            counts: vec![[0; 8]; BEGINS],
        }
    }

    pub(super) fn count(&mut self, anchor: Anchor, more: bool) {
        let bit = match anchor.begin & BARE {
            0 => (length_bit(anchor.length as usize) & 0x7f) as u8,
            _ => BARE_BIT,
        };
        let place = usize::from(anchor.begin) % BEGINS;
        let counts = self.counts.get_mut(place);
        let Some(count) = counts.and_then(|counts| counts.get_mut(bit.trailing_zeros() as usize)) else {
            return;
        };
        *count = match more {
            true => count.saturating_add(1),
            false if *count == u8::MAX => u8::MAX,
            false => count.saturating_sub(1),
        };
        match *count {
            0 => self.bits[place].fetch_and(!bit, Ordering::AcqRel),
            _ => self.bits[place].fetch_or(bit, Ordering::AcqRel),
        };
    }
}

/// A Bloom filter of hashes, each within one word.
struct Bloom {
    words: Box<[AtomicU64]>,
    shift: u32,
}

impl Bloom {
    /// `words` is a power of two, and at least 2.
    fn new(words: usize) -> Self {
        Bloom {
            words: zeros(words),
            shift: 32 - words.trailing_zeros(),
        }
    }

    #[inline(always)]
    fn prefetch(&self, hash: u32) {
        if let Some(word) = self.words.get(place(hash, self.shift)) {
            prefetch(word);
        }
    }

    #[inline(always)]
    fn has(&self, hash: u32) -> bool {
        let bits = bloom(hash);
        let word = self.words.get(place(hash, self.shift));
        word.is_some_and(|word| word.load(Ordering::Acquire) & bits == bits)
    }

    fn add(&self, hash: u32) {
        if let Some(word) = self.words.get(place(hash, self.shift)) {
            set(word, bloom(hash));
        }
    }
}

#[inline(always)]
fn place(hash: u32, shift: u32) -> usize {
    (hash >> (shift & 31)) as usize
}

fn set(word: &AtomicU64, bits: u64) {
    // One writes at a time.
    let set = word.load(Ordering::Relaxed);
    if set & bits != bits {
        word.store(set | bits, Ordering::Release);
    }
}

fn zeros(count: usize) -> Box<[AtomicU64]> {
    let mut words = arena::zeros(count);
    in_large_pages(&mut words);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_never_denied() {
        let key = AnchorKey::new(b"0123456789abcdef");
        let filter = Filter::new(10_000, &Begins::new());
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
