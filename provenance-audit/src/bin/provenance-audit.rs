//! `provenance-audit`: serves or verifies an evidence file, and erases from it.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use provenance::store::{Problem, Reader};
use provenance_audit::Server;
use provenance_audit::api::{Api, Options, Source};
use provenance_audit::commands::{erase::Erase, prune::Prune};

/// Read the evidence that a service keeps of what it does with personal data.
///
/// The file may be in use: reading never blocks the service that writes it.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the audit API from an evidence file, until stopped with Ctrl-C.
    ///
    /// Without a token only loopback addresses are served, and only requests whose Host names them.
    #[command(after_help = "Examples:
  provenance-audit serve --db runtime_provenance.db
  curl 'http://127.0.0.1:8787/runtime-audit/events?limit=10&event_type=DATA_SHARE'

  RUNTIME_TRACKING_AUDIT_TOKEN=... provenance-audit serve --db runtime_provenance.db --bind 0.0.0.0:8787
  curl -H 'Authorization: Bearer ...' http://audit.internal:8787/runtime-audit/status

Exit codes: 2 when it cannot start.")]
    Serve {
        /// The evidence file.
        #[arg(long, value_name = "FILE")]
        db: PathBuf,
        /// Where to listen; port 0 takes a free one.
        #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8787")]
        bind: SocketAddr,
        /// The environment variable that holds the audit token; it must be set, and not be empty.
        ///
        /// Without this option the token is what RUNTIME_TRACKING_AUDIT_TOKEN says, if anything. A
        /// token is never given on the command line, as other users can read that.
        #[arg(long, value_name = "NAME")]
        token_env: Option<String>,
        /// Do not take the token from the `audit_token` query parameter.
        #[arg(long)]
        no_query_token: bool,
    },
    /// Check that the evidence was not changed since it was written.
    ///
    /// Recomputes every hash chain. Cutting off the newest events, or rewriting all of them, leaves a chain
    /// that holds: compare its head with one that was noted elsewhere.
    #[command(after_help = "Example:
  provenance-audit verify --db runtime_provenance.db

Exit codes: 0 every chain holds, 1 one is broken, 2 cannot tell.")]
    Verify {
        /// The evidence file.
        #[arg(long, value_name = "FILE")]
        db: PathBuf,
    },
    Erase(Erase),
    Prune(Prune),
}

const BROKEN: u8 = 1;
const CANNOT_TELL: u8 = 2;

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve {
            db,
            bind,
            token_env,
            no_query_token,
        } => serve(db, bind, token_env.as_deref(), !no_query_token),
        Command::Verify { db } => verify(&db),
        Command::Erase(erase) => erase.run(),
        Command::Prune(prune) => prune.run(),
    };
    done.unwrap_or_else(|error| {
        eprintln!("provenance-audit: {error}");
        ExitCode::from(CANNOT_TELL)
    })
}

type Done = Result<ExitCode, Box<dyn std::error::Error>>;

fn serve(db: PathBuf, bind: SocketAddr, token_env: Option<&str>, query_token: bool) -> Done {
    // Told now rather than to the first request.
    Reader::open(&db)?;
    let options = Options::new().token(&token(token_env)?).query_token(query_token);
    let shown = db.display().to_string();
    let server = Server::start(Api::new(Source::File(db), &options)?, bind)?;
    let mut out = std::io::stdout();
    // Whoever started this may not read what it prints; it serves all the same.
    let _ = writeln!(
        out,
        "serving {shown} on http://{}/runtime-audit/status (Ctrl-C stops)",
        server.addr()
    );
    let _ = out.flush();
    server.wait();
    Ok(ExitCode::SUCCESS)
}

fn token(named: Option<&str>) -> Result<String, String> {
    let name = named.unwrap_or("RUNTIME_TRACKING_AUDIT_TOKEN");
    match std::env::var(name) {
        Ok(token) if !token.is_empty() => Ok(token),
        Err(std::env::VarError::NotUnicode(_)) => Err(format!("{name} is not UTF-8")),
        _ if named.is_some() => Err(format!("--token-env: {name} is not set, or empty")),
        _ => Ok(String::new()),
    }
}

fn verify(db: &Path) -> Done {
    let verified = Reader::open(db)?.verify()?;
    let mut out = std::io::stdout();
    for instance in &verified.instances {
        let held = format!("{} events in {} batches hold", instance.events, instance.batches);
        match &instance.problem {
            None => writeln!(out, "{}: {held}, head {}", instance.instance, instance.head)?,
            Some(problem) => writeln!(
                out,
                "{}: BROKEN: {}; before it {held}",
                instance.instance,
                shown(problem)
            )?,
        }
    }
    if let Some(problem) = &verified.problem {
        writeln!(out, "BROKEN: {}", shown(problem))?;
    }
    if verified.instances.is_empty() {
        writeln!(out, "no evidence yet")?;
    }
    Ok(if verified.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(BROKEN)
    })
}

fn shown(problem: &Problem) -> String {
    match &problem.event_id {
        Some(event) => format!("event {event}: {}", problem.what),
        None => problem.what.to_owned(),
    }
}
