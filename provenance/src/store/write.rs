//! The one writer of an instance.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;

use super::batch::{KnownValues, Place, Prepared};
use super::chain::{self, Hash, HeadParts};
use super::index;
use super::load::{self, Restored};
use super::postings::{self, Merges};
use super::rows::EventRow;
use super::schema::{self, Found, Mode, Rest, batches, fingerprints, instances, keys, replays};
use super::statement::statement;
use super::texts::{Catalog, Texts};
use super::watch::Watch;
use crate::Error;
use crate::detect::Entry;
use crate::error::ErrorKind;
use crate::key::{Keys, Written};
use crate::ticket::Ticket;
use crate::vocabulary::{Event, Fingerprint, Kind, Late, Outcome, Owner, Tag, Timestamp};

/// How long starting waits for others that start on the same file.
const OPEN_PATIENCE: Duration = Duration::from_secs(10);
/// How long a commit waits for another writer before it counts as failed, and is tried again.
const COMMIT_PATIENCE: Duration = Duration::from_millis(500);

/// Events whose merges take a step at most: those of 4,096 fill some hundred blocks, on each of four levels.
const MERGED: i64 = 682;

/// Every commit is synced before it is acknowledged.
const SYNC: &str = "PRAGMA synchronous = FULL";

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

/// Rows of registered values that are no longer there: what erasures and retentions tell a writer.
#[derive(Default)]
pub(crate) struct Forgotten(Mutex<Vec<Forget>>);

enum Forget {
    These(Vec<(i64, i64)>),
    AllBut(HashSet<(i64, i64)>),
}

impl Forgotten {
    /// These are gone.
    pub(crate) fn these(&self, rows: Vec<(i64, i64)>) {
        if !rows.is_empty() {
            self.tell(Forget::These(rows));
        }
    }

    /// All that were there before are gone but these.
    pub(crate) fn all_but(&self, rows: HashSet<(i64, i64)>) {
        self.tell(Forget::AllBut(rows));
    }

    fn tell(&self, forget: Forget) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(forget);
    }

    pub(super) fn apply(&self, known: &mut KnownValues, own: i64) {
        let told = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for forget in told {
            match forget {
                Forget::These(rows) => {
                    let rows: HashSet<_> = rows.into_iter().collect();
                    known.retain(|_, row| !rows.contains(row));
                }
                Forget::AllBut(rows) => {
                    // What this writer has added since it was looked.
                    let last = rows.iter().filter(|(n, _)| *n == own).map(|(_, id)| *id).max();
                    known.retain(|_, row| rows.contains(row) || row.0 == own && Some(row.1) > last);
                }
            }
        }
    }
}

/// The connection that writes.
pub(crate) struct Writer {
    connection: SqliteConnection,
    path: PathBuf,
    watch: Watch,
    place: Place,
    texts: Texts,
    known: KnownValues,
    learned: Learned,
    forgotten: Arc<Forgotten>,
    next_batch: i64,
    chain: Hash,
    /// The last attempt failed in a way that may have left its batch in the file.
    uncertain: bool,
    /// For the index over what was written.
    catalog: Catalog,
    merges: Merges,
    /// Events that the index does not know of.
    pending: i64,
    /// Their rows, unless they have become too many.
    fresh: Vec<EventRow>,
    /// SQLite's number for what others had written when the first of these was.
    version: i64,
    /// Every value that others had stored is known: who does not know one cannot count where it was seen.
    knows_all: bool,
    /// What others left of the index was taken over.
    adopted: bool,
    /// Segments may have to be merged.
    unsettled: bool,
    /// Events that were written since it was last looked after.
    unmerged: i64,
    /// How each commit is synced.
    sync: &'static str,
    /// Stands for a commit that reports failure though it took place.
    #[cfg(test)]
    pub(super) fail_after_commit: bool,
}

/// Values that others have stored: their keys and rows, on their way to the writer. Without them it could not
/// say in which events they are seen here.
#[derive(Clone, Default)]
pub(crate) struct Learned(Arc<Mutex<KnownValues>>);

impl Learned {
    pub(super) fn add(&self, key: u64, row: (i64, i64)) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, row);
    }

    pub(super) fn take(&self) -> KnownValues {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Where a chain stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Head {
    /// 16 hex digits on the wire.
    pub(crate) instance: i64,
    pub(crate) batch_no: i64,
    /// The last event's.
    pub(crate) seq: i64,
    pub(crate) chain: Hash,
}

impl Writer {
    /// Opens or creates the file, migrates it, checks the key, and registers the instance.
    ///
    /// # Errors
    /// Not writable, not a database, newer version, other key: the file is left untouched.
    pub(crate) fn open(path: &Path, keys: &Keys, instance: &Instance) -> Result<Self, Error> {
        if schema::look(path)? == Found::Evidence {
            // First without a right to write: what is wrong must not be touched.
            check_key(&path.display(), &known_keys(path)?, keys)?;
        }
        schema::create(path)?;
        let mut connection = schema::connect(path, Mode::Write, OPEN_PATIENCE)?;
        let failed = |e| schema::failed(path, &e);
        connection
            // What a busy service writes goes to the same pages again and again: they are kept (8 MB), and
            // brought from the journal into the file after 16 MB, not after 4.
            .batch_execute("PRAGMA secure_delete = ON; PRAGMA cache_size = -8192; PRAGMA wal_autocheckpoint = 4000;")
            .and_then(|()| connection.batch_execute(SYNC))
            .map_err(failed)?;
        let row = InstanceRow::of(instance, keys);
        // One exclusive transaction: of processes that start at once on a fresh file, one makes it.
        let n = connection
            .exclusive_transaction(|connection| {
                schema::migrate(connection, path)?;
                register(connection, path, keys, &row).map_err(Refusal::from)
            })
            .map_err(|refusal| match refusal {
                Refusal::Ours(error) => error,
                Refusal::Database(error) => failed(error),
            })?;
        write_ahead(&mut connection, path)?;
        connection
            .batch_execute(&format!("PRAGMA busy_timeout = {}", COMMIT_PATIENCE.as_millis()))
            .map_err(failed)?;
        Ok(Writer {
            chain: chain::head(&row.parts()),
            connection,
            watch: Watch::of(path)?,
            path: path.to_owned(),
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
            merges: Merges::default(),
            pending: 0,
            fresh: Vec::new(),
            version: 0,
            knows_all: false,
            adopted: false,
            unsettled: true,
            unmerged: 0,
            sync: SYNC,
            #[cfg(test)]
            fail_after_commit: false,
        })
    }

    /// Where this writer is told of values that others removed.
    pub(crate) fn forgotten(&self) -> Arc<Forgotten> {
        self.forgotten.clone()
    }

    /// What was registered before this start.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn restore(&mut self, max_values: usize) -> Result<Restored, Error> {
        let path = &self.path;
        let restored = load::file(&mut self.connection, path, &mut self.known, max_values)
            .map_err(|e| schema::failed(path, &e))?;
        self.knows_all = self.known.len() < max_values.saturating_mul(4);
        Ok(restored)
    }

    /// Appends a batch in one transaction, chained and synced; all or nothing. Tickets are filled
    /// once it is on disk. With a `mark` it is noted how far a spill file was taken over.
    ///
    /// # Errors
    /// Nothing of the batch is acknowledged; call again with the same batch.
    pub(crate) fn append(&mut self, batch: &[Record], mark: Option<SpillMark>) -> Result<(), Error> {
        self.watch.check(self.place.n, self.next_batch - 1)?;
        self.known.extend(self.learned.take());
        self.forgotten.apply(&mut self.known, self.place.n);
        let prepared = Prepared::new(&self.place, &mut self.texts, &self.known, batch)?;
        let connection = &mut self.connection;
        let version = match self.fresh.is_empty() {
            true => data_version(connection).unwrap_or(-1),
            false => self.version,
        };
        let mut chain = self.chain;
        if self.uncertain
            && landed(
                connection,
                &self.path,
                self.next_batch,
                &self.place,
                &prepared,
                &mut chain,
            )?
        {
            self.watch.check(self.place.n, self.next_batch - 1)?;
        } else {
            self.uncertain = true;
            chain = write(
                connection,
                &self.path,
                &self.place,
                self.next_batch,
                &chain,
                &prepared,
                &self.texts.unsaved,
                mark,
            )
            .inspect_err(|_| {
                // After a full disk SQLite has rolled back by itself: nothing to do then.
                let _ = connection.batch_execute("ROLLBACK");
            })?;
            #[cfg(test)]
            if std::mem::take(&mut self.fail_after_commit) {
                return Err(Error::new(ErrorKind::Store, "failed after the commit"));
            }
            // What went into a file that is no longer at its path is not evidence.
            self.watch.check(self.place.n, self.next_batch - 1)?;
        }
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
            self.unmerged += events;
            // Rows in memory follow each other: with a gap they are read again.
            if self.pending <= 4 * index::ROUND {
                if self.fresh.is_empty() {
                    // Before anybody can change them.
                    self.version = version;
                }
                self.fresh.extend(rows);
            } else {
                self.fresh.clear();
            }
        }
        Ok(())
    }

    /// Does a part of what waits: brings the index up to date, merges its segments. `idle`: nothing else is
    /// to be done. `true` if there is more.
    ///
    /// # Errors
    /// The file cannot be written; nothing is lost by it.
    pub(crate) fn maintain(&mut self, idle: bool) -> Result<bool, Error> {
        let due = self.pending >= index::ROUND || idle && self.pending > 0;
        let adopts = idle && !self.adopted;
        if !due && !self.unsettled && !adopts {
            return Ok(false);
        }
        self.watch.check(self.place.n, self.next_batch - 1)?;
        // What is made from rows that are on disk need not be synced by itself.
        let failed = |e| schema::failed(&self.path, &e);
        self.connection
            .batch_execute("PRAGMA synchronous = NORMAL")
            .map_err(failed)?;
        let done = match adopts {
            true => self.adopt().and_then(|()| self.maintained(due)),
            false => self.maintained(due),
        };
        let synced = self.connection.batch_execute(self.sync);
        let done = done.and_then(|more| synced.map(|()| more));
        done.map_err(|e| schema::failed(&self.path, &e))
    }

    fn maintained(&mut self, due: bool) -> QueryResult<bool> {
        if due {
            self.index()?;
        }
        // Under load as much as comes: what is not merged, each question pays for.
        for _ in 0..=std::mem::take(&mut self.unmerged) / MERGED {
            self.unsettled = self.merges.step(self.place.n, &mut self.connection)?;
            if !self.unsettled {
                break;
            }
        }
        Ok(due || self.unsettled)
    }

    /// Brings the index up to date by a round.
    fn index(&mut self) -> QueryResult<()> {
        let (n, catalog, known) = (self.place.n, &mut self.catalog, &self.known);
        let (fresh, version) = (&self.fresh, self.version);
        let more = self.connection.immediate_transaction(|connection| {
            // What others have written may be an erasure: then the rows are no longer what they were.
            let is_alone = data_version(connection)? == version;
            let fresh = if is_alone { fresh.as_slice() } else { &[] };
            index::round(connection, catalog, known, n, fresh)
        })?;
        self.fresh.clear();
        if !more {
            self.pending = 0;
        }
        self.unsettled = true;
        Ok(())
    }

    /// Takes over what processes that are gone have left of the index: those that ended, and those that have
    /// written nothing for a minute. One that is not gone after all goes on from there.
    fn adopt(&mut self) -> QueryResult<()> {
        const GONE_MILLIS: i64 = 60_000;
        if !self.knows_all {
            self.adopted = true;
            return Ok(());
        }
        let left = statement!(
            "SELECT n, ended_at IS NOT NULL OR \
             coalesce((SELECT at FROM events e WHERE e.n = i.n ORDER BY seq DESC LIMIT 1), 0) < ? \
             FROM instances i WHERE n <> ? AND (\
             EXISTS (SELECT 1 FROM events e WHERE e.n = i.n AND e.seq > i.indexed) OR \
             EXISTS (SELECT 1 FROM segments s WHERE s.n = i.n AND s.state = 0))",
            Timestamp::now().0 / 1000 - GONE_MILLIS,
            self.place.n
        )
        .typed::<(diesel::sql_types::BigInt, diesel::sql_types::Bool)>()
        .load::<(i64, bool)>(&mut self.connection)?;
        self.adopted = left.iter().all(|(_, is_gone)| *is_gone);
        let gone: Vec<i64> = left
            .into_iter()
            .filter(|(_, is_gone)| *is_gone)
            .map(|(n, _)| n)
            .collect();
        if gone.is_empty() {
            return Ok(());
        }
        let (catalog, known) = (&mut self.catalog, &self.known);
        self.connection
            .immediate_transaction(|connection| postings::abandon(connection, &gone))?;
        for n in gone {
            while self
                .connection
                .immediate_transaction(|connection| index::round(connection, catalog, known, n, &[]))?
            {}
        }
        Ok(())
    }

    /// Whether there are events that the index does not know of.
    pub(crate) fn is_behind(&self) -> bool {
        self.pending > 0 || !self.adopted
    }

    /// How far a file of spilled records was taken over; 0 for one that is not known.
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

    /// The number of the instance, and where it is told which values others have stored.
    pub(crate) fn learns(&self) -> (i64, Learned) {
        (self.place.n, self.learned.clone())
    }

    /// Where the chain stands.
    pub(crate) fn head(&self) -> Head {
        Head {
            instance: self.place.instance,
            batch_no: self.next_batch - 1,
            seq: self.place.next_seq - 1,
            chain: self.chain,
        }
    }

    /// Marks the end of the instance: what it has not said by now, it never will.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn end(&mut self) -> Result<(), Error> {
        self.watch.check(self.place.n, self.next_batch - 1)?;
        while self.pending > 0 {
            self.maintain(true)?;
        }
        diesel::update(instances::table.find(self.place.n))
            .set(instances::ended_at.eq(Timestamp::now().0))
            .execute(&mut self.connection)
            .map(drop)
            .map_err(|e| schema::failed(&self.path, &e))
    }

    /// No longer syncs each commit: the control for tests of sudden ends.
    #[cfg(test)]
    pub(super) fn be_careless(&mut self) {
        self.sync = "PRAGMA synchronous = NORMAL";
        let _ = self.connection.batch_execute(self.sync);
    }

    /// Stands for a full disk, which SQLite reports in the same way.
    #[cfg(test)]
    pub(super) fn limit_pages(&mut self, on: bool) {
        let pages = if on { 1 } else { 1 << 30 };
        let sql = format!("PRAGMA max_page_count = {pages}");
        let _ = self.connection.batch_execute(&sql);
    }
}

/// Writes everything in one transaction; gives the new chain.
#[expect(clippy::too_many_arguments, reason = "parts of a writer that are borrowed apart")]
fn write(
    connection: &mut SqliteConnection,
    path: &Path,
    place: &Place,
    batch_no: i64,
    before: &Hash,
    prepared: &Prepared<'_>,
    unsaved: &[(u32, Arc<str>)],
    mark: Option<SpillMark>,
) -> Result<Hash, Error> {
    let root = chain::root(&prepared.leaves);
    let chain = match prepared.events.is_empty() {
        true => *before,
        false => chain::link(before, batch_no, place.next_seq, prepared.count(), &root),
    };
    // Not Diesel's transaction(): a full disk ends it inside SQLite, which Diesel takes amiss.
    statement!("BEGIN IMMEDIATE")
        .execute(connection)
        .and_then(|_| {
            prepared.insert(unsaved, connection)?;
            if prepared.late > place.late {
                statement!("UPDATE instances SET late = ? WHERE n = ?", prepared.late, place.n).execute(connection)?;
            }
            if !prepared.events.is_empty() {
                statement!(
                    "INSERT OR ROLLBACK INTO batches (n, batch_no, first_seq, events, root, chain) VALUES (?, ?, ?, ?, ?, ?)",
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
            statement!("COMMIT").execute(connection)
        })
        .map_err(|e| schema::failed(path, &e))?;
    Ok(chain)
}

/// Whether a batch whose commit seemed to fail is in the file after all.
fn landed(
    connection: &mut SqliteConnection,
    path: &Path,
    batch_no: i64,
    place: &Place,
    prepared: &Prepared<'_>,
    chain: &mut Hash,
) -> Result<bool, Error> {
    if prepared.events.is_empty() {
        // Without events there is no link: its first value tells.
        let Some(first) = prepared.values.first() else {
            return Ok(false);
        };
        let found = fingerprints::table.find((first.n, first.id)).select(fingerprints::id);
        let found = found.get_result::<i64>(connection).optional();
        return found.map(|found| found.is_some()).map_err(|e| schema::failed(path, &e));
    }
    let found = batches::table
        .find((place.n, batch_no))
        .select((batches::first_seq, batches::events, batches::chain))
        .get_result::<(i64, i64, Vec<u8>)>(connection)
        .optional()
        .map_err(|e| schema::failed(path, &e))?;
    match found {
        Some((first_seq, events, written)) if first_seq == place.next_seq && events == prepared.count() => {
            if let Ok(written) = written.try_into() {
                *chain = written;
            }
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// Changes with every commit of another connection.
fn data_version(connection: &mut SqliteConnection) -> QueryResult<i64> {
    statement!("SELECT data_version FROM pragma_data_version")
        .typed::<diesel::sql_types::BigInt>()
        .get_result(connection)
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
        Found::Evidence => check_key(&path.display(), &known_keys(path)?, keys),
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

pub(super) fn check_key(place: &dyn std::fmt::Display, known: &[(String, Vec<u8>)], keys: &Keys) -> Result<(), Error> {
    match keys.judge(known) {
        Written::Here => return Ok(()),
        Written::Later => {
            return Err(Error::new(
                ErrorKind::Key,
                format!(
                    "{}: was written under a later epoch of the fingerprint key than key_epoch: {} says; set key_epoch \
                     to the highest that was ever in force, it never goes back",
                    place, keys.epoch
                ),
            ));
        }
        Written::Elsewhere => {}
    }
    Err(Error::new(
        ErrorKind::Key,
        format!(
            "{place}: was written with another master key (key id {}, the given one has {}); give the key it was \
             written with (RUNTIME_TRACKING_KEY or key_file), or change storage_path to begin a new file",
            known
                .first()
                .map_or("unknown", |(id, _)| id.get(..16).unwrap_or("unknown")),
            keys.id
        ),
    ))
}

/// Why a file could not be opened.
pub(super) enum Refusal {
    Ours(Error),
    Database(diesel::result::Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Refusal::Ours(error)
    }
}

impl From<diesel::result::Error> for Refusal {
    fn from(error: diesel::result::Error) -> Self {
        Refusal::Database(error)
    }
}

fn register(
    connection: &mut SqliteConnection,
    path: &Path,
    master: &Keys,
    instance: &InstanceRow,
) -> Result<i64, Error> {
    let failed = |e| schema::failed(path, &e);
    let known: Vec<(String, Vec<u8>)> = keys::table
        .select((keys::key_id, keys::check_value))
        .load(connection)
        .map_err(failed)?;
    check_key(&path.display(), &known, master)?;
    if !known.iter().any(|(id, _)| *id == master.id) {
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
        .map_err(failed)?;
    instances::table
        .filter(instances::instance.eq(instance.instance))
        .select(instances::n)
        .get_result(connection)
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

#[derive(Insertable)]
#[diesel(table_name = instances)]
pub(super) struct InstanceRow {
    pub(super) instance: i64,
    started_at: i64,
    service: String,
    environment: Option<String>,
    build: String,
    version: String,
    key_id: String,
}

impl InstanceRow {
    pub(super) fn of(instance: &Instance, keys: &Keys) -> Self {
        InstanceRow {
            instance: i64::from_be_bytes(instance.id),
            started_at: Timestamp::now().0,
            service: instance.service.clone(),
            environment: instance.environment.clone(),
            build: instance.build.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            key_id: keys.id.clone(),
        }
    }

    pub(super) fn parts(&self) -> HeadParts<'_> {
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
