//! Vectors of 32 bytes.

use std::arch::x86_64::{
    __m256i, _mm256_add_epi8, _mm256_and_si256, _mm256_cmpeq_epi8, _mm256_cmpgt_epi8, _mm256_loadu_si256,
    _mm256_movemask_epi8, _mm256_or_si256, _mm256_set1_epi8, _mm256_storeu_si256, _pdep_u64, _pext_u64,
};

use super::{BLOCK, Job, Masks, Unit};

/// Only where the processor has all of it.
#[derive(Clone, Copy)]
struct Avx2(());

pub(super) fn is_there() -> bool {
    std::arch::is_x86_feature_detected!("avx2")
        && std::arch::is_x86_feature_detected!("bmi1")
        && std::arch::is_x86_feature_detected!("bmi2")
        && std::arch::is_x86_feature_detected!("popcnt")
}

#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
pub(super) fn run(job: impl Job) {
    job.run(Avx2(()));
}

impl Unit for Avx2 {
    #[inline(always)]
    fn read(self, block: &[u8; BLOCK], folded: &mut [u8; BLOCK]) -> Masks {
        // SAFETY: there is a unit, so the processor has AVX2.
        unsafe { read(block, folded) }
    }

    #[inline(always)]
    fn back(self, of: u64, ends: u64, starts: u64) -> u64 {
        // SAFETY: there is a unit, so the processor has BMI2.
        unsafe { back(of, ends, starts) }
    }

    #[inline(always)]
    fn eight(self, bits: u16, bytes: u128) -> (u16, u64) {
        // SAFETY: there is a unit, so the processor has BMI2.
        unsafe { eight(bits, bytes) }
    }
}

#[inline]
#[target_feature(enable = "bmi2")]
pub(super) fn back(of: u64, ends: u64, starts: u64) -> u64 {
    _pdep_u64(_pext_u64(of, ends), starts)
}

#[inline]
#[target_feature(enable = "avx2")]
fn read(block: &[u8; BLOCK], folded: &mut [u8; BLOCK]) -> Masks {
    let (low, high) = block.split_at(BLOCK / 2);
    // SAFETY: each half has 32 bytes; the loads need no alignment.
    let (low, high) = unsafe {
        (
            _mm256_loadu_si256(low.as_ptr().cast()),
            _mm256_loadu_si256(high.as_ptr().cast()),
        )
    };
    let (a, b) = (half(low), half(high));
    let (to_low, to_high) = folded.split_at_mut(BLOCK / 2);
    // SAFETY: each half has 32 bytes; the stores need no alignment.
    unsafe {
        _mm256_storeu_si256(to_low.as_mut_ptr().cast(), a.folded);
        _mm256_storeu_si256(to_high.as_mut_ptr().cast(), b.folded);
    }
    let join = |a: u32, b: u32| u64::from(a) | u64::from(b) << 32;
    Masks::of(join(a.high, b.high), |class| {
        join(a.classes[class as usize], b.classes[class as usize])
    })
}

#[inline]
#[target_feature(enable = "bmi2,popcnt")]
pub(super) fn eight(bits: u16, bytes: u128) -> (u16, u64) {
    let chosen = _pdep_u64(0xff, u64::from(bits));
    // A byte of ones for each bit.
    let whole = |bits: u64| _pdep_u64(bits, 0x0101_0101_0101_0101) * 0xff;
    let low = _pext_u64(bytes as u64, whole(chosen & 0xff));
    let high = _pext_u64((bytes >> 64) as u64, whole(chosen >> 8));
    let room = 8 * (chosen & 0xff).count_ones();
    (chosen as u16, low | high.checked_shl(room).unwrap_or(0))
}

struct Half {
    classes: [u32; 16],
    high: u32,
    folded: __m256i,
}

#[inline]
#[target_feature(enable = "avx2")]
fn half(v: __m256i) -> Half {
    let is = |byte: u8| _mm256_cmpeq_epi8(v, _mm256_set1_epi8(byte.cast_signed()));
    // Bytes that are not ASCII are negative, so below every bound.
    let above = |v, byte: u8| _mm256_cmpgt_epi8(v, _mm256_set1_epi8(byte.cast_signed()));
    let below = |byte: u8, v| _mm256_cmpgt_epi8(_mm256_set1_epi8(byte.cast_signed()), v);
    let or = |a, b| _mm256_or_si256(a, b);
    let and = |a, b| _mm256_and_si256(a, b);
    let mask = |v| _mm256_movemask_epi8(v).cast_unsigned();
    let case = _mm256_set1_epi8(0x20);
    let small = or(v, case);
    let letter = and(above(small, b'a' - 1), below(b'z' + 1, small));
    let capital = and(letter, below(b'a', v));
    let digit = and(above(v, b'0' - 1), below(b'9' + 1, v));
    let word = or(letter, digit);
    let plus = is(b'+');
    // `{` and `[`, `}` and `]` differ in the bit of the case.
    let small_is = |byte: u8| _mm256_cmpeq_epi8(small, _mm256_set1_epi8(byte.cast_signed()));
    let (open, close) = (small_is(b'{'), small_is(b'}'));
    let (colon, dot, space) = (is(b':'), is(b'.'), is(b' '));
    let structure = or(or(open, close), or(colon, is(b',')));
    let signs = or(plus, or(is(b'/'), or(is(b'-'), is(b'_'))));
    let high = mask(v);
    Half {
        classes: [
            mask(word),
            mask(digit),
            mask(or(
                or(plus, or(is(b'/'), is(b'-'))),
                or(or(dot, space), or(is(b'('), is(b')'))),
            )),
            mask(is(b'"')),
            mask(is(b'\\')),
            mask(structure),
            mask(open),
            mask(close),
            mask(or(word, signs)),
            mask(is(b'0')),
            mask(or(is(b'%'), or(is(b'&'), is(b'=')))),
            mask(plus),
            mask(dot),
            mask(space),
            mask(or(signs, or(colon, or(dot, space)))),
            mask(below(b' ', v)) & !high,
        ],
        high,
        folded: _mm256_add_epi8(v, and(capital, case)),
    }
}
