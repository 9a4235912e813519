//! The evidence store: append-only events keyed by instance and seq, hash-chained per instance.

mod batch;
mod chain;
mod index;
mod pack;
mod pages;
mod postings;
mod proof;
mod read;
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
mod bench;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod tests;
