use provenance::egress;

#[egress(recipient = "mailchimp")]
struct Client;

trait Send {
    #[egress(recipient = "mailchimp")]
    fn send(&self, #[payload] text: &str);
}

#[egress(recipient = "mailchimp")]
const fn constant() {}

const UNIT: () = constant();

fn main() {
    let _ = (Client, UNIT);
}
