//! A Fides manifest (<https://ethyca.github.io/fideslang/>): what was observed, as datasets and systems in YAML.
//!
//! Each service is a system with a dataset for the tables that it stored into; each recipient is a system, too. What no
//! event says reads `TO_COMPLETE`. A category that fideslang does not have is replaced by the nearest one above it,
//! and stands in the description.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write as _;
use std::io::Write;

use provenance::config::Recipient;
use provenance::inventory::{canonical_category, in_fideslang};
use provenance::store::{EventQuery, Reader, StoredEvent};
use serde_json::{Map, Value as Json, json};

use super::{Error, each_event};
use crate::answers::{Profile, is_personal, text, was_kept_in};

/// What only people can say.
const TO_COMPLETE: &str = "TO_COMPLETE";
/// Most names of one sort that a manifest lists: an application has hundreds, and a fault may make millions.
const MOST: usize = 10_000;

/// Writes one YAML document.
///
/// # Errors
/// [`Error`].
pub fn manifest(
    reader: &mut Reader,
    query: &EventQuery,
    recipients: &BTreeMap<String, Recipient>,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(),
) -> Result<(), Error> {
    let mut seen = Seen::default();
    each_event(reader, query, |event| {
        progress();
        seen.see(&event, recipients);
        Ok::<_, Error>(())
    })?;
    let mut text = String::from("# What was observed; TO_COMPLETE is for people to say.\n");
    yaml(&mut text, &seen.manifest(), 0);
    Ok(out.write_all(text.as_bytes())?)
}

#[derive(Default)]
struct Seen {
    services: BTreeMap<String, Service>,
    recipients: BTreeMap<String, Profile>,
}

#[derive(Default)]
struct Service {
    /// Table, column: what is known of it.
    tables: BTreeMap<String, BTreeMap<String, Field>>,
    /// By data use and purpose.
    activities: BTreeMap<(String, String), Activity>,
    /// Recipient: what it got.
    sent: BTreeMap<String, BTreeSet<String>>,
}

#[derive(Default)]
struct Field {
    categories: BTreeSet<String>,
    description: String,
}

#[derive(Default)]
struct Activity {
    categories: BTreeSet<String>,
    subjects: BTreeSet<String>,
    recipients: BTreeSet<String>,
    shared: BTreeSet<String>,
}

impl Seen {
    fn see(&mut self, event: &StoredEvent, recipients: &BTreeMap<String, Recipient>) {
        if !event.event_type.starts_with("DATA_") || event.event_type == "DATA_ERASURE" || event.matched_tags.is_empty()
        {
            return;
        }
        let service = text(&event.extras, "service");
        if self.services.len() >= MOST && !self.services.contains_key(service) {
            return;
        }
        let service = self.services.entry(service.to_owned()).or_default();
        let categories: BTreeSet<String> = event
            .matched_tags
            .iter()
            .filter(|tag| is_personal(tag))
            .map(|tag| canonical_category(text(tag, "category")).into_owned())
            .collect();
        let table = event.target.as_deref().and_then(|target| target.strip_prefix("db:"));
        if let (Some(table), "DATA_STORAGE") = (table, event.event_type.as_str())
            && (service.tables.len() < MOST || service.tables.contains_key(table))
        {
            let columns = service.tables.entry(table.to_owned()).or_default();
            for tag in event.matched_tags.iter().take(MOST) {
                let column = columns.entry(text(tag, "field").to_owned()).or_default();
                column
                    .categories
                    .insert(canonical_category(text(tag, "category")).into_owned());
                text(tag, "description").clone_into(&mut column.description);
            }
        }
        let key = (
            text(&event.extras, "data_use").to_owned(),
            text(&event.extras, "purpose").to_owned(),
        );
        if service.activities.len() >= MOST && !service.activities.contains_key(&key) {
            return;
        }
        let activity = service.activities.entry(key).or_default();
        activity.categories.extend(categories.iter().cloned());
        let subject = text(&event.extras, "subject");
        if !subject.is_empty() {
            activity.subjects.insert(subject.to_owned());
        }
        if event.event_type == "DATA_SHARE" && !was_kept_in(event) {
            let recipient = text(&event.extras, "recipient").to_owned();
            if self.recipients.len() < MOST {
                self.recipients
                    .entry(recipient.clone())
                    .or_insert_with(|| Profile::of(event, recipients));
            }
            // As it is known already, where it is one too many.
            if self.recipients.contains_key(&recipient) {
                activity.recipients.insert(recipient.clone());
                activity.shared.extend(categories.iter().cloned());
                service.sent.entry(recipient).or_default().extend(categories);
            }
        }
    }

    fn manifest(&self) -> Json {
        let mut keys = Keys::default();
        let services: Vec<_> = self
            .services
            .iter()
            .map(|(name, service)| (name, service, keys.make(name), keys.make(&format!("{name}_db"))))
            .collect();
        let recipients: BTreeMap<&str, String> = self
            .recipients
            .keys()
            .map(|name| (name.as_str(), keys.make(name)))
            .collect();
        let datasets: Vec<Json> = services
            .iter()
            .filter(|(_, service, ..)| !service.tables.is_empty())
            .map(|(name, service, _, key)| service.dataset(name, key))
            .collect();
        let mut systems: Vec<Json> = services
            .iter()
            .map(|(name, service, key, dataset)| service.system(name, key, dataset, &recipients))
            .collect();
        systems.extend(self.recipients.iter().map(|(name, profile)| {
            let key = recipients.get(name.as_str()).map_or(TO_COMPLETE, String::as_str);
            recipient(name, key, profile)
        }));
        json!({ "dataset": datasets, "system": systems })
    }
}

impl Service {
    fn dataset(&self, name: &str, key: &str) -> Json {
        let collections: Vec<_> = self
            .tables
            .iter()
            .map(|(table, columns)| {
                let fields: Vec<_> = columns
                    .iter()
                    .map(|(column, field)| {
                        json!({
                            "name": column,
                            "description": described(&field.description, &field.categories),
                            "data_categories": known(&field.categories),
                        })
                    })
                    .collect();
                json!({ "name": table, "fields": fields })
            })
            .collect();
        json!({
            "fides_key": key,
            "name": format!("{name}: database"),
            "description": "Columns into which personal data was seen to be stored",
            "collections": collections,
        })
    }

    fn system(&self, name: &str, key: &str, dataset: &str, recipients: &BTreeMap<&str, String>) -> Json {
        let key_of = |recipient: &String| recipients.get(recipient.as_str()).cloned();
        let egress: Vec<_> = self
            .sent
            .iter()
            .filter_map(|(recipient, categories)| {
                Some(json!({ "fides_key": key_of(recipient)?, "type": "system", "data_categories": known(categories) }))
            })
            .collect();
        let declarations: Vec<_> = self
            .activities
            .iter()
            .map(|((data_use, purpose), activity)| {
                let name = match (purpose.as_str(), data_use.as_str()) {
                    ("", "") => "TO_COMPLETE: processing without a declared purpose",
                    ("", data_use) => data_use,
                    (purpose, _) => purpose,
                };
                let mut declaration = json!({
                    "name": name,
                    "data_categories": known(&activity.categories),
                    "data_use": key_of_text(data_use),
                    "data_subjects": match activity.subjects.is_empty() {
                        true => vec![TO_COMPLETE.to_owned()],
                        false => activity.subjects.iter().map(|subject| key_of_text(subject)).collect(),
                    },
                    "data_shared_with_third_parties": !activity.recipients.is_empty(),
                });
                if let (Some(declaration), false) = (declaration.as_object_mut(), activity.recipients.is_empty()) {
                    let egress: Vec<_> = activity.recipients.iter().filter_map(key_of).collect();
                    declaration.insert("egress".to_owned(), json!(egress));
                    declaration.insert("shared_categories".to_owned(), json!(known(&activity.shared)));
                    let parties: Vec<_> = activity.recipients.iter().map(String::as_str).collect();
                    declaration.insert("third_parties".to_owned(), parties.join(", ").into());
                }
                declaration
            })
            .collect();
        let mut system = json!({
            "fides_key": key,
            "name": name,
            "description": "What its hooks observed",
            "system_type": "Service",
            "privacy_declarations": declarations,
        });
        if let Some(system) = system.as_object_mut() {
            if !egress.is_empty() {
                system.insert("egress".to_owned(), egress.into());
            }
            if !self.tables.is_empty() {
                system.insert("dataset_references".to_owned(), json!([dataset]));
            }
        }
        system
    }
}

fn recipient(name: &str, key: &str, profile: &Profile) -> Json {
    let said = |said: &Option<String>| said.clone().unwrap_or_else(|| TO_COMPLETE.to_owned());
    let mut description = format!("Recipient; role: {}", said(&profile.role));
    let _ = write!(
        description,
        "; country: {}; safeguard: {}{}",
        said(&profile.country),
        said(&profile.safeguard),
        if profile.declared { "" } else { "; UNDECLARED" }
    );
    json!({
        "fides_key": key,
        "name": name,
        "description": description,
        "system_type": "Third Party",
        "legal_name": said(&profile.legal_name),
        "privacy_declarations": [],
    })
}

/// Categories as fideslang has them.
fn known(categories: &BTreeSet<String>) -> BTreeSet<&'static str> {
    categories.iter().map(|category| in_fideslang(category)).collect()
}

/// The description, with the categories that fideslang does not have.
fn described(description: &str, categories: &BTreeSet<String>) -> String {
    let own: Vec<_> = categories
        .iter()
        .filter(|category| in_fideslang(category) != category.as_str())
        .map(String::as_str)
        .collect();
    match (description, own.is_empty()) {
        (description, true) => description.to_owned(),
        ("", false) => format!("({})", own.join(", ")),
        (description, false) => format!("{description} ({})", own.join(", ")),
    }
}

/// A key of the taxonomy, or what is to be completed.
fn key_of_text(text: &str) -> String {
    let key: String = text
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') {
                c
            } else {
                '_'
            }
        })
        .collect();
    if key.is_empty() { TO_COMPLETE.to_owned() } else { key }
}

/// Keys of resources, none twice.
#[derive(Default)]
struct Keys(HashSet<String>);

impl Keys {
    fn make(&mut self, name: &str) -> String {
        // `user` means the people who use a system.
        let key = match key_of_text(name).as_str() {
            "user" => "user_".to_owned(),
            key => key.to_owned(),
        };
        let mut made = key.clone();
        let mut number = 1_u32;
        while !self.0.insert(made.clone()) {
            number += 1;
            made = format!("{key}_{number}");
        }
        made
    }
}

/// A document in block style. Every text is quoted, so that none is taken for a number, a date or a word of YAML's.
fn yaml(out: &mut String, value: &Json, depth: usize) {
    let indent = "  ".repeat(depth);
    match value {
        Json::Object(members) => {
            // What names a thing comes first.
            let names_it = |name: &str| matches!(name, "fides_key" | "name");
            let (first, rest): (Vec<_>, Vec<_>) = members.iter().partition(|(name, _)| names_it(name));
            for (name, member) in first.into_iter().chain(rest) {
                let _ = write!(out, "{indent}{name}:");
                below(out, member, depth);
            }
        }
        Json::Array(elements) => {
            for element in elements {
                match element {
                    Json::Object(members) if !members.is_empty() => {
                        let mut lines = String::new();
                        yaml(&mut lines, element, depth + 1);
                        // The first member stands behind the dash.
                        let _ = write!(out, "{indent}- {}", lines.trim_start_matches(' '));
                    }
                    element => {
                        let _ = writeln!(out, "{indent}- {}", scalar(element));
                    }
                }
            }
        }
        value => {
            let _ = writeln!(out, "{indent}{}", scalar(value));
        }
    }
}

fn below(out: &mut String, value: &Json, depth: usize) {
    let is_full = value.as_array().is_some_and(|elements| !elements.is_empty())
        || value.as_object().is_some_and(|members: &Map<_, _>| !members.is_empty());
    if is_full {
        out.push('\n');
        yaml(out, value, depth + 1);
    } else {
        let _ = writeln!(out, " {}", scalar(value));
    }
}

/// JSON's scalars are YAML's, but for characters that YAML does not take as they are.
fn scalar(value: &Json) -> String {
    let json = value.to_string();
    let mut yaml = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                let _ = write!(yaml, "\\u{:04x}", u32::from(c));
            }
            c => yaml.push(c),
        }
    }
    yaml
}
