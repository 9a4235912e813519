//! The words that attributes are made of.

pub(crate) const TRACKED: &str = "tracked";

pub(crate) const PURPOSE: &str = "purpose";
pub(crate) const BASIS: &str = "basis";
pub(crate) const DATA_USE: &str = "data_use";
pub(crate) const SUBJECT: &str = "subject";
pub(crate) const NAME: &str = "name";
pub(crate) const CRATE: &str = "crate";
/// The keys that every attribute accepts.
pub(crate) const SHARED: [&str; 6] = [PURPOSE, BASIS, DATA_USE, SUBJECT, NAME, CRATE];

pub(crate) const DESCRIPTION: &str = "description";
pub(crate) const KIND: &str = "kind";
pub(crate) const PII: &str = "pii";
pub(crate) const SECRET: &str = "secret";
pub(crate) const SKIP: &str = "skip";
/// The keys of `#[tracked(..)]` on a field.
pub(crate) const FIELD: [&str; 5] = [DESCRIPTION, KIND, PII, SECRET, SKIP];

pub(crate) const RECIPIENT: &str = "recipient";
pub(crate) const ALLOW: &str = "allow";
/// The keys of `#[egress]`.
pub(crate) const EGRESS: [&str; 2] = [RECIPIENT, ALLOW];
/// Marks an argument of a function under `#[egress]`.
pub(crate) const PAYLOAD: &str = "payload";

pub(crate) const OWNER: &str = "owner";
pub(crate) const TABLE: &str = "table";

/// The kinds of a value.
pub(crate) const KINDS: [&str; 6] = ["text", "email", "phone", "number", "date", "id"];
