//! One library each, onto the verbs.

#[cfg(feature = "axum")]
pub mod axum;
#[cfg(feature = "diesel")]
pub mod diesel;
#[cfg(feature = "ureq")]
pub mod ureq;
