// `tracked` belongs to `#[derive(Tracked)]` and `#[tracked_model]`: without them the compiler
// itself says that there is no such attribute.
use provenance::Tracked;

#[derive(Tracked)]
struct Derived {
    #[tracked("contact.email")]
    email: String,
}

struct NoDerive {
    #[tracked("contact.email")]
    email: String,
}

#[tracked("contact.email")]
struct Outside {
    email: String,
}

fn main() {}
