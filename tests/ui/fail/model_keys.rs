use diesel::prelude::*;
use provenance::tracked_model;

diesel::table! {
    users (id) {
        id -> Integer,
        email -> Text,
        plan -> Text,
    }
}

#[tracked_model(ownr(email), tabel = users, purpose = contract, purpose = "contract")]
#[derive(Insertable)]
#[diesel(table_name = users)]
struct Keys<'a> {
    #[tracked]
    email: &'a str,
    #[tracked("plan", knd = "text")]
    plan: &'a str,
}

#[tracked_model(owner(emial))]
#[derive(Insertable)]
#[diesel(table_name = users)]
struct Owner<'a> {
    #[tracked("contact.email")]
    email: &'a str,
    plan: &'a str,
}

fn main() {
    // No follow-on errors: Diesel's traits are there.
    let mut db = SqliteConnection::establish(":memory:").unwrap();
    let _ = diesel::insert_into(users::table).values(&Keys { email: "", plan: "" }).execute(&mut db);
    let _ = diesel::insert_into(users::table).values(Owner { email: "", plan: "" }).execute(&mut db);
}
