//! Bytes into bit masks, 64 at a time: what the sieve reads instead of bytes; and what else processors do quickly, each
//! in its own way.
//!
//! The one place with `unsafe`: a vector unit is used where the processor has it. All paths give the same.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

use super::anchor::{AnchorKey, bloom};
use super::decode;
use super::entry::is_separator;

/// One bit for each of 64 bytes; the lowest is the first byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Masks {
    /// ASCII letters and digits.
    pub(super) word: u64,
    /// ASCII digits.
    pub(super) digit: u64,
    /// What may stand between two groups of a phone's digits.
    pub(super) apart: u64,
    /// Not ASCII.
    pub(super) high: u64,
    pub(super) quote: u64,
    pub(super) backslash: u64,
    /// `{}[]:,`
    pub(super) structure: u64,
    /// `{[`
    pub(super) open: u64,
    /// `}]`
    pub(super) close: u64,
    /// What base64, hex and their URL-safe kin are written in.
    pub(super) run: u64,
    /// `0`
    pub(super) zero: u64,
    /// `%&=`
    pub(super) mark: u64,
    /// `+`
    pub(super) plus: u64,
    /// `.`
    pub(super) dot: u64,
    pub(super) space: u64,
    /// What may stand between two groups of an id, and the plus that forms write for a space.
    pub(super) joint: u64,
    /// Below the space.
    pub(super) control: u64,
}

/// What a byte is, a bit for each of the first sixteen masks in their order but `high`.
const CLASSES: [u16; 256] = {
    let mut classes = [0; 256];
    let mut n = 0;
    while n < 256 {
        let byte = n as u8;
        let word = byte.is_ascii_alphanumeric();
        let bits = [
            word,
            byte.is_ascii_digit(),
            matches!(byte, b' ' | b'-' | b'.' | b'(' | b')' | b'/' | b'+'),
            byte == b'"',
            byte == b'\\',
            matches!(byte, b'{' | b'}' | b'[' | b']' | b':' | b','),
            matches!(byte, b'{' | b'['),
            matches!(byte, b'}' | b']'),
            word || matches!(byte, b'+' | b'/' | b'-' | b'_'),
            byte == b'0',
            matches!(byte, b'%' | b'&' | b'='),
            byte == b'+',
            byte == b'.',
            byte == b' ',
            is_separator(byte) || byte == b'+',
            byte < b' ',
        ];
        let mut bit = 0;
        while bit < bits.len() {
            classes[n] |= (bits[bit] as u16) << bit;
            bit += 1;
        }
        n += 1;
    }
    classes
};

impl Masks {
    /// From the bytes that are not ASCII, and a mask for each bit of [`CLASSES`].
    #[inline(always)]
    fn of(high: u64, class: impl Fn(u32) -> u64) -> Self {
        Masks {
            word: class(0),
            digit: class(1),
            apart: class(2),
            high,
            quote: class(3),
            backslash: class(4),
            structure: class(5),
            open: class(6),
            close: class(7),
            run: class(8),
            zero: class(9),
            mark: class(10),
            plus: class(11),
            dot: class(12),
            space: class(13),
            joint: class(14),
            control: class(15),
        }
    }
}

/// What a processor may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
#[allow(dead_code, reason = "tests and benchmarks choose")]
pub(super) enum Level {
    Scalar,
    Avx2,
    Best,
}

#[cfg(test)]
thread_local! {
    /// The most that is made use of: tests and benchmarks look at less.
    static FORCED: std::cell::Cell<Level> = const { std::cell::Cell::new(Level::Best) };
}

#[cfg(test)]
pub(super) fn force(level: Level) {
    FORCED.set(level);
}

#[inline(always)]
fn allowed(level: Level) -> bool {
    #[cfg(test)]
    return level <= FORCED.get();
    #[cfg(not(test))]
    {
        let _ = level;
        true
    }
}

/// Bytes of a block.
pub(super) const BLOCK: usize = 64;
/// Blocks that are looked at together.
pub(super) const CHUNK: usize = 32;
/// Most starts of anything in a chunk: no two of them stand side by side.
pub(super) const STARTS: usize = CHUNK * BLOCK / 2;
/// Folded bytes of a chunk: with the block that follows, and with zeros, so that words may be read at its end.
pub(super) const FOLDED: usize = (CHUNK + 1) * BLOCK + BLOCK;

/// Offsets in a chunk; behind their number there is room to write over.
pub(super) type Room = [u16; STARTS + BLOCK];

/// What one processor does quicker than another. The provided methods are what all must agree with.
pub(super) trait Unit: Copy {
    /// The masks of a block; its bytes in small letters go to `folded`.
    #[inline(always)]
    fn read(self, block: &[u8; BLOCK], folded: &mut [u8; BLOCK]) -> Masks {
        let mut masks = [0; 16];
        let mut high = 0;
        for (at, (byte, folded)) in block.iter().zip(folded).enumerate() {
            let class = u64::from(CLASSES[usize::from(*byte)]);
            for (bit, mask) in masks.iter_mut().enumerate() {
                *mask |= (class >> bit & 1) << at;
            }
            high |= u64::from(!byte.is_ascii()) << at;
            *folded = byte.to_ascii_lowercase();
        }
        Masks::of(high, |class| masks[class as usize % 16])
    }

    /// Writes `base` with the place of each bit that is set behind the first `count` of `room`, and gives how many there are
    /// then. No two bits stand side by side.
    #[inline(always)]
    fn offsets(self, bits: u64, base: u16, room: &mut Room, count: usize) -> usize {
        let mut rest = bits;
        let mut place = count;
        while rest != 0 {
            // Four at a time, as their number is hard to foretell; what is too much is written over.
            for _ in 0..4 {
                room[place % room.len()] = base + rest.trailing_zeros() as u16;
                rest &= rest.wrapping_sub(1);
                place += 1;
            }
        }
        count + bits.count_ones() as usize
    }

    /// Of the first `count` offsets, those at whose eight folded bytes something known could begin, to `room`; gives how
    /// many. `cell` is the word of a Bloom filter for a hash (see [`bloom`]).
    #[inline(always)]
    fn known(
        self,
        offsets: &Room,
        count: usize,
        folded: &[u8; FOLDED],
        key: AnchorKey,
        cell: impl Fn(u32) -> u64,
        room: &mut Room,
    ) -> usize {
        let mut known = 0;
        let count = count.min(STARTS);
        let eights = offsets.as_chunks::<8>().0.iter().zip((0..count).step_by(8));
        for (eight, from) in eights {
            let words = eight.map(|offset| word(folded, offset));
            // For vectors of whatever width there is.
            let hashes = words.map(|word| key.hash(word));
            let bits = hashes.map(bloom);
            for (lane, (offset, hash)) in eight.iter().zip(hashes).enumerate() {
                room[known % room.len()] = *offset;
                // Some of the last eight may be behind the last offset.
                known += usize::from(cell(hash) & bits[lane] == bits[lane] && from + lane < count);
            }
        }
        known
    }

    /// The bits of `starts` whose number is that of a bit of `ends` that is in `of` too.
    #[inline(always)]
    fn back(self, of: u64, ends: u64, starts: u64) -> u64 {
        let (mut ends, mut starts, mut back) = (ends, starts, 0);
        while ends != 0 && starts != 0 {
            if of >> ends.trailing_zeros() & 1 != 0 {
                back |= starts & starts.wrapping_neg();
            }
            ends &= ends - 1;
            starts &= starts - 1;
        }
        back
    }

    /// The first eight of these bits, or as many as there are, and the bytes in their places side by side.
    #[inline(always)]
    fn eight(self, bits: u16, bytes: u128) -> (u16, u64) {
        let (mut rest, mut eight) = (bits, 0);
        for place in 0..8 {
            if rest != 0 {
                eight |= u64::from((bytes >> (8 * rest.trailing_zeros())) as u8) << (8 * place);
                rest &= rest - 1;
            }
        }
        (bits & !rest, eight)
    }

    /// As [`decode::could_be_text`].
    #[inline(always)]
    fn could_be_text(self, run: &[u8]) -> bool {
        decode::could_be_text(run)
    }
}

/// The eight bytes at an offset.
#[inline(always)]
pub(super) fn word(folded: &[u8; FOLDED], offset: u16) -> u64 {
    let offset = usize::from(offset).min(FOLDED - 8);
    let bytes = folded.get(offset..).and_then(|bytes| bytes.first_chunk());
    bytes.map_or(0, |word| u64::from_le_bytes(*word))
}

/// What every processor can do.
#[derive(Clone, Copy)]
pub(super) struct Plain;

impl Unit for Plain {}

/// Work that is compiled for each unit.
pub(super) trait Job {
    /// Must be `inline(always)`, to gain anything.
    fn run(self, unit: impl Unit);
}

/// Does the work with the instructions that the processor has.
pub(super) fn accelerated(job: impl Job) {
    #[cfg(target_arch = "x86_64")]
    {
        if allowed(Level::Best) && avx512::is_there() {
            // SAFETY: the processor has all of them, as was just asked.
            unsafe { avx512::run(job) };
            return;
        }
        if allowed(Level::Avx2) && avx2::is_there() {
            // SAFETY: the processor has all of them, as was just asked.
            unsafe { avx2::run(job) };
            return;
        }
    }
    job.run(Plain);
}

/// Asks the processor for what will be looked at soon.
#[inline(always)]
pub(super) fn prefetch<T>(wanted: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing, and the address is that of something that lives.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(wanted).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = wanted;
}

/// Asks for large pages for what nobody has written to yet.
pub(super) fn in_large_pages<T>(room: &mut [T]) {
    #[cfg(target_os = "linux")]
    {
        const PAGE: usize = 1 << 21;
        let (first, bytes) = (room.as_mut_ptr().cast::<u8>(), size_of_val(room));
        let before = first.align_offset(PAGE);
        if let Some(within) = bytes
            .checked_sub(before)
            .map(|within| within & !(PAGE - 1))
            .filter(|within| *within > 0)
        {
            use rustix::mm::{Advice, madvise};
            // SAFETY: whole pages within an allocation that nobody else has; the advice does not change what is in them.
            // Where it is not taken, pages are small.
            let _ = unsafe { madvise(first.add(before).cast(), within, Advice::LinuxHugepage) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = room;
}

/// The block at `at`, in `padded` with zeros for what lies beyond the end.
#[inline(always)]
pub(super) fn block_at<'b>(bytes: &'b [u8], at: usize, padded: &'b mut [u8; BLOCK]) -> &'b [u8; BLOCK] {
    let rest = bytes.get(at..).unwrap_or_default();
    match rest.first_chunk() {
        Some(block) => block,
        None => {
            *padded = [0; BLOCK];
            padded.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            padded
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::arbitrary::any;
    use proptest::collection::vec;
    use proptest::strategy::Strategy;

    use super::*;

    /// What a unit makes of bytes, and of bits of which no two stand side by side.
    struct All<'a>(&'a [u8], u64, &'a mut Vec<u64>);

    impl Job for All<'_> {
        #[inline(always)]
        fn run(self, unit: impl Unit) {
            let All(bytes, bits, out) = self;
            let mut folded = [0; FOLDED];
            for (block, folded) in folded.as_chunks_mut().0.iter_mut().enumerate() {
                let masks = unit.read(block_at(bytes, block * BLOCK, &mut [0; BLOCK]), folded);
                out.extend(CLASSED.map(|class| class(&masks)));
            }
            out.extend(folded.map(u64::from));
            let mut room = [0; STARTS + BLOCK];
            let count = unit.offsets(bits, 0, &mut room, 0);
            let count = unit.offsets(bits.rotate_left(9) & !(bits.rotate_left(10)), 448, &mut room, count);
            out.extend(room.iter().take(count).map(|offset| u64::from(*offset)));
            let key = AnchorKey::new(b"0123456789abcdef");
            let mut known = room;
            // Each bit as often as not.
            let cell = |hash: u32| (u64::from(hash) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | u64::from(hash) << 13;
            let known_count = unit.known(&room, count, &folded, key, cell, &mut known);
            out.extend(known.iter().take(known_count).map(|offset| u64::from(*offset)));
            out.extend(
                bytes
                    .windows(48)
                    .step_by(7)
                    .map(|run| u64::from(unit.could_be_text(run))),
            );
        }
    }

    const CLASSED: [fn(&Masks) -> u64; 17] = [
        |masks| masks.word,
        |masks| masks.digit,
        |masks| masks.apart,
        |masks| masks.high,
        |masks| masks.quote,
        |masks| masks.backslash,
        |masks| masks.structure,
        |masks| masks.open,
        |masks| masks.close,
        |masks| masks.run,
        |masks| masks.zero,
        |masks| masks.mark,
        |masks| masks.plus,
        |masks| masks.dot,
        |masks| masks.space,
        |masks| masks.joint,
        |masks| masks.control,
    ];

    struct Could<'a>(&'a [u8], &'a mut Vec<bool>);

    impl Job for Could<'_> {
        #[inline(always)]
        fn run(self, unit: impl Unit) {
            self.1.push(unit.could_be_text(self.0));
        }
    }

    proptest::proptest! {
        #[test]
        fn every_unit_gives_the_same(bytes in vec(any::<u8>(), 0..650), bits in any::<u64>()) {
            let all = [Level::Scalar, Level::Avx2, Level::Best].map(|level| {
                force(level);
                let mut out = Vec::new();
                accelerated(All(&bytes, bits & !(bits << 1), &mut out));
                out
            });
            force(Level::Best);
            proptest::prop_assert_eq!(&all[0], &all[1]);
            proptest::prop_assert_eq!(&all[0], &all[2]);
            proptest::prop_assert!(all[0].len() >= 17 * 10 + FOLDED);
        }

        #[test]
        fn every_unit_reads_runs_alike(
            text in proptest::prop_oneof![vec(any::<u8>(), 0..60), vec(0x20..0x7f_u8, 0..60), vec(0x0a..0x80_u8, 0..60), "\\PC{0,20}".prop_map(String::into_bytes)],
            odd in proptest::option::of((any::<proptest::sample::Index>(), any::<u8>())),
        ) {
            use base64::Engine;
            use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
            let hex: String = text.iter().map(|byte| format!("{byte:02x}")).collect();
            for run in [STANDARD_NO_PAD.encode(&text), URL_SAFE_NO_PAD.encode(&text), hex.to_uppercase(), format!("0x{hex}"), hex] {
                let mut run = run.into_bytes();
                if let (Some((at, byte)), false) = (odd, run.is_empty()) {
                    let at = at.index(run.len());
                    run[at] = byte;
                }
                let mut could = Vec::new();
                accelerated(Could(&run, &mut could));
                proptest::prop_assert_eq!(could, [decode::could_be_text(&run)], "{}", String::from_utf8_lossy(&run));
            }
        }
    }
}
