//! One library each, onto the verbs.

#[cfg(feature = "axum")]
pub mod axum;
#[cfg(feature = "diesel")]
pub mod diesel;
#[cfg(feature = "reqwest")]
pub mod reqwest;
pub(crate) mod share;
#[cfg(feature = "ureq")]
pub mod ureq;
