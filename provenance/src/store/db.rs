//! The databases that evidence is kept in. What is asked of both is written once.

use std::path::Path;
use std::time::Duration;

use diesel::prelude::*;

use super::leaves;
#[cfg(feature = "postgres-store")]
use super::postgres;
use super::postings::{self, Spot, Term};
use super::schema::{self, Mode};
use crate::Error;

/// How long a question waits for a writer. In WAL readers wait only while a file is made.
const PATIENCE: Duration = Duration::from_secs(2);

/// A connection to one of them.
pub(super) enum Db<'c> {
    Sqlite(&'c mut SqliteConnection),
    #[cfg(feature = "postgres-store")]
    Postgres(&'c mut PgConnection),
}

/// What Diesel compiles for each of the databases: `on!(connection, query.load(connection))`.
macro_rules! on {
    ($connection:ident, $query:expr) => {
        match $connection {
            $crate::store::db::Db::Sqlite($connection) => {
                let $connection: &mut diesel::SqliteConnection = $connection;
                $query
            }
            #[cfg(feature = "postgres-store")]
            $crate::store::db::Db::Postgres($connection) => {
                let $connection: &mut diesel::PgConnection = $connection;
                $query
            }
        }
    };
}
pub(super) use on;

impl Db<'_> {
    /// One view of everything, whatever is written meanwhile.
    pub(super) fn snapshot<T>(&mut self, read: impl FnOnce(&mut Db<'_>) -> QueryResult<T>) -> QueryResult<T> {
        match self {
            Db::Sqlite(connection) => connection.transaction(|connection| read(&mut Db::Sqlite(connection))),
            #[cfg(feature = "postgres-store")]
            Db::Postgres(connection) => connection
                .build_transaction()
                .read_only()
                .repeatable_read()
                .run(|connection| read(&mut Db::Postgres(connection))),
        }
    }

    /// Up to `limit` spots of a term before `before`, newest first.
    pub(super) fn find(&mut self, term: Term, before: Spot, limit: usize) -> QueryResult<Vec<Spot>> {
        match self {
            Db::Sqlite(connection) => postings::find(connection, term, before, limit),
            #[cfg(feature = "postgres-store")]
            Db::Postgres(connection) => postgres::terms::find(connection, term, before, limit),
        }
    }
}

/// A connection for questions to a file.
pub(super) fn reading(path: &Path, mode: Mode) -> Result<SqliteConnection, Error> {
    let mut connection = schema::connect(path, mode, PATIENCE)?;
    leaves::prepare(&mut connection).map_err(|e| schema::failed(path, &e))?;
    Ok(connection)
}

/// Where a connection leads, so that there can be more of its kind.
pub(super) enum Beside<'a> {
    File(&'a Path, Mode),
    #[cfg(feature = "postgres-store")]
    Server(&'a postgres::Server),
}

/// One of them.
pub(super) enum Own {
    Sqlite(SqliteConnection),
    #[cfg(feature = "postgres-store")]
    Postgres(PgConnection),
}

impl Beside<'_> {
    pub(super) fn connect(&self) -> Result<Own, Error> {
        match self {
            Beside::File(path, mode) => reading(path, *mode).map(Own::Sqlite),
            #[cfg(feature = "postgres-store")]
            Beside::Server(server) => server.reader().map(Own::Postgres),
        }
    }
}

impl Own {
    pub(super) fn db(&mut self) -> Db<'_> {
        match self {
            Own::Sqlite(connection) => Db::Sqlite(connection),
            #[cfg(feature = "postgres-store")]
            Own::Postgres(connection) => Db::Postgres(connection),
        }
    }
}
