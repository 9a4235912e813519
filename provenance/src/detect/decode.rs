//! Encodings that values hide behind. Pure functions; who calls them keeps the budget.

use std::io::Read;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Fewest characters of a base64 or hex run that is decoded.
const SHORTEST_RUN: usize = 16;

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_allow_trailing_bits(true)
    .with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Percent-decoded, if there is anything to decode.
pub(super) fn percent(bytes: &[u8]) -> Option<Vec<u8>> {
    let encoded = |at: usize| {
        let digits = bytes.get(at + 1..at + 3);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    memchr::memchr_iter(b'%', bytes)
        .any(encoded)
        .then(|| percent_encoding::percent_decode(bytes).collect())
}

/// With spaces for the pluses between words, if there are any: in forms, that is what they are.
pub(super) fn pluses(bytes: &[u8]) -> Option<Vec<u8>> {
    let joins = |w: &[u8]| matches!(w, [a, b'+', b] if is_token(*a) && is_token(*b));
    bytes.windows(3).any(joins).then(|| {
        let space = |b: &u8| if *b == b'+' { b' ' } else { *b };
        bytes.iter().map(space).collect()
    })
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || !byte.is_ascii()
}

/// Without the backslash escapes of JSON and its relatives, if there are any. Never longer than `bytes`.
pub(super) fn unescape(bytes: &[u8]) -> Option<Vec<u8>> {
    memchr::memchr(b'\\', bytes)?;
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        let (plain, escape) = rest.split_at(at);
        out.extend_from_slice(plain);
        rest = match escape {
            [_, b'u', after @ ..] => match code_unit(after) {
                Some((high @ 0xd800..=0xdbff, after)) => match after {
                    [b'\\', b'u', more @ ..] if matches!(code_unit(more), Some((0xdc00..=0xdfff, _))) => {
                        let (low, after) = code_unit(more).unwrap_or((0xdc00, more));
                        push(&mut out, 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00));
                        after
                    }
                    _ => {
                        push(&mut out, high);
                        after
                    }
                },
                Some((unit, after)) => {
                    push(&mut out, unit);
                    after
                }
                None => {
                    out.push(b'u');
                    after
                }
            },
            [_, b'x', a, b, after @ ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => {
                out.extend(nibble(*a).zip(nibble(*b)).map(|(a, b)| a << 4 | b));
                after
            }
            [_, c, after @ ..] => {
                out.push(match c {
                    b'n' => b'\n',
                    b't' => b'\t',
                    b'r' => b'\r',
                    b'b' => 8,
                    b'f' => 12,
                    other => *other,
                });
                after
            }
            _ => &[],
        };
    }
    out.extend_from_slice(rest);
    Some(out)
}

/// With characters for HTML's entities, if there are any: the named ones that escaping needs, and all numbers.
pub(super) fn entities(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut copied = 0;
    for at in memchr::memchr_iter(b'&', bytes) {
        let rest = bytes.get(at + 1..).unwrap_or_default();
        let name = rest.iter().take(10).position(|byte| *byte == b';');
        let Some(name) = name.and_then(|end| rest.get(..end)).filter(|_| at >= copied) else {
            continue;
        };
        let number = |digits: &[u8], radix| {
            let digits = std::str::from_utf8(digits).ok()?;
            u32::from_str_radix(digits, radix).ok()
        };
        let code = match name {
            [b'#', b'x' | b'X', digits @ ..] => number(digits, 16),
            [b'#', digits @ ..] => number(digits, 10),
            b"amp" => Some(u32::from(b'&')),
            b"lt" => Some(u32::from(b'<')),
            b"gt" => Some(u32::from(b'>')),
            b"quot" => Some(u32::from(b'"')),
            b"apos" => Some(u32::from(b'\'')),
            b"nbsp" => Some(0xa0),
            b"commat" => Some(u32::from(b'@')),
            b"period" => Some(u32::from(b'.')),
            b"plus" => Some(u32::from(b'+')),
            _ => None,
        };
        if let Some(code) = code {
            out.extend_from_slice(bytes.get(copied..at).unwrap_or_default());
            push(&mut out, code);
            copied = at + name.len() + 2;
        }
    }
    (copied > 0).then(|| {
        out.extend_from_slice(bytes.get(copied..).unwrap_or_default());
        out
    })
}

/// Whether lines end as those do that quoted-printable broke.
pub(super) fn has_soft_breaks(bytes: &[u8]) -> bool {
    memchr::memchr_iter(b'=', bytes).any(|at| is_soft_break(bytes.get(at + 1..).unwrap_or_default()))
}

fn is_soft_break(after: &[u8]) -> bool {
    matches!(after, [b'\n', ..] | [b'\r', b'\n', ..])
}

/// Whether an entity or an escape may begin with the `%`, `&` or `=` at `at`.
pub(super) fn may_decode(bytes: &[u8], at: usize) -> bool {
    match bytes.get(at..).unwrap_or_default() {
        [b'%', ..] => true,
        [b'&', rest @ ..] => rest.iter().take(10).any(|byte| *byte == b';'),
        [b'=', a, b, ..] => (a.is_ascii_hexdigit() && b.is_ascii_hexdigit()) || a.is_ascii_whitespace(),
        [b'=', b'\n'] => true,
        _ => false,
    }
}

/// Without the escapes and the soft line breaks of quoted-printable, if there are any.
pub(super) fn quoted_printable(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut copied = 0;
    for at in memchr::memchr_iter(b'=', bytes) {
        let (decoded, length) = match bytes.get(at + 1..).unwrap_or_default() {
            [b'\n', ..] => (None, 2),
            [b'\r', b'\n', ..] => (None, 3),
            // Small letters are not allowed, and would decode much that is no quoted-printable.
            [a @ (b'0'..=b'9' | b'A'..=b'F'), b @ (b'0'..=b'9' | b'A'..=b'F'), ..] => {
                (nibble(*a).zip(nibble(*b)).map(|(a, b)| a << 4 | b), 3)
            }
            _ => continue,
        };
        out.extend_from_slice(bytes.get(copied..at).unwrap_or_default());
        out.extend(decoded);
        copied = at + length;
    }
    (copied > 0).then(|| {
        out.extend_from_slice(bytes.get(copied..).unwrap_or_default());
        out
    })
}

fn code_unit(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, rest) = bytes.split_at_checked(4)?;
    let unit = digits
        .iter()
        .try_fold(0, |unit, digit| Some(unit << 4 | u32::from(nibble(*digit)?)))?;
    Some((unit, rest))
}

fn push(out: &mut Vec<u8>, code: u32) {
    let c = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

pub(super) fn nibble(digit: u8) -> Option<u8> {
    NIBBLES.get(usize::from(digit)).copied().filter(|nibble| *nibble < 16)
}

/// The four bits of a hex digit.
pub(super) const NIBBLES: [u8; 256] = {
    let mut nibbles = [16; 256];
    let mut n = 0;
    while n < 16 {
        nibbles[b"0123456789abcdef"[n as usize] as usize] = n;
        nibbles[b"0123456789ABCDEF"[n as usize] as usize] = n;
        n += 1;
    }
    nibbles
};

/// Inflated, if it is gzip or zlib by its first bytes and the first of it can be read; at most
/// `most` bytes, with whether that was all, and nothing follows.
pub(super) fn inflate(bytes: &[u8], most: usize) -> Option<(Vec<u8>, bool)> {
    let mut out = Vec::new();
    let whole = match bytes {
        [0x1f, 0x8b, 8, ..] => read_up_to(most, &mut flate2::bufread::MultiGzDecoder::new(bytes), &mut out),
        [0x78, 0x01 | 0x5e | 0x9c | 0xda, ..] => {
            // Text may begin so. A stream that breaks off ends without an error, but takes the byte more too.
            let mut reader = flate2::bufread::ZlibDecoder::new(bytes.chain(&[0][..]));
            read_up_to(most, &mut reader, &mut out) && reader.total_in() == bytes.len() as u64
        }
        _ => return None,
    };
    (!out.is_empty()).then_some((out, whole))
}

/// Whether that was all. What was read before an error stays.
fn read_up_to(most: usize, reader: &mut impl Read, out: &mut Vec<u8>) -> bool {
    let read = reader.by_ref().take(most as u64).read_to_end(out).is_ok();
    read && (out.len() < most || reader.read(&mut [0]).is_ok_and(|read| read == 0))
}

/// A run as a whole, or else its pieces between the characters that are not letters or digits.
pub(super) fn pieces(run: &[u8]) -> impl Iterator<Item = &[u8]> {
    run.split(|b| !b.is_ascii_alphanumeric())
        .filter(move |piece| piece.len() >= SHORTEST_RUN && piece.len() < run.len())
}

pub(super) fn is_run(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_')
}

/// Hex digits in pairs, perhaps after `0x`.
pub(super) fn hex(run: &[u8]) -> Option<Vec<u8>> {
    let run = run.strip_prefix(b"0x").unwrap_or(run);
    let pair = |pair: &[u8]| match pair {
        [a, b] => Some(nibble(*a)? << 4 | nibble(*b)?),
        _ => None,
    };
    run.chunks(2).map(pair).collect()
}

/// Base64, standard or URL-safe, unpadded.
pub(super) fn base64(run: &[u8]) -> Option<Vec<u8>> {
    let url_safe = run.iter().any(|b| matches!(b, b'-' | b'_'));
    let engine = if url_safe { &URL_SAFE } else { &STANDARD };
    engine.decode(run).ok()
}

/// The digest that a run may be: md5, sha1 or sha256, in hex or base64. Without memory of its own.
pub(super) fn digest(run: &[u8], into: &mut [u8; 32]) -> Option<usize> {
    let digits = run.strip_prefix(b"0x").unwrap_or(run);
    if matches!(digits.len(), 32 | 40 | 64) {
        let pairs = digits.as_chunks::<2>().0;
        let mut all = 0;
        for ([a, b], byte) in pairs.iter().zip(into.iter_mut()) {
            let (a, b) = (NIBBLES[usize::from(*a)], NIBBLES[usize::from(*b)]);
            all |= a | b;
            *byte = a << 4 | b;
        }
        return (all < 16).then_some(pairs.len());
    }
    let length = match run.len() {
        22 => 16,
        27 => 20,
        43 => 32,
        _ => return None,
    };
    let mut bytes = into.iter_mut();
    for quad in run.chunks(4) {
        let mut bits = 0;
        for byte in quad {
            let sixtet = SIXTETS.get(usize::from(*byte)).filter(|sixtet| **sixtet < 64)?;
            bits = bits << 6 | u32::from(*sixtet);
        }
        bits <<= 6 * (4 - quad.len());
        let decoded = [(bits >> 16) as u8, (bits >> 8) as u8, bits as u8];
        decoded
            .into_iter()
            .take(quad.len() - 1)
            .zip(&mut bytes)
            .for_each(|(from, to)| *to = from);
    }
    Some(length)
}

/// `false` only for a run that is no text, decoded in either way. Without memory of its own.
pub(super) fn could_be_text(run: &[u8]) -> bool {
    let digits = run.strip_prefix(b"0x").unwrap_or(run);
    let (pairs, odd) = digits.as_chunks::<2>();
    if odd.is_empty() {
        let mut hope = Hope::new(pairs.len());
        let text = pairs.iter().all(|[a, b]| {
            let (a, b) = (NIBBLES[usize::from(*a)], NIBBLES[usize::from(*b)]);
            (a | b) < 16 && hope.take(a << 4 | b)
        });
        if text {
            return true;
        }
    }
    if run.len() % 4 == 1 {
        return false;
    }
    let (quads, rest) = run.as_chunks::<4>();
    let mut hope = Hope::new(quads.len() * 3 + rest.len() * 3 / 4);
    let mut last = [b'A'; 4];
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    let mut take = |quad: &[u8; 4], count: usize| {
        let [a, b, c, d] = quad.map(|byte| SIXTETS[usize::from(byte)]);
        let bytes = [a << 2 | b >> 4, b << 4 | c >> 2, c << 6 | d];
        (a | b | c | d) < 64 && bytes.iter().take(count).all(|byte| hope.take(*byte))
    };
    quads.iter().all(|quad| take(quad, 3)) && take(&last, rest.len() * 3 / 4)
}

/// Whether a run is text, decoded in either way.
pub(super) fn is_text_within(run: &[u8]) -> bool {
    could_be_text(run) && [hex(run), base64(run)].iter().flatten().any(|decoded| is_text(decoded))
}

/// Whether bytes could still be text (see [`is_text`]), as they come.
struct Hope {
    length: usize,
    unreadable: usize,
    control: usize,
    /// Bytes that a character of several still wants; whether one broke off.
    wanted: u32,
    broken: bool,
}

impl Hope {
    fn new(length: usize) -> Self {
        Hope {
            length,
            unreadable: 0,
            control: 0,
            wanted: 0,
            broken: false,
        }
    }

    #[inline(always)]
    fn take(&mut self, byte: u8) -> bool {
        let continues = byte & 0xc0 == 0x80;
        let readable = matches!(byte, b' '..=b'~' | b'\t' | b'\n' | b'\x0c' | b'\r');
        self.unreadable += usize::from(!readable);
        self.control += usize::from(byte.is_ascii() && !readable);
        self.broken |= continues != (self.wanted > 0);
        self.wanted = match continues {
            true => self.wanted.saturating_sub(1),
            false => byte.leading_ones().saturating_sub(1),
        };
        self.unreadable * 4 <= self.length || !self.broken && self.control * 8 <= self.length
    }
}

/// The six bits of a character of base64, of either alphabet.
pub(super) const SIXTETS: [u8; 256] = {
    let mut sixtets = [64; 256];
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut n = 0;
    while n < 64 {
        sixtets[alphabet[n as usize] as usize] = n;
        n += 1;
    }
    sixtets[b'-' as usize] = 62;
    sixtets[b'_' as usize] = 63;
    sixtets
};

/// Whether decoded bytes are worth a search: mostly text.
pub(super) fn is_text(bytes: &[u8]) -> bool {
    // Readable ASCII in the lower half, control characters in the upper one.
    let counts: u64 = bytes
        .iter()
        .map(|byte| match byte {
            b' '..=b'~' | b'\t' | b'\n' | b'\x0c' | b'\r' => 1,
            0x80.. => 0,
            _ => 1 << 32,
        })
        .sum();
    let (readable, control) = (counts as u32 as usize, (counts >> 32) as usize);
    readable * 4 >= bytes.len() * 3 || (control * 8 <= bytes.len() && std::str::from_utf8(bytes).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes() {
        let cases: [(&str, &str); 8] = [
            (r"a\u0040b", "a@b"),
            (r"\ud83d\ude00!", "\u{1f600}!"),
            (r"\ud83d!", "\u{fffd}!"),
            (r"\ud83d\u0041", "\u{fffd}A"),
            (r#"\"\/\\n\n\x41"#, "\"/\\n\nA"),
            (r"\u00", "u00"),
            (r"a\", "a"),
            (r"\x4", "x4"),
        ];
        for (escaped, plain) in cases {
            assert_eq!(
                unescape(escaped.as_bytes()).as_deref(),
                Some(plain.as_bytes()),
                "{escaped}"
            );
        }
        assert_eq!(unescape(b"plain"), None);
        let cases: [(&str, Option<&str>); 6] = [
            ("a&#64;b&#x40;c", Some("a@b@c")),
            ("&lt;a&amp;b&gt;", Some("<a&b>")),
            ("a&b; &unknown; &#xffffffffff;", None),
            ("&#1114112;", Some("\u{fffd}")),
            ("&&amp;", Some("&&")),
            ("plain", None),
        ];
        for (written, plain) in cases {
            assert_eq!(
                entities(written.as_bytes()).as_deref(),
                plain.map(str::as_bytes),
                "{written}"
            );
        }
        let cases: [(&str, Option<&str>); 4] = [
            ("a=40b=\r\nc=\nd", Some("a@bcd")),
            ("Zo=C3=AB", Some("Zo\u{eb}")),
            ("a=b&c=d=", None),
            ("=3D40", Some("=40")),
        ];
        for (written, plain) in cases {
            assert_eq!(
                quoted_printable(written.as_bytes()).as_deref(),
                plain.map(str::as_bytes),
                "{written}"
            );
        }
    }

    #[test]
    fn runs_and_alphabets() {
        let text = b"short a=YWxpY2VAZXhhbXBsZS5jb20=; 0x616c696365406578616d706c652e636f6d";
        let found: Vec<_> = crate::detect::sieve::runs(text)
            .into_iter()
            .map(|run| text[run].to_vec())
            .collect();
        assert_eq!(found.len(), 2);
        assert_eq!(base64(&found[0]).as_deref(), Some(&b"alice@example.com"[..]));
        assert_eq!(hex(&found[1]).as_deref(), Some(&b"alice@example.com"[..]));
        assert_eq!(base64(b"-_-_-_-_"), base64(b"+/+/+/+/"));
        assert_eq!(percent(b"100% sure"), None);
        assert_eq!(percent(b"a%40b").as_deref(), Some(&b"a@b"[..]));
    }

    proptest::proptest! {
        /// What is text when it is decoded is never ruled out before.
        #[test]
        fn no_text_is_ruled_out(bytes in proptest::prop_oneof![
            proptest::collection::vec(proptest::prelude::any::<u8>(), 10..40),
            proptest::strategy::Strategy::prop_map("[a-z\\x01\u{e9}\u{4e2d}\u{1f600}]{4,20}", String::into_bytes),
        ]) {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            for run in [hex, STANDARD.encode(&bytes).trim_end_matches('=').to_owned(), URL_SAFE.encode(&bytes).trim_end_matches('=').to_owned()] {
                let run = run.as_bytes();
                let text = [super::hex(run), base64(run)].iter().flatten().any(|decoded| is_text(decoded));
                proptest::prop_assert!(could_be_text(run) || !text);
            }
        }
    }
}
