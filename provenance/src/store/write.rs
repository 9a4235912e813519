//! The one writer of an instance.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;

use super::batch::{Prepared, ValueRow, Words};
use super::chain::{self, Hash, HeadParts};
use super::schema::{self, Found, Mode, Rest, batches, fingerprints, instances, keys, owner_links, replays};
use crate::Error;
use crate::detect::Entry;
use crate::error::ErrorKind;
use crate::key::Keys;
use crate::recorder::Ticket;
use crate::vocabulary::{Event, Fingerprint, Kind, Late, Outcome, Owner, Tag, Timestamp};

/// How long starting waits for others that start on the same file.
const OPEN_PATIENCE: Duration = Duration::from_secs(10);
/// How long a commit waits for another writer before it counts as failed, and is tried again.
const COMMIT_PATIENCE: Duration = Duration::from_millis(500);

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
        late: Option<Box<Late>>,
    },
    /// A value to be detected after a restart.
    Value(Box<Value>),
    /// Two owners are one person.
    Link(Owner, Owner),
}

/// How far a recorder has come, by the id of its spill file: kept with the batch that it speaks of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SpillMark {
    pub(crate) id: [u8; 16],
    pub(crate) offset: u64,
}

/// The connection that writes.
pub(crate) struct Writer {
    connection: SqliteConnection,
    path: PathBuf,
    file: FileId,
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
            // What a busy service writes goes to the same pages again and again: they are kept (8 MB), and
            // brought from the journal into the file after 16 MB, not after 4.
            .batch_execute(
                "PRAGMA synchronous = FULL; PRAGMA secure_delete = ON; PRAGMA cache_size = -8192; \
                 PRAGMA wal_autocheckpoint = 4000;",
            )
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
            file: FileId::of(path).ok_or_else(|| gone(path))?,
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

    /// Appends a batch in one transaction, chained and synced, with its mark; all or nothing. Tickets are
    /// filled once it is on disk.
    ///
    /// # Errors
    /// Nothing of the batch is acknowledged; call again with the same batch.
    pub(crate) fn append(&mut self, batch: &[Record], mark: Option<SpillMark>) -> Result<(), Error> {
        self.same_file()?;
        let prepared = Prepared::new(self.instance, self.next_seq, batch)?;
        if self.uncertain && self.landed(&prepared)? {
            self.same_file()?;
        } else {
            self.uncertain = true;
            let chain = self.write(&prepared, mark).inspect_err(|_| {
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

    /// The last mark of this id; 0 where there is none.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn replayed(&mut self, id: &[u8; 16]) -> Result<u64, Error> {
        let found = replays::table
            .find(id.as_slice())
            .select(replays::offset)
            .get_result::<i64>(&mut self.connection)
            .optional()
            .map_err(|e| schema::failed(&self.path, &e))?;
        Ok(found.and_then(|offset| u64::try_from(offset).ok()).unwrap_or(0))
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
    fn write(&mut self, prepared: &Prepared<'_>, mark: Option<SpillMark>) -> Result<Hash, Error> {
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
                if let Some(mark) = mark {
                    let offset = replays::offset.eq(i64::try_from(mark.offset).unwrap_or(i64::MAX));
                    diesel::insert_into(replays::table)
                        .values((replays::spill.eq(mark.id.as_slice()), offset))
                        .on_conflict(replays::spill)
                        .do_update()
                        .set(offset)
                        .execute(connection)?;
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
        match FileId::of(&self.path) {
            Some(file) if file == self.file => Ok(()),
            _ => Err(gone(&self.path)),
        }
    }
}

fn gone(path: &Path) -> Error {
    Error::new(
        ErrorKind::Store,
        format!(
            "{}: the file was removed or replaced while it is written; put it back, or restart the service",
            path.display()
        ),
    )
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

/// Whether the evidence was written with this key.
///
/// # Errors
/// It was not, or it cannot be read.
pub(crate) fn check(path: &Path, keys: &Keys) -> Result<(), Error> {
    match schema::look(path)? {
        Found::Nothing => Ok(()),
        Found::Evidence => check_key(path, &known_keys(path)?, keys),
    }
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
    // A file at rest is read as it is: a start that is refused leaves nothing beside it.
    if let Some(rest) = Rest::of(path) {
        let found = read(Mode::Look);
        if Rest::of(path) == Some(rest) {
            return found;
        }
    }
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
