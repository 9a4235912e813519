use provenance::Tracked;

#[derive(Tracked)]
#[tracked(owner(emial), owner(name))]
struct Unknown {
    #[tracked("contact.email")]
    email: String,
    name: String,
}

#[derive(Tracked)]
#[tracked(owner(id, customer as "user", email as "E-Mail", email, email, 7 as "user", name = "x"))]
struct Owners {
    id: i32,
    #[tracked("contact.email")]
    email: String,
}

#[derive(Tracked)]
#[tracked(owner)]
struct NoList {
    email: String,
}

#[derive(Tracked)]
#[tracked(owner())]
struct EmptyList {
    email: String,
}

#[derive(Tracked)]
#[tracked("contact.email")]
struct OnType {
    email: String,
}

#[derive(Tracked)]
#[tracked(pii = true, purpose = newsletter)]
struct FieldKeyOnType {
    email: String,
}

fn main() {}
