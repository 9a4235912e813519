//! One connection's statements and transactions: what was committed, and what was not.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use diesel::connection::{DebugQuery, Instrumentation, InstrumentationEvent};
use diesel::result::{DatabaseErrorKind, Error};

use super::boundary::{self, Boundaries};
use super::ledger::{Dialect, Failure, Ledger, Settled};
#[cfg(not(feature = "sqlite-probe"))]
use super::no_probe as probe;
#[cfg(feature = "sqlite-probe")]
use super::probe;
use super::shape::{self, Built, Conflict, Facts, Shape, Verb};
use super::slot::{Open, Slot, Statement};
use super::sql::{Around, Begun, Fallback, Seen};
use crate::hooks::access;
use crate::hooks::storage::{Doubt, MOST_RAW, Write};
use crate::tracker::{self, BlindSpot};
use crate::vocabulary::Action;
use probe::{Changed, Probe, Reading};

/// Watches one connection, and passes every event on.
pub(super) struct Watch<I> {
    inner: I,
    driver: Driver,
    /// Statements that were begun and have not ended; more than one under pipelining, after a
    /// dropped future, and after a bind that failed.
    running: Vec<Running>,
    /// Of the last statement.
    slot: Option<Arc<Slot>>,
    built: Built,
    ledger: Ledger<Write>,
    /// Bytes of raw values that came into the ledger in the transaction that is open.
    raw: usize,
    probe: Option<Probe>,
    fallback: Fallback,
}

/// How statements follow each other, as the first end of one shows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Driver {
    Unknown,
    /// One after the other; a statement that has not ended when the next begins never ran.
    Sequential,
    /// diesel-async: any number at once, ended by their text alone; rows, and errors with them, come
    /// after the end.
    Async,
}

struct Running {
    slot: Option<Open>,
    shape: Shape,
    /// Where it may end by its text alone.
    text_of: Option<TextOf>,
    /// An earlier end may have been its own: another had the same text.
    mistakable: bool,
    /// Diesel has cached the prepared statement.
    cached: bool,
    /// Begun as text.
    text: bool,
    before: Option<Reading>,
    /// What its text writes, there too.
    begun: Option<Begun>,
}

impl Running {
    /// Of which nothing is known but how it ended.
    fn unknown(query: &dyn DebugQuery) -> Self {
        Running {
            slot: None,
            shape: Shape::of(query),
            text_of: None,
            mistakable: true,
            cached: false,
            text: true,
            before: None,
            begun: None,
        }
    }
}

/// What is kept of a text until a statement ends by it.
struct TextOf {
    /// To know it again.
    print: u64,
    /// It begins or ends a transaction.
    crosses: bool,
}

impl TextOf {
    fn new(query: &dyn DebugQuery) -> Self {
        let text = shape::text(query);
        TextOf {
            print: print(&text),
            crosses: !boundary::read(&text).steps.is_empty(),
        }
    }
}

fn print(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// The end of a statement.
struct Answered {
    /// `None` if it was given up before.
    running: Option<Running>,
    /// It may be the end of another that has the same text.
    doubtful: bool,
}

/// Statements that a connection may have open before the oldest are given up.
const MAX_RUNNING: usize = 256;

/// A statement that has ended: all that is known of it.
struct Finished<'q> {
    query: &'q dyn DebugQuery,
    shape: Shape,
    /// Begun as text.
    text: bool,
    error: Option<&'q Error>,
    statement: Statement,
    begun: Option<Begun>,
    /// As SQLite says.
    changed: Option<Changed>,
    /// Other statements were open, so that this may be the end of one of them.
    overlapped: bool,
}

impl<I> Watch<I> {
    pub(super) fn new(inner: I) -> Self {
        Watch {
            inner,
            driver: Driver::Unknown,
            running: Vec::new(),
            slot: None,
            built: Built::default(),
            ledger: Ledger::default(),
            raw: 0,
            probe: None,
            fallback: Fallback::default(),
        }
    }

    /// What most events are, in few instructions: the begin of a statement where nothing else is open, and the end of
    /// one of which there is nothing to say. `false` for any other, and nothing is done.
    fn observe_plain(&mut self, event: &InstrumentationEvent<'_>) -> bool {
        if Fallback::READS || self.driver != Driver::Sequential || self.probe.is_some() {
            return false;
        }
        match event {
            InstrumentationEvent::StartQuery { query, .. } if self.running.is_empty() => {
                access::statement_ended();
                self.run(*query, None, None, None);
                true
            }
            InstrumentationEvent::FinishQuery { query, error: None, .. } if self.ends_plainly(*query) => {
                access::statement_ended();
                true
            }
            _ => false,
        }
    }

    #[inline(never)]
    fn observe(&mut self, event: &InstrumentationEvent<'_>, out: &mut Vec<Settled<Write>>) {
        match event {
            InstrumentationEvent::FinishEstablishConnection { .. } => {
                self.probe = probe::opened_here();
                if self.probe.is_some() {
                    self.driver = Driver::Sequential;
                }
            }
            InstrumentationEvent::StartQuery { query, .. } => {
                access::statement_ended();
                self.fallback.settle_reads();
                self.begin(*query, out);
            }
            InstrumentationEvent::CacheQuery { sql, .. } => {
                // The text of `sql_query` is never cached.
                if let Some(running) = self.running.last_mut().filter(|_| self.driver != Driver::Async) {
                    running.cached = true;
                    self.fallback.cached(sql);
                }
            }
            InstrumentationEvent::FinishQuery { query, error, .. } => {
                self.end(*query, *error, out);
                access::statement_ended();
            }
            // Diesel takes the connection for itself: what has not ended by now never will.
            InstrumentationEvent::BeginTransaction { .. }
            | InstrumentationEvent::CommitTransaction { .. }
            | InstrumentationEvent::RollbackTransaction { .. } => self.give_up(0, out),
            _ => {}
        }
    }

    /// Diesel opens the connection next.
    fn opening(&mut self, url: &str) {
        self.fallback.opened(url);
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            self.ledger.dialect = Dialect::Postgres;
        }
        if may_be_sqlite(url) {
            probe::expect();
        }
    }

    fn begin(&mut self, query: &dyn DebugQuery, out: &mut Vec<Settled<Write>>) {
        if self.driver == Driver::Sequential {
            self.running.clear();
        } else {
            self.give_up(MAX_RUNNING, out);
        }
        let before = self.probe.as_ref().and_then(Probe::read);
        if let Some(reading) = before {
            self.ledger.is_open(!reading.autocommit, false, out);
        }
        let (text_of, begun) = match self.driver {
            Driver::Sequential => (None, None),
            Driver::Unknown | Driver::Async => self.begin_by_text(query),
        };
        self.run(query, before, text_of, begun);
    }

    fn run(&mut self, query: &dyn DebugQuery, before: Option<Reading>, text_of: Option<TextOf>, begun: Option<Begun>) {
        self.running.push(Running {
            slot: tracker::with(|_| Open::begin(&mut self.slot)),
            shape: Shape::of(query),
            text_of,
            mistakable: false,
            cached: false,
            text: shape::is_text(query),
            before,
            begun,
        });
    }

    fn begin_by_text(&mut self, query: &dyn DebugQuery) -> (Option<TextOf>, Option<Begun>) {
        let begun = tracker::with(|tracker| self.fallback.begin(tracker, query));
        (Some(TextOf::new(query)), begun.flatten())
    }

    /// Ends a statement that Diesel built and that succeeded, where either no model bound anything in it, or
    /// one model did, and what it wrote stands at once, for certain. `false` for any other.
    fn ends_plainly(&mut self, query: &dyn DebugQuery) -> bool {
        let Some((running, [])) = self.running.split_last() else {
            return false;
        };
        let built = !running.cached && !running.text && !shape::is_text(query) && self.built.knows(running.shape);
        let Some(open) = running.slot.as_ref().filter(|_| built) else {
            return false;
        };
        let mut only = None;
        if !open.is_unbound() {
            if !self.ledger.autocommits() {
                return false;
            }
            let Some(write) = open.take_only(self.ledger.dialect) else {
                return false;
            };
            let facts = self.built.facts(running.shape, query);
            let judge = Judge {
                facts,
                rows: open.rows(),
                same: false,
                changed: None,
                aborts: self.ledger.dialect == Dialect::Postgres,
            };
            if facts.returning
                || facts.conflict != Conflict::None
                || !matches!(judge.verdict(write.action()), Verdict::Stored)
            {
                open.give_back(write);
                return false;
            }
            only = Some(write);
            self.raw = 0;
        }
        self.ledger.succeeded();
        self.slot = self.running.pop().and_then(|running| running.slot?.end_empty());
        if let Some(write) = only {
            write.committed();
        }
        true
    }

    fn end(&mut self, query: &dyn DebugQuery, error: Option<&Error>, out: &mut Vec<Settled<Write>>) {
        let text = shape::is_text(query);
        match self.running.last() {
            Some(running) if text && !running.text => self.driver = Driver::Async,
            Some(_) if !text => self.driver = Driver::Sequential,
            _ => {}
        }
        let after = self.probe.as_ref().and_then(Probe::read);
        let Answered { running, doubtful } = match self.driver {
            // What else is open never ran.
            Driver::Sequential => {
                let running = self.running.pop();
                self.running.clear();
                Answered {
                    running,
                    doubtful: false,
                }
            }
            Driver::Unknown | Driver::Async => self.answered(query, out),
        };
        let running = match running {
            Some(running) => running,
            None if doubtful => Running::unknown(query),
            None => return,
        };
        if running.cached {
            self.built.learn(running.shape, query);
        }
        let mut statement = running.slot.map(|slot| slot.end(&mut self.slot)).unwrap_or_default();
        if self.driver == Driver::Async {
            // This statement's rows come later: another connection's were read on this thread.
            statement.rows = 0;
        }
        self.settle_dialect(statement.dialect, out);
        let finished = Finished {
            query,
            shape: running.shape,
            text: running.text,
            error,
            statement,
            begun: running.begun,
            changed: after.zip(running.before).map(|(after, before)| after.since(&before)),
            overlapped: doubtful,
        };
        self.finished(finished, after, out);
    }

    /// The statement that ends by this text.
    ///
    /// The database answers in the order in which it was asked. So what was begun before, and has not
    /// ended, was answered too: its future was dropped, or is not polled yet. That is given up, before what
    /// this end does to the transaction.
    fn answered(&mut self, query: &dyn DebugQuery, out: &mut Vec<Settled<Write>>) -> Answered {
        let print = print(&shape::text(query));
        let is = |running: &Running| running.text_of.as_ref().is_some_and(|text| text.print == print);
        let Some(at) = self.running.iter().position(is) else {
            // It was given up.
            self.give_up(0, out);
            return Answered {
                running: None,
                doubtful: true,
            };
        };
        self.give_up(self.running.len() - at, out);
        let running = self.running.remove(0);
        let mut doubtful = running.mistakable;
        for other in self.running.iter_mut().filter(|running| is(running)) {
            other.mistakable = true;
            doubtful = true;
        }
        Answered {
            running: Some(running),
            doubtful,
        }
    }

    /// Learns which database it is, from the first value that was serialised for it.
    fn settle_dialect(&mut self, dialect: Option<Dialect>, out: &mut Vec<Settled<Write>>) {
        if self.probe.is_some() {
            self.ledger.dialect = Dialect::Sqlite;
        }
        let Some(dialect) = dialect.filter(|dialect| *dialect != Dialect::Other) else {
            return;
        };
        if self.probe.is_some() && dialect != Dialect::Sqlite {
            // Of a connection that somebody else opened on this thread.
            self.probe = None;
            self.ledger.lose(out);
        }
        self.ledger.dialect = dialect;
    }

    /// Each statement of the connection comes by here once, when it has ended.
    fn finished(&mut self, finished: Finished<'_>, after: Option<Reading>, out: &mut Vec<Settled<Write>>) {
        let failed = finished.error.is_some();
        let text = self.boundaries(&finished);
        if !text.steps.is_empty() {
            if !failed {
                tracker::with(|tracker| self.fallback.lost(tracker, finished.query));
            }
            let first = out.len();
            let failure = finished.error.map(|error| failure(error, true));
            self.ledger.cross(text, failure, out);
            if let Some(reading) = after
                && reading.autocommit == self.ledger.in_transaction()
            {
                self.contradicted(failed, reading, first, out);
            }
            return;
        }
        if let Some(reading) = after {
            self.ledger.is_open(!reading.autocommit, failed, out);
        }
        match finished.error {
            Some(error) => self.ledger.failed(failure(error, false)),
            None => self.ledger.succeeded(),
        }
        if finished.overlapped {
            self.ledger.unproven(Doubt::StatementsOverlapped);
            self.keep_doubtful(finished.statement, finished.begun, out);
        } else if !failed {
            self.keep(finished, out);
        }
    }

    /// What a text says of transactions. Of what Diesel has built, nothing is read.
    fn boundaries(&self, finished: &Finished<'_>) -> Boundaries {
        let built = self.driver != Driver::Async
            && !finished.text
            && (!finished.statement.writes.is_empty() || self.built.knows(finished.shape));
        if built {
            return Boundaries::default();
        }
        boundary::read(&shape::text(finished.query))
    }

    /// A text that was understood says one thing of the transaction, the database another.
    fn contradicted(&mut self, failed: bool, reading: Reading, first: usize, out: &mut Vec<Settled<Write>>) {
        for (_, doubt) in out.iter_mut().skip(first) {
            doubt.get_or_insert(Doubt::TransactionNotFollowed);
        }
        self.ledger.is_open(!reading.autocommit, failed, out);
    }

    /// A statement succeeded: its writes wait for the transaction, or stand.
    fn keep(&mut self, finished: Finished<'_>, out: &mut Vec<Settled<Write>>) {
        let Finished {
            query,
            shape,
            mut statement,
            begun,
            changed,
            ..
        } = finished;
        let mut around = self.around(begun, Some((query, shape)), &mut statement);
        if statement.writes.is_empty() && !around.is_empty() {
            self.keep_around(around, statement.rows, changed, out);
            return;
        }
        if !around.is_empty() {
            statement.writes.extend(around.drain(..).map(|around| around.write));
        }
        if statement.writes.is_empty() {
            if self.driver == Driver::Async && !finished.text {
                // An error comes with the rows, and nobody sees it.
                self.ledger.unproven(Doubt::TransactionMayHaveAborted);
            }
            return;
        }
        let mut facts = self.built.facts(shape, query);
        if facts.conflict == Conflict::Updated && facts.rows == 1 && changed.is_some_and(Changed::is_new_row) {
            facts.conflict = Conflict::None;
            statement.writes.retain(|write| write.action() == Action::Insert);
        }
        let rows = statement.rows;
        let same = merge_upsert(&mut statement.writes, facts);
        let judge = Judge {
            facts,
            rows,
            same,
            changed,
            aborts: self.aborts(),
        };
        for mut write in statement.writes {
            match judge.verdict(write.action()) {
                Verdict::Stored => {}
                Verdict::Doubtful(doubt) => write.doubt = Some(doubt),
                Verdict::Nothing => continue,
                Verdict::NotThisStatement => {
                    write.missed(BlindSpot::UninstrumentedConnection);
                    continue;
                }
            }
            if facts.returning && rows == 0 && self.driver == Driver::Sequential {
                // On PostgreSQL the rows are read after the end.
                if let Some((slot, returned)) = self.slot.as_ref().zip(write.asks()) {
                    slot.ask_for(returned);
                }
            }
            self.hold(write, out);
        }
        if self.driver == Driver::Async && facts.returning {
            self.ledger.unproven(Doubt::ReturningNotConfirmed);
        }
    }

    /// A write that waits for the transaction holds raw values only while there are few of them.
    fn hold(&mut self, mut write: Write, out: &mut Vec<Settled<Write>>) {
        self.raw = match self.ledger.in_transaction() {
            true => self.raw.saturating_add(write.raw()),
            false => 0,
        };
        if self.raw > MOST_RAW {
            write.look();
        }
        self.ledger.keep(write, out);
    }

    /// Whether an error that nobody saw would have aborted the transaction.
    fn aborts(&self) -> bool {
        self.ledger.dialect == Dialect::Postgres && (self.driver == Driver::Sequential || self.ledger.in_transaction())
    }

    /// What the text of a statement says that no model has said.
    fn around(
        &mut self,
        begun: Option<Begun>,
        ended: Option<(&dyn DebugQuery, Shape)>,
        statement: &mut Statement,
    ) -> Vec<Around> {
        if !Fallback::READS {
            return Vec::new();
        }
        let seen = Seen {
            served: &statement.served,
            rows: statement.rows,
            staged: &mut statement.writes,
        };
        let around = tracker::with(|tracker| match (begun, ended) {
            (Some(begun), _) => self.fallback.end_begun(tracker, begun, seen),
            (None, Some((query, shape))) if self.driver != Driver::Async => {
                self.fallback.end(tracker, query, shape, seen)
            }
            (None, _) => Vec::new(),
        });
        around.unwrap_or_default()
    }

    /// Writes that went around every model.
    fn keep_around(
        &mut self,
        around: Vec<Around>,
        rows: usize,
        changed: Option<Changed>,
        out: &mut Vec<Settled<Write>>,
    ) {
        let mut returning = false;
        let mut around = around;
        if changed.is_some_and(Changed::is_new_row) && around.iter().all(Around::is_upsert_of_one) {
            around.retain(|around| around.write.action() == Action::Insert);
            around
                .iter_mut()
                .for_each(|around| around.facts.conflict = Conflict::None);
        }
        for Around {
            mut write,
            facts,
            uncounted,
            alone,
        } in merge_around(around)
        {
            returning |= facts.returning;
            let judge = Judge {
                facts,
                rows,
                same: false,
                changed: changed.filter(|_| alone),
                aborts: self.aborts(),
            };
            let verdict = match write.action() {
                Action::Insert if uncounted && judge.changed.is_none() => Verdict::Doubtful(Doubt::RowCountNotReported),
                Action::Insert | Action::Upsert => judge.insert(),
                _ => judge.update(),
            };
            match verdict {
                Verdict::Nothing | Verdict::NotThisStatement => continue,
                Verdict::Doubtful(doubt) => write.doubt = Some(doubt),
                Verdict::Stored => {}
            }
            self.hold(write, out);
        }
        if self.driver == Driver::Async && returning {
            self.ledger.unproven(Doubt::ReturningNotConfirmed);
        }
    }

    /// Writes of a statement whose end was not seen for certain.
    fn keep_doubtful(&mut self, mut statement: Statement, begun: Option<Begun>, out: &mut Vec<Settled<Write>>) {
        let around = self.around(begun, None, &mut statement);
        statement.writes.extend(around.into_iter().map(|around| around.write));
        for mut write in statement.writes {
            write.doubt = Some(Doubt::StatementsOverlapped);
            self.hold(write, out);
        }
    }

    /// Gives up all but the latest `keep` open statements. They may have run.
    fn give_up(&mut self, keep: usize, out: &mut Vec<Settled<Write>>) {
        let surplus = self.running.len().saturating_sub(keep);
        if surplus == 0 {
            return;
        }
        let given_up: Vec<Running> = self.running.drain(..surplus).collect();
        if self.driver == Driver::Sequential {
            return;
        }
        for running in given_up {
            let statement = running.slot.map(|slot| slot.end(&mut self.slot)).unwrap_or_default();
            self.settle_dialect(statement.dialect, out);
            self.keep_doubtful(statement, running.begun, out);
            if running.text_of.is_some_and(|text| text.crosses) {
                self.ledger.lose(out);
            }
        }
        self.ledger.unproven(Doubt::StatementsOverlapped);
    }
}

/// Whether SQLite may be what Diesel opens by this URL.
fn may_be_sqlite(url: &str) -> bool {
    let of_others = ["postgres://", "postgresql://", "mysql://"];
    let libpq = ["host=", "dbname=", "user=", "service="];
    !of_others.iter().any(|scheme| url.starts_with(scheme)) && !libpq.iter().any(|key| url.contains(key))
}

fn failure(error: &Error, boundary: bool) -> Failure {
    match error {
        Error::DatabaseError(DatabaseErrorKind::UnableToSendCommand | DatabaseErrorKind::ClosedConnection, _) => {
            Failure::Unanswered
        }
        // Also what a driver says of a connection that broke while it waited.
        Error::DatabaseError(DatabaseErrorKind::Unknown, _) if boundary => Failure::Unanswered,
        Error::DatabaseError(..) => Failure::Refused,
        _ => Failure::Unanswered,
    }
}

/// Makes one write of what an upsert inserts and what it puts in place of it. `true` if they are the
/// same, so that it is stored either way.
fn merge_upsert(writes: &mut Vec<Write>, facts: Facts) -> bool {
    if facts.conflict != Conflict::Updated {
        return false;
    }
    let mut same = facts.rows == 1 && writes.len() == 2;
    let mut merged: Vec<Write> = Vec::new();
    for write in writes.drain(..) {
        match merged.iter_mut().find(|other| other.is_of_table(&write)) {
            Some(other) => same &= other.absorb(write),
            None => merged.push(write),
        }
    }
    for write in &mut merged {
        write.becomes(Action::Upsert);
    }
    *writes = merged;
    same
}

/// The same, for writes around a model. What an upsert puts in place may name other columns, so that
/// they are never taken for the same.
fn merge_around(around: Vec<Around>) -> Vec<Around> {
    let mut merged: Vec<Around> = Vec::new();
    for mut around in around {
        if around.facts.conflict != Conflict::Updated {
            merged.push(around);
            continue;
        }
        let upsert =
            |other: &&mut Around| other.facts.conflict == Conflict::Updated && other.write.is_of_table(&around.write);
        if let Some(other) = merged.iter_mut().find(upsert) {
            other.write.absorb(around.write);
        } else {
            around.write.becomes(Action::Upsert);
            merged.push(around);
        }
    }
    merged
}

/// What became of a write by a statement that succeeded.
enum Verdict {
    Stored,
    Doubtful(Doubt),
    /// No row was written.
    Nothing,
    /// The values were bound on another connection, which does not report.
    NotThisStatement,
}

struct Judge {
    facts: Facts,
    /// Rows that came back into tracked models before the statement ended.
    rows: usize,
    /// An upsert stores the same whether the row is new or not.
    same: bool,
    changed: Option<Changed>,
    /// An error was reported, or it aborts the transaction, which the ledger knows.
    aborts: bool,
}

impl Judge {
    fn verdict(&self, action: Action) -> Verdict {
        match (action, self.facts.verb) {
            (Action::Insert | Action::Upsert, Verb::Insert) => self.insert(),
            (Action::Update, Verb::Update) => self.update(),
            _ => Verdict::NotThisStatement,
        }
    }

    fn insert(&self) -> Verdict {
        match (self.changed, self.facts.conflict) {
            (Some(Changed::Nothing), _) => Verdict::Nothing,
            (Some(Changed::Otherwise), _) => Verdict::Doubtful(Doubt::RowCountNotReported),
            (Some(Changed::Rows(..)), Conflict::Updated) if self.same => Verdict::Stored,
            (Some(Changed::Rows(rows, _)), Conflict::None | Conflict::Ignored) if rows >= self.facts.rows => {
                Verdict::Stored
            }
            (Some(Changed::Rows(..)), Conflict::None | Conflict::Ignored) => Verdict::Doubtful(Doubt::SomeRowsIgnored),
            (_, Conflict::Ignored | Conflict::Updated) => Verdict::Doubtful(Doubt::OnConflict),
            (None, Conflict::None) if self.may_have_failed() => Verdict::Doubtful(Doubt::ReturningNotConfirmed),
            (None, Conflict::None) => Verdict::Stored,
        }
    }

    /// Whether a RETURNING without rows that we saw may hide an error.
    fn may_have_failed(&self) -> bool {
        self.facts.returning && self.rows == 0 && !self.aborts
    }

    fn update(&self) -> Verdict {
        match self.changed {
            Some(Changed::Nothing) => Verdict::Nothing,
            Some(Changed::Rows(..)) => Verdict::Stored,
            Some(Changed::Otherwise) => Verdict::Doubtful(Doubt::RowCountNotReported),
            None if !self.facts.returning => Verdict::Doubtful(Doubt::RowCountNotReported),
            None if self.rows > 0 => Verdict::Stored,
            None if self.may_have_failed() => Verdict::Doubtful(Doubt::ReturningNotConfirmed),
            None => Verdict::Doubtful(Doubt::RowCountNotReported),
        }
    }
}

impl<I: Instrumentation> Instrumentation for Watch<I> {
    fn on_connection_event(&mut self, event: InstrumentationEvent<'_>) {
        // A host's instrumentation may open connections of its own here: the one to watch is opened after it.
        if let InstrumentationEvent::StartEstablishConnection { url, .. } = event {
            self.inner.on_connection_event(event);
            return self.opening(url);
        }
        if !self.observe_plain(&event) {
            let mut settled = Vec::new();
            self.observe(&event, &mut settled);
            settle(settled);
        }
        self.inner.on_connection_event(event);
    }
}

/// Also when the host puts another instrumentation in our place while a transaction is open.
impl<I> Drop for Watch<I> {
    fn drop(&mut self) {
        let mut settled = Vec::new();
        self.fallback.settle_reads();
        self.give_up(0, &mut settled);
        let open = self.probe.as_ref().is_some_and(Probe::is_alive);
        self.ledger.abandon(open, &mut settled);
        settle(settled);
    }
}

/// Hands over what stands.
fn settle(settled: Vec<Settled<Write>>) {
    for (mut write, doubt) in settled {
        write.doubt = write.doubt.or(doubt);
        write.committed();
    }
}
