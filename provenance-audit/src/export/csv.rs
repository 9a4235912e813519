//! A table for spreadsheets: one row for each tag of an event, and one for an event without tags.

use std::io::Write;

use provenance::store::{EventQuery, Reader, StoredEvent};
use serde_json::{Map, Value as Json};

use super::{Error, each_event};

/// Columns of the event, then of the tag.
const EVENT: [&str; 24] = [
    "event_id",
    "created_at",
    "event_type",
    "actor",
    "target",
    "request_id",
    "user_id",
    "owner",
    "recipient",
    "outcome",
    "status",
    "action",
    "certain",
    "purpose",
    "basis",
    "data_use",
    "subject",
    "service",
    "environment",
    "instance",
    "build",
    "tenant",
    "trace_id",
    "site",
];
const TAG: [&str; 11] = [
    "category",
    "field",
    "description",
    "fingerprint",
    "owner",
    "source",
    "pii",
    "role",
    "place",
    "form",
    "confidence",
];

/// Writes a heading and the rows. Cells that a spreadsheet would take for a formula begin with an apostrophe.
///
/// # Errors
/// [`Error`].
pub fn csv(
    reader: &mut Reader,
    query: &EventQuery,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(),
) -> Result<(), Error> {
    let mut table = Table::new(
        out,
        EVENT
            .iter()
            .map(|name| (*name).to_owned())
            .chain(TAG.iter().map(|name| format!("tag_{name}"))),
    )?;
    each_event(reader, query, |event| {
        progress();
        let cells: Vec<String> = EVENT.iter().map(|name| of_event(&event, name)).collect();
        let nothing = Map::new();
        let tags = match event.matched_tags.as_slice() {
            [] => std::slice::from_ref(&nothing),
            tags => tags,
        };
        for tag in tags {
            table.row(
                cells
                    .iter()
                    .cloned()
                    .chain(TAG.iter().map(|name| value(tag.get(*name)))),
            )?;
        }
        Ok::<_, Error>(())
    })?;
    table.end()
}

/// Rows of cells, guarded.
pub(crate) struct Table<W: Write>(::csv::Writer<W>);

impl<W: Write> Table<W> {
    pub(crate) fn new(out: W, heading: impl IntoIterator<Item = String>) -> Result<Self, Error> {
        let mut table = Table(
            ::csv::WriterBuilder::new()
                .terminator(::csv::Terminator::CRLF)
                .from_writer(out),
        );
        table.row(heading)?;
        Ok(table)
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) -> Result<(), Error> {
        let written = self.0.write_record(cells.into_iter().map(guarded));
        written.map_err(|error| match error.into_kind() {
            ::csv::ErrorKind::Io(error) => Error::Output(error),
            _ => Error::Output(std::io::ErrorKind::InvalidData.into()),
        })
    }

    pub(crate) fn end(mut self) -> Result<(), Error> {
        Ok(self.0.flush()?)
    }
}

/// A cell that no spreadsheet takes for a formula (<https://owasp.org/www-community/attacks/CSV_Injection>), the
/// wide forms of the signs among them.
fn guarded(mut cell: String) -> String {
    let formula = |c: char| {
        matches!(
            c,
            '=' | '+' | '-' | '@' | '\t' | '\r' | '\n' | '\u{ff1d}' | '\u{ff0b}' | '\u{ff0d}' | '\u{ff20}'
        )
    };
    if cell.trim_start_matches(' ').starts_with(formula) {
        cell.insert(0, '\'');
    }
    cell
}

fn of_event(event: &StoredEvent, name: &str) -> String {
    match name {
        "event_id" => event.event_id.clone(),
        "created_at" => event.created_at.to_string(),
        "event_type" => event.event_type.clone(),
        "actor" => event.actor.clone(),
        "target" => event.target.clone().unwrap_or_default(),
        "request_id" => event.request_id.clone().unwrap_or_default(),
        "user_id" => event.user_id.clone().unwrap_or_default(),
        "site" => match event.extras.get("site") {
            Some(Json::Object(site)) => format!("{}:{}", value(site.get("file")), value(site.get("line"))),
            other => value(other),
        },
        name => value(event.extras.get(name)),
    }
}

fn value(value: Option<&Json>) -> String {
    match value {
        None | Some(Json::Null) => String::new(),
        Some(Json::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::guarded;

    #[test]
    fn formulas_are_text() {
        for formula in [
            "=1+1",
            "+1",
            "-1",
            "@SUM(A1)",
            "\t=1",
            "\r=1",
            "  =1",
            "\n=1",
            "\u{ff1d}1",
        ] {
            assert_eq!(guarded(formula.to_owned()), format!("'{formula}"));
        }
        for plain in ["", "a=1", "contact.email", "1-2", "'=1"] {
            assert_eq!(guarded(plain.to_owned()), plain);
        }
    }
}
