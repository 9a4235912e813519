use provenance::provenance_input;

#[provenance_input(purpse = "signup", basis = consent, basis = "consent", subject, recipient = "x")]
fn keys(form: String) {
    drop(form);
}

#[provenance_input("signup")]
fn literal(form: String) {
    drop(form);
}

#[provenance_input(crate = 7, name("x"), data_use = true)]
fn types(form: String) {
    drop(form);
}

fn main() {
    keys(String::new());
    literal(String::new());
    types(String::new());
}
