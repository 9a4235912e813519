//! Where in a text, or in a JSON document as it stands, anything registered could be met at all:
//! most texts hold nothing, and must cost next to nothing.
//!
//! What the sieve lets pass is looked at by the exact rules of `words` and `digits`; what they
//! would find it never holds back. Bytes are read in chunks of 2 KB: masks first, then the starts of words
//! and groups of digits that masks do not rule out, then what filters say of each of them.

mod chunk;
mod document;
mod groups;
mod starts;

use std::cell::Cell;
use std::sync::Arc;

pub(super) use self::chunk::runs;
use self::chunk::{Chunk, long, pair_of};
use self::document::DocumentJob;
pub(super) use self::document::Outline;
use self::groups::Groups;
use self::starts::{SHORT, Starts, TINY, month};
use super::anchor::{ANCHOR, AnchorKey, length_bit};
use super::classify::{BLOCK, Job, Masks, Unit, accelerated};
use super::filter::Filter;
use super::index::{Index, Lane};
use super::shapes;

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
    memory: Option<Box<Memory>>,
    outline: Outline,
    /// Lets all pass: what a scan without a sieve finds, for comparison.
    #[cfg(test)]
    pub(super) open: bool,
}

thread_local! {
    /// That of the last scan of a thread: to make it anew takes longer than a short scan.
    static MEMORY: Cell<Option<Box<Memory>>> = const { Cell::new(None) };
}

impl Drop for Sieve<'_> {
    fn drop(&mut self) {
        if let Some(mut memory) = self.memory.take() {
            memory.chunk.wipe();
            // Where the thread ends there is no place for it any more.
            let _ = MEMORY.try_with(|kept| kept.set(Some(memory)));
        }
    }
}

/// Where a chunk is looked at.
struct Memory {
    chunk: Chunk,
    starts: Starts,
    groups: Groups,
}

/// What one block hands to the next.
#[derive(Default)]
struct Carry {
    word: u64,
    digit: u64,
    high: u64,
    run: u64,
    space: u64,
    /// All ones in a document, which has strings.
    document: u64,
    /// All ones within a string.
    string: u64,
    escaped: u64,
    opened: u64,
    closed: u64,
    /// Where the groups of digits end that were tried as phones from the first on.
    phones: usize,
}

impl Carry {
    #[inline(always)]
    fn pass(&mut self, now: &Masks) {
        self.word = now.word >> 63;
        self.digit = now.digit >> 63;
        self.high = now.high >> 63;
    }
}

impl<'d> Sieve<'d> {
    pub(super) fn new(index: &'d Index, shapes: bool) -> Self {
        let filter = index.filter();
        let numbers = index.lengths(Lane::Number);
        // With their signs; the longest are counted together.
        let numbers = u64::from(numbers >> 1) | u64::from(numbers >> 2) | (u64::from(numbers >> 31) * (!0 << 30));
        let phones = index.lengths(Lane::Phone);
        Sieve {
            index,
            lengths: filter.lengths(),
            filter,
            key: index.anchor_key,
            numbers,
            dates: index.has(Lane::Date),
            phones: if phones == 0 {
                0
            } else {
                (phones | index.lengths(Lane::National)) & !1
            },
            ids: index.has(Lane::Bare),
            wordless: index.has_wordless(),
            shapes,
            memory: None,
            outline: Outline::default(),
            #[cfg(test)]
            open: false,
        }
    }

    fn memory(&mut self) -> Box<Memory> {
        let kept = || MEMORY.try_with(Cell::take).ok().flatten();
        self.memory.take().or_else(kept).unwrap_or_else(|| {
            Box::new(Memory {
                chunk: Chunk::new(),
                starts: Starts::new(),
                groups: Groups::new(),
            })
        })
    }

    /// Positions in folded text at which text values could begin, and groups of digits or months
    /// at which numbers, dates and phones could; whether there are long runs of what base64 is written in.
    pub(super) fn text(&mut self, text: &[u8], words: &mut Vec<usize>, digits: &mut Vec<usize>) -> bool {
        #[cfg(test)]
        if self.open {
            words.extend(0..text.len());
            let before = |at: usize| at.checked_sub(1).map_or(0, |before| chunk::byte_at(text, before));
            digits.extend((0..text.len()).filter(|at| match chunk::byte_at(text, *at) {
                b'0'..=b'9' => !before(*at).is_ascii_digit(),
                letter => letter.is_ascii_alphabetic() && !before(*at).is_ascii_alphanumeric(),
            }));
            return true;
        }
        let mut runs = false;
        let mut memory = self.memory();
        accelerated(TextJob {
            sieve: self,
            memory: &mut memory,
            text,
            words,
            digits,
            runs: &mut runs,
        });
        self.memory = Some(memory);
        // Words and groups of digits were looked at in turn.
        for found in [words, digits] {
            found.sort_unstable();
            found.dedup();
        }
        runs
    }

    #[inline(always)]
    fn text_chunks(
        &self,
        unit: impl Unit,
        text: &[u8],
        memory: &mut Memory,
        words: &mut Vec<usize>,
        digits: &mut Vec<usize>,
    ) -> bool {
        let Memory { chunk, starts, groups } = memory;
        let mut runs = 0;
        let mut carry = Carry::default();
        let mut base = 0;
        chunk.clear();
        while chunk.read(unit, text, base) {
            for block in 0..chunk.count {
                let (now, next) = chunk.pair(block);
                let after_high = now.high << 1 | carry.high;
                let begins = now.word & !(now.word << 1 | carry.word) | now.high | now.word & after_high;
                let near_high = now.high | after_high;
                let mut doubtful = begins & near_high;
                while doubtful != 0 {
                    let bit = doubtful.trailing_zeros();
                    doubtful &= doubtful - 1;
                    let at = base + block * BLOCK + bit as usize;
                    words.push(at);
                    let is_digit = now.digit >> bit & 1 != 0;
                    if is_digit || self.dates && month(text, at) {
                        digits.push(at);
                    }
                }
                self.gather(unit, chunk, block, begins & !near_high, 0, starts);
                self.gather_groups(unit, chunk, block, &carry, groups);
                runs |= long(pair_of(now.run, next.run)) as u64;
                carry.pass(now);
            }
            base += chunk.count * BLOCK;
            self.begin(unit, text, chunk, starts, |at, is_digit, found| {
                let skip = if is_digit && self.numbers != 0 { 0 } else { TINY };
                if found & !skip != 0 {
                    words.push(at);
                    if is_digit {
                        digits.push(at);
                    }
                }
            });
            self.months(text, chunk, starts, |at| digits.push(at));
            self.groups_of(text, chunk, groups, &mut carry.phones, |at| digits.push(at));
        }
        runs != 0
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
        let mut memory = self.memory();
        accelerated(DocumentJob {
            sieve: self,
            memory: &mut memory,
            bytes,
            depth,
            outline,
            good: &mut good,
        });
        self.memory = Some(memory);
        if good && self.shapes {
            shapes::find(bytes, |range, _| outline.suspects.push(range.start));
        }
        good.then(|| {
            // Words and what surrounds them were looked at in turn.
            outline.suspects.sort_unstable();
        })
    }

    /// The bits of the lengths, from that of the anchor on, of what could begin with these bytes.
    pub(super) fn lengths(&self, first: &[u8; ANCHOR]) -> u64 {
        #[cfg(test)]
        if self.open {
            return !SHORT;
        }
        self.filter.get(self.key.hash(u64::from_le_bytes(*first))) & !SHORT
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

    fn has_whole(&self, text: &[u8]) -> bool {
        self.filter.has_whole(self.key.whole(text))
    }
}

struct TextJob<'j, 'd> {
    sieve: &'j Sieve<'d>,
    memory: &'j mut Memory,
    text: &'j [u8],
    words: &'j mut Vec<usize>,
    digits: &'j mut Vec<usize>,
    /// Whether there are long runs.
    runs: &'j mut bool,
}

impl Job for TextJob<'_, '_> {
    #[inline(always)]
    fn run(self, unit: impl Unit) {
        *self.runs = self
            .sieve
            .text_chunks(unit, self.text, self.memory, self.words, self.digits);
    }
}
