//! Reads the evidence that [`provenance`] keeps: the audit API, its server, and the commands
//! `provenance-audit` and `cargo provenance`.
//!
//! # Inside a service
//! One line in `main` starts the tracker and serves the audit API on `audit.bind`
//! (default `127.0.0.1:8787`):
//!
//! ```no_run
//! fn main() -> Result<(), provenance_audit::Error> {
//!     let _provenance = provenance_audit::init()?; // dropping it stops the server, then flushes
//!     // ...
//!     Ok(())
//! }
//! ```
//!
//! ```text
//! $ curl 'http://127.0.0.1:8787/runtime-audit/events?limit=10&event_type=DATA_SHARE'
//! ```
//!
//! A service that calls `provenance::init()` itself serves with [`spawn`].
//!
//! # Beside a service, or after it
//! `provenance-audit serve --db runtime_provenance.db` serves the same API from the file.
//!
//! # Who may ask
//! With a token (`audit_token`, or `RUNTIME_TRACKING_AUDIT_TOKEN`), requests bring it as `X-Audit-Token`,
//! as `Authorization: Bearer`, or, to read, as the query parameter `audit_token` (which ends up in logs and
//! histories: `audit: {query_token: false}` switches it off; pages move it into a cookie). People sign in with it at
//! `/runtime-audit/`. Further tokens with names and roles stand in `audit: {tokens: [..]}`. Without any, only loopback
//! addresses are served, and only to requests whose `Host` names them. The server speaks plain HTTP: put TLS in front
//! of it where it leaves the machine (and let that say `X-Forwarded-Proto: https`, so that cookies are `Secure`).
//!
//! Questions about people are recorded in the evidence. Beside a service that takes the key that the service has.
//!
//! The paths and their parameters: [`api`]; what each answer and page says: `docs/audit.md`.
//!
//! # Features
//! | feature | default | gives |
//! |---|---|---|
//! | `server` | yes | [`init`], [`spawn`], [`Server`] |
//! | `cli` | yes | the commands |
//! | `bundled` | yes | SQLite compiled in |
//! | `postgres-store` | | evidence in PostgreSQL |
//! | `axum` | | [`axum::router`]: the same to be mounted in a server of your own |

mod access;
mod answers;
pub mod api;
#[cfg(feature = "cli")]
pub mod artifact;
#[cfg(feature = "cli")]
pub mod call_sites;
#[cfg(feature = "cli")]
pub mod check_report;
#[cfg(feature = "cli")]
pub mod commands;
#[cfg(feature = "cli")]
pub mod declared;
mod erasure;
mod error;
pub mod export;
#[cfg(feature = "cli")]
pub mod inventory_page;
#[cfg(feature = "cli")]
pub mod inventory_report;
#[cfg(feature = "cli")]
pub mod lockfile;
#[cfg(feature = "axum")]
mod mount;
mod openapi;
#[cfg(any(feature = "axum", feature = "server"))]
mod outgoing;
mod pages;
mod params;
mod reply;
#[cfg(feature = "server")]
mod server;
mod sheet;
mod shown;
#[cfg(feature = "cli")]
pub mod workspace;

pub use error::Error;

/// The audit API in an axum server of the host's own.
#[cfg(feature = "axum")]
pub mod axum {
    pub use crate::mount::router;
}
#[cfg(feature = "server")]
pub use {embedded::*, server::Server};

#[cfg(feature = "server")]
mod embedded {
    use std::net::{SocketAddr, ToSocketAddrs};

    use provenance::Tracker;

    use crate::api::{Api, Options, Source};
    use crate::{Error, Server};

    /// Keeps the tracker and the audit server of [`init`] running.
    #[must_use = "dropping the guard stops the tracker and the audit server"]
    pub struct Guard {
        // In this order: the server ends before what it reports on.
        server: Option<Server>,
        _provenance: provenance::Guard,
    }

    impl Guard {
        /// Where the audit API is served; `None` with `enabled: false`.
        pub fn audit_addr(&self) -> Option<SocketAddr> {
            self.server.as_ref().map(Server::addr)
        }
    }

    /// `provenance::init()`, and the audit API on the configured `audit.bind`.
    ///
    /// # Errors
    /// What `provenance::init()` and [`spawn`] return. The tracker does not stay either.
    pub fn init() -> Result<Guard, Error> {
        let guard = provenance::init()?;
        let server = guard
            .tracker()
            .map(|tracker| spawn_for(tracker.clone(), tracker.config().audit_bind))
            .transpose()?;
        Ok(Guard {
            server,
            _provenance: guard,
        })
    }

    /// Serves the audit API of the tracker that `provenance::init()` made; port 0 takes a free one.
    ///
    /// With `enabled: false` there is no tracker, and this is an error: a host that can be switched off calls
    /// it only if `guard.tracker()` is there, or leaves both to [`init`].
    ///
    /// # Errors
    /// [`Error::NotInitialised`], [`Error::Unprotected`], [`Error::Bind`], [`Error::Storage`].
    pub fn spawn(addr: impl ToSocketAddrs + std::fmt::Debug) -> Result<Server, Error> {
        spawn_for(provenance::tracker().ok_or(Error::NotInitialised)?, addr)
    }

    /// Serves the audit API of `tracker`.
    ///
    /// # Errors
    /// As [`spawn`].
    pub fn spawn_for(tracker: Tracker, addr: impl ToSocketAddrs + std::fmt::Debug) -> Result<Server, Error> {
        let options = Options::of(tracker.config());
        Server::start(Api::new(Source::Tracker(tracker), &options)?, addr)
    }
}
