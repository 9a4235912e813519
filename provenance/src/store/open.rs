//! How a writer comes to its file: the key is checked, the instance registered.

use std::path::Path;
use std::time::Duration;

use diesel::prelude::*;

use super::chain::HeadParts;
use super::record::Instance;
use super::schema::{self, Found, Mode, Rest, instances, keys};
use crate::Error;
use crate::error::ErrorKind;
use crate::key::{Keys, Written};
use crate::vocabulary::Timestamp;

/// How long starting waits for others that start on the same file.
pub(super) const OPEN_PATIENCE: Duration = Duration::from_secs(10);

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
pub(super) fn known_keys(path: &Path) -> Result<Vec<(String, Vec<u8>)>, Error> {
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

pub(super) fn register(
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
pub(super) fn write_ahead(connection: &mut SqliteConnection, path: &Path) -> Result<(), Error> {
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
