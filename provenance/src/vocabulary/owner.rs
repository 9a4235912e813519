//! The data subject, typed: a kind (`email`, `user`) and a value, stored keyed unless `owners: clear`.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::Kind;
use super::canonical::canonical;
use crate::config::Config;
use crate::key::{Keys, Subkey};
use crate::tracked::Value;

/// A data subject as events show it: `email:9f86d081884c7d65...` (keyed, 32 hex digits) or,
/// with `owners: clear`, `email:alice@example.com`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner(Arc<str>);

impl Owner {
    /// An owner from its stored form `kind:value`; `None` unless it has that shape.
    pub fn from_stored(text: &str) -> Option<Self> {
        let (kind, value) = text.split_once(':')?;
        (is_kind(kind) && !value.is_empty()).then(|| Owner(text.into()))
    }

    /// The kind, `email`.
    pub fn kind(&self) -> &str {
        self.0.split_once(':').map_or("", |(kind, _)| kind)
    }

    /// Whether a person keeps this identifier for good, as against an address or a number that may
    /// pass to somebody else.
    pub(crate) fn is_kept(&self) -> bool {
        !matches!(self.kind(), "email" | "phone")
    }

    /// `kind:value` as stored and shown.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Owner kinds are identifiers: `[a-z][a-z0-9_]*`, at most 32 bytes.
pub(crate) fn is_kind(kind: &str) -> bool {
    kind.len() <= 32
        && kind.starts_with(|c: char| c.is_ascii_lowercase())
        && kind
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// Makes owners from raw values.
pub(crate) enum Owners {
    Keyed(Subkey),
    Clear,
}

impl Owners {
    /// As `config` asks.
    pub(crate) fn of(config: &Config, keys: &Keys) -> Self {
        match config.owners_clear {
            true => Owners::Clear,
            false => Owners::Keyed(keys.owners.clone()),
        }
    }

    /// The owner with this identifier, by the rules of its kind.
    pub(crate) fn identified(&self, kind: &str, identifier: Value<'_>) -> Option<Owner> {
        let form = match kind {
            "email" => Kind::Email,
            "phone" => Kind::Phone,
            _ => Kind::Id,
        };
        let canonical = Zeroizing::new(canonical(form, identifier)?);
        self.owner(kind, &canonical)
    }

    /// `canonical` is the canonical form of the identifier (email rules for kind `email`,
    /// phone rules for `phone`, id rules otherwise).
    pub(crate) fn owner(&self, kind: &str, canonical: &str) -> Option<Owner> {
        if !is_kind(kind) || canonical.is_empty() {
            return None;
        }
        Some(match self {
            Owners::Clear => Owner(format!("{kind}:{canonical}").into()),
            Owners::Keyed(key) => {
                let mac = key.mac(&[kind.as_bytes(), &[0], canonical.as_bytes()]);
                let mut text = String::with_capacity(kind.len() + 33);
                text.push_str(kind);
                text.push(':');
                for byte in &mac[..16] {
                    text.push(char::from(b"0123456789abcdef"[usize::from(byte >> 4)]));
                    text.push(char::from(b"0123456789abcdef"[usize::from(byte & 15)]));
                }
                Owner(text.into())
            }
        })
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl serde::Serialize for Owner {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}
