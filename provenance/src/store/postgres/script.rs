//! Statements that go to the server in one message: each message of a transaction costs the way there and back. Their
//! values are numbers and hex digits alone, so nothing in them can be taken for SQL.

use std::fmt::Write;

use crate::hex::push_hex;
use crate::store::statement::{Column, Row};

/// Rows of one statement, in parentheses; the first goes after `VALUES`.
#[derive(Default)]
pub(super) struct Script(String);

impl Script {
    /// Adds a text that holds no value.
    pub(super) fn say(&mut self, sql: &'static str) -> &mut Self {
        self.0.push_str(sql);
        self
    }

    /// Adds rows, with commas between them.
    pub(super) fn rows<T>(
        &mut self,
        rows: impl IntoIterator<Item = T>,
        mut columns: impl FnMut(&mut Columns<'_>, T),
    ) -> &mut Self {
        let mut between = " (";
        for row in rows {
            self.0.push_str(between);
            columns(&mut Columns(&mut self.0, ""), row);
            between = "), (";
        }
        self.0.push(')');
        self
    }

    /// As [`Script::rows`], of rows that know their columns.
    pub(super) fn rows_of<R: Row>(&mut self, rows: &[R]) -> diesel::QueryResult<&mut Self> {
        let mut refused = Ok(());
        self.rows(rows, |columns, row| {
            let done = row.columns(&mut |column| {
                match column {
                    Column::Big(value) => columns.number(*value),
                    Column::Int(value) => columns.number((*value).into()),
                    Column::Small(value) => columns.number((*value).into()),
                    Column::Bytes(value) => columns.bytes(value),
                    Column::OptBig(Some(value)) => columns.number(*value),
                    Column::OptInt(Some(value)) => columns.number((*value).into()),
                    Column::OptBytes(Some(value)) => columns.bytes(value),
                    Column::OptBig(None) | Column::OptInt(None) | Column::OptBytes(None) => columns.push("NULL"),
                };
                Ok(())
            });
            if done.is_err() {
                refused = done;
            }
        });
        refused.map(|()| self)
    }

    pub(super) fn sql(&self) -> &str {
        &self.0
    }
}

/// The columns of a row, in order.
pub(super) struct Columns<'s>(&'s mut String, &'static str);

impl Columns<'_> {
    fn push(&mut self, word: &str) -> &mut Self {
        self.0.push_str(self.1);
        self.0.push_str(word);
        self.1 = ", ";
        self
    }

    pub(super) fn number(&mut self, value: i64) -> &mut Self {
        self.push("");
        // To a text: nothing fails.
        let _ = write!(self.0, "{value}");
        self
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.push("'\\x");
        push_hex(self.0, bytes);
        self.0.push('\'');
        self
    }

    /// A text of the database's encoding.
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.push("convert_from('\\x");
        push_hex(self.0, text.as_bytes());
        self.0.push_str("', 'UTF8')");
        self
    }
}
