//! Writes around a model, read from the SQL text: feature `sql-fallback`.
//!
//! `set(users::email.eq(..))`, `insert_into(users).values((users::email.eq(..), ..))`, a struct without the
//! attribute on the same table, `sql_query(..).bind(..)`, literals in `batch_execute`, and diesel-async's
//! `SyncConnectionWrapper`, which collects binds where no hook of a model knows the statement.
//!
//! # Which columns
//! Those that any `#[tracked_model]` of the program declares, under its table's name, and those of
//! `tracked_models` in the config, which so serves tables without a model. Names are compared in any case and
//! without a schema; a column that `table!` renames (`#[sql_name]`) is known if the names differ by a closing `_`
//! alone. Attributes are read from the program's inventory, so before any model is used; where the platform gives
//! no way to read it ([`inventory`](crate::inventory()) is empty), only the config counts.
//!
//! # What is seen
//! | in the text | recorded as |
//! |---|---|
//! | `INSERT`, `REPLACE` with a list of columns: `VALUES`, `SELECT` of values, MySQL's `SET`; inside `WITH` too | `insert` |
//! | `UPDATE .. SET` | `update` |
//! | `ON CONFLICT DO UPDATE`, `ON DUPLICATE KEY UPDATE` with values of their own | `insert-or-update` |
//! | `DELETE`, `TRUNCATE` | `delete`; its tags are the values that the `WHERE` says the rows have |
//! | `SELECT`, a tracked column or `*` in its first list, and no model took a row | counted by table: `reads_without_model` on `/status` |
//!
//! Reads are counted where no model took a row before the statement ended. PostgreSQL's rows come after that: there a
//! read counts when the connection's next statement begins, if no model has taken a row on this thread since.
//!
//! A value is a literal, or a placeholder (`?`, `?1`, `$1`), in brackets or casts at most. What a model has
//! recorded of the statement is not recorded again. Whose a row is says a column of the statement that a model
//! declares as its owner, compared by `=` in the `WHERE`, else set; else the request.
//!
//! Binds are taken from how Rust's `Debug` shows them, at its word: a type whose `Debug` shows another text than
//! it stores is recorded under that. Text, numbers, truth values, dates and times (chrono, time, jiff),
//! UUIDs, IP addresses, lists of texts, and `Option`s of these are read.
//!
//! # What is not seen
//! Counted as the blind spot `bypassed_model`, with the table: computed values (`lower(?)`, `income + ?`,
//! columns of other tables), an `INSERT` without a list of columns, binds of other types, `MERGE`, joins in
//! writes, `COPY` of other rows than a model's, statements above the caps (1 MiB of text, 4 MiB of binds, 1000
//! operators), text that is no SQL to the parser, and texts that mix writes with `BEGIN` or `COMMIT`.
//!
//! Neither seen nor counted: what the database writes by itself (triggers, rules, cascades, functions, `DO`
//! blocks, `EXPLAIN ANALYZE`), a write through a view or a table of another name, `DROP TABLE`, and reads in
//! sub-selects. A `QueryFragment` of the host's own that lets Diesel cache its statement, and gives one type
//! different texts, may be taken for the first of them.
//!
//! On `SyncConnectionWrapper` events are recorded where its task runs: of the request's scope only what the
//! runtime carries there is known. What a model binds for it is counted as `uninstrumented_connection` too, since
//! no statement is in hand when binds are collected.
//!
//! # What it costs
//! Diesel shows a query by writing it out, which costs about as much as a small query. It is done once a
//! connection for each type of query that Diesel itself knows by its type and caches, every time for others
//! (`sql_query`, queries without binds), and for writes that a model does not cover. Plans are kept by a keyed hash
//! of the text, without literals, in bounded number.

mod binds;
mod plan;
#[cfg(test)]
mod tests;
mod text;

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::thread::ThreadId;

use diesel::connection::DebugQuery;

use self::binds::{Binds, Bound};
use self::plan::{Dialect, Literal, Plan, Term};
use self::text::Shown;
use super::shape::{Conflict, Facts, Shape, Verb};
use super::slot;
use crate::columns::ColumnMap;
use crate::hooks::storage::Write;
use crate::site::{Column, ModelSite};
use crate::tracked::Value;
use crate::tracker::{self, BlindSpot, Observed, Tracker};
use crate::vocabulary::{Action, Owner};

/// Most terms of plans that a connection keeps; above, all are forgotten.
const MAX_WEIGHT: usize = 1 << 16;
/// Most types of queries that a connection tells apart.
const MAX_SHAPES: usize = 4096;

/// What one connection knows of the texts that it has run.
#[derive(Default)]
pub(super) struct Fallback {
    dialect: Option<Dialect>,
    /// The map that plans were made by.
    map: Option<Arc<ColumnMap>>,
    /// Keyed, and by connection: a text may hold literals.
    hasher: RandomState,
    plans: HashMap<u64, Arc<Plan>>,
    weight: usize,
    /// By type of query.
    shapes: HashMap<Shape, Type>,
    /// The text that Diesel has cached for the statement that runs.
    cached: Option<u64>,
    /// A statement that reads, and the rows that models had taken when it ended: its own come after that.
    reads: Option<(Arc<Plan>, (ThreadId, u64))>,
}

/// What a type of query stands for.
enum Type {
    /// One text: Diesel caches the prepared statement under the type alone.
    Built { text: u64, plan: Arc<Plan> },
    /// Many.
    Text,
}

/// How many values of a column models have bound in a statement.
#[derive(Default)]
pub(super) struct Served(Vec<(Action, &'static str, &'static str, usize)>);

impl Served {
    pub(super) fn count(&mut self, action: Action, site: &'static ModelSite, column: &'static Column) {
        let known = self
            .0
            .iter_mut()
            .find(|(a, table, name, _)| *a == action && *table == site.table && *name == column.name);
        match known {
            Some((.., count)) => *count += 1,
            None => self.0.push((action, site.table, column.name, 1)),
        }
    }

    fn of(&self, write: &plan::Write, column: &Column) -> usize {
        let is = |of: &&(Action, &str, &str, usize)| {
            of.0 == write.action
                && of.1.eq_ignore_ascii_case(write.table.table)
                && of.2.eq_ignore_ascii_case(column.name)
        };
        self.0.iter().filter(is).map(|(.., count)| count).sum()
    }
}

/// A statement as it was when it began, for connections that end it by its text alone.
pub(super) struct Begun {
    plan: Arc<Plan>,
    values: Option<Values>,
}

/// A write around a model.
pub(super) struct Around {
    pub(super) write: Write,
    pub(super) facts: Facts,
    /// How many rows it met depends on what was in the database.
    pub(super) uncounted: bool,
    /// The text writes nothing else, so what the database says of it is said of this.
    pub(super) alone: bool,
}

impl Fallback {
    /// Whether texts are read at all.
    pub(super) const READS: bool = true;

    /// The connection is opened by this URL.
    pub(super) fn opened(&mut self, url: &str) {
        self.dialect = Some(Dialect::of_url(url));
    }

    /// Diesel has cached the statement that runs, under this text.
    pub(super) fn cached(&mut self, sql: &str) {
        if self.map.as_ref().is_some_and(|map| !map.is_empty()) {
            self.cached = Some(self.hasher.hash_one(sql));
        }
    }

    /// Reads a statement when it begins.
    pub(super) fn begin(&mut self, tracker: &Tracker, query: &dyn DebugQuery) -> Option<Begun> {
        if !self.follow(tracker) {
            return None;
        }
        let shown = Shown::whole(query);
        let (_, plan) = self.plan(&shown);
        if plan.is_nothing() {
            return None;
        }
        let values = (!plan.writes.is_empty()).then(|| Values::read(tracker, &plan, &shown, self.dialect));
        Some(Begun { plan, values })
    }

    /// Reads a statement that was read when it began.
    pub(super) fn end_begun(&mut self, tracker: &Tracker, begun: Begun, seen: Seen<'_>) -> Vec<Around> {
        let Begun { plan, values } = begun;
        self.count(tracker, &plan, &seen);
        match values {
            Some(values) if !covered(&plan, &seen) => values.writes(tracker, &plan, seen),
            _ => Vec::new(),
        }
    }

    /// Reads a statement that has succeeded: what it wrote that no model has recorded.
    pub(super) fn end(
        &mut self,
        tracker: &Tracker,
        query: &dyn DebugQuery,
        shape: Shape,
        seen: Seen<'_>,
    ) -> Vec<Around> {
        if !self.follow(tracker) {
            return Vec::new();
        }
        let cached = self.cached.take();
        if let Some(Type::Built { text, plan }) = self.shapes.get(&shape)
            && cached.is_none_or(|cached| cached == *text)
        {
            if plan.is_nothing() {
                return Vec::new();
            }
            let plan = plan.clone();
            self.count(tracker, &plan, &seen);
            if covered(&plan, &seen) {
                return Vec::new();
            }
            let shown = Shown::whole(query);
            return Values::read(tracker, &plan, &shown, self.dialect).writes(tracker, &plan, seen);
        }
        let mut shown = Shown::sql(query);
        let (text, plan) = self.plan(&shown);
        self.learn(shape, text, &plan, cached, query);
        self.count(tracker, &plan, &seen);
        if covered(&plan, &seen) {
            return Vec::new();
        }
        if plan.binds > 0 {
            shown = Shown::whole(query);
        }
        Values::read(tracker, &plan, &shown, self.dialect).writes(tracker, &plan, seen)
    }

    /// Counts what is read, and what is written in a way that cannot be told.
    fn count(&mut self, tracker: &Tracker, plan: &Arc<Plan>, seen: &Seen<'_>) {
        if self.dialect == Some(Dialect::Postgres) && !plan.reads.is_empty() {
            self.reads = Some((plan.clone(), slot::rows()));
        } else if seen.rows == 0 {
            plan.reads.iter().for_each(|table| tracker.read_without_model(table));
        }
        for table in &plan.unread {
            tracker.blind_spot(BlindSpot::BypassedModel, table);
        }
    }

    /// The rows of the last statement have been read. On another thread than it ended on, a model may have
    /// taken them.
    pub(super) fn settle_reads(&mut self) {
        if let Some((plan, rows)) = self.reads.take()
            && rows == slot::rows()
        {
            tracker::with(|tracker| plan.reads.iter().for_each(|table| tracker.read_without_model(table)));
        }
    }

    /// A statement of which nobody can tell what became of its writes.
    pub(super) fn lost(&mut self, tracker: &Tracker, query: &dyn DebugQuery) {
        if self.follow(tracker) {
            let (_, plan) = self.plan(&Shown::sql(query));
            let written = plan.writes.iter().map(|write| write.table.table);
            for table in written.chain(plan.unread.iter().copied()) {
                tracker.blind_spot(BlindSpot::BypassedModel, table);
            }
        }
    }

    /// Whether there is anything to look for. Plans are of one map.
    fn follow(&mut self, tracker: &Tracker) -> bool {
        let map = tracker.columns();
        if self.map.as_ref().is_none_or(|known| !Arc::ptr_eq(known, map)) {
            self.map = Some(map.clone());
            self.plans.clear();
            self.shapes.clear();
            self.weight = 0;
        }
        !map.is_empty()
    }

    fn plan(&mut self, shown: &Shown) -> (u64, Arc<Plan>) {
        let text = self.hasher.hash_one(shown.sql.as_str());
        if let Some(plan) = self.plans.get(&text).filter(|_| !shown.cut) {
            return (text, plan.clone());
        }
        let plan = match &self.map {
            Some(map) => Plan::of(&shown.sql, shown.cut, self.dialect, map),
            None => Plan::default(),
        };
        let plan = Arc::new(plan);
        self.weight += plan.weight();
        if self.weight > MAX_WEIGHT {
            self.weight = plan.weight();
            self.plans.clear();
        }
        if !shown.cut {
            self.plans.insert(text, plan.clone());
        }
        (text, plan)
    }

    /// Whether the type of a query stands for its text. That Diesel has just cached this text says
    /// that it is none of the host's (`sql_query` is never cached); it may still be one of
    /// diesel-async's, which hands texts over. Those show their binds as they collected them, so
    /// that a text without binds proves nothing.
    fn learn(&mut self, shape: Shape, text: u64, plan: &Arc<Plan>, cached: Option<u64>, query: &dyn DebugQuery) {
        if self.shapes.len() >= MAX_SHAPES && !self.shapes.contains_key(&shape) {
            return;
        }
        match self.shapes.get(&shape) {
            Some(Type::Built { .. }) => {
                self.shapes.insert(shape, Type::Text);
            }
            Some(Type::Text) => {}
            None if cached == Some(text) && plan.shows_binds => {
                let shown = Shown::whole(query);
                let built =
                    Binds::parse(&shown.binds).is_some_and(|binds| !binds.collected && !binds.values.is_empty());
                let plan = plan.clone();
                self.shapes
                    .insert(shape, if built { Type::Built { text, plan } } else { Type::Text });
            }
            None => {}
        }
    }
}

/// What the hooks of models know of a statement.
pub(super) struct Seen<'s> {
    pub(super) served: &'s Served,
    /// Rows that came back into tracked models.
    pub(super) rows: usize,
    /// What models have staged; values that belong to it are added.
    pub(super) staged: &'s mut [Write],
}

/// Whether models have recorded all that the text writes, and whose it is.
fn covered(plan: &Plan, seen: &Seen<'_>) -> bool {
    plan.writes.iter().all(|write| {
        write.action != Action::Delete
            && columns(write).all(|(column, terms)| seen.served.of(write, column) >= terms)
            && !names_owners(write, seen.staged)
    })
}

/// Whether the text says whose a model's values are, where the model does not: `WHERE id = ?`.
fn names_owners(write: &plan::Write, staged: &[Write]) -> bool {
    let is = |staged: &Write| staged.is_of(write.table, write.action) && staged.lacks_owners();
    write.names_owner && staged.iter().any(is)
}

/// The columns that a write gives values to, with the number of values.
fn columns(write: &plan::Write) -> impl Iterator<Item = (&'static Column, usize)> {
    write.table.columns.iter().filter_map(|column| {
        let terms = write.rows.iter().flat_map(|row| &row.values);
        let count = terms
            .filter(|(of, term)| std::ptr::eq(*of, column) && *term != Term::Nothing)
            .count();
        (count > 0).then_some((column, count))
    })
}

/// What a text's terms are, as pseudonyms.
struct Values {
    found: Vec<Found>,
    /// Columns whose values cannot be told, with the write's place in the plan.
    missed: Vec<(usize, &'static Column)>,
    /// Whose the row of each write is, where it is one.
    owners: Vec<Option<Arc<[Owner]>>>,
}

struct Found {
    /// Place of the write in the plan.
    write: usize,
    column: &'static Column,
    observed: Observed,
    owners: Option<Arc<[Owner]>>,
}

impl Values {
    fn read(tracker: &Tracker, plan: &Plan, shown: &Shown, dialect: Option<Dialect>) -> Self {
        let binds = match plan.binds {
            0 => Vec::new(),
            expected => match Binds::parse(&shown.binds) {
                Some(binds) if binds.values.len() == expected && !shown.cut => binds.values,
                _ => Vec::new(),
            },
        };
        let literals = match plan.literals {
            true => Plan::literals(&shown.sql, dialect),
            false => Vec::new(),
        };
        let terms = Terms { binds, literals };
        let mut values = Values {
            found: Vec::new(),
            missed: Vec::new(),
            owners: Vec::new(),
        };
        for (index, write) in plan.writes.iter().enumerate() {
            let mut last = None;
            for row in &write.rows {
                let mut owners = Vec::new();
                for (kind, term) in &row.owners {
                    let kind = write.kinds.get(*kind).map_or("", String::as_str);
                    terms.each(*term, |value| owners.extend(tracker.owner(kind, value)));
                }
                let owners: Option<Arc<[Owner]>> = (!owners.is_empty()).then(|| owners.into());
                for (column, term) in &row.values {
                    let spec = tracker.spec(column.field);
                    let known = terms.each(*term, |value| {
                        values.found.extend(tracker.observe(&spec, value).map(|observed| Found {
                            write: index,
                            column,
                            observed,
                            owners: owners.clone(),
                        }));
                    });
                    if !known {
                        values.missed.push((index, column));
                    }
                }
                last = owners;
            }
            values.owners.push(last.filter(|_| write.rows.len() == 1));
        }
        values
    }

    /// Writes of what no model has recorded.
    fn writes(self, tracker: &Tracker, plan: &Plan, seen: Seen<'_>) -> Vec<Around> {
        let Values { found, missed, owners } = self;
        for (write, owners) in plan.writes.iter().zip(&owners) {
            let is = |staged: &&mut Write| staged.is_of(write.table, write.action);
            if let Some(owners) = owners.as_ref().filter(|_| names_owners(write, seen.staged)) {
                seen.staged
                    .iter_mut()
                    .filter(is)
                    .for_each(|staged| staged.belongs_to(owners));
            }
        }
        let mut around: Vec<Option<Around>> = plan
            .writes
            .iter()
            .zip(owners)
            .map(|(write, owners)| {
                // A DELETE is one, whatever is known of its rows.
                (write.action == Action::Delete).then(|| {
                    let mut around = Around::new(tracker, plan, write);
                    around.write.owners = owners;
                    around
                })
            })
            .collect();
        let open = |write: usize, column: &Column| {
            plan.writes.get(write).is_some_and(|write| {
                let terms = columns(write).find(|(of, _)| std::ptr::eq(*of, column));
                seen.served.of(write, column) < terms.map_or(1, |(_, terms)| terms)
            })
        };
        // One decision a column, not one a row.
        let mut decided: HashMap<(usize, usize), bool> = HashMap::new();
        let mut is_open = |write: usize, column: &'static Column| {
            let key = (write, std::ptr::from_ref(column) as usize);
            *decided.entry(key).or_insert_with(|| open(write, column))
        };
        for Found {
            write: index,
            column,
            observed,
            owners,
        } in found
        {
            let Some(write) = plan.writes.get(index).filter(|_| is_open(index, column)) else {
                continue;
            };
            let staged = seen
                .staged
                .iter_mut()
                .find(|staged| staged.is_of(write.table, write.action));
            if let Some(staged) = staged {
                if !staged.holds(column, &observed) {
                    staged.push(column, observed, owners);
                }
            } else if let Some(around) = around.get_mut(index) {
                let around = around.get_or_insert_with(|| Around::new(tracker, plan, write));
                around.write.push(column, observed, owners);
            }
        }
        for (index, column) in missed {
            if let Some(write) = plan.writes.get(index)
                && is_open(index, column)
            {
                tracker.blind_spot(BlindSpot::BypassedModel, write.table.table);
            }
        }
        around.into_iter().flatten().collect()
    }
}

impl Around {
    /// The statement writes one row, new or in place of one.
    pub(super) fn is_upsert_of_one(&self) -> bool {
        self.alone && self.facts.conflict == Conflict::Updated && self.facts.rows == 1
    }

    fn new(tracker: &Tracker, plan: &Plan, write: &plan::Write) -> Self {
        let sibling = |of: &&plan::Write| of.table.table == write.table.table && of.action != write.action;
        let upsert = write.on_conflict && plan.writes.iter().any(|of| sibling(&of));
        Around {
            write: Write::new(tracker, write.table, write.action),
            facts: Facts {
                verb: match write.action {
                    Action::Update if !upsert => Verb::Update,
                    Action::Delete => Verb::Other,
                    _ => Verb::Insert,
                },
                conflict: match write.on_conflict {
                    true if upsert || write.upsert => Conflict::Updated,
                    true => Conflict::Ignored,
                    false => Conflict::None,
                },
                returning: write.returning,
                rows: write.rows.len(),
            },
            uncounted: write.uncounted,
            alone: upsert || (plan.writes.len() == 1 && plan.unread.is_empty()),
        }
    }
}

/// Reads any text and any binds.
#[cfg(fuzzing)]
pub(crate) fn fuzz(input: &[u8]) {
    use crate::config::{Config, InputField, TrackedModel};

    static MAP: std::sync::LazyLock<ColumnMap> = std::sync::LazyLock::new(|| {
        let field = InputField {
            category: "contact.email".to_owned(),
            description: String::new(),
            pii: true,
            kind: None,
            secret: None,
            owner: Some("id".to_owned()),
        };
        let fields = [("email".to_owned(), field.clone()), ("phone".to_owned(), field)].into();
        let config = Config {
            tracked_models: [("users".to_owned(), TrackedModel { fields })].into(),
            ..Config::default()
        };
        ColumnMap::new(&config, &[])
    });
    let Some((dialect, rest)) = input.split_first() else {
        return;
    };
    let dialect = [
        None,
        Some(Dialect::Sqlite),
        Some(Dialect::Postgres),
        Some(Dialect::MySql),
    ]
    .get(usize::from(dialect % 4))
    .copied()
    .flatten();
    let text = String::from_utf8_lossy(rest);
    let (sql, shown) = text.split_once('\0').unwrap_or((&text, "[]"));
    let plan = Plan::of(sql, false, dialect, &MAP);
    let terms = Terms {
        binds: Binds::parse(shown).map(|binds| binds.values).unwrap_or_default(),
        literals: Plan::literals(sql, dialect),
    };
    for row in plan.writes.iter().flat_map(|write| &write.rows) {
        for (_, term) in &row.values {
            // A literal of a plan is a literal of its text.
            if let Term::Literal { index, .. } = term {
                assert!(terms.literals.get(*index).is_some());
            }
            terms.each(*term, |_| {});
        }
    }
}

/// The raw values of one execution.
struct Terms {
    binds: Vec<Bound>,
    literals: Vec<Literal>,
}

impl Terms {
    /// Hands over the value; none for NULL. `false` if it cannot be told.
    fn each(&self, term: Term, mut take: impl FnMut(Value<'_>)) -> bool {
        match term {
            Term::Nothing => {}
            Term::Opaque => return false,
            Term::Bind(index) => match self.binds.get(index) {
                Some(Bound::Null) => {}
                Some(Bound::Bool(truth)) => take(Value::Bool(*truth)),
                Some(Bound::Integer(number)) => take(Value::Integer(*number)),
                Some(Bound::Float(number)) => take(Value::Float(*number)),
                Some(Bound::Text(text)) => take(Value::Text(text)),
                Some(Bound::Texts(texts)) => texts.iter().for_each(|text| take(Value::Text(text))),
                Some(Bound::Opaque) | None => return false,
            },
            Term::Literal { index, negative } => match self.literals.get(index) {
                Some(Literal::Text(text)) if !negative => take(Value::Text(text)),
                Some(Literal::Number(number)) => {
                    let number = zeroize::Zeroizing::new(number.replace('_', ""));
                    match (number.parse::<i128>(), number.parse::<f64>()) {
                        (Ok(whole), _) => take(Value::Integer(if negative { -whole } else { whole })),
                        (_, Ok(real)) => take(Value::Float(if negative { -real } else { real })),
                        _ => return false,
                    }
                }
                // Bytes stand for nothing that is compared.
                Some(Literal::Bytes) if !negative => {}
                _ => return false,
            },
        }
        true
    }
}
