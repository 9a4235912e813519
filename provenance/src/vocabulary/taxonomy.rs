//! The keys of Fideslang's taxonomy: data categories, data uses, data subjects. `fideslang.txt` holds
//! them, with where they come from.

use std::sync::LazyLock;

/// Name and version, as a literal: inventories are put together with `concat!`.
macro_rules! name_and_version {
    () => {
        "fideslang 3.1.4"
    };
}
pub(crate) use name_and_version;

/// Name and version of the taxonomy, as inventories and `/status` carry it.
pub const TAXONOMY: &str = name_and_version!();

static KEYS: LazyLock<Keys> = LazyLock::new(|| Keys::read(include_str!("fideslang.txt")));

/// The keys by section, each sorted.
#[derive(Default)]
struct Keys {
    data_categories: Vec<&'static str>,
    data_uses: Vec<&'static str>,
    data_subjects: Vec<&'static str>,
}

impl Keys {
    fn read(file: &'static str) -> Self {
        let mut keys = Keys::default();
        let mut section = "";
        for line in file.lines() {
            match (line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')), section) {
                (Some(name), _) => section = name,
                (None, _) if line.is_empty() => {}
                (None, "data_categories") => keys.data_categories.push(line),
                (None, "data_uses") => keys.data_uses.push(line),
                (None, "data_subjects") => keys.data_subjects.push(line),
                (None, _) => {}
            }
        }
        keys
    }
}

/// Every data category in full, sorted: `user.contact.email`.
pub(crate) fn categories() -> &'static [&'static str] {
    &KEYS.data_categories
}

/// Whether `written` is a data use of Fideslang, or an own one below `x.`.
pub fn is_known_use(written: &str) -> bool {
    is_own(written) || KEYS.data_uses.binary_search(&written).is_ok()
}

/// The data use that is nearest to `written`, where one is near.
pub fn nearest_use(written: &str) -> Option<&'static str> {
    nearest(written, KEYS.data_uses.iter().copied())
}

/// Whether `written` is a data subject of Fideslang, or an own one below `x.`.
pub fn is_known_subject(written: &str) -> bool {
    is_own(written) || KEYS.data_subjects.binary_search(&written).is_ok()
}

/// The data subject that is nearest to `written`, where one is near.
pub fn nearest_subject(written: &str) -> Option<&'static str> {
    nearest(written, KEYS.data_subjects.iter().copied())
}

/// The key with the fewest slips of the pen between it and `written`; where none is near, the
/// deepest key that `written` lies below (`marketing.newsletter`: `marketing`).
pub(crate) fn nearest(written: &str, keys: impl Iterator<Item = &'static str> + Clone) -> Option<&'static str> {
    let written = written.trim().to_ascii_lowercase();
    // Longer than any key: not worth the comparison.
    if written.len() > 256 {
        return None;
    }
    let reach = (written.len() / 4).clamp(1, 5);
    let alike = keys
        .clone()
        .map(|key| (strsim::damerau_levenshtein(&written, key), key))
        .filter(|(distance, _)| *distance <= reach)
        .min();
    let above = |key: &&str| written.strip_prefix(key).is_some_and(|rest| rest.starts_with('.'));
    match alike {
        Some((_, key)) => Some(key),
        None => keys.filter(above).max_by_key(|key| key.len()),
    }
}

fn is_own(written: &str) -> bool {
    written.strip_prefix("x.").is_some_and(|rest| !rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_sorted_and_whole() {
        let count = [&KEYS.data_categories, &KEYS.data_uses, &KEYS.data_subjects].map(|keys| {
            assert!(keys.is_sorted(), "{keys:?}");
            let is_key = |key: &&str| {
                key.starts_with(|c: char| c.is_ascii_lowercase())
                    && key
                        .bytes()
                        .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.'))
            };
            assert!(keys.iter().all(is_key), "{keys:?}");
            keys.len()
        });
        assert_eq!(count, [85, 54, 15]);
    }

    #[test]
    fn the_version_is_the_files() {
        let version = include_str!("fideslang.txt")
            .lines()
            .find_map(|line| line.strip_prefix("version "));
        assert_eq!(version, Some(TAXONOMY));
    }

    #[test]
    fn uses_and_subjects_are_known_or_told_the_nearest() {
        assert!(is_known_use("marketing.communications.email") && is_known_use("x.science"));
        assert!(!is_known_use("marketing.newsletter") && !is_known_use("x.") && !is_known_use(""));
        assert_eq!(
            nearest_use("marketing.comunications.email"),
            Some("marketing.communications.email")
        );
        assert_eq!(nearest_use("marketing.newsletter"), Some("marketing"));
        assert_eq!(
            nearest_use("essential.service.authentication.by_phone"),
            Some("essential.service.authentication")
        );
        assert_eq!(nearest_use("zzz"), None);
        assert!(is_known_subject("customer") && !is_known_subject("costumer"));
        assert_eq!(nearest_subject("costumer"), Some("customer"));
        assert_eq!(nearest_subject(&"customer".repeat(1000)), None);
    }
}
