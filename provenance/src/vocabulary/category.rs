//! Categories of personal data: fideslang's keys, the shorthand without `user.`, the
//! predecessor's aliases, and own keys below `x.`.

use std::borrow::Cow;

use super::Kind;
use crate::allow::{ALIASES, Key};

/// `[a-z][a-z0-9_]*` segments joined by dots, at least two, at most 128 bytes.
pub(crate) fn is_well_formed(category: &str) -> bool {
    let segment = |segment: &str| {
        segment.starts_with(|c: char| c.is_ascii_lowercase())
            && segment
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    category.len() <= 128 && category.contains('.') && category.split('.').all(segment)
}

/// The canonical key: `contact.email` -> `user.contact.email`, `personal.name` -> `user.name`.
///
/// Every key but `x.` and `system.` ones lives below `user.`, unknown ones too: `score.credit`
/// and `user.score.credit` mean the same.
pub fn canonical(written: &str) -> Cow<'_, str> {
    let Key { head, tail } = Key::of(written);
    match (head, tail) {
        ("", tail) => Cow::Borrowed(tail),
        (head, "") => Cow::Borrowed(head),
        (head, tail) => Cow::Owned(format!("{head}{tail}")),
    }
}

/// Whether two categories, as written, mean the same.
pub(crate) fn same(a: &str, b: &str) -> bool {
    a == b || canonical(a) == canonical(b)
}

/// Whether `written` is a known fideslang key, an alias, or an own key (`x.`).
pub fn is_known(written: &str) -> bool {
    if !is_well_formed(written) {
        return false;
    }
    let canonical = canonical(written);
    written.starts_with("x.")
        || written.starts_with("preferences.")
        || FIDESLANG.binary_search(&&*canonical).is_ok()
        || OWN.contains(&&*canonical)
}

/// The known key that is nearest to `written`, where one is near. In the same style: without
/// `user.` where that was left out.
pub fn nearest(written: &str) -> Option<&'static str> {
    let written = written.trim().to_ascii_lowercase();
    let full = written.starts_with("user.") || written.starts_with("system.");
    let keys = FIDESLANG
        .iter()
        .chain(OWN)
        .copied()
        .filter_map(|key| match key.strip_prefix("user.") {
            Some(short) if !full => short.contains('.').then_some(short),
            _ => Some(key),
        });
    let aliases = ALIASES.iter().map(|(alias, _)| *alias);
    let reach = (written.len() / 4).clamp(1, 5);
    keys.chain(aliases)
        .map(|key| (strsim::damerau_levenshtein(&written, key), key))
        .filter(|(distance, _)| *distance <= reach)
        .min()
        .map(|(_, key)| key)
}

/// The kind that values of this category have unless the field says otherwise.
pub(crate) fn default_kind(written: &str) -> Kind {
    let canonical = canonical(written);
    let last = canonical.rsplit('.').next().unwrap_or_default();
    let below = |prefix: &str| {
        canonical
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    match last {
        "email" => Kind::Email,
        "phone" | "phone_number" | "fax_number" | "mobile" => Kind::Phone,
        "income" | "amount" | "salary" | "expense" | "balance" | "price" => Kind::Number,
        "birthday" | "date_of_birth" | "birth_date" | "dob" | "date" => Kind::Date,
        // As written: a leading zero of a postal code, the case of a password.
        "id" | "postal_code" | "username" | "bank_account" | "credit_card" | "iban" | "ip_address" => Kind::Id,
        id if id.ends_with("_id") => Kind::Id,
        _ if [
            "user.authorization",
            "user.security",
            "user.government_id",
            "user.unique_id",
        ]
        .into_iter()
        .any(below) =>
        {
            Kind::Id
        }
        _ => Kind::Text,
    }
}

/// Whether values of this category, or under this field name, are secrets.
///
/// Names count by whole words (`card_pin`, `apiKey`; not `pinned` or `tokenizer`).
pub(crate) fn is_secret(written: &str, field: &str) -> bool {
    let canonical = canonical(written);
    if written.starts_with("security.")
        || canonical.starts_with("user.authorization.")
        || canonical == "user.authorization"
    {
        return true;
    }
    let words = words(field);
    words.iter().any(|word| SECRET_WORDS.contains(&word.as_str()))
        || words.windows(2).any(|pair| {
            matches!(
                [pair[0].as_str(), pair[1].as_str()],
                ["api" | "private" | "access" | "secret", "key"]
            )
        })
}

const SECRET_WORDS: &[&str] = &[
    "apikey",
    "credential",
    "credentials",
    "cvc",
    "cvv",
    "otp",
    "passcode",
    "passphrase",
    "passwd",
    "password",
    "pin",
    "pwd",
    "secret",
    "token",
    "totp",
];

/// `userPassword`, `user_password`, `API-Key` -> lower-case words.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before: Option<char> = None;
    let mut rest = name.chars().peekable();
    while let Some(c) = rest.next() {
        // A capital begins a word after a small letter, and as the last of several: `APIKey`.
        let hump = c.is_uppercase()
            && before.is_some_and(|b| !b.is_uppercase() || rest.peek().is_some_and(|next| next.is_lowercase()));
        if hump || !c.is_alphanumeric() {
            words.push(String::new());
        }
        if let (true, Some(word)) = (c.is_alphanumeric(), words.last_mut()) {
            word.extend(c.to_lowercase());
        }
        before = Some(c);
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Keys that fideslang lacks and aliases need.
const OWN: &[&str] = &[
    "user.financial.currency",
    "user.financial.expense",
    "user.financial.income",
];

/// The data categories of Fideslang, the taxonomy by Ethyca and IAB Tech Lab (CC BY 4.0), version 3.1:
/// its keys of two or more segments, sorted.
const FIDESLANG: &[&str] = &[
    "system.authentication",
    "system.operations",
    "user.account",
    "user.account.settings",
    "user.account.username",
    "user.authorization",
    "user.authorization.biometric",
    "user.authorization.credentials",
    "user.authorization.password",
    "user.behavior",
    "user.behavior.browsing_history",
    "user.behavior.media_consumption",
    "user.behavior.purchase_history",
    "user.behavior.search_history",
    "user.biometric",
    "user.biometric.fingerprint",
    "user.biometric.health",
    "user.biometric.retinal",
    "user.biometric.voice",
    "user.childrens",
    "user.contact",
    "user.contact.address",
    "user.contact.address.city",
    "user.contact.address.country",
    "user.contact.address.postal_code",
    "user.contact.address.state",
    "user.contact.address.street",
    "user.contact.email",
    "user.contact.fax_number",
    "user.contact.organization",
    "user.contact.phone_number",
    "user.contact.url",
    "user.content",
    "user.content.private",
    "user.content.public",
    "user.content.self_image",
    "user.criminal_history",
    "user.demographic",
    "user.demographic.age_range",
    "user.demographic.date_of_birth",
    "user.demographic.gender",
    "user.demographic.language",
    "user.demographic.marital_status",
    "user.demographic.political_opinion",
    "user.demographic.profile",
    "user.demographic.race_ethnicity",
    "user.demographic.religious_belief",
    "user.demographic.sexual_orientation",
    "user.device",
    "user.device.cookie",
    "user.device.cookie_id",
    "user.device.device_id",
    "user.device.ip_address",
    "user.financial",
    "user.financial.bank_account",
    "user.financial.credit_card",
    "user.government_id",
    "user.government_id.birth_certificate",
    "user.government_id.drivers_license_number",
    "user.government_id.immigration",
    "user.government_id.national_identification_number",
    "user.government_id.passport_number",
    "user.government_id.vehicle_registration",
    "user.health_and_medical",
    "user.health_and_medical.genetic",
    "user.health_and_medical.insurance_beneficiary_id",
    "user.health_and_medical.record_id",
    "user.job_title",
    "user.location",
    "user.location.imprecise",
    "user.location.precise",
    "user.name",
    "user.name.first",
    "user.name.last",
    "user.payment",
    "user.privacy_preferences",
    "user.sensor",
    "user.social",
    "user.telemetry",
    "user.unique_id",
    "user.unique_id.pseudonymous",
    "user.user_sensor",
    "user.workplace",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted_and_well_formed() {
        assert!(FIDESLANG.is_sorted());
        assert!(ALIASES.is_sorted());
        assert!(FIDESLANG.iter().chain(OWN).all(|key| is_well_formed(key)));
        assert!(
            ALIASES
                .iter()
                .all(|(alias, key)| is_well_formed(alias) && is_known(key) && is_known(alias))
        );
    }

    #[test]
    fn syntax() {
        for good in ["contact.email", "user.contact.email", "x.a1_b", "score.credit"] {
            assert!(is_well_formed(good), "{good}");
        }
        let long = format!("x.{}", "a".repeat(127));
        for bad in [
            "",
            "email",
            "contact.",
            ".email",
            "contact..email",
            "Contact.email",
            "contact.e-mail",
            "1a.b",
            "a._b",
            &long,
        ] {
            assert!(!is_well_formed(bad), "{bad}");
        }
    }

    #[test]
    fn aliases_and_shorthand_agree() {
        assert_eq!(canonical("contact.email"), "user.contact.email");
        assert_eq!(canonical("personal.name"), "user.name");
        assert_eq!(canonical("personal.birthday"), "user.demographic.date_of_birth");
        assert_eq!(canonical("security.password"), "user.authorization.password");
        assert_eq!(canonical("financial.income"), "user.financial.income");
        assert_eq!(canonical("x.loyalty"), "x.loyalty");
        assert!(same("contact.phone", "user.contact.phone_number"));
        assert!(same("score.credit", "user.score.credit"));
        assert!(!same("preferences.goals", "preferences.week_start"));
    }

    #[test]
    fn known_and_nearest() {
        for known in [
            "contact.email",
            "user.contact.email",
            "preferences.goals",
            "x.anything",
            "financial.income",
        ] {
            assert!(is_known(known), "{known}");
        }
        for unknown in ["score.credit", "contact.emial", "email", "user.nothing"] {
            assert!(!is_known(unknown), "{unknown}");
        }
        assert_eq!(nearest("contact.emial"), Some("contact.email"));
        assert_eq!(nearest("user.contact.emial"), Some("user.contact.email"));
        assert_eq!(nearest("personal.nmae"), Some("personal.name"));
        assert_eq!(nearest("zzz.qqqqqq"), None);
    }

    #[test]
    fn kinds() {
        for (category, kind) in [
            ("contact.email", Kind::Email),
            ("personal.email", Kind::Email),
            ("contact.phone", Kind::Phone),
            ("financial.income", Kind::Number),
            ("x.order.amount", Kind::Number),
            ("personal.birthday", Kind::Date),
            ("contact.address.postal_code", Kind::Id),
            ("device.device_id", Kind::Id),
            ("government_id.passport_number", Kind::Id),
            ("security.password", Kind::Id),
            ("personal.name", Kind::Text),
            ("score.credit", Kind::Text),
        ] {
            assert_eq!(default_kind(category), kind, "{category}");
        }
    }

    #[test]
    fn secrets_by_category_and_whole_words() {
        assert!(is_secret("security.anything", "x"));
        assert!(is_secret("user.authorization.credentials", "x"));
        for field in [
            "password",
            "userPassword",
            "new_password",
            "apiKey",
            "API_KEY",
            "APIKey",
            "card-pin",
            "CVV",
            "refreshToken",
        ] {
            assert!(is_secret("contact.email", field), "{field}");
        }
        for field in [
            "email",
            "pinned",
            "tokenizer",
            "spin",
            "keynote",
            "secretary",
            "access",
            "",
        ] {
            assert!(!is_secret("contact.email", field), "{field}");
        }
    }
}
