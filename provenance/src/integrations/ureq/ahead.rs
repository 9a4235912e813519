//! A body that can be read only once: read ahead, and then passed on as it came.

use std::cell::Cell;
use std::io::{self, Read};

use ureq::Error;
use zeroize::Zeroize;

use crate::hooks::egress::Watcher;

/// Bytes that are asked of a reader at a time; ureq asks for no more.
const PIECE: usize = 128 << 10;
/// Most reads that are remembered.
const READS: usize = 16 << 10;

thread_local! {
    static ROOM: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// What a reader reads into: the thread's own, as it is large, or a new one within itself. Zeros, but for what a
/// reader wrote and did not tell of.
struct Room(Vec<u8>);

impl Room {
    fn take() -> Self {
        let mut room = ROOM.try_with(Cell::take).unwrap_or_default();
        room.resize(PIECE, 0);
        Room(room)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let room = std::mem::take(&mut self.0);
        let _ = ROOM.try_with(|own| own.replace(room));
    }
}

/// The beginning of a body.
pub(super) struct Ahead {
    pub(super) bytes: Vec<u8>,
    /// Where reads ended that did not fill what they were given: as chunks, they show on the wire.
    ends: Vec<usize>,
    /// There is no more.
    pub(super) whole: bool,
    /// There would be more.
    failed: Option<io::Error>,
}

impl Ahead {
    /// Reads up to `most` bytes.
    pub(super) fn read(reader: &mut dyn Read, most: usize) -> Self {
        let mut ahead = Ahead {
            bytes: Vec::new(),
            ends: Vec::new(),
            whole: false,
            failed: None,
        };
        let mut room = Room::take();
        let room = room.0.get_mut(..PIECE.min(most.saturating_add(1))).unwrap_or_default();
        while ahead.bytes.len() <= most {
            match reader.read(room) {
                Ok(0) => {
                    ahead.whole = true;
                    break;
                }
                Ok(n) => {
                    let piece = room.get_mut(..n).unwrap_or_default();
                    ahead.bytes.extend_from_slice(piece);
                    piece.zeroize();
                    if n < room.len() && ahead.ends.len() < READS {
                        ahead.ends.push(ahead.bytes.len());
                    }
                }
                Err(error) => {
                    ahead.failed = Some(error);
                    break;
                }
            }
        }
        ahead
    }

    /// The body again, with `rest` behind its beginning, under the eyes of `watcher`.
    pub(super) fn replay<'r>(&'r mut self, rest: &'r mut dyn Read, watcher: Option<Watcher>) -> Replay<'r> {
        Replay {
            ahead: self,
            at: 0,
            reads: 0,
            rest,
            watcher,
        }
    }
}

/// Reads what was read ahead in the same pieces, then the rest.
pub(super) struct Replay<'r> {
    ahead: &'r mut Ahead,
    at: usize,
    reads: usize,
    rest: &'r mut dyn Read,
    watcher: Option<Watcher>,
}

impl Read for Replay<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.ahead.ends.get(self.reads).is_some_and(|end| *end <= self.at) {
            self.reads += 1;
        }
        let end = self.ahead.ends.get(self.reads).copied();
        let left = self.ahead.bytes.get(self.at..end.unwrap_or(self.ahead.bytes.len()));
        if let Some(left) = left.filter(|left| !left.is_empty()) {
            let n = left.len().min(buffer.len());
            let (Some(into), Some(from)) = (buffer.get_mut(..n), left.get(..n)) else {
                return Ok(0);
            };
            into.copy_from_slice(from);
            self.at += n;
            return Ok(n);
        }
        if let Some(error) = self.ahead.failed.take() {
            return Err(error);
        }
        if self.ahead.whole {
            return Ok(0);
        }
        let n = self.rest.read(buffer)?;
        if let Some(watcher) = &self.watcher {
            match buffer.get(..n) {
                Some([]) | None => watcher.end(),
                // ureq takes its own errors out of an `io::Error`.
                Some(piece) => watcher
                    .pass(piece)
                    .map_err(|blocked| io::Error::other(Error::Other(Box::new(blocked))))?,
            }
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    /// Gives its pieces one by one.
    struct Pieces(Vec<Vec<u8>>);

    impl Read for Pieces {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let Some(piece) = self.0.first_mut() else { return Ok(0) };
            let n = piece.len().min(buffer.len());
            buffer[..n].copy_from_slice(&piece[..n]);
            piece.drain(..n);
            if piece.is_empty() {
                self.0.remove(0);
            }
            Ok(n)
        }
    }

    fn reads(reader: &mut dyn Read, size: usize) -> Vec<Vec<u8>> {
        let mut buffer = vec![0; size];
        let mut reads = Vec::new();
        loop {
            let n = reader.read(&mut buffer).unwrap();
            if n == 0 {
                return reads;
            }
            reads.push(buffer[..n].to_vec());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        #[test]
        fn reads_are_the_same_as_without_us(
            sizes in prop::collection::vec(1_usize..5000, 0..20), size in 1_usize..9000, most in 1_usize..20_000,
        ) {
            let pieces: Vec<Vec<u8>> = sizes.iter().zip(0_u8..).map(|(size, n)| vec![n; *size]).collect();
            let mut source = Pieces(pieces.clone());
            let mut ahead = Ahead::read(&mut source, most);
            prop_assert!(ahead.bytes.len() <= most + PIECE);
            let plain: usize = sizes.iter().sum();
            prop_assert_eq!(ahead.whole, plain <= most);
            if ahead.whole {
                prop_assert_eq!(reads(&mut ahead.replay(&mut source, None), size), reads(&mut Pieces(pieces), size));
            } else {
                let joined = reads(&mut ahead.replay(&mut source, None), size).concat();
                prop_assert_eq!(joined, pieces.concat());
            }
        }
    }
}
