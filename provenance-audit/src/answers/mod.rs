//! Questions, answered from the evidence: what the API gives as JSON and the pages show.

pub(crate) mod affected;
pub(crate) mod coverage;
pub(crate) mod declared;
pub(crate) mod lineage;
pub(crate) mod map;
pub(crate) mod metrics;
pub(crate) mod person;
pub(crate) mod recipients;

use std::collections::{BTreeMap, HashSet};

use provenance::config::Recipient;
use provenance::store::{EventQuery, Reader, StoredEvent};
use provenance::{Error, Timestamp};
use serde::Serialize;
use serde_json::{Map, Value as Json};

/// Events of one page that is read.
const PAGE: usize = 500;

/// Hands events to `take`, newest first, `most` at most; says whether these were all. `limit` and `cursor` of the query
/// are not looked at.
pub(crate) fn each_event<E: From<Error>>(
    reader: &mut Reader,
    query: &EventQuery,
    most: usize,
    mut take: impl FnMut(StoredEvent) -> Result<(), E>,
) -> Result<bool, E> {
    let mut query = EventQuery {
        limit: PAGE.min(most),
        cursor: None,
        ..query.clone()
    };
    // By category, a share whose findings came late may stand on both sides of a page's border.
    let mut before: HashSet<String> = HashSet::new();
    let mut taken = 0;
    loop {
        let page = reader.events(&query)?;
        let mut seen = HashSet::with_capacity(page.events.len());
        for event in page.events {
            if query.category.is_some() {
                seen.insert(event.event_id.clone());
            }
            if !before.contains(&event.event_id) {
                take(event)?;
                taken += 1;
            }
        }
        before = seen;
        query.cursor = page.next_cursor;
        if query.cursor.is_none() {
            return Ok(true);
        }
        if taken >= most {
            return Ok(false);
        }
    }
}

/// A text of an event's extras or of a tag; empty where there is none.
pub(crate) fn text<'a>(map: &'a Map<String, Json>, key: &str) -> &'a str {
    map.get(key).and_then(Json::as_str).unwrap_or("")
}

/// `user.contact.email` -> `contact.email`.
pub(crate) fn short(category: &str) -> &str {
    category.strip_prefix("user.").unwrap_or(category)
}

/// Why a category (canonical or as written) is protected more than others.
pub(crate) fn special(category: &str) -> Option<&'static str> {
    const ARTICLE_9: &[&str] = &[
        "biometric",
        "authorization.biometric",
        "demographic.political_opinion",
        "demographic.race_ethnicity",
        "demographic.religious_belief",
        "demographic.sexual_orientation",
        "health_and_medical",
    ];
    const ARTICLE_10: &[&str] = &["criminal_history"];
    let below = |above: &&str| is_within(short(category), above);
    if ARTICLE_9.iter().any(below) {
        Some("special category, GDPR Art. 9")
    } else if ARTICLE_10.iter().any(below) {
        Some("criminal convictions and offences, GDPR Art. 10")
    } else {
        None
    }
}

/// How often something was seen, and when.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Seen {
    pub(crate) events: u64,
    pub(crate) first_at: Timestamp,
    pub(crate) last_at: Timestamp,
}

impl Seen {
    pub(crate) fn at(time: Timestamp) -> Self {
        Seen {
            events: 0,
            first_at: time,
            last_at: time,
        }
    }

    pub(crate) fn again(&mut self, time: Timestamp) {
        self.with(&Seen {
            events: 1,
            ..Seen::at(time)
        });
    }

    /// Takes in what was counted elsewhere.
    pub(crate) fn with(&mut self, other: &Seen) {
        self.events = self.events.saturating_add(other.events);
        self.first_at = self.first_at.min(other.first_at);
        self.last_at = self.last_at.max(other.last_at);
    }
}

/// Names and how often each was seen.
pub(crate) type Tally = BTreeMap<String, Seen>;

/// Whether a category (canonical) is another one, or below it.
pub(crate) fn is_within(category: &str, above: &str) -> bool {
    category
        .strip_prefix(above)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Whether a tag is about a person.
pub(crate) fn is_personal(tag: &Map<String, Json>) -> bool {
    tag.get("pii").and_then(Json::as_bool).unwrap_or(true)
}

/// Whether nothing of a share left: the policy kept it in, and no part of its body had passed.
pub(crate) fn was_kept_in(event: &StoredEvent) -> bool {
    text(&event.extras, "outcome") == "blocked" && event.extras.get("passed").and_then(Json::as_u64).unwrap_or(0) == 0
}

/// What is known of a recipient: as its newest share has it, then as `recipients` of the configuration has it.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Profile {
    pub(crate) declared: bool,
    pub(crate) role: Option<String>,
    pub(crate) legal_name: Option<String>,
    pub(crate) country: Option<String>,
    pub(crate) safeguard: Option<String>,
}

impl Profile {
    /// What a share says of its recipient.
    pub(crate) fn of(event: &StoredEvent, known: &BTreeMap<String, Recipient>) -> Self {
        let mut profile = Profile::default();
        profile.hear(event);
        profile.fill(known.get(text(&event.extras, "recipient")));
        profile
    }

    /// Takes from a share what is not known yet.
    pub(crate) fn hear(&mut self, event: &StoredEvent) {
        let said = |key: &str| Some(text(&event.extras, key).to_owned()).filter(|text| !text.is_empty());
        self.declared |= event.extras.get("recipient_declared").and_then(Json::as_bool) == Some(true);
        self.role = self.role.take().or_else(|| said("recipient_role"));
        self.legal_name = self.legal_name.take().or_else(|| said("recipient_legal_name"));
        self.country = self.country.take().or_else(|| said("recipient_country"));
        self.safeguard = self.safeguard.take().or_else(|| said("recipient_safeguard"));
    }

    /// Takes from the configuration what is not known yet.
    pub(crate) fn fill(&mut self, known: Option<&Recipient>) {
        let Some(known) = known else { return };
        self.declared = true;
        self.role = self.role.take().or_else(|| known.role.clone());
        self.legal_name = self.legal_name.take().or_else(|| known.legal_name.clone());
        self.country = self.country.take().or_else(|| known.country.clone());
        self.safeguard = self.safeguard.take().or_else(|| known.safeguard.clone());
    }

    /// The recipient in words.
    pub(crate) fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        words.extend(self.legal_name.clone());
        words.extend(self.role.as_ref().map(|role| role.replace('_', " ")));
        words.extend(self.country.clone());
        words.extend(
            self.safeguard
                .as_ref()
                .map(|safeguard| format!("safeguard {safeguard}")),
        );
        if !self.declared {
            words.push("undeclared recipient".to_owned());
        }
        words
    }
}

/// `status 201`, `error timeout`, `pending`.
pub(crate) fn outcome(event: &StoredEvent) -> String {
    let word = text(&event.extras, "outcome");
    match event.extras.get(word) {
        Some(Json::String(detail)) => format!("{word} {detail}"),
        Some(Json::Number(detail)) => format!("{word} {detail}"),
        _ => word.to_owned(),
    }
}

/// Where an attribute stands: `src/app.rs:109`, and its item.
pub(crate) fn site(event: &StoredEvent) -> Option<(String, String)> {
    let site = event.extras.get("site")?.as_object()?;
    let line = site.get("line").and_then(Json::as_u64)?;
    Some((format!("{}:{line}", text(site, "file")), text(site, "path").to_owned()))
}

#[cfg(test)]
mod tests {
    use super::special;

    #[test]
    fn special_categories_are_known_by_whole_segments() {
        for (category, is_special) in [
            ("user.health_and_medical.genetic", true),
            ("health_and_medical", true),
            ("user.criminal_history", true),
            ("user.demographic.religious_belief", true),
            ("user.demographic.gender", false),
            ("user.health_and_medicality", false),
            ("x.health_and_medical", false),
        ] {
            assert_eq!(special(category).is_some(), is_special, "{category}");
        }
    }
}
