//! Where in a text, or in a JSON document as it stands, anything registered could be met at all:
//! most texts hold nothing, and must cost next to nothing.
//!
//! What the sieve lets pass is looked at by the exact rules of `words` and `digits`; what they
//! would find it never holds back.

use std::sync::Arc;

use super::classify::{BLOCK, Job, Masks, accelerated, classify};
use super::entry::{BARE, is_separator, nationals};
use super::filter::{ANCHOR, Anchor, AnchorKey, Filter, LONGEST, Probe, length_bit, lower, short};
use super::index::{Index, Lane};
use super::words::Bare;
use super::{decode, shapes};
use crate::vocabulary::canonical::number;

/// Blocks that are classified at once, but for the one looked ahead.
const CHUNK: usize = 8;
/// Lengths, as bits, of what is found only as a whole leaf, or if it is a number.
const TINY: u64 = 0b11;
/// Lengths, as bits, that are hashed as a whole.
const SHORT: u64 = 0x7f;
/// Longest run of digits and their separators that is read here.
const NUMBER: usize = 48;
/// Most digits of a phone with a prefix `00`, and most bytes between two groups of them.
const PHONE: usize = 19;
const GAP: usize = 16;
/// Most digits of which no trunk zero is left out, and fewest of which a calling code may be.
const TRUNK: usize = 8;
const CODED: usize = 9;

/// The sieve of one scan, with the memory that it uses again.
pub(super) struct Sieve<'d> {
    index: &'d Index,
    filter: Arc<Filter>,
    key: AnchorKey,
    lengths: u64,
    /// A bit for each length that a number is known by, as it is kept without its sign; the longest together.
    numbers: u64,
    dates: bool,
    /// A bit for each number of digits that a phone is known by.
    phones: u32,
    ids: bool,
    wordless: bool,
    /// What has the shape of personal data passes too.
    shapes: bool,
    outline: Outline,
    /// Lets all pass: what a scan without a sieve finds, for comparison.
    #[cfg(test)]
    pub(super) open: bool,
}

/// What [`Sieve::json`] makes out in a document.
#[derive(Default)]
pub(super) struct Outline {
    /// Bits of the bytes that are structure or open a string, by block.
    pub(super) events: Vec<u64>,
    /// Offsets at which something could be met, ascending.
    pub(super) suspects: Vec<usize>,
}

/// What one block hands to the next.
#[derive(Default)]
struct Carry {
    word: u64,
    digit: u64,
    high: u64,
    run: u64,
    space: u64,
    /// All ones within a string.
    string: u64,
    escaped: u64,
    opened: u64,
    closed: u64,
    /// Where the groups of digits end that were tried as phones from the first on.
    phones: usize,
}

impl<'d> Sieve<'d> {
    pub(super) fn new(index: &'d Index, shapes: bool) -> Self {
        let filter = index.filter();
        let phone = |lane, count| index.has(lane) && index.has_length(lane, count);
        let phones = (1..32).filter(|count| phone(Lane::Phone, *count) || phone(Lane::National, *count));
        // Lengths above some are counted together.
        let numbers = (1..LONGEST).filter(|length| index.has_length(Lane::Number, *length));
        Sieve {
            index,
            lengths: filter.lengths(),
            filter,
            key: index.anchor_key,
            numbers: match index.has(Lane::Number) {
                true => numbers.fold(0, |mask, length| mask | length_bit(length) | length_bit(length - 1)),
                false => 0,
            },
            dates: index.has(Lane::Date),
            phones: match index.has(Lane::Phone) {
                true => phones.fold(0, |mask, count| mask | 1 << count),
                false => 0,
            },
            ids: index.has(Lane::Bare),
            wordless: index.has_wordless(),
            shapes,
            outline: Outline::default(),
            #[cfg(test)]
            open: false,
        }
    }

    /// Positions in folded text at which text values could begin, and groups of digits or months
    /// at which numbers, dates and phones could; whether there are long runs of what base64 is written in.
    pub(super) fn text(&mut self, text: &[u8], words: &mut Vec<usize>, digits: &mut Vec<usize>) -> bool {
        #[cfg(test)]
        if self.open {
            words.extend(0..text.len());
            let before = |at: usize| at.checked_sub(1).map_or(0, |before| byte_at(text, before));
            digits.extend((0..text.len()).filter(|at| match byte_at(text, *at) {
                b'0'..=b'9' => !before(*at).is_ascii_digit(),
                letter => letter.is_ascii_alphabetic() && !before(*at).is_ascii_alphanumeric(),
            }));
            return true;
        }
        let mut runs = false;
        accelerated(TextJob {
            sieve: self,
            text,
            words,
            digits,
            runs: &mut runs,
        });
        // Words and groups of digits were looked at in turn.
        for found in [words, digits] {
            found.sort_unstable();
            found.dedup();
        }
        runs
    }

    #[inline(always)]
    fn text_blocks(&self, text: &[u8], words: &mut Vec<usize>, digits: &mut Vec<usize>) -> bool {
        let mut masks = [Masks::default(); CHUNK + 1];
        let mut runs = 0;
        let mut carry = Carry::default();
        let probe = self.filter.probe();
        let mut base = 0;
        while base < text.len() {
            let rest = text.get(base..).unwrap_or_default();
            let count = (rest.len() / BLOCK + 1).min(CHUNK);
            let within = rest.get(..(count + 1) * BLOCK).unwrap_or(rest);
            if let Some(masks) = masks.get_mut(..=count) {
                classify(within, masks);
            }
            for pair in masks.windows(2).take(count) {
                let [now, next] = pair else { break };
                self.text_block(text, base, now, next, &mut carry, probe, words, digits);
                runs |= long(pair_of(now.run, next.run)) as u64;
                base += BLOCK;
            }
        }
        runs != 0
    }

    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn text_block(
        &self,
        text: &[u8],
        base: usize,
        now: &Masks,
        next: &Masks,
        carry: &mut Carry,
        probe: Probe<'_>,
        words: &mut Vec<usize>,
        digits: &mut Vec<usize>,
    ) {
        let ends = Ends::new(now, next, carry);
        let after_high = now.high << 1 | carry.high;
        let starts = now.word & !(now.word << 1 | carry.word) | now.high | now.word & after_high;
        let near_high = now.high | after_high;
        let mut doubtful = starts & near_high;
        while doubtful != 0 {
            let bit = doubtful.trailing_zeros();
            doubtful &= doubtful - 1;
            let at = base + bit as usize;
            words.push(at);
            let is_digit = now.digit >> bit & 1 != 0;
            if is_digit || self.dates && month(text, at) {
                digits.push(at);
            }
        }
        let plain = starts & !near_high;
        self.begin(text, base, plain, now, next, &ends, probe, |at, is_digit, found| {
            let skip = if is_digit && self.numbers != 0 { 0 } else { TINY };
            if found & !skip != 0 {
                words.push(at);
                if is_digit {
                    digits.push(at);
                }
            }
        });
        if self.dates {
            self.months(text, base, plain, now, next, |at| digits.push(at));
        }
        self.groups_of(text, base, now, carry, |at| digits.push(at));
        carry.pass(now);
    }

    /// Makes out a JSON document; `None` if it is none, or nested deeper than `depth`.
    pub(super) fn json(&mut self, bytes: &[u8], depth: usize, outline: &mut Outline) -> Option<()> {
        #[cfg(test)]
        if self.open {
            return None;
        }
        self.look(bytes, Some(depth), outline)
    }

    /// Whether nothing could be met in a leaf as it stands. Nothing is said of those that are no
    /// plain text.
    pub(super) fn is_clean(&mut self, leaf: &[u8]) -> bool {
        #[cfg(test)]
        if self.open {
            return false;
        }
        let begins = leaf.iter().find(|byte| !byte.is_ascii_whitespace());
        if self.wordless && !leaf.iter().any(u8::is_ascii_alphanumeric) || matches!(begins, Some(b'{' | b'[')) {
            return false;
        }
        let mut outline = std::mem::take(&mut self.outline);
        let clean = self.look(leaf, None, &mut outline).is_some() && outline.suspects.is_empty();
        self.outline = outline;
        clean
    }

    /// Makes out where in leaves, each with a quote after it, something could be met; `false` if
    /// anywhere. What begins with no letter or digit is not judged.
    pub(super) fn leaves(&mut self, leaves: &[u8], outline: &mut Outline) -> bool {
        #[cfg(test)]
        if self.open {
            return false;
        }
        self.look(leaves, None, outline).is_some()
    }

    /// `depth` is that of a document, none for a leaf.
    fn look(&mut self, bytes: &[u8], depth: Option<usize>, outline: &mut Outline) -> Option<()> {
        outline.events.clear();
        outline.suspects.clear();
        outline.events.reserve(bytes.len() / BLOCK + 1);
        let mut good = false;
        accelerated(JsonJob {
            sieve: self,
            bytes,
            depth,
            outline,
            good: &mut good,
        });
        if good && self.shapes {
            shapes::find(bytes, |range, _| outline.suspects.push(range.start));
        }
        good.then(|| {
            // Words and what surrounds them were looked at in turn.
            outline.suspects.sort_unstable();
        })
    }

    #[inline(always)]
    fn json_blocks(&self, bytes: &[u8], depth: Option<usize>, outline: &mut Outline) -> bool {
        let mut masks = [Masks::default(); CHUNK + 1];
        let mut carry = Carry::default();
        let probe = self.filter.probe();
        // A leaf is one string, and has no quotes.
        let document = match depth {
            Some(_) => !0,
            None => 0,
        };
        carry.string = !document;
        let depth = depth.unwrap_or(0);
        let mut open = 0_usize;
        let mut base = 0;
        let mut good = true;
        while good && base < bytes.len() {
            let rest = bytes.get(base..).unwrap_or_default();
            let count = (rest.len() / BLOCK + 1).min(CHUNK);
            let within = rest.get(..(count + 1) * BLOCK).unwrap_or(rest);
            if let Some(masks) = masks.get_mut(..=count) {
                classify(within, masks);
            }
            for pair in masks.windows(2).take(count) {
                let [now, next] = pair else { break };
                let (opens, closes, fine) =
                    self.json_block(bytes, base, document, now, next, &mut carry, probe, outline);
                // Whatever their order.
                let deepest = open + opens.count_ones() as usize;
                good &= fine && deepest <= depth && deepest >= closes.count_ones() as usize;
                open = deepest.saturating_sub(closes.count_ones() as usize);
                base += BLOCK;
            }
        }
        good && carry.string == !document && open == 0
    }

    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn json_block(
        &self,
        bytes: &[u8],
        base: usize,
        document: u64,
        now: &Masks,
        next: &Masks,
        carry: &mut Carry,
        probe: Probe<'_>,
        outline: &mut Outline,
    ) -> (u64, u64, bool) {
        let quotes = document & now.quote & !escaped(now.backslash, &mut carry.escaped);
        // From each opening quote to before its closing one.
        let string = prefix_xor(quotes) ^ carry.string;
        let opening = quotes & string;
        let closing = quotes & !string;
        // Beyond the end there is nothing.
        let length = bytes.len().saturating_sub(base);
        let there = if length < BLOCK { !(!0 << length) } else { !0 };
        let inside = string & !quotes & there;
        let structure = now.structure & !string;
        outline.events.push(structure | opening);

        let after_word = now.word << 1 | carry.word;
        let starts = now.word & !after_word;
        let mut good = now.high & !string == 0;
        let mut literals = starts & !now.digit & !string;
        while literals != 0 {
            let at = base + literals.trailing_zeros() as usize;
            literals &= literals - 1;
            good &= is_literal(bytes, at);
        }
        let known = now.word | now.structure | now.quote | now.space | now.control | now.run;
        let mut points = !string & there & !known;
        while points != 0 {
            let at = base + points.trailing_zeros() as usize;
            points &= points - 1;
            good &= byte_at(bytes, at) == b'.' && byte_at(bytes, at + 1).is_ascii_digit();
        }
        let mut apart = opening & !(structure << 1 | carry.closed >> 1 & 1);
        while apart != 0 {
            let at = base + apart.trailing_zeros() as usize;
            apart &= apart - 1;
            let before = bytes.get(..at).unwrap_or_default().trim_ascii_end().last();
            good &= matches!(before, None | Some(b'{' | b'[' | b',' | b':' | b'}' | b']'));
        }
        let mut apart = (closing << 1 | carry.closed & 1) & !structure;
        while apart != 0 {
            let at = base + apart.trailing_zeros() as usize;
            apart &= apart - 1;
            let after = bytes.get(at..).unwrap_or_default().trim_ascii_start().first();
            good &= matches!(after, None | Some(b'}' | b']' | b',' | b':'));
        }

        let suspects = &mut outline.suspects;
        let double_space = now.space & (now.space << 1 | carry.space);
        let awkward = inside & (now.high | now.backslash | now.control | now.percent | double_space);
        let mut first = awkward & !(awkward << 1);
        while first != 0 {
            suspects.push(base + first.trailing_zeros() as usize);
            first &= first - 1;
        }
        let mut marks = inside & now.mark;
        while marks != 0 {
            let at = base + marks.trailing_zeros() as usize;
            marks &= marks - 1;
            if decode::may_decode(bytes, at) {
                suspects.push(at);
            }
        }
        let mut bare = (opening << 1 | carry.opened) & !now.word & inside;
        while bare != 0 {
            let at = base + bare.trailing_zeros() as usize;
            bare &= bare - 1;
            if self.bare(bytes, at) {
                suspects.push(at);
            }
        }

        let ends = Ends::new(now, next, carry);
        self.begin(bytes, base, starts, now, next, &ends, probe, |at, is_digit, found| {
            if found & !TINY != 0 || is_digit || is_whole(bytes, at, found) {
                suspects.push(at);
            }
        });
        if now.plus | next.plus != 0 {
            let mut words = starts;
            while words != 0 {
                let bit = words.trailing_zeros();
                words &= words - 1;
                let at = base + bit as usize;
                if self.starts_spaced(bytes, at, ends.from(bit)) {
                    suspects.push(at);
                }
            }
        }
        if self.dates {
            self.months(bytes, base, starts, now, next, |at| suspects.push(at));
        }
        self.groups_of(bytes, base, now, carry, |at| suspects.push(at));
        let mut runs = long(pair_of(now.run, next.run)) as u64 & !(now.run << 1 | carry.run);
        while runs != 0 {
            let bit = runs.trailing_zeros();
            let at = base + bit as usize;
            runs &= runs - 1;
            let length = (pair_of(now.run, next.run) >> bit).trailing_ones();
            // Of words alone, in pieces.
            let within = 1_u128.checked_shl(length).map_or(!0, |end| end - 1);
            let pieces = long(pair_of(now.word, next.word) >> bit & within) != 0;
            let run = match bit + length {
                128 => None,
                _ => bytes.get(at..at + length as usize),
            };
            if run.is_none_or(|run| self.run(run, pieces)) {
                suspects.push(at);
            }
        }
        carry.string = 0_u64.wrapping_sub(string >> 63);
        carry.opened = opening >> 63;
        carry.closed = closing >> 63 | structure >> 63 << 1;
        carry.run = now.run >> 63;
        carry.space = now.space >> 63;
        carry.pass(now);
        (now.open & !string, now.close & !string, good)
    }

    /// Passes on the starts of words at which something could be known, with whether it is a digit, and the bits of
    /// the lengths that it could have.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn begin(
        &self,
        bytes: &[u8],
        base: usize,
        starts: u64,
        now: &Masks,
        next: &Masks,
        ends: &Ends,
        probe: Probe<'_>,
        mut pass: impl FnMut(usize, bool, u64),
    ) {
        let key = self.key;
        let mut words = starts;
        while words != 0 {
            let bit = words.trailing_zeros();
            words &= words - 1;
            let at = base + bit as usize;
            let word = lower(word_at(bytes, at));
            let hash = key.hash(word);
            let ends = ends.from(bit);
            let shorts = probe.begins(key, word) & ends & SHORT;
            if shorts != 0 || probe.may(hash) {
                let found = self.found(bytes, at, word, hash, shorts, ends);
                if found != 0 {
                    pass(at, now.digit >> bit & 1 != 0, found);
                }
            }
        }
        if !self.ids {
            return;
        }
        let mut near = starts & near(now.digit, next.digit);
        let whole = eight(pair_of(now.word, next.word)) as u64;
        while near != 0 {
            let bit = near.trailing_zeros();
            near &= near - 1;
            let at = base + bit as usize;
            let word = lower(word_at(bytes, at));
            let begins = match whole >> bit & 1 {
                0 => self.begins_bare(word),
                _ => probe.may(key.hash(word)),
            };
            if begins && self.bare_id(bytes, at) {
                pass(at, now.digit >> bit & 1 != 0, !SHORT);
            }
        }
    }

    /// The bits of the lengths, among `ends`, of what is likely to be known that begins with this
    /// folded word, of which this is the hash; `shorts` has those of short keys.
    #[inline(never)]
    fn found(&self, bytes: &[u8], at: usize, word: u64, hash: u32, shorts: u64, ends: u64) -> u64 {
        let mut found = 0;
        let mut lengths = shorts;
        while lengths != 0 {
            let bit = lengths & lengths.wrapping_neg();
            let length = bit.trailing_zeros() as usize + 1;
            lengths ^= bit;
            found |= self.filter.get(self.key.hash(short(word, length))) & bit;
        }
        let mut lengths = self.filter.get(hash) & ends & !SHORT;
        while lengths != 0 {
            let bit = lengths & lengths.wrapping_neg();
            let length = bit.trailing_zeros() as usize + 1;
            lengths ^= bit;
            // Of the longest nobody knows how long they are.
            if length == LONGEST || bytes.get(at..at + length).is_some_and(|text| self.has_whole(text)) {
                found |= bit;
            }
        }
        found
    }

    fn has_whole(&self, text: &[u8]) -> bool {
        self.filter.has_whole(self.key.whole(text))
    }

    /// Passes on the starts of words that are months with digits after them.
    #[inline(always)]
    fn months(&self, bytes: &[u8], base: usize, starts: u64, now: &Masks, next: &Masks, mut pass: impl FnMut(usize)) {
        let mut near = starts & near(now.digit, next.digit) & !now.digit;
        while near != 0 {
            let bit = near.trailing_zeros();
            near &= near - 1;
            let at = base + bit as usize;
            if is_month(lower(word_at(bytes, at))) && self.month_first(bytes, at) {
                pass(at);
            }
        }
    }

    /// Whether something could be known that begins here, with spaces for pluses.
    #[inline(never)]
    fn starts_spaced(&self, bytes: &[u8], at: usize, ends: u64) -> bool {
        let word = lower(word_at(bytes, at));
        let spaced = word.to_le_bytes().map(|byte| if byte == b'+' { b' ' } else { byte });
        let spaced = u64::from_le_bytes(spaced);
        let begins = || self.filter.probe().begins(self.key, spaced) & ends & SHORT;
        spaced != word && (self.filter.get(self.key.hash(spaced)) & ends & !SHORT != 0 || begins() != 0)
    }

    /// Whether an id begins with the first two letters or digits of this folded word.
    #[inline(always)]
    fn begins_bare(&self, word: u64) -> bool {
        let second = (word >> 8) as u8;
        let second = if second.is_ascii_alphanumeric() {
            second
        } else {
            (word >> 16) as u8
        };
        self.filter.begins_bare(self.key, word & 0xff | u64::from(second) << 8)
    }

    /// Whether an id could begin here, with or without separators.
    #[inline(never)]
    fn bare_id(&self, bytes: &[u8], at: usize) -> bool {
        // Its first eight letters and digits, between which single separators may stand.
        let mut first = 0;
        let mut count = 0;
        let mut digit = false;
        let mut separated = true;
        let mut end = at;
        while count < ANCHOR {
            let byte = byte_at(bytes, end);
            if byte.is_ascii_alphanumeric() {
                first |= u64::from(byte) << (8 * count);
                count += 1;
                digit |= byte.is_ascii_digit();
                separated = false;
            } else if !separated && (is_separator(byte) || byte == b'+') {
                separated = true;
            } else {
                return false;
            }
            end += 1;
        }
        if !digit {
            return false;
        }
        match self.filter.get(self.key.hash(lower(first))) & !SHORT {
            0 => false,
            lengths => self.whole_id(bytes.get(at..).unwrap_or_default(), lengths),
        }
    }

    /// Whether letters and digits of one of these lengths could be an id as a whole.
    fn whole_id(&self, rest: &[u8], lengths: u64) -> bool {
        let mut id = [0; *BARE.end()];
        let mut count = 0;
        // In forms, spaces are written as pluses.
        let spaced = rest.iter().map(|byte| if *byte == b'+' { &b' ' } else { byte });
        for (offset, byte) in Bare(spaced.enumerate()) {
            let Some(slot) = id.get_mut(count) else { break };
            *slot = byte.to_ascii_lowercase();
            count += 1;
            let known = count >= ANCHOR && lengths & length_bit(count) != 0;
            let ends = || !rest.get(offset + 1).is_some_and(u8::is_ascii_alphanumeric);
            if known && ends() && self.has_whole(id.get(..count).unwrap_or_default()) {
                return true;
            }
        }
        false
    }

    /// Whether anything longer than the anchor could begin so.
    pub(super) fn may_begin(&self, anchor: Anchor) -> bool {
        #[cfg(test)]
        if self.open {
            return true;
        }
        self.filter.get(anchor.hash) & !SHORT != 0
    }

    /// Whether these bytes could be known as they are.
    pub(super) fn has(&self, bytes: &[u8]) -> bool {
        #[cfg(test)]
        if self.open {
            return true;
        }
        let length = length_bit(bytes.len());
        length & self.lengths != 0
            && self.filter.get(self.key.hash(AnchorKey::first(bytes))) & length != 0
            && (bytes.len() < ANCHOR || self.has_whole(bytes))
    }

    pub(super) fn filter(&self) -> &Filter {
        &self.filter
    }

    /// Whether a string that begins with no word could be known, or be JSON itself.
    fn bare(&self, bytes: &[u8], at: usize) -> bool {
        let rest = bytes.get(at..).unwrap_or_default();
        if matches!(rest.trim_ascii_start().first(), Some(b'{' | b'[')) {
            return true;
        }
        self.wordless
            && rest
                .iter()
                .find(|byte| **byte == b'"' || byte.is_ascii_alphanumeric() || !byte.is_ascii())
                == Some(&b'"')
    }

    /// Passes on the groups of digits at which a number, a date or a phone could be known.
    #[inline(always)]
    fn groups_of(&self, bytes: &[u8], base: usize, now: &Masks, carry: &mut Carry, mut pass: impl FnMut(usize)) {
        let mut groups = now.digit & !(now.digit << 1 | carry.digit);
        if groups == 0 || self.numbers == 0 && self.phones == 0 && !self.dates {
            return;
        }
        let letter = now.word & !now.digit;
        let within = letter << 1;
        // After three letters that may be a currency's code; what stands before the block is not looked at.
        let coded = letter << 1 & letter << 2 & letter << 3 & !(now.word << 4) | 0xf;
        // What ends a number that is written as it is kept.
        let plain = now.quote | now.control | now.structure & !now.open & !((now.digit | now.space) >> 1);
        while groups != 0 {
            let bit = groups.trailing_zeros();
            groups &= groups - 1;
            let at = base + bit as usize;
            let mask = now.digit >> bit;
            let length = mask.trailing_ones();
            let end = bit + length;
            if end < 62 {
                // In the middle of a word, unless it goes on behind a comma.
                let inner = within & !coded & 1 << bit != 0;
                let joined = now.word >> end & 3 == 2;
                // Met as a word already, if at all.
                let alone = length < 6 && (within | 1) & 1 << bit == 0 && plain >> end & 1 != 0;
                if inner && !joined || alone && byte_at(bytes, at) != b'0' {
                    continue;
                }
            }
            if self.group(bytes, at, mask, &mut carry.phones) {
                pass(at);
            }
        }
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
        if commas && run.split(|byte| *byte == b',').any(|piece| self.decimal(piece)) {
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

    /// Whether digits follow the name of a month soon.
    fn month_first(&self, bytes: &[u8], at: usize) -> bool {
        let rest = bytes.get(at..).unwrap_or_default();
        let name = rest
            .iter()
            .take(10)
            .take_while(|byte| byte.is_ascii_alphabetic())
            .count();
        let gap = rest.get(name..).unwrap_or_default();
        gap.iter()
            .take(3)
            .find(|byte| !matches!(byte, b' ' | b'+' | b',' | b'.' | b'-'))
            .is_some_and(u8::is_ascii_digit)
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

    /// Whether a run of base64 or hex could be a digest, or text when decoded, as a whole or in pieces.
    fn run(&self, run: &[u8], pieces: bool) -> bool {
        let could = |run: &[u8]| self.index.digest(&self.filter, run).is_some() || decode::could_be_text(run);
        could(run)
            || pieces && decode::pieces(run).any(could)
            || run.contains(&b'+')
                && run
                    .split(|byte| *byte == b'+')
                    .any(|part| part.len() >= 16 && could(part))
    }
}

struct TextJob<'j> {
    sieve: &'j Sieve<'j>,
    text: &'j [u8],
    words: &'j mut Vec<usize>,
    digits: &'j mut Vec<usize>,
    /// Whether there are long runs.
    runs: &'j mut bool,
}

impl Job for TextJob<'_> {
    #[inline(always)]
    fn run(self) {
        *self.runs = self.sieve.text_blocks(self.text, self.words, self.digits);
    }
}

struct JsonJob<'j> {
    sieve: &'j Sieve<'j>,
    bytes: &'j [u8],
    depth: Option<usize>,
    outline: &'j mut Outline,
    /// Whether it was a document as it should be.
    good: &'j mut bool,
}

impl Job for JsonJob<'_> {
    #[inline(always)]
    fn run(self) {
        *self.good = self.sieve.json_blocks(self.bytes, self.depth, self.outline);
    }
}

impl Carry {
    fn pass(&mut self, now: &Masks) {
        self.word = now.word >> 63;
        self.digit = now.digit >> 63;
        self.high = now.high >> 63;
    }
}

/// Where words end, or could.
struct Ends(u64, u64);

impl Ends {
    #[inline(always)]
    fn new(now: &Masks, next: &Masks, carry: &Carry) -> Self {
        let here = !now.word & (now.word << 1 | carry.word) | now.high | now.high << 1 | carry.high;
        let after = !next.word & (next.word << 1 | now.word >> 63) | next.high | next.high << 1 | now.high >> 63;
        Ends(here, after)
    }

    /// The bits of the lengths that a value could have that begins at this bit; always that of the longest.
    #[inline(always)]
    fn from(&self, bit: u32) -> u64 {
        self.0 >> bit >> 1 | self.1 << (63 - bit) | 1 << (LONGEST - 1)
    }
}

#[inline(always)]
fn byte_at(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}

/// The eight bytes at `at`, as far as there are.
#[inline(always)]
fn word_at(bytes: &[u8], at: usize) -> u64 {
    let rest = bytes.get(at..).unwrap_or_default();
    match rest.first_chunk::<8>() {
        Some(word) => u64::from_le_bytes(*word),
        None => {
            let mut word = [0; 8];
            word.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            u64::from_le_bytes(word)
        }
    }
}

/// Each bit: whether an odd number of bits up to and with it is set.
#[inline(always)]
fn prefix_xor(bits: u64) -> u64 {
    let mut bits = bits;
    for shift in [1, 2, 4, 8, 16, 32] {
        bits ^= bits << shift;
    }
    bits
}

/// The bytes that a backslash before them escapes; `carry` says whether the first one is.
#[inline(always)]
fn escaped(backslash: u64, carry: &mut u64) -> u64 {
    if backslash == 0 {
        return std::mem::take(carry);
    }
    const EVEN: u64 = 0x5555_5555_5555_5555;
    let backslash = backslash & !*carry;
    let follows = backslash << 1 | *carry;
    let odd_starts = backslash & !EVEN & !follows;
    let (even_runs, overflow) = odd_starts.overflowing_add(backslash);
    *carry = u64::from(overflow);
    (EVEN ^ (even_runs << 1)) & follows
}

/// The bytes from which on a digit is among fifteen: that far do eight letters with separators reach.
#[inline(always)]
fn near(now: u64, next: u64) -> u64 {
    let mut digits = pair_of(now, next);
    for shift in [1, 2, 4, 7] {
        digits |= digits >> shift;
    }
    digits as u64
}

#[inline(always)]
fn pair_of(now: u64, next: u64) -> u128 {
    u128::from(now) | u128::from(next) << 64
}

/// Where sixteen bits that are set begin.
#[inline(always)]
fn long(bits: u128) -> u128 {
    let mut bits = bits;
    for shift in [1, 2, 4, 8] {
        bits &= bits >> shift;
    }
    bits
}

/// Where eight bits that are set begin.
#[inline(always)]
fn eight(bits: u128) -> u128 {
    let mut bits = bits;
    for shift in [1, 2, 4] {
        bits &= bits >> shift;
    }
    bits
}

fn is_literal(bytes: &[u8], at: usize) -> bool {
    let rest = bytes.get(at..).unwrap_or_default();
    let exponent = matches!(rest, [b'e' | b'E', ..]) && at > 0 && matches!(byte_at(bytes, at - 1), b'.');
    exponent
        || [&b"true"[..], b"false", b"null"].iter().any(|word| {
            rest.strip_prefix(*word).is_some_and(|after| {
                !after
                    .first()
                    .is_some_and(|b| b.is_ascii_alphanumeric() || !b.is_ascii())
            })
        })
}

/// Whether nothing but this word of one or two letters may stand in its string.
#[inline(never)]
fn is_whole(bytes: &[u8], at: usize, ends: u64) -> bool {
    let end = at + if ends & 1 != 0 { 1 } else { 2 };
    let stop = |byte: &&u8| **byte == b'"' || byte.is_ascii_alphanumeric() || !byte.is_ascii();
    let before = bytes.get(..at).unwrap_or_default().iter().rev().take(BLOCK).find(stop);
    let after = bytes.get(end..).unwrap_or_default().iter().take(BLOCK).find(stop);
    matches!(before, None | Some(b'"')) && matches!(after, None | Some(b'"'))
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

fn month(bytes: &[u8], at: usize) -> bool {
    is_month(lower(word_at(bytes, at)))
}

/// Whether a folded word begins as a month's name.
#[inline(always)]
fn is_month(word: u64) -> bool {
    let letters = word as u32 & 0xff_ffff;
    MONTHS[(letters.wrapping_mul(MONTHS_BY) >> 28) as usize] == letters
}

/// The first letters of the months, where a multiplication puts them.
const MONTHS: [u32; 16] = {
    let names = [
        b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec",
    ];
    let mut months = [0; 16];
    let mut n = 0;
    while n < names.len() {
        let letters = u32::from_le_bytes([names[n][0], names[n][1], names[n][2], 0]);
        let place = (letters.wrapping_mul(MONTHS_BY) >> 28) as usize;
        assert!(months[place] == 0);
        months[place] = letters;
        n += 1;
    }
    months
};
const MONTHS_BY: u32 = 0x3b6f_e507;
