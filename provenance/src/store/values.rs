//! Pages of fingerprints, sums of flows, and who is known under which identifiers.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use diesel::prelude::*;

use super::batch::value_key;
use super::db::{Db, on};
use super::index::{FlowIds, Sight, day};
use super::pack;
use super::pages::{instance_of, number_of, refresh, types};
use super::read::{EventKey, FingerprintPage, FingerprintQuery, Flow, FlowKey, FlowQuery, Memory, StoredFingerprint};
use super::schema::{self, fingerprints, flows, instances, owner_links, sights};
use super::stored::event_id;
use crate::hex::hex;
use crate::vocabulary::{Timestamp, category};

#[derive(Queryable, Selectable)]
#[diesel(table_name = fingerprints)]
struct Row {
    n: i64,
    id: i64,
    fingerprint: Vec<u8>,
    tag: i32,
    owner: Option<Vec<u8>>,
    created_at: i64,
}

/// Begins a cursor of this listing: one of another is no place here.
pub(super) const FINGERPRINTS: char = 'f';

pub(super) fn fingerprint_page(
    connection: &mut Db<'_>,
    memory: &mut Memory,
    query: &FingerprintQuery,
    from: Option<EventKey>,
) -> QueryResult<FingerprintPage> {
    refresh(connection, memory)?;
    let from = match from {
        Some(key) => Some((key, number_of(connection, key.instance)?)),
        None => None,
    };
    let mut rows: Vec<Row> = on!(connection, {
        let mut rows = fingerprints::table.select(Row::as_select()).into_boxed();
        if let Some(category) = &query.category {
            rows = rows.filter(fingerprints::category.eq(schema::category_code(&category::canonical(category))));
        }
        if let Some((key, n)) = from {
            let within = fingerprints::n
                .lt(n)
                .or(fingerprints::n.eq(n).and(fingerprints::id.lt(key.seq)));
            // `le` on the time alone gives the index its range.
            rows = rows
                .filter(fingerprints::created_at.le(key.at))
                .filter(fingerprints::created_at.lt(key.at).or(within));
        }
        rows.order((
            fingerprints::created_at.desc(),
            fingerprints::n.desc(),
            fingerprints::id.desc(),
        ))
        .limit(i64::try_from(query.limit).unwrap_or(i64::MAX).saturating_add(1))
        .load(connection)
    })?;
    let more = rows.len() > query.limit;
    rows.truncate(query.limit);
    let next_cursor = match rows.last().filter(|_| more) {
        Some(last) => {
            let key = EventKey {
                at: last.created_at,
                instance: instance_of(connection, last.n)?,
                seq: last.id,
            };
            Some(format!("{FINGERPRINTS}{key}"))
        }
        None => None,
    };
    memory
        .catalog
        .load(connection, rows.iter().map(|row| (row.n, row.tag)))?;
    let seen = seen(connection, &rows)?;
    let names = names(connection)?;
    let fingerprints = rows
        .iter()
        .map(|row| row.stored(memory, seen.get(&(row.n, row.id)), &names))
        .collect();
    Ok(FingerprintPage {
        fingerprints,
        next_cursor,
    })
}

/// What the file's own index says of these.
fn seen(connection: &mut Db<'_>, rows: &[Row]) -> QueryResult<HashMap<(i64, i64), Sight>> {
    let mut ids: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for row in rows {
        ids.entry(row.n).or_default().push(row.id);
    }
    let mut seen = HashMap::new();
    for (n, ids) in ids {
        for ids in ids.chunks(500) {
            let found = on!(
                connection,
                sights::table
                    .filter(sights::n.eq(n).and(sights::id.eq_any(ids)))
                    .select((
                        sights::id,
                        sights::first_at,
                        sights::first_n,
                        sights::first_seq,
                        sights::last_at,
                        sights::events,
                    ))
                    .load::<(i64, i64, i64, i64, i64, i64)>(connection)
            )?;
            for (id, first_at, first_n, first_seq, last_at, events) in found {
                let sight = Sight {
                    first: (first_at, first_n, first_seq),
                    last_at,
                    events,
                };
                seen.insert((n, id), sight);
            }
        }
    }
    Ok(seen)
}

/// Instances by their numbers.
fn names(connection: &mut Db<'_>) -> QueryResult<HashMap<i64, i64>> {
    let rows = on!(
        connection,
        instances::table
            .select((instances::n, instances::instance))
            .load(connection)
    )?;
    Ok(rows.into_iter().collect())
}

impl Row {
    fn stored(&self, memory: &Memory, seen: Option<&Sight>, names: &HashMap<i64, i64>) -> StoredFingerprint {
        let kind = memory.catalog.get(self.n, self.tag).and_then(|text| text.kind());
        let word = |word: Option<&std::sync::Arc<str>>| word.map_or_else(String::new, |word| word.as_ref().to_owned());
        let canonical = kind.map_or("", |kind| &*kind.canonical);
        let fingerprint = <[u8; 32]>::try_from(self.fingerprint.as_slice());
        let key = fingerprint.map(|fingerprint| value_key(&fingerprint, canonical, self.owner.as_deref()));
        let tails = memory.tails.values();
        let recent = tails.filter_map(|tail| tail.sights.get(key.as_ref().ok()?));
        let sight = seen.into_iter().chain(recent).copied().reduce(|mut all, sight| {
            all.join(&sight);
            all
        });
        StoredFingerprint {
            fingerprint: hex(&self.fingerprint),
            first_seen_event_id: sight.and_then(|s| Some(event_id(*names.get(&s.first.1)?, s.first.2))),
            first_seen_at: Timestamp(self.created_at),
            last_seen_at: Timestamp(sight.map_or(self.created_at, |s| s.last_at.max(self.created_at))),
            field: word(kind.map(|kind| &kind.field)),
            category: word(kind.map(|kind| &kind.category)),
            description: word(kind.map(|kind| &kind.description)),
            owner: self.owner.as_deref().and_then(pack::unpack_text),
            source: word(kind.map(|kind| &kind.source)),
            count: sight.map_or(0, |s| s.events),
        }
    }
}

pub(super) fn summed_flows(connection: &mut Db<'_>, memory: &mut Memory, query: &FlowQuery) -> QueryResult<Vec<Flow>> {
    refresh(connection, memory)?;
    let types = types(connection)?;
    let since = query.since.map_or(i32::MIN, |since| day(since.0));
    let until = query.until.map_or(i32::MAX, |until| day(until.0.saturating_sub(1)));
    let rows = on!(
        connection,
        flows::table
            .filter(flows::day.ge(since).and(flows::day.le(until)))
            .load::<(i64, i32, i32, i32, i32, i32, i32, i64)>(connection)
    )?;
    let stored = rows
        .into_iter()
        .map(|(n, day, event_type, actor, target, recipient, tag, events)| {
            let ids = FlowIds {
                n,
                day,
                event_type,
                actor,
                target,
                recipient,
                tag,
            };
            (ids, events)
        });
    let recent = memory.tails.values().flat_map(|tail| &tail.flows);
    let recent = recent
        .map(|(ids, events)| (*ids, *events))
        .filter(|(ids, _)| (since..=until).contains(&ids.day));
    let all: Vec<(FlowIds, i64)> = stored.chain(recent).collect();
    let named: BTreeSet<(i64, i32)> = all
        .iter()
        .flat_map(|(ids, _)| [ids.actor, ids.target, ids.recipient, ids.tag].map(|id| (ids.n, id)))
        .filter(|(_, id)| *id != 0)
        .collect();
    memory.catalog.load(connection, named)?;
    let mut sums: BTreeMap<FlowKey, i64> = BTreeMap::new();
    for (ids, events) in all {
        let text = |id: i32| memory.catalog.text(ids.n, id).map(|text| text.as_ref().to_owned());
        let Some(kind) = memory.catalog.get(ids.n, ids.tag).and_then(|text| text.kind()) else {
            continue;
        };
        let key = FlowKey {
            day: Timestamp(i64::from(ids.day).saturating_mul(86_400_000_000))
                .to_string()
                .chars()
                .take(10)
                .collect(),
            event_type: types.get(&ids.event_type).cloned().unwrap_or_default(),
            actor: text(ids.actor).unwrap_or_default(),
            target: text(ids.target),
            recipient: text(ids.recipient),
            category: kind.canonical.as_ref().to_owned(),
            field: kind.field.as_ref().to_owned(),
            source: kind.source.as_ref().to_owned(),
            pii: kind.pii,
        };
        let sum = sums.entry(key).or_default();
        *sum = sum.saturating_add(events);
    }
    Ok(sums.into_iter().map(|(key, events)| Flow { key, events }).collect())
}

/// All identifiers of one person.
pub(super) fn identifiers(connection: &mut Db<'_>, owner: &str) -> QueryResult<Vec<String>> {
    let mut known = BTreeSet::from([owner.to_owned()]);
    let mut new = vec![owner.to_owned()];
    while let Some(one) = new.pop() {
        let links = on!(
            connection,
            owner_links::table
                .filter(owner_links::a.eq(&one).or(owner_links::b.eq(&one)))
                .select((owner_links::a, owner_links::b))
                .load::<(String, String)>(connection)
        )?;
        for other in links.into_iter().flat_map(|(a, b)| [a, b]) {
            if known.insert(other.clone()) {
                new.push(other);
            }
        }
    }
    Ok(known.into_iter().collect())
}
