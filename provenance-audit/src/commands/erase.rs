//! `provenance-audit erase`: one person goes from the evidence.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use provenance::store::{EventQuery, Reader};
use provenance::{Config, Erasure, Owner, Scope, Timestamp, Tracker};
use serde::{Deserialize, Serialize};

use super::place::storage;

/// Erase a person: their identifiers, values and tags go; everybody else's evidence, and the chain, stay.
///
/// First it says what would be removed, and which recipients must be told (GDPR Art. 19); --yes does it. The service may
/// run: its processes forget the person within two seconds. Interrupted, it is given again.
#[derive(Args)]
#[command(after_help = "Examples:
  provenance-audit erase --db runtime_provenance.db --owner email:ada@example.com
  provenance-audit erase --db runtime_provenance.db --owner user:7 --reason 'ticket 17' --log erasures.jsonl --yes
  provenance-audit erase --db restored.db --replay erasures.jsonl --yes

Exit codes: 0 done, or shown; 1 done, but something of it is left (a reader holds removed bytes, or rows are
damaged); 2 not done.")]
pub(super) struct Erase {
    /// The evidence file, or a postgres:// URL; without it, what the configuration names.
    #[arg(long, value_name = "FILE")]
    db: Option<PathBuf>,
    /// The service's configuration, which names the key.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Whom: email:ada@example.com, user:7.
    #[arg(
        long,
        value_name = "KIND:ID",
        required_unless_present = "replay",
        conflicts_with = "replay"
    )]
    owner: Option<String>,
    /// Repeat the erasures in this log, after a backup was restored.
    #[arg(long, value_name = "LOG")]
    replay: Option<PathBuf>,
    /// Why: a ticket or a case, and no personal data; it is kept.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Show what would be done; so does leaving out --yes.
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// Do it.
    #[arg(long)]
    yes: bool,
    /// Note the erasure in this file, for --replay: pseudonyms, which the evidence no longer has. Keep it elsewhere.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

/// A line of the log.
#[derive(Serialize, Deserialize)]
struct Line {
    erasure: String,
    at: String,
    event_id: Option<String>,
    owners: Vec<String>,
}

impl Erase {
    /// Does what the arguments say.
    ///
    /// # Errors
    /// The evidence, the key or the log cannot be used, or the erasure could not be finished.
    pub(super) fn run(self) -> Result<ExitCode, Box<dyn Error>> {
        let config = config(self.config.as_deref(), self.db.as_deref())?;
        let tracker = Tracker::open(config)?;
        let _scope = Scope::new(format!("provenance-audit erase ({})", user())).enter();
        let done = match (&self.owner, &self.replay) {
            (Some(owner), _) => self.one(&tracker, owner),
            (None, Some(log)) => self.again(&tracker, log),
            (None, None) => Err("give --owner or --replay".into()),
        };
        tracker.close();
        done
    }

    fn one(&self, tracker: &Tracker, owner: &str) -> Result<ExitCode, Box<dyn Error>> {
        let Some((kind, identifier)) = owner.split_once(':') else {
            return Err("--owner: expected an identifier such as email:ada@example.com or user:7".into());
        };
        let preview = tracker.erasure_preview(kind, identifier)?;
        let mut out = std::io::stdout();
        writeln!(
            out,
            "{} events and {} values under {} identifiers",
            preview.events, preview.values, preview.identifiers
        )?;
        for told in &preview.to_be_told {
            writeln!(
                out,
                "to be told: {} ({}, {}): {} shares from {} to {}: {}",
                told.recipient,
                told.legal_name.as_deref().unwrap_or("legal name not configured"),
                told.country.as_deref().unwrap_or("country not configured"),
                told.shares,
                told.first_at,
                told.last_at,
                told.categories.join(", ")
            )?;
        }
        if !self.yes {
            writeln!(out, "nothing was changed: --yes erases")?;
            return Ok(ExitCode::SUCCESS);
        }
        let erased = tracker.erase(kind, identifier, &self.reason)?;
        self.note(&erased)?;
        report(&erased)
    }

    fn again(&self, tracker: &Tracker, log: &Path) -> Result<ExitCode, Box<dyn Error>> {
        let done = done_in(tracker.config())?;
        let mut code = ExitCode::SUCCESS;
        for (number, line) in (1..).zip(BufReader::new(std::fs::File::open(log)?).lines()) {
            let line = line?;
            if line.trim().is_empty() {
                continue;
            }
            let unreadable = || format!("{}:{number}: not a line of an erasure log", log.display());
            let line: Line = serde_json::from_str(&line).map_err(|_| unreadable())?;
            // Done before the backup was made; who came back since then stays.
            if done.contains(&line.erasure) {
                println!("{}: is done already", line.erasure);
                continue;
            }
            let owners: Option<Vec<Owner>> = line.owners.iter().map(|owner| Owner::from_stored(owner)).collect();
            let owners = owners.filter(|owners| !owners.is_empty()).ok_or_else(unreadable)?;
            if !self.yes {
                println!("{}: would be repeated: --yes does", line.erasure);
                continue;
            }
            let erased = tracker.erase_people(&owners, &format!("repeats {}", line.erasure))?;
            self.note(&erased)?;
            let this = report(&erased)?;
            if this != ExitCode::SUCCESS {
                code = this;
            }
        }
        Ok(code)
    }

    fn note(&self, erased: &Erasure) -> Result<(), Box<dyn Error>> {
        let Some(log) = &self.log else { return Ok(()) };
        let line = Line {
            erasure: erased.erasure.clone(),
            at: Timestamp::now().to_string(),
            event_id: erased.event_id.clone(),
            owners: erased.owners.iter().map(|owner| owner.as_str().to_owned()).collect(),
        };
        let mut options = OpenOptions::new();
        options.create(true).append(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let failed = |e: std::io::Error| {
            format!(
                "{}: {}: the person is erased, and not noted there: give the command again",
                log.display(),
                e.kind()
            )
        };
        let mut file = options.open(log).map_err(failed)?;
        writeln!(file, "{}", serde_json::to_string(&line)?).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        Ok(())
    }
}

fn report(erased: &Erasure) -> Result<ExitCode, Box<dyn Error>> {
    let mut out = std::io::stdout();
    writeln!(
        out,
        "erased from {} events, with {} values; recorded as {}",
        erased.events,
        erased.values,
        erased.event_id.as_deref().unwrap_or("nothing")
    )?;
    let mut code = ExitCode::SUCCESS;
    if !erased.log_emptied {
        eprintln!(
            "removed bytes still stand in the -wal file or in the server's tables, as a reader stays or a right is missing: \
             give the command again later"
        );
        code = ExitCode::from(1);
    }
    if erased.damaged > 0 {
        eprintln!(
            "{} rows are damaged, and were left as they are: see `verify`",
            erased.damaged
        );
        code = ExitCode::from(1);
    }
    Ok(code)
}

/// The erasures that are recorded as done.
fn done_in(config: &Config) -> Result<BTreeSet<String>, Box<dyn Error>> {
    let mut reader = Reader::connect(&config.storage)?;
    let mut query = EventQuery {
        limit: 1000,
        event_type: Some("DATA_ERASURE".to_owned()),
        ..EventQuery::default()
    };
    let mut done = BTreeSet::new();
    loop {
        let page = reader.events(&query)?;
        for event in &page.events {
            let word = |key: &str| event.extras.get(key).and_then(serde_json::Value::as_str);
            let reason = word("reason").unwrap_or_default();
            if word("state") == Some("done") {
                done.extend(word("erasure").map(str::to_owned));
                done.extend(reason.strip_prefix("repeats ").map(str::to_owned));
            }
        }
        if page.next_cursor.is_none() {
            return Ok(done);
        }
        query.cursor = page.next_cursor;
    }
}

/// The service's configuration, for a process that writes a chain of its own.
pub(super) fn config(file: Option<&Path>, db: Option<&Path>) -> Result<Config, Box<dyn Error>> {
    let mut config = Config::load(file)?;
    if let Some(db) = db {
        config.storage = storage(db);
        // Opening would make one.
        Reader::connect(&config.storage)?;
    }
    config.service = "provenance-audit".to_owned();
    config.max_values = 1;
    // A command that cannot write says so.
    config.spill_max_bytes = 0;
    config.retention.clear();
    config.tracked_models.clear();
    Ok(config)
}

/// Who runs this, as the system says.
pub(super) fn user() -> String {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    variable("SUDO_USER")
        .or_else(|| variable("USER"))
        .or_else(|| variable("USERNAME"))
        .unwrap_or_else(|| "unknown user".to_owned())
}
