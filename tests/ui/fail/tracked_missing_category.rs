use provenance::Tracked;

#[derive(Tracked)]
struct Bare {
    #[tracked]
    email: String,
    #[tracked()]
    name: String,
    #[tracked(description = "Home address")]
    address: String,
    #[tracked = "contact.phone_number"]
    phone: String,
}

fn main() {}
