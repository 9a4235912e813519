//! What an attribute leaves in the program: a static that says where it stands and what it declares.
//!
//! Everything here is built by generated code in `const` position, so the fields are
//! public, the types are `Copy`-free plain data, and none of it allocates.

use crate::tracked::Field;

/// One use of an attribute.
#[derive(Debug)]
pub struct Site {
    /// Module path and item, `crm::api::signup`.
    pub path: &'static str,
    /// Source file as the compiler names it.
    pub file: &'static str,
    /// Line of the attribute.
    pub line: u32,
    /// What the attribute says about why.
    pub terms: Terms,
}

/// The keys that every attribute may carry.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// Purpose in the user's words, `newsletter`.
    pub purpose: Option<&'static str>,
    /// Legal basis, such as `consent` or `contract` (GDPR Art. 6).
    pub basis: Option<&'static str>,
    /// A fideslang data use key, `marketing.communications.email`.
    pub data_use: Option<&'static str>,
    /// The kind of data subject, `customer`.
    pub subject: Option<&'static str>,
}

impl Terms {
    /// Nothing said.
    pub const NONE: Terms = Terms {
        purpose: None,
        basis: None,
        data_use: None,
        subject: None,
    };
}

/// `#[tracked_model]`.
#[derive(Debug)]
pub struct ModelSite {
    /// Where.
    pub site: Site,
    /// The type's name, `NewUser`.
    pub model: &'static str,
    /// The table's name, `users`.
    pub table: &'static str,
    /// The tracked columns, in the order of the fields.
    pub columns: &'static [Column],
}

/// One tracked column of a model.
#[derive(Debug)]
pub struct Column {
    /// Column name in the table.
    pub name: &'static str,
    /// What the field declares.
    pub field: &'static Field,
}

/// `#[provenance_input]`.
#[derive(Debug)]
pub struct InputSite {
    /// Where.
    pub site: Site,
}

/// `#[derived("category")]`.
#[derive(Debug)]
pub struct DerivedSite {
    /// Where.
    pub site: Site,
    /// What the result declares.
    pub field: &'static Field,
}

/// `#[egress]`.
#[derive(Debug)]
pub struct EgressSite {
    /// Where.
    pub site: Site,
    /// The recipient's name, where the attribute gives one.
    pub recipient: Option<&'static str>,
    /// The categories that may leave here; `None` where the attribute sets no limit.
    pub allow: Option<&'static [&'static str]>,
}
