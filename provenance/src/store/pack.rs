//! How a row is written small. Every form reads back as exactly what was written; the formats are
//! specified in docs/format.md, and change only with the schema's version.

use std::borrow::Cow;

use crate::hex::{hex, push_hex};

/// The bytes of an integer: 7 bits each, the low ones first, the top bit set on all but the last (LEB128).
#[inline]
pub(super) fn varint(mut number: u64, mut byte: impl FnMut(u8)) {
    while number >= 0x80 {
        byte(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    byte(number.to_le_bytes()[0]);
}

/// Writes it.
pub(super) fn put(out: &mut Vec<u8>, number: u64) {
    varint(number, |byte| out.push(byte));
}

/// 0, -1, 1, -2, .. as 0, 1, 2, 3, ..
pub(super) fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

/// A signed integer, by its [`zigzag`].
pub(super) fn put_signed(out: &mut Vec<u8>, number: i64) {
    put(out, zigzag(number));
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// What is left to read; every step fails on what nobody of us wrote.
#[derive(Clone, Copy)]
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has one bit of use.
            if shift == 63 && bits > 1 {
                return None;
            }
            number |= bits << shift;
            if byte < 0x80 {
                // One way to write each number: two would let an edit go unseen.
                return (byte != 0 || shift == 0).then_some(number);
            }
        }
        None
    }

    pub(super) fn signed(&mut self) -> Option<i64> {
        let number = self.number()?;
        Some((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    pub(super) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        self.take(length)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(taken)
    }
}

const RAW: u8 = 0;
const KEYED: u8 = 1;
const UUID: u8 = 2;
const HEX: u8 = 3;

/// Packs a text that is often an owner (`email:` and 32 hex digits), a UUID, or hex digits.
pub(super) fn pack_text(text: &str) -> Vec<u8> {
    let mut packed = Vec::with_capacity(40);
    put_text(&mut packed, text);
    packed
}

/// Writes it packed.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    let start = out.len();
    let digits = match text.split_at_checked(text.len().saturating_sub(32)) {
        Some((kind, digits)) if digits.len() == 32 => kind.strip_suffix(':').map(|kind| (kind, digits)),
        _ => None,
    };
    if let Some((kind, digits)) = digits.filter(|(kind, _)| !kind.contains(':')) {
        out.push(KEYED);
        out.extend_from_slice(kind.as_bytes());
        if put_hex(out, digits) {
            return;
        }
        out.truncate(start);
    }
    if let Some(groups) = uuid(text) {
        out.push(UUID);
        if groups.iter().all(|group| put_hex(out, group)) {
            return;
        }
        out.truncate(start);
    }
    if !text.is_empty() {
        out.push(HEX);
        if put_hex(out, text) {
            return;
        }
        out.truncate(start);
    }
    out.push(RAW);
    out.extend_from_slice(text.as_bytes());
}

/// Reads what [`pack_text`] wrote.
pub(super) fn unpack_text(packed: &[u8]) -> Option<String> {
    let (form, rest) = packed.split_first()?;
    match *form {
        RAW => Some(std::str::from_utf8(rest).ok()?.to_owned()),
        KEYED => {
            let (kind, value) = rest.split_last_chunk::<16>()?;
            let mut text = std::str::from_utf8(kind).ok()?.to_owned();
            text.push(':');
            push_hex(&mut text, value);
            Some(text)
        }
        UUID => {
            let digits = hex(rest);
            let cut = |from: usize, to: usize| digits.get(from..to);
            (digits.len() == 32).then_some(())?;
            Some(format!(
                "{}-{}-{}-{}-{}",
                cut(0, 8)?,
                cut(8, 12)?,
                cut(12, 16)?,
                cut(16, 20)?,
                cut(20, 32)?
            ))
        }
        HEX => Some(hex(rest)),
        _ => None,
    }
}

/// Writes the bytes that lower-case hex digits of even number stand for; `false` for anything else, with some written.
pub(super) fn put_hex(out: &mut Vec<u8>, text: &str) -> bool {
    const NONE: u8 = 0xff;
    const VALUES: [u8; 256] = {
        let mut values = [NONE; 256];
        let mut digit = 0;
        while digit < 16 {
            values[b"0123456789abcdef"[digit] as usize] = digit as u8;
            digit += 1;
        }
        values
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let mut seen = 0;
    out.extend(pairs.iter().map(|[high, low]| {
        let (high, low) = (VALUES[usize::from(*high)], VALUES[usize::from(*low)]);
        seen |= high | low;
        high << 4 | low
    }));
    rest.is_empty() && seen < 16
}

/// The groups of digits, where it has the form.
fn uuid(text: &str) -> Option<[&str; 5]> {
    let mut groups = text.split('-');
    let groups =
        (text.len() == 36).then(|| [8, 4, 4, 4, 12].map(|length| groups.next().filter(|g| g.len() == length)))?;
    let [Some(a), Some(b), Some(c), Some(d), Some(e)] = groups else {
        return None;
    };
    Some([a, b, c, d, e])
}

/// Stands for a number in a template.
pub(super) const NUMBER: char = '\u{1}';
/// Stands for hex digits in a template.
pub(super) const DIGITS: char = '\u{2}';
/// Fewer hex digits than this are part of the template.
pub(super) const MIN_DIGITS: usize = 16;

/// Puts the arguments back; `None` where they do not fit.
pub(super) fn fill(template: &str, arguments: &[u8]) -> Option<String> {
    let mut arguments = Input(arguments);
    let mut text = String::with_capacity(template.len() + 16);
    let mut rest = template;
    while let Some(at) = rest.find([NUMBER, DIGITS]) {
        text.push_str(rest.get(..at)?);
        match rest.get(at..=at) {
            Some("\u{1}") => text.push_str(&arguments.number()?.to_string()),
            _ => push_hex(&mut text, arguments.bytes()?),
        }
        rest = rest.get(at + 1..)?;
    }
    text.push_str(rest);
    arguments.is_empty().then_some(text)
}

/// A JSON text as it stands in a column: 0 and the text, or the number of its template (above 0) and
/// the arguments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Packed<'a> {
    Text(&'a [u8]),
    Template { id: u32, arguments: &'a [u8] },
}

impl<'a> Packed<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut input = Input(bytes);
        Some(match u32::try_from(input.number()?).ok()? {
            0 => Packed::Text(input.0),
            id => Packed::Template { id, arguments: input.0 },
        })
    }
}

/// A tag as it stands in an event's row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum PackedTag<'a> {
    /// Its commitment stands for it.
    Erased(&'a [u8; 32]),
    Tag {
        /// Number of the text that says category, field, description, source and whether it is personal.
        kind: u32,
        fingerprint: Option<&'a [u8; 32]>,
        /// A packed text.
        owner: Option<Cow<'a, [u8]>>,
        /// Microseconds since 1970.
        created_at: i64,
        /// A packed JSON text; empty for `{}`.
        detail: &'a [u8],
    },
}

impl PackedTag<'_> {
    /// What it begins with, in an event with this owner and time.
    pub(super) fn flags(&self, event_owner: Option<&[u8]>, event_at: i64) -> u8 {
        let PackedTag::Tag {
            fingerprint,
            owner,
            created_at,
            detail,
            ..
        } = self
        else {
            return ERASED;
        };
        let same_owner = owner.is_some() && owner.as_deref() == event_owner;
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        flag(fingerprint.is_some(), FINGERPRINT)
            | flag(owner.is_some() && !same_owner, OWNER)
            | flag(same_owner, SAME_OWNER)
            | flag(*created_at == event_at, SAME_TIME)
            | flag(!detail.is_empty(), DETAIL)
    }
}

const ERASED: u8 = 1;
const FINGERPRINT: u8 = 2;
const OWNER: u8 = 4;
/// The owner is the event's.
const SAME_OWNER: u8 = 8;
/// It was first seen at the event's time.
const SAME_TIME: u8 = 16;
const DETAIL: u8 = 32;

/// Appends a tag to those of an event with this owner and time.
pub(super) fn put_tag(out: &mut Vec<u8>, tag: &PackedTag<'_>, event_owner: Option<&[u8]>, event_at: i64) {
    match tag {
        PackedTag::Erased(commitment) => {
            out.push(ERASED);
            out.extend_from_slice(*commitment);
        }
        PackedTag::Tag {
            kind,
            fingerprint,
            owner,
            created_at,
            detail,
        } => {
            let same_owner = owner.is_some() && owner.as_deref() == event_owner;
            out.push(tag.flags(event_owner, event_at));
            put(out, u64::from(*kind));
            if let Some(fingerprint) = fingerprint {
                out.extend_from_slice(*fingerprint);
            }
            if let Some(owner) = owner
                && !same_owner
            {
                put_bytes(out, owner);
            }
            if *created_at != event_at {
                put_signed(out, event_at.wrapping_sub(*created_at));
            }
            if !detail.is_empty() {
                put_bytes(out, detail);
            }
        }
    }
}

/// Reads the tags of an event one by one; a broken one ends it with `None` inside.
pub(super) struct Tags<'a> {
    input: Input<'a>,
    owner: Option<&'a [u8]>,
    event_at: i64,
}

impl<'a> Tags<'a> {
    pub(super) fn read(bytes: &'a [u8], owner: Option<&'a [u8]>, event_at: i64) -> Self {
        Tags {
            input: Input(bytes),
            owner,
            event_at,
        }
    }

    fn tag(&mut self) -> Option<PackedTag<'a>> {
        let flags = self.input.byte()?;
        if flags == ERASED {
            return Some(PackedTag::Erased(self.input.array()?));
        }
        let has = |flag: u8| flags & flag != 0;
        if flags > 63 || has(ERASED) || has(OWNER) && has(SAME_OWNER) || has(SAME_OWNER) && self.owner.is_none() {
            return None;
        }
        let kind = u32::try_from(self.input.number()?).ok()?;
        let fingerprint = if has(FINGERPRINT) {
            Some(self.input.array()?)
        } else {
            None
        };
        let owner = match (has(OWNER), has(SAME_OWNER)) {
            (true, _) => Some(self.input.bytes().filter(|owner| Some(*owner) != self.owner)?),
            (_, true) => self.owner,
            _ => None,
        };
        let created_at = match has(SAME_TIME) {
            true => self.event_at,
            false => self.event_at.wrapping_sub(self.input.signed().filter(|ago| *ago != 0)?),
        };
        let detail = match has(DETAIL) {
            true => self.input.bytes().filter(|detail| !detail.is_empty())?,
            false => &[],
        };
        Some(PackedTag::Tag {
            kind,
            fingerprint,
            owner: owner.map(Cow::Borrowed),
            created_at,
            detail,
        })
    }
}

impl<'a> Iterator for Tags<'a> {
    type Item = Option<PackedTag<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.input.is_empty() {
            return None;
        }
        let tag = self.tag();
        if tag.is_none() {
            self.input = Input(&[]);
        }
        Some(tag)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn owners_uuids_and_digits_are_packed() {
        for (text, size) in [
            ("email:00112233445566778899aabbccddeeff", 22),
            ("018f4c2e-9d3a-7cc1-8a55-0123456789ab", 17),
            ("00112233445566778899aabbccddeeff", 17),
            ("email:ADA", 10),
            ("", 1),
        ] {
            let packed = pack_text(text);
            assert_eq!(packed.len(), size, "{text}");
            assert_eq!(unpack_text(&packed).as_deref(), Some(text));
        }
    }

    proptest! {
        #[test]
        fn every_text_comes_back(text in r#"(\PC|[:",}{0-9a-f\x01\x02]){0,60}|[a-z]{0,3}:[0-9a-g]{32}|[0-9a-g]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"#) {
            prop_assert_eq!(unpack_text(&pack_text(&text)), Some(text));
        }

        #[test]
        fn every_number_comes_back(number: u64, signed: i64) {
            let mut out = Vec::new();
            put(&mut out, number);
            put_signed(&mut out, signed);
            let mut input = Input(&out);
            prop_assert_eq!((input.number(), input.signed()), (Some(number), Some(signed)));
            prop_assert!(input.is_empty());
        }

        #[test]
        fn hostile_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            let _ = unpack_text(&bytes);
            let _ = Packed::read(&bytes);
            let _ = fill("{\"a\":\u{1},\"b\":\"\u{2}\"}", &bytes);
            let _ = Tags::read(&bytes, Some(&bytes), 5).count();
        }

        #[test]
        fn tags_come_back(
            tags in prop::collection::vec((any::<u32>(), any::<bool>(), 0..3u8, any::<i64>(), any::<Vec<u8>>()), 0..5),
        ) {
            let own = pack_text("user:1");
            let commitment = [7; 32];
            let tags: Vec<PackedTag> = tags
                .iter()
                .map(|(kind, fingerprint, owner, created_at, detail)| match detail.first() {
                    Some(3) => PackedTag::Erased(&commitment),
                    _ => PackedTag::Tag {
                        kind: *kind,
                        fingerprint: fingerprint.then_some(&commitment),
                        owner: match owner {
                            0 => None,
                            1 => Some(own.clone().into()),
                            _ => Some(pack_text("user:2").into()),
                        },
                        created_at: *created_at,
                        detail,
                    },
                })
                .collect();
            let mut bytes = Vec::new();
            tags.iter().for_each(|tag| put_tag(&mut bytes, tag, Some(&own), 77));
            let back: Option<Vec<PackedTag>> = Tags::read(&bytes, Some(&own), 77).collect();
            prop_assert_eq!(back, Some(tags));
        }
    }
}
