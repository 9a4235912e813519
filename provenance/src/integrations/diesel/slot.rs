//! What one statement binds, held from its start to its end.

#[cfg(feature = "sql-fallback")]
use std::cell::Cell;
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::ledger::Dialect;
use super::sql::Served;
use crate::hooks::returned::Returned;
use crate::hooks::storage::Write;
use crate::site::ModelSite;
use crate::vocabulary::Timestamp;

thread_local! {
    /// Statements begun on this thread, the latest last; those that have ended are left out sooner or
    /// later. More than one is open while a cursor is read and another connection is used.
    static BEGUN: RefCell<Vec<Arc<Slot>>> = const { RefCell::new(Vec::new()) };
    /// Rows ever read into tracked models on this thread.
    #[cfg(feature = "sql-fallback")]
    static ROWS: Cell<u64> = const { Cell::new(0) };
}

/// A row was read into a tracked model. Gives who wants it: a write of its table that does not say whose it is, of the
/// statement in hand or, where rows come after the end, of this thread's last one.
pub(super) fn row(site: &'static ModelSite) -> Option<Arc<Returned>> {
    #[cfg(feature = "sql-fallback")]
    let _ = ROWS.try_with(|rows| rows.set(rows.get().wrapping_add(1)));
    with_begun(|begun| {
        let open = begun.iter().rev().find(|slot| slot.is_open());
        if let Some(slot) = open {
            // The slot is this thread's: nobody else counts.
            slot.rows
                .store(slot.rows.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
        let slot = open.or(begun.last()).filter(|slot| slot.asks.load(Ordering::Relaxed))?;
        let mut statement = slot.statement();
        let of_write = statement.writes.iter_mut().find_map(|write| write.returned(site));
        of_write.or_else(|| statement.returned.iter().find(|returned| returned.is_of(site)).cloned())
    })
    .flatten()
}

/// When the statement in hand gave its first row that was asked about; now, if there is none.
pub(super) fn at() -> Timestamp {
    let of = |slot: &Slot| match slot.at.load(Ordering::Relaxed) {
        0 => {
            let now = Timestamp::now();
            slot.at.store(now.0, Ordering::Relaxed);
            now
        }
        at => Timestamp(at),
    };
    in_hand(of).unwrap_or_else(Timestamp::now)
}

/// How many rows models have taken on this thread, and the thread.
#[cfg(feature = "sql-fallback")]
pub(super) fn rows() -> (std::thread::ThreadId, u64) {
    let rows = ROWS.try_with(Cell::get).unwrap_or_default();
    (std::thread::current().id(), rows)
}

/// Shows the statement in hand, if a watched connection began one. What is shown it may not call
/// the host's code.
pub(super) fn in_hand<R>(show: impl FnOnce(&Slot) -> R) -> Option<R> {
    with_begun(|begun| {
        let latest = begun.iter().rev().find(|slot| slot.is_open())?;
        Some(show(latest))
    })
    .flatten()
}

/// Where one statement after the other is gathered. It is of one thread: one that begins on another
/// has another slot.
#[derive(Default)]
pub(super) struct Slot {
    open: AtomicBool,
    /// Whether its statement asks for the rows that come back.
    asks: AtomicBool,
    rows: AtomicUsize,
    /// When one was first asked about; 0 if none was.
    at: AtomicI64,
    /// Something was bound.
    bound: AtomicBool,
    statement: Mutex<Statement>,
}

/// What is known of a statement when it ends.
#[derive(Default)]
pub(super) struct Statement {
    pub(super) writes: Vec<Write>,
    /// Where rows go that come back after it has ended.
    returned: Vec<Arc<Returned>>,
    /// Rows that came back and were read into tracked models.
    pub(super) rows: usize,
    /// What models have bound, so that the SQL text need not tell it.
    pub(super) served: Served,
    /// Which database the values were serialised for.
    pub(super) dialect: Option<Dialect>,
}

impl Slot {
    fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// To bind something.
    pub(super) fn statement(&self) -> MutexGuard<'_, Statement> {
        self.bound.store(true, Ordering::Relaxed);
        self.statement.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its rows are asked for.
    pub(super) fn ask(&self) {
        self.asks.store(true, Ordering::Relaxed);
    }

    /// Rows that come back from now on go there, until the next statement begins.
    pub(super) fn ask_for(&self, returned: Arc<Returned>) {
        self.statement().returned.push(returned);
        self.ask();
    }

    fn reset(&self) {
        self.open.store(false, Ordering::Release);
        self.asks.store(false, Ordering::Relaxed);
        self.bound.store(false, Ordering::Relaxed);
        self.rows.store(0, Ordering::Relaxed);
        self.at.store(0, Ordering::Relaxed);
    }

    fn close(&self) -> Statement {
        let mut statement = match self.bound.load(Ordering::Relaxed) || self.asks.load(Ordering::Relaxed) {
            true => std::mem::take(&mut *self.statement()),
            false => Statement::default(),
        };
        statement.rows = self.rows.load(Ordering::Relaxed);
        self.reset();
        statement
    }
}

/// A statement that has not ended. The connection owns it: dropping it discards what it holds.
pub(super) struct Open(Option<Arc<Slot>>);

impl Open {
    /// Takes the binds of this thread from now on; in the slot of the connection's last statement, if
    /// that was the last of this thread as well.
    pub(super) fn begin(last: &mut Option<Arc<Slot>>) -> Self {
        let slot = with_begun(|begun| {
            if let (Some(slot), Some(latest)) = (last.take(), begun.last())
                && Arc::ptr_eq(&slot, latest)
            {
                return slot;
            }
            begun.retain(|slot| slot.is_open());
            let slot = Arc::new(Slot::default());
            begun.push(slot.clone());
            slot
        });
        let slot = slot.unwrap_or_default();
        if slot.asks.load(Ordering::Relaxed) {
            slot.close();
        }
        slot.open.store(true, Ordering::Release);
        Open(Some(slot))
    }

    /// Whether nothing was bound.
    pub(super) fn is_unbound(&self) -> bool {
        self.0.as_ref().is_none_or(|slot| !slot.bound.load(Ordering::Relaxed))
    }

    /// What was bound, if it is one write, for that database.
    pub(super) fn take_only(&self, dialect: Dialect) -> Option<Write> {
        let mut statement = self.0.as_ref()?.statement();
        let only = statement.writes.len() == 1 && statement.dialect == Some(dialect);
        only.then(|| statement.writes.pop()).flatten()
    }

    /// Puts back what was taken.
    pub(super) fn give_back(&self, write: Write) {
        if let Some(slot) = &self.0 {
            slot.statement().writes.push(write);
        }
    }

    /// Rows that models have taken so far.
    pub(super) fn rows(&self) -> usize {
        self.0.as_ref().map_or(0, |slot| slot.rows.load(Ordering::Relaxed))
    }

    /// Ends a statement of which nothing is left to be looked at, and gives its slot to the next.
    pub(super) fn end_empty(mut self) -> Option<Arc<Slot>> {
        let slot = self.0.take()?;
        slot.reset();
        Some(slot)
    }

    /// Ends the statement, and leaves its slot to the next.
    pub(super) fn end(mut self, last: &mut Option<Arc<Slot>>) -> Statement {
        let statement = self.0.as_ref().map(|slot| slot.close()).unwrap_or_default();
        *last = self.0.take();
        statement
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(slot) = &self.0 {
            slot.close();
        }
    }
}

fn with_begun<R>(take: impl FnOnce(&mut Vec<Arc<Slot>>) -> R) -> Option<R> {
    BEGUN
        .try_with(|begun| begun.try_borrow_mut().ok().map(|mut begun| take(&mut begun)))
        .ok()
        .flatten()
}
