//! What Diesel's derives refuse is refused in the same places.
use diesel::prelude::*;
use provenance::tracked_model;

diesel::table! { users (id) { id -> Integer, email -> Text } }

#[tracked_model]
#[derive(Queryable)]
struct NoTable {
    #[tracked("contact.email")]
    email: String,
}

#[tracked_model(table = people)]
#[derive(Insertable)]
#[diesel(table_name = users)]
struct TwoTables {
    #[tracked("contact.email")]
    email: String,
}

#[tracked_model(table = users)]
#[tracked_model(owner(email))]
#[derive(Insertable)]
struct Twice {
    #[tracked("contact.email")]
    email: String,
}

#[tracked_model(owner(0))]
#[derive(Insertable)]
#[diesel(table_name = users)]
struct Tuple(#[tracked("contact.email")] String);

#[tracked_model]
#[derive(Insertable)]
#[diesel(table_nam = users)]
struct Typos {
    #[diesel(colum_name = email)]
    #[tracked("contact.email")]
    mail: String,
}

#[tracked_model(table = users)]
#[derive(AsChangeset)]
struct KeyOnly {
    id: i32,
}

#[tracked_model(table = users)]
#[derive(Insertable)]
struct NotOptional {
    #[diesel(treat_none_as_default_value = true)]
    #[tracked("contact.email")]
    email: String,
}

fn main() {}
