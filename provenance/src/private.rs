//! What generated code calls. Not public API: it changes without notice.

pub use crate::site::{Column, DerivedSite, EgressSite, InputSite, ModelSite, Site, Terms};
pub use crate::tracked::{Field, Sink, Tracked, Value, Visitor};

pub use crate::probe;

/// `allow(..)` against what `#[payload]` types declare.
pub mod policy {
    pub use crate::allow::{Of, Policy, Undeclared, field_may_leave, value_may_leave};
}

pub use provenance_macros::TrackedModel;

#[cfg(feature = "runtime")]
pub use crate::hooks::{derived, input};
#[cfg(not(feature = "runtime"))]
pub use crate::noop::{derived, input};

/// `#[egress]`.
pub mod egress {
    #[cfg(feature = "runtime")]
    pub use crate::hooks::egress::{Call, Entered, Frame};
    #[cfg(not(feature = "runtime"))]
    pub use crate::noop::egress::{Call, Frame};
    pub use crate::rewrite::{Never, NeverAt, Other, Pick, Same, Wrap};
}

#[cfg(feature = "diesel")]
pub use crate::integrations::diesel::bind as diesel;

/// Calls a closure. The bound makes it one that may give away what it captured.
pub fn once<R>(body: impl FnOnce() -> R) -> R {
    body()
}
