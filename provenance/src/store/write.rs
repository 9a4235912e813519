//! The one writer of an instance.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;

use super::batch::{KnownValues, Place, Prepared};
use super::chain::{self, Hash};
use super::index;
use super::load;
pub(crate) use super::load::Restored;
pub(super) use super::open::{InstanceRow, Refusal, check_key};
use super::open::{OPEN_PATIENCE, known_keys, register, write_ahead};
pub(crate) use super::open::{check, is_empty};
use super::postings::{self, Merges};
pub(crate) use super::record::{Forgotten, Head, Instance, Learned, Record, SpillMark, Value};
use super::rows::EventRow;
use super::schema::{self, Found, Mode, batches, fingerprints, instances, replays};
use super::statement::statement;
use super::texts::{Catalog, Texts};
use super::watch::Watch;
use crate::Error;
#[cfg(test)]
use crate::error::ErrorKind;
use crate::key::Keys;
use crate::vocabulary::Timestamp;

/// How long a commit waits for another writer before it counts as failed, and is tried again.
const COMMIT_PATIENCE: Duration = Duration::from_millis(500);

/// Events whose merges take a step at most: those of 4,096 fill some hundred blocks, on each of four levels.
const MERGED: i64 = 682;

/// Every commit is synced before it is acknowledged.
const SYNC: &str = "PRAGMA synchronous = FULL";

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
            if self.pending <= 2 * index::ROUND {
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
