//! One reader for every syntax: takes the tree apart and leaves nothing unchecked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use super::load::{absolute, storage_of};
use super::tree::{Node, Value};
use super::{
    AuditRole, AuditToken, COOKIE, CheckpointPlace, Checkpoints, Config, Durability, Egress, Fingerprints, HEADER,
    InputField, MOST_VALUES, OnEvidenceFailure, OnViolation, Recipient, Storage, Streams, Suppress, Token,
    TrackedModel, Unregistered,
};
use crate::Error;
use crate::vocabulary::{EventType, Kind, Timestamp, category};

const KEYS: &[&str] = &[
    "enabled",
    "access_events",
    "derivation_interval",
    "storage_path",
    "audit_token",
    "audit",
    "fingerprints",
    "owners",
    "key_file",
    "key_epoch",
    "checkpoints",
    "service",
    "environment",
    "ignored_hosts",
    "input_fields",
    "tracked_models",
    "recipients",
    "suppress",
    "egress",
    "registry",
    "spill",
    "retention",
];

/// Rotations beyond this are no rotations any more; each costs a MAC for every value that is new.
const MAX_EPOCH: u32 = 64;

const ON_VIOLATION: Choices<OnViolation> = &[("record", OnViolation::Record), ("block", OnViolation::Block)];

const ROLES: Choices<&str> = &[
    ("controller", "controller"),
    ("joint_controller", "joint_controller"),
    ("processor", "processor"),
    ("sub_processor", "sub_processor"),
    ("third_party", "third_party"),
    ("authority", "authority"),
    ("internal", "internal"),
];

/// The configuration that `file` holds.
pub(super) fn read(file: &Path, root: &Node) -> Result<Config, Error> {
    let mut config = Config {
        file: Some(absolute(file)),
        ..Config::default()
    };
    let folder = config
        .file
        .as_deref()
        .and_then(Path::parent)
        .map(Path::to_path_buf)
        .unwrap_or_default();
    let at = At {
        file,
        folder: &folder,
        path: String::new(),
        node: root,
    };
    if let Storage::Sqlite(path) = &mut config.storage {
        *path = absolute(&folder.join(&*path));
    }
    if matches!(root.value, Value::Null) {
        return Ok(config);
    }
    at.section(KEYS, |key, at| {
        match key {
            "enabled" => config.enabled = at.bool()?,
            "access_events" => config.access_events = at.bool()?,
            "derivation_interval" => config.derivation_interval = at.seconds()?,
            "storage_path" => {
                config.storage = storage_of(at.text()?, at.folder).map_err(|expected| at.error(expected))?
            }
            "audit_token" => config.audit_token = Token(at.text()?.to_owned()),
            "audit" => at.section(&["bind", "query_token", "tokens"], |key, at| {
                match key {
                    "bind" => config.audit_bind = at.parsed("an address and port such as 127.0.0.1:8787")?,
                    "query_token" => config.audit_query_token = at.bool()?,
                    _ => {
                        config.audit_tokens = at
                            .list("a list of tokens")?
                            .map(audit_token)
                            .collect::<Result<_, _>>()?
                    }
                }
                Ok(())
            })?,
            "fingerprints" => {
                config.fingerprints = at.choice(&[
                    ("hmac-sha256", Fingerprints::HmacSha256),
                    ("sha256", Fingerprints::Sha256),
                ])?;
            }
            "owners" => config.owners_clear = at.choice(&[("keyed", false), ("clear", true)])?,
            "key_file" => config.key_file = Some(at.file_path()?),
            "key_epoch" => config.key_epoch = at.epoch()?,
            "checkpoints" => config.checkpoints = Some(checkpoints(at)?),
            "service" => config.service = at.word()?.to_owned(),
            "environment" => config.environment = Some(at.word()?.to_owned()),
            "ignored_hosts" => config.ignored_hosts = at.hosts()?,
            "input_fields" => config.input_fields = input_fields(at)?,
            "tracked_models" => config.tracked_models = at.map(tracked_model)?,
            "recipients" => config.recipients = at.map(recipient)?,
            "suppress" => config.suppress = at.list("a list of rules")?.map(suppress).collect::<Result<_, _>>()?,
            "egress" => config.egress = egress(at)?,
            "registry" => at.section(&["follow_interval", "max_values"], |key, at| {
                match key {
                    "follow_interval" => config.follow_interval = at.seconds()?,
                    _ => {
                        config.max_values = at.positive()?;
                        if config.max_values > MOST_VALUES {
                            return Err(
                                at.error(format!("expected at most {MOST_VALUES}, found {}", config.max_values))
                            );
                        }
                    }
                }
                Ok(())
            })?,
            "spill" => at.section(&["folder", "max_bytes"], |key, at| {
                match key {
                    "folder" => config.spill_folder = Some(at.file_path()?),
                    _ => config.spill_max_bytes = at.bytes()?,
                }
                Ok(())
            })?,
            "retention" => config.retention = at.map(retention)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(config)
}

/// By lower-case name: what a form calls `Email` is the same field.
fn input_fields(at: At<'_>) -> Result<BTreeMap<String, InputField>, Error> {
    let mut fields = BTreeMap::new();
    for (name, at) in at.entries()? {
        let lower = name.to_lowercase();
        if fields.contains_key(&lower) {
            return Err(at.error("given twice: names of input fields are the same in any case"));
        }
        if let Some(bare) = lower.strip_prefix(HEADER).or_else(|| lower.strip_prefix(COOKIE))
            && !is_token(bare)
        {
            return Err(at.error("after `header:` or `cookie:` comes a name as in HTTP, such as header:x-user-email"));
        }
        fields.insert(lower, field(at, "owner")?);
    }
    Ok(fields)
}

/// A name as headers and cookies have it (RFC 9110, 5.6.2).
fn is_token(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

fn tracked_model(_: &str, at: At<'_>) -> Result<TrackedModel, Error> {
    let mut model = TrackedModel {
        fields: BTreeMap::new(),
    };
    at.section(&["fields"], |_, at| {
        model.fields = at.map(|_, at| field(at, "owner_attribute"))?;
        Ok(())
    })?;
    Ok(model)
}

/// Inputs and columns say the same, but for the key that names the owner.
fn field(at: At<'_>, owner_key: &'static str) -> Result<InputField, Error> {
    let mut field = InputField {
        category: String::new(),
        description: String::new(),
        pii: true,
        kind: None,
        secret: None,
        owner: None,
    };
    at.section(
        &["category", "description", "pii", "kind", "secret", owner_key],
        |key, at| {
            match key {
                "category" => field.category = at.category()?.to_owned(),
                "description" => field.description = at.text()?.to_owned(),
                "pii" => field.pii = at.bool()?,
                "kind" => {
                    let kinds = [Kind::Text, Kind::Email, Kind::Phone, Kind::Number, Kind::Date, Kind::Id];
                    field.kind = Some(at.choice(&kinds.map(|kind| (kind.as_str(), kind)))?);
                }
                "secret" => field.secret = Some(at.bool()?),
                _ => field.owner = Some(at.word()?.to_owned()),
            }
            Ok(())
        },
    )?;
    if field.category.is_empty() {
        return Err(at.error("the key `category` is missing; expected a category such as contact.email"));
    }
    Ok(field)
}

fn recipient(_: &str, at: At<'_>) -> Result<Recipient, Error> {
    let mut recipient = Recipient::default();
    let keys = ["hosts", "role", "legal_name", "country", "safeguard", "on_violation"];
    at.section(&keys, |key, at| {
        match key {
            "hosts" => recipient.hosts = at.hosts()?,
            "role" => recipient.role = Some(at.choice(ROLES)?.to_owned()),
            "legal_name" => recipient.legal_name = Some(at.word()?.to_owned()),
            "country" => recipient.country = Some(at.country()?),
            "safeguard" => recipient.safeguard = Some(at.word()?.to_owned()),
            _ => recipient.on_violation = Some(at.choice(ON_VIOLATION)?),
        }
        Ok(())
    })?;
    Ok(recipient)
}

fn suppress(at: At<'_>) -> Result<Suppress, Error> {
    let mut rule = Suppress::default();
    let keys = ["category", "recipient", "place", "reason", "expires"];
    at.section(&keys, |key, at| {
        match key {
            "category" => rule.category = Some(at.category()?.to_owned()),
            "recipient" => rule.recipient = Some(at.word()?.to_owned()),
            "place" => rule.place = Some(at.word()?.to_owned()),
            "reason" => rule.reason = at.word()?.to_owned(),
            _ => rule.expires = Some(at.date()?),
        }
        Ok(())
    })?;
    if rule.reason.is_empty() {
        return Err(at.error("the key `reason` is missing; expected why these findings are left out"));
    }
    if rule.category.is_none() && rule.recipient.is_none() && rule.place.is_none() {
        return Err(at.error("would leave every finding out; expected a category, a recipient or a place"));
    }
    Ok(rule)
}

fn audit_token(at: At<'_>) -> Result<AuditToken, Error> {
    let mut given = AuditToken {
        name: String::new(),
        token: Token::default(),
        roles: Vec::new(),
    };
    at.section(&["name", "token", "roles"], |key, at| {
        match key {
            "name" => {
                let name = at.word()?;
                let is_name = name.len() <= 64
                    && name.starts_with(|c: char| c.is_ascii_lowercase())
                    && name
                        .bytes()
                        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b));
                if !is_name {
                    return Err(at.error("expected a name such as privacy-desk ([a-z][a-z0-9_-]*)"));
                }
                given.name = name.to_owned();
            }
            "token" => given.token = Token(at.word()?.to_owned()),
            _ => {
                let roles = [
                    ("read", AuditRole::Read),
                    ("subject", AuditRole::Subject),
                    ("erase", AuditRole::Erase),
                ];
                let listed = at.list("a list of roles")?;
                given.roles = listed.map(|at| at.choice(&roles)).collect::<Result<_, _>>()?;
            }
        }
        Ok(())
    })?;
    match (given.name.is_empty(), given.token.0.is_empty(), given.roles.is_empty()) {
        (false, false, false) => Ok(given),
        _ => Err(at.error("an audit token needs the keys name, token and roles")),
    }
}

fn egress(at: At<'_>) -> Result<Egress, Error> {
    let mut egress = Egress::default();
    let keys = [
        "durability",
        "on_violation",
        "read_ahead",
        "streams",
        "unregistered",
        "on_evidence_failure",
    ];
    at.section(&keys, |key, at| {
        match key {
            "read_ahead" => egress.read_ahead = at.positive()?,
            "streams" => egress.streams = at.choice(&[("watch", Streams::Watch), ("refuse", Streams::Refuse)])?,
            "unregistered" => {
                egress.unregistered = at.choice(&[
                    ("ignore", Unregistered::Ignore),
                    ("record", Unregistered::Record),
                    ("judge", Unregistered::Judge),
                ])?;
            }
            "durability" => {
                egress.durability = at.choice(&[
                    ("before_send", Durability::BeforeSend),
                    ("batched", Durability::Batched),
                ])?;
            }
            "on_violation" => egress.on_violation = at.choice(ON_VIOLATION)?,
            _ => {
                egress.on_evidence_failure =
                    at.choice(&[("send", OnEvidenceFailure::Send), ("refuse", OnEvidenceFailure::Refuse)])?;
            }
        }
        Ok(())
    })?;
    Ok(egress)
}

fn checkpoints(at: At<'_>) -> Result<Checkpoints, Error> {
    let (mut to, mut every, mut key_file) = (None, Duration::from_secs(60), None);
    at.section(&["to", "every", "key_file"], |key, at| {
        match key {
            "to" => to = Some(checkpoint_place(&at)?),
            "every" => every = at.interval()?,
            _ => key_file = Some(at.file_path()?),
        }
        Ok(())
    })?;
    let Some(to) = to else {
        return Err(at.error("the key `to` is missing; expected the path of a file, or an https:// URL"));
    };
    Ok(Checkpoints { to, every, key_file })
}

/// What they say is no secret, but whoever can drop one unseen can cut the chain behind it: so not in plain text
/// across a network. Of a URL nothing is quoted, it may hold a secret.
fn checkpoint_place(at: &At<'_>) -> Result<CheckpointPlace, Error> {
    let text = at.word()?;
    let Some((scheme, rest)) = text.split_once("://") else {
        return Ok(CheckpointPlace::File(at.file_path()?));
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let loopback = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    };
    let loopback = loopback == "localhost"
        || loopback
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    match scheme {
        "https" | "http" if authority.is_empty() => Err(at.error("expected a host in the URL")),
        "http" if !loopback => Err(at.error("expected an https:// URL; plain http:// is for loopback addresses only")),
        "https" | "http" if cfg!(not(feature = "ureq")) => Err(at.error(
            "this build cannot post: enable the feature `ureq` of the crate `provenance`, or give the path of a file",
        )),
        "https" | "http" => Ok(CheckpointPlace::Url(Token(text.to_owned()))),
        _ => Err(at.error("expected the path of a file, or an https:// URL")),
    }
}

fn retention(key: &str, at: At<'_>) -> Result<Duration, Error> {
    if EventType::from_str(key).is_err() && !category::is_well_formed(key) {
        let types = [
            "DATA_COLLECTION",
            "DATA_STORAGE",
            "DATA_ACCESS",
            "DATA_DERIVATION",
            "DATA_SHARE",
            "POLICY_VIOLATION",
            "DATA_ERASURE",
            "AUDIT_ACCESS",
        ];
        return Err(at.error(format!(
            "unknown event type{}; expected an event type such as DATA_COLLECTION, an own one that begins with X_, \
             or a category such as contact.email",
            did_you_mean(nearest(key, &types))
        )));
    }
    at.duration()
}

type Choices<'a, T> = &'a [(&'a str, T)];

/// A place in the file: a value, and the keys that lead to it.
struct At<'a> {
    file: &'a Path,
    /// The folder that relative paths start from.
    folder: &'a Path,
    path: String,
    node: &'a Node,
}

impl<'a> At<'a> {
    fn error(&self, message: impl std::fmt::Display) -> Error {
        let key = if self.path.is_empty() {
            String::new()
        } else {
            format!("{}: ", self.path)
        };
        Error::config_at(self.file, Some(self.node.line), format!("{key}{message}"))
    }

    fn expected(&self, expected: &str) -> Error {
        let found = self.node.value.describe();
        // 8080, yes, NO and the like: text to their writer, not to every syntax.
        let hint = match self.node.value {
            Value::Bool(_) | Value::Integer(_) | Value::Other(_) if expected.starts_with("text") => {
                "; put it in quotes"
            }
            _ => "",
        };
        self.error(format!("expected {expected}, found {found}{hint}"))
    }

    /// Every member of a map, in the order of the file.
    fn entries(&self) -> Result<impl Iterator<Item = (&'a str, At<'a>)> + use<'a>, Error> {
        let Value::Map(entries) = &self.node.value else {
            return Err(self.expected("a map"));
        };
        let (file, folder, path) = (self.file, self.folder, self.path.clone());
        Ok(entries.iter().map(move |(key, node)| {
            let shown = shown(key);
            let path = if path.is_empty() {
                shown
            } else {
                format!("{path}.{shown}")
            };
            let at = At {
                file,
                folder,
                path,
                node,
            };
            (key.as_str(), at)
        }))
    }

    /// A map with known keys. A key without a value counts as left out.
    fn section(&self, known: &[&str], mut read: impl FnMut(&str, At<'a>) -> Result<(), Error>) -> Result<(), Error> {
        for (key, at) in self.entries()? {
            if !known.contains(&key) {
                return Err(at.error(format!(
                    "unknown key{}; expected one of {}",
                    did_you_mean(nearest(key, known)),
                    known.join(", ")
                )));
            }
            if !matches!(at.node.value, Value::Null) {
                read(key, at)?;
            }
        }
        Ok(())
    }

    /// A map with keys of the user's own.
    fn map<T>(&self, read: impl Fn(&str, At<'a>) -> Result<T, Error>) -> Result<BTreeMap<String, T>, Error> {
        self.entries()?
            .map(|(key, at)| Ok((key.to_owned(), read(key, at)?)))
            .collect()
    }

    fn bool(&self) -> Result<bool, Error> {
        match self.node.value {
            Value::Bool(truth) => Ok(truth),
            _ => Err(self.expected("true or false")),
        }
    }

    fn text(&self) -> Result<&'a str, Error> {
        match &self.node.value {
            Value::Text(text) => Ok(text),
            _ => Err(self.expected("text")),
        }
    }

    /// Text that says something.
    fn word(&self) -> Result<&'a str, Error> {
        match self.text()?.trim() {
            "" => Err(self.error("expected text, found an empty one")),
            word => Ok(word),
        }
    }

    fn parsed<T: FromStr>(&self, expected: &str) -> Result<T, Error> {
        match &self.node.value {
            Value::Text(text) => text
                .parse()
                .map_err(|_| self.error(format!("expected {expected}, found `{}`", shown(text)))),
            _ => Err(self.expected(expected)),
        }
    }

    fn choice<T: Copy>(&self, choices: Choices<'_, T>) -> Result<T, Error> {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let expected = words.join(" or ");
        let Value::Text(text) = &self.node.value else {
            return Err(self.expected(&expected));
        };
        let found = choices.iter().find(|(word, _)| word == text).map(|(_, choice)| *choice);
        found.ok_or_else(|| {
            self.error(format!(
                "expected {expected}, found `{}`{}",
                shown(text),
                did_you_mean(nearest(text, &words))
            ))
        })
    }

    fn seconds(&self) -> Result<Duration, Error> {
        let expected = "a whole number of seconds, at least 0";
        match self.node.value {
            Value::Integer(number) => u64::try_from(number)
                .map(Duration::from_secs)
                .map_err(|_| self.error(format!("expected {expected}, found {number}"))),
            _ => Err(self.expected(expected)),
        }
    }

    fn epoch(&self) -> Result<u32, Error> {
        let expected = "a whole number from 1 to 64";
        match self.node.value {
            Value::Integer(number) => u32::try_from(number)
                .ok()
                .filter(|number| (1..=MAX_EPOCH).contains(number))
                .ok_or_else(|| self.error(format!("expected {expected}, found {number}"))),
            _ => Err(self.expected(expected)),
        }
    }

    fn bytes(&self) -> Result<u64, Error> {
        let expected = "a whole number of bytes, at least 0";
        match self.node.value {
            Value::Integer(number) => {
                u64::try_from(number).map_err(|_| self.error(format!("expected {expected}, found {number}")))
            }
            _ => Err(self.expected(expected)),
        }
    }

    fn positive(&self) -> Result<usize, Error> {
        let expected = "a whole number, at least 1";
        match self.node.value {
            Value::Integer(number) => usize::try_from(number)
                .ok()
                .filter(|number| *number > 0)
                .ok_or_else(|| self.error(format!("expected {expected}, found {number}"))),
            _ => Err(self.expected(expected)),
        }
    }

    fn file_path(&self) -> Result<PathBuf, Error> {
        Ok(absolute(&self.folder.join(self.word()?)))
    }

    fn category(&self) -> Result<&'a str, Error> {
        let text = self.text()?;
        if category::is_well_formed(text) {
            return Ok(text);
        }
        Err(self.error(format!(
            "expected a category such as contact.email (lower-case words joined by dots), found `{}`{}",
            shown(text),
            did_you_mean(category::nearest(text))
        )))
    }

    /// The elements of a list.
    fn list(&self, expected: &str) -> Result<impl Iterator<Item = At<'a>> + use<'a>, Error> {
        let Value::List(nodes) = &self.node.value else {
            return Err(self.expected(expected));
        };
        let (file, folder, path) = (self.file, self.folder, self.path.clone());
        Ok(nodes.iter().map(move |node| At {
            file,
            folder,
            path: path.clone(),
            node,
        }))
    }

    /// A day, from its beginning in UTC.
    fn date(&self) -> Result<Timestamp, Error> {
        let expected = "text with a date such as 2026-12-31";
        let Value::Text(text) = &self.node.value else {
            return Err(self.expected(expected));
        };
        Timestamp::parse(text)
            .filter(|_| text.len() == "2026-12-31".len())
            .ok_or_else(|| self.error(format!("expected a date such as 2026-12-31, found `{}`", shown(text))))
    }

    fn hosts(&self) -> Result<Vec<String>, Error> {
        self.list("a list of host names")?
            .map(|at| {
                let host = at.word()?;
                let is_range = host.contains('/') && host.trim().parse::<ipnet::IpNet>().is_ok();
                if is_range {
                    return Ok(host.trim().to_owned());
                }
                let name = host.strip_prefix("*.").unwrap_or(host);
                if name.is_empty() || name.contains(|c: char| "/*@?#".contains(c) || c.is_whitespace()) {
                    return Err(at.error(format!(
                        "expected a host name such as api.example.com or *.example.com, or addresses as 10.0.0.0/8, found `{}`",
                        shown(host)
                    )));
                }
                Ok(host.to_owned())
            })
            .collect()
    }

    fn country(&self) -> Result<String, Error> {
        let text = self.word()?;
        if text.len() == 2 && text.bytes().all(|b| b.is_ascii_alphabetic()) {
            return Ok(text.to_ascii_uppercase());
        }
        Err(self.error(format!(
            "expected a country as two letters (ISO 3166-1), such as DE, found `{}`",
            shown(text)
        )))
    }

    fn duration(&self) -> Result<Duration, Error> {
        self.time_in(
            &[("h", 3_600), ("d", 86_400), ("w", 7 * 86_400)],
            "a time such as 36h, 400d or 8w",
        )
    }

    fn interval(&self) -> Result<Duration, Error> {
        self.time_in(&[("s", 1), ("m", 60), ("h", 3_600)], "a time such as 60s, 5m or 1h")
    }

    fn time_in(&self, units: &[(&str, u64)], expected: &str) -> Result<Duration, Error> {
        let Value::Text(text) = &self.node.value else {
            return Err(self.expected(expected));
        };
        units
            .iter()
            .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, *seconds)))
            .filter(|(number, _)| number.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|(number, seconds)| Some(u64::from(number.parse::<u32>().ok()?) * seconds))
            .filter(|seconds| *seconds > 0)
            .map(Duration::from_secs)
            .ok_or_else(|| self.error(format!("expected {expected}, found `{}`", shown(text))))
    }
}

/// The file's text in a message: on one line, and short.
fn shown(text: &str) -> String {
    let mut shown: String = text.escape_debug().take(60).collect();
    if text.chars().nth(60).is_some() {
        shown.push_str("..");
    }
    shown
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |nearest| format!(" (did you mean `{nearest}`?)"))
}

/// The word of `known` that `written` was probably meant to be.
fn nearest<'a>(written: &str, known: &[&'a str]) -> Option<&'a str> {
    let written: String = written.to_lowercase().chars().take(64).collect();
    known
        .iter()
        .map(|word| (strsim::damerau_levenshtein(&written, &word.to_lowercase()), *word))
        .filter(|(distance, word)| *distance <= 1.max(word.len() / 3))
        .min()
        .map(|(_, word)| word)
}
