use provenance::egress;

#[egress(recipent = "mailchimp", allow("contact.email"), allow("contact"), purpose = newsletter)]
fn keys(agent: &ureq::Agent) -> Result<(), ureq::Error> {
    agent.get("http://localhost/").call()?;
    Ok(())
}

#[egress(recipient = "mailchimp", allow = "contact.email")]
fn allow_takes_a_list(agent: &ureq::Agent) -> Result<(), ureq::Error> {
    agent.get("http://localhost/").call()?;
    Ok(())
}

#[egress(allow("Contact.Email", "email"))]
fn categories(agent: &ureq::Agent) -> Result<(), ureq::Error> {
    agent.get("http://localhost/").call()?;
    Ok(())
}

#[egress(allow(contact.email))]
fn unquoted(agent: &ureq::Agent) -> Result<(), ureq::Error> {
    agent.get("http://localhost/").call()?;
    Ok(())
}

#[egress(recipient = "mailchimp")]
struct NoFunction;

fn main() {
    let agent = ureq::Agent::new_with_defaults();
    let _ = (keys(&agent), allow_takes_a_list(&agent), categories(&agent), unquoted(&agent), NoFunction);
}
