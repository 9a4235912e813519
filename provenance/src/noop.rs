//! What the crate is in a build without `runtime`: the calls that hosts and attributes make,
//! doing nothing. Everything else (configuration, events, stores) needs the runtime.

use std::future::Future;
use std::marker::PhantomData;

use crate::Error;
use crate::tracked::Tracked;

/// Does nothing in a build without the feature `runtime`.
///
/// # Errors
/// None.
pub fn init() -> Result<Guard, Error> {
    Ok(Guard(()))
}

/// Made by [`init`].
#[must_use = "with the feature `runtime`, dropping the guard ends the recording"]
#[derive(Debug)]
pub struct Guard(());

/// Does nothing in a build without the feature `runtime`.
pub fn flush_on_panic() {}

/// Does nothing in a build without the feature `runtime`.
///
/// # Errors
/// None.
pub fn flush_on_sigterm() -> Result<(), Error> {
    Ok(())
}

/// Does nothing in a build without the feature `runtime`.
pub fn set_owner(kind: &str, value: impl Tracked) {
    let _ = (kind, value);
}

/// Does nothing in a build without the feature `runtime`.
pub fn link_owner(a: (&str, impl Tracked), b: (&str, impl Tracked)) {
    let _ = (a, b);
}

/// The future itself, in a build without the feature `runtime`.
pub fn scoped<F: Future>(future: F) -> F {
    future
}

/// The closure itself, in a build without the feature `runtime`.
pub fn in_scope<R>(closure: impl FnOnce() -> R) -> impl FnOnce() -> R {
    closure
}

/// The context of one request: never there in a build without the feature `runtime`.
#[derive(Clone, Debug)]
pub struct Scope(());

impl Scope {
    /// A scope that carries nothing.
    pub fn new(source: impl Into<std::sync::Arc<str>>) -> Self {
        let _ = source;
        Scope(())
    }

    /// `None`.
    pub fn current() -> Option<Self> {
        None
    }

    /// The future itself.
    pub fn run<F: Future>(&self, future: F) -> F {
        future
    }

    /// Does nothing.
    #[must_use = "with the feature `runtime`, the scope ends when the guard is dropped"]
    pub fn enter(&self) -> ScopeGuard {
        ScopeGuard { not_send: PhantomData }
    }
}

/// Made by [`Scope::enter`].
#[derive(Debug)]
pub struct ScopeGuard {
    not_send: PhantomData<*const ()>,
}

/// `#[provenance_input]`.
pub mod input {
    use std::future::Future;

    use crate::site::InputSite;
    use crate::tracked::Visitor;

    /// One call of a function under the attribute.
    pub struct Call;

    impl Call {
        /// Nothing.
        pub fn begin(_: &'static InputSite) -> Self {
            Call
        }

        /// Visits nothing.
        pub fn collect(&self, _: impl FnOnce(&mut Visitor<'_>)) {}

        /// Nothing.
        pub fn enter(&self) {}

        /// The body itself.
        pub fn run<F: Future>(&self, body: F) -> F {
            body
        }
    }
}

/// `#[derived]`.
pub mod derived {
    use crate::site::DerivedSite;
    use crate::tracked::Visitor;

    /// One call of a function under the attribute.
    pub struct Call;

    impl Call {
        /// Nothing.
        pub fn begin(_: &'static DerivedSite) -> Self {
            Call
        }

        /// Visits nothing.
        pub fn inputs(&mut self, _: impl FnOnce(&mut Visitor<'_>)) {}

        /// Visits nothing.
        pub fn result(self, _: impl FnOnce(&mut Visitor<'_>)) {}
    }
}

/// `#[egress]`.
pub(crate) mod egress {
    use crate::site::EgressSite;
    use crate::tracked::Visitor;

    /// One call of a function under the attribute.
    #[derive(Clone)]
    pub struct Frame;

    impl Frame {
        /// Nothing.
        pub fn begin(_: &'static EgressSite, _: bool, _: bool) -> Self {
            Frame
        }

        /// Nothing.
        pub fn current(_: &'static EgressSite) -> Self {
            Frame
        }

        /// Nothing.
        pub fn enter(&self) {}

        pub(crate) fn other(&self, _: bool) {}

        /// Visits nothing.
        pub fn payload(&self, _: impl FnOnce(&mut Visitor<'_>)) {}

        /// Nothing.
        pub fn share(&self) -> Call {
            Call
        }
    }

    /// A share of a function as a whole.
    pub struct Call;

    impl Call {
        /// Nothing.
        pub fn finish(self, _: bool) {}
    }
}
