//! What one statement binds, held from its start to its end.

use std::cell::{Cell, RefCell};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::ledger::Dialect;
use super::sql::Served;
use crate::hooks::storage::Write;

thread_local! {
    /// Statements begun on this thread and not ended, the latest last. More than one while a
    /// cursor is read and another connection is used.
    static OPEN: RefCell<Vec<Weak<Slot>>> = const { RefCell::new(Vec::new()) };
    /// Rows ever read into tracked models on this thread.
    static ROWS: Cell<u64> = const { Cell::new(0) };
}

/// A row was read into a tracked model.
pub(super) fn row() {
    let _ = ROWS.try_with(|rows| rows.set(rows.get().wrapping_add(1)));
    if let Some(slot) = Slot::in_hand() {
        slot.statement().rows += 1;
    }
}

/// How many rows models have taken on this thread, and the thread.
#[cfg(feature = "sql-fallback")]
pub(super) fn rows() -> (std::thread::ThreadId, u64) {
    let rows = ROWS.try_with(Cell::get).unwrap_or_default();
    (std::thread::current().id(), rows)
}

/// One statement in the making. The connection owns it: dropping it discards what it holds.
#[derive(Default)]
pub(super) struct Slot(Mutex<Statement>);

/// What is known of a statement when it ends.
#[derive(Default)]
pub(super) struct Statement {
    pub(super) writes: Vec<Write>,
    /// Rows that came back and were read into tracked models.
    pub(super) rows: usize,
    /// What models have bound, so that the SQL text need not tell it.
    pub(super) served: Served,
    /// Which database the values were serialised for.
    pub(super) dialect: Option<Dialect>,
}

impl Slot {
    /// Takes the binds of this thread from now on.
    pub(super) fn open() -> Arc<Self> {
        let slot = Arc::new(Slot::default());
        with_open(|open| {
            open.retain(|slot| slot.strong_count() > 0);
            open.push(Arc::downgrade(&slot));
        });
        slot
    }

    /// The statement in hand, if a watched connection began one.
    pub(super) fn in_hand() -> Option<Arc<Self>> {
        with_open(|open| {
            while let Some(latest) = open.last() {
                match latest.upgrade() {
                    Some(slot) => return Some(slot),
                    None => open.pop(),
                };
            }
            None
        })
        .flatten()
    }

    pub(super) fn statement(&self) -> MutexGuard<'_, Statement> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the statement.
    pub(super) fn close(&self) -> Statement {
        std::mem::take(&mut *self.statement())
    }
}

fn with_open<R>(take: impl FnOnce(&mut Vec<Weak<Slot>>) -> R) -> Option<R> {
    OPEN.try_with(|open| open.try_borrow_mut().ok().map(|mut open| take(&mut open)))
        .ok()
        .flatten()
}
