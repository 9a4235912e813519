//! Ending what was kept for its time: events of a type become stubs, tags of a category their commitments.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Binary, Bool, Integer, Nullable};
use serde_json::Value as Json;

use super::batch::value_key;
use super::db::{Db, on};
use super::erase::{Cut, Eraser, Full, Group, forget_value, hold, remove_entries, tails, write};
use super::index;
use super::pack::PackedTag;
use super::postings::{Spot, Term};
use super::proof::{Proof, STUB};
use super::schema::{self, events};
use super::statement::statement;
use super::stored::EventRow;
use super::texts::Catalog;
use crate::Error;
use crate::vocabulary::{EventType, Timestamp, category};

/// `kind` in the extras of a record.
pub(crate) const KIND: &str = "retention";
/// Events of one transaction.
const SLICE: i64 = 128;
const LIMIT: usize = 128;

/// What ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Rule {
    /// Events of this type.
    Type(String),
    /// Tags of this canonical category, and values that were last seen before.
    Category(String),
    /// Values that were last seen before.
    Values,
}

impl Rule {
    /// As a configuration names it; `None` where it is neither a type nor a category.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.parse::<EventType>().is_ok() {
            return Some(Rule::Type(text.to_owned()));
        }
        category::is_well_formed(text).then(|| Rule::Category(category::canonical(text).into_owned()))
    }
}

/// How far a rule was applied in this process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark(Spot);

impl Default for Mark {
    fn default() -> Self {
        Mark(Spot {
            at: i64::MIN,
            n: i64::MIN,
            seq: i64::MIN,
        })
    }
}

/// What one step has ended.
#[derive(Default)]
pub(crate) struct Ended {
    /// Events that became stubs, or lost tags.
    pub(crate) events: u64,
    pub(crate) values: Vec<(i64, i64)>,
    pub(crate) more: bool,
}

/// What the records of erasures and retentions say, oldest first.
pub(super) fn records(connection: &mut Db<'_>, catalog: &mut Catalog) -> QueryResult<Vec<Json>> {
    let rows = recorded(connection, i64::MIN)?;
    let named: Vec<_> = rows.iter().flat_map(EventRow::texts).collect();
    catalog.load(connection, named)?;
    let extras = |row: &EventRow| serde_json::from_str(&catalog.json(row.n, &row.extras)?).ok();
    Ok(rows.iter().filter_map(extras).collect())
}

fn recorded(connection: &mut Db<'_>, since: i64) -> QueryResult<Vec<EventRow>> {
    on!(
        connection,
        events::table
            .filter(events::outcome_of.is_null())
            .filter(events::event_type.eq(schema::type_code("DATA_ERASURE")))
            .filter(events::at.ge(since))
            .order((events::at, events::n, events::seq))
            .select(EventRow::as_select())
            .load(connection)
    )
}

/// Whether a row is a record of a retention, which proves the stubs of it.
fn is_record(row: &EventRow, catalog: &Catalog) -> Option<Json> {
    let extras: Json = serde_json::from_str(&catalog.json(row.n, &row.extras)?).ok()?;
    (extras.get("kind").and_then(Json::as_str) == Some(KIND)).then_some(extras)
}

/// Which stubs the records cover.
#[derive(Clone, Default)]
pub(super) struct Retained {
    /// By event type: those before this time, in milliseconds.
    before: HashMap<i32, i64>,
    /// Records up to here are known.
    upto: Option<i64>,
}

impl Retained {
    pub(super) fn load(connection: &mut Db<'_>) -> QueryResult<Self> {
        let mut retained = Retained::default();
        retained.refresh(connection)?;
        Ok(retained)
    }

    /// Takes in what was recorded since.
    pub(super) fn refresh(&mut self, connection: &mut Db<'_>) -> QueryResult<()> {
        let rows = recorded(connection, self.upto.unwrap_or(i64::MIN))?;
        let mut catalog = Catalog::default();
        let named: Vec<_> = rows.iter().flat_map(EventRow::texts).collect();
        catalog.load(connection, named)?;
        for row in &rows {
            self.upto = self.upto.max(Some(row.at));
            let Some(extras) = is_record(row, &catalog) else {
                continue;
            };
            let word = |key: &str| extras.get(key).and_then(Json::as_str);
            if let (Some(event_type), Some(before)) = (word("event_type"), word("before").and_then(Timestamp::parse)) {
                let known = self.before.entry(schema::type_code(event_type)).or_insert(i64::MIN);
                *known = before.0.div_euclid(1000).max(*known);
            }
        }
        Ok(())
    }

    /// Whether an event of this type and time, in milliseconds, may be a stub.
    pub(super) fn cover(&self, event_type: i32, at: i64) -> bool {
        self.before.get(&event_type).is_some_and(|before| at < *before)
    }
}

#[derive(QueryableByName)]
struct Place {
    #[diesel(sql_type = BigInt)]
    at: i64,
    #[diesel(sql_type = BigInt)]
    n: i64,
    #[diesel(sql_type = BigInt)]
    seq: i64,
    #[diesel(sql_type = Bool)]
    is_stub: bool,
}

impl Eraser {
    /// How many events, or values, a rule ends that were last seen before a time.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn due(&mut self, rule: &Rule, before: Timestamp, from: Mark) -> Result<u64, Error> {
        let millis = before.0.div_euclid(1000);
        self.ask(|connection, catalog| {
            let count = match rule {
                Rule::Type(event_type) => on!(
                    connection,
                    events::table
                        .filter(events::outcome_of.is_null())
                        .filter(events::event_type.eq(schema::type_code(event_type)))
                        .filter(events::at.ge(from.0.at).and(events::at.lt(millis)))
                        .filter(events::tags.ne(STUB))
                        .count()
                        .get_result::<i64>(connection)
                )?,
                Rule::Category(canonical) => {
                    let mut count = 0;
                    let mut upto = before_millis(millis);
                    loop {
                        let spots = connection.find(Term::category(canonical), upto, 512)?;
                        let Some(last) = spots.last() else { break };
                        upto = *last;
                        count += spots.len();
                    }
                    count += unindexed(connection, catalog, canonical, millis, usize::MAX)?.len();
                    i64::try_from(count + values_before(connection, catalog, rule, before)?.len()).unwrap_or(i64::MAX)
                }
                Rule::Values => {
                    i64::try_from(values_before(connection, catalog, rule, before)?.len()).unwrap_or(i64::MAX)
                }
            };
            Ok(u64::try_from(count).unwrap_or(0))
        })
    }

    /// Ends some of what a rule says, in one transaction.
    ///
    /// # Errors
    /// The file cannot be written; what was done by then stays done.
    pub(crate) fn end(&mut self, rule: &Rule, before: Timestamp, mark: &mut Mark) -> Result<Ended, Error> {
        let millis = before.0.div_euclid(1000);
        self.ask(|connection, catalog| {
            write(connection, |connection| {
                let mut ended = Ended::default();
                match rule {
                    Rule::Type(event_type) => stubs(connection, catalog, event_type, millis, mark, &mut ended)?,
                    Rule::Category(canonical) => tags(connection, catalog, canonical, millis, &mut ended)?,
                    Rule::Values => {}
                }
                if !ended.more && !matches!(rule, Rule::Type(_)) {
                    ended.values = values_before(connection, catalog, rule, before)?;
                    ended.values.sort_unstable();
                    ended.values.truncate(2 * LIMIT);
                    for id in &ended.values {
                        forget_value(connection, *id)?;
                    }
                    ended.more = !ended.values.is_empty();
                }
                Ok(ended)
            })
        })
    }
}

fn before_millis(at: i64) -> Spot {
    Spot {
        at,
        n: i64::MIN,
        seq: i64::MIN,
    }
}

/// Makes stubs of some events.
fn stubs(
    connection: &mut Db<'_>,
    catalog: &mut Catalog,
    event_type: &str,
    before: i64,
    mark: &mut Mark,
    ended: &mut Ended,
) -> QueryResult<()> {
    let places = statement!(
        "SELECT at, n, seq, tags = ? AS is_stub FROM events \
         WHERE outcome_of IS NULL AND event_type = ? AND at < ? AND (at, n, seq) > (?, ?, ?) \
         ORDER BY at, n, seq LIMIT ?",
        STUB,
        schema::type_code(event_type),
        before,
        mark.0.at,
        mark.0.n,
        mark.0.seq,
        SLICE
    );
    let places: Vec<Place> = on!(connection, places.load(connection))?;
    let Some(last) = places.last() else { return Ok(()) };
    mark.0 = Spot {
        at: last.at,
        n: last.n,
        seq: last.seq,
    };
    ended.more = true;
    let ids: BTreeSet<_> = places
        .iter()
        .filter(|place| !place.is_stub)
        .map(|place| (place.n, place.seq))
        .collect();
    hold(connection, &ids)?;
    let mut gone = Vec::new();
    let mut counts: BTreeMap<i64, i64> = BTreeMap::new();
    for mut group in Group::load(connection, catalog, &ids)? {
        // A share goes with its outcomes, once the last of them is due; and what proves stubs stays.
        let waits = group.rows.iter().any(|row| row.event.at >= before);
        let proves = group.rows.iter().any(|row| {
            row.event.event_type == schema::type_code("DATA_ERASURE") && is_record(&row.event, catalog).is_some()
        });
        if waits || proves {
            continue;
        }
        // Another process may have been here meanwhile.
        if group.rows.first().is_some_and(|row| row.event.tags == STUB) {
            continue;
        }
        let entries = group.entries(catalog);
        let mut whole = true;
        for row in &mut group.rows {
            match stub(row, catalog) {
                Some(()) => row.update(connection)?,
                None => whole = false,
            }
        }
        if let Some(first) = group.rows.first().filter(|_| whole) {
            gone.extend(entries);
            *counts.entry(first.event.n).or_default() += 1;
            ended.events += 1;
        }
    }
    remove_entries(connection, gone)?;
    for (n, count) in counts {
        let fewer = statement!(
            "UPDATE event_counts SET events = CASE WHEN events > ? THEN events - ? ELSE 0 END \
             WHERE n = ? AND event_type = ?",
            count,
            count,
            n,
            schema::type_code(event_type)
        );
        on!(connection, fewer.execute(connection))?;
    }
    Ok(())
}

/// Leaves the header of a row, and the hash over its commitments.
fn stub(row: &mut Full, catalog: &Catalog) -> Option<()> {
    let (leaf, body) = row.body(catalog)?;
    let event = &mut row.event;
    event.owner = None;
    event.user_id = None;
    event.target = None;
    event.request_id = None;
    event.payload.clear();
    event.extras.clear();
    event.tags = STUB.to_vec();
    row.proof = Proof::of_stub(&leaf, &body);
    Some(())
}

/// Replaces tags of a category in some events.
fn tags(
    connection: &mut Db<'_>,
    catalog: &mut Catalog,
    canonical: &str,
    before: i64,
    ended: &mut Ended,
) -> QueryResult<()> {
    let term = Term::category(canonical);
    let spots = connection.find(term, before_millis(before), LIMIT)?;
    let mut ids: BTreeSet<_> = spots.iter().map(|spot| (spot.n, spot.seq)).collect();
    if ids.is_empty() {
        ids = unindexed(connection, catalog, canonical, before, LIMIT)?;
    }
    ended.more = !ids.is_empty();
    hold(connection, &ids)?;
    let mut gone: Vec<_> = spots.into_iter().map(|spot| (term, spot)).collect();
    for mut group in Group::load(connection, catalog, &ids)? {
        let entries = group.entries(catalog);
        let mut any = false;
        for row in &mut group.rows {
            let n = row.event.n;
            let is_of = |tag: &PackedTag<'_>| is_of(tag, n, canonical, catalog);
            let cut = Cut {
                parts: BTreeSet::new(),
                tags: (0..)
                    .zip(row.event.tags())
                    .filter(|(_, tag)| is_of(tag))
                    .map(|(at, _)| at)
                    .collect(),
            };
            if !cut.tags.is_empty() && row.cut(&cut, catalog).is_some() {
                row.update(connection)?;
                any = true;
            }
        }
        ended.events += u64::from(any);
        let left: BTreeSet<_> = group
            .rows
            .iter()
            .flat_map(|row| index::terms(&row.event, catalog))
            .collect();
        gone.extend(entries.into_iter().filter(|(term, _)| !left.contains(term)));
    }
    remove_entries(connection, gone)
}

fn is_of(tag: &PackedTag<'_>, n: i64, canonical: &str, catalog: &Catalog) -> bool {
    match tag {
        PackedTag::Tag { kind, .. } => {
            let kind = catalog.get(n, kind.cast_signed()).and_then(|text| text.kind());
            kind.is_some_and(|kind| *kind.canonical == *canonical)
        }
        PackedTag::Erased(_) => false,
    }
}

/// Events with tags of a category that the index does not have yet: where something happens every second, it is up
/// to a round behind.
fn unindexed(
    connection: &mut Db<'_>,
    catalog: &mut Catalog,
    canonical: &str,
    before: i64,
    limit: usize,
) -> QueryResult<BTreeSet<(i64, i64)>> {
    let mut ids = BTreeSet::new();
    for tail in tails(connection)? {
        let mut after = tail.indexed;
        while ids.len() < limit {
            let rows = tail.rows(connection, after)?;
            let Some(last) = rows.last() else { break };
            after = last.seq;
            let named: Vec<_> = rows.iter().flat_map(EventRow::texts).collect();
            catalog.load(connection, named)?;
            let due = rows
                .iter()
                .filter(|row| row.at < before && row.tags().any(|tag| is_of(&tag, row.n, canonical, catalog)));
            ids.extend(due.map(|row| (row.n, row.outcome_of.unwrap_or(row.seq))));
        }
    }
    while ids.len() > limit {
        ids.pop_last();
    }
    Ok(ids)
}

/// Values that were last seen before.
fn values_before(
    connection: &mut Db<'_>,
    catalog: &mut Catalog,
    rule: &Rule,
    before: Timestamp,
) -> QueryResult<Vec<(i64, i64)>> {
    type Row = (i64, i64, Vec<u8>, i32, Option<Vec<u8>>);
    type Columns = (BigInt, BigInt, Binary, Integer, Nullable<Binary>);
    let rows: Vec<Row> = match rule {
        Rule::Type(_) => return Ok(Vec::new()),
        Rule::Category(canonical) => {
            let rows = statement!(
                "SELECT f.n, f.id, f.fingerprint, f.tag, f.owner FROM fingerprints f \
             LEFT JOIN sights s ON s.n = f.n AND s.id = f.id \
             WHERE f.category = ? AND f.created_at < ? AND coalesce(s.last_at, f.created_at) < ?",
                schema::category_code(canonical),
                before.0,
                before.0
            )
            .typed::<Columns>();
            on!(connection, rows.load(connection))?
        }
        Rule::Values => {
            let rows = statement!(
                "SELECT f.n, f.id, f.fingerprint, f.tag, f.owner FROM fingerprints f \
             LEFT JOIN sights s ON s.n = f.n AND s.id = f.id \
             WHERE f.created_at < ? AND coalesce(s.last_at, f.created_at) < ?",
                before.0,
                before.0
            )
            .typed::<Columns>();
            on!(connection, rows.load(connection))?
        }
    };
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    // What the index does not say yet.
    let mut recent = HashSet::new();
    for tail in tails(connection)? {
        let mut after = tail.indexed;
        loop {
            let digest = index::digest(connection, catalog, tail.n, after, index::ROUND)?;
            if digest.upto == 0 {
                break;
            }
            after = digest.upto;
            let seen = digest.sights.into_iter().filter(|(_, sight)| sight.last_at >= before.0);
            recent.extend(seen.map(|(key, _)| key));
        }
    }
    catalog.load(connection, rows.iter().map(|(n, _, _, tag, _)| (*n, *tag)))?;
    let is_due = |(n, _, fingerprint, tag, owner): &Row| {
        let kind = catalog.get(*n, *tag).and_then(|text| text.kind());
        let canonical = kind.map_or("", |kind| &*kind.canonical);
        let is_of = match rule {
            Rule::Category(of) => canonical == of,
            _ => true,
        };
        let Ok(fingerprint) = <[u8; 32]>::try_from(fingerprint.as_slice()) else {
            return is_of;
        };
        is_of && !recent.contains(&value_key(&fingerprint, canonical, owner.as_deref()))
    };
    Ok(rows
        .iter()
        .filter(|row| is_due(row))
        .map(|(n, id, ..)| (*n, *id))
        .collect())
}
