use provenance::{Tracked, derived, provenance_input};

#[derive(Tracked)]
struct Signup {
    #[tracked]
    email: String,
}

#[derive(Tracked)]
#[tracked(owner(nobody))]
enum Contact<'a, T> {
    Email(#[tracked("email")] &'a str),
    Other(T),
}

#[provenance_input(purpos = "x")]
fn handler(Wrapper(signup): Wrapper) -> usize {
    signup.email.len()
}

struct Wrapper(Signup);

#[derived]
fn score(n: usize) -> usize {
    n
}

fn needs_tracked(_: &impl Tracked) {}

fn main() {
    let signup = Signup { email: String::new() };
    needs_tracked(&signup);
    needs_tracked(&Contact::<i32>::Email("a"));
    score(handler(Wrapper(signup)));
}
