use provenance::provenance_input;

#[provenance_input]
struct Form {
    email: String,
}

#[provenance_input]
enum Kind {}

#[provenance_input]
impl Form {
    fn new() {}
}

trait Handler {
    #[provenance_input]
    fn handle(&self, form: Form);
}

#[provenance_input]
const fn constant(n: u32) -> u32 {
    n
}

#[provenance_input]
mod module {}

const N: u32 = constant(1);

fn main() {
    let form = Form { email: String::new() };
    drop(form.email);
    Form::new();
}
