//! `provenance-audit serve`.

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Args;
use provenance::config::Storage;
use provenance::store::Reader;

use super::output::{Done, Failure};
use super::place::Place;
use crate::Server;
use crate::api::{Api, Options, Source};

/// Serve the audit API from an evidence file, until stopped with Ctrl-C
///
/// Without a token only loopback addresses are served, and only requests whose Host names them.
#[derive(Args)]
#[command(after_help = "Examples:
  provenance-audit serve --db runtime_provenance.db
  curl 'http://127.0.0.1:8787/runtime-audit/events?limit=10&event_type=DATA_SHARE'

  RUNTIME_TRACKING_AUDIT_TOKEN=... provenance-audit serve --db runtime_provenance.db --bind 0.0.0.0:8787
  curl -H 'Authorization: Bearer ...' http://audit.internal:8787/runtime-audit/status

Exit codes: 2 when it cannot start.")]
pub(super) struct Serve {
    #[command(flatten)]
    place: Place,
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8787")]
    bind: SocketAddr,
    /// The environment variable that holds the audit token; it must be set, and not be empty
    ///
    /// Without this option the token is what RUNTIME_TRACKING_AUDIT_TOKEN or the configuration says, if
    /// anything. A token is never given on the command line, as other users can read that.
    #[arg(long, value_name = "NAME")]
    token_env: Option<String>,
    /// Do not take the token from the `audit_token` query parameter
    #[arg(long)]
    no_query_token: bool,
}

impl Serve {
    pub(super) fn run(self) -> Done {
        let config = self.place.config()?;
        // Told now rather than to the first request.
        Reader::connect(&config.storage)?;
        let mut options = Options::of(&config);
        if let Some(name) = &self.token_env {
            options = options.token(&token(name)?);
        }
        if self.no_query_token {
            options = options.query_token(false);
        }
        let shown = config.storage.to_string();
        let source = match (self.place.db, config.storage) {
            (Some(_), Storage::Sqlite(path)) => Source::File(path),
            // Followed where it goes on in another file.
            (_, storage) => Source::Storage(storage),
        };
        let server = Server::start(Api::new(source, &options)?, self.bind)?;
        let mut out = std::io::stdout();
        // Whoever started this may not read what it prints; it serves all the same.
        let _ = writeln!(
            out,
            "serving {shown} on http://{}/runtime-audit/ (Ctrl-C stops)",
            server.addr()
        );
        let _ = out.flush();
        server.wait();
        Ok(ExitCode::SUCCESS)
    }
}

/// The token in an environment variable that was named for it.
pub(super) fn token(name: &str) -> Result<String, Failure> {
    match std::env::var(name) {
        Ok(token) if !token.is_empty() => Ok(token),
        Err(std::env::VarError::NotUnicode(_)) => Err(Failure::said(format!("--token-env: {name} is not UTF-8"))),
        _ => Err(Failure::said(format!("--token-env: {name} is not set, or empty"))),
    }
}
