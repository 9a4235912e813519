//! Bytes of a spill file: a head, then frames that can be told whole one by one.
//!
//! ```text
//! head:  "PROVSPIL"  version u32  id 16 bytes  instance 8 bytes  CRC-32 of what is before
//! frame: F5 'p' 'r' 'v'  length u32  CRC-32 of length and payload  payload
//! ```
//!
//! Numbers are little-endian. F5 stands nowhere in UTF-8: within a payload there is no mark.

use std::io::{self, Read, Seek, SeekFrom};

const MAGIC: [u8; 8] = *b"PROVSPIL";
const VERSION: u32 = 1;
/// Bytes of the head.
pub(super) const HEAD: u64 = 40;
const MARK: [u8; 4] = [0xf5, b'p', b'r', b'v'];
/// Bytes before a payload.
const FRAME: u64 = 12;
/// Longest payload.
const LONGEST: usize = 64 << 20;

/// Whose file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Random, for each process.
    pub(super) id: [u8; 16],
    pub(super) instance: [u8; 8],
}

/// What stands where a head should.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Head(Head),
    /// Of a later version of this crate.
    Newer,
    Damaged,
}

impl Head {
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::from(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(self.id);
        bytes.extend(self.instance);
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    pub(super) fn read(mut input: impl Read) -> io::Result<Found> {
        let mut bytes = Vec::new();
        input.by_ref().take(HEAD).read_to_end(&mut bytes)?;
        let mut rest = bytes.as_slice();
        let mut read = || {
            let before = rest;
            let (magic, version) = (take::<8>(&mut rest)?, u32::from_le_bytes(take(&mut rest)?));
            if magic != MAGIC {
                return None;
            }
            if version > VERSION {
                return Some(Found::Newer);
            }
            let head = Head {
                id: take(&mut rest)?,
                instance: take(&mut rest)?,
            };
            let hashed = before.get(..before.len().checked_sub(rest.len())?)?;
            let whole = u32::from_le_bytes(take(&mut rest)?) == crc32fast::hash(hashed);
            (whole && version == VERSION).then_some(Found::Head(head))
        };
        Ok(read().unwrap_or(Found::Damaged))
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*first)
}

/// Appends a frame; `false` for a payload that is too long.
pub(super) fn push(payload: &[u8], to: &mut Vec<u8>) -> bool {
    let Some(length) = u32::try_from(payload.len()).ok().filter(|_| payload.len() <= LONGEST) else {
        return false;
    };
    to.extend(MARK);
    to.extend(length.to_le_bytes());
    to.extend(crc(length, payload).to_le_bytes());
    to.extend(payload);
    true
}

fn crc(length: u32, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

/// Payloads of whole frames, in order. What is not whole is passed over, and counted.
pub(super) struct Frames<R> {
    input: R,
    /// Where the next frame begins.
    pub(super) offset: u64,
    end: u64,
    /// Bytes that belong to no whole frame.
    pub(super) passed_over: u64,
}

impl<R: Read + Seek> Frames<R> {
    /// Reads from one offset to another; `input` may stand anywhere.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn new(mut input: R, offset: u64, end: u64) -> io::Result<Self> {
        input.seek(SeekFrom::Start(offset))?;
        Ok(Frames {
            input,
            offset,
            end,
            passed_over: 0,
        })
    }

    /// The next payload; `None` at the end.
    ///
    /// # Errors
    /// It cannot be read: try again with new frames.
    pub(super) fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        while self.offset < self.end {
            if let Some(payload) = self.whole()? {
                self.offset += FRAME + payload.len() as u64;
                return Ok(Some(payload));
            }
            let mark = self.mark_after(self.offset)?;
            self.passed_over += mark - self.offset;
            self.offset = mark;
            self.input.seek(SeekFrom::Start(mark))?;
        }
        Ok(None)
    }

    /// The payload at the offset, if the frame there is whole.
    fn whole(&mut self) -> io::Result<Option<Vec<u8>>> {
        let left = self.end - self.offset;
        let mut head = [0; FRAME as usize];
        if left < FRAME || !full(self.input.read_exact(&mut head))? {
            return Ok(None);
        }
        let mut rest = head.as_slice();
        let (Some(mark), Some(length), Some(sum)) = (take(&mut rest), take(&mut rest), take(&mut rest)) else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(length);
        if mark != MARK || u64::from(length) > left - FRAME || length as usize > LONGEST {
            return Ok(None);
        }
        let mut payload = vec![0; length as usize];
        let whole = full(self.input.read_exact(&mut payload))? && crc(length, &payload) == u32::from_le_bytes(sum);
        Ok(whole.then_some(payload))
    }

    /// Where the next mark begins after `offset`; the end if there is none.
    fn mark_after(&mut self, offset: u64) -> io::Result<u64> {
        let mut from = offset + 1;
        let mut window = Vec::new();
        while from < self.end {
            self.input.seek(SeekFrom::Start(from))?;
            window.clear();
            let most = (self.end - from).min(64 << 10);
            self.input.by_ref().take(most).read_to_end(&mut window)?;
            if let Some(found) = memchr::memmem::find(&window, &MARK) {
                return Ok(from + found as u64);
            }
            // A mark may lie across the border of two windows.
            let step = window.len().saturating_sub(MARK.len() - 1);
            if step == 0 {
                break;
            }
            from += step as u64;
        }
        Ok(self.end)
    }
}

/// Whether as much was there as was asked for.
fn full(read: io::Result<()>) -> io::Result<bool> {
    match read {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> (Vec<Vec<u8>>, u64) {
        let mut frames = Frames::new(Cursor::new(bytes), 0, bytes.len() as u64).unwrap();
        let mut payloads = Vec::new();
        while let Some(payload) = frames.next().unwrap() {
            payloads.push(payload);
        }
        (payloads, frames.passed_over)
    }

    fn framed(payloads: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        assert!(payloads.iter().all(|payload| push(payload, &mut bytes)));
        bytes
    }

    fn payloads() -> impl Strategy<Value = Vec<Vec<u8>>> {
        proptest::collection::vec("[a-zé\\{\\}]{0,40}".prop_map(String::into_bytes), 1..8)
    }

    proptest! {
        #[test]
        fn a_tail_that_is_cut_off_costs_no_whole_frame(payloads in payloads()) {
            let bytes = framed(&payloads);
            let ends: Vec<_> = (0..=payloads.len()).map(|n| framed(&payloads[..n]).len()).collect();
            for cut in 0..=bytes.len() {
                let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
                let (found, passed_over) = read(&bytes[..cut]);
                prop_assert_eq!(&found, &payloads[..whole].to_vec());
                prop_assert_eq!(passed_over, (cut - ends[whole]) as u64);
            }
        }

        #[test]
        fn a_damaged_byte_costs_one_frame(payloads in payloads(), at in any::<prop::sample::Index>(), by in 1..=255_u8) {
            let mut bytes = framed(&payloads);
            let at = at.index(bytes.len());
            bytes[at] ^= by;
            let ends: Vec<_> = (1..=payloads.len()).map(|n| framed(&payloads[..n]).len()).collect();
            let hit = ends.iter().position(|end| at < *end).unwrap();
            let mut left = payloads.clone();
            let lost = left.remove(hit).len() as u64 + FRAME;
            prop_assert_eq!(read(&bytes), (left, lost));
        }

        #[test]
        fn anything_may_be_read(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let (payloads, passed_over) = read(&bytes);
            let whole: u64 = payloads.iter().map(|payload| payload.len() as u64 + FRAME).sum();
            prop_assert_eq!(whole + passed_over, bytes.len() as u64);
            let _ = Head::read(bytes.as_slice()).unwrap();
        }
    }

    #[test]
    fn what_lies_between_marks_far_apart_is_passed_over() {
        let mut bytes = framed(&[b"one".to_vec()]);
        for gap in [65_534, 65_535, 65_536, 65_537, 200_000] {
            bytes.extend(vec![b'x'; gap]);
            push(b"two", &mut bytes);
        }
        let (payloads, passed_over) = read(&bytes);
        assert_eq!(payloads.len(), 6);
        assert_eq!(passed_over, 65_534 + 65_535 + 65_536 + 65_537 + 200_000);
    }

    #[test]
    fn a_head_is_read_back_and_no_other() {
        let head = Head {
            id: [3; 16],
            instance: [5; 8],
        };
        let bytes = head.to_bytes();
        assert_eq!(bytes.len() as u64, HEAD);
        assert_eq!(Head::read(bytes.as_slice()).unwrap(), Found::Head(head));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x40;
            let found = Head::read(damaged.as_slice()).unwrap();
            assert!(!matches!(found, Found::Head(_)), "{at}");
            assert_eq!(Head::read(&bytes[..at]).unwrap(), Found::Damaged);
        }
        let mut newer = bytes;
        newer[8] = 2;
        assert_eq!(Head::read(newer.as_slice()).unwrap(), Found::Newer);
    }
}
