use provenance::Tracked;

struct Opaque;

#[derive(Tracked)]
struct Fields {
    #[tracked("contact.email")]
    email: Opaque,
    #[tracked("contact.email")]
    optional: Option<Opaque>,
    not_tracked: Opaque,
}

fn main() {
    let fields = Fields { email: Opaque, optional: None, not_tracked: Opaque };
    // No follow-on error: the implementation is there.
    needs_tracked(&fields);
}

fn needs_tracked(_: &impl Tracked) {}
