//! The attributes of the `provenance` crate; use them through it.
//!
//! Each attribute goes the same way: `attr` parses its keys, `model` and `entry` read the
//! item, `check` finds what is wrong, `expand` writes the code, and `fallback` writes what is
//! needed instead when something is wrong, so that the user sees every mistake and no
//! follow-on errors. Generated code is small and calls `provenance::__private`.

use proc_macro::TokenStream;

mod attr;
mod check;
mod ctxt;
mod entry;
mod expand;
mod extractor;
mod fallback;
mod function;
mod model;
mod symbol;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_model;

use ctxt::funnel;

/// Hooks on a Diesel model: every committed insert and update, every load.
///
/// Stands above `#[derive(Insertable)]` and its like, whose place it takes; the SQL stays the
/// same to the byte. The struct is [`Tracked`](macro@Tracked) too.
///
/// ```
/// use diesel::prelude::*;
/// use provenance::tracked_model;
///
/// diesel::table! { users (id) { id -> Integer, email -> Text, income -> Double, plan -> Text } }
///
/// #[tracked_model(owner(email), purpose = "contract")]
/// #[derive(Insertable)]
/// #[diesel(table_name = users)]
/// struct NewUser<'a> {
///     #[tracked("contact.email")]
///     email: &'a str,
///     #[tracked("financial.income", description = "Monthly income")]
///     income: f64,
///     plan: &'a str, // not tracked
/// }
///
/// fn sign_up(db: &mut SqliteConnection, user: &NewUser<'_>) -> QueryResult<usize> {
///     diesel::insert_into(users::table).values(user).execute(db)
/// }
/// ```
///
/// | key | value | meaning |
/// |---|---|---|
/// | `owner(..)` | fields, each alone or `field as "kind"` | whose the record is, see [`Tracked`](macro@Tracked); a field `id` is of the kind that the table names, `users` of `user` |
/// | `table` | path | the table, where `#[diesel(table_name = ..)]` does not say it |
/// | `purpose`, `basis`, `data_use`, `subject` | text | why, on every event: in your words; the legal basis; a fideslang data use; the kind of data subject |
/// | `name` | text | the name to record instead of the struct's |
/// | `crate` | path | where the `provenance` crate is, for re-exports |
///
/// The keys of `#[tracked(..)]` on a field stand at [`Tracked`](macro@Tracked).
///
/// A write is recorded once the database has it; one that failed, was rolled back or never ran
/// leaves nothing, and what Diesel does not tell is marked `certain: false`, with the reason.
/// `#[diesel(..)]` attributes mean what they mean to Diesel; of a `serialize_as` field, the value
/// before the conversion is tracked. Every other derive stays as it is: `HasQuery` has
/// no hook.
#[proc_macro_attribute]
pub fn tracked_model(args: TokenStream, item: TokenStream) -> TokenStream {
    funnel(|cx| expand::model::attribute(cx, args.into(), item.into())).into()
}

/// The part of `#[tracked_model]` that sees the struct after `#[cfg]`; added by it.
#[doc(hidden)]
#[proc_macro_derive(TrackedModel, attributes(tracked, diesel, tracked_model_args))]
pub fn derive_tracked_model(item: TokenStream) -> TokenStream {
    funnel(|cx| expand::model::derive(cx, item.into())).into()
}

/// Makes the tracked fields of a struct or enum visible to the hooks.
///
/// ```
/// use provenance::Tracked;
///
/// #[derive(Tracked)]
/// #[tracked(owner(email, id as "user"))]
/// struct Signup<'a> {
///     id: i64,
///     #[tracked("contact.email", description = "Where we write")]
///     email: &'a str,
///     #[tracked("financial.income", kind = "number")]
///     income: Option<f64>,
///     address: Address,        // visited for what is tracked inside
///     #[tracked(skip)]
///     cache: Vec<u8>,          // not visited
/// }
///
/// #[derive(Tracked)]
/// struct Address {
///     #[tracked("contact.address.street")]
///     street: String,
/// }
/// ```
///
/// A tracked field's type is read through `Tracked`, else `Display` (in `Option`, `Result` and
/// lists too), else `Serialize`; a type that has none of them is a compile error. A field
/// without `#[tracked]` may be of any type. Type parameters of visited fields get the bound
/// `Tracked`. A type whose `Display` hides its value (`[redacted]`) needs a `Tracked` of its own.
///
/// `#[tracked(..)]` on a field:
///
/// | key | value | meaning |
/// |---|---|---|
/// | (first) | `"contact.email"` | the category: two or more dotted words of `a-z`, `0-9`, `_`; a fideslang key, with or without `user.`, or your own below `x.` |
/// | `description` | text | what it is, in your words |
/// | `kind` | `"text"`, `"email"`, `"phone"`, `"number"`, `"date"`, `"id"` | how values are compared; default by category |
/// | `pii` | bool | whether it is personal data; default `true` |
/// | `secret` | bool | keeps neither fingerprint nor length; default by category and name |
/// | `skip` | | leaves the field out |
///
/// `#[tracked(..)]` on the type:
///
/// | key | value | meaning |
/// |---|---|---|
/// | `owner(..)` | fields, each alone or `field as "kind"` | whose the record is. Without `as`, a tracked field's kind is the last word of its category (`contact.email`: `email`), that of `user_id` is `user`, that of any other field its name |
/// | `purpose`, `basis`, `data_use`, `subject` | text | why: in your words; the legal basis; a fideslang data use; the kind of data subject |
/// | `name` | text | the name to record instead of the type's |
/// | `crate` | path | where the `provenance` crate is, for re-exports |
///
/// Without the derive (or `#[tracked_model]`) the compiler says `cannot find attribute
/// `tracked` in this scope`: add `#[derive(Tracked)]` to the type.
#[proc_macro_derive(Tracked, attributes(tracked))]
pub fn derive_tracked(item: TokenStream) -> TokenStream {
    funnel(|cx| expand::tracked::derive(cx, item.into())).into()
}

/// Records what comes in through a function's arguments.
///
/// On sync and async functions and methods; signature, return type and errors stay as they
/// are. Arguments are looked at by reference, before the body runs.
///
/// ```
/// use provenance::{Tracked, provenance_input};
///
/// #[derive(Tracked)]
/// #[tracked(owner(email))]
/// struct Signup {
///     #[tracked("contact.email")]
///     email: String,
/// }
///
/// struct Form<T>(T);
/// # impl<T: Tracked> Tracked for Form<T> {
/// #     fn visit(&self, visitor: &mut provenance::Visitor<'_>) { self.0.visit(visitor) }
/// # }
///
/// #[provenance_input(purpose = "signup", basis = "contract")]
/// async fn signup(Form(form): Form<Signup>) -> Result<String, std::fmt::Error> {
///     Ok(format!("welcome, {}", form.email))
/// }
/// ```
///
/// An argument is read through `Tracked` (axum's `Form`, `Json`, `Query` and `Path` included,
/// and `Option` and `Result` of them), else through `Serialize`, where names that the
/// configuration knows in `input_fields` are taken. An extractor of something that has neither
/// is counted as a blind spot, on ELF platforms at start, elsewhere once it is called; other types (`State`,
/// `&Agent`) are passed over, and so is an extractor behind an alias or of an unknown name, unless it is
/// `Tracked` or `Serialize` itself. A plain argument is known by its own name.
///
/// | key | value | meaning |
/// |---|---|---|
/// | `purpose`, `basis`, `data_use`, `subject` | text | why, on every event: in your words; the legal basis; a fideslang data use; the kind of data subject |
/// | `name` | text | the name to record instead of the function's: `"Client::signup"` for a method, whose type an attribute cannot see |
/// | `crate` | path | where the `provenance` crate is, for re-exports |
///
/// Under `#[async_trait]`, which makes a function that returns `Pin<Box<dyn Future>>` of an
/// `async fn`, the scope follows the future. It does not where an alias hides that type
/// (`BoxFuture`): there it ends when the future is returned.
#[proc_macro_attribute]
pub fn provenance_input(args: TokenStream, item: TokenStream) -> TokenStream {
    funnel(|cx| expand::input::attribute(cx, args.into(), item.into())).into()
}

/// Records what a function sends, and to whom, before the bytes leave.
///
/// ```
/// use provenance::{Tracked, egress};
///
/// #[derive(Tracked, serde::Serialize)]
/// struct Subscriber<'a> {
///     #[tracked("contact.email")]
///     email: &'a str,
/// }
///
/// #[egress(recipient = "mailchimp", purpose = "newsletter", allow("contact.email"))]
/// fn subscribe(agent: &ureq::Agent, #[payload] subscriber: &Subscriber<'_>) -> Result<(), ureq::Error> {
///     agent.post("https://api.mailchimp.com/3.0/lists/main/members").send_json(subscriber)?;
///     Ok(())
/// }
/// ```
///
/// | key | value | meaning |
/// |---|---|---|
/// | `recipient` | text | who receives it, as the configuration names it; default by host |
/// | `allow(..)` | categories | what may leave here; default: no limit |
/// | `purpose`, `basis`, `data_use`, `subject` | text | why, on every event: in your words; the legal basis; a fideslang data use; the kind of data subject |
/// | `name` | text | the name to record instead of the function's: `"Client::send"` for a method |
/// | `crate` | path | where the `provenance` crate is, for re-exports |
///
/// `#[payload]` on an argument says that it is sent, for transports other than HTTP clients. It is recorded
/// before the function runs, but for the first run of a function whose transport has a method named as a
/// client's (`mailer.send(..)`): that one is recorded afterwards (`evidence: after`).
///
/// What is seen are method calls in the function's own body: not those made by fully qualified path, inside
/// `macro_rules!`, through a request builder stored in a temporary's field, or on one that a closure or `async`
/// block takes from outside (without `move`, or bound by a `let`). A function that returns without a call is a
/// blind spot, unless its body has calls that could be sends and none of them was reached: then it returned early,
/// or sends through a helper there.
///
/// With `allow(..)`, a `#[payload]` whose type declares a field of another category does not build:
///
/// ```text
/// error[E0080]: evaluation panicked: egress policy: `subscribe` sends `Subscriber`, which carries `note` (health.note): ..
/// ```
///
/// The types that the argument mentions are asked, and those that their fields mention; of generic
/// functions and methods, the types that they are used with (so `cargo build` tells, `cargo check` does
/// not). Trait objects, maps and JSON hide their fields: those are judged when they are sent, by what is
/// found in them.
#[proc_macro_attribute]
pub fn egress(args: TokenStream, item: TokenStream) -> TokenStream {
    funnel(|cx| expand::egress::attribute(cx, args.into(), item.into())).into()
}

/// Records a function's result as derived from its arguments.
///
/// On sync and async functions and methods. The result is registered under the category, so
/// it is recognised when it leaves; the arguments that are registered values are its inputs.
/// Of a `Result` or an `Option`, `Ok` and `Some` count.
///
/// ```
/// use provenance::derived;
///
/// #[derived("score.credit", description = "Credit score", kind = "number")]
/// fn score(birthday: &str, income: f64) -> Result<u32, std::num::ParseIntError> {
///     let year: u32 = birthday.get(..4).unwrap_or_default().parse()?;
///     Ok((2030 - year) * 10 + (income / 1000.0) as u32)
/// }
/// # assert_eq!(score("1990-01-31", 4200.0), Ok(404));
/// ```
///
/// | key | value | meaning |
/// |---|---|---|
/// | (first) | `"score.credit"` | the category of the result |
/// | `description` | text | what it is, in your words |
/// | `kind` | `"text"`, `"email"`, `"phone"`, `"number"`, `"date"`, `"id"` | how values are compared; default by category |
/// | `pii` | bool | whether it is personal data; default `true` |
/// | `secret` | bool | keeps neither fingerprint nor length; default by category and name |
/// | `purpose`, `basis`, `data_use`, `subject` | text | why, on every event: in your words; the legal basis; a fideslang data use; the kind of data subject |
/// | `name` | text | the name to record instead of the function's: `"Service::score"` for a method |
/// | `crate` | path | where the `provenance` crate is, for re-exports |
#[proc_macro_attribute]
pub fn derived(args: TokenStream, item: TokenStream) -> TokenStream {
    funnel(|cx| expand::derived::attribute(cx, args.into(), item.into())).into()
}
