//! A budget tracker that keeps a record of what it does with people's data.

mod app;
mod auth;
mod demo;
mod input;
mod models;
mod partners;
mod schema;
mod stub;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Parser;
use tokio::net::TcpListener;

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

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let data = DataDir::open(args.data_dir.as_deref())?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(serve(&args, data.path()))
}

async fn serve(args: &Args, data: &Path) -> anyhow::Result<()> {
    let partner_url = match &args.partner_url {
        Some(url) => url.clone(),
        None => format!("http://{}", stub::start().context("the stub partner cannot start")?),
    };
    let app = App::open(&data.join("app.db"), &partner_url)
        .with_context(|| format!("cannot open the database in {}", data.display()))?;
    let listener = TcpListener::bind(args.addr).await.with_context(|| {
        format!(
            "cannot listen on {}: choose another with --addr (port 0 takes any free one)",
            args.addr
        )
    })?;
    let address = listener.local_addr()?;
    println!("app http://{address}");
    println!("partner {partner_url}");
    println!("data {}", data.display());

    let stop = {
        let (demo, exit) = (!args.no_demo, args.exit_after_demo);
        async move {
            if demo {
                tokio::task::spawn_blocking(move || demo::run(address, None, "")).await??;
            }
            if !exit {
                println!("\nServing on; Ctrl-C ends.");
                interrupted().await?;
            }
            anyhow::Ok(())
        }
    };
    let server = axum::serve(listener, app::router(app));
    tokio::select! {
        ended = server.into_future() => ended.context("the server stopped"),
        stopped = stop => stopped,
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
