//! Vectors of 64 bytes, bytes that choose others, and what masks choose side by side.

use std::arch::x86_64::{
    __m512i, _mm_loadu_si128, _mm_maskz_compress_epi16, _mm_storeu_si128, _mm512_add_epi16, _mm512_add_epi32,
    _mm512_and_si512, _mm512_castsi512_si256, _mm512_cmpeq_epi8_mask, _mm512_cmpeq_epi64_mask, _mm512_cmpge_epu8_mask,
    _mm512_cmplt_epu8_mask, _mm512_cvtepi16_epi8, _mm512_cvtepu8_epi16, _mm512_cvtepu16_epi64, _mm512_i64gather_epi64,
    _mm512_loadu_si512, _mm512_madd_epi16, _mm512_maddubs_epi16, _mm512_mask_add_epi8, _mm512_maskz_compress_epi8,
    _mm512_maskz_loadu_epi8, _mm512_maskz_permutex2var_epi8, _mm512_min_epu64, _mm512_movepi8_mask, _mm512_mul_epu32,
    _mm512_or_si512, _mm512_permutexvar_epi8, _mm512_rolv_epi64, _mm512_set1_epi8, _mm512_set1_epi16,
    _mm512_set1_epi32, _mm512_set1_epi64, _mm512_srli_epi64, _mm512_storeu_si512, _mm512_sub_epi8,
    _mm512_test_epi8_mask, _mm512_xor_si512, _mm512_zextsi256_si512,
};

use super::{AnchorKey, BLOCK, CLASSES, FOLDED, Job, Masks, Room, STARTS, Unit, decode};
use crate::detect::anchor::SPREAD;

/// Only where the processor has all of it.
#[derive(Clone, Copy)]
struct Avx512(());

pub(super) fn is_there() -> bool {
    std::arch::is_x86_feature_detected!("avx512f")
        && std::arch::is_x86_feature_detected!("avx512bw")
        && std::arch::is_x86_feature_detected!("avx512dq")
        && std::arch::is_x86_feature_detected!("avx512vl")
        && std::arch::is_x86_feature_detected!("avx512vbmi")
        && std::arch::is_x86_feature_detected!("avx512vbmi2")
        && super::avx2::is_there()
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vbmi2,avx2,bmi1,bmi2,popcnt")]
pub(super) fn run(job: impl Job) {
    job.run(Avx512(()));
}

impl Unit for Avx512 {
    #[inline(always)]
    fn read(self, block: &[u8; BLOCK], folded: &mut [u8; BLOCK]) -> Masks {
        // SAFETY: there is a unit, so the processor has these instructions.
        unsafe { read(block, folded) }
    }

    #[inline(always)]
    fn offsets(self, bits: u64, base: u16, room: &mut Room, count: usize) -> usize {
        if let Some(room) = room.get_mut(count..).and_then(|room| room.first_chunk_mut()) {
            // SAFETY: there is a unit, so the processor has these instructions.
            unsafe { offsets(bits, base, room) };
        }
        count + bits.count_ones() as usize
    }

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
            // Some of the last eight may be behind the last offset.
            let there = u8::MAX >> 8_usize.saturating_sub(count - from);
            let Some(room) = room.get_mut(known..).and_then(|room| room.first_chunk_mut()) else {
                break;
            };
            // SAFETY: there is a unit, so the processor has these instructions.
            known += unsafe { known_of(eight, there, folded, key, &cell, room) };
        }
        known
    }

    #[inline(always)]
    fn back(self, of: u64, ends: u64, starts: u64) -> u64 {
        // SAFETY: there is a unit, so the processor has BMI2.
        unsafe { super::avx2::back(of, ends, starts) }
    }

    #[inline(always)]
    fn eight(self, bits: u16, bytes: u128) -> (u16, u64) {
        // SAFETY: there is a unit, so the processor has BMI2.
        unsafe { super::avx2::eight(bits, bytes) }
    }

    #[inline(always)]
    fn could_be_text(self, run: &[u8]) -> bool {
        if run.len() > BLOCK {
            return decode::could_be_text(run);
        }
        // SAFETY: there is a unit, so the processor has these instructions.
        unsafe { could_be_text(run) }
    }
}

/// What a byte is: the lower or the upper half of its class.
const fn half(shift: u32) -> [u8; 128] {
    let mut half = [0; 128];
    let mut n = 0;
    while n < 128 {
        half[n] = (CLASSES[n] >> shift) as u8;
        n += 1;
    }
    half
}

const LOWER: [u8; 128] = half(0);
const UPPER: [u8; 128] = half(8);

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn read(block: &[u8; BLOCK], folded: &mut [u8; BLOCK]) -> Masks {
    // SAFETY: a block has 64 bytes, a table twice as many; the loads need no alignment.
    let (bytes, lower, upper) = unsafe {
        let load = |bytes: *const u8| _mm512_loadu_si512(bytes.cast());
        let table = |table: &[u8; 128]| (load(table.as_ptr()), load(table.as_ptr().add(64)));
        (load(block.as_ptr()), table(&LOWER), table(&UPPER))
    };
    let high = _mm512_movepi8_mask(bytes);
    let lower = _mm512_maskz_permutex2var_epi8(!high, lower.0, bytes, lower.1);
    let upper = _mm512_maskz_permutex2var_epi8(!high, upper.0, bytes, upper.1);
    let capital = _mm512_cmplt_epu8_mask(_mm512_sub_epi8(bytes, _mm512_set1_epi8(65)), _mm512_set1_epi8(26));
    let small = _mm512_mask_add_epi8(bytes, capital, bytes, _mm512_set1_epi8(32));
    // SAFETY: as many bytes; the store needs no alignment.
    unsafe { _mm512_storeu_si512(folded.as_mut_ptr().cast(), small) };
    Masks::of(high, |class| {
        let half = if class < 8 { lower } else { upper };
        _mm512_test_epi8_mask(half, _mm512_set1_epi8((1_u8 << (class % 8)).cast_signed()))
    })
}

/// The numbers from 0 to 63.
const PLACES: [u8; BLOCK] = {
    let mut places = [0; BLOCK];
    let mut n = 0;
    while n < BLOCK {
        places[n] = n as u8;
        n += 1;
    }
    places
};

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi2")]
fn offsets(bits: u64, base: u16, room: &mut [u16; BLOCK / 2]) {
    // SAFETY: 64 bytes; the load needs no alignment.
    let places = unsafe { _mm512_loadu_si512(PLACES.as_ptr().cast()) };
    let chosen = _mm512_castsi512_si256(_mm512_maskz_compress_epi8(bits, places));
    let offsets = _mm512_add_epi16(_mm512_cvtepu8_epi16(chosen), _mm512_set1_epi16(base.cast_signed()));
    // SAFETY: 32 numbers of two bytes; the store needs no alignment.
    unsafe { _mm512_storeu_si512(room.as_mut_ptr().cast(), offsets) };
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi2,popcnt")]
fn known_of(
    offsets: &[u16; 8],
    there: u8,
    folded: &[u8; FOLDED],
    key: AnchorKey,
    cell: impl Fn(u32) -> u64,
    room: &mut [u16; 8],
) -> usize {
    // SAFETY: eight numbers of two bytes; the load needs no alignment.
    let offsets = unsafe { _mm_loadu_si128(offsets.as_ptr().cast()) };
    let within = _mm512_min_epu64(_mm512_cvtepu16_epi64(offsets), _mm512_set1_epi64(FOLDED as i64 - 8));
    // SAFETY: eight bytes are there from each of them on; the loads need no alignment.
    let words = unsafe { _mm512_i64gather_epi64::<1>(within, folded.as_ptr().cast()) };
    // As `AnchorKey::hash` and `bloom` do it.
    let halves = _mm512_add_epi32(words, _mm512_set1_epi64(key.add.cast_signed()));
    let product = _mm512_mul_epu32(halves, _mm512_srli_epi64::<32>(halves));
    let hashes = _mm512_xor_si512(product, _mm512_srli_epi64::<32>(product));
    let mixed = _mm512_mul_epu32(hashes, _mm512_set1_epi64(i64::from(SPREAD)));
    let one = _mm512_set1_epi64(1);
    let bits = _mm512_or_si512(
        _mm512_rolv_epi64(one, _mm512_srli_epi64::<26>(mixed)),
        _mm512_or_si512(
            _mm512_rolv_epi64(one, _mm512_srli_epi64::<20>(mixed)),
            _mm512_rolv_epi64(one, _mm512_srli_epi64::<14>(mixed)),
        ),
    );
    let mut each = [0_u64; 8];
    // SAFETY: eight numbers of eight bytes; the store needs no alignment.
    unsafe { _mm512_storeu_si512(each.as_mut_ptr().cast(), hashes) };
    let cells = each.map(|hash| cell(hash as u32));
    // SAFETY: as many; the load needs no alignment.
    let cells = unsafe { _mm512_loadu_si512(cells.as_ptr().cast()) };
    let passes = _mm512_cmpeq_epi64_mask(_mm512_and_si512(cells, bits), bits) & there;
    // SAFETY: eight numbers of two bytes; the store needs no alignment.
    unsafe { _mm_storeu_si128(room.as_mut_ptr().cast(), _mm_maskz_compress_epi16(passes, offsets)) };
    passes.count_ones() as usize
}

/// What a character of hex or base64 stands for; 128 and more for any other.
const fn digits(of: &[u8; 256], most: u8) -> [u8; 128] {
    let mut digits = [0x80; 128];
    let mut n = 0;
    while n < 128 {
        if of[n] < most {
            digits[n] = of[n];
        }
        n += 1;
    }
    digits
}

const NIBBLES: [u8; 128] = digits(&decode::NIBBLES, 16);
const SIXTETS: [u8; 128] = digits(&decode::SIXTETS, 64);

/// Puts the three bytes of each four side by side.
const TRIPLES: [u8; BLOCK] = {
    let mut triples = [0; BLOCK];
    let mut n = 0;
    while n < 48 {
        triples[n] = (n / 3 * 4 + 2 - n % 3) as u8;
        n += 1;
    }
    triples
};

/// Of a run of no more than a block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,bmi2,popcnt")]
fn could_be_text(run: &[u8]) -> bool {
    let digits = run.strip_prefix(b"0x").unwrap_or(run);
    if digits.len().is_multiple_of(2)
        && let Some(nibbles) = read_digits(digits, &NIBBLES)
    {
        let pairs = _mm512_maddubs_epi16(nibbles, _mm512_set1_epi16(0x0110));
        let bytes = _mm512_zextsi256_si512(_mm512_cvtepi16_epi8(pairs));
        if is_hopeful(bytes, digits.len() / 2) {
            return true;
        }
    }
    if run.len() % 4 == 1 {
        return false;
    }
    let Some(sixtets) = read_digits(run, &SIXTETS) else {
        return false;
    };
    let twelves = _mm512_maddubs_epi16(sixtets, _mm512_set1_epi16(0x0140));
    let threes = _mm512_madd_epi16(twelves, _mm512_set1_epi32(0x0001_1000));
    // SAFETY: 64 bytes; the load needs no alignment.
    let triples = unsafe { _mm512_loadu_si512(TRIPLES.as_ptr().cast()) };
    is_hopeful(_mm512_permutexvar_epi8(triples, threes), run.len() * 3 / 4)
}

/// What the characters stand for, with zeros behind them; `None` if any stands for nothing.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,bmi2")]
fn read_digits(run: &[u8], table: &[u8; 128]) -> Option<__m512i> {
    let there = within(run.len());
    // SAFETY: no more is loaded than is there, and a table has 128 bytes; the loads need no alignment.
    let (bytes, low, high) = unsafe {
        (
            _mm512_maskz_loadu_epi8(there, run.as_ptr().cast()),
            _mm512_loadu_si512(table.as_ptr().cast()),
            _mm512_loadu_si512(table.as_ptr().add(64).cast()),
        )
    };
    let digits = _mm512_maskz_permutex2var_epi8(there, low, bytes, high);
    (_mm512_movepi8_mask(_mm512_or_si512(digits, bytes)) == 0).then_some(digits)
}

/// Whether the first so many bytes are text, as far as `decode::Hope` can tell.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,popcnt")]
fn is_hopeful(bytes: __m512i, count: usize) -> bool {
    let there = within(count);
    let at_least = |byte: u8| _mm512_cmpge_epu8_mask(bytes, _mm512_set1_epi8(byte.cast_signed()));
    let is = |byte: u8| _mm512_cmpeq_epi8_mask(bytes, _mm512_set1_epi8(byte.cast_signed()));
    let high = at_least(0x80) & there;
    let plain = at_least(b' ') & !at_least(0x7f) | is(b'\t') | is(b'\n') | is(0x0c) | is(b'\r');
    let control = there & !high & !plain;
    if (high | control).count_ones() as usize * 4 <= count {
        return true;
    }
    if control.count_ones() as usize * 8 > count {
        return false;
    }
    let begins = at_least(0xc0);
    let wanted = begins << 1
        | at_least(0xe0) << 2
        | at_least(0xf0) << 3
        | at_least(0xf8) << 4
        | at_least(0xfc) << 5
        | at_least(0xfe) << 6
        | at_least(0xff) << 7;
    wanted & there == high & !begins
}

/// A bit for each of the first ones.
fn within(count: usize) -> u64 {
    if count < BLOCK { !(!0 << count) } else { !0 }
}
