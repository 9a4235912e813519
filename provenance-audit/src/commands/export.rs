//! `provenance-audit export`: the evidence for other tools.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use provenance::EventType;
use provenance::store::EventQuery;

use super::output::{self, Done, Failure};
use super::place::{Evidence, Period, Place};
use super::record::{Asked, Recording};
use crate::export::{Error, Format};

/// Write the evidence for other tools: JSON lines, CSV, OpenLineage, Fides
///
/// Events are written as they are read, newest first, in bounded memory. What is written holds pseudonyms, never values:
/// it is still personal data. The access is put on record in the evidence (AUDIT_ACCESS).
#[derive(Args)]
#[command(after_help = "Examples:
  provenance-audit export --format jsonl --since 2026-11-01 --out november.jsonl
  provenance-audit export --format csv --type DATA_SHARE > shares.csv
  provenance-audit export --format openlineage | while read -r run; do curl -sd \"$run\" \\
      -H 'Content-Type: application/json' http://marquez:5000/api/v1/lineage; done
  provenance-audit export --format fides --out .fides/observed.yml

Formats:
  jsonl        each event as the audit API shows it, one a line
  csv          a row for each tag of each event; cells that a spreadsheet would take for a formula begin with '
  openlineage  run events (2-0-2), one a line: START and how it ended, with the lineage of columns
  fides        one YAML document: a dataset for the tables of each service, a system for each service

Exit codes: 0 written, 2 cannot tell; a file that is not whole is removed.")]
pub(super) struct Export {
    #[command(flatten)]
    place: Place,
    /// How it is written
    #[arg(long, value_enum)]
    format: Format,
    #[command(flatten)]
    period: Period,
    /// Only events of this type, such as DATA_SHARE
    #[arg(long = "type", value_name = "TYPE", value_parser = event_type)]
    event_type: Option<String>,
    /// Where to write; without it, standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    recording: Recording,
}

fn event_type(text: &str) -> Result<String, String> {
    match EventType::is_well_formed(text) {
        true => Ok(text.to_owned()),
        false => Err("expected an event type such as DATA_SHARE or X_LETTER_PRINTED".to_owned()),
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Evidence(error) => error.into(),
            Error::Output(error) => error.into(),
        }
    }
}

impl Export {
    pub(super) fn run(self) -> Done {
        self.period.check()?;
        let mut evidence = self.place.open()?;
        let mut filters = vec![("format", self.format.name().to_owned())];
        filters.extend(self.period.since.map(|since| ("since", since.to_string())));
        filters.extend(self.period.until.map(|until| ("until", until.to_string())));
        filters.extend(self.event_type.clone().map(|event_type| ("type", event_type)));
        let asked = Asked {
            command: "export",
            owners: &[],
            given: &[],
            filters,
        };
        // Opened first: an export that cannot be written was none.
        let draft = self.out.as_deref().map(Draft::new).transpose()?;
        self.recording.put(&evidence.config, &asked);
        let query = EventQuery {
            event_type: self.event_type.clone(),
            since: self.period.since,
            until: self.period.until,
            ..EventQuery::default()
        };
        written(draft, self.format, &mut evidence, &query)
    }
}

/// Writes evidence to a file, or to standard output.
pub(super) fn written(draft: Option<Draft>, format: Format, evidence: &mut Evidence, query: &EventQuery) -> Done {
    let bar = output::progress("events");
    let Evidence { config, reader } = evidence;
    let mut write = |out: &mut dyn Write| format.write(reader, query, config, out, &mut || bar.inc(1));
    match draft {
        Some(mut draft) => {
            write(&mut draft.file)?;
            bar.finish_and_clear();
            draft.keep()
        }
        None => {
            let mut out = output::out();
            write(&mut out)?;
            bar.finish_and_clear();
            output::finish(out)
        }
    }
}

/// A file that takes its name when it is whole, so that nobody reads half of one. Only its owner may read it.
pub(super) struct Draft {
    file: BufWriter<File>,
    path: PathBuf,
    /// Where it is until then; what is no file (`/dev/null`, a pipe) is written as it is.
    at: Option<PathBuf>,
}

impl Draft {
    pub(super) fn new(path: &Path) -> Result<Self, Failure> {
        let failed = |what: String| Failure::said(format!("--out: {}: {what}", path.display()));
        let mut options = File::options();
        options.write(true);
        let at = match path.metadata() {
            Ok(there) if there.is_dir() => return Err(failed("is a folder; expected a file".to_owned())),
            Ok(there) if !there.is_file() => None,
            _ => {
                let mut at = path.as_os_str().to_owned();
                at.push(format!(".{}.part", std::process::id()));
                options.create_new(true);
                #[cfg(unix)]
                std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
                Some(PathBuf::from(at))
            }
        };
        let opened = options.open(at.as_deref().unwrap_or(path));
        let file = opened.map_err(|error| failed(error.kind().to_string()))?;
        Ok(Draft {
            file: BufWriter::with_capacity(64 * 1024, file),
            path: path.to_owned(),
            at,
        })
    }

    pub(super) fn keep(mut self) -> Done {
        let failed = |error: std::io::Error| Failure::said(format!("--out: {}: {}", self.path.display(), error.kind()));
        self.file.flush().map_err(failed)?;
        if let Some(at) = &self.at {
            let file = self.file.get_ref();
            file.sync_all()
                .and_then(|()| std::fs::rename(at, &self.path))
                .map_err(failed)?;
            self.at = None;
        }
        Ok(std::process::ExitCode::SUCCESS)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(at) = &self.at {
            let _ = std::fs::remove_file(at);
        }
    }
}
