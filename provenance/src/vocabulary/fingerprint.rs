//! The pseudonym of a value: SHA-256 of its canonical form, keyed unless configured otherwise.

use std::fmt;

use crate::config::{Config, Fingerprints};
use crate::key::{Keys, Subkey};

/// 32 bytes, shown as lower-case hex.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// Reads 64 hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.as_bytes();
        if text.len() != 64 {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            let digit = |c: u8| char::from(c).to_digit(16);
            *byte = u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()?;
        }
        Some(Fingerprint(bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Fingerprint {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Makes fingerprints: `hmac-sha256` with the fingerprint subkey, or plain `sha256`.
pub(crate) enum Fingerprinter {
    /// The key in force, and those of earlier epochs, the newest first.
    Keyed(Subkey, Vec<Subkey>),
    Plain,
}

impl Fingerprinter {
    /// As `config` asks.
    pub(crate) fn of(config: &Config, keys: &Keys) -> Self {
        match config.fingerprints {
            Fingerprints::HmacSha256 => Fingerprinter::Keyed(
                keys.fingerprints.clone(),
                keys.earlier
                    .iter()
                    .map(|earlier| earlier.fingerprints.clone())
                    .collect(),
            ),
            Fingerprints::Sha256 => Fingerprinter::Plain,
        }
    }

    pub(crate) fn fingerprint(&self, canonical: &[u8]) -> Fingerprint {
        use sha2::Digest;
        match self {
            Fingerprinter::Keyed(key, _) => Fingerprint(key.mac(&[canonical])),
            Fingerprinter::Plain => Fingerprint(sha2::Sha256::digest(canonical).into()),
        }
    }

    /// What the same value was known as under earlier epochs, the newest first.
    pub(crate) fn earlier(&self, canonical: &[u8]) -> impl Iterator<Item = Fingerprint> {
        let keys = match self {
            Fingerprinter::Keyed(_, earlier) => earlier.as_slice(),
            Fingerprinter::Plain => &[],
        };
        keys.iter().map(move |key| Fingerprint(key.mac(&[canonical])))
    }
}
