//! What SQLite itself says of a connection: rows changed, and whether a transaction is open.
//!
//! Diesel keeps its handle to itself, so SQLite tells it: `sqlite3_auto_extension` calls us for every
//! connection that the process opens, and a connection that Diesel opens under a [`Watch`] is the one
//! that it opens on this thread between the start and the end of `establish`. Nothing a host may want
//! is taken: no hook, no trace, no authorizer, of which SQLite keeps one a connection. What is added to
//! such a connection is one SQL function, [`NAME`], because its destructor says when the handle dies.
//!
//! [`Watch`]: super::watch::Watch

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, Once, PoisonError};

use libsqlite3_sys as ffi;

/// The SQL function that each watched connection has. It does nothing but to fail.
const NAME: &CStr = c"provenance_probe";

thread_local! {
    /// This thread opens a connection that a watch waits for.
    static EXPECTED: Cell<bool> = const { Cell::new(false) };
    /// What it opened.
    static OPENED: RefCell<Option<Probe>> = const { RefCell::new(None) };
}

/// One connection of SQLite's; says nothing once it is closed.
#[derive(Clone)]
pub(super) struct Probe(Arc<Handle>);

struct Handle(Mutex<Option<Pointer>>);

#[derive(Clone, Copy)]
struct Pointer(NonNull<ffi::sqlite3>);

// SAFETY: SQLite allows the reads that the pointer is used for on any thread, and they happen only under
// the mutex that its destructor takes as well, so never after the connection is closed.
unsafe impl Send for Pointer {}

/// A connection's counters between two of its statements.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Reading {
    /// No transaction is open.
    pub(super) autocommit: bool,
    /// Rows that the last INSERT, UPDATE or DELETE changed itself.
    changed: u32,
    /// Rows ever changed, by triggers and foreign keys too. Wraps.
    total: u32,
    /// Of the row that was inserted last; triggers leave it as it was.
    row: i64,
}

/// What one statement changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Changed {
    Nothing,
    /// Rows, and whether one of them is new for certain. That none is, SQLite does not tell: a new row
    /// may have the number of the one before.
    Rows(usize, bool),
    /// Only triggers changed something.
    Otherwise,
}

impl Reading {
    /// What the statement between `before` and this changed.
    pub(super) fn since(&self, before: &Reading) -> Changed {
        if self.total == before.total {
            return Changed::Nothing;
        }
        match usize::try_from(self.changed) {
            Ok(0) | Err(_) => Changed::Otherwise,
            Ok(rows) => Changed::Rows(rows, self.row != before.row),
        }
    }
}

impl Changed {
    /// It was one row, which is new.
    pub(super) fn is_new_row(self) -> bool {
        self == Changed::Rows(1, true)
    }
}

/// Makes SQLite call us for every connection that is opened from now on, process-wide.
pub(super) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // SAFETY: `opened` has the signature that SQLite documents for entry points of automatic
        // extensions. A failure leaves connections without a probe.
        unsafe { ffi::sqlite3_auto_extension(Some(opened)) };
    });
}

/// The next connection that this thread opens is waited for.
pub(super) fn expect() {
    let _ = EXPECTED.try_with(|expected| expected.set(true));
    let _ = OPENED.try_with(RefCell::take);
}

/// The connection that was opened, if it is SQLite's.
pub(super) fn opened_here() -> Option<Probe> {
    let _ = EXPECTED.try_with(|expected| expected.set(false));
    OPENED.try_with(RefCell::take).ok().flatten().filter(Probe::is_alive)
}

impl Probe {
    pub(super) fn is_alive(&self) -> bool {
        self.0.read(|_| ()).is_some()
    }

    pub(super) fn read(&self) -> Option<Reading> {
        self.0.read(|db| {
            // SAFETY: the connection is open, as its destructor waits for the mutex held here. All four read
            // a field. Diesel calls its instrumentation on the thread that has the connection; were another
            // one writing, SQLite documents that the number means nothing, and no more.
            let (autocommit, changed, total, row) = unsafe {
                (
                    ffi::sqlite3_get_autocommit(db),
                    ffi::sqlite3_changes(db),
                    ffi::sqlite3_total_changes(db),
                    ffi::sqlite3_last_insert_rowid(db),
                )
            };
            Reading {
                autocommit: autocommit != 0,
                changed: changed.cast_unsigned(),
                total: total.cast_unsigned(),
                row,
            }
        })
    }
}

impl Handle {
    fn read<R>(&self, with: impl FnOnce(*mut ffi::sqlite3) -> R) -> Option<R> {
        let pointer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pointer.map(|pointer| with(pointer.0.as_ptr()))
    }
}

/// SQLite opened a connection. Must not unwind, and does not: nothing in it panics.
unsafe extern "C" fn opened(
    db: *mut ffi::sqlite3,
    _message: *mut *mut c_char,
    _api: *const ffi::sqlite3_api_routines,
) -> c_int {
    let expected = EXPECTED.try_with(|expected| expected.replace(false)).unwrap_or(false);
    let Some(pointer) = NonNull::new(db).filter(|_| expected) else {
        return ffi::SQLITE_OK;
    };
    let handle = Arc::new(Handle(Mutex::new(Some(Pointer(pointer)))));
    let given = Arc::into_raw(handle.clone()).cast_mut().cast::<c_void>();
    // SAFETY: `db` is the open connection that SQLite passes, the name ends with NUL, the callbacks
    // have the documented signatures. `given` is a counted reference that `closed` gives back;
    // SQLite calls that once, also when the registration fails.
    let code = unsafe {
        ffi::sqlite3_create_function_v2(
            db,
            NAME.as_ptr(),
            0,
            ffi::SQLITE_UTF8,
            given,
            Some(refuse),
            None,
            None,
            Some(closed),
        )
    };
    if code == ffi::SQLITE_OK {
        let _ = OPENED.try_with(|opened| opened.replace(Some(Probe(handle))));
    }
    // The host gets its connection in any case.
    ffi::SQLITE_OK
}

/// SQLite closes the connection, or the host puts a function of its own in our place.
unsafe extern "C" fn closed(given: *mut c_void) {
    // SAFETY: `given` is what `opened` made of an `Arc<Handle>`, and SQLite gives it back once.
    let handle = unsafe { Arc::from_raw(given.cast_const().cast::<Handle>()) };
    *handle.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

/// Somebody called the SQL function.
unsafe extern "C" fn refuse(context: *mut ffi::sqlite3_context, _: c_int, _: *mut *mut ffi::sqlite3_value) {
    // SAFETY: `context` is that of the running call, and a message of NUL-terminated text is copied.
    unsafe { ffi::sqlite3_result_error(context, c"provenance_probe is not to be called".as_ptr(), -1) };
}
