//! One connection's statements and transactions: what was committed, and what was not.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use diesel::connection::{DebugQuery, Instrumentation, InstrumentationEvent};

use super::slot::{Slot, Statement};
use crate::hooks::storage::{Doubt, Write};
use crate::tracker::{self, BlindSpot};
use crate::vocabulary::Action;

/// Watches one connection, and passes every event on.
pub(super) struct Watch<I> {
    inner: I,
    /// The statement that runs. One that never ended, because a bind failed, is discarded by the next.
    slot: Option<Arc<Slot>>,
    /// Announced before its SQL runs; applied when that SQL has ended.
    boundary: Option<Boundary>,
    /// Writes of the open transaction, a level a savepoint.
    levels: Vec<Vec<Write>>,
    /// A COMMIT failed. Diesel rolls back at once, unless the database did.
    commit_failed: bool,
}

/// The end or the beginning of a transaction level; 1 is the outermost.
#[derive(Clone, Copy)]
enum Boundary {
    Begin(usize),
    Commit(usize),
    Rollback(usize),
}

impl<I> Watch<I> {
    pub(super) fn new(inner: I) -> Self {
        Watch {
            inner,
            slot: None,
            boundary: None,
            levels: Vec::new(),
            commit_failed: false,
        }
    }

    fn observe(&mut self, event: &InstrumentationEvent<'_>) {
        match event {
            InstrumentationEvent::StartQuery { .. } => {
                if self.commit_failed && self.boundary.is_none() {
                    self.commit_failed = false;
                    self.levels.clear();
                }
                self.slot = tracker::with(|_| Slot::open());
            }
            InstrumentationEvent::FinishQuery { query, error, .. } => {
                let statement = self.slot.take().map(|slot| slot.close()).unwrap_or_default();
                match self.boundary.take().or_else(|| self.raw_boundary(*query)) {
                    Some(boundary) => self.cross(boundary, error.is_none()),
                    None if error.is_none() => self.keep(statement, *query),
                    None => {}
                }
            }
            InstrumentationEvent::BeginTransaction { depth, .. } => {
                self.boundary = Some(Boundary::Begin(level(depth.get())));
            }
            InstrumentationEvent::CommitTransaction { depth, .. } => {
                self.boundary = Some(Boundary::Commit(level(depth.get())));
            }
            InstrumentationEvent::RollbackTransaction { depth, .. } => {
                self.boundary = Some(Boundary::Rollback(level(depth.get())));
            }
            _ => {}
        }
    }

    /// A transaction that the host begins or ends by text, `batch_execute("BEGIN IMMEDIATE")`.
    fn raw_boundary(&self, query: &dyn DebugQuery) -> Option<Boundary> {
        // Writing out a query costs about as much as a small one takes. Diesel wraps a batch's
        // text as it is, and anything that it has built behind one thinner reference.
        if size_of_val(query) != size_of::<&str>() {
            return None;
        }
        let text = Sql::of(query)
            .0
            .trim_end_matches([' ', '\n', '\t', ';'])
            .to_ascii_uppercase();
        if text.contains(';') {
            return None;
        }
        let mut words = text.split_ascii_whitespace();
        match (words.next()?, words.next()) {
            ("BEGIN", _) | ("START", Some("TRANSACTION")) => Some(Boundary::Begin(1)),
            ("COMMIT" | "END", _) => Some(Boundary::Commit(1)),
            ("ROLLBACK", _) if !text.contains(" TO ") => Some(Boundary::Rollback(1)),
            _ => None,
        }
    }

    /// A statement succeeded: its writes wait for the transaction, or stand.
    fn keep(&mut self, statement: Statement, query: &dyn DebugQuery) {
        if statement.writes.is_empty() {
            return;
        }
        let sql = Sql::of(query);
        for mut write in statement.writes {
            match sql.doubt(write.action(), statement.rows) {
                Ok(doubt) => write.doubt = doubt,
                Err(NotThisStatement) => {
                    write.missed(BlindSpot::UninstrumentedConnection);
                    continue;
                }
            }
            match self.levels.last_mut() {
                Some(level) => level.push(write),
                None => write.committed(),
            }
        }
    }

    /// The SQL of a boundary has run.
    fn cross(&mut self, boundary: Boundary, succeeded: bool) {
        self.commit_failed = false;
        match boundary {
            Boundary::Begin(depth) if succeeded => {
                // Levels deeper than Diesel's are of a transaction that ended unseen.
                self.levels.resize_with(depth - 1, Vec::new);
                self.levels.push(Vec::new());
            }
            Boundary::Begin(_) => {}
            Boundary::Commit(depth) if succeeded => {
                let from = (depth - 1).min(self.levels.len());
                let writes: Vec<Write> = self.levels.drain(from..).flatten().collect();
                match self.levels.last_mut() {
                    Some(level) => level.extend(writes),
                    None => writes.into_iter().for_each(Write::committed),
                }
            }
            Boundary::Commit(depth) => self.commit_failed = depth == 1,
            // Also when the ROLLBACK failed: what it was to undo, nothing confirms.
            Boundary::Rollback(depth) => self.levels.truncate(depth - 1),
        }
    }
}

fn level(depth: u32) -> usize {
    usize::try_from(depth).unwrap_or(usize::MAX).max(1)
}

impl<I: Instrumentation> Instrumentation for Watch<I> {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        self.observe(&event);
        self.inner.on_connection_event(event);
    }
}

/// A statement's text as Diesel writes it: upper-case keywords, quoted names, no values.
struct Sql(String);

/// The values were bound on another connection, which does not report.
struct NotThisStatement;

impl Sql {
    /// The text without the binds that Diesel shows after it. Never fails: what cannot be
    /// shown (an empty changeset) is the empty text.
    fn of(query: &dyn DebugQuery) -> Self {
        let mut text = UntilBinds(String::new());
        let _ = write!(text, "{query}");
        Sql(text.0)
    }

    /// What Diesel does not tell of a write by this statement, `rows` of which came back.
    fn doubt(&self, action: Action, rows: usize) -> Result<Option<Doubt>, NotThisStatement> {
        let sql = self.0.as_str();
        let may_conflict = sql.contains(" ON CONFLICT") || sql.contains(" ON DUPLICATE KEY");
        let returning = sql.contains(" RETURNING ");
        match action {
            _ if may_conflict => Ok(Some(Doubt::OnConflict)),
            Action::Insert if sql.starts_with("INSERT OR IGNORE") || sql.starts_with("INSERT IGNORE") => {
                Ok(Some(Doubt::OnConflict))
            }
            Action::Insert
                if ["INSERT ", "REPLACE ", "COPY "]
                    .iter()
                    .any(|verb| sql.starts_with(verb)) =>
            {
                Ok((returning && rows == 0).then_some(Doubt::ReturningNotConfirmed))
            }
            Action::Update if sql.starts_with("UPDATE ") => Ok(match (returning, rows) {
                (true, 0) => Some(Doubt::ReturningNotConfirmed),
                (true, _) => None,
                (false, _) => Some(Doubt::RowCountNotReported),
            }),
            _ => Err(NotThisStatement),
        }
    }
}

/// Takes text until Diesel begins to show binds: those are raw values.
struct UntilBinds(String);

impl fmt::Write for UntilBinds {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        match piece.find(" -- binds: ") {
            Some(end) => {
                self.0.push_str(piece.get(..end).unwrap_or_default());
                Err(fmt::Error)
            }
            None => {
                self.0.push_str(piece);
                Ok(())
            }
        }
    }
}
