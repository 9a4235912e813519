//! The evidence store: append-only events keyed `(instance, seq)`, hash-chained per instance.

mod batch;
mod chain;
mod read;
mod schema;
mod verify;
pub(crate) mod write;

pub use read::{
    EventPage, EventQuery, FingerprintPage, FingerprintQuery, Flow, FlowKey, FlowQuery, Reader, StoredEvent,
    StoredFingerprint, Summary,
};
pub use verify::{Problem, Verified, VerifiedInstance};

#[cfg(test)]
mod tests;
