//! A batch of records as rows: numbered, salted, committed to, and inserted.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write;
use std::sync::Arc;

use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::sql_types::{BigInt, Binary, Nullable, Text};
use diesel::sqlite::Sqlite;

use super::chain::{self, EventParts, Hash, TagParts};
use super::schema::{fingerprints, owner_links};
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
    pub(super) events: Vec<EventRow<'a>>,
    tags: Vec<TagRow<'a>>,
    pub(super) leaves: Vec<Hash>,
    pub(super) tickets: Vec<(&'a Ticket, i64)>,
    values: Vec<&'a Value>,
    links: Vec<(&'a Owner, &'a Owner)>,
    counts: BTreeMap<&'a str, i64>,
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
        let row = EventRow {
            instance: self.instance,
            seq,
            created_at: event.created_at.0,
            event_type: event.event_type.as_str(),
            actor: &event.actor,
            target: event.target.as_deref(),
            payload: payload(event),
            owner: event.owner.as_ref().map(Owner::as_str),
            recipient: event.recipient.as_deref(),
            request_id: event.request_id.as_deref(),
            user_id: event.user_id.as_deref(),
            extras: extras(event),
            outcome_of: None,
            outcome: None,
            salt: *salt,
            leaf: [0; 32],
        };
        *self.counts.entry(row.event_type).or_insert(0) += 1;
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
            fingerprint: tag.fingerprint.as_ref().map(|fingerprint| fingerprint.0.as_slice()),
            category: &tag.category,
            canonical: canonical.clone(),
            field: &tag.field,
            description: &tag.description,
            owner,
            source: &tag.source,
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
        let row = EventRow {
            instance: self.instance,
            seq,
            created_at: created_at.0,
            event_type: EventType::DataShare.as_str(),
            actor: "",
            target: None,
            payload: late.map_or(Cow::Borrowed("{}"), |late| json(&late.payload)),
            owner: late.and_then(|late| Some(late.owner.as_ref()?.as_str())),
            // For those who ask for a category, and find only the late tags.
            recipient: late.and_then(|late| late.recipient.as_deref()),
            request_id: late.and_then(|late| late.request_id.as_deref()),
            user_id: None,
            extras: late.map_or(Cow::Borrowed("{}"), |late| json(&late.extras)),
            outcome_of: Some(of),
            outcome: Some(match outcome {
                Outcome::Status(status) => format!("status {status}"),
                Outcome::Sent => "sent".to_owned(),
                Outcome::Redirected => "redirected".to_owned(),
                Outcome::Error(kind) => format!("error {kind}"),
                Outcome::Blocked => "blocked".to_owned(),
                Outcome::Unknown => "unknown".to_owned(),
            }),
            salt: *salt,
            leaf: [0; 32],
        };
        if let Some(late) = late {
            for (idx, tag) in (0..).zip(&late.tags) {
                // In the order of pages they stand where their share does.
                self.tag(tag, late.shared_at, seq, idx);
            }
        }
        self.push(row, first_tag);
    }

    fn push(&mut self, mut row: EventRow<'a>, first_tag: usize) {
        let tags = self.tags.iter().skip(first_tag).map(TagRow::parts);
        let leaf = chain::leaf(&row.parts(), tags);
        row.leaf = leaf;
        self.leaves.push(leaf);
        self.events.push(row);
    }

    pub(super) fn insert(&self, connection: &mut SqliteConnection) -> QueryResult<()> {
        insert(&self.events, connection)?;
        insert(&self.tags, connection)?;
        let instance = self.instance;
        for (event_type, count) in &self.counts {
            Statement(Count {
                instance,
                event_type,
                count: *count,
            })
            .execute(connection)?;
        }
        for value in &self.values {
            Statement(ValueRow::of(value)).execute(connection)?;
        }
        for ((fingerprint, canonical, owner), seen) in &self.seen {
            // Values that were never registered have no row, and get none.
            Statement(Sight {
                instance,
                fingerprint,
                canonical,
                owner,
                seen,
            })
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

/// A statement by its text. Diesel compiles its own UPDATEs and upserts anew each time, and a batch
/// has hundreds of them; a text that never changes stays compiled.
struct Statement<T>(T);

/// Texts and the values that go between them, in order.
trait Written {
    /// Names the text: the type, or what stands for it where that has a lifetime.
    type Name: 'static;

    fn write<'b>(&'b self, out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()>;
}

impl<T: Written> QueryFragment<Sqlite> for Statement<T> {
    fn walk_ast<'b>(&'b self, out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        self.0.write(out)
    }
}

impl<T: Written> QueryId for Statement<T> {
    type QueryId = T::Name;
    const HAS_STATIC_QUERY_ID: bool = true;
}

impl<T> RunQueryDsl<SqliteConnection> for Statement<T> {}

/// A row of a table that only grows.
trait Row {
    /// Stands for the table.
    type Name: 'static;
    /// Up to the rows. A failure ends the transaction: to undo one statement of it, SQLite would have
    /// to keep copies of what each changes.
    const INTO: &'static str;

    fn columns<'b>(&'b self, columns: Columns<'_, 'b>) -> QueryResult<()>;
}

/// Writes `(?, ?, ..)`.
struct Columns<'o, 'b> {
    out: AstPass<'o, 'b, Sqlite>,
    between: &'static str,
}

impl<'b> Columns<'_, 'b> {
    fn number(&mut self, number: &'b i64) -> QueryResult<()> {
        self.out.push_sql(std::mem::replace(&mut self.between, ", "));
        self.out.push_bind_param::<BigInt, _>(number)
    }

    fn text(&mut self, text: &'b str) -> QueryResult<()> {
        self.out.push_sql(std::mem::replace(&mut self.between, ", "));
        self.out.push_bind_param::<Text, _>(text)
    }

    fn bytes(&mut self, bytes: &'b [u8]) -> QueryResult<()> {
        self.out.push_sql(std::mem::replace(&mut self.between, ", "));
        self.out.push_bind_param::<Binary, _>(bytes)
    }

    fn opt_number(&mut self, number: &'b Option<i64>) -> QueryResult<()> {
        self.out.push_sql(std::mem::replace(&mut self.between, ", "));
        self.out.push_bind_param::<Nullable<BigInt>, _>(number)
    }

    fn opt_text(&mut self, text: &'b Option<&'b str>) -> QueryResult<()> {
        self.out.push_sql(std::mem::replace(&mut self.between, ", "));
        self.out.push_bind_param::<Nullable<Text>, _>(text)
    }

    fn opt_string(&mut self, text: &'b Option<String>) -> QueryResult<()> {
        self.out.push_sql(std::mem::replace(&mut self.between, ", "));
        self.out.push_bind_param::<Nullable<Text>, _>(text)
    }

    fn opt_bytes(&mut self, bytes: &'b Option<&'b [u8]>) -> QueryResult<()> {
        self.out.push_sql(std::mem::replace(&mut self.between, ", "));
        self.out.push_bind_param::<Nullable<Binary>, _>(bytes)
    }
}

impl<R: Row, const N: usize> Written for &[R; N] {
    type Name = [R::Name; N];

    fn write<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        out.push_sql(R::INTO);
        let mut between = " (";
        for row in self.iter() {
            row.columns(Columns {
                out: out.reborrow(),
                between,
            })?;
            between = "), (";
        }
        out.push_sql(")");
        Ok(())
    }
}

fn insert<R: Row>(rows: &[R], connection: &mut SqliteConnection) -> QueryResult<()> {
    let (chunks, rest) = rows.as_chunks::<CHUNK>();
    for chunk in chunks {
        Statement(chunk).execute(connection)?;
    }
    let (rest, _) = rest.as_chunks::<1>();
    for row in rest {
        Statement(row).execute(connection)?;
    }
    Ok(())
}

/// Adds to a total.
struct Count<'a> {
    instance: i64,
    event_type: &'a str,
    count: i64,
}

impl Written for Count<'_> {
    type Name = Count<'static>;

    fn write<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        out.push_sql("INSERT INTO event_counts (instance, event_type, events) VALUES (");
        out.push_bind_param::<BigInt, _>(&self.instance)?;
        out.push_sql(", ");
        out.push_bind_param::<Text, _>(self.event_type)?;
        out.push_sql(", ");
        out.push_bind_param::<BigInt, _>(&self.count)?;
        out.push_sql(") ON CONFLICT (instance, event_type) DO UPDATE SET events = events + excluded.events");
        Ok(())
    }
}

/// Notes that a registered value was seen.
struct Sight<'a> {
    instance: i64,
    fingerprint: &'a Fingerprint,
    canonical: &'a str,
    owner: &'a str,
    seen: &'a Seen,
}

impl Written for Sight<'_> {
    type Name = Sight<'static>;

    fn write<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        out.push_sql("UPDATE fingerprints SET events = events + ");
        out.push_bind_param::<BigInt, _>(&self.seen.events)?;
        out.push_sql(", last_seen_at = max(last_seen_at, ");
        out.push_bind_param::<BigInt, _>(&self.seen.last_at)?;
        // All right-hand sides see the row as it was.
        out.push_sql("), first_instance = CASE WHEN first_seq IS NULL THEN ");
        out.push_bind_param::<BigInt, _>(&self.instance)?;
        out.push_sql(" ELSE first_instance END, first_seq = ifnull(first_seq, ");
        out.push_bind_param::<BigInt, _>(&self.seen.first_seq)?;
        out.push_sql(") WHERE fingerprint = ");
        out.push_bind_param::<Binary, _>(self.fingerprint.0.as_slice())?;
        out.push_sql(" AND canonical = ");
        out.push_bind_param::<Text, _>(self.canonical)?;
        out.push_sql(" AND owner = ");
        out.push_bind_param::<Text, _>(self.owner)?;
        Ok(())
    }
}

/// The payload with the shapes of its fields.
fn payload(event: &Event) -> Cow<'static, str> {
    if event.shapes.is_empty() {
        return json(&event.payload);
    }
    let mut text = String::with_capacity(64 * event.shapes.len());
    text.push_str("{\"fields\":{");
    for (at, shape) in event.shapes.iter().enumerate() {
        text.push_str(if at == 0 { "" } else { "," });
        quote(&mut text, &shape.name);
        let _ = write!(text, ":{{\"type\":\"{}\"", shape.json_type);
        if shape.count > 1 {
            let _ = write!(text, ",\"count\":{}", shape.count);
        }
        if let Some(length) = shape.length {
            let _ = write!(text, ",\"length\":{length}");
        }
        if let Some(part) = shape.part {
            let _ = write!(text, ",\"in\":\"{part}\"");
        }
        text.push('}');
    }
    text.push_str("}}");
    with_members(text, &event.payload).into()
}

/// The extras with the site.
fn extras(event: &Event) -> Cow<'static, str> {
    let Some(site) = event.site else {
        return json(&event.extras);
    };
    let mut text = String::from("{\"site\":{\"path\":");
    quote(&mut text, site.path);
    text.push_str(",\"file\":");
    quote(&mut text, site.file);
    let _ = write!(text, ",\"line\":{}}}}}", site.line);
    with_members(text, &event.extras).into()
}

/// A JSON object's text with further members, which it does not have yet.
fn with_members(mut text: String, members: &serde_json::Map<String, serde_json::Value>) -> String {
    if !members.is_empty() {
        text.pop();
        text.push(',');
        text.push_str(json(members).strip_prefix('{').unwrap_or("}"));
    }
    text
}

fn quote(text: &mut String, word: &str) {
    text.push_str(&serde_json::to_string(word).unwrap_or_else(|_| "\"\"".to_owned()));
}

fn json(map: &serde_json::Map<String, serde_json::Value>) -> Cow<'static, str> {
    if map.is_empty() {
        return "{}".into();
    }
    // A map of JSON values is always JSON.
    serde_json::to_string(map).map_or("{}".into(), Cow::Owned)
}

pub(super) struct EventRow<'a> {
    instance: i64,
    seq: i64,
    created_at: i64,
    event_type: &'a str,
    actor: &'a str,
    target: Option<&'a str>,
    payload: Cow<'a, str>,
    owner: Option<&'a str>,
    recipient: Option<&'a str>,
    request_id: Option<&'a str>,
    user_id: Option<&'a str>,
    extras: Cow<'a, str>,
    outcome_of: Option<i64>,
    outcome: Option<String>,
    salt: [u8; 16],
    leaf: Hash,
}

impl Row for EventRow<'_> {
    type Name = EventRow<'static>;
    const INTO: &'static str = "INSERT OR ROLLBACK INTO events (instance, seq, created_at, event_type, actor, target, \
        payload, owner, recipient, request_id, user_id, extras, outcome_of, outcome, salt, leaf) VALUES";

    fn columns<'b>(&'b self, mut columns: Columns<'_, 'b>) -> QueryResult<()> {
        columns.number(&self.instance)?;
        columns.number(&self.seq)?;
        columns.number(&self.created_at)?;
        columns.text(self.event_type)?;
        columns.text(self.actor)?;
        columns.opt_text(&self.target)?;
        columns.text(&self.payload)?;
        columns.opt_text(&self.owner)?;
        columns.opt_text(&self.recipient)?;
        columns.opt_text(&self.request_id)?;
        columns.opt_text(&self.user_id)?;
        columns.text(&self.extras)?;
        columns.opt_number(&self.outcome_of)?;
        columns.opt_string(&self.outcome)?;
        columns.bytes(&self.salt)?;
        columns.bytes(&self.leaf)
    }
}

impl EventRow<'_> {
    fn parts(&self) -> EventParts<'_> {
        EventParts {
            instance: self.instance,
            seq: self.seq,
            created_at: self.created_at,
            event_type: self.event_type.as_bytes(),
            actor: self.actor.as_bytes(),
            recipient: self.recipient.map(str::as_bytes),
            outcome_of: self.outcome_of,
            outcome: self.outcome.as_deref().map(str::as_bytes),
            owner: self.owner.map(str::as_bytes),
            user_id: self.user_id.map(str::as_bytes),
            target: self.target.map(str::as_bytes),
            payload: self.payload.as_bytes(),
            request_id: self.request_id.map(str::as_bytes),
            extras: self.extras.as_bytes(),
            salt: &self.salt,
        }
    }
}

struct TagRow<'a> {
    instance: i64,
    seq: i64,
    idx: i64,
    event_at: i64,
    fingerprint: Option<&'a [u8]>,
    category: &'a str,
    canonical: Cow<'a, str>,
    field: &'a str,
    description: &'a str,
    owner: Option<&'a str>,
    source: &'a str,
    pii: i64,
    created_at: i64,
    detail: Cow<'a, str>,
}

impl Row for TagRow<'_> {
    type Name = TagRow<'static>;
    const INTO: &'static str = "INSERT OR ROLLBACK INTO event_tags (instance, seq, idx, event_at, fingerprint, \
        category, canonical, field, description, owner, source, pii, created_at, detail) VALUES";

    fn columns<'b>(&'b self, mut columns: Columns<'_, 'b>) -> QueryResult<()> {
        columns.number(&self.instance)?;
        columns.number(&self.seq)?;
        columns.number(&self.idx)?;
        columns.number(&self.event_at)?;
        columns.opt_bytes(&self.fingerprint)?;
        columns.text(self.category)?;
        columns.text(&self.canonical)?;
        columns.text(self.field)?;
        columns.text(self.description)?;
        columns.opt_text(&self.owner)?;
        columns.text(self.source)?;
        columns.number(&self.pii)?;
        columns.number(&self.created_at)?;
        columns.text(&self.detail)
    }
}

impl TagRow<'_> {
    fn parts(&self) -> TagParts<'_> {
        TagParts {
            idx: self.idx,
            event_at: self.event_at,
            fingerprint: self.fingerprint,
            category: self.category.as_bytes(),
            canonical: self.canonical.as_bytes(),
            field: self.field.as_bytes(),
            description: self.description.as_bytes(),
            owner: self.owner.map(str::as_bytes),
            source: self.source.as_bytes(),
            pii: self.pii,
            created_at: self.created_at,
            detail: self.detail.as_bytes(),
        }
    }
}

/// A registered value, on its way in and out.
#[derive(Queryable, Selectable)]
#[diesel(table_name = fingerprints)]
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

/// Makes a value known, or known anew in another form.
impl Written for ValueRow {
    type Name = ValueRow;

    fn write<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        out.push_sql(
            "INSERT INTO fingerprints (fingerprint, canonical, owner, category, field, description, source, pii, \
             kind, entry, first_seen_at, last_seen_at, events) VALUES (",
        );
        out.push_bind_param::<Binary, _>(&self.fingerprint)?;
        for text in [
            &self.canonical,
            &self.owner,
            &self.category,
            &self.field,
            &self.description,
            &self.source,
        ] {
            out.push_sql(", ");
            out.push_bind_param::<Text, _>(text)?;
        }
        out.push_sql(", ");
        out.push_bind_param::<BigInt, _>(&self.pii)?;
        out.push_sql(", ");
        out.push_bind_param::<Text, _>(&self.kind)?;
        out.push_sql(", ");
        out.push_bind_param::<Binary, _>(&self.entry)?;
        for number in [&self.first_seen_at, &self.last_seen_at, &self.events] {
            out.push_sql(", ");
            out.push_bind_param::<BigInt, _>(number)?;
        }
        out.push_sql(
            ") ON CONFLICT (fingerprint, canonical, owner) DO UPDATE SET kind = excluded.kind, entry = excluded.entry",
        );
        Ok(())
    }
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
