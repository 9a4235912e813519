//! Text's canonical form, and where each piece of it came from.

use std::borrow::Cow;
use std::ops::Range;

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfkc_quick};

/// NFKC, case-folded, white space trimmed and collapsed, typographic quotes and dashes made plain,
/// invisible characters dropped.
pub(crate) fn fold(text: &str) -> String {
    let mut folded = Folded::default();
    folded.push(text, 0, usize::MAX);
    folded.finish();
    folded.text
}

/// Folded text that knows its source positions.
#[derive(Default)]
pub(crate) struct Folded {
    pub(crate) text: String,
    steps: Vec<Step>,
}

/// From `at` (in the folded text) on, text came from `source`.
struct Step {
    at: usize,
    source: Range<usize>,
    /// Byte by byte, from the source's start on.
    linear: bool,
}

/// Longest run that is normalised in one piece, so that no payload makes it cost much memory.
const RUN: usize = 1 << 16;

impl Folded {
    /// Appends `text`, which stands at `offset` in the source, as long as the whole is no longer
    /// than `most` bytes (a few characters become many); gives how many bytes of it were left out.
    pub(crate) fn push(&mut self, text: &str, offset: usize, most: usize) -> usize {
        let bytes = text.as_bytes();
        let mut rest = 0;
        if text.is_ascii() && text.len() >= STRETCH && self.text.len() + text.len() <= most {
            rest = self.ascii_pieces(bytes, offset);
        }
        while let Some(&byte) = bytes.get(rest) {
            if self.text.len() > most {
                return bytes.len() - rest;
            }
            let start = rest;
            let plain = plain_length(bytes.get(rest..).unwrap_or_default(), most - self.text.len());
            if plain > 0 {
                rest += plain;
                self.ascii(text.get(start..rest).unwrap_or_default(), offset + start);
                continue;
            }
            rest += 1;
            if is_space(byte) {
                self.space(offset + start);
                continue;
            }
            // A token: combining marks may join what stands before them, so it is folded as a whole.
            let mut ascii = byte.is_ascii();
            if is_token(byte) {
                while let Some(&next) = bytes.get(rest).filter(|next| is_token(**next)) {
                    ascii &= next.is_ascii();
                    rest += 1;
                }
            }
            let token = text.get(start..rest).unwrap_or_default();
            if ascii {
                self.ascii(token, offset + start);
            } else {
                let left = self.unicode(token, offset + start, most);
                if left > 0 {
                    return bytes.len() - rest + left;
                }
            }
        }
        0
    }

    /// Appends ASCII piece by piece, each of which is looked at as a whole; gives how much of it.
    fn ascii_pieces(&mut self, bytes: &[u8], offset: usize) -> usize {
        let mut before = match self.text.as_bytes().last() {
            None => b' ',
            Some(last) => *last,
        };
        let (pieces, _) = bytes.as_chunks::<STRETCH>();
        for (number, piece) in pieces.iter().enumerate() {
            let (mut small, mut spaces) = ([0; STRETCH], [0; STRETCH]);
            // Without a branch, for vectors.
            for ((small, space), byte) in small.iter_mut().zip(&mut spaces).zip(piece) {
                let white = (*byte == b' ') | (byte.wrapping_sub(b'\t') < 5);
                let case = if byte.wrapping_sub(b'A') < 26 { b' ' } else { 0 };
                *space = u8::from(white);
                *small = if white { b' ' } else { byte | case };
            }
            let pairs = spaces.iter().zip(spaces.iter().skip(1));
            let again = pairs.fold(0, |again, (space, next)| again | space & next);
            let repeated = again != 0 || is_space(before) && is_space(piece[0]);
            let at = offset + number * STRETCH;
            match std::str::from_utf8(&small) {
                Ok(small) if !repeated => {
                    self.mark(at, true);
                    self.text.push_str(small);
                }
                _ => {
                    for (at, byte) in (at..).zip(piece) {
                        if is_space(*byte) {
                            self.space(at);
                        } else {
                            self.mark(at, true);
                            self.text.push(char::from(byte.to_ascii_lowercase()));
                        }
                    }
                }
            }
            before = piece[STRETCH - 1];
        }
        pieces.len() * STRETCH
    }

    /// Empty again, with the memory it has.
    pub(crate) fn clear(&mut self) {
        self.text.clear();
        self.steps.clear();
    }

    /// Ends the text: nothing follows its last word.
    pub(crate) fn finish(&mut self) {
        self.text.truncate(self.text.trim_end().len());
    }

    /// The range of the source that `range` of the folded text came from.
    pub(crate) fn source(&self, range: Range<usize>) -> Range<usize> {
        let step = |position: usize| {
            let after = self.steps.partition_point(|step| step.at <= position);
            self.steps.get(after.checked_sub(1)?)
        };
        let start = step(range.start).map_or(0, |step| {
            step.source.start + if step.linear { range.start - step.at } else { 0 }
        });
        let last = range.end.saturating_sub(1);
        let end = step(last).map_or(0, |step| match step.linear {
            true => step.source.start + (last - step.at) + 1,
            false => step.source.end,
        });
        start..end.max(start)
    }

    fn ascii(&mut self, text: &str, offset: usize) {
        self.mark(offset, true);
        let from = self.text.len();
        self.text.push_str(text);
        if let Some(new) = self.text.get_mut(from..) {
            new.make_ascii_lowercase();
        }
    }

    fn unicode(&mut self, token: &str, offset: usize, most: usize) -> usize {
        let mut rest = token;
        let mut at = offset;
        while !rest.is_empty() && self.text.len() <= most {
            let (run, next) = rest.split_at(run_length(rest));
            let source = at..at + run.len();
            let mut fresh = true;
            for c in normalise(run).chars() {
                if c.is_whitespace() {
                    self.space(source.start);
                    fresh = true;
                    continue;
                }
                if std::mem::take(&mut fresh) {
                    self.steps.push(Step {
                        at: self.text.len(),
                        source: source.clone(),
                        linear: false,
                    });
                }
                self.text.push(c);
            }
            at = source.end;
            rest = next;
        }
        rest.len()
    }

    fn space(&mut self, source: usize) {
        if !self.text.is_empty() && !self.text.ends_with(' ') {
            self.mark(source, true);
            self.text.push(' ');
        }
    }

    fn mark(&mut self, source: usize, linear: bool) {
        let at = self.text.len();
        let goes_on = self
            .steps
            .last()
            .is_some_and(|step| step.linear && step.source.start + (at - step.at) == source);
        if !goes_on {
            self.steps.push(Step {
                at,
                source: source..source,
                linear,
            });
        }
    }
}

fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

/// Bytes at the start, at most `most`, of which folding changes nothing but the case: ASCII words
/// with one space between, as most text is. The last word may belong to a token that goes on.
fn plain_length(bytes: &[u8], most: usize) -> usize {
    let within = bytes.get(..most).unwrap_or(bytes);
    // In pieces first: what is compared without looking at the result is compared many at once.
    let mut sure = usize::from(within.first().is_some_and(|byte| matches!(byte, 0x21..=0x7f)));
    if sure > 0 {
        let pieces = within.windows(PIECE + 1).step_by(PIECE);
        sure += PIECE * pieces.take_while(|piece| is_plain(piece)).count();
    }
    let mut spaced = sure.checked_sub(1).is_none_or(|last| within.get(last) == Some(&b' '));
    let changes = |byte: &u8| match byte {
        b' ' => std::mem::replace(&mut spaced, true),
        0x21..=0x7f => {
            spaced = false;
            false
        }
        other => is_space(*other) || !other.is_ascii(),
    };
    let rest = within.get(sure..).unwrap_or_default();
    let length = sure + rest.iter().position(changes).unwrap_or(rest.len());
    match bytes.get(length) {
        Some(next) if is_token(*next) => {
            let whole = |byte: &u8| !is_token(*byte);
            within
                .get(..length)
                .and_then(|plain| plain.iter().rposition(whole))
                .map_or(0, |last| last + 1)
        }
        _ => length,
    }
}

/// Bytes of ASCII that are folded together.
const STRETCH: usize = 128;

/// Bytes that are looked at together.
const PIECE: usize = 32;

/// Whether all bytes but the first are readable ASCII, and no two of them in a row are spaces.
fn is_plain(piece: &[u8]) -> bool {
    let pairs = piece.iter().zip(piece.iter().skip(1));
    pairs.fold(true, |plain, (before, byte)| {
        plain & matches!(byte, b' '..=0x7f) & !((*before == b' ') & (*byte == b' '))
    })
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || !byte.is_ascii()
}

/// Bytes of `text` to normalise at once: up to a character that never joins what stands before it,
/// where a word begins or ends, so that source ranges are those of words, or where it grows long.
fn run_length(text: &str) -> usize {
    let mut before = None;
    text.char_indices()
        .find(|(at, c)| {
            let before = before.replace(*c);
            let apart =
                before.is_some_and(|before| !before.is_alphanumeric() || !c.is_alphanumeric()) || *at >= RUN / 16;
            *at >= RUN
                || apart && !is_invisible(*c) && !is_mark(*c) && is_nfkc_quick(std::iter::once(*c)) == IsNormalized::Yes
        })
        .map_or(text.len(), |(at, _)| at)
}

fn is_mark(c: char) -> bool {
    unicode_normalization::char::is_combining_mark(c)
}

fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{2064}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}')
}

/// Until nothing changes: folding may undo normalisation, and the other way round.
fn normalise(run: &str) -> String {
    let mut text = Cow::Borrowed(run);
    for _ in 0..4 {
        let next: String = text.nfkc().flat_map(fold_char).collect();
        if next == *text {
            break;
        }
        text = Cow::Owned(next);
    }
    text.into_owned()
}

/// Small by way of capital makes all case variants one, as full case folding does: `ß`, `ẞ` and `SS` give `ss`.
fn fold_char(c: char) -> impl Iterator<Item = char> {
    let plain = match c {
        '\u{2018}' | '\u{2019}' | '\u{201b}' | '\u{2bc}' | '\u{2032}' => Some('\''),
        '\u{201c}'..='\u{201f}' | '\u{2033}' => Some('"'),
        '\u{2010}'..='\u{2015}' | '\u{2212}' => Some('-'),
        c if is_invisible(c) => None,
        other => Some(other),
    };
    plain
        .into_iter()
        .flat_map(char::to_lowercase)
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(text: &str) -> Folded {
        let mut folded = Folded::default();
        folded.push(text, 0, usize::MAX);
        folded.finish();
        folded
    }

    #[test]
    fn knows_where_text_came_from() {
        let text = "  Dear \n  ZOE\u{308}, hi\u{a0}you \u{201c}house\u{201d} ";
        let folded = folded(text);
        assert_eq!(folded.text, "dear zo\u{eb}, hi you \"house\"");
        for (word, source) in [
            ("dear", "Dear"),
            ("zo\u{eb}", "ZOE\u{308}"),
            ("you", "you"),
            ("house", "house"),
            ("dear zo\u{eb}", "Dear \n  ZOE\u{308}"),
        ] {
            let at = folded.text.find(word).unwrap_or_default();
            assert_eq!(text.get(folded.source(at..at + word.len())), Some(source), "{word}");
        }
    }

    proptest::proptest! {
        #[test]
        fn ascii_is_folded_alike_in_pieces_of_any_length(text in "[a-zA-Z ,\n\t\x01]{0,20}|([a-z]{1,9}[ \n]{1,2}){0,60}", cut in 0..40_usize) {
            let (mut whole, mut parts) = (Folded::default(), Folded::default());
            whole.push(text.get(..cut).unwrap_or_default(), 0, usize::MAX);
            let rest = text.get(cut..).unwrap_or_default();
            whole.push(rest, cut, usize::MAX);
            let first = text.get(..cut).unwrap_or_default();
            for (at, c) in first.char_indices().chain(rest.char_indices().map(|(at, c)| (cut + at, c))) {
                parts.push(c.encode_utf8(&mut [0; 4]), at, usize::MAX);
            }
            proptest::prop_assert_eq!(&whole.text, &parts.text);
            for at in 0..whole.text.len() {
                proptest::prop_assert_eq!(whole.source(at..at + 1), parts.source(at..at + 1));
            }
        }

        /// Text that stands after a joint is folded by the same rules as text that is folded alone.
        #[test]
        fn stretches_fold_as_words_do(text in "[ab AB.\u{301}\u{c4}\u{2019}\t\n\x01\x7f]{0,24}", most in 0..40_usize) {
            let view = folded(&text);
            let words: Vec<String> = text.split_ascii_whitespace().map(fold).filter(|word| !word.is_empty()).collect();
            proptest::prop_assert_eq!(&view.text, &words.join(" "));
            // Each word came from where it stands.
            let mut at = 0;
            for word in &words {
                let source = view.source(at..at + word.len());
                proptest::prop_assert_eq!(&fold(&text[source]), word);
                at += word.len() + 1;
            }
            let mut capped = Folded::default();
            let left = capped.push(&text, 0, most);
            let taken = text.get(..text.len() - left).map(fold);
            capped.finish();
            proptest::prop_assert_eq!(Some(capped.text), taken);
        }
    }

    #[test]
    fn long_runs_fold_as_short_ones() {
        let word = "\u{e4}\u{11f}o\u{308}\u{1100}\u{1161}";
        let long = word.repeat(20_000);
        assert_eq!(fold(&long), fold(word).repeat(20_000));
        assert!(!fold(&"\u{fdfa}".repeat(100_000)).is_empty());
        assert!(!fold(&"\u{301}".repeat(200_000)).is_empty());
    }
}
