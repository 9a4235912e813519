use provenance::Tracked;

#[derive(Tracked)]
struct Categories {
    #[tracked("email")]
    one_segment: String,
    #[tracked("Contact.E-Mail")]
    case: String,
    #[tracked("")]
    empty: String,
    #[tracked("contact..email")]
    gap: String,
    #[tracked("contact.2fa")]
    digit: String,
    #[tracked(contact.email)]
    unquoted: String,
    #[tracked(7)]
    number: String,
    #[tracked("contact.email", "contact.phone_number")]
    two: String,
    #[tracked("x.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")]
    long: String,
}

fn main() {}
