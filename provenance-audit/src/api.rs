//! The audit API and its pages as a function from request to response: no socket, no thread, no panic.
//!
//! | path below `/runtime-audit` | takes | role |
//! |---|---|---|
//! | `/status` | none | read |
//! | `/events` | `limit`, `event_type`, `since`, `until`, `category`, `recipient`, `request_id`, `fingerprint`, `cursor` | read |
//! | `/fingerprints` | `limit`, `category`, `cursor` | read |
//! | `/lineage/{fingerprint}` | none | read |
//! | `/recipients`, `/inventory`, `/coverage`, `/metrics`, `/openapi.json` | none | read |
//! | `/flows` | `since`, `until` | read |
//! | `/subjects` | POST, JSON: `kind`, `identifier`, `reason` | subject |
//! | `/affected` | POST, JSON: `recipient`, `since`, `until`, `category`, `identifiers`, `reason` | subject |
//! | `/`, `/view/..` | pages, for people | as what they show |
//!
//! - `limit`: 1 or more, 100 if left out; above 500 it counts as 500.
//! - `event_type`: `DATA_SHARE`, ...; one that never occurred gives an empty list.
//! - `since` (at or after), `until` (before): RFC 3339 with an offset, or a date (midnight UTC).
//! - `category`: any spelling of it. `cursor`: the `next_cursor` of the page before.
//! - Every other parameter, and each one given twice, is an error; one given empty (`since=`) counts
//!   as left out, but for `limit`.
//!
//! Errors are `{"error": text}`: 400 for a parameter (its name, never its value), 401 without a
//! token, 403 for a foreign `Host` or origin and for a token that lacks the role, 404, 405, 413, 414, 415,
//! 429 after many wrong tokens, 500 when the evidence cannot be read, and 503 when a question about a person cannot be
//! recorded. `docs/audit.md` says what each answer and page means.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use provenance::config::{AuditRole, AuditToken, InputField, Storage, Token};
use provenance::inventory::{Entry, inventory};
use provenance::store::{Reader, in_force};
use provenance::{Config, Owner, Pseudonyms, Tracker};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json, json};

use crate::Error;
use crate::access::{self, Access, Caller, QUERY_TOKEN};
use crate::answers::affected::Affected;
use crate::answers::declared::Comparison;
use crate::answers::person::Person;
use crate::answers::{affected, coverage, declared, lineage, metrics, person, recipients};
use crate::params::{self, Incident, IncidentQuestion, Params, PersonQuestion, Subject, Who};
use crate::{openapi, pages};

/// Path and query together, in bytes.
const MAX_TARGET: usize = 8 * 1024;
/// The body of a request, in bytes.
pub const MAX_BODY: usize = 64 * 1024;
/// Most rows of `/flows`.
const MAX_FLOWS: usize = 20_000;

/// The master key, as the service gets it.
const KEY_VARIABLE: &str = "RUNTIME_TRACKING_KEY";

const JSON: &str = "application/json; charset=utf-8";
const HEADERS: [(&str, &str); 4] = [
    ("cache-control", "no-store"),
    ("x-content-type-options", "nosniff"),
    ("cross-origin-resource-policy", "same-origin"),
    ("referrer-policy", "no-referrer"),
];

/// Answers audit requests from one evidence store.
pub struct Api {
    source: Source,
    storage: Storage,
    config: Config,
    access: Access,
    /// What this process declares.
    inventory: Vec<Entry>,
    /// The same, for `/status`.
    declared: Map<String, Json>,
    /// Readers at rest: one for each request that was ever in progress at the same time.
    readers: Mutex<Vec<(Storage, Reader)>>,
    pseudonyms: Mutex<Option<Arc<Pseudonyms>>>,
    /// Records who asked, where no service does.
    recorder: Mutex<Option<Tracker>>,
}

/// Where the evidence is.
#[non_exhaustive]
pub enum Source {
    /// In a running service: status also shows its registry, queue and blind spots.
    Tracker(Tracker),
    /// In a file, which a service may be writing at the same time. Questions about people need its key (of the
    /// configuration in [`Options::of`], else of `RUNTIME_TRACKING_KEY`, else beside the file), and are recorded in it.
    File(PathBuf),
    /// Where `storage_path` says: in a file, or with the feature `postgres-store` in a PostgreSQL database.
    Storage(Storage),
}

/// Who may ask.
#[derive(Clone)]
pub struct Options {
    pub(crate) token: String,
    pub(crate) tokens: Vec<AuditToken>,
    pub(crate) query_token: bool,
    config: Config,
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
    /// The body, decoded of its transfer; longer ones than [`MAX_BODY`] are refused.
    pub body: Vec<u8>,
    /// Who sent it, if that is known: wrong tokens are counted by address.
    pub client: Option<IpAddr>,
}

/// One response. To `HEAD` the body is the one that `GET` gets, and must not be sent.
#[derive(Clone, Debug)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// All headers, but those of the transport (length, date, connection).
    pub headers: Vec<(&'static str, Cow<'static, str>)>,
    /// JSON, or what `content-type` says.
    pub body: Vec<u8>,
}

impl Request {
    /// The first header of this name, if it is text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.and_then(|(_, value)| std::str::from_utf8(value).ok())
    }

    /// Whether the client came by TLS, as far as a proxy in front of us tells.
    pub(crate) fn is_https(&self) -> bool {
        self.header("x-forwarded-proto")
            .is_some_and(|proto| proto.trim().eq_ignore_ascii_case("https"))
    }

    pub(crate) fn is_reading(&self) -> bool {
        matches!(self.method.as_str(), "GET" | "HEAD")
    }

    fn has_json(&self) -> bool {
        let media = self.header("content-type").unwrap_or("");
        let media = media.split(';').next().unwrap_or("").trim();
        media.eq_ignore_ascii_case("application/json")
    }
}

impl Options {
    /// No token: served on loopback only, to a `Host` that names it.
    pub fn new() -> Self {
        Options {
            token: String::new(),
            tokens: Vec::new(),
            query_token: true,
            config: Config::default(),
        }
    }

    /// What the configuration says, of recipients and the key too.
    pub fn of(config: &Config) -> Self {
        Options {
            token: config.audit_token.0.clone(),
            tokens: config.audit_tokens.clone(),
            query_token: config.audit_query_token,
            config: config.clone(),
        }
    }

    /// The token that every request must bring, or one that [`Options::of`] knows by name; an empty one is none.
    /// It opens everything but erasure.
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
        let (storage, config) = match &source {
            Source::Tracker(tracker) => (tracker.config().storage.clone(), tracker.config().clone()),
            Source::File(path) => (Storage::Sqlite(path.clone()), options.config.clone()),
            Source::Storage(storage) => (storage.clone(), options.config.clone()),
        };
        if cfg!(not(feature = "postgres-store")) && matches!(storage, Storage::Postgres(_)) {
            return Err(Error::Storage);
        }
        let mut config = config;
        config.storage = storage.clone();
        if !matches!(source, Source::Tracker(_)) {
            // Where no configuration was loaded that has it already.
            let given = || std::env::var(KEY_VARIABLE).ok().filter(|key| !key.is_empty());
            config.key = config.key.or_else(|| given().map(Token));
        }
        let place = match &storage {
            Storage::Sqlite(path) => path.to_string_lossy().into_owned(),
            Storage::Postgres(_) => "postgresql".to_owned(),
        };
        let (inventory, declared) = match &source {
            Source::Tracker(_) => {
                let entries = inventory();
                let declared = declared_by(&config, &entries);
                (entries, declared)
            }
            _ => (Vec::new(), Map::new()),
        };
        Ok(Api {
            source,
            access: Access::new(options, &place),
            storage,
            config,
            inventory,
            declared,
            readers: Mutex::default(),
            pseudonyms: Mutex::default(),
            recorder: Mutex::default(),
        })
    }

    /// Whether a token is asked for. Without one, serve on loopback only.
    pub fn is_protected(&self) -> bool {
        self.access.is_protected()
    }

    /// Answers one request. Nothing is revealed, not even which paths exist, before access is granted.
    pub fn handle(&self, request: &Request) -> Response {
        let is_page = pages::is_page(&request.path);
        let reply = self.reply(request, is_page).unwrap_or_else(|refusal| match is_page {
            true => pages::refused(request, refusal),
            false => refusal.into_reply(),
        });
        reply.into_response()
    }

    fn reply(&self, request: &Request, is_page: bool) -> Result<Reply, Refusal> {
        let query = request.query.as_deref().unwrap_or("");
        if request.path.len() + query.len() > MAX_TARGET {
            return Err(Refusal::new(414, "the address is too long"));
        }
        if request.body.len() > MAX_BODY {
            return Err(Refusal::new(413, "the body is longer than 64 KiB"));
        }
        if let Some(reply) = pages::public(self, request)? {
            return Ok(reply);
        }
        let pairs: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
        let caller = self.access.check(request, &pairs)?;
        if !request.is_reading() {
            access::check_origin(request)?;
        }
        if is_page {
            return pages::answer(self, request, &pairs, &caller);
        }
        let Some(endpoint) = Endpoint::at(&request.path) else {
            return Err(Refusal::new(404, UNKNOWN_PATH));
        };
        if !endpoint.takes(&request.method) {
            let refusal = Refusal::new(405, format!("this path takes {}", endpoint.methods()));
            return Err(refusal.with("allow", endpoint.methods()));
        }
        caller.must(endpoint.role())?;
        self.endpoint(endpoint, request, &pairs, &caller)
    }

    fn endpoint(
        &self,
        endpoint: Endpoint<'_>,
        request: &Request,
        pairs: &[(Cow<'_, str>, Cow<'_, str>)],
        caller: &Caller,
    ) -> Result<Reply, Refusal> {
        let taken = match endpoint {
            Endpoint::Events => params::EVENTS,
            Endpoint::Fingerprints => params::FINGERPRINTS,
            Endpoint::Flows => params::FLOWS,
            _ => &[],
        };
        let params = Params::read(pairs, taken)?;
        match endpoint {
            Endpoint::Status => Reply::json(&self.status()?),
            Endpoint::Events => {
                let query = params.events()?;
                Reply::json(&self.ask(|reader| reader.events(&query))?)
            }
            Endpoint::Fingerprints => {
                let query = params.fingerprints()?;
                Reply::json(&self.ask(|reader| reader.fingerprints(&query))?)
            }
            Endpoint::Lineage(fingerprint) => match self.lineage(fingerprint)? {
                Some(lineage) => Reply::json(&lineage),
                None => Err(Refusal::new(404, "no event carries this fingerprint")),
            },
            Endpoint::Recipients => Reply::json(&json!({ "recipients": self.recipients()? })),
            Endpoint::Flows => {
                let query = params.flows()?;
                let mut flows = self.ask(|reader| reader.flows(&query))?;
                let complete = flows.len() <= MAX_FLOWS;
                flows.truncate(MAX_FLOWS);
                Reply::json(&json!({ "flows": flows, "complete": complete }))
            }
            Endpoint::Inventory => Reply::json(&self.comparison()?),
            Endpoint::Coverage => {
                let status = self.tracker().map(Tracker::status);
                Reply::json(&coverage::of(status.as_ref(), &self.comparison()?))
            }
            Endpoint::Metrics => {
                let file = self.ask(Reader::summary)?;
                let status = self.tracker().map(Tracker::status);
                let text = metrics::of(&file, status.as_ref());
                Ok(Reply::new("text/plain; version=0.0.4; charset=utf-8", text))
            }
            Endpoint::OpenApi => Reply::json(&openapi::document()),
            Endpoint::Subjects => {
                let question = body::<Subject>(request, "kind, identifier and reason")?.checked()?;
                Reply::json(&self.person(caller, &question, "subject")?)
            }
            Endpoint::Affected => {
                let expected = "recipient and reason, and may hold since, until, category and identifiers";
                let question = body::<Incident>(request, expected)?.checked()?;
                Reply::json(&self.affected(caller, &question)?)
            }
        }
    }

    pub(crate) fn status(&self) -> Result<Json, Refusal> {
        let file = self.ask(Reader::summary)?;
        let mut status = Map::new();
        if let Source::Tracker(tracker) = &self.source {
            status = tracker.status();
            status.extend(self.declared.clone());
        }
        status.insert("embedded".into(), matches!(self.source, Source::Tracker(_)).into());
        status.insert("version".into(), env!("CARGO_PKG_VERSION").into());
        status.insert("storage_path".into(), self.storage().to_string().into());
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
            "continued",
        ] {
            status.entry(only_inside).or_insert(Json::Null);
        }
        Ok(status.into())
    }

    pub(crate) fn lineage(&self, fingerprint: &str) -> Result<Option<lineage::Lineage>, Refusal> {
        if !params::is_fingerprint(fingerprint) {
            return Err(Refusal::new(400, "fingerprint: expected 64 hex digits, in lower case"));
        }
        self.ask(|reader| lineage::of(reader, fingerprint))
    }

    pub(crate) fn recipients(&self) -> Result<Vec<recipients::Recipient>, Refusal> {
        self.ask(|reader| recipients::of(reader, &self.config, &self.inventory))
    }

    pub(crate) fn comparison(&self) -> Result<Comparison, Refusal> {
        self.ask(|reader| declared::of(reader, &self.config, &self.inventory))
    }

    /// What was observed of a person. That it was asked is on disk before anything is read.
    pub(crate) fn person(&self, caller: &Caller, question: &PersonQuestion, what: &str) -> Result<Person, Refusal> {
        caller.must(AuditRole::Subject)?;
        let owner = match &question.who {
            Who::Identifier { kind, identifier } => self.pseudonyms()?.owner(kind, identifier),
            // Nothing else: what was asked is kept.
            Who::Pseudonym(stored) => Owner::from_stored(stored).filter(|_| is_pseudonym(stored, &self.config)),
        };
        let owner = owner.ok_or_else(|| Refusal::new(400, "identifier: not one of this kind"))?;
        self.record(caller, what, &question.reason, Some(&owner))?;
        self.ask(|reader| person::of(reader, &owner, &self.config))
    }

    /// Who was affected. That it was asked is on disk before anything is read.
    pub(crate) fn affected(&self, caller: &Caller, question: &IncidentQuestion) -> Result<Affected, Refusal> {
        caller.must(AuditRole::Subject)?;
        let mut given = Vec::with_capacity(question.identifiers.len());
        if !question.identifiers.is_empty() {
            let pseudonyms = self.pseudonyms()?;
            for (kind, identifier) in &question.identifiers {
                given.push(
                    pseudonyms
                        .owner(kind, identifier)
                        .map(|owner| owner.as_str().to_owned()),
                );
            }
        }
        let what = format!("affected:{}", question.query.recipient.as_deref().unwrap_or(""));
        self.record(caller, &what, &question.reason, None)?;
        self.ask(|reader| affected::of(reader, &question.query, &given))
    }

    fn pseudonyms(&self) -> Result<Arc<Pseudonyms>, Refusal> {
        let mut kept = lock(&self.pseudonyms);
        if let Some(pseudonyms) = &*kept {
            return Ok(pseudonyms.clone());
        }
        let loaded = Pseudonyms::load(&self.config)
            .map(Arc::new)
            .map_err(|error| no_key(&error))?;
        *kept = Some(loaded.clone());
        Ok(loaded)
    }

    fn record(&self, caller: &Caller, what: &str, reason: &str, owner: Option<&Owner>) -> Result<(), Refusal> {
        let recorder = self.recorder()?;
        let recorded = recorder.record_access(caller.name(), what, reason, owner);
        recorded.map_err(|error| {
            Refusal::new(
                503,
                format!("nothing is shown of a person before it is recorded, and it cannot be: {error}"),
            )
        })
    }

    /// The service's own; beside it an instance of our own in its file, made by the first question.
    fn recorder(&self) -> Result<Tracker, Refusal> {
        if let Source::Tracker(tracker) = &self.source {
            return Ok(tracker.clone());
        }
        // Asked first: it never makes a key.
        self.pseudonyms()?;
        let mut kept = lock(&self.recorder);
        if let Some(recorder) = &*kept {
            return Ok(recorder.clone());
        }
        let config = Config {
            service: "provenance-audit".to_owned(),
            // It recognises nothing, so it need not know anything.
            max_values: 1,
            storage: self.storage(),
            ..self.config.clone()
        };
        let recorder = Tracker::open_at(config).map_err(|error| no_key(&error))?;
        *kept = Some(recorder.clone());
        Ok(recorder)
    }

    /// The running service.
    pub(crate) fn tracker(&self) -> Option<&Tracker> {
        match &self.source {
            Source::Tracker(tracker) => Some(tracker),
            _ => None,
        }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Where the evidence is now.
    fn storage(&self) -> Storage {
        match &self.source {
            Source::Tracker(tracker) => tracker.storage(),
            Source::File(_) => self.storage.clone(),
            Source::Storage(storage) => in_force(storage),
        }
    }

    pub(crate) fn access(&self) -> &Access {
        &self.access
    }

    /// Lends a reader to `ask`. One that failed is dropped, so that the next request opens the file anew.
    pub(crate) fn ask<T>(&self, ask: impl FnOnce(&mut Reader) -> Result<T, provenance::Error>) -> Result<T, Refusal> {
        let storage = self.storage();
        // Those of a file that was lost are closed.
        let resting = lock(&self.readers).pop().filter(|(of, _)| *of == storage);
        let mut reader = match resting {
            Some((_, reader)) => reader,
            None => Reader::connect(&storage).map_err(|error| unreadable(&error))?,
        };
        match ask(&mut reader) {
            Err(error) if !error.is_input() => Err(unreadable(&error)),
            answer => {
                lock(&self.readers).push((storage, reader));
                answer.map_err(|_| Refusal::new(400, "cursor: expected a next_cursor of this listing"))
            }
        }
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        if let Some(recorder) = lock(&self.recorder).take() {
            recorder.close();
        }
    }
}

/// What the JSON API answers. Pages are `pages`'.
#[derive(Clone, Copy)]
enum Endpoint<'a> {
    Status,
    Events,
    Fingerprints,
    Lineage(&'a str),
    Recipients,
    Flows,
    Inventory,
    Coverage,
    Metrics,
    OpenApi,
    Subjects,
    Affected,
}

const UNKNOWN_PATH: &str =
    "unknown path: the pages begin at /runtime-audit/, /runtime-audit/openapi.json lists the others";

impl<'a> Endpoint<'a> {
    fn at(path: &'a str) -> Option<Self> {
        let path = path.strip_prefix("/runtime-audit/")?;
        if let Some(fingerprint) = path.strip_prefix("lineage/") {
            return Some(Endpoint::Lineage(fingerprint));
        }
        Some(match path {
            "status" => Endpoint::Status,
            "events" => Endpoint::Events,
            "fingerprints" => Endpoint::Fingerprints,
            "recipients" => Endpoint::Recipients,
            "flows" => Endpoint::Flows,
            "inventory" => Endpoint::Inventory,
            "coverage" => Endpoint::Coverage,
            "metrics" => Endpoint::Metrics,
            "openapi.json" => Endpoint::OpenApi,
            "subjects" => Endpoint::Subjects,
            "affected" => Endpoint::Affected,
            _ => return None,
        })
    }

    fn role(self) -> AuditRole {
        match self {
            Endpoint::Subjects | Endpoint::Affected => AuditRole::Subject,
            _ => AuditRole::Read,
        }
    }

    fn methods(self) -> &'static str {
        match self {
            Endpoint::Subjects | Endpoint::Affected => "POST",
            _ => "GET, HEAD",
        }
    }

    fn takes(self, method: &str) -> bool {
        self.methods().split(", ").any(|known| known == method)
    }
}

/// A JSON body. Pages of other sites cannot send one: their browser asks us first, and is not answered.
fn body<T: DeserializeOwned>(request: &Request, holds: &str) -> Result<T, Refusal> {
    if !request.has_json() {
        return Err(Refusal::new(415, "expected a body of the type application/json"));
    }
    // serde's own words would repeat what was sent.
    serde_json::from_slice(&request.body)
        .map_err(|_| Refusal::new(400, format!("body: expected a JSON object that holds {holds}, as text")))
}

/// An answer on its way out.
pub(crate) struct Reply {
    pub(crate) status: u16,
    content_type: &'static str,
    /// `content-security-policy`.
    pub(crate) policy: &'static str,
    pub(crate) headers: Vec<(&'static str, Cow<'static, str>)>,
    body: Vec<u8>,
}

/// Of what is no page.
const NO_CONTENT: &str = "default-src 'none'; frame-ancestors 'none'";

impl Reply {
    pub(crate) fn new(content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Reply {
            status: 200,
            content_type,
            policy: NO_CONTENT,
            headers: Vec::new(),
            body: body.into(),
        }
    }

    pub(crate) fn json(answer: &impl Serialize) -> Result<Self, Refusal> {
        let body = serde_json::to_vec(answer).map_err(|_| Refusal::new(500, "the evidence cannot be shown as JSON"))?;
        Ok(Reply::new(JSON, body))
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn into_response(self) -> Response {
        let mut headers: Vec<(&'static str, Cow<'static, str>)> = vec![
            ("content-type", self.content_type.into()),
            ("content-security-policy", self.policy.into()),
        ];
        headers.extend(HEADERS.map(|(name, value)| (name, value.into())));
        headers.extend(self.headers);
        Response {
            status: self.status,
            headers,
            body: self.body,
        }
    }
}

/// Why a request gets no answer.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) message: String,
    pub(crate) headers: Vec<(&'static str, Cow<'static, str>)>,
}

impl Refusal {
    /// `message` goes out as it is: it must not hold anything of the request but a checked parameter name.
    pub(crate) fn new(status: u16, message: impl Into<String>) -> Self {
        let headers = match status {
            401 => vec![("www-authenticate", "Bearer".into())],
            _ => Vec::new(),
        };
        Refusal {
            status,
            message: message.into(),
            headers,
        }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn into_reply(self) -> Reply {
        let body = json!({ "error": self.message }).to_string();
        Reply {
            status: self.status,
            headers: self.headers,
            ..Reply::new(JSON, body)
        }
    }
}

/// A keyed owner, or where owners are kept in clear, any.
fn is_pseudonym(stored: &str, config: &Config) -> bool {
    let hex = |text: &str| text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    match config.owners_clear {
        true => stored.len() <= 1100,
        false => stored.split_once(':').is_some_and(|(_, value)| hex(value)),
    }
}

/// What is answered where a request could not be read, or its handler is gone.
#[cfg(any(feature = "axum", feature = "server"))]
pub(crate) fn unread(status: u16) -> Response {
    let message = match status {
        408 => "the body did not come in time",
        413 => "the body is longer than 64 KiB",
        500 => "the request was not answered",
        _ => "the body cannot be read",
    };
    Refusal::new(status, message).into_reply().into_response()
}

fn unreadable(error: &provenance::Error) -> Refusal {
    Refusal::new(500, format!("the evidence cannot be read: {error}"))
}

fn no_key(error: &provenance::Error) -> Refusal {
    Refusal::new(
        503,
        format!(
            "people are not looked up here: it takes the master key that the service has, to turn an identifier into \
             its pseudonym and to record that it was asked: {error}"
        ),
    )
}

/// A target without the token.
pub(crate) fn without_token(path: &str, pairs: &[(Cow<'_, str>, Cow<'_, str>)]) -> String {
    let kept = pairs.iter().filter(|(name, _)| name != QUERY_TOKEN);
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(kept)
        .finish();
    match query.is_empty() {
        true => path.to_owned(),
        false => format!("{path}?{query}"),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What this process declares, by attributes and by configuration.
fn declared_by(config: &Config, entries: &[Entry]) -> Map<String, Json> {
    let mut models = Map::new();
    for (name, model) in &config.tracked_models {
        models.insert(name.clone(), json!({ "at": "config", "fields": fields(&model.fields) }));
    }
    for model in entries.iter().filter(|entry| entry.kind == "model") {
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
