//! The leaves of an instance, computed from its rows: one thread reads, and all of them hash.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::num::NonZero;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::thread::Scope;

use crossbeam_channel::{Receiver, Sender, unbounded};
use diesel::connection::DefaultLoadingMode;
use diesel::deserialize::{self, FromSqlRow};
use diesel::prelude::*;
use diesel::row::Field;
use diesel::sql_types::{BigInt, Binary, Bool, Integer, Nullable, Text};
use diesel::sqlite::{Sqlite, SqliteType};

use super::chain::{self, Body, Hash, Header};
use super::db::{Db, on};
use super::proof::{CHANGED, Items, Proof};
use super::retention::Retained;
use super::statement::statement;

/// Events that are read at once, and that one thread hashes.
const CHUNK: i64 = 1_024;
/// Fewer of them, where they are large.
const CHUNK_BYTES: usize = 4 << 20;
/// Most threads beside the one that reads.
const MOST_HELPERS: usize = 7;
/// Of a row that nobody of us wrote.
const OTHER_TYPE: &str = "the event holds something of another type";

/// What gives a leaf, or does not.
type Leaf = Result<Hash, &'static str>;

/// The leaves from one on, which are asked for in order.
pub(super) struct Leaves {
    n: i64,
    known: Arc<Known>,
    /// What is to be read next.
    from: i64,
    /// Nothing followed when it was read.
    at_end: bool,
    jobs: Sender<Job>,
    /// The same queue: who reads helps where nothing is left to be read.
    waiting: Receiver<Job>,
    done: Receiver<Done>,
    most: u64,
    /// Numbers of the chunk that was read last, and of the one that is wanted next.
    read: u64,
    next: u64,
    early: BTreeMap<u64, Done>,
    ready: VecDeque<(i64, Leaf)>,
}

struct Job {
    number: u64,
    chunk: Chunk,
    known: Arc<Known>,
}

struct Done {
    number: u64,
    chunk: Chunk,
    leaves: Vec<(i64, Leaf)>,
}

impl Job {
    fn done(self) -> Done {
        let hash = || {
            self.chunk
                .rows
                .iter()
                .map(|row| (row.seq, self.known.leaf(row, &self.chunk.bytes)))
        };
        // Events that made it panic are left out: they count as missing.
        let leaves = std::panic::catch_unwind(AssertUnwindSafe(|| hash().collect())).unwrap_or_default();
        Done {
            number: self.number,
            chunk: self.chunk,
            leaves,
        }
    }
}

impl Leaves {
    /// With as many threads as there are processors.
    pub(super) fn start<'scope>(
        scope: &'scope Scope<'scope, '_>,
        instance: (i64, i64),
        retained: Retained,
        connection: &mut Db<'_>,
    ) -> QueryResult<Self> {
        let helpers = std::thread::available_parallelism()
            .map_or(0, |all| NonZero::get(all) - 1)
            .min(MOST_HELPERS);
        let (leaves, done) = Leaves::new(instance, retained, 1, connection)?;
        let mut leaves = Leaves { most: 2, ..leaves };
        for _ in 0..helpers {
            let (jobs, done) = (leaves.waiting.clone(), done.clone());
            let helper = std::thread::Builder::new().name("provenance-verify".into());
            let started = helper.spawn_scoped(scope, move || {
                while let Ok(job) = jobs.recv() {
                    if done.send(job.done()).is_err() {
                        break;
                    }
                }
            });
            // Without threads it is done all the same.
            leaves.most += 2 * u64::from(started.is_ok());
        }
        Ok(leaves)
    }

    /// From a seq on, on this thread alone.
    pub(super) fn alone(
        instance: (i64, i64),
        retained: Retained,
        from: i64,
        connection: &mut Db<'_>,
    ) -> QueryResult<Self> {
        Leaves::new(instance, retained, from, connection).map(|(leaves, _)| leaves)
    }

    fn new(
        (n, instance): (i64, i64),
        retained: Retained,
        from: i64,
        connection: &mut Db<'_>,
    ) -> QueryResult<(Self, Sender<Done>)> {
        let (jobs, waiting) = unbounded();
        let (told, done) = unbounded();
        let leaves = Leaves {
            n,
            known: Arc::new(Known::load(connection, n, instance, retained)?),
            from,
            at_end: false,
            jobs,
            waiting,
            done,
            most: 1,
            read: 0,
            next: 0,
            early: BTreeMap::new(),
            ready: VecDeque::new(),
        };
        Ok((leaves, told))
    }

    /// The leaf of an event.
    pub(super) fn of(&mut self, seq: i64, connection: &mut Db<'_>) -> QueryResult<Leaf> {
        loop {
            match self.ready.front() {
                Some((ready, _)) if *ready < seq => {
                    self.ready.pop_front();
                    continue;
                }
                Some((ready, leaf)) if *ready == seq => return Ok(*leaf),
                Some(_) => return Ok(Err("the event is missing")),
                None => {}
            }
            // What a service has written meanwhile is read in another go.
            if !self.advance(connection)? && !self.advance(connection)? {
                return Ok(Err("the event is missing"));
            }
        }
    }

    /// Makes the next chunk ready; `false` where nothing more was there.
    fn advance(&mut self, connection: &mut Db<'_>) -> QueryResult<bool> {
        loop {
            if let Some(done) = self.early.remove(&self.next) {
                self.next += 1;
                self.take(done, connection)?;
                return Ok(true);
            }
            if !self.at_end && self.read - self.next < self.most {
                let chunk = Chunk::read(connection, self.n, self.from)?;
                self.at_end = chunk.rows.len() < usize::try_from(CHUNK).unwrap_or(usize::MAX) && !chunk.is_cut;
                let Some(last) = chunk.rows.last() else { continue };
                self.from = last.seq.saturating_add(1);
                let job = Job {
                    number: self.read,
                    chunk,
                    known: self.known.clone(),
                };
                self.read += 1;
                // Received from here, too: it is never closed.
                let _ = self.jobs.send(job);
            } else if self.read == self.next {
                self.at_end = false;
                return Ok(false);
            } else {
                let done = match self.waiting.try_recv() {
                    Ok(job) => Some(job.done()),
                    Err(_) => self.done.recv().ok(),
                };
                let Some(done) = done else { return Ok(false) };
                self.early.insert(done.number, done);
            }
        }
    }

    fn take(&mut self, done: Done, connection: &mut Db<'_>) -> QueryResult<()> {
        let mut leaves = done.leaves;
        if leaves.iter().any(|(_, leaf)| leaf.is_err()) {
            // A service that writes meanwhile has said before what the rows refer to.
            let mut retained = self.known.retained.clone();
            retained.refresh(connection)?;
            self.known = Arc::new(Known::load(connection, self.n, self.known.instance, retained)?);
            let job = Job {
                number: done.number,
                chunk: done.chunk,
                known: self.known.clone(),
            };
            leaves = job.done().leaves;
        }
        self.ready.extend(leaves);
        Ok(())
    }
}

/// What rows refer to.
struct Known {
    instance: i64,
    retained: Retained,
    /// Hashes of texts by number; those with numbers that no writer gives are apart.
    texts: Vec<Option<Hash>>,
    strays: HashMap<i32, Hash>,
    types: HashMap<i32, Hash>,
}

impl Known {
    fn load(connection: &mut Db<'_>, n: i64, instance: i64, retained: Retained) -> QueryResult<Self> {
        let mut texts = HashMap::new();
        // As bytes, and only what is a text: no conversion hides an edit. A number beyond 32 bits is none of
        // ours: a narrower read would cut off what was changed.
        let mut add = |(id, text, is_text): (i64, Vec<u8>, bool)| {
            if let Ok(id) = i32::try_from(id)
                && is_text
            {
                texts.insert(id, chain::bytes(&text));
            }
        };
        match connection {
            Db::Sqlite(connection) => statement!(
                "SELECT id, CAST(text AS BLOB), typeof(text) = 'text' FROM texts WHERE n = ?",
                n
            )
            .typed::<(BigInt, Binary, Bool)>()
            .load_iter::<_, DefaultLoadingMode>(*connection)?
            .try_for_each(|text| text.map(&mut add))?,
            #[cfg(feature = "postgres-store")]
            Db::Postgres(connection) => statement!("SELECT id::bigint, text, true FROM texts WHERE n = ?", n)
                .typed::<(BigInt, Binary, Bool)>()
                .load_iter::<_, DefaultLoadingMode>(*connection)?
                .try_for_each(|text| text.map(&mut add))?,
        }
        let types = statement!("SELECT event_type, name FROM event_counts WHERE n = ?", n);
        let types = types.typed::<(Integer, Text)>();
        let types = on!(connection, types.load::<(i32, String)>(connection))?;
        let mut known = Known {
            instance,
            retained,
            texts: vec![None; texts.len() + 1],
            strays: HashMap::new(),
            types: types
                .into_iter()
                .filter(|(code, name)| super::schema::type_code(name) == *code)
                .map(|(code, name)| (code, chain::text(&name)))
                .chain([(super::schema::type_code("DATA_SHARE"), chain::text("DATA_SHARE"))])
                .collect(),
        };
        for (id, hash) in texts {
            match usize::try_from(id).ok().and_then(|at| known.texts.get_mut(at)) {
                Some(text) => *text = Some(hash),
                None => drop(known.strays.insert(id, hash)),
            }
        }
        Ok(known)
    }

    fn text(&self, id: i32) -> Result<&Hash, &'static str> {
        let near = usize::try_from(id).ok().and_then(|at| self.texts.get(at));
        let text = near.and_then(Option::as_ref).or_else(|| self.strays.get(&id));
        text.ok_or("a text that the event names is missing, or was changed")
    }

    fn leaf(&self, row: &Row, bytes: &[u8]) -> Leaf {
        if !row.typed {
            return Err(OTHER_TYPE);
        }
        let mut rest = bytes.get(row.start..).unwrap_or_default();
        let mut blobs = row.lengths.map(|length| {
            let (blob, after) = rest.split_at_checked(length?)?;
            rest = after;
            Some(blob)
        });
        let [owner, user_id, request_id, payload, extras, tags, proof] = &mut blobs;
        let proof = Proof::read(proof.unwrap_or_default()).ok_or(CHANGED)?;
        let created_at = row.at.wrapping_mul(1000).wrapping_add(row.after);
        let items = Items {
            owner: *owner,
            user_id: *user_id,
            target: row.target,
            request_id: *request_id,
            payload: payload.unwrap_or_default(),
            extras: extras.unwrap_or_default(),
            tags: tags.unwrap_or_default(),
            created_at,
        };
        let header = Header {
            instance: self.instance,
            seq: row.seq,
            at: row.at,
            created_at,
            event_type: row.event_type,
            type_name: self
                .types
                .get(&row.event_type)
                .ok_or("the event's type is not known, or was changed")?,
            actor: self.text(row.actor)?,
            recipient: row.recipient.map(|id| self.text(id)).transpose()?,
            outcome_of: row.outcome_of,
        };
        let leaf = match &proof.body {
            Some(_) if !items.is_stub() => return Err(CHANGED),
            Some(_) if !self.retained.cover(row.event_type, row.at) => {
                return Err("the event was reduced to a stub, and no record of a retention covers it");
            }
            Some(body) => header.leaf(body),
            None => {
                let mut body = Body::new(proof.salts.clone());
                items.commit(&proof, |id| self.text(id), &mut body)?;
                body.leaf(&header)
            }
        };
        if leaf != proof.leaf {
            return Err(CHANGED);
        }
        Ok(leaf)
    }
}

/// Some rows, their bytes in one piece.
struct Chunk {
    rows: Vec<Row>,
    bytes: Vec<u8>,
    /// It was full before its rows were many.
    is_cut: bool,
}

/// A row; its bytes are in its chunk.
struct Row {
    seq: i64,
    at: i64,
    after: i64,
    event_type: i32,
    actor: i32,
    target: Option<i32>,
    recipient: Option<i32>,
    outcome_of: Option<i64>,
    start: usize,
    /// Of owner, user_id, request_id, payload, extras, tags and proof.
    lengths: [Option<usize>; 7],
    /// Every column holds what it may.
    typed: bool,
}

impl Chunk {
    fn read(connection: &mut Db<'_>, n: i64, from: i64) -> QueryResult<Self> {
        let mut chunk = Chunk {
            rows: Vec::with_capacity(usize::try_from(CHUNK).unwrap_or_default()),
            bytes: Vec::with_capacity(CHUNK_BYTES / 8),
            is_cut: false,
        };
        on!(connection, {
            let rows = statement!(
                "SELECT seq, at, after, event_type, actor, target, recipient, outcome_of, owner, user_id, \
                 request_id, payload, extras, tags, proof FROM events WHERE n = ? AND seq >= ? ORDER BY seq LIMIT ?",
                n,
                from,
                CHUNK
            );
            for row in rows
                .typed::<Columns>()
                .load_iter::<Raw, DefaultLoadingMode>(connection)?
            {
                chunk.push(row?, from);
                if chunk.is_cut {
                    break;
                }
            }
        });
        Ok(chunk)
    }

    fn push(&mut self, Raw { mut row, bytes }: Raw, from: i64) {
        row.start = self.bytes.len();
        self.bytes.extend_from_slice(&bytes);
        // What has no number stands where the next one should.
        row.seq = row
            .seq
            .max(self.rows.last().map_or(from, |last| last.seq.saturating_add(1)));
        self.rows.push(row);
        self.is_cut = self.bytes.len() >= CHUNK_BYTES;
    }
}

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
);

/// A row as it is read: a file's columns may hold anything.
struct Raw {
    row: Row,
    bytes: Vec<u8>,
}

impl Row {
    /// Of eight numbers, where they are ones.
    fn of(numbers: [Option<i64>; 8], lengths: [Option<usize>; 7], mut typed: bool) -> Self {
        let [seq, at, after, event_type, actor, target, recipient, outcome_of] = numbers;
        let mut present = |number: Option<i64>| {
            typed &= number.is_some();
            number.unwrap_or(i64::MIN)
        };
        let (seq, at, after) = (present(seq), present(at), present(after));
        let (event_type, actor) = (present(event_type), present(actor));
        let mut narrow = |number: i64, least: i32| {
            let narrow = i32::try_from(number).ok().filter(|number| *number >= least);
            typed &= narrow.is_some();
            narrow.unwrap_or_default()
        };
        Row {
            seq,
            at,
            after,
            event_type: narrow(event_type, i32::MIN),
            actor: narrow(actor, 0),
            target: target.map(|target| narrow(target, 0)),
            recipient: recipient.map(|recipient| narrow(recipient, 0)),
            outcome_of,
            start: 0,
            lengths,
            typed: typed && lengths.iter().skip(3).all(Option::is_some),
        }
    }
}

impl FromSqlRow<Columns, Sqlite> for Raw {
    fn build_from_row<'a>(columns: &impl diesel::row::Row<'a, Sqlite>) -> deserialize::Result<Self> {
        let mut typed = true;
        let mut numbers = [None; 8];
        for (at, number) in numbers.iter_mut().enumerate() {
            let field = columns.get(at).ok_or(OTHER_TYPE)?;
            if let Some(mut value) = field.value() {
                // `SqliteType` says of every integer that it is a long one.
                match value.value_type() {
                    Some(SqliteType::Long) => *number = Some(value.read_long()),
                    _ => typed = false,
                }
            }
        }
        let mut bytes = Vec::with_capacity(512);
        let mut lengths = [None; 7];
        for (at, length) in (8..).zip(&mut lengths) {
            let field = columns.get(at).ok_or(OTHER_TYPE)?;
            if let Some(mut value) = field.value() {
                match value.value_type() {
                    Some(SqliteType::Binary) => {
                        let blob = value.read_blob();
                        *length = Some(blob.len());
                        bytes.extend_from_slice(blob);
                    }
                    _ => typed = false,
                }
            }
        }
        Ok(Raw {
            row: Row::of(numbers, lengths, typed),
            bytes,
        })
    }
}

#[cfg(feature = "postgres-store")]
impl FromSqlRow<Columns, diesel::pg::Pg> for Raw {
    fn build_from_row<'a>(columns: &impl diesel::row::Row<'a, diesel::pg::Pg>) -> deserialize::Result<Self> {
        use diesel::deserialize::FromSql;
        use diesel::pg::Pg;
        let mut numbers = [None; 8];
        for (at, number) in numbers.iter_mut().enumerate() {
            let field = columns.get(at).ok_or(OTHER_TYPE)?;
            *number = match field.value() {
                Some(value) if (3..7).contains(&at) => Some(i64::from(<i32 as FromSql<Integer, Pg>>::from_sql(value)?)),
                Some(value) => Some(<i64 as FromSql<BigInt, Pg>>::from_sql(value)?),
                None => None,
            };
        }
        let mut bytes = Vec::with_capacity(512);
        let mut lengths = [None; 7];
        for (at, length) in (8..).zip(&mut lengths) {
            let field = columns.get(at).ok_or(OTHER_TYPE)?;
            if let Some(value) = field.value() {
                let blob = value.as_bytes();
                *length = Some(blob.len());
                bytes.extend_from_slice(blob);
            }
        }
        Ok(Raw {
            row: Row::of(numbers, lengths, true),
            bytes,
        })
    }
}
