//! Pages of events: which ones a question is about, newest first.

use std::collections::{BTreeSet, HashMap};

use diesel::dsl::max;
use diesel::prelude::*;
use diesel::sql_types::BigInt;

use super::db::{Db, on};
use super::index::{self, Digest};
use super::pack::{self, PackedTag};
use super::postings::{Spot, Term};
use super::read::{EventKey, EventPage, EventQuery, Memory, Tail};
use super::schema::{self, event_counts, instances};
use super::statement::statement;
use super::stored::{self, Rows};
use super::texts::Catalog;
use crate::vocabulary::{Fingerprint, category};

/// Events looked at for one page; a filter that meets fewer gives a short page.
const MOST_LOOKED_AT: usize = 8_192;
/// Events of an instance that its index may be behind.
const MOST_BEHIND: i64 = 65_536;

/// What leads to the events.
enum Lead {
    Term(Term),
    /// Event types, by number.
    Types(Vec<i32>),
}

pub(super) fn event_page(
    connection: &mut Db<'_>,
    memory: &mut Memory,
    query: &EventQuery,
    from: Option<EventKey>,
) -> QueryResult<EventPage> {
    let types = types(connection)?;
    let Some(filter) = Filter::of(query) else {
        // A fingerprint that is none.
        return Ok(EventPage {
            events: Vec::new(),
            next_cursor: None,
        });
    };
    let lead = match filter.term() {
        Some(term) => {
            refresh(connection, memory)?;
            Lead::Term(term)
        }
        None => Lead::Types(match filter.event_type {
            Some(code) => vec![code],
            None => types.keys().copied().collect(),
        }),
    };
    let mut before = match from {
        Some(key) => Spot {
            at: key.at,
            n: number_of(connection, key.instance)?,
            seq: key.seq,
        },
        None => Spot::END,
    };
    if let Some(until) = query.until {
        // An event may stand later in the order than it was seen: those before it came late.
        let late = instances::table.select(max(instances::late));
        let late = on!(connection, late.first::<Option<i64>>(connection))?.unwrap_or(0);
        let at = until.0.div_euclid(1000).saturating_add(late.max(0)).saturating_add(1);
        before = before.min(Spot { at, n: 0, seq: 0 });
    }
    let since = query.since.map_or(i64::MIN, |since| since.0.div_euclid(1000));
    let mut found: Vec<Rows> = Vec::new();
    let mut looked_at = 0;
    let mut more = true;
    while more && found.len() <= query.limit && looked_at < MOST_LOOKED_AT {
        let wanted = match looked_at {
            // What the lead gives is mostly what is asked for.
            0 => query.limit + 1,
            _ => 512,
        };
        let mut spots = match &lead {
            Lead::Term(term) => by_term(connection, memory, *term, before, wanted)?,
            Lead::Types(types) => by_types(connection, types, before, wanted)?,
        };
        more = spots.len() >= wanted;
        let all = spots.len();
        spots.retain(|spot| spot.at >= since);
        more &= spots.len() == all;
        let Some(last) = spots.last() else { break };
        before = *last;
        looked_at += spots.len();
        let rows = stored::rows(connection, memory, &spots)?;
        found.extend(rows.into_iter().filter(|rows| filter.takes(rows, &memory.catalog)));
    }
    let cut = found.len() > query.limit;
    found.truncate(query.limit);
    let last = match cut {
        // The last one that is shown.
        true => found.last().map(|rows| Spot {
            at: rows.event.at,
            n: rows.event.n,
            seq: rows.event.seq,
        }),
        // The last one that was looked at.
        false => more.then_some(before),
    };
    let next_cursor = match last {
        Some(spot) => Some(
            EventKey {
                at: spot.at,
                instance: instance_of(connection, spot.n)?,
                seq: spot.seq,
            }
            .to_string(),
        ),
        None => None,
    };
    Ok(EventPage {
        next_cursor,
        events: stored::stored(connection, memory, found, &types)?,
    })
}

/// Names of the event types in the file.
pub(super) fn types(connection: &mut Db<'_>) -> QueryResult<HashMap<i32, String>> {
    let rows = on!(
        connection,
        event_counts::table
            .select((event_counts::event_type, event_counts::name))
            .distinct()
            .limit(10_000)
            .load(connection)
    )?;
    Ok(rows.into_iter().collect())
}

/// The number that stands for an instance; 0, which is before all, if there is none.
pub(super) fn number_of(connection: &mut Db<'_>, instance: i64) -> QueryResult<i64> {
    let found = on!(
        connection,
        instances::table
            .filter(instances::instance.eq(instance))
            .select(instances::n)
            .get_result(connection)
    );
    Ok(found.optional()?.unwrap_or(0))
}

pub(super) fn instance_of(connection: &mut Db<'_>, n: i64) -> QueryResult<i64> {
    on!(
        connection,
        instances::table
            .find(n)
            .select(instances::instance)
            .get_result(connection)
    )
}

/// What a question asks of an event, in the form of its rows.
struct Filter<'q> {
    query: &'q EventQuery,
    event_type: Option<i32>,
    request_id: Option<Vec<u8>>,
    owner: Option<Vec<u8>>,
    fingerprint: Option<[u8; 32]>,
    category: Option<String>,
}

impl<'q> Filter<'q> {
    fn of(query: &'q EventQuery) -> Option<Self> {
        Some(Filter {
            query,
            event_type: query.event_type.as_deref().map(schema::type_code),
            request_id: query.request_id.as_deref().map(pack::pack_text),
            owner: query.owner.as_deref().map(pack::pack_text),
            fingerprint: match &query.fingerprint {
                Some(text) => Some(Fingerprint::parse(text)?.0),
                None => None,
            },
            category: query
                .category
                .as_deref()
                .map(|category| category::canonical(category).into_owned()),
        })
    }

    /// The one that the fewest events have.
    fn term(&self) -> Option<Term> {
        let fingerprint = self
            .fingerprint
            .as_ref()
            .map(|fingerprint| Term::fingerprint(fingerprint));
        fingerprint
            .or(self.request_id.as_deref().map(Term::request))
            .or(self.owner.as_deref().map(Term::owner))
            .or(self.query.recipient.as_deref().map(Term::recipient))
            .or(self.category.as_deref().map(Term::category))
    }

    fn takes(&self, rows: &Rows, catalog: &Catalog) -> bool {
        let event = &rows.event;
        let created_at = event.created_at();
        let tags = |has: &dyn Fn(&PackedTag<'_>) -> bool| rows.each().any(|row| row.tags().any(|tag| has(&tag)));
        self.event_type.is_none_or(|code| event.event_type == code)
            && self.query.since.is_none_or(|since| created_at >= since.0)
            && self.query.until.is_none_or(|until| created_at < until.0)
            && self.request_id.is_none_or_same(&event.request_id)
            && self
                .query
                .recipient
                .as_deref()
                .is_none_or(|recipient| event.recipient(catalog) == Some(recipient))
            && self.owner.as_ref().is_none_or(|owner| {
                let is = |packed: &Option<Vec<u8>>| packed.as_ref() == Some(owner);
                rows.each().any(|row| is(&row.owner) || is(&row.user_id))
                    || tags(&|tag| matches!(tag, PackedTag::Tag { owner: Some(of), .. } if **of == **owner))
            })
            && self.fingerprint.is_none_or(|fingerprint| {
                tags(&|tag| matches!(tag, PackedTag::Tag { fingerprint: Some(of), .. } if **of == fingerprint))
            })
            && self.category.as_deref().is_none_or(|category| {
                tags(&|tag| {
                    let PackedTag::Tag { kind, .. } = tag else { return false };
                    let kind = catalog.get(event.n, kind.cast_signed()).and_then(|text| text.kind());
                    kind.is_some_and(|kind| &*kind.canonical == category)
                })
            })
    }
}

trait NoneOrSame {
    fn is_none_or_same(&self, other: &Self) -> bool;
}

impl NoneOrSame for Option<Vec<u8>> {
    fn is_none_or_same(&self, other: &Self) -> bool {
        self.is_none() || self == other
    }
}

/// Spots of a term before one, newest first.
pub(super) fn by_term(
    connection: &mut Db<'_>,
    memory: &Memory,
    term: Term,
    before: Spot,
    limit: usize,
) -> QueryResult<Vec<Spot>> {
    let mut spots: BTreeSet<Spot> = connection.find(term, before, limit)?.into_iter().collect();
    let first = Spot {
        at: i64::MIN,
        n: i64::MIN,
        seq: i64::MIN,
    };
    for tail in memory.tails.values() {
        let recent = tail.postings.range((term, first)..(term, before)).rev();
        spots.extend(recent.take(limit).map(|(_, spot)| *spot));
    }
    Ok(spots.into_iter().rev().take(limit).collect())
}

fn by_types(connection: &mut Db<'_>, types: &[i32], before: Spot, limit: usize) -> QueryResult<Vec<Spot>> {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = BigInt)]
        at: i64,
        #[diesel(sql_type = BigInt)]
        n: i64,
        #[diesel(sql_type = BigInt)]
        seq: i64,
    }
    let mut spots = Vec::new();
    for event_type in types {
        let rows = statement!(
            "SELECT at, n, seq FROM events WHERE outcome_of IS NULL AND event_type = ? AND (at, n, seq) < (?, ?, ?) \
             ORDER BY at DESC, n DESC, seq DESC LIMIT ?",
            *event_type,
            before.at,
            before.n,
            before.seq,
            i64::try_from(limit).unwrap_or(i64::MAX)
        );
        let rows: Vec<Row> = on!(connection, rows.load(connection))?;
        spots.extend(rows.into_iter().map(|Row { at, n, seq }| Spot { at, n, seq }));
    }
    spots.sort_unstable_by(|a, b| b.cmp(a));
    spots.truncate(limit);
    Ok(spots)
}

/// Takes in what the file's own index does not have yet.
pub(super) fn refresh(connection: &mut Db<'_>, memory: &mut Memory) -> QueryResult<()> {
    let live = match connection {
        Db::Sqlite(connection) => instances::table
            .filter(instances::ended_at.is_null())
            .select((instances::n, instances::indexed))
            .load::<(i64, i64)>(*connection)?,
        #[cfg(feature = "postgres-store")]
        Db::Postgres(connection) => super::postgres::behind(connection)?,
    };
    memory.tails.retain(|n, _| live.iter().any(|(live, _)| live == n));
    for (n, indexed) in live {
        let tail = memory.tails.entry(n).or_default();
        if tail.from != indexed {
            *tail = Tail::default();
            tail.from = indexed;
            tail.upto = indexed;
        }
        while tail.upto.saturating_sub(tail.from) < MOST_BEHIND {
            let digest = index::digest(connection, &mut memory.catalog, n, tail.upto, index::ROUND)?;
            if digest.upto == 0 {
                break;
            }
            tail.add(digest);
        }
    }
    Ok(())
}

impl Tail {
    fn add(&mut self, digest: Digest) {
        self.upto = digest.upto;
        self.postings.extend(digest.postings);
        for (key, new) in digest.sights {
            self.sights.entry(key).and_modify(|s| s.join(&new)).or_insert(new);
        }
        for (flow, events) in digest.flows {
            *self.flows.entry(flow).or_default() += events;
        }
    }
}
