//! What happened: the record that hooks make, the store keeps and the audit API shows.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::{Owner, Tag, Timestamp};
use crate::site::Site;

/// The type of an event; own types begin with `X_`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum EventType {
    /// Personal data came in.
    DataCollection,
    /// A committed insert, update or delete.
    DataStorage,
    /// A tracked load.
    DataAccess,
    /// A value was computed from tracked ones.
    DataDerivation,
    /// Data was sent to a recipient.
    DataShare,
    /// Data was sent, or was about to be, against the declared policy.
    PolicyViolation,
    /// A person's records were erased.
    DataErasure,
    /// Somebody searched, exported or erased.
    AuditAccess,
    /// A type of the user's own, `X_NEWSLETTER_OPENED`.
    Own(Arc<str>),
}

impl EventType {
    /// The name on the wire, `DATA_SHARE`.
    pub fn as_str(&self) -> &str {
        match self {
            EventType::DataCollection => "DATA_COLLECTION",
            EventType::DataStorage => "DATA_STORAGE",
            EventType::DataAccess => "DATA_ACCESS",
            EventType::DataDerivation => "DATA_DERIVATION",
            EventType::DataShare => "DATA_SHARE",
            EventType::PolicyViolation => "POLICY_VIOLATION",
            EventType::DataErasure => "DATA_ERASURE",
            EventType::AuditAccess => "AUDIT_ACCESS",
            EventType::Own(name) => name,
        }
    }

    /// Whether `text` has the form of an event type: `[A-Z][A-Z0-9_]*`, at most 64 bytes.
    pub fn is_well_formed(text: &str) -> bool {
        text.len() <= 64
            && text.starts_with(|c: char| c.is_ascii_uppercase())
            && text
                .bytes()
                .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
    }
}

impl FromStr for EventType {
    type Err = crate::Error;

    /// Accepts the names above and well-formed own names beginning with `X_`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "DATA_COLLECTION" => EventType::DataCollection,
            "DATA_STORAGE" => EventType::DataStorage,
            "DATA_ACCESS" => EventType::DataAccess,
            "DATA_DERIVATION" => EventType::DataDerivation,
            "DATA_SHARE" => EventType::DataShare,
            "POLICY_VIOLATION" => EventType::PolicyViolation,
            "DATA_ERASURE" => EventType::DataErasure,
            "AUDIT_ACCESS" => EventType::AuditAccess,
            own if own.starts_with("X_") && EventType::is_well_formed(own) => EventType::Own(own.into()),
            _ => {
                return Err(crate::Error::new(
                    crate::error::ErrorKind::Input,
                    "unknown event type: use one of the DATA_* types, POLICY_VIOLATION, AUDIT_ACCESS, \
                     or an own type that begins with X_ ([A-Z0-9_], at most 64 characters)",
                ));
            }
        })
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl serde::Serialize for EventType {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// What a DATA_STORAGE did.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Action {
    /// New rows.
    Insert,
    /// Changed rows.
    Update,
    /// New rows, or changed ones where they were there (`ON CONFLICT DO UPDATE`).
    Upsert,
    /// Removed rows.
    #[cfg(feature = "sql-fallback")]
    Delete,
}

impl Action {
    /// The word on the wire.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Action::Insert => "insert",
            Action::Update => "update",
            Action::Upsert => "insert-or-update",
            #[cfg(feature = "sql-fallback")]
            Action::Delete => "delete",
        }
    }
}

/// How a DATA_SHARE ended. Written as a second record; `pending` and `unknown` are what
/// its absence means while the instance lives, and after it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The recipient answered with this HTTP status.
    Status(u16),
    /// Handed over to a transport that has no status.
    Sent,
    /// The recipient answered with a redirect, which the client followed.
    Redirected,
    /// The client failed; the kind of its error (`timeout`, `connect`, `tls`, ...), never its text.
    Error(&'static str),
    /// The policy kept it from leaving.
    Blocked,
    /// Nobody can tell.
    Unknown,
}

/// An event on its way to the store. Hooks fill it; the recorder adds instance and sequence.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// What happened.
    pub(crate) event_type: EventType,
    /// When the hook saw it.
    pub(crate) created_at: Timestamp,
    /// Who did it: `HTTP POST /signup` or `fn crm::api::signup`.
    pub(crate) actor: Arc<str>,
    /// Onto what: `db:users`, `POST api.mailchimp.com/3.0/lists/{id}`. No query values, no credentials.
    pub(crate) target: Option<Arc<str>>,
    /// The data subject of the event as a whole, where there is just one.
    pub(crate) owner: Option<Owner>,
    /// The recipient's name (DATA_SHARE).
    pub(crate) recipient: Option<Arc<str>>,
    /// The request.
    pub(crate) request_id: Option<Arc<str>>,
    /// The signed-in user, validated or keyed.
    pub(crate) user_id: Option<Arc<str>>,
    /// The values it was about.
    pub(crate) tags: Vec<EventTag>,
    /// The shape of the data: declared keys, types, lengths. Never a raw value.
    pub(crate) payload: Map<String, Json>,
    /// `fields` of the payload.
    pub(crate) shapes: Vec<Shape>,
    /// `site` of the extras.
    pub(crate) site: Option<&'static Site>,
    /// Everything else: action, certain, purpose, site, outcome, trace id, ...
    pub(crate) extras: Map<String, Json>,
}

/// What is known of a share only when it has ended: its body was scanned as it passed.
#[derive(Clone, Debug)]
pub(crate) struct Late {
    /// As the share has them.
    pub(crate) recipient: Option<Arc<str>>,
    /// As the share has it.
    pub(crate) request_id: Option<Arc<str>>,
    /// The one person whom the late tags are about.
    pub(crate) owner: Option<Owner>,
    /// What was met.
    pub(crate) tags: Vec<EventTag>,
    /// Goes over the share's.
    pub(crate) payload: Map<String, Json>,
    /// Goes over the share's.
    pub(crate) extras: Map<String, Json>,
}

/// A tag as one event met it.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct EventTag {
    /// The tag.
    #[serde(flatten)]
    pub(crate) tag: Tag,
    /// More that this event knows: `place`, `form`, `confidence` of a finding, `role` in a derivation.
    #[serde(flatten)]
    pub(crate) detail: Map<String, Json>,
}

/// One of `fields` in a payload: `"email": {"type": "string", "length": 17, "in": "form"}`.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) name: Arc<str>,
    /// `string`, `integer`, `number`, `boolean`.
    pub(crate) json_type: &'static str,
    /// Characters, for text that is no secret.
    pub(crate) length: Option<usize>,
    /// Which part of the request it came in.
    pub(crate) part: Option<&'static str>,
    /// Of many rows: how many values, instead of a length.
    pub(crate) count: usize,
}

impl Event {
    /// An event of this type by this actor, now, about nothing yet.
    pub(crate) fn new(event_type: EventType, actor: impl Into<Arc<str>>) -> Self {
        Event {
            event_type,
            created_at: Timestamp::now(),
            actor: actor.into(),
            target: None,
            owner: None,
            recipient: None,
            request_id: None,
            user_id: None,
            tags: Vec::new(),
            payload: Map::new(),
            shapes: Vec::new(),
            site: None,
            extras: Map::new(),
        }
    }
}
