//! The one writer of an instance.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;

use super::batch::{KnownValues, Place, Prepared, value_key};
use super::chain::{self, Hash};
use super::db::{Db, on};
use super::index;
pub(super) use super::open::{InstanceRow, Refusal, check_key};
use super::open::{OPEN_PATIENCE, known_keys, register, write_ahead};
pub(crate) use super::open::{check, is_empty};
use super::pack;
use super::postings::{self, Merges};
pub(crate) use super::record::{Forgotten, Head, Instance, Learned, Record, Restored, SpillMark, Value};
use super::rows::EventRow;
use super::schema::{self, Found, Mode, batches, fingerprints, instances, owner_links, replays};
use super::statement::statement;
use super::texts::{Catalog, KindText, Texts};
use super::watch::Watch;
use crate::Error;
use crate::detect::Entry;
#[cfg(test)]
use crate::error::ErrorKind;
use crate::key::Keys;
use crate::vocabulary::{Fingerprint, Kind, Owner, Tag, Timestamp};

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
        let path = self.path.clone();
        let failed = |e| schema::failed(&path, &e);
        let all = fingerprints::table.count().get_result::<i64>(&mut self.connection);
        let all = usize::try_from(all.map_err(failed)?).unwrap_or(usize::MAX);
        let kinds = kinds(&mut Db::Sqlite(&mut self.connection)).map_err(failed)?;
        let rows = fingerprints::table.select(StoredValue::as_select()).into_boxed();
        // All are quicker read as they lie, which is nearly the order of their times.
        let rows = match all <= max_values {
            true => rows.order((fingerprints::n, fingerprints::id)),
            false => rows.order(fingerprints::created_at.desc()),
        };
        let rows = rows
            .load_iter::<StoredValue, diesel::connection::DefaultLoadingMode>(&mut self.connection)
            .map_err(failed)?;
        self.known.reserve(all.min(max_values));
        let mut values = take_in(rows, &kinds, &mut self.known, max_values).map_err(failed)?;
        if all <= max_values {
            values.reverse();
            values.sort_by_key(|value| std::cmp::Reverse(value.tag.created_at));
        }
        self.knows_all = self.known.len() < max_values.saturating_mul(4);
        let links = owner_links::table
            .select((owner_links::a, owner_links::b))
            .load::<(String, String)>(&mut self.connection)
            .map_err(failed)?;
        let links = owners(&links);
        Ok(Restored { values, links })
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

/// What kinds of tags are called, by their numbers.
pub(super) type Kinds = HashMap<(i64, i32), KindText>;

/// The kinds of tags that registered values have, each made once.
pub(super) fn kinds(connection: &mut Db<'_>) -> QueryResult<Kinds> {
    let wanted = on!(
        connection,
        fingerprints::table
            .select((fingerprints::n, fingerprints::tag))
            .distinct()
            .load::<(i64, i32)>(connection)
    )?;
    kinds_of(connection, wanted)
}

/// These kinds.
pub(super) fn kinds_of(connection: &mut Db<'_>, wanted: Vec<(i64, i32)>) -> QueryResult<Kinds> {
    let mut catalog = Catalog::default();
    catalog.load(connection, wanted.iter().copied())?;
    let kind = |(n, id): (i64, i32)| Some(((n, id), catalog.get(n, id)?.kind()?.clone()));
    Ok(wanted.into_iter().filter_map(kind).collect())
}

/// Values that were registered before, in the order of their rows.
pub(super) fn take_in(
    rows: impl Iterator<Item = QueryResult<StoredValue>>,
    kinds: &Kinds,
    known: &mut KnownValues,
    max_values: usize,
) -> QueryResult<Vec<Value>> {
    let mut values = Vec::new();
    for row in rows {
        let row = row?;
        // A damaged row is passed over: it must not keep the service from starting.
        let Some((key, value)) = row.read(kinds) else { continue };
        known.insert(key, (row.n, row.id));
        if values.len() < max_values {
            values.push(value);
        } else if known.len() >= 4 * max_values {
            break;
        }
    }
    Ok(values)
}

pub(super) fn owners(links: &[(String, String)]) -> Vec<(Owner, Owner)> {
    let owners = |(a, b): &(String, String)| Some((Owner::from_stored(a)?, Owner::from_stored(b)?));
    links.iter().filter_map(owners).collect()
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

/// A registered value, as it is read back.
#[derive(Queryable, Selectable)]
#[diesel(table_name = fingerprints)]
pub(super) struct StoredValue {
    pub(super) n: i64,
    pub(super) id: i64,
    fingerprint: Vec<u8>,
    pub(super) tag: i32,
    owner: Option<Vec<u8>>,
    kind: i16,
    entry: Vec<u8>,
    created_at: i64,
}

impl StoredValue {
    /// The value with its key; `None` where it is damaged, or its kind is not known.
    pub(super) fn read(&self, kinds: &Kinds) -> Option<(u64, Value)> {
        let tag = kinds.get(&(self.n, self.tag))?;
        let value = self.value(tag)?;
        let key = value_key(&value.fingerprint.0, &tag.canonical, self.owner.as_deref());
        Some((key, value))
    }

    fn value(&self, tag: &KindText) -> Option<Value> {
        let fingerprint = Fingerprint(self.fingerprint.as_slice().try_into().ok()?);
        let owner = match &self.owner {
            Some(packed) => Some(Owner::from_stored(&pack::unpack_text(packed)?)?),
            None => None,
        };
        Some(Value {
            fingerprint,
            kind: Kind::of_code(self.kind)?,
            entry: Entry::from_bytes(&self.entry)?,
            tag: Arc::new(Tag {
                fingerprint: Some(fingerprint),
                category: tag.category.clone(),
                field: tag.field.clone(),
                description: tag.description.clone(),
                owner,
                source: tag.source.clone(),
                pii: tag.pii,
                created_at: Timestamp(self.created_at),
            }),
        })
    }
}
