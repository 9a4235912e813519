//! Telephone numbers: their digits.

/// Fewest and most digits of a number (E.164 allows 15).
pub(crate) const DIGITS: std::ops::RangeInclusive<usize> = 4..=15;

/// Reads folded text that is a telephone number as a whole.
pub(crate) fn read(folded: &str) -> Option<String> {
    if folded.len() > 64 {
        return None;
    }
    let text = folded.strip_prefix("tel:").unwrap_or(folded).trim_start();
    let international = text.starts_with('+') || text.starts_with("00");
    let text = text.strip_prefix('+').unwrap_or(text);
    let known = |c: char| c.is_ascii_digit() || matches!(c, ' ' | '-' | '.' | '(' | ')' | '/');
    if !text.chars().all(known) {
        return None;
    }
    // The trunk zero is not dialled from abroad.
    let text = match international {
        true => text.replacen("(0)", "", 1),
        false => text.to_owned(),
    };
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    plain(&digits).map(str::to_owned)
}

/// Digits without the prefix `00` of international calls; `None` if too few or too many are left.
pub(crate) fn plain(digits: &str) -> Option<&str> {
    let mut digits = digits;
    while let Some(rest) = digits.strip_prefix("00") {
        digits = rest;
    }
    DIGITS.contains(&digits.len()).then_some(digits)
}

/// Fewest digits of a number without its calling code by which it is looked for.
const NATIONAL: usize = 8;

/// What is dialled within a country, without the trunk zero: digits without a calling code, or
/// without the zero that begins them; `None` if they have neither, or too little is left.
///
/// Whether digits begin with a calling code, nobody can tell: those of 9 and more may.
pub(crate) fn national(digits: &str) -> Option<&str> {
    let skip = match digits.as_bytes() {
        [b'0', ..] => 1,
        digits => calling_code(digits)?,
    };
    digits.get(skip..).filter(|rest| rest.len() >= NATIONAL)
}

/// Digits of the calling code (ITU E.164) at the start.
fn calling_code(digits: &[u8]) -> Option<usize> {
    Some(match digits {
        [b'1' | b'7', ..] => 1,
        [b'2', b'0' | b'7', ..]
        | [b'3', b'0' | b'1' | b'2' | b'3' | b'4' | b'6' | b'9', ..]
        | [b'4', b'0' | b'1' | b'3'..=b'9', ..]
        | [b'5', b'1'..=b'8', ..]
        | [b'6', b'0'..=b'6', ..]
        | [b'8', b'1' | b'2' | b'4' | b'6', ..]
        | [b'9', b'0'..=b'5' | b'8', ..] => 2,
        [b'2', b'1'..=b'6' | b'9', ..]
        | [b'3', b'5' | b'7' | b'8', ..]
        | [b'4', b'2', ..]
        | [b'5', b'0' | b'9', ..]
        | [b'6', b'7'..=b'9', ..]
        | [b'8', b'0' | b'5' | b'7' | b'8', ..]
        | [b'9', b'6' | b'7' | b'9', ..] => 3,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calling_codes_and_trunk_zeros() {
        for (digits, left) in [
            ("15550102030", Some("5550102030")),
            ("4989671986064", Some("89671986064")),
            ("420215084931", Some("215084931")),
            ("089671986064", Some("89671986064")),
            ("4712345678", Some("12345678")),
            ("12345678", None),
            ("89671986064", None),
            ("", None),
        ] {
            assert_eq!(national(digits), left, "{digits}");
        }
    }
}
