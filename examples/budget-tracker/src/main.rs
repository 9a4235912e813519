//! A budget tracker that keeps account of what it does with people's data.

mod app;
mod auth;
mod input;
mod models;
mod partners;
mod schema;
mod stub;

fn main() {}
