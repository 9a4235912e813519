//! What was observed of one person.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use provenance::config::Config;
use provenance::inventory::canonical_category;
use provenance::store::{EventQuery, Reader, StoredEvent};
use provenance::{Error, Owner, Timestamp};
use serde::Serialize;

use super::{Seen, Tally, count, each_event, outcome, short, special, text};

/// Most events of one person that are read.
const MOST: usize = 50_000;

/// What every answer about a person says of itself.
pub(crate) const NOTE: &str = "This answer holds no copy of the data: it says what was observed of this person's data, \
    under pseudonyms. It does not prove absence.";

/// What was observed of one person, by category.
#[derive(Debug, Serialize)]
pub(crate) struct Person {
    pub(crate) note: &'static str,
    pub(crate) as_of: Timestamp,
    /// The pseudonyms that are known to be this person's, the one that was asked for first.
    pub(crate) identifiers: Vec<String>,
    pub(crate) events: usize,
    /// Whether these are all events.
    pub(crate) complete: bool,
    pub(crate) categories: Vec<Category>,
    pub(crate) recipients: Vec<Told>,
    /// Who looked this person up before.
    pub(crate) asked: Vec<Asked>,
}

/// What was observed of the values of one category.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Category {
    pub(crate) category: String,
    /// Why it is protected more than others.
    pub(crate) special: Option<&'static str>,
    pub(crate) fields: BTreeSet<String>,
    pub(crate) descriptions: BTreeSet<String>,
    /// Where it came in, or what it was derived by.
    pub(crate) from: Tally,
    /// Tables.
    pub(crate) stored: Tally,
    /// What was derived from it.
    pub(crate) used_for: Tally,
    /// Recipients.
    pub(crate) shared: Tally,
    pub(crate) purposes: BTreeSet<String>,
}

/// Who was told.
#[derive(Debug, Serialize)]
pub(crate) struct Told {
    pub(crate) recipient: String,
    pub(crate) legal_name: Option<String>,
    pub(crate) role: Option<String>,
    pub(crate) country: Option<String>,
    pub(crate) safeguard: Option<String>,
    pub(crate) declared: bool,
    pub(crate) categories: BTreeSet<String>,
    pub(crate) purposes: BTreeSet<String>,
    pub(crate) legal_bases: BTreeSet<String>,
    /// How the shares ended: `status 201`, `blocked`, ...
    pub(crate) outcomes: BTreeMap<String, u64>,
    #[serde(flatten)]
    pub(crate) seen: Seen,
}

/// One look into this person's evidence.
#[derive(Debug, Serialize)]
pub(crate) struct Asked {
    pub(crate) at: Timestamp,
    pub(crate) by: String,
    pub(crate) what: String,
    pub(crate) reason: String,
}

/// What was observed of the person with this identifier.
pub(crate) fn of(reader: &mut Reader, owner: &Owner, config: &Config) -> Result<Person, Error> {
    let mut identifiers = reader.identifiers(owner.as_str())?;
    identifiers.sort_by_key(|identifier| identifier != owner.as_str());
    let own: HashSet<String> = identifiers.iter().cloned().collect();
    let mut person = Person {
        note: NOTE,
        as_of: Timestamp::now(),
        identifiers,
        events: 0,
        complete: true,
        categories: Vec::new(),
        recipients: Vec::new(),
        asked: Vec::new(),
    };
    let (mut categories, mut recipients) = (BTreeMap::new(), BTreeMap::new());
    // An event may name one person by two identifiers.
    let mut known = HashSet::new();
    for identifier in person.identifiers.clone() {
        let query = EventQuery {
            owner: Some(identifier),
            ..EventQuery::default()
        };
        let complete = each_event(reader, &query, MOST, |event| {
            if !known.insert(event.event_id.clone()) {
                return;
            }
            if event.event_type == "AUDIT_ACCESS" {
                person.asked.push(Asked::of(&event));
                return;
            }
            if take(&mut categories, &mut recipients, &event, &own, config) {
                person.events += 1;
            }
        })?;
        person.complete &= complete;
    }
    person.asked.sort_by_key(|asked| std::cmp::Reverse(asked.at));
    person.categories = categories.into_values().collect();
    person.recipients = recipients.into_values().collect();
    person
        .recipients
        .sort_by_key(|told: &Told| (told.declared, told.recipient.clone()));
    Ok(person)
}

/// Only tags of this person count: an event may be about several.
fn take(
    categories: &mut BTreeMap<String, Category>,
    recipients: &mut BTreeMap<String, Told>,
    event: &StoredEvent,
    own: &HashSet<String>,
    config: &Config,
) -> bool {
    let at = event.created_at;
    let of_event = own.contains(text(&event.extras, "owner"));
    let tags: Vec<_> = event
        .matched_tags
        .iter()
        .filter(|tag| match text(tag, "owner") {
            "" => of_event,
            owner => own.contains(owner),
        })
        .collect();
    let purpose = text(&event.extras, "purpose");
    let recipient = text(&event.extras, "recipient");
    // A value that stands in several places of one event is one value.
    let mut names = BTreeSet::new();
    for tag in &tags {
        // Of several spellings of one category the newest is shown.
        let name = short(text(tag, "category"));
        let canonical = canonical_category(name);
        let is_new = names.insert(name.to_owned());
        let category = categories
            .entry(canonical.clone().into_owned())
            .or_insert_with(|| Category {
                category: name.to_owned(),
                special: special(&canonical),
                ..Category::default()
            });
        category.fields.insert(text(tag, "field").to_owned());
        let description = text(tag, "description");
        if !description.is_empty() {
            category.descriptions.insert(description.to_owned());
        }
        if !is_new {
            continue;
        }
        if !purpose.is_empty() {
            category.purposes.insert(purpose.to_owned());
        }
        let target = event.target.as_deref().unwrap_or("");
        match event.event_type.as_str() {
            "DATA_COLLECTION" => count(&mut category.from, &event.actor, at),
            "DATA_STORAGE" => count(&mut category.stored, target.strip_prefix("db:").unwrap_or(target), at),
            "DATA_DERIVATION" if text(tag, "role") == "result" => count(&mut category.from, target, at),
            "DATA_DERIVATION" => count(&mut category.used_for, target, at),
            "DATA_SHARE" => count(&mut category.shared, recipient, at),
            _ => {}
        }
    }
    if event.event_type == "DATA_SHARE" && !tags.is_empty() {
        let told = recipients
            .entry(recipient.to_owned())
            .or_insert_with(|| Told::of(event, recipient, config));
        told.seen.again(at);
        told.categories.extend(names);
        let basis = text(&event.extras, "basis");
        for (known, new) in [(&mut told.purposes, purpose), (&mut told.legal_bases, basis)] {
            if !new.is_empty() {
                known.insert(new.to_owned());
            }
        }
        *told.outcomes.entry(outcome(event)).or_default() += 1;
    }
    !tags.is_empty() || of_event
}

impl Told {
    /// What the configuration says, or else what it said when the event was recorded.
    fn of(event: &StoredEvent, recipient: &str, config: &Config) -> Self {
        let known = config.recipients.get(recipient);
        let then = |key: &str| Some(text(&event.extras, key).to_owned()).filter(|text| !text.is_empty());
        let declared_then = event
            .extras
            .get("recipient_declared")
            .and_then(serde_json::Value::as_bool);
        Told {
            recipient: recipient.to_owned(),
            legal_name: known.and_then(|known| known.legal_name.clone()),
            role: known
                .and_then(|known| known.role.clone())
                .or_else(|| then("recipient_role")),
            country: known
                .and_then(|known| known.country.clone())
                .or_else(|| then("recipient_country")),
            safeguard: known
                .and_then(|known| known.safeguard.clone())
                .or_else(|| then("recipient_safeguard")),
            declared: known.is_some() || declared_then == Some(true),
            categories: BTreeSet::new(),
            purposes: BTreeSet::new(),
            legal_bases: BTreeSet::new(),
            outcomes: BTreeMap::new(),
            seen: Seen::at(event.created_at),
        }
    }
}

impl Asked {
    pub(crate) fn of(event: &StoredEvent) -> Self {
        Asked {
            at: event.created_at,
            by: event.actor.strip_prefix("audit:").unwrap_or(&event.actor).to_owned(),
            what: event.target.clone().unwrap_or_default(),
            reason: text(&event.extras, "reason").to_owned(),
        }
    }
}
