//! A sign-up that is stored and passed on to a newsletter partner, and what the record says of it.
//!
//! Everything runs here: the service and its partner on loopback, the service's database in memory.
//! The evidence stays in the working folder: `provenance-audit serve --db runtime_provenance.db`.

use std::thread;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use provenance::{Tracked, egress, provenance_input, tracked_model};
use serde::{Deserialize, Serialize};
use tiny_http::{Response, Server};

diesel::table! {
    users (email) { email -> Text, income -> Double, plan -> Text, }
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
    source: &'a str,
}

#[provenance_input] // every tracked field of every argument
fn signup(form: Signup, db: &mut SqliteConnection, partner: &str) -> anyhow::Result<()> {
    let user = NewUser {
        email: &form.email,
        income: form.income,
        plan: &form.plan,
    };
    diesel::insert_into(users::table).values(&user).execute(db)?;
    subscribe(
        partner,
        &Subscriber {
            email: &form.email,
            source: "sign-up",
        },
    )?;
    Ok(())
}

#[egress(recipient = "newsletter", purpose = "newsletter", allow("contact.email"))]
fn subscribe(partner: &str, subscriber: &Subscriber<'_>) -> Result<(), ureq::Error> {
    ureq::post(partner).send_json(subscriber)?; // scanned, recorded on disk, then sent
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let provenance = provenance::init()?; // the one line; dropping the guard flushes
    let partner = serve(|_| Ok(()))?;
    let service = serve(move |body| {
        let mut db = SqliteConnection::establish(":memory:")?;
        db.batch_execute("CREATE TABLE users (email TEXT PRIMARY KEY, income DOUBLE NOT NULL, plan TEXT NOT NULL)")?;
        signup(serde_urlencoded::from_str(body)?, &mut db, &partner)
    })?;
    ureq::post(&service).send_form([("email", "ada@example.com"), ("income", "4200"), ("plan", "free")])?;

    provenance::flush(std::time::Duration::from_secs(5))?;
    let Some(tracker) = provenance.tracker() else {
        return Ok(());
    };
    let provenance::config::Storage::Sqlite(path) = &tracker.config().storage else {
        return Ok(());
    };
    let query = provenance::store::EventQuery {
        limit: 3,
        ..Default::default()
    };
    for event in provenance::store::Reader::open(path)?
        .events(&query)?
        .events
        .iter()
        .rev()
    {
        println!("{}", serde_json::to_string_pretty(event)?);
    }
    Ok(())
}

/// Serves on a free port of loopback until the process ends; gives the address.
fn serve(handle: impl Fn(&str) -> anyhow::Result<()> + Send + 'static) -> anyhow::Result<String> {
    let server = Server::http("127.0.0.1:0").map_err(anyhow::Error::from_boxed)?;
    let address = format!("http://{}", server.server_addr());
    thread::spawn(move || {
        for mut request in server.incoming_requests() {
            let mut body = String::new();
            let done = request
                .as_reader()
                .read_to_string(&mut body)
                .map_err(Into::into)
                .and_then(|_| handle(&body));
            let _ = request.respond(Response::empty(if done.is_ok() { 204 } else { 500 }));
        }
    });
    Ok(address)
}
