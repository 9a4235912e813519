//! Verifiable records of what a service did with personal data: what came in, where it was
//! committed, what was derived from it, who it was sent to, and whose it was.
//!
//! Attributes generate the hooks; [`init`] is the one line that puts them in force. Until then,
//! after its guard is dropped, and with `enabled: false`, every hook is a no-op. Hooks never panic
//! and never change a result.
//!
//! ```no_run
//! use diesel::prelude::*;
//! use provenance::{Tracked, egress, provenance_input, tracked_model};
//!
//! diesel::table! { users (id) { id -> Integer, email -> Text, income -> Double } }
//!
//! #[tracked_model(owner(email))] // every committed INSERT
//! #[derive(Insertable)]
//! #[diesel(table_name = users)]
//! struct NewUser<'a> {
//!     #[tracked("contact.email")]
//!     email: &'a str,
//!     #[tracked("financial.income", description = "Monthly income")]
//!     income: f64,
//! }
//!
//! #[derive(Tracked)]
//! #[tracked(owner(email))]
//! struct Signup {
//!     #[tracked("contact.email")]
//!     email: String,
//!     #[tracked("financial.income")]
//!     income: f64,
//! }
//!
//! #[provenance_input] // every tracked field of every argument
//! fn signup(db: &mut SqliteConnection, form: Signup) -> QueryResult<usize> {
//!     let user = NewUser { email: &form.email, income: form.income };
//!     diesel::insert_into(users::table).values(&user).execute(db)
//! }
//!
//! #[egress(recipient = "mailchimp", purpose = "newsletter", allow("contact.email"))]
//! fn subscribe(email: &str) -> Result<(), ureq::Error> {
//!     // Scanned, recorded on disk, then sent.
//!     ureq::post("https://api.mailchimp.com/3.0/lists/main/members").send_json([email])?;
//!     Ok(())
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let _provenance = provenance::init()?; // dropping the guard flushes
//!     let mut db = SqliteConnection::establish("app.db")?;
//!     signup(&mut db, Signup { email: "ada@example.com".into(), income: 4200.0 })?;
//!     subscribe("ada@example.com")?;
//!     Ok(())
//! }
//! ```
//!
//! # Features
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | (none) | | `Tracked`, the attributes, and hooks that do nothing |
//! | `runtime` | yes | the tracker: registry, detection, recorder, SQLite store |
//! | `bundled` | yes | SQLite compiled in; leave it out to link the system's |
//! | `diesel` | yes | hooks on Diesel models and connections |
//! | `ureq` | yes | hooks on ureq 3 calls, and a middleware for agents |
//! | `yaml` | yes | configuration in YAML (JSON and TOML are always read) |
//! | `axum` | | a layer and extractors for axum 0.8 |
//! | `reqwest` | | hooks on reqwest 0.13 calls, async and blocking, and a middleware for reqwest-middleware |
//! | `sql-fallback` | | writes that go around a model, and deletes, read from the SQL text; models of the config's `tracked_models` |
//! | `sqlite-probe` | | row counts and transaction ends as SQLite itself reports them, for the whole process |
//! | `postgres` | | `COPY` of tracked models into PostgreSQL |
//! | `tracing` | | each event also as a `tracing` event, in the current span |
//! | `opentelemetry` | | trace ids from OpenTelemetry's layer |
//!
//! # Attributes
//!
//! | attribute | on | what it records |
//! |---|---|---|
//! | [`tracked_model`] | a Diesel struct | committed inserts and updates, and what loads bring in |
//! | [`derive(Tracked)`](derive@Tracked) | any struct or enum | nothing by itself: makes its `#[tracked]` fields visible to the other hooks |
//! | [`provenance_input`] | a function | what its arguments bring in |
//! | [`egress`] | a function | what its HTTP calls and `#[payload]` arguments send, and to whom |
//! | [`derived`] | a function | its result, computed from registered values |
//!
//! Keys of `#[tracked("category", ..)]` on a field:
//!
//! | key | value | meaning |
//! |---|---|---|
//! | (first) | `"contact.email"` | the category: a [fideslang](https://ethyca.github.io/fideslang/) key with or without `user.`, or an own one below `x.` |
//! | `description` | text | what it is, in your words |
//! | `kind` | `"text"`, `"email"`, `"phone"`, `"number"`, `"date"`, `"id"` | how values are compared; default by category |
//! | `pii` | bool | whether it is personal data; default `true` |
//! | `secret` | bool | keeps neither fingerprint nor length; default by category and name |
//! | `skip` | | leaves the field out |
//!
//! Keys that every attribute may carry: `purpose`, `basis`, `data_use`, `subject` (texts that events
//! carry), `name` (instead of the item's), `crate = path` (where this crate is). The keys of each
//! attribute stand on its own page.
//!
//! By hand: [`set_owner`], [`link_owner`], [`tag`], [`record_event`], [`share`] for mail, queues and
//! files; [`Scope`] and [`scoped`] carry a request's context into threads and tasks.
//!
//! # Limits
//!
//! - It records what its hooks see. Writes that go around an annotated struct (`.set(..)`, raw SQL) and deletes
//!   are seen with the feature `sql-fallback`, but for what the SQL text does not tell (computed values), which is
//!   counted, and for what the database does by itself (triggers, cascades). Without the feature they are not seen, as
//!   calls outside `#[egress]` on agents without [`ureq::middleware`], and helper functions without
//!   the attribute are not seen. What can be counted is counted as a blind spot on `/status`.
//! - Call rewriting sees method calls in the function's own body: not calls made by fully
//!   qualified path, inside `macro_rules!`, through a request builder stored in a temporary's field, or on one that a
//!   closure or `async` block takes from outside (without `move`, or bound by a `let`).
//! - Detection finds registered values in the forms listed in the README. Encrypted or compressed
//!   bodies, and readers passed as a body, are counted, not scanned.
//! - Fingerprints are pseudonyms, not anonymous; low-entropy values can be guessed by who holds the key.
//! - SQLite's own gaps (failed `RETURNING`, `DO NOTHING`, an UPDATE that met no row) are recorded with
//!   `certain: false` and the reason. PostgreSQL and MySQL connections go through the same generic hooks,
//!   and are not tested yet.

// A verb without the integrations that call it is not dead, just not asked for in this build.
#![cfg_attr(
    not(all(feature = "axum", feature = "diesel", feature = "ureq")),
    allow(dead_code, unused_imports)
)]

#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;
#[cfg(feature = "sql-fallback")]
mod columns;
#[cfg(feature = "runtime")]
pub mod config;
#[cfg(feature = "runtime")]
mod detect;
mod error;
#[cfg(all(fuzzing, feature = "runtime"))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "runtime")]
mod hooks;
#[cfg(feature = "runtime")]
mod host;
#[cfg(feature = "runtime")]
mod integrations;
pub mod inventory;
#[cfg(feature = "runtime")]
mod key;
#[cfg(not(feature = "runtime"))]
mod noop;
#[cfg(feature = "runtime")]
mod policy;
#[doc(hidden)]
pub mod probe;
#[cfg(feature = "runtime")]
mod recorder;
#[cfg(feature = "runtime")]
mod registry;
mod rewrite;
#[cfg(feature = "runtime")]
mod scope;
mod site;
#[cfg(feature = "runtime")]
pub mod store;
mod tracked;
#[cfg(feature = "runtime")]
mod tracker;
#[cfg(feature = "runtime")]
mod vocabulary;

pub use error::Error;
pub use provenance_macros::{Tracked, derived, egress, provenance_input, tracked_model};
pub use tracked::{Sink, Tracked, Value, Visitor};

#[cfg(feature = "runtime")]
pub use {
    config::Config,
    hooks::egress::Blocked,
    host::{EventBuilder, Guard, flush, init, init_with, link_owner, record_event, set_owner, tag, test, tracker},
    integrations::share::{Share, ShareBuilder, share},
    inventory::inventory,
    scope::{Scope, ScopeGuard, Scoped, scoped},
    tracker::Tracker,
    vocabulary::{EventType, Fingerprint, Kind, Outcome, Owner, Tag, Timestamp},
};

#[cfg(not(feature = "runtime"))]
pub use noop::{Guard, Scope, ScopeGuard, init, link_owner, scoped, set_owner};

#[cfg(feature = "axum")]
pub use integrations::axum;
#[cfg(feature = "diesel")]
pub use integrations::diesel;
#[cfg(feature = "ureq")]
pub use integrations::ureq;
