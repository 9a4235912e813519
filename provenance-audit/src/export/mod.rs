//! Evidence for other tools: each format is written as it is read, in bounded memory.

pub mod csv;
pub mod fides;
pub mod openlineage;
mod record;

use std::fmt;
use std::io::{self, Write};

use provenance::Config;
use provenance::store::{EventQuery, Reader, StoredEvent};

use crate::answers;
pub(crate) use crate::answers::text;

/// Why an export ended early.
#[derive(Debug)]
pub enum Error {
    /// The evidence cannot be read.
    Evidence(provenance::Error),
    /// What was to be written to took no more.
    Output(io::Error),
}

impl From<provenance::Error> for Error {
    fn from(error: provenance::Error) -> Self {
        Error::Evidence(error)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Error::Output(error)
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Error::Output(error.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Evidence(error) => error.fmt(f),
            Error::Output(error) => write!(f, "the answer cannot be written: {}", error.kind()),
        }
    }
}

impl std::error::Error for Error {}

/// How evidence is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[non_exhaustive]
pub enum Format {
    /// Each event as the audit API shows it, one a line.
    Jsonl,
    /// A row for each tag of each event.
    Csv,
    /// OpenLineage run events, one a line.
    Openlineage,
    /// A Fides manifest: datasets and systems, in YAML.
    Fides,
    /// A draft record of processing activities (GDPR Art. 30), in Markdown.
    #[cfg_attr(feature = "cli", value(skip))]
    Ropa,
    /// The same as a table.
    #[cfg_attr(feature = "cli", value(skip))]
    RopaCsv,
    /// The same as one page for a browser or a printer.
    #[cfg_attr(feature = "cli", value(skip))]
    RopaHtml,
    /// The same as JSON.
    #[cfg_attr(feature = "cli", value(skip))]
    RopaJson,
}

/// Formats: name, media type, the end of a file's name, and what one holds.
const FORMATS: [(Format, &str, &str, &str, &str); 8] = [
    (
        Format::Jsonl,
        "jsonl",
        "application/x-ndjson",
        "jsonl",
        "Events as JSON, one a line",
    ),
    (
        Format::Csv,
        "csv",
        "text/csv; charset=utf-8",
        "csv",
        "Events as a table (CSV)",
    ),
    (
        Format::Openlineage,
        "openlineage",
        "application/x-ndjson",
        "openlineage.jsonl",
        "OpenLineage run events",
    ),
    (
        Format::Fides,
        "fides",
        "application/yaml",
        "fides.yml",
        "Fides datasets and systems (YAML)",
    ),
    (
        Format::Ropa,
        "ropa",
        "text/markdown; charset=utf-8",
        "ropa.md",
        "Record of processing (Art. 30), Markdown",
    ),
    (
        Format::RopaCsv,
        "ropa-csv",
        "text/csv; charset=utf-8",
        "ropa.csv",
        "Record of processing (Art. 30), CSV",
    ),
    (
        Format::RopaHtml,
        "ropa-html",
        "text/html; charset=utf-8",
        "ropa.html",
        "Record of processing (Art. 30), page to print",
    ),
    (
        Format::RopaJson,
        "ropa-json",
        "application/json; charset=utf-8",
        "ropa.json",
        "Record of processing (Art. 30), JSON",
    ),
];

impl Format {
    /// All formats.
    pub fn all() -> impl Iterator<Item = Format> {
        FORMATS.iter().map(|(format, ..)| *format)
    }

    /// `jsonl`, `ropa-csv`, ...
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// The value of `content-type`.
    pub fn media_type(self) -> &'static str {
        self.row().2
    }

    /// The end of a file's name, without the first dot.
    pub fn extension(self) -> &'static str {
        self.row().3
    }

    /// What it is, in a few words.
    pub fn words(self) -> &'static str {
        self.row().4
    }

    /// The format of this name.
    pub fn named(name: &str) -> Option<Format> {
        Format::all().find(|format| format.name() == name)
    }

    fn row(self) -> &'static (Format, &'static str, &'static str, &'static str, &'static str) {
        const NONE: (Format, &str, &str, &str, &str) = FORMATS[0];
        FORMATS.iter().find(|(format, ..)| *format == self).unwrap_or(&NONE)
    }

    /// Writes what `query` means, newest first; its `limit` and `cursor` are not looked at. `config` says what recipients
    /// are, and how long things are kept.
    ///
    /// # Errors
    /// [`Error`]. What was written until then is not whole.
    pub fn write(
        self,
        reader: &mut Reader,
        query: &EventQuery,
        config: &Config,
        out: &mut dyn Write,
        progress: &mut dyn FnMut(),
    ) -> Result<(), Error> {
        let mut record = |shape| record::write(reader, query, config, shape, out, progress);
        match self {
            Format::Ropa => record(record::Shape::Markdown),
            Format::RopaCsv => record(record::Shape::Csv),
            Format::RopaHtml => record(record::Shape::Html),
            Format::RopaJson => record(record::Shape::Json),
            Format::Jsonl => jsonl(reader, query, out, progress),
            Format::Csv => csv::csv(reader, query, out, progress),
            Format::Openlineage => openlineage::run_events(reader, query, out, progress),
            Format::Fides => fides::manifest(reader, query, &config.recipients, out, progress),
        }
    }
}

/// Hands every event that `query` means to `each`, newest first; `limit` and `cursor` of the query are not looked at.
///
/// # Errors
/// What reading and `each` give.
pub fn each_event<E: From<provenance::Error>>(
    reader: &mut Reader,
    query: &EventQuery,
    each: impl FnMut(StoredEvent) -> Result<(), E>,
) -> Result<(), E> {
    answers::each_event(reader, query, usize::MAX, each).map(|_| ())
}

/// Each event as the audit API shows it, one a line.
///
/// # Errors
/// [`Error`].
pub fn jsonl(
    reader: &mut Reader,
    query: &EventQuery,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(),
) -> Result<(), Error> {
    each_event(reader, query, |event| {
        progress();
        serde_json::to_writer(&mut *out, &event)?;
        Ok(out.write_all(b"\n")?)
    })
}
