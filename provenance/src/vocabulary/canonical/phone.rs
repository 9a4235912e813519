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
