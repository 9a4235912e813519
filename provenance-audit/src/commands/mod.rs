//! Commands that change the evidence. The binary is their front.

pub mod erase;
pub mod prune;
