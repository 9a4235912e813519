//! Diesel: a tracked value is staged when it is bound, and recorded when the database has it.
//!
//! [`init`](crate::init) makes every connection that is opened later report to provenance, and
//! keeps an instrumentation that the host made the default before. A host that calls
//! `set_instrumentation` on a connection replaces ours there; it chains with
//! [`instrumentation_with`]. Writes on a connection that does not report are counted as blind
//! spots, never recorded.
//!
//! # Limits
//! Use Diesel's `transaction`. Of transactions in SQL text, a `batch_execute("BEGIN")`, `COMMIT` or
//! `ROLLBACK` by itself is understood; `sql_query("BEGIN")`, several statements in one text and
//! `SAVEPOINT` are not. Diesel does not report row counts: an UPDATE without a `RETURNING`
//! row that a tracked model loads, an `ON CONFLICT` clause and, on SQLite, an INSERT .. RETURNING
//! into something else than a tracked model are recorded as `certain: false`. Values that bypass
//! the model (`set(email.eq(..))`, SQL text) are not seen.

use std::cell::Cell;
use std::sync::{Mutex, Once, OnceLock, PoisonError};

use diesel::connection::{
    Instrumentation, InstrumentationEvent, get_default_instrumentation, set_default_instrumentation,
};

#[doc(hidden)]
pub mod bind;
mod slot;
#[cfg(feature = "sql-fallback")]
mod sql;
mod watch;

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
