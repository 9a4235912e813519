//! Evidence for other tools: each format is written as it is read, in bounded memory.

pub mod csv;
pub mod fides;
pub mod openlineage;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::io::{self, Write};

use provenance::Timestamp;
use provenance::store::{EventQuery, Reader, StoredEvent};
use serde_json::{Map, Value as Json};

/// Events that are read at a time.
const PAGE: usize = 500;

/// Why an export ended early.
#[derive(Debug)]
pub enum Error {
    /// The evidence cannot be read.
    Evidence(provenance::Error),
    /// What was to be written to took no more.
    Output(io::Error),
}

impl From<provenance::Error> for Error {
    fn from(error: provenance::Error) -> Self {
        Error::Evidence(error)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Error::Output(error)
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Error::Output(error.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Evidence(error) => error.fmt(f),
            Error::Output(error) => write!(f, "the answer cannot be written: {}", error.kind()),
        }
    }
}

impl std::error::Error for Error {}

/// Hands every event that `query` means to `each`, newest first; `limit` and `cursor` of the query are not looked at.
///
/// # Errors
/// What reading and `each` give.
pub fn each_event<E: From<provenance::Error>>(
    reader: &mut Reader,
    query: &EventQuery,
    mut each: impl FnMut(StoredEvent) -> Result<(), E>,
) -> Result<(), E> {
    let mut query = EventQuery {
        limit: PAGE,
        cursor: None,
        ..query.clone()
    };
    // By category, a share whose findings came late may stand on both sides of a page's border.
    let mut before: HashSet<String> = HashSet::new();
    loop {
        let page = reader.events(&query)?;
        let mut seen = HashSet::with_capacity(page.events.len());
        for event in page.events {
            if query.category.is_some() {
                seen.insert(event.event_id.clone());
            }
            if !before.contains(&event.event_id) {
                each(event)?;
            }
        }
        before = seen;
        query.cursor = page.next_cursor;
        if query.cursor.is_none() {
            return Ok(());
        }
    }
}

/// Each event as the audit API shows it, one a line.
///
/// # Errors
/// [`Error`].
pub fn jsonl(
    reader: &mut Reader,
    query: &EventQuery,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(),
) -> Result<(), Error> {
    each_event(reader, query, |event| {
        progress();
        serde_json::to_writer(&mut *out, &event)?;
        Ok(out.write_all(b"\n")?)
    })
}

/// A text of a JSON object; empty where it is none.
pub(crate) fn text<'m>(map: &'m Map<String, Json>, key: &str) -> &'m str {
    map.get(key).and_then(Json::as_str).unwrap_or_default()
}

/// How often, from when to when.
#[cfg(feature = "cli")]
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Span {
    pub(crate) first: Timestamp,
    pub(crate) last: Timestamp,
    pub(crate) events: u64,
}

#[cfg(feature = "cli")]
impl Span {
    /// Counts an event in.
    pub(crate) fn see(&mut self, at: Timestamp) {
        self.first = self.first.min(at);
        self.last = self.last.max(at);
        self.events += 1;
    }

    /// Before the first event is counted.
    pub(crate) fn none_yet(at: Timestamp) -> Self {
        Span {
            first: at,
            last: at,
            events: 0,
        }
    }
}

/// How a share ended, in the words of the evidence: `status 200`, `error timeout`, `blocked`.
#[cfg(feature = "cli")]
pub(crate) fn outcome(event: &StoredEvent) -> String {
    let word = text(&event.extras, "outcome");
    match (word, event.extras.get("status"), text(&event.extras, "error")) {
        ("status", Some(status), _) => format!("status {status}"),
        ("error", _, kind) if !kind.is_empty() => format!("error {kind}"),
        ("", ..) => "unknown".to_owned(),
        _ => word.to_owned(),
    }
}

/// Whether nothing of a share left: the policy kept it in, and no part of its body had passed.
pub(crate) fn was_kept_in(event: &StoredEvent) -> bool {
    text(&event.extras, "outcome") == "blocked" && event.extras.get("passed").and_then(Json::as_u64).unwrap_or(0) == 0
}

/// What is known of a recipient: as its newest share has it, then as `recipients` of the configuration has it.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub(crate) struct Profile {
    pub(crate) declared: bool,
    pub(crate) role: Option<String>,
    pub(crate) legal_name: Option<String>,
    pub(crate) country: Option<String>,
    pub(crate) safeguard: Option<String>,
}

impl Profile {
    pub(crate) fn of(event: &StoredEvent, known: &BTreeMap<String, provenance::config::Recipient>) -> Self {
        let known = known.get(text(&event.extras, "recipient"));
        let said = |key: &str, known: Option<&String>| {
            let said = Some(text(&event.extras, key)).filter(|text| !text.is_empty());
            said.or(known.map(String::as_str)).map(str::to_owned)
        };
        Profile {
            declared: known.is_some()
                || event
                    .extras
                    .get("recipient_declared")
                    .and_then(Json::as_bool)
                    .unwrap_or(false),
            role: said("recipient_role", known.and_then(|known| known.role.as_ref())),
            legal_name: said(
                "recipient_legal_name",
                known.and_then(|known| known.legal_name.as_ref()),
            ),
            country: said("recipient_country", known.and_then(|known| known.country.as_ref())),
            safeguard: said("recipient_safeguard", known.and_then(|known| known.safeguard.as_ref())),
        }
    }
}
