//! The writer of an instance whose evidence is in PostgreSQL.
//!
//! A batch is one transaction under the key (n, batch_no). Where a connection is cut while it commits, the next
//! attempt looks on a new one whether the batch is there; and if the server is not through with it by then, the
//! keys refuse the same rows for a second time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Integer};

use super::copy::copy;
use super::script::Script;
use super::{START_MILLIS, STATEMENT_MILLIS, Server, terms};
use crate::Error;
use crate::key::Keys;
use crate::store::batch::{KnownValues, Place, Prepared};
use crate::store::chain::{self, Hash};
use crate::store::db::Db;
use crate::store::index::{self, Digest};
use crate::store::load::{self, Restored};
use crate::store::rows::EventRow;
use crate::store::schema::{batches, events, fingerprints, instances, keys, replays};
use crate::store::statement::statement;
use crate::store::texts::{Catalog, Texts};
use crate::store::write::{Forgotten, Head, Instance, InstanceRow, Learned, Record, Refusal, SpillMark, check_key};
use crate::vocabulary::Timestamp;

/// Events of one round of the index, under load: values and people that come again share what a round does for them.
const ROUND: i64 = 2 * index::ROUND;
/// Values of a batch that need no COPY of their own.
const FEW: usize = 200;
/// How long the index may be behind: those who ask take in what it does not have.
const AGE: Duration = Duration::from_secs(2);
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
    forgotten: Arc<Forgotten>,
    next_batch: i64,
    chain: Hash,
    /// The last attempt failed in a way that may have left its batch there.
    uncertain: bool,
    catalog: Catalog,
    /// Events that the index does not know of.
    pending: i64,
    /// Their rows, unless they have become too many.
    fresh: Vec<EventRow>,
    indexed_at: Instant,
    /// How often others had changed events of this instance when the index was brought up to date.
    changed: i64,
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
            known: KnownValues::default(),
            learned: Learned::default(),
            forgotten: Arc::default(),
            next_batch: 1,
            uncertain: false,
            catalog: Catalog::default(),
            pending: 0,
            fresh: Vec::new(),
            indexed_at: Instant::now(),
            changed: 0,
            adopted: false,
        })
    }

    /// As for a file.
    pub(crate) fn forgotten(&self) -> Arc<Forgotten> {
        self.forgotten.clone()
    }

    /// As for a file.
    pub(crate) fn restore(&mut self, max_values: usize) -> Result<Restored, Error> {
        let known = &mut self.known;
        on_server(&self.server, &mut self.connection, |connection| {
            // A start may have a million values to read.
            connection.batch_execute("SET statement_timeout = 0")?;
            let restored = load::server(connection, known, max_values)?;
            connection.batch_execute(&format!("SET statement_timeout = {STATEMENT_MILLIS}"))?;
            Ok(restored)
        })
    }

    /// As for a file: all of it or nothing, and once. A server that is away is an error; the next call
    /// connects again.
    pub(crate) fn append(&mut self, batch: &[Record], mark: Option<SpillMark>) -> Result<(), Error> {
        self.known.extend(self.learned.take());
        self.forgotten.apply(&mut self.known, self.place.n);
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
        let numbered = prepared.numbered();
        for (ticket, seq) in prepared.tickets {
            ticket.assign(seq.unsigned_abs());
        }
        let rows = prepared.events;
        self.texts.unsaved.clear();
        self.place.next_value += numbered;
        (self.place.at, self.place.late) = (at, late);
        if events > 0 {
            self.chain = chain;
            self.next_batch += 1;
            self.place.next_seq += events;
            self.pending += events;
            // Rows in memory follow each other: with a gap they are read again.
            if self.pending <= 2 * ROUND {
                self.fresh.extend(rows);
            } else {
                self.fresh.clear();
            }
        }
        Ok(())
    }

    /// As for a file: brings the index up to date. `true` if there is more.
    pub(crate) fn maintain(&mut self, idle: bool) -> Result<bool, Error> {
        let late = idle || self.pending >= ROUND || self.indexed_at.elapsed() >= AGE;
        let due = late && self.pending > 0;
        if !due && self.adopted {
            return Ok(false);
        }
        let (adopted, n) = (self.adopted, self.place.n);
        let (catalog, known) = (&mut self.catalog, &self.known);
        let fresh = if due {
            std::mem::take(&mut self.fresh)
        } else {
            Vec::new()
        };
        let changed = &mut self.changed;
        let more = on_server(&self.server, &mut self.connection, |connection| {
            if !adopted {
                for left in left_behind(connection, n)? {
                    while round(connection, catalog, known, left, &[], &mut 0)? {}
                }
            }
            Ok(due && round(connection, catalog, known, n, &fresh, changed)?)
        })?;
        self.adopted = true;
        if due && !more {
            self.pending = 0;
            self.indexed_at = Instant::now();
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
    let (n, mut script) = (place.n, Script::default());
    script.say("BEGIN");
    if !texts.unsaved.is_empty() {
        script
            .say("; INSERT INTO texts (n, id, text) VALUES")
            .rows(&texts.unsaved, |row, (id, text)| {
                row.number(n).number(id.cast_signed().into()).bytes(text.as_bytes());
            })
            .say(" ON CONFLICT DO NOTHING");
    }
    if prepared.late > place.late {
        script
            .say("; UPDATE instances AS i SET late = v.late FROM (VALUES")
            .rows([prepared.late], |row, late| {
                row.number(n).number(late);
            })
            .say(") AS v (n, late) WHERE i.n = v.n");
    }
    connection.batch_execute(script.sql())?;
    copy(events::table, &prepared.events, connection)?;
    let mut script = Script::default();
    if prepared.values.len() > FEW {
        copy(fingerprints::table, &prepared.values, connection)?;
    } else if !prepared.values.is_empty() {
        script
            .say(
                "INSERT INTO fingerprints (n, id, fingerprint, tag, category, owner, kind, entry, created_at) \
                 VALUES",
            )
            .rows_of(&prepared.values)?
            .say(";");
    }
    if !prepared.counts.is_empty() {
        script
            .say("INSERT INTO event_counts AS c (n, event_type, name, events) VALUES")
            .rows(&prepared.counts, |row, (event_type, (name, count))| {
                row.number(n).number((*event_type).into()).text(name).number(*count);
            })
            .say(" ON CONFLICT (n, event_type) DO UPDATE SET events = c.events + excluded.events;");
    }
    // PostgreSQL's texts have no U+0000; only owners kept in clear could.
    let links = prepared
        .link_rows()
        .filter(|link| !link.a.contains('\0') && !link.b.contains('\0'));
    let links: Vec<_> = links.collect();
    if !links.is_empty() {
        script
            .say("INSERT INTO owner_links (a, b, created_at, n, id) VALUES")
            .rows(&links, |row, link| {
                row.text(link.a)
                    .text(link.b)
                    .number(link.created_at)
                    .number(link.n)
                    .number(link.id);
            })
            .say(" ON CONFLICT DO NOTHING;");
    }
    if !prepared.events.is_empty() {
        script
            .say("INSERT INTO batches (n, batch_no, first_seq, events, root, chain) VALUES")
            .rows([()], |row, ()| {
                let row = row.number(n).number(batch_no).number(place.next_seq);
                row.number(prepared.count()).bytes(&root).bytes(&chain);
            })
            .say(";");
    }
    if let Some(mark) = mark {
        script
            .say("INSERT INTO replays (spill, \"offset\") VALUES")
            .rows([mark], |row, mark| {
                let offset = i64::try_from(mark.offset).unwrap_or(i64::MAX);
                row.bytes(&mark.id).number(offset);
            })
            .say(" ON CONFLICT (spill) DO UPDATE SET \"offset\" = excluded.\"offset\";");
    }
    // The last of one message: without an answer to it nobody knows whether it took place.
    connection.batch_execute(script.say("COMMIT").sql())?;
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

/// One round of the index for an instance; `fresh` are taken for its rows if nobody has changed any since `changed`.
/// `true` if there may be more.
fn round(
    connection: &mut PgConnection,
    catalog: &mut Catalog,
    known: &KnownValues,
    n: i64,
    fresh: &[EventRow],
    changed: &mut i64,
) -> QueryResult<bool> {
    let (more, now) = connection.transaction(|connection| {
        let held = statement!("SELECT indexed, changed FROM instances WHERE n = ? FOR UPDATE", n);
        let (indexed, now) = held.typed::<(BigInt, BigInt)>().get_result::<(i64, i64)>(connection)?;
        let fresh = if now == *changed { fresh } else { &[] };
        let (digest, more) = index::next(&mut Db::Postgres(connection), catalog, n, indexed, fresh)?;
        if digest.upto == 0 {
            return Ok((false, now));
        }
        let upto = digest.upto;
        put(connection, digest, indexed, known)?;
        diesel::update(instances::table.find(n))
            .set(instances::indexed.eq(upto))
            .execute(connection)?;
        QueryResult::Ok((more, now))
    })?;
    *changed = now;
    Ok(more)
}

fn put(connection: &mut PgConnection, digest: Digest, indexed: i64, known: &KnownValues) -> QueryResult<()> {
    terms::add(connection, digest.postings, indexed)?;
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
            sight.join(more);
        }
        same
    });
    if !sights.is_empty() {
        diesel::sql_query(
            "INSERT INTO sights AS s (n, id, first_at, first_n, first_seq, last_at, events) \
             SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (n, id) DO UPDATE \
             SET events = s.events + excluded.events, last_at = greatest(s.last_at, excluded.last_at), \
             first_at = least(s.first_at, excluded.first_at), \
             first_n = CASE WHEN excluded.first_at < s.first_at THEN excluded.first_n ELSE s.first_n END, \
             first_seq = CASE WHEN excluded.first_at < s.first_at THEN excluded.first_seq ELSE s.first_seq END",
        )
        .bind::<Array<BigInt>, _>(sights.iter().map(|((n, _), _)| *n).collect::<Vec<_>>())
        .bind::<Array<BigInt>, _>(sights.iter().map(|((_, id), _)| *id).collect::<Vec<_>>())
        .bind::<Array<BigInt>, _>(sights.iter().map(|(_, sight)| sight.first.0).collect::<Vec<_>>())
        .bind::<Array<BigInt>, _>(sights.iter().map(|(_, sight)| sight.first.1).collect::<Vec<_>>())
        .bind::<Array<BigInt>, _>(sights.iter().map(|(_, sight)| sight.first.2).collect::<Vec<_>>())
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
