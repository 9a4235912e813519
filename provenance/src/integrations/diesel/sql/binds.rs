//! The binds of a statement, read back from how Rust's `Debug` shows them.
//!
//! Strict: what is not wholly one of the forms below is [`Bound::Opaque`]; a list whose parts
//! cannot be told apart is not read at all.

use std::net::IpAddr;

use zeroize::Zeroizing;

/// Deepest nesting of brackets that is followed.
const MAX_DEPTH: usize = 64;

/// One bound value.
#[derive(PartialEq)]
pub(super) enum Bound {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    /// Text, and what is shown as its text: dates, times, UUIDs, addresses.
    Text(Zeroizing<String>),
    /// A list of texts.
    Texts(Vec<Zeroizing<String>>),
    /// Anything else.
    Opaque,
}

/// The binds of one statement.
pub(super) struct Binds {
    pub(super) values: Vec<Bound>,
    /// Shown as a bind collector holds them (`String("..")`, `I32(7)`): they were collected ahead.
    pub(super) collected: bool,
}

impl Binds {
    /// Reads `["ada@example.com", Some(7), None]`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let inner = text.strip_prefix('[')?.strip_suffix(']')?;
        let shown = elements(inner)?;
        let collected = shown
            .iter()
            .any(|element| collected(element).is_some() || *element == "Null");
        Some(Binds {
            values: shown.into_iter().map(bound).collect(),
            collected,
        })
    }
}

/// Splits at the commas that stand in no bracket and no string. `None` if they do not close.
fn elements(list: &str) -> Option<Vec<&str>> {
    let mut elements = Vec::new();
    if list.is_empty() {
        return Some(elements);
    }
    let bytes = list.as_bytes();
    let mut open: Vec<u8> = Vec::new();
    let (mut start, mut at) = (0, 0);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at = end_of_string(bytes, at)?,
            b'\'' => at = end_of_char(list, at).unwrap_or(at),
            b'(' | b'[' | b'{' => {
                if open.len() >= MAX_DEPTH {
                    return None;
                }
                open.push(match byte {
                    b'(' => b')',
                    b'[' => b']',
                    _ => b'}',
                });
            }
            b')' | b']' | b'}' if open.pop() != Some(*byte) => return None,
            b',' if open.is_empty() => {
                elements.push(list.get(start..at)?);
                // A list of Rust's has a space after each comma.
                if bytes.get(at + 1) != Some(&b' ') {
                    return None;
                }
                at += 1;
                start = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    elements.push(list.get(start..)?);
    open.is_empty().then_some(elements)
}

/// Where the string that begins at `start` ends.
fn end_of_string(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Where the character that begins at `start` ends; `None` for an apostrophe.
fn end_of_char(list: &str, start: usize) -> Option<usize> {
    let rest = list.get(start + 1..)?;
    let mut chars = rest.char_indices();
    let end = match chars.next()? {
        (_, '\'') => return None,
        (_, '\\') => rest.get(2..)?.find('\'')? + 2,
        _ => chars.next().filter(|(_, c)| *c == '\'')?.0,
    };
    Some(start + 1 + end)
}

/// What a bind collector wraps a value in.
fn collected(element: &str) -> Option<&str> {
    ["String(", "I32(", "I64(", "F64("]
        .iter()
        .find_map(|wrapper| element.strip_prefix(wrapper))?
        .strip_suffix(')')
}

fn bound(element: &str) -> Bound {
    let mut element = element;
    for _ in 0..MAX_DEPTH {
        let inner = element.strip_prefix("Some(").and_then(|inner| inner.strip_suffix(')'));
        match inner.or_else(|| collected(element)) {
            Some(inner) => element = inner,
            None => break,
        }
    }
    match element {
        "None" | "Null" | "NaN" | "inf" | "-inf" => return Bound::Null,
        "true" => return Bound::Bool(true),
        "false" => return Bound::Bool(false),
        _ => {}
    }
    match element.as_bytes() {
        [b'"', ..] => string(element, '"').map_or(Bound::Opaque, Bound::Text),
        [b'\'', ..] => string(element, '\'').map_or(Bound::Opaque, Bound::Text),
        [b'[', .., b']'] => texts(element).map_or(Bound::Opaque, Bound::Texts),
        [b'0'..=b'9', ..] | [b'-' | b'+', b'0'..=b'9', ..] => number(element),
        _ if element.parse::<IpAddr>().is_ok() || is_uuid(element) => text(element),
        _ => Bound::Opaque,
    }
}

fn text(element: &str) -> Bound {
    Bound::Text(Zeroizing::new(element.to_owned()))
}

/// What begins with a digit.
fn number(element: &str) -> Bound {
    let digits = element.strip_prefix('-').unwrap_or(element);
    if digits.bytes().all(|b| b.is_ascii_digit()) {
        return element.parse().map_or(Bound::Opaque, Bound::Integer);
    }
    if digits
        .bytes()
        .all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'-' | b'+'))
        && let Ok(number) = element.parse()
    {
        return Bound::Float(number);
    }
    match is_date(element) || is_time(element) || is_uuid(element) || element.parse::<IpAddr>().is_ok() {
        true => text(element),
        false => Bound::Opaque,
    }
}

/// `1990-01-02`, with or without time and zone, as chrono, time and jiff show it.
fn is_date(element: &str) -> bool {
    let (date, rest) = match element.find(['T', ' ']) {
        Some(end) => element.split_at(end),
        None => (element, ""),
    };
    let parts: Vec<&str> = date.split('-').collect();
    let digits = |part: &str, count: usize| part.len() == count && part.bytes().all(|b| b.is_ascii_digit());
    let day = matches!(parts.as_slice(), [year, month, day]
        if digits(year, 4) && digits(month, 2) && digits(day, 2));
    let time =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b':' | b'.' | b'+' | b'-' | b' ' | b'[' | b']' | b'/' | b'_');
    day && rest.bytes().all(time)
}

/// `03:04:05.5`
fn is_time(element: &str) -> bool {
    element.contains(':') && element.bytes().all(|b| b.is_ascii_digit() || matches!(b, b':' | b'.'))
}

fn is_uuid(element: &str) -> bool {
    let lengths = element.split('-').map(str::len);
    lengths.eq([8, 4, 4, 4, 12]) && element.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

/// A list of texts. Numbers may be bytes, so a list of those is not taken for values.
fn texts(element: &str) -> Option<Vec<Zeroizing<String>>> {
    let inner = element.strip_prefix('[')?.strip_suffix(']')?;
    elements(inner)?
        .into_iter()
        .map(|element| string(element, '"'))
        .collect()
}

/// The text of a literal of Rust's: the whole of `element`, without its quotes and escapes.
fn string(element: &str, quote: char) -> Option<Zeroizing<String>> {
    let inner = element.strip_prefix(quote)?.strip_suffix(quote)?;
    // The text is never longer than its literal.
    let mut text = Zeroizing::new(String::with_capacity(inner.len()));
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        if c == quote {
            return None;
        }
        text.push(match c {
            '\\' => match chars.next()? {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                '0' => '\0',
                c @ ('\\' | '\'' | '"') => c,
                'u' => escaped(&mut chars)?,
                _ => return None,
            },
            c => c,
        });
    }
    Some(text)
}

/// `{1f600}`
fn escaped(chars: &mut std::str::Chars<'_>) -> Option<char> {
    if chars.next()? != '{' {
        return None;
    }
    let mut code = 0_u32;
    loop {
        match chars.next()? {
            '}' => return char::from_u32(code),
            digit => code = code.checked_mul(16)?.checked_add(digit.to_digit(16)?)?,
        }
    }
}
