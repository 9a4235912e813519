//! A batch of records as rows: numbered, salted, committed to, and inserted.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write;

use diesel::prelude::*;

use super::chain::{self, Body, Hash, Header, JsonItem, Salt, Salts, TagItem};
use super::index;
use super::pack::{self, Packed, PackedTag};
use super::schema::{self, owner_links};
use super::statement::{Column, Row, insert, statement};
use super::texts::Texts;
use super::write::{Record, Value};
use crate::Error;
use crate::error::ErrorKind;
use crate::ticket::Ticket;
use crate::vocabulary::{Event, EventTag, EventType, Late, Outcome, Owner, Timestamp, category};

/// Where a writer stands: what the next batch goes on from.
pub(super) struct Place {
    /// On the wire and in the chain.
    pub(super) instance: i64,
    /// In the rows.
    pub(super) n: i64,
    pub(super) next_seq: i64,
    /// Of values and links: others follow both by their numbers.
    pub(super) next_value: i64,
    /// The last event's.
    pub(super) at: i64,
    /// No event stands later than it was seen by more milliseconds than these.
    pub(super) late: i64,
}

/// The values that are in the store: a hash of each, and its row.
pub(super) type KnownValues = HashMap<u64, (i64, i64)>;

/// Tells values of the same person and category from others, in memory.
pub(super) fn value_key(fingerprint: &[u8; 32], canonical: &str, owner: Option<&[u8]>) -> u64 {
    use std::hash::Hasher;
    // A fingerprint is random already.
    let mut hash = siphasher::sip::SipHasher13::new();
    hash.write(fingerprint);
    hash.write(canonical.as_bytes());
    hash.write(&[0]);
    hash.write(owner.unwrap_or_default());
    hash.finish()
}

/// A batch as rows.
pub(super) struct Prepared<'a> {
    place: &'a Place,
    pub(super) events: Vec<EventRow>,
    pub(super) leaves: Vec<Hash>,
    pub(super) tickets: Vec<(&'a Ticket, i64)>,
    pub(super) values: Vec<ValueRow>,
    /// Their keys, in the same order.
    pub(super) value_keys: Vec<u64>,
    pub(super) links: Vec<(&'a Owner, &'a Owner)>,
    pub(super) counts: BTreeMap<i32, (&'a str, i64)>,
    /// After this batch.
    pub(super) at: i64,
    pub(super) late: i64,
}

impl<'a> Prepared<'a> {
    pub(super) fn new(
        place: &'a Place,
        texts: &mut Texts,
        known: &KnownValues,
        batch: &'a [Record],
    ) -> Result<Self, Error> {
        let mut salts = vec![0; 16 * batch.len()];
        getrandom::fill(&mut salts)
            .map_err(|_| Error::new(ErrorKind::Store, "the system gives no random bytes for salts"))?;
        let (salts, _) = salts.as_chunks::<16>();
        let mut prepared = Prepared {
            place,
            events: Vec::with_capacity(batch.len()),
            leaves: Vec::with_capacity(batch.len()),
            tickets: Vec::new(),
            values: Vec::new(),
            value_keys: Vec::new(),
            links: Vec::new(),
            counts: BTreeMap::new(),
            at: place.at,
            late: place.late,
        };
        let mut here = HashMap::new();
        let mut new = HashSet::new();
        for (record, salt) in batch.iter().zip(salts) {
            let seq = place.next_seq + prepared.count();
            match record {
                Record::Event(event, ticket) => {
                    prepared.event(event, texts, seq, *salt);
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
                        prepared.outcome(share, outcome, *created_at, late.as_deref(), texts, seq, *salt);
                    }
                }
                Record::Value(value) => prepared.value(value, texts, known, &mut new),
                Record::Link(a, b) => prepared.links.push(if a < b { (a, b) } else { (b, a) }),
            }
        }
        Ok(prepared)
    }

    /// Events in the batch, outcomes included.
    pub(super) fn count(&self) -> i64 {
        i64::try_from(self.events.len()).unwrap_or(i64::MAX)
    }

    fn event(&mut self, event: &'a Event, texts: &mut Texts, seq: i64, salt: Salt) {
        let event_type = event.event_type.as_str();
        let code = schema::type_code(event_type);
        self.counts.entry(code).or_insert((event_type, 0)).1 += 1;
        let mut row = self.row(seq, event.created_at, code, texts.number(&event.actor));
        let late = row.at.saturating_sub(event.created_at.0.div_euclid(1000));
        if late > self.late {
            // In steps, so that it is seldom written.
            let late = late.unsigned_abs().checked_next_power_of_two();
            self.late = late.and_then(|late| i64::try_from(late).ok()).unwrap_or(i64::MAX);
        }
        row.target = event.target.as_deref().map(|target| small(texts.number(target)));
        row.recipient = event
            .recipient
            .as_deref()
            .map(|recipient| small(texts.number(recipient)));
        row.owner = event.owner.as_ref().map(|owner| pack::pack_text(owner.as_str()));
        row.user_id = event.user_id.as_deref().map(pack::pack_text);
        row.request_id = event.request_id.as_deref().map(pack::pack_text);
        row.payload = texts.json(&payload(event));
        row.extras = texts.json(&extras(event));
        self.push(row, event_type, &event.tags, event.created_at, texts, salt);
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of a record")]
    fn outcome(
        &mut self,
        of: i64,
        outcome: &Outcome,
        created_at: Timestamp,
        late: Option<&'a Late>,
        texts: &mut Texts,
        seq: i64,
        salt: Salt,
    ) {
        let words: Cow<'_, str> = match outcome {
            Outcome::Status(status) => format!("status {status}").into(),
            Outcome::Sent => "sent".into(),
            Outcome::Redirected => "redirected".into(),
            Outcome::Error(kind) => format!("error {kind}").into(),
            Outcome::Blocked => "blocked".into(),
            Outcome::Unknown => "unknown".into(),
        };
        let event_type = EventType::DataShare;
        let event_type = event_type.as_str();
        let mut row = self.row(seq, created_at, schema::type_code(event_type), texts.number(&words));
        row.outcome_of = Some(of);
        let mut tags: &[EventTag] = &[];
        row.payload = texts.json(&late.map_or(Cow::Borrowed("{}"), |late| json(&late.payload)));
        row.extras = texts.json(&late.map_or(Cow::Borrowed("{}"), |late| json(&late.extras)));
        if let Some(late) = late {
            // For those who ask by one of these, and find only the late tags.
            row.recipient = late
                .recipient
                .as_deref()
                .map(|recipient| small(texts.number(recipient)));
            row.request_id = late.request_id.as_deref().map(pack::pack_text);
            row.owner = late.owner.as_ref().map(|owner| pack::pack_text(owner.as_str()));
            tags = &late.tags;
        }
        self.push(row, event_type, tags, created_at, texts, salt);
    }

    fn row(&mut self, seq: i64, created_at: Timestamp, event_type: i32, actor: u32) -> EventRow {
        // In the order of the chain, whatever the clock does.
        self.at = self.at.max(created_at.0.div_euclid(1000));
        EventRow {
            n: self.place.n,
            seq,
            at: self.at,
            after: created_at.0.wrapping_sub(self.at.wrapping_mul(1000)),
            event_type,
            actor: small(actor),
            target: None,
            recipient: None,
            outcome_of: None,
            owner: None,
            user_id: None,
            request_id: None,
            payload: Vec::new(),
            extras: Vec::new(),
            tags: Vec::new(),
            proof: Vec::new(),
        }
    }

    fn push(
        &mut self,
        mut row: EventRow,
        event_type: &str,
        tags: &[EventTag],
        created_at: Timestamp,
        texts: &mut Texts,
        salt: Salt,
    ) {
        let mut body = Body::new(Salts::of_event(salt));
        let hash = |id: Option<i32>| id.map(|id| texts.hash(id.cast_unsigned()));
        let target = hash(row.target);
        let parts = [
            (chain::OWNER, row.owner.as_deref()),
            (chain::USER, row.user_id.as_deref()),
            (chain::TARGET, target.as_ref().map(<[u8; 32]>::as_slice)),
        ];
        for (number, part) in parts {
            if let Some(part) = part {
                body.part(number, part);
            }
        }
        json_part(&mut body, chain::PAYLOAD, &row.payload, texts);
        if let Some(request_id) = &row.request_id {
            body.part(chain::REQUEST, request_id);
        }
        json_part(&mut body, chain::EXTRAS, &row.extras, texts);
        row.tags.reserve(48 * tags.len());
        // Of most events all tags have one owner.
        let mut packed: Option<(&Owner, Vec<u8>)> = None;
        for (number, EventTag { tag, detail }) in (chain::FIRST_TAG..).zip(tags) {
            let kind = texts.kind(tag);
            if let Some(owner) = &tag.owner
                && packed.as_ref().is_none_or(|(last, _)| *last != owner)
            {
                packed = Some((owner, pack::pack_text(owner.as_str())));
            }
            let owner = packed
                .as_ref()
                .filter(|_| tag.owner.is_some())
                .map(|(_, packed)| packed.as_slice());
            let detail = match detail.is_empty() {
                true => Vec::new(),
                false => texts.json(&json(detail)),
            };
            let fingerprint = tag.fingerprint.as_ref().map(|fingerprint| &fingerprint.0);
            let tag_row = PackedTag::Tag {
                kind,
                fingerprint,
                owner: owner.map(Cow::Borrowed),
                created_at: tag.created_at.0,
                detail: &detail,
            };
            pack::put_tag(&mut row.tags, &tag_row, row.owner.as_deref(), created_at.0);
            let template;
            let detail = match Packed::read(&detail) {
                _ if detail.is_empty() => JsonItem::Nothing,
                Some(Packed::Template { id, arguments }) => {
                    template = texts.hash(id);
                    JsonItem::Template {
                        template: &template,
                        arguments,
                    }
                }
                Some(Packed::Text(text)) => JsonItem::Text(text),
                None => JsonItem::Nothing,
            };
            body.tag(
                number,
                &TagItem {
                    fingerprint,
                    kind: &texts.hash(kind),
                    owner,
                    created_at: tag.created_at.0,
                    detail,
                },
            );
        }
        let type_hash = texts.type_hash(row.event_type, event_type);
        let hash = |id: Option<i32>| id.map(|id| texts.hash(id.cast_unsigned()));
        let leaf = body.leaf(&Header {
            instance: self.place.instance,
            seq: row.seq,
            at: row.at,
            created_at: created_at.0,
            event_type: &type_hash,
            actor: &hash(Some(row.actor)).unwrap_or_default(),
            recipient: hash(row.recipient).as_ref(),
            outcome_of: row.outcome_of,
        });
        row.proof = [salt.as_slice(), leaf.as_slice()].concat();
        self.leaves.push(leaf);
        self.events.push(row);
    }

    fn value(&mut self, value: &Value, texts: &mut Texts, known: &KnownValues, new: &mut HashSet<u64>) {
        let tag = &value.tag;
        let canonical = category::canonical(&tag.category);
        let owner = tag.owner.as_ref().map(|owner| pack::pack_text(owner.as_str()));
        let key = value_key(&value.fingerprint.0, &canonical, owner.as_deref());
        // Forgotten in memory meanwhile, or met by two at once.
        if known.contains_key(&key) || !new.insert(key) {
            return;
        }
        let id = self.place.next_value + i64::try_from(self.values.len()).unwrap_or(i64::MAX);
        self.values.push(ValueRow {
            n: self.place.n,
            id,
            fingerprint: value.fingerprint.0.to_vec(),
            tag: small(texts.kind(tag)),
            category: schema::category_code(&canonical),
            owner,
            kind: value.kind.code(),
            entry: value.entry.to_bytes(),
            created_at: tag.created_at.0,
        });
        self.value_keys.push(key);
    }

    /// Numbers that values and links take.
    pub(super) fn numbered(&self) -> i64 {
        i64::try_from(self.values.len() + self.links.len()).unwrap_or(i64::MAX)
    }

    pub(super) fn link_rows(&self) -> impl Iterator<Item = LinkRow<'a>> {
        let (place, values) = (self.place, self.values.len());
        let after = place.next_value + i64::try_from(values).unwrap_or(i64::MAX);
        (after..).zip(&self.links).map(|(id, (a, b))| LinkRow {
            a: a.as_str(),
            b: b.as_str(),
            created_at: Timestamp::now().0,
            n: place.n,
            id,
        })
    }

    pub(super) fn insert(
        &self,
        unsaved: &[(u32, std::sync::Arc<str>)],
        connection: &mut SqliteConnection,
    ) -> QueryResult<()> {
        let n = self.place.n;
        for (id, text) in unsaved {
            statement!(
                "INSERT OR ROLLBACK INTO texts (n, id, text) VALUES (?, ?, ?)",
                n,
                small(*id),
                &**text
            )
            .execute(connection)?;
        }
        insert(&self.events, connection)?;
        insert(&self.values, connection)?;
        for (&event_type, &(name, count)) in &self.counts {
            statement!(
                "INSERT INTO event_counts (n, event_type, name, events) VALUES (?, ?, ?, ?) \
                 ON CONFLICT (n, event_type) DO UPDATE SET events = events + excluded.events",
                n,
                event_type,
                name,
                count
            )
            .execute(connection)?;
        }
        for link in self.link_rows() {
            diesel::insert_or_ignore_into(owner_links::table)
                .values(link)
                .execute(connection)?;
        }
        Ok(())
    }
}

fn json_part(body: &mut Body, number: u16, column: &[u8], texts: &Texts) {
    match Packed::read(column) {
        Some(Packed::Template { id, arguments }) => {
            let template = texts.hash(id);
            body.json(
                number,
                JsonItem::Template {
                    template: &template,
                    arguments,
                },
            );
        }
        Some(Packed::Text(text)) => body.json(number, JsonItem::Text(text)),
        None => body.json(number, JsonItem::Nothing),
    }
}

/// The number of a text as a column has it.
fn small(number: u32) -> i32 {
    number.cast_signed()
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
        text.push_str(":{\"type\":\"");
        text.push_str(shape.json_type);
        text.push('"');
        if shape.count > 1 {
            text.push_str(",\"count\":");
            push_number(&mut text, shape.count);
        }
        if let Some(length) = shape.length {
            text.push_str(",\"length\":");
            push_number(&mut text, length);
        }
        if let Some(part) = shape.part {
            text.push_str(",\"in\":\"");
            text.push_str(part);
            text.push('"');
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
    if word
        .bytes()
        .all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\')
    {
        text.push('"');
        text.push_str(word);
        text.push('"');
        return;
    }
    text.push_str(&serde_json::to_string(word).unwrap_or_else(|_| "\"\"".to_owned()));
}

fn push_number(text: &mut String, number: usize) {
    text.push_str(itoa::Buffer::new().format(number));
}

fn json(map: &serde_json::Map<String, serde_json::Value>) -> Cow<'static, str> {
    if map.is_empty() {
        return "{}".into();
    }
    // A map of JSON values is always JSON.
    serde_json::to_string(map).map_or("{}".into(), Cow::Owned)
}

/// An event's row.
pub(super) struct EventRow {
    pub(super) n: i64,
    pub(super) seq: i64,
    pub(super) at: i64,
    pub(super) after: i64,
    pub(super) event_type: i32,
    pub(super) actor: i32,
    pub(super) target: Option<i32>,
    pub(super) recipient: Option<i32>,
    pub(super) outcome_of: Option<i64>,
    pub(super) owner: Option<Vec<u8>>,
    pub(super) user_id: Option<Vec<u8>>,
    pub(super) request_id: Option<Vec<u8>>,
    pub(super) payload: Vec<u8>,
    pub(super) extras: Vec<u8>,
    pub(super) tags: Vec<u8>,
    pub(super) proof: Vec<u8>,
}

impl EventRow {
    /// What the index looks at.
    pub(super) fn into_index(self) -> index::Row {
        index::Row {
            n: self.n,
            seq: self.seq,
            at: self.at,
            after: self.after,
            event_type: self.event_type,
            actor: self.actor,
            target: self.target,
            recipient: self.recipient,
            outcome_of: self.outcome_of,
            owner: self.owner,
            user_id: self.user_id,
            request_id: self.request_id,
            tags: self.tags,
        }
    }
}

impl Row for EventRow {
    type Name = EventRow;
    const INTO: &'static str = "INSERT OR ROLLBACK INTO events (n, seq, at, after, event_type, actor, target, recipient, \
        outcome_of, owner, user_id, request_id, payload, extras, tags, proof) VALUES";

    fn columns<'b>(&'b self, column: &mut dyn FnMut(Column<'b>) -> QueryResult<()>) -> QueryResult<()> {
        column(Column::Big(&self.n))?;
        column(Column::Big(&self.seq))?;
        column(Column::Big(&self.at))?;
        column(Column::Big(&self.after))?;
        column(Column::Int(&self.event_type))?;
        column(Column::Int(&self.actor))?;
        column(Column::OptInt(&self.target))?;
        column(Column::OptInt(&self.recipient))?;
        column(Column::OptBig(&self.outcome_of))?;
        column(Column::OptBytes(&self.owner))?;
        column(Column::OptBytes(&self.user_id))?;
        column(Column::OptBytes(&self.request_id))?;
        column(Column::Bytes(&self.payload))?;
        column(Column::Bytes(&self.extras))?;
        column(Column::Bytes(&self.tags))?;
        column(Column::Bytes(&self.proof))
    }
}

/// Two identifiers of one person.
#[derive(Insertable)]
#[diesel(table_name = owner_links, treat_none_as_default_value = false)]
pub(super) struct LinkRow<'a> {
    pub(super) a: &'a str,
    pub(super) b: &'a str,
    pub(super) created_at: i64,
    pub(super) n: i64,
    pub(super) id: i64,
}

/// A registered value's row.
pub(super) struct ValueRow {
    pub(super) n: i64,
    pub(super) id: i64,
    fingerprint: Vec<u8>,
    tag: i32,
    category: i32,
    owner: Option<Vec<u8>>,
    kind: i16,
    entry: Vec<u8>,
    created_at: i64,
}

impl Row for ValueRow {
    type Name = ValueRow;
    const INTO: &'static str = "INSERT OR ROLLBACK INTO fingerprints \
        (n, id, fingerprint, tag, category, owner, kind, entry, created_at) VALUES";

    fn columns<'b>(&'b self, column: &mut dyn FnMut(Column<'b>) -> QueryResult<()>) -> QueryResult<()> {
        column(Column::Big(&self.n))?;
        column(Column::Big(&self.id))?;
        column(Column::Bytes(&self.fingerprint))?;
        column(Column::Int(&self.tag))?;
        column(Column::Int(&self.category))?;
        column(Column::OptBytes(&self.owner))?;
        column(Column::Small(&self.kind))?;
        column(Column::Bytes(&self.entry))?;
        column(Column::Big(&self.created_at))
    }
}
