//! Groups of digits at which a number, a date or a phone could be known.

use super::Sieve;
use super::chunk::{Chunk, Offsets, byte_at, pair_of, word_at};
use super::starts::{is_month, month};
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

impl Sieve<'_> {
    /// Gathers the groups of digits of a block, but for those that masks alone rule out. `before` is the block's
    /// first bit of what the one before it leaves: a word, a digit.
    #[inline(always)]
    pub(super) fn gather_groups(
        &self,
        unit: impl Unit,
        chunk: &Chunk,
        block: usize,
        digit_before: u64,
        into: &mut Offsets,
    ) {
        let (now, _) = chunk.pair(block);
        let mut groups = now.digit & !(now.digit << 1 | digit_before);
        if groups == 0 || self.numbers == 0 && self.phones == 0 && !self.dates {
            return;
        }
        let letter = now.word & !now.digit;
        let within = letter << 1;
        // In the middle of a word, unless three letters before it may be a currency's code (what stands before the
        // block is not looked at), or it goes on behind a comma.
        let coded = letter << 1 & letter << 2 & letter << 3 & !(now.word << 4) | 0xf;
        let inner = groups & within & !coded;
        let (ends, beyond) = now.digit.overflowing_add(inner);
        let apart = now.word | now.quote | now.joint & !now.dot;
        let joined = ends & !apart & (now.digit >> 1 | 1 << 63);
        if !beyond && joined == 0 {
            groups &= !inner;
        }
        into.gather(unit, block, groups & !self.plain(unit, chunk, block, digit_before));
    }

    /// The groups of digits that are written as numbers are kept and that end in their block: they were met as words already,
    /// if at all, and are no part of a date or a phone.
    #[inline(always)]
    fn plain(&self, unit: impl Unit, chunk: &Chunk, block: usize, digit_before: u64) -> u64 {
        let (now, next) = chunk.pair(block);
        let after = |now: u64, next: u64| now >> 1 | next << 63;
        let behind = now.digit << 1 | digit_before;
        let groups = now.digit & !behind;
        // The first is that of a group that began before.
        let ends = !now.digit & behind;
        let ends = if digit_before == 0 {
            ends
        } else {
            ends & ends.wrapping_sub(1)
        };
        let back = |of| unit.back(of, ends, groups);

        let two = now.digit & now.digit >> 1;
        let three = two & now.digit >> 2;
        let four = two & two >> 2;
        let eight = four & four >> 4;
        let letter = now.word & !now.digit;
        let comma = now.structure & !(now.open | now.close | now.joint);
        let quiet = |masks: &Masks| masks.quote | masks.structure | masks.control;
        let stop = quiet(now) & !comma | comma & after(quiet(now), quiet(next));
        let stops = back(stop) | back(comma & after(letter, next.word & !next.digit)) & three;
        // Zeros before a number are left out of it.
        let zeros = now.zero & if self.numbers.trailing_zeros() < 4 { two } else { four };
        let odd = eight | zeros | letter << 1 | 1;

        let fraction = back(stop & !(now.zero << 1)) & !eight & !(three & !four);
        let pointed = back(now.dot & fraction >> 1);
        let mut apart = now.digit | now.apart;
        let phones = self.phones.trailing_zeros();
        for (shift, fewest) in [(1, 2), (2, 4), (4, 8)] {
            if phones >= fewest {
                apart &= apart >> shift;
            }
        }
        (stops | pointed & !apart & !(now.zero & two)) & !odd
    }

    /// Passes on the groups of digits at which a number, a date or a phone could be known. `phones` is where the groups
    /// end that were tried as phones from the first on.
    #[inline(always)]
    pub(super) fn groups_of(
        &self,
        bytes: &[u8],
        chunk: &Chunk,
        groups: &mut Offsets,
        phones: &mut usize,
        mut pass: impl FnMut(usize),
    ) {
        for offset in groups.get() {
            let at = chunk.at(*offset);
            if self.could_be_group(chunk, *offset) && self.group(bytes, at, chunk.digits(*offset), phones) {
                pass(at);
            }
        }
        groups.clear();
    }

    /// `false` for a group of digits that is neither written as other than numbers are kept, nor as dates and phones are: what
    /// [`group`](Self::group) rules out at first sight, in few steps.
    #[inline(always)]
    fn could_be_group(&self, chunk: &Chunk, offset: u16) -> bool {
        let digits = chunk.digits(offset);
        let length = digits.trailing_ones();
        if length > NUMBER as u32 {
            return true;
        }
        let byte = |at: usize| chunk.folded.get(at).copied().unwrap_or_default();
        let at = usize::from(offset);
        let end = at + length as usize;
        let (first, after) = (byte(at), byte(end));
        let follows = FOLLOWS[usize::from(after)];
        // From the byte behind the next one on.
        let behind = digits >> length >> 1;
        let second = behind.trailing_ones();
        let before = at.checked_sub(1).map_or(0, byte);
        let goes_on = FOLLOWS[usize::from(before)] & JOINS != 0 && at >= 2 && byte(at - 2).is_ascii_digit();
        if self.numbers != 0 && !goes_on {
            let joined = follows & JOINS != 0 && behind & 1 != 0;
            let spaced = follows & SPACES != 0 && behind & 3 == 3;
            let letters = |from: usize| (from..from + 3).all(|at| byte(at).is_ascii_alphabetic());
            let coded = follows & LETTER != 0
                && (after == b'e' || letters(end) && !byte(end + 3).is_ascii_alphanumeric())
                || at < 4
                || FOLLOWS[usize::from(before)] & LETTER != 0
                    && (joined || letters(at - 3) && !byte(at - 4).is_ascii_alphanumeric());
            let zeros = first == b'0' && length > self.numbers.trailing_zeros() + 1;
            let padded = first == b'0' && length > 1;
            if joined && after == b'.' && !coded && !padded && second < 32 && second != 3 {
                // As numbers are kept?
                let last = end + second as usize;
                let (digit, stop, beyond) = (byte(last), byte(last + 1), byte(last + 2));
                let stops = match stop {
                    0 | b'"' | b'}' | b']' | b'\n' => true,
                    b',' => !beyond.is_ascii_digit() && beyond != b' ',
                    _ => false,
                };
                if digit == b'0' || !stops {
                    return true;
                }
            } else if joined || spaced || coded || zeros {
                return true;
            }
        }
        if self.dates {
            let dated = follows & DATES != 0 && (1..=2).contains(&second) && byte(end + 1 + second as usize) == after;
            let year = behind >> second >> 1;
            let could = match length {
                1 | 2 => {
                    dated && year & 0xf == 0xf
                        || follows & LETTER != 0 && is_day_written(chunk.word(end as u16), true)
                        || follows & DAYS != 0
                            && (FOLLOWS[usize::from(byte(end + 1))] & DAYS != 0
                                || is_day_written(chunk.word(end as u16 + 1), false))
                }
                4 => dated && year & 1 != 0,
                8 => true,
                _ => false,
            };
            if could {
                return true;
            }
        }
        if self.phones == 0 {
            return false;
        }
        let trunk = first == b'0' && length > 5;
        let alone = follows & APART == 0 && length < CODED as u32 && !trunk;
        let reach = chunk.apart(offset).trailing_ones();
        let count = (digits & !(!0_u64).checked_shl(reach).unwrap_or(0)).count_ones();
        !alone && (count >= self.phones.trailing_zeros() || reach == 64)
    }

    /// Whether a number, a date or a phone could be known that begins with the group of digits at
    /// `at`. `mask` has the digits from there on, as far as the block goes.
    #[inline(always)]
    fn group(&self, bytes: &[u8], at: usize, mask: u64, phones: &mut usize) -> bool {
        let mut end = at + mask.trailing_ones() as usize;
        while byte_at(bytes, end).is_ascii_digit() {
            end += 1;
        }
        let before = at.checked_sub(1).map_or(0, |before| byte_at(bytes, before));
        let after = byte_at(bytes, end);
        let plain = matches!(after, b'"' | b':' | b'}' | b']' | b'<' | b';' | b'&' | b'\n' | 0)
            || after == b',' && !byte_at(bytes, end + 1).is_ascii_digit() && byte_at(bytes, end + 1) != b' ';
        if plain && end - at < 6 && !before.is_ascii_alphabetic() {
            // Met as a word already, if at all, but for zeros before it.
            let shorter = self.numbers & !(!0 << (end - at - 1));
            if byte_at(bytes, at) != b'0' || shorter == 0 {
                return false;
            }
        }
        if self.numbers != 0 && self.number(bytes, at, end, before, after) {
            return true;
        }
        if before.is_ascii_alphanumeric() {
            return false;
        }
        self.dates && self.date(bytes, at, end, after) || self.phones != 0 && self.phone(bytes, at, end, after, phones)
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

/// What may follow a group of digits.
const FOLLOWS: [u8; 256] = {
    let mut follows = [0; 256];
    let mut n = 0;
    while n < 256 {
        follows[n] = match n as u8 {
            b'.' => JOINS | DATES | DAYS | APART,
            b',' => JOINS | DAYS,
            b'\'' => JOINS,
            b' ' | b'+' => SPACES | DAYS | APART,
            b'-' => DATES | DAYS | APART,
            b'/' => DATES | APART,
            b'(' | b')' => APART,
            b'a'..=b'z' | b'A'..=b'Z' => LETTER,
            _ => 0,
        };
        n += 1;
    }
    follows
};
const JOINS: u8 = 1;
const SPACES: u8 = 2;
const LETTER: u8 = 4;
const DATES: u8 = 8;
const DAYS: u8 = 16;
const APART: u8 = 32;

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

/// Whether a folded word that follows a day begins as a month's name, or as what may stand between.
#[inline(always)]
fn is_day_written(word: u64, joined: bool) -> bool {
    let letters = word as u16;
    let is = |word: &[u8; 2]| letters == u16::from_le_bytes(*word);
    is_month(word) || is(b"of") || joined && (is(b"st") || is(b"nd") || is(b"rd") || is(b"th"))
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
