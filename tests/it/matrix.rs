//! What Diesel's operations leave in the database, and what the evidence says of it.

mod server;
