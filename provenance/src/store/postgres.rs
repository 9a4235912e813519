//! PostgreSQL: connections, tables, and what is asked there in another way than of a file.

#[cfg(test)]
mod bench;
mod copy;
mod script;
pub(super) mod terms;
pub(super) mod write;

use diesel::connection::{Instrumentation, InstrumentationEvent, SimpleConnection};
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Binary, Bool, Integer, Text};

use super::schema::keys;
use super::statement::statement;
use super::write::check_key;
use crate::Error;
use crate::config::{Storage, Token};
use crate::error::ErrorKind;
use crate::key::Keys;

const MIGRATIONS: [&str; 1] = [include_str!("../../migrations/postgres/00000000000001_evidence/up.sql")];
/// `layout.version` of databases that this code writes.
const VERSION: i32 = MIGRATIONS.len() as i32;
/// Longest time of one statement: the peer of a commit is on the other side of a network.
const STATEMENT_MILLIS: u32 = 5_000;
/// While starting: others that start at the same time go first.
const START_MILLIS: u32 = 30_000;
/// Tries to make what others are making at the same time.
const ATTEMPTS: usize = 50;

/// A database, by its URL.
#[derive(Clone)]
pub(crate) struct Server {
    url: Token,
    /// Without user, password and parameters.
    shown: String,
}

impl Server {
    pub(crate) fn new(url: &Token) -> Self {
        Server {
            url: url.clone(),
            shown: Storage::Postgres(url.clone()).to_string(),
        }
    }

    /// Connects; every wait that follows is bounded.
    ///
    /// # Errors
    /// Why not, in words that hold nothing of the URL but its host and database.
    fn connect(&self) -> Result<PgConnection, Error> {
        let mut connection =
            PgConnection::establish(&bounded(&self.url.0)).map_err(|e| self.error(refusal(&e.to_string())))?;
        connection.set_instrumentation(Quiet);
        connection
            .batch_execute(&format!(
                "SET search_path = provenance; SET client_min_messages = warning; SET standard_conforming_strings = on; \
                 SET statement_timeout = {STATEMENT_MILLIS}; \
                 SET idle_in_transaction_session_timeout = {START_MILLIS}"
            ))
            .map_err(|e| self.failed(&e))?;
        Ok(connection)
    }

    /// A connection for questions.
    ///
    /// # Errors
    /// No evidence there, or of a newer version; not to be reached.
    pub(super) fn reader(&self) -> Result<PgConnection, Error> {
        let mut connection = self.connect()?;
        let version = match is_laid_out(&mut connection).map_err(|e| self.failed(&e))? {
            true => layout(&mut connection, false).map_err(|e| self.failed(&e))?.version,
            false => 0,
        };
        self.newer(version)?;
        if version == 0 {
            return Err(self.error("there is no evidence in this database (yet); check the URL"));
        }
        Ok(connection)
    }

    /// As [`Server::reader`], for statements that take longer.
    pub(super) fn patient_reader(&self, millis: u32) -> Result<PgConnection, Error> {
        let mut connection = self.reader()?;
        connection
            .batch_execute(&format!("SET statement_timeout = {millis}"))
            .map_err(|e| self.failed(&e))?;
        Ok(connection)
    }

    /// Whether the evidence was written with this key.
    ///
    /// # Errors
    /// It was not, or it cannot be read.
    pub(crate) fn check(&self, master: &Keys) -> Result<(), Error> {
        let known: Vec<(String, Vec<u8>)> = keys::table
            .select((keys::key_id, keys::check_value))
            .load(&mut self.reader()?)
            .map_err(|e| self.failed(&e))?;
        check_key(&self.shown, &known, master)
    }

    fn newer(&self, version: i32) -> Result<(), Error> {
        if version <= VERSION {
            return Ok(());
        }
        Err(self.error(&format!(
            "was written by a newer version of provenance (format {version}, this one knows {VERSION}); the database \
             is left as it is. Update provenance, or give another database (`storage_path`, or `--db`)"
        )))
    }

    fn error(&self, text: &str) -> Error {
        Error::new(ErrorKind::Store, format!("{}: {text}", self.shown))
    }

    /// A database error without values: where, and the kind of the trouble.
    pub(super) fn failed(&self, error: &diesel::result::Error) -> Error {
        self.error(reason(error))
    }
}

/// The URL with limits on what it waits for, where it has none of its own.
fn bounded(url: &str) -> String {
    let mut url = url.to_owned();
    for (name, value) in [
        ("connect_timeout", "3"),
        ("tcp_user_timeout", "10000"),
        ("keepalives_idle", "10"),
        ("application_name", "provenance"),
    ] {
        if !url.contains(&format!("{name}=")) {
            url.push(if url.contains('?') { '&' } else { '?' });
            url.push_str(&format!("{name}={value}"));
        }
    }
    url
}

struct Quiet;

impl Instrumentation for Quiet {
    fn on_connection_event(&mut self, _: InstrumentationEvent<'_>) {}
}

/// libpq's text may name a user: only its kind is passed on.
fn refusal(text: &str) -> &'static str {
    const KNOWN: [(&str, &str); 8] = [
        ("authentication", "the server refuses the user or the password"),
        ("no password supplied", "the server asks for a password"),
        ("does not exist", "there is no such database or role"),
        ("too many", "the server takes no more connections"),
        ("remaining connection slots", "the server takes no more connections"),
        ("starting up", "the server is starting"),
        ("shutting down", "the server is shutting down"),
        ("SSL", "the encryption of the connection could not be agreed on"),
    ];
    let known = KNOWN.iter().find(|(part, _)| text.contains(part));
    known.map_or(
        "the server cannot be reached; check storage_path, and that the server runs",
        |(_, reason)| reason,
    )
}

/// PostgreSQL's text quotes values, so only its kind is passed on.
fn reason(error: &diesel::result::Error) -> &'static str {
    use diesel::result::{DatabaseErrorKind as Kind, Error as Diesel};
    const KNOWN: [(&str, &str); 7] = [
        ("statement timeout", "the server did not answer in time"),
        ("No space left", "the server's disk is full"),
        ("could not extend", "the server's disk is full"),
        ("read-only transaction", "the server is read-only"),
        (
            "permission denied",
            "the user of storage_path lacks a right on the schema `provenance`",
        ),
        ("terminating connection", "the connection to the server was cut"),
        ("does not exist", "a table is missing, or was changed"),
    ];
    match error {
        Diesel::DatabaseError(Kind::ClosedConnection | Kind::UnableToSendCommand, _) => {
            "the connection to the server was cut"
        }
        Diesel::DatabaseError(kind, information) => {
            let text = information.message();
            match KNOWN.iter().find(|(part, _)| text.contains(part)) {
                Some((_, reason)) => reason,
                None => match kind {
                    Kind::UniqueViolation => "a row exists already",
                    Kind::NotNullViolation | Kind::CheckViolation => "a row was refused",
                    Kind::SerializationFailure => "another writer was in the way",
                    _ => "the server refused a statement, or the connection was cut",
                },
            }
        }
        Diesel::DeserializationError(_) => "the database holds something unexpected",
        _ => "the database failed",
    }
}

/// Where a database stands.
#[derive(QueryableByName)]
pub(super) struct Layout {
    #[diesel(sql_type = Integer)]
    version: i32,
    /// Instances so far: the last `n`.
    #[diesel(sql_type = BigInt)]
    instances: i64,
}

/// The row that all starts take turns at. Held until the transaction ends.
pub(super) fn layout(connection: &mut PgConnection, hold: bool) -> QueryResult<Layout> {
    match hold {
        true => statement!("SELECT version, instances FROM layout WHERE id = 1 FOR UPDATE").get_result(connection),
        false => statement!("SELECT version, instances FROM layout WHERE id = 1").get_result(connection),
    }
}

fn is_laid_out(connection: &mut PgConnection) -> QueryResult<bool> {
    #[derive(QueryableByName)]
    struct Found {
        #[diesel(sql_type = Bool)]
        found: bool,
    }
    statement!("SELECT to_regclass('provenance.layout') IS NOT NULL AS found")
        .get_result::<Found>(connection)
        .map(|row| row.found)
}

/// Makes the schema and the row that starts take turns at.
fn lay_out(connection: &mut PgConnection) -> QueryResult<()> {
    let mut attempt = 1;
    while !is_laid_out(connection)? {
        let made = connection.batch_execute(
            "CREATE SCHEMA IF NOT EXISTS provenance; \
             CREATE TABLE IF NOT EXISTS provenance.layout (id INT4 NOT NULL PRIMARY KEY, version INT4 NOT NULL, \
             instances BIGINT NOT NULL); \
             INSERT INTO provenance.layout (id, version, instances) VALUES (1, 0, 0) ON CONFLICT DO NOTHING",
        );
        // Of several at once, `IF NOT EXISTS` or not, all but one fail: it is there then.
        match made {
            Err(e) if attempt >= ATTEMPTS => return Err(e),
            Err(_) => std::thread::sleep(std::time::Duration::from_millis(20)),
            Ok(()) => {}
        }
        attempt += 1;
    }
    Ok(())
}

/// Brings the tables up to date; the caller holds the layout's row.
fn migrate(connection: &mut PgConnection, from: i32) -> QueryResult<()> {
    for migration in MIGRATIONS.iter().skip(usize::try_from(from).unwrap_or_default()) {
        connection.batch_execute(migration)?;
    }
    if from < VERSION {
        statement!("UPDATE layout SET version = ? WHERE id = 1", VERSION).execute(connection)?;
    }
    Ok(())
}

/// Keeps everybody else from these instances' rows until the transaction ends; in order, so that nobody waits in a ring.
/// Their writers learn by it that events may not be what they were.
pub(super) fn hold(connection: &mut PgConnection, mut numbers: Vec<i64>) -> QueryResult<()> {
    numbers.dedup();
    diesel::sql_query(
        "WITH held AS (SELECT n FROM instances WHERE n = ANY($1) ORDER BY n FOR UPDATE) \
         UPDATE instances i SET changed = changed + 1 FROM held WHERE i.n = held.n",
    )
    .bind::<Array<BigInt>, _>(numbers)
    .execute(connection)
    .map(drop)
}

/// Frees what removed and changed rows take, so that others are written over it. `false` where that is not allowed, or
/// where a reader with an old view keeps them.
pub(super) fn vacuum(connection: &mut PgConnection) -> QueryResult<bool> {
    const TRIES: usize = 40;
    #[derive(QueryableByName)]
    struct Able {
        #[diesel(sql_type = Bool)]
        able: bool,
    }
    // Without the right, VACUUM warns and does nothing.
    let able = statement!(
        "SELECT bool_and(pg_has_role(relowner, 'USAGE')) AS able FROM pg_class \
         WHERE relnamespace = 'provenance'::regnamespace AND relkind = 'r'",
    );
    if !able.get_result::<Able>(connection)?.able {
        return Ok(false);
    }
    #[derive(QueryableByName)]
    struct Xid {
        #[diesel(sql_type = Text)]
        xid: String,
    }
    let last = statement!("SELECT pg_current_xact_id()::xid::text AS xid").get_result::<Xid>(connection)?;
    let mut free = false;
    for _ in 0..TRIES {
        // Of other users' sessions this shows what the user may see.
        let held = statement!(
            "SELECT NOT EXISTS (SELECT 1 FROM pg_stat_activity WHERE pid <> pg_backend_pid() \
             AND datname = current_database() AND greatest(age(backend_xmin), age(backend_xid)) > age(?::text::xid)) \
             AS able",
            &*last.xid
        );
        free = held.get_result::<Able>(connection)?.able;
        if free {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(25));
    }
    connection.batch_execute("VACUUM events, event_terms, fingerprints, sights, owner_links, erasures")?;
    Ok(free)
}

/// Instances that have events which the index does not know of, and how far it goes: of a thousand, few. One
/// question finds them, where a look at each would be a thousand ways to the server and back.
pub(super) fn behind(connection: &mut PgConnection) -> QueryResult<Vec<(i64, i64)>> {
    statement!(
        "SELECT n, indexed FROM instances i WHERE EXISTS (SELECT 1 FROM events e WHERE e.n = i.n AND e.seq > i.indexed)"
    )
    .typed::<(BigInt, BigInt)>()
    .load(connection)
}

/// Texts of an instance by their numbers.
pub(super) fn texts(connection: &mut PgConnection, n: i64, ids: &[i32]) -> QueryResult<Vec<(i32, String)>> {
    #[derive(QueryableByName)]
    struct Row {
        #[diesel(sql_type = Integer)]
        id: i32,
        #[diesel(sql_type = Binary)]
        text: Vec<u8>,
    }
    let rows: Vec<Row> = diesel::sql_query("SELECT id, text FROM texts WHERE n = $1 AND id = ANY($2)")
        .bind::<BigInt, _>(n)
        .bind::<Array<Integer>, _>(ids)
        .load(connection)?;
    let text = |row: Row| Some((row.id, String::from_utf8(row.text).ok()?));
    Ok(rows.into_iter().filter_map(text).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_gets_limits_where_it_has_none() {
        assert_eq!(
            bounded("postgres://db/evidence"),
            "postgres://db/evidence?connect_timeout=3&tcp_user_timeout=10000&keepalives_idle=10&application_name=provenance"
        );
        let own = "postgres://db/e?sslmode=require&connect_timeout=9&application_name=shop";
        assert_eq!(bounded(own), format!("{own}&tcp_user_timeout=10000&keepalives_idle=10"));
    }
}
