//! What the program declares against what was observed.

use std::collections::{BTreeMap, BTreeSet};

use provenance::Error;
use provenance::config::Config;
use provenance::inventory::{Entry, canonical_category};
use provenance::store::{EventQuery, Flow, FlowQuery, Reader};
use serde::Serialize;
use serde_json::Value as Json;

use super::{each_event, is_within, short, site};

/// How many of the newest events of each type are asked for the attributes that made them.
const NEWEST: usize = 5000;

/// Declared and observed.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Comparison {
    /// Whether this program's inventory is known: only a running service knows what it declares.
    pub(crate) inventory_known: bool,
    /// The program's inventory, as INVENTORY.md has it.
    pub(crate) declared: Vec<Entry>,
    /// Declared, and not seen.
    pub(crate) never_seen: Vec<NeverSeen>,
    /// Seen, and not declared.
    pub(crate) undeclared: Vec<Undeclared>,
    /// Recipients of personal data that the configuration does not name.
    pub(crate) undeclared_recipients: BTreeMap<String, i64>,
    /// Declared items of which something was seen.
    pub(crate) seen: usize,
}

/// Declared, and not seen.
#[derive(Debug, Serialize)]
pub(crate) struct NeverSeen {
    /// `column`, `input`, `egress`, `derivation`, `recipient`.
    pub(crate) what: &'static str,
    pub(crate) name: String,
    pub(crate) category: Option<String>,
    /// Source file and line.
    pub(crate) at: Option<String>,
    /// How far was looked.
    pub(crate) looked_at: String,
}

/// Seen, and not declared.
#[derive(Debug, Serialize)]
pub(crate) struct Undeclared {
    /// `column`, `input`, `category of a recipient`.
    pub(crate) what: &'static str,
    pub(crate) name: String,
    pub(crate) category: String,
    pub(crate) events: i64,
}

/// Compares. `declared` is empty where the inventory is not known.
pub(crate) fn of(reader: &mut Reader, config: &Config, declared: &[Entry]) -> Result<Comparison, Error> {
    let flows = reader.flows(&FlowQuery::default())?;
    let mut comparison = Comparison {
        inventory_known: !declared.is_empty(),
        declared: declared.to_vec(),
        ..Comparison::default()
    };
    for flow in &flows {
        if let Some(name) = flow.key.recipient.as_deref()
            && flow.key.event_type == "DATA_SHARE"
            && flow.key.pii
            && !config.recipients.contains_key(name)
        {
            *comparison.undeclared_recipients.entry(name.to_owned()).or_default() += flow.events;
        }
    }
    unknown_inputs(&mut comparison, &flows);
    if !declared.is_empty() {
        columns(&mut comparison, &flows, config, declared);
        allowed(&mut comparison, &flows, declared);
        let sites = sites(reader)?;
        items(&mut comparison, &flows, &sites, declared);
    }
    for name in config.recipients.keys() {
        let met = flows.iter().any(|flow| flow.key.recipient.as_deref() == Some(name));
        comparison.note(met, || NeverSeen {
            what: "recipient",
            name: name.clone(),
            category: None,
            at: None,
            looked_at: "shares in which personal data was found".to_owned(),
        });
    }
    Ok(comparison)
}

impl Comparison {
    fn note(&mut self, seen: bool, missing: impl FnOnce() -> NeverSeen) {
        match seen {
            true => self.seen += 1,
            false => self.never_seen.push(missing()),
        }
    }
}

/// Parameters that nobody gave a category.
fn unknown_inputs(comparison: &mut Comparison, flows: &[Flow]) {
    let mut unknown: BTreeMap<(String, String), i64> = BTreeMap::new();
    for flow in flows {
        let key = &flow.key;
        if key.event_type == "DATA_COLLECTION" && short(&key.category) == "unknown" {
            *unknown.entry((key.actor.clone(), key.field.clone())).or_default() += flow.events;
        }
    }
    comparison
        .undeclared
        .extend(unknown.into_iter().map(|((actor, field), events)| Undeclared {
            what: "input",
            name: format!("{field} of {actor}"),
            category: "unknown".to_owned(),
            events,
        }));
}

fn columns(comparison: &mut Comparison, flows: &[Flow], config: &Config, declared: &[Entry]) {
    let mut columns: BTreeMap<(String, String), (String, Option<String>)> = BTreeMap::new();
    for model in declared.iter().filter(|entry| entry.kind == "model") {
        let table = model.rest.get("table").and_then(Json::as_str).unwrap_or("");
        let fields = model.rest.get("fields").and_then(Json::as_array);
        for field in fields.into_iter().flatten() {
            let text = |key: &str| field.get(key).and_then(Json::as_str).unwrap_or("").to_owned();
            let column = (table.to_owned(), text("name"));
            columns
                .entry(column)
                .or_insert_with(|| (text("category"), model.at.clone()));
        }
    }
    for (model, fields) in &config.tracked_models {
        for (name, field) in &fields.fields {
            let column = (model.clone(), name.clone());
            columns.entry(column).or_insert_with(|| (field.category.clone(), None));
        }
    }
    let mut stored: BTreeMap<(&str, &str), (&str, i64)> = BTreeMap::new();
    for flow in flows.iter().filter(|flow| flow.key.event_type == "DATA_STORAGE") {
        let target = flow.key.target.as_deref().unwrap_or("");
        let table = target.strip_prefix("db:").unwrap_or(target);
        let seen = stored
            .entry((table, &flow.key.field))
            .or_insert((&flow.key.category, 0));
        seen.1 += flow.events;
    }
    for ((table, field), (category, at)) in &columns {
        let seen = stored.contains_key(&(table.as_str(), field.as_str()));
        comparison.note(seen, || NeverSeen {
            what: "column",
            name: format!("{table}.{field}"),
            category: Some(category.clone()),
            at: at.clone(),
            looked_at: "all recorded writes".to_owned(),
        });
    }
    for ((table, field), (category, events)) in stored {
        if !columns.contains_key(&(table.to_owned(), field.to_owned())) {
            comparison.undeclared.push(Undeclared {
                what: "column",
                name: format!("{table}.{field}"),
                category: short(category).to_owned(),
                events,
            });
        }
    }
}

/// Categories that went to a recipient although every function that sends there allows others only.
fn allowed(comparison: &mut Comparison, flows: &[Flow], declared: &[Entry]) {
    let mut allows: BTreeMap<&str, Option<BTreeSet<String>>> = BTreeMap::new();
    for egress in declared.iter().filter(|entry| entry.kind == "egress") {
        let Some(recipient) = egress.rest.get("recipient").and_then(Json::as_str) else {
            continue;
        };
        let listed = egress.rest.get("allow").and_then(Json::as_array).map(|listed| {
            let listed = listed.iter().filter_map(Json::as_str);
            listed
                .map(|category| canonical_category(category).into_owned())
                .collect::<BTreeSet<_>>()
        });
        match (allows.entry(recipient).or_insert_with(|| Some(BTreeSet::new())), listed) {
            (Some(known), Some(listed)) => known.extend(listed),
            (known, _) => *known = None,
        }
    }
    let mut over: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    for flow in flows {
        let key = &flow.key;
        let Some(recipient) = key.recipient.as_deref() else {
            continue;
        };
        let Some(Some(allowed)) = allows.get(recipient) else {
            continue;
        };
        let within = |allowed: &String| is_within(&key.category, allowed);
        if key.event_type == "DATA_SHARE" && key.pii && !allowed.iter().any(within) {
            *over.entry((recipient, short(&key.category))).or_default() += flow.events;
        }
    }
    comparison
        .undeclared
        .extend(over.into_iter().map(|((recipient, category), events)| Undeclared {
            what: "category of a recipient",
            name: recipient.to_owned(),
            category: category.to_owned(),
            events,
        }));
}

/// Items whose attributes made one of the newest events.
fn sites(reader: &mut Reader) -> Result<BTreeSet<String>, Error> {
    let mut sites = BTreeSet::new();
    for event_type in ["DATA_COLLECTION", "DATA_SHARE"] {
        let query = EventQuery {
            event_type: Some(event_type.to_owned()),
            ..EventQuery::default()
        };
        each_event(reader, &query, NEWEST, |event| {
            sites.extend(site(&event).map(|(_, path)| path));
            Ok::<_, Error>(())
        })?;
    }
    Ok(sites)
}

fn items(comparison: &mut Comparison, flows: &[Flow], sites: &BTreeSet<String>, declared: &[Entry]) {
    let derived: BTreeSet<&str> = flows
        .iter()
        .filter(|flow| flow.key.event_type == "DATA_DERIVATION")
        .filter_map(|flow| flow.key.target.as_deref()?.strip_prefix("derived:"))
        .collect();
    let newest = format!("the newest {NEWEST} events of its type");
    for entry in declared {
        let category = entry.rest.get("category").and_then(Json::as_str);
        let (what, seen, looked_at) = match entry.kind.as_str() {
            "input" => ("input", sites.contains(&entry.path), newest.as_str()),
            "egress" => ("egress", sites.contains(&entry.path), newest.as_str()),
            "derived" => {
                let seen = category.is_some_and(|category| derived.contains(category));
                ("derivation", seen, "all recorded derivations")
            }
            _ => continue,
        };
        comparison.note(seen, || NeverSeen {
            what,
            name: entry.path.clone(),
            category: category.map(str::to_owned),
            at: entry.at.clone(),
            looked_at: looked_at.to_owned(),
        });
    }
}
