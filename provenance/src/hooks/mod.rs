//! The four verbs: what came in, what was committed, what was sent, what was derived.

#[cfg(feature = "diesel")]
pub(crate) mod access;
pub mod derived;
pub(crate) mod egress;
pub mod input;
#[cfg(feature = "diesel")]
pub(crate) mod returned;
pub(crate) mod storage;
pub(crate) mod tape;
