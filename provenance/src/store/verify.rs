//! Recomputing the chains from the rows: as bytes, so that no conversion hides an edit.

use std::collections::VecDeque;
use std::num::NonZero;
use std::panic::AssertUnwindSafe;
use std::sync::{Mutex, PoisonError};

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Binary, Bool, Nullable};
use serde::Serialize;

use super::chain::{self, Hash, HeadParts};
use super::db::{Beside, Db, on};
use super::leaves::Leaves;
use super::retention::Retained;
use super::statement::statement;
use super::stored::{event_id, instance_id};
use crate::hex::hex;

/// Most events of one batch; the writer stays far below it.
const MAX_BATCH: i64 = 65_536;
/// Events that are checked in one go, and no fewer where there are more.
const SPAN: i64 = 2_048;
/// Threads beside the one that asks.
const MOST_HELPERS: usize = 7;

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

/// Checks every instance, with as many threads as there are processors.
pub(super) fn verify(connection: &mut Db<'_>, beside: &Beside<'_>) -> QueryResult<Verified> {
    let sql = format!("{} ORDER BY n", Writer::select(connection));
    let writers = on!(connection, diesel::sql_query(sql).load::<Writer>(connection))?;
    let retained = Retained::load(connection)?;
    let helpers = std::thread::available_parallelism().map_or(0, |all| NonZero::get(all) - 1);
    let plan = Mutex::new(Plan::new(&writers));
    std::thread::scope(|scope| {
        for _ in 0..helpers.min(MOST_HELPERS) {
            let helper = std::thread::Builder::new().name("provenance-verify".into());
            // Without threads or connections it is done all the same.
            let _ = helper.spawn_scoped(scope, || {
                if let Ok(mut connection) = beside.connect() {
                    work(&mut connection.db(), &plan, &retained);
                }
            });
        }
        work(connection, &plan, &retained);
    });
    let instances = plan.into_inner().unwrap_or_else(PoisonError::into_inner).end()?;
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
    let mut last = on!(connection, last.load::<Batch>(connection))?.into_iter();
    let Some(batch) = last.next() else {
        return Ok(Tail::default());
    };
    let from = last.next().map_or_else(|| writer.start(), |before| before.reached());
    let head = batch.reached();
    let mut problem = match batch.follows(&from) {
        Ok(()) => {
            let retained = Retained::load(connection)?;
            let mut leaves = Leaves::new(connection, (writer.n, writer.instance), retained)?;
            let span = Span {
                at: 0,
                from,
                batches: vec![batch],
            };
            span.check(connection, &mut leaves, &writer)?.1
        }
        Err(what) => Some(writer.problem(batch.first_seq, what)),
    };
    if problem.is_none() {
        problem = beyond(connection, &writer, &head)?;
    }
    Ok(Tail {
        problem,
        last_seq: Some(head.next_seq.saturating_sub(1)),
        head: Some(Head {
            instance: instance_id(writer.instance),
            batch: head.batches,
            hash: hex(&head.chain),
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

/// Batches that are checked in one go.
struct Span {
    /// Whose, by its place in the plan.
    at: usize,
    from: Reached,
    batches: Vec<Batch>,
}

/// How far a chain goes.
#[derive(Clone, Copy)]
struct Reached {
    batches: i64,
    next_seq: i64,
    chain: Hash,
}

/// What is to be checked: whoever has time takes the next span. As each batch says what the chain is after it, nobody
/// waits for those before.
struct Plan<'w> {
    writers: &'w [Writer],
    /// The instance whose batches are handed out, and how far they are.
    at: usize,
    reached: Reached,
    /// Batches that were read.
    ahead: VecDeque<Batch>,
    /// Where each instance's chain ends, or breaks first as far as is known.
    ends: Vec<Option<(Reached, Option<Problem>)>>,
    failed: Option<diesel::result::Error>,
}

impl<'w> Plan<'w> {
    fn new(writers: &'w [Writer]) -> Self {
        let end = |writer: &Writer| {
            let problem = Problem {
                event_id: None,
                what: "the instance's row holds something of another type",
            };
            (!writer.typed).then_some((writer.start(), Some(problem)))
        };
        Plan {
            writers,
            at: 0,
            reached: writers.first().map_or(Reached::NOWHERE, Writer::start),
            ahead: VecDeque::new(),
            ends: writers.iter().map(end).collect(),
            failed: None,
        }
    }

    fn next(&mut self, connection: &mut Db<'_>) -> QueryResult<Option<Span>> {
        while let Some(writer) = self.writers.get(self.at) {
            if self.ends.get(self.at).is_some_and(Option::is_some) {
                self.at += 1;
                self.ahead.clear();
                self.reached = self.writers.get(self.at).map_or(Reached::NOWHERE, Writer::start);
                continue;
            }
            if self.ahead.is_empty() {
                self.ahead = writer.batches(connection, self.reached.batches)?.into();
            }
            let mut span = Span {
                at: self.at,
                from: self.reached,
                batches: Vec::new(),
            };
            while self.reached.next_seq - span.from.next_seq < SPAN
                && self
                    .ahead
                    .front()
                    .is_some_and(|batch| batch.follows(&self.reached).is_ok())
                && let Some(batch) = self.ahead.pop_front()
            {
                self.reached = batch.reached();
                span.batches.push(batch);
            }
            if !span.batches.is_empty() {
                return Ok(Some(span));
            }
            let problem = match self.ahead.front() {
                Some(batch) => batch
                    .follows(&self.reached)
                    .err()
                    .map(|what| writer.problem(self.reached.next_seq, what)),
                None => beyond(connection, writer, &self.reached)?,
            };
            self.note(self.at, self.reached, problem);
        }
        Ok(None)
    }

    /// A chain ends, or breaks, here.
    fn note(&mut self, at: usize, reached: Reached, problem: Option<Problem>) {
        if let Some(end) = self.ends.get_mut(at)
            && end.as_ref().is_none_or(|(known, _)| reached.batches < known.batches)
        {
            *end = Some((reached, problem));
        }
    }

    fn end(self) -> QueryResult<Vec<VerifiedInstance>> {
        if let Some(failed) = self.failed {
            return Err(failed);
        }
        let ends = self.writers.iter().zip(self.ends);
        let verified = ends.filter_map(|(writer, end)| {
            let (reached, problem) = end?;
            Some(VerifiedInstance {
                instance: instance_id(writer.instance),
                events: reached.next_seq.saturating_sub(1),
                batches: reached.batches,
                head: hex(&reached.chain),
                problem,
            })
        });
        Ok(verified.collect())
    }
}

impl Reached {
    /// Of no instance.
    const NOWHERE: Reached = Reached {
        batches: 0,
        next_seq: 1,
        chain: [0; 32],
    };
}

/// Checks spans until none is left.
fn work(connection: &mut Db<'_>, plan: &Mutex<Plan<'_>>, retained: &Retained) {
    let lock = || plan.lock().unwrap_or_else(PoisonError::into_inner);
    let mut all = || {
        let mut leaves: Option<(usize, Leaves)> = None;
        loop {
            let mut held = lock();
            let Some(span) = held.next(connection)? else {
                return Ok(());
            };
            let Some(writer) = held.writers.get(span.at) else {
                return Ok(());
            };
            drop(held);
            let leaves = match &mut leaves {
                Some((at, leaves)) if *at == span.at => leaves,
                slot => {
                    let new = Leaves::new(connection, (writer.n, writer.instance), retained.clone())?;
                    &mut slot.insert((span.at, new)).1
                }
            };
            let (reached, problem) = span.check(connection, leaves, writer)?;
            if problem.is_some() {
                lock().note(span.at, reached, problem);
            }
        }
    };
    // Events that make it panic were not written by us.
    let done = std::panic::catch_unwind(AssertUnwindSafe(&mut all));
    let failed = match done {
        Ok(Ok(())) => return,
        Ok(Err(failed)) => failed,
        Err(_) => diesel::result::Error::DeserializationError("an event cannot be read".into()),
    };
    let mut plan = lock();
    plan.at = plan.writers.len();
    plan.failed.get_or_insert(failed);
}

impl Span {
    /// How far it holds, and what is wrong there.
    fn check(
        &self,
        connection: &mut Db<'_>,
        leaves: &mut Leaves,
        writer: &Writer,
    ) -> QueryResult<(Reached, Option<Problem>)> {
        let mut reached = self.from;
        let end = self
            .batches
            .last()
            .map_or(reached.next_seq, |batch| batch.reached().next_seq);
        let (leaves, wrong) = leaves.of(connection, reached.next_seq, end)?;
        let mut rest = leaves.as_slice();
        for batch in &self.batches {
            let events = usize::try_from(batch.events).unwrap_or(usize::MAX);
            let Some((own, after)) = rest.split_at_checked(events) else {
                let seq = reached.next_seq.saturating_add_unsigned(rest.len() as u64);
                return Ok((reached, wrong.map(|what| writer.problem(seq, what))));
            };
            rest = after;
            if let Err(what) = batch.check(own, &reached.chain) {
                return Ok((reached, Some(writer.problem(batch.first_seq, what))));
            }
            reached = batch.reached();
        }
        Ok((reached, None))
    }
}

/// Rows that no batch up to there covers.
fn beyond(connection: &mut Db<'_>, writer: &Writer, reached: &Reached) -> QueryResult<Option<Problem>> {
    for (table, number, bound) in [
        ("events", "seq >= $2", reached.next_seq),
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
        .bind::<BigInt, _>(reached.batches.saturating_add(1));
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

    fn problem(&self, seq: i64, what: &'static str) -> Problem {
        Problem {
            event_id: Some(event_id(self.instance, seq)),
            what,
        }
    }

    /// Before its first batch.
    fn start(&self) -> Reached {
        let chain = chain::head(&HeadParts {
            instance: self.instance,
            started_at: self.started_at,
            service: &self.service,
            environment: self.environment.as_deref(),
            build: &self.build,
            version: &self.version,
            key_id: &self.key_id,
        });
        Reached {
            chain,
            ..Reached::NOWHERE
        }
    }

    /// Some batches after one: a service that writes meanwhile is not held up.
    fn batches(&self, connection: &mut Db<'_>, after: i64) -> QueryResult<Vec<Batch>> {
        let batches = diesel::sql_query(format!(
            "{} WHERE n = $1 AND batch_no > $2 ORDER BY batch_no LIMIT 256",
            Batch::select(connection)
        ))
        .bind::<BigInt, _>(self.n)
        .bind::<BigInt, _>(after);
        on!(connection, batches.load::<Batch>(connection))
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

    /// How far the chain goes with it, as it says.
    fn reached(&self) -> Reached {
        Reached {
            batches: self.batch_no,
            next_seq: self.first_seq.saturating_add(self.events),
            // One that is no hash is none that follows from the chain before.
            chain: self.chain.as_slice().try_into().unwrap_or_default(),
        }
    }

    fn follows(&self, before: &Reached) -> Result<(), &'static str> {
        if self.batch_no != before.batches.saturating_add(1) || self.first_seq != before.next_seq {
            return Err("a batch is missing or out of order here");
        }
        if !self.typed || !(1..=MAX_BATCH).contains(&self.events) {
            return Err("the batch's row is damaged");
        }
        Ok(())
    }

    /// Compares it with the leaves of its events, on top of the chain before it.
    fn check(&self, leaves: &[Hash], before: &Hash) -> Result<(), &'static str> {
        let root = chain::root(leaves);
        if self.root != root {
            return Err("the batch that begins here was changed");
        }
        if self.chain != chain::link(before, self.batch_no, self.first_seq, self.events, &root) {
            return Err("the batch that begins here was changed, or one before it removed");
        }
        Ok(())
    }
}
