//! A statement's text and what Diesel shows of its binds, taken apart.

use std::fmt::{self, Write};

use diesel::connection::DebugQuery;
use zeroize::Zeroizing;

use super::super::shape::{BINDS, is_text};

/// Most bytes of SQL that are read: PostgreSQL's 65535 placeholders take a third of it.
pub(super) const MAX_SQL: usize = 1 << 20;
/// Most bytes of binds that are read.
const MAX_BINDS: usize = 4 << 20;

/// A statement, shown. May hold raw values: it lives for the length of one call, and is wiped.
#[derive(Default)]
pub(super) struct Shown {
    pub(super) sql: Zeroizing<String>,
    pub(super) binds: Zeroizing<String>,
    /// One of the two was longer than is read.
    pub(super) cut: bool,
    binds_begun: bool,
    with_binds: bool,
}

impl Shown {
    /// The text alone: showing binds costs as much again.
    pub(super) fn sql(query: &dyn DebugQuery) -> Self {
        Shown::of(query, false)
    }

    /// The text and the binds.
    pub(super) fn whole(query: &dyn DebugQuery) -> Self {
        Shown::of(query, true)
    }

    fn of(query: &dyn DebugQuery, with_binds: bool) -> Self {
        let mut shown = Shown {
            with_binds,
            ..Shown::default()
        };
        // Never fails: what Diesel cannot show (an empty changeset) is the empty text.
        let _ = write!(shown, "{query}");
        // A batch has no binds, whatever its text says.
        if !shown.binds_begun && !is_text(query) {
            let text = std::mem::take(&mut shown.sql);
            let (sql, binds) = text.split_once(BINDS).unwrap_or((&text, ""));
            shown.sql = Zeroizing::new(sql.to_owned());
            shown.binds = Zeroizing::new(binds.to_owned());
        }
        shown
    }
}

impl Write for Shown {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        // Diesel writes the text as one piece: what a literal in it says is not taken for the end.
        if !self.binds_begun && piece == BINDS {
            self.binds_begun = true;
            return if self.with_binds { Ok(()) } else { Err(fmt::Error) };
        }
        let (text, most) = match self.binds_begun {
            true => (&mut self.binds, MAX_BINDS),
            false => (&mut self.sql, MAX_SQL),
        };
        if text.len().saturating_add(piece.len()) > most {
            self.cut = true;
            return Err(fmt::Error);
        }
        push(text, piece);
        Ok(())
    }
}

/// Appends; where that needs more room, the room that was is wiped.
fn push(text: &mut Zeroizing<String>, piece: &str) {
    let needed = text.len() + piece.len();
    if needed > text.capacity() {
        let mut larger = Zeroizing::new(String::with_capacity(needed.max(text.capacity() * 2).max(64)));
        larger.push_str(text);
        *text = larger;
    }
    text.push_str(piece);
}
