//! A batch of records as rows: numbered, salted, committed to, and inserted.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::LazyLock;

use diesel::prelude::*;
use foldhash::quality::RandomState;

use super::chain::{self, Hash, Header, JsonItem, Salt, Sealer, TagItem};
use super::draft::Draft;
use super::pack::{self, Packed, PackedTag};
use super::record::{Record, Value};
use super::rows::{self, EventRow, LinkRow, Part, ValueRow};
use super::schema::{self, owner_links};
use super::statement::{insert, statement};
use super::texts::Texts;
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
pub(super) type KnownValues = HashMap<u64, (i64, i64), foldhash::fast::RandomState>;

/// Tells values of the same person and category from others, in memory.
pub(super) fn value_key(fingerprint: &[u8; 32], canonical: &str, owner: Option<&[u8]>) -> u64 {
    use std::hash::BuildHasher;
    // Nobody else knows it: values are chosen by strangers, and two of one key are taken for one.
    static STATE: LazyLock<RandomState> = LazyLock::new(RandomState::default);
    STATE.hash_one((fingerprint, canonical, owner))
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
    /// Of the rows that have no leaf yet, in their order.
    types: Vec<Hash>,
    scratch: Scratch,
}

/// What is used again for each row.
#[derive(Default)]
struct Scratch {
    sealer: Sealer,
    draft: Draft,
    bytes: Vec<u8>,
    tags: Vec<u8>,
    detail: Vec<u8>,
    owner: Vec<u8>,
}

/// The columns of a row, which follow each other.
struct Columns<'r> {
    bytes: &'r mut Vec<u8>,
    ends: &'r mut [usize; 6],
}

impl Columns<'_> {
    fn text(&mut self, part: Part, text: Option<&str>) {
        if let Some(text) = text {
            pack::put_text(self.bytes, text);
        }
        self.end(part);
    }

    fn json(&mut self, part: Part, draft: &Draft, texts: &mut Texts) {
        texts.json(draft, self.bytes);
        self.end(part);
    }

    fn end(&mut self, part: Part) {
        if let Some(end) = self.ends.get_mut(part as usize) {
            *end = self.bytes.len();
        }
    }
}

/// Events whose leaves are made together: what that takes stays in the processor's first cache.
const TOGETHER: usize = 16;

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
            types: Vec::new(),
            scratch: Scratch::default(),
        };
        // Shares are looked for where an outcome names one.
        let has_outcomes = batch.iter().any(|record| matches!(record, Record::Outcome { .. }));
        let mut here = HashMap::new();
        let mut new = HashSet::new();
        for (record, salt) in batch.iter().zip(salts) {
            let seq = place.next_seq + prepared.count();
            match record {
                Record::Event(event, ticket) => {
                    prepared.event(event, texts, seq, *salt);
                    prepared.tickets.push((ticket, seq));
                    if has_outcomes {
                        here.insert(ticket.identity(), seq);
                    }
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
            if prepared.types.len() >= TOGETHER {
                prepared.seal(texts);
            }
        }
        prepared.seal(texts);
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
        let Scratch { draft, bytes, .. } = &mut self.scratch;
        bytes.clear();
        let mut columns = Columns {
            bytes,
            ends: &mut row.ends,
        };
        columns.text(Part::Owner, event.owner.as_ref().map(Owner::as_str));
        columns.text(Part::User, event.user_id.as_deref());
        columns.text(Part::Request, event.request_id.as_deref());
        draft.payload(event);
        columns.json(Part::Payload, draft, texts);
        draft.extras(event);
        columns.json(Part::Extras, draft, texts);
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
        row.recipient = late
            .and_then(|late| late.recipient.as_deref())
            .map(|recipient| small(texts.number(recipient)));
        let nothing = serde_json::Map::new();
        let Scratch { draft, bytes, .. } = &mut self.scratch;
        bytes.clear();
        let mut columns = Columns {
            bytes,
            ends: &mut row.ends,
        };
        // For those who ask by one of these, and find only the late tags.
        columns.text(
            Part::Owner,
            late.and_then(|late| late.owner.as_ref()).map(Owner::as_str),
        );
        columns.text(Part::User, None);
        columns.text(Part::Request, late.and_then(|late| late.request_id.as_deref()));
        draft.object(late.map_or(&nothing, |late| &late.payload));
        columns.json(Part::Payload, draft, texts);
        draft.object(late.map_or(&nothing, |late| &late.extras));
        columns.json(Part::Extras, draft, texts);
        let tags = late.map_or(&[] as &[EventTag], |late| &late.tags);
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
            bytes: Box::default(),
            ends: [0; 6],
            proof: [0; 48],
        }
    }

    /// Adds the tags to a row whose other columns stand in the scratch; its leaf comes later.
    fn push(
        &mut self,
        mut row: EventRow,
        event_type: &str,
        tags: &[EventTag],
        created_at: Timestamp,
        texts: &mut Texts,
        salt: Salt,
    ) {
        let Scratch {
            sealer,
            draft,
            bytes,
            tags: packed,
            detail,
            owner,
        } = &mut self.scratch;
        let part = |part| rows::part(bytes, &row.ends, part);
        let text = |of| Some(part(of)).filter(|text| !text.is_empty());
        let event_owner = text(Part::Owner);
        sealer.event(salt);
        let plain = |sealer: &mut Sealer, number, of| {
            if let Some(text) = text(of) {
                sealer.part(number, text);
            }
        };
        plain(sealer, chain::OWNER, Part::Owner);
        plain(sealer, chain::USER, Part::User);
        if let Some(target) = row.target {
            sealer.part(chain::TARGET, texts.hash(target.cast_unsigned()));
        }
        sealer.json(chain::PAYLOAD, json_item(part(Part::Payload), texts));
        plain(sealer, chain::REQUEST, Part::Request);
        sealer.json(chain::EXTRAS, json_item(part(Part::Extras), texts));
        packed.clear();
        // Of most events all tags have one owner.
        let mut last: Option<&Owner> = None;
        for (at, (number, EventTag { tag, detail: more })) in (chain::FIRST_TAG..).zip(tags).enumerate() {
            let kind = texts.kind(tag, at);
            if let Some(new) = &tag.owner
                && last != Some(new)
            {
                owner.clear();
                pack::put_text(owner, new.as_str());
                last = Some(new);
            }
            detail.clear();
            if !more.is_empty() {
                draft.object(more);
                texts.json(draft, detail);
            }
            let tag = PackedTag::Tag {
                kind,
                fingerprint: tag.fingerprint.as_ref().map(|fingerprint| &fingerprint.0),
                owner: tag.owner.is_some().then_some(Cow::Borrowed(owner.as_slice())),
                created_at: tag.created_at.0,
                detail,
            };
            pack::put_tag(packed, &tag, event_owner, created_at.0);
            let item = json_item(detail, texts);
            sealer.tag(
                number,
                &TagItem::of(&tag, event_owner, created_at.0, texts.hash(kind), item),
            );
        }
        bytes.extend_from_slice(packed);
        if let Some(end) = row.ends.last_mut() {
            *end = bytes.len();
        }
        row.bytes = bytes.as_slice().into();
        if let Some((start, _)) = row.proof.split_first_chunk_mut() {
            *start = salt;
        }
        self.types.push(match row.event_type > 0 {
            // Its number stands in the leaf.
            true => Hash::default(),
            false => texts.type_hash(row.event_type, event_type),
        });
        self.events.push(row);
    }

    /// Makes the leaves of the last rows.
    fn seal(&mut self, texts: &Texts) {
        let from = self.events.len().saturating_sub(self.types.len());
        let rows = self.events.get_mut(from..).unwrap_or_default();
        let headers = rows.iter().zip(&self.types).map(|(row, type_name)| Header {
            instance: self.place.instance,
            seq: row.seq,
            at: row.at,
            created_at: row.created_at(),
            event_type: row.event_type,
            type_name,
            actor: texts.hash(row.actor.cast_unsigned()),
            recipient: row.recipient.map(|id| texts.hash(id.cast_unsigned())),
            outcome_of: row.outcome_of,
        });
        let leaves = self.scratch.sealer.leaves(headers);
        self.leaves.extend_from_slice(leaves);
        for (row, leaf) in rows.iter_mut().zip(leaves) {
            if let Some((_, end)) = row.proof.split_last_chunk_mut() {
                *end = *leaf;
            }
        }
        self.types.clear();
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
            fingerprint: value.fingerprint.0,
            tag: small(texts.kind(tag, usize::MAX)),
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

/// The item of a JSON column; of an empty one, nothing.
fn json_item<'a>(column: &'a [u8], texts: &'a Texts) -> JsonItem<'a> {
    match Packed::read(column) {
        Some(Packed::Template { id, arguments }) => JsonItem::Template {
            template: texts.hash(id),
            arguments,
        },
        Some(Packed::Text(text)) => JsonItem::Text(text),
        None => JsonItem::Nothing,
    }
}

/// The number of a text as a column has it.
fn small(number: u32) -> i32 {
    number.cast_signed()
}
