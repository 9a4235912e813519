//! The axum layer, over real HTTP: it records, and it changes nothing.

use axum::extract::{DefaultBodyLimit, Path};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Form, Json, Router};
use provenance::{Tracked, provenance_input};
use provenance_tests::{Evidence, fields, tag, text};
use serde::Deserialize;

/// Serves `router` on a thread of its own, with `evidence`'s tracker in force, for as long as the test lives.
fn serve(router: Router, evidence: Option<&Evidence>) -> String {
    let tracker = evidence.map(|evidence| evidence.tracker.clone());
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _tracker = tracker.as_ref().map(provenance::test::scoped);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            sender.send(listener.local_addr().unwrap()).unwrap();
            axum::serve(listener, router).await.unwrap();
        });
    });
    format!("http://{}", receiver.recv().unwrap())
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).build().into()
}

#[derive(Deserialize, Tracked)]
#[tracked(owner(email))]
struct Signup {
    #[tracked("contact.email", description = "Login")]
    email: String,
    #[tracked("financial.income")]
    income: f64,
    #[tracked("security.password")]
    password: String,
}

#[provenance_input]
async fn signup(Form(form): Form<Signup>) -> String {
    format!("{} {} {}", form.email.len(), form.income, form.password.len())
}

fn app() -> Router {
    Router::new()
        .route("/signup", post(signup))
        .route("/plain", post(async |body: String| body.len().to_string()))
        .route(
            "/json",
            post(async |Json(json): Json<serde_json::Value>| json.to_string().len().to_string()),
        )
        .route(
            "/people/{email}/notes",
            get(async |Path(email): Path<String>| email.len().to_string()),
        )
        .route("/unread", post(async || "unread"))
        .layer(provenance::axum::layer())
}

#[test]
fn one_event_a_request_and_the_typed_field_wins() {
    let evidence = Evidence::default();
    let base = serve(app(), Some(&evidence));
    let response = agent()
        .post(format!("{base}/signup?campaign=spring"))
        .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        .header("x-request-id", "req-0123456789")
        .send_form([
            ("email", "ada@example.com"),
            ("income", "4217.35"),
            ("password", "pa55phrase!"),
            ("phone", "+1 555 010 2030"),
        ])
        .unwrap()
        .body_mut()
        .read_to_string()
        .unwrap();
    assert_eq!(response, "15 4217.35 11");

    let events = evidence.of("DATA_COLLECTION");
    assert_eq!(events.len(), 1, "{events:#?}");
    let event = &events[0];
    assert_eq!(event["actor"], "HTTP POST /signup");
    assert_eq!(event["request_id"], "req-0123456789");
    assert_eq!(event["extras"]["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(fields(event), ["email", "income", "password", "campaign", "phone"]);
    assert_eq!(tag(event, "email")["description"], "Login");
    assert_eq!(tag(event, "email")["source"], "HTTP POST /signup");
    let owner = text(&tag(event, "email")["owner"]);
    assert!(owner.starts_with("email:") && !owner.contains("ada"), "{owner}");
    assert_eq!(tag(event, "phone")["owner"], owner.as_str());
    assert_eq!(tag(event, "campaign")["category"], "unknown");
    assert_eq!(tag(event, "campaign")["pii"], false);
    assert!(tag(event, "password")["fingerprint"].is_null());
    assert!(event["payload"]["fields"]["password"].get("length").is_none());
    assert_eq!(event["payload"]["fields"]["email"]["length"], 15);
    for raw in ["ada@example.com", "4217.35", "pa55phrase!", "010 2030"] {
        assert!(!evidence.holds(raw), "{raw}");
    }
}

#[test]
fn parameters_are_read_without_touching_handlers() {
    let evidence = Evidence::default();
    let base = serve(app(), Some(&evidence));
    let body = r#"{"user": {"email": "grace@example.com", "tags": ["a", "b"]}, "income": 5000}"#;
    agent()
        .post(format!("{base}/json"))
        .content_type("application/json")
        .send(body)
        .unwrap();
    agent()
        .get(format!("{base}/people/alan@example.com/notes?name=Alan%20Turing"))
        .call()
        .unwrap();
    agent()
        .post(format!("{base}/unread"))
        .send_form([("email", "never@example.com")])
        .unwrap();

    let events = evidence.of("DATA_COLLECTION");
    assert_eq!(events.len(), 2, "what no handler read was not taken: {events:#?}");
    assert_eq!(fields(&events[0]), ["email", "tags", "tags", "income"]);
    assert_eq!(events[0]["payload"]["fields"]["email"]["in"], "json");
    assert_eq!(events[1]["actor"], "HTTP GET /people/{email}/notes");
    assert_eq!(fields(&events[1]), ["email", "name"]);
    assert_eq!(events[1]["payload"]["fields"]["email"]["in"], "path");
    assert!(!evidence.holds("turing"));
}

#[test]
fn handlers_answer_as_without_us() {
    let evidence = Evidence::default();
    let limited = || app().layer(DefaultBodyLimit::max(900_000));
    let (ours, plain) = (serve(limited(), Some(&evidence)), serve(limited(), None));
    let nested = "[".repeat(10_000) + &"]".repeat(10_000);
    let many = (0..100_000).map(|i| format!("p{i}=")).collect::<Vec<_>>().join("&");
    let huge = vec![b'x'; 1 << 20];
    let keyed = r#"{"alice@example.com": {"alice smith": 1}}"#;
    let form = "application/x-www-form-urlencoded";
    let cases: [(&str, &str, &[u8]); 8] = [
        ("/json", "application/json", b"{\"email\": \"a@example.com\""),
        ("/json", "application/json", b"\xff\xfe\x00"),
        ("/json", "application/json", nested.as_bytes()),
        ("/json", "application/json", keyed.as_bytes()),
        ("/json", "application/json", &huge),
        ("/signup", form, many.as_bytes()),
        ("/signup", form, b"email=%ff%fe&income=abc"),
        ("/plain", form, &huge),
    ];
    for (path, content_type, body) in cases {
        let answer = |base: &str| {
            // A server that refuses a large body may close before the client has sent it all.
            let send = || {
                agent()
                    .post(format!("{base}{path}"))
                    .content_type(content_type)
                    .send(body)
            };
            let mut response = (0..20).find_map(|_| send().ok()).unwrap();
            (response.status(), response.body_mut().read_to_string().unwrap())
        };
        assert_eq!(answer(&ours), answer(&plain), "{path} {content_type} {}", body.len());
    }
    assert_eq!(
        agent().get(format!("{ours}/nowhere?email=x")).call().unwrap().status(),
        StatusCode::NOT_FOUND.as_u16()
    );
    assert!(
        evidence.blind_spots().contains(&"capped_input".to_owned()),
        "{:?}",
        evidence.blind_spots()
    );
    assert!(!evidence.holds("alice"), "personal data as keys");
}

#[test]
fn interleaved_requests_keep_their_scopes() {
    let evidence = Evidence::default();
    let router = Router::new()
        .route(
            "/slow",
            post(async |Form(form): Form<Vec<(String, String)>>| {
                let before = provenance::Scope::current().unwrap().request_id().to_string();
                tokio::time::sleep(std::time::Duration::from_millis(30)).await;
                let spawned = tokio::spawn(provenance::scoped(async {
                    provenance::Scope::current().unwrap().request_id().to_string()
                }));
                let after = spawned.await.unwrap();
                assert_eq!(before, after);
                form.len().to_string()
            }),
        )
        .layer(provenance::axum::layer());
    let base = serve(router, Some(&evidence));
    let threads: Vec<_> = (0..8)
        .map(|i| {
            let url = format!("{base}/slow");
            std::thread::spawn(move || {
                let sent = agent().post(url).send_form([("email", format!("p{i}@example.com"))]);
                assert_eq!(sent.unwrap().body_mut().read_to_string().unwrap(), "1");
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let events = evidence.of("DATA_COLLECTION");
    let ids: std::collections::HashSet<_> = events.iter().map(|event| text(&event["request_id"])).collect();
    let owners: std::collections::HashSet<_> = events.iter().map(|event| text(&event["extras"]["owner"])).collect();
    assert_eq!((events.len(), ids.len(), owners.len()), (8, 8, 8));
}

#[test]
fn a_request_id_that_is_somebodys_value_is_not_kept() {
    let evidence = Evidence::default();
    let base = serve(app(), Some(&evidence));
    {
        let _tracker = evidence.scoped();
        provenance::tag("user.unique_id", "login", "carol-lidd3ll").unwrap();
    }
    let signup = agent()
        .post(format!("{base}/signup"))
        .header("x-request-id", "carol-lidd3ll")
        .send_form([
            ("email", "ada@example.com"),
            ("income", "1"),
            ("password", "pa55phrase!"),
        ]);
    assert_eq!(signup.unwrap().status(), 200);
    assert_eq!(evidence.of("DATA_COLLECTION").len(), 1);
    assert!(!evidence.holds("lidd3ll"));
}
