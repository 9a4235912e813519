//! Tables, migrations, and the checks on opening a file.

use std::fs::OpenOptions;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use diesel::connection::{Instrumentation, InstrumentationEvent, SimpleConnection};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::Error;
use crate::error::ErrorKind;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/sqlite");
/// `PRAGMA user_version` of files that this code writes: the number of migrations.
const VERSION: u32 = 1;
/// `PRAGMA application_id`: "Prov".
const APPLICATION: u32 = 0x5072_6f76;

diesel::table! {
    /// Which master keys wrote here; never the keys themselves.
    keys (key_id) {
        key_id -> Text,
        epoch -> BigInt,
        check_value -> Binary,
        created_at -> BigInt,
    }
}

diesel::table! {
    /// The processes that wrote here. `n` stands for `instance` in all other tables.
    instances (n) {
        n -> BigInt,
        instance -> BigInt,
        started_at -> BigInt,
        service -> Text,
        environment -> Nullable<Text>,
        build -> Text,
        version -> Text,
        key_id -> Text,
        ended_at -> Nullable<BigInt>,
        indexed -> BigInt,
        late -> BigInt,
    }
}

diesel::table! {
    /// Texts that rows of the same instance name by number.
    texts (n, id) {
        n -> BigInt,
        id -> Integer,
        text -> Text,
    }
}

diesel::table! {
    /// What happened. A row with `outcome_of` is the outcome of the share with that seq; its actor is
    /// `status 200`, `sent`, `error timeout`, `blocked`, `unknown`.
    // 16 columns are the most that Diesel takes without a feature that slows every build.
    events (n, seq) {
        n -> BigInt,
        seq -> BigInt,
        at -> BigInt,
        after -> BigInt,
        event_type -> Integer,
        actor -> Integer,
        target -> Nullable<Integer>,
        recipient -> Nullable<Integer>,
        outcome_of -> Nullable<BigInt>,
        owner -> Nullable<Binary>,
        user_id -> Nullable<Binary>,
        request_id -> Nullable<Binary>,
        payload -> Binary,
        extras -> Binary,
        tags -> Binary,
        proof -> Binary,
    }
}

diesel::table! {
    /// One row a commit: the chain over its leaves.
    batches (n, batch_no) {
        n -> BigInt,
        batch_no -> BigInt,
        first_seq -> BigInt,
        events -> BigInt,
        root -> Binary,
        chain -> Binary,
    }
}

diesel::table! {
    /// Totals, kept with each batch; names own event types.
    event_counts (n, event_type) {
        n -> BigInt,
        event_type -> Integer,
        name -> Text,
        events -> BigInt,
    }
}

diesel::table! {
    /// The values that are detected again after a restart, with the tag they were first seen under.
    fingerprints (n, id) {
        n -> BigInt,
        id -> BigInt,
        fingerprint -> Binary,
        tag -> Integer,
        category -> Integer,
        owner -> Nullable<Binary>,
        kind -> SmallInt,
        entry -> Binary,
        created_at -> BigInt,
    }
}

diesel::table! {
    /// In which events those were seen.
    sights (n, id) {
        n -> BigInt,
        id -> BigInt,
        first_at -> BigInt,
        first_n -> BigInt,
        first_seq -> BigInt,
        last_at -> BigInt,
        events -> BigInt,
    }
}

diesel::table! {
    /// How many events of a day carried one kind of value from one place to another.
    flows (n, day, event_type, actor, target, recipient, tag) {
        n -> BigInt,
        day -> Integer,
        event_type -> Integer,
        actor -> Integer,
        target -> Integer,
        recipient -> Integer,
        tag -> Integer,
        events -> BigInt,
    }
}

diesel::table! {
    /// Identifiers of one person. `n` and `id`: who said so, numbered among the values of that instance.
    owner_links (a, b) {
        a -> Text,
        b -> Text,
        created_at -> BigInt,
        n -> BigInt,
        id -> BigInt,
    }
}

diesel::table! {
    /// Sorted runs of the index: ready ones are asked, others are being made (0) or removed (2).
    segments (id) {
        id -> BigInt,
        level -> Integer,
        state -> Integer,
        n -> BigInt,
        entries -> BigInt,
    }
}

diesel::table! {
    /// Blocks of a segment, under their first entry.
    postings (id) {
        id -> BigInt,
        segment -> BigInt,
        term -> BigInt,
        at -> BigInt,
        n -> BigInt,
        seq -> BigInt,
        entries -> Binary,
    }
}

diesel::table! {
    /// How far files of spilled records were taken over.
    replays (spill) {
        spill -> Binary,
        offset -> BigInt,
    }
}

diesel::table! {
    /// People who were erased, by a keyed hash that is no owner's.
    erasures (person) {
        person -> Binary,
        version -> BigInt,
        erasure -> Binary,
        owner -> Nullable<Binary>,
        at -> BigInt,
        touched_at -> BigInt,
        done_at -> Nullable<BigInt>,
        lifted_at -> Nullable<BigInt>,
    }
}

/// The number of an event type: of a built-in one its place, of an own one four bytes of its SHA-256,
/// below zero.
pub(super) fn type_code(name: &str) -> i32 {
    const BUILT_IN: [&str; 8] = [
        "DATA_COLLECTION",
        "DATA_STORAGE",
        "DATA_ACCESS",
        "DATA_DERIVATION",
        "DATA_SHARE",
        "POLICY_VIOLATION",
        "DATA_ERASURE",
        "AUDIT_ACCESS",
    ];
    let place = BUILT_IN.iter().position(|known| *known == name);
    match place.and_then(|place| i32::try_from(place).ok()) {
        Some(place) => place + 1,
        None => code(name) | i32::MIN,
    }
}

/// The number of a canonical category: four bytes of its SHA-256, at least zero.
pub(super) fn category_code(canonical: &str) -> i32 {
    code(canonical) & i32::MAX
}

fn code(name: &str) -> i32 {
    let [a, b, c, d, ..] = super::chain::text(name);
    i32::from_be_bytes([a, b, c, d])
}

/// What stands at a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Found {
    /// No file, or an empty one.
    Nothing,
    /// A database that says it is ours, of this version or an older one.
    Evidence,
}

/// Looks at a path so that nothing there changes, whatever it is.
pub(super) fn look(path: &Path) -> Result<Found, Error> {
    let at = path.display();
    let error = |text: String| Err(Error::new(ErrorKind::Store, text));
    let lost = |text: String| Err(Error::new(ErrorKind::Lost, text));
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
            return match parent {
                Some(parent) if !parent.is_dir() => error(format!(
                    "{at}: the folder {} does not exist; create it, or change storage_path",
                    parent.display()
                )),
                _ => Ok(Found::Nothing),
            };
        }
        Err(e) => return error(format!("{at}: cannot be read: {}", e.kind())),
    };
    if !metadata.is_file() {
        let what = if metadata.is_dir() {
            "a folder"
        } else {
            "no ordinary file"
        };
        return error(format!("{at}: is {what}; storage_path must name a file"));
    }
    if metadata.len() == 0 {
        return Ok(Found::Nothing);
    }
    let mut connection = connect(path, Mode::Look, Duration::ZERO)?;
    match number(&mut connection, "SELECT application_id AS n FROM pragma_application_id") {
        Ok(application) if application != i64::from(APPLICATION) => {
            return lost(format!(
                "{at}: is a database of something else; the file is left as it is. \
                 Give another path (`storage_path`, or `--db`)"
            ));
        }
        Err(e) if reason(&e) == NOT_A_DATABASE => {
            return lost(format!(
                "{at}: is not a database; the file is left as it is. \
                 Give another path (`storage_path`, or `--db`), or move the file away"
            ));
        }
        // Seen without locks, a file that is just being made looks damaged: `check` will tell.
        Ok(_) | Err(_) => {}
    }
    if let Ok(version) = number(&mut connection, "SELECT user_version AS n FROM pragma_user_version") {
        newer(path, version)?;
    }
    Ok(Found::Evidence)
}

fn number(connection: &mut SqliteConnection, sql: &str) -> QueryResult<i64> {
    #[derive(QueryableByName)]
    struct Number {
        #[diesel(sql_type = BigInt)]
        n: i64,
    }
    diesel::sql_query(sql).get_result::<Number>(connection).map(|row| row.n)
}

fn newer(path: &Path, version: i64) -> Result<(), Error> {
    if version <= i64::from(VERSION) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Lost,
        format!(
            "{}: was written by a newer version of provenance (format {version}, this one knows {VERSION}); \
             the file is left as it is. Update provenance, or give another path (`storage_path`, or `--db`)",
            path.display()
        ),
    ))
}

/// How a connection may use the file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// The file alone, without its journal and without locks: leaves no trace, and sees no change.
    Look,
    Read,
    Write,
}

/// A file without a journal: what stays the same as long as nobody writes it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Rest {
    length: u64,
    modified: Option<SystemTime>,
}

impl Rest {
    /// `None` where a journal holds something, or nothing can be told. The file is not opened.
    pub(super) fn of(path: &Path) -> Option<Self> {
        // SQLite follows links: the journal is beside what they name.
        let path = std::fs::canonicalize(path).ok()?;
        for journal in ["-wal", "-journal"] {
            let mut beside = path.as_os_str().to_owned();
            beside.push(journal);
            match std::fs::metadata(&beside) {
                Ok(found) if found.len() > 0 => return None,
                Ok(_) => {}
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(_) => return None,
            }
        }
        let file = std::fs::metadata(&path).ok()?;
        Some(Rest {
            length: file.len(),
            modified: file.modified().ok(),
        })
    }
}

/// Held while a file is created, and while one is opened: closing any descriptor of a file
/// releases all POSIX locks that this process has on it, those of SQLite's included. So this
/// module opens an existing database through SQLite alone.
static CREATING: Mutex<()> = Mutex::new(());

/// Opens an existing file; the host's instrumentation never sees what the connection does.
pub(super) fn connect(path: &Path, mode: Mode, patience: Duration) -> Result<SqliteConnection, Error> {
    const KEPT: AsciiSet = NON_ALPHANUMERIC
        .remove(b'/')
        .remove(b'.')
        .remove(b'-')
        .remove(b'_')
        .remove(b'~');
    let Some(text) = path.to_str() else {
        return Err(Error::new(
            ErrorKind::Store,
            format!("{}: storage_path must be UTF-8", path.display()),
        ));
    };
    // A URI knows `/` only, and a drive letter behind one.
    let text = match cfg!(windows) {
        true if path.is_absolute() => format!("/{}", text.replace('\\', "/")),
        true => text.replace('\\', "/"),
        false => text.to_owned(),
    };
    let (parameters, query_only, doing) = match mode {
        Mode::Look => ("mode=ro&immutable=1", "ON", "read"),
        Mode::Read => ("mode=ro", "ON", "read"),
        Mode::Write => ("mode=rw", "OFF", "opened for writing"),
    };
    let uri = format!("file:{}?{parameters}", utf8_percent_encode(&text, &KEPT));
    let creating = CREATING.lock().unwrap_or_else(PoisonError::into_inner);
    let established = SqliteConnection::establish(&uri);
    drop(creating);
    let mut connection = established.map_err(|_| {
        Error::new(
            ErrorKind::Store,
            format!(
                "{}: cannot be {doing}; check the rights on the file and its folder",
                path.display()
            ),
        )
    })?;
    connection.set_instrumentation(Quiet);
    // A file may come from anywhere: its schema gets no say over functions.
    connection
        .batch_execute(&format!(
            "PRAGMA busy_timeout = {}; PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; \
             PRAGMA query_only = {query_only};",
            patience.as_millis()
        ))
        .map_err(|e| failed(path, &e))?;
    Ok(connection)
}

struct Quiet;

impl Instrumentation for Quiet {
    fn on_connection_event(&mut self, _: InstrumentationEvent<'_>) {}
}

/// Creates the file if there is none, so that nobody but its user can read it.
pub(super) fn create(path: &Path) -> Result<(), Error> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let _creating = CREATING.lock().unwrap_or_else(PoisonError::into_inner);
    match options.open(path) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => Err(Error::new(
            ErrorKind::Store,
            format!(
                "{}: cannot be created: {}; check the rights on the folder, or change storage_path",
                path.display(),
                e.kind()
            ),
        )),
        _ => Ok(()),
    }
}

/// Brings the schema up to date. Within an exclusive transaction: starts at the same time take turns.
pub(super) fn migrate(connection: &mut SqliteConnection, path: &Path) -> Result<(), Error> {
    if check(connection, path)? == i64::from(VERSION) {
        return Ok(());
    }
    let failed = |e: &dyn std::fmt::Display| {
        // Migrations hold no personal value, and neither do SQLite's words about them.
        Error::new(
            ErrorKind::Store,
            format!("{}: the schema cannot be made: {e}", path.display()),
        )
    };
    connection.run_pending_migrations(MIGRATIONS).map_err(|e| failed(&e))?;
    connection
        .batch_execute(&format!(
            "PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {VERSION};"
        ))
        .map_err(|e| failed(&e))
}

#[derive(QueryableByName)]
struct Named {
    #[diesel(sql_type = Text)]
    name: String,
}

/// Checks on an open file what [`look`] cannot see; gives its version, 0 if nothing is in it.
pub(super) fn check(connection: &mut SqliteConnection, path: &Path) -> Result<i64, Error> {
    let mut number = |sql| number(connection, sql).map_err(|e| failed(path, &e));
    let version = number("SELECT user_version AS n FROM pragma_user_version")?;
    newer(path, version)?;
    let application = number("SELECT application_id AS n FROM pragma_application_id")?;
    let objects = number("SELECT count(*) AS n FROM sqlite_master")?;
    if application == 0 && objects == 0 {
        return Ok(0);
    }
    let foreign = |what: &str| {
        Err(Error::new(
            ErrorKind::Lost,
            format!(
                "{}: is not an evidence file ({what}); the file is left as it is. \
                 Give another path (`storage_path`, or `--db`)",
                path.display()
            ),
        ))
    };
    if application != i64::from(APPLICATION) || version < 1 {
        return foreign("it belongs to something else");
    }
    if number("SELECT count(*) AS n FROM sqlite_master WHERE type = 'trigger'")? != 0 {
        return foreign("it has triggers");
    }
    let tables: Vec<String> = diesel::sql_query("SELECT name FROM sqlite_master WHERE type = 'table' LIMIT 1000")
        .load::<Named>(connection)
        .map_err(|e| failed(path, &e))?
        .into_iter()
        .map(|row| row.name)
        .collect();
    let expected = [
        "replays",
        "keys",
        "instances",
        "texts",
        "events",
        "batches",
        "event_counts",
        "fingerprints",
        "sights",
        "flows",
        "owner_links",
        "segments",
        "postings",
        "replays",
        "erasures",
    ];
    match expected.iter().find(|name| !tables.iter().any(|t| t == *name)) {
        Some(missing) => foreign(&format!("it has no table {missing}")),
        None => Ok(version),
    }
}

/// A database error without values: the file, and the kind of the trouble.
pub(super) fn failed(path: &Path, error: &diesel::result::Error) -> Error {
    let reason = reason(error);
    let kind = match reason {
        DAMAGED | NOT_A_DATABASE => ErrorKind::Lost,
        _ => ErrorKind::Store,
    };
    Error::new(kind, format!("{}: {reason}", path.display()))
}

const DAMAGED: &str = "the database is damaged";
const NOT_A_DATABASE: &str = "the file is not a database";

/// SQLite's text may quote what a file holds, so only its kind is passed on.
fn reason(error: &diesel::result::Error) -> &'static str {
    use diesel::result::{DatabaseErrorKind as Kind, Error as Diesel};
    const KNOWN: [(&str, &str); 9] = [
        ("locked", "the database is locked by another process"),
        ("busy", "the database is locked by another process"),
        ("full", "the disk or the database is full"),
        ("disk I/O", "the disk reports an error"),
        ("malformed", DAMAGED),
        ("not a database", NOT_A_DATABASE),
        (
            "readonly",
            "the database is read-only; check the rights on the file and its folder",
        ),
        (
            "read-only",
            "the database is read-only; check the rights on the file and its folder",
        ),
        ("unable to open", "the database cannot be opened"),
    ];
    match error {
        Diesel::DatabaseError(kind, information) => {
            let text = information.message();
            match KNOWN.iter().find(|(part, _)| text.contains(part)) {
                Some((_, reason)) => reason,
                None => match kind {
                    Kind::UniqueViolation => "a row exists already",
                    Kind::NotNullViolation | Kind::CheckViolation => "a row was refused",
                    _ => "the database refused a statement",
                },
            }
        }
        Diesel::DeserializationError(_) => "the database holds something unexpected",
        _ => "the database failed",
    }
}
