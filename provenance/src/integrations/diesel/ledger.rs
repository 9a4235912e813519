//! The writes of a connection between their statement and their commit.

use super::boundary::{Boundaries, Name, Step};
use crate::hooks::storage::Doubt;

/// Which database a connection talks to. They differ in what an error does to a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Dialect {
    Sqlite,
    Postgres,
    /// MySQL, and whatever is none of the others.
    #[default]
    Other,
}

impl Dialect {
    /// Of a backend of Diesel's, by its name: it need not be `'static`.
    pub(super) fn of<DB>() -> Self {
        match std::any::type_name::<DB>() {
            "diesel::sqlite::backend::Sqlite" => Dialect::Sqlite,
            "diesel::pg::backend::Pg" => Dialect::Postgres,
            _ => Dialect::Other,
        }
    }
}

/// What an error may mean beyond its own statement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Failure {
    /// The database said so: the statement did nothing.
    Refused,
    /// No answer came, so it may have run.
    Unanswered,
}

/// Savepoints within savepoints that are told apart; with more nothing is certain.
const MAX_LEVELS: usize = 1024;

/// What waits for its transaction. `W` is a write; a commit hands it out with what is doubtful of it.
#[derive(Debug)]
pub(super) struct Ledger<W> {
    pub(super) dialect: Dialect,
    /// The open transaction and its savepoints, the outermost first; none in autocommit.
    levels: Vec<Level<W>>,
    health: Health,
    /// A text was not understood: whether a transaction is open is not known.
    lost: bool,
    /// Of a COMMIT that nobody answered. The next answer says that it failed; without one, nobody knows.
    unanswered: Vec<W>,
}

#[derive(Debug)]
struct Level<W> {
    /// Of a savepoint.
    name: Option<Name>,
    writes: Vec<W>,
}

impl<W> Level<W> {
    fn new(name: Option<Name>) -> Self {
        Level {
            name,
            writes: Vec::new(),
        }
    }
}

/// What a COMMIT of the open transaction would do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Health {
    Sound,
    /// A statement may have failed unseen.
    Unproven(Doubt),
    /// PostgreSQL refused a statement: a COMMIT rolls back, and reports success.
    Aborted,
}

/// A write that stands, and what is doubtful of that.
pub(super) type Settled<W> = (W, Option<Doubt>);

impl<W> Default for Ledger<W> {
    fn default() -> Self {
        Ledger {
            dialect: Dialect::Other,
            levels: Vec::new(),
            health: Health::Sound,
            lost: false,
            unanswered: Vec::new(),
        }
    }
}

impl<W> Ledger<W> {
    /// A statement that wrote, successfully as far as anybody saw.
    pub(super) fn keep(&mut self, write: W, out: &mut Vec<Settled<W>>) {
        match self.levels.last_mut() {
            Some(level) => level.writes.push(write),
            None => out.push((write, self.lost.then_some(Doubt::TransactionNotFollowed))),
        }
    }

    /// A statement succeeded: the database accepts statements, so that the transaction is sound.
    pub(super) fn succeeded(&mut self) {
        if !self.unanswered.is_empty() {
            self.unanswered.clear();
        }
        if self.dialect == Dialect::Postgres {
            self.health = Health::Sound;
        }
    }

    /// A statement that succeeded at first sight may fail, or have failed, unseen.
    pub(super) fn unproven(&mut self, doubt: Doubt) {
        if self.health == Health::Sound {
            self.health = Health::Unproven(doubt);
        }
    }

    /// A statement failed.
    pub(super) fn failed(&mut self, failure: Failure) {
        if self.levels.is_empty() {
            return;
        }
        match (self.dialect, failure) {
            // It undoes the statement alone, or ends the transaction: then the COMMIT fails.
            (Dialect::Sqlite, _) => {}
            (Dialect::Postgres, Failure::Refused) => self.health = Health::Aborted,
            (Dialect::Postgres, Failure::Unanswered) | (Dialect::Other, _) => {
                self.unproven(Doubt::TransactionMayHaveAborted);
            }
        }
    }

    /// A text with boundaries of transactions ran.
    pub(super) fn cross(&mut self, text: Boundaries, failure: Option<Failure>, out: &mut Vec<Settled<W>>) {
        match (failure, text.steps.as_slice()) {
            (None, _) => text.steps.into_iter().for_each(|step| self.step(step, out)),
            (Some(failure), [step]) if text.alone => self.step_failed(step, failure, out),
            // Somewhere in it.
            (Some(_), _) => self.lose(out),
        }
    }

    fn step(&mut self, step: Step, out: &mut Vec<Settled<W>>) {
        // Accepted also after an error that ends a transaction.
        let proves = !matches!(step, Step::Commit { .. } | Step::Rollback { .. } | Step::Unclear);
        if proves {
            self.succeeded();
        }
        match step {
            Step::Begin => self.begin(out),
            Step::Commit { chain } => {
                self.end(true, out);
                self.chain(chain);
            }
            Step::Rollback { chain } => {
                self.end(false, out);
                self.chain(chain);
            }
            Step::Savepoint(name) => {
                // Of the outermost each counts: to release the last one commits.
                let again = match self.levels.as_slice() {
                    [_, .., top] => top.writes.is_empty() && top.name.as_ref() == Some(&name),
                    _ => false,
                };
                if again {
                    // Left by a ROLLBACK TO: the new one hides it.
                } else if self.levels.len() < MAX_LEVELS {
                    self.levels.push(Level::new(Some(name)));
                } else {
                    self.lose(out);
                }
            }
            Step::Release(name) => match self.find(&name, out) {
                // Perhaps within a transaction that is not known.
                Some(0) if self.lost => self.give_out(Some(Doubt::TransactionNotFollowed), out),
                Some(0) => self.end(true, out),
                Some(at) => {
                    let writes: Vec<W> = self.levels.drain(at..).flat_map(|level| level.writes).collect();
                    if let Some(level) = self.levels.last_mut() {
                        level.writes.extend(writes);
                    }
                }
                None => self.lose(out),
            },
            Step::RollbackTo(name) => match self.find(&name, out) {
                Some(at) => {
                    self.back_to(at);
                    self.health = Health::Sound;
                }
                None => self.lose(out),
            },
            Step::Unclear => self.lose(out),
        }
    }

    fn step_failed(&mut self, step: &Step, failure: Failure, out: &mut Vec<Settled<W>>) {
        match step {
            Step::Commit { .. } => self.commit_failed(failure, out),
            Step::Release(name) if self.dialect == Dialect::Other || failure == Failure::Unanswered => {
                if self.find(name, out).is_some() {
                    self.failed(failure);
                }
            }
            // What they were to undo, nothing confirms.
            Step::Rollback { .. } => {
                self.levels.clear();
                self.health = Health::Sound;
            }
            Step::RollbackTo(name) => {
                if let Some(at) = self.find(name, out) {
                    self.back_to(at);
                }
                self.failed(failure);
            }
            Step::Unclear => self.lose(out),
            Step::Begin | Step::Savepoint(_) | Step::Release(_) => self.failed(failure),
        }
    }

    fn begin(&mut self, out: &mut Vec<Settled<W>>) {
        let open = !self.levels.is_empty();
        match self.dialect {
            // Within a transaction PostgreSQL warns, and goes on.
            Dialect::Postgres if open || self.lost => return,
            // It refuses that: the last one ended unseen.
            Dialect::Sqlite => self.give_out(Some(Doubt::TransactionNotFollowed), out),
            // It commits that; also what a text began that was not understood.
            Dialect::Other if open => {
                let doubt = self.doubt().or(Some(Doubt::TransactionNotFollowed));
                self.give_out(doubt, out);
            }
            _ => {}
        }
        self.lost = false;
        self.health = Health::Sound;
        self.levels.push(Level::new(None));
    }

    /// COMMIT or ROLLBACK of the whole transaction succeeded.
    fn end(&mut self, commit: bool, out: &mut Vec<Settled<W>>) {
        if commit && self.health != Health::Aborted {
            let doubt = self.doubt();
            self.give_out(doubt, out);
        }
        self.levels.clear();
        // A second COMMIT may have done what the first one was to do; a ROLLBACK says that it had failed.
        let unanswered = self.unanswered.drain(..).filter(|_| commit);
        out.extend(unanswered.map(|write| (write, Some(Doubt::CommitNotConfirmed))));
        self.lost = false;
        self.health = Health::Sound;
    }

    fn commit_failed(&mut self, failure: Failure, out: &mut Vec<Settled<W>>) {
        match (self.dialect, failure) {
            // The transaction stays open, or it was rolled back and says so at its next boundary.
            (Dialect::Sqlite, _) => {}
            (Dialect::Postgres, Failure::Refused) => {
                self.levels.clear();
                self.health = Health::Sound;
            }
            (Dialect::Postgres, Failure::Unanswered) => {
                let writes = self.levels.drain(..).flat_map(|level| level.writes);
                self.unanswered.extend(writes);
                self.health = Health::Sound;
            }
            (Dialect::Other, _) => self.give_out(Some(Doubt::CommitNotConfirmed), out),
        }
    }

    fn chain(&mut self, chain: bool) {
        if chain {
            self.levels.push(Level::new(None));
        }
    }

    /// Drops what was written since that savepoint; it stays.
    fn back_to(&mut self, at: usize) {
        self.levels.truncate(at + 1);
        if let Some(level) = self.levels.last_mut() {
            level.writes.clear();
        }
    }

    /// The latest savepoint of that name. Where spelling leaves open which, nothing open is certain.
    fn find(&mut self, name: &Name, out: &mut Vec<Settled<W>>) -> Option<usize> {
        let may_be = |level: &Level<W>| level.name.as_ref().is_some_and(|known| known.may_be(name));
        let is = |level: &Level<W>| level.name.as_ref() == Some(name);
        let at = self.levels.iter().rposition(may_be)?;
        if self.levels.iter().rposition(is) != Some(at) && self.dialect != Dialect::Sqlite {
            self.lose(out);
            return None;
        }
        Some(at)
    }

    /// What became of the open writes, and whether a transaction is open, is not known any more.
    pub(super) fn lose(&mut self, out: &mut Vec<Settled<W>>) {
        self.give_out(Some(Doubt::TransactionNotFollowed), out);
        self.health = Health::Sound;
        self.lost = true;
    }

    /// The database itself says whether a transaction is open; `failed`: after a statement that failed.
    #[cfg_attr(not(feature = "sqlite-probe"), allow(dead_code))]
    pub(super) fn is_open(&mut self, open: bool, failed: bool, out: &mut Vec<Settled<W>>) {
        if open != self.levels.is_empty() {
            self.lost = false;
        } else if open {
            self.levels.push(Level::new(None));
        } else {
            // An error rolled it back, or it ended by a way that no statement of Diesel's shows.
            if !failed {
                self.give_out(Some(Doubt::TransactionNotFollowed), out);
            }
            self.levels.clear();
            self.lost = false;
            self.health = Health::Sound;
        }
    }

    pub(super) fn in_transaction(&self) -> bool {
        !self.levels.is_empty()
    }

    /// Whether what is written now stands at once, for certain.
    pub(super) fn autocommits(&self) -> bool {
        self.levels.is_empty() && !self.lost
    }

    /// Everything that nobody will hear of any more; `open`: the connection lives on, unwatched.
    pub(super) fn abandon(&mut self, open: bool, out: &mut Vec<Settled<W>>) {
        let writes = self.unanswered.drain(..);
        out.extend(writes.map(|write| (write, Some(Doubt::CommitNotConfirmed))));
        if open {
            self.give_out(Some(Doubt::TransactionNotFollowed), out);
        }
    }

    fn doubt(&self) -> Option<Doubt> {
        match self.health {
            Health::Unproven(doubt) => Some(doubt),
            Health::Sound | Health::Aborted => None,
        }
    }

    fn give_out(&mut self, doubt: Option<Doubt>, out: &mut Vec<Settled<W>>) {
        let writes = self.levels.drain(..).flat_map(|level| level.writes);
        out.extend(writes.map(|write| (write, doubt)));
    }
}
