//! The evidence store: append-only events keyed by instance and seq, hash-chained per instance.

mod batch;
mod chain;
mod db;
mod draft;
pub(crate) mod erase;
pub(crate) mod follow;
mod index;
mod lanes;
mod leaves;
mod load;
mod open;
mod pack;
mod pages;
#[cfg(feature = "postgres-store")]
pub(crate) mod postgres;
mod postings;
mod proof;
mod read;
mod record;
pub(crate) mod retention;
mod rows;
mod schema;
mod sha;
mod source;
mod statement;
mod stored;
mod texts;
mod values;
mod verify;
mod watch;
pub(crate) mod write;
mod writer;

pub(crate) use writer::{Writer, check, is_empty};

pub use crate::continued::in_force;

pub use read::{
    EventPage, EventQuery, FingerprintPage, FingerprintQuery, Flow, FlowKey, FlowQuery, Reader, StoredEvent,
    StoredFingerprint, Summary, Version,
};
pub use verify::{Problem, Verified, VerifiedInstance};

/// What is said of a PostgreSQL URL where the feature is off.
#[cfg(not(feature = "postgres-store"))]
pub(crate) fn no_server() -> crate::Error {
    crate::Error::new(
        crate::error::ErrorKind::Config,
        "storage_path: this build writes SQLite files only; give a file path, or build with the feature `postgres-store`",
    )
}

#[cfg(test)]
mod bench;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod tests;
