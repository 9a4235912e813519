//! A few blocks of a text as the sieve reads them: masks, folded bytes, and where words end.

use std::array;
use std::ops::Range;

use super::starts::SHORT;
use crate::detect::anchor::{AnchorKey, LONGEST};
use crate::detect::classify::{self, BLOCK, CHUNK, FOLDED, Job, Masks, Room, STARTS, Unit, accelerated, block_at};
use crate::detect::decode;
use crate::detect::filter::Probe;

/// Bytes of a chunk.
pub(super) const MOST: usize = CHUNK * BLOCK;

pub(super) struct Chunk {
    /// Where it begins.
    pub(super) base: usize,
    /// Blocks in it.
    pub(super) count: usize,
    /// With those of the block that follows.
    pub(super) masks: [Masks; CHUNK + 1],
    /// In small letters, with zeros behind the end.
    pub(super) folded: [u8; FOLDED],
    /// Where words end, or could.
    ends: [u64; CHUNK + 2],
    end_bytes: [u8; (CHUNK + 1) * 8],
    digits: [u64; CHUNK + 2],
}

impl Chunk {
    pub(super) fn new() -> Self {
        Chunk {
            base: 0,
            count: 0,
            masks: array::from_fn(|_| Masks::default()),
            folded: [0; FOLDED],
            ends: [0; CHUNK + 2],
            end_bytes: [0; (CHUNK + 1) * 8],
            digits: [0; CHUNK + 2],
        }
    }

    /// Forgets what was read.
    pub(super) fn wipe(&mut self) {
        self.folded.fill(0);
    }

    /// Of no text.
    pub(super) fn clear(&mut self) {
        self.count = 0;
    }

    /// Goes on with what begins at `base`, where the one before it ended; `false` at the end.
    #[inline(always)]
    pub(super) fn read(&mut self, unit: impl Unit, bytes: &[u8], base: usize) -> bool {
        let before = self.masks.get(self.count.wrapping_sub(1)).copied().unwrap_or_default();
        let rest = bytes.get(base..).unwrap_or_default();
        if rest.is_empty() {
            return false;
        }
        // The block that followed is the first one now.
        let goes_on = self.count == CHUNK;
        self.base = base;
        self.count = (rest.len() / BLOCK + 1).min(CHUNK);
        if goes_on {
            self.masks[0] = self.masks[CHUNK];
            self.folded.copy_within(MOST..MOST + BLOCK, 0);
        }
        let mut padded = [0; BLOCK];
        let folded = self.folded.as_chunks_mut().0.iter_mut();
        for (block, (masks, folded)) in self.masks.iter_mut().zip(folded).enumerate().take(self.count + 1) {
            if block > 0 || !goes_on {
                *masks = unit.read(block_at(rest, block * BLOCK, &mut padded), folded);
            }
        }
        let mut word = before.word >> 63;
        let mut high = before.high >> 63;
        for ((ends, digits), now) in self
            .ends
            .iter_mut()
            .zip(&mut self.digits)
            .zip(&self.masks)
            .take(self.count + 1)
        {
            *ends = !now.word & (now.word << 1 | word) | now.high | now.high << 1 | high;
            *digits = now.digit;
            (word, high) = (now.word >> 63, now.high >> 63);
        }
        for (bytes, ends) in self.end_bytes.as_chunks_mut().0.iter_mut().zip(&self.ends) {
            *bytes = ends.to_le_bytes();
        }
        true
    }

    /// The masks of a block and of the one after it.
    #[inline(always)]
    pub(super) fn pair(&self, block: usize) -> (&Masks, &Masks) {
        (&self.masks[block % CHUNK], &self.masks[block % CHUNK + 1])
    }

    /// The eight bytes at an offset, in small letters.
    #[inline(always)]
    pub(super) fn word(&self, offset: u16) -> u64 {
        classify::word(&self.folded, offset)
    }

    /// The bits of the lengths that a value could have that begins at an offset; always that of the longest.
    #[inline(always)]
    pub(super) fn ends(&self, offset: u16) -> u64 {
        bits(&self.ends, usize::from(offset) % MOST + 1) | 1 << (LONGEST - 1)
    }

    /// Where words end in a block and the one after it.
    #[inline(always)]
    pub(super) fn ends_from(&self, block: usize) -> (u64, u64) {
        (self.ends[block % CHUNK], self.ends[block % CHUNK + 1])
    }

    /// As [`ends`](Self::ends), of the lengths of short keys.
    #[inline(always)]
    pub(super) fn short_ends(&self, offset: u16) -> u8 {
        let from = usize::from(offset) % MOST + 1;
        let pair = self
            .end_bytes
            .get(from / 8..from / 8 + 2)
            .and_then(|pair| pair.first_chunk());
        (pair.map_or(0, |pair| u16::from_le_bytes(*pair)) >> (from % 8)) as u8 & SHORT as u8
    }

    /// Which bytes from an offset on are digits.
    #[inline(always)]
    pub(super) fn digits(&self, offset: u16) -> u64 {
        bits(&self.digits, usize::from(offset) % MOST)
    }

    /// Which bytes from an offset on are digits, or what may stand between two groups of them.
    #[inline(always)]
    pub(super) fn apart(&self, offset: u16) -> u64 {
        let offset = usize::from(offset) % MOST;
        let (now, next) = self.pair(offset / BLOCK);
        (pair_of(now.digit | now.apart, next.digit | next.apart) >> (offset % BLOCK)) as u64
    }

    /// Which bytes from an offset on may stand between two groups of an id.
    #[inline(always)]
    pub(super) fn joints(&self, offset: u16) -> u64 {
        let offset = usize::from(offset) % MOST;
        let (now, next) = self.pair(offset / BLOCK);
        (pair_of(now.joint, next.joint) >> (offset % BLOCK)) as u64
    }

    /// Which bytes from an offset on are letters or digits.
    #[inline(always)]
    pub(super) fn words(&self, offset: u16) -> u64 {
        let offset = usize::from(offset) % MOST;
        let (block, bit) = (offset / BLOCK, offset % BLOCK);
        (pair_of(self.masks[block].word, self.masks[block + 1].word) >> bit) as u64
    }

    #[inline(always)]
    pub(super) fn is_digit(&self, offset: u16) -> bool {
        let offset = usize::from(offset) % MOST;
        self.digits[offset / BLOCK] >> (offset % BLOCK) & 1 != 0
    }

    #[inline(always)]
    pub(super) fn at(&self, offset: u16) -> usize {
        self.base + usize::from(offset)
    }
}

/// 64 bits from one on.
#[inline(always)]
fn bits(words: &[u64; CHUNK + 2], from: usize) -> u64 {
    let (word, bit) = (from / BLOCK % (CHUNK + 1), from % BLOCK);
    words[word] >> bit | words[word + 1] << 1 << (BLOCK - 1 - bit)
}

/// Offsets in a chunk, none next to another.
pub(super) struct Offsets {
    room: Room,
    count: usize,
}

impl Offsets {
    pub(super) fn new() -> Self {
        Offsets {
            room: [0; STARTS + BLOCK],
            count: 0,
        }
    }

    /// Adds those of the bits of a block.
    #[inline(always)]
    pub(super) fn gather(&mut self, unit: impl Unit, block: usize, bits: u64) {
        self.count = unit.offsets(bits, (block * BLOCK) as u16, &mut self.room, self.count);
    }

    /// Those of some that are `wanted`.
    #[inline(always)]
    pub(super) fn choose(&mut self, of: &Offsets, wanted: impl Fn(u16) -> bool) {
        let mut count = 0;
        for offset in of.get() {
            self.room[count % STARTS] = *offset;
            count += usize::from(wanted(*offset));
        }
        self.count = count;
    }

    /// Those of some at which `filter` lets pass.
    #[inline(always)]
    pub(super) fn known(&mut self, unit: impl Unit, of: &Offsets, chunk: &Chunk, key: AnchorKey, probe: Probe<'_>) {
        let cell = |hash| probe.cell(hash);
        self.count = unit.known(&of.room, of.count, &chunk.folded, key, cell, &mut self.room);
    }

    #[inline(always)]
    pub(super) fn get(&self) -> &[u16] {
        self.room.get(..self.count).unwrap_or_default()
    }

    #[inline(always)]
    pub(super) fn clear(&mut self) {
        self.count = 0;
    }
}

/// The bytes from which on one of these is among fifteen: that far do eight letters with separators reach.
#[inline(always)]
pub(super) fn near(now: u64, next: u64) -> u64 {
    let mut bits = pair_of(now, next);
    for shift in [1, 2, 4, 7] {
        bits |= bits >> shift;
    }
    bits as u64
}

/// The bytes from which on one of these is among eight.
#[inline(always)]
pub(super) fn soon(now: u64, next: u64) -> u64 {
    let mut bits = pair_of(now, next);
    for shift in [1, 2, 4] {
        bits |= bits >> shift;
    }
    bits as u64
}

/// Runs of at least sixteen characters that base64 or hex could be written in, without padding.
pub(in crate::detect) fn runs(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    accelerated(RunsJob(bytes, &mut runs));
    runs
}

struct RunsJob<'j>(&'j [u8], &'j mut Vec<Range<usize>>);

impl Job for RunsJob<'_> {
    #[inline(always)]
    fn run(self, unit: impl Unit) {
        let RunsJob(bytes, runs) = self;
        let (mut padded, mut folded) = ([0; BLOCK], [0; BLOCK]);
        let mut read = |at| unit.read(block_at(bytes, at, &mut padded), &mut folded).run;
        let (mut before, mut now) = (0, read(0));
        for base in (0..bytes.len()).step_by(BLOCK) {
            let next = read(base + BLOCK);
            let mut starts = long(pair_of(now, next)) as u64 & !(now << 1 | before >> 63);
            (before, now) = (now, next);
            while starts != 0 {
                let start = base + starts.trailing_zeros() as usize;
                starts &= starts - 1;
                let rest = bytes.get(start..).unwrap_or_default();
                runs.push(start..start + rest.iter().take_while(|byte| decode::is_run(**byte)).count());
            }
        }
    }
}

#[inline(always)]
pub(super) fn pair_of(now: u64, next: u64) -> u128 {
    u128::from(now) | u128::from(next) << 64
}

/// Where sixteen bits that are set begin.
#[inline(always)]
pub(super) fn long(bits: u128) -> u128 {
    let mut bits = bits;
    for shift in [1, 2, 4, 8] {
        bits &= bits >> shift;
    }
    bits
}

/// Each bit: whether an odd number of bits up to and with it is set.
#[inline(always)]
pub(super) fn prefix_xor(bits: u64) -> u64 {
    let mut bits = bits;
    for shift in [1, 2, 4, 8, 16, 32] {
        bits ^= bits << shift;
    }
    bits
}

/// The bytes that a backslash before them escapes; `carry` says whether the first one is.
#[inline(always)]
pub(super) fn escaped(backslash: u64, carry: &mut u64) -> u64 {
    if backslash == 0 {
        return std::mem::take(carry);
    }
    const EVEN: u64 = 0x5555_5555_5555_5555;
    let backslash = backslash & !*carry;
    let follows = backslash << 1 | *carry;
    let odd_starts = backslash & !EVEN & !follows;
    let (even_runs, overflow) = odd_starts.overflowing_add(backslash);
    *carry = u64::from(overflow);
    (EVEN ^ (even_runs << 1)) & follows
}

#[inline(always)]
pub(super) fn byte_at(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}

/// The eight bytes at `at`, as far as there are.
#[inline(always)]
pub(super) fn word_at(bytes: &[u8], at: usize) -> u64 {
    let rest = bytes.get(at..).unwrap_or_default();
    match rest.first_chunk::<8>() {
        Some(word) => u64::from_le_bytes(*word),
        None => {
            let mut word = [0; 8];
            word.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            u64::from_le_bytes(word)
        }
    }
}
