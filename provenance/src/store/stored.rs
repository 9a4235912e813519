//! Events as they are read back: rows, the texts they name, and the outcomes folded into their shares.

use std::collections::{BTreeMap, HashMap};

use diesel::dsl::max;
use diesel::prelude::*;
use serde_json::{Map, Value as Json};

use super::db::{Db, on};
use super::pack::{self, PackedTag, Tags};
use super::postings::Spot;
use super::proof::STUB;
use super::read::{Memory, StoredEvent};
use super::schema::{events, instances};
use super::texts::{Catalog, template_of};
use crate::hex::hex;
use crate::vocabulary::Timestamp;

/// Keys looked up at once: below the 999 variables of older SQLite builds.
const KEYS: usize = 500;

#[derive(Queryable, Selectable)]
#[diesel(table_name = events)]
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
}

impl EventRow {
    /// What its retention has left of it, which nobody is shown.
    pub(super) fn is_stub(&self) -> bool {
        self.tags == STUB
    }

    /// Whether an erasure took something of it.
    fn is_erased(&self) -> bool {
        self.extras.is_empty() || self.tags().any(|tag| matches!(tag, PackedTag::Erased(_)))
    }

    pub(super) fn created_at(&self) -> i64 {
        self.at.wrapping_mul(1000).wrapping_add(self.after)
    }

    pub(super) fn tags(&self) -> impl Iterator<Item = PackedTag<'_>> {
        Tags::read(&self.tags, self.owner.as_deref(), self.created_at()).flatten()
    }

    pub(super) fn recipient<'c>(&self, catalog: &'c Catalog) -> Option<&'c str> {
        Some(&**catalog.text(self.n, self.recipient?)?)
    }

    /// The numbers of the texts that it names.
    pub(super) fn texts(&self) -> impl Iterator<Item = (i64, i32)> {
        let tags = self.tags().flat_map(|tag| match tag {
            PackedTag::Tag { kind, detail, .. } => [Some(kind.cast_signed()), template_of(detail)],
            PackedTag::Erased(_) => [None, None],
        });
        let columns = [
            Some(self.actor),
            self.target,
            self.recipient,
            template_of(&self.payload),
            template_of(&self.extras),
        ];
        columns.into_iter().chain(tags).flatten().map(|id| (self.n, id))
    }
}

/// An event's row, and those of its outcomes, in their order.
pub(super) struct Rows {
    pub(super) event: EventRow,
    pub(super) outcomes: Vec<EventRow>,
}

impl Rows {
    /// All its rows.
    pub(super) fn each(&self) -> impl Iterator<Item = &EventRow> {
        std::iter::once(&self.event).chain(&self.outcomes)
    }
}

/// The events at these spots, in their order, and what they name. What is not there is left out.
pub(super) fn rows(connection: &mut Db<'_>, memory: &mut Memory, spots: &[Spot]) -> QueryResult<Vec<Rows>> {
    let mut seqs: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for spot in spots {
        seqs.entry(spot.n).or_default().push(spot.seq);
    }
    let mut found = HashMap::new();
    let mut outcomes: HashMap<_, Vec<EventRow>> = HashMap::new();
    for (&n, seqs) in &seqs {
        for seqs in seqs.chunks(KEYS) {
            let rows = on!(
                connection,
                events::table
                    .filter(
                        events::n
                            .eq(n)
                            .and(events::seq.eq_any(seqs))
                            .and(events::outcome_of.is_null()),
                    )
                    .select(EventRow::as_select())
                    .load(connection)
            )?;
            let shown = rows.into_iter().filter(|row| !row.is_stub());
            found.extend(shown.map(|row| ((row.n, row.seq), row)));
            let rows = on!(
                connection,
                events::table
                    .filter(events::n.eq(n).and(events::outcome_of.eq_any(seqs)))
                    // By seq alone SQLite would walk all events of the instance.
                    .order((events::outcome_of, events::seq))
                    .select(EventRow::as_select())
                    .load(connection)
            )?;
            for row in rows {
                outcomes
                    .entry((n, row.outcome_of.unwrap_or_default()))
                    .or_default()
                    .push(row);
            }
        }
    }
    let named = found
        .values()
        .chain(outcomes.values().flatten())
        .flat_map(EventRow::texts);
    let named: Vec<_> = named.collect();
    memory.catalog.trim();
    memory.catalog.load(connection, named)?;
    let rows = |spot: &Spot| {
        let id = (spot.n, spot.seq);
        Some(Rows {
            event: found.remove(&id)?,
            outcomes: outcomes.remove(&id).unwrap_or_default(),
        })
    };
    Ok(spots.iter().filter_map(rows).collect())
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = instances)]
struct WriterRow {
    n: i64,
    instance: i64,
    started_at: i64,
    service: String,
    environment: Option<String>,
    build: String,
    ended_at: Option<i64>,
}

/// Who wrote, and whether an outcome may still come from there.
pub(super) struct Writer {
    row: WriterRow,
    live: bool,
}

/// Those with these numbers.
pub(super) fn writers(connection: &mut Db<'_>, numbers: &[i64]) -> QueryResult<HashMap<i64, Writer>> {
    let mut rows = Vec::new();
    for numbers in numbers.chunks(KEYS) {
        rows.extend(on!(
            connection,
            instances::table
                .filter(instances::n.eq_any(numbers))
                .select(WriterRow::as_select())
                .load(connection)
        )?);
    }
    let newest: HashMap<String, Option<i64>> = on!(
        connection,
        instances::table
            .group_by(instances::service)
            .select((instances::service, max(instances::started_at)))
            .load(connection)
    )?
    .into_iter()
    .collect();
    Ok(rows
        .into_iter()
        .map(|row| {
            let newest = newest.get(&row.service).copied().flatten();
            let live = row.ended_at.is_none() && newest.is_none_or(|newest| newest <= row.started_at);
            (row.n, Writer { row, live })
        })
        .collect())
}

pub(super) fn instance_id(instance: i64) -> String {
    format!("{instance:016x}")
}

pub(super) fn event_id(instance: i64, seq: i64) -> String {
    format!("{instance:016x}-{seq}")
}

/// Events as the audit API shows them.
pub(super) fn stored(
    connection: &mut Db<'_>,
    memory: &Memory,
    rows: Vec<Rows>,
    types: &HashMap<i32, String>,
) -> QueryResult<Vec<StoredEvent>> {
    let mut numbers: Vec<i64> = rows.iter().map(|rows| rows.event.n).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let writers = writers(connection, &numbers)?;
    let stored = |rows: Rows| rows.stored(&memory.catalog, writers.get(&rows.event.n)?, types);
    Ok(rows.into_iter().filter_map(stored).collect())
}

impl Rows {
    fn stored(&self, catalog: &Catalog, writer: &Writer, types: &HashMap<i32, String>) -> Option<StoredEvent> {
        let Rows { event, outcomes } = self;
        let object = |column: &[u8]| match column.is_empty() {
            // Erased.
            true => Map::new(),
            false => object(catalog.json(event.n, column).as_deref()),
        };
        let text = |id: i32| {
            catalog
                .text(event.n, id)
                .map_or_else(String::new, |text| text.as_ref().to_owned())
        };
        let unpacked = |packed: &Option<Vec<u8>>| pack::unpack_text(packed.as_deref()?);
        let (mut payload, mut extras) = (object(&event.payload), object(&event.extras));
        let is_erased = event.is_erased() || outcomes.iter().any(EventRow::is_erased);
        let mut owner = unpacked(&event.owner);
        let mut matched_tags: Vec<_> = event.tags().filter_map(|tag| flat(&tag, event.n, catalog)).collect();
        for late in outcomes {
            fold(&mut payload, object(&late.payload));
            fold(&mut extras, object(&late.extras));
            owner = owner.or_else(|| unpacked(&late.owner));
            matched_tags.extend(late.tags().filter_map(|tag| flat(&tag, event.n, catalog)));
        }
        let event_type = types.get(&event.event_type).cloned().unwrap_or_default();
        let WriterRow {
            instance,
            service,
            environment,
            build,
            ..
        } = &writer.row;
        let mut put = |key: &str, value: Json| {
            extras.insert(key.to_owned(), value);
        };
        put("instance", instance_id(*instance).into());
        if let Some(owner) = owner {
            put("owner", owner.into());
        }
        if is_erased {
            put("erased", true.into());
        }
        if let Some(recipient) = event.recipient(catalog) {
            put("recipient", recipient.into());
        }
        put("service", service.as_str().into());
        put("environment", environment.as_deref().into());
        put("build", build.as_str().into());
        // Of several the last one counts: a body may fail after its status was seen.
        match outcomes.last() {
            Some(outcome) => {
                let words = text(outcome.actor);
                let (word, detail) = words.split_once(' ').unwrap_or((&words, ""));
                put("outcome", word.into());
                put("outcome_at", Timestamp(outcome.created_at()).to_string().into());
                match (word, detail.parse::<u16>()) {
                    ("status", Ok(status)) => put("status", status.into()),
                    ("error", _) => put("error", detail.into()),
                    _ => {}
                }
            }
            None if event_type == "DATA_SHARE" && !extras.contains_key("outcome") => {
                extras.insert("outcome".into(), if writer.live { "pending" } else { "unknown" }.into());
            }
            None => {}
        }
        Some(StoredEvent {
            event_id: event_id(*instance, event.seq),
            created_at: Timestamp(event.created_at()),
            event_type,
            actor: text(event.actor),
            target: event.target.map(text),
            payload,
            request_id: unpacked(&event.request_id),
            user_id: unpacked(&event.user_id),
            matched_tags,
            extras,
        })
    }
}

/// One object: what the event knows more of the tag never hides the tag's own keys.
fn flat(tag: &PackedTag<'_>, n: i64, catalog: &Catalog) -> Option<Map<String, Json>> {
    let PackedTag::Tag {
        kind,
        fingerprint,
        owner,
        created_at,
        detail,
    } = tag
    else {
        return None;
    };
    let mut flat = match detail.is_empty() {
        true => Map::new(),
        false => object(catalog.json(n, detail).as_deref()),
    };
    let kind = catalog.get(n, kind.cast_signed()).and_then(|text| text.kind());
    let word = |word: Option<&std::sync::Arc<str>>| Json::from(word.map_or("", |word| &**word));
    for (key, value) in [
        ("fingerprint", fingerprint.map(|bytes| hex(bytes)).into()),
        ("category", word(kind.map(|kind| &kind.category))),
        ("field", word(kind.map(|kind| &kind.field))),
        ("description", word(kind.map(|kind| &kind.description))),
        ("owner", owner.as_deref().and_then(pack::unpack_text).into()),
        ("source", word(kind.map(|kind| &kind.source))),
        ("pii", kind.is_none_or(|kind| kind.pii).into()),
        ("created_at", Timestamp(*created_at).to_string().into()),
    ] {
        flat.insert(key.to_owned(), value);
    }
    Some(flat)
}

/// What became known later goes over what was known; lists grow.
fn fold(known: &mut Map<String, Json>, late: Map<String, Json>) {
    for (key, value) in late {
        match (known.get_mut(&key), value) {
            (Some(Json::Array(known)), Json::Array(more)) => known.extend(more),
            (_, value) => {
                known.insert(key, value);
            }
        }
    }
}

/// A JSON object; what is none was not written by us, and is not passed on.
fn object(text: Option<&str>) -> Map<String, Json> {
    let read = text.and_then(|text| serde_json::from_str(text).ok());
    read.unwrap_or_else(|| Map::from_iter([("unreadable".to_owned(), true.into())]))
}
