//! What the hooks are in a build without `runtime`: the same calls, doing nothing.

/// `#[provenance_input]`.
pub mod input {}
/// `#[derived]`.
pub mod derived {}
/// `#[egress]`.
pub mod egress {}
