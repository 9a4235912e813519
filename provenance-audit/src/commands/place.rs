//! Where the evidence is, and with which configuration it was written.

use std::path::{Path, PathBuf};

use clap::Args;
use provenance::config::{Storage, Token};
use provenance::store::{Reader, in_force};
use provenance::{Config, Pseudonyms, Timestamp};

use super::output::Failure;

/// The options that say which evidence is meant.
#[derive(Args)]
pub(super) struct Place {
    /// The evidence file, or a postgres:// URL; without it, what the configuration names
    #[arg(long, value_name = "FILE")]
    pub(super) db: Option<PathBuf>,
    /// The service's configuration
    ///
    /// Without it, as the service finds it: RUNTIME_TRACKING_CONFIG, then
    /// runtime_tracking.{yaml,yml,json,toml} in the working folder, then the defaults. The variables
    /// RUNTIME_TRACKING_* go over it, and --db over all.
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

/// Evidence that was found, with the configuration that goes with it.
pub(super) struct Evidence {
    pub(super) config: Config,
    pub(super) reader: Reader,
}

impl Place {
    /// The configuration, with `--db` over it.
    pub(super) fn config(&self) -> Result<Config, Failure> {
        let mut config = Config::load(self.config.as_deref())?;
        if let Some(db) = &self.db {
            config.storage = storage(db);
        } else {
            config.storage = gone_on(config.storage);
        }
        Ok(config)
    }

    /// The evidence alone: what needs no key needs no configuration either, if `--db` names it.
    pub(super) fn storage(&self) -> Result<Storage, Failure> {
        match &self.db {
            Some(db) => Ok(storage(db)),
            None => Ok(self.config()?.storage),
        }
    }

    /// The evidence, open.
    pub(super) fn open(&self) -> Result<Evidence, Failure> {
        let config = self.config()?;
        let reader = Reader::connect(&config.storage)?;
        Ok(Evidence { config, reader })
    }
}

impl Evidence {
    /// What turns identifiers into the pseudonyms of this evidence.
    pub(super) fn pseudonyms(&self) -> Result<Pseudonyms, Failure> {
        Pseudonyms::load(&self.config).map_err(|error| {
            Failure::said(format!(
                "{error}\n  To find a person by an identifier, this command needs the master key of the service: set \
                 RUNTIME_TRACKING_KEY, or name the service's configuration with --config"
            ))
        })
    }
}

/// What `--db` names.
pub(super) fn storage(db: &Path) -> Storage {
    match db.to_str() {
        Some(url) if url.starts_with("postgres://") || url.starts_with("postgresql://") => {
            Storage::Postgres(Token(url.to_owned()))
        }
        _ => Storage::Sqlite(std::path::absolute(db).unwrap_or_else(|_| db.to_owned())),
    }
}

/// The file that evidence goes on in, where the one that is configured was lost.
pub(super) fn gone_on(configured: Storage) -> Storage {
    let now = in_force(&configured);
    if now != configured {
        eprintln!(
            "note: the evidence in {configured} was lost while it was written; read here is {now}, which goes on"
        );
    }
    now
}

/// A time on the command line.
pub(super) fn time(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text).ok_or_else(|| {
        "expected a time such as 2026-01-31T12:00:00Z, or a date such as 2026-01-31 (midnight UTC)".into()
    })
}

/// The days or times between which events count.
#[derive(Args)]
pub(super) struct Period {
    /// At or after this time: 2026-01-31T12:00:00Z, or 2026-01-31 (midnight UTC)
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(super) since: Option<Timestamp>,
    /// Before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(super) until: Option<Timestamp>,
}

impl Period {
    pub(super) fn check(&self) -> Result<(), Failure> {
        match (self.since, self.until) {
            (Some(since), Some(until)) if since >= until => Err(Failure::said(
                "--since and --until: there is no time between them; --until is the later one, and is not included",
            )),
            _ => Ok(()),
        }
    }
}
