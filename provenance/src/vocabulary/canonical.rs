//! One canonical form for every value, by kind: shared by fingerprint and detection.
//!
//! | kind | form | from |
//! |---|---|---|
//! | text, email | `ada lovelace` | NFKC, case-folded, white space trimmed and collapsed, typographic quotes and dashes made plain |
//! | phone | `15550102030` | 4 to 15 digits; `+`, `00`, `tel:`, `(0)` of an international number and separators dropped |
//! | number | `4200.5` | no exponent, no needless zeros, `-0` is `0`; see [`number`] for grouping and currencies |
//! | date | `1990-01-02` | ISO, day first where both could be (`02/01/1990`), English month names; the time of day is dropped |
//! | id | `aB-02134` | as written, trimmed: case and zeros count, as they may tell two people apart |
//!
//! Text that cannot be read as its kind keeps text's form, so that it is still found.

use crate::tracked::Value;

pub(crate) mod date;
pub(crate) mod fold;
pub(crate) mod number;
pub(crate) mod phone;

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

    /// The number in the store.
    pub(crate) fn code(self) -> i16 {
        match self {
            Kind::Text => 1,
            Kind::Email => 2,
            Kind::Phone => 3,
            Kind::Number => 4,
            Kind::Date => 5,
            Kind::Id => 6,
        }
    }

    /// Reads the number.
    pub(crate) fn of_code(code: i16) -> Option<Self> {
        use Kind::{Date, Email, Id, Number, Phone, Text};
        [Text, Email, Phone, Number, Date, Id]
            .into_iter()
            .find(|kind| kind.code() == code)
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
    match value {
        Value::Text(text) => of_text(kind, text),
        Value::Integer(number) => of_text(kind, &number.to_string()),
        // Adding zero makes `-0` plain.
        Value::Float(number) if number.is_finite() => of_text(kind, &(number + 0.0).to_string()),
        Value::Float(_) => None,
        Value::Bool(truth) => Some(truth.to_string()),
    }
}

fn of_text(kind: Kind, text: &str) -> Option<String> {
    let canonical = match kind {
        Kind::Id => text.trim().to_owned(),
        Kind::Text | Kind::Email => fold::fold(text),
        Kind::Phone | Kind::Number | Kind::Date => {
            let folded = fold::fold(text);
            let read = match kind {
                Kind::Phone => phone::read(&folded),
                Kind::Number => number::read(&folded).map(|readings| readings.first),
                _ => date::read(&folded).map(|readings| readings.first),
            };
            read.unwrap_or(folded)
        }
    };
    (!canonical.is_empty()).then_some(canonical)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const KINDS: [Kind; 6] = [Kind::Text, Kind::Email, Kind::Phone, Kind::Number, Kind::Date, Kind::Id];

    fn text(kind: Kind, text: &str) -> String {
        canonical(kind, Value::Text(text)).unwrap()
    }

    #[test]
    fn texts_agree_beyond_case_spacing_and_unicode_form() {
        for (a, b) in [
            ("  Ada \t\n Lovelace ", "ada lovelace"),
            ("ALICE@Example.com", "alice@example.com"),
            ("Zoe\u{308}", "ZO\u{cb}"),
            ("Stra\u{df}e", "STRASSE"),
            ("\u{1e9e}", "ss"),
            ("\u{39f}\u{394}\u{39f}\u{3a3}", "\u{3bf}\u{3b4}\u{3bf}\u{3c2}"),
            ("O\u{2019}Brien", "o'brien"),
            ("Jean\u{2011}Luc", "jean-luc"),
            ("Ada\u{a0}Lovelace", "ada lovelace"),
            ("\u{ff21}da", "ada"),
            ("so\u{ad}ft", "soft"),
        ] {
            assert_eq!(text(Kind::Text, a), text(Kind::Text, b), "{a:?} {b:?}");
        }
        assert_eq!(canonical(Kind::Text, Value::Text(" \u{a0}\t ")), None);
        assert_eq!(canonical(Kind::Id, Value::Text("  ")), None);
    }

    #[test]
    fn numbers_agree_however_they_are_written() {
        for same in [
            "5000",
            "5000.0",
            "5000.00",
            "5,000.00",
            "5,000",
            "5.000,00",
            "5 000,00",
            "5'000",
            "$5,000.00",
            "5000 EUR",
            "EUR 5000",
            "+5000",
            "5e3",
            "05000",
            "5000,0",
            "\u{20ac}5\u{a0}000,00",
        ] {
            assert_eq!(text(Kind::Number, same), "5000", "{same}");
        }
        for (written, canonical) in [
            ("-0", "0"),
            ("-0.0", "0"),
            ("4.2", "4.2"),
            ("4,2", "4.2"),
            (".5", "0.5"),
            ("-$4.50", "-4.5"),
            ("1,00,000", "100000"),
            ("1.234.567", "1234567"),
            ("0,500", "0.5"),
            ("4.200", "4.2"),
            ("-1e-3", "-0.001"),
        ] {
            assert_eq!(text(Kind::Number, written), canonical, "{written}");
        }
        for text_form in [
            "about 5",
            "5-6",
            "1,2,3",
            "5 5",
            "1.2.3",
            "1e999999999",
            "",
            "--5",
            "5kg",
        ] {
            assert_eq!(
                canonical(Kind::Number, Value::Text(text_form)),
                canonical(Kind::Text, Value::Text(text_form))
            );
        }
        assert_eq!(canonical(Kind::Number, Value::Float(-0.0)).unwrap(), "0");
        assert_eq!(canonical(Kind::Number, Value::Float(4200.0)).unwrap(), "4200");
        assert_eq!(canonical(Kind::Number, Value::Float(f64::NAN)), None);
        assert_eq!(canonical(Kind::Text, Value::Float(f64::INFINITY)), None);
        assert_eq!(canonical(Kind::Number, Value::Float(f64::MAX)).unwrap().len(), 309);
        assert_eq!(
            canonical(Kind::Number, Value::Integer(i128::MIN)).unwrap(),
            i128::MIN.to_string()
        );
    }

    #[test]
    fn dates_agree_however_they_are_written() {
        for same in [
            "1990-01-02",
            "1990-1-2",
            "1990/01/02",
            "02/01/1990",
            "2.1.1990",
            "19900102",
            "2 January 1990",
            "January 2, 1990",
            "Jan 2nd 1990",
            "2-Jan-1990",
            "1990-01-02T03:04:05Z",
            "1990-01-02 03:04:05.5+02:00",
        ] {
            assert_eq!(text(Kind::Date, same), "1990-01-02", "{same}");
        }
        assert_eq!(text(Kind::Date, "01/31/1990"), "1990-01-31");
        assert_eq!(canonical(Kind::Date, Value::Integer(19_900_102)).unwrap(), "1990-01-02");
        for text_form in [
            "1990-13-40",
            "1990-02-30",
            "1990-01-02x",
            "yesterday",
            "1/2/90",
            "1990-01/02",
        ] {
            assert_eq!(text(Kind::Date, text_form), text_form);
        }
    }

    #[test]
    fn phones_agree_however_they_are_written() {
        for same in [
            "+1 (555) 010-2030",
            "1-555-010-2030",
            "001 555 010 2030",
            "tel:+15550102030",
            "1.555.010.2030",
        ] {
            assert_eq!(text(Kind::Phone, same), "15550102030", "{same}");
        }
        assert_eq!(text(Kind::Phone, "+44 (0)20 7946 0958"), "442079460958");
        assert_eq!(text(Kind::Phone, "555-0102"), "5550102");
        for text_form in ["call me", "123", "0000", "1+2345", "1-800-flowers"] {
            assert_eq!(text(Kind::Phone, text_form), text_form);
        }
    }

    #[test]
    fn ids_stay_as_written() {
        assert_eq!(text(Kind::Id, " aB-02134 "), "aB-02134");
        assert_ne!(text(Kind::Id, "02134"), text(Kind::Id, "2134"));
    }

    proptest! {
        #[test]
        fn idempotent(any in ".{0,24}", near in "[-+0-9 .,'/()$eTan\u{301}\u{a0}\u{df}]{0,16}") {
            for kind in KINDS {
                for written in [&any, &near] {
                    if let Some(once) = canonical(kind, Value::Text(written)) {
                        prop_assert_eq!(canonical(kind, Value::Text(&once)), Some(once));
                    }
                }
            }
        }

        #[test]
        fn number_forms_agree(whole in 0_u64..1_000_000_000, cents in 0_u64..100) {
            let plain = format!("{whole}.{cents:02}");
            let grouped = |separator: char, point: char| {
                let digits = whole.to_string();
                let mut out = String::new();
                for (i, digit) in digits.chars().enumerate() {
                    if i > 0 && (digits.len() - i) % 3 == 0 {
                        out.push(separator);
                    }
                    out.push(digit);
                }
                format!("{out}{point}{cents:02}")
            };
            let expected = text(Kind::Number, &plain);
            prop_assert_eq!(&text(Kind::Number, &grouped(',', '.')), &expected);
            prop_assert_eq!(&text(Kind::Number, &grouped('.', ',')), &expected);
            prop_assert_eq!(&text(Kind::Number, &grouped(' ', ',')), &expected);
            let float: f64 = plain.parse().unwrap();
            prop_assert_eq!(canonical(Kind::Number, Value::Float(float)).unwrap(), expected);
        }
    }
}
