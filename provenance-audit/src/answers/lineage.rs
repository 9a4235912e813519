//! What became of one value: collected, stored, derived from, shared.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use provenance::store::{EventQuery, Reader, StoredEvent};
use provenance::{Error, Timestamp};
use serde::Serialize;
use serde_json::Value as Json;

use super::{each_event, outcome, site, text};

/// Most events of one value that are followed.
const MOST_EVENTS: usize = 1000;
/// Most derived values that are followed.
const MOST_VALUES: usize = 16;

/// What became of a value, and of what was derived from it.
#[derive(Debug, Serialize)]
pub(crate) struct Lineage {
    pub(crate) fingerprint: String,
    /// What the value is: categories and fields under which it was met.
    pub(crate) values: Vec<Met>,
    /// What it was derived from.
    pub(crate) derived_from: Vec<Met>,
    /// Oldest first.
    pub(crate) steps: Vec<Step>,
    /// Whether these are all steps.
    pub(crate) complete: bool,
}

/// A value, as events met it.
#[derive(Clone, Debug, Serialize, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Met {
    pub(crate) fingerprint: String,
    pub(crate) category: String,
    pub(crate) field: String,
    /// How many derivations lie between it and the value that was asked for.
    pub(crate) generation: usize,
}

/// One event on the way.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Step {
    pub(crate) at: Timestamp,
    /// `collected`, `stored`, `derived`, `shared`, `violation`, or `other`.
    pub(crate) stage: &'static str,
    pub(crate) event_id: String,
    pub(crate) event_type: String,
    pub(crate) actor: String,
    pub(crate) target: Option<String>,
    pub(crate) recipient: Option<String>,
    pub(crate) outcome: Option<String>,
    pub(crate) purpose: Option<String>,
    /// Source file and line.
    pub(crate) site: Option<String>,
    /// Of the value that was met here.
    pub(crate) fingerprint: String,
    pub(crate) category: String,
    pub(crate) field: String,
    /// `exact`, `hashed`, ... in a share; `input` or `result` in a derivation.
    pub(crate) form: Option<String>,
    pub(crate) generation: usize,
}

/// The lineage of a fingerprint; `None` where no event carries it.
pub(crate) fn of(reader: &mut Reader, fingerprint: &str) -> Result<Option<Lineage>, Error> {
    let mut lineage = Lineage {
        fingerprint: fingerprint.to_owned(),
        values: Vec::new(),
        derived_from: Vec::new(),
        steps: Vec::new(),
        complete: true,
    };
    let mut values = BTreeSet::new();
    let mut from = BTreeSet::new();
    let mut seen = BTreeMap::from([(fingerprint.to_owned(), 0)]);
    let mut next = VecDeque::from([(fingerprint.to_owned(), 0)]);
    while let Some((value, generation)) = next.pop_front() {
        let query = EventQuery {
            fingerprint: Some(value.clone()),
            ..EventQuery::default()
        };
        let mut results = BTreeSet::new();
        let complete = each_event(reader, &query, MOST_EVENTS, |event| {
            step(&mut lineage.steps, &mut values, &event, &value, generation);
            let own = |wanted: &str| {
                let mut tags = event.matched_tags.iter();
                tags.any(|tag| text(tag, "fingerprint") == value && text(tag, "role") == wanted)
            };
            let others = |wanted: &'static str| {
                let tags = event.matched_tags.iter();
                tags.filter(move |tag| text(tag, "role") == wanted && !text(tag, "fingerprint").is_empty())
            };
            if own("input") {
                results.extend(others("result").map(|tag| text(tag, "fingerprint").to_owned()));
            }
            if generation == 0 && own("result") {
                from.extend(others("input").map(|tag| met(tag, 0)));
            }
            Ok::<_, Error>(())
        })?;
        lineage.complete &= complete;
        for result in results {
            if seen.len() >= MOST_VALUES {
                lineage.complete = false;
                break;
            }
            if !seen.contains_key(&result) {
                seen.insert(result.clone(), generation + 1);
                next.push_back((result, generation + 1));
            }
        }
    }
    if lineage.steps.is_empty() {
        return Ok(None);
    }
    lineage
        .steps
        .sort_by(|a, b| (a.at, &a.event_id).cmp(&(b.at, &b.event_id)));
    lineage.values = values.into_iter().collect();
    lineage.values.sort_by_key(|value| value.generation);
    lineage.derived_from = from.into_iter().collect();
    Ok(Some(lineage))
}

fn met(tag: &serde_json::Map<String, Json>, generation: usize) -> Met {
    Met {
        fingerprint: text(tag, "fingerprint").to_owned(),
        category: text(tag, "category").to_owned(),
        field: text(tag, "field").to_owned(),
        generation,
    }
}

fn step(steps: &mut Vec<Step>, values: &mut BTreeSet<Met>, event: &StoredEvent, value: &str, generation: usize) {
    // An event may carry a value twice (two people, two places): one step says it.
    let Some(tag) = event.matched_tags.iter().find(|tag| text(tag, "fingerprint") == value) else {
        return;
    };
    values.insert(met(tag, generation));
    let form = [text(tag, "form"), text(tag, "role")]
        .into_iter()
        .find(|form| !form.is_empty());
    // The result of a derivation is told by the step of what it came from.
    if generation > 0 && text(tag, "role") == "result" {
        return;
    }
    let named = |key: &str| Some(text(&event.extras, key).to_owned()).filter(|text| !text.is_empty());
    steps.push(Step {
        at: event.created_at,
        stage: stage(&event.event_type),
        event_id: event.event_id.clone(),
        event_type: event.event_type.clone(),
        actor: event.actor.clone(),
        target: event.target.clone(),
        recipient: named("recipient"),
        outcome: Some(outcome(event)).filter(|outcome| !outcome.is_empty()),
        purpose: named("purpose"),
        site: site(event).map(|(place, _)| place),
        fingerprint: value.to_owned(),
        category: text(tag, "category").to_owned(),
        field: text(tag, "field").to_owned(),
        form: form.map(str::to_owned),
        generation,
    });
}

/// What an event of this type did to its values.
pub(crate) fn stage(event_type: &str) -> &'static str {
    match event_type {
        "DATA_COLLECTION" => "collected",
        "DATA_STORAGE" => "stored",
        "DATA_DERIVATION" => "derived",
        "DATA_SHARE" => "shared",
        "POLICY_VIOLATION" => "violation",
        _ => "other",
    }
}
