//! What `#[tracked_model]` generates calls of.

use std::fmt;
use std::sync::Arc;

use diesel::backend::Backend;
use diesel::expression::{AsExpression, TypedExpressionType};
use diesel::internal::derives::as_expression::Bound;
use diesel::serialize::{self, Output, ToSql};
use diesel::sql_types::SqlType;

use super::ledger::Dialect;
use super::slot;
use crate::hooks::storage::{self, Seen, Write};
use crate::hooks::tape::{self, Tape};
use crate::site::{Column, ModelSite};
use crate::tracked::Visitor;
use crate::tracker::{self, BlindSpot, Observed, Tracker};
use crate::vocabulary::Action;

/// One value of a model on its way into a statement.
#[derive(Clone)]
pub struct Record {
    site: &'static ModelSite,
    action: Action,
    /// What says whose it is.
    owners: Option<Arc<Tape>>,
}

impl Record {
    /// A model that is inserted; `owners` visits the fields that say whose it is.
    pub fn insert(site: &'static ModelSite, owners: impl FnOnce(&mut Visitor<'_>)) -> Self {
        Record::new(site, Action::Insert, owners)
    }

    /// A model that is used as a changeset.
    pub fn update(site: &'static ModelSite, owners: impl FnOnce(&mut Visitor<'_>)) -> Self {
        Record::new(site, Action::Update, owners)
    }

    fn new(site: &'static ModelSite, action: Action, owners: impl FnOnce(&mut Visitor<'_>)) -> Self {
        let owners = tracker::with(|_| {
            let mut tape = Tape::take();
            owners(&mut Visitor::new(&mut tape));
            (!tape.is_empty()).then(|| Arc::new(tape))
        });
        Record {
            site,
            action,
            owners: owners.flatten(),
        }
    }

    /// A tracked column's value. `visit` is a plain function, so that the type can be named.
    pub fn bind<V>(&self, column: &'static Column, value: V, visit: fn(&V, &mut Visitor<'_>)) -> Bind<V> {
        Bind {
            record: self.clone(),
            column,
            value,
            shown: Shown::ByValue(visit),
        }
    }

    /// Looks at a value that is converted for the database.
    pub fn see(&self, visit: impl FnOnce(&mut Visitor<'_>)) -> Before {
        Before(tracker::with(|tracker| self.look(tracker, visit)).unwrap_or_default())
    }

    fn look(&self, tracker: &Tracker, visit: impl FnOnce(&mut Visitor<'_>)) -> Vec<Observed> {
        let mut seen = Seen::new(tracker);
        visit(&mut Visitor::new(&mut seen));
        seen.report(self.site);
        seen.values.into_iter().map(|(_, observed)| observed).collect()
    }

    /// As [`Record::bind`], for a converted value: `before` is what was seen of the original.
    pub fn bind_seen<V>(&self, column: &'static Column, value: V, before: Before) -> Bind<V> {
        Bind {
            record: self.clone(),
            column,
            value,
            shown: Shown::Before(before),
        }
    }
}

/// What was seen of a value before its conversion. Made by [`Record::see`].
#[derive(Clone)]
pub struct Before(Vec<Observed>);

#[derive(Clone)]
enum Shown<V> {
    ByValue(fn(&V, &mut Visitor<'_>)),
    Before(Before),
}

/// A value that stages itself when it is bound. It stands in a query for `V` itself: same SQL
/// text, same query id, same bytes.
#[derive(Clone)]
pub struct Bind<V> {
    record: Record,
    column: &'static Column,
    value: V,
    shown: Shown<V>,
}

impl<V> Bind<V> {
    fn stage(&self, dialect: Dialect) {
        tracker::with(|tracker| {
            let staged = match &self.shown {
                Shown::ByValue(visit) => tape::on_scratch(|tape| {
                    visit(&self.value, &mut Visitor::new(tape));
                    self.stage_in(tracker, dialect, tape.is_empty(), |write, owners| {
                        write.stage(self.column, tape, owners);
                    })
                })
                .unwrap_or(false),
                Shown::Before(Before(seen)) => self.stage_in(tracker, dialect, seen.is_empty(), |write, owners| {
                    write.stage_seen(self.column, seen, owners);
                }),
            };
            if !staged {
                tracker.blind_spot(BlindSpot::UninstrumentedConnection, self.record.site.site.path);
            }
        });
    }

    /// `false` if no statement is in hand.
    fn stage_in(
        &self,
        tracker: &Tracker,
        dialect: Dialect,
        is_empty: bool,
        stage: impl FnOnce(&mut Write, Option<&Arc<Tape>>),
    ) -> bool {
        let Record { site, action, owners } = &self.record;
        let staged = slot::in_hand(|slot| {
            let mut statement = slot.statement();
            statement.served.count(*action, site, self.column);
            if is_empty {
                return;
            }
            statement.dialect = Some(dialect);
            let known = statement.writes.iter().position(|write| write.is_of(site, *action));
            let at = known.unwrap_or_else(|| {
                statement.writes.reserve_exact(1);
                statement.writes.push(Write::new(tracker, site, *action));
                statement.writes.len() - 1
            });
            if let Some(write) = statement.writes.get_mut(at) {
                stage(write, owners.as_ref());
            }
            if owners.is_none() {
                slot.ask();
            }
        });
        staged.is_some()
    }
}

/// Shows what `V` shows: this is what `debug_query` prints.
impl<V: fmt::Debug> fmt::Debug for Bind<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl<V, ST> AsExpression<ST> for Bind<V>
where
    ST: SqlType + TypedExpressionType,
{
    type Expression = Bound<ST, Self>;

    fn as_expression(self) -> Self::Expression {
        Bound::new(self)
    }
}

impl<V, ST, DB> ToSql<ST, DB> for Bind<V>
where
    DB: Backend,
    V: ToSql<ST, DB>,
{
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, DB>) -> serialize::Result {
        self.stage(Dialect::of::<DB>());
        self.value.to_sql(out)
    }
}

/// A row was read into a model; `visit` visits it whole.
pub fn loaded(site: &'static ModelSite, visit: impl Fn(&mut Visitor<'_>)) {
    tracker::with(|tracker| {
        if let Some(returned) = slot::row(site) {
            returned.add(site, &visit);
        }
        storage::loaded(tracker, site, slot::at, visit);
    });
}
