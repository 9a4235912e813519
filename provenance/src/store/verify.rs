//! Recomputing the chains from the rows: as bytes, so that no conversion hides an edit.

use std::collections::{HashMap, VecDeque};

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Binary, Bool, Integer, Nullable, Text};
use serde::Serialize;

use super::chain::{self, Body, Hash, HeadParts, Header};
use super::db::{Db, on};
use super::proof::{CHANGED, Items, Proof};
use super::retention::Retained;
use super::statement::statement;
use super::stored::{event_id, instance_id};
use crate::hex::hex;

/// Most events of one batch; the writer stays far below it.
const MAX_BATCH: i64 = 65_536;
/// Events that are read at once: some are hashed while the next ones are read.
const WINDOW: i64 = 8_192;

/// What [`Reader::verify`](super::Reader::verify) found.
#[derive(Debug, Clone, Serialize)]
pub struct Verified {
    /// Each instance, by id.
    pub instances: Vec<VerifiedInstance>,
    /// Trouble that belongs to no known instance.
    pub problem: Option<Problem>,
}

/// The chain of one instance.
#[derive(Debug, Clone, Serialize)]
pub struct VerifiedInstance {
    /// 16 hex digits.
    pub instance: String,
    /// Events that hold, outcomes included.
    pub events: i64,
    /// Batches that hold.
    pub batches: i64,
    /// The chain after them, 64 hex digits: kept elsewhere, it shows later whether they were replaced.
    pub head: String,
    /// The first thing that does not hold.
    pub problem: Option<Problem>,
}

/// The first thing that does not hold.
#[derive(Debug, Clone, Serialize)]
pub struct Problem {
    /// The event, where it is known.
    pub event_id: Option<String>,
    /// What is wrong with it.
    pub what: &'static str,
}

impl Verified {
    /// Whether everything holds.
    pub fn is_ok(&self) -> bool {
        self.first_problem().is_none()
    }

    /// The first problem of the first instance that has one.
    pub fn first_problem(&self) -> Option<&Problem> {
        self.instances
            .iter()
            .find_map(|instance| instance.problem.as_ref())
            .or(self.problem.as_ref())
    }
}

/// Checks every instance.
pub(super) fn verify(connection: &mut Db<'_>) -> QueryResult<Verified> {
    let sql = format!("{} ORDER BY n", Writer::select(connection));
    let writers = on!(connection, diesel::sql_query(sql).load::<Writer>(connection))?;
    let retained = Retained::load(connection)?;
    let mut instances = Vec::with_capacity(writers.len());
    for writer in &writers {
        instances.push(instance(connection, writer, &retained)?);
    }
    let mut problem = None;
    for (table, seq) in [("events", "seq"), ("batches", "first_seq")] {
        let sql = format!(
            "SELECT n AS instance, {seq} AS n FROM {table} \
             WHERE NOT EXISTS (SELECT 1 FROM instances i WHERE i.n = {table}.n) LIMIT 1"
        );
        let orphan = on!(connection, diesel::sql_query(sql).get_result::<Place>(connection));
        problem = problem.or(orphan
            .optional()?
            .map(|place| place.problem("its instance is not registered")));
    }
    Ok(Verified { instances, problem })
}

/// The chain of an instance after a batch.
pub(super) fn chain_at(connection: &mut Db<'_>, instance: i64, batch_no: i64) -> QueryResult<Option<Hash>> {
    let chain = statement!(
        "SELECT b.n, batch_no, first_seq, events, root, chain FROM batches b \
         JOIN instances i ON i.n = b.n WHERE i.instance = ? AND batch_no = ?",
        instance,
        batch_no
    )
    .typed::<BatchColumns>();
    let chain = on!(
        connection,
        chain.get_result::<(i64, i64, i64, i64, Vec<u8>, Vec<u8>)>(connection)
    );
    let chain = chain.optional()?;
    Ok(chain.and_then(|(.., chain)| chain.try_into().ok()))
}

/// Where the chain of the instance that started last ends.
#[derive(Default)]
pub(super) struct Tail {
    pub(super) problem: Option<Problem>,
    pub(super) last_seq: Option<i64>,
    pub(super) head: Option<Head>,
}

/// The end of a chain, to be kept elsewhere.
#[derive(Serialize)]
pub(super) struct Head {
    instance: String,
    batch: i64,
    hash: String,
}

/// Checks the last batch of the instance that started last.
pub(super) fn tail(connection: &mut Db<'_>) -> QueryResult<Tail> {
    let sql = format!(
        "{} WHERE EXISTS (SELECT 1 FROM batches b WHERE b.n = instances.n) \
         ORDER BY started_at DESC, n DESC LIMIT 1",
        Writer::select(connection)
    );
    let newest = on!(connection, diesel::sql_query(sql).get_result::<Writer>(connection));
    let Some(writer) = newest.optional()? else {
        return Ok(Tail::default());
    };
    let last = diesel::sql_query(format!(
        "{} WHERE n = $1 ORDER BY batch_no DESC LIMIT 2",
        Batch::select(connection)
    ))
    .bind::<BigInt, _>(writer.n);
    let last = on!(connection, last.load::<Batch>(connection))?;
    let Some(batch) = last.first() else {
        return Ok(Tail::default());
    };
    let before = match last.get(1) {
        Some(before) => before.chain.as_slice().try_into().ok(),
        None => Some(writer.chain()),
    };
    let problem = match before {
        Some(before) => {
            let retained = Retained::load(connection)?;
            let mut leaves = Leaves::new(&writer, retained, batch.first_seq, connection)?;
            batch.check(connection, &mut leaves, &writer, &before)?.err()
        }
        None => Some(batch.problem(&writer, "the chain is not a hash")),
    };
    let problem = match problem {
        None => beyond(connection, &writer, batch.batch_no, batch.end())?,
        problem => problem,
    };
    Ok(Tail {
        problem,
        last_seq: Some(batch.end().saturating_sub(1)),
        head: Some(Head {
            instance: instance_id(writer.instance),
            batch: batch.batch_no,
            hash: hex(&batch.chain),
        }),
    })
}

/// Batches of all instances, by a look at the last one of each.
pub(super) fn batches(connection: &mut Db<'_>) -> QueryResult<i64> {
    let last = diesel::sql_query(
        "SELECT n AS instance, coalesce((SELECT max(batch_no) FROM batches b WHERE b.n = instances.n), 0) \
         AS n FROM instances",
    );
    let last = on!(connection, last.load::<Place>(connection))?;
    Ok(last.iter().fold(0, |sum, place| place.n.saturating_add(sum)))
}

fn instance(connection: &mut Db<'_>, writer: &Writer, retained: &Retained) -> QueryResult<VerifiedInstance> {
    let mut verified = VerifiedInstance {
        instance: instance_id(writer.instance),
        events: 0,
        batches: 0,
        head: String::new(),
        problem: (!writer.typed).then_some(Problem {
            event_id: None,
            what: "the instance's row holds something of another type",
        }),
    };
    let mut chain = writer.chain();
    let mut next_seq = 1;
    let mut leaves = Leaves::new(writer, retained.clone(), 1, connection)?;
    while verified.problem.is_none() {
        // Some batches a statement: a service that writes meanwhile is not held up.
        let batches = diesel::sql_query(format!(
            "{} WHERE n = $1 AND batch_no > $2 ORDER BY batch_no LIMIT 256",
            Batch::select(connection)
        ))
        .bind::<BigInt, _>(writer.n)
        .bind::<BigInt, _>(verified.batches);
        let batches = on!(connection, batches.load::<Batch>(connection))?;
        if batches.is_empty() {
            verified.problem = beyond(connection, writer, verified.batches, next_seq)?;
            break;
        }
        for batch in &batches {
            if batch.batch_no != verified.batches.saturating_add(1) || batch.first_seq != next_seq {
                verified.problem = Some(Problem {
                    event_id: Some(event_id(writer.instance, next_seq)),
                    what: "a batch is missing or out of order here",
                });
                break;
            }
            match batch.check(connection, &mut leaves, writer, &chain)? {
                Ok(next) => chain = next,
                Err(problem) => {
                    verified.problem = Some(problem);
                    break;
                }
            }
            verified.batches = batch.batch_no;
            verified.events = verified.events.saturating_add(batch.events);
            next_seq = batch.end();
        }
    }
    verified.head = hex(&chain);
    Ok(verified)
}

/// Rows that none of the first `batches` covers, which end before `end`.
fn beyond(connection: &mut Db<'_>, writer: &Writer, batches: i64, end: i64) -> QueryResult<Option<Problem>> {
    for (table, number, bound) in [
        ("events", "seq >= $2", end),
        ("events", "seq < $2", 1),
        ("batches", "batch_no < $2", 1),
    ] {
        let seq = if table == "batches" { "first_seq" } else { "seq" };
        // In the same statement as the next batch, which may have come since `end` was read.
        let found = diesel::sql_query(format!(
            "SELECT n AS instance, {seq} AS n FROM {table} WHERE n = $1 AND {number} AND NOT EXISTS \
             (SELECT 1 FROM batches b WHERE b.n = {table}.n AND b.batch_no = $3) LIMIT 1"
        ))
        .bind::<BigInt, _>(writer.n)
        .bind::<BigInt, _>(bound)
        .bind::<BigInt, _>(batches.saturating_add(1));
        let found = on!(connection, found.get_result::<Place>(connection));
        if let Some(mut place) = found.optional()? {
            place.instance = writer.instance;
            return Ok(Some(place.problem("no batch of the chain covers it")));
        }
    }
    Ok(None)
}

#[derive(QueryableByName)]
struct Place {
    #[diesel(sql_type = BigInt)]
    instance: i64,
    #[diesel(sql_type = BigInt)]
    n: i64,
}

impl Place {
    fn problem(&self, what: &'static str) -> Problem {
        Problem {
            event_id: Some(event_id(self.instance, self.n)),
            what,
        }
    }
}

#[derive(QueryableByName)]
struct Writer {
    #[diesel(sql_type = BigInt)]
    n: i64,
    #[diesel(sql_type = BigInt)]
    instance: i64,
    #[diesel(sql_type = BigInt)]
    started_at: i64,
    #[diesel(sql_type = Binary)]
    service: Vec<u8>,
    #[diesel(sql_type = Nullable<Binary>)]
    environment: Option<Vec<u8>>,
    #[diesel(sql_type = Binary)]
    build: Vec<u8>,
    #[diesel(sql_type = Binary)]
    version: Vec<u8>,
    #[diesel(sql_type = Binary)]
    key_id: Vec<u8>,
    #[diesel(sql_type = Bool)]
    typed: bool,
}

impl Writer {
    fn select(connection: &Db<'_>) -> &'static str {
        match connection {
            Db::Sqlite(_) => {
                "SELECT n, instance, started_at, service, environment, build, version, key_id, \
                 typeof(instance) = 'integer' AND typeof(started_at) = 'integer' AS typed FROM instances"
            }
            #[cfg(feature = "postgres-store")]
            Db::Postgres(_) => {
                "SELECT n, instance, started_at, convert_to(service, 'UTF8') AS service, \
                 convert_to(environment, 'UTF8') AS environment, convert_to(build, 'UTF8') AS build, \
                 convert_to(version, 'UTF8') AS version, convert_to(key_id, 'UTF8') AS key_id, true AS typed \
                 FROM instances"
            }
        }
    }

    fn chain(&self) -> Hash {
        chain::head(&HeadParts {
            instance: self.instance,
            started_at: self.started_at,
            service: &self.service,
            environment: self.environment.as_deref(),
            build: &self.build,
            version: &self.version,
            key_id: &self.key_id,
        })
    }
}

type BatchColumns = (BigInt, BigInt, BigInt, BigInt, Binary, Binary);

#[derive(QueryableByName)]
struct Batch {
    #[diesel(sql_type = BigInt)]
    batch_no: i64,
    #[diesel(sql_type = BigInt)]
    first_seq: i64,
    #[diesel(sql_type = BigInt)]
    events: i64,
    #[diesel(sql_type = Binary)]
    root: Vec<u8>,
    #[diesel(sql_type = Binary)]
    chain: Vec<u8>,
    #[diesel(sql_type = Bool)]
    typed: bool,
}

impl Batch {
    fn select(connection: &Db<'_>) -> &'static str {
        match connection {
            Db::Sqlite(_) => {
                "SELECT batch_no, first_seq, events, root, chain, typeof(batch_no) = 'integer' \
                 AND typeof(first_seq) = 'integer' AND typeof(events) = 'integer' AS typed FROM batches"
            }
            #[cfg(feature = "postgres-store")]
            Db::Postgres(_) => "SELECT batch_no, first_seq, events, root, chain, true AS typed FROM batches",
        }
    }

    /// The first seq after it.
    fn end(&self) -> i64 {
        self.first_seq.saturating_add(self.events)
    }

    fn problem(&self, writer: &Writer, what: &'static str) -> Problem {
        Problem {
            event_id: Some(event_id(writer.instance, self.first_seq)),
            what,
        }
    }

    /// Recomputes the chain over the batch's events, on top of the chain before it.
    fn check(
        &self,
        connection: &mut Db<'_>,
        leaves: &mut Leaves<'_>,
        writer: &Writer,
        before: &Hash,
    ) -> QueryResult<Result<Hash, Problem>> {
        if !self.typed || !(1..=MAX_BATCH).contains(&self.events) {
            return Ok(Err(self.problem(writer, "the batch's row is damaged")));
        }
        let mut own = Vec::with_capacity(usize::try_from(self.events).unwrap_or_default());
        for seq in self.first_seq..self.end() {
            match leaves.of(seq, connection)? {
                Ok(leaf) => own.push(leaf),
                Err(what) => {
                    return Ok(Err(Problem {
                        event_id: Some(event_id(writer.instance, seq)),
                        what,
                    }));
                }
            }
        }
        let root = chain::root(&own);
        if self.root != root {
            return Ok(Err(self.problem(writer, "the batch that begins here was changed")));
        }
        let chain = chain::link(before, self.batch_no, self.first_seq, self.events, &root);
        if self.chain != chain {
            let what = "the batch that begins here was changed, or one before it removed";
            return Ok(Err(self.problem(writer, what)));
        }
        Ok(Ok(chain))
    }
}

/// The leaves of an instance in their order, computed a window ahead.
struct Leaves<'w> {
    writer: &'w Writer,
    retained: Retained,
    texts: HashMap<i32, Hash>,
    types: HashMap<i32, Hash>,
    /// Of the events that were read, in order.
    ready: VecDeque<(i64, Result<Hash, &'static str>)>,
    /// Rows that are read and not hashed yet.
    next: Vec<Row>,
    /// What is to be read next.
    from: i64,
}

impl<'w> Leaves<'w> {
    fn new(writer: &'w Writer, retained: Retained, from: i64, connection: &mut Db<'_>) -> QueryResult<Self> {
        // As bytes, and only what is a text: no conversion hides an edit.
        let texts: Vec<(i64, Vec<u8>, String)> = match connection {
            Db::Sqlite(connection) => statement!(
                "SELECT id, CAST(text AS BLOB), typeof(text) FROM texts WHERE n = ?",
                writer.n
            )
            .typed::<(BigInt, Binary, Text)>()
            .load(*connection)?,
            #[cfg(feature = "postgres-store")]
            Db::Postgres(connection) => statement!("SELECT id::bigint, text, 'text' FROM texts WHERE n = ?", writer.n)
                .typed::<(BigInt, Binary, Text)>()
                .load(*connection)?,
        };
        let types = statement!("SELECT event_type, name FROM event_counts WHERE n = ?", writer.n);
        let types = types.typed::<(Integer, Text)>();
        let types = on!(connection, types.load::<(i32, String)>(connection))?;
        Ok(Leaves {
            writer,
            retained,
            // A number beyond 32 bits is none of ours: a narrower read would cut off what was changed.
            texts: texts
                .into_iter()
                .filter(|(.., of)| of == "text")
                .filter_map(|(id, text, _)| Some((i32::try_from(id).ok()?, chain::bytes(&text))))
                .collect(),
            types: types
                .into_iter()
                .filter(|(code, name)| super::schema::type_code(name) == *code)
                .map(|(code, name)| (code, chain::text(&name)))
                .chain([(super::schema::type_code("DATA_SHARE"), chain::text("DATA_SHARE"))])
                .collect(),
            ready: VecDeque::new(),
            next: Vec::new(),
            from,
        })
    }

    /// The leaf of an event; asked for in order.
    fn of(&mut self, seq: i64, connection: &mut Db<'_>) -> QueryResult<Result<Hash, &'static str>> {
        while self.ready.front().is_some_and(|(ready, _)| *ready < seq) {
            self.ready.pop_front();
        }
        if self.ready.is_empty() {
            self.advance(connection)?;
        }
        Ok(match self.ready.front() {
            Some((ready, leaf)) if *ready == seq => *leaf,
            _ => Err("the event is missing"),
        })
    }

    /// Hashes the window that was read, and reads the next one meanwhile.
    fn advance(&mut self, connection: &mut Db<'_>) -> QueryResult<()> {
        if self.next.is_empty() {
            self.next = self.window(connection)?;
        }
        let rows = std::mem::take(&mut self.next);
        // A service that ends what was kept for its time says so before.
        self.retained.refresh(connection)?;
        let parallel = std::thread::available_parallelism()
            .map_or(1, std::num::NonZero::get)
            .min(8);
        let this = &*self;
        let (leaves, next) = std::thread::scope(|scope| {
            let parts: Vec<_> = rows
                .chunks(rows.len().div_ceil(parallel).max(1))
                .map(|part| scope.spawn(move || part.iter().map(|row| (row.0, this.leaf(row))).collect::<Vec<_>>()))
                .collect();
            let next = match rows.last() {
                Some(last) => read(connection, this.writer.n, last.0.saturating_add(1)),
                None => Ok(Vec::new()),
            };
            // A thread that panicked leaves its events out: they count as missing.
            let leaves: Vec<_> = parts
                .into_iter()
                .flat_map(|part| part.join().unwrap_or_default())
                .collect();
            (leaves, next)
        });
        self.ready.extend(leaves);
        self.next = next?;
        if let Some(last) = self.next.last().or(rows.last()) {
            self.from = last.0.saturating_add(1);
        }
        Ok(())
    }

    fn window(&self, connection: &mut Db<'_>) -> QueryResult<Vec<Row>> {
        read(connection, self.writer.n, self.from)
    }

    fn leaf(&self, row: &Row) -> Result<Hash, &'static str> {
        let (
            seq,
            at,
            after,
            event_type,
            actor,
            target,
            recipient,
            outcome_of,
            owner,
            user_id,
            request_id,
            payload,
            extras,
            tags,
            proof,
            typed,
        ) = row;
        if !typed {
            return Err("the event holds something of another type");
        }
        let proof = Proof::read(proof).ok_or(CHANGED)?;
        let text = |id: i32| {
            self.texts
                .get(&id)
                .ok_or("a text that the event names is missing, or was changed")
        };
        let created_at = at.wrapping_mul(1000).wrapping_add(*after);
        let items = Items {
            owner: owner.as_deref(),
            user_id: user_id.as_deref(),
            target: *target,
            request_id: request_id.as_deref(),
            payload,
            extras,
            tags,
            created_at,
        };
        let header = Header {
            instance: self.writer.instance,
            seq: *seq,
            at: *at,
            created_at,
            event_type: self
                .types
                .get(event_type)
                .ok_or("the event's type is not known, or was changed")?,
            actor: text(*actor)?,
            recipient: recipient.map(text).transpose()?,
            outcome_of: *outcome_of,
        };
        let leaf = match &proof.body {
            Some(_) if !items.is_stub() => return Err(CHANGED),
            Some(_) if !self.retained.cover(*event_type, *at) => {
                return Err("the event was reduced to a stub, and no record of a retention covers it");
            }
            Some(body) => header.leaf(body),
            None => {
                let mut body = Body::new(proof.salts.clone());
                items.commit(&proof, text, &mut body)?;
                body.leaf(&header)
            }
        };
        if leaf != proof.leaf {
            return Err(CHANGED);
        }
        Ok(leaf)
    }
}

// A number of a file may be wider than it is read: `typed` says that it is not.
type Row = (
    i64,
    i64,
    i64,
    i32,
    i32,
    Option<i32>,
    Option<i32>,
    Option<i64>,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Vec<u8>,
    Vec<u8>,
    Vec<u8>,
    Vec<u8>,
    bool,
);

type Columns = (
    BigInt,
    BigInt,
    BigInt,
    Integer,
    Integer,
    Nullable<Integer>,
    Nullable<Integer>,
    Nullable<BigInt>,
    Nullable<Binary>,
    Nullable<Binary>,
    Nullable<Binary>,
    Binary,
    Binary,
    Binary,
    Binary,
    Bool,
);

fn read(connection: &mut Db<'_>, n: i64, from: i64) -> QueryResult<Vec<Row>> {
    #[allow(clippy::infallible_destructuring_match, reason = "of files alone there is one kind")]
    let connection = match connection {
        Db::Sqlite(connection) => connection,
        #[cfg(feature = "postgres-store")]
        Db::Postgres(connection) => {
            return statement!(
                "SELECT seq, at, after, event_type, actor, target, recipient, outcome_of, owner, user_id, request_id, \
                 payload, extras, tags, proof, true FROM events WHERE n = ? AND seq >= ? ORDER BY seq LIMIT ?",
                n,
                from,
                WINDOW
            )
            .typed::<Columns>()
            .load::<Row>(*connection);
        }
    };
    statement!(
        "SELECT seq, at, after, event_type, actor, target, recipient, outcome_of, owner, user_id, request_id, \
         payload, extras, tags, proof, \
         typeof(seq) = 'integer' AND typeof(at) = 'integer' AND typeof(after) = 'integer' \
         AND typeof(event_type) = 'integer' AND typeof(actor) = 'integer' \
         AND event_type BETWEEN -2147483648 AND 2147483647 AND actor BETWEEN 0 AND 2147483647 \
         AND ifnull(target, 0) BETWEEN 0 AND 2147483647 AND ifnull(recipient, 0) BETWEEN 0 AND 2147483647 \
         AND typeof(target) IN ('integer', 'null') AND typeof(recipient) IN ('integer', 'null') \
         AND typeof(outcome_of) IN ('integer', 'null') AND typeof(owner) IN ('blob', 'null') \
         AND typeof(user_id) IN ('blob', 'null') AND typeof(request_id) IN ('blob', 'null') \
         AND typeof(payload) = 'blob' AND typeof(extras) = 'blob' AND typeof(tags) = 'blob' AND typeof(proof) = 'blob' \
         FROM events WHERE n = ? AND seq >= ? ORDER BY seq LIMIT ?",
        n,
        from,
        WINDOW
    )
    .typed::<Columns>()
    .load::<Row>(*connection)
}
