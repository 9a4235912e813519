//! Starts of words at which something could be known: text, ids whatever separates them, and months.

use std::sync::atomic::{Ordering, fence};

use super::Sieve;
use super::chunk::{Chunk, MOST, Offsets, near, pair_of, soon, word_at};
use crate::detect::anchor::{ANCHOR, LONGEST, length_bit, lower, short};
use crate::detect::entry::{BARE, is_separator};
use crate::detect::filter::{BARE_BIT, bloom};
use crate::detect::words::Bare;

/// Lengths, as bits, of what is found only as a whole leaf, or if it is a number.
pub(super) const TINY: u64 = 0b11;
/// Lengths, as bits, that are hashed as a whole.
pub(super) const SHORT: u64 = 0x7f;

/// Where the words of a chunk begin that are to be looked at.
pub(super) struct Starts {
    words: Offsets,
    ids: Offsets,
    months: Offsets,
    /// What is asked about each of `words`, step by step.
    first: [u64; MOST],
    bits: [u64; MOST],
    hashes: [u32; MOST],
    begins: [u16; MOST],
    shorts: [u8; MOST],
    survivors: Offsets,
    doubts: Doubts,
}

impl Starts {
    pub(super) fn new() -> Self {
        Starts {
            words: Offsets::new(),
            ids: Offsets::new(),
            months: Offsets::new(),
            first: [0; MOST],
            bits: [0; MOST],
            hashes: [0; MOST],
            begins: [0; MOST],
            shorts: [0; MOST],
            survivors: Offsets::new(),
            doubts: Doubts {
                all: [(0, 0, 0); DOUBTS],
                count: 0,
            },
        }
    }
}

const DOUBTS: usize = 128;

/// Offsets and lengths of what begins like something known, with the hash of all of it.
struct Doubts {
    all: [(u16, u8, u32); DOUBTS],
    count: usize,
}

impl Sieve<'_> {
    /// Gathers the starts of a block.
    #[inline(always)]
    pub(super) fn gather(&self, chunk: &Chunk, block: usize, starts: u64, into: &mut Starts) {
        into.words.gather(block, starts);
        if !self.ids && !self.dates {
            return;
        }
        let (now, next) = chunk.pair(block);
        let near = starts & near(now.digit, next.digit);
        if self.dates {
            into.months.gather(block, near & !now.digit);
        }
        if self.ids {
            // Eight letters or digits, with no more than one separator between two of them.
            let word = pair_of(now.word, next.word);
            let stop = !word & !(pair_of(now.joint, next.joint) & word >> 1);
            into.ids.gather(block, near & !soon(stop as u64, (stop >> 64) as u64));
        }
    }

    /// Passes on the starts of words at which something could be known, with whether it is a digit, and the bits of
    /// the lengths that it could have: what was gathered is looked at in steps, so that memory is waited for once.
    #[inline(always)]
    pub(super) fn begin(
        &self,
        bytes: &[u8],
        chunk: &Chunk,
        starts: &mut Starts,
        mut pass: impl FnMut(usize, bool, u64),
    ) {
        let key = self.key;
        let words = starts.words.get();
        if words.is_empty() {
            return;
        }
        for ((offset, first), shorts) in words.iter().zip(&mut starts.first).zip(&mut starts.shorts) {
            *first = chunk.word(*offset);
            *shorts = chunk.short_ends(*offset);
        }
        // Apart from what is loaded and stored one by one: this is for vectors.
        let hashed = starts.hashes.iter_mut().zip(&mut starts.begins).zip(&mut starts.bits);
        for (((hash, begin), bits), first) in hashed.zip(&starts.first).take(words.len()) {
            *hash = key.hash(*first);
            *begin = key.begin(*first);
            *bits = bloom(*hash);
        }
        let probe = self.filter.probe();
        let Starts {
            hashes,
            bits,
            begins,
            shorts,
            ..
        } = starts;
        starts.survivors.choose(words.len(), |place| {
            probe.passes(hashes[place], bits[place], begins[place], shorts[place])
        });
        fence(Ordering::Acquire);
        for place in starts.survivors.get() {
            self.filter.prefetch_lengths(starts.hashes[usize::from(*place) % MOST]);
        }
        for place in starts.survivors.get() {
            let place = usize::from(*place) % MOST;
            let offset = words.get(place).copied().unwrap_or_default();
            let found = self.found(bytes, chunk, offset, starts.hashes[place], &mut starts.doubts);
            if found != 0 {
                pass(chunk.at(offset), chunk.is_digit(offset), found);
            }
            if starts.doubts.count > DOUBTS - LONGEST {
                self.settle(chunk, &mut starts.doubts, &mut pass);
            }
        }
        self.settle(chunk, &mut starts.doubts, &mut pass);
        starts.words.clear();
        for offset in starts.ids.get() {
            if self.begins_bare(chunk.word(*offset)) && self.bare_id(bytes, chunk, *offset) {
                pass(chunk.at(*offset), chunk.is_digit(*offset), !SHORT);
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

    /// The bits of the lengths, among those that end with a word, of what is likely to be known that begins at an offset;
    /// what hangs on a look at the whole of it is left to [`settle`](Self::settle).
    #[inline(always)]
    fn found(&self, bytes: &[u8], chunk: &Chunk, offset: u16, hash: u32, doubts: &mut Doubts) -> u64 {
        let mut found = 0;
        let word = chunk.word(offset);
        let ends = chunk.ends(offset);
        let mut lengths = u64::from(self.filter.begins(self.key, word)) & ends & SHORT;
        while lengths != 0 {
            let bit = lengths & lengths.wrapping_neg();
            let length = bit.trailing_zeros() as usize + 1;
            lengths ^= bit;
            found |= self.filter.get(self.key.hash(short(word, length))) & bit;
        }
        let mut lengths = self.filter.get(hash) & ends & !SHORT;
        // Of the longest nobody knows how long they are.
        found |= lengths & length_bit(LONGEST);
        lengths &= !length_bit(LONGEST);
        let at = chunk.at(offset);
        while lengths != 0 {
            let length = lengths.trailing_zeros() as usize + 1;
            lengths &= lengths - 1;
            if let Some(text) = bytes.get(at..at + length) {
                let whole = self.key.whole(text);
                self.filter.prefetch_whole(whole);
                doubts.all[doubts.count % DOUBTS] = (offset, length as u8, whole);
                doubts.count += 1;
            }
        }
        found
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

    /// Whether an id begins with the first two letters or digits of this folded word.
    #[inline(always)]
    fn begins_bare(&self, word: u64) -> bool {
        let second = (word >> 8) as u8;
        let second = if second.is_ascii_alphanumeric() {
            second
        } else {
            (word >> 16) as u8
        };
        self.filter.begins(self.key, word & 0xff | u64::from(second) << 8) & BARE_BIT != 0
    }

    /// Whether an id could begin here, with or without separators.
    #[inline(never)]
    fn bare_id(&self, bytes: &[u8], chunk: &Chunk, offset: u16) -> bool {
        // Its first eight letters and digits, between which single separators may stand.
        let words = chunk.words(offset);
        let mut first = chunk.word(offset);
        let mut end = words.trailing_ones();
        let mut count = end;
        while count < ANCHOR as u32 {
            let separator = chunk.word(offset + end as u16) as u8;
            let more = (words >> 1 >> end).trailing_ones();
            if more == 0 || !(is_separator(separator) || separator == b'+') {
                return false;
            }
            let after = chunk.word(offset + end as u16 + 1);
            first = first & !(!0 << (8 * count)) | after << (8 * count);
            count += more;
            end += 1 + more;
        }
        if chunk.digits(offset) & !(!0 << end.min(63)) == 0 {
            return false;
        }
        match self.filter.get(self.key.hash(first)) & !SHORT {
            0 => false,
            lengths => self.whole_id(bytes.get(chunk.at(offset)..).unwrap_or_default(), lengths),
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
