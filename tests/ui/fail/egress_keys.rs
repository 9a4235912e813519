use provenance::egress;

#[egress("mailchimp")]
fn literal() {}

#[egress(recipent = "mailchimp", recipient = "")]
fn keys() {}

#[egress(recipient = mailchimp, recipient = "mailchimp")]
fn quotes() {}

#[egress(recipient = "mailchimp", allow = "contact.email")]
fn no_list() {}

#[egress(recipient = "mailchimp", allow(contact.email))]
fn no_strings() {}

#[egress(recipient = "mailchimp", allow("Contact.E-Mail", "e-mail", "financial"))]
fn syntax() {}

fn main() {
    literal();
    keys();
    quotes();
    no_list();
    no_strings();
    syntax();
}
