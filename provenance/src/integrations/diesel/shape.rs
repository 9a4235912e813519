//! What is known of a statement without writing it out, and what its text says once it is.
//!
//! Diesel shows a query by a trait object whose text costs about as much as a small query takes. Two
//! things about it are free. Its size: Diesel wraps a text as it is, and anything that it has built
//! behind one thinner reference. And its virtual table, which stands for its type: if the connection
//! caches the prepared statement, then the type is none of `sql_query`, whose text is the host's and
//! is never cached. diesel-async's wrapper has one type for all texts, but shows their binds as it has
//! collected them. So a built type with binds is written out once a connection; every other query each time.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::hash::{BuildHasherDefault, Hash, Hasher};

use diesel::connection::DebugQuery;

/// The type of a query, told by its virtual table. One type may have several.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Shape(u64);

impl Shape {
    pub(super) fn of(query: &dyn DebugQuery) -> Self {
        let pointer: *const dyn DebugQuery = query;
        let mut hasher = Words::default();
        pointer.wrapping_byte_sub(pointer.addr()).hash(&mut hasher);
        Shape(hasher.finish())
    }
}

/// Whether Diesel shows the host's text itself, so that writing it out is cheap.
pub(super) fn is_text(query: &dyn DebugQuery) -> bool {
    size_of_val(query) == size_of::<&str>()
}

/// Types of queries that a connection has built, and what their texts say.
#[derive(Default)]
pub(super) struct Built(HashMap<Shape, Option<Facts>, BuildHasherDefault<Words>>);

impl Built {
    /// More types than a program has queries: then nothing is remembered any more.
    const MAX: usize = 16_384;

    /// The connection has cached the prepared statement of `query`.
    pub(super) fn learn(&mut self, shape: Shape, query: &dyn DebugQuery) {
        if self.0.len() < Built::MAX && !self.knows(shape) && shows_its_binds(query) {
            self.0.insert(shape, None);
        }
    }

    pub(super) fn knows(&self, shape: Shape) -> bool {
        self.0.contains_key(&shape)
    }

    /// What the text of a writing statement says.
    pub(super) fn facts(&mut self, shape: Shape, query: &dyn DebugQuery) -> Facts {
        match self.0.get_mut(&shape) {
            Some(Some(facts)) => *facts,
            Some(unread) => *unread.insert(Facts::of(&text(query))),
            None => Facts::of(&text(query)),
        }
    }
}

/// Pointers are words with little to mix.
#[derive(Default)]
struct Words(u64);

impl Hasher for Words {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }
}

/// What a statement's text says of what it writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Facts {
    pub(super) verb: Verb,
    pub(super) conflict: Conflict,
    pub(super) returning: bool,
    /// Rows in `VALUES`.
    pub(super) rows: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verb {
    Insert,
    Update,
    Other,
}

/// What becomes of a row that is there already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Conflict {
    /// The statement fails, or the new row takes its place.
    None,
    /// It stays.
    Ignored,
    /// It is changed.
    Updated,
}

impl Facts {
    /// Reads text as Diesel writes it: upper-case keywords, quoted names, no values.
    pub(super) fn of(sql: &str) -> Self {
        let begins = |words: &[&str]| words.iter().any(|word| sql.starts_with(word));
        let verb = if begins(&["INSERT ", "REPLACE ", "COPY "]) {
            Verb::Insert
        } else if begins(&["UPDATE "]) {
            Verb::Update
        } else {
            Verb::Other
        };
        let conflict = if sql.contains(" ON DUPLICATE KEY") || sql.contains(" DO UPDATE") {
            Conflict::Updated
        } else if begins(&["INSERT OR IGNORE", "INSERT IGNORE", "UPDATE OR IGNORE"]) || sql.contains(" ON CONFLICT") {
            Conflict::Ignored
        } else {
            Conflict::None
        };
        Facts {
            verb,
            conflict,
            returning: sql.contains(" RETURNING "),
            rows: rows(sql),
        }
    }
}

/// How many rows stand behind `VALUES`; 1 where there is none.
fn rows(sql: &str) -> usize {
    let Some((_, values)) = sql.split_once(" VALUES ") else {
        return 1;
    };
    let (mut rows, mut depth, mut quote) = (0, 0_usize, None);
    for c in values.chars() {
        match (quote, c) {
            (Some(open), c) => quote = (open != c).then_some(open),
            (None, '\'' | '"' | '`') => quote = Some(c),
            (None, '(') => {
                rows += usize::from(depth == 0);
                depth += 1;
            }
            (None, ')') => depth = depth.saturating_sub(1),
            // The list of rows is over.
            (None, c) if depth == 0 && c.is_ascii_alphabetic() => break,
            (None, _) => {}
        }
    }
    rows.max(1)
}

/// A statement's text without the binds that Diesel shows after it. Never fails: what cannot be
/// shown (an empty changeset) is the empty text.
pub(super) fn text(query: &dyn DebugQuery) -> String {
    if is_text(query) {
        return query.to_string();
    }
    let mut text = UntilBinds::default();
    let _ = write!(text, "{query}");
    let UntilBinds { mut text, ended } = text;
    if !ended && let Some(end) = text.find(BINDS) {
        text.truncate(end);
    }
    text
}

/// What Diesel writes between a text and its binds.
pub(super) const BINDS: &str = " -- binds: ";

/// Whether the first bind is shown as a value is. A bind collector shows the name of a kind
/// (`String("..")`, `I32(7)`), and so do a few values, which is no loss. `false` without binds.
fn shows_its_binds(query: &dyn DebugQuery) -> bool {
    let mut first = FirstBind::default();
    let _ = write!(first, "{query}");
    first.is_value
}

/// Looks at the first piece of the first bind, and keeps none.
#[derive(Default)]
struct FirstBind {
    begun: bool,
    is_value: bool,
}

impl fmt::Write for FirstBind {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        match piece {
            BINDS => self.begun = true,
            "" | "[" => {}
            _ if self.begun => {
                let named = piece.starts_with(|c: char| c.is_ascii_uppercase());
                self.is_value = piece != "]" && (!named || piece == "Some" || piece == "None");
                return Err(fmt::Error);
            }
            _ => {}
        }
        Ok(())
    }
}

/// Takes text until Diesel begins to show binds: those are raw values.
#[derive(Default)]
struct UntilBinds {
    text: String,
    ended: bool,
}

impl fmt::Write for UntilBinds {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        // The text is one piece: what a literal in it says is not taken for its end.
        if piece == BINDS {
            self.ended = true;
            return Err(fmt::Error);
        }
        self.text.push_str(piece);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_from_diesels_text() {
        let facts = |sql| Facts::of(sql);
        let insert = facts("INSERT INTO `users` (`email`, `a(b`) VALUES (?, ?), (?, NULL)");
        assert_eq!((insert.verb, insert.rows, insert.returning), (Verb::Insert, 2, false));
        let upsert = facts(
            "INSERT INTO \"t\" (\"a\") VALUES ($1) ON CONFLICT (\"a\") DO UPDATE SET \"a\" = $2 RETURNING \"t\".\"a\"",
        );
        assert_eq!(
            (upsert.conflict, upsert.rows, upsert.returning),
            (Conflict::Updated, 1, true)
        );
        assert_eq!(
            facts("INSERT OR IGNORE INTO `t` (`a`) VALUES (?)").conflict,
            Conflict::Ignored
        );
        assert_eq!(facts("INSERT INTO `t` DEFAULT VALUES").rows, 1);
        assert_eq!(facts("UPDATE `t` SET `a` = ?").verb, Verb::Update);
        assert_eq!(facts("SELECT 1").verb, Verb::Other);
    }
}
