//! Questions, answered from the evidence: what the API gives as JSON and the pages show.

pub(crate) mod affected;
pub(crate) mod coverage;
pub(crate) mod declared;
pub(crate) mod lineage;
pub(crate) mod map;
pub(crate) mod metrics;
pub(crate) mod person;
pub(crate) mod recipients;

use std::collections::BTreeMap;

use provenance::store::{EventQuery, Reader, StoredEvent};
use provenance::{Error, Timestamp};
use serde::Serialize;
use serde_json::{Map, Value as Json};

/// Events of one page that is read.
const PAGE: usize = 500;

/// Hands events to `take`, newest first, `most` at most; says whether these were all.
pub(crate) fn each_event(
    reader: &mut Reader,
    query: &EventQuery,
    most: usize,
    mut take: impl FnMut(StoredEvent),
) -> Result<bool, Error> {
    let mut query = EventQuery {
        limit: PAGE.min(most),
        ..query.clone()
    };
    let mut taken = 0;
    loop {
        let page = reader.events(&query)?;
        for event in page.events {
            take(event);
            taken += 1;
        }
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
    let category = short(category);
    let below = |prefix: &&str| {
        category
            .strip_prefix(*prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
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
        self.events = self.events.saturating_add(1);
        self.first_at = self.first_at.min(time);
        self.last_at = self.last_at.max(time);
    }
}

/// Names and how often each was seen.
pub(crate) type Tally = BTreeMap<String, Seen>;

pub(crate) fn count(tally: &mut Tally, name: &str, at: Timestamp) {
    if !name.is_empty() {
        tally.entry(name.to_owned()).or_insert_with(|| Seen::at(at)).again(at);
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
