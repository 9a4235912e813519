//! The words of the project, a file a word.

pub(crate) mod canonical;
pub(crate) mod category;
pub(crate) mod event;
pub(crate) mod fingerprint;
pub(crate) mod owner;
pub(crate) mod tag;
pub(crate) mod taxonomy;
pub(crate) mod time;

pub use canonical::Kind;
pub(crate) use event::{Action, Event, EventTag, Late};
pub use event::{EventType, Outcome};
pub use fingerprint::Fingerprint;
pub use owner::Owner;
pub use tag::Tag;
pub use time::Timestamp;
