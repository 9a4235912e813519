//! The databases that evidence is kept in. What is asked of both is written once.

use diesel::prelude::*;

#[cfg(feature = "postgres-store")]
use super::postgres;
use super::postings::{self, Spot, Term};

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
