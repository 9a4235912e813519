//! Finds registered values in bytes that leave. Pure: bytes in, hits out; no I/O, no clock.
//!
//! No raw value is kept: entries are keyed hashes of canonical forms. Hits that mean little
//! by themselves (short or low-entropy values) are marked weak; the caller decides by context.

use crate::vocabulary::{Fingerprint, Kind};

/// What detection keeps of one value; the store keeps it beside the fingerprint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    bytes: Vec<u8>,
}

impl Entry {
    /// The stored form; versioned, no raw value in it.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        self.bytes.clone()
    }

    /// Reads the stored form; `None` if it is damaged or of another version.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Entry { bytes: bytes.to_vec() })
    }
}

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

/// One value met.
#[derive(Clone, Debug, PartialEq)]
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

/// What a scan found, and what it did not look at.
#[derive(Default)]
pub(crate) struct Scan {
    pub(crate) hits: Vec<Hit>,
    /// Bytes beyond the caps (size, depth, decoding budget).
    pub(crate) unscanned: usize,
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

/// The index of registered values.
pub(crate) struct Detector {}

impl Detector {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        let _ = key;
        Detector {}
    }

    /// The keyed hashes of a value with this canonical form.
    pub(crate) fn entry(&self, kind: Kind, canonical: &str) -> Entry {
        let _ = (kind, canonical);
        Entry { bytes: Vec::new() }
    }

    /// Makes a value known; idempotent.
    pub(crate) fn insert(&self, entry: &Entry, fingerprint: Fingerprint) {
        let _ = (entry, fingerprint);
    }

    /// Forgets a value.
    pub(crate) fn remove(&self, entry: &Entry, fingerprint: Fingerprint) {
        let _ = (entry, fingerprint);
    }

    /// Every registered value in `message`, in order of place.
    pub(crate) fn scan(&self, message: &Message<'_>, limits: Limits) -> Scan {
        let _ = (message, limits);
        Scan::default()
    }
}
