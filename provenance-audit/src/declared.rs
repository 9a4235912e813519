//! What inventory entries say, read with distrust: members that are not of the expected type are not there.

use provenance::inventory::{self, Entry};
use serde_json::{Map, Value as Json};

pub(crate) use crate::shown::{is_bidirectional, shown};

/// A text that is there and not empty.
pub(crate) fn text<'a>(map: &'a Map<String, Json>, key: &str) -> Option<&'a str> {
    map.get(key).and_then(Json::as_str).filter(|text| !text.is_empty())
}

/// The objects of a list: `fields`, `args`.
pub(crate) fn objects<'a>(map: &'a Map<String, Json>, key: &str) -> impl Iterator<Item = &'a Map<String, Json>> {
    list(map, key).iter().filter_map(Json::as_object)
}

/// The texts of a list: `owner`, `allow`.
pub(crate) fn texts<'a>(map: &'a Map<String, Json>, key: &str) -> impl Iterator<Item = &'a str> {
    list(map, key).iter().filter_map(Json::as_str)
}

fn list<'a>(map: &'a Map<String, Json>, key: &str) -> &'a [Json] {
    map.get(key)
        .and_then(Json::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// The keys that every attribute may carry.
pub(crate) const TERMS: [&str; 4] = ["purpose", "basis", "data_use", "subject"];

/// Lists of the taxonomy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Taxon {
    /// What kind of data: `contact.email`.
    Category,
    /// What for: `marketing.communications.email`.
    DataUse,
    /// Whose: `customer`.
    Subject,
}

impl Taxon {
    /// `category`, `data use`, `subject`.
    pub fn word(self) -> &'static str {
        match self {
            Taxon::Category => "category",
            Taxon::DataUse => "data use",
            Taxon::Subject => "subject",
        }
    }

    pub(crate) fn is_known(self, key: &str) -> bool {
        match self {
            Taxon::Category => inventory::is_known_category(key),
            Taxon::DataUse => inventory::is_known_use(key),
            Taxon::Subject => inventory::is_known_subject(key),
        }
    }

    pub(crate) fn nearest(self, key: &str) -> Option<&'static str> {
        match self {
            Taxon::Category => inventory::nearest_category(key),
            Taxon::DataUse => inventory::nearest_use(key),
            Taxon::Subject => inventory::nearest_subject(key),
        }
    }

    /// The key, fit to be shown; with a mark and the nearest known one, if it is not known.
    pub(crate) fn flagged(self, key: &str) -> String {
        match (self.is_known(key), self.nearest(key)) {
            (true, _) => shown(key),
            (false, Some(nearest)) => format!("{} (unknown; did you mean {nearest}?)", shown(key)),
            (false, None) => format!("{} (unknown)", shown(key)),
        }
    }
}

/// A key that the taxonomy does not have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct UnknownKey {
    /// The source file, as in the workspace.
    pub file: Option<String>,
    /// The line of the attribute, or of the field.
    pub line: Option<usize>,
    /// Which of its lists does not have it.
    pub taxon: Taxon,
    /// As written.
    pub key: String,
    /// What is near.
    pub nearest: Option<&'static str>,
    /// The item: `crm::users::User`.
    pub path: String,
    /// The field, where it is a field's.
    pub field: Option<String>,
    /// The package that declares it.
    #[serde(rename = "crate")]
    pub package: Option<String>,
}

impl UnknownKey {
    /// What it stands on: `crm::users::User.email`.
    pub(crate) fn item(&self) -> String {
        match &self.field {
            Some(field) => format!("{}.{field}", self.path),
            None => self.path.clone(),
        }
    }
}

/// Every category, data use and subject that the taxonomy does not have, in order of their places.
pub fn unknown_keys(entries: &[Entry]) -> Vec<UnknownKey> {
    let mut unknown = Vec::new();
    for entry in entries {
        let (file, line) = place(entry);
        let mut ask = |taxon: Taxon, key: Option<&str>, field: Option<&str>| {
            if let Some(key) = key.filter(|key| !taxon.is_known(key)) {
                unknown.push(UnknownKey {
                    file: file.map(str::to_owned),
                    line,
                    taxon,
                    key: key.to_owned(),
                    nearest: taxon.nearest(key),
                    path: entry.path.clone(),
                    field: field.map(str::to_owned),
                    package: entry.package.clone(),
                });
            }
        };
        for field in objects(&entry.rest, "fields") {
            ask(Taxon::Category, text(field, "category"), text(field, "name"));
        }
        ask(Taxon::Category, text(&entry.rest, "category"), None);
        texts(&entry.rest, "allow").for_each(|key| ask(Taxon::Category, Some(key), None));
        ask(Taxon::DataUse, text(&entry.rest, "data_use"), None);
        ask(Taxon::Subject, text(&entry.rest, "subject"), None);
    }
    unknown.sort();
    unknown.dedup();
    unknown
}

/// Source file and line of an entry.
pub(crate) fn place(entry: &Entry) -> (Option<&str>, Option<usize>) {
    let Some(at) = entry.at.as_deref() else {
        return (None, None);
    };
    match at.rsplit_once(':').map(|(file, line)| (file, line.parse())) {
        Some((file, Ok(line))) => (Some(file), Some(line)),
        _ => (Some(at), None),
    }
}
