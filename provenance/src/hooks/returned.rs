//! Rows that a statement gives back (`RETURNING`): they may say whose its values are.

use std::sync::{Mutex, PoisonError};

use super::tape::{Place, Tape};
use crate::site::ModelSite;
use crate::tracked::{Sink, Visitor};

/// Most rows that are kept, and most bytes of raw values.
const MOST_ROWS: usize = 512;
const MOST_BYTES: usize = 1 << 16;

/// For the rows that a write of one table gives back.
pub(crate) struct Returned {
    table: &'static str,
    rows: Mutex<Rows>,
}

#[derive(Default)]
struct Rows {
    tape: Tape,
    /// Each row's model, and where it ends on the tape.
    ends: Vec<(&'static ModelSite, Place)>,
}

impl Returned {
    pub(crate) fn of(table: &'static str) -> Self {
        Returned {
            table,
            rows: Mutex::default(),
        }
    }

    pub(crate) fn is_of(&self, row: &ModelSite) -> bool {
        self.table == row.table
    }

    /// Takes a row. Of very many, or very long ones, the first.
    pub(crate) fn add(&self, site: &'static ModelSite, visit: impl FnOnce(&mut Visitor<'_>)) {
        let mut row = Tape::take();
        visit(&mut Visitor::new(&mut row));
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        if rows.tape.bytes() + row.bytes() <= MOST_BYTES && rows.ends.len() < MOST_ROWS {
            rows.tape.append(&row);
            let end = rows.tape.place();
            rows.ends.push((site, end));
        }
    }

    /// Shows each row to a sink of the caller's.
    pub(crate) fn each(&self, mut show: impl FnMut(&'static ModelSite, &dyn Fn(&mut dyn Sink))) {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let mut begin = Place::default();
        for (site, end) in &rows.ends {
            show(site, &|sink| rows.tape.play_part(begin, *end, sink));
            begin = *end;
        }
    }
}
