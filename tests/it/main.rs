//! One binary, a module a part: what a user of the crates sees.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod accuracy;
mod audit_api;
mod audit_pages;
mod axum_layer;
mod budget_tracker;
mod checkpoints;
mod commands;
mod config;
mod contexts;
mod derived;
mod diesel;
mod egress;
mod erasure;
mod features;
mod fleet;
mod format;
mod hostile;
mod input;
mod inventory;
mod lock;
mod lost;
mod matrix;
mod other_frameworks;
mod quickstart;
mod recorder;
mod reqwest;
mod restart;
mod sql_fallback;
mod tracing;
