//! `runtime_tracking.{yaml,yml,json,toml}` and the environment, checked to the line.

mod defaults;
mod load;
mod read;
mod tree;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::vocabulary::{Kind, Timestamp};
#[cfg(fuzzing)]
pub(crate) use load::from_text;

/// The whole configuration. Every key is optional; `Config::default()` is what an empty file gives.
///
/// [`init`](crate::init) loads it. To build one by hand, as tests do, start from the default:
///
/// ```
/// use provenance::config::{Config, Storage};
/// let config = Config {
///     storage: Storage::Sqlite("evidence/provenance.db".into()),
///     service: "crm".to_owned(),
///     ..Config::default()
/// };
/// # assert!(config.enabled);
/// ```
///
/// # Where it is read from
/// The path given, else the file that `RUNTIME_TRACKING_CONFIG` names, else the first of
/// `runtime_tracking.yaml`, `.yml`, `.json` and `.toml` in the working folder, else the defaults. Over the file goes the
/// environment: `RUNTIME_TRACKING_AUDIT_TOKEN`, `RUNTIME_TRACKING_STORAGE` (relative to the working folder),
/// `RUNTIME_TRACKING_ENABLED` (`true`, `false`, `1`, `0`) and `RUNTIME_TRACKING_KEY`; a variable that is empty counts
/// as unset. Relative paths in the file are relative to its folder. A map that is given replaces its
/// default, a key whose value is null counts as left out.
///
/// # Keys
/// | key | type | default | meaning |
/// |---|---|---|---|
/// | `enabled` | `true`, `false` | `true` | `false` makes every hook a no-op |
/// | `derivation_interval` | seconds | `0` | what a `#[derived]` function says again within so many seconds (same place, person, arguments and result) is counted, and told by one event at the end; `0` records each call |
/// | `access_events` | `true`, `false` | `false` | a DATA_ACCESS for each model that a request, or a statement outside of one, loads |
/// | `storage_path` | path of a SQLite file, or with the feature `postgres-store` a `postgres://` URL | `runtime_provenance.db` | where the evidence is kept; many instances may share one database, under one key |
/// | `audit_token` | text | none | protects the audit API |
/// | `audit.bind` | address and port | `127.0.0.1:8787` | where the embedded audit server listens |
/// | `audit.query_token` | `true`, `false` | `true` | whether the token is also taken from the `audit_token` query parameter |
/// | `audit.tokens` | list of maps | none | further tokens, each with a name and roles of its own |
/// | .. `name` | `[a-z][a-z0-9_-]*` | required | who asked, in the access log |
/// | .. `token` | text | required | the token |
/// | .. `roles` | list of `read`, `subject`, `erase` | required | `read`: every page but those of one person; `subject`: look people up, and who was affected; `erase`: erase them. `audit_token` has `read` and `subject` |
/// | `fingerprints` | `hmac-sha256`, `sha256` | `hmac-sha256` | keyed, or recomputable by anyone who holds the value |
/// | `owners` | `keyed`, `clear` | `keyed` | how data subjects are written to the store |
/// | `key_file` | path | beside the database | file with the master key |
/// | `key_epoch` | number from 1 to 64 | `1` | counts rotations of the fingerprint key: one more makes new fingerprints, and those of earlier epochs stay recognised; it never goes back |
/// | `checkpoints.to` | path, or `https://` URL | required | where signed heads of the chain go: appended to the file, or posted as JSON (feature `ureq`; plain `http://` to loopback only). Without `checkpoints` none are made |
/// | `checkpoints.every` | such as `60s`, `5m`, `1h` | `60s` | how often, while the chain grows; one more at the end |
/// | `checkpoints.key_file` | path | beside the database | PEM file with the ed25519 key that signs them |
/// | `service` | text | name of the program's file | service on every event |
/// | `environment` | text | none | environment on every event, such as `production` |
/// | `ignored_hosts` | list of hosts | `[localhost]` | calls outside `#[egress]` to these go unrecorded; `*.suffix` and `10.0.0.0/8` are allowed |
/// | `input_fields.<parameter>` | map | the usual field names | what inputs of this name (in any case) are |
/// | `input_fields.header:<name>`, `input_fields.cookie:<name>` | map | none | a request header or a cookie of this name (in any case); those not named so are not looked at |
/// | `tracked_models.<model or table>.fields.<column>` | map | none | models that must be recorded: with the feature `sql-fallback` their writes are read from the SQL text; without it, one that no `#[tracked_model]` serves is a warning at start and a blind spot |
/// | .. `category` | category | required | such as `contact.email` |
/// | .. `description` | text | empty | in your words |
/// | .. `pii` | `true`, `false` | `true` | whether it is personal data |
/// | .. `kind` | `text`, `email`, `phone`, `number`, `date`, `id` | from the category | how values are compared |
/// | .. `secret` | `true`, `false` | from category and name | neither fingerprint nor length is kept on disk |
/// | .. `owner` | word | none | inputs: the kind of owner that this value identifies, such as `email` or `user` |
/// | .. `owner_attribute` | word | none | models: the field that says whose the value is |
/// | `recipients.<name>.hosts` | list of hosts | none | its hosts: exact, `*.suffix`, or addresses as `10.0.0.0/8`. The most precise one wins. Addresses are those that a URL names; names are not resolved |
/// | .. `role` | `controller`, `joint_controller`, `processor`, `sub_processor`, `third_party`, `authority`, `internal` | none | what it is to you |
/// | .. `legal_name`, `safeguard` | text | none | its name; what covers the transfer, such as `SCC` |
/// | .. `country` | ISO 3166-1 alpha-2 | none | where it is |
/// | .. `on_violation` | `record`, `block` | `egress.on_violation` | for this recipient |
/// | `suppress` | list of rules | none | findings that say nothing, such as a support address in every mail: left out of events and of the policy, but counted. A rule needs a reason, and at least one of the next three |
/// | .. `category` | category | any | with all below it |
/// | .. `recipient` | text | any | the recipient's name, as events have it |
/// | .. `place` | text | any | as findings have it, such as `body:/support/email`; a `*` at its end stands for anything |
/// | .. `reason` | text | needed | why; shown on `/status` |
/// | .. `expires` | date, `2026-12-31` | never | from the beginning of this day (UTC) on the rule does not apply |
/// | `egress.durability` | `before_send`, `batched` | `before_send` | when the record of a share must be on disk |
/// | `egress.on_violation` | `record`, `block` | `record` | what a share against the policy does |
/// | `egress.read_ahead` | number of bytes, at least 1 | `8388608` | how much of a body is read and scanned before its request leaves; what is longer and not in memory is scanned as it passes |
/// | `egress.streams` | `watch`, `refuse` | `watch` | where a violation blocks: a body that is scanned as it passes is cut off at the first violation, or not sent at all |
/// | `egress.unregistered` | `ignore`, `record`, `judge` | `ignore` | what becomes of personal data that was never registered and is known by its shape alone (addresses of mail and IP, phones, IBANs, cards): nothing, a finding of form `unregistered`, or one that also counts against `allow(..)` |
/// | `egress.on_evidence_failure` | `send`, `refuse` | `send` | what a share does whose record goes neither into the database within 1 s nor into the spill file |
/// | `registry.follow_interval` | seconds | `1` | how often it is looked at what other processes on the same storage have registered, so that it is recognised here; `0` never |
/// | `registry.max_values` | number, 1 to 10000000 | `1000000` | most values that are recognised at a time |
/// | `spill.folder` | path of a folder, relative to the configuration | beside an SQLite file; for PostgreSQL the working folder | where the spill file goes |
/// | `spill.max_bytes` | number of bytes, at least 0 | `1073741824` | most that the spill file of a process holds, which takes records while the database does not; `0` for none |
/// | `retention.<event type or category>` | such as `36h`, `400d`, `8w` | kept | how long events, tags of a category and its values are kept: docs/the-store.md |
#[derive(Clone, Debug)]
pub struct Config {
    /// `false` makes every hook a no-op.
    pub enabled: bool,
    /// Whether loads leave a DATA_ACCESS: one for each model a request.
    pub access_events: bool,
    /// See `derivation_interval` above.
    pub derivation_interval: Duration,
    /// Where the evidence is kept.
    pub storage: Storage,
    /// Protects the audit API when not empty. Never shown.
    pub audit_token: Token,
    /// Where the embedded audit server listens.
    pub audit_bind: SocketAddr,
    /// Whether the audit token is also taken from the `audit_token` query parameter.
    pub audit_query_token: bool,
    /// Further audit tokens, with names and roles.
    pub audit_tokens: Vec<AuditToken>,
    /// How fingerprints are made.
    pub fingerprints: Fingerprints,
    /// Whether owners are stored in clear (`owners: clear`) instead of keyed.
    pub owners_clear: bool,
    /// File that holds the master key (32 bytes as 64 hex digits or base64); created if missing
    /// only when it is the default beside the database.
    pub key_file: Option<PathBuf>,
    /// Given through `RUNTIME_TRACKING_KEY`. Never shown.
    pub key: Option<Token>,
    /// Counts rotations of the fingerprint key, from 1 to 64. Lower than what the store was written with is an
    /// error at start.
    pub key_epoch: u32,
    /// Signed heads of the chain, kept elsewhere; none by default.
    pub checkpoints: Option<Checkpoints>,
    /// Service name on every event; default: the program's file name.
    pub service: String,
    /// Environment on every event, such as `production`.
    pub environment: Option<String>,
    /// Hosts that calls outside `#[egress]` may reach unrecorded.
    pub ignored_hosts: Vec<String>,
    /// Categories of inputs by parameter name, lower case; `header:` and `cookie:` before the names of those.
    pub input_fields: BTreeMap<String, InputField>,
    /// Models or tables that must be recorded; one that no attribute serves is a blind spot.
    pub tracked_models: BTreeMap<String, TrackedModel>,
    /// Known recipients by name.
    pub recipients: BTreeMap<String, Recipient>,
    /// Findings that are left out, and counted.
    pub suppress: Vec<Suppress>,
    /// What egress hooks do.
    pub egress: Egress,
    /// Most values that the registry holds; what is more than 10,000,000 counts as that.
    pub max_values: usize,
    /// Most bytes of the file that takes records while the database does not; 0 for none.
    pub spill_max_bytes: u64,
    /// Where that file goes; default: beside an SQLite file, and for PostgreSQL into the working folder.
    pub spill_folder: Option<PathBuf>,
    /// How often values that other instances have registered are taken over; zero: never.
    pub follow_interval: Duration,
    /// How long events are kept, by event type or category.
    pub retention: BTreeMap<String, Duration>,
    /// The file this was read from.
    pub file: Option<PathBuf>,
}

/// Values that detection has room for in one process, digests included.
pub(crate) const MOST_VALUES: usize = 10_000_000;

/// Before the name of a request header in `input_fields`: without it a parameter is meant, so that
/// nothing but parameters is collected by accident.
pub(crate) const HEADER: &str = "header:";
/// As [`HEADER`], for cookies.
pub(crate) const COOKIE: &str = "cookie:";

/// A string that `Debug` and logs never show.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Token(pub String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "(none)" } else { "(set)" })
    }
}

/// One of `audit.tokens`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditToken {
    /// Who asked, in the access log.
    pub name: String,
    /// The token. Never shown.
    pub token: Token,
    /// What it opens.
    pub roles: Vec<AuditRole>,
}

/// What an audit token opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditRole {
    /// Everything but what is about one person.
    Read,
    /// Look people up, and who was affected; each time is recorded.
    Subject,
    /// Erase a person's records.
    Erase,
}

/// `storage_path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Storage {
    /// A SQLite file; made absolute against the config file's folder.
    Sqlite(PathBuf),
    /// A PostgreSQL URL (feature `postgres-store`); its password is never shown.
    Postgres(Token),
}

impl fmt::Display for Storage {
    /// The path; of a URL only scheme, host and database.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Storage::Sqlite(path) => path.display().fmt(f),
            Storage::Postgres(url) => {
                let rest = url.0.split_once("://").map_or("", |(_, rest)| rest);
                let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
                let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
                let after = rest.get(authority.len()..).unwrap_or_default();
                // An unescaped `/` or `?` in a password shifts its end to behind what looks like the host.
                if after.contains('@') {
                    return f.write_str("postgres://(not shown)");
                }
                let database = after.split(['?', '#']).next().unwrap_or_default();
                write!(f, "postgres://{host}{database}")
            }
        }
    }
}

/// `checkpoints`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoints {
    /// Where they go.
    pub to: CheckpointPlace,
    /// How often, while the chain grows. One more is made at the end.
    pub every: Duration,
    /// PEM file (PKCS#8) with the ed25519 key that signs; created if missing only when it is the default
    /// beside the database.
    pub key_file: Option<PathBuf>,
}

/// `checkpoints.to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckpointPlace {
    /// Appended to this file, a line each.
    File(PathBuf),
    /// Posted to this URL. Only its scheme and host are shown, as the rest may hold a secret.
    Url(Token),
}

impl fmt::Display for CheckpointPlace {
    /// The path; of a URL only scheme and host.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CheckpointPlace::File(path) => path.display().fmt(f),
            CheckpointPlace::Url(url) => {
                let (scheme, rest) = url.0.split_once("://").unwrap_or_default();
                let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
                let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
                write!(f, "{scheme}://{host}")
            }
        }
    }
}

/// `fingerprints`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fingerprints {
    /// HMAC-SHA-256 with a key (default).
    HmacSha256,
    /// Plain SHA-256, for those who must recompute it elsewhere.
    Sha256,
}

/// One entry of `input_fields`, or of a tracked model's `fields`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputField {
    /// Category.
    pub category: String,
    /// Description.
    pub description: String,
    /// Whether it is personal data; default true.
    pub pii: bool,
    /// Kind; default from the category.
    pub kind: Option<Kind>,
    /// Secret; default from category and name.
    pub secret: Option<bool>,
    /// `owner_attribute` of a model's field, or for inputs: the owner kind whose identifier this is.
    pub owner: Option<String>,
}

/// One entry of `tracked_models`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackedModel {
    /// Columns by name.
    pub fields: BTreeMap<String, InputField>,
}

/// One entry of `recipients`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Recipient {
    /// Host names, exact or `*.suffix`; addresses, or ranges of them as `10.0.0.0/8`.
    pub hosts: Vec<String>,
    /// `controller`, `joint_controller`, `processor`, `sub_processor`, `third_party`, `authority` or `internal`.
    pub role: Option<String>,
    /// Legal name.
    pub legal_name: Option<String>,
    /// ISO 3166-1 alpha-2.
    pub country: Option<String>,
    /// Transfer safeguard, such as `SCC`.
    pub safeguard: Option<String>,
    /// Overrides `egress.on_violation`.
    pub on_violation: Option<OnViolation>,
}

impl Recipient {
    /// As `/status` shows it.
    pub(crate) fn status(&self) -> serde_json::Value {
        serde_json::json!({
            "hosts": self.hosts,
            "role": self.role,
            "legal_name": self.legal_name,
            "country": self.country,
            "safeguard": self.safeguard,
            "on_violation": self.on_violation.map(OnViolation::as_str),
        })
    }
}

/// One entry of `suppress`: findings that fit all that it names are left out.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Suppress {
    /// Category, with all below it.
    pub category: Option<String>,
    /// The recipient's name.
    pub recipient: Option<String>,
    /// Where the finding stands; a `*` at its end stands for anything.
    pub place: Option<String>,
    /// Why.
    pub reason: String,
    /// From when on it does not apply.
    pub expires: Option<Timestamp>,
}

impl Suppress {
    pub(crate) fn has_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// As `/status` shows it.
    pub(crate) fn status(&self, now: Timestamp, count: u64) -> serde_json::Value {
        serde_json::json!({
            "category": self.category,
            "recipient": self.recipient,
            "place": self.place,
            "reason": self.reason,
            "expires": self.expires,
            "expired": self.has_expired(now),
            "suppressed": count,
        })
    }
}

/// `egress`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Egress {
    /// When the record of a share must be on disk.
    pub durability: Durability,
    /// What a share against the policy does.
    pub on_violation: OnViolation,
    /// Bytes of a body that are read and scanned before its request leaves; what is longer and not
    /// in memory is scanned as it passes.
    pub read_ahead: usize,
    /// What becomes of a body that is scanned as it passes, where a violation blocks.
    pub streams: Streams,
    /// What becomes of personal data that is known by its shape alone.
    pub unregistered: Unregistered,
    /// What a share does whose record cannot be persisted within 1 s.
    pub on_evidence_failure: OnEvidenceFailure,
}

/// `egress.unregistered`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unregistered {
    /// Nobody looks for it (default).
    Ignore,
    /// It is a finding, and no violation.
    Record,
    /// It is a finding that counts against `allow(..)`.
    Judge,
}

/// `egress.durability`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Before the request's bytes leave (default).
    BeforeSend,
    /// With the next batch, and looked at no earlier unless it may be blocked; cheaper, and a crash may lose the record
    /// of a request that left.
    Batched,
}

/// `egress.on_violation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnViolation {
    /// Send, and record the violation (default).
    Record,
    /// Keep it from leaving.
    Block,
}

impl OnViolation {
    /// The word of the configuration.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            OnViolation::Record => "record",
            OnViolation::Block => "block",
        }
    }
}

/// `egress.streams`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Streams {
    /// It is cut off at the first violation (default). What passed before has left.
    Watch,
    /// It is not sent at all.
    Refuse,
}

impl Streams {
    /// The word of the configuration.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Streams::Watch => "watch",
            Streams::Refuse => "refuse",
        }
    }
}

/// `egress.on_evidence_failure`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnEvidenceFailure {
    /// Send; loud and counted (default).
    Send,
    /// Refuse to send.
    Refuse,
}
