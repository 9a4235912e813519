//! Without the feature `sql-fallback`, SQL text says nothing.

use diesel::connection::DebugQuery;

use super::shape::{Facts, Shape};
use crate::hooks::storage::Write;
use crate::site::{Column, ModelSite};
use crate::tracker::Tracker;
use crate::vocabulary::Action;

#[derive(Default)]
pub(super) struct Fallback {}

#[derive(Default)]
pub(super) struct Served;

impl Served {
    pub(super) fn count(&mut self, _: Action, _: &'static ModelSite, _: &'static Column) {}
}

pub(super) enum Begun {}

pub(super) struct Around {
    pub(super) write: Write,
    pub(super) facts: Facts,
    pub(super) uncounted: bool,
    pub(super) alone: bool,
}

impl Around {
    pub(super) fn is_upsert_of_one(&self) -> bool {
        false
    }
}

pub(super) struct Seen<'s> {
    pub(super) served: &'s Served,
    pub(super) rows: usize,
    pub(super) staged: &'s mut [Write],
}

impl Fallback {
    pub(super) const READS: bool = false;

    pub(super) fn opened(&mut self, _: &str) {}

    pub(super) fn cached(&mut self, _: &str) {}

    pub(super) fn begin(&mut self, _: &Tracker, _: &dyn DebugQuery) -> Option<Begun> {
        None
    }

    pub(super) fn end_begun(&mut self, _: &Tracker, begun: Begun, _: Seen<'_>) -> Vec<Around> {
        match begun {}
    }

    pub(super) fn end(&mut self, _: &Tracker, _: &dyn DebugQuery, _: Shape, seen: Seen<'_>) -> Vec<Around> {
        let Seen { served, rows, staged } = seen;
        let _ = (served, rows, staged);
        Vec::new()
    }

    pub(super) fn settle_reads(&mut self) {}

    pub(super) fn lost(&mut self, _: &Tracker, _: &dyn DebugQuery) {}
}
