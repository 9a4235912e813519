//! A wrong type is an error at the field, once, and not an overflow at the query.
use diesel::prelude::*;
use provenance::tracked_model;

diesel::table! { users (id) { id -> Integer, email -> Text, income -> Double } }

#[tracked_model(owner(email))]
#[derive(Insertable)]
#[diesel(table_name = users)]
struct NewUser {
    #[tracked("contact.email")]
    email: i32,
    income: String,
    surname: String,
}

struct Opaque;

#[tracked_model(table = users)]
#[derive(Queryable)]
struct Unreadable {
    #[tracked("contact.email")]
    email: Opaque,
}

fn main() {}
