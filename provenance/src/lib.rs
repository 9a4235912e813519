//! Verifiable records of what a service did with personal data.

#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;
#[cfg(feature = "runtime")]
mod config;
#[cfg(feature = "runtime")]
mod detect;
mod error;
#[cfg(feature = "runtime")]
mod hooks;
#[cfg(feature = "runtime")]
mod host;
#[cfg(feature = "runtime")]
mod integrations;
#[cfg(feature = "runtime")]
pub mod inventory;
#[cfg(feature = "runtime")]
mod key;
#[cfg(not(feature = "runtime"))]
mod noop;
#[cfg(feature = "runtime")]
mod policy;
#[doc(hidden)]
pub mod probe;
#[cfg(feature = "runtime")]
mod recorder;
#[cfg(feature = "runtime")]
mod registry;
#[cfg(feature = "runtime")]
mod scope;
mod site;
#[cfg(feature = "runtime")]
pub mod store;
mod tracked;
#[cfg(feature = "runtime")]
mod tracker;
#[cfg(feature = "runtime")]
mod vocabulary;

pub use error::Error;
pub use provenance_macros::{Tracked, derived, egress, provenance_input, tracked_model};
pub use tracked::{Sink, Tracked, Value, Visitor};

#[cfg(feature = "runtime")]
pub use {
    config::Config,
    host::{EventBuilder, Guard, flush, init, init_with, link_owner, record_event, set_owner, tag, test, tracker},
    scope::{Scope, ScopeGuard, Scoped, scoped},
    tracker::Tracker,
    vocabulary::{EventType, Fingerprint, Kind, Outcome, Owner, Tag, Timestamp},
};

#[cfg(not(feature = "runtime"))]
pub use noop::{Guard, Scope, ScopeGuard, init, link_owner, scoped, set_owner};

#[cfg(feature = "axum")]
pub use integrations::axum;
#[cfg(feature = "diesel")]
pub use integrations::diesel;
