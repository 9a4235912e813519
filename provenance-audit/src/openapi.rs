//! The API's description in OpenAPI 3.1, from one table of what is there.

use serde_json::{Map, Value as Json, json};

use crate::export::Format;
use crate::params;

/// What `/openapi.json` gives.
pub(crate) fn document() -> Json {
    let mut paths = Map::new();
    for (path, summary, parameters, schema) in READ {
        let parameters: Vec<Json> = parameters.iter().map(|name| parameter(name)).collect();
        let media = if *path == "/metrics" {
            "text/plain"
        } else {
            "application/json"
        };
        let operation = json!({
            "operationId": path.trim_matches('/').replace(['/', '{', '}', '.'], "_"),
            "summary": summary,
            "parameters": parameters,
            "responses": responses(media, schema, &["400", "401", "403", "404", "429", "500"]),
        });
        paths.insert((*path).to_owned(), json!({ "get": operation }));
    }
    let media: Map<String, Json> = Format::all()
        .map(|format| (format.media_type().to_owned(), json!({ "schema": {} })))
        .collect();
    let mut export = responses("application/json", "", &["400", "401", "403", "429", "500", "503"]);
    if let Some(answer) = export.get_mut("200") {
        *answer = json!({
            "description": "The export, written while it is sent. A connection that breaks off before the last chunk: it is not whole",
            "content": media,
        });
    }
    let filters = params::EXPORT.iter().map(|name| parameter(name));
    paths.insert(
        "/export".to_owned(),
        json!({ "get": {
            "operationId": "export",
            "summary": "The evidence as a file, newest events first",
            "description": "Recorded as an AUDIT_ACCESS event before anything is read. Two are made at a time.",
            "parameters": filters.collect::<Vec<_>>(),
            "responses": export,
        } }),
    );
    for (path, role, summary, body, schema) in ASK {
        let operation = json!({
            "operationId": path.trim_matches('/'),
            "summary": summary,
            "description": format!("Recorded as an AUDIT_ACCESS event before it is answered. Needs the role `{role}`."),
            "requestBody": {
                "required": true,
                "content": { "application/json": { "schema": reference(body) } },
            },
            "responses": responses("application/json", schema, &["400", "401", "403", "409", "413", "415", "429", "500", "503"]),
        });
        paths.insert((*path).to_owned(), json!({ "post": operation }));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Provenance audit API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What a service was seen to do with personal data. Values are fingerprints, people pseudonyms.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/runtime-audit" }],
        "security": [{ "bearer": [] }, { "header": [] }, {}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer" },
                "header": { "type": "apiKey", "in": "header", "name": "X-Audit-Token" },
            },
            "schemas": schemas(),
        },
    })
}

/// Path, summary, parameters, schema.
const READ: &[(&str, &str, &[&str], &str)] = &[
    (
        "/status",
        "State of the evidence and of the running service",
        &[],
        "Status",
    ),
    (
        "/events",
        "Events, newest first; a share is one event with its outcome",
        &[
            "limit",
            "event_type",
            "since",
            "until",
            "category",
            "recipient",
            "request_id",
            "fingerprint",
            "cursor",
        ],
        "EventPage",
    ),
    (
        "/fingerprints",
        "Values, by first appearance, newest first",
        &["limit", "category", "cursor"],
        "FingerprintPage",
    ),
    (
        "/lineage/{fingerprint}",
        "What became of one value, and of what was derived from it",
        &["{fingerprint}"],
        "Lineage",
    ),
    (
        "/recipients",
        "Who gets personal data, undeclared ones first",
        &[],
        "Recipients",
    ),
    (
        "/flows",
        "What went where, summed by UTC day",
        &["since", "until"],
        "Flows",
    ),
    ("/inventory", "Declared against observed", &[], "Comparison"),
    ("/coverage", "What the hooks cannot see", &[], "Coverage"),
    ("/metrics", "Figures in Prometheus' text format", &[], ""),
    ("/openapi.json", "This document", &[], "Document"),
];

/// Path, role, summary, schema of the body, schema.
const ASK: &[(&str, &str, &str, &str, &str)] = &[
    (
        "/subjects",
        "subject",
        "What was observed of one person",
        "Subject",
        "Person",
    ),
    (
        "/erasure",
        "erase",
        "Erases a person: without `confirmation` a preview, which gives it and names who must be told (GDPR Art. 19)",
        "Erase",
        "Erasure",
    ),
    (
        "/affected",
        "subject",
        "Who was affected by what a recipient got",
        "Incident",
        "Affected",
    ),
];

fn reference(schema: &str) -> Json {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn responses(media: &str, schema: &str, errors: &[&str]) -> Map<String, Json> {
    let schema = match schema {
        "" => json!({ "type": "string" }),
        schema => reference(schema),
    };
    let mut responses = Map::new();
    responses.insert(
        "200".to_owned(),
        json!({ "description": "The answer", "content": { media: { "schema": schema } } }),
    );
    for status in errors {
        let response = json!({
            "description": meaning(status),
            "content": { "application/json": { "schema": reference("Error") } },
        });
        responses.insert((*status).to_owned(), response);
    }
    responses
}

fn meaning(status: &str) -> &'static str {
    match status {
        "400" => "A parameter is not what it should be; the text names it, and never repeats its value",
        "401" => "No token, or one that is not known",
        "403" => "A foreign Host or origin, or a token that lacks the role",
        "404" => "Nothing is there",
        "409" => "A confirmation that does not fit (any more)",
        "413" => "A body of more than 64 KiB",
        "415" => "A body that is not JSON",
        "429" => "Too many wrong tokens came from this address",
        "503" => "There is no key, the question cannot be recorded, or too many exports are being made",
        _ => "The evidence cannot be read",
    }
}

fn parameter(name: &str) -> Json {
    let (text, schema) = match name {
        "{fingerprint}" | "fingerprint" => (
            "64 hex digits, in lower case",
            json!({ "type": "string", "pattern": "^[0-9a-f]{64}$" }),
        ),
        "limit" => (
            "Most entries of the page; above 500 it counts as 500",
            json!({ "type": "integer", "minimum": 1, "default": 100 }),
        ),
        "event_type" => (
            "Only events of this type",
            json!({ "type": "string", "pattern": "^([A-Z][A-Z0-9_]{0,63})?$", "examples": ["DATA_SHARE"] }),
        ),
        "since" | "until" => (
            "RFC 3339 with an offset, or a date (midnight UTC); `since` is included, `until` is not",
            json!({ "type": "string", "anyOf": [{ "format": "date-time" }, { "format": "date" }] }),
        ),
        "category" => (
            "Any spelling of a category",
            json!({ "type": "string", "maxLength": 128, "pattern": "^([a-z][a-z0-9_]*(\\.[a-z][a-z0-9_]*)*)?$" }),
        ),
        "recipient" => (
            "Only shares with this recipient",
            json!({ "type": "string", "maxLength": 256 }),
        ),
        "cursor" => (
            "The `next_cursor` of the page before",
            json!({ "type": "string", "maxLength": 256 }),
        ),
        "format" => {
            let names: Vec<_> = Format::all().map(Format::name).collect();
            ("How it is written", json!({ "type": "string", "enum": names }))
        }
        "reason" => ("Why", reason()),
        _ => (
            "Only events of this request",
            json!({ "type": "string", "maxLength": 256 }),
        ),
    };
    let is_path = name.starts_with('{');
    json!({
        "name": name.trim_matches(['{', '}']),
        "in": if is_path { "path" } else { "query" },
        "required": is_path || matches!(name, "format" | "reason"),
        "description": text,
        "schema": schema,
    })
}

fn schemas() -> Json {
    let text = || json!({ "type": "string" });
    let maybe = || json!({ "type": ["string", "null"] });
    let number = || json!({ "type": "integer" });
    let flag = || json!({ "type": "boolean" });
    let time = || json!({ "type": "string", "format": "date-time" });
    let maybe_time = || json!({ "type": ["string", "null"], "format": "date-time" });
    let list = |of: Json| json!({ "type": "array", "items": of });
    let map = |of: Json| json!({ "type": "object", "additionalProperties": of });
    let any = || json!({ "type": "object" });
    let object = |properties: Json| {
        let required: Vec<&String> = properties.as_object().into_iter().flat_map(Map::keys).collect();
        json!({ "type": "object", "required": required, "properties": properties })
    };
    let seen = || object(json!({ "events": number(), "first_at": time(), "last_at": time() }));
    let met = || object(json!({ "fingerprint": text(), "category": text(), "field": text(), "generation": number() }));
    let named = json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["kind", "identifier"],
        "properties": { "kind": kind(), "identifier": identifier() },
    });
    json!({
        "Error": object(json!({ "error": text() })),
        "Document": any(),
        "Status": object(json!({
            "embedded": flag(), "version": text(), "storage_path": text(), "events": map(number()), "fingerprints": number(),
            "chain": any(), "key_id": maybe(), "registry_size": { "type": ["integer", "null"] },
            "continued": { "type": ["object", "null"] },
            "queue": { "type": ["object", "null"] }, "blind_spots": { "type": ["array", "null"] },
            "tracked_models": { "type": ["object", "null"] }, "input_fields": { "type": ["object", "null"] },
        })),
        "EventPage": object(json!({ "events": list(reference("Event")), "next_cursor": maybe() })),
        "Event": object(json!({
            "event_id": text(), "created_at": time(), "event_type": text(), "actor": text(), "target": maybe(), "payload": any(),
            "request_id": maybe(), "user_id": maybe(), "matched_tags": list(any()), "extras": any(),
        })),
        "FingerprintPage": object(json!({
            "fingerprints": list(object(json!({
                "fingerprint": text(), "first_seen_event_id": maybe(), "first_seen_at": time(), "last_seen_at": time(),
                "field": text(), "category": text(), "description": text(), "owner": maybe(), "source": text(), "count": number(),
            }))),
            "next_cursor": maybe(),
        })),
        "Lineage": object(json!({
            "fingerprint": text(), "values": list(met()), "derived_from": list(met()), "complete": flag(),
            "steps": list(object(json!({
                "at": time(), "stage": text(), "event_id": text(), "event_type": text(), "actor": text(), "target": maybe(),
                "recipient": maybe(), "outcome": maybe(), "purpose": maybe(), "site": maybe(), "fingerprint": text(),
                "category": text(), "field": text(), "form": maybe(), "generation": number(),
            }))),
        })),
        "Recipients": object(json!({ "recipients": list(object(json!({
            "recipient": text(), "declared": flag(), "role": maybe(), "legal_name": maybe(), "country": maybe(),
            "safeguard": maybe(), "categories": map(number()), "special_categories": list(text()), "purposes": list(text()),
            "outcomes": map(number()), "newest_shares": number(), "unscanned": number(), "targets": list(text()), "violations": map(number()), "first_day": maybe(), "last_day": maybe(),
        }))) })),
        "Flows": object(json!({
            "complete": flag(),
            "flows": list(object(json!({
                "day": text(), "event_type": text(), "actor": text(), "target": maybe(), "recipient": maybe(), "category": text(),
                "field": text(), "source": text(), "pii": flag(), "events": number(),
            }))),
        })),
        "Comparison": object(json!({
            "inventory_known": flag(), "declared": list(any()), "seen": number(), "undeclared_recipients": map(number()),
            "never_seen": list(object(json!({ "what": text(), "name": text(), "category": maybe(), "at": maybe(), "looked_at": text() }))),
            "undeclared": list(object(json!({ "what": text(), "name": text(), "category": text(), "events": number() }))),
        })),
        "Coverage": object(json!({
            "embedded": flag(), "inventory_known": flag(), "declared_seen": number(), "declared_never_seen": list(any()),
            "unvisited_inputs": list(any()), "blind_spots": { "type": ["array", "null"] },
            "reads_without_model": { "type": ["object", "null"] }, "registry": { "type": ["object", "null"] }, "queue": { "type": ["object", "null"] },
        })),
        "Subject": {
            "type": "object",
            "additionalProperties": false,
            "required": ["kind", "identifier", "reason"],
            "properties": { "kind": kind(), "identifier": identifier(), "reason": reason() },
        },
        "Erase": {
            "type": "object",
            "additionalProperties": false,
            "required": ["kind", "identifier", "reason"],
            "properties": {
                "kind": kind(), "identifier": identifier(), "reason": reason(),
                "confirmation": { "type": ["string", "null"], "description": "The word that the preview gave" },
            },
        },
        "Erasure": {
            "type": "object",
            "required": ["state", "person", "identifiers", "events", "values", "to_be_told"],
            "properties": {
                "state": { "enum": ["preview", "erased"] },
                "person": text(), "identifiers": number(), "events": number(), "values": number(),
                "to_be_told": list(object(json!({
                    "recipient": text(), "legal_name": maybe(), "country": maybe(), "shares": number(), "first_at": time(),
                    "last_at": time(), "categories": list(text()),
                }))),
                "confirmation": text(), "valid_until": time(), "erasure": text(), "event_id": maybe(), "damaged": number(),
                "log_emptied": flag(),
                "log": object(json!({ "erasure": text(), "at": time(), "event_id": maybe(), "owners": list(text()) })),
            },
        },
        "Person": object(json!({
            "note": text(), "as_of": time(), "identifiers": list(text()), "events": number(), "complete": flag(),
            "first_at": maybe_time(), "last_at": maybe_time(),
            "categories": list(object(json!({
                "category": text(), "special": maybe(), "fields": list(text()), "descriptions": list(text()), "from": map(seen()),
                "stored": map(seen()), "used_for": map(seen()), "shared": map(seen()), "purposes": list(text()),
            }))),
            "recipients": list(object(json!({
                "recipient": text(), "legal_name": maybe(), "role": maybe(), "country": maybe(), "safeguard": maybe(),
                "declared": flag(), "left": flag(), "categories": list(text()), "purposes": list(text()),
                "legal_bases": list(text()), "outcomes": map(number()), "events": number(), "first_at": time(), "last_at": time(),
            }))),
            "asked": list(object(json!({ "at": time(), "event_type": text(), "by": text(), "what": text(), "reason": text() }))),
        })),
        "Incident": {
            "type": "object",
            "additionalProperties": false,
            "required": ["recipient", "reason"],
            "properties": {
                "recipient": { "type": "string", "minLength": 1, "maxLength": 256 },
                "since": maybe_time(),
                "until": maybe_time(),
                "category": { "type": ["string", "null"], "maxLength": 128 },
                "reason": reason(),
                "identifiers": { "type": "array", "maxItems": 1000, "items": named },
            },
        },
        "Affected": object(json!({
            "shares": number(), "people": number(), "shares_of_unknown_people": number(), "blocked_shares": number(), "categories": map(number()),
            "matched": list(number()), "unmatched_people": number(), "complete": flag(),
            "listed": list(object(json!({
                "identifiers": list(text()), "categories": list(text()), "events": number(), "first_at": time(), "last_at": time(),
            }))),
        })),
    })
}

fn kind() -> Json {
    json!({ "type": "string", "pattern": "^[a-z][a-z0-9_]{0,31}$", "examples": ["email", "user"] })
}

fn identifier() -> Json {
    json!({ "type": "string", "minLength": 1, "maxLength": 1024 })
}

fn reason() -> Json {
    json!({ "type": "string", "minLength": 1, "maxLength": 500, "description": "Recorded: a case number, no name" })
}
