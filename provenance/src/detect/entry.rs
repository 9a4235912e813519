//! What is kept of one value: keyed hashes, lengths, strength; and its stored form.

use sha2::{Digest, Sha256};

use super::filter::Anchor;
use super::index::{Index, Lane};
use super::words;
use crate::vocabulary::Kind;
use crate::vocabulary::canonical::{fold, phone};

/// What detection keeps of one value; the store keeps it beside the fingerprint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(super) kind: Kind,
    pub(super) lane: Lane,
    pub(super) weak: bool,
    /// Bytes of the folded canonical form.
    pub(super) length: u32,
    /// Bytes of it that are searched: without the non-word characters at its ends.
    pub(super) needle: u32,
    pub(super) hash: u128,
    /// The hash of a phone's last 10 digits, if there are more, else 0.
    pub(super) second: u128,
    /// Hashes of the SHA-256 digests under which the value is likely to travel; 0 for none.
    pub(super) digests: [u128; 2],
    /// What the filter has of it: text as it is searched, numbers without their sign, the eight
    /// digits of dates, phones in full and their last 10 digits.
    pub(super) anchors: [Option<Anchor>; 2],
    /// Text without any word character.
    pub(super) wordless: bool,
}

/// Digits by which phones are found without their country code.
pub(super) const NATIONAL: usize = 10;

const VERSION: u8 = 2;
const STORED: usize = 4 + 4 + 4 + 4 * 16 + 2 * 12;
const KINDS: [Kind; 6] = [Kind::Text, Kind::Email, Kind::Phone, Kind::Number, Kind::Date, Kind::Id];
/// Where a kind's canonical form was read as that kind; else its values are text.
const LANES: [Lane; 4] = [Lane::Text, Lane::Number, Lane::Date, Lane::Phone];

impl Entry {
    /// The stored form; versioned, no raw value in it.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let place = |found: Option<usize>| found.and_then(|at| u8::try_from(at).ok()).unwrap_or_default();
        let mut bytes = vec![
            VERSION,
            place(KINDS.iter().position(|kind| *kind == self.kind)),
            place(LANES.iter().position(|lane| *lane == self.lane)),
            u8::from(self.weak) | u8::from(self.wordless) << 1,
        ];
        bytes.extend(self.length.to_le_bytes());
        bytes.extend(self.needle.to_le_bytes());
        for hash in [self.hash, self.second, self.digests[0], self.digests[1]] {
            bytes.extend(hash.to_le_bytes());
        }
        for anchor in self.anchors {
            let Anchor { hash, length, begin } = anchor.unwrap_or_default();
            for part in [hash, length, begin.into()] {
                bytes.extend(part.to_le_bytes());
            }
        }
        bytes
    }

    /// Reads the stored form; `None` if it is damaged or of another version.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; STORED] = bytes.try_into().ok()?;
        let [VERSION, kind, lane, flags @ 0..=3, rest @ ..] = bytes else {
            return None;
        };
        let (lengths, rest) = rest.split_at_checked(8)?;
        let (hashes, anchors) = rest.split_at_checked(64)?;
        let (mut lengths, mut hashes, mut anchors) = (quads(lengths), wides(hashes), quads(anchors));
        let mut anchor = || {
            let (hash, length) = (anchors.next()?, anchors.next()?);
            let begin = u16::try_from(anchors.next()?).ok()?;
            Some((length > 0).then_some(Anchor { hash, length, begin }))
        };
        let entry = Entry {
            kind: *KINDS.get(usize::from(*kind))?,
            lane: *LANES.get(usize::from(*lane))?,
            weak: flags & 1 != 0,
            wordless: flags & 2 != 0,
            length: lengths.next()?,
            needle: lengths.next()?,
            hash: hashes.next()?,
            second: hashes.next()?,
            digests: [hashes.next()?, hashes.next()?],
            anchors: [anchor()?, anchor()?],
        };
        (entry.needle > 0 && entry.needle <= entry.length).then_some(entry)
    }
}

fn quads(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word))
}

fn wides(bytes: &[u8]) -> impl Iterator<Item = u128> {
    bytes.as_chunks().0.iter().map(|wide| u128::from_le_bytes(*wide))
}

impl Index {
    pub(super) fn entry(&self, kind: Kind, canonical: &str) -> Entry {
        // Ids keep their case in canonical form; search disregards it.
        let folded = fold::fold(canonical);
        let lane = lane(kind, canonical);
        let needle = match lane {
            Lane::Text => words::needle(&folded),
            _ => canonical,
        };
        let second = match lane {
            Lane::Phone => last(needle, NATIONAL).map_or(0, |last| self.hash(Lane::National, last.as_bytes())),
            _ => 0,
        };
        let anchor = |text: &str| self.anchor_key.of(text.as_bytes());
        let anchors = match lane {
            Lane::Number => [anchor(needle.strip_prefix('-').unwrap_or(needle)), None],
            Lane::Date => [anchor(&needle.replace('-', "")), None],
            Lane::Phone => [anchor(needle), last(needle, NATIONAL).and_then(anchor)],
            _ => [anchor(needle), None],
        };
        let digest = |text: &str| self.hash(Lane::Digest, &Sha256::digest(text.as_bytes()));
        let other_digest = match lane {
            Lane::Date => digest(&canonical.replace('-', "")),
            Lane::Phone => digest(&format!("+{canonical}")),
            Lane::Text if folded != canonical => digest(&folded),
            _ => 0,
        };
        // Lengths above 4 GiB cannot be met: parts are capped far below.
        let length = |text: &str| u32::try_from(text.len()).unwrap_or(u32::MAX).max(1);
        Entry {
            kind,
            lane,
            weak: is_weak(kind, lane, &folded),
            length: length(&folded).max(length(needle)),
            needle: length(needle),
            hash: self.hash(lane, needle.as_bytes()),
            second,
            digests: [digest(canonical), other_digest],
            anchors,
            wordless: !needle.chars().any(words::is_word),
        }
    }
}

/// The last `count` bytes of digits, if there are more.
pub(super) fn last(digits: &str, count: usize) -> Option<&str> {
    let cut = digits.len().checked_sub(count).filter(|cut| *cut > 0)?;
    digits.get(cut..)
}

fn lane(kind: Kind, canonical: &str) -> Lane {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match kind {
        Kind::Number => {
            let unsigned = canonical.strip_prefix('-').unwrap_or(canonical);
            match unsigned.split_once('.').unwrap_or((unsigned, "0")) {
                (whole, fraction) if digits(whole) && digits(fraction) => Lane::Number,
                _ => Lane::Text,
            }
        }
        Kind::Date
            if canonical
                .parse::<jiff::civil::Date>()
                .is_ok_and(|date| date.to_string() == canonical) =>
        {
            Lane::Date
        }
        Kind::Phone if digits(canonical) && phone::DIGITS.contains(&canonical.len()) => Lane::Phone,
        Kind::Text | Kind::Email | Kind::Id | Kind::Date | Kind::Phone => Lane::Text,
    }
}

fn is_weak(kind: Kind, lane: Lane, folded: &str) -> bool {
    // A character of Han says as much as a syllable.
    let length: usize = folded.chars().map(|c| if words::is_lone(c) { 3 } else { 1 }).sum();
    match lane {
        Lane::Date => false,
        Lane::Phone => length < 7,
        Lane::Number => {
            let digits = folded.trim_start_matches(['-', '0', '.']);
            let digits = if folded.contains('.') {
                digits
            } else {
                digits.trim_end_matches('0')
            };
            digits.bytes().filter(u8::is_ascii_digit).count() < 6
        }
        _ if kind == Kind::Id => length < 8,
        _ if folded.contains('@') => length < 6,
        _ if folded.contains(' ') => length < 8,
        _ if folded.chars().all(char::is_alphabetic) => length < 12,
        _ => length < 10,
    }
}
