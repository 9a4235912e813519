//! The evidence store: append-only events keyed by instance and seq, hash-chained per instance.

mod batch;
mod chain;
pub(crate) mod erase;
mod index;
mod pack;
mod pages;
mod postings;
mod proof;
mod read;
pub(crate) mod retention;
mod schema;
mod statement;
mod stored;
mod texts;
mod values;
mod verify;
pub(crate) mod write;

pub use read::{
    EventPage, EventQuery, FingerprintPage, FingerprintQuery, Flow, FlowKey, FlowQuery, Reader, StoredEvent,
    StoredFingerprint, Summary,
};
pub use verify::{Problem, Verified, VerifiedInstance};

#[cfg(test)]
mod tests;
