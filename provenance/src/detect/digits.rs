//! Numbers, dates and phones inside text.

use super::Form;
use super::entry::nationals;
use super::index::Lane;
use super::json::is_plain_number;
use super::scan::{At, Find, Scanner};
use super::words::{LONGEST_WRITTEN, is_boundary, is_word};
use crate::vocabulary::canonical::fold::Folded;
use crate::vocabulary::canonical::{date, number, phone};

/// Longest number read inside text.
const LONGEST_NUMBER: usize = 48;
/// Most groups of digits that a phone is written in, and most digits with a prefix `00`.
const PHONE_GROUPS: usize = 7;
const PHONE_DIGITS: usize = 19;

impl Scanner<'_> {
    /// Numbers, dates and phones, at every group of digits and month that the sieve let pass.
    /// `false` if the effort allowed is used up.
    pub(super) fn digits(&mut self, at: &mut At<'_>, view: &Folded, starts: &[usize]) -> bool {
        let numbers = self.index.has(Lane::Number);
        let dates = self.index.has(Lane::Date);
        let phones = self.index.has(Lane::Phone);
        let text = view.text.as_bytes();
        // Digits alone were looked up as a whole.
        if text.len() <= LONGEST_WRITTEN && text.iter().all(u8::is_ascii_digit) {
            return true;
        }
        let mut number_end = 0;
        for &start in starts {
            let is_digit = text.get(start).is_some_and(u8::is_ascii_digit);
            if is_digit && numbers && start >= number_end {
                number_end = self.numbers(at, view, number_start(text, start));
            }
            if !is_boundary(&view.text, start) {
                continue;
            }
            if is_digit && phones {
                self.phones(at, view, start);
            }
            if dates {
                self.date(at, view, start);
            }
            if !self.spend(1) {
                return false;
            }
        }
        true
    }

    /// The number that begins at `start`, its pieces between commas, and what spaces group; gives its end.
    fn numbers(&mut self, at: &mut At<'_>, view: &Folded, start: usize) -> usize {
        let text = view.text.as_str();
        let bytes = text.as_bytes();
        let mut end = start;
        while let Some(byte) = bytes.get(end) {
            let joins = matches!(byte, b',' | b'.' | b'\'') && bytes.get(end + 1).is_some_and(u8::is_ascii_digit);
            if !byte.is_ascii_digit() && !joins {
                break;
            }
            end += 1;
        }
        let opens = opens(text, start);
        let closes = closes(text, end);
        if opens && closes {
            self.number(at, view, start, end);
        }
        if bytes[start..end].contains(&b',') {
            let mut piece = start;
            for part in text[start..end].split(',') {
                let until = piece + part.len();
                if (opens || piece > start) && (closes || until < end) {
                    self.number(at, view, piece, until);
                }
                piece = until + 1;
            }
        }
        if opens {
            let mut grouped = end;
            while grouped - start < LONGEST_NUMBER
                && bytes.get(grouped) == Some(&b' ')
                && bytes
                    .get(grouped + 1..grouped + 4)
                    .is_some_and(|group| group.iter().all(u8::is_ascii_digit))
            {
                grouped += 4;
                let fraction = bytes.get(grouped..).unwrap_or_default();
                if let [b',' | b'.', rest @ ..] = fraction {
                    let digits = rest
                        .iter()
                        .take(LONGEST_NUMBER)
                        .take_while(|b| b.is_ascii_digit())
                        .count();
                    if digits > 0 && closes_at(text, grouped + 1 + digits) {
                        self.number(at, view, start, grouped + 1 + digits);
                    }
                }
                if closes_at(text, grouped) {
                    self.number(at, view, start, grouped);
                }
            }
        }
        end
    }

    fn number(&mut self, at: &mut At<'_>, view: &Folded, start: usize, end: usize) {
        let Some(text) = view.text.get(start..end).filter(|text| text.len() <= LONGEST_NUMBER) else {
            return;
        };
        let find = |form| Find {
            range: view.source(start..end),
            whole: false,
            form,
        };
        let minus = is_negative(&view.text, start);
        if let (Some(plain), false) = (number::plain(text), minus) {
            self.lookup(at, Lane::Number, plain, || find(Form::Embedded));
            return;
        }
        let Some(readings) = number::read(text) else { return };
        let form = if is_plain_number(text) {
            Form::Embedded
        } else {
            Form::Normalised
        };
        for (reading, form) in [(Some(readings.first), form), (readings.second, Form::Normalised)] {
            let Some(reading) = reading else { continue };
            self.lookup(at, Lane::Number, &reading, || find(form));
            if minus {
                self.lookup(at, Lane::Number, &format!("-{reading}"), || find(form));
            }
        }
    }

    fn date(&mut self, at: &mut At<'_>, view: &Folded, start: usize) {
        let Some((length, readings)) = view.text.as_bytes().get(start..).and_then(date::at_start) else {
            return;
        };
        let text = view.text.get(start..start + length).unwrap_or_default();
        let form = if text == readings.first {
            Form::Embedded
        } else {
            Form::Normalised
        };
        let find = |form| Find {
            range: view.source(start..start + length),
            whole: false,
            form,
        };
        self.lookup(at, Lane::Date, &readings.first, || find(form));
        if let Some(second) = readings.second {
            self.lookup(at, Lane::Date, &second, || find(Form::Normalised));
        }
    }

    /// Every phone that begins with the group of digits at `start`.
    fn phones(&mut self, at: &mut At<'_>, view: &Folded, start: usize) {
        let bytes = view.text.as_bytes();
        let mut buffer = [0; PHONE_DIGITS];
        let mut count = 0;
        let mut end = start;
        for group in 0..PHONE_GROUPS {
            let group_start = end;
            while let Some(digit) = bytes.get(end).filter(|b| b.is_ascii_digit()) {
                let Some(slot) = buffer.get_mut(count) else { return };
                *slot = *digit;
                count += 1;
                end += 1;
            }
            // Groups are apart by a little punctuation.
            let gap = bytes.get(end..).unwrap_or_default();
            let gap = gap.iter().take(4).take_while(|b| b" -.()/".contains(b)).count();
            let enough = if group == 0 { *phone::DIGITS.start() } else { 7 };
            if count >= enough && is_boundary(&view.text, end) && end > group_start {
                let form = if group == 0 { Form::Embedded } else { Form::Normalised };
                let digits = std::str::from_utf8(&buffer[..count]).unwrap_or_default();
                if let Some(plain) = phone::plain(digits) {
                    let find = |form| Find {
                        range: view.source(start..end),
                        whole: false,
                        form,
                    };
                    self.phone(at, plain, form, find);
                }
            }
            if gap == 0 || gap > 3 || !bytes.get(end + gap).is_some_and(u8::is_ascii_digit) {
                return;
            }
            end += gap;
        }
    }

    /// A phone as written, and with or without its country code.
    pub(super) fn phone(&mut self, at: &mut At<'_>, digits: &str, form: Form, find: impl Fn(Form) -> Find) {
        let normalised = || find(Form::Normalised);
        self.lookup(at, Lane::Phone, digits, || find(form));
        self.lookup(at, Lane::National, digits, normalised);
        for shorter in nationals(digits) {
            self.lookup(at, Lane::Phone, shorter, normalised);
            self.lookup(at, Lane::National, shorter, normalised);
        }
    }
}

/// Where the number begins of which the digit at `at` is a part.
fn number_start(text: &[u8], at: usize) -> usize {
    let mut start = at;
    let byte = |at: usize| text.get(at).copied().unwrap_or_default();
    while start > 0 {
        let before = byte(start - 1);
        let joins = matches!(before, b',' | b'.' | b'\'')
            && start > 1
            && byte(start - 2).is_ascii_digit()
            && byte(start).is_ascii_digit();
        if !joins && !before.is_ascii_digit() {
            break;
        }
        start -= 1;
    }
    start
}

/// Whether a number may begin at `start`: nothing of a word before it, or a currency's code.
fn opens(text: &str, start: usize) -> bool {
    let code = || {
        let code_start = start.checked_sub(3)?;
        Some(number::is_code(text.get(code_start..start)?) && is_boundary(text, code_start))
    };
    is_boundary(text, start) || code().unwrap_or(false)
}

fn closes(text: &str, end: usize) -> bool {
    let code = || Some(number::is_code(text.get(end..end + 3)?) && is_boundary(text, end + 3));
    is_boundary(text, end) || code().unwrap_or(false)
}

/// As [`closes`], where the number does not go on either.
fn closes_at(text: &str, end: usize) -> bool {
    let rest = text.as_bytes().get(end..).unwrap_or_default();
    let goes_on = matches!(rest, [b',' | b'.' | b'\'', digit, ..] if digit.is_ascii_digit());
    closes(text, end) && !goes_on
}

/// A minus before the number and its currency, that joins nothing before it.
fn is_negative(text: &str, start: usize) -> bool {
    let before = text.get(..start).unwrap_or_default();
    let before = before.strip_suffix(number::is_symbol).unwrap_or(before);
    before
        .strip_suffix('-')
        .is_some_and(|before| !before.chars().next_back().is_some_and(is_word))
}
