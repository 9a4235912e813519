//! A budget tracker that keeps a record of what it does with people's data.

mod app;
mod auth;
mod demo;
mod input;
mod models;
mod partners;
mod schema;
mod stub;

use std::collections::BTreeMap;
use std::fs;
use std::future::IntoFuture;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use provenance::config::{Config, Recipient, Storage};

use crate::app::App;

/// A budget tracker that keeps a record of what it does with people's data.
#[derive(Parser)]
struct Args {
    /// Where the application listens; port 0 takes any free one
    #[arg(long, default_value = "127.0.0.1:8080")]
    addr: SocketAddr,
    /// Where the audit API listens; port 0 takes any free one
    #[arg(long, default_value = "127.0.0.1:8081")]
    audit_addr: SocketAddr,
    /// Where app.db and evidence/ are kept [default: a temporary folder, removed at exit]
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Base URL of the partners, http only [default: a stub of its own on loopback]
    #[arg(long, value_parser = partner_url)]
    partner_url: Option<String>,
    /// Only serve
    #[arg(long)]
    no_demo: bool,
    /// Leave after the demo instead of serving on
    #[arg(long, conflicts_with = "no_demo")]
    exit_after_demo: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("budget-tracker: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<()> {
    // Taken first: a second copy must not touch the first one's data.
    let listener = TcpListener::bind(args.addr).with_context(|| {
        format!(
            "cannot listen on {}: choose another with --addr (port 0 takes any free one)",
            args.addr
        )
    })?;
    // Dropped last: a temporary folder is removed when nothing writes to it any more.
    let data = DataDir::open(args.data_dir.as_deref())?;
    // Before the first database connection; dropping it flushes the evidence.
    let provenance = provenance::init_with(evidence_config(data.path())?)?;
    let audit = match provenance.tracker() {
        Some(tracker) => Some(Audit {
            token: tracker.config().audit_token.0.clone(),
            server: provenance_audit::spawn(args.audit_addr).context("choose another address with --audit-addr")?,
        }),
        None => None,
    };
    let partner_url = match &args.partner_url {
        Some(url) => url.clone(),
        None => format!("http://{}", stub::start().context("the stub partner cannot start")?),
    };
    let app = App::open(&data.path().join("app.db"), &partner_url)
        .with_context(|| format!("cannot open the database in {}", data.path().display()))?;

    println!("app http://{}", listener.local_addr()?);
    match &audit {
        Some(audit) => println!("audit http://{}", audit.server.addr()),
        None => println!("audit off"),
    }
    println!("partner {partner_url}");
    println!("data {}", data.path().display());
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(serve(args, listener, app, audit.as_ref()))
}

/// The usual configuration and environment, with the evidence beside the application's data.
fn evidence_config(data: &Path) -> Result<Config, provenance::Error> {
    let recipient = |role: &str, country: &str, safeguard: Option<&str>| Recipient {
        role: Some(role.to_owned()),
        country: Some(country.to_owned()),
        safeguard: safeguard.map(str::to_owned),
        ..Recipient::default()
    };
    Ok(Config {
        storage: Storage::Sqlite(data.join("evidence").join("runtime_provenance.db")),
        recipients: BTreeMap::from([
            ("marketing".to_owned(), recipient("processor", "IE", None)),
            ("scoring".to_owned(), recipient("controller", "DE", None)),
            ("ai".to_owned(), recipient("processor", "US", Some("SCC"))),
        ]),
        // Every view of the dashboard computes the same rate: one event a minute says it.
        derivation_interval: std::time::Duration::from_secs(60),
        ..Config::load(None)?
    })
}

/// The audit API of this process.
struct Audit {
    server: provenance_audit::Server,
    token: String,
}

async fn serve(args: &Args, listener: TcpListener, app: App, audit: Option<&Audit>) -> anyhow::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let address = listener.local_addr()?;
    let audit_at = audit.map(|audit| audit.server.addr());
    let token = audit.map(|audit| audit.token.clone()).unwrap_or_default();
    let demo = async {
        if !args.no_demo {
            tokio::task::spawn_blocking(move || demo::run(address, audit_at, &token)).await??;
        }
        if let Some(audit_at) = audit_at {
            println!("\nThe audit pages are at http://{audit_at}/runtime-audit/");
        }
        if !args.exit_after_demo {
            println!("Serving on; Ctrl-C ends.");
            std::future::pending::<()>().await;
        }
        anyhow::Ok(())
    };
    let server = axum::serve(listener, app::router(app)).into_future();
    tokio::select! {
        ended = server => ended.context("the server stopped"),
        interrupted = interrupted() => interrupted.context("no signal can be waited for"),
        told = demo => told,
    }
}

/// Waits for Ctrl-C or a polite kill.
async fn interrupted() -> io::Result<()> {
    #[cfg(unix)]
    {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            interrupt = tokio::signal::ctrl_c() => interrupt,
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}

fn partner_url(url: &str) -> Result<String, String> {
    let has_host = url
        .strip_prefix("http://")
        .is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'));
    if has_host {
        Ok(url.to_owned())
    } else {
        Err("expected a base URL such as http://127.0.0.1:9000".to_owned())
    }
}

/// The folder that all data is kept in.
enum DataDir {
    Given(PathBuf),
    /// Removed when dropped.
    Temporary(tempfile::TempDir),
}

impl DataDir {
    fn open(given: Option<&Path>) -> anyhow::Result<Self> {
        let dir = match given {
            Some(path) => DataDir::Given(path.to_owned()),
            None => DataDir::Temporary(
                tempfile::Builder::new()
                    .prefix("budget-tracker-")
                    .tempdir()
                    .context("no temporary folder")?,
            ),
        };
        let evidence = dir.path().join("evidence");
        fs::create_dir_all(&evidence).with_context(|| format!("cannot create {}", evidence.display()))?;
        Ok(dir)
    }

    fn path(&self) -> &Path {
        match self {
            DataDir::Given(path) => path,
            DataDir::Temporary(dir) => dir.path(),
        }
    }
}
