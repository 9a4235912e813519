//! OpenLineage run events (<https://openlineage.io>, version 2-0-2 of its schema).
//!
//! An event that moves data is a run: of the job `<actor> -> <what it did>`, in the namespace of its service, below the
//! run of its request. It has a START and how it ended: COMPLETE, FAIL (the transport failed), ABORT (the policy
//! blocked it), OTHER (nobody can tell); a share in progress has the START alone. Datasets:
//!
//! | evidence | namespace | name |
//! |---|---|---|
//! | `db:users` | `db://<service>` | `users` |
//! | `HTTP POST /signup` | `http://<service>` | `POST /signup` |
//! | `derived:score.credit` | `derived://<service>` | `score.credit` |
//! | a recipient | `recipient` | its name |
//! | another source | `source://<service>` | as it is |
//!
//! POLICY_VIOLATION, DATA_ERASURE and AUDIT_ACCESS move nothing, and are left out.

use std::collections::BTreeMap;
use std::io::Write;

use provenance::inventory::canonical_category;
use provenance::store::{EventQuery, Reader, StoredEvent};
use serde_json::{Map, Value as Json, json};
use sha2::{Digest, Sha256};

use super::{Error, each_event, text};

const RUN_EVENT: &str = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent";
const PARENT: &str = "https://openlineage.io/spec/facets/1-2-0/ParentRunFacet.json#/$defs/ParentRunFacet";
const SCHEMA: &str = "https://openlineage.io/spec/facets/1-2-0/SchemaDatasetFacet.json#/$defs/SchemaDatasetFacet";
const TAGS: &str = "https://openlineage.io/spec/facets/1-0-0/TagsDatasetFacet.json#/$defs/TagsDatasetFacet";
const COLUMNS: &str =
    "https://openlineage.io/spec/facets/1-2-0/ColumnLineageDatasetFacet.json#/$defs/ColumnLineageDatasetFacet";
/// A name for this program that is a URI, as the schema asks.
const PRODUCER: &str = concat!("urn:x-provenance-audit:", env!("CARGO_PKG_VERSION"));

/// Writes run events, one a line.
///
/// # Errors
/// [`Error`].
pub fn run_events(
    reader: &mut Reader,
    query: &EventQuery,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(),
) -> Result<(), Error> {
    each_event(reader, query, |event| {
        progress();
        for run_event in of_event(&event) {
            serde_json::to_writer(&mut *out, &run_event)?;
            out.write_all(b"\n")?;
        }
        Ok(())
    })
}

/// The start of a run, and its end.
fn of_event(event: &StoredEvent) -> Vec<Json> {
    let Some(flow) = Flow::of(event) else {
        return Vec::new();
    };
    let start = flow.run_event(event, "START", &event.created_at.to_string());
    let end = match (event.event_type.as_str(), text(&event.extras, "outcome")) {
        ("DATA_SHARE", "pending") => return vec![start],
        ("DATA_SHARE", "blocked") => "ABORT",
        ("DATA_SHARE", "error") => "FAIL",
        ("DATA_SHARE", "unknown" | "") => "OTHER",
        _ => "COMPLETE",
    };
    let at = match text(&event.extras, "outcome_at") {
        "" => event.created_at.to_string(),
        at => at.to_owned(),
    };
    vec![start, flow.run_event(event, end, &at)]
}

/// A dataset and its fields: each with its category, where a tag says it.
#[derive(Default)]
struct Dataset {
    /// By name: category, description, whether it is personal data.
    fields: BTreeMap<String, (String, String, bool)>,
    /// By own field: the fields it came from.
    lineage: BTreeMap<String, Vec<Json>>,
}

type Place = (String, String);

struct Flow {
    inputs: BTreeMap<Place, Dataset>,
    outputs: BTreeMap<Place, Dataset>,
}

impl Flow {
    /// From where to where an event moved data; `None` if it moved none.
    fn of(event: &StoredEvent) -> Option<Flow> {
        let service = text(&event.extras, "service");
        let target = event.target.as_deref().map(|target| place(service, target).0);
        let mut flow = Flow {
            inputs: BTreeMap::new(),
            outputs: BTreeMap::new(),
        };
        let output = match event.event_type.as_str() {
            "POLICY_VIOLATION" | "DATA_ERASURE" | "AUDIT_ACCESS" => return None,
            "DATA_COLLECTION" => None,
            // What is gone went nowhere.
            "DATA_STORAGE" if text(&event.extras, "action") == "delete" => {
                flow.inputs.insert(target.clone()?, Dataset::default());
                None
            }
            "DATA_STORAGE" => Some(target.clone()?),
            "DATA_ACCESS" => {
                flow.inputs.insert(target?, Dataset::default());
                None
            }
            "DATA_SHARE" => Some(("recipient".to_owned(), named(text(&event.extras, "recipient")))),
            "DATA_DERIVATION" => None,
            _ => target,
        };
        let mut results = Vec::new();
        let mut from = Vec::new();
        for tag in &event.matched_tags {
            let (source, column) = place(service, text(tag, "source"));
            let field = text(tag, "field");
            if event.event_type == "DATA_DERIVATION" && text(tag, "role") == "result" {
                results.push(tag);
                continue;
            }
            let column = column.unwrap_or_else(|| field.to_owned());
            flow.inputs.entry(source.clone()).or_default().field(&column, tag);
            let input = json!({
                "namespace": source.0,
                "name": source.1,
                "field": column,
                "transformations": [transformation(event, tag)],
            });
            if let Some(output) = &output {
                let output = flow.outputs.entry(output.clone()).or_default();
                output.field(field, tag);
                output.lineage.entry(field.to_owned()).or_default().push(input);
            } else {
                from.push(input);
            }
        }
        for result in results {
            let place = (format!("derived://{service}"), named(text(result, "category")));
            let field = text(result, "field");
            let output = flow.outputs.entry(place).or_default();
            output.field(field, result);
            output.lineage.insert(field.to_owned(), from.clone());
        }
        if let Some(output) = output {
            flow.outputs.entry(output).or_default();
        }
        Some(flow)
    }

    fn run_event(&self, event: &StoredEvent, event_type: &str, at: &str) -> Json {
        let namespace = named(text(&event.extras, "service"));
        let what = match event.event_type.as_str() {
            "DATA_SHARE" => format!("DATA_SHARE {}", text(&event.extras, "recipient")),
            other => format!("{other} {}", event.target.as_deref().unwrap_or_default()),
        };
        let mut run = json!({ "runId": uuid("event", &event.event_id) });
        if let (Some(request), Some(run)) = (&event.request_id, run.as_object_mut()) {
            let parent = json!({
                "_producer": PRODUCER,
                "_schemaURL": PARENT,
                "run": { "runId": uuid("request", request) },
                "job": { "namespace": namespace, "name": named(&event.actor) },
            });
            run.insert("facets".to_owned(), json!({ "parent": parent }));
        }
        json!({
            "eventType": event_type,
            "eventTime": at,
            "producer": PRODUCER,
            "schemaURL": RUN_EVENT,
            "run": run,
            "job": { "namespace": namespace, "name": format!("{} -> {}", event.actor, what.trim_end()) },
            "inputs": datasets(&self.inputs),
            "outputs": datasets(&self.outputs),
        })
    }
}

impl Dataset {
    fn field(&mut self, name: &str, tag: &Map<String, Json>) {
        self.fields.entry(name.to_owned()).or_insert_with(|| {
            (
                canonical_category(text(tag, "category")).into_owned(),
                text(tag, "description").to_owned(),
                tag.get("pii").and_then(Json::as_bool).unwrap_or(true),
            )
        });
    }

    fn facets(&self) -> Json {
        let mut facets = Map::new();
        let facet =
            |schema: &str, key: &str, value: Json| json!({ "_producer": PRODUCER, "_schemaURL": schema, key: value });
        if !self.fields.is_empty() {
            let fields = self
                .fields
                .iter()
                .map(|(name, (_, description, _))| match description.as_str() {
                    "" => json!({ "name": name }),
                    description => json!({ "name": name, "description": description }),
                });
            facets.insert("schema".to_owned(), facet(SCHEMA, "fields", fields.collect()));
            let tags = self.fields.iter().flat_map(|(name, (category, _, pii))| {
                [("data_category", category.clone()), ("pii", pii.to_string())]
                    .map(|(key, value)| json!({ "key": key, "value": value, "source": "provenance", "field": name }))
            });
            facets.insert("tags".to_owned(), facet(TAGS, "tags", tags.collect()));
        }
        if !self.lineage.is_empty() {
            let fields: Map<_, _> = self
                .lineage
                .iter()
                .map(|(field, inputs)| (field.clone(), json!({ "inputFields": inputs })))
                .collect();
            facets.insert("columnLineage".to_owned(), facet(COLUMNS, "fields", fields.into()));
        }
        facets.into()
    }
}

fn datasets(datasets: &BTreeMap<Place, Dataset>) -> Json {
    datasets
        .iter()
        .map(|((namespace, name), dataset)| json!({ "namespace": namespace, "name": name, "facets": dataset.facets() }))
        .collect()
}

/// How a field came to be where it is.
fn transformation(event: &StoredEvent, tag: &Map<String, Json>) -> Json {
    let form = text(tag, "form");
    let (subtype, masking) = match (event.event_type.as_str(), form) {
        ("DATA_DERIVATION", _) => ("TRANSFORMATION", false),
        (_, "hashed") => ("TRANSFORMATION", true),
        (_, "embedded" | "normalised" | "encoded") => ("TRANSFORMATION", false),
        _ => ("IDENTITY", false),
    };
    json!({ "type": "DIRECT", "subtype": subtype, "description": form, "masking": masking })
}

/// The dataset that a source or target of the evidence names, and the column where it names one.
fn place(service: &str, text: &str) -> (Place, Option<String>) {
    let of = |scheme: &str, name: &str| (format!("{scheme}://{service}"), named(name));
    match text.split_once([':', ' ']) {
        Some(("db", table)) => match table.split_once('.') {
            Some((table, column)) => (of("db", table), Some(column.to_owned())),
            None => (of("db", table), None),
        },
        Some(("derived", category)) => (of("derived", category), None),
        Some(("HTTP", route)) => (of("http", route), None),
        _ => (of("source", text), None),
    }
}

/// Names are never empty.
fn named(name: &str) -> String {
    if name.is_empty() { "unknown" } else { name }.to_owned()
}

/// The same id for the same thing, in every export: version 8 of RFC 9562.
fn uuid(kind: &str, id: &str) -> String {
    let digest = Sha256::new()
        .chain_update(kind)
        .chain_update([0])
        .chain_update(id)
        .finalize();
    let mut bytes = [0; 16];
    for (byte, hashed) in bytes.iter_mut().zip(digest) {
        *byte = hashed;
    }
    bytes[6] = 0x80 | (bytes[6] & 0x0f);
    bytes[8] = 0x80 | (bytes[8] & 0x3f);
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}
