//! Finds registered values in bytes that leave. Pure: bytes in, hits out; no I/O, no clock.
//!
//! No raw value is kept: entries are keyed hashes of canonical forms. Hits that mean little
//! by themselves (short or low-entropy values) are marked weak; the caller decides by context.
//!
//! # Boundary rules
//! Text is searched in its folded form (case, Unicode form, white space: see
//! [`canonical`](crate::vocabulary::canonical)).
//! - **Word characters** are letters, digits and marks; punctuation, symbols, spaces, `_` and
//!   bytes that are no UTF-8 are not. A **token** is a longest run of them. Scripts that are
//!   written without spaces (Han, Kana, Hangul, Thai, ...) have a token for each character.
//! - A value is searched without the non-word characters at its two ends. It is found where it
//!   begins at a token's start and ends at a token's end: `alice@example.com` in
//!   `<ALICE@example.com>`, not in `malice@example.com`. Values of fewer than 3 bytes, or without
//!   any word character, are found only as a whole leaf.
//! - **Numbers** are found where a number as a whole stands, with currency and grouping
//!   (`$4,200.00`); every piece between commas is tried too, for CSV. **Dates** and **phones**
//!   are found in the formats that their canonical form reads, both readings of `02/01/1990`
//!   included; phones also by their last 10 digits, and without trunk zero or calling code where
//!   8 digits are left. Digits of which nobody says so may have a calling code.
//! - **Ids** of 8 to 64 ASCII letters and digits (of 12 and more, if they have no letters), with a
//!   digit among the first 8, are found with one separator (a space or one of `-./:_`) or none
//!   between any two of them. What differs from the id as registered is a normalised finding.
//! - **Names**, that is texts of two words of letters, are found in their other order, with or
//!   without a comma between.
//! - **Digests** in hex or base64 are compared with the SHA-256 of each value's canonical form (dates
//!   also as `19900102`, phones also with `+`); for emails, phones and texts of at most 64 bytes
//!   without digits also with MD5 and SHA-1, and with the small letters that folding loses (a
//!   final sigma; a sharp s in place of every `ss`).
//! - **Encodings**: percent and plus, JSON escapes, JSON within strings, HTML entities (numbers, and
//!   the names that escaping needs), quoted-printable, base64 and hex runs of at least 16 characters
//!   are decoded and searched, at most 3 deep and within a budget of bytes. Parts that gzip or zlib
//!   compressed, by their first bytes, are inflated first, to at most 64 times their size; what breaks
//!   off, or has more behind it, is searched as it stands too (what headers say of an encoding is the
//!   caller's). Other compression and base64 over several lines are not decoded.
//!
//! # Shapes
//! Where it is asked for, what was never registered is reported by its shape: addresses of mail, phones in
//! international form or as in North America, IBANs and cards whose check digits are right, and IP addresses
//! that are neither private nor this machine's. What overlaps a registered value is that value. `shapes` has the rules.
//!
//! # How it is quick
//! Most of what leaves holds nothing. `classify` turns 64 bytes at a time into bit masks; the `sieve` reads a chunk
//! of them in steps: masks rule out what they can, what is left is hashed together, and a small filter of keyed anchors
//! (`filter`) is asked at each token's start, with the lengths that could end there, and at groups of digits with what
//! they could be read as. It does so on a JSON document as it stands. Only what passes is looked at by the exact rules
//! (`words`, `digits`), and only there are JSON leaves located and places written. The sieve never holds back what
//! the exact rules would find; a test compares the two.
//!
//! Hashes stand in a packed table (`table`), what they lead to in records that never move (`arena`). A scan takes no lock for
//! them: who writes is one at a time, and what was read while something moved is read again. What a filter has of a
//! spelling stands in its record, so that filters can grow and forget while scans go on.
//!
//! # Strength
//! Strong are emails, phones of at least 7 digits, dates, numbers of at least 6 significant digits,
//! ids of at least 8 characters, and text of at least 8 with a space, of at least 10 without, of
//! at least 12 if it is one word of letters (as first names and list entries are). All else is weak.
//! Strong hits go before weak ones where hits are capped, and one value is reported at no more
//! than 16 places of a message.

mod anchor;
mod arena;
#[cfg(test)]
mod bench;
mod classify;
mod decode;
mod digits;
mod entry;
mod filter;
mod index;
mod json;
mod scan;
mod shapes;
mod sieve;
mod table;
#[cfg(test)]
mod tests;
mod words;

use std::fmt;

use crate::vocabulary::{Fingerprint, Kind};

pub(crate) use entry::Entry;

use index::Index;
use scan::Scanner;

/// How a value was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Form {
    /// A whole leaf, as registered.
    Exact,
    /// Inside text.
    Embedded,
    /// In another format of the same kind.
    Normalised,
    /// Behind an encoding (percent, JSON escapes, base64, ...).
    Encoded,
    /// As a digest.
    Hashed,
}

impl Form {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Form::Exact => "exact",
            Form::Embedded => "embedded",
            Form::Normalised => "normalised",
            Form::Encoded => "encoded",
            Form::Hashed => "hashed",
        }
    }
}

/// What to scan: the parts of one message.
#[derive(Default)]
pub(crate) struct Message<'a> {
    pub(crate) parts: Vec<Part<'a>>,
}

/// One part of a message.
pub(crate) struct Part<'a> {
    /// Where this part stands: `body`, `url`, `header:x-user`.
    pub(crate) place: String,
    pub(crate) bytes: &'a [u8],
    pub(crate) media: Media,
}

/// How a part is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Media {
    Json,
    Form,
    /// Path and query of a URL.
    Url,
    Text,
}

/// One value met. `Debug` leaves the key out: keys can be personal.
#[derive(Clone, PartialEq)]
pub(crate) struct Hit {
    pub(crate) fingerprint: Fingerprint,
    /// `body:/user/email`, `body:email` (form field), `url:query.email`, `header:x-user`, `body@120..139`.
    /// Keys that are not identifier-like, or are themselves registered values, read `{key}`.
    pub(crate) place: String,
    /// The raw key of the leaf, for the context rule only; never stored.
    pub(crate) key: Option<String>,
    pub(crate) form: Form,
    /// Needs context: short, or low in entropy.
    pub(crate) weak: bool,
}

impl fmt::Debug for Hit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hit")
            .field("fingerprint", &self.fingerprint)
            .field("place", &self.place)
            .field("form", &self.form)
            .field("weak", &self.weak)
            .finish_non_exhaustive()
    }
}

/// What has the shape of personal data, and was not registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) category: &'static str,
    /// As that of a [`Hit`].
    pub(crate) place: String,
}

/// What a scan found, and what it did not look at.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    pub(crate) hits: Vec<Hit>,
    /// In no order; only where the detector reports them.
    pub(crate) shapes: Vec<Shape>,
    /// Bytes beyond the caps (size, depth, decoding budget, effort), and bytes that are no text.
    /// What lies deeper than the nesting followed counts here, though it is searched as plain text.
    pub(crate) unscanned: usize,
    /// Hits beyond the caps: of hits in all, and of places of one value.
    pub(crate) dropped: usize,
}

/// Caps of one scan.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes scanned of each part.
    pub(crate) bytes: usize,
    /// Nesting followed.
    pub(crate) depth: usize,
    /// Most hits reported.
    pub(crate) hits: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            bytes: 8 << 20,
            depth: 64,
            hits: 1024,
        }
    }
}

/// The index of registered values. Scans run while values come and go.
pub(crate) struct Detector {
    index: Index,
    shapes: bool,
}

impl Detector {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Detector {
            index: Index::new(key),
            shapes: false,
        }
    }

    /// Also reports what has the shape of personal data, if `shapes` says so.
    pub(crate) fn with_shapes(self, shapes: bool) -> Self {
        Detector { shapes, ..self }
    }

    /// The keyed hashes of a value with this canonical form.
    pub(crate) fn entry(&self, kind: Kind, canonical: &str) -> Entry {
        self.index.entry(kind, canonical)
    }

    /// Makes a value known; idempotent.
    pub(crate) fn insert(&self, entry: &Entry, fingerprint: Fingerprint) {
        self.index.insert(entry, fingerprint);
    }

    /// Makes room for so many more values, so that tables need not grow while they come.
    pub(crate) fn reserve(&self, values: usize) {
        self.index.reserve(values);
    }

    /// Makes many values known: quicker than one by one. Scans and other insertions go on meanwhile.
    pub(crate) fn insert_all<'e>(&self, values: impl IntoIterator<Item = (&'e Entry, Fingerprint)>) {
        self.index.insert_all(values);
    }

    /// Forgets a value; idempotent.
    pub(crate) fn remove(&self, entry: &Entry, fingerprint: Fingerprint) {
        self.index.remove(entry, fingerprint);
    }

    /// Every registered value in `message`, in order of place.
    pub(crate) fn scan(&self, message: &Message<'_>, limits: Limits) -> Scan {
        let mut scanner = Scanner::new(&self.index, limits, self.shapes);
        for part in &message.parts {
            scanner.part(part);
        }
        scanner.finish()
    }
}
