//! Commitments, leaves and the batch chain.
