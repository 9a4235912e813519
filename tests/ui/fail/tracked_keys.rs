use provenance::Tracked;

#[derive(Tracked)]
struct Keys {
    #[tracked("contact.email", descripton = "Email")]
    misspelt: String,
    #[tracked("contact.email", colour = "red")]
    unknown: String,
    #[tracked("contact.email", kind = "emial")]
    kind: String,
    #[tracked("contact.email", kind = "colour")]
    no_such_kind: String,
    #[tracked("contact.email", kind = email)]
    unquoted: String,
    #[tracked("contact.email", pii = "yes")]
    wrong_type: String,
    #[tracked("contact.email", description = "a", description = "b")]
    twice: String,
    #[tracked("contact.email")]
    #[tracked("contact.email")]
    two_attributes: String,
    #[tracked("contact.email", skip)]
    skip: String,
    #[tracked("contact.email", owner(email))]
    owner: String,
    #[tracked("contact.email", purpose = "newsletter")]
    purpose: String,
}

fn main() {}
