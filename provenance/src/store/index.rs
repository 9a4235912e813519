//! What is made from the events' rows: postings, sights and flows. The writer makes it of what it wrote, a
//! few thousand events at a time; a reader makes it in memory of what the writer has not come to yet.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use diesel::prelude::*;
use foldhash::fast::RandomState;

use super::batch::{KnownValues, value_key};
use super::db::{Db, on};
use super::pack::{PackedTag, Tags};
use super::postings::{self, Entry, Spot, Term};
use super::rows::{self, Part};
use super::schema::{events, instances};
use super::statement::statement;
use super::stored::EventRow;
use super::texts::{Catalog, StoredText};

/// Events that one round takes in.
pub(super) const ROUND: i64 = 8_192;
const MICROS_A_DAY: i64 = 86_400_000_000;

/// What some events come to.
#[derive(Default)]
pub(super) struct Digest {
    pub(super) postings: Vec<Entry>,
    /// By the key of the value.
    pub(super) sights: HashMap<u64, Sight, RandomState>,
    pub(super) flows: BTreeMap<FlowIds, i64>,
    /// The last seq that was taken in; 0 for none.
    pub(super) upto: i64,
}

/// In which events a value was seen.
#[derive(Clone, Copy)]
pub(super) struct Sight {
    /// Of the first event: microseconds since 1970, `n`, `seq`.
    pub(super) first: (i64, i64, i64),
    /// Microseconds since 1970.
    pub(super) last_at: i64,
    pub(super) events: i64,
}

impl Sight {
    /// With what was seen elsewhere, before or after.
    pub(super) fn join(&mut self, other: &Sight) {
        self.first = self.first.min(other.first);
        self.last_at = self.last_at.max(other.last_at);
        self.events = self.events.saturating_add(other.events);
    }
}

/// The key of a flow: numbers of texts, 0 for none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct FlowIds {
    pub(super) n: i64,
    /// Days since 1970.
    pub(super) day: i32,
    pub(super) event_type: i32,
    pub(super) actor: i32,
    pub(super) target: i32,
    pub(super) recipient: i32,
    pub(super) tag: i32,
}

/// The day of a time in microseconds.
pub(super) fn day(created_at: i64) -> i32 {
    i32::try_from(created_at.div_euclid(MICROS_A_DAY)).unwrap_or(i32::MAX)
}

/// What of an event's row is looked at.
#[derive(Queryable, Selectable)]
#[diesel(table_name = events)]
pub(super) struct Row {
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
    pub(super) tags: Vec<u8>,
}

/// The same, borrowed: of a row that was read, or of one that was just written.
pub(super) struct View<'r> {
    n: i64,
    seq: i64,
    at: i64,
    created_at: i64,
    event_type: i32,
    actor: i32,
    target: Option<i32>,
    recipient: Option<i32>,
    outcome_of: Option<i64>,
    owner: Option<&'r [u8]>,
    user_id: Option<&'r [u8]>,
    request_id: Option<&'r [u8]>,
    tags: &'r [u8],
}

impl<'r> From<&'r Row> for View<'r> {
    fn from(row: &'r Row) -> Self {
        View {
            n: row.n,
            seq: row.seq,
            at: row.at,
            created_at: row.at.wrapping_mul(1000).wrapping_add(row.after),
            event_type: row.event_type,
            actor: row.actor,
            target: row.target,
            recipient: row.recipient,
            outcome_of: row.outcome_of,
            owner: row.owner.as_deref(),
            user_id: row.user_id.as_deref(),
            request_id: row.request_id.as_deref(),
            tags: &row.tags,
        }
    }
}

impl<'r> From<&'r rows::EventRow> for View<'r> {
    fn from(row: &'r rows::EventRow) -> Self {
        View {
            n: row.n,
            seq: row.seq,
            at: row.at,
            created_at: row.created_at(),
            event_type: row.event_type,
            actor: row.actor,
            target: row.target,
            recipient: row.recipient,
            outcome_of: row.outcome_of,
            owner: row.text(Part::Owner),
            user_id: row.text(Part::User),
            request_id: row.text(Part::Request),
            tags: row.tags(),
        }
    }
}

impl<'r> View<'r> {
    fn tags(&self) -> impl Iterator<Item = PackedTag<'r>> + use<'r> {
        Tags::read(self.tags, self.owner, self.created_at).flatten()
    }
}

/// Takes in up to `limit` events of an instance after `after`.
pub(super) fn digest(
    connection: &mut Db<'_>,
    catalog: &mut Catalog,
    n: i64,
    after: i64,
    limit: i64,
) -> QueryResult<Digest> {
    let rows: Vec<Row> = on!(
        connection,
        events::table
            .filter(events::n.eq(n).and(events::seq.gt(after)))
            .order(events::seq)
            .limit(limit)
            .select(Row::as_select())
            .load(connection)
    )?;
    digest_of(connection, catalog, rows.iter().map(View::from))
}

/// Takes in these events of an instance.
fn digest_of<'r>(
    connection: &mut Db<'_>,
    catalog: &mut Catalog,
    rows: impl Iterator<Item = View<'r>> + Clone,
) -> QueryResult<Digest> {
    let mut digest = Digest::default();
    let wanted = rows.clone().flat_map(|row| {
        let kinds = row.tags().filter_map(|tag| match tag {
            PackedTag::Tag { kind, .. } => Some(kind.cast_signed()),
            PackedTag::Erased(_) => None,
        });
        let recipient = row.recipient;
        kinds.chain(recipient).map(move |id| (row.n, id))
    });
    catalog.load(connection, wanted)?;
    let mut met = Met::of(rows.size_hint().0);
    for row in rows {
        let n = row.n;
        digest.upto = row.seq;
        let own = Place {
            spot: Spot {
                at: row.at,
                n,
                seq: row.seq,
            },
            created_at: row.created_at,
            actor: row.actor,
            target: row.target,
        };
        match row.outcome_of {
            None => met.row(&row, &own, catalog),
            // What came with an outcome stands where its share does.
            Some(share) if !row.tags.is_empty() => {
                let found = on!(
                    connection,
                    events::table
                        .find((n, share))
                        .select((events::at, events::after, events::actor, events::target))
                        .get_result::<(i64, i64, i32, Option<i32>)>(connection)
                );
                let place = found.optional()?.map_or(own, |(at, after, actor, target)| Place {
                    spot: Spot { at, n, seq: share },
                    created_at: at.wrapping_mul(1000).wrapping_add(after),
                    actor,
                    target,
                });
                met.row(&row, &place, catalog);
            }
            Some(_) => {}
        }
    }
    catalog.trim();
    met.put_into(&mut digest);
    Ok(digest)
}

/// Where an event is shown.
struct Place {
    spot: Spot,
    created_at: i64,
    actor: i32,
    target: Option<i32>,
}

/// Everything that a row is found by.
pub(super) fn terms(row: &EventRow, catalog: &Catalog) -> BTreeSet<Term> {
    let mut terms = BTreeSet::new();
    terms.extend(row.owner.as_deref().map(Term::owner));
    terms.extend(row.user_id.as_deref().map(Term::owner));
    terms.extend(row.request_id.as_deref().map(Term::request));
    terms.extend(row.recipient(catalog).map(Term::recipient));
    for tag in row.tags() {
        let PackedTag::Tag {
            kind,
            fingerprint,
            owner,
            ..
        } = tag
        else {
            continue;
        };
        terms.extend(owner.as_deref().map(Term::owner));
        let kind = catalog.get(row.n, kind.cast_signed()).and_then(|text| text.kind());
        terms.extend(kind.map(|kind| Term::category(&kind.canonical)));
        terms.extend(fingerprint.map(|fingerprint| Term::fingerprint(fingerprint)));
    }
    terms
}

/// What a digest is made of, and what is used again for each row.
#[derive(Default)]
struct Met {
    postings: Vec<Entry>,
    sights: HashMap<u64, Sight, RandomState>,
    /// The same flow comes again and again: each is counted where it stands here.
    flows: HashMap<FlowIds, i64, RandomState>,
    terms: Vec<Term>,
    values: Vec<u64>,
    kinds: Vec<i32>,
}

impl Met {
    /// Of so many rows.
    fn of(rows: usize) -> Self {
        Met {
            postings: Vec::with_capacity(8 * rows),
            sights: HashMap::with_capacity_and_hasher(2 * rows, RandomState::default()),
            ..Met::default()
        }
    }

    fn row(&mut self, row: &View<'_>, place: &Place, catalog: &Catalog) {
        let Met {
            terms, values, kinds, ..
        } = self;
        terms.clear();
        values.clear();
        kinds.clear();
        terms.extend(row.owner.map(Term::owner));
        terms.extend(row.user_id.map(Term::owner));
        terms.extend(row.request_id.map(Term::request));
        let recipient = row.recipient.and_then(|id| catalog.get(row.n, id));
        terms.extend(recipient.map(StoredText::recipient));
        for tag in row.tags() {
            let PackedTag::Tag {
                kind,
                fingerprint,
                owner,
                ..
            } = tag
            else {
                continue;
            };
            kinds.push(kind.cast_signed());
            terms.extend(
                owner
                    .as_deref()
                    .filter(|owner| Some(*owner) != row.owner)
                    .map(Term::owner),
            );
            let text = catalog.get(row.n, kind.cast_signed());
            terms.extend(text.and_then(StoredText::category));
            if let Some(fingerprint) = fingerprint {
                terms.push(Term::fingerprint(fingerprint));
                let canonical = text.and_then(StoredText::kind).map_or("", |kind| &*kind.canonical);
                values.push(value_key(fingerprint, canonical, owner.as_deref()));
            }
        }
        // Few, and mostly different.
        terms.sort_unstable();
        terms.dedup();
        values.sort_unstable();
        values.dedup();
        kinds.sort_unstable();
        kinds.dedup();
        self.postings.extend(terms.iter().map(|term| (*term, place.spot)));
        for key in values {
            let sight = Sight {
                first: (place.created_at, place.spot.n, place.spot.seq),
                last_at: place.created_at,
                events: 1,
            };
            self.sights.entry(*key).and_modify(|s| s.join(&sight)).or_insert(sight);
        }
        for tag in kinds {
            let key = FlowIds {
                n: row.n,
                day: day(place.created_at),
                event_type: row.event_type,
                actor: place.actor,
                target: place.target.unwrap_or(0),
                recipient: row.recipient.unwrap_or(0),
                tag: *tag,
            };
            *self.flows.entry(key).or_default() += 1;
        }
    }

    fn put_into(self, digest: &mut Digest) {
        digest.postings = self.postings;
        digest.sights = self.sights;
        digest.flows = self.flows.into_iter().collect();
    }
}

impl Digest {
    /// Puts it into the file. The caller holds a transaction.
    fn write(self, connection: &mut SqliteConnection, n: i64, known: &KnownValues) -> QueryResult<()> {
        postings::add(connection, self.postings)?;
        let rows = |(key, sight)| Some((*known.get(&key)?, sight));
        let sights: BTreeMap<(i64, i64), Sight> = self.sights.into_iter().filter_map(rows).collect();
        for ((n, id), sight) in sights {
            statement!(
                "INSERT INTO sights (n, id, first_at, first_n, first_seq, last_at, events) \
                 VALUES (?, ?, ?, ?, ?, ?, ?) \
                 ON CONFLICT (n, id) DO UPDATE SET events = events + excluded.events, \
                 last_at = max(last_at, excluded.last_at), first_at = min(first_at, excluded.first_at), \
                 first_n = iif(excluded.first_at < first_at, excluded.first_n, first_n), \
                 first_seq = iif(excluded.first_at < first_at, excluded.first_seq, first_seq)",
                n,
                id,
                sight.first.0,
                sight.first.1,
                sight.first.2,
                sight.last_at,
                sight.events
            )
            .execute(connection)?;
        }
        for (flow, events) in self.flows {
            statement!(
                "INSERT INTO flows (n, day, event_type, actor, target, recipient, tag, events) \
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET events = events + excluded.events",
                flow.n,
                flow.day,
                flow.event_type,
                flow.actor,
                flow.target,
                flow.recipient,
                flow.tag,
                events
            )
            .execute(connection)?;
        }
        diesel::update(instances::table.find(n))
            .set(instances::indexed.eq(self.upto))
            .execute(connection)
            .map(drop)
    }
}

/// What an instance's index takes in next, and whether there may be more. `fresh`: the rows that follow what it has, if
/// they are still in memory; they are taken if they do.
pub(super) fn next(
    connection: &mut Db<'_>,
    catalog: &mut Catalog,
    n: i64,
    indexed: i64,
    fresh: &[rows::EventRow],
) -> QueryResult<(Digest, bool)> {
    if fresh.first().is_some_and(|row| row.seq == indexed.saturating_add(1)) {
        return Ok((digest_of(connection, catalog, fresh.iter().map(View::from))?, false));
    }
    let digest = digest(connection, catalog, n, indexed, ROUND)?;
    let more = digest.upto.saturating_sub(indexed) >= ROUND;
    Ok((digest, more))
}

/// One round for an instance, in a transaction that the caller holds. `true` if there may be more.
pub(super) fn round(
    connection: &mut SqliteConnection,
    catalog: &mut Catalog,
    known: &KnownValues,
    n: i64,
    fresh: &[rows::EventRow],
) -> QueryResult<bool> {
    let indexed = instances::table
        .find(n)
        .select(instances::indexed)
        .get_result::<i64>(connection)?;
    let (digest, more) = next(&mut Db::Sqlite(connection), catalog, n, indexed, fresh)?;
    if digest.upto == 0 {
        return Ok(false);
    }
    digest.write(connection, n, known)?;
    Ok(more)
}
