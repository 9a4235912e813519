//! What is kept of one value: keyed hashes, lengths, strength; and its stored form.

use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::anchor::Anchor;
use super::index::{Index, Lane};
use super::words;
use crate::vocabulary::Kind;
use crate::vocabulary::canonical::{fold, phone};

/// What detection keeps of one value; the store keeps it beside the fingerprint. A function of kind
/// and canonical form alone, so that what was inserted can be removed.
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
    /// Other forms under which the value is found: digests, a phone without its calling code, an id
    /// without separators, a name's other order.
    pub(super) further: Box<[Further]>,
    /// What the filter has of it: text as it is searched, numbers without their sign, the eight
    /// digits of dates, and whatever else is found in text.
    pub(super) anchors: Box<[Anchor]>,
    /// Text without any word character.
    pub(super) wordless: bool,
}

/// The keyed hash of another form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Further {
    pub(super) lane: Lane,
    /// Bytes of what was hashed.
    pub(super) length: u8,
    pub(super) hash: u128,
}

/// Digits by which phones are found whatever their calling code.
const NATIONAL: usize = 10;
/// Fewest and most letters and digits of an id that is found with other separators; fewest of one without letters.
pub(super) const BARE: std::ops::RangeInclusive<usize> = 8..=64;
const BARE_DIGITS: usize = 12;
/// Longest text whose digests are kept: names and identifiers are shorter.
const DIGESTED: usize = 64;

const VERSION: u8 = 5;
const KINDS: [Kind; 6] = [Kind::Text, Kind::Email, Kind::Phone, Kind::Number, Kind::Date, Kind::Id];
/// Where a kind's canonical form was read as that kind; else its values are text.
const LANES: [Lane; 4] = [Lane::Text, Lane::Number, Lane::Date, Lane::Phone];
const FURTHER: [Lane; 4] = [Lane::Text, Lane::National, Lane::Digest, Lane::Bare];

impl Entry {
    /// As what the value was registered.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// The stored form; versioned, no raw value in it.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let byte = |number: usize| u8::try_from(number).unwrap_or_default();
        let place = |found: Option<usize>| found.map(byte).unwrap_or_default();
        let mut bytes = vec![
            VERSION,
            place(KINDS.iter().position(|kind| *kind == self.kind)),
            place(LANES.iter().position(|lane| *lane == self.lane)),
            u8::from(self.weak) | u8::from(self.wordless) << 1,
            byte(self.further.len()),
            byte(self.anchors.len()),
        ];
        bytes.extend(self.length.to_le_bytes());
        bytes.extend(self.needle.to_le_bytes());
        bytes.extend(self.hash.to_le_bytes());
        for further in &self.further {
            bytes.push(place(FURTHER.iter().position(|lane| *lane == further.lane)));
            bytes.push(further.length);
            bytes.extend(further.hash.to_le_bytes());
        }
        for Anchor {
            hash,
            length,
            begin,
            whole,
        } in &self.anchors
        {
            bytes.extend(hash.to_le_bytes());
            bytes.extend(length.to_le_bytes());
            bytes.extend(begin.to_le_bytes());
            bytes.extend(whole.to_le_bytes());
        }
        bytes
    }

    /// Reads the stored form; `None` if it is damaged or of another version.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let ([VERSION, kind, lane, flags @ 0..=3, further, anchors], rest) = bytes.split_first_chunk()? else {
            return None;
        };
        let mut rest = rest;
        let length = u32::from_le_bytes(take(&mut rest)?);
        let needle = u32::from_le_bytes(take(&mut rest)?);
        let hash = u128::from_le_bytes(take(&mut rest)?);
        // As long as they are: to collect options would grow them, and cut them.
        let mut all = Vec::with_capacity(usize::from(*further));
        for _ in 0..*further {
            let [lane, length] = take(&mut rest)?;
            all.push(Further {
                lane: *FURTHER.get(usize::from(lane))?,
                length,
                hash: u128::from_le_bytes(take(&mut rest)?),
            });
        }
        let further = all.into();
        let mut all = Vec::with_capacity(usize::from(*anchors));
        for _ in 0..*anchors {
            all.push(Anchor {
                hash: u32::from_le_bytes(take(&mut rest)?),
                length: u32::from_le_bytes(take(&mut rest)?),
                begin: u16::from_le_bytes(take(&mut rest)?),
                whole: u32::from_le_bytes(take(&mut rest)?),
            });
        }
        let anchors = all.into();
        let entry = Entry {
            kind: *KINDS.get(usize::from(*kind))?,
            lane: *LANES.get(usize::from(*lane))?,
            weak: flags & 1 != 0,
            wordless: flags & 2 != 0,
            length,
            needle,
            hash,
            further,
            anchors,
        };
        (rest.is_empty() && entry.needle > 0 && entry.needle <= entry.length).then_some(entry)
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*first)
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
        let mut further = Vec::new();
        let mut anchors = Vec::with_capacity(1);
        let mut anchor = |text: &str| anchors.extend(self.anchor_key.of(text.as_bytes()));
        let mut also = |lane, bytes: &[u8]| {
            further.push(Further {
                lane,
                length: u8::try_from(bytes.len()).unwrap_or(u8::MAX),
                hash: self.hash(lane, bytes),
            });
        };
        match lane {
            Lane::Number => anchor(needle.strip_prefix('-').unwrap_or(needle)),
            Lane::Date => anchor(&needle.replace('-', "")),
            _ => anchor(needle),
        }
        if lane == Lane::Phone {
            for national in nationals(needle) {
                also(Lane::National, national.as_bytes());
                anchor(national);
            }
        }
        if kind == Kind::Text
            && lane == Lane::Text
            && let Some((first, last)) = two_names(needle)
        {
            for swapped in [format!("{last} {first}"), format!("{last}, {first}")] {
                also(Lane::Text, swapped.as_bytes());
                anchor(&swapped);
            }
        }
        if kind == Kind::Id
            && let Some(bare) = bare(&folded)
        {
            also(Lane::Bare, bare.as_bytes());
            anchors.extend(self.anchor_key.of_bare(bare.as_bytes()));
        }

        // Ad platforms match on these.
        let matched = match kind {
            Kind::Email | Kind::Phone => true,
            Kind::Text => canonical.len() <= DIGESTED && !canonical.bytes().any(|byte| byte.is_ascii_digit()),
            _ => false,
        };
        let mut digest = |text: &str| {
            also(Lane::Digest, &Sha256::digest(text.as_bytes()));
            if matched {
                also(Lane::Digest, &Md5::digest(text.as_bytes()));
                also(Lane::Digest, &Sha1::digest(text.as_bytes()));
            }
        };
        digest(canonical);
        match lane {
            Lane::Date => digest(&canonical.replace('-', "")),
            Lane::Phone => digest(&format!("+{canonical}")),
            Lane::Text if folded != canonical => digest(&folded),
            Lane::Text if matched => unfolded(canonical).for_each(|text| digest(&text)),
            _ => {}
        }
        // Lengths above 4 GiB cannot be met: parts are capped far below.
        let length = |text: &str| u32::try_from(text.len()).unwrap_or(u32::MAX).max(1);
        Entry {
            kind,
            lane,
            weak: is_weak(kind, lane, &folded),
            length: length(&folded).max(length(needle)),
            needle: length(needle),
            hash: self.hash(lane, needle.as_bytes()),
            further: further.into(),
            anchors: anchors.into(),
            wordless: !needle.chars().any(words::is_word),
        }
    }
}

/// A phone's shorter forms: without trunk zero or calling code, and its last digits.
pub(super) fn nationals(digits: &str) -> impl Iterator<Item = &str> {
    let national = phone::national(digits);
    let last = last(digits, NATIONAL).filter(|last| national != Some(last));
    national.into_iter().chain(last)
}

/// First and last name, if the text could be that: two words of letters.
fn two_names(text: &str) -> Option<(&str, &str)> {
    let is_name = |word: &str| {
        let marks = |c: char| words::is_word(c) && !c.is_numeric() || matches!(c, '-' | '\'' | '.');
        // One letter is an initial, if it is no syllable.
        let long = word.chars().nth(1).is_some() || word.chars().all(words::is_lone);
        long && word.chars().all(marks) && words::needle(word) == word
    };
    let (first, last) = text.split_once(' ')?;
    (first != last && is_name(first) && is_name(last)).then_some((first, last))
}

/// Letters and digits of an id, if they tell enough without what separates them.
fn bare(folded: &str) -> Option<String> {
    let separators = |byte: u8| is_separator(byte) || byte.is_ascii_alphanumeric();
    let bare: String = folded.chars().filter(char::is_ascii_alphanumeric).collect();
    let digits = bare.bytes().filter(u8::is_ascii_digit).count();
    let telling = BARE.contains(&bare.len())
        && if digits == bare.len() {
            digits >= BARE_DIGITS
        } else {
            digits > 0
        };
    (telling && folded.bytes().all(separators) && begins_bare(bare.as_bytes())).then_some(bare)
}

/// What may stand between two groups of an id.
#[inline(always)]
pub(super) const fn is_separator(byte: u8) -> bool {
    matches!(byte, b' ' | b'-' | b'.' | b'/' | b':' | b'_')
}

/// Whether an id without separators that begins so is searched: the first eight have a digit.
#[inline(always)]
pub(super) fn begins_bare(bare: &[u8]) -> bool {
    bare.iter().take(8).any(u8::is_ascii_digit)
}

/// How text may have been written in small letters, where folding says less: with a final sigma,
/// with a sharp s.
fn unfolded(folded: &str) -> impl Iterator<Item = String> {
    let mut sigma = String::with_capacity(folded.len());
    let mut letters = folded.chars().peekable();
    while let Some(letter) = letters.next() {
        let ends = letter == '\u{3c3}' && letters.peek().is_none_or(|next| !words::is_word(*next));
        sigma.push(if ends { '\u{3c2}' } else { letter });
    }
    let sharp = folded.contains("ss").then(|| folded.replace("ss", "\u{df}"));
    [(sigma != folded).then_some(sigma), sharp].into_iter().flatten()
}

/// The last `count` bytes of digits, if there are more.
fn last(digits: &str, count: usize) -> Option<&str> {
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
