//! The one writer of an instance.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::dsl::case_when;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Nullable};
use diesel::upsert::excluded;

use super::chain::{self, EventParts, Hash, HeadParts, TagParts};
use super::schema::{
    self, Found, Mode, batches, event_counts, event_tags, events, fingerprints, instances, keys, owner_links,
};
use crate::Error;
use crate::detect::Entry;
use crate::error::ErrorKind;
use crate::key::Keys;
use crate::recorder::Ticket;
use crate::vocabulary::{Event, EventTag, EventType, Fingerprint, Kind, Outcome, Owner, Tag, Timestamp, category};

/// How long starting waits for others that start on the same file.
const OPEN_PATIENCE: Duration = Duration::from_secs(10);
/// How long a commit waits for another writer before it counts as failed, and is tried again.
const COMMIT_PATIENCE: Duration = Duration::from_secs(2);
/// Rows a statement: an array of fixed length keeps its prepared statement, and 16 columns of it
/// stay below the 999 variables of older SQLite builds.
const CHUNK: usize = 32;

/// Who writes: on every event of this process.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    /// Random; 16 hex digits on the wire.
    pub(crate) id: [u8; 8],
    pub(crate) service: String,
    pub(crate) environment: Option<String>,
    /// Hash of the binary's inventory, lower-case hex.
    pub(crate) build: String,
}

/// A value as the registry holds it, for the store to keep across restarts. Secrets never come here.
#[derive(Clone, Debug)]
pub(crate) struct Value {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) kind: Kind,
    pub(crate) entry: Entry,
    pub(crate) tag: Arc<Tag>,
}

/// One thing to append, in the order it was sent.
pub(crate) enum Record {
    /// An event; the writer fills the ticket with its sequence number.
    Event(Box<Event>, Ticket),
    /// The outcome of a DATA_SHARE recorded before: a record of its own.
    Outcome {
        of: Ticket,
        outcome: Outcome,
        created_at: Timestamp,
    },
    /// A value to be detected after a restart.
    Value(Box<Value>),
    /// Two owners are one person.
    Link(Owner, Owner),
}

/// The connection that writes.
pub(crate) struct Writer {
    connection: SqliteConnection,
    path: PathBuf,
    file: Option<FileId>,
    instance: i64,
    next_seq: i64,
    next_batch: i64,
    chain: Hash,
    /// The last attempt failed in a way that may have left its batch in the file.
    uncertain: bool,
    /// Stands for a commit that reports failure though it took place.
    #[cfg(test)]
    pub(super) fail_after_commit: bool,
}

/// What a store gives back at start.
#[derive(Default)]
pub(crate) struct Restored {
    /// Newest first.
    pub(crate) values: Vec<Value>,
    pub(crate) links: Vec<(Owner, Owner)>,
}

impl Writer {
    /// Opens or creates the file, migrates it, checks the key, and registers the instance.
    ///
    /// # Errors
    /// Not writable, not a database, newer version, other key: the file is left untouched.
    pub(crate) fn open(path: &Path, keys: &Keys, instance: &Instance) -> Result<Self, Error> {
        if schema::look(path)? == Found::Evidence {
            // First without a right to write: what is wrong must not be touched.
            check_key(path, &known_keys(path)?, keys)?;
        }
        schema::create(path)?;
        let mut connection = schema::connect(path, Mode::Write, OPEN_PATIENCE)?;
        let failed = |e| schema::failed(path, &e);
        connection
            .batch_execute("PRAGMA synchronous = FULL; PRAGMA secure_delete = ON;")
            .map_err(failed)?;
        let row = InstanceRow {
            instance: i64::from_be_bytes(instance.id),
            started_at: Timestamp::now().0,
            service: instance.service.clone(),
            environment: instance.environment.clone(),
            build: instance.build.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            key_id: keys.id.clone(),
        };
        // One exclusive transaction: of processes that start at once on a fresh file, one makes it.
        connection
            .exclusive_transaction(|connection| {
                schema::migrate(connection, path)?;
                register(connection, path, keys, &row).map_err(Refusal::from)
            })
            .map_err(|refusal| match refusal {
                Refusal::Ours(error) => error,
                Refusal::Sqlite(error) => failed(error),
            })?;
        write_ahead(&mut connection, path)?;
        connection
            .batch_execute(&format!("PRAGMA busy_timeout = {}", COMMIT_PATIENCE.as_millis()))
            .map_err(failed)?;
        Ok(Writer {
            chain: chain::head(&row.parts()),
            connection,
            file: FileId::of(path),
            path: path.to_owned(),
            instance: row.instance,
            next_seq: 1,
            next_batch: 1,
            uncertain: false,
            #[cfg(test)]
            fail_after_commit: false,
        })
    }

    /// What was registered before this start.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn restore(&mut self, max_values: usize) -> Result<Restored, Error> {
        let failed = |e| schema::failed(&self.path, &e);
        let rows = fingerprints::table
            .order(fingerprints::first_seen_at.desc())
            .limit(i64::try_from(max_values).unwrap_or(i64::MAX))
            .select(ValueRow::as_select())
            .load_iter::<ValueRow, diesel::connection::DefaultLoadingMode>(&mut self.connection)
            .map_err(failed)?;
        let mut words = Words::default();
        let mut values = Vec::new();
        for row in rows {
            // A damaged row is passed over: it must not keep the service from starting.
            values.extend(row.map_err(failed)?.value(&mut words));
        }
        let links = owner_links::table
            .select((owner_links::a, owner_links::b))
            .load::<(String, String)>(&mut self.connection)
            .map_err(failed)?
            .iter()
            .filter_map(|(a, b)| Some((Owner::from_stored(a)?, Owner::from_stored(b)?)))
            .collect();
        Ok(Restored { values, links })
    }

    /// Appends a batch in one transaction, chained and synced; all or nothing. Tickets are filled
    /// once it is on disk.
    ///
    /// # Errors
    /// Nothing of the batch is acknowledged; call again with the same batch.
    pub(crate) fn append(&mut self, batch: &[Record]) -> Result<(), Error> {
        self.same_file()?;
        let prepared = Prepared::new(self.instance, self.next_seq, batch)?;
        if self.uncertain && self.landed(&prepared)? {
            self.same_file()?;
        } else {
            self.uncertain = true;
            let chain = self.write(&prepared).inspect_err(|_| {
                // After a full disk SQLite has rolled back by itself: nothing to do then.
                let _ = self.connection.batch_execute("ROLLBACK");
            })?;
            #[cfg(test)]
            if std::mem::take(&mut self.fail_after_commit) {
                return Err(Error::new(ErrorKind::Store, "failed after the commit"));
            }
            // What went into a file that is no longer at its path is not evidence.
            self.same_file()?;
            if !prepared.events.is_empty() {
                self.chain = chain;
            }
        }
        self.uncertain = false;
        if !prepared.events.is_empty() {
            self.next_batch += 1;
            self.next_seq += prepared.count();
        }
        for (ticket, seq) in prepared.tickets {
            ticket.assign(seq.unsigned_abs());
        }
        Ok(())
    }

    /// Marks the end of the instance: what it has not said by now, it never will.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn end(&mut self) -> Result<(), Error> {
        self.same_file()?;
        diesel::update(instances::table.find(self.instance))
            .set(instances::ended_at.eq(Timestamp::now().0))
            .execute(&mut self.connection)
            .map(drop)
            .map_err(|e| schema::failed(&self.path, &e))
    }

    /// Stands for a full disk, which SQLite reports in the same way.
    #[cfg(test)]
    pub(super) fn limit_pages(&mut self, on: bool) {
        let pages = if on { 1 } else { 1 << 30 };
        let sql = format!("PRAGMA max_page_count = {pages}");
        let _ = self.connection.batch_execute(&sql);
    }

    /// Writes everything in one transaction; gives the new chain.
    fn write(&mut self, prepared: &Prepared<'_>) -> Result<Hash, Error> {
        let chain = chain::link(&self.chain, self.next_batch, self.next_seq, &prepared.leaves);
        let row = (
            batches::instance.eq(self.instance),
            batches::batch_no.eq(self.next_batch),
            batches::first_seq.eq(self.next_seq),
            batches::events.eq(prepared.count()),
            batches::chain.eq(chain.to_vec()),
        );
        let connection = &mut self.connection;
        // Not Diesel's transaction(): a full disk ends it inside SQLite, which Diesel takes amiss.
        connection
            .batch_execute("BEGIN IMMEDIATE")
            .and_then(|()| {
                prepared.insert(connection)?;
                if !prepared.events.is_empty() {
                    diesel::insert_into(batches::table).values(row).execute(connection)?;
                }
                connection.batch_execute("COMMIT")
            })
            .map_err(|e| schema::failed(&self.path, &e))?;
        Ok(chain)
    }

    /// Whether a batch whose commit seemed to fail is in the file after all.
    fn landed(&mut self, prepared: &Prepared<'_>) -> Result<bool, Error> {
        let found = batches::table
            .find((self.instance, self.next_batch))
            .select((batches::first_seq, batches::events, batches::chain))
            .get_result::<(i64, i64, Vec<u8>)>(&mut self.connection)
            .optional()
            .map_err(|e| schema::failed(&self.path, &e))?;
        match found {
            Some((first_seq, events, chain)) if first_seq == self.next_seq && events == prepared.count() => {
                if let Ok(chain) = chain.try_into() {
                    self.chain = chain;
                }
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn same_file(&self) -> Result<(), Error> {
        if self.file == FileId::of(&self.path) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Store,
            format!(
                "{}: the file was removed or replaced while it is written; put it back, or restart the service",
                self.path.display()
            ),
        ))
    }
}

/// Whether the file has no evidence yet (decides whether a new key may be made).
///
/// # Errors
/// What stands there cannot be used as an evidence file.
pub(crate) fn is_empty(path: &Path) -> Result<bool, Error> {
    Ok(match schema::look(path)? {
        Found::Nothing => true,
        Found::Evidence => known_keys(path)?.is_empty(),
    })
}

/// Key ids and check values in an evidence file.
fn known_keys(path: &Path) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let read = |mode| {
        let mut connection = schema::connect(path, mode, OPEN_PATIENCE)?;
        if schema::check(&mut connection, path)? == 0 {
            return Ok(Vec::new());
        }
        keys::table
            .select((keys::key_id, keys::check_value))
            .load(&mut connection)
            .map_err(|e| schema::failed(path, &e))
    };
    // A start that was cut short leaves a journal that only a writer may roll back.
    let journal = path.with_file_name(format!(
        "{}-journal",
        path.file_name().unwrap_or_default().to_string_lossy()
    ));
    read(if journal.exists() { Mode::Write } else { Mode::Read })
}

fn check_key(path: &Path, known: &[(String, Vec<u8>)], keys: &Keys) -> Result<(), Error> {
    let ours = |(id, check): &(String, Vec<u8>)| *id == keys.id && *check == keys.check;
    if known.is_empty() || known.iter().any(ours) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Key,
        format!(
            "{}: was written with another master key (key id {}, the given one has {}); give the key it was \
             written with (RUNTIME_TRACKING_KEY or key_file), or change storage_path to begin a new file",
            path.display(),
            known
                .first()
                .map_or("unknown", |(id, _)| id.get(..16).unwrap_or("unknown")),
            keys.id
        ),
    ))
}

/// Why a file could not be opened.
enum Refusal {
    Ours(Error),
    Sqlite(diesel::result::Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Refusal::Ours(error)
    }
}

impl From<diesel::result::Error> for Refusal {
    fn from(error: diesel::result::Error) -> Self {
        Refusal::Sqlite(error)
    }
}

fn register(
    connection: &mut SqliteConnection,
    path: &Path,
    master: &Keys,
    instance: &InstanceRow,
) -> Result<(), Error> {
    let failed = |e| schema::failed(path, &e);
    let known = keys::table
        .select((keys::key_id, keys::check_value))
        .load(connection)
        .map_err(failed)?;
    check_key(path, &known, master)?;
    if known.is_empty() {
        diesel::insert_into(keys::table)
            .values((
                keys::key_id.eq(&master.id),
                keys::epoch.eq(i64::from(master.epoch)),
                keys::check_value.eq(master.check.to_vec()),
                keys::created_at.eq(Timestamp::now().0),
            ))
            .execute(connection)
            .map_err(failed)?;
    }
    diesel::insert_into(instances::table)
        .values(instance)
        .execute(connection)
        .map(drop)
        .map_err(failed)
}

/// Switches to WAL, where readers and the writer do not wait for each other.
fn write_ahead(connection: &mut SqliteConnection, path: &Path) -> Result<(), Error> {
    #[derive(QueryableByName)]
    struct Journal {
        #[diesel(sql_type = diesel::sql_types::Text)]
        journal_mode: String,
    }
    let until = std::time::Instant::now() + OPEN_PATIENCE;
    loop {
        // SQLite does not wait here by itself while another start does the same.
        let switched = diesel::sql_query("PRAGMA journal_mode = WAL").get_result::<Journal>(connection);
        match switched {
            Ok(row) if row.journal_mode == "wal" => return Ok(()),
            Err(e) if std::time::Instant::now() > until => return Err(schema::failed(path, &e)),
            Ok(_) if std::time::Instant::now() > until => {
                return Err(Error::new(
                    ErrorKind::Store,
                    format!(
                        "{}: this file system does not support write-ahead logging",
                        path.display()
                    ),
                ));
            }
            _ => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// What tells a file from another one at the same path.
#[derive(PartialEq, Eq, Clone, Copy)]
struct FileId(u64, u64);

impl FileId {
    #[cfg(unix)]
    fn of(path: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(path).ok().map(|m| FileId(m.dev(), m.ino()))
    }

    /// Elsewhere an open database file can be neither removed nor replaced.
    #[cfg(not(unix))]
    fn of(path: &Path) -> Option<Self> {
        path.exists().then_some(FileId(0, 0))
    }
}

#[derive(Insertable)]
#[diesel(table_name = instances)]
struct InstanceRow {
    instance: i64,
    started_at: i64,
    service: String,
    environment: Option<String>,
    build: String,
    version: String,
    key_id: String,
}

impl InstanceRow {
    fn parts(&self) -> HeadParts<'_> {
        HeadParts {
            instance: self.instance,
            started_at: self.started_at,
            service: self.service.as_bytes(),
            environment: self.environment.as_deref().map(str::as_bytes),
            build: self.build.as_bytes(),
            version: self.version.as_bytes(),
            key_id: self.key_id.as_bytes(),
        }
    }
}

#[derive(Insertable)]
#[diesel(table_name = events, treat_none_as_default_value = false)]
struct EventRow {
    instance: i64,
    seq: i64,
    created_at: i64,
    event_type: String,
    actor: String,
    target: Option<String>,
    payload: String,
    owner: Option<String>,
    recipient: Option<String>,
    request_id: Option<String>,
    user_id: Option<String>,
    extras: String,
    outcome_of: Option<i64>,
    outcome: Option<String>,
    salt: Vec<u8>,
    leaf: Vec<u8>,
}

#[derive(Insertable)]
#[diesel(table_name = event_tags, treat_none_as_default_value = false)]
struct TagRow {
    instance: i64,
    seq: i64,
    idx: i64,
    event_at: i64,
    fingerprint: Option<Vec<u8>>,
    category: String,
    canonical: String,
    field: String,
    description: String,
    owner: Option<String>,
    source: String,
    pii: i64,
    created_at: i64,
    detail: String,
}

/// A batch as rows, chained from `next_seq` on.
struct Prepared<'a> {
    instance: i64,
    events: Vec<EventRow>,
    tags: Vec<TagRow>,
    leaves: Vec<Hash>,
    tickets: Vec<(&'a Ticket, i64)>,
    values: Vec<&'a Value>,
    links: Vec<(&'a Owner, &'a Owner)>,
    counts: BTreeMap<String, i64>,
    /// By the key of `fingerprints`, so that the updates run along it.
    seen: BTreeMap<(Fingerprint, Cow<'a, str>, &'a str), Seen>,
}

/// What a batch says of one fingerprint.
struct Seen {
    first_seq: i64,
    last_seq: i64,
    last_at: i64,
    events: i64,
}

impl<'a> Prepared<'a> {
    fn new(instance: i64, first_seq: i64, batch: &'a [Record]) -> Result<Self, Error> {
        let mut salts = vec![0; 16 * batch.len()];
        getrandom::fill(&mut salts)
            .map_err(|_| Error::new(ErrorKind::Store, "the system gives no random bytes for salts"))?;
        let (salts, _) = salts.as_chunks::<16>();
        let mut prepared = Prepared {
            instance,
            events: Vec::new(),
            tags: Vec::new(),
            leaves: Vec::new(),
            tickets: Vec::new(),
            values: Vec::new(),
            links: Vec::new(),
            counts: BTreeMap::new(),
            seen: BTreeMap::new(),
        };
        let mut here = HashMap::new();
        for (record, salt) in batch.iter().zip(salts) {
            let seq = first_seq + prepared.count();
            match record {
                Record::Event(event, ticket) => {
                    prepared.event(event, seq, salt);
                    prepared.tickets.push((ticket, seq));
                    here.insert(ticket.identity(), seq);
                }
                Record::Outcome {
                    of,
                    outcome,
                    created_at,
                } => {
                    let share = here.get(&of.identity()).copied();
                    // An event that was refused has no seq: its outcome would hang in the air.
                    if let Some(share) = share.or_else(|| i64::try_from(of.seq()?).ok()) {
                        prepared.outcome(share, outcome, *created_at, seq, salt);
                    }
                }
                Record::Value(value) => prepared.values.push(value),
                Record::Link(a, b) => prepared.links.push(if a < b { (a, b) } else { (b, a) }),
            }
        }
        Ok(prepared)
    }

    /// Events in the batch, outcomes included.
    fn count(&self) -> i64 {
        i64::try_from(self.events.len()).unwrap_or(i64::MAX)
    }

    fn event(&mut self, event: &'a Event, seq: i64, salt: &[u8; 16]) {
        let text = |text: &Option<Arc<str>>| text.as_deref().map(str::to_owned);
        let row = EventRow {
            instance: self.instance,
            seq,
            created_at: event.created_at.0,
            event_type: event.event_type.as_str().to_owned(),
            actor: (*event.actor).to_owned(),
            target: text(&event.target),
            payload: json(&event.payload),
            owner: event.owner.as_ref().map(|owner| owner.as_str().to_owned()),
            recipient: text(&event.recipient),
            request_id: text(&event.request_id),
            user_id: text(&event.user_id),
            extras: json(&event.extras),
            outcome_of: None,
            outcome: None,
            salt: salt.to_vec(),
            leaf: Vec::new(),
        };
        *self.counts.entry(row.event_type.clone()).or_insert(0) += 1;
        let first_tag = self.tags.len();
        for (idx, tag) in (0..).zip(&event.tags) {
            self.tag(tag, event.created_at, seq, idx);
        }
        self.push(row, first_tag);
    }

    fn tag(&mut self, EventTag { tag, detail }: &'a EventTag, event_at: Timestamp, seq: i64, idx: i64) {
        let canonical = category::canonical(&tag.category);
        let owner = tag.owner.as_ref().map(Owner::as_str);
        self.tags.push(TagRow {
            instance: self.instance,
            seq,
            idx,
            event_at: event_at.0,
            fingerprint: tag.fingerprint.map(|f| f.0.to_vec()),
            category: (*tag.category).to_owned(),
            canonical: canonical.to_string(),
            field: (*tag.field).to_owned(),
            description: (*tag.description).to_owned(),
            owner: owner.map(str::to_owned),
            source: (*tag.source).to_owned(),
            pii: i64::from(tag.pii),
            created_at: tag.created_at.0,
            detail: json(detail),
        });
        let Some(fingerprint) = tag.fingerprint else { return };
        let seen = self
            .seen
            .entry((fingerprint, canonical, owner.unwrap_or_default()))
            .or_insert(Seen {
                first_seq: seq,
                last_seq: 0,
                last_at: event_at.0,
                events: 0,
            });
        // One event that carries a value twice is still one event.
        seen.events += i64::from(seen.last_seq != seq);
        seen.last_seq = seq;
        seen.last_at = seen.last_at.max(event_at.0);
    }

    fn outcome(&mut self, of: i64, outcome: &Outcome, created_at: Timestamp, seq: i64, salt: &[u8; 16]) {
        let first_tag = self.tags.len();
        let row = EventRow {
            instance: self.instance,
            seq,
            created_at: created_at.0,
            event_type: EventType::DataShare.as_str().to_owned(),
            actor: String::new(),
            target: None,
            payload: "{}".to_owned(),
            owner: None,
            recipient: None,
            request_id: None,
            user_id: None,
            extras: "{}".to_owned(),
            outcome_of: Some(of),
            outcome: Some(match outcome {
                Outcome::Status(status) => format!("status {status}"),
                Outcome::Sent => "sent".to_owned(),
                Outcome::Error(kind) => format!("error {kind}"),
                Outcome::Blocked => "blocked".to_owned(),
                Outcome::Unknown => "unknown".to_owned(),
            }),
            salt: salt.to_vec(),
            leaf: Vec::new(),
        };
        self.push(row, first_tag);
    }

    fn push(&mut self, mut row: EventRow, first_tag: usize) {
        let tags = self.tags.iter().skip(first_tag).map(TagRow::parts);
        let leaf = chain::leaf(&row.parts(), tags);
        row.leaf = leaf.to_vec();
        self.leaves.push(leaf);
        self.events.push(row);
    }

    fn insert(&self, connection: &mut SqliteConnection) -> QueryResult<()> {
        let (chunks, rest) = self.events.as_chunks::<CHUNK>();
        for chunk in chunks {
            diesel::insert_into(events::table).values(chunk).execute(connection)?;
        }
        for row in rest {
            diesel::insert_into(events::table).values(row).execute(connection)?;
        }
        let (chunks, rest) = self.tags.as_chunks::<CHUNK>();
        for chunk in chunks {
            diesel::insert_into(event_tags::table)
                .values(chunk)
                .execute(connection)?;
        }
        for row in rest {
            diesel::insert_into(event_tags::table).values(row).execute(connection)?;
        }
        for (event_type, count) in &self.counts {
            diesel::insert_into(event_counts::table)
                .values((
                    event_counts::instance.eq(self.instance),
                    event_counts::event_type.eq(event_type),
                    event_counts::events.eq(count),
                ))
                .on_conflict((event_counts::instance, event_counts::event_type))
                .do_update()
                .set(event_counts::events.eq(event_counts::events + excluded(event_counts::events)))
                .execute(connection)?;
        }
        for value in &self.values {
            diesel::insert_into(fingerprints::table)
                .values(ValueRow::of(value))
                .on_conflict((fingerprints::fingerprint, fingerprints::canonical, fingerprints::owner))
                .do_update()
                .set((
                    fingerprints::kind.eq(excluded(fingerprints::kind)),
                    fingerprints::entry.eq(excluded(fingerprints::entry)),
                ))
                .execute(connection)?;
        }
        for ((fingerprint, canonical, owner), seen) in &self.seen {
            // Values that were never registered have no row, and get none.
            diesel::update(fingerprints::table.find((fingerprint.0.as_slice(), &**canonical, *owner)))
                .set((
                    fingerprints::events.eq(fingerprints::events + seen.events),
                    fingerprints::last_seen_at.eq(case_when(
                        fingerprints::last_seen_at.lt(seen.last_at),
                        seen.last_at.into_sql::<BigInt>(),
                    )
                    .otherwise(fingerprints::last_seen_at)),
                    fingerprints::first_instance.eq(case_when(
                        fingerprints::first_seq.is_null(),
                        self.instance.into_sql::<Nullable<BigInt>>(),
                    )
                    .otherwise(fingerprints::first_instance)),
                    fingerprints::first_seq.eq(case_when(
                        fingerprints::first_seq.is_null(),
                        seen.first_seq.into_sql::<Nullable<BigInt>>(),
                    )
                    .otherwise(fingerprints::first_seq)),
                ))
                .execute(connection)?;
        }
        for (a, b) in &self.links {
            diesel::insert_or_ignore_into(owner_links::table)
                .values((
                    owner_links::a.eq(a.as_str()),
                    owner_links::b.eq(b.as_str()),
                    owner_links::created_at.eq(Timestamp::now().0),
                ))
                .execute(connection)?;
        }
        Ok(())
    }
}

fn json(map: &serde_json::Map<String, serde_json::Value>) -> String {
    // A map of JSON values is always JSON.
    serde_json::to_string(map).unwrap_or_else(|_| "{}".to_owned())
}

impl EventRow {
    fn parts(&self) -> EventParts<'_> {
        EventParts {
            instance: self.instance,
            seq: self.seq,
            created_at: self.created_at,
            event_type: self.event_type.as_bytes(),
            actor: self.actor.as_bytes(),
            recipient: bytes(&self.recipient),
            outcome_of: self.outcome_of,
            outcome: bytes(&self.outcome),
            owner: bytes(&self.owner),
            user_id: bytes(&self.user_id),
            target: bytes(&self.target),
            payload: self.payload.as_bytes(),
            request_id: bytes(&self.request_id),
            extras: self.extras.as_bytes(),
            salt: &self.salt,
        }
    }
}

impl TagRow {
    fn parts(&self) -> TagParts<'_> {
        TagParts {
            idx: self.idx,
            event_at: self.event_at,
            fingerprint: self.fingerprint.as_deref(),
            category: self.category.as_bytes(),
            canonical: self.canonical.as_bytes(),
            field: self.field.as_bytes(),
            description: self.description.as_bytes(),
            owner: bytes(&self.owner),
            source: self.source.as_bytes(),
            pii: self.pii,
            created_at: self.created_at,
            detail: self.detail.as_bytes(),
        }
    }
}

fn bytes(text: &Option<String>) -> Option<&[u8]> {
    text.as_deref().map(str::as_bytes)
}

/// A registered value, on its way in and out.
#[derive(Insertable, Queryable, Selectable)]
#[diesel(table_name = fingerprints, treat_none_as_default_value = false)]
struct ValueRow {
    fingerprint: Vec<u8>,
    canonical: String,
    owner: String,
    category: String,
    field: String,
    description: String,
    source: String,
    pii: i64,
    kind: String,
    entry: Vec<u8>,
    first_seen_at: i64,
    last_seen_at: i64,
    events: i64,
}

impl ValueRow {
    fn of(value: &Value) -> Self {
        let tag = &value.tag;
        ValueRow {
            fingerprint: value.fingerprint.0.to_vec(),
            canonical: category::canonical(&tag.category).into_owned(),
            owner: tag.owner.as_ref().map_or_else(String::new, |o| o.as_str().to_owned()),
            category: (*tag.category).to_owned(),
            field: (*tag.field).to_owned(),
            description: (*tag.description).to_owned(),
            source: (*tag.source).to_owned(),
            pii: i64::from(tag.pii),
            kind: value.kind.as_str().to_owned(),
            entry: value.entry.to_bytes(),
            first_seen_at: tag.created_at.0,
            last_seen_at: tag.created_at.0,
            events: 0,
        }
    }

    fn value(self, words: &mut Words) -> Option<Value> {
        let fingerprint = Fingerprint(self.fingerprint.try_into().ok()?);
        Some(Value {
            fingerprint,
            kind: Kind::parse(&self.kind)?,
            entry: Entry::from_bytes(&self.entry)?,
            tag: Arc::new(Tag {
                fingerprint: Some(fingerprint),
                category: words.share(self.category),
                field: words.share(self.field),
                description: words.share(self.description),
                owner: Owner::from_stored(&self.owner),
                source: words.share(self.source),
                pii: self.pii != 0,
                created_at: Timestamp(self.first_seen_at),
            }),
        })
    }
}

/// A million values share a few dozen categories, fields and sources.
#[derive(Default)]
struct Words(std::collections::HashSet<Arc<str>>);

impl Words {
    fn share(&mut self, word: String) -> Arc<str> {
        if let Some(known) = self.0.get(word.as_str()) {
            return known.clone();
        }
        let word: Arc<str> = word.into();
        self.0.insert(word.clone());
        word
    }
}
