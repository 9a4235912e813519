//! `#[provenance_input]` on handlers of actix-web, Rocket and tiny_http, over real HTTP: no feature is
//! needed, and the scope is made by hand.

use std::sync::mpsc;

use provenance::{Scope, Tracked, provenance_input};
use provenance_tests::{Evidence, fields, tag, text};
use serde::{Deserialize, Serialize};

#[derive(Deserialize, Tracked, rocket::FromForm)]
#[tracked(owner(email))]
struct Signup {
    #[tracked("contact.email")]
    email: String,
    #[tracked("financial.income")]
    income: f64,
}

/// Not annotated: read by its members' names.
#[derive(Deserialize, Serialize)]
struct Plain {
    phone: String,
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).build().into()
}

/// Signs up by form, then by JSON, and gives the events of both.
fn drive(evidence: &Evidence, base: &str) -> Vec<serde_json::Value> {
    let form = agent()
        .post(format!("{base}/form"))
        .send_form([("email", "ada@example.com"), ("income", "4217.35")]);
    let json = agent()
        .post(format!("{base}/json"))
        .send_json(serde_json::json!({"phone": "+15550102030"}));
    for answer in [form, json] {
        let mut answer = answer.unwrap();
        let body = answer.body_mut().read_to_string().unwrap();
        assert_eq!((answer.status().as_u16(), &*body), (200, "ok"));
    }
    let events = evidence.of("DATA_COLLECTION");
    assert_eq!(events.len(), 2, "{events:#?}");
    assert_eq!(fields(&events[0]), ["email", "income"]);
    assert!(text(&tag(&events[0], "income")["owner"]).starts_with("email:"));
    assert_eq!(fields(&events[1]), ["phone"]);
    assert_eq!(tag(&events[1], "phone")["category"], "contact.phone_number");
    assert_ne!(events[0]["request_id"], events[1]["request_id"]);
    assert!(!evidence.holds("ada@example.com"));
    events
}

mod on_actix {
    use actix_web::body::MessageBody;
    use actix_web::dev::{ServiceRequest, ServiceResponse};
    use actix_web::middleware::{Next, from_fn};
    use actix_web::{App, HttpServer, web};

    use super::*;

    #[provenance_input]
    async fn form(form: web::Form<Signup>) -> &'static str {
        assert!(form.income > 0.0);
        "ok"
    }

    #[provenance_input]
    async fn json(web::Json(plain): web::Json<Plain>) -> &'static str {
        assert!(!plain.phone.is_empty());
        "ok"
    }

    /// The scope of a request, as the documentation has it.
    async fn in_scope(
        request: ServiceRequest,
        next: Next<impl MessageBody>,
    ) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
        let route = request.match_pattern().unwrap_or_else(|| "(no route)".into());
        let scope = Scope::new(format!("HTTP {} {route}", request.method()));
        scope.run(next.call(request)).await
    }

    pub(super) fn serve(evidence: &Evidence) -> String {
        let tracker = evidence.tracker.clone();
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let server = HttpServer::new(move || {
                // Runs on the worker's own thread, which lives as long as the test.
                std::mem::forget(provenance::test::scoped(&tracker));
                App::new()
                    .wrap(from_fn(in_scope))
                    .route("/form", web::post().to(form))
                    .route("/json", web::post().to(json))
            });
            let server = server.workers(1).bind(("127.0.0.1", 0)).unwrap();
            sender.send(server.addrs()[0]).unwrap();
            actix_web::rt::System::new().block_on(server.run()).unwrap();
        });
        format!("http://{}", receiver.recv().unwrap())
    }
}

#[test]
fn actix_web() {
    let evidence = Evidence::default();
    let events = drive(&evidence, &on_actix::serve(&evidence));
    assert_eq!(events[0]["actor"], "HTTP POST /form");
    assert_eq!(events[1]["actor"], "HTTP POST /json");
}

mod on_rocket {
    use rocket::fairing::AdHoc;
    use rocket::form::Form;
    use rocket::serde::json::Json;

    use super::*;

    #[rocket::post("/form", data = "<form>")]
    #[provenance_input]
    async fn form(form: Form<Signup>) -> &'static str {
        assert!(form.income > 0.0);
        "ok"
    }

    #[rocket::post("/json", data = "<plain>")]
    #[provenance_input(name = "json_on_rocket")]
    fn json(plain: Option<Json<Plain>>) -> &'static str {
        if plain.is_some() { "ok" } else { "none" }
    }

    pub(super) fn serve(evidence: &Evidence) -> String {
        let tracker = evidence.tracker.clone();
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let _tracker = provenance::test::scoped(&tracker);
            let config = rocket::Config {
                port: 0,
                log_level: rocket::config::LogLevel::Off,
                ..rocket::Config::default()
            };
            let tell = AdHoc::on_liftoff("port", move |rocket| {
                sender.send(rocket.config().port).unwrap();
                Box::pin(async {})
            });
            let server = rocket::custom(config)
                .mount("/", rocket::routes![form, json])
                .attach(tell);
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let _ended = runtime.enable_all().build().unwrap().block_on(server.launch());
        });
        format!("http://127.0.0.1:{}", receiver.recv().unwrap())
    }
}

#[test]
fn rocket() {
    let evidence = Evidence::default();
    let events = drive(&evidence, &on_rocket::serve(&evidence));
    // Without a scope around it, a handler makes its own.
    assert!(
        text(&events[0]["actor"]).ends_with("on_rocket::form"),
        "{}",
        events[0]["actor"]
    );
    assert!(
        text(&events[1]["actor"]).ends_with("::json_on_rocket"),
        "{}",
        events[1]["actor"]
    );
}

mod on_tiny_http {
    use tiny_http::{Method, Request, Response, Server};

    use super::*;

    #[provenance_input]
    fn form(email: &str, income: f64) -> &'static str {
        if !email.is_empty() && income > 0.0 {
            "ok"
        } else {
            "none"
        }
    }

    #[provenance_input]
    fn json(plain: &Plain) -> &'static str {
        if plain.phone.is_empty() { "none" } else { "ok" }
    }

    fn handle(request: &mut Request) -> Option<&'static str> {
        let mut body = String::new();
        request.as_reader().read_to_string(&mut body).ok()?;
        let scope = |route: &str| Scope::new(format!("HTTP POST {route}"));
        match (request.method(), request.url()) {
            (Method::Post, "/form") => {
                let _scope = scope("/form").enter();
                let pair = |pair: &str| pair.split_once('=').map(|(_, value)| value.replace("%40", "@"));
                let (email, income) = body.split_once('&')?;
                Some(form(&pair(email)?, pair(income)?.parse().ok()?))
            }
            (Method::Post, "/json") => {
                let _scope = scope("/json").enter();
                Some(json(&serde_json::from_str(&body).ok()?))
            }
            _ => None,
        }
    }

    pub(super) fn serve(evidence: &Evidence) -> String {
        let tracker = evidence.tracker.clone();
        let server = Server::http("127.0.0.1:0").unwrap();
        let address = server.server_addr();
        std::thread::spawn(move || {
            let _tracker = provenance::test::scoped(&tracker);
            for mut request in server.incoming_requests() {
                let answer = handle(&mut request).unwrap_or("none");
                request.respond(Response::from_string(answer)).unwrap();
            }
        });
        format!("http://{address}")
    }
}

#[test]
fn tiny_http() {
    let evidence = Evidence::default();
    let events = drive(&evidence, &on_tiny_http::serve(&evidence));
    assert_eq!(events[0]["actor"], "HTTP POST /form");
    assert_eq!(events[1]["actor"], "HTTP POST /json");
}
