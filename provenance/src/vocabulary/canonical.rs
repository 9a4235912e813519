//! One canonical form for every value, by kind: shared by fingerprint and detection.

use crate::tracked::Value;

/// The kind of a value: decides its canonical form.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// Free text and names.
    Text,
    /// An email address.
    Email,
    /// A telephone number.
    Phone,
    /// A number; `5000`, `5000.0` and `"5000.00"` agree.
    Number,
    /// A calendar date.
    Date,
    /// An identifier, compared as written: `02134` is not `2134`.
    Id,
}

impl Kind {
    /// The word used in attributes, config and store.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Text => "text",
            Kind::Email => "email",
            Kind::Phone => "phone",
            Kind::Number => "number",
            Kind::Date => "date",
            Kind::Id => "id",
        }
    }

    /// Reads the word.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "text" => Kind::Text,
            "email" => Kind::Email,
            "phone" => Kind::Phone,
            "number" => Kind::Number,
            "date" => Kind::Date,
            "id" => Kind::Id,
            _ => return None,
        })
    }
}

/// The canonical form of `value`; `None` where there is nothing to keep (empty text, NaN).
pub(crate) fn canonical(kind: Kind, value: Value<'_>) -> Option<String> {
    let _ = kind;
    let text = match value {
        Value::Text(text) => text.trim().to_lowercase(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
    };
    (!text.is_empty()).then_some(text)
}
