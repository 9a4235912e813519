use provenance::{Tracked, egress};

#[derive(Tracked)]
struct Signup {
    #[tracked("contact.email")]
    email: String,
    #[tracked("health.note", description = "What the doctor said")]
    note: Option<String>,
    #[tracked("financial.income")]
    income: f64,
}

#[derive(Tracked)]
struct Batch<'a> {
    signups: &'a [Box<Signup>],
}

/// Both fields that are not allowed.
#[egress(recipient = "mailchimp", allow("contact.email"))]
fn send_welcome(#[payload] signup: &Signup) -> usize {
    signup.email.len() + signup.note.is_some() as usize + signup.income as usize
}

/// What a field contains counts.
#[egress(recipient = "crm", allow("contact", "financial"))]
fn send_batch(#[payload] batch: &Batch<'_>) -> usize {
    batch.signups.len()
}

struct Client;

impl Client {
    /// A generic method, judged where it is used.
    #[egress(recipient = "partner", name = "Client::publish", allow("contact", "health"))]
    fn publish<T: Tracked>(&self, #[payload] messages: &[T]) -> usize {
        messages.len()
    }
}

#[egress(recipient = "queue", allow())]
fn enqueue(#[payload] message: impl Tracked) {
    drop(message);
}

fn main() {
    let signup = Signup {
        email: String::new(),
        note: None,
        income: 0.0,
    };
    send_welcome(&signup);
    send_batch(&Batch { signups: &[] });
    Client.publish(std::slice::from_ref(&signup));
    enqueue(signup);
}
