//! Decimal numbers as people write them.
//!
//! A sign, a currency (symbol or ISO code, before or after), digits, one decimal separator,
//! groups of thousands. With both `,` and `.` the last is the decimal separator; a comma before
//! exactly three digits groups (`5,000`), a point does not (`4.200` is 4.2): the other reading
//! is given second, for search.

/// The readings of one text, as canonical decimals.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Readings {
    pub(crate) first: String,
    pub(crate) second: Option<String>,
}

/// Longest canonical number: those of `f64` have at most 309 digits before the point, and 1074 after it.
const MAX: usize = 1400;

/// Common codes of ISO 4217, as folded text has them.
const CODES: &[&str] = &[
    "aud", "brl", "cad", "chf", "clp", "cny", "czk", "dkk", "eur", "gbp", "hkd", "huf", "idr", "ils", "inr", "jpy",
    "krw", "mxn", "myr", "nok", "nzd", "php", "pln", "ron", "rub", "sar", "sek", "sgd", "thb", "try", "twd", "uah",
    "usd", "vnd", "zar",
];

/// Whether the folded text ends (`before`) or begins with a currency's code.
pub(crate) fn is_code(text: &str) -> bool {
    text.len() == 3 && text.bytes().all(|b| b.is_ascii_lowercase()) && CODES.binary_search(&text).is_ok()
}

/// Whether `c` is a currency's symbol.
pub(crate) fn is_symbol(c: char) -> bool {
    matches!(c, '$' | '\u{a3}' | '\u{a5}' | '\u{20a0}'..='\u{20cf}')
}

/// The canonical form of digits with at most a fraction that can be read in one way: a piece of them.
pub(crate) fn plain(digits: &str) -> Option<&str> {
    let (whole, fraction) = match digits.split_once('.') {
        // Three digits could also be a group of thousands.
        Some((_, fraction)) if matches!(fraction.len(), 0 | 3) => return None,
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (digits, None),
    };
    let all = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || digits.len() > MAX || !all(whole) || !fraction.is_none_or(all) {
        return None;
    }
    let zeros = whole.len() - whole.trim_start_matches('0').len();
    let from = digits.get(zeros.min(whole.len() - 1)..)?;
    Some(match fraction {
        Some(_) => from.trim_end_matches('0').trim_end_matches('.'),
        None => from,
    })
}

/// Reads folded text that is a number as a whole.
pub(crate) fn read(folded: &str) -> Option<Readings> {
    if folded.len() > MAX || !could_be(folded) {
        return None;
    }
    let mut text = folded;
    let (mut sign, mut currency) = (None, false);
    // Sign and currency in either order, each once.
    loop {
        text = text.trim_start();
        if let (Some(rest), None) = (text.strip_prefix(['-', '+']), sign) {
            sign = text.chars().next();
            text = rest;
        } else if let (Some(rest), false) = (strip_currency_front(text), currency) {
            currency = true;
            text = rest;
        } else {
            break;
        }
    }
    if let (Some(rest), false) = (strip_currency_back(text), currency) {
        text = rest;
    }
    let (mantissa, exponent) = match text.split_once('e') {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok().filter(|e| e.abs() <= 400)?),
        None => (text, 0),
    };
    let (first, second) = split(mantissa)?;
    let emit = |(whole, fraction): (String, &str)| decimal(sign == Some('-'), &whole, fraction, exponent);
    Some(Readings {
        first: emit(first)?,
        second: second.and_then(emit),
    })
}

/// Digits, and nothing that no number has: at most the letters of a currency and an exponent.
fn could_be(folded: &str) -> bool {
    let (mut digits, mut letters) = (0, 0);
    let known = folded.bytes().all(|byte| {
        digits += usize::from(byte.is_ascii_digit());
        letters += usize::from(byte.is_ascii_alphabetic());
        byte.is_ascii_alphanumeric() || !byte.is_ascii() || b" ,.'-+$".contains(&byte)
    });
    known && digits > 0 && letters <= 4
}

fn strip_currency_front(text: &str) -> Option<&str> {
    text.strip_prefix(is_symbol).or_else(|| {
        let (code, rest) = text.split_at_checked(3)?;
        is_code(code).then_some(rest)
    })
}

fn strip_currency_back(text: &str) -> Option<&str> {
    let rest = text.strip_suffix(is_symbol).or_else(|| {
        let (rest, code) = text.split_at_checked(text.len().checked_sub(3)?)?;
        is_code(code).then_some(rest)
    })?;
    Some(rest.trim_end())
}

/// Whole digits without grouping, and the fraction; then the other reading, where there is one.
type Reading<'a> = (String, &'a str);

fn split(text: &str) -> Option<(Reading<'_>, Option<Reading<'_>>)> {
    let ends_well = text.ends_with(|c: char| c.is_ascii_digit());
    let known = |c: char| c.is_ascii_digit() || matches!(c, ',' | '.' | '\'' | ' ');
    if !ends_well || !text.chars().all(known) {
        return None;
    }
    let count = |separator: char| text.matches(separator).count();
    let (commas, points) = (count(','), count('.'));
    let separated = |separator: char| {
        let (whole, fraction) = text.rsplit_once(separator)?;
        let digits = fraction.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| ungroup(whole).map(|whole| (whole, fraction))).flatten()
    };
    match (commas, points) {
        (0, 0) => Some(((ungroup(text)?, ""), None)),
        (1, 0) => match ungroup(text) {
            Some(grouped) => Some(((grouped, ""), separated(','))),
            None => Some((separated(',')?, None)),
        },
        (0, 1) => Some((separated('.')?, ungroup(text).map(|grouped| (grouped, "")))),
        (_, 0) | (0, _) => Some(((ungroup(text)?, ""), None)),
        _ => {
            let decimal = if text.rfind(',') > text.rfind('.') { ',' } else { '.' };
            if count(decimal) != 1 {
                return None;
            }
            Some((separated(decimal)?, None))
        }
    }
}

/// Digits without their grouping: one separator throughout, three digits last, two or three (India) between.
fn ungroup(text: &str) -> Option<String> {
    let Some(separator) = text.chars().find(|c| !c.is_ascii_digit()) else {
        return Some(text.to_owned());
    };
    let groups: Vec<&str> = text.split(separator).collect();
    let (first, rest) = groups.split_first()?;
    let (last, between) = rest.split_last()?;
    let digits = groups.iter().all(|group| group.bytes().all(|b| b.is_ascii_digit()));
    let fits = (1..=3).contains(&first.len())
        && !first.starts_with('0')
        && last.len() == 3
        && between.iter().all(|group| (2..=3).contains(&group.len()));
    (digits && fits).then(|| groups.concat())
}

fn decimal(negative: bool, whole: &str, fraction: &str, exponent: i32) -> Option<String> {
    let mut whole = whole.to_owned();
    let mut fraction = fraction.to_owned();
    let shift = usize::try_from(exponent.unsigned_abs()).ok()?;
    if exponent > 0 {
        let moved = shift.min(fraction.len());
        whole.extend(fraction.drain(..moved));
        whole.extend(std::iter::repeat_n('0', shift - moved));
    } else if shift > 0 {
        let zeros = "0".repeat(shift.saturating_sub(whole.len()));
        whole.insert_str(0, &zeros);
        fraction.insert_str(0, &whole.split_off(whole.len() - shift));
    }
    let whole = whole.trim_start_matches('0');
    let fraction = fraction.trim_end_matches('0');
    if whole.len() + fraction.len() > MAX {
        return None;
    }
    let mut text = String::with_capacity(whole.len() + fraction.len() + 3);
    if negative && !(whole.is_empty() && fraction.is_empty()) {
        text.push('-');
    }
    text.push_str(if whole.is_empty() { "0" } else { whole });
    if !fraction.is_empty() {
        text.push('.');
        text.push_str(fraction);
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn plain_numbers_need_no_copy(text in "[0-9]{0,5}[.]?[0-9]{0,5}", other in "[-0-9., e$]{0,8}") {
            for text in [text, other] {
                if let Some(plain) = plain(&text) {
                    let only = Readings { first: plain.to_owned(), second: None };
                    proptest::prop_assert_eq!(read(&text), Some(only), "{}", text);
                }
            }
        }
    }
}
