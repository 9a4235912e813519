use diesel::prelude::*;
use provenance::tracked_model;

diesel::table! {
    users (id) {
        id -> Integer,
        email -> Text,
    }
}

#[derive(Insertable)]
#[tracked_model(owner(email))]
#[diesel(table_name = users)]
struct BelowDerive<'a> {
    #[tracked("contact.email")]
    email: &'a str,
}

#[tracked_model(owner(email))]
struct NoModel {
    #[tracked("contact.email")]
    email: String,
}

#[tracked_model]
fn function() {}

#[tracked_model]
enum Enum {
    A,
}

fn main() {
    function();
    let _ = Enum::A;
    let _ = NoModel { email: String::new() }.email;
}
