//! `provenance-audit report`: a draft record of processing activities.

use std::path::PathBuf;

use clap::Args;
use provenance::store::EventQuery;

use super::export::{Draft, written};
use super::output::Done;
use super::place::{Period, Place};
use crate::export;

/// Draft the record of processing activities (GDPR Art. 30) from what was observed
///
/// One activity for each purpose that attributes declare; what declares none is listed by the route or function that did
/// it. What code cannot know reads TO COMPLETE: the draft is where your record begins, not the record.
#[derive(Args)]
#[command(after_help = "Examples:
  provenance-audit report --config /etc/crm/runtime_tracking.yaml > record.md
  provenance-audit report --format html --out record.html   # one page, to be printed
  provenance-audit report --format csv --since 2026-01-01 --out record.csv

Time limits come from `retention` of the configuration.

Exit codes: 0 written, 2 cannot tell.")]
pub(super) struct Report {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    period: Period,
    /// How it is written
    #[arg(long, value_enum, default_value = "markdown")]
    format: Format,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Where to write; without it, standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Markdown,
    Html,
    Csv,
    Json,
}

impl Report {
    pub(super) fn run(self) -> Done {
        self.period.check()?;
        let mut evidence = self.place.open()?;
        let query = EventQuery {
            since: self.period.since,
            until: self.period.until,
            ..EventQuery::default()
        };
        let format = match self.format {
            _ if self.json => export::Format::RopaJson,
            Format::Json => export::Format::RopaJson,
            Format::Markdown => export::Format::Ropa,
            Format::Html => export::Format::RopaHtml,
            Format::Csv => export::Format::RopaCsv,
        };
        let draft = self.out.as_deref().map(Draft::new).transpose()?;
        written(draft, format, &mut evidence, &query)
    }
}
