//! Diesel: a tracked value is staged when it is bound, and recorded when the database has it.
//!
//! [`init`](crate::init) makes every connection that is opened later report to provenance, and
//! keeps an instrumentation that the host made the default before. A host that calls
//! `set_instrumentation` on a connection replaces ours there; it chains with
//! [`instrumentation_with`]. Writes on a connection that does not report are counted as blind
//! spots, never recorded.
//!
//! # What is certain
//! A statement's writes are recorded when its transaction is committed; one that failed, or was
//! rolled back, leaves nothing. Transactions are followed by the text that reaches the database, so
//! Diesel's `transaction`, `batch_execute("BEGIN")`, `sql_query("SAVEPOINT a")` and several statements
//! in one text may mix. Diesel reports no row counts and not every error: what may not have been
//! stored is recorded with `certain: false`, and `extras.reason` says why:
//!
//! | `reason` | what is not known | where |
//! |---|---|---|
//! | `on_conflict` | whether a row that was there won (`DO NOTHING`, `OR IGNORE`), or which of two rows an upsert stored | PostgreSQL, MySQL, SQLite without the probe; with it, upserts that may have updated with other values than they insert |
//! | `row_count_not_reported` | whether an UPDATE met a row | PostgreSQL, MySQL; SQLite without the probe, unless a tracked model read a `RETURNING` row; with it, where only a trigger wrote |
//! | `returning_not_confirmed` | whether the statement failed: the error comes with rows that nobody of ours read | diesel-async; SQLite without the probe |
//! | `some_rows_ignored` | which rows of an INSERT were stored: fewer than it has | SQLite with the probe |
//! | `statements_overlapped` | which of several open statements ended (the same text twice in a pipeline), or whether one whose future was dropped ran | diesel-async |
//! | `transaction_may_have_aborted` | whether a statement of the transaction failed unseen: COMMIT then rolls back, and reports success | diesel-async, where the last statement before COMMIT was a query; MySQL after an error |
//! | `transaction_not_followed` | how the transaction ended: a text that cannot be followed, such as `PREPARE TRANSACTION`, or one whose future was dropped | anywhere |
//! | `commit_not_confirmed` | whether a COMMIT that nobody answered arrived | PostgreSQL, MySQL |
//!
//! On SQLite the feature `sqlite-probe` asks SQLite itself how many rows a statement changed and
//! whether a transaction is open; then an UPDATE that met no row, a lost `DO NOTHING` and a failed
//! `RETURNING` leave no event at all, and nearly everything else is certain. It takes no hook of the
//! connection's; it adds a SQL function, `provenance_probe`, to connections that Diesel opens. It
//! belongs to the instrumentation that the connection was opened with: one that `set_instrumentation`
//! puts in its place works without.
//!
//! For the whole process, `init` then registers an automatic extension, which initialises SQLite: a
//! host that calls `sqlite3_config` does so before. Connections of others (rusqlite, say) pass it by
//! untouched. After `sqlite3_reset_auto_extension` connections are watched without the probe.
//!
//! # Whose a write is
//! As the owner fields of the record or changeset say; with `sql-fallback`, else as a column that a model of the table
//! declares as its owner is compared by `=` in the `WHERE`; else as the row says that a `RETURNING` brings back into
//! a tracked model of the table (of several rows, the one that has the value; not with diesel-async, whose rows
//! cannot be told apart from another connection's); else the request's.
//!
//! # Limits
//! A trigger (`BEFORE INSERT .. RETURN NULL`), a rule (`DO INSTEAD`) or a policy that leaves out or changes a
//! row reports success like any other statement: on PostgreSQL and MySQL such an INSERT is recorded as certain,
//! with the values that were bound. On SQLite the probe sees a row that is left out, and not one that is changed.
//! While a statement of diesel-async's runs, values that the same thread binds for a connection which does not
//! report, for the same table, may be taken for that statement's.
//! Values that bypass the model (`set(email.eq(..))`, SQL text), and deletes, are seen with the feature
//! `sql-fallback` alone.

use std::cell::Cell;
use std::sync::{Mutex, Once, OnceLock, PoisonError};

use diesel::connection::{
    Instrumentation, InstrumentationEvent, get_default_instrumentation, set_default_instrumentation,
};

#[doc(hidden)]
pub mod bind;
#[cfg(all(fuzzing, feature = "sql-fallback"))]
pub(crate) use sql::fuzz;
mod boundary;
mod ledger;
#[cfg(not(feature = "sqlite-probe"))]
mod no_probe;
#[cfg(not(feature = "sql-fallback"))]
mod no_sql;
#[cfg(feature = "sqlite-probe")]
mod probe;
mod shape;
mod slot;
#[cfg(feature = "sql-fallback")]
mod sql;
mod watch;

#[cfg(not(feature = "sqlite-probe"))]
use no_probe as probe;
#[cfg(not(feature = "sql-fallback"))]
use no_sql as sql;

use watch::Watch;

/// What watches one connection; for hosts that call `set_instrumentation` themselves.
///
/// ```
/// # fn watched(connection: &mut diesel::SqliteConnection) {
/// use diesel::connection::Connection;
/// connection.set_instrumentation(provenance::diesel::instrumentation());
/// # }
/// ```
pub fn instrumentation() -> impl Instrumentation {
    Watch::new(None::<Host>)
}

/// As [`instrumentation`], passing every event on to the host's own `inner`.
pub fn instrumentation_with(inner: impl Instrumentation) -> impl Instrumentation {
    Watch::new(inner)
}

/// The instrumentation that was the default before ours. Diesel gives an instance of it, not
/// its constructor: all connections share the instance.
static HOST: OnceLock<Mutex<Box<dyn Instrumentation>>> = OnceLock::new();

thread_local! {
    static IN_HOST: Cell<bool> = const { Cell::new(false) };
}

/// Makes every later connection report to us, and to what was the default before.
pub(crate) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        probe::install();
        if let Some(host) = get_default_instrumentation() {
            let _ = HOST.set(Mutex::new(host));
        }
        // Fails only if a host panicked inside Diesel's lock; then every bind counts as a blind spot.
        let _ = set_default_instrumentation(|| Some(Box::new(Watch::new(HOST.get().map(|_| Host)))));
    });
}

/// Passes events on to the shared instance.
struct Host;

impl Instrumentation for Host {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        // An instrumentation that queries through Diesel would wait for itself here.
        if IN_HOST.replace(true) {
            return;
        }
        let _done = OutOfHost;
        if let Some(host) = HOST.get() {
            host.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .on_connection_event(event);
        }
    }
}

/// Also when the host's instrumentation panics.
struct OutOfHost;

impl Drop for OutOfHost {
    fn drop(&mut self) {
        IN_HOST.set(false);
    }
}
