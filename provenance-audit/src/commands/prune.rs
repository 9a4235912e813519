//! `provenance-audit prune`: what was kept for its time ends, by hand.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use provenance::{Scope, Timestamp, Tracker};

use super::erase::{config, user};

/// End what was kept of an event type or a category before a time.
///
/// Of events of a type, type and time stay as stubs that nobody is shown; of a category the tags go, and values that were
/// not seen since. It is recorded, and `verify` takes no stub without such a record. Without --yes it only counts.
#[derive(Args)]
#[command(after_help = "Examples:
  provenance-audit prune --db runtime_provenance.db --before 2026-01-01 --type DATA_ACCESS
  provenance-audit prune --db runtime_provenance.db --before 2026-01-01 --type contact.email --reason 'ticket 3' --yes

Exit codes: 0 done, or counted; 2 not done.")]
pub(super) struct Prune {
    /// The evidence file, or a postgres:// URL; without it, what the configuration names.
    #[arg(long, value_name = "FILE")]
    db: Option<PathBuf>,
    /// The service's configuration, which names the key.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What was seen before this time: 2026-01-31T12:00:00Z, or 2026-01-31 (midnight UTC).
    #[arg(long, value_name = "TIME")]
    before: String,
    /// An event type such as DATA_ACCESS, or a category such as contact.email.
    #[arg(long = "type", value_name = "TYPE|CATEGORY")]
    what: String,
    /// Why; it is kept.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Do it.
    #[arg(long)]
    yes: bool,
}

impl Prune {
    /// Does what the arguments say.
    ///
    /// # Errors
    /// The evidence or the key cannot be used, or it could not be finished.
    pub(super) fn run(self) -> Result<ExitCode, Box<dyn Error>> {
        let before = Timestamp::parse(&self.before)
            .ok_or("--before: expected a time such as 2026-01-31T12:00:00Z, or a date such as 2026-01-31")?;
        let tracker = Tracker::open_at(config(self.config.as_deref(), self.db.as_deref())?)?;
        let scope = Scope::new(format!("provenance-audit prune ({})", user())).enter();
        let pruned = tracker.prune(&self.what, before, &self.reason, !self.yes);
        drop(scope);
        tracker.close();
        let pruned = pruned?;
        match pruned.event_id {
            Some(event) => println!(
                "{} events and {} values ended; recorded as {event}",
                pruned.events, pruned.values
            ),
            None if pruned.events == 0 => println!("nothing is that old"),
            None => println!("{} would end; nothing was changed: --yes does it", pruned.events),
        }
        Ok(ExitCode::SUCCESS)
    }
}
