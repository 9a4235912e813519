//! Why the audit server does not start.

use std::net::SocketAddr;
use std::{fmt, io};

/// Why [`init`](crate::init) or [`spawn`](crate::spawn) failed. No text carries a token or a key.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// `provenance` itself did not start.
    Provenance(provenance::Error),
    /// There is no tracker to report on: `provenance::init()` was not called, or `enabled` is false.
    NotInitialised,
    /// The evidence is not in a SQLite file, which is all that a build without `postgres-store` reads.
    Storage,
    /// The address is open to other machines, and no token protects it.
    Unprotected(SocketAddr),
    /// A router of the host's is open to whoever reaches the host, and no token protects it.
    NoToken,
    /// The address cannot be served on.
    Bind {
        /// As given or configured.
        addr: String,
        /// What the system says.
        source: io::Error,
    },
}

impl From<provenance::Error> for Error {
    fn from(error: provenance::Error) -> Self {
        Error::Provenance(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Provenance(error) => error.fmt(f),
            Error::NotInitialised => f.write_str(
                "there is nothing to audit: call provenance::init() first and keep its guard (with `enabled: false` \
                 there is never anything)",
            ),
            Error::Storage => f.write_str("storage_path: the audit API of this build reads SQLite files only; build it with the feature `postgres-store`"),
            Error::Unprotected(addr) => write!(
                f,
                "the audit API may not listen on {addr}, which other machines can reach, without a token: set \
                 RUNTIME_TRACKING_AUDIT_TOKEN (or audit_token in the configuration), or listen on 127.0.0.1"
            ),
            Error::NoToken => f.write_str(
                "the audit API may not be mounted in a server of the host's without a token: set \
                 RUNTIME_TRACKING_AUDIT_TOKEN (or audit_token, or audit.tokens in the configuration)",
            ),
            Error::Bind { addr, source } => write!(
                f,
                "the audit API cannot listen on {addr}: {source}; choose another address (audit.bind in the \
                 configuration)"
            ),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Provenance(error) => std::error::Error::source(error),
            Error::Bind { source, .. } => Some(source),
            _ => None,
        }
    }
}
