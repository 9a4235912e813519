//! Bytes into bit masks, 64 at a time: what the sieve reads instead of bytes; and what else is to be said to
//! the processor.
//!
//! The one place with `unsafe`: a vector unit is used where the processor has it. All paths give
//! the same masks.
#![allow(unsafe_code)]

use super::entry::is_separator;

/// One bit for each of 64 bytes; the lowest is the first byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Masks {
    /// ASCII letters and digits.
    pub(super) word: u64,
    /// ASCII digits.
    pub(super) digit: u64,
    /// `0`
    pub(super) zero: u64,
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
    /// `%`
    pub(super) percent: u64,
    /// `&=`
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

/// Bytes of a block.
pub(super) const BLOCK: usize = 64;

/// What a processor may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
#[allow(dead_code, reason = "tests and benchmarks choose")]
pub(super) enum Level {
    Scalar,
    Avx2,
    Best,
}

/// The most that is made use of: a benchmark looks at less.
#[cfg(test)]
static FORCED: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(Level::Best as u8);

#[cfg(test)]
pub(super) fn force(level: Level) {
    FORCED.store(level as u8, std::sync::atomic::Ordering::Relaxed);
}

#[inline(always)]
fn allowed(level: Level) -> bool {
    #[cfg(test)]
    return level as u8 <= FORCED.load(std::sync::atomic::Ordering::Relaxed);
    #[cfg(not(test))]
    {
        let _ = level;
        true
    }
}

/// The masks of `bytes`, block by block, into `out`; what lies beyond the end counts as zero bytes.
pub(super) fn classify(bytes: &[u8], out: &mut [Masks]) {
    #[cfg(target_arch = "x86_64")]
    if allowed(Level::Avx2) && std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2, as was just asked.
        unsafe { avx2::classify(bytes, out) };
        return;
    }
    scalar(bytes, out);
}

/// Work that is compiled twice: as it is, and for processors that have more instructions.
pub(super) trait Job {
    /// Must be `inline(always)`, to gain anything.
    fn run(self);
}

/// Does the work with the instructions that the processor has.
pub(super) fn accelerated(job: impl Job) {
    #[cfg(target_arch = "x86_64")]
    if allowed(Level::Avx2)
        && std::arch::is_x86_feature_detected!("avx2")
        && std::arch::is_x86_feature_detected!("bmi1")
        && std::arch::is_x86_feature_detected!("bmi2")
        && std::arch::is_x86_feature_detected!("popcnt")
    {
        // SAFETY: the processor has all of them, as was just asked.
        unsafe { avx2::run(job) };
        return;
    }
    job.run();
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

/// Calls `one` for every whole block, and once for a copy of what is left, padded with zeros.
#[inline(always)]
fn blocks(bytes: &[u8], out: &mut [Masks], one: impl Fn(&[u8; BLOCK]) -> Masks) {
    let (whole, rest) = bytes.as_chunks::<BLOCK>();
    let mut out = out.iter_mut();
    for (block, masks) in whole.iter().zip(&mut out) {
        *masks = one(block);
    }
    if let Some(masks) = out.next() {
        let mut padded = [0; BLOCK];
        if let Some(room) = padded.get_mut(..rest.len()) {
            room.copy_from_slice(rest);
        }
        *masks = if rest.is_empty() && whole.len() * BLOCK == bytes.len() {
            one(&[0; BLOCK])
        } else {
            one(&padded)
        };
    }
    out.for_each(|masks| *masks = one(&[0; BLOCK]));
}

/// What every other path must agree with.
pub(super) fn scalar(bytes: &[u8], out: &mut [Masks]) {
    blocks(bytes, out, |block| {
        let mut masks = Masks::default();
        for (at, byte) in block.iter().enumerate() {
            let set = |mask: &mut u64, is: bool| *mask |= u64::from(is) << at;
            set(&mut masks.word, byte.is_ascii_alphanumeric());
            set(&mut masks.digit, byte.is_ascii_digit());
            set(&mut masks.zero, *byte == b'0');
            set(&mut masks.high, !byte.is_ascii());
            set(&mut masks.quote, *byte == b'"');
            set(&mut masks.backslash, *byte == b'\\');
            set(
                &mut masks.structure,
                matches!(byte, b'{' | b'}' | b'[' | b']' | b':' | b','),
            );
            set(&mut masks.open, matches!(byte, b'{' | b'['));
            set(&mut masks.close, matches!(byte, b'}' | b']'));
            let run = byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_');
            set(&mut masks.run, run);
            set(&mut masks.percent, *byte == b'%');
            set(&mut masks.mark, matches!(byte, b'&' | b'='));
            set(&mut masks.plus, *byte == b'+');
            set(&mut masks.dot, *byte == b'.');
            set(&mut masks.joint, is_separator(*byte) || *byte == b'+');
            set(&mut masks.space, *byte == b' ');
            set(&mut masks.control, *byte < b' ');
        }
        masks
    });
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        __m256i, _mm256_and_si256, _mm256_cmpeq_epi8, _mm256_cmpgt_epi8, _mm256_loadu_si256, _mm256_movemask_epi8,
        _mm256_or_si256, _mm256_set1_epi8,
    };

    use super::{BLOCK, Job, Masks, blocks};

    #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
    pub(super) fn run(job: impl Job) {
        job.run();
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn classify(bytes: &[u8], out: &mut [Masks]) {
        blocks(bytes, out, |block| one(block));
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn one(block: &[u8; BLOCK]) -> Masks {
        let (low, high) = block.split_at(BLOCK / 2);
        // SAFETY: each half has 32 bytes; the load needs no alignment.
        let (low, high) = unsafe {
            (
                _mm256_loadu_si256(low.as_ptr().cast()),
                _mm256_loadu_si256(high.as_ptr().cast()),
            )
        };
        let (a, b) = (half(low), half(high));
        let join = |get: fn(&Half) -> u32| u64::from(get(&a)) | u64::from(get(&b)) << 32;
        Masks {
            word: join(|h| h.0[0]),
            digit: join(|h| h.0[1]),
            high: join(|h| h.0[2]),
            quote: join(|h| h.0[3]),
            backslash: join(|h| h.0[4]),
            structure: join(|h| h.0[5]),
            run: join(|h| h.0[6]),
            percent: join(|h| h.0[7]),
            plus: join(|h| h.0[8]),
            space: join(|h| h.0[9]),
            control: join(|h| h.0[10]),
            open: join(|h| h.0[11]),
            close: join(|h| h.0[12]),
            mark: join(|h| h.0[13]),
            dot: join(|h| h.0[14]),
            joint: join(|h| h.0[15]),
            zero: join(|h| h.0[16]),
        }
    }

    struct Half([u32; 17]);

    #[inline]
    #[target_feature(enable = "avx2")]
    fn half(v: __m256i) -> Half {
        let is = |byte: u8| _mm256_cmpeq_epi8(v, _mm256_set1_epi8(byte.cast_signed()));
        // Bytes that are not ASCII are negative, so below every bound.
        let above = |v, byte: u8| _mm256_cmpgt_epi8(v, _mm256_set1_epi8(byte.cast_signed()));
        let below = |byte: u8, v| _mm256_cmpgt_epi8(_mm256_set1_epi8(byte.cast_signed()), v);
        let or = |a, b| _mm256_or_si256(a, b);
        let mask = |v| _mm256_movemask_epi8(v).cast_unsigned();
        let small = or(v, _mm256_set1_epi8(0x20));
        let letter = _mm256_and_si256(above(small, b'a' - 1), below(b'z' + 1, small));
        let digit = _mm256_and_si256(above(v, b'0' - 1), below(b'9' + 1, v));
        let word = or(letter, digit);
        let plus = is(b'+');
        // `{` and `[`, `}` and `]` differ in the bit of the case.
        let small_is = |byte: u8| _mm256_cmpeq_epi8(small, _mm256_set1_epi8(byte.cast_signed()));
        let (open, close) = (small_is(b'{'), small_is(b'}'));
        let (colon, dot, space) = (is(b':'), is(b'.'), is(b' '));
        let structure = or(or(open, close), or(colon, is(b',')));
        let signs = or(plus, or(is(b'/'), or(is(b'-'), is(b'_'))));
        let run = or(word, signs);
        let high = mask(v);
        Half([
            mask(word),
            mask(digit),
            high,
            mask(is(b'"')),
            mask(is(b'\\')),
            mask(structure),
            mask(run),
            mask(is(b'%')),
            mask(plus),
            mask(space),
            mask(below(b' ', v)) & !high,
            mask(open),
            mask(close),
            mask(or(is(b'&'), is(b'='))),
            mask(dot),
            mask(or(signs, or(colon, or(dot, space)))),
            mask(is(b'0')),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn every_path_gives_the_same_masks(bytes in proptest::collection::vec(proptest::arbitrary::any::<u8>(), 0..300)) {
            let mut fast = [Masks::default(); 6];
            let mut slow = fast;
            classify(&bytes, &mut fast);
            scalar(&bytes, &mut slow);
            proptest::prop_assert_eq!(fast, slow);
        }
    }
}
