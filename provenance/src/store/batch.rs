//! A batch of records as rows: numbered, salted, committed to, and inserted.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use diesel::dsl::case_when;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Nullable};
use diesel::upsert::excluded;

use super::chain::{self, EventParts, Hash, TagParts};
use super::schema::{event_counts, event_tags, events, fingerprints, owner_links};
use super::write::{Record, Value};
use crate::Error;
use crate::detect::Entry;
use crate::error::ErrorKind;
use crate::recorder::Ticket;
use crate::vocabulary::{
    Event, EventTag, EventType, Fingerprint, Kind, Late, Outcome, Owner, Tag, Timestamp, category,
};

/// Rows a statement: an array of fixed length keeps its prepared statement, and 16 columns of it
/// stay below the 999 variables of older SQLite builds.
const CHUNK: usize = 32;

/// A batch as rows, chained from `next_seq` on.
pub(super) struct Prepared<'a> {
    instance: i64,
    pub(super) events: Vec<EventRow>,
    tags: Vec<TagRow>,
    pub(super) leaves: Vec<Hash>,
    pub(super) tickets: Vec<(&'a Ticket, i64)>,
    values: Vec<&'a Value>,
    links: Vec<(&'a Owner, &'a Owner)>,
    counts: BTreeMap<String, i64>,
    /// By the key of `fingerprints`, so that the updates run along it.
    seen: BTreeMap<(Fingerprint, Cow<'a, str>, &'a str), Seen>,
}

/// What a batch says of one fingerprint.
struct Seen {
    first_seq: i64,
    last_seq: i64,
    last_at: i64,
    events: i64,
}

impl<'a> Prepared<'a> {
    pub(super) fn new(instance: i64, first_seq: i64, batch: &'a [Record]) -> Result<Self, Error> {
        let mut salts = vec![0; 16 * batch.len()];
        getrandom::fill(&mut salts)
            .map_err(|_| Error::new(ErrorKind::Store, "the system gives no random bytes for salts"))?;
        let (salts, _) = salts.as_chunks::<16>();
        let mut prepared = Prepared {
            instance,
            events: Vec::new(),
            tags: Vec::new(),
            leaves: Vec::new(),
            tickets: Vec::new(),
            values: Vec::new(),
            links: Vec::new(),
            counts: BTreeMap::new(),
            seen: BTreeMap::new(),
        };
        let mut here = HashMap::new();
        for (record, salt) in batch.iter().zip(salts) {
            let seq = first_seq + prepared.count();
            match record {
                Record::Event(event, ticket) => {
                    prepared.event(event, seq, salt);
                    prepared.tickets.push((ticket, seq));
                    here.insert(ticket.identity(), seq);
                }
                Record::Outcome {
                    of,
                    outcome,
                    created_at,
                    late,
                } => {
                    let share = here.get(&of.identity()).copied();
                    // An event that was refused has no seq: its outcome would hang in the air.
                    if let Some(share) = share.or_else(|| i64::try_from(of.seq()?).ok()) {
                        prepared.outcome(share, outcome, *created_at, late.as_deref(), seq, salt);
                    }
                }
                Record::Value(value) => prepared.values.push(value),
                Record::Link(a, b) => prepared.links.push(if a < b { (a, b) } else { (b, a) }),
            }
        }
        Ok(prepared)
    }

    /// Events in the batch, outcomes included.
    pub(super) fn count(&self) -> i64 {
        i64::try_from(self.events.len()).unwrap_or(i64::MAX)
    }

    fn event(&mut self, event: &'a Event, seq: i64, salt: &[u8; 16]) {
        let text = |text: &Option<Arc<str>>| text.as_deref().map(str::to_owned);
        let row = EventRow {
            instance: self.instance,
            seq,
            created_at: event.created_at.0,
            event_type: event.event_type.as_str().to_owned(),
            actor: (*event.actor).to_owned(),
            target: text(&event.target),
            payload: json(&event.payload),
            owner: event.owner.as_ref().map(|owner| owner.as_str().to_owned()),
            recipient: text(&event.recipient),
            request_id: text(&event.request_id),
            user_id: text(&event.user_id),
            extras: json(&event.extras),
            outcome_of: None,
            outcome: None,
            salt: salt.to_vec(),
            leaf: Vec::new(),
        };
        *self.counts.entry(row.event_type.clone()).or_insert(0) += 1;
        let first_tag = self.tags.len();
        for (idx, tag) in (0..).zip(&event.tags) {
            self.tag(tag, event.created_at, seq, idx);
        }
        self.push(row, first_tag);
    }

    fn tag(&mut self, EventTag { tag, detail }: &'a EventTag, event_at: Timestamp, seq: i64, idx: i64) {
        let canonical = category::canonical(&tag.category);
        let owner = tag.owner.as_ref().map(Owner::as_str);
        self.tags.push(TagRow {
            instance: self.instance,
            seq,
            idx,
            event_at: event_at.0,
            fingerprint: tag.fingerprint.map(|f| f.0.to_vec()),
            category: (*tag.category).to_owned(),
            canonical: canonical.to_string(),
            field: (*tag.field).to_owned(),
            description: (*tag.description).to_owned(),
            owner: owner.map(str::to_owned),
            source: (*tag.source).to_owned(),
            pii: i64::from(tag.pii),
            created_at: tag.created_at.0,
            detail: json(detail),
        });
        let Some(fingerprint) = tag.fingerprint else { return };
        let seen = self
            .seen
            .entry((fingerprint, canonical, owner.unwrap_or_default()))
            .or_insert(Seen {
                first_seq: seq,
                last_seq: 0,
                last_at: event_at.0,
                events: 0,
            });
        // One event that carries a value twice is still one event.
        seen.events += i64::from(seen.last_seq != seq);
        seen.last_seq = seq;
        seen.last_at = seen.last_at.max(event_at.0);
    }

    fn outcome(
        &mut self,
        of: i64,
        outcome: &Outcome,
        created_at: Timestamp,
        late: Option<&'a Late>,
        seq: i64,
        salt: &[u8; 16],
    ) {
        let first_tag = self.tags.len();
        let empty = || "{}".to_owned();
        let row = EventRow {
            instance: self.instance,
            seq,
            created_at: created_at.0,
            event_type: EventType::DataShare.as_str().to_owned(),
            actor: String::new(),
            target: None,
            payload: late.map_or_else(empty, |late| json(&late.payload)),
            owner: late.and_then(|late| Some(late.owner.as_ref()?.as_str().to_owned())),
            // For those who ask for a category, and find only the late tags.
            recipient: late.and_then(|late| Some((**late.recipient.as_ref()?).to_owned())),
            request_id: late.and_then(|late| Some((**late.request_id.as_ref()?).to_owned())),
            user_id: None,
            extras: late.map_or_else(empty, |late| json(&late.extras)),
            outcome_of: Some(of),
            outcome: Some(match outcome {
                Outcome::Status(status) => format!("status {status}"),
                Outcome::Sent => "sent".to_owned(),
                Outcome::Redirected => "redirected".to_owned(),
                Outcome::Error(kind) => format!("error {kind}"),
                Outcome::Blocked => "blocked".to_owned(),
                Outcome::Unknown => "unknown".to_owned(),
            }),
            salt: salt.to_vec(),
            leaf: Vec::new(),
        };
        if let Some(late) = late {
            for (idx, tag) in (0..).zip(&late.tags) {
                // In the order of pages they stand where their share does.
                self.tag(tag, late.shared_at, seq, idx);
            }
        }
        self.push(row, first_tag);
    }

    fn push(&mut self, mut row: EventRow, first_tag: usize) {
        let tags = self.tags.iter().skip(first_tag).map(TagRow::parts);
        let leaf = chain::leaf(&row.parts(), tags);
        row.leaf = leaf.to_vec();
        self.leaves.push(leaf);
        self.events.push(row);
    }

    pub(super) fn insert(&self, connection: &mut SqliteConnection) -> QueryResult<()> {
        let (chunks, rest) = self.events.as_chunks::<CHUNK>();
        for chunk in chunks {
            diesel::insert_into(events::table).values(chunk).execute(connection)?;
        }
        for row in rest {
            diesel::insert_into(events::table).values(row).execute(connection)?;
        }
        let (chunks, rest) = self.tags.as_chunks::<CHUNK>();
        for chunk in chunks {
            diesel::insert_into(event_tags::table)
                .values(chunk)
                .execute(connection)?;
        }
        for row in rest {
            diesel::insert_into(event_tags::table).values(row).execute(connection)?;
        }
        for (event_type, count) in &self.counts {
            diesel::insert_into(event_counts::table)
                .values((
                    event_counts::instance.eq(self.instance),
                    event_counts::event_type.eq(event_type),
                    event_counts::events.eq(count),
                ))
                .on_conflict((event_counts::instance, event_counts::event_type))
                .do_update()
                .set(event_counts::events.eq(event_counts::events + excluded(event_counts::events)))
                .execute(connection)?;
        }
        for value in &self.values {
            diesel::insert_into(fingerprints::table)
                .values(ValueRow::of(value))
                .on_conflict((fingerprints::fingerprint, fingerprints::canonical, fingerprints::owner))
                .do_update()
                .set((
                    fingerprints::kind.eq(excluded(fingerprints::kind)),
                    fingerprints::entry.eq(excluded(fingerprints::entry)),
                ))
                .execute(connection)?;
        }
        for ((fingerprint, canonical, owner), seen) in &self.seen {
            // Values that were never registered have no row, and get none.
            diesel::update(fingerprints::table.find((fingerprint.0.as_slice(), &**canonical, *owner)))
                .set((
                    fingerprints::events.eq(fingerprints::events + seen.events),
                    fingerprints::last_seen_at.eq(case_when(
                        fingerprints::last_seen_at.lt(seen.last_at),
                        seen.last_at.into_sql::<BigInt>(),
                    )
                    .otherwise(fingerprints::last_seen_at)),
                    fingerprints::first_instance.eq(case_when(
                        fingerprints::first_seq.is_null(),
                        self.instance.into_sql::<Nullable<BigInt>>(),
                    )
                    .otherwise(fingerprints::first_instance)),
                    fingerprints::first_seq.eq(case_when(
                        fingerprints::first_seq.is_null(),
                        seen.first_seq.into_sql::<Nullable<BigInt>>(),
                    )
                    .otherwise(fingerprints::first_seq)),
                ))
                .execute(connection)?;
        }
        for (a, b) in &self.links {
            diesel::insert_or_ignore_into(owner_links::table)
                .values((
                    owner_links::a.eq(a.as_str()),
                    owner_links::b.eq(b.as_str()),
                    owner_links::created_at.eq(Timestamp::now().0),
                ))
                .execute(connection)?;
        }
        Ok(())
    }
}

fn json(map: &serde_json::Map<String, serde_json::Value>) -> String {
    // A map of JSON values is always JSON.
    serde_json::to_string(map).unwrap_or_else(|_| "{}".to_owned())
}

#[derive(Insertable)]
#[diesel(table_name = events, treat_none_as_default_value = false)]
pub(super) struct EventRow {
    instance: i64,
    seq: i64,
    created_at: i64,
    event_type: String,
    actor: String,
    target: Option<String>,
    payload: String,
    owner: Option<String>,
    recipient: Option<String>,
    request_id: Option<String>,
    user_id: Option<String>,
    extras: String,
    outcome_of: Option<i64>,
    outcome: Option<String>,
    salt: Vec<u8>,
    leaf: Vec<u8>,
}

impl EventRow {
    fn parts(&self) -> EventParts<'_> {
        EventParts {
            instance: self.instance,
            seq: self.seq,
            created_at: self.created_at,
            event_type: self.event_type.as_bytes(),
            actor: self.actor.as_bytes(),
            recipient: bytes(&self.recipient),
            outcome_of: self.outcome_of,
            outcome: bytes(&self.outcome),
            owner: bytes(&self.owner),
            user_id: bytes(&self.user_id),
            target: bytes(&self.target),
            payload: self.payload.as_bytes(),
            request_id: bytes(&self.request_id),
            extras: self.extras.as_bytes(),
            salt: &self.salt,
        }
    }
}

#[derive(Insertable)]
#[diesel(table_name = event_tags, treat_none_as_default_value = false)]
struct TagRow {
    instance: i64,
    seq: i64,
    idx: i64,
    event_at: i64,
    fingerprint: Option<Vec<u8>>,
    category: String,
    canonical: String,
    field: String,
    description: String,
    owner: Option<String>,
    source: String,
    pii: i64,
    created_at: i64,
    detail: String,
}

impl TagRow {
    fn parts(&self) -> TagParts<'_> {
        TagParts {
            idx: self.idx,
            event_at: self.event_at,
            fingerprint: self.fingerprint.as_deref(),
            category: self.category.as_bytes(),
            canonical: self.canonical.as_bytes(),
            field: self.field.as_bytes(),
            description: self.description.as_bytes(),
            owner: bytes(&self.owner),
            source: self.source.as_bytes(),
            pii: self.pii,
            created_at: self.created_at,
            detail: self.detail.as_bytes(),
        }
    }
}

fn bytes(text: &Option<String>) -> Option<&[u8]> {
    text.as_deref().map(str::as_bytes)
}

/// A registered value, on its way in and out.
#[derive(Insertable, Queryable, Selectable)]
#[diesel(table_name = fingerprints, treat_none_as_default_value = false)]
pub(super) struct ValueRow {
    fingerprint: Vec<u8>,
    canonical: String,
    owner: String,
    category: String,
    field: String,
    description: String,
    source: String,
    pii: i64,
    kind: String,
    entry: Vec<u8>,
    first_seen_at: i64,
    last_seen_at: i64,
    events: i64,
}

impl ValueRow {
    fn of(value: &Value) -> Self {
        let tag = &value.tag;
        ValueRow {
            fingerprint: value.fingerprint.0.to_vec(),
            canonical: category::canonical(&tag.category).into_owned(),
            owner: tag.owner.as_ref().map_or_else(String::new, |o| o.as_str().to_owned()),
            category: (*tag.category).to_owned(),
            field: (*tag.field).to_owned(),
            description: (*tag.description).to_owned(),
            source: (*tag.source).to_owned(),
            pii: i64::from(tag.pii),
            kind: value.kind.as_str().to_owned(),
            entry: value.entry.to_bytes(),
            first_seen_at: tag.created_at.0,
            last_seen_at: tag.created_at.0,
            events: 0,
        }
    }

    pub(super) fn value(self, words: &mut Words) -> Option<Value> {
        let fingerprint = Fingerprint(self.fingerprint.try_into().ok()?);
        Some(Value {
            fingerprint,
            kind: Kind::parse(&self.kind)?,
            entry: Entry::from_bytes(&self.entry)?,
            tag: Arc::new(Tag {
                fingerprint: Some(fingerprint),
                category: words.share(self.category),
                field: words.share(self.field),
                description: words.share(self.description),
                owner: Owner::from_stored(&self.owner),
                source: words.share(self.source),
                pii: self.pii != 0,
                created_at: Timestamp(self.first_seen_at),
            }),
        })
    }
}

/// A million values share a few dozen categories, fields and sources.
#[derive(Default)]
pub(super) struct Words(HashSet<Arc<str>>);

impl Words {
    fn share(&mut self, word: String) -> Arc<str> {
        if let Some(known) = self.0.get(word.as_str()) {
            return known.clone();
        }
        let word: Arc<str> = word.into();
        self.0.insert(word.clone());
        word
    }
}
