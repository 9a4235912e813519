//! How a row is written small. Every form reads back as exactly what was written; the formats are
//! specified in docs/format.md, and change only with the schema's version.

use std::borrow::Cow;

/// Writes integers of 7 bits a byte, the low ones first, the top bit set on all but the last (LEB128).
pub(super) fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

/// A signed integer: 0, -1, 1, -2, .. as 0, 1, 2, 3, ..
pub(super) fn put_signed(out: &mut Vec<u8>, number: i64) {
    put(out, ((number << 1) ^ (number >> 63)).cast_unsigned());
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
    if let Some((kind, value)) = text.split_once(':')
        && value.len() == 32
        && let Some(bytes) = from_hex(value)
    {
        return [&[KEYED], kind.as_bytes(), &bytes].concat();
    }
    if let Some(bytes) = from_uuid(text) {
        return [&[UUID], bytes.as_slice()].concat();
    }
    match from_hex(text) {
        Some(bytes) if !bytes.is_empty() => [&[HEX], bytes.as_slice()].concat(),
        _ => [&[RAW], text.as_bytes()].concat(),
    }
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

/// Lower-case hex digits of even number; `None` for anything else.
fn from_hex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs
        .iter()
        .map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?))
        .collect()
}

fn from_uuid(text: &str) -> Option<Vec<u8>> {
    let bytes = text.as_bytes();
    let dashes = [8, 13, 18, 23];
    let has_form = bytes.len() == 36 && dashes.iter().all(|at| bytes.get(*at) == Some(&b'-'));
    if !has_form {
        return None;
    }
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    (digits.len() == 32).then(|| from_hex(&digits))?
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

/// Lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    push_hex(&mut text, bytes);
    text
}

pub(super) fn push_hex(text: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from(DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0')));
        }
    }
}

/// Stands for a number in a template.
const NUMBER: char = '\u{1}';
/// Stands for hex digits in a template.
const DIGITS: char = '\u{2}';
/// Fewer hex digits than this are part of the template.
const MIN_DIGITS: usize = 16;

/// A JSON text without what differs from event to event (numbers, ids of hex digits), and that.
/// The template is `None` where the text holds a template's own marks.
pub(super) fn template(text: &str) -> (Option<Cow<'_, str>>, Vec<u8>) {
    let bytes = text.as_bytes();
    if memchr::memchr2(NUMBER as u8, DIGITS as u8, bytes).is_some() {
        return (None, Vec::new());
    }
    let mut template = String::with_capacity(bytes.len());
    let mut arguments = Vec::new();
    // What of the text is in neither yet.
    let mut from = 0;
    let mut at = 0;
    while let Some(colon) = bytes.get(at..).and_then(|rest| memchr::memchr(b':', rest)) {
        at += colon + 1;
        let rest = bytes.get(at..).unwrap_or_default();
        let quoted = rest.first() == Some(&b'"');
        let value = rest.get(usize::from(quoted)..).unwrap_or_default();
        let is_part = |byte: &&u8| {
            if quoted {
                digit(**byte).is_some()
            } else {
                byte.is_ascii_digit()
            }
        };
        let length = value.iter().take_while(is_part).count();
        let start = at + usize::from(quoted);
        let Some(found) = text.get(start..start + length) else {
            continue;
        };
        let end = value.get(length);
        let taken = match quoted {
            true if end == Some(&b'"') && length >= MIN_DIGITS => from_hex(found).map(|bytes| {
                put_bytes(&mut arguments, &bytes);
                DIGITS
            }),
            // A number that a JSON writer would write so.
            false if matches!(end, Some(b',' | b'}')) && (found == "0" || !found.starts_with('0')) => {
                found.parse().ok().map(|number| {
                    put(&mut arguments, number);
                    NUMBER
                })
            }
            _ => None,
        };
        if let Some(mark) = taken {
            template.push_str(text.get(from..start).unwrap_or_default());
            template.push(mark);
            from = start + length;
        }
        at = start + length;
    }
    if from == 0 {
        return (Some(text.into()), arguments);
    }
    template.push_str(text.get(from..).unwrap_or_default());
    (Some(template.into()), arguments)
}

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
            let flag = |set: bool, flag: u8| if set { flag } else { 0 };
            out.push(
                flag(fingerprint.is_some(), FINGERPRINT)
                    | flag(owner.is_some() && !same_owner, OWNER)
                    | flag(same_owner, SAME_OWNER)
                    | flag(*created_at == event_at, SAME_TIME)
                    | flag(!detail.is_empty(), DETAIL),
            );
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
    fn a_template_has_no_numbers_and_no_ids() {
        let text = r#"{"length":22,"x":{"id":"0123456789abcdef","n":0,"s":"a:1","f":1.5,"z":007}}"#;
        let (made, arguments) = template(text);
        assert_eq!(
            made.as_deref(),
            Some("{\"length\":\u{1},\"x\":{\"id\":\"\u{2}\",\"n\":\u{1},\"s\":\"a:1\",\"f\":1.5,\"z\":007}}")
        );
        assert_eq!(arguments.len(), 1 + 9 + 1);
        assert_eq!(fill(&made.unwrap(), &arguments).as_deref(), Some(text));
    }

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
        fn every_text_comes_back(text in r#"(\PC|[:",}{0-9a-f\x01\x02]){0,60}"#) {
            prop_assert_eq!(unpack_text(&pack_text(&text)), Some(text.clone()));
            let (made, arguments) = template(&text);
            match made {
                Some(made) => prop_assert_eq!(fill(&made, &arguments), Some(text)),
                None => prop_assert!(text.contains([NUMBER, DIGITS])),
            }
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
