//! SHA-256's compression function on two messages at once. Each of its rounds waits for the one before; a processor with
//! instructions for it does the other message's meanwhile.
//!
//! The one place of the store with `unsafe`. Without those instructions one message follows the other, by `sha2`.
#![allow(unsafe_code)]

use sha2::block_api::compress256;

pub(super) const BLOCK: usize = 64;

/// Adds a block of its message to each state.
#[inline]
pub(super) fn compress_both(states: [&mut [u32; 8]; 2], blocks: [&[u8; BLOCK]; 2]) {
    #[cfg(target_arch = "x86_64")]
    if x86::is_there() {
        // SAFETY: the processor has the instructions, as was just asked.
        unsafe { x86::compress(states, blocks) };
        return;
    }
    let [first, second] = states;
    let [block, other] = blocks;
    compress256(first, std::slice::from_ref(block));
    compress256(second, std::slice::from_ref(other));
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::BLOCK;

    /// FIPS 180-4, 4.2.2.
    #[rustfmt::skip]
    const K: [[u32; 4]; 16] = [
        [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5], [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
        [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3], [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
        [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc], [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
        [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7], [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
        [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13], [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
        [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3], [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
        [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5], [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
        [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208], [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
    ];

    pub(super) fn is_there() -> bool {
        std::arch::is_x86_feature_detected!("sha")
            && std::arch::is_x86_feature_detected!("ssse3")
            && std::arch::is_x86_feature_detected!("sse4.1")
    }

    /// A state as the instructions want it: the words a, b, e, f and c, d, g, h, the first one in the highest place.
    type State = (__m128i, __m128i);

    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn load(state: &[u32; 8]) -> State {
        let [a, b, c, d, e, f, g, h] = state.map(u32::cast_signed);
        (_mm_set_epi32(a, b, e, f), _mm_set_epi32(c, d, g, h))
    }

    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn store((abef, cdgh): State, state: &mut [u32; 8]) {
        let words = [
            _mm_extract_epi32::<3>(abef),
            _mm_extract_epi32::<2>(abef),
            _mm_extract_epi32::<3>(cdgh),
            _mm_extract_epi32::<2>(cdgh),
            _mm_extract_epi32::<1>(abef),
            _mm_extract_epi32::<0>(abef),
            _mm_extract_epi32::<1>(cdgh),
            _mm_extract_epi32::<0>(cdgh),
        ];
        *state = words.map(i32::cast_unsigned);
    }

    /// Sixteen words of a message, four a register.
    #[inline]
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    fn words(block: &[u8; BLOCK]) -> [__m128i; 4] {
        let order = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
        let (parts, _) = block.as_chunks::<16>();
        let mut words = [_mm_setzero_si128(); 4];
        for (words, part) in words.iter_mut().zip(parts) {
            // SAFETY: a part has 16 bytes; the load needs no alignment.
            *words = _mm_shuffle_epi8(unsafe { _mm_loadu_si128(part.as_ptr().cast()) }, order);
        }
        words
    }

    #[target_feature(enable = "sha,ssse3,sse4.1")]
    pub(super) fn compress(states: [&mut [u32; 8]; 2], blocks: [&[u8; BLOCK]; 2]) {
        let [first, second] = states;
        let [block, other] = blocks;
        let before = [load(first), load(second)];
        let mut now = before;
        let mut words = [words(block), words(other)];
        for (four, k) in K.iter().enumerate() {
            let k = {
                let [a, b, c, d] = k.map(u32::cast_signed);
                _mm_set_epi32(d, c, b, a)
            };
            // Side by side, so that neither waits.
            let mut sums = [k; 2];
            for (sum, words) in sums.iter_mut().zip(&mut words) {
                if four >= 4 {
                    let [w0, w1, w2, w3] = *words;
                    let next = _mm_add_epi32(_mm_sha256msg1_epu32(w0, w1), _mm_alignr_epi8::<4>(w3, w2));
                    *words = [w1, w2, w3, _mm_sha256msg2_epu32(next, w3)];
                    *sum = _mm_add_epi32(words[3], k);
                } else {
                    *sum = _mm_add_epi32(words[0], k);
                    words.rotate_left(1);
                }
            }
            for ((abef, cdgh), sum) in now.iter_mut().zip(sums) {
                *cdgh = _mm_sha256rnds2_epu32(*cdgh, *abef, sum);
            }
            for ((abef, cdgh), sum) in now.iter_mut().zip(sums) {
                *abef = _mm_sha256rnds2_epu32(*abef, *cdgh, _mm_shuffle_epi32::<0x0e>(sum));
            }
        }
        let add = |at: usize| {
            (
                _mm_add_epi32(before[at].0, now[at].0),
                _mm_add_epi32(before[at].1, now[at].1),
            )
        };
        store(add(0), first);
        store(add(1), second);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn both_are_what_each_is_alone(
            states: [[u32; 8]; 2],
            bytes in proptest::collection::vec(any::<u8>(), 2 * BLOCK),
        ) {
            let (blocks, _) = bytes.as_chunks::<BLOCK>();
            let mut alone = states;
            for (state, block) in alone.iter_mut().zip(blocks) {
                compress256(state, std::slice::from_ref(block));
            }
            let [mut first, mut second] = states;
            compress_both([&mut first, &mut second], [&blocks[0], &blocks[1]]);
            prop_assert_eq!([first, second], alone);
        }
    }
}
