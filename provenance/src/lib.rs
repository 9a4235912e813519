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
//! | `axum` | | a [layer](axum) and extractors for axum 0.8 |
//! | `reqwest` | | hooks on reqwest 0.13 calls, async and blocking, and a middleware for reqwest-middleware |
//! | `sql-fallback` | | writes that go around a model, and deletes, read from the SQL text; models of the config's `tracked_models` |
//! | `sqlite-probe` | | row counts and transaction ends as SQLite itself reports them, for the whole process |
//! | `postgres` | | `COPY` of tracked models into PostgreSQL |
//! | `tracing` | | each event also as a `tracing` event, in the current span: target `provenance`, level info, names and counts alone |
//! | `opentelemetry` | | trace ids from the current context of opentelemetry 0.33, as tracing-opentelemetry 0.34 sets it |
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
//! files.
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
//! - It records what its hooks see. Writes that go around an annotated struct (`.set(..)`, raw SQL) and deletes
//!   are seen with the feature `sql-fallback`, but for what the SQL text does not tell (computed values), which is
//!   counted, and for what the database does by itself (triggers, cascades). Without the feature they are not seen, as
//!   calls outside `#[egress]` on clients without [`ureq::middleware`] or [`reqwest::middleware`], and helper functions without
//!   the attribute are not seen. What can be counted is counted as a blind spot on `/status`.
//! - Call rewriting sees method calls in the function's own body: not calls made by fully
//!   qualified path, inside `macro_rules!`, through a request builder stored in a temporary's field, or on one that a
//!   closure or `async` block takes from outside (without `move`, or bound by a `let`).
//! - An extractor behind an alias, or of a name that the attribute does not know, is read only if it is `Tracked`
//!   or `Serialize` itself. Extractors that cannot be visited are named on one line at start and on `/status`
//!   (on ELF platforms; elsewhere, and where they hold a parameter of the `impl` around them, once they are called).
//!   A list of pairs (`Form<Vec<(String, String)>>`) has no names that the attribute could read.
//! - Files in multipart bodies are counted, not read. What a handler reads of a body after its scope has ended
//!   (in a task that was not [`scoped`]) is recorded at the request's next event, or its end.
//! - A `tracing` event has the id of ours only where that was waited for: of shares, with
//!   `egress.durability: before_send`. With OpenTelemetry's context activation switched off, trace ids come from
//!   `traceparent`.
//! - Of reqwest: the free functions `reqwest::get` and `reqwest::blocking::get`, headers that a client adds by itself
//!   (`default_headers`, cookies), and readers given to a blocking client, its multipart forms among them. Redirects
//!   are recorded hop by hop with [`reqwest::redirect_policy`]; without it, the last host is, once it has answered.
//! - Detection finds registered values in the forms listed in the README. Bodies under `gzip` and `deflate`
//!   are scanned decoded, in memory up to `egress.read_ahead`; encrypted ones, and those under other
//!   encodings, are counted.
//! - A body longer than `egress.read_ahead` that is neither in memory nor in a file is scanned as it passes, in
//!   windows: its findings follow with the outcome, a value of more than 4 KiB may be missed on a border,
//!   and the names of its fields are not kept. Where a violation blocks, it is cut off at the first one,
//!   after what came before has left; `egress.streams: refuse` sends none of it.
//! - ureq follows redirects by itself and tells afterwards: hops are recorded after they were made, and
//!   cannot be blocked. Over `https` it tells the last host alone, unless the agent has
//!   `save_redirect_history(true)`; of redirects that end in an error, nothing. What it does not tell is
//!   counted as `unseen_redirect`, where its error says that there was a redirect. It never sends a body twice.
//! - An `#[egress]` function that returns without a call is a blind spot, unless its body has calls that
//!   could be sends and none of them was reached: then it returned early, or sends through a helper there.
//! - A `#[payload]` is recorded before the function runs where its body has no call that could be a client's.
//!   Where such a call turns out to be another transport's (`mailer.send(..)`), the first run of the function
//!   records it afterwards (`evidence: after`), every later one before.
//! - Fingerprints are pseudonyms, not anonymous; low-entropy values can be guessed by who holds the key.
//! - What a database does not tell Diesel (an UPDATE that met no row, `DO NOTHING`, a failed `RETURNING` of
//!   SQLite's or diesel-async's) is recorded with `certain: false` and the reason; `sqlite-probe` closes
//!   SQLite's gaps. SQLite and PostgreSQL are tested; MySQL goes through the same hooks, and is not.

// A verb without the integrations that call it is not dead, just not asked for in this build.
#![cfg_attr(
    not(all(feature = "axum", feature = "diesel", feature = "reqwest", feature = "ureq")),
    allow(dead_code, unused_imports)
)]

#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;
mod allow;
#[cfg(feature = "sql-fallback")]
mod columns;
#[cfg(feature = "runtime")]
pub mod config;
#[cfg(feature = "runtime")]
mod deferred;
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
#[cfg(feature = "runtime")]
mod memo;
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
#[cfg(feature = "runtime")]
mod repeats;
mod rewrite;
#[cfg(feature = "runtime")]
mod scope;
mod site;
#[cfg(feature = "runtime")]
pub mod store;
#[cfg(feature = "runtime")]
mod telemetry;
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
    scope::{Scope, ScopeGuard, Scoped, in_scope, scoped},
    tracker::Tracker,
    vocabulary::{EventType, Fingerprint, Kind, Outcome, Owner, Tag, Timestamp},
};

#[cfg(not(feature = "runtime"))]
pub use noop::{Guard, Scope, ScopeGuard, in_scope, init, link_owner, scoped, set_owner};

#[cfg(feature = "axum")]
pub use integrations::axum;
#[cfg(feature = "diesel")]
pub use integrations::diesel;
#[cfg(feature = "reqwest")]
pub use integrations::reqwest;
#[cfg(feature = "ureq")]
pub use integrations::ureq;
