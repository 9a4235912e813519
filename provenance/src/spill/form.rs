//! Records as they stand in a frame: JSON, with pseudonyms as the database has them.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};

use crate::detect::Entry;
use crate::store::write::{Record, Value};
use crate::vocabulary::{Event, EventTag, Fingerprint, Kind, Late, Outcome, Owner, Tag, Timestamp};

/// A record and its place among those of its process, which begin with 1.
#[derive(Serialize, Deserialize)]
pub(super) struct Numbered {
    pub(super) at: u64,
    pub(super) record: Form,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Form {
    Event(Box<EventForm>),
    Outcome(Box<OutcomeForm>),
    Value(Box<ValueForm>),
    Link(Arc<str>, Arc<str>),
}

/// The share that an outcome is of.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum Of {
    /// In the database, under the process's own instance: a [`Ticket::place`](crate::ticket::Ticket::place).
    Seq(u64),
    /// The record with this number.
    At(u64),
}

#[derive(Serialize, Deserialize)]
pub(super) struct EventForm {
    event_type: String,
    created_at: i64,
    actor: Arc<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recipient: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tags: Vec<TagForm>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    payload: Map<String, Json>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    extras: Map<String, Json>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct OutcomeForm {
    pub(super) of: Of,
    created_at: i64,
    outcome: OutcomeWord,
    #[serde(skip_serializing_if = "Option::is_none")]
    late: Option<LateForm>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OutcomeWord {
    Status(u16),
    Sent,
    Redirected,
    Error(String),
    Blocked,
    Unknown,
}

#[derive(Serialize, Deserialize)]
struct LateForm {
    #[serde(skip_serializing_if = "Option::is_none")]
    recipient: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tags: Vec<TagForm>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    payload: Map<String, Json>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    extras: Map<String, Json>,
}

#[derive(Serialize, Deserialize)]
struct TagForm {
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
    category: Arc<str>,
    field: Arc<str>,
    description: Arc<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<Arc<str>>,
    source: Arc<str>,
    pii: bool,
    created_at: i64,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    detail: Map<String, Json>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct ValueForm {
    fingerprint: String,
    kind: String,
    entry: Vec<u8>,
    tag: TagForm,
}

impl Form {
    /// `None` for the outcome of a share that was refused: it would hang in the air.
    pub(super) fn of(record: &Record) -> Option<Self> {
        Some(match record {
            Record::Event(event, _) => Form::Event(Box::new(EventForm::of(event))),
            Record::Outcome {
                of,
                outcome,
                created_at,
                late,
            } => Form::Outcome(Box::new(OutcomeForm {
                of: match (of.place(), of.spilled_at()) {
                    (Some(place), _) => Of::Seq(place),
                    (None, at) => Of::At(at?),
                },
                created_at: created_at.0,
                outcome: OutcomeWord::of(outcome),
                late: late.as_deref().map(LateForm::of),
            })),
            Record::Value(value) => Form::Value(Box::new(ValueForm {
                fingerprint: value.fingerprint.to_string(),
                kind: value.kind.as_str().to_owned(),
                entry: value.entry.to_bytes(),
                tag: TagForm::of(&value.tag, &Map::new()),
            })),
            Record::Link(a, b) => Form::Link(a.as_str().into(), b.as_str().into()),
        })
    }
}

impl EventForm {
    fn of(event: &Event) -> Self {
        let mut payload = event.payload.clone();
        if !event.shapes.is_empty() {
            let fields = event.shapes.iter().map(|shape| {
                let mut field = Map::new();
                field.insert("type".into(), shape.json_type.into());
                if shape.count > 1 {
                    field.insert("count".into(), shape.count.into());
                }
                if let Some(length) = shape.length {
                    field.insert("length".into(), length.into());
                }
                if let Some(part) = shape.part {
                    field.insert("in".into(), part.into());
                }
                (shape.name.to_string(), Json::Object(field))
            });
            payload.insert("fields".into(), Json::Object(fields.collect()));
        }
        let mut extras = event.extras.clone();
        if let Some(site) = event.site {
            extras.insert(
                "site".into(),
                json!({ "path": site.path, "file": site.file, "line": site.line }),
            );
        }
        EventForm {
            event_type: event.event_type.as_str().to_owned(),
            created_at: event.created_at.0,
            actor: event.actor.clone(),
            target: event.target.clone(),
            owner: stored(event.owner.as_ref()),
            recipient: event.recipient.clone(),
            request_id: event.request_id.clone(),
            user_id: event.user_id.clone(),
            tags: TagForm::all(&event.tags),
            payload,
            extras,
        }
    }

    /// `None` if it is nothing that was written by [`Form::of`].
    pub(super) fn event(self) -> Option<Event> {
        Some(Event {
            event_type: self.event_type.parse().ok()?,
            created_at: Timestamp(self.created_at),
            actor: self.actor,
            target: self.target,
            owner: owner(self.owner)?,
            recipient: self.recipient,
            request_id: self.request_id,
            user_id: self.user_id,
            tags: TagForm::tags(self.tags)?,
            payload: self.payload,
            shapes: Vec::new(),
            site: None,
            extras: self.extras,
        })
    }
}

/// An outcome as it was read; its share is still to be found.
pub(super) struct Ended {
    pub(super) of: Of,
    pub(super) created_at: Timestamp,
    pub(super) outcome: Outcome,
    pub(super) late: Option<Box<Late>>,
}

impl OutcomeForm {
    /// `None` if it is nothing that was written by [`Form::of`].
    pub(super) fn ended(self) -> Option<Ended> {
        let late = match self.late {
            Some(late) => Some(Box::new(late.late()?)),
            None => None,
        };
        Some(Ended {
            of: self.of,
            created_at: Timestamp(self.created_at),
            outcome: self.outcome.outcome(),
            late,
        })
    }
}

impl OutcomeWord {
    fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Status(status) => OutcomeWord::Status(*status),
            Outcome::Sent => OutcomeWord::Sent,
            Outcome::Redirected => OutcomeWord::Redirected,
            Outcome::Error(kind) => OutcomeWord::Error((*kind).to_owned()),
            Outcome::Blocked => OutcomeWord::Blocked,
            Outcome::Unknown => OutcomeWord::Unknown,
        }
    }

    fn outcome(self) -> Outcome {
        match self {
            OutcomeWord::Status(status) => Outcome::Status(status),
            OutcomeWord::Sent => Outcome::Sent,
            OutcomeWord::Redirected => Outcome::Redirected,
            OutcomeWord::Error(kind) => Outcome::Error(word(kind)),
            OutcomeWord::Blocked => Outcome::Blocked,
            OutcomeWord::Unknown => Outcome::Unknown,
        }
    }
}

/// Kinds of errors are words of the program's: few, and kept for ever. A file could name any number.
fn word(kind: String) -> &'static str {
    static KNOWN: Mutex<Option<HashSet<&'static str>>> = Mutex::new(None);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    kept(kind, known.get_or_insert_default())
}

fn kept(kind: String, known: &mut HashSet<&'static str>) -> &'static str {
    const MOST: usize = 256;
    const LONGEST: usize = 64;
    if let Some(word) = known.get(kind.as_str()) {
        return word;
    }
    if known.len() >= MOST || kind.len() > LONGEST {
        return "other";
    }
    let word: &'static str = Box::leak(kind.into_boxed_str());
    known.insert(word);
    word
}

impl LateForm {
    fn of(late: &Late) -> Self {
        LateForm {
            recipient: late.recipient.clone(),
            request_id: late.request_id.clone(),
            owner: stored(late.owner.as_ref()),
            tags: TagForm::all(&late.tags),
            payload: late.payload.clone(),
            extras: late.extras.clone(),
        }
    }

    fn late(self) -> Option<Late> {
        Some(Late {
            recipient: self.recipient,
            request_id: self.request_id,
            owner: owner(self.owner)?,
            tags: TagForm::tags(self.tags)?,
            payload: self.payload,
            extras: self.extras,
        })
    }
}

impl TagForm {
    fn of(tag: &Tag, detail: &Map<String, Json>) -> Self {
        TagForm {
            fingerprint: tag.fingerprint.map(|fingerprint| fingerprint.to_string()),
            category: tag.category.clone(),
            field: tag.field.clone(),
            description: tag.description.clone(),
            owner: stored(tag.owner.as_ref()),
            source: tag.source.clone(),
            pii: tag.pii,
            created_at: tag.created_at.0,
            detail: detail.clone(),
        }
    }

    fn all(tags: &[EventTag]) -> Vec<Self> {
        tags.iter().map(|tag| TagForm::of(&tag.tag, &tag.detail)).collect()
    }

    fn tags(forms: Vec<Self>) -> Option<Vec<EventTag>> {
        forms.into_iter().map(TagForm::tag).collect()
    }

    fn tag(self) -> Option<EventTag> {
        let fingerprint = match self.fingerprint {
            Some(text) => Some(Fingerprint::parse(&text)?),
            None => None,
        };
        Some(EventTag {
            tag: Tag {
                fingerprint,
                category: self.category,
                field: self.field,
                description: self.description,
                owner: owner(self.owner)?,
                source: self.source,
                pii: self.pii,
                created_at: Timestamp(self.created_at),
            },
            detail: self.detail,
        })
    }
}

impl ValueForm {
    /// `None` if it is nothing that was written by [`Form::of`].
    pub(super) fn value(self) -> Option<Value> {
        Some(Value {
            fingerprint: Fingerprint::parse(&self.fingerprint)?,
            kind: Kind::parse(&self.kind)?,
            entry: Entry::from_bytes(&self.entry)?,
            tag: Arc::new(self.tag.tag()?.tag),
        })
    }
}

fn stored(owner: Option<&Owner>) -> Option<Arc<str>> {
    owner.map(|owner| owner.as_str().into())
}

/// `Some(None)` for nobody, `None` for what is no owner.
fn owner(stored: Option<Arc<str>>) -> Option<Option<Owner>> {
    match stored {
        Some(text) => Owner::from_stored(&text).map(Some),
        None => Some(None),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::detect::Detector;
    use crate::ticket::Ticket;
    use crate::vocabulary::EventType;
    use crate::vocabulary::event::Shape;

    fn tag() -> EventTag {
        EventTag {
            tag: Tag {
                fingerprint: Some(Fingerprint([9; 32])),
                category: "contact.email".into(),
                field: "email".into(),
                description: "".into(),
                owner: Owner::from_stored("email:aa"),
                source: "HTTP POST /signup".into(),
                pii: true,
                created_at: Timestamp(4),
            },
            detail: json!({ "form": "exact", "confidence": 0.75 })
                .as_object()
                .unwrap()
                .clone(),
        }
    }

    /// Through a frame's payload and back.
    fn again(record: &Record) -> Form {
        let text = serde_json::to_vec(&Numbered {
            at: 7,
            record: Form::of(record).unwrap(),
        });
        let read: Numbered = serde_json::from_slice(&text.unwrap()).unwrap();
        assert_eq!(read.at, 7);
        read.record
    }

    #[test]
    fn an_event_comes_back_with_its_time_and_the_shapes_of_its_fields() {
        let mut event = Event::new(EventType::Own("X_ONE".into()), "job");
        event.created_at = Timestamp(5);
        event.owner = Owner::from_stored("user:7");
        event.target = Some("db:users".into());
        event.tags.push(tag());
        event.extras.insert("purpose".into(), "billing".into());
        event.shapes.push(Shape {
            name: "email".into(),
            json_type: "string",
            length: Some(9),
            part: Some("form"),
            count: 1,
        });
        let Form::Event(form) = again(&Record::Event(Box::new(event), Ticket::default())) else {
            panic!("no event");
        };
        let event = form.event().unwrap();
        assert_eq!((event.event_type.as_str(), event.created_at), ("X_ONE", Timestamp(5)));
        assert_eq!(event.owner.unwrap().as_str(), "user:7");
        assert_eq!(event.target.as_deref(), Some("db:users"));
        assert_eq!(event.extras["purpose"], "billing");
        assert_eq!(
            event.payload["fields"]["email"],
            json!({ "type": "string", "length": 9, "in": "form" })
        );
        let found = &event.tags[0];
        assert_eq!(found.tag.fingerprint, Some(Fingerprint([9; 32])));
        assert_eq!(found.tag.created_at, Timestamp(4));
        assert_eq!(found.detail["confidence"], 0.75);
    }

    #[test]
    fn an_outcome_names_its_share_by_what_is_known_of_it() {
        let outcome = |of: &Ticket, outcome| Record::Outcome {
            of: of.clone(),
            outcome,
            created_at: Timestamp(6),
            late: Some(Box::new(Late {
                recipient: Some("mail".into()),
                request_id: None,
                owner: None,
                tags: vec![tag()],
                payload: Map::new(),
                extras: Map::new(),
            })),
        };
        let ended = |record: &Record| match again(record) {
            Form::Outcome(form) => form.ended().unwrap(),
            _ => panic!("no outcome"),
        };
        let ticket = Ticket::default();
        assert!(Form::of(&outcome(&ticket, Outcome::Sent)).is_none(), "of nothing");
        ticket.spill(3);
        let read = ended(&outcome(&ticket, Outcome::Error("timeout")));
        assert_eq!((read.of, read.outcome), (Of::At(3), Outcome::Error("timeout")));
        assert_eq!(read.late.unwrap().tags.len(), 1);
        ticket.assign(12);
        let read = ended(&outcome(&ticket, Outcome::Status(204)));
        assert_eq!(
            (read.of, read.outcome, read.created_at),
            (Of::Seq(12), Outcome::Status(204), Timestamp(6))
        );
        for plain in [Outcome::Sent, Outcome::Redirected, Outcome::Blocked, Outcome::Unknown] {
            assert_eq!(ended(&outcome(&ticket, plain.clone())).outcome, plain);
        }
    }

    #[test]
    fn a_value_is_detected_again_and_damage_is_not_taken_for_one() {
        let entry = Detector::new(&[1; 32]).entry(Kind::Email, "ada@example.com");
        let value = Record::Value(Box::new(Value {
            fingerprint: Fingerprint([9; 32]),
            kind: Kind::Email,
            entry: entry.clone(),
            tag: Arc::new(tag().tag),
        }));
        let Form::Value(form) = again(&value) else {
            panic!("no value")
        };
        assert_eq!(form.value().unwrap().entry, entry);
        let Form::Value(mut form) = again(&value) else {
            panic!("no value")
        };
        form.entry.pop();
        assert!(form.value().is_none());
        let Form::Value(mut form) = again(&value) else {
            panic!("no value")
        };
        form.fingerprint = "zz".into();
        assert!(form.value().is_none());
    }

    #[test]
    fn a_file_cannot_fill_the_memory_with_kinds_of_errors() {
        let known = &mut HashSet::new();
        assert_eq!(kept("x".repeat(65), known), "other");
        for n in 0..1000 {
            kept(format!("kind{n}"), known);
        }
        assert_eq!(kept("kind3".into(), known), "kind3");
        assert_eq!(kept("kind999".into(), known), "other");
        assert_eq!(known.len(), 256);
    }
}
