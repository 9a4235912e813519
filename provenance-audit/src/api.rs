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
//! | `/export` | `format`, `reason`, and the filters of `/events` | read |
//! | `/erasure` | POST, JSON: `kind`, `identifier`, `reason`; then the same with `confirmation` | erase |
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
//! token, 403 for a foreign `Host` or origin and for a token that lacks the role, 404, 405, 409 for a confirmation that
//! does not fit, 413, 414, 415, 429 after many wrong tokens, 500 when the evidence cannot be read, and 503 when a question
//! about a person cannot be recorded. `docs/audit.md` says what each answer and page means.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use provenance::config::{AuditRole, AuditToken, InputField, Storage, Token};
use provenance::inventory::{Entry, inventory};
use provenance::store::{Reader, Version, in_force};
use provenance::{Config, Owner, Pseudonyms, Tracker};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json, json};

use crate::Error;
use crate::access::{self, Access, Caller, QUERY_TOKEN};
use crate::answers::affected::Affected;
use crate::answers::declared::Comparison;
use crate::answers::person::Person;
use crate::answers::recipients::Look;
use crate::answers::{affected, coverage, declared, lineage, metrics, person, recipients};
use crate::erasure::Erasing;
use crate::params::{self, Erase, Incident, IncidentQuestion, Params, PersonQuestion, Subject, Who};
use crate::reply::Turn;
#[cfg(any(feature = "axum", feature = "server"))]
pub(crate) use crate::reply::unread;
pub use crate::reply::{Body, Response, Stream};
pub(crate) use crate::reply::{Refusal, Reply};
use crate::{openapi, pages, reply};

/// Path and query together, in bytes.
const MAX_TARGET: usize = 8 * 1024;
/// The body of a request, in bytes.
pub const MAX_BODY: usize = 64 * 1024;
/// Most rows of `/flows`.
const MAX_FLOWS: usize = 20_000;

/// Bytes of listings that are kept with each reader.
const MAX_KEPT: usize = 4 << 20;

/// The master key, as the service gets it.
const KEY_VARIABLE: &str = "RUNTIME_TRACKING_KEY";

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
    readers: Mutex<Vec<Resting>>,
    pseudonyms: Mutex<Option<Arc<Pseudonyms>>>,
    /// Records who asked, where no service does.
    recorder: Mutex<Option<Tracker>>,
    /// How many exports are being made.
    exports: Arc<AtomicUsize>,
    pub(crate) erasing: Mutex<Erasing>,
}

/// A reader, and listings that it gave and that would be the same now.
struct Resting {
    storage: Storage,
    reader: Reader,
    of: Option<Version>,
    listings: HashMap<String, Vec<u8>>,
    bytes: usize,
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
            exports: Arc::default(),
            erasing: Mutex::default(),
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
        let endpoint = Endpoint::at(&request.path);
        // An export is read, and leaves a record: no page of others may cause one.
        if !request.is_reading() || matches!(endpoint, Some(Endpoint::Export)) {
            access::check_origin(request)?;
        }
        if is_page {
            return pages::answer(self, request, &pairs, &caller);
        }
        let Some(endpoint) = endpoint else {
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
            Endpoint::Export => params::EXPORT,
            Endpoint::Fingerprints => params::FINGERPRINTS,
            Endpoint::Flows => params::FLOWS,
            _ => &[],
        };
        let params = Params::read(pairs, taken)?;
        match endpoint {
            Endpoint::Status => Reply::json(&self.status()?),
            Endpoint::Events => {
                let query = params.events()?;
                self.listing(&request.path, &query, |reader| reader.events(&query))
            }
            Endpoint::Fingerprints => {
                let query = params.fingerprints()?;
                self.listing(&request.path, &query, |reader| reader.fingerprints(&query))
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
            Endpoint::Export => self.export(caller, &params, request),
            Endpoint::Erasure => {
                let expected = "kind, identifier and reason, and may hold confirmation";
                let question = body::<Erase>(request, expected)?.checked()?;
                Reply::json(&self.erasure(caller, &question)?)
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
        self.ask(|reader| recipients::of(reader, &self.config, &self.inventory, &Look::Newest, &mut || {}))
    }

    pub(crate) fn comparison(&self) -> Result<Comparison, Refusal> {
        self.ask(|reader| declared::of(reader, &self.config, &self.inventory))
    }

    /// What was observed of a person. That it was asked is on disk before anything is read.
    pub(crate) fn person(&self, caller: &Caller, question: &PersonQuestion, what: &str) -> Result<Person, Refusal> {
        caller.must(AuditRole::Subject)?;
        let owner = self.owner(&question.who)?;
        self.record(caller, what, &question.reason, Some(&owner))?;
        self.ask(|reader| {
            let owners = std::slice::from_ref(&owner);
            person::of(reader, owners, &self.config, person::MOST, &mut || {})
        })
    }

    /// Under which pseudonym the evidence has a person.
    pub(crate) fn owner(&self, who: &Who) -> Result<Owner, Refusal> {
        let owner = match who {
            Who::Identifier { kind, identifier } => self.pseudonyms()?.owner(kind, identifier),
            // Nothing else: what was asked is kept.
            Who::Pseudonym(stored) => Owner::from_stored(stored).filter(|_| is_pseudonym(stored, &self.config)),
        };
        owner.ok_or_else(|| Refusal::new(400, "identifier: not one of this kind"))
    }

    /// The evidence as a file. That it was taken is on disk before anything is read.
    fn export(&self, caller: &Caller, params: &Params<'_>, request: &Request) -> Result<Reply, Refusal> {
        let question = params.export()?;
        // Who asks for the head alone gets nothing, and leaves nothing.
        if request.method == "HEAD" {
            return Ok(Reply::new(question.format.media_type(), ""));
        }
        let turn = Turn::take(&self.exports)?;
        let reader = Reader::connect(&self.storage).map_err(|error| unreadable(&error))?;
        self.record(caller, &question.what, &question.reason, None)?;
        Ok(Reply::stream(Stream {
            reader,
            query: question.query,
            format: question.format,
            config: self.config.clone(),
            _turn: turn,
        }))
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
        let found = self.ask(|reader| affected::of(reader, &question.query, affected::MOST, &mut || {}))?;
        Ok(found.answer(&given))
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

    pub(crate) fn record(
        &self,
        caller: &Caller,
        what: &str,
        reason: &str,
        owner: Option<&Owner>,
    ) -> Result<(), Refusal> {
        let recorder = self.recorder()?;
        let recorded = recorder.record_access(caller.name(), what, reason, owner);
        recorded.map_err(|error| {
            Refusal::new(
                503,
                format!("nothing is shown or changed before it is recorded, and it cannot be: {error}"),
            )
        })
    }

    /// The service's own; beside it an instance of our own in its file, made by the first question.
    pub(crate) fn recorder(&self) -> Result<Tracker, Refusal> {
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
            storage: self.storage(),
            ..self.config.clone()
        };
        let recorder = Tracker::open_at(beside(config)).map_err(|error| no_key(&error))?;
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

    /// The JSON of a listing, kept until something is committed: pages that are looked at are asked for more often than
    /// evidence is written.
    fn listing<T: Serialize>(
        &self,
        path: &str,
        query: &impl Debug,
        read: impl FnOnce(&mut Reader) -> Result<T, provenance::Error>,
    ) -> Result<Reply, Refusal> {
        let question = format!("{path} {query:?}");
        let body = self.lend(|resting| {
            let version = resting.reader.version()?;
            if resting.of != version {
                (resting.of, resting.bytes) = (version, 0);
                resting.listings.clear();
            }
            if let Some(kept) = resting.listings.get(&question) {
                return Ok(Ok(kept.clone()));
            }
            let body = serde_json::to_vec(&read(&mut resting.reader)?);
            if let (Ok(body), Some(_)) = (&body, version)
                && resting.bytes + body.len() <= MAX_KEPT
            {
                resting.bytes += body.len();
                resting.listings.insert(question, body.clone());
            }
            Ok(body)
        })?;
        body.map(|body| Reply::new(reply::JSON, body))
            .map_err(|_| Refusal::unshown())
    }

    /// Lends a reader to `ask`.
    pub(crate) fn ask<T>(&self, ask: impl FnOnce(&mut Reader) -> Result<T, provenance::Error>) -> Result<T, Refusal> {
        self.lend(|resting| ask(&mut resting.reader))
    }

    /// One that failed is dropped, so that the next request opens the file anew.
    fn lend<T>(&self, ask: impl FnOnce(&mut Resting) -> Result<T, provenance::Error>) -> Result<T, Refusal> {
        let storage = self.storage();
        // Those of a file that was lost are closed.
        let resting = lock(&self.readers).pop().filter(|resting| resting.storage == storage);
        let mut resting = match resting {
            Some(resting) => resting,
            None => Resting {
                reader: Reader::connect(&storage).map_err(|error| unreadable(&error))?,
                storage,
                of: None,
                listings: HashMap::new(),
                bytes: 0,
            },
        };
        match ask(&mut resting) {
            Err(error) if !error.is_input() => Err(unreadable(&error)),
            answer => {
                lock(&self.readers).push(resting);
                answer.map_err(|_| Refusal::new(400, "cursor: expected a next_cursor of this listing"))
            }
        }
    }
}

/// The configuration of a process that writes a chain of its own beside a service's, under a name of its own: the
/// service's instances stay the newest of theirs. Its models, retention and values are no business of this process.
pub(crate) fn beside(config: Config) -> Config {
    Config {
        enabled: true,
        service: "provenance-audit".to_owned(),
        max_values: 1,
        // Who cannot write says so.
        spill_max_bytes: 0,
        tracked_models: Default::default(),
        retention: Default::default(),
        ..config
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
    Export,
    Erasure,
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
            "export" => Endpoint::Export,
            "erasure" => Endpoint::Erasure,
            _ => return None,
        })
    }

    fn role(self) -> AuditRole {
        match self {
            Endpoint::Subjects | Endpoint::Affected => AuditRole::Subject,
            Endpoint::Erasure => AuditRole::Erase,
            _ => AuditRole::Read,
        }
    }

    fn methods(self) -> &'static str {
        match self {
            Endpoint::Subjects | Endpoint::Affected | Endpoint::Erasure => "POST",
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

/// A keyed owner, or where owners are kept in clear, any.
fn is_pseudonym(stored: &str, config: &Config) -> bool {
    let hex = |text: &str| text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    match config.owners_clear {
        true => stored.len() <= 1100,
        false => stored.split_once(':').is_some_and(|(_, value)| hex(value)),
    }
}

fn unreadable(error: &provenance::Error) -> Refusal {
    Refusal::new(500, format!("the evidence cannot be read: {error}"))
}

fn no_key(error: &provenance::Error) -> Refusal {
    Refusal::new(
        503,
        format!(
            "not possible here: people are looked up, evidence is taken out and people are erased with the master key \
             that the service has, which turns an identifier into its pseudonym and records who asked. Serve with \
             RUNTIME_TRACKING_KEY set, or with --config and the service's configuration: {error}"
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

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
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
