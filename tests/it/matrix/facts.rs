//! What was committed, and what the evidence says: the same facts, from two sources.

use std::collections::{BTreeMap, BTreeSet};

use provenance::config::Fingerprints;
use provenance_tests::{Evidence, text};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use super::models::made_up;
use super::place::Entry;

/// A value under a column, and how it came there; how often.
pub(super) type Facts = BTreeMap<Fact, usize>;

/// Action, field, fingerprint. Of a DELETE the action alone.
pub(super) type Fact = (String, String, String);

/// Evidence with fingerprints that a test can compute.
pub(super) fn evidence() -> Evidence {
    Evidence::new(|config| config.fingerprints = Fingerprints::Sha256)
}

/// The database's own account. An update of many rows is one fact, and so is a delete.
pub(super) fn committed(journal: &[Entry]) -> Facts {
    let mut facts = Facts::new();
    for entry in journal {
        let fingerprint = match entry.field.as_str() {
            "" => String::new(),
            _ => fingerprint(&entry.value),
        };
        let fact = (entry.action.clone(), entry.field.clone(), fingerprint);
        let count = facts.entry(fact).or_default();
        *count = if entry.action == "insert" { *count + 1 } else { 1 };
    }
    facts
}

/// Of the canonical form: amounts without needless zeros, the addresses of these tests as they are.
fn fingerprint(value: &str) -> String {
    let canonical = value
        .parse::<f64>()
        .map_or_else(|_| value.to_owned(), |number| number.to_string());
    let digest = Sha256::digest(canonical);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What DATA_STORAGE events say.
#[derive(Default)]
pub(super) struct Told {
    pub(super) certain: Facts,
    pub(super) uncertain: Facts,
    pub(super) reasons: BTreeSet<String>,
}

impl Told {
    pub(super) fn by(events: &[Json]) -> Self {
        let mut told = Told::default();
        for event in events {
            let extras = &event["extras"];
            let facts = match extras["certain"].as_bool().unwrap() {
                true => &mut told.certain,
                false => {
                    told.reasons.insert(text(&extras["reason"]));
                    &mut told.uncertain
                }
            };
            let action = text(&extras["action"]);
            if action == "delete" {
                facts.insert((action, String::new(), String::new()), 1);
                continue;
            }
            for tag in event["matched_tags"].as_array().unwrap() {
                let fact = (action.clone(), text(&tag["field"]), text(&tag["fingerprint"]));
                *facts.entry(fact).or_default() += 1;
            }
        }
        told
    }
}

/// Forgets whether a value came by an insert or an update: an upsert does not say.
pub(super) fn either_way(facts: &mut Facts) {
    let mut merged = Facts::new();
    for ((action, field, fingerprint), count) in std::mem::take(facts) {
        let action = if action == "delete" { action } else { "stored".into() };
        *merged.entry((action, field, fingerprint)).or_default() += count;
    }
    *facts = merged;
}

/// What of `these` is not in `those`; addresses show which line made them up.
pub(super) fn beyond(these: &Facts, those: &Facts) -> Vec<String> {
    let mut beyond = Vec::new();
    for (fact, count) in these {
        if *count > those.get(fact).copied().unwrap_or_default() {
            let (action, field, print) = fact;
            let email = made_up(|email| fingerprint(email) == *print).unwrap_or_default();
            beyond.push(format!("{action} {field} {email}").trim_end().to_owned());
        }
    }
    beyond
}

/// Both together.
pub(super) fn sum(one: &Facts, other: &Facts) -> Facts {
    let mut sum = one.clone();
    for (fact, count) in other {
        *sum.entry(fact.clone()).or_default() += count;
    }
    sum
}
