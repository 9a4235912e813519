//! What is known of one value of one person.

use std::sync::Arc;

use super::{Fingerprint, Owner, Timestamp};

/// A value's tag. Identity in the registry: fingerprint, canonical category and person.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Tag {
    /// The value's pseudonym; `None` (JSON `null`) for secrets, whose fingerprint is never kept.
    pub fingerprint: Option<Fingerprint>,
    /// Category as the user wrote it.
    pub category: Arc<str>,
    /// Field, column or parameter name.
    pub field: Arc<str>,
    /// Description in the user's words; empty if none.
    pub description: Arc<str>,
    /// Whose value it is.
    pub owner: Option<Owner>,
    /// Where the value was first seen: `HTTP POST /signup`, `db:users.email`, `derived:score.credit`.
    pub source: Arc<str>,
    /// Whether this is personal data.
    pub pii: bool,
    /// When the value was first seen.
    pub created_at: Timestamp,
}

use super::Kind;

/// What is declared of a field, by an attribute or by the config, resolved once.
#[derive(Debug)]
pub(crate) struct FieldSpec {
    pub(crate) name: Arc<str>,
    /// As the user wrote it.
    pub(crate) category: Arc<str>,
    pub(crate) description: Arc<str>,
    pub(crate) kind: Kind,
    pub(crate) pii: bool,
    pub(crate) secret: bool,
}
