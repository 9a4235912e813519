// The user's own type errors stay where they are without the attribute.
use provenance::provenance_input;

#[provenance_input]
async fn wrong_return(form: String) -> usize {
    form
}

#[provenance_input]
fn wrong_return_sync(form: String) -> usize {
    form
}

fn main() {}
