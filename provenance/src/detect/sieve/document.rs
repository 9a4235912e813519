//! A JSON document as it stands, or a leaf: its structure, and where in it something could be met.

use super::Sieve;
use super::chunk::{Chunk, byte_at, escaped, long, pair_of, prefix_xor, soon};
use super::starts::TINY;
use super::{Carry, Memory};
use crate::detect::classify::{BLOCK, Job, Unit};
use crate::detect::decode;

/// What [`Sieve::json`](super::Sieve::json) makes out in a document.
#[derive(Default)]
pub(in crate::detect) struct Outline {
    /// Bits of the bytes that are structure or open a string, but right behind a colon, by block.
    pub(in crate::detect) events: Vec<u64>,
    /// Offsets at which something could be met, ascending.
    pub(in crate::detect) suspects: Vec<usize>,
}

pub(super) struct DocumentJob<'j, 'd> {
    pub(super) sieve: &'j Sieve<'d>,
    pub(super) memory: &'j mut Memory,
    pub(super) bytes: &'j [u8],
    /// That of a document, none for a leaf.
    pub(super) depth: Option<usize>,
    pub(super) outline: &'j mut Outline,
    /// Whether it was a document as it should be.
    pub(super) good: &'j mut bool,
}

impl Job for DocumentJob<'_, '_> {
    #[inline(always)]
    fn run(self, unit: impl Unit) {
        *self.good = self
            .sieve
            .document(unit, self.bytes, self.depth, self.memory, self.outline);
    }
}

impl Sieve<'_> {
    #[inline(always)]
    fn document(
        &self,
        unit: impl Unit,
        bytes: &[u8],
        depth: Option<usize>,
        memory: &mut Memory,
        outline: &mut Outline,
    ) -> bool {
        let Memory { chunk, starts, groups } = memory;
        let mut carry = Carry::default();
        // A leaf is one string, and has no quotes.
        carry.document = match depth {
            Some(_) => !0,
            None => 0,
        };
        carry.string = !carry.document;
        let depth = depth.unwrap_or(0);
        let mut open = 0_usize;
        let mut base = 0;
        let mut good = true;
        chunk.clear();
        while good && chunk.read(unit, bytes, base) {
            for block in 0..chunk.count {
                let (opens, closes, fine, words) = self.block(unit, bytes, chunk, block, &mut carry, outline);
                // Nothing goes beyond its string: what has a quote in it has a backslash too, and is looked at for that.
                let (now, next) = chunk.pair(block);
                let cramped = carry.document & soon(now.quote, next.quote);
                self.gather(unit, chunk, block, words, cramped, starts);
                self.gather_groups(unit, chunk, block, &carry, groups);
                carry.pass(chunk.pair(block).0);
                // Whatever their order.
                let deepest = open + opens.count_ones() as usize;
                good &= fine && deepest <= depth && deepest >= closes.count_ones() as usize;
                open = deepest.saturating_sub(closes.count_ones() as usize);
            }
            base += chunk.count * BLOCK;
            let suspects = &mut outline.suspects;
            self.begin(unit, bytes, chunk, starts, |at, is_digit, found| {
                if found & !TINY != 0 || is_digit || is_whole(bytes, at, found) {
                    suspects.push(at);
                }
            });
            self.months(bytes, chunk, starts, |at| suspects.push(at));
            self.groups_of(bytes, chunk, groups, &mut carry.phones, |at| suspects.push(at));
        }
        good && carry.string == !carry.document && open == 0
    }

    /// The brackets that open and close, whether all is as it should be, and the starts of words.
    #[inline(always)]
    fn block(
        &self,
        unit: impl Unit,
        bytes: &[u8],
        chunk: &Chunk,
        block: usize,
        carry: &mut Carry,
        outline: &mut Outline,
    ) -> (u64, u64, bool, u64) {
        let (now, next) = chunk.pair(block);
        let base = chunk.base + block * BLOCK;
        let quotes = carry.document & now.quote & !escaped(now.backslash, &mut carry.escaped);
        // From each opening quote to before its closing one.
        let string = prefix_xor(quotes) ^ carry.string;
        let opening = quotes & string;
        let closing = quotes & !string;
        // Beyond the end there is nothing.
        let length = bytes.len().saturating_sub(base);
        let there = if length < BLOCK { !(!0 << length) } else { !0 };
        let inside = string & !quotes & there;
        let structure = now.structure & !string;
        // A value's quote says no more than the colon before it.
        let colon = now.structure & now.joint;
        outline.events.push(structure | opening & !(colon << 1));

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
        let points = !string & there & !known;
        let fraction = now.dot & (now.digit >> 1 | next.digit << 63);
        good &= points & !fraction == 0;
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
        let awkward = inside & (now.high | now.backslash | now.control | double_space);
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
        // What begins with no letter may be JSON itself, or have none.
        let mut bare = (opening << 1 | carry.opened) & !now.word & inside;
        if !self.wordless {
            bare &= now.open | now.space | now.control;
        }
        while bare != 0 {
            let at = base + bare.trailing_zeros() as usize;
            bare &= bare - 1;
            if self.bare(bytes, at) {
                suspects.push(at);
            }
        }

        if now.plus | next.plus != 0 {
            let mut words = starts;
            while words != 0 {
                let offset = (block * BLOCK) as u16 + words.trailing_zeros() as u16;
                words &= words - 1;
                if self.starts_spaced(chunk, offset) {
                    suspects.push(chunk.at(offset));
                }
            }
        }
        let mut runs = long(pair_of(now.run, next.run)) as u64 & !(now.run << 1 | carry.run);
        while runs != 0 {
            let bit = runs.trailing_zeros();
            let at = base + bit as usize;
            runs &= runs - 1;
            let length = (pair_of(now.run, next.run) >> bit).trailing_ones();
            // Of words alone, in pieces.
            let within = 1_u128.checked_shl(length).map_or(!0, |end| end - 1);
            let pieces = long(pair_of(now.word, next.word) >> bit & within) != 0;
            let plus = pair_of(now.plus, next.plus) >> bit & within != 0;
            let run = match bit + length {
                128 => None,
                _ => bytes.get(at..at + length as usize),
            };
            if run.is_none_or(|run| self.run(unit, run, pieces, plus)) {
                suspects.push(at);
            }
        }
        carry.string = 0_u64.wrapping_sub(string >> 63);
        carry.opened = opening >> 63;
        carry.closed = closing >> 63 | structure >> 63 << 1;
        carry.run = now.run >> 63;
        carry.space = now.space >> 63;
        (now.open & !string, now.close & !string, good, starts)
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

    /// Whether a run of base64 or hex could be a digest, or text when decoded, as a whole or in pieces.
    #[inline(always)]
    fn run(&self, unit: impl Unit, run: &[u8], pieces: bool, plus: bool) -> bool {
        let could =
            |run: &[u8]| self.index.digest(run).is_some() || unit.could_be_text(run) && decode::is_text_within(run);
        could(run)
            || pieces && decode::pieces(run).any(could)
            || plus
                && run
                    .split(|byte| *byte == b'+')
                    .any(|part| part.len() >= 16 && could(part))
    }
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
