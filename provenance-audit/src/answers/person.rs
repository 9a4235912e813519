//! What was observed of one person.

use std::collections::{BTreeMap, BTreeSet};

use provenance::config::Config;
use provenance::inventory::canonical_category;
use provenance::store::{EventQuery, Reader, StoredEvent};
use provenance::{Error, Owner, Timestamp};
use serde::Serialize;
use serde_json::{Map, Value as Json};

use super::{Profile, Seen, Tally, each_event, outcome, short, special, text, was_kept_in};

/// Most events of one identifier that are read for a page.
pub(crate) const MOST: usize = 50_000;
/// Most looks that are listed.
const MOST_LOOKS: usize = 1000;

/// What every answer about a person says of itself.
pub(crate) const NOTE: &str = "This answer holds no copy of the data: it says what was observed of this person's data, \
    under pseudonyms. It does not prove absence.";

/// What was observed of one person, by category. No value of theirs is in it.
#[derive(Debug, Serialize)]
pub(crate) struct Person {
    pub(crate) note: &'static str,
    pub(crate) as_of: Timestamp,
    /// The pseudonyms that are known to be this person's, those that were asked for first.
    pub(crate) identifiers: Vec<String>,
    /// Events about the person, in all categories.
    pub(crate) events: u64,
    pub(crate) first_at: Option<Timestamp>,
    pub(crate) last_at: Option<Timestamp>,
    /// Whether these are all events.
    pub(crate) complete: bool,
    pub(crate) categories: Vec<Category>,
    pub(crate) recipients: Vec<Told>,
    /// Who looked this person up before, newest first.
    pub(crate) asked: Vec<Asked>,
}

/// What was observed of the values of one category.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Category {
    /// As the newest event spells it.
    pub(crate) category: String,
    #[serde(skip)]
    #[cfg_attr(not(feature = "cli"), allow(dead_code))]
    pub(crate) canonical: String,
    /// Why it is protected more than others.
    pub(crate) special: Option<&'static str>,
    pub(crate) fields: BTreeSet<String>,
    pub(crate) descriptions: BTreeSet<String>,
    #[serde(skip)]
    #[cfg_attr(not(feature = "cli"), allow(dead_code))]
    pub(crate) sources: BTreeSet<String>,
    /// Where it came in, or what it was derived by.
    pub(crate) from: Tally,
    /// Tables.
    pub(crate) stored: Tally,
    /// What was derived from it.
    pub(crate) used_for: Tally,
    /// Recipients that may have got it.
    pub(crate) shared: Tally,
    pub(crate) purposes: BTreeSet<String>,
    /// The same in detail.
    #[serde(skip)]
    #[cfg_attr(not(feature = "cli"), allow(dead_code))]
    pub(crate) facts: Vec<Fact>,
}

/// What an event did with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verb {
    Collected,
    Stored,
    Derived,
    Shared,
    Other,
}

/// What happened in one place, however often.
#[derive(Debug, Serialize)]
pub(crate) struct Fact {
    #[serde(skip)]
    pub(crate) verb: Verb,
    /// `HTTP POST /signup`, `db:users`, `derived:score.credit`, the recipient.
    pub(crate) place: String,
    /// `insert`, `result`, the type of an own event; empty where there is nothing to say.
    pub(crate) action: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) recipient: Option<Profile>,
    /// Of a share: the addresses, the outcomes and their numbers, the forms in which values were found.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) targets: BTreeSet<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) outcomes: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) forms: BTreeSet<String>,
    /// Of a share: whether anything may have left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) left: Option<bool>,
    pub(crate) purposes: BTreeSet<String>,
    #[serde(flatten)]
    pub(crate) seen: Seen,
    /// The newest event, to be looked up.
    pub(crate) event_id: String,
}

/// Who was told.
#[derive(Debug, Serialize)]
pub(crate) struct Told {
    pub(crate) recipient: String,
    #[serde(flatten)]
    pub(crate) profile: Profile,
    /// Whether anything may have left: `false` where every share was blocked before.
    pub(crate) left: bool,
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
    pub(crate) event_type: String,
    pub(crate) by: String,
    pub(crate) what: String,
    pub(crate) reason: String,
}

/// What was observed of the person with these identifiers, in the newest `most` events of each.
pub(crate) fn of(
    reader: &mut Reader,
    owners: &[Owner],
    config: &Config,
    most: usize,
    progress: &mut dyn FnMut(),
) -> Result<Person, Error> {
    let mut identifiers: Vec<String> = owners.iter().map(|owner| owner.as_str().to_owned()).collect();
    for owner in owners {
        identifiers.extend(reader.identifiers(owner.as_str())?);
    }
    let mut known = BTreeSet::new();
    identifiers.retain(|identifier| known.insert(identifier.clone()));
    let mut found = Found::default();
    let mut complete = true;
    for (place, identifier) in identifiers.iter().enumerate() {
        let query = EventQuery {
            owner: Some(identifier.clone()),
            ..EventQuery::default()
        };
        complete &= each_event(reader, &query, most, |event| {
            progress();
            // An event may name the person under two identifiers: it counts under the first.
            if !identifiers.iter().take(place).any(|other| names(&event, other)) {
                found.take(&event, &known, config);
            }
            Ok::<_, Error>(())
        })?;
    }
    Ok(found.person(identifiers, complete))
}

/// Whether a question by this identifier gives the event.
fn names(event: &StoredEvent, identifier: &str) -> bool {
    text(&event.extras, "owner") == identifier
        || event.user_id.as_deref() == Some(identifier)
        || event.matched_tags.iter().any(|tag| text(tag, "owner") == identifier)
}

#[derive(Default)]
struct Found {
    seen: Option<Seen>,
    categories: BTreeMap<String, Category>,
    facts: BTreeMap<(String, Verb, String, String), Fact>,
    recipients: BTreeMap<String, Told>,
    asked: Vec<Asked>,
}

impl Found {
    /// Only tags of this person count: an event may be about several.
    fn take(&mut self, event: &StoredEvent, own: &BTreeSet<String>, config: &Config) {
        let of_event = own.contains(text(&event.extras, "owner"));
        if matches!(event.event_type.as_str(), "AUDIT_ACCESS" | "DATA_ERASURE") {
            if of_event && self.asked.len() < MOST_LOOKS {
                self.asked.push(Asked::of(event));
            }
            return;
        }
        // What a signed-in person did with the values of others is not about them.
        let tags: Vec<_> = event
            .matched_tags
            .iter()
            .filter(|tag| match text(tag, "owner") {
                "" => of_event,
                owner => own.contains(owner),
            })
            .collect();
        if tags.is_empty() && !of_event {
            return;
        }
        self.seen
            .get_or_insert_with(|| Seen::at(event.created_at))
            .again(event.created_at);
        let mut counted = BTreeSet::new();
        let mut names = BTreeSet::new();
        for tag in tags {
            // Of several spellings of one category the newest is shown.
            let name = short(text(tag, "category"));
            let canonical = match name {
                // Of a parameter that nobody declared.
                "unknown" => name.to_owned(),
                name => canonical_category(name).into_owned(),
            };
            names.insert(name.to_owned());
            let category = self.categories.entry(canonical.clone()).or_insert_with(|| Category {
                category: name.to_owned(),
                canonical: canonical.clone(),
                special: special(&canonical),
                ..Category::default()
            });
            for (known, key) in [
                (&mut category.fields, "field"),
                (&mut category.descriptions, "description"),
                (&mut category.sources, "source"),
            ] {
                add(known, text(tag, key));
            }
            add(&mut category.purposes, text(&event.extras, "purpose"));
            self.fact(event, tag, canonical, &mut counted, config);
        }
        if event.event_type == "DATA_SHARE" && !names.is_empty() {
            self.told(event, names, config);
        }
    }

    fn fact(
        &mut self,
        event: &StoredEvent,
        tag: &Map<String, Json>,
        canonical: String,
        counted: &mut BTreeSet<(String, Verb, String, String)>,
        config: &Config,
    ) {
        let (verb, place, action) = verb(event, tag);
        let key = (canonical, verb, place.clone(), action.clone());
        let fact = self.facts.entry(key.clone()).or_insert_with(|| Fact {
            verb,
            place,
            action,
            recipient: (verb == Verb::Shared).then(|| Profile::of(event, &config.recipients)),
            targets: BTreeSet::new(),
            outcomes: BTreeMap::new(),
            forms: BTreeSet::new(),
            left: (verb == Verb::Shared).then_some(false),
            purposes: BTreeSet::new(),
            seen: Seen::at(event.created_at),
            event_id: event.event_id.clone(),
        });
        if verb == Verb::Shared {
            add(&mut fact.forms, text(tag, "form"));
        }
        // Two values of one category in one event are one event.
        if !counted.insert(key) {
            return;
        }
        fact.seen.again(event.created_at);
        add(&mut fact.purposes, text(&event.extras, "purpose"));
        if verb == Verb::Shared {
            fact.targets.extend(event.target.clone());
            *fact.outcomes.entry(outcome(event)).or_default() += 1;
            fact.left = Some(fact.left == Some(true) || !was_kept_in(event));
        }
    }

    fn told(&mut self, event: &StoredEvent, categories: BTreeSet<String>, config: &Config) {
        let recipient = text(&event.extras, "recipient");
        let told = self.recipients.entry(recipient.to_owned()).or_insert_with(|| Told {
            recipient: recipient.to_owned(),
            profile: Profile::of(event, &config.recipients),
            left: false,
            categories: BTreeSet::new(),
            purposes: BTreeSet::new(),
            legal_bases: BTreeSet::new(),
            outcomes: BTreeMap::new(),
            seen: Seen::at(event.created_at),
        });
        told.left |= !was_kept_in(event);
        told.seen.again(event.created_at);
        told.categories.extend(categories);
        add(&mut told.purposes, text(&event.extras, "purpose"));
        add(&mut told.legal_bases, text(&event.extras, "basis"));
        *told.outcomes.entry(outcome(event)).or_default() += 1;
    }

    fn person(mut self, identifiers: Vec<String>, complete: bool) -> Person {
        for ((canonical, ..), fact) in self.facts {
            if let Some(category) = self.categories.get_mut(&canonical) {
                category.sum(&fact);
                category.facts.push(fact);
            }
        }
        self.asked.sort_by_key(|asked| std::cmp::Reverse(asked.at));
        let mut recipients: Vec<Told> = self.recipients.into_values().collect();
        recipients.sort_by_key(|told| (told.profile.declared, told.recipient.clone()));
        Person {
            note: NOTE,
            as_of: Timestamp::now(),
            identifiers,
            events: self.seen.as_ref().map_or(0, |seen| seen.events),
            first_at: self.seen.as_ref().map(|seen| seen.first_at),
            last_at: self.seen.as_ref().map(|seen| seen.last_at),
            complete,
            categories: self.categories.into_values().collect(),
            recipients,
            asked: self.asked,
        }
    }
}

impl Category {
    fn sum(&mut self, fact: &Fact) {
        let place = fact.place.strip_prefix("db:").unwrap_or(&fact.place);
        let tally = match (fact.verb, fact.action.as_str()) {
            (Verb::Collected, _) | (Verb::Derived, "result") => &mut self.from,
            (Verb::Derived, _) => &mut self.used_for,
            (Verb::Stored, _) => &mut self.stored,
            (Verb::Shared, _) if fact.left == Some(true) => &mut self.shared,
            _ => return,
        };
        match tally.get_mut(place) {
            Some(seen) => seen.with(&fact.seen),
            None => {
                tally.insert(place.to_owned(), fact.seen.clone());
            }
        }
    }
}

/// What an event did with a value, where, and how.
fn verb(event: &StoredEvent, tag: &Map<String, Json>) -> (Verb, String, String) {
    let target = || event.target.clone().unwrap_or_else(|| event.actor.clone());
    let action = |key: &str| text(&event.extras, key).to_owned();
    match event.event_type.as_str() {
        "DATA_COLLECTION" => (Verb::Collected, event.actor.clone(), String::new()),
        "DATA_STORAGE" => (Verb::Stored, target(), action("action")),
        "DATA_DERIVATION" => (Verb::Derived, target(), text(tag, "role").to_owned()),
        "DATA_SHARE" => (Verb::Shared, action("recipient"), String::new()),
        other => (Verb::Other, target(), other.to_owned()),
    }
}

fn add(known: &mut BTreeSet<String>, new: &str) {
    if !new.is_empty() && !known.contains(new) {
        known.insert(new.to_owned());
    }
}

impl Asked {
    pub(crate) fn of(event: &StoredEvent) -> Self {
        Asked {
            at: event.created_at,
            event_type: event.event_type.clone(),
            by: event.actor.strip_prefix("audit:").unwrap_or(&event.actor).to_owned(),
            what: event.target.clone().unwrap_or_default(),
            reason: text(&event.extras, "reason").to_owned(),
        }
    }
}
