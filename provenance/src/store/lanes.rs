//! Two messages at once: a processor's instructions for SHA-256 wait for each other's results, so that a second message
//! costs little more than one.

use super::chain::Hash;
use super::sha::{BLOCK, START, compress, words};

/// The hashes of padded messages, each of which ends before that block.
pub(super) fn digest(blocks: &[[u8; BLOCK]], ends: &[usize], out: &mut Vec<Hash>) {
    out.clear();
    out.resize(ends.len(), [0; 32]);
    #[cfg(target_arch = "x86_64")]
    if x86::is_there() {
        return x86::digest(blocks, ends, out);
    }
    one_by_one(blocks, ends, out);
}

fn one_by_one(blocks: &[[u8; BLOCK]], ends: &[usize], out: &mut [Hash]) {
    let mut start = 0;
    for (end, hash) in ends.iter().zip(out) {
        let mut state = START;
        compress(&mut state, blocks.get(start..*end).unwrap_or_default());
        *hash = words(&state);
        start = *end;
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_blend_epi16, _mm_loadu_si128, _mm_set_epi8, _mm_sha256msg1_epu32,
        _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8, _mm_shuffle_epi32, _mm_storeu_si128,
    };

    use super::{BLOCK, Hash, START, compress, words};

    /// Constants of the rounds (FIPS 180-4, 4.2.2).
    const K: [[u32; 4]; 16] = [
        [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5],
        [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
        [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3],
        [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
        [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc],
        [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
        [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7],
        [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
        [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13],
        [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
        [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3],
        [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
        [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5],
        [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
        [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208],
        [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
    ];

    pub(super) fn is_there() -> bool {
        is_x86_feature_detected!("sha") && is_x86_feature_detected!("sse4.1") && is_x86_feature_detected!("ssse3")
    }

    /// [`is_there`] has said so.
    pub(super) fn digest(blocks: &[[u8; BLOCK]], ends: &[usize], out: &mut [Hash]) {
        // SAFETY: the features that it is compiled for were detected.
        unsafe { in_pairs(blocks, ends, out) }
    }

    /// A message that is under way: its blocks that are left, and where its hash goes.
    struct Lane<'a> {
        state: [u32; 8],
        rest: &'a [[u8; BLOCK]],
        hash: &'a mut Hash,
    }

    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn in_pairs(blocks: &[[u8; BLOCK]], ends: &[usize], out: &mut [Hash]) {
        let mut start = 0;
        let mut messages = ends.iter().zip(out).map(|(end, hash)| {
            let rest = blocks.get(start..*end).unwrap_or_default();
            start = *end;
            Lane {
                state: START,
                rest,
                hash,
            }
        });
        let (mut a, mut b) = (messages.next(), messages.next());
        while let (Some(first), Some(second)) = (&mut a, &mut b) {
            match (first.rest.split_first(), second.rest.split_first()) {
                (Some((one, first_rest)), Some((other, second_rest))) => {
                    pair(&mut first.state, one, &mut second.state, other);
                    (first.rest, second.rest) = (first_rest, second_rest);
                    if first_rest.is_empty() {
                        *first.hash = words(&first.state);
                        a = messages.next();
                    }
                    if second_rest.is_empty() {
                        *second.hash = words(&second.state);
                        b = messages.next();
                    }
                }
                // No message is empty: it is padded.
                _ => break,
            }
        }
        for lane in a.into_iter().chain(b).chain(messages) {
            let mut state = lane.state;
            compress(&mut state, lane.rest);
            *lane.hash = words(&state);
        }
    }

    #[target_feature(enable = "sse2")]
    fn load(words: &[u32; 4]) -> __m128i {
        // SAFETY: sixteen bytes are there, and may lie anywhere.
        unsafe { _mm_loadu_si128(words.as_ptr().cast()) }
    }

    /// Words a, b, e, f and c, d, g, h, as the instructions have them.
    #[target_feature(enable = "sse2,ssse3,sse4.1")]
    fn split(state: &[u32; 8]) -> (__m128i, __m128i) {
        let [a, b, c, d, e, f, g, h] = *state;
        let cdab = _mm_shuffle_epi32(load(&[a, b, c, d]), 0xb1);
        let efgh = _mm_shuffle_epi32(load(&[e, f, g, h]), 0x1b);
        (_mm_alignr_epi8(cdab, efgh, 8), _mm_blend_epi16(efgh, cdab, 0xf0))
    }

    #[target_feature(enable = "sse2,ssse3,sse4.1")]
    fn join(state: &mut [u32; 8], abef: __m128i, cdgh: __m128i) {
        let feba = _mm_shuffle_epi32(abef, 0x1b);
        let dchg = _mm_shuffle_epi32(cdgh, 0xb1);
        let (low, high) = state.split_at_mut(4);
        for (half, value) in [
            (low, _mm_blend_epi16(feba, dchg, 0xf0)),
            (high, _mm_alignr_epi8(dchg, feba, 8)),
        ] {
            // SAFETY: each half of the eight words has sixteen bytes.
            unsafe { _mm_storeu_si128(half.as_mut_ptr().cast(), value) }
        }
    }

    #[target_feature(enable = "sse2,ssse3")]
    fn words_of(block: &[u8; BLOCK]) -> [__m128i; 4] {
        let order = _mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3);
        let mut words = [order; 4];
        for (word, bytes) in words.iter_mut().zip(block.as_chunks::<16>().0) {
            // SAFETY: sixteen bytes are there, and may lie anywhere.
            *word = _mm_shuffle_epi8(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }, order);
        }
        words
    }

    /// Four rounds of both, on the words that are given.
    macro_rules! rounds {
        ($k:expr, $($word:expr => $abef:ident, $cdgh:ident);+) => {{
            let k = load(&$k);
            $(
                let with_k = _mm_add_epi32($word, k);
                $cdgh = _mm_sha256rnds2_epu32($cdgh, $abef, with_k);
                $abef = _mm_sha256rnds2_epu32($abef, $cdgh, _mm_shuffle_epi32(with_k, 0x0e));
            )+
        }};
    }

    /// The four words after sixteen.
    #[target_feature(enable = "sha,sse2,ssse3")]
    fn next([a, b, c, d]: [__m128i; 4]) -> __m128i {
        let sum = _mm_add_epi32(_mm_sha256msg1_epu32(a, b), _mm_alignr_epi8(d, c, 4));
        _mm_sha256msg2_epu32(sum, d)
    }

    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn pair(one: &mut [u32; 8], one_block: &[u8; BLOCK], other: &mut [u32; 8], other_block: &[u8; BLOCK]) {
        let ((one_abef, one_cdgh), (other_abef, other_cdgh)) = (split(one), split(other));
        let (mut a0, mut a1, mut b0, mut b1) = (one_abef, one_cdgh, other_abef, other_cdgh);
        let (mut v, mut w) = (words_of(one_block), words_of(other_block));
        let (given, made) = K.split_at(4);
        for ((k, one), other) in given.iter().zip(v).zip(w) {
            rounds!(*k, one => a0, a1; other => b0, b1);
        }
        // Four at a time, so that each word stays in its register.
        for k in made.as_chunks::<4>().0 {
            for at in 0..4 {
                let of = |words: &[__m128i; 4]| {
                    next([words[at], words[(at + 1) % 4], words[(at + 2) % 4], words[(at + 3) % 4]])
                };
                (v[at], w[at]) = (of(&v), of(&w));
                rounds!(k[at], v[at] => a0, a1; w[at] => b0, b1);
            }
        }
        join(one, _mm_add_epi32(a0, one_abef), _mm_add_epi32(a1, one_cdgh));
        join(other, _mm_add_epi32(b0, other_abef), _mm_add_epi32(b1, other_cdgh));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::sha::{Absorb, Messages};

    proptest! {
        #[test]
        fn both_lanes_are_sha256(
            messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..9),
        ) {
            let mut padded = Messages::default();
            for message in &messages {
                padded.begin(5);
                padded.update(message);
                padded.end();
            }
            let (mut quick, mut twin) = (Vec::new(), vec![[0; 32]; messages.len()]);
            padded.digest(&mut quick);
            one_by_one(padded.blocks(), padded.ends(), &mut twin);
            let plain: Vec<Hash> = messages.iter().map(|m| crate::store::chain::bytes(&[&[5], m.as_slice()].concat())).collect();
            prop_assert_eq!(&quick, &plain);
            prop_assert_eq!(&twin, &plain);
        }
    }
}
