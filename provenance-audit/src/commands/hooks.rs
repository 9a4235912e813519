//! The hooks that a host declares: what each reported of a synthetic person, and why one reported nothing.

use std::collections::{BTreeMap, BTreeSet};

use provenance::inventory::{self, Entry};
use serde::Serialize;
use serde_json::{Value as Json, json};

use super::doctor::{BlindSpots, in_words};
use super::host::Host;
use super::output::listed;
use crate::export::text;

/// Newest events of each type that are asked for what a host did before.
const EARLIER: usize = 500;

/// One declared hook.
#[derive(Serialize)]
pub(super) struct Hook {
    /// `input`, `model`, `egress`, `derived`.
    pub(super) kind: String,
    /// `crm::api::signup`.
    pub(super) path: String,
    /// Source file and line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) at: Option<String>,
    pub(super) fired: bool,
    /// What it reported of the synthetic person: ids of events, by type.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) events: BTreeMap<String, BTreeSet<String>>,
    /// Why it reported nothing, as far as evidence tells.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) why: String,
    /// The way out.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) advice: String,
    /// It was reached, and could not see all that it is for.
    pub(super) missed: bool,
}

/// What came of the synthetic person's requests.
pub(super) struct Observed<'a> {
    /// By id.
    pub(super) events: &'a BTreeMap<String, Json>,
    /// Blind spots that were counted meanwhile, whoever caused them.
    pub(super) moved: &'a BTreeSet<(String, String)>,
    /// All blind spots, by kind and site.
    pub(super) standing: &'a BlindSpots,
    /// Routes that did not take their request, and their status.
    pub(super) refused: &'a [(String, u16)],
    pub(super) earlier: &'a Earlier,
}

/// What the host reported before.
#[derive(Default)]
pub(super) struct Earlier {
    /// Where each hook was met: `HTTP POST /signup`, by the hook's path.
    pub(super) places: BTreeMap<String, BTreeSet<String>>,
}

/// What the host says it declares; nothing where it cannot tell.
pub(super) fn declared(host: &Host) -> Vec<Entry> {
    let Ok(answer) = host.get("inventory") else {
        return Vec::new();
    };
    let mut section = Vec::new();
    for entry in answer.get("declared").and_then(Json::as_array).into_iter().flatten() {
        let Some(entry) = entry.as_object() else { continue };
        let mut line = entry.clone();
        line.insert("v".to_owned(), 1.into());
        section.extend(json!(line).to_string().into_bytes());
        section.push(b'\n');
    }
    inventory::parse(&section).unwrap_or_default()
}

impl Earlier {
    pub(super) fn of(host: &Host) -> Self {
        let mut earlier = Earlier::default();
        for event_type in ["DATA_COLLECTION", "DATA_STORAGE", "DATA_DERIVATION", "DATA_SHARE"] {
            let page = host.get(&format!("events?limit={EARLIER}&event_type={event_type}"));
            let page = page.unwrap_or_default();
            for event in page.get("events").and_then(Json::as_array).into_iter().flatten() {
                if let Some(path) = site(event) {
                    let actor = event.get("actor").and_then(Json::as_str).unwrap_or_default();
                    earlier.places.entry(path).or_default().insert(actor.to_owned());
                }
            }
        }
        earlier
    }
}

/// The attribute that made an event.
pub(super) fn site(event: &Json) -> Option<String> {
    Some(event.get("extras")?.get("site")?.get("path")?.as_str()?.to_owned())
}

/// Each declared hook, in the order of the inventory.
pub(super) fn of(declared: &[Entry], observed: &Observed<'_>) -> Vec<Hook> {
    let hooks = declared.iter().filter(|entry| !types(&entry.kind).is_empty());
    hooks.map(|entry| hook(entry, declared, observed)).collect()
}

/// Events that a hook of this kind makes.
fn types(kind: &str) -> &'static [&'static str] {
    match kind {
        "input" => &["DATA_COLLECTION"],
        "model" => &["DATA_STORAGE", "DATA_ACCESS"],
        "egress" => &["DATA_SHARE", "POLICY_VIOLATION"],
        "derived" => &["DATA_DERIVATION"],
        _ => &[],
    }
}

/// A hook's kind, as people call it.
pub(super) fn word(kind: &str) -> &str {
    match kind {
        "egress" => "egress function",
        "derived" => "derivation",
        other => other,
    }
}

fn hook(entry: &Entry, declared: &[Entry], observed: &Observed<'_>) -> Hook {
    let mut events: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (id, event) in observed.events {
        let event_type = event.get("event_type").and_then(Json::as_str).unwrap_or_default();
        if types(&entry.kind).contains(&event_type) && site(event).as_deref() == Some(&entry.path) {
            events.entry(event_type.to_owned()).or_default().insert(id.clone());
        }
    }
    let fired = !events.is_empty();
    let missed = missed(entry, fired, declared, observed);
    let is_missed = missed.is_some();
    let (why, advice) = match missed {
        Some(why) => why,
        None if fired => Default::default(),
        None => silent(entry, declared, observed),
    };
    Hook {
        kind: entry.kind.clone(),
        path: entry.path.clone(),
        at: entry.at.clone(),
        fired,
        events,
        why,
        advice,
        missed: is_missed,
    }
}

/// What a hook that was reached could not see, and the way out.
fn missed(entry: &Entry, fired: bool, declared: &[Entry], observed: &Observed<'_>) -> Option<(String, String)> {
    let mut moved = observed.moved.iter().filter(|(kind, site)| is_its(entry, kind, site));
    if let Some((kind, site)) = moved.next() {
        let (what, advice) = in_words(kind);
        return Some((format!("counted meanwhile: {what}, at {site}"), advice.to_owned()));
    }
    unvisited(entry, declared).filter(|_| fired)
}

/// Whether a blind spot is this hook's.
fn is_its(entry: &Entry, kind: &str, site: &str) -> bool {
    let table = text(&entry.rest, "table");
    let is_named = site == entry.path
        || site
            .strip_prefix(&entry.path)
            .is_some_and(|rest| rest.starts_with(['(', ' ']))
        || (entry.kind == "model" && !table.is_empty() && site == table);
    is_named && !matches!(kind, "owner_conflict" | "erased_person_met")
}

fn unvisited(entry: &Entry, declared: &[Entry]) -> Option<(String, String)> {
    let argument = declared.iter().find(|other| {
        let argument = other.path.strip_prefix(&entry.path);
        other.kind == "unvisited" && argument.is_some_and(|rest| rest.starts_with('('))
    })?;
    Some((
        format!("an argument cannot be visited: {}", argument.path),
        "derive Tracked or Serialize on what it holds".to_owned(),
    ))
}

/// Why a hook reported nothing, and the way out.
fn silent(entry: &Entry, declared: &[Entry], observed: &Observed<'_>) -> (String, String) {
    let places = observed.earlier.places.get(&entry.path);
    let refused = observed
        .refused
        .iter()
        .find(|(route, _)| places.is_some_and(|places| places.contains(&format!("HTTP {route}"))));
    if let Some((route, status)) = refused {
        let what = match entry.kind.as_str() {
            "input" => "the request was refused before its handler ran",
            "model" => "what was begun was rolled back, or never made",
            _ => "it did not come that far",
        };
        return (
            format!("{route} leads there, and the application answered {status}: {what}"),
            "send what the application takes".to_owned(),
        );
    }
    if let Some(instead) = instead(entry, observed) {
        return instead;
    }
    if let Some(unvisited) = unvisited(entry, declared) {
        return unvisited;
    }
    let mut standing = observed.standing.iter().flat_map(|(kind, sites)| {
        let sites = sites.keys().filter(|site| is_its(entry, kind, site));
        sites.map(|site| format!("; counted before: {}, at {site}", in_words(kind).0))
    });
    let before = standing.next().unwrap_or_default();
    match places {
        Some(places) => (
            format!("no probe reached it{before}"),
            format!("it reported before, in {}: probe that", listed(places)),
        ),
        None => {
            let (why, advice) = never(&entry.kind);
            let refused = observed
                .refused
                .iter()
                .map(|(route, _)| route.clone())
                .collect::<Vec<_>>();
            let perhaps = match refused.is_empty() {
                true => String::new(),
                false => format!("; what was refused may lead there: {}", listed(&refused)),
            };
            (format!("{why}{perhaps}{before}"), advice.to_owned())
        }
    }
}

/// What was reported of the same thing by something else.
fn instead(entry: &Entry, observed: &Observed<'_>) -> Option<(String, String)> {
    let said = |event: &Json, key: &str| -> String {
        let extras = event.get("extras").and_then(|extras| extras.get(key));
        extras.and_then(Json::as_str).unwrap_or_default().to_owned()
    };
    let key = match entry.kind.as_str() {
        "model" => "table",
        "egress" => "recipient",
        _ => return None,
    };
    let wanted = text(&entry.rest, key);
    let others: BTreeSet<String> = observed
        .events
        .values()
        .filter(|event| !wanted.is_empty() && said(event, key) == wanted)
        .map(|event| site(event).unwrap_or_else(|| "SQL text".to_owned()))
        .collect();
    if others.is_empty() {
        return None;
    }
    let (why, advice) = match entry.kind.as_str() {
        "model" => (
            format!("rows of {wanted} were reported by {} instead", listed(&others)),
            "probe a route that writes through it; that it is read is told with access_events: true alone",
        ),
        _ => (
            format!("{wanted} was reported by {} instead", listed(&others)),
            "name a route that calls it",
        ),
    };
    Some((why, advice.to_owned()))
}

/// Of a hook that nobody has met.
fn never(kind: &str) -> (&'static str, &'static str) {
    match kind {
        "input" => (
            "no probe reached it, and this host's newest events do not name it",
            "is its handler on the router? Probe its route",
        ),
        "model" => (
            "nothing was written through it, and this host's newest events do not name it",
            "probe a route that writes through it; that it is read is told with access_events: true alone",
        ),
        "egress" => (
            "no probe reached it, and this host's newest events do not name it",
            "probe a route that calls it; `cargo provenance check` lists calls of clients outside of #[egress] functions",
        ),
        _ => (
            "no probe reached it with a value that is registered, and this host's newest events do not name it",
            "probe a route that calls it; its arguments must be values that were collected, stored or loaded before",
        ),
    }
}
