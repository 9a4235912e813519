//! Groups of digits at which a number, a date or a phone could be known.

use super::chunk::{Chunk, Offsets, byte_at, pair_of, word_at};
use super::starts::month;
use super::{Carry, Sieve};
use crate::detect::anchor::{length_bit, lower};
use crate::detect::classify::{Masks, Unit};
use crate::detect::entry::nationals;
use crate::vocabulary::canonical::number;

/// Longest run of digits and their separators that is read here.
const NUMBER: usize = 48;
/// Most digits of a phone with a prefix `00`, and most bytes between two groups of them.
const PHONE: usize = 19;
const GAP: usize = 16;
/// Most digits of which no trunk zero is left out, and fewest of which a calling code may be.
const TRUNK: usize = 8;
const CODED: usize = 9;

/// Groups of digits of a chunk, by what could be known that begins with them.
pub(super) struct Groups {
    numbers: Offsets,
    dates: Offsets,
    phones: Offsets,
}

impl Groups {
    pub(super) fn new() -> Self {
        Groups {
            numbers: Offsets::new(),
            dates: Offsets::new(),
            phones: Offsets::new(),
        }
    }
}

impl Sieve<'_> {
    /// Gathers the groups of digits of a block, but for those that masks alone rule out.
    #[inline(always)]
    pub(super) fn gather_groups(&self, unit: impl Unit, chunk: &Chunk, block: usize, carry: &Carry, into: &mut Groups) {
        let (now, next) = chunk.pair(block);
        let behind = now.digit << 1 | carry.digit;
        let groups = now.digit & !behind;
        if groups == 0 || self.numbers == 0 && self.phones == 0 && !self.dates {
            return;
        }
        // The bytes one, two and three further on.
        let after = |now: u64, next: u64, bytes: u32| now >> bytes | next << (64 - bytes);
        // What stands behind each group, but behind the one that began before the block; `back` says of which groups it
        // does. The last one may end in the next block: nothing is known of it.
        let ends = !now.digit & behind;
        let ends = if carry.digit == 0 {
            ends
        } else {
            ends & ends.wrapping_sub(1)
        };
        let back = |of| unit.back(of, ends, groups);
        let unknown = match now.digit >> 63 {
            0 => 0,
            _ => 1_u64.rotate_right(1 + groups.leading_zeros()),
        };

        let (one, two) = (after(now.digit, next.digit, 1), after(now.digit, next.digit, 2));
        let pairs = now.digit & now.digit >> 1;
        let fours = pairs & pairs >> 2;
        let eights = fours & fours >> 4;
        let letter = now.word & !now.digit;
        let next_letter = next.word & !next.digit;
        let after_word = now.word << 1 | carry.word;
        let after_letter = letter << 1 | carry.word & !carry.digit;
        let comma = now.structure & !(now.open | now.close | now.joint);

        if self.numbers != 0 {
            // Three letters, and no more, may be a currency's code; what stands before the block is not looked at.
            let code_before = letter << 1 & letter << 2 & letter << 3 & !(now.word << 4) | 0xf;
            let letters = [1, 2].map(|bytes| after(letter, next_letter, bytes));
            let code_after = letter & letters[0] & letters[1] & !after(now.word, next.word, 3);
            let exponent = letter & (one | after(now.joint, next.joint, 1));
            // Comma, point or apostrophe, and what is seldom there.
            let joins = !(now.word | now.quote | now.open | now.close | now.control | now.joint & !now.dot) & one;
            let spaces = (now.space | now.plus) & one & two;
            // Zeros before a number are left out of it.
            let zeros = now.zero
                & if self.numbers.trailing_zeros() < 2 {
                    pairs
                } else {
                    fours
                };
            // Behind a comma or a point it was tried already.
            let later = (comma | now.dot) << 1 & now.digit << 2;

            // As numbers are kept they were met as words already: what ends a fraction is no digit of another, and it has
            // no zeros at its end, nor three digits, which may be thousands.
            let quiet = |masks: &Masks| masks.quote | masks.structure | masks.control;
            let stop = quiet(now) & !comma | comma & after(quiet(now), quiet(next), 1);
            let fraction = back(stop & !(now.zero << 1)) & !(pairs & now.digit >> 2 & !fours);
            let kept = back(now.dot & fraction >> 1) & !(now.zero & pairs);

            let joined = back(joins) & !(kept & !after_letter);
            let odd = (back(code_after | exponent | spaces) | zeros) & (!after_letter | code_before);
            let numbers = joined | odd | code_before & after_letter | unknown;
            into.numbers.gather(unit, block, groups & numbers & !later);
        }
        let first = groups & !after_word;
        if self.dates {
            let separators = now.joint & now.apart & !now.space & !now.plus;
            let next_separators = next.joint & next.apart & !next.space & !next.plus;
            // A separator, one or two digits, and a separator.
            let parted = one
                & (after(separators, next_separators, 2) | two & after(separators, next_separators, 3))
                & separators;
            let gaps = comma | now.joint & now.apart;
            let next_gaps = next.structure | next.joint & next.apart;
            let named =
                gaps & after(letter | gaps, next_letter | next_gaps, 1) | letter & after(letter, next_letter, 1);
            let written = back(parted) & (fours | !(pairs & now.digit >> 2))
                | back(named) & !(pairs & now.digit >> 2)
                | eights & !(now.digit >> 8);
            into.dates.gather(unit, block, first & (written | unknown));
        }
        if self.phones != 0 {
            // So many digits, and what may stand between them.
            let mut reach = pair_of(now.digit | now.apart, next.digit | next.apart);
            let fewest = self.phones.trailing_zeros();
            for (shift, digits) in [(1, 2), (2, 4), (4, 8)] {
                if fewest >= digits {
                    reach &= reach >> shift;
                }
            }
            let nine = eights & now.digit >> 8;
            let zeros = now.zero & fours & now.digit >> 5;
            let phones = back(now.apart) | nine | zeros | unknown;
            into.phones.gather(unit, block, first & phones & reach as u64);
        }
    }

    /// Passes on the groups of digits at which a number, a date or a phone could be known. `phones` is where the groups
    /// end that were tried as phones from the first on.
    #[inline(always)]
    pub(super) fn groups_of(
        &self,
        bytes: &[u8],
        chunk: &Chunk,
        groups: &mut Groups,
        phones: &mut usize,
        mut pass: impl FnMut(usize),
    ) {
        // Where a group ends, and what stands there.
        let end = |offset: u16| {
            let mut end = chunk.at(offset) + chunk.digits(offset).trailing_ones() as usize;
            while byte_at(bytes, end).is_ascii_digit() {
                end += 1;
            }
            (end, byte_at(bytes, end))
        };
        for offset in groups.numbers.get() {
            let (at, (end, after)) = (chunk.at(*offset), end(*offset));
            let before = at.checked_sub(1).map_or(0, |before| byte_at(bytes, before));
            if self.number(bytes, at, end, before, after) {
                pass(at);
            }
        }
        for offset in groups.dates.get() {
            let (at, (end, after)) = (chunk.at(*offset), end(*offset));
            if self.date(bytes, at, end, after) {
                pass(at);
            }
        }
        for offset in groups.phones.get() {
            // Fewer digits than any has may be far apart.
            let reach = chunk.apart(*offset).trailing_ones();
            let digits = chunk.digits(*offset) & !(!0_u64).checked_shl(reach).unwrap_or(0);
            if reach < 64 && digits.count_ones() < self.phones.trailing_zeros() {
                continue;
            }
            let (at, (end, after)) = (chunk.at(*offset), end(*offset));
            if self.phone(bytes, at, end, after, phones) {
                pass(at);
            }
        }
        groups.numbers.clear();
        groups.dates.clear();
        groups.phones.clear();
    }

    /// What is written as numbers are kept was looked up as a word already; here are the others.
    #[inline]
    fn number(&self, bytes: &[u8], at: usize, end: usize, before: u8, after: u8) -> bool {
        if after == b'.' && !before.is_ascii_alphanumeric() && is_kept(bytes, at, end) {
            return false;
        }
        let joins = |byte: u8| matches!(byte, b',' | b'.' | b'\'');
        let joined = joins(after) && byte_at(bytes, end + 1).is_ascii_digit();
        let spaced = matches!(after, b' ' | b'+')
            && byte_at(bytes, end + 1).is_ascii_digit()
            && byte_at(bytes, end + 2).is_ascii_digit();
        // Three letters, and no more, may be a currency's code.
        let letters = |from: usize| (from..from + 3).all(|at| byte_at(bytes, at).is_ascii_alphabetic());
        let goes = |at: Option<usize>| at.is_some_and(|at| byte_at(bytes, at).is_ascii_alphanumeric());
        let code_before = || at >= 3 && letters(at - 3) && !goes(at.checked_sub(4));
        let code_after = || letters(end) && !goes(Some(end + 3));
        let opens = !before.is_ascii_alphabetic() || code_before();
        if !opens {
            // Only a piece of it, behind a comma.
            let rest = bytes.get(end..).unwrap_or_default();
            let mut number = rest
                .iter()
                .take(NUMBER)
                .take_while(|byte| byte.is_ascii_digit() || joins(**byte));
            if !joined || !number.any(|byte| *byte == b',') {
                return false;
            }
        }
        let coded = after.is_ascii_alphabetic() && (matches!(after, b'e' | b'E') || code_after())
            || before.is_ascii_alphabetic() && opens;
        let zeros = byte_at(bytes, at) == b'0' && end - at > 1 && {
            let zeros = bytes
                .get(at..end)
                .unwrap_or_default()
                .iter()
                .take_while(|digit| **digit == b'0')
                .count();
            self.numbers & length_bit((end - at - zeros).max(1)) != 0
        };
        if !joined && !spaced && !coded && !zeros {
            return false;
        }
        let goes_on = joins(before) && at >= 2 && byte_at(bytes, at - 2).is_ascii_digit();
        !goes_on && self.odd_number(bytes, at, end, before)
    }

    #[inline(never)]
    fn odd_number(&self, bytes: &[u8], start: usize, end: usize, before: u8) -> bool {
        let mut end = end;
        let mut commas = false;
        loop {
            let after = byte_at(bytes, end);
            let joins = matches!(after, b',' | b'.' | b'\'') && byte_at(bytes, end + 1).is_ascii_digit();
            if !joins && !after.is_ascii_digit() {
                break;
            }
            commas |= after == b',';
            end += 1;
            if end - start > NUMBER {
                return true;
            }
        }
        let code = |at: Option<usize>| {
            let text = at.and_then(|at| bytes.get(at..at + 3)).unwrap_or_default();
            let text = text.to_ascii_lowercase();
            std::str::from_utf8(&text).is_ok_and(number::is_code)
        };
        let after = byte_at(bytes, end);
        let opens = !before.is_ascii_alphabetic() || code(start.checked_sub(3));
        let closes = !after.is_ascii_alphabetic() || code(Some(end));
        if opens && matches!(after, b'e' | b'E') && exponent(bytes, end) {
            return true;
        }
        let run = bytes.get(start..end).unwrap_or_default();
        if opens && closes && self.decimal(run) {
            return true;
        }
        if commas
            && run
                .split(|byte| *byte == b',')
                .any(|piece| !is_plain(piece) && self.decimal(piece))
        {
            return true;
        }
        if !opens || run.first() == Some(&b'0') {
            return false;
        }
        // Groups of two or three digits after spaces, perhaps with a fraction.
        while matches!(byte_at(bytes, end), b' ' | b'+') {
            let group = bytes.get(end + 1..).unwrap_or_default();
            let count = group.iter().take(4).take_while(|byte| byte.is_ascii_digit()).count();
            end += 1 + count;
            if !(2..=3).contains(&count) {
                return false;
            }
            if end - start > NUMBER {
                return true;
            }
            if self.decimal(bytes.get(start..end).unwrap_or_default()) {
                return true;
            }
            if matches!(byte_at(bytes, end), b',' | b'.') {
                let fraction = bytes.get(end + 1..).unwrap_or_default();
                let count = fraction
                    .iter()
                    .take(NUMBER)
                    .take_while(|byte| byte.is_ascii_digit())
                    .count();
                let whole = bytes.get(start..end + 1 + count).unwrap_or_default();
                if count > 0 && (whole.len() > NUMBER || self.decimal(whole)) {
                    return true;
                }
            }
        }
        false
    }

    /// Whether digits with separators are known, be they of groups alone, or the last that of the fraction.
    fn decimal(&self, text: &[u8]) -> bool {
        let mut digits = [0; NUMBER + 1];
        let (mut count, mut whole) = (0, None);
        for byte in text {
            if !byte.is_ascii_digit() {
                whole = Some(count);
            } else if let Some(slot) = digits.get_mut(count) {
                *slot = *byte;
                count += 1;
            }
        }
        let plain = |digits: &[u8]| {
            let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
            zeros.min(digits.len().saturating_sub(1))
        };
        let all = digits.get(..count).unwrap_or_default();
        let has = |number: &[u8]| self.numbers & length_bit(number.len()) != 0 && self.has(number);
        if has(all.get(plain(all)..).unwrap_or_default()) {
            return true;
        }
        let Some(whole) = whole else { return false };
        let (whole, fraction) = all.split_at_checked(whole).unwrap_or((all, &[]));
        let zeros = fraction.iter().rev().take_while(|digit| **digit == b'0').count();
        let fraction = fraction.get(..fraction.len() - zeros).unwrap_or_default();
        let mut point = [0; NUMBER + 3];
        let whole = match whole.get(plain(whole)..) {
            None | Some([]) => b"0",
            Some(whole) => whole,
        };
        let (dot, separator): (usize, &[u8]) = if fraction.is_empty() { (0, b"") } else { (1, b".") };
        let length = whole.len() + dot + fraction.len();
        let written = whole.iter().chain(separator).chain(fraction);
        point.iter_mut().zip(written).for_each(|(to, from)| *to = *from);
        has(point.get(..length).unwrap_or_default())
    }

    /// A date that begins with the digits from `at` to `end`.
    #[inline]
    fn date(&self, bytes: &[u8], at: usize, end: usize, after: u8) -> bool {
        let separated = matches!(after, b'-' | b'/' | b'.');
        match end - at {
            8 => self.has(bytes.get(at..end).unwrap_or_default()),
            4 if separated => {
                let (month, end) = pair(bytes, end + 1);
                let (day, last) = pair(bytes, end + 1);
                byte_at(bytes, end) == after
                    && last > end + 1
                    && bytes
                        .get(at..at + 4)
                        .is_some_and(|year| self.has(&iso(year, month, day)))
            }
            1 | 2 => {
                let (first, _) = pair(bytes, at);
                if separated {
                    let (second, end) = pair(bytes, end + 1);
                    let year = bytes.get(end + 1..end + 5).unwrap_or_default();
                    if byte_at(bytes, end) == after && year.len() == 4 && year.iter().all(u8::is_ascii_digit) {
                        return self.has(&iso(year, second, first)) || self.has(&iso(year, first, second));
                    }
                }
                let next = byte_at(bytes, end + 1);
                match after {
                    b' ' | b'+' | b',' | b'.' | b'-' => {
                        (next.is_ascii_alphabetic() || b" +,.-".contains(&next)) && day_first(bytes, end)
                    }
                    _ => next.is_ascii_alphabetic() && after.is_ascii_alphabetic() && day_first(bytes, end),
                }
            }
            _ => false,
        }
    }

    /// A phone that begins with the digits from `at` to `end`.
    #[inline]
    fn phone(&self, bytes: &[u8], at: usize, end: usize, after: u8, tried: &mut usize) -> bool {
        let separates = matches!(after, b' ' | b'-' | b'.' | b'(' | b')' | b'/' | b'+');
        let prefixed = end - at > 5 && byte_at(bytes, at) == b'0' && byte_at(bytes, at + 1) == b'0';
        // Met as a word already, but for what could be left out of it.
        let whole = end - at <= TRUNK || byte_at(bytes, at) != b'0' && end - at < CODED;
        let alone = !separates && whole && !prefixed;
        !alone && at >= *tried && self.groups(bytes, at, tried)
    }

    #[inline(never)]
    fn groups(&self, bytes: &[u8], start: usize, tried: &mut usize) -> bool {
        let mut digits = [0; PHONE];
        let mut count = 0;
        let mut end = start;
        loop {
            let group = end;
            while let digit @ b'0'..=b'9' = byte_at(bytes, end) {
                let Some(slot) = digits.get_mut(count) else {
                    return false;
                };
                *slot = digit;
                count += 1;
                end += 1;
            }
            // A trunk zero may be left out.
            if end == group + 1
                && byte_at(bytes, group) == b'0'
                && byte_at(bytes, end) == b')'
                && group.checked_sub(1).map(|at| byte_at(bytes, at)) == Some(b'(')
            {
                return true;
            }
            if self.is_phone(digits.get(..count).unwrap_or_default()) {
                return true;
            }
            let gap = bytes.get(end..).unwrap_or_default();
            let gap = gap
                .iter()
                .take(GAP)
                .take_while(|byte| b" -.()/+".contains(byte))
                .count();
            if gap == GAP {
                return true;
            }
            if gap == 0 || !byte_at(bytes, end + gap).is_ascii_digit() {
                // What begins later in these groups has fewer digits: too few, if these are.
                if count < (self.phones.trailing_zeros() as usize) {
                    *tried = end;
                }
                return false;
            }
            end += gap;
        }
    }

    fn is_phone(&self, digits: &[u8]) -> bool {
        let mut digits = digits;
        while let [b'0', b'0', rest @ ..] = digits {
            digits = rest;
        }
        if digits.len() < self.phones.trailing_zeros() as usize {
            return false;
        }
        let known = |digits: &str| self.phones >> digits.len() & 1 != 0 && self.has(digits.as_bytes());
        let digits = std::str::from_utf8(digits).unwrap_or_default();
        known(digits) || nationals(digits).any(known)
    }
}

/// Whether the digits from `at` on, with those after the point at `end`, are a number as it is kept.
fn is_kept(bytes: &[u8], at: usize, end: usize) -> bool {
    let rest = bytes.get(end + 1..).unwrap_or_default();
    let fraction = rest
        .iter()
        .take(NUMBER)
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let last = end + 1 + fraction;
    is_plain(bytes.get(at..last).unwrap_or_default())
        && match bytes.get(last..).unwrap_or_default() {
            [] | [b'"' | b'}' | b']' | b'\n', ..] => true,
            [b',', next, ..] => !next.is_ascii_digit() && *next != b' ',
            _ => false,
        }
}

/// Whether digits, perhaps with a point, are a number as it is kept, and no other: it was met as a word already.
fn is_plain(text: &[u8]) -> bool {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let whole = digits == 1 || digits > 1 && text.first() != Some(&b'0');
    whole
        && match text.get(digits..).unwrap_or_default() {
            [] => true,
            // Three digits could be a group of thousands.
            [b'.', fraction @ ..] => {
                !matches!(fraction, [] | [_, _, _] | [.., b'0']) && fraction.iter().all(u8::is_ascii_digit)
            }
            _ => false,
        }
}

/// Whether an exponent and nothing more of a word is written here.
fn exponent(bytes: &[u8], at: usize) -> bool {
    let sign = usize::from(matches!(byte_at(bytes, at + 1), b'+' | b'-'));
    let digits = bytes.get(at + 1 + sign..).unwrap_or_default();
    let count = digits.iter().take(8).take_while(|byte| byte.is_ascii_digit()).count();
    // A currency's code may follow.
    count > 0
        && !digits.get(count).is_some_and(u8::is_ascii_digit)
        && digits
            .iter()
            .skip(count)
            .take_while(|byte| byte.is_ascii_alphanumeric())
            .count()
            % 3
            == 0
}

/// One or two digits, with a zero before one, and where they end.
#[inline(always)]
fn pair(bytes: &[u8], at: usize) -> ([u8; 2], usize) {
    match (byte_at(bytes, at), byte_at(bytes, at + 1)) {
        (a @ b'0'..=b'9', b @ b'0'..=b'9') => ([a, b], at + 2),
        (a @ b'0'..=b'9', _) => ([b'0', a], at + 1),
        _ => ([0, 0], at),
    }
}

fn iso(year: &[u8], month: [u8; 2], day: [u8; 2]) -> [u8; 8] {
    let mut date = [0; 8];
    let digits = year.iter().chain(&month).chain(&day);
    date.iter_mut().zip(digits).for_each(|(to, from)| *to = *from);
    date
}

/// Whether a month's name follows the digits of a day that end here.
#[inline(never)]
fn day_first(bytes: &[u8], end: usize) -> bool {
    let gap = |at: usize| {
        let rest = bytes.get(at..).unwrap_or_default();
        at + rest
            .iter()
            .take(2)
            .take_while(|byte| matches!(byte, b' ' | b'+' | b',' | b'.' | b'-'))
            .count()
    };
    let letters = |at: usize| lower(word_at(bytes, at)) & 0xffff;
    let known = |word: &[u8; 2]| u64::from(u16::from_le_bytes(*word));
    let mut at = end;
    if [b"st", b"nd", b"rd", b"th"]
        .into_iter()
        .any(|word| letters(at) == known(word))
    {
        at += 2;
    }
    at = gap(at);
    month(bytes, at) || letters(at) == known(b"of") && month(bytes, gap(at + 2))
}
