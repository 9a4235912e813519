//! DATA_ACCESS: which models were read, how many rows, counted together until their request ends.

use std::any::Any;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value as Json;

use crate::scope::{Ending, Scope};
use crate::site::{Column, ModelSite};
use crate::tracker::{Tracker, declare};
use crate::vocabulary::{Event, EventType};

/// Whether rows were ever read without a scope: else nobody need look.
static UNSCOPED_READS: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// Rows read without a scope, by the statement in hand.
    static UNSCOPED: RefCell<Option<Accesses>> = const { RefCell::new(None) };
}

/// What was read, a line a model: there are as many as the program has.
struct Accesses {
    tracker: Tracker,
    models: Vec<Access>,
}

struct Access {
    site: &'static ModelSite,
    rows: u64,
    /// Which columns had a value.
    columns: Vec<bool>,
}

/// Counts a row of a model; `columns` are those that had a value.
pub(super) fn row(tracker: &Tracker, site: &'static ModelSite, columns: impl Iterator<Item = &'static Column>) {
    match Scope::current() {
        Some(scope) => {
            let mut state = scope.state();
            let ending = state.ending.get_or_insert_with(|| Ending {
                what: Box::new(Accesses::new(tracker)),
                run: |what, scope| {
                    if let Ok(accesses) = what.downcast::<Accesses>() {
                        accesses.record(Some(scope));
                    }
                },
            });
            if let Some(accesses) = (&mut *ending.what as &mut dyn Any).downcast_mut::<Accesses>() {
                accesses.add(site, columns);
            }
        }
        None => {
            UNSCOPED_READS.store(true, Ordering::Relaxed);
            with_unscoped(|unscoped| {
                unscoped
                    .get_or_insert_with(|| Accesses::new(tracker))
                    .add(site, columns);
            });
        }
    }
}

/// A statement ended, or another begins: what was read without a scope is recorded.
pub(crate) fn statement_ended() {
    // What this thread has read it has said here.
    if !UNSCOPED_READS.load(Ordering::Relaxed) {
        return;
    }
    let mut read = None;
    with_unscoped(|unscoped| read = unscoped.take());
    if let Some(accesses) = read {
        accesses.record(None);
    }
}

fn with_unscoped(then: impl FnOnce(&mut Option<Accesses>)) {
    let _ = UNSCOPED.try_with(|unscoped| {
        if let Ok(mut unscoped) = unscoped.try_borrow_mut() {
            then(&mut unscoped);
        }
    });
}

impl Accesses {
    fn new(tracker: &Tracker) -> Self {
        Accesses {
            tracker: tracker.clone(),
            models: Vec::new(),
        }
    }

    fn add(&mut self, site: &'static ModelSite, columns: impl Iterator<Item = &'static Column>) {
        let known = self.models.iter().position(|access| std::ptr::eq(access.site, site));
        let at = known.unwrap_or_else(|| {
            self.models.push(Access {
                site,
                rows: 0,
                columns: vec![false; site.columns.len()],
            });
            self.models.len() - 1
        });
        let Some(access) = self.models.get_mut(at) else { return };
        access.rows = access.rows.saturating_add(1);
        for column in columns {
            let place = site.columns.iter().position(|known| std::ptr::eq(known, column));
            if let Some(read) = place.and_then(|place| access.columns.get_mut(place)) {
                *read = true;
            }
        }
    }

    fn record(self, scope: Option<&Scope>) {
        let actor = scope.map_or_else(|| Arc::from("db"), |scope| scope.source().clone());
        self.tracker.attempt(|tracker| {
            for access in self.models {
                let site = access.site;
                let mut event = Event::new(EventType::DataAccess, actor.clone());
                declare(&mut event, &site.site);
                event.target = Some(format!("db:{}", site.table).into());
                event.extras.insert("table".into(), site.table.into());
                event.extras.insert("model".into(), site.model.into());
                event.extras.insert("count".into(), access.rows.into());
                let read = site.columns.iter().zip(&access.columns).filter(|(_, read)| **read);
                let mut categories: Vec<&str> = read.map(|(column, _)| column.field.category).collect();
                categories.sort_unstable();
                categories.dedup();
                let categories: Vec<Json> = categories.into_iter().map(Json::from).collect();
                event.extras.insert("categories".into(), categories.into());
                tracker.record(event);
            }
        });
    }
}
