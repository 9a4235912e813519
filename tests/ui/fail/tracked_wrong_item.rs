use provenance::Tracked;

#[derive(Tracked)]
union Union {
    a: u32,
    b: f32,
}

#[derive(Tracked)]
enum OnVariant {
    #[tracked("contact.email")]
    Email(String),
}

fn main() {}
