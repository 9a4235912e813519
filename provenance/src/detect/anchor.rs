//! What a filter has of a text: quick keyed hashes of its beginning and of all of it.

use siphasher::sip128::SipHasher13;

/// Bytes by which long text is found.
pub(super) const ANCHOR: usize = 8;
/// Lengths are told apart up to this one.
pub(super) const LONGEST: usize = 64;

/// What the filter has of a piece of text: the keyed hash of its first bytes, and its length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Anchor {
    pub(super) hash: u32,
    pub(super) length: u32,
    /// Short keys, and ids without separators, are told apart by their beginning first.
    pub(super) begin: u16,
    /// The keyed hash of all of it, where it is longer than the anchor.
    pub(super) whole: u32,
}

/// Beginnings that are told apart: 12 bits.
pub(super) const BEGINS: usize = 1 << 12;
/// Marks the beginning of an id without separators.
pub(super) const BARE: u16 = 1 << 12;

/// A keyed hash of eight bytes, quick rather than strong: its 32 bits say little, and what passes
/// is looked up by SipHash.
#[derive(Clone, Copy)]
pub(super) struct AnchorKey {
    pub(super) add: u64,
    multiply: u64,
}

impl AnchorKey {
    pub(super) fn new(key: &[u8; 16]) -> Self {
        // Multiplication alone mixes only as well as its factor is random.
        let key = SipHasher13::new_with_key(key).hash(b"anchors");
        AnchorKey {
            add: key.h1,
            multiply: key.h2 | 1,
        }
    }

    /// Of two halves with keys of their own, the product: what vector units can do too.
    #[inline(always)]
    pub(super) fn hash(self, word: u64) -> u32 {
        let low = (word as u32).wrapping_add(self.add as u32);
        let high = ((word >> 32) as u32).wrapping_add((self.add >> 32) as u32);
        let product = u64::from(low) * u64::from(high);
        (product ^ product >> 32) as u32
    }

    /// A keyed hash of all bytes of a folded text; that of a text of ASCII in another case is the same.
    #[inline]
    pub(super) fn whole(self, bytes: &[u8]) -> u32 {
        self.whole_of(bytes.len(), |at| {
            let rest = bytes.get(at..).unwrap_or_default();
            lower(rest.first_chunk().map_or_else(
                || {
                    let mut word = [0; 8];
                    word.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
                    u64::from_le_bytes(word)
                },
                |word| u64::from_le_bytes(*word),
            ))
        })
    }

    /// As [`whole`](Self::whole), of so many folded bytes of which eight are read at a time.
    #[inline(always)]
    pub(super) fn whole_of(self, length: usize, word: impl Fn(usize) -> u64) -> u32 {
        let mut state = self.multiply ^ length as u64;
        for at in (0..length).step_by(8) {
            let word = match length - at {
                left @ 1..8 => word(at) & !(!0 << (8 * left)),
                _ => word(at),
            };
            let product = u128::from(word ^ self.add ^ state) * u128::from(self.multiply);
            state = (product >> 64) as u64 ^ product as u64;
        }
        (state >> 32) as u32 ^ state as u32
    }

    /// A keyed hash of the first two bytes of a key.
    #[inline(always)]
    pub(super) fn begin(self, word: u64) -> u16 {
        let first = (word as u32 & 0xffff).wrapping_add(self.add as u32);
        (first.wrapping_mul(self.multiply as u32) >> 20) as u16
    }

    /// The anchor of an id without separators, of at least eight bytes.
    pub(super) fn of_bare(self, bytes: &[u8]) -> Option<Anchor> {
        let word = u64::from_le_bytes(*bytes.first_chunk()?);
        let begin = self.begin(word) | BARE;
        self.of(bytes).map(|anchor| Anchor { begin, ..anchor })
    }

    /// What the anchor of `bytes` hashes: their first, or all of them with their number.
    #[inline(always)]
    pub(super) fn first(bytes: &[u8]) -> u64 {
        match bytes.first_chunk::<ANCHOR>() {
            Some(first) => u64::from_le_bytes(*first),
            None => {
                let mut first = [0; ANCHOR];
                first.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
                short(u64::from_le_bytes(first), bytes.len())
            }
        }
    }

    /// The anchor of `bytes`; `None` if there are none.
    pub(super) fn of(self, bytes: &[u8]) -> Option<Anchor> {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let word = Self::first(bytes);
        (length > 0).then(|| Anchor {
            hash: self.hash(word),
            length,
            begin: match length {
                2..8 => self.begin(word),
                _ => 0,
            },
            whole: if length < 8 { 0 } else { self.whole(bytes) },
        })
    }
}

/// Makes bits of those that do not choose the word.
pub(super) const SPREAD: u32 = 0x9e37_79b1;

/// Three bits; those of hashes that share a word differ.
#[inline(always)]
pub(super) fn bloom(hash: u32) -> u64 {
    let mixed = hash.wrapping_mul(SPREAD);
    1 << (mixed >> 26) | 1 << (mixed >> 20 & 63) | 1 << (mixed >> 14 & 63)
}

/// Small letters for capitals, all eight at once.
#[inline(always)]
pub(super) fn lower(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let low = word & (ONES * 0x7f);
    let from_a = low + ONES * u64::from(0x80 - b'A');
    let after_z = low + ONES * u64::from(0x80 - b'Z' - 1);
    let capital = from_a & !after_z & !word & (ONES * 0x80);
    word | capital >> 2
}

/// The first `length` bytes of a word, at most 7, and their number.
#[inline(always)]
pub(super) fn short(word: u64, length: usize) -> u64 {
    word & !(!0 << (8 * length)) | (length as u64) << 56
}

/// The bit of a length.
#[inline(always)]
pub(super) fn length_bit(length: usize) -> u64 {
    1 << (length.clamp(1, LONGEST) - 1)
}
