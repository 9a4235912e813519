//! The writer of an instance whose evidence is in PostgreSQL.
//!
//! A batch is one transaction under the key (n, batch_no). Where a connection is cut while it commits, the next
//! attempt looks on a new one whether the batch is there; and if the server is not through with it by then, the
//! keys refuse the same rows for a second time.

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Binary, Integer};

use super::copy::{copy, copy_of};
use super::{START_MILLIS, STATEMENT_MILLIS, Server, event_terms};
use crate::Error;
use crate::key::Keys;
use crate::store::batch::{KnownValues, Place, Prepared};
use crate::store::chain::{self, Hash};
use crate::store::db::Db;
use crate::store::index::{self, Digest};
use crate::store::schema::{batches, event_counts, events, fingerprints, instances, keys, owner_links, replays};
use crate::store::statement::{Column, statement};
use crate::store::texts::{Catalog, Texts};
use crate::store::write::{
    Head, Instance, InstanceRow, Learned, Record, Refusal, Restored, SpillMark, StoredValue, check_key, kinds, owners,
    take_in,
};
use crate::vocabulary::Timestamp;

/// An event's last place in the index of an instance that is gone must be older than this to be taken over.
const GONE_MILLIS: i64 = 600_000;

/// The connection that writes.
pub(crate) struct Writer {
    server: Server,
    /// `None` after a failure, until the next attempt.
    connection: Option<PgConnection>,
    place: Place,
    texts: Texts,
    known: KnownValues,
    learned: Learned,
    next_batch: i64,
    chain: Hash,
    /// The last attempt failed in a way that may have left its batch there.
    uncertain: bool,
    catalog: Catalog,
    /// Events that the index does not know of.
    pending: i64,
    /// What others left of the index was looked at.
    adopted: bool,
}

impl Writer {
    /// Makes the tables where there are none, checks the key, and registers the instance.
    ///
    /// # Errors
    /// Not to be reached, newer version, other key: the database is left as it is.
    pub(crate) fn open(server: &Server, master: &Keys, instance: &Instance) -> Result<Self, Error> {
        let failed = |e| server.failed(&e);
        let mut connection = server.connect()?;
        let patience = |millis: u32| format!("SET statement_timeout = {millis}");
        connection.batch_execute(&patience(START_MILLIS)).map_err(failed)?;
        super::lay_out(&mut connection).map_err(failed)?;
        let row = InstanceRow::of(instance, master);
        let registered = connection.transaction(|connection| {
            let layout = super::layout(connection, true)?;
            server.newer(layout.version)?;
            super::migrate(connection, layout.version)?;
            let known: Vec<(String, Vec<u8>)> =
                keys::table.select((keys::key_id, keys::check_value)).load(connection)?;
            check_key(&server.shown, &known, master)?;
            if known.is_empty() {
                diesel::insert_into(keys::table)
                    .values((
                        keys::key_id.eq(&master.id),
                        keys::epoch.eq(i64::from(master.epoch)),
                        keys::check_value.eq(master.check.to_vec()),
                        keys::created_at.eq(Timestamp::now().0),
                    ))
                    .execute(connection)?;
            }
            let n = layout.instances.saturating_add(1);
            statement!("UPDATE layout SET instances = ? WHERE id = 1", n).execute(connection)?;
            diesel::insert_into(instances::table)
                .values((instances::n.eq(n), &row))
                .execute(connection)?;
            Ok(n)
        });
        let n = registered.map_err(|refusal| match refusal {
            Refusal::Ours(error) => error,
            Refusal::Database(error) => failed(error),
        })?;
        connection.batch_execute(&patience(STATEMENT_MILLIS)).map_err(failed)?;
        Ok(Writer {
            server: server.clone(),
            connection: Some(connection),
            chain: chain::head(&row.parts()),
            place: Place {
                instance: row.instance,
                n,
                next_seq: 1,
                next_value: 1,
                at: 0,
                late: 0,
            },
            texts: Texts::default(),
            known: KnownValues::new(),
            learned: Learned::default(),
            next_batch: 1,
            uncertain: false,
            catalog: Catalog::default(),
            pending: 0,
            adopted: false,
        })
    }

    /// As for a file.
    pub(crate) fn restore(&mut self, max_values: usize) -> Result<Restored, Error> {
        let known = &mut self.known;
        on_server(&self.server, &mut self.connection, |connection| {
            // A start may have a million values to read.
            connection.batch_execute("SET statement_timeout = 0")?;
            let kinds = kinds(&mut Db::Postgres(connection))?;
            let most = i64::try_from(max_values.saturating_mul(4)).unwrap_or(i64::MAX);
            let rows = fingerprints::table
                .order(fingerprints::created_at.desc())
                .limit(most)
                .select(StoredValue::as_select())
                .load_iter::<StoredValue, diesel::pg::PgRowByRowLoadingMode>(connection)?;
            let values = take_in(rows, &kinds, known, max_values)?;
            let links: Vec<(String, String)> = owner_links::table
                .select((owner_links::a, owner_links::b))
                .load(connection)?;
            connection.batch_execute(&format!("SET statement_timeout = {STATEMENT_MILLIS}"))?;
            Ok(Restored {
                values,
                links: owners(&links),
            })
        })
    }

    /// As for a file: all of it or nothing, and once. A server that is away is an error; the next call
    /// connects again.
    pub(crate) fn append(&mut self, batch: &[Record], mark: Option<SpillMark>) -> Result<(), Error> {
        self.known.extend(self.learned.take());
        let prepared = Prepared::new(&self.place, &mut self.texts, &self.known, batch)?;
        let (place, texts, batch_no, before) = (&self.place, &self.texts, self.next_batch, self.chain);
        let uncertain = std::mem::replace(&mut self.uncertain, true);
        let chain = on_server(&self.server, &mut self.connection, |connection| {
            if uncertain && let Some(chain) = landed(connection, batch_no, place, &prepared)? {
                return Ok(chain.unwrap_or(before));
            }
            write(connection, place, batch_no, &before, &prepared, texts, mark)
        })?;
        self.uncertain = false;
        let (events, at, late) = (prepared.count(), prepared.at, prepared.late);
        for (key, value) in prepared.value_keys.iter().zip(&prepared.values) {
            self.known.insert(*key, (value.n, value.id));
        }
        let values = i64::try_from(prepared.values.len()).unwrap_or(i64::MAX);
        for (ticket, seq) in prepared.tickets {
            ticket.assign(seq.unsigned_abs());
        }
        self.texts.unsaved.clear();
        self.place.next_value += values;
        (self.place.at, self.place.late) = (at, late);
        if events > 0 {
            self.chain = chain;
            self.next_batch += 1;
            self.place.next_seq += events;
            self.pending += events;
        }
        Ok(())
    }

    /// As for a file: brings the index up to date. `true` if there is more.
    pub(crate) fn maintain(&mut self, idle: bool) -> Result<bool, Error> {
        let due = self.pending >= index::ROUND || idle && self.pending > 0;
        if !due && self.adopted {
            return Ok(false);
        }
        let (adopted, n) = (self.adopted, self.place.n);
        let (catalog, known) = (&mut self.catalog, &self.known);
        let more = on_server(&self.server, &mut self.connection, |connection| {
            if !adopted {
                for left in left_behind(connection, n)? {
                    while round(connection, catalog, known, left)? {}
                }
            }
            Ok(due && round(connection, catalog, known, n)?)
        })?;
        self.adopted = true;
        if due && !more {
            self.pending = 0;
        }
        Ok(more)
    }

    /// As for a file.
    pub(crate) fn is_behind(&self) -> bool {
        self.pending > 0 || !self.adopted
    }

    /// As for a file.
    pub(crate) fn replayed(&mut self, id: &[u8; 16]) -> Result<u64, Error> {
        let found = on_server(&self.server, &mut self.connection, |connection| {
            replays::table
                .find(id.as_slice())
                .select(replays::offset)
                .get_result::<i64>(connection)
                .optional()
        })?;
        Ok(found.and_then(|offset| u64::try_from(offset).ok()).unwrap_or(0))
    }

    /// As for a file.
    pub(crate) fn head(&self) -> Head {
        Head {
            instance: self.place.instance,
            batch_no: self.next_batch - 1,
            seq: self.place.next_seq - 1,
            chain: self.chain,
        }
    }

    /// As for a file.
    pub(crate) fn end(&mut self) -> Result<(), Error> {
        while self.pending > 0 {
            self.maintain(true)?;
        }
        let n = self.place.n;
        on_server(&self.server, &mut self.connection, |connection| {
            diesel::update(instances::table.find(n))
                .set(instances::ended_at.eq(Timestamp::now().0))
                .execute(connection)
                .map(drop)
        })
    }

    /// The number of the instance, and where it is told which values others have stored.
    pub(crate) fn learns(&self) -> (i64, Learned) {
        (self.place.n, self.learned.clone())
    }
}

/// Does something on the connection, which is made first if there is none; one that failed is given up, and
/// the server with it undoes what was not committed.
fn on_server<T>(
    server: &Server,
    slot: &mut Option<PgConnection>,
    work: impl FnOnce(&mut PgConnection) -> QueryResult<T>,
) -> Result<T, Error> {
    let mut connection = match slot.take() {
        Some(connection) => connection,
        None => server.connect()?,
    };
    let done = work(&mut connection).map_err(|e| server.failed(&e))?;
    *slot = Some(connection);
    Ok(done)
}

/// Whether a batch whose commit seemed to fail is there after all; with the chain that it was written with.
fn landed(
    connection: &mut PgConnection,
    batch_no: i64,
    place: &Place,
    prepared: &Prepared<'_>,
) -> QueryResult<Option<Option<Hash>>> {
    if prepared.events.is_empty() {
        // Texts, links and counts may come twice; values have numbers.
        let Some(first) = prepared.values.first() else {
            return Ok(None);
        };
        let found = fingerprints::table
            .find((first.n, first.id))
            .select(fingerprints::id)
            .get_result::<i64>(connection)
            .optional()?;
        return Ok(found.map(|_| None));
    }
    let found = batches::table
        .find((place.n, batch_no))
        .select((batches::first_seq, batches::events, batches::chain))
        .get_result::<(i64, i64, Vec<u8>)>(connection)
        .optional()?;
    Ok(match found {
        Some((first_seq, events, chain)) if first_seq == place.next_seq && events == prepared.count() => {
            Some(chain.try_into().ok())
        }
        _ => None,
    })
}

/// Writes everything in one transaction; gives the new chain.
fn write(
    connection: &mut PgConnection,
    place: &Place,
    batch_no: i64,
    before: &Hash,
    prepared: &Prepared<'_>,
    texts: &Texts,
    mark: Option<SpillMark>,
) -> QueryResult<Hash> {
    let root = chain::root(&prepared.leaves);
    let chain = match prepared.events.is_empty() {
        true => *before,
        false => chain::link(before, batch_no, place.next_seq, prepared.count(), &root),
    };
    connection.batch_execute("BEGIN")?;
    if !texts.unsaved.is_empty() {
        let (ids, bytes): (Vec<i32>, Vec<&[u8]>) = texts
            .unsaved
            .iter()
            .map(|(id, text)| (id.cast_signed(), text.as_bytes()))
            .unzip();
        diesel::sql_query(
            "INSERT INTO texts (n, id, text) SELECT $1, id, text FROM unnest($2, $3) AS t (id, text) \
             ON CONFLICT DO NOTHING",
        )
        .bind::<BigInt, _>(place.n)
        .bind::<Array<Integer>, _>(ids)
        .bind::<Array<Binary>, _>(bytes)
        .execute(connection)?;
    }
    if prepared.late > place.late {
        statement!("UPDATE instances SET late = ? WHERE n = ?", prepared.late, place.n).execute(connection)?;
    }
    copy(events::table, &prepared.events, connection)?;
    copy(fingerprints::table, &prepared.values, connection)?;
    for (&event_type, &(name, count)) in &prepared.counts {
        diesel::insert_into(event_counts::table)
            .values((
                event_counts::n.eq(place.n),
                event_counts::event_type.eq(event_type),
                event_counts::name.eq(name),
                event_counts::events.eq(count),
            ))
            .on_conflict((event_counts::n, event_counts::event_type))
            .do_update()
            .set(event_counts::events.eq(event_counts::events + count))
            .execute(connection)?;
    }
    for (a, b) in &prepared.links {
        // PostgreSQL's texts have no U+0000; only owners kept in clear could.
        if !a.as_str().contains('\0') && !b.as_str().contains('\0') {
            diesel::insert_into(owner_links::table)
                .values((
                    owner_links::a.eq(a.as_str()),
                    owner_links::b.eq(b.as_str()),
                    owner_links::created_at.eq(Timestamp::now().0),
                ))
                .on_conflict_do_nothing()
                .execute(connection)?;
        }
    }
    if !prepared.events.is_empty() {
        statement!(
            "INSERT INTO batches (n, batch_no, first_seq, events, root, chain) VALUES (?, ?, ?, ?, ?, ?)",
            place.n,
            batch_no,
            place.next_seq,
            prepared.count(),
            root.as_slice(),
            chain.as_slice()
        )
        .execute(connection)?;
    }
    if let Some(mark) = mark {
        statement!(
            "INSERT INTO replays (spill, \"offset\") VALUES (?, ?) \
             ON CONFLICT (spill) DO UPDATE SET \"offset\" = excluded.\"offset\"",
            mark.id.as_slice(),
            i64::try_from(mark.offset).unwrap_or(i64::MAX)
        )
        .execute(connection)?;
    }
    connection.batch_execute("COMMIT")?;
    Ok(chain)
}

/// Instances that are gone and have left events that the index does not know of.
fn left_behind(connection: &mut PgConnection, n: i64) -> QueryResult<Vec<i64>> {
    #[derive(QueryableByName)]
    struct Left {
        #[diesel(sql_type = BigInt)]
        n: i64,
    }
    let before = Timestamp::now().0.div_euclid(1000).saturating_sub(GONE_MILLIS);
    // Whoever lives does its own within seconds.
    let left: Vec<Left> = statement!(
        "SELECT n FROM instances i WHERE n <> ? AND \
         (SELECT e.at FROM events e WHERE e.n = i.n AND e.seq > i.indexed ORDER BY e.seq LIMIT 1) < ? ORDER BY n",
        n,
        before
    )
    .load(connection)?;
    Ok(left.into_iter().map(|row| row.n).collect())
}

/// One round of the index for an instance. `true` if there may be more.
fn round(connection: &mut PgConnection, catalog: &mut Catalog, known: &KnownValues, n: i64) -> QueryResult<bool> {
    connection.transaction(|connection| {
        let indexed = instances::table
            .find(n)
            .select(instances::indexed)
            .for_update()
            .get_result::<i64>(connection)?;
        let digest = index::digest(&mut Db::Postgres(connection), catalog, n, indexed, index::ROUND)?;
        if digest.upto == 0 {
            return Ok(false);
        }
        let upto = digest.upto;
        put(connection, digest, indexed, known)?;
        diesel::update(instances::table.find(n))
            .set(instances::indexed.eq(upto))
            .execute(connection)?;
        Ok(upto.saturating_sub(indexed) >= index::ROUND)
    })
}

fn put(connection: &mut PgConnection, digest: Digest, indexed: i64, known: &KnownValues) -> QueryResult<()> {
    let mut entries: Vec<[i64; 4]> = digest
        .postings
        .iter()
        .map(|(term, spot)| [term.number(), spot.at, spot.n, spot.seq])
        .collect();
    entries.sort_unstable();
    entries.dedup();
    // What came with an outcome stands at its share, which an earlier round may have put there already.
    let (new, late): (Vec<_>, Vec<_>) = entries.into_iter().partition(|[.., seq]| *seq > indexed);
    copy_of(
        event_terms::table,
        &new,
        |entry, put| entry.iter().try_for_each(|value| put(Column::Big(value))),
        connection,
    )?;
    if !late.is_empty() {
        let column = |at: usize| {
            late.iter()
                .filter_map(|entry| entry.get(at).copied())
                .collect::<Vec<i64>>()
        };
        diesel::sql_query(
            "INSERT INTO event_terms (term, at, n, seq) SELECT * FROM unnest($1, $2, $3, $4) ON CONFLICT DO NOTHING",
        )
        .bind::<Array<BigInt>, _>(column(0))
        .bind::<Array<BigInt>, _>(column(1))
        .bind::<Array<BigInt>, _>(column(2))
        .bind::<Array<BigInt>, _>(column(3))
        .execute(connection)?;
    }
    // In the order of their keys: instances that meet at a value wait for each other, and never in a ring.
    let mut sights: Vec<_> = digest
        .sights
        .into_iter()
        .filter_map(|(key, sight)| Some((*known.get(&key)?, sight)))
        .collect();
    sights.sort_unstable_by_key(|(id, _)| *id);
    sights.dedup_by(|(id, more), (before, sight)| {
        let same = id == before;
        if same {
            sight.events += more.events;
            sight.last_at = sight.last_at.max(more.last_at);
        }
        same
    });
    if !sights.is_empty() {
        diesel::sql_query(
            "INSERT INTO sights AS s (n, id, first_n, first_seq, last_at, events) \
             SELECT * FROM unnest($1, $2, $3, $4, $5, $6) ON CONFLICT (n, id) DO UPDATE \
             SET events = s.events + excluded.events, last_at = greatest(s.last_at, excluded.last_at)",
        )
        .bind::<Array<BigInt>, _>(sights.iter().map(|((n, _), _)| *n).collect::<Vec<_>>())
        .bind::<Array<BigInt>, _>(sights.iter().map(|((_, id), _)| *id).collect::<Vec<_>>())
        .bind::<Array<BigInt>, _>(sights.iter().map(|(_, sight)| sight.first.0).collect::<Vec<_>>())
        .bind::<Array<BigInt>, _>(sights.iter().map(|(_, sight)| sight.first.1).collect::<Vec<_>>())
        .bind::<Array<BigInt>, _>(sights.iter().map(|(_, sight)| sight.last_at).collect::<Vec<_>>())
        .bind::<Array<BigInt>, _>(sights.iter().map(|(_, sight)| sight.events).collect::<Vec<_>>())
        .execute(connection)?;
    }
    let flows: Vec<_> = digest.flows.into_iter().collect();
    if !flows.is_empty() {
        let column = |of: fn(&index::FlowIds) -> i32| flows.iter().map(|(flow, _)| of(flow)).collect::<Vec<i32>>();
        diesel::sql_query(
            "INSERT INTO flows AS f (n, day, event_type, actor, target, recipient, tag, events) \
             SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8) \
             ON CONFLICT (n, day, event_type, actor, target, recipient, tag) DO UPDATE \
             SET events = f.events + excluded.events",
        )
        .bind::<Array<BigInt>, _>(flows.iter().map(|(flow, _)| flow.n).collect::<Vec<_>>())
        .bind::<Array<Integer>, _>(column(|flow| flow.day))
        .bind::<Array<Integer>, _>(column(|flow| flow.event_type))
        .bind::<Array<Integer>, _>(column(|flow| flow.actor))
        .bind::<Array<Integer>, _>(column(|flow| flow.target))
        .bind::<Array<Integer>, _>(column(|flow| flow.recipient))
        .bind::<Array<Integer>, _>(column(|flow| flow.tag))
        .bind::<Array<BigInt>, _>(flows.iter().map(|(_, events)| *events).collect::<Vec<_>>())
        .execute(connection)?;
    }
    Ok(())
}
