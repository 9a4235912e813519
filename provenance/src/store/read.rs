//! Reading evidence: no key needed, never writes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use diesel::prelude::*;
use diesel::sql_types::BigInt;
use serde::Serialize;
use serde_json::{Map, Value as Json, json};

use super::db::{self, Beside, Db, on};
use super::index::{FlowIds, Sight};
#[cfg(feature = "postgres-store")]
use super::postgres;
use super::postings::{Spot, Term};
use super::schema::{self, Found, Mode, Rest, event_counts, fingerprints, instances, keys};
use super::statement::statement;
use super::texts::Catalog;
use super::verify::{self, Verified};
use super::{pages, stored, values};
use crate::Error;
use crate::config::Storage;
use crate::error::ErrorKind;
use crate::vocabulary::Timestamp;

/// Tries to read a file at rest before it counts as being written.
const ATTEMPTS: usize = 3;

/// Reads evidence, also while services write it.
///
/// A file that nobody writes is read as it is: nothing is created beside it, and its folder may be
/// read-only. While a service writes, SQLite shares its journal's index (`-wal` and `-shm`, which
/// the service has made) with readers.
pub struct Reader {
    source: Source,
    memory: Memory,
    /// No other's, and another where the file was opened anew.
    number: u64,
}

/// What a reader sees: equal ones of the same evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    reader: u64,
    commits: i64,
}

enum Source {
    File {
        path: PathBuf,
        connection: SqliteConnection,
        /// How the file lay when the connection was made without a journal.
        rest: Option<Rest>,
    },
    #[cfg(feature = "postgres-store")]
    Server {
        server: postgres::Server,
        connection: Box<PgConnection>,
    },
}

/// What a reader keeps between questions.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) catalog: Catalog,
    /// By instance: what the file's own index does not have yet.
    pub(super) tails: HashMap<i64, Tail>,
}

/// The index over an instance's last events.
#[derive(Default)]
pub(super) struct Tail {
    /// How far the file's index went.
    pub(super) from: i64,
    /// How far this one goes.
    pub(super) upto: i64,
    pub(super) postings: BTreeSet<(Term, Spot)>,
    pub(super) sights: HashMap<u64, Sight>,
    pub(super) flows: BTreeMap<FlowIds, i64>,
}

/// Which events to list.
#[derive(Clone, Debug, Default)]
pub struct EventQuery {
    /// At most this many; the caller caps it.
    pub limit: usize,
    /// Only this event type.
    pub event_type: Option<String>,
    /// At or after.
    pub since: Option<Timestamp>,
    /// Before.
    pub until: Option<Timestamp>,
    /// Only events with a tag of this category (any spelling of the same category).
    pub category: Option<String>,
    /// Only shares with this recipient.
    pub recipient: Option<String>,
    /// Only this request's.
    pub request_id: Option<String>,
    /// Only events that carry this fingerprint (64 hex digits).
    pub fingerprint: Option<String>,
    /// Only events of this person under this identifier (`email:9f86..`): its owner, its user, or a tag's owner.
    pub owner: Option<String>,
    /// Continue after the page that gave this cursor.
    pub cursor: Option<String>,
}

/// One page of events, newest first.
#[derive(Debug, Serialize)]
pub struct EventPage {
    /// The events.
    pub events: Vec<StoredEvent>,
    /// Give it as `cursor` for the next page; `None` on the last.
    pub next_cursor: Option<String>,
}

/// An event as the audit API shows it.
#[derive(Debug, Clone, Serialize)]
pub struct StoredEvent {
    /// `<instance>-<seq>`.
    pub event_id: String,
    /// When the hook saw it.
    pub created_at: Timestamp,
    /// `DATA_SHARE`, ...
    pub event_type: String,
    /// Who did it.
    pub actor: String,
    /// Onto what.
    pub target: Option<String>,
    /// The shape of the data.
    pub payload: Map<String, Json>,
    /// The request.
    pub request_id: Option<String>,
    /// The signed-in user.
    pub user_id: Option<String>,
    /// The tags, each a flat object.
    pub matched_tags: Vec<Map<String, Json>>,
    /// Owner, recipient, outcome, certain, purpose, site, service, environment, build, instance, ...
    pub extras: Map<String, Json>,
}

/// Which days [`Reader::flows`] sums.
#[derive(Clone, Debug, Default)]
pub struct FlowQuery {
    /// From this time's day (UTC) on.
    pub since: Option<Timestamp>,
    /// Before this time; its day counts as a whole where it has begun.
    pub until: Option<Timestamp>,
}

/// How many events of one kind carried one kind of value.
#[derive(Clone, Debug, Serialize)]
pub struct Flow {
    /// What is the same in all of them.
    #[serde(flatten)]
    pub key: FlowKey,
    /// How many: an event with two values of the same field counts once.
    pub events: i64,
}

/// What tells flows apart.
#[derive(Clone, Debug, Serialize, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowKey {
    /// The UTC day, `2026-11-22`.
    pub day: String,
    /// `DATA_SHARE`, ...
    pub event_type: String,
    /// Who did it.
    pub actor: String,
    /// Onto what.
    pub target: Option<String>,
    /// Who a share went to.
    pub recipient: Option<String>,
    /// Category of the value, canonical.
    pub category: String,
    /// Field name of the value.
    pub field: String,
    /// Where the value was first seen.
    pub source: String,
    /// Whether it is personal data.
    pub pii: bool,
}

/// Which fingerprints to list.
#[derive(Clone, Debug, Default)]
pub struct FingerprintQuery {
    /// At most this many; the caller caps it.
    pub limit: usize,
    /// Only of this category (any spelling).
    pub category: Option<String>,
    /// Continue after the page that gave this cursor.
    pub cursor: Option<String>,
}

/// One page of fingerprints, in order of first appearance, newest first.
#[derive(Debug, Serialize)]
pub struct FingerprintPage {
    /// The fingerprints.
    pub fingerprints: Vec<StoredFingerprint>,
    /// Give it as `cursor` for the next page; `None` on the last.
    pub next_cursor: Option<String>,
}

/// A fingerprint with the tag it was first seen under.
#[derive(Debug, Clone, Serialize)]
pub struct StoredFingerprint {
    /// 64 hex digits.
    pub fingerprint: String,
    /// The first event that carried it; `None` if only a load was seen.
    pub first_seen_event_id: Option<String>,
    /// When it was first seen.
    pub first_seen_at: Timestamp,
    /// When it was last seen.
    pub last_seen_at: Timestamp,
    /// Field name.
    pub field: String,
    /// Category as written.
    pub category: String,
    /// Description.
    pub description: String,
    /// Whose.
    pub owner: Option<String>,
    /// Where first seen.
    pub source: String,
    /// Events that carried it.
    pub count: i64,
}

/// What `/status` shows of the file.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Events by type.
    pub events: std::collections::BTreeMap<String, i64>,
    /// Distinct (fingerprint, category, owner).
    pub fingerprints: i64,
    /// `instances`, `batches`, `last_seq` and `head` {`instance`, `batch`, `hash`} of the newest instance,
    /// `checked` (`tail`), `ok`, and where that is false, `problem` {`event_id`, `what`}.
    pub chain: Map<String, Json>,
    /// Key id.
    pub key_id: Option<String>,
}

impl Reader {
    /// Opens an existing file read-only.
    ///
    /// # Errors
    /// [`Error::is_store`]: missing, not a database, not an evidence file, or of a newer version.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let rest = Rest::of(path);
        match Reader::open_at(path, rest) {
            // A service began to write it at the same time.
            Err(_) if rest.is_some() && rest != Rest::of(path) => Reader::open_at(path, None),
            opened => opened,
        }
    }

    fn open_at(path: &Path, rest: Option<Rest>) -> Result<Self, Error> {
        let empty = || {
            let text = format!(
                "{}: there is no evidence file here (yet); check the path",
                path.display()
            );
            Err(Error::new(ErrorKind::Store, text))
        };
        if schema::look(path)? == Found::Nothing {
            return empty();
        }
        let mut connection = db::reading(path, mode(&rest))?;
        if schema::check(&mut connection, path)? == 0 {
            return empty();
        }
        Ok(Reader {
            source: Source::File {
                path: path.to_owned(),
                connection,
                rest,
            },
            memory: Memory::default(),
            number: number(),
        })
    }

    /// Opens what `storage_path` names: a file, or with the feature `postgres-store` a PostgreSQL database, of
    /// which a user with the right to SELECT in the schema `provenance` is enough.
    ///
    /// # Errors
    /// As [`Reader::open`]; [`Error::is_config`] for a database without that feature.
    pub fn connect(storage: &Storage) -> Result<Self, Error> {
        match storage {
            Storage::Sqlite(path) => Reader::open(path),
            #[cfg(feature = "postgres-store")]
            Storage::Postgres(url) => {
                let server = postgres::Server::new(url);
                Ok(Reader {
                    source: Source::Server {
                        connection: Box::new(server.reader()?),
                        server,
                    },
                    memory: Memory::default(),
                    number: number(),
                })
            }
            #[cfg(not(feature = "postgres-store"))]
            Storage::Postgres(_) => Err(super::no_server()),
        }
    }

    /// Tells whether anything was committed since this reader was asked before; for much less than a question costs. What
    /// was read after one version is right for as long as the next one is equal. `None` of a server, which does not tell.
    ///
    /// # Errors
    /// [`Error::is_store`] when the file cannot be read.
    pub fn version(&mut self) -> Result<Option<Version>, Error> {
        #[derive(QueryableByName)]
        struct Row {
            #[diesel(sql_type = BigInt)]
            data_version: i64,
        }
        let row: Option<Row> = self.ask(|connection, _, _| match connection {
            Db::Sqlite(connection) => statement!("PRAGMA data_version").get_result(*connection).map(Some),
            #[cfg(feature = "postgres-store")]
            Db::Postgres(_) => Ok(None),
        })?;
        Ok(row.map(|row| Version {
            reader: self.number,
            commits: row.data_version,
        }))
    }

    /// Events, newest first: by the time at which they were seen, but never before one that was
    /// recorded after them. A DATA_SHARE is folded with its outcome.
    ///
    /// A page may hold fewer events than asked for and still give a cursor, where a filter meets
    /// few of very many.
    ///
    /// # Errors
    /// [`Error::is_input`] for a malformed cursor; [`Error::is_store`] when the file cannot be read.
    pub fn events(&mut self, query: &EventQuery) -> Result<EventPage, Error> {
        let from = query.cursor.as_deref().map(EventKey::parse).transpose()?;
        self.snapshot(|connection, memory| pages::event_page(connection, memory, query, from))
    }

    /// One event, by its id; `None` where there is none.
    ///
    /// # Errors
    /// [`Error::is_store`] when the file cannot be read.
    pub fn event(&mut self, event_id: &str) -> Result<Option<StoredEvent>, Error> {
        let key = event_id.split_once('-').and_then(|(instance, seq)| {
            let instance = u64::from_str_radix(instance, 16).ok()?.cast_signed();
            Some((instance, seq.parse::<i64>().ok()?))
        });
        let Some((instance, seq)) = key else { return Ok(None) };
        self.snapshot(|connection, memory| {
            let n = pages::number_of(connection, instance)?;
            let rows = stored::rows(connection, memory, &[Spot { at: 0, n, seq }])?;
            let types = pages::types(connection)?;
            Ok(stored::stored(connection, memory, rows, &types)?.pop())
        })
    }

    /// All identifiers of the person who has this one, it among them; in order.
    ///
    /// # Errors
    /// [`Error::is_store`] when the file cannot be read.
    pub fn identifiers(&mut self, owner: &str) -> Result<Vec<String>, Error> {
        self.snapshot(|connection, _| values::identifiers(connection, owner))
    }

    /// What went where, summed: one flow for each combination of its keys and UTC day.
    ///
    /// # Errors
    /// [`Error::is_store`] when the file cannot be read.
    pub fn flows(&mut self, query: &FlowQuery) -> Result<Vec<Flow>, Error> {
        self.snapshot(|connection, memory| values::summed_flows(connection, memory, query))
    }

    /// Fingerprints.
    ///
    /// # Errors
    /// As [`Reader::events`].
    pub fn fingerprints(&mut self, query: &FingerprintQuery) -> Result<FingerprintPage, Error> {
        let cursor = query.cursor.as_deref();
        let from = cursor.map(|text| EventKey::parse(text.strip_prefix(values::FINGERPRINTS).unwrap_or_default()));
        let from = from.transpose()?;
        self.snapshot(|connection, memory| values::fingerprint_page(connection, memory, query, from))
    }

    /// The chain of an instance (16 hex digits) after a batch; `None` where the file has no such batch. Whether the
    /// events give this chain is for [`Reader::verify`] to say.
    ///
    /// # Errors
    /// [`Error::is_store`] when the file cannot be read.
    pub fn chain_at(&mut self, instance: &str, batch_no: i64) -> Result<Option<[u8; 32]>, Error> {
        let Ok(instance) = u64::from_str_radix(instance, 16) else {
            return Ok(None);
        };
        self.snapshot(|connection, _| verify::chain_at(connection, instance.cast_signed(), batch_no))
    }

    /// Counts. Cheap enough to be asked every second; the chain is checked over its tail only:
    /// the last batch of the instance that started last.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn summary(&mut self) -> Result<Summary, Error> {
        self.snapshot(|connection, _| {
            let mut events = BTreeMap::new();
            // One row for each instance and type: summed here, as SQL's sum may overflow.
            for (event_type, count) in on!(
                connection,
                event_counts::table
                    .select((event_counts::name, event_counts::events))
                    .load::<(String, i64)>(connection)
            )? {
                let total: &mut i64 = events.entry(event_type).or_default();
                *total = total.saturating_add(count);
            }
            Ok(Summary {
                events,
                fingerprints: on!(connection, fingerprints::table.count().get_result(connection))?,
                chain: chain_tail(connection)?,
                key_id: on!(
                    connection,
                    keys::table
                        .order(keys::epoch.desc())
                        .select(keys::key_id)
                        .first(connection)
                )
                .optional()?,
            })
        })
    }

    /// Recomputes every instance's chain from its rows. Needs no key. What it cannot see: a whole
    /// instance, or the last batches of one, removed together with their rows.
    ///
    /// # Errors
    /// The file cannot be read. What does not hold is not an error but in the answer.
    pub fn verify(&mut self) -> Result<Verified, Error> {
        self.ask(|connection, _, beside| verify::verify(connection, beside))
    }

    /// One view of the evidence, whatever is written meanwhile.
    fn snapshot<T>(&mut self, read: impl Fn(&mut Db<'_>, &mut Memory) -> QueryResult<T>) -> Result<T, Error> {
        self.ask(|connection, memory, _| connection.snapshot(|connection| read(connection, memory)))
    }

    /// Asks a file at rest, and again if it was not at rest all the time: SQLite does not watch a file
    /// that it was told to read as it is. A server that was gone meanwhile is asked again on a new connection.
    fn ask<T>(&mut self, read: impl Fn(&mut Db<'_>, &mut Memory, &Beside<'_>) -> QueryResult<T>) -> Result<T, Error> {
        for attempt in 1.. {
            match &mut self.source {
                Source::File { path, connection, rest } => {
                    if rest.is_some() && *rest != Rest::of(path) {
                        *self = match attempt {
                            1..=ATTEMPTS => Reader::open(path)?,
                            _ => Reader::open_at(path, None)?,
                        };
                        continue;
                    }
                    let beside = Beside::File(path, mode(rest));
                    let answer = read(&mut Db::Sqlite(connection), &mut self.memory, &beside);
                    if rest.is_none() || *rest == Rest::of(path) {
                        return answer.map_err(|e| schema::failed(path, &e));
                    }
                }
                #[cfg(feature = "postgres-store")]
                Source::Server { server, connection } => {
                    match read(&mut Db::Postgres(connection), &mut self.memory, &Beside::Server(server)) {
                        Err(_) if attempt == 1 => **connection = server.reader()?,
                        answer => return answer.map_err(|e| server.failed(&e)),
                    }
                }
            }
        }
        // The loop above ends with an answer.
        Err(Error::new(ErrorKind::Store, "the evidence cannot be read"))
    }
}

/// A file without a journal is read as it is.
fn mode(rest: &Option<Rest>) -> Mode {
    if rest.is_some() { Mode::Look } else { Mode::Read }
}

fn number() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed)
}

fn bad_cursor() -> Error {
    Error::new(
        ErrorKind::Input,
        "cursor: is not one that an earlier page gave; leave it out to begin with the newest",
    )
}

/// 16 hex digits of a 64-bit number, from the front of `text`.
fn take_number(text: &mut &str) -> Option<i64> {
    let (digits, rest) = text.split_at_checked(16)?;
    let canonical = digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    *text = rest;
    Some(
        u64::from_str_radix(digits, 16)
            .ok()
            .filter(|_| canonical)?
            .cast_signed(),
    )
}

/// The place of an event in the order of pages, as a cursor has it.
#[derive(Clone, Copy)]
pub(super) struct EventKey {
    pub(super) at: i64,
    pub(super) instance: i64,
    pub(super) seq: i64,
}

impl EventKey {
    fn parse(mut text: &str) -> Result<Self, Error> {
        let mut number = || take_number(&mut text);
        let key = (number(), number(), number());
        match key {
            (Some(at), Some(instance), Some(seq)) if text.is_empty() => Ok(EventKey { at, instance, seq }),
            _ => Err(bad_cursor()),
        }
    }
}

impl std::fmt::Display for EventKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}{:016x}{:016x}", self.at, self.instance, self.seq)
    }
}

/// State of the chain for `/status`.
fn chain_tail(connection: &mut Db<'_>) -> QueryResult<Map<String, Json>> {
    let tail = verify::tail(connection)?;
    let mut chain = Map::new();
    chain.insert(
        "instances".into(),
        on!(connection, instances::table.count().get_result::<i64>(connection))?.into(),
    );
    chain.insert("batches".into(), verify::batches(connection)?.into());
    chain.insert("last_seq".into(), tail.last_seq.into());
    chain.insert("head".into(), json!(tail.head));
    chain.insert("checked".into(), "tail".into());
    chain.insert("ok".into(), tail.problem.is_none().into());
    if let Some(problem) = tail.problem {
        chain.insert("problem".into(), json!(problem));
    }
    Ok(chain)
}
