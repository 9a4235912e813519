//! The code that each attribute becomes.

pub(crate) mod derived;
pub(crate) mod egress;
pub(crate) mod input;
pub(crate) mod model;
pub(crate) mod tracked;
