//! What can be judged at compile time about the words that a user wrote.

use syn::LitStr;

use crate::attr::{listed, nearest};
use crate::ctxt::Ctxt;
use crate::symbol;

/// Longest category, in bytes.
const MAX_CATEGORY: usize = 128;

/// Whether `category` is two or more dotted segments of `[a-z][a-z0-9_]*`; reports it if not.
pub(crate) fn category(cx: &Ctxt, category: &LitStr) -> bool {
    let text = category.value();
    let fix = if text.len() > MAX_CATEGORY {
        format!("it is longer than {MAX_CATEGORY} bytes; shorten it")
    } else if text.is_empty() {
        "name one, such as `contact.email`".to_owned()
    } else if text.split('.').all(is_word) {
        if text.contains('.') {
            return true;
        }
        format!("it needs two segments or more, such as `contact.{text}` or, for one of your own, `x.{text}`")
    } else {
        match mended(&text) {
            Some(mended) => format!("write `{mended}`"),
            None => "segments are `a-z`, `0-9` and `_`, begin with a letter, and are joined by dots, as in \
                     `contact.email`"
                .to_owned(),
        }
    };
    cx.error_at(category, format!("`{text}` is no category: {fix}"));
    false
}

/// Whether `kind` is one that values can have; reports it if not.
pub(crate) fn kind(cx: &Ctxt, kind: &LitStr) -> bool {
    let text = kind.value();
    if symbol::KINDS.contains(&text.as_str()) {
        return true;
    }
    let fix = match nearest(&text, symbol::KINDS) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there are {}", listed(symbol::KINDS)),
    };
    cx.error_at(kind, format!("unknown kind `{text}`: {fix}"));
    false
}

/// `[a-z][a-z0-9_]*`.
pub(crate) fn is_word(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_lowercase())
        && word
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// The category that was probably meant: `Contact.E-Mail` -> `contact.e_mail`.
fn mended(text: &str) -> Option<String> {
    let mended = text
        .trim()
        .trim_matches('.')
        .to_ascii_lowercase()
        .replace(['-', ' '], "_")
        .replace("::", ".")
        .replace('/', ".");
    (mended.contains('.') && mended.split('.').all(is_word)).then_some(mended)
}
