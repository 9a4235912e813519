//! What other instances have stored since the last look: each numbers its values without gaps, in the order in
//! which they are committed, so that the last number seen of each is enough.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use diesel::prelude::*;

use super::db::{Db, on};
#[cfg(feature = "postgres-store")]
use super::postgres;
use super::schema::{self, Mode, fingerprints};
use super::statement::statement;
use super::write::{Learned, StoredValue, Value, kinds_of};
use crate::Error;
use crate::config::Storage;

/// Rows that one question gives at most.
const ROWS: i64 = 10_000;
/// How long a question waits for a writer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Reads what others register.
pub(crate) struct Follower {
    source: Source,
    /// This instance's own number.
    n: i64,
    /// The last value seen of each.
    seen: HashMap<i64, i64>,
    /// Told of what is read, for the counts of events by value.
    learned: Learned,
}

enum Source {
    File(PathBuf, Option<SqliteConnection>),
    #[cfg(feature = "postgres-store")]
    Server(postgres::Server, Option<PgConnection>),
}

impl Follower {
    /// Remembers where everybody stands now. What they store from now on is given by [`Follower::look`], so the
    /// values that are there must be read after this.
    ///
    /// # Errors
    /// The evidence cannot be read.
    pub(crate) fn new(storage: &Storage, (n, learned): (i64, Learned)) -> Result<Self, Error> {
        let mut follower = Follower {
            source: match storage {
                Storage::Sqlite(path) => Source::File(path.clone(), None),
                #[cfg(feature = "postgres-store")]
                Storage::Postgres(url) => Source::Server(postgres::Server::new(url), None),
                #[cfg(not(feature = "postgres-store"))]
                Storage::Postgres(_) => return Err(super::no_server()),
            },
            n,
            seen: HashMap::new(),
            learned,
        };
        follower.seen = follower.ask(last)?.into_iter().collect();
        Ok(follower)
    }

    /// What others have stored since the last look, in the order of each; more may follow at once if there are
    /// very many.
    ///
    /// # Errors
    /// The evidence cannot be read; the next look connects again.
    pub(crate) fn look(&mut self) -> Result<Vec<Value>, Error> {
        let (own, seen) = (self.n, self.seen.clone());
        let (rows, kinds) = self.ask(|connection| {
            let mut rows: Vec<StoredValue> = Vec::new();
            for (n, last) in last(connection)? {
                let known = seen.get(&n).copied().unwrap_or(0);
                if n != own && last > known {
                    rows.extend(on!(
                        connection,
                        fingerprints::table
                            .filter(fingerprints::n.eq(n).and(fingerprints::id.gt(known)))
                            .order(fingerprints::id)
                            .limit(ROWS)
                            .select(StoredValue::as_select())
                            .load(connection)
                    )?);
                }
            }
            let mut wanted: Vec<_> = rows.iter().map(|row| (row.n, row.tag)).collect();
            wanted.sort_unstable();
            wanted.dedup();
            let kinds = kinds_of(connection, wanted)?;
            Ok((rows, kinds))
        })?;
        let mut values = Vec::with_capacity(rows.len());
        for row in rows {
            self.seen.insert(row.n, row.id);
            if let Some((key, value)) = row.read(&kinds) {
                self.learned.add(key, (row.n, row.id));
                values.push(value);
            }
        }
        Ok(values)
    }

    fn ask<T>(&mut self, question: impl FnOnce(&mut Db<'_>) -> QueryResult<T>) -> Result<T, Error> {
        match &mut self.source {
            Source::File(path, slot) => {
                let mut connection = match slot.take() {
                    Some(connection) => connection,
                    None => schema::connect(path, Mode::Read, PATIENCE)?,
                };
                let answer = question(&mut Db::Sqlite(&mut connection)).map_err(|e| schema::failed(path, &e))?;
                *slot = Some(connection);
                Ok(answer)
            }
            #[cfg(feature = "postgres-store")]
            Source::Server(server, slot) => {
                let mut connection = match slot.take() {
                    Some(connection) => connection,
                    None => server.reader()?,
                };
                let answer = question(&mut Db::Postgres(&mut connection)).map_err(|e| server.failed(&e))?;
                *slot = Some(connection);
                Ok(answer)
            }
        }
    }
}

/// The last value of each instance that may still store some, or has not been gone for long.
fn last(connection: &mut Db<'_>) -> QueryResult<Vec<(i64, i64)>> {
    #[derive(QueryableByName)]
    struct Last {
        #[diesel(sql_type = diesel::sql_types::BigInt)]
        n: i64,
        #[diesel(sql_type = diesel::sql_types::BigInt)]
        id: i64,
    }
    const DAY_MICROS: i64 = 86_400_000_000;
    let since = crate::vocabulary::Timestamp::now().0.saturating_sub(DAY_MICROS);
    let rows = statement!(
        "SELECT n, coalesce((SELECT max(f.id) FROM fingerprints f WHERE f.n = i.n), 0) AS id FROM instances i \
         WHERE ended_at IS NULL OR ended_at > ?",
        since
    );
    let rows: Vec<Last> = on!(connection, rows.load(connection))?;
    Ok(rows.into_iter().map(|row| (row.n, row.id)).collect())
}
