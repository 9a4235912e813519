//! Recomputing the chains from the rows: as bytes, so that no conversion hides an edit.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Binary, Bool, Nullable};
use serde::Serialize;

use super::chain::{self, Hash, HeadParts};
use super::db::{Db, on};
use super::leaves::Leaves;
use super::retention::Retained;
use super::statement::statement;
use super::stored::{event_id, instance_id};
use crate::hex::hex;

/// Most events of one batch; the writer stays far below it.
const MAX_BATCH: i64 = 65_536;

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
        instances.push(std::thread::scope(|scope| {
            let instance = (writer.n, writer.instance);
            let leaves = Leaves::start(scope, instance, retained.clone(), connection)?;
            checked(connection, writer, leaves)
        })?);
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
            let mut leaves = Leaves::alone((writer.n, writer.instance), retained, batch.first_seq, connection)?;
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

fn checked(connection: &mut Db<'_>, writer: &Writer, mut leaves: Leaves) -> QueryResult<VerifiedInstance> {
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
        leaves: &mut Leaves,
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
