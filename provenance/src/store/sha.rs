//! SHA-256 of short messages, of which an event has a dozen: collected, then compressed some blocks at once.

use sha2::block_api::compress256;

use super::chain::Hash;
use super::lanes;

pub(super) const BLOCK: usize = 64;
/// What is collected: most messages whole.
const ROOM: usize = 4 * BLOCK;
/// What a message begins with (FIPS 180-4, 5.3.3).
pub(super) const START: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// What takes a message in pieces.
pub(super) trait Absorb {
    fn update(&mut self, more: &[u8]);
}

/// The blocks of a message.
#[inline]
pub(super) fn compress(state: &mut [u32; 8], blocks: &[[u8; BLOCK]]) {
    compress256(state, blocks);
}

/// A hash of its words.
#[inline]
pub(super) fn words(state: &[u32; 8]) -> Hash {
    let mut hash = [0; 32];
    let (words, _) = hash.as_chunks_mut::<4>();
    for (bytes, word) in words.iter_mut().zip(state) {
        *bytes = word.to_be_bytes();
    }
    hash
}

/// Messages that are hashed together.
#[derive(Default)]
pub(super) struct Messages {
    /// Padded, one after the other.
    bytes: Vec<u8>,
    /// Where the last one begins.
    start: usize,
    /// The block after each.
    ends: Vec<usize>,
}

impl Absorb for Messages {
    #[inline(always)]
    fn update(&mut self, more: &[u8]) {
        self.bytes.extend_from_slice(more);
    }
}

impl Messages {
    /// The next message begins with this byte.
    pub(super) fn begin(&mut self, first: u8) {
        self.start = self.bytes.len();
        self.bytes.push(first);
    }

    /// It is whole.
    pub(super) fn end(&mut self) {
        let length = self.bytes.len() - self.start;
        self.bytes.push(0x80);
        let end = self.start + (length + 9).next_multiple_of(BLOCK);
        self.bytes.resize(end - 8, 0);
        self.bytes.extend_from_slice(&((length as u64) << 3).to_be_bytes());
        self.ends.push(end / BLOCK);
    }

    /// Those that are whole.
    pub(super) fn count(&self) -> usize {
        self.ends.len()
    }

    /// What stands in a message after its first byte, to be filled in.
    pub(super) fn hole<const N: usize>(&mut self, message: usize) -> Option<&mut [u8; N]> {
        let start = match message.checked_sub(1) {
            Some(before) => BLOCK * self.ends.get(before)? + 1,
            None => 1,
        };
        self.bytes.get_mut(start..)?.first_chunk_mut()
    }

    pub(super) fn digest(&self, out: &mut Vec<Hash>) {
        lanes::digest(self.blocks(), &self.ends, out);
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    pub(super) fn blocks(&self) -> &[[u8; BLOCK]] {
        self.bytes.as_chunks().0
    }

    #[cfg(test)]
    pub(super) fn ends(&self) -> &[usize] {
        &self.ends
    }
}

/// A message that is being hashed.
pub(super) struct Sha {
    state: [u32; 8],
    bytes: [u8; ROOM],
    filled: usize,
    /// Bytes that were compressed.
    before: u64,
}

impl Absorb for Sha {
    // Most pieces have a length that is known where they come from: inlined, they are a few moves.
    #[inline(always)]
    fn update(&mut self, more: &[u8]) {
        match self.bytes.get_mut(self.filled..self.filled + more.len()) {
            Some(room) => {
                room.copy_from_slice(more);
                self.filled += more.len();
            }
            None => self.overflow(more),
        }
    }
}

impl Sha {
    /// A message that begins with this byte.
    #[inline]
    pub(super) fn new(first: u8) -> Self {
        let mut bytes = [0; ROOM];
        bytes[0] = first;
        Sha {
            state: START,
            bytes,
            filled: 1,
            before: 0,
        }
    }

    #[cold]
    fn overflow(&mut self, mut more: &[u8]) {
        loop {
            let room = self.bytes.get_mut(self.filled..).unwrap_or_default();
            let (now, later) = more.split_at(room.len().min(more.len()));
            if let Some(room) = room.get_mut(..now.len()) {
                room.copy_from_slice(now);
            }
            self.filled += now.len();
            if later.is_empty() {
                return;
            }
            self.compress(ROOM);
            self.before += ROOM as u64;
            self.filled = 0;
            more = later;
        }
    }

    pub(super) fn finish(&mut self) -> Hash {
        let bits = (self.before + self.filled as u64) << 3;
        self.update(&[0x80]);
        if self.filled + 8 > ROOM {
            self.bytes.get_mut(self.filled..).unwrap_or_default().fill(0);
            self.compress(ROOM);
            self.filled = 0;
        }
        // The length takes the last 8 bytes of a block.
        let end = (self.filled + 8).next_multiple_of(BLOCK);
        if let Some(rest) = self.bytes.get_mut(self.filled..end)
            && let Some((zeros, length)) = rest.split_last_chunk_mut::<8>()
        {
            zeros.fill(0);
            *length = bits.to_be_bytes();
        }
        self.compress(end);
        words(&self.state)
    }

    /// The first bytes, whole blocks of them.
    fn compress(&mut self, upto: usize) {
        let (blocks, _) = self.bytes.get(..upto).unwrap_or_default().as_chunks::<BLOCK>();
        compress(&mut self.state, blocks);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    use super::*;

    proptest! {
        #[test]
        fn it_is_sha256(parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..150), 0..9)) {
            let mut sha = Sha::new(7);
            parts.iter().for_each(|part| sha.update(part));
            let whole: [u8; 32] = Sha256::new_with_prefix([7]).chain_update(parts.concat()).finalize().into();
            prop_assert_eq!(sha.finish(), whole);
        }
    }

    #[test]
    fn every_length_ends_well() {
        for length in 0..3 * ROOM {
            let message = vec![3; length];
            let mut sha = Sha::new(3);
            sha.update(&message);
            let whole: [u8; 32] = Sha256::new_with_prefix([3]).chain_update(&message).finalize().into();
            assert_eq!(sha.finish(), whole, "{length}");
        }
    }
}
