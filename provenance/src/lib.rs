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
//! | `ureq` | yes | hooks on ureq 3 calls, and a middleware for agents; [checkpoints](checkpoint) by `POST` |
//! | `yaml` | yes | configuration in YAML (JSON and TOML are always read) |
//! | `axum` | | a [layer](axum) and extractors for axum 0.8 |
//! | `reqwest` | | hooks on reqwest 0.13 calls, async and blocking, and a middleware for reqwest-middleware |
//! | `sql-fallback` | | writes that go around a model, and deletes, read from the SQL text; models of the config's `tracked_models` |
//! | `sqlite-probe` | | row counts and transaction ends as SQLite itself reports them, for the whole process |
//! | `postgres` | | `COPY` of tracked models into PostgreSQL |
//! | `postgres-store` | | evidence of many instances in one PostgreSQL: `storage_path: postgres://..`; links libpq |
//! | `tracing` | | each event also as a `tracing` event, in the current span: target `provenance`, level info, names and counts alone |
//! | `opentelemetry` | | trace ids from the current context of opentelemetry 0.33, as tracing-opentelemetry 0.34 sets it; where its activation is switched off, from `traceparent` |
//!
//! A `tracing` event carries the id of ours only where that was waited for: of shares, with
//! `egress.durability: before_send`.
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
//! files. [`EventBuilder::submit_durable`] and [`EventBuilder::submit_durable_async`] return once it is on disk. At the end
//! of the process: [`flush`](flush()), [`flush_on_sigterm`], [`flush_on_panic`].
//!
//! # Requests and tasks
//!
//! The [`Scope`] of a request is what its events have in common. axum's layer makes one, a function under
//! `#[provenance_input]` makes one where there is none, and [`Scope::new`] makes one by hand. It is in hand
//! while the request's own future is polled, never in another task:
//!
//! | the work goes on in | the scope |
//! |---|---|
//! | `.await`, `join!`, `select!`, `block_in_place`, `async_trait` methods | is there |
//! | `tokio::spawn` | by [`scoped`]`(future)` |
//! | `spawn_blocking`, `std::thread::spawn`, `rayon::spawn` | by [`in_scope`]`(closure)` |
//! | rayon's iterators | [`Scope::current`] outside, [`Scope::enter`] inside the closure |
//! | a task made before the scope, a middleware | by [`Scope::run`] |
//!
//! `#[provenance_input]` stands on the handlers of any framework: an argument written `Form<_>`, `Json<_>`,
//! `Query<_>`, `Path<_>` and the like is read through whatever it dereferences to, in `Option` and `Result`
//! too. actix-web 4, Rocket 0.5 and tiny_http are tested. A scope for each request of actix-web:
//!
//! ```ignore
//! async fn in_scope(
//!     request: ServiceRequest,
//!     next: Next<impl MessageBody>,
//! ) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
//!     // The template, never the path: that has values in it.
//!     let route = request.match_pattern().unwrap_or_else(|| "(no route)".into());
//!     let scope = provenance::Scope::new(format!("HTTP {} {route}", request.method()));
//!     scope.run(next.call(request)).await
//! }
//! // App::new().wrap(actix_web::middleware::from_fn(in_scope))
//! ```
//!
//! Rocket's attribute goes above ours (`#[post("/signup", data = "<form>")] #[provenance_input]`); its handlers
//! make their own scopes. With tiny_http, `let _scope = Scope::new("HTTP POST /signup").enter();` stands before
//! the call.
//!
//! # Limits
//!
//! It records what its hooks see: no event does not mean that nothing happened. What can be noticed and not
//! read is counted as a blind spot on `/status`. The pages of each integration and attribute say more.
//!
//! **Diesel** ([`diesel`])
//! - Writes around a model (`.set(..)`, raw SQL) and deletes are seen with the feature `sql-fallback` alone, but for
//!   computed values, which are counted, and for what the database does by itself (triggers, cascades).
//! - What the database does not tell Diesel (an UPDATE that met no row, a lost `DO NOTHING`) is recorded with
//!   `certain: false` and the reason; `sqlite-probe` closes nearly all of SQLite's gaps.
//! - SQLite and PostgreSQL are tested. MySQL goes through the same hooks, and is not.
//!
//! **HTTP out** ([`egress`], [`ureq`], [`reqwest`])
//! - Calls are seen in the own body of an `#[egress]` function, and on clients that carry [`ureq::middleware`] or
//!   [`reqwest::middleware`]; nowhere else. `cargo provenance check` lists calls that stand outside.
//! - Headers that a client adds by itself (its own cookies, `default_headers`) are not seen, nor are the readers that
//!   blocking reqwest sends.
//! - A body longer than `egress.read_ahead` that is neither in memory nor in a file is scanned as it passes:
//!   its findings follow with the outcome, and a block cuts it off, unless `egress.streams: refuse` sends none of it.
//!   There a value of more than 4 KiB may be missed, and names of fields are not kept.
//! - Redirects of ureq are recorded after they were made and cannot be blocked; those of reqwest can, hop by hop, with
//!   [`reqwest::redirect_policy`].
//!
//! **HTTP in** ([`axum`], [`provenance_input`])
//! - Extractors that can be neither visited nor serialised are named at start and on `/status`. Lists of pairs
//!   (`Form<Vec<(String, String)>>`) have no names that could be read.
//! - Files in multipart bodies are counted, not read; what lies beyond a cap is counted.
//! - What a handler reads of a body after its scope has ended (in a task that was not [`scoped`]) is recorded at the
//!   request's next event, or its end.
//!
//! **Detection**
//! - It finds registered values in the forms that the README lists; a value registered after it left is not found
//!   retroactively. Short and low-entropy values need context.
//! - Bodies under `gzip`, `deflate`, `br` and `zstd` are scanned decoded; encrypted ones, and those under other encodings, are counted.
//! - Fingerprints are pseudonyms, not anonymous: low-entropy values can be guessed by who holds the key.

// A verb without the integrations that call it is not dead, just not asked for in this build.
#![cfg_attr(
    not(all(feature = "axum", feature = "diesel", feature = "reqwest", feature = "ureq")),
    allow(dead_code, unused_imports)
)]

#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;
mod allow;
#[cfg(feature = "runtime")]
pub mod checkpoint;
#[cfg(feature = "sql-fallback")]
mod columns;
#[cfg(feature = "runtime")]
pub mod config;
#[cfg(feature = "runtime")]
mod continued;
#[cfg(feature = "runtime")]
mod deferred;
#[cfg(feature = "runtime")]
mod detect;
#[cfg(feature = "runtime")]
mod erased;
mod error;
#[cfg(feature = "runtime")]
mod exits;
#[cfg(feature = "runtime")]
mod fleet;
#[cfg(all(fuzzing, feature = "runtime"))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "runtime")]
mod hex;
#[cfg(feature = "runtime")]
mod hooks;
#[cfg(feature = "runtime")]
mod host;
#[cfg(feature = "runtime")]
mod integrations;
pub mod inventory;
#[cfg(feature = "runtime")]
mod keeper;
#[cfg(feature = "runtime")]
mod key;
#[cfg(feature = "runtime")]
mod memo;
#[cfg(not(feature = "runtime"))]
mod noop;
#[cfg(feature = "runtime")]
mod policy;
#[doc(hidden)]
pub mod probe;
#[cfg(feature = "runtime")]
mod pseudonyms;
#[cfg(feature = "runtime")]
mod recorder;
#[cfg(feature = "runtime")]
mod registry;
#[cfg(feature = "runtime")]
mod repeats;
mod rewrite;
#[cfg(feature = "runtime")]
mod scope;
mod site;
#[cfg(feature = "runtime")]
mod spill;
#[cfg(feature = "runtime")]
pub mod store;
#[cfg(feature = "runtime")]
mod telemetry;
#[cfg(feature = "runtime")]
mod ticket;
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
    exits::{flush_on_panic, flush_on_sigterm},
    hooks::egress::Blocked,
    host::{EventBuilder, Guard, flush, init, init_with, link_owner, record_event, set_owner, tag, test, tracker},
    integrations::share::{Share, ShareBuilder, share},
    inventory::inventory,
    pseudonyms::Pseudonyms,
    scope::{Scope, ScopeGuard, Scoped, in_scope, scoped},
    tracker::{Erasure, Pruned, ToBeTold, Tracker},
    vocabulary::{EventType, Fingerprint, Kind, Outcome, Owner, Tag, Timestamp},
};

#[cfg(not(feature = "runtime"))]
pub use noop::{
    Guard, Scope, ScopeGuard, flush_on_panic, flush_on_sigterm, in_scope, init, link_owner, scoped, set_owner,
};

#[cfg(feature = "axum")]
pub use integrations::axum;
#[cfg(feature = "diesel")]
pub use integrations::diesel;
#[cfg(feature = "reqwest")]
pub use integrations::reqwest;
#[cfg(feature = "ureq")]
pub use integrations::ureq;
