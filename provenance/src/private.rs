//! What generated code calls. Not public API: it changes without notice.

pub use crate::site::{Column, DerivedSite, EgressSite, InputSite, ModelSite, Site, Terms};
pub use crate::tracked::{Field, Sink, Tracked, Value, Visitor};

pub use crate::probe;

pub use provenance_macros::TrackedModel;

#[cfg(feature = "runtime")]
pub use crate::hooks::{derived, egress, input};
#[cfg(not(feature = "runtime"))]
pub use crate::noop::{derived, egress, input};

#[cfg(feature = "diesel")]
pub use crate::integrations::diesel::bind as diesel;
