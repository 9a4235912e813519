//! Figures in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::Write;

use provenance::store::Summary;
use serde_json::{Map, Value as Json};

/// What the file says, and what the running service says, if there is one.
pub(crate) fn of(file: &Summary, status: Option<&Map<String, Json>>) -> String {
    let mut text = Text::default();
    text.family("provenance_events", "gauge", "Events in the evidence, by type.");
    for (event_type, events) in &file.events {
        text.line("provenance_events", &[("event_type", event_type)], *events);
    }
    text.one(
        "provenance_fingerprints",
        "Distinct values in the evidence.",
        file.fingerprints,
    );
    let chain = |key: &str| file.chain.get(key).and_then(Json::as_i64).unwrap_or_default();
    let holds = file.chain.get("ok").and_then(Json::as_bool) == Some(true);
    text.one(
        "provenance_chain_ok",
        "1 where the newest batch of the newest instance holds, 0 where it does not.",
        i64::from(holds),
    );
    text.one(
        "provenance_chain_instances",
        "Instances that have written.",
        chain("instances"),
    );
    text.one("provenance_chain_batches", "Batches of all chains.", chain("batches"));
    if let Some(status) = status {
        of_process(&mut text, status);
    }
    text.0
}

fn of_process(text: &mut Text, status: &Map<String, Json>) {
    let number = |section: &str, key: &str| {
        let section = status.get(section).and_then(Json::as_object);
        section.and_then(|section| section.get(key)).and_then(Json::as_i64)
    };
    for (name, section, key, help) in [
        (
            "provenance_queue_depth",
            "queue",
            "depth",
            "Records that are not on disk yet.",
        ),
        (
            "provenance_queue_capacity",
            "queue",
            "capacity",
            "Most records that wait.",
        ),
        (
            "provenance_queue_written",
            "queue",
            "written",
            "Records on disk, since the start.",
        ),
        (
            "provenance_queue_retries",
            "queue",
            "retries",
            "Commits that were tried again, since the start.",
        ),
        (
            "provenance_queue_refused",
            "queue",
            "refused",
            "Records that were lost, since the start.",
        ),
        (
            "provenance_registry_values",
            "registry",
            "values",
            "Values that are recognised.",
        ),
        (
            "provenance_registry_max_values",
            "registry",
            "max_values",
            "Most values that are recognised.",
        ),
        (
            "provenance_registry_evicted",
            "registry",
            "evicted",
            "Values forgotten for want of room, since the start.",
        ),
        (
            "provenance_registry_expired",
            "registry",
            "expired",
            "Values forgotten as nothing confirmed them, since the start.",
        ),
    ] {
        if let Some(value) = number(section, key) {
            text.one(name, help, value);
        }
    }
    let mut kinds: BTreeMap<&str, i64> = BTreeMap::new();
    let spots = status.get("blind_spots").and_then(Json::as_array);
    for spot in spots.into_iter().flatten() {
        let kind = spot.get("kind").and_then(Json::as_str).unwrap_or("");
        let count = spot.get("count").and_then(Json::as_i64).unwrap_or_default();
        let sum = kinds.entry(kind).or_default();
        *sum = sum.saturating_add(count);
    }
    text.family(
        "provenance_blind_spots",
        "gauge",
        "What hooks could not see since the start, by kind.",
    );
    for (kind, count) in kinds {
        text.line("provenance_blind_spots", &[("kind", kind)], count);
    }
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn one(&mut self, name: &str, help: &str, value: i64) {
        self.family(name, "gauge", help);
        self.line(name, &[], value);
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: i64) {
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{}{label}=\"{text}\"", if index == 0 { "{" } else { "," });
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }
}
