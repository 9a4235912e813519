//! Recomputing the chains from the rows: as bytes, so that no conversion hides an edit.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Binary, Bool, Nullable};
use serde::Serialize;

use super::chain::{self, EventParts, Hash, HeadParts, TagParts};
use super::read::{event_id, hex, instance_id};

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
pub(super) fn verify(connection: &mut SqliteConnection) -> QueryResult<Verified> {
    let writers = diesel::sql_query(format!("{WRITERS} ORDER BY instance")).load::<Writer>(connection)?;
    let mut instances = Vec::with_capacity(writers.len());
    for writer in &writers {
        instances.push(instance(connection, writer)?);
    }
    let orphan = |connection: &mut SqliteConnection, table: &str, seq: &str| {
        diesel::sql_query(format!(
            "SELECT instance, {seq} AS n FROM {table} \
             WHERE NOT EXISTS (SELECT 1 FROM instances i WHERE i.instance = {table}.instance) LIMIT 1"
        ))
        .get_result::<Place>(connection)
        .optional()
    };
    let what = "its instance is not registered";
    let mut problem = None;
    for (table, seq) in [("events", "seq"), ("event_tags", "seq"), ("batches", "first_seq")] {
        let found = orphan(connection, table, seq)?;
        problem = problem.or(found.map(|place| place.problem(what)));
    }
    Ok(Verified { instances, problem })
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
pub(super) fn tail(connection: &mut SqliteConnection) -> QueryResult<Tail> {
    let newest = diesel::sql_query(format!(
        "{WRITERS} WHERE EXISTS (SELECT 1 FROM batches b WHERE b.instance = instances.instance) \
         ORDER BY started_at DESC, instance DESC LIMIT 1"
    ))
    .get_result::<Writer>(connection)
    .optional()?;
    let Some(writer) = newest else {
        return Ok(Tail::default());
    };
    let last = diesel::sql_query(format!("{BATCHES} WHERE instance = ? ORDER BY batch_no DESC LIMIT 2"))
        .bind::<BigInt, _>(writer.instance)
        .load::<Batch>(connection)?;
    let Some(batch) = last.first() else {
        return Ok(Tail::default());
    };
    let before = match last.get(1) {
        Some(before) => before.chain.as_slice().try_into().ok(),
        None => Some(writer.chain()),
    };
    let problem = match before {
        Some(before) => batch.check(connection, &before)?.err(),
        None => Some(batch.problem("the chain is not a hash")),
    };
    let problem = match problem {
        None => beyond(connection, writer.instance, batch.batch_no, batch.end())?,
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
pub(super) fn batches(connection: &mut SqliteConnection) -> QueryResult<i64> {
    let last = diesel::sql_query(
        "SELECT instance, coalesce((SELECT max(batch_no) FROM batches b WHERE b.instance = instances.instance), 0) \
         AS n FROM instances",
    )
    .load::<Place>(connection)?;
    Ok(last.iter().fold(0, |sum, place| place.n.saturating_add(sum)))
}

fn instance(connection: &mut SqliteConnection, writer: &Writer) -> QueryResult<VerifiedInstance> {
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
        // One batch a statement: a service that writes meanwhile is not held up.
        let batch = diesel::sql_query(format!(
            "{BATCHES} WHERE instance = ? AND batch_no > ? ORDER BY batch_no LIMIT 1"
        ))
        .bind::<BigInt, _>(writer.instance)
        .bind::<BigInt, _>(verified.batches)
        .get_result::<Batch>(connection)
        .optional()?;
        let Some(batch) = batch else {
            verified.problem = beyond(connection, writer.instance, verified.batches, next_seq)?;
            break;
        };
        if batch.batch_no != verified.batches.saturating_add(1) || batch.first_seq != next_seq {
            verified.problem = Some(Problem {
                event_id: Some(event_id(writer.instance, next_seq)),
                what: "a batch is missing or out of order here",
            });
            break;
        }
        match batch.check(connection, &chain)? {
            Ok(next) => chain = next,
            Err(problem) => verified.problem = Some(problem),
        }
        if verified.problem.is_none() {
            verified.batches = batch.batch_no;
            verified.events = verified.events.saturating_add(batch.events);
            next_seq = batch.end();
        }
    }
    verified.head = hex(&chain);
    Ok(verified)
}

/// Rows that none of the first `batches` covers, which end before `end`.
fn beyond(connection: &mut SqliteConnection, instance: i64, batches: i64, end: i64) -> QueryResult<Option<Problem>> {
    for (table, number, bound) in [
        ("events", "seq >= ?", end),
        ("events", "seq < ?", 1),
        ("event_tags", "seq >= ?", end),
        ("event_tags", "seq < ?", 1),
        ("batches", "batch_no < ?", 1),
    ] {
        let seq = if table == "batches" { "first_seq" } else { "seq" };
        // In the same statement as the next batch, which may have come since `end` was read.
        let found = diesel::sql_query(format!(
            "SELECT instance, {seq} AS n FROM {table} WHERE instance = ? AND {number} AND NOT EXISTS \
             (SELECT 1 FROM batches b WHERE b.instance = {table}.instance AND b.batch_no = ?) LIMIT 1"
        ))
        .bind::<BigInt, _>(instance)
        .bind::<BigInt, _>(bound)
        .bind::<BigInt, _>(batches.saturating_add(1))
        .get_result::<Place>(connection)
        .optional()?;
        if let Some(place) = found {
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

const WRITERS: &str = "SELECT instance, started_at, service, environment, build, version, key_id, \
     typeof(instance) = 'integer' AND typeof(started_at) = 'integer' AS typed FROM instances";

#[derive(QueryableByName)]
struct Writer {
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

const BATCHES: &str = "SELECT instance, batch_no, first_seq, events, chain, \
     typeof(batch_no) = 'integer' AND typeof(first_seq) = 'integer' AND typeof(events) = 'integer' AS typed \
     FROM batches";

#[derive(QueryableByName)]
struct Batch {
    #[diesel(sql_type = BigInt)]
    instance: i64,
    #[diesel(sql_type = BigInt)]
    batch_no: i64,
    #[diesel(sql_type = BigInt)]
    first_seq: i64,
    #[diesel(sql_type = BigInt)]
    events: i64,
    #[diesel(sql_type = Binary)]
    chain: Vec<u8>,
    #[diesel(sql_type = Bool)]
    typed: bool,
}

impl Batch {
    /// The first seq after it.
    fn end(&self) -> i64 {
        self.first_seq.saturating_add(self.events)
    }

    fn problem(&self, what: &'static str) -> Problem {
        Problem {
            event_id: Some(event_id(self.instance, self.first_seq)),
            what,
        }
    }

    /// Recomputes the chain over the batch's rows, on top of the chain before it.
    fn check(&self, connection: &mut SqliteConnection, before: &Hash) -> QueryResult<Result<Hash, Problem>> {
        if !self.typed || !(1..=MAX_BATCH).contains(&self.events) {
            return Ok(Err(self.problem("the batch's row is damaged")));
        }
        let events = diesel::sql_query(EVENTS)
            .bind::<BigInt, _>(self.instance)
            .bind::<BigInt, _>(self.first_seq)
            .bind::<BigInt, _>(self.end())
            .bind::<BigInt, _>(self.events)
            .load::<EventRow>(connection)?;
        let tags = diesel::sql_query(TAGS)
            .bind::<BigInt, _>(self.instance)
            .bind::<BigInt, _>(self.first_seq)
            .bind::<BigInt, _>(self.end())
            .load::<TagRow>(connection)?;
        let mut tags = tags.as_slice();
        let mut leaves = Vec::with_capacity(events.len());
        let mut seq = self.first_seq;
        for event in &events {
            let problem = |what| {
                Ok(Err(Problem {
                    event_id: Some(event_id(self.instance, seq)),
                    what,
                }))
            };
            if event.seq != seq {
                return problem("the event is missing");
            }
            let (own, rest) = tags.split_at(tags.iter().take_while(|tag| tag.seq == seq).count());
            tags = rest;
            if !event.typed || own.iter().any(|tag| !tag.typed) {
                return problem("the event holds something of another type");
            }
            let leaf = event.leaf(own);
            if event.leaf != leaf {
                return problem("the event, or a tag of it, was changed");
            }
            leaves.push(leaf);
            seq = seq.saturating_add(1);
        }
        if seq != self.end() {
            return Ok(Err(Problem {
                event_id: Some(event_id(self.instance, seq)),
                what: "the event is missing",
            }));
        }
        if let Some(tag) = tags.first() {
            return Ok(Err(Problem {
                event_id: Some(event_id(self.instance, tag.seq)),
                what: "a tag belongs to no event",
            }));
        }
        let chain = chain::link(before, self.batch_no, self.first_seq, &leaves);
        if self.chain != chain {
            return Ok(Err(
                self.problem("the batch that begins here was changed, or one before it removed")
            ));
        }
        Ok(Ok(chain))
    }
}

const EVENTS: &str = "SELECT instance, seq, created_at, event_type, actor, target, payload, owner, recipient, \
     request_id, user_id, extras, outcome_of, outcome, salt, leaf, \
     typeof(seq) = 'integer' AND typeof(created_at) = 'integer' \
     AND typeof(outcome_of) IN ('integer', 'null') AS typed \
     FROM events WHERE instance = ? AND seq >= ? AND seq < ? ORDER BY seq LIMIT ?";

#[derive(QueryableByName)]
struct EventRow {
    #[diesel(sql_type = BigInt)]
    instance: i64,
    #[diesel(sql_type = BigInt)]
    seq: i64,
    #[diesel(sql_type = BigInt)]
    created_at: i64,
    #[diesel(sql_type = Binary)]
    event_type: Vec<u8>,
    #[diesel(sql_type = Binary)]
    actor: Vec<u8>,
    #[diesel(sql_type = Nullable<Binary>)]
    target: Option<Vec<u8>>,
    #[diesel(sql_type = Binary)]
    payload: Vec<u8>,
    #[diesel(sql_type = Nullable<Binary>)]
    owner: Option<Vec<u8>>,
    #[diesel(sql_type = Nullable<Binary>)]
    recipient: Option<Vec<u8>>,
    #[diesel(sql_type = Nullable<Binary>)]
    request_id: Option<Vec<u8>>,
    #[diesel(sql_type = Nullable<Binary>)]
    user_id: Option<Vec<u8>>,
    #[diesel(sql_type = Binary)]
    extras: Vec<u8>,
    #[diesel(sql_type = Nullable<BigInt>)]
    outcome_of: Option<i64>,
    #[diesel(sql_type = Nullable<Binary>)]
    outcome: Option<Vec<u8>>,
    #[diesel(sql_type = Binary)]
    salt: Vec<u8>,
    #[diesel(sql_type = Binary)]
    leaf: Vec<u8>,
    #[diesel(sql_type = Bool)]
    typed: bool,
}

impl EventRow {
    fn leaf(&self, tags: &[TagRow]) -> Hash {
        let event = EventParts {
            instance: self.instance,
            seq: self.seq,
            created_at: self.created_at,
            event_type: &self.event_type,
            actor: &self.actor,
            recipient: self.recipient.as_deref(),
            outcome_of: self.outcome_of,
            outcome: self.outcome.as_deref(),
            owner: self.owner.as_deref(),
            user_id: self.user_id.as_deref(),
            target: self.target.as_deref(),
            payload: &self.payload,
            request_id: self.request_id.as_deref(),
            extras: &self.extras,
            salt: &self.salt,
        };
        chain::leaf(&event, tags.iter().map(TagRow::parts))
    }
}

const TAGS: &str = "SELECT seq, idx, event_at, fingerprint, category, canonical, field, description, owner, source, \
     pii, created_at, detail, typeof(seq) = 'integer' AND typeof(idx) = 'integer' \
     AND typeof(event_at) = 'integer' AND typeof(pii) = 'integer' AND typeof(created_at) = 'integer' AS typed \
     FROM event_tags WHERE instance = ? AND seq >= ? AND seq < ? ORDER BY seq, idx";

#[derive(QueryableByName)]
struct TagRow {
    #[diesel(sql_type = BigInt)]
    seq: i64,
    #[diesel(sql_type = BigInt)]
    idx: i64,
    #[diesel(sql_type = BigInt)]
    event_at: i64,
    #[diesel(sql_type = Nullable<Binary>)]
    fingerprint: Option<Vec<u8>>,
    #[diesel(sql_type = Binary)]
    category: Vec<u8>,
    #[diesel(sql_type = Binary)]
    canonical: Vec<u8>,
    #[diesel(sql_type = Binary)]
    field: Vec<u8>,
    #[diesel(sql_type = Binary)]
    description: Vec<u8>,
    #[diesel(sql_type = Nullable<Binary>)]
    owner: Option<Vec<u8>>,
    #[diesel(sql_type = Binary)]
    source: Vec<u8>,
    #[diesel(sql_type = BigInt)]
    pii: i64,
    #[diesel(sql_type = BigInt)]
    created_at: i64,
    #[diesel(sql_type = Binary)]
    detail: Vec<u8>,
    #[diesel(sql_type = Bool)]
    typed: bool,
}

impl TagRow {
    fn parts(&self) -> TagParts<'_> {
        TagParts {
            idx: self.idx,
            event_at: self.event_at,
            fingerprint: self.fingerprint.as_deref(),
            category: &self.category,
            canonical: &self.canonical,
            field: &self.field,
            description: &self.description,
            owner: self.owner.as_deref(),
            source: &self.source,
            pii: self.pii,
            created_at: self.created_at,
            detail: &self.detail,
        }
    }
}
