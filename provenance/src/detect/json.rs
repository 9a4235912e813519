//! A pull walk over JSON that trusts nothing: no recursion, no copy of the document, and what it
//! cannot read is handed back.

use std::borrow::Cow;

use super::classify::BLOCK;
use super::decode::unescape;
use super::sieve::Outline;

/// What the walk meets.
pub(super) enum Piece<'a> {
    /// A string, a number or a truth value.
    Leaf(&'a [u8]),
    /// A key; answered with whether it must not be shown.
    Key(&'a [u8]),
    /// A value nested deeper than is followed.
    Deep(&'a [u8]),
}

struct Frame {
    array: bool,
    /// Length of the path to the value that this frame is.
    path: usize,
    index: usize,
    /// Raw key of the nearest member: an array's elements have that of the array.
    key: Option<String>,
}

#[derive(PartialEq)]
enum Expect {
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    CommaOrEnd,
}

/// Walks one or more documents; gives how many bytes it understood. `visit` gets the path
/// (`/user/email`), the raw key, and the piece.
pub(super) fn walk(bytes: &[u8], depth: usize, visit: &mut dyn FnMut(&str, Option<&str>, Piece<'_>) -> bool) -> usize {
    let mut at = if bytes.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    let mut path = String::new();
    let mut stack: Vec<Frame> = Vec::new();
    let mut expect = Expect::Value;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        at += rest.iter().take_while(|b| b.is_ascii_whitespace()).count();
        let Some(&byte) = bytes.get(at) else {
            return at;
        };
        let array = stack.last().is_some_and(|frame| frame.array);
        match (&expect, byte) {
            (Expect::Value | Expect::ValueOrEnd, b'{' | b'[') => {
                let key = stack.last().and_then(|frame| frame.key.clone());
                if stack.len() >= depth {
                    let length = nested_length(bytes.get(at..).unwrap_or_default());
                    let deep = bytes.get(at..at + length).unwrap_or_default();
                    visit(&path, key.as_deref(), Piece::Deep(deep));
                    at += length;
                    expect = Expect::CommaOrEnd;
                    continue;
                }
                stack.push(Frame {
                    array: byte == b'[',
                    path: path.len(),
                    index: 0,
                    key,
                });
                at += 1;
                expect = match byte {
                    b'[' => {
                        path.push_str("/0");
                        Expect::ValueOrEnd
                    }
                    _ => Expect::KeyOrEnd,
                };
            }
            (Expect::Value | Expect::ValueOrEnd, _) if byte != b']' => {
                let Some((length, leaf)) = scalar(bytes.get(at..).unwrap_or_default()) else {
                    return at;
                };
                if let Some(leaf) = leaf {
                    let key = stack.last().and_then(|frame| frame.key.as_deref());
                    visit(&path, key, Piece::Leaf(&leaf));
                }
                at += length;
                expect = if stack.is_empty() {
                    Expect::Value
                } else {
                    Expect::CommaOrEnd
                };
            }
            (Expect::Key | Expect::KeyOrEnd, b'"') => {
                let Some((length, key)) = string(bytes.get(at..).unwrap_or_default()) else {
                    return at;
                };
                let after = bytes.get(at + length..).unwrap_or_default();
                let colon = after.iter().take_while(|b| b.is_ascii_whitespace()).count();
                if after.get(colon) != Some(&b':') {
                    return at;
                }
                let masked = visit(&path, None, Piece::Key(&key));
                path.push('/');
                path.push_str(shown(&key, masked));
                if let Some(frame) = stack.last_mut() {
                    let key = String::from_utf8_lossy(&key);
                    match &mut frame.key {
                        // Members share the memory.
                        Some(last) => {
                            last.clear();
                            last.push_str(&key);
                        }
                        none => *none = Some(key.into_owned()),
                    }
                }
                at += length + colon + 1;
                expect = Expect::Value;
            }
            (Expect::CommaOrEnd, b',') => {
                if let Some(frame) = stack.last_mut() {
                    path.truncate(frame.path);
                    frame.index += 1;
                    if frame.array {
                        path.push('/');
                        path.push_str(&frame.index.to_string());
                    }
                }
                at += 1;
                expect = if array { Expect::Value } else { Expect::Key };
            }
            (Expect::ValueOrEnd | Expect::CommaOrEnd, b']') if array => at += end(&mut stack, &mut path, &mut expect),
            (Expect::KeyOrEnd | Expect::CommaOrEnd, b'}') if !array => at += end(&mut stack, &mut path, &mut expect),
            _ => return at,
        }
        if stack.is_empty() && expect == Expect::CommaOrEnd {
            // Another document may follow, as in JSON lines.
            path.clear();
            expect = Expect::Value;
        }
    }
}

/// Where in a document the walk of [`locate`] is.
#[derive(Clone, Copy)]
struct Level<'a> {
    array: bool,
    index: usize,
    /// The key of the member in hand.
    key: &'a [u8],
    masked: bool,
    expects_key: bool,
}

/// Gets the path, the raw key, the offset and the piece, as the visitor of [`walk`] does.
type Visit<'v> = &'v mut dyn FnMut(&str, Option<&str>, usize, Piece<'_>) -> bool;

/// Visits, as [`walk`] does, the leaves and keys in which something could be met. Nobody asked
/// whether the document is well-formed throughout: what is no leaf is handed back as `Deep`.
pub(super) fn locate<'a>(bytes: &'a [u8], outline: &Outline, visit: Visit<'_>) {
    let mut suspects = outline.suspects.iter().copied().peekable();
    let mut stack: Vec<Level<'a>> = Vec::with_capacity(16);
    let mut path = String::new();
    let mut last = (0, false);
    let mut blocks = outline.events.iter().zip((0..).step_by(BLOCK));
    let (mut events, mut base) = (0_u64, 0);
    loop {
        while events == 0 {
            let Some(next) = blocks.next() else { break };
            (events, base) = (*next.0, next.1);
        }
        let at = match events {
            0 => bytes.len(),
            _ => base + events.trailing_zeros() as usize,
        };
        events &= events.wrapping_sub(1);
        let Some(suspect) = suspects.peek() else { return };
        let level = stack.last();
        let fits = match bytes.get(at) {
            Some(b',') => level.is_some_and(|level| !level.expects_key),
            Some(b':') => level.is_some_and(|level| !level.array && !level.expects_key),
            Some(b'}') => level.is_some_and(|level| !level.array),
            Some(b']') => level.is_some_and(|level| level.array),
            _ => true,
        };
        if !fits {
            let start = last.0 + usize::from(last.0 > 0);
            visit("", None, start, Piece::Deep(bytes.get(start..).unwrap_or_default()));
            return;
        }
        if *suspect < at {
            while suspects.next_if(|suspect| *suspect < at).is_some() {}
            let (start, is_key) = last;
            let levels = stack.as_slice();
            write_path(
                &mut path,
                if is_key {
                    levels.split_last().map_or(levels, |(_, outer)| outer)
                } else {
                    levels
                },
            );
            let gap = bytes.get(start..at).unwrap_or_default();
            if is_key {
                let key = string(gap).map_or(gap.into(), |(_, key)| key);
                let masked = visit(&path, None, start, Piece::Key(&key));
                if let Some(level) = stack.last_mut() {
                    level.masked = masked;
                }
            } else {
                let member = levels.iter().rev().find(|level| !level.array);
                let key = member.map(|level| match string(level.key) {
                    Some((_, key)) => String::from_utf8_lossy(&key).into_owned(),
                    None => String::new(),
                });
                let structure = usize::from(gap.first().is_some_and(|byte| b"{}[]:,".contains(byte)));
                let gap = gap.get(structure..).unwrap_or_default();
                let leading = gap.len() - gap.trim_ascii_start().len();
                let leaf = gap.trim_ascii();
                match scalar(leaf) {
                    Some((length, Some(leaf))) if length == gap.trim_ascii().len() => {
                        visit(&path, key.as_deref(), start, Piece::Leaf(&leaf));
                    }
                    Some((length, None)) if length == leaf.len() => {}
                    _ => {
                        visit(&path, key.as_deref(), start + structure + leading, Piece::Deep(leaf));
                    }
                }
            }
        }
        if at >= bytes.len() {
            return;
        }
        last = (at, false);
        match (bytes.get(at), stack.last_mut()) {
            (Some(b'"'), Some(level)) if level.expects_key => {
                level.key = bytes.get(at..).unwrap_or_default();
                level.expects_key = false;
                level.masked = false;
                last.1 = true;
            }
            (Some(b','), Some(level)) => {
                level.index += 1;
                level.expects_key = !level.array;
            }
            (Some(open @ (b'{' | b'[')), _) => stack.push(Level {
                array: *open == b'[',
                index: 0,
                key: b"",
                masked: false,
                expects_key: *open == b'{',
            }),
            (Some(b'}' | b']'), _) => drop(stack.pop()),
            _ => {}
        }
    }
}

fn write_path(path: &mut String, levels: &[Level<'_>]) {
    path.clear();
    for level in levels {
        path.push('/');
        if level.array {
            path.push_str(&level.index.to_string());
        } else if let Some((_, key)) = string(level.key) {
            path.push_str(shown(&key, level.masked));
        }
    }
}

fn end(stack: &mut Vec<Frame>, path: &mut String, expect: &mut Expect) -> usize {
    if let Some(frame) = stack.pop() {
        path.truncate(frame.path);
    }
    *expect = Expect::CommaOrEnd;
    1
}

/// A key as a place shows it: identifiers only, and none that is personal itself.
pub(super) fn shown(key: &[u8], masked: bool) -> &str {
    let identifier = key.len() <= 64
        && key.iter().filter(|b| b.is_ascii_digit()).count() < 4
        && key.first().is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_')
        && key
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    match std::str::from_utf8(key) {
        Ok(key) if identifier && !masked => key,
        _ => "{key}",
    }
}

/// Digits with at most a sign and a fraction: as programs write numbers.
pub(super) fn is_plain_number(text: &str) -> bool {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
    digits(whole) && digits(fraction)
}

/// Length and text of the string, number or literal at the start; no text for `null`.
#[allow(clippy::type_complexity)]
fn scalar(bytes: &[u8]) -> Option<(usize, Option<Cow<'_, [u8]>>)> {
    if bytes.first()? == &b'"' {
        return string(bytes).map(|(length, text)| (length, Some(text)));
    }
    let length = bytes
        .iter()
        .take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
        .count();
    let word = bytes.get(..length)?;
    match word {
        b"null" => Some((length, None)),
        b"true" | b"false" => Some((length, Some(word.into()))),
        [b'-' | b'0'..=b'9', ..] => Some((length, Some(word.into()))),
        _ => None,
    }
}

/// Length and text of the string at the start.
fn string(bytes: &[u8]) -> Option<(usize, Cow<'_, [u8]>)> {
    let end = string_end(bytes)?;
    let inside = bytes.get(1..end - 1)?;
    Some((end, unescape(inside).map_or(inside.into(), Cow::Owned)))
}

fn string_end(bytes: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes.get(at)? == &b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// Length of the array or object at the start; to the end if it is not closed.
fn nested_length(bytes: &[u8]) -> usize {
    let (mut at, mut open) = (0, 0_usize);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'{' | b'[' => open += 1,
            b'}' | b']' => open = open.saturating_sub(1),
            b'"' => {
                let Some(length) = string_end(bytes.get(at..).unwrap_or_default()) else {
                    return bytes.len();
                };
                at += length - 1;
            }
            _ => {}
        }
        at += 1;
        if open == 0 {
            return at;
        }
    }
    bytes.len()
}
