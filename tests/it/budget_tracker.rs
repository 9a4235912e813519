//! budget_tracker
