//! A body scanned piece by piece, in bounded memory: windows that overlap.

use std::collections::HashMap;

use crate::detect::{Detector, Hit, Limits, Media, Message, Part, Scan};
use crate::vocabulary::Fingerprint;

/// Bytes that are scanned at a time.
const WINDOW: usize = 64 << 10;
/// Longest value that is found across a border.
const OVERLAP: usize = 4 << 10;
/// Most places of one value that are kept.
const PLACES: u8 = 16;

/// Windows over a body. They are searched as text, so places are ranges: `body@70010..70027`.
pub(super) struct Windows {
    /// What has been searched and may begin a value, then what has not been searched yet.
    buffer: Vec<u8>,
    /// How much of the buffer has been searched.
    searched: usize,
    /// Where the buffer begins in the body.
    offset: u64,
    found: Scan,
    places: HashMap<Fingerprint, u8>,
    limits: Limits,
}

impl Windows {
    /// Windows over what follows `beginning`, which has been searched already.
    pub(super) fn after(beginning: &[u8]) -> Self {
        let mut windows = Windows {
            buffer: Vec::new(),
            searched: 0,
            offset: 0,
            found: Scan::default(),
            places: HashMap::new(),
            limits: Limits::default(),
        };
        let kept = tail(beginning);
        windows.buffer.extend_from_slice(kept);
        windows.searched = kept.len();
        windows.offset = (beginning.len() - kept.len()) as u64;
        windows
    }

    /// Takes the next piece, and searches whenever a window is full.
    pub(super) fn push(&mut self, detector: &Detector, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = (self.searched + WINDOW).saturating_sub(self.buffer.len()).max(1);
            let (piece, rest) = bytes.split_at(room.min(bytes.len()));
            self.buffer.extend_from_slice(piece);
            bytes = rest;
            if self.buffer.len() - self.searched >= WINDOW {
                // A word that is cut in two is searched with its second half.
                let end = last_border(&self.buffer, self.searched).unwrap_or(self.buffer.len());
                self.search(detector, end);
            }
        }
    }

    /// Searches all that has come.
    pub(super) fn flush(&mut self, detector: &Detector) {
        if self.buffer.len() > self.searched {
            self.search(detector, self.buffer.len());
        }
    }

    /// Everything found so far.
    pub(super) fn found(&self) -> &Scan {
        &self.found
    }

    /// Everything found so far, to be counted elsewhere; what follows is counted anew.
    pub(super) fn take_found(&mut self) -> Scan {
        self.places.clear();
        std::mem::take(&mut self.found)
    }

    /// Adds what cannot be searched.
    pub(super) fn lose(&mut self, bytes: usize) {
        self.found.unscanned = self.found.unscanned.saturating_add(bytes);
    }

    fn search(&mut self, detector: &Detector, end: usize) {
        let window = self.buffer.get(..end).unwrap_or(&self.buffer);
        let message = Message {
            parts: vec![Part {
                place: "body".into(),
                bytes: window,
                media: Media::Text,
            }],
        };
        let scan = detector.scan(&message, self.limits);
        self.found.dropped = self.found.dropped.saturating_add(scan.dropped);
        // What the overlap holds was counted before.
        let length = window.len();
        let fresh = length.saturating_sub(self.searched);
        self.found.unscanned = self.found.unscanned.saturating_add(scan.unscanned.min(fresh));
        for mut hit in scan.hits {
            let (from, to) = range(&hit.place).unwrap_or((0, length));
            if to <= self.searched {
                continue;
            }
            let at = |within: usize| self.offset + within as u64;
            hit.place = format!("body@{}..{}", at(from), at(to));
            self.keep(hit);
        }
        for mut shape in scan.shapes {
            let (from, to) = range(&shape.place).unwrap_or((0, length));
            if to <= self.searched {
                continue;
            }
            if self.found.shapes.len() >= self.limits.hits {
                self.found.dropped = self.found.dropped.saturating_add(1);
                continue;
            }
            shape.place = format!("body@{}..{}", self.offset + from as u64, self.offset + to as u64);
            self.found.shapes.push(shape);
        }
        let kept = tail(self.buffer.get(..end).unwrap_or_default()).len();
        let start = end - kept;
        self.buffer.drain(..start);
        self.offset += start as u64;
        self.searched = kept;
    }

    fn keep(&mut self, hit: Hit) {
        let places = self.places.entry(hit.fingerprint).or_default();
        if *places >= PLACES || self.found.hits.len() >= self.limits.hits {
            self.found.dropped = self.found.dropped.saturating_add(1);
            return;
        }
        *places += 1;
        self.found.hits.push(hit);
    }
}

/// The range that a place names.
fn range(place: &str) -> Option<(usize, usize)> {
    let (from, to) = place.rsplit_once('@')?.1.split_once("..")?;
    Some((from.parse().ok()?, to.parse().ok()?))
}

/// The end of `bytes` in which a value may begin whose end is not there yet; from a border on, as
/// what is left of a word is another word.
fn tail(bytes: &[u8]) -> &[u8] {
    let last = bytes.get(bytes.len().saturating_sub(OVERLAP)..).unwrap_or(bytes);
    if last.len() == bytes.len() {
        return last;
    }
    let border = last.iter().position(|byte| is_border(*byte));
    border.and_then(|at| last.get(at..)).unwrap_or(last)
}

/// Where the last word of `bytes` begins, behind `from`.
fn last_border(bytes: &[u8], from: usize) -> Option<usize> {
    let found = bytes.get(from..)?.iter().rposition(|byte| is_border(*byte))?;
    // Long words are cut all the same.
    let border = from + found + 1;
    (bytes.len() - border <= OVERLAP).then_some(border)
}

fn is_border(byte: u8) -> bool {
    byte.is_ascii_whitespace()
        || matches!(
            byte,
            b'"' | b',' | b';' | b'&' | b'<' | b'>' | b'{' | b'}' | b'[' | b']'
        )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;
    use crate::vocabulary::Kind;

    fn detector(values: &[&str]) -> Detector {
        let detector = Detector::new(&[7; 32]);
        for (number, value) in (1_u8..).zip(values) {
            let entry = detector.entry(Kind::Text, value);
            detector.insert(&entry, Fingerprint([number; 32]));
        }
        detector
    }

    fn places(windows: &Windows) -> Vec<(u8, String)> {
        let hits = windows.found().hits.iter();
        hits.map(|hit| (hit.fingerprint.0[0], hit.place.clone())).collect()
    }

    #[test]
    fn a_value_on_a_border_is_found_once_and_parts_of_words_never() {
        let detector = detector(&["alice@example.com", "alice@example.co"]);
        let filler = "word ".repeat(WINDOW / 5 * 3);
        for shift in 0..24 {
            let at = 2 * WINDOW - shift;
            let mut body = filler.clone().into_bytes();
            body[at - 1] = b' ';
            body[at..at + 17].copy_from_slice(b"alice@example.com");
            body[at + 17] = b' ';
            let mut windows = Windows::after(&[]);
            windows.push(&detector, &body);
            windows.flush(&detector);
            assert_eq!(places(&windows), [(1, format!("body@{at}..{}", at + 17))], "{shift}");
        }
    }

    #[test]
    fn memory_is_bounded_whatever_comes() {
        let detector = detector(&["alice@example.com"]);
        let mut windows = Windows::after(&[b'x'; 100_000]);
        for _ in 0..200 {
            windows.push(&detector, &[b'x'; 100_000]);
            assert!(windows.buffer.len() <= WINDOW + 2 * OVERLAP);
        }
        windows.push(&detector, &b" alice@example.com".repeat(40));
        windows.flush(&detector);
        assert_eq!(windows.found().hits.len(), usize::from(PLACES));
        assert_eq!(windows.found().dropped, 40 - usize::from(PLACES));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        /// However a body is cut, the same is found at the same places.
        #[test]
        fn pieces_do_not_matter(
            words in prop::collection::vec((0_usize..60, 0_u8..4), 1..400),
            pieces in prop::collection::vec(1_usize..9000, 1..60),
        ) {
            let detector = detector(&["alice@example.com", "Guildford Surrey", "bob@example.com"]);
            let mut body = String::new();
            for (filler, value) in words {
                body.push_str(&"lorem, ".repeat(filler));
                body.push_str(["alice@example.com ", "Guildford Surrey\n", "bob@example.com, ", "malice@example.com "][usize::from(value)]);
            }
            let whole = detector.scan(
                &Message { parts: vec![Part { place: "body".into(), bytes: body.as_bytes(), media: Media::Text }] },
                Limits::default(),
            );
            let mut expected: Vec<_> = whole.hits.iter().map(|hit| (hit.fingerprint.0[0], hit.place.clone())).collect();
            let mut windows = Windows::after(&[]);
            let mut rest = body.as_bytes();
            for piece in pieces.iter().cycle() {
                let (now, later) = rest.split_at((*piece).min(rest.len()));
                windows.push(&detector, now);
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            windows.flush(&detector);
            let mut found = places(&windows);
            if body.len() > 64 && expected.iter().all(|(_, place)| place.contains('@')) {
                expected.sort();
                found.sort();
                prop_assert_eq!(found, expected);
            }
        }
    }
}
