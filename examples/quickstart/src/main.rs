//! A sign-up is stored, then sent to a newsletter partner; at the end the events are printed.
//!
//! Service and partner run here, on loopback. The evidence stays in the working folder.

use diesel::{connection::SimpleConnection, prelude::*};
use provenance::{Tracked, egress, provenance_input, tracked_model};
use serde::{Deserialize, Serialize};

diesel::table! {
    users (email) { email -> Text, income -> Double, plan -> Text, }
}

struct App {
    db: SqliteConnection,
    partner: String,
}

#[derive(Deserialize, Tracked)]
#[tracked(owner(email))]
struct Signup {
    #[tracked("contact.email")]
    email: String,
    #[tracked("financial.income", description = "Monthly income")]
    income: f64,
    plan: String, // not tracked
}

#[tracked_model(owner(email))] // every committed INSERT and UPDATE
#[derive(Insertable)]
#[diesel(table_name = users)]
struct NewUser<'a> {
    #[tracked("contact.email")]
    email: &'a str,
    #[tracked("financial.income", description = "Monthly income")]
    income: f64,
    plan: &'a str,
}

#[derive(Serialize)]
struct Subscriber<'a> {
    email: &'a str,
}

#[provenance_input] // every tracked field of every argument
fn signup(app: &mut App, form: Signup) -> anyhow::Result<()> {
    let Signup { email, income, plan } = &form;
    let user = NewUser {
        email,
        income: *income,
        plan,
    };
    diesel::insert_into(users::table).values(&user).execute(&mut app.db)?;
    subscribe(&app.partner, &Subscriber { email })?;
    Ok(())
}

#[egress(recipient = "newsletter", purpose = "newsletter", allow("contact.email"))]
fn subscribe(partner: &str, subscriber: &Subscriber<'_>) -> Result<(), ureq::Error> {
    ureq::post(partner).send_json(subscriber)?; // scanned, recorded on disk, then sent
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let _provenance = provenance::init()?; // the one line; dropping the guard flushes
    let audit = provenance_audit::spawn("127.0.0.1:0")?;

    let mut db = SqliteConnection::establish(":memory:")?;
    db.batch_execute("CREATE TABLE users (email TEXT PRIMARY KEY, income DOUBLE NOT NULL, plan TEXT NOT NULL)")?;
    let partner = serve(|_| Ok(()))?;
    let mut app = App { db, partner };
    let service = serve(move |form| signup(&mut app, serde_urlencoded::from_str(form)?))?;
    ureq::post(&service).send_form([("email", "ada@example.com"), ("income", "4200"), ("plan", "free")])?;

    provenance::flush(std::time::Duration::from_secs(5))?;
    let events = format!("http://{}/runtime-audit/events?limit=3", audit.addr());
    let events: serde_json::Value = ureq::get(events).call()?.body_mut().read_json()?;
    println!("{events:#}");
    Ok(())
}

/// Serves on a free port of loopback until the process ends; gives the address.
fn serve(mut handle: impl FnMut(&str) -> anyhow::Result<()> + Send + 'static) -> anyhow::Result<String> {
    let server = tiny_http::Server::http("127.0.0.1:0").map_err(anyhow::Error::from_boxed)?;
    let address = format!("http://{}", server.server_addr());
    std::thread::spawn(move || {
        for mut request in server.incoming_requests() {
            let mut body = String::new();
            let read = request.as_reader().read_to_string(&mut body);
            let done = read.map_err(anyhow::Error::from).and_then(|_| handle(&body));
            let _ = request.respond(tiny_http::Response::empty(if done.is_ok() { 204 } else { 500 }));
        }
    });
    Ok(address)
}
