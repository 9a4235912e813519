//! The audit API as a function from request to response: no socket, no thread, no panic.
//!
//! | path | parameters |
//! |---|---|
//! | `/runtime-audit/status` | none |
//! | `/runtime-audit/events` | `limit`, `event_type`, `since`, `until`, `category`, `recipient`, `request_id`, `cursor` |
//! | `/runtime-audit/fingerprints` | `limit`, `category`, `cursor` |
//!
//! - `limit`: 1 or more, 100 if left out; above 500 it counts as 500.
//! - `event_type`: `DATA_SHARE`, ...; one that never occurred gives an empty list.
//! - `since` (at or after), `until` (before): RFC 3339 with an offset, or a date (midnight UTC).
//! - `category`: any spelling of it. `cursor`: the `next_cursor` of the page before.
//! - Every other parameter, and each one given twice, is an error; one given empty (`since=`) counts
//!   as left out, but for `limit`.
//!
//! Errors are `{"error": text}`: 400 for a parameter (its name, never its value), 401 without the
//! token, 403 for a foreign `Host`, 404, 405, 414, and 500 when the evidence cannot be read.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use provenance::config::{InputField, Storage};
use provenance::inventory::{Entry, inventory};
use provenance::store::Reader;
use provenance::{Config, Tracker};
use serde::Serialize;
use serde_json::{Map, Value as Json, json};

use crate::Error;
use crate::access::Access;
use crate::params::{self, Params};

/// Path and query together, in bytes.
const MAX_TARGET: usize = 8 * 1024;

const HEADERS: [(&str, &str); 6] = [
    ("content-type", "application/json; charset=utf-8"),
    ("cache-control", "no-store"),
    ("x-content-type-options", "nosniff"),
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
    ("cross-origin-resource-policy", "same-origin"),
    ("referrer-policy", "no-referrer"),
];

/// Answers audit requests from one evidence store.
pub struct Api {
    source: Source,
    storage: Storage,
    access: Access,
    /// Models and inputs of this process, for `/status`.
    declared: Map<String, Json>,
    /// Readers at rest: one for each request that was ever in progress at the same time.
    readers: Mutex<Vec<Reader>>,
}

/// Where the evidence is.
#[non_exhaustive]
pub enum Source {
    /// In a running service: status also shows its registry, queue and blind spots.
    Tracker(Tracker),
    /// In a file, which a service may be writing at the same time.
    File(PathBuf),
    /// Where `storage_path` says: in a file, or with the feature `postgres-store` in a PostgreSQL database.
    Storage(Storage),
}

/// Who may ask.
#[derive(Clone)]
pub struct Options {
    pub(crate) token: String,
    pub(crate) query_token: bool,
}

/// One request. Header names in any case.
#[derive(Clone, Default)]
pub struct Request {
    /// `GET`, ...
    pub method: String,
    /// The path, still percent-encoded: `/runtime-audit/events`.
    pub path: String,
    /// What follows the `?`, still encoded.
    pub query: Option<String>,
    /// All headers. An absolute request target's host must be among them as a second `host`.
    pub headers: Vec<(String, Vec<u8>)>,
}

/// One response. To `HEAD` the body is the one that `GET` gets, and must not be sent.
#[derive(Clone, Debug)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// All headers, but those of the transport (length, date, connection).
    pub headers: Vec<(&'static str, &'static str)>,
    /// JSON.
    pub body: Vec<u8>,
}

impl Options {
    /// No token: served on loopback only, to a `Host` that names it.
    pub fn new() -> Self {
        Options {
            token: String::new(),
            query_token: true,
        }
    }

    /// What the configuration says.
    pub fn of(config: &Config) -> Self {
        Options::new()
            .token(&config.audit_token.0)
            .query_token(config.audit_query_token)
    }

    /// The token that every request must bring; an empty one is none.
    pub fn token(mut self, token: &str) -> Self {
        token.clone_into(&mut self.token);
        self
    }

    /// Whether the token is also taken from the `audit_token` query parameter (default: yes).
    pub fn query_token(mut self, taken: bool) -> Self {
        self.query_token = taken;
        self
    }
}

impl Default for Options {
    fn default() -> Self {
        Options::new()
    }
}

impl Api {
    /// An API over `source`. The evidence is opened when the first request asks for it.
    ///
    /// # Errors
    /// [`Error::Storage`] when the evidence is not in a file, and the feature `postgres-store` is off.
    pub fn new(source: Source, options: &Options) -> Result<Self, Error> {
        let (storage, declared) = match &source {
            Source::File(path) => (Storage::Sqlite(path.clone()), Map::new()),
            Source::Storage(storage) => (storage.clone(), Map::new()),
            Source::Tracker(tracker) => (tracker.config().storage.clone(), declared(tracker.config())),
        };
        if cfg!(not(feature = "postgres-store")) && matches!(storage, Storage::Postgres(_)) {
            return Err(Error::Storage);
        }
        Ok(Api {
            source,
            storage,
            access: Access::new(options),
            declared,
            readers: Mutex::default(),
        })
    }

    /// Whether a token is asked for. Without one, serve on loopback only.
    pub fn is_protected(&self) -> bool {
        self.access.is_protected()
    }

    /// Answers one request. Nothing is revealed, not even which paths exist, before access is granted.
    pub fn handle(&self, request: &Request) -> Response {
        let (status, body) = match self.answer(request) {
            Ok(body) => (200, body),
            Err(refusal) => (refusal.status, refusal.to_json()),
        };
        let mut headers = HEADERS.to_vec();
        match status {
            401 => headers.push(("www-authenticate", "Bearer")),
            405 => headers.push(("allow", "GET, HEAD")),
            _ => {}
        }
        Response { status, headers, body }
    }

    fn answer(&self, request: &Request) -> Result<Vec<u8>, Refusal> {
        let query = request.query.as_deref().unwrap_or("");
        if request.path.len() + query.len() > MAX_TARGET {
            return Err(Refusal::new(414, "the address is too long"));
        }
        let pairs: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
        self.access.check(&request.headers, &pairs)?;
        let Some(endpoint) = Endpoint::at(&request.path) else {
            return Err(Refusal::new(
                404,
                "unknown path: there are /runtime-audit/status, /runtime-audit/events and /runtime-audit/fingerprints",
            ));
        };
        if !matches!(request.method.as_str(), "GET" | "HEAD") {
            return Err(Refusal::new(405, "this path takes GET and HEAD"));
        }
        match endpoint {
            Endpoint::Status => {
                Params::read(&pairs, &[])?;
                to_json(&self.status()?)
            }
            Endpoint::Events => {
                let query = Params::read(&pairs, params::EVENTS)?.events()?;
                to_json(&self.ask(|reader| reader.events(&query))?)
            }
            Endpoint::Fingerprints => {
                let query = Params::read(&pairs, params::FINGERPRINTS)?.fingerprints()?;
                to_json(&self.ask(|reader| reader.fingerprints(&query))?)
            }
        }
    }

    fn status(&self) -> Result<Json, Refusal> {
        let file = self.ask(Reader::summary)?;
        let mut status = Map::new();
        if let Source::Tracker(tracker) = &self.source {
            status = tracker.status();
            status.extend(self.declared.clone());
        }
        status.insert("embedded".into(), matches!(self.source, Source::Tracker(_)).into());
        status.insert("version".into(), env!("CARGO_PKG_VERSION").into());
        status.insert("storage_path".into(), self.storage.to_string().into());
        status.insert("events".into(), json!(file.events));
        status.insert("fingerprints".into(), file.fingerprints.into());
        status.insert("chain".into(), file.chain.into());
        // The process knows its key before the file does.
        status.entry("key_id").or_insert(file.key_id.into());
        for only_inside in [
            "registry_size",
            "tracked_models",
            "input_fields",
            "queue",
            "blind_spots",
        ] {
            status.entry(only_inside).or_insert(Json::Null);
        }
        Ok(status.into())
    }

    /// Lends a reader to `ask`. One that failed is dropped, so that the next request opens the file anew.
    fn ask<T>(&self, ask: impl FnOnce(&mut Reader) -> Result<T, provenance::Error>) -> Result<T, Refusal> {
        let resting = lock(&self.readers).pop();
        let mut reader = match resting {
            Some(reader) => reader,
            None => Reader::connect(&self.storage).map_err(|error| unreadable(&error))?,
        };
        match ask(&mut reader) {
            Err(error) if !error.is_input() => Err(unreadable(&error)),
            answer => {
                lock(&self.readers).push(reader);
                answer.map_err(|_| Refusal::new(400, "cursor: expected a next_cursor of this listing"))
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Endpoint {
    Status,
    Events,
    Fingerprints,
}

impl Endpoint {
    fn at(path: &str) -> Option<Self> {
        Some(match path.strip_prefix("/runtime-audit/")? {
            "status" => Endpoint::Status,
            "events" => Endpoint::Events,
            "fingerprints" => Endpoint::Fingerprints,
            _ => return None,
        })
    }
}

/// Why a request gets no answer.
pub(crate) struct Refusal {
    status: u16,
    message: String,
}

impl Refusal {
    /// `message` goes out as it is: it must not hold anything of the request but a checked parameter name.
    pub(crate) fn new(status: u16, message: impl Into<String>) -> Self {
        Refusal {
            status,
            message: message.into(),
        }
    }

    fn to_json(&self) -> Vec<u8> {
        json!({ "error": self.message }).to_string().into_bytes()
    }
}

fn unreadable(error: &provenance::Error) -> Refusal {
    Refusal::new(500, format!("the evidence cannot be read: {error}"))
}

fn to_json(answer: &impl Serialize) -> Result<Vec<u8>, Refusal> {
    serde_json::to_vec(answer).map_err(|_| Refusal::new(500, "the evidence cannot be shown as JSON"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What this process declares, by attributes and by configuration.
fn declared(config: &Config) -> Map<String, Json> {
    let mut models = Map::new();
    for (name, model) in &config.tracked_models {
        models.insert(name.clone(), json!({ "at": "config", "fields": fields(&model.fields) }));
    }
    for model in inventory().iter().filter(|entry| entry.kind == "model") {
        let name = model.path.rsplit("::").next().unwrap_or(&model.path);
        // Types of one name in two modules.
        let name = if models.contains_key(name) { &model.path } else { name };
        let shown = json!({
            "path": model.path,
            "at": model.at,
            "table": model.rest.get("table"),
            "fields": model_fields(model),
        });
        models.insert(name.to_owned(), shown);
    }
    Map::from_iter([
        ("tracked_models".to_owned(), models.into()),
        ("input_fields".to_owned(), fields(&config.input_fields)),
    ])
}

fn model_fields(model: &Entry) -> Map<String, Json> {
    let listed = model.rest.get("fields").and_then(Json::as_array);
    let fields = listed.into_iter().flatten().filter_map(|field| {
        let name = field.get("column").or_else(|| field.get("name"))?.as_str()?;
        Some((name.to_owned(), field.clone()))
    });
    fields.collect()
}

fn fields(fields: &BTreeMap<String, InputField>) -> Json {
    let fields: Map<_, _> = fields
        .iter()
        .map(|(name, field)| {
            let shown = json!({ "category": field.category, "description": field.description, "pii": field.pii });
            (name.clone(), shown)
        })
        .collect();
    fields.into()
}
