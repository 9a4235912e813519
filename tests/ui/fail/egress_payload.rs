use provenance::egress;

struct Client;

impl Client {
    #[egress(recipient = "mailchimp")]
    fn on_self(#[payload] &self) {}
}

#[egress]
fn to_nobody(#[payload] text: &str) -> usize {
    text.len()
}

#[egress(recipient = "mailchimp")]
fn with_arguments(#[payload(all)] text: &str, #[payload] #[payload] twice: &str) -> usize {
    text.len() + twice.len()
}

fn main() {
    Client.on_self();
    to_nobody("");
    with_arguments("", "");
}
