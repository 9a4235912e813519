//! Tokens: where a value may begin and end, and the search for text.

use std::ops::Range;

use super::anchor::{ANCHOR, LONGEST, length_bit};
use super::entry::{BARE, begins_bare, is_separator};
use super::index::{Known, Lane};
use super::scan::{At, Find, LOOKUP, Scanner};
use super::{Form, json};
use crate::vocabulary::canonical::fold::Folded;
use crate::vocabulary::canonical::{date, number, phone};

/// Fewest bytes of a value that is searched inside text.
const SHORTEST: usize = 3;
/// Longest leaf that is read as a number, a date or a phone as a whole.
pub(super) const LONGEST_WRITTEN: usize = 64;
/// Most ids that are looked up at one place: of one beginning, and of several lengths.
const BARE_TRIED: usize = 16;

/// A letter, a digit or a mark, of any script.
pub(super) fn is_word(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_alphanumeric();
    }
    // Folded text: typographic forms that have a plain one are plain already.
    let symbol = matches!(c,
        '\u{80}'..='\u{a9}' | '\u{ab}'..='\u{b4}' | '\u{b6}'..='\u{b9}' | '\u{bb}'..='\u{bf}' | '\u{d7}' | '\u{f7}'
        | '\u{37e}' | '\u{387}' | '\u{589}' | '\u{58a}' | '\u{5be}' | '\u{60c}' | '\u{61b}' | '\u{61f}' | '\u{66a}'..='\u{66d}' | '\u{6d4}'
        | '\u{964}' | '\u{965}' | '\u{e3f}' | '\u{e4f}' | '\u{2000}'..='\u{2bff}' | '\u{2e00}'..='\u{2e7f}'
        | '\u{3000}'..='\u{3004}' | '\u{3008}'..='\u{3020}' | '\u{3030}' | '\u{303d}'..='\u{303f}' | '\u{30fb}'
        | '\u{e000}'..='\u{f8ff}' | '\u{fe10}'..='\u{fe6f}' | '\u{fff0}'..='\u{ffff}' | '\u{1f000}'..='\u{1faff}' | '\u{e0000}'..);
    !symbol && !c.is_whitespace() && !c.is_control()
}

/// A letter of a script that puts no spaces between words: a token of its own.
pub(super) fn is_lone(c: char) -> bool {
    matches!(c,
        '\u{e01}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{3005}'..='\u{30ff}'
        | '\u{3400}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

fn is_break(before: char, after: char) -> bool {
    !is_word(before) || !is_word(after) || is_lone(before) || is_lone(after)
}

/// Whether a value may begin or end between what stands before and after `at`.
pub(super) fn is_boundary(text: &str, at: usize) -> bool {
    if let Some([before, after]) = at.checked_sub(1).and_then(|last| text.as_bytes().get(last..=at))
        && before.is_ascii()
        && after.is_ascii()
    {
        return !(before.is_ascii_alphanumeric() && after.is_ascii_alphanumeric());
    }
    match text.split_at_checked(at) {
        Some((before, after)) => match (before.chars().next_back(), after.chars().next()) {
            (Some(before), Some(after)) => is_break(before, after),
            _ => true,
        },
        None => false,
    }
}

/// What is searched of folded text: without the non-word characters at its ends, if a word is left.
pub(super) fn needle(folded: &str) -> &str {
    match folded.trim_matches(|c| !is_word(c)) {
        "" => folded,
        needle => needle,
    }
}

impl Scanner<'_> {
    /// The leaf as a whole, in every kind that its spelling allows.
    pub(super) fn whole(&mut self, at: &mut At<'_>, view: &Folded) {
        let text = view.text.as_str();
        let find = |form| Find {
            range: view.source(0..text.len()),
            whole: true,
            form,
        };
        let needle = needle(text);
        for known in self.known(needle.as_bytes()) {
            let form = if known.is_all_of(text.len() - needle.len()) {
                Form::Exact
            } else {
                Form::Embedded
            };
            self.report(at, &known, find(known.met_as(form)));
        }
        if text.len() > LONGEST_WRITTEN || !text.bytes().any(|b| b.is_ascii_digit()) {
            return;
        }
        if self.index.has(Lane::Number)
            && let Some(plain) = number::plain(text)
        {
            self.lookup(at, Lane::Number, plain, || find(Form::Exact));
        } else if self.index.has(Lane::Number)
            && let Some(readings) = number::read(text)
        {
            let form = if json::is_plain_number(text) {
                Form::Exact
            } else {
                Form::Normalised
            };
            self.lookup(at, Lane::Number, &readings.first, || find(form));
            if let Some(second) = readings.second {
                self.lookup(at, Lane::Number, &second, || find(Form::Normalised));
            }
        }
        if self.index.has(Lane::Date)
            && let Some(readings) = date::read(text)
        {
            let form = if readings.first == text {
                Form::Exact
            } else {
                Form::Normalised
            };
            self.lookup(at, Lane::Date, &readings.first, || find(form));
            if let Some(second) = readings.second {
                self.lookup(at, Lane::Date, &second, || find(Form::Normalised));
            }
        }
        if self.index.has(Lane::Phone)
            && let Some(digits) = phone::read(text)
        {
            let plain = text.strip_prefix('+').unwrap_or(text) == digits;
            let form = if plain { Form::Exact } else { Form::Normalised };
            self.phone(at, &digits, form, find);
        }
    }

    /// Text values, at every token's start that the sieve let pass. `false` if the effort allowed
    /// is used up.
    pub(super) fn words(&mut self, at: &mut At<'_>, view: &Folded, starts: &[usize]) -> bool {
        let text = view.text.as_str();
        let mut lengths = Vec::new();
        for &start in starts {
            let begins = is_boundary(text, start) && text.get(start..).is_some_and(|rest| rest.starts_with(is_word));
            if !begins {
                continue;
            }
            self.short(at, view, start);
            self.bare(at, view, start);
            let rest = text.as_bytes().get(start..).unwrap_or_default();
            if let Some(first) = rest.first_chunk() {
                let likely = self.sieve.lengths(first);
                if likely != 0 && !self.long(at, view, start, likely, first, &mut lengths) {
                    return false;
                }
            }
            if !self.spend(1) {
                return false;
            }
        }
        true
    }

    fn short(&mut self, at: &mut At<'_>, view: &Folded, start: usize) {
        let text = view.text.as_str();
        for length in SHORTEST..ANCHOR {
            let end = start + length;
            let Some(word) = text.as_bytes().get(start..end) else {
                break;
            };
            // A needle ends with a word's last letter.
            let ends = word
                .last()
                .is_some_and(|last| last.is_ascii_alphanumeric() || !last.is_ascii());
            if ends && self.sieve.has(word) && is_boundary(text, end) {
                self.candidates(at, view, start..end, self.index.hash(Lane::Text, word));
            }
        }
    }

    /// Needles of the lengths that are likely, by their bits, and of those that filters do not tell apart. `false` if
    /// the effort allowed is used up.
    fn long(
        &mut self,
        at: &mut At<'_>,
        view: &Folded,
        start: usize,
        likely: u64,
        first: &[u8; ANCHOR],
        lengths: &mut Vec<u32>,
    ) -> bool {
        let text = view.text.as_str();
        let mut rest = likely & !length_bit(LONGEST);
        while rest != 0 {
            let end = start + rest.trailing_zeros() as usize + 1;
            rest &= rest - 1;
            let Some(needle) = text.as_bytes().get(start..end) else {
                break;
            };
            if !self.spend(4) {
                return false;
            }
            if is_boundary(text, end) && self.sieve.has(needle) {
                self.candidates(at, view, start..end, self.index.hash(Lane::Text, needle));
            }
        }
        if likely & length_bit(LONGEST) == 0 {
            return true;
        }
        // One pass of the hash over all of them.
        let anchor = self.index.anchor_key.hash(u64::from_le_bytes(*first));
        self.index.long_lengths(anchor, lengths);
        let mut hasher = self.index.hasher(Lane::Text);
        let mut hashed = start;
        for length in lengths {
            let end = usize::try_from(*length)
                .ok()
                .and_then(|length| start.checked_add(length));
            let Some(end) = end.filter(|end| *end <= text.len()) else {
                break;
            };
            if !self.spend(4) {
                return false;
            }
            if !is_boundary(text, end) {
                continue;
            }
            if !self.spend((end - hashed) / 4) {
                return false;
            }
            std::hash::Hasher::write(&mut hasher, &text.as_bytes()[hashed..end]);
            hashed = end;
            let hash = siphasher::sip128::Hasher128::finish128(&hasher).as_u128();
            self.candidates(at, view, start..end, hash);
        }
        true
    }

    /// An id that begins here, with whatever separates its letters and digits.
    fn bare(&mut self, at: &mut At<'_>, view: &Folded, start: usize) {
        if !self.index.has(Lane::Bare) {
            return;
        }
        let rest = view.text.as_bytes().get(start..).unwrap_or_default();
        let mut buffer = [0; *BARE.end()];
        let mut count = 0;
        let mut lengths = 0;
        let mut hashed = 0;
        for (offset, byte) in Bare(rest.iter().enumerate()) {
            let Some(slot) = buffer.get_mut(count) else { return };
            *slot = byte;
            count += 1;
            if count == ANCHOR {
                let first = buffer.first_chunk().filter(|first| begins_bare(*first));
                lengths = first.map_or(0, |first| self.sieve.lengths(first));
                if lengths == 0 {
                    return;
                }
            }
            let known = lengths & length_bit(count) != 0 && self.sieve.has(buffer.get(..count).unwrap_or_default());
            let end = start + offset + 1;
            if known && is_boundary(&view.text, end) {
                if !self.spend(LOOKUP) {
                    return;
                }
                hashed += 1;
                let hash = self.index.hash(Lane::Bare, buffer.get(..count).unwrap_or_default());
                self.candidates(at, view, start..end, hash);
            }
            if hashed > BARE_TRIED {
                return;
            }
        }
    }

    /// What is registered as this text.
    fn known(&self, needle: &[u8]) -> Vec<Known> {
        match self.sieve.has(needle) {
            true => self.index.find(self.index.hash(Lane::Text, needle)),
            false => Vec::new(),
        }
    }

    fn candidates(&mut self, at: &mut At<'_>, view: &Folded, range: Range<usize>, hash: u128) {
        for known in self.index.find(hash) {
            let find = Find {
                range: view.source(range.clone()),
                whole: false,
                form: known.met_as(Form::Embedded),
            };
            self.report(at, &known, find);
        }
    }
}

/// Letters and digits with their offsets, and at most one separator between two of them.
pub(super) struct Bare<I>(pub(super) I);

impl<'b, I: Iterator<Item = (usize, &'b u8)>> Iterator for Bare<I> {
    type Item = (usize, u8);

    #[inline(always)]
    fn next(&mut self) -> Option<(usize, u8)> {
        let (at, byte) = self.0.next()?;
        if byte.is_ascii_alphanumeric() {
            return Some((at, *byte));
        }
        let (at, after) = self
            .0
            .next()
            .filter(|(_, after)| is_separator(*byte) && after.is_ascii_alphanumeric())?;
        Some((at, *after))
    }
}
