//! A connection beside the writer's: made when something is asked, and given up when that has failed.

use std::path::{Path, PathBuf};

use diesel::prelude::*;

use super::db::Db;
#[cfg(feature = "postgres-store")]
use super::postgres;
use super::schema;
use crate::Error;
use crate::config::Storage;

/// Evidence, with a connection to it.
pub(super) enum Source {
    File {
        path: PathBuf,
        connect: fn(&Path) -> Result<SqliteConnection, Error>,
        connection: Option<SqliteConnection>,
    },
    #[cfg(feature = "postgres-store")]
    Server {
        server: postgres::Server,
        /// Longest time of a statement, in milliseconds.
        patience: u32,
        connection: Option<PgConnection>,
    },
}

impl Source {
    /// Of what `storage` names; nothing is opened yet. `connect` is for files, `patience` for servers.
    ///
    /// # Errors
    /// This build does not read it.
    #[cfg_attr(not(feature = "postgres-store"), expect(unused_variables))]
    pub(super) fn new(
        storage: &Storage,
        connect: fn(&Path) -> Result<SqliteConnection, Error>,
        patience: u32,
    ) -> Result<Self, Error> {
        match storage {
            Storage::Sqlite(path) => Ok(Source::File {
                path: path.clone(),
                connect,
                connection: None,
            }),
            #[cfg(feature = "postgres-store")]
            Storage::Postgres(url) => Ok(Source::Server {
                server: postgres::Server::new(url),
                patience,
                connection: None,
            }),
            #[cfg(not(feature = "postgres-store"))]
            Storage::Postgres(_) => Err(super::no_server()),
        }
    }

    /// Asks, or writes. What was not committed when it fails is undone with the connection.
    ///
    /// # Errors
    /// The evidence cannot be used; the next call connects again.
    pub(super) fn ask<T>(&mut self, ask: impl FnOnce(&mut Db<'_>) -> QueryResult<T>) -> Result<T, Error> {
        match self {
            Source::File {
                path,
                connect,
                connection: slot,
            } => {
                let mut connection = match slot.take() {
                    Some(connection) => connection,
                    None => connect(path)?,
                };
                let answer = ask(&mut Db::Sqlite(&mut connection)).map_err(|e| schema::failed(path, &e))?;
                *slot = Some(connection);
                Ok(answer)
            }
            #[cfg(feature = "postgres-store")]
            Source::Server {
                server,
                patience,
                connection: slot,
            } => {
                let mut connection = match slot.take() {
                    Some(connection) => connection,
                    None => server.patient_reader(*patience)?,
                };
                let answer = ask(&mut Db::Postgres(&mut connection)).map_err(|e| server.failed(&e))?;
                *slot = Some(connection);
                Ok(answer)
            }
        }
    }
}
