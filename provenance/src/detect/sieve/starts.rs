//! Starts of words at which something could be known: text, ids whatever separates them, and months.

use std::sync::atomic::{Ordering, fence};

use super::Sieve;
use super::chunk::{Chunk, Offsets, near, pair_of, soon, word_at};
use crate::detect::anchor::{ANCHOR, LONGEST, length_bit, lower, short};
use crate::detect::classify::{BLOCK, Unit};
use crate::detect::entry::BARE;
use crate::detect::filter::BARE_BIT;
use crate::detect::words::Bare;

/// Lengths, as bits, of what is found only as a whole leaf, or if it is a number.
pub(super) const TINY: u64 = 0b11;
/// Lengths, as bits, that are hashed as a whole.
pub(super) const SHORT: u64 = 0x7f;

/// Where the words of a chunk begin that are to be looked at.
pub(super) struct Starts {
    words: Offsets,
    /// Those from which on a word ends where a short key does.
    shorts: Offsets,
    ids: Offsets,
    months: Offsets,
    survivors: Offsets,
    doubts: Doubts,
}

impl Starts {
    pub(super) fn new() -> Self {
        Starts {
            words: Offsets::new(),
            shorts: Offsets::new(),
            ids: Offsets::new(),
            months: Offsets::new(),
            survivors: Offsets::new(),
            doubts: Doubts {
                all: [(0, 0, 0); DOUBTS],
                count: 0,
            },
        }
    }
}

const DOUBTS: usize = 128;
/// Ids that are fetched together.
const IDS: usize = 32;

/// Offsets and lengths of what begins like something known, with the hash of all of it.
struct Doubts {
    all: [(u16, u8, u32); DOUBTS],
    count: usize,
}

impl Sieve<'_> {
    /// Gathers the starts of a block. At those that are `cramped` nothing of eight bytes or more can begin.
    #[inline(always)]
    pub(super) fn gather(
        &self,
        unit: impl Unit,
        chunk: &Chunk,
        block: usize,
        starts: u64,
        cramped: u64,
        into: &mut Starts,
    ) {
        into.words.gather(unit, block, starts & !cramped);
        if self.lengths & SHORT != 0 {
            let (now, next) = chunk.ends_from(block);
            let mut ending = 0;
            let mut lengths = self.lengths & SHORT;
            while lengths != 0 {
                let length = lengths.trailing_zeros() + 1;
                lengths &= lengths - 1;
                ending |= now >> length | next << (BLOCK as u32 - length);
            }
            into.shorts.gather(unit, block, starts & ending);
        }
        if !self.ids && !self.dates {
            return;
        }
        let (now, next) = chunk.pair(block);
        let near = starts & near(now.digit, next.digit);
        if self.dates {
            into.months.gather(unit, block, near & !now.digit);
        }
        if self.ids {
            // Eight letters or digits, with no more than one separator between two of them.
            let word = pair_of(now.word, next.word);
            let stop = !word & !(pair_of(now.joint, next.joint) & word >> 1);
            // What has no separator among the first eight begins as other text does.
            let mut whole = word;
            for shift in [1, 2, 4] {
                whole &= whole >> shift;
            }
            // With a separator, eight take nine bytes.
            let stops = soon(stop as u64, (stop >> 64) as u64) | (stop >> ANCHOR) as u64;
            into.ids.gather(unit, block, near & !(whole as u64) & !stops);
        }
    }

    /// Passes on the starts of words at which something could be known, with whether it is a digit, and the bits of
    /// the lengths that it could have: what was gathered is looked at in steps, so that memory is waited for once.
    #[inline(always)]
    pub(super) fn begin(
        &self,
        unit: impl Unit,
        bytes: &[u8],
        chunk: &Chunk,
        starts: &mut Starts,
        mut pass: impl FnMut(usize, bool, u64),
    ) {
        let Starts {
            words,
            shorts,
            survivors,
            doubts,
            ..
        } = starts;
        let (key, probe) = (self.key, self.filter.probe());
        survivors.known(unit, words, chunk, key, probe);
        fence(Ordering::Acquire);
        for offset in survivors.get() {
            self.filter.prefetch_lengths(key.hash(chunk.word(*offset)));
        }
        for offset in survivors.get() {
            if self.long(bytes, chunk, *offset, doubts) || self.ids && self.id(unit, bytes, chunk, *offset) {
                pass(chunk.at(*offset), chunk.is_digit(*offset), length_bit(LONGEST));
            }
            if doubts.count > DOUBTS - LONGEST {
                self.settle(chunk, doubts, &mut pass);
            }
        }
        self.settle(chunk, doubts, &mut pass);
        if !shorts.get().is_empty() {
            survivors.choose(shorts, |offset| {
                probe.begins(key.begin(chunk.word(offset))) & chunk.short_ends(offset) != 0
            });
            fence(Ordering::Acquire);
            for offset in survivors.get() {
                let found = self.short(chunk, *offset);
                if found != 0 {
                    pass(chunk.at(*offset), chunk.is_digit(*offset), found);
                }
            }
        }
        words.clear();
        shorts.clear();
        // Those that may begin an id are fetched before any is looked at.
        for offsets in starts.ids.get().chunks(IDS) {
            let (mut likely, mut count) = ([(0, 0); IDS], 0);
            for offset in offsets {
                if let Some(hash) = self.begins_id(unit, chunk, *offset) {
                    self.filter.prefetch_anchor(hash);
                    likely[count % IDS] = (*offset, hash);
                    count += 1;
                }
            }
            for (offset, hash) in likely.iter().take(count) {
                if self.is_id(bytes, chunk.at(*offset), *hash) {
                    pass(chunk.at(*offset), chunk.is_digit(*offset), !SHORT);
                }
            }
        }
        starts.ids.clear();
    }

    /// Passes on the starts of words that are months with digits after them.
    #[inline(always)]
    pub(super) fn months(&self, bytes: &[u8], chunk: &Chunk, starts: &mut Starts, mut pass: impl FnMut(usize)) {
        for offset in starts.months.get() {
            if is_month(chunk.word(*offset)) && month_first(bytes, chunk.at(*offset)) {
                pass(chunk.at(*offset));
            }
        }
        starts.months.clear();
    }

    /// The bits of the lengths, among those that end with a word, of the short keys that are likely to begin at an offset.
    #[inline(always)]
    fn short(&self, chunk: &Chunk, offset: u16) -> u64 {
        let mut found = 0;
        let word = chunk.word(offset);
        let mut lengths = u64::from(self.filter.begins(self.key, word)) & chunk.ends(offset) & SHORT;
        while lengths != 0 {
            let bit = lengths & lengths.wrapping_neg();
            let length = bit.trailing_zeros() as usize + 1;
            lengths ^= bit;
            found |= self.filter.get(self.key.hash(short(word, length))) & bit;
        }
        found
    }

    /// Whether something that long begins at an offset that nobody knows how long it is; what hangs on a look at the whole of
    /// it is left to [`settle`](Self::settle).
    #[inline(always)]
    fn long(&self, bytes: &[u8], chunk: &Chunk, offset: u16, doubts: &mut Doubts) -> bool {
        let known = self.filter.get(self.key.hash(chunk.word(offset))) & chunk.ends(offset) & !SHORT;
        let mut lengths = known & !length_bit(LONGEST);
        let at = chunk.at(offset);
        while lengths != 0 {
            let length = lengths.trailing_zeros() as usize + 1;
            lengths &= lengths - 1;
            if at + length <= bytes.len() {
                let whole = self.key.whole_of(length, |at| chunk.word(offset + at as u16));
                self.filter.prefetch_whole(whole);
                doubts.all[doubts.count % DOUBTS] = (offset, length as u8, whole);
                doubts.count += 1;
            }
        }
        known & length_bit(LONGEST) != 0
    }

    /// Passes on those of which all is likely to be known.
    #[inline(always)]
    fn settle(&self, chunk: &Chunk, doubts: &mut Doubts, pass: &mut impl FnMut(usize, bool, u64)) {
        for (offset, length, whole) in doubts.all.iter().take(doubts.count) {
            if self.filter.has_whole(*whole) {
                pass(
                    chunk.at(*offset),
                    chunk.is_digit(*offset),
                    length_bit(usize::from(*length)),
                );
            }
        }
        doubts.count = 0;
    }

    /// Whether something could be known that begins here, with spaces for pluses.
    #[inline(never)]
    pub(super) fn starts_spaced(&self, chunk: &Chunk, offset: u16) -> bool {
        let word = chunk.word(offset);
        let spaced = word.to_le_bytes().map(|byte| if byte == b'+' { b' ' } else { byte });
        let spaced = u64::from_le_bytes(spaced);
        let ends = chunk.ends(offset);
        let begins = || u64::from(self.filter.begins(self.key, spaced)) & ends & SHORT;
        spaced != word && (self.filter.get(self.key.hash(spaced)) & ends & !SHORT != 0 || begins() != 0)
    }

    /// Whether an id could begin here, with or without separators.
    #[inline(always)]
    fn id(&self, unit: impl Unit, bytes: &[u8], chunk: &Chunk, offset: u16) -> bool {
        let hash = self.begins_id(unit, chunk, offset);
        hash.is_some_and(|hash| self.is_id(bytes, chunk.at(offset), hash))
    }

    /// The hash of the first eight letters and digits, between which single separators may stand, if an id begins with the
    /// first two of them, and one of them is a digit.
    #[inline(always)]
    fn begins_id(&self, unit: impl Unit, chunk: &Chunk, offset: u16) -> Option<u32> {
        let words = chunk.words(offset);
        let sixteen = u128::from(chunk.word(offset)) | u128::from(chunk.word(offset + 8)) << 64;
        let (chosen, first) = unit.eight(words as u16, sixteen);
        let chosen = u64::from(chosen);
        let gaps = !words & (!0_u64).checked_shr(chosen.leading_zeros()).unwrap_or(0);
        let separate = gaps & (gaps >> 1 | !chunk.joints(offset)) == 0;
        let digit = chosen & chunk.digits(offset) != 0;
        let begins = self.filter.begins(self.key, first) & BARE_BIT != 0;
        (separate & digit & begins & (chosen.count_ones() == ANCHOR as u32)).then(|| self.key.hash(first))
    }

    #[inline(always)]
    fn is_id(&self, bytes: &[u8], at: usize, hash: u32) -> bool {
        match self.filter.get(hash) & !SHORT {
            0 => false,
            lengths => self.whole_id(bytes.get(at..).unwrap_or_default(), lengths),
        }
    }

    /// Whether letters and digits of one of these lengths could be an id as a whole.
    fn whole_id(&self, rest: &[u8], lengths: u64) -> bool {
        let mut id = [0; *BARE.end()];
        let mut count = 0;
        // In forms, spaces are written as pluses.
        let spaced = rest.iter().map(|byte| if *byte == b'+' { &b' ' } else { byte });
        for (offset, byte) in Bare(spaced.enumerate()) {
            let Some(slot) = id.get_mut(count) else { break };
            *slot = byte.to_ascii_lowercase();
            count += 1;
            let known = count >= ANCHOR && lengths & length_bit(count) != 0;
            let ends = || !rest.get(offset + 1).is_some_and(u8::is_ascii_alphanumeric);
            if known && ends() && self.has_whole(id.get(..count).unwrap_or_default()) {
                return true;
            }
        }
        false
    }
}

/// Whether digits follow the name of a month soon.
fn month_first(bytes: &[u8], at: usize) -> bool {
    let rest = bytes.get(at..).unwrap_or_default();
    let name = rest
        .iter()
        .take(10)
        .take_while(|byte| byte.is_ascii_alphabetic())
        .count();
    let gap = rest.get(name..).unwrap_or_default();
    gap.iter()
        .take(3)
        .find(|byte| !matches!(byte, b' ' | b'+' | b',' | b'.' | b'-'))
        .is_some_and(u8::is_ascii_digit)
}

pub(super) fn month(bytes: &[u8], at: usize) -> bool {
    is_month(lower(word_at(bytes, at)))
}

/// Whether a folded word begins as a month's name.
#[inline(always)]
fn is_month(word: u64) -> bool {
    let letters = word as u32 & 0xff_ffff;
    MONTHS[(letters.wrapping_mul(MONTHS_BY) >> 28) as usize] == letters
}

/// The first letters of the months, where a multiplication puts them.
const MONTHS: [u32; 16] = {
    let names = [
        b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec",
    ];
    let mut months = [0; 16];
    let mut n = 0;
    while n < names.len() {
        let letters = u32::from_le_bytes([names[n][0], names[n][1], names[n][2], 0]);
        let place = (letters.wrapping_mul(MONTHS_BY) >> 28) as usize;
        assert!(months[place] == 0);
        months[place] = letters;
        n += 1;
    }
    months
};
const MONTHS_BY: u32 = 0x3b6f_e507;
